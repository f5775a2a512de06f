"""Measure how often 95 % intervals contain the truth, on simulated patients.

Scores are fixed, as of a model that is not fitted again. Patients are drawn from a known population; each repetition
draws new ones, makes intervals by resampling patients and by resampling patches, and checks whether they contain the
true value, which is the score of many patients of that population.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.special import expit

from histofeat.exceptions import check_whole
from histofeat.features import Runtime
from histofeat.metrics import METRIC_RECORDS, bootstrap_scores, patient_averages, scores
from histofeat.studies._study import Findings, Study, bars, option

METRICS = {name: METRIC_RECORDS[name].words for name in ("roc_auc", "f1", "balanced_accuracy", "brier")}
#: Which score, and what is resampled.
KINDS = {
    "patient": "pooled score, patients resampled",
    "patient_mean": "average over patients, patients resampled",
    "patch": "pooled score, patches resampled",
}
TARGET = (0.92, 0.98)
PATCHES_PER_PATIENT = (5, 35)
PREVALENCE_LOGIT, SCORE_INTERCEPT, SCORE_DISTANCE = -0.85, -1.0, 2.0


@dataclass(frozen=True)
class Population:
    """How much patients differ from each other.

    Parameters
    ----------
    name : str
    prevalence_sd : float
        Standard deviation of the logit of a patient's share of positive patches.
    level_sd : float
        Of the logit of all scores of a patient: stain, scanner, tissue.
    distance_sd : float
        Of the distance between the two classes within a patient: easy and hard cases.
    """

    name: str
    prevalence_sd: float
    level_sd: float
    distance_sd: float

    def draw(self, n_patients, rng):
        """Draw the patches of new patients.

        Returns
        -------
        y : ndarray of shape (n,), int64
        proba : ndarray of shape (n, 2), float64
        patients : ndarray of shape (n,), int64
            Numbers from 0, ascending.
        """
        n_patches = rng.integers(PATCHES_PER_PATIENT[0], PATCHES_PER_PATIENT[1] + 1, n_patients)
        patients = np.repeat(np.arange(n_patients), n_patches)
        prevalence = expit(PREVALENCE_LOGIT + self.prevalence_sd * rng.normal(size=n_patients))
        level = SCORE_INTERCEPT + self.level_sd * rng.normal(size=n_patients)
        distance = SCORE_DISTANCE + self.distance_sd * rng.normal(size=n_patients)
        y = (rng.random(len(patients)) < prevalence[patients]).astype(np.int64)
        positive = expit(level[patients] + distance[patients] * y + rng.normal(size=len(patients)))
        return y, np.column_stack([1 - positive, positive]), patients


POPULATIONS = (
    Population("none", 0.0, 0.0, 0.0),
    Population("medium", 1.0, 0.5, 0.5),
    Population("large", 2.0, 1.0, 1.0),
)


@dataclass(frozen=True)
class IntervalCoverage:
    """Coverage of 95 % intervals, one row per population, number of patients, kind of interval and metric.

    Parameters
    ----------
    rows : tuple of dict
        ``patients_differ, n_patients, metric, kind`` (of `KINDS`), ``n_repetitions, truth, coverage, mc_error`` (the
        standard error of the simulation), ``truth_below`` and ``truth_above`` (shares of the intervals), ``bias`` of
        the estimate, ``mean_width``, and ``needed_width``: 3.92 standard deviations of the estimates.
    repetitions, patch_repetitions, resamples, population : int
        As in `measure_interval_coverage`.
    """

    rows: tuple[dict[str, Any], ...]
    repetitions: int
    patch_repetitions: int
    resamples: int
    population: int

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain Python objects."""
        simulated = {
            "patches_per_patient": PATCHES_PER_PATIENT, "prevalence_logit": PREVALENCE_LOGIT,
            "score_intercept": SCORE_INTERCEPT, "score_distance": SCORE_DISTANCE,
            "populations": [asdict(population) for population in POPULATIONS],
        }  # fmt: skip
        sizes = {name: value for name, value in vars(self).items() if name != "rows"}
        found = {"coverage": self.rows, "summary": [self.summary(kind) for kind in KINDS]}
        return {"target": TARGET, "kinds": KINDS, "metrics": METRICS, **found, **simulated, **sizes}

    def summary(self, kind: str) -> dict[str, Any]:
        """Return how many cases of a kind of interval lie within the target, and which lie farthest outside."""
        rows = [row for row in self.rows if row["kind"] == kind]
        outside = [row for row in rows if not TARGET[0] <= row["coverage"] <= TARGET[1]]
        farthest = [] if kind == "patch" else sorted(outside, key=lambda row: -abs(row["coverage"] - 0.95))[:4]
        widths = [row["mean_width"] / row["needed_width"] for row in rows]
        return {
            "kind": kind,
            "cases": len(rows),
            "inside": len(rows) - len(outside),
            "differing": _ends(row["coverage"] for row in rows if row["patients_differ"] != "none"),
            "alike": _ends(row["coverage"] for row in rows if row["patients_differ"] == "none"),
            "relative_width": [float(np.mean(widths)), *_ends(widths)],
            "truth_below": float(np.mean([row["truth_below"] for row in rows])),
            "truth_above": float(np.mean([row["truth_above"] for row in rows])),
            "farthest": farthest,
        }


def _ends(values):
    """Return the smallest and the largest value; None where there is none."""
    values = list(values)
    return [min(values), max(values)] if values else None


def measure_interval_coverage(
    n_patients: Sequence[int] = (100, 200),
    *,
    repetitions: int = 1000,
    patch_repetitions: int = 250,
    resamples: int = 1000,
    population: int = 100_000,
    random_state: int = 0,
    runtime: Runtime | None = None,
) -> IntervalCoverage:
    """Simulate patients and count how often 95 % intervals contain the true score.

    Parameters
    ----------
    n_patients : sequence of int from 2
        Patients of a cohort; each number with each of `POPULATIONS`.
    repetitions : int from 2
        Cohorts drawn in each setting.
    patch_repetitions : int from 2
        In how many of them patches are resampled too, which takes far longer.
    resamples : int from 1
        Resamples behind each interval.
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
    sizes = {"repetitions": repetitions, "patch_repetitions": patch_repetitions, "resamples": resamples}
    sizes["population"], runtime = population, Runtime.of(runtime)
    for name, value in [*sizes.items(), *(("n_patients", number) for number in n_patients)]:
        least = {"resamples": 1, "population": 500}.get(name, 2)
        check_whole(name, value, least, "Leave it out for the default.")
    settings = [(place, number) for place in range(len(POPULATIONS)) for number in n_patients]
    rows = []
    for done, setting in enumerate(settings):
        runtime.report("simulate", done, len(settings))
        rows += _cover(setting, sizes, random_state, runtime.n_jobs)
    runtime.report("simulate", len(settings), len(settings))
    return IntervalCoverage(tuple(rows), **sizes)


def _cover(setting, sizes, seed, n_jobs):
    """Simulate one population and number of patients; return one row per kind and metric."""
    place, n_patients = setting
    true = _truth(POPULATIONS[place], sizes["population"], np.random.default_rng([seed, place]))
    # Threads suffice: the loop over the patches releases the interpreter.
    runs = Parallel(n_jobs=n_jobs, prefer="threads")(
        delayed(_repeat)(setting, number, sizes, seed) for number in range(sizes["repetitions"])
    )
    rows = []
    for kind in KINDS:
        for metric in METRICS:
            named = {"patients_differ": POPULATIONS[place].name, "n_patients": n_patients, "metric": metric}
            found = np.array([run[kind][metric] for run in runs if kind in run])
            rows.append(named | {"kind": kind} | _summary(true[kind][metric], found))
    return rows


def _truth(population, n_patients, rng):
    """Score so many patients that chance no longer matters; return {kind: {metric: value}}."""
    y, proba, patients = population.draw(n_patients, rng)
    pooled = scores(y, proba)
    total, counted = dict.fromkeys(METRICS, 0.0), 0
    for start in range(0, n_patients, 500):  # patients are scored one by one, so parts give the same and save memory
        rows = slice(*np.searchsorted(patients, [start, start + 500]))
        part = patient_averages(y[rows], proba[rows], patients[rows], metrics=METRICS, n_resamples=0)
        counted += len(part.patients)
        for metric in METRICS:
            total[metric] += part.values[metric].sum()
    return {"patient": pooled, "patch": pooled, "patient_mean": {name: total[name] / counted for name in METRICS}}


def _repeat(setting, number, sizes, seed):
    """Draw one cohort; return {kind: {metric: (estimate, low, high)}}."""
    place, n_patients = setting
    y, proba, patients = POPULATIONS[place].draw(n_patients, np.random.default_rng([seed, place, n_patients, number]))
    pooled = scores(y, proba)
    resampling = {"metrics": METRICS, "n_resamples": sizes["resamples"], "random_state": number}
    found = {"patient": bootstrap_scores(y, proba, patients, **resampling)}
    if number < sizes["patch_repetitions"]:
        found["patch"] = bootstrap_scores(y, proba, np.arange(len(y)), **resampling)
    averages = patient_averages(y, proba, patients, **resampling)
    intervals = {
        kind: {metric: (pooled[metric], *resamples.interval(metric)) for metric in METRICS}
        for kind, resamples in found.items()
    }
    intervals["patient_mean"] = {metric: (averages.mean(metric), *averages.interval(metric)) for metric in METRICS}
    return intervals


def _summary(true, found):
    """Count how many intervals (n, 3: estimate, low, high) contain the true value, and on which side the others lie."""
    estimate, low, high = found.T
    coverage = float(np.mean((low <= true) & (true <= high)))
    return {
        "n_repetitions": len(found),
        "truth": float(true),
        "coverage": coverage,
        "mc_error": float(np.sqrt(coverage * (1 - coverage) / len(found))),
        "truth_below": float(np.mean(true < low)),
        "truth_above": float(np.mean(true > high)),
        "bias": float(estimate.mean() - true),
        "mean_width": float(np.mean(high - low)),
        "needed_width": float(2 * 1.96 * estimate.std(ddof=1)),
    }


# --- the study -------------------------------------------------------------------------------------------------------


def run_interval_coverage(options, runtime):
    """Simulate every setting; draw the coverage of each metric."""
    names = ("repetitions", "patch_repetitions", "resamples", "population")
    sizes = {name: getattr(options, name) for name in names}
    patients = options.patients
    if options.quick:
        sizes, patients = dict(zip(names, (6, 3, 100, 1000), strict=True)), [100]
    found = measure_interval_coverage(patients, **sizes, random_state=options.seed, runtime=runtime)
    figures = {f"coverage_{metric}": _figure(found.rows, metric) for metric in METRICS}
    return Findings(found.to_dict(), {"coverage": pd.DataFrame(found.rows)}, figures)


def _figure(rows, metric):
    drawn = []
    for row in (row for row in rows if row["metric"] == metric):
        half, group = 1.96 * row["mc_error"], KINDS[row["kind"]].split(", ")[1]
        ends = {"low": row["coverage"] - half, "high": row["coverage"] + half}
        drawn.append({**row, **ends, "group": "average over patients" if row["kind"] == "patient_mean" else group})
    name = "differences {patients_differ}, {n_patients} patients"
    title = f"{METRICS[metric]}: how often the 95 % interval contains the truth"
    label, table = "coverage, with the interval of the simulation's own error", pd.DataFrame(drawn)
    return bars(title, label, table, "coverage", name, "group", reference=0.95)


INTERVAL_COVERAGE = Study(
    "interval-coverage",
    "Do the intervals cover? A simulation",
    "Count how often 95 % intervals contain the truth, on simulated patients.",
    run_interval_coverage,
    {
        "repetitions": option(1000, "cohorts drawn in each setting"),
        "patch-repetitions": option(250, "of which with patches resampled, too"),
        "resamples": option(1000, "resamples behind each interval"),
        "population": option(100_000, "patients behind the true values"),
        "patients": option([100, 200], "patients of a cohort"),
    },
    data=False,
)
