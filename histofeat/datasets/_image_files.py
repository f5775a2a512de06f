"""Find image files: by name, in folders and by patterns; find files with the same content."""

import glob
import hashlib
import os
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

from histofeat.exceptions import DatasetError, and_more
from histofeat.images import image_size as image_size

#: Endings of the formats that `histofeat.images._decoding` reads, in lower case.
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


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
            self.leave_out(path, size)
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
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except OSError:
        return None


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


def is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder or a link to one; a link that leads back to itself is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


@dataclass(frozen=True)
class ImageList:
    """Image files in a fixed order.

    Parameters
    ----------
    paths : tuple of str
        As they were named: what lies in a folder begins with the name of the folder.
    n_ignored : int
        Files in folders that are no image by their suffix.
    """

    paths: tuple[str, ...]
    n_ignored: int = 0

    def __len__(self) -> int:
        return len(self.paths)


def list_images(inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> ImageList:
    """List the images that files, folders and patterns name.

    Parameters
    ----------
    inputs : path, pattern, or sequence of these
        A file is taken with any suffix; a folder is searched at all depths for files that are images by their
        suffix, hidden ones left out; a pattern such as ``slides/*/*.png`` (``**`` for folders of any depth) stands for
        the files that match.

    Returns
    -------
    images : ImageList
        The inputs in their order, what each stands for sorted by name, nothing twice.

    Raises
    ------
    DatasetError
        If an input is not there, or holds no image.

    Examples
    --------
    >>> from histofeat import make_cohort
    >>> cohort = make_cohort(n_patients=2, patches_per_patient=4)
    >>> len(list_images(cohort.root)), len(list_images(f"{cohort.root}/*/1/*.png"))
    (8, 3)
    """
    inputs = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    if not inputs:
        raise DatasetError("images: expected a file, a folder or a pattern, got none. Name one at least.")
    paths: dict[str, None] = {}
    n_ignored = 0
    for given in map(os.fspath, inputs):
        found, ignored = _listed(given)
        if not found:
            raise DatasetError(
                f"{given}: expected images ({', '.join(IMAGE_SUFFIXES)}), got none among {ignored:,} files. "
                "Correct the path, or name the files themselves."
            )
        paths.update(dict.fromkeys(found))
        n_ignored += ignored
    return ImageList(tuple(paths), n_ignored)


def _listed(given: str) -> tuple[list[str], int]:
    path = Path(given).expanduser()
    if path.is_file():
        return [str(path)], 0
    if path.is_dir():
        return _below(path)
    if not glob.has_magic(given):
        raise DatasetError(f"{given}: expected an image, a folder or a pattern, found no such file. Correct the path.")
    matched = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - pathlib knows no absolute patterns
    if not matched:
        raise DatasetError(f"{given}: expected a pattern that matches files, got one without a match. Correct it.")
    found, n_ignored = [], 0
    for path in map(Path, matched):
        if path.is_file():
            below, ignored = ([str(path)], 0) if is_image_name(path.name) else ([], 1)
        else:  # `**` has matched the files of its folders, too
            below, ignored = _below(path) if "**" not in given else ([], 0)
        found += below
        n_ignored += ignored
    return found, n_ignored


def _below(folder: Path) -> tuple[list[str], int]:
    found, n_ignored = [], 0
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_system_name(name)]
        shown = [name for name in files if not is_system_name(name)]
        found += [str(Path(parent) / name) for name in shown if is_image_name(name)]
        n_ignored += sum(not is_image_name(name) for name in shown)
    return sorted(found), n_ignored
