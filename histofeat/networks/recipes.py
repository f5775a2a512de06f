"""How a network is trained, as data: one frozen record for each way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from types import MappingProxyType

from histofeat.exceptions import known_names
from histofeat.networks.schedules import SCHEDULES

__all__ = ["ALEXNET", "CANCERNET", "FINE_TUNING", "FROM_SCRATCH", "MONITORS", "OPTIMIZERS", "RESNET_SMALL", "Recipe"]

OPTIMIZERS = ("adagrad", "adam", "adamw", "sgd")
#: What the kept epoch is chosen by, on the patients held out.
MONITORS = ("loss", "roc_auc")
_BELOW_ONE = ("label_smoothing", "averaging", "warmup")


@dataclass(frozen=True)
class Recipe:
    """One way to train a network.

    Parameters
    ----------
    optimizer : {"adagrad", "adam", "adamw", "sgd"}, default="adamw"
        "sgd" has a Nesterov momentum of 0.9; the others are as Keras has them.
    learning_rate : float above 0, default=2e-3
        Its highest value; of two stages, that of the first.
    batch_size : int from 2, default=64
    epochs : int from 1, default=12
        Of both stages together.
    schedule : {"one_cycle", "cosine", "constant", "inverse_time"}, default="one_cycle"
        See `histofeat.networks.schedules.learning_rates`; each of two stages has its own.
    warmup : float in [0, 1), default=0.25
        Part of the steps in which a "one_cycle" rises.
    weight_decay : float from 0, default=1e-3
        Of kernels alone, not of biases and normalisations; for "adamw" and "sgd".
    label_smoothing : float in [0, 1), default=0
        Part of each label that is shared out among the classes.
    averaging : float in [0, 1), default=0
        Momentum of the exponential average of the weights that is validated and kept; 0 keeps the weights themselves.
    monitor : {"loss", "roc_auc"}, default="roc_auc"
        What the kept epoch is chosen by.
    head_epochs : int from 0, default=0
        Epochs of the first stage of two, in which only the head of a pretrained network learns.
    fine_tuning_rate : float above 0, default=0.1
        Learning rate of the second stage, as a part of the first one's.

    Raises
    ------
    ValueError
        If a value is out of its range.

    Examples
    --------
    >>> Recipe(epochs=3).batch_size
    64
    >>> Recipe(optimizer="adamx")
    Traceback (most recent call last):
        ...
    ValueError: Recipe.optimizer: expected one of 'adagrad', 'adam', 'adamw', 'sgd', got 'adamx'. Did you mean ...
    """

    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    batch_size: int = 64
    epochs: int = 12
    schedule: str = "one_cycle"
    warmup: float = 0.25
    weight_decay: float = 1e-3
    label_smoothing: float = 0.0
    averaging: float = 0.0
    monitor: str = "roc_auc"
    head_epochs: int = 0
    fine_tuning_rate: float = 0.1

    def __post_init__(self):
        """Refuse what is out of range."""
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("monitor", MONITORS)):
            _check_name(name, getattr(self, name), known)
        for name, least in (("batch_size", 2), ("epochs", 1), ("head_epochs", 0)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
                raise ValueError(f"Recipe.{name}: expected a whole number from {least}, got {value!r}. Correct it.")
        for name in ("learning_rate", "fine_tuning_rate"):
            _check_real(name, getattr(self, name), "above 0", lambda value: value > 0)
        _check_real("weight_decay", self.weight_decay, "from 0", lambda value: value >= 0)
        for name in _BELOW_ONE:
            _check_real(name, getattr(self, name), "from 0, below 1", lambda value: 0 <= value < 1)

    def as_dict(self) -> dict[str, object]:
        """Field names and values, as JSON can hold them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _check_name(name, value, known):
    if value not in known:
        listed = ", ".join(map(repr, known))
        raise ValueError(f"Recipe.{name}: expected one of {listed}, got {value!r}. {known_names(value, known)}")


def _check_real(name, value, words, fits):
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value) or not fits(value):
        raise ValueError(f"Recipe.{name}: expected a number {words}, got {value!r}. Correct it.")


#: CancerNet, and as it was published: Keras 2 let the rate fall with the inverse of the time, by 0.01 / 40 a step.
CANCERNET: Mapping[str, Recipe] = MappingProxyType(
    {
        "standard": Recipe(learning_rate=2e-3, batch_size=32, epochs=12),
        "published": Recipe(
            optimizer="adagrad",
            learning_rate=1e-2,
            batch_size=32,
            epochs=40,
            schedule="inverse_time",
            weight_decay=0.0,
            monitor="loss",
        ),
    }
)
#: Without normalisation, AlexNet learns nothing at the rates of the others.
ALEXNET: Mapping[str, Recipe] = MappingProxyType({"standard": Recipe(learning_rate=2e-4, batch_size=32, epochs=15)})
RESNET_SMALL: Mapping[str, Recipe] = MappingProxyType(
    {"standard": Recipe(learning_rate=4e-3, batch_size=64, epochs=15)}
)
#: Pretrained networks: the head alone, then the last blocks with it.
FINE_TUNING: Mapping[str, Recipe] = MappingProxyType(
    {"standard": Recipe(learning_rate=3e-3, batch_size=64, epochs=5, head_epochs=1, fine_tuning_rate=1 / 3)}
)
#: The same networks from random weights.
FROM_SCRATCH: Mapping[str, Recipe] = MappingProxyType(
    {"standard": Recipe(learning_rate=1e-3, batch_size=32, epochs=30, label_smoothing=0.05)}
)
