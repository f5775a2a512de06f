"""Every class against the rest: how well each one is found, with intervals from resampling patients."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from histofeat.metrics.bootstrap import Bootstrap, patient_weights
from histofeat.metrics.definitions import check_predictions, confusion, label_scores, most_probable, ranking_scores
from histofeat.model_selection import encode_patients

__all__ = ["CLASS_METRICS", "ClassScores", "class_scores"]

CLASS_METRICS = ("precision", "sensitivity", "specificity", "f1", "roc_auc", "average_precision")
"""The metrics of one class against the rest, in the order of tables."""


@dataclass(frozen=True, eq=False)
class ClassScores:
    """One row per class: its scores against the rest, what they rest on, and their intervals.

    Parameters
    ----------
    target_names : tuple of str
        The k classes, in the order of the codes.
    support : ndarray of shape (k,), int64
        Images of the class.
    predicted : ndarray of shape (k,), int64
        Images called the class.
    n_patients : ndarray of shape (k,), int64, or None
        Patients with an image of the class; None where no patients were given.
    values : Mapping of str to ndarray of shape (k,), float64
        Each of `CLASS_METRICS`; NaN where it is undefined.
    ci95 : Mapping of str to ndarray of shape (k, 2), float64
        95 % percentile intervals; NaN without patients, and for a class that fewer than two patients have.
    """

    target_names: tuple[str, ...]
    support: np.ndarray
    predicted: np.ndarray
    n_patients: np.ndarray | None
    values: Mapping[str, np.ndarray]
    ci95: Mapping[str, np.ndarray]

    def to_frame(self):
        """Return one row per class as a DataFrame; intervals in columns such as ``f1_low`` and ``f1_high``."""
        columns = {"class": list(self.target_names), "support": self.support, "predicted": self.predicted}
        if self.n_patients is not None:
            columns["n_patients"] = self.n_patients
        for metric in CLASS_METRICS:
            columns[metric] = self.values[metric]
            if self.n_patients is not None:
                columns[f"{metric}_low"], columns[f"{metric}_high"] = self.ci95[metric].T
        return pd.DataFrame(columns)

    def to_dicts(self):
        """One dict of plain values per class, for files: the counts, and "value" and "ci95" of each metric."""
        return [
            {
                "class": name,
                "support": int(self.support[code]),
                "predicted": int(self.predicted[code]),
                "n_patients": None if self.n_patients is None else int(self.n_patients[code]),
                **{
                    metric: {"value": float(self.values[metric][code]), "ci95": self.ci95[metric][code].tolist()}
                    for metric in CLASS_METRICS
                },
            }
            for code, name in enumerate(self.target_names)
        ]


def class_scores(
    y, proba, predicted=None, *, target_names=None, patients=None, n_resamples=2000, random_state=0, n_jobs=None
):
    """Score every class against the rest.

    Parameters
    ----------
    y : array-like of shape (n,), int
        True class codes.
    proba : array-like of shape (n, k), float in [0, 1]
        Class probabilities.
    predicted : array-like of shape (n,), int, optional
        Class codes; by default the most probable class.
    target_names : sequence of str, optional
        Names of the k classes; by default their codes.
    patients : array-like of shape (n,), optional
        Patient of each image, for the intervals.
    n_resamples : int, default=2000
        Resamples of the patients; 0 for no intervals.
    random_state : int, default=0
        Seed of `histofeat.metrics.patient_weights`.
    n_jobs : int, optional
        Threads. The result does not depend on it.

    Returns
    -------
    scores : ClassScores

    Raises
    ------
    ValueError
        If the predictions cannot be scored, see `check_predictions`, or the names are not k.
    GroupLeakageError
        If a patient id is missing.

    Notes
    -----
    The definitions are those of `label_scores` for two classes, with the class as the positive one: the mean of a
    column over more than two classes is the score of that name in a report. Precision is 0 for a class that occurs and
    is never called. A class that does not occur has NaN in everything but its specificity, and a class that is the only
    one has none.

    A resample without the class does not define its scores and drops out of its interval. A class of a single patient
    has no interval: to resample that patient does not vary it.

    Examples
    --------
    >>> proba = [[0.8, 0.1, 0.1], [0.5, 0.4, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]]
    >>> found = class_scores([0, 0, 1, 2], proba, target_names=("A", "F", "DC"))
    >>> found.values["sensitivity"].tolist(), found.values["precision"].round(2).tolist()
    ([1.0, 0.0, 1.0], [0.67, 0.0, 1.0])
    >>> found.values["roc_auc"].round(2).tolist(), found.support.tolist()
    ([0.75, 0.67, 1.0], [2, 1, 1])
    """
    y, proba = check_predictions(y, proba)
    k = proba.shape[1]
    names = _check_names(target_names, k)
    predicted = most_probable(proba) if predicted is None else np.asarray(predicted)
    counts = confusion(y, predicted, k)
    everyone, once = np.zeros(len(y), dtype=np.int64), np.ones((1, 1))
    values = _label_values(counts[None])
    values |= _ranking_values(y, proba, everyone, once, n_jobs)
    n_patients, ci95 = None, {metric: np.full((k, 2), np.nan) for metric in CLASS_METRICS}
    if patients is not None:
        _, codes = encode_patients(patients, len(y), "patients")
        n_patients = np.array([len(np.unique(codes[y == code])) for code in range(k)], dtype=np.int64)
        weights = patient_weights(patients, n_resamples, random_state)
        samples = _label_values(_resampled(y, predicted, codes, k, weights))
        samples |= _ranking_values(y, proba, codes, weights, n_jobs)
        ci95 = {metric: _intervals(samples[metric], n_patients) for metric in CLASS_METRICS}
    found = {metric: _frozen(values[metric][0]) for metric in CLASS_METRICS}
    ci95 = {metric: _frozen(ends) for metric, ends in ci95.items()}
    n_patients = None if n_patients is None else _frozen(n_patients)
    return ClassScores(names, _frozen(counts.sum(axis=1)), _frozen(counts.sum(axis=0)), n_patients, found, ci95)


def _check_names(target_names, k):
    names = tuple(str(code) for code in range(k)) if target_names is None else tuple(target_names)
    if isinstance(target_names, str) or len(names) != k:
        raise ValueError(
            f"class_scores.target_names: expected {k} names, one for each column of proba, got {target_names!r:.80}. "
            "Pass dataset.target_names."
        )
    return names


def _label_values(counts):
    """Score (m, k, k) confusion matrices class by class: (m, k) for each metric."""
    counts = np.asarray(counts, dtype=np.float64)
    found = np.einsum("...ii->...i", counts)
    missed, called = counts.sum(axis=-1) - found, counts.sum(axis=-2) - found
    others = counts.sum(axis=(-1, -2))[..., None] - found - missed - called
    two_by_two = np.stack([np.stack([others, called], axis=-1), np.stack([missed, found], axis=-1)], axis=-2)
    scores = label_scores(two_by_two)
    return {metric: scores[metric] for metric in ("precision", "sensitivity", "specificity", "f1")}


def _ranking_values(y, proba, patient, weights, n_jobs):
    """Rank the images by the probability of each class: (m, k) for each metric."""
    found = [
        ranking_scores((y == code).astype(np.int64), np.stack([1 - score, score], axis=1), patient, weights, n_jobs)
        for code, score in enumerate(proba.T)
    ]
    roc_auc, average_precision = (np.stack(values, axis=1) for values in zip(*found, strict=True))
    return {"roc_auc": roc_auc, "average_precision": average_precision}


def _resampled(y, predicted, codes, k, weights):
    cells = (codes * k + y) * k + predicted.astype(np.int64)
    by_patient = np.bincount(cells, minlength=weights.shape[1] * k * k).reshape(weights.shape[1], k * k)
    # The product runs in floating point for speed; whole numbers below 2**53 stay exact.
    return (weights.astype(np.float64) @ by_patient.astype(np.float64)).reshape(-1, k, k)


def _intervals(samples, n_patients):
    ends = np.full((len(n_patients), 2), np.nan)
    for code, carriers in enumerate(n_patients):
        if carriers > 1:
            ends[code] = Bootstrap({"score": samples[:, code]}, int(carriers), 0).interval("score")
    return ends


def _frozen(values):
    values = np.array(values)
    values.setflags(write=False)
    return values
