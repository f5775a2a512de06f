"""ROC-AUC against time: a point for each set of families, and a line through those that nothing beats."""

__all__ = ["draw_costs"]


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
    from histofeat.reporting import GRID, INK, line_of, new_figure, plain_axes, short

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
    axes.grid(color=GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    plain_axes(axes)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    figure.suptitle(short(data["title"], 100), fontsize=10, color=INK)
    return figure
