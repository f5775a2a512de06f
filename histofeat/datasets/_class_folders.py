"""Load folders of images sorted by class, with or without train, validation and test folders above."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from histofeat.datasets._audit import DatasetAudit, LeftOut, facts_of, table_notes
from histofeat.datasets._base import PatchDataset
from histofeat.datasets._idc import mpp_by_name
from histofeat.datasets._image_files import (
    IMAGE_SUFFIXES,
    SYSTEM,
    Scan,
    add_scale,
    existing_folder,
    fold_case,
    is_folder,
    is_image_name,
    is_system_name,
    list_folder,
    refuse_failures,
    walk_files,
)
from histofeat.datasets._parts import PARTS, part_named
from histofeat.datasets._patients import COST_OF_NO_PATIENTS, EACH_IMAGE, PATIENTS_UNKNOWN, PatientRule
from histofeat.datasets._positive_class import class_mapping, in_order, mapped_positive
from histofeat.datasets.synthetic._cohort_folder import MANIFEST
from histofeat.exceptions import DatasetError, and_more, refuse_first
from histofeat.images import image_size

LAYOUT = "{train,validation,test}/CLASS/.../IMAGE or CLASS/.../IMAGE"


def load_image_folder(
    root: str | os.PathLike[str],
    *,
    patients: str | os.PathLike[str] | Mapping[str, str] | None = None,
    classes: Sequence[str] | Mapping[str, str] | str | None = None,
    positive: str | None = None,
    name: str | None = None,
    labels_per: str = "patch",
    on_error: str = "skip",
    mpp: float | None = None,
) -> PatchDataset:
    r"""Read a folder of class folders, or of train, validation and test folders with class folders in each.

    Parameters
    ----------
    root : path
        Folder that holds ``CLASS/.../IMAGE``, or ``{train,validation,test}/CLASS/.../IMAGE``. "training", "val",
        "valid" and "testing" are understood, in any case. It is only read.
    patients : str, path or mapping
        How to find the patient of an image, see `PatientRule`; one of:

        - a regular expression with one group, or with a group named ``patient``, searched in the path of the image
          below its class folder, written with forward slashes: ``r"^([0-9]+)_"`` for names of IDC,
          ``r"([0-9]+)[A-Z]*-[0-9]+-[0-9]+\.png$"`` for those of BreakHis;
        - ``"folder"``: the folder that the image lies in;
        - ``"tcga"``: the first 12 characters of the TCGA barcode in its path, project, site and patient;
        - a CSV with the columns ``path`` (below `root`, or absolute) and ``patient``: a path object, a name that ends
          in ``.csv``, or an existing file, here or below `root`;
        - a mapping of path to patient;
        - ``"image"``: patients are unknown; each image counts as its own patient. Warns, and is written into the
          name of the data set and into every report, because the scores are then too good and the intervals too narrow.
    classes : sequence of str, mapping of str to str, or str, optional
        Class folders in the order of their codes; folder to class name, which may bring several folders together; or a
        text such as ``"normal,tumour=idc+ilc"``. Others are left out. By default all folders: in the order of the CSV
        of `patients` where `split_dataset` wrote it, else as numbers or by name.
    positive : str, optional
        The positive class of two; by default the name that tells, see `choose_positive`.
    name : str, optional
        Name of the data set; by default that of the folder.
    labels_per : {"patch", "patient"}, default="patch"
        See `PatchDataset`.
    on_error : {"raise", "skip"}, default="skip"
        What is done about files that are images by their names and cannot be read by their first bytes: the first one
        is refused, or they are left out and listed in ``audit.failures``.
    mpp : float, optional
        Micrometres per pixel of the images; by default those of patches of IDC and BreakHis, known by their names, and
        those that headers tell, see `image_mpp`.

    Returns
    -------
    PatchDataset
        Sorted by part, class and path, with the columns ``height`` and ``width`` (pixels, from the file headers), and
        ``part`` ("train", "validation" or "test") where there are parts: see `predefined_split`.

    Raises
    ------
    DatasetError
        When the folder is missing, is a file or cannot be listed; when `patients` is missing or unusable, or gives none
        for some image; when there are fewer than two classes, a class without an image, classes that differ only in
        case, or folders that may be parts or classes; when an image cannot be read, with ``on_error="raise"``.

    Notes
    -----
    - PNG, JPEG, TIFF, BMP and WebP are recognised by their first bytes. Left out and counted: hidden files and folders,
      ``Thumbs.db`` and the like, other names, files that are empty, unreadable or no image, links to nothing, and
      links that lead back to a folder they lie in. Other links are followed.
    - Noted in the audit: files of the same content (also in two classes or two parts), patients in two parts,
      names that differ only in case, and parts without a class.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> root = Path(tempfile.mkdtemp())
    >>> for file in ("benign/7_a.png", "benign/8_a.png", "malignant/9_a.png"):
    ...     (root / file).parent.mkdir(exist_ok=True)
    ...     Image.new("RGB", (8, 8)).save(root / file)
    >>> load_image_folder(root, patients=r"^([0-9]+)_", name="mine").audit.n_patients
    3
    """
    folder = existing_folder(root, "load_image_folder.root", LAYOUT)
    rule = PatientRule.of(patients, folder)
    class_of = None if classes is None else class_mapping("load_image_folder.classes", classes, 2)
    ignore = {MANIFEST} | ({rule.file.name} if rule.file is not None else set())
    tree = read_folder_tree(folder, None if class_of is None else tuple(class_of), frozenset(ignore))
    _refuse_none(folder, tree)
    refuse_failures(tree.failures, on_error)
    if class_of is None:
        _refuse_patient_folders(folder, tree)
    written = rule.classes is not None and set(rule.classes) == set(tree.folders)
    class_of = class_of or {entry: entry for entry in (rule.classes if written else in_order(tree.folders))}
    target_names = tuple(dict.fromkeys(class_of.values()))
    _check_classes(folder, tree, class_of, target_names)
    frame, names = _to_frame(tree, class_of, target_names, rule)
    frame = add_scale(frame, mpp, "load_image_folder", mpp_by_name)
    each_image = patients == EACH_IMAGE and isinstance(patients, str)
    notes = _notes(tree, frame, names, target_names, each_image)
    if name is None:
        name = f"{folder.name}, patients unknown" if each_image else folder.name
    if each_image:
        warnings.warn(f"load_image_folder: each image counts as its own patient. {COST_OF_NO_PATIENTS}", stacklevel=2)
    audit = DatasetAudit.from_frame(frame, target_names, name, notes=notes, **facts_of(tree))
    more = (folder / MANIFEST).is_file(), labels_per, rule
    return PatchDataset(frame, target_names, name, folder, audit, *more, positive=positive or mapped_positive(class_of))


def _refuse_none(folder: Path, tree: FolderTree) -> None:
    if tree.folders:
        return
    groups = "; ".join(f"left out, {group}" for group in LeftOut.group(tree.left_out))
    n_images = sum(is_image_name(path) and "/" not in path for _, path in tree.left_out)
    remedy = "Images without class folders need load_manifest." if n_images else "Check the path."
    raise DatasetError(f"{folder}: expected {LAYOUT}, got no class folder ({groups or 'it is empty'}). {remedy}")


def _refuse_patient_folders(folder: Path, tree: FolderTree) -> None:
    """Refuse PATIENT/{0,1}/IMAGE, where each patient would become a class."""
    labels = {image.inner.partition("/")[0] for image in tree.images}
    if labels == {"0", "1"} and not tree.has_parts and all(name.isdecimal() for name in tree.folders):
        raise DatasetError(
            f"{folder}: expected {LAYOUT}, got numbered folders with 0 and 1 in them ({tree.folders[0]!r} and "
            f"{len(tree.folders) - 1:,} more). Load the tree of IDC, PATIENT/{{0,1}}/IMAGE, with load_idc; if the "
            "numbers are classes, name them by classes=."
        )


def _check_classes(folder: Path, tree: FolderTree, class_of: Mapping[str, str], target_names: Sequence[str]) -> None:
    absent = (entry for entry in class_of if entry not in tree.folders)
    expected, remedy = "load_image_folder.classes: expected names of class folders, got", f"Give folders of {folder}."
    refuse_first(absent, expected, remedy, error=DatasetError)
    if len(target_names) < 2:
        raise DatasetError(
            f"{folder}: expected folders of two or more classes, got only {tree.folders[0]!r}. "
            f"{_one_class(folder, tree)}"
        )
    by_case: dict[str, str] = {}
    for entry, label in class_of.items():
        other = by_case.setdefault(fold_case(entry), entry)
        if class_of[other] != label:
            raise DatasetError(
                f"{folder}: expected class folders that differ in more than case, got {other!r} and {entry!r}. Rename "
                f"one, or bring them together: classes={{{other!r}: {other!r}, {entry!r}: {other!r}, ...}}."
            )
    filled = {class_of[image.folder] for image in tree.images}
    bare = [label for label in target_names if label not in filled]
    if bare:
        first = next(entry for entry, label in class_of.items() if label == bare[0])
        groups = "; ".join(map(str, LeftOut.group(e for e in tree.left_out if f"/{first}/" in f"/{e[1]}")))
        raise DatasetError(
            f"{folder}: expected an image in each class, got 0 in the folder {first!r}"
            f"{and_more(len(bare))} ({groups or 'it is empty'}). Fill or remove it, or name the classes to read "
            "by classes=."
        )


def _one_class(folder: Path, tree: FolderTree) -> str:
    below = folder / tree.folders[0]
    inside = [child.name for child in sorted(below.iterdir()) if child.is_dir()] if below.is_dir() else []
    if len(inside) > 1 or any(part_named(child) for child in inside):
        return f"Did you mean {str(below)!r}? The archives of IDC and BreakHis have loaders of their own."
    return "Add the folder of another class: nothing can be learnt from one."


def _to_frame(tree: FolderTree, class_of: Mapping[str, str], target_names: Sequence[str], rule: PatientRule):
    """Table of the images and their relative paths, sorted by part, class and path: the same on every file system."""
    frame = pd.DataFrame(tree.images, columns=FoundImage._fields).assign(x=pd.NA, y=pd.NA)
    frame["name"] = frame["path"].map(tree.relative)
    frame["label"] = frame["folder"].map({entry: target_names.index(label) for entry, label in class_of.items()})
    frame["order"] = frame["part"].map(PARTS.index) if tree.has_parts else 0
    frame = frame.sort_values(["order", "label", "name"], ignore_index=True)
    names = frame["name"].tolist()
    frame["patient"] = rule.of_tree(names, frame["inner"].tolist())
    columns = ["path", "label", "patient", "x", "y", "height", "width", *(["part"] if tree.has_parts else [])]
    return frame[columns], names


def _notes(tree: FolderTree, frame: pd.DataFrame, names: list[str], target_names, each_image: bool) -> tuple[str, ...]:
    notes = []
    if each_image:
        notes.append(PATIENTS_UNKNOWN)
    elif frame["patient"].nunique() == len(frame):
        notes.append(
            "Each image has a patient of its own. If that is not so, patients= reads the number of the image and not "
            "that of the patient."
        )
    if tree.empty:
        notes.append(f"Class folders without an image: {tree.empty[0]!r}{and_more(len(tree.empty))}.")
    inner = {image.inner.split("/")[0] for image in tree.images if "/" in image.inner}
    if not tree.has_parts and inner and all(part_named(name) for name in inner):
        notes.append(
            "Class folders hold folders named like parts, which are read as one: the split they may stand for is not "
            "used. Put the parts above the classes."
        )
    return (*notes, *table_notes(frame, names, target_names))


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
    if others and wanted is None:
        first = min(entry.name for entry in parts)
        raise DatasetError(
            f"{root}: expected either folders of parts or folders of classes, got {first!r} beside {others[0]!r} "
            f"({len(parts)} and {len(others)} such folders). If {first!r} is a class, pass classes= with all names; if "
            "it is a part, move the others elsewhere, or name the classes inside the parts by classes=."
        )
    return not set(others) & set(wanted or ())


def _refuse_two_of_one_part(root: Path, parts: dict) -> None:
    first: dict[str, str] = {}
    for entry, part in parts.items():
        other = first.setdefault(part, entry.name)
        if other != entry.name:
            raise DatasetError(
                f"{root}: expected one folder for each part, got {other!r} and {entry.name!r}. Put them together."
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
        images = []
        for file in walk_files(entry.path, tree.leave_out):
            if unusable := _why_unusable(file):
                tree.leave_out(file.path, unusable)
            elif isinstance(size := image_size(file.path), str):
                tree.fail(file.path, size)
            else:
                inner = file.path[len(entry.path) + 1 :].replace(os.sep, "/")
                images.append(FoundImage(file.path, part, entry.name, inner, *size))
        tree.images += images
        if entry.name not in tree.folders:
            tree.folders.append(entry.name)
        if not images:
            tree.empty.append(tree.relative(entry.path))


def _why_unusable(entry: os.DirEntry) -> str | None:
    """Reason to leave out a file that need not be opened for it."""
    if entry.path.encode("utf-8", "replace").decode() != entry.path:
        return "has a name that is no UTF-8 text"
    return None if is_image_name(entry.name) else f"has a name that ends in none of {', '.join(IMAGE_SUFFIXES)}"


def _folders_of(tree: FolderTree, folder: str, ignore: frozenset[str] = frozenset()) -> list[os.DirEntry]:
    """Folders in a folder; the files beside them are left out."""
    entries = [entry for entry in list_folder(folder) if entry.name not in ignore]
    folders = [entry for entry in entries if is_folder(entry) and not is_system_name(entry.name)]
    for entry in entries:
        if entry not in folders:
            tree.leave_out(entry.path, SYSTEM if is_system_name(entry.name) else tree.outside)
    return folders
