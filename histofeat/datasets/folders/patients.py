"""Whose an image in a folder is: by a regular expression, a CSV or a mapping, or, said aloud, nobody knows."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histofeat.datasets.csv_rows import read_csv_rows
from histofeat.datasets.folders.notes import COST_OF_NO_PATIENTS, first_and_count
from histofeat.exceptions import DatasetError, known_names

__all__ = ["EACH_IMAGE", "PatientRule", "find_patients", "patient_rule"]


#: The word that goes on without patients.
EACH_IMAGE = "image"


_OWNER = "load_image_folder.patients"


_WAYS = (
    'Give a regular expression with one group, for the path below the class folder (patients=r"^([0-9]+)_"); a CSV '
    'with the columns path and patient; or a mapping of path to patient. Where nobody knows, patients="image" goes on '
    "with each image as its own patient, and says so in every report."
)


@dataclass(frozen=True)
class PatientRule:
    """How the patient of an image is told.

    Parameters
    ----------
    pattern : re.Pattern or None
        For the path below the class folder.
    table : mapping of str to str, or None
        Relative path to patient.
    source : str
        Where `table` came from, for a message.
    classes : tuple of str, optional
        Class names in the order of their codes, where the CSV has the columns ``label`` and ``label_code``.
    file : Path, optional
        The CSV.
    """

    pattern: re.Pattern | None = None
    table: Mapping[str, str] | None = None
    source: str = ""
    classes: tuple[str, ...] | None = None
    file: Path | None = None

    def __call__(self, names: Sequence[str], inner: Sequence[str]) -> list[str]:
        """Patient of every image.

        Parameters
        ----------
        names, inner : sequence of str
            Path below the root and below the class folder, with forward slashes.

        Raises
        ------
        DatasetError
            When an image has no patient; the message names the first.
        """
        if self.pattern is not None:
            found = [self._by_pattern(path) for path in inner]
        elif self.table is not None:
            found = [self.table.get(posixpath.normpath(path), "") for path in names]
        else:
            return list(names)
        without = [row for row, patient in enumerate(found) if not patient]
        if without:
            shown, way = (inner, "a match of the expression") if self.pattern is not None else (names, self.source)
            raise DatasetError(
                f"{_OWNER}: expected a patient for every image, got none for {shown[without[0]]!r}"
                f"{first_and_count(len(without))} by {way}. Correct it, or remove these images."
            )
        return found

    def _by_pattern(self, path: str) -> str:
        match = self.pattern.search(path)
        if match is None:
            return ""
        return (match["patient"] if "patient" in self.pattern.groupindex else match[1]) or ""


def patient_rule(patients: Any, root: Path) -> PatientRule:
    """Read what was given as ``patients=``, before any image is looked at.

    Parameters
    ----------
    patients : str, path or mapping
        A regular expression, a CSV (a path object, an existing file, or text that ends in ``.csv``), a mapping of
        relative path to patient, or "image".
    root : Path
        Folder that relative paths start from.

    Returns
    -------
    PatientRule

    Raises
    ------
    DatasetError
        When it is None or of another kind, when the expression is none or has not one group, when the CSV or the
        mapping is unusable.

    Examples
    --------
    >>> rule = patient_rule(r"^([0-9]+)_", Path("."))
    >>> rule(["benign/8863_a.png"], ["8863_a.png"])
    ['8863']
    """
    if patients is None:
        beside = root / "manifest.csv"
        hint = ' There is a manifest.csv here: try patients="manifest.csv".' if beside.is_file() else ""
        raise DatasetError(
            f"{_OWNER}: expected a way to tell the patient of each image, got None. {COST_OF_NO_PATIENTS} {_WAYS}{hint}"
        )
    if isinstance(patients, Mapping):
        return PatientRule(table=_from_mapping(patients, root), source="the mapping")
    if isinstance(patients, os.PathLike) or (isinstance(patients, str) and _is_csv(patients, root)):
        return _from_csv(_csv_path(patients, root), root)
    if not isinstance(patients, str):
        raise DatasetError(
            f"{_OWNER}: expected a regular expression, a CSV, a mapping or 'image', got "
            f"{type(patients).__name__}. {_WAYS}"
        )
    return PatientRule() if patients == EACH_IMAGE else PatientRule(pattern=_compiled(patients))


def _compiled(text: str) -> re.Pattern:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise DatasetError(
            f"{_OWNER}: expected a regular expression, got {text!r} ({error}). Escape what is meant literally; a "
            "CSV must end in .csv or exist."
        ) from error
    if pattern.groups != 1 and "patient" not in pattern.groupindex:
        raise DatasetError(
            f"{_OWNER}: expected one group, or a group named patient, got {pattern.groups} groups in {text!r}. "
            'Put the id in parentheses: r"^([0-9]+)_"; others as (?:...).'
        )
    return pattern


def _is_csv(text: str, root: Path) -> bool:
    if text.lower().endswith(".csv"):
        return True
    try:
        return bool(text) and (Path(text).is_file() or (root / text).is_file())
    except (OSError, ValueError):  # an expression may be no path at all: too long, or with a null character
        return False


def _csv_path(given: str | os.PathLike, root: Path) -> Path:
    path = Path(given).expanduser()
    return path if path.exists() or not (root / path).exists() else root / path


def _from_csv(path: Path, root: Path) -> PatientRule:
    csv = read_csv_rows(path, ("path", "patient"), owner=_OWNER)
    csv.refuse_empty(("path", "patient"))
    table: dict[str, str] = {}
    line_of: dict[str, int] = {}
    for row, cells in enumerate(csv.rows):
        key = _key(cells["path"], root)
        if table.setdefault(key, cells["patient"]) != cells["patient"]:
            raise DatasetError(
                f"{csv.at(row)}: expected one patient for {cells['path']!r}, got {cells['patient']!r} here and "
                f"{table[key]!r} in line {line_of[key]}. Find out which is right."
            )
        line_of.setdefault(key, csv.lines[row])
    return PatientRule(table=table, source=csv.path.name, classes=_class_order(csv), file=csv.path)


def _class_order(csv) -> tuple[str, ...] | None:
    """Class names by their codes, where the CSV is one that `split_dataset` wrote."""
    if not {"label", "label_code"} <= set(csv.columns):
        return None
    codes = {(row["label_code"], row["label"]) for row in csv.rows}
    if not all(code.isdecimal() for code, _ in codes) or len({label for _, label in codes}) != len(codes):
        return None
    return tuple(label for _, label in sorted(codes, key=lambda pair: int(pair[0])))


def _from_mapping(patients: Mapping, root: Path) -> dict[str, str]:
    table = {}
    for path, patient in patients.items():
        if not isinstance(path, str | os.PathLike) or isinstance(patient, bool) or not isinstance(patient, str | int):
            raise DatasetError(
                f"{_OWNER}: expected a mapping of path to patient, got {path!r}: {patient!r}. "
                "Give paths below the root, and ids as text or whole numbers."
            )
        table[_key(os.fspath(path), root)] = str(patient).strip()
    return table


def _key(path: str, root: Path) -> str:
    below = os.path.relpath(path, root) if os.path.isabs(path) else path  # noqa: PTH117 - text in, text out
    return posixpath.normpath(below.replace(os.sep, "/"))


_IMAGE_COLUMNS = ("path", "image")


def find_patients(source: str | os.PathLike[str], names: Sequence[str]) -> np.ndarray:
    r"""Give the patient of each image.

    Parameters
    ----------
    source : regular expression, or path of a CSV file
        The expression is searched in the path of each image, written with forward slashes; the patient is its group
        ``(?P<patient>...)``, else its first group, else all of it. A CSV file has the columns
        ``patient`` and ``path`` (or ``image``), with paths or ends of paths.
    names : sequence of str
        Paths of the images.

    Returns
    -------
    patients : ndarray of str objects, shape (n,)
        One patient for each image.

    Raises
    ------
    DatasetError
        If the expression or the table cannot be read, or an image has no patient, or several.

    Examples
    --------
    >>> find_patients(r"SOB_[BM]_[A-Z]+-\d+-(\d+)", ["a/SOB_M_DC-14-2523-40-010.png"]).tolist()
    ['2523']
    """
    plain = [name.replace("\\", "/") for name in names]
    text = os.fspath(source)
    if text.lower().endswith(".csv") or Path(text).is_file():
        found, where = _from_table(Path(text), plain), f"in {text}"
    else:
        found, where = _from_names(text, plain), f"by {text!r}"
    missing = [row for row, patient in enumerate(found) if not patient]
    if missing:
        raise DatasetError(
            f"patients: expected the patient of each image {where}, got none for {names[missing[0]]} "
            f"({len(missing):,} of {len(names):,} images). Widen the expression, or complete the table."
        )
    return np.array(found, dtype=object)


def _from_names(expression: str, names: Sequence[str]) -> list[str | None]:
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise DatasetError(
            f"patients: expected a regular expression or a CSV file, got {expression!r} ({error}). "
            r"Write a group for the patient, such as '/(\d+)_idx5'."
        ) from error
    group = "patient" if "patient" in pattern.groupindex else min(1, pattern.groups)
    met = (pattern.search(name) for name in names)
    return [None if match is None else match.group(group) for match in met]


def _from_table(path: Path, names: Sequence[str]) -> list[str | None]:
    rows: dict[str, list[tuple[str, str]]] = {}
    for image, patient in _read(path):
        rows.setdefault(image.rpartition("/")[2], []).append((image, patient))
    found = []
    for name in names:
        ends = rows.get(name.rpartition("/")[2], [])
        patients = {patient for image, patient in ends if name == image or name.endswith(f"/{image.lstrip('./')}")}
        if len(patients) > 1:
            raise DatasetError(
                f"{path}: expected one patient for {name}, got {', '.join(map(repr, sorted(patients)))}. Give longer "
                "paths in the table, so that each row is one image."
            )
        found.append(patients.pop() if patients else None)
    return found


def _read(path: Path) -> list[tuple[str, str]]:
    table = read_csv_rows(path, ("patient",), owner="patients")
    image = next((column for column in _IMAGE_COLUMNS if column in table.columns), None)
    if image is None:
        raise DatasetError(
            f"{path}: expected a column 'path' or 'image' beside 'patient', got {', '.join(map(repr, table.columns))}. "
            f"{known_names('path', table.columns)}"
        )
    table.refuse_empty((image, "patient"))
    return [(row[image].strip().replace("\\", "/"), row["patient"]) for row in table.rows]
