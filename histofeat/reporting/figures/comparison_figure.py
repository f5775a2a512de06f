"""One figure over all models: three scores with their intervals, sorted, networks marked as what they are."""

from histofeat.reporting.figures.canvas import GRID, INK, legend_below, line_of, new_figure, plain_axes, short, wrapped
from histofeat.reporting.figures.curves import source_of
from histofeat.reporting.sections.tables import METRIC_WORDS

__all__ = ["comparison_figure_data", "draw_comparison"]

_METRICS = ("roc_auc", "balanced_accuracy", "f1")
_NETWORK = "pixels"


def comparison_figure_data(payload):
    """Scores of every model with their intervals, the highest ROC-AUC first.

    Parameters
    ----------
    payload : dict
        As `metrics_payload` returns it.

    Returns
    -------
    dict
        ``metrics``; ``heads``, in the order of their colours; ``tuned``, whether labels were also decided at a tuned
        threshold; ``rows``, sorted, each with ``name``, ``head``, ``network`` (whether it is a network trained on
        pixels, the reference of the others) and ``scores``: for each metric ``pooled`` and ``ci95``, and ``tuned`` with
        the same at the tuned threshold (None where a threshold has no part in it). Models without an ROC-AUC come
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
    rows.sort(key=lambda row: _descending(row["scores"]["roc_auc"]["pooled"]))
    # In the order of the results, so that a head has the colour that it has in the other figures.
    heads = list(dict.fromkeys(result["head"] for result in payload["results"]))
    source = source_of(payload)
    return {"figure": "comparison", **source, "metrics": list(_METRICS), "tuned": tuned, "heads": heads, "rows": rows}


def _descending(value):
    return 1.0 if value is None else -value


def _scores(result, metric, tuned):
    other = result["tuned"].get(metric) if tuned else None
    return {**_pooled(result[metric]), "tuned": _pooled(other) if isinstance(other, dict) else None}


def _pooled(score):
    return {"pooled": score["pooled"], "ci95": score["ci95"]}


def draw_comparison(data):
    """A panel a metric, a line a model: dot and interval; below it, hollow, the same at the tuned threshold.

    Parameters
    ----------
    data : dict
        As `comparison_figure_data` gives it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows, metrics = data["rows"], data["metrics"]
    heads = data["heads"]
    names = [f"{short(row['name'], 24)}, {short(row['head'], 16)}" for row in rows]
    width, row_height = 9.0, 0.36 if data["tuned"] else 0.28
    figure = new_figure(width, 1.5 + row_height * max(len(rows), 2))
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for number, (axes, metric) in enumerate(zip(panels, metrics, strict=True)):
        for position, row in enumerate(rows):
            if row["network"]:
                axes.axhspan(position - 0.5, position + 0.5, color="#F1EFE6", linewidth=0, zorder=0)
            _row(axes, row["scores"][metric], position, line_of(heads.index(row["head"]))[0], row["network"])
        axes.set_yticks(range(len(rows)), names if number == 0 else [""] * len(rows), fontsize=8)
        axes.set_ylim(max(len(rows), 1) - 0.45, -0.55)
        axes.set_title(_metric_words(data, metric), fontsize=9, color=INK)
        axes.grid(axis="x", color=GRID, linewidth=0.5)
        axes.set_axisbelow(True)
        axes.margins(x=0.06)
        axes.locator_params(axis="x", nbins=5)
        plain_axes(axes)
        axes.tick_params(axis="y", length=0)
    _legend(figure, data, heads)
    title = f"All models, pooled out of fold, 95 % intervals (patients resampled): {data['data_label']}"
    figure.suptitle(wrapped(title, width), fontsize=10, color=INK)
    return figure


def _metric_words(data, metric):
    averaged = not data["tuned"] and metric in ("f1", "roc_auc")
    return f"{METRIC_WORDS[metric]}, mean over classes" if averaged else METRIC_WORDS[metric]


def _row(axes, scores, position, color, network):
    tuned = scores["tuned"]
    shift = 0.15 if tuned else 0.0
    _dot(axes, scores, position - shift, color, "D" if network else "o", hollow=False)
    if tuned:
        _dot(axes, tuned, position + shift, color, "D" if network else "o", hollow=True)


def _dot(axes, score, position, color, marker, *, hollow):
    if score["pooled"] is None:
        return
    low, high = score["ci95"] or (None, None)
    if low is not None and high is not None:
        width = 1.1 if hollow else 2.2
        axes.plot([low, high], [position] * 2, color=color, linewidth=width, solid_capstyle="butt")
    face, edge = ("white", color) if hollow else (color, "white")
    style = {"markersize": 4.5 if hollow else 5.5, "markerfacecolor": face, "markeredgecolor": edge}
    axes.plot([score["pooled"]], [position], marker=marker, linestyle="", **style)


def _legend(figure, data, heads):
    """What colours, shapes and hollow marks mean; nothing that no row shows."""
    from matplotlib.lines import Line2D

    colors = [(Line2D([], [], color=line_of(at)[0], linewidth=2.2), f"head {head}") for at, head in enumerate(heads)]
    entries = colors if len(heads) > 1 else []
    if data["tuned"]:
        entries.append((_mark("o", "#444444"), "labels at 0.5"))
        entries.append((_mark("o", "white"), "labels at the tuned threshold"))
    if any(row["network"] for row in data["rows"]):
        entries.append((_mark("D", "#444444"), "network trained on the pixels: the reference"))
    if entries:
        legend_below(figure, *map(list, zip(*entries, strict=True)))


def _mark(marker, face):
    from matplotlib.lines import Line2D

    return Line2D([], [], marker=marker, linestyle="", markersize=5.5, color="#444444", markerfacecolor=face)
