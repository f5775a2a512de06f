"""Heads on folds: every fit, with its parameters, calibration and threshold chosen inside the training patients."""

import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from histofeat.evaluation.plans import CANNOT_RUN
from histofeat.evaluation.search.tuning import tune_head
from histofeat.metrics import choose_threshold, fit_calibrator, most_probable
from histofeat.models import fit_with_inner_scores

__all__ = ["NOT_TUNED", "Fit", "fit_all"]

#: The note of a fit that left no training patient of each class to choose a threshold on.
NOT_TUNED = (
    "No training patients of both classes were held out of this fit: its threshold is 0.5, and its probabilities are "
    "not calibrated."
)


@dataclass
class Fit:
    """A plan after its fits: out-of-fold predictions of every tested row."""

    plan: Any
    n_features: int
    proba: np.ndarray
    calibrated: np.ndarray
    tuned: np.ndarray
    thresholds: list
    choices: list
    notes: list
    spent: list
    histories: list

    @classmethod
    def empty(cls, plan, bank, n_rows, n_classes, n_folds):
        """Make room for the predictions of one plan."""
        return cls(
            plan,
            bank.width(plan),
            np.full((n_rows, n_classes), np.nan),
            np.full((n_rows, n_classes), np.nan),
            np.full(n_rows, -1, dtype=np.int64),
            *([None] * n_folds for _ in range(4)),
            [{} for _ in range(n_folds)],
        )

    @property
    def seconds(self):
        """Seconds of fitting and of predicting, summed over folds."""
        fit_s, predict_s = np.sum(self.spent, axis=0)
        return {"fit": float(fit_s), "predict": float(predict_s)}


def fit_all(plans, bank, run):
    """Fit every head on every fold, several at a time where there are threads for it."""
    n_rows, n_classes = len(run.dataset), len(run.dataset.target_names)
    fits = [Fit.empty(plan, bank, n_rows, n_classes, len(run.splits)) for plan in plans if plan.reason is None]
    tasks = [(fit, fold) for fit in fits for fold in range(len(run.splits))]
    # One fit a thread scales better than many threads a fit, and threads that wait for each other spin.
    n_threads = min(joblib.effective_n_jobs(run.runtime.n_jobs), max(1, len(tasks)))
    with threadpool_limits(1 if n_threads > 1 else None, user_api="blas"), ThreadPoolExecutor(n_threads) as pool:
        futures = {pool.submit(_fit_fold, fit, bank, run, fold): fit for fit, fold in tasks}
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                try:
                    future.result()
                except CANNOT_RUN as error:
                    futures[future].plan.reason = str(error)
                run.runtime.report("fit", done, len(futures))
        finally:
            for future in futures:
                future.cancel()
    return [fit for fit in fits if fit.plan.reason is None]


def _fit_fold(fit, bank, run, fold):
    """Fit one head on one fold and fill its test rows; writes nothing that another fold writes."""
    (train, test), y, inner_cv = run.splits[fold], run.y, run.inner[fold]
    started = time.perf_counter()
    features, groups = bank.rows(fit.plan, fold, train), run.patients[train]
    if fit.plan.takes_pixels:
        head, inner = _fit_on_pixels(fit.plan.head, features, y[train], groups)
        fit.n_features, fit.choices[fold], fit.histories[fold] = head.n_features_in_, {}, head.history_
    else:
        head, fit.choices[fold] = _tuned(fit.plan, features, y[train], groups, inner_cv, run.search)
        head, inner = fit_with_inner_scores(head, features, y[train], groups, inner_cv)
    fitted = time.perf_counter()
    n_classes = fit.proba.shape[1]
    proba = _all_classes(head.predict_proba(bank.rows(fit.plan, fold, test)), head.classes_, n_classes)
    fit.spent[fold] = (fitted - started, time.perf_counter() - fitted)
    fit.proba[test], fit.notes[fold] = proba, head.notes_
    if n_classes == 2:
        _decide(fit, fold, test, y[train], _all_classes(inner, head.classes_, 2), run.threshold)
    else:
        fit.tuned[test], fit.calibrated[test] = most_probable(proba), proba


def _fit_on_pixels(head, images, y, groups):
    """Fit a head on images, and score the patients that it held out; its other training rows are NaN.

    Inner fits would train a network as many times again. Thresholds come of the held-out patients instead.
    """
    head = clone(head).fit(images, y, groups=groups)
    return head, head.held_out_scores(len(y))


def _decide(fit, fold, test, y, inner, rule):
    """Choose the threshold, and fit the calibration, on training rows that were scored without being learnt from."""
    scored = np.isfinite(inner).all(axis=1)
    if len(np.unique(y[scored])) < 2:
        fit.thresholds[fold], fit.calibrated[test] = 0.5, fit.proba[test]
        fit.notes[fold] = (*fit.notes[fold], NOT_TUNED)
    else:
        fit.thresholds[fold] = choose_threshold(y[scored], inner[scored, 1], rule)
        fit.calibrated[test] = fit_calibrator(y[scored], inner[scored]).transform(fit.proba[test])
    fit.tuned[test] = fit.proba[test, 1] >= fit.thresholds[fold]


def _tuned(plan, features, y, groups, inner_cv, search):
    """Choose the head's parameters among training patients; where nothing is searched, they are what they were."""
    if search is None:
        return plan.head, {}
    return tune_head(plan.head, features, y, groups, inner_cv, search, plan.head_name)


def _all_classes(proba, classes, n_classes):
    """Put the columns of a head at their class codes; a class that it never saw has probability 0."""
    spread = np.zeros((len(proba), n_classes))
    spread[:, classes] = proba
    return spread
