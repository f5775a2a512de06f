"""Published splits by name, and the rows of a table of predictions for them: patient, place, class and score."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from histofeat.datasets import check_rows, load_idc, official_roles, parse_decimal, parse_name, read_csv_rows
from histofeat.exceptions import counted
from histofeat.model_selection import canonical_patient

COLUMNS = ("patch", "score")
"""What a table of predictions has to have."""

_PLACE = ["patient", "x", "y"]
_SEPARATOR = re.compile(r"[\\/]")


@dataclass(frozen=True)
class Protocol:
    """A published split of patients, and how its patches are named.

    Parameters
    ----------
    name : str
        What it is called on the command line.
    title : str
        What it is, in words.
    roles : callable
        ``roles()`` gives the mapping of patient to "train", "validation" or "test"; other patients have no role.
    parse : callable
        ``parse(file_name)`` gives an object with ``patient`` (str), ``x``, ``y`` (int) and ``label`` (0 or 1), or
        None for a name that is none.
    example : str
        A name that `parse` reads.
    positive : str
        What the score is the probability of.
    load : callable
        ``load(folders)`` gives the `PatchDataset` of a copy of the data, in one folder or a list of them.
    published : str
        A sentence that says where the published numbers are.
    """

    name: str
    title: str
    roles: Callable[[], Mapping[str, str]]
    parse: Callable[[str], Any]
    example: str
    positive: str
    load: Callable[[Any], Any]
    published: str

    def patients(self, role: str) -> tuple[str, ...]:
        """Give the patients of a role, in the order of the published list.

        Examples
        --------
        >>> len(PROTOCOLS["idc-official"].patients("test"))
        49
        """
        return tuple(patient for patient, its_role in self.role_of.items() if its_role == role)

    @property
    def role_of(self) -> dict[str, str]:
        """Role of each patient, by the canonical form of the id."""
        return {canonical_patient(patient): role for patient, role in self.roles().items()}


PROTOCOLS = {
    "idc-official": Protocol(
        name="idc-official",
        title="IDC, published split: 84 train, 29 validation and 49 test patients",
        roles=official_roles,
        parse=parse_name,
        example="8863_idx5_x451_y1451_class0.png",
        positive="IDC",
        load=load_idc,
        published="Published balanced accuracy and F1 on this split: doi:10.1117/12.2043872 and "
        "doi:10.4103/2153-3539.186902.",
    )
}
"""The protocols by name; a project may add its own."""


def read_predictions(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table of predictions.

    Parameters
    ----------
    path : path
        A CSV file in UTF-8, divided by commas, semicolons or tabs, with the columns ``patch`` (name or path of the
        image) and ``score`` (probability of the positive class); other columns are ignored.

    Returns
    -------
    predictions : DataFrame of shape (n, 2)
        ``patch`` (str) and ``score`` (float64, NaN where empty).

    Raises
    ------
    ValueError
        If the file is missing or is no such table, a row has too many or too few entries, or a score is no number; the
        message names the first offender.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "predictions.csv")
    ...     _ = path.write_text("patch,score\\n8863_idx5_x451_y1451_class0.png,0.25\\n")
    ...     read_predictions(path)["score"].tolist()
    [0.25]
    """
    table = read_csv_rows(path, COLUMNS, owner="predictions")
    patches = pd.Series([row["patch"] for row in table.rows], dtype=object)
    score = table.parsed("score", parse_decimal, "a number", "Write probabilities with a decimal point.")
    return pd.DataFrame({"patch": patches, "score": np.array(score, dtype=np.float64)})


class RowCount(NamedTuple):
    """How many patches, of how many patients."""

    n_patches: int
    n_patients: int

    @classmethod
    def of(cls, table: pd.DataFrame) -> RowCount:
        """Count the rows of a table of `sort_rows`."""
        return cls(len(table), table["patient"].nunique())

    def __str__(self) -> str:
        return f"{counted(self.n_patches, 'patch')} of {counted(self.n_patients, 'patient')}"


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
    absent = [column for column in COLUMNS if column not in predictions]
    if absent:
        got = ", ".join(map(repr, predictions)) or "no column"
        raise ValueError(f"predictions: expected a column {absent[0]!r}, got {got}. Name the columns patch and score.")
    if not len(predictions):
        raise ValueError("predictions: expected a row for every patch, got 0 rows. Write the scores into the table.")
    table = pd.DataFrame({"patch": [str(name) for name in predictions["patch"]]}, dtype=object)
    table = table.join(_parsed(table["patch"], protocol))
    expected, remedy = "predictions.patch: expected one row for each patch, got again", "Keep one row of each."
    check_rows(table.duplicated([*_PLACE, "label"]), table["patch"], expected, remedy)
    expected = "predictions.patch: expected one class for each place, got another beside"
    check_rows(table.duplicated(_PLACE), table["patch"], expected, "Take the names from the data as they are.")
    table["score"] = _checked_scores(predictions["score"], table["patch"], protocol)
    table["role"] = table["patient"].map(protocol.role_of).fillna("unlisted")
    return table


def _parsed(names: pd.Series, protocol: Protocol) -> pd.DataFrame:
    # A path of either kind of machine: predictions travel.
    parts = [protocol.parse(_SEPARATOR.split(name)[-1]) for name in names]
    wrong, expected = [part is None for part in parts], f"predictions.patch: expected names such as {protocol.example}"
    check_rows(wrong, names, f"{expected}, got", "Give the file names of the data.")
    places = [(canonical_patient(part.patient), part.x, part.y, part.label) for part in parts]
    return pd.DataFrame(places, columns=[*_PLACE, "label"])


def _checked_scores(scores: pd.Series, names: pd.Series, protocol: Protocol) -> np.ndarray:
    try:
        values = scores.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"predictions.score: expected numbers, got a column of {scores.dtype} ({error}). Convert it first."
        ) from error
    expected = f"predictions.score: expected the probability of {protocol.positive} of every patch, from 0 to 1, got"
    remedy = "Leave out patches that were not scored, and turn margins or logits into probabilities first."
    found = [f"{value} for {name}" for value, name in zip(values, names, strict=True)]
    check_rows(~((values >= 0) & (values <= 1)), found, expected, remedy)
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
    places, scored = (rows.set_index(_PLACE).index for rows in (there, table))
    where = f"of the test patients in {folder}, got"
    missing, surplus = ~places.isin(scored), ~scored.isin(places)
    check_rows(missing, there["patch"], f"predictions: expected every patch {where} none for", "Score all of them.")
    remedy = "Remove it, or give the folder that was scored."
    check_rows(surplus, table["patch"], f"predictions: expected only patches {where} also", remedy)
    both = there.merge(table, on=_PLACE, suffixes=("_there", ""))
    expected, remedy = f"predictions.patch: expected the class {where} another for", "Take the names as they are."
    check_rows(both["label_there"] != both["label"], both["patch_there"], expected, remedy)
