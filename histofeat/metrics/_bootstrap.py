"""Resample patients for intervals of every metric: thousands of resamples from one sort of the patches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from histofeat.exceptions import check_whole
from histofeat.metrics._definitions import (
    METRICS,
    check_metrics,
    check_predictions,
    frozen,
    most_probable,
    weighted_scores,
)
from histofeat.model_selection import encode_patients


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Every metric under every resample of the patients.

    Parameters
    ----------
    samples : Mapping of str to ndarray of shape (n_resamples,), float64
        The metric in each resample; NaN in dropped resamples, so that a position is the same resample for every model
        of these patients.
    n_patients : int
        The patients that were resampled.
    n_dropped : int
        Resamples without any patch of some class.
    """

    samples: Mapping[str, np.ndarray]
    n_patients: int
    n_dropped: int

    def n_used(self, metric: str) -> int:
        """Return the number of resamples in which `metric` is defined."""
        return int(np.isfinite(self.samples[metric]).sum())

    def interval(self, metric: str, level: float = 0.95) -> tuple[float, float]:
        """Return the percentile interval of `metric`.

        Parameters
        ----------
        metric : str
            A key of `samples`.
        level : float in (0, 1), default=0.95
            The share of resamples inside.

        Returns
        -------
        low, high : float
            NaN if no resample defines the metric, or there is a single patient.
        """
        check_level(level, "Bootstrap.interval")
        return percentiles(self.samples[metric], level) if self.n_patients > 1 else (np.nan, np.nan)


def check_level(level, owner):
    """Refuse a share of the resamples that is not between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"{owner}.level: expected a number between 0 and 1, got {level}. Use 0.95.")


def percentiles(values, level=0.95) -> tuple[float, float]:
    """Ends of the percentile interval of the finite values; NaN if there are none."""
    values = values[np.isfinite(values)]
    if not values.size:
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def patient_weights(patients: ArrayLike, n_resamples: int = 2000, random_state: int = 0) -> np.ndarray:
    """Count how often each patient is drawn in each resample.

    Parameters
    ----------
    patients : array-like of shape (n,)
        Patient id of every patch.
    n_resamples : int, default=2000
        Number of resamples, each as many draws with replacement as there are patients.
    random_state : int, default=0
        Seed, at least 0. Not a generator, which would give each model different resamples.

    Returns
    -------
    weights : ndarray of shape (n_resamples, n_patients), int64
        Rows sum to the number of patients; columns follow `histofeat.model_selection.encode_patients`. The same
        patients, number and seed give the same weights, so that models can be compared resample by resample.

    Raises
    ------
    ValueError
        If `n_resamples` or `random_state` is not a whole number from 0.
    GroupLeakageError
        If a patient id is missing.

    Examples
    --------
    >>> patient_weights(["a", "a", "b", "c"], n_resamples=3).sum(axis=1).tolist()
    [3, 3, 3]
    """
    check_whole("patient_weights.n_resamples", n_resamples, 0, "Use 2000, or 0 for no intervals.")
    remedy = "Use a fixed number, so that models share their resamples."
    check_whole("patient_weights.random_state", random_state, 0, remedy)
    ids, _ = encode_patients(patients, len(patients), "patients")
    rng = np.random.default_rng(random_state)
    return rng.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=n_resamples)


def bootstrap_scores(
    y: ArrayLike,
    proba: ArrayLike,
    patients: ArrayLike,
    *,
    predicted: ArrayLike | None = None,
    metrics: Sequence[str] = METRICS,
    n_resamples: int = 2000,
    random_state: int = 0,
    n_jobs: int | None = None,
) -> Bootstrap:
    """Compute every metric under resampling of patients.

    Patches of one patient resemble each other, so that an interval from resampling patches is many times too narrow.
    Here whole patients are drawn with replacement (Field and Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x); the
    model is not fitted again.

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
        Seed of `patient_weights`.
    n_jobs : int, optional
        Threads. The result does not depend on it.

    Returns
    -------
    bootstrap : Bootstrap
        With the metrics asked for.

    Raises
    ------
    ValueError
        If a metric is unknown, or the predictions cannot be scored, see `check_predictions`.
    GroupLeakageError
        If a patient id is missing.

    Notes
    -----
    Resamples without any patch of a class that the sample has are dropped and counted. Metrics of labels and losses
    are computed from sums per patient and one matrix product, metrics of the ranking from a single walk over the
    sorted patches for many resamples at a time.

    Examples
    --------
    >>> y, proba = [0, 1] * 6, [[0.6, 0.4], [0.3, 0.7], [0.2, 0.8], [0.4, 0.6]] * 3
    >>> found = bootstrap_scores(y, proba, list("aabbccddeeff"), n_resamples=200)
    >>> low, high = found.interval("roc_auc")
    >>> 0 <= low < 0.8 < high <= 1
    True
    """
    check_metrics(metrics, "bootstrap_scores")
    y, proba = check_predictions(y, proba)
    predicted = most_probable(proba) if predicted is None else predicted
    ids, codes = encode_patients(patients, len(y), "patients")
    weights = patient_weights(patients, n_resamples, random_state)
    samples = weighted_scores(y, proba, predicted, codes, weights, metrics, n_jobs)
    lost = vanished(y, codes, weights)
    # Dropped resamples become NaN; the others keep their position.
    samples = {name: frozen(np.where(lost, np.nan, values)) for name, values in samples.items()}
    return Bootstrap(samples, len(ids), int(lost.sum()))


def vanished(y, codes, weights):
    """Find the resamples without any patch of a class that the sample has.

    Parameters
    ----------
    y, codes : ndarray of shape (n,), int64
        Class and patient of every patch.
    weights : ndarray of shape (m, n_patients)
        As `patient_weights` gives them.

    Returns
    -------
    vanished : ndarray of shape (m,), bool
    """
    having = np.array([np.bincount(codes[y == code], minlength=weights.shape[1]) for code in np.unique(y)])
    return (weights @ having.T == 0).any(axis=1)
