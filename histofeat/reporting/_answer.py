"""The answer of a report: which model, how sure, which others are as good, its weakness, and on whom it was tested."""

import math

from histofeat.exceptions import and_more, counted
from histofeat.reporting._payload import data_label, model_key
from histofeat.reporting._tables import METRIC_WORDS, best_of, metric_words
from histofeat.reporting._text import interval, number, percent

#: From which adjusted p-value two models are not told apart; models that a sentence names.
_LIMIT, _NAMED = 0.05, 4
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
        ``sentences``; ``tested``; where a model ran, ``model``, ``metric``, ``value`` and ``ci95`` of the recommended
        one, which has the highest ROC-AUC (of hard labels the highest balanced accuracy); ``alike``, the models that
        are not told apart from it; ``cheapest`` of these and itself; ``weakness``; ``shortcut``, the strongest.

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
    found = {"model": model_key(best["name"], best["head"]), "metric": metric, "tested": tested}
    found |= {name: best[metric][name] for name in ("value", "ci95")}
    first = " ".join(filter(None, (_model_words(found, payload), evaluation.caution)))
    found["alike"], found["cheapest"], others = _alike(payload, found["model"], metric)
    found |= {"weakness": _weakness(best, payload), "shortcut": _shortcut(payload, shortcuts)}
    words = [first, others, found["weakness"]["words"], _calibration_words(best)]
    return {**found, "sentences": [*filter(None, words), found["shortcut"]["words"], tested["words"]]}


def _model_words(found, payload):
    low, several = found["ci95"][0], len(payload["dataset"]["labels"]) > 2 and found["metric"] == "roc_auc"
    lead = "Recommended" if len(payload["results"]) > 1 else "The only model"
    if payload["protocol"]["patient_overlap"]:
        lead = "Patients are on both sides of the split, so that no model can be recommended. The highest score"
    score = f"{METRIC_WORDS[found['metric']]}{' (mean over the classes)' * several} {number(found['value'])}"
    sure = "no interval" if None in found["ci95"] else f"95 % interval {interval(found['ci95'], between=' to ')}"
    chance = " Guessing, 0.5, is in the interval." * (low is not None and low <= 0.5)
    return f"{lead}: {found['model']}, {score} ({sure}).{chance}"


def _alike(payload, key, metric):
    """Return the models that paired differences do not tell apart from the best, the cheapest of these, and words."""
    if len(payload["results"]) == 1:
        return [], key, None
    planned, posthoc = ((payload.get(kind) or {}).get("rows", ()) for kind in ("planned", "comparison"))
    rows = [("planned", row) for row in planned] + [("post-hoc", row) for row in posthoc if row["metric"] == metric]
    found = {}
    for kind, row in rows:
        if key in (pair := [row["first"], row["second"]]):
            found.setdefault(pair[pair[0] == key], (f"{kind} paired differences in {metric_words(row['metric'])}", row))
    if not found:
        why = (payload["comparison"] or {}).get("refused", "They need probabilities and resamples of the patients.")
        return [], None, f"Differences from the other models are not known. {why}"
    alike = [name for name, (_, row) in found.items() if row["p_adjusted"] is None or row["p_adjusted"] >= _LIMIT]
    by = f"({'; '.join(dict.fromkeys(words for words, _ in found.values()))})"
    if not alike:
        return [], key, f"{'The other model is' if len(found) == 1 else 'All others are'} told apart from it {by}."
    cheapest, cost = _cheapest(payload["results"], [key, *alike])
    cost = f" The cheapest of these{' and itself' * (cheapest == key)} is {cheapest}: {cost}." if cost else ""
    named = ", ".join(alike[:_NAMED]) + and_more(len(alike) - _NAMED + 1)
    return alike, cheapest, f"Not told apart from it: {named} {by}.{cost}"


def _cheapest(results, names):
    """Return the name of the cheapest of some models, and its cost in words; None and "" where that is unknown."""
    known = {model_key(result["name"], result["head"]): result for result in results}
    timed = all(known[name]["seconds_per_patch"] for name in names)
    if not timed and not any(known[name]["n_features"] for name in names):  # predictions that were given
        return None, ""
    best = min(names, key=lambda name: known[name]["seconds_per_patch" if timed else "n_features"] or math.inf)
    time = f"{number(1000 * known[best]['seconds_per_patch'], 2)} ms a patch, " if timed else ""
    features = f"{counted(known[best]['n_features'], 'feature')}, " if known[best]["n_features"] else ""
    return best, f"{features}{time}fitted in {number(known[best]['fit_s'], 1)} s"


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
    few = f"at most {share} of the patches are" if score["value"] else "no patch is"
    words = f"it finds {share} of the {label} patches" if label else f"of one in ten, {few} called right"
    sure = "" if None in ends else f" (95 % interval {interval(ends, percent, ' to ')})"
    return {"of": name, "value": score["value"], "ci95": ends, "words": f"Main weakness: {name}: {words}{sure}."}


def _calibration_words(best):
    """Return a sentence where probabilities are farther off than by chance, else None."""
    raw = (best["calibration"] or {}).get("raw", {}).get("ece") or {"value": None, "chance95": None}
    if None in (raw["value"], raw["chance95"]) or raw["value"] <= raw["chance95"]:
        return None
    off, chance = percent(raw["value"]), percent(raw["chance95"])
    return f"Its probabilities are off by {off} on average, more than by chance (up to {chance}): calibrate them."


def _shortcut(payload, shortcuts):
    rows = [(row["name"], row["roc_auc"]) for row in (shortcuts or {}).get("rows", ())]
    rows = [(name.replace("_", " ").replace("color", "colour").replace("of these", "of them"), at) for name, at in rows]
    rows += [(name, probe["value"]) for name, probe in (payload.get("table_probe") or {}).items()]
    rows = [row for row in rows if row[1] is not None]
    less = "" if shortcuts else "What shortcuts in the images reach alone was not measured."
    if not rows:
        return {"name": None, "roc_auc": None, "words": less or "No shortcut could be measured."}
    name, area = max(rows, key=lambda row: row[1])
    words = f"Shortcuts alone reach a ROC-AUC of {number(area)}, by {name}. {less}".strip()
    return {"name": name, "roc_auc": area, "words": words}


def _tested(evaluation, payload):
    """Return on whom the models were tested."""
    dataset, frame = payload["dataset"], evaluation.dataset.frame[evaluation.tested]
    facts = {"patches": len(frame), "patients": frame["patient"].nunique(), "synthetic": dataset["synthetic"]}
    place = next((name for name in _PLACES if name in frame), None)
    facts |= {"data": data_label(dataset), "places": None if place is None else int(frame[place].nunique())}
    how = "out of fold, by models that" if len(payload["folds"]) > 1 else "in a single split, by models that"
    how += " had not seen the patient"
    if payload["protocol"]["patient_overlap"]:
        how = "by models that had seen other patches of the same patients"
    elif evaluation.models and all(model.features == ("predictions",) for model in evaluation.models):
        how = "by predictions that were given; who trained on whom is not known here"
    where = f", {counted(facts['places'], place)}" if place else ""
    size = f"{counted(len(frame), 'patch')} of {counted(facts['patients'], 'patient')}"
    more = " Another laboratory or scanner was not tested." if (facts["places"] or 0) < 2 else ""
    more = " The images are generated: this says nothing about tissue." if dataset["synthetic"] else more
    return {**facts, "words": f"Tested on {size} ({facts['data']}{where}), {how}.{more}"}
