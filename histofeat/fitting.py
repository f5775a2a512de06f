"""Heads on folds: every fit of an evaluation, with its threshold chosen inside the training patients."""

import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
from threadpoolctl import threadpool_limits

from histofeat.exceptions import MissingExtraError, WeightsError
from histofeat.heads import fit_with_inner_scores
from histofeat.metrics import best_f1_threshold, most_probable

__all__ = ["CANNOT_RUN", "Fit", "fit_all"]

#: What makes a model "not run" with its reason, and not the end of the evaluation.
CANNOT_RUN = (WeightsError, MissingExtraError)


@dataclass
class Fit:
    """A plan after its fits: out-of-fold predictions of every tested row."""

    plan: Any
    n_features: int
    proba: np.ndarray
    tuned: np.ndarray
    thresholds: list
    notes: list
    spent: list

    @classmethod
    def empty(cls, plan, bank, n_rows, n_classes, n_folds):
        """Make room for the predictions of one plan."""
        return cls(
            plan,
            sum(bank[key].shape[1] for key in plan.keys),
            np.full((n_rows, n_classes), np.nan),
            np.full(n_rows, -1, dtype=np.int64),
            *([None] * n_folds for _ in range(3)),
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
    n_threads = min(joblib.effective_n_jobs(run.n_jobs), max(1, len(tasks)))
    with threadpool_limits(1 if n_threads > 1 else None, user_api="blas"), ThreadPoolExecutor(n_threads) as pool:
        futures = {pool.submit(_fit_fold, fit, bank, run, fold): fit for fit, fold in tasks}
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                try:
                    future.result()
                except CANNOT_RUN as error:
                    futures[future].plan.reason = str(error)
                run.tell("fit", done, len(futures))
        finally:
            for future in futures:
                future.cancel()
    return [fit for fit in fits if fit.plan.reason is None]


def _fit_fold(fit, bank, run, fold):
    """Fit one head on one fold and fill its test rows; writes nothing that another fold writes."""
    (train, test), y, n_classes = run.splits[fold], run.y, fit.proba.shape[1]

    def rows(index):
        return np.hstack([bank[key][index] for key in fit.plan.keys])

    started = time.perf_counter()
    head, inner = fit_with_inner_scores(fit.plan.head, rows(train), y[train], run.patients[train], run.inner[fold])
    fitted = time.perf_counter()
    proba = _all_classes(head.predict_proba(rows(test)), head.classes_, n_classes)
    fit.spent[fold] = (fitted - started, time.perf_counter() - fitted)
    fit.proba[test] = proba
    if n_classes == 2:
        threshold = best_f1_threshold(y[train], _all_classes(inner, head.classes_, 2)[:, 1])
        fit.thresholds[fold] = threshold
        fit.tuned[test] = proba[:, 1] >= threshold
    else:
        fit.tuned[test] = most_probable(proba)
    fit.notes[fold] = head.notes_


def _all_classes(proba, classes, n_classes):
    """Put the columns of a head at their class codes; a class that it never saw has probability 0."""
    spread = np.zeros((len(proba), n_classes))
    spread[:, classes] = proba
    return spread
