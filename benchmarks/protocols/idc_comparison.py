"""Our scores on the official IDC test patients beside the published ones: what the numbers are of, table, files."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histofeat.metrics import parse_rule
from histofeat.reporting import (
    Addition,
    Details,
    Heading,
    Notice,
    Table,
    Text,
    jsonable,
    model_key,
    number,
    score_payload,
    score_with_interval,
)

__all__ = [
    "PUBLISHED",
    "PUBLISHED_SPLIT",
    "WITH_UNLISTED",
    "Run",
    "addition",
    "comparison_rows",
    "comparison_table",
    "data_words",
    "load_published",
    "run_data_words",
]

PUBLISHED = Path(__file__).with_name("idc_official_published.csv")
#: Whom a run was fitted on, as rows and ledger name it.
PUBLISHED_SPLIT = "train+validation"
WITH_UNLISTED = "train+validation+unlisted"
SCHEMA = 2
_COLUMNS = ("work", "year", "method", "f1", "balanced_accuracy", "status")
_ABSTRACT, _REPOSITORY = "abstract", "authors' repository"
#: A number that somebody remembers is not what anybody published.
_STATUSES = (_ABSTRACT, _REPOSITORY)
_METRICS = ("f1", "balanced_accuracy")
_AS_PUBLISHED = "as published"
#: What stands for an F1 that is the mean of both classes, weighted by their patches: ours is that of the IDC class.
_OTHER_F1 = "not comparable (weighted F1)"
_SOURCES = (
    "Cruz-Roa et al. 2014 (doi:10.1117/12.2043872), Janowczyk and Madabhushi 2016 (doi:10.4103/2153-3539.186902), "
    "Romero et al. 2019 (doi:10.1109/ISBI.2019.8759410)"
)


@dataclass(frozen=True)
class Run:
    """One evaluation on the test patients.

    Parameters
    ----------
    trained_on : {PUBLISHED_SPLIT, WITH_UNLISTED}
        Whom its models were fitted on.
    evaluation : Evaluation
        Its one fold tests the official test patients.
    """

    trained_on: str
    evaluation: Any

    @property
    def is_published_split(self):
        """Whether nobody but the train and validation patients was learnt from."""
        return self.trained_on == PUBLISHED_SPLIT


# --- what was published ----------------------------------------------------------------------------------------------


def load_published(path=PUBLISHED):
    """The published rows, as dicts with ``work, year, method, f1, balanced_accuracy, status``.

    An F1 that no abstract states may be missing, and is None then.

    Raises
    ------
    ValueError
        If the file has other columns, a row whose status is neither "abstract" nor "authors' repository", or a score
        that is none.
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
    if row["status"] not in _STATUSES:
        raise ValueError(
            f"{where}: expected the status {' or '.join(map(repr, _STATUSES))}, got {row['status']!r}. Only what the "
            "authors state in public is printed as published; remove the row."
        )
    scores = {}
    for metric in _METRICS:
        if metric == "f1" and not row[metric] and row["status"] == _REPOSITORY:
            scores[metric] = None
            continue
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


def comparison_rows(runs, published, n_test):
    """Ours, at the tuned threshold and at 0.5, then the published rows: flat dicts with the same keys.

    Parameters
    ----------
    runs : sequence of Run
    published : sequence of dict
        As `load_published` gives them.
    n_test : (int, int)
        Test patients and their patches in this copy.

    Returns
    -------
    list of dict
        ``source`` ("histofeat" or "published"), ``work, year, method, head, features, trained_on`` (as `Run` names it),
        ``labels`` ("tuned", "0.5", "as published"), ``threshold`` (the rule behind "tuned"), ``n_test_patients,
        n_test_patches``, then ``roc_auc, f1, balanced_accuracy``, each with ``_low`` and ``_high``, and ``status``
        ("this run", or as published); None where unknown or undefined.
    """
    rows = []
    for run in runs:
        rule = str(parse_rule(run.evaluation.protocol["threshold"]))
        for model in run.evaluation.models:
            common = {
                "source": "histofeat", "method": model.name, "head": model.head, "features": "+".join(model.features),
                "trained_on": run.trained_on, "n_test_patients": n_test[0], "n_test_patches": n_test[1],
                "status": "this run", **_interval("roc_auc", model.scores),
            }  # fmt: skip
            for labels, scores in (("tuned", model.tuned), ("0.5", model.scores)):
                found = {name: value for metric in _METRICS for name, value in _interval(metric, scores).items()}
                rows.append(_row(labels=labels, threshold=rule if labels == "tuned" else None, **common, **found))
    for row in published:
        rows.append(_row(source="published", labels=_AS_PUBLISHED, **{**row, "year": int(row["year"])}))
    return rows


_ROW = (
    "source", "work", "year", "method", "head", "features", "trained_on", "labels", "threshold", "n_test_patients",
    "n_test_patches", "roc_auc", "roc_auc_low", "roc_auc_high", "f1", "f1_low", "f1_high", "balanced_accuracy",
    "balanced_accuracy_low", "balanced_accuracy_high", "status",
)  # fmt: skip


def _row(**values):
    return {name: values.get(name) for name in _ROW}


def _interval(metric, scores):
    score = jsonable(score_payload(scores[metric]))
    return {metric: score["pooled"], f"{metric}_low": score["ci95"][0], f"{metric}_high": score["ci95"][1]}


def comparison_table(rows, caption):
    """The rows for a reader. No cell is marked as the best: the rows are not of the same patches."""
    return Table(
        caption,
        (
            "Method", "Status", "Trained on", "Labels", "Test patches", "ROC-AUC [95 % interval]",
            "F1 [95 % interval]", "Balanced accuracy [95 % interval]",
        ),
        tuple(_cells(row) for row in rows),
        n_text=4,
    )  # fmt: skip


def _cells(row):
    if row["source"] == "published":
        f1 = _OTHER_F1 if row["f1"] is None else number(row["f1"], 4)
        return (
            f"{row['work']} {row['year']}: {row['method']}", row["status"], _AS_PUBLISHED, row["labels"], "all",
            number(None), f1, number(row["balanced_accuracy"], 4),
        )  # fmt: skip
    scores = [
        score_with_interval({"pooled": row[metric], "ci95": (row[f"{metric}_low"], row[f"{metric}_high"])})
        for metric in ("roc_auc", *_METRICS)
    ]
    return (
        f"histofeat: {model_key(row['method'], row['head'])}", row["status"], row["trained_on"],
        "tuned threshold" if row["labels"] == "tuned" else "at 0.5", f"{row['n_test_patches']:,}", *scores,
    )  # fmt: skip


# --- the report's part -----------------------------------------------------------------------------------------------


def addition(run, runs, split, published, n_evaluations):
    """What the report of this protocol has and others have not: notices, table, ``official.csv`` and ``.json``.

    Parameters
    ----------
    run : Run
        Whose report it is.
    runs : sequence of Run
        All that stand in the table, `run` among them.
    split : OfficialSplit
    published : sequence of dict
    n_evaluations : int
        The lines of the ledger, those of these runs included.

    Returns
    -------
    Addition
    """
    dataset = run.evaluation.dataset
    words, note = data_words(dataset, split), _comparability(dataset.audit)
    rows = comparison_rows(runs, published, (split.n_patients["test"], len(split.test)))
    level = "info" if dataset.audit.is_complete else "warning"
    ledger = (
        "A test set, not a tuning set: every evaluation on these patients appends a line to the ledger, which holds "
        f"{n_evaluations:,} with those of this command."
    )
    notices = (Notice(level, f"Tested on {words}", (note, ledger)), *_unlisted_notice(run, runs, split))
    tuned = [row for row in rows if row["labels"] != "0.5"]
    half = comparison_table([row for row in rows if row["labels"] == "0.5"], f"IDC, {words}. Ours at 0.5.")
    blocks = (
        Heading("Beside the published numbers"),
        Text(note),
        comparison_table(tuned, f"IDC, {words}. Ours beside published numbers, which are on the full set."),
        *(Text(_fitted_words(each, split)) for each in runs),
        Text(_threshold_words(run)),
        Text(_test_words(dataset, split)),
        Details("The same models with labels at 0.5", (half,)),
        Text(f"Sources: {_SOURCES}."),
    )
    document = {
        "schema": SCHEMA, "data": words, "comparability": note, "split": split.to_dict(),
        "runs": [_run_payload(each, split) for each in runs],
        "test_share_positive": _share_positive(dataset, split), "sources": _SOURCES, "rows": rows,
    }  # fmt: skip
    return Addition(notices, blocks, {"official.csv": _as_csv(rows), "official.json": document})


def run_data_words(run, split):
    """Which data a run is of, for the title of its report."""
    words = data_words(run.evaluation.dataset, split)
    return words if run.is_published_split else f"{words}; fitted on unlisted patients too"


def _unlisted_notice(run, runs, split):
    if all(each.is_published_split for each in runs):
        return ()
    more = f"{split.n_patients['unlisted']} with {len(split.unlisted):,} patches"
    items = (
        f"{WITH_UNLISTED} adds the patients without a role in the published split to the training side: {more}. "
        "These rows are not of the published protocol; they show what more patients are worth.",
        "The test patients are the same in all rows.",
    )
    if run.is_published_split:
        return (Notice("info", f"Rows {WITH_UNLISTED!r} are not of the published protocol", items),)
    return (Notice("warning", "This report is not of the published protocol", items),)


def _training(run, split):
    """Patients and patches that a run was fitted on."""
    roles = ("train", "validation") if run.is_published_split else ("train", "validation", "unlisted")
    return sum(split.n_patients[role] for role in roles), sum(len(getattr(split, role)) for role in roles)


def _fitted_words(run, split):
    n_patients, n_patches = _training(run, split)
    listed = f"{_patients(split, 'train')} and {_patients(split, 'validation')}"
    if run.is_published_split:
        return f"{run.trained_on}: the published split, fitted on {n_patches:,} patches of {listed} patients."
    return (
        f"{run.trained_on}: fitted on {n_patches:,} patches of {n_patients} patients, which are {listed} patients and "
        f"{split.n_patients['unlisted']} without a role in the published split."
    )


def _threshold_words(run):
    rule = parse_rule(run.evaluation.protocol["threshold"]).words
    return (
        f"One rule for every row of ours, the 2014 recipes included: the threshold is chosen for {rule}, on scores of "
        f"training patients whom an inner fit had not seen ({run.evaluation.protocol['inner_cv']}); others chose "
        "theirs in their own ways, such as on the validation patients alone. The recipes (names with 2014) are "
        "histofeat's features with its random forest, not the code of the paper."
    )


def _test_words(dataset, split):
    return (
        f"Each model is scored once in this run on the test patients, {100 * _share_positive(dataset, split):.1f} % of "
        f"whose patches here are {dataset.target_names[1]}. F1 rises and falls with that share; balanced accuracy does "
        "not. Intervals are over the test patients. The highest of several rows on one test set is a little too high."
    )


def _share_positive(dataset, split):
    return float((dataset.y[split.test] == 1).mean())


def _run_payload(run, split):
    n_patients, n_patches = _training(run, split)
    return {
        "trained_on": run.trained_on, "published_split": run.is_published_split, "n_training_patients": n_patients,
        "n_training_patches": n_patches, "threshold": str(parse_rule(run.evaluation.protocol["threshold"])),
    }  # fmt: skip


def _as_csv(rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=_ROW, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
