"""Grey-level co-occurrence: a hand-made matrix, the definitions cell by cell, and scikit-image's graycoprops."""

import os
from math import log
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.feature import graycomatrix, graycoprops

from histofeat.features import GLCM, PatchBatch
from histofeat.features._cooccurrence import C_LOG_C, cooccurrence, properties, textures
from histofeat.features._haralick import PROPERTIES, glcm_properties

THEIRS = ["ASM" if name == "asm" else name for name in PROPERTIES]
ANGLES = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]


def random_image(shape=(19, 23), high=256, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8)


def with_scikit_image(gray, levels, distance=1):
    """Properties (4, 10) in our directions; scikit-image rounds a diagonal of given length to whole steps."""
    quantised = (gray.astype(int) * levels // 256).astype(np.uint8)
    rows = []
    for angle in ANGLES:
        length = distance * (np.sqrt(2) if angle in ANGLES[1::2] else 1)
        table = graycomatrix(quantised, [length], [angle], levels=levels, symmetric=True)
        rows.append([graycoprops(table, name)[0, 0] for name in THEIRS])
    return np.array(rows)


def in_loops(counts):
    p, cells = counts / counts.sum(), list(np.ndindex(counts.shape))
    mean = sum(i * p[i, j] for i, j in cells)
    variance = sum((i - mean) ** 2 * p[i, j] for i, j in cells)
    asm = sum(p[cell] ** 2 for cell in cells)
    return [
        sum((i - j) ** 2 * p[i, j] for i, j in cells),
        sum(abs(i - j) * p[i, j] for i, j in cells),
        sum(p[i, j] / (1 + (i - j) ** 2) for i, j in cells),
        asm,
        asm**0.5,
        sum((i - mean) * (j - mean) * p[i, j] for i, j in cells) / variance if variance else 1,
        mean,
        variance,
        variance**0.5,
        -sum(p[cell] * log(p[cell]) for cell in cells if p[cell]),
    ]


def test_hand_made():
    gray = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 2, 2, 2], [2, 2, 3, 3]], dtype=np.uint8) * 64
    across = dict(zip(PROPERTIES, glcm_properties(cooccurrence(gray, levels=4))[0], strict=True))
    # The matrix of Haralick's example is [[4, 2, 1, 0], [2, 4, 0, 0], [1, 0, 6, 1], [0, 0, 1, 2]], of 24 pairs.
    assert across["contrast"] == pytest.approx((2 * 2 + 2 * 4 + 2 * 1) / 24)
    assert across["dissimilarity"] == pytest.approx((2 * 2 + 2 * 2 + 2 * 1) / 24)
    assert across["homogeneity"] == pytest.approx((16 + 4 / 2 + 2 / 5 + 2 / 2) / 24)
    assert across["asm"] == pytest.approx((16 + 16 + 36 + 4 + 8 + 2 + 2) / 24**2)
    assert across["mean"] == pytest.approx((7 * 0 + 6 * 1 + 8 * 2 + 3 * 3) / 24)


def test_a_checkerboard():
    values = dict(zip(PROPERTIES, glcm_properties(np.array([[0, 8], [8, 0]])), strict=True))
    expected = {"contrast": 1, "dissimilarity": 1, "homogeneity": 0.5, "asm": 0.5, "energy": 0.5**0.5}
    expected |= {"correlation": -1, "mean": 0.5, "variance": 0.25, "std": 0.5, "entropy": log(2)}
    assert values == pytest.approx(expected)


@pytest.mark.parametrize("levels", [2, 6])
def test_definitions_in_loops(levels):
    counts = cooccurrence(random_image((7, 6)), levels)
    np.testing.assert_allclose(glcm_properties(counts), [in_loops(matrix) for matrix in counts], rtol=1e-8)


@pytest.mark.parametrize("levels", [2, 8, 32, 256])
@pytest.mark.parametrize("distance", [1, 3])
def test_agrees_with_scikit_image(levels, distance):
    for gray in (random_image((50, 50)), cv2.GaussianBlur(random_image((90, 120)), (0, 0), 3)):
        ours = glcm_properties(cooccurrence(gray, levels, distance))
        np.testing.assert_allclose(ours, with_scikit_image(gray, levels, distance), rtol=1e-10, atol=1e-10)


def test_family_agrees_with_scikit_image_on_real_patches():
    if "HISTOFEAT_DATA" not in os.environ:
        pytest.skip("HISTOFEAT_DATA is not set: no real patches at hand")
    for path in sorted((Path(os.environ["HISTOFEAT_DATA"]) / "idc").glob("*/*/*.png"))[::400]:
        batch = PatchBatch(cv2.imread(str(path))[None, ..., ::-1])
        if min(batch.gray.shape[1:]) < 4:
            continue
        found = GLCM(channels=("gray",))._compute(batch).reshape(2, 2, 10)
        for (mean, spread), distance in zip(found, (1, 3), strict=True):
            theirs = with_scikit_image(batch.gray[0], 32, distance)
            np.testing.assert_allclose(mean, theirs.mean(axis=0), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(spread, np.ptp(theirs, axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [0, 100, 255])
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (50, 50)])
def test_flat_patches(value, size):
    rgb = np.full((1, *size, 3), value, dtype=np.uint8)
    mean, spread = GLCM(distances=(2,), channels=("red",))._compute(PatchBatch(rgb)).reshape(2, 10)
    expected = dict.fromkeys(PROPERTIES, 0) | dict.fromkeys(("homogeneity", "asm", "energy", "correlation"), 1)
    assert dict(zip(PROPERTIES, mean, strict=True)) == expected | {"mean": value // 8}
    assert not spread.any()


def test_a_flat_matrix_has_the_flat_values():
    counts = np.zeros((32, 32), dtype=int)
    counts[12, 12] = 4900
    expected = GLCM(distances=(1,), channels=("red",)).transform(np.full((1, 50, 50, 3), 100, dtype=np.uint8))
    np.testing.assert_allclose(glcm_properties(counts), expected[0, :10], atol=1e-12)


def test_directions_without_a_pair_are_left_out():
    row = random_image((1, 30))
    rgb = np.repeat(row[None, ..., None], 3, axis=3)
    expected = glcm_properties(cooccurrence(row, 32, 2)[0])
    for patch in (rgb, rgb.transpose(0, 2, 1, 3)):
        mean, spread = GLCM(distances=(2,), channels=("red",))._compute(PatchBatch(patch)).reshape(2, 10)
        np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)
        assert not spread.any()
    assert np.isnan(glcm_properties(cooccurrence(row, 32, 2)[1:])).all()


def test_a_distance_beyond_the_patch_is_cut():
    rgb = np.repeat(random_image((1, 4, 6))[..., None], 3, axis=3)
    found = [GLCM(distances=(d,), channels=("red",))._compute(PatchBatch(rgb)) for d in (5, 6, 100)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_columns_follow_their_names():
    rgb = np.random.default_rng(0).integers(0, 256, (2, 20, 21, 3)).astype(np.uint8)
    batch = PatchBatch(rgb)
    family = GLCM(levels=8, distances=(1, 4))
    values = dict(zip(family._feature_names(), family._compute(batch).T, strict=True))
    assert len(values) == 3 * 2 * 20
    for n in range(2):
        entropy = glcm_properties(cooccurrence(batch.channel("eosin")[n], 8, 4))[:, PROPERTIES.index("entropy")]
        assert values["glcm_eosin_entropy_d4_mean"][n] == pytest.approx(entropy.mean(), rel=1e-6)
        assert values["glcm_eosin_entropy_d4_range"][n] == pytest.approx(np.ptp(entropy), rel=1e-4)
    assert "glcm_gray_dissimilarity_d3_range" in GLCM()._feature_names()


def test_kernels_in_plain_python():
    images = random_image((2, 4, 3))
    images[1] = 40
    images.flags.writeable = False
    distances = np.array([1, 2])
    out, expected = np.empty((2, 40), dtype=np.float32), np.empty((2, 40), dtype=np.float32)
    textures.py_func(images, 4, distances, C_LOG_C, out)
    textures(images, 4, distances, C_LOG_C, expected)
    np.testing.assert_array_equal(out, expected)
    counts = cooccurrence(images[0], 4)[0]
    values = np.empty(10)
    properties.py_func(counts, 0, 3, C_LOG_C, np.empty((3, 8), dtype=np.int64), values)
    np.testing.assert_allclose(values, glcm_properties(counts), rtol=1e-12)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"levels": 1}, "GLCM.levels: expected a whole number from 2 to 256, got 1"),
        ({"distances": (1, 1)}, r"GLCM.distances: expected different distances such as \(1,\), got \(1, 1\)"),
        ({"distances": (0,)}, "GLCM.distances: expected a whole number of at least 1, got 0"),
        ({"channels": ("pink",)}, r"GLCM.channels: expected different names of .* got \('pink',\)"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        GLCM(**params)._check_params()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.zeros((4, 3), int), r"glcm_properties: expected integer matrices \(..., L, L\), got int64 of shape"),
        (np.array([[0, 1], [2, 0]]), "glcm_properties: expected symmetric counts"),
    ],
)
def test_properties_refuse(counts, message):
    with pytest.raises(ValueError, match=message):
        glcm_properties(counts)
