"""Whose an image in a folder is: by a regular expression, a CSV or a mapping, or, said aloud, nobody knows."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histofeat.datasets.csv_rows import read_csv_rows
from histofeat.datasets.folders.notes import COST_OF_NO_PATIENTS, first_and_count
from histofeat.exceptions import DatasetError

__all__ = ["EACH_IMAGE", "PatientRule", "patient_rule"]

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
