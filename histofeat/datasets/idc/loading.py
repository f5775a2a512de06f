"""The IDC patches of Cruz-Roa et al. 2014 and Janowczyk and Madabhushi 2016, as Kaggle's archive unpacks."""

from __future__ import annotations

import os
from pathlib import Path

from histofeat.datasets.audit import DatasetAudit, FullSet, LeftOut
from histofeat.datasets.base import PatchDataset
from histofeat.datasets.idc.tree import NESTED, TREE, TreeScan, scan_tree, to_frame
from histofeat.datasets.image_files import existing_folder
from histofeat.datasets.patients import PatientRule
from histofeat.datasets.synthetic.cohort_folder import MANIFEST, SYNTHETIC_TARGET_NAMES
from histofeat.exceptions import DatasetError

__all__ = ["FULL_SET", "TARGET_NAMES", "load_idc"]

TARGET_NAMES = ("no IDC", "IDC")
FULL_SET = FullSet(277_524, 279, {"no IDC": 198_738, "IDC": 78_786})

_NOMINAL_SIZE = (50, 50)


_PATIENT_RULE = PatientRule(expression=r"(?:^|/)([0-9]+)_?idx[0-9]")


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
        ``width`` (pixels, from the PNG headers). ``.audit`` says what was found, removed and left out, and how the
        copy compares with the 277,524 patches of 279 patients of the full set. A folder that `make_cohort` wrote
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
    """Data set of a scanned tree, under the name that it deserves."""
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
