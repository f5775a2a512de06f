"""Pipelines under one protocol: features once per image, heads once per fold, every score with its interval."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import joblib
import numpy as np

from histofeat.bootstrap import patient_weights
from histofeat.features.extraction import check_unique_names, extract
from histofeat.fitting import CANNOT_RUN, fit_all
from histofeat.folds import check_folds, fold_of_rows, make_inner_folds
from histofeat.heads import FeatureHead
from histofeat.metrics import LABEL_METRICS, confusion, most_probable
from histofeat.model_selection import PatientKFold
from histofeat.results import Evaluation, ModelResult, NotRun
from histofeat.scoring import score_folds
from histofeat.store import as_store

__all__ = ["evaluate"]


def evaluate(
    dataset,
    pipelines,
    cv=None,
    *,
    inner_cv=None,
    n_resamples=2000,
    random_state=0,
    n_jobs=None,
    store=None,
    progress=None,
    allow_patient_leakage=False,
):
    """Evaluate pipelines on patients that they have not learnt from.

    Features are measured once per image for all pipelines together, each family once however many pipelines
    name it. A head is fitted on the training patients of each fold and scores the test patients; its decision
    threshold is chosen inside the training patients.

    Parameters
    ----------
    dataset : PatchDataset
        The patches, their labels and their patients.
    pipelines : IDCPipeline, mapping of str to IDCPipeline, or sequence of (str, IDCPipeline)
        What to compare. Several entries may share a name and differ in the head.
    cv : splitter or iterable of (train, test), optional
        The folds; by default ``PatientKFold(5)``. Pairs are rows or masks, and no row may be tested twice;
        rows that are never tested have fold -1 and probabilities NaN.
    inner_cv : splitter, optional
        The folds inside the training patients of each fold; by default ``PatientKFold(3)``.
    n_resamples : int, default=2000
        Resamples of the patients behind each interval; 0 for no intervals.
    random_state : int, default=0
        Seed of the resamples, which all models share.
    n_jobs : int, optional
        Threads for extraction, for fits (several folds at a time) and for intervals; None is 1, -1 all cores. Results
        do not depend on it.
    store : path or FeatureStore, optional
        Where features are kept between evaluations, so that no image is measured twice; None keeps nothing.
    progress : callable, optional
        Called as ``progress(stage, done, total)`` with stage "extract" (images), "fit" (folds of all models)
        and "score" (models).
    allow_patient_leakage : bool, default=False
        Accept folds that share patients, such as those of `PatchKFold`, to show what they pretend. The result
        then says ``patient_overlap=True``.

    Returns
    -------
    evaluation : Evaluation
        Pipelines whose weights or packages are missing are in ``not_run`` with the reason; the rest went on.

    Raises
    ------
    GroupLeakageError
        If a patient is on both sides of a fold, or patients are not known.
    ValueError
        If an argument is not what it should be, or a fold would lose a class.

    Notes
    -----
    The plain label is the most probable class. The tuned one (two classes) is positive from the threshold of
    highest F1 over the inner out-of-fold predictions of the fold's training patients. Pooled scores rank the
    test patches of different folds, and so of different fits, in one list.

    Examples
    --------
    >>> from histofeat import IDCPipeline
    >>> from histofeat.datasets import make_cohort
    >>> from histofeat.model_selection import PatientKFold
    >>> cohort = make_cohort(n_patients=8, patches_per_patient=8)
    >>> pipelines = {"color": IDCPipeline(features="color", head="logistic")}
    >>> evaluation = evaluate(cohort, pipelines, PatientKFold(2), inner_cv=PatientKFold(2), n_resamples=50)
    >>> evaluation.models[0].scores["roc_auc"].pooled > 0.5
    True
    """
    cv = PatientKFold(5) if cv is None else cv
    inner_cv = PatientKFold(3) if inner_cv is None else inner_cv
    # Everything that can be refused is refused before the long work begins.
    splits, overlap = check_folds(cv, dataset, allow_patient_leakage=allow_patient_leakage)
    inner = make_inner_folds(inner_cv, splits, dataset, allow_patient_leakage=allow_patient_leakage)
    patient_weights(dataset.patients, n_resamples, random_state)
    run = _Run(dataset, splits, inner, n_jobs, as_store(store), progress)
    plans = _make_plans(pipelines, run)
    bank = _extract(plans, run)
    with run.timed("fit"):
        fits = fit_all(plans, bank, run)
    models = _score_all(fits, run, n_resamples, random_state)
    return Evaluation(
        dataset=dataset,
        splits=splits,
        fold=fold_of_rows(splits, len(dataset)),
        models=models,
        not_run=tuple(NotRun(plan.name, plan.head_name, plan.reason) for plan in plans if plan.reason is not None),
        protocol={
            "cv": repr(cv) if hasattr(cv, "split") else "predefined splits",
            "n_splits": len(splits),
            "inner_cv": repr(inner_cv),
            "n_resamples": int(n_resamples),
            "random_state": random_state,
            "patient_level": not overlap,
        },
        seconds=dict(run.seconds),
        patient_overlap=overlap,
        conversions=dict(run.conversions),
        computed=dict(run.computed),
    )


@dataclass
class _Run:
    """One evaluation under way: what every stage needs, and what it adds up."""

    dataset: Any
    splits: tuple
    inner: tuple
    n_jobs: int | None
    store: Any
    progress: Any
    seconds: Counter = field(default_factory=Counter)
    conversions: Counter = field(default_factory=Counter)
    computed: Counter = field(default_factory=Counter)

    def __post_init__(self):
        self.y, self.patients = self.dataset.y, self.dataset.patients

    @contextmanager
    def timed(self, stage):
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def tell(self, stage, done, total):
        if self.progress is not None:
            self.progress(stage, done, total)


# --- the features ----------------------------------------------------------------------------------------------------


@dataclass
class _Plan:
    """A pipeline taken apart: its families, its head, and why it cannot run, if so."""

    name: str
    head_name: str
    families: tuple = ()
    head: Any = None
    reason: str | None = None

    @property
    def keys(self):
        return [_key(family) for family in self.families]


def _key(family):
    """Identify families of the same class and parameters, which give the same numbers."""
    return joblib.hash((type(family).__module__, type(family).__qualname__, family.get_params()))


def _make_plans(pipelines, run):
    """Take every pipeline apart, and try each family on one patch to learn early what cannot run."""
    plans, tried = [], {}
    for name, head_name, pipeline in _named(pipelines):
        plan = _Plan(name, head_name)
        plans.append(plan)
        try:
            plan.families, plan.head = pipeline.families(), pipeline.make_head()
            for key, family in zip(plan.keys, plan.families, strict=True):
                with run.timed("extraction"):
                    tried[key] = tried[key] if key in tried else _try(family, run)
                if tried[key] is not None:
                    raise tried[key]
            check_unique_names([family.get_feature_names_out() for family in plan.families])
        except CANNOT_RUN as error:
            plan.reason = str(error)
    return plans


def _named(pipelines):
    """Give (name, head, pipeline) for every entry, no two with the same name and head."""
    if hasattr(pipelines, "make_head"):
        pipelines = {"pipeline": pipelines}
    entries = pipelines.items() if isinstance(pipelines, Mapping) else pipelines
    named = {}
    for entry in entries if isinstance(entries, Iterable) else [entries]:
        if not isinstance(entry, tuple) or len(entry) != 2 or not hasattr(entry[1], "make_head"):
            raise ValueError(
                f"evaluate.pipelines: expected names with an IDCPipeline each, got {entry!r:.80}. "
                'Pass {"handcrafted": IDCPipeline()}.'
            )
        key = (entry[0], _head_name(entry[1].head))
        if key in named:
            raise ValueError(
                f"evaluate.pipelines: expected each name and head once, got {key[0]!r} with {key[1]!r} again. "
                "Give the second another name."
            )
        named[key] = entry[1]
    if not named:
        raise ValueError("evaluate.pipelines: expected at least one pipeline, got 0. Pass IDCPipeline().")
    return [(*key, pipeline) for key, pipeline in named.items()]


def _head_name(head):
    head = head.classifier if isinstance(head, FeatureHead) else head
    return head if isinstance(head, str) else type(head).__name__


def _try(family, run):
    """Measure one patch, or find it in the store, which spares loading a network that will not be needed."""
    try:
        tried = extract([family], run.dataset.X[:1], store=run.store)
        if run.store is not None:  # without one the patch is measured again with the others, and counted then
            run.computed.update(tried.computed)
    except CANNOT_RUN as error:
        return error
    return None


def _extract(plans, run):
    """Measure the distinct families of all plans that can run: a mapping of key to (n, d) float32."""
    wanted = {}
    for plan in plans:
        if plan.reason is None:
            wanted.update(zip(plan.keys, plan.families, strict=True))
    passes = _passes(wanted)
    bank, total = {}, len(run.dataset) * len(passes)
    for number, keys in enumerate(passes):
        before = number * len(run.dataset)
        with run.timed("extraction"):
            extraction = extract(
                [wanted[key] for key in keys],
                run.dataset.X,
                n_jobs=run.n_jobs,
                store=run.store,
                progress=lambda done, _, before=before: run.tell("extract", before + done, total),
            )
        bank.update(zip(keys, extraction.features, strict=True))
        run.conversions.update(extraction.conversions if number == 0 else {})
        run.computed.update(extraction.computed)
        _add_seconds(run.seconds, extraction.seconds, [wanted[key] for key in keys])
    return bank


def _passes(wanted):
    """Group families into as few passes over the images as their column names allow: nearly always one."""
    passes = []
    for key, family in wanted.items():
        names = set(family.get_feature_names_out())
        for taken, keys in passes:
            if taken.isdisjoint(names):
                taken |= names
                keys.append(key)
                break
        else:
            passes.append((names, [key]))
    return [keys for _, keys in passes]


def _add_seconds(seconds, spent, families):
    stages = {"read": "read", "decode": "decode", "store": "store"} | {
        type(family).__name__: family.family for family in families
    }
    for key, stage in stages.items():
        seconds[f"extraction:{stage}"] += spent.get(key, 0.0)


# --- the scores ------------------------------------------------------------------------------------------------------


def _score_all(fits, run, n_resamples, random_state):
    resampling = {"n_resamples": n_resamples, "random_state": random_state, "n_jobs": run.n_jobs}
    models = []
    for number, fit in enumerate(fits, start=1):
        with run.timed("score"):
            models.append(_model_result(fit, run, resampling))
        run.tell("score", number, len(fits))
    return tuple(models)


def _model_result(fit, run, resampling):
    y, n_classes, tests = run.y, fit.proba.shape[1], [test for _, test in run.splits]
    tested = np.concatenate(tests)
    predicted = np.full(len(y), -1, dtype=np.int64)
    predicted[tested] = most_probable(fit.proba[tested])
    common = (run.patients, tests)
    return ModelResult(
        name=fit.plan.name,
        features=tuple(family.family for family in fit.plan.families),
        head=fit.plan.head_name,
        n_features=fit.n_features,
        proba=fit.proba,
        predicted=predicted,
        predicted_tuned=fit.tuned,
        thresholds=tuple(fit.thresholds) if n_classes == 2 else (),
        scores=score_folds(y, fit.proba, predicted, *common, **resampling),
        tuned=score_folds(y, fit.proba, fit.tuned, *common, metrics=LABEL_METRICS, **resampling),
        confusion=confusion(y[tested], predicted[tested], n_classes),
        confusion_tuned=confusion(y[tested], fit.tuned[tested], n_classes),
        fold_confusions=tuple(confusion(y[test], predicted[test], n_classes) for test in tests),
        fit_s=fit.seconds["fit"],
        predict_s=fit.seconds["predict"],
        notes=tuple(dict.fromkeys(note for notes in fit.notes for note in notes)),
        families=tuple(_spelt_out(family) for family in fit.plan.families),
    )


def _spelt_out(family):
    params = ", ".join(f"{name}={value!r}" for name, value in family.get_params(deep=False).items())
    return f"{type(family).__name__}({params})"
