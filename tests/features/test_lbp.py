"""Local binary patterns: against a hand-made image, the definition in exact fractions, and scikit-image."""

import os
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.feature import local_binary_pattern

from histofeat.features import LBPHistogram, PatchBatch, _lbp as lbp
from histofeat.features._lbp import lbp_histogram
from histofeat.features._neighbourhoods import SCALE, circle, close, tally

RINGS = [(1, 8), (2, 16), (3, 24)]


def random_image(shape=(23, 31), high=256, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8)


def brute_force(image, radius, points):
    """Counts of each pattern by the definition, in exact fractions."""
    counts = np.zeros(points + 2, dtype=int)
    angles = 2 * np.pi * np.arange(points) / points
    offsets = [(Fraction(f"{-radius * np.sin(a):.5f}"), Fraction(f"{radius * np.cos(a):.5f}")) for a in angles]
    for y in range(radius, image.shape[0] - radius):
        for x in range(radius, image.shape[1] - radius):
            bits = []
            for dy, dx in offsets:
                y0, x0 = (y + dy) // 1, (x + dx) // 1
                down, right = y + dy - y0, x + dx - x0
                level = sum(
                    int(image[min(y0 + j, image.shape[0] - 1), min(x0 + i, image.shape[1] - 1)]) * wy * wx
                    for j, wy in enumerate((1 - down, down))
                    for i, wx in enumerate((1 - right, right))
                )
                bits.append(level >= int(image[y, x]))
            changes = sum(bits[k] != bits[k - 1] for k in range(points))
            counts[sum(bits) if changes <= 2 else points + 1] += 1
    return counts


def exact_codes(image, radius, points):
    """Pattern of each inner pixel in 64-bit integers, and whether an interpolated neighbour equals it."""
    levels, unit = image.astype(np.int64), 10**5
    height, width = levels.shape[0] - 2 * radius, levels.shape[1] - 2 * radius
    centre = levels[radius:-radius, radius:-radius] * unit**2
    padded = np.pad(levels, 1)
    bits, tied = [], np.zeros((height, width), dtype=bool)
    for angle in 2 * np.pi * np.arange(points) / points:
        dy, dx = (round(round(o, 5) * unit) for o in (-radius * np.sin(angle), radius * np.cos(angle)))
        (y, down), (x, right) = divmod(dy, unit), divmod(dx, unit)
        total = 0
        for j, i, weight in [
            (0, 0, (unit - down) * (unit - right)),
            (0, 1, (unit - down) * right),
            (1, 0, down * (unit - right)),
            (1, 1, down * right),
        ]:
            top, left = radius + y + j + 1, radius + x + i + 1
            total = total + weight * padded[top : top + height, left : left + width]
        bits.append(total >= centre)
        if down or right:
            tied |= total == centre
    changes = sum((bits[k] != bits[k - 1]).astype(int) for k in range(points))
    return np.where(changes <= 2, sum(bit.astype(int) for bit in bits), points + 1), tied


def scikit_image_counts(image, radius, points):
    codes = local_binary_pattern(image, points, radius, method="uniform")
    inner = codes[radius:-radius, radius:-radius].astype(int)
    return np.bincount(inner.ravel(), minlength=points + 2)


def our_counts(image, radius, points=None):
    inner = (image.shape[0] - 2 * radius) * (image.shape[1] - 2 * radius)
    counts = lbp_histogram(image, radius, points) * inner
    np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
    return counts.round().astype(int)


def test_hand_made():
    image = np.array([[5, 5, 5, 5], [5, 1, 9, 5], [5, 5, 5, 5], [5, 5, 5, 5]], dtype=np.uint8)
    # The dark pixel sees eight that are not darker, the bright pixel none. Of the lower two, the left sees the dark
    # pixel above it, and levels below 5 beside it; the right sees the dark one at its upper left corner only.
    assert our_counts(image, 1).tolist() == brute_force(image, 1, 8).tolist()
    assert our_counts(image, 1)[[0, 8]].tolist() == [1, 1]


@pytest.mark.parametrize(("radius", "points"), [*RINGS, (1, 4), (2, 12), (3, 32), (1, 5)])
@pytest.mark.parametrize("high", [3, 256])
def test_definition_in_exact_fractions(radius, points, high):
    image = random_image((11, 10), high)
    np.testing.assert_array_equal(our_counts(image, radius, points), brute_force(image, radius, points))


@pytest.mark.parametrize(("radius", "points"), RINGS)
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_scikit_image_inside(radius, points, seed):
    image = random_image(seed=seed)
    np.testing.assert_array_equal(our_counts(image, radius), scikit_image_counts(image, radius, points))


@pytest.mark.parametrize(("radius", "points"), RINGS)
def test_differs_from_scikit_image_only_at_ties(radius, points):
    # A smooth image is full of interpolated levels that equal the centre exactly.
    image = cv2.GaussianBlur(random_image((120, 1050)), (0, 0), 3)
    codes, tied = exact_codes(image, radius, points)
    theirs = local_binary_pattern(image, points, radius, method="uniform")[radius:-radius, radius:-radius]
    np.testing.assert_array_equal(our_counts(image, radius), np.bincount(codes.ravel(), minlength=points + 2))
    np.testing.assert_array_equal(codes[~tied], theirs[~tied])
    assert 0 < (codes != theirs).sum() < 0.1 * codes.size


@pytest.mark.parametrize(("radius", "points"), RINGS)
def test_agrees_with_scikit_image_on_real_patches(radius, points):
    if "HISTOFEAT_DATA" not in os.environ:
        pytest.skip("HISTOFEAT_DATA is not set: no real patches at hand")
    paths = sorted((Path(os.environ["HISTOFEAT_DATA"]) / "idc").glob("*/*/*.png"))[::400]
    images = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
    images = [image for image in images if min(image.shape) > 2 * radius]
    pixels = moved = 0
    for image in images:
        theirs = scikit_image_counts(image, radius, points)
        pixels += theirs.sum()
        moved += np.abs(our_counts(image, radius) - theirs).sum() / 2
    # Ties that rounding makes scikit-image miss.
    assert moved <= 1e-4 * pixels


@pytest.mark.parametrize(("radius", "points"), RINGS)
@pytest.mark.parametrize("value", [0, 1, 77, 254, 255])
@pytest.mark.parametrize("size", [(50, 50), (1, 1), (50, 1), (2, 9)])
def test_flat_is_all_ones(radius, points, value, size):
    found = lbp_histogram(np.full(size, value, dtype=np.uint8), radius)
    assert found.tolist() == np.eye(points + 2)[points].tolist()


@pytest.mark.parametrize("shape", [(4, 6), (1, 12), (12, 1), (6, 6), (5, 30)])
def test_small_patches_repeat_their_border(shape):
    image = random_image(shape)
    margins = [(3, 3) if size < 7 else (0, 0) for size in shape]
    padded = np.pad(image, margins, mode="edge")
    np.testing.assert_array_equal(lbp_histogram(image, 3), lbp_histogram(padded, 3))
    np.testing.assert_array_equal(our_counts(padded, 3), brute_force(padded, 3, 24))


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_turns_and_flips_change_nothing(radius):
    image = random_image((29, 18), high=6)
    for other in (np.rot90(image), image[::-1], image[:, ::-1], image.T):
        np.testing.assert_array_equal(lbp_histogram(image, radius), lbp_histogram(other, radius))


def test_wide_images_are_taken_row_by_row():
    image = random_image((8, 3000))
    np.testing.assert_array_equal(our_counts(image, 1), scikit_image_counts(image, 1, 8))


def test_a_batch_is_its_images():
    images = np.stack([random_image(seed=seed) for seed in range(4)])
    np.testing.assert_array_equal(lbp_histogram(images, 2), [lbp_histogram(image, 2) for image in images])


def test_columns_follow_their_names():
    rgb = np.random.default_rng(0).integers(0, 256, (2, 20, 21, 3)).astype(np.uint8)
    batch = PatchBatch(rgb)
    family = LBPHistogram(radii_px=(1, 4), points=(8, 12), channels=("gray", "eosin"))
    values = dict(zip(family._feature_names(), family._compute(batch).T, strict=True))
    assert len(values) == 2 * (10 + 14)
    expected = lbp_histogram(batch.channel("eosin"), 4, 12)
    np.testing.assert_allclose(values["lbp_eosin_r4_ones_05"], expected[:, 5], rtol=1e-6)
    np.testing.assert_allclose(values["lbp_eosin_r4_mixed"], expected[:, 13], rtol=1e-6)
    assert len(LBPHistogram()._feature_names()) == 54
    assert len(LBPHistogram(radii_px=(5,))._feature_names()) == 34


def test_kernels_in_plain_python():
    images = random_image((1, 5, 4), high=9)
    corners, weights = circle(8, 1)
    shares = np.empty((1, 10))
    lbp._histograms.py_func(images, 1, corners, weights, shares)
    np.testing.assert_array_equal(shares, lbp_histogram(images, 1))
    flat = images[0].ravel()
    levels = np.concatenate([flat, np.zeros(5)]).astype(float)
    patterns = np.empty(10, dtype=np.uint8)
    lbp._encode.py_func(flat, levels, 5, 4, corners, weights, patterns)
    rows = [patterns[0:2], patterns[4:6], patterns[8:10]]
    np.testing.assert_array_equal(np.bincount(np.concatenate(rows), minlength=10) / 6, shares[0])


def test_small_kernels_in_plain_python():
    bits = np.array([[9, 9, 9], [0, 0, 1], [1, 1, 1]], dtype=np.uint8)
    lbp._compare.py_func(np.array([1, 5, 9, 5, 5, 5]), 0, 3, bits, 0)
    assert bits[0].tolist() == [0, 1, 1]
    ones, changes = np.zeros(3, dtype=np.uint8), np.zeros(3, dtype=np.uint8)
    tally.py_func(bits, 0, 1, ones, changes)
    assert (ones.tolist(), changes.tolist()) == ([0, 1, 1], [0, 1, 0])
    close.py_func(bits, 0, changes)
    assert changes.tolist() == [1, 1, 0]
    quarter = np.full((1, 4), SCALE / 4)
    levels = np.array([4.0, 8, 4, 4, 4, 4, 4])
    lbp._compare_between.py_func(levels, 0, 2, quarter, 0, np.array([5, 7, 4]) * SCALE, bits, 1)
    assert bits[1].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"radii_px": ()}, r"LBPHistogram.radii_px: expected different radii such as \(1, 2\), got \(\)"),
        ({"radii_px": 2}, "got 2"),
        ({"radii_px": None}, "got None"),
        ({"radii_px": ([1],)}, r"got \[1\]"),
        ({"radii_px": (1, 1)}, r"got \(1, 1\)"),
        ({"radii_px": (0,)}, "LBPHistogram.radii_px: expected a whole number of at least 1, got 0"),
        ({"radii_px": (1.5,)}, r"got 1\.5"),
        ({"radii_px": (True,)}, "got True"),
        ({"points": (8,)}, r"LBPHistogram.points: expected one number of points for each of 3 radii, got \(8,\)"),
        ({"points": 8}, "got 8"),
        ({"points": (8, 16, 3)}, "LBPHistogram.points: expected a whole number from 4 to 32, got 3"),
        ({"points": (8, 16, 33)}, "got 33"),
        ({"points": (8, 16, 8.5)}, r"got 8\.5"),
        ({"channels": ()}, "LBPHistogram.channels: expected different names of"),
        ({"channels": "gray"}, "got 'gray'"),
        ({"channels": ("red", "red")}, r"got \('red', 'red'\)"),
        ({"channels": ("pink",)}, r"LBPHistogram.channels: expected different names of .* got \('pink',\)"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        LBPHistogram(**params)._check_params()


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.zeros((4, 0), np.uint8), np.zeros((4, 4, 4, 3), np.uint8)])
def test_refuses_other_pixels(bad):
    with pytest.raises(ValueError, match=rf"got {bad.dtype} of shape \(4, "):
        lbp_histogram(bad, 1)
