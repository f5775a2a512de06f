"""Colour deconvolution: against hand-made pixels, the formula in a loop, and scikit-image."""

import numpy as np
import pytest
from skimage.color import rgb2hed

from histofeat.images import MAX_CONCENTRATION, RGB_FROM_HED, _macenko as stains, quantised_stains
from histofeat.images._macenko import separate_stains


def random_pixels(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)


def test_white_holds_no_stain():
    white = np.full((4, 4, 3), 255, dtype=np.uint8)
    assert not separate_stains(white).any()
    assert not quantised_stains(white).any()


@pytest.mark.parametrize("stain", range(3))
def test_a_pure_stain_comes_back_alone(stain):
    amount = 0.05
    density = amount * RGB_FROM_HED[stain]
    pixel = np.rint(255 * np.exp(np.log(1e-6) * density)).astype(np.uint8)
    found = separate_stains(pixel)
    np.testing.assert_allclose(found, amount * np.eye(3)[stain], atol=1.5e-3)


def test_formula_in_a_loop():
    inverse = np.linalg.inv(RGB_FROM_HED)
    for pixel in random_pixels((50,)):
        density = [np.log(max(v / 255, 1e-6)) / np.log(1e-6) for v in pixel]
        expected = [max(0.0, sum(density[c] * inverse[c, s] for c in range(3))) for s in range(3)]
        np.testing.assert_allclose(separate_stains(pixel), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(50, 50), (3, 7, 5), (1, 1)])
def test_agrees_with_scikit_image(shape):
    rgb = random_pixels(shape)
    np.testing.assert_allclose(separate_stains(rgb), rgb2hed(rgb), atol=1e-6)


@pytest.mark.parametrize("value", [0, 255])
def test_agrees_with_scikit_image_on_black_and_white(value):
    rgb = np.full((4, 5, 3), value, dtype=np.uint8)
    np.testing.assert_allclose(separate_stains(rgb), rgb2hed(rgb), atol=1e-6)


def test_quantised_is_the_rounded_concentration():
    rgb = random_pixels((200, 130))
    scaled = np.clip(rgb2hed(rgb) / np.array(MAX_CONCENTRATION), 0, 1) * 255
    found = quantised_stains(rgb)
    assert found.dtype == np.uint8
    assert found.shape == rgb.shape
    # float32 may fall on the other side of a half, never further.
    assert np.abs(found - scaled).max() < 0.501
    assert np.mean(found != np.rint(scaled)) < 1e-4


def test_quantised_takes_any_layout_and_leaves_its_input():
    rgb = random_pixels((6, 8, 10))
    expected = quantised_stains(rgb)
    frozen = rgb.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(quantised_stains(frozen), expected)
    np.testing.assert_array_equal(quantised_stains(rgb[:, ::2]), expected[:, ::2])
    np.testing.assert_array_equal(quantised_stains(rgb.transpose(0, 2, 1, 3)), expected.transpose(0, 2, 1, 3))
    assert rgb.flags.writeable


def test_kernels_in_plain_python():
    rgb = random_pixels((6,))
    out = np.empty_like(rgb)
    stains._quantise.py_func(rgb, stains._DENSITY32, stains._LEVELS_FROM_RGB, out)
    np.testing.assert_array_equal(out, quantised_stains(rgb))
    planes = np.array([[1.0, 100], [1, 100], [1, 100]], dtype=np.float32)
    levels = np.empty(2, dtype=np.uint8)
    one = np.float32(1)
    stains._mix.py_func(planes, one, one, -one / 2, levels, 2)
    assert levels.tolist() == [2, 150]


@pytest.mark.parametrize("function", [separate_stains, quantised_stains])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((4, 4, 3)), r"expected 8-bit RGB .* got float64 of shape \(4, 4, 3\)"),
        (np.zeros((4, 4), dtype=np.uint8), r"got uint8 of shape \(4, 4\)"),
        (np.zeros((), dtype=np.uint8), r"got uint8 of shape \(\)"),
    ],
)
def test_refuses_other_pixels(function, bad, message):
    with pytest.raises(ValueError, match=message):
        function(bad)
