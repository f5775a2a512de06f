"""Every metric within each patient, averaged over patients: large slides weigh no more than small ones."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from histofeat.metrics.bootstrap import Bootstrap, patient_weights
from histofeat.metrics.definitions import (
    METRICS,
    brier_losses,
    check_predictions,
    confusion,
    label_scores,
    most_probable,
    ranking_scores,
)
from histofeat.model_selection import encode_patients

__all__ = ["PatientAverages", "patient_averages"]


@dataclass(frozen=True, eq=False)
class PatientAverages:
    """Metrics of single patients, and their means under resampling of the patients.

    Parameters
    ----------
    patients : tuple of str
        Those with patches of every class, who are averaged.
    values : Mapping of str to ndarray of shape (len(patients),), float64
        The metric on the patches of each of them.
    n_left_out : int
        The patients who lack a class.
    resamples : Bootstrap
        The mean of each metric in each resample of all patients, those left out included: the resamples of
        `histofeat.metrics.bootstrap_scores` with the same seed. It is NaN in a resample that draws no patient
        who has every class.
    """

    patients: tuple[str, ...]
    values: Mapping[str, np.ndarray]
    n_left_out: int
    resamples: Bootstrap

    def mean(self, metric):
        """Return the mean of `metric` over the patients averaged; NaN where there is none."""
        return float(self.values[metric].mean()) if self.patients else np.nan

    def interval(self, metric, level=0.95):
        """Return the percentile interval of the mean; NaN with fewer than two patients averaged."""
        return self.resamples.interval(metric, level)


def patient_averages(
    y, proba, patients, *, predicted=None, metrics=METRICS, n_resamples=2000, random_state=0, n_jobs=None
):
    """Average every metric over the patients who have patches of every class.

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
    A pooled score ranks the patches of all patients in one list, and those with many patches rule it. The average
    asks how well a patch is placed among the others of its own patient. The two differ where patients differ in
    their scores as a whole, and neither replaces the other.

    All metrics are averaged over the same patients, also those, such as accuracy, that one class would define. In
    a resample a patient drawn twice counts twice.

    Examples
    --------
    Patient "a" is ranked without an error, "b" the wrong way round, and "c" has no patch of class 1.

    >>> positive = [0.1, 0.9, 0.8, 0.3, 0.5]
    >>> proba = [[1 - p, p] for p in positive]
    >>> found = patient_averages([0, 1, 0, 1, 0], proba, list("aabbc"), n_resamples=10)
    >>> found.patients, found.values["roc_auc"].tolist(), found.mean("roc_auc"), found.n_left_out
    (('a', 'b'), [1.0, 0.0], 0.5, 1)
    """
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown:
        raise ValueError(
            f"patient_averages.metrics: expected some of {', '.join(METRICS)}, got {unknown[0]!r}. Use METRICS for all."
        )
    y, proba = check_predictions(y, proba)
    predicted = most_probable(proba) if predicted is None else np.asarray(predicted)
    confusion(y, predicted, proba.shape[1])  # validates the codes
    ids, codes = encode_patients(patients, len(y), "patients")
    counts = np.zeros((len(ids), proba.shape[1], proba.shape[1]))
    np.add.at(counts, (codes, y, predicted.astype(np.int64)), 1.0)
    complete = (counts.sum(axis=2) > 0).all(axis=1)
    values = _values_by_patient(y, proba, codes, counts, complete, metrics, n_jobs)
    weights = patient_weights(patients, n_resamples, random_state)[:, complete].astype(np.float64)
    drawn = weights.sum(axis=1)
    samples = {metric: _means(weights, values[metric], drawn) for metric in metrics}
    return PatientAverages(
        patients=tuple(np.asarray(ids, dtype=object)[complete]),
        values=values,
        n_left_out=int((~complete).sum()),
        resamples=Bootstrap(samples, int(complete.sum()), int((drawn == 0).sum())),
    )


def _values_by_patient(y, proba, codes, counts, complete, metrics, n_jobs):
    """Score the patches of each patient who has every class."""
    found = {name: values[complete] for name, values in label_scores(counts).items()}
    if not {"roc_auc", "average_precision"}.isdisjoint(metrics):
        rows = complete[codes]
        places = (np.cumsum(complete) - 1)[codes[rows]]
        # One weighting for each patient, who alone has weight in it: one pass over the patches scores 64 of them.
        alone = np.eye(int(complete.sum()))
        rankings = ranking_scores(y[rows], proba[rows], places, alone, n_jobs=n_jobs)
        found.update(zip(("roc_auc", "average_precision"), rankings, strict=True))
    if "brier" in metrics:
        losses = np.bincount(codes, brier_losses(y, proba), minlength=len(counts))
        found["brier"] = (losses / counts.sum(axis=(1, 2)))[complete]
    return {metric: _read_only(found[metric]) for metric in metrics}


def _means(weights, values, drawn):
    means = np.full(len(weights), np.nan)
    np.divide(weights @ values, drawn, out=means, where=drawn > 0)
    return _read_only(means)


def _read_only(values):
    values.setflags(write=False)
    return values
