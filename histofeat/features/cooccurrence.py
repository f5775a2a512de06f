"""Co-occurrence of grey levels: how often each pair lies side by side, and what its statistics are summed from."""

from __future__ import annotations

from math import log2
from typing import ClassVar

import numpy as np
from numba import njit

from histofeat.features.base import PatchFeatures
from histofeat.features.batch import PatchBatch, check_channels, check_integer, read_only

__all__ = [
    "C_LOG_C",
    "FIXED",
    "CooccurrenceFeatures",
    "cooccurrence",
    "count_pairs",
    "quantise",
    "read_counts",
    "sum_c_log_c",
    "summarise",
    "symmetrise",
    "tally_pairs",
]

#: ``c * log2(c)`` is summed in integers, multiples of 2**-28: fast, and exact in any order.
FIXED = 2.0**28
#: It comes from a table for the counts c of small patches; larger ones are computed.
C_LOG_C = np.array([0, *(round(c * log2(c) * FIXED) for c in range(1, 4096))], dtype=np.int64)


def cooccurrence(gray: np.ndarray, levels: int = 32, distance: int = 1) -> np.ndarray:
    """How often each pair of grey levels lies `distance` apart, in four directions.

    Parameters
    ----------
    gray : ndarray of shape (H, W), uint8
        Image. Grey value v has the level ``v * levels // 256``, whatever else the image holds.
    levels : int, default 32
        Number of levels, 2 to 256.
    distance : int, default 1
        Steps between the two pixels of a pair, at least 1. A diagonal step is one row and one column.

    Returns
    -------
    counts : ndarray of shape (4, levels, levels), int64
        Directions right, right and down, down, left and down: 0, 135, 90 and 45 degrees of Haralick's paper, and
        the order of mahotas. Symmetric: each pair is counted in both orders, as mahotas does and scikit-image does
        with ``symmetric=True``. Only pairs inside the image count; a direction in which nothing fits is all zero.

    Raises
    ------
    ValueError
        If the image is not 8-bit with two dimensions, or a parameter is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> cooccurrence(np.array([[0, 0, 255]], dtype=np.uint8), levels=2)[0].tolist()
    [[2, 1], [1, 0]]
    """
    gray = np.asarray(gray)
    if gray.dtype != np.uint8 or gray.ndim != 2 or gray.size == 0:
        raise ValueError(f"cooccurrence: expected 8-bit image of shape (H, W), got {gray.dtype} of shape {gray.shape}.")
    check_integer("cooccurrence.levels", levels, 2, 256)
    check_integer("cooccurrence.distance", distance, 1)
    quantised = np.empty(gray.shape, np.uint8)
    quantise(np.ascontiguousarray(gray).ravel(), levels, quantised.ravel())
    counts = np.zeros((4, levels * levels), np.int32)
    count_pairs(quantised, levels, distance, counts)
    counts = counts.reshape(4, levels, levels).astype(np.int64)
    return counts + counts.transpose(0, 2, 1)


class CooccurrenceFeatures(PatchFeatures):
    """Base class of families that summarise statistics of co-occurrence matrices by mean and range over directions.

    A family has the parameters `levels`, `distances` and `channels`, names its statistics in ``_statistics``, and
    implements ``_measure(images, distances, out)``, which fills the columns of a channel: for each distance the means,
    then the ranges.
    """

    _invariant_to_turns: ClassVar[bool] = True
    _statistics: ClassVar[tuple[str, ...]]
    #: Names of channels in columns, where they are shorter than the channel's.
    _short: ClassVar[dict[str, str]] = {}

    def _check_params(self) -> None:
        owner, distances = type(self).__name__, self.distances
        check_integer(f"{owner}.levels", self.levels, 2, 256)
        steps = distances if isinstance(distances, list | tuple) else ()
        if not steps or any(steps.count(distance) > 1 for distance in steps):
            raise ValueError(f"{owner}.distances: expected different distances such as (1,), got {distances!r}.")
        for distance in steps:
            check_integer(f"{owner}.distances", distance, 1)
        check_channels(f"{owner}.channels", self.channels)

    def _feature_names(self) -> list[str]:
        return [
            f"{self.family}_{self._short.get(channel, channel)}_{statistic}_d{distance}_{summary}"
            for channel in self.channels
            for distance in self.distances
            for summary in ("mean", "range")
            for statistic in self._statistics
        ]

    def _compute(self, batch: PatchBatch) -> np.ndarray:
        distances = np.asarray(self.distances, dtype=np.int64)
        parts = []
        for channel in self.channels:
            parts.append(np.empty((len(batch), len(distances) * 2 * len(self._statistics)), dtype=np.float32))
            self._measure(read_only(batch.channel(channel)), distances, parts[-1])
        return np.hstack(parts)


def read_counts(owner: str, counts) -> np.ndarray:
    """Symmetric co-occurrence matrices as one stack.

    Parameters
    ----------
    owner : str
        The function, for messages.
    counts : ndarray of shape (..., L, L), int
        What the user gave.

    Returns
    -------
    matrices : ndarray of shape (n, L, L), int64
        The matrices, C-contiguous.

    Raises
    ------
    ValueError
        If the matrices are not square, not symmetric, not of integers, or hold negative counts.
    """
    counts = np.asarray(counts)
    if counts.ndim < 2 or counts.shape[-1] != counts.shape[-2] or not np.issubdtype(counts.dtype, np.integer):
        raise ValueError(f"{owner}: expected integer matrices (..., L, L), got {counts.dtype} of shape {counts.shape}.")
    if (counts < 0).any() or (counts != counts.swapaxes(-1, -2)).any():
        raise ValueError(f"{owner}: expected symmetric counts, got negative or unequal entries.")
    levels = counts.shape[-1]
    return np.ascontiguousarray(counts, dtype=np.int64).reshape(-1, levels, levels)


@njit(cache=True, nogil=True)
def quantise(gray, levels, quantised):
    """Level ``v * levels // 256`` of each pixel; returns the lowest and the highest."""
    low, high = np.uint8(255), np.uint8(0)
    for i in range(len(gray)):
        low = min(low, gray[i])
        high = max(high, gray[i])
        quantised[i] = np.uint8((np.uint16(gray[i]) * np.uint16(levels)) >> np.uint16(8))
    return np.int64(low) * levels // 256, np.int64(high) * levels // 256


@njit(cache=True, nogil=True)
def count_pairs(quantised, levels, distance, counts):
    """Add the pairs of each direction, in one order, to `counts` (4, levels * levels)."""
    height, width = quantised.shape
    # One loop for all directions: increments of one table wait for each other, those of four overlap.
    across, down_right, down, down_left = counts[0], counts[1], counts[2], counts[3]
    step, scale = np.uint64(distance), np.uint64(levels)
    paired, whole = np.uint64(max(width - distance, 0)), np.uint64(width)
    for y in range(height - distance):
        row, below = quantised[y], quantised[y + distance]
        for x in range(paired):
            left, right = row[x] * scale, row[x + step]
            across[left + right] += 1
            down_right[left + below[x + step]] += 1
            down[left + below[x]] += 1
            down_left[right * scale + below[x]] += 1
        for x in range(paired, whole):
            down[row[x] * scale + below[x]] += 1
    for y in range(max(height - distance, 0), height):
        row = quantised[y]
        for x in range(paired):
            across[row[x] * scale + row[x + step]] += 1


@njit(cache=True, nogil=True)
def symmetrise(counts, low, high, symmetric):
    """Fill the levels in use of `symmetric` with the pairs in both orders; False if there is none."""
    levels = len(symmetric)
    total = 0
    for i in range(low, high + 1):
        for j in range(low, i + 1):
            both = counts[i * levels + j] + counts[j * levels + i]
            symmetric[i, j] = both
            symmetric[j, i] = both
            total += both
    return total > 0


@njit(cache=True, nogil=True)
def tally_pairs(symmetric, low, high, c_log_c, work):
    """Fill `work` with the marginal and the counts of sums and gaps; returns the sums of c^2 and of c log c."""
    levels = len(symmetric)
    marginal, sums, gaps = work[0], work[1], work[2]
    work[:] = 0
    squares, diagonal, above = 0, 0, 0
    for i in range(low, high + 1):
        row = symmetric[i, low : high + 1]
        here = sums[i + low : i + high + 1]
        rest = symmetric[i, i + 1 : high + 1]
        total = 0
        for j in range(len(row)):
            count = np.int64(row[j])
            total += count
            squares += count * count
            here[j] += row[j]
        marginal[i] = total
        gaps[0] += symmetric[i, i]
        gap = gaps[1:levels]
        for j in range(len(rest)):
            gap[j] += 2 * rest[j]
        above += sum_c_log_c(symmetric[i], i + 1, high, c_log_c)
        diagonal += sum_c_log_c(symmetric[i], i, i, c_log_c)
    return squares, diagonal + 2 * above


@njit(cache=True, nogil=True)
def sum_c_log_c(counts, low, high, c_log_c):
    """Sum of c log2(c), as a multiple of 2**-28, over the counts from index low to high."""
    total = 0
    size = len(c_log_c)
    for k in range(low, high + 1):
        count = counts[k]
        total += c_log_c[count] if count < size else np.int64(count * log2(count) * FIXED + 0.5)
    return total


@njit(cache=True, nogil=True)
def summarise(values, out):
    """Mean of each of k columns, then their ranges, into `out` (2 k)."""
    columns = values.shape[1]
    for k in range(columns):
        low = high = total = values[0, k]
        for row in range(1, len(values)):
            low = min(low, values[row, k])
            high = max(high, values[row, k])
            total += values[row, k]
        out[k] = total / len(values)
        out[columns + k] = high - low
