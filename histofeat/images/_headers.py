"""Read headers: the size of an image, the way it is turned, the chunks of a PNG, and the limit of pixels."""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from operator import index
from typing import Any, BinaryIO

import numpy as np

from histofeat.exceptions import PatchError, first_line

#: Formats that are decoded, and the endings of their names, in lower case.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WebP")
IMAGE_SUFFIXES = (".apng", ".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

#: Most pixels of one image, by default: with four times its bytes while it is decoded, less than a gigabyte.
MAX_PIXELS = 50_000_000
#: Bytes for each of these pixels: an image of 16-bit RGBA may have half as many of them.
BYTES_PER_PIXEL = 4
#: Most pixels of a side: the limit of libpng.
_MAX_SIDE = 1_000_000

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: First bytes of the other formats; those of a WebP are at two places.
TIFF, JPEG, BMP = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), b"\xff\xd8\xff", b"BM"
#: The tag of EXIF and TIFF that says how an image is turned, from 1 (upright) to 8.
ORIENTATION = 274
_CHUNK = struct.Struct(">I4s")
#: Beginning, with the header of a single pixel, and end of a PNG.
_PNG_START = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55")
_PNG_END = bytes.fromhex("0000000049454e44ae426082")
#: Most bytes of a chunk that are looked at.
_MAX_CHUNK = 1 << 20


class Unusable(ValueError):
    """An image that is refused: the sentence without the name of the image."""


#: Without O_NONBLOCK, opening a named pipe waits for a writer, who may never come.
_READ_ONLY = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_BINARY", "O_NONBLOCK", "O_NOCTTY"))
_SPECIAL = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe"}


class SpecialFileError(OSError):
    """A path leads to a folder, a named pipe, a socket or a device; ``strerror`` says to which."""


def open_regular(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Open a regular file for reading, without waiting: a file descriptor, which the caller closes, and the size.

    Raises
    ------
    OSError
        If it cannot be opened; a `SpecialFileError` if it is no regular file.
    """
    try:
        handle = os.open(path, _READ_ONLY)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise SpecialFileError(errno.EINVAL, "a socket") from error
        raise
    found = os.fstat(handle)
    if stat.S_ISREG(found.st_mode):
        return handle, found.st_size
    os.close(handle)
    raise SpecialFileError(errno.EINVAL, _SPECIAL.get(stat.S_IFMT(found.st_mode), "a device"))


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """Read a whole file; the errors are those of `open_regular`."""
    handle, size = open_regular(path)
    try:
        # Without a buffer and a file object: half the time, on files of a few kilobytes.
        content = os.read(handle, size + 1)
        if len(content) == size:
            return content
        with io.FileIO(handle, closefd=False) as file:  # a read may give less, and a file may grow
            return content + file.readall()
    finally:
        os.close(handle)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a whole image file; a `PatchError` names what cannot be read."""
    with _named(path):
        return read_regular(path)


def open_image(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Open an image file as `open_regular` does; a `PatchError` names what cannot be opened."""
    with _named(path):
        return open_regular(path)


@contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        got = "a link to nothing" if os.path.islink(path) else "no such file"  # noqa: PTH114
        raise PatchError(f"{path}: expected an image file, found {got}. Check the path.") from error
    except (OSError, ValueError) as error:  # a path with a null character is a ValueError
        got = getattr(error, "strerror", None) or error
        raise PatchError(f"{path}: expected a readable image file, got {got}. Correct the path.") from error


def is_too_large(height: int, width: int, max_pixels: int = MAX_PIXELS, pixel_bytes: float = 1) -> bool:
    """Whether an image has too many pixels, or too many bytes (`pixel_bytes` each, before compression)."""
    pixels = height * width
    return max(pixels, pixels * pixel_bytes / BYTES_PER_PIXEL) > max_pixels or max(height, width) > _MAX_SIDE


def check_size(height: int, width: int, max_pixels: int, pixel_bytes: float) -> None:
    """Refuse an image without pixels or with too many, before a decoder takes memory for them.

    Raises
    ------
    Unusable
        If the image is empty or too large; see `is_too_large`.
    """
    if height < 1 or width < 1:
        raise Unusable(f"expected at least one pixel, got {width:,} x {height:,} px. Remove the file.")
    if is_too_large(height, width, max_pixels, pixel_bytes):
        raise Unusable(
            f"expected at most {max_pixels:,} px ({BYTES_PER_PIXEL} bytes each, {_MAX_SIDE:,} a side), got {width:,} x "
            f"{height:,} px ({pixel_bytes:g} bytes each). It is too large for one image: cut it into tiles."
        )


def png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the data of each chunk of a PNG whose checksums hold.

    Raises
    ------
    Unusable
        If a checksum is wrong, or the file is cut off.

    Notes
    -----
    W3C PNG specification, 5.3: length, type, data, and the CRC-32 of type and data.
    """
    view, at, size = memoryview(content), 8, len(content)
    while at + 12 <= size:
        (length, kind), start = _CHUNK.unpack_from(content, at), at + 8
        end = start + length
        if end + 4 > size:
            break
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(content[end : end + 4]):
            raise damaged(content, f"wrong checksum of chunk {ascii(kind)[2:-1]}")
        yield kind, start, end
        if kind == b"IEND":
            return
        at = end + 4
    raise damaged(content, "its end is missing")


def damaged(content: bytes, why: object) -> Unusable:
    """Error of a file that cannot be decoded; `why` is shortened to a line."""
    line = f"({first_line(why):.60})"
    return Unusable(
        f"expected a whole image, got a damaged or truncated file of {len(content):,} bytes {line}. "
        "Copy it again or remove it."
    )


def png_orientation(chunks: Iterable[bytes]) -> int:
    """How chunks of a PNG (each from length to checksum) say that it is turned, from 1 to 8.

    They say so as EXIF, which ImageMagick keeps in a text.
    """
    turning = [chunk for chunk in chunks if chunk[4:8] == b"eXIf" or chunk[8:30] == b"Raw profile type exif\0"]
    if not turning:
        return 1
    from PIL.PngImagePlugin import PngImageFile

    return pillow_orientation(PngImageFile(io.BytesIO(b"".join([_PNG_START, *turning, _PNG_END]))))


def pillow_orientation(image: Any) -> int:
    """How the metadata of an image that Pillow has opened say that it is turned, from 1 to 8; 1 where they are none."""
    from PIL import Image

    try:
        # Not the method of a PNG, which decodes the pixels first.
        return valid_orientation(Image.Image.getexif(image).get(ORIENTATION))
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, OSError, struct.error):
        return 1


def valid_orientation(value: Any) -> int:
    """`value` where it is one of the eight orientations, else 1, as viewers have it."""
    return int(value) if value in range(1, 9) else 1


def turn(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels upright: EXIF 2.3, tag 274."""
    if orientation >= 5:
        array = np.swapaxes(array, 0, 1)
    down = -1 if orientation in (3, 4, 7, 8) else 1
    across = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(array[::down, ::across])


#: By the first chunk of a WebP: byte of its sides, bits from the first side to the second, bits of a side, and what is
#: to be added.
_WEBP_SIDES = {b"VP8X": (24, 24, 24, 1), b"VP8L": (21, 14, 14, 1), b"VP8 ": (26, 16, 14, 0)}


def webp_header(content: bytes) -> tuple[int, int, int, bool]:
    """Height, width, orientation, and whether it is animated, of a WebP.

    Raises
    ------
    Unusable
        If it is cut off, or its first chunk is unknown.

    Notes
    -----
    RFC 9649, 2.4 to 2.7: a RIFF file whose first chunk is VP8 (lossy), VP8L (lossless) or VP8X (extended). Pillow,
    which has a limit of pixels of its own, opens those alone that say that they have EXIF.
    """
    kind, size = content[12:16], 8 + int.from_bytes(content[4:8], "little")
    if len(content) < max(size, 30) or kind not in _WEBP_SIDES:
        raise damaged(content, "its end is missing, or its first chunk is unknown")
    at, second, n_bits, more = _WEBP_SIDES[kind]
    sides = int.from_bytes(content[at : at + 6], "little")
    width, height = ((sides >> skip & ((1 << n_bits) - 1)) + more for skip in (0, second))
    flags = content[20] if kind == b"VP8X" else 0
    return height, width, pillow_orientation(open_with_pillow(io.BytesIO(content))) if flags & 8 else 1, bool(flags & 2)


def image_size(path: str, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int] | str:
    """(height, width) in pixels of the decoded image, from the header of its file, or the reason why there is none.

    Notes
    -----
    The first bytes decide the format, not the name: a JPEG named ``.png`` is read as a JPEG. An image that EXIF turns
    by a quarter has its sides exchanged, as after decoding. A file that is cut off after its header passes; the
    decoder names it.
    """
    return _size(path, (PNG_SIGNATURE, *TIFF, JPEG, BMP, b"RIFF"), max_pixels)


def png_size(path: str, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int] | str:
    """(height, width) in pixels of a decoded PNG, from its chunks, or the reason why there is none; see `image_size`.

    Notes
    -----
    W3C PNG specification, 5.2 and 11.2.2: eight bytes of signature, then the IHDR chunk with width and height.
    """
    return _size(path, (PNG_SIGNATURE,), max_pixels)


def _size(path: str, signatures: tuple[bytes, ...], max_pixels: int) -> tuple[int, int] | str:
    try:
        with os.fdopen(open_regular(path)[0], "rb") as file:
            start = file.read(12)
            file.seek(0)
            if not start:
                return "is empty (0 bytes)"
            if not start.startswith(signatures) or (start.startswith(b"RIFF") and start[8:] != b"WEBP"):
                if len(signatures) == 1:
                    return "is no PNG (wrong first bytes)"
                return f"is no image (its first bytes are of none of {', '.join(FORMATS)})"
            height, width, orientation = _header(start, file)
    except SpecialFileError as error:
        return f"is {error.strerror}"
    except OSError as error:
        dangling = os.path.lexists(path) and not os.path.exists(path)  # noqa: PTH110
        return "is a link to nothing" if dangling else f"cannot be read ({type(error).__name__})"
    if is_too_large(height, width, max_pixels):
        return f"is too large for one image ({width:,} x {height:,} px): cut it into tiles"
    if height < 1 or width < 1:
        return "has a broken PNG header" if start.startswith(PNG_SIGNATURE) else "has a broken header"
    return (width, height) if orientation >= 5 else (height, width)


def _header(start: bytes, file: BinaryIO) -> tuple[int, int, int]:
    """Height, width and orientation (from 1 to 8) of an image as it is stored; no height where the header is broken."""
    try:
        if start.startswith(PNG_SIGNATURE):
            return _png_header(file)
        if start.startswith(TIFF):
            import tifffile

            with tifffile.TiffFile(file, name="header") as tiff:
                page = tiff.pages.first
                return index(page.imagelength), index(page.imagewidth), tiff_orientation(page)
        if start.startswith(b"RIFF"):
            return webp_header(file.read())[:3]
        image = open_with_pillow(file)
        return image.height, image.width, pillow_orientation(image)
    except Exception:  # decoders raise whatever they like on broken headers
        return 0, 0, 1


def tiff_orientation(page: Any) -> int:
    """How the page of a TIFF is turned, from 1 to 8."""
    return valid_orientation(page.tags.valueof(ORIENTATION))


def open_with_pillow(file: BinaryIO) -> Any:
    """Open a JPEG, BMP or WebP: not by `Image.open`, which has a limit of pixels of its own, for the whole process."""
    from PIL import BmpImagePlugin, JpegImagePlugin, WebPImagePlugin

    start = file.read(4)
    file.seek(0)
    if start.startswith(JPEG):
        return JpegImagePlugin.jpeg_factory(file)
    return (BmpImagePlugin.BmpImageFile if start.startswith(BMP) else WebPImagePlugin.WebPImageFile)(file)


def _png_header(file: BinaryIO) -> tuple[int, int, int]:
    start, others = file.read(33), []
    width, height = struct.unpack_from(">II", start, 16)
    if start[8:16] != b"\0\0\0\rIHDR":
        return 0, 0, 1
    while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
        length, kind = _CHUNK.unpack(head)
        if kind in (b"eXIf", b"tEXt", b"zTXt") and length < _MAX_CHUNK:
            others.append(head + file.read(length + 4))
        else:
            file.seek(length + 4, os.SEEK_CUR)
    return height, width, png_orientation(others)
