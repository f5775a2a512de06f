"""A synthetic cohort in the tree of the IDC data: the embedded default, and ground truth for tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from histofeat.datasets.base import PatchDataset
from histofeat.datasets.idc.loading import dataset_from_scan
from histofeat.datasets.idc.tree import scan_tree
from histofeat.datasets.synthetic.cohort_folder import MANIFEST, check_count, cohort_folder, is_reusable, write_cohort

__all__ = ["COHORT_VERSION", "make_cohort"]

#: Rises with every change that alters a byte of a cohort; it is part of the manifest, so an older cohort on disk is
#: refused and never taken for the present one.
COHORT_VERSION = 1

# No IDC patient has a number as high: the two can never be mixed up or merged unseen.
_FIRST_PATIENT = 900_001
_SHARE_WITHOUT_POSITIVE = 0.05
_SHARE_ODD = 0.15
_SHARE_BLANK = 0.5


def make_cohort(
    n_patients: int = 40,
    patches_per_patient: int = 60,
    random_state: int = 0,
    root: str | os.PathLike[str] | None = None,
) -> PatchDataset:
    """Write a cohort of made-up H&E patches, or find it where it was written before.

    Parameters
    ----------
    n_patients : int, default=40
        Patients, at least 1.
    patches_per_patient : int, default=60
        Patches of each, at least 4.
    random_state : int, default=0
        Seed, at least 0.
    root : path, optional
        Folder for the cohort: new, empty, or holding the very same cohort, which is then checked and reused. None
        makes a new temporary folder; ``.root`` of the result says where, and it is the caller's to keep (pass it as
        `root` next time) or to delete.

    Returns
    -------
    PatchDataset
        Named "synthetic", ``synthetic=True``, labels 0 "no tumour" and 1 "tumour", files
        ``PATIENT/{0,1}/PATIENT_idx5_xX_yY_classC.png``, mostly 50x50, coordinates 1 + 50 k.

    Raises
    ------
    DatasetError
        When an argument is out of range, or when `root` is a file, holds anything else, another cohort, or a cohort
        that was changed. Nothing is ever overwritten.

    Notes
    -----
    Each patient is one slide of stroma, fat and tumour, drawn as stain concentrations and turned into colours by
    Lambert and Beer's law, with its own stain vectors, stain strengths, tumour grade and prevalence. About one patient
    in twenty has no positive patch; of the others each has both classes. Narrow edge patches, blank patches, tumour
    outlined inexactly and benign cell clusters make the task about as hard as the real one. A number computed on it
    says nothing about patients.

    The same arguments give the same bytes with the same versions of NumPy and OpenCV on the same kind of processor;
    elsewhere a colour may differ by one level. A cohort on disk is therefore compared with its own manifest.

    Examples
    --------
    >>> cohort = make_cohort(n_patients=2, patches_per_patient=6, random_state=1)
    >>> len(cohort), cohort.name, sorted(set(cohort.patients))
    (12, 'synthetic', ['900001', '900002'])
    """
    parameters = {
        "n_patients": check_count("make_cohort", "n_patients", n_patients, 1),
        "patches_per_patient": check_count("make_cohort", "patches_per_patient", patches_per_patient, 4),
        "random_state": check_count("make_cohort", "random_state", random_state, 0),
    }
    folder = cohort_folder("make_cohort", root)
    header = {"made_by": "histofeat make_cohort", "version": COHORT_VERSION, **parameters}
    if not is_reusable(folder, header):
        write_cohort(folder, header, draw_cohort(**parameters))
    return dataset_from_scan(scan_tree(folder, ignore=frozenset([MANIFEST])), synthetic=True)


def draw_cohort(n_patients: int, patches_per_patient: int, random_state: int) -> Iterator[tuple[str, bytes]]:
    """Relative path and PNG bytes of every patch, patient by patient."""
    plans, *seeds = np.random.SeedSequence(random_state).spawn(n_patients + 1)
    rng = np.random.default_rng(plans)
    positives = _positive_counts(n_patients, patches_per_patient, rng)
    odd = _some(n_patients, _SHARE_ODD, rng)
    blank = _some(n_patients, _SHARE_BLANK, rng)
    for i, seed in enumerate(seeds):
        yield from _draw_patient(
            str(_FIRST_PATIENT + i),
            patches_per_patient,
            int(positives[i]),
            np.random.default_rng(seed),
            odd=bool(odd[i]),
            blank=bool(blank[i]),
        )


def _draw_patient(
    patient: str, n_patches: int, n_positive: int, rng: np.random.Generator, *, odd: bool, blank: bool
) -> Iterator[tuple[str, bytes]]:
    # Here and not above: whoever reads a data set needs no OpenCV.
    import cv2

    from histofeat.datasets.synthetic.slide_model import PATCH_PX, draw_style, plan_slide, render_slide

    style = draw_style(rng)
    plan = plan_slide(n_patches, n_positive, rng, odd=odd, blank=blank)
    slide = render_slide(plan, style, rng)
    first_column, first_row = rng.integers(0, 30, 2)
    for column, row, label in zip(plan.columns, plan.rows, plan.labels, strict=True):
        top, left = PATCH_PX * row, PATCH_PX * column
        patch = slide[top : top + PATCH_PX, left : left + PATCH_PX]
        x, y = 1 + PATCH_PX * (column + first_column), 1 + PATCH_PX * (row + first_row)
        _, png = cv2.imencode(".png", cv2.cvtColor(patch, cv2.COLOR_RGB2BGR))
        yield f"{patient}/{label}/{patient}_idx5_x{x}_y{y}_class{label}.png", png.tobytes()


def _positive_counts(n_patients: int, n_patches: int, rng: np.random.Generator) -> np.ndarray:
    """Positive patches per patient: a prevalence each, none at all for one patient in twenty."""
    counts = np.rint(rng.beta(1.5, 3.2, n_patients) * n_patches)
    # Two patches of class 0 at least: one of them may be blank.
    counts = np.clip(counts, 1, n_patches - 2).astype(np.int64)
    counts[rng.permutation(n_patients)[: int(_SHARE_WITHOUT_POSITIVE * n_patients)]] = 0
    return counts


def _some(n: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Mask with that share of True, at least one."""
    mask = np.zeros(n, dtype=bool)
    mask[rng.permutation(n)[: max(1, round(share * n))]] = True
    return mask
