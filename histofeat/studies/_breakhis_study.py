"""The protocol of BreakHis: patient hold-outs at each magnification, and benign, malignant and subtypes by folds."""

import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from histofeat.datasets import breakhis_hold_outs, load_breakhis, make_breakhis_cohort, merge_rare_classes
from histofeat.evaluation import audit_fingerprints, evaluate, run_in_threads
from histofeat.exceptions import check_name
from histofeat.features import FAMILIES, ImageFingerprint, leave_out_unreadable
from histofeat.metrics import confusion, holm, label_scores, nadeau_bengio, recognition_rates
from histofeat.model_selection import PatientKFold
from histofeat.models import HEADS, IDCPipeline, make_head
from histofeat.studies._fitted_folds import measure_once
from histofeat.studies._register import MAGNIFICATIONS, REFERENCE, STUDIES
from histofeat.studies._study import (
    FEATURE_SETS,
    Findings,
    bars,
    check_names,
    describe_dataset,
    flat_table,
    network_params,
)

#: Outer and inner folds: of benign and malignant, and of the subtypes, some of which few patients have.
FOLDS = {"malignant": (5, 3), "subtype": (3, 2)}
#: Features and head of the row that looks at no image.
NOTHING = ("none", "majority class")
RATES = ("patient_rate", "image_rate", "balanced_accuracy")
_QUICK = {"features": ["lbp", "color"], "heads": ["knn", "random_forest"], "fold_heads": ["random_forest"]}
_QUICK_COHORT = {"patients_per_subtype": 4, "images_per_slide": 2, "magnifications": (100,)}
_QUICK_TREES = 30
_PRINTS = "fingerprints for the audit"
_MODEL = ["magnification", "features", "head"]


def run_breakhis(options, runtime):
    """Score features and heads on the patient hold-outs, then classes under folds of patients."""
    settle(options)
    with tempfile.TemporaryDirectory(prefix="histofeat-", ignore_cleanup_errors=True) as scratch:
        runtime = replace(runtime, store=runtime.store or Path(scratch) / "features.sqlite")
        root, powers = options.data or _draw_cohort(options, scratch), options.magnifications
        found = [measure_hold_outs(root, power, options, runtime) for power in powers]
        evaluations = [evaluate_folds(root, power, target, options, runtime) for target in FOLDS for power in powers]
    rows = [row for hold_outs, _ in found for row in hold_outs["rows"]]
    n_hold_outs = max((len(hold_outs["folds"].get("folds", ())) for hold_outs, _ in found), default=0)
    means = summarise_hold_outs(rows, n_hold_outs)
    differences = compare_hold_outs(rows, n_hold_outs, tuple(options.reference.split("/")))
    results = {
        "hold_outs": [hold_outs for hold_outs, _ in found],
        "means": means,
        "differences": differences,
        "evaluations": evaluations,
        "datasets": [description for _, description in found if description],
        "settings": {name: getattr(options, name) for name in ("reference", "patient_key", "duplicates", "resamples")},
    }
    tables = {"hold_outs": pd.DataFrame(rows), "means": pd.DataFrame(means), "differences": pd.DataFrame(differences)}
    return Findings(results, tables | {"classes": _classes(evaluations)}, _figures(rows, means, evaluations))


def settle(options) -> None:
    """Make a quick run small, find the folder, and refuse unknown names before the long work begins."""
    if options.quick:
        for name, few in _QUICK.items():
            if getattr(options, name) == STUDIES["breakhis"].options[name.replace("_", "-")]["default"]:
                setattr(options, name, few)
    elif options.data is None:
        raise ValueError("DATA: expected the folder of BreakHis, got none. Give it, or try --quick.")
    if options.data is not None:
        if len(options.data) > 1:
            raise ValueError(f"DATA: expected one folder of BreakHis, got {len(options.data)}. Give the archive's.")
        [folder] = options.data
        options.data = folder / "breakhis" if (folder / "breakhis").is_dir() else folder
    check_names("--features", options.features, (*FAMILIES, "handcrafted"))
    check_names("--heads", options.heads, HEADS)
    check_names("--fold-heads", options.fold_heads, HEADS)
    for power in options.magnifications:
        check_name("--magnifications", power, MAGNIFICATIONS)
    models = [f"{features}/{head}" for features in options.features for head in options.heads]
    if options.reference == REFERENCE and REFERENCE not in models:
        options.reference = models[0]
    check_names("--reference", [options.reference], models)


def _draw_cohort(options, scratch):
    powers = _QUICK_COHORT["magnifications"]
    options.magnifications = [power for power in options.magnifications if power in powers]
    return make_breakhis_cohort(root=Path(scratch) / "cohort", random_state=options.seed, **_QUICK_COHORT).root


def _load(root, power, target, options):
    return load_breakhis(root, power, target, patient_key=options.patient_key, duplicates=options.duplicates)


def _head_params(head, options):
    if options.quick and head in ("xgboost", "random_forest"):
        return {"n_estimators": _QUICK_TREES}
    # One neighbour, as the protocol has it.
    return {"n_neighbors": 1} if head == "knn" else None


def _pipeline(name, head, options):
    families = FEATURE_SETS["handcrafted"] if name == "handcrafted" else (name,)
    params = network_params(options.weights, {}) if name == "cnn" else None
    head_params = _head_params(head, options)
    return IDCPipeline(families, head, feature_params=params, head_params=head_params, random_state=options.seed)


# --- hold-outs -------------------------------------------------------------------------------------------------------


def measure_hold_outs(root, power, options, runtime):
    """Fit every head on every hold-out of one magnification.

    Returns
    -------
    found : dict
        "magnification", "rows" (one for each model and hold-out), "not_run" (sentences), "folds" (as
        `BreakHisFolds.to_dict` gives it), and "findings": what the audit of each hold-out found, but for what passed.
    description : dict or None
        Of the images; None where they cannot be loaded.
    """
    found, description = {"magnification": power, "rows": [], "not_run": [], "folds": {}, "findings": []}, None
    try:
        dataset = _load(root, power, "malignant", options)
        dataset, _, runtime = leave_out_unreadable(dataset, None, runtime)
        description = {"magnification": power, **describe_dataset(dataset)}
        folds = breakhis_hold_outs(dataset, options.lists, options.accept_leaks, random_state=options.seed)
    except ValueError as error:
        found["not_run"].append(f"hold-outs at {power}X: {error}")
        return found, description
    sets = {name: _pipeline(name, "logistic", options).families() for name in dict.fromkeys(options.features)}
    matrices = measure_once({**sets, _PRINTS: [ImageFingerprint()]}, dataset, runtime)
    prints = matrices.pop(_PRINTS)
    splits = {number: folds.cv(number) for number in range(1, len(folds) + 1)}
    found |= {"folds": folds.to_dict(), "findings": _audit(dataset, splits, prints, runtime.n_jobs)}
    models = [NOTHING, *((name, head) for name in matrices for head in options.heads)]
    tasks = [(model, number) for model in models for number in splits]

    def judge(task):
        (features, head), number = task
        [split] = splits[number]
        try:
            return score_hold_out(dataset, matrices.get(features), head, split, options)
        except ValueError as error:
            return str(error)

    done = run_in_threads(judge, tasks, runtime, f"hold-outs at {power}X")
    for ((features, head), number), result in zip(tasks, done, strict=True):
        if isinstance(result, str):
            found["not_run"].append(f"{features}, {head}, {power}X, hold-out {number}: {result}")
        else:
            named = {"magnification": power, "features": features, "head": head, "hold_out": number}
            found["rows"].append({**named, **result})
    return found, description


def _audit(dataset, splits, prints, n_jobs):
    return [
        {"fold": number, **{key: finding[key] for key in ("code", "title", "severity", "detail")}}
        for number, split in splits.items()
        for finding in audit_fingerprints(dataset, split, prints, n_jobs=n_jobs).to_dict()["findings"]
        if finding["status"] == "issue"
    ]


def score_hold_out(dataset, X, head, split, options):
    """Rates of one head on one hold-out; without features, of the class that most training images have."""
    (train, test), y, patients = split, dataset.y, dataset.patients
    if X is None:
        predicted = np.full(len(test), np.bincount(y[train]).argmax())
    else:
        fitted = make_head(head, random_state=options.seed, n_jobs=1, params=_head_params(head, options) or {})
        predicted = fitted.fit(X[train], y[train], groups=patients[train]).predict(X[test])
    resampling = {"n_resamples": options.resamples, "random_state": options.seed}
    rates = recognition_rates(y[test], predicted, patients[test], **resampling)
    labels = label_scores(confusion(y[test], predicted, len(dataset.target_names)))
    return {
        "n_features": 0 if X is None else X.shape[1],
        "patient_rate": rates.patient_rate,
        **dict(zip(("patient_rate_low", "patient_rate_high"), rates.interval("patient_rate"), strict=True)),
        "image_rate": rates.image_rate,
        **{name: float(labels[name]) for name in ("balanced_accuracy", "sensitivity", "specificity")},
        "n_train_patients": len(set(patients[train])),
        "n_test_patients": len(rates.patients),
        "n_test_images": len(test),
    }


def _by_model(rows):
    """Rows of one model and magnification together, by hold-out."""
    found = {}
    for row in sorted(rows, key=lambda row: row["hold_out"]):
        found.setdefault(tuple(row[key] for key in _MODEL), []).append(row)
    return found


def summarise_hold_outs(rows, n_hold_outs):
    """Mean and standard deviation over the hold-outs, one dict for each model and magnification.

    Models that could not be fitted on every hold-out are left out: their mean would be of other patients.
    """
    found = []
    for model, chosen in _by_model(rows).items():
        if len(chosen) == n_hold_outs:
            entry = dict(zip(_MODEL, model, strict=True))
            entry |= {"n_features": chosen[0]["n_features"], "n_hold_outs": len(chosen)}
            for rate in RATES:
                values = np.array([row[rate] for row in chosen])
                entry |= {rate: values.mean(), f"{rate}_sd": values.std(ddof=1) if len(values) > 1 else np.nan}
            found.append(entry)
    return found


def compare_hold_outs(rows, n_hold_outs, reference, rate="patient_rate"):
    """Compare each model with the reference on the same hold-outs.

    Parameters
    ----------
    rows : list of dict
        As in `measure_hold_outs`, of all magnifications.
    n_hold_outs : int
    reference : (str, str)
        Features and head.
    rate : str

    Returns
    -------
    list of dict
        The corrected resampled t-test of Nadeau and Bengio (doi:10.1023/A:1024068626366), and its p adjusted by Holm
        over the whole list. Where all differences are equal, no uncertainty can be estimated: p is None, and is left
        out of the adjustment.
    """
    groups, found = _by_model(rows), []
    for (magnification, *model), chosen in groups.items():
        against = groups.get((magnification, *reference), ())
        if tuple(model) in (tuple(reference), NOTHING) or not len(chosen) == len(against) == n_hold_outs > 1:
            continue
        differences = [mine[rate] - theirs[rate] for mine, theirs in zip(chosen, against, strict=True)]
        sizes = {f"n_{side}": np.mean([row[f"n_{side}_patients"] for row in chosen]) for side in ("train", "test")}
        test = nadeau_bengio(differences, **sizes)
        entry = dict(zip(_MODEL, (magnification, *model), strict=True)) | {"difference": test.mean}
        known = {"low": test.ci95[0], "high": test.ci95[1], "t": test.t, "p": test.p, "p_holm": None}
        found.append(entry | (known if test.std > 1e-12 else dict.fromkeys(known)))
    tested = [entry for entry in found if entry["p"] is not None]
    for entry, adjusted in zip(tested, holm([entry["p"] for entry in tested]) if tested else (), strict=True):
        entry["p_holm"] = float(adjusted)
    return found


# --- folds of patients -----------------------------------------------------------------------------------------------


def evaluate_folds(root, power, target, options, runtime):
    """Evaluate benign against malignant, or the subtypes, under folds of patients.

    Returns
    -------
    dict
        "magnification", "target"; "refused": why the classes as they are cannot be split; "merged": what was merged
        then; "payload": the Evaluation; "not_run": why there is none.
    """
    (outer, inner), found = FOLDS[target], {"magnification": power, "target": target}
    found |= {"refused": None, "merged": [], "payload": None, "not_run": None}
    models = product(dict.fromkeys(options.features), dict.fromkeys(options.fold_heads))
    pipelines = [(name, _pipeline(name, head, options)) for name, head in models]
    settings = {"n_resamples": options.resamples, "random_state": options.seed, "runtime": runtime}
    try:
        whole = _load(root, power, target, options)
        found["refused"] = _refusal(whole, outer)
        dataset = merge_rare_classes(whole, outer) if target == "subtype" else whole
        lines = [line.removeprefix("- ") for line in dataset.audit.summary().splitlines()]
        found["merged"] = [line for line in lines if line.startswith("classes of fewer than")]
        cv, inner_cv = PatientKFold(outer, random_state=options.seed), PatientKFold(inner)
        found["payload"] = evaluate(dataset, pipelines, cv, inner_cv=inner_cv, **settings)
    except ValueError as error:
        found["not_run"] = str(error)
    return found


def _refusal(dataset, n_splits):
    """What `PatientKFold` says of these classes as they are; None where it can split them."""
    try:
        list(PatientKFold(n_splits).split(dataset.X, dataset.y, dataset.patients))
    except ValueError as error:
        return str(error)
    return None


def _classes(evaluations):
    rows = [
        {"magnification": found["magnification"], "target": found["target"], "features": model.name, "head": model.head}
        | entry
        for found in evaluations
        if found["payload"] is not None
        for model, classes in zip(found["payload"].models, found["payload"].classes, strict=True)
        for entry in classes.to_dicts()
    ]
    return flat_table(rows).rename(columns=lambda name: name.removesuffix("_value"))


def _figures(rows, means, evaluations):
    """Rates of each magnification, and the confusion matrix of the best model of each evaluation."""
    figures, label = {}, "patient recognition rate: mean, lowest and highest of the hold-outs"
    if means:
        ends = pd.DataFrame(rows).groupby(_MODEL, sort=False)["patient_rate"].agg(low="min", high="max")
        for power, drawn in pd.DataFrame(means).join(ends, on=_MODEL).groupby("magnification", sort=False):
            named = drawn, "patient_rate", "{features}, {head}", "head"
            figures[f"rates_{power}X"] = bars(f"Patient recognition rate, {power}X", label, *named, reference=None)
    for found in evaluations:
        if found["payload"] is not None and found["payload"].models:
            figures[f"confusion_{found['target']}_{found['magnification']}X"] = "confusion", found["payload"]
    return figures
