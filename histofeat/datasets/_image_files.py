"""Find image files by name in folders, and files with the same content."""

import hashlib
import os
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from histofeat.exceptions import DatasetError, and_more, check_name
from histofeat.images import IMAGE_SUFFIXES as IMAGE_SUFFIXES, check_mpp, image_mpp, image_size as image_size

#: Share of unreadable images above which something else is wrong than single files.
MOST_UNREADABLE = 0.1
SYSTEM = "is hidden or left behind by a file browser"
_SYSTEM = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"})


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


def fold_case(name: str) -> str:
    """Fold a name as file systems do that ignore case and Unicode spellings.

    Examples
    --------
    >>> fold_case("Benign") == fold_case("BENIGN")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


@dataclass
class Scan:
    """What one walk over a folder found.

    Parameters
    ----------
    root : str
        The folder.
    outside : str
        Why a file beside the folders that are searched is left out.
    left_out : list of (str, str)
        Reason and relative path of every entry that is no usable image.
    failures : list of (str, str)
        Relative path and reason of those of them that should be images by their names.
    found : dict of key to (str, int, int)
        Path, height and width of each image, by what its name says.
    duplicates : int
        Files not used because another file has the same key.
    contradictions : list of str
        Names that say something else than their folders.
    """

    root: str
    outside: str = "is a file outside the class folders"
    left_out: list[tuple[str, str]] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    found: dict[Any, tuple[str, int, int]] = field(default_factory=dict)
    duplicates: int = 0
    contradictions: list[str] = field(default_factory=list)

    def relative(self, path: str) -> str:
        """Path below the root with forward slashes."""
        return path.removeprefix(self.root).lstrip(os.sep).replace(os.sep, "/")

    def leave_out(self, path: str, reason: str) -> None:
        """Note an entry that is no usable image."""
        # A name need not be text; what goes into a report must be.
        name = self.relative(path).encode("utf-8", "backslashreplace").decode("utf-8")
        self.left_out.append((reason, name))

    def fail(self, path: str, reason: str) -> None:
        """Note a file that should be an image by its name, and is none that can be read."""
        self.leave_out(path, reason)
        self.failures.append((self.left_out[-1][1], reason))

    def folders(self, folder: str, parse: Callable[[str], Any], reason: str, ignore: Collection[str] = ()):
        """Yield (path, meaning) of each folder in a folder whose name `parse` can read; leave out the other entries."""
        for entry in list_folder(folder):
            if entry.name in ignore:
                continue
            meaning = parse(entry.name) if is_folder(entry) else None
            if meaning is None:
                self.leave_out(entry.path, f"{reason} (not searched)" if is_folder(entry) else self.outside)
            else:
                yield entry.path, meaning

    def files(self, folder: str, parse: Callable[[str], Any], reason: str):
        """Yield (path, meaning) of each entry in a folder whose name `parse` can read; leave out the others."""
        for entry in list_folder(folder):
            meaning = parse(entry.name)
            if meaning is None:
                self.leave_out(entry.path, reason)
            else:
                yield entry.path, meaning

    def take(self, key: Any, path: str, size_of: Callable[[str], tuple[int, int] | str]) -> None:
        """Keep an image whose size can be read, or count it as a duplicate of one that has the same key."""
        if key in self.found:
            self.duplicates += 1
            return
        size = size_of(path)
        if isinstance(size, str):
            # The key stays free: a sound second copy of the same image still counts.
            self.fail(path, size)
        else:
            self.found[key] = (path, *size)

    def contradict(self, path: str, expected: str, got: str) -> None:
        """Note a path whose name contradicts its folder."""
        self.contradictions.append(
            f"{self.relative(path)}: expected {expected} as its folder says, got {got} in its name"
        )

    def refuse_contradictions(self) -> None:
        """Raise a DatasetError with the first contradiction."""
        if self.contradictions:
            more = and_more(len(self.contradictions))
            raise DatasetError(
                f"{self.contradictions[0]}{more}. Find out which is right, and move or rename the file or folder."
            )


def add_scale(
    frame: pd.DataFrame, mpp: float | None, owner: str, by_name: Callable[..., float | None] | None = None
) -> pd.DataFrame:
    """Add a column ``mpp``: `mpp` for all rows, else what `by_name` or the header tells; none where no row has a scale.

    `by_name` is `mpp_by_name`; the frame has the columns ``path``, ``height`` and ``width``.
    """
    if mpp is not None:
        return frame.assign(mpp=check_mpp(f"{owner}.mpp", mpp, len(frame), error=DatasetError))
    rows = zip(frame["path"], frame["height"], frame["width"], strict=True)
    scales = pd.Series([by_name(path, size) or image_mpp(path) for path, *size in rows], dtype=float)
    return frame if scales.isna().all() else frame.assign(mpp=scales)


def refuse_failures(failures: Sequence[tuple[str, str]], on_error: str) -> None:
    """Raise a DatasetError with the first of some (name, reason) pairs, if `on_error` is "raise"."""
    check_name("on_error", on_error, ("raise", "skip"))
    if failures and on_error == "raise":
        name, reason = failures[0]
        raise DatasetError(
            f"{name}: expected an image that can be read, got one that {reason}{and_more(len(failures))}. Copy it "
            'again or remove it, or leave out all such files by on_error="skip".'
        )


def same_content(paths: Iterable[str]) -> list[list[int]]:
    """Groups of positions whose files hold the same bytes, in order; files that are alone are left out.

    Notes
    -----
    Only files of equal length are read and hashed (BLAKE2b, 128 bits). A file that cannot be read is alone.
    """
    by_length: dict[int, list[tuple[int, str]]] = {}
    for position, path in enumerate(paths):
        with suppress(OSError):
            by_length.setdefault(os.stat(path).st_size, []).append((position, path))  # noqa: PTH116
    by_content: dict[bytes, list[int]] = {}
    for candidates in by_length.values():
        for position, path in candidates if len(candidates) > 1 else ():
            with suppress(OSError), open(path, "rb") as file:  # noqa: PTH123
                key = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
                by_content.setdefault(key, []).append(position)
    return sorted(group for group in by_content.values() if len(group) > 1)


def content_notes(frame: pd.DataFrame, names: Sequence[str]) -> tuple[str, ...]:
    """Note files with the same bytes: under two classes, in two parts, of two patients, or simply twice.

    Parameters
    ----------
    frame : DataFrame
        Columns ``path``, ``label`` and ``patient``, and ``part`` where there is one.
    names : sequence of str, one a row
        What a note calls the image.

    Returns
    -------
    notes : tuple of str
        At most one for each of these. Nothing is removed.
    """
    groups = same_content(frame["path"])
    if not groups:
        return ()
    questions = [("label", "under different classes", "One of the labels is wrong (HF006).")]
    if "part" in frame.columns:
        questions.append(("part", "in different parts", "What is tested on was trained on (HF002)."))
    questions.append(("patient", "under different patients", "Folds by patient cannot keep them together (HF002)."))
    notes = [
        f"Files of the same content: {sum(map(len, groups)):,} in {len(groups):,} groups, the first are "
        f"{names[groups[0][0]]!r} and {names[groups[0][1]]!r}. Nothing was removed."
    ]
    for column, where, meaning in questions:
        values = frame[column].to_numpy()
        apart = [group for group in groups if len(set(values[group])) > 1]
        if apart:
            first = apart[0][0]
            other = next(row for row in apart[0] if values[row] != values[first])
            notes.append(
                f"Files of the same content {where}: {names[first]!r} and {names[other]!r}"
                f"{and_more(len(apart))}. {meaning}"
            )
    return tuple(notes)


def checked_path(where: str, given: Any, expected: str = "a path", remedy: str = "Give one.") -> Path:
    """Absolute path, so that it still holds in worker processes; not resolved, so that it reads as the user's.

    Raises
    ------
    DatasetError
        If it is no path, or an empty one.
    """
    if not isinstance(given, str | os.PathLike) or not str(given):
        raise DatasetError(f"{where}: expected {expected}, got {given!r}. {remedy}")
    return Path(given).expanduser().absolute()


def existing_folder(root: Any, owner: str, holds: str, *, hint: str | None = None) -> Path:
    """Path of a folder that is there.

    Parameters
    ----------
    root : path
        What the user gave.
    owner : str
        Who asks for it.
    holds : str
        What the folder should hold.
    hint : str, optional
        What the folder given holds in the words of a user; by default `holds`.

    Returns
    -------
    folder : Path
        As from `checked_path`.

    Raises
    ------
    DatasetError
        If it is no path, does not exist, or is a file.
    """
    folder = checked_path(owner, root, "the path of a folder", f"Give the folder that holds {hint or holds}.")
    if not folder.is_dir():
        got = "a path that does not exist. Check the spelling; `histofeat fetch` gets IDC and BreakHis."
        if folder.exists():
            got = "a file. If it is the downloaded archive, unpack it and give the folder."
        raise DatasetError(f"{folder}: expected a folder with {holds}, got {got}")
    return folder


def list_folder(folder: str) -> list[os.DirEntry]:
    """Entries of a folder, by name.

    Raises
    ------
    DatasetError
        If it cannot be listed. A folder is never left out: a missing patient or class would change every number.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DatasetError(
            f"{folder}: expected a folder that can be listed, got {type(error).__name__}. "
            "Give the user who runs this the right to read it."
        ) from error


def walk_files(
    folder: str,
    leave_out: Callable[[str, str], None] = lambda path, reason: None,
    *,
    failures: dict[str, str] | None = None,
    above: tuple[str, ...] | None = None,
) -> Iterator[os.DirEntry]:
    """Yield the files below a folder, by name; links to folders are followed.

    Parameters
    ----------
    folder : str
    leave_out : callable, optional
        Called as ``leave_out(path, reason)`` with hidden entries, and links to a folder that they lie in.
    failures : dict of str to str, optional
        Takes each folder that cannot be listed, and why; without it, the first one is refused.
    above : tuple of str, optional
        Real paths of the folders that led here; by default that of `folder`.
    """
    above = above or (os.path.realpath(folder),)
    try:
        entries = list_folder(folder)
    except DatasetError as error:
        if failures is None:
            raise
        entries, failures[folder] = [], str(error)
    for entry in entries:
        if is_system_name(entry.name):
            leave_out(entry.path, SYSTEM)
        elif is_folder(entry):
            real = os.path.realpath(entry.path)
            if real in above:
                leave_out(entry.path, "is a link to a folder that it lies in")
            else:
                yield from walk_files(entry.path, leave_out, failures=failures, above=(*above, real))
        else:
            yield entry


def is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder or a link to one; a link that leads back to itself is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False
