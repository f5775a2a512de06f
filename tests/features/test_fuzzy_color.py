"""Fuzzy colour histogram: clustering against loops, colours against scikit-image, patches against hand and NumPy."""

import numpy as np
import pytest
from skimage.color import rgb2lab

from histofeat.features import FuzzyColorHistogram, PatchBatch, _fuzzy_color as fuzzy_color
from histofeat.features._fuzzy_color import coarse_colors, fuzzy_c_means, fuzzy_histogram, rgb_to_lab


def random_patches(n=3, height=11, width=7, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3)).astype(np.uint8)


def step_in_loops(points, centers, m):
    """The two update equations of fuzzy c-means as they are printed."""
    n, c = len(points), len(centers)
    membership = np.empty((n, c))
    for k in range(n):
        distances = [np.linalg.norm(points[k] - center) for center in centers]
        for j in range(c):
            membership[k, j] = 1 / sum((distances[j] / distances[i]) ** (2 / (m - 1)) for i in range(c))
    moved = np.empty_like(centers)
    for j in range(c):
        weights = membership[:, j] ** m
        moved[j] = sum(weights[k] * points[k] for k in range(n)) / weights.sum()
    return membership, moved


# --- the clustering --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [1.2, 1.9, 3.0])
@pytest.mark.parametrize("dimensions", [1, 3])
def test_a_step_is_that_of_the_equations(m, dimensions):
    rng = np.random.default_rng(0)
    points, centers = rng.normal(size=(30, dimensions)), rng.normal(size=(4, dimensions))
    membership, moved = step_in_loops(points, centers, m)
    found = np.empty((30, 4))
    np.testing.assert_allclose(fuzzy_color._step(points, centers, m, found), moved, rtol=1e-9)
    np.testing.assert_allclose(found, membership, rtol=1e-9)
    plain = np.empty((30, 4))
    np.testing.assert_allclose(fuzzy_color._step.py_func(points, centers, m, plain), moved, rtol=1e-9)
    np.testing.assert_allclose(plain, membership, rtol=1e-9)


def test_clustering_ends_where_the_equations_agree():
    rng = np.random.default_rng(1)
    points = np.vstack([rng.normal(at, 0.5, size=(20, 2)) for at in (0, 5, 10)])
    start = np.array([[1.0, 0.0], [4.0, 4.0], [7.0, 12.0]])
    before = start.copy()
    centers, membership = fuzzy_c_means(points, start, tolerance=1e-10)
    np.testing.assert_array_equal(start, before)
    expected, moved = step_in_loops(points, centers, 1.9)
    np.testing.assert_allclose(centers, moved, atol=1e-9)
    np.testing.assert_allclose(membership, expected, atol=1e-9)
    np.testing.assert_allclose(membership.sum(axis=1), 1)
    assert (membership.argmax(axis=1) == np.repeat([0, 1, 2], 20)).all()


def test_steps_are_limited_and_membership_is_of_the_centres_that_are_given_back():
    points = np.array([[0.0], [1.0], [9.0], [10.0]])
    start = np.array([[0.5], [2.5]])
    centers, membership = fuzzy_c_means(points, start, max_steps=2)
    expected = step_in_loops(points, step_in_loops(points, start, 1.9)[1], 1.9)[1]
    np.testing.assert_allclose(centers, expected)
    np.testing.assert_allclose(membership, step_in_loops(points, expected, 1.9)[0])


def test_point_on_a_centre_belongs_to_it_alone():
    _, membership = fuzzy_c_means(np.array([[0.0], [4.0]]), np.array([[0.0], [4.0]]))
    np.testing.assert_allclose(membership, np.eye(2), atol=1e-15)


# --- the coarse colours ----------------------------------------------------------------------------------------------


def test_lab_agrees_with_scikit_image():
    colors = np.random.default_rng(2).integers(0, 256, (200, 3))
    colors[:3] = [[0, 0, 0], [255, 255, 255], [9, 9, 9]]
    np.testing.assert_allclose(rgb_to_lab(colors), rgb2lab(colors / 255), atol=0.01)


def test_fine_colours_are_the_middles_of_their_cells():
    grid = fuzzy_color._grid(16)
    assert grid.shape == (4096, 3)
    assert grid[0].tolist() == [7.5, 7.5, 7.5]
    assert grid[(3 * 16 + 7) * 16 + 15].tolist() == [55.5, 119.5, 247.5]


def test_every_fine_colour_is_shared_out_whole():
    centers, membership = coarse_colors()
    assert (centers.shape, membership.shape) == ((64, 3), (4096, 64))
    np.testing.assert_allclose(membership.sum(axis=1), 1, rtol=1e-12)
    assert membership.min() > 0
    fine = rgb_to_lab(fuzzy_color._grid(16))
    nearest = np.linalg.norm(fine[:, None] - centers, axis=2).argmin(axis=1)
    np.testing.assert_array_equal(membership.argmax(axis=1), nearest)
    expected, _ = step_in_loops(fine[::97], centers, 1.9)
    np.testing.assert_allclose(membership[::97], expected, rtol=1e-9)
    with pytest.raises(ValueError, match="read-only"):
        membership[0, 0] = 1


def test_coarse_colours_are_apart_and_where_the_clustering_ends():
    centers, _ = coarse_colors()
    gaps = np.linalg.norm(centers[:, None] - centers, axis=2) + 1000 * np.eye(64)
    assert gaps.min() > 10
    moved = fuzzy_color._step(rgb_to_lab(fuzzy_color._grid(16)), centers, 1.9, np.empty((4096, 64)))
    assert np.abs(moved - centers).max() < 0.001
    assert (np.diff(centers[:, 0]) > 0).all()


@pytest.mark.long
def test_start_is_what_the_clustering_makes_of_a_grid():
    grid = rgb_to_lab(fuzzy_color._grid(4))
    centers, _ = fuzzy_c_means(rgb_to_lab(fuzzy_color._grid(16)), grid, tolerance=1e-3, max_steps=2000)
    np.testing.assert_allclose(centers[np.argsort(centers[:, 0])], fuzzy_color._START, atol=0.1)


def test_fuzziness_decides_how_evenly_a_colour_is_shared():
    fine, centers = rgb_to_lab(fuzzy_color._grid(16))[::16], fuzzy_color._START
    largest = [fuzzy_c_means(fine, centers, m, max_steps=5)[1].max(axis=1).mean() for m in (1.2, 1.9, 2.8)]
    assert largest[0] > largest[1] + 0.1 > largest[2] + 0.2


# --- the histogram ---------------------------------------------------------------------------------------------------


def test_hand_made():
    patch = np.zeros((4, 4, 3), dtype=np.uint8)
    patch[:3] = 255
    patch[0, 0] = (255, 15, 16)
    membership = np.zeros((4096, 3))
    membership[0] = (1, 0, 0)  # black
    membership[4095] = (0, 0.25, 0.75)  # white
    membership[15 * 256 + 0 * 16 + 1] = (0.5, 0.5, 0)  # red, its blue just in the second level
    assert fuzzy_histogram(patch, membership).tolist() == [4.5 / 16, 3.25 / 16, 8.25 / 16]


def test_histogram_is_the_fine_one_times_the_memberships():
    patches = random_patches()
    membership = coarse_colors()[1]
    shares = fuzzy_histogram(patches, membership)
    for patch, share in zip(patches, shares, strict=True):
        fine, _ = np.histogramdd(patch.reshape(-1, 3), bins=16, range=[(0, 256)] * 3)
        np.testing.assert_allclose(share, fine.ravel() @ membership / 77, rtol=1e-12)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    plain = np.empty((3, 64))
    fuzzy_color._mix.py_func(patches.reshape(3, -1, 3), membership, plain)
    np.testing.assert_allclose(plain, shares, rtol=1e-12)


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("size", [(1, 1), (50, 1), (50, 50)])
def test_flat_patch_has_the_memberships_of_its_colour(value, size):
    values = FuzzyColorHistogram()._compute(PatchBatch(np.full((2, *size, 3), value, dtype=np.uint8)))
    expected = coarse_colors()[1][value // 16 * 273]
    np.testing.assert_allclose(values, [expected, expected], rtol=1e-6)
    assert values.dtype == np.float32


def test_a_small_shift_of_colour_changes_it_a_little():
    """What it is for: values next to the border of a cell jump in a plain histogram of as many cells."""
    below, above = np.full((1, 9, 9, 3), 127, dtype=np.uint8), np.full((1, 9, 9, 3), 128, dtype=np.uint8)
    fuzzy = [FuzzyColorHistogram()._compute(PatchBatch(patch))[0] for patch in (below, above)]
    plain = [np.histogramdd(p.reshape(-1, 3), bins=4, range=[(0, 256)] * 3)[0] / 81 for p in (below, above)]
    assert np.abs(fuzzy[0] - fuzzy[1]).sum() < 0.3 * np.abs(plain[0] - plain[1]).sum()


def test_names_are_those_of_the_columns():
    names = FuzzyColorHistogram()._feature_names()
    assert (names[0], names[-1], len(names)) == ("fuzzy_color_00", "fuzzy_color_63", 64)


def test_another_fuzziness_gives_other_numbers(monkeypatch):
    asked = []
    monkeypatch.setattr(fuzzy_color, "coarse_colors", lambda m: (asked.append(m), (None, np.full((4096, 64), 0.5)))[1])
    FuzzyColorHistogram(fuzziness=2.5)._compute(PatchBatch(random_patches()))
    assert asked == [2.5]


@pytest.mark.parametrize("bad", [1, 1.0, 3.5, np.nan, "1.9", True, None])
def test_bad_fuzziness_is_refused(bad):
    with pytest.raises(ValueError, match=r"FuzzyColorHistogram.fuzziness: expected a number above 1 .* got "):
        FuzzyColorHistogram(fuzziness=bad)._check_params()


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_other_pixels_are_refused(bad):
    with pytest.raises(ValueError, match=rf"fuzzy_histogram: expected 8-bit .*got {bad.dtype} of shape"):
        fuzzy_histogram(bad, coarse_colors()[1])


def test_other_memberships_are_refused():
    with pytest.raises(ValueError, match=r"fuzzy_histogram.membership: expected a row for each of 4096 .* \(64, 64\)"):
        fuzzy_histogram(random_patches(), np.ones((64, 64)))
