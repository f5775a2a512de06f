"""Threshold adjacency statistics: against a hand-made image, loops over the definition, and mahotas to the bit."""

import os
from math import sqrt
from pathlib import Path

import cv2
import mahotas
import numpy as np
import pytest
from skimage.filters import threshold_otsu

from histofeat.features import PFTAS, PatchBatch, _pftas as module
from histofeat.features._pftas import pftas


def random_image(shape=(17, 21), high=256, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8)


def brute_force(image):
    """The definition pixel by pixel, from a threshold tried at every level."""
    values = image.astype(int)
    best, threshold = -1.0, 0
    for level in range(values.max()):
        low, high = values[values <= level], values[values > level]
        if len(low):
            between = len(low) * len(high) * (low.mean() - high.mean()) ** 2
            if between > best * (1 + 1e-12):
                best, threshold = between, level
    bright = values[values > threshold]
    mu = bright.sum() / (len(bright) + 1e-8)
    spread = sqrt(np.mean((bright - bright.mean()) ** 2)) if len(bright) else 0
    maps = [(values > mu - spread) & (values < mu + spread), values > mu - spread, values > mu]
    shares = []
    for on in maps + [~on for on in maps]:
        counts = np.zeros(9)
        padded = np.pad(on, 1, mode="edge")
        for y, x in zip(*np.nonzero(~on), strict=True):
            counts[padded[y : y + 3, x : x + 3].sum()] += 1
        shares.append(counts / max(counts.sum(), 1))
    return np.concatenate(shares)


def test_hand_made():
    image = np.zeros((4, 4), dtype=np.uint8)
    image[1, 1] = image[1, 2] = 200
    found = pftas(image).reshape(6, 9)
    # Of the fourteen pixels off, the four above and below the pair touch both, six beside touch one.
    above = np.array([4, 6, 4, 0, 0, 0, 0, 0, 0]) / 14
    np.testing.assert_allclose(found[1], above)
    np.testing.assert_allclose(found[2], above)
    # Both pixels of the map have one neighbour on, hence seven off.
    assert found[4].tolist() == found[5].tolist() == np.eye(9)[7].tolist()
    # Nothing lies strictly within a spread of zero.
    assert found[0].tolist() == np.eye(9)[0].tolist()
    assert not found[3].any()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("high", [2, 40, 256])
def test_definition_in_loops(seed, high):
    image = random_image((8, 9), high, seed)
    np.testing.assert_allclose(pftas(image), brute_force(image), rtol=1e-12)


@pytest.mark.parametrize("shape", [(50, 50), (1, 1), (1, 9), (9, 1), (2, 2), (33, 70)])
@pytest.mark.parametrize("high", [1, 2, 3, 30, 256])
def test_equals_mahotas(shape, high):
    for seed in range(4):
        image = random_image(shape, high, seed)
        np.testing.assert_array_equal(pftas(image), mahotas.features.pftas(image))


@pytest.mark.parametrize("value", range(0, 256, 15))
def test_equals_mahotas_on_flat_images(value):
    image = np.full((6, 7), value, dtype=np.uint8)
    found = pftas(image)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, mahotas.features.pftas(image))


def test_equals_mahotas_on_a_smooth_image():
    image = cv2.GaussianBlur(random_image((200, 300)), (0, 0), 3)
    np.testing.assert_array_equal(pftas(image), mahotas.features.pftas(image))


def test_equals_mahotas_on_real_patches():
    if "HISTOFEAT_DATA" not in os.environ:
        pytest.skip("HISTOFEAT_DATA is not set: no real patches at hand")
    for path in sorted((Path(os.environ["HISTOFEAT_DATA"]) / "idc").glob("*/*/*.png"))[::400]:
        rgb = cv2.imread(str(path))[..., ::-1]
        found = PFTAS()._compute(PatchBatch(rgb[None]))[0]
        expected = np.concatenate([mahotas.features.pftas(rgb[..., channel].copy()) for channel in range(3)])
        np.testing.assert_array_equal(found, expected.astype(np.float32))


@pytest.mark.parametrize("seed", range(5))
def test_threshold_agrees_with_scikit_image(seed):
    image = random_image(seed=seed)
    assert module._otsu(np.bincount(image.ravel(), minlength=256)) == threshold_otsu(image)


def test_turns_and_flips_change_nothing():
    image = random_image((20, 31), high=12)
    for other in (np.rot90(image), image[::-1], image[:, ::-1], image.T):
        np.testing.assert_array_equal(pftas(image), pftas(other))


def test_columns_follow_their_names():
    rgb = np.random.default_rng(0).integers(0, 256, (2, 20, 21, 3)).astype(np.uint8)
    family = PFTAS(channels=("blue", "hematoxylin"))
    values = dict(zip(family._feature_names(), family._compute(PatchBatch(rgb)).T, strict=True))
    assert len(values) == 108
    expected = pftas(rgb[..., 2])
    np.testing.assert_allclose(values["pftas_blue_around_3"], expected[:, 3], rtol=1e-6)
    np.testing.assert_allclose(values["pftas_blue_not_above_mean_8"], expected[:, 53], rtol=1e-6)
    assert len(PFTAS()._feature_names()) == 162


def test_kernels_in_plain_python():
    images = random_image((1, 4, 5), high=9)
    shares = np.empty((1, 54))
    padded = np.pad(images[0], 1, mode="edge")
    module._adjacencies.py_func(images, padded[None], shares)
    np.testing.assert_array_equal(shares, pftas(images))
    grid, line = np.zeros((4, 400), dtype=np.int32), np.zeros((4, 20), dtype=np.int32)
    histogram = np.bincount(images.ravel(), minlength=256)
    low, high, middle = module._thresholds.py_func(histogram)
    assert (low, high, middle) == module._thresholds(histogram)
    module._count_adjacencies.py_func(padded, low, high, middle, grid, line)
    again = np.empty(54)
    module._share_out.py_func(grid, line, again)
    np.testing.assert_array_equal(again, shares[0])


def test_small_kernels_in_plain_python():
    histogram = np.bincount([1, 1, 1, 2, 3], minlength=256)
    assert module._otsu.py_func(histogram) == module._otsu(histogram) == 1
    assert module._otsu.py_func(np.bincount([0], minlength=256)) == 0
    assert module._otsu.py_func(np.bincount([4], minlength=256)) == 0
    assert module._thresholds.py_func(np.bincount([0], minlength=256)) == (1, -1, 1)
    on = np.empty(16, dtype=np.uint8)
    column, keys = np.empty(8, dtype=np.uint8), np.empty(6, dtype=np.uint8)
    module._keys.py_func(np.full(16, 7), 5, 7, on, 4, column, keys)
    assert keys.tolist() == [19] * 6
    grid, line = np.zeros((4, 400), dtype=np.int32), np.zeros((4, 20), dtype=np.int32)
    module._count_keys.py_func(keys, keys, keys, grid, line)
    assert (grid[:, 399].sum(), line[:, 19].sum()) == (6, 6)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"channels": "red"}, "PFTAS.channels: expected different names of .* got 'red'"),
        ({"channels": ()}, r"got \(\)"),
        ({"channels": None}, "got None"),
        ({"channels": (["red"],)}, r"got \(\['red'\],\)"),
        ({"channels": ("red", "red")}, r"got \('red', 'red'\)"),
        ({"channels": ("pink",)}, r"PFTAS.channels: expected different names of .* got \('pink',\)"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        PFTAS(**params)._check_params()


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.zeros((4, 0), np.uint8), np.zeros((4,), np.uint8)])
def test_refuses_other_pixels(bad):
    with pytest.raises(ValueError, match=rf"pftas: expected 8-bit images .* got {bad.dtype} of shape \(4,"):
        pftas(bad)
