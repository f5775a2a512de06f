"""Networks on patches: a scikit-learn classifier that trains them, and what it trains with. Keras loads when used."""

from histofeat.networks.architectures import ARCHITECTURES, Architecture
from histofeat.networks.augmentation import Augmentation, augment
from histofeat.networks.checkpoint import CheckpointError
from histofeat.networks.classifier import CNNClassifier
from histofeat.networks.recipes import Recipe

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Augmentation",
    "CNNClassifier",
    "CheckpointError",
    "Recipe",
    "augment",
]
