"""What a split by patch adds: the same features and heads under folds of patches and under folds of patients.

    python benchmarks/protocols/leakage.py --data /path/to/idc --weights /path/to/weights

On the IDC patients outside the official test set, and on a synthetic cohort in which nothing but the patient can be
recognised: there a split by patch must look brilliant, and a split by patient must stay at chance. Writes
reports/leakage.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from histofeat.features import Runtime

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import run_all  # noqa: E402
from study import Study, command_line, development_patients, run_command, study_parser, write_study  # noqa: E402

PROGRAM = "leakage.py"
FEATURE_SETS = ("color", "lbp", "haralick", "pftas", "handcrafted", "cnn", "everything")
#: Of the synthetic cohort: what needs no network.
SIGNATURE_SETS = ("color", "lbp", "haralick", "handcrafted")
SIGNATURE_COHORT = {"n_patients": 60, "patches_per_patient": 20}
QUICK_COHORT = {"n_patients": 20, "patches_per_patient": 10}
#: What `run_all` takes as options and this study does not.
SETTLED = {"encoder": "mobilenetv2_0.35", "input_size": 128}
TITLE = "What a split by patch adds"


def make_parser():
    """Give the parser."""
    parser = study_parser(PROGRAM, "Score the same pipelines under a split by patch and by patient.", "leakage")
    add = parser.add_argument
    add("--features", nargs="+", default=list(FEATURE_SETS), metavar="SET",
        help=f"feature sets: {', '.join(run_all.FEATURE_SETS)} (default: {' '.join(FEATURE_SETS)})")  # fmt: skip
    add("--heads", nargs="+", default=["xgboost"], metavar="HEAD", help="default: xgboost; svm takes as long again")
    add("--folds", type=int, default=5, help="folds of both splits (default: 5)")
    add("--resamples", type=int, default=2000, metavar="N", help="resamples of the patients (default: 2000)")
    return parser


def run(options):
    """Load, score under both splits, write."""
    from histofeat.reporting import check_output
    from histofeat.studies import measure_leakage

    recipe = argparse.Namespace(**vars(options), **SETTLED)
    run_all.check_names(recipe)
    check_output(options.output, overwrite=options.overwrite, option="--overwrite")
    dataset = development_patients(options)
    print(f"{dataset.name}: {len(dataset):,} patches of {dataset.audit.n_patients:,} patients", flush=True)
    settings = {
        "n_splits": options.folds,
        "n_resamples": options.resamples,
        "random_state": options.seed,
    }
    with run_all.make_progress() as progress:
        real = measure_leakage(
            dataset,
            run_all.make_pipelines(recipe),
            runtime=Runtime(n_jobs=options.n_jobs, store=options.store, progress=progress),
            **settings,
        )
    planted, cohort = measure_signature(recipe, {**settings, "runtime": Runtime(options.n_jobs)})
    study = make_study(real, planted, dataset, cohort)
    report = write_study(study, options, command=command_line(f"protocols/{PROGRAM}", make_parser(), options))
    print(study.blocks[0].text)
    print(f"report: {report}")


def measure_signature(recipe, settings):
    """The same on the cohort of planted signatures, which is drawn anew: (Leakage, PatchDataset)."""
    from histofeat.datasets import make_signature_cohort
    from histofeat.studies import measure_leakage

    chosen = [name for name in recipe.features if name in SIGNATURE_SETS] or ["handcrafted"]
    pipelines = run_all.make_pipelines(argparse.Namespace(**{**vars(recipe), "features": chosen}))
    size = QUICK_COHORT if recipe.quick else SIGNATURE_COHORT
    with tempfile.TemporaryDirectory(prefix="histofeat-", ignore_cleanup_errors=True) as scratch:
        cohort = make_signature_cohort(Path(scratch) / "cohort", random_state=recipe.seed, **size)
        return measure_leakage(cohort, pipelines, **settings), cohort


# --- the page --------------------------------------------------------------------------------------------------------


def make_study(real, planted, dataset, cohort):
    """Words, tables and figures from what was measured."""
    import pandas as pd

    found, signature = real.to_dict(), planted.to_dict()
    rows = [
        {"data": name, **flat(row)}
        for name, payload in ((dataset.name, found), ("planted signature", signature))
        for row in payload["rows"]
    ]
    return Study(
        TITLE,
        tuple(page(found, signature, dataset, cohort)),
        {"real": found, "planted_signature": signature, "dataset": dataset.audit.to_dict()},
        tables={"leakage": pd.DataFrame(rows)},
        figures={"differences": differences_figure(found), "scores": scores_figure(found, signature)},
    )


def flat(row):
    """One number a column: an interval becomes two."""
    columns = {}
    for key, value in row.items():
        if key.endswith("ci95"):
            columns[key.replace("ci95", "low")], columns[key.replace("ci95", "high")] = value
        else:
            columns[key] = value
    return columns


def page(found, signature, dataset, cohort):
    """Blocks from top to bottom."""
    from histofeat.reporting import LEAKAGE_WORDS, Details, Heading, Notice, Picture, Text, leakage_table

    yield Text(headline(found))
    if found["not_run"]:
        reasons = (f"{entry['name']}, {entry['head']}: {entry['reason']}" for entry in found["not_run"])
        yield Notice("warning", "Not run", tuple(reasons))
    yield Heading("Patients outside the official test set")
    yield Text(data_words(dataset))
    yield leakage_table(found, "roc_auc")
    yield Picture(
        "figures/differences.svg",
        "A row for each pipeline: how much higher it scores under the split by patch, with intervals.",
        "What the split by patch adds; right of the dashed line it flatters.",
    )
    yield Details("Balanced accuracy and F1", tuple(leakage_table(found, name) for name in list(LEAKAGE_WORDS)[1:]))
    yield Text(meaning())
    yield Text(expectation(found, dataset))
    yield Heading("Planted signatures")
    yield Text(signature_words(signature, cohort))
    yield leakage_table(signature, "roc_auc")
    yield Picture(
        "figures/scores.svg",
        "ROC-AUC of each pipeline under both splits, on real patients and on planted signatures.",
        "The same pipelines under both splits. Dashed: chance.",
    )
    yield Text(verdict(signature))
    yield Heading("What is the same on both sides, and what is not")
    yield Text(
        f"Features are measured once. Both splits have {found['n_folds']} folds from the same seed; every patch is "
        "tested once. The inner folds, which choose the threshold of balanced accuracy and F1 (the highest F1) and "
        "calibrate the SVM, are of patients in one and of patches in the other: whoever splits by patch does so inside "
        "as well. A classifier under the split by patch learns from as many patches, but of all patients."
    )
    yield Text(
        f"Intervals: whole patients are drawn with replacement, {found['n_resamples']:,} times; the difference is "
        "taken within each resample, so that what a patient makes hard for both splits cancels. They cover other "
        "patients of the same kind, scored by these fits on this one draw of the folds. They cover neither another "
        "draw of the folds nor fitting again."
    )


def headline(found):
    """The finding in two sentences."""
    rows = [row for row in found["rows"] if row["metric"] == "roc_auc"]
    if not rows:
        return "No pipeline could run."
    rows.sort(key=lambda row: row["difference"])
    low, high = rows[0], rows[-1]
    beyond = sum(row["difference_ci95"][0] is not None and row["difference_ci95"][0] > 0 for row in rows)
    return (
        f"On the same features, heads and patches, a split by patch changes the ROC-AUC by {low['difference']:+.3f} "
        f"({low['name']}, {low['head']}) to {high['difference']:+.3f} ({high['name']}, {high['head']}) against a split "
        f"by patient. In {beyond} of {len(rows)} pipelines the interval of the difference lies above 0."
    )


def data_words(dataset):
    """Say which patches and patients these are."""
    audit, held = dataset.audit, ""
    if audit.full_set is not None and audit.subset_of is not None:
        held = f", chosen from {audit.subset_of:,} of the published {audit.full_set.n_patches:,} patches"
    return (
        f"{dataset.name}: {len(dataset):,} patches of {audit.n_patients:,} patients{held}. The 49 official test "
        "patients take no part."
    )


def meaning():
    """Say what the difference is, and what it is not."""
    return (
        "The difference is what a reader would be told too much. Under the split by patch the classifier has seen "
        "other patches of every patient that it is tested on, and is credited for recognising them; only the split by "
        "patient says something about a new patient. It is no estimate of what any one publication has gained in this "
        "way: networks that are trained on the patches themselves recognise a patient in other ways than fixed "
        "features do. Nor does a small difference make a split by patch safe: how much leaks depends on the features, "
        "on the head, and on how many patches of a patient there are."
    )


def expectation(found, dataset):
    """Say what thinning the patches does to a leak, as an expectation."""
    if found["touching"] is None:
        return "Coordinates are missing, so how many tested patches touch a training patch is not known."
    sentence = (
        f"Under the split by patch {100 * found['touching']:.1f} % of the tested patches touch a training patch of "
        "their own slide; under the split by patient none does."
    )
    audit = dataset.audit
    share = 1.0 if audit.full_set is None else (audit.subset_of or audit.n_patches) / audit.full_set.n_patches
    if share > 0.5:
        return sentence
    return (
        f"{sentence} This is a sample of {100 * share:.1f} % of the patches, in which neighbours are rare and every "
        "patient has few patches to be learnt by heart. In the full set, where patches tile the tissue, we expect the "
        "leak to be larger. That is an expectation: it was not measured here."
    )


def signature_words(signature, cohort):
    """Say what the cohort is."""
    return (
        f"A synthetic cohort: {signature['n_patches']:,} patches of {signature['n_patients']:,} made-up patients, each "
        "slide with a tint and a grain of its own, and without any tumour. Half of the patients are of class 1, drawn "
        f"without a look at the pictures; {share_other(cohort):.1f} % of the patches have the other class than most of "
        "their patient's. There is nothing to learn but who the patient is."
    )


def share_other(cohort):
    """Percent of the patches that are not of their patient's most frequent class."""
    shares = cohort.frame.groupby("patient")["label"].mean()
    return 100 * float(shares.where(shares < 0.5, 1 - shares).mean())


def verdict(signature):
    """Say whether the canary is alive."""
    rows = [row for row in signature["rows"] if row["metric"] == "roc_auc"]
    best = max(rows, key=lambda row: row["leaked"])
    brilliant = best["leaked"] > 0.95
    covering = [covers_chance(row) for row in rows]
    return (
        f"By patch {best['name']} with {best['head']} reaches {best['leaked']:.3f}, which "
        f"{'is' if brilliant else 'is NOT'} above the 0.95 that it must reach; by patient the same pipeline has "
        f"{best['honest']:.3f}, and its interval {'covers' if covers_chance(best) else 'does NOT cover'} 0.5, as it "
        f"must. By patient the intervals of {sum(covering)} of {len(rows)} pipelines cover 0.5; of intervals of 95 %, "
        "one in twenty misses."
    )


def covers_chance(row):
    """Whether the interval by patient covers 0.5."""
    low, high = row["honest_ci95"]
    return low is not None and low <= 0.5 <= high


def differences_figure(found):
    """Differences in ROC-AUC, for `draw_intervals`."""
    from histofeat.reporting import draw_intervals

    rows = [row for row in found["rows"] if row["metric"] == "roc_auc"]
    return draw_intervals, {
        "title": "ROC-AUC: split by patch less split by patient",
        "x_label": "difference in ROC-AUC, 95 % interval over patients",
        "reference": 0.0,
        "rows": [
            bar(f"{row['name']}, {row['head']}", row["difference"], row["difference_ci95"], row["head"]) for row in rows
        ],
    }


def scores_figure(found, signature):
    """ROC-AUC under both splits, for `draw_intervals`."""
    from histofeat.reporting import draw_intervals

    sides = {"honest": "split by patient", "leaked": "split by patch"}
    rows = [
        bar(f"{data}: {row['name']}, {row['head']}", row[side], row[f"{side}_ci95"], group)
        for data, payload in (("IDC", found), ("planted", signature))
        for row in payload["rows"]
        if row["metric"] == "roc_auc"
        for side, group in sides.items()
    ]
    return draw_intervals, {
        "title": "ROC-AUC under both splits",
        "x_label": "ROC-AUC, pooled out of fold, 95 % interval over patients",
        "reference": 0.5,
        "rows": rows,
    }


def bar(name, value, interval, group):
    """One row of a figure."""
    return {"name": name, "value": value, "low": interval[0], "high": interval[1], "group": group}


def main(arguments=None):
    """Run the study; returns the exit code."""
    return run_command(PROGRAM, run, make_parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
