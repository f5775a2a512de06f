"""What shortcuts reach on their own, and how well features recognise the patient.

    python benchmarks/protocols/shortcuts.py --data /path/to/idc --weights /path/to/weights

On the IDC patients outside the official test set, under folds of patients: classifiers on mean colour, background,
compression and blur, and coordinates, beside pipelines on the usual features; and patient identification by every
family. Writes reports/shortcuts.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from histofeat.features import Runtime

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "benchmarks"), str(REPOSITORY / "benchmarks" / "protocols")]

import run_all  # noqa: E402
from leakage import bar, data_words, flat  # noqa: E402
from study import Study, command_line, development_patients, run_command, study_parser, write_study  # noqa: E402

PROGRAM = "shortcuts.py"
FAMILIES = ("color", "lbp", "haralick", "pftas", "cnn")
#: What `run_all` takes as options and this study does not.
SETTLED = {"encoder": "mobilenetv2_0.35", "input_size": 128}


def make_parser():
    """Give the parser."""
    parser = study_parser(PROGRAM, "Score shortcuts alone, and identify patients by features.", "shortcuts")
    add = parser.add_argument
    add("--features", nargs="+", default=["handcrafted", "everything"], metavar="SET",
        help="feature sets of the models to hold shortcuts against (default: handcrafted everything)")  # fmt: skip
    add("--heads", nargs="+", default=["xgboost"], metavar="HEAD", help="their heads (default: xgboost)")
    add("--identify", nargs="+", default=list(FAMILIES), metavar="FAMILY",
        help=f"families to identify patients with (default: {' '.join(FAMILIES)})")  # fmt: skip
    add("--folds", type=int, default=5, help="folds of patients (default: 5)")
    add("--resamples", type=int, default=2000, metavar="N", help="resamples of the patients (default: 2000)")
    return parser


def run(options):
    """Load, evaluate the models, probe the shortcuts, write."""
    from histofeat.evaluation import evaluate
    from histofeat.model_selection import PatientKFold
    from histofeat.reporting import check_output
    from histofeat.studies import panel_of

    recipe = argparse.Namespace(**vars(options), **SETTLED)
    run_all.check_names(recipe)
    check_output(options.output, overwrite=options.overwrite, option="--overwrite")
    dataset = development_patients(options)
    print(f"{dataset.name}: {len(dataset):,} patches of {dataset.audit.n_patients:,} patients", flush=True)
    with tempfile.TemporaryDirectory(prefix="histofeat-", ignore_cleanup_errors=True) as scratch:
        # Kept for the panel, which wants the same features again.
        store = options.store or Path(scratch) / "features.sqlite"
        with run_all.make_progress() as progress:
            evaluation = evaluate(
                dataset,
                run_all.make_pipelines(recipe),
                PatientKFold(options.folds, random_state=options.seed),
                n_resamples=options.resamples,
                random_state=options.seed,
                runtime=Runtime(n_jobs=options.n_jobs, store=store, progress=progress),
            )
        panel = panel_of(
            evaluation, families_to_identify=families(recipe), runtime=Runtime(store=store, n_jobs=options.n_jobs)
        )
    study = make_study(panel, evaluation, dataset)
    report = write_study(study, options, command=command_line(f"protocols/{PROGRAM}", make_parser(), options))
    print(f"report: {report}")


def families(recipe):
    """Estimators of the families to identify, the network as in the pipelines."""
    named = dict.fromkeys(recipe.identify)
    unknown = next((name for name in named if name not in FAMILIES), None)
    if unknown is not None:
        raise ValueError(f"--identify: expected names of {', '.join(FAMILIES)}, got {unknown!r}. Correct the name.")
    one_each = argparse.Namespace(**{**vars(recipe), "features": list(named), "heads": ["logistic"]})
    return [family for _, pipeline in run_all.make_pipelines(one_each) for family in pipeline.families()]


def make_study(panel, evaluation, dataset):
    """Words, tables and figures from what was measured."""
    import pandas as pd

    from histofeat.reporting import Notice, Picture, Text, shortcut_blocks

    found = panel.to_dict()
    _, *blocks = shortcut_blocks(found)
    missing = [f"{entry.name}, {entry.head}: {entry.reason}" for entry in evaluation.not_run]
    page = [
        Text(f"{data_words(dataset)} Folds are of whole patients."),
        *([Notice("warning", "Models that did not run", tuple(missing))] if missing else []),
        *blocks,
        Picture("figures/shortcuts.svg", "ROC-AUC of each shortcut and of the model, with intervals.",
                "Shortcuts alone, and the best model. Dashed: chance."),
        Picture("figures/identification.svg", "Share of patches given to their own patient, per family of features.",
                "Patient identification. Dashed: guessing."),
        Text(f"Intervals: whole patients are drawn with replacement, {found['n_resamples']:,} times. Classifiers are "
             "not fitted again.", muted=True),
    ]  # fmt: skip
    tables = {
        "shortcuts": pd.DataFrame([flat(row) for row in found["rows"]]),
        "identification": pd.DataFrame([flat(row) for row in found["identification"]]),
    }
    figures = {"shortcuts": probes_figure(found), "identification": identification_figure(found)}
    results = {"panel": found, "dataset": dataset.audit.to_dict()}
    return Study("Shortcuts and patient identification", tuple(page), results, tables, figures)


def probes_figure(found):
    """ROC-AUC of shortcuts and model, for `draw_intervals`."""
    from histofeat.reporting import draw_intervals

    rows = [bar(row["name"].replace("_", " "), row["roc_auc"], row["ci95"], "shortcut") for row in found["rows"]]
    if found["reference"]:
        reference = found["reference"]
        rows.append(bar(f"model: {reference['name']}", reference["roc_auc"], reference["ci95"], "model"))
    return draw_intervals, {
        "title": "Shortcuts alone, under folds of patients",
        "x_label": "ROC-AUC, pooled out of fold, 95 % interval over patients",
        "reference": 0.5,
        "rows": rows,
    }


def identification_figure(found):
    """Accuracy of identification, for `draw_intervals`."""
    from histofeat.reporting import draw_intervals

    entries = found["identification"]
    return draw_intervals, {
        "title": "Patient identification by features",
        "x_label": "share of patches given to their own patient, 95 % interval over patients",
        "reference": entries[0]["chance"] if entries else None,
        "rows": [bar(entry["family"].replace("_", " "), entry["accuracy"], entry["ci95"], None) for entry in entries],
    }


def main(arguments=None):
    """Run the study; returns the exit code."""
    return run_command(PROGRAM, run, make_parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
