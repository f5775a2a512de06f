"""Metrics as records: name, words, direction, how each is computed and resampled.

Class codes run from 0 to k - 1. With two classes code 1 is positive. With more, each class in turn is positive against
the rest and the k values are averaged with equal weight. What is undefined, such as ROC-AUC with one class, is NaN.
"""

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from histofeat.exceptions import check_name, check_shape, check_that, refuse_rows
from histofeat.metrics._ranking import check_fold, over_classes, ranking_scores


@dataclass(frozen=True)
class Metric:
    """One metric.

    Parameters
    ----------
    name : str
        Its key in results and files.
    words, short : str
        What a table calls it, and a narrow column.
    kind : {"ranking", "labels", "loss"}
        What it is computed from. Resamples weight the patients; a metric of "ranking" is computed from the weighted
        ranking, one of "labels" from weighted confusion matrices, one of "loss" is a weighted mean over the patches.
    compute : callable
        "ranking": takes what `ranking_scores` returns, returns shape (m,). "labels": takes `Counts` of shape
        (..., k, k), returns shape (...). "loss": takes `y` and `proba`, returns the loss of each patch, shape (n,).
    definition : str
        How it is defined, in a sentence without a final stop.
    higher_is_better : bool, default=True
    scale : {"logit", "log", "fisher"}, default="logit"
        On which its intervals are symmetric, by its range: 0 to 1, from 0 up, or -1 to 1.
    """

    name: str
    words: str
    short: str
    kind: str
    compute: Callable
    definition: str
    higher_is_better: bool = True
    scale: str = "logit"

    @property
    def label(self) -> str:
        """The words, and the direction where it is the other one."""
        return self.words if self.higher_is_better else f"{self.words} (lower is better)"


class Counts:
    """Confusion matrices of shape (..., k, k), weighted or not, and their sums by class, of shape (..., k)."""

    def __init__(self, matrix):
        self.matrix = np.asarray(matrix, dtype=np.float64)
        self.hits = np.einsum("...ii->...i", self.matrix)
        self.actual, self.called = self.matrix.sum(axis=-1), self.matrix.sum(axis=-2)
        self.total = self.actual.sum(axis=-1, keepdims=True)
        self.recall = ratio(self.hits, self.actual)
        #: 1 for a class that occurs, NaN for one that does not.
        self.present = np.where(self.actual > 0, 1.0, np.nan)


def ratio(part, whole, empty=np.nan):
    """Give ``part / whole``, and `empty` where there is no whole."""
    return np.divide(part, whole, out=np.full(np.shape(whole), empty), where=np.asarray(whole) > 0)


def _f1(counts):
    return over_classes(ratio(2 * counts.hits, counts.actual + counts.called) * counts.present)


def _precision(counts):
    return over_classes(ratio(counts.hits, counts.called, empty=0.0) * counts.present)


def _specificity(counts):
    right = counts.total - counts.actual - counts.called + counts.hits
    return over_classes(ratio(right, counts.total - counts.actual))


def _accuracy(counts):
    return ratio(counts.hits.sum(axis=-1), counts.total[..., 0])


def _correlation(counts):
    """Matthews correlation of any number of classes; 0 where one class is called throughout."""
    total = counts.total[..., 0]
    spread = [total**2 - (margin**2).sum(axis=-1) for margin in (counts.actual, counts.called)]
    shared = counts.hits.sum(axis=-1) * total - (counts.actual * counts.called).sum(axis=-1)
    return np.where(spread[0] > 0, ratio(shared, np.sqrt(spread[0] * spread[1]), empty=0.0), np.nan)


def _log_losses(y, proba):
    given = np.abs(1 - y - proba[:, 1]) if proba.shape[1] == 2 else proba[np.arange(len(y)), y]
    return -np.log(np.maximum(given, np.finfo(np.float64).eps))


def _squared_errors(y, proba):
    if proba.shape[1] == 2:
        return (proba[:, 1] - (y == 1)) ** 2
    return ((proba - np.eye(proba.shape[1])[y]) ** 2).sum(axis=1)


_RECORDS = (
    Metric(
        "roc_auc", "ROC-AUC", "ROC-AUC", "ranking", itemgetter(0),
        "probability that a positive patch scores above a negative one, ties counting one half",
    ),
    Metric(
        "average_precision", "Average precision", "AP", "ranking", itemgetter(1),
        "mean over the positive patches of the precision at their score, not interpolated",
    ),
    Metric("f1", "F1", "F1", "labels", _f1, "2 TP / (2 TP + FP + FN)"),
    Metric("precision", "Precision", "Prec.", "labels", _precision, "TP / (TP + FP), 0 without TP and FP"),
    Metric("sensitivity", "Sensitivity", "Sens.", "labels", lambda each: over_classes(each.recall), "TP / (TP + FN)"),
    Metric("specificity", "Specificity", "Spec.", "labels", _specificity, "TN / (TN + FP)"),
    Metric("accuracy", "Accuracy", "Acc.", "labels", _accuracy, "share of the patches called right"),
    Metric(
        "balanced_accuracy", "Balanced accuracy", "Bal. acc.", "labels", lambda counts: counts.recall.mean(axis=-1),
        "mean over the classes of the share found; of two, the mean of sensitivity and specificity",
    ),
    # doi:10.1016/j.compbiolchem.2004.09.006
    Metric(
        "mcc", "Matthews correlation", "MCC", "labels", _correlation,
        "correlation of true and called classes, of any number (-1 to 1; 0 where one class is called throughout)",
        scale="fisher",
    ),
    # doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2
    Metric(
        "brier", "Brier score", "Brier", "loss", _squared_errors,
        "mean squared error of the probability of the positive class (0 to 1); with more than two classes the sum over "
        "the classes (0 to 2)", higher_is_better=False, scale="log",
    ),
    Metric(
        "log_loss", "Log loss", "Log loss", "loss", _log_losses,
        "mean of -ln of the probability of the true class, which counts as at least 2.2e-16",
        higher_is_better=False, scale="log",
    ),
)  # fmt: skip

METRIC_RECORDS = MappingProxyType({metric.name: metric for metric in _RECORDS})
"""The register: every metric by its name, in the order of reports."""

#: The names of all metrics, and of those that a confusion matrix defines.
METRICS = tuple(METRIC_RECORDS)
LABEL_METRICS = tuple(metric.name for metric in _RECORDS if metric.kind == "labels")


def frozen(values: ArrayLike, dtype: Any = None) -> np.ndarray:
    """Copy an array and make it read-only, so that a frozen record is frozen to the bottom."""
    values = np.array(values, dtype=dtype)
    values.setflags(write=False)
    return values


def check_metrics(metrics, owner):
    """Refuse names that are no metric."""
    for metric in metrics:
        check_name(f"{owner}.metrics", metric, METRICS)


def scores(
    y: ArrayLike, proba: ArrayLike, predicted: ArrayLike | None = None, *, fold: ArrayLike | None = None
) -> dict[str, float]:
    """Compute every metric of one set of predictions.

    Parameters
    ----------
    y : array-like of shape (n,), int
        True class codes.
    proba : array-like of shape (n, k), float in [0, 1]
        Class probabilities.
    predicted : array-like of shape (n,), int, optional
        Class codes; by default the most probable class.
    fold : array-like of shape (n,), int, optional
        The fold that tests the patch; ROC-AUC and average precision then compare patches of one fold only, see
        `histofeat.metrics.ranking_scores`.

    Returns
    -------
    scores : dict of str to float
        One value for each of `METRICS`, defined in `METRIC_RECORDS`; NaN where undefined, see `label_scores`.

    Raises
    ------
    ValueError
        If a probability is NaN or out of range, or a shape or code does not fit.

    Examples
    --------
    >>> found = scores([0, 0, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8]])
    >>> found["roc_auc"], found["specificity"], round(found["brier"], 3)
    (1.0, 0.5, 0.125)
    """
    y, proba = check_predictions(y, proba)
    everyone = np.zeros(len(y), dtype=np.int64), np.ones((1, 1))
    found = weighted_scores(y, proba, predicted, *everyone, fold=check_fold(fold, len(y)))
    return {name: float(value[0]) for name, value in found.items()}


def weighted_scores(y, proba, predicted, patient, weights, metrics=METRICS, n_jobs=None, *, fold=None):
    """Compute metrics under many weightings of the patients.

    Parameters
    ----------
    y : ndarray of shape (n,), int64
        True class codes.
    proba : ndarray of shape (n, k), float64
        Class probabilities.
    predicted : array-like of shape (n,), int, or None
        Class codes; None for the most probable class.
    patient : ndarray of shape (n,), int64
        The column of `weights` that weighs the patch.
    weights : ndarray of shape (m, n_patients)
        How often each patient counts, m times; whole numbers.
    metrics : sequence of str, default=METRICS
        Which; the others are not computed.
    n_jobs : int, optional
        Threads. The result does not depend on it.
    fold : ndarray of shape (n,), int, optional
        The fold that tests the patch; metrics of the ranking compare patches of one fold only.

    Returns
    -------
    scores : dict of str to ndarray of shape (m,), float64

    Raises
    ------
    ValueError
        If a predicted code is none.
    """
    k, n_patients = proba.shape[1], weights.shape[1]
    predicted = most_probable(proba) if predicted is None else check_codes(predicted, len(y), k, "predicted")
    # Products run in floating point for speed; whole numbers below 2**53 stay exact.
    weights = weights.astype(np.float64)
    cells = np.bincount((patient * k + y) * k + predicted, minlength=n_patients * k * k).reshape(n_patients, k * k)
    counts = Counts((weights @ cells.astype(np.float64)).reshape(-1, k, k))
    records = [METRIC_RECORDS[name] for name in metrics]
    if any(record.kind == "ranking" for record in records):
        ranking = ranking_scores(y, proba, patient, weights, n_jobs=n_jobs, fold=fold)
    found = {}
    for record in records:
        if record.kind == "labels":
            found[record.name] = record.compute(counts)
        elif record.kind == "ranking":
            found[record.name] = record.compute(ranking)
        else:
            losses = np.bincount(patient, record.compute(y, proba), minlength=n_patients)
            found[record.name] = weights @ losses / counts.total[:, 0]
    return found


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
    fits, expected = proba.ndim == 2 and proba.shape[1] > 1 and len(proba), "at least one patch and two classes"
    check_that("proba", proba.shape, fits, f"shape (n, k) with {expected}", "Pass what predict_proba gives.")
    y = check_codes(y, len(proba), proba.shape[1], "y")
    remedy = "Score only patches that were tested, and calibrate scores first."
    refuse_rows(~((proba >= 0) & (proba <= 1)).all(axis=1), proba, "proba: expected probabilities from 0 to 1", remedy)
    # Single precision and rounding to three digits are still probabilities; votes or margins are not.
    off = np.abs(proba.sum(axis=1) - 1) > 2e-3
    refuse_rows(off, proba, "proba: expected rows that sum to 1", "Normalise the rows.")
    return y, proba


def check_codes(codes, n_samples, n_classes, name):
    """Refuse what is not one code from 0 to `n_classes` - 1 for each of `n_samples` patches."""
    codes = np.asarray(codes)
    check_shape(name, codes, (n_samples,), "Pass codes and probabilities of the same patches.")
    unknown, expected = ~np.isin(codes, np.arange(n_classes)), f"{name}: expected class codes from 0 to {n_classes - 1}"
    refuse_rows(unknown, codes, expected, "Score only patches that were tested, and encode labels as codes.")
    return codes.astype(np.int64)


def count_positive(y, owner, remedy):
    """Count the patches of class 1 of two; refuse labels that lack a class."""
    n_positive = int(y.sum())
    if n_positive in (0, len(y)):
        got = f"{n_positive} positive of {len(y)} patches"
        raise ValueError(f"{owner}.y: expected both classes, got {got}. {remedy}")
    return n_positive


def most_probable(proba: ArrayLike) -> np.ndarray:
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


def confusion(y: ArrayLike, predicted: ArrayLike, n_classes: int) -> np.ndarray:
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
    y = check_codes(y, len(y), n_classes, "y")
    predicted = check_codes(predicted, len(y), n_classes, "predicted")
    counts = np.bincount(y * n_classes + predicted, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes)


def label_scores(counts: ArrayLike) -> dict[str, np.ndarray]:
    """Compute the metrics that confusion matrices define, for any number of matrices at once.

    Parameters
    ----------
    counts : ndarray of shape (..., k, k)
        Confusion matrices, rows are the true class; counts may be weighted.

    Returns
    -------
    scores : dict of str to ndarray of shape (...)
        One entry for each of `LABEL_METRICS`.

    Notes
    -----
    With more than two classes F1, precision, sensitivity and specificity are means over the classes, so that
    sensitivity equals balanced accuracy. Where no patch is positive, precision, sensitivity, F1, balanced accuracy
    and Matthews correlation are NaN; where none is negative, specificity and the last two are.
    """
    counts = Counts(counts)
    return {name: METRIC_RECORDS[name].compute(counts) for name in LABEL_METRICS}
