"""Compare scores on the official IDC test patients with published ones: what they are of, and one row per score."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histofeat.datasets import OfficialSplit, PatchDataset, csv_text, parse_decimal, read_csv_rows
from histofeat.evaluation import Evaluation
from histofeat.exceptions import check_name, counted
from histofeat.metrics import parse_rule

#: Training patients, as rows and ledger name them.
PUBLISHED_SPLIT = "train+validation"
WITH_UNLISTED = "train+validation+unlisted"
#: Cruz-Roa et al. 2014 (doi:10.1117/12.2043872): one family each, to a random forest.
RECIPES = {
    "fuzzy_color": "2014 fuzzy colour histogram",
    "joint_color": "2014 RGB histogram",
    "gray": "2014 grey histogram",
    "lbp": "2014 LBP",
    "haralick": "2014 Haralick",
}
SCHEMA = 2
COLUMNS = (
    "source", "work", "year", "method", "head", "features", "trained_on", "labels", "threshold", "n_test_patients",
    "n_test_patches", "roc_auc", "roc_auc_low", "roc_auc_high", "f1", "f1_low", "f1_high", "balanced_accuracy",
    "balanced_accuracy_low", "balanced_accuracy_high", "status",
)  # fmt: skip
SOURCES = (
    "Cruz-Roa et al. 2014 (doi:10.1117/12.2043872), Janowczyk and Madabhushi 2016 (doi:10.4103/2153-3539.186902), "
    "Romero et al. 2019 (doi:10.1109/ISBI.2019.8759410)"
)
_ABSTRACT, _REPOSITORY = "abstract", "authors' repository"


@dataclass(frozen=True)
class SplitRun:
    """One evaluation on the test patients.

    Parameters
    ----------
    trained_on : {PUBLISHED_SPLIT, WITH_UNLISTED}
        Patients that its models were fitted on.
    evaluation : Evaluation
        Its one fold tests the official test patients.
    """

    trained_on: str
    evaluation: Evaluation

    @property
    def is_published_split(self) -> bool:
        """Whether only the train and validation patients were used for training."""
        return self.trained_on == PUBLISHED_SPLIT


@dataclass(frozen=True)
class PublishedComparison:
    """Our scores and published ones: the content of ``official.json``.

    Parameters
    ----------
    data, comparability : str
        How much of the data set and of the test patients was scored, and what that means for a comparison.
    split : mapping
        Patches and patients by role.
    runs : tuple of dict
        ``trained_on, published_split, n_training_patients, n_training_patches, threshold``, one per run.
    test_share_positive : float in [0, 1]
    rows : tuple of dict
        With `COLUMNS`: ours at the tuned threshold and at 0.5, then the published ones; None where unknown.
    """

    data: str
    comparability: str
    split: Mapping[str, Any]
    runs: tuple[dict[str, Any], ...]
    test_share_positive: float
    rows: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain Python objects."""
        return {"schema": SCHEMA, "sources": SOURCES, **vars(self)}

    def to_csv(self) -> str:
        """Return the rows as the text of a CSV file."""
        return csv_text(pd.DataFrame(self.rows, columns=COLUMNS, dtype=object))


def read_scores(path: Path, scores: Sequence[str], *, numbers: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Read rows of a table of scores.

    Parameters
    ----------
    path : pathlib.Path
        A CSV file.
    scores : sequence of str
        Columns of numbers between 0 and 1; an empty cell becomes None.
    numbers : sequence of str
        Columns of other numbers.

    Returns
    -------
    list of dict

    Raises
    ------
    DatasetError
        If it is no CSV file with these columns.
    ValueError
        If a cell is no such number.
    """
    table = read_csv_rows(path, (*scores, *numbers), owner="read_scores.path")
    for place, row in enumerate(table.rows):
        for name in (*scores, *numbers):
            empty = name in scores and not row[name]
            value = None if empty else parse_decimal(row[name])
            inside = empty or (value is not None and (0 < value < 1 if name in scores else math.isfinite(value)))
            if not inside:
                kind = "a score between 0 and 1" if name in scores else "a number"
                raise ValueError(f"{table.at(place)}: expected {kind} in {name}, got {row[name]!r}. Restore the file.")
            row[name] = value
    return table.rows


def official_folds(split: OfficialSplit, *, unlisted: bool = False) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Give training and test rows by the name of the training patients, those of the published split first.

    Parameters
    ----------
    split : OfficialSplit
    unlisted : bool, default=False
        Whether also to train on the patients without a role in it.

    Raises
    ------
    ValueError
        If there are no such patients.
    """
    [(train, test)] = split.as_cv()
    folds = {PUBLISHED_SPLIT: (train, test)}
    if unlisted:
        if not len(split.unlisted):
            raise ValueError(
                "--add-unlisted: expected patients without a role in the published split, got 0 in this copy. "
                "Leave the option out."
            )
        folds[WITH_UNLISTED] = (np.sort(np.concatenate([train, split.unlisted])), test)
    return folds


def cv_words(split: OfficialSplit, trained_on: str) -> str:
    """Give what stands for the splitter in the report of a run."""
    n = split.n_patients
    listed = f"{n['train']} train and {n['validation']} validation patients"
    if trained_on == PUBLISHED_SPLIT:
        return f"published split: {listed} against {n['test']} test patients"
    return f"published test patients: {listed} and {n['unlisted']} unlisted patients against {n['test']} test patients"


def load_published(path: Path | None = None) -> list[dict[str, Any]]:
    """Read published scores.

    Parameters
    ----------
    path : pathlib.Path, optional
        CSV file with the columns ``work, year, method, f1, balanced_accuracy, status``; by default that of histofeat.

    Returns
    -------
    list of dict
        An F1 that no abstract states is None where it is missing.

    Raises
    ------
    ValueError
        If the file has no such columns, a status other than "abstract" and "authors' repository", or a score outside
        (0, 1).
    """
    path = path or Path(str(resources.files("histofeat.datasets") / "idc_official_published.csv"))
    rows = read_scores(path, ("f1", "balanced_accuracy"), numbers=("year",))
    for number, row in enumerate(rows, start=1):
        where = f"{path.name}, row {number}"
        # Only what the authors state in public is printed as published.
        check_name(where, row["status"], (_ABSTRACT, _REPOSITORY))
        if row["balanced_accuracy"] is None or (row["f1"] is None and row["status"] == _ABSTRACT):
            raise ValueError(f"{where}: expected scores between 0 and 1, got an empty cell. Look it up again.")
        row["year"] = int(row["year"])
    return rows


def compare_with_published(
    runs: Sequence[SplitRun], split: OfficialSplit, published: Sequence[dict[str, Any]]
) -> PublishedComparison:
    """Put the scores of runs and published ones into one table.

    Parameters
    ----------
    runs : sequence of SplitRun
    split : OfficialSplit
        Of their data set.
    published : sequence of dict
        As `load_published` gives them.
    """
    dataset = runs[0].evaluation.dataset
    return PublishedComparison(
        data_words(dataset, split),
        _comparability(dataset.audit),
        split.to_dict(),
        tuple(_run_row(run, split) for run in runs),
        float((dataset.y[split.test] == 1).mean()),
        tuple(_rows(runs, published, split)),
    )


def data_words(dataset: PatchDataset, split: OfficialSplit) -> str:
    """Return in words how much of the full data set and of the test patients a copy holds.

    Examples
    --------
    ``"a copy that is complete; 49 test patients, 49,523 patches"``
    """
    here, missing = split.n_patients["test"], len(split.missing["test"])
    tested = f"{here} of the {here + missing} test" if missing else f"{here} test"
    return f"{_copy_words(dataset.audit)}; {tested} patients, {counted(len(split.test), 'patch')}"


def _copy_words(audit):
    return f"a copy that is {audit.completeness}"


def _comparability(audit):
    if audit.is_complete:
        return (
            "Published numbers are on all patches of the same 49 patients; each work trained and chose its threshold "
            "in its own way."
        )
    return (
        "Published numbers are on the full set of patches of the 49 patients and so not directly comparable: ours are "
        f"on {_copy_words(audit)}."
    )


def _run_row(run, split):
    roles = run.trained_on.split("+")  # as published
    return {
        "trained_on": run.trained_on,
        "published_split": run.is_published_split,
        "n_training_patients": sum(split.n_patients[role] for role in roles),
        "n_training_patches": sum(len(getattr(split, role)) for role in roles),
        "threshold": str(parse_rule(run.evaluation.protocol["threshold"])),
    }


def _rows(runs, published, split):
    tested = {"n_test_patients": split.n_patients["test"], "n_test_patches": len(split.test)}
    for run in runs:
        rule = str(parse_rule(run.evaluation.protocol["threshold"]))
        for model in run.evaluation.models:
            common = {
                "source": "histofeat", "method": model.name, "head": model.head, "features": "+".join(model.features),
                "trained_on": run.trained_on, "status": "this run", **tested, **_interval("roc_auc", model.scores),
            }  # fmt: skip
            for labels, scores in (("tuned", model.tuned), ("0.5", model.scores)):
                found = _interval("f1", scores) | _interval("balanced_accuracy", scores)
                yield _row({**common, "labels": labels, "threshold": rule if labels == "tuned" else None, **found})
    yield from (_row({"source": "published", "labels": "as published", **row}) for row in published)


def _row(values):
    return {name: values.get(name) for name in COLUMNS}


def _interval(metric, scores):
    ends = (scores[metric].value, *scores[metric].ci95)
    names = (metric, f"{metric}_low", f"{metric}_high")
    return {name: value if np.isfinite(value) else None for name, value in zip(names, ends, strict=True)}
