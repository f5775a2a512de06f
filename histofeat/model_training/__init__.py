"""From a folder of labelled images to a model: the data opened, an honest estimate, the final fit."""

from histofeat.datasets.opening import FORMATS, open_dataset, patch_size_of, training_part
from histofeat.evaluation.training import estimate_scores, make_pipeline, train_model

__all__ = [
    "FORMATS",
    "estimate_scores",
    "make_pipeline",
    "open_dataset",
    "patch_size_of",
    "train_model",
    "training_part",
]
