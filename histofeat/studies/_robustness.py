"""Robustness: pipelines fitted on patches as they are, scored on perturbed patches of other patients."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from histofeat.datasets import PatchDataset
from histofeat.evaluation import (
    LeftOut,
    Plan,
    class_probabilities,
    fair_folds,
    fold_of_rows,
    name_pipelines,
    run_in_threads,
)
from histofeat.exceptions import check_name, check_whole
from histofeat.features import Runtime, as_family, extract, leave_out_unreadable, passes_over_images
from histofeat.images import PERTURBATIONS, normalized_images, perturbed_images
from histofeat.metrics import METRICS, Bootstrap, bootstrap_scores
from histofeat.model_selection import encode_patients
from histofeat.models import IDCPipeline, check_enough_patients
from histofeat.studies._study import flat_table

#: The unperturbed patches.
CLEAN = ("none", 0)


@dataclass(frozen=True, eq=False)
class Robustness:
    """Scores of all pipelines under all perturbations.

    Parameters
    ----------
    table : DataFrame
        One row for each pipeline, perturbation, severity and metric, in the given order:

        - ``perturbation``: a name of `histofeat.images.PERTURBATIONS`, or "none"; ``severity``: its step, 0 with
          "none"; ``amount``: what the step stands for, in the quantity of the perturbation.
        - ``value``: the metric over all tested patches, out of fold; ``low``, ``high``: its 95 % interval, from
          resampling patients.
        - ``drop``: the value without perturbation minus ``value``, positive where the perturbation costs something;
          ``drop_low``, ``drop_high``: its interval, on the same resamples of the same patches.
        - ``largest_change``: the largest change of a class probability of any patch, 0 to 1.
    n_patients, n_patches : int
        What was tested.
    resamples : Mapping of (str, str, int) to Bootstrap
        By pipeline, perturbation and severity; all of the same resamples of the patients.
    left_out : LeftOut or None
        The patients that were not tested, since an encoder was trained on them.
    accepted : tuple of str
        Codes of accepted errors; with ``"HF001"`` or ``"HF007"`` the scores are not those of new patients.
    registered : str or None
        A sentence on registered test patients among those tested.
    """

    table: pd.DataFrame = field(repr=False)
    n_patients: int
    n_patches: int
    resamples: Mapping[tuple[str, str, int], Bootstrap] = field(repr=False)
    left_out: LeftOut | None = None
    accepted: tuple[str, ...] = ()
    registered: str | None = None

    def compare(
        self, first: str, second: str, condition: tuple[str, int] = CLEAN, metric: str = "roc_auc"
    ) -> tuple[float, Bootstrap]:
        """Compare two pipelines on the same patches under the same perturbation.

        Parameters
        ----------
        first, second : str
            Names of pipelines.
        condition : (str, int), default=CLEAN
            Perturbation and severity.
        metric : str, default="roc_auc"

        Returns
        -------
        difference : float
            The first minus the second.
        paired : Bootstrap
            The difference in each resample, under the name of the metric.

        Raises
        ------
        ValueError
            If there is no such score.
        """
        for name in (first, second):
            if metric not in getattr(self.resamples.get((name, *condition)), "samples", ()):
                raise ValueError(
                    f"Robustness.compare: expected a score that was measured, got {(name, *condition, metric)!r}. "
                    f"Pipelines: {', '.join(self.table['pipeline'].unique())}."
                )
        paired = self.resamples[first, *condition].minus(self.resamples[second, *condition])
        return paired.estimates[metric], paired


def all_conditions() -> list[tuple[str, int]]:
    """Every perturbation with every severity but 0, as (name, severity).

    Examples
    --------
    >>> [condition for condition in all_conditions() if condition[0] == "turn"]
    [('turn', 1), ('turn', 2), ('turn', 3)]
    """
    return [(name, step) for name, found in PERTURBATIONS.items() for step in found.severities if step != 0]


def measure_robustness(
    dataset: PatchDataset,
    pipelines: Mapping[str, IDCPipeline],
    cv: Any = None,
    *,
    conditions: Sequence[tuple[str, int]] | None = None,
    metrics: Sequence[str] = ("roc_auc", "balanced_accuracy"),
    patches_per_patient: int | None = None,
    n_resamples: int = 2000,
    random_state: int = 0,
    audit: Any = None,
    runtime: Runtime | None = None,
) -> Robustness:
    """Fit pipelines on patches as they are, and score them on perturbed patches of other patients.

    Perturbed patches are read and measured once for all pipelines, and each head is fitted once. A stain normaliser is
    fitted on the training patients of each fold and applied to the perturbed patches.

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
        As in `histofeat.evaluate`; HF001, HF007 and, where patients were left out, HF004 are looked for.
    runtime : Runtime, optional
        Threads, feature store and progress; its stage is "measure" (sets of patches).

    Returns
    -------
    robustness : Robustness

    Raises
    ------
    ValueError
        If an argument is invalid, there are too few patients to calibrate a head, or an encoder was trained on every
        tested patient.
    GroupLeakageError
        If a patient is on both sides of a fold, or an encoder was trained on a tested patient.

    Notes
    -----
    Intervals cover other patients, not another fit. Drops are paired: same patches, same resamples.

    Examples
    --------
    >>> from histofeat import IDCPipeline, PatientKFold, make_cohort
    >>> cohort = make_cohort(n_patients=8, patches_per_patient=8)
    >>> pipelines = {"color": IDCPipeline("color", "logistic")}
    >>> found = measure_robustness(
    ...     cohort, pipelines, PatientKFold(2), conditions=[("turn", 1)], metrics=["roc_auc"], n_resamples=50
    ... )
    >>> list(zip(found.table["perturbation"], found.table["drop"]))
    [('none', 0.0), ('turn', 0.0)]
    """
    plans = _make_plans(pipelines)
    conditions = _check_conditions(all_conditions() if conditions is None else conditions)
    for metric in metrics:
        check_name("measure_robustness.metrics", metric, METRICS, f"some of {', '.join(METRICS)}")
    if patches_per_patient is not None:
        check_whole("measure_robustness.patches_per_patient", patches_per_patient, 1, "Use None for all patches.")
    dataset.require_images("measure_robustness")
    dataset, cv, runtime = leave_out_unreadable(dataset, cv, runtime)
    settled = {"owner": "measure_robustness", "audit": audit, "runtime": runtime, "kind": "perturbed"}
    folds = fair_folds(cv, dataset, pipelines, **settled)
    for name, plan in plans.items():
        plan.build()
        for train, _ in folds.splits:
            where = f"measure_robustness.pipelines[{name!r}]"
            check_enough_patients(plan.head, dataset.y[train], dataset.patients[train], where)
    tests = thinned([test for _, test in folds.splits], dataset.patients, patches_per_patient, random_state)
    job = _Job(dataset, plans, folds.splits, tests, (CLEAN, *conditions), runtime)
    proba = job.run()
    fold = fold_of_rows([((), test) for test in tests], len(dataset))
    tested = np.flatnonzero(fold >= 0)
    y, patients = dataset.positive_last(dataset.y)[tested], dataset.patients[tested]
    settings = {"metrics": metrics, "n_resamples": n_resamples, "random_state": random_state, "n_jobs": runtime.n_jobs}
    settings["fold"] = fold[tested]
    rows, resamples = [], {}
    for name in plans:
        by_condition = {at: dataset.positive_last(proba[name, at])[tested] for at in job.conditions}
        drawn = {at: bootstrap_scores(y, found, patients, **settings) for at, found in by_condition.items()}
        rows += _rows(name, by_condition, drawn, metrics)
        resamples |= {(name, *at): found for at, found in drawn.items()}
    counts = next(iter(resamples.values())).n_patients, len(tested)
    return Robustness(flat_table(rows), *counts, resamples, folds.left_out, folds.accepted, folds.record(plans))


def _make_plans(pipelines) -> dict[str, Plan]:
    where = "measure_robustness.pipelines"
    named = name_pipelines(pipelines, where, method="make_normalizer")
    plans = {name: Plan(name, "", pipeline) for name, pipeline in named}
    if not plans or len(plans) < len(named):
        got = [name for name, _ in named]
        raise ValueError(f"{where}: expected at least one pipeline and different names, got {got}. Rename them.")
    for name, pipeline in named:
        parts = pipeline.features if isinstance(pipeline.features, list | tuple) else [pipeline.features]
        if pipeline.takes_pixels or any(hasattr(as_family(part), "given") for part in parts):
            got = "features='pixels'" if pipeline.takes_pixels else "given columns, which no perturbation changes,"
            raise ValueError(f"{where}: expected feature families, got {got} under {name!r}. Name families.")
    return plans


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


def thinned(tests, patients, n_most, seed) -> list[np.ndarray]:
    """Keep at most `n_most` rows of each patient, drawn at random."""
    if n_most is None:
        return tests
    rng = np.random.default_rng(seed)
    kept = []
    for test in tests:
        _, codes = encode_patients(patients[test], len(test), "patients")
        order = pd.Series(rng.permutation(len(test)))
        kept.append(np.sort(test[order.groupby(codes[order]).head(n_most)]))
    return kept


@dataclass
class _Job:
    """One measurement in progress."""

    dataset: PatchDataset
    plans: Mapping[str, Plan]
    splits: Sequence
    tests: Sequence
    conditions: Sequence[tuple[str, int]]
    runtime: Runtime

    def run(self) -> dict[tuple[str, tuple], np.ndarray]:
        """Give the out-of-fold probabilities (n, k) of each pipeline under each condition, NaN where not tested."""
        shape = (len(self.dataset), len(self.dataset.target_names))
        self.proba = {(name, at): np.full(shape, np.nan) for name in self.plans for at in self.conditions}
        lanes = self._lanes()
        steps = (step for lane in lanes for step in self._steps(*lane))
        for done, _ in enumerate(steps, start=1):
            self.runtime.report("measure", done, len(lanes) * (1 + len(self.conditions)))
        return self.proba

    def _lanes(self) -> list[tuple[list[Plan], Sequence[int]]]:
        """Plans and folds that see the same pixels: all folds without a normaliser, a single fold behind one."""
        folds, lanes = range(len(self.splits)), []
        for key in dict.fromkeys(plan.normalizer_key for plan in self.plans.values()):
            plans = [plan for plan in self.plans.values() if plan.normalizer_key == key]
            lanes += [(plans, some) for some in ([folds] if key is None else [(fold,) for fold in folds])]
        return lanes

    def _steps(self, plans, folds):
        """Fit the heads of some plans and folds, then score each condition; yield after each of these steps."""
        X, patients = self.dataset.X, self.dataset.patients
        train = np.unique(np.concatenate([self.splits[fold][0] for fold in folds]))
        tested = np.concatenate([self.tests[fold] for fold in folds])
        fitted = plans[0].normalizer
        if fitted is not None:
            fitted = clone(fitted).set_params(n_jobs=self.runtime.n_jobs)
            fitted.fit(X[train], groups=patients[train])
        heads = self._fit_heads(plans, folds, train, self._measure(plans, fitted, train, CLEAN))
        yield
        for condition in self.conditions:
            features = self._measure(plans, fitted, tested, condition)
            for (plan, fold), head in heads:
                at = np.flatnonzero(np.isin(tested, self.tests[fold]))
                target = self.proba[plan.name, condition]
                target[tested[at]] = class_probabilities(head, _side_by_side(features, plan, at), target.shape[1])
            yield

    def _measure(self, plans, fitted, rows: np.ndarray, condition: tuple[str, int]) -> dict[str, np.ndarray]:
        """Features of some rows by family, perturbed first and then normalised."""
        X, patients = self.dataset.X[rows], self.dataset.patients[rows]
        images = X if condition == CLEAN else perturbed_images(X, *condition)
        if fitted is not None:
            images = normalized_images(images, fitted, groups=patients)
        wanted = {key: family for plan in plans for key, family in plan.by_key.items()}
        found = {}
        for keys in passes_over_images(wanted):
            families = [wanted[key] for key in keys]
            measured = extract(families, images, n_jobs=self.runtime.n_jobs, store=self.runtime.store)
            found.update(zip(keys, measured.features, strict=True))
        return found

    def _fit_heads(self, plans, folds, rows: np.ndarray, features) -> list[tuple]:
        """Fit the head of each plan on each fold: a list of ((plan, fold), head)."""
        y, patients = self.dataset.y, self.dataset.patients

        def fit(task):
            plan, fold = task
            train = self.splits[fold][0]
            values = _side_by_side(features, plan, np.searchsorted(rows, train))
            return clone(plan.head).fit(values, y[train], groups=patients[train])

        tasks = [(plan, fold) for plan in plans for fold in folds]
        return list(zip(tasks, run_in_threads(fit, tasks, Runtime(self.runtime.n_jobs, progress=False)), strict=True))


def _side_by_side(features, plan, rows: np.ndarray) -> np.ndarray:
    return np.hstack([features[key][rows] for key in plan.by_key])


def _rows(name, by_condition, drawn, metrics) -> Iterator[dict[str, Any]]:
    clean = by_condition[CLEAN]
    for at, proba in by_condition.items():
        drop = drawn[CLEAN].minus(drawn[at])
        perturbation, severity = at
        amount = None if at == CLEAN else PERTURBATIONS[perturbation].amounts[severity]
        for metric in metrics:
            yield {
                "pipeline": name,
                "perturbation": perturbation,
                "severity": severity,
                "amount": amount,
                "metric": metric,
                "value": drawn[at].estimates[metric],
                "ci95": drawn[at].interval(metric),
                "drop": drop.estimates[metric],
                "drop_ci95": drop.interval(metric),
                "largest_change": float(np.abs(proba - clean).max()),
            }
