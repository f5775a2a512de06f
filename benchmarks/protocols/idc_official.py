"""The published split of IDC: fitted on the train and validation patients, tested on the 49 test patients.

    python benchmarks/protocols/idc_official.py --data /path/to/idc --weights /path/to/weights
    python benchmarks/protocols/idc_official.py --data /path/to/idc --weights /path/to/weights --add-unlisted
    python benchmarks/protocols/idc_official.py --data /path/to/idc /path/to/idc_second --weights /path/to/weights

Writes a report that compares our scores with the published ones: those of handcrafted features and of the 2014
recipes; with --chosen, of the pipeline that official_candidates.py chose on other patients, which has a trained
encoder. With --add-unlisted it also scores models that were fitted on the patients without a role in that split too;
their report goes to a second folder. Appends a line per pipeline and head to reports/test_ledger.csv as soon as they
are scored. It is a test set, not a tuning set: choices are made with benchmarks/run_all.py and PatientKFold on other
patients. That is why the network, its input size and the folds that choose the threshold are no options here. What was
to be compared at the 49 patients of both samples is frozen in idc_official_plan.json (--plan).
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import run_all
from idc_networks import TEST_OPTIONS
from official_candidates import CHOSEN
from study import command_line, make_ledger, run_command, study_parser

from histofeat import IDCPipeline, evaluate, load_idc, studies
from histofeat.features import Progress, Runtime
from histofeat.metrics import parse_rule
from histofeat.reporting import check_output, describe_environment, render_markdown, write_report

PROGRAM = "idc_official.py"
PUBLISHED = Path(__file__).with_name("idc_official_published.csv")
#: Without a trained encoder: the networks have one look of their own at both samples.
SETS = ("handcrafted",)
HEADS = ("xgboost", "svm")
#: Cruz-Roa et al. 2014 (doi:10.1117/12.2043872): one family each, to a random forest.
RECIPES = {
    "fuzzy_color": "2014 fuzzy colour histogram",
    "joint_color": "2014 RGB histogram",
    "gray": "2014 grey histogram",
    "lbp": "2014 LBP",
    "haralick": "2014 Haralick",
}

OPTIONS = {
    "features": studies.option(list(SETS), studies.SETS, nargs="*"),
    "heads": studies.option(list(HEADS), "their heads"),
    "recipes": studies.option(list(RECIPES), "recipes of 2014, each with a random forest", nargs="*"),
    "chosen": {
        "action": "store_true",
        "help": "add the pipeline that official_candidates.py chose on other patients; it has a trained encoder",
    },
    "add-unlisted": {
        "action": "store_true",
        "help": "a second run, fitted on the patients without a role in the published split too; its own report lies "
        "in DIR-unlisted",
    },
    "plan": {
        "type": Path,
        "metavar": "FILE",
        "help": "differences that were planned before any score: a file of histofeat.metrics.write_plan",
    },
    **TEST_OPTIONS,
    "threshold": {**TEST_OPTIONS["threshold"], "default": "f1"},
    "resamples": studies.option(2000, "resamples of the test patients"),
}


def make_parser():
    """Build the command line."""
    words = "Score pipelines on the published IDC test patients; write a report."
    return study_parser(PROGRAM, words, "idc-official-sample", OPTIONS, quick=False)


def main(arguments=None):
    """Run the protocol; returns the exit code."""
    return run_command(PROGRAM, run, make_parser().parse_args(arguments))


def run(options):
    """Load; evaluate and write into the ledger, once per set of training patients; report."""
    # What can be refused is refused before the data are read.
    parse_rule(options.threshold)
    pipelines = make_pipelines(options)
    for trained_on in (
        (studies.PUBLISHED_SPLIT, studies.WITH_UNLISTED) if options.add_unlisted else (studies.PUBLISHED_SPLIT,)
    ):
        check_output(report_folder(options, trained_on), overwrite=options.overwrite, option="--overwrite")
    published = studies.load_published(PUBLISHED)
    dataset = load_idc(studies.find_idc(options.data))
    split = dataset.official_split()
    folds = make_folds(split, options)
    ledger = make_ledger(options, command_line(f"protocols/{PROGRAM}", make_parser(), options))
    print(f"{dataset.name}, {studies.data_words(dataset, split)}", flush=True)
    runs = []
    with tempfile.TemporaryDirectory(prefix="histofeat-", ignore_cleanup_errors=True) as scratch:
        store = options.store or Path(scratch) / "features.sqlite"  # two runs measure each image once
        for trained_on, fold in folds.items():
            print(f"fitting on {trained_on}", flush=True)
            evaluation = evaluate(
                dataset, pipelines, [fold], n_resamples=options.resamples, random_state=options.seed,
                threshold=options.threshold, plan=options.plan,
                runtime=Runtime(options.n_jobs, store, Progress(), ledger),
            )  # fmt: skip
            protocol = {**evaluation.protocol, "cv": cv_words(split, trained_on)}
            runs.append(studies.SplitRun(trained_on, replace(evaluation, protocol=protocol)))
            print(evaluation.protocol["registered"], flush=True)
    found = studies.compare_with_published(runs, split, published)
    for each in reversed(runs):  # the published split last: it is what the screen ends with
        report(each, found, pipelines, options)


def make_pipelines(options):
    """(name, pipeline) for every feature set and head, for what was chosen on other patients, for every recipe."""
    studies.check_names("--recipes", options.recipes, RECIPES)
    pipelines = studies.make_pipelines(
        options.features, options.heads, weights=options.weights, random_state=options.seed
    )
    if options.chosen:
        pipelines.append(("chosen", CHOSEN.pipeline(options)))
    pipelines += [
        (RECIPES[family], IDCPipeline(features=family, head="random_forest", random_state=options.seed))
        for family in dict.fromkeys(options.recipes)
    ]
    if not pipelines:
        raise ValueError(
            "--features, --recipes: expected at least one pipeline, got none. Leave one of them out, or add --chosen."
        )
    return pipelines


def make_folds(split, options):
    """(training, test) rows by the name of the training patients, in the order in which they run."""
    [(train, test)] = split.as_cv()
    folds = {studies.PUBLISHED_SPLIT: (train, test)}
    if options.add_unlisted:
        if not len(split.unlisted):
            raise ValueError(
                "--add-unlisted: expected patients without a role in the published split, got 0 in this copy. "
                "Leave the option out."
            )
        folds[studies.WITH_UNLISTED] = (np.sort(np.concatenate([train, split.unlisted])), test)
    return folds


def report_folder(options, trained_on):
    """Where the report of a run lies."""
    output = options.output
    return output if trained_on == studies.PUBLISHED_SPLIT else output.with_name(f"{output.resolve().name}-unlisted")


def cv_words(split, trained_on):
    """What stands for the splitter in the report."""
    n = split.n_patients
    listed = f"{n['train']} train and {n['validation']} validation patients"
    if trained_on == studies.PUBLISHED_SPLIT:
        return f"published split: {listed} against {n['test']} test patients"
    return f"published test patients: {listed} and {n['unlisted']} unlisted patients against {n['test']} test patients"


def context_of(run, found):
    """Return what the templates of the published split need beside the report of the run."""
    target = run.evaluation.dataset.target_names[1]
    return {"found": found.to_dict(), "listed": run.is_published_split, "target": target}


def sections(run, found):
    """Return the notices at the top of a run's report, and its section on published numbers, as Markdown."""
    protocol = run.evaluation.protocol
    known = {"protocol": protocol, "rule": parse_rule(protocol["threshold"]).words}
    context = {**context_of(run, found), **known}
    return [render_markdown(f"published-{part}.md.j2", context, redact=str) for part in ("notices", "scores")]


def report(run, found, pipelines, options):
    """Write the report of a run, and show what it found."""
    evaluation, listed = run.evaluation, run.is_published_split
    kind = "published split of the patients" if listed else "published test patients"
    path = write_report(
        evaluation,
        report_folder(options, run.trained_on),
        overwrite=options.overwrite,
        environment=describe_environment(device=run_all.device_words(evaluation, pipelines)),
        title=f"IDC, {kind}, on {found.data}{'' if listed else '; fitted on unlisted patients too'}",
        command=command_line(f"protocols/{PROGRAM}", make_parser(), options),
        template="published-report.md.j2",
        context=context_of(run, found),
        files={"official.csv": found.to_csv(), "official.json": found.to_dict()},
    )
    for entry in evaluation.not_run:
        print(f"not run: {entry.name}, {entry.head}: {entry.reason}")
    if listed:
        print(sections(run, found)[1])
    print(f"report: {path}")


if __name__ == "__main__":
    sys.exit(main())
