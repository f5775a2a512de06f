"""Decode images to uint8 RGB patches: the only place that decodes.

Everything that is not already 8-bit RGB is converted by a stated rule, and the name of the rule is kept so that an
extraction can count how often each was needed:

============= ========================================================================================
rule          what is done
============= ========================================================================================
gray          one channel, repeated three times; fewer than 8 bits scaled to 255, white-is-zero inverted
palette       colours looked up
alpha         composited over white, the background of a slide
extra channel a fourth channel of an RGB TIFF that is said not to be alpha is left out
16-bit        divided by 257 and rounded, so that 65,535 becomes 255
dark 16-bit   the same, of pixels that use 12 of the 16 bits or fewer, and come out all but black
CMYK          converted by Pillow's rule (no colour profile)
other mode    YCbCr in a TIFF, converted by Pillow's rule
turned        turned upright as its EXIF orientation says
first page    the first page, frame or picture of a file with several
============= ========================================================================================

Refused are damaged files, images that are too large, floating-point, signed and 32-bit pixels, whose range cannot be
known from one patch, and every layout that the readers do not agree on.
"""

from __future__ import annotations

import io
import struct
import zlib
from itertools import islice
from typing import Any

import numpy as np

from histofeat.exceptions import PatchError
from histofeat.images import _headers as headers
from histofeat.images._headers import Unusable, check_size, damaged

#: Chunks of a PNG that are decoded, and those that change no pixel for any decoder.
_PIXELS = {b"IHDR", b"IDAT", b"IEND"}
_PLAIN = _PIXELS | {b"tIME", b"pHYs"}
#: Channels in memory, by the colour type of a PNG.
_CHANNELS = {0: 1, 2: 3, 3: 4, 4: 4, 6: 4}
#: Compressions of a TIFF. Plain and deflated pages can be checked; of the other ones (CCITT, LZW, JPEG, PackBits)
#: libtiff decodes those that are listed.
_DEFLATE = (8, 32946)
_CHECKED, _PACKED = (1, *_DEFLATE), (2, 3, 4, 5, 7, 32773)
#: What a TIFF says of a channel beside the colours; 0 is anything.
_PREMULTIPLIED, _ALPHA = 1, 2
#: Pages of a TIFF that are looked at.
_PAGES = 9
#: Scans of a JPEG, each of which is a pass over its pixels; a progressive one has about ten.
_MAX_SCANS = 100
#: Modes of Pillow that it converts: to which mode, and the rule that is counted.
_CONVERTED = {"1": ("L",), "CMYK": ("RGB", "CMYK"), "YCbCr": ("RGB", "other mode")}
#: Pixels that are taken from Pillow at a time.
_BAND_PX = 1 << 20
#: Levels of 12 bits: images of 16 bits that have no more of them.
_TWELVE_BITS = 1 << 12


def decode_pixels(content: bytes, max_pixels: int) -> tuple[np.ndarray, int, tuple[str, ...]]:
    """Pixels as they are stored (`to_rgb8` takes them), orientation, and rules applied."""
    if content.startswith(headers.PNG_SIGNATURE):
        return _decode_png(content, max_pixels)
    if content.startswith(headers.TIFF):
        return _decode_tiff(content, max_pixels)
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        height, width, orientation, animated = headers.webp_header(content)
        check_size(height, width, max_pixels, 4)
        if not animated:
            return _opencv(content), orientation, ()
    elif not content.startswith((headers.JPEG, headers.BMP)):
        raise Unusable(
            f"expected an image file (PNG, JPEG, TIFF, BMP, WebP), got {len(content):,} bytes that no decoder knows. "
            "Remove or replace the file."
        )
    if content.startswith(headers.JPEG) and (n_scans := content.count(b"\xff\xda")) > _MAX_SCANS:
        raise Unusable(f"expected a JPEG of at most {_MAX_SCANS} scans, got {n_scans:,}. Save it again.")
    image = headers.open_with_pillow(io.BytesIO(content))
    check_size(image.height, image.width, max_pixels, 4)
    rules = ("first page",) if getattr(image, "n_frames", 1) > 1 else ()
    array, more = _from_pillow(image)
    return array, headers.pillow_orientation(image), (*rules, *more)


def _decode_png(content: bytes, max_pixels: int) -> tuple[np.ndarray, int, tuple[str, ...]]:
    """OpenCV decodes all PNGs: it refuses missing rows, which Pillow fills with black. The rest is told apart here."""
    chunks = list(headers.png_chunks(content))
    if chunks[0] != (b"IHDR", 16, 29):
        raise damaged(content, "it does not begin with a header")
    width, height, depth, color = struct.unpack_from(">IIBB", content, 16)
    check_size(height, width, max_pixels, max(1, depth // 8) * _CHANNELS.get(color, 4))
    kinds = {kind for kind, _, _ in chunks}
    if kinds <= _PLAIN and color != 3 and chunks[-1][2] + 4 == len(content):
        return _opencv(content, rgb=depth == 8 and color == 2), 1, ()
    if unknown := sorted(kind for kind in kinds - _PIXELS if kind[0] < 97 and kind != b"PLTE"):
        raise Unusable(f"expected a PNG of known parts, got {ascii(unknown[0])[2:-1]}. Save it again as PNG.")
    # OpenCV sees the pixels alone: a transparent colour, a turn, an animation are applied here, by one rule each. It
    # decodes the numbers of palette colours as grey.
    image = content[12:25] + (b"\0" if color == 3 else content[25:26]) + content[26:29]
    parts = [content[start - 8 : end + 4] for kind, start, end in chunks if kind in (b"IDAT", b"IEND")]
    array = _opencv(b"".join([headers.PNG_SIGNATURE, b"\0\0\0\r", image, zlib.crc32(image).to_bytes(4, "big"), *parts]))
    found = {kind: content[start:end] for kind, start, end in chunks if kind in (b"PLTE", b"tRNS")}
    # Grey of less than 8 bits comes scaled to 255.
    step = 255 // (2**depth - 1) if depth < 8 else 1
    rules = ("first page",) if b"acTL" in kinds else ()
    if color == 3:
        array, rules = _look_up(array // step, _palette(found)), (*rules, "palette")
    elif b"tRNS" in found:
        array = _with_alpha(array, np.frombuffer(found[b"tRNS"], ">u2") * step)
    others = [content[start - 8 : end + 4] for kind, start, end in chunks if kind not in _PIXELS]
    return array, headers.png_orientation(others), rules


def _palette(found: dict[bytes, bytes]) -> np.ndarray:
    """Colours of a PNG's palette (n, 3), or (n, 4) with transparency."""
    colors = np.frombuffer(found.get(b"PLTE", b""), np.uint8).reshape(-1, 3)
    if b"tRNS" not in found:
        return colors
    alpha = found[b"tRNS"].ljust(len(colors), b"\xff")[: len(colors)]
    return np.hstack([colors, np.frombuffer(alpha, np.uint8)[:, None]])


def _look_up(numbers: np.ndarray, colors: np.ndarray) -> np.ndarray:
    if numbers.max() >= len(colors):
        raise Unusable(
            f"expected a palette of {numbers.max() + 1} colours, got {len(colors)}. Save the image again as 8-bit RGB."
        )
    return colors[numbers]


def _with_alpha(array: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """RGBA of pixels that are transparent where they have the colour `clear`."""
    array = array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2)
    opaque = (array != clear.astype(array.dtype)).any(axis=2, keepdims=True)
    return np.concatenate([array, opaque * array.dtype.type(np.iinfo(array.dtype).max)], axis=2)


def _opencv(content: bytes, *, rgb: bool = False) -> np.ndarray:
    """Pixels of a file, all channels and bits; of one that is known to be 8-bit RGB by the faster way, if there is."""
    import cv2

    fast = getattr(cv2, "IMREAD_COLOR_RGB", None) if rgb else None  # OpenCV 4.11
    image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_UNCHANGED if fast is None else fast)
    if image is None:
        raise damaged(content, "its pixels cannot be decoded")
    if image.ndim == 2 or fast is not None:
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA, dst=image)


def _from_pillow(image: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Pixels that Pillow loads, and the rules applied to them."""
    mode = image.mode
    if mode in ("L", "RGB", "RGBA", "I;16", "I;16L", "I;16B"):
        array = _to_array(image)
        return array.astype(array.dtype.newbyteorder("="), copy=False), ()
    if mode == "P":
        colors = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
        return _look_up(np.array(image), colors), ("palette",)
    if mode == "RGBX":
        return np.array(image)[..., :3], ("extra channel",)
    if mode in _CONVERTED:
        target, *rules = _CONVERTED[mode]
        return _to_array(image.convert(target)), tuple(rules)
    raise Unusable(f"expected grey, RGB, palette or CMYK pixels, got Pillow mode {mode!r}. Save it as 8-bit RGB.")


def _to_array(image: Any) -> np.ndarray:
    """Pixels of an image, some rows at a time: Pillow gives them as bytes, twice on the way."""
    rows = max(1, _BAND_PX // image.width)
    if rows >= image.height:
        return np.array(image)
    first = np.array(image.crop((0, 0, image.width, rows)))
    out = np.empty((image.height, *first.shape[1:]), first.dtype)
    for top in range(0, len(out), rows):
        out[top : top + rows] = image.crop((0, top, image.width, min(top + rows, len(out))))
    return out


def _decode_tiff(content: bytes, max_pixels: int) -> tuple[np.ndarray, int, tuple[str, ...]]:
    """Let tifffile read plain and deflated pages, and Pillow or OpenCV those of few bits, CMYK, or packed otherwise."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages.first
        for height, width in ((page.imagelength, page.imagewidth), page.chunks[:2]):  # of a tile, too
            check_size(height, width, max_pixels, max(1, page.bitspersample // 8) * page.samplesperpixel)
        _check_layout(page)
        rules = ("first page",) if _has_more_pages(file, content) else ()
        _check_strips(page, content)
        orientation = headers.tiff_orientation(page)
        if page.compression in _CHECKED and page.photometric != 5 and page.bitspersample >= 8:
            array, more = _from_tifffile(page)
        else:
            array, more = _from_libtiff(content, file.byteorder, page)
        return array, orientation, (*rules, *more)


def _check_layout(page: Any) -> None:
    """Refuse a page whose samples are not 8 or 16 bits, or whose colours no reader here is right about."""
    bits, samples, photometric = page.bitspersample, page.samplesperpixel, page.photometric
    if page.sampleformat != 1 or bits not in (1, 2, 4, 8, 16):
        got = page.dtype if page.dtype is not None else f"{bits} bits"
        raise Unusable(
            f"expected 8 or 16 bits a channel, without sign, got {got}. Scale the pixels to 0..255 and save them as "
            "8-bit RGB."
        )
    colors, depth = {0: (1, 16), 1: (1, 16), 2: (3, 16), 3: (1, 8), 5: (4, 8), 6: (3, 8)}.get(int(photometric), (0, 0))
    extras = tuple(page.extrasamples)
    alpha = photometric in (1, 2) and extras in ((_PREMULTIPLIED,), (_ALPHA,))
    fits = samples - len(extras) == colors and bits <= depth and (bits >= 8 or samples == 1) and page.imagedepth == 1
    fits = fits and (not extras or alpha or (photometric == 2 and not any(extras)))
    if page.compression in _CHECKED:
        # Without a compression, libtiff ignores a predictor, and tifffile applies it.
        fits = fits and photometric != 6 and (page.compression != 1 or page.predictor == 1)
    else:
        right = (bits <= 8 and samples != 2) or (photometric in (1, 2) and not extras)
        right = right and (page.planarconfig == 1 or samples == 1 or (photometric == 2 and bits == 8 and not extras))
        fits = fits and right and page.compression in _PACKED and (photometric != 6 or page.compression == 7)
    if not fits:
        words = [str(getattr(code, "name", code)).lower()[:20] for code in (photometric, page.compression)]
        raise Unusable(
            f"expected grey, RGB, palette or CMYK pixels, got {samples} channels of {bits} bits, {', '.join(words)}. "
            "Save it as uncompressed 8-bit RGB."
        )


def _has_more_pages(file: Any, content: bytes) -> bool:
    """Whether a TIFF has pages beside the first; refused where that one is a thumbnail, or one channel of several."""
    first, *others = islice(file.pages, _PAGES)
    if len(others) < _PAGES - 1:
        at = file.pages.next_page_offset
        if any(content[at : at + 4]):
            raise damaged(content, "a page lies beyond its end")
    others = [page for page in others if not page.is_mask]
    largest = max((page.imagelength * page.imagewidth for page in others), default=0)
    if others and (first.is_reduced or largest > first.imagelength * first.imagewidth):
        raise Unusable(
            f"expected the image on the first page, got a thumbnail of {first.imagewidth:,} x {first.imagelength:,} px "
            "there. Save the page with the image alone."
        )
    n_images = (file.imagej_metadata or {}).get("images", 1)
    if first.samplesperpixel == 1 and first.photometric in (0, 1):
        n_images = max(n_images, 1 + sum(page.shape == first.shape for page in others))
        if n_images > 1:
            raise Unusable(
                f"expected one image, got {n_images} grey pages of one size, which may be the channels of a colour "
                "image. Save it as one page of RGB (in ImageJ: Image > Type > RGB Color)."
            )
    return bool(others) or n_images > 1


def _check_strips(page: Any, content: bytes) -> None:
    """Refuse a page with missing bytes, which readers fill with black, or with deflated bytes of a wrong checksum."""
    rows, down = page.chunks[0], page.chunked[-2 if page.planarconfig == 2 or page.samplesperpixel == 1 else 0]
    row_bytes = -(-int(np.prod(page.chunks[1:])) * page.bitspersample // 8)
    n_strips = int(np.prod(page.chunked))
    strips = list(zip(page.dataoffsets, page.databytecounts, strict=False))[:n_strips]
    if len(strips) < n_strips or any(size < 1 or start + size > len(content) for start, size in strips):
        raise damaged(content, "strips are missing")
    for index, (start, size) in enumerate(strips):
        if page.compression in _DEFLATE:
            inflating = zlib.decompressobj()
            # Room for one byte more, so that the checksum behind the last one is read.
            size = len(inflating.decompress(content[start : start + size], rows * row_bytes + 1))
            if not inflating.eof:
                raise damaged(content, "a strip has no end")
        left = rows if page.is_tiled else page.imagelength - index % down * rows
        if page.compression in _CHECKED and size < min(rows, left) * row_bytes:
            raise damaged(content, "a strip is too short")


def _from_tifffile(page: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    array, extras = page.asarray(maxworkers=1), tuple(page.extrasamples)
    if page.planarconfig == 2 and page.samplesperpixel > 1:
        array = np.moveaxis(array, 0, -1)
    if page.photometric == 3:
        return _from_palette(array, page)
    if page.photometric == 0:
        array = np.invert(array)
    if not extras or extras[0] == _ALPHA:
        return (array[..., [0, 0, 0, 1]] if array.shape[2:] == (2,) else array), ()
    if extras[0] == _PREMULTIPLIED:
        color, white = array[..., :-1], np.invert(array[..., -1:])
        return color + np.minimum(white, np.invert(color)), ("alpha",)
    return array[..., :3], ("extra channel",)


def _from_libtiff(content: bytes, byteorder: str, page: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Pillow drops the lower byte of 16-bit RGB, OpenCV keeps it. Both turn pages, some of the time: here never."""
    from PIL import TiffImagePlugin

    tag = page.tags.get(headers.ORIENTATION)
    if tag is not None:
        content = bytearray(content)
        struct.pack_into(f"{byteorder}H", content, tag.valueoffset, 1)
    if page.bitspersample == 16 and page.photometric == 2:
        return _opencv(content), ()
    image = TiffImagePlugin.TiffImageFile(io.BytesIO(content))
    return _from_palette(np.array(image), page) if page.photometric == 3 else _from_pillow(image)


def _from_palette(numbers: np.ndarray, page: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    colors = page.colormap.T
    # Some writers give 8 bits where the format has 16: libtiff's rule.
    return _look_up(numbers, (colors // 256 if colors.max() > 255 else colors).astype(np.uint8)), ("palette",)


def to_rgb8(array: np.ndarray, *, name: str = "patch") -> tuple[np.ndarray, tuple[str, ...]]:
    """Bring one array to 8-bit RGB by the module's rules.

    Parameters
    ----------
    array : ndarray of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8 or uint16
        Grey, RGB, or RGB with alpha.
    name : str
        What error messages call it.

    Returns
    -------
    patch : ndarray of shape (H, W, 3), uint8
        `array` itself where nothing was to be done.
    rules : tuple of str
        The conversions that were needed.

    Raises
    ------
    PatchError
        If the array is empty, of another shape, or of another dtype.

    Examples
    --------
    >>> import numpy as np
    >>> to_rgb8(np.array([[65535]], dtype=np.uint16))
    (array([[[255, 255, 255]]], dtype=uint8), ('16-bit', 'gray'))
    """
    if array.dtype not in (np.uint8, np.uint16):
        nan = array.dtype.kind == "f" and bool(np.isnan(array).any())
        raise PatchError(
            f"{name}: expected uint8 (0..255) or uint16 pixels, got {array.dtype}{' with NaN' if nan else ''} of shape "
            f"{array.shape}. Convert it, for pixels in 0..1 by (255 * x).round().astype('uint8')."
        )
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or array.size == 0:
        raise PatchError(
            f"{name}: expected a patch (H, W, 3) with at least one pixel, got shape {array.shape}. "
            "Give grey as (H, W), RGB as (H, W, 3), RGB with alpha as (H, W, 4)."
        )
    rules = []
    if array.dtype == np.uint16:
        rules = ["dark 16-bit", "16-bit"] if array.max() < _TWELVE_BITS else ["16-bit"]
        import cv2

        array = cv2.convertScaleAbs(np.ascontiguousarray(array), alpha=1 / 257)  # rounded; no value lies at a half
    if channels == 1:
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
        rules.append("gray")
    elif channels == 4:
        alpha = array[..., 3].astype(np.uint16)
        white = 255 * (255 - alpha) + np.uint16(127)
        # One channel at a time, in 16 bits: within four times the bytes of the image.
        array = np.dstack([((array[..., at] * alpha + white) // 255).astype(np.uint8) for at in range(3)])
        rules.append("alpha")
    return array, tuple(rules)
