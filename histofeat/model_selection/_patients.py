"""Canonical patient ids, and the checks of patients and labels that every split starts with."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils.multiclass import type_of_target

from histofeat.exceptions import GroupLeakageError

#: Patients that a message names.
_SHOWN = 3


def encode_patients(patients: ArrayLike, n_samples: int, name: str = "groups") -> tuple[list[str], np.ndarray]:
    """Encode patient ids as text, and number the patients.

    The integer 8863, the float 8863.0 and the text "8863" are one patient. Ids are ordered as integers if all of them
    are, otherwise as text: neither the order of the rows nor the type of the ids changes what is seeded by the number
    of a patient.

    Parameters
    ----------
    patients : array-like of shape (n_samples,)
        Ids of any hashable kind.
    n_samples : int
        The number of patches.
    name : str, default="groups"
        What an error message calls `patients`.

    Returns
    -------
    ids : list of str
        Distinct ids, in order.
    codes : ndarray of shape (n_samples,), int64
        Index into `ids`.

    Raises
    ------
    GroupLeakageError
        If `patients` is None, has not one entry per patch, or has missing (None, NaN, blank) entries.

    Examples
    --------
    >>> ids, codes = encode_patients([10253, 8863, 10253], 3)
    >>> ids, codes.tolist()
    (['8863', '10253'], [1, 0, 1])
    """
    if patients is None:
        raise GroupLeakageError(
            f"{name}: expected one patient id per patch, got None. Pass groups=dataset.patients to fit or split."
        )
    values = np.asarray(patients, dtype=object)
    if values.shape != (n_samples,):
        raise GroupLeakageError(
            f"{name}: expected one patient id for each of {n_samples} patches, got shape {values.shape}. "
            "Pass the patients of the same rows as X and y."
        )
    codes, found = pd.factorize(values)
    texts = [_patient_text(value) for value in found]
    blank = [code for code, text in enumerate(texts) if not text.strip()]
    missing = np.flatnonzero((codes < 0) | np.isin(codes, blank))
    if missing.size:
        raise GroupLeakageError(
            f"{name}: expected a patient id for every patch, got {values[missing[0]]!r} at row {missing[0]} "
            f"({missing.size} missing in all). Drop these patches or name their patients."
        )
    integers = all(text.removeprefix("-").isdecimal() for text in texts)
    ids = sorted(set(texts), key=(lambda text: (int(text), text)) if integers else None)
    number = {text: index for index, text in enumerate(ids)}
    return ids, np.array([number[text] for text in texts], dtype=np.int64)[codes]


def _patient_text(value):
    """Return an id as text; a column of integers that once held a NaN arrives as floats."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def check_no_shared_patients(train: ArrayLike, test: ArrayLike, patients: ArrayLike) -> None:
    """Refuse a split that puts one patient on both sides.

    Parameters
    ----------
    train, test : array-like of int or bool
        Rows of the two sides, as indices into `patients` or as masks over it.
    patients : array-like of shape (n,)
        Patient ids.

    Raises
    ------
    GroupLeakageError
        If a patient has patches on both sides, or an id is missing.

    Examples
    --------
    >>> check_no_shared_patients([0, 1], [2], ["a", "a", "b"])
    >>> check_no_shared_patients([0], [1, 2], ["a", "a", "b"])
    Traceback (most recent call last):
    histofeat.exceptions.GroupLeakageError: split: expected no patient on both sides, got 1: 'a'. ...
    """
    ids, codes = encode_patients(patients, len(patients), "patients")
    shared = np.intersect1d(codes[np.asarray(train)], codes[np.asarray(test)])
    if shared.size:
        first = ", ".join(repr(ids[code]) for code in shared[:_SHOWN])
        more = ", ..." if shared.size > _SHOWN else ""
        raise GroupLeakageError(
            f"split: expected no patient on both sides, got {shared.size}: {first}{more}. "
            "Split by patient, as PatientKFold does."
        )


def check_labels(y, n_samples, name):
    """Refuse labels that do not fit the patches, are not classes, or are all of one class.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Class labels.
    n_samples : int
        The number of patches.
    name : str
        The splitter that an error message names.

    Returns
    -------
    labels : ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        If `y` is missing, has another length, gaps, values that are no classes, or one class.
    """
    labels = np.asarray(y)
    if y is None or labels.shape != (n_samples,):
        raise ValueError(
            f"{name}.split: expected y with one class label for each of {n_samples} patches, got "
            f"{'None' if y is None else f'shape {labels.shape}'}. Pass y=dataset.y."
        )
    if pd.isna(labels).any() or type_of_target(labels) not in ("binary", "multiclass"):
        raise ValueError(
            f"{name}.split: expected y of class labels without gaps, got {labels.dtype} values such as "
            f"{_odd_label(labels)!r}. Pass y=dataset.y."
        )
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(
            f"{name}.split: expected at least 2 classes in y, got only {shown_class(classes[0])}. "
            "Add patches of another class."
        )
    return labels


def shown_class(label):
    """Return a class as a person types it, without numpy's type."""
    return f"class {label.item() if isinstance(label, np.generic) else label!r}"


def _odd_label(labels):
    missing = np.flatnonzero(pd.isna(labels))
    value = labels[missing[0] if missing.size else 0]
    return value.item() if isinstance(value, np.generic) else value
