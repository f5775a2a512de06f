"""`BreakHisAudit`: counts of a copy of BreakHis by patient number, by slide id and as published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from histofeat.datasets.audit import DatasetAudit, FullSet, NotedAudit, add_up
from histofeat.datasets.breakhis.tree import CLASSES, MAGNIFICATIONS, SUBTYPES

__all__ = ["NOMINAL_SIZE", "BreakHisAudit", "full_set"]

NOMINAL_SIZE = (460, 700)

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
class BreakHisAudit(NotedAudit):
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
        if self.found is None:
            return renamed
        return replace(renamed, found=replace(self.found, class_counts=add_up(self.found.class_counts, names)))

    @property
    def is_complete(self) -> bool | None:
        """Whether every count of what was found equals the full set's; None where no full set is known."""
        return self._as_published().is_complete

    @property
    def completeness(self) -> str:
        """One phrase that compares what was found with the published set, patients counted as published."""
        return self._as_published().completeness

    def _as_published(self) -> DatasetAudit:
        found = self.found or FullSet(self.n_patches, self.patient_counts["as published"], self.class_counts)
        return DatasetAudit(
            self.name,
            found.n_patches,
            found.n_patients,
            found.class_counts,
            self.patches_per_patient,
            self.patients_without,
            full_set=self.full_set,
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        return super().to_dict() | {
            "magnification_counts": dict(self.magnification_counts),
            "patient_counts": dict(self.patient_counts),
            "mixed_patients": {number: list(words) for number, words in self.mixed_patients.items()},
            "two_labels": {slide: list(words) for slide, words in self.two_labels.items()},
            "duplicates_rule": self.duplicates_rule,
        }

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
