"""The published split of IDC: fitted on the train and validation patients, tested on the 49 test patients.

    python benchmarks/protocols/idc_official.py --data /path/to/idc --weights /path/to/weights

Writes a report with our scores beside the published ones, and appends a line per pipeline and head to
reports/test_ledger.csv as soon as they are scored. It is a test set, not a tuning set: choices are made with
benchmarks/run_all.py and PatientKFold on other patients, and the network, its input size and the folds that choose the
threshold are therefore no options here.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# Also where this file is loaded from elsewhere; a script finds what lies beside it by itself.
sys.path[:0] = [str(REPOSITORY / "benchmarks"), str(REPOSITORY / "benchmarks" / "protocols")]

import run_all  # noqa: E402

FEATURE_SETS = ("handcrafted", "cnn", "everything")
HEADS = ("xgboost", "svm")
#: What `run_all` takes as options and this protocol does not.
SETTLED = {"encoder": "mobilenetv2_0.35", "input_size": 128, "quick": False}


def parse_arguments(arguments=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="idc_official.py", description="Score pipelines on the published IDC test patients; write a report."
    )
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", required=True, help="IDC patches: DIR/PATIENT/{0,1}/*.png, or a folder "
        "that holds idc/")  # fmt: skip
    add("--weights", type=Path, metavar="DIR", help="folder of ImageNet weights (default: $HISTOFEAT_WEIGHTS, Keras)")
    add("--output", type=Path, metavar="DIR", default=REPOSITORY / "reports" / "idc-official-sample",
        help="the report's folder (default: reports/idc-official-sample)")  # fmt: skip
    add("--features", nargs="+", default=list(FEATURE_SETS), metavar="SET",
        help=f"feature sets: {', '.join(run_all.FEATURE_SETS)} (default: {' '.join(FEATURE_SETS)})")  # fmt: skip
    add("--heads", nargs="+", default=list(HEADS), metavar="HEAD", help=f"default: {' '.join(HEADS)}")
    add("--overwrite", action="store_true", help="replace a finished report in the output folder")
    add("--ledger", type=Path, metavar="FILE", default=REPOSITORY / "reports" / "test_ledger.csv",
        help="where each evaluation is written down (default: reports/test_ledger.csv)")  # fmt: skip
    add("--resamples", type=int, default=2000, metavar="N", help="resamples of the test patients (default: 2000)")
    add("--n-jobs", type=int, default=None, metavar="N", help="threads (default: all cores)")
    add("--seed", type=int, default=0, help="seed of heads and resamples (default: 0)")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Run the protocol; returns the exit code."""
    options = parse_arguments(arguments)
    # Both are read when libraries load; run_all.py says why.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        run(options)
    except (ValueError, ImportError, OSError) as error:
        print(f"idc_official.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("idc_official.py: interrupted, no report was written", file=sys.stderr)
        return 130
    return 0


def run(options):
    """Load, evaluate, write into the ledger, report."""
    from idc_comparison import addition, data_words, load_published
    from idc_ledger import commit_words, open_ledger

    from histofeat.reporting import check_output, describe_environment, write_report

    recipe = argparse.Namespace(**vars(options), **SETTLED)
    run_all.check_names(recipe)
    check_output(options.output, overwrite=options.overwrite, option="--overwrite")
    published = load_published()
    pipelines = run_all.make_pipelines(recipe)
    dataset, _ = run_all.load(recipe, scratch=None)
    split = dataset.official_split()
    folds = split.as_cv()
    words = data_words(dataset, split)
    open_ledger(options.ledger)
    # Before the work: the tree may change while it runs.
    commit = commit_words(REPOSITORY)
    print(f"{dataset.name}, {words}", flush=True)
    evaluation = score(dataset, split, folds, pipelines, options)
    n_evaluations = record(evaluation, split, commit, options.ledger)
    added = addition(evaluation, split, published, n_evaluations)
    report = write_report(
        evaluation,
        options.output,
        overwrite=options.overwrite,
        environment=describe_environment(device=run_all.device_words(evaluation, pipelines)),
        title=f"IDC, published split of the patients, on {words}",
        command=command_line(options),
        addition=added,
    )
    show(evaluation, added, report)


def score(dataset, split, folds, pipelines, options):
    """Evaluate on the one fold that the published split is."""
    from histofeat.evaluation import evaluate

    with run_all.make_progress() as progress:
        evaluation = evaluate(
            dataset,
            pipelines,
            folds,
            n_resamples=options.resamples,
            random_state=options.seed,
            n_jobs=-1 if options.n_jobs is None else options.n_jobs,
            progress=progress,
        )
    train, validation, test = (split.n_patients[role] for role in ("train", "validation", "test"))
    cv = f"published split: {train} train and {validation} validation patients against {test} test patients"
    return replace(evaluation, protocol={**evaluation.protocol, "cv": cv})


def record(evaluation, split, commit, ledger):
    """Append a line per model; returns how many lines the ledger holds now."""
    from idc_ledger import append_lines, ledger_line

    lines = [
        ledger_line(
            commit=commit,
            pipeline=pipeline_words(model),
            data=evaluation.dataset.name,
            n_patches=len(evaluation.dataset),
            n_test_patients=split.n_patients["test"],
            n_test_patches=len(split.test),
            roc_auc=model.scores["roc_auc"].pooled,
            balanced_accuracy_tuned=model.tuned["balanced_accuracy"].pooled,
            f1_tuned=model.tuned["f1"].pooled,
        )
        for model in evaluation.models
    ]
    n_evaluations = append_lines(ledger, lines)
    print(f"ledger: {len(lines)} more in {ledger}, {n_evaluations:,} in all", flush=True)
    return n_evaluations


def pipeline_words(model):
    """Name, head and features of a model in one cell of the ledger."""
    from histofeat.reporting.payload import model_key

    network = f"{SETTLED['encoder']}@{SETTLED['input_size']}"
    features = "+".join(network if feature == "cnn" else feature for feature in model.features)
    return f"{model_key(model.name, model.head)} ({features})"


def command_line(options):
    """The command that repeats this run, folders and files by their last name only, as in `run_all`."""
    words = ["python", "benchmarks/protocols/idc_official.py"]
    defaults = vars(parse_arguments(["--data", ""]))
    for name, value in vars(options).items():
        if value == defaults[name] and name != "data":
            continue
        words.append(f"--{name.replace('_', '-')}")
        if isinstance(value, Path):
            words.append(value.resolve().name)
        elif isinstance(value, list):
            words += value
        elif value is not True:
            words.append(str(value))
    return " ".join(words)


def show(evaluation, added, report):
    """What did not run, the table, where the report is."""
    from histofeat.reporting.blocks import Table
    from histofeat.reporting.markdown import to_markdown

    for entry in evaluation.not_run:
        print(f"not run: {entry.name}, {entry.head}: {entry.reason}")
    print(to_markdown([block for block in added.blocks if isinstance(block, Table)]))
    print(f"report: {report}")


if __name__ == "__main__":
    sys.exit(main())
