"""Figures for any study: lines with bands, and values with intervals."""

from collections.abc import Mapping
from typing import Any

from histofeat.reporting import _canvas as canvas

_COLUMNS = 3


def draw_lines(data: Mapping[str, Any]) -> Any:
    """Draw lines over a common axis, in one panel or several side by side.

    Parameters
    ----------
    data : Mapping
        ``title``, ``x_label``, ``y_label``; ``panels``: a list of ``title`` and ``lines``, each line with ``name``,
        ``x``, ``y`` and, for a band around it, ``low`` and ``high``. Optional: ``diagonal`` (bool, a line y = x),
        ``x_log`` (bool), ``y_limits`` (low, high).

    Returns
    -------
    matplotlib.figure.Figure
    """
    shown = data["panels"]
    n_columns = min(len(shown), _COLUMNS)
    width, height = (6.4, 4.4) if len(shown) == 1 else (3.6 * n_columns, 3.1)
    figure = canvas.new_figure(width, height * -(-len(shown) // n_columns) + 0.4)
    # A name has one colour in all panels, and one entry in the legend below them.
    names = list(dict.fromkeys(line["name"] for panel in shown for line in panel["lines"]))
    handles = {}
    grid = canvas.panels(figure, len(shown), n_columns, sharey=True)
    for position, (axes, panel) in enumerate(zip(grid, shown, strict=True)):
        _panel(axes, panel, data, names)
        handles |= {line.get_label(): line for line in axes.get_lines()}
        if position % n_columns == 0:
            axes.set_ylabel(data["y_label"])
    canvas.legend_below(figure, [(handles[name], name) for name in names])
    canvas.put_title(figure, data["title"])
    return figure


def _panel(axes, panel, data, names):
    if data.get("diagonal"):
        axes.plot([0, 1], [0, 1], color="#AAAAAA", linewidth=0.8, linestyle=(0, (4, 4)))
    for line in panel["lines"]:
        color, dashes = canvas.line_of(names.index(line["name"]))
        style = {"color": color, "linestyle": dashes, "linewidth": 1.5, "marker": "o", "markersize": 3}
        axes.plot(line["x"], line["y"], label=line["name"], **style)
        if line.get("low") is not None:
            axes.fill_between(line["x"], line["low"], line["high"], color=color, alpha=0.12, linewidth=0)
    if data.get("x_log"):
        axes.set_xscale("log")
        # At the values themselves: powers of ten would be too few, and are written as mathematics, which is not parsed.
        ticks = sorted({x for line in panel["lines"] for x in line["x"]})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
    if data.get("y_limits"):
        axes.set_ylim(*data["y_limits"])
    axes.set_title(canvas.short(panel["title"], 40), fontsize=9, color=canvas.INK)
    axes.set_xlabel(panel.get("x_label", data["x_label"]))
    canvas.frame(axes)


def draw_intervals(data: Mapping[str, Any]) -> Any:
    """Draw values with their intervals, one row each, and a line where there would be no effect.

    Parameters
    ----------
    data : Mapping
        ``title``, ``x_label``; ``rows``: each ``name``, ``value``, ``low``, ``high`` (None for no interval) and,
        optionally, ``group``, which gives the colour; ``reference``: where to draw the line (None for nowhere).

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows = data["rows"]
    groups = list(dict.fromkeys(row.get("group") for row in rows))
    figure = canvas.new_figure(7.2, 1.3 + 0.28 * max(len(rows), 1))
    axes = figure.subplots()
    if data.get("reference") is not None:
        axes.axvline(data["reference"], color="#888888", linewidth=0.8, linestyle=(0, (4, 4)))
    for position, row in enumerate(rows):
        color = canvas.line_of(groups.index(row.get("group")))[0]
        canvas.draw_estimate(axes, row["value"], (row["low"], row["high"]), position, color)
    canvas.list_rows(axes, [canvas.short(row["name"], 44) for row in rows])
    axes.set_xlabel(data["x_label"])
    named = [group for group in groups if group is not None]
    if len(named) > 1:
        colors = [canvas.line_of(groups.index(group))[0] for group in named]
        entries = [
            (canvas.handle(color=color, linewidth=2.2), group) for color, group in zip(colors, named, strict=True)
        ]
        canvas.legend_below(figure, entries)
    canvas.put_title(figure, data["title"])
    return figure


def draw_costs(data):
    """Draw a point for each set, its interval, and the Pareto front; sets have the numbers of their place in time.

    Parameters
    ----------
    data : Mapping
        ``title``, ``x_label``, ``y_label``; ``points``: each ``name``, ``x``, ``y``, ``low``, ``high``, ``on_front``.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = canvas.new_figure(8.4, 5.0)
    axes = figure.subplots()
    points = sorted(data["points"], key=lambda point: point["x"])
    front = [point for point in points if point["on_front"]]
    axes.plot([p["x"] for p in front], [p["y"] for p in front], color=canvas.line_of(0)[0], linewidth=1.2,
              drawstyle="steps-post", label="nothing is as good for less")  # fmt: skip
    for number, point in enumerate(points, start=1):
        color = canvas.line_of(0)[0] if point["on_front"] else "#777777"
        if point["low"] is not None:
            axes.plot([point["x"]] * 2, [point["low"], point["high"]], color=color, linewidth=0.8, alpha=0.5)
        axes.plot([point["x"]], [point["y"]], marker="o", markersize=5, color=color, markeredgecolor="white",
                  linestyle="", label=f"{number}  {canvas.short(point['name'], 30)}")  # fmt: skip
        # Neighbours in time take turns with their numbers, right and left.
        side = 1 if number % 2 else -1
        axes.annotate(str(number), (point["x"], point["y"]), xytext=(6 * side, 0), textcoords="offset points",
                      fontsize=8, color=canvas.INK, ha="right" if side < 0 else "left", va="center")  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(min(p["x"] for p in points) * 0.8, max(p["x"] for p in points) * 1.25)
    axes.set_xlabel(data["x_label"])
    axes.set_ylabel(data["y_label"])
    canvas.frame(axes)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    figure.suptitle(canvas.short(data["title"], 100), fontsize=10, color=canvas.INK)
    return figure
