"""The encoder that ships with histofeat beside handcrafted features and an ImageNet network, on patients it never saw.

    python benchmarks/protocols/idc_encoder.py --data /path/to/shared/data --weights /path/to/weights

Three questions, one page: how far `histo` gets on the 49 official test patients of IDC (heads are fitted on all others,
from whom the encoder learnt too), what stain, blur, compression and light do to it there, and whether it carries to
BreakHis, of which it never saw an image. Each look at the 49 is a line of reports/test_ledger.csv. Writes
reports/idc-encoder-sample.
"""

import sys
import tempfile
from pathlib import Path

from histofeat.features import Runtime

REPOSITORY = Path(__file__).resolve().parents[2]
# Also where this file is loaded from elsewhere; a script finds what lies beside it by itself.
sys.path[:0] = [str(REPOSITORY / "benchmarks"), str(REPOSITORY / "benchmarks" / "protocols")]

import study  # noqa: E402

PROGRAM = "idc_encoder.py"
HANDCRAFTED = ("color", "lbp", "haralick", "pftas")
IMAGENET = "mobilenetv2_0.35"
#: Chosen by benchmarks/encoder/trials.py: an embedding that knows the training patients has a classifier of its own.
LATE_VOTE = "late vote"
#: Families, head and parameters of families.
MODELS = {
    "histo, XGBoost": ("histo", "xgboost", {}),
    "histo, logistic": ("histo", "logistic", {}),
    "histo, 8 views, XGBoost": ("histo", "xgboost", {"histo__views": 8}),
    "histo, 8 views, logistic": ("histo", "logistic", {"histo__views": 8}),
    "handcrafted": (HANDCRAFTED, "xgboost", {}),
    "handcrafted and histo": ((*HANDCRAFTED, "histo"), "xgboost", {}),
    "handcrafted and histo, 8 views, late vote": ((*HANDCRAFTED, "histo"), LATE_VOTE, {"histo__views": 8}),
    "ImageNet MobileNetV2": ("cnn", "xgboost", {"cnn__encoder": IMAGENET, "cnn__input_size": 128}),
}
#: Named here, before any score, and adjusted together.
PLANNED = (
    ("histo, XGBoost", "handcrafted"),
    ("histo, XGBoost", "ImageNet MobileNetV2"),
    ("handcrafted and histo", "handcrafted"),
    ("handcrafted and histo", "ImageNet MobileNetV2"),
    ("histo, 8 views, XGBoost", "histo, XGBoost"),
)
METRICS = ("roc_auc", "balanced_accuracy_tuned")
#: What is asked of the best embedding alone, and of it with handcrafted features.
TARGETS = {"histo": ("roc_auc", 0.940), "both": ("roc_auc", 0.950), "both, threshold": ("balanced_accuracy", 0.875)}
#: What is scored on perturbed patches and on BreakHis.
CARRIED = ("histo, XGBoost", "handcrafted", "handcrafted and histo", "ImageNet MobileNetV2")
#: Both directions of light and stain at their strongest, and the strongest of the others.
CONDITIONS = (
    ("stain_balance", -4),
    ("stain_balance", 4),
    ("brightness", -4),
    ("brightness", 4),
    ("blur", 4),
    ("jpeg", 4),
)
BREAKHIS_X = (40, 100)
QUICK_COHORT = {"n_patients": 12, "patches_per_patient": 12}


def make_parser():
    """Build the command line."""
    from idc_networks import add_test_options

    parser = study.study_parser(PROGRAM, "Score the shipped encoder on patients it never saw.", "idc-encoder-sample")
    parser.add_argument(
        "--breakhis", type=Path, metavar="DIR", help="BreakHis (default: breakhis/ beside idc/ in --data)"
    )
    add_test_options(parser)
    return parser


def main(arguments=None):
    """Run the study; returns the exit code."""
    return study.run_command(PROGRAM, run, make_parser().parse_args(arguments))


def run(options):
    """Load, score, write down each look, report."""
    from idc_encoder_page import make_page
    from idc_ledger import commit_words, open_ledger
    from idc_networks import record

    from histofeat.metrics import parse_rule
    from histofeat.reporting import check_output

    parse_rule(options.threshold)
    if options.data is None and not options.quick:
        raise ValueError("--data: expected a folder of IDC patches, got none. Give one, or --quick for a made-up one.")
    check_output(options.output, overwrite=options.overwrite, option="--overwrite")
    with tempfile.TemporaryDirectory(prefix="histofeat-", ignore_cleanup_errors=True) as scratch:
        dataset, fold, words = load(options, Path(scratch))
        if not options.quick:
            open_ledger(options.ledger)
        commit = commit_words(REPOSITORY)
        print(f"{dataset.name}: {words}", flush=True)
        fitted = fit_models(dataset, fold, options)
        if not options.quick:
            for entry in fitted.values():
                record(entry.evaluation, commit, options.ledger)
        page = make_page(
            fitted, perturbed(dataset, fold, fitted, options), carried(options, fitted), views_cost(dataset, options),
            words=words, planned=PLANNED, metrics=METRICS, targets=TARGETS,
            threshold=parse_rule(options.threshold).words, official=not options.quick,
        )  # fmt: skip
    command = study.command_line(f"protocols/{PROGRAM}", make_parser(), options)
    print(f"report: {study.write_study(page, options, command=command)}")


def load(options, scratch):
    """Patches, one fold of them, and the sentence that says whose they are; made-up ones are drawn in `scratch`."""
    import numpy as np
    from idc_networks import fold_words

    from histofeat import load_idc, make_cohort

    if options.quick:
        # Made-up patients: a look at the official ones would be a look, however small.
        dataset = make_cohort(root=scratch / "cohort", random_state=options.seed, **QUICK_COHORT)
        tested = np.isin(dataset.patients, np.unique(dataset.patients)[::3])
        train, test = np.flatnonzero(~tested), np.flatnonzero(tested)
        return dataset, (train, test), fold_words(dataset, train, test)
    dataset = load_idc(options.data / "idc" if (options.data / "idc").is_dir() else options.data)
    test = dataset.official_split().test
    train = np.setdiff1d(np.arange(len(dataset)), test)
    if not (len(test) and len(train)):
        raise ValueError(
            f"{options.data}: expected patches of official test patients and of others, got {len(test)} and "
            f"{len(train)}. Give the whole data set."
        )
    return dataset, (train, test), fold_words(dataset, train, test, "official test")


def make_pipeline(name, options):
    """Build one model."""
    from late_vote import make_late_vote

    from histofeat import IDCPipeline

    features, head, params = MODELS[name]
    params = dict(params)
    if options.weights and "cnn" in features:
        params["cnn__weights_dir"] = str(options.weights.expanduser().resolve())
    trees = {"n_estimators": 20} if options.quick and head == "xgboost" else None
    if head == LATE_VOTE:
        columns = [family.get_feature_names_out() for family in IDCPipeline(HANDCRAFTED).families()]
        head = make_late_vote(sum(map(len, columns)), random_state=options.seed, n_jobs=options.n_jobs)
    return IDCPipeline(
        features=features, head=head, feature_params=params, head_params=trees, random_state=options.seed
    )


def fit_models(dataset, fold, options):
    """Evaluate each model alone, so that its seconds are its own."""
    from argparse import Namespace

    from idc_networks import fit

    official, fitted = Namespace(**vars(options), development=False), {}
    for name in MODELS:
        print(f"--- {name}", flush=True)
        fitted[name] = fit(dataset, fold, name, make_pipeline(name, options), official)
    return fitted


def perturbed(dataset, fold, fitted, options):
    """Scores of some models on perturbed patches of the test patients; no table where none ran."""
    from histofeat.studies import measure_robustness

    pipelines = {name: make_pipeline(name, options) for name in CARRIED if fitted[name].evaluation.models}
    print("--- perturbed patches", flush=True)
    return measure_robustness(
        dataset, pipelines, [fold], conditions=CONDITIONS, metrics=("roc_auc",), n_resamples=2000,
        random_state=options.seed, runtime=Runtime(n_jobs=options.n_jobs, store=options.store),
    ).to_frame()  # fmt: skip


def carried(options, fitted):
    """Evaluations on BreakHis by magnification, benign against malignant; none where there is no BreakHis."""
    from histofeat import PatientKFold, evaluate, load_breakhis

    folder = options.breakhis or (options.data / "breakhis" if options.data and not options.quick else None)
    if folder is None or not folder.is_dir():
        return {}
    pipelines = [(name, make_pipeline(name, options)) for name in CARRIED if fitted[name].evaluation.models]
    found = {}
    for power in BREAKHIS_X:
        print(f"--- BreakHis at {power}X", flush=True)
        dataset = load_breakhis(folder, magnification=power, target="malignant", duplicates="drop")
        try:
            found[power] = evaluate(
                dataset, pipelines, PatientKFold(3), inner_cv=PatientKFold(2), n_resamples=2000,
                random_state=options.seed, runtime=Runtime(n_jobs=options.n_jobs, store=options.store),
            )  # fmt: skip
        except ValueError as error:  # too few patients at this magnification
            print(f"BreakHis at {power}X: {error}", file=sys.stderr)
            found[power] = str(error)
    return found


def views_cost(dataset, options):
    """Seconds that one view and eight take from decoded patches, in one run."""
    import time

    import numpy as np

    from histofeat.features import HistoEmbedding
    from histofeat.images import as_images

    images = as_images(dataset.X)
    patches = [images.decode(row, images.content(row))[0] for row in range(min(len(dataset), 4000))]
    patches = np.stack([patch for patch in patches if patch.shape == (50, 50, 3)])
    seconds = {}
    for views in (1, 8):
        embedding = HistoEmbedding(views=views)
        embedding.transform(patches[:64])
        started = time.perf_counter()
        embedding.transform(patches)
        seconds[views] = time.perf_counter() - started
    return {"patches": len(patches), "seconds": seconds, "engine": HistoEmbedding().engine_note_}


if __name__ == "__main__":
    sys.exit(main())
