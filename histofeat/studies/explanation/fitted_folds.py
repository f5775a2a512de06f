"""A pipeline measured once and its head fitted on the training patients of every fold: what explanations start from."""

import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.base import clone

from histofeat.evaluation import FairFolds, FeatureBank, Plan, fair_folds, run_in_threads
from histofeat.features import Runtime, check_unique_names
from histofeat.model_selection import PatientKFold
from histofeat.models import check_enough_patients

__all__ = ["MeasuredFolds", "measure_folds"]


@dataclass
class MeasuredFolds:
    """Features and folds of one pipeline; what `FeatureBank` needs to know of it, too.

    Parameters
    ----------
    dataset : PatchDataset
    folds : FairFolds
        Training and test rows of each fold, and who is not tested.
    plan : Plan
        The pipeline taken apart.
    runtime : Runtime
    """

    dataset: Any
    folds: FairFolds
    plan: Plan
    runtime: Runtime
    conversions: Counter = field(default_factory=Counter)
    computed: Counter = field(default_factory=Counter)
    seconds: Counter = field(default_factory=Counter)

    def __post_init__(self):
        self.y, self.patients = self.dataset.y, self.dataset.patients
        self.splits, self.left_out, self.accepted = self.folds.splits, self.folds.left_out, self.folds.accepted
        self.n_classes = len(self.dataset.target_names)
        self.names = [name for family in self.plan.families for name in family.get_feature_names_out()]
        self.tested = np.sort(np.concatenate([test for _, test in self.splits]))
        self.bank = FeatureBank([self.plan], self).measure_folds()

    @contextmanager
    def timed(self, stage):
        """Add the seconds of a block to those of its stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def features(self, fold, rows):
        """Features of some rows as the head of this fold sees them, float32 of shape (n_rows, d)."""
        return self.bank.rows(self.plan, fold, rows)

    def family_columns(self):
        """Give the column numbers of each family by name; families of one name are one."""
        columns, start = {}, 0
        for family in self.plan.families:
            stop = start + len(family.get_feature_names_out())
            columns.setdefault(family.family, []).extend(range(start, stop))
            start = stop
        return {name: np.array(numbers) for name, numbers in columns.items()}

    def fit_heads(self, column_sets):
        """Fit a head on each set of columns in each fold.

        Parameters
        ----------
        column_sets : sequence of ndarray of int

        Returns
        -------
        heads : list of list of FeatureHead
            For each set, one per fold.
        """
        tasks = [(columns, fold) for columns in column_sets for fold in range(len(self.splits))]
        heads = run_in_threads(lambda task: self._fit(*task), tasks, self.runtime, "fit")
        n_folds = len(self.splits)
        return [heads[start : start + n_folds] for start in range(0, len(heads), n_folds)]

    def _fit(self, columns, fold):
        train, _ = self.splits[fold]
        head = clone(self.plan.head)
        if not (head.calibrate or hasattr(head.classifier, "predict_proba")):
            head.set_params(calibrate=True)
        return head.fit(self.features(fold, train)[:, columns], self.y[train], groups=self.patients[train])

    def probabilities(self, head, features):
        """Class probabilities (n, k), float64; a class that the head never saw has probability 0."""
        spread = np.zeros((len(features), self.n_classes))
        spread[:, head.classes_] = head.predict_proba(features)
        return spread


def measure_folds(dataset, pipeline, cv, *, owner, audit=None, runtime=None):
    """Check the folds, measure the patches, and say what cannot run by raising it; `owner` is who asks.

    Raises
    ------
    GroupLeakageError
        If a patient is on both sides of a fold, or an encoder knows a tested patient.
    WeightsError, MissingExtraError
        If a family of the pipeline cannot run here.
    ValueError
        If `pipeline` is none, a class is never tested, patients are too few to calibrate the head on, or every tested
        patient is known to an encoder.
    """
    if not hasattr(pipeline, "make_head") or not hasattr(pipeline, "families"):
        raise ValueError(f"explanation.pipeline: expected an IDCPipeline, got {pipeline!r:.80}. Pass IDCPipeline().")
    if getattr(pipeline, "takes_pixels", False):
        raise ValueError(
            "explanation.pipeline: expected feature families to explain, got features='pixels'. Name families."
        )
    runtime, cv = Runtime.of(runtime), PatientKFold(5) if cv is None else cv
    folds = fair_folds(cv, dataset, pipeline, owner=owner, audit=audit, runtime=runtime)
    counts = np.bincount(
        dataset.y[np.concatenate([test for _, test in folds.splits])], minlength=len(dataset.target_names)
    )
    if not counts.all():
        raise ValueError(
            f"explanation.cv: expected tested patches of every class, got none of "
            f"{dataset.target_names[int(counts.argmin())]!r}. A ROC-AUC needs both; test other patients too."
        )
    families = pipeline.families()
    check_unique_names([family.get_feature_names_out() for family in families])
    plan = Plan("explained", "", pipeline, families, pipeline.make_head())
    for train, _ in folds.splits:
        check_enough_patients(plan.head, dataset.y[train], dataset.patients[train], "explanation.pipeline")
    return MeasuredFolds(dataset, folds, plan, runtime)
