"""Read the archive's tree of BreakHis: names, headers and contradictions. Reads only, never decodes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from histofeat.datasets.audit import LeftOut
from histofeat.datasets.breakhis.names import (
    CLASSES,
    SUBTYPES,
    TREE,
    ImageName,
    SlideName,
    parse_image,
    parse_magnification,
    parse_slide,
    subtype_of_folder,
)
from histofeat.datasets.image_files import Scan, is_folder, list_folder
from histofeat.datasets.synthetic.cohort_folder import MANIFEST
from histofeat.exceptions import DatasetError, and_more
from histofeat.images import png_size

__all__ = ["FoundImage", "TreeScan", "is_made_up", "scan_breakhis"]

# The folders above the two classes; an archive unpacked twice repeats some of them.
_ABOVE = frozenset({"breakhis_v1", "histology_slides", "breast"})
_DEEPEST = 5
_PROCEDURE = "SOB"
_PNG_END = b"IEND\xaeB`\x82"
_TAIL_BYTES = 1024


class FoundImage(NamedTuple):
    """A usable image: what its name says, where it is, and its size in pixels and bytes."""

    name: ImageName
    path: str
    height: int
    width: int
    n_bytes: int


@dataclass
class TreeScan(Scan):
    """What one walk found; `images` maps what a name says to the image, in the order of subtype, number and so on."""

    images: dict[ImageName, FoundImage] = field(default_factory=dict)
    contradictions: list[str] = field(default_factory=list)
    duplicates: int = 0

    def contradict(self, path: str, expected: str, got: str) -> None:
        """Note that the name of `path` does not say what the folder says that it lies in."""
        self.contradictions.append(f"{self.relative(path)}: expected {expected} as its folder says, got {got}")


def scan_breakhis(root: Path) -> TreeScan:
    """Walk the tree below `root`, which may be the archive's top or any folder down to the one with both classes.

    Parameters
    ----------
    root : Path
        An existing folder.

    Returns
    -------
    scan : TreeScan
        An image that lies there twice under one name counts once, the other as a duplicate.

    Raises
    ------
    DatasetError
        When there is no such tree, a class is missing or holds no usable image, a folder cannot be listed, or a name
        and its folders contradict each other.
    """
    scan = TreeScan(str(root))
    tops = _find_tops(str(root), 0)
    if not tops:
        raise DatasetError(_nothing_found(root))
    for top in tops:
        for label, folder in enumerate(_class_folders(scan, top)):
            _scan_class(scan, folder, bool(label))
    _check_contradictions(scan)
    _check_both_classes(scan)
    scan.images = dict(sorted(scan.images.items(), key=_order))
    return scan


def is_made_up(root: Path) -> bool:
    """Whether the tree at `root` is part of a cohort that histofeat drew."""
    for top in map(Path, _find_tops(str(root), 0)):
        for folder in (top, *top.parents):
            if (folder / MANIFEST).is_file():
                return True
            # Upwards only through the archive's own folders: a mark further up belongs to something else.
            if folder.name.casefold() not in _ABOVE:
                break
    return False


def _order(item: tuple[ImageName, FoundImage]) -> tuple:
    slide, magnification, sequence = item[0]
    return (slide.subtype, int(slide.number), slide.letters, slide.year, magnification, sequence)


def _find_tops(folder: str, depth: int) -> list[str]:
    """Folders that hold ``benign`` or ``malignant``, at `folder` or below it through the archive's own folders."""
    entries = list_folder(folder)
    if any(entry.name in CLASSES for entry in entries):
        return [folder]
    if depth == _DEEPEST:
        return []
    below = (entry.path for entry in entries if entry.name.casefold() in _ABOVE and is_folder(entry))
    return [top for path in below for top in _find_tops(path, depth + 1)]


def _class_folders(scan: TreeScan, top: str) -> list[str]:
    """Paths of benign and malignant, which must both be folders."""
    paths = [str(Path(top) / name) for name in CLASSES]
    for path, other in zip(paths, reversed(CLASSES), strict=True):
        if not Path(path).exists():
            raise DatasetError(
                f"{path}: expected a folder beside {other!r}, got none. The copy is broken: unpack the archive again."
            )
        if not Path(path).is_dir():
            raise DatasetError(
                f"{path}: expected a folder of images, got a file. Remove it and unpack the archive again."
            )
    for entry in list_folder(top):
        if entry.name not in CLASSES and entry.name != MANIFEST:
            scan.leave_out(entry.path, "is neither benign nor malignant (not searched)")
    return paths


def _scan_class(scan: TreeScan, folder: str, malignant: bool) -> None:
    for entry in _folders(scan, folder):
        if entry.name != _PROCEDURE:
            scan.leave_out(entry.path, "is a folder other than SOB in that of a class (not searched)")
            continue
        for below in _folders(scan, entry.path):
            subtype = subtype_of_folder(below.name)
            if subtype is None:
                scan.leave_out(below.path, "is a folder named after no subtype (not searched)")
            elif SUBTYPES[subtype].malignant != malignant:
                scan.contradict(below.path, f"a {CLASSES[malignant]} subtype", f"a {CLASSES[not malignant]} one")
            else:
                _scan_subtype(scan, below.path, subtype)


def _folders(scan: TreeScan, folder: str) -> list[os.DirEntry]:
    entries = list_folder(folder)
    for entry in entries:
        if not is_folder(entry):
            scan.leave_out(entry.path, "is a file outside the magnification folders")
    return [entry for entry in entries if is_folder(entry)]


def _scan_subtype(scan: TreeScan, folder: str, subtype: int) -> None:
    for entry in _folders(scan, folder):
        slide = parse_slide(entry.name)
        if slide is None:
            scan.leave_out(entry.path, "is a folder whose name is no slide (not searched)")
            continue
        if _differs_in_kind(scan, entry.path, slide, subtype):
            continue
        for below in _folders(scan, entry.path):
            magnification = _magnification_of(below.name)
            if magnification is None:
                scan.leave_out(below.path, "is a folder named after no magnification (not searched)")
                continue
            for file in list_folder(below.path):
                _scan_file(scan, file, slide, magnification)


def _magnification_of(folder: str) -> int | None:
    try:
        return parse_magnification(folder) if folder[-1:] in "xX" else None
    except DatasetError:
        return None


def _differs_in_kind(scan: TreeScan, path: str, name: SlideName, subtype: int) -> bool:
    """Note and tell a class or subtype in a name that is not that of the folder."""
    malignant = SUBTYPES[subtype].malignant
    if name.malignant != malignant:
        scan.contradict(path, f"the class {CLASSES[malignant]}", CLASSES[name.malignant])
    elif name.subtype != subtype:
        got = "an unknown code" if name.subtype < 0 else SUBTYPES[name.subtype].word
        scan.contradict(path, f"the subtype {SUBTYPES[subtype].word}", got)
    return name.malignant != malignant or name.subtype != subtype


def _scan_file(scan: TreeScan, file: os.DirEntry, slide: SlideName, magnification: int) -> None:
    name = parse_image(file.name)
    if name is None:
        scan.leave_out(file.path, "has a name that is no BreakHis image name")
        return
    if _differs_in_kind(scan, file.path, name.slide_name, slide.subtype):
        return
    if name.slide_name != slide:
        got = name.slide_name
        scan.contradict(file.path, f"slide {slide.year}-{slide.slide}", f"slide {got.year}-{got.slide}")
    elif name.magnification != magnification:
        scan.contradict(file.path, f"magnification {magnification}X", f"{name.magnification}X")
    elif name in scan.images:
        scan.duplicates += 1
    else:
        _add(scan, file.path, name)


def _add(scan: TreeScan, path: str, name: ImageName) -> None:
    size = png_size(path)
    if not isinstance(size, str) and _is_cut_off(path):
        size = "is cut off (a PNG without its end)"
    if isinstance(size, str):
        # The name stays free: a sound second copy of the same image still counts.
        scan.leave_out(path, size)
    else:
        scan.images[name] = FoundImage(name, path, *size, Path(path).stat().st_size)


def _is_cut_off(path: str) -> bool:
    """Whether the chunk that ends a PNG (W3C PNG specification, 11.2.5) is missing from the end of the file."""
    with Path(path).open("rb") as file:
        file.seek(max(0, Path(path).stat().st_size - _TAIL_BYTES))
        return _PNG_END not in file.read()


def _check_contradictions(scan: TreeScan) -> None:
    if scan.contradictions:
        more = and_more(len(scan.contradictions))
        raise DatasetError(f"{scan.contradictions[0]} in its name{more}. Find out which is right and move it.")


def _check_both_classes(scan: TreeScan) -> None:
    for label, name in enumerate(CLASSES):
        if not any(image.slide_name.malignant == label for image in scan.images):
            groups = "; ".join(f"left out, {group}" for group in LeftOut.group(scan.left_out))
            raise DatasetError(
                f"{scan.root}: expected images of both classes in {TREE}, got 0 {name}"
                f"{f' ({groups})' if groups else ''}. The copy is broken: unpack the archive again."
            )


def _nothing_found(root: Path) -> str:
    entries = list_folder(str(root))
    below = [entry.name for entry in entries if is_folder(entry) and _find_tops(entry.path, 0)]
    above = [parent for parent in list(root.parents)[: _DEEPEST + 1] if _holds_classes(parent)]
    remedy = "Give the folder that holds BreaKHis_v1, or the one that holds benign and malignant."
    if below:
        remedy = f"Did you mean {str(root / below[0])!r}?"
    elif above:
        remedy = f"Did you mean {str(above[0])!r}?"
    got = "other files and folders" if entries else "an empty folder"
    return f"{root}: expected a folder with {TREE}, got {got}. {remedy}"


def _holds_classes(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in CLASSES)
