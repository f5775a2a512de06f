"""What a model is worth in use: predictive values at another prevalence, sensitivity at a specificity, net benefit."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from histofeat.metrics._bootstrap import Bootstrap, count_carriers, patient_weights, standard_error, t_interval
from histofeat.metrics._definitions import check_scores, ratio
from histofeat.metrics._one_vs_rest import CurveBands
from histofeat.model_selection import encode_patients


def predictive_values(resamples: Bootstrap, prevalence: float) -> Bootstrap:
    """Compute the predictive values of a test with two outcomes where another share of the patches is positive.

    Parameters
    ----------
    resamples : Bootstrap
        With "sensitivity" and "specificity" of two classes, such as ``ModelResult.resamples``.
    prevalence : float in (0, 1)
        The share of positives where the model is used.

    Returns
    -------
    values : Bootstrap
        "ppv", the share of positive calls that are right, and "npv", the share of negative calls that are right.

    Raises
    ------
    ValueError
        If the prevalence is not between 0 and 1, or there are not two classes.

    Notes
    -----
    By Bayes' rule, on the assumption that sensitivity and specificity stay what they are.

    Examples
    --------
    >>> from histofeat.metrics import bootstrap_scores
    >>> y, proba = [0, 1] * 6, [[0.6, 0.4], [0.3, 0.7], [0.2, 0.8], [0.4, 0.6]] * 3
    >>> found = bootstrap_scores(y, proba, list("aabbccddeeff"), n_resamples=200)
    >>> values = predictive_values(found, 0.1)
    >>> round(values.estimates["ppv"], 3), values.estimates["npv"]
    (0.182, 1.0)
    """
    if not 0 < prevalence < 1:
        raise ValueError(
            f"predictive_values.prevalence: expected a share between 0 and 1, got {prevalence}. "
            "Give the share of positives where the model is used."
        )
    if len(resamples.carriers) != 2:
        raise ValueError(
            f"predictive_values.resamples: expected scores of two classes, got {len(resamples.carriers)}. "
            "Score one class against the rest."
        )

    def of(scores):
        sensitivity, specificity = np.asarray(scores["sensitivity"]), np.asarray(scores["specificity"])
        right = {"ppv": sensitivity * prevalence, "npv": specificity * (1 - prevalence)}
        wrong = {"ppv": (1 - specificity) * (1 - prevalence), "npv": (1 - sensitivity) * prevalence}
        return {name: ratio(right[name], right[name] + wrong[name]) for name in right}

    estimates = {name: float(value) for name, value in of(resamples.estimates).items()}
    return replace(resamples, samples=of(resamples.samples), estimates=estimates)


def sensitivity_at(
    bands: CurveBands, specificity: float, carriers: int, code: int | None = None
) -> tuple[float, float, float]:
    """Read the sensitivity at a specificity off a ROC curve.

    Parameters
    ----------
    bands : CurveBands
    specificity : float in (0, 1)
        Whole percent, the steps of the curves.
    carriers : int
        The patients with patches of the rarest class, see `histofeat.metrics.count_carriers`.
    code : int, optional
        The positive class, as in `CurveBands.curve`.

    Returns
    -------
    sensitivity, low, high : float
        With the 95 % interval of `histofeat.metrics.bootstrap_scores`.

    Raises
    ------
    ValueError
        If the specificity is not a whole percentage between 0 and 1.

    Notes
    -----
    It is that of the best threshold of each fold for the tested patches themselves. A threshold that is chosen on
    training patients, as by the rule "specificity=0.95", reaches less.
    """
    at = int(np.argmin(np.abs(bands.grid - (1 - specificity))))
    if not 0 < specificity < 1 or abs(bands.grid[at] - (1 - specificity)) > 1e-9:
        raise ValueError(
            f"sensitivity_at.specificity: expected a whole percentage between 0 and 1, got {specificity}. Use 0.95."
        )
    resampled = bands.resampled["roc"][..., at]
    n_classes = resampled.shape[1]
    samples = resampled.mean(axis=1) if code is None and n_classes > 2 else resampled[:, 1 if code is None else code]
    value = float(bands.curve("roc", code)[at])
    error = standard_error(samples, bands.n_patients)
    return value, *t_interval(value, error, carriers - 1, successes=carriers)


#: Thresholds from 0.05 to 0.5, in steps of 0.05.
_THRESHOLDS = tuple(step / 20 for step in range(1, 11))


def decision_curve(
    y: ArrayLike,
    score: ArrayLike,
    patients: ArrayLike,
    thresholds: Sequence[float] = _THRESHOLDS,
    *,
    n_resamples: int = 2000,
    random_state: int = 0,
) -> pd.DataFrame:
    """Compute the net benefit of acting on a probability, with bands from resampling patients.

    Parameters
    ----------
    y : array-like of shape (n,), int or bool
        0 or 1. Of more than two classes pass one against the rest: ``y == code`` with ``proba[:, code]``.
    score : array-like of shape (n,), float in [0, 1]
        Probability of class 1, calibrated.
    patients : array-like of shape (n,)
        Patient id of every patch.
    thresholds : sequence of float in (0, 1), default=0.05 to 0.5
        Rising. Who acts from a probability t on holds a miss for (1 - t) / t times as bad as a false alarm.
    n_resamples, random_state : int
        Of `histofeat.metrics.patient_weights`.

    Returns
    -------
    curve : DataFrame
        One row for each threshold: "threshold"; "net_benefit" per patch, with the ends "low" and "high" of its 95 %
        interval at this threshold alone, NaN with fewer than two patients of a class; "treat_all", the net benefit of
        calling every patch positive. Calling none has 0.

    Raises
    ------
    ValueError
        If the thresholds do not rise between 0 and 1, a score is NaN or out of range, or a shape or code does not fit.
    GroupLeakageError
        If a patient id is missing.

    Notes
    -----
    True positives - false positives * t / (1 - t), per patch (Vickers and Elkin 2006, doi:10.1177/0272989X06295361). It
    holds for the share of positives of these patches. Intervals are of t, as in `histofeat.metrics.bootstrap_scores`.

    Examples
    --------
    >>> curve = decision_curve([0, 1, 0, 1], [0.1, 0.4, 0.6, 0.9], list("aabb"), [0.25, 0.5], n_resamples=10)
    >>> curve["net_benefit"].round(3).tolist(), curve["treat_all"].round(3).tolist()
    ([0.417, 0.0], [0.333, 0.0])
    """
    y, score = check_scores(y, score, "decision_curve")
    thresholds = np.asarray(thresholds, dtype=np.float64)
    edges = np.concatenate([[0.0], thresholds, [1.0]])
    if thresholds.ndim != 1 or not thresholds.size or not (np.diff(edges) > 0).all():
        raise ValueError(
            f"decision_curve.thresholds: expected rising numbers between 0 and 1, got {thresholds.tolist()!s:.80}. "
            "Use (0.1, 0.2, 0.3)."
        )
    ids, codes = encode_patients(patients, len(y), "patients")
    steps = len(thresholds) + 1
    # Patches of each patient by class and by how many thresholds their score reaches; then by each that it reaches.
    reached = np.searchsorted(thresholds, score, side="right")
    cells = np.bincount((codes * 2 + y) * steps + reached, minlength=len(ids) * 2 * steps).reshape(-1, 2, steps)
    called = cells[..., ::-1].cumsum(axis=-1)[..., ::-1].astype(np.float64)
    weights = patient_weights(patients, n_resamples, random_state)
    weights = np.vstack([np.ones_like(weights, shape=(1, len(ids))), weights])
    drawn = np.tensordot(weights, called, 1)
    drawn /= drawn[..., :1].sum(axis=1, keepdims=True)
    cost = thresholds / (1 - thresholds)
    benefit = drawn[:, 1, 1:] - drawn[:, 0, 1:] * cost
    df, errors = min(count_carriers(y, codes)) - 1, [standard_error(samples, len(ids)) for samples in benefit[1:].T]
    ends = [t_interval(*pair, df, scale="linear") for pair in zip(benefit[0], errors, strict=True)]
    curve = pd.DataFrame({"threshold": thresholds, "net_benefit": benefit[0]})
    curve[["low", "high"]] = ends
    return curve.assign(treat_all=drawn[0, 1, 0] - drawn[0, 0, 0] * cost)
