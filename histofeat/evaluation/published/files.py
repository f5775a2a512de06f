"""A CSV file of predictions becomes a table: the text of each patch's name and its score."""

from __future__ import annotations

import difflib
import os

import numpy as np
import pandas as pd

from histofeat.datasets import CsvRows, read_csv_rows
from histofeat.exceptions import known_names

__all__ = ["COLUMNS", "read_predictions", "require_columns"]

COLUMNS = ("patch", "score")
"""What a table of predictions has to have."""


def read_predictions(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table of predictions.

    Parameters
    ----------
    path : path
        A CSV file in UTF-8, divided by commas, semicolons or tabs, with the columns ``patch`` (name or path of the
        image) and ``score`` (probability of the positive class); other columns are left aside.

    Returns
    -------
    predictions : DataFrame of shape (n, 2)
        ``patch`` (str) and ``score`` (float64, NaN where empty).

    Raises
    ------
    ValueError
        If the file is not there or no such table, a row has too many or too few entries, or a score is no number; the
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
    return pd.DataFrame({"patch": patches, "score": _as_numbers(table)})


def require_columns(columns, owner) -> None:
    """Refuse a table that lacks one of `COLUMNS`, naming the nearest column that it has."""
    for column in COLUMNS:
        if column not in list(columns):
            given = [str(name) for name in columns]
            near = f" {known_names(column, given)}" if difflib.get_close_matches(column, given, n=1) else ""
            raise ValueError(
                f"{owner}: expected a column {column!r}, got {', '.join(map(repr, given)) or 'no column'}. "
                f"The first line of a CSV file names its columns: patch,score.{near}"
            )


def _as_numbers(table: CsvRows) -> np.ndarray:
    values, wrong = np.full(len(table.rows), np.nan), []
    for row, cells in enumerate(table.rows):
        try:
            values[row] = float(cells["score"] or "nan")
        except ValueError:
            wrong.append(row)
    if wrong:
        text = table.rows[wrong[0]]["score"]
        raise ValueError(
            f"{table.at(wrong[0])}: expected a number as the score of every patch, got {text!r} ({len(wrong):,} such "
            "rows). Write probabilities with a decimal point."
        )
    return values
