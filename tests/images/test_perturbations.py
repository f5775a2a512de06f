"""Perturbations: against skimage, scipy, Pillow and loops; severity 0 changes nothing, and more is further away."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.color import hed2rgb, rgb2hed

from histofeat.features import FAMILIES, make_family
from histofeat.images import PERTURBATIONS, RGB_FROM_HED, perturbed_images
from histofeat.images._perturbations import blur, compress_jpeg, perturb, scale_brightness, shift_stains, turn

STEPS = [(name, step) for name, found in PERTURBATIONS.items() for step in found.severities]


@pytest.fixture(scope="module")
def stained():
    """Patches that are mixtures of hematoxylin, eosin and a residual, (6, 20, 24, 3) uint8."""
    amount = np.random.default_rng(0).uniform(0.1, 0.8, (6, 20, 24, 3))
    return np.rint(255 * np.exp(-amount @ RGB_FROM_HED)).astype(np.uint8)


# --- the table ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "severity"), STEPS)
def test_every_step_gives_patches_and_touches_none(name, severity, patches):
    given = patches.copy()
    given.flags.writeable = False
    changed = perturb(given, name, severity)
    np.testing.assert_array_equal(given, patches)
    assert changed.dtype == np.uint8
    assert changed.shape == patches.shape
    np.testing.assert_array_equal(perturb(given, name, severity), changed)
    if severity == 0:
        np.testing.assert_array_equal(changed, patches)
    else:
        assert (changed != patches).any()
    np.testing.assert_array_equal(perturb(patches[3:5], name, severity), changed[3:5])
    assert perturb(patches[:1, :, :1], name, severity).size == 150
    assert perturb(patches[:0], name, severity).shape == (0, 50, 50, 3)


def test_severities_are_those_of_the_issue():
    for name, found in PERTURBATIONS.items():
        assert 0 in found.severities, name
        assert max(found.severities) == (3 if name == "turn" else 4)
        assert min(found.severities) in (0, -4)
        assert found.quantity


@pytest.mark.parametrize("name", sorted(set(PERTURBATIONS) - {"turn"}))
def test_more_is_further_away(name, stained):
    textured = np.clip(stained.astype(int) + np.random.default_rng(1).integers(-20, 20, stained.shape), 1, 255)
    textured = textured.astype(np.uint8)
    severities = PERTURBATIONS[name].severities
    distance = {step: np.abs(perturb(textured, name, step).astype(int) - textured).mean() for step in severities}
    for sign in (1, -1):
        along = [distance[sign * step] for step in range(5) if sign * step in distance]
        assert along == sorted(along)
        assert len(along) in (1, 5)


# --- each against another implementation ---------------------------------------------------------------------------


def test_stain_factors_are_those_of_skimage(stained):
    hed = rgb2hed(stained)
    inside = (hed > 0.001).all(axis=-1)  # skimage cuts what is negative
    shifted = shift_stains(stained, (1.3, 0.8))
    expected = 255 * hed2rgb(hed * [1.3, 0.8, 1.0])
    assert inside.sum() > 1000
    assert np.abs(shifted - expected)[inside].max() < 0.51


def test_stains_move_as_the_formula_says_pixel_by_pixel(stained):
    alpha, beta = (1.4, 0.7), (0.1, -0.05)
    unit = RGB_FROM_HED / np.linalg.norm(RGB_FROM_HED, axis=1, keepdims=True)
    patch = stained[0]
    shifted = shift_stains(patch[None], alpha, beta)[0]
    for at in np.ndindex(patch.shape[:2]):
        amounts = np.linalg.solve(unit.T, [-np.log(max(int(v), 1) / 255) for v in patch[at]])
        amounts[:2] = amounts[:2] * alpha + beta
        expected = 255 * np.exp(-(amounts @ unit))
        assert np.abs(np.clip(expected, 0, 255) - shifted[at]).max() < 0.51


def test_what_would_be_brighter_than_white_is_white():
    pixel = np.array([[[[255, 0, 255], [0, 255, 0]]]], dtype=np.uint8)
    found = shift_stains(pixel, (50.0, 0.0))[0, 0]
    expected = []
    unit = RGB_FROM_HED / np.linalg.norm(RGB_FROM_HED, axis=1, keepdims=True)
    for levels in pixel[0, 0]:
        amounts = -np.log(np.maximum(levels, 1) / 255.0) @ np.linalg.inv(unit) * [50, 0, 1]
        expected.append(np.clip(255 * np.exp(-amounts @ unit), 0, 255).round())
    np.testing.assert_array_equal(found, expected)
    assert {0, 255} <= set(found.ravel().tolist())


def test_a_stain_shift_can_be_undone_and_spares_white(stained):
    there = shift_stains(stained, (1.25, 0.8))
    back = shift_stains(there, (1 / 1.25, 1 / 0.8)).astype(int)
    assert np.abs(back - stained).max() <= 2
    white = np.full((1, 3, 3, 3), 255, dtype=np.uint8)
    np.testing.assert_array_equal(shift_stains(white, (2.0, 0.3)), white)
    assert (perturb(white, "stain_veil", 2) < 255).all()
    every = np.arange(1, 256, dtype=np.uint8)[:, None].repeat(3, axis=1)[None, None]
    np.testing.assert_array_equal(shift_stains(every), every)


@pytest.mark.parametrize("sigma_px", [0.5, 1.0, 2.0])
def test_blur_is_the_gaussian_of_scipy(sigma_px, patches):
    blurred = blur(patches[:2], sigma_px)
    radius = (round(sigma_px * 6 + 1) | 1) // 2  # of OpenCV's 8-bit kernel
    for patch, found in zip(patches[:2].astype(float), blurred, strict=True):
        expected = gaussian_filter(patch, (sigma_px, sigma_px, 0), mode="mirror", radius=(radius, radius, 0))
        assert np.abs(expected - found).max() <= 1.5


@pytest.mark.parametrize("quality", [90, 30])
def test_jpeg_is_that_of_pillow(quality, patches):
    found = compress_jpeg(patches, quality)
    for patch, again in zip(patches, found, strict=True):
        file = io.BytesIO()
        Image.fromarray(patch).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        expected = np.asarray(Image.open(file).convert("RGB")).astype(int)
        assert np.abs(expected - again).mean() < 0.25 * np.abs(patch.astype(int) - again).mean()


def test_brightness_is_a_product():
    levels = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)[None, None]
    for factor in (0.0, 0.7, 1.0, 1.3):
        expected = [min(255, round(level * factor)) for level in range(256)]
        assert scale_brightness(levels, factor)[0, 0, :, 0].tolist() == expected


def test_these_families_see_turns():
    seen = {name for name in FAMILIES if not make_family(name)._invariant_to_turns}
    assert {"cnn", "histo", "lpq"} <= seen
    assert not {"color", "lbp", "haralick", "pftas", "clbp", "glcm", "gray"} & seen


def test_turns_are_quarters(patches):
    assert turn(patches[:, :20], 90).shape == (12, 50, 20, 3)
    np.testing.assert_array_equal(turn(patches, 90)[:, 0], patches[:, :, -1])
    np.testing.assert_array_equal(turn(turn(patches, 270), 90), patches)
    np.testing.assert_array_equal(turn(turn(patches, 90), 90), turn(patches, 180))
    np.testing.assert_array_equal(turn(patches, 180), patches[:, ::-1, ::-1])


@pytest.mark.parametrize("name", [name for name in sorted(FAMILIES) if make_family(name)._invariant_to_turns])
def test_families_that_promise_it_do_not_see_turns(name, patches):
    family = make_family(name)
    still = family.transform(patches)
    for severity in (1, 2, 3):
        found = family.transform(perturbed_images(patches, "turn", severity))
        np.testing.assert_allclose(found, still, rtol=2e-4, atol=2e-5)


# --- images that are changed as they are read ----------------------------------------------------------------------


def test_lazy_images_are_the_perturbed_ones_whatever_their_size_and_kind(tmp_path, patches):
    gray = patches[1, :30, :, 0]
    Image.fromarray(patches[0]).save(tmp_path / "0.png")
    Image.fromarray(gray).save(tmp_path / "1.png")
    images = perturbed_images([tmp_path / "0.png", tmp_path / "1.png"], "blur", 2)
    assert len(images) == 2
    assert images.name(1).endswith("1.png")
    np.testing.assert_array_equal(images.content(0), perturb(patches[:1], "blur", 2)[0])
    expected = perturb(np.repeat(gray[None, ..., None], 3, axis=-1), "blur", 2)[0]
    content = images.content(1)
    np.testing.assert_array_equal(content, expected)
    assert images.decode(0, images.content(0))[1] == ()
    decoded, rules = images.decode(1, content)
    assert decoded is content
    assert rules == ("gray",)
    twice = perturbed_images(perturbed_images(patches, "turn", 1), "turn", 3)
    np.testing.assert_array_equal(twice.content(5), patches[5])


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: perturb(p, "blurr", 1), "got 'blurr'. Did you mean 'blur'"),
        (lambda p: perturb(p, "blur", -1), r"expected one of \(0, 1, 2, 3, 4\) for 'blur', got -1"),
        (lambda p: perturbed_images(p, "turn", 4), r"for 'turn', got 4"),
        (
            lambda p: perturb(p[0], "blur", 1),
            r"perturb\.patches: expected 8-bit RGB .* got uint8 of shape \(50, 50, 3\)",
        ),
        (lambda p: blur(p / 255, 1), r"blur\.patches: .* got float64"),
        (lambda p: blur(p, -1), r"blur\.sigma_px: expected a number of at least 0, got -1"),
        (lambda p: blur(p, np.nan), r"blur\.sigma_px: .* got nan"),
        (lambda p: shift_stains(p, (1, -1)), r"shift_stains\.alpha: .* got \(1, -1\)"),
        (lambda p: shift_stains(p, beta=(0, np.inf)), r"shift_stains\.beta: .* got \(0, inf\)"),
        (lambda p: shift_stains(p, (1,)), r"shift_stains\.alpha: expected two finite numbers"),
        (lambda p: compress_jpeg(p, 0), r"compress_jpeg\.quality: .* got 0"),
        (lambda p: compress_jpeg(p, 50.5), r"got 50\.5"),
        (lambda p: scale_brightness(p, True), r"scale_brightness\.factor: .* got True"),
        (lambda p: turn(p, 45), r"turn\.degrees: expected 0, 90, 180 or 270, got 45"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message, patches):
    with pytest.raises(ValueError, match=message):
        call(patches)
