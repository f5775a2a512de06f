"""From PNG files to features: time, peak memory, and what starting up costs."""

import math
import os
import tempfile

from made_up import make_tree
from rows import FULL_SIZE, DisagreementError, Row, compare, run_worker


def measure(material, options) -> list:
    """Rows of the start, of 10,000 files, and with ``--full`` of as many as IDC has."""
    rows = _measure_start(material, options)
    rows += _measure_tree(*((300, 1) if options.quick else (10_000, 3)))
    return rows + (_measure_tree(FULL_SIZE, 1) if options.full else [])


def _measure_start(material, options) -> list:
    """Two rows: the first extraction on a machine, which compiles, and any later first one of a process."""
    with tempfile.TemporaryDirectory(prefix="histofeat-numba-") as cache:
        arguments = ("extract_files.py", "startup", material.dataset.X[0], 1, 1)
        env = {**os.environ, "NUMBA_CACHE_DIR": cache}
        first, *later = (run_worker(*arguments, env=env) for _ in range(2 if options.quick else 4))
    if any(run["total"] != first["total"] for run in later):
        raise DisagreementError("extraction: expected the same features from fresh and from cached code.")
    checked = "features of the patch equal, compiled or from the cache"
    compiled = "import, compilation of all four families and one patch; once per machine"
    loaded = "import, loading the compiled code and one patch; once per process"
    return [
        compare([first["seconds"]], name="extraction/compilation", what=compiled, checked=checked),
        compare([run["seconds"] for run in later], name="extraction/start", what=loaded, checked=checked),
    ]


def _measure_tree(n, repeats) -> list:
    with tempfile.TemporaryDirectory(prefix="histofeat-speed-", ignore_cleanup_errors=True) as scratch:
        n_bytes = make_tree(scratch, n)
        found = run_worker("extract_files.py", "tree", scratch, -1, repeats)
    if not found["checked"] or found["n"] != n or set(found["computed"].values()) != {n}:
        raise DisagreementError(f"extraction: expected {n:,} rows equal to those from memory, got {found}.")
    stages = {name: seconds for name, seconds in found["stages"].items() if name != "total"}
    shares = ", ".join(f"{name} {seconds / math.fsum(stages.values()):.0%}" for name, seconds in stages.items())
    checked = "200 files: equal to the bit to pixels decoded by OpenCV and measured in one thread; all finite"
    where = f"{n:,} synthetic files in the tree of IDC, {n_bytes / n:,.0f} bytes each, in the page cache"
    time = compare(
        found["seconds"],
        found["floor"],
        name=f"extraction/{n:,} files",
        what=f"{where}, to all four families; {found['threads']} threads, after compilation",
        peer_name="reading and cv2.imdecode alone, as many threads",
        ratio_of="ours / peer",
        note=f"Listing the tree before: {found['listing']:.1f} s. Thread time: {shares}.",
        checked=checked,
    )
    memory = Row(
        f"extraction/memory, {n:,} files", "peak resident memory of the process, listing and result included", "GiB",
        found["peak_bytes"] / 2**30,
        repeats=f"one process, {repeats} extractions", checked=checked,
    )  # fmt: skip
    return [time, memory]
