"""The same pipelines under a split by patch and a split by patient: what the leak adds, with its interval."""

import math
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from histofeat.evaluation import AuditPolicy, NotRun, evaluate
from histofeat.features import Runtime
from histofeat.metrics import Bootstrap, bootstrap_scores, scores
from histofeat.model_selection import PatchKFold, PatientKFold
from histofeat.studies.shortcuts.records import plain_values

__all__ = ["LEAKAGE_METRICS", "Leakage", "LeakageRow", "measure_leakage", "touching_share"]

LEAKAGE_METRICS = ("roc_auc", "balanced_accuracy", "f1")
"""What is compared: the first from the scores, the others from labels at the tuned threshold."""

#: What a split by patch does by its nature: a patient, copies of a patch and sibling slides on both sides.
_ACCEPTED = ("HF001", "HF002", "HF005")
_INNER_SPLITS = 3


@dataclass(frozen=True)
class LeakageRow:
    """One metric of one pipeline under both splits.

    Parameters
    ----------
    name, head : str
        The pipeline.
    n_features : int
    metric : str
        One of `LEAKAGE_METRICS`.
    honest, leaked : float
        Pooled over the folds of whole patients, and over the folds of patches.
    honest_ci95, leaked_ci95 : tuple of (float, float)
        95 % percentile intervals, from resampling patients.
    difference : float
        Leaked less honest.
    difference_ci95 : tuple of (float, float)
        Its interval, both scores from the same resamples of the patients.
    """

    name: str
    head: str
    n_features: int
    metric: str
    honest: float
    honest_ci95: tuple[float, float]
    leaked: float
    leaked_ci95: tuple[float, float]
    difference: float
    difference_ci95: tuple[float, float]


@dataclass(frozen=True)
class Leakage:
    """What a split by patch adds to the scores of pipelines.

    Parameters
    ----------
    rows : tuple of LeakageRow
        Pipeline by pipeline, metric by metric.
    not_run : tuple of NotRun
    n_patients, n_patches, n_folds : int
    touching : float
        Share of the tested patches that touch a training patch of their own slide under the split by patch; NaN
        without coordinates. Under the split by patient it is 0.
    n_resamples, random_state : int
    """

    rows: tuple[LeakageRow, ...]
    not_run: tuple[NotRun, ...]
    n_patients: int
    n_patches: int
    n_folds: int
    touching: float
    n_resamples: int
    random_state: int

    def to_dict(self):
        """Give the content as dicts, lists and plain values, None for what is undefined: ready for JSON."""
        return plain_values(asdict(self))


def measure_leakage(
    dataset,
    pipelines,
    *,
    n_splits=5,
    n_resamples=2000,
    random_state=0,
    runtime=None,
):
    """Evaluate pipelines under `PatchKFold` and under `PatientKFold`, and compare.

    Parameters
    ----------
    dataset : PatchDataset
        Two classes.
    pipelines : IDCPipeline, mapping of str to IDCPipeline, or sequence of (str, IDCPipeline)
        As in `histofeat.evaluation.evaluate`.
    n_splits : int, default=5
        Folds of both splits.
    n_resamples : int, default=2000
        Resamples of the patients behind each interval; 0 for none.
    random_state : int, default=0
        Seed of both splits and of the resamples.
    runtime : Runtime, optional
        Threads, feature store (by default a temporary one, so that both splits share the features) and progress: the
        stages of `evaluate`, for the split by patient and then for the split by patch.

    Returns
    -------
    leakage : Leakage

    Raises
    ------
    ValueError
        If there are more than two classes, or as `evaluate` does.

    Notes
    -----
    Whoever splits by patch does so inside as well: under the split by patch the inner folds, which choose the
    threshold and calibrate the SVM, are of patches too. Everything else is the same on both sides. The intervals cover
    other patients of the same kind, scored by these fits, on this one draw of the folds. They do not cover another
    draw, nor fitting again.

    Examples
    --------
    >>> from histofeat import IDCPipeline
    >>> from histofeat.datasets import make_signature_cohort
    >>> cohort = make_signature_cohort(n_patients=20, patches_per_patient=10, random_state=1)
    >>> pipelines = {"color": IDCPipeline(features="color", head="xgboost")}
    >>> leakage = measure_leakage(cohort, pipelines, n_splits=3, n_resamples=100)
    >>> row = leakage.rows[0]
    >>> row.metric, row.leaked > 0.85, row.honest < 0.75
    ('roc_auc', True, True)
    """
    if len(dataset.target_names) != 2:
        raise ValueError(
            f"measure_leakage.dataset: expected two classes, got {len(dataset.target_names)}: "
            f"{', '.join(dataset.target_names)}. Give a data set of two classes."
        )
    runtime = Runtime.of(runtime)
    shared = {"n_resamples": 0, "random_state": random_state}
    splitters = {"n_splits": n_splits, "random_state": random_state}
    with tempfile.TemporaryDirectory(prefix="histofeat-", ignore_cleanup_errors=True) as scratch:
        store = Path(scratch) / "features.sqlite" if runtime.store is None else runtime.store
        shared["runtime"] = replace(runtime, store=store)
        honest = evaluate(dataset, pipelines, PatientKFold(**splitters), inner_cv=PatientKFold(_INNER_SPLITS), **shared)
        leaked = evaluate(
            dataset,
            pipelines,
            PatchKFold(**splitters),
            inner_cv=PatchKFold(_INNER_SPLITS),
            audit=AuditPolicy(accept_findings=_ACCEPTED),
            **shared,
        )
    resampling = {"n_resamples": n_resamples, "random_state": random_state, "n_jobs": runtime.n_jobs}
    both = {(model.name, model.head): model for model in leaked.models}
    pairs = [(model, both[model.name, model.head]) for model in honest.models if (model.name, model.head) in both]
    return Leakage(
        rows=tuple(row for pair in pairs for row in _compare(*pair, dataset, resampling)),
        not_run=tuple(dict.fromkeys((*honest.not_run, *leaked.not_run))),
        n_patients=len(set(dataset.patients)),
        n_patches=len(dataset),
        n_folds=n_splits,
        touching=touching_share(dataset, leaked.splits),
        n_resamples=int(n_resamples),
        random_state=int(random_state),
    )


def _compare(honest, leaked, dataset, resampling):
    """Give the rows of one pipeline; every row of the data set is tested once on both sides."""
    values, samples = [], []
    for model in (honest, leaked):
        given = dataset.y, model.proba
        values.append(scores(*given, model.predicted_tuned))
        samples.append(
            bootstrap_scores(
                *given, dataset.patients, predicted=model.predicted_tuned, metrics=LEAKAGE_METRICS, **resampling
            )
        )
    differences = {metric: samples[1].samples[metric] - samples[0].samples[metric] for metric in LEAKAGE_METRICS}
    paired = Bootstrap(differences, samples[0].n_patients, samples[0].n_dropped)
    for metric in LEAKAGE_METRICS:
        yield LeakageRow(
            name=honest.name,
            head=honest.head,
            n_features=honest.n_features,
            metric=metric,
            honest=values[0][metric],
            honest_ci95=samples[0].interval(metric),
            leaked=values[1][metric],
            leaked_ci95=samples[1].interval(metric),
            difference=values[1][metric] - values[0][metric],
            difference_ci95=paired.interval(metric),
        )


def touching_share(dataset, splits, step_px=50):
    """Share of the tested patches that touch a training patch of the same patient, by side or corner.

    Parameters
    ----------
    dataset : PatchDataset
        With coordinates.
    splits : sequence of (train, test)
        Row numbers.
    step_px : int, default=50
        From one patch to the next, on the slide.

    Returns
    -------
    share : float
        0 to 1; NaN where a patch has no coordinates.

    Examples
    --------
    >>> import pandas as pd
    >>> from histofeat import PatchDataset
    >>> frame = pd.DataFrame({"path": list("abcd"), "label": [0, 1, 0, 1], "patient": list("pppq")})
    >>> dataset = PatchDataset(frame.assign(x=[1, 51, 151, 51], y=1), ("no", "yes"), "mine")
    >>> touching_share(dataset, [([0], [1, 2, 3])])
    0.3333333333333333
    """
    frame = dataset.frame
    if frame[["x", "y"]].isna().any(axis=None):
        return math.nan
    places = list(zip(frame["patient"], frame["x"].astype(int), frame["y"].astype(int), strict=True))
    steps = [(dx, dy) for dx in (-step_px, 0, step_px) for dy in (-step_px, 0, step_px) if dx or dy]
    touching = []
    for train, test in splits:
        known = {places[row] for row in train}
        for row in test:
            patient, x, y = places[row]
            touching.append(any((patient, x + dx, y + dy) in known for dx, dy in steps))
    return float(np.mean(touching))
