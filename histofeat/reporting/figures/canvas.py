"""What every figure is drawn on: matplotlib's object interface, one style, SVG; no pyplot, no display, no state."""

import textwrap
from contextlib import contextmanager

__all__ = [
    "GRID",
    "INK",
    "legend_below",
    "line_of",
    "new_figure",
    "plain_axes",
    "save_figure",
    "short",
    "with_interval",
    "wrapped",
]

# Okabe and Ito's palette, told apart by colour-blind readers; doi:10.1038/nmeth.1618
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444", "#8C6D31")
_DASHES = ("-", "--", "-.", ":")
INK = "#222222"
GRID = "#D9D9D9"
_STYLE = {
    "svg.fonttype": "path",
    "svg.hashsalt": "histofeat",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.unicode_minus": False,
    "text.parse_math": False,
}


@contextmanager
def _house_style():
    """Same figure whatever the reader's matplotlibrc says; the settings are put back afterwards."""
    import matplotlib

    with matplotlib.rc_context():
        kept = {"backend", "backend_fallback", "interactive", "toolbar", "timezone"}
        defaults = matplotlib.rcParamsDefault
        matplotlib.rcParams.update({key: defaults[key] for key in defaults if key not in kept})
        matplotlib.rcParams.update(_STYLE)
        yield


def save_figure(draw, data, path):
    """Draw `data` and write it to the SVG file `path`.

    Parameters
    ----------
    draw : callable
        One of the ``draw_*`` functions here: takes data, returns a matplotlib Figure.
    data : dict
        As the functions of `histofeat.reporting.figures.curves` return it.
    path : pathlib.Path
    """
    with _house_style():
        figure = draw(data)
        figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})


def new_figure(width, height):
    """Make an empty matplotlib Figure of this size in inches, with a canvas of its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axes):
    """Take away the frame that says nothing."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#888888")
    axes.tick_params(color="#888888", labelcolor=INK)


def short(text, width=24):
    """`text` cut to what a figure has room for; the file beside the figure has all of it."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def wrapped(text, width, font_size=10):
    """`text` in lines that fit a figure of `width` inches.

    Examples
    --------
    >>> wrapped("ROC, head xgboost: SYNTHETIC cohort", 2)
    'ROC, head xgboost:\\nSYNTHETIC cohort'
    """
    return "\n".join(textwrap.wrap(text, _letters(width, font_size))) or text


def _letters(width, font_size):
    """How many letters of the figure's font fit into `width` inches, on average and with a margin."""
    return max(12, int(width * 118 / font_size))


def legend_below(figure, handles, names, title=None, font_size=8):
    """Put one legend under all panels: as many columns as its longest name leaves room for, no name cut.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    handles : sequence of matplotlib artists
    names : sequence of str
        A name that is longer than the figure is wide is broken into lines.
    title : str, optional
    font_size : float, default=8
    """
    letters = _letters(figure.get_figwidth() - 0.8, font_size)
    names = [wrapped(name, figure.get_figwidth() - 0.8, font_size) for name in names]
    longest = max((len(line) for name in names for line in name.splitlines()), default=0)
    # Five letters are the line in front of a name and the gap behind it.
    n_columns = max(1, min(len(names), 4, letters // (longest + 5)))
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=n_columns,
        fontsize=font_size,
        frameon=False,
        title=title,
        title_fontsize=font_size,
    )


def with_interval(value, ci95):
    """A value with its interval, the value alone without one, words without a value.

    Examples
    --------
    >>> with_interval(0.91449, [0.9012, 0.9262]), with_interval(0.5, [None, None]), with_interval(None, None)
    ('0.914 [0.901, 0.926]', '0.500', 'undefined')
    """
    if value is None:
        return "undefined"
    if not ci95 or None in ci95:
        return f"{value:.3f}"
    return f"{value:.3f} [{ci95[0]:.3f}, {ci95[1]:.3f}]"


def line_of(position):
    """Colour and dashes of the line at this position, told apart for longer than colours alone."""
    return _COLORS[position % len(_COLORS)], _DASHES[(position // len(_COLORS)) % len(_DASHES)]
