"""The archive's tree of BreakHis: its names, and a walk that finds images and contradictions. Decodes nothing."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from histofeat.datasets._audit import LeftOut
from histofeat.datasets._image_files import Scan, is_folder, list_folder
from histofeat.datasets.synthetic._cohort_folder import MANIFEST
from histofeat.exceptions import DatasetError, check_that
from histofeat.images import png_size

TREE = "{benign,malignant}/SOB/SUBTYPE/SOB_B_A_14-22549AB/40X/SOB_B_A-14-22549AB-40-001.png"
CLASSES = ("benign", "malignant")
MAGNIFICATIONS = (40, 100, 200, 400)
#: Micrometres per pixel at each magnification: a camera with pixels of 6.5 micrometres behind a relay lens of 3.3X and
#: an objective of a tenth of the magnification. As given by Spanhol et al. 2016, not checked against the paper's table.
#: They are those of images in the published size: 700 px wide, of one of these heights.
PUBLISHED_WIDTH, PUBLISHED_HEIGHTS = 700, range(456, 461)
BREAKHIS_MPP = {40: 0.49, 100: 0.20, 200: 0.10, 400: 0.05}
#: First number of a drawn patient: above every number of BreakHis, whose highest has five digits.
FIRST_DRAWN = 900_001
_POWERS = {str(power): power for power in MAGNIFICATIONS}


class Subtype(NamedTuple):
    """One of the eight tumours: code in the names, word, and whether it is malignant."""

    code: str
    word: str
    malignant: bool

    @property
    def folder(self) -> str:
        """Name of its folder in the archive."""
        return self.word.replace(" ", "_")


#: In the order of the labels: benign first, and by name within each.
SUBTYPES = (
    Subtype("A", "adenosis", False),
    Subtype("F", "fibroadenoma", False),
    Subtype("PT", "phyllodes tumor", False),
    Subtype("TA", "tubular adenoma", False),
    Subtype("DC", "ductal carcinoma", True),
    Subtype("LC", "lobular carcinoma", True),
    Subtype("MC", "mucinous carcinoma", True),
    Subtype("PC", "papillary carcinoma", True),
)

# The folders above the two classes; an archive unpacked twice repeats some of them.
_ABOVE = frozenset({"breakhis_v1", "histology_slides", "breast"})
_DEEPEST = 5
_PNG_END = b"IEND\xaeB`\x82"
_TAIL_BYTES = 1024
_CODES = {subtype.code: position for position, subtype in enumerate(SUBTYPES)}
_FOLDERS = {subtype.folder: position for position, subtype in enumerate(SUBTYPES)}
# Any letters for the class and the subtype, so that names that contradict themselves are found.
_WHAT = r"SOB_([BM])_([A-Z]{1,2})"
_SLIDE = r"([0-9]{2})-([0-9]{1,9})([A-Z]{0,3})"
#: Class, subtype and slide as published, for tables of names.
SLIDE = rf"{_WHAT}[-_](?P<slide>{_SLIDE})"
_IMAGE_NAME = re.compile(rf"{_WHAT}-{_SLIDE}-(40|100|200|400)-([0-9]{{1,6}})\.png", re.ASCII | re.IGNORECASE)
_SLIDE_NAME = re.compile(rf"{_WHAT}[-_]{_SLIDE}", re.ASCII | re.IGNORECASE)


class SlideName(NamedTuple):
    """What the name of a slide's folder says; `subtype` is a position in `SUBTYPES`, or -1 for an unknown code."""

    malignant: bool
    subtype: int
    year: str
    number: str
    letters: str

    @property
    def slide(self) -> str:
        """Full id of the slide, such as ``"22549AB"``."""
        return self.number + self.letters


class ImageName(NamedTuple):
    """What the name of a file says: its slide, magnification and number in the sequence."""

    slide_name: SlideName
    magnification: int
    sequence: int


def parse_image(name: str) -> ImageName | None:
    """Parts of a file name of BreakHis, or None for any other name.

    Examples
    --------
    >>> name = parse_image("SOB_B_A-14-22549AB-40-001.png")
    >>> name.slide_name.slide, name.slide_name.number, SUBTYPES[name.slide_name.subtype].word
    ('22549AB', '22549', 'adenosis')
    >>> parse_image("thumbs.db") is None
    True
    """
    match = _IMAGE_NAME.fullmatch(name)
    if match is None:
        return None
    *slide, magnification, sequence = match.groups()
    return ImageName(_slide_name(slide), int(magnification), int(sequence))


def parse_slide(name: str) -> SlideName | None:
    """Parts of the name of a slide's folder, or None for any other name.

    Examples
    --------
    >>> parse_slide("SOB_M_PC_15-190EF").slide
    '190EF'
    """
    match = _SLIDE_NAME.fullmatch(name)
    return None if match is None else _slide_name(match.groups())


def _slide_name(parts: Any) -> SlideName:
    letter, code, year, number, letters = parts
    return SlideName(letter.upper() == "M", _CODES.get(code.upper(), -1), year, number, letters.upper())


def parse_magnification(value: Any) -> int | None:
    """One of 40, 100, 200 and 400 from a number or a text such as ``"40X"``; None for all of them.

    Raises
    ------
    DatasetError
        When it is none of the four.

    Examples
    --------
    >>> parse_magnification("40X"), parse_magnification(400), parse_magnification(None)
    (40, 400, None)
    """
    if value is None or value == "all":
        return None
    power = _POWERS.get(str(value).strip().upper().removesuffix("X"))
    expected, remedy = "40, 100, 200, 400 (or '40X' and so on), or 'all'", "BreakHis has these four."
    check_that("load_breakhis.magnification", value, power, expected, remedy, error=DatasetError)
    return power


def scan_breakhis(root: Path) -> Scan:
    """Walk the tree below `root`, which may be the archive's top or any folder down to the one with both classes.

    Parameters
    ----------
    root : Path
        An existing folder.

    Returns
    -------
    scan : Scan
        Keys are `ImageName`: an image that lies there twice under one name counts once, the other as a duplicate.

    Raises
    ------
    DatasetError
        When there is no such tree, a class is missing or holds no usable image, a folder cannot be listed, or a name
        and its folders contradict each other.
    """
    scan = Scan(str(root), "is a file outside the magnification folders")
    tops = _find_tops(str(root), 0)
    if not tops:
        raise DatasetError(_nothing_found(root))
    for top in tops:
        for label, folder in enumerate(_class_folders(scan, top)):
            _scan_class(scan, folder, bool(label))
    scan.refuse_contradictions()
    _check_both_classes(scan)
    return scan


def is_made_up(root: Path) -> bool:
    """Whether the tree at `root` is part of a cohort that histofeat drew."""
    folders = (folder for top in _find_tops(str(root), 0) for folder in archive_folders(Path(top)))
    return any((folder / MANIFEST).is_file() for folder in folders)


def archive_folders(top: Path) -> Iterator[Path]:
    """Yield the folder of the two classes, and those above it up to the one that the archive was unpacked in."""
    for folder in (top, *top.parents):
        yield folder
        # What lies further up belongs to something else.
        if folder.name.casefold() not in _ABOVE:
            return


def _find_tops(folder: str, depth: int) -> list[str]:
    """Folders that hold ``benign`` or ``malignant``, at `folder` or below it through the archive's own folders."""
    entries = list_folder(folder)
    if any(entry.name in CLASSES for entry in entries):
        return [folder]
    if depth == _DEEPEST:
        return []
    below = (entry.path for entry in entries if entry.name.casefold() in _ABOVE and is_folder(entry))
    return [top for path in below for top in _find_tops(path, depth + 1)]


def _class_folders(scan: Scan, top: str) -> list[str]:
    """Paths of benign and malignant, which must both be folders."""
    paths = [str(Path(top) / name) for name in CLASSES]
    for path, other in zip(paths, reversed(CLASSES), strict=True):
        if not Path(path).is_dir():
            wrong = "got a file: remove it" if Path(path).exists() else "got none: the copy is broken"
            raise DatasetError(f"{path}: expected a folder beside {other!r}, {wrong}. Unpack the archive again.")
    for entry in list_folder(top):
        if entry.name not in CLASSES and entry.name != MANIFEST:
            scan.leave_out(entry.path, "is neither benign nor malignant (not searched)")
    return paths


def _scan_class(scan: Scan, folder: str, malignant: bool) -> None:
    for procedure, _ in scan.folders(folder, {"SOB": True}.get, "is a folder other than SOB in that of a class"):
        for below, subtype in scan.folders(procedure, _FOLDERS.get, "is a folder named after no subtype"):
            if SUBTYPES[subtype].malignant != malignant:
                scan.contradict(below, f"a {CLASSES[malignant]} subtype", f"a {CLASSES[not malignant]} one")
            else:
                _scan_subtype(scan, below, subtype)


def _scan_subtype(scan: Scan, folder: str, subtype: int) -> None:
    for below, slide in scan.folders(folder, parse_slide, "is a folder whose name is no slide"):
        if _differs_in_kind(scan, below, slide, subtype):
            continue
        for images, power in scan.folders(below, _power_of_folder, "is a folder named after no magnification"):
            for path, name in scan.files(images, parse_image, "has a name that is no BreakHis image name"):
                _scan_file(scan, path, name, slide, power)


def _power_of_folder(name: str) -> int | None:
    return _POWERS.get(name[:-1]) if name.endswith(("x", "X")) else None


def _differs_in_kind(scan: Scan, path: str, name: SlideName, subtype: int) -> bool:
    """Note, and return whether there is, a class or subtype in a name that is not that of the folder."""
    malignant = SUBTYPES[subtype].malignant
    if name.malignant != malignant:
        scan.contradict(path, f"the class {CLASSES[malignant]}", CLASSES[name.malignant])
    elif name.subtype != subtype:
        got = "an unknown code" if name.subtype < 0 else SUBTYPES[name.subtype].word
        scan.contradict(path, f"the subtype {SUBTYPES[subtype].word}", got)
    return name.malignant != malignant or name.subtype != subtype


def _scan_file(scan: Scan, path: str, name: ImageName, slide: SlideName, magnification: int) -> None:
    got = name.slide_name
    if _differs_in_kind(scan, path, got, slide.subtype):
        return
    if got != slide:
        scan.contradict(path, f"slide {slide.year}-{slide.slide}", f"slide {got.year}-{got.slide}")
    elif name.magnification != magnification:
        scan.contradict(path, f"magnification {magnification}X", f"{name.magnification}X")
    else:
        scan.take(name, path, _whole_png_size)


def _whole_png_size(path: str) -> tuple[int, int] | str:
    """(height, width) of a PNG whose end (W3C PNG specification, 11.2.5) is there, or the reason why there is none."""
    size = png_size(path)
    if isinstance(size, str):
        return size
    with Path(path).open("rb") as file:
        file.seek(max(0, Path(path).stat().st_size - _TAIL_BYTES))
        return size if _PNG_END in file.read() else "is cut off (a PNG without its end)"


def _check_both_classes(scan: Scan) -> None:
    for label, name in enumerate(CLASSES):
        if not any(image.slide_name.malignant == label for image in scan.found):
            groups = "; ".join(f"left out, {group}" for group in LeftOut.group(scan.left_out))
            raise DatasetError(
                f"{scan.root}: expected images of both classes in {TREE}, got 0 {name}"
                f"{f' ({groups})' if groups else ''}. The copy is broken: unpack the archive again."
            )


def _nothing_found(root: Path) -> str:
    entries = list_folder(str(root))
    near = [entry.path for entry in entries if is_folder(entry) and _find_tops(entry.path, 0)]
    near += [str(parent) for parent in list(root.parents)[: _DEEPEST + 1] if _holds_classes(parent)]
    remedy = "Give the folder that holds BreaKHis_v1, or the one that holds benign and malignant."
    if near:
        remedy = f"Did you mean {near[0]!r}?"
    got = "other files and folders" if entries else "an empty folder"
    return f"{root}: expected a folder with {TREE}, got {got}. {remedy}"


def _holds_classes(folder: Path) -> bool:
    return all((folder / name).is_dir() for name in CLASSES)
