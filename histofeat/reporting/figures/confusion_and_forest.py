"""The figures of an evaluation: confusion matrices, and every model with its interval and its folds."""

import numpy as np

from histofeat.reporting.figures.canvas import GRID, INK, line_of, new_figure, plain_axes, short, with_interval, wrapped

__all__ = ["draw_confusion", "draw_forest"]

_LABEL = 20


#: Panels of confusion matrices side by side, by the number of classes.
_SIDE_BY_SIDE = ((2, 4), (3, 3), (5, 2))


def draw_confusion(data):
    """Confusion matrices of one head side by side: the share of each true class, and the count.

    Parameters
    ----------
    data : dict
        As `histofeat.reporting.confusion_data` gives it.

    Returns
    -------
    matplotlib.figure.Figure

    Notes
    -----
    The cells are shapes and not an image: a report holds no raster at all, so that a picture of a patch in it would be
    seen by a program.
    """
    n = len(data["labels"])
    matrices = data["matrices"]
    side_by_side = next((columns for classes, columns in _SIDE_BY_SIDE if n <= classes), 2)
    n_columns = max(1, min(len(matrices), side_by_side))
    n_rows = max(1, -(-len(matrices) // n_columns))
    cell = 0.78 if n <= 3 else 0.5
    names = 0.55 + 0.075 * max(len(short(label, _LABEL)) for label in data["labels"])
    turned = n > 3 or names > 1.3
    width = max(cell * n * n_columns + names + 0.35 * n_columns, 4.2)
    titles = [wrapped(short(matrix["name"], 80), max(cell * n, 1.5), 9) for matrix in matrices]
    more_lines = max((title.count("\n") for title in titles), default=0)
    height = (cell * n + 0.65 + (0.5 * names if turned else 0.2) + 0.17 * more_lines) * n_rows + 0.5
    figure = new_figure(width, height)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in grid.flat[len(matrices) :]:
        axes.set_visible(False)
    for position, (axes, matrix) in enumerate(zip(grid.flat, matrices, strict=False)):
        _confusion_panel(axes, matrix, data["labels"], first=position % n_columns == 0, turned=turned)
        axes.set_title(titles[position], fontsize=9, color=INK)
    title = f"Head {short(data['head'], 40)}, {_threshold_words(data)}: {data['data_label']}"
    figure.suptitle(wrapped(title, width), fontsize=10, color=INK)
    return figure


def _threshold_words(data):
    words = {"0.5": "labels at 0.5", "tuned": "labels at the tuned threshold", "argmax": "most probable class"}
    return words[data["threshold"]]


def _confusion_panel(axes, matrix, labels, *, first, turned):
    rates = np.asarray(matrix["rates"])
    n = len(labels)
    edges = np.arange(n + 1) - 0.5
    axes.pcolormesh(edges, edges, rates, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=1.0)
    axes.set(aspect="equal", xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    size = 8.5 if n <= 3 else 6.5
    for (row, column), rate in np.ndenumerate(rates):
        count = matrix["counts"][row][column]
        if n > 3 and not count and row != column:
            continue  # of many cells, those that say nothing stay empty
        text = f"{100 * rate:.{1 if n <= 3 else 0}f} %\n{count:,}"
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color="white" if rate > 0.55 else INK)
    names = [short(label, _LABEL) for label in labels]
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
    figure.suptitle(wrapped(data["data_label"], 8.0), fontsize=10, color=INK)
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
        with_interval(row["pooled"], row["ci95"]),
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
