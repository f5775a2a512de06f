"""The shipped encoder compared with handcrafted features and ImageNet networks, on patients it never saw.

    python benchmarks/study.py idc-encoder --data DIR/idc DIR/idc_second --weights /path/to/weights

Three questions, one page: how far `histo` gets on the 49 official test patients of IDC, alone and beside handcrafted
features (heads are fitted on all others, in the encoder's training set too), what stain, blur, compression and light do
to it there, and whether it carries to BreakHis, of which it never saw an image. Everything was chosen on the 190 other
patients (benchmarks/encoder/trials.csv). Earlier encoders had been scored on the 49 before: p-values are adjusted for
all looks. Each look is in reports/test_ledger.csv. Writes reports/idc-encoder-sample.
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
    option,
)

#: All eight families that a comparison on the 190 put before the default ones.
HANDCRAFTED = ("color", "lbp", "haralick", "pftas", "fuzzy_color", "joint_color", "clbp", "lpq")
#: Strength of the logistic head. An embedding that knows the training patients needs a strong penalty.
USUAL, STRONG = {"C": 0.1}, {"C": 0.001}
#: Families, encoder of the family "cnn", and parameters of the logistic head.
MODELS = {
    "handcrafted": (HANDCRAFTED, None, USUAL),
    "handcrafted and Lite stages": ((*HANDCRAFTED, "cnn"), ("efficientnet_lite0_stages", 96), USUAL),
    "handcrafted and histo": ((*HANDCRAFTED, "histo"), None, STRONG),
    "histo": ("histo", None, STRONG),
    "ImageNet MobileNetV2": ("cnn", ("mobilenetv2_0.35", 128), USUAL),
}
#: Adjusted together, and for all looks.
PLANNED = (
    ("handcrafted and Lite stages", "handcrafted"),
    ("handcrafted and histo", "handcrafted"),
    ("histo", "handcrafted"),
)
METRICS = ("roc_auc", "balanced_accuracy_tuned")
#: Two at encoders before the first one that was shipped, and one at that.
EARLIER_LOOKS = 3
#: Both directions of light and stain at their strongest, and the strongest of the others.
CONDITIONS = (
    *(("stain_balance", -4), ("stain_balance", 4), ("brightness", -4), ("brightness", 4)),
    *(("blur", 4), ("jpeg", 4)),
)
#: Magnification of BreakHis, and the folder beside IDC: originals, and a copy that was resized to 224x224 px.
BREAKHIS = {100: "breakhis", 200: "breakhis200_224"}


def run(options, runtime):
    """Score, write down each look, then perturbed patches, BreakHis and the speed."""
    check_test_options(options)
    with tempfile.TemporaryDirectory(prefix="histofeat-", ignore_cleanup_errors=True) as scratch:
        # A quick run has made-up patients, whatever data there are: the encoder knows the others.
        dataset, fold, words = load(options, Path(scratch), made_up=options.quick)
        pipelines = {name: make_pipeline(name, options) for name in MODELS}
        fitted = evaluate_each(dataset, fold, pipelines, runtime=runtime, **test_settings(options, not options.quick))
        n_looks = 1 if options.quick else EARLIER_LOOKS + 1
        found = OfficialTest.of(words, fitted, PLANNED, METRICS, n_looks)
        ran = {name: pipelines[name] for name in MODELS if fitted[name].lost is None}
        perturbed = measure_robustness(
            dataset, ran, [fold], conditions=CONDITIONS, metrics=("roc_auc",), n_resamples=2000,
            random_state=options.seed, runtime=replace(runtime, progress=None),
        ).table  # fmt: skip
        speed = speed_of(dataset)
    results = {**found.to_dict(), "perturbed": perturbed.to_dict("records"), "breakhis": carried(options, ran, runtime)}
    results |= {"speed": speed, "threshold": parse_rule(options.threshold).words, "looks": n_looks}
    return Findings(results, {**found.tables(), "perturbed": perturbed})


def make_pipeline(name, options):
    """Build one model."""
    features, network, head = MODELS[name]
    params = {}
    if network is not None:
        params = {"cnn__encoder": network[0], "cnn__input_size": network[1]}
        # Weights that are not in the folder come from their package.
        if options.weights and network[0].startswith("mobilenet"):
            params["cnn__weights_dir"] = str(options.weights)
    return IDCPipeline(
        features, "logistic", feature_params=params, head_params=head, random_state=options.seed, n_jobs=options.n_jobs
    )


def carried(options, pipelines, runtime):
    """Return scores on BreakHis by magnification, benign against malignant; nothing where there is no BreakHis."""
    folders, found = [] if options.quick else [*(options.data or ())], {}
    for power, name in BREAKHIS.items():
        beside = [*(one / name for one in folders), *(one.parent / name for one in folders)]
        given = [options.breakhis.with_name(name)] if options.breakhis else beside
        folder = next(filter(Path.is_dir, given), None)
        if folder is None:
            continue
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


def speed_of(dataset):
    """Return the seconds that embeddings take from decoded patches, in one run."""
    images, embedding = as_images(dataset.X), HistoEmbedding()
    patches = [images.decode(row, images.content(row))[0] for row in range(min(len(dataset), 4000))]
    patches = np.stack([patch for patch in patches if patch.shape == (50, 50, 3)])
    embedding.transform(patches[:64])
    started = time.perf_counter()
    embedding.transform(patches)
    return {"patches": len(patches), "seconds": time.perf_counter() - started, "engine": embedding.engine_note_}


STUDY = Study(
    "idc-encoder",
    "The shipped encoder on patients it never saw",
    "Score the shipped encoder on patients it never saw.",
    run,
    {
        "breakhis": option(None, "BreakHis; by default breakhis/ beside the patches", kind=Path, metavar="DIR"),
        **TEST_OPTIONS,
    },
    data="optional",
    folder="idc-encoder-sample",
    template=Path(__file__).with_name("study-idc-encoder.md.j2"),
)
