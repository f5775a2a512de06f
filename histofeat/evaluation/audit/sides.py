"""The folds of a split as checked row numbers, and the names that findings give to rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Any

import numpy as np

from histofeat.exceptions import DatasetError
from histofeat.model_selection import encode_patients

__all__ = ["Split", "as_split", "list_some"]


@dataclass(frozen=True, eq=False)
class Split:
    """A data set, its folds, and its patients by number: what every check reads.

    Parameters
    ----------
    dataset : PatchDataset
    folds : tuple of (ndarray, ndarray), int64
        Training and test rows of each fold.
    ids : list of str
        Distinct patient ids.
    patient : ndarray of shape (n,), int64
        Index of each row's patient into `ids`.
    """

    dataset: Any
    folds: tuple[tuple[np.ndarray, np.ndarray], ...]
    ids: list[str]
    patient: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.patient)

    @property
    def n_folds(self) -> str:
        """The number of folds in words."""
        return f"{len(self.folds)} fold{'s' if len(self.folds) > 1 else ''}"

    def sides_by(self, codes: np.ndarray):
        """Yield (fold, training, test): counts of rows per code from 0 upwards; negative codes are left out."""
        n_codes = int(codes.max(initial=-1)) + 1
        for fold, (train, test) in enumerate(self.folds):
            yield fold, *(_count(codes[rows], n_codes) for rows in (train, test))

    @cached_property
    def _names(self) -> np.ndarray:
        try:
            return self.dataset.relative_paths
        except DatasetError:  # what names a row in a message need not be what opens its file
            return np.array([PurePath(path).name for path in self.dataset.X], dtype=object)

    def name(self, row: int) -> str:
        """Name an image without telling whose disk it is on."""
        return str(self._names[row])


def _count(codes: np.ndarray, n_codes: int) -> np.ndarray:
    return np.bincount(codes[codes >= 0], minlength=n_codes)


def as_split(dataset, splits: Iterable) -> Split:
    """Check the folds of a split.

    Parameters
    ----------
    dataset : PatchDataset
        What was split.
    splits : iterable of (train, test)
        Row numbers or masks.

    Returns
    -------
    split : Split

    Raises
    ------
    ValueError
        If there is no fold, or a side is empty or no set of rows of this data set.
    GroupLeakageError
        If a row has no patient.

    Examples
    --------
    >>> from histofeat.datasets import make_cohort
    >>> split = as_split(make_cohort(n_patients=2, patches_per_patient=4), [([0, 1], [2])])
    >>> split.folds[0][1].tolist(), split.n_folds
    ([2], '1 fold')
    """
    ids, patient = encode_patients(dataset.patients, len(dataset), "dataset.patients")
    if isinstance(splits, str) or not isinstance(splits, Iterable):
        raise ValueError(
            f"audit_split.splits: expected pairs of (train, test) rows, got {splits!r:.60}. "
            "Pass list(cv.split(dataset.X, dataset.y, dataset.patients))."
        )
    folds = []
    for fold, pair in enumerate(splits):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(
                f"audit_split.splits: expected a pair (train, test) for fold {fold}, got {pair!r:.60}. "
                "Give the rows of both sides of each fold."
            )
        folds.append(tuple(_as_rows(side, len(patient), f"{name} side of fold {fold}")
                           for name, side in zip(("training", "test"), pair, strict=True)))  # fmt: skip
    if not folds:
        raise ValueError("audit_split.splits: expected at least one pair (train, test), got 0. Give the folds.")
    return Split(dataset, tuple(folds), ids, patient)


def _as_rows(index, n_rows: int, side: str) -> np.ndarray:
    index = np.asarray(index)
    if index.dtype == bool and index.shape == (n_rows,):
        index = np.flatnonzero(index)
    if index.ndim != 1 or not index.size or index.dtype.kind not in "iu":
        raise ValueError(
            f"audit_split.splits: expected row numbers or a mask over {n_rows:,} rows as the {side}, got "
            f"{index.dtype} of shape {index.shape}. Give one-dimensional arrays that are not empty."
        )
    if index.min() < 0 or index.max() >= n_rows:
        raise ValueError(
            f"audit_split.splits: expected row numbers from 0 to {n_rows - 1} as the {side}, got {index.min()} to "
            f"{index.max()}. Make the split from this very data set."
        )
    return index.astype(np.int64)


def list_some(numbers: Iterable, most: int = 5) -> str:
    """List the first numbers of a sequence in words.

    Examples
    --------
    >>> list_some([0, 1, 2], most=2), list_some([4])
    ('0, 1, ... (3 in all)', '4')
    """
    numbers = list(numbers)
    first = ", ".join(map(str, numbers[:most]))
    return f"{first}, ... ({len(numbers)} in all)" if len(numbers) > most else first
