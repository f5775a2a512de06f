"""Measure calibration: the Brier score and its parts, calibration error and reliability curves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from histofeat.exceptions import check_name, check_shape, check_whole, refuse_rows
from histofeat.metrics._bootstrap import check_level, count_carriers, patient_weights, percentiles, resampled_interval
from histofeat.metrics._calibrator import recalibration
from histofeat.metrics._definitions import check_codes, ratio
from histofeat.metrics._out_of_fold import plain_values
from histofeat.model_selection import encode_patients

STRATEGIES = ("quantile", "uniform")

#: Sums over the patches of a bin: patches, probabilities, positives, squared probabilities, probability times positive.
_N, _P, _Y, _PP, _PY = range(5)

#: Measures that add up squares or absolute values: chance alone makes them larger, and a resample larger again.
_INFLATED = ("reliability", "resolution", "ece")

#: Measures with a t interval, and its scale.
_SCALES = {"brier": "log", "slope": "linear", "intercept": "linear"}


@dataclass(frozen=True)
class BinTable:
    """Patches in bins of their probability: a bin holds what lies above its lower edge, up to its upper one.

    Parameters
    ----------
    strategy : {"quantile", "uniform"}
        Bins of equally many patches, or of equal width.
    edges : tuple of float
        One more than there are bins; the first bin also holds what equals its lower edge.
    n : tuple of int
        Patches in each bin.
    mean_predicted : tuple of float
        Mean probability of class 1 in each bin, NaN where it is empty.
    share_positive : tuple of float
        Share of the bin that is of class 1, NaN where it is empty.
    """

    strategy: str
    edges: tuple[float, ...]
    n: tuple[int, ...]
    mean_predicted: tuple[float, ...]
    share_positive: tuple[float, ...]


@dataclass(frozen=True)
class ReliabilityCurve:
    """Share of positives against mean probability, bin by bin, with a band from resampling patients.

    Parameters
    ----------
    bins : BinTable
        The points: ``mean_predicted`` and ``share_positive``.
    low, high : tuple of float
        Percentile interval of the share of positives in each bin, NaN where it is empty or there is one patient.
    n_resamples : tuple of int
        Resamples in which the bin held a patch.
    n_patients : tuple of int
        Patients with a patch in the bin.
    """

    bins: BinTable
    low: tuple[float, ...]
    high: tuple[float, ...]
    n_resamples: tuple[int, ...]
    n_patients: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class CalibrationAssessment:
    """Every calibration measure of one model, with intervals from resampling patients.

    Parameters
    ----------
    values : Mapping of str to float
        "brier", its parts, "ece", "bias", "slope" and "intercept", as `assess_calibration` defines them.
    samples : Mapping of str to ndarray of shape (n_resamples,), float64
        The same under each resample; the same patients, number and seed give the same resamples for every model.
    by_chance : Mapping of str to ndarray of shape (n_resamples,), float64
        "ece" and "reliability" of a calibrated model on resamples of these patients: chance alone.
    curve : ReliabilityCurve
    n_patients : int
    carriers : tuple of int
        The patients with patches of each class.
    """

    values: Mapping[str, float]
    samples: Mapping[str, np.ndarray] = field(repr=False)
    by_chance: Mapping[str, np.ndarray] = field(repr=False)
    curve: ReliabilityCurve = field(repr=False)
    n_patients: int
    carriers: tuple[int, ...]

    def interval(self, measure: str, level: float = 0.95) -> tuple[float, float]:
        """Return the interval of one of `values`; see `assess_calibration` on how."""
        return self._between(self.values[measure], self.samples[measure], measure, level)

    def difference(self, other: Self, measure: str, level: float = 0.95) -> tuple[float, float, float]:
        """Return a measure of this one - that of another, for the same patients, with its interval on paired resamples.

        Returns
        -------
        difference, low, high : float

        Raises
        ------
        ValueError
            If the other one is of other patches, or was resampled otherwise.
        """
        # The labels' variance knows labels and resamples, and nothing of the model.
        if not np.array_equal(self.samples["uncertainty"], other.samples["uncertainty"]):
            raise ValueError(
                f"CalibrationAssessment.difference: expected the resamples of these {self.n_patients} patients, got "
                f"others ({len(other.samples['brier'])} of {other.n_patients} patients). Assess both on the same "
                "patches with the same n_resamples and random_state."
            )
        value = self.values[measure] - other.values[measure]
        change = self.samples[measure] - other.samples[measure]
        return value, *self._between(value, change, measure, level, signed=True)

    def _between(self, value, samples, measure, level, signed=False):
        check_level(level, "CalibrationAssessment")
        if not samples.size or min(self.carriers) < 2:
            return np.nan, np.nan
        if measure in _SCALES:
            scale = "linear" if signed else _SCALES[measure]
            return resampled_interval(value, samples, self.n_patients, min(self.carriers) - 1, level, scale=scale)
        low, high = percentiles(samples, level)
        if measure in _INFLATED:
            low, high = min(low, 2 * value - high), max(high, 2 * value - low)
            if not signed:
                low = 0.0 if value <= self.chance_limit(measure, level) else max(low, 0.0)
        return low, high

    def chance_limit(self, measure: str = "ece", level: float = 0.95) -> float:
        """Return the value that a calibrated model stays below with this probability, on these patients.

        Zero for measures that chance does not make larger; NaN without resamples.
        """
        if measure not in self.by_chance:
            return 0.0
        return float(np.quantile(self.by_chance[measure], level)) if self.by_chance[measure].size else np.nan

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for files: every measure with its interval, and the curve."""
        found = {name: {"value": value, "ci95": list(self.interval(name))} for name, value in self.values.items()}
        found["ece"]["chance95"] = self.chance_limit("ece")
        return {**found, "curve": plain_values(self.curve)}


def assess_calibration(
    y: ArrayLike,
    score: ArrayLike,
    patients: ArrayLike,
    n_bins: int = 10,
    strategy: str = "quantile",
    *,
    n_resamples: int = 2000,
    random_state: int = 0,
    level: float = 0.95,
) -> CalibrationAssessment:
    """Measure how far probabilities are from frequencies, with intervals from resampling patients.

    Parameters
    ----------
    y : array-like of shape (n,), int or bool
        0 or 1. Of more than two classes pass one against the rest: ``y == code`` with ``proba[:, code]``.
    score : array-like of shape (n,), float in [0, 1]
        Probability of class 1 of patches that the model was neither fitted nor calibrated on.
    patients : array-like of shape (n,)
        Patient id of every patch.
    n_bins : int, default=10
        Bins of the probability, the same in every resample.
    strategy : {"quantile", "uniform"}, default="quantile"
        Bins of equally many patches, or of equal width from 0 to 1. Probabilities that many patches share can make
        several quantiles one; there are fewer bins then.
    n_resamples, random_state : int
        Of `histofeat.metrics.patient_weights`.
    level : float in (0, 1), default=0.95
        Of the curve's band.

    Returns
    -------
    assessment : CalibrationAssessment

    Raises
    ------
    ValueError
        If a score is NaN or out of range, a shape or code does not fit, or the bins or the level are invalid.
    GroupLeakageError
        If a patient id is missing.

    Notes
    -----
    With the mean probability and the share of positives of each bin, weighted by the patches of the bins:
    "reliability" is their mean squared distance (0 is calibrated); "resolution" the mean squared distance of the
    shares from that of all patches (higher is better); "uncertainty" the variance of the labels. "within_variance" is
    the variance of the probabilities inside the bins and "within_covariance" twice their covariance with the labels
    there. Then "brier" = reliability - resolution + uncertainty + within_variance - within_covariance, exactly (Murphy
    1973, doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2, has the first three; Stephenson, Coelho and Jolliffe
    2008, doi:10.1175/2007WAF2006116.1, the others). "generalized_resolution" = resolution - within_variance +
    within_covariance depends less on the bins. "ece", the expected calibration error, is the mean absolute distance
    (Naeini, Cooper and Hauskrecht 2015, doi:10.1609/aaai.v29i1.9602), here of the probability of the positive class,
    not of the predicted one. "bias" is the mean probability - the share of positives.

    "slope" is that of a logistic regression of the labels on the log-odds: 1 is calibrated, below 1 the probabilities
    are too extreme. "intercept" is that of the same regression with a slope of 1: 0 is calibrated, below 0 they are too
    high (Van Calster et al. 2019, doi:10.1186/s12916-019-1466-7). Probabilities are kept 1e-6 from 0 and 1. Both are
    NaN with one class, the slope also where all probabilities are equal or separate the classes. A resample takes one
    Newton step from the fit to the sample.

    The interval of "brier" is that of `histofeat.metrics.bootstrap_scores`; those of "slope" and "intercept" are of t
    with the same degrees of freedom. The others are percentile intervals, except
    for "ece", "reliability" and "resolution". These add up absolute or squared distances, which chance makes larger,
    and a resample makes larger again: percentiles lie too high and miss the 0 of a calibrated model. Their intervals
    cover the percentile and the basic interval, ``2 * value - percentile``. They start at 0 where "ece" or
    "reliability" is not above `CalibrationAssessment.chance_limit`: there the distances of the sample are taken off
    each bin, and what is left in the resamples is what a calibrated model would show on such patients. The band of the
    curve has no width in a bin whose patches are all of one class, which does not mean that its share is certain.

    Examples
    --------
    >>> y, score = [0, 1, 0, 1] * 3, [0.2, 0.8, 0.4, 0.6] * 3
    >>> found = assess_calibration(y, score, list("aabbccddeeff"), n_bins=2, n_resamples=100)
    >>> round(found.values["ece"], 3), round(found.values["bias"], 3)
    (0.3, 0.0)
    """
    check_level(level, "assess_calibration")
    y, score = check_scores(y, score, "assess_calibration")
    ids, codes = encode_patients(patients, len(y), "patients")
    edges = _bin_edges(score, n_bins, strategy)
    by_patient = _bin_sums(y, score, edges, codes)
    weights = patient_weights(patients, n_resamples, random_state).astype(np.float64)
    resampled = (weights @ by_patient.reshape(len(ids), -1)).reshape(-1, *by_patient.shape[1:])
    total = by_patient.sum(axis=0)
    bands = _bands(resampled, level) if len(ids) > 1 else np.full((2, total.shape[1]), np.nan)
    curve = ReliabilityCurve(
        _bin_table(total, edges, strategy),
        *(tuple(band.tolist()) for band in bands),
        tuple((resampled[:, _N] > 0).sum(axis=0).tolist()),
        tuple((by_patient[:, _N] > 0).sum(axis=0).tolist()),
    )
    lines, resampled_lines = recalibration(y, score, codes, weights)
    values = {name: float(value) for name, value in _measures(total).items()} | lines
    samples = _measures(resampled) | resampled_lines
    return CalibrationAssessment(
        values, samples, _by_chance(resampled, total), curve, len(ids), count_carriers(y, codes)
    )


def check_scores(y, score, owner):
    """Refuse scores of two classes that are not probabilities, or do not fit the labels.

    Parameters
    ----------
    y : array-like of shape (n,), int or bool
        0 or 1; one class may be absent.
    score : array-like of shape (n,), float in [0, 1]
        Probability of class 1.
    owner : str
        The function that the message names.

    Returns
    -------
    y : ndarray of shape (n,), int64
    score : ndarray of shape (n,), float64

    Raises
    ------
    ValueError
        If a score is NaN or out of range, or a shape or code does not fit.
    """
    score = np.asarray(score, dtype=np.float64)
    remedy = "Pass proba[:, 1]; of more than two classes one against the rest, y == code with proba[:, code]."
    check_shape(f"{owner}.score", score, ("n",), remedy)
    remedy = "Pass only patches that were scored, and probabilities, not decision values."
    refuse_rows(~((score >= 0) & (score <= 1)), score, f"{owner}.score: expected probabilities from 0 to 1", remedy)
    return check_codes(y, len(score), 2, f"{owner}.y"), score


def _bands(resampled, level):
    """Percentiles of the share of positives in each bin, over the resamples in which it holds a patch."""
    shares = ratio(resampled[:, _Y], resampled[:, _N])
    return np.transpose([percentiles(column, level) for column in shares.T])


def _bin_edges(score, n_bins, strategy):
    """Edges of the bins, shape (k + 1,), rising; k is at most `n_bins`."""
    check_whole("assess_calibration.n_bins", n_bins, 1, "Use 10.")
    check_name("assess_calibration.strategy", strategy, STRATEGIES)
    steps = np.linspace(0, 1, n_bins + 1)
    if strategy == "uniform":
        return steps
    quantiles = np.quantile(score, steps)
    edges = np.unique(quantiles)
    # A lowest probability that fills a bin, or all of them, keeps a bin for itself.
    return np.append(edges[0], edges) if quantiles[1] == quantiles[0] else edges


def _bin_sums(y, score, edges, group):
    """Add up the bins of each group: shape (g, 5, k), in the order of `_N`, `_P`, `_Y`, `_PP`, `_PY`."""
    n_groups, k = int(group.max()) + 1, len(edges) - 1
    cell = group * k + np.searchsorted(edges[1:-1], score)
    parts = (None, score, y, score**2, score * y)
    sums = [np.bincount(cell, part, minlength=n_groups * k).reshape(n_groups, k) for part in parts]
    return np.stack(sums, axis=1).astype(np.float64)


def _bin_table(sums, edges, strategy):
    """Give the bins of one group as a record."""
    return BinTable(
        strategy,
        tuple(edges.tolist()),
        tuple(int(count) for count in sums[_N]),
        tuple(ratio(sums[_P], sums[_N]).tolist()),
        tuple(ratio(sums[_Y], sums[_N]).tolist()),
    )


def _measures(sums):
    """Every measure that sums of shape (..., 5, k), weighted or not, define, each of shape (...)."""
    n, p, y, pp, py = np.moveaxis(sums, -2, 0)
    total = n.sum(axis=-1)
    prevalence = y.sum(axis=-1) / total

    def per_patch(parts):
        return parts.sum(axis=-1) / total

    # Times the patches of a bin: the squared distances of its means, from each other and from all patches together.
    apart = ratio((p - y) ** 2, n, empty=0.0)
    spread = ratio((y - n * prevalence[..., None]) ** 2, n, empty=0.0)
    resolution = per_patch(spread)
    within_variance = per_patch(pp - ratio(p**2, n, empty=0.0))
    within_covariance = 2 * per_patch(py - ratio(p * y, n, empty=0.0))
    return {
        "brier": per_patch(pp - 2 * py + y),
        "reliability": per_patch(apart),
        "resolution": resolution,
        "uncertainty": prevalence * (1 - prevalence),
        "within_variance": within_variance,
        "within_covariance": within_covariance,
        "generalized_resolution": resolution - within_variance + within_covariance,
        "ece": per_patch(np.abs(p - y)),
        "bias": per_patch(p - y),
    }


def _by_chance(resampled, total):
    """Resample "ece" and "reliability" of a calibrated model: the distances of the sample are taken off each bin.

    `resampled` has shape (m, 5, k), `total` shape (5, k); each measure has shape (m,).
    """
    n = resampled[:, _N]
    left = resampled[:, _P] - resampled[:, _Y] - n * ratio(total[_P] - total[_Y], total[_N], empty=0.0)
    patches = n.sum(axis=1)
    return {
        "ece": np.abs(left).sum(axis=1) / patches,
        "reliability": ratio(left**2, n, empty=0.0).sum(axis=1) / patches,
    }
