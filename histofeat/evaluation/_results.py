"""The results of an evaluation as frozen records: scores, models, what could not run, and the protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd

from histofeat.evaluation._details import (
    ProbabilityAssessment,
    assess_probabilities,
    detail_model,
    predictive_values,
    probe_table,
)
from histofeat.evaluation._result_tables import ResultTables
from histofeat.exceptions import check_name
from histofeat.metrics import (
    ClassScores,
    ComparisonPlan,
    Comparisons,
    CurveBands,
    NotCompared,
    Score,
    class_scores,
    compare_models,
    count_carriers,
    curve_bands,
    few_patients,
    frozen,
)
from histofeat.model_selection import encode_patients


@dataclass(frozen=True, eq=False)
class ModelResult:
    """One pipeline under the protocol: every out-of-fold prediction and every score.

    Parameters
    ----------
    name : str
        What the user calls it, such as "handcrafted"; several heads may share a name.
    features : tuple of str
        The families, in column order.
    head : str
        The name of the classifier.
    n_features : int
        The number of columns that the head saw.
    proba : ndarray of shape (n, k), float64
        Out-of-fold class probabilities in [0, 1]; a row of NaN where a patch was never tested.
    predicted : ndarray of shape (n,), int64
        The most probable class (two classes: positive above 0.5); -1 where never tested.
    predicted_tuned : ndarray of shape (n,), int64
        The class at the fold's own threshold; equal to `predicted` with more than two classes.
    thresholds : tuple of float
        One per fold, chosen on its training patients; empty with more than two classes.
    scores : Mapping of str to Score
        Every metric of `histofeat.metrics.METRICS`, labels from `predicted`.
    tuned : Mapping of str to Score
        Every metric of `histofeat.metrics.LABEL_METRICS`, labels from `predicted_tuned`.
    confusion, confusion_tuned : ndarray of shape (k, k), int64
        Pooled counts, rows are the true class.
    fold_confusions : tuple of ndarray of shape (k, k), int64
        One per fold, labels from `predicted`.
    fit_s, predict_s : float
        Seconds over all folds; `fit_s` includes the inner fits.
    notes : tuple of str
        Sentences for the report, such as an approximation that the head chose.
    families : tuple of str
        Each family with all of its parameters, as Python would write it; a path among them is of this machine.
    calibrated : ndarray of shape (n, k), float64
        `proba` after a calibration on the training patients of each fold; `proba` itself with more than two classes.
    resamples : Bootstrap or None
        Every metric of `scores` in every resample of the patients; the same resamples for all models of an evaluation.
    choices : tuple of Mapping
        What a search chose in each fold; an empty mapping where nothing was searched.
    histories : tuple of Mapping
        The training of a network in each fold: lists with one entry per epoch by name, such as "loss" and "val_loss";
        empty for heads without epochs.
    """

    name: str
    features: tuple[str, ...]
    head: str
    n_features: int
    proba: np.ndarray = field(repr=False)
    predicted: np.ndarray = field(repr=False)
    predicted_tuned: np.ndarray = field(repr=False)
    thresholds: tuple[float, ...]
    scores: Mapping[str, Score] = field(repr=False)
    tuned: Mapping[str, Score] = field(repr=False)
    confusion: np.ndarray = field(repr=False)
    confusion_tuned: np.ndarray = field(repr=False)
    fold_confusions: tuple[np.ndarray, ...] = field(repr=False)
    fit_s: float
    predict_s: float
    notes: tuple[str, ...] = ()
    families: tuple[str, ...] = field(default=(), repr=False)
    calibrated: np.ndarray | None = field(default=None, repr=False)
    resamples: Any = field(default=None, repr=False)
    choices: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    histories: tuple[Mapping[str, list[float]], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        if self.calibrated is None:
            object.__setattr__(self, "calibrated", self.proba)
        for name, dtype in _MODEL_ARRAYS.items():
            object.__setattr__(self, name, frozen(getattr(self, name), dtype))
        counts = tuple(frozen(confusion, np.int64) for confusion in self.fold_confusions)
        object.__setattr__(self, "fold_confusions", counts)

    def with_classes_turned(self) -> Self:
        """The same predictions with the two classes in the other order; scores are of the same positive class."""
        counts = ("confusion", "confusion_tuned")
        turned = {name: getattr(self, name)[:, ::-1] for name in ("proba", "calibrated")}
        turned |= {name: getattr(self, name)[::-1, ::-1] for name in counts}
        for name in ("predicted", "predicted_tuned"):
            turned[name] = np.where(getattr(self, name) < 0, -1, 1 - getattr(self, name))
        return replace(self, **turned, fold_confusions=tuple(each[::-1, ::-1] for each in self.fold_confusions))


_INTEGERS = ("predicted", "predicted_tuned", "confusion", "confusion_tuned")
_MODEL_ARRAYS = {"proba": np.float64, "calibrated": np.float64} | dict.fromkeys(_INTEGERS, np.int64)


@dataclass(frozen=True)
class NotRun:
    """A pipeline that could not run, and the sentence that says why: weights or an extra are missing."""

    name: str
    head: str
    reason: str


@dataclass(frozen=True)
class LeftOut:
    """The patients that no model was tested on, since an encoder was trained on them.

    Parameters
    ----------
    patients : tuple of str
        Their ids.
    n_patches : int
        Their patches that would have been tested.
    n_patients_tested, n_patches_tested : int
        What remains, the same for all models.
    encoders : Mapping of str to int
        How many of these patients each encoder knows, by its path, such as "histo: histo".
    trained_on : tuple of str
        Names of the data sets that the encoders were trained on.
    folds : tuple of int
        Folds without remaining test patients, counted from 1 in the given order; they are dropped.
    """

    patients: tuple[str, ...]
    n_patches: int
    n_patients_tested: int
    n_patches_tested: int
    encoders: Mapping[str, int]
    trained_on: tuple[str, ...]
    folds: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types; of the patients the number."""
        return {
            "patients": len(self.patients),
            "patches": self.n_patches,
            "patients_tested": self.n_patients_tested,
            "patches_tested": self.n_patches_tested,
            "encoders": dict(self.encoders),
            "trained_on": list(self.trained_on),
            "folds": list(self.folds),
        }


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(ResultTables):
    """Everything that `evaluate` found: the input of the report.

    Parameters
    ----------
    dataset : PatchDataset
        The patches, in the row order of every array here.
    splits : tuple of (ndarray, ndarray)
        Training and test rows of each fold.
    fold : ndarray of shape (n,), int64
        The fold in which a patch was tested; -1 where it never was.
    models : tuple of ModelResult
    not_run : tuple of NotRun
    protocol : Mapping of str to object
        "cv", "n_splits", "inner_cv", "n_resamples", "random_state", "patient_level", "threshold", "search",
        "accepted_findings", "known_patients", "left_out" (``LeftOut.to_dict()`` or None), "retrain_encoder",
        "registered" (a sentence on registered test patients among those tested, or None), "plan"
        (``ComparisonPlan.to_dict()`` or None). Where a `LimitedTraining` left patches out also "train_patches" or
        "inner_patches", the most of each patient.
    seconds : Mapping of str to float
        Wall-clock time of "extraction", "audit", "retrain" (encoders trained again), "fit" (inner fits and predicting
        included) and "score". Parts of the extraction, summed over its threads, are "extraction:read",
        "extraction:decode", "extraction:store" and "extraction:<family>".
    patient_overlap : bool
        Whether a split put one patient on both sides. Such numbers are no estimate for a new patient.
    conversions : Mapping of str to int
        How many images were converted, by the rules of `histofeat.images._decoding`, and left as they are by a
        stain normaliser: in the pass over the images (one per fold with a normaliser) with the most of each.
    computed : Mapping of str to int
        How many images were measured for each family; the others came from the store.
    audit : AuditReport or None
        What `histofeat.evaluation.audit_split` found in the folds.
    left_out : LeftOut or None
        The patients that were not tested, since an encoder knows them.
    n_jobs : int, optional
        Threads for `calibration`, `classes`, `bands` and `comparison`, which are computed on first use and kept.
    """

    dataset: Any
    splits: tuple[tuple[np.ndarray, np.ndarray], ...]
    fold: np.ndarray
    models: tuple[ModelResult, ...]
    not_run: tuple[NotRun, ...]
    protocol: Mapping[str, Any]
    seconds: Mapping[str, float]
    patient_overlap: bool
    conversions: Mapping[str, int] = field(default_factory=dict)
    computed: Mapping[str, int] = field(default_factory=dict)
    audit: Any = None
    left_out: LeftOut | None = None
    n_jobs: int | None = None

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        object.__setattr__(self, "fold", frozen(self.fold, np.int64))
        splits = tuple((frozen(train, np.int64), frozen(test, np.int64)) for train, test in self.splits)
        object.__setattr__(self, "splits", splits)

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, in the order of the columns of every `proba` and of every confusion matrix."""
        return tuple(self.dataset.target_names)

    @cached_property
    def positive_last(self) -> Self:
        """The same evaluation with the positive class of two as code 1, as metrics, tables and figures take it."""
        dataset = self.dataset.with_positive_last()
        if dataset is self.dataset:
            return self
        return replace(self, dataset=dataset, models=tuple(model.with_classes_turned() for model in self.models))

    @property
    def failures(self) -> pd.DataFrame:
        """Files that could not be read and were left out: columns ``path`` and ``reason``."""
        return pd.DataFrame(self.dataset.audit.failures, columns=["path", "reason"])

    @property
    def tested(self) -> np.ndarray:
        """The rows that were tested, as a mask of shape (n,)."""
        return self.fold >= 0

    @property
    def _known(self):
        """Labels and patients of the tested rows, and how the patients are resampled."""
        y, patients = (np.asarray(column)[self.tested] for column in (self.dataset.y, self.dataset.patients))
        return y, patients, {name: self.protocol[name] for name in ("n_resamples", "random_state")}

    @property
    def caution(self) -> str | None:
        """A sentence on intervals of few patients; None with enough of them."""
        y, patients, _ = self._known
        ids, codes = encode_patients(patients, len(y), "dataset.patients")
        return few_patients(len(ids), count_carriers(y, codes))

    @cached_property
    def calibration(self) -> tuple[ProbabilityAssessment | None, ...]:
        """Calibration of each model, in the order of `models`; None with more than two classes."""
        found = self.positive_last
        return tuple(found._calibration_of(model) if len(self.labels) == 2 else None for model in found.models)

    def _calibration_of(self, model):
        y, patients, resampling = self._known
        same = np.array_equal(model.calibrated, model.proba, equal_nan=True)
        calibrated = None if same else model.calibrated[self.tested, 1]
        return assess_probabilities(y, model.proba[self.tested, 1], calibrated, patients, **resampling)

    @cached_property
    def classes(self) -> tuple[ClassScores, ...]:
        """Scores of each class against the rest, for each model in the order of `models`."""
        (y, patients, resampling), rows = self._known, self.tested
        more = {"target_names": self.labels, "patients": patients, "n_jobs": self.n_jobs, **resampling}
        more["fold"] = self.fold[rows]
        return tuple(class_scores(y, model.proba[rows], model.predicted[rows], **more) for model in self.models)

    @cached_property
    def bands(self) -> tuple[CurveBands, ...]:
        """ROC and precision-recall curves with their bands, for each model in the order of `models`."""
        found = self.positive_last
        y, patients, resampling = found._known
        more = {"n_jobs": self.n_jobs, "fold": self.fold[self.tested], **resampling}
        return tuple(curve_bands(y, model.proba[self.tested], patients, **more) for model in found.models)

    @cached_property
    def planned(self) -> Comparisons | NotCompared | None:
        """The differences of the plan that `evaluate` was given; None without one. All others are post hoc."""
        plan = self.protocol.get("plan")
        if plan is None:
            return None
        plan = ComparisonPlan(**{name: plan[name] for name in plan if name != "hash"})
        return self._compared(plan.metrics, pairs=plan.pairs, margin=plan.margin)

    @cached_property
    def comparison(self) -> Comparisons | NotCompared | None:
        """Differences of all models from the best; None with fewer than two models or without resamples."""
        if len(self.models) < 2 or not self.protocol["n_resamples"]:
            return None
        return self._compared()

    def _compared(self, *metrics, **settings):
        try:
            return compare_models(self, *metrics, n_jobs=self.n_jobs, **settings)
        except ValueError as error:
            return NotCompared(str(error))

    def asking(self, *, prevalence: float | None = None, groups: str | None = None) -> Self:
        """Return this evaluation with further questions, which `details` and the report answer.

        Parameters
        ----------
        prevalence : float in (0, 1), optional
            The share of positives where the model is used, for predictive values; two classes only.
        groups : str, optional
            A column of the data set's table, such as "site": scores of each of its groups.

        Returns
        -------
        evaluation : Evaluation

        Raises
        ------
        ValueError
            If there is no such column, or the prevalence is not between 0 and 1 or asked of more than two classes.
        """
        if groups is not None:
            check_name("Evaluation.asking.groups", groups, self.dataset.frame, "a column of the table")
        if prevalence is not None:
            predictive_values(self.models[0].resamples, prevalence)
        stated = {"prevalence": prevalence, "groups": groups}.items()
        return replace(self, protocol={**self.protocol, **{name: value for name, value in stated if value is not None}})

    @cached_property
    def details(self) -> tuple[dict[str, Any], ...]:
        """What else is asked of each model, in the order of `models`: see `detail_model`."""
        return tuple(detail_model(self.positive_last, number) for number in range(len(self.models)))

    @cached_property
    def table_probe(self) -> dict[str, Any]:
        """How well columns of the table alone tell the class, without an image: see `probe_table`."""
        return probe_table(self)
