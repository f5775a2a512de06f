"""Train a model that can be saved: make a pipeline by name, estimate its scores, fit it on all data."""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from histofeat.datasets import PatchDataset, patch_size_of
from histofeat.evaluation._evaluation import evaluate
from histofeat.evaluation._fitting import other_scales
from histofeat.evaluation._folds import AuditPolicy
from histofeat.evaluation._results import Evaluation
from histofeat.exceptions import check_name, check_type, check_whole, counted, known_names
from histofeat.features import ImageFingerprint, Runtime, extract, leave_out_unreadable, scratch_store
from histofeat.metrics import choose_threshold, parse_rule, patient_scores, plain_values, recognition_rates
from histofeat.model_selection import PatientKFold
from histofeat.models import HEADS, GuardRails, IDCPipeline, SavedModel

#: Scores of an estimate beside those of `METRICS`, see `recognition_rates`.
RECOGNITION = ("image_rate", "patient_rate")
#: How tissue may be stained: haematoxylin and eosin, immunohistochemistry, or a special stain such as PAS.
STAINS = ("H&E", "IHC", "special")
_DEFAULT_FEATURES = ("color", "lbp", "haralick")


def make_pipeline(
    features: Sequence[str] | None = None,
    head: str = "xgboost",
    *,
    network: Mapping[str, Any] | None = None,
    **settings: Any,
) -> IDCPipeline:
    """Build a pipeline from names, as a person types them.

    Parameters
    ----------
    features : sequence of str, optional
        Names of families, or "pixels"; by default color, lbp and haralick, and pixels for the name of a network.
    head : str, default="xgboost"
        Name of a head, or of a network's architecture.
    network : mapping, optional
        Parameters of a network, such as ``{"epochs": 3, "weights": "imagenet"}``; None among them is the default.
    **settings
        Of `IDCPipeline`: ``class_weight`` ("balanced"), ``normalizer``, ``n_jobs``, ``random_state``, and
        ``feature_params`` of the family "cnn", such as ``{"cnn__encoder": "resnet50"}``.

    Returns
    -------
    pipeline : IDCPipeline
        Unfitted, its names and parameters checked.

    Raises
    ------
    ValueError
        If a name is unknown, or something is given for a network or an encoder where there is none.

    Examples
    --------
    >>> make_pipeline(["color"], "svm").features
    ('color',)
    """
    if features is None:
        features = _DEFAULT_FEATURES if head in HEADS else ("pixels",)
    features = "pixels" if tuple(features) == ("pixels",) else tuple(features)
    network = {name: value for name, value in (network or {}).items() if value is not None}
    surplus = {} if features == "pixels" else dict(network)
    surplus |= {} if "cnn" in features else settings.get("feature_params") or {}
    if surplus:
        name, value = next(iter(surplus.items()))
        on = features if features == "pixels" else ", ".join(features)
        raise ValueError(
            f"{name.removeprefix('cnn__')}: expected none for the head {head!r} on {on}, got {value!r}. Leave it out, "
            "or name a network such as cancernet, or the family cnn."
        )
    if settings.get("class_weight") is not None:
        check_name("class_weight", settings["class_weight"], ("balanced",))
    if features == "pixels":
        from histofeat.networks import ARCHITECTURES

        if head not in ARCHITECTURES:
            known = (*ARCHITECTURES,) if head in HEADS else (*HEADS, *ARCHITECTURES)
            what = "a network for features 'pixels'" if head in HEADS else "a head or a network"
            raise ValueError(f"head: expected {what}, got {head!r}. {known_names(head, known)}")
    pipeline = IDCPipeline(features=features, head=head, head_params=network or None, **settings)
    pipeline.get_params(deep=True)  # builds every part, which refuses unknown names
    return pipeline


def train_model(
    dataset: PatchDataset,
    pipeline: IDCPipeline,
    *,
    folds: int | None = 5,
    threshold: str | None = None,
    known_patients: str = "refuse",
    stain: str = "H&E",
    n_resamples: int = 1000,
    random_state: int = 0,
    on_evaluation: Callable[[Evaluation], Any] | None = None,
    runtime: Runtime | None = None,
) -> SavedModel:
    """Fit a pipeline on a data set, and estimate its scores on new patients.

    Parameters
    ----------
    dataset : PatchDataset
        What it learns from: all of it.
    pipeline : IDCPipeline
        Unfitted; it is cloned.
    folds : int or None, default=5
        Folds of the estimate, fewer where a class has fewer patients; None makes none.
    threshold : str, optional
        Rule of `histofeat.metrics.choose_threshold`, such as "youden": from which probability on an image is labelled
        positive, chosen on the out-of-fold predictions of the estimate. Two classes only; by default the most probable
        class is the label. The estimate then has "scores_at_threshold" too, of labels by the threshold of each fold.
        Where each patient has one label, a threshold of the mean over a patient's images is chosen
        too.
    known_patients : {"refuse", "leave_out"}, default="refuse"
        What the estimate does with patients that an encoder was trained on, see `AuditPolicy`.
    stain : {"H&E", "IHC", "special"}, default="H&E"
        How the tissue is stained, for the model's card.
    n_resamples : int, default=1000
        Resamples of the patients behind its intervals.
    random_state : int, default=0
        Seed of the folds and resamples.
    on_evaluation : callable, optional
        Called with the `Evaluation` behind the estimate before the last fit, such as for a report.
    runtime : Runtime, optional
        Feature store (by default a temporary one, so that the estimate and the fit measure each image once) and
        progress: the stages of `evaluate`, then "final fit". Threads are those of the pipeline.

    Returns
    -------
    model : SavedModel
        Fitted, with ``class_names``, ``positive``, ``patch_size``, ``mpp``, ``stain``, ``dataset``, ``n_patients``,
        ``n_images``, ``class_counts``, ``random_state``, ``estimate`` and more in ``about``, and its images in
        ``pipeline.rails_``.

    Raises
    ------
    ValueError
        If the data cannot be used: `IDCPipeline.fit` and `evaluate` say why; if a threshold cannot be chosen.

    Warns
    -----
    UserWarning
        If an encoder sees the patches at a scale that differs by more than a quarter from that of its training.

    Examples
    --------
    >>> from histofeat import make_cohort
    >>> cohort = make_cohort(n_patients=4, patches_per_patient=6)
    >>> train_model(cohort, IDCPipeline(features="color", head="logistic"), folds=None).about["n_patients"]
    4
    """
    check_type("train_model.pipeline", pipeline, IDCPipeline, "an IDCPipeline", "Pass IDCPipeline().")
    if folds is not None:
        check_whole("train_model.folds", folds, 2, "Use 5, or None for no estimate.")
    check_name("train_model.stain", stain, STAINS)
    _check_threshold(threshold, dataset, folds)
    for words in other_scales(pipeline.families(), dataset):
        warnings.warn(words, stacklevel=2)
    dataset, _, runtime = leave_out_unreadable(dataset, None, runtime)
    with nullcontext() if pipeline.takes_pixels else scratch_store(runtime.store) as kept:
        estimate = decided = None
        if folds is not None:
            settings = {"n_resamples": n_resamples, "random_state": random_state, "known_patients": known_patients}
            settings |= {"threshold": threshold, "runtime": replace(runtime, store=kept)}
            found = _evaluated(dataset, pipeline, folds, **settings)
            estimate = found if isinstance(found, dict) else _estimate_of(found, folds, threshold)
            decided = _choose(found, threshold)
            if on_evaluation is not None and not isinstance(found, dict):
                on_evaluation(found)
        runtime.report("final fit", 0, 1)
        fitted = clone(pipeline).set_params(store=kept)
        fitted.fit(dataset.X, dataset.y, groups=dataset.patients)
        fitted.rails_ = _rails(fitted, dataset, kept)
        fitted.store = None
        if fitted.features_ is not None:
            fitted.features_.store = None
    runtime.report("final fit", 1, 1)
    about = _describe(dataset, pipeline, fitted) | {"stain": stain, "estimate": estimate, "threshold": decided}
    return SavedModel(fitted, about)


def _describe(dataset, pipeline, fitted):
    powers = dataset.frame.get("magnification")
    names = [dataset.target_names[code] for code in fitted.classes_]
    counts = Counter(dataset.y.tolist())
    return {
        "class_names": names,
        "positive": dataset.positive,
        "patch_size": patch_size_of(dataset),
        "magnification": None if powers is None else sorted({int(power) for power in powers.dropna()}),
        "mpp": dataset.mpp,
        "dataset": dataset.name,
        "synthetic": dataset.synthetic,
        "completeness": dataset.audit and dataset.audit.full_set and dataset.audit.completeness,
        "random_state": pipeline.random_state,
        "n_patients": len(set(dataset.patients)),
        "n_images": len(dataset),
        "class_counts": {name: counts[int(code)] for name, code in zip(names, fitted.classes_, strict=True)},
        "features": "pixels" if pipeline.takes_pixels else [family.family for family in fitted.features_.families],
        "head": pipeline.head if isinstance(pipeline.head, str) else type(pipeline.head).__name__,
        "notes": list(fitted.head_.notes_),
        "patients": None if dataset.patient_rule is None else dataset.patient_rule.to_dict(),
    }


def _rails(fitted, dataset, store):
    prints = extract([ImageFingerprint()], dataset.X, n_jobs=fitted.n_jobs, store=store).features[0]
    of_patients = {"groups": dataset.patients}
    features = None if fitted.takes_pixels else np.asarray(fitted.transform(dataset.X, **of_patients))
    return GuardRails().fit(prints, dataset.patients, features)


def _check_threshold(rule, dataset, folds):
    if rule is not None and parse_rule(rule) and (folds is None or len(dataset.target_names) != 2):
        got = "no estimate" if folds is None else f"{len(dataset.target_names)} classes"
        raise ValueError(
            f"threshold: expected an estimate of two classes, on whose predictions it is chosen, got {got}. Leave the "
            "threshold out, or make an estimate."
        )


def _choose(found, rule):
    """Choose thresholds of images and patients on out-of-fold predictions, as `SavedModel.decision` describes them."""
    if rule is None:
        return None
    if isinstance(found, dict):
        raise ValueError(f"threshold: expected an estimate to choose it on, got none. {found['protocol']}")
    rows, positive = found.tested, found.labels.index(found.dataset.positive)
    y, patients = (found.dataset.y[rows] == positive).astype(int), found.dataset.patients[rows]
    proba = found.models[0].proba[rows][:, [1 - positive, positive]]
    decided = {"rule": str(parse_rule(rule)), "value": choose_threshold(y, proba[:, 1], rule), "patient": None}
    if (pd.crosstab(patients, y) > 0).sum(axis=1).max() == 1:
        of_patients = patient_scores(y, proba, patients)
        decided["patient"] = {"score": "mean", "value": choose_threshold(of_patients.y, of_patients.score, rule)}
    return decided


def _evaluated(dataset, pipeline, folds, *, threshold, known_patients, runtime, **settings):
    """Evaluate a pipeline; give an estimate without scores where there are too few patients, or it cannot run."""
    y, patients = dataset.y, dataset.patients
    fewest, rarest = min((len(set(patients[y == code])), code) for code in np.unique(y))
    # The inner folds choose thresholds: they need two patients of each class among those of the training side.
    n_folds = min(folds, fewest)
    n_inner = min(3, fewest - math.ceil(fewest / n_folds))
    if n_folds < 2 or n_inner < 2:
        return _no_estimate(f"{dataset.target_names[rarest]!r} has too few patients to hold some out: {fewest}.")
    evaluation = evaluate(
        dataset,
        pipeline,
        PatientKFold(n_folds, random_state=settings["random_state"]),
        inner_cv=PatientKFold(n_inner, random_state=settings["random_state"]),
        threshold=threshold or "f1",
        **settings,
        audit=AuditPolicy(known_patients=known_patients),
        runtime=replace(Runtime.of(runtime), n_jobs=pipeline.n_jobs),
    )
    return evaluation if evaluation.models else _no_estimate(evaluation.not_run[0].reason)


def _estimate_of(evaluation, folds, threshold):
    n_folds, n_resamples = evaluation.protocol["n_splits"], evaluation.protocol["n_resamples"]
    fewer = f" (not {folds}: a class has only {counted(n_folds, 'patient')})" * (n_folds < folds)
    protocol = (
        f"{n_folds} folds of patients{fewer}: each image is scored by a fit on other patients. Intervals are of "
        f"{n_resamples:,} resamples of the patients."
    )
    protocol = " ".join(filter(None, (protocol, evaluation.protocol["registered"], evaluation.caution)))
    found = evaluation.models[0]
    scores = _plain(found.scores)
    (y, patients, resampling), predicted = evaluation._known, found.predicted[evaluation.tested]
    rates = recognition_rates(y, predicted, patients, **resampling)
    scores |= {name: {"value": getattr(rates, name), "ci95": rates.interval(name)} for name in RECOGNITION}
    estimate = {"protocol": protocol, "n_folds": n_folds, "scores": scores}
    if threshold is not None:
        estimate["protocol"] += (
            f" In each fold the threshold of {threshold} is chosen on its training patients; that of the model, on "
            "all of these predictions."
        )
        estimate["scores_at_threshold"] = _plain(found.tuned)
    return plain_values(estimate)


def _plain(scores):
    return {metric: {"value": score.value, "ci95": score.ci95} for metric, score in scores.items()}


def _no_estimate(reason):
    return {"protocol": f"No estimate: {reason}", "n_folds": 0, "scores": {}}
