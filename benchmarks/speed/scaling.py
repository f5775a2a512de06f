"""What a job costs as it grows: time and memory of each of its steps, a curve through them, and what lies beyond.

    python benchmarks/speed/scaling.py                      # 5 GB in the temporary folder
    python benchmarks/speed/scaling.py --sizes 400 600 800 --check 1000 --output /tmp/scaling    # shows that it works
    PYTHONPATH=/path/to/other/code python benchmarks/speed/scaling.py --output /tmp/other

The job is handcrafted features with two heads, five folds of patients. Each step of each size is a process of its own,
and this file is the process, too: ``scaling.py STEP ARGUMENTS``.
"""

import argparse
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from extract_files import peak_bytes
from made_up import PATIENTS, make_tree
from rows import FULL_SIZE, Row, run_worker, stopwatch
from scipy.optimize import nnls

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study import REPOSITORY, command_line, run_command

FAMILIES, HEADS = ("color", "lbp", "haralick"), ("xgboost", "svm")
#: In this order: each needs what the one before it left behind.
STEPS = ("extraction", "fits", "report", "scoring")
_WHAT = {
    "extraction": "files to features in shards of a patient and in a new store, listing included",
    "fits": "training, inner fits for thresholds included",
    "prediction": "scores of the fitted models",
    "report": "a page with its figures, from a finished evaluation",
    "scoring": "scores, and intervals over resampled patients, from predictions",
}
#: Of a projection: patches, slides, most patches of a slide that fits take, and how many fits there are.
_PROJECTED, _SLIDES, _PER_SLIDE, _FITS, _WORKERS = (10**7, 10**8), 1_000, 500, 40, (1, 8, 64)


def make_parser():
    """Build the command line."""
    parser = argparse.ArgumentParser(prog="scaling.py", description="Measure how a job grows; write a report.")
    add = parser.add_argument
    add("--sizes", type=int, nargs="+", default=[10_000, 30_000, 100_000, FULL_SIZE], metavar="N", help="patches")
    add("--check", type=int, default=400_000, metavar="N", help="a larger size that the curve has to meet; 0 for none")
    add("--tree", type=Path, metavar="DIR", help="files that made_up.py wrote (default: they are made)")
    add("--inner-patches", type=int, default=300, metavar="N", help="inner fits on at most N of a patient; 0 for all")
    add("--output", type=Path, default=REPOSITORY / "reports" / "speed-scaling", metavar="DIR", help="report's folder")
    add("--overwrite", action="store_true", help="replace a finished report in the output folder")
    return parser


def main(arguments=None):
    """Measure, and write the report; returns the exit code."""
    return run_command("scaling.py", run, make_parser().parse_args(arguments))


def run(options):
    """Measure all sizes, the smallest first; write the report."""
    import writing

    if min(options.sizes) < PATIENTS or 0 < options.check <= max(options.sizes):
        got = f"{options.sizes} and --check {options.check}"
        raise ValueError(f"--sizes: expected {PATIENTS} patches or more, and more of them in --check, got {got}.")
    writing.check_output(options.output, overwrite=options.overwrite)
    command, started, found = command_line("speed/scaling.py", make_parser(), options), time.perf_counter(), {}
    with tempfile.TemporaryDirectory(prefix="histofeat-scaling-", ignore_cleanup_errors=True) as scratch:
        sizes, tree = sorted({*options.sizes, *filter(None, [options.check])}), options.tree
        if tree is None:
            tree = Path(scratch, "tree")
            tree.mkdir()
            make_tree(tree, sizes[-1])
        for n in sizes:
            found[n] = measure(n, tree, Path(scratch, str(n)), options.inner_patches)
    data = f"Made-up patches of {PATIENTS} patients, as uneven as IDC's; {'+'.join(FAMILIES)}, {', '.join(HEADS)}"
    rows, seconds = rows_of(found, options.check), time.perf_counter() - started
    payload = writing.payload_of(rows, data=data, command=command, seconds=seconds)
    page = writing.write(payload, options.output, title="How a job grows", draw=partial(draw, found, options.check))
    print(f"report: {page}")


def measure(n, tree, work, inner_patches) -> dict:
    """Return what each step takes with `n` files of a tree, in a process of its own: seconds, and peak memory."""
    files = sorted(Path(tree).rglob("*.png"))
    if len(files) < n:
        raise ValueError(f"--tree: expected at least {n:,} files, got {len(files):,}. Give smaller --sizes.")
    for at in np.linspace(0, len(files) - 1, n).round().astype(int):  # of every patient the same share
        place = work / "patches" / files[at].relative_to(tree)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(files[at])
    found = {}
    for step in STEPS:
        costs = found[step] = run_worker("scaling.py", step, work, inner_patches)
        words = f"{costs['seconds']:.1f} s, {costs.pop('processor'):.1f} s of processor time"
        print(f"{n:,} patches, {step}: {words}, {costs['peak_bytes'] / 2**30:.2f} GiB", flush=True)
    return found | {"prediction": {"seconds": found["fits"].pop("prediction")}}


# --- the curve -------------------------------------------------------------------------------------------------------


def curve(sizes, costs):
    """Return the function a + b n**p, with a and b of at least 0, that is nearest to some costs, relative to each.

    p is 1, unless another one from 0.5 to 1.5 fits twice as well.
    """
    sizes, costs, found = np.asarray(sizes, float), np.asarray(costs, float), {}
    for power in np.arange(0.5, 1.51, 0.05).round(2):
        terms = np.stack([np.ones(len(sizes)), (sizes / sizes[-1]) ** power], axis=1)
        found[power] = nnls(terms / costs[:, np.newaxis], np.ones(len(sizes)))
    best = min(found, key=lambda power: found[power][1])
    power = best if 2 * found[best][1] < found[1.0][1] else 1.0
    (start, slope), _ = found[power]
    return lambda n: start + slope * (n / sizes[-1]) ** power


def costs_of(found, sizes) -> dict:
    """Return {(step, "seconds" or "peak_bytes"): costs at these sizes}."""
    kinds = [(step, kind) for step, costs in found[sizes[0]].items() for kind in costs]
    return {(step, kind): [found[n][step][kind] for n in sizes] for step, kind in kinds}


def rows_of(found, larger) -> list:
    """Return the rows of a report: what was measured, the exponents, the check at a larger size, projections."""
    sizes, rows, curves = sorted(n for n in found if n != larger), [], {}
    for (step, kind), costs in costs_of(found, sizes).items():
        named, unit, scale = (step, "s", 1) if kind == "seconds" else (f"memory of {step}", "GiB", 2**30)
        what = _WHAT[step] if kind == "seconds" else "peak resident memory of the process of this step"
        line = curves[step, kind] = curve(sizes, costs)
        rows += [Row(f"{named}/{n:,} patches", what, unit, cost / scale) for n, cost in zip(sizes, costs, strict=True)]
        if larger:
            away = {"peer": line(larger) / scale, "peer_name": "the curve through the smaller sizes"}
            cost = found[larger][step][kind] / scale
            rows.append(Row(f"{named}/{larger:,} patches", what, unit, cost, ratio_of="ours / peer", **away))
        if len(sizes) > 1:
            words = f"slope of the logarithm of the cost over that of the size, {sizes[0]:,} to {sizes[-1]:,} patches"
            rows.append(Row(f"{named}/exponent", words, "", float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])))
    return rows + (projections(curves) if len(sizes) > 1 else [])


def projections(curves):
    """Return rows of what was not measured: the curves at large sizes, on one node and on several workers."""
    rows, line = [], {step: curves[step, "seconds"] for step in _WHAT}
    for n in _PROJECTED:
        for words, fitted in (("all", n), (f"{_PER_SLIDE} of each of {_SLIDES:,} slides", _SLIDES * _PER_SLIDE)):
            what = (
                "the curves at that size: extraction and prediction shared by the workers, each such a machine, fits "
                f"by at most {_FITS} of them, scores and report on one; without what a cluster adds. The fits take "
                f"{curves['fits', 'peak_bytes'](fitted) / 2**30:,.0f} GiB"
            )
            for workers in _WORKERS:
                seconds = (line["extraction"](n) + line["prediction"](n)) / workers + line["scoring"](n)
                seconds += line["fits"](fitted) / min(workers, _FITS) + line["report"](n)
                name = f"projection/{n:,} patches, fits on {words}; workers: {workers}"
                rows.append(Row(name, what, "h", seconds / 3600, note="Not measured"))
    return rows


def draw(found, larger, payload, path):
    """Draw seconds and memory over sizes, with the curves; the larger size is a ring."""
    import chart

    sizes = sorted(n for n in found if n != larger)
    at, panels = np.geomspace(sizes[0], max(found), 50), {"seconds": 1, "peak_bytes": 2**30}
    with chart.canvas(path, (9, 3.8)) as figure:
        for axes, (kind, scale) in zip(figure.subplots(1, 2), panels.items(), strict=True):
            for (step, each), costs in costs_of(found, sizes).items():
                if each == kind:
                    color = chart.COLORS[list(_WHAT).index(step)]
                    axes.plot(at, curve(sizes, costs)(at) / scale, color=color, linewidth=1)
                    axes.plot(sizes, np.array(costs) / scale, "o", color=color, markersize=4, label=step)
                    if larger:
                        axes.plot(larger, found[larger][step][kind] / scale, "o", color=color, fillstyle="none")
            label = "seconds" if kind == "seconds" else "peak memory, GiB"
            axes.set(xscale="log", yscale="log", xlabel="patches", ylabel=label)
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.yaxis.set_major_formatter("{x:,g}")
            axes.spines[["top", "right"]].set_visible(False)
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)


# --- the processes ---------------------------------------------------------------------------------------------------


def step(name, work, inner_patches):
    """Do one step of the job; print what it took."""
    work, inner_patches = Path(work), int(inner_patches)
    costs = {"extraction": _extraction, "fits": _fits, "report": _report, "scoring": _scoring}[name](
        work, inner_patches
    )
    print(json.dumps(costs | {"processor": time.process_time(), "peak_bytes": peak_bytes()}))


def _extraction(work, _):
    from histofeat import features
    from histofeat.datasets import load_idc

    families = [features.make_family(name) for name in FAMILIES]
    runtime = features.Runtime(n_jobs=-1, store=work / "store.sqlite", progress=False)

    def whole():
        dataset = load_idc(work / "patches")
        if hasattr(features, "shard_tasks"):
            for task in features.shard_tasks(dataset, families, work / "shards", runtime=runtime):
                features.write_shard(task)
        else:  # code that keeps all rows in memory
            features.extract(families, dataset.X, n_jobs=-1, store=runtime.store)

    features.extract(families, load_idc(work / "patches").X[:64])  # compiled code is loaded
    return {"seconds": stopwatch(whole)}


def _fits(work, inner_patches):
    from histofeat import evaluate, model_selection
    from histofeat.datasets import load_idc
    from histofeat.evaluation import save_evaluation
    from histofeat.features import Runtime
    from histofeat.studies import make_pipelines

    inner = model_selection.PatientKFold(3)
    if inner_patches and hasattr(model_selection, "LimitedTraining"):  # not in older code
        inner = model_selection.LimitedTraining(inner, inner_patches)
    runtime = Runtime(n_jobs=-1, store=work / "store.sqlite", fits=False, progress=False)
    pipelines = make_pipelines(["handcrafted"], HEADS)
    found = evaluate(load_idc(work / "patches"), pipelines, inner_cv=inner, runtime=runtime)
    save_evaluation(found, work / "job.evaluation")
    fit_s, predict_s = (sum(getattr(model, name) for model in found.models) for name in ("fit_s", "predict_s"))
    share = predict_s / (fit_s + predict_s)
    return {"seconds": (1 - share) * found.seconds["fit"], "prediction": share * found.seconds["fit"]}


def _report(work, _):
    from histofeat.evaluation import load_evaluation
    from histofeat.reporting import write_report

    return {"seconds": stopwatch(lambda: write_report(load_evaluation(work / "job.evaluation"), work / "report"))}


def _scoring(work, _):
    from histofeat.evaluation import evaluate_predictions
    from histofeat.features import Runtime

    predictions, runtime = work / "report" / "predictions.parquet", Runtime(n_jobs=-1, progress=False)
    return {"seconds": stopwatch(lambda: evaluate_predictions(predictions, runtime=runtime))}


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in STEPS:
        step(*sys.argv[1:])
    else:
        sys.exit(main())
