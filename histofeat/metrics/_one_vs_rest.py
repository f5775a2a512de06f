"""Score each class against the rest and compute its curves, with intervals from resampling patients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import precision_recall_curve, roc_curve

from histofeat.exceptions import check_that
from histofeat.metrics._bootstrap import bootstrap_scores, count_carriers, patient_weights, resampled_interval, vanished
from histofeat.metrics._definitions import check_codes, check_predictions, frozen, most_probable
from histofeat.metrics._ranking import check_fold, curves_on_grid
from histofeat.model_selection import encode_patients

CLASS_METRICS = ("precision", "sensitivity", "specificity", "f1", "roc_auc", "average_precision")
"""The metrics of one class against the rest, in the order of tables."""


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Scores of each class against the rest, with counts and intervals.

    Parameters
    ----------
    target_names : tuple of str
        The k classes, in the order of the codes.
    support : ndarray of shape (k,), int64
        Images of the class.
    predicted : ndarray of shape (k,), int64
        Images predicted as the class.
    n_patients : ndarray of shape (k,), int64, or None
        Patients with an image of the class; None if no patients were given.
    values : Mapping of str to ndarray of shape (k,), float64
        Each of `CLASS_METRICS`; NaN where it is undefined.
    ci95 : Mapping of str to ndarray of shape (k, 2), float64
        95 % intervals, see `bootstrap_scores`; NaN without patients, and for a class that fewer than two patients have.
    """

    target_names: tuple[str, ...]
    support: np.ndarray
    predicted: np.ndarray
    n_patients: np.ndarray | None
    values: Mapping[str, np.ndarray]
    ci95: Mapping[str, np.ndarray]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per class as a DataFrame; intervals in columns such as ``f1_low`` and ``f1_high``."""
        columns = {"class": list(self.target_names), "support": self.support, "predicted": self.predicted}
        if self.n_patients is not None:
            columns["n_patients"] = self.n_patients
        for metric in CLASS_METRICS:
            columns[metric] = self.values[metric]
            if self.n_patients is not None:
                columns[f"{metric}_low"], columns[f"{metric}_high"] = self.ci95[metric].T
        return pd.DataFrame(columns)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict of plain values per class, for files: the counts, and "value" and "ci95" of each metric."""
        return [
            {
                "class": name,
                "support": int(self.support[code]),
                "predicted": int(self.predicted[code]),
                "n_patients": None if self.n_patients is None else int(self.n_patients[code]),
                **{
                    metric: {"value": float(self.values[metric][code]), "ci95": self.ci95[metric][code].tolist()}
                    for metric in CLASS_METRICS
                },
            }
            for code, name in enumerate(self.target_names)
        ]


def class_scores(
    y: ArrayLike,
    proba: ArrayLike,
    predicted: ArrayLike | None = None,
    *,
    target_names: Sequence[str] | None = None,
    patients: ArrayLike | None = None,
    n_resamples: int = 2000,
    random_state: int = 0,
    n_jobs: int | None = None,
    fold: ArrayLike | None = None,
) -> ClassScores:
    """Score every class against the rest.

    Parameters
    ----------
    y : array-like of shape (n,), int
        True class codes.
    proba : array-like of shape (n, k), float in [0, 1]
        Class probabilities.
    predicted : array-like of shape (n,), int, optional
        Class codes; by default the most probable class.
    target_names : sequence of str, optional
        Names of the k classes; by default their codes.
    patients : array-like of shape (n,), optional
        Patient of each image, for the intervals.
    n_resamples : int, default=2000
        Resamples of the patients; 0 for no intervals.
    random_state : int, default=0
        Seed of `histofeat.metrics.patient_weights`.
    n_jobs : int, optional
        Threads. The result does not depend on it.
    fold : array-like of shape (n,), int, optional
        The fold that tests the patch; ranks and curves are then of patches of one fold, see `ranking_scores`.

    Returns
    -------
    scores : ClassScores

    Raises
    ------
    ValueError
        If the predictions cannot be scored, see `check_predictions`, or the names are not k.
    GroupLeakageError
        If a patient id is missing.

    Notes
    -----
    The definitions are those of `METRIC_RECORDS` for two classes, with the class as the positive one; the mean over
    more than two classes is the score of that name in a report. Precision is 0 for a class that occurs and is never
    predicted. A class that does not occur has NaN in everything but its specificity; a class that is the only one has
    no specificity.

    Resamples without the class do not count in its intervals. A class with fewer than two patients has no interval.

    Examples
    --------
    >>> proba = [[0.8, 0.1, 0.1], [0.5, 0.4, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]]
    >>> found = class_scores([0, 0, 1, 2], proba, target_names=("A", "F", "DC"))
    >>> found.values["sensitivity"].tolist(), found.values["precision"].round(2).tolist()
    ([1.0, 0.0, 1.0], [0.67, 0.0, 1.0])
    >>> found.values["roc_auc"].round(2).tolist(), found.support.tolist()
    ([0.75, 0.67, 1.0], [2, 1, 1])
    """
    y, proba = check_predictions(y, proba)
    k = proba.shape[1]
    names = _check_names(target_names, k)
    predicted = most_probable(proba) if predicted is None else check_codes(predicted, len(y), k, "predicted")
    # Without patients each image is its own, and is not resampled.
    owners = np.arange(len(y)) if patients is None else patients
    resampling = {"n_resamples": n_resamples if patients is not None else 0, "random_state": random_state}
    resampling |= {"metrics": CLASS_METRICS, "n_jobs": n_jobs, "fold": fold}
    found = [
        bootstrap_scores(
            y == code, np.column_stack([1 - score, score]), owners, predicted=predicted == code, **resampling
        )
        for code, score in enumerate(proba.T)
    ]
    _, codes = encode_patients(owners, len(y), "patients")
    n_patients = frozen([len(np.unique(codes[y == code])) for code in range(k)])
    return ClassScores(
        names,
        frozen(np.bincount(y, minlength=k)),
        frozen(np.bincount(predicted, minlength=k)),
        None if patients is None else n_patients,
        {metric: frozen([each.estimates[metric] for each in found]) for metric in CLASS_METRICS},
        {metric: frozen([each.interval(metric) for each in found]) for metric in CLASS_METRICS},
    )


def _check_names(target_names, k):
    names = tuple(str(code) for code in range(k)) if target_names is None else tuple(target_names)
    fits, expected = len(names) == k and not isinstance(target_names, str), f"{k} names, one for each column of proba"
    check_that("class_scores.target_names", target_names, fits, expected, "Pass dataset.target_names.")
    return names


#: Points of the grid, both ends included: steps of one percent.
GRID_POINTS = 101


@dataclass(frozen=True, eq=False)
class CurveBands:
    """ROC and precision-recall curves of one model, in the sample and in every resample of the patients.

    Parameters
    ----------
    grid : ndarray of shape (g,), float64
        False positive rates of the ROC curves, recalls of the precision-recall curves, from 0 to 1.
    curves : Mapping of str to ndarray of shape (k, g), float64
        "roc": true positive rate, "pr": precision, of each class against the rest, in the sample. NaN where a class
        is absent, and for the first of two classes, which is never the positive one.
    resampled : Mapping of str to ndarray of shape (m, k, g), float64
        The same in each resample; NaN where a class vanished, and for a class that fewer than two patients have.
    n_patients : int
        The patients that were resampled.
    points : Mapping of str to tuple of (ndarray, ndarray)
        All points of the curves of the sample, one pair for each class: false and true positive rates of "roc",
        recalls and precisions of "pr". None for a class whose `curves` are NaN.
    """

    grid: np.ndarray
    curves: Mapping[str, np.ndarray]
    resampled: Mapping[str, np.ndarray]
    n_patients: int
    points: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray] | None]]

    @property
    def n_used(self) -> int:
        """The number of resamples behind the bands: those in which no class vanished."""
        return int(np.isfinite(_chosen(self.resampled["roc"])).all(axis=-1).sum())

    def curve(self, kind: str, code: int | None = None) -> np.ndarray:
        """Give the curve of the sample on the grid.

        Parameters
        ----------
        kind : {"roc", "pr"}
        code : int, optional
            The class that is positive; by default code 1 of two classes, and the mean curve over more than two, at
            each point of the grid.

        Returns
        -------
        ndarray of shape (g,), float64
        """
        return _chosen(self.curves[kind], code)

    def band(self, kind: str, code: int | None = None, level: float = 0.95) -> np.ndarray:
        """Give the band around a curve: at each point of the grid, the percentiles over the resamples.

        Parameters
        ----------
        kind : {"roc", "pr"}
        code : int, optional
            As in `curve`.
        level : float in (0, 1), default=0.95
            The share of resampled curves inside the band, at each point by itself.

        Returns
        -------
        ends : ndarray of shape (2, g), float64
            Low and high; NaN if no resample defines the curve.
        """
        values = _chosen(self.resampled[kind], code)
        values = values[np.isfinite(values).all(axis=1)]
        if not len(values):
            return np.full((2, values.shape[1]), np.nan)
        return np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)


def _chosen(curves, code=None):
    """Take one class of shape (..., k, g); without a code the second of two, the mean of more."""
    if code is None and curves.shape[-2] > 2:
        return curves.mean(axis=-2)
    return curves[..., 1 if code is None else code, :]


def curve_bands(
    y: ArrayLike,
    proba: ArrayLike,
    patients: ArrayLike,
    *,
    n_resamples: int = 2000,
    random_state: int = 0,
    n_jobs: int | None = None,
    fold: ArrayLike | None = None,
) -> CurveBands:
    """Compute the ROC and precision-recall curves of each class in every resample of the patients.

    Parameters
    ----------
    y : array-like of shape (n,), int
        True class codes.
    proba : array-like of shape (n, k), float in [0, 1]
        Class probabilities.
    patients : array-like of shape (n,)
        Patient ids.
    n_resamples, random_state : int
        Of `histofeat.metrics.patient_weights`: with those of an evaluation, the bands use the resamples of its scores.
    n_jobs : int, optional
        Threads. The result does not depend on it.
    fold : array-like of shape (n,), int, optional
        The fold that tests the patch; ranks and curves are then of patches of one fold, see `ranking_scores`.

    Returns
    -------
    CurveBands

    Notes
    -----
    Percentiles are taken at fixed false positive rates ("vertical averaging", Fawcett 2006,
    doi:10.1016/j.patrec.2005.10.010) and at fixed recalls. The band is pointwise: more than 5 % of the curves of other
    patients leave it somewhere. As in `bootstrap_scores`, whole patients are drawn, the model is not fitted again, and
    resamples without a class are dropped.

    Examples
    --------
    >>> y, proba = [0, 1] * 6, [[0.6, 0.4], [0.3, 0.7], [0.2, 0.8], [0.4, 0.6]] * 3
    >>> found = curve_bands(y, proba, list("aabbccddeeff"), n_resamples=200)
    >>> low, high = found.band("roc")
    >>> bool((low <= found.curve("roc")).all()), float(high[-1])
    (True, 1.0)
    """
    y, proba = check_predictions(y, proba)
    ids, codes = encode_patients(patients, len(y), "patients")
    weights = patient_weights(patients, n_resamples, random_state)
    n_classes, everyone = proba.shape[1], np.ones((1, len(ids)), dtype=np.int64)
    grid = np.linspace(0, 1, GRID_POINTS)
    shape = (n_classes, GRID_POINTS)
    curves = {kind: np.full(shape, np.nan) for kind in ("roc", "pr")}
    resampled = {kind: np.full((len(weights), *shape), np.nan) for kind in ("roc", "pr")}
    points = {kind: [None] * n_classes for kind in ("roc", "pr")}
    lost, fold = vanished(y, codes, weights), check_fold(fold, len(y))
    several = fold is not None and len(np.unique(fold)) > 1
    # Of two classes only the second is ever positive.
    for code in [1] if n_classes == 2 else range(n_classes):
        positive, score = y == code, proba[:, code]
        if not positive.any() or positive.all():
            continue
        # A single patient with a class does not say how much patients vary.
        unknown = lost[:, np.newaxis] | (min(count_carriers(positive, codes)) < 2)
        drawn = curves_on_grid(positive, score, codes, weights, grid, n_jobs=n_jobs, fold=fold)
        whole = curves_on_grid(positive, score, codes, everyone, grid, fold=fold)
        # A mean over folds has no thresholds of its own.
        lines = [(grid, mean[0]) for mean in whole] if several else _every_point(positive, score)
        for kind, samples, sample, line in zip(("roc", "pr"), drawn, whole, lines, strict=True):
            resampled[kind][:, code] = np.where(unknown, np.nan, samples)
            curves[kind][code], points[kind][code] = sample[0], line
    return CurveBands(grid, curves, resampled, len(ids), points)


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
    whole = 0 < specificity < 1 and abs(bands.grid[at] - (1 - specificity)) <= 1e-9
    check_that("sensitivity_at.specificity", specificity, whole, "a whole percentage between 0 and 1", "Use 0.95.")
    value, samples = float(bands.curve("roc", code)[at]), _chosen(bands.resampled["roc"], code)[:, at]
    return value, *resampled_interval(value, samples, bands.n_patients, carriers - 1, successes=carriers)


def _every_point(positive, score):
    """Points of the ROC curve, and of precision and recall at the thresholds at which the recall rises."""
    precision, recall, _ = precision_recall_curve(positive, score)
    # scikit-learn runs from recall 1 to 0, and ends with a precision of 1 that no threshold gives.
    recall, precision = recall[-2::-1], precision[-2::-1]
    rises = np.flatnonzero(np.diff(recall, prepend=0.0) > 0)
    # The step begins at recall 0 with the precision of the highest threshold.
    steps = np.append(0.0, recall[rises]), np.append(precision[rises[0]], precision[rises])
    return roc_curve(positive, score)[:2], steps
