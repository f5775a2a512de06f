"""What the score rests on: families, groups and single features permuted, families left out, and their price in time.

    python benchmarks/protocols/explanation.py --data /path/to/idc --weights /path/to/weights

On patients held out, of the IDC patients outside the official test set. Writes reports/explanation.
"""

import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from histofeat.features import Runtime

REPOSITORY = Path(__file__).resolve().parents[2]
# Also where this file is loaded from elsewhere; a script finds what lies beside it by itself.
sys.path[:0] = [str(REPOSITORY / "benchmarks"), str(REPOSITORY / "benchmarks" / "protocols")]

import run_all  # noqa: E402
from explanation_page import make_study  # noqa: E402
from study import command_line, development_patients, run_command, study_parser, write_study  # noqa: E402

PROGRAM = "explanation.py"
HANDCRAFTED = ("color", "lbp", "haralick", "pftas")
NETWORK = {"cnn__encoder": "mobilenetv2_0.35", "cnn__input_size": 128}
#: Patches that are timed.
TIMED = 2_000


def make_parser():
    """Give the parser."""
    parser = study_parser(PROGRAM, "Say which features a score rests on, and what they cost.", "explanation")
    add = parser.add_argument
    add("--head", default="xgboost", help="the head of every fit (default: xgboost)")
    add("--folds", type=int, default=5, help="folds of patients (default: 5)")
    add("--repeats", type=int, default=5, metavar="N", help="permutations of each part (default: 5)")
    add("--resamples", type=int, default=2000, metavar="N", help="resamples of the patients (default: 2000)")
    return parser


def run(options):
    """Load, measure, write."""
    from histofeat.reporting import check_output

    check_output(options.output, overwrite=options.overwrite, option="--overwrite")
    if options.weights and not options.weights.is_dir():
        raise ValueError(f"--weights: expected a folder, got {str(options.weights)!r}. Correct the path.")
    dataset = development_patients(options)
    print(f"{dataset.name}: {len(dataset):,} patches of {dataset.audit.n_patients:,} patients", flush=True)
    with tempfile.TemporaryDirectory(prefix="histofeat-explanation-") as scratch, run_all.make_progress() as progress:
        found = explain(dataset, options, options.store or Path(scratch) / "features.sqlite", progress)
    study = make_study(found, dataset, options)
    report = write_study(study, options, command=command_line(f"protocols/{PROGRAM}", make_parser(), options))
    print(study.blocks[0].text)
    print(f"report: {report}")


def explain(dataset, options, store, progress):
    """Measure everything: a dict of what each study found, and how long it took."""
    from histofeat import PatientKFold
    from histofeat.studies import ablate_families, measure_costs, permutation_importance

    shared = {"random_state": options.seed, "n_resamples": options.resamples}
    folds, n_repeats = options.folds, options.repeats

    def runtime(part):
        return Runtime(n_jobs=options.n_jobs, store=store, progress=told(progress, part))

    if options.quick:
        folds, n_repeats = min(folds, 2), min(n_repeats, 1)
    cv, seconds = PatientKFold(folds, random_state=options.seed), {}
    handcrafted = make_pipeline(HANDCRAFTED, options)
    found = {"everything": handcrafted, "not_run": why_not(options), "seconds": seconds, "folds": folds}
    with timed(seconds, "permutation, handcrafted"):
        kinds = ("family", "group", "correlated", "feature")
        found["handcrafted_importance"] = permutation_importance(
            dataset,
            handcrafted,
            cv,
            by=kinds,
            n_repeats=n_repeats,
            runtime=runtime("handcrafted"),
            **shared,
        )
    if found["not_run"] is None:
        found["everything"] = make_pipeline((*HANDCRAFTED, "cnn"), options)
        with timed(seconds, "permutation, with the network"):
            found["importance"] = permutation_importance(
                dataset,
                found["everything"],
                cv,
                by=("family", "group"),
                n_repeats=n_repeats,
                runtime=runtime("with the network"),
                **shared,
            )
    sets = {"color+lbp+haralick": ("color", "lbp", "haralick"), "color+haralick": ("color", "haralick")}
    with timed(seconds, "ablation"):
        found["ablation"] = ablate_families(
            dataset, found["everything"], cv, sets=sets, runtime=runtime("ablation"), **shared
        )
    with timed(seconds, "cost"):
        X = spread(dataset.X, 200 if options.quick else TIMED)
        found["costs"] = measure_costs(found["ablation"], found["everything"], X, progress=told(progress, "cost"))
    return found


def make_pipeline(families, options):
    """Build the pipeline of these families; with ``--quick`` on few trees."""
    from histofeat import IDCPipeline

    network = dict(NETWORK)
    if options.weights:
        network["cnn__weights_dir"] = str(options.weights.expanduser().resolve())
    trees = {"n_estimators": 20} if options.quick and options.head in ("xgboost", "random_forest") else None
    return IDCPipeline(
        features=families,
        head=options.head,
        feature_params=network if "cnn" in families else None,
        head_params=trees,
        random_state=options.seed,
    )


def why_not(options):
    """Why the network cannot run, or None: learnt from one grey patch."""
    import numpy as np

    from histofeat.exceptions import MissingExtraError, WeightsError
    from histofeat.features import extract
    from histofeat.reporting import Redactor

    try:
        extract(make_pipeline(("cnn",), options).families(), np.full((1, 50, 50, 3), 128, dtype=np.uint8))
    except (WeightsError, MissingExtraError) as error:
        return Redactor()(str(error))  # the page must not tell whose disk it was
    return None


def told(progress, part):
    """Give progress that says which part of the study it is: some stages come several times."""
    return lambda stage, done, total: progress(f"{part}, {stage}", done, total)


def spread(paths, n):
    """At most `n` of the paths, evenly over them."""
    import numpy as np

    return paths[np.unique(np.linspace(0, len(paths) - 1, n).round().astype(int))]


@contextmanager
def timed(seconds, stage):
    """Keep the wall-clock seconds of a block."""
    started = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - started, 1)


def main(arguments=None):
    """Run the study; returns the exit code."""
    return run_command(PROGRAM, run, make_parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
