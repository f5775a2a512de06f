"""The report's tables, from the content of `metrics.json`: numbers formatted, the best of each column found."""

from histofeat.metrics import METRIC_RECORDS
from histofeat.reporting.blocks import Table
from histofeat.reporting.files.payload import data_label

__all__ = [
    "METRIC_WORDS",
    "fold_sizes_table",
    "folds_table",
    "headline_key",
    "headline_table",
    "number",
    "score_with_interval",
    "scores_table",
    "seconds_table",
]

METRIC_WORDS = {name: metric.words for name, metric in METRIC_RECORDS.items()}
_UNDEFINED = "–"
# Metrics of the first table, and where they lie; the interval stands in a column of its own, so that digits align.
_HEADLINE = (
    ("half", "roc_auc"),
    ("half", "average_precision"),
    ("half", "f1"),
    ("tuned", "f1"),
    ("half", "balanced_accuracy"),
    ("half", "sensitivity"),
    ("half", "specificity"),
    ("half", "brier"),
)
_STAGE_WORDS = {
    "extraction": "extraction: reading, decoding, computing features; loading and compiling included",
    "retrain": "training encoders anew in each fold",
    "fit": "fitting",
    "score": "scoring and intervals",
}


def number(value, digits=3):
    """`value` with fixed digits, a dash where it is undefined.

    Examples
    --------
    >>> number(0.91449), number(None)
    ('0.914', '–')
    """
    return _UNDEFINED if value is None else f"{value:.{digits}f}"


def score_with_interval(score):
    """Pooled value and interval in one cell: ``0.914 [0.901, 0.926]``."""
    low, high = score["ci95"]
    if score["pooled"] is None or low is None or high is None:
        return number(score["pooled"])
    return f"{number(score['pooled'])} [{number(low)}, {number(high)}]"


def _score(result, place, metric):
    scores = result if place == "half" else result["tuned"]
    score = scores.get(metric)
    return score if isinstance(score, dict) else None


def _best_cells(texts, column, values, lower_is_better):
    """Cells that read like the best value of their column; none where there is nothing to compare."""
    defined = [(value, row) for row, value in enumerate(values) if value is not None]
    if len(defined) < 2:
        return set()
    _, best_row = min(defined) if lower_is_better else max(defined)
    cells = {(row, column) for row, text in enumerate(texts) if text == texts[best_row]}
    return cells if len(cells) < len(texts) else set()


def headline_table(payload):
    """One row per model: the scores that a reader compares first, pooled over the folds."""
    results = payload["results"]
    shown = [entry for entry in _HEADLINE if any(_score(result, *entry) for result in results)]
    if len(payload["dataset"]["labels"]) > 2:
        shown = [entry for entry in shown if entry[0] == "half"]
    columns = ["Model", "Head", "Features"]
    cells = [[result["name"], result["head"], f"{result['n_features']:,}"] for result in results]
    best = set()
    for place, metric in shown:
        scores = [_score(result, place, metric) for result in results]
        values = [score and score["pooled"] for score in scores]
        texts = [number(value) for value in values]
        best |= _best_cells(texts, len(columns), values, not METRIC_RECORDS[metric].higher_is_better)
        columns.append(METRIC_RECORDS[metric].short + " tuned" * (place == "tuned"))
        for row, text in zip(cells, texts, strict=True):
            row.append(text)
        if metric == "roc_auc":
            columns.append("95 % interval")
            for row, score in zip(cells, scores, strict=True):
                row.append(f"{number(score['ci95'][0])} – {number(score['ci95'][1])}" if score else _UNDEFINED)
    caption = f"{data_label(payload['dataset'])}. Pooled out-of-fold scores; the best of each column is marked."
    return Table(caption, tuple(columns), tuple(map(tuple, cells)), n_text=2, best=frozenset(best))


def headline_key(payload):
    """What the columns of `headline_table` are."""
    labels = payload["dataset"]["labels"]
    if len(labels) > 2:
        return (
            "AP: average precision. Every score but accuracy is the mean over the classes, each against the rest; "
            "Brier: squared errors summed over the classes, lower is better."
        )
    return (
        f"Positive class: {labels[1]}. AP: average precision; F1, balanced accuracy, sensitivity and specificity from "
        "labels at 0.5; F1 tuned: at the threshold chosen on training patients; Brier: lower is better."
    )


def scores_table(payload, place):
    """One row per model, every metric with its interval, at 0.5 (`place` "half") or at the "tuned" threshold."""
    results = payload["results"]
    metrics = [metric for metric in METRIC_WORDS if any(_score(result, place, metric) for result in results)]
    rows = [
        (result["name"], result["head"], *(score_with_interval(_score(result, place, metric)) for metric in metrics))
        for result in results
    ]
    at = "at the tuned threshold" if place == "tuned" else "at 0.5"
    if len(payload["dataset"]["labels"]) > 2:
        at = "of the most probable class"
    caption = f"{data_label(payload['dataset'])}. Every metric, labels {at}, pooled [95 % interval]."
    return Table(caption, ("Model", "Head", *(METRIC_WORDS[m] for m in metrics)), tuple(rows), n_text=2)


def folds_table(payload, metric="roc_auc"):
    """One row per model: one metric in each fold, mean and standard deviation, pooled."""
    n_folds = len(payload["folds"])
    rows, best_of = [], {}
    for result in payload["results"]:
        score = result[metric]
        values = [*score["folds"], score["mean"], score["std"], score["pooled"]]
        rows.append((result["name"], result["head"], *map(number, values)))
        for column, value in enumerate(values):
            best_of.setdefault(column, []).append(value)
    best = set()
    for column, values in best_of.items():
        if column != n_folds + 1:
            texts = [row[column + 2] for row in rows]
            best |= _best_cells(texts, column + 2, values, not METRIC_RECORDS[metric].higher_is_better)
    folds = [f"Fold {fold['fold']}" for fold in payload["folds"]]
    caption = f"{data_label(payload['dataset'])}. {METRIC_WORDS[metric]} of each fold."
    columns = ("Model", "Head", *folds, "Mean", "SD", "Pooled")
    return Table(caption, columns, tuple(rows), n_text=2, best=frozenset(best))


def fold_sizes_table(payload):
    """One row per fold: patients and patches on both sides, classes on the test side."""
    labels = payload["dataset"]["labels"]
    rows = tuple(
        (
            str(fold["fold"]),
            *(f"{fold[key]:,}" for key in ("train_patients", "train_patches", "test_patients", "test_patches")),
            *(f"{fold['test_class_counts'][label]:,}" for label in labels),
        )
        for fold in payload["folds"]
    )
    columns = ("Fold", "Training patients", "Training patches", "Test patients", "Test patches")
    caption = f"{data_label(payload['dataset'])}. Size of each fold."
    return Table(caption, (*columns, *(f"Test: {label}" for label in labels)), rows)


def seconds_table(payload):
    """One row per stage, then one per model: where the time went."""
    stages = [(words, payload["seconds"][stage]) for stage, words in _stages(payload["seconds"])]
    rows = [("All models", words, _time(value)) for words, value in stages]
    for result in payload["results"]:
        model = f"{result['name']}, {result['head']}"
        rows.append((model, "fitting (inner fits included)", _time(result["fit_s"])))
        rows.append((model, "predicting", _time(result["predict_s"])))
    return Table("Wall-clock seconds, all folds together.", ("What", "Stage", "Seconds"), tuple(rows), n_text=2)


def _stages(seconds):
    """(stage, words) in the order of the work, each followed by its parts ("extraction:color")."""
    known = [*_STAGE_WORDS, *(stage for stage in seconds if stage.partition(":")[0] not in _STAGE_WORDS)]
    for stage in known:
        if stage in seconds:
            yield stage, _STAGE_WORDS.get(stage, stage)
        for part in seconds:
            if part.startswith(f"{stage}:"):
                yield part, f"{stage}, of which {part.partition(':')[2]} (summed over threads)"


def _time(value):
    return number(value, 1 if value is None or value >= 1 else 3)
