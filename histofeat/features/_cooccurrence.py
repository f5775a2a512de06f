"""Co-occurrence matrices of grey levels, and the kernels that compute statistics from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, log, log2, sqrt
from typing import ClassVar

import numpy as np

from histofeat.exceptions import check_whole
from histofeat.features._base import PatchFeatures
from histofeat.features._batch import PatchBatch, check_channels, check_different, read_only
from histofeat.images import compiled

#: ``c * log2(c)`` is summed in integers, multiples of 2**-28: fast, and exact in any order.
FIXED = 2.0**28
#: Table of it for the counts of small patches; for larger counts it is computed.
C_LOG_C = np.array([0, *(round(c * log2(c) * FIXED) for c in range(1, 4096))], dtype=np.int64)
_NAT = log(2.0)


def cooccurrence(gray: np.ndarray, levels: int = 32, distance: int = 1) -> np.ndarray:
    """How often each pair of grey levels lies `distance` apart, in four directions.

    Parameters
    ----------
    gray : ndarray of shape (H, W), uint8
        Image. Grey value v has the level ``v * levels // 256``, whatever the other pixels are.
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
    check_whole("cooccurrence.levels", levels, 2, "Use 32.", most=256)
    check_whole("cooccurrence.distance", distance, 1, "Use 1.")
    quantised = np.empty(gray.shape, np.uint8)
    quantise(np.ascontiguousarray(gray).ravel(), levels, quantised.ravel())
    counts = np.zeros((4, levels * levels), np.int32)
    count_pairs(quantised, levels, distance, counts)
    counts = counts.reshape(4, levels, levels).astype(np.int64)
    return counts + counts.transpose(0, 2, 1)


@dataclass(eq=False, repr=False)
class CooccurrenceFeatures(PatchFeatures):
    """Base class of families that summarise statistics of co-occurrence matrices by mean and range over directions.

    A family lists its statistics in ``_statistics``; `textures` chooses the kernel by their number.
    """

    _invariant_to_turns: ClassVar[bool] = True
    _statistics: ClassVar[tuple[str, ...]]
    #: Names of channels in columns, where they are shorter than the channel's.
    _short: ClassVar[dict[str, str]] = {}

    levels: int = 32
    distances: Sequence[int] = (1,)
    channels: Sequence[str] = ("gray", "hematoxylin", "eosin")

    def _check_params(self) -> None:
        owner = type(self).__name__
        check_whole(f"{owner}.levels", self.levels, 2, "Use 32.", most=256)
        for distance in check_different(f"{owner}.distances", self.distances, "distances such as (1,)"):
            check_whole(f"{owner}.distances", distance, 1, "Use 1.")
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
            textures(read_only(batch.channel(channel)), self.levels, distances, C_LOG_C, parts[-1])
        return np.hstack(parts)


def measure_matrices(owner: str, counts, measure: Callable, n_columns: int) -> np.ndarray:
    """Statistics of symmetric co-occurrence matrices.

    Parameters
    ----------
    owner : str
        Name of the function in messages.
    counts : ndarray of shape (..., L, L), int
        The matrices.
    measure : {haralick, properties}
        Kernel that fills the row of a matrix.
    n_columns : int
        Length of a row.

    Returns
    -------
    statistics : ndarray of shape (..., n_columns), float64
        NaN for a matrix without any pair.

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
    matrices = np.ascontiguousarray(counts, dtype=np.int64).reshape(-1, levels, levels)
    out = np.full((len(matrices), n_columns), np.nan)
    for matrix, row in zip(matrices, out, strict=True):
        if matrix.any():
            measure(matrix, 0, levels - 1, C_LOG_C, np.empty((3, 2 * levels), np.int64), row)
    return out.reshape(*counts.shape[:-2], n_columns)


@compiled
def textures(images, levels, distances, c_log_c, out):
    """Fill `out` (n, distances * 2 * k): per distance k means over directions, then k ranges.

    k is 13 for Haralick's statistics and 10 for the properties of scikit-image.
    """
    n, height, width = images.shape
    quantised = np.empty((height, width), np.uint8)
    flat = quantised.ravel()
    counts = np.empty((4, levels * levels), np.int32)
    symmetric = np.zeros((levels, levels), np.int32)
    work = np.empty((3, 2 * levels), np.int32)
    size = out.shape[1] // len(distances)
    values = np.empty((4, size // 2))
    for image in range(n):
        low, high = quantise(images[image].ravel(), levels, flat)
        for k in range(len(distances)):
            counts[:] = 0
            if low < high:
                count_pairs(quantised, levels, min(distances[k], max(height, width) - 1), counts)
            else:  # a flat patch: a single pair makes its entropies exactly zero
                counts[0, low * levels + low] = 1
            used = 0
            for direction in range(4):
                if symmetrise(counts[direction], low, high, symmetric):
                    if size == 26:
                        haralick(symmetric, low, high, c_log_c, work, values[used])
                    else:
                        properties(symmetric, low, high, c_log_c, work, values[used])
                    used += 1
            summarise(values[:used], out[image, size * k : size * (k + 1)])


@compiled
def properties(symmetric, low, high, c_log_c, work, out):
    """Fill `out` (10) from the lower triangle of levels low to high of a symmetric matrix that is not all zero."""
    squares, in_logs = tally_pairs(symmetric, low, high, c_log_c, work)
    n, mean, variance, contrast, homogeneity = _moments(work, low, high)
    dissimilarity = 0
    for k in range(high - low + 1):
        dissimilarity += k * work[2, k]
    out[0] = contrast / n
    out[1] = dissimilarity / n
    out[2] = homogeneity / n
    out[3] = squares / (n * n)
    out[4] = sqrt(out[3])
    out[5] = 1.0 if variance == 0 else 1 - contrast / n / (2 * variance)
    out[6] = mean
    out[7] = variance
    out[8] = sqrt(variance)
    out[9] = max(0.0, log2(n) - in_logs / (n * FIXED)) * _NAT


@compiled
def haralick(symmetric, low, high, c_log_c, work, out):
    """Fill `out` (13) from the lower triangle of levels low to high of a symmetric matrix that is not all zero."""
    levels = len(symmetric)
    squares, information = tally_pairs(symmetric, low, high, c_log_c, work)
    marginal, sums, gaps = work[0, :levels], work[1], work[2, :levels]
    n, mean, variance, contrast, homogeneity = _moments(work, low, high)
    peaks = 0.0
    for k in range(high - low + 1):
        peaks += (gaps[k] / n) ** 2
    entropy = log2(n) - information / (n * FIXED)
    own = 0.0 if variance == 0 else log2(n) - sum_c_log_c(marginal, low, high, c_log_c) / (n * FIXED)
    out[0] = squares / (n * n)
    out[1] = contrast / n
    out[2] = 1.0 if variance == 0 else 1 - contrast / n / (2 * variance)
    out[3] = variance
    out[4] = homogeneity / n
    out[5] = 2 * mean
    out[6] = max(0.0, 4 * variance - contrast / n)
    out[7] = max(0.0, log2(n) - sum_c_log_c(sums, 2 * low, 2 * high, c_log_c) / (n * FIXED))
    out[8] = max(0.0, entropy)
    out[9] = peaks / levels - 1.0 / (levels * levels)
    out[10] = max(0.0, log2(n) - sum_c_log_c(gaps, np.int64(0), high - low, c_log_c) / (n * FIXED))
    out[11] = (entropy - 2 * own) / own if own > 0 else 0.0
    out[12] = sqrt(max(0.0, 1 - exp(-2 * (2 * own - entropy))))


@compiled
def _moments(work, low, high):
    """Number of pairs, mean and variance of a level, and sums of squared and of inverse gaps, from `tally_pairs`."""
    marginal, gaps = work[0], work[2]
    total, first = 0, 0
    for k in range(low, high + 1):
        total += marginal[k]
        first += k * marginal[k]
    n, mean, variance = float(total), first / total, 0.0
    for k in range(low, high + 1):
        variance += (k - mean) ** 2 * (marginal[k] / n)
    contrast, homogeneity = 0, 0.0
    for k in range(high - low + 1):
        contrast += k * k * gaps[k]
        homogeneity += gaps[k] / (1.0 + k * k)
    return n, mean, variance, contrast, homogeneity


@compiled
def quantise(gray, levels, quantised):
    """Level ``v * levels // 256`` of each pixel; returns the lowest and the highest."""
    low, high = np.uint8(255), np.uint8(0)
    for i in range(len(gray)):
        low = min(low, gray[i])
        high = max(high, gray[i])
        quantised[i] = np.uint8((np.uint16(gray[i]) * np.uint16(levels)) >> np.uint16(8))
    return np.int64(low) * levels // 256, np.int64(high) * levels // 256


@compiled
def count_pairs(quantised, levels, distance, counts):
    """Add the pairs of each direction, in one order, to `counts` (4, levels * levels)."""
    height, width = quantised.shape
    # One loop for all directions: increments of one table have to wait for each other, those of four tables do not.
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


@compiled
def symmetrise(counts, low, high, symmetric):
    """Fill the lower triangle of levels low to high with the pairs in both orders; return False if there are none."""
    levels = len(symmetric)
    total = 0
    for i in range(low, high + 1):
        for j in range(low, i + 1):
            both = counts[i * levels + j] + counts[j * levels + i]
            symmetric[i, j] = both
            total += both
    return total > 0


@compiled
def tally_pairs(symmetric, low, high, c_log_c, work):
    """Fill `work` with the marginal and the counts of sums and gaps; returns the sums of c^2 and of c log c.

    Rows are short: one loop over the triangle is faster than several that could be vectorised. Unsigned positions
    cannot be negative, which would have to be checked.
    """
    marginal, sums, gaps = work[0], work[1], work[2]
    work[:] = 0
    squares, in_logs = 0, 0
    first = np.uint64(low)
    for i in range(first, np.uint64(high + 1)):
        total = 0
        for j in range(first, i):
            count = symmetric[i, j]
            total += count
            marginal[j] += count
            sums[i + j] += 2 * count
            gaps[i - j] += 2 * count
            squares += 2 * (np.int64(count) * np.int64(count))
            in_logs += 2 * _times_log(count, c_log_c)
        count = symmetric[i, i]
        marginal[i] += total + count
        sums[i + i] += count
        gaps[0] += count
        squares += np.int64(count) * np.int64(count)
        in_logs += _times_log(count, c_log_c)
    return squares, in_logs


@compiled
def _times_log(count, c_log_c):
    """Give c log2(c) as a multiple of 2**-28."""
    return c_log_c[count] if count < len(c_log_c) else np.int64(count * log2(count) * FIXED + 0.5)


@compiled
def sum_c_log_c(counts, low, high, c_log_c):
    """Sum of c log2(c), as a multiple of 2**-28, over the counts from index low to high."""
    total = 0
    for k in range(low, high + 1):
        total += _times_log(counts[k], c_log_c)
    return total


@compiled
def summarise(values, out):
    """Fill `out` (2 k) with the means of k columns, then with their ranges."""
    columns = values.shape[1]
    for k in range(columns):
        total, least, most = 0.0, values[0, k], values[0, k]
        for value in values[:, k]:
            total += value
            least, most = min(least, value), max(most, value)
        out[k] = total / len(values)
        out[columns + k] = most - least
