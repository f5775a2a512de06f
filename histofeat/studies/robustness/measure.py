"""Fitted on patches as they are, scored on perturbed patches of other patients: `measure_robustness`."""

from collections.abc import Mapping
from numbers import Integral

import numpy as np

from histofeat.evaluation import fair_folds
from histofeat.exceptions import known_names
from histofeat.features import Runtime
from histofeat.images import PERTURBATIONS, perturbed_images
from histofeat.metrics import METRICS, Bootstrap, bootstrap_scores, scores
from histofeat.model_selection import PatientKFold, encode_patients
from histofeat.models import check_enough_patients
from histofeat.studies.robustness.lanes import CLEAN, Job, Robustness, RobustnessRow

__all__ = ["all_conditions", "measure_robustness"]


def all_conditions() -> list[tuple[str, int]]:
    """Every perturbation with every severity but 0, as (name, severity).

    Examples
    --------
    >>> [condition for condition in all_conditions() if condition[0] == "turn"]
    [('turn', 1), ('turn', 2), ('turn', 3)]
    """
    return [(name, step) for name, found in PERTURBATIONS.items() for step in found.severities if step != 0]


def measure_robustness(
    dataset,
    pipelines,
    cv=None,
    *,
    conditions=None,
    metrics=("roc_auc", "balanced_accuracy"),
    patches_per_patient=None,
    n_resamples=2000,
    random_state=0,
    audit=None,
    runtime=None,
):
    """Fit pipelines on patches as they are, and score them on perturbed patches of other patients.

    Perturbed patches are read and measured once for all pipelines, each head is fitted once. A pipeline's stain
    normaliser is fitted on the training patients of each fold, and meets the perturbed patches before the families do.

    Parameters
    ----------
    dataset : PatchDataset
        The patches, their labels and their patients.
    pipelines : mapping of str to IDCPipeline
        What to compare.
    cv : splitter or iterable of (train, test), optional
        The folds; by default ``PatientKFold(5)``.
    conditions : sequence of (str, int), optional
        Perturbations and severities; by default `all_conditions`. The patches as they came are always scored.
    metrics : sequence of str, default=("roc_auc", "balanced_accuracy")
        Some of `histofeat.metrics.METRICS`; labels are the most probable class.
    patches_per_patient : int, optional
        At most as many patches of a patient are tested, drawn at random; None tests all.
    n_resamples : int, default=2000
        Resamples of the patients behind each interval.
    random_state : int, default=0
        Seed of the resamples and of the drawn patches.
    audit : AuditPolicy, optional
        As in `histofeat.evaluate`. Codes that may be accepted: HF001 (folds share patients), HF007 (an encoder was
        trained on test patients) and, with "leave_out", HF004; the result names the accepted ones.
    runtime : Runtime, optional
        Threads, feature store and progress; its stage is "measure" (sets of patches).

    Returns
    -------
    robustness : Robustness

    Raises
    ------
    ValueError
        If a pipeline, condition or metric is unknown, an argument is not what it should be, patients are too few to
        calibrate a head on, or every tested patient is known to an encoder.
    GroupLeakageError
        If a patient is on both sides of a fold, or an encoder knows a tested patient.

    Notes
    -----
    Intervals cover other patients, not another fit. Drops are paired: the same patches, and the same resamples of
    their patients, with and without the perturbation.

    Examples
    --------
    >>> from histofeat import IDCPipeline, PatientKFold, make_cohort
    >>> cohort = make_cohort(n_patients=8, patches_per_patient=8)
    >>> pipelines = {"color": IDCPipeline("color", "logistic")}
    >>> found = measure_robustness(
    ...     cohort, pipelines, PatientKFold(2), conditions=[("turn", 1)], metrics=["roc_auc"], n_resamples=50
    ... )
    >>> [(row.perturbation, row.drop) for row in found.rows]
    [('none', 0.0), ('turn', 0.0)]
    """
    _check_pipelines(pipelines)
    conditions = _check_conditions(all_conditions() if conditions is None else conditions)
    _check_metrics(metrics)
    _check_n_most(patches_per_patient)
    runtime, cv = Runtime.of(runtime), PatientKFold(5) if cv is None else cv
    folds = fair_folds(cv, dataset, pipelines, owner="measure_robustness", audit=audit, runtime=runtime)
    _check_patients(pipelines, dataset, folds.splits)
    tests = _thinned([test for _, test in folds.splits], dataset.patients, patches_per_patient, random_state)
    job = Job(dataset, pipelines, folds.splits, tests, (CLEAN, *conditions), runtime)
    proba = job.run()
    tested = np.sort(np.concatenate(tests))
    known = (dataset.y[tested], dataset.patients[tested])
    resampling = {"n_resamples": n_resamples, "random_state": random_state, "n_jobs": runtime.n_jobs}
    rows, resamples = [], {}
    for name in pipelines:
        by_condition = {at: proba[name, at][tested] for at in job.conditions}
        drawn = {
            at: bootstrap_scores(known[0], found, known[1], metrics=metrics, **resampling)
            for at, found in by_condition.items()
        }
        rows += _rows(name, by_condition, drawn, known[0], metrics)
        resamples |= {(name, *at): found for at, found in drawn.items()}
    n_patients = len(encode_patients(known[1], len(tested))[0])
    return Robustness(tuple(rows), n_patients, len(tested), resamples, folds.left_out, folds.accepted)


# --- the checks ----------------------------------------------------------------------------------------------------


def _check_pipelines(pipelines) -> None:
    if not isinstance(pipelines, Mapping) or not pipelines:
        raise ValueError(
            f"measure_robustness.pipelines: expected names with an IDCPipeline each, got {pipelines!r:.80}. "
            'Pass {"handcrafted": IDCPipeline()}.'
        )
    for name, pipeline in pipelines.items():
        if not hasattr(pipeline, "make_normalizer"):
            raise ValueError(
                f"measure_robustness.pipelines: expected an IDCPipeline under {name!r}, got {pipeline!r:.80}. "
                'Pass {"handcrafted": IDCPipeline()}.'
            )
        if getattr(pipeline, "takes_pixels", False):
            raise ValueError(
                f"measure_robustness.pipelines: expected feature families, got features='pixels' under {name!r}. "
                "Name families."
            )


def _check_conditions(conditions) -> list[tuple[str, int]]:
    conditions = list(conditions)
    for name, severity in conditions:
        perturbed_images([np.zeros((1, 1, 3), dtype=np.uint8)], name, severity)
        if severity == 0 or conditions.count((name, severity)) > 1:
            raise ValueError(
                f"measure_robustness.conditions: expected each perturbation with each severity but 0 once, got "
                f"{(name, severity)!r}{'' if severity == 0 else ' again'}. The patches as they came are always scored."
            )
    return conditions


def _check_metrics(metrics) -> None:
    for metric in metrics:
        if metric not in METRICS:
            raise ValueError(
                f"measure_robustness.metrics: expected some of {', '.join(METRICS)}, got {metric!r}. "
                f"{known_names(metric, METRICS)}"
            )


def _check_n_most(n_most) -> None:
    if n_most is not None and (not isinstance(n_most, Integral) or isinstance(n_most, bool) or n_most < 1):
        raise ValueError(
            f"measure_robustness.patches_per_patient: expected None or a whole number of at least 1, got {n_most!r}. "
            "Use None for all patches."
        )


def _check_patients(pipelines, dataset, splits) -> None:
    for name, pipeline in pipelines.items():
        head = pipeline.make_head()
        for train, _ in splits:
            where = f"measure_robustness.pipelines[{name!r}]"
            check_enough_patients(head, dataset.y[train], dataset.patients[train], where)


def _thinned(tests, patients, n_most, seed) -> list[np.ndarray]:
    """Keep at most `n_most` rows of each patient, drawn at random."""
    if n_most is None:
        return tests
    rng = np.random.default_rng(seed)
    kept = []
    for test in tests:
        _, codes = encode_patients(patients[test], len(test), "patients")
        order = rng.permutation(len(test))
        chosen = [order[codes[order] == code][:n_most] for code in range(codes.max() + 1)]
        kept.append(np.sort(test[np.concatenate(chosen)]))
    return kept


# --- the scores ----------------------------------------------------------------------------------------------------


def _rows(name, by_condition, drawn, y, metrics) -> list[RobustnessRow]:
    clean = by_condition[CLEAN]
    base, base_samples = scores(y, clean), drawn[CLEAN].samples
    rows = []
    for at, proba in by_condition.items():
        found, samples = scores(y, proba), drawn[at]
        perturbation, severity = at
        common = {
            "pipeline": name,
            "perturbation": perturbation,
            "severity": severity,
            "amount": None if at == CLEAN else PERTURBATIONS[perturbation].amounts[severity],
            "largest_change": float(np.abs(proba - clean).max()),
        }
        for metric in metrics:
            low, high = samples.interval(metric)
            paired = Bootstrap(
                {metric: base_samples[metric] - samples.samples[metric]}, samples.n_patients, samples.n_dropped
            )
            drop_low, drop_high = paired.interval(metric)
            value, drop = found[metric], base[metric] - found[metric]
            rows.append(RobustnessRow(metric=metric, value=value, low=low, high=high, drop=drop, drop_low=drop_low,
                                      drop_high=drop_high, **common))  # fmt: skip
    return rows
