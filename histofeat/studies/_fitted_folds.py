"""Pipelines that can run here, measured once; their heads fitted on folds and scored on resamples of patients."""

from dataclasses import dataclass

import numpy as np
from sklearn.base import clone

from histofeat.evaluation import (
    FairFolds,
    FeatureBank,
    Plan,
    Run,
    Search,
    class_probabilities,
    fair_folds,
    fold_of_rows,
    run_in_threads,
    tune_head,
)
from histofeat.exceptions import MissingExtraError, WeightsError, check_name
from histofeat.features import extract, leave_out_unreadable
from histofeat.metrics import bootstrap_scores, mean_bootstrap
from histofeat.model_selection import PatientKFold
from histofeat.models import check_enough_patients
from histofeat.studies._study import pipelines_of


def runnable_pipelines(options):
    """Make the pipelines of a study with one head, and try each on one grey patch.

    Returns
    -------
    pipelines : dict of str to IDCPipeline
        Those that can run here.
    not_run : dict of str to str
        Why the others cannot.

    Raises
    ------
    ValueError
        If none can run.
    """
    pipelines = dict(pipelines_of(options, heads=["xgboost"]))
    not_run = why_none("--features", {name: pipeline.families() for name, pipeline in pipelines.items()})
    return {name: pipeline for name, pipeline in pipelines.items() if name not in not_run}, not_run


def why_none(option, sets):
    """Say which sets of families, given by name, cannot run here and why.

    Raises
    ------
    ValueError
        If none can run; the message names the option.
    """
    reasons = {name: why_not(families) for name, families in sets.items()}
    not_run = {name: reason for name, reason in reasons.items() if reason is not None}
    if len(not_run) == len(sets):
        name, reason = next(iter(not_run.items()))
        raise ValueError(f"{option}: expected a set that can run, got none: {name}: {reason}")
    return not_run


def why_not(families) -> str | None:
    """Say why families cannot run here, such as missing weights; None where they can."""
    try:
        extract([one for one in families if not hasattr(one, "given")], np.full((1, 50, 50, 3), 128, dtype=np.uint8))
    except (WeightsError, MissingExtraError) as error:
        return str(error)
    return None


def measure_once(sets, dataset, runtime):
    """Measure sets of families, given by name, in one pass over the images: a feature matrix for each set."""
    families = {repr(family): family for members in sets.values() for family in members}
    measured = extract(list(families.values()), dataset.X, n_jobs=runtime.n_jobs, store=runtime.store).features
    columns = dict(zip(families, measured, strict=True))
    return {name: np.hstack([columns[repr(family)] for family in members]) for name, members in sets.items()}


def check_members(where, expected, given, known):
    """Refuse a group that is empty or has a name that is not known."""
    for name in given or [None]:
        check_name(where, name, known, expected)


@dataclass
class MeasuredFolds:
    """Features and folds of one pipeline.

    Parameters
    ----------
    run : Run
    folds : FairFolds
        Training and test rows of each fold, and the patients that are not tested.
    plan : Plan
        The pipeline, split into families and head.
    search : Search, optional
        Parameters of the head that are chosen on the training patients of each fold.
    """

    run: Run
    folds: FairFolds
    plan: Plan
    search: Search | None = None

    def __post_init__(self):
        self.y, self.patients, self.splits = self.run.y, self.run.patients, self.run.splits
        self.n_classes = len(self.run.dataset.target_names)
        self.names = [name for family in self.plan.families for name in family.get_feature_names_out()]
        self.fold = fold_of_rows(self.splits, len(self.y))
        self.tested = np.flatnonzero(self.fold >= 0)
        self.bank = FeatureBank([self.plan], self.run).measure_folds()

    def features(self, fold, rows):
        """Features of some rows as the head of this fold sees them, float32 of shape (n_rows, d)."""
        return self.bank.features(self.plan, fold).take(rows)

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
        n_folds = len(self.splits)
        tasks = [(columns, fold) for columns in column_sets for fold in range(n_folds)]
        heads = run_in_threads(lambda task: self._fit(*task), tasks, self.run.runtime)
        return [heads[start : start + n_folds] for start in range(0, len(heads), n_folds)]

    def _fit(self, columns, fold):
        train, _ = self.splits[fold]
        head, X = clone(self.plan.head), self.features(fold, train)[:, columns]
        if not (head.calibrate or hasattr(head.classifier, "predict_proba")):
            head.set_params(calibrate=True)
        if hasattr(head.classifier, "restricted"):
            head.set_params(classifier=head.classifier.restricted(columns))
        if self.search is not None:
            known = X, self.y[train], self.patients[train], PatientKFold(3)
            head, _ = tune_head(head, *known, self.search, self.plan.head_name)
        return head.fit(X, self.y[train], groups=self.patients[train])

    def pooled(self, by_fold):
        """Put arrays of shape (n_test, k), one for each fold, in the order of `tested`."""
        pooled = np.empty((len(self.tested), self.n_classes))
        for (_, test), proba in zip(self.splits, by_fold, strict=True):
            pooled[np.searchsorted(self.tested, test)] = proba
        return pooled

    def areas(self, repeats, **resampling):
        """Score probabilities of one kind, such as repeats of a permutation, on shared resamples of the patients.

        Parameters
        ----------
        repeats : sequence of sequence of ndarray of shape (n_test, k), float64
            For each repeat, one array per fold.
        **resampling
            ``n_resamples`` and ``random_state`` of `histofeat.metrics.bootstrap_scores`; equal ones give the resamples
            of an evaluation of these patches.

        Returns
        -------
        areas : ndarray of shape (n_repeats,), float64
            ROC-AUC of each within folds; with more than two classes the one-vs-rest mean.
        mean : Bootstrap
            Their mean, and its resamples.
        """
        y, patients, fold = (column[self.tested] for column in (self.y, self.patients, self.fold))
        known = {"metrics": ("roc_auc",), "fold": fold, **resampling}
        found = [bootstrap_scores(y, self.pooled(by_fold), patients, **known) for by_fold in repeats]
        return np.array([each.estimates["roc_auc"] for each in found]), mean_bootstrap(found)

    def probabilities(self, head, features):
        """Class probabilities (n, k), float64; a class that the head never saw has probability 0."""
        return class_probabilities(head, features, self.n_classes)


def measure_folds(dataset, pipeline, cv, *, owner, audit=None, runtime=None):
    """Check the folds and measure the patches; raise what cannot run. `owner` is the function that an error names.

    Raises
    ------
    GroupLeakageError
        If a patient is on both sides of a fold, or an encoder was trained on a tested patient.
    WeightsError, MissingExtraError
        If a family of the pipeline cannot run here.
    ValueError
        If `pipeline` is none, a class is never tested, there are too few patients to calibrate the head, or an encoder
        was trained on every tested patient.
    """
    if not hasattr(pipeline, "make_head") or not hasattr(pipeline, "families"):
        raise ValueError(f"explanation.pipeline: expected an IDCPipeline, got {pipeline!r:.80}. Pass IDCPipeline().")
    if getattr(pipeline, "takes_pixels", False):
        raise ValueError(
            "explanation.pipeline: expected feature families to explain, got features='pixels'. Name families."
        )
    dataset, cv, runtime = leave_out_unreadable(dataset, cv, runtime)
    folds = fair_folds(cv, dataset, pipeline, owner=owner, audit=audit, runtime=runtime)
    tested = dataset.y[np.concatenate([test for _, test in folds.splits])]
    counts = np.bincount(tested, minlength=len(dataset.target_names))
    if not counts.all():
        raise ValueError(
            f"explanation.cv: expected tested patches of every class, got none of "
            f"{dataset.target_names[int(counts.argmin())]!r}. A ROC-AUC needs both; test other patients too."
        )
    plan = Plan("explained", "", pipeline).build()
    for train, _ in folds.splits:
        check_enough_patients(plan.head, dataset.y[train], dataset.patients[train], "explanation.pipeline")
    return MeasuredFolds(Run(dataset, folds.splits, runtime), folds, plan)
