"""Load the BreakHis images of Spanhol et al. 2016, as the authors' archive unpacks; find images that it holds twice."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from histofeat.datasets.audit import FullSet, LeftOut
from histofeat.datasets.base import PatchDataset
from histofeat.datasets.breakhis.audit import NOMINAL_SIZE, BreakHisAudit, full_set
from histofeat.datasets.breakhis.names import CLASSES, SUBTYPES, TREE, parse_magnification
from histofeat.datasets.breakhis.tree import FoundImage, TreeScan, is_made_up, scan_breakhis
from histofeat.datasets.image_files import existing_folder
from histofeat.datasets.patients import PatientRule
from histofeat.exceptions import DatasetError, known_names

__all__ = ["load_breakhis"]

_TARGETS = ("malignant", "subtype")
_PATIENT_KEYS = ("number", "full")
# No table may suggest that a drawn shape is a tumour.
_MADE_UP = "{}-like"


DUPLICATES = ("refuse", "drop", "published")
_BY_NUMBER = PatientRule(expression=r"SOB_[BM]_[A-Z]{1,2}[-_][0-9]{2}-([0-9]+)")


def load_breakhis(
    root: str | os.PathLike[str],
    magnification: int | str | None = None,
    target: Literal["malignant", "subtype"] = "malignant",
    patient_key: Literal["number", "full"] = "number",
    duplicates: Literal["refuse", "drop", "published"] = "refuse",
) -> PatchDataset:
    """Read the archive's tree of BreakHis images.

    Parameters
    ----------
    root : path
        Folder that holds ``benign/`` and ``malignant/``, or any of those above it: ``breast``, ``histology_slides``,
        ``BreaKHis_v1`` or the one that the archive was unpacked in. It is only read.
    magnification : {40, 100, 200, 400}, "40X" to "400X" or None, default=None
        Which images; None reads those of all four magnifications together.
    target : {"malignant", "subtype"}, default="malignant"
        What a label is: benign or malignant, or one of the eight subtypes in a fixed order (benign first, and by name).
    patient_key : {"number", "full"}, default="number"
        What counts as a patient. The id of a slide is a number and the letters of a section: 22549AB, 22549CD and
        22549G are sections of one patient, as are 18842 and 18842D. "number" groups by the number; "full" takes each id
        for a patient of its own, as published, which puts sections of one patient on both sides of a split.
    duplicates : {"refuse", "drop", "published"}, default="refuse"
        What to do with images that are there twice (slide 13412 lies under ductal and under lobular carcinoma), see
        Notes. "refuse" raises an error.

    Returns
    -------
    PatchDataset
        Named "BreakHis", sorted by subtype, patient number, section, magnification and sequence, with the columns
        ``slide`` (full id), ``magnification`` (int), ``subtype``, ``sequence`` (int), ``height`` and ``width``
        (pixels). ``labels_per`` is "patient" where every patient has one label, else "patch": slides of one number
        can be of two subtypes. ``.audit`` is a `BreakHisAudit`: counts by magnification, patients by number, by full id
        and as published, what was left out, and the comparison with the 7,909 images of the full set. A tree that
        `make_breakhis_cohort` drew comes back named "synthetic", with names such as "benign-like".

    Raises
    ------
    DatasetError
        When an argument is none of the above; when the folder is missing, is a file, cannot be listed or has no such
        tree; when a class is missing or has no usable image; when the magnification is not there; when the class,
        subtype, slide or magnification in a name is not that of its folder; when images are there twice and
        `duplicates` is "refuse".

    Notes
    -----
    - Left out and counted, with the reason: files with another name, folders that are no class, subtype, slide or
      magnification (these are not searched), files that are empty, unreadable, no PNG, or cut off. The same file name
      in a second copy of the tree is a duplicate. Sizes are read from the headers; 456 rows instead of 460 are sound.
    - Two files are one image when they are equal to the byte, or when slide, magnification and sequence number are
      equal and only the subtype differs. "drop": of equal images with one label the first stays in the order of the
      rows (the one under ductal carcinoma for slide 13412 and ``target="malignant"``), the others are counted as
      duplicates; equal images under two labels, and slides under two labels, are left out altogether.
      "published": all of them stay, as in the published folds; with ``patient_key="full"`` a slide under two labels
      then counts as two patients (``"DC-14-13412"`` and ``"LC-14-13412"``), as published. The audit of a split sees
      that, and `histofeat.evaluate` refuses such folds.
    - Source: Spanhol et al. 2016, https://doi.org/10.1109/TBME.2015.2496264.

    Examples
    --------
    >>> from histofeat.datasets import make_breakhis_cohort
    >>> cohort = make_breakhis_cohort(patients_per_subtype=1, images_per_slide=1, magnifications=(40,))
    >>> dataset = load_breakhis(cohort.root, magnification="40X", target="subtype")
    >>> dataset.name, dataset.target_names[:2], dataset.labels_per
    ('synthetic', ('adenosis-like', 'fibroadenoma-like'), 'patient')
    """
    magnification = parse_magnification(magnification)
    for name, value, known in (
        ("target", target, _TARGETS),
        ("patient_key", patient_key, _PATIENT_KEYS),
        ("duplicates", duplicates, DUPLICATES),
    ):
        if value not in known:
            raise DatasetError(
                f"load_breakhis.{name}: expected one of {', '.join(known)}, got {value!r}. {known_names(value, known)}"
            )
    folder = existing_folder(root, "load_breakhis", TREE, hint="BreaKHis_v1")
    scan = scan_breakhis(folder)
    images = _at(magnification, scan)
    copies = _find_copies(images)
    label_of = _subtype_label if target == "subtype" else _class_label
    kept = images
    if duplicates == "refuse":
        _refuse_copies(copies, scan)
    elif duplicates == "drop":
        kept = _drop_copies(images, copies, scan, label_of)
    word = _MADE_UP.format if is_made_up(folder) else str
    frame = _to_frame(kept, label_of, word, _patient_ids(kept, patient_key, duplicates, copies))
    dataset = _dataset(frame, images, copies, scan, magnification, target, duplicates, word)
    return replace(dataset, patient_rule=_BY_NUMBER) if patient_key == "number" else dataset


def _at(magnification: int | None, scan: TreeScan) -> list[FoundImage]:
    """Images at one magnification, or all."""
    images = list(scan.images.values())
    if magnification is None:
        return images
    chosen = [image for image in images if image.name.magnification == magnification]
    if not chosen:
        there = sorted({image.name.magnification for image in images})
        raise DatasetError(
            f"load_breakhis.magnification: expected images at {magnification}X in {scan.root}, got none. Choose one "
            f"that is there: {', '.join(f'{power}X' for power in there)}."
        )
    return chosen


def _subtype_label(subtype: int) -> int:
    return subtype


def _class_label(subtype: int) -> int:
    return int(SUBTYPES[subtype].malignant)


def _patient_ids(images: Sequence[FoundImage], patient_key: str, duplicates: str, copies: Copies) -> list[str]:
    names = [image.name.slide_name for image in images]
    if patient_key == "number":
        return [name.number for name in names]
    return [
        f"{SUBTYPES[name.subtype].code}-{name.year}-{name.slide}"
        if duplicates == "published" and (name.year, name.slide) in copies.two_labels
        else name.slide
        for name in names
    ]


def _to_frame(
    images: Sequence[FoundImage], label_of: Callable[[int], int], word: Callable[[str], str], patients: list[str]
) -> pd.DataFrame:
    names = [image.name for image in images]
    subtypes = [name.slide_name.subtype for name in names]
    return pd.DataFrame(
        {
            "path": [image.path for image in images],
            "label": np.array([label_of(subtype) for subtype in subtypes], dtype=np.int64),
            "patient": patients,
            "x": pd.array([pd.NA] * len(images), dtype="Int64"),
            "y": pd.array([pd.NA] * len(images), dtype="Int64"),
            "slide": [name.slide_name.slide for name in names],
            "magnification": [name.magnification for name in names],
            "subtype": [word(SUBTYPES[subtype].word) for subtype in subtypes],
            "sequence": [name.sequence for name in names],
            "height": [image.height for image in images],
            "width": [image.width for image in images],
        }
    )


def _dataset(
    frame: pd.DataFrame,
    images: Sequence[FoundImage],
    copies: Copies,
    scan: TreeScan,
    magnification: int | None,
    target: str,
    duplicates: str,
    word: Callable[[str], str],
) -> PatchDataset:
    """Make the data set of the table, named "BreakHis" or "synthetic", with its audit."""
    synthetic = word is not str
    name = "synthetic" if synthetic else "BreakHis"
    words = [subtype.word for subtype in SUBTYPES] if target == "subtype" else CLASSES
    target_names = tuple(map(word, words))
    audit = BreakHisAudit.of(
        frame,
        target_names,
        name,
        nominal_size=None if synthetic else NOMINAL_SIZE,
        duplicates=scan.duplicates,
        left_out=LeftOut.group(scan.left_out),
        full_set=None if synthetic else full_set(magnification, target),
        two_labels={
            f"{year}-{slide}": tuple(word(SUBTYPES[i].word) for i in found)
            for (year, slide), found in copies.two_labels.items()
        },
        duplicates_rule=duplicates,
        found=_found(images, target_names, target),
    )
    one_label = frame.groupby("patient")["label"].nunique().max() == 1
    per = "patient" if one_label else "patch"
    return PatchDataset(frame, target_names, name, Path(scan.root), audit, synthetic, per)


def _found(images: Sequence[FoundImage], target_names: tuple[str, ...], target: str) -> FullSet:
    """Count the images before any were dropped; patients as published, by subtype and slide."""
    label_of = _subtype_label if target == "subtype" else _class_label
    counts = np.bincount([label_of(i.name.slide_name.subtype) for i in images], minlength=len(target_names))
    slides = {image.name.slide_name for image in images}
    return FullSet(len(images), len(slides), dict(zip(target_names, counts.tolist(), strict=True)))


@dataclass(frozen=True)
class Copies:
    """Images that are there more than once.

    Parameters
    ----------
    groups : tuple of tuple of FoundImage
        Each holds two or more files of the same image, in the order of the scan.
    two_labels : mapping of (year, slide id) to tuple of int
        Slides that lie in the folders of two subtypes, with their positions in `SUBTYPES`.
    """

    groups: tuple[tuple[FoundImage, ...], ...] = ()
    two_labels: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)


def _find_copies(images: Sequence[FoundImage]) -> Copies:
    """Look for the same image under two names, and for slides under two subtypes.

    Notes
    -----
    Two files are the same image when they are equal to the byte; and, for those without an equal, when slide,
    magnification and sequence number are equal and only the subtype differs, as for the two copies of slide 13412.
    Only files of equal length are read.
    """
    equal = _equal_files(images)
    alone = {image.name for image in images} - {image.name for group in equal for image in group}
    subtypes: dict[tuple[str, str], set[int]] = {}
    same_name: dict[tuple, list[FoundImage]] = {}
    for image in images:
        slide = image.name.slide_name
        subtypes.setdefault((slide.year, slide.slide), set()).add(slide.subtype)
        if image.name in alone:
            key = (slide.year, slide.slide, image.name.magnification, image.name.sequence)
            same_name.setdefault(key, []).append(image)
    groups = equal + [tuple(group) for group in same_name.values() if len(group) > 1]
    position = {image.name: number for number, image in enumerate(images)}
    return Copies(
        tuple(sorted(groups, key=lambda group: position[group[0].name])),
        {slide: tuple(sorted(found)) for slide, found in subtypes.items() if len(found) > 1},
    )


def _equal_files(images: Sequence[FoundImage]) -> list[tuple[FoundImage, ...]]:
    by_length: dict[int, list[FoundImage]] = {}
    for image in images:
        by_length.setdefault(image.n_bytes, []).append(image)
    by_content: dict[bytes, list[FoundImage]] = {}
    for group in by_length.values():
        for image in group if len(group) > 1 else ():
            by_content.setdefault(hashlib.sha256(Path(image.path).read_bytes()).digest(), []).append(image)
    return [tuple(group) for group in by_content.values() if len(group) > 1]


def _refuse_copies(copies: Copies, scan: TreeScan) -> None:
    """Raise when there are any.

    Raises
    ------
    DatasetError
        With the first pair, or the first slide under two labels.
    """
    remedy = (
        "Choose duplicates='drop' (of equal images with one label the first stays; those with two labels go), or "
        "duplicates='published' (everything stays, as in the published folds)."
    )
    slides = "".join(
        f" Slide {year}-{slide} lies under {' and '.join(SUBTYPES[i].word for i in found)}."
        for (year, slide), found in copies.two_labels.items()
    )
    if copies.groups:
        first, second, *_ = copies.groups[0]
        n = len(copies.groups)
        raise DatasetError(
            f"{scan.relative(second.path)}: expected each image once, got the image of {scan.relative(first.path)} "
            f"again{f' (and {n - 1:,} more such images)' if n > 1 else ''}.{slides} {remedy}"
        )
    if copies.two_labels:
        raise DatasetError(f"{scan.root}: expected one subtype for each slide, got two.{slides} {remedy}")


def _drop_copies(
    images: Sequence[FoundImage], copies: Copies, scan: TreeScan, label_of: Callable[[int], int]
) -> list[FoundImage]:
    """Images without the copies, by the rule "drop"; what goes is counted in `scan`.

    Parameters
    ----------
    images : sequence of FoundImage
    copies : Copies
        Of these images.
    scan : TreeScan
        Gets the counts: a copy is a duplicate, an image under two labels is left out.
    label_of : callable
        Label code of a subtype.

    Notes
    -----
    Of equal images that share one label the first stays: subtypes in the order of the labels, then patient number,
    magnification and sequence. Equal images under two labels all go, and so does a whole slide that lies under two
    labels: it is not known which is right.
    """
    disputed = {
        slide for slide, subtypes in copies.two_labels.items() if len({label_of(subtype) for subtype in subtypes}) > 1
    }
    gone = set()
    for group in copies.groups:
        labels = {label_of(image.name.slide_name.subtype) for image in group}
        if len(labels) > 1:
            gone.update(image.name for image in group)
    copied = set()
    for group in copies.groups:
        copied.update(image.name for image in group[1:])
    kept = []
    for image in images:
        slide = image.name.slide_name
        if (slide.year, slide.slide) in disputed:
            scan.leave_out(image.path, "is of a slide under two labels, one of which must be wrong")
        elif image.name in gone:
            scan.leave_out(image.path, "is one image under two labels, one of which must be wrong")
        elif image.name in copied:
            scan.duplicates += 1
        else:
            kept.append(image)
    return kept
