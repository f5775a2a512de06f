"""The answer of a report: which model, how sure, which others are as good, its weakness, and on whom it was tested."""

import math

from histofeat.exceptions import and_more, counted
from histofeat.reporting._payload import data_label, model_key
from histofeat.reporting._tables import METRIC_WORDS, best_of, metric_words
from histofeat.reporting._text import interval, number, percent

#: From which adjusted p-value two models are not told apart.
_LIMIT = 0.05
#: Models that a sentence names.
_NAMED = 4
#: Groups with fewer patients are no weakness: their scores are mostly chance.
_FEWEST = 5
#: Columns of a table that say where a patch comes from.
_PLACES = ("site", "center", "hospital")


def answer_of(evaluation, payload, shortcuts=None):
    """Return the answer of an evaluation, as sentences and as the facts behind them.

    Parameters
    ----------
    evaluation : Evaluation
    payload : dict
        The content of `metrics.json`, with "comparison", "planned", "details" and "calibration".
    shortcuts : dict, optional
        As ``ShortcutPanel.to_dict`` gives it.

    Returns
    -------
    answer : dict
        ``sentences``; ``model`` and ``metric`` of the recommended model, which has the highest ROC-AUC (of hard labels
        the highest balanced accuracy); ``alike``, the models that are not told apart from it; ``cheapest`` of these
        and itself; ``weakness``; ``shortcut``, the strongest; ``tested``. None where there is nothing to say.

    Notes
    -----
    Models are alike where the paired difference of the plan, or else the post-hoc one, has an adjusted p of 0.05 or
    more. The cheapest takes the least time for a patch, where that was measured for all of them, else the fewest
    features. The weakness is the lowest of: the recall of each class (of two: sensitivity and specificity), the same
    in each group of at least five patients, and the accuracy that one patient in ten does not exceed.
    """
    tested = _tested(evaluation, payload)
    if not payload["results"]:
        return {"sentences": ["Nothing ran, so that no model can be recommended.", tested["words"]], "tested": tested}
    best = best_of(payload["results"])
    metric = "balanced_accuracy" if best["roc_auc"]["value"] is None else "roc_auc"
    key, several = model_key(best["name"], best["head"]), len(payload["results"]) > 1
    found = {"model": key, "metric": metric, "value": best[metric]["value"], "ci95": best[metric]["ci95"]}
    found |= _alike(payload, key, metric) if several else {"alike": [], "cheapest": key, "words": None}
    found["weakness"] = weakness = _weakness(best, payload)
    found["shortcut"] = shortcut = _shortcut(payload, shortcuts)
    first = " ".join(filter(None, (_model_words(found, payload, several), evaluation.caution)))
    words = [first, found.pop("words"), f"Main weakness: {weakness['words']}", _calibration_words(best)]
    words += [shortcut["words"], tested["words"]]
    return {**found, "tested": tested, "sentences": [each for each in words if each]}


def _model_words(found, payload, several):
    score = f"{METRIC_WORDS[found['metric']]} {number(found['value'])}"
    if len(payload["dataset"]["labels"]) > 2 and found["metric"] == "roc_auc":
        score = f"mean {score} over the classes"
    sure = "no interval" if None in found["ci95"] else f"95 % interval {interval(found['ci95'], between=' to ')}"
    lead = "Recommended: " if several else "The only model: "
    if payload["protocol"]["patient_overlap"]:
        lead = "Patients are on both sides of the split, so that no model can be recommended. The highest score: "
    chance = " Guessing, 0.5, is in the interval." if sure != "no interval" and found["ci95"][0] <= 0.5 else ""
    return f"{lead}{found['model']}, {score} ({sure}).{chance}"


def _alike(payload, key, metric):
    """Return which models are not told apart from the best by paired differences, and the cheapest of all these."""
    planned, posthoc = (payload.get(kind) or {} for kind in ("planned", "comparison"))
    rows = [row for row in planned.get("rows", ()) if key in (row["first"], row["second"])]
    kind = "planned" if rows else "post-hoc"
    rows = rows or [row for row in posthoc.get("rows", ()) if row["metric"] == metric]
    rows = [row for row in rows if row["metric"] == rows[0]["metric"] and key in (row["first"], row["second"])]
    if not rows:
        unknown = "There are no probabilities." if posthoc.get("rows") else "The patients were not resampled."
        why = posthoc.get("refused") or unknown
        return {"alike": [], "cheapest": None, "words": f"Differences from the other models are not known. {why}"}
    others = {row["second"] if row["first"] == key else row["first"]: row["p_adjusted"] for row in rows}
    alike = [name for name, p in others.items() if p is None or p >= _LIMIT]
    cheapest, cost = _cheapest(payload["results"], [key, *alike])
    by = f"{kind} paired differences in {metric_words(rows[0]['metric'])}"
    words = f"{'The other model is' if len(others) == 1 else 'All others are'} told apart from it ({by})."
    if alike:
        named = ", ".join(alike[:_NAMED]) + and_more(len(alike) - _NAMED + 1)
        words = f"Not told apart from it: {named} ({by})."
        words += f" The cheapest of these{' and itself' if cheapest == key else ''} is {cheapest}: {cost}." * bool(cost)
    return {"alike": alike, "cheapest": cheapest, "words": words}


def _cheapest(results, names):
    """Return the name of the cheapest of some models, and its cost in words; None and "" where that is unknown."""
    known = [result for result in results if model_key(result["name"], result["head"]) in names]
    times = [result["seconds_per_patch"] for result in known]
    by_time = None not in times
    costs = times if by_time else [result["n_features"] or math.inf for result in known]
    cost, best = min(zip(costs, known, strict=True), key=lambda pair: pair[0])
    if math.isinf(cost):  # predictions that were given
        return None, ""
    words = [counted(best["n_features"], "feature")] * bool(best["n_features"])
    words += [f"{number(1000 * cost, 2)} ms a patch"] * by_time + [f"fitted in {number(best['fit_s'], 1)} s"]
    return model_key(best["name"], best["head"]), ", ".join(words)


def _weakness(best, payload):
    """Return the lowest of what should be high: recalls of classes, also within groups, and accuracy of patients."""
    labels, details = payload["dataset"]["labels"], best["details"]
    known = [(f"recall of {each['class']}", each["sensitivity"], each["class"]) for each in best["classes"]]
    if len(labels) == 2:
        recalls = {"specificity": labels[0], "sensitivity": labels[1]}
        known = [(name, best[name], label) for name, label in recalls.items()]
        groups = {group: of for group, of in (details["groups"] or {}).items() if of["n_patients"] >= _FEWEST}
        known += [(f"{name} in {group}", of[name], recalls[name]) for group, of in groups.items() for name in recalls]
    known.append(("the hardest patients", {"value": details["spread"]["accuracy"][0], "ci95": [None, None]}, None))
    known = [each for each in known if each[1]["value"] is not None]
    name, score, label = min(known, key=lambda each: each[1]["value"])
    share, ends = percent(score["value"]), score["ci95"]
    words = f"it finds {share} of the {label} patches"
    if label is None:
        words = f"in one of ten, at most {share} of the patches are called right"
    sure = "" if None in ends else f" (95 % interval {interval(ends, percent, ' to ')})"
    return {"of": name, "value": score["value"], "ci95": ends, "words": f"{name}: {words}{sure}."}


def _calibration_words(best):
    """Return a sentence where probabilities are farther off than by chance, else None."""
    raw = (best["calibration"] or {}).get("raw", {}).get("ece")
    if not raw or raw["value"] is None or raw["chance95"] is None or raw["value"] <= raw["chance95"]:
        return None
    off, chance = percent(raw["value"]), percent(raw["chance95"])
    return f"Its probabilities are off by {off} on average, more than by chance (up to {chance}): calibrate them."


def _shortcut(payload, shortcuts):
    rows = [row for row in (shortcuts or {}).get("rows", ()) if row["roc_auc"] is not None]
    known = [
        {
            "name": row["name"].replace("_", " ").replace("color", "colour"),
            "roc_auc": row["roc_auc"],
            "ci95": row["ci95"],
        }
        for row in rows
    ]
    probes = payload.get("table_probe") or {}
    known += [
        {"name": name, "roc_auc": probe["value"], "ci95": probe["ci95"]}
        for name, probe in probes.items()
        if probe["value"] is not None
    ]
    if not known:
        return {"name": None, "words": "What shortcuts reach alone was not measured."}
    best = max(known, key=lambda each: each["roc_auc"])
    less = "" if rows else " Shortcuts in the images were not measured."
    return {**best, "words": f"Shortcuts alone reach a ROC-AUC of {number(best['roc_auc'])}, by {best['name']}.{less}"}


def _tested(evaluation, payload):
    """Return on whom the models were tested."""
    dataset, n = payload["dataset"], int(evaluation.tested.sum())
    patients = len(set(evaluation.dataset.patients[evaluation.tested]))
    facts = {"patches": n, "patients": patients, "data": data_label(dataset), "synthetic": dataset["synthetic"]}
    place = next((name for name in _PLACES if name in evaluation.dataset.frame), None)
    facts["places"] = None if place is None else int(evaluation.dataset.frame[place].nunique())
    given = evaluation.models and all(model.features == ("predictions",) for model in evaluation.models)
    how = "out of fold, by models that had not seen the patient"
    if payload["protocol"]["patient_overlap"]:
        how = "by models that had seen other patches of the same patients"
    elif given:
        how = "by predictions that were given; who trained on whom is not known here"
    elif len(payload["folds"]) == 1:
        how = "in a single split, by models that had not seen the patient"
    where = f", {counted(facts['places'], place)}" if place else ""
    words = f"Tested on {counted(n, 'patch')} of {counted(patients, 'patient')} ({facts['data']}{where}), {how}."
    if dataset["synthetic"]:
        words += " The images are generated: this says nothing about tissue."
    elif not place or facts["places"] < 2:
        words += " Another laboratory or scanner was not tested."
    return {**facts, "words": words}
