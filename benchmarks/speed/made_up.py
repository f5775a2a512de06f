"""A made-up IDC of any size: 279 patients, as uneven as the real ones, in files as large and as slow to decode."""

import os
import shutil
import tempfile
from pathlib import Path

import cv2
import joblib
import numpy as np

PATIENTS = 279
#: Patients that one process draws, one of them without a positive patch.
_TOGETHER = 31
_FIRST_PATIENT = 800_001
#: Bytes that a file of a patch takes on disk, with room to spare.
_BYTES_PER_FILE = 3 * 4096


def make_tree(folder, n: int) -> int:
    """Write `n` PNG files in the layout of IDC below `folder`; returns their bytes.

    Every patient is a slide of `histofeat.datasets.make_cohort` with at most 60 patches. Where a patient has more, its
    patches come again, turned, shifted, with other stain strengths and other noise, so that no two are alike. Numbers
    computed on them say nothing about patients.
    """
    check_space(folder, n)
    drawn = min(60, max(4, n // PATIENTS))
    sizes, starts = patient_sizes(n, np.random.default_rng(0)), range(0, PATIENTS, _TOGETHER)
    write = joblib.delayed(_write_part)
    parts = (write(Path(folder), at, sizes[at : at + _TOGETHER], drawn) for at in starts)
    total = sum(joblib.Parallel(n_jobs=-1)(parts))
    if hasattr(os, "sync"):
        os.sync()  # what is still to be written must not disturb what is timed next
    return total


def patient_sizes(n: int, rng) -> np.ndarray:
    """Give each patient its number of patches, `n` in all: the largest has about twenty times those of the smallest."""
    weights = 60 + 2340 * rng.beta(1.6, 2.4, PATIENTS)
    return np.diff(np.rint(np.cumsum(weights) / weights.sum() * n).astype(int), prepend=0)


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
            f"made_up: expected {2 * needed / 1e9:.1f} GB free for {n:,} temporary files, got {free / 1e9:.1f} GB. "
            "Point TMPDIR to a larger disk, or leave out --full."
        )
    if hasattr(os, "statvfs") and os.statvfs(folder).f_files > 0 and os.statvfs(folder).f_favail < 2 * n:
        raise OSError(f"made_up: expected room for {n:,} files, got too few free inodes. Point TMPDIR elsewhere.")


def _write_part(folder, start, sizes, drawn_per_patient) -> int:
    """Draw some patients and write their files; returns their bytes."""
    from histofeat.datasets import make_cohort

    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="histofeat-made-up-") as scratch:
        cohort = make_cohort(len(sizes), drawn_per_patient, random_state=start, root=Path(scratch) / "cohort")
        drawn = enumerate((part for _, part in cohort.frame.groupby("patient")), start=_FIRST_PATIENT + start)
        return sum(_write_patient(folder / str(at), part, n) for (at, part), n in zip(drawn, sizes, strict=True))


def _write_patient(folder, drawn, n) -> int:
    rng = np.random.default_rng(int(folder.name))
    files, noise = rng.permutation(drawn[["path", "label"]].to_numpy()), rng.normal(0, 1.5, 200_000)
    columns, total = int(n**0.5) + 1, 0
    for label in "01":
        (folder / label).mkdir(parents=True, exist_ok=True)
    for place in range(n):
        again, at = divmod(place, len(files))
        path, label = files[at]
        content = _vary(path, again, noise, rng) if again else Path(path).read_bytes()
        x, y = 1 + 50 * (place % columns), 1 + 50 * (place // columns)
        (folder / str(label) / f"{folder.name}_idx5_x{x}_y{y}_class{label}.png").write_bytes(content)
        total += len(content)
    return total


def _vary(path, again, noise, rng) -> bytes:
    """Return PNG bytes of a patch turned, shifted, stained a little more or less, and with other noise."""
    patch = np.rot90(cv2.imread(path), again % 4)[:: 1 if again % 8 < 4 else -1]
    patch = np.roll(patch, tuple(rng.integers(0, 50, 2)), axis=(0, 1))
    table = 255 * (np.arange(256)[:, None] / 255) ** rng.normal(1, 0.08, 3)
    start = rng.integers(0, len(noise) - patch.size)
    light = table[patch, [0, 1, 2]] + noise[start : start + patch.size].reshape(patch.shape)
    return cv2.imencode(".png", np.clip(np.rint(light), 0, 255).astype(np.uint8))[1].tobytes()
