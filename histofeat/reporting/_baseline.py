"""The baseline row of a ladder: `baseline.json`, rows in LaTeX and Markdown, a paragraph for a methods section."""

import re
from string import ascii_lowercase
from typing import Any

from histofeat.evaluation import Evaluation
from histofeat.exceptions import counted
from histofeat.metrics import plain_values
from histofeat.reporting._payload import model_key
from histofeat.reporting._strict_json import jsonable
from histofeat.reporting._tables import score_with_interval
from histofeat.reporting._text import interval, number, signed, with_interval
from histofeat.studies import LADDER, read_ladder

#: Version of `baseline.json`, whose schema is ``templates/baseline.schema.json``.
BASELINE_SCHEMA = 1
_METRICS = ("roc_auc", "average_precision", "balanced_accuracy", "brier")
_COLUMNS = ("Row", "Head", "ROC-AUC [patients]", "[method]", "Difference [95 %]", "ECE", "µs a patch", "Fit (s)")


def baseline_of(evaluation: Evaluation, payload: dict[str, Any]) -> dict[str, Any]:
    """Return the content of `baseline.json`.

    Parameters
    ----------
    evaluation : Evaluation
        As `histofeat.studies.as_ladder` returns it.
    payload : dict
        The content of its `metrics.json`, with "calibration" in every result.

    Returns
    -------
    baseline : dict
        Plain values, as the schema has them.
    """
    ladder, tested = read_ladder(evaluation), evaluation.dataset.frame[evaluation.tested]
    carriers = tested.groupby("label")["patient"].nunique()
    known = {name: payload["dataset"][name] for name in ("name", "synthetic", "positive")}
    known |= {"n_patches": len(tested), "n_patients": tested["patient"].nunique()}
    known["carriers"] = {evaluation.labels[code]: int(n) for code, n in carriers.items()}
    found = {name: payload[name] for name in ("histofeat", "created", "command", "protocol", "not_run")}
    facts = evaluation.protocol["ladder"]
    rows = [_row(result, ladder, facts["extract_us"]) for result in payload["results"]]
    found |= {"schema": BASELINE_SCHEMA, "dataset": known, "reference": ladder.reference, "rows": rows}
    found |= {"margin": facts["margin"], "groups": ladder.groups, "noise_floor": ladder.floor.to_dict()}
    issues = [one for one in (payload["audit"] or {}).get("findings", ()) if one["status"] == "issue"]
    found["audit"] = {"errors": [one["code"] for one in issues if one["severity"] == "error"]}
    found["audit"]["warnings"] = [one["code"] for one in issues if one["severity"] != "error"]
    return jsonable(found)


def _row(result, ladder, extract_us):
    name, key = result["name"], model_key(result["name"], result["head"])
    beside, raw = ladder.beside_reference(key), (result["calibration"] or {}).get("raw")
    found = {part: result[part] for part in ("name", "head", "n_features", "fit_s", *_METRICS)}
    found |= {"kind": "ladder" if name in LADDER else "user", "extract_us": extract_us.get(name)}
    found["sees"] = LADDER.get(name, "; ".join(result["features"]))
    found["calibration"] = raw and {part: raw[part] for part in ("ece", "slope")}
    found["beside_reference"] = beside and {**plain_values(beside[0]), "verdict": beside[1]}
    letters = [mark for mark, group in zip(ascii_lowercase, ladder.groups, strict=False) if key in group]
    return {**found, "groups": "".join(letters)}


def baseline_files(baseline: dict[str, Any]) -> dict[str, Any]:
    """Return the files of a ladder by name: the JSON, rows for a paper in Markdown and LaTeX, and the methods.

    Parameters
    ----------
    baseline : dict
        From `baseline_of`.

    Returns
    -------
    files : dict of str to dict or str
        The rows are that of the reference, and those of the user.
    """
    reference = baseline["reference"]
    shown = [row for row in baseline["rows"] if reference == f"{row['name']}/{row['head']}" or row["kind"] == "user"]
    cells = [_cells(row) for row in shown]
    lines = [f"| {' | '.join(row)} |" for row in (_COLUMNS, ["---"] * len(_COLUMNS), *cells)]
    latex = [f"% {' & '.join(_COLUMNS)}", *(" & ".join(map(_latex, row)) + r" \\" for row in cells)]
    files = {"baseline.md": "\n".join(lines), "baseline.tex": "\n".join(latex), "methods.md": methods_words(baseline)}
    return {"baseline.json": baseline, **{name: text + "\n" for name, text in files.items()}}


def _cells(row):
    area, beside, apart = row["roc_auc"], row["beside_reference"], "reference"
    if beside:
        apart = f"{with_interval(beside['difference'], beside['ci95'], signed)}: {beside['verdict']}"
    error = number(row["calibration"]["ece"]["value"] if row["calibration"] else None)
    names = [row["name"].replace("|", "/"), row["head"], score_with_interval(area), interval(area["method_ci95"])]
    return [*names, apart, error, number(row["extract_us"], 0), number(row["fit_s"], 1)]


def _latex(text):
    return re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", "/")).replace("–", "--")


def methods_words(baseline: dict[str, Any]) -> str:
    """Return the paragraph for a methods section, with citations by DOI."""
    dataset, protocol = baseline["dataset"], baseline["protocol"]
    folds = f"the split of {protocol['split'].rstrip('.')}" if protocol.get("split") else protocol["cv"]
    size = f"{counted(dataset['n_patches'], 'patch')} of {counted(dataset['n_patients'], 'patient')}"
    carriers = ", ".join(f"{n} with {name}" for name, n in dataset["carriers"].items())
    return (
        f"Baselines were computed with histofeat {baseline['histofeat']} on {size} ({carriers}), by {folds}. Each row "
        "but guessing is a logistic regression on standardised features, its C chosen in inner folds of the training "
        "patients. Handcrafted features are colour histograms, local binary patterns (doi:10.1109/TPAMI.2002.1017623) "
        "and Haralick features (doi:10.1109/TSMC.1973.4309314). Intervals of patients are 95 % t intervals from "
        f"{protocol['n_resamples']:,} resamples of whole patients (doi:10.1111/j.1467-9868.2007.00593.x); those of the "
        "method are corrected t intervals over the folds (doi:10.1023/A:1024068626366). Paired differences use these "
        "resamples, their p-values adjusted as one family (step-down max-T, Westfall and Young 1993); rows that are "
        f"not told apart are grouped, not ranked. The reference is {baseline['reference']}, the best handcrafted row "
        f"of these scores. {baseline['noise_floor'].get('sentence', '')}"
    )
