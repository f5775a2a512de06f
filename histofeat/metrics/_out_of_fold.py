"""Score out-of-fold predictions: per fold, pooled, and averaged over patients, each with its interval; plain values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from histofeat.datasets import printable
from histofeat.metrics import _definitions as definitions
from histofeat.metrics._bootstrap import Bootstrap, bootstrap_scores, metric_scale, patient_weights, t_interval
from histofeat.model_selection import encode_patients


def plain_values(value: Any) -> Any:
    """Give plain Python values with the content of a value, for JSON.

    Dataclasses and mappings become dicts (their order is kept), sequences and arrays lists, data frames lists of
    records, paths their last component, NaN and infinities None. Anything else becomes its ``str``, without what no
    file of text can hold: see `histofeat.datasets.printable`.

    Examples
    --------
    >>> plain_values({"auc": np.float64(0.5), "ci95": (0.25, math.nan)})
    {'auc': 0.5, 'ci95': [0.25, None]}
    """
    if isinstance(value, PurePath):
        value = value.name
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    elif isinstance(value, pd.DataFrame):
        value = value.to_dict(orient="records")
    elif isinstance(value, pd.Series):
        value = value.to_dict()
    elif is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(plain_values(key)): plain_values(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(plain_values, value), key=str)
    if isinstance(value, list | tuple):
        return [plain_values(item) for item in value]
    if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if value is None or isinstance(value, int | float) else printable(str(value))


@dataclass(frozen=True)
class Score:
    """One metric of one model: over all tested patches, per fold, and averaged over patients.

    Parameters
    ----------
    value : float
        The metric on the out-of-fold predictions of all tested patches. ROC-AUC and average precision compare patches
        of one fold only, see `histofeat.metrics.ranking_scores`.
    ci95 : tuple of (float, float)
        95 % interval of `value` over other patients, for these fits; see `histofeat.metrics.bootstrap_scores`.
    pooled : float
        The metric with the patches of all folds in one list; differs from `value` in ROC-AUC and average precision
        only, where it is biased downward.
    folds : tuple of float
        The metric on the test patches of each fold; NaN if it is undefined there (one class only).
    mean, std : float
        Over the folds in which the metric is defined; `std` is the sample standard deviation (ddof 1),
        NaN with fewer than two such folds.
    folds_ci95 : tuple of tuple of (float, float)
        The 95 % interval in each fold, from resampling the patients of that fold.
    method_ci95 : tuple of (float, float)
        95 % interval of the method, fits on other patients included: the corrected t interval over the folds, and over
        those of further repetitions. NaN with a single split, which cannot tell how much the method varies.
    sd_patients : float
        Standard error of `value` over other patients.
    sd_fits : float
        See `deviation_of_fits`.
    sd_repeats : float
        Standard deviation of `value` between repetitions with other folds; NaN with one.
    n_resamples : int
        The resamples behind `ci95`: those in which every class occurs and the metric is defined.
    dropped : float
        Share of the resamples without any patch of some class.
    patient_mean : float
        The mean of the metric over the patients with tested patches of every class, each scored alone; see
        `histofeat.metrics.patient_averages`.
    patient_mean_ci95 : tuple of (float, float)
        95 % interval of `patient_mean`, on the resamples of `ci95`.
    n_patients_averaged, n_patients_left_out : int
        The patients behind `patient_mean`, and those without patches of some class.

    Examples
    --------
    >>> Score(0.79, (0.6, 0.9), 0.78, (0.9, math.nan, 0.7), 0.8, 0.1, ()).n_folds
    2
    """

    value: float
    ci95: tuple[float, float]
    pooled: float
    folds: tuple[float, ...]
    mean: float
    std: float
    folds_ci95: tuple[tuple[float, float], ...]
    method_ci95: tuple[float, float] = (math.nan, math.nan)
    sd_patients: float = math.nan
    sd_fits: float = math.nan
    sd_repeats: float = math.nan
    n_resamples: int = 0
    dropped: float = 0.0
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
    metrics: Sequence[str] = definitions.METRICS,
    test_train_ratio: float = math.nan,
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
    test_train_ratio : float
        Tested patients over training patients, the mean over the folds, for `Score.method_ci95`.
    **resampling
        ``n_resamples``, ``random_state`` and ``n_jobs`` of `histofeat.metrics.bootstrap_scores`.

    Returns
    -------
    scores : dict of str to Score
        One for each of `metrics`.
    resamples : Bootstrap
        The scores in every resample, for comparisons with other models of the same patients.

    Notes
    -----
    Resamples draw from the patients of all folds. The average over patients uses the same resamples.
    """
    fold = np.full(len(y), -1)
    for number, test in enumerate(tests):
        fold[test] = number
    tested = np.flatnonzero(fold >= 0)

    def resample(rows, **more):
        known = y[rows], proba[rows], patients[rows]
        return bootstrap_scores(*known, predicted=predicted[rows], metrics=metrics, **resampling, **more)

    whole = resample(tested, fold=fold[tested])
    pooled = definitions.scores(y[tested], proba[tested], predicted[tested])
    averages = patient_averages(
        y[tested], proba[tested], patients[tested], predicted=predicted[tested], metrics=metrics, **resampling
    )
    folds = [whole] if len(tests) == 1 else [resample(test) for test in tests]
    found = {metric: _collect(metric, whole, folds, averages, pooled[metric], test_train_ratio) for metric in metrics}
    return found, whole


def _collect(metric, whole, folds, averages, in_one_list, test_train_ratio):
    value, values = whole.estimates[metric], np.array([each.estimates[metric] for each in folds])
    defined = values[np.isfinite(values)]
    return Score(
        value=value,
        ci95=whole.interval(metric),
        pooled=in_one_list if definitions.METRIC_RECORDS[metric].kind == "ranking" else value,
        folds=tuple(values.tolist()),
        mean=float(defined.mean()) if defined.size else np.nan,
        std=float(defined.std(ddof=1)) if defined.size > 1 else np.nan,
        folds_ci95=tuple(each.interval(metric) for each in folds),
        method_ci95=method_interval(metric, value, values, test_train_ratio),
        sd_patients=whole.standard_error(metric),
        sd_fits=deviation_of_fits(values, [each.standard_error(metric) for each in folds]),
        n_resamples=whole.n_used(metric),
        dropped=whole.n_dropped / max(1, len(whole.samples[metric])),
        patient_mean=averages.mean(metric),
        patient_mean_ci95=averages.interval(metric),
        n_patients_averaged=len(averages.patients),
        n_patients_left_out=averages.n_left_out,
    )


def method_interval(
    metric: str, value: float, folds: Sequence[float], test_train_ratio: float, level: float = 0.95
) -> tuple[float, float]:
    """Give the interval of a method on new patients, with its fits: the corrected t interval over folds.

    Parameters
    ----------
    metric : str
        One of `METRICS`.
    value : float
        Its value over all folds.
    folds : sequence of float
        Its value in each fold, of all repetitions; NaN where it is undefined.
    test_train_ratio : float
        Tested patients over training patients of a fold.
    level : float in (0, 1), default=0.95

    Returns
    -------
    low, high : float
        NaN with fewer than two folds.

    Notes
    -----
    Folds share most of their training patients, so that their mean varies more than that of independent values:
    ``sd * sqrt(1 / k + test_train_ratio)`` (Nadeau and Bengio 2003, doi:10.1023/A:1024068626366), on the scale of
    `histofeat.metrics.bootstrap_scores`.

    Examples
    --------
    >>> [round(end, 3) for end in method_interval("roc_auc", 0.9, [0.88, 0.9, 0.92, 0.91, 0.89], 0.25)]
    [0.866, 0.926]
    """
    defined = np.asarray(folds)[np.isfinite(folds)]
    if defined.size < 2 or not test_train_ratio > 0:
        return np.nan, np.nan
    error = float(defined.std(ddof=1) * np.sqrt(1 / defined.size + test_train_ratio))
    return t_interval(value, error, defined.size - 1, level, scale=metric_scale(metric))


def deviation_of_fits(values: Sequence[float], errors: Sequence[float]) -> float:
    """Give the standard deviation between folds beyond what their different patients explain.

    Parameters
    ----------
    values : sequence of float
        The score in each fold.
    errors : sequence of float
        Its standard error over the patients of the fold.

    Returns
    -------
    deviation : float
        0 where patients explain all of it; NaN with one fold, or where a fold has no score or no error.

    Examples
    --------
    >>> round(deviation_of_fits([0.8, 0.9], [0.03, 0.03]), 3)
    0.064
    """
    if len(values) < 2:
        return np.nan
    return float(np.sqrt(np.maximum(np.var(values, ddof=1) - np.square(errors).mean(), 0.0)))


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
        return self.resamples.estimates[metric]

    def interval(self, metric: str, level: float = 0.95) -> tuple[float, float]:
        """Return the interval of the mean, as `Bootstrap.interval` does; NaN with fewer than two patients averaged."""
        return self.resamples.interval(metric, level)


def patient_averages(
    y: ArrayLike,
    proba: ArrayLike,
    patients: ArrayLike,
    *,
    predicted: ArrayLike | None = None,
    metrics: Sequence[str] = definitions.METRICS,
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
    definitions.check_metrics(metrics, "patient_averages")
    y, proba = definitions.check_predictions(y, proba)
    k = proba.shape[1]
    predicted = definitions.most_probable(proba) if predicted is None else predicted
    predicted = definitions.check_codes(predicted, len(y), k, "predicted")
    ids, codes = encode_patients(patients, len(y), "patients")
    having = np.array([np.bincount(codes[y == code], minlength=len(ids)) for code in range(k)])
    complete = (having > 0).all(axis=0)
    rows, places = complete[codes], np.cumsum(complete) - 1
    # In the weighting of a patient all others weigh nothing: one pass over the patches scores 64 patients.
    known = y[rows], proba[rows], predicted[rows], places[codes[rows]]
    values = definitions.weighted_scores(*known, np.eye(int(complete.sum())), metrics, n_jobs)
    weights = patient_weights(patients, n_resamples, random_state)[:, complete].astype(np.float64)
    drawn = weights.sum(axis=1)
    samples = {metric: definitions.frozen(definitions.ratio(weights @ values[metric], drawn)) for metric in metrics}
    return PatientAverages(
        patients=tuple(np.asarray(ids, dtype=object)[complete]),
        values={metric: definitions.frozen(values[metric]) for metric in metrics},
        n_left_out=int((~complete).sum()),
        resamples=Bootstrap(
            samples,
            int(complete.sum()),
            int((drawn == 0).sum()),
            estimates={metric: float(values[metric].mean()) if complete.any() else np.nan for metric in metrics},
            carriers=(int(complete.sum()),),
        ),
    )
