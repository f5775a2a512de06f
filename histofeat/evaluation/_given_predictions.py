"""Probabilities that another system gave for the patches of an evaluation, and the scores of any probabilities."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histofeat.datasets import (
    PatchDataset,
    check_rows,
    class_mapping,
    match_rows,
    own_names,
    probability_columns,
    read_table,
)
from histofeat.exceptions import check_shape
from histofeat.metrics import LABEL_METRICS, confusion, most_probable, score_folds
from histofeat.model_selection import canonical_patients

#: How far from 1 the probabilities of a row may add up: they were rounded when they were written.
_ROUNDED = 0.02
#: How far from a threshold a label tells nothing: both may have been rounded.
_DECIMALS = 1e-5
#: The note of a model whose predictions were given.
GIVEN = (
    "Its predictions were given: nothing was fitted, chosen or calibrated here, its threshold is {}, and whether it "
    "was trained on tested patients is not known."
)


def given_probabilities(dataset: PatchDataset, tested: np.ndarray, where: str, proba: Any) -> np.ndarray:
    """Bring probabilities into the order of the rows of a data set.

    Parameters
    ----------
    dataset : PatchDataset
    tested : ndarray of shape (n,), bool
        The rows that need them.
    where : str
        The argument and the system that a message names.
    proba : array, DataFrame or path
        As for `Evaluation.add_predictions`.

    Returns
    -------
    proba : ndarray of shape (n, k), float64
        NaN in rows that were not tested.

    Raises
    ------
    ValueError
        If there is no column for a class, a row is missing, surplus or there twice, or a value is no probability.
    """
    n_rows, names, last = len(dataset), dataset.target_names, dataset.positive_last
    if isinstance(proba, str | os.PathLike | pd.DataFrame):
        table = own_names(proba, where) if isinstance(proba, pd.DataFrame) else read_table(Path(proba).expanduser())
        by_class = probability_columns(names)
        known = [by_class, list(names), *([[last(np.array([by_class]))[0, 1]], ["score"]] if len(names) == 2 else [])]
        columns = next((some for some in known if set(some) <= set(table)), None)
        if columns is None:
            got = ", ".join(map(str, table))
            raise ValueError(f"{where}: expected the columns {', '.join(by_class)}, got {got:.160}. Name them so.")
        values, rows = table[columns].apply(pd.to_numeric, errors="coerce"), match_rows(dataset.frame, table, where)
        proba = np.full((n_rows, len(columns)), np.nan)
        proba[rows] = values
    proba = np.asarray(proba, dtype=np.float64)
    if len(names) == 2 and proba.shape in ((n_rows,), (n_rows, 1)):
        proba = last(np.column_stack([1 - proba.ravel(), proba.ravel()]))
    remedy = "Give probabilities for each patch of the data set, or a table with a column path."
    check_shape(where, proba, (n_rows, len(names)), remedy)
    total = proba.sum(axis=1, keepdims=True)
    wrong = tested & ~((proba >= 0).all(axis=1) & (abs(total[:, 0] - 1) <= _ROUNDED))
    expected = f"{where}: expected probabilities from 0 to 1 of each tested patch, got others or none for"
    check_rows(wrong, dataset.frame["path"], expected, "Add this patch, or turn scores into probabilities.")
    return np.where(tested[:, np.newaxis], proba / np.where(total > 0, total, 1), np.nan)


def merged_classes(table: pd.DataFrame, classes: Any) -> pd.DataFrame:
    """Give predictions the new names of `class_mapping`; probabilities of classes that become one are added up.

    Examples
    --------
    >>> table = pd.DataFrame({"p_no": [0.5], "p_idc": [0.25], "p_ilc": [0.25], "label": ["idc"]})
    >>> merged_classes(table, "no,ill=idc+ilc")[["label", "p_ill"]].to_dict("records")
    [{'label': 'ill', 'p_ill': 0.5}]
    """
    new, columns = {} if classes is None else class_mapping("classes", classes, 2), {}
    names = list(dict.fromkeys(new.values()))
    for name, column in zip(names, probability_columns(names), strict=True):
        olds = [one for one in probability_columns([old for old in new if new[old] == name]) if one in table]
        if olds:
            columns[column] = table[olds].apply(pd.to_numeric, errors="coerce").sum(axis=1, skipna=False)
    if new and "label" in table:
        columns["label"] = [new.get(label, label) for label in canonical_patients(table["label"])]
    return table.assign(**columns)


def check_cuts(dataset: PatchDataset, cuts: np.ndarray, codes: np.ndarray, proba: np.ndarray, name: str) -> None:
    """Refuse thresholds (n,) that were chosen for the other class of two, as the labels (n,) show."""
    score = dataset.positive_last(proba)[:, 1]
    wrong = (dataset.positive_last(codes) != (score >= cuts)) & (abs(score - cuts) > _DECIMALS)
    expected = f"positive: expected the class whose labels begin at the threshold of {name}, got another one for"
    check_rows(wrong, dataset.frame["path"], expected, "Name the other class, or leave out the column threshold.")


def tested_share(patients: np.ndarray, splits: Sequence[Any]) -> float:
    """Tested patients over training patients, the mean over the folds."""
    sizes = [[len(np.unique(patients[rows])) for rows in pair] for pair in splits]
    return float(np.mean([n_test / n_train for n_train, n_test in sizes]))


def score_model(
    dataset: PatchDataset, tests: Sequence[np.ndarray], proba: np.ndarray, tuned: np.ndarray | None, **resampling: Any
) -> dict[str, Any]:
    """Score out-of-fold probabilities: what a `ModelResult` holds of them, by its names.

    Parameters
    ----------
    dataset : PatchDataset
    tests : sequence of ndarray
        Test rows of each fold.
    proba : ndarray of shape (n, k), float64
    tuned : ndarray of shape (n,), int64, or None
        Classes at the threshold of each fold; by default the most probable ones.
    **resampling
        As for `histofeat.metrics.score_folds`.

    Returns
    -------
    scored : dict
    """
    y, n_classes, tested, last = dataset.y, proba.shape[1], np.concatenate(tests), dataset.positive_last
    predicted = np.full(len(y), -1, dtype=np.int64)
    predicted[tested] = last(most_probable(last(proba[tested])))
    tuned = predicted if tuned is None else tuned
    known, common = (last(y), last(proba)), (dataset.patients, tests)
    scored, resamples = score_folds(*known, last(predicted), *common, **resampling)
    return {
        "proba": proba,
        "predicted": predicted,
        "predicted_tuned": tuned,
        "scores": scored,
        "tuned": score_folds(*known, last(tuned), *common, metrics=LABEL_METRICS, **resampling)[0],
        "resamples": resamples,
        "confusion": confusion(y[tested], predicted[tested], n_classes),
        "confusion_tuned": confusion(y[tested], tuned[tested], n_classes),
        "fold_confusions": tuple(confusion(y[test], predicted[test], n_classes) for test in tests),
    }
