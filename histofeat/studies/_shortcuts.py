"""The shortcut panel: scores of shortcuts alone under the folds of an evaluation, beside its best model."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from histofeat.datasets import PatchDataset
from histofeat.evaluation import Evaluation, FoldFit, fold_of_rows, look_at, out_of_fold
from histofeat.exceptions import DatasetError, check_shape, check_type
from histofeat.features import PatchFeatures, Runtime, extract, leave_out_unreadable, make_family
from histofeat.metrics import bootstrap_scores, plain_values, scores
from histofeat.model_selection import encode_patients, fold_rows
from histofeat.models import make_head
from histofeat.studies._fitted_folds import why_not
from histofeat.studies._leakage import PATCHES_PER_PATIENT, Identification, identify_patients
from histofeat.studies._shortcut_families import BackgroundFraction, CompressionAndBlur, MeanColor, coordinate_features

HANDCRAFTED = ("color", "lbp", "haralick")
"""Families that patients are identified with by default."""

PROBE_HEAD = {"n_estimators": 100, "max_depth": 3, "learning_rate": 0.1, "colsample_bytree": 1.0}
"""A small XGBoost for few columns; it is not linear, so that it does not underestimate a shortcut."""

_ALL = "all of these together"
_DEFINITIONS = {
    "mean_color": "mean of red, green and blue",
    "background": "share of bright colourless pixels",
    "compression_and_blur": "steps at 8x8 block borders, share of high frequencies that are zero, sharpness",
    "coordinates": "x and y on the slide, and relative to the patient's own extent",
}

STRATA = 10
"""Strata of each fold, in which the patches have nearly the same score of a shortcut."""

NOTHING = (math.nan, math.nan)
Families = Sequence[str | PatchFeatures]


@dataclass(frozen=True)
class Probe:
    """A classifier on one shortcut alone, under the folds of an evaluation.

    Parameters
    ----------
    name : str
        The shortcut.
    definition : str
        What exactly the classifier sees.
    n_features : int
    roc_auc : float
        Of the out-of-fold scores.
    ci95 : tuple of (float, float)
        95 % interval, from resampling patients.
    within : float
        ROC-AUC of the reference within strata of nearly equal scores of the shortcut, `STRATA` in each fold; what lies
        above `left` is what the reference adds. NaN without a reference, and with more than two classes.
    within_ci95 : tuple of (float, float)
        Its interval, from the same resamples.
    left : float
        ROC-AUC of the shortcut itself within these strata: 0.5 where they hold all of it, above where they are coarse.
    """

    name: str
    definition: str
    n_features: int
    roc_auc: float
    ci95: tuple[float, float]
    within: float = math.nan
    within_ci95: tuple[float, float] = NOTHING
    left: float = math.nan


@dataclass(frozen=True)
class Reference:
    """The model that the shortcuts are compared with."""

    name: str
    roc_auc: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class Skipped:
    """A probe or a family that could not run, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class ShortcutPanel:
    """What shortcuts reach on their own, and how well features recognise the patient.

    Parameters
    ----------
    rows : tuple of Probe
        One per shortcut; the last is all of them together.
    identification : tuple of Identification
        One per family.
    reference : Reference or None
        The model of highest ROC-AUC among those given.
    not_run : tuple of Skipped
    n_patients, n_patches : int
        What was tested.
    n_folds : int
    n_resamples, random_state : int
        Behind the intervals.
    patient_overlap : bool
        Whether a patient is on both sides of a fold. A probe then shows what the leak gives it.
    registered : str or None
        A sentence on registered test patients among those tested.
    """

    rows: tuple[Probe, ...]
    identification: tuple[Identification, ...]
    reference: Reference | None
    not_run: tuple[Skipped, ...]
    n_patients: int
    n_patches: int
    n_folds: int
    n_resamples: int
    random_state: int
    patient_overlap: bool
    registered: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give the content as dicts, lists and plain values, None for what is undefined: ready for JSON."""
        return plain_values(self)


def shortcut_panel(
    dataset: PatchDataset,
    splits: Any,
    *,
    reference_scores: Mapping[str, np.ndarray] | None = None,
    families_to_identify: Families = HANDCRAFTED,
    random_state: int = 0,
    n_resamples: int = 2000,
    runtime: Runtime | None = None,
) -> ShortcutPanel:
    """Measure what shortcuts reach on their own, and how well features recognise the patient.

    Parameters
    ----------
    dataset : PatchDataset
        The patches.
    splits : sequence of (train, test)
        Row numbers of each fold, as in ``Evaluation.splits``; no row is tested twice.
    reference_scores : mapping of str to ndarray of shape (n, k), optional
        Out-of-fold probabilities of models under the same folds, as in ``ModelResult.proba``. The one of highest
        ROC-AUC becomes the reference.
    families_to_identify : sequence of str or PatchFeatures, default=("color", "lbp", "haralick")
        Families, or their names, to identify patients with, beside the shortcuts.
    random_state : int, default=0
        Seed of the heads, of the draw of patches and of the resamples.
    n_resamples : int, default=2000
        Resamples of the patients behind each interval; 0 for none.
    runtime : Runtime, optional
        Threads, feature store and progress; its stage is "fit". Results do not depend on it.

    Returns
    -------
    panel : ShortcutPanel
        What could not run, such as coordinates where there are none, is in ``not_run`` with the reason.

    Raises
    ------
    ValueError
        If the splits or the reference scores do not fit the data set.

    Notes
    -----
    Each probe is XGBoost with `PROBE_HEAD`, fitted on the training rows of each fold. Its ROC-AUC bounds nothing: a
    model may use more of a shortcut than this small classifier finds, or none of it. Nor is all of it a fault: mean
    colour is the scanner and the stain, and it is the number of nuclei as well. What the reference adds is its ROC-AUC
    among patches of the same fold and the same tenth of the shortcut's out-of-fold score, which the shortcut itself
    hardly orders: pairs over all strata, as `histofeat.metrics.ranking_scores` counts those of folds.

    Examples
    --------
    >>> from histofeat import PatientKFold, make_cohort
    >>> cohort = make_cohort(n_patients=6, patches_per_patient=10)
    >>> splits = list(PatientKFold(2).split(cohort.X, cohort.y, cohort.patients))
    >>> panel = shortcut_panel(cohort, splits, families_to_identify=(), n_resamples=50)
    >>> [row.name for row in panel.rows]
    ['mean_color', 'background', 'compression_and_blur', 'coordinates', 'all of these together']
    """
    dataset.require_images("shortcut_panel")
    dataset, splits, runtime = leave_out_unreadable(dataset, splits, runtime)
    splits = fold_rows(splits, dataset.y, dataset.patients, "shortcut_panel.splits")
    look, fold = look_at(dataset, splits, runtime), fold_of_rows(splits, len(dataset))
    tested, (_, codes) = np.flatnonzero(fold >= 0), encode_patients(dataset.patients, len(dataset), "dataset.patients")
    resampling = {"n_resamples": n_resamples, "random_state": random_state, "n_jobs": runtime.n_jobs}
    resampling["fold"] = fold[tested]
    reference, best = _best_reference(reference_scores, dataset, tested, resampling)
    features, not_run = _measure(dataset, families_to_identify, runtime)
    matrices, no_place = _probe_matrices(dataset, features)
    head = make_head("xgboost", random_state=random_state, params=PROBE_HEAD)
    tasks = [FoldFit(name, head, matrices[name], train, test) for name in matrices for train, test in splits]
    fits = out_of_fold(tasks, dataset.y, dataset.patients, len(dataset.target_names), runtime)
    rows = tuple(
        _row(name, matrices[name].shape[1], proba[tested], dataset, tested, best, resampling)
        for name, proba in fits.items()
    )
    identification, unidentified = _identify(features, dataset, random_state, n_resamples)
    return ShortcutPanel(
        rows=rows,
        identification=identification,
        reference=reference,
        not_run=(*no_place, *not_run, *unidentified),
        n_patients=len(set(dataset.patients[tested])),
        n_patches=len(tested),
        n_folds=len(splits),
        n_resamples=int(n_resamples),
        random_state=int(random_state),
        patient_overlap=any(np.isin(codes[test], codes[train]).any() for train, test in splits),
        registered=look and look.record({"pipeline": f"shortcut {row.name}", "roc_auc": row.roc_auc} for row in rows),
    )


def panel_of(
    evaluation: Evaluation, *, families_to_identify: Families = HANDCRAFTED, runtime: Runtime | None = None
) -> ShortcutPanel:
    """Give the shortcut panel of an evaluation: its folds, its resamples, its best model as reference.

    Parameters
    ----------
    evaluation : Evaluation
        As from `histofeat.evaluation.evaluate`.
    families_to_identify, runtime
        As in `shortcut_panel`; with the store of the evaluation nothing is measured twice.

    Returns
    -------
    panel : ShortcutPanel
    """
    return shortcut_panel(
        evaluation.dataset,
        evaluation.splits,
        reference_scores={f"{model.name}, {model.head}": model.proba for model in evaluation.models},
        families_to_identify=families_to_identify,
        random_state=evaluation.protocol["random_state"],
        n_resamples=evaluation.protocol["n_resamples"],
        runtime=runtime,
    )


# --- what comes in ---------------------------------------------------------------------------------------------------


def _best_reference(reference_scores, dataset, tested, resampling):
    """Find the model of highest ROC-AUC: (Reference, its scores of the tested rows), or (None, None)."""
    reference_scores = {} if reference_scores is None else reference_scores
    expected = "a mapping of names to probabilities"
    check_type("shortcut_panel.reference_scores", reference_scores, Mapping, expected, "Give {'model': proba}.")
    if not reference_scores:
        return None, None
    y, found, shape = dataset.y[tested], {}, (len(dataset), len(dataset.target_names))
    for name, proba in reference_scores.items():
        proba = np.asarray(proba, dtype=np.float64)
        remedy = "Give one row of probabilities for every patch of the data set."
        check_shape(f"shortcut_panel.reference_scores[{name!r}]", proba, shape, remedy)
        found[name] = scores(y, proba[tested], fold=resampling["fold"])["roc_auc"]
    best = max(found, key=lambda name: found[name] if np.isfinite(found[name]) else -1.0)
    proba = np.asarray(reference_scores[best], dtype=np.float64)[tested]
    resamples = bootstrap_scores(y, proba, dataset.patients[tested], metrics=("roc_auc",), **resampling)
    return Reference(best, found[best], resamples.interval("roc_auc")), proba


def _measure(dataset, families, runtime):
    """Measure shortcuts and families in one pass: (mapping of name to (n, d) float32, what cannot run)."""
    wanted = [MeanColor(), BackgroundFraction(), CompressionAndBlur()]
    not_run = []
    for family in families:
        settled = make_family(family) if isinstance(family, str) else family
        where, expected = "shortcut_panel.families_to_identify", "names or estimators of feature families"
        check_type(where, settled, PatchFeatures, expected, "Give names such as 'color'.")
        reason = why_not([settled])
        if reason is None:
            wanted.append(settled)
        else:
            not_run.append(Skipped(f"{settled.family}: patient identification", reason))
    found = extract(wanted, dataset.X, n_jobs=runtime.n_jobs, store=runtime.store).features
    # Two networks share a family name; what tells them apart is how they are written.
    names = [family.family for family in wanted]
    names = [repr(family) if names.count(name) > 1 else name for name, family in zip(names, wanted, strict=True)]
    return dict(zip(names, found, strict=True)), not_run


def _probe_matrices(dataset, features):
    """Columns of each probe by name, all of them together last, and what is missing."""
    matrices = {name: features[name] for name in _DEFINITIONS if name in features}
    missing = []
    try:
        matrices["coordinates"] = coordinate_features(dataset)
    except DatasetError as error:
        missing.append(Skipped("coordinates", str(error)))
    matrices[_ALL] = np.hstack(list(matrices.values()))
    return matrices, missing


# --- what goes out ---------------------------------------------------------------------------------------------------


def _row(name, n_features, proba, dataset, tested, reference, resampling):
    known = {"metrics": ("roc_auc",), **resampling}
    y, patients = dataset.y[tested], dataset.patients[tested]
    alone, within = bootstrap_scores(y, proba, patients, **known), ()
    if reference is not None and proba.shape[1] == 2:
        known["fold"] = strata_of(proba[:, 1], known["fold"])
        added = bootstrap_scores(y, reference, patients, **known)
        left = scores(y, proba, fold=known["fold"])["roc_auc"]
        within = added.estimates["roc_auc"], added.interval("roc_auc"), left
    definition = "the columns of every shortcut above" if name == _ALL else _DEFINITIONS[name]
    return Probe(name, definition, n_features, alone.estimates["roc_auc"], alone.interval("roc_auc"), *within)


def strata_of(score: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Number the strata of a score in each fold: its tenths, of which equal scores share one.

    Parameters
    ----------
    score : ndarray of shape (n,), float64
    fold : ndarray of shape (n,), int

    Returns
    -------
    strata : ndarray of shape (n,), int64
        Numbers of no two folds are equal; some are not used where scores are tied.

    Examples
    --------
    >>> strata_of(np.array([0.1, 0.1, 0.9, 0.5]), np.array([0, 0, 0, 1])).tolist()
    [0, 0, 9, 10]
    """
    strata = np.empty(len(score), dtype=np.int64)
    for number in np.unique(fold):
        rows = fold == number
        edges = np.quantile(score[rows], np.arange(1, STRATA) / STRATA)
        strata[rows] = number * STRATA + np.searchsorted(edges, score[rows])
    return strata


def _identify(features, dataset, random_state, n_resamples):
    """Identify patients by each family, on the same patches; or give the reason why that is not possible."""
    counts = Counter(dataset.patients)
    enough = sum(count >= PATCHES_PER_PATIENT for count in counts.values())
    if enough < 2:
        reason = f"{enough} of {len(counts)} patients have {PATCHES_PER_PATIENT} patches or more; it takes two."
        return (), (Skipped("patient identification", reason),)
    given = {"patients": dataset.patients, "n_resamples": n_resamples, "random_state": random_state}
    return tuple(identify_patients(matrix, family=name, **given) for name, matrix in features.items()), ()
