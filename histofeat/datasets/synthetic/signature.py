"""A synthetic cohort in which only the patient can be recognised: what a leak looks like when there is nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from histofeat.datasets.base import PatchDataset
from histofeat.datasets.idc.loading import dataset_from_scan
from histofeat.datasets.idc.tree import scan_tree
from histofeat.datasets.synthetic.cohort_folder import MANIFEST, check_count, cohort_folder, is_reusable, write_cohort

__all__ = ["SIGNATURE_VERSION", "draw_signature_cohort", "make_signature_cohort"]

#: Version of the drawing; text, so that neither cohort is ever taken for the other.
SIGNATURE_VERSION = "signature 1"

# Above every IDC patient and every patient of `make_cohort`.
_FIRST_PATIENT = 950_001
_SHARE_OTHER_CLASS = 0.02
_DARKEST_TINT = 0.6
_GRAIN_LEVELS = 12.0


def make_signature_cohort(
    root: str | os.PathLike[str] | None = None,
    n_patients: int = 60,
    patches_per_patient: int = 20,
    random_state: int = 0,
) -> PatchDataset:
    """Write a cohort whose labels can only be learnt by recognising the patient, or find it where it was written.

    A split by patch looks brilliant on it, and a split by patient is at chance. Whatever scores above chance under
    patient folds leaks.

    Parameters
    ----------
    root : path, optional
        Folder for the cohort: new, empty, or holding the very same cohort, which is then checked and reused. None
        makes a new temporary folder, which is the caller's to keep or to delete.
    n_patients : int, default=60
        Patients, at least 2. Half of them are of class 1, at random.
    patches_per_patient : int, default=20
        Patches of each, at least 4.
    random_state : int, default=0
        Seed, at least 0.

    Returns
    -------
    PatchDataset
        Named "synthetic", ``synthetic=True``, files as those of `histofeat.datasets.make_cohort`.

    Raises
    ------
    DatasetError
        When an argument is out of range, or when `root` is a file, holds anything else, another cohort, or a cohort
        that was changed. Nothing is ever overwritten.

    Notes
    -----
    Every patient is one slide of stroma and fat without any tumour, with stains of its own as in `make_cohort`, and on
    top of it a signature: a tint of the whole slide and a fine striped grain of its own width and direction. The labels
    are drawn from another random stream, which never sees a picture: a class for each patient, and the other class for
    one patch in fifty. With exact recognition of every patient the ROC-AUC of a patch split is therefore about 0.98.

    Examples
    --------
    >>> cohort = make_signature_cohort(n_patients=4, patches_per_patient=4, random_state=1)
    >>> len(cohort), cohort.name, sorted(set(cohort.patients))[0]
    (16, 'synthetic', '950001')
    """
    parameters = {
        "n_patients": check_count("make_signature_cohort", "n_patients", n_patients, 2),
        "patches_per_patient": check_count("make_signature_cohort", "patches_per_patient", patches_per_patient, 4),
        "random_state": check_count("make_signature_cohort", "random_state", random_state, 0),
    }
    folder = cohort_folder("make_signature_cohort", root)
    header = {"made_by": "histofeat make_signature_cohort", "version": SIGNATURE_VERSION, **parameters}
    if not is_reusable(folder, header):
        write_cohort(folder, header, draw_signature_cohort(**parameters))
    return dataset_from_scan(scan_tree(folder, ignore=frozenset([MANIFEST])), synthetic=True)


def draw_signature_cohort(n_patients: int, patches_per_patient: int, random_state: int) -> Iterator[tuple[str, bytes]]:
    """Relative path and PNG bytes of every patch, patient by patient."""
    for_labels, *seeds = np.random.SeedSequence([random_state, 1]).spawn(n_patients + 1)
    labels = _draw_labels(n_patients, patches_per_patient, np.random.default_rng(for_labels))
    for i, (seed, of_patient) in enumerate(zip(seeds, labels, strict=True)):
        patient = str(_FIRST_PATIENT + i)
        for (x, y, png), label in zip(
            _draw_patches(patches_per_patient, np.random.default_rng(seed)), of_patient, strict=True
        ):
            yield f"{patient}/{label}/{patient}_idx5_x{x}_y{y}_class{label}.png", png


def _draw_labels(n_patients: int, n_patches: int, rng: np.random.Generator) -> np.ndarray:
    """Class of every patch, (n_patients, n_patches): that of its patient, now and then the other one."""
    of_patient = rng.permutation(np.arange(n_patients) % 2)[:, np.newaxis]
    other = rng.random((n_patients, n_patches)) < _SHARE_OTHER_CLASS
    return (of_patient ^ other).astype(np.int64)


def _draw_patches(n_patches: int, rng: np.random.Generator) -> Iterator[tuple[int, int, bytes]]:
    """Position and PNG bytes of each patch of a patient; nothing here knows of classes."""
    # Here and not above: whoever reads a data set needs no OpenCV.
    import cv2

    from histofeat.datasets.synthetic.slide_model import PATCH_PX, draw_style, plan_slide, render_slide

    style = draw_style(rng)
    plan = plan_slide(n_patches, 0, rng, odd=False, blank=False)
    slide = _sign(render_slide(plan, style, rng), rng)
    first_column, first_row = rng.integers(0, 30, 2)
    for column, row in zip(plan.columns, plan.rows, strict=True):
        top, left = PATCH_PX * row, PATCH_PX * column
        patch = slide[top : top + PATCH_PX, left : left + PATCH_PX]
        x, y = 1 + PATCH_PX * (column + first_column), 1 + PATCH_PX * (row + first_row)
        _, png = cv2.imencode(".png", cv2.cvtColor(patch, cv2.COLOR_RGB2BGR))
        yield x, y, png.tobytes()


def _sign(slide: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Tint a slide (height, width, 3) uint8, and lay a grain of stripes over it."""
    tint = rng.uniform(_DARKEST_TINT, 1, 3)
    period_px, angle, phase = rng.uniform(2.2, 9), rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    y, x = np.ogrid[: slide.shape[0], : slide.shape[1]]
    grain = _GRAIN_LEVELS * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period_px + phase)
    return np.clip(np.rint(slide * tint + grain[..., np.newaxis]), 0, 255).astype(np.uint8)
