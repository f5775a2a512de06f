"""Files of a network: the checkpoint of a training, and a fitted network in Keras's own format."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral
from pathlib import Path

import numpy as np

from histofeat.datasets import read_array, read_members, write_whole
from histofeat.exceptions import DAMAGED, PatchError, WeightsError, check_that, check_whole, first_line
from histofeat.images import Images
from histofeat.networks._architectures import rebuild
from histofeat.networks._augmentation import Augmentation
from histofeat.networks._recipes import Recipe
from histofeat.networks.pretrained._network import WEIGHTS_MEMBER, _quiet, load_weights

_FILE = "training.npz"
_VERSION = 1
_GROUPS = ("variables", "optimizer", "kept")
#: Networks that have weights for each pixel of their input, and the bytes of one.
_BY_PIXEL, _BYTES_BY_PIXEL = ("alexnet", "cancernet"), 1000
#: Bytes of the weights of a class, at least, and the side in px up to which any network is small.
_BYTES_BY_CLASS, _SMALL = 500, 256


class CheckpointError(ValueError):
    """A checkpoint is damaged, or belongs to another training."""


@dataclass
class State:
    """Where a training stands after an epoch.

    Attributes
    ----------
    epoch : int
        Epochs that are done.
    finished : bool
        Whether it is over.
    history : dict of str to list of float
        One entry an epoch.
    best_epoch : int
        Number of the kept epoch, from 0; -1 while there is none.
    unreadable : list of int
        Rows that could not be read.
    variables, optimizer, kept : list of ndarray
        State of the network, of its optimizer, and the weights of the kept epoch.
    """

    epoch: int = 0
    finished: bool = False
    history: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int = -1
    unreadable: list[int] = field(default_factory=list)
    variables: list[np.ndarray] = field(default_factory=list)
    optimizer: list[np.ndarray] = field(default_factory=list)
    kept: list[np.ndarray] = field(default_factory=list)


def hash_data(images: Images, labels, patients) -> str:
    """Hash of a data set: the contents of the images in order, their labels and patients.

    Names do not count, so that a moved folder is the same data set; an image that cannot be read counts by its name.

    Parameters
    ----------
    images : Images
    labels : sequence
    patients : sequence or None

    Returns
    -------
    digest : str
        32 hexadecimal digits of BLAKE2b.
    """
    digest = hashlib.blake2b(digest_size=16)
    for row in range(len(images)):
        try:
            content = images.content(row)
        except PatchError:
            content = b"unreadable " + images.name(row).encode()
        if isinstance(content, np.ndarray):
            digest.update(f"{content.dtype}{content.shape}".encode())
            content = np.ascontiguousarray(content).tobytes()
        digest.update(hashlib.blake2b(content, digest_size=16).digest())
    digest.update(json.dumps([str(label) for label in labels]).encode())
    digest.update(json.dumps(None if patients is None else [str(patient) for patient in patients]).encode())
    return digest.hexdigest()


def write_state(folder: Path, state: State, identity: Mapping[str, object]) -> None:
    """Replace the stored state; at any moment the file holds the old state or the new one, complete.

    Parameters
    ----------
    folder : Path
        Created if it does not exist.
    state : State
    identity : mapping
        What identifies the training, in values that JSON can hold.

    Raises
    ------
    CheckpointError
        If the folder cannot be written.
    """
    about = {name: value for name, value in vars(state).items() if name not in _GROUPS}
    about |= {"version": _VERSION, "identity": dict(identity), "sizes": {g: len(getattr(state, g)) for g in _GROUPS}}
    arrays = {f"{group}-{n}": array for group in _GROUPS for n, array in enumerate(getattr(state, group))}
    try:
        with write_whole(folder / _FILE, overwrite=True, parents=True) as part, part.open("wb") as file:
            np.savez(file, about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8), **arrays)
    except OSError as error:
        raise CheckpointError(f"CNNClassifier.checkpoint: {error}") from error


def read_state(folder: Path, identity: Mapping[str, object]) -> State | None:
    """The state that a folder holds.

    Parameters
    ----------
    folder : Path
        It need not exist.
    identity : mapping
        What identifies the training that continues.

    Returns
    -------
    state : State or None
        None if there is no file yet.

    Raises
    ------
    CheckpointError
        If the file is damaged or belongs to another training; it stays as it is.
    """
    path = folder / _FILE
    if not path.exists():
        return None
    try:
        file = {name.removesuffix(".npy"): read_array(content) for name, content in read_members(path).items()}
        about = json.loads(file["about"].tobytes())
        found, sizes = {"version": about.pop("version"), **about.pop("identity")}, about.pop("sizes")
        groups = {group: [file[f"{group}-{n}"] for n in range(size)] for group, size in sizes.items()}
        state = State(**about, **groups)
        if not state.epoch >= max(state.best_epoch, 0) or any(len(v) != state.epoch for v in state.history.values()):
            raise ValueError(f"{state.epoch!r:.20} epochs that do not fit the history")
    except DAMAGED as error:
        raise CheckpointError(
            f"{path}: expected a checkpoint of histofeat, got a file that cannot be read ({first_line(error)}). It was "
            "left as it is; remove it to train from the start, or give another folder."
        ) from error
    _check_identity(path, found, json.loads(json.dumps({"version": _VERSION, **identity})))
    return state


def _check_identity(path: Path, found: dict, wanted: dict) -> None:
    names = [name for name in sorted(wanted.keys() | found.keys()) if wanted.get(name) != found.get(name)]
    if names:
        first = names[0]
        others = ", ".join(names[1:]).replace("_", " ")
        more = f" ({len(names) - 1} more differ: {others})" if others else ""
        raise CheckpointError(
            f"{path}: expected a checkpoint of this training, got one with another {first.replace('_', ' ')}: "
            f"{found.get(first)!r:.80}, not {wanted.get(first)!r:.80}{more}. It was left as it is; give the same data "
            "and parameters to go on with it, or another folder."
        )


_MEMBER = "histofeat.json"
_FORMAT = 2
#: Parameters that belong to the machine or the process of the fit.
_LOCAL = ("checkpoint", "device", "progress")
_FITTED = (
    "classes_", "history_", "best_epoch_", "validation_rows_", "validation_proba_", "skipped_", "notes_", "input_size_",
    "patch_side_", "_built_as",
)  # fmt: skip


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
    fits, remedy = path.suffix == ".keras", "Rename the file."
    check_that("CNNClassifier.save_network", str(path), fits, "a path ending in .keras", remedy)
    about = json.dumps(_about(classifier), indent=1, default=_plain)
    with write_whole(path, overwrite=True) as part:
        with _quiet():
            model.save(part)
        with zipfile.ZipFile(part, "a") as archive:
            archive.writestr(_MEMBER, about)
    return path


def read_network(path: Path) -> tuple[dict, dict]:
    """Read what `write_network` wrote. Keras reads the weights alone; histofeat builds the network.

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
        members = read_members(path)
        about = json.loads(members[_MEMBER])
        if about.get("version") != _FORMAT:
            raise WeightsError(
                f"{path}: expected version {_FORMAT} of the format, got {about.get('version')!r:.20}. Use the "
                "histofeat that wrote it."
            )
        params = about["params"]
        if isinstance(params["recipe"], dict):
            params["recipe"] = _read_recipe(params["recipe"])
        if params["class_weight"] is not None and not isinstance(params["class_weight"], str):
            params["class_weight"] = dict(params["class_weight"])
        return params, _fitted(path, about["fitted"], len(members[WEIGHTS_MEMBER]))
    except WeightsError:
        raise
    except DAMAGED as error:
        raise WeightsError(
            f"{path}: expected a network that CNNClassifier.save_network wrote, got another or a damaged file "
            f"({type(error).__name__}: {first_line(error):.100}). Copy it again, or give the file as weights= of a new "
            "classifier."
        ) from error


def _about(classifier) -> dict:
    params = classifier.get_params(deep=False) | dict.fromkeys(_LOCAL)
    recipe = params["recipe"]
    if not isinstance(recipe, str):
        values = recipe.as_dict() if isinstance(recipe, Recipe) else recipe
        params["recipe"] = {n: asdict(v) if isinstance(v, Augmentation) else v for n, v in values.items()}
    if hasattr(params["class_weight"], "items"):
        params["class_weight"] = [[label, float(weight)] for label, weight in params["class_weight"].items()]
    if params["weights"] not in (None, "imagenet"):
        params["weights"] = Path(params["weights"]).name
    if not isinstance(params["random_state"], Integral | None):
        params["random_state"] = None
    fitted = {name: getattr(classifier, name) for name in _FITTED}
    return {"version": _FORMAT, "params": params, "fitted": fitted}


def _read_recipe(values: dict) -> Recipe | dict:
    """Give the recipe, or the mapping of some of its fields, that a classifier had as its parameter."""
    if isinstance(values.get("augmentation"), dict):
        values["augmentation"] = Augmentation(**values["augmentation"])
    return Recipe(**values) if len(values) == len(fields(Recipe)) else values


def _plain(value):
    """Give NumPy's numbers and arrays as Python's."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"expected values that JSON can hold, got {value!r:.80}")


def _fitted(path: Path, stored: dict, n_bytes: int) -> dict:
    n_classes, side = len(stored["classes_"]), check_whole("input_size_", stored["input_size_"], 1)
    by_pixel = _BYTES_BY_PIXEL * side**2 if stored["_built_as"]["architecture"] in _BY_PIXEL else 0
    if n_classes * _BYTES_BY_CLASS > n_bytes or (side > _SMALL and by_pixel > n_bytes):
        raise ValueError(f"{n_bytes:,} bytes are too few for {n_classes:,} classes at {side:,} px")
    fitted = stored | {
        "classes_": np.array(stored["classes_"]),
        "validation_rows_": np.array(stored["validation_rows_"], dtype=np.int64),
        "validation_proba_": np.array(stored["validation_proba_"], dtype=np.float64).reshape(-1, n_classes),
        "skipped_": tuple(stored["skipped_"]),
        "notes_": tuple(stored["notes_"]),
    }
    model = rebuild(stored["_built_as"], n_classes, stored["input_size_"])
    load_weights(model, path, f"the weights of {stored['_built_as']['architecture']}", "Copy the file again.")
    with _quiet():
        return fitted | {"weights_": [np.array(array) for array in model.get_weights()], "_model": model}
