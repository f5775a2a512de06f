"""Check the parameters of a classifier and combine them with its recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from histofeat.exceptions import WeightsError, check_name, check_real, check_that, check_whole
from histofeat.images import VIEW_COUNTS
from histofeat.networks._architectures import Architecture, find_architecture
from histofeat.networks._recipes import Recipe
from histofeat.networks.pretrained._weights import find_weights, hash_weights


@dataclass(frozen=True)
class Settings:
    """One training, without its data.

    Attributes
    ----------
    architecture : Architecture
    recipe : Recipe
        With the values that the classifier's parameters replaced.
    weights : Path or None
        File of the weights that training starts from.
    fine_tune : {"head", "last_blocks", "all"} or None
        What learns in the second stage; None where training is end to end.
    input_size : int
        Side of the input in px.
    seed : int
    device : str or None
        As ``keras.device`` takes it.
    """

    architecture: Architecture
    recipe: Recipe
    weights: Path | None
    fine_tune: str | None
    input_size: int
    seed: int
    device: str | None

    @property
    def stages(self) -> tuple[tuple[str, int, float], ...]:
        """What learns, for how many epochs, up to which learning rate."""
        recipe = self.recipe
        if self.fine_tune in (None, "head"):
            return ((self.fine_tune or "all", recipe.epochs, recipe.learning_rate),)
        first = min(recipe.head_epochs, recipe.epochs)
        stages = (
            ("head", first, recipe.learning_rate),
            (self.fine_tune, recipe.epochs - first, recipe.learning_rate * recipe.fine_tuning_rate),
        )
        return tuple(stage for stage in stages if stage[1])

    @property
    def built_as(self) -> dict[str, object]:
        """What the weights fit into, even if the parameters change later."""
        return {
            "architecture": self.architecture.name,
            "precision": self.recipe.precision,
            "fine_tuned": self.fine_tune is not None,
        }

    def identity(self) -> dict[str, object]:
        """What identifies a checkpoint of this training, apart from the data."""
        return self.recipe.as_dict() | {
            "architecture": self.architecture.name,
            "weights": None if self.weights is None else hash_weights(self.weights),
            "fine_tune": self.fine_tune,
            "input_size": self.input_size,
            "random_state": self.seed,
            "on_unreadable": None,  # changes no batch that can be read
        }


def resolve(params: Mapping[str, object]) -> Settings:
    """Check the parameters of a classifier and fill in the recipe's values.

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
    recipe = _recipe(params, architecture.fine_tuning if fine_tuned else architecture.recipes)
    return Settings(
        architecture=architecture,
        recipe=recipe,
        weights=weights,
        fine_tune=recipe.fine_tune if fine_tuned else None,
        input_size=_input_size(architecture, params["input_size"]),
        seed=_seed(params["random_state"]),
        device=device_of(params["device"]),
    )


def _check_common(params):
    check_name("CNNClassifier.views", params["views"], VIEW_COUNTS)
    remedy = "Give the part of the patients to hold out; 0 holds out none."
    fraction = params["validation_fraction"]
    check_real("CNNClassifier.validation_fraction", fraction, "from 0, below 1", lambda part: 0 <= part < 1, remedy)
    progress, remedy = params["progress"], "Give a function that takes (done, total, values)."
    fits = progress is None or callable(progress)
    check_that("CNNClassifier.progress", progress, fits, "a callable or None", remedy)


def _recipe(params, recipes: Mapping[str, Recipe]) -> Recipe:
    """Give the recipe with the parameters that replace its values."""
    chosen, changes = params["recipe"], {}
    if isinstance(chosen, Mapping):
        known = [field.name for field in fields(Recipe)]
        for name in chosen:
            check_name("CNNClassifier.recipe", name, known)
        chosen, changes = "standard", dict(chosen)
    if not isinstance(chosen, Recipe):
        check_name("CNNClassifier.recipe", chosen, tuple(recipes))
        chosen = recipes[chosen]
    if params["epochs"] is not None:
        check_whole("CNNClassifier.epochs", params["epochs"], 1, "None takes the recipe's.")
    if params["learning_rate"] is not None:
        rate, remedy = params["learning_rate"], "None takes the recipe's."
        check_real("CNNClassifier.learning_rate", rate, "above 0", lambda value: value > 0, remedy)
    changes |= {name: params[name] for name in ("epochs", "learning_rate") if params[name] is not None}
    recipe = replace(chosen, **changes)
    fits = recipe.patience is None or params["validation_fraction"]
    remedy = "Give a validation_fraction, or no patience."
    check_that("Recipe.patience", recipe.patience, fits, "None without held-out patients", remedy)
    return recipe


def _find_weights(architecture: Architecture, weights) -> Path | None:
    if weights is None:
        return None
    if architecture.encoder is not None:
        return find_weights(architecture.encoder, weights)
    where = "CNNClassifier.weights"
    expected = f"None or a file for {architecture.name!r}, which has no ImageNet weights"
    check_that(where, weights, str(weights) != "imagenet", expected, "Use weights=None.", error=WeightsError)
    path = Path(weights).expanduser()
    expected = "a file of weights that exists"
    check_that(where, str(path), path.is_file(), expected, "Correct the path.", error=WeightsError)
    return path


def _input_size(architecture, size) -> int:
    if size is None:
        return architecture.input_size
    remedy = f"None takes the {architecture.input_size} px of {architecture.name!r}."
    return check_whole("CNNClassifier.input_size", size, architecture.minimum_size, remedy)


def _seed(random_state) -> int:
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(random_state, np.random.RandomState | np.random.Generator):
        draw = random_state.integers if isinstance(random_state, np.random.Generator) else random_state.randint
        return int(draw(2**31 - 1))
    return check_whole("CNNClassifier.random_state", random_state, 0, "Use 0.")


def device_of(device) -> str | None:
    """Device as ``keras.device`` takes it: "gpu" becomes "gpu:0"; None stays None."""
    if device is None:
        return None
    kind, _, number = str(device).partition(":")
    fits = kind in ("cpu", "gpu") and (not number or number.isdecimal())
    remedy = "None takes a GPU where Keras sees one."
    check_that("CNNClassifier.device", device, fits, "None, 'cpu', 'gpu' or 'gpu:1'", remedy)
    return f"{kind}:{number or 0}"
