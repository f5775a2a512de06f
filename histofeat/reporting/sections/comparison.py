"""What the report says beyond one model and one pooled score: differences of models, and averages over patients."""

from histofeat.evaluation import COMPARED_METRICS
from histofeat.metrics import METRIC_RECORDS
from histofeat.reporting.blocks import Details, Heading, Table, Text
from histofeat.reporting.files.payload import data_label
from histofeat.reporting.sections.tables import METRIC_WORDS, number

__all__ = ["comparison_blocks", "patient_average_blocks"]

#: Of more pairs than these only those with the best model stand open.
MOST_PAIRS = 15


def comparison_blocks(payload_comparison, payload):
    """The section on differences of models.

    Parameters
    ----------
    payload_comparison : dict or None
        As ``Evaluation.comparison.to_dict()`` gives it.
    payload : dict
        The content of `metrics.json`.

    Returns
    -------
    list of blocks
        Empty where nothing was compared. The first metric stands open, the others are folded; of more than 15 pairs
        only those with the best model stand open.
    """
    if payload_comparison is None:
        return []
    heading = Heading("Differences between models")
    if "refused" in payload_comparison:
        return [heading, Text(f"The models were not compared. {payload_comparison['refused']}")]
    label = data_label(payload["dataset"])
    first, *others = dict.fromkeys(row["metric"] for row in payload_comparison["rows"])
    return [
        heading,
        Text(_cover_words(payload_comparison)),
        Text(_p_words(payload_comparison), muted=True),
        *_first_metric(payload_comparison, first, label),
        *(
            Details(f"Differences in {_words(metric)}", (_table(_of(payload_comparison, metric), metric, label),))
            for metric in others
        ),
    ]


def _first_metric(comparison, metric, label):
    rows = _of(comparison, metric)
    if len(rows) <= MOST_PAIRS or comparison["reference"] is not None:
        return [_table(rows, metric, label)]
    best = _best(rows, metric)
    against = [row if row["first"] == best else _turned(row) for row in rows if best in (row["first"], row["second"])]
    rest = [row for row in rows if best not in (row["first"], row["second"])]
    return [
        _table(against, metric, label, f" {best} has the best score and was found so on these patients."),
        Details(f"The other {len(rest)} differences in {_words(metric)}", (_table(rest, metric, label),)),
    ]


def _of(comparison, metric):
    return [row for row in comparison["rows"] if row["metric"] == metric]


def _best(rows, metric):
    values = {row[side]: row[f"{side}_value"] for row in rows for side in ("first", "second")}
    values = {name: value for name, value in values.items() if value is not None}
    choose = max if METRIC_RECORDS[metric.removesuffix("_tuned")].higher_is_better else min
    return choose(values, key=values.get) if values else rows[0]["first"]


def _turned(row):
    """Give the same comparison from the other side."""
    low, high = row["ci95"]
    return {
        **row,
        "first": row["second"],
        "second": row["first"],
        "first_value": row["second_value"],
        "second_value": row["first_value"],
        "difference": _minus(row["difference"]),
        "ci95": [_minus(high), _minus(low)],
    }


def _minus(value):
    return None if value is None else -value


def _words(metric):
    plain = metric.removesuffix("_tuned")
    return METRIC_WORDS[plain] + (" at the tuned threshold" if plain != metric else "")


def _table(rows, metric, label, more=""):
    cells = tuple(
        (
            row["first"],
            row["second"],
            _signed(row["difference"]),
            _interval(*row["ci95"], text=_signed),
            number(row["p"], 4),
            number(row["p_holm"], 4),
        )
        for row in rows
    )
    caption = f"{label}. {_words(metric)}: first less second, on the same resamples of the patients.{more}"
    return Table(caption, ("First", "Second", "Difference", "95 % interval", "p", "p, Holm"), cells, n_text=2)


def _signed(value):
    return number(value) if value is None else f"{value:+.3f}"


def _interval(low, high, text=number):
    return number(None) if low is None or high is None else f"{text(low)} to {text(high)}"


def _cover_words(comparison):
    return (
        f"Each pair on the same {comparison['n_resamples']:,} resamples of the {comparison['n_patients']:,} patients. "
        "An interval covers what new patients of the same kind would do to the difference of these two fitted models. "
        "It does not cover fitting them again on other training patients: the difference between two ways to train is "
        "less certain than the interval says."
    )


def _p_words(comparison):
    n_rows, smallest = len(comparison["rows"]), comparison["smallest_p_holm"]
    sentence = (
        "p: share of resamples as far from the difference found as that is from 0, counted as (1 + count) / "
        f"(1 + resamples). Holm: adjusted for all {n_rows:,} comparisons of this section; with this many resamples it "
        f"cannot fall below {number(smallest, 4)}."
    )
    if smallest > 0.05:
        sentence += " That is no evidence of equal models: read the intervals."
    return sentence


def patient_average_blocks(payload):
    """The table of pooled scores beside averages over patients.

    Parameters
    ----------
    payload : dict
        The content of `metrics.json`; its scores have "patient_mean", "patient_mean_ci95", "n_patients_averaged"
        and "n_patients_left_out".

    Returns
    -------
    list of blocks
        Empty without results. With no patient who has every class, one sentence that says so.
    """
    results = payload["results"]
    scores = [score for result in results for score in _scores(result).values() if "patient_mean" in score]
    if not scores:
        return []
    averaged, left_out = scores[0]["n_patients_averaged"], scores[0]["n_patients_left_out"]
    heading = Heading("Averaged over patients")
    if not averaged:
        return [
            heading,
            Text(f"None of the {left_out:,} tested patients has patches of every class: there is no average to give."),
        ]
    words = (
        "Pooled scores rank the patches of all patients in one list, and patients with many patches weigh most. Here "
        f"each patient is scored alone and counts once: {averaged:,} patients with patches of every class are "
        f"averaged, {left_out:,} who lack a class are left out. Intervals are from the same resamples of all patients."
    )
    blocks = [heading, Text(words), _average_table(payload, COMPARED_METRICS, "half")]
    rest = [metric for metric in METRIC_WORDS if metric not in COMPARED_METRICS]
    more = [_average_table(payload, rest, "half")]
    if len(payload["dataset"]["labels"]) == 2 and any(_scores(result, "tuned") for result in results):
        more.append(_average_table(payload, METRIC_WORDS, "tuned"))
    return [*blocks, Details("Every metric averaged over patients", tuple(more))]


def _scores(result, place="half"):
    found = result if place == "half" else result["tuned"]
    return {metric: found[metric] for metric in METRIC_WORDS if isinstance(found.get(metric), dict)}


def _average_table(payload, metrics, place):
    metrics = [metric for metric in metrics if any(metric in _scores(result, place) for result in payload["results"])]
    columns = ["Model", "Head"]
    for metric in metrics:
        columns += [f"{METRIC_WORDS[metric]}, pooled", "by patient [95 % interval]"]
    rows = []
    for result in payload["results"]:
        scores = _scores(result, place)
        cells = [_pooled_and_average(scores.get(metric)) for metric in metrics]
        rows.append((result["name"], result["head"], *(text for pair in cells for text in pair)))
    at = "labels at the tuned threshold" if place == "tuned" else "labels at 0.5"
    if len(payload["dataset"]["labels"]) > 2:
        at = "labels of the most probable class"
    caption = f"{data_label(payload['dataset'])}. Pooled, and the mean over patients of each patient's own score; {at}."
    return Table(caption, tuple(columns), tuple(rows), n_text=2)


def _pooled_and_average(score):
    if score is None or "patient_mean" not in score:
        return number(score and score["pooled"]), number(None)
    low, high = score["patient_mean_ci95"]
    average = number(score["patient_mean"])
    return number(score["pooled"]), average if low is None else f"{average} [{number(low)}, {number(high)}]"
