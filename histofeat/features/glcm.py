"""Grey-level co-occurrence: the ten texture properties of scikit-image, from fixed levels and in all directions."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, log2, sqrt
from typing import ClassVar

import numpy as np
from numba import njit

from histofeat.features.cooccurrence import (
    C_LOG_C,
    FIXED,
    CooccurrenceFeatures,
    count_pairs,
    quantise,
    read_counts,
    summarise,
    symmetrise,
    tally_pairs,
)

__all__ = ["GLCM", "PROPERTIES", "glcm_properties"]

#: Names of the properties, those of scikit-image in small letters.
PROPERTIES = (
    *("contrast", "dissimilarity", "homogeneity", "asm", "energy", "correlation"),
    *("mean", "variance", "std", "entropy"),
)
_NAT = log(2.0)


def glcm_properties(counts: np.ndarray) -> np.ndarray:
    """Ten properties of symmetric co-occurrence matrices.

    Parameters
    ----------
    counts : ndarray of shape (..., L, L), int
        Symmetric counts of pairs, such as `histofeat.features.cooccurrence.cooccurrence` gives.

    Returns
    -------
    properties : ndarray of shape (..., 10), float64
        In the order of `PROPERTIES`; NaN for a matrix without any pair.

    Raises
    ------
    ValueError
        If the matrices are not square, not symmetric, or hold negative counts.

    Notes
    -----
    With p the matrix divided by its sum, i and j its rows and columns, these are the definitions of
    `skimage.feature.graycoprops`, after [1]_ and [2]_:

    - ``contrast = sum (i - j)^2 p``, ``dissimilarity = sum |i - j| p``, ``homogeneity = sum p / (1 + (i - j)^2)``;
    - ``asm = sum p^2``, ``energy = sqrt(asm)``, ``entropy = -sum p ln p``, in nats, with ``0 ln 0 = 0``;
    - ``mean = sum i p``, ``variance = sum (i - mean)^2 p``, ``std = sqrt(variance)``;
    - ``correlation = sum (i - mean) (j - mean) p / variance``, and 1 where the variance is 0.

    A matrix with all pairs in one cell (k, k), that of a flat patch, has homogeneity, asm, energy and correlation 1,
    mean k, and 0 otherwise.

    References
    ----------
    .. [1] R. M. Haralick, K. Shanmugam, I. Dinstein, IEEE Transactions on Systems, Man, and Cybernetics SMC-3(6),
       1973, 610-621. :doi:`10.1109/TSMC.1973.4309314`
    .. [2] M. Hall-Beyer, GLCM Texture: A Tutorial v. 3.0, University of Calgary, 2017. :doi:`10.11575/PRISM/33280`

    Examples
    --------
    >>> import numpy as np
    >>> glcm_properties(np.array([[2, 1], [1, 0]]))[:4].tolist()
    [0.5, 0.5, 0.75, 0.375]
    """
    matrices = read_counts("glcm_properties", counts)
    levels = matrices.shape[-1]
    out = np.full((len(matrices), 10), np.nan)
    for matrix, row in zip(matrices, out, strict=True):
        if matrix.any():
            _properties(matrix, 0, levels - 1, C_LOG_C, np.empty((3, 2 * levels), np.int64), row)
    return out.reshape(*np.shape(counts)[:-2], 10)


class GLCM(CooccurrenceFeatures):
    """Ten properties of grey-level co-occurrence: mean and range over four directions.

    Parameters
    ----------
    levels : int, default 32
        Grey levels, 2 to 256. They are fixed, ``v * levels // 256``, so that patches can be compared.
    distances : sequence of int, default (1, 3)
        Steps between the pixels of a pair, each at least 1. A diagonal step is one row and one column; scikit-image
        rounds the end of a diagonal of the given length instead, which is the same for a distance of 1.
    channels : sequence of str, default ("gray", "hematoxylin", "eosin")
        Channels of `PatchBatch` to measure.

    See Also
    --------
    glcm_properties : the definitions, and the values of a flat patch.
    histofeat.features.HaralickTexture : thirteen statistics of the same matrices, after mahotas.

    Notes
    -----
    Columns are ``glcm_<channel>_<property>_d<distance>_<mean or range>``. A distance beyond the longer side of a patch
    is cut to that side minus one. A direction in which a patch still holds no pair is left out of mean and range. A
    patch of a single level, or of a single pixel, counts as flat. Mean and range do not change under flips and
    quarter turns, which only exchange the directions.

    Examples
    --------
    >>> import numpy as np
    >>> family = GLCM(distances=(1,), channels=("gray",))
    >>> values = family.transform(np.zeros((1, 50, 50, 3), dtype=np.uint8))
    >>> {name: float(v) for name, v in zip(family.get_feature_names_out()[1:3], values[0, 1:3], strict=True)}
    {'glcm_gray_dissimilarity_d1_mean': 0.0, 'glcm_gray_homogeneity_d1_mean': 1.0}
    """

    family: ClassVar[str] = "glcm"
    _statistics: ClassVar[tuple[str, ...]] = PROPERTIES

    def __init__(
        self,
        levels: int = 32,
        distances: Sequence[int] = (1, 3),
        channels: Sequence[str] = ("gray", "hematoxylin", "eosin"),
    ):
        self.levels = levels
        self.distances = distances
        self.channels = channels

    def _measure(self, images, distances, out) -> None:
        _textures(images, self.levels, distances, C_LOG_C, out)


@njit(cache=True, nogil=True)
def _textures(images, levels, distances, c_log_c, out):
    """Fill `out` (n, distances * 20): ten means over directions, then ten ranges, per distance."""
    n, height, width = images.shape
    quantised = np.empty((height, width), np.uint8)
    flat = quantised.ravel()
    counts = np.empty((4, levels * levels), np.int32)
    symmetric = np.zeros((levels, levels), np.int32)
    work = np.empty((3, 2 * levels), np.int32)
    values = np.empty((4, 10))
    for image in range(n):
        low, high = quantise(images[image].ravel(), levels, flat)
        for k in range(len(distances)):
            distance = min(distances[k], max(height, width) - 1)
            used = 0
            if low < high and distance > 0:
                counts[:] = 0
                count_pairs(quantised, levels, distance, counts)
                for direction in range(4):
                    if symmetrise(counts[direction], low, high, symmetric):
                        _properties(symmetric, low, high, c_log_c, work, values[used])
                        used += 1
            if used == 0:
                _flat_properties(low, values[0])
                used = 1
            summarise(values[:used], out[image, 20 * k : 20 * (k + 1)])


@njit(cache=True, nogil=True)
def _flat_properties(level, out):
    """Properties of a patch with a single level."""
    out[:] = 0
    out[2] = out[3] = out[4] = out[5] = 1
    out[6] = level


@njit(cache=True, nogil=True)
def _properties(symmetric, low, high, c_log_c, work, out):
    """Fill `out` (10) from a symmetric matrix that is zero outside the levels low to high and not all zero."""
    levels = len(symmetric)
    squares, in_logs = tally_pairs(symmetric, low, high, c_log_c, work)
    marginal, gaps = work[0, :levels], work[2, :levels]
    total, first = 0, 0
    for k in range(low, high + 1):
        total += marginal[k]
        first += k * marginal[k]
    n, mean, variance = float(total), first / total, 0.0
    for k in range(low, high + 1):
        variance += (k - mean) ** 2 * (marginal[k] / n)
    contrast, dissimilarity, homogeneity = 0, 0, 0.0
    for k in range(high - low + 1):
        contrast += k * k * gaps[k]
        dissimilarity += k * gaps[k]
        homogeneity += gaps[k] / (1.0 + k * k)
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
