"""Read a PATIENT/{0,1}/NAME.png tree: names, headers, duplicates, contradictions. Reads only, never decodes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from histofeat.datasets.image_files import is_folder, list_folder
from histofeat.exceptions import DatasetError
from histofeat.images import png_size

# Kaggle's archive repeats the whole tree in a folder of this name.
NESTED = "IDC_regular_ps50_idx5"


TREE = "PATIENT/{0,1}/PATIENT_idx5_xX_yY_classC.png"


# Bounded digits: a longer number is no slide coordinate and would not fit into 64 bits further on.
_NAME = re.compile(r"([0-9]{1,12})_?idx([0-9]{1,4})_?x([0-9]{1,9})_?y([0-9]{1,9})_?class([01])\.png", re.ASCII | re.I)


_PATIENT = re.compile(r"[0-9]{1,12}", re.ASCII)


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


@dataclass
class TreeScan:
    """What one walk over a tree found; `rows` maps (patient, x, y, label) to (path, height, width)."""

    root: str
    rows: dict[tuple[str, int, int, int], tuple[str, int, int]] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    wrong_label: list[tuple[str, int]] = field(default_factory=list)
    wrong_patient: list[tuple[str, str]] = field(default_factory=list)
    duplicates: int = 0

    def relative(self, path: str) -> str:
        """Path below the root with forward slashes."""
        return os.path.relpath(path, self.root).replace(os.sep, "/")

    def leave_out(self, path: str, reason: str) -> None:
        """Note an entry that is no usable patch."""
        self.left_out.append((reason, self.relative(path)))


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
            f"its name{_and_more(len(scan.wrong_label))}. Find out which is right and move or rename the file."
        )
    if scan.wrong_patient:
        path, patient = scan.wrong_patient[0]
        raise DatasetError(
            f"{scan.relative(path)}: expected patient {Path(path).parents[1].name} as its folder says, got patient "
            f"{patient} in its name{_and_more(len(scan.wrong_patient))}. Find out which is right and move the file."
        )
    both = [key for key in scan.rows if key[3] == 1 and (*key[:3], 0) in scan.rows]
    if both:
        patient, x, y, _ = both[0]
        raise DatasetError(
            f"{scan.relative(scan.rows[both[0]][0])}: expected one class for patient {patient} at x {x}, y {y}, got "
            f"class 1 and class 0{_and_more(len(both))}. Find out which is right and remove the other file."
        )


def _and_more(n: int) -> str:
    return f" (and {n - 1:,} more)" if n > 1 else ""
