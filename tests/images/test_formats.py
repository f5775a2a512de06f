"""Formats, depths and layouts on which readers disagree: each is decoded right, or refused by a sentence."""

import io
import itertools
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from histofeat.exceptions import PatchError
from histofeat.features import extract, make_family
from histofeat.images import MAX_PIXELS, _decoding, _reading as reading, decode_patch, image_size, png_size, read_patch

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (5, 7, 3), dtype=np.uint16)
EIGHT = ((DEEP.astype(np.int64) + 128) // 257).astype(np.uint8)
ORIENTATIONS = range(1, 9)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(array, color, depth=8, *extra, after=()):
    """PNG of samples (H, W) or (H, W, C), which may have fewer than 8 bits; `extra` chunks stand before the pixels."""
    if depth < 8:
        bits = np.unpackbits(array.astype(np.uint8)[..., None], axis=-1)[..., -depth:].reshape(len(array), -1)
        rows = [np.packbits(row).tobytes() for row in bits]
    else:
        rows = [row.tobytes() for row in array.astype(">u2" if depth == 16 else np.uint8)]
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], depth, color, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", pixels), *after, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def saved(array, kind, mode=None, **options):
    buffer = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation):
    found = Image.Exif()
    found[274] = orientation
    return found


def turned(array, orientation):
    """What Pillow makes of the array: the witness of our own turn."""
    image = Image.fromarray(array)
    image.getexif()[274] = orientation
    return np.array(ImageOps.exif_transpose(image))


def set_tag(content, code, value, kind="H"):
    """The TIFF with another value of one short tag of its first page."""
    changed = bytearray(content)
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        struct.pack_into(file.byteorder + kind, changed, file.pages.first.tags[code].valueoffset, value)
    return bytes(changed)


def refuses(content, message, **options):
    with pytest.raises(PatchError, match=f"^image: {message}"):
        decode_patch(content, **options)


# PNG


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_pngs_of_few_bits_are_scaled(depth):
    levels = RNG.integers(0, 2**depth, (5, 9), dtype=np.uint8)
    patch, rules = decode_patch(png(levels, 0, depth))
    assert rules == ("gray",)
    np.testing.assert_array_equal(patch[..., 0], levels * (255 // (2**depth - 1)))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palettes_of_all_depths_are_looked_up(depth):
    colors = RNG.integers(0, 256, (2**depth, 3), dtype=np.uint8)
    numbers = RNG.integers(0, 2**depth, (5, 9), dtype=np.uint8)
    patch, rules = decode_patch(png(numbers, 3, depth, chunk(b"PLTE", colors.tobytes())))
    assert rules == ("palette",)
    np.testing.assert_array_equal(patch, colors[numbers])


def test_colors_of_a_palette_may_be_clear():
    colors, numbers = np.arange(12, dtype=np.uint8), np.array([[0, 1, 2, 3]], dtype=np.uint8)
    content = png(numbers, 3, 8, chunk(b"PLTE", colors.tobytes()), chunk(b"tRNS", b"\0\xff"))
    patch, rules = decode_patch(content)
    assert rules == ("palette", "alpha")
    assert patch[0].tolist() == [[255, 255, 255], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


def test_every_level_of_sixteen_bits_is_rounded():
    levels = np.arange(1 << 16)
    patch, rules = decode_patch(png(levels.reshape(256, 256), 0, 16))
    assert rules == ("16-bit", "gray")
    np.testing.assert_array_equal(patch[..., 0].ravel(), (levels + 128) // 257)


def test_a_palette_that_is_too_short_is_refused():
    numbers = np.array([[0, 4]], dtype=np.uint8)
    message = r"expected a palette of 5 colours, got 3\. Save the image again"
    refuses(png(numbers, 3, 8, chunk(b"PLTE", bytes(9))), message)
    palette = Image.fromarray(numbers).convert("P")
    palette.putpalette(list(range(9)))
    refuses(saved(palette, "BMP"), message)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_sixteen_bit_pngs_are_turned(orientation):
    content = png(DEEP, 2, 16, chunk(b"eXIf", exif(orientation).tobytes()[6:]))
    patch, rules = decode_patch(content)
    assert rules == (("turned",) if orientation > 1 else ()) + ("16-bit",)
    np.testing.assert_array_equal(patch, turned(EIGHT, orientation))


def raw_profile(kind, name, orientation):
    data = exif(orientation).tobytes()
    text = f"\n{name}\n{len(data):8}\n{data[:9].hex()}\n{data[9:].hex()}\n".encode()
    body = b"\0" + zlib.compress(text) if kind == b"zTXt" else text
    return chunk(kind, f"Raw profile type {name}".encode() + b"\0" + body)


@pytest.mark.parametrize(
    "turning",
    [
        chunk(b"eXIf", exif(6).tobytes()[6:]),
        chunk(b"eXIf", exif(6).tobytes()),
        raw_profile(b"tEXt", "exif", 6),
        raw_profile(b"zTXt", "exif", 6),
        raw_profile(b"tEXt", "exif", 3) + chunk(b"eXIf", exif(6).tobytes()[6:]),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_pngs_are_turned_by_exif_and_by_the_text_of_imagemagick(tmp_path, turning, late):
    content = png(RGB, 2, 8, after=[turning]) if late else png(RGB, 2, 8, turning)
    patch, rules = decode_patch(content)
    assert rules == ("turned",)
    np.testing.assert_array_equal(patch, turned(RGB, 6))
    (tmp_path / "a.png").write_bytes(content)
    assert image_size(str(tmp_path / "a.png")) == png_size(str(tmp_path / "a.png")) == (7, 5)


@pytest.mark.parametrize(
    "nothing",
    [
        chunk(b"eXIf", b"garbage"),
        chunk(b"eXIf", exif(9).tobytes()[6:]),
        chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 3\nxyz"),
        chunk(b"zTXt", b"Raw profile type exif\0\0no zlib"),
        chunk(b"tEXt", b"Comment\0Raw profile type exif"),
    ],
)
def test_what_is_no_orientation_turns_nothing(tmp_path, nothing):
    patch, rules = decode_patch(png(RGB, 2, 8, nothing))
    assert rules == ()
    np.testing.assert_array_equal(patch, RGB)
    (tmp_path / "a.png").write_bytes(png(RGB, 2, 8, nothing))
    assert png_size(str(tmp_path / "a.png")) == (5, 7)


def test_the_size_of_a_large_png_takes_its_last_chunks_into_account(tmp_path):
    large = RNG.integers(0, 256, (60, 70, 3), dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(png(large, 2, 8, after=[chunk(b"eXIf", exif(8).tobytes()[6:])]))
    assert (tmp_path / "a.png").stat().st_size > 1 << 13
    assert image_size(str(tmp_path / "a.png")) == read_patch(tmp_path / "a.png").shape[:2] == (70, 60)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_color_becomes_white_at_any_depth(depth):
    pixels, right = (RGB, RGB) if depth == 8 else (DEEP, EIGHT)
    key = struct.pack(">HHH", *(int(level) for level in pixels[2, 3]))
    patch, rules = decode_patch(png(pixels, 2, depth, chunk(b"tRNS", key)))
    assert rules == (("16-bit",) if depth == 16 else ()) + ("alpha",)
    assert patch[2, 3].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(np.delete(patch.reshape(-1, 3), 17, 0), np.delete(right.reshape(-1, 3), 17, 0))


@pytest.mark.parametrize(("depth", "grey"), [(1, [0, 1]), (4, [3, 7]), (8, [9, 90]), (16, [300, 60000])])
def test_a_transparent_grey_becomes_white_at_any_depth(depth, grey):
    patch, rules = decode_patch(png(np.array([grey]), 0, depth, chunk(b"tRNS", struct.pack(">H", grey[0]))))
    assert rules == (("16-bit",) if depth == 16 else ()) + ("alpha",)
    other = round(grey[1] * 255 / (2**depth - 1))
    assert patch.tolist() == [[[255] * 3, [other] * 3]]


def test_sixteen_bit_alpha_is_a_mixture_with_white():
    pixels = np.array([[[0, 25700, 65535, 32896], [1, 2, 3, 65535]]])
    patch, rules = decode_patch(png(pixels, 6, 16))
    assert rules == ("16-bit", "alpha")
    assert patch.tolist() == [[[127, 177, 255], [0, 0, 0]]]
    patch, rules = decode_patch(png(pixels[..., [1, 3]], 4, 16))
    assert rules == ("16-bit", "alpha")
    assert patch.tolist() == [[[177] * 3, [0] * 3]]


def test_the_still_picture_of_an_animated_png_is_used():
    frames = [Image.fromarray(255 - RGB), Image.fromarray(RGB // 2)]
    content = saved(RGB, "PNG", save_all=True, append_images=frames, default_image=True)
    patch, rules = decode_patch(content)
    assert rules == ("first page",)
    np.testing.assert_array_equal(patch, RGB)


@pytest.mark.parametrize("color", [0, 2, 3, 4, 6])
def test_every_checksum_of_a_png_counts(color):
    channels = {0: (), 2: (3,), 3: (), 4: (2,), 6: (4,)}[color]
    pixels = RNG.integers(0, 200, (5, 7, *channels), dtype=np.uint8)
    content = png(pixels, color, 8, chunk(b"PLTE", bytes(600)) if color == 3 else b"", chunk(b"tIME", bytes(7)))
    assert decode_patch(content)[0].shape == (5, 7, 3)
    for kind in [b"IHDR", b"tIME", b"IDAT", b"IEND", *([b"PLTE"] if color == 3 else [])]:
        at = content.index(kind) + 4
        length = int.from_bytes(content[at - 8 : at - 4], "big")
        changed = bytearray(content)
        changed[at + length] ^= 1  # the checksum
        refuses(bytes(changed), f"expected a whole image.*wrong checksum of chunk {kind.decode()}")


def test_a_png_whose_checksums_hold_but_that_lacks_rows_is_refused():
    header = struct.pack(">IIBBBBB", 7, 10, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in RGB[..., 0]))
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    refuses(content, "expected a whole image.*pixels cannot be decoded")


def test_bytes_after_the_end_of_a_png_are_not_looked_at():
    patch, rules = decode_patch(png(RGB, 2) + b"more")
    assert rules == ()
    np.testing.assert_array_equal(patch, RGB)


def test_other_pngs_are_refused():
    refuses(png(RGB, 2, 8, chunk(b"CgBI", bytes(4))), "expected a PNG of known parts, got CgBI")
    refuses(b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""), "expected a whole image.*does not begin with a header")
    refuses(png(np.zeros((0, 4)), 0), "expected at least one pixel, got 4 x 0 px. Remove the file")
    refuses(png(RGB, 2)[:-3], "expected a whole image.*its end is missing")


# Size


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "LZW"])
def test_one_limit_of_pixels_holds_for_all_formats(tmp_path, kind):
    options = {"compression": "tiff_lzw"} if kind == "LZW" else {}
    content = saved(RGB, "TIFF" if options else kind, **options)
    (tmp_path / "a").write_bytes(content)
    assert decode_patch(content, max_pixels=35)[0].shape == read_patch(tmp_path / "a", max_pixels=35).shape
    assert image_size(str(tmp_path / "a"), max_pixels=35) == (5, 7)
    refuses(
        content, r"expected at most 34 px .*got 7 x 5 px .*too large for one image: cut it into tiles", max_pixels=34
    )
    with pytest.raises(PatchError, match="cut it into tiles"):
        read_patch(tmp_path / "a", max_pixels=34)
    assert image_size(str(tmp_path / "a"), max_pixels=34) == "is too large for one image (7 x 5 px): cut it into tiles"


def test_a_header_alone_is_enough_to_refuse_a_large_image(tmp_path):
    side = 100_000
    header = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    page = tiff(RGB[..., 0])
    webp = bytearray(saved(RGB, "WEBP", lossless=True))
    webp[21:25] = struct.pack("<I", (16382 << 14) | 16382)
    bmp = bytearray(saved(RGB, "BMP"))
    bmp[18:26] = struct.pack("<II", side, side)
    jpeg = bytearray(saved(RGB, "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
    for content in (bomb, set_tag(set_tag(page, 256, 60000), 257, 60000), bytes(webp), bytes(bmp), bytes(jpeg)):
        refuses(content, "expected at most 50,000,000 px .*cut it into tiles")
        (tmp_path / "a").write_bytes(content)
        assert image_size(str(tmp_path / "a")).startswith("is too large for one image")


def test_deep_pixels_count_by_their_bytes():
    rgba = np.dstack([DEEP, DEEP[..., :1]])
    assert decode_patch(png(rgba, 6, 16), max_pixels=70)[0].shape == (5, 7, 3)
    refuses(png(rgba, 6, 16), r"expected at most 69 px \(4 bytes each.*\(8 bytes each\)", max_pixels=69)
    refuses(png(np.zeros((1, 1_000_001)), 0, 1), "expected at most .*1,000,000 a side")
    assert MAX_PIXELS == 50_000_000


# TIFF


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("pixels", [RGB, DEEP], ids=["8", "16"])
@pytest.mark.parametrize("more", [{}, {"rowsperstrip": 2}, {"tile": (16, 16)}, {"byteorder": ">"}], ids=str)
def test_rgb_tiffs_come_back_to_the_bit(compression, planar, pixels, more):
    stored = np.moveaxis(pixels, 2, 0) if planar == "separate" else pixels
    content = tiff(stored, photometric="rgb", planarconfig=planar, compression=compression, **more)
    decoded = [decode_patch(content) for _ in range(3)]
    assert {rules for _, rules in decoded} == {("16-bit",) if pixels is DEEP else ()}
    for patch, _ in decoded:
        np.testing.assert_array_equal(patch, EIGHT if pixels is DEEP else RGB)


@pytest.mark.parametrize("compression", ["zlib", "tiff_lzw"])
def test_a_predictor_is_undone(compression):
    if compression == "zlib":
        content = tiff(DEEP, photometric="rgb", compression="zlib", predictor=True)
    else:
        content = cv2.imencode(".tiff", DEEP[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5, 317, 2])[1].tobytes()
    np.testing.assert_array_equal(decode_patch(content)[0], EIGHT)


@pytest.mark.parametrize("pixels", [RGB[..., 0], DEEP[..., 0]], ids=["8", "16"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_white_is_zero_is_inverted(pixels, compression):
    patch, rules = decode_patch(tiff(pixels, photometric="miniswhite", compression=compression))
    assert rules[-1] == "gray"
    right = 255 - (RGB if pixels.dtype == np.uint8 else EIGHT)[..., :1]
    np.testing.assert_array_equal(patch, right.repeat(3, 2))


@pytest.mark.parametrize("compression", [None, "group4", "tiff_lzw", "tiff_adobe_deflate"])
def test_bilevel_tiffs_are_black_and_white(compression):
    image = Image.fromarray(RGB[..., 0] > 100)
    patch, rules = decode_patch(saved(image, "TIFF", compression=compression))
    assert rules == ("gray",)
    np.testing.assert_array_equal(patch[..., 0] > 0, RGB[..., 0] > 100)
    assert set(np.unique(patch)) == {0, 255}


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "packbits", "tiff_adobe_deflate"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "I;16"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_tiffs_of_pillow_are_decoded_as_pillow_does(compression, mode, orientation, tmp_path):
    image = {
        "RGBA": Image.fromarray(np.dstack([RGB, np.full((5, 7), 255, np.uint8)])),
        "I;16": Image.fromarray(DEEP[..., 0]),
        "P": Image.fromarray(RGB).quantize(8),
    }.get(mode) or Image.fromarray(RGB).convert(mode)
    right = EIGHT[..., :1].repeat(3, 2) if mode == "I;16" else np.array(image.convert("RGB"))
    content = saved(image, "TIFF", compression=compression, tiffinfo={274: orientation})
    patch, rules = decode_patch(content)
    known = {"L": {"gray"}, "RGBA": {"alpha"}, "P": {"palette"}, "CMYK": {"CMYK"}, "I;16": {"16-bit", "gray"}}
    assert set(rules) == known.get(mode, set()) | ({"turned"} if orientation > 1 else set())
    np.testing.assert_array_equal(patch, turned(right, orientation))
    (tmp_path / "a.tif").write_bytes(content)
    assert image_size(str(tmp_path / "a.tif")) == patch.shape[:2]


def with_orientation(content, orientation):
    """The TIFF, little-endian, with a second directory at its end that has the tag too; the first is left unused."""
    at = struct.unpack_from("<I", content, 4)[0]
    count = struct.unpack_from("<H", content, at)[0]
    entries = [content[at + 2 + 12 * k : at + 14 + 12 * k] for k in range(count)]
    entries.append(struct.pack("<HHIHH", 274, 3, 1, orientation, 0))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry)[0])
    directory = struct.pack("<H", count + 1) + b"".join(entries) + bytes(4)
    return content[:4] + struct.pack("<I", len(content)) + content[8:] + directory


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_sixteen_bit_lzw_is_turned_once(orientation):
    content = cv2.imencode(".tiff", DEEP[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes()
    patch, rules = decode_patch(with_orientation(content, orientation))
    assert rules == (("turned",) if orientation > 1 else ()) + ("16-bit",)
    np.testing.assert_array_equal(patch, turned(EIGHT, orientation))


def test_the_alpha_of_a_tiff():
    alpha = np.full((1, 2), 128, dtype=np.uint8)
    colors = np.array([[[100, 0, 120], [20, 30, 40]]], dtype=np.uint8)
    rgba = np.dstack([colors, alpha])
    patch, rules = decode_patch(tiff(rgba, photometric="rgb", extrasamples=["unassalpha"]))
    assert (rules, patch[0, 0].tolist()) == (("alpha",), [177, 127, 187])
    patch, rules = decode_patch(tiff(rgba, photometric="rgb", extrasamples=["assocalpha"]))
    assert (rules, patch[0, 0].tolist()) == (("alpha",), [227, 127, 247])
    patch, rules = decode_patch(tiff(rgba, photometric="rgb", extrasamples=["unspecified"]))
    assert (rules, patch.tolist()) == (("extra channel",), colors.tolist())
    grey = np.dstack([colors[..., :1], alpha])
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    patch, rules = decode_patch(tiff(grey, extrasamples=["unassalpha"], **options))
    assert (rules, patch[0, 0].tolist()) == (("alpha",), [177] * 3)
    patch, rules = decode_patch(tiff(grey, extrasamples=["assocalpha"], **options))
    assert (rules, patch[0, 0].tolist()) == (("alpha", "gray"), [227] * 3)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits"])
def test_planes_of_a_single_channel_are_that_channel(compression):
    content = saved(RGB[..., 0], "TIFF", compression=compression)
    np.testing.assert_array_equal(decode_patch(set_tag(content, 284, 2))[0], RGB[..., :1].repeat(3, 2))


@pytest.mark.parametrize("more", [{}, {"rowsperstrip": 2}, {"tile": (16, 16)}, {"byteorder": ">"}], ids=str)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_planes_of_cmyk_are_its_channels(compression, more):
    inks = np.dstack([RGB, RGB[..., 1]])
    content = tiff(
        np.moveaxis(inks, 2, 0), photometric="separated", planarconfig="separate", compression=compression, **more
    )
    right = np.array(Image.fromarray(inks, "CMYK").convert("RGB"))
    np.testing.assert_array_equal(decode_patch(content)[0], right)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_tiffs_of_few_bits_are_scaled(photometric, compression, depth):
    levels = RNG.integers(0, 2**depth, (5, 8), dtype=np.uint8)
    packed = np.packbits(np.unpackbits(levels[..., None], axis=-1)[..., -depth:].reshape(5, -1), axis=1)
    content = tiff(packed, photometric=photometric, compression=compression)
    patch, rules = decode_patch(set_tag(set_tag(content, 258, depth), 256, 8))
    right = levels * (255 // (2**depth - 1))
    assert rules == ("gray",)
    np.testing.assert_array_equal(patch[..., 0], right if photometric == "minisblack" else 255 - right)


def test_a_palette_of_eight_bits_is_known_in_packed_pages():
    image = Image.fromarray(RGB).quantize(8)
    content = bytearray(saved(image, "TIFF", compression="tiff_lzw"))
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        at = file.pages.first.tags[320].valueoffset
    content[at : at + 1536] = (np.frombuffer(content[at : at + 1536], "<u2") // 256).astype("<u2").tobytes()
    np.testing.assert_array_equal(decode_patch(bytes(content))[0], np.array(image.convert("RGB")))


def test_a_palette_of_eight_bits_is_known():
    colors = np.zeros((3, 256), dtype=np.uint16)
    colors[:, 1] = 10, 20, 255
    numbers = np.array([[0, 1]], dtype=np.uint8)
    for scale, right in ((1, [10, 20, 255]), (256, [10, 20, 255])):
        patch, rules = decode_patch(tiff(numbers, photometric="palette", colormap=colors * scale))
        assert (rules, patch.tolist()) == (("palette",), [[[0, 0, 0], right]])


def test_jpegs_in_tiffs():
    content = saved(RGB, "TIFF", compression="jpeg", quality=100)
    patch, rules = decode_patch(content)
    assert rules == ()
    np.testing.assert_allclose(patch, RGB, atol=12)


@pytest.mark.parametrize(
    ("array", "options", "got"),
    [
        (RGB[..., 0].astype(np.int8), {}, "int8"),
        (DEEP.astype(np.int16), {"photometric": "rgb"}, "int16"),
        (RGB.astype(np.uint32), {"photometric": "rgb"}, "uint32"),
        ((RGB / 255).astype(np.float16), {"photometric": "rgb"}, "float16"),
        ((RGB / 255).astype(np.float32), {"photometric": "rgb"}, "float32"),
        (RGB[..., 0] / 255, {}, "float64"),
    ],
)
def test_other_numbers_are_refused_with_what_to_do(array, options, got):
    refuses(tiff(array, **options), rf"expected 8 or 16 bits a channel, without sign, got {got}\. Scale the pixels")


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (tiff(RGB[..., :2], photometric="minisblack", planarconfig="contig"), "2 channels of 8 bits, minisblack, none"),
        (tiff(RGB, photometric="minisblack", planarconfig="contig"), "3 channels of 8 bits, minisblack"),
        (tiff(np.dstack([RGB, RGB]), photometric="rgb", planarconfig="contig"), None),
        (tiff(np.dstack([DEEP, DEEP[..., :1]]), photometric="separated"), "4 channels of 16 bits, separated"),
        (set_tag(tiff(RGB, photometric="rgb"), 262, 8), "3 channels of 8 bits, cielab"),
        (set_tag(tiff(RGB, photometric="rgb"), 262, 6), "3 channels of 8 bits, ycbcr"),
        (set_tag(tiff(RGB, photometric="rgb"), 259, 34925), "3 channels of 8 bits, rgb, lzma"),
        (set_tag(tiff(DEEP[..., 0], photometric="miniswhite"), 259, 5), "1 channels of 16 bits, miniswhite, lzw"),
    ],
)
def test_layouts_that_no_reader_is_right_about_are_refused(content, got):
    if got is None:  # three channels more, which say that they are no alpha
        np.testing.assert_array_equal(decode_patch(content)[0], RGB)
    else:
        refuses(content, f"expected grey, RGB, palette or CMYK pixels, got {got}")


@pytest.mark.parametrize(
    "options",
    [
        {"ome": True, "metadata": {"axes": "CYX"}},
        {"imagej": True, "metadata": {"axes": "CYX", "mode": "composite"}},
        {"metadata": None},
    ],
)
def test_grey_pages_that_may_be_channels_are_refused(options):
    planes = np.moveaxis(RGB, 2, 0)
    content = tiff(planes, photometric="minisblack", **options)
    refuses(content, "expected one image, got 3 grey pages of one size.*Save it as one page of RGB")


def test_pages_of_color_give_the_first_and_a_thumbnail_is_refused():
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(RGB, photometric="rgb")
        writer.write(RGB[:2, :2], photometric="rgb", subfiletype=1)
        writer.write(RGB[..., 0] > 9, subfiletype=4)
    patch, rules = decode_patch(buffer.getvalue())
    assert rules == ("first page",)
    np.testing.assert_array_equal(patch, RGB)
    for first, kind in ((RGB[:2, :2], 0), (RGB, 1)):
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer) as writer:
            writer.write(first, photometric="rgb", subfiletype=kind)
            writer.write(RGB, photometric="rgb")
        refuses(buffer.getvalue(), r"expected the image on the first page, got a thumbnail of \d x \d px")


def test_damaged_tiffs_are_refused(tmp_path):
    plain, deflated = tiff(RGB, photometric="rgb"), tiff(RGB, photometric="rgb", compression="zlib", rowsperstrip=2)
    refuses(plain[:-1], "expected a whole image.*strips are missing")
    refuses(set_tag(plain, 279, 50, "I"), "expected a whole image.*a strip is too short")
    refuses(set_tag(plain, 279, 0, "I"), "expected a whole image.*strips are missing")
    one_strip = set_tag(plain, 278, 6)
    refuses(set_tag(one_strip, 257, 6), "expected a whole image.*a strip is too short")
    refuses(set_tag(plain, 257, 6), "expected a whole image.*strips are missing")
    refuses(set_tag(deflated, 257, 8), "expected a whole image.*strips are missing")
    with tifffile.TiffFile(io.BytesIO(deflated)) as file:
        end = file.pages.first.dataoffsets[0] + file.pages.first.databytecounts[0]
        next_page = file.pages.next_page_offset
    wrong = bytearray(deflated)
    wrong[end - 1] ^= 1
    refuses(bytes(wrong), "expected a whole image.*incorrect data check")
    wrong = bytearray(plain)
    struct.pack_into("<I", wrong, next_page, 0)
    with tifffile.TiffFile(io.BytesIO(plain)) as file:
        struct.pack_into("<I", wrong, file.pages.next_page_offset, 1 << 21)
    refuses(bytes(wrong), "expected a whole image.*a page lies beyond its end")
    refuses(b"II*\0", "expected a whole image")
    (tmp_path / "a.tif").write_bytes(plain.replace(struct.pack("<HHI", 257, 4, 1), struct.pack("<HHI", 257, 7, 1)))
    assert image_size(str(tmp_path / "a.tif")) == "has a broken header"
    refuses((tmp_path / "a.tif").read_bytes(), "expected a whole image")


def test_deflated_strips_are_not_inflated_without_bound():
    bomb = bytearray(tiff(np.zeros((4, 4), np.uint8), compression="zlib"))
    data = zlib.compress(bytes(1 << 26))
    bomb = set_tag(set_tag(bytes(bomb), 273, len(bomb), "I"), 279, len(data), "I") + data
    refuses(bomb, "expected a whole image.*a strip has no end")
    tiles = tiff(np.zeros((16, 16), np.uint8), compression="zlib", tile=(16, 16))
    refuses(set_tag(set_tag(tiles, 322, 60000), 323, 60000), "expected at most 50,000,000 px")


def test_a_strip_may_say_that_it_has_all_rows():
    content = set_tag(tiff(RGB, photometric="rgb", compression="zlib", rowsperstrip=5), 278, 65535)
    np.testing.assert_array_equal(decode_patch(content)[0], RGB)


# WebP, JPEG, BMP


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", ["WEBP", "JPEG"])
def test_webp_and_jpeg_are_turned(tmp_path, kind, orientation):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0}
    content = saved(RGB, kind, exif=exif(orientation), **options)
    patch, rules = decode_patch(content)
    assert rules == (("turned",) if orientation > 1 else ())
    np.testing.assert_array_equal(patch, turned(decode_patch(saved(RGB, kind, **options))[0], orientation))
    (tmp_path / "a.png").write_bytes(content)
    assert image_size(str(tmp_path / "a.png")) == patch.shape[:2]


def test_webps_of_all_kinds_are_those_of_pillow():
    rgba = np.dstack([RGB, np.full((5, 7), 255, np.uint8)])
    for pixels, lossless in itertools.product((RGB, rgba), (True, False)):
        content = saved(pixels, "WEBP", lossless=lossless)
        patch, _ = decode_patch(content)
        np.testing.assert_array_equal(patch, np.array(Image.open(io.BytesIO(content)).convert("RGB")))
    content = saved(RGB, "WEBP", save_all=True, append_images=[Image.fromarray(255 - RGB)], lossless=True)
    patch, rules = decode_patch(content)
    assert rules == ("first page",)
    np.testing.assert_array_equal(patch, RGB)
    refuses(content[:-2], "expected a whole image.*its end is missing")
    refuses(content[:12] + b"VP9 " + content[16:], "expected a whole image.*its first chunk is unknown")


def test_a_jpeg_with_broken_exif_is_upright():
    patch, rules = decode_patch(saved(RGB, "JPEG", exif=b"Exif\0\0garbage"))
    assert (patch.shape, rules) == ((5, 7, 3), ())


def test_a_jpeg_of_very_many_scans_is_refused():
    content = saved(RGB, "JPEG", progressive=True)
    scans = content.count(b"\xff\xda")
    assert decode_patch(content)[0].shape == (5, 7, 3)
    refuses(content + b"\xff\xda" * (101 - scans), "expected a JPEG of at most 100 scans, got 101. Save it again")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "I;16"])
def test_large_images_come_from_pillow_in_bands(monkeypatch, mode):
    image = {"I;16": Image.fromarray(DEEP[..., 0])}.get(mode) or Image.fromarray(RGB).convert(mode)
    content = saved(image, "TIFF", compression="tiff_lzw")
    whole = decode_patch(content)[0]
    monkeypatch.setattr(_decoding, "_BAND_PX", 15)
    np.testing.assert_array_equal(decode_patch(content)[0], whole)


def test_modes_that_no_rule_knows_are_refused():
    from histofeat.images._decoding import _from_pillow
    from histofeat.images._headers import Unusable

    with pytest.raises(Unusable, match="expected grey, RGB, palette or CMYK pixels, got Pillow mode 'F'"):
        _from_pillow(Image.new("F", (2, 2)))


# Errors and warnings


NO_MEMORY = cv2.error("Failed to allocate 9 bytes")
NO_MEMORY.code = -4


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (cv2.error("too odd\nfor OpenCV"), r"image: expected a whole image, got .* bytes \(too odd\)"),
        (ZeroDivisionError(), r"image: expected a whole image, got .* bytes \(ZeroDivisionError\)"),
        (NO_MEMORY, "image: expected an image that fits into memory, got one that does not. Cut it into tiles"),
        (MemoryError(), "image: expected an image that fits into memory, got one that does not. Cut it into tiles"),
    ],
)
def test_whatever_a_decoder_raises_is_a_patch_error(monkeypatch, error, message):
    def fail(*_):
        raise error

    monkeypatch.setattr(reading, "decode_pixels", fail)
    with pytest.raises(PatchError, match=message):
        decode_patch(png(RGB, 2))


def test_sixteen_bit_images_of_twelve_bits_are_counted_and_warned_of(tmp_path):
    dark = tiff(DEEP >> 4, photometric="rgb")
    assert decode_patch(dark)[1] == ("dark 16-bit", "16-bit")
    (tmp_path / "a.tif").write_bytes(dark)
    (tmp_path / "b.tif").write_bytes(tiff(DEEP, photometric="rgb"))
    read_patch(tmp_path / "b.tif")
    with pytest.warns(UserWarning, match=r"a\.tif: 16-bit pixels of at most 4,095 of 65,535, .*scale them to 8 bits"):
        read_patch(tmp_path / "a.tif")
    with pytest.warns(UserWarning, match="1 of 2 images: 16-bit pixels of at most 4,095"):
        found = extract([make_family("color")], [tmp_path / "a.tif", tmp_path / "b.tif"])
    assert found.conversions == {"dark 16-bit": 1, "16-bit": 2}


MEASURE = """
import sys
from histofeat.images import decode_patch
from pathlib import Path

def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

small, large = (Path(path).read_bytes() for path in sys.argv[1:])
decode_patch(small)  # the decoder is loaded
Path("/proc/self/clear_refs").write_text("5")
before = kilobytes("VmRSS")
decode_patch(large)
print(1024 * (kilobytes("VmHWM") - before))
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured as Linux counts it")
@pytest.mark.parametrize(
    ("kind", "channels", "options"),
    [
        ("PNG", 3, {}),
        ("PNG", 3, {"exif": exif(6)}),
        ("PNG", 4, {}),
        ("JPEG", 3, {"exif": exif(6)}),
        ("JPEG", 3, {"progressive": True, "subsampling": 0}),
        ("BMP", 3, {}),
        ("WEBP", 3, {"method": 0}),
        ("WEBP", 4, {"method": 0}),
        ("TIFF", 3, {"tiffinfo": {274: 6}}),
        ("TIFF", 3, {"compression": "tiff_lzw"}),
        ("TIFF", 4, {"compression": "tiff_adobe_deflate"}),
    ],
    ids=lambda value: str(value).partition(" object at")[0],  # no address: each worker names the tests alike
)
def test_decoding_takes_at_most_four_times_the_bytes_of_the_image(tmp_path, kind, channels, options):
    for name, side in (("small", 8), ("large", 2400)):
        blocks = RNG.integers(0, 256, (side // 8, side // 8, channels), dtype=np.uint8)
        (tmp_path / name).write_bytes(saved(blocks.repeat(8, 0).repeat(8, 1), kind, **options))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(printed) <= 4 * 2400 * 2400 * channels
