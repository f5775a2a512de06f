"""What a trained encoder says of itself: its name and version, its recipe, and every image that it learnt from."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from histofeat.exceptions import WeightsError
from histofeat.networks.pretrained.weights import hash_weights

__all__ = ["VERSION", "TrainingRecord", "read_record", "record_path", "write_record"]

#: Raised with every change of what a trained encoder computes from its weights: older weights are then refused.
VERSION = 1
_RECORD, _IMAGES = ".json", ".images.npz"
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class TrainingRecord:
    """One training of an encoder.

    Parameters
    ----------
    encoder : str
        Name of its `Encoder`.
    dataset : str
        Name of the data set it learnt from.
    patients : tuple of str
        The patient of each image.
    image_digests : tuple of bytes
        BLAKE2b of size and pixels of each image, 16 bytes, as `histofeat.evaluation.audit.ImageFingerprint` has it.
    recipe : mapping
        How it was trained.
    files : mapping of str to str
        Content hash of each file of weights, by name.
    version : int
        Of the network that the weights belong to.
    """

    encoder: str
    dataset: str
    patients: tuple[str, ...] = field(repr=False)
    image_digests: tuple[bytes, ...] = field(repr=False)
    recipe: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    version: int = VERSION

    @cached_property
    def digests(self) -> frozenset[bytes]:
        """The digests as a set: what the audit of a split asks for."""
        return frozenset(self.image_digests)

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return len(set(self.patients))


def record_path(weights: Path) -> Path:
    """Where the record of a file of weights is: beside it."""
    return weights.with_name(weights.name.removesuffix(".h5").removesuffix(".weights") + _RECORD)


def write_record(record: TrainingRecord, weights: Path) -> None:
    """Write a record beside its file of weights.

    Parameters
    ----------
    record : TrainingRecord
        ``files`` is filled in from what lies beside `weights` under the same name.
    weights : Path
        Ending in ``.weights.h5``.
    """
    path = record_path(weights)
    stem = path.name.removesuffix(_RECORD)
    beside = [file for file in sorted(path.parent.glob(f"{stem}.*")) if file != path]
    images = path.with_name(stem + _IMAGES)
    digests = np.frombuffer(b"".join(record.image_digests), dtype=np.uint8).reshape(-1, _DIGEST_BYTES)
    np.savez_compressed(images, patients=np.array(record.patients), digests=digests)
    about = {
        "encoder": record.encoder,
        "version": record.version,
        "dataset": record.dataset,
        "n_patients": record.n_patients,
        "n_images": len(record.image_digests),
        "recipe": dict(record.recipe),
        "files": {file.name: hash_weights(file) for file in sorted({*beside, images})},
    }
    path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def read_record(weights: Path, encoder: str) -> TrainingRecord | None:
    """Read and check the record beside a file of weights.

    Parameters
    ----------
    weights : Path
        The file of weights.
    encoder : str
        Whose weights they are to be.

    Returns
    -------
    record : TrainingRecord or None
        None where there is none: the file then says nothing of its training.

    Raises
    ------
    WeightsError
        If the record cannot be read, is that of another encoder or version, or a file is not the one it was
        written for: truncated, changed or exchanged.
    """
    path = record_path(weights)
    if not path.is_file():
        return None
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        name, version, files = about["encoder"], about["version"], dict(about["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path}: expected the record of an encoder's training, got {type(error).__name__} ({error}). "
            "Copy the folder of the weights again."
        ) from error
    if name != encoder:
        raise WeightsError(f"{path}: expected the record of {encoder!r}, got that of {name!r}. Give encoder={name!r}.")
    if version != VERSION:
        raise WeightsError(
            f"{path}: expected weights of version {VERSION} of {encoder!r}, got version {version}. "
            "Use the weights that came with this version of histofeat, or train them again."
        )
    _check_files(path, files)
    return _with_images(path, about)


def _check_files(path: Path, files: Mapping[str, str]) -> None:
    for name, expected in files.items():
        file = path.with_name(name)
        if not file.is_file():
            raise WeightsError(f"{file}: expected a file that {path.name} names, got none. Copy the folder again.")
        if (found := hash_weights(file)) != expected:
            raise WeightsError(
                f"{file}: expected the content {expected}, got {file.stat().st_size:,} bytes of content {found}: "
                "truncated, changed, or another network's. Copy the folder of the weights again."
            )


def _with_images(path: Path, about: Mapping) -> TrainingRecord:
    images = path.with_name(path.name.removesuffix(_RECORD) + _IMAGES)
    changed_ns = images.stat().st_mtime_ns if images.is_file() else 0
    patients, digests = _read_images(images, changed_ns, about["encoder"])
    return TrainingRecord(
        about["encoder"], about.get("dataset", ""), patients, digests, about.get("recipe", {}), about["files"],
        about["version"],
    )  # fmt: skip


@lru_cache(maxsize=8)  # asked for with every batch of patches
def _read_images(images: Path, mtime_ns: int, encoder: str) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    try:
        with images.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return tuple(stored["patients"].tolist()), tuple(row.tobytes() for row in stored["digests"])
    except (EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(
            f"{images}: expected the images that {encoder} was trained on, got {type(error).__name__}. "
            "Copy the folder of the weights again."
        ) from error
