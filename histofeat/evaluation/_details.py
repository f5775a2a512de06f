"""What a reviewer asks next of an evaluation: patients, groups, predictive values, and what the table alone tells."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from histofeat.metrics import (
    Bootstrap,
    CalibrationAssessment,
    assess_calibration,
    bootstrap_scores,
    check_predictions,
    decision_curve,
    independent_variance,
    patient_outcomes,
    sensitivity_at,
    weighted_scores,
)
from histofeat.model_selection import encode_patients

NOT_STATED = "not stated"
#: Columns of a table that a class can be confounded with.
_PROBED = ("site", "center", "hospital", "scanner", "magnification")
_GROUP_METRICS = ("roc_auc", "sensitivity", "specificity", "brier")
#: Of a patient: what is shown, of how many of the hardest, and the quantiles of all.
_SHOWN = ["patient", "patches", "carries", "prevalence", "sensitivity", "specificity", "accuracy", "roc_auc", "brier"]
_N_HARDEST, _QUANTILES = 15, (0.1, 0.5, 0.9)
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

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for files."""
        calibrated = self.calibrated and self.calibrated.to_dict()
        change = {name: {"value": value, "ci95": ends} for name, (value, *ends) in (self.change or {}).items()}
        shown = {"raw": self.raw.to_dict(), "calibrated": calibrated, "change": change or None}
        return {"n_bins": self.n_bins, "strategy": self.strategy, **shown}


def assess_probabilities(
    y: np.ndarray, raw: np.ndarray, calibrated: np.ndarray | None, patients: np.ndarray, **resampling: int
) -> ProbabilityAssessment:
    """Assess raw and calibrated probabilities on the same resamples of the patients.

    Parameters
    ----------
    y : ndarray of shape (n,), int64
        0 or 1.
    raw, calibrated : ndarray of shape (n,), float64
        Probability of class 1 as the model gives it, and calibrated on other patients; None where nothing was.
    patients : ndarray of shape (n,)
        Patient id of every patch.
    **resampling : int
        ``n_resamples`` and ``random_state`` of `histofeat.metrics.patient_weights`.

    Returns
    -------
    assessment : ProbabilityAssessment
    """
    given = [score for score in (raw, calibrated) if score is not None]
    found = [assess_calibration(y, score, patients, _N_BINS, _STRATEGY, **resampling) for score in given]
    return ProbabilityAssessment(_N_BINS, _STRATEGY, *found)


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
    n_classes = len(resamples.carriers)
    if not 0 < prevalence < 1 or n_classes != 2:
        raise ValueError(
            f"predictive_values.prevalence: expected a share between 0 and 1 for two classes, got {prevalence} for "
            f"{n_classes}. Give the share of positives where the model is used; of more classes score one and the rest."
        )

    def of(scores):
        sensitivity, specificity = np.asarray(scores["sensitivity"]), np.asarray(scores["specificity"])
        hits, right = sensitivity * prevalence, specificity * (1 - prevalence)
        positive, negative = hits + (1 - specificity) * (1 - prevalence), right + (1 - sensitivity) * prevalence
        pairs = {"ppv": (hits, positive), "npv": (right, negative)}
        return {name: part / np.where(called > 0, called, np.nan) for name, (part, called) in pairs.items()}

    estimates = {name: float(value) for name, value in of(resamples.estimates).items()}
    return replace(resamples, samples=of(resamples.samples), estimates=estimates)


def score_patients(
    y: ArrayLike, proba: ArrayLike, patients: ArrayLike, *, predicted: ArrayLike | None = None
) -> pd.DataFrame:
    """Score each patient alone, the hardest first.

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

    Returns
    -------
    table : DataFrame
        Columns "patient", "patches", "carries" (number of classes) and all of `histofeat.metrics.METRICS`, sorted by
        Brier score, the highest first; NaN where a metric is undefined, such as ROC-AUC of a single class.

    Examples
    --------
    >>> table = score_patients([0, 1, 0, 1], [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]], list("aabb"))
    >>> table[["patient", "patches", "accuracy", "roc_auc"]].values.tolist()
    [['b', 2, 0.0, 0.0], ['a', 2, 1.0, 1.0]]
    """
    y, proba = check_predictions(y, proba)
    ids, codes = encode_patients(patients, len(y), "patients")
    table = {"patient": list(ids), "patches": np.bincount(codes)}
    table["carries"] = [len(np.unique(y[codes == code])) for code in range(len(ids))]
    table |= weighted_scores(y, proba, predicted, codes, np.eye(len(ids)))
    return pd.DataFrame(table).sort_values("brier", ascending=False, ignore_index=True, kind="stable")


def score_groups(
    y: ArrayLike, proba: ArrayLike, patients: ArrayLike, groups: ArrayLike | Mapping[str, Any], **known: Any
) -> dict[str, Bootstrap]:
    """Score the patches of each group by themselves.

    Parameters
    ----------
    y : array-like of shape (n,), int
        True class codes.
    proba : array-like of shape (n, k), float in [0, 1]
        Class probabilities.
    patients : array-like of shape (n,)
        Patient ids.
    groups : array-like of shape (n,), or mapping of patient id to group
        Such as the site, or an age group. A missing value is the group "not stated".
    **known
        ``predicted`` and ``fold`` of all patches, ``metrics``, ``n_resamples``, ``random_state`` and ``n_jobs`` of
        `histofeat.metrics.bootstrap_scores`.

    Returns
    -------
    scores : dict of str to Bootstrap
        By group: the scores with their intervals, from resampling the patients of the group. NaN where a metric is
        undefined in it.

    Raises
    ------
    ValueError
        If there is not one group for each patch, no patch has one, or the predictions cannot be scored.

    Examples
    --------
    >>> proba = [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]]
    >>> found = score_groups([0, 1, 0, 1], proba, list("aabb"), {"a": "north"}, n_resamples=0)
    >>> {group: scores.estimates["accuracy"] for group, scores in found.items()}
    {'north': 1.0, 'not stated': 0.0}
    """
    y, proba = check_predictions(y, proba)
    patients, found = np.asarray(patients), {}
    if isinstance(groups, Mapping):
        group_of = {str(patient): group for patient, group in groups.items()}
        groups = [group_of.get(str(patient)) for patient in patients]
    groups = pd.Series(groups, dtype=object)
    if len(groups) != len(patients) or groups.isna().all():
        raise ValueError(
            f"score_groups.groups: expected a group for each of {len(patients)} patches, got {groups.notna().sum()}. "
            "Pass a column of the table at the tested rows, or a mapping of ids of dataset.patients."
        )
    groups = groups.where(groups.notna(), NOT_STATED).astype(str).to_numpy()
    for group in np.unique(groups):
        rows = groups == group
        own = {name: np.asarray(known[name])[rows] for name in ("predicted", "fold") if name in known}
        found[str(group)] = bootstrap_scores(y[rows], proba[rows], patients[rows], **{**known, **own})
    return found


def probe_columns(columns, y, patients, splits, n_classes, **resampling):
    """Predict the class from one column of a table at a time, without an image.

    Parameters
    ----------
    columns : mapping of str to array-like of shape (n,)
        Such as file format, size, site or magnification.
    y : ndarray of shape (n,), int64
        True class codes.
    patients : ndarray of shape (n,)
        Patient ids.
    splits : sequence of (train, test)
        Rows of each fold.
    n_classes : int
    **resampling
        ``n_resamples``, ``random_state`` and ``n_jobs`` of `histofeat.metrics.bootstrap_scores`.

    Returns
    -------
    probes : dict of str to Bootstrap
        The out-of-fold ROC-AUC ("roc_auc") of each column, the highest first; none of a column with a single value.

    Notes
    -----
    The probability of a class is its share among the training patches of the fold with the same value, the share among
    all of them counting as one patch more. Without training patches there are no probes.
    A ROC-AUC well above 0.5 says that a model can be right without looking at tissue.

    Examples
    --------
    >>> y, site = np.array([0, 1, 0, 1]), ["north", "south", "north", "south"]
    >>> splits = [(np.array([0, 1]), np.array([2, 3])), (np.array([2, 3]), np.array([0, 1]))]
    >>> found = probe_columns({"site": site}, y, np.array(list("abcd")), splits, 2, n_resamples=0)
    >>> found["site"].estimates["roc_auc"]
    1.0
    """
    fold = np.full(len(y), -1)
    for number, (_, test) in enumerate(splits):
        fold[test] = number
    rows, found = np.flatnonzero(fold >= 0), {}
    if not all(len(train) for train, _ in splits):  # predictions that were given, in one fold
        return found
    for name, values in columns.items():
        codes, proba = pd.factorize(pd.Series(values), use_na_sentinel=False)[0], np.empty((len(y), n_classes))
        if codes.min() == codes.max():
            continue
        for train, test in splits:
            cells = np.bincount(codes[train] * n_classes + y[train], minlength=(codes.max() + 1) * n_classes)
            cells = cells.reshape(-1, n_classes) + np.bincount(y[train], minlength=n_classes) / len(train)
            proba[test] = (cells / cells.sum(axis=1, keepdims=True))[codes[test]]
        known = {"metrics": ["roc_auc"], "fold": fold[rows], **resampling}
        found[name] = bootstrap_scores(y[rows], proba[rows], patients[rows], **known)
    return dict(sorted(found.items(), key=lambda probe: -np.nan_to_num(probe[1].estimates["roc_auc"])))


def detail_model(evaluation: Any, number: int) -> dict[str, Any]:
    """Describe one model of an evaluation further.

    Parameters
    ----------
    evaluation : Evaluation
    number : int
        Of the model.

    Returns
    -------
    details : dict
        "design_effect" of the ROC-AUC, and "worth", as many independent patches as the tested ones are worth;
        "hardest" (DataFrame), the fifteen patients of the highest Brier score, and "spread", the quantiles 0.1, 0.5 and
        0.9 over patients; "sensitivity_at" specificities of 0.9 and 0.95, each with its interval; "net_benefit"
        (DataFrame) of the calibrated probabilities, None with more than two classes; "outcomes" (DataFrame) of
        patients, None where a patient has several labels; "predictive_values" and "groups" as
        `Evaluation.asking` names them, or None.
    """
    model, rows, two = evaluation.models[number], evaluation.tested, len(evaluation.labels) == 2
    (y, patients, resampling), proba, stated = evaluation._known, model.proba[rows], evaluation.protocol
    known = {"predicted": model.predicted[rows], "fold": evaluation.fold[rows], "n_jobs": evaluation.n_jobs}
    table = evaluation._patient_tables[number]
    alone = independent_variance(y, proba, known["fold"])
    effect = model.resamples.standard_error("roc_auc") ** 2 / alone if alone > 0 else np.nan
    as_units = (table["carries"] == 1).all() and not evaluation.patient_overlap
    bands, carriers = evaluation.bands[number], min(model.resamples.carriers)
    at = {share: sensitivity_at(bands, share, carriers) for share in (0.9, 0.95)}
    found = {
        "design_effect": effect,
        "worth": len(y) / effect if effect > 0 else np.nan,
        "hardest": table.reindex(columns=_SHOWN).head(_N_HARDEST),
        "spread": table[_SHOWN[6:]].quantile(_QUANTILES).to_dict("list"),
        "sensitivity_at": {share: {"value": value, "ci95": ends} for share, (value, *ends) in at.items()},
        "net_benefit": decision_curve(y, model.calibrated[rows, 1], patients, **resampling) if two else None,
        "outcomes": patient_outcomes(y, proba, patients, fold=known["fold"]) if as_units else None,
        "predictive_values": None,
        "groups": None,
    }
    if "prevalence" in stated:
        found["predictive_values"] = _with_intervals(predictive_values(model.resamples, stated["prevalence"]))
    if "groups" in stated:
        names = evaluation.dataset.frame[stated["groups"]][rows]
        scored = score_groups(y, proba, patients, names, metrics=_GROUP_METRICS, **known, **resampling)
        found["groups"] = {group: _with_intervals(scores) for group, scores in scored.items()}
    return found


def probe_table(evaluation: Any) -> dict[str, Any]:
    """Predict the class from file format, size, site, scanner, magnification or the stated groups alone.

    Parameters
    ----------
    evaluation : Evaluation

    Returns
    -------
    probes : dict of str to dict
        "value" and "ci95" of the ROC-AUC of each column with several values, the highest first; see
        `histofeat.metrics.probe_columns`.
    """
    frame, stated = evaluation.dataset.frame, evaluation.protocol
    columns = {"file format": frame["path"].str.extract(r"\.(\w+)$", expand=False).str.lower()}
    if {"height", "width"} <= set(frame):
        columns["size"] = frame["height"].astype(str) + " x " + frame["width"].astype(str)
    columns |= {name: frame[name] for name in (*_PROBED, stated.get("groups")) if name in frame}
    whole = evaluation.dataset.y, evaluation.dataset.patients, evaluation.splits, len(evaluation.labels)
    found = probe_columns(columns, *whole, n_jobs=evaluation.n_jobs, **evaluation._known[-1])
    return {name: _with_intervals(scores)["roc_auc"] for name, scores in found.items()}


def _with_intervals(resamples):
    found = {name: {"value": value, "ci95": resamples.interval(name)} for name, value in resamples.estimates.items()}
    return {**found, "n_patients": resamples.n_patients}
