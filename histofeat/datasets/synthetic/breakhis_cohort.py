"""A synthetic cohort in the archive's tree of BreakHis: eight made-up subtypes at four magnifications."""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from histofeat.datasets.base import PatchDataset
from histofeat.datasets.breakhis.loading import load_breakhis
from histofeat.datasets.breakhis.tree import CLASSES, MAGNIFICATIONS, SUBTYPES, Subtype
from histofeat.datasets.synthetic.cohort_folder import make_tree
from histofeat.exceptions import DatasetError

if TYPE_CHECKING:
    from histofeat.datasets.synthetic.slide_model import PatientStyle

__all__ = ["BREAKHIS_COHORT_VERSION", "make_breakhis_cohort"]

#: As `histofeat.datasets.synthetic.idc_cohorts.COHORT_VERSION`; text, so that no cohort is taken for another one.
BREAKHIS_COHORT_VERSION = "breakhis 1"

# Above every number of BreakHis, whose highest has five digits.
_FIRST_NUMBER = 900_001
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
        makes a new temporary folder, which is the caller's to keep (pass it as `root` next time) or to delete.
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
    folder = make_tree("make_breakhis_cohort", root, BREAKHIS_COHORT_VERSION, counts, _draw_cohort, others)
    return load_breakhis(folder, duplicates="published" if two_labels else "refuse")


def _check_magnifications(given: Sequence[int]) -> list[int]:
    listed = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    whole = [isinstance(value, numbers.Integral) and value in MAGNIFICATIONS for value in listed]
    if not listed or not all(whole) or len(set(listed)) < len(listed):
        raise DatasetError(
            "make_breakhis_cohort.magnifications: expected one or more of 40, 100, 200 and 400, each once, "
            f"got {given!r}. Give them as in (40, 100)."
        )
    return sorted(int(value) for value in listed)


def _draw_cohort(
    patients_per_subtype: int,
    images_per_slide: int,
    random_state: int,
    magnifications: Sequence[int],
    height: int,
    width: int,
    two_labels: bool,
) -> Iterator[tuple[str, bytes]]:
    """Relative path and PNG bytes of every image, patient by patient."""
    seeds = np.random.SeedSequence([random_state, 2]).spawn(len(SUBTYPES) * patients_per_subtype)
    for position, seed in enumerate(seeds):
        subtype = SUBTYPES[position // patients_per_subtype]
        rank = position % patients_per_subtype
        rng = np.random.default_rng(seed)
        style, tumour = _draw_style(subtype, rng)
        for letters in ("AB", "CD") if rank == patients_per_subtype - 1 else ("",):
            slide = f"{_FIRST_NUMBER + position}{letters}"
            for magnification in magnifications:
                for sequence in range(1, images_per_slide + 1):
                    png = _draw_image(style, tumour, _ZOOM[magnification], (height, width), rng)
                    yield _path(subtype, slide, magnification, sequence), png
                    if two_labels and subtype.code == "DC" and rank == 0:
                        yield _path(SUBTYPES[5], slide, magnification, sequence), png


def _path(subtype: Subtype, slide: str, magnification: int, sequence: int) -> str:
    what = f"SOB_{'BM'[subtype.malignant]}_{subtype.code}"
    folder = f"{_TOP}/{CLASSES[subtype.malignant]}/SOB/{subtype.folder}/{what}_14-{slide}/{magnification}X"
    return f"{folder}/{what}-14-{slide}-{magnification}-{sequence:03}.png"


def _draw_style(subtype: Subtype, rng: np.random.Generator) -> tuple[PatientStyle, float]:
    """Stains of a patient, tissue of a subtype, and how much of it is tumour."""
    from histofeat.datasets.synthetic.slide_model import draw_style

    recipe, style = _RECIPES[subtype.code], draw_style(rng)
    ranges = ("grade", "nest_px", "nest_share", "mimic_share", "fat_share")
    tissue = {name: float(rng.uniform(*getattr(recipe, name))) for name in ranges}
    return replace(style, eosin=style.eosin * recipe.eosin, **tissue), recipe.tumour


def _draw_image(
    style: PatientStyle, tumour: float, zoom: float, size: tuple[int, int], rng: np.random.Generator
) -> bytes:
    # Here and not above: loading a data set needs no OpenCV.
    import cv2

    from histofeat.datasets.synthetic.slide_model import SlidePlan, render_slide

    shape = tuple(max(2, round(side / zoom)) for side in size)
    nowhere = np.zeros(0, dtype=np.int64)
    whole = np.ones(shape, np.float32)
    plan = SlidePlan(nowhere, nowhere, nowhere, whole, whole * np.float32(tumour))
    picture = render_slide(plan, style, rng)
    if zoom > 1:
        picture = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_CUBIC)
    _, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return png.tobytes()
