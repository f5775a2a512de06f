"""Load the BreakHis images of Spanhol et al. 2016, as the authors' archive unpacks; find images that it holds twice."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from histofeat.datasets._audit import DatasetAudit, FullSet, facts_of
from histofeat.datasets._base import PatchDataset
from histofeat.datasets._idc import mpp_by_name
from histofeat.datasets._image_files import Scan, add_scale, existing_folder, refuse_failures, same_content
from histofeat.datasets._patients import NAME_RULES
from histofeat.datasets.breakhis._tree import (
    CLASSES,
    MAGNIFICATIONS,
    SUBTYPES,
    TREE,
    is_made_up,
    parse_magnification,
    scan_breakhis,
)
from histofeat.exceptions import DatasetError, and_more, check_name

# No table may suggest that a drawn shape is a tumour.
_MADE_UP = "{}-like"
_COLUMNS = ["path", "label", "patient", "x", "y", "slide", "magnification", "subtype", "sequence", "height", "width"]
DUPLICATES = ("refuse", "drop", "published")
_NOMINAL_SIZE = (460, 700)

# Spanhol et al. 2016: images at 40X, 100X, 200X and 400X, in the order of the subtypes. The table on the authors' page
# says 652 benign ones at 40X; its own totals (1,995 and 2,480) and the archive say 625.
_IMAGES = (
    (114, 113, 111, 106),
    (253, 260, 264, 237),
    (109, 121, 108, 115),
    (149, 150, 140, 130),
    (864, 903, 896, 788),
    (156, 170, 163, 137),
    (205, 222, 196, 169),
    (145, 142, 135, 138),
)
# One for each subtype and slide id: 24 benign, 58 malignant, all of them at every magnification.
_PUBLISHED_PATIENTS = 82


def load_breakhis(
    root: str | os.PathLike[str],
    magnification: int | str | None = None,
    target: Literal["malignant", "subtype"] = "malignant",
    patient_key: Literal["number", "full"] = "number",
    duplicates: Literal["refuse", "drop", "published"] = "refuse",
    on_error: str = "skip",
    classes: Sequence[str] | Mapping[str, str] | str | None = None,
    positive: str | None = None,
    mpp: float | None = None,
) -> PatchDataset:
    """Read the archive's tree of BreakHis images.

    Parameters
    ----------
    root : path
        Folder that holds ``benign/`` and ``malignant/``, or any of those above it: ``breast``, ``histology_slides``,
        ``BreaKHis_v1`` or the one that the archive was unpacked in. It is only read.
    magnification : {40, 100, 200, 400}, "40X" to "400X", "all" or None, default=None
        Which images; "all" and None read those of all four magnifications together.
    target : {"malignant", "subtype"}, default="malignant"
        What a label is: benign or malignant, or one of the eight subtypes in a fixed order (benign first, and by name).
    patient_key : {"number", "full"}, default="number"
        What counts as a patient. The id of a slide is a number and the letters of a section: 22549AB, 22549CD and
        22549G are sections of one patient, as are 18842 and 18842D. "number" groups by the number; "full" takes each id
        for a patient of its own, as published, which puts sections of one patient on both sides of a split.
    duplicates : {"refuse", "drop", "published"}, default="refuse"
        What to do with images that are there twice (slide 13412 lies under ductal and under lobular carcinoma), see
        Notes. "refuse" raises an error.
    classes, positive : optional
        The classes to keep, to merge or to rename, and which of two is positive ("malignant"): see
        `PatchDataset.with_classes`.
    on_error : {"raise", "skip"}, default="skip"
        What is done about images that cannot be read by their first and last bytes: the first one is refused, or they
        are left out and listed in ``audit.failures``.
    mpp : float, optional
        Micrometres per pixel, for resampled copies; by default 0.49, 0.20, 0.10 and 0.05 at 40X to 400X, see Notes.

    Returns
    -------
    PatchDataset
        Named "BreakHis", sorted by subtype, patient number, section, magnification and sequence, with the columns
        ``slide`` (full id), ``magnification`` (int), ``subtype``, ``sequence`` (int), ``height`` and ``width``
        (pixels), and ``mpp`` (micrometres per pixel, missing where an image has not the published size). ``labels_per``
        is "patient" where every patient has one label, else "patch": slides of one number can be of two subtypes.
        ``.audit`` is a `BreakHisAudit`: counts by magnification, patients by number, by full id and as published, what
        was left out, and the comparison with the 7,909 images of the full set. A tree that
        `make_breakhis_cohort` drew comes back named "synthetic", with names such as "benign-like".

    Raises
    ------
    DatasetError
        When an argument is none of the above; when the folder is missing, is a file, cannot be listed or has no such
        tree; when a class is missing or has no usable image; when the magnification is not there; when the class,
        subtype, slide or magnification in a name is not that of its folder; when images are there twice and
        `duplicates` is "refuse"; when an image cannot be read, with ``on_error="raise"``.

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
    - Scales are those that the authors give for their microscope (camera pixels of 6.5 micrometres, a relay lens of
      3.3X, objectives of 4X to 40X); the table was not checked against the paper. Drawn trees have the same numbers.
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
    check_name("load_breakhis.target", target, ("malignant", "subtype"), error=DatasetError)
    check_name("load_breakhis.patient_key", patient_key, ("number", "full"), error=DatasetError)
    check_name("load_breakhis.duplicates", duplicates, DUPLICATES, error=DatasetError)
    folder = existing_folder(root, "load_breakhis", TREE, hint="BreaKHis_v1")
    scan = scan_breakhis(folder)
    refuse_failures(scan.failures, on_error)
    images = kept = _to_table(scan, magnification, target)
    groups = _find_copies(images)
    kinds = images.groupby("year_slide", sort=False)["kind"].unique()
    two_labels = {slide: tuple(sorted(found)) for slide, found in kinds.items() if len(found) > 1}
    if duplicates == "refuse":
        _refuse_copies(images, groups, two_labels, scan)
    elif duplicates == "drop":
        kept = _drop_copies(images, groups, scan)
    synthetic = is_made_up(folder)
    word, name = (_MADE_UP.format, "synthetic") if synthetic else (str, "BreakHis")
    target_names = tuple(map(word, [subtype.word for subtype in SUBTYPES] if target == "subtype" else CLASSES))
    as_two = two_labels if duplicates == "published" else ()
    frame = add_scale(_to_frame(kept, patient_key, as_two, word), mpp, "load_breakhis", mpp_by_name)
    counts = dict(zip(target_names, np.bincount(images["label"], minlength=len(target_names)).tolist(), strict=True))
    published = {} if synthetic else {"nominal_size": _NOMINAL_SIZE, "full_set": full_set(magnification, target)}
    audit = BreakHisAudit.of(
        frame,
        target_names,
        name,
        **facts_of(scan) | published,
        two_labels={slide: tuple(word(SUBTYPES[kind].word) for kind in found) for slide, found in two_labels.items()},
        duplicates_rule=duplicates,
        found=FullSet(len(images), len(images.drop_duplicates(["kind", "year_slide"])), counts),
    )
    per = "patient" if frame.groupby("patient")["label"].nunique().max() == 1 else "patch"
    more = synthetic, per, NAME_RULES["breakhis"] if patient_key == "number" else None
    return PatchDataset(frame, target_names, name, folder, audit, *more).with_classes(classes, positive)


def _to_frame(
    images: pd.DataFrame, patient_key: str, two_patients: Collection[str], word: Callable[[str], str]
) -> pd.DataFrame:
    patients = images["number" if patient_key == "number" else "slide"]
    if patient_key == "full":
        codes = images["kind"].map(lambda kind: SUBTYPES[kind].code)
        patients = patients.mask(images["year_slide"].isin(two_patients), codes + "-" + images["year_slide"])
    nowhere = pd.array([pd.NA] * len(images), dtype="Int64")
    subtypes = [word(SUBTYPES[kind].word) for kind in images["kind"]]
    return images.assign(patient=patients, x=nowhere, y=nowhere, subtype=subtypes)[_COLUMNS]


def _to_table(scan: Scan, magnification: int | None, target: str) -> pd.DataFrame:
    """Images at one magnification, or all, sorted; `kind` is a position in `SUBTYPES`, `year_slide` as "14-22549AB"."""
    records = sorted(
        (slide.subtype, int(slide.number), slide.letters, slide.year, power, sequence, slide, *found)
        for (slide, power, sequence), found in scan.found.items()
        if magnification in (None, power)
    )
    if not records:
        there = ", ".join(f"{power}X" for power in sorted({name.magnification for name in scan.found}))
        raise DatasetError(
            f"load_breakhis.magnification: expected images at {magnification}X in {scan.root}, got none. Choose one "
            f"that is there: {there}."
        )
    columns = ["kind", "order", "letters", "year", "magnification", "sequence", "name", "path", "height", "width"]
    table = pd.DataFrame.from_records(records, columns=columns)
    for part in ("number", "slide", "malignant"):
        table[part] = [getattr(name, part) for name in table["name"]]
    label = table["kind" if target == "subtype" else "malignant"].astype(np.int64)
    return table.assign(year_slide=table["year"] + "-" + table["slide"], label=label)


def _find_copies(images: pd.DataFrame) -> list[list[int]]:
    """Rows that are one image, in order: equal files; of the others, those that differ in nothing but the subtype."""
    equal = same_content(images["path"])
    alone = images.drop(index=[row for group in equal for row in group])
    named = alone.groupby(["year_slide", "magnification", "sequence"]).indices.values()
    return sorted(equal + [alone.index[rows].tolist() for rows in named if len(rows) > 1])


def _refuse_copies(images: pd.DataFrame, groups: list[list[int]], two_labels: dict, scan: Scan) -> None:
    """Raise a DatasetError with the first pair of copies, or the first slide under two labels, if there is any."""
    remedy = (
        "Choose duplicates='drop' (of equal images with one label the first stays; those with two labels go), or "
        "duplicates='published' (everything stays, as in the published folds)."
    )
    slides = "".join(
        f" Slide {slide} lies under {' and '.join(SUBTYPES[kind].word for kind in found)}."
        for slide, found in two_labels.items()
    )
    if groups:
        first, second = map(scan.relative, images["path"][groups[0][:2]])
        raise DatasetError(
            f"{second}: expected each image once, got the image of {first} "
            f"again{and_more(len(groups))}.{slides} {remedy}"
        )
    if two_labels:
        raise DatasetError(f"{scan.root}: expected one subtype for each slide, got two.{slides} {remedy}")


def _drop_copies(images: pd.DataFrame, groups: list[list[int]], scan: Scan) -> pd.DataFrame:
    """Images without the copies, by the rule "drop"; what goes is counted in `scan`.

    Notes
    -----
    Of equal images that share one label the first stays: subtypes in the order of the labels, then patient number,
    magnification and sequence. Equal images under two labels all go, and so does a whole slide that lies under two
    labels: it is not known which is right.
    """
    copied, reasons = set(), {}
    for group in groups:
        copied.update(group[1:])
        if images["label"][group].nunique() > 1:
            reasons |= dict.fromkeys(group, "is one image under two labels, one of which must be wrong")
    disputed = images.groupby("year_slide")["label"].transform("nunique") > 1
    reasons |= dict.fromkeys(images.index[disputed], "is of a slide under two labels, one of which must be wrong")
    for row, reason in reasons.items():
        scan.leave_out(images["path"][row], reason)
    scan.duplicates += len(copied - set(reasons))
    return images.drop(index=[*copied, *reasons]).reset_index(drop=True)


def full_set(magnification: int | None, target: str) -> FullSet:
    """Counts of the whole archive, at one magnification or at all, by class or by subtype.

    Examples
    --------
    >>> full_set(40, "malignant").class_counts
    {'benign': 625, 'malignant': 1370}
    >>> full_set(None, "subtype").n_patches
    7909
    """
    columns = range(4) if magnification is None else [MAGNIFICATIONS.index(magnification)]
    counts: dict[str, int] = {}
    for subtype, images in zip(SUBTYPES, _IMAGES, strict=True):
        name = subtype.word if target == "subtype" else CLASSES[subtype.malignant]
        counts[name] = counts.get(name, 0) + sum(images[column] for column in columns)
    return FullSet(sum(counts.values()), _PUBLISHED_PATIENTS, counts)


@dataclass(frozen=True)
class BreakHisAudit(DatasetAudit):
    """What a copy of BreakHis holds and what the loader did to it.

    Parameters
    ----------
    magnification_counts : mapping of str to int
        Images at each magnification, ``"40X"`` to ``"400X"``.
    patient_counts : mapping of str to int
        How many patients these are: by ``"number"`` (22549), by ``"full id"`` (22549AB), and ``"as published"``, which
        counts each slide id under each of its subtypes.
    mixed_patients : mapping of str to tuple of str
        Patient numbers whose slides are of more than one subtype, with these subtypes.
    two_labels : mapping of str to tuple of str
        Slides that lie in the folders of two subtypes, with these subtypes.
    duplicates_rule : {"refuse", "drop", "published"}
        What was to be done with images that are there twice.
    found : FullSet, optional
        What was there before that rule: compared with the full set. None for a choice of rows.

    Notes
    -----
    The other parameters are those of `DatasetAudit`.
    """

    magnification_counts: Mapping[str, int] = field(default_factory=dict)
    patient_counts: Mapping[str, int] = field(default_factory=dict)
    mixed_patients: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    two_labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    duplicates_rule: str = "refuse"
    found: FullSet | None = None

    @classmethod
    def of(cls, frame: pd.DataFrame, target_names: tuple[str, ...], name: str, **facts: Any) -> BreakHisAudit:
        """Count the rows of the loader's table; `facts` is what cannot be counted from it."""
        return cls.from_frame(frame, target_names, name, **_counts(frame), **facts)

    def restricted_to(self, frame: pd.DataFrame) -> BreakHisAudit:
        """Count again for chosen rows; what was found in the folder stays."""
        return replace(super().restricted_to(frame), **_counts(frame), found=None)

    def with_names(self, names: Mapping[str, str]) -> BreakHisAudit:
        """Counts of the full set, and of what was found, under the names that the classes have now."""
        renamed = super().with_names(names)
        return renamed if self.found is None else replace(renamed, found=self.found.with_names(names))

    @property
    def _compared(self) -> FullSet:
        """What was found, or what is there with patients counted as published."""
        return self.found or FullSet(self.n_patches, self.patient_counts["as published"], self.class_counts)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        return {name: value for name, value in super().to_dict().items() if name != "found"}

    def summary(self) -> str:
        """Lines that read as plain text and as a Markdown list."""
        head, *rest = super().summary().split("\n")
        by = ", ".join(
            f"{n:,} {'by ' if kind != 'as published' else ''}{kind}" for kind, n in self.patient_counts.items()
        )
        lines = [f"images: {', '.join(f'{n:,} at {name}' for name, n in self.magnification_counts.items())}"]
        lines.append(f"patients: {by}")
        if self.mixed_patients:
            lines.append(f"patients with slides of two subtypes: {_listed(self.mixed_patients)}")
        if self.two_labels:
            lines.append(f"slides under two labels ({self.duplicates_rule}): {_listed(self.two_labels)}")
        return "\n".join([head, *(f"- {line}" for line in lines), *rest])


def _listed(words_of: Mapping[str, tuple[str, ...]]) -> str:
    return "; ".join(f"{name}: {' and '.join(words)}" for name, words in words_of.items())


def _counts(frame: pd.DataFrame) -> dict[str, Any]:
    """The fields of a BreakHisAudit that the table itself determines."""
    numbers = frame["slide"].str.extract(r"^([0-9]+)", expand=False)
    slides = pd.DataFrame({"number": numbers, "slide": frame["slide"], "subtype": frame["subtype"]}).drop_duplicates()
    kinds = slides.groupby("number", sort=False)["subtype"].agg(lambda words: tuple(dict.fromkeys(words)))
    same = slides.groupby("slide")["subtype"].transform("nunique") > 1
    # A slide under two labels is another matter than two slides with a label each.
    of_two = set(slides.loc[same, "number"])
    at = frame["magnification"].value_counts()
    return {
        "magnification_counts": {f"{power}X": int(at.get(power, 0)) for power in MAGNIFICATIONS},
        "patient_counts": {
            "number": int(numbers.nunique()),
            "full id": int(frame["slide"].nunique()),
            "as published": len(slides),
        },
        "mixed_patients": {number: words for number, words in kinds.items() if len(words) > 1 and number not in of_two},
    }
