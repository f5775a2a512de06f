"""A bar chart of how many times faster than its peer each thing is, with the targets."""

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

__all__ = ["draw"]

_STYLE = {"svg.fonttype": "path", "svg.hashsalt": "histofeat", "font.size": 9.0}
# Okabe and Ito's palette, told apart by colour-blind readers; doi:10.1038/nmeth.1618
_COLORS = {True: "#009E73", False: "#D55E00", None: "#0072B2"}
_WORDS = {True: "target reached", False: "target missed", None: "no target"}


def draw(payload, path) -> None:
    """Draw the rows with a ratio of peer to ours; the numbers are those of speed.json, which lies beside it."""
    rows = [row for row in payload["rows"] if row["ratio"] is not None and row["ratio_of"] == "peer / ours"]
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


def _bars(axes, rows) -> None:
    places = range(len(rows))
    ratios = [row["ratio"] for row in rows]
    axes.barh(places, ratios, color=[_COLORS[row["met"]] for row in rows], height=0.7)
    axes.set_yticks(places, [row["name"] for row in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(min(1.0, *ratios) * 0.8, max(ratios) * 2)
    axes.axvline(1, color="#888888", linewidth=0.8)
    for place, row in zip(places, rows, strict=True):
        axes.text(row["ratio"] * 1.04, place, f"{row['ratio']:.3g}", va="center")
        if row["target"] is not None and row["target"]["of"] == "ratio":
            axes.plot([row["target"]["limit"]] * 2, [place - 0.42, place + 0.42], color="#222222", linewidth=2)
    for met in dict.fromkeys(row["met"] for row in rows):
        axes.barh([0], [0], color=_COLORS[met], label=_WORDS[met])
    axes.plot([], [], color="#222222", linewidth=2, label="target")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4, frameon=False, fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
