"""Histograms of pixel values: of each colour channel with moments, of RGB colours jointly, and of grey levels."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np

from histofeat.exceptions import check_whole
from histofeat.features._base import PatchFeatures
from histofeat.features._batch import CHANNELS, PatchBatch, as_stack, check_channels, read_only
from histofeat.features._neighbourhoods import count_cells, count_values
from histofeat.images import compiled

#: Moments of a channel, in the order of the columns.
MOMENTS = ("mean", "std", "skewness", "kurtosis")
#: Bins of each channel of a joint histogram: with more, it has more cells than a patch of 50x50 has pixels.
_MAX_JOINT_BINS = 16

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
    >>> shares, moments = channel_histograms(np.array([[[0, 9, 255], [255, 9, 255]]], dtype=np.uint8), bins=2)
    >>> shares.tolist()
    [[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]]
    >>> moments[0].tolist()
    [0.5, 0.5, 0.0, -2.0]
    """
    stack = as_stack("channel_histograms", pixels, colors=True)
    check_whole("channel_histograms.bins", bins, 2, "Use 16.", most=256)
    shares, moments = np.empty((len(stack), 3, bins)), np.empty((len(stack), 3, len(MOMENTS)))
    _count_channels(read_only(stack.reshape(len(stack), -1)), shares, moments)
    return (shares[0], moments[0]) if np.ndim(pixels) == 3 else (shares, moments)


@dataclass(eq=False, repr=False)
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
    Columns are ``color_<channel>_hist_<bin>`` and ``color_<channel>_<moment>``. The position of a pixel does not
    matter: flips and quarter turns do not change any value. Hue is an angle, and its moments cut the circle at red.

    Examples
    --------
    >>> family = ColorHistogram(bins=2, spaces=("rgb",))
    >>> family.transform(np.full((1, 50, 50, 3), 255, dtype=np.uint8))[0, :6].tolist()
    [0.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    >>> [str(name) for name in family.get_feature_names_out()[:3]]
    ['color_red_hist_00', 'color_red_hist_01', 'color_red_mean']
    """

    family: ClassVar[str] = "color"
    _invariant_to_turns: ClassVar[bool] = True

    bins: int = 16
    spaces: Sequence[str] = ("rgb", "hsv", "stains")
    moments: bool = True

    def _check_params(self) -> None:
        check_whole("ColorHistogram.bins", self.bins, 2, "Use 16.", most=256)
        check_channels("ColorHistogram.spaces", self.spaces, tuple(_SPACES))
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

    >>> pixels = np.array([[[0, 0, 0], [255, 255, 255]], [[200, 0, 0], [128, 9, 9]]], dtype=np.uint8)
    >>> joint_histogram(pixels, bins=2).tolist()
    [0.25, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.25]
    """
    stack = as_stack("joint_histogram", rgb, colors=True)
    check_whole("joint_histogram.bins", bins, 2, "Use 8.", most=_MAX_JOINT_BINS)
    shares = np.empty((len(stack), bins**3))
    _share_cells(read_only(stack.reshape(len(stack), -1, 3)), bins, shares)
    return shares[0] if np.ndim(rgb) == 3 else shares


@dataclass(eq=False, repr=False)
class JointColorHistogram(PatchFeatures):
    """Joint histogram of red, green and blue.

    Parameters
    ----------
    bins : int, default 8
        Bins of each channel, 2 to 16; there are ``bins ** 3`` columns, 512 by default.

    See Also
    --------
    joint_histogram : the definition.
    histofeat.features.ColorHistogram : each channel separately, in three colour spaces.

    Notes
    -----
    With 8 bins this is the "RGB histogram" that Cruz-Roa et al. 2014 give to a random forest
    (:doi:`10.1117/12.2043872`). Columns are ``joint_color_r<bin>_g<bin>_b<bin>``. The position of a pixel does not
    matter: flips and quarter turns do not change any value. A flat patch has one cell of 1.

    Examples
    --------
    >>> family = JointColorHistogram(bins=2)
    >>> family.transform(np.full((1, 50, 50, 3), 255, dtype=np.uint8)).tolist()
    [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]
    >>> str(family.get_feature_names_out()[4])
    'joint_color_r1_g0_b0'
    """

    family: ClassVar[str] = "joint_color"
    _invariant_to_turns: ClassVar[bool] = True

    bins: int = 8

    def _check_params(self) -> None:
        check_whole("JointColorHistogram.bins", self.bins, 2, "Use 8.", most=_MAX_JOINT_BINS)

    def _feature_names(self) -> list[str]:
        digits = len(str(self.bins - 1))
        return [
            f"joint_color_r{red:0{digits}d}_g{green:0{digits}d}_b{blue:0{digits}d}"
            for red, green, blue in product(range(self.bins), repeat=3)
        ]

    def _compute(self, batch: PatchBatch) -> np.ndarray:
        return joint_histogram(batch.rgb, self.bins).astype(np.float32)


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
    >>> gray_histogram(np.array([[0, 63], [64, 255]], dtype=np.uint8), bins=4).tolist()
    [0.5, 0.25, 0.0, 0.25]
    """
    stack = as_stack("gray_histogram", gray)
    check_whole("gray_histogram.bins", bins, 2, "Use 256.", most=256)
    shares = np.empty((len(stack), bins))
    _count_levels(read_only(stack.reshape(len(stack), -1)), shares)
    return shares[0] if np.ndim(gray) == 2 else shares


@dataclass(eq=False, repr=False)
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
    Flips and quarter turns do not change any value. A flat patch has one bin of 1.

    Examples
    --------
    >>> family = GrayHistogram(bins=2)
    >>> family.transform(np.zeros((1, 50, 50, 3), dtype=np.uint8)).tolist()
    [[1.0, 0.0]]
    >>> str(family.get_feature_names_out()[1])
    'gray_hist_1'
    """

    family: ClassVar[str] = "gray"
    _invariant_to_turns: ClassVar[bool] = True

    bins: int = 256

    def _check_params(self) -> None:
        check_whole("GrayHistogram.bins", self.bins, 2, "Use 256.", most=256)

    def _feature_names(self) -> list[str]:
        digits = len(str(self.bins - 1))
        return [f"gray_hist_{k:0{digits}d}" for k in range(self.bins)]

    def _compute(self, batch: PatchBatch) -> np.ndarray:
        return gray_histogram(batch.gray, self.bins).astype(np.float32)


@compiled
def _count_channels(images, shares, moments):
    """Fill `shares` (n, 3, bins) and `moments` (n, 3, 4) from `images` (n, H * W * 3) uint8."""
    tables = np.empty((6, 256), np.int64)
    for image in range(len(images)):
        tables[:] = 0
        _count_pixels(images[image], tables)
        n = len(images[image]) // 3
        for channel in range(3):
            for level in range(256):
                tables[channel, level] += tables[channel + 3, level]
            _fill_bins(tables[channel], n, shares[image, channel])
            _moments(tables[channel], n, moments[image, channel])


@compiled
def _fill_bins(table, n, shares):
    """Fill `shares` (bins) from the counts of 256 values among `n`."""
    shares[:] = 0
    for value in range(256):
        shares[value * len(shares) // 256] += table[value]
    for k in range(len(shares)):
        shares[k] /= n


@compiled
def _count_pixels(values, tables):
    """Count interleaved channels, two pixels in turn, so that increments of one table need not wait for each other."""
    whole = len(values) // 6 * 6
    for i in range(0, whole, 6):
        for k in range(6):
            tables[k, values[i + k]] += 1
    for i in range(whole, len(values)):
        tables[i - whole, values[i]] += 1


@compiled
def _moments(table, n, out):
    """Mean, standard deviation, skewness and excess kurtosis of a histogram of 256 values.

    Powers are summed as integers around the level nearest to the mean, so that only the last steps round.
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


@compiled
def _share_cells(images, bins, shares):
    """Fill `shares` (n, bins^3) from `images` (n, H * W, 3) uint8."""
    for image in range(len(images)):
        share = shares[image]
        count_cells(images[image], bins, share)
        share /= len(images[image])


@compiled
def _count_levels(images, shares):
    """Fill `shares` (n, bins) from `images` (n, H * W) uint8."""
    tables = np.empty((4, 256), np.int64)
    for image in range(len(images)):
        tables[:] = 0
        count_values(images[image], tables)
        for level in range(256):
            tables[0, level] += tables[1, level] + tables[2, level] + tables[3, level]
        _fill_bins(tables[0], len(images[image]), shares[image])
