"""Shortcuts as feature families: three witnesses each, and the conventions of every other family."""

import cv2
import numpy as np
import pytest
from scipy.fft import dctn
from test_all_extractors import CHECKS

import histofeat.features
from histofeat.features import PatchFeatures
from histofeat.studies import BackgroundFraction, CompressionAndBlur, MeanColor
from histofeat.studies._shortcut_families import background_share, blockiness, laplacian_variance, quiet_share

FAMILIES = [MeanColor, BackgroundFraction, CompressionAndBlur]


@pytest.fixture
def odd(patches):
    """Patches of unusual shapes: one column, one row, one pixel, and one smaller than a block."""
    return [patches[0][:, :1], patches[1][:1], patches[2][:1, :1], patches[3][:7, :9]]


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("kind", FAMILIES, ids=lambda kind: kind.__name__)
def test_conventions_of_a_family(kind, name, patches):
    CHECKS[name](kind(), patches)


def test_shortcuts_are_no_families_for_models():
    assert not {kind.family for kind in FAMILIES} & set(histofeat.features.FAMILIES)
    assert all(issubclass(kind, PatchFeatures) for kind in FAMILIES)


@pytest.mark.parametrize("kind", FAMILIES, ids=lambda kind: kind.__name__)
def test_narrow_patches_have_finite_values(kind, odd):
    assert np.isfinite(kind().transform(odd)).all()


# --- mean colour -----------------------------------------------------------------------------------------------------


def test_mean_color_of_a_hand_made_patch():
    patch = np.zeros((4, 4, 3), dtype=np.uint8)
    patch[0] = (255, 51, 0)
    np.testing.assert_array_equal(MeanColor().transform([patch]), np.float32([[0.25, 0.05, 0.0]]))


def test_mean_color_is_the_mean(patches):
    np.testing.assert_allclose(MeanColor().transform(patches), patches.mean(axis=(1, 2)) / 255, rtol=1e-6)
    gray = [cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY).mean() / 255 for patch in patches]
    family = MeanColor(channels=("gray", "blue"))
    np.testing.assert_allclose(family.transform(patches)[:, 0], gray, rtol=1e-6)
    assert list(family.get_feature_names_out()) == ["shortcut_mean_gray", "shortcut_mean_blue"]


# --- background ------------------------------------------------------------------------------------------------------


def test_background_of_a_hand_made_patch():
    patch = np.full((4, 4, 3), 100, dtype=np.uint8)
    patch[0] = (250, 248, 249)  # glass
    patch[1, :2] = (220, 203, 220)  # bright enough; 255 * 17 <= 20 * 220
    patch[1, 2:] = (220, 202, 220)  # too much colour: 255 * 18 > 20 * 220
    patch[2, 0] = (219, 219, 219)  # too dark
    assert BackgroundFraction().transform([patch])[0, 0] == 6 / 16
    assert BackgroundFraction(min_value=219).transform([patch])[0, 0] == 7 / 16
    assert BackgroundFraction(max_saturation=21).transform([patch])[0, 0] == 8 / 16
    assert BackgroundFraction(min_value=0, max_saturation=255).transform([patch])[0, 0] == 1


def test_background_by_a_loop_over_pixels():
    rng = np.random.default_rng(0)
    patches = rng.integers(200, 256, (3, 6, 5, 3)).astype(np.uint8)
    expected = []
    for patch in patches:
        count = 0
        for red, green, blue in patch.reshape(-1, 3).tolist():
            top, bottom = max(red, green, blue), min(red, green, blue)
            count += top >= 230 and (top - bottom) / top <= 40 / 255
        expected.append(count / 30)
    assert len(set(expected)) == 3
    np.testing.assert_allclose(background_share(patches, 230, 40), expected)


@pytest.mark.parametrize("value", [-1, 256, 1.5, True, "20"])
def test_background_limits_are_levels(value):
    with pytest.raises(ValueError, match=rf"BackgroundFraction.min_value: expected .* 0 to 255, got {value!r}"):
        BackgroundFraction(min_value=value).fit(np.zeros((1, 4, 4, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=rf"BackgroundFraction.max_saturation: .* got {value!r}"):
        BackgroundFraction(max_saturation=value).fit(np.zeros((1, 4, 4, 3), dtype=np.uint8))


# --- compression -----------------------------------------------------------------------------------------------------


def as_jpeg(patches, quality):
    out = []
    for patch in patches:
        _, code = cv2.imencode(".jpg", patch[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        out.append(cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1])
    return np.stack(out)


def test_blockiness_of_a_hand_made_patch():
    # Blocks of two: steps between columns are 0 within and 4 between; between rows there are none.
    gray = np.array([[[0, 0, 4, 4]] * 4], dtype=np.uint8)
    found = blockiness(gray, block_px=2)
    assert found[0].tolist() == [[0, 0], [1, -1]]
    steps = np.array([[[0, 1, 4, 5]] * 4], dtype=np.uint8)
    assert blockiness(steps, block_px=2)[0, 1].tolist() == [(3 - 1) / (3 + 1), (1 - 3) / (1 + 3)]


@pytest.mark.parametrize("shape", [(20, 13), (9, 50), (50, 1), (1, 17), (8, 8), (9, 9)])
def test_blockiness_by_a_loop_over_pixels(shape):
    gray = np.random.default_rng(1).integers(0, 256, (2, *shape)).astype(np.uint8)
    found = blockiness(gray)
    for patch, contrasts in zip(gray.astype(int), found, strict=True):
        for axis, image in enumerate((patch, patch.T)):
            for phase in range(8):
                between, within = [], []
                for row in range(len(image) - 1):
                    into = between if (row + 1 + phase) % 8 == 0 else within
                    into += np.abs(image[row + 1] - image[row]).tolist()
                expected = 0.0
                if between and within:
                    b, i = np.mean(between), np.mean(within)
                    expected = (b - i) / (b + i)
                assert contrasts[axis, phase] == pytest.approx(expected)


def test_quiet_share_is_that_of_scipys_transform(patches):
    soft = np.stack([cv2.GaussianBlur(patch, (0, 0), 2) for patch in patches[..., 0]])
    for gray in (patches[..., 0], soft):
        for patch, found in zip(gray, quiet_share(gray), strict=True):
            quiet = [
                abs(dctn(patch[top : top + 8, left : left + 8].astype(float), norm="ortho")[u, v]) < 0.97
                for top in range(0, 48, 8)
                for left in range(0, 48, 8)
                for u in range(8)
                for v in range(8 - u, 8)
            ]
            assert found == pytest.approx(np.mean(quiet))
    assert quiet_share(soft).min() > 0.05
    assert quiet_share(soft).max() < 1


def test_patches_without_a_whole_block_have_no_high_frequency():
    noise = np.random.default_rng(0).integers(0, 256, (3, 50, 7)).astype(np.uint8)
    assert quiet_share(noise).tolist() == [1, 1, 1]


def test_compression_leaves_traces(patches):
    names = list(CompressionAndBlur().get_feature_names_out())
    before = dict(zip(names, CompressionAndBlur().transform(patches).T, strict=True))
    coarse = dict(zip(names, CompressionAndBlur().transform(as_jpeg(patches, 10)).T, strict=True))
    assert (coarse["shortcut_blockiness"] > before["shortcut_blockiness"] + 0.1).all()
    assert (coarse["shortcut_quiet_share"] > before["shortcut_quiet_share"] + 0.3).all()
    # Cut out of a larger compressed picture, the grid no longer begins with the patch, and is still found.
    whole = as_jpeg([np.vstack([np.hstack(patches[:4]), np.hstack(patches[4:8])])], 10)[0]
    inside = np.stack([whole[3 + 40 * i : 53 + 40 * i, 5:55] for i in range(2)])
    found = dict(zip(names, CompressionAndBlur().transform(inside).T, strict=True))
    assert (found["shortcut_blockiness_max"] > found["shortcut_blockiness"] + 0.1).all()


@pytest.mark.parametrize("value", [1, 33, 8.0, True])
def test_block_side_is_a_number_of_pixels(value):
    with pytest.raises(ValueError, match=rf"CompressionAndBlur.block_px: expected .* 2 to 32, got {value!r}"):
        CompressionAndBlur(block_px=value).fit(np.zeros((1, 4, 4, 3), dtype=np.uint8))


# --- blur ------------------------------------------------------------------------------------------------------------


def test_laplacian_of_a_hand_made_patch():
    gray = np.zeros((1, 4, 4), dtype=np.uint8)
    gray[0, 1, 1] = 4
    # One pixel has -16, its four neighbours 4 each, eleven have 0: sum 0, sum of squares 256 + 64.
    assert laplacian_variance(gray).tolist() == [320 / 16]


def test_laplacian_is_that_of_opencv(patches, odd):
    for patch in [*patches, *odd]:
        gray = np.ascontiguousarray(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY)).reshape(patch.shape[:2])
        expected = cv2.Laplacian(gray, cv2.CV_64F, ksize=1, borderType=cv2.BORDER_REPLICATE).var()
        assert laplacian_variance(gray[np.newaxis])[0] == pytest.approx(expected)


def test_blur_lowers_sharpness(patches):
    soft = np.stack([cv2.GaussianBlur(patch, (0, 0), 1.5) for patch in patches])
    sharp, blurred = (CompressionAndBlur().transform(given)[:, 3] for given in (patches, soft))
    assert (blurred < sharp - 1).all()
    np.testing.assert_allclose(sharp[0], np.log1p(laplacian_variance(_gray(patches[:1]))[0]), rtol=1e-6)


def _gray(patches):
    return np.stack([cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY) for patch in patches])
