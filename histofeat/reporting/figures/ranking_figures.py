"""ROC and precision-recall figures: all models of a head on one axis, and one panel a model with its band."""

from histofeat.reporting.figures.canvas import (
    GRID,
    INK,
    legend_below,
    line_of,
    new_figure,
    plain_axes,
    short,
    with_interval,
    wrapped,
)
from histofeat.reporting.figures.ranking_curves import AREA_METRICS

__all__ = ["MOST_BANDS", "draw_ranking", "draw_ranking_bands"]

#: More bands than these on one axis hide each other.
MOST_BANDS = 2
_AXES = {
    "roc": ("fpr", "tpr", "false positive rate (1 - specificity)", "true positive rate (sensitivity)"),
    "pr": ("recall", "precision", "recall (sensitivity)", "precision"),
}
#: Room for the words of the legend beside the only panel, in inches.
_BESIDE = 2.8
_SHORT = {"roc": "AUC", "pr": "AP"}
_NAMES = {"roc": "ROC", "pr": "Precision and recall"}


def draw_ranking(data):
    """Curves of one head: one axis with two classes; with more one for their mean, and one for each class.

    Parameters
    ----------
    data : dict
        As `histofeat.reporting.figures.ranking_curves.ranking_data` gives it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    kind, panels = data["figure"], data["panels"]
    single = len(panels) == 1
    n_columns = min(len(panels), 3)
    n_rows = -(-len(panels) // n_columns)
    width, height = (8.8, 5.0) if single else (3.5 * n_columns, 3.7 * n_rows + 0.6)
    figure = new_figure(width, height)
    if single:
        # The second place holds the legend: inside the first it would hide curves.
        grid = figure.subplots(1, 2, squeeze=False, width_ratios=[1.25, 1])
        grid[0, 1].set_axis_off()
    else:
        grid = figure.subplots(n_rows, n_columns, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
    names = list(dict.fromkeys(curve["name"] for panel in panels for curve in panel["curves"]))
    for position, (axes, panel) in enumerate(zip(grid.flat, panels, strict=False)):
        _frame(axes, kind, panel["share"], first=position % n_columns == 0, last=position + n_columns >= len(panels))
        for curve in panel["curves"]:
            banded = len(names) <= MOST_BANDS
            _draw_curve(axes, kind, curve, line_of(names.index(curve["name"])), data["grid"] if banded else None)
        if not single:
            axes.set_title(_panel_title(panel), fontsize=9, color=INK)
            _areas_inside(axes, kind, panel)
    _legend(figure, kind, panels[0], names, beside=grid[0, 1] if single else None)
    head = f"{_NAMES[kind]}, head {short(data['head'], 40)}: {data['data_label']}"
    figure.suptitle(wrapped(head, width), fontsize=10, color=INK)
    return figure


def _panel_title(panel):
    if panel["positive"] is None:
        return "mean over the classes"
    return f"{short(panel['positive'], 28)} against the rest"


def _frame(axes, kind, share, *, first=True, last=True):
    """Limits, names and what chance gives."""
    chance = ([0, 1], [0, 1]) if kind == "roc" else ([0, 1], [share, share])
    if share is not None or kind == "roc":
        axes.plot(*chance, color="#AAAAAA", linewidth=0.8, linestyle=(0, (4, 4)))
    axes.set(xlim=(-0.005, 1.005), ylim=(-0.005, 1.005), aspect="equal")
    _, _, x_label, y_label = _AXES[kind]
    if last:
        axes.set_xlabel(x_label)
    if first:
        axes.set_ylabel(y_label)
    axes.grid(color=GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    plain_axes(axes)


def _draw_curve(axes, kind, curve, style, grid=None):
    color, dashes = style
    x, y, *_ = _AXES[kind]
    # Precision is a step function of the threshold; lines between its points would promise what no threshold gives.
    steps = "steps-pre" if kind == "pr" else "default"
    if grid is not None and curve["low"] is not None:
        axes.fill_between(grid, curve["low"], curve["high"], color=color, alpha=0.15, linewidth=0)
    axes.plot(curve[x], curve[y], color=color, linestyle=dashes, linewidth=1.4, drawstyle=steps, label=curve["name"])


def _areas_inside(axes, kind, panel):
    """Areas of a few curves in the panel itself; those of many are in the file beside the figure."""
    if not 1 <= len(panel["curves"]) <= 3:
        return
    lines = [line for line in axes.get_lines() if not line.get_label().startswith("_")]
    texts = [with_interval(curve[AREA_METRICS[kind]], curve["ci95"]) for curve in panel["curves"]]
    place = "lower right" if kind == "roc" else "best"
    axes.legend(lines, texts, loc=place, fontsize=7, title=_SHORT[kind], title_fontsize=7, framealpha=0.8)


def _legend(figure, kind, panel, names, *, beside):
    """Name every curve with its area: in the place `beside` the only panel, or below all of them."""
    areas = {curve["name"]: with_interval(curve[AREA_METRICS[kind]], curve["ci95"]) for curve in panel["curves"]}
    texts = [f"{name}  {areas.get(name, '')}".rstrip() for name in names]
    if not texts:
        return
    lines = [_handle(line_of(position)) for position in range(len(names))]
    if beside is not None:
        texts = [wrapped(text, _BESIDE, 8) for text in texts]
        heading = f"{_SHORT[kind]} [95 % interval]\n{wrapped('positive: ' + panel['positive'], _BESIDE, 8)}"
        words = {"title": heading, "title_fontsize": 8, "alignment": "left"}
        beside.legend(lines, texts, loc="upper left", borderaxespad=0, fontsize=8, frameon=False, **words)
    else:
        legend_below(figure, lines, texts, title=f"{_SHORT[kind]}, mean over the classes [95 % interval]")


def _handle(style):
    from matplotlib.lines import Line2D

    return Line2D([], [], color=style[0], linestyle=style[1], linewidth=1.6)


def draw_ranking_bands(data):
    """One panel a model: its curve and band in colour, the other models in grey.

    Parameters
    ----------
    data : dict
        As `histofeat.reporting.figures.ranking_curves.band_panels_data` gives it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    kind, curves = data["figure"].removesuffix("_bands"), data["curves"]
    n_columns = min(max(len(curves), 1), 3)
    n_rows = max(1, -(-len(curves) // n_columns))
    width = 3.5 * n_columns
    figure = new_figure(width, 3.75 * n_rows + 0.5)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for position, axes in enumerate(grid.flat):
        axes.set_visible(position < len(curves))
    x, y, *_ = _AXES[kind]
    for position, (axes, curve) in enumerate(zip(grid.flat, curves, strict=False)):
        _frame(axes, kind, data["share"], first=position % n_columns == 0, last=position + n_columns >= len(curves))
        for other in curves:
            if other is not curve:
                axes.plot(other[x], other[y], color="#BBBBBB", linewidth=0.7)
        _draw_curve(axes, kind, curve, (line_of(position)[0], "-"), data["grid"])
        area = with_interval(curve[AREA_METRICS[kind]], curve["ci95"])
        axes.set_title(f"{short(curve['name'], 36)}\n{_SHORT[kind]} {area}", fontsize=9, color=INK)
    positive = "mean over the classes" if data["positive"] is None else f"positive: {data['positive']}"
    title = f"{_NAMES[kind]} with 95 % bands, head {short(data['head'], 40)}, {positive}: {data['data_label']}"
    figure.suptitle(wrapped(title, width), fontsize=10, color=INK)
    return figure
