"""``histofeat score``: score the predictions of any system, in a table or on a published split."""

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


def score(
    predictions: argument(
        Path,
        "PREDICTIONS",
        "A table (CSV, Parquet, JSON) as `predict` writes, or a folder that `compare` wrote: path, p_CLASS for each "
        "class, or score for the positive one, or label alone; where known patient, truth, fold and model.",
    ),
    run: group(RunOptions, without=["store", "no_store", "cluster", "quiet"]),
    truth: option(
        str | None, "TABLE|COLUMN", "True labels: a table with path and label, or a column.  [default: truth]"
    ) = None,
    patients: option(str | None, "REGEX|CSV|folder|tcga", "How to find the patient of an image.") = None,
    positive: option(str | None, "CLASS", "The positive class of two.  [default: the name that tells]") = None,
    classes: option(str | None, "LIST", "Classes to take, to merge or to rename: normal,tumour=idc+ilc.") = None,
    model: option(list[str] | None, "NAME", "Of predictions of several models, this one; may be repeated.") = None,
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
    given = {name: value for name, value in locals().items() if value and any(name in names for names in _OF.values())}
    _refuse_others(given, protocol)
    check_output(output)
    kinds = {None: _of_table, "breakhis": _of_breakhis, "idc-official": _of_idc}
    numbers, show = kinds[protocol](predictions, given, run, resamples)
    numbers = {"histofeat": histofeat.__version__, "predictions": predictions.name, **numbers}
    give(run, numbers, show, output)


def _refuse_others(given, protocol) -> None:
    from histofeat.exceptions import check_name

    check_name("--protocol", protocol or "none", ["none", *filter(None, _OF)])
    for name in sorted(given.keys() - {*_OF[protocol]}):
        where = f"for the protocol {protocol}" if protocol else "without a protocol"
        words = f"--{name.replace('_', '-')}: expected none {where}, got {given[name]!s:.60}."
        raise ValueError(f"{words} Leave it out, or choose another --protocol.")


def _of_table(predictions, given, run, resamples):
    from histofeat.evaluation import evaluate_predictions

    settings = {"n_resamples": resamples, "random_state": run.seed, "runtime": run.runtime(f"score {predictions.name}")}
    found = evaluate_predictions(predictions, models=given.pop("model", ()), **given, **settings)
    return describe_scores(found, predictions.name)


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
