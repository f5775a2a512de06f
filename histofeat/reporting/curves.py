"""The numbers behind each figure, as plain values: what is drawn, and what lies beside it as JSON."""

import numpy as np

from histofeat.reporting.payload import data_label, model_key

__all__ = ["confusion_data", "forest_data", "roc_data", "thin_curve"]

_MAX_POINTS = 400


def roc_data(evaluation, payload, head):
    """ROC curves of all models of one head, on the pooled out-of-fold scores.

    Parameters
    ----------
    evaluation : Evaluation
    payload : dict
        As `metrics_payload` returns it.
    head : str

    Returns
    -------
    dict
        ``panels``: one per class (two classes: the positive one only), each with ``curves`` of ``name``, ``fpr``,
        ``tpr``, ``roc_auc`` and ``ci95`` (None with more than two classes, where the area is of one class against the
        rest).
    """
    labels = evaluation.labels
    truth = np.asarray(evaluation.dataset.y)[evaluation.tested]
    shown = range(1, 2) if len(labels) == 2 else range(len(labels))
    panels = []
    for code in shown:
        curves = [
            _roc_curve(result, truth == code, model.proba[evaluation.tested, code])
            for model, result in zip(evaluation.models, payload["results"], strict=True)
            if model.head == head
        ]
        panels.append({"positive": labels[code], "curves": [curve for curve in curves if curve]})
    return {"figure": "roc", "head": head, **_source(payload), "panels": panels}


def _roc_curve(result, positive, score):
    from sklearn.metrics import roc_auc_score, roc_curve

    if positive.all() or not positive.any():
        return None
    fpr, tpr, _ = roc_curve(positive, score)
    fpr, tpr = thin_curve(fpr, tpr)
    binary = len(result["labels"]) == 2
    return {
        "model": model_key(result["name"], result["head"]),
        "name": result["name"],
        "roc_auc": result["roc_auc"]["pooled"] if binary else float(roc_auc_score(positive, score)),
        "ci95": result["roc_auc"]["ci95"] if binary else None,
        "fpr": fpr.round(6).tolist(),
        "tpr": tpr.round(6).tolist(),
    }


def thin_curve(x, y, max_points=_MAX_POINTS):
    """At most `max_points` of the points of a monotone curve, evenly along its length, both ends kept.

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
        **_source(payload),
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
    return {"figure": "forest", "metric": metric, **_source(payload), "rows": rows}


def _source(payload):
    return {
        "dataset": payload["dataset"]["name"],
        "synthetic": payload["dataset"]["synthetic"],
        "data_label": data_label(payload["dataset"]),
    }
