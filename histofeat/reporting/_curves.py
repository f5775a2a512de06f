"""Curves of probabilities, with bands: ROC and precision-recall, all models of a head or one a panel; reliability."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from histofeat.evaluation import Evaluation
from histofeat.reporting import _canvas as canvas
from histofeat.reporting._payload import data_label, model_key, source_of
from histofeat.reporting._strict_json import jsonable
from histofeat.reporting._text import with_interval

#: The metric that is the area below each kind of curve.
AREA_METRICS = MappingProxyType({"roc": "roc_auc", "pr": "average_precision"})
#: More bands than these on one axis hide each other.
MOST_BANDS = 2
_AXES = {"roc": ("fpr", "tpr"), "pr": ("recall", "precision")}
_LEVEL = 0.95
# Where every class has a panel, fewer points of each curve are enough.
_POINTS, _POINTS_OF_SMALL, _POINTS_BEHIND = 400, 120, 60
_AXIS_WORDS = {
    "roc": ("false positive rate (1 - specificity)", "true positive rate (sensitivity)"),
    "pr": ("recall (sensitivity)", "precision"),
}
#: Room for the words of the legend beside the only panel, in inches.
_BESIDE = 2.8
_SHORT = {"roc": "AUC", "pr": "AP"}
_NAMES = {"roc": "ROC", "pr": "Precision and recall"}


def ranking_data(kind: str, evaluation: Evaluation, payload: Mapping[str, Any], head: str) -> dict[str, Any]:
    """Return ROC or precision-recall curves of all models of one head, on the out-of-fold scores.

    Parameters
    ----------
    kind : {"roc", "pr"}
    evaluation : Evaluation
    payload : dict
        As `metrics_payload` returns it.
    head : str or None
        None for all models, named "name/head".

    Returns
    -------
    dict
        ``grid``, where the bands are known; ``panels``: of two classes one, of the positive class; of more, first the
        mean over the classes (``positive`` None), then each class against the rest. A panel has ``positive``,
        ``share`` (of that class among the tested patches) and ``curves``, each with ``model``, ``name``, the area as
        ``roc_auc`` or ``average_precision`` with its ``ci95``, the points of the curve as ``fpr`` and ``tpr`` or
        ``recall`` and ``precision``, and ``low`` and ``high`` of the band on the grid (None without resamples).
    """
    evaluation = getattr(evaluation, "positive_last", evaluation)
    labels = evaluation.labels
    bands, truth = evaluation.bands, np.asarray(evaluation.dataset.y)[evaluation.tested]
    chosen = [number for number, result in enumerate(payload["results"]) if head in (None, result["head"])]
    panels = []
    panels_of = [1] if len(labels) == 2 else [None, *range(len(labels))]
    for code in panels_of:
        curves = []
        for number in chosen:
            result = scored = payload["results"][number]
            if len(panels_of) > 1 and code is not None:
                scored = jsonable(evaluation.classes[number].to_dicts()[code])
            found = _curve(kind, code, result, scored[AREA_METRICS[kind]], bands[number])
            curves += [found | {"name": found["model"]} if head is None else found] if found else []
        share = None if code is None else float((truth == code).mean())
        panels.append({"positive": None if code is None else labels[code], "share": share, "curves": curves})
    return {
        "figure": kind,
        "head": head,
        **source_of(payload),
        "level": _LEVEL,
        "n_resamples": evaluation.protocol["n_resamples"],
        "n_patients": bands[chosen[0]].n_patients,
        "grid": bands[chosen[0]].grid.round(6).tolist(),
        "panels": panels,
    }


def _curve(kind, code, result, score, bands):
    """Return one model in one panel; None where the class, or the rest, is absent."""
    on_grid = bands.curve(kind, code)
    if not np.isfinite(on_grid).all():
        return None
    x, y = _AXES[kind]
    points = (bands.grid, on_grid) if code is None else bands.points[kind][code]
    if code is not None:
        points = thin_curve(*points, _POINTS if len(result["labels"]) == 2 else _POINTS_OF_SMALL)
    low, high = bands.band(kind, code, _LEVEL)
    banded = bool(np.isfinite(low).all())
    return {
        "model": model_key(result["name"], result["head"]),
        "name": result["name"],
        AREA_METRICS[kind]: score["value"],
        "ci95": score["ci95"],
        x: points[0].round(6).tolist(),
        y: points[1].round(6).tolist(),
        "low": low.round(6).tolist() if banded else None,
        "high": high.round(6).tolist() if banded else None,
    }


def thin_curve(x, y, max_points=400):
    """Return at most `max_points` of the points of a curve whose x ascends, evenly along its length, both ends kept.

    Examples
    --------
    >>> x, y = thin_curve(np.linspace(0, 1, 1000), np.linspace(0, 1, 1000), max_points=5)
    >>> len(x), float(x[0]), float(x[-1])
    (5, 0.0, 1.0)
    """
    if len(x) <= max_points:
        return x, y
    along = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], max_points)).clip(0, len(x) - 1))
    kept[0], kept[-1] = 0, len(x) - 1
    return x[kept], y[kept]


def band_panels_data(data):
    """Return the same curves for one panel per model, so that each band is seen.

    Parameters
    ----------
    data : dict
        As `ranking_data` gives it; its first panel is used.

    Returns
    -------
    dict
        With ``curves`` and ``positive`` of that panel instead of ``panels``.
    """
    first = data["panels"][0]
    kept = {name: value for name, value in data.items() if name != "panels"}
    return {**kept, "figure": f"{data['figure']}_bands", **first}


def draw_ranking(data):
    """Draw the curves of one head: one panel with two classes; with more one for their mean and one for each class.

    Parameters
    ----------
    data : dict
        As `ranking_data` gives it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    kind, shown = data["figure"], data["panels"]
    single = len(shown) == 1
    n_columns = min(len(shown), 3)
    if single:
        # The second place holds the legend: inside the first it would hide curves.
        figure = canvas.new_figure(8.8, 5.0)
        grid = canvas.panels(figure, 2, 2, width_ratios=[1.25, 1])
        grid[1].set_axis_off()
    else:
        figure = canvas.new_figure(3.5 * n_columns, 3.7 * -(-len(shown) // n_columns) + 0.6)
        grid = canvas.panels(figure, len(shown), n_columns)
    names = list(dict.fromkeys(curve["name"] for panel in shown for curve in panel["curves"]))
    for position, (axes, panel) in enumerate(zip(grid, shown, strict=False)):
        sides = {"first": position % n_columns == 0, "last": position + n_columns >= len(shown)}
        draw_panel(axes, data, panel, names, banded=len(names) <= MOST_BANDS, **sides)
        if not single:
            name = panel["positive"] and f"{canvas.short(panel['positive'], 28)} against the rest"
            axes.set_title(name or "mean over the classes", fontsize=9, color=canvas.INK)
    named = next((axes for axes, panel in zip(grid, shown, strict=False) if panel["curves"]), None)
    if named is not None:
        _legend(figure, kind, named, shown[0]["positive"], beside=grid[1] if single else None)
    canvas.put_title(figure, f"{_NAMES[kind]}, head {canvas.short(data['head'], 40)}: {data['data_label']}")
    return figure


def draw_panel(axes, data, panel, names=None, *, banded, **sides):
    """Draw the curves of one panel of `ranking_data` on some axes; `names` gives the order of the colours."""
    names = [curve["name"] for curve in panel["curves"]] if names is None else names
    _frame(axes, data["figure"], panel["share"], **sides)
    for curve in panel["curves"]:
        style = canvas.line_of(names.index(curve["name"]))
        _draw_curve(axes, data["figure"], curve, style, data["grid"] if banded else None)


def _frame(axes, kind, share, *, first=True, last=True):
    """Set limits and names, and draw what chance gives."""
    chance = ([0, 1], [0, 1]) if kind == "roc" else ([0, 1], [share, share])
    if share is not None or kind == "roc":
        axes.plot(*chance, color="#AAAAAA", linewidth=0.8, linestyle=(0, (4, 4)))
    axes.set(xlim=(-0.005, 1.005), ylim=(-0.005, 1.005), aspect="equal")
    x_label, y_label = _AXIS_WORDS[kind]
    if last:
        axes.set_xlabel(x_label)
    if first:
        axes.set_ylabel(y_label)
    canvas.frame(axes)


def _draw_curve(axes, kind, curve, style, grid=None):
    color, dashes = style
    x, y = _AXES[kind]
    # Precision is a step function of the threshold; lines between its points would promise what no threshold gives.
    steps = "steps-pre" if kind == "pr" else "default"
    if grid is not None and curve["low"] is not None:
        axes.fill_between(grid, curve["low"], curve["high"], color=color, alpha=0.15, linewidth=0)
    label = f"{curve['name']}  {with_interval(curve[AREA_METRICS[kind]], curve['ci95'])}"
    axes.plot(curve[x], curve[y], color=color, linestyle=dashes, linewidth=1.4, drawstyle=steps, label=label)


def _legend(figure, kind, named, positive, *, beside):
    """Name the curves of a panel with their areas: in the place `beside` the only panel, or below all of them."""
    lines, texts = named.get_legend_handles_labels()
    if beside is not None:
        texts = [canvas.wrapped(text, _BESIDE, 8) for text in texts]
        heading = f"{_SHORT[kind]} [95 % interval]\n{canvas.wrapped(f'positive: {positive}', _BESIDE, 8)}"
        words = {"title": heading, "title_fontsize": 8, "alignment": "left"}
        beside.legend(lines, texts, loc="upper left", borderaxespad=0, fontsize=8, frameon=False, **words)
    else:
        entries = list(zip(lines, texts, strict=True))
        canvas.legend_below(figure, entries, f"{_SHORT[kind]}, mean over the classes [95 % interval]")


def draw_ranking_bands(data):
    """Draw one panel per model: its curve and band in colour, the other models in grey.

    Parameters
    ----------
    data : dict
        As `band_panels_data` gives it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    kind, curves = data["figure"].removesuffix("_bands"), data["curves"]
    n_columns = min(max(len(curves), 1), 3)
    figure = canvas.new_figure(3.5 * n_columns, 3.75 * max(1, -(-len(curves) // n_columns)) + 0.5)
    x, y = _AXES[kind]
    for position, (axes, curve) in enumerate(zip(canvas.panels(figure, len(curves), n_columns), curves, strict=True)):
        _frame(axes, kind, data["share"], first=position % n_columns == 0, last=position + n_columns >= len(curves))
        for other in curves:
            if other is not curve:
                # They are behind, and as many as the square of the models.
                points = thin_curve(np.asarray(other[x]), np.asarray(other[y]), _POINTS_BEHIND)
                axes.plot(*points, color="#BBBBBB", linewidth=0.7)
        _draw_curve(axes, kind, curve, (canvas.line_of(position)[0], "-"), data["grid"])
        area = with_interval(curve[AREA_METRICS[kind]], curve["ci95"])
        axes.set_title(f"{canvas.short(curve['name'], 36)}\n{_SHORT[kind]} {area}", fontsize=9, color=canvas.INK)
    positive = "mean over the classes" if data["positive"] is None else f"positive: {data['positive']}"
    title = f"{_NAMES[kind]} with 95 % bands, head {canvas.short(data['head'], 40)}, {positive}: {data['data_label']}"
    canvas.put_title(figure, title)
    return figure


def calibration_key(results):
    """Return what the columns of the table of calibration are.

    Parameters
    ----------
    results : list of dict
        Each with "calibration", of which at least one is not None.

    Returns
    -------
    str
    """
    first = next(result["calibration"] for result in results if result.get("calibration"))
    bins = {"quantile": "equally many patches", "uniform": "equal width"}[first["strategy"]]
    return (
        f"Brier: mean squared error, lower is better. ECE: expected calibration error, the mean distance between "
        f"probability and share of positives over {first['n_bins']} bins of {bins}. Chance alone makes it larger than "
        "0: a calibrated model would stay below the last column in 95 % of cohorts like this one. Change: calibrated "
        "- raw, on the same resamples of the patients."
    )


def reliability_data(payload, head):
    """Return the reliability curves of all models of one head, for `histofeat.reporting.draw_lines`.

    Parameters
    ----------
    payload : dict
        The content of `metrics.json`, with "calibration" in every result, as `ProbabilityAssessment.to_dict` gives it.
    head : str

    Returns
    -------
    dict or None
        One panel per model, with a line for raw and one for calibrated probabilities; None where there are none.
    """
    panels = [
        {
            "title": result["name"],
            "lines": [
                reliability_line(kind, result["calibration"][kind]["curve"])
                for kind in ("raw", "calibrated")
                if result["calibration"][kind]
            ],
        }
        for result in payload["results"]
        if result["head"] == head and result.get("calibration")
    ]
    if not panels:
        return None
    return {
        "figure": "reliability",
        "head": head,
        "dataset": payload["dataset"]["name"],
        "synthetic": payload["dataset"]["synthetic"],
        "title": f"Reliability, head {head}: {data_label(payload['dataset'])}",
        **reliability_axes(payload["dataset"]["labels"][1]),
        "panels": panels,
    }


def reliability_axes(positive):
    """Return what stands at the axes of reliability curves of a class."""
    limits = {"diagonal": True, "y_limits": [-0.02, 1.02]}
    return {"x_label": "mean probability", "y_label": f"share of {positive}", **limits}


def reliability_line(name, curve):
    """Return the points of a curve as plain values, without the bins that are empty.

    Parameters
    ----------
    name : str
    curve : dict
        As ``CalibrationAssessment.to_dict()["curve"]``; undefined numbers may be None or NaN.

    Returns
    -------
    dict
        ``name``, ``x``, ``y``, ``low`` and ``high``; the last two are None where nothing was resampled.
    """
    bins = curve["bins"]
    columns = {"x": bins["mean_predicted"], "y": bins["share_positive"], "low": curve["low"], "high": curve["high"]}
    line = {
        key: [value for value, count in zip(values, bins["n"], strict=True) if count] for key, values in columns.items()
    }
    banded = all(value is not None and value == value for value in (*line["low"], *line["high"]))
    return {"name": name, **line} if banded else {"name": name, **line, "low": None, "high": None}
