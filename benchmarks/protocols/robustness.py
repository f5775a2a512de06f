"""How much stain, blur, compression, light and orientation cost each feature family on patients not seen before.

    python benchmarks/protocols/robustness.py --data /path/to/idc --weights /path/to/weights

Every family is fitted on patches as they are, in folds of patients, and scored on perturbed patches of the patients
held out. On the IDC patients outside the official test set. Writes reports/robustness.
"""

import sys
from pathlib import Path

from histofeat.features import Runtime

REPOSITORY = Path(__file__).resolve().parents[2]
# Also where this file is loaded from elsewhere; a script finds what lies beside it by itself.
sys.path[:0] = [str(REPOSITORY / "benchmarks"), str(REPOSITORY / "benchmarks" / "protocols")]

import run_all  # noqa: E402
from family_pipelines import family_pipelines, not_run_notice  # noqa: E402
from study import Study, command_line, development_patients, run_command, study_parser, write_study  # noqa: E402

PROGRAM = "robustness.py"
FEATURE_SETS = ("color", "lbp", "haralick", "pftas", "handcrafted", "cnn", "everything")
TITLE = "Robustness: ROC-AUC under perturbed patches"
#: The worst of each direction, for a quick run.
QUICK_CONDITIONS = (("stain_balance", -4), ("stain_balance", 4), ("blur", 4), ("jpeg", 4), ("turn", 1))


def make_parser():
    """Give the parser."""
    parser = study_parser(PROGRAM, "Score families on perturbed patches of held-out patients.", "robustness")
    add = parser.add_argument
    add("--features", nargs="+", default=list(FEATURE_SETS), metavar="SET",
        help=f"feature sets: {', '.join(run_all.FEATURE_SETS)} (default: {' '.join(FEATURE_SETS)})")  # fmt: skip
    add("--folds", type=int, default=5, help="folds of patients (default: 5)")
    add("--patches-per-patient", type=int, default=20, metavar="N",
        help="tested patches of a patient, at most (default: 20)")  # fmt: skip
    add("--resamples", type=int, default=2000, metavar="N", help="resamples of the patients (default: 2000)")
    return parser


def run(options):
    """Load, measure, write."""
    from histofeat import PatientKFold
    from histofeat.reporting import check_output
    from histofeat.studies import measure_robustness

    check_output(options.output, overwrite=options.overwrite, option="--overwrite")
    pipelines, not_run = family_pipelines(options)
    dataset = development_patients(options)
    print(f"{dataset.name}: {len(dataset):,} patches of {dataset.audit.n_patients:,} patients", flush=True)
    with run_all.make_progress() as progress:
        found = measure_robustness(
            dataset,
            pipelines,
            PatientKFold(options.folds, random_state=options.seed),
            conditions=QUICK_CONDITIONS if options.quick else None,
            patches_per_patient=options.patches_per_patient,
            n_resamples=options.resamples,
            random_state=options.seed,
            runtime=Runtime(n_jobs=options.n_jobs, store=options.store, progress=progress),
        )
    study = make_study(found, pipelines, not_run, dataset, options)
    report = write_study(study, options, command=command_line(f"protocols/{PROGRAM}", make_parser(), options))
    print(study.blocks[0].text)
    print(f"report: {report}")


# --- the page --------------------------------------------------------------------------------------------------------


def make_study(found, pipelines, not_run, dataset, options):
    """Words, tables and figures from what was measured."""
    table = found.to_frame()
    results = {
        "rows": table.to_dict("records"),
        "n_tested_patients": found.n_patients,
        "n_tested_patches": found.n_patches,
        "n_training_patches": len(dataset),
        "folds": options.folds,
        "not_run": not_run,
        "dataset": dataset.audit.to_dict(),
    }
    return Study(
        TITLE,
        tuple(page(found, table, pipelines, not_run, dataset, options)),
        results,
        tables={"robustness": table},
        figures={"curves": curves_figure(table), "drops": drops_figure(table)},
    )


def page(found, table, pipelines, not_run, dataset, options):
    """Blocks from top to bottom."""
    from histofeat.reporting import Details, Heading, Picture, Text

    auc = table[table["metric"] == "roc_auc"]
    yield Text(headline(auc))
    yield from not_run_notice(not_run)
    yield Text(
        f"{dataset.name}, {len(dataset):,} patches of {dataset.audit.n_patients:,} patients outside the official test "
        f"set. Heads (XGBoost) are fitted on the patches as they are, in {options.folds} folds of patients; the "
        f"patients held out are scored out of fold on {found.n_patches:,} patches, at most "
        f"{options.patches_per_patient} of each patient, drawn at random and the same for every perturbation. A drop "
        "is the ROC-AUC without less that with the perturbation; its interval is from resampling the same patients for "
        "both, and covers other patients, not another fit. Intervals are 95 %, each for itself."
    )
    yield Picture(
        "figures/curves.svg",
        "A panel for each perturbation: ROC-AUC of every feature set against the severity.",
        "ROC-AUC against severity; 0 is the patch as it came. What the steps are stands in the tables below.",
    )
    yield Heading("The strongest step of each perturbation")
    yield worst_table(auc)
    yield Picture(
        "figures/drops.svg",
        "A row for each feature set and perturbation: the drop at its worst step, with its interval.",
        "The larger drop of both directions at the strongest step; right of the dashed line the perturbation costs.",
    )
    yield Heading("Quarter turns")
    yield turn_table(auc, pipelines)
    yield Heading("Every step")
    for perturbation in dict.fromkeys(auc["perturbation"]):
        if perturbation != "none":
            yield Details(words(perturbation), (steps_table(auc, perturbation),))
    yield Details("Balanced accuracy at probability 0.5", (worst_table(table[table["metric"] == "balanced_accuracy"]),))


def words(perturbation):
    """A perturbation as a person reads it, with the quantity of its steps."""
    from histofeat.images import PERTURBATIONS

    return f"{perturbation.replace('_', ' ')}: {PERTURBATIONS[perturbation].quantity}"


def headline(auc):
    """Say what costs most, and which set loses least."""
    clean = auc[auc["perturbation"] == "none"].set_index("pipeline")["value"]
    worst = auc.loc[auc["drop"].idxmax()]
    bent = auc[~auc["perturbation"].isin(["none", "turn"])]
    mean = bent.groupby("pipeline", sort=False)["drop"].mean()
    return (
        f"Without perturbation the best set is {clean.idxmax()} with a ROC-AUC of {clean.max():.3f}. Over all steps "
        f"but turns, {mean.idxmin()} loses least ({mean.min():.3f} on average) and {mean.idxmax()} most "
        f"({mean.max():.3f}). The largest single drop is {worst['drop']:.3f}: {worst['pipeline']} under "
        f"{worst['perturbation'].replace('_', ' ')} {worst['severity']:+d}."
    )


def cell(value, low, high):
    """Write a value with its interval; nothing is "-0.000"."""
    value, low, high = (round(number, 3) + 0.0 for number in (value, low, high))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def strongest(auc):
    """The rows of the strongest steps: of two directions the one that costs more."""
    bent = auc[auc["perturbation"] != "none"]
    steps = bent["severity"].abs()
    top = bent[steps == steps.groupby(bent["perturbation"]).transform("max")]
    return top.loc[top.groupby(["pipeline", "perturbation"], sort=False)["drop"].idxmax()]


def worst_table(rows):
    """Drops at the strongest step, a row for each feature set."""
    from histofeat.reporting import Table

    top = strongest(rows).set_index(["pipeline", "perturbation"])
    clean = rows[rows["perturbation"] == "none"].set_index("pipeline")
    names = [name for name in dict.fromkeys(rows["perturbation"]) if name != "none"]
    body = []
    for pipeline in clean.index:
        base = clean.loc[pipeline]
        drops = [top.loc[(pipeline, name)] for name in names]
        cells = [f"{cell(row['drop'], row['drop_low'], row['drop_high'])} at {row['severity']:+d}" for row in drops]
        body.append((pipeline, cell(base["value"], base["low"], base["high"]), *cells))
    return Table(
        "Value without perturbation, and the drop at the strongest step (the worse direction) with its 95 % interval",
        ("Features", "As it came", *(name.replace("_", " ") for name in names)),
        tuple(body),
    )


def turn_table(auc, pipelines):
    """What quarter turns change, and which sets promise that they change nothing."""
    from histofeat.reporting import Table

    turned = auc[auc["perturbation"] == "turn"]
    body = []
    for name, pipeline in pipelines.items():
        rows = turned[turned["pipeline"] == name]
        promised = all(family._invariant_to_turns for family in pipeline.families())
        worst = rows.loc[rows["drop"].abs().idxmax()]
        drop = cell(worst["drop"], worst["drop_low"], worst["drop_high"])
        body.append((name, "yes" if promised else "no", f"{rows['largest_change'].max():.2g}", drop))
    return Table(
        "A patch turned by 90, 180 and 270 degrees: the largest change of any probability, and of the ROC-AUC",
        ("Features", "Promise no change", "Largest change of a probability", "Drop in ROC-AUC, the largest either way"),
        tuple(body),
        n_text=2,
    )


def steps_table(auc, perturbation):
    """ROC-AUC and drop of one perturbation at every step."""
    from histofeat.reporting import Table

    rows = auc[auc["perturbation"] == perturbation].sort_values("severity", kind="stable")
    steps = list(dict.fromkeys(zip(rows["severity"], rows["amount"], strict=True)))
    body = []
    for pipeline in dict.fromkeys(auc["pipeline"]):
        by_step = rows[rows["pipeline"] == pipeline].set_index("severity")
        cells = [cell(*by_step.loc[step, ["drop", "drop_low", "drop_high"]]) for step, _ in steps]
        body.append((pipeline, *cells))
    return Table(
        f"Drop in ROC-AUC with its 95 % interval; {words(perturbation)}",
        ("Features", *(f"{step:+d}: {amount:.3g}" for step, amount in steps)),
        tuple(body),
    )


def curves_figure(table):
    """ROC-AUC against severity, for `draw_lines`."""
    from histofeat.reporting import draw_lines

    auc = table[table["metric"] == "roc_auc"]
    panels = []
    for perturbation in dict.fromkeys(auc["perturbation"]):
        if perturbation == "none":
            continue
        lines = []
        for pipeline in dict.fromkeys(auc["pipeline"]):
            own = auc[(auc["pipeline"] == pipeline) & auc["perturbation"].isin(["none", perturbation])]
            own = own.sort_values("severity")
            lines.append({"name": pipeline, "x": own["severity"].tolist(), "y": own["value"].tolist()})
        panels.append({"title": perturbation.replace("_", " "), "lines": lines})
    return draw_lines, {
        "title": "ROC-AUC on perturbed patches of held-out patients",
        "x_label": "severity",
        "y_label": "ROC-AUC",
        "panels": panels,
    }


def drops_figure(table):
    """Drops at the strongest steps, for `draw_intervals`."""
    from histofeat.reporting import draw_intervals

    top = strongest(table[(table["metric"] == "roc_auc") & (table["perturbation"] != "turn")])
    rows = [
        {
            "name": f"{row.perturbation.replace('_', ' ')} {row.severity:+d}: {row.pipeline}",
            "value": row.drop,
            "low": row.drop_low,
            "high": row.drop_high,
            "group": row.perturbation.replace("_", " "),
        }
        for perturbation in dict.fromkeys(top["perturbation"])
        for row in top[top["perturbation"] == perturbation].itertuples()
    ]
    return draw_intervals, {
        "title": "Drop in ROC-AUC at the strongest step",
        "x_label": "drop in ROC-AUC, 95 % interval over patients",
        "reference": 0.0,
        "rows": rows,
    }


def main(arguments=None):
    """Run the study; returns the exit code."""
    return run_command(PROGRAM, run, make_parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
