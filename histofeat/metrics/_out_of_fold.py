"""Score out-of-fold predictions: per fold, pooled, and averaged over patients, each with its interval."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from histofeat.metrics._bootstrap import Bootstrap, bootstrap_scores, patient_weights
from histofeat.metrics._definitions import (
    METRICS,
    check_codes,
    check_metrics,
    check_predictions,
    frozen,
    most_probable,
    plain_values,
    ratio,
    scores,
    weighted_scores,
)
from histofeat.model_selection import encode_patients


@dataclass(frozen=True)
class Score:
    """One metric of one model: per fold, pooled over all tested patches, and averaged over patients.

    Parameters
    ----------
    folds : tuple of float
        The metric on the test patches of each fold; NaN if it is undefined there (one class only).
    mean, std : float
        Over the folds in which the metric is defined; `std` is the sample standard deviation (ddof 1),
        NaN with fewer than two such folds.
    pooled : float
        The metric on the out-of-fold predictions of all tested patches together.
    ci95 : tuple of (float, float)
        95 % percentile interval of `pooled`, from resampling patients.
    folds_ci95 : tuple of tuple of (float, float)
        The same for each fold, from resampling the patients of that fold.
    n_resamples : int
        The resamples behind `ci95`: those in which every class occurs and the metric is defined.
    patient_mean : float
        The mean of the metric over the patients with tested patches of every class, each scored alone; see
        `histofeat.metrics.patient_averages`.
    patient_mean_ci95 : tuple of (float, float)
        95 % percentile interval of `patient_mean`, on the resamples of `ci95`.
    n_patients_averaged, n_patients_left_out : int
        The patients behind `patient_mean`, and those without patches of some class.

    Examples
    --------
    >>> nan = float("nan")
    >>> Score((0.9, nan, 0.7), 0.8, 0.1, 0.79, (0.6, 0.9), ((0.8, 1.0), (nan, nan), (0.5, 0.9))).n_folds
    2
    """

    folds: tuple[float, ...]
    mean: float
    std: float
    pooled: float
    ci95: tuple[float, float]
    folds_ci95: tuple[tuple[float, float], ...]
    n_resamples: int = 0
    patient_mean: float = math.nan
    patient_mean_ci95: tuple[float, float] = (math.nan, math.nan)
    n_patients_averaged: int = 0
    n_patients_left_out: int = 0

    @property
    def n_folds(self) -> int:
        """The number of folds in which the metric is defined, which `mean` and `std` are computed from."""
        return int(np.isfinite(self.folds).sum())

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types; an undefined number is None."""
        return plain_values(self)


def score_folds(
    y: np.ndarray,
    proba: np.ndarray,
    predicted: np.ndarray,
    patients: np.ndarray,
    tests: Sequence[np.ndarray],
    *,
    metrics: Sequence[str] = METRICS,
    **resampling: Any,
) -> tuple[dict[str, Score], Bootstrap]:
    """Score the out-of-fold predictions of one model.

    Parameters
    ----------
    y : ndarray of shape (n,), int64
        True class codes.
    proba : ndarray of shape (n, k), float64
        Class probabilities; rows that no fold tests may be NaN.
    predicted : ndarray of shape (n,), int64
        Class codes; rows that no fold tests may be -1.
    patients : ndarray of shape (n,)
        Patient ids.
    tests : sequence of ndarray
        Test rows of each fold, disjoint.
    metrics : sequence of str, default=METRICS
        Which metrics.
    **resampling
        ``n_resamples``, ``random_state`` and ``n_jobs`` of `histofeat.metrics.bootstrap_scores`.

    Returns
    -------
    scores : dict of str to Score
        One for each of `metrics`.
    resamples : Bootstrap
        The pooled scores in every resample, for comparisons with other models of the same patients.

    Notes
    -----
    The pooled score ranks the patches of all folds in one list; its resamples draw from the patients of all folds.
    The average over patients uses the same resamples.
    """

    def score(rows):
        known = y[rows], proba[rows]
        resamples = bootstrap_scores(*known, patients[rows], predicted=predicted[rows], metrics=metrics, **resampling)
        return scores(*known, predicted[rows]), resamples

    tested = np.sort(np.concatenate(tests))
    pooled = score(tested)
    averages = patient_averages(
        y[tested], proba[tested], patients[tested], predicted=predicted[tested], metrics=metrics, **resampling
    )
    folds = [score(test) for test in tests]
    return {metric: _collect(metric, pooled, folds, averages) for metric in metrics}, pooled[1]


def _collect(metric, pooled, folds, averages):
    values = np.array([found[metric] for found, _ in folds])
    defined = values[np.isfinite(values)]
    found, resamples = pooled
    return Score(
        folds=tuple(values.tolist()),
        mean=float(defined.mean()) if defined.size else np.nan,
        std=float(defined.std(ddof=1)) if defined.size > 1 else np.nan,
        pooled=found[metric],
        ci95=resamples.interval(metric),
        folds_ci95=tuple(resampled.interval(metric) for _, resampled in folds),
        n_resamples=resamples.n_used(metric),
        patient_mean=averages.mean(metric),
        patient_mean_ci95=averages.interval(metric),
        n_patients_averaged=len(averages.patients),
        n_patients_left_out=averages.n_left_out,
    )


@dataclass(frozen=True, eq=False)
class PatientAverages:
    """Metrics of single patients, and their means under resampling of the patients.

    Parameters
    ----------
    patients : tuple of str
        The patients with patches of every class; the average is over these.
    values : Mapping of str to ndarray of shape (len(patients),), float64
        The metric on the patches of each of them.
    n_left_out : int
        The patients without patches of some class.
    resamples : Bootstrap
        The mean of each metric in each resample of all patients, including those left out: the resamples of
        `histofeat.metrics.bootstrap_scores` with the same seed. NaN in a resample without any patient of every class.
    """

    patients: tuple[str, ...]
    values: Mapping[str, np.ndarray]
    n_left_out: int
    resamples: Bootstrap

    def mean(self, metric: str) -> float:
        """Return the mean of `metric` over the patients averaged; NaN if there is none."""
        return float(self.values[metric].mean()) if self.patients else np.nan

    def interval(self, metric: str, level: float = 0.95) -> tuple[float, float]:
        """Return the percentile interval of the mean; NaN with fewer than two patients averaged."""
        return self.resamples.interval(metric, level)


def patient_averages(
    y: ArrayLike,
    proba: ArrayLike,
    patients: ArrayLike,
    *,
    predicted: ArrayLike | None = None,
    metrics: Sequence[str] = METRICS,
    n_resamples: int = 2000,
    random_state: int = 0,
    n_jobs: int | None = None,
) -> PatientAverages:
    """Average every metric over the patients with patches of every class.

    Parameters
    ----------
    y : array-like of shape (n,), int
        True class codes.
    proba : array-like of shape (n, k), float in [0, 1]
        Class probabilities.
    patients : array-like of shape (n,)
        Patient ids.
    predicted : array-like of shape (n,), int, optional
        Class codes; by default the most probable class.
    metrics : sequence of str, default=METRICS
        Which of `histofeat.metrics.METRICS`.
    n_resamples : int, default=2000
        Number of resamples.
    random_state : int, default=0
        Seed of `histofeat.metrics.patient_weights`.
    n_jobs : int, optional
        Threads. The result does not depend on it.

    Returns
    -------
    averages : PatientAverages
        With the metrics asked for.

    Raises
    ------
    ValueError
        If a metric is unknown, or the predictions cannot be scored, see `check_predictions`.
    GroupLeakageError
        If a patient id is missing.

    Notes
    -----
    A pooled score ranks the patches of all patients in one list, in which patients with many patches dominate. The
    average measures how well each patch is ranked among those of its own patient. The two differ if all scores of some
    patients are higher than those of others, and neither replaces the other.

    All metrics are averaged over the same patients, including those, such as accuracy, that one class would define. In
    a resample a patient drawn twice counts twice.

    Examples
    --------
    Patient "a" is ranked without an error, "b" in reverse, and "c" has no patch of class 1.

    >>> positive = [0.1, 0.9, 0.8, 0.3, 0.5]
    >>> proba = [[1 - p, p] for p in positive]
    >>> found = patient_averages([0, 1, 0, 1, 0], proba, list("aabbc"), n_resamples=10)
    >>> found.patients, found.values["roc_auc"].tolist(), found.mean("roc_auc"), found.n_left_out
    (('a', 'b'), [1.0, 0.0], 0.5, 1)
    """
    check_metrics(metrics, "patient_averages")
    y, proba = check_predictions(y, proba)
    k = proba.shape[1]
    predicted = most_probable(proba) if predicted is None else check_codes(predicted, len(y), k, "predicted")
    ids, codes = encode_patients(patients, len(y), "patients")
    having = np.array([np.bincount(codes[y == code], minlength=len(ids)) for code in range(k)])
    complete = (having > 0).all(axis=0)
    rows, places = complete[codes], np.cumsum(complete) - 1
    # In the weighting of a patient all others weigh nothing: one pass over the patches scores 64 patients.
    known = y[rows], proba[rows], predicted[rows], places[codes[rows]]
    values = weighted_scores(*known, np.eye(int(complete.sum())), metrics, n_jobs)
    weights = patient_weights(patients, n_resamples, random_state)[:, complete].astype(np.float64)
    drawn = weights.sum(axis=1)
    samples = {metric: frozen(ratio(weights @ values[metric], drawn)) for metric in metrics}
    return PatientAverages(
        patients=tuple(np.asarray(ids, dtype=object)[complete]),
        values={metric: frozen(values[metric]) for metric in metrics},
        n_left_out=int((~complete).sum()),
        resamples=Bootstrap(samples, int(complete.sum()), int((drawn == 0).sum())),
    )
