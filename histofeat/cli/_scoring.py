"""``histofeat score`` and ``power``: score the predictions of any system; how many patients tell scores apart."""

from dataclasses import asdict, dataclass
from pathlib import Path

import histofeat
from histofeat.cli._options import RunOptions, argument, flag, group, option
from histofeat.cli._outputs import cells, check_output, give, print_metrics
from histofeat.metrics import rule_examples

#: Options that belong to one kind of scoring only.
_OF = {
    None: ("truth", "patients", "positive", "classes", "model"),
    "breakhis": ("data", "folds_dir", "magnification", "model"),
}
_OF["idc-official"] = ("data", "threshold", "allow_missing_patients")
#: What `power` plans for, where nothing is asked: half-widths of an interval, and differences.
_GOALS = (0.05, 0.02, 0.01)
_Predictions = argument(
    Path,
    "PREDICTIONS",
    "A table (CSV, Parquet, JSON) as `predict` writes, or a folder that `compare` wrote: path, p_CLASS for each "
    "class, or score for the positive one, or label alone; where known patient, truth, fold and model.",
)
_Run = group(RunOptions, without=["store", "no_store", "cluster", "quiet"])


@dataclass(frozen=True)
class TableOptions:
    """What is in a table of predictions."""

    truth: option(
        str | None, "TABLE|COLUMN", "True labels: a table with path and label, or a column.  [default: truth]"
    ) = None
    patients: option(str | None, "REGEX|CSV|folder|tcga", "How to find the patient of an image.") = None
    positive: option(str | None, "CLASS", "The positive class of two.  [default: the name that tells]") = None
    classes: option(str | None, "LIST", "Classes to take, to merge or to rename: normal,tumour=idc+ilc.") = None
    model: option(list[str] | None, "NAME", "Of predictions of several models, this one; may be repeated.") = None


def score(
    predictions: _Predictions,
    run: _Run,
    table: TableOptions,
    protocol: option(str | None, "NAME", "A published split: idc-official, breakhis.") = None,
    data: option(
        list[Path] | None,
        "DIR",
        "A copy of the data of the split: refuse missing and surplus rows; of IDC once for each of its folders.",
    ) = None,
    folds_dir: option(Path | None, "DIR", "breakhis: where dsfold1.txt to dsfold5.txt are.") = None,
    magnification: option(int | None, "N", "breakhis: 40, 100, 200 or 400.") = None,
    threshold: option(
        str | None,
        "RULE",
        "idc-official: what the threshold is chosen for on the rows of train and validation patients: "
        f"{rule_examples()}.  [default: f1 where there are such rows]",
    ) = None,
    output: option(Path | None, "FILE.json", "Also write the numbers here.", "--output", "-o") = None,
    resamples: option(int, "N", "Resamples of the patients.") = 2000,
    allow_missing_patients: flag(
        "--allow-missing-patients", "idc-official: score the test patients that have rows."
    ) = False,
) -> None:
    """Score predictions by the rules of histofeat's own reports.

    Of a table, any classes are scored, with intervals over patients. On a published split patient, place and class are
    read from file names: idc-official scores the test patients, breakhis the five published hold-outs.

    Examples
    --------
    histofeat score predictions.csv --truth labels.csv --patients "^([0-9]+)_"
    histofeat score predictions.parquet --model handcrafted/logistic
    histofeat score scores.csv --protocol idc-official --data idc
    histofeat score scores.csv --protocol breakhis --data BreaKHis_v1 --magnification 100
    """
    known = {**vars(table), **locals()}
    given = {name: value for name, value in known.items() if value and any(name in names for names in _OF.values())}
    _refuse_others(given, protocol)
    check_output(output)
    kinds = {None: _of_table, "breakhis": _of_breakhis, "idc-official": _of_idc}
    numbers, show = kinds[protocol](predictions, given, run, resamples)
    numbers = {"histofeat": histofeat.__version__, "predictions": predictions.name, **numbers}
    give(run, numbers, show, output)


def power(
    predictions: _Predictions,
    run: _Run,
    table: TableOptions,
    metric: option(str, "NAME", "Of roc_auc, average_precision, balanced_accuracy, f1 and others.") = "roc_auc",
    half_width: option(list[float] | None, "W", "Plan for an interval of ± W; may be repeated.") = None,
    difference: option(list[float] | None, "D", "Plan to find a difference of two models; may be repeated.") = None,
    output: option(Path | None, "FILE.json", "Also write the numbers here.", "--output", "-o") = None,
    resamples: option(int, "N", "Resamples of the patients.") = 2000,
) -> None:
    """Say what is noise in a pilot, and how many patients to test, from its predictions.

    The noise floor is the smallest difference of two models that these patients are enough to find; by default of the
    best two. The design effect says how many patches count as one. The plan is for fits such as these; a pilot of few
    patients may be off by a factor of two.

    Examples
    --------
    histofeat power out/predictions.parquet
    histofeat power out --model handcrafted/logistic --model histo/logistic --difference 0.01
    histofeat power scores.csv --patients "^([0-9]+)_" --half-width 0.02
    """
    from histofeat.exceptions import check_name, check_real
    from histofeat.metrics import METRICS

    check_output(output)
    check_name("--metric", metric, METRICS)
    goals = {"half_width": half_width or [], "difference": difference or []}
    for name, size in ((name, size) for name, sizes in goals.items() for size in sizes):
        check_real(f"--{name.replace('_', '-')}", size, "above 0", lambda value: value > 0, "Use 0.02.")
    pilot = _read(predictions, {name: value for name, value in vars(table).items() if value}, run, resamples, "power")
    goals = goals if half_width or difference else dict.fromkeys(goals, _GOALS)
    numbers = _planned(pilot, metric, goals, two=bool(difference) or len(pilot.models) > 1)
    numbers = {"histofeat": histofeat.__version__, "predictions": predictions.name, **numbers}
    give(run, numbers, lambda: _show_plan(predictions.name, numbers), output)


def _planned(pilot, metric, goals, *, two):
    """Give the numbers of `power`: of the best model, of the noise floor of two, and plans for their goals."""
    import numpy as np

    from histofeat.metrics import METRIC_RECORDS, design_effect, noise_floor, plan_patients

    sign = 1 if METRIC_RECORDS[metric].higher_is_better else -1
    best = max(pilot.models, key=lambda model: np.nan_to_num(sign * model.scores[metric].value, nan=-np.inf))
    if not np.isfinite(best.scores[metric].value):
        got = f"--metric: expected one that these predictions have, got {metric}, which needs probabilities"
        raise ValueError(f"{got}. Use balanced_accuracy.")
    name, floor = f"{best.name}/{best.head}", noise_floor(pilot, metric=metric) if two else None
    asked = [("half-width", size, {"width": 2 * size, "models": name}) for size in goals["half_width"]]
    pair = {"models": floor and floor.models}
    asked += [("difference", size, {"difference": size, **pair}) for size in goals["difference"] if floor]
    plans = [{"of": of, "size": size, **asdict(plan_patients(pilot, metric=metric, **how))} for of, size, how in asked]
    tested = pilot.dataset.frame[pilot.tested]
    carriers = tested.groupby("label")["patient"].nunique()
    found = {"metric": metric, "n_patches": len(tested), "n_patients": best.resamples.n_patients}
    found["carriers"] = {pilot.labels[code]: int(n) for code, n in carriers.items()}
    found |= {"model": best.name, "score": best.scores[metric].to_dict(), "plans": plans}
    found |= {"design_effect": design_effect(pilot, name, metric), "noise_floor": floor and floor.to_dict()}
    return {**found, "notes": [*filter(None, (pilot.caution, pilot.protocol["registered"]))]}


def _show_plan(name, numbers):
    from histofeat.metrics import METRIC_RECORDS

    carriers = ", ".join(f"{n:,} with {label}" for label, n in numbers["carriers"].items())
    print(f"{name}: {numbers['n_patches']:,} patches; {numbers['n_patients']:,} patients ({carriers})")
    (value, ends), floor, effect = cells(numbers["score"]), numbers["noise_floor"], numbers["design_effect"]
    print(f"{numbers['model']}: {METRIC_RECORDS[numbers['metric']].words} {value} (95 % interval {ends})")
    single = f"{numbers['n_patches'] / effect:,.0f}"
    print(f"Design effect {effect:.1f}: the patches say as much as {single} of as many patients.")
    none = "Noise floor: not known of a single model. Give predictions of two."
    print(f"{floor['sentence']} {floor['how']}" if floor else none)
    for plan in numbers["plans"]:
        chance = " (80 % power)" * (plan["of"] == "difference")
        ends, carriers = "{:,} to {:,}".format(*plan["n_patients_ci95"]), f"{plan['n_carriers']:,} carriers"
        print(f"For a {plan['of']} of {plan['size']:g}{chance}: {plan['n_patients']:,} patients ({ends}), {carriers}.")
    print(*(f"- {note}" for note in numbers["notes"]), sep="\n")


def _refuse_others(given, protocol) -> None:
    from histofeat.exceptions import check_name

    check_name("--protocol", protocol or "none", ["none", *filter(None, _OF)])
    for name in sorted(given.keys() - {*_OF[protocol]}):
        where = f"for the protocol {protocol}" if protocol else "without a protocol"
        words = f"--{name.replace('_', '-')}: expected none {where}, got {given[name]!s:.60}."
        raise ValueError(f"{words} Leave it out, or choose another --protocol.")


def _of_table(predictions, given, run, resamples):
    return describe_scores(_read(predictions, given, run, resamples, "score"), predictions.name)


def _read(predictions, given, run, resamples, command):
    from histofeat.evaluation import evaluate_predictions

    settings = {"n_resamples": resamples, "random_state": run.seed}
    settings |= {"runtime": run.runtime(f"{command} {predictions.name}"), "models": given.pop("model", None) or ()}
    return evaluate_predictions(predictions, **given, **settings)


def describe_scores(found, name: str):
    """Give the numbers of scored predictions, and a function that prints them."""
    from histofeat.evaluation import HARD_LABELS

    columns, rows = {}, []
    for model, probable in zip(found.models, found.calibration, strict=True):
        cuts = sorted(set(model.thresholds) - {0.5})
        scores, tuned = _plain(model.scores), _plain(model.tuned)
        hard = HARD_LABELS in model.notes
        columns[f"{model.name} at 0.5" if model.thresholds and not hard else model.name] = scores
        if cuts or (model.predicted != model.predicted_tuned).any():
            mine = f" ({cuts[0]:.4f})" if len(cuts) == 1 else ""
            columns[f"{model.name}, its {'threshold' if cuts else 'labels'}{mine}"] = tuned
        raw = probable.raw.to_dict() if probable and not hard else None
        rows.append({"model": model.name, "scores": scores, "scores_at_threshold": tuned})
        rows[-1] |= {"thresholds": model.thresholds, "calibration": raw, "notes": model.notes}
    notes = [note for row in rows for note in row["notes"]] + [found.caution, found.protocol["registered"]]
    for row in rows:
        if row["calibration"]:
            shown = [cells(row["calibration"][name]) for name in ("ece", "slope")]
            ece, slope = (value + (ends and f" (95 % interval {ends})") for value, ends in shown)
            notes.append(f"{row['model']}: calibration error {ece}; slope {slope}, where 1 is calibrated.")
    head = f"{name}: {found.dataset.audit.summary().splitlines()[0].partition(': ')[2]}"
    numbers = {"positive": found.dataset.positive, "n_patients": found.dataset.audit.n_patients, "models": rows}
    notes = list(dict.fromkeys(filter(None, notes)))
    return {**numbers, "notes": notes}, lambda: _show(head, columns, notes)


def _of_breakhis(predictions, given, run, resamples):
    from histofeat.datasets import load_breakhis
    from histofeat.evaluation import score_breakhis

    if len(given.get("data", ())) != 1:
        raise ValueError("--data: expected the folder of BreakHis, got none. Name it: the hold-outs are of its images.")
    dataset = load_breakhis(given["data"][0], given.get("magnification"), duplicates="published")
    table = score_breakhis(predictions, dataset, given.get("folds_dir"), models=given.get("model", ()))
    rates = table.groupby("model", sort=False)[["patient_rate", "image_rate"]].agg(["mean", "std"])
    words = [
        f"{name}: patient recognition rate {row['patient_rate', 'mean']:.4f} ± {row['patient_rate', 'std']:.4f}, image "
        f"{row['image_rate', 'mean']:.4f} ± {row['image_rate', 'std']:.4f} (mean and deviation over the hold-outs)"
        for name, row in rates.iterrows()
    ]
    head = f"{predictions.name}: five published hold-outs of BreakHis; positive class: {dataset.positive}"
    shown = table.to_string(index=False, float_format=lambda value: f"{value:.4f}")
    numbers = {"protocol": "breakhis", "positive": dataset.positive, "hold_outs": table.to_dict("records")}
    return {**numbers, "notes": words}, lambda: print("\n".join([head, shown, *words]))


def _of_idc(predictions, given, run, resamples):
    from histofeat.evaluation import read_predictions, score_predictions

    ledger = run.looks(f"score {predictions.name}")
    settings = {"n_resamples": resamples, "random_state": run.seed, "ledger": ledger}
    scored = score_predictions(read_predictions(predictions), "idc-official", **given, **settings)
    head = f"{scored.protocol.title}; positive class: {scored.protocol.positive}\n{scored.test}, "
    head += f"{scored.n_positive:,} positive"
    columns = {"at 0.5": _plain(scored.scores)}
    if scored.tuned:
        columns[f"at {scored.threshold:.4f} ({scored.rule})"] = _plain(scored.tuned)
    return scored.to_dict(), lambda: _show(head, columns, scored.notes)


def _plain(scores) -> dict:
    return {metric: score.to_dict() for metric, score in scores.items()}


def _show(head, columns, notes) -> None:
    print(head)
    print_metrics(columns)
    print(*(f"- {note}" for note in notes), sep="\n")
