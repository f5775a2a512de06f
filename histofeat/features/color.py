"""Colour histograms and moments in RGB, HSV and stain channels."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import ClassVar

import numpy as np
from numba import njit

from histofeat.features.base import PatchFeatures
from histofeat.features.batch import CHANNELS, PatchBatch

__all__ = ["MOMENTS", "ColorHistogram", "channel_histograms"]

#: Moments of a channel, in the order of the columns.
MOMENTS = ("mean", "std", "skewness", "kurtosis")

_SPACES = {space: [name for name, (of, _) in CHANNELS.items() if of == space] for space in ("rgb", "hsv", "stains")}


def channel_histograms(pixels: np.ndarray, bins: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Histogram and moments of each of three channels.

    Parameters
    ----------
    pixels : ndarray of shape (n, H, W, 3) or (H, W, 3), uint8
        Images of one size, channels last.
    bins : int, default 16
        Number of bins, 2 to 256. Value v falls into bin ``v * bins // 256``.

    Returns
    -------
    shares : ndarray of shape (n, 3, bins) or (3, bins), float64
        Share of the pixels in each bin; sums to 1 per channel.
    moments : ndarray of shape (n, 3, 4) or (3, 4), float64
        Per channel, in the order of `MOMENTS`: mean and standard deviation (of the population) in units of 255,
        skewness ``m3 / m2^(3/2)`` and excess kurtosis ``m4 / m2^2 - 3`` of the central moments m. A channel with a
        single value has the last three 0.

    Raises
    ------
    ValueError
        If the images are not 8-bit with three channels last, or `bins` is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> shares, moments = channel_histograms(np.array([[[0, 9, 255], [255, 9, 255]]], dtype=np.uint8), bins=2)
    >>> shares.tolist()
    [[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]]
    >>> moments[0].tolist()
    [0.5, 0.5, 0.0, -2.0]
    """
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or pixels.shape[-1] != 3 or 0 in pixels.shape[-3:]:
        raise ValueError(
            "channel_histograms: expected 8-bit images of shape (H, W, 3) or (n, H, W, 3), "
            f"got {pixels.dtype} of shape {pixels.shape}."
        )
    _check_bins("channel_histograms", bins)
    images = np.ascontiguousarray(pixels[None] if pixels.ndim == 3 else pixels)
    images = images.reshape(len(images), -1)
    images.flags.writeable = False  # one type for the compiler, whatever the caller holds
    shares, moments = np.empty((len(images), 3, bins)), np.empty((len(images), 3, len(MOMENTS)))
    _histograms(images, shares, moments)
    return (shares[0], moments[0]) if pixels.ndim == 3 else (shares, moments)


class ColorHistogram(PatchFeatures):
    """Histograms and moments of the colours of a patch.

    Parameters
    ----------
    bins : int, default 16
        Bins of each channel's histogram, 2 to 256.
    spaces : sequence of {"rgb", "hsv", "stains"}, default ("rgb", "hsv", "stains")
        Colour spaces to measure, three channels each; their 8-bit scales are those of `PatchBatch`.
    moments : bool, default True
        Whether mean, standard deviation, skewness and excess kurtosis of each channel follow its histogram.

    See Also
    --------
    channel_histograms : the definition, and what happens on flat patches.
    histofeat.images.quantised_stains : the scale of the stain channels.

    Notes
    -----
    Columns are ``color_<channel>_hist_<bin>`` and ``color_<channel>_<moment>``. The place of a pixel does not
    matter: flips and quarter turns leave every value as it is. Hue is an angle, and its moments cut the circle at red.

    Examples
    --------
    >>> import numpy as np
    >>> family = ColorHistogram(bins=2, spaces=("rgb",))
    >>> family.transform(np.full((1, 50, 50, 3), 255, dtype=np.uint8))[0, :6].tolist()
    [0.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    >>> [str(name) for name in family.get_feature_names_out()[:3]]
    ['color_red_hist_00', 'color_red_hist_01', 'color_red_mean']
    """

    family: ClassVar[str] = "color"
    _invariant_to_turns: ClassVar[bool] = True

    def __init__(self, bins: int = 16, spaces: Sequence[str] = ("rgb", "hsv", "stains"), moments: bool = True):
        self.bins = bins
        self.spaces = spaces
        self.moments = moments

    def _check_params(self) -> None:
        _check_bins("ColorHistogram", self.bins)
        known = tuple(_SPACES)
        spaces = self.spaces if isinstance(self.spaces, list | tuple) else ()
        if not spaces or any(space not in known or spaces.count(space) > 1 for space in spaces):
            raise ValueError(f"ColorHistogram.spaces: expected different names of {known}, got {self.spaces!r}.")
        if not isinstance(self.moments, bool | np.bool_):
            raise ValueError(f"ColorHistogram.moments: expected True or False, got {self.moments!r}.")

    def _feature_names(self) -> list[str]:
        columns = [f"hist_{k:02d}" for k in range(self.bins)] + (list(MOMENTS) if self.moments else [])
        return [
            f"color_{channel}_{column}" for space in self.spaces for channel in _SPACES[space] for column in columns
        ]

    def _compute(self, batch: PatchBatch) -> np.ndarray:
        parts = []
        for space in self.spaces:
            shares, moments = channel_histograms(getattr(batch, space), self.bins)
            part = np.concatenate([shares, moments], axis=2) if self.moments else shares
            parts.append(part.reshape(len(batch), -1))
        return np.hstack(parts).astype(np.float32)


def _check_bins(owner: str, bins) -> None:
    if not isinstance(bins, Integral) or isinstance(bins, bool) or not 2 <= bins <= 256:
        raise ValueError(f"{owner}.bins: expected an integer from 2 to 256, got {bins!r}.")


@njit(cache=True, nogil=True)
def _histograms(images, shares, moments):
    """Fill `shares` (n, 3, bins) and `moments` (n, 3, 4) from `images` (n, H * W * 3) uint8."""
    tables = np.empty((6, 256), np.int64)
    bins = shares.shape[2]
    for image in range(len(images)):
        tables[:] = 0
        _count(images[image], tables)
        for channel in range(3):
            table = tables[channel]
            table += tables[channel + 3]
            n = len(images[image]) // 3
            share = shares[image, channel]
            share[:] = 0
            for value in range(256):
                share[value * bins // 256] += table[value]
            share /= n
            _moments(table, n, moments[image, channel])


@njit(cache=True, nogil=True)
def _count(values, tables):
    """Count interleaved channels, two pixels in turn: increments of one table wait for each other."""
    whole = len(values) // 6 * 6
    for i in range(0, whole, 6):
        for k in range(6):
            tables[k, values[i + k]] += 1
    for i in range(whole, len(values)):
        tables[i - whole, values[i]] += 1


@njit(cache=True, nogil=True)
def _moments(table, n, out):
    """Mean, standard deviation, skewness and excess kurtosis of a histogram of 256 values.

    Powers are summed as integers around the level next to the mean, so only the last steps round.
    """
    total = 0
    for value in range(256):
        total += value * table[value]
    centre = (2 * total + n) // (2 * n)
    shift = total / n - centre
    second, third, fourth = 0, 0, 0
    for value in range(256):
        gap = value - centre
        weighted = gap * gap * table[value]
        second += weighted
        third += gap * weighted
        fourth += gap * gap * weighted
    variance = second / n - shift * shift
    out[0] = total / n / 255
    out[1:] = 0
    # A single level has no shape; with two or more the variance is at least (n - 1) / n^2.
    if second > 0 and variance > 0:
        out[1] = variance**0.5 / 255
        out[2] = (third / n - 3 * shift * (second / n) + 2 * shift**3) / variance**1.5
        out[3] = (fourth / n - 4 * shift * (third / n) + 6 * shift**2 * (second / n) - 3 * shift**4) / variance**2 - 3
