"""The study of calibration: probabilities, thresholds and prediction sets, with and without class weights."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from histofeat.evaluation import assess_probabilities, run_in_threads
from histofeat.exceptions import check_real
from histofeat.metrics import (
    RULES,
    UNITS,
    bootstrap_scores,
    choose_threshold,
    confusion,
    fit_calibrator,
    fit_conformal,
    label_scores,
    measure_coverage,
    parse_rule,
)
from histofeat.model_selection import PatientKFold
from histofeat.models import HEADS, fit_with_inner_scores, make_head
from histofeat.studies._fitted_folds import measure_once, runnable_pipelines
from histofeat.studies._study import QUICK_TREES, Findings, bars, begin, check_names, describe_dataset, flat_table

_SCORES = ("sensitivity", "specificity", "balanced_accuracy", "f1")
_WEIGHTS = {None: "", "balanced": ", class weights"}
#: What prediction sets are calibrated on: the words of the page, and arguments of `fit_conformal`.
_CALIBRATED_ON = {
    words: {"unit": unit}
    for unit, words in zip(UNITS, ("all patches", "one patch per patient", "patients, equal weight"), strict=True)
} | {"patients, each class by itself": {"unit": "hierarchical", "per_class": True}}


@dataclass
class _Model:
    """One feature set with one head: its features, and what its folds found."""

    named: dict
    estimator: Any
    matrix: Any
    folds: list

    def pooled(self, of):
        """Put what each fold found in the rows that it tested."""
        rows = np.concatenate([fold["test"] for fold in self.folds])
        found = np.concatenate([of(fold) for fold in self.folds])
        return found[np.argsort(rows)]


def run_calibration(options, runtime):
    """Calibrate, choose thresholds and make prediction sets on training patients; score them on test patients."""
    rules = [rule.name for rule in RULES.values() if rule.number is None]
    rules += [f"sensitivity={sensitivity!r}" for sensitivity in options.sensitivity]
    for rule in rules:
        parse_rule(rule)
    check_names("--heads", options.heads, HEADS)
    pipelines, not_run = runnable_pipelines(options)
    dataset, cv, runtime = begin(options, runtime)
    splits = list(cv.split(dataset.X, dataset.y, dataset.patients))
    levels = possible_levels(dataset, splits, options.levels)
    models = _fit_all(dataset, pipelines, splits, (rules, levels), options, runtime)
    resampling = {"n_resamples": options.resamples, "random_state": options.seed}
    found = {"calibration": [], "thresholds": [], "conformal": []}
    for model in models:
        raw, calibrated = (model.pooled(lambda fold, key=key: fold[key]) for key in ("raw", "calibrated"))
        known = dataset.y, raw[:, 1], calibrated[:, 1], dataset.patients
        assessed = assess_probabilities(*known, **resampling).to_dict()
        found["calibration"].append({**model.named, "calibration": assessed})
        found["thresholds"] += _threshold_rows(model, raw, dataset, rules, resampling)
        found["conformal"] += _set_rows(model, dataset, levels, resampling)
    tables = {name: flat_table(rows, short=False) for name, rows in found.items()}
    results = {**found, "levels": levels, "folds": options.folds, "not_run": not_run}
    results["dataset"] = describe_dataset(dataset)
    return Findings(results, tables, _figures(found, results["dataset"]))


def possible_levels(dataset, splits, levels):
    """Return the coverages that the training patients of every fold allow, sorted.

    Raises
    ------
    ValueError
        If a level is no share, or none is possible.
    """
    for level in levels:
        check_real("--levels", level, "between 0 and 1", lambda value: 0 < value < 1, "Use 0.9.")
    sides = [(dataset.patients[train], dataset.y[train]) for train, _ in splits]
    n_patients = min(len(np.unique(patients[y == code])) for patients, y in sides for code in np.unique(y))
    possible = [level for level in sorted(set(levels)) if max(1 / (1 - level), 1 / level) <= n_patients + 1e-6]
    if not possible:
        raise ValueError(
            f"--levels: expected a coverage that {n_patients} training patients with a class allow, got {levels}. "
            "Ask for less."
        )
    return possible


def _fit_all(dataset, pipelines, splits, asked, options, runtime):
    """Fit every model on every fold; features are measured once."""
    sets, models = {name: pipeline.families() for name, pipeline in pipelines.items()}, []
    matrices = measure_once(sets, dataset, runtime)
    for name in pipelines:
        for head in dict.fromkeys(options.heads):
            trees = {"n_estimators": QUICK_TREES} if options.quick and head == "xgboost" else None
            known = {"random_state": options.seed, "params": trees, "families": sets[name]}
            for weight, words in _WEIGHTS.items():
                estimator = make_head(head, class_weight=weight, **known)
                models.append(_Model({"name": name, "head": f"{head}{words}"}, estimator, matrices[name], []))
    tasks = [(model, *split, dataset, asked, options.seed) for model in models for split in splits]
    done = run_in_threads(lambda task: _fit_fold(*task), tasks, runtime, "fit")
    for (model, *_), fold in zip(tasks, done, strict=True):
        model.folds.append(fold)
    return models


def _fit_fold(model, train, test, dataset, asked, seed):
    """Fit one model on one fold: calibration, thresholds and sets from its training patients, for its test patients."""
    y, patients, (rules, levels) = dataset.y[train], dataset.patients[train], asked
    inner_cv = PatientKFold(3, random_state=seed)
    head, inner = fit_with_inner_scores(model.estimator, model.matrix[train], y, patients, inner_cv)
    raw = head.predict_proba(model.matrix[test])
    return {
        "test": test,
        "raw": raw,
        "calibrated": fit_calibrator(y, inner).transform(raw),
        "thresholds": {rule: choose_threshold(y, inner[:, 1], rule) for rule in rules},
        "sets": {
            words: fit_conformal(y, inner, patients, levels, random_state=seed, **how).predict_set(raw)
            for words, how in _CALIBRATED_ON.items()
        },
    }


def _threshold_rows(model, raw, dataset, rules, resampling):
    """One row per rule, and one for 0.5: what the thresholds were, and what they give on the test patients."""
    for rule in ("0.5", *rules):
        if rule == "0.5":
            thresholds, labels = [0.5], (raw[:, 1] > 0.5).astype(int)
        else:
            thresholds = [fold["thresholds"][rule] for fold in model.folds]
            above = model.pooled(lambda fold, rule=rule: fold["raw"][:, 1] >= fold["thresholds"][rule])
            labels = above.astype(int)
        scores = label_scores(confusion(dataset.y, labels, 2))
        resamples = bootstrap_scores(dataset.y, raw, dataset.patients, predicted=labels, metrics=_SCORES, **resampling)
        yield {
            **model.named,
            "rule": rule,
            "asked": float(rule.partition("=")[2]) if "=" in rule else None,
            "lowest_threshold": min(thresholds),
            "highest_threshold": max(thresholds),
            **{name: {"value": float(scores[name]), "ci95": list(resamples.interval(name))} for name in _SCORES},
        }


def _set_rows(model, dataset, levels, resampling):
    """One row per calibration and level: the coverage that was asked for, and that of the test patients."""
    for words in _CALIBRATED_ON:
        sets = model.pooled(lambda fold, words=words: fold["sets"][words])
        for coverage in measure_coverage(sets, dataset.y, dataset.patients, levels, **resampling):
            row = coverage.to_dict()
            for name, end in (("per_class", ""), ("per_class_patients", "_patients"), ("carriers", "_carriers")):
                row |= {f"class_{code}{end}": value for code, value in enumerate(row.pop(name))}
            yield {**model.named, "calibrated_on": words, **row}


def _figures(found, dataset):
    """Reliability curves of each head; sensitivity and coverage beside what was asked for."""
    figures = {}
    for head in dict.fromkeys(row["head"] for row in found["calibration"]):
        rows = [row for row in found["calibration"] if row["head"] == head]
        name = f"reliability_{head.replace(', class weights', '_weighted')}"
        figures[name] = "reliability", {"head": head, "results": rows, "dataset": dataset}
    plain = flat_table([row for row in found["thresholds"] if row["asked"] and "class weights" not in row["head"]])
    for end in ("value", "low", "high"):
        plain[f"reached_{end}"] = plain[f"sensitivity_{end}"] - plain["asked"]
    sets = flat_table(found["conformal"])
    level = 0.9 if 0.9 in set(sets["level"]) else sets["level"].max()
    sets = sets[sets["level"] == level]
    reached = plain.rename(columns={"reached_value": "reached"}), "reached", "{name}, {head}: {asked:g}", "head"
    covered = sets, "class_1", "{name}, {head}", "calibrated_on"
    title, label = "Sensitivity of test patients - the one asked for", "difference, 95 % interval over patients"
    figures["sensitivity"] = bars(title, label, *reached)
    label = f"share of patches of {dataset['labels'][1]} whose set holds it, 95 % interval over patients"
    title = f"Coverage of {dataset['labels'][1]} by prediction sets, {level:g} asked for"
    figures["coverage"] = bars(title, label, *covered, reference=level)
    return figures
