"""Which files are images, by name and first bytes; how large they are; which hold the same. Decodes no pixel."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable
from pathlib import PurePath

from histofeat.datasets.idc.tree import png_size

__all__ = ["IMAGE_SUFFIXES", "image_size", "is_image_name", "is_system_name", "same_content"]

#: Endings of the formats that `histofeat.images.decoding` reads, in lower case.
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

_FORMATS = "PNG, JPEG, TIFF, BMP, WebP"
_PNG = b"\x89PNG\r\n\x1a\n"
_OTHERS = (b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM")
_SYSTEM = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"})
_CHUNK = 1 << 20


def is_image_name(name: str) -> bool:
    """Whether a file name ends as one of the formats that are read.

    Examples
    --------
    >>> is_image_name("A.TIFF"), is_image_name("notes.txt")
    (True, False)
    """
    return PurePath(name).suffix.lower() in IMAGE_SUFFIXES


def is_system_name(name: str) -> bool:
    """Whether a file or folder is hidden, or one that a file browser leaves behind by looking.

    Examples
    --------
    >>> [is_system_name(name) for name in ("._a.png", "Thumbs.db", "a.png")]
    [True, True, False]
    """
    return name.startswith(".") or name.lower() in _SYSTEM


def image_size(path: str) -> tuple[int, int] | str:
    """(height, width) in pixels from the header of an image file, or the reason why there is none.

    Notes
    -----
    The format is told by the first bytes and not by the name: a JPEG named ``.png`` is read as what it is. A file that
    is cut off after its header passes; it is found, and named, when its pixels are decoded.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a string stays a string: half the time on small files
            start = file.read(16)
    except OSError as error:
        return f"cannot be read ({type(error).__name__})"
    if not start:
        return "is empty (0 bytes)"
    if start.startswith(_PNG):
        return png_size(path)
    if start.startswith(_OTHERS) or (start.startswith(b"RIFF") and start[8:12] == b"WEBP"):
        return _size_by_pillow(path)
    return f"is no image (its first bytes are of none of {_FORMATS})"


def _size_by_pillow(path: str) -> tuple[int, int] | str:
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error):
        return "has a broken header"
    except Image.DecompressionBombError:
        return "has too many pixels for a patch"
    return (height, width) if height and width else "has a broken header"


def same_content(paths: Iterable[str]) -> list[list[int]]:
    """Groups of positions whose files hold the same bytes, in order; files that are alone are left out.

    Notes
    -----
    Only files of equal length are read and hashed (BLAKE2b, 128 bits). A file that cannot be read is alone.
    """
    by_length: dict[int, list[tuple[int, str]]] = {}
    for position, path in enumerate(paths):
        try:
            by_length.setdefault(os.stat(path).st_size, []).append((position, path))  # noqa: PTH116
        except OSError:
            continue
    by_content: dict[bytes, list[int]] = {}
    for candidates in by_length.values():
        for position, path in candidates if len(candidates) > 1 else ():
            key = _content_key(path)
            if key is not None:
                by_content.setdefault(key, []).append(position)
    return sorted(group for group in by_content.values() if len(group) > 1)


def _content_key(path: str) -> bytes | None:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError:
        return None
    return digest.digest()
