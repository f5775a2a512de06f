"""Load the IDC patches of Cruz-Roa et al. 2014 and Janowczyk and Madabhushi 2016, as Kaggle's archive unpacks."""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from histofeat.datasets._audit import DatasetAudit, FullSet, LeftOut, facts_of
from histofeat.datasets._base import PatchDataset
from histofeat.datasets._image_files import Scan, existing_folder, refuse_failures
from histofeat.datasets._patients import NAME_RULES
from histofeat.datasets.breakhis._tree import (
    BREAKHIS_MPP,
    FIRST_DRAWN,
    PUBLISHED_HEIGHTS,
    PUBLISHED_WIDTH,
    parse_image,
)
from histofeat.datasets.synthetic._cohort_folder import MANIFEST, SYNTHETIC_TARGET_NAMES
from histofeat.exceptions import DatasetError, and_more
from histofeat.images import png_size

# Kaggle's archive repeats the whole tree in a folder of this name.
NESTED = "IDC_regular_ps50_idx5"
TREE = "PATIENT/{0,1}/PATIENT_idx5_xX_yY_classC.png"

# Bounded digits: a longer number is no slide coordinate and would not fit into 64 bits further on.
#: Name of a patch without its ending: patient, slide, x, y, class.
STEM = r"([0-9]{1,12})_?idx([0-9]{1,4})_?x([0-9]{1,9})_?y([0-9]{1,9})_?class([01])"
_NAME = re.compile(rf"{STEM}\.png", re.ASCII | re.I)
_PATIENT = re.compile(r"[0-9]{1,12}", re.ASCII)
TARGET_NAMES = ("no IDC", "IDC")
FULL_SET = FullSet(277_524, 279, {"no IDC": 198_738, "IDC": 78_786})

_NOMINAL_SIZE = (50, 50)
#: Micrometres per pixel: scans at 40X, of 0.25, reduced 16-fold.
_MPP = 4.0


class PatchName(NamedTuple):
    """What the name of an IDC file says."""

    patient: str
    idx: int
    x: int
    y: int
    label: int


def parse_name(name: str) -> PatchName | None:
    """Parts of an IDC file name in either spelling, or None for any other name.

    Examples
    --------
    >>> parse_name("10253idx5x1351y1101class0.png") == parse_name("10253_idx5_x1351_y1101_class0.png")
    True
    >>> parse_name("thumbs.db") is None
    True
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    patient, *numbers = match.groups()
    return PatchName(patient, *map(int, numbers))


def mpp_by_name(path: str, size: tuple[int, int]) -> float | None:
    """Tell the scale of a published image by its name.

    Parameters
    ----------
    path : str
        Where the image lies.
    size : tuple of (int, int)
        Height and width in px: of another size than published it is a resampled copy, unless it was drawn.

    Returns
    -------
    mpp : float or None
        Micrometres per pixel; None where the name is not of IDC or BreakHis, or the size is another.

    Examples
    --------
    >>> mpp_by_name("10253_idx5_x1351_y1101_class0.png", (50, 50)), mpp_by_name("a.png", (50, 50))
    (4.0, None)
    """
    name = os.path.basename(path)  # noqa: PTH119 - of many images, and text may hold a null character
    if max(size) <= max(_NOMINAL_SIZE) and parse_name(name):
        return _MPP
    image = parse_image(name)
    published = size[1] == PUBLISHED_WIDTH and size[0] in PUBLISHED_HEIGHTS
    known = image is not None and (published or int(image.slide_name.number) >= FIRST_DRAWN)
    return BREAKHIS_MPP[image.magnification] if known else None


def load_idc(
    root: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    classes: Sequence[str] | Mapping[str, str] | str | None = None,
    positive: str | None = None,
    on_error: str = "skip",
    mpp: float = _MPP,
) -> PatchDataset:
    """Read the tree of IDC patches in one folder or several.

    Parameters
    ----------
    root : path, or list or tuple of paths
        Folder that holds ``PATIENT/{0,1}/*.png``, or ``IDC_regular_ps50_idx5/PATIENT/{0,1}/*.png``, or both, as
        Kaggle's archive does; or the folder of one patient. Several folders, such as two samples of the same patients,
        become one data set. They are only read.
    classes, positive : optional
        Other names for the classes, and which of them is positive ("IDC"): see `PatchDataset.with_classes`.
    on_error : {"raise", "skip"}, default="skip"
        What is done about patches that cannot be read by their first bytes: the first one is refused, or they are left
        out and listed in ``audit.failures``.
    mpp : float, default=4.0
        Micrometres per pixel. The slides were scanned at 40X (0.25) and reduced 16-fold (Cruz-Roa et al. 2014,
        https://doi.org/10.1117/12.2043872): a patch is 200 micrometres wide. Another number is for resampled copies.

    Returns
    -------
    PatchDataset
        Sorted by patient number, then y, x and class; labels 0 "no IDC" and 1 "IDC"; with the columns ``height`` and
        ``width`` (pixels, from the PNG headers). ``.audit`` counts what was found, removed and left out, and
        compares the copy with the 277,524 patches of 279 patients of the full set. A folder that `make_cohort` wrote
        comes back as what it is: named "synthetic". Of several folders, ``.root`` is the one in which all of them lie.

    Raises
    ------
    DatasetError
        When a folder is missing, is a file, cannot be listed or holds no IDC patch; when the class or the patient in
        a name is not that of its folder; when one place on a slide has both classes, in one folder or in two; when
        synthetic patches are mixed with others; when a patch cannot be read, with ``on_error="raise"``.

    Notes
    -----
    - Both spellings of the names are read (``10253_idx5_x1351_y1101_class0.png`` and
      ``10253idx5x1351y1101class0.png``).
    - Files of the same (patient, x, y, class) are one patch, whatever their bytes: the copy at the top level of the
      first folder is kept, the others are counted as duplicates.
    - Left out and counted, with the reason: files with another name, folders that are no patient or class (these are
      not searched), files that are empty, unreadable or do not begin as a PNG. A PNG that is cut off later is found
      when it is decoded.

    Examples
    --------
    >>> from histofeat.datasets import make_cohort
    >>> cohort = make_cohort(n_patients=2, patches_per_patient=4)
    >>> load_idc(cohort.root).name
    'synthetic'
    """
    folders = _folders(root)
    synthetic = _is_synthetic(folders)
    scan, notes = _scan_folders(folders)
    refuse_failures(scan.failures, on_error)
    name = "synthetic" if synthetic else "IDC"
    target_names = SYNTHETIC_TARGET_NAMES if synthetic else TARGET_NAMES
    frame = _to_frame(scan)
    facts = facts_of(scan) | {"nominal_size": _NOMINAL_SIZE, "full_set": None if synthetic else FULL_SET}
    audit = DatasetAudit.from_frame(frame, target_names, name, notes=notes, **facts)
    rule = NAME_RULES["idc"]
    dataset = PatchDataset(frame, target_names, name, Path(scan.root), audit, synthetic, patient_rule=rule, mpp=mpp)
    return dataset.with_classes(classes, positive)


def _folders(root) -> list[Path]:
    given = list(root) if isinstance(root, list | tuple) else [root]
    if not given:
        raise DatasetError(f"load_idc: expected one folder or more, got none. Give the folder that holds {TREE}.")
    return [existing_folder(each, "load_idc", TREE) for each in given]


def _is_synthetic(folders: Sequence[Path]) -> bool:
    drawn = [folder for folder in folders if ((folder.parent if _is_patient(folder) else folder) / MANIFEST).is_file()]
    if drawn and len(drawn) < len(folders):
        raise DatasetError(
            f"{drawn[0]}: expected real patches as in the other folders, got synthetic ones. Leave it out."
        )
    return bool(drawn)


def _nothing_found(folder: Path, left_out: Sequence[tuple[str, str]]) -> str:
    groups = "; ".join(f"left out, {group}" for group in LeftOut.group(left_out))
    got = f"no IDC patch ({groups})" if groups else "an empty folder"
    near = [child for child in sorted(folder.iterdir()) if child.is_dir() and looks_like_idc(child)]
    remedy = f"Give the folder that holds the patient folders, or the one that holds {NESTED}."
    if groups and looks_like_idc(folder):  # the right one: nothing nearer would help
        remedy = "Replace these files, or give another folder."
    elif near:
        remedy = f"Did you mean {str(near[0])!r}?"
    return f"{folder}: expected a folder with {TREE}, got {got}. {remedy}"


def looks_like_idc(folder: Path) -> bool:
    """Whether a folder holds the tree of IDC, by the names in it."""
    if (folder / NESTED).is_dir() or _is_patient(folder):
        return True
    patients = (child for child in folder.iterdir() if child.name.isdecimal())
    return any((child / label).is_dir() for child in patients for label in "01")


def _is_patient(folder: Path) -> bool:
    """Whether a folder is that of one patient; class folders 0 and 1 hold files of other names."""
    files = (file for label in "01" for file in (folder / label).glob("*.[pP][nN][gG]"))
    return _PATIENT.fullmatch(folder.name) is not None and any(parse_name(file.name) for file in files)


def _scan_folders(folders: Sequence[Path]) -> tuple[Scan, tuple[str, ...]]:
    """Walk the folders one after the other; keys are (patient, x, y, label). Note what each of several adds."""
    scan, added = Scan(os.path.commonpath(folders)), []
    for folder in folders:
        n_found, n_copies, n_left_out = len(scan.found), scan.duplicates, len(scan.left_out)
        _scan_tree(scan, folder)
        if (len(scan.found), scan.duplicates) == (n_found, n_copies):
            raise DatasetError(_nothing_found(folder, scan.left_out[n_left_out:]))
        added.append(f"{len(scan.found) - n_found:,} of {scan.relative(str(folder)) or folder.name}")
    _refuse_two_classes(scan)
    return scan, (f"Patches by folder, each patch in the first that has it: {', '.join(added)}.",) * (len(added) > 1)


def _scan_tree(scan: Scan, folder: Path) -> None:
    """Walk a folder, and IDC_regular_ps50_idx5 in it where it exists."""
    nested = folder / NESTED
    if _is_patient(folder):
        _scan_patient(scan, str(folder), folder.name)
        scan.refuse_contradictions()
        return
    # The top level first, so that its copy is the one that is kept.
    _scan_patients(scan, str(folder), {MANIFEST, NESTED} if nested.is_dir() else {MANIFEST})
    if nested.is_dir():
        _scan_patients(scan, str(nested))
    scan.refuse_contradictions()


def _scan_patients(scan: Scan, top: str, ignore: Collection[str] = ()) -> None:
    for folder, match in scan.folders(top, _PATIENT.fullmatch, "is a folder whose name is no patient number", ignore):
        _scan_patient(scan, folder, match[0])


def _scan_patient(scan: Scan, folder: str, patient: str) -> None:
    for below, label in scan.folders(folder, {"0": 0, "1": 1}.get, "is a folder named neither 0 nor 1"):
        for path, name in scan.files(below, parse_name, "has a name that is no IDC patch name"):
            if name.label != label:
                scan.contradict(path, f"class {label}", f"class {name.label}")
            elif name.patient != patient:
                scan.contradict(path, f"patient {patient}", f"patient {name.patient}")
            else:
                scan.take((patient, name.x, name.y, label), path, png_size)


def _to_frame(scan: Scan) -> pd.DataFrame:
    """Table of the patches, sorted by patient number, then y, x and label: the same on every file system."""
    records = sorted(
        (int(patient), patient, y, x, label, *found) for (patient, x, y, label), found in scan.found.items()
    )
    columns = ["order", "patient", "y", "x", "label", "path", "height", "width"]
    frame = pd.DataFrame.from_records(records, columns=columns)
    return frame[["path", "label", "patient", "x", "y", "height", "width"]]


def _refuse_two_classes(scan: Scan) -> None:
    both = [key for key in scan.found if key[3] == 1 and (*key[:3], 0) in scan.found]
    if both:
        patient, x, y, _ = both[0]
        one, other = (scan.relative(scan.found[patient, x, y, label][0]) for label in (1, 0))
        raise DatasetError(
            f"{one}: expected one class for patient {patient} at x {x}, y {y}, got class 1 and class 0 "
            f"({other}){and_more(len(both))}. Find out which is right and remove the other file."
        )
