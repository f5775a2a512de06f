"""The work behind a robustness study: heads fitted once, perturbed patches measured once for all pipelines."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from histofeat.evaluation import LeftOut
from histofeat.features import Runtime, extract
from histofeat.images import normalized_images, perturbed_images
from histofeat.metrics import Bootstrap

__all__ = ["CLEAN", "Job", "Lane", "Robustness", "RobustnessRow"]


@dataclass(frozen=True)
class Lane:
    """Pipelines that see the same pixels: without a normaliser in all folds, behind one in a single fold."""

    names: tuple[str, ...]
    folds: tuple[int, ...]
    normalizer: Any = None


@dataclass
class Job:
    """One measurement under way."""

    dataset: Any
    pipelines: Mapping[str, Any]
    splits: Sequence
    tests: Sequence
    conditions: Sequence[tuple[str, int]]
    runtime: Runtime

    def __post_init__(self):
        self.X, self.y, self.patients = self.dataset.X, self.dataset.y, self.dataset.patients
        self.families = {
            name: {_key(family): family for family in pipeline.families()} for name, pipeline in self.pipelines.items()
        }

    def run(self) -> dict[tuple[str, tuple], np.ndarray]:
        """Give the out-of-fold probabilities (n, k) of each pipeline under each condition, NaN where not tested."""
        shape = (len(self.y), len(self.dataset.target_names))
        self.proba = {(name, at): np.full(shape, np.nan) for name in self.pipelines for at in self.conditions}
        lanes = self._lanes()
        total, self._done = len(lanes) * (1 + len(self.conditions)), 0
        n_threads = joblib.effective_n_jobs(self.runtime.n_jobs)
        with (
            threadpool_limits(1 if n_threads > 1 else None, user_api="blas"),
            ThreadPoolExecutor(n_threads) as pool,
        ):
            for lane in lanes:
                self._run_lane(lane, pool, total)
        return self.proba

    def _lanes(self) -> list[Lane]:
        folds = tuple(range(len(self.splits)))
        by_normalizer: dict[str, list[str]] = {}
        for name, pipeline in self.pipelines.items():
            by_normalizer.setdefault(joblib.hash(pipeline.make_normalizer()), []).append(name)
        lanes = []
        for names in by_normalizer.values():
            normalizer = self.pipelines[names[0]].make_normalizer()
            for some in [folds] if normalizer is None else [(fold,) for fold in folds]:
                lanes.append(Lane(tuple(names), some, normalizer))
        return lanes

    def _run_lane(self, lane: Lane, pool, total: int) -> None:
        train = np.unique(np.concatenate([self.splits[fold][0] for fold in lane.folds]))
        tested = np.concatenate([self.tests[fold] for fold in lane.folds])
        fitted = None
        if lane.normalizer is not None:
            fitted = (
                clone(lane.normalizer)
                .set_params(n_jobs=self.runtime.n_jobs)
                .fit(self.X[train], groups=self.patients[train])
            )
        heads = self._fit_heads(lane, train, self._measure(lane, fitted, train, CLEAN), pool)
        self._tell(total)
        for condition in self.conditions:
            features = self._measure(lane, fitted, tested, condition)
            for (name, fold), head in heads.items():
                at = np.flatnonzero(np.isin(tested, self.tests[fold]))
                found = head.predict_proba(_side_by_side(features, self.families[name], at))
                target = self.proba[name, condition]
                target[tested[at]] = 0  # a class that the head never saw
                target[np.ix_(tested[at], head.classes_)] = found
            self._tell(total)

    def _tell(self, total: int) -> None:
        self._done += 1
        self.runtime.report("measure", self._done, total)

    def _measure(self, lane: Lane, fitted, rows: np.ndarray, condition: tuple[str, int]) -> dict[str, np.ndarray]:
        """Features of some rows by family, perturbed first and normalised then."""
        images = self.X[rows] if condition == CLEAN else perturbed_images(self.X[rows], *condition)
        if fitted is not None:
            images = normalized_images(images, fitted, groups=self.patients[rows])
        wanted = {key: family for name in lane.names for key, family in self.families[name].items()}
        found = {}
        for keys in _passes(wanted):
            families, runtime = [wanted[key] for key in keys], self.runtime
            measured = extract(families, images, n_jobs=runtime.n_jobs, store=runtime.store)
            found.update(zip(keys, measured.features, strict=True))
        return found

    def _fit_heads(self, lane: Lane, rows: np.ndarray, features, pool) -> dict:
        """Fit each pipeline's head on each fold of the lane, several at a time."""

        def fit(name, fold):
            train = self.splits[fold][0]
            values = _side_by_side(features, self.families[name], np.searchsorted(rows, train))
            return self.pipelines[name].make_head().fit(values, self.y[train], groups=self.patients[train])

        tasks = [(name, fold) for name in lane.names for fold in lane.folds]
        return dict(zip(tasks, pool.map(fit, *zip(*tasks, strict=True)), strict=True))


def _key(family) -> str:
    return joblib.hash((type(family).__module__, type(family).__qualname__, family.get_params()))


def _passes(wanted) -> list[list[str]]:
    """Group families into as few passes over the images as their column names allow."""
    passes: list[tuple[set, list]] = []
    for key, family in wanted.items():
        names = set(family.get_feature_names_out())
        free = next((entry for entry in passes if entry[0].isdisjoint(names)), None)
        if free is None:
            passes.append((names, [key]))
        else:
            free[0].update(names)
            free[1].append(key)
    return [keys for _, keys in passes]


def _side_by_side(features, families, rows: np.ndarray) -> np.ndarray:
    return np.hstack([features[key][rows] for key in families])


#: The patches as they came.
CLEAN = ("none", 0)


@dataclass(frozen=True)
class RobustnessRow:
    """One metric of one pipeline under one perturbation.

    Parameters
    ----------
    pipeline : str
    perturbation : str
        A name of `histofeat.images.PERTURBATIONS`, or "none".
    severity : int
        Its step; 0 with "none".
    amount : float or None
        What the step stands for, in the quantity of the perturbation.
    metric : str
    value : float
        Over all tested patches, out of fold.
    low, high : float
        95 % interval of `value`, from resampling patients.
    drop : float
        The value without perturbation minus `value`: positive where the perturbation costs something.
    drop_low, drop_high : float
        95 % interval of `drop`, on the same resamples of the same patches.
    largest_change : float
        The largest change of a class probability of any patch, 0 to 1.
    """

    pipeline: str
    perturbation: str
    severity: int
    amount: float | None
    metric: str
    value: float
    low: float
    high: float
    drop: float
    drop_low: float
    drop_high: float
    largest_change: float


@dataclass(frozen=True, eq=False)
class Robustness:
    """Scores of all pipelines under all perturbations.

    Parameters
    ----------
    rows : tuple of RobustnessRow
        By pipeline, perturbation, severity and metric, in the order asked for.
    n_patients, n_patches : int
        What was tested.
    resamples : Mapping of (str, str, int) to Bootstrap
        By pipeline, perturbation and severity; all of the same resamples of the patients.
    left_out : LeftOut or None
        The patients who were not tested, since an encoder knows them.
    accepted : tuple of str
        Codes of errors that were there and were accepted by name: with ``"HF001"`` or ``"HF007"`` among them the scores
        are no scores of new patients.
    """

    rows: tuple[RobustnessRow, ...] = field(repr=False)
    n_patients: int
    n_patches: int
    resamples: Mapping[tuple[str, str, int], Bootstrap] = field(repr=False)
    left_out: LeftOut | None = None
    accepted: tuple[str, ...] = ()

    def compare(self, first, second, condition=CLEAN, metric="roc_auc"):
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
        values = {(row.pipeline, row.perturbation, row.severity, row.metric): row.value for row in self.rows}
        for name in (first, second):
            if (name, *condition, metric) not in values:
                raise ValueError(
                    f"Robustness.compare: expected a score that was measured, got {(name, *condition, metric)!r}. "
                    f"Pipelines: {', '.join(dict.fromkeys(row.pipeline for row in self.rows))}."
                )
        one, other = self.resamples[first, *condition], self.resamples[second, *condition]
        paired = {metric: one.samples[metric] - other.samples[metric]}
        difference = values[first, *condition, metric] - values[second, *condition, metric]
        return difference, Bootstrap(paired, one.n_patients, one.n_dropped)

    def to_frame(self) -> pd.DataFrame:
        """Rows as a table, a column for each field of `RobustnessRow`."""
        return pd.DataFrame([asdict(row) for row in self.rows])
