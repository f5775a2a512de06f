"""The canvas of every figure: matplotlib's object interface, one style, SVG; no pyplot, no display, no state."""

import json
import textwrap
import unicodedata
import warnings

from histofeat.images import use_own_folder

# Okabe and Ito's palette, which colour-blind readers can distinguish; doi:10.1038/nmeth.1618
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444", "#8C6D31")
_DASHES = ("-", "--", "-.", ":")
INK = "#222222"
_GRID = "#D9D9D9"
#: Size of the letters in legends.
_LEGEND = 8
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
