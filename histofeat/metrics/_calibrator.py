"""Calibrate probabilities: fit on training patients, apply to new ones; what acting on a probability is worth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, logit

from histofeat.exceptions import check_shape
from histofeat.metrics._bootstrap import count_carriers, patient_weights, resampled_interval, vanished
from histofeat.metrics._definitions import check_predictions, count_positive, ratio
from histofeat.model_selection import encode_patients

#: Probabilities are moved this far from 0 and 1 before their log-odds are taken.
_EDGE = 1e-6


@dataclass(frozen=True)
class Calibrator:
    """A fitted map from the probability of class 1 to a calibrated one, which never falls where the other rises.

    Parameters
    ----------
    slope, intercept : float
        Of the calibrated log-odds over the raw ones; the slope is at least 0.
    n_patches : int
        The number of patches that it was fitted on.
    """

    slope: float
    intercept: float
    n_patches: int = 0

    def transform(self, proba: ArrayLike) -> np.ndarray:
        """Calibrate probabilities.

        Parameters
        ----------
        proba : array-like of shape (n, 2), float in [0, 1]
            Class probabilities of patches that the calibrator was not fitted on, by the same model.

        Returns
        -------
        calibrated : ndarray of shape (n, 2), float64
            Rows sum to 1. Probabilities of 0 and 1 stay finite; no patches give no rows.

        Raises
        ------
        ValueError
            If a probability is NaN or out of range, or there are not two classes.
        """
        proba = np.asarray(proba, dtype=np.float64)
        if proba.shape == (0, 2):
            return proba.copy()
        positive = expit(self.slope * log_odds(_positive(proba, "Calibrator.transform")) + self.intercept)
        return np.column_stack([1 - positive, positive])


def fit_calibrator(y: ArrayLike, proba: ArrayLike) -> Calibrator:
    """Fit the map from a model's probabilities to calibrated ones.

    Parameters
    ----------
    y : array-like of shape (n,), int
        0 or 1, both present.
    proba : array-like of shape (n, 2), float in [0, 1]
        Class probabilities of training patients by fits that had not seen them, as
        `histofeat.models.fit_with_inner_scores` gives them. Probabilities of patches that the model was fitted on are
        too extreme to calibrate on.

    Returns
    -------
    calibrator : Calibrator
        Its ``transform`` calibrates probabilities of other patches.

    Raises
    ------
    ValueError
        If there are not two classes or one is missing, a probability is NaN or out of range, or a shape does not fit.

    Notes
    -----
    A logistic regression on the log-odds, which keeps the order of the patches:
    ``logit(q) = slope * logit(p) + intercept``, of highest likelihood with `slope` at least 0. It is unweighted, so
    that the calibrated probabilities follow the frequency of the classes among the patches, also where the model was
    fitted under class weights. Platt, "Probabilistic outputs for support vector machines", 1999, on log-odds instead
    of decision values, which is beta calibration with equal parameters (Kull, Silva Filho and Flach 2017,
    doi:10.1214/17-EJS1338SI). His targets (N1 + 1) / (N1 + 2) and 1 / (N0 + 2) in place of 1 and 0 keep the fit
    finite if the classes do not overlap. Probabilities are kept 1e-6 from 0 and 1.

    Examples
    --------
    A model whose log-odds are twice what the labels warrant:

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.uniform(-3, 3, 5000)
    >>> y = (rng.uniform(size=5000) < 1 / (1 + np.exp(-truth))).astype(int)
    >>> sure = 1 / (1 + np.exp(-2 * truth))
    >>> calibrator = fit_calibrator(y, np.column_stack([1 - sure, sure]))
    >>> round(calibrator.slope, 1)
    0.5
    >>> calibrator.transform([[0.0, 1.0], [0.1, 0.9]]).round(2).tolist()
    [[0.0, 1.0], [0.25, 0.75]]
    """
    score = _positive(proba, "fit_calibrator")
    y, _ = check_predictions(y, proba)
    n_positive = count_positive(y, "fit_calibrator", "Calibrate on patients of both classes.")
    # Platt's targets keep the slope finite.
    target = np.where(y == 1, (n_positive + 1) / (n_positive + 2), 1 / (len(y) - n_positive + 2))
    slope, intercept = logistic_line(log_odds(score), target)
    # The likelihood has one maximum: below 0 it falls towards it, and the best slope of at least 0 is 0.
    slope, intercept = (slope, intercept) if slope > 0 else (0.0, float(logit(target.mean())))
    return Calibrator(slope, intercept, n_patches=len(y))


def _positive(proba, owner):
    """Give the probability of class 1 of two."""
    proba = np.asarray(proba, dtype=np.float64)
    check_shape(f"{owner}.proba", proba, ("n", 2), "Of more than two classes calibrate one against the rest.")
    _, proba = check_predictions(np.zeros(len(proba), dtype=np.int64), proba)
    return proba[:, 1]


def log_odds(score):
    """Log-odds of probabilities, which are kept 1e-6 from 0 and 1."""
    return logit(np.clip(score, _EDGE, 1 - _EDGE))


def logistic_line(odds, target):
    """Slope and intercept of highest likelihood for targets from 0 to 1, by Newton's method."""
    # Centred and scaled log-odds make the two parameters nearly independent.
    centre, scale = odds.mean(), max(float(odds.std()), 1e-9)
    design = np.array([(odds - centre) / scale, np.ones_like(odds)])
    line = np.array([0.0, logit(target.mean())])
    for _ in range(1000):
        chance = expit(line @ design)
        curvature = (design * chance * (1 - chance)) @ design.T + 1e-12 * np.eye(2)
        # Short steps cannot leap over the maximum and away from it.
        step = np.clip(np.linalg.solve(curvature, design @ (target - chance)), -1, 1)
        line += step
        if np.abs(step).max() < 1e-12:
            break
    return float(line[0] / scale), float(line[1] - line[0] / scale * centre)


def recalibration(y, score, codes, weights):
    """Fit "slope" and "intercept" to the sample, and to each resample by one Newton step from there."""
    odds, both = log_odds(score), y.min() < y.max()
    apart = both and (odds[y == 1].min() >= odds[y == 0].max() or odds[y == 0].min() >= odds[y == 1].max())
    lines = {"slope": (np.nan, np.nan), "intercept": (1.0, np.nan)}
    if both and not apart:
        lines["slope"] = logistic_line(odds, y)
    if both:
        lines["intercept"] = (1.0, brentq(lambda start: (expit(odds + start) - y).sum(), -50, 50))
    samples, lost = {}, vanished(y, codes, weights)
    for name, (slope, intercept) in lines.items():
        chance = expit(slope * odds + intercept)
        error, curve = y - chance, chance * (1 - chance)
        sums = [np.bincount(codes, part) for part in (error, error * odds, curve, curve * odds, curve * odds**2)]
        g, gx, h, hx, hxx = np.array(sums) @ weights.T
        step = ratio(h * gx - hx * g, h * hxx - hx**2) if name == "slope" else ratio(g, h)
        samples[name] = np.where(lost, np.nan, step + lines[name][name == "intercept"])
    return {name: float(line[name == "intercept"]) for name, line in lines.items()}, samples


#: Thresholds from 0.05 to 0.5, in steps of 0.05.
_THRESHOLDS = tuple(step / 20 for step in range(1, 11))


def decision_curve(
    y: ArrayLike, score: ArrayLike, patients: ArrayLike, thresholds: Sequence[float] = _THRESHOLDS, **resampling: int
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
    **resampling : int
        ``n_resamples`` and ``random_state`` of `histofeat.metrics.patient_weights`.

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
    score = np.asarray(score, dtype=np.float64)
    y, _ = check_predictions(y, np.column_stack([1 - score, score]))
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
    weights = patient_weights(patients, **resampling)
    weights = np.vstack([np.ones_like(weights, shape=(1, len(ids))), weights])
    drawn = np.tensordot(weights, called, 1)
    drawn /= drawn[..., :1].sum(axis=1, keepdims=True)
    cost = thresholds / (1 - thresholds)
    benefit = drawn[:, 1, 1:] - drawn[:, 0, 1:] * cost
    df = min(count_carriers(y, codes)) - 1
    curve = pd.DataFrame({"threshold": thresholds, "net_benefit": benefit[0]})
    curve[["low", "high"]] = [resampled_interval(at[0], at[1:], len(ids), df, scale="linear") for at in benefit.T]
    return curve.assign(treat_all=drawn[0, 1, 0] - drawn[0, 0, 0] * cost)
