"""The shortcut panel as a part of a report: what shortcuts reach alone, and how well features know the patient."""

from histofeat.metrics import METRIC_RECORDS
from histofeat.reporting.blocks import Heading, Notice, Table, Text
from histofeat.reporting.sections.tables import number

__all__ = ["LEAKAGE_WORDS", "leakage_table", "shortcut_blocks"]

_PROBE_WORDS = {
    "mean_color": "mean colour",
    "background": "background fraction",
    "compression_and_blur": "compression and blur",
    "coordinates": "coordinates",
}
LEAKAGE_WORDS = {name: METRIC_RECORDS[name].words for name in ("roc_auc", "balanced_accuracy", "f1")}


def shortcut_blocks(payload_shortcuts):
    """Blocks of the shortcut panel.

    Parameters
    ----------
    payload_shortcuts : dict or None
        What `histofeat.studies.shortcuts.ShortcutPanel.to_dict` gives; None where there is no panel.

    Returns
    -------
    list of blocks
        Empty without a panel.

    Examples
    --------
    >>> shortcut_blocks(None)
    []
    """
    panel = payload_shortcuts
    if panel is None:
        return []
    blocks = [Heading("Shortcuts"), Text(_introduction(panel))]
    if panel["patient_overlap"]:
        blocks.append(
            Notice(
                "danger",
                "These folds share patients",
                ("A shortcut that names the patient gets its score from that here. Nothing below bounds what a model "
                 "would gain on a new patient.",),
            )
        )  # fmt: skip
    blocks += [_probes_table(panel), *_bound(panel)]
    if panel["identification"]:
        blocks += [Text(_identification_words(panel)), _identification_table(panel)]
    if panel["not_run"]:
        blocks.append(
            Notice("warning", "Not run", tuple(f"{entry['name']}: {entry['reason']}" for entry in panel["not_run"]))
        )
    return blocks


def _introduction(panel):
    folds = f"{panel['n_folds']} {'fold' if panel['n_folds'] == 1 else 'folds'}"
    return (
        "Classifiers that see one shortcut each and nothing else of the picture, on the same "
        f"{folds} as the models: {panel['n_patches']:,} tested patches of {panel['n_patients']:,} patients."
    )


def _probes_table(panel):
    reference = panel["reference"]
    columns = ["Shortcut", "What the classifier sees", "Columns", "ROC-AUC", "95 % interval"]
    if reference:
        columns += ["Share of the score above chance", "95 % interval"]
    rows = []
    for row in panel["rows"]:
        name = _PROBE_WORDS.get(row["name"], row["name"])
        cells = [name, row["definition"], f"{row['n_features']:,}", number(row["roc_auc"]), _interval(row["ci95"])]
        if reference:
            cells += [_percent(row["share"]), _interval(row["share_ci95"], _percent)]
        rows.append(tuple(cells))
    if reference:
        cells = ("model: " + reference["name"], "its features", "", number(reference["roc_auc"]))
        rows.append((*cells, _interval(reference["ci95"]), "100 %", ""))
    return Table("Shortcuts alone, pooled out of fold.", tuple(columns), tuple(rows), n_text=2)


def _bound(panel):
    reference = panel["reference"]
    if not reference:
        yield Text("No model was given to hold them against.", muted=True)
        return
    defined = [row for row in panel["rows"] if row["share"] is not None]
    if not defined:
        yield Text(f"{reference['name']} cannot be told from chance here, so there is no score to explain.", muted=True)
        return
    largest = max(defined, key=lambda row: row["share"])
    yield Text(
        f"The largest: {_PROBE_WORDS.get(largest['name'], largest['name'])}, with {_percent(largest['share'])} of what "
        f"{reference['name']} scores above 0.5. Such a share is an upper bound on what the shortcut could explain of "
        "the model's score, as far as a small classifier gets it out. It is not what the model uses, and not all of it "
        "is a fault: mean colour is stain and scanner, and it is also how many nuclei a patch holds; sharpness is "
        "focus, and it is also texture; bare glass is no tumour."
    )
    yield Text(
        "Share: (ROC-AUC of the shortcut - 0.5) / (ROC-AUC of the model - 0.5); the model is the best of this "
        "evaluation, and both scores come from the same resamples of the patients. A share below 0 is a score below "
        "chance. Relative coordinates use the extent of all patches of a patient, never their labels.",
        muted=True,
    )


def _identification_words(panel):
    first = panel["identification"][0]
    best = max(panel["identification"], key=lambda entry: entry["accuracy"])
    return (
        f"How well do features recognise the patient? From {first['patches_per_patient']} patches of each of "
        f"{first['n_patients']:,} patients, every patch was given to the patient whose other patches it resembles most "
        f"(linear discriminant analysis on four fifths of them). Guessing is right in {_percent(first['chance'], 2)}. "
        f"{best['family']} is right in {_percent(best['accuracy'])}, {best['accuracy'] / best['chance']:.0f} times as "
        "often. This is what a split by patch lets a classifier exploit, and a lower bound: another classifier may "
        "recognise more."
    )


def _identification_table(panel):
    rows = tuple(
        (
            _PROBE_WORDS.get(entry["family"], entry["family"]),
            f"{entry['n_features']:,}",
            _percent(entry["accuracy"]),
            _interval(entry["ci95"], _percent),
            f"{entry['accuracy'] / entry['chance']:.1f}",
        )
        for entry in panel["identification"]
    )
    columns = ("Features", "Columns", "Right patient", "95 % interval", "Times chance")
    return Table("Patient identification: share of patches that are given to their own patient.", columns, rows)


def leakage_table(payload_leakage, metric):
    """One row per pipeline: one metric by patient, by patch, and what the split by patch adds.

    Parameters
    ----------
    payload_leakage : dict
        What `histofeat.studies.shortcuts.Leakage.to_dict` gives.
    metric : str
        A key of `LEAKAGE_WORDS`.

    Returns
    -------
    Table
    """
    rows = tuple(
        (
            row["name"],
            row["head"],
            f"{row['n_features']:,}",
            *(_with_interval(row, side) for side in ("honest", "leaked")),
            _with_interval(row, "difference", signed=True),
        )
        for row in payload_leakage["rows"]
        if row["metric"] == metric
    )
    columns = ("Model", "Head", "Columns", "Split by patient", "Split by patch", "Difference")
    return Table(f"{LEAKAGE_WORDS[metric]}, pooled [95 % interval].", columns, rows, n_text=2)


def _with_interval(row, side, signed=False):
    def text(value):
        return number(value) if value is None or not signed else f"{value:+.3f}"

    low, high = row[f"{side}_ci95"]
    if row[side] is None or low is None or high is None:
        return text(row[side])
    return f"{text(row[side])} [{text(low)}, {text(high)}]"


def _interval(bounds, write=number):
    low, high = bounds
    return "–" if low is None or high is None else f"{write(low)} – {write(high)}"


def _percent(value, digits=1):
    return number(value) if value is None else f"{100 * value:.{digits}f} %"
