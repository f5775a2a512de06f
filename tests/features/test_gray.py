"""Grey-level histogram: against a hand-made image and NumPy."""

import numpy as np
import pytest

from histofeat.features import GrayHistogram, PatchBatch, _color as color
from histofeat.features._color import gray_histogram


def random_images(n=3, height=11, width=7, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width)).astype(np.uint8)


def test_hand_made():
    image = np.array([[0, 0, 63, 64], [127, 128, 191, 192], [255, 255, 255, 255], [1, 2, 3, 4]], dtype=np.uint8)
    assert (gray_histogram(image, bins=4) * 16).tolist() == [7, 2, 2, 5]


@pytest.mark.parametrize("bins", [2, 7, 64, 256])
def test_agrees_with_numpy(bins):
    images = random_images()
    shares = gray_histogram(images, bins)
    # Value v falls into bin v * bins // 256, whose lower edges are the first values that do.
    edges = [*(-(-256 * k // bins) for k in range(bins)), 256]
    for image, share in zip(images, shares, strict=True):
        np.testing.assert_array_equal(share, np.histogram(image, bins=edges)[0] / 77)
    plain = np.empty_like(shares)
    color._count_levels.py_func(images.reshape(3, -1), plain)
    tables = np.zeros((4, 256), dtype=np.int64)
    color.count_values.py_func(np.array([1, 2, 3, 4, 1], dtype=np.uint8), tables)
    assert tables.sum(axis=0)[:5].tolist() == [0, 2, 1, 1, 1]
    np.testing.assert_array_equal(plain, shares)


def test_grey_is_that_of_the_batch():
    patches = np.random.default_rng(1).integers(0, 256, (2, 9, 9, 3)).astype(np.uint8)
    batch = PatchBatch(patches)
    values = GrayHistogram(bins=16)._compute(batch)
    assert values.dtype == np.float32
    for image, row in zip(batch.gray, values, strict=True):
        np.testing.assert_allclose(row, np.histogram(image, bins=16, range=(0, 256))[0] / 81, rtol=1e-6)


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("size", [(1, 1), (50, 1), (50, 50)])
def test_flat_patch_fills_one_bin(value, size):
    values = GrayHistogram()._compute(PatchBatch(np.full((2, *size, 3), value, dtype=np.uint8)))
    np.testing.assert_array_equal(values, np.tile(np.arange(256) == value, (2, 1)))


def test_names_tell_the_bin():
    assert GrayHistogram()._feature_names()[9] == "gray_hist_009"
    assert GrayHistogram(bins=10)._feature_names() == [f"gray_hist_{k}" for k in range(10)]


@pytest.mark.parametrize("bad", [1, 257, 8.0, True, None])
def test_bad_bins_are_refused(bad):
    with pytest.raises(ValueError, match=r"GrayHistogram.bins: expected a whole number from 2 to 256, got "):
        GrayHistogram(bins=bad)._check_params()
    with pytest.raises(ValueError, match=r"gray_histogram.bins: expected a whole number from 2 to 256, got "):
        gray_histogram(random_images(), bad)


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.zeros((2, 4, 4, 3), np.uint8), np.zeros((0, 4), np.uint8)])
def test_other_images_are_refused(bad):
    with pytest.raises(ValueError, match=rf"gray_histogram: expected 8-bit .*got {bad.dtype} of shape"):
        gray_histogram(bad)
