"""Measure how often 95 % intervals contain the truth, and how often tests err, on simulated patients.

The truth is known: of fixed scores, that of many patients of the population; where heads are fitted in folds, the mean
score of such heads on many patients.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.special import expit
from scipy.stats import binomtest

from histofeat.exceptions import check_whole
from histofeat.features import Runtime
from histofeat.metrics import (
    METRIC_RECORDS,
    METRICS,
    bootstrap_scores,
    holm,
    method_interval,
    nadeau_bengio,
    patient_averages,
    scores,
    step_down,
)
from histofeat.studies._study import Findings, lines

WORDS = {name: METRIC_RECORDS[name].words for name in METRICS}
INTERVALS = {
    "t": "default interval, fixed scores",
    "percentile": "percentile interval, fixed scores",
    "patient_mean": "default interval of the average over patients, fixed scores",
    "method": "interval of the method, for new fits",
    "refits": "default interval, which is of these fits, for new fits",
}
TESTS = {
    "paired_t": "paired t, two models; how often the interval of their difference misses",
    "step_down": "step-down max-T, three models and a reference",
    "holm": "Holm, three models and a reference",
    "corrected_t": "corrected t, folds of two methods",
    "bound": "bound of a score of 0 or 1, at the truth that is worst for it",
}
LEVEL, LARGEST_SIZE = 0.05, 0.07
#: By kind and labels: the fewest patients, and the lowest and highest coverage, for `TARGET_METRICS`.
TARGETS = {
    ("t", "patch"): (10, 0.92, 0.98),
    ("t", "patient"): (20, 0.90, 1.0),
    ("method", "patch"): (20, 0.92, 1.0),
    ("method", "patient"): (20, 0.92, 1.0),
}
TARGET_METRICS = ("roc_auc", "f1", "balanced_accuracy", "brier")
#: Patches of a patient; the logit of the share of positive ones; the logits of their scores.
SIMULATION = {"patches": (5, 35), "prevalence": -0.85, "intercept": -1.0, "distance": 2.0}
N_FOLDS = 5
_PATIENTS_AT_ONCE = 500


@dataclass(frozen=True)
class Population:
    """How much patients differ: standard deviations of logits, and whether patches or patients have labels.

    Those of the share of positive patches, of all scores (stain, scanner), and of the distance between the classes.
    """

    name: str
    prevalence_sd: float
    level_sd: float
    distance_sd: float
    labels: str

    def draw(self, n_patients, rng, n_scores=1):
        """Draw labels of patches, shape (n,), logits by models that are equally good, (n, n_scores), and patients."""

        def normal(size):  # models correlate by one half
            return (rng.normal(size=(size, 1)) + rng.normal(size=(size, n_scores))) / np.sqrt(2)

        n_patches = rng.integers(*SIMULATION["patches"], n_patients, endpoint=True)
        patients = np.repeat(np.arange(n_patients), n_patches)
        share = expit(SIMULATION["prevalence"] + self.prevalence_sd * rng.normal(size=n_patients))
        by_patient = rng.random(n_patients) < expit(SIMULATION["prevalence"])
        by_patch = rng.random(len(patients)) < share[patients]
        y = (by_patient[patients] if self.labels == "patient" else by_patch).astype(np.int64)
        level = SIMULATION["intercept"] + self.level_sd * normal(n_patients)
        distance = SIMULATION["distance"] + self.distance_sd * normal(n_patients)
        return y, level[patients] + distance[patients] * y[:, np.newaxis] + normal(len(patients)), patients


_DIFFERENCES = (("none", 0.0, 0.0, 0.0), ("medium", 1.0, 0.5, 0.5), ("large", 2.0, 1.0, 1.0))
POPULATIONS = tuple(Population(*sd, labels) for labels in ("patch", "patient") for sd in _DIFFERENCES)


@dataclass(frozen=True)
class IntervalCoverage:
    """Coverage of 95 % intervals, and size of tests.

    Parameters
    ----------
    rows : tuple of dict
        One per population, number of patients, kind (of `INTERVALS` or `TESTS`) and metric: ``coverage``, of a test the
        share of p > 0.05 where nothing differs (of several models, for all of them), in the ``n_repetitions`` that have
        an interval or p; its one-sided 95 % bounds ``low`` and ``high``; ``without``, the share of repetitions that
        have none. Of intervals also ``needed_width``, 3.92 standard deviations of the estimates.
    repetitions, resamples, population : int
        As in `measure_interval_coverage`.
    """

    rows: tuple[dict, ...]
    repetitions: int
    resamples: int
    population: int

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain Python objects."""
        return {
            **{"intervals": INTERVALS, "tests": TESTS, "metrics": WORDS, "target_metrics": TARGET_METRICS},
            **{"simulation": SIMULATION, "populations": [asdict(each) for each in POPULATIONS[:3]], **vars(self)},
            "summary": [self.summary(*key) for key in product((*INTERVALS, *TESTS), ("patch", "patient"))],
        }

    def summary(self, kind: str, labels: str) -> dict[str, Any]:
        """Return the worst and the best cell in words, and the cells outside the target by more than chance."""
        least, low, high = (0, 1 - LARGEST_SIZE, 1.0) if kind in TESTS else TARGETS.get((kind, labels), (0, 0.0, 1.0))
        asked = [row for row in self.rows if (row["kind"], row["labels"]) == (kind, labels)]
        rows = [row for row in asked if row["n_patients"] >= least]
        named = [row for row in rows if row["metric"] in TARGET_METRICS or kind in TESTS]
        return {
            **{"kind": kind, "labels": labels, "least": least, "lowest": low, "highest": high, "cells": len(named)},
            "outside": [row for row in named if row["high"] < low or row["low"] > high],
            **{"worst": _farthest(min, named), "best": _farthest(max, named), "worst_metric": _farthest(min, rows)},
        }


def _farthest(choose, rows):
    """Return the row of lowest or highest coverage, with its place in words, of a test its size; None without rows."""
    if not rows:
        return None
    row = choose(rows, key=lambda row: row["coverage"])
    share = 1 - row["coverage"] if row["kind"] in TESTS else row["coverage"]
    place = f"{WORDS[row['metric']]}, {row['n_patients']} patients, differences between them: {row['patients_differ']}"
    return row | {"words": f"{100 * share:.1f} % ({place})"}


def measure_interval_coverage(
    n_patients: Sequence[int] = (10, 20, 30, 49, 100, 200),
    *,
    compared: Sequence[int] = (10, 20, 49),
    repetitions: int = 2000,
    resamples: int = 500,
    population: int = 100_000,
    random_state: int = 0,
    runtime: Runtime | None = None,
) -> IntervalCoverage:
    """Simulate patients; count how often 95 % intervals contain the true score, and how often tests err.

    Parameters
    ----------
    n_patients, compared : sequence of int from 5
        Patients of a cohort, for intervals and where models are compared.
    repetitions, resamples : int from 2
        Cohorts drawn in each setting, and resamples behind each interval.
    population : int from 500
        Patients behind the true values.
    random_state : int
    runtime : Runtime, optional
        Threads, and progress with the stage "simulate".

    Returns
    -------
    IntervalCoverage

    Raises
    ------
    ValueError
        If a number is too small to give a result.
    """
    sizes = {"repetitions": repetitions, "resamples": resamples, "population": population}
    numbers = [("n_patients", number) for number in n_patients] + [("compared", number) for number in compared]
    for name, value in [*sizes.items(), *numbers]:
        least = {"population": _PATIENTS_AT_ONCE, "n_patients": N_FOLDS, "compared": N_FOLDS}.get(name, 2)
        check_whole(name, value, least, "Leave it out for the default.")
    simulations = [*product((_fixed, _refitted), n_patients), *product((_compared,), compared)]
    cells, runtime = [*product(simulations, range(len(POPULATIONS)))], Runtime.of(runtime)
    rows = []
    for done, ((simulate, number), place) in enumerate(cells):
        runtime.report("simulate", done, len(cells))
        rows += _cell(simulate, place, number, sizes, random_state, runtime.n_jobs)
    runtime.report("simulate", len(cells), len(cells))
    return IntervalCoverage(tuple(rows), **sizes)


def _cell(simulate, place, n_patients, sizes, seed, n_jobs):
    """Repeat one simulation; return a row for each kind of interval, or test, and metric."""
    population, n_true = POPULATIONS[place], sizes["population"] // _PATIENTS_AT_ONCE

    def repeat(number):
        rng = np.random.default_rng([seed, place, n_patients, number])
        resampling = {"n_resamples": sizes["resamples"], "random_state": number}
        return simulate(population, n_patients, rng, resampling, number < n_true)

    # Threads suffice: the loop over the patches releases the interpreter.
    found = Parallel(n_jobs=n_jobs, prefer="threads")(delayed(repeat)(each) for each in range(sizes["repetitions"]))
    values = {}
    for key, value in (entry for each in found for entry in each.items()):
        values.setdefault(key, []).append(value)
    cell = {"labels": population.labels, "patients_differ": population.name, "n_patients": n_patients}
    rows = [
        {**cell, "kind": kind, "metric": metric, **_count(np.array(these), values.get(("truth of " + kind, metric)))}
        for (kind, metric), these in values.items()
        if kind in TESTS or ("truth of " + kind, metric) in values
    ]
    return [row | {"without": 1 - row["n_repetitions"] / len(found)} for row in rows if row["n_repetitions"]]


def _probabilities(logits):
    """Give the probabilities of both classes."""
    return np.column_stack([expit(-logits), expit(logits)])


def _deal(y, patients, rng):
    """Deal patients out into folds, those with the same classes in turn; None where a class has too few patients."""
    n_patches, n_positive = np.bincount(patients), np.bincount(patients, y)
    carries = np.array([n_positive < n_patches, n_positive > 0])
    if carries.sum(axis=1).min() < N_FOLDS:
        return None
    fold = np.empty(len(n_patches), dtype=np.int64)
    fold[np.lexsort([rng.random(len(fold)), *carries])] = np.arange(len(fold)) % N_FOLDS
    return fold[patients]


def _discriminant(y, x):
    """Fit a linear discriminant analysis; return its weights and its constant."""
    negative, positive = x[y == 0], x[y == 1]
    means = negative.mean(axis=0), positive.mean(axis=0)
    centred = np.vstack([negative - means[0], positive - means[1]])
    weights = np.linalg.solve(centred.T @ centred / len(y) + 1e-6 * np.eye(x.shape[1]), means[1] - means[0])
    return weights, np.log(len(positive) / len(negative)) - weights @ (means[0] + means[1]) / 2


def _out_of_fold(y, x, fold):
    """Fit a head in each fold; return the probabilities out of fold, the scores of each fold, and the last head."""
    logits = np.empty(len(y))
    for number in range(N_FOLDS):
        test = fold == number
        weights, constant = _discriminant(y[~test], x[~test])
        logits[test] = x[test] @ weights + constant
    proba = _probabilities(logits)
    return proba, [scores(y[fold == k], proba[fold == k]) for k in range(N_FOLDS)], (weights, constant)


def _keyed(name, values):
    return {(name, metric): value for metric, value in values.items()}


def _fixed(population, n_patients, rng, resampling, tell_truth):
    """Draw one cohort; return {(kind, metric): (estimate, low, high)} for scores that are not fitted, and the truth."""
    (y, logits, patients), found = population.draw(n_patients, rng), {}
    proba, by_patch = _probabilities(logits), population.labels == "patch"
    if y.min() < y.max():
        drawn = bootstrap_scores(y, proba, patients, **resampling)
        for kind in ("t", "percentile"):
            ends = {name: (drawn.estimates[name], *drawn.interval(name, method=kind)) for name in METRICS}
            found |= _keyed(kind, ends)
    if by_patch:  # otherwise no patient has both classes
        means = patient_averages(y, proba, patients, **resampling)
        found |= _keyed("patient_mean", {name: (means.mean(name), *means.interval(name)) for name in METRICS})
    if tell_truth:
        many = _fixed(population, _PATIENTS_AT_ONCE, rng, {"n_resamples": 0}, False)
        found |= {("truth of " + kind, name): value for (kind, name), (value, *_) in many.items()}
    return found


def _refitted(population, n_patients, rng, resampling, tell_truth):
    """Draw one cohort and fit heads in its folds; return intervals as `_fixed` does, and the score of one head."""
    y, x, patients = population.draw(n_patients, rng, 4)
    fold = _deal(y, patients, rng)
    if fold is None:
        return {}
    proba, of_folds, (weights, constant) = _out_of_fold(y, x, fold)
    drawn, found = bootstrap_scores(y, proba, patients, fold=fold, **resampling), {}
    for name, value in drawn.estimates.items():
        ends = method_interval(name, value, [each[name] for each in of_folds], 1 / (N_FOLDS - 1))
        found |= {("method", name): (value, *ends), ("refits", name): (value, *drawn.interval(name))}
    if tell_truth:
        y, x, _ = population.draw(_PATIENTS_AT_ONCE, rng, 4)
        true = scores(y, _probabilities(x @ weights + constant))
        found |= _keyed("truth of method", true) | _keyed("truth of refits", true)
    return found


def _compared(population, n_patients, rng, resampling, tell_truth):
    """Draw one cohort; return {(test, metric): p} for models that are equally good."""
    (y, x, patients), found = population.draw(n_patients, rng, 4), {}
    if y.min() == y.max():
        return {}
    reference, *others = (bootstrap_scores(y, _probabilities(logits), patients, **resampling) for logits in x.T)
    equal = [other.minus(reference) for other in others]
    for name in METRICS:
        p = np.array([each.p_value(name) for each in equal])
        found["paired_t", name] = p[0]
        if np.isfinite(p).all() and all(each.standard_error(name) > 0 for each in equal):
            differences, samples = zip(*((each.estimates[name], each.samples[name]) for each in equal), strict=True)
            *_, adjusted = step_down(differences, samples, min(reference.carriers) - 1, n_patients)
            found |= {("step_down", name): np.maximum(adjusted, p).min(), ("holm", name): holm(p).min()}
    return found | _corrected(y, x, _deal(y, patients, rng)) | _bounded(y, patients, rng, resampling)


def _corrected(y, x, fold):
    """Test two methods that are equally good on the same folds."""
    found, halves = {}, () if fold is None else (x[:, :2], x[:, 2:])
    of_folds = [_out_of_fold(y, half, fold)[1] for half in halves]
    for name in METRICS if of_folds else ():
        differences = [one[name] - other[name] for one, other in zip(*of_folds, strict=True)]
        if np.isfinite(differences).all():
            found["corrected_t", name] = nadeau_bengio(differences, test_train_ratio=1 / (N_FOLDS - 1)).p
    return found


def _bounded(y, patients, rng, resampling):
    """Score positive patients right or wrong as a whole, right as often as the bound of a score of 1 says."""
    positive = np.unique(patients[y == 1])
    if np.isin(patients[y == 0], positive).any():
        return {}
    share = (LEVEL / 2) ** (1 / len(positive)) * (1 - 1e-9)
    right = (rng.random(patients[-1] + 1) < share)[patients]
    logits = np.where(y == 0, 0.0, np.where(right, 1.0, -1.0))
    drawn, found = bootstrap_scores(y, _probabilities(logits), patients, **resampling), {}
    for name in ("roc_auc", "sensitivity"):
        low, high = drawn.interval(name)
        if np.isfinite(low):
            found["bound", name] = float(drawn.estimates[name] not in (0, 1) or low <= share <= high)
    return found


def _count(found, truths):
    """Count the intervals (n, 3: estimate, low, high) that hold the mean of `truths`, or the p-values (n,) above 5 %.

    The share has one-sided bounds by Clopper and Pearson (1934, doi:10.1093/biomet/26.4.404).
    """
    found, more = found[np.isfinite(found).reshape(len(found), -1).all(axis=1)], {}
    hits = found > LEVEL
    if truths is not None:
        (estimate, low, high), true = found.T, float(np.nanmean(truths))
        hits = (low <= true) & (true <= high)
    n, count = len(hits), int(hits.sum())
    if not n:
        return {"n_repetitions": 0}
    if truths is not None:
        more = {"truth": true, "truth_below": np.mean(true < low).item(), "truth_above": np.mean(true > high).item()}
        more |= {"mean_width": np.mean(high - low).item(), "needed_width": 2 * 1.96 * estimate.std().item()}
    least, most = map(float, binomtest(count, n).proportion_ci(0.9))
    return {"n_repetitions": n, "coverage": count / n, "low": least, "high": most, **more}


# --- the study -------------------------------------------------------------------------------------------------------


def run_interval_coverage(options, runtime):
    """Simulate every setting; draw the coverage of the metrics that the targets are about."""
    names = ("repetitions", "resamples", "population", "compared")
    sizes, patients = {name: getattr(options, name) for name in names}, options.patients
    if options.quick:
        sizes, patients = dict(zip(names, (6, 40, 1000, [10]), strict=True)), [10]
    found = measure_interval_coverage(patients, **sizes, random_state=options.seed, runtime=runtime)
    table = pd.DataFrame(found.rows)
    figures = {f"coverage_{metric}": _figure(table, metric) for metric in TARGET_METRICS}
    return Findings(found.to_dict(), {"coverage": table}, figures)


def _figure(table, metric):
    drawn = table[(table["metric"] == metric) & table["kind"].isin(set(INTERVALS) - {"patient_mean"})]
    panel = "labels by " + drawn["labels"] + ", differences " + drawn["patients_differ"]
    drawn = drawn.assign(panel=panel, kind=drawn["kind"].map(INTERVALS))
    title, axes = f"{WORDS[metric]}: coverage of 95 % intervals", {"x_label": "patients", "y_label": "coverage"}
    named = ("panel", "kind", "n_patients", "coverage")
    return lines(title, drawn, *named, **axes, ends=("low", "high"), x_log=True)
