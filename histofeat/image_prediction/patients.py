"""Whose image it is: from its name by a regular expression, or from a table."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from histofeat.datasets.csv_rows import read_csv_rows
from histofeat.exceptions import DatasetError, known_names

__all__ = ["find_patients"]

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
