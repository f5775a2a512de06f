"""The published split of IDC: fitted on the train and validation patients, tested on the 49 test patients.

    python benchmarks/protocols/idc_official.py --data /path/to/idc --weights /path/to/weights
    python benchmarks/protocols/idc_official.py --data /path/to/idc --weights /path/to/weights --add-unlisted

Writes a report with our scores, those of the pipeline that official_candidates.py chose on other patients, and those
of the 2014 recipes, beside the published ones; with --add-unlisted also of models that learnt from the patients
without a role in that split, whose own report lies in a second folder. Appends a line per pipeline and head to
reports/test_ledger.csv as soon as they are scored. It is a test set, not a tuning set: choices are made with
benchmarks/run_all.py and PatientKFold on other patients, and the network, its input size and the folds that choose
the threshold are therefore no options here.
"""

import argparse
import re
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from histofeat.features import Runtime

REPOSITORY = Path(__file__).resolve().parents[2]
# Also where this file is loaded from elsewhere; a script finds what lies beside it by itself.
sys.path[:0] = [str(REPOSITORY / "benchmarks"), str(REPOSITORY / "benchmarks" / "protocols")]

import run_all  # noqa: E402
import study  # noqa: E402

PROGRAM = "idc_official.py"
FEATURE_SETS = ("handcrafted", "cnn", "everything")
HEADS = ("xgboost", "svm")
#: Cruz-Roa et al. 2014 (doi:10.1117/12.2043872): one family each, to a random forest.
RECIPES = {
    "fuzzy_color": "2014 fuzzy colour histogram",
    "joint_color": "2014 RGB histogram",
    "gray": "2014 grey histogram",
    "lbp": "2014 LBP",
    "haralick": "2014 Haralick",
}
RECIPE_HEAD = "random_forest"
#: What `run_all` takes as options and this protocol does not.
SETTLED = {"encoder": "mobilenetv2_0.35", "input_size": 128, "quick": False}


def make_parser():
    """Build the command line."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Score pipelines on the published IDC test patients; write a report."
    )
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", required=True, help="IDC patches: DIR/PATIENT/{0,1}/*.png, or a folder "
        "that holds idc/")  # fmt: skip
    add("--weights", type=Path, metavar="DIR", help="folder of ImageNet weights (default: $HISTOFEAT_WEIGHTS, Keras)")
    add("--store", type=Path, metavar="FILE", help="keep features in this file (default: keep nothing)")
    add("--output", type=Path, metavar="DIR", default=REPOSITORY / "reports" / "idc-official-sample",
        help="the report's folder (default: reports/idc-official-sample)")  # fmt: skip
    add("--features", nargs="*", default=list(FEATURE_SETS), metavar="SET",
        help=f"feature sets: {', '.join(run_all.FEATURE_SETS)} (default: {' '.join(FEATURE_SETS)})")  # fmt: skip
    add("--heads", nargs="+", default=list(HEADS), metavar="HEAD", help=f"their heads (default: {' '.join(HEADS)})")
    add("--recipes", nargs="*", default=list(RECIPES), metavar="NAME",
        help=f"recipes of 2014, each with a random forest (default: {' '.join(RECIPES)})")  # fmt: skip
    add("--no-chosen", action="store_true", help="leave out the pipeline that official_candidates.py chose on "
        "other patients")  # fmt: skip
    add("--add-unlisted", action="store_true", help="a second run, fitted on the patients without a role in the "
        "published split too; its own report lies in DIR-unlisted")  # fmt: skip
    add("--threshold", default="f1", metavar="RULE", help="what the threshold is chosen for among training patients: "
        "f1, youden or sensitivity=0.95 (default: f1)")  # fmt: skip
    add("--overwrite", action="store_true", help="replace finished reports in the output folders")
    add("--ledger", type=Path, metavar="FILE", default=REPOSITORY / "reports" / "test_ledger.csv",
        help="where each evaluation is written down (default: reports/test_ledger.csv)")  # fmt: skip
    add("--resamples", type=int, default=2000, metavar="N", help="resamples of the test patients (default: 2000)")
    add("--n-jobs", type=int, default=-1, metavar="N", help="threads (default: all cores)")
    add("--seed", type=int, default=0, help="seed of heads and resamples (default: 0)")
    return parser


def main(arguments=None):
    """Run the protocol; returns the exit code."""
    return study.run_command(PROGRAM, run, make_parser().parse_args(arguments))


def run(options):
    """Load; evaluate and write into the ledger, once per set of training patients; report."""
    from idc_comparison import PUBLISHED_SPLIT, WITH_UNLISTED, Run, data_words, load_published
    from idc_ledger import commit_words, open_ledger

    from histofeat.metrics import parse_rule
    from histofeat.reporting import check_output

    # What can be refused is refused before the data are read.
    parse_rule(options.threshold)
    pipelines = make_pipelines(options)
    for trained_on in (PUBLISHED_SPLIT, WITH_UNLISTED) if options.add_unlisted else (PUBLISHED_SPLIT,):
        check_output(report_folder(options, trained_on), overwrite=options.overwrite, option="--overwrite")
    published = load_published()
    dataset, _ = run_all.load(as_run_all(options), scratch=None)
    split = dataset.official_split()
    folds = make_folds(split, options)
    open_ledger(options.ledger)
    # Before the work: the tree may change while it runs.
    commit = commit_words(REPOSITORY)
    print(f"{dataset.name}, {data_words(dataset, split)}", flush=True)
    runs = []
    with feature_store(options) as store:
        for trained_on, pairs in folds.items():
            print(f"fitting on {trained_on}", flush=True)
            evaluation = score(dataset, split, pairs, pipelines, options, trained_on=trained_on, store=store)
            runs.append(Run(trained_on, evaluation))
            n_evaluations = record(runs[-1], split, commit, options.ledger)
    for each in reversed(runs):  # the published split last: it is what the screen ends with
        added, path = report(each, runs, split, published, n_evaluations, pipelines, options)
        show(each, added if each.trained_on == PUBLISHED_SPLIT else None, path)


def as_run_all(options):
    """Give the options as `run_all` knows them."""
    return argparse.Namespace(**{**vars(options), **SETTLED})


def make_pipelines(options):
    """(name, pipeline) for every feature set and head, for what was chosen on other patients, for every recipe."""
    from official_candidates import CHOSEN

    from histofeat import IDCPipeline
    from histofeat.exceptions import known_names

    run_all.check_names(as_run_all(options))
    pipelines = run_all.make_pipelines(as_run_all(options))
    if not options.no_chosen:
        pipelines.append(("chosen", CHOSEN.pipeline(options)))
    for family in dict.fromkeys(options.recipes):
        if family not in RECIPES:
            raise ValueError(f"--recipes: expected names it knows, got {family!r}. {known_names(family, RECIPES)}")
        pipelines.append((RECIPES[family], IDCPipeline(features=family, head=RECIPE_HEAD, random_state=options.seed)))
    if not pipelines:
        raise ValueError(
            "--features, --recipes, --no-chosen: expected at least one pipeline, got none. Leave one of them out."
        )
    return pipelines


def make_folds(split, options):
    """Pairs of (training, test) rows by the name of the training patients, in the order in which they run."""
    import numpy as np
    from idc_comparison import PUBLISHED_SPLIT, WITH_UNLISTED

    [(train, test)] = split.as_cv()
    folds = {PUBLISHED_SPLIT: [(train, test)]}
    if options.add_unlisted:
        if not len(split.unlisted):
            raise ValueError(
                "--add-unlisted: expected patients without a role in the published split, got 0 in this copy. "
                "Leave the option out."
            )
        folds[WITH_UNLISTED] = [(np.sort(np.concatenate([train, split.unlisted])), test)]
    return folds


def report_folder(options, trained_on):
    """Where the report of a run lies."""
    from idc_comparison import PUBLISHED_SPLIT

    output = options.output
    return output if trained_on == PUBLISHED_SPLIT else output.with_name(f"{output.resolve().name}-unlisted")


@contextmanager
def feature_store(options):
    """The file of features; with two runs and none given one that lasts until both are done."""
    if options.store or not options.add_unlisted:
        yield options.store
        return
    with tempfile.TemporaryDirectory(prefix="histofeat-", ignore_cleanup_errors=True) as scratch:
        yield Path(scratch) / "features.sqlite"


def score(dataset, split, folds, pipelines, options, *, trained_on, store):
    """Evaluate on the one fold that a run is."""
    from histofeat.evaluation import evaluate

    with run_all.make_progress() as progress:
        evaluation = evaluate(
            dataset,
            pipelines,
            folds,
            n_resamples=options.resamples,
            random_state=options.seed,
            runtime=Runtime(n_jobs=options.n_jobs, store=store, progress=progress),
            threshold=options.threshold,
        )
    return replace(evaluation, protocol={**evaluation.protocol, "cv": cv_words(split, trained_on)})


def cv_words(split, trained_on):
    """What stands for the splitter in the report."""
    from idc_comparison import PUBLISHED_SPLIT

    n = split.n_patients
    listed = f"{n['train']} train and {n['validation']} validation patients"
    if trained_on == PUBLISHED_SPLIT:
        return f"published split: {listed} against {n['test']} test patients"
    return f"published test patients: {listed} and {n['unlisted']} unlisted patients against {n['test']} test patients"


def record(run, split, commit, ledger):
    """Append a line per model; returns how many lines the ledger holds now."""
    from idc_ledger import append_lines, ledger_line

    from histofeat.metrics import parse_rule

    evaluation = run.evaluation
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
            trained_on=run.trained_on,
            threshold=parse_rule(evaluation.protocol["threshold"]),
        )
        for model in evaluation.models
    ]
    n_evaluations = append_lines(ledger, lines)
    print(f"ledger: {len(lines)} more in {ledger}, {n_evaluations:,} in all", flush=True)
    return n_evaluations


def pipeline_words(model):
    """Name, head and features of a model in one cell of the ledger."""
    from histofeat.reporting import model_key

    words = []
    for feature, family in zip(model.features, model.families[-len(model.features) :], strict=True):
        network = re.search(r"encoder='([^']+)'", family)
        words.append(f"{network.group(1)}@{SETTLED['input_size']}" if network else feature)
    return f"{model_key(model.name, model.head)} ({'+'.join(words)})"


def report(run, runs, split, published, n_evaluations, pipelines, options):
    """Write the report of a run; returns what it has beside the usual, and where it is."""
    from idc_comparison import addition, run_data_words

    from histofeat.reporting import describe_environment, write_report

    added = addition(run, runs, split, published, n_evaluations)
    kind = "published split of the patients" if run.is_published_split else "published test patients"
    path = write_report(
        run.evaluation,
        report_folder(options, run.trained_on),
        overwrite=options.overwrite,
        environment=describe_environment(device=run_all.device_words(run.evaluation, pipelines)),
        title=f"IDC, {kind}, on {run_data_words(run, split)}",
        command=study.command_line(f"protocols/{PROGRAM}", make_parser(), options),
        addition=added,
    )
    return added, path


def show(run, added, path):
    """What did not run, the table where it is wanted, where the report is."""
    from histofeat.reporting import Table, to_markdown

    for entry in run.evaluation.not_run:
        print(f"not run: {entry.name}, {entry.head}: {entry.reason}")
    if added is not None:
        print(to_markdown([block for block in added.blocks if isinstance(block, Table)]))
    print(f"report: {path}")


if __name__ == "__main__":
    sys.exit(main())
