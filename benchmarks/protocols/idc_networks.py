"""Networks that are trained on IDC beside the baselines that are not: the same training patients, the same test.

    python benchmarks/protocols/idc_networks.py --data /path/to/idc --weights /path/to/weights --development
    python benchmarks/protocols/idc_networks.py --data /path/to/idc --weights /path/to/weights

CancerNet and a small residual network from scratch, MobileNetV2 0.35 fine-tuned, and beside them its frozen embedding
and classical features with their heads. The first command tests on the official validation patients, does not touch
those of the official test set, and is for whoever changes something; the second tests once on the 49 official test
patients, fitted on all others, and appends a line per model to reports/test_ledger.csv. How each network is trained was
chosen on development patients only: idc_networks_trials.csv lists what was tried. Writes reports/idc-networks-sample.
"""

import csv
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from histofeat.features import Runtime

REPOSITORY = Path(__file__).resolve().parents[2]
# Also where this file is loaded from elsewhere; a script finds what lies beside it by itself.
sys.path[:0] = [str(REPOSITORY / "benchmarks"), str(REPOSITORY / "benchmarks" / "protocols")]

import study  # noqa: E402

PROGRAM = "idc_networks.py"
TRIALS = Path(__file__).with_name("idc_networks_trials.csv")
TRIAL_COLUMNS = ("trial", "network", "recipe", "seed", "held_out", "epochs", "cpu_s", "roc_auc", "roc_auc_8_views")
ENCODER = "mobilenetv2_0.35"
#: Side of the pictures that MobileNetV2 sees, fine-tuned or frozen.
FINE_TUNED_PX = 96
#: What the frozen embedding has elsewhere in this repository.
FROZEN_PX = 128
#: Flips and quarter turns that a network's probabilities are averaged over.
VIEWS = 8
CANCERNET, RESNET, FINE_TUNED = "CancerNet", "small residual network", "MobileNetV2, fine-tuned"
FROZEN, FROZEN_LARGE = f"MobileNetV2, frozen, {FINE_TUNED_PX} px", f"MobileNetV2, frozen, {FROZEN_PX} px"
HANDCRAFTED, CHOSEN = "handcrafted", "chosen"
MODELS = {
    "cancernet": CANCERNET,
    "resnet_small": RESNET,
    "fine_tuned": FINE_TUNED,
    "frozen": FROZEN,
    "frozen_large": FROZEN_LARGE,
    "handcrafted": HANDCRAFTED,
    "chosen": CHOSEN,
}
#: Differences that the study was made for: planned here, before any score, and adjusted together.
PLANNED = (
    (FINE_TUNED, FROZEN),
    (FINE_TUNED, FROZEN_LARGE),
    (CANCERNET, HANDCRAFTED),
    (RESNET, HANDCRAFTED),
    (FINE_TUNED, HANDCRAFTED),
    (RESNET, CANCERNET),
    (RESNET, CHOSEN),
)
METRICS = ("roc_auc", "balanced_accuracy_tuned")
#: What CancerNet is to reach on the official test patients, and in how many minutes on two cores.
TARGET_ROC_AUC, TARGET_MINUTES = 0.92, 20
QUICK_COHORT = {"n_patients": 12, "patches_per_patient": 12}


@dataclass(frozen=True)
class Fitted:
    """One pipeline after its evaluation.

    Parameters
    ----------
    evaluation : Evaluation
        With one model, or with none and the reason.
    wall_s, cpu_s : float
        From the first file read to the last probability: reading, checks of the folds, features, training, predicting;
        intervals are not in it. CPU seconds are of all threads.
    """

    evaluation: Any
    wall_s: float
    cpu_s: float


def make_parser():
    """Build the command line."""
    parser = study.study_parser(PROGRAM, "Train networks on IDC; score them beside baselines.", "idc-networks-sample")
    add = parser.add_argument
    add("--development", action="store_true", help="test on the official validation patients; leave the test patients "
        "alone")  # fmt: skip
    add("--models", nargs="+", default=list(MODELS), metavar="NAME",
        help=f"which to run: {', '.join(MODELS)} (default: all)")  # fmt: skip
    add_test_options(parser)
    return parser


def add_test_options(parser):
    """Add what every study of the official test patients asks for; --data is needed no longer."""
    add = parser.add_argument
    for action in parser._actions:  # --quick draws a cohort where there are no data
        if action.dest == "data":
            action.required = False
    add("--threshold", default="youden", metavar="RULE", help="what the threshold is chosen for among training "
        "patients: f1, youden or sensitivity=0.95 (default: youden)")  # fmt: skip
    add("--resamples", type=int, default=10_000, metavar="N", help="resamples of the tested patients (default: 10000)")
    add("--ledger", type=Path, metavar="FILE", default=REPOSITORY / "reports" / "test_ledger.csv",
        help="where each look at the test patients is written down (default: reports/test_ledger.csv)")  # fmt: skip


def main(arguments=None):
    """Run the study; returns the exit code."""
    return study.run_command(PROGRAM, run, make_parser().parse_args(arguments))


def run(options):
    """Load; train and score one model after another; write down each look; report."""
    from idc_ledger import commit_words, open_ledger
    from idc_networks_page import make_page

    from histofeat.metrics import parse_rule
    from histofeat.reporting import check_output

    # What can be refused is refused before the data are read.
    parse_rule(options.threshold)
    check_options(options)
    check_output(options.output, overwrite=options.overwrite, option="--overwrite")
    trials = load_trials()
    with tempfile.TemporaryDirectory(prefix="histofeat-", ignore_cleanup_errors=True) as scratch:
        dataset, fold, words = load(options, Path(scratch))
        if is_official(options):
            open_ledger(options.ledger)
        commit = commit_words(REPOSITORY)  # before the work: the tree may change while it runs
        print(f"{dataset.name}: {words}", flush=True)
        fitted = {}
        for name, pipeline in make_pipelines(options):
            print(f"--- {name}", flush=True)
            fitted[name] = fit(dataset, fold, name, pipeline, options)
            if is_official(options):
                record(fitted[name].evaluation, commit, options.ledger)
    page = make_page(
        fitted, trials, words=words, official=is_official(options), planned=PLANNED, metrics=METRICS,
        target=(CANCERNET, TARGET_ROC_AUC, TARGET_MINUTES), threshold=parse_rule(options.threshold).words,
    )  # fmt: skip
    report = study.write_study(
        page, options, command=study.command_line(f"protocols/{PROGRAM}", make_parser(), options)
    )
    print(f"report: {report}")


def is_official(options):
    """Whether this run tests on the 49 official test patients."""
    return not (options.development or options.quick)


def check_options(options):
    """Refuse names that are none, and a run without data that needs them."""
    from histofeat.exceptions import known_names

    for name in options.models:
        if name not in MODELS:
            raise ValueError(f"--models: expected names it knows, got {name!r}. {known_names(name, MODELS)}")
    if options.data is None and not options.quick:
        raise ValueError("--data: expected a folder of IDC patches, got none. Give one, or --quick for a made-up one.")


# --- whom it learns from, whom it tests -----------------------------------------------------------------------------


def load(options, scratch):
    """Patches, one fold of them, and the sentence that says whose they are.

    Returns
    -------
    dataset : PatchDataset
        Without the official test patients, unless this run tests on them.
    fold : (ndarray, ndarray)
        Training and test rows.
    words : str
    """
    import numpy as np

    if options.quick:
        return load_quick(options, scratch)
    if options.development:
        dataset = study.development_patients(options)
        test = dataset.official_split().validation
        kind = "official validation"
    else:
        from histofeat import load_idc

        folder = options.data / "idc" if (options.data / "idc").is_dir() else options.data
        dataset = load_idc(folder)
        test = dataset.official_split().test
        kind = "official test"
    train = np.setdiff1d(np.arange(len(dataset)), test)
    if not (len(test) and len(train)):
        raise ValueError(
            f"{options.data}: expected patches of {kind} patients and of others, got {len(test)} and {len(train)}. "
            "Give the whole data set."
        )
    return dataset, (train, test), fold_words(dataset, train, test, kind)


def load_quick(options, scratch):
    """A few patches, real ones where they are given; every third patient is tested."""
    import numpy as np

    from histofeat import make_cohort

    if options.data is None:
        dataset = make_cohort(root=scratch / "cohort", random_state=options.seed, **QUICK_COHORT)
    else:
        dataset = study.development_patients(options)
    patients = dataset.patients.astype(str)
    tested = np.isin(patients, np.unique(patients)[::3])
    train, test = np.flatnonzero(~tested), np.flatnonzero(tested)
    return dataset, (train, test), fold_words(dataset, train, test)


def fold_words(dataset, train, test, kind=""):
    """Say how many patches of how many patients are learnt from, and tested."""
    learnt, tested = (len(set(dataset.patients[rows])) for rows in (train, test))
    patients = f"{tested:,} {kind} patients".replace("  ", " ")
    return f"{len(test):,} patches of {patients}, after training on {len(train):,} patches of {learnt:,} other patients"


# --- the models ------------------------------------------------------------------------------------------------------


def make_pipelines(options):
    """(name, pipeline) of every model asked for, in the order of `MODELS`."""
    wanted = set(options.models)
    return [(words, make_pipeline(name, options)) for name, words in MODELS.items() if name in wanted]


def make_pipeline(name, options):
    """Build one model; networks with the recipes of their architecture."""
    from histofeat import IDCPipeline

    if name in ("cancernet", "resnet_small", "fine_tuned"):
        return IDCPipeline(features="pixels", head=make_network(name, options), random_state=options.seed)
    if name == "chosen":
        from official_candidates import CANDIDATES, CHOSEN as PUBLISHED_CHOICE

        return (CANDIDATES[0] if options.quick else PUBLISHED_CHOICE).pipeline(options)
    trees = {"n_estimators": 20} if options.quick else None
    common = {"head": "xgboost", "head_params": trees, "random_state": options.seed}
    if name == "handcrafted":
        return IDCPipeline(features=("color", "lbp", "haralick"), **common)
    network = {"cnn__encoder": ENCODER, "cnn__input_size": FROZEN_PX if name == "frozen_large" else FINE_TUNED_PX}
    if options.weights:
        network["cnn__weights_dir"] = str(options.weights.expanduser().resolve())
    return IDCPipeline(features="cnn", feature_params=network, **common)


def make_network(name, options):
    """One `CNNClassifier`, as its architecture's recipe trains it; a few epochs in a quick run."""
    from histofeat import CNNClassifier

    settings = {"views": VIEWS, "random_state": options.seed, "n_jobs": options.n_jobs, "progress": say_epoch}
    if options.quick:
        settings |= {"epochs": 1, "batch_size": 16, "validation_fraction": 0.3}
    if name != "fine_tuned":
        return CNNClassifier(name, **settings)
    # All layers, as in the trial that did best.
    return CNNClassifier(ENCODER, weights=imagenet(options), input_size=FINE_TUNED_PX, fine_tune="all", **settings)


def imagenet(options):
    """The file of ImageNet weights in the folder of the command line; "imagenet" leaves the search to histofeat."""
    from histofeat.networks import find_encoder

    if options.weights:
        for file in find_encoder(ENCODER).accepted_files:
            if (options.weights.expanduser() / file).is_file():
                return str((options.weights.expanduser() / file).resolve())
    return "imagenet"


def say_epoch(done, total, values):
    """Print how far a training is, and what the patients held out of it say."""
    known = ", ".join(f"{name} {values[name]:.3f}" for name in ("loss", "val_loss", "val_roc_auc") if name in values)
    print(f"epoch {done} of {total}: {known}", flush=True)


def fit(dataset, fold, name, pipeline, options):
    """Evaluate one pipeline alone, so that its seconds are its own."""
    from histofeat.evaluation import evaluate

    started = time.perf_counter(), time.process_time()
    ended = []

    def clock(stage, done, total):
        if stage == "fit" and done == total:
            ended[:] = time.perf_counter(), time.process_time()

    evaluation = evaluate(
        dataset,
        [(name, pipeline)],
        [fold],
        n_resamples=100 if options.quick else options.resamples,
        random_state=options.seed,
        runtime=Runtime(n_jobs=options.n_jobs, store=options.store, progress=clock),
        threshold=options.threshold,
    )
    wall_s, cpu_s = (after - before for before, after in zip(started, ended or started, strict=True))
    cv = "official validation patients" if options.development else "official test patients"
    protocol = {**evaluation.protocol, "cv": "a few patients" if options.quick else cv}
    return Fitted(replace(evaluation, protocol=protocol), wall_s, cpu_s)


# --- what was tried, what was looked at ------------------------------------------------------------------------------


def load_trials(path=TRIALS):
    """Read what was tried on development patients before the recipes were chosen.

    Returns
    -------
    list of dict
        With `TRIAL_COLUMNS`; numbers as numbers, ``roc_auc_8_views`` None where it was not measured.

    Raises
    ------
    ValueError
        If the file has other columns, or a score that is none.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != TRIAL_COLUMNS:
            raise ValueError(
                f"{path.name}: expected the columns {', '.join(TRIAL_COLUMNS)}, got "
                f"{', '.join(reader.fieldnames or ())!r}. Restore the file."
            )
        return [_trial(row, f"{path.name}, row {number}") for number, row in enumerate(reader, start=1)]


def _trial(row, where):
    try:
        numbers = {
            "cpu_s": float(row["cpu_s"]),
            "roc_auc": float(row["roc_auc"]),
            "roc_auc_8_views": float(row["roc_auc_8_views"]) if row["roc_auc_8_views"] else None,
        }
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: expected numbers, got {row!r:.200}. Restore the file.") from error
    if not 0 < numbers["roc_auc"] < 1:
        raise ValueError(f"{where}: expected roc_auc between 0 and 1, got {row['roc_auc']!r}. Restore the file.")
    return {**row, **numbers}


def record(evaluation, commit, ledger):
    """Append the look at the test patients that an evaluation was; returns how many lines the ledger holds now."""
    from idc_comparison import WITH_UNLISTED
    from idc_ledger import append_lines, ledger_line

    from histofeat.metrics import parse_rule

    lines = [
        ledger_line(
            commit=commit,
            pipeline=f"{model.name}/{model.head} ({'+'.join(model.features)})",
            data=evaluation.dataset.name,
            n_patches=len(evaluation.dataset),
            n_test_patients=len(set(evaluation.dataset.patients[evaluation.tested])),
            n_test_patches=int(evaluation.tested.sum()),
            roc_auc=model.scores["roc_auc"].pooled,
            balanced_accuracy_tuned=model.tuned["balanced_accuracy"].pooled,
            f1_tuned=model.tuned["f1"].pooled,
            trained_on=WITH_UNLISTED,
            threshold=parse_rule(evaluation.protocol["threshold"]),
        )
        for model in evaluation.models
    ]
    n_evaluations = append_lines(ledger, lines) if lines else 0
    print(f"ledger: {len(lines)} more in {ledger}", flush=True)
    return n_evaluations


if __name__ == "__main__":
    sys.exit(main())
