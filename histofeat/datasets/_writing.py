"""Write a file or a folder whole or not at all; read archives and arrays within bounds."""

import io
import math
import os
import secrets
import shutil
import tokenize
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

#: An archive may unpack to this many bytes, or to this many times its own size where that is more.
_UNPACKED_BYTES, _UNPACKED_TIMES = 2**26, 20


@contextmanager
def write_whole(
    path: str | os.PathLike[str],
    *,
    folder: bool = False,
    overwrite: bool = False,
    parents: bool = False,
    last: str | None = None,
) -> Iterator[Path]:
    """Give a temporary path to write to, and move what is there to `path` when the block ends without an error.

    Parameters
    ----------
    path : path
        The file or folder.
    folder : bool, default=False
        Whether a folder is written; it is made empty. Otherwise the block has to make the file.
    overwrite : bool, default=False
        Whether a file that exists is replaced.
    parents : bool, default=False
        Whether missing parent folders are made. They stay when the block fails.
    last : str, optional
        For a folder only: when `path` is a folder that holds files, move each written file into it, and the file of
        this name, relative to the folder, last. Files of other names stay.

    Yields
    ------
    part : Path
        A path with the name of `path`, in a hidden folder beside it.

    Raises
    ------
    FileExistsError
        When `path` exists: a file without `overwrite`; a folder that holds files, without `last`.
    OSError
        When something cannot be written. Nothing half-written is left.

    Notes
    -----
    A move within one file system is a single step: readers see the old file or the new one. A file is flushed to the
    disk before the move. An empty folder is replaced.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "numbers.txt"
    >>> with write_whole(file) as part:
    ...     _ = part.write_text("1 2 3")
    >>> file.read_text(), len(list(file.parent.iterdir()))
    ('1 2 3', 1)
    """
    path = Path(path)
    if parents:
        path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.parent / f".{path.name[:40]}.{secrets.token_hex(4)}.partial"
    scratch.mkdir()
    try:
        part = scratch / path.name
        if folder:
            part.mkdir()
        yield part
        if folder:
            _place_folder(part, path, last)
        else:
            _place_file(part, path, overwrite=overwrite)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _place_file(part: Path, path: Path, *, overwrite: bool) -> None:
    with part.open("r+b") as file:
        os.fsync(file.fileno())
    if overwrite:
        part.replace(path)
        return
    try:
        path.hardlink_to(part)  # unlike a move, it refuses to replace a file
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(path) from None
        part.rename(path)


def _place_folder(part: Path, path: Path, last: str | None) -> None:
    if path.is_dir() and any(path.iterdir()):
        if last is None:
            raise FileExistsError(path)
        for file in sorted(part.rglob("*"), key=lambda file: file == part / last):
            target = path / file.relative_to(part)
            if file.is_dir():
                target.mkdir(exist_ok=True)
            else:
                file.replace(target)
        return
    # On Windows a folder cannot take the place of another one, not even of an empty one.
    if path.is_dir():
        path.rmdir()
    part.rename(path)


def unpacked_limit(n_bytes: int) -> int:
    """Largest number of bytes that an archive of `n_bytes` may hold unpacked: 64 MiB, or 20 times its size.

    Examples
    --------
    >>> unpacked_limit(1_000), unpacked_limit(10**8)
    (67108864, 2000000000)
    """
    return max(_UNPACKED_BYTES, _UNPACKED_TIMES * n_bytes)


def read_members(file: str | os.PathLike[str] | bytes, limit: int | None = None) -> dict[str, bytes]:
    """Read a zip archive, after a look at what its members take in memory.

    Parameters
    ----------
    file : path or bytes
        The archive, or its content.
    limit : int, optional
        Largest sum of the sizes of its members in bytes; by default `unpacked_limit` of the archive's size.

    Returns
    -------
    members : dict of str to bytes
        Each member by name, its CRC checked.

    Raises
    ------
    BadZipFile
        If the file is no archive, is damaged, or its members are too large, encrypted, packed by another method than
        deflate, or two of one name.
    OSError
        If the file cannot be read.
    """
    size = len(file) if isinstance(file, bytes) else Path(file).stat().st_size
    limit = unpacked_limit(size) if limit is None else limit
    members: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(file) if isinstance(file, bytes) else file) as archive:
        listed = archive.infolist()
        total = sum(info.file_size for info in listed)
        if total > limit:
            raise zipfile.BadZipFile(f"{total:,} bytes are packed into {size:,}, more than the {limit:,} allowed")
        for info in listed:
            plain = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not info.flag_bits & 1
            if not plain or info.filename in members:
                raise zipfile.BadZipFile(f"{info.filename!r:.80} is packed in another way, or is there twice")
            with archive.open(info) as member:
                # Never without a number: zipfile would unpack all that is there, whatever size the archive states.
                members[info.filename] = member.read(info.file_size + 1)
    return members


def read_array(content: bytes) -> np.ndarray:
    """Read an array in NumPy's format, if it is what its header says.

    Parameters
    ----------
    content : bytes
        A whole file ``.npy``.

    Returns
    -------
    array : ndarray
        Of numbers or text.

    Raises
    ------
    ValueError
        If it is no such file, holds objects, or the shape does not fit the number of bytes.

    Examples
    --------
    >>> buffer = io.BytesIO()
    >>> np.save(buffer, np.array([1, 2]))
    >>> read_array(buffer.getvalue()).tolist()
    [1, 2]
    """
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read_header(stream)
    except (SyntaxError, tokenize.TokenError) as error:
        raise ValueError(f"the header of an array is damaged ({error})") from error
    # A type without bytes would allow any shape.
    if dtype.hasobject or math.prod(shape) * (dtype.itemsize or 1) != len(content) - stream.tell():
        raise ValueError(f"{len(content):,} bytes are not an array of shape {shape!s:.40} and type {dtype!s:.40}")
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)
