"""Scores of predictions: their definitions, and their undefined cases.

Every function takes class codes 0 to k - 1. With two classes the positive class is code 1. With more, each
class in turn is positive against the rest and the k values are averaged with equal weight ("macro",
"one-vs-rest"). A score that its patches cannot define is NaN, never an exception and never a made-up number.
"""

import numba
import numpy as np
from joblib import Parallel, delayed

__all__ = [
    "LABEL_METRICS",
    "METRICS",
    "brier_losses",
    "check_predictions",
    "check_scores",
    "confusion",
    "label_scores",
    "most_probable",
    "ranking_scores",
    "scores",
]

LABEL_METRICS = ("f1", "precision", "sensitivity", "specificity", "accuracy", "balanced_accuracy")
"""The metrics that a confusion matrix defines."""

METRICS = ("roc_auc", "average_precision", *LABEL_METRICS, "brier")
"""All metrics, in the order of reports."""

_WEIGHTINGS_AT_ONCE = 64


def scores(y, proba, predicted=None):
    """Every metric of one set of predictions.

    Parameters
    ----------
    y : array-like of shape (n,), int
        True class codes.
    proba : array-like of shape (n, k), float in [0, 1]
        Class probabilities.
    predicted : array-like of shape (n,), int, optional
        Class codes decided elsewhere, as at a tuned threshold; by default the most probable class.

    Returns
    -------
    scores : dict of str to float
        One value for each of `METRICS`, NaN where undefined (see `label_scores` and `ranking_scores`).

    Raises
    ------
    ValueError
        If a probability is NaN or out of range, or a shape or code does not fit.

    Notes
    -----
    ``brier`` is the mean squared error of the probability of the positive class with two classes (0 to 1),
    and the mean over patches of the squared errors summed over classes with more (0 to 2), as Brier wrote it
    (doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2).

    Examples
    --------
    >>> found = scores([0, 0, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8]])
    >>> found["roc_auc"], found["specificity"], round(found["brier"], 3)
    (1.0, 0.5, 0.125)
    """
    y, proba = check_predictions(y, proba)
    predicted = most_probable(proba) if predicted is None else predicted
    found = {name: float(value) for name, value in label_scores(confusion(y, predicted, proba.shape[1])).items()}
    everyone, once = np.zeros(len(y), dtype=np.int64), np.ones((1, 1))
    found["roc_auc"], found["average_precision"] = (
        float(value[0]) for value in ranking_scores(y, proba, everyone, once)
    )
    found["brier"] = float(brier_losses(y, proba).mean())
    return {name: found[name] for name in METRICS}


def check_predictions(y, proba):
    """Refuse predictions that cannot be scored.

    Parameters
    ----------
    y : array-like of shape (n,), int
        True class codes.
    proba : array-like of shape (n, k), float in [0, 1]
        Class probabilities, k at least 2.

    Returns
    -------
    y : ndarray of shape (n,), int64
    proba : ndarray of shape (n, k), float64

    Raises
    ------
    ValueError
        If a probability is NaN or out of range, rows do not sum to 1, or a shape or code does not fit.
    """
    proba = np.asarray(proba, dtype=np.float64)
    if proba.ndim != 2 or proba.shape[1] < 2 or not len(proba):
        raise ValueError(
            f"proba: expected shape (n, k) with at least one patch and two classes, got {proba.shape}. "
            "Pass what predict_proba gives."
        )
    y = _check_codes(y, len(proba), proba.shape[1], "y")
    wrong = np.flatnonzero(~((proba >= 0) & (proba <= 1)).all(axis=1))
    if wrong.size:
        raise ValueError(
            f"proba: expected probabilities from 0 to 1, got {proba[wrong[0]].tolist()} in row {wrong[0]} "
            f"({wrong.size} such rows). Score only patches that were tested, and calibrate scores first."
        )
    # Single precision and rounding to three digits are still probabilities; votes or margins are not.
    wrong = np.flatnonzero(np.abs(proba.sum(axis=1) - 1) > 2e-3)
    if wrong.size:
        raise ValueError(
            f"proba: expected rows that sum to 1, got {proba[wrong[0]].tolist()} in row {wrong[0]} "
            f"({wrong.size} such rows). Normalise the rows."
        )
    return y, proba


def check_scores(y, score, owner):
    """Refuse scores of two classes that are no probabilities, or do not belong to the labels.

    Parameters
    ----------
    y : array-like of shape (n,), int or bool
        0 or 1; one class alone will do.
    score : array-like of shape (n,), float in [0, 1]
        Probability of class 1.
    owner : str
        The function that the message names.

    Returns
    -------
    y : ndarray of shape (n,), int64
    score : ndarray of shape (n,), float64

    Raises
    ------
    ValueError
        If a score is NaN or out of range, or a shape or code does not fit.
    """
    score = np.asarray(score, dtype=np.float64)
    if score.ndim != 1 or not score.size:
        raise ValueError(
            f"{owner}.score: expected a probability of class 1 for each patch, got shape {score.shape}. Pass "
            "proba[:, 1]; of more than two classes one against the rest, y == code with proba[:, code]."
        )
    wrong = np.flatnonzero(~((score >= 0) & (score <= 1)))
    if wrong.size:
        raise ValueError(
            f"{owner}.score: expected probabilities from 0 to 1, got {score[wrong[0]]} in row {wrong[0]} "
            f"({wrong.size} such rows). Pass only patches that were scored, and probabilities, not decision values."
        )
    return _check_codes(y, len(score), 2, f"{owner}.y"), score


def _check_codes(codes, n_samples, n_classes, name):
    codes = np.asarray(codes)
    if codes.shape != (n_samples,):
        raise ValueError(
            f"{name}: expected a class code for each of {n_samples} patches, got shape {codes.shape}. "
            "Pass codes and probabilities of the same rows."
        )
    wrong = np.flatnonzero(~np.isin(codes, np.arange(n_classes)))
    if wrong.size:
        raise ValueError(
            f"{name}: expected class codes from 0 to {n_classes - 1}, got {codes[wrong[0]]!s} in row {wrong[0]} "
            f"({wrong.size} such rows). Score only patches that were tested, and encode labels as codes."
        )
    return codes.astype(np.int64)


def most_probable(proba):
    """Give the most probable class of each patch.

    Parameters
    ----------
    proba : ndarray of shape (n, k), float
        Class probabilities.

    Returns
    -------
    predicted : ndarray of shape (n,), int64
        With two classes, code 1 where its probability is above one half. A tie goes to the lower code, as in
        scikit-learn's ``predict``.
    """
    return np.asarray(proba).argmax(axis=1).astype(np.int64)


def confusion(y, predicted, n_classes):
    """Count patches by true and by predicted class.

    Parameters
    ----------
    y, predicted : array-like of shape (n,), int
        Class codes, n may be 0.
    n_classes : int
        The number of classes k, whether or not all of them occur.

    Returns
    -------
    counts : ndarray of shape (k, k), int64
        Rows are the true class, columns the predicted one.

    Raises
    ------
    ValueError
        If a code is not from 0 to k - 1 or the lengths differ.

    Examples
    --------
    >>> confusion([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    y = _check_codes(y, len(y), n_classes, "y")
    predicted = _check_codes(predicted, len(y), n_classes, "predicted")
    counts = np.bincount(y * n_classes + predicted, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes)


def label_scores(counts):
    """The metrics that confusion matrices define, for any number of matrices at once.

    Parameters
    ----------
    counts : ndarray of shape (..., k, k)
        Confusion matrices, rows are the true class; weighted counts will do.

    Returns
    -------
    scores : dict of str to ndarray of shape (...)
        One entry for each of `LABEL_METRICS`.

    Notes
    -----
    With TP, FP, FN, TN of the positive class: sensitivity (recall) TP / (TP + FN), specificity
    TN / (TN + FP), precision TP / (TP + FP), F1 2 TP / (2 TP + FP + FN). Balanced accuracy is the mean over
    the classes of the share found, for two classes the mean of sensitivity and specificity. With more than
    two classes the first four are means over the classes, so that sensitivity equals balanced accuracy.

    Where no patch is predicted positive, precision is 0. Where no patch is positive, precision, sensitivity,
    F1 and balanced accuracy are NaN; where none is negative, specificity and balanced accuracy are.
    """
    counts = np.asarray(counts, dtype=np.float64)
    true_positive = np.einsum("...ii->...i", counts)
    actual, predicted = counts.sum(axis=-1), counts.sum(axis=-2)
    total = actual.sum(axis=-1, keepdims=True)
    true_negative = total - actual - predicted + true_positive
    recall = _ratio(true_positive, actual)
    present = np.where(actual > 0, 1.0, np.nan)
    per_class = {
        "f1": _ratio(2 * true_positive, actual + predicted) * present,
        "precision": _ratio(true_positive, predicted, empty=0.0) * present,
        "sensitivity": recall,
        "specificity": _ratio(true_negative, total - actual),
    }
    found = {name: _over_classes(values) for name, values in per_class.items()}
    found["accuracy"] = _ratio(true_positive.sum(axis=-1), total[..., 0])
    found["balanced_accuracy"] = recall.mean(axis=-1)
    return found


def _ratio(part, whole, empty=np.nan):
    return np.divide(part, whole, out=np.full(np.shape(whole), empty), where=np.asarray(whole) > 0)


def _over_classes(per_class):
    """Take the positive class of two, the mean of more."""
    return per_class[..., 1] if per_class.shape[-1] == 2 else per_class.mean(axis=-1)


def brier_losses(y, proba):
    """Squared error of the probabilities of each patch, of which the Brier score is the mean.

    Parameters
    ----------
    y : ndarray of shape (n,), int
        True class codes.
    proba : ndarray of shape (n, k), float64
        Class probabilities.

    Returns
    -------
    losses : ndarray of shape (n,), float64
        Of the positive class with two classes, summed over the classes with more.
    """
    if proba.shape[1] == 2:
        return (proba[:, 1] - (y == 1)) ** 2
    return ((proba - np.eye(proba.shape[1])[y]) ** 2).sum(axis=1)


def ranking_scores(y, proba, patient, weights, n_jobs=None):
    """ROC-AUC and average precision under many weightings of the patients, from one sort of the patches.

    Parameters
    ----------
    y : ndarray of shape (n,), int
        True class codes.
    proba : ndarray of shape (n, k), float64
        Class probabilities.
    patient : ndarray of shape (n,), int
        The column of `weights` that weighs the patch.
    weights : ndarray of shape (m, n_patients)
        How often each patient counts, m times.
    n_jobs : int, optional
        Threads, as in joblib.

    Returns
    -------
    roc_auc, average_precision : ndarray of shape (m,), float64
        NaN where a class has no weight.

    Notes
    -----
    ROC-AUC is the probability that a positive patch scores above a negative one, ties counting one half.
    Average precision is the mean, over the positive patches, of the precision among patches with at least
    their score: a step function, not interpolated. With more than two classes both are one-vs-rest means.
    """
    n_classes = proba.shape[1]
    per_class = np.empty((2, len(weights), n_classes))
    for code in [1] if n_classes == 2 else range(n_classes):
        order = np.argsort(-proba[:, code], kind="stable")
        ranked = proba[order, code]
        ends = np.append(ranked[1:] != ranked[:-1], True)
        per_class[:, :, code] = _in_blocks((y[order] == code), patient[order], ends, weights, n_jobs)
    return tuple(_over_classes(values) for values in per_class)


def _in_blocks(positive, patient, ends, weights, n_jobs):
    """Run the kernel over blocks of weightings: as many as share one pass over the patches in cache."""
    blocks = (
        np.ascontiguousarray(weights[start : start + _WEIGHTINGS_AT_ONCE].T, dtype=np.float64)
        for start in range(0, len(weights), _WEIGHTINGS_AT_ONCE)
    )
    found = Parallel(n_jobs=n_jobs, require="sharedmem")(
        delayed(_weighted_ranking)(positive, patient, ends, block) for block in blocks
    )
    return np.concatenate(found, axis=1) if found else np.empty((2, 0))


@numba.njit(cache=True, nogil=True, fastmath=False, error_model="numpy")
def _weighted_ranking(positive, patient, ends, weights):
    """Walk down the ranking once for all columns of `weights` (n_patients, m).

    `ends` marks the last patch of each run of equal scores. Counts are whole numbers, so the area is exact.
    """
    m = weights.shape[1]
    area, precision = np.zeros(m), np.zeros(m)
    above_p, above_n = np.zeros(m), np.zeros(m)
    tied_p, tied_n = np.zeros(m), np.zeros(m)
    alone = True
    for i in range(len(patient)):
        w = weights[patient[i]]
        if alone and ends[i]:  # nearly every patch, and then half of the work falls away
            if positive[i]:
                for b in range(m):
                    above_p[b] += w[b]
                    precision[b] += w[b] * (above_p[b] / max(above_p[b] + above_n[b], 1.0))
            else:
                for b in range(m):
                    area[b] += w[b] * above_p[b]
                    above_n[b] += w[b]
            continue
        tied = tied_p if positive[i] else tied_n
        for b in range(m):
            tied[b] += w[b]
        alone = ends[i]
        if ends[i]:
            for b in range(m):
                area[b] += tied_n[b] * (above_p[b] + 0.5 * tied_p[b])
                above_p[b] += tied_p[b]
                above_n[b] += tied_n[b]
                precision[b] += tied_p[b] * (above_p[b] / max(above_p[b] + above_n[b], 1.0))
                tied_p[b] = 0.0
                tied_n[b] = 0.0
    out = np.full((2, m), np.nan)
    for b in range(m):
        if above_p[b] > 0.0 and above_n[b] > 0.0:
            out[0, b] = area[b] / (above_p[b] * above_n[b])
            out[1, b] = precision[b] / above_p[b]
    return out
