"""Joint colour histogram: how many pixels fall into each cell of a grid over red, green and blue."""

from __future__ import annotations

from itertools import product
from numbers import Integral
from typing import ClassVar

import numpy as np
from numba import njit

from histofeat.features.base import PatchFeatures
from histofeat.features.batch import PatchBatch

__all__ = ["JointColorHistogram", "joint_histogram"]

#: More cells than a patch of 50x50 has pixels say nothing more about it.
_MAX_BINS = 16


def joint_histogram(rgb: np.ndarray, bins: int = 8) -> np.ndarray:
    """Share of the pixels in each cell of a cubic grid over the RGB colours.

    Parameters
    ----------
    rgb : ndarray of shape (n, H, W, 3) or (H, W, 3), uint8
        Images of one size, red first.
    bins : int, default 8
        Bins of each channel, 2 to 16. Value v falls into bin ``v * bins // 256``.

    Returns
    -------
    shares : ndarray of shape (n, bins ** 3) or (bins ** 3,), float64
        Cell ``(red * bins + green) * bins + blue``; each row sums to 1.

    Raises
    ------
    ValueError
        If the images are not 8-bit with three channels last, or `bins` is out of its range.

    Notes
    -----
    `numpy.histogramdd` with ``bins`` equal bins over [0, 256) gives the same counts.

    Examples
    --------
    A black, a white and two red pixels:

    >>> import numpy as np
    >>> pixels = np.array([[[0, 0, 0], [255, 255, 255]], [[200, 0, 0], [128, 9, 9]]], dtype=np.uint8)
    >>> joint_histogram(pixels, bins=2).tolist()
    [0.25, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.25]
    """
    rgb = np.asarray(rgb)
    if rgb.dtype != np.uint8 or rgb.ndim not in (3, 4) or rgb.shape[-1] != 3 or 0 in rgb.shape[-3:]:
        raise ValueError(
            "joint_histogram: expected 8-bit images of shape (H, W, 3) or (n, H, W, 3), "
            f"got {rgb.dtype} of shape {rgb.shape}."
        )
    _check_bins("joint_histogram", bins)
    images = np.ascontiguousarray(rgb[None] if rgb.ndim == 3 else rgb)
    images = images.reshape(len(images), -1, 3)
    images.flags.writeable = False  # one type for the compiler, whatever the caller holds
    shares = np.empty((len(images), bins**3))
    _histograms(images, bins, shares)
    return shares[0] if rgb.ndim == 3 else shares


class JointColorHistogram(PatchFeatures):
    """Joint histogram of red, green and blue.

    Parameters
    ----------
    bins : int, default 8
        Bins of each channel, 2 to 16; there are ``bins ** 3`` columns, 512 by default.

    See Also
    --------
    joint_histogram : the definition.
    histofeat.features.ColorHistogram : each channel for itself, in three colour spaces.

    Notes
    -----
    With 8 bins this is the "RGB histogram" that Cruz-Roa et al. 2014 give to a random forest
    (:doi:`10.1117/12.2043872`). Columns are ``joint_color_r<bin>_g<bin>_b<bin>``. The place of a pixel does not
    matter: flips and quarter turns leave every value as it is. A flat patch has one cell of 1.

    Examples
    --------
    >>> import numpy as np
    >>> family = JointColorHistogram(bins=2)
    >>> family.transform(np.full((1, 50, 50, 3), 255, dtype=np.uint8)).tolist()
    [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]
    >>> str(family.get_feature_names_out()[4])
    'joint_color_r1_g0_b0'
    """

    family: ClassVar[str] = "joint_color"
    _invariant_to_turns: ClassVar[bool] = True

    def __init__(self, bins: int = 8):
        self.bins = bins

    def _check_params(self) -> None:
        _check_bins("JointColorHistogram", self.bins)

    def _feature_names(self) -> list[str]:
        digits = len(str(self.bins - 1))
        return [
            f"joint_color_r{red:0{digits}d}_g{green:0{digits}d}_b{blue:0{digits}d}"
            for red, green, blue in product(range(self.bins), repeat=3)
        ]

    def _compute(self, batch: PatchBatch) -> np.ndarray:
        return joint_histogram(batch.rgb, self.bins).astype(np.float32)


def _check_bins(owner: str, bins) -> None:
    if not isinstance(bins, Integral) or isinstance(bins, bool) or not 2 <= bins <= _MAX_BINS:
        raise ValueError(f"{owner}.bins: expected an integer from 2 to {_MAX_BINS}, got {bins!r}.")


@njit(cache=True, nogil=True)
def _histograms(images, bins, shares):
    """Fill `shares` (n, bins^3) from `images` (n, H * W, 3) uint8."""
    step = np.empty(256, np.int64)
    for value in range(256):
        step[value] = value * bins // 256
    for image in range(len(images)):
        pixels, share = images[image], shares[image]
        share[:] = 0
        for i in range(len(pixels)):
            share[(step[pixels[i, 0]] * bins + step[pixels[i, 1]]) * bins + step[pixels[i, 2]]] += 1
        share /= len(pixels)
