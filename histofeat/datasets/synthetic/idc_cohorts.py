"""Synthetic cohorts in the tree of IDC: the default data set, and one in which only patients can be recognised."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from histofeat.datasets.base import PatchDataset
from histofeat.datasets.idc import load_idc
from histofeat.datasets.synthetic.cohort_folder import make_tree

__all__ = ["COHORT_VERSION", "SIGNATURE_VERSION", "draw_cohort", "make_cohort", "make_signature_cohort"]

#: Raise it with every change that alters a byte of the cohort: an older cohort on disk is then refused.
COHORT_VERSION = 1
#: Version of the other cohort; text, so that neither is ever taken for the other.
SIGNATURE_VERSION = "signature 1"

# No IDC patient has a number as high: the two can never be mixed up or merged unseen.
_FIRST_PATIENT = 900_001
_SHARE_WITHOUT_POSITIVE = 0.05
_SHARE_ODD = 0.15
_SHARE_BLANK = 0.5
# Of the other cohort: above every patient of `make_cohort`.
_FIRST_SIGNED = 950_001
_SHARE_OTHER_CLASS = 0.02
_DARKEST_TINT = 0.6
_GRAIN_LEVELS = 12.0


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
        Folder for the cohort: new, empty, or with the same cohort in it, which is then checked and reused. None
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
    counts = {"n_patients": (n_patients, 1), "patches_per_patient": (patches_per_patient, 4)}
    counts["random_state"] = (random_state, 0)
    return load_idc(make_tree("make_cohort", root, COHORT_VERSION, counts, draw_cohort))


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
        Folder for the cohort: new, empty, or with the same cohort in it, which is then checked and reused. None
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
    counts = {"n_patients": (n_patients, 2), "patches_per_patient": (patches_per_patient, 4)}
    counts["random_state"] = (random_state, 0)
    return load_idc(make_tree("make_signature_cohort", root, SIGNATURE_VERSION, counts, draw_signature_cohort))


def draw_cohort(n_patients: int, patches_per_patient: int, random_state: int) -> Iterator[tuple[str, bytes]]:
    """Relative path and PNG bytes of every patch, patient by patient."""
    plans, *seeds = np.random.SeedSequence(random_state).spawn(n_patients + 1)
    rng = np.random.default_rng(plans)
    positives = _positive_counts(n_patients, patches_per_patient, rng)
    odd = _some(n_patients, _SHARE_ODD, rng)
    blank = _some(n_patients, _SHARE_BLANK, rng)
    for i, seed in enumerate(seeds):
        kind = {"odd": bool(odd[i]), "blank": bool(blank[i])}
        patches = _draw_patches(patches_per_patient, int(positives[i]), np.random.default_rng(seed), **kind)
        yield from (_named(_FIRST_PATIENT + i, *patch) for patch in patches)


def draw_signature_cohort(n_patients: int, patches_per_patient: int, random_state: int) -> Iterator[tuple[str, bytes]]:
    """Relative path and PNG bytes of every patch, patient by patient."""
    for_labels, *seeds = np.random.SeedSequence([random_state, 1]).spawn(n_patients + 1)
    labels = _draw_labels(n_patients, patches_per_patient, np.random.default_rng(for_labels))
    for i, (seed, of_patient) in enumerate(zip(seeds, labels, strict=True)):
        patches = _draw_patches(patches_per_patient, 0, np.random.default_rng(seed), signed=True)
        for (x, y, _, png), label in zip(patches, of_patient, strict=True):
            yield _named(_FIRST_SIGNED + i, x, y, label, png)


def _named(patient: int, x: int, y: int, label: int, png: bytes) -> tuple[str, bytes]:
    return f"{patient}/{label}/{patient}_idx5_x{x}_y{y}_class{label}.png", png


def _draw_patches(
    n_patches: int,
    n_positive: int,
    rng: np.random.Generator,
    *,
    odd: bool = False,
    blank: bool = False,
    signed: bool = False,
) -> Iterator[tuple[int, int, int, bytes]]:
    """Position, label and PNG bytes of each patch of a patient."""
    # Here and not above: loading a data set needs no OpenCV.
    import cv2

    from histofeat.datasets.synthetic.slide_model import PATCH_PX, draw_style, plan_slide, render_slide

    style = draw_style(rng)
    plan = plan_slide(n_patches, n_positive, rng, odd=odd, blank=blank)
    slide = render_slide(plan, style, rng)
    if signed:
        slide = _sign(slide, rng)
    first_column, first_row = rng.integers(0, 30, 2)
    for column, row, label in zip(plan.columns, plan.rows, plan.labels, strict=True):
        top, left = PATCH_PX * row, PATCH_PX * column
        patch = slide[top : top + PATCH_PX, left : left + PATCH_PX]
        _, png = cv2.imencode(".png", cv2.cvtColor(patch, cv2.COLOR_RGB2BGR))
        yield 1 + PATCH_PX * (column + first_column), 1 + PATCH_PX * (row + first_row), label, png.tobytes()


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


def _draw_labels(n_patients: int, n_patches: int, rng: np.random.Generator) -> np.ndarray:
    """Class of every patch, (n_patients, n_patches): that of its patient, now and then the other one."""
    of_patient = rng.permutation(np.arange(n_patients) % 2)[:, np.newaxis]
    other = rng.random((n_patients, n_patches)) < _SHARE_OTHER_CLASS
    return (of_patient ^ other).astype(np.int64)


def _sign(slide: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Tint a slide (height, width, 3) uint8, and lay a grain of stripes over it."""
    tint = rng.uniform(_DARKEST_TINT, 1, 3)
    period_px, angle, phase = rng.uniform(2.2, 9), rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    y, x = np.ogrid[: slide.shape[0], : slide.shape[1]]
    grain = _GRAIN_LEVELS * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period_px + phase)
    return np.clip(np.rint(slide * tint + grain[..., np.newaxis]), 0, 255).astype(np.uint8)
