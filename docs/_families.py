"""The pages of the feature families, from their records, their docstrings and the reports."""

import inspect
import json
import re
from importlib import import_module

import pandas as pd
from _markdown import ROOT, directive, table, toctree

from histofeat.features import FAMILIES, make_family

REPORTS = ROOT / "reports"


def family_pages():
    """Give the pages by name: one of each family, and their index."""
    pages = {f"families/{name}": _family(name, record) for name, record in FAMILIES.items()}
    rows = [
        (f"[{name}]({name}.md)", record.words, record.n_columns, _cost(name)[0] or "–")
        for name, record in FAMILIES.items()
    ]
    pages["families/index"] = (
        "# Feature families\n\nA family measures a patch and gives named columns. Give families by name, "
        '`IDCPipeline(features=("color", "lbp"))`, or as objects with parameters. Each page is made from the family\'s '
        "record and docstrings.\n\n"
        + table(("name", "what it measures", "columns", "µs per patch"), rows)
        + "\nTimes are those of [the speed report](../../speed.md): one core, and all two for networks, on patches of "
        "50 x 50 pixels. "
        "`histofeat list families` prints this list.\n\n" + toctree(FAMILIES)
    )
    return pages


def _family(name, record):
    module = import_module(record.module if record.offered else f"histofeat.features._{record.module}")
    kind, family = record.offered or getattr(module, record.class_name), make_family(name)
    columns = [str(column) for column in family.get_feature_names_out()]
    shown = [*columns[:3], "...", *columns[-2:]] if len(columns) > 6 else columns
    doc = inspect.getdoc(kind) or ""
    functions = [
        own
        for own, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and re.search(rf"\b{own}\b", doc)
    ]
    cost, words = _cost(name)
    parts = [
        f"# {name}\n\n{record.words[:1].upper()}{record.words[1:]}.\n",
        table(
            ("", ""),
            [
                ("class", f"{{py:obj}}`{kind.__name__} <histofeat.{kind.__name__}>`"),
                ("columns with default parameters", f"{len(columns):,}: " + ", ".join(f"`{c}`" for c in shown)),
                ("cost", f"{cost} µs per patch: {words}" if cost else "not in the speed report"),
                ("use it as", f'`IDCPipeline(features="{name}")`, `--features {name}`'),
            ],
        ),
    ]
    if functions:
        parts.append("## Definition\n")
        parts.append(
            "The formula with its borders, its flat and small patches, and its references. The family calls "
            + ("this function" if len(functions) == 1 else "these functions")
            + " on each batch of patches.\n"
        )
        parts += [directive("autofunction", f"{module.__name__}.{own}") for own in functions]
    parts.append("## Parameters and columns\n")
    parts.append(directive("autoclass", f"{module.__name__}.{kind.__name__}", "no-index"))
    parts.append("## When it fails\n")
    parts.append(_weakness(name))
    return "\n".join(parts)


def _cost(name):
    """Give µs per patch and what was measured, by the speed report; ("", "") where it has no such row."""
    path = REPORTS / "speed" / "speed.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    keys = {"cnn": f"cnn/{make_family('cnn').encoder}, float32", "histo": "histo/one view"}
    found = [row for row in rows if row["name"] == keys.get(name, f"families/{name}") and row["ours"] is not None]
    if not found:
        return "", ""
    (row,) = found
    value = 1e6 / row["ours"] if row["unit"] == "patches/s" else row["ours"]
    return f"{value:.0f}", row["what"]


def _weakness(name):
    """Say what perturbed patches cost a family, by the report of the study of robustness."""
    path = REPORTS / "robustness" / "robustness.csv"
    rows = pd.read_csv(path) if path.is_file() else pd.DataFrame({"pipeline": [], "metric": []})
    rows = rows[(rows["pipeline"] == name) & (rows["metric"] == "roc_auc")]
    if rows.empty:
        return (
            "No report measures what stain, blur and compression cost this family. Measure it on your data: "
            f"`histofeat study robustness DATA --sets {name}`.\n"
        )
    clean = rows[rows["perturbation"] == "none"]["value"].iloc[0]
    worst = rows[~rows["perturbation"].isin(["none"])].sort_values("drop").groupby("perturbation").tail(1)
    worst = worst.sort_values("drop", ascending=False)
    cells = [
        (
            row["perturbation"].replace("_", " "),
            f"{row['severity']:+.0f}",
            f"{row['value']:.3f}",
            f"{row['drop']:.3f} [{row['drop_low']:.3f}, {row['drop_high']:.3f}]".replace("[", r"\["),
        )
        for _, row in worst.iterrows()
    ]
    return (
        f"On patches as they come, this family alone has a ROC-AUC of {clean:.3f} with XGBoost on IDC patients outside "
        "the official test set. The table has the worst step of each perturbation, of -4 to +4; the classifier was "
        "fitted on patches as they come.\n\n"
        + table(("perturbation", "worst step", "ROC-AUC", "drop [95 % interval]"), cells)
        + '\nFrom <a href="../../reports/robustness.html">the report on robustness</a>, which '
        "`make reports ONLY=robustness` writes again; it says what each step is.\n"
    )
