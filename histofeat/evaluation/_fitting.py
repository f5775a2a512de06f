"""Fit heads on folds in threads; choose parameters, threshold and calibration on the training patients."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import Any

import joblib
import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter
from threadpoolctl import threadpool_limits

from histofeat.datasets import PatchDataset, patch_size_of
from histofeat.evaluation._folds import make_inner_folds
from histofeat.evaluation._given_predictions import score_model
from histofeat.evaluation._saved_evaluation import result_file, take_up
from histofeat.evaluation._search import tune_head
from histofeat.features import Runtime
from histofeat.images import scale_ratio
from histofeat.metrics import choose_threshold, fit_calibrator, most_probable
from histofeat.model_selection import LimitedTraining, fold_rows
from histofeat.models import PixelHead, fit_with_inner_scores

#: The note of a fit without held-out training patients of both classes.
NOT_TUNED = (
    "No training patients of both classes were held out of this fit: its threshold is 0.5, and its probabilities are "
    "not calibrated."
)
#: Test rows that are scored together: features of more patches than memory holds are read by blocks.
_ROWS_AT_ONCE = 1 << 16


def run_in_threads(
    work: Callable, tasks: Sequence[Any], runtime: Runtime, stage: str = "fit", away: bool = False
) -> list:
    """Return ``[work(task) for task in tasks]``, computed in threads; the first error ends it.

    Parameters
    ----------
    work : callable
    tasks : sequence
    runtime : Runtime
        Its threads share the tasks; its progress reports each one that is done.
    stage : str, default="fit"
        The name of the stage in the progress.
    away : bool, default=False
        Whether `work` uses `Runtime.call`, so that with a cluster there are as many threads as its workers need.

    Returns
    -------
    found : list
    """
    n_threads = min(joblib.effective_n_jobs(runtime.n_jobs), max(1, len(tasks)))
    at_work = runtime if away else replace(runtime, cluster=None)
    found, done = [], at_work.each(work, tasks, ahead=len(tasks))
    # Several tasks at a time scale better than several threads a task, which spin while they wait for each other.
    with threadpool_limits(1 if n_threads > 1 else None, user_api="blas"), closing(done):
        for result in done:
            found.append(result)
            runtime.report(stage, len(found), len(tasks))
    return found


def other_scales(families: Iterable[Any], dataset: PatchDataset) -> Iterator[str]:
    """Yield a sentence for each encoder with published weights that sees patches at another scale than it learnt at."""
    from histofeat.networks import find_encoder  # for those who have encoders

    size = dataset.mpp and patch_size_of(dataset)
    for family in families if size else ():
        if hasattr(family, "encoder") and str(family.weights) in ("imagenet", "shipped"):
            encoder = find_encoder(family.encoder)
            side = family.input_size or encoder.default_size
            seen = dataset.mpp * math.sqrt(size[0] * size[1]) / side
            if scale_ratio(seen, encoder.mpp) != 1:
                patches = f"patches of {size[0]} x {size[1]} px at {dataset.mpp:g} are resized to {side} px"
                yield (
                    f"The encoder {encoder.name!r} learnt at {encoder.mpp:g} micrometres per pixel and sees {seen:.2g} "
                    f"here: {patches}. Its features may tell less."
                )


def class_probabilities(head: Any, X: ArrayLike, n_classes: int) -> np.ndarray:
    """Class probabilities of a fitted head, float64 of shape (n, n_classes); 0 for classes that it never saw."""
    proba = np.zeros((len(X), n_classes))
    proba[:, head.classes_] = head.predict_proba(X)
    return proba


@dataclass(frozen=True, eq=False)
class FoldFit:
    """A head to fit on the training rows of a fold, for `out_of_fold`.

    Parameters
    ----------
    key : hashable
        The predictions of all fits of one key are put together.
    head : classifier
        Unfitted; it is cloned.
    features : ndarray of shape (n, d)
        Features of all rows.
    train, test : ndarray of int64
    """

    key: Any
    head: Any
    features: np.ndarray
    train: np.ndarray
    test: np.ndarray


def out_of_fold(
    fits: Sequence[FoldFit], y: np.ndarray, patients: np.ndarray, n_classes: int, runtime: Runtime
) -> dict[Any, np.ndarray]:
    """Fit heads on folds and score the test rows.

    Parameters
    ----------
    fits : sequence of FoldFit
    y : ndarray of shape (n,), int64
    patients : ndarray of shape (n,)
        Passed to heads that take ``groups``.
    n_classes : int
    runtime : Runtime

    Returns
    -------
    proba : dict of key to ndarray of shape (n, n_classes)
        NaN in rows that were never tested.
    """
    proba = {fit.key: np.full((len(y), n_classes), np.nan) for fit in fits}

    def score(fit):
        groups = {"groups": patients[fit.train]} if has_fit_parameter(fit.head, "groups") else {}
        head = clone(fit.head).fit(fit.features[fit.train], y[fit.train], **groups)
        proba[fit.key][fit.test] = class_probabilities(head, fit.features[fit.test], n_classes)

    # The largest first: a thread that ends with one of them leaves the others idle.
    run_in_threads(score, sorted(fits, key=lambda fit: -len(fit.train)), runtime)
    return proba


class Fit:
    """A plan and its fits: out-of-fold predictions of every tested row, and a record of each fold."""

    def __init__(self, plan, bank, run):
        shape = (len(run.dataset), len(run.dataset.target_names))
        self.plan, self.n_features = plan, bank.width(plan)
        self.proba, self.calibrated = np.full(shape, np.nan), np.full(shape, np.nan)
        self.tuned = np.full(shape[0], -1, dtype=np.int64)
        #: "threshold" (of two classes), "choice", "notes", "history", "fit_s" and "predict_s" of each fold.
        self.folds = [{} for _ in run.splits]

    def of_folds(self, key):
        """Give an entry of the records of all folds."""
        return tuple(record[key] for record in self.folds)


@dataclass(frozen=True, eq=False)
class FoldTask:
    """What it takes to fit a head on the training rows of a fold and to score the test rows; it can be pickled.

    Parameters
    ----------
    head : FeatureHead or PixelHead
        Unfitted.
    head_name : str
        The name by which `search` knows it.
    features : object
        ``take(rows)`` gives features (n_rows, d), or images, of rows of the data set.
    inner_features : list of object or None
        The same for each inner fit, where they differ.
    train, test : ndarray of int64
    y, patients : ndarray of shape (n,)
        Of all rows.
    inner_cv : splitter
    n_classes : int
    positive, search, threshold
        As of `Run`.
    """

    head: Any
    head_name: str
    features: Any
    inner_features: list[Any] | None
    train: np.ndarray
    test: np.ndarray
    y: np.ndarray
    patients: np.ndarray
    inner_cv: Any
    n_classes: int
    positive: int
    search: Any
    threshold: Any


def fold_task(plan, bank, run, fold):
    """Give the task of one plan and one fold."""
    of_fold = bank.features(plan, fold), bank.inner_features(plan, fold), *run.splits[fold], run.y, run.patients
    settings = len(run.dataset.target_names), run.positive, run.search, run.threshold
    return FoldTask(plan.head, plan.head_name, *of_fold, run.inner[fold], *settings)


def fit_all(plans, bank, run):
    """Fit every head on every fold, several at a time in threads; take up fits that an earlier run has kept."""
    fits = [Fit(plan, bank, run) for plan in plans if plan.reason is None]

    def work(task):
        fit, fold = task
        filled, (_, test) = (fit.proba, fit.calibrated, fit.tuned), run.splits[fold]
        with fit.plan.tried():
            known = fit.plan.head_name, run.search, str(run.threshold), run.positive, bank.hashes(fit.plan, fold)
            part = fit.plan.head if hasattr(fit.plan.pipeline, "make_head") else fit.plan.pipeline
            file = result_file(run, fold, part, *known)
            kept = take_up(file, lambda: run.runtime.call(fit_fold, fold_task(fit.plan, bank, run, fold)))
            n_features, fit.folds[fold], rows = kept
            fit.n_features = n_features or fit.n_features
            for values, some in zip(filled, rows, strict=True):
                values[test] = some

    run_in_threads(work, [(fit, fold) for fit in fits for fold in range(len(run.splits))], run.runtime, away=True)
    return [fit for fit in fits if fit.plan.reason is None]


def fit_fold(task: FoldTask) -> tuple[int, dict[str, Any], list[np.ndarray]]:
    """Fit a head on the training rows of a fold, and score the test rows.

    Returns
    -------
    n_features : int
        Inputs of a network on pixels; otherwise 0.
    record : dict
        "threshold" (of two classes), "choice", "notes", "history", "fit_s" and "predict_s".
    rows : list of ndarray
        Of the test rows: probabilities and calibrated probabilities (n_test, k), labels by the threshold (n_test,).
    """
    y, groups, started = task.y[task.train], task.patients[task.train], time.perf_counter()
    head, X, n_features, record = task.head, task.features.take(task.train), 0, {"choice": {}, "history": {}}
    if isinstance(head, PixelHead):
        # Inner fits would train several more networks: the threshold is chosen on the patients that this one held out.
        head = clone(head).fit(X, y, groups=groups)
        inner, n_features, record["history"] = head.held_out_scores(len(y)), head.n_features_in_, head.history_
    else:
        inner_X = task.inner_features and [features.take(task.train) for features in task.inner_features]
        if task.search is not None:
            known = task.search, task.head_name, task.positive, inner_X
            head, record["choice"] = tune_head(head, X, y, groups, task.inner_cv, *known)
        head, inner = fit_with_inner_scores(head, X, y, groups, task.inner_cv, inner_X=inner_X)
    fitted = time.perf_counter()
    blocks = np.split(task.test, range(_ROWS_AT_ONCE, len(task.test), _ROWS_AT_ONCE))
    proba = np.vstack([class_probabilities(head, task.features.take(rows), task.n_classes) for rows in blocks])
    record |= {"notes": head.notes_, "fit_s": fitted - started, "predict_s": time.perf_counter() - fitted}
    decided = _decide(task, record, y, inner, proba) if task.n_classes == 2 else (proba, most_probable(proba))
    return n_features, record, [proba, *decided]


def training_curve(plans, bank, run, cv, inner_cv, models):
    """Score every head with fewer training patches of a patient, too: a quarter and half of what folds are limited to.

    Parameters
    ----------
    plans : sequence of Plan
    bank : FeatureBank
    run : Run
    cv : splitter or iterable of (train, test)
        The folds of `run`.
    inner_cv : splitter
    models : sequence of ModelResult
        With all training patches of the folds.

    Returns
    -------
    entry : dict
        "training_curve" of the protocol: a list of dict with "name", "head", "patches_per_patient", "n_patches" (of a
        fold, on average) and "roc_auc". Empty if `cv` is no `LimitedTraining`, test rows would be others, or encoders
        would be trained again.
    """
    if not isinstance(cv, LimitedTraining) or run.retrain or run.left_out:
        return {}
    n_patches = sum(len(train) for train, _ in run.splits) / len(run.splits)
    found = [(one.name, one.head, cv.patches_per_patient, one.scores["roc_auc"].value, n_patches) for one in models]
    for most in {cv.patches_per_patient // share for share in (2, 4)} - {0}:
        with suppress(ValueError):  # too few patches of a class, or of its patients, to fit a head on
            fewer = LimitedTraining(cv.cv, most, random_state=cv.random_state)
            splits = fold_rows(fewer, run.y, run.patients, "evaluate.cv")
            some = replace(run, splits=splits, inner=make_inner_folds(inner_cv, splits, run.dataset))
            for fit in fit_all(plans, bank, some):
                scored = score_model(run.dataset, [test for _, test in splits], fit.proba, fit.tuned, n_resamples=0)
                point = fit.plan.name, fit.plan.head_name, most, scored["scores"]["roc_auc"].value
                found.append((*point, sum(len(train) for train, _ in splits) / len(splits)))
    names = ("name", "head", "patches_per_patient", "roc_auc", "n_patches")
    curve = [dict(zip(names, point, strict=True)) for point in sorted(found)]
    return {"training_curve": curve}


def _decide(task, record, y, inner, proba):
    """Choose the threshold and fit the calibration on out-of-fold scores of training rows."""
    y, inner, proba = (_positive_last(values, task.positive) for values in (y, inner, proba))
    scored = np.isfinite(inner).all(axis=1)
    if len(np.unique(y[scored])) < 2:
        record["threshold"], calibrated = 0.5, proba
        record["notes"] = (*record["notes"], NOT_TUNED)
    else:
        record["threshold"] = choose_threshold(y[scored], inner[scored, 1], task.threshold)
        calibrated = fit_calibrator(y[scored], inner[scored]).transform(proba)
    labels = (proba[:, 1] >= record["threshold"]).astype(np.int64)
    return [_positive_last(values, task.positive) for values in (calibrated, labels)]


def _positive_last(values, positive):
    """Codes or columns of two classes with the positive one last; doing it twice undoes it."""
    return values if positive else values[:, ::-1] if values.ndim > 1 else 1 - values
