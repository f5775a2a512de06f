"""What the workers of Dask cost against threads, on one machine: processor seconds, equal bits, a killed worker.

python benchmarks/speed/cluster.py [DATA] [--workers 4] [--patients 40]
"""

import argparse
import signal
import threading
import time

import joblib
import numpy as np
import psutil

from histofeat import IDCPipeline, PatientKFold, evaluate, make_cohort, open_dataset
from histofeat.features import Runtime

#: Sets and heads of a job: images are measured once for all, each head is fitted in each fold.
PIPELINES = {head: IDCPipeline(["color", "lbp", "haralick", "pftas"], head) for head in ("xgboost", "svm", "logistic")}


def workers():
    """Processes that work for this one, without the one that cleans up."""
    return [one for one in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(one.cmdline())]


def used():
    """Processor seconds of this process and its workers so far."""
    return sum(sum(one.cpu_times()[:2]) for one in (psutil.Process(), *workers()))


def job(dataset, runtime):
    """Evaluate the pipelines; give the evaluation, and its wall and processor seconds."""
    wall, before = time.perf_counter(), used()
    found = evaluate(dataset, PIPELINES, PatientKFold(5), n_resamples=0, runtime=runtime)
    return found, time.perf_counter() - wall, used() - before


def main():
    """Print a line for each way to compute the job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="patches; by default a synthetic cohort")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--patients", type=int, default=40, help="patients, of data the first ones")
    given = parser.parse_args()
    dataset = open_dataset(given.data) if given.data else make_cohort(given.patients, 150)
    dataset = dataset.subset(np.isin(dataset.patients, np.unique(dataset.patients)[: given.patients]))
    away, n_jobs = Runtime(cluster=f"local:{given.workers}", progress=False), joblib.cpu_count()
    job(dataset.subset(np.arange(0, len(dataset), 9)), Runtime(n_jobs))  # loads all packages and kernels
    rows = {f"{n_jobs} threads": job(dataset, Runtime(n_jobs))}
    _, wall, cpu = job(dataset.subset(np.arange(0, len(dataset), 9)), away)  # starts them
    print(f"{len(dataset):,} patches; workers start in {wall:.0f} s ({cpu:.0f} s CPU)")
    rows[f"{given.workers} workers"] = job(dataset, away)
    killed = threading.Timer(rows[f"{given.workers} workers"][1] / 2, lambda: workers()[0].send_signal(signal.SIGKILL))
    killed.start()
    rows["one killed"] = job(dataset, away)
    (first, *_, seconds), *_ = rows.values()
    for name, (found, wall, cpu) in rows.items():
        same = all(np.array_equal(a.proba, b.proba) for a, b in zip(first.models, found.models, strict=True))
        print(f"{name:<12} {wall:7.1f} s  {cpu:7.1f} s CPU ({cpu / seconds:.3f})  {'equal' if same else 'OTHER'} bits")


if __name__ == "__main__":
    main()
