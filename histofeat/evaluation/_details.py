"""What a reviewer asks next of an evaluation: patients, operating points, groups, and what the table alone tells."""

from typing import Any

import numpy as np

from histofeat.metrics import (
    decision_curve,
    design_effects,
    patient_outcomes,
    predictive_values,
    probe_columns,
    score_groups,
    score_patients,
    sensitivity_at,
)

#: Columns of a table that a class can be confounded with.
_PROBED = ("site", "center", "hospital", "scanner", "magnification")
_GROUP_METRICS = ("roc_auc", "sensitivity", "specificity", "brier")
#: Of a patient: what is shown, of how many of the hardest, and the quantiles of all.
_SHOWN = ["patient", "patches", "carries", "accuracy", "roc_auc", "brier"]
_N_HARDEST, _QUANTILES = 5, (0.1, 0.5, 0.9)


def detail_model(evaluation: Any, number: int) -> dict[str, Any]:
    """Describe one model of an evaluation further.

    Parameters
    ----------
    evaluation : Evaluation
    number : int
        Of the model.

    Returns
    -------
    details : dict
        "design_effect" of the ROC-AUC, and "worth", as many independent patches as the tested ones are worth;
        "hardest" (DataFrame), the patients of the highest Brier score, and "spread", the quantiles 0.1, 0.5 and 0.9
        over patients; "sensitivity_at" specificities of 0.9 and 0.95, each with its interval; "net_benefit"
        (DataFrame) of the calibrated probabilities, None with more than two classes; "outcomes" (DataFrame) of
        patients, None where a patient has several labels; "predictive_values" and "groups" as
        `Evaluation.asking` names them, or None.
    """
    model, rows, two = evaluation.models[number], evaluation.tested, len(evaluation.labels) == 2
    y, patients = (np.asarray(column)[rows] for column in (evaluation.dataset.y, evaluation.dataset.patients))
    proba, stated = model.proba[rows], evaluation.protocol
    resampling = {name: stated[name] for name in ("n_resamples", "random_state")}
    known = {"predicted": model.predicted[rows], "fold": evaluation.fold[rows], "n_jobs": evaluation.n_jobs}
    table = score_patients(y, proba, patients, predicted=known["predicted"])
    effect = design_effects(y, proba, model.resamples, **known)["roc_auc"]
    as_units = (table["carries"] == 1).all() and not evaluation.patient_overlap
    at = {
        share: sensitivity_at(evaluation.bands[number], share, min(model.resamples.carriers)) for share in (0.9, 0.95)
    }
    found = {
        "design_effect": effect,
        "worth": len(y) / effect,
        "hardest": table[_SHOWN].head(_N_HARDEST),
        "spread": table[_SHOWN[3:]].quantile(_QUANTILES).to_dict("list"),
        "sensitivity_at": {share: {"value": value, "ci95": ends} for share, (value, *ends) in at.items()},
        "net_benefit": decision_curve(y, model.calibrated[rows, 1], patients, **resampling) if two else None,
        "outcomes": patient_outcomes(y, proba, patients, fold=known["fold"]) if as_units else None,
        "predictive_values": None,
        "groups": None,
    }
    if "prevalence" in stated:
        found["predictive_values"] = _with_intervals(predictive_values(model.resamples, stated["prevalence"]))
    if "groups" in stated:
        names = evaluation.dataset.frame[stated["groups"]][rows]
        scored = score_groups(y, proba, patients, names, metrics=_GROUP_METRICS, **known, **resampling)
        found["groups"] = {group: _with_intervals(scores) for group, scores in scored.items()}
    return found


def probe_table(evaluation: Any) -> dict[str, Any]:
    """Predict the class from file format, size, site, scanner, magnification or the stated groups alone.

    Parameters
    ----------
    evaluation : Evaluation

    Returns
    -------
    probes : dict of str to dict
        "value" and "ci95" of the ROC-AUC of each column with several values, the highest first; see
        `histofeat.metrics.probe_columns`.
    """
    frame, stated = evaluation.dataset.frame, evaluation.protocol
    columns = {"file format": frame["path"].str.extract(r"\.(\w+)$", expand=False).str.lower()}
    if {"height", "width"} <= set(frame):
        columns["size"] = frame["height"].astype(str) + " x " + frame["width"].astype(str)
    columns |= {name: frame[name] for name in (*_PROBED, stated.get("groups")) if name in frame}
    known = {name: stated[name] for name in ("n_resamples", "random_state")} | {"n_jobs": evaluation.n_jobs}
    whole = evaluation.dataset.y, evaluation.dataset.patients, evaluation.splits, len(evaluation.labels)
    return {
        name: _with_intervals(scores)["roc_auc"] for name, scores in probe_columns(columns, *whole, **known).items()
    }


def _with_intervals(resamples):
    found = {name: {"value": value, "ci95": resamples.interval(name)} for name, value in resamples.estimates.items()}
    return {**found, "n_patients": resamples.n_patients}
