"""Out-of-fold predictions become scores: per fold, pooled and averaged over patients, each with its interval."""

import numpy as np

from histofeat.metrics.bootstrap import bootstrap_scores
from histofeat.metrics.definitions import METRICS, scores
from histofeat.metrics.records import Score
from histofeat.metrics.statistics.patient_average import patient_averages

__all__ = ["score_folds"]


def score_folds(y, proba, predicted, patients, tests, *, metrics=METRICS, **resampling):
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
    The average over patients uses the same resamples; where folds split patients, each is scored by one fit alone.
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
