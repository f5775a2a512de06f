"""The study of encoders: each alone and beside handcrafted features, on the same patients and folds, with its cost."""

from contextlib import suppress
from itertools import product

import numpy as np

from histofeat.evaluation import Search
from histofeat.exceptions import GroupLeakageError, check_whole
from histofeat.features import FAMILIES, CNNEmbedding
from histofeat.metrics import pareto_front
from histofeat.models import HEADS
from histofeat.networks import ENCODERS, encoders_at_hand
from histofeat.studies import _study as shared
from histofeat.studies._ablation import score_columns, time_extraction
from histofeat.studies._explanation_study import costs_figure, part_of, spread
from histofeat.studies._fitted_folds import measure_folds, why_none
from histofeat.studies._robustness import thinned

_BASE, _NETWORKS, _TIMED_PATCHES = "handcrafted", ("cnn", "histo"), 128
#: Chosen on the training patients of each fold: sets of ten times the columns need a stronger penalty.
_SEARCHED = {"logistic": {"C": [0.001, 0.003, 0.01, 0.03]}}
_KNOWN = "It was trained on these patients, or on the data set that they are from. Give images of others."


def run_encoders(options, runtime):
    """Score and time encoders, alone and beside handcrafted features, and compare each with these features."""
    sets, not_run = _make_sets(options)
    dataset, cv, runtime = shared.begin(options, runtime)
    kept = thinned([np.arange(len(dataset))], dataset.patients, options.patches_per_patient, options.seed)[0]
    data, bases, rows, seconds = (dataset.subset(kept), cv), {}, [], {}
    with shared.with_store(runtime) as runtime:
        for name, own in sets.items():
            # Handcrafted features know no patient: what is wrong with the folds themselves is raised.
            with suppress(GroupLeakageError if name != _BASE else ()), part_of(name, seconds, runtime) as part:
                rows += _rows(name, own, sets[_BASE], data, bases, options, part)
    not_run |= {name: _KNOWN for name in sets if name not in seconds}
    table = shared.flat_table(rows).sort_values("roc_auc", ascending=False, kind="stable", ignore_index=True)
    table = shared.adjusted(table).assign(on_front=pareto_front(table["ms"], table["roc_auc"]))
    best = table.drop_duplicates("name"), "ms", "milliseconds"
    figures = {"cost": costs_figure("ROC-AUC against time, each set with its best head", *best)}
    results = {"rows": table.to_dict("records"), "not_run": not_run, "folds": options.folds, "seconds": seconds}
    results["dataset"] = shared.describe_dataset(data[0])
    return shared.Findings(results, {"encoders": table}, figures)


def _make_sets(options):
    """Make the handcrafted families, and encoders at each size, by name; say why encoders cannot run."""
    shared.check_names("--heads", options.heads, HEADS)
    shared.check_names("--families", options.families, [name for name in FAMILIES if name not in _NETWORKS])
    shared.check_names("--encoders", [name for name in options.encoders if ":" not in name], ENCODERS)
    check_whole("--patches-per-patient", options.patches_per_patient, 1, "Use 20.")
    encoders = {}
    for name in options.encoders or encoders_at_hand(options.weights):
        # A transformer takes no other size than its own, and `histo` was trained at one.
        sized = getattr(ENCODERS.get(name), "source", "timm") not in ("timm", "histofeat")
        for size in options.sizes[: 1 if options.quick else None] if sized else [None]:
            check_whole("--sizes", size or 64, 64, "Use 96.", most=2048)
            encoder = CNNEmbedding(name, input_size=size, weights_dir=options.weights)
            encoders[f"{name}, {size} px" if size else name] = [encoder]
    not_run = why_none("--encoders", encoders)
    base = shared.make_pipeline(options.families, "logistic", params=None).families()
    return {_BASE: base} | {name: its for name, its in encoders.items() if name not in not_run}, not_run


def _rows(name, own, base, data, bases, options, runtime):
    """Fit each head on one set of families, alone and beside handcrafted features; give a row of each."""
    us = time_extraction({name: own}, spread(data[0].X, _TIMED_PATCHES))[0][name]
    more = {"n_trees": shared.QUICK_TREES if options.quick else None, "random_state": options.seed}
    drawn = {"n_resamples": options.resamples, "random_state": options.seed}
    sets = {_BASE: base} if own is base else {name: own, f"{name} + {_BASE}": [*base, *own]}
    for head, title in product(dict.fromkeys(options.heads), sets):
        pipeline = shared.make_pipeline(sets[title], head, params=None, **more)
        measured = measure_folds(data[0], pipeline, data[1], owner="encoders", runtime=runtime)
        measured.search = Search(_SEARCHED[head]) if head in _SEARCHED else None
        columns = np.arange(len(measured.names))
        (fitted,) = measured.fit_heads([columns])
        area, row = score_columns(measured, fitted, columns, drawn, bases.get(head, (None, 0))[0])
        _, more_us = bases.setdefault(head, (area, us))
        row["ms"] = (us + (more_us if title != name else 0) + row.pop("predict_us")) / 1000
        yield {"name": title, "head": head, "n_parameters": getattr(own[0], "n_parameters", 0), **row}
