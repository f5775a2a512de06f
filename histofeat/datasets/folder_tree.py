"""Walk PART/CLASS/.../NAME or CLASS/.../NAME: find the parts, the classes and the images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from histofeat.datasets.image_files import (
    IMAGE_SUFFIXES,
    Scan,
    is_folder,
    is_image_name,
    is_system_name,
    list_folder,
)
from histofeat.datasets.parts import PARTS, part_named
from histofeat.exceptions import DatasetError
from histofeat.images import image_size

__all__ = ["FolderTree", "FoundImage", "read_folder_tree"]

LAYOUT = "{train,validation,test}/CLASS/.../IMAGE or CLASS/.../IMAGE"

_SYSTEM = "is hidden or left behind by a file browser"
_OUTSIDE = "is a file outside the class folders"


class FoundImage(NamedTuple):
    """An image in a class folder: absolute path, part (None without parts), class folder, path below it, size."""

    path: str
    part: str | None
    folder: str
    inner: str
    height: int
    width: int


@dataclass
class FolderTree(Scan):
    """What one walk found; `empty` are class folders without an image, relative to the root."""

    images: list[FoundImage] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    has_parts: bool = False


def read_folder_tree(root: Path, wanted: Sequence[str] | None = None, ignore: frozenset[str] = frozenset()):
    """Walk a folder of class folders, or of train, validation and test folders with class folders in each.

    Parameters
    ----------
    root : Path
        An existing folder.
    wanted : sequence of str, optional
        Names of the class folders to read; None reads all.
    ignore : frozenset of str
        Names of files at the top that are not worth a line in the audit.

    Returns
    -------
    tree : FolderTree

    Raises
    ------
    DatasetError
        When a folder cannot be listed, when folders of both layouts lie side by side, or images lie where the class
        folders should be.
    """
    tree = FolderTree(str(root))
    folders = _folders_of(tree, tree.root, ignore)
    parts = {entry: part for entry in folders if (part := part_named(entry.name)) is not None}
    tree.has_parts = _has_parts(root, folders, parts, wanted)
    if not tree.has_parts:
        _read_classes(tree, folders, None, wanted)
        return tree
    _refuse_two_of_one_part(root, parts)
    for entry in folders:
        if entry not in parts:
            tree.leave_out(entry.path, "is a folder beside those of the parts (not searched)")
    for entry, part in sorted(parts.items(), key=lambda item: PARTS.index(item[1])):
        found = _folders_of(tree, entry.path)
        if not found:
            _refuse_images_of_no_class(root, entry)
        _read_classes(tree, found, part, wanted)
    return tree


def _has_parts(root: Path, folders: list, parts: dict, wanted: Sequence[str] | None) -> bool:
    """Whether the folders at the top are parts; a class may have the name of a part, if it is asked for by name."""
    if not parts or {entry.name for entry in parts} & set(wanted or ()):
        return False
    others = [entry.name for entry in folders if entry not in parts]
    if not others:
        return True
    if wanted is None:
        first = min(entry.name for entry in parts)
        raise DatasetError(
            f"{root}: expected either folders of parts or folders of classes, got {first!r} beside {others[0]!r} "
            f"({len(parts)} and {len(others)} such folders). If {first!r} is a class, pass classes= with all names; if "
            "it is a part, move the others elsewhere, or name the classes inside the parts by classes=."
        )
    return not set(others) & set(wanted)


def _refuse_two_of_one_part(root: Path, parts: dict) -> None:
    by_part: dict[str, list[str]] = {}
    for entry, part in parts.items():
        by_part.setdefault(part, []).append(entry.name)
    twice = [names for names in by_part.values() if len(names) > 1]
    if twice:
        raise DatasetError(
            f"{root}: expected one folder for each part, got {twice[0][0]!r} and {twice[0][1]!r}. Put them together."
        )


def _refuse_images_of_no_class(root: Path, part: os.DirEntry) -> None:
    n = sum(is_image_name(entry.name) for entry in list_folder(part.path))
    if n:
        raise DatasetError(
            f"{root}: expected class folders in {part.name!r}, got {n:,} images and no folder. Sort them into class "
            f"folders, use load_manifest, or, if {part.name!r} is itself a class, pass classes= with all names."
        )


def _read_classes(tree: FolderTree, folders: list, part: str | None, wanted: Sequence[str] | None) -> None:
    for entry in folders:
        if wanted is not None and entry.name not in wanted:
            tree.leave_out(entry.path, "is a folder of no class in classes= (not searched)")
            continue
        before = len(tree.images)
        _walk(tree, entry.path, (os.path.realpath(entry.path),), part, entry.name, entry.path)
        if entry.name not in tree.folders:
            tree.folders.append(entry.name)
        if len(tree.images) == before:
            tree.empty.append(tree.relative(entry.path))


def _walk(tree: FolderTree, folder: str, above: tuple[str, ...], part: str | None, name: str, top: str) -> None:
    """Take the images below a class folder; `above` are the real paths of the folders that led here."""
    for entry in list_folder(folder):
        if is_system_name(entry.name):
            tree.leave_out(entry.path, _SYSTEM)
        elif is_folder(entry):
            real = os.path.realpath(entry.path)
            if real in above:
                tree.leave_out(entry.path, "is a link to a folder that it lies in")
            else:
                _walk(tree, entry.path, (*above, real), part, name, top)
        else:
            _take(tree, entry, part, name, top)


def _take(tree: FolderTree, entry: os.DirEntry, part: str | None, name: str, top: str) -> None:
    if not _is_file(entry):
        exists = Path(entry.path).exists()
        tree.leave_out(entry.path, "is no regular file" if exists else "is a link to nothing")
        return
    if not _is_text(entry.path):
        tree.leave_out(entry.path, "has a name that is no UTF-8 text")
        return
    if not is_image_name(entry.name):
        tree.leave_out(entry.path, f"has a name that ends in none of {', '.join(IMAGE_SUFFIXES)}")
        return
    size = image_size(entry.path)
    if isinstance(size, str):
        tree.leave_out(entry.path, size)
        return
    inner = entry.path[len(top) + 1 :].replace(os.sep, "/")
    tree.images.append(FoundImage(entry.path, part, name, inner, *size))


def _is_file(entry: os.DirEntry) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _is_text(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _folders_of(tree: FolderTree, folder: str, ignore: frozenset[str] = frozenset()) -> list[os.DirEntry]:
    """Folders in a folder; the files beside them are left out."""
    folders = []
    for entry in list_folder(folder):
        if entry.name in ignore:
            continue
        if is_system_name(entry.name):
            tree.leave_out(entry.path, _SYSTEM)
        elif is_folder(entry):
            folders.append(entry)
        else:
            tree.leave_out(entry.path, _OUTSIDE)
    return folders
