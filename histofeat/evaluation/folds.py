"""What is given as ``cv=`` becomes checked folds: rows in range, tested once, and no patient on both sides."""

import numpy as np

from histofeat.exceptions import GroupLeakageError
from histofeat.model_selection import PatchKFold, check_no_shared_patients, encode_patients

__all__ = ["FixedFolds", "check_folds", "fold_of_rows", "make_inner_folds"]


class FixedFolds:
    """Folds that were made and checked before, as a splitter: the same for every model.

    Parameters
    ----------
    pairs : sequence of (train, test)
        Row indices.
    """

    def __init__(self, pairs):
        self.pairs = tuple(pairs)

    def split(self, X, y=None, groups=None):
        """Give the folds; the arguments are ignored."""
        return iter(self.pairs)


def check_folds(cv, dataset, *, allow_patient_leakage=False):
    """Turn `cv` into pairs of row numbers that an evaluation can stand on.

    Parameters
    ----------
    cv : splitter or iterable of (train, test)
        Rows or masks.
    dataset : PatchDataset
        What is split.
    allow_patient_leakage : bool, default=False
        Whether a patient may be on both sides.

    Returns
    -------
    pairs : tuple of (ndarray, ndarray), int64
        Training and test rows of each fold.
    overlap : bool
        Whether a patient is on both sides of one.

    Raises
    ------
    GroupLeakageError
        If a row, or without leave a patient, is on both sides, or patients are missing.
    ValueError
        If `cv` is no split of these rows, or tests a row twice.
    """
    _, patients = encode_patients(dataset.patients, len(dataset), "dataset.patients")
    pairs = _as_pairs(cv, dataset)
    rows, times = np.unique(np.concatenate([test for _, test in pairs]), return_counts=True)
    if (times > 1).any():
        raise ValueError(
            f"evaluate.cv: expected each row to be tested at most once, got row {rows[times > 1][0]} tested again "
            f"({(times > 1).sum()} such rows). Evaluate repeated hold-outs one at a time."
        )
    if not allow_patient_leakage:
        _refuse_leakage(cv, pairs, dataset)
    return pairs, any(np.isin(patients[test], patients[train]).any() for train, test in pairs)


def _as_pairs(cv, dataset):
    if hasattr(cv, "split") and not isinstance(cv, str):
        cv = cv.split(np.arange(len(dataset)), dataset.y, dataset.patients)
    elif isinstance(cv, str) or not hasattr(cv, "__iter__"):
        raise ValueError(
            f"evaluate.cv: expected a splitter or pairs of (train, test) rows, got {cv!r}. Use PatientKFold(5)."
        )
    pairs = tuple((_as_rows(train, len(dataset)), _as_rows(test, len(dataset))) for train, test in cv)
    if not pairs:
        raise ValueError("evaluate.cv: expected at least one pair of (train, test) rows, got 0. Use PatientKFold(5).")
    for fold, (train, test) in enumerate(pairs):
        both = np.intersect1d(train, test)
        if both.size:
            raise GroupLeakageError(
                f"evaluate.cv: expected training and test rows to differ, got row {both[0]} on both sides of fold "
                f"{fold} ({both.size} such rows). Remove the rows from one side."
            )
    return pairs


def _as_rows(index, n_samples):
    index = np.asarray(index)
    if index.dtype == bool and index.shape == (n_samples,):
        index = np.flatnonzero(index)
    if index.ndim != 1 or not index.size or not np.issubdtype(index.dtype, np.integer):
        raise ValueError(
            f"evaluate.cv: expected row numbers or a mask over {n_samples} rows, got {index.dtype} values of shape "
            f"{index.shape}. Give one-dimensional arrays that are not empty."
        )
    if index.min() < 0 or index.max() >= n_samples:
        raise ValueError(
            f"evaluate.cv: expected row numbers from 0 to {n_samples - 1}, got {index.min()} to {index.max()}. "
            "Make the split from this very dataset."
        )
    return index.astype(np.int64)


def _refuse_leakage(cv, pairs, dataset):
    remedy = "To measure what leakage adds: AuditPolicy(accept_findings=('HF001',))."
    if isinstance(cv, PatchKFold):
        raise GroupLeakageError(
            f"evaluate.cv: expected folds of whole patients, got {cv!r}. Use PatientKFold. {remedy}"
        )
    for fold, (train, test) in enumerate(pairs):
        try:
            check_no_shared_patients(train, test, dataset.patients)
        except GroupLeakageError as error:
            raise GroupLeakageError(f"evaluate.cv, fold {fold}: {error} {remedy}") from error


def make_inner_folds(inner_cv, pairs, dataset, *, allow_patient_leakage=False):
    """Make the inner folds of the training rows of every fold, before the long work begins.

    Parameters
    ----------
    inner_cv : splitter
        A partition of the training rows by patient, such as ``PatientKFold(3)``.
    pairs : sequence of (train, test)
        As from `check_folds`.
    dataset : PatchDataset
        What is split.
    allow_patient_leakage : bool, default=False
        Whether a patient may be on both sides.

    Returns
    -------
    inner : tuple of FixedFolds
        One per fold; indices are positions in its training rows.

    Raises
    ------
    GroupLeakageError
        If a patient is on both sides of an inner fold.
    ValueError
        If the training patients cannot be split again, or not every training row is tested once.
    """
    if not hasattr(inner_cv, "split") or isinstance(inner_cv, str):
        raise ValueError(f"evaluate.inner_cv: expected a splitter, got {inner_cv!r}. Use PatientKFold(3).")
    y, patients = dataset.y, dataset.patients
    inner = []
    for fold, (train, _) in enumerate(pairs):
        where = f"evaluate.inner_cv, in the training patients of fold {fold}"
        try:
            folds = FixedFolds(inner_cv.split(train, y[train], patients[train]))
            for inner_train, inner_test in () if allow_patient_leakage else folds.pairs:
                check_no_shared_patients(inner_train, inner_test, patients[train])
        except GroupLeakageError as error:
            raise GroupLeakageError(f"{where}: {error}") from error
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        times = np.bincount(np.concatenate([test for _, test in folds.pairs]), minlength=len(train))
        if (times != 1).any():
            raise ValueError(
                f"{where}: expected each row to be tested once, got {(times != 1).sum()} of {len(train)} rows tested "
                "never or again. Use PatientKFold(3)."
            )
        inner.append(folds)
    return tuple(inner)


def fold_of_rows(pairs, n_samples):
    """Give the fold in which each row is tested, int64 of shape (n_samples,); -1 for rows that never are."""
    fold_of = np.full(n_samples, -1, dtype=np.int64)
    for fold, (_, test) in enumerate(pairs):
        fold_of[test] = fold
    return fold_of
