"""Networks trained on IDC, compared with baselines on the same training and test patients.

    python benchmarks/study.py idc-networks --data /path/to/idc --weights /path/to/weights --development
    python benchmarks/study.py idc-networks --data /path/to/idc --weights /path/to/weights

CancerNet and a small residual network from scratch, MobileNetV2 0.35 fine-tuned, its frozen embedding, and classical
features with their heads. The first command tests on the official validation patients and leaves the official test
patients alone: use it after a change. The second tests once on the 49 official test patients, fitted on all others, and
appends a line per model to reports/test_ledger.csv. The recipes of the networks were chosen on development patients
only: idc_networks_trials.csv lists what was tried. Writes reports/idc-networks-sample.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from official_candidates import CANDIDATES, CHOSEN as PUBLISHED_CHOICE
from official_test import OfficialTest, evaluate_each, fold_words, official_fold

from histofeat import CNNClassifier, IDCPipeline, load_idc, make_cohort, studies
from histofeat.metrics import parse_rule, rule_examples
from histofeat.networks import find_encoder

TRIALS = Path(__file__).with_name("idc_networks_trials.csv")
ENCODER = "mobilenetv2_0.35"
#: Side of the pictures that MobileNetV2 sees, fine-tuned or frozen; and what the frozen one has elsewhere here.
FINE_TUNED_PX, FROZEN_PX = 96, 128
#: Flips and quarter turns that a network's probabilities are averaged over.
VIEWS = 8
CANCERNET, RESNET, FINE_TUNED = "CancerNet", "small residual network", "MobileNetV2, fine-tuned"
FROZEN, FROZEN_LARGE = f"MobileNetV2, frozen, {FINE_TUNED_PX} px", f"MobileNetV2, frozen, {FROZEN_PX} px"
MODELS = {
    "cancernet": CANCERNET,
    "resnet_small": RESNET,
    "fine_tuned": FINE_TUNED,
    "frozen": FROZEN,
    "frozen_large": FROZEN_LARGE,
    "handcrafted": "handcrafted",
    "chosen": "chosen",
}
#: Differences that the study was made for, adjusted together and for all looks.
PLANNED = (
    (FINE_TUNED, FROZEN),
    (FINE_TUNED, FROZEN_LARGE),
    (CANCERNET, "handcrafted"),
    (RESNET, "handcrafted"),
    (FINE_TUNED, "handcrafted"),
    (RESNET, CANCERNET),
    (RESNET, "chosen"),
)
METRICS = ("roc_auc", "balanced_accuracy_tuned")
#: At the official test patients, with these networks.
EARLIER_LOOKS = 1
QUICK_COHORT = {"n_patients": 12, "patches_per_patient": 12}
#: Options of the studies on the official test patients.
TEST_OPTIONS = {
    "threshold": studies.option(
        "youden", f"what the threshold is chosen for in training patients: {rule_examples()}", metavar="RULE"
    ),
    "resamples": studies.option(10_000, "resamples of the tested patients"),
}


def run(options, runtime):
    """Train and score one model after another; write down each look; describe what was found."""
    studies.check_names("--models", options.models, MODELS)
    check_test_options(options)
    trials = studies.read_scores(TRIALS, ("roc_auc", "roc_auc_8_views"), numbers=("cpu_s",))
    official = not (options.development or options.quick)
    with tempfile.TemporaryDirectory(prefix="histofeat-", ignore_cleanup_errors=True) as scratch:
        dataset, fold, words = load(options, Path(scratch), made_up=options.quick and options.data is None)
        pipelines = {words: make_pipeline(name, options) for name, words in MODELS.items() if name in options.models}
        fitted = evaluate_each(dataset, fold, pipelines, runtime=runtime, **test_settings(options, official))
    n_looks = EARLIER_LOOKS + 1 if official else 1
    found = OfficialTest.of(words, fitted, PLANNED, METRICS, n_looks)
    shown = {"official_test_patients": official, "threshold": parse_rule(options.threshold).words}
    results = {**found.to_dict(), **shown, "looks": n_looks, "fine_tuning": PLANNED[0], "trials": trials}
    tables = {**found.tables(), "trials": pd.DataFrame(trials)}
    return studies.Findings(results, tables, {**_scores_figure(found), **_curves(found.epochs)})


def check_test_options(options):
    """Refuse what can be refused before the data are read."""
    parse_rule(options.threshold)
    if options.data is None and not options.quick:
        raise ValueError("--data: expected a folder of IDC patches, got none. Give one, or --quick for a made-up one.")


def test_settings(options, official):
    """Return the settings of `evaluate_each`."""
    cv = "official test patients" if official else "a few patients" if options.quick else "official validation patients"
    resamples = 100 if options.quick else options.resamples
    return {"n_resamples": resamples, "random_state": options.seed, "threshold": options.threshold, "cv_words": cv}


def load(options, scratch, *, made_up=False):
    """Return patches, one fold of them, and words for it; `made_up` ones are drawn in the folder `scratch`."""
    development = getattr(options, "development", False)
    if made_up:
        dataset = make_cohort(root=scratch / "cohort", random_state=options.seed, **QUICK_COHORT)
    elif development or options.quick:
        dataset = studies.load_development_patients(options.data, quick=options.quick, random_state=options.seed)
    else:
        dataset = load_idc(studies.find_idc(options.data))
    if not options.quick:
        return dataset, *official_fold(dataset, "validation" if development else "test")
    patients = dataset.patients.astype(str)
    tested = np.isin(patients, np.unique(patients)[::3])
    train, test = np.flatnonzero(~tested), np.flatnonzero(tested)
    return dataset, (train, test), fold_words(dataset, train, test)


def make_pipeline(name, options):
    """Build one model; networks with the recipes of their architecture."""
    if name in ("cancernet", "resnet_small", "fine_tuned"):
        return IDCPipeline(features="pixels", head=make_network(name, options), random_state=options.seed)
    if name == "chosen":
        return (CANDIDATES[0] if options.quick else PUBLISHED_CHOICE).pipeline(options)
    trees = {"n_estimators": 20} if options.quick else None
    common = {"head": "xgboost", "head_params": trees, "random_state": options.seed}
    if name == "handcrafted":
        return IDCPipeline(features=("color", "lbp", "haralick"), **common)
    size = FROZEN_PX if name == "frozen_large" else FINE_TUNED_PX
    network = studies.network_params(options.weights, {"cnn__encoder": ENCODER, "cnn__input_size": size})
    return IDCPipeline(features="cnn", feature_params=network, **common)


def make_network(name, options):
    """Build one `CNNClassifier`, as its architecture's recipe trains it; a few epochs in a quick run."""
    settings = {"views": VIEWS, "random_state": options.seed, "n_jobs": options.n_jobs, "progress": say_epoch}
    if options.quick:
        settings |= {"epochs": 1, "recipe": {"batch_size": 16}, "validation_fraction": 0.3}
    if name != "fine_tuned":
        return CNNClassifier(name, **settings)
    # All layers, as in the trial that did best.
    settings["recipe"] = settings.get("recipe", {}) | {"fine_tune": "all"}
    return CNNClassifier(ENCODER, weights=imagenet(options), input_size=FINE_TUNED_PX, **settings)


def imagenet(options):
    """Return the file of ImageNet weights in the folder given; "imagenet" leaves the search to histofeat."""
    names = find_encoder(ENCODER).accepted_files if options.weights else ()
    files = (options.weights.expanduser() / name for name in names)
    return next((str(file.resolve()) for file in files if file.is_file()), "imagenet")


def say_epoch(done, total, values):
    """Print how far a training is, and the scores of the patients held out of it."""
    known = ", ".join(f"{name} {values[name]:.3f}" for name in ("loss", "val_loss", "val_roc_auc") if name in values)
    print(f"epoch {done} of {total}: {known}", flush=True)


# --- figures ---------------------------------------------------------------------------------------------------------


def _scores_figure(found):
    if not found.models:
        return {}
    table = found.tables()["models"]
    table["kind"] = np.where(table["epochs"] > 0, "trained network", "fixed features")
    title, x_label = f"IDC: {found.tested}", "ROC-AUC, 95 % interval over patients"
    return {"scores": studies.bars(title, x_label, table, "roc_auc", "{name}", group="kind", reference=None)}


def _curves(epochs):
    """Return loss, and validation ROC-AUC, per epoch: a panel per network."""
    asked = {
        "loss": ("loss", {"loss": "training", "val_loss": "validation patients"}),
        "validation_roc_auc": ("ROC-AUC", {"val_roc_auc": "validation patients"}),
    }
    table, figures = pd.DataFrame(epochs), {}
    for figure, (y_label, wanted) in asked.items():
        known = [words for column, words in wanted.items() if column in table]
        if known:
            points = table[["name", "epoch", *(column for column in wanted if column in table)]].rename(columns=wanted)
            points = points.melt(["name", "epoch"], known, "line", "value").dropna(subset="value")
            title, columns = f"Training: {y_label} per epoch", ("name", "line", "epoch", "value")
            figures[figure] = studies.lines(title, points, *columns, x_label="epoch", y_label=y_label)
    return figures


STUDY = studies.Study(
    "idc-networks",
    "Trained networks on IDC",
    "Train networks on IDC and compare them with baselines.",
    run,
    {
        "development": studies.option(False, "test on the official validation patients; leave the test patients alone"),
        "models": studies.option(list(MODELS), f"which to run: {', '.join(MODELS)}"),
        **TEST_OPTIONS,
    },
    data="optional",
    folder="idc-networks-sample",
    template=Path(__file__).with_name("study-idc-networks.md.j2"),
)
