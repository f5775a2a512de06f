"""Check weights: the fingerprint of a loaded network, and the record of its training."""

import contextlib
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from histofeat.datasets import read_array, read_csv_rows, read_members, write_whole
from histofeat.exceptions import DAMAGED, WeightsError
from histofeat.networks.pretrained._weights import hash_weights

_VALUES = 16
_KNOWN = Path(__file__).with_name("fingerprints.csv")
#: Greatest difference in units of the embedding's root mean square. Engines, processors and TF32 differ by rounding,
#: hence no hash of the bits; weights of which a part is missing differ by the whole of it.
_TOLERANCE = {"float32": 0.02, "bfloat16": 0.35}


def test_image(size: int) -> np.ndarray:
    """The fixed test image: blots and grain in the colours of a stained slide, drawn from whole numbers only.

    Parameters
    ----------
    size : int
        Side in px.

    Returns
    -------
    pixels : ndarray of shape (1, size, size, 3), uint8

    Examples
    --------
    >>> test_image(4)[0, 0, :2].tolist()
    [[211, 138, 209], [100, 55, 155]]
    """
    # NumPy keeps this generator's numbers the same for good.
    rng = np.random.RandomState(0)
    coarse, fine = rng.randint(0, 120, (8, 8)), rng.randint(0, 40, (size, size, 3))
    place = np.arange(size) * 8 // size
    blots = coarse[place][:, place]
    stained = np.array([255, 235, 240]) - blots[..., None] * np.array([10, 14, 6]) // 10 - fine
    return np.clip(stained, 0, 255).astype(np.uint8)[None]


def fingerprint(engine: Any, input_size: int) -> np.ndarray:
    """Summarise the embedding of the test image in sixteen numbers.

    Parameters
    ----------
    engine : Engine
        Runs the network.
    input_size : int
        Side of its input in px.

    Returns
    -------
    values : ndarray of shape (16,), float64
        Projections of the embedding on fixed signs, over the square root of its length, in units of its root mean
        square: of the order of 1 each, whatever the network. NaN where the embedding is not finite or all zero.
    """
    embedding = engine.embed(test_image(input_size))[0].astype(np.float64)
    signs = np.random.RandomState(1).randint(0, 2, (_VALUES, len(embedding))) * 2 - 1
    size = np.sqrt(np.mean(embedding**2))
    if not np.isfinite(size) or size == 0:
        return np.full(_VALUES, np.nan)
    return signs @ embedding / (np.sqrt(len(embedding)) * size)


def check_fingerprint(engine, encoder, *, weights: str, identity: Mapping, cache_dir: Path) -> None:
    """Refuse a network whose fingerprint is not the known one.

    Parameters
    ----------
    engine : Engine
        The loaded network.
    encoder : Encoder
    weights : str
        Content hash of the weights. The package holds the fingerprints of some at their usual sizes; other fingerprints
        are kept in `cache_dir` the first time.
    identity : mapping
        ``input_size``, ``pooling``, ``precision``, and as ``graph`` the version of what is computed.
    cache_dir : Path
        Where first fingerprints are remembered.

    Raises
    ------
    WeightsError
        If the embedding is not finite, is all zero, or differs from the known one.
    """
    found = fingerprint(engine, identity["input_size"])
    if not np.isfinite(found).all():
        raise WeightsError(
            f"{encoder.name}: expected a finite embedding of the test image, got none (weights {weights}). The weights "
            "are damaged: copy or download them again."
        )
    known = known_fingerprints().get((encoder.name, weights, identity["input_size"], identity["pooling"]))
    whose = "the one that histofeat knows"
    if known is None:
        settings = [str(identity[name]) for name in ("input_size", "pooling", "precision", "graph")]
        # The name of a repository of the hub has a slash.
        name = "-".join([encoder.name.replace("/", "-"), weights, *settings, engine.name])
        known, whose = _remembered(cache_dir / "fingerprints" / f"{name}.json", found), "the first one here"
    away = float(np.abs(found - known).max())
    if away > _TOLERANCE[identity["precision"]]:
        raise WeightsError(
            f"{encoder.name}: expected the fingerprint of the test image to be {whose}, got one that is {away:.3f} "
            f"away where rounding explains {_TOLERANCE[identity['precision']]} (weights {weights}, {engine.name}). The "
            "weights were loaded in part or are another network's: copy or download them again."
        )


@functools.cache
def known_fingerprints() -> Mapping[tuple[str, str, int, str], np.ndarray]:
    """Fingerprints in this package, by encoder, content hash of its weights, input size and pooling."""
    columns = [f"value_{k:02d}" for k in range(_VALUES)]
    table = read_csv_rows(_KNOWN, ("encoder", "weights", "input_size", "pooling", *columns), owner="fingerprints")
    return {
        (row["encoder"], row["weights"], int(row["input_size"]), row["pooling"]): np.array(
            [float(row[column]) for column in columns]
        )
        for row in table.rows
    }


def _remembered(path: Path, found: np.ndarray) -> np.ndarray:
    """Return the fingerprint that was stored in a file; store this one if there is none."""
    try:
        return np.array(json.loads(path.read_text(encoding="utf-8")), dtype=np.float64).reshape(_VALUES)
    except DAMAGED:
        pass
    # In a cache that cannot be written, the next process has nothing to compare with either.
    with contextlib.suppress(OSError), write_whole(path, overwrite=True, parents=True) as part:
        part.write_text(json.dumps(found.round(6).tolist()), encoding="utf-8")
    return found


#: Raised with every change of what a trained encoder computes from its weights: older weights are then refused.
VERSION = 2
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
        Name of the data set it was trained on.
    patients : tuple of str
        The patient of each image.
    image_digests : tuple of bytes
        BLAKE2b of size and pixels of each image, 16 bytes, as `histofeat.features.ImageFingerprint` has it.
    recipe : mapping
        How it was trained.
    files : mapping of str to str
        Content hash of each file of weights, by name.
    """

    encoder: str
    dataset: str
    patients: tuple[str, ...] = field(repr=False)
    image_digests: tuple[bytes, ...] = field(repr=False)
    recipe: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def digests(self) -> frozenset[bytes]:
        """The digests as a set: what the audit of a split asks for."""
        return frozenset(self.image_digests)

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return len(set(self.patients))


def record_path(weights: Path) -> Path:
    """Path of the record of a file of weights, beside it."""
    return weights.with_name(weights.stem.removesuffix(".weights") + _RECORD)


def write_record(record: TrainingRecord, weights: Path) -> None:
    """Write a record beside its file of weights.

    Parameters
    ----------
    record : TrainingRecord
        ``files`` is filled in from what lies beside `weights` under the same name.
    weights : Path
        The file of weights.
    """
    path = record_path(weights)
    stem = path.name.removesuffix(_RECORD)
    beside = [file for file in sorted(path.parent.glob(f"{stem}.*")) if file != path]
    images = path.with_name(stem + _IMAGES)
    digests = np.frombuffer(b"".join(record.image_digests), dtype=np.uint8).reshape(-1, _DIGEST_BYTES)
    with write_whole(images, overwrite=True) as part:
        np.savez_compressed(part, patients=np.array(record.patients), digests=digests)
    about = {
        "encoder": record.encoder,
        "version": VERSION,
        "dataset": record.dataset,
        "n_patients": record.n_patients,
        "n_images": len(record.image_digests),
        "recipe": dict(record.recipe),
        "files": {file.name: hash_weights(file) for file in sorted({*beside, images})},
    }
    with write_whole(path, overwrite=True) as part:
        part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def read_record(weights: Path, encoder: str) -> TrainingRecord | None:
    """Read and check the record beside a file of weights.

    Parameters
    ----------
    weights : Path
        The file of weights.
    encoder : str
        Name of the encoder that the weights should belong to.

    Returns
    -------
    record : TrainingRecord or None
        None if there is no record: then nothing is known of the training.

    Raises
    ------
    WeightsError
        If the record cannot be read or belongs to another encoder or version, or a file that it names is missing or
        has other content.
    """
    path = record_path(weights)
    if not path.is_file():
        return None
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        name, version, files = about["encoder"], about["version"], dict(about["files"])
    except DAMAGED as error:
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
    images = path.with_name(path.name.removesuffix(_RECORD) + _IMAGES)
    patients, digests = _read_images(images, images.stat().st_mtime_ns if images.is_file() else 0, encoder)
    return TrainingRecord(encoder, about.get("dataset", ""), patients, digests, about.get("recipe", {}), files)


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


@lru_cache(maxsize=8)  # asked for with every batch of patches
def _read_images(images: Path, mtime_ns: int, encoder: str) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    try:
        stored = read_members(images)
        digests = read_array(stored["digests.npy"])
        return tuple(read_array(stored["patients.npy"]).tolist()), tuple(row.tobytes() for row in digests)
    except DAMAGED as error:
        raise WeightsError(
            f"{images}: expected the images that {encoder} was trained on, got {type(error).__name__}. "
            "Copy the folder of the weights again."
        ) from error
