"""How well each class is found: one row per class, against the rest, with intervals and what they rest on."""

from histofeat.metrics import CLASS_METRICS
from histofeat.reporting.blocks import Details, Heading, Table, Text
from histofeat.reporting.files.payload import data_label
from histofeat.reporting.sections.tables import METRIC_WORDS, number

__all__ = ["class_blocks", "class_table"]


def class_blocks(payload):
    """The section on single classes.

    Parameters
    ----------
    payload : dict
        The content of `metrics.json`, with "classes" in every result, as `ClassScores.to_dicts` gives it.

    Returns
    -------
    list of blocks
        Empty without results, and for results that know nothing of classes. With more than two classes the table of the
        model of highest ROC-AUC stands open and the others are folded; with two classes all are folded.
    """
    results = [result for result in payload["results"] if result.get("classes")]
    if not results:
        return []
    label = data_label(payload["dataset"])
    blocks = [Heading("By class"), Text(_words(payload))]
    if len(payload["dataset"]["labels"]) > 2:
        best = max(results, key=lambda result: _or_less(result["roc_auc"]["pooled"]))
        blocks.append(class_table(best, label))
        results = [result for result in results if result is not best]
    if results:
        blocks.append(Details("The classes by each model", tuple(class_table(result, label) for result in results)))
    return blocks


def class_table(result, label):
    """One row per class of one model.

    Parameters
    ----------
    result : dict
        With "name", "head", and "classes" as `ClassScores.to_dicts` gives them; undefined numbers may be None or NaN.
    label : str
        Whose patches these are.

    Returns
    -------
    Table
    """
    rows = tuple(
        (
            entry["class"],
            *(f"{entry[count]:,}" for count in ("n_patients", "support", "predicted")),
            *(_with_interval(entry[metric]) for metric in CLASS_METRICS),
        )
        for entry in result["classes"]
    )
    columns = ("Class", "Patients", "Images", "Called so", *(METRIC_WORDS[metric] for metric in CLASS_METRICS))
    caption = f"{label}. {result['name']}, {result['head']}: each class against the rest, pooled [95 % interval]."
    return Table(caption, columns, rows)


def _words(payload):
    words = (
        "Each class in turn is positive and all others are negative; labels are of the most probable class. "
        "Precision is 0 for a class that is never called."
    )
    words += _resample_words(payload)
    rare = _of_one_patient(payload)
    if rare:
        words += f" No interval for {', '.join(rare)}: with a single patient there is nobody to resample."
    return words


def _resample_words(payload):
    """Say how many resamples lack a class, and so say nothing of a mean over all of them."""
    wanted, used = payload["protocol"]["n_resamples"], payload["results"][0]["roc_auc"].get("n_resamples")
    if not wanted or not used or used == wanted:
        return ""
    return (
        f" Every class occurs in {used:,} of {wanted:,} resamples of the patients: on these the intervals of scores "
        "over all classes rest; those of a class rest on all resamples in which that class occurs."
    )


def _of_one_patient(payload):
    classes = next(result["classes"] for result in payload["results"] if result.get("classes"))
    return [entry["class"] for entry in classes if entry["n_patients"] == 1]


def _with_interval(score):
    value, low, high = (_none(end) for end in (score["value"], *score["ci95"]))
    if value is None or low is None or high is None:
        return number(value)
    return f"{number(value)} [{number(low)}, {number(high)}]"


def _none(value):
    return None if value is None or value != value else value


def _or_less(value):
    return -1.0 if value is None else value
