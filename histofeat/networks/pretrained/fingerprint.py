"""Whether a loaded network is the one it should be: what it makes of a fixed test image, against what is known."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from histofeat.datasets import read_csv_rows, write_whole
from histofeat.exceptions import WeightsError

__all__ = ["check_fingerprint", "fingerprint", "known_fingerprints", "test_image"]

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


def fingerprint(engine, input_size: int) -> np.ndarray:
    """Sixteen numbers that stand for the embedding of the test image.

    Parameters
    ----------
    engine : Engine
        What runs the network.
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
    """Refuse a network that does not give what it gave before.

    Parameters
    ----------
    engine : Engine
        What was loaded.
    encoder : Encoder
    weights : str
        Content hash of the weights. This package knows the fingerprints of some at their usual sizes; those of others
        are remembered the first time.
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
        # The name of a repository of the hub has a slash.
        name = encoder.name.replace("/", "-")
        settings = (identity[one] for one in ("input_size", "pooling", "precision", "graph"))
        words = (name, weights, *settings, engine.name)
        known, whose = _remembered(cache_dir / "fingerprints", "-".join(map(str, words)), found), "the first one here"
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


def _remembered(folder: Path, name: str, found: np.ndarray) -> np.ndarray:
    """Give the fingerprint that was kept under a name; keep this one where there is none."""
    path = folder / f"{name}.json"
    try:
        return np.array(json.loads(path.read_text(encoding="utf-8")), dtype=np.float64).reshape(_VALUES)
    except (OSError, ValueError, TypeError):
        pass
    try:
        with write_whole(path, overwrite=True, parents=True) as part:
            part.write_text(json.dumps(found.round(6).tolist()), encoding="utf-8")
    except OSError:
        pass  # a cache that cannot be written: the next process has nothing to compare with either
    return found
