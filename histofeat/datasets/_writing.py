"""Write a file or a folder whole or not at all."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
