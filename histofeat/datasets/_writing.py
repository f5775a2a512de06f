"""Write a file or a folder whole or not at all; read archives and arrays within bounds."""

import errno
import io
import math
import os
import re
import secrets
import shutil
import stat
import tokenize
import zipfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd

from histofeat.datasets._csv_rows import csv_text
from histofeat.exceptions import check_name

#: Formats of a table.
TABLE_FORMATS = ("csv", "parquet", "json")

#: Faults of a disk or a name: errors of the block with these numbers are about `path`.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ENAMETOOLONG)
#: An archive may unpack to this many bytes, or to this many times its own size where that is more.
_UNPACKED_BYTES, _UNPACKED_TIMES = 2**26, 20


@contextmanager
def write_whole(
    path: str | os.PathLike[str],
    *,
    folder: bool = False,
    overwrite: bool = False,
    parents: bool = False,
    replaced: Collection[str] | None = None,
) -> Iterator[Path]:
    """Give a temporary path to write to, and move what is there to `path` when the block ends without an error.

    Parameters
    ----------
    path : path
        The file or folder. A link is followed: what it points to is written.
    folder : bool, default=False
        Whether a folder is written; it is made empty. Otherwise the block has to make the file.
    overwrite : bool, default=False
        Whether a file that exists is replaced.
    parents : bool, default=False
        Whether missing parent folders are made. They are removed again when the block fails.
    replaced : collection of str, optional
        For a folder only: when `path` is a folder that holds files, put the new folder in its place. The files of
        these names, relative to the folder, are removed; all others that have no successor are taken along.

    Yields
    ------
    part : Path
        A path with the name of `path`, in a hidden folder beside it.

    Raises
    ------
    FileExistsError
        When `path` exists: a file without `overwrite`; a folder that holds files, without `replaced`; the current
        folder and mount points.
    OSError
        When something cannot be written, in a sentence. Nothing half-written is left.

    Notes
    -----
    A move within one file system is a single step: readers see the old file or the new one. A file is flushed to the
    disk before the move. A folder that is replaced stands aside for two moves. What a killed process left of the same
    `path` is removed, and a folder that stood aside then is put back; a lock tells a killed process from one that runs.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "numbers.txt"
    >>> with write_whole(file) as part:
    ...     _ = part.write_text("1 2 3")
    >>> file.read_text(), len(list(file.parent.iterdir()))
    ('1 2 3', 1)
    """
    name, path = Path(path).name, Path(os.path.realpath(path))
    with _scratch_beside(path, folder=folder, parents=parents) as scratch:
        part = scratch / "new" / name
        if folder:
            part.mkdir()
        with _in_a_sentence(path, _OF_THE_DISK):
            yield part
        with _in_a_sentence(path):
            if folder:
                _place_folder(part, path, scratch, replaced)
            else:
                _place_file(part, path, overwrite=overwrite)


def check_place(path: str | os.PathLike[str], *, folder: bool = False) -> None:
    """Check that `write_whole` can write to a path, by trying it; before the work that gives the content.

    Parameters
    ----------
    path : path
        Parents that are missing are no error.
    folder : bool, default=False
        Whether a folder will be written.

    Raises
    ------
    OSError
        In a sentence: the rights, the name or the disk do not allow it, or the folder is the current one.
    """
    path = Path(os.path.realpath(path))
    while not os.path.lexists(path.parent):
        path = path.parent
    with _scratch_beside(path, folder=folder) as scratch, _in_a_sentence(path):
        (scratch / "new" / path.name).write_bytes(bytes(1 << 20))  # a name alone fits on a full disk


@contextmanager
def _in_a_sentence(path: Path, numbers: Collection[int] | None = None) -> Iterator[None]:
    """Say of which path an error of the system is; with `numbers`, of these alone."""
    try:
        yield
    except OSError as error:
        if error.strerror is None or (numbers is not None and error.errno not in numbers):
            raise
        words = f"expected a place that can be written, got {error.strerror}. Give another name or folder."
        told = type(error)(f"{path}: {words}")
        told.errno = error.errno
        raise told from error


@contextmanager
def _scratch_beside(path: Path, *, folder: bool, parents: bool = False) -> Iterator[Path]:
    """Give a locked folder beside `path`, with a folder "new" in it, after what killed processes left was removed."""
    here = None
    with suppress(OSError):  # the current folder may be gone
        here = os.path.realpath(Path.cwd())
    stem, missing = f".{path.name[:40]}.", [each for each in path.parents if parents and not os.path.lexists(each)]
    with _in_a_sentence(path):
        if folder and path.is_dir() and (os.path.ismount(path) or (here and Path(here).is_relative_to(path))):
            raise FileExistsError(
                f"{path}: expected a folder that can be replaced, got the current one or a mount point. Name one in it."
            )
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent, stem)
        made = path.parent / f"{stem}{secrets.token_hex(4)}"
        (made / "new").mkdir(parents=True)
        lock = _lock(made)
        scratch = made.rename(f"{made}.partial")  # only now others may look whether the lock is held
    try:
        yield scratch
    finally:
        _remove(scratch)
        if lock is not None:
            os.close(lock)
        with suppress(OSError):  # one that holds something stays
            for each in missing:
                each.rmdir()


def _lock(folder: Path) -> int | None:
    """Lock a folder until the process ends; None where another process holds it or the system has no such locks."""
    with suppress(ImportError, OSError):  # Windows has no such module
        import fcntl

        with ExitStack() as stack:
            opened = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
            stack.callback(os.close, opened)
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stack.pop_all()
            return opened
    return None


def _sweep(parent: Path, stem: str) -> None:
    """Remove the folders that killed processes of this user left in `parent`."""
    pattern = re.compile(re.escape(stem) + r"[0-9a-f]{8}\.partial")
    for name in filter(pattern.fullmatch, os.listdir(parent)):  # noqa: PTH208
        lock = _lock(parent / name)
        if lock is not None:
            if os.fstat(lock).st_uid == os.geteuid():
                _remove(parent / name)
            os.close(lock)


def _remove(scratch: Path) -> None:
    """Remove a scratch folder; a folder that stands aside in it goes back first, where nothing took its place."""
    with suppress(OSError):  # what cannot go back stays where it is
        for old in (scratch / "old").glob("*"):
            if not os.path.lexists(scratch.parent / old.name):
                old.rename(scratch.parent / old.name)
        shutil.rmtree(scratch)


def _place_file(part: Path, path: Path, *, overwrite: bool) -> None:
    if os.path.lexists(path) and not path.is_file():
        raise FileExistsError(f"{path}: expected a file or a new name, got a folder or a device. Give another name.")
    with part.open("r+b") as file:
        os.fsync(file.fileno())
    if not overwrite:
        with suppress(OSError):  # a file system without links
            path.hardlink_to(part)  # unlike a move, it refuses to replace a file
            return
        if os.path.lexists(path):
            raise FileExistsError(f"{path}: expected a new file, got one that exists. Give another name.")
    part.replace(path)


def _place_folder(part: Path, path: Path, scratch: Path, replaced: Collection[str] | None) -> None:
    if path.is_dir() and any(path.iterdir()):
        if replaced is None:
            raise FileExistsError(f"{path}: expected a new or empty folder, got one with files. Give another name.")
        _take_along(path, part, set(replaced))
        (scratch / "old").mkdir()
        path.rename(scratch / "old" / path.name)
    elif path.is_dir():
        # On Windows a folder cannot take the place of another one, not even of an empty one.
        path.rmdir()
    part.rename(path)


def _take_along(path: Path, part: Path, replaced: Collection[str]) -> None:
    """Give the new folder the files of the old one that are none of its own, by links, so that no step loses one."""
    for file in path.rglob("*"):
        name = file.relative_to(path).as_posix()
        if file.is_dir() and not file.is_symlink():
            if not any(file.iterdir()):
                (part / name).mkdir(parents=True, exist_ok=True)
        elif name not in replaced and not os.path.lexists(part / name):
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, part / name, follow_symlinks=False)
            except OSError:  # a file system without links
                shutil.copy2(file, part / name, follow_symlinks=False)


def unpacked_limit(n_bytes: int) -> int:
    """Largest number of bytes that an archive of `n_bytes` may hold unpacked: 64 MiB, or 20 times its size.

    Examples
    --------
    >>> unpacked_limit(1_000), unpacked_limit(10**8)
    (67108864, 2000000000)
    """
    return max(_UNPACKED_BYTES, _UNPACKED_TIMES * n_bytes)


def regular_size(path: Path) -> int:
    """Bytes of a regular file; an `OSError` for all else: a pipe may never end, and a device never does."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError("no regular file")
    return found.st_size


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
    size = len(file) if isinstance(file, bytes) else regular_size(Path(file))
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


def check_hdf5(path: Path, n_bytes: int) -> None:
    """Check that the arrays of an HDF5 file lie in it, and take no more memory than its size warrants.

    Parameters
    ----------
    path : Path
        The file.
    n_bytes : int
        Size of the file or of the archive that it came in, for `unpacked_limit`.

    Raises
    ------
    ValueError
        If an array is compressed too well, or a link or an array leads to another file.
    OSError
        If the file cannot be read.
    """
    import h5py

    found: list[object] = []
    with h5py.File(path) as file:
        file.visititems_links(lambda _, link: found.append(link))
        file.visititems(lambda _, item: found.append(item))
        arrays = [item for item in found if isinstance(item, h5py.Dataset)]
        outside = any(isinstance(item, h5py.SoftLink | h5py.ExternalLink) for item in found)
        total = sum(array.nbytes for array in arrays)
        if outside or any(a.external or a.is_virtual for a in arrays) or total > unpacked_limit(n_bytes):
            raise ValueError(f"its arrays unpack to {total:,} bytes, or lie in another file")


def table_bytes(frame: pd.DataFrame, format: str) -> bytes:
    r"""Give the content of a file of a table.

    Parameters
    ----------
    frame : DataFrame
    format : {"csv", "parquet", "json"}
        CSV has all digits and empty cells for unknown values, JSON is a list of records with null.

    Raises
    ------
    ValueError
        If the format is unknown.

    Examples
    --------
    >>> table_bytes(pd.DataFrame({"path": ["a.png"], "p_tumour": [0.25]}), "json")
    b'[{"path":"a.png","p_tumour":0.25}]\n'
    """
    check_name("output_format", format, TABLE_FORMATS)
    if format == "parquet":
        return frame.to_parquet(index=False)
    if format == "json":
        return (frame.to_json(orient="records", double_precision=15, force_ascii=False) + "\n").encode()
    return csv_text(frame).encode()  # fewer digits would make ties
