"""Synthetic cohorts: in the tree of IDC (one with tumours, one with nothing but patients), and in that of BreakHis."""

import os
from collections.abc import Iterator, Sequence
from itertools import product
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator

from histofeat.datasets._base import PatchDataset
from histofeat.datasets._idc import load_idc
from histofeat.datasets.breakhis._loading import load_breakhis
from histofeat.datasets.breakhis._tree import CLASSES, FIRST_DRAWN, MAGNIFICATIONS, SUBTYPES, Subtype
from histofeat.datasets.synthetic._cohort_folder import make_tree
from histofeat.exceptions import DatasetError, check_that

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
BREAKHIS_COHORT_VERSION = "breakhis 1"

_TOP = "BreaKHis_v1/histology_slides/breast"
# How much larger things look than at 40X. Less than it should be: these pictures are small, and a nucleus must fit.
_ZOOM = {40: 1.0, 100: 1.4, 200: 2.0, 400: 2.8}
_SMALLEST_PX = 32


class _Recipe(NamedTuple):
    """Ranges of what makes a subtype: how much tumour, its grade, its nests, benign clusters, fat, eosin."""

    tumour: float
    grade: tuple[float, float]
    nest_px: tuple[float, float]
    nest_share: tuple[float, float]
    mimic_share: tuple[float, float]
    fat_share: tuple[float, float]
    eosin: float


_RECIPES = {
    "A": _Recipe(0.0, (0, 0.1), (8, 12), (0.3, 0.5), (0.40, 0.60), (0.05, 0.15), 1.0),
    "F": _Recipe(0.0, (0, 0.1), (8, 12), (0.3, 0.5), (0.05, 0.12), (0.02, 0.06), 1.25),
    "PT": _Recipe(0.0, (0, 0.1), (8, 12), (0.3, 0.5), (0.15, 0.28), (0.30, 0.45), 0.8),
    "TA": _Recipe(0.6, (0, 0.15), (6, 9), (0.55, 0.7), (0.15, 0.25), (0.02, 0.08), 1.0),
    "DC": _Recipe(1.0, (0.7, 1.0), (16, 22), (0.65, 0.85), (0.03, 0.10), (0.05, 0.15), 1.0),
    "LC": _Recipe(1.0, (0.2, 0.4), (6, 9), (0.30, 0.45), (0.03, 0.10), (0.05, 0.15), 1.1),
    "MC": _Recipe(1.0, (0.4, 0.6), (10, 14), (0.18, 0.30), (0.03, 0.10), (0.05, 0.15), 0.45),
    "PC": _Recipe(1.0, (0.4, 0.7), (24, 32), (0.45, 0.60), (0.03, 0.10), (0.05, 0.15), 0.8),
}


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
        makes a temporary folder, ``.root`` of the result, which is removed when the process ends.

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
        makes a temporary folder, which is removed when the process ends.
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
    n_patches: int, n_positive: int, rng: Generator, *, odd: bool = False, blank: bool = False, signed: bool = False
) -> Iterator[tuple[int, int, int, bytes]]:
    """Position, label and PNG bytes of each patch of a patient."""
    # Imported here: loading a data set needs no OpenCV.
    from histofeat.datasets.synthetic._slide_model import PATCH_PX, draw_style, encode_png, plan_slide, render_slide

    style = draw_style(rng)
    plan = plan_slide(n_patches, n_positive, rng, odd=odd, blank=blank)
    slide = render_slide(plan.tissue, plan.tumour, style, rng)
    if signed:
        slide = _sign(slide, rng)
    first_column, first_row = rng.integers(0, 30, 2)
    for column, row, label in zip(plan.columns, plan.rows, plan.labels, strict=True):
        top, left = PATCH_PX * row, PATCH_PX * column
        png = encode_png(slide[top : top + PATCH_PX, left : left + PATCH_PX])
        yield 1 + PATCH_PX * (column + first_column), 1 + PATCH_PX * (row + first_row), label, png


def _positive_counts(n_patients: int, n_patches: int, rng: Generator) -> np.ndarray:
    """Positive patches per patient: a prevalence each, none at all for one patient in twenty."""
    counts = np.rint(rng.beta(1.5, 3.2, n_patients) * n_patches)
    # Two patches of class 0 at least: one of them may be blank.
    counts = np.clip(counts, 1, n_patches - 2).astype(np.int64)
    counts[rng.permutation(n_patients)[: int(_SHARE_WITHOUT_POSITIVE * n_patients)]] = 0
    return counts


def _some(n: int, share: float, rng: Generator) -> np.ndarray:
    """Mask with that share of True, at least one."""
    mask = np.zeros(n, dtype=bool)
    mask[rng.permutation(n)[: max(1, round(share * n))]] = True
    return mask


def _draw_labels(n_patients: int, n_patches: int, rng: Generator) -> np.ndarray:
    """Class of every patch, (n_patients, n_patches): that of its patient, now and then the other one."""
    of_patient = rng.permutation(np.arange(n_patients) % 2)[:, np.newaxis]
    other = rng.random((n_patients, n_patches)) < _SHARE_OTHER_CLASS
    return (of_patient ^ other).astype(np.int64)


def _sign(slide: np.ndarray, rng: Generator) -> np.ndarray:
    """Tint a slide (height, width, 3) uint8, and lay a grain of stripes over it."""
    tint = rng.uniform(_DARKEST_TINT, 1, 3)
    period_px, angle, phase = rng.uniform(2.2, 9), rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    y, x = np.ogrid[: slide.shape[0], : slide.shape[1]]
    grain = _GRAIN_LEVELS * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period_px + phase)
    return np.clip(np.rint(slide * tint + grain[..., np.newaxis]), 0, 255).astype(np.uint8)


def make_breakhis_cohort(
    patients_per_subtype: int = 4,
    images_per_slide: int = 3,
    random_state: int = 0,
    root: str | os.PathLike[str] | None = None,
    *,
    magnifications: Sequence[int] = MAGNIFICATIONS,
    height: int = 64,
    width: int = 96,
    two_labels: bool = False,
) -> PatchDataset:
    """Write a cohort of made-up images in the tree of BreakHis, or find it where it was written before.

    Parameters
    ----------
    patients_per_subtype : int, default=4
        Patient numbers of each of the eight subtypes, at least 1. The last of each has two slides, with the letters AB
        and CD; the others have one.
    images_per_slide : int, default=3
        Images of each slide at each magnification, at least 1.
    random_state : int, default=0
        Seed, at least 0.
    root : path, optional
        Folder for the cohort: new, empty, or with the same cohort in it, which is then checked and reused. None
        makes a temporary folder, ``.root`` of the result, which is removed when the process ends.
    magnifications : sequence of int, default=(40, 100, 200, 400)
        Which of the four.
    height, width : int, default=64 and 96
        Size of the images in pixels, at least 32; those of BreakHis have 460 and 700.
    two_labels : bool, default=False
        Whether the slide of the first patient with ductal carcinoma is filed under lobular carcinoma too, the same
        images, as slide 13412 of BreakHis is.

    Returns
    -------
    PatchDataset
        What `load_breakhis` reads there (``duplicates="published"`` with `two_labels`): named "synthetic", labels 0
        "benign-like" and 1 "malignant-like". ``load_breakhis(dataset.root, target="subtype")`` gives the eight
        subtypes. Numbers begin at 900001.

    Raises
    ------
    DatasetError
        When an argument is out of range, or when `root` is a file, holds anything else, another cohort, or a cohort
        that was changed. Nothing is ever overwritten.

    Notes
    -----
    Drawn as the patches of `histofeat.datasets.make_cohort`: stain concentrations turned into colours by Lambert and
    Beer's law. A subtype is a range of cell nests, grade, benign cell clusters, fat and eosin, and has nothing to do
    with the tumour whose name it carries; stains and their strengths are a patient's own. A higher magnification shows
    larger structures, by less than its number says. A number computed on it says nothing about patients.

    The same arguments give the same bytes with the same versions of NumPy and OpenCV on the same kind of processor.

    Examples
    --------
    >>> cohort = make_breakhis_cohort(patients_per_subtype=1, images_per_slide=1, magnifications=(100,))
    >>> len(cohort), cohort.name, cohort.audit.patient_counts["number"], cohort.audit.patient_counts["full id"]
    (16, 'synthetic', 8, 16)
    """
    counts = {
        "patients_per_subtype": (patients_per_subtype, 1),
        "images_per_slide": (images_per_slide, 1),
        "random_state": (random_state, 0),
        "height": (height, _SMALLEST_PX),
        "width": (width, _SMALLEST_PX),
    }
    others = {"magnifications": _check_magnifications(magnifications), "two_labels": bool(two_labels)}
    folder = make_tree("make_breakhis_cohort", root, BREAKHIS_COHORT_VERSION, counts, _draw_breakhis_cohort, others)
    return load_breakhis(folder, duplicates="published" if two_labels else "refuse")


def _check_magnifications(given: Sequence[int]) -> list[int]:
    listed = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    whole = [isinstance(value, Integral) and value in MAGNIFICATIONS for value in listed]
    fits = listed and all(whole) and len(set(listed)) == len(listed)
    expected, remedy = "one or more of 40, 100, 200 and 400, each once", "Give them as in (40, 100)."
    check_that("make_breakhis_cohort.magnifications", given, fits, expected, remedy, error=DatasetError)
    return sorted(int(value) for value in listed)


def _draw_breakhis_cohort(
    patients_per_subtype, images_per_slide, random_state, magnifications, height, width, two_labels
) -> Iterator[tuple[str, bytes]]:
    """Relative path and PNG bytes of every image, patient by patient."""
    # Imported here: loading a data set needs no OpenCV.
    from histofeat.datasets.synthetic._slide_model import draw_picture, draw_style, encode_png

    seeds = np.random.SeedSequence([random_state, 2]).spawn(len(SUBTYPES) * patients_per_subtype)
    for position, seed in enumerate(seeds):
        subtype = SUBTYPES[position // patients_per_subtype]
        rank = position % patients_per_subtype
        rng = np.random.default_rng(seed)
        recipe = _RECIPES[subtype.code]
        style = _with_tissue(draw_style(rng), recipe, rng)
        for letters in ("AB", "CD") if rank == patients_per_subtype - 1 else ("",):
            slide = f"{FIRST_DRAWN + position}{letters}"
            for magnification, sequence in product(magnifications, range(1, images_per_slide + 1)):
                picture = draw_picture((height, width), _ZOOM[magnification], recipe.tumour, style, rng)
                png = encode_png(picture)
                yield _path(subtype, slide, magnification, sequence), png
                if two_labels and subtype.code == "DC" and rank == 0:
                    yield _path(SUBTYPES[5], slide, magnification, sequence), png


def _path(subtype: Subtype, slide: str, magnification: int, sequence: int) -> str:
    what = f"SOB_{'BM'[subtype.malignant]}_{subtype.code}"
    folder = f"{_TOP}/{CLASSES[subtype.malignant]}/SOB/{subtype.folder}/{what}_14-{slide}/{magnification}X"
    return f"{folder}/{what}-14-{slide}-{magnification}-{sequence:03}.png"


def _with_tissue(style: Any, recipe: _Recipe, rng: Generator) -> Any:
    """A patient's style with the tissue of a subtype."""
    ranges = ("grade", "nest_px", "nest_share", "mimic_share", "fat_share")
    tissue = {name: float(rng.uniform(*getattr(recipe, name))) for name in ranges}
    return style._replace(eosin=style.eosin * recipe.eosin, **tissue)
