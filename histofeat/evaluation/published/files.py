"""A CSV file of predictions becomes a table: the text of each patch's name and its score."""

from __future__ import annotations

import csv
import difflib
import os
from pathlib import Path

import numpy as np
import pandas as pd

from histofeat.exceptions import known_names

__all__ = ["COLUMNS", "read_predictions", "require_columns"]

COLUMNS = ("patch", "score")
"""What a table of predictions has to have."""


def read_predictions(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table of predictions.

    Parameters
    ----------
    path : path
        A CSV file in UTF-8 with the columns ``patch`` (name or path of the image) and ``score`` (probability of the
        positive class); other columns are left aside.

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
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "predictions.csv")
    ...     _ = path.write_text("patch,score\\n8863_idx5_x451_y1451_class0.png,0.25\\n")
    ...     read_predictions(path)["score"].tolist()
    [0.25]
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *lines = [line for line in csv.reader(file, strict=True) if line] or [[]]
    except OSError as error:
        reason = "found no such file" if isinstance(error, FileNotFoundError) else f"got {type(error).__name__}"
        raise ValueError(f"{path}: expected a CSV file of predictions, {reason}. Correct the path.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path}: expected a CSV file with the columns patch and score, got one that cannot be read ({error}). "
            "Save it as comma-separated UTF-8."
        ) from error
    header = [name.strip() for name in header]
    require_columns(header, path)
    odd = [line for line in lines if len(line) != len(header)]
    if odd:
        raise ValueError(
            f"{path}: expected {len(header)} entries in every row, got {len(odd[0])} in {','.join(odd[0])!r:.120} "
            f"({len(odd):,} such rows). Write a row for each patch, with a decimal point and no comma in numbers."
        )
    patches, texts = ([line[header.index(column)].strip() for line in lines] for column in COLUMNS)
    return pd.DataFrame({"patch": pd.Series(patches, dtype=object), "score": _as_numbers(texts, patches, path)})


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


def _as_numbers(texts: list[str], patches: list[str], path: Path) -> np.ndarray:
    values, wrong = np.full(len(texts), np.nan), []
    for row, text in enumerate(texts):
        try:
            values[row] = float(text) if text else np.nan
        except ValueError:
            wrong.append(row)
    if wrong:
        raise ValueError(
            f"{path}: expected a number as the score of every patch, got {texts[wrong[0]]!r} for {patches[wrong[0]]} "
            f"({len(wrong):,} such rows). Write probabilities with a decimal point."
        )
    return values
