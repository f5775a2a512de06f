"""How many training patients it takes: ROC-AUC against their number, and against as many patches spread over all.

    python benchmarks/protocols/learning_curves.py --data /path/to/idc --weights /path/to/weights

In folds of patients, on the IDC patients outside the official test set. Writes reports/learning-curves.
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

PROGRAM = "learning_curves.py"
FEATURE_SETS = ("handcrafted", "cnn", "everything")
TITLE = "Learning curves in patients"
QUICK = {"sizes": [6, 12], "draws": 2}


def make_parser():
    """Give the parser."""
    parser = study_parser(PROGRAM, "Score feature sets by the number of training patients.", "learning-curves")
    add = parser.add_argument
    add("--features", nargs="+", default=list(FEATURE_SETS), metavar="SET",
        help=f"feature sets: {', '.join(run_all.FEATURE_SETS)} (default: {' '.join(FEATURE_SETS)})")  # fmt: skip
    add("--sizes", nargs="+", type=int, default=[10, 20, 40, 80], metavar="N",
        help="numbers of training patients, before all of them (default: 10 20 40 80)")  # fmt: skip
    add("--draws", type=int, default=5, help="orders of the training patients in each fold (default: 5)")
    add("--folds", type=int, default=5, help="folds of patients (default: 5)")
    add("--resamples", type=int, default=2000, metavar="N", help="resamples of the patients (default: 2000)")
    return parser


def run(options):
    """Load, measure, write."""
    from histofeat.reporting import check_output

    check_output(options.output, overwrite=options.overwrite, option="--overwrite")
    pipelines, not_run = family_pipelines(options)
    dataset = development_patients(options)
    print(f"{dataset.name}: {len(dataset):,} patches of {dataset.audit.n_patients:,} patients", flush=True)
    curves = measure(dataset, pipelines, options)
    study = make_study(curves, not_run, dataset, options)
    report = write_study(study, options, command=command_line(f"protocols/{PROGRAM}", make_parser(), options))
    print(study.blocks[0].text)
    print(f"report: {report}")


def measure(dataset, pipelines, options):
    """One curve for each pipeline, as a table; features are measured once."""
    import numpy as np
    import pandas as pd

    from histofeat import PatientKFold
    from histofeat.features import extract
    from histofeat.studies import learning_curve

    settled = QUICK if options.quick else {"sizes": options.sizes, "draws": options.draws}
    families = {family.family: family for pipeline in pipelines.values() for family in pipeline.families()}
    measured = extract(list(families.values()), dataset.X, n_jobs=options.n_jobs, store=options.store)
    features = dict(zip(families, measured.features, strict=True))
    tables = []
    for name, pipeline in pipelines.items():
        print(f"{name}:", flush=True)
        with run_all.make_progress() as progress:
            curve = learning_curve(
                np.hstack([features[family.family] for family in pipeline.families()]),
                dataset.y,
                dataset.patients,
                pipeline.make_head(),
                PatientKFold(options.folds, random_state=options.seed),
                n_patients=settled["sizes"],
                n_draws=settled["draws"],
                n_resamples=options.resamples,
                random_state=options.seed,
                runtime=Runtime(n_jobs=options.n_jobs, progress=progress),
            )
        tables.append(curve.to_frame().assign(pipeline=name))
    table = pd.concat(tables, ignore_index=True)
    return table[["pipeline", *(column for column in table.columns if column != "pipeline")]]


# --- the page --------------------------------------------------------------------------------------------------------


def make_study(table, not_run, dataset, options):
    """Words, tables and figures from what was measured."""
    results = {
        "rows": table.to_dict("records"),
        "metric": "roc_auc",
        "folds": options.folds,
        "not_run": not_run,
        "dataset": dataset.audit.to_dict(),
    }
    blocks = tuple(page(table, not_run, dataset, options))
    return Study(TITLE, blocks, results, {"learning_curves": table}, {"curves": curves_figure(table)})


def page(table, not_run, dataset, options):
    """Blocks from top to bottom."""
    from histofeat.reporting import Heading, Picture, Text

    yield Text(headline(table))
    yield from not_run_notice(not_run)
    yield Text(
        f"{dataset.name}, {len(dataset):,} patches of {dataset.audit.n_patients:,} patients outside the official test "
        f"set. In each of {options.folds} folds of patients, the training patients are put in a random order "
        f"({int(table['n_draws'].max())} times) and the first are taken with all their patches; beside it, as many "
        "patches are drawn from all training patients of the fold. The tested patients are the same everywhere: all of "
        "them, out of fold. The head is XGBoost with its default settings."
    )
    yield Picture(
        "figures/curves.svg",
        "A panel for each feature set: ROC-AUC against the number of training patients, with patches spread beside it.",
        "ROC-AUC out of fold, mean over draws; bands are 95 % intervals over the tested patients.",
    )
    for pipeline in dict.fromkeys(table["pipeline"]):
        yield Heading(pipeline)
        yield points_table(table[table["pipeline"] == pipeline])
    yield Text(
        "Intervals are from resampling the tested patients, with the draws as they are; the standard deviation over "
        "draws says what other training patients would change. Both add up. Larger draws hold the smaller ones, and "
        "near all patients the draws overlap, so that their spread shrinks by itself.",
        muted=True,
    )


def headline(table):
    """Say what the last doubling of the patients, and what spreading the patches, is worth."""
    sentences = []
    for pipeline in dict.fromkeys(table["pipeline"]):
        its = table[table["pipeline"] == pipeline]
        by_patient = its[its["sampling"] == "patients"]
        few, last = by_patient.iloc[0], by_patient.iloc[-1]
        gain = its[its["sampling"] == "patches - patients"].iloc[0]
        sentences.append(
            f"{pipeline}: {few['value']:.3f} with {few['n_patients']} training patients, {last['value']:.3f} with all "
            f"{last['n_patients']}; as many patches as {gain['n_patients']} patients have, spread over all, give "
            f"{gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]."
        )
    return " ".join(sentences)


def points_table(its):
    """ROC-AUC by size, of patients, of patches spread, and the difference."""
    from histofeat.reporting import Table

    by_key = its.set_index(["sampling", "n_patients"])
    body = []
    for row in its[its["sampling"] == "patients"].itertuples():
        cells = [f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]", over_draws(row)]
        if row.all_patients:
            cells += ["–"] * 3
        else:
            patches = by_key.loc[("patches", row.n_patients)]
            gain = by_key.loc[("patches - patients", row.n_patients)]
            cells += [f"{patches.value:.3f} [{patches.low:.3f}, {patches.high:.3f}]", over_draws(patches)]
            cells.append(f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
        name = f"all ({row.n_patients})" if row.all_patients else str(row.n_patients)
        body.append((name, f"{row.n_patches:,.0f}", *cells))
    return Table(
        "ROC-AUC out of fold with its 95 % interval, mean over draws",
        (
            "Training patients",
            "Patches",
            "All their patches",
            "SD over draws",
            "As many patches, spread over all patients",
            "SD over draws",
            "Spread less patients",
        ),
        tuple(body),
    )


def over_draws(row):
    """Standard deviation over draws; a dash for a single one."""
    return f"{row.spread:.3f}" if row.n_draws > 1 else "–"


def curves_figure(table):
    """ROC-AUC against training patients, for `draw_lines`."""
    from histofeat.reporting import draw_lines

    panels = []
    for pipeline in dict.fromkeys(table["pipeline"]):
        its = table[table["pipeline"] == pipeline]
        lines = []
        for sampling, name in (("patients", "patients"), ("patches", "as many patches, spread over all patients")):
            chosen = its[(its["sampling"] == sampling) | ((its["sampling"] == "patients") & its["all_patients"])]
            lines.append(
                {
                    "name": name,
                    "x": chosen["n_patients"].tolist(),
                    "y": chosen["value"].tolist(),
                    "low": chosen["low"].tolist(),
                    "high": chosen["high"].tolist(),
                }
            )
        for line in lines:
            order = sorted(range(len(line["x"])), key=line["x"].__getitem__)
            line |= {key: [line[key][at] for at in order] for key in ("x", "y", "low", "high")}
        panels.append({"title": pipeline, "lines": lines})
    return draw_lines, {
        "title": "ROC-AUC by the number of training patients",
        "x_label": "training patients",
        "y_label": "ROC-AUC",
        "x_log": True,
        "panels": panels,
    }


def main(arguments=None):
    """Run the study; returns the exit code."""
    return run_command(PROGRAM, run, make_parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
