"""Tables and curves of calibration: Brier score and calibration error, raw and calibrated."""

from histofeat.reporting._payload import data_label
from histofeat.reporting._tables import Table
from histofeat.reporting._text import number, signed, with_interval

_PARTS = ("brier", "reliability", "generalized_resolution", "uncertainty", "bias")


def calibration_key(results):
    """Return what the columns of `calibration_table` are.

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


def calibration_table(payload):
    """Return one row per model: Brier score and calibration error, raw and calibrated, and the change.

    Parameters
    ----------
    payload : dict
        The content of `metrics.json`, with "calibration" in every result, as `ProbabilityAssessment.to_dict` gives it.

    Returns
    -------
    Table
    """
    columns = ["Model", "Head"]
    for name in ("Brier", "ECE"):
        columns += [f"{name}, raw", f"{name}, calibrated", "Change"]
    rows = []
    for result in payload["results"]:
        found = result.get("calibration")
        if found:
            cells = [cell for measure in ("brier", "ece") for cell in _three(found, measure)]
            limit = (found["calibrated"] or found["raw"])["ece"]["chance95"]
            rows.append((result["name"], result["head"], *cells, number(limit)))
    caption = f"{data_label(payload['dataset'])}. Probability of {payload['dataset']['labels'][1]} [95 % interval]."
    return Table(caption, (*columns, "ECE by chance"), tuple(rows), n_text=2)


def _three(found, measure):
    for kind, write in (("raw", number), ("calibrated", number), ("change", signed)):
        score = found[kind] and found[kind][measure]
        yield with_interval(score["value"], score["ci95"], write) if score else number(None)


def decomposition_table(payload):
    """Return one row per model and kind of probability: the parts of the Brier score, and the bias.

    Parameters
    ----------
    payload : dict
        As in `calibration_table`.

    Returns
    -------
    Table
    """
    rows = tuple(
        (
            result["name"],
            result["head"],
            kind,
            *(number(result["calibration"][kind][part]["value"], 4) for part in _PARTS),
        )
        for result in payload["results"]
        for kind in ("raw", "calibrated")
        if result.get("calibration") and result["calibration"][kind]
    )
    caption = (
        f"{data_label(payload['dataset'])}. Brier = reliability (0 is calibrated) - resolution (the higher the better) "
        "+ uncertainty (of the labels alone). Bias: mean probability - share of positives."
    )
    columns = ("Model", "Head", "Probabilities", "Brier", "Reliability", "Resolution", "Uncertainty", "Bias")
    return Table(caption, columns, rows, n_text=3)


def reliability_data(payload, head):
    """Return the reliability curves of all models of one head, for `histofeat.reporting.draw_lines`.

    Parameters
    ----------
    payload : dict
        As in `calibration_table`.
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
        "x_label": "mean probability",
        "y_label": f"share of {payload['dataset']['labels'][1]}",
        "diagonal": True,
        "y_limits": [-0.02, 1.02],
        "panels": panels,
    }


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
