"""The canvas of every figure, in one style and as SVG, and the figures of any study: lines, intervals, costs."""

import re
import textwrap
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from html import escape
from io import BytesIO
from typing import Any
from xml.etree import ElementTree

from histofeat.images import use_own_folder

# Near the hues of Okabe and Ito, which colour-blind readers can distinguish (doi:10.1038/nmeth.1618), darkened where
# the contrast with white is below 3.
_COLORS = ("#0b38b0", "#b43d21", "#1ba66b", "#c270a9", "#d18100", "#0f94f0", "#4b1d5d", "#5e3939")
_DASHES = ("-", "--", "-.", ":")
INK = "#222222"
_GRID = "#d9d9d9"
#: What colours are on a page, by the names of its variables: "page.css" has their values in light and dark.
_VARIABLES = {
    **{color: f"c{number}" for number, color in enumerate(_COLORS, start=1)},
    **{INK: "ink", "#000000": "ink", "#ffffff": "paper", "#444444": "soft", "#777777": "axis", "#888888": "axis"},
    **{"#aaaaaa": "axis", "#bbbbbb": "faint", _GRID: "line", "#f1efe6": "shade", "#f3f5f8": "shade"},
}
#: Elements and attributes of figures; nothing else gets into a file or a page.
_SHAPES = {"svg", "g", "defs", "clipPath", "path", "rect", "use", "text"}
_ATTRIBUTES = re.compile(
    "xmlns|role|aria-label|id|d|x|y|width|height|viewBox|transform|href|clip-path|opacity|(fill|stroke|font|text)[a-z-]*"
)
#: Most panels side by side.
_COLUMNS = 3
#: Size of the letters in legends, and how they look inside a panel.
_LEGEND = 8
LEGEND = {"fontsize": _LEGEND, "title_fontsize": _LEGEND, "framealpha": 0.8}
STYLE = {
    "svg.hashsalt": "histofeat",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.unicode_minus": False,
    "text.parse_math": False,
    "svg.fonttype": "none",
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
    Words are text, in a font with the widths of DejaVu Sans, which places them, where there is one. The file holds
    shapes and words only, and is the same on each machine.
    """
    content = BytesIO()
    with _own_style():
        draw(data).savefig(content, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(content.getvalue())
    root.attrib |= {"xmlns": root.tag[1:].partition("}")[0], "font-family": "DejaVu Sans, Verdana, sans-serif"}
    root.attrib |= {"stroke-linejoin": "round", "stroke-linecap": "butt"}
    drawn = f'<?xml version="1.0" encoding="utf-8"?>\n{_shape(root, _used(root))}\n'
    path.write_text(drawn, encoding="utf-8", newline="\n")


def save_picture(draw, data, path, words):
    """Draw `data` and write it to the PNG file `path`; letters of its `words` are drawn where a font here has them."""
    with _own_style(words):
        draw(data).savefig(path, format="png", dpi=200, facecolor="white", metadata={"Software": None})


@contextmanager
def _own_style(words=""):
    """Draw in the style of reports, whatever the user's settings, with other fonts where `words` need them."""
    use_own_folder("MPLCONFIGDIR", "~/.config/matplotlib")
    from matplotlib import font_manager, style

    fonts = ["DejaVu Sans", *(font.name for font in font_manager.fontManager.ttflist if not words.isascii())]
    with style.context(["default", {**STYLE, "font.sans-serif": fonts}]), warnings.catch_warnings():
        # Words in an SVG file are text, which the canvas measures with boxes; elsewhere no font may have a letter.
        warnings.filterwarnings("ignore", "Glyph|Matplotlib currently does not support", UserWarning)
        yield


def inline_figure(path, words, prefix):
    """Return an SVG file of `save_figure` as a part of a page: in the colours of the page, its ids with a prefix.

    Parameters
    ----------
    path : pathlib.Path
    words : str
        For those who do not see the figure.
    prefix : str
        Ids begin with it: other figures of the page have the same ids.
    """
    root = ElementTree.parse(path).getroot()
    root.attrib |= {"role": "img", "aria-label": words}
    return _shape(root, _used(root), prefix)


def _used(root):
    """Return the ids that an element of the figure refers to."""
    return set(re.findall(r"#([\w-]+)", " ".join(value for node in root.iter() for value in node.attrib.values())))


def _shape(node, used, prefix=None):
    """Return an element as text without anything but shapes and words; with a prefix, as a part of a page.

    Styles become attributes, which a page with a strict policy may have; numbers keep two digits.
    """
    tag = node.tag.rpartition("}")[2]
    if tag not in _SHAPES:
        return ""
    style = (part.partition(":")[::2] for part in node.get("style", "").split(";") if part)
    found = {name.rpartition("}")[2]: value for name, value in node.attrib.items()}
    found |= {name.strip(): value.strip() for name, value in style if name.strip() != "font-family"}
    attributes = "".join(
        f' {name}="{escape(_value(name, value, prefix))}"'
        for name, value in found.items()
        if _ATTRIBUTES.fullmatch(name) and (name != "id" or value in used) and (name != "href" or value[0] == "#")
    )
    inside = "".join(_shape(child, used, prefix) for child in node)
    if tag == "g" and not attributes:
        return inside
    words = escape(node.text or "", quote=False) if tag == "text" else ""
    return f"<{tag}{attributes}>{words}{inside}</{tag}>" if words or inside else f"<{tag}{attributes}/>"


def _value(name, value, prefix):
    """Return the value of an attribute as a file, or with a prefix a page, has it."""
    if name == "aria-label":
        return value
    value = re.sub(r"\s*([A-Za-z])\s*", r"\1", value) if name == "d" else value
    value = re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), value)
    if prefix and name in ("fill", "stroke"):
        return f"var(--{_VARIABLES[value]})" if value in _VARIABLES else value
    if prefix and (name == "id" or "#" in value):
        return prefix + value if name == "id" else value.replace("#", f"#{prefix}")
    return value


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


def shares():
    """Return a colour map from 0 to 1 on which words can be read, on paper of any colour."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shares", [(_COLORS[0], 0.0), (_COLORS[0], 0.5)])


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
    from matplotlib.ticker import LogLocator

    points = sorted(data["points"], key=lambda point: point["x"])
    figure = new_figure(max(8.4, 0.28 * len(points)), max(5.0, 0.2 * len(points)))
    axes = figure.subplots()
    front = [point for point in points if point["on_front"]]
    axes.plot([p["x"] for p in front], [p["y"] for p in front], color=line_of(0)[0], linewidth=1.2,
              drawstyle="steps-post", label="nothing is as good for less")  # fmt: skip
    for number, point in enumerate(points, start=1):
        color = line_of(0)[0] if point["on_front"] else "#777777"
        if point["low"] is not None:
            axes.plot([point["x"]] * 2, [point["low"], point["high"]], color=color, linewidth=0.8, alpha=0.5)
        axes.plot([point["x"]], [point["y"]], marker="o", markersize=5, color=color, markeredgecolor="white",
                  linestyle="", label=f"{number}  {short(point['name'], 48)}")  # fmt: skip
        # Neighbours in time take turns with their numbers, right and left.
        side = 1 if number % 2 else -1
        axes.annotate(str(number), (point["x"], point["y"]), xytext=(6 * side, 0), textcoords="offset points",
                      fontsize=8, color=INK, ha="right" if side < 0 else "left", va="center")  # fmt: skip
    axes.set_xscale("log")
    # Powers of ten alone would be too few, and what matplotlib writes between them is mathematics, which is not parsed.
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xticks([], minor=True)
    axes.set_xlim(min(p["x"] for p in points) * 0.8, max(p["x"] for p in points) * 1.25)
    axes.set_xlabel(data["x_label"])
    axes.set_ylabel(data["y_label"])
    frame(axes)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    figure.suptitle(short(data["title"], 100), fontsize=10, color=INK)
    return figure
