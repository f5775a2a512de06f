"""How far probabilities are from frequencies: the Brier score in its parts, calibration error, reliability curves."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from histofeat.metrics.bootstrap import patient_weights
from histofeat.metrics.calibration import bins as b
from histofeat.metrics.calibration.bins import BinTable, bin_edges, bin_sums, bin_table, by_chance, measures, share
from histofeat.metrics.definitions import check_scores
from histofeat.model_selection import encode_patients

__all__ = [
    "BrierDecomposition",
    "CalibrationAssessment",
    "CalibrationError",
    "ReliabilityCurve",
    "assess_calibration",
    "brier_decomposition",
    "expected_calibration_error",
    "reliability_curve",
]

#: Measures that add up squares or absolute values, which chance alone makes larger, in a resample once more.
_INFLATED = ("reliability", "resolution", "ece")


@dataclass(frozen=True)
class BrierDecomposition:
    """The Brier score and its parts.

    Parameters
    ----------
    brier : float in [0, 1]
        ``reliability - resolution + uncertainty + within_variance - within_covariance``, exactly, and so
        ``reliability - generalized_resolution + uncertainty``.
    reliability : float
        Mean squared distance of the bins' mean probability from their share of positives: 0 is calibrated.
    resolution : float
        Mean squared distance of the bins' share of positives from that of all patches: the higher the better.
    uncertainty : float
        Variance of the labels: the Brier score of a model that knows their frequency and nothing else.
    within_variance, within_covariance : float
        What the probabilities vary within the bins, and twice their covariance with the labels there.
    generalized_resolution : float
        ``resolution - within_variance + within_covariance``, which depends less on the bins.
    bins : BinTable
    """

    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within_variance: float
    within_covariance: float
    generalized_resolution: float
    bins: BinTable = field(repr=False)

    def to_dict(self):
        """Plain values, for files."""
        return {**vars(self), "bins": self.bins.to_dict()}


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error, with the bins that it depends on.

    Parameters
    ----------
    value : float in [0, 1]
        Mean distance of the bins' mean probability from their share of positives, weighted by their patches.
    bins : BinTable
    """

    value: float
    bins: BinTable = field(repr=False)

    def to_dict(self):
        """Plain values, for files."""
        return {"value": self.value, "bins": self.bins.to_dict()}


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

    def to_dict(self):
        """Plain values, for files."""
        return {name: value.to_dict() if name == "bins" else list(value) for name, value in vars(self).items()}


@dataclass(frozen=True, eq=False)
class CalibrationAssessment:
    """All that is said of the probabilities of one model, with intervals from resampling patients.

    Parameters
    ----------
    values : Mapping of str to float
        "brier" and its parts (see `BrierDecomposition`), "ece", and "bias": the mean probability less the share of
        positive patches.
    samples : Mapping of str to ndarray of shape (n_resamples,), float64
        The same under each resample; the same patients, number and seed give the same resamples for every model.
    by_chance : Mapping of str to ndarray of shape (n_resamples,), float64
        "ece" and "reliability" of a calibrated model on resamples of these patients: chance alone.
    curve : ReliabilityCurve
    n_patients : int
    """

    values: Mapping[str, float]
    samples: Mapping[str, np.ndarray] = field(repr=False)
    by_chance: Mapping[str, np.ndarray] = field(repr=False)
    curve: ReliabilityCurve = field(repr=False)
    n_patients: int

    def interval(self, measure, level=0.95):
        """Return the interval of one of `values`; see `assess_calibration` on how."""
        return self._between(self.values[measure], self.samples[measure], measure, level)

    def difference(self, other, measure, level=0.95):
        """Return this one's measure less another's, for the same patients, with its interval on paired resamples.

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
        _check_level(level, "CalibrationAssessment")
        if not samples.size or self.n_patients < 2:
            return np.nan, np.nan
        low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
        if measure in _INFLATED:
            low, high = min(low, 2 * value - high), max(high, 2 * value - low)
            if not signed:
                low = 0.0 if value <= self.chance_limit(measure, level) else max(low, 0.0)
        return float(low), float(high)

    def chance_limit(self, measure="ece", level=0.95):
        """Return what a calibrated model stays below with this probability, on these patients.

        Zero for a measure on which chance has no such hold; NaN without resamples.
        """
        if measure not in self.by_chance:
            return 0.0
        return float(np.quantile(self.by_chance[measure], level)) if self.by_chance[measure].size else np.nan

    def to_dict(self):
        """Plain values, for files: every measure with its interval, and the curve."""
        found = {name: {"value": value, "ci95": list(self.interval(name))} for name, value in self.values.items()}
        found["ece"]["chance95"] = self.chance_limit("ece")
        return {**found, "curve": self.curve.to_dict()}


def _check_level(level, owner):
    if not 0 < level < 1:
        raise ValueError(f"{owner}.level: expected a number between 0 and 1, got {level}. Use 0.95.")


def brier_decomposition(y, score, n_bins=10, strategy="quantile"):
    """Brier score and the parts that it is made of.

    Parameters
    ----------
    y : array-like of shape (n,), int or bool
        0 or 1. Of more than two classes pass one against the rest: ``y == code`` with ``proba[:, code]``.
    score : array-like of shape (n,), float in [0, 1]
        Probability of class 1.
    n_bins : int, default=10
        Bins of the probability.
    strategy : {"quantile", "uniform"}, default="quantile"
        Bins of equally many patches, or of equal width.

    Returns
    -------
    decomposition : BrierDecomposition

    Raises
    ------
    ValueError
        If a score is NaN or out of range, a shape or code does not fit, or the bins are none.

    Notes
    -----
    Murphy 1973, doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2, has the first three parts, which add up where all
    probabilities of a bin are equal. Otherwise two more are needed, of what varies within the bins: Stephenson, Coelho
    and Jolliffe 2008, doi:10.1175/2007WAF2006116.1. With one class only, uncertainty and resolution are 0.

    Examples
    --------
    >>> found = brier_decomposition([0, 0, 1, 0, 1, 1], [0.2, 0.2, 0.2, 0.8, 0.8, 0.8], n_bins=2)
    >>> round(found.reliability, 4), round(found.resolution, 4), found.uncertainty
    (0.0178, 0.0278, 0.25)
    >>> round(found.brier, 4)
    0.24
    """
    y, score = check_scores(y, score, "brier_decomposition")
    edges = bin_edges(score, n_bins, strategy, "brier_decomposition")
    sums = bin_sums(y, score, edges)[0]
    found = {name: float(value) for name, value in measures(sums).items() if name not in ("ece", "bias")}
    return BrierDecomposition(**found, bins=bin_table(sums, edges, strategy))


def expected_calibration_error(y, score, n_bins=10, strategy="quantile"):
    """Mean distance between probability and frequency, over bins of the probability.

    Parameters
    ----------
    y : array-like of shape (n,), int or bool
        0 or 1. Of more than two classes pass one against the rest: ``y == code`` with ``proba[:, code]``.
    score : array-like of shape (n,), float in [0, 1]
        Probability of class 1.
    n_bins : int, default=10
        Bins of the probability.
    strategy : {"quantile", "uniform"}, default="quantile"
        Bins of equally many patches, or of equal width.

    Returns
    -------
    error : CalibrationError

    Raises
    ------
    ValueError
        If a score is NaN or out of range, a shape or code does not fit, or the bins are none.

    Notes
    -----
    ``sum over bins of n_b / n * |mean probability - share of positives|``: Naeini, Cooper and Hauskrecht 2015,
    doi:10.1609/aaai.v29i1.9602, for the probability of the positive class, not for that of the predicted one. It
    depends on the bins, so they are part of the result, and chance alone makes it larger than 0: compare it between
    models on the same patches, or see the interval of `assess_calibration`.

    Examples
    --------
    >>> found = expected_calibration_error([0, 0, 1, 1], [0.1, 0.3, 0.7, 0.9], n_bins=2, strategy="uniform")
    >>> round(found.value, 3), found.bins.n
    (0.2, (2, 2))
    """
    y, score = check_scores(y, score, "expected_calibration_error")
    edges = bin_edges(score, n_bins, strategy, "expected_calibration_error")
    sums = bin_sums(y, score, edges)[0]
    return CalibrationError(float(measures(sums)["ece"]), bin_table(sums, edges, strategy))


def assess_calibration(
    y, score, patients, n_bins=10, strategy="quantile", *, n_resamples=2000, random_state=0, level=0.95
):
    """Every calibration measure of one model, with intervals from resampling patients.

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
        Bins of equally many patches, or of equal width.
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
        If a score is NaN or out of range, a shape or code does not fit, or the bins or the level are none.
    GroupLeakageError
        If a patient id is missing.

    Notes
    -----
    Intervals are percentile ones. "ece", "reliability" and "resolution" add up absolute or squared distances, which
    chance makes larger, and in a resample once more, so that percentiles lie too high and leave out the 0 of a
    calibrated model. Theirs reach over the percentile and over the basic interval, ``2 * value - percentile``; and they
    start at 0 where "ece" or "reliability" is not above `CalibrationAssessment.chance_limit`: the distances of the
    sample are taken off each bin, and what is left in the resamples is what a calibrated model would show on such
    patients. In a bin whose patches are all of one class the curve's band has no width, which does not mean that
    there is no doubt.

    Examples
    --------
    >>> y, score = [0, 1, 0, 1] * 3, [0.2, 0.8, 0.4, 0.6] * 3
    >>> found = assess_calibration(y, score, list("aabbccddeeff"), n_bins=2, n_resamples=100)
    >>> round(found.values["ece"], 3), round(found.values["bias"], 3)
    (0.3, 0.0)
    """
    _check_level(level, "assess_calibration")
    y, score = check_scores(y, score, "assess_calibration")
    ids, codes = encode_patients(patients, len(y), "patients")
    edges = bin_edges(score, n_bins, strategy, "assess_calibration")
    by_patient = bin_sums(y, score, edges, codes)
    weights = patient_weights(patients, n_resamples, random_state).astype(np.float64)
    resampled = (weights @ by_patient.reshape(len(ids), -1)).reshape(-1, *by_patient.shape[1:])
    total = by_patient.sum(axis=0)
    bands = _bands(resampled, level) if len(ids) > 1 else np.full((2, total.shape[1]), np.nan)
    curve = ReliabilityCurve(
        bin_table(total, edges, strategy),
        *(tuple(band.tolist()) for band in bands),
        tuple((resampled[:, b.N] > 0).sum(axis=0).tolist()),
        tuple((by_patient[:, b.N] > 0).sum(axis=0).tolist()),
    )
    values = {name: float(value) for name, value in measures(total).items()}
    return CalibrationAssessment(values, measures(resampled), by_chance(resampled, total), curve, len(ids))


def _bands(resampled, level):
    """Percentiles of the share of positives in each bin, over the resamples in which it holds a patch."""
    shares = share(resampled[:, b.Y], resampled[:, b.N])
    bands = np.full((2, shares.shape[1]), np.nan)
    for position, column in enumerate(shares.T):
        column = column[np.isfinite(column)]
        if column.size:
            bands[:, position] = np.quantile(column, [(1 - level) / 2, (1 + level) / 2])
    return bands


def reliability_curve(
    y, score, patients, n_bins=10, strategy="quantile", *, n_resamples=2000, random_state=0, level=0.95
):
    """Share of positives against mean probability, with a band from resampling patients.

    Parameters
    ----------
    y, score, patients
        Labels, probabilities of class 1 and patient ids of the patches.
    n_bins, strategy
        The bins.
    n_resamples, random_state, level
        Of the band. All of these, and what is refused, as in `assess_calibration`, of which this is a part.

    Returns
    -------
    curve : ReliabilityCurve

    Examples
    --------
    >>> curve = reliability_curve([0, 1, 0, 1], [0.2, 0.8, 0.4, 0.6], list("abcd"), n_bins=2, n_resamples=100)
    >>> curve.bins.share_positive, [round(mean, 1) for mean in curve.bins.mean_predicted]
    ((0.0, 1.0), [0.3, 0.7])
    """
    resampling = {"n_resamples": n_resamples, "random_state": random_state, "level": level}
    return assess_calibration(y, score, patients, n_bins, strategy, **resampling).curve
