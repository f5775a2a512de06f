"""The numbers behind each figure, as plain values: what is drawn, and what lies beside it as JSON."""

import numpy as np

from histofeat.reporting.files.payload import data_label

__all__ = ["confusion_data", "forest_data", "source_of", "thin_curve"]

_MAX_POINTS = 400


def thin_curve(x, y, max_points=_MAX_POINTS):
    """At most `max_points` of the points of a curve whose x ascends, evenly along its length, both ends kept.

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


def confusion_data(payload, head, *, tuned=False):
    """Pooled confusion matrices of all models of one head: counts, and rates within each true class."""
    matrices = []
    for result in payload["results"]:
        if result["head"] != head:
            continue
        counts = (result["tuned"] if tuned else result)["confusion_matrix"]
        rows = np.asarray(counts, dtype=float)
        totals = rows.sum(axis=1, keepdims=True)
        rates = np.divide(rows, totals, out=np.zeros_like(rows), where=totals > 0)
        matrices.append({"name": result["name"], "counts": counts, "rates": rates.round(6).tolist()})
    threshold = "tuned" if tuned else "0.5"
    if len(payload["dataset"]["labels"]) > 2:
        threshold = "argmax"
    return {
        "figure": "confusion",
        "head": head,
        **source_of(payload),
        "threshold": threshold,
        "labels": payload["dataset"]["labels"],
        "matrices": matrices,
    }


def forest_data(payload, metric="roc_auc"):
    """Pooled value and interval of one metric for every model, in the order of the results."""
    rows = [
        {
            "name": result["name"],
            "head": result["head"],
            "pooled": result[metric]["pooled"],
            "ci95": result[metric]["ci95"],
            "folds": result[metric]["folds"],
        }
        for result in payload["results"]
    ]
    return {"figure": "forest", "metric": metric, **source_of(payload), "rows": rows}


def source_of(payload):
    """Say whose patches a figure is about: goes into the data of every figure."""
    return {
        "dataset": payload["dataset"]["name"],
        "synthetic": payload["dataset"]["synthetic"],
        "data_label": data_label(payload["dataset"]),
    }
