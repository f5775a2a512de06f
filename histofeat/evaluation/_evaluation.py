"""Evaluate pipelines under one protocol: features once per image, heads once per fold, scores with intervals."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from histofeat.datasets import PatchDataset, dataset_of
from histofeat.evaluation._feature_bank import RETRAINED, FeatureBank, check_retrainable, encoder_rows
from histofeat.evaluation._fitting import fit_all, other_scales, training_curve
from histofeat.evaluation._folds import (
    INNER_CV,
    AuditPolicy,
    check_folds,
    check_rest,
    fold_of_rows,
    leave_out_known,
    look_at,
    make_inner_folds,
    splitters_in_words,
)
from histofeat.evaluation._given_predictions import score_model, tested_share
from histofeat.evaluation._plans import Run, make_plans, say_not_run
from histofeat.evaluation._results import Evaluation, ModelResult, NotRun
from histofeat.evaluation._search import Search
from histofeat.evaluation.audit._audit import audit_fingerprints, cheap_findings
from histofeat.evaluation.audit._findings import check_audit
from histofeat.exceptions import check_name, check_that
from histofeat.features import Runtime, leave_out_unreadable
from histofeat.metrics import METRIC_RECORDS, ComparisonPlan, method_interval, parse_rule, patient_weights, read_plan
from histofeat.model_selection import PatientKFold, RepeatedPatientKFold, check_class_weight
from histofeat.models import check_inner_patients

#: The note of a model whose thresholds do not know an encoder's training patients, before the number of encoders.
CROSS_FITTED = "Each inner fit, which chooses threshold and calibration, had an encoder without the patients it scores"
#: From which distance a score within folds and one in a single list are told apart in words.
_APART = 0.01


def evaluate(
    dataset: PatchDataset | tuple[Any, ...],
    pipelines: Any,
    cv: Any = None,
    *,
    inner_cv: Any = None,
    n_resamples: int = 2000,
    random_state: int = 0,
    threshold: str = "f1",
    search: Search | Mapping[str, Any] | None = None,
    audit: AuditPolicy | None = None,
    retrain_encoder: bool | str = False,
    plan: str | os.PathLike[str] | ComparisonPlan | None = None,
    runtime: Runtime | None = None,
) -> Evaluation:
    """Evaluate pipelines on held-out patients.

    Features are measured once per image for all pipelines together, each family once however many pipelines
    name it. A head is fitted on the training patients of each fold and scores the test patients; its decision
    threshold is chosen inside the training patients.

    Parameters
    ----------
    dataset : PatchDataset or tuple of (X, y, groups)
        The patches, their labels and their patients; see `histofeat.datasets.dataset_of` for arrays.
    pipelines : IDCPipeline or classifier, mapping of str to these, or sequence of these or of (str, these)
        What to compare. Several entries may share a name and differ in the head. A classifier of scikit-learn, such as
        a `sklearn.pipeline.Pipeline`, gets the columns of the data set (a DataFrame), or else what its ``X`` holds:
        paths, or images in memory.
    cv : splitter or iterable of (train, test), optional
        The folds; by default ``PatientKFold(5)``. Pairs are rows or masks, and no row may be tested twice;
        rows that are never tested have fold -1 and probabilities NaN. A `RepeatedPatientKFold` adds the folds of
        further repeats to the intervals of the method; all else is of the first repeat. Give a store with it.
    inner_cv : splitter, optional
        The folds inside the training patients of each fold; by default ``PatientKFold(3)``, with at most 300 training
        patches of each patient (`histofeat.model_selection.LimitedTraining`). They choose threshold and calibration.
    n_resamples : int, default=2000
        Resamples of the patients behind each interval; 0 for no intervals.
    random_state : int, default=0
        Seed of the resamples, which all models share.
    threshold : str, default="f1"
        What the tuned threshold is chosen for among training patients: a rule of
        `histofeat.metrics.choose_threshold`, such as "youden" or "sensitivity=0.95".
    search : Search or mapping, optional
        Parameters of the heads to choose from, inside the training patients of each fold; see
        `histofeat.evaluation.Search`. The same budget for every feature set; the choices are in the result.
    audit : AuditPolicy, optional
        Which errors of the audit to accept, and what to do with patients in the training set of an encoder; by default
        both are refused.
    retrain_encoder : bool or "inner", default=False
        Whether to train encoders again in each fold, on its training patients (after stain normalisation, if any), and
        for each inner fit, without the patients that it scores: with the default folds 20 times. This concerns families
        that can be retrained, such as "histo". The audit then ignores their first training. "inner" trains them for the
        inner fits alone, for encoders that know training patients and no tested one.
    plan : path or ComparisonPlan, optional
        Differences that were planned before any score, see `histofeat.metrics.write_plan`: `Evaluation.planned`.
    runtime : Runtime, optional
        Threads (extraction, fits, intervals), feature store, progress, the ledger of looks at registered test
        patients, and what is done about images that cannot be read (``on_error``). Stages of the progress: "read"
        (images, with ``on_error="skip"``), "extract" (images), "retrain" (encoders, over all folds), "fit" (folds of
        all models) and "score" (models).

    Returns
    -------
    evaluation : Evaluation
        Pipelines whose weights or packages are missing, or that need pixels where there are columns, are in
        ``not_run`` with the reason; the rest went on. Its
        ``calibration``, ``classes``, ``bands`` and ``comparison`` are computed on first use, with `n_jobs` threads.

    Raises
    ------
    GroupLeakageError
        If a patient or an image is on both sides of a fold, an encoder knows a tested patient, or patients are not
        known.
    ValueError
        If an argument is invalid, the audit finds an error, a fold would lose a class, an inner fit has
        too few patients to calibrate a head on, every tested patient is known to an encoder, no family can be
        trained again although this is asked for, a model of the plan is not among the pipelines, or none of them can
        run here.

    Warns
    -----
    UserWarning
        For each pipeline that could not run, with the reason.

    Notes
    -----
    The plain label is the most probable class. The tuned one (two classes) is positive from the threshold that is
    best over the inner out-of-fold predictions of the fold's training patients; on the same predictions the
    calibrated probabilities are fitted. A network on pixels is fitted once a fold; its threshold and its calibration
    use the training patients that it held out for early stopping. ROC-AUC and average precision compare patches of
    one fold only, since the scores of different fits need not be on one scale.

    A classifier that has no probabilities, such as an SVC, gets some from its decision values by a logistic regression
    on held-out training patients. This keeps the ranks of a fold; labels may differ from those of its ``predict``.

    Before anything is fitted, `histofeat.evaluation.audit_split` looks at the folds; its findings are in the result.
    So is a sentence on tested patients of a published test list (`histofeat.datasets.REGISTERED_TESTS`); a line for
    each model is appended to ``Runtime(ledger=...)``, if there is one.

    An encoder is matched with patients by the pixels of its training images, and never by their ids. Where it knows
    training patients (those of other folds with ``AuditPolicy(known_patients="leave_out")``), heads are fitted,
    thresholds and parameters chosen and probabilities calibrated on features that look better than those of new
    patients: labels and calibrated probabilities may be worse for it, but the tested patients are still new. With
    `retrain_encoder` each inner fit has an encoder of its own, which has not seen the patients that it scores; heads
    are still fitted on patients that the encoder knows, and so is what "vote", "late_vote" and "stacking" hold out
    inside a fit. Features of encoders that were trained again are not kept in the store.

    Examples
    --------
    >>> from histofeat import IDCPipeline
    >>> from histofeat.datasets import make_cohort
    >>> from histofeat.model_selection import PatientKFold
    >>> cohort = make_cohort(n_patients=8, patches_per_patient=8)
    >>> pipelines = {"color": IDCPipeline(features="color", head="logistic")}
    >>> evaluation = evaluate(cohort, pipelines, PatientKFold(2), inner_cv=PatientKFold(2), n_resamples=50)
    >>> evaluation.models[0].scores["roc_auc"].value > 0.5
    True
    """
    dataset = dataset_of(*dataset) if isinstance(dataset, tuple) else dataset
    if isinstance(cv, RepeatedPatientKFold):
        dataset, _, runtime = leave_out_unreadable(dataset, cv, runtime)
        settings = {"inner_cv": inner_cv, "random_state": random_state, "threshold": threshold, "search": search}
        settings |= {"audit": audit, "retrain_encoder": retrain_encoder, "runtime": runtime}
        return _evaluate_repeats(dataset, pipelines, cv, settings | {"n_resamples": n_resamples, "plan": plan})
    cv = PatientKFold(5) if cv is None else cv
    inner_cv = INNER_CV if inner_cv is None else inner_cv
    # Everything that can be refused is refused before images are read.
    policy = AuditPolicy.of(audit)
    splits, overlap = check_folds(cv, dataset, policy)
    dataset.positive_last(dataset.y)
    chosen = {"threshold": parse_rule(threshold), "search": Search.of(search), "retrain": _again(retrain_encoder)}
    dataset, cv, runtime = leave_out_unreadable(dataset, cv if hasattr(cv, "split") else splits, runtime)
    splits, overlap = check_folds(cv, dataset, policy)
    inner = make_inner_folds(inner_cv, splits, dataset, allow_shared_patients="HF001" in policy.accept_findings)
    patient_weights(dataset.patients, n_resamples, random_state)
    run = Run(dataset, splits, runtime, inner, int(random_state), policy=policy, **chosen)
    plans = _plan(pipelines, run)
    said, plan = say_not_run(plans), _read_planned(plan, plans)
    look_at(dataset, splits, run.runtime)  # proves, before the long work, that the ledger can be written
    bank, report = _measure(plans, run)
    with run.timed("fit"):
        fits = fit_all(plans, bank, run)
    say_not_run(plans, said)
    models = _score_all(fits, run, n_resamples, math.nan if overlap else tested_share(run.patients, run.splits))
    looked = {"plan": plan and plan.to_dict(), "registered": _recorded(models, run)}
    curve = training_curve(plans, bank, run, cv, inner_cv, models)
    protocol = {**_protocol(run, cv, inner_cv, n_resamples, overlap), **curve, **looked}
    return _collect(run, plans, models, protocol, report)


def _again(retrain):
    known, words = retrain in (False, True, "inner"), "False, True or 'inner'"
    check_that("evaluate.retrain_encoder", retrain, known, words, "Use True to train encoders again in each fold.")
    return retrain if retrain == "inner" else bool(retrain)


def _collect(run, plans, models, protocol, report):
    return Evaluation(
        dataset=run.dataset,
        splits=run.splits,
        fold=fold_of_rows(run.splits, len(run.dataset)),
        models=models,
        not_run=tuple(NotRun(plan.name, plan.head_name, plan.reason) for plan in plans if plan.reason is not None),
        protocol=protocol,
        seconds=dict(run.seconds),
        patient_overlap=not protocol["patient_level"],
        conversions=dict(run.conversions),
        computed=dict(run.computed),
        audit=report,
        left_out=run.left_out,
        n_jobs=run.runtime.n_jobs,
    )


def _protocol(run, cv, inner_cv, n_resamples, overlap):
    """The settings, the accepted findings, and the patients that were not tested."""
    return {
        "n_splits": len(run.splits),
        **splitters_in_words(cv, inner_cv, run.dataset),
        "n_resamples": int(n_resamples),
        "random_state": run.random_state,
        "patient_level": not overlap,
        "threshold": str(run.threshold),
        "search": None if run.search is None else run.search.to_dict(),
        "accepted_findings": list(run.policy.accept_findings),
        "known_patients": run.policy.known_patients,
        "left_out": None if run.left_out is None else run.left_out.to_dict(),
        "retrain_encoder": run.retrain,
    }


def _read_planned(plan, plans):
    """Return the plan, None without one; refuse one that names a model which is not here."""
    if plan is None:
        return None
    plan = plan if isinstance(plan, ComparisonPlan) else read_plan(plan)
    models = [f"{one.name}/{one.head_name}" for one in plans]
    for model in plan.models:
        check_name("evaluate.plan", model, models, "the models of the plan among the pipelines")
    return plan


def _recorded(models, run):
    """Write down a look at registered test patients; return it in words, None where none were scored."""
    look = look_at(run.dataset, run.splits, run.runtime)
    return look.record(_ledger_row(model, run) for model in models) if look and models else None


def _ledger_row(model, run):
    families = model.families[-len(model.features) :]
    networks = [re.search(r"encoder='([^']+)'.*input_size=(\d+)", family) for family in families]
    words = ["@".join(found.groups()) if found else name for name, found in zip(model.features, networks, strict=True)]
    tuned = {f"{metric}_tuned": model.tuned[metric].value for metric in ("balanced_accuracy", "f1")}
    row = {"pipeline": f"{model.name}/{model.head} ({'+'.join(words)})", "threshold": str(run.threshold), **tuned}
    return {**row, "roc_auc": model.scores["roc_auc"].value}


def _plan(pipelines, run):
    """Make the plans, and refuse everything that can be refused without images."""
    plans = make_plans(pipelines, run)
    if run.search is not None:
        heads = {plan.head_name: plan.head for plan in plans if plan.reason is None and not plan.takes_pixels}
        run.search.check_heads(heads)
    for plan in plans:
        if plan.reason is None:
            where = f"pipeline {plan.name!r}: class_weight"
            check_class_weight(where, plan.head.class_weight, np.unique(run.dataset.y))
            check_inner_patients(plan, run.dataset, run.splits, run.inner)
    runnable = _runnable(plans)
    if run.retrain and runnable:
        check_retrainable(pipeline for _, pipeline in runnable)
    found = cheap_findings(run.dataset, run.splits, pipelines=runnable, retrained=run.retrain is True)
    check_audit(found, run.policy.accept_findings)
    return plans


def _runnable(plans):
    # The training set of an encoder that cannot run does not matter.
    return [(plan.name, plan.pipeline) for plan in plans if plan.reason is None]


def _measure(plans, run):
    """Measure all features, and audit the folds by the images, before any training or fit."""
    bank = FeatureBank(plans, run, fingerprints=True)
    prints, pipelines = bank.prints, _runnable(plans)
    with run.timed("audit"):
        if run.policy.known_patients == "leave_out":
            known = leave_out_known(run.dataset, run.splits, pipelines, prints, retrained=run.retrain is True)
            run.leave_out(*known)
        more = {"pipelines": pipelines, "n_jobs": run.runtime.n_jobs, "retrained": run.retrain is True}
        found = audit_fingerprints(run.dataset, run.splits, prints, **more)
        audit = check_rest(found, run.policy.accept_findings, run.left_out)
    return bank.measure_folds(), audit


def _evaluate_repeats(dataset, pipelines, cv, settings):
    """Evaluate the first repeat; the fold scores of all repeats give the intervals of the method."""
    # All of them are one look.
    later = settings | {"n_resamples": 0, "plan": None, "runtime": replace(settings["runtime"], ledger=None)}
    first, *others = (
        evaluate(dataset, pipelines, repeat, **(later if number else settings))
        for number, repeat in enumerate(cv.repeats())
    )
    ratio = tested_share(dataset.patients, first.splits)

    def over_repeats(model):
        named = (model.name, model.head)
        found = [other for each in (first, *others) for other in each.models if (other.name, other.head) == named]
        widened = {}
        for kind in ("scores", "tuned"):
            repeats = [getattr(each, kind) for each in found]
            widened[kind] = {name: _widen(name, [scores[name] for scores in repeats], ratio) for name in repeats[0]}
        return replace(model, **widened)

    protocol = {**first.protocol, "cv": repr(cv), "n_repeats": cv.n_repeats}
    return replace(first, models=tuple(map(over_repeats, first.models)), protocol=protocol)


def _widen(metric, repeats, ratio):
    """Give the score of the first repeat the interval of the method, from the folds of all, and their deviation."""
    interval = method_interval(metric, repeats[0].value, [value for score in repeats for value in score.folds], ratio)
    deviation = float(np.std([score.value for score in repeats], ddof=1)) if len(repeats) > 1 else math.nan
    return replace(repeats[0], method_ci95=interval, sd_repeats=deviation)


def _score_all(fits, run, n_resamples, ratio):
    resampling = {"n_resamples": n_resamples, "random_state": run.random_state, "n_jobs": run.runtime.n_jobs}
    models = []
    for number, fit in enumerate(fits, start=1):
        with run.timed("score"):
            models.append(_model_result(fit, run, {**resampling, "test_train_ratio": ratio}))
        run.runtime.report("score", number, len(fits))
    return tuple(models)


def _model_result(fit, run, resampling):
    tests = [test for _, test in run.splits]
    scored = score_model(run.dataset, tests, fit.proba, fit.tuned, **resampling)
    return ModelResult(
        name=fit.plan.name,
        features=fit.plan.feature_names,
        head=fit.plan.head_name,
        n_features=fit.n_features,
        thresholds=fit.of_folds("threshold") if fit.proba.shape[1] == 2 else (),
        fit_s=sum(fit.of_folds("fit_s")),
        predict_s=sum(fit.of_folds("predict_s")),
        notes=(
            *_notes(fit, run),
            *other_scales(fit.plan.families, run.dataset),
            *_doubts(fit, tests, scored["scores"]),
        ),
        families=tuple(_written_out(part, fit.plan) for part in fit.plan.measuring),
        calibrated=fit.calibrated,
        choices=fit.of_folds("choice"),
        histories=fit.of_folds("history") if any(fit.of_folds("history")) else (),
        **scored,
    )


def _notes(fit, run):
    of_plan = (RETRAINED,) if fit.plan.retrained else ()
    if again := fit.plan.cross_fitted:
        of_plan += (f"{CROSS_FITTED}: {len(again) * len(encoder_rows(run)):,} encoders were trained in all.",)
    return tuple(dict.fromkeys(note for notes in (of_plan, *fit.of_folds("notes")) for note in notes))


def _doubts(fit, tests, scores):
    """Sentences on folds without a model, and on folds whose scores are on different scales."""
    constant = [
        str(number)
        for number, test in enumerate(tests, start=1)
        if len(test) > 1 and not np.ptp(fit.proba[test], axis=0).any()
    ]
    if constant:
        folds = f"fold{'s' if len(constant) > 1 else ''} {', '.join(constant)}"
        yield f"No model was learnt in {folds}: every tested patch has the same score."
    for name in ("roc_auc", "average_precision"):
        score, words = scores[name], METRIC_RECORDS[name].words
        if abs(score.value - score.pooled) > _APART:
            yield (
                f"{words} within folds is {score.value:.3f}, in one list over all folds {score.pooled:.3f}: the scores "
                "of different fits are not on one scale."
            )


def _written_out(part, plan):
    params = ", ".join(f"{name}={value!r}" for name, value in part.get_params(deep=False).items())
    params = re.sub(r" at 0x\w+", "", params)  # the place of a function in memory
    again = ", trained again in each fold" if any(part is family for family in plan.retrained.values()) else ""
    return f"{type(part).__name__}({params}){again}"
