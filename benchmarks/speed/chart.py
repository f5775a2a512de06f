"""A bar chart of how many times faster than its peer each thing is, and the canvas of other charts."""

from contextlib import contextmanager

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

_STYLE = {"svg.fonttype": "path", "svg.hashsalt": "histofeat", "font.size": 9.0}
#: Okabe and Ito's palette; doi:10.1038/nmeth.1618
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def draw(payload, path) -> None:
    """Draw the rows with a ratio of peer to ours; the numbers are those of speed.json, which lies beside it."""
    rows = [row for row in payload["rows"] if row["ratio"] is not None and row["ratio_of"] == faster(row)]
    with canvas(path, (8, 1.4 + 0.32 * max(1, len(rows)))) as figure:
        axes = figure.subplots()
        if rows:
            draw_bars(axes, rows)
        else:
            axes.text(0.5, 0.5, "this run compared nothing with a peer", ha="center", transform=axes.transAxes)
            axes.set_axis_off()
        title = "a quick run, which says nothing" if payload["quick"] else payload["machine"]["cpu"]
        figure.suptitle(f"Times faster than the peer ({title}, {payload['machine']['cores']} cores)", fontsize=10)


@contextmanager
def canvas(path, size):
    """Give a figure of that size in inches; it is saved at the end, the same bytes for the same content."""
    with rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        (FigureCanvasSVG if path.suffix == ".svg" else FigureCanvasAgg)(figure)
        yield figure
        metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(path, dpi=150, facecolor="white", metadata=metadata)


def faster(row) -> str:
    """Return the ratio that says how many times faster ours is: of seconds, or of things per second."""
    return "ours / peer" if row["unit"].endswith("/s") else "peer / ours"


def draw_bars(axes, rows) -> None:
    """Draw a bar per row; numbers stand beside the names, where no line crosses them."""
    places = range(len(rows))
    axes.set_xscale("log")
    axes.barh(places, [row["ratio"] for row in rows], color=COLORS[0], height=0.7)
    axes.set_yticks(places, [f"{row['name']}   {row['ratio']:.3g}" for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.axvline(1, color="#888888", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    low, end = min(1, *(row["ratio"] for row in rows)), max(1, *(row["ratio"] for row in rows))
    steps = [step * 10.0**decade for decade in range(-4, 7) for step in (1, 2, 5)]
    high = min(tick for tick in steps if tick >= end)  # every bar lies between two numbers
    axes.set_xlim(0.8 * low, 1.05 * high)
    axes.set_xticks([tick for tick in steps if 0.8 * low <= tick <= high])
    axes.xaxis.set_major_formatter("{x:,.10g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
