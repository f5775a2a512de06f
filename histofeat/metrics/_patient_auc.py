"""Scores of patients instead of patches: ROC-AUC with DeLong's variance, sensitivity and specificity."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest, rankdata

from histofeat.exceptions import check_name, check_shape, check_that
from histofeat.metrics._bootstrap import t_interval
from histofeat.metrics._definitions import check_predictions, most_probable
from histofeat.model_selection import encode_patients

_RULES = {"mean": np.mean, "median": np.median, "max": np.max}


@dataclass(frozen=True, eq=False)
class PatientScores:
    """One row per patient.

    Parameters
    ----------
    patients : tuple of str
        Ids, each once.
    y : ndarray of shape (n_patients,), int64
        The label of the patient, 0 or 1.
    score : ndarray of shape (n_patients,), float64
        Probability of class 1, combined from the patches by `how`.
    how : str
        "mean", "median" or "max".
    """

    patients: tuple[str, ...]
    y: np.ndarray = field(repr=False)
    score: np.ndarray = field(repr=False)
    how: str = "mean"


@dataclass(frozen=True)
class DeLong:
    """What `delong` found.

    Parameters
    ----------
    aucs : tuple of float
        ROC-AUC of each score.
    covariance : tuple of tuple of float
        Covariance of the estimated areas, one row per score.
    ci95 : tuple of tuple of (float, float)
        95 % interval of each area.
    n_negative, n_positive : int
        Patients of each class.
    difference : float
        First - second area; NaN, like the rest, if only one score was given.
    difference_ci95 : tuple of (float, float)
        Its 95 % interval.
    z, p : float
        Its distance from 0 in standard errors, and the two-sided p-value.
    """

    aucs: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    ci95: tuple[tuple[float, float], ...]
    n_negative: int
    n_positive: int
    difference: float = np.nan
    difference_ci95: tuple[float, float] = (np.nan, np.nan)
    z: float = np.nan
    p: float = np.nan


def patient_scores(y: ArrayLike, proba: ArrayLike, patients: ArrayLike, how: str = "mean") -> PatientScores:
    """Combine the patches of each patient into one score, for data sets that label patients.

    Parameters
    ----------
    y : array-like of shape (n,), int
        Class codes 0 and 1 of the patches, the same for all patches of a patient.
    proba : array-like of shape (n, 2), float in [0, 1]
        Class probabilities of the patches.
    patients : array-like of shape (n,)
        Patient ids.
    how : {"mean", "median", "max"}, default="mean"
        How the probabilities of class 1 of the patches are combined.

    Returns
    -------
    scores : PatientScores

    Raises
    ------
    ValueError
        If the rule is unknown, there are not two classes, a patient has patches of both, or the predictions cannot
        be scored, see `histofeat.metrics._definitions.check_predictions`.
    GroupLeakageError
        If a patient id is missing.

    Examples
    --------
    >>> proba = [[0.8, 0.2], [0.4, 0.6], [0.1, 0.9]]
    >>> found = patient_scores([0, 0, 1], proba, ["a", "a", "b"])
    >>> found.patients, found.y.tolist(), found.score.tolist()
    (('a', 'b'), [0, 1], [0.4, 0.9])
    """
    check_name("patient_scores.how", how, _RULES)
    y, proba = check_predictions(y, proba)
    n, remedy = proba.shape[1], "Score one class against the rest."
    check_that("patient_scores.proba", n, n == 2, "two classes", remedy)
    ids, codes = encode_patients(patients, len(y), "patients")
    n_patches, n_positive = np.bincount(codes), np.bincount(codes, y)
    mixed = np.flatnonzero((n_positive > 0) & (n_positive < n_patches))
    if mixed.size:
        raise ValueError(
            f"patient_scores.y: expected one label per patient, got both for patient {ids[mixed[0]]!r} "
            f"({mixed.size} such patients). Use bootstrap_scores or compare_models, which resample patients whose "
            "patches have labels of their own."
        )
    order = np.argsort(codes, kind="stable")
    parts = np.split(proba[order, 1], np.cumsum(n_patches)[:-1])
    score = np.array([_RULES[how](part) for part in parts])
    return PatientScores(tuple(ids), (n_positive > 0).astype(np.int64), score, how)


def delong(y: ArrayLike, score_a: ArrayLike, score_b: ArrayLike | None = None, *, patients: ArrayLike) -> DeLong:
    """Interval of ROC-AUC, and test of the difference of two, without resampling, from one row per patient.

    Parameters
    ----------
    y : array-like of shape (n,), int
        Label of each patient, 0 or 1.
    score_a : array-like of shape (n,), float
        The higher, the more likely class 1.
    score_b : array-like of shape (n,), float, optional
        Scores of another model for the same patients.
    patients : array-like of shape (n,)
        Patient ids, each once. They are required because patches of a patient are not independent: on patches the
        variance would be far too small. `patient_scores` makes one row per patient.

    Returns
    -------
    found : DeLong

    Raises
    ------
    ValueError
        If a patient has several rows, a class has fewer than two patients, a score is constant or not finite, or the
        lengths differ.
    GroupLeakageError
        If a patient id is missing.

    Notes
    -----
    The placement value of a positive patient is the share of negatives scored below it (ties one half), that of a
    negative the share of positives above it. The area is the mean of either, its variance the sum of their variances,
    each over its number of patients (DeLong, DeLong and Clarke-Pearson 1988, doi:10.2307/2531595), computed here from
    mid-ranks (Sun and Xu 2014, doi:10.1109/LSP.2014.2337313). Intervals of an area are those of `t_interval` with one
    degree of freedom less than the rarer class has patients; that of the difference is normal, as DeLong's test is.
    They cover other patients and these fitted models.

    For two scores that rank all patients alike z is 0 and p is 1.

    Examples
    --------
    >>> y, score = [0, 0, 0, 1, 1, 1], [0.1, 0.4, 0.3, 0.2, 0.8, 0.9]
    >>> found = delong(y, score, patients=list("abcdef"))
    >>> round(found.aucs[0], 3), round(found.covariance[0][0], 4)
    (0.778, 0.0617)
    """
    given = [score_a] if score_b is None else [score_a, score_b]
    y, scores = _check(y, given, patients)
    aucs, influence = zip(*(_influence(y, score) for score in scores), strict=True)
    aucs, covariance = np.array(aucs), _covariance(y, np.array(influence))
    n_negative, n_positive = np.bincount(y, minlength=2).tolist()
    fewer = min(n_negative, n_positive)
    errors = np.sqrt(np.diag(covariance)).tolist()
    return DeLong(
        aucs=tuple(aucs.tolist()),
        covariance=tuple(map(tuple, covariance.tolist())),
        ci95=tuple(t_interval(*pair, fewer - 1, successes=fewer) for pair in zip(aucs.tolist(), errors, strict=True)),
        n_negative=n_negative,
        n_positive=n_positive,
        **(_difference(aucs, covariance) if len(aucs) == 2 else {}),
    )


def _influence(y, score, fold=None):
    """Give the area, from pairs of one fold, and what each patient adds to its deviation."""
    wins, partners = np.zeros(len(y)), np.zeros(len(y))
    fold = np.zeros(len(y)) if fold is None else fold
    for number in np.unique(fold):
        sides = [np.flatnonzero((fold == number) & (y == code)) for code in (0, 1)]
        together = rankdata(np.concatenate([score[side] for side in sides]))
        for side, other, ranks in zip(sides, sides[::-1], np.split(together, [len(sides[0])]), strict=True):
            below = ranks - rankdata(score[side])
            wins[side] = below if side is sides[1] else len(other) - below
            partners[side] = len(other)
    pairs = partners.sum() / 2
    if not pairs:
        return np.nan, np.full(len(y), np.nan)
    auc = wins.sum() / 2 / pairs
    return float(auc), (wins - auc * partners) / pairs


def independent_variance(y: np.ndarray, proba: np.ndarray, fold: np.ndarray | None = None) -> float:
    """Variance of ROC-AUC if every patch were a patient of its own, from what each adds to its deviation.

    Parameters
    ----------
    y : ndarray of shape (n,), int
        True class codes.
    proba : ndarray of shape (n, k), float
        Class probabilities; with more than two classes the area is the one-vs-rest mean.
    fold : ndarray of shape (n,), int, optional
        The fold that tests the patch; patches of different folds are not compared.

    Returns
    -------
    variance : float
        NaN without a pair of both classes.

    Examples
    --------
    >>> y, score = np.array([0, 0, 0, 1, 1, 1]), np.array([0.1, 0.4, 0.3, 0.2, 0.8, 0.9])
    >>> round(independent_variance(y, np.column_stack([1 - score, score])), 4)
    0.0412
    """
    codes = [1] if proba.shape[1] == 2 else range(proba.shape[1])
    return float(np.sum(np.mean([_influence(y == code, proba[:, code], fold)[1] for code in codes], axis=0) ** 2))


def _covariance(y, influence):
    """Covariance of areas; with one fold it is DeLong's."""
    return np.atleast_2d(sum((y == code).sum() * np.cov(influence[:, y == code]) for code in (0, 1)))


def patient_outcomes(
    y: ArrayLike, proba: ArrayLike, patients: ArrayLike, *, fold: ArrayLike | None = None
) -> pd.DataFrame:
    """Score patients who have one label each, each patient counting once.

    Parameters
    ----------
    y : array-like of shape (n,), int
        Class codes of the patches, the same for all patches of a patient.
    proba : array-like of shape (n, k), float in [0, 1]
        Class probabilities of the patches.
    patients : array-like of shape (n,)
        Patient ids.
    fold : array-like of shape (n,), int, optional
        The fold that tests the patient.

    Returns
    -------
    outcomes : DataFrame
        One row for the second of two classes, or for each of more against the rest: "code"; "n_positive" and
        "n_negative" patients; "roc_auc" of the mean probability of each patient, in pairs of one fold only;
        "sensitivity" and "specificity" of the class that is most probable by this mean; and the ends of their 95 %
        intervals, such as "roc_auc_low" and "roc_auc_high".

    Raises
    ------
    ValueError
        If a patient has patches of several classes, or the predictions cannot be scored, see `check_predictions`.
    GroupLeakageError
        If a patient id is missing.

    Notes
    -----
    ROC-AUC has the variance and the interval of `delong`. Sensitivity and specificity have the intervals of Clopper and
    Pearson (1934, doi:10.1093/biomet/26.4.404), since each patient is one draw.

    Examples
    --------
    >>> proba = [[0.8, 0.2], [0.4, 0.6], [0.1, 0.9], [0.7, 0.3]]
    >>> found = patient_outcomes([0, 0, 1, 1], proba, ["a", "b", "c", "d"])
    >>> found[["roc_auc", "sensitivity", "sensitivity_low", "sensitivity_high"]].round(3).values.tolist()
    [[0.75, 0.5, 0.013, 0.987]]
    """
    y, proba = check_predictions(y, proba)
    several, pairs = range(proba.shape[1]), (np.column_stack([1 - score, score]) for score in proba.T)
    each = [patient_scores(y == code, pair, patients) for code, pair in enumerate(pairs)]
    predicted = most_probable(np.column_stack([found.score for found in each]))
    _, first = np.unique(encode_patients(patients, len(y), "patients")[1], return_index=True)
    fold = None if fold is None else np.asarray(fold)[first]
    rows = (_outcome(code, each[code], predicted == code, fold) for code in ([1] if len(each) == 2 else several))
    return pd.DataFrame(list(rows))


def _outcome(code, found, called, fold):
    n_positive, n_negative = int(found.y.sum()), int((1 - found.y).sum())
    auc, influence = _influence(found.y, found.score, fold)
    fewer = min(n_positive, n_negative)
    error = float(np.sqrt(_covariance(found.y, influence[np.newaxis])[0, 0])) if fewer > 1 else np.nan
    measured = {
        "roc_auc": (auc, t_interval(auc, error, fewer - 1, successes=max(fewer, 1))),
        "sensitivity": _exact_share(called[found.y == 1]),
        "specificity": _exact_share(~called[found.y == 0]),
    }
    row = {"code": code, "n_positive": n_positive, "n_negative": n_negative}
    for name, (value, ends) in measured.items():
        row |= {name: value, f"{name}_low": ends[0], f"{name}_high": ends[1]}
    return row


def _exact_share(right):
    """Give a share and its 95 % interval of Clopper and Pearson."""
    n, k = len(right), int(right.sum())
    return (k / n, tuple(binomtest(k, n).proportion_ci())) if n else (np.nan, (np.nan, np.nan))


def _difference(aucs, covariance):
    difference = float(aucs[0] - aucs[1])
    # If both scores rank all patients alike, rounding may leave a little variance of either sign.
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    se = float(np.sqrt(variance)) if variance > 1e-15 else 0.0
    z = difference / se if se else float(np.copysign(np.inf, difference)) if difference else 0.0
    half = float(ndtri(0.975)) * se
    return {
        "difference": difference,
        "difference_ci95": (difference - half, difference + half),
        "z": z,
        "p": float(2 * ndtr(-abs(z))),
    }


def _check(y, scores, patients):
    y = np.asarray(y)
    ids, codes = encode_patients(patients, len(y), "patients")
    rows = np.bincount(codes)
    repeated = np.flatnonzero(rows > 1)
    if repeated.size:
        raise ValueError(
            f"delong.patients: expected one row per patient, got {rows[repeated[0]]} rows of patient "
            f"{ids[repeated[0]]!r} ({repeated.size} such patients). Use bootstrap_scores or compare_models for "
            "patches, or patient_scores to make one row per patient where patients have a label."
        )
    wrong = np.flatnonzero(~np.isin(y, (0, 1)))
    if wrong.size:
        raise ValueError(
            f"delong.y: expected labels 0 and 1, got {y[wrong[0]]!s} for patient {ids[codes[wrong[0]]]!r} "
            f"({wrong.size} such patients). Encode the positive class as 1."
        )
    counts = np.bincount(y.astype(np.int64), minlength=2)
    if counts.min() < 2:
        raise ValueError(
            f"delong.y: expected at least 2 patients of each class, got {counts[0]} of class 0 and {counts[1]} of "
            "class 1. The variance of one patient is unknown: give more patients, or no interval."
        )
    return y, [_check_score(score, f"score_{letter}", ids, codes) for letter, score in zip("ab", scores, strict=False)]


def _check_score(score, name, ids, codes):
    score = np.asarray(score, dtype=np.float64)
    check_shape(f"delong.{name}", score, codes.shape, "Pass the scores of the same patients in the same order.")
    wrong = np.flatnonzero(~np.isfinite(score))
    if wrong.size:
        raise ValueError(
            f"delong.{name}: expected finite scores, got {score[wrong[0]]} for patient {ids[codes[wrong[0]]]!r} "
            f"({wrong.size} such patients). Score only patients that were tested."
        )
    if np.ptp(score) == 0:
        raise ValueError(
            f"delong.{name}: expected scores that differ, got {score[0]} for all {len(score)} patients. "
            "A constant score has no ROC curve."
        )
    return score
