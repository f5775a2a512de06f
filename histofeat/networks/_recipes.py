"""Training recipes: one frozen record each, with the optimizer and the learning rates that it describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from histofeat.exceptions import check_name, check_real, check_that, check_whole
from histofeat.networks._augmentation import STANDARD, Augmentation
from histofeat.networks.pretrained._network import import_keras

#: Values of a recipe that are chosen by name. `monitor` chooses the kept epoch, `fine_tune` says what learns in the
#: second stage from pretrained weights.
_CHOICES = {
    "optimizer": ("adagrad", "adam", "adamw", "sgd"),
    "schedule": ("constant", "cosine", "inverse_time", "one_cycle"),
    "monitor": ("loss", "roc_auc"),
    "fine_tune": ("head", "last_blocks", "all"),
    "precision": ("float32", "bfloat16"),
    "on_unreadable": ("error", "skip"),
}
#: Where a cycle starts, as a part of its highest rate.
_START = 0.04


def learning_rates(schedule: str, peak: float, n_steps: int, *, warmup: float = 0.25, n_epochs: int = 1) -> np.ndarray:
    """The learning rate of every step of a stage.

    Parameters
    ----------
    schedule : {"one_cycle", "cosine", "constant", "inverse_time"}
        Its shape.
    peak : float
        Its highest value.
    n_steps : int
        Steps of the stage.
    warmup : float in [0, 1), default=0.25
        Part of the steps in which "one_cycle" rises.
    n_epochs : int, default=1
        Epochs of the stage, for "inverse_time".

    Returns
    -------
    rates : ndarray of shape (n_steps,), float64
        All above 0, except that the last of "one_cycle" and "cosine" come near to it.

    Raises
    ------
    ValueError
        If the schedule is unknown.

    Notes
    -----
    With u the part of the steps that is done, "cosine" is ``peak (1 + cos(pi u)) / 2``. "one_cycle" rises from 0.04 of
    the peak along half a cosine and falls along another (Smith and Topin, arXiv:1708.07120, without the cycle of the
    momentum). "inverse_time" is ``peak / (1 + peak t / n_epochs)`` at step t, as CancerNet was published.

    Examples
    --------
    >>> learning_rates("cosine", 1.0, 4).round(3).tolist()
    [1.0, 0.854, 0.5, 0.146]
    >>> learning_rates("one_cycle", 1.0, 8).round(2).tolist()
    [0.04, 0.52, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07]
    """
    step = np.arange(n_steps, dtype=np.float64)
    done = step / max(n_steps, 1)
    if schedule == "constant":
        return np.full(n_steps, float(peak))
    if schedule == "cosine":
        return peak * _fall(done)
    if schedule == "inverse_time":
        return peak / (1 + peak / n_epochs * step)
    check_name("CNNClassifier.schedule", schedule, _CHOICES["schedule"], "a known schedule")
    rise = 1 - _fall(done / warmup) if warmup else np.ones(n_steps)
    return peak * np.where(done < warmup, _START + (1 - _START) * rise, _fall((done - warmup) / (1 - warmup)))


def _fall(done):
    """From 1 to 0 along half a cosine."""
    return 0.5 * (1 + np.cos(np.pi * done))


_LEAST_MOMENTUM = 0.5


def forget_sooner(model: Any, n_steps: int) -> None:
    """Lower the momentum of normalisation layers, so that their first statistics fade in a twentieth of a short stage.

    Parameters
    ----------
    model : keras.Model
        Not compiled yet. A pretrained base does not use its momentum: its statistics stay as they are.
    n_steps : int
        Steps of the stage.

    Notes
    -----
    The momentum m becomes ``min(m, max(0.5, 1 - 20 / n_steps))``. With Keras's 0.99 the statistics of 100 steps would
    hold a third of their first values, 0 and 1, and validation would see another network than training.
    """
    normalisation = import_keras().layers.BatchNormalization
    inner = [layer for part in model.layers for layer in getattr(part, "layers", ())]
    for layer in [*model.layers, *inner]:
        if isinstance(layer, normalisation):
            layer.momentum = min(layer.momentum, max(_LEAST_MOMENTUM, 1 - 20 / n_steps))


def make_optimizer(recipe: Recipe, rate: float | np.ndarray, n_steps: int) -> Any:
    """Make the optimizer of a stage.

    Parameters
    ----------
    recipe : Recipe
    rate : float or ndarray of shape (n_steps,)
        Its learning rate, or that of each step.
    n_steps : int
        Steps of the stage: an average of the weights spans a tenth of them at most, since over a few steps it would
        mostly hold the first weights.

    Returns
    -------
    optimizer : keras.optimizers.Optimizer
    """
    kind = {"adagrad": "Adagrad", "adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}[recipe.optimizer]
    momentum = min(recipe.averaging, max(0.0, 1 - 10 / n_steps))
    options = {"use_ema": recipe.averaging > 0, "ema_momentum": momentum}
    if kind == "SGD":
        options |= {"momentum": 0.9, "nesterov": True}
    if kind in ("AdamW", "SGD"):
        options["weight_decay"] = recipe.weight_decay or None
    rate = _as_schedule(rate) if isinstance(rate, np.ndarray) else rate
    optimizer = getattr(import_keras().optimizers, kind)(rate, **options)
    if options.get("weight_decay"):
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _as_schedule(rates: np.ndarray):
    """Give a table of learning rates as a schedule of Keras."""
    keras = import_keras()

    class Table(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return keras.ops.take(rates.astype(np.float32), step)

    return Table()


_POSITIVE = ("above 0", lambda value: value > 0)
_FRACTION = ("from 0, below 1", lambda value: 0 <= value < 1)
#: Ranges of the numbers that need not be whole, in words and as a function.
_RANGES = {
    **dict.fromkeys(("learning_rate", "fine_tuning_rate"), _POSITIVE),
    "weight_decay": ("from 0", lambda value: value >= 0),
    **dict.fromkeys(("label_smoothing", "averaging", "warmup"), _FRACTION),
}


@dataclass(frozen=True)
class Recipe:
    """One way to train a network.

    Parameters
    ----------
    optimizer : {"adagrad", "adam", "adamw", "sgd"}, default="adamw"
        "sgd" has a Nesterov momentum of 0.9; the others have Keras's defaults.
    learning_rate : float above 0, default=2e-3
        Highest learning rate; with two stages, that of the first.
    batch_size : int from 2, default=64
    epochs : int from 1, default=12
        Number of epochs, of both stages together.
    schedule : {"one_cycle", "cosine", "constant", "inverse_time"}, default="one_cycle"
        See `histofeat.networks.learning_rates`; each of two stages has its own.
    warmup : float in [0, 1), default=0.25
        Fraction of the steps in which a "one_cycle" rises.
    weight_decay : float from 0, default=1e-3
        Applied to kernels, not to biases and normalisations; for "adamw" and "sgd".
    label_smoothing : float in [0, 1), default=0
        Part of each label that is distributed over the classes.
    averaging : float in [0, 1), default=0
        Momentum of the exponential average of the weights that is validated and kept; 0 keeps the weights themselves.
    monitor : {"loss", "roc_auc"}, default="roc_auc"
        Validation measure that chooses the kept epoch.
    patience : int from 1 or None, default=None
        Stop the last stage after this number of epochs without a better one; None runs it to its end.
    head_epochs : int from 0, default=0
        Epochs of the first of two stages, in which only the head of a pretrained network learns.
    fine_tuning_rate : float above 0, default=0.1
        Learning rate of the second stage as a fraction of the first one's.
    fine_tune : {"head", "last_blocks", "all"}, default="last_blocks"
        What learns in the second stage from pretrained weights; with "head" there is no second stage.
    augmentation : Augmentation or None, default=STANDARD
        Random changes of training patches.
    precision : {"float32", "bfloat16"}, default="float32"
        Arithmetic of the layers.
    on_unreadable : {"error", "skip"}, default="error"
        Whether an image that cannot be read ends the fit, or is left out and counted. Prediction always raises.

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
    ValueError: Recipe.optimizer: expected one of adagrad, adam, adamw, sgd, got 'adamx'. Did you mean ...
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
    patience: int | None = None
    head_epochs: int = 0
    fine_tuning_rate: float = 0.1
    fine_tune: str = "last_blocks"
    augmentation: Augmentation | None = STANDARD
    precision: str = "float32"
    on_unreadable: str = "error"

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name, known in _CHOICES.items():
            check_name(f"Recipe.{name}", getattr(self, name), known)
        for name, least in (("batch_size", 2), ("epochs", 1), ("head_epochs", 0)):
            check_whole(f"Recipe.{name}", getattr(self, name), least, f"Use {getattr(Recipe, name)}.")
        if self.patience is not None:
            check_whole("Recipe.patience", self.patience, 1, "Use None to run to the end.")
        for name, (words, fits) in _RANGES.items():
            check_real(f"Recipe.{name}", getattr(self, name), words, fits, f"Use {getattr(Recipe, name)}.")
        fits, remedy = isinstance(self.augmentation, Augmentation | None), "Leave it out for the standard one."
        check_that("Recipe.augmentation", self.augmentation, fits, "an Augmentation or None", remedy)

    def as_dict(self) -> dict[str, object]:
        """Field names and values that JSON can hold; a dict for the augmentation."""
        return asdict(self)


def _standard(**values) -> Mapping[str, Recipe]:
    return MappingProxyType({"standard": Recipe(**values)})


#: Without normalisation, AlexNet learns nothing at the rates of the others.
ALEXNET = _standard(learning_rate=2e-4, batch_size=32, epochs=15)
RESNET_SMALL = _standard(learning_rate=4e-3, batch_size=64, epochs=15)
#: Pretrained networks: the head alone, then the last blocks with it.
FINE_TUNING = _standard(learning_rate=3e-3, batch_size=64, epochs=5, head_epochs=1, fine_tuning_rate=1 / 3)
#: The network of `histo`, all of it at once. The jitter is wider than elsewhere, because an encoder meets slides of
#: unknown laboratories and scanners; without that of the light, darker patches are lost on it.
LITE = _standard(
    learning_rate=1e-3, batch_size=128, epochs=8, warmup=0.1, weight_decay=0.02, averaging=0.99, fine_tuning_rate=1.0,
    fine_tune="all", augmentation=Augmentation(brightness=0.2, shift_px=8),
)  # fmt: skip
#: The same networks from random weights.
FROM_SCRATCH = _standard(learning_rate=1e-3, batch_size=32, epochs=30, label_smoothing=0.05)
#: CancerNet, and as it was published: Keras 2 let the rate fall with the inverse of the time, by 0.01 / 40 a step.
CANCERNET: Mapping[str, Recipe] = MappingProxyType(
    {
        **_standard(learning_rate=2e-3, batch_size=32, epochs=12),
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
