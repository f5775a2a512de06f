"""Joint colour histogram: against a hand-made image and NumPy."""

import numpy as np
import pytest

from histofeat.features import JointColorHistogram, PatchBatch, _color as color
from histofeat.features._color import joint_histogram


def random_patches(n=3, height=11, width=7, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3)).astype(np.uint8)


def test_hand_made():
    patch = np.zeros((4, 4, 3), dtype=np.uint8)
    patch[0] = (255, 127, 128)
    patch[1, 0] = (128, 0, 127)
    expected = np.zeros((2, 2, 2))
    expected[0, 0, 0], expected[1, 0, 1], expected[1, 0, 0] = 11 / 16, 4 / 16, 1 / 16
    np.testing.assert_array_equal(joint_histogram(patch, bins=2), expected.ravel())


@pytest.mark.parametrize("bins", [2, 7, 8, 16])
def test_agrees_with_numpy(bins):
    patches = random_patches()
    shares = joint_histogram(patches, bins)
    # Value v falls into bin v * bins // 256, whose lower edges are the first values that do.
    edges = [*(-(-256 * k // bins) for k in range(bins)), 256]
    for patch, share in zip(patches, shares, strict=True):
        counts, _ = np.histogramdd(patch.reshape(-1, 3), bins=[edges] * 3)
        np.testing.assert_array_equal(share, counts.ravel() / 77)
    plain = np.empty_like(shares)
    color._share_cells.py_func(patches.reshape(3, -1, 3), bins, plain)
    np.testing.assert_array_equal(plain, shares)


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("size", [(1, 1), (50, 1), (50, 50)])
def test_flat_patch_fills_one_cell(value, size):
    values = JointColorHistogram()._compute(PatchBatch(np.full((2, *size, 3), value, dtype=np.uint8)))
    assert (values.shape, values.dtype) == ((2, 512), np.float32)
    assert values[:, value // 32 * 73].tolist() == [1, 1]
    assert values.sum() == 2


@pytest.mark.parametrize(("bins", "name"), [(8, "joint_color_r7_g0_b3"), (12, "joint_color_r07_g00_b03")])
def test_names_tell_the_cell(bins, name):
    family = JointColorHistogram(bins)
    patch = np.full((1, 4, 4, 3), (7 * 256 // bins + 1, 0, 3 * 256 // bins + 1), dtype=np.uint8)
    names = family._feature_names()
    assert len(set(names)) == bins**3
    assert names[family._compute(PatchBatch(patch))[0].argmax()] == name


@pytest.mark.parametrize("bad", [1, 17, 8.0, True, None])
def test_bad_bins_are_refused(bad):
    with pytest.raises(ValueError, match=r"JointColorHistogram.bins: expected a whole number from 2 to 16, got "):
        JointColorHistogram(bins=bad)._check_params()
    with pytest.raises(ValueError, match=r"joint_histogram.bins: expected a whole number from 2 to 16, got "):
        joint_histogram(random_patches(), bad)


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_other_pixels_are_refused(bad):
    with pytest.raises(ValueError, match=rf"joint_histogram: expected 8-bit .*got {bad.dtype} of shape"):
        joint_histogram(bad)
