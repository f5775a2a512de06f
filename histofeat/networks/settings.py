"""The parameters of a classifier, checked and resolved: what a training is, and what its checkpoint is known by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from histofeat.exceptions import WeightsError, known_names
from histofeat.images import VIEW_COUNTS
from histofeat.networks.architectures import Architecture, find_architecture
from histofeat.networks.augmentation import STANDARD, Augmentation
from histofeat.networks.pretrained.catalogue import find_weights
from histofeat.networks.pretrained.weights import hash_weights
from histofeat.networks.recipes import SCHEDULES, Recipe

__all__ = ["FINE_TUNE", "Settings", "check_choice", "device_of", "resolve"]

FINE_TUNE = ("head", "last_blocks", "all")
_ON_UNREADABLE = ("error", "skip")
_PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Settings:
    """One training, without its data.

    Attributes
    ----------
    architecture : Architecture
    recipe : Recipe
        With what the classifier's parameters replaced.
    weights : Path or None
        File of the weights that it starts from.
    fine_tune : {"head", "last_blocks", "all"} or None
        What learns in the second stage; None where training is end to end.
    input_size : int
        Side of the input in px.
    augmentation : Augmentation or None
    patience : int or None
        Epochs without a better one until training stops.
    seed : int
    precision : {"float32", "bfloat16"}
    device : str or None
        As ``keras.device`` takes it.
    """

    architecture: Architecture
    recipe: Recipe
    weights: Path | None
    fine_tune: str | None
    input_size: int
    augmentation: Augmentation | None
    patience: int | None
    seed: int
    precision: str
    device: str | None

    @property
    def stages(self) -> tuple[tuple[str, int, float], ...]:
        """What learns, for how many epochs, up to which learning rate."""
        recipe = self.recipe
        if self.fine_tune is None:
            return (("all", recipe.epochs, recipe.learning_rate),)
        if self.fine_tune == "head":
            return (("head", recipe.epochs, recipe.learning_rate),)
        first = min(recipe.head_epochs, recipe.epochs)
        stages = (
            ("head", first, recipe.learning_rate),
            (self.fine_tune, recipe.epochs - first, recipe.learning_rate * recipe.fine_tuning_rate),
        )
        return tuple(stage for stage in stages if stage[1])

    @property
    def built_as(self) -> dict[str, object]:
        """What the weights fit into, whatever the parameters become."""
        return {
            "architecture": self.architecture.name,
            "precision": self.precision,
            "fine_tuned": self.fine_tune is not None,
        }

    def identity(self) -> dict[str, object]:
        """What a checkpoint of this training is known by, apart from the data."""
        return {
            "architecture": self.architecture.name,
            "recipe": self.recipe.as_dict(),
            "weights": None if self.weights is None else hash_weights(self.weights),
            "fine_tune": self.fine_tune,
            "input_size": self.input_size,
            "augmentation": None if self.augmentation is None else asdict(self.augmentation),
            "patience": self.patience,
            "random_state": self.seed,
            "precision": self.precision,
        }


def resolve(params: Mapping[str, object]) -> Settings:
    """Check the parameters of a classifier and put the recipe's values where there are none.

    Parameters
    ----------
    params : mapping of str
        ``CNNClassifier.get_params(deep=False)``.

    Returns
    -------
    settings : Settings

    Raises
    ------
    ValueError
        If a parameter is unknown or out of range.
    WeightsError
        If there are no such weights.
    """
    architecture = find_architecture(params["architecture"])
    _check_common(params)
    weights = _find_weights(architecture, params["weights"])
    fine_tuned = weights is not None and architecture.encoder is not None
    if fine_tuned:
        check_choice("fine_tune", params["fine_tune"], FINE_TUNE)
    return Settings(
        architecture=architecture,
        recipe=_recipe(architecture, params, fine_tuned),
        weights=weights,
        fine_tune=params["fine_tune"] if fine_tuned else None,
        input_size=_input_size(architecture, params["input_size"]),
        augmentation=_augmentation(params["augmentation"]),
        patience=params["patience"],
        seed=_seed(params["random_state"]),
        precision=params["precision"],
        device=device_of(params["device"]),
    )


def check_choice(name: str, value, known) -> None:
    """Refuse a value that is none of the known ones."""
    if not isinstance(value, type(known[0])) or isinstance(value, bool) or value not in known:
        listed = ", ".join(map(repr, known))
        nearest = known_names(value, known) if isinstance(known[0], str) else "Give one of them."
        raise ValueError(f"CNNClassifier.{name}: expected one of {listed}, got {value!r:.80}. {nearest}")


def _check_common(params):
    check_choice("on_unreadable", params["on_unreadable"], _ON_UNREADABLE)
    check_choice("precision", params["precision"], _PRECISIONS)
    check_choice("views", params["views"], VIEW_COUNTS)
    fraction = params["validation_fraction"]
    if not isinstance(fraction, Real) or isinstance(fraction, bool) or not 0 <= fraction < 1:
        raise ValueError(
            f"CNNClassifier.validation_fraction: expected a number from 0, below 1, got {fraction!r}. Give the part of "
            "the patients to hold out; 0 holds out none."
        )
    patience = params["patience"]
    if patience is not None:
        _check_whole("patience", patience, 1)
        if not fraction:
            raise ValueError(
                f"CNNClassifier.patience: expected None without held-out patients, got {patience!r}. Give a "
                "validation_fraction, or no patience."
            )
    progress = params["progress"]
    if progress is not None and not callable(progress):
        raise ValueError(
            f"CNNClassifier.progress: expected a callable or None, got {progress!r:.80}. Give a function that takes "
            "(done, total, values)."
        )


def _check_whole(name, value, least):
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"CNNClassifier.{name}: expected a whole number from {least}, got {value!r}. Correct it.")


def _recipe(architecture, params, fine_tuned) -> Recipe:
    recipes = architecture.fine_tuning if fine_tuned else architecture.recipes
    chosen = params["recipe"]
    if not isinstance(chosen, Recipe):
        check_choice("recipe", chosen, tuple(recipes))
        chosen = recipes[chosen]
    if params["schedule"] is not None:
        check_choice("schedule", params["schedule"], SCHEDULES)
    rate = params["learning_rate"]
    if rate is not None and (not isinstance(rate, Real) or isinstance(rate, bool) or not 0 < rate < math.inf):
        raise ValueError(
            f"CNNClassifier.learning_rate: expected a number above 0, got {rate!r}. None takes the recipe's, "
            f"{chosen.learning_rate}."
        )
    for name, least in (("epochs", 1), ("batch_size", 2)):
        if params[name] is not None:
            _check_whole(name, params[name], least)
    names = ("epochs", "batch_size", "learning_rate", "schedule")
    return replace(chosen, **{name: params[name] for name in names if params[name] is not None})


def _find_weights(architecture: Architecture, weights) -> Path | None:
    if weights is None:
        return None
    if architecture.encoder is not None:
        return find_weights(architecture.encoder, weights)
    if str(weights) == "imagenet":
        raise WeightsError(
            f"CNNClassifier.weights: expected None or a file for {architecture.name!r}, which nobody trained on "
            "ImageNet, got 'imagenet'. Use weights=None."
        )
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"CNNClassifier.weights: expected a file of weights, got {str(path)!r}, which is none. Correct the path."
        )
    return path


def _input_size(architecture, size) -> int:
    if size is None:
        return architecture.input_size
    least = architecture.minimum_size
    if not isinstance(size, Integral) or isinstance(size, bool) or size < least:
        raise ValueError(
            f"CNNClassifier.input_size: expected a whole number of px from {least} for {architecture.name!r}, got "
            f"{size!r}. None takes {architecture.input_size}."
        )
    return int(size)


def _augmentation(augmentation) -> Augmentation | None:
    if augmentation is None or isinstance(augmentation, Augmentation):
        return augmentation
    if isinstance(augmentation, str) and augmentation == "standard":
        return STANDARD
    raise ValueError(
        f"CNNClassifier.augmentation: expected 'standard', None or an Augmentation, got {augmentation!r:.80}. "
        f"{known_names(augmentation, ('standard',))}"
    )


def _seed(random_state) -> int:
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(random_state, np.random.RandomState | np.random.Generator):
        draw = random_state.integers if isinstance(random_state, np.random.Generator) else random_state.randint
        return int(draw(2**31 - 1))
    _check_whole("random_state", random_state, 0)
    return int(random_state)


def device_of(device) -> str | None:
    """A device as ``keras.device`` takes it: "gpu" is "gpu:0"; None is None."""
    if device is None:
        return None
    kind, _, number = str(device).partition(":")
    if kind not in ("cpu", "gpu") or (number and not number.isdecimal()):
        raise ValueError(
            f"CNNClassifier.device: expected None, 'cpu', 'gpu' or 'gpu:1', got {device!r:.80}. None takes a GPU where "
            "Keras sees one."
        )
    return f"{kind}:{number or 0}"
