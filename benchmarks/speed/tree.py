"""A large tree of synthetic patches in the layout of IDC: every file different, made in place, for one measurement."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import joblib
import numpy as np

__all__ = ["FULL_SIZE", "check_space", "make_tree"]

#: Patches of the whole IDC data set, and its patients.
FULL_SIZE = 277_524
_PATIENTS = 279
#: Bytes that a file of a patch takes on disk, with room to spare.
_BYTES_PER_FILE = 3 * 4096


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
