"""Decoding: every rule of the table in `histofeat.images._decoding`, and every refusal."""

import io

import cv2
import numpy as np
import pandas as pd
import pyarrow
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from histofeat.exceptions import PatchError
from histofeat.images import Images, as_images, decode_patch, read_patch, run_ahead, table_column
from histofeat.images._decoding import to_rgb8


class Exported:
    """An array of another library, which NumPy can take over."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_plain_rgb_comes_back_to_the_bit_and_converts_nothing(kind):
    patch, rules = decode_patch(encoded(Image.fromarray(RGB), kind))
    assert rules == ()
    np.testing.assert_array_equal(patch, RGB)


def test_gray_is_repeated():
    patch, rules = decode_patch(encoded(Image.fromarray(RGB[..., 0])))
    assert rules == ("gray",)
    np.testing.assert_array_equal(patch, RGB[..., :1].repeat(3, axis=2))


def test_palette_is_looked_up():
    image = Image.fromarray(RGB).quantize(8)
    patch, rules = decode_patch(encoded(image))
    assert rules == ("palette",)
    np.testing.assert_array_equal(patch, np.array(image.convert("RGB")))


def test_transparent_pixels_become_white():
    alpha = np.full((5, 7), 255, dtype=np.uint8)
    alpha[0] = 0
    patch, rules = decode_patch(encoded(Image.fromarray(np.dstack([RGB, alpha]))))
    assert rules == ("alpha",)
    assert (patch[0] == 255).all()
    np.testing.assert_array_equal(patch[1:], RGB[1:])


def test_transparency_in_a_palette_becomes_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    patch, rules = decode_patch(encoded(image, transparency=0))
    assert rules == ("palette", "alpha")
    assert patch.tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_half_transparency_is_a_mixture_with_white():
    patch, _ = to_rgb8(np.array([[[100, 0, 200, 128]]], dtype=np.uint8))
    assert patch.tolist() == [[[177, 127, 227]]]


def test_sixteen_bits_are_scaled():
    deep = np.array([[0, 128, 129, 257, 65535]], dtype=np.uint16)
    ok, content = cv2.imencode(".png", deep)
    assert ok
    patch, rules = decode_patch(content.tobytes())
    assert rules == ("16-bit", "gray")
    assert patch[0, :, 0].tolist() == [0, 0, 1, 1, 255]


@pytest.mark.parametrize("extension", [".png", ".tiff"])
def test_sixteen_bit_color_keeps_its_channel_order(extension):
    deep = (RGB.astype(np.uint16) * 257)[..., ::-1]
    ok, content = cv2.imencode(extension, deep)
    assert ok
    patch, rules = decode_patch(content.tobytes())
    assert rules == ("16-bit",)
    np.testing.assert_array_equal(patch, RGB)


def test_sixteen_bit_gray_tiff():
    patch, rules = decode_patch(encoded(Image.fromarray(np.array([[65535, 0]], dtype=np.uint16)), "TIFF"))
    assert rules == ("16-bit", "gray")
    assert patch[0, :, 0].tolist() == [255, 0]


def test_cmyk_and_other_modes_are_converted():
    cmyk = Image.fromarray(RGB).convert("CMYK")
    patch, rules = decode_patch(encoded(cmyk, "TIFF"))
    assert rules == ("CMYK",)
    np.testing.assert_array_equal(patch, np.array(cmyk.convert("RGB")))
    _, rules = decode_patch(encoded(Image.fromarray(RGB).convert("1")))
    assert rules == ("gray",)


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.fromarray(RGB), "JPEG", exif=exif, quality=100, subsampling=0)
    patch, rules = decode_patch(content)
    assert rules == ("turned",)
    upright = decode_patch(encoded(Image.fromarray(RGB), "JPEG", quality=100, subsampling=0))[0]
    np.testing.assert_array_equal(patch, np.rot90(upright, -1))


def test_the_first_page_of_several_is_used():
    content = encoded(Image.fromarray(RGB), "TIFF", save_all=True, append_images=[Image.fromarray(255 - RGB)])
    patch, rules = decode_patch(content)
    assert rules == ("first page",)
    np.testing.assert_array_equal(patch, RGB)


def test_a_transparent_color_in_an_rgb_png_becomes_white():
    content = encoded(Image.fromarray(RGB), transparency=tuple(int(v) for v in RGB[0, 0]))
    patch, rules = decode_patch(content)
    assert rules == ("alpha",)
    assert patch[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("cut", [30, 40, 100])
def test_a_truncated_png_is_refused_by_name(tmp_path, cut, capfd):
    content = encoded(Image.fromarray(np.tile(RGB, (10, 7, 1))))
    path = tmp_path / "half.png"
    path.write_bytes(content[:-cut])
    with pytest.raises(PatchError, match=r"half\.png: expected a whole image, got a damaged or truncated file"):
        read_patch(path)


def test_a_png_with_damaged_pixels_is_refused():
    content = bytearray(encoded(Image.fromarray(np.tile(RGB, (10, 7, 1)))))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(PatchError, match="image: expected a whole image"):
        decode_patch(bytes(content))


def test_what_is_no_image_is_refused(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("not an image")
    with pytest.raises(PatchError, match=r"notes\.png: expected an image file .* got 12 bytes"):
        read_patch(path)


def test_missing_and_unreadable_files_are_refused(tmp_path):
    with pytest.raises(PatchError, match="found no such file"):
        read_patch(tmp_path / "nowhere.png")
    with pytest.raises(PatchError, match=r"expected a readable image file, got a folder\. Correct the path"):
        read_patch(tmp_path)
    with pytest.raises(PatchError, match="expected a readable image file, got embedded null byte"):
        read_patch("a\0.png")


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_thirty_two_bit_files_are_refused(dtype):
    content = encoded(Image.fromarray(np.ones((3, 3), dtype=dtype)), "TIFF")
    with pytest.raises(PatchError, match="expected 8 or 16 bits a channel"):
        decode_patch(content)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((4, 4, 3), np.nan), "got float64 with NaN of shape"),
        (np.zeros((4, 4, 3), dtype=np.float32), r"got float32 of shape \(4, 4, 3\)"),
        (np.zeros((4, 4, 2), dtype=np.uint8), r"at least one pixel, got shape \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), dtype=np.uint8), r"at least one pixel, got shape \(0, 4, 3\)"),
        (np.zeros((2, 2, 2, 3), dtype=np.uint8), r"at least one pixel, got shape \(2, 2, 2, 3\)"),
    ],
)
def test_arrays_that_are_no_patch_are_refused(array, message):
    with pytest.raises(PatchError, match=message):
        to_rgb8(array, name="X[3]")


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("a.png", "got one path"),
        (np.zeros((4, 4, 3), dtype=np.uint8), "got one patch of shape"),
        (np.zeros((4, 40), dtype=np.uint8), "Feature matrices and flattened"),
        (np.zeros((0, 4, 4, 3), dtype=np.uint8), "at least one image, got an array of shape"),
        (np.zeros((2, 4, 4, 3)), r"X\[0\]: expected uint8 \(0..255\) or uint16 pixels, got float64"),
        ([], "at least one image, got none"),
        (["a.png", 3], r"X\[1\]: expected a path, got int"),
        ([np.zeros((2, 2, 3), np.uint8), "a.png"], r"X\[1\]: expected an array"),
        (pd.DataFrame({"file": ["a"]}), r"`path` column, got the columns \['file'\]"),
        (3, "expected several images, got int. Give a one"),
        (np.zeros((4, 4, 4), dtype=np.uint8), "got one patch of shape"),
        (np.zeros((2, 4, 5)), r"X\[0\]: expected uint8 .* got float64 of shape \(4, 5\)"),
        ([np.float32(3)], r"X\[0\]: expected an array .* got float32"),
        (pyarrow.table({"file": ["a"]}), r"`path` column, got the columns \['file'\]"),
        (pyarrow.table({"path": ["a", None]}), r"X\[1\]: expected a path, got NoneType"),
        (Image.new("RGB", (4, 4)), "expected several images, got Image"),
    ],
)
def test_other_forms_of_X_are_refused(X, message):
    with pytest.raises(PatchError, match=message):
        as_images(X)


def test_every_form_of_X_gives_the_same_patches(tmp_path):
    paths = []
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.ascontiguousarray((RGB + i)[..., ::-1]))
        paths.append(tmp_path / f"{i}.png")
    arrays = np.stack([RGB, RGB + 1, RGB + 2])
    forms = [
        paths,
        [str(p) for p in paths],
        np.array([str(p) for p in paths]),
        np.array([str(p) for p in paths], dtype=object),
        pd.Series([str(p) for p in paths]),
        pd.DataFrame({"path": [str(p) for p in paths]}),
        arrays,
        list(arrays),
        as_images(arrays),
        np.array([str(p) for p in paths])[:, np.newaxis],
        pyarrow.table({"path": [str(p) for p in paths]}),
        pyarrow.chunked_array([[str(p)] for p in paths]),
        [Image.fromarray(array) for array in arrays],
        [Exported(array) for array in arrays],
        Exported(arrays),
    ]
    for form in forms:
        images = as_images(form)
        assert isinstance(images, Images)
        for i in range(3):
            np.testing.assert_array_equal(images.decode(i, images.content(i))[0], arrays[i])


def test_frames_of_polars_are_tables_and_lazy_ones_are_not():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"path": ["a.png", "b.png"], "patient": [7, None]})
    assert as_images(frame).items == as_images(frame["path"]).items == ["a.png", "b.png"]
    assert table_column(frame, "patient") == [7, None]
    assert table_column(frame["path"], "patient") is table_column(["a.png"], "patient") is None
    with pytest.raises(PatchError, match=r"X: expected a table in memory, got polars.LazyFrame, .* collect\(\)"):
        as_images(frame.lazy())


def test_a_stack_of_grey_images_is_each_of_them():
    images = as_images(np.stack([RGB[..., 0], RGB[..., 1]]))
    patch, rules = images.decode(1, images.content(1))
    assert rules == ("gray",)
    np.testing.assert_array_equal(patch, RGB[..., 1:2].repeat(3, axis=2))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_an_image_of_pillow_is_what_its_file_is(mode, tmp_path):
    image = Image.fromarray(RGB)
    image = image.convert("L") if mode in ("LA", "I;16") else image
    image = Image.fromarray(np.full((5, 7), 40_000, np.uint16)) if mode == "I;16" else image.convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    exif = Image.Exif()
    exif[0x112] = 6  # turned by 90 degrees
    image.save(path, **({} if mode == "CMYK" else {"exif": exif}))
    given = as_images([Image.open(path)])
    np.testing.assert_array_equal(given.decode(0, given.content(0))[0], read_patch(path))


def test_names_for_messages():
    assert as_images(["a.png"]).name(0) == "a.png"
    assert as_images([RGB]).name(0) == "X[0]"


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_any_png_round_trips(array):
    patch, rules = decode_patch(encoded(Image.fromarray(array)))
    assert rules == ()
    np.testing.assert_array_equal(patch, array)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_give_a_patch_or_a_sentence(content, as_png):
    try:
        patch, _ = decode_patch((b"\x89PNG\r\n\x1a\n" if as_png else b"") + content)
    except PatchError:
        return
    assert patch.dtype == np.uint8


def test_results_come_in_the_order_of_the_items_and_few_calls_are_ahead():
    begun = []

    def measure(item):
        begun.append(item)
        return item * item

    results = run_ahead(measure, range(100), n_jobs=4, ahead=3)
    assert next(results) == 0
    assert len(begun) <= 4
    assert list(results) == [item * item for item in range(1, 100)]
    assert sorted(begun) == list(range(100))


def test_the_first_error_is_raised_in_its_place_and_the_rest_is_dropped():
    begun = []

    def fail(item):
        begun.append(item)
        if item == 3:
            raise PatchError("item 3")
        return item

    found = []
    with pytest.raises(PatchError, match="item 3"):
        found.extend(run_ahead(fail, range(100), ahead=2))
    assert found == [] or found == [0, 1, 2]
    assert len(begun) < 10
