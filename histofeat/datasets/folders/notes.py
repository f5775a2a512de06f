"""Notes of the loaders of folders and tables for the audit: patients in two parts, equal names, equal files."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

import pandas as pd

from histofeat.datasets.image_files import same_content
from histofeat.datasets.patients import first_and_count

__all__ = ["content_notes", "fold_case", "table_notes"]


def fold_case(name: str) -> str:
    """Give a name as a file system sees it that knows neither case nor Unicode spellings.

    Examples
    --------
    >>> fold_case("Benign") == fold_case("BENIGN")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def table_notes(frame: pd.DataFrame, names: Sequence[str], target_names: Sequence[str]) -> tuple[str, ...]:
    """Note patients in several parts, classes that a part lacks, and names that differ only in case.

    Parameters
    ----------
    frame : DataFrame
        Columns ``label`` and ``patient``, and ``part`` where there is one.
    names : sequence of str, one a row
        What a note calls the image.
    target_names : sequence of str

    Returns
    -------
    notes : tuple of str
    """
    notes = []
    if "part" in frame.columns:
        notes += _part_notes(frame, target_names)
    for kind, values in (("images", names), ("patients", frame["patient"].unique())):
        groups = _alike(values)
        if groups:
            notes.append(
                f"Names of {kind} that differ only in case: {groups[0][0]!r} and {groups[0][1]!r}"
                f"{first_and_count(len(groups))}. They are taken for different {kind}; some file systems cannot hold "
                "both."
            )
    return tuple(notes)


def _part_notes(frame: pd.DataFrame, target_names: Sequence[str]) -> list[str]:
    notes = []
    parts = frame.groupby("patient")["part"].nunique()
    shared = sorted(parts.index[parts > 1], key=lambda patient: (len(patient), patient))
    if shared:
        notes.append(
            f"Patients in more than one part: {len(shared):,} of {len(parts):,}, the first is {shared[0]!r}. Scores on "
            "this split are too good; evaluate refuses it (HF001). Split by patient with split_dataset."
        )
    for part, rows in frame.groupby("part", sort=False):
        lost = [name for code, name in enumerate(target_names) if code not in set(rows["label"])]
        if lost:
            notes.append(f"The part {part!r} has no image of class {', '.join(map(repr, lost))}.")
    return notes


def _alike(values: Iterable[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for value in values:
        groups.setdefault(fold_case(value), []).append(value)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def content_notes(frame: pd.DataFrame, names: Sequence[str]) -> tuple[str, ...]:
    """Note files with the same bytes: under two classes, in two parts, of two patients, or merely twice.

    Parameters
    ----------
    frame : DataFrame
        Columns ``path``, ``label`` and ``patient``, and ``part`` where there is one.
    names : sequence of str, one a row
        What a note calls the image.

    Returns
    -------
    notes : tuple of str
        At most one for each of these. Nothing is removed.
    """
    groups = same_content(frame["path"])
    if not groups:
        return ()
    questions = [("label", "under different classes", "One of the labels is wrong (HF006).")]
    if "part" in frame.columns:
        questions.append(("part", "in different parts", "What is tested on was trained on (HF002)."))
    questions.append(("patient", "under different patients", "Folds by patient cannot keep them together (HF002)."))
    notes = [
        f"Files of the same content: {sum(map(len, groups)):,} in {len(groups):,} groups, the first are "
        f"{names[groups[0][0]]!r} and {names[groups[0][1]]!r}. Nothing was removed."
    ]
    for column, where, meaning in questions:
        values = frame[column].to_numpy()
        apart = [group for group in groups if len(set(values[group])) > 1]
        if apart:
            first = apart[0][0]
            other = next(row for row in apart[0] if values[row] != values[first])
            notes.append(
                f"Files of the same content {where}: {names[first]!r} and {names[other]!r}"
                f"{first_and_count(len(apart))}. {meaning}"
            )
    return tuple(notes)
