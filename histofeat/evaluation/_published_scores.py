"""Score predictions on a published split, with the functions that score our own."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from histofeat.datasets import Ledger, Look
from histofeat.evaluation._published_rows import PROTOCOLS, Protocol, RowCount, check_complete, sort_rows
from histofeat.exceptions import DatasetError, check_name
from histofeat.metrics import (
    LABEL_METRICS,
    Score,
    choose_threshold,
    few_patients,
    most_probable,
    parse_rule,
    score_folds,
)

_SELECTION = ("train", "validation")
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class ScoredPredictions:
    """Scores of one table of predictions on the test patients of a published split.

    Parameters
    ----------
    protocol : Protocol
        The split.
    test : RowCount
        The patches and patients that were scored.
    n_positive : int
        The positive patches among them.
    absent : tuple of str
        Test patients of the split without a row.
    complete : bool
        Whether each patch of these patients in a copy of the data has its row; False where this was not checked.
    selection : Mapping of str to RowCount
        The rows that chose the threshold, by role; empty where there are none.
    ignored : RowCount
        The rows of patients without a role.
    rule : str or None
        What the threshold was chosen for; None without `selection`.
    threshold : float or None
        The threshold.
    scores : Mapping of str to Score
        Every metric of `histofeat.metrics.METRICS`, labels at 0.5.
    tuned : Mapping of str to Score
        Every metric of `histofeat.metrics.LABEL_METRICS`, labels at `threshold`; empty without one.
    n_resamples, random_state : int
        The resamples behind the intervals, and their seed.
    caution : str or None
        A sentence on intervals of few patients.
    registered : str or None
        A sentence on registered test patients among those tested.
    """

    protocol: Protocol
    test: RowCount
    n_positive: int
    absent: tuple[str, ...]
    complete: bool
    selection: Mapping[str, RowCount]
    ignored: RowCount
    rule: str | None
    threshold: float | None
    scores: Mapping[str, Score] = field(repr=False)
    tuned: Mapping[str, Score] = field(repr=False)
    n_resamples: int
    random_state: int
    caution: str | None = None
    registered: str | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that belong beside the numbers, without which they can be misread."""
        notes = (*self._data_notes(), *self._number_notes(), self.caution, self.registered, self.protocol.published)
        return tuple(note for note in notes if note)

    def _data_notes(self):
        if self.complete:
            yield "Complete: every patch of these patients in the folder has its row."
        else:
            yield "Completeness was not checked: nothing here says that every patch of these patients has a row."
        if self.absent:
            more = ", ..." if len(self.absent) > _SHOWN else ""
            total = self.test.n_patients + len(self.absent)
            yield (
                f"Absent: {len(self.absent)} of the {total} test patients "
                f"({', '.join(self.absent[:_SHOWN])}{more}). These are not the numbers of the whole split."
            )
        if self.ignored.n_patches:
            yield f"Ignored: {self.ignored}, who have no role in this split."

    def _number_notes(self):
        if self.threshold is None:
            yield "No rows of train or validation patients: labels at 0.5 only, no threshold was chosen."
        else:
            rows = " and ".join(f"{count} ({role})" for role, count in self.selection.items())
            yield (
                f"Threshold {self.threshold:.4f}, for {parse_rule(self.rule).words}, chosen on {rows}. It is of use "
                "only if the model had not learnt from these rows."
            )
        if self.n_resamples:
            yield (
                f"95 % intervals resample the {self.test.n_patients} test patients {self.n_resamples:,} times: they "
                "cover other patients for the same fitted model, not fitting it again."
            )
        yield "The Brier score is that of the probabilities as given."
        yield "These patients are a test set: nothing may be chosen by these numbers."

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types; an undefined number is None."""
        return {
            "protocol": self.protocol.name,
            "test": self.test._asdict(),
            "n_positive": self.n_positive,
            "absent_patients": list(self.absent),
            "complete": self.complete,
            "ignored": self.ignored._asdict(),
            "threshold": {
                "rule": self.rule,
                "value": self.threshold,
                "chosen_on": {role: count._asdict() for role, count in self.selection.items()},
            },
            "scores_at_half": {metric: score.to_dict() for metric, score in self.scores.items()},
            "scores_at_threshold": {metric: score.to_dict() for metric, score in self.tuned.items()},
            "n_resamples": self.n_resamples,
            "random_state": self.random_state,
            "notes": list(self.notes),
        }


def score_predictions(
    predictions: pd.DataFrame,
    protocol: str | Protocol = "idc-official",
    *,
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    threshold: str | None = None,
    allow_missing_patients: bool = False,
    n_resamples: int = 2000,
    random_state: int = 0,
    n_jobs: int | None = None,
    ledger: str | os.PathLike[str] | Ledger | None = None,
) -> ScoredPredictions:
    """Score predictions on the test patients of a published split, by the rules of `histofeat.evaluate`.

    Patient, place and true class of a patch are read from its name; no image is opened.

    Parameters
    ----------
    predictions : DataFrame of shape (n, 2 or more)
        Columns ``patch`` (name or path of the image) and ``score`` (probability of the positive class, from 0 to 1);
        see `read_predictions`. Rows of test patients are scored, rows of train and validation patients choose the
        threshold, rows of other patients are counted and ignored.
    protocol : str or Protocol, default="idc-official"
        The split, by its name in `PROTOCOLS`.
    data : path, or list of paths, optional
        A copy of the data, in one folder or several. Its test patches and the test rows have to be the same; patients
        that the copy lacks are not asked for.
    threshold : str, optional
        What the threshold is chosen for, see `histofeat.metrics.choose_threshold`: by default "f1" where there are
        rows to choose it on, and none where there are not.
    allow_missing_patients : bool, default=False
        Whether to score what is there where test patients have no row and `data` does not excuse them.
    n_resamples : int, default=2000
        Resamples of the test patients behind each interval; 0 for no intervals.
    random_state : int, default=0
        Seed of the resamples; those of `evaluate` for the same patients and seed.
    n_jobs : int, optional
        Threads for the intervals; the result does not depend on it.
    ledger : path or Ledger, optional
        Where the look at these patients is written down, if they are registered; see `histofeat.datasets.Ledger`.

    Returns
    -------
    scored : ScoredPredictions

    Raises
    ------
    ValueError
        If the protocol or the rule is unknown, the table cannot be used (see `sort_rows`), no row is of a test
        patient, rows are missing or surplus (see `check_complete`), test patients are absent, or a rule is given
        without rows to choose a threshold on.
    DatasetError
        If `data` cannot be read, or has no patch of a test patient.

    Examples
    --------
    >>> names = [f"{patient}_idx5_x{50 * x + 1}_y1_class{x % 2}.png" for patient in (8864, 8913) for x in range(4)]
    >>> predictions = pd.DataFrame({"patch": names, "score": [0.1, 0.8, 0.3, 0.6] * 2})
    >>> scored = score_predictions(predictions, allow_missing_patients=True, n_resamples=20)
    >>> str(scored.test), scored.scores["roc_auc"].value, len(scored.absent), round(scored.threshold, 2)
    ('4 patches of 1 patient', 1.0, 48, 0.45)
    """
    if not isinstance(protocol, Protocol):
        check_name("protocol", protocol, PROTOCOLS, "the name of a published split")
        protocol = PROTOCOLS[protocol]
    if threshold is not None:
        parse_rule(threshold)
    table = sort_rows(predictions, protocol)
    test = table[table["role"] == "test"]
    absent = _check_patients(test, table, protocol, excused=allow_missing_patients or data is not None)
    if data is not None:
        copy = _test_patches(data, protocol)
        check_complete(test, copy, copy.root)
    selection = table[table["role"].isin(_SELECTION)]
    rule, value = _choose(selection, threshold)
    facts = {"data": protocol.name, "n_patches": len(table), "threshold": rule, "ledger": Ledger.of(ledger)}
    look = Look.at((test["patient"], test["patch"]), **facts)
    scores, tuned = _score(test, value, {"n_resamples": n_resamples, "random_state": random_state, "n_jobs": n_jobs})
    return ScoredPredictions(
        protocol=protocol,
        test=RowCount.of(test),
        n_positive=int(test["label"].sum()),
        absent=absent,
        complete=data is not None,
        selection={role: RowCount.of(rows) for role, rows in selection.groupby("role")},
        ignored=RowCount.of(table[table["role"] == "unlisted"]),
        rule=rule,
        threshold=value,
        scores=scores,
        tuned=tuned,
        n_resamples=int(n_resamples),
        random_state=random_state,
        caution=few_patients(RowCount.of(test).n_patients, test.groupby("label")["patient"].nunique().tolist()),
        registered=look and look.record([{"pipeline": "predictions", "roc_auc": scores["roc_auc"].value}]),
    )


def _check_patients(test: pd.DataFrame, table: pd.DataFrame, protocol: Protocol, *, excused: bool) -> tuple[str, ...]:
    """Give the test patients without a row; refuse them unless excused."""
    patients, present = protocol.patients("test"), set(test["patient"])
    if not present:
        raise ValueError(
            f"predictions: expected rows of the {len(patients)} test patients of {protocol.name}, got 0 of "
            f"{len(table):,} rows, the first of patient {table['patient'].iloc[0]}. Score the test patients."
        )
    absent = tuple(patient for patient in patients if patient not in present)
    if absent and not excused:
        raise ValueError(
            f"predictions: expected rows of all {len(patients)} test patients of {protocol.name}, got none of "
            f"{absent[0]} ({len(absent)} absent). Score them too, give the folder of an incomplete copy as data "
            "(--data), or set allow_missing_patients (--allow-missing-patients)."
        )
    return absent


def _test_patches(data, protocol: Protocol):
    dataset = protocol.load(data)
    rows = np.flatnonzero(np.isin(dataset.patients, protocol.patients("test")))
    if not rows.size:
        raise DatasetError(
            f"{dataset.root}: expected patches of the test patients of {protocol.name}, got 0 of {len(dataset):,} "
            "patches. Give the folder that was scored."
        )
    return dataset.subset(rows)


def _choose(selection: pd.DataFrame, threshold: str | None) -> tuple[str | None, float | None]:
    if len(selection):
        rule = parse_rule("f1" if threshold is None else threshold)
        return str(rule), choose_threshold(selection["label"].to_numpy(), selection["score"].to_numpy(), rule)
    if threshold is not None:
        raise ValueError(
            f"threshold: expected rows of train or validation patients to choose {threshold!r} on, got 0. Add their "
            "rows, scored by a model that did not learn from them, or leave the rule out."
        )
    return None, None


def _score(test: pd.DataFrame, threshold: float | None, resampling: dict):
    y, score, patients = (test[column].to_numpy() for column in ("label", "score", "patient"))
    proba, rows = np.column_stack([1 - score, score]), [np.arange(len(test))]
    scores, _ = score_folds(y, proba, most_probable(proba), patients, rows, **resampling)
    if threshold is None:
        return scores, {}
    called = (score >= threshold).astype(np.int64)
    tuned, _ = score_folds(y, proba, called, patients, rows, metrics=LABEL_METRICS, **resampling)
    return scores, tuned
