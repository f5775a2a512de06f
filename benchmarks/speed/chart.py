"""A bar chart of how many times faster than its peer each thing is, with the targets."""

from math import ceil, exp, floor, log, log10

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

__all__ = ["draw"]

_STYLE = {"svg.fonttype": "path", "svg.hashsalt": "histofeat", "font.size": 9.0}
# Okabe and Ito's palette, told apart by colour-blind readers; doi:10.1038/nmeth.1618
_COLORS = {True: "#009E73", False: "#D55E00", None: "#0072B2"}
_MARK = "#222222"
#: Points between a bar or a mark and the number beside it.
_GAP = 4
_WORDS = {True: "target reached", False: "target missed", None: "no target"}


def draw(payload, path) -> None:
    """Draw the rows with a ratio of peer to ours; the numbers are those of speed.json, which lies beside it."""
    rows = [row for row in payload["rows"] if row["ratio"] is not None and row["ratio_of"] == _faster(row)]
    with rc_context(_STYLE):
        figure = Figure(figsize=(8, 1.4 + 0.32 * max(1, len(rows))), layout="constrained")
        (FigureCanvasSVG if path.suffix == ".svg" else FigureCanvasAgg)(figure)
        axes = figure.subplots()
        if rows:
            _bars(axes, rows)
        else:
            axes.text(0.5, 0.5, "this run compared nothing with a peer", ha="center", transform=axes.transAxes)
            axes.set_axis_off()
        title = "a quick run, which says nothing" if payload["quick"] else payload["machine"]["cpu"]
        figure.suptitle(f"Times faster than the peer ({title}, {payload['machine']['cores']} cores)", fontsize=10)
        metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(path, dpi=150, facecolor="white", metadata=metadata)


def _faster(row) -> str:
    """The ratio that says how many times faster ours is: of seconds, or of things per second."""
    return "ours / peer" if row["unit"].endswith("/s") else "peer / ours"


def _bars(axes, rows) -> None:
    places = range(len(rows))
    axes.set_xscale("log")
    axes.barh(places, [row["ratio"] for row in rows], color=[_COLORS[row["met"]] for row in rows], height=0.7)
    axes.set_yticks(places, [row["name"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.axvline(1, color="#888888", linewidth=0.8)
    for place, row in zip(places, rows, strict=True):
        if (limit := _mark(row)) is not None:
            axes.plot([limit] * 2, [place - 0.42, place + 0.42], color=_MARK, linewidth=2)
    for met in dict.fromkeys(row["met"] for row in rows):
        axes.barh([0], [0], color=_COLORS[met], label=_WORDS[met])
    if any(_mark(row) is not None for row in rows):
        axes.plot([], [], color=_MARK, linewidth=2, label="target")
    axes.figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _write_numbers(axes, rows)


def _write_numbers(axes, rows) -> None:
    """Each number right of its bar, or right of the line at 1 or the mark of the target where it would lie under it."""
    shared = {"xytext": (_GAP, 0), "textcoords": "offset points", "va": "center"}
    texts = [axes.annotate(_number(row), (row["ratio"], place), **shared) for place, row in enumerate(rows)]
    for text in texts:
        text.set_in_layout(False)  # the axis is made long enough for them instead
    axes.figure.draw_without_rendering()
    point = axes.figure.dpi / 72
    widths = [(text.get_window_extent().width + 2 * _GAP * point) / axes.bbox.width for text in texts]
    _scale(axes, rows, widths)
    for text, row in zip(texts, rows, strict=True):
        for line in sorted({1.0, _mark(row) or 1.0}):
            box, at = text.get_window_extent(), axes.transData.transform((line, text.xy[1]))[0]
            if line > row["ratio"] and at < box.x1 + _GAP * point:
                text.xy = (line, text.xy[1])


def _scale(axes, rows, widths) -> None:
    """Plain numbers at 1, 2, 5, 10 and so on, and an axis so long that right of each bar and mark a text fits.

    A text takes its share `widths` of the axis however far that reaches: right of ``end`` it fits if
    ``log(end / low) <= (1 - width) log(high / low)``.
    """
    low = 0.8 * min(1.0, *(row["ratio"] for row in rows))
    ends = [max(1.0, row["ratio"], _mark(row) or 1.0) for row in rows]
    # No text gets more of the axis than this: the bars need the rest.
    shares = [min(width, 0.7) for width in widths]
    high = low * exp(max(log(end / low) / (1 - share) for end, share in zip(ends, shares, strict=True)))
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
    high = max(high, min(tick for tick in ticks if tick >= max(ends)))  # every bar lies between two numbers
    axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    axes.xaxis.set_major_formatter("{x:,.10g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(low, high)


def _mark(row) -> float | None:
    """Where the target lies on the axis; None where there is none, or where it is of something else than the ratio."""
    target = row["target"]
    return target["limit"] if target is not None and target["of"] == "ratio" else None


def _number(row) -> str:
    """The ratio; with it a target that has no place on the axis, and what was judged by it."""
    text, target = f"{row['ratio']:.3g}", row["target"]
    if target is None or target["of"] == "ratio":
        return text
    value = row["ours"] if target["of"] == "ours" else row["ours"] - row["peer"]
    return f"{text}   (target: {target['words']} {target['limit']:,g} {row['unit']}; {target['of']}: {value:,.4g})"
