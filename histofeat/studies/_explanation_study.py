"""The study of explanation: what the score depends on, which families a model can do without, and what they cost."""

import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from histofeat.studies._ablation import ablate_families, measure_costs
from histofeat.studies._fitted_folds import why_not
from histofeat.studies._permutation import KINDS, permutation_importance
from histofeat.studies._study import Findings, bars, begin, describe_dataset, make_pipeline, network_params, with_store

_HANDCRAFTED = ("color", "lbp", "haralick", "pftas")
_SETS = {"color+lbp+haralick": ("color", "lbp", "haralick"), "color+haralick": ("color", "haralick")}
_TIMED_PATCHES, _QUICK_TIMED_PATCHES, _QUICK_TREES = 2_000, 200, 20


def run_explanation(options, runtime):
    """Permute families, groups and single features; leave families out; time what remains."""
    if options.quick:
        options.folds, options.repeats = min(options.folds, 2), min(options.repeats, 1)
    seconds, settings = {}, {"n_resamples": options.resamples, "random_state": options.seed}
    handcrafted, everything = (_pipeline(families, options) for families in (_HANDCRAFTED, (*_HANDCRAFTED, "cnn")))
    missing = why_not(_pipeline(("cnn",), options).families())
    dataset, cv, runtime = begin(options, runtime)
    permuted = {"handcrafted": (handcrafted, KINDS)}
    if missing is None:
        permuted["with the network"] = (everything, ("family", "group"))
    with with_store(runtime) as runtime:
        importances, common = [], {**settings, "n_repeats": options.repeats}
        for name, (pipeline, by) in permuted.items():
            with part_of(f"permutation, {name}", seconds, runtime) as part:
                importances.append(permutation_importance(dataset, pipeline, cv, by=by, runtime=part, **common))
        with part_of("permutation within patients", seconds, runtime) as part:
            common |= {"by": ("family", "group"), "within_patients": True, "runtime": part}
            within = permutation_importance(dataset, handcrafted, cv, **common)
        with part_of("ablation", seconds, runtime) as part:
            ablation = ablate_families(dataset, pipeline, cv, sets=_SETS, runtime=part, **settings)
        with part_of("cost", seconds, runtime) as part:
            timed = spread(dataset.X, _QUICK_TIMED_PATCHES if options.quick else _TIMED_PATCHES)
            costs = measure_costs(ablation, pipeline, timed, progress=part.progress)
    results = {
        **_results(importances, within, ablation, costs),
        "not_run": {} if missing is None else {"cnn": missing},
        "settings": {name: getattr(options, name) for name in ("head", "folds", "repeats", "resamples")}
        | {"timed_patches": costs.n_patches},
        "decode_us": costs.decode_us,
        "seconds": seconds,
        "dataset": describe_dataset(dataset),
    }
    return Findings(results, _tables(importances, within, ablation, costs), _figures(importances, ablation, costs))


def _pipeline(families, options):
    params, n_trees = network_params(options.weights), _QUICK_TREES if options.quick else None
    return make_pipeline(families, options.head, params=params, n_trees=n_trees, random_state=options.seed)


@contextmanager
def part_of(name, seconds, runtime):
    """Measure the seconds of one part; its progress says which part it is, for some stages come several times."""
    started = time.perf_counter()
    yield replace(runtime, progress=lambda stage, *counts: runtime.report(f"{name}, {stage}", *counts))
    seconds[name] = round(time.perf_counter() - started, 1)


def spread(paths, n):
    """At most `n` of the paths, evenly over them."""
    return paths[np.unique(np.linspace(0, len(paths) - 1, n).round().astype(int))]


def _results(importances, within, ablation, costs):
    found = [
        {name: getattr(one, name) for name in ("roc_auc", "ci95", "n_patients", "n_patches")}
        | {"parts": one.to_frame().to_dict("records")}
        for one in (*importances, within)
    ]
    return {
        "handcrafted": found[0],
        "with_network": found[1] if len(importances) > 1 else None,
        "within_patients": found[-1],
        "ablation": ablation.table.drop(columns="predict_us").to_dict("records"),
        "cost": costs.table.to_dict("records"),
    }


def _tables(importances, within, ablation, costs):
    groups = importances[0].parts.query("by == 'correlated'")[["name", "columns"]].explode("columns")
    tables = {
        "importance_handcrafted": importances[0].to_frame(),
        "correlated_groups": groups.rename(columns={"name": "group", "columns": "column"}),
        "ablation": ablation.table.drop(columns="predict_us"),
        "cost": costs.table,
        "importance_within_patients": within.to_frame(),
    }
    if len(importances) > 1:
        tables["importance_with_network"] = importances[1].to_frame()
    return tables


def _figures(importances, ablation, costs):
    def drops(title, importance, kinds, n=None):
        parts = importance.to_frame()
        chosen = parts[parts["by"].isin(kinds)].head(n or len(parts))
        return bars(title, "drop in ROC-AUC, 95 % interval over patients", chosen, "drop", "{name}", "by")

    differences, label = ablation.table, "difference in ROC-AUC, 95 % interval over patients"
    differences = differences[differences["kind"] != "all"], "difference", "{name}", "kind"
    found = {
        "families": drops("Families and groups permuted, handcrafted", importances[0], ("family", "group")),
        "features": drops("Single features permuted: the twenty largest drops", importances[0], ("feature",), 20),
        "ablation": bars("ROC-AUC - that of all families", label, *differences),
        "cost": costs_figure("ROC-AUC against time", costs.table, "total_us", "microseconds"),
    }
    for importance in importances[1:]:
        title = "Families and groups permuted, with the network"
        found["families_with_network"] = drops(title, importance, ("family", "group"))
    return found


def costs_figure(title, table, cost, unit):
    """Make the data of a figure of ROC-AUC against a column of costs, in a unit of time."""
    points = table.rename(columns={cost: "x", "roc_auc": "y"})[["name", "x", "y", "low", "high", "on_front"]]
    axes = {"x_label": f"{unit} a patch, features and head, one thread", "y_label": "ROC-AUC, held-out patients"}
    return "costs", {"title": title, **axes, "points": points.to_dict("records")}
