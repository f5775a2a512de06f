"""The tables of a report, from the content of `metrics.json`: numbers formatted, the best of each column found."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from histofeat.metrics import CLASS_METRICS, METRIC_RECORDS
from histofeat.reporting._payload import data_label
from histofeat.reporting._text import UNDEFINED, interval, number, signed, with_interval

METRIC_WORDS = {name: metric.words for name, metric in METRIC_RECORDS.items()}
# Metric, whether at the tuned threshold; intervals have columns of their own, so that digits align.
_HEADLINE = (
    *(("roc_auc", False), ("average_precision", False), ("f1", False), ("f1", True), ("balanced_accuracy", False)),
    *(("sensitivity", False), ("specificity", False), ("brier", False)),
)
#: What the two intervals of the first table are.
_INTERVALS = (
    "ROC-AUC and AP compare patches of one fold only. 95 % intervals of ROC-AUC: of these fits, on other patients; of "
    "the method, fits on other patients included, which a single split cannot tell."
)
_STAGE_WORDS = {
    "extraction": "extraction: reading, decoding, computing features; loading and compiling included",
    "audit": "auditing the split",
    "retrain": "training encoders again in each fold",
    "fit": "fitting",
    "score": "scoring and intervals",
}


@dataclass(frozen=True)
class Table:
    """A table of words and already formatted numbers.

    Parameters
    ----------
    caption : str
    columns : tuple of str
    rows : tuple of tuple of str
    n_text : int
        The first columns, aligned to the left; all others hold numbers.
    best : frozenset of (int, int)
        Cells (row, column) to mark as the best of their column.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    n_text: int = 1
    best: frozenset[tuple[int, int]] = frozenset()


def score_with_interval(score):
    """Return a score with its 95 % interval, a dash without a score.

    Examples
    --------
    >>> score_with_interval({"value": 0.91449, "ci95": [0.9012, 0.9262]}), score_with_interval(None)
    ('0.914 [0.901, 0.926]', '–')
    """
    return with_interval(score["value"], score["ci95"]) if score else UNDEFINED


def score_of(result, metric, tuned=False):
    """Return one score of a result, at the tuned threshold or at 0.5; None where there is none."""
    return (result["tuned"] if tuned else result).get(metric)


def best_of(results):
    """Return the result of the highest ROC-AUC; of hard labels, which have none, of the highest balanced accuracy."""
    scores = [[score_of(result, metric) or {} for metric in ("roc_auc", "balanced_accuracy")] for result in results]
    values = [[score.get("value") for score in pair] for pair in scores]
    ranks = [(-1.0, other or 0.0) if area is None else (area, 0.0) for area, other in values]
    return results[ranks.index(max(ranks))]


def by_reason(found: Mapping[str, str] | Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the names of what could not run by its reason: of reasons by name, or of records with both and a head.

    Examples
    --------
    >>> by_reason([{"name": "cnn", "head": "svm", "reason": "No weights."}, {"name": "place", "reason": "No weights."}])
    {'No weights.': ['cnn, svm', 'place']}
    """
    named = isinstance(found, Mapping)
    records = [{"name": name, "reason": found[name]} for name in found] if named else found
    names = {}
    for one in records:
        names.setdefault(one["reason"], []).append(", ".join(filter(None, (one["name"], one.get("head")))))
    return names


def headline_table(payload: Mapping[str, Any]) -> Table:
    """Return one row per model: the scores that a reader compares first."""
    results = payload["results"]
    columns, best = ["Features"], set()
    cells = [[f"{result['n_features']:,}" if result["n_features"] else "–"] for result in results]
    for metric, tuned in _HEADLINE:
        scores = [score_of(result, metric, tuned) for result in results]
        if not any(scores) or (tuned and _several(payload)):
            continue
        best |= _best_cells([score and score["value"] for score in scores], len(columns), metric)
        columns.append(METRIC_RECORDS[metric].short + " tuned" * tuned)
        columns += ["interval of these fits", "interval of the method"] * (metric == "roc_auc")
        for row, score in zip(cells, scores, strict=True):
            row.append(number(score and score["value"]))
            if metric == "roc_auc":
                row += [interval(score[name]) if score else UNDEFINED for name in ("ci95", "method_ci95")]
    return _model_table(payload, "Out-of-fold scores; the best of each column is marked.", columns, cells, best)


def _model_table(payload, words, columns, cells, best=frozenset()):
    """Return a table with one row for each model: its name, its head, and its cells."""
    models = ((result["name"], result["head"]) for result in payload["results"])
    rows = tuple((*model, *row) for model, row in zip(models, cells, strict=True))
    marked = frozenset((row, column + 2) for row, column in best)
    return Table(f"{data_label(payload['dataset'])}. {words}", ("Model", "Head", *columns), rows, n_text=2, best=marked)


def _several(payload):
    return len(payload["dataset"]["labels"]) > 2


def _best_cells(values, column, metric):
    """Return the cells that read like the best value of their column; none where there is nothing to compare."""
    defined = [value for value in values if value is not None]
    if len(defined) < 2:
        return set()
    best = number(max(defined) if METRIC_RECORDS[metric].higher_is_better else min(defined))
    cells = {(row, column) for row, value in enumerate(values) if number(value) == best}
    return cells if len(cells) < len(values) else set()


def headline_key(payload):
    """Return what the columns of `headline_table` are."""
    if _several(payload):
        return (
            f"{_INTERVALS} AP: average precision. Every score but accuracy is the mean over the classes, each against "
            "the rest; Brier: squared errors summed over the classes, lower is better."
        )
    return (
        f"{_INTERVALS} Positive class: {payload['dataset']['labels'][1]}. AP: average precision; F1, balanced "
        "accuracy, sensitivity and specificity from labels at 0.5; F1 tuned: at the threshold chosen on training "
        "patients; Brier: lower is better."
    )


def _label_words(payload, tuned):
    if _several(payload):
        return "labels of the most probable class"
    return "labels at the tuned threshold" if tuned else "labels at 0.5"


def scores_table(payload, metrics=tuple(METRIC_WORDS), tuned=False):
    """Return one row per model: metrics that a model has, with intervals, at 0.5 or at the tuned threshold."""
    metrics = _metrics_of(payload, metrics, tuned)
    cells = [[score_with_interval(score_of(result, m, tuned)) for m in metrics] for result in payload["results"]]
    words = f"{_names(metrics)}; {_label_words(payload, tuned)} [95 % interval]."
    return _model_table(payload, words, [METRIC_WORDS[metric] for metric in metrics], cells)


def _metrics_of(payload, metrics, tuned):
    """Return those of the metrics that a model has."""
    return [metric for metric in metrics if any(score_of(result, metric, tuned) for result in payload["results"])]


def average_table(
    payload: Mapping[str, Any], metrics: Iterable[str] = tuple(METRIC_WORDS), tuned: bool = False
) -> Table:
    """Return one row per model: metrics over all patches and averaged over patients; none that no model has."""
    metrics = _metrics_of(payload, metrics, tuned)
    cells = [[] for _ in payload["results"]]
    for row, result in zip(cells, payload["results"], strict=True):
        for score in (score_of(result, metric, tuned) for metric in metrics):
            averaged = score and "patient_mean" in score
            row.append(number(score and score["value"]))
            row.append(with_interval(score["patient_mean"], score["patient_mean_ci95"]) if averaged else UNDEFINED)
    columns = [words for m in metrics for words in (f"{METRIC_WORDS[m]}, all patches", "by patient [95 % interval]")]
    words = f"{_names(metrics)}: over all patches, and the mean over patients of each patient's own score"
    words = f"{words}; {_label_words(payload, tuned)}."
    return _model_table(payload, words, columns, cells)


def _names(metrics):
    return ", ".join(METRIC_WORDS[metric] for metric in metrics)


def folds_table(payload, metric="roc_auc"):
    """Return one row per model: one metric in each fold, mean and standard deviation, within folds, in one list."""
    scores = [result[metric] for result in payload["results"]]
    values = [[*score["folds"], *(score[part] for part in ("mean", "std", "value", "pooled"))] for score in scores]
    names = [*(f"Fold {fold['fold']}" for fold in payload["folds"]), "Mean", "SD", "All folds", "In one list"]
    best = set()
    for column, name in enumerate(names):
        if name != "SD":
            best |= _best_cells([row[column] for row in values], column, metric)
    cells = [map(number, row) for row in values]
    return _model_table(payload, f"{METRIC_WORDS[metric]} of each fold.", names, cells, best)


def class_table(result: Mapping[str, Any], label: str) -> Table:
    """Return one row per class of one model, each class against the rest.

    Parameters
    ----------
    result : dict
        With "name", "head", and "classes" as `ClassScores.to_dicts` gives them; undefined numbers may be None or NaN.
    label : str
        The data set, as captions name it.

    Returns
    -------
    Table
    """
    rows = tuple(
        (
            entry["class"],
            *(f"{entry[count]:,}" for count in ("n_patients", "support", "predicted")),
            *(with_interval(entry[metric]["value"], entry[metric]["ci95"]) for metric in CLASS_METRICS),
        )
        for entry in result["classes"]
    )
    columns = ("Class", "Patients", "Images", "Predicted", *(METRIC_WORDS[metric] for metric in CLASS_METRICS))
    caption = f"{label}. {result['name']}, {result['head']}: each class against the rest [95 % interval]."
    return Table(caption, columns, rows)


def seconds_table(payload):
    """Return one row per stage, then one per model: where the time went."""
    rows = [("All models", words, _time(payload["seconds"][stage])) for stage, words in _stages(payload["seconds"])]
    for result in payload["results"]:
        model = f"{result['name']}, {result['head']}"
        rows.append((model, "fitting (inner fits included)", _time(result["fit_s"])))
        rows.append((model, "predicting", _time(result["predict_s"])))
    return Table("Wall-clock seconds, all folds together.", ("What", "Stage", "Seconds"), tuple(rows), n_text=2)


def _stages(seconds):
    """Yield (stage, words) in the order of the work, each followed by its parts ("extraction:color")."""
    known = [*_STAGE_WORDS, *(stage for stage in seconds if stage.partition(":")[0] not in _STAGE_WORDS)]
    for stage in known:
        if stage in seconds:
            yield stage, _STAGE_WORDS.get(stage, stage)
        for part in seconds:
            if part.startswith(f"{stage}:"):
                yield part, f"{stage}, of which {part.partition(':')[2]} (summed over threads)"


def _time(value):
    return number(value, 1 if value is None or value >= 1 else 3)


def difference_table(comparison: Mapping[str, Any], label: str) -> Table:
    """Return one row per model: its difference from the reference, and what is certain about it.

    Parameters
    ----------
    comparison : dict
        As ``Evaluation.comparison.to_dict()`` gives it.
    label : str
        The data set, as captions name it.

    Returns
    -------
    Table
    """
    names = list(dict.fromkeys(metric_words(row["metric"]) for row in comparison["rows"]))
    metric = ("Metric",) if len(names) > 1 else ()
    margin = ("Not worse",) if comparison["margin"] is not None else ()
    reference = comparison["reference"]
    sides = ("Model", f"model - {reference}") if reference else ("A - B", "A - B")
    columns = (*metric, sides[0], "Difference", "95 % interval", "simultaneous", "p", "p, adjusted", *margin)
    rows = tuple(
        (
            *((metric_words(row["metric"]),) if metric else ()),
            row["first"] if reference else f"{row['first']} - {row['second']}",
            signed(row["difference"]),
            interval(row["ci95"], signed, " to "),
            interval(row["simultaneous_ci95"], signed, " to "),
            number(row["p"], 4),
            number(row["p_adjusted"], 4),
            *(("yes" if row["non_inferior"] else "not shown",) if margin else ()),
        )
        for row in comparison["rows"]
    )
    words = f"{label}. {', '.join(names)}: {sides[1]}, on the same resamples of the patients."
    return Table(words, columns, rows, n_text=1 + len(metric))


def metric_words(metric):
    """Return the name of a metric; of one that ends in "_tuned" with its threshold."""
    plain = metric.removesuffix("_tuned")
    return METRIC_WORDS[plain] + (" at the tuned threshold" if plain != metric else "")
