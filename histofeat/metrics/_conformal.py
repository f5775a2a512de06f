"""Calibrate prediction sets with a stated coverage: conformal prediction on patients instead of patches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from histofeat.exceptions import check_name, check_real, check_shape
from histofeat.metrics._bootstrap import patient_weights, resampled_interval
from histofeat.metrics._definitions import check_predictions
from histofeat.metrics._out_of_fold import plain_values
from histofeat.model_selection import encode_patients

UNITS = ("patches", "one_per_patient", "hierarchical")

#: Probabilities this close are equal, as in MAPIE.
_EQUAL = 1e-8


@dataclass(frozen=True)
class ConformalPredictor:
    """Fitted prediction sets: a class is in the set if its probability is at least 1 - the cut.

    Parameters
    ----------
    unit : {"patches", "one_per_patient", "hierarchical"}
        What counted as one case, see `fit_conformal`.
    levels : tuple of float
        The coverages asked for, rising.
    cuts : tuple of float, or of tuple of float
        For each level the largest ``1 - probability`` that a class of the set may have; infinity puts every class in.
        With `per_class` each level has a cut for every class.
    n_patients, n_scores : int
        The patients that it was calibrated on, and the patches whose scores were used.
    per_class : bool, default=False
        Whether each class was calibrated by itself.
    """

    unit: str
    levels: tuple[float, ...]
    cuts: tuple[float, ...] | tuple[tuple[float, ...], ...]
    n_patients: int
    n_scores: int
    per_class: bool = False

    def predict_set(self, proba: ArrayLike) -> np.ndarray:
        """Predict the classes that cannot be ruled out.

        Parameters
        ----------
        proba : array-like of shape (n, k), float in [0, 1]
            Class probabilities of new patients, by the model and on the scale of those calibrated on.

        Returns
        -------
        sets : ndarray of shape (n, k, n_levels), bool
            Whether a class is in the set of a patch. A set may hold every class, and may be empty.

        Raises
        ------
        ValueError
            If a probability is NaN or out of range.
        """
        _, proba = check_predictions(np.zeros(len(proba), dtype=np.int64), proba)
        return 1 - proba[:, :, None] <= np.array(self.cuts).T + _EQUAL

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for files."""
        return plain_values(self)


@dataclass(frozen=True, eq=False)
class SetCoverage:
    """Share of the sets of one level that hold the true class, on patients that nothing was fitted on.

    Parameters
    ----------
    level : float
        The coverage asked for.
    patches : float
        Share of the patches whose set holds their class.
    patients : float
        Mean over the patients of the share of their patches, which "one_per_patient" and "hierarchical" guarantee.
    per_class : tuple of float
        Share of the patches of each class whose set holds it, NaN where there are none.
    per_class_patients : tuple of float
        Mean over the patients with patches of a class of the share of these, which a predictor with ``per_class``
        guarantees where its unit is "one_per_patient" or "hierarchical".
    carriers : tuple of int
        The patients with patches of each class.
    patients_below : float
        Share of the patients whose own share is below the level.
    one_class, empty : float
        Share of the patches whose set holds one class, or none.
    mean_size : float
        Mean number of classes in a set.
    n_patients : int
        Patients behind it.
    samples : Mapping of str to ndarray of shape (n_resamples,), float64
        "patches", "patients" and, for each class, "class_0" and so on under resamples of the patients.
    """

    level: float
    patches: float
    patients: float
    per_class: tuple[float, ...]
    per_class_patients: tuple[float, ...]
    carriers: tuple[int, ...]
    patients_below: float
    one_class: float
    empty: float
    mean_size: float
    n_patients: int
    samples: Mapping[str, np.ndarray] = field(repr=False)

    def interval(self, measure: str) -> tuple[float, float]:
        """Return the 95 % t interval of "patches", "patients" or, as in `per_class`, "class_0", "class_1" and so on.

        It is NaN without resamples, or with one patient.
        """
        if measure.startswith("class_"):
            code = int(measure.removeprefix("class_"))
            value, n = self.per_class[code], self.carriers[code]
        else:
            value, n = getattr(self, measure), self.n_patients
        return resampled_interval(value, self.samples[measure], n, n - 1, successes=n)

    def to_dict(self):
        """Plain values, for files."""
        plain = plain_values({name: value for name, value in vars(self).items() if name != "samples"})
        return {**plain, **{f"{name}_ci95": list(self.interval(name)) for name in self.samples}}


def fit_conformal(
    y: ArrayLike,
    proba: ArrayLike,
    patients: ArrayLike,
    levels: float | Sequence[float] = (0.8, 0.9, 0.95),
    unit: str = "hierarchical",
    random_state: int = 0,
    per_class: bool = False,
) -> ConformalPredictor:
    """Calibrate prediction sets on patients that the model had not seen.

    Parameters
    ----------
    y : array-like of shape (n,), int
        True class codes, every class present.
    proba : array-like of shape (n, k), float in [0, 1]
        Class probabilities of training patients by fits that had not seen them.
    patients : array-like of shape (n,)
        Patient id of every patch.
    levels : float or sequence of float in (0, 1), default=(0.8, 0.9, 0.95)
        The coverages asked for.
    unit : {"hierarchical", "one_per_patient", "patches"}, default="hierarchical"
        What counts as one case. "patches": every patch, as if patches of one patient were independent.
        "one_per_patient": one patch of each patient, drawn at random. "hierarchical": all patches, each patient with
        the same weight.
    random_state : int, default=0
        Seed of the draw of "one_per_patient".
    per_class : bool, default=False
        Whether to calibrate each class by itself, on its own patches, so that the level holds for each class.

    Returns
    -------
    predictor : ConformalPredictor

    Raises
    ------
    ValueError
        If a level or the unit is invalid, a class is missing, a probability is NaN or out of range, a shape does not
        fit, or there are fewer than ``1 / (1 - level)`` patients (patches, with "patches") for a level; with
        `per_class` those with the class.
    GroupLeakageError
        If a patient id is missing.

    Notes
    -----
    The score of a patch is 1 - the probability of its class (Sadinle, Lei and Wasserman 2019,
    doi:10.1080/01621459.2017.1395341; "lac" in MAPIE). Of n cases the cut is the ``ceil((n + 1) * level)``-th smallest
    score. Cases are exchangeable if every order of them is equally likely. Patients are, patches of a few patients are
    not: "patches" guarantees nothing here and is there for comparison.

    One random patch of each patient makes n exchangeable cases out of n patients (Dunn, Wasserman and Ramdas 2022,
    doi:10.1080/01621459.2022.2060112, single subsampling). "hierarchical" uses all patches: each of the m patches of
    one of n patients weighs 1 / (m (n + 1)), the remaining 1 / (n + 1) lies at infinity, and the cut is the quantile
    of that distribution (Lee, Barber and Willett 2023, doi:10.48550/arXiv.2306.06342, hierarchical conformal
    prediction).

    Both guarantee the following. Draw one patch at random from one new patient of the same population: its set holds
    its class with a probability of at least `level`, on average over patients and over draws of calibration patients,
    for any model that was fitted without looking at these. There is no guarantee for each patient, for pooled patches
    (where patients with many patches count more), or for another laboratory, and none for each class: a rare class is
    left out more often than the level says, a frequent one less often. `per_class` guarantees the level for a random
    patch of each class, of a new patient who has some, at the price of larger sets (label-conditional, or Mondrian,
    prediction: Vovk 2013, doi:10.1007/s10994-013-5355-6). Out-of-fold scores weaken the guarantee: they come from
    several inner fits, on fewer patients than the model that scores the new ones. Measure the coverage with
    `measure_coverage`.

    Examples
    --------
    >>> y, positive = [0, 1] * 10, np.array([0.1, 0.8, 0.4, 0.7] * 5)
    >>> proba = np.column_stack([1 - positive, positive])
    >>> predictor = fit_conformal(y, proba, np.repeat(list("abcdefghij"), 2), levels=0.8)
    >>> [round(cut, 2) for cut in predictor.cuts]
    [0.4]
    >>> predictor.predict_set([[0.9, 0.1], [0.5, 0.5], [0.4, 0.6]])[:, :, 0].tolist()
    [[True, False], [False, False], [False, True]]
    """
    levels = _check_levels(levels)
    check_name("fit_conformal.unit", unit, UNITS)
    y, proba = check_predictions(y, proba)
    missing = np.setdiff1d(np.arange(proba.shape[1]), y)
    if missing.size:
        raise ValueError(
            f"fit_conformal.y: expected patches of all {proba.shape[1]} classes, got none of class {missing[0]} "
            f"({missing.size} such classes). Calibrate on patients of every class."
        )
    ids, codes = encode_patients(patients, len(y), "patients")
    scores = 1 - proba[np.arange(len(y)), y] / proba.sum(axis=1)
    parts = [y == code for code in range(proba.shape[1])] if per_class else [np.full(len(y), True)]
    found, n_scores = [], 0
    for code, part in enumerate(parts):
        cases = scores[part], np.unique(codes[part], return_inverse=True)[1]
        if unit == "one_per_patient":
            cases = tuple(values[_one_of_each(cases[1], random_state)] for values in cases)
        # Where a case is one patch, every case is a patient of its own.
        if unit == "patches":
            cases = cases[0], np.arange(len(cases[0]))
        _check_enough(levels, cases[1].max() + 1, unit, f" with class {code}" if per_class else "")
        found.append(hierarchical_quantiles(*cases, levels).tolist())
        n_scores += len(cases[0])
    cuts = tuple(zip(*found, strict=True)) if per_class else tuple(found[0])
    return ConformalPredictor(unit, levels, cuts, len(ids), n_scores, per_class)


def _check_levels(levels):
    found = np.unique(np.asarray(levels, dtype=np.float64)).tolist()
    for level in found or [None]:
        check_real("fit_conformal.levels", level, "between 0 and 1", lambda value: 0 < value < 1, "Use 0.9.")
    return tuple(found)


def _check_enough(levels, n, unit, of_class):
    needed = int(np.ceil(round(max(1 / (1 - levels[-1]), 1 / levels[0]), 6)))
    if n < needed:
        kind = "patches" if unit == "patches" else "patients"
        raise ValueError(
            f"fit_conformal.patients: expected at least {needed} {kind}{of_class} for levels from {levels[0]} to "
            f"{levels[-1]}, got {n}. Calibrate on more, or ask for less extreme levels."
        )


def _one_of_each(codes, random_state):
    """Draw one row of each patient, all rows of a patient with the same chance."""
    shuffled = np.random.default_rng(random_state).permutation(len(codes))
    _, first = np.unique(codes[shuffled], return_index=True)
    return shuffled[first]


def hierarchical_quantiles(scores, codes, levels):
    """Quantiles of the scores of new patients' patches, each patient with the same weight.

    Parameters
    ----------
    scores : ndarray of shape (n,), float64
        Conformity score of each patch.
    codes : ndarray of shape (n,), int64
        Patient of each patch, 0 to n_patients - 1, all present.
    levels : sequence of float
        Coverages.

    Returns
    -------
    quantiles : ndarray of shape (n_levels,), float64
        The lowest score at which the weights reach the level; infinity where all of them together do not.

    Examples
    --------
    >>> hierarchical_quantiles(np.array([0.1, 0.3, 0.5, 0.2]), np.array([0, 0, 1, 2]), [0.5, 0.8]).tolist()
    [0.3, inf]
    """
    order = np.argsort(scores, kind="stable")
    sizes = np.bincount(codes)
    reached = np.cumsum(1 / sizes[codes[order]]) / (len(sizes) + 1)
    # Sums of many fractions end a little beside the level that they reach exactly.
    position = np.searchsorted(reached, np.asarray(levels) - 1e-12)
    return np.append(scores[order], np.inf)[position]


def measure_coverage(
    sets: ArrayLike,
    y: ArrayLike,
    patients: ArrayLike,
    levels: float | Sequence[float],
    n_resamples: int = 2000,
    random_state: int = 0,
) -> tuple[SetCoverage, ...]:
    """Count how often prediction sets hold the true class, over patches, patients and classes.

    Parameters
    ----------
    sets : ndarray of shape (n, k, n_levels), bool
        As `ConformalPredictor.predict_set` gives them, of patients that nothing was fitted or calibrated on.
    y : array-like of shape (n,), int
        True class codes.
    patients : array-like of shape (n,)
        Patient id of every patch.
    levels : sequence of float
        The coverages that were asked for, one per level of `sets`.
    n_resamples, random_state : int
        Of `histofeat.metrics.patient_weights`.

    Returns
    -------
    coverage : tuple of SetCoverage
        One per level.

    Raises
    ------
    ValueError
        If the shapes of sets, labels, patients and levels do not fit, or a code is out of range.
    GroupLeakageError
        If a patient id is missing.

    Examples
    --------
    >>> sets = np.array([[[True], [False]], [[True], [True]], [[False], [True]], [[True], [False]]])
    >>> found = measure_coverage(sets, [0, 1, 1, 1], ["a", "a", "b", "b"], [0.9], n_resamples=10)[0]
    >>> found.patches, found.patients, round(found.per_class[1], 3), found.patients_below
    (0.75, 0.75, 0.667, 0.5)
    """
    sets = np.asarray(sets, dtype=bool)
    levels = tuple(np.atleast_1d(levels).tolist())
    remedy = "Pass what predict_set gives, with the levels of its predictor."
    check_shape("measure_coverage.sets", sets, ("n", "k", len(levels)), remedy)
    y, _ = check_predictions(y, np.full(sets.shape[:2], 1 / sets.shape[1]))
    ids, codes = encode_patients(patients, len(y), "patients")
    weights = patient_weights(patients, n_resamples, random_state)
    return tuple(_coverage(sets[:, :, i], y, codes, len(ids), level, weights) for i, level in enumerate(levels))


def _coverage(sets, y, codes, n_patients, level, weights):
    held = sets[np.arange(len(y)), y]
    # A row for all patches, and one for those of each class: patches of each patient, and those whose set holds theirs.
    chosen = [np.full(len(y), True), *(y == code for code in range(sets.shape[1]))]
    patches = np.array([np.bincount(codes[rows], minlength=n_patients) for rows in chosen])
    found = np.array([np.bincount(codes[rows], held[rows], minlength=n_patients) for rows in chosen])
    with np.errstate(invalid="ignore"):  # a class that is not there
        shares, pooled, carriers = found / patches, found.sum(axis=1) / patches.sum(axis=1), (patches > 0).sum(axis=1)
        means, samples = np.nansum(shares, axis=1) / carriers, (weights @ found.T) / (weights @ patches.T)
    size = sets.sum(axis=1)
    return SetCoverage(
        level=float(level),
        patches=float(pooled[0]),
        patients=float(means[0]),
        per_class=tuple(pooled[1:].tolist()),
        per_class_patients=tuple(means[1:].tolist()),
        carriers=tuple(carriers[1:].tolist()),
        patients_below=float((shares[0] < level - 1e-12).mean()),
        one_class=float((size == 1).mean()),
        empty=float((size == 0).mean()),
        mean_size=float(size.mean()),
        n_patients=n_patients,
        samples={"patches": samples[:, 0], "patients": (weights @ shares[0]) / n_patients}
        | {f"class_{code}": samples[:, code + 1] for code in range(sets.shape[1])},
    )
