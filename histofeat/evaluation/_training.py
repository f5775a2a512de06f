"""Train a model that can be saved: make a pipeline by name, estimate its scores, fit it on all data."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import clone

from histofeat.datasets import PatchDataset, patch_size_of
from histofeat.evaluation._evaluation import evaluate
from histofeat.exceptions import check_name, check_type, check_whole, known_names
from histofeat.features import Runtime, leave_out_unreadable, scratch_store
from histofeat.model_selection import PatientKFold
from histofeat.models import HEADS, IDCPipeline, SavedModel

_DEFAULT_FEATURES = ("color", "lbp", "haralick")


def make_pipeline(
    features: Sequence[str] | None = None,
    head: str = "xgboost",
    *,
    epochs: int | None = None,
    class_weight: str | None = None,
    normalizer: str | None = None,
    n_jobs: int | None = None,
    random_state: int = 0,
    progress: Callable | None = None,
) -> IDCPipeline:
    """Build a pipeline from names, as a person types them.

    Parameters
    ----------
    features : sequence of str, optional
        Names of families, or "pixels"; by default color, lbp and haralick, and pixels for the name of a network.
    head : str, default="xgboost"
        Name of a head, or of a network's architecture.
    epochs : int, optional
        Of a network.
    class_weight : {"balanced"}, optional
        Weights of the classes.
    normalizer : {"reinhard", "macenko"}, optional
        Stain normaliser.
    n_jobs : int, optional
        Threads; None is 1, -1 all cores.
    random_state : int, default=0
        Seed.
    progress : callable, optional
        For a network: called as ``progress(done, total, values)`` after each epoch, see `CNNClassifier`.

    Returns
    -------
    pipeline : IDCPipeline
        Unfitted, its names and parameters checked.

    Raises
    ------
    ValueError
        If a name is unknown, or epochs are given for a head without.

    Examples
    --------
    >>> make_pipeline(["color"], "svm").features
    ('color',)
    """
    if features is None:
        features = _DEFAULT_FEATURES if head in HEADS else ("pixels",)
    features = "pixels" if tuple(features) == ("pixels",) else tuple(features)
    if epochs is not None and features != "pixels":
        raise ValueError(
            f"epochs: expected none for the head {head!r}, got {epochs!r}. Leave it out, or name a "
            "network such as cancernet."
        )
    if class_weight is not None:
        check_name("class_weight", class_weight, ("balanced",))
    head_params: Mapping = {}
    if features == "pixels":
        from histofeat.networks import ARCHITECTURES

        if head not in ARCHITECTURES:
            known = [*HEADS, *ARCHITECTURES]
            raise ValueError(
                f"head: expected a network for features 'pixels', got {head!r}. {known_names(head, known)}"
            )
        head_params = {name: value for name, value in (("epochs", epochs), ("progress", progress)) if value is not None}
    pipeline = IDCPipeline(
        features=features,
        head=head,
        head_params=dict(head_params) or None,
        class_weight=class_weight,
        normalizer=normalizer,
        n_jobs=n_jobs,
        random_state=random_state,
    )
    pipeline.get_params(deep=True)  # builds every part, which refuses unknown names
    return pipeline


def train_model(
    dataset: PatchDataset,
    pipeline: IDCPipeline,
    *,
    folds: int | None = 5,
    n_resamples: int = 1000,
    random_state: int = 0,
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
        Folds of the estimate, see `estimate_scores`; None makes none.
    n_resamples : int, default=1000
        Resamples of the patients behind its intervals.
    random_state : int, default=0
        Seed of the folds and resamples.
    runtime : Runtime, optional
        Feature store (by default a temporary one, so that the estimate and the fit measure each image once) and
        progress: the stages of `evaluate`, then "final fit". Threads are those of the pipeline.

    Returns
    -------
    model : SavedModel
        Fitted, with ``class_names``, ``positive``, ``patch_size``, ``dataset``, ``n_patients``, ``n_images``,
        ``class_counts`` and ``estimate`` in ``about``.

    Raises
    ------
    ValueError
        If the data cannot be used: `IDCPipeline.fit` and `evaluate` say why.

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
    dataset, _, runtime = leave_out_unreadable(dataset, None, runtime)
    with nullcontext() if pipeline.takes_pixels else scratch_store(runtime.store) as kept:
        estimate = None
        if folds is not None:
            settings = {"n_resamples": n_resamples, "random_state": random_state}
            estimate = estimate_scores(dataset, pipeline, folds, runtime=replace(runtime, store=kept), **settings)
        runtime.report("final fit", 0, 1)
        fitted = clone(pipeline).set_params(store=kept)
        fitted.fit(dataset.X, dataset.y, groups=dataset.patients)
        fitted.store = None
        if fitted.features_ is not None:
            fitted.features_.store = None
    runtime.report("final fit", 1, 1)
    names = [dataset.target_names[code] for code in fitted.classes_]
    counts = Counter(dataset.y.tolist())
    about = {
        "class_names": names,
        "positive": dataset.positive,
        "patch_size": patch_size_of(dataset),
        "dataset": dataset.name,
        "synthetic": dataset.synthetic,
        "n_patients": len(set(dataset.patients)),
        "n_images": len(dataset),
        "class_counts": {name: counts[int(code)] for name, code in zip(names, fitted.classes_, strict=True)},
        "features": "pixels" if pipeline.takes_pixels else [family.family for family in fitted.features_.families],
        "head": pipeline.head if isinstance(pipeline.head, str) else type(pipeline.head).__name__,
        "notes": list(fitted.head_.notes_),
        "estimate": estimate,
        "patients": None if dataset.patient_rule is None else dataset.patient_rule.to_dict(),
    }
    return SavedModel(fitted, about)


def estimate_scores(
    dataset: PatchDataset,
    pipeline: IDCPipeline,
    folds: int = 5,
    *,
    n_resamples: int = 1000,
    random_state: int = 0,
    runtime: Runtime | None = None,
) -> dict[str, Any]:
    """Estimate the scores of a pipeline on new patients, as plain numbers.

    Parameters
    ----------
    dataset : PatchDataset
        The data.
    pipeline : IDCPipeline
        Unfitted.
    folds : int, default=5
        Folds of patients; fewer where a class has fewer patients.
    n_resamples, random_state, runtime
        As for `histofeat.evaluate`; threads are those of the pipeline.

    Returns
    -------
    estimate : dict
        ``protocol`` (a sentence), ``n_folds``, and ``scores``: metric to ``value`` and ``ci95`` (95 % interval over
        patients), None where undefined. Without scores, ``protocol`` says why.

    Raises
    ------
    ValueError
        If `evaluate` refuses the data, such as the same image under two patients.

    Examples
    --------
    >>> from histofeat import make_cohort
    >>> cohort = make_cohort(n_patients=6, patches_per_patient=8)
    >>> found = estimate_scores(cohort, IDCPipeline(features="color", head="logistic"), 2, n_resamples=20)
    >>> found["n_folds"], found["scores"]["roc_auc"]["value"] > 0.5
    (2, True)
    """
    y, patients = dataset.y, dataset.patients
    fewest, rarest = min((len(set(patients[y == code])), code) for code in np.unique(y))
    # The inner folds choose thresholds: they need two patients of each class among those of the training side.
    n_folds = min(folds, fewest)
    n_inner = min(3, fewest - math.ceil(fewest / n_folds))
    if n_folds < 2 or n_inner < 2:
        return _no_estimate(f"{dataset.target_names[rarest]!r} has {fewest} patients, too few to hold some out.")
    evaluation = evaluate(
        dataset,
        pipeline,
        PatientKFold(n_folds, random_state=random_state),
        inner_cv=PatientKFold(n_inner, random_state=random_state),
        n_resamples=n_resamples,
        random_state=random_state,
        runtime=replace(Runtime.of(runtime), n_jobs=pipeline.n_jobs),
    )
    protocol = (
        f"{n_folds} folds of patients: each image is scored by a fit on other patients. Intervals are of "
        f"{n_resamples:,} resamples of the patients."
    )
    protocol = " ".join(filter(None, (protocol, evaluation.protocol["registered"], evaluation.caution)))
    found = {metric: score.to_dict() for metric, score in evaluation.models[0].scores.items()}
    scores = {metric: {"value": score["value"], "ci95": score["ci95"]} for metric, score in found.items()}
    return {"protocol": protocol, "n_folds": n_folds, "scores": scores}


def _no_estimate(reason):
    return {"protocol": f"No estimate: {reason}", "n_folds": 0, "scores": {}}
