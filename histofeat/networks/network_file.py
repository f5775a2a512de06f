"""A fitted network as one file of Keras's own format, which histofeat reads back without running anything in it."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from histofeat.datasets import write_whole
from histofeat.exceptions import WeightsError
from histofeat.networks.augmentation import Augmentation
from histofeat.networks.builders import rebuild
from histofeat.networks.pretrained.network import _quiet
from histofeat.networks.recipes import Recipe

__all__ = ["read_network", "write_network"]

_MEMBER = "histofeat.json"
_VERSION = 2
#: Parameters that belong to the machine or the process of the fit.
_LOCAL = ("checkpoint", "device", "progress")


def write_network(classifier, model, path: Path) -> Path:
    """Write a fitted classifier.

    Parameters
    ----------
    classifier : CNNClassifier
    model : keras.Model
        Its network.
    path : Path
        Ending in ``.keras``.

    Returns
    -------
    path : Path

    Raises
    ------
    ValueError
        If the path ends otherwise.
    """
    if path.suffix != ".keras":
        raise ValueError(
            f"CNNClassifier.save_network: expected a path ending in .keras, got {str(path)!r}. Rename the file."
        )
    about = json.dumps(_about(classifier), indent=1)
    with write_whole(path, overwrite=True) as part:
        with _quiet():
            model.save(part)
        with zipfile.ZipFile(part, "a") as archive:
            archive.writestr(_MEMBER, about)
    return path


def read_network(path: Path) -> tuple[dict, dict]:
    """Read what `write_network` wrote: the weights alone are Keras's, the network is built by histofeat.

    Parameters
    ----------
    path : Path

    Returns
    -------
    params, fitted : dict
        Parameters of the classifier, and its attributes.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or not histofeat's.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: expected a saved network, got no such file. Check the path.")
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read(_MEMBER))
    except (KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise WeightsError(
            f"{path}: expected a network that CNNClassifier.save_network wrote, got another or a damaged file "
            f"({error}). Copy it again, or give the file as weights= of a new classifier."
        ) from error
    if about.get("version") != _VERSION:
        raise WeightsError(
            f"{path}: expected version {_VERSION} of the format, got {about.get('version')!r}. Use the histofeat that "
            "wrote it."
        )
    params = about["params"]
    if isinstance(params["recipe"], dict):
        params["recipe"] = _read_recipe(params["recipe"])
    if params["class_weight"] is not None and not isinstance(params["class_weight"], str):
        params["class_weight"] = dict(params["class_weight"])
    return params, _fitted(path, about["fitted"])


def _about(classifier) -> dict:
    params = classifier.get_params(deep=False) | dict.fromkeys(_LOCAL)
    recipe = params["recipe"]
    if not isinstance(recipe, str):
        values = recipe.as_dict() if isinstance(recipe, Recipe) else recipe
        params["recipe"] = {n: asdict(v) if isinstance(v, Augmentation) else _plain(v) for n, v in values.items()}
    if hasattr(params["class_weight"], "items"):
        params["class_weight"] = [[_plain(label), float(weight)] for label, weight in params["class_weight"].items()]
    if params["weights"] not in (None, "imagenet"):
        params["weights"] = Path(params["weights"]).name
    params = {name: _plain(value) for name, value in params.items()}
    if not isinstance(params["random_state"], int | None):
        params["random_state"] = None
    fitted = {
        "classes_": classifier.classes_.tolist(),
        "history_": classifier.history_,
        "best_epoch_": classifier.best_epoch_,
        "validation_rows_": classifier.validation_rows_.tolist(),
        "validation_proba_": classifier.validation_proba_.tolist(),
        "skipped_": classifier.skipped_,
        "notes_": classifier.notes_,
        "input_size_": classifier.input_size_,
        "patch_side_": classifier.patch_side_,
        "_built_as": classifier._built_as,
    }
    return {"version": _VERSION, "params": params, "fitted": fitted}


def _read_recipe(values: dict) -> Recipe | dict:
    """Give the recipe, or the mapping of some of its fields, that a classifier had as its parameter."""
    if isinstance(values.get("augmentation"), dict):
        values["augmentation"] = Augmentation(**values["augmentation"])
    return Recipe(**values) if len(values) == len(fields(Recipe)) else values


def _plain(value):
    """NumPy's numbers as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _fitted(path: Path, stored: dict) -> dict:
    n_classes = len(stored["classes_"])
    fitted = stored | {
        "classes_": np.array(stored["classes_"]),
        "validation_rows_": np.array(stored["validation_rows_"], dtype=np.int64),
        "validation_proba_": np.array(stored["validation_proba_"], dtype=np.float64).reshape(-1, n_classes),
        "skipped_": tuple(stored["skipped_"]),
        "notes_": tuple(stored["notes_"]),
    }
    model = rebuild(stored["_built_as"], n_classes, stored["input_size_"])
    try:
        with _quiet():
            model.load_weights(path)
    except Exception as error:  # Keras, h5py and zipfile raise a dozen kinds for a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{path}: expected the weights of {stored['_built_as']['architecture']}, got what Keras cannot load "
            f"({reason:.200}). Copy the file again."
        ) from error
    with _quiet():
        return fitted | {"weights_": [np.array(array) for array in model.get_weights()], "_model": model}
