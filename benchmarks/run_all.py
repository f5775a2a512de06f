"""The main job: feature sets times heads on one data set, by patient, and a report.

    python benchmarks/run_all.py                      # the synthetic cohort
    python benchmarks/run_all.py --data /path/to/idc --weights /path/to/weights --output reports/mine

Features are kept in a store and finished fits beside it, so a second run on the same images measures nothing, and a
run that was ended goes on where it was. The evaluation is kept before its report is written: --report-from FILE.
Everything happens in the library; here are the options and the names of the comparison.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from study import LEDGER, ON_ERROR, REPOSITORY, command_line, make_ledger, run_command

from histofeat import FeatureStore, PatientKFold, RepeatedPatientKFold, evaluate
from histofeat.evaluation import AuditPolicy, NotRun, find_known_patients, load_evaluation, save_evaluation
from histofeat.features import Progress, Runtime, leave_out_unreadable
from histofeat.metrics import parse_rule
from histofeat.studies import FEATURE_SETS, find_idc, make_pipelines as make_set_pipelines

PROGRAM = "run_all.py"
HANDCRAFTED = ("color", "lbp", "haralick")
DEFAULT_SETS = (*HANDCRAFTED, "handcrafted", "cnn", "everything", "histo", "with_histo")
COHORT = {"n_patients": 40, "patches_per_patient": 60}
QUICK_COHORT = {"n_patients": 15, "patches_per_patient": 20}
QUICK_PATIENTS = 40
QUICK_PATCHES = 20
QUICK_TREES = 50


def make_parser():
    """Build the command line."""
    from histofeat.metrics import rule_examples

    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Compare feature sets and heads on one data set, by patient; write a report."
    )
    add = parser.add_argument
    add("--data", type=Path, nargs="+", metavar="DIR", help="IDC patches: DIR/PATIENT/{0,1}/*.png, or a folder that "
        "holds idc/; several become one data set; default: a synthetic cohort")  # fmt: skip
    add("--features", nargs="+", default=list(DEFAULT_SETS), metavar="SET",
        help=f"feature sets: {', '.join(FEATURE_SETS)} (default: {' '.join(DEFAULT_SETS)})")  # fmt: skip
    add("--heads", nargs="+", default=["xgboost", "svm"], metavar="HEAD",
        help="xgboost, svm, logistic, random_forest, vote, knn, qda (default: xgboost svm)")  # fmt: skip
    add("--folds", type=int, default=5, help="outer folds (default: 5)")
    add("--repeats", type=int, default=1, help="repeats of the folds, for the intervals of the method (default: 1)")
    add("--output", type=Path, metavar="DIR", help="the report's folder (default: reports/<dataset>-<time>)")
    add("--report-from", type=Path, metavar="FILE", help="write the report of an evaluation that a run has kept; "
        "give the other options as in that run, and --no-shortcuts where the images are gone")  # fmt: skip
    add("--overwrite", action="store_true", help="replace a finished report in the output folder")
    add("--weights", type=Path, metavar="DIR", help="folder of ImageNet weights (default: $HISTOFEAT_WEIGHTS, Keras)")
    add("--encoder", default="mobilenetv2_0.35", help="the network of cnn (default: mobilenetv2_0.35)")
    add("--input-size", type=int, default=128, metavar="PX", help="its input size (default: 128)")
    add("--known-patients", choices=("skip", "leave_out"), default="skip", help="where an encoder such as histo was "
        "trained on patients of this data set: skip its feature sets, or leave_out these patients from the tests of "
        "all (default: skip)")  # fmt: skip
    add("--retrain-encoder", action="store_true", help="train encoders such as histo again in each fold, so that "
        "no tested patient is in their training set")  # fmt: skip
    add("--n-jobs", type=int, default=-1, metavar="N", help="threads (default: all cores)")
    add("--on-error", **ON_ERROR)
    store = parser.add_mutually_exclusive_group()
    store.add_argument("--store", type=Path, metavar="FILE", help="where features are kept between runs "
        "(default: histofeat/features.sqlite in $XDG_CACHE_HOME or ~/.cache)")  # fmt: skip
    store.add_argument("--no-store", action="store_true", help="measure everything again, keep nothing")
    add("--ledger", **LEDGER)
    add("--seed", type=int, default=0, help="seed of folds, heads and resamples (default: 0)")
    add("--resamples", type=int, default=2000, metavar="N", help="resamples of the patients (default: 2000)")
    add("--threshold", default="f1", metavar="RULE", help="what the tuned threshold is chosen for among training "
        f"patients: {rule_examples()} (default: f1)")  # fmt: skip
    add("--plan", type=Path, metavar="FILE", help="differences that were planned before any score: a file of "
        "histofeat.metrics.write_plan")  # fmt: skip
    add("--no-shortcuts", action="store_true", help="leave the panel of shortcuts out of the report")
    add("--gallery", type=int, metavar="N", help="also show N right, wrong and most confidently wrong images of each "
        "class, in a folder of their own beside the report: pictures of patients, not to be passed on")  # fmt: skip
    add("--quick", action="store_true", help="fewer patches and trees, to see that everything works")
    return parser


def main(arguments=None):
    """Run the comparison; returns the exit code."""
    return run_command(PROGRAM, run, make_parser().parse_args(arguments))


def run(options):
    """Load, evaluate, report."""
    from histofeat.reporting import check_output, describe_environment, write_report

    parse_rule(options.threshold)
    if options.gallery is not None and options.gallery < 1:
        raise ValueError(f"--gallery: expected at least 1 image of each kind, got {options.gallery}. Use 8.")
    pipelines = make_pipelines(options)
    if options.output:
        check_output(options.output, overwrite=options.overwrite, option="--overwrite")
    command = command_line(PROGRAM, make_parser(), options)
    runtime = Runtime(
        options.n_jobs, open_store(options), Progress(), make_ledger(options, command), on_error=options.on_error
    )
    with tempfile.TemporaryDirectory(prefix="histofeat-", ignore_cleanup_errors=True) as scratch:
        if options.report_from:
            evaluation = load_evaluation(options.report_from)
            output = options.output or default_output(evaluation.dataset)
        else:
            dataset, quick = load(options, scratch)
            dataset, _, runtime = leave_out_unreadable(dataset, None, runtime)
            print(f"{dataset.name}: {len(dataset):,} patches of {dataset.audit.n_patients:,} patients", flush=True)
            output = options.output or default_output(dataset)
            check_output(output, overwrite=options.overwrite, option="--overwrite")
            evaluation = score(dataset, pipelines, options, runtime)
            if quick:
                evaluation = replace(evaluation, protocol={**evaluation.protocol, "quick": quick})
            keep(evaluation, output, runtime)
        panel = None if options.no_shortcuts else shortcuts(evaluation, runtime)
        report = write_report(
            evaluation,
            output,
            overwrite=options.overwrite,
            environment=describe_environment(device=device_words(evaluation, pipelines)),
            command=command,
            context={"shortcuts": panel},
            files={"shortcuts.json": panel} if panel else None,
            gallery=options.gallery,
        )
    show(evaluation, report, stored=runtime.store is not None)


def score(dataset, pipelines, options, runtime):
    """Evaluate the pipelines; those whose encoder knows patients of the data set are skipped where that is asked."""
    skip = options.known_patients == "skip"
    fair, skipped = skip_knowing(dataset, pipelines, options, runtime) if skip else (pipelines, ())
    evaluation = evaluate(
        dataset,
        fair,
        RepeatedPatientKFold(options.folds, options.repeats, options.seed)
        if options.repeats > 1
        else PatientKFold(options.folds, random_state=options.seed),
        n_resamples=options.resamples,
        random_state=options.seed,
        threshold=options.threshold,
        audit=AuditPolicy(known_patients="refuse" if skip else options.known_patients),
        retrain_encoder=options.retrain_encoder,
        plan=options.plan,
        runtime=runtime,
    )
    return replace(evaluation, not_run=(*evaluation.not_run, *skipped))


def keep(evaluation, output, runtime):
    """Write the evaluation down, beside the fits or the report: from here on nothing costs a fit."""
    path = (runtime.fits or output.parent) / f"{output.name}.evaluation"
    try:
        save_evaluation(evaluation, path, overwrite=True)
        print(f"evaluation: {path} (--report-from writes its report again)", file=sys.stderr, flush=True)
    except OSError as error:
        print(f"the evaluation is not kept, its report is written now: {error}", file=sys.stderr, flush=True)


def shortcuts(evaluation, runtime):
    """Return the panel of shortcuts for the report: what mean colour, background, blur or position reach alone."""
    from histofeat.studies import panel_of

    return panel_of(evaluation, runtime=replace(runtime, progress=None)).to_dict()


def skip_knowing(dataset, pipelines, options, runtime):
    """Return the pipelines to evaluate, and those that are skipped as their encoder knows patients of the data set."""
    quiet = replace(runtime, progress=None)
    known = find_known_patients(dataset, pipelines, retrained=options.retrain_encoder, runtime=quiet)
    # Several heads share a name, and with it the families.
    reasons = {one.pipeline: knowing_words(one) for one in known}
    fair = [(name, pipeline) for name, pipeline in pipelines if name not in reasons]
    if not fair:
        why = " ".join(dict.fromkeys(reasons.values()))
        raise ValueError(f"--features: expected a set whose encoder knows none of these patients, got none. {why}")
    return fair, tuple(NotRun(name, pipeline.head, reasons[name]) for name, pipeline in pipelines if name in reasons)


def knowing_words(known):
    """Say which patients an encoder knows, and what to do."""
    encoder = known.encoder.partition(": ")[2]
    return (
        f"{encoder} was trained on images of {len(known.patients):,} patients of this data set ({known.trained_on}): "
        "scores on them would not be of new patients. Give --known-patients leave_out to test all sets on the other "
        "patients, or --retrain-encoder to train an encoder again in each fold."
    )


def make_pipelines(options):
    """Return (name, pipeline) for every feature set and head."""
    network = {"cnn__encoder": options.encoder, "cnn__input_size": options.input_size}
    return make_set_pipelines(
        options.features,
        options.heads,
        weights=options.weights,
        network=network,
        n_trees=QUICK_TREES if options.quick else None,
        random_state=options.seed,
    )


def open_store(options):
    """Return the feature store, proven to open; None without one, or where the usual place cannot hold it."""
    from histofeat.images import user_cache

    if options.no_store:
        return None
    store = FeatureStore(options.store or user_cache() / "features.sqlite")
    try:
        with store.session():
            return store
    except ValueError as error:
        if options.store:
            raise
        # The user did not ask for this place, so it must not stop the run.
        print(f"no feature store, everything is measured again: {error}", file=sys.stderr)
        return None


def load(options, scratch):
    """The data set, and what a quick run made of it (None where it is no quick run)."""
    from histofeat.datasets import load_idc, make_cohort
    from histofeat.studies import load_development_patients

    trees = f"{QUICK_TREES} trees"
    if options.data is None:
        size = QUICK_COHORT if options.quick else COHORT
        print("no --data: drawing the synthetic cohort", flush=True)
        dataset = make_cohort(root=Path(scratch) / "synthetic", random_state=options.seed, **size)
        return dataset, f"A cohort smaller than the usual one, and {trees}." if options.quick else None
    whole = load_idc(find_idc(options.data))
    if not options.quick:
        return whole, None
    # To see that everything works is no reason to look at the official test patients.
    dataset = few_patches(load_development_patients(options.data), options.seed)
    n_patients = len(set(dataset.patients))
    return dataset, f"{len(dataset):,} of the {len(whole):,} patches, {n_patients:,} patients, and {trees}."


def few_patches(dataset, seed):
    """A quick run's share: some patients, and some patches of each."""
    import numpy as np

    rng = np.random.default_rng(seed)
    patients = dataset.patients.astype(str)
    chosen = rng.permutation(np.unique(patients))[:QUICK_PATIENTS]
    rows = [rng.permutation(np.flatnonzero(patients == patient))[:QUICK_PATCHES] for patient in chosen]
    return dataset.subset(np.sort(np.concatenate(rows)))


def device_words(evaluation, pipelines):
    """What each network ran on; the CPU where none ran."""
    ran, notes = {model.name for model in evaluation.models}, {}
    for name, pipeline in pipelines:
        for family in pipeline.families() if name in ran else ():
            if hasattr(family, "engine_note_"):
                notes.setdefault(family.engine_note_, {})[family.family] = None
    return " ".join(f"{', '.join(families)}: {note}" for note, families in notes.items()) or "CPU"


def default_output(dataset):
    """reports/<dataset>-<time> in the repository."""
    word = "".join(letter if letter.isalnum() else "-" for letter in dataset.name.lower()).strip("-")
    return REPOSITORY / "reports" / f"{word}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"


def show(evaluation, report, *, stored):
    """The headline on screen: what did not run, the scores, what was measured, where the report is."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    for entry in evaluation.not_run:
        console.print(f"not run: {entry.name}, {entry.head}: {entry.reason}", markup=False)
    title = "SYNTHETIC cohort" if evaluation.dataset.synthetic else evaluation.dataset.name
    table = Table(title=f"{escape(title)}, out of fold", box=box.SIMPLE_HEAD)
    for column in ("features", "head"):
        table.add_column(column)
    for column in ("ROC-AUC", "interval of these fits", "interval of the method", "F1", "F1 tuned", "fit s"):
        table.add_column(column, justify="right")
    for model in evaluation.models:
        auc, f1 = model.scores["roc_auc"], model.scores["f1"]
        table.add_row(
            escape(model.name),
            escape(model.head),
            f"{auc.value:.3f}",
            *(f"{low:.3f} – {high:.3f}" for low, high in (auc.ci95, auc.method_ci95)),
            f"{f1.value:.3f}",
            f"{model.tuned['f1'].value:.3f}",
            f"{model.fit_s:.1f}",
        )
    console.print(table)
    if evaluation.planned:
        console.print(f"planned: {evaluation.planned.to_dict().get('verdict', 'not compared')}", markup=False)
    if evaluation.protocol["registered"]:
        console.print(evaluation.protocol["registered"], markup=False, soft_wrap=True)
    if evaluation.caution:
        console.print(evaluation.caution, soft_wrap=True)
    console.print(f"extraction: {evaluation.seconds['extraction']:.1f} s")
    counts = ", ".join(f"{family} {count:,}" for family, count in evaluation.computed.items())
    print(f"measured: {counts or 'nothing'}{' (the rest came from the store)' if stored else ''}")
    # Plain and unwrapped: a path that is cut into two lines cannot be copied.
    print(f"report: {report}")


if __name__ == "__main__":
    sys.exit(main())
