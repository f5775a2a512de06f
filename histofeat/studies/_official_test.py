"""Score models on a test set that is never tuned on: one fold, planned pairs, and a ledger of every look.

Each model is evaluated alone, so that its seconds are its own. The ledger is a CSV file with one line per model that
was ever scored on the test patients, so that a reader of a score can see how often they were used. It is only appended
to; a line is never changed or removed.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from histofeat.datasets import PatchDataset
from histofeat.evaluation import Evaluation, evaluate
from histofeat.features import Runtime
from histofeat.metrics import compare_models, holm, parse_rule
from histofeat.studies._study import flat_table

#: Training and tested rows.
Fold = tuple[np.ndarray, np.ndarray]
#: Training patients, as rows and ledger name them.
PUBLISHED_SPLIT = "train+validation"
WITH_UNLISTED = "train+validation+unlisted"
LEDGER_COLUMNS = (
    "date", "commit", "pipeline", "data", "n_patches", "n_test_patients", "n_test_patches", "roc_auc",
    "balanced_accuracy_tuned", "f1_tuned", "trained_on", "threshold",
)  # fmt: skip
_SCORES = {"roc_auc": "scores", "balanced_accuracy": "tuned", "f1": "tuned"}
_HISTORY = ("loss", "accuracy", "val_loss", "val_accuracy", "val_roc_auc", "learning_rate", "seconds")


@dataclass(frozen=True)
class TimedEvaluation:
    """One model after its evaluation.

    Parameters
    ----------
    evaluation : Evaluation
        With one model, or with none and the reason.
    wall_s, cpu_s : float
        From the first file read to the last probability: reading, checks of the folds, features, training, predicting;
        not intervals. CPU seconds are of all threads.
    """

    evaluation: Evaluation
    wall_s: float
    cpu_s: float

    def to_row(self, name: str) -> dict[str, Any]:
        """Return scores, times and parts of the model as a dict."""
        (model,) = self.evaluation.models
        history = model.histories[0] if model.histories else {}
        scores = {metric: getattr(model, place)[metric] for metric, place in _SCORES.items()}
        return {
            "name": name,
            "head": model.head,
            "features": "+".join(model.features),
            **{metric: {"pooled": score.pooled, "ci95": list(score.ci95)} for metric, score in scores.items()},
            "wall_s": self.wall_s,
            "cpu_s": self.cpu_s,
            "fit_s": model.fit_s,
            "predict_s": model.predict_s,
            "epochs": len(history.get("loss", ())),
            "threshold": model.thresholds[0] if model.thresholds else None,
            "notes": list(model.notes),
            # Where a printing function lies in memory is no part of the model.
            "parts": [re.sub(r"progress=<[^>]*>, ", "", part) for part in model.families],
        }

    def epochs(self, name: str) -> list[dict[str, Any]]:
        """Return one flat dict per epoch of a trained network."""
        histories = [history for model in self.evaluation.models for history in model.histories]
        return [
            {"name": name, "epoch": at + 1}
            | {key: float(history[key][at]) for key in _HISTORY if len(history.get(key, ())) > at}
            for history in histories
            for at in range(len(history.get("loss", ())))
        ]


@dataclass(frozen=True)
class OfficialTest:
    """Models on the same tested patients.

    Parameters
    ----------
    tested : str
        How many patches of which patients, in words.
    models : tuple of dict
        One row per model that ran: scores as ``{"pooled", "ci95"}``, seconds, epochs, threshold, parts.
    differences : tuple of dict
        Fields of `histofeat.metrics.Comparison` for the planned pairs; ``p_holm`` is over these rows.
    differences_refused : str or None
        Why there are no differences, where they cannot be computed.
    epochs : tuple of dict
        One row per epoch of each trained network.
    not_run : tuple of str
        Models that did not run, with the reason.
    """

    tested: str
    models: tuple[dict[str, Any], ...]
    differences: tuple[dict[str, Any], ...]
    differences_refused: str | None
    epochs: tuple[dict[str, Any], ...]
    not_run: tuple[str, ...]

    @classmethod
    def of(
        cls,
        tested: str,
        fitted: Mapping[str, TimedEvaluation],
        planned: Iterable[tuple[str, str]],
        metrics: Iterable[str],
    ) -> Self:
        """Summarise evaluations.

        Parameters
        ----------
        tested : str
        fitted : mapping of str to TimedEvaluation
            All of the same tested patches.
        planned : sequence of (str, str)
            Pairs of names to compare; a pair of which one did not run is left out.
        metrics : sequence of str
            As in `histofeat.metrics.compare_models`.
        """
        ran = {name: one for name, one in fitted.items() if one.evaluation.models}
        differences, refusal = _planned_differences(ran, planned, metrics)
        missing = (f"{name}: {gone.reason}" for name, one in fitted.items() for gone in one.evaluation.not_run)
        return cls(
            tested, tuple(one.to_row(name) for name, one in ran.items()), tuple(differences), refusal,
            tuple(epoch for name, one in ran.items() for epoch in one.epochs(name)), tuple(missing),
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain Python objects."""
        return dict(vars(self))

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return ``models``, ``differences`` and ``epochs`` as tables with one value per column, for CSV files."""
        rows = {
            "models": [{name: row[name] for name in row if name not in ("notes", "parts")} for row in self.models],
            "differences": self.differences,
            "epochs": self.epochs,
        }
        tables = {name: flat_table(found) for name, found in rows.items() if found}
        return {name: table.rename(columns=lambda name: name.removesuffix("_pooled")) for name, table in tables.items()}


def _planned_differences(ran, planned, metrics):
    """Compare the pairs that ran, adjusted for these alone; return rows, or none and the reason."""
    rows = []
    try:
        for metric, pair in product(metrics, planned):
            if set(pair) <= set(ran):
                (row,) = compare_models({name: ran[name].evaluation for name in pair}, [metric]).rows
                rows.append({**asdict(row), "first": pair[0], "second": pair[1], "ci95": list(row.ci95)})
    except ValueError as error:
        return [], str(error)
    defined = [row for row in rows if row["p"] == row["p"]]
    for row, p in zip(defined, holm([row["p"] for row in defined]).tolist(), strict=True):
        row["p_holm"] = p
    return rows, None


# --- the fold and its evaluation --------------------------------------------------------------------------------------


def official_fold(dataset: PatchDataset, role: str = "test") -> tuple[Fold, str]:
    """Return training and tested rows: patients of a published role against all others, and words for the fold.

    Parameters
    ----------
    dataset : PatchDataset
        A copy of IDC.
    role : {"test", "validation"}

    Returns
    -------
    fold : (ndarray, ndarray)
    words : str

    Raises
    ------
    ValueError
        If one side has no patch.
    """
    test = getattr(dataset.official_split(), role)
    train = np.setdiff1d(np.arange(len(dataset)), test)
    if not (len(test) and len(train)):
        raise ValueError(
            f"official_fold: expected patches of official {role} patients and of others, got {len(test)} and "
            f"{len(train)}. Give the whole data set."
        )
    return (train, test), fold_words(dataset, train, test, f"official {role} ")


def fold_words(dataset: PatchDataset, train: np.ndarray, test: np.ndarray, kind: str = "") -> str:
    """Return in words how many patches of how many patients are trained on and tested."""
    learnt, tested = (len(set(dataset.patients[rows])) for rows in (train, test))
    return (
        f"{len(test):,} patches of {tested:,} {kind}patients, after training on {len(train):,} patches of {learnt:,} "
        "other patients"
    )


def evaluate_each(
    dataset: PatchDataset,
    fold: Fold,
    pipelines: Mapping[str, Any],
    *,
    cv_words: str,
    ledger: Path | None = None,
    repository: Path | None = None,
    runtime: Runtime | None = None,
    **settings: Any,
) -> dict[str, TimedEvaluation]:
    """Evaluate pipelines one by one on one fold, and time each.

    Parameters
    ----------
    dataset : PatchDataset
    fold : (ndarray, ndarray)
        Training and tested rows.
    pipelines : mapping of str to IDCPipeline
    cv_words : str
        What stands in the place of the splitter in the results.
    ledger : pathlib.Path, optional
        Where a line is appended as soon as a pipeline is scored.
    repository : pathlib.Path, optional
        Folder of the code, whose commit the ledger names.
    runtime : Runtime, optional
        Threads, store, and progress with the stage "models".
    **settings
        Of `histofeat.evaluation.evaluate`.

    Returns
    -------
    dict of str to TimedEvaluation
    """
    runtime, found = Runtime.of(runtime), {}
    commit = commit_words(repository) if ledger else None  # before the work: the tree may change while it runs
    for name, pipeline in pipelines.items():
        runtime.report("models", len(found), len(pipelines))
        found[name] = _evaluate_alone(dataset, fold, (name, pipeline), cv_words, runtime, settings)
        if ledger:
            append_to_ledger(ledger, found[name].evaluation, commit=commit, trained_on=WITH_UNLISTED)
    runtime.report("models", len(found), len(pipelines))
    return found


def _evaluate_alone(dataset, fold, named, cv_words, runtime, settings):
    started = ended = time.perf_counter(), time.process_time()

    def clock(stage, done, total):
        nonlocal ended
        if stage == "fit" and done == total:
            ended = time.perf_counter(), time.process_time()

    evaluation = evaluate(dataset, [named], [fold], runtime=replace(runtime, progress=clock), **settings)
    evaluation = replace(evaluation, protocol={**evaluation.protocol, "cv": cv_words})
    return TimedEvaluation(evaluation, *(after - before for before, after in zip(started, ended, strict=True)))


# --- the ledger -------------------------------------------------------------------------------------------------------


def open_ledger(path: Path) -> int:
    """Make sure that lines can be appended, before the work that they will record.

    Parameters
    ----------
    path : pathlib.Path
        The ledger; made, with its header, where there is none.

    Returns
    -------
    n_lines : int
        The evaluations that it holds.

    Raises
    ------
    ValueError
        If it is a folder, or a file with another header.
    OSError
        If it cannot be written.
    """
    if path.is_dir():
        raise ValueError(f"ledger: expected a file, got the folder {str(path)!r}. Give the path of a CSV file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    expected = ",".join(LEDGER_COLUMNS)
    with path.open("ab") as file:
        if file.tell() == 0:
            file.write(f"{expected}\n".encode())
    header, *lines = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    if header != expected:
        raise ValueError(
            f"ledger: expected a file with the ledger's header, got {header[:80]!r} in {path.name}. "
            f"Nothing was written; give another path, or a file that begins with {expected!r}."
        )
    return sum(1 for line in lines if line)


def append_to_ledger(path: Path, evaluation: Evaluation, *, commit: str, trained_on: str) -> int:
    """Append one line per model in one write, which is on the disk when this returns.

    Parameters
    ----------
    path : pathlib.Path
        As for `open_ledger`, which is called again: the file may have gone during the work.
    evaluation : Evaluation
    commit : str
        As `commit_words` gives it.
    trained_on : {PUBLISHED_SPLIT, WITH_UNLISTED}

    Returns
    -------
    n_lines : int
        The evaluations that the ledger holds now.
    """
    open_ledger(path)
    shared = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit, "data": evaluation.dataset.name,
        "n_patches": len(evaluation.dataset), "n_test_patches": int(evaluation.tested.sum()),
        "n_test_patients": len(set(evaluation.dataset.patients[evaluation.tested])), "trained_on": trained_on,
        "threshold": parse_rule(evaluation.protocol["threshold"]),
    }  # fmt: skip
    rows = [
        {**shared, "pipeline": pipeline_words(model), "roc_auc": model.scores["roc_auc"].pooled}
        | {f"{metric}_tuned": model.tuned[metric].pooled for metric in ("balanced_accuracy", "f1")}
        for model in evaluation.models
    ]
    plain = {"header": False, "index": False, "lineterminator": "\n"}
    text = pd.DataFrame(rows, columns=LEDGER_COLUMNS).to_csv(float_format="%.6f", **plain)
    # An editor, or a machine that went down, may have left the last line open.
    start = "" if path.read_bytes().endswith(b"\n") else "\n"
    with path.open("ab") as file:
        file.write((start + text).encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())
    return open_ledger(path)


def pipeline_words(model):
    """Return name, head and features of a model in one string; networks by encoder and input size."""
    words = []
    for feature, family in zip(model.features, model.families[-len(model.features) :], strict=True):
        network = re.search(r"encoder='([^']+)'.*input_size=(\d+)", family)
        words.append("@".join(network.groups()) if network else feature)
    return f"{model.name}/{model.head} ({'+'.join(words)})"


def commit_words(repository: Path) -> str:
    """Return the commit of the code in a folder, with "+dirty" where files differ from it; "unknown" outside a clone.

    Notes
    -----
    ``reports/`` is output and not code: the ledger itself changes with every run.
    """
    top = _git(repository, "rev-parse", "--show-toplevel")
    # An archive unpacked inside another clone must not be taken for a commit of that clone.
    if not top or Path(top).resolve() != repository.resolve():
        return "unknown"
    commit = _git(repository, "rev-parse", "--short", "HEAD")
    changes = _git(repository, "status", "--porcelain", "--", ".", ":(exclude)reports")
    if not commit or changes is None:
        return "unknown"
    return f"{commit}+dirty" if changes else commit


def _git(folder, *arguments):
    """Return what git prints, or None where it fails."""
    # A hook that runs this sets variables that point git elsewhere.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command, how = ["git", "-C", str(folder), *arguments], {"capture_output": True, "text": True, "timeout": 60}
    try:
        return subprocess.run(command, check=True, env=environment, **how).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
