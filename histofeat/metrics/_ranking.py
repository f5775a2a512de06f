"""Score one ranking of the patches under many weightings of the patients: ROC-AUC, average precision and curves."""

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike

from histofeat.images import compiled

_WEIGHTINGS_AT_ONCE = 64
# Counts of patches are whole numbers, and are compared with shares of them: far below one patch, far above rounding.
_SLACK = 1e-9


def over_classes(per_class):
    """Take the positive class of two, the mean over more: shape (..., k) -> (...)."""
    return per_class[..., 1] if per_class.shape[-1] == 2 else per_class.mean(axis=-1)


def ranking_scores(
    y: np.ndarray,
    proba: np.ndarray,
    patient: np.ndarray,
    weights: np.ndarray,
    n_jobs: int | None = None,
    *,
    fold: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """ROC-AUC and average precision under many weightings of the patients, from one sort of the patches.

    Parameters
    ----------
    y : ndarray of shape (n,), int
        True class codes.
    proba : ndarray of shape (n, k), float64
        Class probabilities.
    patient : ndarray of shape (n,), int
        The column of `weights` that weighs the patch.
    weights : ndarray of shape (m, n_patients)
        How often each patient counts, m times.
    n_jobs : int, optional
        Threads, as in joblib.
    fold : ndarray of shape (n,), int, optional
        The fold that tests the patch; patches of different folds are not compared. By default all are of one fold.

    Returns
    -------
    roc_auc, average_precision : ndarray of shape (m,), float64
        NaN where no fold has weight in both classes.

    Notes
    -----
    ROC-AUC is the probability that a positive patch scores above a negative one of its fold, ties counting one half:
    concordant pairs over pairs, each summed over the folds. Average precision is the mean, over the positive patches of
    folds with both classes, of the precision among the patches of the fold with at least their score: a step function,
    not interpolated. With more than two classes both are one-vs-rest means.

    Folds are different fits, whose scores need not be on one scale. Ranked in one list, a constant score from each fit,
    the prevalence in its training patients, has a ROC-AUC far below 0.5 (Airola et al. 2011,
    doi:10.1016/j.csda.2010.11.018).
    """
    n_classes = proba.shape[1]
    per_class = np.empty((2, len(weights), n_classes))
    for code in [1] if n_classes == 2 else range(n_classes):
        sums = np.zeros((4, len(weights)))
        for rows, columns, number in _folds_of(fold, patient, weights.shape[1]):
            ranked = (y == code)[rows], proba[rows, code], number
            sums += _in_blocks(_areas, *ranked, weights[:, columns], n_jobs)
        with np.errstate(invalid="ignore"):
            per_class[:, :, code] = sums[:2] / sums[2:]
    return tuple(over_classes(values) for values in per_class)


def pareto_front(costs: ArrayLike, scores: ArrayLike) -> np.ndarray:
    """Mark what nothing else beats: none is as cheap and as good, and better in one of the two.

    Parameters
    ----------
    costs, scores : array-like of shape (n,), float
        The lower and the higher the better.

    Returns
    -------
    on_front : ndarray of shape (n,), bool
        Of equals in both, all are marked; a NaN is never.

    Examples
    --------
    >>> pareto_front([1, 2, 3, 4], [0.7, 0.9, 0.8, 0.95]).tolist()
    [True, True, False, True]
    """
    costs, scores = np.asarray(costs, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    as_good = (costs[:, None] <= costs) & (scores[:, None] >= scores)
    better = (costs[:, None] < costs) | (scores[:, None] > scores)
    return ~(as_good & better).any(axis=0) & np.isfinite(costs) & np.isfinite(scores)


def check_fold(fold, n_samples):
    """Refuse what is not one fold number for each patch; None is one fold."""
    if fold is None:
        return None
    fold = np.asarray(fold)
    if fold.shape != (n_samples,) or fold.dtype.kind not in "iu" or fold.min() < 0:
        raise ValueError(
            f"fold: expected the number of a fold for each of {n_samples} patches, got {fold.dtype} of shape "
            f"{fold.shape}. Pass evaluation.fold of the tested rows."
        )
    return fold


def _folds_of(fold, patient, n_patients):
    """Yield the rows of each fold, the columns of its patients, and for each row the place of its patient in these."""
    if fold is None:
        yield slice(None), slice(0, n_patients), patient
        return
    for number in np.unique(fold):
        rows = np.flatnonzero(fold == number)
        columns, places = np.unique(patient[rows], return_inverse=True)
        yield rows, columns, places


def curves_on_grid(positive, score, patient, weights, grid, n_jobs=None, *, fold=None):
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
    fold : ndarray of shape (n,), int, optional
        The fold that tests the patch. The curve is then the mean over the folds with both classes, weighted by their
        pairs (ROC) or their positive patches (precision), so that its area is that of `ranking_scores`.

    Returns
    -------
    true_positive_rate, precision : ndarray of shape (m, g), float64
        At the false positive rates, and at the recalls, of `grid`; NaN where a class has no weight.

    Notes
    -----
    Between two thresholds the ROC curve is a straight line, so that ties count one half in its area; where it is
    vertical, the upper end is taken. Precision is a step function: at a recall it is that of the highest threshold
    with at least this recall, so that its area is the average precision.

    Examples
    --------
    >>> positive, score = np.array([True, False, True, False]), np.array([0.9, 0.8, 0.7, 0.1])
    >>> found = curves_on_grid(positive, score, np.zeros(4, dtype=int), np.ones((1, 1)), np.array([0, 0.5, 1]))
    >>> found[0].tolist(), found[1].round(3).tolist()
    ([[0.5, 1.0, 1.0]], [[1.0, 1.0, 0.667]])
    """
    curves, shares = np.zeros((2, len(weights), len(grid))), np.zeros((2, len(weights), 1))
    for rows, columns, number in _folds_of(fold, patient, weights.shape[1]):
        drawn = weights[:, columns]
        found = _in_blocks(_curves, positive[rows], score[rows], number, drawn, n_jobs, grid)
        n_positive, n_negative = (
            drawn @ np.bincount(number[positive[rows] == side], minlength=drawn.shape[1]) for side in (True, False)
        )
        both = (n_positive > 0) & (n_negative > 0)
        share = np.where(both, [n_positive * n_negative, n_positive], 0.0)[..., np.newaxis]
        curves += np.where(share > 0, found * share, 0.0)
        shares += share
    return tuple(np.divide(curves, shares, out=np.full_like(curves, np.nan), where=shares > 0))


def _in_blocks(kernel, positive, score, patient, weights, n_jobs, *more):
    """Run a kernel over blocks of weightings: as many as share one pass over the patches in cache."""
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    ends = np.append(ranked[1:] != ranked[:-1], True)
    blocks = (
        np.ascontiguousarray(weights[start : start + _WEIGHTINGS_AT_ONCE].T, dtype=np.float64)
        for start in range(0, max(1, len(weights)), _WEIGHTINGS_AT_ONCE)
    )
    found = Parallel(n_jobs=n_jobs, require="sharedmem")(
        delayed(kernel)(positive[order], patient[order], ends, block, *more) for block in blocks
    )
    return np.concatenate(found, axis=1)


@compiled(error_model="numpy")
def _areas(positive, patient, ends, weights):
    """Walk down the ranking once for all columns of `weights` (n_patients, m).

    `ends` marks the last patch of each run of equal scores. Counts are whole numbers, so the area is exact. Returns
    concordant pairs, the sum of the precisions, pairs and positive patches, all 0 where a class has no weight.
    """
    m = weights.shape[1]
    area, precision = np.zeros(m), np.zeros(m)
    above_p, above_n = np.zeros(m), np.zeros(m)
    tied_p, tied_n = np.zeros(m), np.zeros(m)
    alone = True
    for i in range(len(patient)):
        w = weights[patient[i]]
        if alone and ends[i]:  # nearly every patch; this saves half of the work
            if positive[i]:
                for b in range(m):
                    above_p[b] += w[b]
                    precision[b] += w[b] * (above_p[b] / max(above_p[b] + above_n[b], 1.0))
            else:
                for b in range(m):
                    area[b] += w[b] * above_p[b]
                    above_n[b] += w[b]
            continue
        tied = tied_p if positive[i] else tied_n
        for b in range(m):
            tied[b] += w[b]
        alone = ends[i]
        if ends[i]:
            for b in range(m):
                area[b] += tied_n[b] * (above_p[b] + 0.5 * tied_p[b])
                above_p[b] += tied_p[b]
                above_n[b] += tied_n[b]
                precision[b] += tied_p[b] * (above_p[b] / max(above_p[b] + above_n[b], 1.0))
                tied_p[b] = 0.0
                tied_n[b] = 0.0
    out = np.zeros((4, m))
    for b in range(m):
        if above_p[b] > 0.0 and above_n[b] > 0.0:
            out[:, b] = area[b], precision[b], above_p[b] * above_n[b], above_p[b]
    return out


@compiled(error_model="numpy")
def _curves(positive, patient, ends, weights, grid):
    """Walk down the ranking once for all columns of `weights` (n_patients, m), and read the curves at the grid.

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
    # The counts at which the next point of the grid is reached; nearly every step stays below both.
    next_n, next_p = np.full(m, _SLACK), np.full(m, _SLACK)
    for i in range(len(patient)):
        tied, w = tied_p if positive[i] else tied_n, weights[patient[i]]
        for b in range(m):
            tied[b] += w[b]
        if not ends[i]:
            continue
        for b in range(m):
            new_p, new_n = p[b] + tied_p[b], n[b] + tied_n[b]
            while at_roc[b] < g and new_n > next_n[b]:
                share = max(next_n[b] - _SLACK - n[b], 0.0) / tied_n[b]
                out[0, b, at_roc[b]] = (p[b] + share * tied_p[b]) / all_p[b]
                at_roc[b] += 1
                next_n[b] = grid[min(at_roc[b], g - 1)] * all_n[b] + _SLACK
            while at_pr[b] < g and new_p > next_p[b]:
                out[1, b, at_pr[b]] = new_p / (new_p + new_n)
                at_pr[b] += 1
                next_p[b] = grid[min(at_pr[b], g - 1)] * all_p[b] - _SLACK
            p[b], n[b], tied_p[b], tied_n[b] = new_p, new_n, 0.0, 0.0
    for b in range(m):
        if all_p[b] > 0.0 and all_n[b] > 0.0:
            out[0, b, at_roc[b] :] = 1.0
        else:
            out[:, b] = np.nan
    return out
