"""Whole slides: regions at a scale, levels, tissue, tiles, and files that are no slides."""

import importlib.machinery
import sys
import types

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from slide_files import COLOURS, write_slide

from histofeat.exceptions import MissingExtraError, PatchError
from histofeat.images import Slide, is_slide, is_tissue, open_slide, read_tiles, slide_tiles, tissue_mask

openslide = pytest.importorskip("openslide")


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory):
    """A slide of 3000 x 2000 px at 0.25 micrometres per pixel, with levels 1, 4 and 16."""
    path = tmp_path_factory.mktemp("slides") / "pyramid.tif"
    write_slide(path, 3000, 2000, cell=128)
    return path


@pytest.fixture
def slide(pyramid):
    with open_slide(pyramid) as opened:
        yield opened


class Recorder:
    """A reader that writes down the level and the size of what is read."""

    def __init__(self, reader):
        self.reader, self.read = reader, []

    def __getattr__(self, name):
        return getattr(self.reader, name)

    def read_region(self, place, level, size):
        self.read.append((level, size))
        return self.reader.read_region(place, level, size)


def recorded(slide):
    reader = Recorder(slide._reader)
    return Slide(slide.path, reader, slide.mpp), reader.read


def by_hand(whole, tiles, ratio):
    """Mean colours of tiles of 50 px on an image that is scaled as a whole."""
    height, width = (round(side * ratio) for side in whole.shape[:2])
    small = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    corners = np.rint(tiles[["y", "x"]].to_numpy() * ratio).astype(int)
    return np.array([small[y : y + 50, x : x + 50].mean(axis=(0, 1)) for y, x in corners])


def test_a_slide_says_its_size_scale_and_levels(slide):
    assert (slide.width, slide.height, slide.mpp) == (3000, 2000, 0.25)
    np.testing.assert_allclose(slide.levels, [1, 4, 16], rtol=0.01)
    assert repr(slide).endswith("pyramid.tif', 3000 x 2000 px, mpp=0.25)")


@pytest.mark.parametrize(
    ("mpp", "level", "read"),
    [(0.25, 0, (800, 800)), (0.9, 0, (800, 800)), (1.0, 1, (200, 200)), (2.0, 1, (200, 200)), (4.0, 2, (50, 50))],
)
def test_a_region_is_read_from_the_coarsest_level_that_has_its_pixels(slide, mpp, level, read):
    slide, levels = recorded(slide)
    pixels = slide.read(1000, 600, 800, 800, mpp)
    assert pixels.shape == (round(200 / mpp), round(200 / mpp), 3)
    assert levels == [(level, read)]


def test_a_region_is_that_of_level_0_resampled_by_area(pyramid, slide):
    region = tifffile.imread(pyramid, level=0)[512:1280, 1024:1664]
    np.testing.assert_array_equal(slide.read(1024, 512, 640, 768, 0.25), region)
    half = cv2.resize(region, (320, 384), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(slide.read(1024, 512, 640, 768, 0.5), half)
    twice = slide.read(1024, 512, 640, 768, 0.125)
    assert twice.shape == (1536, 1280, 3)
    np.testing.assert_allclose(twice.mean(axis=(0, 1)), region.mean(axis=(0, 1)), atol=0.5)


def test_a_large_region_is_read_in_blocks(slide, monkeypatch):
    whole = slide.read(0, 0, 3000, 2000, 0.5)
    monkeypatch.setattr("histofeat.images._slides._BLOCK_PX", 100_000)
    slide, levels = recorded(slide)
    np.testing.assert_array_equal(slide.read(0, 0, 3000, 2000, 0.5), whole)
    assert max(width * height for _, (width, height) in levels) <= 100_000
    monkeypatch.setattr("histofeat.images._slides._BLOCK_PX", 5_000)
    one = slide.read(0, 0, 3000, 2000, 3000)
    assert one.shape == (1, 1, 3)
    np.testing.assert_allclose(one[0, 0], whole.mean(axis=(0, 1)), atol=1.5)


def test_what_was_not_scanned_has_the_colour_of_the_background(slide):
    np.testing.assert_array_equal(slide.read(-4000, 0, 400, 400, 4.0), np.full((25, 25, 3), 255))
    read = lambda place, level, size: Image.new("RGBA", size, (0, 0, 0, 0))  # noqa: E731
    empty = types.SimpleNamespace(
        dimensions=(100, 100), level_dimensions=[(100, 100)], read_region=read,
        properties={"openslide.background-color": "0a141e"},
    )  # fmt: skip
    assert Slide("empty", empty, 1.0).read(0, 0, 1, 1, 1.0).tolist() == [[[10, 20, 30]]]


def test_a_level_of_other_proportions_is_not_used(tmp_path, slide):
    write_slide(tmp_path / "bent.tif", 3000, 2000, levels=(1, (4, (750, 300)), 16), cell=128)
    with open_slide(tmp_path / "bent.tif") as bent:
        np.testing.assert_allclose(bent.levels, [1, 16], rtol=0.01)
        region = 1000, 600, 800, 800, 1.0
        np.testing.assert_allclose(bent.read(*region).mean(), slide.read(*region).mean(), atol=0.5)


def test_tissue_is_where_the_mean_colour_is_dark(slide):
    mask = tissue_mask(slide)
    assert mask.shape == (16, 23)
    np.testing.assert_array_equal(mask, is_tissue(cv2.resize(slide.thumbnail, (23, 16), interpolation=cv2.INTER_AREA)))
    assert mask[8, 11]
    assert not mask[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert tissue_mask(slide, 0.3).shape == (1667, 2500)  # finer than the thumbnail


def test_tiles_lie_on_an_exact_grid_row_by_row(slide):
    tiles = slide_tiles(slide, 50, 4.03, min_tissue=0)
    step = 50 * 4.03 / 0.25
    assert len(tiles) == int(3000 / step) * int(2000 / step)
    assert tiles["x"].tolist() == [0, 806, 1612] * 2
    assert tiles["y"].tolist() == [0] * 3 + [806] * 3
    fine = slide_tiles(slide, 25, 0.333, min_tissue=0)
    first = fine[fine["y"] == 0]
    assert {33, 34} == {*first["width"]}
    np.testing.assert_array_equal(first["x"] + first["width"], [*first["x"][1:], round(90 * 33.3)])
    assert (
        slide_tiles(slide, (100, 50), 4.0, min_tissue=0)[["width", "height"]].to_numpy().tolist() == [[800, 1600]] * 3
    )


def test_the_share_of_tissue_of_a_tile_is_that_of_its_area(tmp_path):
    classes = np.zeros((8, 8), int)
    classes[:, 3:] = 1  # from 384 of 1024 px on: three quarters of the second of the tiles of 256 px
    write_slide(tmp_path / "half.tif", 1024, 1024, cell=128, classes=classes, levels=(1,))
    with open_slide(tmp_path / "half.tif") as opened:
        tiles = slide_tiles(opened, 64, 1.0, min_tissue=0)
        np.testing.assert_allclose(tiles["tissue"], [0, 0.5, 1, 1] * 4, atol=0.01)
        assert slide_tiles(opened, 64, 1.0)["x"].tolist() == [256, 512, 768] * 4
        np.testing.assert_allclose(next(read_tiles(opened, tiles[3:4], (64, 64))).mean(axis=(0, 1)), COLOURS[1], atol=3)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_tiles_are_those_of_the_whole_image_resampled(pyramid, slide, n_jobs):
    tiles = slide_tiles(slide, 50, 2.0)
    pixels = np.stack(list(read_tiles(slide, tiles, (50, 50), n_jobs=n_jobs)))
    assert pixels.shape == (len(tiles), 50, 50, 3)
    want = by_hand(tifffile.imread(pyramid, level=0), tiles, 0.25 / 2.0)
    np.testing.assert_allclose(pixels.mean(axis=(1, 2)) / 255, want / 255, atol=0.01)


def test_tiles_of_a_real_slide_are_those_of_the_whole_image_resampled(real_data):
    path = real_data / "slides" / "CMU-1-Small-Region.svs"
    with Image.open(path) as image:
        whole = np.asarray(image.convert("RGB"))
    with open_slide(path) as opened:
        assert (opened.mpp, opened.width, opened.height) == (0.499, 2220, 2967)
        tiles = slide_tiles(opened, 50, 4.0)
        pixels = np.stack(list(read_tiles(opened, tiles, (50, 50))))
    assert len(tiles) == 23
    np.testing.assert_allclose(pixels.mean(axis=(1, 2)) / 255, by_hand(whole, tiles, 0.499 / 4) / 255, atol=0.002)


def test_slides_are_known_by_name_or_header(tmp_path, pyramid):
    assert is_slide(pyramid)
    (tmp_path / "a.SVS").write_bytes(b"")
    (tmp_path / "cut.tif").write_bytes(pyramid.read_bytes()[:200])
    tifffile.imwrite(tmp_path / "plain.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb")
    found = [is_slide(tmp_path / name) for name in ("a.SVS", "missing.svs", "cut.tif", "plain.tif", "missing.tif")]
    assert found == [True, False, False, False, False]
    assert not is_slide(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.svs", "missing.svs: expected an image file, found no such file. Check the path."),
        ("", "expected a readable image file, got a folder. Correct the path."),
        ("patch.png", "expected a whole slide, got a damaged file or one of another format .* predict_images"),
        ("text.svs", "expected a whole slide, got a damaged file or one of another format .* Copy it again; images"),
        ("flat.tif", "expected a whole slide, got a damaged file or one of another format .* predict_images"),
        ("beheaded.tif", "expected a whole slide, got a damaged file or one of another format .* Copy it again"),
    ],
)
def test_files_that_are_no_slides_are_named(tmp_path, pyramid, name, words):
    Image.new("RGB", (50, 50)).save(tmp_path / "patch.png")
    (tmp_path / "text.svs").write_text("no slide\n")
    tifffile.imwrite(tmp_path / "flat.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb")
    (tmp_path / "beheaded.tif").write_bytes(pyramid.read_bytes()[:1000])
    with pytest.raises(PatchError, match=words):
        open_slide(tmp_path / name)


def test_damaged_pixels_name_the_level(tmp_path, pyramid):
    content = bytearray(pyramid.read_bytes())
    with tifffile.TiffFile(pyramid) as tiff:
        start = tiff.pages[2].dataoffsets[0]
    content[start : start + 50] = bytes(50)
    (tmp_path / "broken.tif").write_bytes(content)
    with open_slide(tmp_path / "broken.tif") as broken:
        assert broken.read(0, 0, 800, 800, 1.0).shape == (200, 200, 3)
        with pytest.raises(
            PatchError, match=r"whole slide, got damaged pixels in level 2 \(.*\)\. Copy the file again"
        ):
            broken.read(0, 0, 800, 800, 4.0)


def read_all(path):
    with open_slide(path, mpp=0.25) as opened:
        for mpp in (0.25, 1.0, 4.0):
            opened.read(0, 0, opened.width, opened.height, mpp)


def test_a_cut_off_slide_is_named_when_it_is_opened_or_read(tmp_path, pyramid):
    content = pyramid.read_bytes()
    for share in (0.3, 0.6, 0.9):
        (tmp_path / "cut.tif").write_bytes(content[: int(len(content) * share)])
        with pytest.raises(PatchError, match=r"cut.tif: expected a whole slide, got (a )?damaged"):
            read_all(tmp_path / "cut.tif")


def test_a_slide_without_scale_needs_one(tmp_path):
    path = tmp_path / "unscaled.tif"
    write_slide(path, 1000, 800, cell=128, levels=(1, 4), mpp=None)
    with open_slide(path) as unknown:
        assert unknown.mpp is None
        assert unknown.thumbnail.shape == (800, 1000, 3)
        for work in (
            lambda: unknown.read(0, 0, 9, 9, 1.0),
            lambda: tissue_mask(unknown),
            lambda: slide_tiles(unknown, 50, 1),
        ):
            with pytest.raises(PatchError, match=r"states its scale, got None. Give mpp=0.25, its micrometres"):
                work()
    with open_slide(path, mpp=0.5) as known:
        assert known.read(0, 0, 1000, 800, 5.0).shape == (80, 100, 3)


def test_the_resolution_of_a_screen_is_no_scale(tmp_path):
    write_slide(tmp_path / "screen.tif", 1000, 800, cell=128, levels=(1,), mpp=25_400 / 72)
    with open_slide(tmp_path / "screen.tif") as opened:
        assert opened.mpp is None


def test_a_given_scale_is_taken_before_that_of_the_file(pyramid):
    with open_slide(pyramid, mpp=0.5) as opened:
        assert opened.mpp == 0.5
    with open_slide(pyramid, mpp=float("nan")) as opened:
        assert opened.mpp == 0.25, "an unknown scale is that of the file"
    with pytest.raises(
        ValueError, match=r"mpp: expected numbers above 0, at most 1,000, got \[-1.0\]\. Give the micrometres per pixel"
    ):
        open_slide(pyramid, mpp=-1)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (
            (50, 40.0),
            PatchError,
            r"one tile, 2000 x 2000 micrometres, got '750 x 500 micrometres'\. Correct mpp \(--mpp\)",
        ),
        ((50, 0.004), PatchError, r"tiles of at least one pixel of the slide, got '0.8 px'\. Correct mpp \(--mpp\)"),
        ((50, 0), ValueError, "mpp: expected a number above 0, got 0"),
        ((0, 4.0), ValueError, "size_px: expected a side, or height and width, in px, got 0"),
        (((50, 50, 3), 4.0), ValueError, "size_px: expected a side, or height and width, in px"),
        ((50, 4.0, 2), ValueError, "min_tissue: expected a number from 0 to 1, got 2. Use 0.1"),
    ],
)
def test_tiles_that_cannot_be_laid_are_refused(slide, arguments, error, words):
    with pytest.raises(error, match=words):
        slide_tiles(slide, *arguments)


def test_a_slide_without_tissue_says_how_much_was_found(tmp_path):
    write_slide(tmp_path / "empty.tif", 1000, 800, cell=128, levels=(1,), classes=np.zeros((7, 8), int))
    with open_slide(tmp_path / "empty.tif") as opened:
        with pytest.raises(
            PatchError, match=r"expected tiles of 0.1 tissue or more, got 0.0\. Give a smaller min_tissue"
        ):
            slide_tiles(opened, 50, 1.0)
        assert len(slide_tiles(opened, 50, 1.0, min_tissue=0)) == 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 0, 0, 9, 1.0), "width: expected a number above 0, got 0"),
        ((0, 0, 9, -1, 1.0), "height: expected a number above 0, got -1"),
        ((0, 0, 9, 9, 0), "mpp: expected a number above 0, got 0"),
        ((0, 0, 90_000, 90_000, 0.25), r"Slide.read: expected a result of at most 50,000,000 px, got \(90000, 90000\)"),
    ],
)
def test_regions_that_cannot_be_read_are_refused(slide, arguments, words):
    with pytest.raises(ValueError, match=words):
        slide.read(*arguments)


def test_tiffslide_stands_in_for_openslide(pyramid, monkeypatch):
    class TiffSlide(openslide.OpenSlide):
        properties = property(lambda self: {"tiffslide.mpp-x": 0.25, "tiffslide.mpp-y": 0.25})

    TiffSlide.__module__ = "tiffslide"
    other = types.ModuleType("tiffslide")
    other.__spec__, other.TiffSlide = importlib.machinery.ModuleSpec("tiffslide", None), TiffSlide
    monkeypatch.setitem(sys.modules, "tiffslide", other)
    monkeypatch.setitem(sys.modules, "openslide", None)
    with open_slide(pyramid) as opened:
        assert opened.mpp == 0.25
        assert opened.read(0, 0, 800, 800, 4.0).shape == (50, 50, 3)
    monkeypatch.setitem(sys.modules, "tiffslide", None)
    with pytest.raises(MissingExtraError, match=r'the package openslide .* pip install "histofeat\[slides\]"'):
        open_slide(pyramid)
