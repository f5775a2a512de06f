"""What stain normalisation is worth: Reinhard, Macenko and none before the families, on clean and on shifted stains.

    python benchmarks/protocols/normalization.py --data /path/to/idc --weights /path/to/weights

Normalisers are fitted on the training patients of each fold. On the IDC patients outside the official test set. Writes
reports/normalization.
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

PROGRAM = "normalization.py"
FEATURE_SETS = ("color", "haralick", "handcrafted", "cnn")
#: What stands before the families: the words of the tables, the name of the normaliser, and its unit.
ARMS = {
    "none": None,
    "Reinhard, patch": ("reinhard", "patch"),
    "Reinhard, patient": ("reinhard", "patient"),
    "Macenko, patch": ("macenko", "patch"),
    "Macenko, patient": ("macenko", "patient"),
}
CONDITIONS = (
    ("stain_balance", -4),
    ("stain_balance", -2),
    ("stain_balance", 2),
    ("stain_balance", 4),
    ("stain_strength", -4),
    ("stain_strength", 4),
)
QUICK_CONDITIONS = (("stain_balance", -4), ("stain_balance", 4))
TITLE = "Stain normalisation before each feature family"


def make_parser():
    """Give the parser."""
    parser = study_parser(PROGRAM, "Score families with and without stain normalisation.", "normalization")
    add = parser.add_argument
    add("--features", nargs="+", default=list(FEATURE_SETS), metavar="SET",
        help=f"feature sets: {', '.join(run_all.FEATURE_SETS)} (default: {' '.join(FEATURE_SETS)})")  # fmt: skip
    add("--folds", type=int, default=5, help="folds of patients (default: 5)")
    add("--patches-per-patient", type=int, default=20, metavar="N",
        help="tested patches of a patient, at most (default: 20)")  # fmt: skip
    # The smallest p-value is one in as many, and it is multiplied by the number of comparisons: 112.
    add("--resamples", type=int, default=10_000, metavar="N", help="resamples of the patients (default: 10000)")
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
            with_normalizers(pipelines),
            PatientKFold(options.folds, random_state=options.seed),
            conditions=QUICK_CONDITIONS if options.quick else CONDITIONS,
            patches_per_patient=options.patches_per_patient,
            metrics=("roc_auc",),
            n_resamples=options.resamples,
            random_state=options.seed,
            runtime=Runtime(n_jobs=options.n_jobs, store=options.store, progress=progress),
        )
    study = make_study(found, list(pipelines), not_run, dataset, options)
    report = write_study(study, options, command=command_line(f"protocols/{PROGRAM}", make_parser(), options))
    print(study.blocks[0].text)
    print(f"report: {report}")


def with_normalizers(pipelines):
    """Every pipeline behind every normaliser, by "features | normaliser"."""
    from sklearn.base import clone

    behind = {}
    for name, pipeline in pipelines.items():
        for arm, settings in ARMS.items():
            pipe = clone(pipeline)
            if settings is not None:
                pipe.set_params(normalizer=settings[0], normalizer__unit=settings[1])
            behind[key(name, arm)] = pipe
    return behind


def key(features, arm):
    """Name of a pipeline in the measurement."""
    return f"{features} | {arm}"


def compare(found, sets):
    """Every normaliser against none, on the same patches: a table with p-values adjusted for their number."""
    import pandas as pd

    from histofeat.metrics import bootstrap_p, holm
    from histofeat.studies import CLEAN

    values = {(row.pipeline, row.perturbation, row.severity): row for row in found.rows}
    conditions = list(dict.fromkeys((row.perturbation, row.severity) for row in found.rows))
    rows = []
    for features in sets:
        for arm in ARMS:
            for at in [CLEAN, *(at for at in conditions if at != CLEAN)]:
                row = values[key(features, arm), *at]
                common = {"features": features, "normalizer": arm, "perturbation": at[0], "severity": at[1]}
                common |= {"roc_auc": row.value, "low": row.low, "high": row.high}
                if arm != "none":
                    difference, paired = found.compare(key(features, arm), key(features, "none"), at)
                    low, high = paired.interval("roc_auc")
                    p = bootstrap_p(difference, paired.samples["roc_auc"])
                    common |= {"difference": difference, "difference_low": low, "difference_high": high, "p": p}
                rows.append(common)
    table = pd.DataFrame(rows)
    compared = table["difference"].notna()
    table.loc[compared, "p_holm"] = holm(table.loc[compared, "p"].to_numpy())
    return table


# --- the page --------------------------------------------------------------------------------------------------------


def make_study(found, sets, not_run, dataset, options):
    """Words, tables and figures from what was measured."""
    table = compare(found, sets)
    results = {
        "rows": table.to_dict("records"),
        "n_tested_patients": found.n_patients,
        "n_tested_patches": found.n_patches,
        "folds": options.folds,
        "not_run": not_run,
        "dataset": dataset.audit.to_dict(),
    }
    blocks = tuple(page(found, table, sets, not_run, dataset, options))
    figures = {f"differences-{features}": differences_figure(table, features) for features in sets}
    return Study(TITLE, blocks, results, {"normalization": table}, figures)


def page(found, table, sets, not_run, dataset, options):
    """Blocks from top to bottom."""
    from histofeat.reporting import Heading, Picture, Text

    yield Text(headline(table))
    yield from not_run_notice(not_run)
    yield Text(
        f"{dataset.name}, {len(dataset):,} patches of {dataset.audit.n_patients:,} patients outside the official test "
        f"set, {options.folds} folds of patients. Normalisers and heads (XGBoost) are fitted on the training patients "
        f"of each fold, on stains as they are; the patients held out are scored out of fold on {found.n_patches:,} "
        f'patches, at most {options.patches_per_patient} of each. "Patch" and "patient" say where the statistics of '
        "what is normalised come from: from each patch by itself, or from all tested patches of its patient, without "
        "their labels. Shifts of the stain are made before the normaliser sees the patch."
    )
    for features in sets:
        yield Heading(features)
        yield scores_table(table[table["features"] == features])
        yield Picture(
            f"figures/differences-{features}.svg",
            "A row for each stain and normaliser: ROC-AUC less that without normaliser, with its interval.",
            f"{features}: paired differences; right of the dashed line normalising helps.",
        )
        yield differences_table(table[table["features"] == features])
    yield Text(
        "Differences are paired: the same patches, the same resamples of the patients. Their intervals are 95 %, each "
        f"for itself, and cover other patients, not another fit. A star marks p < 0.05 after Holm's correction over "
        f"the {int(table['difference'].notna().sum())} differences of this page.",
        muted=True,
    )


def signed(number):
    """Write a difference; nothing is "-0.000"."""
    return f"{round(number, 3) + 0.0:+.3f}"


def words(perturbation, severity):
    """A condition as a person reads it."""
    return "as it came" if perturbation == "none" else f"{perturbation.replace('_', ' ')} {severity:+d}"


def headline(table):
    """Say what normalising costs on clean patches, and saves on shifted ones."""
    sentences = []
    for features, its in table[table["difference"].notna()].groupby("features", sort=False):
        clean = its[its["perturbation"] == "none"]
        best = clean.loc[clean["difference"].idxmax()]
        shifted = its[its["perturbation"] != "none"].groupby("normalizer", sort=False)["difference"].mean()
        sentences.append(
            f"{features}: on clean patches the best normaliser ({best['normalizer']}) changes the ROC-AUC by "
            f"{signed(best['difference'])} [{signed(best['difference_low'])}, {signed(best['difference_high'])}]; over "
            f"shifted stains the best on average is {shifted.idxmax()} ({signed(shifted.max())})."
        )
    return " ".join(sentences)


def scores_table(its):
    """ROC-AUC by normaliser and condition."""
    from histofeat.reporting import Table

    at = its.set_index(["normalizer", "perturbation", "severity"])
    conditions = list(dict.fromkeys(zip(its["perturbation"], its["severity"], strict=True)))
    body = []
    for arm in dict.fromkeys(its["normalizer"]):
        found = [at.loc[(arm, *condition)] for condition in conditions]
        body.append((arm, *(f"{row['roc_auc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" for row in found)))
    return Table(
        "ROC-AUC out of fold with its 95 % interval",
        ("Normaliser", *(words(*condition) for condition in conditions)),
        tuple(body),
    )


def differences_table(its):
    """Difference to no normaliser, by normaliser and condition."""
    from histofeat.reporting import Table

    at = its[its["difference"].notna()].set_index(["normalizer", "perturbation", "severity"])
    conditions = list(dict.fromkeys(zip(its["perturbation"], its["severity"], strict=True)))
    body = []
    for arm in dict.fromkeys(at.index.get_level_values("normalizer")):
        cells = []
        for condition in conditions:
            row = at.loc[(arm, *condition)]
            star = " *" if row["p_holm"] < 0.05 else ""
            value, low, high = (signed(row[name]) for name in ("difference", "difference_low", "difference_high"))
            cells.append(f"{value} [{low}, {high}]{star}")
        body.append((arm, *cells))
    return Table(
        "ROC-AUC less that without normaliser, paired, with its 95 % interval",
        ("Normaliser", *(words(*condition) for condition in conditions)),
        tuple(body),
    )


def differences_figure(table, features):
    """Differences to no normaliser by stain and normaliser, for `draw_intervals`."""
    from histofeat.reporting import draw_intervals

    rows = [
        {
            "name": f"{words(row.perturbation, row.severity)}: {row.normalizer}",
            "value": row.difference,
            "low": row.difference_low,
            "high": row.difference_high,
            "group": row.normalizer,
        }
        for condition in dict.fromkeys(zip(table["perturbation"], table["severity"], strict=True))
        for row in table[(table["features"] == features) & table["difference"].notna()].itertuples()
        if (row.perturbation, row.severity) == condition
    ]
    return draw_intervals, {
        "title": f"{features}: ROC-AUC with a stain normaliser less without",
        "x_label": "difference in ROC-AUC, 95 % interval over patients",
        "reference": 0.0,
        "rows": rows,
    }


def main(arguments=None):
    """Run the study; returns the exit code."""
    return run_command(PROGRAM, run, make_parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
