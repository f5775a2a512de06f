"""Completed local binary patterns: a hand-made image, the definition in exact fractions, scikit-image for the signs."""

import os
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.feature import local_binary_pattern

from histofeat.features import CompletedLBP, PatchBatch, _completed_lbp as completed_lbp
from histofeat.features._completed_lbp import clbp_histogram
from histofeat.features._lbp import lbp_histogram
from histofeat.features._neighbourhoods import SCALE, circle

RINGS = [(1, 8), (2, 16), (3, 24)]


def random_image(shape=(23, 31), high=256, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8)


def riu2(bits):
    changes = sum(bits[k] != bits[k - 1] for k in range(len(bits)))
    return sum(bits) if changes <= 2 else len(bits) + 1


def brute_force(image, radius, points):
    """Counts of each cell by the definition, in exact fractions."""
    angles = 2 * np.pi * np.arange(points) / points
    offsets = [(Fraction(f"{-radius * np.sin(a):.5f}"), Fraction(f"{radius * np.cos(a):.5f}")) for a in angles]
    height, width = image.shape
    found = {}
    for y, x in np.ndindex(height - 2 * radius, width - 2 * radius):
        y, x, gaps = y + radius, x + radius, []
        for dy, dx in offsets:
            y0, x0 = (y + dy) // 1, (x + dx) // 1
            down, right = y + dy - y0, x + dx - x0
            level = sum(
                int(image[min(y0 + j, height - 1), min(x0 + i, width - 1)]) * wy * wx
                for j, wy in enumerate((1 - down, down))
                for i, wx in enumerate((1 - right, right))
            )
            gaps.append(level - int(image[y, x]))
        found[y, x] = gaps
    mean = sum(abs(gap) for gaps in found.values() for gap in gaps) / (len(found) * points)
    middle = Fraction(int(image.sum(dtype=int)), image.size)
    counts = np.zeros((points + 2, points + 2, 2), dtype=int)
    for place, gaps in found.items():
        sign, magnitude = riu2([gap >= 0 for gap in gaps]), riu2([abs(gap) >= mean for gap in gaps])
        counts[sign, magnitude, int(image[place] >= middle)] += 1
    return counts


def our_counts(image, radius, points=None):
    counts = clbp_histogram(image, radius, points) * (image.shape[0] - 2 * radius) * (image.shape[1] - 2 * radius)
    np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
    return counts.round().astype(int)


def test_hand_made():
    image = np.full((4, 4), 5, dtype=np.uint8)
    image[1, 2] = 9
    counts = our_counts(image, 1, 4)
    # Four neighbours; differences are (4, 0, 0, 0) right of the upper left pixel, (-4, -4, -4, -4) at the bright one,
    # (0, 0, 0, 0) at the lower left and (0, 4, 0, 0) at the lower right. The mean size is 24 / 16; the mean level 5.25.
    expected = np.zeros((6, 6, 2), dtype=int)
    expected[4, 1, 0] = 2
    expected[0, 4, 1] = 1
    expected[4, 0, 0] = 1
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize(("radius", "points"), [*RINGS, (1, 4), (2, 12), (3, 32), (1, 5)])
@pytest.mark.parametrize("high", [3, 256])
def test_definition_in_exact_fractions(radius, points, high):
    image = random_image((11, 10), high)
    np.testing.assert_array_equal(our_counts(image, radius, points), brute_force(image, radius, points))


@pytest.mark.parametrize(("radius", "points"), RINGS)
def test_signs_agree_with_scikit_image_and_with_plain_patterns(radius, points):
    image = random_image((40, 45))
    signs = our_counts(image, radius).sum(axis=(1, 2))
    codes = local_binary_pattern(image, points, radius, method="uniform")[radius:-radius, radius:-radius]
    np.testing.assert_array_equal(signs, np.bincount(codes.astype(int).ravel(), minlength=points + 2))
    smooth = cv2.GaussianBlur(random_image((60, 300)), (0, 0), 3)  # full of ties, which scikit-image misses
    for gray in (smooth, random_image((60, 70), high=3)):
        np.testing.assert_allclose(
            clbp_histogram(gray, radius).sum(axis=(1, 2)), lbp_histogram(gray, radius), atol=1e-12
        )


def test_centres_are_a_count_of_bright_pixels():
    image = random_image((30, 20))
    inner = image[2:-2, 2:-2]
    expected = [(inner < image.mean()).mean(), (inner >= image.mean()).mean()]
    np.testing.assert_allclose(clbp_histogram(image, 2).sum(axis=(0, 1)), expected)


def test_real_patches_agree_with_plain_patterns():
    if "HISTOFEAT_DATA" not in os.environ:
        pytest.skip("HISTOFEAT_DATA is not set: no real patches at hand")
    for path in sorted((Path(os.environ["HISTOFEAT_DATA"]) / "idc").glob("*/*/*.png"))[::900]:
        gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_allclose(clbp_histogram(gray, 3).sum(axis=(1, 2)), lbp_histogram(gray, 3), atol=1e-12)


@pytest.mark.parametrize(("radius", "points"), RINGS)
@pytest.mark.parametrize("value", [0, 77, 255])
@pytest.mark.parametrize("size", [(50, 50), (1, 1), (50, 1), (2, 9)])
def test_flat_is_all_ones(radius, points, value, size):
    found = clbp_histogram(np.full(size, value, dtype=np.uint8), radius)
    assert found[points, points, 1] == found.sum() == 1


@pytest.mark.parametrize("shape", [(4, 6), (1, 12), (12, 1), (5, 30)])
def test_small_patches_repeat_their_border(shape):
    image = random_image(shape)
    padded = np.pad(image, [(3, 3) if size < 7 else (0, 0) for size in shape], mode="edge")
    # The mean level is that of the image as given, so only the sum over centres follows from the padded one.
    np.testing.assert_allclose(clbp_histogram(image, 3).sum(axis=2), clbp_histogram(padded, 3).sum(axis=2), atol=1e-12)
    np.testing.assert_array_equal(our_counts(padded, 3), brute_force(padded, 3, 24))


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_turns_and_flips_change_nothing(radius):
    image = random_image((29, 18), high=6)
    for other in (np.rot90(image), image[::-1], image[:, ::-1], image.T):
        np.testing.assert_array_equal(clbp_histogram(image, radius), clbp_histogram(other, radius))


def test_the_mean_size_is_exact_where_its_sum_is_not():
    """A checkerboard of black and white: every difference on the grid is 255, and their sum takes more than 63 bits."""
    image = (np.indices((400, 3600)).sum(axis=0) % 2 * 255).astype(np.uint8)
    levels = np.concatenate([image.ravel(), np.zeros(3601)]).astype(float)
    assert 398 * 3598 * 4 * 255 * int(SCALE) > 2**63
    assert completed_lbp._mean_magnitude(levels, 400, 3600, 1, *circle(4, 1)) == 255 * SCALE


def test_the_mean_size_is_rounded_up():
    image = random_image((9, 1500)).astype(np.int64)
    corners, weights = circle(8, 1)
    total, padded = 0, np.pad(image, 1)
    for (dy, dx), (a, b, c, d) in zip(corners, weights.astype(np.int64), strict=True):
        part = padded[2 + dy :, 2 + dx :]
        level = a * part[:7, :1498] + b * part[:7, 1:1499] + c * part[1:8, :1498] + d * part[1:8, 1:1499]
        total += int(np.abs(level - image[1:-1, 1:-1] * int(SCALE)).sum())
    levels = np.concatenate([image.ravel(), np.zeros(1501)]).astype(float)
    assert completed_lbp._mean_magnitude(levels, 9, 1500, 1, corners, weights) == -(-total // (7 * 1498 * 8))


def test_a_batch_is_its_images():
    images = np.stack([random_image(seed=seed) for seed in range(4)])
    np.testing.assert_array_equal(clbp_histogram(images, 2), [clbp_histogram(image, 2) for image in images])


@pytest.mark.parametrize("form", ["joint", "hybrid", "separate"])
def test_columns_follow_their_names(form):
    rgb = np.random.default_rng(0).integers(0, 256, (2, 20, 21, 3)).astype(np.uint8)
    batch = PatchBatch(rgb)
    family = CompletedLBP(radii_px=(1, 4), points=(8, 12), form=form, channels=("gray", "eosin"))
    values = dict(zip(family._feature_names(), family._compute(batch).T, strict=True))
    wide = {"joint": 2 * (10**2 + 14**2), "hybrid": 3 * (10 + 14), "separate": 2 * (10 + 14) + 4}
    assert len(values) == 2 * wide[form]
    joint = clbp_histogram(batch.channel("eosin"), 4, 12)
    expected = {
        "joint": {"s_05_m_mixed_c_1": joint[:, 5, 13, 1], "s_mixed_m_00_c_0": joint[:, 13, 0, 0]},
        "hybrid": {"s_mixed": joint[:, 13].sum(axis=(1, 2)), "m_03_c_0": joint[:, :, 3, 0].sum(axis=1)},
        "separate": {"m_mixed": joint[:, :, 13].sum(axis=(1, 2)), "c_1": joint[..., 1].sum(axis=(1, 2))},
    }
    for name, column in expected[form].items():
        np.testing.assert_allclose(values[f"clbp_eosin_r4_{name}"], column, rtol=1e-6)


def test_kernels_in_plain_python():
    images = random_image((1, 5, 4), high=9)
    corners, weights = circle(8, 1)
    shares = np.empty((1, 200))
    bright = np.array([-(-int(images.sum()) // 20)])
    completed_lbp._histograms.py_func(images, 1, corners, weights, bright, shares)
    np.testing.assert_array_equal(shares[0], clbp_histogram(images[0], 1).ravel())
    levels = np.concatenate([images.ravel(), np.zeros(5)]).astype(float)
    threshold = completed_lbp._mean_magnitude.py_func(levels, 5, 4, 1, corners, weights)
    assert threshold == completed_lbp._mean_magnitude(levels, 5, 4, 1, corners, weights)
    differences, cells = np.empty(10), np.empty(10, dtype=np.uint16)
    completed_lbp._encode.py_func(levels, 5, 4, corners, weights, threshold, bright[0], differences, cells)
    inner = np.concatenate([cells[0:2], cells[4:6], cells[8:10]])
    np.testing.assert_array_equal(np.bincount(inner, minlength=200) / 6, shares[0])


def test_small_kernels_in_plain_python():
    signs, magnitudes = np.empty(3, dtype=np.uint8), np.empty(3, dtype=np.uint8)
    completed_lbp._compare.py_func(np.array([-3.0, 0, 2]), 2.5, signs, magnitudes)
    assert (signs.tolist(), magnitudes.tolist()) == ([0, 1, 1], [1, 0, 0])
    corners, weights = circle(4, 1)
    levels, differences = np.arange(20.0), np.empty(2)
    completed_lbp._subtract.py_func(levels, 5, 4, corners, weights, 0, differences)
    assert differences.tolist() == [SCALE, SCALE]
    completed_lbp._subtract.py_func(levels, 5, 4, corners, np.full((4, 4), SCALE / 4), 0, differences)
    assert differences.tolist() == [3.5 * SCALE, 3.5 * SCALE]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"radii_px": ()}, r"CompletedLBP.radii_px: expected different radii such as \(1, 2\), got \(\)"),
        ({"radii_px": (0,)}, "CompletedLBP.radii_px: expected a whole number of at least 1, got 0"),
        ({"points": (8,)}, r"CompletedLBP.points: expected one number of points for each of 3 radii, got \(8,\)"),
        ({"points": (8, 16, 33)}, "CompletedLBP.points: expected a whole number from 4 to 32, got 33"),
        ({"form": "S/M/C"}, "CompletedLBP.form: expected one of .*joint.*, got 'S/M/C'"),
        ({"form": None}, "got None"),
        ({"channels": ("pink",)}, r"CompletedLBP.channels: expected different names of .* got \('pink',\)"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        CompletedLBP(**params)._check_params()


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.zeros((4, 0), np.uint8), np.zeros((4, 4, 4, 3), np.uint8)])
def test_refuses_other_pixels(bad):
    with pytest.raises(ValueError, match=rf"clbp_histogram: expected 8-bit images .* got {bad.dtype} of shape \(4, "):
        clbp_histogram(bad, 1)
