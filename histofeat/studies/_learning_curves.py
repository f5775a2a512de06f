"""Learning curves counted in patients: a score with more patients, and with more patches of the same patients."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from histofeat.datasets import Look
from histofeat.evaluation import FoldFit, fold_of_rows, out_of_fold
from histofeat.exceptions import check_name, check_whole
from histofeat.features import Runtime
from histofeat.metrics import METRICS, bootstrap_scores, mean_bootstrap, scores
from histofeat.model_selection import PatientKFold, check_no_shared_patients, encode_patients, fold_rows


def learning_curve(
    features: ArrayLike,
    y: ArrayLike,
    patients: ArrayLike,
    head: Any,
    cv: Any = None,
    *,
    n_patients: Sequence[int] = (10, 20, 40, 80),
    n_draws: int = 5,
    metric: str = "roc_auc",
    n_resamples: int = 2000,
    random_state: int = 0,
    runtime: Runtime | None = None,
) -> pd.DataFrame:
    """Fit a head on the patches of more and more patients, and on as many patches spread over all patients.

    The tested patients of the folds stay the same at every size. In each fold and draw the training patients are put in
    a random order and the first ones are taken, so that a larger set contains the smaller ones.

    Parameters
    ----------
    features : ndarray of shape (n, d), float
        Of every patch.
    y : array-like of shape (n,), int
        Class codes 0 to k - 1.
    patients : array-like of shape (n,)
        Patient ids.
    head : FeatureHead or classifier
        Unfitted; it is cloned.
    cv : splitter or iterable of (train, test), optional
        The folds; by default ``PatientKFold(5)``.
    n_patients : sequence of int, default=(10, 20, 40, 80)
        Sizes of the training set, ascending; all training patients come after them.
    n_draws : int, default=5
        Orders of the training patients in each fold.
    metric : str, default="roc_auc"
        One of `histofeat.metrics.METRICS`.
    n_resamples : int, default=2000
        Resamples of the tested patients behind each interval.
    random_state : int, default=0
        Seed of the draws and of the resamples.
    runtime : Runtime, optional
        Threads, each fitting a head, and progress; its stage is "fit". Nothing is stored.

    Returns
    -------
    curve : DataFrame
        One row for each size, by sampling and then by size, with the columns:

        - ``sampling``: "patients" (all patches of some patients), "patches" (as many patches, spread over all training
          patients of the fold), or "patches - patients" (the difference, from the same draws and resamples).
        - ``n_patients``: the patients drawn; with patches spread, those whose number of patches is matched. For all
          training patients their mean number over the folds, rounded.
        - ``n_patches``: training patches, mean over folds and draws.
        - ``all_patients``: whether that is every training patient of every fold.
        - ``value``: the metric over all tested patches, out of fold; mean over draws.
        - ``low``, ``high``: its 95 % interval, from resampling the tested patients.
        - ``spread``: standard deviation over draws of the score of a single fit, on the test patches of its fold; root
          mean square over the folds, NaN for a single draw.
        - ``n_draws``.

        ``attrs["registered"]`` is a sentence on registered test patients among those tested, or None.

    Raises
    ------
    ValueError
        If a size exceeds the training patients of a fold, a draw holds one class only, or an argument is not what it
        should be.
    GroupLeakageError
        If a patient is on both sides of a fold, or an id is missing.

    Notes
    -----
    The interval covers other patients to test on, with these draws; ``spread`` is what another training set of this
    size does to a fit, so that both add up. Nested draws are not independent of one another.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> rng = np.random.default_rng(0)
    >>> y, patients = np.arange(200) % 2, np.arange(200) // 10
    >>> features = y[:, None] + rng.normal(size=(200, 1))
    >>> head, cv = LogisticRegression(), PatientKFold(2)
    >>> curve = learning_curve(features, y, patients, head, cv, n_patients=(2, 5), n_draws=2)
    >>> curve[["sampling", "n_patients", "n_patches", "n_draws"]].head(3)
       sampling  n_patients  n_patches  n_draws
    0  patients           2       20.0        2
    1  patients           5       50.0        2
    2  patients          10      100.0        1
    """
    y = np.asarray(y)
    _, codes = encode_patients(patients, len(y), "learning_curve.patients")
    patients = np.asarray(patients, dtype=object)
    splits = fold_rows(PatientKFold(5) if cv is None else cv, y, patients, "learning_curve.cv")
    for train, test in splits:
        check_no_shared_patients(train, test, codes)
    check_name("learning_curve.metric", metric, METRICS)
    check_whole("learning_curve.n_draws", n_draws, 1, "Use 5.")
    runtime = Runtime.of(runtime)
    sizes = _check_sizes(n_patients, min(len(np.unique(codes[train])) for train, _ in splits))
    plan = _plan(splits, y, codes, sizes, int(n_draws), random_state)
    fold = fold_of_rows(splits, len(y))
    tested = np.flatnonzero(fold >= 0)
    look = Look.at((patients[tested], ()), patients, n_folds=len(splits), ledger=runtime.ledger)
    features = np.asarray(features, dtype=np.float32)
    fits = [FoldFit(key[:3], head, features, rows, splits[key[3]][1]) for key, rows in plan.items()]
    proba = out_of_fold(fits, y, patients, len(np.unique(y)), runtime)
    resampling = {"n_resamples": n_resamples, "random_state": random_state, "n_jobs": runtime.n_jobs}
    known = (y[tested], patients[tested], fold[tested])
    scored = {key: _score(found[tested], known, metric, resampling) for key, found in proba.items()}
    n_all = round(np.mean([len(np.unique(codes[train])) for train, _ in splits]))
    curve = pd.DataFrame(_points(scored, plan, sizes, n_all, metric))
    curve.attrs["registered"] = look and look.record([{"pipeline": type(head).__name__}])
    return curve


def _check_sizes(n_patients, n_least: int) -> tuple[int, ...]:
    remedy = f"The smallest fold trains on {n_least} patients, which are the last point of every curve."
    sizes = tuple(check_whole("learning_curve.n_patients", size, 1, remedy, most=n_least - 1) for size in n_patients)
    if list(sizes) != sorted(set(sizes)):
        raise ValueError(f"learning_curve.n_patients: expected ascending sizes, got {sizes}. Sort them.")
    return sizes


def _plan(splits, y, codes, sizes, n_draws, seed) -> dict[tuple, np.ndarray]:
    """Training rows by (sampling, size, draw, fold); size None for all training patients."""
    plan = {}
    for fold, (train, _) in enumerate(splits):
        plan["patients", None, 0, fold] = train
        for draw in range(n_draws):
            order = np.random.default_rng([seed, fold, draw]).permutation(np.unique(codes[train]))
            for size in sizes:
                rows = train[np.isin(codes[train], order[:size])]
                other = np.random.default_rng([seed, fold, draw, size]).choice(train, len(rows), replace=False)
                plan["patients", size, draw, fold] = rows
                plan["patches", size, draw, fold] = np.sort(other)
    for (sampling, size, draw, fold), rows in plan.items():
        if len(np.unique(y[rows])) < len(np.unique(y)):
            raise ValueError(
                f"learning_curve.n_patients: expected every class among the training patches, got {len(rows)} "
                f"{sampling if sampling == 'patches' else f'patches of {size} patients'} without one in draw {draw} of "
                f"fold {fold + 1}. Use larger sizes, or another random_state."
            )
    return plan


def _score(proba, known, metric, resampling):
    """Give the score with its resamples, and that of each fold."""
    y, patients, fold = known
    folds = [scores(y[fold == number], proba[fold == number])[metric] for number in np.unique(fold)]
    return bootstrap_scores(y, proba, patients, metrics=[metric], fold=fold, **resampling), np.array(folds)


def _spread(folds):
    """Standard deviation of one fit over draws, from scores of shape (n_draws, n_folds), NaN where undefined."""
    known = folds[:, np.isfinite(folds).all(axis=0)]
    return float(np.sqrt(known.var(axis=0, ddof=1).mean())) if len(folds) > 1 and known.size else np.nan


def _points(scored, plan, sizes, n_all, metric):
    """Average over draws, resample by resample; then say what spreading the patches gains."""

    def draws(sampling, size):
        found = [scored[key] for key in scored if key[:2] == (sampling, size)]
        return mean_bootstrap([resamples for resamples, _ in found]), np.array([folds for _, folds in found])

    def point(sampling, size, mean, folds, like):
        low, high = mean.interval(metric)
        return {
            "sampling": sampling,
            "n_patients": n_all if size is None else size,
            "n_patches": float(np.mean([len(rows) for key, rows in plan.items() if key[:2] == (like, size)])),
            "all_patients": size is None,
            "value": mean.estimates[metric],
            "low": low,
            "high": high,
            "spread": _spread(folds),
            "n_draws": len(folds),
        }

    for size in (*sizes, None):
        yield point("patients", size, *draws("patients", size), like="patients")
    for size in sizes:
        yield point("patches", size, *draws("patches", size), like="patches")
    for size in sizes:
        (mean, folds), (other_mean, other_folds) = draws("patches", size), draws("patients", size)
        yield point("patches - patients", size, mean.minus(other_mean), folds - other_folds, like="patches")
