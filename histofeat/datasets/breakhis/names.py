"""Names of BreakHis: eight subtypes, four magnifications, and the parts of file and slide names."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from histofeat.exceptions import DatasetError

__all__ = [
    "CLASSES",
    "MAGNIFICATIONS",
    "SUBTYPES",
    "TREE",
    "ImageName",
    "SlideName",
    "Subtype",
    "parse_image",
    "parse_magnification",
    "parse_slide",
    "subtype_of_folder",
]

TREE = "{benign,malignant}/SOB/SUBTYPE/SOB_B_A_14-22549AB/40X/SOB_B_A-14-22549AB-40-001.png"
CLASSES = ("benign", "malignant")
MAGNIFICATIONS = (40, 100, 200, 400)


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

_CODES = {subtype.code: position for position, subtype in enumerate(SUBTYPES)}
_FOLDERS = {subtype.folder: position for position, subtype in enumerate(SUBTYPES)}
# Any letters in the place of the class and the subtype: names that contradict themselves are found, not passed over.
_WHAT = r"SOB_([BM])_([A-Z]{1,2})"
_SLIDE = r"([0-9]{2})-([0-9]{1,9})([A-Z]{0,3})"
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


def subtype_of_folder(name: str) -> int | None:
    """Position in `SUBTYPES` of a subtype's folder, or None.

    Examples
    --------
    >>> subtype_of_folder("ductal_carcinoma"), subtype_of_folder("SOB")
    (4, None)
    """
    return _FOLDERS.get(name)


def parse_magnification(value: Any) -> int | None:
    """One of 40, 100, 200 and 400 from a number or a text such as ``"40X"``; None stays None.

    Raises
    ------
    DatasetError
        When it is none of the four.

    Examples
    --------
    >>> parse_magnification("40X"), parse_magnification(400), parse_magnification(None)
    (40, 400, None)
    """
    if value is None:
        return None
    if isinstance(value, str):
        text = value.strip().upper().removesuffix("X")
    else:
        text = "" if isinstance(value, bool) else str(value)
    if text not in {str(known) for known in MAGNIFICATIONS}:
        raise DatasetError(
            f"load_breakhis.magnification: expected 40, 100, 200, 400 (or '40X' and so on), or None for all, got "
            f"{value!r}. BreakHis has these four."
        )
    return int(text)
