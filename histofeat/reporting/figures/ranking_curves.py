"""The numbers behind the ROC and precision-recall figures: curves of all models of one head, each with its band."""

from types import MappingProxyType

import numpy as np

from histofeat.reporting.figures.curves import source_of, thin_curve
from histofeat.reporting.files.payload import model_key

__all__ = ["AREA_METRICS", "band_panels_data", "ranking_data"]


#: The metric that is the area below each kind of curve.
AREA_METRICS = MappingProxyType({"roc": "roc_auc", "pr": "average_precision"})


_AXES = {"roc": ("fpr", "tpr"), "pr": ("recall", "precision")}


_LEVEL = 0.95


# Where every class has a panel, fewer points of each curve are enough.
_POINTS, _POINTS_OF_SMALL = 400, 120


def ranking_data(kind, evaluation, payload, head):
    """ROC or precision-recall curves of all models of one head, on the pooled out-of-fold scores.

    Parameters
    ----------
    kind : {"roc", "pr"}
    evaluation : Evaluation
    payload : dict
        As `metrics_payload` returns it.
    head : str

    Returns
    -------
    dict
        ``grid``, where the bands are known; ``panels``: of two classes one, of the positive class; of more, first the
        mean over the classes (``positive`` None), then each class against the rest. A panel has ``positive``,
        ``share`` (of that class among the tested patches) and ``curves``, each with ``model``, ``name``, the area as
        ``roc_auc`` or ``average_precision`` with its ``ci95``, the points of the curve as ``fpr`` and ``tpr`` or
        ``recall`` and ``precision``, and ``low`` and ``high`` of the band on the grid (None without resamples).
    """
    labels = evaluation.labels
    bands, truth = evaluation.bands, np.asarray(evaluation.dataset.y)[evaluation.tested]
    chosen = [number for number, model in enumerate(evaluation.models) if model.head == head]
    panels = []
    for code in [1] if len(labels) == 2 else [None, *range(len(labels))]:
        curves = []
        for number in chosen:
            found = _curve(kind, code, payload["results"][number], bands[number])
            curves += [found] if found else []
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


def _curve(kind, code, result, bands):
    """One model in one panel; None where the class, or the rest, is absent."""
    on_grid = bands.curve(kind, code)
    if not np.isfinite(on_grid).all():
        return None
    metric, (x, y) = AREA_METRICS[kind], _AXES[kind]
    if code is None or len(result["labels"]) == 2:
        area, ci95 = result[metric]["pooled"], result[metric]["ci95"]
    else:
        area = float(bands.area[kind][code])
        ci95 = [None if np.isnan(end) else end for end in bands.area_interval(kind, code)]
    points = (bands.grid, on_grid) if code is None else bands.points[kind][code]
    if code is not None:
        points = thin_curve(*points, _POINTS if len(result["labels"]) == 2 else _POINTS_OF_SMALL)
    low, high = bands.band(kind, code, _LEVEL)
    banded = bool(np.isfinite(low).all())
    return {
        "model": model_key(result["name"], result["head"]),
        "name": result["name"],
        metric: area,
        "ci95": ci95,
        x: points[0].round(6).tolist(),
        y: points[1].round(6).tolist(),
        "low": low.round(6).tolist() if banded else None,
        "high": high.round(6).tolist() if banded else None,
    }


def band_panels_data(data):
    """The same curves with a panel for each model, so that its band is seen.

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
