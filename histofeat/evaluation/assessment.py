"""Assess an evaluation: per-class scores, calibration, paired differences and curve bands."""

from dataclasses import asdict
from math import comb

import numpy as np

from histofeat.metrics import CLASS_METRICS, assess_calibration, class_scores, compare_models, curve_bands

__all__ = [
    "N_BINS",
    "STRATEGY",
    "assessment_payload",
    "bands_of",
    "calibration_payload",
    "class_payload",
    "comparison_payload",
]


def class_payload(model, evaluation, *, n_jobs=None):
    """What `metrics.json` says of the single classes of one model.

    Parameters
    ----------
    model : ModelResult
    evaluation : Evaluation
        Whose tested rows, number of resamples and seed are used.
    n_jobs : int, optional
        Threads.

    Returns
    -------
    list of dict
        One per class: "class", "support", "predicted", "n_patients", and for each of
        `histofeat.metrics.CLASS_METRICS` "value" and "ci95". Labels are those of the most probable class.
    """
    rows, dataset = evaluation.tested, evaluation.dataset
    found = class_scores(
        np.asarray(dataset.y)[rows],
        model.proba[rows],
        model.predicted[rows],
        target_names=dataset.target_names,
        patients=np.asarray(dataset.patients)[rows],
        n_resamples=evaluation.protocol["n_resamples"],
        random_state=evaluation.protocol["random_state"],
        n_jobs=n_jobs,
    )
    return [
        {
            "class": name,
            "support": int(found.support[code]),
            "predicted": int(found.predicted[code]),
            "n_patients": int(found.n_patients[code]),
            **{
                metric: {"value": float(found.values[metric][code]), "ci95": found.ci95[metric][code].tolist()}
                for metric in CLASS_METRICS
            },
        }
        for code, name in enumerate(found.target_names)
    ]


N_BINS = 10


STRATEGY = "quantile"


def calibration_payload(model, dataset, evaluation):
    """What `metrics.json` says of the probabilities of one model.

    Parameters
    ----------
    model : ModelResult
    dataset : PatchDataset
    evaluation : Evaluation
        Whose tested rows, number of resamples and seed are used, so that all models share their resamples.

    Returns
    -------
    dict or None
        As `assessment_payload` gives it; None with more than two classes, where probabilities are not calibrated.
    """
    if len(dataset.target_names) != 2:
        return None
    rows = evaluation.tested
    calibrated = None if np.array_equal(model.calibrated, model.proba, equal_nan=True) else model.calibrated[rows, 1]
    return assessment_payload(
        np.asarray(dataset.y)[rows],
        model.proba[rows, 1],
        calibrated,
        np.asarray(dataset.patients)[rows],
        n_resamples=evaluation.protocol["n_resamples"],
        random_state=evaluation.protocol["random_state"],
    )


def assessment_payload(y, raw, calibrated, patients, *, n_resamples=2000, random_state=0):
    """Calibration of raw and of calibrated probabilities, and what calibration changed, as plain values.

    Parameters
    ----------
    y : ndarray of shape (n,), int64
        0 or 1.
    raw : ndarray of shape (n,), float64
        Probability of class 1 as the model gives it.
    calibrated : ndarray of shape (n,), float64, or None
        The same calibrated on other patients; None where nothing was calibrated.
    patients : ndarray of shape (n,)
    n_resamples, random_state : int
        Of `histofeat.metrics.patient_weights`.

    Returns
    -------
    dict
        "n_bins", "strategy"; "raw" and "calibrated", as `CalibrationAssessment.to_dict` gives them, and "change", of
        "brier" and "ece" by calibrating, each with its interval on paired resamples; the last two may be None.
    """
    resampling = {"n_resamples": n_resamples, "random_state": random_state}
    before = assess_calibration(y, raw, patients, N_BINS, STRATEGY, **resampling)
    found = {"n_bins": N_BINS, "strategy": STRATEGY, "raw": before.to_dict(), "calibrated": None, "change": None}
    if calibrated is None:
        return found
    after = assess_calibration(y, calibrated, patients, N_BINS, STRATEGY, **resampling)
    change = {name: after.difference(before, name) for name in ("brier", "ece")}
    return {
        **found,
        "calibrated": after.to_dict(),
        "change": {name: {"value": value, "ci95": [low, high]} for name, (value, low, high) in change.items()},
    }


COMPARED_METRICS = ("roc_auc", "balanced_accuracy", "f1")


MOST_PAIRS = 15


#: An adjusted p can fall to 1 / this, or the table could not tell a difference from none.
_RESOLUTION = 40


def comparison_payload(evaluation, metrics=COMPARED_METRICS, *, reference=None, n_jobs=None):
    """Differences of all models, as plain values for `metrics.json`.

    Parameters
    ----------
    evaluation : Evaluation
    metrics : sequence of str
        As in `histofeat.metrics.compare_models`.
    reference : str, optional
        The model to compare with; by default every pair is compared.
    n_jobs : int, optional
        Threads.

    Returns
    -------
    dict or None
        "reference", "n_patients", "n_resamples", "smallest_p_holm" and "rows"; or only "refused", the sentence that
        says why these models cannot be compared. None with fewer than two models, and where the evaluation has no
        resamples.

    Notes
    -----
    Many comparisons need many resamples before an adjusted p can be small: where those of the evaluation do not let
    it fall to 0.025, more are drawn with the same seed, of which the first are those of the evaluation.
    """
    n_models, n_resamples = len(evaluation.models), evaluation.protocol["n_resamples"]
    if n_models < 2 or not n_resamples:
        return None
    n_rows = len(metrics) * (comb(n_models, 2) if reference is None else n_models - 1)
    try:
        found = compare_models(
            evaluation,
            metrics,
            reference=reference,
            n_resamples=max(n_resamples, _RESOLUTION * n_rows),
            n_jobs=n_jobs,
        )
    except ValueError as error:
        return {"refused": str(error)}
    return {
        "reference": found.reference,
        "n_patients": found.n_patients,
        "n_resamples": found.n_resamples,
        "smallest_p_holm": found.smallest_p_holm,
        "rows": [{**asdict(row), "ci95": list(row.ci95)} for row in found.rows],
    }


def bands_of(evaluation, n_jobs=-1):
    """Resample the curves of every model, on the resamples of the evaluation.

    Parameters
    ----------
    evaluation : Evaluation
    n_jobs : int, default=-1
        Threads.

    Returns
    -------
    list of CurveBands
        In the order of the models.
    """
    rows = evaluation.tested
    truth, patients = np.asarray(evaluation.dataset.y)[rows], np.asarray(evaluation.dataset.patients)[rows]
    resampling = {name: evaluation.protocol[name] for name in ("n_resamples", "random_state")}
    return [curve_bands(truth, model.proba[rows], patients, n_jobs=n_jobs, **resampling) for model in evaluation.models]
