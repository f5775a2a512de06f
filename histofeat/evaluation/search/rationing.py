"""A head as a search fits it, and what halving rations: whole patients, where scikit-learn would thin out patches."""

from __future__ import annotations

import math
from itertools import zip_longest

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.metaestimators import available_if

from histofeat.model_selection import encode_patients

__all__ = ["HeadForSearch", "first_patients"]


_CARRIERS = 3
"""Patients of each class that come first: enough to calibrate on folds of patients, which some heads do in a fit."""


def first_patients(y, patients, n_patients: int, random_state=0) -> np.ndarray:
    """Rows of the first patients in a seeded order in which each class comes up early.

    Parameters
    ----------
    y : ndarray of shape (n,)
        Labels.
    patients : array-like of shape (n,)
        Patient ids.
    n_patients : int
        How many patients, at least the number of classes.
    random_state : int, default=0
        Seed of the order.

    Returns
    -------
    rows : ndarray of int64
        All rows of these patients, ascending. A smaller number gives a subset of a larger one. Each class is there,
        from three patients a class on in three patients, where there are as many.

    Examples
    --------
    >>> first_patients(["-", "-", "-", "+"], ["a", "b", "c", "d"], 2).tolist()
    [2, 3]
    """
    y = np.asarray(y)
    ids, codes = encode_patients(patients, len(y), "patients")
    order = np.random.default_rng(random_state).permutation(len(ids))
    carriers = [order[np.isin(order, codes[y == label])] for label in np.unique(y)]
    early = [patient for turn in zip_longest(*(some[:_CARRIERS] for some in carriers)) for patient in turn]
    order = list(dict.fromkeys(patient for patient in [*early, *order] if patient is not None))
    return np.flatnonzero(np.isin(codes, order[:n_patients]))


class HeadForSearch(ClassifierMixin, BaseEstimator):
    """A head as a search fits it: told the patients, not calibrated, and where asked on a part of the patients.

    Parameters
    ----------
    head : FeatureHead
        Unfitted.
    n_parts : int, default=1
        How many parts of the patients, rounded up to whole ones, and at least three for each class; the first in the
        order of `first_patients`.
    of_parts : int, default=1
        Into how many parts the patients are divided.
    random_state : int, default=0
        Seed of their order.

    Attributes
    ----------
    head_ : FeatureHead
        The fitted head.
    classes_ : ndarray of shape (k,)
        The labels.
    """

    def __init__(self, head, n_parts=1, of_parts=1, random_state=0):
        self.head = head
        self.n_parts = n_parts
        self.of_parts = of_parts
        self.random_state = random_state

    def fit(self, X, y, patients):
        """Fit on the rows `X` (n, d) with labels `y` (n,) of the first of `patients` (n,)."""
        if self.n_parts < self.of_parts:
            share = len(np.unique(patients)) * self.n_parts / self.of_parts
            n_patients = max(math.ceil(share), _CARRIERS * len(np.unique(y)))
            rows = first_patients(y, patients, n_patients, self.random_state)
            X, y, patients = X[rows], y[rows], patients[rows]
        self.head_ = clone(self.head).set_params(calibrate=False).fit(X, y, groups=patients)
        self.classes_ = self.head_.classes_
        return self

    @available_if(lambda candidate: hasattr(candidate.head_, "predict_proba"))
    def predict_proba(self, X) -> np.ndarray:
        """Probabilities of shape (n, k), where the head has them without calibration."""
        return self.head_.predict_proba(X)

    def decision_function(self, X) -> np.ndarray:
        """Scores that order the rows, as of `FeatureHead`."""
        return self.head_.decision_function(X)

    def predict(self, X) -> np.ndarray:
        """Labels, as of `FeatureHead`."""
        return self.head_.predict(X)
