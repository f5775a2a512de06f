"""ROC and precision-recall curves under resampling of patients: the bands around the curves of a report."""

from dataclasses import dataclass

import numba
import numpy as np
from joblib import Parallel, delayed
from sklearn.metrics import precision_recall_curve, roc_curve

from histofeat.metrics.bootstrap import patient_weights
from histofeat.metrics.definitions import check_predictions, ranking_scores
from histofeat.model_selection import encode_patients

__all__ = ["GRID_POINTS", "CurveBands", "curve_bands", "curves_on_grid"]

#: Points of the grid, both ends included: steps of one percent.
GRID_POINTS = 101
_WEIGHTINGS_AT_ONCE = 64
# Whole numbers of patches are compared with shares of them; this is far below one patch and above rounding.
_SLACK = 1e-9


@dataclass(frozen=True, eq=False)
class CurveBands:
    """Curves of one model on a fixed grid, in the sample and in every resample of the patients.

    Parameters
    ----------
    grid : ndarray of shape (g,), float64
        False positive rates of the ROC curves, recalls of the precision-recall curves, from 0 to 1.
    curves : Mapping of str to ndarray of shape (k, g), float64
        "roc": true positive rate, "pr": precision, of each class against the rest, in the sample. NaN where a class
        is absent, and for the first of two classes, which is never the positive one.
    resampled : Mapping of str to ndarray of shape (m, k, g), float64
        The same in each resample; NaN in resamples in which a class vanished.
    areas : Mapping of str to ndarray of shape (m, k), float64
        "roc": ROC-AUC, "pr": average precision, of each class in each resample, computed from all patches and not from
        the grid.
    n_patients : int
        The patients that were resampled.
    points : Mapping of str to tuple of (ndarray, ndarray)
        Every point of the curves of the sample, one pair of each class: false and true positive rates of "roc",
        recalls and precisions of "pr". None where `curves` is NaN.
    area : Mapping of str to ndarray of shape (k,), float64
        `areas` in the sample.
    """

    grid: np.ndarray
    curves: dict
    resampled: dict
    areas: dict
    n_patients: int
    points: dict
    area: dict

    @property
    def n_used(self):
        """The number of resamples behind the bands: those in which no class vanished."""
        return int(np.isfinite(_chosen(self.areas["roc"][..., np.newaxis])).sum())

    def curve(self, kind, code=None):
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

    def band(self, kind, code=None, level=0.95):
        """Give the band around a curve: at each point of the grid, the percentiles over the resamples.

        Parameters
        ----------
        kind : {"roc", "pr"}
        code : int, optional
            As in `curve`.
        level : float in (0, 1), default=0.95
            The share of resampled curves inside, at each point by itself.

        Returns
        -------
        low, high : ndarray of shape (g,), float64
            NaN where no resample defines the curve, and with a single patient, who cannot vary.
        """
        return self._percentiles(_chosen(self.resampled[kind], code), level)

    def area_interval(self, kind, code=None, level=0.95):
        """Give the interval of the area below a curve, on the resamples of the band.

        Returns
        -------
        low, high : float
        """
        low, high = self._percentiles(_chosen(self.areas[kind][..., np.newaxis], code), level)
        return float(low[0]), float(high[0])

    def _percentiles(self, values, level):
        values = values[np.isfinite(values).all(axis=1)]
        if not len(values) or self.n_patients < 2:
            return np.full((2, values.shape[1]), np.nan)
        return np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)


def _chosen(curves, code=None):
    """Take one class of shape (..., k, g); without a code the second of two, the mean of more."""
    if code is None and curves.shape[-2] > 2:
        return curves.mean(axis=-2)
    return curves[..., 1 if code is None else code, :]


def curve_bands(y, proba, patients, *, n_resamples=2000, random_state=0, n_jobs=None):
    """ROC and precision-recall curves of each class in every resample of the patients.

    Parameters
    ----------
    y : array-like of shape (n,), int
        True class codes.
    proba : array-like of shape (n, k), float in [0, 1]
        Class probabilities.
    patients : array-like of shape (n,)
        Patient ids.
    n_resamples, random_state : int
        Of `histofeat.metrics.patient_weights`: with those of an evaluation, bands and the intervals of its scores
        come of the same resamples.
    n_jobs : int, optional
        Threads. The result does not depend on it.

    Returns
    -------
    CurveBands

    Notes
    -----
    Read up the page at a fixed false positive rate ("vertical averaging", Fawcett 2006,
    doi:10.1016/j.patrec.2005.10.010) and at a fixed recall; the band is pointwise: a curve of other patients leaves it
    somewhere more often than in one case of twenty. As in `histofeat.metrics.bootstrap_scores` whole patients are
    drawn, the model is not fitted again, and resamples in which a class vanishes are dropped.

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
    areas = {kind: np.full((len(weights), n_classes), np.nan) for kind in ("roc", "pr")}
    area = {kind: np.full(n_classes, np.nan) for kind in ("roc", "pr")}
    points = {kind: [None] * n_classes for kind in ("roc", "pr")}
    present = np.array([np.bincount(codes[y == code], minlength=len(ids)) for code in range(n_classes)])
    lost = ((weights @ present.T == 0) & (present.sum(axis=1) > 0)).any(axis=1)
    # Of two classes only the second is ever positive.
    for code in [1] if n_classes == 2 else range(n_classes):
        positive, score = y == code, proba[:, code]
        if not positive.any() or positive.all():
            continue
        both = np.column_stack([1 - score, score])
        ranked = ranking_scores(positive.astype(np.int64), both, codes, weights, n_jobs=n_jobs)
        drawn = curves_on_grid(positive, score, codes, weights, grid, n_jobs=n_jobs)
        whole = curves_on_grid(positive, score, codes, everyone, grid)
        once = ranking_scores(positive.astype(np.int64), both, codes, everyone)
        found = zip(("roc", "pr"), ranked, drawn, whole, once, _every_point(positive, score), strict=True)
        for kind, sampled_areas, samples, sample, sample_area, line in found:
            areas[kind][:, code] = np.where(lost, np.nan, sampled_areas)
            resampled[kind][:, code] = np.where(lost[:, np.newaxis], np.nan, samples)
            curves[kind][code], area[kind][code], points[kind][code] = sample[0], sample_area[0], line
    return CurveBands(grid, curves, resampled, areas, len(ids), points, area)


def _every_point(positive, score):
    """Points of the ROC curve, and of precision and recall at the thresholds at which the recall rises."""
    precision, recall, _ = precision_recall_curve(positive, score)
    # scikit-learn runs from recall 1 to 0, and ends with a precision of 1 that no threshold gives.
    recall, precision = recall[-2::-1], precision[-2::-1]
    rises = np.flatnonzero(np.diff(recall, prepend=0.0) > 0)
    # The step begins at recall 0 with the precision of the highest threshold.
    steps = np.append(0.0, recall[rises]), np.append(precision[rises[0]], precision[rises])
    return roc_curve(positive, score)[:2], steps


def curves_on_grid(positive, score, patient, weights, grid, n_jobs=None):
    """True positive rate and precision on a grid, under many weightings of the patients, from one sort of the patches.

    Parameters
    ----------
    positive : ndarray of shape (n,), bool
    score : ndarray of shape (n,), float64
    patient : ndarray of shape (n,), int
        The column of `weights` that weighs the patch.
    weights : ndarray of shape (m, n_patients)
        How often each patient counts, m times.
    grid : ndarray of shape (g,), float64
        Ascending, from 0 to 1.
    n_jobs : int, optional
        Threads, as in joblib.

    Returns
    -------
    true_positive_rate, precision : ndarray of shape (m, g), float64
        At the false positive rates, and at the recalls, of `grid`; NaN where a class has no weight.

    Notes
    -----
    Between two thresholds an ROC curve is a straight line, which is how ties count one half in its area; where it
    rises at one false positive rate, the upper end is taken. Precision is a step function: at a recall it is that of
    the highest threshold with at least this recall, which is the function whose area is the average precision.

    Examples
    --------
    >>> positive, score = np.array([True, False, True, False]), np.array([0.9, 0.8, 0.7, 0.1])
    >>> found = curves_on_grid(positive, score, np.zeros(4, dtype=int), np.ones((1, 1)), np.array([0, 0.5, 1]))
    >>> found[0].tolist(), found[1].round(3).tolist()
    ([[0.5, 1.0, 1.0]], [[1.0, 1.0, 0.667]])
    """
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    walked = positive[order], patient[order], np.append(ranked[1:] != ranked[:-1], True)
    blocks = [
        np.ascontiguousarray(weights[start : start + _WEIGHTINGS_AT_ONCE].T, dtype=np.float64)
        for start in range(0, len(weights), _WEIGHTINGS_AT_ONCE)
    ]
    found = Parallel(n_jobs=n_jobs, require="sharedmem")(
        delayed(_walk)(*walked, block, grid, _SLACK) for block in blocks
    )
    return tuple(np.concatenate(found, axis=1)) if found else (np.empty((0, len(grid))),) * 2


@numba.njit(cache=True, nogil=True, fastmath=False, error_model="numpy")
def _walk(positive, patient, ends, weights, grid, slack):
    """Walk down the ranking once for all columns of `weights` (n_patients, m), and read the curves off the grid.

    `ends` marks the last patch of each run of equal scores.
    """
    m, g = weights.shape[1], len(grid)
    all_p, all_n = np.zeros(m), np.zeros(m)
    for i in range(len(patient)):
        total, w = all_p if positive[i] else all_n, weights[patient[i]]
        for b in range(m):
            total[b] += w[b]
    out = np.full((2, m, g), np.nan)
    p, n, tied_p, tied_n = np.zeros(m), np.zeros(m), np.zeros(m), np.zeros(m)
    at_roc, at_pr = np.zeros(m, dtype=np.int64), np.zeros(m, dtype=np.int64)
    # The counts at which the next point of the grid is reached: nearly every step falls short of both.
    next_n, next_p = np.full(m, slack), np.full(m, slack)
    for i in range(len(patient)):
        tied, w = tied_p if positive[i] else tied_n, weights[patient[i]]
        for b in range(m):
            tied[b] += w[b]
        if not ends[i]:
            continue
        for b in range(m):
            new_p, new_n = p[b] + tied_p[b], n[b] + tied_n[b]
            while at_roc[b] < g and new_n > next_n[b]:
                share = max(next_n[b] - slack - n[b], 0.0) / tied_n[b]
                out[0, b, at_roc[b]] = (p[b] + share * tied_p[b]) / all_p[b]
                at_roc[b] += 1
                next_n[b] = grid[min(at_roc[b], g - 1)] * all_n[b] + slack
            while at_pr[b] < g and new_p > next_p[b]:
                out[1, b, at_pr[b]] = new_p / (new_p + new_n)
                at_pr[b] += 1
                next_p[b] = grid[min(at_pr[b], g - 1)] * all_p[b] - slack
            p[b], n[b], tied_p[b], tied_n[b] = new_p, new_n, 0.0, 0.0
    for b in range(m):
        if all_p[b] > 0.0 and all_n[b] > 0.0:
            out[0, b, at_roc[b] :] = 1.0
        else:
            out[:, b] = np.nan
    return out
