"""From PNG files to features: time, peak memory, and what starting up costs."""

import math
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import joblib
import numpy as np
from rows import FULL_SIZE, DisagreementError, Row, compare, missing, run_worker

_PATIENTS = 279
#: Bytes that a file of a patch takes on disk, with room to spare.
_BYTES_PER_FILE = 3 * 4096


def measure(material, options) -> list:
    """Rows of the start, of 10,000 files, and with ``--full`` of as many as IDC has."""
    rows = _measure_start(material, options)
    patches = patches_to_multiply(options)
    rows += _measure_tree(patches, 300 if options.quick else 10_000, 1 if options.quick else 3, full=False)
    if options.full:
        return rows + _measure_tree(patches, FULL_SIZE, 1, full=True)
    # From the rows above, as an expectation and never as a measurement.
    expected = f"the smaller tree extrapolates to {rows[2].ours * FULL_SIZE / 1e6:.0f} s"
    files = f"{FULL_SIZE:,} files"
    return [
        *rows,
        missing(f"--full was not given ({expected})", name=f"extraction/{files}", unit="s",
                what=f"{files} to features, all cores"),
        missing("--full was not given", name=f"extraction/memory, {files}", unit="GiB",
                what=f"peak memory of {files} to features"),
    ]  # fmt: skip


def patches_to_multiply(options) -> list:
    """RGB patches of a synthetic cohort, whatever data the run was given: real patches are not written anywhere."""
    from histofeat.datasets import make_cohort

    with tempfile.TemporaryDirectory(prefix="histofeat-speed-") as scratch:
        size = {"n_patients": 6, "patches_per_patient": 25} if options.quick else {}
        cohort = make_cohort(root=Path(scratch) / "cohort", random_state=0, **size)
        return [cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB) for path in cohort.X]


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


def _measure_tree(patches, n, repeats, *, full) -> list:
    with tempfile.TemporaryDirectory(prefix="histofeat-speed-", ignore_cleanup_errors=True) as scratch:
        check_space(scratch, n)
        n_bytes = make_tree(scratch, n, patches)
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
    per_patch = Row(
        f"extraction/per patch, {n:,} files", "the same per patch", "µs per image", time.ours / n * 1e6,
        repeats=time.repeats, checked=checked,
    )  # fmt: skip
    memory = Row(
        f"extraction/memory, {n:,} files", "peak resident memory of the process, listing and result included", "GiB",
        found["peak_bytes"] / 2**30,
        repeats=f"one process, {repeats} extractions", checked=checked,
    )  # fmt: skip
    return [per_patch, time, memory]


# --- the tree --------------------------------------------------------------------------------------------------------


def check_space(folder, n: int) -> None:
    """Refuse before anything is written where the disk has no room for `n` files.

    Raises
    ------
    OSError
        Saying how much is missing.
    """
    needed = n * _BYTES_PER_FILE
    free = shutil.disk_usage(folder).free
    if free < 2 * needed:
        raise OSError(
            f"extraction: expected {2 * needed / 1e9:.1f} GB free for {n:,} temporary files, got {free / 1e9:.1f} GB. "
            "Point TMPDIR to a larger disk, or leave out --full."
        )
    if hasattr(os, "statvfs") and os.statvfs(folder).f_files > 0 and os.statvfs(folder).f_favail < 2 * n:
        raise OSError(f"extraction: expected room for {n:,} files, got too few free inodes. Point TMPDIR elsewhere.")


def make_tree(folder, n: int, patches: list[np.ndarray]) -> int:
    """Write `n` PNG files below `folder` from RGB `patches`; returns their bytes.

    File i is patch ``i % len(patches)``, shifted cyclically so that its texture and the cost of decoding stay what they
    were; its first pixel holds i, so that no two files are alike.
    """
    folder = Path(folder)
    # The name carries row and column: a grid per patient.
    columns = int(np.ceil(np.sqrt(n / _PATIENTS)))
    for patient in range(min(_PATIENTS, n)):
        for label in "01":
            (folder / str(800_001 + patient) / label).mkdir(parents=True)

    def write(i: int) -> int:
        patient, place = str(800_001 + i % _PATIENTS), i // _PATIENTS
        label = int(place % 7 < 2)
        turn = i // len(patches)
        patch = np.roll(patches[i % len(patches)], (7 * turn, 3 * turn), axis=(0, 1))
        patch[0, 0] = i >> 16, i >> 8 & 255, i & 255
        done, png = cv2.imencode(".png", cv2.cvtColor(patch, cv2.COLOR_RGB2BGR))
        if not done:
            raise OSError(f"extraction: expected a PNG of patch {i}, got nothing from OpenCV.")
        x, y = 1 + 50 * (place % columns), 1 + 50 * (place // columns)
        path = folder / patient / str(label) / f"{patient}_idx5_x{x}_y{y}_class{label}.png"
        path.write_bytes(png)
        return len(png)

    with ThreadPoolExecutor(joblib.cpu_count()) as pool:
        total = sum(pool.map(write, range(n), chunksize=256))
    if hasattr(os, "sync"):
        os.sync()  # what is still to be written must not disturb what is timed next
    return total
