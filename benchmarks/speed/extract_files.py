"""A process that extracts and tells seconds and memory: ``python extract_files.py startup|tree PATH N_JOBS REPEATS``.

Peak memory belongs to a process, and compilation to its start: both are measured from outside, by `extraction`.
"""

import json
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FAMILIES = ("color", "lbp", "haralick", "pftas")


def startup(path):
    """Seconds to import histofeat and to measure one patch."""
    started = time.perf_counter()
    from histofeat.features import extract, make_family

    found = extract([make_family(name) for name in FAMILIES], [path])
    return {"seconds": time.perf_counter() - started, "total": float(sum(block.sum() for block in found.features))}


def tree(folder, n_jobs, repeats):
    """Seconds to list, read, decode and measure every patch of a tree in the layout of IDC; peak memory."""
    import joblib

    from histofeat.datasets import load_idc
    from histofeat.features import extract, make_family

    families = [make_family(name) for name in FAMILIES]
    started = time.perf_counter()
    dataset = load_idc(folder)
    listing = time.perf_counter() - started
    extract(families, dataset.X[:512], n_jobs=n_jobs)  # compiled code is loaded
    seconds, floors = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        found = extract(families, dataset.X, n_jobs=n_jobs)
        seconds.append(time.perf_counter() - started)
        floors.append(_read_and_decode(dataset.X, joblib.effective_n_jobs(n_jobs)))
    return {
        "n": len(dataset),
        "threads": joblib.effective_n_jobs(n_jobs),
        "listing": listing,
        "seconds": seconds,
        "floor": floors,
        "stages": dict(found.seconds),
        "computed": dict(found.computed),
        "peak_bytes": peak_bytes(),
        "checked": _check(families, dataset.X, found),
    }


def _read_and_decode(paths, threads):
    """Seconds to read and decode the same files with OpenCV in as many threads: what no extraction can undercut."""
    import cv2
    import numpy as np

    def run(part):
        for path in part:
            cv2.imdecode(np.frombuffer(Path(path).read_bytes(), np.uint8), cv2.IMREAD_COLOR)

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, [paths[at : at + 64] for at in range(0, len(paths), 64)]))
    return time.perf_counter() - started


def _check(families, paths, found):
    """Rows of some files against their pixels, decoded by OpenCV and measured from memory in one thread."""
    import cv2
    import numpy as np

    from histofeat.features import extract

    rows = np.linspace(0, len(paths) - 1, 200).round().astype(int)
    pixels = [cv2.cvtColor(cv2.imread(paths[row]), cv2.COLOR_BGR2RGB) for row in rows]
    alone = extract(families, pixels)
    equal = all(np.array_equal(a, b[rows]) for a, b in zip(alone.features, found.features, strict=True))
    return bool(equal and all(np.isfinite(block).all() for block in found.features))


def peak_bytes():
    """Peak resident memory of this process."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not ru_maxrss, which on Linux starts at the size of the process that started this one.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    what, path, n_jobs, repeats = sys.argv[1:]
    print(json.dumps(startup(path) if what == "startup" else tree(path, int(n_jobs), int(repeats))))
