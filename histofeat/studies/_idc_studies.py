"""Studies of features and heads on any patients but the official IDC test set: leaks, shortcuts, robustness, curves."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import clone

from histofeat.datasets import make_signature_cohort
from histofeat.evaluation import evaluate
from histofeat.exceptions import check_whole
from histofeat.studies._fitted_folds import measure_once, runnable_pipelines
from histofeat.studies._leakage import measure_leakage
from histofeat.studies._learning_curves import learning_curve
from histofeat.studies._register import IDENTIFIED
from histofeat.studies._robustness import measure_robustness
from histofeat.studies._shortcuts import panel_of
from histofeat.studies._study import (
    Findings,
    adjusted,
    bars,
    begin,
    check_names,
    describe_dataset,
    flat_table,
    lines,
    pipelines_of,
    with_store,
)

# --- leakage ---------------------------------------------------------------------------------------------------------

SIGNATURE_SETS = ("color", "lbp", "haralick", "handcrafted")
SIGNATURE_COHORT = {"n_patients": 60, "patches_per_patient": 20}


def run_leakage(options, runtime):
    """Score pipelines under a split by patch and by patient: on real patients, and where only patients differ."""
    pipelines = pipelines_of(options)
    if options.quick:
        options.few_patients, options.draws, options.few_heads = [max(8, 2 * options.folds)], 1, options.heads
    chosen = [name for name in options.features if name in SIGNATURE_SETS] or ["handcrafted"]
    small = pipelines_of(options, features=chosen, heads=options.few_heads)
    dataset, _, runtime = begin(options, runtime)
    check_few_patients(dataset, options)
    settings = {"n_splits": options.folds, "n_resamples": options.resamples, "random_state": options.seed}
    with with_store(runtime) as stored:
        real = measure_leakage(dataset, pipelines, runtime=stored, **settings).to_dict()
        few = leakage_of_few(dataset, small, options, stored)
    size = {"n_patients": 20, "patches_per_patient": 10} if options.quick else SIGNATURE_COHORT
    with tempfile.TemporaryDirectory(prefix="histofeat-", ignore_cleanup_errors=True) as scratch:
        cohort = make_signature_cohort(Path(scratch) / "cohort", random_state=options.seed, **size)
        quiet = replace(runtime, store=None, progress=False)
        pipelines = pipelines_of(options, features=chosen, columns=None)  # also beside columns
        planted = measure_leakage(cohort, pipelines, runtime=quiet, **settings).to_dict()
    tables = [flat_table(found["rows"]) for found in (real, planted)]
    for name, table in zip((dataset.name, "planted signature"), tables, strict=True):
        table.insert(0, "data", name)
    table = pd.concat(tables, ignore_index=True)
    results = {"real": real, "few": few.to_dict("records"), "planted_signature": planted}
    results |= {"draws": options.draws, "dataset": describe_dataset(dataset)}
    figures = _leakage_figures(table[table["metric"] == "roc_auc"], few[few["metric"] == "roc_auc"], dataset.name)
    return Findings(results, {"leakage": table, "leakage_of_few": few}, figures)


def check_few_patients(dataset, options):
    """Refuse numbers of patients that cannot be drawn, before the long work; take all where there are fewer."""
    check_whole("--draws", options.draws, 1, "Use 10.")
    there, fewest = len(set(dataset.patients)), 2 * options.folds
    check_whole("--folds", options.folds, 2, "Give fewer, or data of more patients.", most=there // 2)
    for n in options.few_patients:
        check_whole("--few-patients", n, fewest, f"Use {fewest}, or fewer --folds.")
    options.few_patients = sorted({min(n, there) for n in options.few_patients})


def leakage_of_few(dataset, pipelines, options, runtime):
    """Measure the leak on random draws of few patients.

    Returns
    -------
    table : DataFrame
        One row for each number of patients, pipeline and metric: means over the draws, and the lowest and the highest
        difference.
    """
    ids, rng, rows = np.unique(dataset.patients.astype(str)), np.random.default_rng(options.seed), []
    settings = {"n_splits": options.folds, "n_resamples": 0, "random_state": options.seed}
    settings["runtime"] = replace(runtime, progress=False)
    draws = [(n, draw) for n in options.few_patients for draw in range(options.draws if n < len(ids) else 1)]
    for done, (n, _) in enumerate(draws):
        runtime.report("few patients", done, len(draws))
        drawn = np.isin(dataset.patients.astype(str), rng.permutation(ids)[:n])
        found = measure_leakage(dataset.subset(np.flatnonzero(drawn)), pipelines, **settings).to_dict()
        whole = {"n_patients": n, "n_patches": found["n_patches"], "constant_accuracy": found["constant_accuracy"]}
        rows += [{**whole, **row} for row in found["rows"]]
    runtime.report("few patients", len(draws), len(draws))
    by_pipeline = pd.DataFrame(rows).groupby(["n_patients", "name", "head", "metric"], sort=False)
    means = by_pipeline[["n_patches", "constant_accuracy", "honest", "leaked", "difference"]].mean()
    ends = by_pipeline["difference"].agg(difference_low="min", difference_high="max")
    return means.join(ends).reset_index()


def _leakage_figures(table, few, real):
    sides = {"honest": "split by patient", "leaked": "split by patch"}
    columns = {f"{side}{end}": f"value{end}" for side in sides for end in ("", "_low", "_high")}
    both = [
        table.filter(regex=f"^(data|name|head|{side})").rename(columns=columns).assign(split=words)
        for side, words in sides.items()
    ]
    differences = table[table["data"] == real], "difference", "{name}, {head}", "head"
    title, label = "ROC-AUC: split by patch - split by patient", "difference in ROC-AUC, 95 % interval over patients"
    scores = pd.concat(both).sort_index(kind="stable"), "value", "{data}: {name}, {head}", "split"
    words = "ROC-AUC out of fold, 95 % interval over patients"
    of_few = few, "difference", "{n_patients} patients: {name}, {head}", "head"
    return {
        "differences": bars(title, label, *differences),
        "few_patients": bars(f"{title}, few patients", "mean over draws of patients, lowest to highest", *of_few),
        "scores": bars("ROC-AUC under both splits", words, *scores, reference=0.5),
    }


# --- shortcuts -------------------------------------------------------------------------------------------------------


def run_shortcuts(options, runtime):
    """Score what mean colour, background, blur and position reach alone; identify patients by features."""
    pipelines = pipelines_of(options)
    check_names("--identify", options.identify, IDENTIFIED)
    identifying = pipelines_of(options, features=options.identify, heads=["logistic"])
    families = [family for _, pipeline in identifying for family in pipeline.families()]
    dataset, cv, runtime = begin(options, runtime)
    settings = {"n_resamples": options.resamples, "random_state": options.seed}
    with with_store(runtime) as runtime:  # the panel measures features of the evaluation again
        evaluation = evaluate(dataset, pipelines, cv, runtime=runtime, **settings)
        panel = panel_of(evaluation, families_to_identify=families, runtime=runtime).to_dict()
    not_run = {f"{entry.name}, {entry.head}": entry.reason for entry in evaluation.not_run}
    results = {"panel": panel, "dataset": describe_dataset(dataset), "not_run": not_run}
    tables = {name: flat_table(panel[key]) for name, key in (("shortcuts", "rows"), ("identification",) * 2)}
    return Findings(results, tables, _shortcut_figures(panel, **tables))


def _shortcut_figures(panel, shortcuts, identification):
    drawn = shortcuts.assign(kind="shortcut")
    if panel["reference"]:
        drawn = pd.concat([drawn, flat_table([panel["reference"]]).assign(kind="model")])
    alone = "Shortcuts alone, under folds of patients", "ROC-AUC out of fold, 95 % interval over patients"
    label = "share of patches assigned to their own patient, 95 % interval over patients"
    known = identification, "accuracy", "{family}"
    chance = panel["identification"][0]["chance"] if panel["identification"] else None
    return {
        "shortcuts": bars(*alone, drawn, "roc_auc", "{name}", "kind", reference=0.5),
        "identification": bars("Patient identification by features", label, *known, reference=chance),
    }


# --- robustness and normalisation ------------------------------------------------------------------------------------

#: The strongest steps, for a quick run.
QUICK_CONDITIONS = (("stain_balance", -4), ("stain_balance", 4), ("blur", 4), ("jpeg", 4), ("turn", 1))
#: Stain normalisers by the words of the tables: parameters of a pipeline.
ARMS = {"none": {}} | {
    f"{name.capitalize()}, {unit}": {"normalizer": name, "normalizer__unit": unit}
    for name in ("reinhard", "macenko")
    for unit in ("patch", "patient")
}
STAINS = (*(("stain_balance", severity) for severity in (-4, -2, 2, 4)), ("stain_strength", -4), ("stain_strength", 4))
QUICK_STAINS = (("stain_balance", -4), ("stain_balance", 4))


def perturb(options, runtime, arrange, **settings):
    """Measure robustness; `arrange` turns the runnable pipelines into those to measure."""
    pipelines, not_run = runnable_pipelines(options)
    dataset, cv, runtime = begin(options, runtime)
    settings |= {"patches_per_patient": options.patches_per_patient, "n_resamples": options.resamples}
    found = measure_robustness(dataset, arrange(pipelines), cv, random_state=options.seed, runtime=runtime, **settings)
    counts = {"n_tested_patients": found.n_patients, "n_tested_patches": found.n_patches}
    results = {"rows": found.table.to_dict("records"), **counts, "n_training_patches": len(dataset)}
    results |= {"folds": options.folds, "not_run": not_run, "dataset": describe_dataset(dataset)}
    return pipelines, found, results


def run_robustness(options, runtime):
    """Score pipelines on perturbed patches of held-out patients."""
    conditions = QUICK_CONDITIONS if options.quick else None
    pipelines, found, results = perturb(options, runtime, dict, conditions=conditions)
    table = found.table
    steady = [name for name, one in pipelines.items() if all(family._invariant_to_turns for family in one.families())]
    strongest = find_strongest(table)
    results |= {"strongest": strongest.to_dict("records"), "invariant_to_turns": steady}
    top = strongest[(strongest["metric"] == "roc_auc") & (strongest["perturbation"] != "turn")]
    label = "drop in ROC-AUC, 95 % interval over patients"
    drops = top.sort_values("perturbation", kind="stable"), "drop", "{perturbation} {severity:+d}: {pipeline}"
    figures = {
        "curves": _severity_curves(table[table["metric"] == "roc_auc"]),
        "drops": bars("Drop in ROC-AUC at the strongest step", label, *drops, "perturbation"),
    }
    return Findings(results, {"robustness": table}, figures)


def find_strongest(table):
    """Rows of the strongest step of each perturbation; of two directions the one with the larger drop."""
    bent = table[table["perturbation"] != "none"]
    steps = bent["severity"].abs()
    top = bent[steps == steps.groupby(bent["perturbation"]).transform("max")]
    return top.loc[top.groupby(["pipeline", "perturbation", "metric"], sort=False)["drop"].idxmax()]


def words(row):
    """Return a perturbation and its severity as a person reads them."""
    return "unchanged" if row.perturbation == "none" else f"{row.perturbation.replace('_', ' ')} {row.severity:+d}"


def _severity_curves(table):
    """A panel for each perturbation, whose lines also go through the unchanged patches."""
    bent = [name for name in table["perturbation"].unique() if name != "none"]
    points = [table[table["perturbation"].isin(["none", name])].assign(panel=name.replace("_", " ")) for name in bent]
    title = "ROC-AUC on perturbed patches of held-out patients"
    columns = "panel", "pipeline", "severity", "value"
    return lines(title, pd.concat(points), *columns, x_label="severity", y_label="ROC-AUC")


def run_normalization(options, runtime):
    """Score feature sets behind stain normalisers, on clean and on shifted stains."""
    conditions = QUICK_STAINS if options.quick else STAINS
    _, found, results = perturb(options, runtime, behind_normalizers, conditions=conditions, metrics=("roc_auc",))
    table = compare_normalizers(found)
    del results["n_training_patches"]
    results["rows"] = table.to_dict("records")
    compared = table[table["difference"].notna()].sort_values(["perturbation", "severity"], kind="stable")
    label, drawn = "difference in ROC-AUC, 95 % interval over patients", ("{condition}: {normalizer}", "normalizer")
    figures = {}
    for features, its in compared.groupby("features", sort=False):
        title = f"{features}: ROC-AUC with a stain normaliser - without"
        figures[f"differences-{features}"] = bars(title, label, its, "difference", *drawn)
    return Findings(results, {"normalization": table}, figures)


def behind_normalizers(pipelines):
    """Put every pipeline behind every normaliser, by "features | normaliser"."""
    return {
        f"{name} | {arm}": clone(pipeline).set_params(**settings)
        for name, pipeline in pipelines.items()
        for arm, settings in ARMS.items()
    }


def compare_normalizers(found):
    """Compare every normaliser with none on the same patches; p-values are adjusted for their number."""
    rows = []
    for row in found.table.itertuples():
        features, arm = row.pipeline.split(" | ")
        at = row.perturbation, row.severity
        entry = {"features": features, "normalizer": arm, "perturbation": at[0], "severity": at[1]}
        entry |= {"condition": words(row), "roc_auc": row.value, "low": row.low, "high": row.high}
        if arm != "none":
            difference, paired = found.compare(row.pipeline, f"{features} | none", at)
            entry |= {"difference": difference, "difference_ci95": paired.interval("roc_auc")}
            entry["p"] = paired.p_value("roc_auc")
        rows.append(entry)
    return adjusted(flat_table(rows))


# --- learning curves -------------------------------------------------------------------------------------------------

QUICK_CURVE = {"n_patients": [6, 12], "n_draws": 2}


def run_learning_curves(options, runtime):
    """Score feature sets by the number of training patients; features are measured once."""
    pipelines, not_run = runnable_pipelines(options)
    dataset, cv, runtime = begin(options, runtime)
    settings = dict(QUICK_CURVE) if options.quick else {"n_patients": options.sizes, "n_draws": options.draws}
    sets = {name: pipeline.families() for name, pipeline in pipelines.items()}
    columns = measure_once(sets, dataset, runtime)
    settings |= {"n_resamples": options.resamples, "random_state": options.seed, "runtime": runtime}
    known = dataset.y, dataset.patients
    curves = {
        name: learning_curve(columns[name], *known, pipeline.make_head(), cv, **settings)
        for name, pipeline in pipelines.items()
    }
    table = pd.concat(curves, names=["pipeline"]).reset_index("pipeline").reset_index(drop=True)
    results = {"rows": table.to_dict("records"), "metric": "roc_auc", "folds": options.folds, "not_run": not_run}
    results["dataset"] = describe_dataset(dataset)
    return Findings(results, {"learning_curves": table}, {"curves": _patient_curves(table)})


def _patient_curves(table):
    """A panel for each pipeline; both lines end with all training patients."""
    every = (table["sampling"] == "patients") & table["all_patients"]
    words = {"patients": "patients", "patches": "as many patches, spread over all patients"}
    points = [table[(table["sampling"] == kind) | every].assign(line=line) for kind, line in words.items()]
    labels = {"x_label": "training patients", "y_label": "ROC-AUC"}
    title, columns = "ROC-AUC by the number of training patients", ("pipeline", "line", "n_patients", "value")
    return lines(title, pd.concat(points), *columns, **labels, ends=("low", "high"), x_log=True)
