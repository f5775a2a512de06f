"""Assess the models of an evaluation: calibration, scores by class, bands of the curves and paired differences."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np

from histofeat.metrics import CalibrationAssessment, assess_calibration, class_scores, compare_models, curve_bands

#: The metrics in which models are compared.
COMPARED_METRICS = ("roc_auc", "balanced_accuracy", "f1")

#: The smallest adjusted p must be able to reach 1 / this, otherwise no difference could be shown.
_RESOLUTION = 40

_N_BINS, _STRATEGY = 10, "quantile"


@dataclass(frozen=True)
class ProbabilityAssessment:
    """Calibration of the probabilities of one model, before and after calibrating them on other patients.

    Parameters
    ----------
    n_bins : int
        Bins that were asked for.
    strategy : {"quantile", "uniform"}
        How the bins were made.
    raw : CalibrationAssessment
        Of the probabilities as the model gives them.
    calibrated : CalibrationAssessment or None
        Of the calibrated probabilities; None where nothing was calibrated.
    """

    n_bins: int
    strategy: str
    raw: CalibrationAssessment
    calibrated: CalibrationAssessment | None = None

    @property
    def change(self) -> dict[str, tuple[float, float, float]] | None:
        """Calibrated - raw "brier" and "ece", each with the ends of its interval on paired resamples."""
        if self.calibrated is None:
            return None
        return {name: self.calibrated.difference(self.raw, name) for name in ("brier", "ece")}

    def to_dict(self) -> dict:
        """Plain values, for files."""
        change = self.change
        return {
            "n_bins": self.n_bins,
            "strategy": self.strategy,
            "raw": self.raw.to_dict(),
            "calibrated": None if self.calibrated is None else self.calibrated.to_dict(),
            "change": change
            and {name: {"value": value, "ci95": [low, high]} for name, (value, low, high) in change.items()},
        }


@dataclass(frozen=True)
class NotCompared:
    """Models that could not be compared, and the sentence that says why."""

    reason: str

    def to_dict(self) -> dict:
        """Plain values, for files."""
        return {"refused": self.reason}


def assess_probabilities(y, raw, calibrated, patients, *, n_resamples=2000, random_state=0) -> ProbabilityAssessment:
    """Assess raw and calibrated probabilities on the same resamples of the patients.

    Parameters
    ----------
    y : ndarray of shape (n,), int64
        0 or 1.
    raw : ndarray of shape (n,), float64
        Probability of class 1 as the model gives it.
    calibrated : ndarray of shape (n,), float64, or None
        The same calibrated on other patients; None where nothing was calibrated.
    patients : ndarray of shape (n,)
        Patient id of every patch.
    n_resamples, random_state : int
        Of `histofeat.metrics.patient_weights`.

    Returns
    -------
    assessment : ProbabilityAssessment
    """
    found = [
        None
        if score is None
        else assess_calibration(
            y, score, patients, _N_BINS, _STRATEGY, n_resamples=n_resamples, random_state=random_state
        )
        for score in (raw, calibrated)
    ]
    return ProbabilityAssessment(_N_BINS, _STRATEGY, *found)


def _tested(evaluation):
    """Labels and patients of the tested rows."""
    rows = evaluation.tested
    return np.asarray(evaluation.dataset.y)[rows], np.asarray(evaluation.dataset.patients)[rows]


def _resampling(evaluation):
    return {name: evaluation.protocol[name] for name in ("n_resamples", "random_state")}


def assess_model_probabilities(model, evaluation):
    """Assess the probabilities of one model on the tested rows; None with more than two classes."""
    if len(evaluation.dataset.target_names) != 2:
        return None
    rows, (y, patients) = evaluation.tested, _tested(evaluation)
    same = np.array_equal(model.calibrated, model.proba, equal_nan=True)
    calibrated = None if same else model.calibrated[rows, 1]
    return assess_probabilities(y, model.proba[rows, 1], calibrated, patients, **_resampling(evaluation))


def assess_classes(model, evaluation, *, n_jobs=None):
    """Score each class against the rest on the tested rows, labels of the most probable class, as `ClassScores`."""
    rows, (y, patients) = evaluation.tested, _tested(evaluation)
    return class_scores(
        y,
        model.proba[rows],
        model.predicted[rows],
        target_names=evaluation.dataset.target_names,
        patients=patients,
        n_jobs=n_jobs,
        **_resampling(evaluation),
    )


def assess_bands(model, evaluation, *, n_jobs=None):
    """Resample the ROC and precision-recall curves of one model on the tested rows, as `CurveBands`."""
    y, patients = _tested(evaluation)
    return curve_bands(y, model.proba[evaluation.tested], patients, n_jobs=n_jobs, **_resampling(evaluation))


def assess_differences(evaluation, metrics=COMPARED_METRICS, *, reference=None, n_jobs=None):
    """Compare all models of an evaluation with each other, or with one of them.

    Parameters
    ----------
    evaluation : Evaluation
    metrics : sequence of str
        As in `histofeat.metrics.compare_models`.
    reference : str, optional
        The model to compare with; by default every pair is compared.
    n_jobs : int, optional
        Threads. The result does not depend on it.

    Returns
    -------
    comparisons : Comparisons, NotCompared or None
        None with fewer than two models, and where the evaluation has no resamples.

    Notes
    -----
    Many comparisons need many resamples before an adjusted p can be small. Where those of the evaluation do not let
    it fall to 0.025, more are drawn with the same seed; the first of them are those of the evaluation.
    """
    n_models, n_resamples = len(evaluation.models), evaluation.protocol["n_resamples"]
    if n_models < 2 or not n_resamples:
        return None
    n_rows = len(metrics) * (comb(n_models, 2) if reference is None else n_models - 1)
    needed = max(n_resamples, _RESOLUTION * n_rows)
    try:
        return compare_models(evaluation, metrics, reference=reference, n_resamples=needed, n_jobs=n_jobs)
    except ValueError as error:
        return NotCompared(str(error))
