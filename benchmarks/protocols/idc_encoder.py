"""The shipped encoder compared with handcrafted features and an ImageNet network, on patients it never saw.

    python benchmarks/study.py idc-encoder --data /path/to/shared/data --weights /path/to/weights

Three questions, one page: how far `histo` gets on the 49 official test patients of IDC (heads are fitted on all others,
in the encoder's training set too), what stain, blur, compression and light do to it there, and whether it carries to
BreakHis, of which it never saw an image. Encoders of this kind had been scored on the 49 before: p-values are adjusted
for all looks. Each look is in reports/test_ledger.csv. Writes reports/idc-encoder-sample.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from idc_networks import TEST_OPTIONS, check_test_options, load, test_settings
from official_test import OfficialTest, evaluate_each

from histofeat import IDCPipeline, PatientKFold, evaluate, load_breakhis
from histofeat.features import HistoEmbedding
from histofeat.images import as_images
from histofeat.metrics import parse_rule
from histofeat.studies import (
    Findings,
    Study,
    measure_robustness,
    network_params,
    option,
)

HANDCRAFTED = ("color", "lbp", "haralick", "pftas")
IMAGENET = {"cnn__encoder": "mobilenetv2_0.35", "cnn__input_size": 128}
#: Families, head and parameters of families. The late vote was chosen by benchmarks/encoder/trials.py: an embedding
#: that knows the training patients has a classifier of its own.
MODELS = {
    "histo, XGBoost": ("histo", "xgboost", {}),
    "histo, logistic": ("histo", "logistic", {}),
    "histo, 8 views, XGBoost": ("histo", "xgboost", {"histo__views": 8}),
    "histo, 8 views, logistic": ("histo", "logistic", {"histo__views": 8}),
    "handcrafted": (HANDCRAFTED, "xgboost", {}),
    "handcrafted and histo": ((*HANDCRAFTED, "histo"), "xgboost", {}),
    "handcrafted and histo, 8 views, late vote": ((*HANDCRAFTED, "histo"), "late_vote", {"histo__views": 8}),
    "ImageNet MobileNetV2": ("cnn", "xgboost", IMAGENET),
}
#: Adjusted together, and for all looks.
PLANNED = (
    ("histo, XGBoost", "handcrafted"),
    ("histo, XGBoost", "ImageNet MobileNetV2"),
    ("handcrafted and histo", "handcrafted"),
    ("handcrafted and histo", "ImageNet MobileNetV2"),
    ("histo, 8 views, XGBoost", "histo, XGBoost"),
)
METRICS = ("roc_auc", "balanced_accuracy_tuned")
#: A quick look and a full one, after which the recipe was changed, and one at the encoder that is shipped.
EARLIER_LOOKS = 3
#: What is scored on perturbed patches and on BreakHis.
CARRIED = ("histo, XGBoost", "handcrafted", "handcrafted and histo", "ImageNet MobileNetV2")
#: Both directions of light and stain at their strongest, and the strongest of the others.
CONDITIONS = (
    *(("stain_balance", -4), ("stain_balance", 4), ("brightness", -4), ("brightness", 4)),
    *(("blur", 4), ("jpeg", 4)),
)
BREAKHIS_X = (40, 100)


def run(options, runtime):
    """Score, write down each look, then perturbed patches, BreakHis and the cost of eight views."""
    check_test_options(options)
    with tempfile.TemporaryDirectory(prefix="histofeat-", ignore_cleanup_errors=True) as scratch:
        # A quick run has made-up patients, whatever data there are: the encoder knows the others.
        dataset, fold, words = load(options, Path(scratch), made_up=options.quick)
        pipelines = {name: make_pipeline(name, options) for name in MODELS}
        fitted = evaluate_each(dataset, fold, pipelines, runtime=runtime, **test_settings(options, not options.quick))
        n_looks = 1 if options.quick else EARLIER_LOOKS + 1
        found = OfficialTest.of(words, fitted, PLANNED, METRICS, n_looks)
        ran = {name: pipelines[name] for name in CARRIED if fitted[name].lost is None}
        perturbed = measure_robustness(
            dataset, ran, [fold], conditions=CONDITIONS, metrics=("roc_auc",), n_resamples=2000,
            random_state=options.seed, runtime=replace(runtime, progress=None),
        ).table  # fmt: skip
        views = views_cost(dataset)
    results = {**found.to_dict(), "perturbed": perturbed.to_dict("records"), "breakhis": carried(options, ran, runtime)}
    results |= {"views": views, "threshold": parse_rule(options.threshold).words, "looks": n_looks}
    return Findings(results, {**found.tables(), "perturbed": perturbed})


def make_pipeline(name, options):
    """Build one model."""
    features, head, params = MODELS[name]
    if features == "cnn":
        params = network_params(options.weights, params)
    trees = {"n_estimators": 20} if options.quick and head == "xgboost" else None
    return IDCPipeline(features, head, feature_params=params, head_params=trees, random_state=options.seed)


def carried(options, pipelines, runtime):
    """Return scores on BreakHis by magnification, benign against malignant; nothing where there is no BreakHis."""
    beside = [] if options.quick else [folder / "breakhis" for folder in options.data or ()]
    folder = options.breakhis or next(filter(Path.is_dir, beside), None)
    if folder is None or not folder.is_dir():
        return {}
    found = {}
    for power in BREAKHIS_X:
        dataset = load_breakhis(folder, magnification=power, target="malignant", duplicates="drop")
        try:
            evaluation = evaluate(
                dataset, list(pipelines.items()), PatientKFold(3), inner_cv=PatientKFold(2), n_resamples=2000,
                random_state=options.seed, runtime=replace(runtime, progress=None),
            )  # fmt: skip
        except ValueError as error:  # too few patients at this magnification
            found[power] = str(error)
            continue
        size = {
            "n_patches": int(evaluation.tested.sum()), "n_patients": len(set(dataset.patients[evaluation.tested])),
        }  # fmt: skip
        scores = {model.name: model.scores["roc_auc"] for model in evaluation.models}
        notes = {
            model.name: [one for one in model.notes if "No model was learnt" in one] for model in evaluation.models
        }
        found[power] = [
            {"name": name, "roc_auc": {"value": score.value, "ci95": list(score.ci95)}, **size, "notes": notes[name]}
            for name, score in scores.items()
        ]
    return found


def views_cost(dataset):
    """Return the seconds that one view and eight take from decoded patches, in one run."""
    images = as_images(dataset.X)
    patches = [images.decode(row, images.content(row))[0] for row in range(min(len(dataset), 4000))]
    patches, seconds = np.stack([patch for patch in patches if patch.shape == (50, 50, 3)]), {}
    for views in (1, 8):
        embedding = HistoEmbedding(views=views)
        embedding.transform(patches[:64])
        started = time.perf_counter()
        embedding.transform(patches)
        seconds[views] = time.perf_counter() - started
    return {"patches": len(patches), "seconds": seconds, "engine": HistoEmbedding().engine_note_}


STUDY = Study(
    "idc-encoder",
    "The shipped encoder on patients it never saw",
    "Score the shipped encoder on patients it never saw.",
    run,
    {
        "breakhis": option(None, "BreakHis; by default breakhis/ beside idc/", kind=Path, metavar="DIR"),
        **TEST_OPTIONS,
    },
    data="optional",
    folder="idc-encoder-sample",
    template=Path(__file__).with_name("study-idc-encoder.md.j2"),
)
