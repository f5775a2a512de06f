"""Load the IDC patches of Cruz-Roa et al. 2014 and Janowczyk and Madabhushi 2016, as Kaggle's archive unpacks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from histofeat.datasets.audit import DatasetAudit, FullSet, LeftOut
from histofeat.datasets.base import PatchDataset
from histofeat.datasets.image_files import Scan, existing_folder, is_folder, list_folder
from histofeat.datasets.patients import PatientRule
from histofeat.datasets.synthetic.cohort_folder import MANIFEST, SYNTHETIC_TARGET_NAMES
from histofeat.exceptions import DatasetError, and_more
from histofeat.images import png_size

__all__ = ["FULL_SET", "TARGET_NAMES", "load_idc", "parse_name"]

# Kaggle's archive repeats the whole tree in a folder of this name.
NESTED = "IDC_regular_ps50_idx5"
TREE = "PATIENT/{0,1}/PATIENT_idx5_xX_yY_classC.png"


# Bounded digits: a longer number is no slide coordinate and would not fit into 64 bits further on.
_NAME = re.compile(r"([0-9]{1,12})_?idx([0-9]{1,4})_?x([0-9]{1,9})_?y([0-9]{1,9})_?class([01])\.png", re.ASCII | re.I)
_PATIENT = re.compile(r"[0-9]{1,12}", re.ASCII)
TARGET_NAMES = ("no IDC", "IDC")
FULL_SET = FullSet(277_524, 279, {"no IDC": 198_738, "IDC": 78_786})

_NOMINAL_SIZE = (50, 50)
_PATIENT_RULE = PatientRule(expression=r"(?:^|/)([0-9]+)_?idx[0-9]")


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


def load_idc(root: str | os.PathLike[str]) -> PatchDataset:
    """Read the tree of IDC patches in a folder.

    Parameters
    ----------
    root : path
        Folder that holds ``PATIENT/{0,1}/*.png``, or ``IDC_regular_ps50_idx5/PATIENT/{0,1}/*.png``, or both, as
        Kaggle's archive does. It is only read.

    Returns
    -------
    PatchDataset
        Sorted by patient number, then y, x and class; labels 0 "no IDC" and 1 "IDC"; with the columns ``height`` and
        ``width`` (pixels, from the PNG headers). ``.audit`` counts what was found, removed and left out, and
        compares the copy with the 277,524 patches of 279 patients of the full set. A folder that `make_cohort` wrote
        comes back as what it is: named "synthetic".

    Raises
    ------
    DatasetError
        When the folder is missing, is a file, cannot be listed or holds no IDC patch; when the class or the patient in
        a name is not that of its folder; when one place on a slide has both classes.

    Notes
    -----
    - Both spellings of the names are read (``10253_idx5_x1351_y1101_class0.png`` and
      ``10253idx5x1351y1101class0.png``).
    - Files of the same (patient, x, y, class) are one patch, whatever their bytes: the copy at the top level is kept,
      the others are counted as duplicates.
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
    folder = existing_folder(root, "load_idc", TREE)
    scan = scan_tree(folder, ignore=frozenset([MANIFEST]))
    if not scan.rows:
        raise DatasetError(_nothing_found(folder, scan))
    synthetic = (folder / MANIFEST).is_file()
    return dataset_from_scan(scan, synthetic=synthetic)


def dataset_from_scan(scan: TreeScan, *, synthetic: bool) -> PatchDataset:
    """Make the data set of a scanned tree, named "IDC" or "synthetic"."""
    frame = to_frame(scan)
    name = "synthetic" if synthetic else "IDC"
    target_names = SYNTHETIC_TARGET_NAMES if synthetic else TARGET_NAMES
    audit = DatasetAudit.from_frame(
        frame,
        target_names,
        name,
        nominal_size=_NOMINAL_SIZE,
        duplicates=scan.duplicates,
        left_out=LeftOut.group(scan.left_out),
        full_set=None if synthetic else FULL_SET,
    )
    return PatchDataset(frame, target_names, name, Path(scan.root), audit, synthetic, patient_rule=_PATIENT_RULE)


def _nothing_found(folder: Path, scan: TreeScan) -> str:
    groups = "; ".join(f"left out, {group}" for group in LeftOut.group(scan.left_out))
    got = f"no IDC patch ({groups})" if groups else "an empty folder"
    remedy = f"Give the folder that holds the patient folders, or the one that holds {NESTED}."
    below = [child.name for child in sorted(folder.iterdir()) if child.is_dir() and _looks_like_idc(child)]
    if below:
        remedy = f"Did you mean {str(folder / below[0])!r}?"
    elif folder.name.isdecimal() and _looks_like_idc(folder.parent):
        remedy = f"Did you mean {str(folder.parent)!r}?"
    return f"{folder}: expected a folder with {TREE}, got {got}. {remedy}"


def _looks_like_idc(folder: Path) -> bool:
    if (folder / NESTED).is_dir():
        return True
    patients = (child for child in folder.iterdir() if child.name.isdecimal())
    return any((child / label).is_dir() for child in patients for label in "01")


@dataclass
class TreeScan(Scan):
    """What one walk over a tree found; `rows` maps (patient, x, y, label) to (path, height, width)."""

    rows: dict[tuple[str, int, int, int], tuple[str, int, int]] = field(default_factory=dict)
    wrong_label: list[tuple[str, int]] = field(default_factory=list)
    wrong_patient: list[tuple[str, str]] = field(default_factory=list)
    duplicates: int = 0


def scan_tree(root: Path, ignore: frozenset[str] = frozenset()) -> TreeScan:
    """Walk `root`, and `root`/IDC_regular_ps50_idx5 where it exists.

    Parameters
    ----------
    root : Path
        An existing folder.
    ignore : frozenset of str
        Names at the top that are neither patients nor worth a line in the audit.

    Raises
    ------
    DatasetError
        When a folder cannot be listed, or names and folders contradict each other.
    """
    scan = TreeScan(str(root))
    # The top level first, so that its copy is the one that is kept.
    nested = []
    for entry in list_folder(scan.root):
        if entry.name == NESTED and is_folder(entry):
            nested = list_folder(entry.path)
        elif entry.name not in ignore:
            _scan_patient(scan, entry)
    for entry in nested:
        _scan_patient(scan, entry)
    _check_contradictions(scan)
    return scan


def to_frame(scan: TreeScan) -> pd.DataFrame:
    """Table of the patches, sorted by patient number, then y, x and label: the same on every file system."""
    records = sorted(
        (int(patient), patient, y, x, label, *found) for (patient, x, y, label), found in scan.rows.items()
    )
    columns = ["order", "patient", "y", "x", "label", "path", "height", "width"]
    frame = pd.DataFrame.from_records(records, columns=columns)
    return frame[["path", "label", "patient", "x", "y", "height", "width"]]


def _scan_patient(scan: TreeScan, patient: os.DirEntry) -> None:
    if not is_folder(patient):
        scan.leave_out(patient.path, "is a file outside the class folders")
        return
    if _PATIENT.fullmatch(patient.name) is None:
        scan.leave_out(patient.path, "is a folder whose name is no patient number (not searched)")
        return
    for entry in list_folder(patient.path):
        if not is_folder(entry):
            scan.leave_out(entry.path, "is a file outside the class folders")
        elif entry.name not in ("0", "1"):
            scan.leave_out(entry.path, "is a folder named neither 0 nor 1 (not searched)")
        else:
            for file, name in _named(scan, entry.path):
                _scan_file(scan, file.path, name, patient.name, int(entry.name))


def _named(scan: TreeScan, folder: str) -> Iterator[tuple[os.DirEntry, PatchName]]:
    for file in list_folder(folder):
        name = parse_name(file.name)
        if name is None:
            scan.leave_out(file.path, "has a name that is no IDC patch name")
        else:
            yield file, name


def _scan_file(scan: TreeScan, path: str, name: PatchName, patient: str, label: int) -> None:
    if name.label != label:
        scan.wrong_label.append((path, name.label))
        return
    if name.patient != patient:
        scan.wrong_patient.append((path, name.patient))
        return
    key = (patient, name.x, name.y, label)
    if key in scan.rows:
        scan.duplicates += 1
        return
    size = png_size(path)
    if isinstance(size, str):
        # The key stays free: a sound second copy of the same patch still counts.
        scan.leave_out(path, size)
    else:
        scan.rows[key] = (path, *size)


def _check_contradictions(scan: TreeScan) -> None:
    if scan.wrong_label:
        path, label = scan.wrong_label[0]
        raise DatasetError(
            f"{scan.relative(path)}: expected class {Path(path).parent.name} as its folder says, got class {label} in "
            f"its name{and_more(len(scan.wrong_label))}. Find out which is right and move or rename the file."
        )
    if scan.wrong_patient:
        path, patient = scan.wrong_patient[0]
        raise DatasetError(
            f"{scan.relative(path)}: expected patient {Path(path).parents[1].name} as its folder says, got patient "
            f"{patient} in its name{and_more(len(scan.wrong_patient))}. Find out which is right and move the file."
        )
    both = [key for key in scan.rows if key[3] == 1 and (*key[:3], 0) in scan.rows]
    if both:
        patient, x, y, _ = both[0]
        raise DatasetError(
            f"{scan.relative(scan.rows[both[0]][0])}: expected one class for patient {patient} at x {x}, y {y}, got "
            f"class 1 and class 0{and_more(len(both))}. Find out which is right and remove the other file."
        )
