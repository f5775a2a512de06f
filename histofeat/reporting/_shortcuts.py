"""Tables of shortcuts: what they reach alone, how well features know the patient, what a split by patch adds."""

from histofeat.reporting._tables import METRIC_WORDS, Table
from histofeat.reporting._text import interval, number, percent, signed, with_interval

PROBE_WORDS = {
    "mean_color": "mean colour",
    "background": "background fraction",
    "compression_and_blur": "compression and blur",
    "coordinates": "coordinates",
}


def probes_table(panel):
    """Return one row per shortcut, and one for the model.

    Parameters
    ----------
    panel : dict
        As `histofeat.studies.ShortcutPanel.to_dict` gives it.

    Returns
    -------
    Table
    """
    reference = panel["reference"]
    columns = ["Shortcut", "What the classifier sees", "Columns", "ROC-AUC", "95 % interval"]
    rows = []
    for row in panel["rows"]:
        name = PROBE_WORDS.get(row["name"], row["name"])
        cells = [name, row["definition"], f"{row['n_features']:,}", number(row["roc_auc"]), interval(row["ci95"])]
        if reference:
            cells += [percent(row["share"]), interval(row["share_ci95"], percent)]
        rows.append(tuple(cells))
    if reference:
        columns += ["Share of the score above chance", "95 % interval"]
        cells = ("model: " + reference["name"], "its features", "", number(reference["roc_auc"]))
        rows.append((*cells, interval(reference["ci95"]), "100 %", ""))
    return Table("Shortcuts alone, pooled out of fold.", tuple(columns), tuple(rows), n_text=2)


def identification_table(panel):
    """Return one row per kind of features: how often they name the right patient.

    Parameters
    ----------
    panel : dict
        As in `probes_table`.

    Returns
    -------
    Table
    """
    rows = tuple(
        (
            PROBE_WORDS.get(entry["family"], entry["family"]),
            f"{entry['n_features']:,}",
            percent(entry["accuracy"]),
            interval(entry["ci95"], percent),
            f"{entry['accuracy'] / entry['chance']:.1f}",
        )
        for entry in panel["identification"]
    )
    columns = ("Features", "Columns", "Right patient", "95 % interval", "Times chance")
    return Table("Patient identification: share of patches that are given to their own patient.", columns, rows)


def leakage_table(payload_leakage, metric):
    """Return one row per pipeline: one metric by patient, by patch, and what the split by patch adds.

    Parameters
    ----------
    payload_leakage : dict
        As `histofeat.studies.Leakage.to_dict` gives it.
    metric : str
        The name of a metric, such as ``"roc_auc"``.

    Returns
    -------
    Table
    """
    rows = tuple(
        (
            row["name"],
            row["head"],
            f"{row['n_features']:,}",
            *(with_interval(row[side], row[f"{side}_ci95"]) for side in ("honest", "leaked")),
            with_interval(row["difference"], row["difference_ci95"], signed),
        )
        for row in payload_leakage["rows"]
        if row["metric"] == metric
    )
    columns = ("Model", "Head", "Columns", "Split by patient", "Split by patch", "Difference")
    return Table(f"{METRIC_WORDS[metric]}, pooled [95 % interval].", columns, rows, n_text=2)
