"""Score models on a test set that is never tuned on: one fold, planned pairs, each model alone and timed."""

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from histofeat.datasets import PatchDataset
from histofeat.evaluation import Evaluation, evaluate
from histofeat.features import Runtime
from histofeat.metrics import compare_models
from histofeat.studies import flat_table

#: Training and tested rows.
Fold = tuple[np.ndarray, np.ndarray]
_SCORES = {"roc_auc": "scores", "balanced_accuracy": "tuned", "f1": "tuned"}
#: What `evaluate` says before the reason, where the one pipeline that it is given cannot run.
_NONE = "evaluate.pipelines: expected one that can run here, got none. "
_HISTORY = ("loss", "accuracy", "val_loss", "val_accuracy", "val_roc_auc", "learning_rate", "seconds")


@dataclass(frozen=True)
class TimedEvaluation:
    """One model after its evaluation.

    Parameters
    ----------
    evaluation : Evaluation or None
        With one model; None where it did not run.
    wall_s, cpu_s : float
        From the first file read to the last probability: reading, checks of the folds, features, training, predicting;
        not intervals. CPU seconds are of all threads.
    lost : str, optional
        Why it did not run.
    """

    evaluation: Evaluation | None
    wall_s: float
    cpu_s: float
    lost: str | None = None

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
        Fields of `histofeat.metrics.Comparison` for the planned pairs; ``p_all_looks``: p, adjusted
        for these rows, times the looks, at most 1 (Bonferroni).
    differences_refused : str or None
        Why there are no differences, where they cannot be computed.
    epochs : tuple of dict
        One row per epoch of each trained network.
    not_run : tuple of str
        Models that did not run, with the reason.
    registered : str or None
        A sentence on registered test patients among those tested, after the last model.
    """

    tested: str
    models: tuple[dict[str, Any], ...]
    differences: tuple[dict[str, Any], ...]
    differences_refused: str | None
    epochs: tuple[dict[str, Any], ...]
    not_run: tuple[str, ...]
    registered: str | None = None

    @classmethod
    def of(
        cls,
        tested: str,
        fitted: Mapping[str, TimedEvaluation],
        planned: Iterable[tuple[str, str]],
        metrics: Iterable[str],
        n_looks: int = 1,
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
        n_looks : int, default=1
            Looks at these patients that asked for these differences, this one included.
        """
        ran = {name: one for name, one in fitted.items() if one.lost is None}
        differences, refusal = _planned_differences(ran, planned, metrics)
        differences = [{**row, "p_all_looks": min(n_looks * row["p_adjusted"], 1.0)} for row in differences]
        missing = (f"{name}: {one.lost}" for name, one in fitted.items() if one.lost is not None)
        return cls(
            tested, tuple(one.to_row(name) for name, one in ran.items()), tuple(differences), refusal,
            tuple(epoch for name, one in ran.items() for epoch in one.epochs(name)), tuple(missing),
            [None, *(one.evaluation.protocol["registered"] for one in ran.values())][-1],
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
    """Compare the pairs that ran, as one family; return rows, or none and the reason."""
    evaluations = {name: one.evaluation for name, one in ran.items()}
    labels = {name: f"{name}: {one.models[0].name}/{one.models[0].head}" for name, one in evaluations.items()}
    pairs = [(labels[first], labels[second]) for first, second in planned if {first, second} <= set(ran)]
    if not pairs:
        return [], None
    try:
        rows = compare_models(evaluations, metrics, pairs=pairs).rows
    except ValueError as error:
        return [], str(error)
    names = {label: name for name, label in labels.items()}
    return [{**asdict(row), "first": names[row.first], "second": names[row.second]} for row in rows], None


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
    runtime : Runtime, optional
        Threads, store, progress with the stage "models", and the ledger, to which a line is appended as soon as a
        pipeline is scored.
    **settings
        Of `histofeat.evaluation.evaluate`.

    Returns
    -------
    dict of str to TimedEvaluation
    """
    runtime, found = Runtime.of(runtime), {}
    for name, pipeline in pipelines.items():
        runtime.report("models", len(found), len(pipelines))
        found[name] = _evaluate_alone(dataset, fold, (name, pipeline), cv_words, runtime, settings)
    runtime.report("models", len(found), len(pipelines))
    return found


def _evaluate_alone(dataset, fold, named, cv_words, runtime, settings):
    started = ended = time.perf_counter(), time.process_time()

    def clock(stage, done, total):
        nonlocal ended
        if stage == "fit" and done == total:
            ended = time.perf_counter(), time.process_time()

    try:
        evaluation = evaluate(dataset, [named], [fold], runtime=replace(runtime, progress=clock), **settings)
    except ValueError as error:
        if not str(error).startswith(_NONE):
            raise
        return TimedEvaluation(None, 0.0, 0.0, str(error).removeprefix(_NONE))
    evaluation = replace(evaluation, protocol={**evaluation.protocol, "cv": cv_words})
    return TimedEvaluation(evaluation, *(after - before for before, after in zip(started, ended, strict=True)))
