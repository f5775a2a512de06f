"""The state of a training on disk: one file, replaced as a whole after every epoch, refused by any other training."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from histofeat.datasets import write_whole
from histofeat.exceptions import PatchError
from histofeat.images import Images

__all__ = ["CheckpointError", "State", "hash_data", "read_state", "write_state"]

_FILE = "training.npz"
_VERSION = 1
_GROUPS = ("variables", "optimizer", "kept")
#: What NumPy and zipfile raise for a file that is damaged.
_DAMAGED = (EOFError, KeyError, OSError, ValueError, zipfile.BadZipFile)


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
    """Put a state in the place of the last one; at any moment the file is one of the two, whole.

    Parameters
    ----------
    folder : Path
        Made if there is none.
    state : State
    identity : mapping
        What the training is; JSON must hold it.

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
        raise CheckpointError(
            f"CNNClassifier.checkpoint: expected a folder that can be written, got {str(folder)!r} "
            f"({error.strerror or error}). Give another one, or None."
        ) from error


def read_state(folder: Path, identity: Mapping[str, object]) -> State | None:
    """The state that a folder holds.

    Parameters
    ----------
    folder : Path
        It need not exist.
    identity : mapping
        What the training that asks is.

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
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            about = json.loads(file["about"].tobytes())
            _check_identity(path, about, identity)
            groups = {group: [file[f"{group}-{n}"] for n in range(size)] for group, size in about["sizes"].items()}
    except CheckpointError:
        raise
    except _DAMAGED as error:
        raise CheckpointError(
            f"{path}: expected a checkpoint of histofeat, got a file that cannot be read ({error}). It was left as it "
            "is; remove it to train from the start, or give another folder."
        ) from error
    known = {name: value for name, value in about.items() if name not in ("version", "identity", "sizes")}
    return State(**known, **groups)


def _check_identity(path, about, identity):
    wanted = json.loads(json.dumps({"version": _VERSION, **identity}))
    found = {"version": about["version"], **about["identity"]}
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
