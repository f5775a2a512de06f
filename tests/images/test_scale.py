"""Physical scale: what headers say of it, what is no scale, and images that are brought to another one."""

import io

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from histofeat import PatchError
from histofeat.images import TilePlan, check_mpp, fit_to, image_mpp, rescale, scale_ratio

PIXELS = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
APERIO = "Aperio Image Library v11.2.1\r\n8x8 (240x240) JPEG/RGB Q=30|AppMag = 20|MPP = 0.4990|Left = 25.69"
OME = {"axes": "YXS", "PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 500, "PhysicalSizeYUnit": "nm"}
# An entity of XML stands for a letter that is not in ASCII.
MICRO = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels '
    'PhysicalSizeX="0.25" PhysicalSizeXUnit="&#181;m" PhysicalSizeY="0.25" PhysicalSizeYUnit="&#181;m" SizeX="8" '
    'SizeY="8" SizeC="3" SizeZ="1" SizeT="1" Type="uint8" DimensionOrder="XYCZT"/></Image></OME>'
)


def _tiff(**settings):
    file = io.BytesIO()
    tifffile.imwrite(file, PIXELS, photometric="rgb", **settings)
    return file.getvalue()


def _saved(kind, dpi):
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, dpi=(dpi, dpi) if np.isscalar(dpi) else dpi)
    return file.getvalue()


def _tagged(tags):
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "tiff", tiffinfo=tags)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (_tiff(resolution=(20_000, 20_000), resolutionunit="CENTIMETER"), 0.5),
        (_tiff(resolution=(50_800, 50_800), resolutionunit="INCH"), 0.5),
        (_tiff(resolution=(96, 96), resolutionunit="INCH"), None),
        (_tiff(resolution=(20_000, 10_000), resolutionunit="CENTIMETER"), None),
        (_tiff(resolution=(2, 2), resolutionunit="NONE"), None),
        (_tiff(), None),
        (_tiff(imagej=True, resolution=(4, 4), metadata={"unit": "um"}), 0.25),
        (_tiff(description=APERIO, metadata=None), 0.499),
        (_tiff(description="Aperio|MPP = 20", metadata=None), 20.0),
        (_tiff(resolution=(625, 625), resolutionunit="CENTIMETER"), 16.0),
        (_saved("tiff", 50_800), 0.5),
        (_tagged({282: 50_800.0, 283: 50_800.0}), 0.5),  # inches are meant where no unit is given
        (_tagged({282: 50_800.0}), None),
        (_tiff(ome=True, metadata=OME), 0.5),
        (_tiff(ome=True, metadata={"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}), 0.5),
        (_tiff(description=MICRO, metadata=None), 0.25),
        (_tiff(ome=True, resolution=(20_000, 20_000), resolutionunit="CENTIMETER", metadata={"axes": "YXS"}), 0.5),
        (_saved("png", 50_800), 0.5),
        (_saved("png", 300), None),
        (_saved("png", (50_800, 0)), None),
        (_saved("jpeg", 50_800), 0.5),
        (_saved("jpeg", 72), None),
        (_saved("bmp", 50_800), 0.5),
        (_saved("webp", 50_800), None),
        (_tiff(resolution=(20_000, 20_000), resolutionunit="CENTIMETER")[:60], None),
        (b"no image", None),
        (b"", None),
    ],
)
def test_headers_tell_the_scale(content, expected, tmp_path):
    assert image_mpp(content) == (None if expected is None else pytest.approx(expected, rel=1e-3))
    (tmp_path / "image").write_bytes(content)
    assert image_mpp(tmp_path / "image") == image_mpp(content)


def test_files_that_cannot_be_read_have_no_scale(tmp_path):
    assert image_mpp(tmp_path) is image_mpp(tmp_path / "none.png") is None


def test_the_scale_of_a_real_slide(real_data):
    assert image_mpp(real_data / "slides" / "CMU-1-Small-Region.svs") == 0.499


def test_scales_within_a_quarter_are_the_same():
    assert [scale_ratio(mpp, 4.0) for mpp in (4.0, 5.0, 3.2, 5.1, 3.1, 0.5)] == [1, 1, 1, 5.1 / 4, 3.1 / 4, 0.125]
    assert [scale_ratio(*pair) for pair in ((None, 4.0), (4.0, None), (np.nan, 4.0))] == [1, 1, 1]


def test_an_image_shrinks_by_the_mean_over_areas_and_grows_without_new_structure():
    coarse = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    fine = coarse.repeat(8, axis=0).repeat(8, axis=1)
    assert (rescale(fine, 1 / 8) == coarse).all()
    mixed = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    means = mixed.reshape(6, 4, 5, 4, 3).mean(axis=(1, 3))
    assert np.abs(rescale(mixed, 0.25) - means).max() <= 0.5
    grown = cv2.resize(coarse, (10, 12), interpolation=cv2.INTER_LINEAR_EXACT)
    np.testing.assert_array_equal(rescale(coarse, 2), grown)
    assert rescale(coarse, 8).mean() == pytest.approx(coarse.mean(), abs=3)
    assert rescale(coarse, 0.01).shape == (1, 1, 3)
    assert rescale(coarse, 1.0) is coarse is fit_to(coarse, (6, 5))


@pytest.mark.parametrize(
    ("mpp", "n", "message"),
    [
        (0, None, r"mpp: expected numbers above 0, at most 1,000, got \[0.0\]. Give the micrometres"),
        ([0.5, -1], 2, r"mpp: expected numbers above 0, at most 1,000, got \[-1.0\]"),
        ([0.5, 0.5], 3, r"mpp: expected a number, or one for each of 3 images, got \[0.5, 0.5\]"),
        ([0.5], None, r"mpp: expected a number, got \[0.5\]"),
    ],
)
def test_what_is_no_scale_is_refused(mpp, n, message):
    with pytest.raises(ValueError, match=message):
        check_mpp("mpp", mpp, n)


def test_unknown_scales_pass():
    assert check_mpp("mpp", 1000) == 1000
    assert np.isnan(check_mpp("mpp", [None, np.nan], 2)).all()
    assert np.isnan(check_mpp("mpp", None, 2)).all()


def _prepared(policy, pixels, mpp, size=(50, 50)):
    done, tiles, ratio = TilePlan(policy, size, "overlap", "mean", None, 4.0).prepare(pixels, mpp, name="a.png")
    return done, [tile.shape[:2] for tile in tiles], ratio


def test_images_are_cut_at_the_scale_of_the_tiles():
    image = np.zeros((400, 800, 3), dtype=np.uint8)
    assert _prepared("auto", image, 0.5) == ("tile", [(50, 50)] * 2, 0.125)
    assert _prepared("auto", image[:, :400], 0.5) == ("as is", [(50, 50)], 0.125)
    assert _prepared("auto", image, None)[2] == _prepared("auto", image, 4.4)[2] == 1
    assert _prepared("auto", image[:50, :50], 8.0) == ("tile", [(50, 50)] * 4, 2.0)
    assert _prepared("whole", image, 0.5) == ("whole", [(50, 100)], 0.125)
    assert _prepared("resize", image, 0.5) == ("resize", [(50, 50)], 1.0)
    assert _prepared("auto", image, 0.5, size=None) == ("whole", [(50, 100)], 0.125)


def test_a_fraction_of_a_patch_is_refused_unless_asked():
    image = np.zeros((200, 400, 3), dtype=np.uint8)
    assert _prepared("auto", image, 0.5) == ("pad", [(50, 50)], 0.125)  # half a patch
    assert _prepared("pad", image[:, :200], 0.5) == ("pad", [(50, 50)], 0.125)
    assert _prepared("auto", image[:25, :25], 4.0) == (
        "pad",
        [(50, 50)],
        1.0,
    )  # nothing is rescaled: the edge of a slide
    message = r"a\.png: expected at least half of a patch of 50 x 50 px at 4 micrometres per pixel, got 25 x 25 px"
    for policy in ("auto", "tile"):
        with pytest.raises(PatchError, match=message):
            _prepared(policy, image[:, :200], 0.5)
    with pytest.raises(
        PatchError, match=r"a\.png: expected at most 50,000,000 px at 4 micrometres per pixel, got 40,000 x"
    ):
        _prepared("auto", image, 400.0)
