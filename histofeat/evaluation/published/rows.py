"""Rows of predictions: whose patch each is, what its true class is, and whether any is missing, surplus or doubled."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from histofeat.evaluation.published.files import require_columns
from histofeat.evaluation.published.protocols import Protocol

__all__ = ["RowCount", "check_complete", "sort_rows"]

_PLACE = ["patient", "x", "y"]
_SEPARATOR = re.compile(r"[\\/]")


class RowCount(NamedTuple):
    """How many patches, of how many patients."""

    n_patches: int
    n_patients: int

    @classmethod
    def of(cls, table: pd.DataFrame) -> RowCount:
        """Count the rows of a table of `sort_rows`."""
        return cls(len(table), table["patient"].nunique())

    def __str__(self) -> str:
        patches, patients = (
            f"{count:,} {noun}{'' if count == 1 else 's' if noun == 'patient' else 'es'}"
            for count, noun in zip(self, ("patch", "patient"), strict=True)
        )
        return f"{patches} of {patients}"


def sort_rows(predictions: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
    """Read from each name whose patch it is, where it lies and what its class is.

    Parameters
    ----------
    predictions : DataFrame of shape (n, 2 or more)
        Columns ``patch`` (name or path) and ``score`` (probability of the positive class).
    protocol : Protocol
        How names are read, and the role of each patient.

    Returns
    -------
    table : DataFrame of shape (n, 7)
        ``patch``, ``score`` (float64), ``patient`` (str), ``x``, ``y``, ``label`` (int64) and ``role`` ("train",
        "validation", "test" or "unlisted"), in the order of the rows.

    Raises
    ------
    ValueError
        If a column is missing, there is no row, a name cannot be read, a patch has two rows or two classes, or a score
        is NaN or no probability. The message names the first offender and says how many there are.
    """
    require_columns(predictions.columns, "predictions")
    if not len(predictions):
        raise ValueError("predictions: expected a row for every patch, got 0 rows. Write the scores into the table.")
    table = pd.DataFrame({"patch": [str(name) for name in predictions["patch"]]}, dtype=object)
    table = table.join(_parsed(table["patch"], protocol))
    _refuse(
        table,
        table.duplicated([*_PLACE, "label"]),
        "predictions.patch: expected one row for each patch, got {patch} again ({count} surplus rows). "
        "Keep one row of each.",
    )
    _refuse(
        table,
        table.duplicated(_PLACE),
        "predictions.patch: expected one class for patient {patient} at x {x}, y {y}, got {patch} beside one of the "
        "other class ({count} such places). Take the names from the data as they are.",
    )
    table["score"] = _checked_scores(table, predictions["score"], protocol)
    table["role"] = table["patient"].map(protocol.roles()).fillna("unlisted")
    return table


def _refuse(table: pd.DataFrame, wrong, message: str, **words) -> None:
    """Raise `message` about the first of the wrong rows, filled with its columns, the count and `words`."""
    wrong = np.flatnonzero(wrong)
    if wrong.size:
        raise ValueError(message.format(count=f"{wrong.size:,}", **table.iloc[wrong[0]], **words))


def _parsed(names: pd.Series, protocol: Protocol) -> pd.DataFrame:
    # A path of either kind of machine: predictions travel.
    parts = [protocol.parse(_SEPARATOR.split(name)[-1]) for name in names]
    _refuse(
        names.to_frame(),
        [part is None for part in parts],
        "predictions.patch: expected names such as {example}, got {patch!r} ({count} such rows). Give the file names "
        "of the data.",
        example=protocol.example,
    )
    return pd.DataFrame([(part.patient, part.x, part.y, part.label) for part in parts], columns=[*_PLACE, "label"])


def _checked_scores(table: pd.DataFrame, scores: pd.Series, protocol: Protocol) -> np.ndarray:
    try:
        values = scores.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"predictions.score: expected numbers, got a column of {scores.dtype} ({error}). Convert it first."
        ) from error
    table = table.assign(score=values)
    _refuse(
        table,
        np.isnan(values),
        "predictions.score: expected the probability of {positive} of every patch, got NaN for {patch} ({count} such "
        "rows). Leave patches out that were not scored.",
        positive=protocol.positive,
    )
    _refuse(
        table,
        ~((values >= 0) & (values <= 1)),
        "predictions.score: expected a probability of {positive} from 0 to 1, got {score} for {patch} ({count} such "
        "rows). Turn margins or logits into probabilities first.",
        positive=protocol.positive,
    )
    return values


def check_complete(table: pd.DataFrame, dataset, folder: str | os.PathLike[str]) -> None:
    """Refuse test rows that are not exactly the test patches of a copy of the data.

    Parameters
    ----------
    table : DataFrame
        Test rows of `sort_rows`.
    dataset : PatchDataset
        The test patches of the copy.
    folder : path
        What messages call the copy.

    Raises
    ------
    ValueError
        If a patch has no row, a row has no patch, or the two disagree about a class; the first is named, and all are
        counted.
    """
    there = dataset.frame[[*_PLACE, "label", "path"]].astype({"x": np.int64, "y": np.int64})
    there = there.assign(patch=[Path(path).name for path in there["path"]])
    both = there.merge(table, on=_PLACE, how="outer", suffixes=("_there", ""), indicator=True)
    missing = both[both["_merge"] == "left_only"]
    _refuse(
        missing.sort_values([*_PLACE], key=_by_number),
        np.ones(len(missing), dtype=bool),
        "predictions: expected a row for every patch of the test patients in {folder}, got none for {patch_there} "
        "({count} missing). Score all of them.",
        folder=folder,
    )
    surplus = table[~table.set_index(_PLACE).index.isin(there.set_index(_PLACE).index)]
    _refuse(
        surplus,
        np.ones(len(surplus), dtype=bool),
        "predictions: expected only patches of the test patients in {folder}, got {patch} ({count} surplus). Remove "
        "them, or give the folder that was scored.",
        folder=folder,
    )
    _refuse(
        both,
        both["label_there"] != both["label"],
        "predictions.patch: expected {patch_there} as in {folder}, got {patch} ({count} with another class). Take the "
        "names from the data as they are.",
        folder=folder,
    )


def _by_number(column: pd.Series) -> pd.Series:
    """Sort patients as numbers, as a data set does."""
    return column.astype(np.int64) if column.name == "patient" and column.str.isdecimal().all() else column
