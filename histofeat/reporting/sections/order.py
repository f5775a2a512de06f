"""The report from top to bottom, as blocks: what it is about, what to beware of, the numbers, how they were made."""

import re

from histofeat.metrics import parse_rule
from histofeat.reporting.blocks import Addition, Details, Facts, Heading, Notice, Text
from histofeat.reporting.files.payload import data_label
from histofeat.reporting.sections import tables
from histofeat.reporting.sections.audit import audit_blocks, audit_notices
from histofeat.reporting.sections.calibration import calibration_blocks
from histofeat.reporting.sections.classes import class_blocks
from histofeat.reporting.sections.comparison import comparison_blocks, patient_average_blocks
from histofeat.reporting.sections.encoder import encoder_blocks, encoder_notices
from histofeat.reporting.sections.gallery_page import gallery_blocks
from histofeat.reporting.sections.training import training_blocks

__all__ = ["report_blocks"]


def report_blocks(payload, pictures, addition=None):
    """Everything that a reader sees.

    Parameters
    ----------
    payload : dict
        The content of `metrics.json`.
    pictures : mapping of str to list of Picture
        As `histofeat.reporting.figures.pictures.draw_pictures` gives them.
    addition : Addition, optional
        What stands before the results.

    Returns
    -------
    list of blocks
    """
    addition = addition or Addition()
    blocks = [Heading(payload["title"], 1), Text(_subtitle(payload)), *addition.notices, *_notices(payload)]
    blocks += addition.blocks
    if payload["results"]:
        blocks += [*_headline(payload, pictures), *patient_average_blocks(payload)]
        blocks += [*comparison_blocks(payload["comparison"], payload), *_curves(pictures)]
        blocks += class_blocks(payload)
        blocks += [*calibration_blocks(payload), *pictures.get("reliability", ())]
        blocks += [*training_blocks(payload, pictures.get("training", ())), *gallery_blocks(payload)]
        blocks += _by_fold(payload, pictures)
    blocks += addition.closing
    blocks += audit_blocks(payload["audit"], notices=False, label=data_label(payload["dataset"]))
    blocks += [*_method(payload), *_timing(payload), *_data(payload), *_provenance(payload)]
    return blocks


def _subtitle(payload):
    data = payload["dataset"]
    classes = ", ".join(f"{count:,} {name}" for name, count in data["class_counts"].items())
    n_folds = len(payload["folds"])
    return (
        f"{data_label(data)}. {data['n_patches']:,} patches of {data['n_patients']:,} patients ({classes}), "
        f"{len(payload['results'])} models, {n_folds} {'fold' if n_folds == 1 else 'folds'}."
    )


def _notices(payload):
    data = payload["dataset"]
    yield from audit_notices(payload["audit"])
    yield from encoder_notices(payload)
    if payload["protocol"]["patient_overlap"]:
        yield Notice(
            "danger",
            "Patients leak: the same patients are trained on and tested on",
            ("The split of this report puts patches of one patient on both sides. No number below estimates what a "
             "model does on a new patient; expect them to be too high.",),
        )  # fmt: skip
    if data["synthetic"]:
        yield Notice(
            "warning",
            "Synthetic cohort",
            ("Every number and figure here comes from generated images. They show that the program works, and say "
             "nothing about tissue.",),
        )  # fmt: skip
    if data["audit"]["complete"] is False:
        yield Notice("warning", "Not the whole data set", (f"{data['name']}: {data['audit']['completeness']}.",))
    unknown = tuple(note for note in data["audit"].get("notes", ()) if note.startswith("Patients are unknown"))
    if unknown:
        yield Notice("danger", "Patients unknown", unknown)
    if payload["protocol"].get("quick"):
        yield Notice("warning", "Quick run", (str(payload["protocol"]["quick"]),))
    if payload["not_run"]:
        reasons = tuple(f"{entry['name']}, {entry['head']}: {entry['reason']}" for entry in payload["not_run"])
        yield Notice("warning", "Not run", reasons)
    if not payload["results"]:
        yield Notice("danger", "No results", ("No model could be evaluated.",))


def _headline(payload, pictures):
    best = max(payload["results"], key=lambda result: _or_less(result["roc_auc"]["pooled"]))
    score = tables.score_with_interval(best["roc_auc"])
    yield Heading("Results")
    yield Text(
        f"Highest pooled ROC-AUC: {best['name']} with {best['head']}, {score} ({data_label(payload['dataset'])}). "
        "All models were tested on the same patients: intervals that overlap neither rank two of them nor make them "
        "equal."
    )
    yield tables.headline_table(payload)
    yield Text(tables.headline_key(payload), muted=True)
    yield from _networks(payload)
    yield from pictures["comparison"]
    full = [tables.scores_table(payload, "half")]
    if len(payload["dataset"]["labels"]) == 2:
        full.append(tables.scores_table(payload, "tuned"))
    yield Details("Every metric with its interval", tuple(full))
    yield Details("What each feature set is made of", (Facts(_ingredients(payload)),))


def _ingredients(payload):
    return tuple(
        {result["name"]: "; ".join(result["families"] or result["features"]) for result in payload["results"]}.items()
    )


def _networks(payload):
    """Name the networks behind a feature set: the parameters of a family say which, or its class does."""
    named = {}
    for result in payload["results"]:
        for family in result["families"]:
            found = re.search(r"encoder='([^']+)'", family) or re.match(r"(Histo)Embedding\(", family)
            if found:
                named.setdefault(result["name"], {})[found.group(1).lower()] = None
    if named:
        words = "; ".join(f"{name} with {' and '.join(encoders)}" for name, encoders in named.items())
        yield Text(f"Network: {words}.", muted=True)


def _or_less(value):
    return -1.0 if value is None else value


def _curves(pictures):
    yield Heading("ROC and precision-recall curves")
    yield Text(
        "All out-of-fold scores of a model pooled into one curve. Bands and the intervals of the areas come of the "
        "same resamples of the patients; a band holds at each point by itself. Precision depends on how frequent the "
        "class is: the dashed line is its share of the patches."
    )
    yield from pictures["roc"]
    yield from pictures["pr"]
    bands = (*pictures["roc_bands"], *pictures["pr_bands"])
    if bands:
        yield Details("The same with bands, one model a panel", bands)
    yield Heading("Confusion matrices")
    yield Text("Pooled over the folds: share of the true class (rows add to 100 %) and number of patches.")
    yield from pictures["confusion"]
    if pictures["confusion_tuned"]:
        yield Details("The same at the tuned threshold", tuple(pictures["confusion_tuned"]))


def _by_fold(payload, pictures):
    yield Heading("By fold")
    yield from pictures["forest"]
    yield tables.folds_table(payload, "roc_auc")
    more = [tables.folds_table(payload, metric) for metric in ("f1", "balanced_accuracy")]
    thresholds = _thresholds(payload)
    yield Details(
        "F1 and balanced accuracy of each fold, sizes of the folds", (*more, tables.fold_sizes_table(payload))
    )
    if thresholds:
        yield Details("Tuned thresholds of each fold", (Facts(thresholds),))


def _thresholds(payload):
    return tuple(
        (f"{result['name']}, {result['head']}", ", ".join(map(tables.number, result["tuned"]["thresholds"])))
        for result in payload["results"]
        if result["tuned"]["thresholds"]
    )


def _method(payload):
    protocol = payload["protocol"]
    yield Heading("How these numbers were made")
    yield Text(
        "Every score is out of fold: the model that scored a patch was fitted without that patch's fold. "
        + _split_words(protocol)
    )
    yield Text(_interval_words(protocol.get("n_resamples")))
    yield Text(_threshold_words(payload))
    yield from encoder_blocks(payload)
    yield from _search(payload)
    yield from _notes(payload)


def _interval_words(n_resamples):
    if not n_resamples:
        return "There are no intervals: the patients were not resampled."
    return (
        f"Intervals: whole patients are drawn with replacement, {n_resamples:,} times, the metric is computed on their "
        "out-of-fold predictions each time, and the interval runs from the 2.5th to the 97.5th percentile. It covers "
        "what other patients of the same kind would do to the score of these fitted models. It does not cover fitting "
        "the models again on other training patients, nor another laboratory, scanner or population."
    )


def _split_words(protocol):
    if protocol["patient_overlap"]:
        return "The split is by patch, not by patient."
    return "All patches of a patient stay on one side of a split."


def _threshold_words(payload):
    if len(payload["dataset"]["labels"]) > 2:
        return "Labels: the most probable class."
    inner = payload["protocol"].get("inner_cv")
    inside = f" ({inner})" if inner else ""
    rule = parse_rule(payload["protocol"].get("threshold", "f1")).words
    return (
        f"Labels: once positive above 0.5, once from a threshold that is chosen in each fold for {rule} inside "
        f"its training patients{inside}, on scores of patients that the inner fit had not seen. Test patients play no "
        "part in it."
    )


def _search(payload):
    search = payload["protocol"].get("search")
    if not search:
        return
    yield Text(
        f"Parameters of the heads were searched inside the training patients of each fold: {_words(search)}. Every "
        "feature set had the same budget. The folds that chose them also chose the threshold and the calibration; test "
        "patients play no part in it."
    )
    chosen = tuple(
        (
            f"{result['name']}, {result['head']}",
            "; ".join(f"fold {n}: {_words(c)}" for n, c in enumerate(result["choices"], 1)),
        )
        for result in payload["results"]
        if any(result["choices"])
    )
    yield Details("What the search chose in each fold", (Facts(chosen),))


def _notes(payload):
    notes = {}
    for result in payload["results"]:
        for note in result["notes"]:
            notes.setdefault(note, []).append(f"{result['name']}, {result['head']}")
    if notes:
        yield Details("Notes of the models", (Facts(tuple(("; ".join(who), note) for note, who in notes.items())),))


def _timing(payload):
    extraction = payload["seconds"].get("extraction")
    fit = payload["seconds"].get("fit", 0.0)
    yield Heading("Time")
    if extraction is not None:
        yield Text(
            f"Extraction: {extraction:,.1f} s for {payload['dataset']['n_patches']:,} patches, once for all models. "
            f"Fitting, inner fits included: {fit:,.1f} s."
        )
    if payload["computed"]:
        counts = ", ".join(f"{family} {count:,}" for family, count in payload["computed"].items())
        yield Text(f"Patches measured in this run: {counts}. Features of the others were in the store.")
    if "retrain" in payload["seconds"]:
        yield Text(f"Training encoders anew in each fold: {payload['seconds']['retrain']:,.1f} s.")
    yield Details("Seconds of each stage and model", (tables.seconds_table(payload),))


def _data(payload):
    yield Heading("Data")
    lines = list(payload["dataset"]["audit_summary"])
    conversions = payload["dataset"]["conversions"]
    if conversions:
        lines.append("images converted: " + ", ".join(f"{count:,} {rule}" for rule, count in conversions.items()))
    yield Facts(tuple(("", line) for line in lines))


def _provenance(payload):
    protocol = tuple((name.replace("_", " "), _words(value)) for name, value in payload["protocol"].items())
    environment = dict(payload["environment"])
    packages = environment.pop("packages", None) or {}
    facts = [(name, _words(value)) for name, value in environment.items()]
    if packages:
        facts.append(("packages", ", ".join(f"{name} {version}" for name, version in packages.items())))
    yield Heading("Protocol")
    yield Facts(protocol)
    yield Heading("Environment")
    run = [("histofeat", payload["histofeat"]), ("created", payload["created"])]
    if payload["command"]:
        run.append(("command", payload["command"]))
    yield Facts((*run, *facts))


def _words(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_words(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    return "none" if value is None else str(value)
