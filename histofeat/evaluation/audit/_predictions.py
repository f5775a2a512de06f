"""HF008: parts fitted before the folds, thresholds chosen on test rows, scores standardised over them."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from sklearn.frozen import FrozenEstimator

from histofeat.datasets import check_rows
from histofeat.evaluation._plans import Parts
from histofeat.evaluation.audit._encoders import walk
from histofeat.evaluation.audit._findings import Finding, decide, not_applicable
from histofeat.evaluation.audit._table_checks import Split
from histofeat.exceptions import check_type, refuse_rows

_COLUMNS = ("row", "fold", "score", "label")
#: Of two scores between which a threshold lies: nearer to each other than this share of all scores' range, no threshold
#: chosen elsewhere is likely to fall between them.
_NARROW = 0.01
_FEWEST_ROWS = 20
_TOLERANCE = 1e-6
_EXACT = 1e-12


def fitted_outside(split: Split, parts: tuple[Parts, ...] | None, predictions) -> Finding:
    """HF008: a part fitted before the folds, a threshold chosen on test rows, or scores standardised over them.

    Parameters
    ----------
    split : Split
    parts : tuple of Parts or None
        The pipelines; None where there are none to look at.
    predictions : DataFrame, mapping of str to array-like, mapping of str to either, or None
        One table, or one for each model: columns ``row``, ``fold``, ``score`` and ``label`` (0 or 1), and, where scores
        became labels, ``threshold`` (the label is 1 from it upwards).

    Returns
    -------
    finding : Finding
        An error; a warning where all that speaks for it is a threshold that may be the best one by chance.

    Raises
    ------
    ValueError
        If predictions lack a column or rows, repeat rows, hold NaN, or do not belong to this split.

    Notes
    -----
    Of a pipeline, everything is followed that is still fitted after `sklearn.base.clone`, as each fold gets it: a
    `FrozenEstimator`, or a fitted estimator behind a bound method or in a closure.

    A threshold is suspicious where it is the same in all folds, or best in each of them, and makes labels of the
    highest F1, Youden index or accuracy on the very test rows, while the two scores that it separates differ by less
    than 1 % of the range of all scores. It is an error where it lies exactly on one of these two or midway between
    them, has more than two decimals and serves more than one fold, and a warning otherwise: on few rows, a threshold
    that was fixed before can be the best one by chance. 0.5 is never suspicious, and fewer than 20 rows are not judged.
    Scores are suspicious where they have mean 0 and standard deviation 1 in every fold.
    """
    unseen = (
        "numbers that were learnt elsewhere and are given as parameters, what functions read from their module, "
        "choices made by looking at test scores, and any fit that leaves no trace in what was given."
    )
    if parts is None and predictions is None:
        return not_applicable("HF008", "Neither pipelines nor predictions were given.", unseen)
    offenders, severity, looked = list(_fitted_parts(parts or ())), "error", []
    if parts is not None:
        broken = [part.name for part in parts if part.reason]
        looked.append(f"pipelines ({len(parts):,}" + (f", in vain {', '.join(broken)})" if broken else ")"))
    if predictions is not None:
        tables = _check_predictions(split, predictions)
        looked.append(f"predictions of models ({len(tables):,})")
        by_chance = []
        for name, table in tables.items():
            offenders += _standardised(name, table)
            words, certain = _threshold_words(name, table)
            (offenders if certain else by_chance).extend(words)
        severity = "error" if offenders or not by_chance else "warning"
        offenders += by_chance
    looked = f"Looked at: {' and '.join(looked)}."
    return decide(
        "HF008", offenders, f"Fitted outside the training patients of a fold: {len(offenders):,}. {looked}",
        f"Nothing was found that was fitted outside a fold. {looked}", unseen, severity=severity, found=len(offenders),
    )  # fmt: skip


def _fitted_parts(parts: Iterable[Parts]) -> list[str]:
    """Find what is fitted before any fold is, and stays so.

    Parameters
    ----------
    parts : iterable of Parts

    Returns
    -------
    offenders : list of str
        The path of each part that cloning leaves fitted: a `FrozenEstimator`, and whatever a function is bound to or
        closed over. Estimators that cloning resets are not listed.
    """
    found = []
    for pipeline in parts:
        for start, part in pipeline.built:
            inside: list[str] = []
            for path, value in walk(part, start):
                # What holds a fitted part is fitted by it: name the outermost only.
                if not any(path.startswith((f"{outer}.", f"{outer}[")) for outer in inside) and _is_fitted(value):
                    inside.append(path)
                    found.append(f"{path} ({type(value).__name__})")
    return found


def _is_fitted(value) -> bool:
    if not hasattr(value, "fit"):
        return False
    learnt = [name for name in getattr(value, "__dict__", {}) if name.endswith("_") and not name.startswith("__")]
    # Fitted estimators of xgboost have no attribute that ends in an underscore.
    return isinstance(value, FrozenEstimator) or bool(learnt) or getattr(value, "_Booster", None) is not None


# --- checks of the tables --------------------------------------------------------------------------------------------


def _check_predictions(split: Split, predictions) -> dict[str, pd.DataFrame]:
    if isinstance(predictions, Mapping) and not set(_COLUMNS) & set(predictions):
        return {str(name): _check_table(split, table, str(name)) for name, table in predictions.items()}
    return {"predictions": _check_table(split, predictions, "predictions")}


def _check_table(split: Split, given, name: str) -> pd.DataFrame:
    owner = f"audit_split.predictions, {name}" if name != "predictions" else "audit_split.predictions"
    expected = f"a DataFrame or a mapping with the columns {', '.join(_COLUMNS)}"
    check_type(owner, given, pd.DataFrame | Mapping, expected, "Give one row per tested patch.")
    absent = [column for column in _COLUMNS if column not in given]
    if absent:
        raise ValueError(
            f"{owner}: expected the columns {', '.join(_COLUMNS)}, got none named {', '.join(absent)}. Add them; "
            "'threshold' is optional."
        )
    table = pd.DataFrame({name: np.asarray(given[name]) for name in (*_COLUMNS, "threshold") if name in given})
    _check_numbers(table, owner)
    table = table.astype({"row": np.int64, "fold": np.int64})
    _check_rows(split, table, owner)
    return table


def _check_numbers(table: pd.DataFrame, owner: str) -> None:
    for column, values in table.items():
        if values.dtype.kind not in "iufb":
            raise ValueError(
                f"{owner}: expected numbers in the column {column!r}, got {values.dtype} values such as "
                f"{values.iloc[0]!r}. Convert them."
            )
        numbers, expected = values.to_numpy(dtype=np.float64), f"{owner}: expected finite numbers in the column"
        refuse_rows(~np.isfinite(numbers), numbers, f"{expected} {column!r}", "Leave out rows that were not scored.")
    for column in ("row", "fold"):
        numbers, expected = table[column].to_numpy(), f"{owner}: expected whole numbers in the column {column!r}"
        refuse_rows(numbers % 1 != 0, numbers, expected, "Number rows and folds from 0.")
    labels, remedy = table["label"].to_numpy(), "Of more than two classes give one against the rest."
    refuse_rows(~np.isin(labels, [0, 1]), labels, f"{owner}: expected labels 0 and 1", remedy)


def _check_rows(split: Split, table: pd.DataFrame, owner: str) -> None:
    """Refuse rows that are not the test rows of their fold, each once."""
    twice = np.flatnonzero(table.duplicated(["row", "fold"]))
    if twice.size:
        row, fold = table.loc[twice[0], ["row", "fold"]].astype(int)
        raise ValueError(
            f"{owner}: expected each row once in a fold, got row {row} of fold {fold} again ({twice.size} repeated). "
            "Give one score per tested patch."
        )
    given = pd.MultiIndex.from_frame(table[["row", "fold"]])
    wanted = pd.MultiIndex.from_tuples((row, fold) for fold, (_, test) in enumerate(split.folds) for row in test)
    surplus, missing = given.difference(wanted), wanted.difference(given)
    words = "only test rows of their fold, got" if len(surplus) else "every test row of each fold, got none for"
    wrong = surplus if len(surplus) else missing
    if len(wrong):
        row, fold = wrong[0]
        raise ValueError(
            f"{owner}: expected {words} row {row} of fold {fold} ({len(wrong):,} such rows). Number rows as the data "
            "set does, and folds as the splits do."
        )
    if len(split.dataset.target_names) == 2:
        wrong = split.dataset.y[table["row"]] != table["label"]
        expected = f"{owner}: expected the labels of the data set, got another for row"
        check_rows(wrong, table["row"], expected, "Keep the order of the rows.")


# --- signs in the scores ---------------------------------------------------------------------------------------------


def _standardised(name: str, table: pd.DataFrame) -> list[str]:
    """Describe scores of mean 0 and standard deviation 1 in every fold, which no fit on other rows gives."""
    by_fold = table.groupby("fold")["score"].agg(["size", "mean", "std"])
    if (by_fold["size"] < _FEWEST_ROWS).any() or (by_fold["mean"].abs() > _TOLERANCE).any():
        return []
    population = by_fold["std"] * np.sqrt((by_fold["size"] - 1) / by_fold["size"])
    if not any(((std - 1).abs() < _TOLERANCE).all() for std in (by_fold["std"], population)):
        return []
    return [f"{name}: scores have mean 0 and standard deviation 1 over the test rows of every fold"]


def _threshold_words(name: str, table: pd.DataFrame) -> tuple[list[str], bool]:
    """Describe thresholds that were chosen on test rows, and say whether this is beyond doubt."""
    if "threshold" not in table:
        return [], False
    by_fold = [part for _, part in table.groupby("fold")]
    if any(part["threshold"].nunique() > 1 for part in by_fold):
        raise ValueError(
            f"audit_split.predictions, {name}: expected one threshold in a fold, got several. Give the threshold by "
            "which the fold's labels were made."
        )
    thresholds = {float(part["threshold"].iloc[0]) for part in by_fold}
    if len(thresholds) == 1:
        (threshold,) = thresholds
        best, exact = _best_for(table, threshold) if threshold != 0.5 else (None, False)
        words = f"{name}: the threshold {threshold:.6g} gives the highest {best} on the very test rows"
        # Two decimals are what people type, and of a single fold any threshold may be the best one.
        certain = exact and len(by_fold) > 1 and round(threshold, 2) != threshold
    else:
        found = [_best_for(part, float(part["threshold"].iloc[0])) for part in by_fold]
        best = found[0][0] if len({criterion for criterion, _ in found}) == 1 else None
        words = f"{name}: the threshold of each fold gives the highest {best} on its own test rows"
        certain = all(exact for _, exact in found)
    return ([] if best is None else [words]), certain


def _best_for(table: pd.DataFrame, threshold: float) -> tuple[str | None, bool]:
    """What a threshold is best for on these rows, and whether it lies exactly on or between two of their scores.

    Nothing on few rows, and where it lies somewhere in a wide gap, which leaves room for chance.
    """
    order = np.argsort(-table["score"].to_numpy(dtype=np.float64), kind="stable")
    score = table["score"].to_numpy(dtype=np.float64)[order]
    label = table["label"].to_numpy()[order] == 1
    if label.all() or not label.any() or len(label) < _FEWEST_ROWS:
        return None, False
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True))
    hits, n = np.cumsum(label)[last], last + 1.0
    n_positive, n_negative = label.sum(), (~label).sum()
    criteria = {
        "F1": 2 * hits / (n + n_positive),
        "Youden index": hits / n_positive - (n - hits) / n_negative,
        "accuracy": (hits + n_negative - (n - hits)) / len(label),
    }
    cut = int((score[last] >= threshold).sum()) - 1
    if not 0 <= cut < len(last) - 1:
        return None, False
    above, below = score[last[cut]], score[last[cut] + 1]
    exact = min(abs(threshold - place) for place in (above, below, (above + below) / 2)) <= _EXACT
    if above - below > _NARROW * (score[0] - score[-1]) and not exact:
        return None, False
    best = next((name for name, values in criteria.items() if values[cut] >= values.max() - _EXACT), None)
    return best, exact
