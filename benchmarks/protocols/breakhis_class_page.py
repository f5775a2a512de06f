"""The pages on benign against malignant and on the subtypes under folds of patients, class by class."""

from histofeat.reporting import Heading, Notice, Picture, Text

__all__ = ["class_rows", "confusion_of", "figure_name", "fold_blocks", "payload_of"]


def payload_of(record):
    """The evaluation as plain values, with its classes; None where there is none."""
    from histofeat.reporting import jsonable, metrics_payload

    evaluation = record["evaluation"]
    if evaluation is None:
        return None
    payload = metrics_payload(evaluation, environment={})
    for classes, result in zip(evaluation.classes, payload["results"], strict=True):
        result["classes"] = jsonable(classes.to_dicts())
    return payload


def fold_blocks(record):
    """Benign against malignant, or the subtypes, at one magnification."""
    power, target = record["magnification"], record["target"]
    what = "Benign against malignant" if target == "malignant" else "Subtypes"
    yield Heading(f"{what}, {power}X, by folds of patients")
    if record["refused"] and record["refused"] != record.get("not_run"):
        yield Text(f"The classes as they are were refused. {record['refused']}")
    if record["evaluation"] is None:
        yield Text(f"Not evaluated. {record.get('not_run')}")
        return
    yield from merged_words(record)
    payload = record["payload"]
    yield from evaluation_blocks(payload, record)


def merged_words(record):
    """Which classes were merged, from the audit."""
    lines = [line.removeprefix("- ") for line in record["dataset"].audit.summary().splitlines()]
    merged = [line for line in lines if line.startswith("classes of fewer than")]
    if merged:
        yield Text(f"{merged[0][0].upper()}{merged[0][1:]}.")


def evaluation_blocks(payload, record):
    """Scores, classes and confusion matrices."""
    from histofeat.reporting import class_blocks, headline_key, headline_table

    protocol = payload["protocol"]
    yield Text(f"Folds: {protocol['cv']}, inside them {protocol['inner_cv']}. Every score is out of fold and pooled.")
    if payload["not_run"]:
        yield Notice(
            "warning", "Not run", tuple(f"{e['name']}, {e['head']}: {e['reason']}" for e in payload["not_run"])
        )
    if not payload["results"]:
        return
    yield headline_table(payload)
    yield Text(headline_key(payload), muted=True)
    _, *blocks = class_blocks(payload)
    yield from blocks
    words = "Confusion matrix of the model of highest ROC-AUC"
    yield Picture(
        f"figures/{figure_name(record)}.svg", f"{words}.", f"{words}, pooled: shares of the true class, and counts."
    )


def figure_name(record):
    """File of the confusion matrix."""
    return f"confusion_{record['target']}_{record['magnification']}X"


def best_of(payload):
    """The model of highest ROC-AUC; the first where none has one."""
    return max(
        payload["results"],
        key=lambda result: -1.0 if result["roc_auc"]["pooled"] is None else result["roc_auc"]["pooled"],
    )


def class_rows(record):
    """One flat row per model and class."""
    for result in (record["payload"] or {}).get("results", ()):
        for entry in result["classes"]:
            row = {"magnification": record["magnification"], "target": record["target"]}
            row |= {"features": result["name"], "head": result["head"]}
            for key, value in entry.items():
                if isinstance(value, dict):
                    row |= {key: value["value"], f"{key}_low": value["ci95"][0], f"{key}_high": value["ci95"][1]}
                else:
                    row[key] = value
            yield row


def confusion_of(payload):
    """Data of the matrix of the best model."""
    from histofeat.reporting import confusion_data

    best = best_of(payload)
    return confusion_data({**payload, "results": [best]}, best["head"])
