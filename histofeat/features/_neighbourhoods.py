"""Circles of neighbours for local binary patterns: positions, weights, and patterns; counts of values and colours."""

from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

import numpy as np

from histofeat.exceptions import check_that, check_whole
from histofeat.features._base import PatchFeatures
from histofeat.features._batch import PatchBatch, check_channels, check_different
from histofeat.images import compiled

#: Offsets of neighbours are multiples of 1e-5 pixels, as in scikit-image.
_UNIT = 100_000
#: Neighbours are compared as integers: grey levels times this.
SCALE = float(_UNIT) ** 2
#: Pixels compared at a time: their buffers stay in the first-level cache.
BLOCK = 1280
#: Most points on a circle.
MAX_POINTS = 32


def check_ring(owner: str, radius, points, radius_name: str = "radius_px") -> int:
    """Validate one circle and return its number of points.

    Parameters
    ----------
    owner : str
        Name of the function or class in the message.
    radius : object
        Radius in pixels.
    points : object
        Number of points; None is 8 per pixel of radius, at most 32.
    radius_name : str, default "radius_px"
        Name of the radius in the message.

    Returns
    -------
    points : int
        Points on the circle.

    Raises
    ------
    ValueError
        If the radius is no integer of at least 1, or the points are no integer from 4 to 32.
    """
    check_whole(f"{owner}.{radius_name}", radius, 1, "Use 1.")
    points = min(8 * radius, MAX_POINTS) if points is None else points
    return check_whole(f"{owner}.points", points, 4, "Leave it out for 8 per pixel of radius.", most=MAX_POINTS)


class RingFeatures(PatchFeatures):
    """Base class of families that count patterns of neighbours on circles around each pixel.

    A family implements ``_columns(points)``, the ends of the column names of one circle, and
    ``_measure(gray, radius, points)``, a list of arrays of shape (n, d) with these columns.
    """

    _invariant_to_turns: ClassVar[bool] = True

    radii_px: Sequence[int]
    points: Sequence[int] | None
    channels: Sequence[str]

    def _check_params(self) -> None:
        self._rings()
        check_channels(f"{type(self).__name__}.channels", self.channels)

    def _rings(self) -> list[tuple[int, int]]:
        """Radius and number of points of each circle."""
        owner, points = type(self).__name__, self.points
        radii = check_different(f"{owner}.radii_px", self.radii_px, "radii such as (1, 2)")
        points = (None,) * len(radii) if points is None else points
        fits = isinstance(points, list | tuple) and len(points) == len(radii)
        expected = f"one number of points for each of {len(radii)} radii"
        check_that(f"{owner}.points", points, fits, expected, "Leave it out for 8 points per pixel of radius.")
        return [(r, check_ring(owner, r, p, "radii_px")) for r, p in zip(radii, points, strict=True)]

    def _feature_names(self) -> list[str]:
        return [
            f"{self.family}_{channel}_r{radius}_{column}"
            for channel in self.channels
            for radius, points in self._rings()
            for column in self._columns(points)
        ]

    def _compute(self, batch: PatchBatch) -> np.ndarray:
        parts = []
        for channel in self.channels:
            for radius, points in self._rings():
                parts += self._measure(batch.channel(channel), radius, points)
        return np.hstack(parts).astype(np.float32)


@lru_cache(maxsize=32)
def circle(points: int, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Upper left pixel of each neighbour, (P, 2) int64, and the weights of the four pixels around it, (P, 4) float64.

    Neighbour p lies ``-R sin(2 pi p / P)`` rows and ``R cos(2 pi p / P)`` columns away, rounded to 5 digits. The
    weights are integers with the sum `SCALE`, in the order upper left, upper right, lower left, lower right.
    """
    angle = 2 * np.pi * np.arange(points) / points
    offset = np.round(np.stack([-np.sin(angle), np.cos(angle)], axis=1) * radius, 5)
    corner = np.floor(offset)
    down, right = np.rint((offset - corner) * _UNIT).T
    up, left = _UNIT - down, _UNIT - right
    corners, weights = corner.astype(np.int64), np.stack([up * left, up * right, down * left, down * right], axis=1)
    corners.flags.writeable = weights.flags.writeable = False
    return corners, weights


def extended(images: np.ndarray, radius: int) -> np.ndarray:
    """Repeat the border of `images` (n, H, W) `radius` times, in a dimension in which no circle would fit."""
    margins = [radius if size < 2 * radius + 1 else 0 for size in images.shape[1:]]
    if not any(margins):
        return images
    return np.pad(images, [(0, 0), *((m, m) for m in margins)], mode="edge")


@compiled
def tally(bits, row, before, ones, changes):
    """Add a row of bits to the ones, and whether each differs from the bit of row `before` to the changes."""
    row, before = np.uint64(row), np.uint64(before)
    for i in range(np.uint64(bits.shape[1])):
        ones[i] += bits[row, i]
        changes[i] += bits[row, i] ^ bits[before, i]


@compiled
def close(bits, last, changes):
    """Add whether the bits of the first point, which are in row 2, differ from those of the last."""
    for i in range(bits.shape[1]):
        changes[i] += bits[2, i] ^ bits[last, i]


@compiled
def count_values(values, tables):
    """Add values to four tables in turn: increments of one table wait for each other, those of four tables do not."""
    whole = len(values) // 4 * 4
    for i in range(0, whole, 4):
        tables[0, values[i]] += 1
        tables[1, values[i + 1]] += 1
        tables[2, values[i + 2]] += 1
        tables[3, values[i + 3]] += 1
    for i in range(whole, len(values)):
        tables[0, values[i]] += 1


@compiled
def count_cells(pixels, bins, counts):
    """Fill `counts` (bins^3) with the number of `pixels` (n, 3) uint8 in each cell of an RGB grid."""
    step = np.arange(256) * bins // 256
    counts[:] = 0
    for i in range(len(pixels)):
        counts[(step[pixels[i, 0]] * bins + step[pixels[i, 1]]) * bins + step[pixels[i, 2]]] += 1
