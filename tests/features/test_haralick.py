"""Haralick texture: against hand-made matrices, loops over the definitions, scikit-image and mahotas."""

import os
from pathlib import Path

import cv2
import mahotas
import numpy as np
import pytest
from skimage.feature import graycomatrix, graycoprops

from histofeat.features import STATISTICS, HaralickTexture, PatchBatch
from histofeat.features._cooccurrence import (
    C_LOG_C,
    cooccurrence,
    count_pairs,
    haralick,
    quantise,
    sum_c_log_c,
    summarise,
    symmetrise,
    tally_pairs,
    textures,
)
from histofeat.features._haralick import haralick_statistics

#: Row and column step of each direction.
STEPS = [(0, 1), (1, 1), (1, 0), (1, -1)]


def random_image(shape=(19, 23), high=256, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8)


def full_range(image, levels):
    """The image with its last pixels at the top level, so that mahotas uses as many levels."""
    image = image.copy()
    image[-1, -1] = 255
    return image, (image.astype(int) * levels // 256).astype(np.uint8)


def statistics_in_loops(counts):
    """The thirteen definitions, summed over cells one by one."""
    levels, p = len(counts), counts / counts.sum()
    entropy = lambda values: -sum(v * np.log2(v) for v in values if v > 0)  # noqa: E731
    cells = list(np.ndindex(p.shape))
    marginal = p.sum(axis=0)
    mean = sum(k * marginal[k] for k in range(levels))
    variance = sum((k - mean) ** 2 * marginal[k] for k in range(levels))
    sums, gaps = np.zeros(2 * levels), np.zeros(levels)
    for i, j in cells:
        sums[i + j] += p[i, j]
        gaps[abs(i - j)] += p[i, j]
    average = sum(k * sums[k] for k in range(2 * levels))
    joint, own = entropy(p.ravel()), entropy(marginal)
    crossed = -sum(p[i, j] * np.log2(marginal[i] * marginal[j]) for i, j in cells if p[i, j] > 0)
    independent = entropy([marginal[i] * marginal[j] for i, j in cells])
    covariance = sum((i - mean) * (j - mean) * p[i, j] for i, j in cells)
    return [
        sum(v**2 for v in p.ravel()),
        sum((i - j) ** 2 * p[i, j] for i, j in cells),
        covariance / variance if variance else 1,
        variance,
        sum(p[i, j] / (1 + (i - j) ** 2) for i, j in cells),
        average,
        sum((k - average) ** 2 * sums[k] for k in range(2 * levels)),
        entropy(sums),
        joint,
        gaps.var(),
        entropy(gaps),
        (joint - crossed) / own if own else 0,
        np.sqrt(max(0, 1 - np.exp(-2 * (independent - joint)))),
    ]


def test_hand_made_counts():
    gray = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 2, 2, 2], [2, 2, 3, 3]], dtype=np.uint8) * 64
    counts = cooccurrence(gray, levels=4)
    # The example of Haralick's paper, which counts angles against the clock: 0, 135, 90 and 45 degrees.
    assert counts[0].tolist() == [[4, 2, 1, 0], [2, 4, 0, 0], [1, 0, 6, 1], [0, 0, 1, 2]]
    assert counts[2].tolist() == [[6, 0, 2, 0], [0, 4, 2, 0], [2, 2, 2, 2], [0, 0, 2, 0]]
    assert counts[3].tolist() == [[4, 1, 0, 0], [1, 2, 2, 0], [0, 2, 4, 1], [0, 0, 1, 0]]
    assert counts[1].tolist() == [[2, 1, 3, 0], [1, 2, 1, 0], [3, 1, 0, 2], [0, 0, 2, 0]]


def test_hand_made_statistics():
    checker = np.array([[0, 8], [8, 0]])
    values = dict(zip(STATISTICS, haralick_statistics(checker), strict=True))
    expected = {
        "asm": 0.5,
        "contrast": 1,
        "correlation": -1,
        "variance": 0.25,
        "idm": 0.5,
        "sum_average": 1,
        "sum_variance": 0,
        "sum_entropy": 0,
        "entropy": 1,
        "difference_variance": 0.25,
        "difference_entropy": 0,
        "imc1": -1,
        "imc2": np.sqrt(1 - np.exp(-2)),
    }
    assert values == pytest.approx(expected)


@pytest.mark.parametrize("distance", [1, 2, 5])
@pytest.mark.parametrize("levels", [2, 5, 32, 256])
def test_counts_in_a_loop(levels, distance):
    gray = random_image((9, 8))
    level = gray.astype(int) * levels // 256
    expected = np.zeros((4, levels, levels), dtype=int)
    for direction, (dy, dx) in enumerate(STEPS):
        for y, x in np.ndindex(level.shape):
            other = (y + dy * distance, x + dx * distance)
            if 0 <= other[0] < 9 and 0 <= other[1] < 8:
                expected[direction, level[y, x], level[other]] += 1
                expected[direction, level[other], level[y, x]] += 1
    np.testing.assert_array_equal(cooccurrence(gray, levels, distance), expected)


@pytest.mark.parametrize("distance", [1, 2])
def test_counts_agree_with_scikit_image(distance):
    # Its angles turn the other way round, and it rounds a diagonal of length d: distances of one diagonal step.
    gray = random_image()
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    ours = cooccurrence(gray, 16, distance)
    for direction, angle in enumerate(angles):
        length = distance * (np.sqrt(2) if direction % 2 else 1)
        theirs = graycomatrix(gray // 16, [length], [angle], levels=16, symmetric=True)[..., 0, 0]
        np.testing.assert_array_equal(ours[direction], theirs)


def test_statistics_agree_with_scikit_image():
    counts = cooccurrence(random_image(), 16)
    ours = haralick_statistics(counts)
    table = counts.transpose(1, 2, 0)[:, :, None, :] / counts.sum(axis=(1, 2))
    for name, theirs in [("asm", "ASM"), ("contrast", "contrast"), ("correlation", "correlation")]:
        np.testing.assert_allclose(ours[:, STATISTICS.index(name)], graycoprops(table, theirs)[0], rtol=1e-9)
    np.testing.assert_allclose(ours[:, STATISTICS.index("idm")], graycoprops(table, "homogeneity")[0], rtol=1e-9)


@pytest.mark.parametrize("levels", [2, 6])
def test_statistics_in_loops(levels):
    counts = cooccurrence(random_image((7, 6)), levels)
    expected = [statistics_in_loops(matrix) for matrix in counts]
    np.testing.assert_allclose(haralick_statistics(counts), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("levels", [2, 8, 32, 256])
@pytest.mark.parametrize("distance", [1, 3])
def test_agrees_with_mahotas(levels, distance):
    gray, quantised = full_range(random_image(), levels)
    theirs = mahotas.features.haralick(quantised, distance=distance)
    ours = haralick_statistics(cooccurrence(gray, levels, distance))
    np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)


def test_agrees_with_mahotas_on_a_large_smooth_image():
    gray, quantised = full_range(cv2.GaussianBlur(random_image((300, 400)), (0, 0), 4), 32)
    theirs = mahotas.features.haralick(quantised)
    np.testing.assert_allclose(haralick_statistics(cooccurrence(gray)), theirs, rtol=1e-7, atol=1e-7)


def test_family_agrees_with_mahotas_on_real_patches():
    if "HISTOFEAT_DATA" not in os.environ:
        pytest.skip("HISTOFEAT_DATA is not set: no real patches at hand")
    paths = sorted((Path(os.environ["HISTOFEAT_DATA"]) / "idc").glob("*/*/*.png"))[::400]
    for path in paths:
        rgb = cv2.imread(str(path))[..., ::-1].copy()
        rgb[-1, -1] = 255
        batch = PatchBatch(rgb[None])
        found = HaralickTexture(channels=("gray",))._compute(batch)[0]
        theirs = mahotas.features.haralick(batch.gray[0] // 8, return_mean_ptp=True)
        np.testing.assert_allclose(found, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [0, 100, 255])
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (50, 50)])
def test_flat_patches(value, size):
    rgb = np.full((1, *size, 3), value, dtype=np.uint8)
    mean, spread = HaralickTexture(channels=("red",))._compute(PatchBatch(rgb)).reshape(2, 13)
    level = value // 8
    expected = dict.fromkeys(STATISTICS, 0) | {"asm": 1, "correlation": 1, "idm": 1, "sum_average": 2 * level}
    expected["difference_variance"] = 1 / 32 - 1 / 32**2
    assert dict(zip(STATISTICS, mean, strict=True)) == pytest.approx(expected, rel=1e-6)
    assert not spread.any()


def test_a_flat_matrix_has_the_flat_values():
    counts = np.zeros((32, 32), dtype=int)
    counts[12, 12] = 4900
    expected = HaralickTexture(channels=("red",)).transform(np.full((1, 50, 50, 3), 100, dtype=np.uint8))
    np.testing.assert_allclose(haralick_statistics(counts), expected[0, :13], rtol=1e-6, atol=1e-12)


def test_directions_without_a_pair_are_left_out():
    row = random_image((1, 30))
    rgb = np.repeat(row[None, ..., None], 3, axis=3)
    expected = haralick_statistics(cooccurrence(row, 32, 2)[0])
    family = HaralickTexture(distances=(2,), channels=("red",))
    for patch in (rgb, rgb.transpose(0, 2, 1, 3)):
        mean, spread = family._compute(PatchBatch(patch)).reshape(2, 13)
        np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)
        assert not spread.any()
    assert np.isnan(haralick_statistics(cooccurrence(row, 32, 2)[1:])).all()


def test_a_distance_beyond_the_patch_is_cut():
    rgb = np.repeat(random_image((1, 4, 6))[..., None], 3, axis=3)
    found = [HaralickTexture(distances=(d,), channels=("red",))._compute(PatchBatch(rgb)) for d in (5, 6, 100)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert np.isfinite(found[0]).all()


def test_columns_follow_their_names():
    rgb = np.random.default_rng(0).integers(0, 256, (2, 20, 21, 3)).astype(np.uint8)
    batch = PatchBatch(rgb)
    family = HaralickTexture(levels=8, distances=(1, 3))
    values = dict(zip(family._feature_names(), family._compute(batch).T, strict=True))
    assert len(values) == 3 * 2 * 26
    for n in range(2):
        expected = haralick_statistics(cooccurrence(batch.channel("eosin")[n], 8, 3))
        entropy = expected[:, STATISTICS.index("entropy")]
        assert values["haralick_e_entropy_d3_mean"][n] == pytest.approx(entropy.mean(), rel=1e-6)
        assert values["haralick_e_entropy_d3_range"][n] == pytest.approx(np.ptp(entropy), rel=1e-5)
    assert "haralick_h_contrast_d1_mean" in HaralickTexture()._feature_names()
    assert len(HaralickTexture()._feature_names()) == 78


def test_kernels_in_plain_python():
    images = random_image((2, 4, 3))
    images[1] = 40
    distances = np.array([1, 2])
    out, expected = np.empty((2, 52)), np.empty((2, 52))
    textures.py_func(images, 4, distances, C_LOG_C, out)
    textures(images, 4, distances, C_LOG_C, expected)
    np.testing.assert_array_equal(out, expected)
    quantised = np.empty(12, dtype=np.uint8)
    assert quantise.py_func(images[0].ravel(), 4, quantised) == (quantised.min(), quantised.max())
    np.testing.assert_array_equal(quantised, images[0].ravel() // 64)
    counts = np.zeros((4, 16), dtype=np.int32)
    count_pairs.py_func(quantised.reshape(4, 3), 4, 1, counts)
    symmetric = np.zeros((4, 4), dtype=np.int32)
    assert symmetrise.py_func(counts[1], 0, 3, symmetric)
    np.testing.assert_array_equal(symmetric, np.tril(cooccurrence(images[0], 4)[1]))
    assert not symmetrise.py_func(np.zeros(16, dtype=np.int32), 0, 3, symmetric)


def test_kernels_of_the_statistics_in_plain_python():
    counts = cooccurrence(random_image((4, 3)), 4)[0]
    work, out = np.empty((3, 8), dtype=np.int64), np.empty(13)
    # A table of two entries: the others are computed, to the same values.
    haralick.py_func(counts, 0, 3, C_LOG_C[:2], work, out)
    np.testing.assert_allclose(out, haralick_statistics(counts), rtol=1e-8)
    once = tally_pairs.py_func(counts, 0, 3, C_LOG_C, work)
    assert once[0] == (counts**2).sum()
    assert work[0, :4].tolist() == counts.sum(axis=0).tolist()
    assert sum_c_log_c.py_func(np.array([0, 1, 2, 4]), 1, 3, C_LOG_C) == 10 * 2**28
    summary = np.empty(26)
    summarise.py_func(np.array([np.zeros(13), np.ones(13)]), summary)
    assert summary.tolist() == [0.5] * 13 + [1] * 13


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"levels": 1}, "HaralickTexture.levels: expected a whole number from 2 to 256, got 1"),
        ({"levels": 257}, "got 257"),
        ({"levels": 32.0}, r"got 32\.0"),
        ({"distances": ()}, r"HaralickTexture.distances: expected different distances such as \(1,\), got \(\)"),
        ({"distances": 1}, "got 1"),
        ({"distances": (1, 1)}, r"got \(1, 1\)"),
        ({"distances": (0,)}, "HaralickTexture.distances: expected a whole number of at least 1, got 0"),
        ({"channels": "gray"}, "HaralickTexture.channels: expected different names of .* got 'gray'"),
        ({"channels": ()}, r"got \(\)"),
        ({"channels": None}, "got None"),
        ({"channels": (["red"],)}, r"got \(\['red'\],\)"),
        ({"channels": ("gray", "gray")}, r"got \('gray', 'gray'\)"),
        ({"channels": ("pink",)}, r"HaralickTexture.channels: expected different names of .* got \('pink',\)"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        HaralickTexture(**params)._check_params()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((np.zeros((4, 4)),), r"cooccurrence: expected 8-bit image .* got float64 of shape \(4, 4\)"),
        ((np.zeros((4, 0), np.uint8),), r"got uint8 of shape \(4, 0\)"),
        ((np.zeros((4, 4), np.uint8), 1), r"cooccurrence.levels: expected a whole number from 2 to 256, got 1"),
        ((np.zeros((4, 4), np.uint8), 8, 0), r"cooccurrence.distance: expected a whole number of at least 1, got 0"),
    ],
)
def test_cooccurrence_refuses(args, message):
    with pytest.raises(ValueError, match=message):
        cooccurrence(*args)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.zeros((4, 3), int), r"expected integer matrices \(..., L, L\), got int64 of shape \(4, 3\)"),
        (np.zeros((4, 4)), "got float64"),
        (np.array([[0, 1], [2, 0]]), "expected symmetric counts"),
        (np.array([[-1, 0], [0, 0]]), "negative"),
    ],
)
def test_statistics_refuse(counts, message):
    with pytest.raises(ValueError, match=message):
        haralick_statistics(counts)
