"""Augmentation: the eight views, stains against scikit-image, seeds, and what is refused."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from skimage.color import separate_stains

from histofeat.images import RGB_FROM_HED, VIEWS, take_view
from histofeat.networks import STANDARD, Augmentation, augment
from histofeat.networks._augmentation import views_of

NOTHING = Augmentation(flips=False, turns=False, stain_jitter=0, stain_shift=0)
TURNS = replace(NOTHING, flips=True, turns=True)
STAINS = replace(NOTHING, stain_jitter=0.2, stain_shift=0.05)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def marked():
    """400 copies of one patch (400, 4, 4, 3) in which no two pixels are equal."""
    patch = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    return np.repeat(patch[None], 400, axis=0)


# --- what stays ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation", [STANDARD, NOTHING, TURNS, STAINS, replace(NOTHING, shift_px=3)])
def test_new_patches_of_the_same_kind_and_the_given_ones_untouched(augmentation, patches):
    given = patches.copy()
    given.flags.writeable = False
    changed = augment(given, rng(), augmentation)
    np.testing.assert_array_equal(given, patches)
    assert (changed.dtype, changed.shape) == (np.uint8, patches.shape)
    assert changed.flags.c_contiguous
    assert changed.flags.writeable
    assert not np.shares_memory(changed, given)
    assert augment(given[:0], rng(), augmentation).shape == (0, 50, 50, 3)


def test_nothing_changes_nothing(patches):
    np.testing.assert_array_equal(augment(patches, rng(), NOTHING), patches)
    strided = patches[:, ::2, ::-1]
    np.testing.assert_array_equal(augment(strided, rng(), NOTHING), strided)


def test_the_seed_decides(patches):
    first, again, other = augment(patches, rng(3)), augment(patches, rng(3)), augment(patches, rng(4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    state = rng(3)
    assert (augment(patches, state) != augment(patches, state)).any()


def test_layout_of_the_memory_does_not_matter(patches):
    wide = np.repeat(patches, 2, axis=2)[:, :, ::2]
    np.testing.assert_array_equal(augment(wide, rng(), STANDARD), augment(patches, rng(), STANDARD))


# --- views -----------------------------------------------------------------------------------------------------------


def test_flips_and_turns_draw_each_of_the_eight_views_equally_often(marked):
    found = Counter(patch.tobytes() for patch in augment(marked, rng(), TURNS))
    expected = set()
    for quarter in range(4):
        turned = np.rot90(marked[0], quarter)
        expected |= {np.ascontiguousarray(turned).tobytes(), np.ascontiguousarray(np.fliplr(turned)).tobytes()}
    assert set(found) == expected
    assert len(expected) == 8
    # 400 draws of eight: 50 each, standard deviation 6.6.
    assert min(found.values()) > 24
    assert max(found.values()) < 76


@pytest.mark.parametrize(("flips", "turns", "n_square", "n_oblong"), [
    (False, False, 1, 1), (True, False, 4, 4), (False, True, 4, 2), (True, True, 8, 4),
])  # fmt: skip
def test_patches_that_are_not_square_take_no_quarter_turn(flips, turns, n_square, n_oblong, marked):
    augmentation = replace(NOTHING, flips=flips, turns=turns)
    square = augment(marked, rng(), augmentation)
    oblong = augment(marked[:, :3], rng(), augmentation)
    assert len({patch.tobytes() for patch in square}) == n_square == len(views_of(augmentation, square=True))
    assert len({patch.tobytes() for patch in oblong}) == n_oblong == len(views_of(augmentation, square=False))
    assert oblong.shape == (400, 3, 4, 3)


def test_flips_alone_are_the_flips_of_both_axes(marked):
    found = {patch.tobytes() for patch in augment(marked, rng(), replace(NOTHING, flips=True))}
    flipped = (marked[0, ::vertical, ::horizontal] for vertical in (1, -1) for horizontal in (1, -1))
    assert found == {np.ascontiguousarray(patch).tobytes() for patch in flipped}


def test_views_are_a_group(marked):
    one = marked[:1]
    seen = {take_view(one, view).tobytes() for view in VIEWS}
    assert len(seen) == 8
    for view in VIEWS:
        assert {np.ascontiguousarray(take_view(take_view(one, view), other)).tobytes() for other in VIEWS} == seen
    np.testing.assert_array_equal(take_view(one, VIEWS[0]), one)


# --- moves -----------------------------------------------------------------------------------------------------------


def test_moves_are_windows_of_the_mirrored_patch(marked):
    moved = augment(marked, rng(), replace(NOTHING, shift_px=1))
    wide = np.pad(marked[0], ((1, 1), (1, 1), (0, 0)), mode="reflect")
    windows = {wide[y : y + 4, x : x + 4].tobytes() for y in range(3) for x in range(3)}
    assert {patch.tobytes() for patch in moved} == windows
    assert len(windows) == 9


# --- stains ----------------------------------------------------------------------------------------------------------


def test_stains_are_scaled_and_shifted_within_their_bounds_by_scikit_image():
    amount = rng(1).uniform(0.25, 0.7, (60, 8, 8, 3))
    unit = RGB_FROM_HED / np.linalg.norm(RGB_FROM_HED, axis=1, keepdims=True)
    pixels = np.rint(255 * np.exp(-amount @ unit)).astype(np.uint8)
    changed = augment(pixels, rng(), STAINS)
    # scikit-image takes densities relative to ln(1e-6); ours are natural logarithms.
    before, after = (separate_stains(p, np.linalg.inv(unit)) * -np.log(1e-6) for p in (pixels, changed))
    alphas, betas = [], []
    for old, new in zip(before.reshape(60, 64, 3), after.reshape(60, 64, 3), strict=True):
        for stain in range(3):
            alpha, beta = np.polyfit(old[:, stain], new[:, stain], 1)
            alphas.append(alpha)
            betas.append(beta)
    # Rounding to 8 bits costs a little of the fit.
    assert 0.77 < min(alphas) < 0.84
    assert 1.16 < max(alphas) < 1.23
    assert -0.08 < min(betas) < -0.03
    assert 0.03 < max(betas) < 0.08
    # Each stain has its own factor.
    assert np.std(np.reshape(alphas, (60, 3)), axis=1).mean() > 0.05


def test_a_jitter_close_to_zero_only_rounds(patches):
    changed = augment(patches, rng(), replace(NOTHING, stain_jitter=1e-6))
    assert np.abs(changed.astype(int) - patches)[patches > 0].max() <= 1


def test_white_stays_white_under_jitter_and_whitish_under_shift():
    white = np.full((300, 5, 5, 3), 255, np.uint8)
    np.testing.assert_array_equal(augment(white, rng(), replace(NOTHING, stain_jitter=0.5)), white)
    shifted = augment(white, rng(), STANDARD)
    assert shifted.min() >= 241
    assert shifted.min() < 250
    # One colour a patch: what was flat stays flat.
    assert (shifted == shifted[:, :1, :1]).all()


def test_every_patch_has_its_own_stains():
    pink = np.full((50, 3, 3, 3), (190, 120, 170), np.uint8)
    assert len({patch.tobytes() for patch in augment(pink, rng(), STAINS)}) > 40
    black = np.zeros((2, 3, 3, 3), np.uint8)
    assert augment(black, rng(), STAINS).max() < 15


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("values", "match"), [
    ({"flips": 1}, r"Augmentation\.flips: expected True or False, got 1\."),
    ({"turns": None}, r"Augmentation\.turns: expected True or False, got None\."),
    ({"stain_jitter": 1.0}, r"Augmentation\.stain_jitter: expected a number from 0, below 1, got 1\.0\."),
    ({"stain_jitter": float("nan")}, r"stain_jitter: .* got nan"),
    ({"stain_shift": -0.1}, r"Augmentation\.stain_shift: expected a number from 0 to 0\.5, got -0\.1\."),
    ({"stain_shift": "0.1"}, r"stain_shift: .* got '0\.1'"),
    ({"stain_jitter": True}, r"stain_jitter: .* got True"),
    ({"shift_px": 1.5}, r"Augmentation\.shift_px: expected a whole number of at least 0, got 1\.5\."),
    ({"shift_px": -1}, r"shift_px: .* got -1"),
])  # fmt: skip
def test_values_out_of_range(values, match):
    with pytest.raises(ValueError, match=match):
        Augmentation(**values)


@pytest.mark.parametrize(("pixels", "match"), [
    (np.zeros((2, 4, 4, 3)), r"augment\.pixels: expected 8-bit RGB .* got float64 of shape \(2, 4, 4, 3\)"),
    (np.zeros((4, 4, 3), np.uint8), r"got uint8 of shape \(4, 4, 3\)"),
    (np.zeros((1, 4, 4, 4), np.uint8), r"got uint8 of shape \(1, 4, 4, 4\)"),
    ([[1]], r"got list"),
])  # fmt: skip
def test_pixels_that_are_no_batch_of_patches(pixels, match):
    with pytest.raises(ValueError, match=match):
        augment(pixels, rng())


def test_a_move_beyond_the_patch(marked):
    with pytest.raises(ValueError, match=r"shift_px: expected less than the side of a patch, got 4 for 4x4 px"):
        augment(marked, rng(), replace(NOTHING, shift_px=4))


def test_light_is_one_factor_for_all_of_a_patch():
    rng = np.random.default_rng(0)
    patches = rng.integers(60, 180, (40, 6, 6, 3), dtype=np.uint8)
    light = Augmentation(flips=False, turns=False, stain_jitter=0, stain_shift=0, brightness=0.3)
    changed = augment(patches, np.random.default_rng(1), light)
    factors = changed / patches.astype(np.float64)
    # Rounding to whole levels moves a factor by half a level at most.
    each = np.median(factors.reshape(len(patches), -1), axis=1)
    assert (np.abs(changed - patches * each[:, None, None, None]) <= 1.5).all()
    assert 0.7 <= each.min() < 0.8
    assert 1.2 < each.max() <= 1.31


def test_brightness_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"Augmentation.brightness: expected a number from 0, below 1, got 1"):
        Augmentation(brightness=1)
