"""From PNG files to features: time, peak memory, and what starting up costs."""

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
from rows import DisagreementError, Row, Target, compare, missing
from timing import Timing
from tree import FULL_SIZE, check_space, make_tree

__all__ = ["measure", "patches_to_multiply", "run_worker"]

_GROUP = "extraction"
_LIMITS = {"time": Target("at most", 90, "ours"), "memory": Target("at most", 2, "ours")}


def measure(material, options) -> list:
    """Rows of the start, of 10,000 files, and with ``--full`` of as many as IDC has."""
    rows = _measure_start(material, options)
    patches = patches_to_multiply(options)
    rows += _measure_tree(patches, 300 if options.quick else 10_000, 1 if options.quick else 3, full=False)
    if options.full:
        return rows + _measure_tree(patches, FULL_SIZE, 1, full=True)
    # From the rows above, as an expectation and never as a measurement.
    expected = f"--full was not given (the smaller tree extrapolates to {rows[2].ours * FULL_SIZE / 1e6:.0f} s)"
    fields = {"group": _GROUP, "unit": "s", "what": f"{FULL_SIZE:,} files to features, all cores"}
    return [
        *rows,
        missing(expected, name=f"extraction/{FULL_SIZE:,} files", target=_LIMITS["time"], **fields),
        missing("--full was not given", name=f"extraction/memory, {FULL_SIZE:,} files", target=_LIMITS["memory"],
                **{**fields, "unit": "GiB", "what": f"peak memory of {FULL_SIZE:,} files to features"}),
    ]  # fmt: skip


def patches_to_multiply(options) -> list:
    """RGB patches of a synthetic cohort, whatever data the run was given: real patches are not written anywhere."""
    from histofeat.datasets import make_cohort

    with tempfile.TemporaryDirectory(prefix="histofeat-speed-") as scratch:
        size = {"n_patients": 6, "patches_per_patient": 25} if options.quick else {}
        cohort = make_cohort(root=Path(scratch) / "cohort", random_state=0, **size)
        return [cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB) for path in cohort.X]


def run_worker(what, path, *, n_jobs=-1, repeats=1, env=None) -> dict:
    """What `extract_files` found in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("extract_files.py")), what, str(path)]
    found = subprocess.run(
        [*command, str(n_jobs), str(repeats)], env={**os.environ, **(env or {})}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if found.returncode:
        raise RuntimeError(f"extraction: expected a worker to finish, got:\n{found.stderr[-2000:]}")
    return json.loads(found.stdout.splitlines()[-1])


def _measure_start(material, options) -> list:
    """Two rows: the first extraction on a machine, which compiles, and any later first one of a process."""
    path = str(material.dataset.X[0])
    with tempfile.TemporaryDirectory(prefix="histofeat-numba-") as cache:
        env = {"NUMBA_CACHE_DIR": cache}
        first = run_worker("startup", path, env=env)
        later = [run_worker("startup", path, env=env) for _ in range(1 if options.quick else 3)]
    if any(run["total"] != first["total"] for run in later):
        raise DisagreementError("extraction: expected the same features from fresh and from cached code.")
    shared = {"group": _GROUP, "checked": "features of the patch equal, compiled or from the cache"}
    return [
        compare(
            Timing((first["seconds"],)),
            name="extraction/compilation",
            what="import, compilation of all four families and one patch; once per machine",
            **shared,
        ),
        compare(
            Timing(tuple(run["seconds"] for run in later)),
            name="extraction/start",
            what="import, loading the compiled code and one patch; once per process",
            **shared,
        ),
    ]


def _measure_tree(patches, n, repeats, *, full) -> list:
    with tempfile.TemporaryDirectory(prefix="histofeat-speed-", ignore_cleanup_errors=True) as scratch:
        check_space(scratch, n)
        n_bytes = make_tree(scratch, n, patches)
        found = run_worker("tree", scratch, repeats=repeats)
    if not found["checked"] or found["n"] != n or set(found["computed"].values()) != {n}:
        raise DisagreementError(f"extraction: expected {n:,} rows equal to those from memory, got {found}.")
    stages = {name: seconds for name, seconds in found["stages"].items() if name != "total"}
    shares = ", ".join(f"{name} {seconds / math.fsum(stages.values()):.0%}" for name, seconds in stages.items())
    shared = {
        "group": _GROUP,
        "checked": "200 files: equal to the bit to pixels decoded by OpenCV and measured in one thread; all finite",
    }
    where = f"{n:,} synthetic files in the tree of IDC, {n_bytes / n:,.0f} bytes each, in the page cache"
    note = f"Listing the tree before: {found['listing']:.1f} s. Thread time: {shares}."
    time = compare(
        Timing(tuple(found["seconds"])),
        Timing(tuple(found["floor"])),
        name=f"extraction/{n:,} files",
        what=f"{where}, to all four families; {found['threads']} threads, after compilation",
        peer_name="reading and cv2.imdecode alone, as many threads",
        ratio_of="ours / peer",
        target=_LIMITS["time"] if full else None,
        note=note,
        **shared,
    )
    per_patch = Row(
        name=f"extraction/per patch, {n:,} files",
        what="the same per patch",
        unit="µs per image",
        ours=time.ours / n * 1e6,
        repeats=time.repeats,
        **shared,
    )
    memory = Row(
        name=f"extraction/memory, {n:,} files",
        what="peak resident memory of the process, listing and result included",
        unit="GiB",
        ours=found["peak_bytes"] / 2**30,
        target=_LIMITS["memory"] if full else None,
        repeats=f"one process, {repeats} extractions",
        **shared,
    )
    return [per_patch, time, memory]
