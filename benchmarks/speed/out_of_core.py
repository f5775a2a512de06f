"""Compare two heads on more rows than memory should hold: shards of made-up patients, killed once and resumed.

    python benchmarks/speed/out_of_core.py --rows 1000000       # 2 GB in the temporary folder
    nice python benchmarks/speed/out_of_core.py --rows 10000000 # 19 GB

Features are drawn, not measured: noise of each patch, a shift of each patient, and one of the class in some columns.
The run is done once more without a kill, and the predictions of both have to be the same bytes.
"""

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from histofeat.datasets import list_shards, store_shard


def make_shards(folder, n_patients, per_patient, n_columns, seed=0):
    """Write a shard for each patient."""
    facts = {"name": "made up", "target_names": ["normal", "tumour"], "positive": "tumour", "synthetic": True}
    key, names = f"{n_patients} {per_patient} {n_columns} {seed}", [f"f{number:03}" for number in range(n_columns)]
    shards = {f"{number:05}": f"patient {number}" for number in range(n_patients)}
    list_shards(folder, {"key": key, "families": ["drawn"], "shards": shards, "dataset": facts, "columns": names})
    tells = np.random.default_rng(seed).normal(scale=0.05, size=n_columns).astype(np.float32)
    for number, (name, patient) in enumerate(shards.items()):
        rng = np.random.default_rng([seed, number])
        label = (rng.random(per_patient) < rng.beta(2, 4)).astype(np.int64)
        features = rng.standard_normal((per_patient, n_columns), dtype=np.float32)
        features += rng.normal(scale=0.3, size=n_columns).astype(np.float32) + label[:, None] * tells
        patches = pd.DataFrame({"path": [f"{number}/{at}.png" for at in range(per_patient)], "label": label})
        patches = patches.assign(patient=patient, x=50 * (np.arange(per_patient) % 100), y=0)
        store_shard(folder / name, key, features, patches, failures=[])


def compare(folder, output, options, kill_after=0):
    """Run the command, or kill it after so many finished fits; gives seconds and peak of memory in GiB."""
    store = output.with_name(f"{output.name}.sqlite")
    command = [sys.executable, "-m", "histofeat", "compare", folder, "--output", output, "--store", store, "--quiet"]
    command += ["--train-patches", options.train_patches, "--n-jobs", options.n_jobs]
    started, limit = time.perf_counter(), int(options.memory * 2**30)
    # The limit is one of memory that is the process's own: of mapped files the system keeps what it likes.
    limited = partial(resource.setrlimit, resource.RLIMIT_DATA, (limit, limit))
    run = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, preexec_fn=limited)
    fits = Path(f"{store}.fits")
    while kill_after and run.poll() is None:
        time.sleep(1)
        if len(list(fits.glob("*.fit"))) >= kill_after:
            run.send_signal(signal.SIGKILL)
            break
    _, status, used = os.wait4(run.pid, 0)
    if os.waitstatus_to_exitcode(status) not in (0, -signal.SIGKILL):
        raise SystemExit(f"the command failed: {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - started, used.ru_maxrss / 2**20


def main():
    """Make shards, compare, kill, resume; print time and peak of each step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in {"rows": 10**6, "patients": 1000, "columns": 474, "train-patches": 200, "n-jobs": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value, help="default: %(default)s")
    parser.add_argument("--memory", type=float, default=6.0, help="limit in GiB (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="histofeat-shards-") as place:
        folder, started = Path(place) / "made-up", time.perf_counter()
        make_shards(folder, options.patients, options.rows // options.patients, options.columns)
        print(f"{options.rows:,} rows of {options.columns} columns: {time.perf_counter() - started:.0f} s", flush=True)
        for words, name, kill_after in [("killed", "run", 3), ("resumed", "run", 0), ("not killed", "other", 0)]:
            seconds, peak = compare(folder, Path(place) / name, options, kill_after)
            print(f"{words}: {seconds:.0f} s, peak {peak:.2f} GiB", flush=True)
        one, other = ((Path(place) / name / "predictions.parquet").read_bytes() for name in ("run", "other"))
    return "predictions: expected the same bytes, got others" if one != other else 0


if __name__ == "__main__":
    sys.exit(main())
