"""Colour histograms and moments: against a hand-made image, loops, NumPy and SciPy."""

import numpy as np
import pytest
from scipy.stats import kurtosis, skew
from skimage.exposure import histogram

from histofeat.features import ColorHistogram, PatchBatch, _color as color
from histofeat.features._color import channel_histograms


def random_patches(n=3, height=11, width=7, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3)).astype(np.uint8)


def test_hand_made():
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[:2, :, 0] = 255  # half of red
    pixels[0, 0, 1] = 16  # one pixel of green in the second of 16 bins
    shares, moments = channel_histograms(pixels)
    assert shares[0].tolist() == [0.5] + [0] * 14 + [0.5]
    assert shares[1, :2].tolist() == [15 / 16, 1 / 16]
    assert shares[2, 0] == 1
    np.testing.assert_allclose(moments[0], [0.5, 0.5, 0, -2])
    np.testing.assert_allclose(moments[1, :2], [1 / 255, np.sqrt(15) / 255])
    assert not moments[2].any()


@pytest.mark.parametrize("bins", [2, 7, 16, 256])
def test_histogram_in_a_loop(bins):
    patches = random_patches()
    shares, _ = channel_histograms(patches, bins)
    expected = np.zeros_like(shares)
    for n, row, column, channel in np.ndindex(patches.shape):
        expected[n, channel, int(patches[n, row, column, channel]) * bins // 256] += 1
    np.testing.assert_allclose(shares, expected / 77, rtol=1e-15)


def test_histogram_agrees_with_scikit_image():
    patches = random_patches()
    counts, _ = histogram(patches[1, ..., 2], source_range="dtype")
    np.testing.assert_allclose(channel_histograms(patches, 256)[0][1, 2], counts / 77)


@pytest.mark.parametrize("high", [2, 20, 256])
def test_moments_agree_with_scipy(high):
    patches = np.random.default_rng(1).integers(0, high, (5, 30, 30, 3)).astype(np.uint8) + np.uint8(256 - high)
    values = patches.reshape(5, -1, 3).astype(float)
    _, moments = channel_histograms(patches)
    np.testing.assert_allclose(moments[..., 0], values.mean(axis=1) / 255)
    np.testing.assert_allclose(moments[..., 1], values.std(axis=1) / 255)
    np.testing.assert_allclose(moments[..., 2], skew(values, axis=1), atol=1e-9)
    np.testing.assert_allclose(moments[..., 3], kurtosis(values, axis=1), atol=1e-9)


def test_moments_of_an_almost_flat_patch():
    patch = np.full((1, 100, 100, 3), 254, dtype=np.uint8)
    patch[0, 5, 5] = 255
    values = patch.reshape(-1, 3).astype(float)
    _, moments = channel_histograms(patch)
    np.testing.assert_allclose(moments[0, :, 2], skew(values, axis=0), rtol=1e-6)
    np.testing.assert_allclose(moments[0, :, 3], kurtosis(values, axis=0), rtol=1e-6)


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("size", [(1, 1), (50, 1), (50, 50)])
def test_flat_patches_are_finite_and_have_no_shape(value, size):
    values = ColorHistogram()._compute(PatchBatch(np.full((2, *size, 3), value, dtype=np.uint8)))
    assert np.isfinite(values).all()
    names = ColorHistogram()._feature_names()
    shape = [k for k, name in enumerate(names) if name.endswith(("std", "skewness", "kurtosis"))]
    assert not values[:, shape].any()


def test_columns_follow_their_names():
    patches = random_patches()
    batch = PatchBatch(patches)
    family = ColorHistogram(bins=4)
    values = dict(zip(family._feature_names(), family._compute(batch).T, strict=True))
    assert len(values) == 9 * (4 + 4)
    for channel in ("red", "value", "eosin"):
        pixels = batch.channel(channel).reshape(3, -1)
        np.testing.assert_allclose(values[f"color_{channel}_hist_03"], (pixels >= 192).mean(axis=1), rtol=1e-6)
        np.testing.assert_allclose(values[f"color_{channel}_mean"], pixels.mean(axis=1) / 255, rtol=1e-6)


def test_without_moments_and_with_one_space():
    family = ColorHistogram(bins=2, spaces=("stains",), moments=False)
    assert family._feature_names()[:2] == ["color_hematoxylin_hist_00", "color_hematoxylin_hist_01"]
    values = family._compute(PatchBatch(random_patches()))
    assert values.shape == (3, 6)
    np.testing.assert_allclose(values.reshape(3, 3, 2).sum(axis=2), 1)


def test_kernels_in_plain_python():
    patches = random_patches(1, 2, 2)
    shares, moments = np.empty((1, 3, 2)), np.empty((1, 3, 4))
    color._count_channels.py_func(patches.reshape(1, -1), shares, moments)
    expected_shares, expected_moments = channel_histograms(patches, 2)
    np.testing.assert_allclose(shares, expected_shares)
    np.testing.assert_allclose(moments, expected_moments)
    tables = np.zeros((6, 256), dtype=np.int64)
    color._count_pixels.py_func(np.arange(9, dtype=np.uint8), tables)
    assert tables[:3, 6:9].tolist() == np.eye(3).tolist()
    table = np.bincount([3, 5], minlength=256)
    color._moments.py_func(table, 2, moments[0, 0])
    np.testing.assert_allclose(moments[0, 0], [4 / 255, 1 / 255, 0, -2])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"bins": 1}, "ColorHistogram.bins: expected a whole number from 2 to 256, got 1"),
        ({"bins": 300}, "got 300"),
        ({"bins": 8.0}, r"got 8\.0"),
        ({"bins": True}, "got True"),
        ({"spaces": "rgb"}, r"ColorHistogram.spaces: expected different names of \('rgb', .* got 'rgb'"),
        ({"spaces": ()}, r"got \(\)"),
        ({"spaces": None}, "got None"),
        ({"spaces": ("rgb", "rgb")}, r"got \('rgb', 'rgb'\)"),
        ({"spaces": ("lab",)}, r"ColorHistogram.spaces: expected different names of .* got \('lab',\)"),
        ({"moments": 4}, "ColorHistogram.moments: expected True or False, got 4"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        ColorHistogram(**params)._check_params()


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_refuses_other_pixels(bad):
    with pytest.raises(ValueError, match=rf"got {bad.dtype} of shape \({bad.shape[0]}, 4"):
        channel_histograms(bad)


def test_refuses_bad_bins_in_the_function():
    with pytest.raises(ValueError, match=r"channel_histograms.bins: expected a whole number from 2 to 256, got 0"):
        channel_histograms(np.zeros((4, 4, 3), dtype=np.uint8), bins=0)
