"""Our scores on the official IDC test patients beside the published ones: what the numbers are of, table, files."""

import csv
import io
from pathlib import Path

from histofeat.reporting.blocks import Addition, Heading, Notice, Table, Text
from histofeat.reporting.payload import model_key, score_payload
from histofeat.reporting.strict_json import jsonable
from histofeat.reporting.tables import number, score_with_interval

__all__ = ["PUBLISHED", "addition", "comparison_rows", "comparison_table", "data_words", "load_published"]

PUBLISHED = Path(__file__).with_name("idc_official_published.csv")
SCHEMA = 1
_COLUMNS = ("work", "year", "method", "f1", "balanced_accuracy", "status")
#: A number that somebody remembers, or that stands in a repository, is not what a paper reports.
_STATUS = "abstract"
_METRICS = ("f1", "balanced_accuracy")
_AS_PUBLISHED = "as published"
_SOURCES = "Cruz-Roa et al. 2014 (doi:10.1117/12.2043872), Janowczyk and Madabhushi 2016 (doi:10.4103/2153-3539.186902)"


# --- what was published ----------------------------------------------------------------------------------------------


def load_published(path=PUBLISHED):
    """The published rows, as dicts with ``work, year, method, f1, balanced_accuracy, status``.

    Raises
    ------
    ValueError
        If the file has other columns, a row whose status is not "abstract", or a score that is none.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != _COLUMNS:
            raise ValueError(
                f"{path.name}: expected the columns {', '.join(_COLUMNS)}, got {', '.join(reader.fieldnames or ())!r}. "
                "Restore the file."
            )
        return [_published(row, f"{path.name}, row {number}") for number, row in enumerate(reader, start=1)]


def _published(row, where):
    if row["status"] != _STATUS:
        raise ValueError(
            f"{where}: expected the status {_STATUS!r}, got {row['status']!r}. Only what an abstract states is printed "
            "as published; remove the row."
        )
    scores = {}
    for metric in _METRICS:
        try:
            scores[metric] = float(row[metric])
        except (TypeError, ValueError):
            scores[metric] = -1.0
        if not 0 < scores[metric] < 1:
            raise ValueError(f"{where}: expected {metric} between 0 and 1, got {row[metric]!r}. Look it up again.")
    return {**row, **scores}


# --- what ours are of ------------------------------------------------------------------------------------------------


def data_words(dataset, split):
    """Which data: how much of the full set, and how much of the test patients.

    Parameters
    ----------
    dataset : PatchDataset
        The whole copy of IDC.
    split : OfficialSplit
        Of that copy.

    Returns
    -------
    str

    Examples
    --------
    ``"a 5 % sample: 12,738 of 277,524 patches; 49 test patients, 2,748 patches"``
    """
    return f"{copy_words(dataset.audit)}; {_patients(split, 'test')} patients, {len(split.test):,} patches"


def copy_words(audit):
    """How much of the full set a copy is."""
    full = audit.full_set.n_patches
    if audit.is_complete:
        return f"the full set: {full:,} patches"
    if audit.n_patches >= full:
        return f"not the published set: {audit.n_patches:,} patches where {full:,} were published"
    percent = 100 * audit.n_patches / full
    share = f"a {percent:.0f} % sample" if percent >= 1 else "a sample of less than 1 %"
    return f"{share}: {audit.n_patches:,} of {full:,} patches"


def _patients(split, role):
    """Count the patients of a role: "49 test", or "47 of the 49 test" where some are missing."""
    here, missing = split.n_patients[role], len(split.missing[role])
    return f"{here} of the {here + missing} {role}" if missing else f"{here} {role}"


def _comparability(audit):
    if audit.is_complete:
        return (
            "Published numbers are on all patches of the same 49 patients; each work trained and chose its threshold "
            "in its own way."
        )
    return (
        "Published numbers are on the full set of patches of the 49 patients and so not directly comparable: ours are "
        f"on {copy_words(audit)}."
    )


# --- side by side ----------------------------------------------------------------------------------------------------


def comparison_rows(models, published, n_test):
    """Ours, at the tuned threshold and at 0.5, then the published rows: flat dicts with the same keys.

    Parameters
    ----------
    models : sequence of ModelResult
    published : sequence of dict
        As `load_published` gives them.
    n_test : (int, int)
        Test patients and their patches in this copy.

    Returns
    -------
    list of dict
        ``source`` ("histofeat" or "published"), ``work, year, method, head, features, labels`` ("tuned", "0.5",
        "as published"), ``n_test_patients, n_test_patches, f1, f1_low, f1_high, balanced_accuracy,
        balanced_accuracy_low, balanced_accuracy_high, status``; None where unknown or undefined.
    """
    rows = []
    for model in models:
        for labels, scores in (("tuned", model.tuned), ("0.5", model.scores)):
            rows.append(_row(
                source="histofeat", method=model.name, head=model.head, features="+".join(model.features),
                labels=labels, n_test_patients=n_test[0], n_test_patches=n_test[1], **_intervals(scores),
            ))  # fmt: skip
    for row in published:
        rows.append(_row(source="published", labels=_AS_PUBLISHED, **{**row, "year": int(row["year"])}))
    return rows


_ROW = (
    "source", "work", "year", "method", "head", "features", "labels", "n_test_patients", "n_test_patches",
    "f1", "f1_low", "f1_high", "balanced_accuracy", "balanced_accuracy_low", "balanced_accuracy_high", "status",
)  # fmt: skip


def _row(**values):
    return {name: values.get(name) for name in _ROW}


def _intervals(scores):
    values = {}
    for metric in _METRICS:
        score = jsonable(score_payload(scores[metric]))
        values |= {metric: score["pooled"], f"{metric}_low": score["ci95"][0], f"{metric}_high": score["ci95"][1]}
    return values


def comparison_table(rows, caption):
    """The rows for a reader. No cell is marked as the best: the rows are not of the same patches."""
    return Table(
        caption,
        ("Method", "Labels", "Test patches", "F1 [95 % interval]", "Balanced accuracy [95 % interval]"),
        tuple(_cells(row) for row in rows),
        n_text=2,
    )


def _cells(row):
    if row["source"] == "published":
        method, tested = f"{row['work']} {row['year']}: {row['method']}", "all"
        labels, scores = row["labels"], [number(row[metric], 4) for metric in _METRICS]
    else:
        method, tested = f"histofeat: {model_key(row['method'], row['head'])}", f"{row['n_test_patches']:,}"
        labels = "tuned threshold" if row["labels"] == "tuned" else "at 0.5"
        scores = [
            score_with_interval({"pooled": row[metric], "ci95": (row[f"{metric}_low"], row[f"{metric}_high"])})
            for metric in _METRICS
        ]
    return (method, labels, tested, *scores)


def addition(evaluation, split, published, n_evaluations):
    """What the report of this protocol has and others have not: notice, table, ``official.csv`` and ``.json``.

    Parameters
    ----------
    evaluation : Evaluation
        On the official split.
    split : OfficialSplit
    published : sequence of dict
    n_evaluations : int
        The lines of the ledger, those of this evaluation included.

    Returns
    -------
    Addition
    """
    dataset = evaluation.dataset
    words, note = data_words(dataset, split), _comparability(dataset.audit)
    share = float((dataset.y[split.test] == 1).mean())
    rows = comparison_rows(evaluation.models, published, (split.n_patients["test"], len(split.test)))
    trained = f"{_patients(split, 'train')} and {_patients(split, 'validation')}"
    level = "info" if dataset.audit.is_complete else "warning"
    ledger = (
        "A test set, not a tuning set: every evaluation on these patients appends a line to the ledger, which holds "
        f"{n_evaluations:,} with those of this run."
    )
    notice = Notice(level, f"Tested on {words}", (note, ledger))
    fitted = (
        f"Published split: fitted on {len(split.train) + len(split.validation):,} patches of {trained} patients, the "
        "tuned threshold chosen among these same patients; each pipeline scored once in this run on the test patients, "
        f"{100 * share:.1f} % of whose patches here are {dataset.target_names[1]}. F1 rises and falls with that share; "
        "balanced accuracy does not. Intervals are over the test patients. The highest of several rows on one test set "
        "is a little too high."
    )
    table = comparison_table(rows, f"IDC, {words}. Ours beside published numbers, which are on the full set.")
    blocks = (Heading("Beside the published numbers"), Text(note), table, Text(fitted), Text(f"Sources: {_SOURCES}."))
    document = {
        "schema": SCHEMA, "data": words, "comparability": note, "split": split.to_dict(),
        "test_share_positive": share, "sources": _SOURCES, "rows": rows,
    }  # fmt: skip
    return Addition((notice,), blocks, {"official.csv": _as_csv(rows), "official.json": document})


def _as_csv(rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=_ROW, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
