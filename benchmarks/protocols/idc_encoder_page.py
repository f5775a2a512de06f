"""The page of the study on the shipped encoder: words and tables, from evaluations and perturbed scores."""

import study
from idc_networks_page import difference_blocks, flat_row, planned_differences, score_row

from histofeat.reporting import Heading, Notice, Table, Text, number, score_with_interval

__all__ = ["card_blocks", "make_page"]

#: Whose scores on perturbed patches the model card shows.
_ON_CARD = ("histo, XGBoost", "handcrafted")


def make_page(
    fitted, perturbed, carried, cost, *, words, planned, metrics, targets, threshold, official
):  # fmt: skip
    """Turn what was measured into a study.

    Parameters
    ----------
    fitted : mapping of str to Fitted
        One evaluation a model, all of the same tested patches.
    perturbed : DataFrame
        Rows of `histofeat.studies.RobustnessRow`.
    carried : mapping of int to Evaluation or str
        BreakHis by magnification; the reason where it could not be evaluated.
    cost : mapping
        ``patches``, ``seconds`` by number of views, ``engine``.
    words : str
        Whose patches were tested.
    planned, metrics, targets : as in `idc_encoder`
    threshold : str
        What the tuned threshold is chosen for, in words.
    official : bool
        Whether the official test patients were tested.

    Returns
    -------
    Study
    """
    import pandas as pd

    rows = [score_row(name, entry) for name, entry in fitted.items() if entry.evaluation.models]
    missing = tuple(f"{name}: {gone.reason}" for name, fit in fitted.items() for gone in fit.evaluation.not_run)
    differences, refusal = planned_differences(fitted, planned, metrics)
    breakhis = {power: breakhis_rows(found) for power, found in carried.items()}
    blocks = [
        *(target_notices(rows, targets) if official else ()),
        *([Notice("warning", "Not run", missing)] if missing else []),
        *score_blocks(rows, words, threshold),
        *difference_blocks(differences, refusal, words),
        *perturbed_blocks(perturbed),
        *breakhis_blocks(breakhis, carried),
        *cost_blocks(cost, rows),
    ]
    results = {
        "tested": words, "models": rows, "differences": differences, "differences_refused": refusal,
        "perturbed": perturbed.to_dict("records"), "breakhis": breakhis, "views": cost, "not_run": missing,
    }  # fmt: skip
    tables = {"models": [flat_row(row) for row in rows], "differences": [flat_row(row) for row in differences]}
    frames = {name: pd.DataFrame(found) for name, found in tables.items() if found} | {"perturbed": perturbed}
    return study.Study("The shipped encoder on patients it never saw", tuple(blocks), results, frames)


def target_notices(rows, targets):
    """Say of each target whether it is reached, by the best of the models that it is asked of."""
    for asked, (metric, value) in targets.items():
        both = asked.startswith("both")
        models = [row for row in rows if "histo" in row["name"] and row["name"].startswith("handcrafted") == both]
        if not models:
            continue
        best = max(models, key=lambda row: row[metric]["pooled"])
        reached = best[metric]["pooled"] >= value
        yield Notice(
            "info" if reached else "warning",
            f"{metric.replace('_', ' ')} {value:.3f} {'with' if both else 'without'} handcrafted features: "
            f"{'reached' if reached else 'not reached'}",
            (f"{best['name']}: {score_with_interval(best[metric])}, the best of {len(models)}.",),
        )


def score_blocks(rows, words, threshold):
    """Scores of the test patients."""
    yield Heading("Scores")
    metrics = ("roc_auc", "balanced_accuracy", "f1")
    cells = tuple((row["name"], *(score_with_interval(row[metric]) for metric in metrics)) for row in rows)
    columns = ("Model", "ROC-AUC [95 % interval]", "Balanced accuracy [95 % interval]", "F1 [95 % interval]")
    yield Table(f"{words[:1].upper()}{words[1:]}.", columns, cells, n_text=1)
    if any("late vote" in row["name"] for row in rows):
        yield Text(
            "Late vote: the mean of the probabilities of XGBoost and SVM on the handcrafted features and of a logistic "
            "head on the embedding alone (benchmarks/late_vote.py), chosen on patients of the training side.",
            muted=True,
        )
    yield Text(
        f"Balanced accuracy and F1 at a threshold chosen for {threshold} among training patients, in inner folds. The "
        "encoder learnt from these training patients too: heads, and thresholds with them, see embeddings of patients "
        "whom it knows, and take them for better than they are. Intervals resample the tested patients; they do not "
        "cover training again. The encoder was trained once.",
        muted=True,
    )


def perturbed_blocks(table):
    """Drops on perturbed patches of the test patients."""
    yield Heading("On perturbed patches")
    yield Text("Heads are fitted on the patches as they are; the same test patients are scored on perturbed patches.")
    models = list(dict.fromkeys(table["pipeline"]))
    clean = table[table["perturbation"] == "none"].set_index("pipeline")
    cells = [("none", *(f"{clean.loc[name, 'value']:.3f}" for name in models))]
    steps = table[table["perturbation"] != "none"]
    for (perturbation, severity), found in steps.groupby(["perturbation", "severity"], sort=False):
        by = found.set_index("pipeline")
        shown = (
            f"{by.loc[name, 'value']:.3f} ({by.loc[name, 'drop']:+.3f} [{by.loc[name, 'drop_low']:+.3f}, "
            f"{by.loc[name, 'drop_high']:+.3f}])"
            for name in models
        )
        cells.append((f"{perturbation.replace('_', ' ')}, step {severity:+d}", *shown))
    yield Table("ROC-AUC (drop [95 % interval])", ("Perturbation", *models), tuple(cells), n_text=1)


def breakhis_rows(found):
    """One row a model, or the reason why there are none."""
    if isinstance(found, str):
        return found
    return [
        {
            "name": model.name,
            "roc_auc": {"pooled": model.scores["roc_auc"].pooled, "ci95": list(model.scores["roc_auc"].ci95)},
            "n_patches": int(found.tested.sum()),
            "n_patients": len(set(found.dataset.patients[found.tested])),
        }
        for model in found.models
    ]


def breakhis_blocks(breakhis, carried):
    """Benign against malignant on BreakHis."""
    yield Heading("On BreakHis, of which the encoder never saw an image")
    if not carried:
        yield Text("There was no BreakHis to score.")
    for power, rows in breakhis.items():
        if isinstance(rows, str):
            yield Text(f"At {power}X: not evaluated. {rows}")
            continue
        cells = tuple((row["name"], score_with_interval(row["roc_auc"])) for row in rows)
        images, patients = (rows[0][key] if rows else 0 for key in ("n_patches", "n_patients"))
        yield Table(
            f"{power}X: {images} images of {patients} patients, benign against malignant, three folds of patients.",
            ("Model", "ROC-AUC [95 % interval]"), cells, n_text=1,
        )  # fmt: skip
    yield Text("Whole images are resized to the encoder's 50 px. So few patients tell no two models apart.", muted=True)


def cost_blocks(cost, rows):
    """What eight views cost and bring."""
    yield Heading("Eight views")
    by = {row["name"]: row["roc_auc"]["pooled"] for row in rows}
    cells = tuple(
        (f"{views}", f"{cost['patches'] / seconds:,.0f}", f"{by.get(f'histo, {words}XGBoost', float('nan')):.3f}",
         f"{by.get(f'histo, {words}logistic', float('nan')):.3f}")
        for (views, seconds), words in zip(cost["seconds"].items(), ("", "8 views, "), strict=True)
    )  # fmt: skip
    columns = ("Views", "Patches a second", "ROC-AUC, XGBoost", "ROC-AUC, logistic")
    yield Table(f"{cost['patches']:,} decoded patches of 50x50 px. {cost['engine']}", columns, cells, n_text=1)


def card_blocks(results):
    """What the model card says of the scores, from the results of a finished report.

    Parameters
    ----------
    results : mapping
        "results" of its ``metrics.json``.

    Yields
    ------
    block
    """
    import pandas as pd

    words = results["tested"]
    cells = tuple(
        (row["name"], score_with_interval(row["roc_auc"]), score_with_interval(row["balanced_accuracy"]))
        for row in results["models"]
    )
    columns = ("Model", "ROC-AUC [95 % interval]", "Balanced accuracy [95 % interval]")
    yield Table(f"{words[:1].upper()}{words[1:]}.", columns, cells, n_text=1)
    rows = [row for row in results["differences"] if row["metric"] == "roc_auc"]
    if rows:
        shown = tuple(
            (row["first"], row["second"],
             f"{row['difference']:+.3f} [{row['ci95'][0]:+.3f}, {row['ci95'][1]:+.3f}]", number(row["p_holm"], 3))
            for row in rows
        )  # fmt: skip
        columns = ("First", "Second", "First less second [95 % interval]", "p, Holm")
        adjusted = f"p is adjusted for all {len(results['differences'])} differences of the report"
        yield Table(f"ROC-AUC of pairs planned before any score was seen; {adjusted}.", columns, shown, n_text=2)
    table = pd.DataFrame(results["perturbed"])
    blocks = [*perturbed_blocks(table[table["pipeline"].isin(_ON_CARD)])]
    blocks += breakhis_blocks(results["breakhis"], results["breakhis"])
    # A card has sections of its own.
    yield from (Heading(block.text, 3) if isinstance(block, Heading) else block for block in blocks)
