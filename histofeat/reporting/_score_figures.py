"""Figures of scores: all models in comparison, the folds of each (forest), confusion matrices; numbers and drawing."""

import numpy as np

from histofeat.metrics import pareto_front
from histofeat.reporting import _canvas as canvas
from histofeat.reporting._payload import metrics_payload, model_key, source_of
from histofeat.reporting._strict_json import jsonable
from histofeat.reporting._tables import METRIC_WORDS, best_of, score_of
from histofeat.reporting._text import with_interval

_METRICS = ("roc_auc", "balanced_accuracy", "f1")
_NETWORK = "pixels"
_LABEL = 20
#: What decides the labels of a confusion matrix.
THRESHOLD_WORDS = {"0.5": "labels at 0.5", "tuned": "labels at the tuned threshold", "argmax": "most probable class"}
#: Panels of confusion matrices side by side, by the number of classes.
_SIDE_BY_SIDE = ((2, 4), (3, 3), (5, 2))


def comparison_data(payload):
    """Return the scores of every model with their intervals, the highest ROC-AUC first.

    Parameters
    ----------
    payload : dict
        As `metrics_payload` returns it.

    Returns
    -------
    dict
        ``metrics``; ``heads``, in the order of their colours; ``tuned``, whether labels were also decided at a tuned
        threshold; ``rows``, sorted, each with ``name``, ``head``, ``network`` (whether it is a network trained on
        pixels, the reference for the others) and ``scores``: for each metric ``value`` and ``ci95``, and ``tuned``
        with the same at the tuned threshold (None where a threshold has no part in it). Models without an ROC-AUC come
        last, in the order of the results.
    """
    tuned = len(payload["dataset"]["labels"]) == 2
    rows = [
        {
            "name": result["name"],
            "head": result["head"],
            "network": _NETWORK in result["features"],
            "scores": {metric: _scores(result, metric, tuned) for metric in _METRICS},
        }
        for result in payload["results"]
    ]
    rows.sort(key=lambda row: _descending(row["scores"]["roc_auc"]["value"]))
    # In the order of the results, so that a head has the colour that it has in the other figures.
    heads = list(dict.fromkeys(result["head"] for result in payload["results"]))
    source = source_of(payload)
    return {"figure": "comparison", **source, "metrics": list(_METRICS), "tuned": tuned, "heads": heads, "rows": rows}


def _descending(value):
    return 1.0 if value is None else -value


def _scores(result, metric, tuned):
    def shown(score):
        return score and {"value": score["value"], "ci95": score["ci95"]}

    return {**shown(result[metric]), "tuned": shown(score_of(result, metric, tuned=True)) if tuned else None}


def draw_comparison(data):
    """Draw one panel per metric, one line per model: dot and interval, and hollow below it the tuned threshold.

    Parameters
    ----------
    data : dict
        As `comparison_data` gives it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows, metrics, heads = data["rows"], data["metrics"], data["heads"]
    names = [f"{canvas.short(row['name'], 24)}, {canvas.short(row['head'], 16)}" for row in rows]
    figure = canvas.new_figure(9.0, 1.5 + (0.36 if data["tuned"] else 0.28) * max(len(rows), 2))
    grid = canvas.panels(figure, len(metrics), len(metrics))
    for at, (axes, metric) in enumerate(zip(grid, metrics, strict=True)):
        for position, row in enumerate(rows):
            if row["network"]:
                axes.axhspan(position - 0.5, position + 0.5, color="#F1EFE6", linewidth=0, zorder=0)
            _row(axes, row["scores"][metric], position, canvas.line_of(heads.index(row["head"]))[0], row["network"])
        canvas.list_rows(axes, [name if at == 0 else "" for name in names], fontsize=8)
        axes.set_title(_metric_words(data, metric), fontsize=9, color=canvas.INK)
        axes.margins(x=0.06)
        axes.locator_params(axis="x", nbins=5)
    _legend(figure, data, heads)
    canvas.put_title(figure, f"All models, out of fold, 95 % intervals (patients resampled): {data['data_label']}")
    return figure


def _metric_words(data, metric):
    averaged = not data["tuned"] and metric in ("f1", "roc_auc")
    return f"{METRIC_WORDS[metric]}, mean over classes" if averaged else METRIC_WORDS[metric]


def _row(axes, scores, position, color, network):
    marker, tuned = "D" if network else "o", scores["tuned"]
    shift = 0.15 if tuned else 0.0
    canvas.draw_estimate(axes, scores["value"], scores["ci95"], position - shift, color, marker=marker)
    if tuned:
        canvas.draw_estimate(axes, tuned["value"], tuned["ci95"], position + shift, color, marker=marker, hollow=True)


def _legend(figure, data, heads):
    """Explain colours, shapes and hollow marks, those that occur."""
    named = enumerate(heads) if len(heads) > 1 else ()
    entries = [(canvas.handle(color=canvas.line_of(at)[0], linewidth=2.2), f"head {head}") for at, head in named]
    mark = {"linestyle": "", "markersize": 5.5, "color": "#444444"}
    if data["tuned"]:
        entries.append((canvas.handle(marker="o", **mark), "labels at 0.5"))
        entries.append((canvas.handle(marker="o", markerfacecolor="white", **mark), "labels at the tuned threshold"))
    if any(row["network"] for row in data["rows"]):
        entries.append((canvas.handle(marker="D", **mark), "network trained on the pixels: the reference"))
    canvas.legend_below(figure, entries)


def patients_data(table, payload):
    """Return the patients of the recommended model, each with its size, its accuracy ("y") and its ROC-AUC."""
    best = best_of(payload["results"])
    key = model_key(best["name"], best["head"])
    points = table.loc[table["model"] == key, ["patient", "patches", "accuracy", "roc_auc"]]
    points = points.rename(columns={"patient": "name", "accuracy": "y"}).to_dict("records")
    words = {"figure": "patients", **source_of(payload), "model": key, "y_label": "accuracy"}
    return {**words, "points": jsonable(points)}


def draw_patients(data):
    """Draw a dot for each patient, its accuracy over the number of its patches; the three lowest have names.

    Parameters
    ----------
    data : dict
        As `patients_data` gives it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, points = canvas.new_figure(6.4, 3.8), sorted(data["points"], key=lambda point: point["y"])
    axes, sizes = figure.subplots(), [point["patches"] for point in points]
    axes.plot(sizes, [p["y"] for p in points], "o", markersize=4, alpha=0.6, color=canvas.line_of(0)[0])
    for point in points[:3]:
        place = {"xytext": (5, 0), "textcoords": "offset points", "fontsize": 7, "va": "center", "color": canvas.INK}
        axes.annotate(canvas.short(point["name"], 16), (point["patches"], point["y"]), **place)
    axes.set_xlim(0, 1.25 * max(sizes))
    axes.set(xlabel="patches of the patient", ylabel=data["y_label"])
    canvas.frame(axes)
    canvas.put_title(figure, f"Each patient alone, {data['model']}: {data['data_label']}")
    return figure


def costs_data(payload):
    """Return the ROC-AUC of each model and its milliseconds a patch for `draw_costs`; None unless all were measured."""
    points, source = [], source_of(payload)
    for result in sorted(payload["results"], key=lambda result: result["seconds_per_patch"] or 0.0):
        score, seconds = result["roc_auc"], result["seconds_per_patch"]
        if not seconds or score["value"] is None:
            return None
        place = {"x": 1000 * seconds, "y": score["value"], "low": score["ci95"][0], "high": score["ci95"][1]}
        points.append({"name": model_key(result["name"], result["head"]), **place})
    front = pareto_front(*([point[axis] for point in points] for axis in "xy")).tolist()
    points = [{**point, "on_front": on_front} for point, on_front in zip(points, front, strict=True)]
    words = {"title": f"Cost: {source['data_label']}", "x_label": "milliseconds a patch", "y_label": "ROC-AUC"}
    return {"figure": "costs", **source, **words, "points": points}


def forest_data(payload, metric="roc_auc"):
    """Return value, interval and folds of one metric for every model, in the order of the results."""
    parts = ("value", "ci95", "folds")
    rows = [
        {"name": result["name"], "head": result["head"], **{part: result[metric][part] for part in parts}}
        for result in payload["results"]
    ]
    return {"figure": "forest", "metric": metric, **source_of(payload), "rows": rows}


def draw_forest(data):
    """Draw values with their intervals, folds as small ticks, one line per model; colours are heads."""
    figure = canvas.new_figure(8.0, 1.3 + 0.3 * max(len(data["rows"]), 1))
    axes = figure.subplots()
    draw_forest_rows(axes, data["rows"])
    axes.set_xlabel("ROC-AUC, out of fold, with 95 % interval (patients resampled); ticks: single folds")
    canvas.put_title(figure, data["data_label"])
    return figure


def draw_forest_rows(axes, rows):
    """Draw the rows of a forest on some axes: each "name", "head", "value", "ci95" and "folds", the small ticks."""
    heads = list(dict.fromkeys(row["head"] for row in rows))
    sets = list(dict.fromkeys(row["name"] for row in rows))
    for position, row in enumerate(rows):
        if sets.index(row["name"]) % 2:
            axes.axhspan(position - 0.5, position + 0.5, color="#F3F5F8", linewidth=0, zorder=0)
        _forest_row(axes, row, position, canvas.line_of(heads.index(row["head"]))[0])
    canvas.list_rows(axes, [f"{canvas.short(row['name'])}, {canvas.short(row['head'])}" for row in rows])
    axes.set_xlim(*_forest_limits(rows))


def _forest_row(axes, row, position, color):
    if row["value"] is None:
        return
    folds = [value for value in row["folds"] if value is not None]
    axes.plot(folds, [position + 0.27] * len(folds), linestyle="", marker="|", markersize=4, color=color, alpha=0.6)
    canvas.draw_estimate(axes, row["value"], row["ci95"], position, color)
    # Beside the axis, in a column, so that the numbers can be compared down the page.
    place = {"xycoords": ("axes fraction", "data"), "va": "center", "annotation_clip": False}
    axes.annotate(with_interval(row["value"], row["ci95"]), (1.02, position), color=canvas.INK, **place)


def _forest_limits(rows):
    ends = [end for row in rows for end in (*row["ci95"], *row["folds"], row["value"]) if end is not None]
    if not ends:
        return 0.0, 1.0
    low, high = min(ends), max(ends)
    margin = max(0.01, 0.05 * (high - low))
    return max(0.0, low - margin), min(1.0, high + margin)


def confusion_data(payload, head, *, tuned=False):
    """Return the confusion matrices of all models of one head: counts, and rates within each true class."""
    matrices = []
    for result in payload["results"]:
        if result["head"] != head:
            continue
        counts = (result["tuned"] if tuned else result)["confusion_matrix"]
        rows = np.asarray(counts, dtype=float)
        totals = rows.sum(axis=1, keepdims=True)
        rates = np.divide(rows, totals, out=np.zeros_like(rows), where=totals > 0)
        matrices.append({"name": result["name"], "counts": counts, "rates": rates.round(6).tolist()})
    labels = payload["dataset"]["labels"]
    return {
        "figure": "confusion",
        "head": head,
        **source_of(payload),
        "threshold": "argmax" if len(labels) > 2 else "tuned" if tuned else "0.5",
        "labels": labels,
        "matrices": matrices,
    }


def best_confusion(evaluation, *, tuned=False):
    """Return `confusion_data` of the model of the highest ROC-AUC."""
    payload = metrics_payload(evaluation)
    best = best_of(payload["results"])
    return confusion_data({**payload, "results": [best]}, best["head"], tuned=tuned)


def draw_confusion(data):
    """Draw the confusion matrices of one head side by side: the share of each true class, and the count.

    Parameters
    ----------
    data : dict
        As `confusion_data` gives it.

    Returns
    -------
    matplotlib.figure.Figure

    Notes
    -----
    The cells are shapes, not an image: a report holds no raster at all, so that a program can check that no picture of
    a patch is in it.
    """
    n = len(data["labels"])
    matrices = data["matrices"]
    side_by_side = next((columns for classes, columns in _SIDE_BY_SIDE if n <= classes), 2)
    n_columns = max(1, min(len(matrices), side_by_side))
    n_rows = max(1, -(-len(matrices) // n_columns))
    cell = 0.78 if n <= 3 else 0.5
    names = 0.55 + 0.075 * max(len(canvas.short(label, _LABEL)) for label in data["labels"])
    turned = n > 3 or names > 1.3
    width = max(cell * n * n_columns + names + 0.35 * n_columns, 4.2)
    titles = [canvas.wrapped(canvas.short(matrix["name"], 80), max(cell * n, 1.5), 9) for matrix in matrices]
    more_lines = max((title.count("\n") for title in titles), default=0)
    height = (cell * n + 0.65 + (0.5 * names if turned else 0.2) + 0.17 * more_lines) * n_rows + 0.5
    figure = canvas.new_figure(width, height)
    grid = canvas.panels(figure, len(matrices), n_columns)
    for position, (axes, matrix) in enumerate(zip(grid, matrices, strict=True)):
        draw_matrix(axes, matrix, data["labels"], first=position % n_columns == 0, turned=turned)
        axes.set_title(titles[position], fontsize=9, color=canvas.INK)
    title = f"Head {canvas.short(data['head'], 40)}, {THRESHOLD_WORDS[data['threshold']]}: {data['data_label']}"
    canvas.put_title(figure, title)
    return figure


def draw_matrix(axes, matrix, labels, *, first, turned):
    """Draw one confusion matrix; `first` has the names of the true classes, `turned` names stand aslant."""
    rates = np.asarray(matrix["rates"])
    n = len(labels)
    edges = np.arange(n + 1) - 0.5
    axes.pcolormesh(edges, edges, rates, cmap=canvas.shares(), vmin=0, vmax=1, edgecolors="white", linewidth=1.0)
    axes.set(aspect="equal", xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    size = 8.5 if n <= 3 else 6.5
    for (row, column), rate in np.ndenumerate(rates):
        count = matrix["counts"][row][column]
        if n > 3 and not count and row != column:
            continue  # among many cells, zeros stay empty
        text = f"{100 * rate:.{1 if n <= 3 else 0}f} %\n{count:,}"
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=canvas.INK)
    names = [canvas.short(label, _LABEL) for label in labels]
    ticks = range(n)
    turn = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if turned else {}
    axes.set_xticks(ticks, names, fontsize=8, **turn)
    axes.set_yticks(ticks, names if first else [""] * n, fontsize=8)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("predicted", fontsize=8)
    if first:
        axes.set_ylabel("true", fontsize=8)
