"""Whether the probabilities of a report can be believed: Brier score and calibration error, raw and calibrated."""

from histofeat.reporting.blocks import Details, Heading, Table, Text
from histofeat.reporting.files.payload import data_label
from histofeat.reporting.sections.tables import number

__all__ = [
    "calibration_blocks",
    "calibration_key",
    "calibration_table",
    "decomposition_table",
    "reliability_data",
    "reliability_line",
]


def calibration_blocks(payload):
    """The section on probabilities.

    Parameters
    ----------
    payload : dict
        The content of `metrics.json`, with "calibration" in every result, as `ProbabilityAssessment.to_dict` gives it.

    Returns
    -------
    list of blocks
        Empty without results, and for results that know nothing of calibration.
    """
    results = payload["results"]
    if not any("calibration" in result for result in results):
        return []
    heading = Heading("Probabilities")
    if len(payload["dataset"]["labels"]) > 2:
        words = "The probabilities are not calibrated beyond what the heads do: that is done with two classes only."
        return [heading, Text(f"{words} Their Brier score says how good they are together with how they rank.")]
    blocks = [
        heading,
        Text(_calibration_words(results)),
        calibration_table(payload),
        Text(calibration_key(results), muted=True),
    ]
    return [*blocks, Details("The parts of the Brier score", (decomposition_table(payload),))]


def _calibrations(results):
    return [result["calibration"] for result in results if result.get("calibration")]


def _calibration_words(results):
    weights = (
        "Class weights, where a head was given any, distort its raw probabilities: they follow the frequency of the "
        "classes that the weights pretend."
    )
    if not any(calibration["calibrated"] for calibration in _calibrations(results)):
        return f"The probabilities are not calibrated: they are what the heads give. {weights}"
    return (
        "Raw: as the heads give them, which is what every other score of this report is computed from. Calibrated: by "
        "a logistic regression on their log-odds, fitted in each fold on its training patients, on scores by inner "
        f"fits that had not seen these patients, and applied to the test patients. {weights} Calibrated ones follow "
        "the frequency among the training patients, and mean what they say only where that of new patients is alike."
    )


def calibration_key(results):
    """What the columns of `calibration_table` are.

    Parameters
    ----------
    results : list of dict
        Each with "calibration", of which one at least is not None.

    Returns
    -------
    str
    """
    first = _calibrations(results)[0]
    bins = {"quantile": "equally many patches", "uniform": "equal width"}[first["strategy"]]
    return (
        f"Brier: mean squared error, lower is better. ECE: expected calibration error, the mean distance between "
        f"probability and share of positives over {first['n_bins']} bins of {bins}; chance alone makes it larger than "
        "0: a calibrated model would stay below the last column in 95 % of cohorts like this one. Change: calibrated "
        "less raw, on the same resamples of the patients."
    )


def calibration_table(payload):
    """One row per model: Brier score and calibration error, raw and calibrated, and the change.

    Parameters
    ----------
    payload : dict
        As in `calibration_blocks`.

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
    return (
        _with_interval(found["raw"][measure]),
        _with_interval(found["calibrated"][measure]) if found["calibrated"] else number(None),
        _with_interval(found["change"][measure], "{:+.3f}".format) if found["change"] else number(None),
    )


def _with_interval(score, text=number):
    low, high = score["ci95"]
    if score["value"] is None or low is None or high is None:
        return number(None) if score["value"] is None else text(score["value"])
    return f"{text(score['value'])} [{text(low)}, {text(high)}]"


def decomposition_table(payload):
    """One row per model and kind of probability: the parts of the Brier score, and the bias.

    Parameters
    ----------
    payload : dict
        As in `calibration_blocks`.

    Returns
    -------
    Table
    """
    rows = []
    for result in payload["results"]:
        for kind in ("raw", "calibrated"):
            found = (result.get("calibration") or {}).get(kind)
            if found:
                parts = ("brier", "reliability", "generalized_resolution", "uncertainty", "bias")
                cells = [number(found[part]["value"], 4) for part in parts]
                rows.append((result["name"], result["head"], kind, *cells))
    caption = (
        f"{data_label(payload['dataset'])}. Brier = reliability (0 is calibrated) - resolution (the higher the better) "
        "+ uncertainty (of the labels alone). Bias: mean probability less share of positives."
    )
    columns = ("Model", "Head", "Probabilities", "Brier", "Reliability", "Resolution", "Uncertainty", "Bias")
    return Table(caption, columns, tuple(rows), n_text=3)


def reliability_data(payload, head):
    """Reliability curves of all models of one head, for `histofeat.reporting.draw_lines`.

    Parameters
    ----------
    payload : dict
        As in `calibration_blocks`.
    head : str

    Returns
    -------
    dict or None
        One panel per model, with a line for raw and one for calibrated probabilities; None where there are none.
    """
    panels = [
        {"title": result["name"], "lines": _lines(result["calibration"])}
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


def _lines(calibration):
    return [reliability_line(kind, calibration[kind]["curve"]) for kind in ("raw", "calibrated") if calibration[kind]]


def reliability_line(name, curve):
    """Give the points of a curve as plain values, without the bins that are empty.

    Parameters
    ----------
    name : str
    curve : dict
        As `ReliabilityCurve.to_dict` gives it; undefined numbers may be None or NaN.

    Returns
    -------
    dict
        ``name``, ``x``, ``y``, ``low`` and ``high``; the last two are None where nothing was resampled.
    """
    bins = curve["bins"]
    held = [position for position, count in enumerate(bins["n"]) if count]

    def of(values):
        return [values[position] for position in held]

    low, high = of(curve["low"]), of(curve["high"])
    banded = all(value is not None and value == value for value in (*low, *high))
    return {
        "name": name,
        "x": of(bins["mean_predicted"]),
        "y": of(bins["share_positive"]),
        "low": low if banded else None,
        "high": high if banded else None,
    }
