"""The figures of an evaluation: ROC curves, confusion matrices, and every model with its interval."""

import numpy as np

from histofeat.reporting.canvas import GRID, INK, line_of, new_figure, plain_axes, short

__all__ = ["draw_confusion", "draw_forest", "draw_roc"]


def _interval(value, ci95):
    if value is None:
        return "undefined"
    if not ci95 or None in ci95:
        return f"{value:.3f}"
    return f"{value:.3f} [{ci95[0]:.3f}, {ci95[1]:.3f}]"


def draw_roc(data):
    """ROC curves of one head: one axis with two classes, one axis per class with more."""
    panels = data["panels"]
    n_columns = min(len(panels), 3)
    n_rows = -(-len(panels) // n_columns)
    size = 5.6 if len(panels) == 1 else 3.6
    figure = new_figure(size * n_columns, size * n_rows + 0.1)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _roc_panel(axes, panel, small=len(panels) > 1)
    figure.suptitle(f"ROC, head {short(data['head'])}: {short(data['data_label'], 80)}", fontsize=10, color=INK)
    return figure


def _roc_panel(axes, panel, *, small):
    axes.plot([0, 1], [0, 1], color="#AAAAAA", linewidth=0.8, linestyle=(0, (4, 4)))
    for position, curve in enumerate(panel["curves"]):
        color, dashes = line_of(position)
        text = f"{short(curve['name'])}  {_interval(curve['roc_auc'], curve['ci95'])}"
        axes.plot(curve["fpr"], curve["tpr"], color=color, linestyle=dashes, linewidth=1.5, label=text)
    axes.set(xlim=(-0.005, 1.005), ylim=(-0.005, 1.005), aspect="equal")
    axes.set_xlabel("false positive rate (1 - specificity)")
    axes.set_ylabel("true positive rate (sensitivity)")
    axes.grid(color=GRID, linewidth=0.5)
    plain_axes(axes)
    if small:
        axes.set_title(f"{short(panel['positive'])} against the rest", fontsize=9)
    if panel["curves"]:
        heading = "AUC" if small else f"AUC [95 % interval], positive: {short(panel['positive'])}"
        axes.legend(loc="lower right", fontsize=7 if small else 8, title=heading, title_fontsize=7 if small else 8)


def draw_confusion(data):
    """Confusion matrices of one head side by side: the share of each true class, and the count."""
    n = len(data["labels"])
    matrices = data["matrices"]
    n_columns = max(1, min(len(matrices), 3 if n <= 3 else 2))
    n_rows = max(1, -(-len(matrices) // n_columns))
    side = 1.5 + 0.62 * n
    figure = new_figure(side * n_columns + 0.4, (side - 0.2) * n_rows + 0.4)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in grid.flat[len(matrices) :]:
        axes.set_visible(False)
    for position, (axes, matrix) in enumerate(zip(grid.flat, matrices, strict=False)):
        _confusion_panel(axes, matrix, data["labels"], first=position % n_columns == 0)
    figure.suptitle(
        f"Head {short(data['head'])}, {_threshold_words(data)}: {short(data['data_label'], 80)}",
        fontsize=10,
        color=INK,
    )
    return figure


def _threshold_words(data):
    words = {"0.5": "labels at 0.5", "tuned": "labels at the tuned threshold", "argmax": "most probable class"}
    return words[data["threshold"]]


def _confusion_panel(axes, matrix, labels, *, first):
    rates = np.asarray(matrix["rates"])
    labels = [short(label, 16) for label in labels]
    axes.imshow(rates, cmap="Blues", vmin=0, vmax=1)
    for (row, column), rate in np.ndenumerate(rates):
        text = f"{100 * rate:.1f} %\n{matrix['counts'][row][column]:,}"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if rate > 0.55 else INK)
    ticks = range(len(labels))
    long = len(labels) > 3 or max(map(len, labels)) > 10
    axes.set_xticks(ticks, labels, rotation=45 if long else 0, ha="right" if long else "center", fontsize=8)
    axes.set_yticks(ticks, labels if first else [""] * len(labels), fontsize=8)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(short(matrix["name"]), fontsize=9, color=INK)
    axes.set_xlabel("predicted", fontsize=8)
    if first:
        axes.set_ylabel("true", fontsize=8)


def draw_forest(data):
    """Pooled value with its interval, and the folds as small ticks, one line per model; heads by colour."""
    rows = data["rows"]
    heads = list(dict.fromkeys(row["head"] for row in rows))
    figure = new_figure(8.0, 1.3 + 0.3 * max(len(rows), 1))
    axes = figure.subplots()
    sets = list(dict.fromkeys(row["name"] for row in rows))
    for position, row in enumerate(rows):
        if sets.index(row["name"]) % 2:
            axes.axhspan(position - 0.5, position + 0.5, color="#F3F5F8", linewidth=0, zorder=0)
        _forest_row(axes, row, position, line_of(heads.index(row["head"]))[0])
    names = [f"{short(row['name'])}, {short(row['head'])}" for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    axes.set_xlim(*_forest_limits(rows))
    axes.grid(axis="x", color=GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    plain_axes(axes)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("ROC-AUC, pooled out of fold, with 95 % interval (patients resampled); ticks: single folds")
    figure.suptitle(short(data["data_label"], 80), fontsize=10, color=INK)
    return figure


def _forest_row(axes, row, position, color):
    if row["pooled"] is None:
        return
    low, high = (row["pooled"] if end is None else end for end in row["ci95"])
    folds = [value for value in row["folds"] if value is not None]
    axes.plot(folds, [position + 0.27] * len(folds), linestyle="", marker="|", markersize=4, color=color, alpha=0.6)
    axes.plot([low, high], [position] * 2, color=color, linewidth=2.2, solid_capstyle="butt")
    axes.plot([row["pooled"]], [position], marker="o", markersize=5.5, color=color, markeredgecolor="white")
    # Beside the axis, in a column, so that the numbers can be compared down the page.
    axes.annotate(
        _interval(row["pooled"], row["ci95"]),
        (1.02, position),
        xycoords=("axes fraction", "data"),
        va="center",
        color=INK,
        annotation_clip=False,
    )


def _forest_limits(rows):
    ends = [end for row in rows for end in (*row["ci95"], *row["folds"], row["pooled"]) if end is not None]
    if not ends:
        return 0.0, 1.0
    low, high = min(ends), max(ends)
    margin = max(0.01, 0.05 * (high - low))
    return max(0.0, low - margin), min(1.0, high + margin)
