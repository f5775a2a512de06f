"""The protocol of BreakHis: patient hold-outs at each magnification, and the subtypes by folds of patients.

    python benchmarks/protocols/breakhis.py --data /path/to/BreaKHis_v1
    python benchmarks/protocols/breakhis.py --data /path/to/sample --output reports/breakhis-sample
    python benchmarks/protocols/breakhis.py --quick

Five 70/30 hold-outs of patients at each magnification (the published lists where they lie beside the images, else ours
of the same kind): patient and image recognition rate of texture and colour features with several heads, mean and
standard deviation, and corrected tests of their differences. Then benign against malignant, and the subtypes, under
folds of patients, with a table of the classes. Without --data, --quick draws a synthetic cohort. Writes
reports/breakhis.
"""

import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from histofeat.features import Runtime

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "benchmarks"), str(REPOSITORY / "benchmarks" / "protocols")]

from study import command_line, run_command, study_parser, write_study  # noqa: E402

PROGRAM = "breakhis.py"
FEATURES = ("clbp", "lpq", "lbp", "glcm", "haralick", "pftas", "color", "handcrafted")
HEADS = ("knn", "qda", "random_forest", "svm", "xgboost")
#: Of the folds of patients, where a head is fitted four times a fold.
FOLD_HEADS = ("random_forest", "svm")
REFERENCE = "pftas/svm"
MAGNIFICATIONS = (40, 100, 200, 400)
#: Outer and inner folds: of benign and malignant, and of the subtypes, some of which few patients have.
FOLDS = {"malignant": (5, 3), "subtype": (3, 2)}
QUICK = {"features": ["lbp", "color"], "heads": ["knn", "random_forest"], "fold_heads": ["random_forest"]}
QUICK_COHORT = {"patients_per_subtype": 4, "images_per_slide": 2, "magnifications": (100,)}


def make_parser():
    """Give the parser."""
    parser = study_parser(PROGRAM, "Run the protocol of BreakHis.", "breakhis", data=False)
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help="the archive's tree of BreakHis, or a folder that holds breakhis/; "
        "without it --quick draws a synthetic cohort")  # fmt: skip
    add("--weights", type=Path, metavar="DIR", help="folder of ImageNet weights (default: $HISTOFEAT_WEIGHTS)")
    add("--store", type=Path, metavar="FILE", help="keep features in this file (default: keep nothing)")
    add("--features", nargs="+", default=list(FEATURES), metavar="SET",
        help=f"families, or handcrafted: color, lbp and haralick (default: {' '.join(FEATURES)})")  # fmt: skip
    add("--heads", nargs="+", default=list(HEADS), metavar="HEAD", help=f"default: {' '.join(HEADS)}")
    add("--fold-heads", nargs="+", default=list(FOLD_HEADS), metavar="HEAD",
        help=f"heads under folds of patients (default: {' '.join(FOLD_HEADS)})")  # fmt: skip
    add("--reference", default=REFERENCE, metavar="SET/HEAD",
        help=f"the model that all others are compared with (default: {REFERENCE})")  # fmt: skip
    add("--magnifications", nargs="+", type=int, default=list(MAGNIFICATIONS), metavar="X", help="default: 40 100 200 "
        "400")  # fmt: skip
    add("--patient-key", choices=("number", "full"), default="number",
        help="who a patient is: a slide number, or each full id as published (default: number)")  # fmt: skip
    add("--duplicates", choices=("refuse", "drop", "published"), default="drop",
        help="slide 13412, which lies under two subtypes (default: drop)")  # fmt: skip
    add("--lists", type=Path, metavar="DIR", help="folder of dsfold1.txt to dsfold5.txt (default: beside the images)")
    add("--accept-leaks", nargs="+", default=[], metavar="LEAK",
        help="leaks of the published lists to go on with: siblings, 'two labels'")  # fmt: skip
    add("--resamples", type=int, default=2000, metavar="N", help="resamples of the patients (default: 2000)")
    return parser


def run(options):
    """Load, measure, evaluate, write."""
    from breakhis_page import make_study

    from histofeat.reporting import check_output

    command = command_line(f"protocols/{PROGRAM}", make_parser(), options)
    settle(options)
    check_output(options.output, overwrite=options.overwrite, option="--overwrite")
    with (
        tempfile.TemporaryDirectory(prefix="histofeat-", ignore_cleanup_errors=True) as scratch,
        features_in(options, scratch),
    ):
        root = options.data or draw_cohort(options, scratch)
        sets = make_sets(options)
        found = [hold_outs(root, power, sets, options) for power in options.magnifications]
        evaluations = [
            folds_of(root, power, target, sets, options) for target in FOLDS for power in options.magnifications
        ]
    study = make_study(found, evaluations, options)
    print(f"report: {write_study(study, options, command=command)}")


def settle(options):
    """Make a quick run small, and refuse names that are not known before the long work begins."""
    from histofeat.exceptions import known_names
    from histofeat.features import FAMILIES
    from histofeat.models import HEADS as KNOWN_HEADS

    parser = make_parser()
    if options.quick:
        for name, few in QUICK.items():
            if getattr(options, name) == parser.get_default(name):
                setattr(options, name, few)
    elif options.data is None:
        raise ValueError("--data: expected the folder of BreakHis, got none. Give it, or try --quick.")
    if options.data is not None and (options.data / "breakhis").is_dir():
        options.data = options.data / "breakhis"
    known_sets = (*FAMILIES, "handcrafted")
    for option, names, known in (
        ("--features", options.features, known_sets),
        ("--heads", options.heads, KNOWN_HEADS),
        ("--fold-heads", options.fold_heads, KNOWN_HEADS),
        ("--magnifications", options.magnifications, MAGNIFICATIONS),
    ):
        for name in names:
            if name not in known:
                raise ValueError(
                    f"{option}: expected some of {', '.join(map(str, known))}, got {name!r}. "
                    f"{known_names(str(name), map(str, known))}"
                )
    models = [f"{features}/{head}" for features in options.features for head in options.heads]
    if options.reference == REFERENCE and REFERENCE not in models:
        options.reference = models[0]
    if options.reference not in models:
        raise ValueError(f"--reference: expected one of {', '.join(models)}, got {options.reference!r}. Name one.")


@contextmanager
def features_in(options, scratch):
    """Keep features between the parts of the study, so that no image is measured twice."""
    given = options.store
    options.store = given or Path(scratch) / "features.sqlite"
    try:
        yield
    finally:
        options.store = given


def draw_cohort(options, scratch):
    """Draw the synthetic cohort; gives its folder."""
    from histofeat.datasets import make_breakhis_cohort

    options.magnifications = [power for power in options.magnifications if power in QUICK_COHORT["magnifications"]]
    return make_breakhis_cohort(root=Path(scratch) / "cohort", random_state=options.seed, **QUICK_COHORT).root


def make_sets(options):
    """Families of each feature set."""
    from histofeat import IDCPipeline

    return {
        name: IDCPipeline(**recipe(name, "logistic", options)).families() for name in dict.fromkeys(options.features)
    }


def recipe(name, head, options):
    """Arguments of a pipeline."""
    from breakhis_holdouts import head_params
    from run_all import HANDCRAFTED

    weights = {"cnn__weights_dir": str(options.weights.expanduser().resolve())} if options.weights else {}
    return {
        "features": HANDCRAFTED if name == "handcrafted" else (name,),
        "head": head,
        "feature_params": weights if name == "cnn" else None,
        "head_params": head_params(head, options.quick) or None,
        "random_state": options.seed,
    }


def load(root, power, target, options):
    """Images at one magnification."""
    from histofeat.datasets import load_breakhis

    return load_breakhis(root, power, target, patient_key=options.patient_key, duplicates=options.duplicates)


def hold_outs(root, power, sets, options):
    """The hold-outs of one magnification; where they cannot be, a record that says why."""
    from breakhis_holdouts import HoldOuts, measure

    from histofeat.datasets import breakhis_hold_outs

    dataset = None
    try:
        dataset = load(root, power, "malignant", options)
        folds = breakhis_hold_outs(dataset, options.lists, options.accept_leaks, random_state=options.seed)
    except ValueError as error:
        return HoldOuts(power, not_run=[f"hold-outs at {power}X: {error}"]), dataset
    print(f"{power}X: {len(dataset):,} images of {dataset.audit.n_patients:,} patients, {folds.origin}", flush=True)
    return measure(dataset, power, folds, sets, options), dataset


def folds_of(root, power, target, sets, options):
    """One evaluation under folds of patients: what was refused, what was merged, and what was found."""
    from histofeat.datasets import merge_rare_classes
    from histofeat.evaluation import evaluate
    from histofeat.model_selection import PatientKFold

    outer, inner = FOLDS[target]
    record = {"magnification": power, "target": target, "refused": None, "evaluation": None, "dataset": None}
    try:
        whole = load(root, power, target, options)
        record["refused"] = refusal(whole, outer)
        record["dataset"] = merge_rare_classes(whole, outer) if target == "subtype" else whole
        record["evaluation"] = evaluate(
            record["dataset"],
            pipelines(sets, options),
            PatientKFold(outer, random_state=options.seed),
            inner_cv=PatientKFold(inner),
            n_resamples=options.resamples,
            random_state=options.seed,
            runtime=Runtime(n_jobs=options.n_jobs, store=options.store),
        )
        print(f"{power}X, {target}: {len(record['evaluation'].models)} models", flush=True)
    except ValueError as error:
        record["not_run"] = str(error)
    return record


def refusal(dataset, n_splits):
    """What `PatientKFold` says of these classes as they are; None where it can split them."""
    from histofeat.model_selection import PatientKFold

    try:
        list(PatientKFold(n_splits).split(dataset.X, dataset.y, dataset.patients))
    except ValueError as error:
        return str(error)
    return None


def pipelines(sets, options):
    """(name, pipeline) for every feature set and head of the folds."""
    from histofeat import IDCPipeline

    heads = dict.fromkeys(options.fold_heads)
    return [(name, IDCPipeline(**recipe(name, head, options))) for name in sets for head in heads]


def main(arguments=None):
    """Run the study; returns the exit code."""
    return run_command(PROGRAM, run, make_parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
