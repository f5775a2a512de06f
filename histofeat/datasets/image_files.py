"""Which files are images, by name and first bytes; how large they are; which hold the same. Decodes no pixel."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

from histofeat.exceptions import DatasetError

__all__ = [
    "IMAGE_SUFFIXES",
    "existing_folder",
    "image_size",
    "is_folder",
    "is_image_name",
    "is_system_name",
    "list_folder",
    "same_content",
]


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


def existing_folder(root: Any, owner: str, holds: str, *, hint: str | None = None) -> Path:
    """Path of a folder that is there.

    Parameters
    ----------
    root : path
        What the user gave.
    owner : str
        Who asks for it.
    holds : str
        What the folder is to hold.
    hint : str, optional
        What the folder given holds in the words of a user; by default `holds`.

    Returns
    -------
    folder : Path
        Absolute, so that paths below it still hold in worker processes; not resolved, so that they read as the user's.

    Raises
    ------
    DatasetError
        If it is no path, does not exist, or is a file.
    """
    if not isinstance(root, (str, os.PathLike)) or not str(root):
        raise DatasetError(
            f"{owner}: expected the path of a folder, got {root!r}. Give the folder that holds {hint or holds}."
        )
    folder = Path(root).expanduser().absolute()
    if not folder.exists():
        raise DatasetError(
            f"{folder}: expected a folder with {holds}, got a path that does not exist. "
            "Check the spelling; data/README.md says how to get the data."
        )
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: expected a folder with {holds}, got a file. If it is the downloaded archive, unpack it and "
            "give the folder."
        )
    return folder


def list_folder(folder: str) -> list[os.DirEntry]:
    """Entries of a folder, by name.

    Raises
    ------
    DatasetError
        If it cannot be listed. A patient or class who silently drops out would change every number, so a folder is
        never left out.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DatasetError(
            f"{folder}: expected a folder that can be listed, got {type(error).__name__}. "
            "Give the user who runs this the right to read it."
        ) from error


def is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder, or a link to one; a link that leads back to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


_READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0)


def png_size(path: str) -> tuple[int, int] | str:
    """(height, width) in pixels from the first 24 bytes of a PNG, or the reason why there is none.

    Notes
    -----
    W3C PNG specification, 5.2 and 11.2.2: eight bytes of signature, then the IHDR chunk with width and height. A
    file that is cut off further on passes; it is found, and named, when its pixels are decoded.
    """
    try:
        handle = os.open(path, _READ_ONLY)
        try:
            header = os.read(handle, 24)
        finally:
            os.close(handle)
    except OSError as error:
        return f"cannot be read ({type(error).__name__})"
    if not header:
        return "is empty (0 bytes)"
    if not header.startswith(_PNG_START[:8]):
        return "is no PNG (wrong first bytes)"
    if len(header) < 24 or not header.startswith(_PNG_START):
        return "has a broken PNG header"
    width, height = struct.unpack(">II", header[16:24])
    if not width or not height:
        return "has a broken PNG header"
    return height, width
