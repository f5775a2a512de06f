"""The page of the explanation study: words, tables and figures from what was measured."""

from explanation_chart import draw_costs
from study import Study

__all__ = ["make_study"]

TITLE = "Explanation: what the score rests on, and what it costs"
KIND_WORDS = {
    "family": "families",
    "group": "groups by name",
    "correlated": "groups of correlated columns",
    "feature": "single features",
}


def make_study(found, dataset, options):
    """Everything that `write_study` needs."""
    importance, ablation, costs = found["handcrafted_importance"], found["ablation"], found["costs"]
    tables = {
        "importance_handcrafted": importance.to_frame(),
        "correlated_groups": members_table(importance),
        "ablation": ablation.to_frame().drop(columns="predict_us"),
        "cost": costs.to_frame(),
    }
    figures = {
        "families": parts_figure(importance, ("family", "group"), None, "Families and groups permuted, handcrafted"),
        "features": parts_figure(importance, ("feature",), 20, "Single features permuted: the twenty largest drops"),
        "ablation": ablation_figure(ablation),
        "cost": cost_figure(costs),
    }
    if "importance" in found:
        tables["importance_with_network"] = found["importance"].to_frame()
        figures["families_with_network"] = parts_figure(
            found["importance"], ("family", "group"), None, "Families and groups permuted, with the network"
        )
    results = {
        "handcrafted": importance_results(importance),
        "with_network": importance_results(found["importance"]) if "importance" in found else None,
        "ablation": tables["ablation"].to_dict("records"),
        "cost": tables["cost"].to_dict("records"),
        "not_run": {} if found["not_run"] is None else {"cnn": found["not_run"]},
        "settings": {
            "head": options.head,
            "folds": found["folds"],
            "repeats": importance.n_repeats,
            "resamples": options.resamples,
            "timed_patches": costs.n_patches,
        },
        "decode_us": costs.decode_us,
        "seconds": found["seconds"],
        "dataset": dataset.audit.to_dict(),
    }
    return Study(TITLE, tuple(page(found, dataset, options)), results, tables=tables, figures=figures)


def importance_results(importance):
    """What ``metrics.json`` holds of one importance: the model, and every part."""
    return {
        "roc_auc": importance.roc_auc,
        "ci95": importance.ci95,
        "n_patients": importance.n_patients,
        "n_patches": importance.n_patches,
        "parts": importance.to_frame().to_dict("records"),
    }


def page(found, dataset, options):
    """Blocks from top to bottom."""
    from histofeat.reporting import Notice, Text

    yield Text(headline(found))
    if found["not_run"] is not None:
        yield Notice("warning", "Not run", (f"cnn: {found['not_run']}",))
    families = ", ".join(found["ablation"].row("all").families)
    yield Text(
        f"{dataset.name}, {len(dataset):,} patches of {dataset.audit.n_patients:,} patients outside the official test "
        f"set. Heads ({options.head}) are fitted in {found['folds']} folds of patients on {families}; every number is "
        "of patients held out, pooled over the folds. Intervals are 95 %, from resampling patients, the same for all: "
        "they cover other patients, not another fit, and each stands for itself."
    )
    yield from permutation_blocks(found, options)
    yield from ablation_blocks(found["ablation"])
    yield from cost_blocks(found, options)


def headline(found):
    """Say what matters most."""
    ablation, importance = found["ablation"], found["handcrafted_importance"]
    whole = ablation.row("all")
    without = min((row for row in ablation.rows if row.kind == "without"), key=lambda row: row.difference)
    alone = max((row for row in ablation.rows if row.kind == "alone"), key=lambda row: row.roc_auc)
    group, feature = importance.largest("group", 1)[0], importance.largest("feature", 1)[0]
    return (
        f"All families together reach a ROC-AUC of {whole.roc_auc:.3f}. Of the models without one of them, the one "
        f"{without.name} is worst ({without.difference:+.4f}); the best family by itself is {alone.families[0]} "
        f"({alone.roc_auc:.3f}). Of the handcrafted groups, {group.name} is worth most to a fitted model (permuted, it "
        f"costs {group.drop:.3f}); no single feature costs more than {feature.drop:.4f} ({feature.name})."
    )


# --- permutation -----------------------------------------------------------------------------------------------------


def permutation_blocks(found, options):
    """Families, groups and single features of the handcrafted set; families and groups with the network."""
    from histofeat.reporting import Details, Heading, Picture, Text

    importance = found["handcrafted_importance"]
    yield Heading("What a fitted model leans on")
    yield Text(
        f"Values are exchanged at random among the held-out patches of a fold, {times(importance.n_repeats)}, and the "
        "same head scores the patches again; the drop is in pooled ROC-AUC, from "
        f"{cell(importance.roc_auc, importance.ci95)} with nothing exchanged. Columns that say the same hide each "
        "other: exchanged alone, each costs little, because the head reads it from the others. So columns are "
        "exchanged together, by family; by name (the histogram and moments of one channel, the texture of one channel, "
        "LBP of one radius); and by correlation (every two columns of a group with an absolute rank correlation of at "
        "least 0.9, whatever their family)."
    )
    yield Picture(
        "figures/families.svg",
        "A row for each family and each group by name: the drop in ROC-AUC with its interval.",
        "Drop in ROC-AUC when all columns of a family or group are exchanged together.",
    )
    yield parts_table(importance, "family", None, "Families, handcrafted")
    yield parts_table(importance, "group", None, "Groups by name, handcrafted")
    yield parts_table(importance, "correlated", 20, "Groups of correlated columns: the twenty largest drops")
    yield Text(correlated_words(importance), muted=True)
    yield Picture(
        "figures/features.svg",
        "A row for each of the twenty single features with the largest drops.",
        "Single features. A feature that is missing here may still carry what its neighbours carry, too.",
    )
    yield Details("The twenty single features", (parts_table(importance, "feature", 20, "Single features"),))
    if "importance" in found:
        yield Heading("With the network")
        yield Text(
            f"The same for a model of all families, with a ROC-AUC of "
            f"{cell(found['importance'].roc_auc, found['importance'].ci95)}. The {network_columns(found)} columns of "
            "the embedding have no names of their own and are exchanged together only."
        )
        yield parts_table(found["importance"], "family", None, "Families, the network among them")
        yield Picture(
            "figures/families_with_network.svg",
            "A row for each family and each group by name of the model with the network.",
            "Drop in ROC-AUC when all columns of a family or group are exchanged together, the network among them.",
        )


def network_columns(found):
    """Columns of the embedding, in words."""
    (network,) = [part for part in found["importance"].parts if (part.by, part.name) == ("family", "cnn")]
    return f"{len(network.columns):,}"


def correlated_words(importance):
    """How the columns fall into correlated groups."""
    groups = importance.largest("correlated", n=None)
    joined = [group for group in groups if len(group.columns) > 1]
    across = sum(len({name.partition("_")[0] for name in group.columns}) > 1 for group in joined)
    n_columns = sum(len(group.columns) for group in groups)
    return (
        f"The {n_columns:,} columns fall into {len(groups):,} such groups; {len(joined):,} hold two columns or more, "
        f"{across:,} of them from more than one family, the largest {max(len(g.columns) for g in groups):,}. Which "
        "columns are in which is in correlated_groups.csv."
    )


def members_table(importance):
    """Column names of every correlated group."""
    import pandas as pd

    rows = [(group.name, name) for group in importance.largest("correlated", n=None) for name in group.columns]
    return pd.DataFrame(rows, columns=["group", "column"])


def parts_table(importance, kind, n, caption):
    """Drops of one kind of part."""
    from histofeat.reporting import Table

    rows = [
        (part.name, f"{len(part.columns):,}", cell(part.drop, part.ci95, 4), f"{part.repeats_sd:.4f}")
        for part in importance.largest(kind, n)
    ]
    return Table(caption, ("Exchanged", "Columns", "Drop in ROC-AUC", "SD over permutations"), tuple(rows))


def parts_figure(importance, kinds, n, title):
    """Drops of some kinds of part, for `draw_intervals`."""
    from histofeat.reporting import draw_intervals

    rows = [
        {"name": part.name, "value": part.drop, "low": part.ci95[0], "high": part.ci95[1], "group": KIND_WORDS[kind]}
        for kind in kinds
        for part in importance.largest(kind, n)
    ]
    return draw_intervals, {"title": title, "x_label": "drop in ROC-AUC, 95 % interval over patients", "reference": 0.0,
                            "rows": rows}  # fmt: skip


# --- ablation --------------------------------------------------------------------------------------------------------


def ablation_blocks(ablation):
    """Fitted again without each family, and with each alone."""
    from histofeat.reporting import Heading, Picture, Table, Text

    yield Heading("What a model can do without")
    yield Text(
        "Here every set of families gets fits of its own. What others can stand in for costs little when it is left "
        "out, however much the model above leans on it. Differences are to all families, on the same resamples of the "
        "patients; p is adjusted for all rows of the table (Holm)."
    )
    rows = [
        (
            row.name,
            f"{row.n_columns:,}",
            cell(row.roc_auc, row.ci95),
            "" if row.kind == "all" else cell(row.difference, row.difference_ci95, 4, sign=True),
            "" if row.kind == "all" else f"{row.p_holm:.3g}",
        )
        for row in ablation.rows
    ]
    yield Table(
        "Families left out, and alone", ("Families", "Columns", "ROC-AUC", "Difference to all", "p (Holm)"), tuple(rows)
    )
    yield Picture(
        "figures/ablation.svg",
        "A row for each set of families: its difference in ROC-AUC to all families, with the interval.",
        "Difference in ROC-AUC to the model of all families; left of the dashed line something is missed.",
    )


def ablation_figure(ablation):
    """Differences to all families, for `draw_intervals`."""
    from histofeat.reporting import draw_intervals

    words = {"without": "one family left out", "alone": "one family alone", "given": "other sets"}
    rows = [
        {"name": row.name, "value": row.difference, "low": row.difference_ci95[0], "high": row.difference_ci95[1],
         "group": words[row.kind]}
        for row in ablation.rows if row.kind != "all"
    ]  # fmt: skip
    return draw_intervals, {"title": "ROC-AUC less that of all families", "reference": 0.0, "rows": rows,
                            "x_label": "difference in ROC-AUC, 95 % interval over patients"}  # fmt: skip


# --- cost ------------------------------------------------------------------------------------------------------------


def cost_blocks(found, options):
    """ROC-AUC against microseconds."""
    from histofeat.reporting import Heading, Picture, Table, Text

    costs = found["costs"]
    yield Heading("What it costs")
    yield Text(
        f"Microseconds of the processor for a patch, measured in this run on {costs.n_patches:,} patches, one thread, "
        "no store, the fastest of three passes: from decoded pixels to the feature row, and the head. Reading and "
        f"decoding the file comes on top of every set and takes {costs.decode_us:.0f}. Marked are the sets that no "
        "other one beats: as high a ROC-AUC for as little time. Where scores differ by less than their intervals are "
        "wide, the mark says little."
    )
    rows = [
        (
            row.name,
            f"{row.n_columns:,}",
            cell(row.roc_auc, row.ci95),
            f"{row.features_us:.0f}",
            f"{row.predict_us:.0f}",
            f"{row.total_us:.0f}",
            "yes" if row.on_front else "",
        )
        for row in costs.rows
    ]
    front = frozenset((position, 6) for position, row in enumerate(costs.rows) if row.on_front)
    columns = ("Families", "Columns", "ROC-AUC", "Features, µs", "Head, µs", "Both, µs", "Not beaten")
    yield Table("ROC-AUC against microseconds a patch, the cheapest first", columns, tuple(rows), best=front)
    yield Picture(
        "figures/cost.svg",
        "ROC-AUC of each set of families against microseconds a patch, with the Pareto front.",
        "ROC-AUC against microseconds a patch (features and head, one thread, decoding not counted); the numbers are "
        "the rows of the table.",
    )
    total = sum(found["seconds"].values())
    yield Text(f"All of this took {total / 60:.1f} minutes with {threads(options)}.", muted=True)


def threads(options):
    """The threads of the run, in words."""
    import joblib

    n = joblib.effective_n_jobs(options.n_jobs)
    return f"{n} thread" if n == 1 else f"{n} threads"


def cost_figure(costs):
    """Points for `draw_costs`."""
    points = [
        {"name": row.name, "x": row.total_us, "y": row.roc_auc, "low": row.ci95[0], "high": row.ci95[1],
         "on_front": row.on_front}
        for row in costs.rows
    ]  # fmt: skip
    return draw_costs, {
        "title": "ROC-AUC against time",
        "x_label": "microseconds a patch, features and head, one thread",
        "y_label": "ROC-AUC, patients held out",
        "points": points,
    }


def times(n):
    """How often, in words."""
    return "once" if n == 1 else f"{n} times"


def cell(value, interval, digits=3, *, sign=False):
    """Write a value with its interval."""
    number = f"{'+' if sign else ''}.{digits}f"
    return f"{value:{number}} [{interval[0]:{number}}, {interval[1]:{number}}]"
