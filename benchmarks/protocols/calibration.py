"""Probabilities, thresholds and prediction sets: what is asked for on training patients, and what others get.

    python benchmarks/protocols/calibration.py --data /path/to/idc --weights /path/to/weights

In folds of patients, on the IDC patients outside the official test set, with and without class weights: Brier score
and calibration error before and after calibration, thresholds by three rules, and conformal prediction sets. Writes
reports/calibration.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
# Also where this file is loaded from elsewhere; a script finds what lies beside it by itself.
sys.path[:0] = [str(REPOSITORY / "benchmarks"), str(REPOSITORY / "benchmarks" / "protocols")]

import run_all  # noqa: E402
from family_pipelines import family_pipelines, not_run_notice  # noqa: E402
from study import Study, command_line, development_patients, run_command, study_parser, write_study  # noqa: E402

PROGRAM = "calibration.py"
TITLE = "Probabilities, thresholds and prediction sets"
WEIGHTS = (None, "balanced")
LABELS = ("sensitivity", "specificity", "balanced_accuracy", "f1")
COVERAGES = ("patches", "patients", "class_0", "class_1", "patients_below", "one_class", "empty")


def make_parser():
    """Give the parser."""
    parser = study_parser(PROGRAM, "Measure calibration, thresholds and prediction sets.", "calibration")
    add = parser.add_argument
    add("--features", nargs="+", default=["handcrafted", "everything"], metavar="SET",
        help=f"feature sets: {', '.join(run_all.FEATURE_SETS)} (default: handcrafted everything)")  # fmt: skip
    add("--heads", nargs="+", default=["xgboost", "svm"], metavar="HEAD", help="default: xgboost svm")
    add("--sensitivity", nargs="+", type=float, default=[0.8, 0.9, 0.95, 0.99], metavar="S",
        help="required sensitivities (default: 0.8 0.9 0.95 0.99)")  # fmt: skip
    add("--levels", nargs="+", type=float, default=[0.8, 0.9, 0.95], metavar="L",
        help="coverages asked of prediction sets (default: 0.8 0.9 0.95)")  # fmt: skip
    add("--folds", type=int, default=5, help="folds of patients (default: 5)")
    add("--resamples", type=int, default=2000, metavar="N", help="resamples of the patients (default: 2000)")
    return parser


def run(options):
    """Load, fit, measure, write."""
    from histofeat.metrics import parse_rule
    from histofeat.reporting import check_output

    for sensitivity in options.sensitivity:
        parse_rule(f"sensitivity={sensitivity!r}")
    check_output(options.output, overwrite=options.overwrite, option="--overwrite")
    pipelines, not_run = family_pipelines(options)
    dataset = development_patients(options)
    print(f"{dataset.name}: {len(dataset):,} patches of {dataset.audit.n_patients:,} patients", flush=True)
    models = fit_all(dataset, pipelines, options)
    found = measure(models, dataset, options)
    study = make_study(found, not_run, dataset, options)
    report = write_study(study, options, command=command_line(f"protocols/{PROGRAM}", make_parser(), options))
    for block in study.blocks[:3]:
        print(getattr(block, "text", ""))
    print(f"report: {report}")


# --- the fits --------------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """One feature set with one head, before and after its fits."""

    features: str
    head: str
    weight: str | None
    estimator: Any
    matrix: Any
    raw: Any = None
    calibrated: Any = None
    labels: dict = field(default_factory=dict)
    thresholds: dict = field(default_factory=dict)
    sets: dict = field(default_factory=dict)

    @property
    def head_words(self):
        """The head, and its class weights."""
        return self.head if self.weight is None else f"{self.head}, class weights"


def fit_all(dataset, pipelines, options):
    """Fit every model on every fold; features are measured once."""
    import numpy as np
    from joblib import Parallel, delayed
    from threadpoolctl import threadpool_limits

    from histofeat import PatientKFold
    from histofeat.features import extract
    from histofeat.models import make_head

    families = {family.family: family for pipeline in pipelines.values() for family in pipeline.families()}
    measured = extract(list(families.values()), dataset.X, n_jobs=options.n_jobs, store=options.store)
    columns = dict(zip(families, measured.features, strict=True))
    models = []
    for name, pipeline in pipelines.items():
        matrix = np.hstack([columns[family.family] for family in pipeline.families()])
        for head in dict.fromkeys(options.heads):
            trees = {"n_estimators": run_all.QUICK_TREES} if options.quick and head in ("xgboost",) else None
            for weight in WEIGHTS:
                estimator = make_head(head, class_weight=weight, random_state=options.seed, params=trees)
                models.append(Model(name, head, weight, estimator, matrix))
    cv = PatientKFold(options.folds, random_state=options.seed)
    splits = list(cv.split(dataset.X, dataset.y, dataset.patients))
    levels = possible_levels(dataset, splits, options.levels)
    for model in models:
        make_room(model, len(dataset), levels, options)
    with run_all.make_progress() as progress, threadpool_limits(1, user_api="blas"):
        tasks = [(model, split) for model in models for split in splits]
        done = Parallel(n_jobs=options.n_jobs, require="sharedmem", return_as="generator_unordered")(
            delayed(fit_fold)(model, *split, dataset, levels, options) for model, split in tasks
        )
        for number, _ in enumerate(done, start=1):
            progress("fit", number, len(tasks))
    return models


def possible_levels(dataset, splits, levels):
    """Coverages for which the training patients of every fold are enough."""
    import numpy as np

    wrong = [level for level in levels if not 0 < level < 1]
    if wrong:
        raise ValueError(f"--levels: expected coverages between 0 and 1, got {wrong[0]}. Use 0.9.")
    n_patients = min(len(np.unique(dataset.patients[train])) for train, _ in splits)
    possible = [level for level in sorted(set(levels)) if max(1 / (1 - level), 1 / level) <= n_patients + 1e-6]
    if not possible:
        raise ValueError(
            f"--levels: expected a coverage that {n_patients} training patients allow, got {levels}. Ask for less."
        )
    return possible


def make_room(model, n_rows, levels, options):
    """Prepare the arrays that the folds fill."""
    import numpy as np

    from histofeat.metrics import UNITS

    rules = ("f1", "youden", *(f"sensitivity={sensitivity!r}" for sensitivity in options.sensitivity))
    model.raw, model.calibrated = np.full((n_rows, 2), np.nan), np.full((n_rows, 2), np.nan)
    model.labels = {rule: np.full(n_rows, -1) for rule in rules}
    model.thresholds = {rule: [] for rule in rules}
    model.sets = {unit: np.zeros((n_rows, 2, len(levels)), dtype=bool) for unit in UNITS}


def fit_fold(model, train, test, dataset, levels, options):
    """Fit one model on one fold: calibration, thresholds and sets from its training patients, for its test patients."""
    from histofeat import PatientKFold
    from histofeat.metrics import choose_threshold, fit_calibrator, fit_conformal
    from histofeat.models import fit_with_inner_scores

    y, patients = dataset.y[train], dataset.patients[train]
    inner_cv = PatientKFold(3, random_state=options.seed)
    head, inner = fit_with_inner_scores(model.estimator, model.matrix[train], y, patients, inner_cv)
    proba = head.predict_proba(model.matrix[test])
    model.raw[test], model.calibrated[test] = proba, fit_calibrator(y, inner).transform(proba)
    for rule, labels in model.labels.items():
        threshold = choose_threshold(y, inner[:, 1], rule)
        labels[test] = proba[:, 1] >= threshold
        model.thresholds[rule].append(threshold)
    for unit, sets in model.sets.items():
        predictor = fit_conformal(y, inner, patients, levels, unit, options.seed)
        sets[test] = predictor.predict_set(proba)


# --- what they are worth ---------------------------------------------------------------------------------------------


def measure(models, dataset, options):
    """Everything that is reported, as plain values: "calibration", "thresholds" and "conformal"."""
    from histofeat import PatientKFold
    from histofeat.evaluation import assess_probabilities

    resampling = {"n_resamples": options.resamples, "random_state": options.seed}
    cv = PatientKFold(options.folds, random_state=options.seed)
    levels = possible_levels(dataset, list(cv.split(dataset.X, dataset.y, dataset.patients)), options.levels)
    found = {"calibration": [], "thresholds": [], "conformal": [], "levels": levels}
    for model in models:
        named = {"name": model.features, "head": model.head_words}
        known = dataset.y, model.raw[:, 1], model.calibrated[:, 1], dataset.patients
        found["calibration"].append({**named, "calibration": assess_probabilities(*known, **resampling).to_dict()})
        found["thresholds"] += [{**named, **row} for row in threshold_rows(model, dataset, resampling)]
        found["conformal"] += [{**named, **row} for row in conformal_rows(model, dataset, levels, resampling)]
    return found


def threshold_rows(model, dataset, resampling):
    """One row per rule, and one for 0.5: what the thresholds were, and what they give on the test patients."""
    from histofeat.metrics import bootstrap_scores, confusion, label_scores

    rules = {"0.5": ((model.raw[:, 1] > 0.5).astype(int), [0.5])}
    rules |= {rule: (labels, model.thresholds[rule]) for rule, labels in model.labels.items()}
    for rule, (labels, thresholds) in rules.items():
        scores = label_scores(confusion(dataset.y, labels, 2))
        known = dataset.y, model.raw, dataset.patients
        resamples = bootstrap_scores(*known, predicted=labels, metrics=LABELS, **resampling)
        asked = float(rule.partition("=")[2]) if "=" in rule else None
        yield {
            "rule": rule,
            "asked": asked,
            "lowest_threshold": min(thresholds),
            "highest_threshold": max(thresholds),
            **{name: {"value": float(scores[name]), "ci95": list(resamples.interval(name))} for name in LABELS},
        }


def conformal_rows(model, dataset, levels, resampling):
    """One row per unit and level: the coverage that was asked for, and the one that the test patients got."""
    from histofeat.metrics import measure_coverage

    for unit, sets in model.sets.items():
        for coverage in measure_coverage(sets, dataset.y, dataset.patients, levels, **resampling):
            row = coverage.to_dict()
            negative, positive = row.pop("per_class")
            yield {"unit": unit, **row, "class_0": negative, "class_1": positive}


# --- the page --------------------------------------------------------------------------------------------------------


def make_study(found, not_run, dataset, options):
    """Words, tables and figures from what was measured."""
    import pandas as pd
    from calibration_page import figures_of, flat_rows, page

    from histofeat.reporting import dataset_payload, jsonable

    payload = jsonable({"dataset": dataset_payload(dataset), "results": found["calibration"]})
    found = jsonable(found)
    tables = {name: pd.DataFrame(flat_rows(found[name])) for name in ("calibration", "thresholds", "conformal")}
    results = {**found, "folds": options.folds, "not_run": not_run, "dataset": dataset.audit.to_dict()}
    blocks = tuple(page(found, payload, not_run_notice(not_run), options))
    return Study(TITLE, blocks, results, tables, figures_of(found, payload))


def main(arguments=None):
    """Run the study; returns the exit code."""
    return run_command(PROGRAM, run, make_parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
