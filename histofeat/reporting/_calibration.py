"""Words and curves of calibration, raw and calibrated."""

from histofeat.reporting._payload import data_label


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
