"""How much a split by patch overestimates, and how well features recognise the patient, which is the reason."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve

from histofeat.datasets import PatchDataset
from histofeat.evaluation import AuditPolicy, NotRun, evaluate
from histofeat.exceptions import check_whole
from histofeat.features import Runtime, leave_out_unreadable
from histofeat.metrics import Bootstrap, bootstrap_scores, patient_weights, plain_values
from histofeat.model_selection import PatchKFold, PatientKFold, encode_patients
from histofeat.studies._study import with_store

LEAKAGE_METRICS = ("roc_auc", "balanced_accuracy", "f1", "accuracy")
"""What is compared: the first from the scores, the others from labels at the tuned threshold."""

#: Findings of every split by patch: shared patients, copies of a patch and sibling slides on both sides.
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
        Over the folds of whole patients, and over the folds of patches.
    honest_ci95, leaked_ci95 : tuple of (float, float)
        95 % intervals, from resampling patients.
    difference : float
        leaked - honest.
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
    constant_accuracy : float
        Accuracy of a classifier that always gives the class of most patches.
    registered : str or None
        As in `Evaluation.protocol`.
    """

    rows: tuple[LeakageRow, ...]
    not_run: tuple[NotRun, ...]
    n_patients: int
    n_patches: int
    n_folds: int
    touching: float
    n_resamples: int
    random_state: int
    constant_accuracy: float
    registered: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give the content as dicts, lists and plain values, None for what is undefined: ready for JSON."""
        return plain_values(self)


def measure_leakage(
    dataset: PatchDataset,
    pipelines: Any,
    *,
    n_splits: int = 5,
    n_resamples: int = 2000,
    random_state: int = 0,
    runtime: Runtime | None = None,
) -> Leakage:
    """Evaluate pipelines under `PatchKFold` and under `PatientKFold`, and compare.

    Parameters
    ----------
    dataset : PatchDataset
        Two classes.
    pipelines : IDCPipeline, mapping of str to IDCPipeline, or sequence of (str, IDCPipeline)
        As in `histofeat.evaluation.evaluate`.
    n_splits : int, default=5
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
    Under the split by patch the inner folds, which choose the threshold and calibrate the SVM, are of patches, too.
    Everything else is the same on both sides. Intervals cover other patients, not other folds or fits.

    Examples
    --------
    >>> from histofeat import IDCPipeline, make_signature_cohort
    >>> cohort = make_signature_cohort(n_patients=20, patches_per_patient=10, random_state=1)
    >>> pipelines = {"color": IDCPipeline(features="color", head="xgboost")}
    >>> row = measure_leakage(cohort, pipelines, n_splits=3, n_resamples=100).rows[0]
    >>> row.metric, row.leaked > 0.85, row.honest < 0.75
    ('roc_auc', True, True)
    """
    if len(dataset.target_names) != 2:
        raise ValueError(
            f"measure_leakage.dataset: expected two classes, got {len(dataset.target_names)}: "
            f"{', '.join(dataset.target_names)}. Give a data set of two classes."
        )
    dataset, _, runtime = leave_out_unreadable(dataset, None, runtime)
    shared = {"n_resamples": 0, "random_state": random_state}
    splitters = {"n_splits": n_splits, "random_state": random_state}
    with with_store(runtime) as shared["runtime"]:
        honest = evaluate(dataset, pipelines, PatientKFold(**splitters), inner_cv=PatientKFold(_INNER_SPLITS), **shared)
        shared["audit"] = AuditPolicy(accept_findings=_ACCEPTED)
        leaked = evaluate(dataset, pipelines, PatchKFold(**splitters), inner_cv=PatchKFold(_INNER_SPLITS), **shared)
    resampling = {"n_resamples": n_resamples, "random_state": random_state, "n_jobs": runtime.n_jobs}
    both = {(model.name, model.head): model for model in leaked.models}
    pairs = [(model, both[model.name, model.head]) for model in honest.models if (model.name, model.head) in both]
    return Leakage(
        rows=tuple(row for pair in pairs for row in _compare(*pair, (honest.fold, leaked.fold), dataset, resampling)),
        not_run=tuple(dict.fromkeys((*honest.not_run, *leaked.not_run))),
        n_patients=len(set(dataset.patients)),
        n_patches=len(dataset),
        n_folds=n_splits,
        touching=touching_share(dataset, leaked.splits),
        n_resamples=int(n_resamples),
        random_state=int(random_state),
        constant_accuracy=float(np.bincount(dataset.y).max() / len(dataset)),
        registered=leaked.protocol["registered"],
    )


def _compare(honest, leaked, folds, dataset, resampling):
    """Give the rows of one pipeline; every row of the data set is tested once on both sides."""
    samples, last = [], dataset.positive_last
    for model, fold in ((honest, folds[0]), (leaked, folds[1])):
        known = {"predicted": last(model.predicted_tuned), "metrics": LEAKAGE_METRICS, "fold": fold, **resampling}
        samples.append(bootstrap_scores(last(dataset.y), last(model.proba), dataset.patients, **known))
    paired = samples[1].minus(samples[0])
    for metric in LEAKAGE_METRICS:
        found = [(one.estimates[metric], one.interval(metric)) for one in (*samples, paired)]
        yield LeakageRow(honest.name, honest.head, honest.n_features, metric, *sum(found, ()))


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


PATCHES_PER_PATIENT = 10
"""Patches of each patient in the comparison by default."""

_FOLDS = 5
_SHRINKAGE = 0.1


@dataclass(frozen=True)
class Identification:
    """How well a family of features tells patients apart.

    Parameters
    ----------
    family : str
    n_features : int
    accuracy : float
        Share of the patches that are given to their own patient, the mean over patients.
    ci95 : tuple of (float, float)
        95 % interval, from resampling patients; the classifier and its choice of patients stay.
    chance : float
        Accuracy of guessing: 1 / number of patients.
    n_patients : int
        The patients with enough patches.
    patches_per_patient : int
        Patches of each, every one of them tested once.
    """

    family: str
    n_features: int
    accuracy: float
    ci95: tuple[float, float]
    chance: float
    n_patients: int
    patches_per_patient: int


def identify_patients(
    features: ArrayLike,
    patients: ArrayLike,
    *,
    family: str = "features",
    patches_per_patient: int = PATCHES_PER_PATIENT,
    n_resamples: int = 2000,
    random_state: int = 0,
) -> Identification:
    """Measure how often a classifier assigns a patch to its own patient.

    Parameters
    ----------
    features : ndarray of shape (n, d), float
        Finite.
    patients : array-like of shape (n,)
        Patient ids.
    family : str, default="features"
        What the result calls them.
    patches_per_patient : int, default=10
        Patches of each patient, at least 5, drawn at random; patients with fewer are left out.
    n_resamples, random_state : int
        Resamples of the patients behind the interval (0 for none), and the seed of these and of the draw.

    Returns
    -------
    identification : Identification

    Raises
    ------
    ValueError
        If fewer than two patients have enough patches, or an argument is invalid.

    Notes
    -----
    The patches of each patient are split into five parts; each is classified by the other four with `nearest_mean`.
    The accuracy is a lower bound on what the features know: another classifier may recognise more.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> patients = np.repeat(["a", "b", "c", "d"], 10)
    >>> stain = np.repeat(rng.normal(0, 5, (4, 2)), 10, axis=0)
    >>> found = identify_patients(stain + rng.normal(0, 0.1, (40, 2)), patients, n_resamples=100)
    >>> found.accuracy, found.chance
    (1.0, 0.25)
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or not np.isfinite(features).all():
        raise ValueError(
            f"identify_patients.features: expected finite numbers of shape (n, d), got shape {features.shape} with "
            f"{int((~np.isfinite(features)).sum())} that are not finite. Give what `extract` returns."
        )
    rows, codes, ids = _draw(patients, len(features), patches_per_patient, random_state)
    part = np.tile(np.arange(patches_per_patient) % _FOLDS, len(ids))
    chosen, right = features[rows], np.empty(len(rows))
    for fold in range(_FOLDS):
        test = part == fold
        right[test] = nearest_mean(chosen[~test], codes[~test], chosen[test]) == codes[test]
    of_patient = right.reshape(len(ids), patches_per_patient).mean(axis=1)
    samples = patient_weights(ids, n_resamples, random_state) @ of_patient / len(ids)
    accuracy = float(of_patient.mean())
    drawn = Bootstrap({"accuracy": samples}, len(ids), 0, {"accuracy": accuracy}, carriers=(len(ids),))
    return Identification(
        family=family,
        n_features=features.shape[1],
        accuracy=accuracy,
        ci95=drawn.interval("accuracy"),
        chance=1 / len(ids),
        n_patients=len(ids),
        patches_per_patient=patches_per_patient,
    )


def _draw(patients, n_rows, patches_per_patient, random_state):
    """Choose equally many rows of each patient: (rows, codes, ids)."""
    check_whole("identify_patients.patches_per_patient", patches_per_patient, _FOLDS, "Use 10.")
    ids, of_row = encode_patients(patients, n_rows, "patients")
    counts = np.bincount(of_row)
    enough = np.flatnonzero(counts >= patches_per_patient)
    if len(enough) < 2:
        raise ValueError(
            f"identify_patients.patients: expected two patients or more with {patches_per_patient} patches, got "
            f"{len(enough)} of {len(ids)}; the most are {counts.max()} patches. Give more patches of each patient."
        )
    rng = np.random.default_rng(random_state)
    rows = np.concatenate([rng.permutation(np.flatnonzero(of_row == code))[:patches_per_patient] for code in enough])
    return rows, np.repeat(np.arange(len(enough)), patches_per_patient), [ids[code] for code in enough]


def nearest_mean(train, codes, test, shrinkage=_SHRINKAGE):
    """Assign each row to the class with the nearest mean, in units of the spread within classes.

    Parameters
    ----------
    train : ndarray of shape (n, d), float64
    codes : ndarray of shape (n,), int
        Classes 0 to k - 1 of the training rows, each present.
    test : ndarray of shape (m, d), float64
    shrinkage : float in (0, 1], default=0.1
        How far the covariance is drawn towards a multiple of the identity.

    Returns
    -------
    found : ndarray of shape (m,), int64
        The nearest class; of equally near ones the first.

    Notes
    -----
    Linear discriminant analysis with equal priors and a covariance shrunk by a fixed share, on standardised columns.

    Examples
    --------
    >>> import numpy as np
    >>> train = np.array([[0.0, 0.0], [1.0, 4.0], [9.0, 0.0], [10.0, 4.0]])
    >>> nearest_mean(train, np.array([0, 0, 1, 1]), np.array([[2.0, 2.0], [8.0, 2.0]])).tolist()
    [0, 1]
    """
    centre, scale = train.mean(axis=0), train.std(axis=0)
    scale[scale == 0] = 1.0
    train, test = (train - centre) / scale, (test - centre) / scale
    counts = np.bincount(codes)
    means = np.zeros((len(counts), train.shape[1]))
    np.add.at(means, codes, train)
    means /= counts[:, np.newaxis]
    within = train - means[codes]
    covariance = within.T @ within / len(train)
    spread = np.trace(covariance) / len(covariance)
    # Rows of one class that are all the same have no spread: then distances are plain ones.
    covariance = (1 - shrinkage) * covariance + shrinkage * (spread or 1.0) * np.eye(len(covariance))
    directions = cho_solve(cho_factor(covariance), means.T)
    return (test @ directions - 0.5 * (means.T * directions).sum(axis=0)).argmax(axis=1)
