"""The canvas of every figure, in one style and as SVG, and the figures of any study: lines, intervals, costs."""

import json
import textwrap
import unicodedata
import warnings
from collections.abc import Mapping
from typing import Any

from histofeat.images import use_own_folder

# Okabe and Ito's palette, which colour-blind readers can distinguish; doi:10.1038/nmeth.1618
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444", "#8C6D31")
_DASHES = ("-", "--", "-.", ":")
INK = "#222222"
_GRID = "#D9D9D9"
#: Most panels side by side.
_COLUMNS = 3
#: Size of the letters in legends, and how they look inside a panel.
_LEGEND = 8
LEGEND = {"fontsize": _LEGEND, "title_fontsize": _LEGEND, "framealpha": 0.8}
#: Classes of letters that are written from the right, or that combine with others.
_SHAPED = ("R", "AL", "NSM")
_STYLE = {
    "svg.hashsalt": "histofeat",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.unicode_minus": False,
    "text.parse_math": False,
}


def save_figure(draw, data, path):
    """Draw `data` and write it to the SVG file `path`; the user's matplotlib settings do not matter and stay.

    Parameters
    ----------
    draw : callable
        One of the ``draw_*`` functions: takes data, returns a matplotlib Figure.
    data : dict
        Plain values, as the ``*_data`` functions return them.
    path : pathlib.Path

    Notes
    -----
    Letters are drawn as outlines of DejaVu Sans, which comes with matplotlib. Where a text has a letter that this font
    lacks, or whose form depends on its neighbours as in Arabic, the figure holds text, which the program that shows it
    draws with a font of its own: the file is the same on each machine, and no letter is a box.
    """
    use_own_folder("MPLCONFIGDIR", "~/.config/matplotlib")
    from matplotlib import style

    kind = "path" if _has_outlines(json.dumps(data, ensure_ascii=False)) else "none"
    with style.context(["default", {**_STYLE, "svg.fonttype": kind}]), warnings.catch_warnings():
        # The canvas measures with boxes what it writes as text.
        warnings.filterwarnings("ignore", "Glyph|Matplotlib currently does not support", UserWarning)
        figure = draw(data)
        figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})


def _has_outlines(text):
    """Return whether DejaVu Sans has a form for each letter of a text that stands by itself."""
    from matplotlib import font_manager

    known = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()
    return all(ord(letter) in known and unicodedata.bidirectional(letter) not in _SHAPED for letter in set(text))


def new_figure(width, height):
    """Make an empty matplotlib Figure of this size in inches, with a canvas of its own."""
    use_own_folder("MPLCONFIGDIR", "~/.config/matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panels(figure, n, n_columns, **options):
    """Return `n` axes in a grid of `n_columns`, row by row; places that are left over are hidden."""
    grid = figure.subplots(max(1, -(-n // n_columns)), n_columns, squeeze=False, **options)
    for axes in grid.flat[n:]:
        axes.set_visible(False)
    return list(grid.flat[:n])


def frame(axes, grid="both"):
    """Draw a light grid behind the data, along both axes or one, and no frame at the sides that carry no scale."""
    axes.grid(axis=grid, color=_GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#888888")
    axes.tick_params(color="#888888", labelcolor=INK)


def list_rows(axes, names, **options):
    """Make the vertical axis a list of names, the first on top."""
    axes.set_yticks(range(len(names)), names, **options)
    axes.set_ylim(max(len(names), 1) - 0.4, -0.6)
    frame(axes, "x")
    axes.tick_params(axis="y", length=0)


def draw_estimate(axes, value, ends, position, color, *, marker="o", hollow=False):
    """Draw a value as a dot in its row, on its interval; nothing where it is undefined."""
    if value is None:
        return
    if None not in ends:
        axes.plot(ends, [position] * 2, color=color, linewidth=1.1 if hollow else 2.2, solid_capstyle="butt")
    face, edge, size = ("white", color, 4.5) if hollow else (color, "white", 5.5)
    style = {"markersize": size, "markerfacecolor": face, "markeredgecolor": edge}
    axes.plot([value], [position], marker=marker, linestyle="", **style)


def put_title(figure, text):
    """Write a title over all panels, in as many lines as it needs."""
    figure.suptitle(wrapped(text, figure.get_figwidth()), fontsize=10, color=INK)


def short(text, width=24):
    """Return `text` cut to the room in a figure; the JSON file beside the figure has all of it."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def wrapped(text, width, font_size=10):
    """Return `text` in lines that fit a figure of `width` inches.

    Examples
    --------
    >>> wrapped("ROC, head xgboost: SYNTHETIC cohort", 2)
    'ROC, head xgboost:\\nSYNTHETIC cohort'
    """
    return "\n".join(textwrap.wrap(text, _letters(width, font_size))) or text


def _letters(width, font_size):
    """Return how many letters of the figure's font fit into `width` inches, on average and with a margin."""
    return max(12, int(width * 118 / font_size))


def handle(**style):
    """Return a line for a legend: it is in no panel."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **style)


def legend_below(figure, entries, title=None):
    """Put one legend below all panels, in as many columns as its longest name allows; no name is cut.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    entries : sequence of (artist, str)
        What is named, and its name; one longer than the figure is wide is broken into lines. Without entries there is
        no legend.
    title : str, optional
    """
    if not entries:
        return
    room = figure.get_figwidth() - 0.8
    names = [wrapped(name, room, _LEGEND) for _, name in entries]
    longest = max(len(line) for name in names for line in name.splitlines())
    # Five letters are the line in front of a name and the gap behind it.
    n_columns = max(1, min(len(names), 4, _letters(room, _LEGEND) // (longest + 5)))
    sizes = {"fontsize": _LEGEND, "title_fontsize": _LEGEND}
    handles = [handle for handle, _ in entries]
    figure.legend(handles, names, loc="outside lower center", ncols=n_columns, frameon=False, title=title, **sizes)


def line_of(position):
    """Return colour and dashes of the line at this position; dashes distinguish lines where colours repeat."""
    return _COLORS[position % len(_COLORS)], _DASHES[(position // len(_COLORS)) % len(_DASHES)]


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
    figure = new_figure(width, height * -(-len(shown) // n_columns) + 0.4)
    # A name has one colour in all panels, and one entry in the legend below them.
    names = list(dict.fromkeys(line["name"] for panel in shown for line in panel["lines"]))
    handles = {}
    grid = panels(figure, len(shown), n_columns, sharey=True)
    for position, (axes, panel) in enumerate(zip(grid, shown, strict=True)):
        draw_line_panel(axes, panel, data, names)
        handles |= {line.get_label(): line for line in axes.get_lines()}
        if position % n_columns == 0:
            axes.set_ylabel(data["y_label"])
    legend_below(figure, [(handles[name], name) for name in names])
    put_title(figure, data["title"])
    return figure


def draw_line_panel(axes, panel, data, names):
    """Draw the lines of one panel of `draw_lines`; `names` gives the order of the colours."""
    if data.get("diagonal"):
        axes.plot([0, 1], [0, 1], color="#AAAAAA", linewidth=0.8, linestyle=(0, (4, 4)))
    for line in panel["lines"]:
        color, dashes = line_of(names.index(line["name"]))
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
    axes.set_title(short(panel["title"], 40), fontsize=9, color=INK)
    axes.set_xlabel(panel.get("x_label", data["x_label"]))
    frame(axes)


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
    figure = new_figure(7.2, 1.3 + 0.28 * max(len(rows), 1))
    axes = figure.subplots()
    if data.get("reference") is not None:
        axes.axvline(data["reference"], color="#888888", linewidth=0.8, linestyle=(0, (4, 4)))
    for position, row in enumerate(rows):
        color = line_of(groups.index(row.get("group")))[0]
        draw_estimate(axes, row["value"], (row["low"], row["high"]), position, color)
    list_rows(axes, [short(row["name"], 44) for row in rows])
    axes.set_xlabel(data["x_label"])
    named = [group for group in groups if group is not None]
    if len(named) > 1:
        colors = [line_of(groups.index(group))[0] for group in named]
        entries = [(handle(color=color, linewidth=2.2), group) for color, group in zip(colors, named, strict=True)]
        legend_below(figure, entries)
    put_title(figure, data["title"])
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
    figure = new_figure(8.4, 5.0)
    axes = figure.subplots()
    points = sorted(data["points"], key=lambda point: point["x"])
    front = [point for point in points if point["on_front"]]
    axes.plot([p["x"] for p in front], [p["y"] for p in front], color=line_of(0)[0], linewidth=1.2,
              drawstyle="steps-post", label="nothing is as good for less")  # fmt: skip
    for number, point in enumerate(points, start=1):
        color = line_of(0)[0] if point["on_front"] else "#777777"
        if point["low"] is not None:
            axes.plot([point["x"]] * 2, [point["low"], point["high"]], color=color, linewidth=0.8, alpha=0.5)
        axes.plot([point["x"]], [point["y"]], marker="o", markersize=5, color=color, markeredgecolor="white",
                  linestyle="", label=f"{number}  {short(point['name'], 30)}")  # fmt: skip
        # Neighbours in time take turns with their numbers, right and left.
        side = 1 if number % 2 else -1
        axes.annotate(str(number), (point["x"], point["y"]), xytext=(6 * side, 0), textcoords="offset points",
                      fontsize=8, color=INK, ha="right" if side < 0 else "left", va="center")  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(min(p["x"] for p in points) * 0.8, max(p["x"] for p in points) * 1.25)
    axes.set_xlabel(data["x_label"])
    axes.set_ylabel(data["y_label"])
    frame(axes)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    figure.suptitle(short(data["title"], 100), fontsize=10, color=INK)
    return figure
