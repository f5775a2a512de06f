"""Local phase quantization: hand-made windows, the transform summed pixel by pixel, and convolutions of SciPy."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.signal import convolve2d

from histofeat.features import LocalPhaseQuantization, PatchBatch, _phase_quantization as phase_quantization
from histofeat.features._phase_quantization import lpq_histogram

HOW = [(window, decorrelate) for window in ("uniform", "gaussian") for decorrelate in (True, False)]


def random_image(shape=(23, 31), high=256, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8)


def waves(side, window):
    """Weights of an axis at frequency 0 and 1 / side, each over offsets -r to r."""
    offset = np.arange(side) - side // 2
    flat = np.ones(side) if window == "uniform" else np.exp(-0.5 * (offset / ((side - 1) / 4)) ** 2)
    flat = flat / flat.sum()
    wave = flat * np.exp(-2j * np.pi * offset / side)
    return flat, wave - wave.mean()


def with_scipy(image, side, window="uniform", decorrelate=True, rho=0.9):
    """The authors' steps: four pairs of one-dimensional convolutions, whitening by SVD, signs, counts."""
    flat, wave = waves(side, window)
    pairs = [(flat, wave), (wave, flat), (wave, wave), (wave, wave.conj())]
    responses = [convolve2d(convolve2d(image.astype(float), d[:, None], "valid"), a[None], "valid") for d, a in pairs]
    values = np.array([part for one in responses for part in (one.real, one.imag)])
    if decorrelate:
        places = np.array(list(np.ndindex(side, side)))
        covariance = rho ** np.linalg.norm(places[:, None] - places, axis=2)
        operator = np.array([p.ravel() for d, a in pairs for p in (np.outer(d, a).real, np.outer(d, a).imag)])
        parted = np.diag(1 + 1e-6 * np.arange(7, -1, -1))
        directions = np.linalg.svd(parted @ operator @ covariance @ operator.T @ parted)[2]
        for row in directions:
            leading = next(k for k in range(8) if abs(row[k]) > abs(row).max() - 1e-6)
            row *= np.sign(row[leading])
        values = np.tensordot(directions, values, 1)
    codes = ((values >= -1e-9) * (2 ** np.arange(8))[:, None, None]).sum(axis=0)
    return np.bincount(codes.ravel(), minlength=256) / codes.size


def in_loops(image, side):
    """The transform without decorrelation, summed pixel by pixel as the paper writes it."""
    r, a, counts = side // 2, 1 / side, np.zeros(256)
    for y, x in np.ndindex(image.shape[0] - 2 * r, image.shape[1] - 2 * r):
        bits = []
        for across, down in ((a, 0), (0, a), (a, a), (-a, a)):
            total = sum(
                int(image[y + r - dy, x + r - dx]) * np.exp(-2j * np.pi * (across * dx + down * dy))
                for dy in range(-r, r + 1)
                for dx in range(-r, r + 1)
            )
            bits += [total.real > -1e-6, total.imag > -1e-6]
        counts[sum(bit << k for k, bit in enumerate(bits))] += 1
    return counts / counts.sum()


def test_hand_made():
    """A white pixel in a window of nine: its offset alone decides the signs of cosine and sine."""
    codes = {}
    for y, x in ((1, 1), (1, 2), (0, 1)):
        image = np.zeros((3, 3), dtype=np.uint8)
        image[y, x] = 90
        codes[y, x] = f"{lpq_histogram(image, 3, decorrelate=False).argmax():08b}"[::-1]
    # Re F1, Im F1, Re F2, Im F2, and so on. In the middle every cosine is 1 and every sine 0.
    assert codes[1, 1] == "11111111"
    # One to the right is y = -1: exp(2 pi i / 3) across, and its conjugate in the last, which turns across round.
    assert codes[1, 2] == "01110100"
    # One up is y = 1 down: exp(-2 pi i / 3) at every frequency but the first.
    assert codes[0, 1] == "11000000"


@pytest.mark.parametrize("side", [3, 5, 7])
@pytest.mark.parametrize("high", [4, 256])
def test_definition_in_loops(side, high):
    image = random_image((10, 9), high)
    np.testing.assert_allclose(lpq_histogram(image, side, decorrelate=False), in_loops(image, side), atol=1e-12)


@pytest.mark.parametrize(("window", "decorrelate"), HOW)
@pytest.mark.parametrize("side", [3, 5, 7, 11])
def test_agrees_with_scipy(side, window, decorrelate):
    image = random_image()
    ours = lpq_histogram(image, side, window=window, decorrelate=decorrelate)
    np.testing.assert_allclose(ours, with_scipy(image, side, window, decorrelate), atol=1e-12)


def test_agrees_with_scipy_for_another_correlation():
    image = random_image((40, 30))
    ours = lpq_histogram(image, 7, rho=0.5)
    np.testing.assert_allclose(ours, with_scipy(image, 7, rho=0.5), atol=1e-12)
    assert np.abs(ours - lpq_histogram(image, 7, rho=0.999)).max() > 0.001


def test_agrees_with_scipy_on_real_patches():
    if "HISTOFEAT_DATA" not in os.environ:
        pytest.skip("HISTOFEAT_DATA is not set: no real patches at hand")
    for path in sorted((Path(os.environ["HISTOFEAT_DATA"]) / "idc").glob("*/*/*.png"))[::400]:
        gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if min(gray.shape) >= 7:
            np.testing.assert_allclose(lpq_histogram(gray), with_scipy(gray, 7), atol=1e-12)


def test_directions_decorrelate_what_they_assume():
    """Values of random windows with that correlation of pixels have a diagonal covariance on the directions."""
    side = 5
    flat, wave = waves(side, "uniform")
    places = np.array(list(np.ndindex(side, side)))
    covariance = 0.9 ** np.linalg.norm(places[:, None] - places, axis=2)
    filters = [np.outer(d, a) for d, a in [(flat, wave), (wave, flat), (wave, wave), (wave, wave.conj())]]
    operator = np.array([part.ravel() for one in filters for part in (one.real, one.imag)])
    directions = phase_quantization._directions(side, "uniform", 0.9)
    found = directions @ operator @ covariance @ operator.T @ directions.T
    np.testing.assert_allclose(found, np.diag(np.diag(found)), atol=1e-5 * found.max())
    assert (np.diff(np.diag(found)) < 1e-5 * found.max()).all()
    np.testing.assert_allclose(directions @ directions.T, np.eye(8), atol=1e-12)
    before = operator @ covariance @ operator.T
    assert abs(before - np.diag(np.diag(before))).max() > 0.01 * before.max()


def test_a_symmetric_blur_leaves_most_codes_and_other_changes_do_not():
    image = cv2.GaussianBlur(random_image((120, 120)), (0, 0), 2)
    blurred = cv2.GaussianBlur(image, (0, 0), 0.8)
    shifted = np.abs(lpq_histogram(image) - lpq_histogram(image[:, ::-1].copy())).sum()
    assert np.abs(lpq_histogram(image) - lpq_histogram(blurred)).sum() < shifted


@pytest.mark.parametrize(("window", "decorrelate"), HOW)
@pytest.mark.parametrize("value", [0, 1, 77, 255])
@pytest.mark.parametrize("size", [(50, 50), (1, 1), (50, 1), (2, 9)])
def test_flat_is_code_255(window, decorrelate, value, size):
    found = lpq_histogram(np.full(size, value, dtype=np.uint8), 7, window=window, decorrelate=decorrelate)
    assert found[255] == found.sum() == 1


def test_flat_regions_do_not_depend_on_rounding():
    """Columns of stripes hold no phase down: its two bits are 1 in every window, whatever the levels."""
    stripes = np.tile(random_image((1, 40)), (30, 1))
    codes = np.flatnonzero(lpq_histogram(stripes, 7, decorrelate=False))
    assert len(codes) > 1
    assert all(code >> 2 & 3 == 3 for code in codes)


@pytest.mark.parametrize("shape", [(4, 6), (1, 12), (12, 1), (5, 30)])
def test_small_patches_repeat_their_border(shape):
    image = random_image(shape)
    padded = np.pad(image, [(3, 3) if size < 7 else (0, 0) for size in shape], mode="edge")
    np.testing.assert_array_equal(lpq_histogram(image), lpq_histogram(padded))
    np.testing.assert_allclose(lpq_histogram(padded), with_scipy(padded, 7), atol=1e-12)


def test_a_large_image():
    image = random_image((460, 700))
    found = lpq_histogram(image)
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, with_scipy(image, 7), atol=1e-12)


def test_a_batch_is_its_images():
    images = np.stack([random_image(seed=seed) for seed in range(4)])
    np.testing.assert_array_equal(lpq_histogram(images), [lpq_histogram(image) for image in images])


def test_columns_follow_their_names():
    rgb = np.random.default_rng(0).integers(0, 256, (2, 20, 21, 3)).astype(np.uint8)
    batch = PatchBatch(rgb)
    family = LocalPhaseQuantization(windows_px=(3, 9), window="gaussian", rho=0.8, channels=("gray", "eosin"))
    values = dict(zip(family._feature_names(), family._compute(batch).T, strict=True))
    assert len(values) == 4 * 256
    expected = lpq_histogram(batch.channel("eosin"), 9, window="gaussian", rho=0.8)
    np.testing.assert_allclose(values["lpq_eosin_w9_017"], expected[:, 17], rtol=1e-6)
    np.testing.assert_allclose(values["lpq_eosin_w9_255"], expected[:, 255], rtol=1e-6)
    plain = LocalPhaseQuantization(decorrelate=False)._compute(batch)
    np.testing.assert_allclose(plain, lpq_histogram(batch.gray, decorrelate=False), rtol=1e-6)


def test_kernels_in_plain_python():
    images = random_image((1, 5, 4), high=90)
    weights, directions = phase_quantization._weights(3, "uniform"), phase_quantization._directions(3, "uniform", 0.9)
    shares = np.empty((1, 256))
    phase_quantization._histograms.py_func(images, weights, directions, shares)
    np.testing.assert_array_equal(shares[0], lpq_histogram(images[0], 3))
    across = np.empty((3, 5, 2))
    for y in range(5):
        phase_quantization._filter_across.py_func(images[0, y].astype(float), weights, across[:, y])
    flat, wave = waves(3, "uniform")
    expected = convolve2d(images[0], wave[None], "valid")
    np.testing.assert_allclose(across[1] + 1j * across[2], expected, atol=1e-12)
    values = np.empty((8, 2))
    phase_quantization._filter_down.py_func(across, 1, weights, values)
    first = convolve2d(expected[:3], flat[:, None], "valid")[0]
    np.testing.assert_allclose(values[0] + 1j * values[1], first, atol=1e-12)
    more = np.zeros((8, 2))
    phase_quantization._add_pair.py_func(across, 0, 2, *weights[:, 1], more)
    np.testing.assert_allclose(more[0] + 2 * weights[0, 0] * across[1, 1], values[0], atol=1e-12)
    projected, codes = np.empty(2), np.empty(2, dtype=np.uint8)
    phase_quantization._encode.py_func(values, np.eye(8), projected, codes)
    assert codes.tolist() == [sum(1 << k for k in range(8) if values[k, x] >= -1e-9) for x in range(2)]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"windows_px": 7}, r"LocalPhaseQuantization.windows_px: expected different windows such as \(7,\), got 7"),
        ({"windows_px": ()}, r"got \(\)"),
        ({"windows_px": (7, 7)}, r"got \(7, 7\)"),
        ({"windows_px": (6,)}, "LocalPhaseQuantization.windows_px: expected an odd integer from 3 to 63, got 6"),
        ({"windows_px": (1,)}, "got 1"),
        ({"windows_px": (65,)}, "got 65"),
        ({"windows_px": (7.0,)}, r"got 7\.0"),
        ({"window": "hann"}, "LocalPhaseQuantization.window: expected one of uniform, gaussian, got 'hann'"),
        ({"decorrelate": 1}, "LocalPhaseQuantization.decorrelate: expected True or False, got 1"),
        ({"rho": 1}, "LocalPhaseQuantization.rho: expected a number between 0 and 1, got 1"),
        ({"rho": "0.9"}, "got '0.9'"),
        ({"channels": ("pink",)}, r"LocalPhaseQuantization.channels: expected different names of .* got \('pink',\)"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        LocalPhaseQuantization(**params)._check_params()


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.zeros((4, 0), np.uint8), np.zeros((4, 4, 4, 3), np.uint8)])
def test_refuses_other_pixels(bad):
    with pytest.raises(ValueError, match=rf"lpq_histogram: expected 8-bit images .* got {bad.dtype} of shape \(4, "):
        lpq_histogram(bad)
