"""Grey-level histogram."""

from __future__ import annotations

from numbers import Integral
from typing import ClassVar

import numpy as np
from numba import njit

from histofeat.features.base import PatchFeatures
from histofeat.features.batch import PatchBatch

__all__ = ["GrayHistogram", "gray_histogram"]


def gray_histogram(gray: np.ndarray, bins: int = 256) -> np.ndarray:
    """Share of the pixels in each bin of grey levels.

    Parameters
    ----------
    gray : ndarray of shape (n, H, W) or (H, W), uint8
        Images of one size.
    bins : int, default 256
        Number of bins, 2 to 256. Value v falls into bin ``v * bins // 256``.

    Returns
    -------
    shares : ndarray of shape (n, bins) or (bins,), float64
        Each row sums to 1.

    Raises
    ------
    ValueError
        If the images are not 8-bit with two or three dimensions, or `bins` is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> gray_histogram(np.array([[0, 63], [64, 255]], dtype=np.uint8), bins=4).tolist()
    [0.5, 0.25, 0.0, 0.25]
    """
    gray = np.asarray(gray)
    if gray.dtype != np.uint8 or gray.ndim not in (2, 3) or 0 in gray.shape[-2:]:
        raise ValueError(
            f"gray_histogram: expected 8-bit images of shape (H, W) or (n, H, W), got {gray.dtype} of shape "
            f"{gray.shape}."
        )
    _check_bins("gray_histogram", bins)
    images = np.ascontiguousarray(gray[None] if gray.ndim == 2 else gray)
    images = images.reshape(len(images), -1)
    images.flags.writeable = False  # one type for the compiler, whatever the caller holds
    shares = np.empty((len(images), bins))
    _histograms(images, shares)
    return shares[0] if gray.ndim == 2 else shares


class GrayHistogram(PatchFeatures):
    """Histogram of the grey levels of a patch.

    Parameters
    ----------
    bins : int, default 256
        Number of bins, 2 to 256; there are as many columns.

    See Also
    --------
    gray_histogram : the definition.

    Notes
    -----
    The grey level is `PatchBatch.gray`. Cruz-Roa et al. 2014 (:doi:`10.1117/12.2043872`) name a grey histogram among
    the features that they compare; the default of one bin for each level is ours. Columns are ``gray_hist_<bin>``.
    Flips and quarter turns leave every value as it is. A flat patch has one bin of 1.

    Examples
    --------
    >>> import numpy as np
    >>> family = GrayHistogram(bins=2)
    >>> family.transform(np.zeros((1, 50, 50, 3), dtype=np.uint8)).tolist()
    [[1.0, 0.0]]
    >>> str(family.get_feature_names_out()[1])
    'gray_hist_1'
    """

    family: ClassVar[str] = "gray"
    _invariant_to_turns: ClassVar[bool] = True

    def __init__(self, bins: int = 256):
        self.bins = bins

    def _check_params(self) -> None:
        _check_bins("GrayHistogram", self.bins)

    def _feature_names(self) -> list[str]:
        digits = len(str(self.bins - 1))
        return [f"gray_hist_{k:0{digits}d}" for k in range(self.bins)]

    def _compute(self, batch: PatchBatch) -> np.ndarray:
        return gray_histogram(batch.gray, self.bins).astype(np.float32)


def _check_bins(owner: str, bins) -> None:
    if not isinstance(bins, Integral) or isinstance(bins, bool) or not 2 <= bins <= 256:
        raise ValueError(f"{owner}.bins: expected an integer from 2 to 256, got {bins!r}.")


@njit(cache=True, nogil=True)
def _histograms(images, shares):
    """Fill `shares` (n, bins) from `images` (n, H * W) uint8."""
    # Neighbouring pixels mostly hold the same level: four tables keep their increments independent.
    tables = np.empty((4, 256), np.int64)
    bins = shares.shape[1]
    for image in range(len(images)):
        levels, share = images[image], shares[image]
        tables[:] = 0
        whole = len(levels) // 4 * 4
        for i in range(0, whole, 4):
            for k in range(4):
                tables[k, levels[i + k]] += 1
        for i in range(whole, len(levels)):
            tables[0, levels[i]] += 1
        share[:] = 0
        for value in range(256):
            share[value * bins // 256] += tables[0, value] + tables[1, value] + tables[2, value] + tables[3, value]
        share /= len(levels)
