"""Audit of a data set on disk: counts, sizes, duplicates, files left out, completeness, notes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from histofeat.datasets._image_files import Scan, content_notes, fold_case
from histofeat.datasets._parts import in_id_order
from histofeat.exceptions import DatasetError, and_more, counted
from histofeat.images import check_mpp
from histofeat.model_selection import look_alikes

# Enough to find the culprit by hand; more would drown a report when a whole archive is foreign.
_MAX_EXAMPLES = 3


@dataclass(frozen=True)
class LeftOut:
    """Files or folders that were left out of a data set for one reason.

    Parameters
    ----------
    reason : str
        Why, as the end of the sentence "left out because it ...".
    count : int
        How many entries.
    examples : tuple of str
        The first of them in name order, relative to the root of the data set, at most three.
    """

    reason: str
    count: int
    examples: tuple[str, ...]

    @classmethod
    def group(cls, offenders: Iterable[tuple[str, str]]) -> tuple[LeftOut, ...]:
        """Group (reason, relative path) pairs by reason, the most frequent reason first.

        Examples
        --------
        >>> LeftOut.group([("is empty", "b.png"), ("is empty", "a.png")])
        (LeftOut(reason='is empty', count=2, examples=('a.png', 'b.png')),)
        """
        paths: dict[str, list[str]] = {}
        for reason, path in offenders:
            paths.setdefault(reason, []).append(path)
        groups = [cls(reason, len(p), tuple(sorted(p)[:_MAX_EXAMPLES])) for reason, p in paths.items()]
        return tuple(sorted(groups, key=lambda group: (-group.count, group.reason)))

    def __str__(self) -> str:
        more = f" and {self.count - len(self.examples):,} more" if self.count > len(self.examples) else ""
        return f"{self.reason}: {self.count:,} ({', '.join(self.examples)}{more})"


@dataclass(frozen=True)
class FullSet:
    """The known size of a published data set, to name an incomplete copy as such.

    Parameters
    ----------
    n_patches, n_patients : int
        Counts of the whole set, without duplicates.
    class_counts : mapping of str to int
        Patches per class name.
    """

    n_patches: int
    n_patients: int
    class_counts: Mapping[str, int]

    def with_names(self, names: Mapping[str, str]) -> FullSet:
        """Counts of merged classes, from old name to new name, in the order of the first; other classes are dropped.

        Examples
        --------
        >>> names = {"A": "other", "F": "F", "PT": "other"}
        >>> FullSet(8, 3, {"A": 2, "F": 5, "PT": 1, "TA": 0}).with_names(names).class_counts
        {'other': 3, 'F': 5}
        """
        total: dict[str, int] = {}
        for name, count in self.class_counts.items():
            if name in names:
                total[names[name]] = total.get(names[name], 0) + count
        return replace(self, class_counts=total)


@dataclass(frozen=True)
class DatasetAudit:
    """What a data set holds and what a loader did to it; immutable, for reports.

    Parameters
    ----------
    name : str
        Name of the data set.
    n_patches, n_patients : int
        What is there after de-duplication.
    class_counts : mapping of str to int
        Patches per class, in the order of the labels; a class without a patch counts 0.
    patches_per_patient : tuple of (int, float, int)
        Smallest, median and largest number of patches of one patient.
    patients_without : mapping of str to tuple of str
        For each class, the patients who have no patch of it.
    size_counts : mapping of (height, width) to int
        Patches per size in pixels, as their file headers say, the most frequent first; empty when unknown.
    nominal_size : tuple of (height, width), optional
        The size that the data set is published with.
    duplicates : int
        Files not used because another file is the same patch.
    left_out : tuple of LeftOut
        Files and folders that are no usable patch, by reason.
    failures : tuple of (str, str)
        Path, relative to the root, and reason of every file among these that should be an image and cannot be read.
    full_set : FullSet, optional
        The known counts of the whole set; None where there is no such thing.
    subset_of : int, optional
        Number of patches of the data set from which these rows were chosen.
    notes : tuple of str
        Whole sentences, in the order in which things were done.
    positive : str, optional
        The positive class of two; None with more.
    """

    name: str
    n_patches: int
    n_patients: int
    class_counts: Mapping[str, int]
    patches_per_patient: tuple[int, float, int]
    patients_without: Mapping[str, tuple[str, ...]]
    size_counts: Mapping[tuple[int, int], int] = field(default_factory=dict)
    nominal_size: tuple[int, int] | None = None
    duplicates: int = 0
    left_out: tuple[LeftOut, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()
    full_set: FullSet | None = None
    subset_of: int | None = None
    notes: tuple[str, ...] = ()
    positive: str | None = None

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, target_names: Sequence[str], name: str, **facts: Any) -> DatasetAudit:
        """Count the rows of a data set's table.

        Parameters
        ----------
        frame : DataFrame
            Columns ``label`` and ``patient``; ``height`` and ``width`` where sizes are known.
        target_names : sequence of str
            Class names; a label is an index into them.
        name : str
            Name of the data set.
        **facts
            What cannot be counted from the table: ``nominal_size``, ``duplicates``, ``left_out``, ``failures``,
            ``full_set``.
        """
        return cls(name=name, **_counts(frame, tuple(target_names)), **facts)

    def restricted_to(self, frame: pd.DataFrame) -> DatasetAudit:
        """Count again for chosen rows; duplicates and files left out stay: they are facts of the folder."""
        whole = self.subset_of if self.subset_of is not None else self.n_patches
        return replace(self, **_counts(frame, tuple(self.class_counts)), subset_of=whole)

    def with_names(self, names: Mapping[str, str]) -> DatasetAudit:
        """Counts of the full set under the names that its classes have now."""
        full = self.full_set
        return self if full is None else replace(self, full_set=full.with_names(names))

    def with_positive(self, positive: str | None) -> DatasetAudit:
        """Name the positive class, with a note where it is not the last of the class names."""
        note = f"The positive class is {positive!r}, the first of the class names, whose order stays as it is."
        last = positive is None or list(self.class_counts)[-1] == positive
        notes = tuple(each for each in self.notes if not each.startswith("The positive class is "))
        return replace(self, positive=positive, notes=notes if last else (*notes, note))

    @property
    def n_nominal_size(self) -> int | None:
        """Patches of exactly the nominal size; None where sizes are unknown or none is nominal."""
        return self._n_of_size(lambda size, nominal: size == nominal)

    @property
    def n_smaller(self) -> int | None:
        """Patches with a side below the nominal size; None where sizes are unknown."""
        return self._n_of_size(lambda size, nominal: size[0] < nominal[0] or size[1] < nominal[1])

    def _n_of_size(self, chosen: Callable[[tuple[int, int], tuple[int, int]], bool]) -> int | None:
        if self.nominal_size is None or not self.size_counts:
            return None
        return sum(n for size, n in self.size_counts.items() if chosen(size, self.nominal_size))

    @property
    def is_complete(self) -> bool | None:
        """Whether every count equals the full set's; None where no full set is known."""
        return None if self.full_set is None else self._compared == self.full_set

    @property
    def completeness(self) -> str:
        """One phrase that compares this copy with the known full set.

        Examples
        --------
        ``"incomplete: 12,738 of 277,524 patches (4.6 %), 239 of 279 patients"``
        """
        full, here = self.full_set, self._compared
        if full is None:
            return "not applicable: no full set is known"
        if self.is_complete:
            return "complete"
        fewer = here.n_patches < full.n_patches or here.n_patients < full.n_patients
        return (
            f"{'incomplete' if fewer else 'not the known set'}: "
            f"{here.n_patches:,} of {full.n_patches:,} patches ({100 * here.n_patches / full.n_patches:.1f} %), "
            f"{here.n_patients:,} of {full.n_patients:,} patients"
        )

    @property
    def _compared(self) -> FullSet:
        """What is compared with the full set."""
        return FullSet(self.n_patches, self.n_patients, self.class_counts)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types, for ``metrics.json``; of patients without a class the number."""
        smallest, median, largest = self.patches_per_patient
        facts = asdict(self)
        del facts["size_counts"], facts["duplicates"]
        return facts | {
            "patches_per_patient": {"min": smallest, "median": median, "max": largest},
            "patients_without": {name: {"n": len(patients)} for name, patients in self.patients_without.items()},
            "sizes": [{"height": h, "width": w, "n": n} for (h, w), n in self.size_counts.items()],
            "nominal_size": None if self.nominal_size is None else list(self.nominal_size),
            "n_nominal_size": self.n_nominal_size,
            "n_smaller": self.n_smaller,
            "duplicates_removed": self.duplicates,
            "left_out": [
                {"reason": group.reason, "n": group.count, "examples": list(group.examples)} for group in self.left_out
            ],
            "failures": [{"path": path, "reason": reason} for path, reason in self.failures],
            "complete": self.is_complete,
            "completeness": self.completeness,
            "notes": list(self.notes),
        }

    def summary(self) -> str:
        """Lines that read as plain text and as a Markdown list."""
        classes = ", ".join(f"{n:,} {name}" for name, n in self.class_counts.items())
        smallest, median, largest = self.patches_per_patient
        positive = "" if self.positive is None else f"; positive class: {self.positive}"
        size = f"{counted(self.n_patches, 'patch')} of {counted(self.n_patients, 'patient')}"
        lines = [
            f"{self.name}: {size} ({classes}){positive}",
            f"patches per patient: {smallest:,} to {largest:,}, median {median:g}",
        ]
        if self.subset_of is not None:
            lines.append(f"a selection from {counted(self.subset_of, 'patch')}")
        if self.full_set is not None:
            lines.append(f"against the published set: {self.completeness}")
        lines += [
            f'patients without a patch of class "{name}": {len(patients):,}'
            for name, patients in self.patients_without.items()
            if patients
        ]
        if self.size_counts:
            lines.append(self._size_line())
        lines.append(f"duplicates removed: {self.duplicates:,}")
        lines += [f"left out, {group}" for group in self.left_out] or ["left out: nothing"]
        lines += self.notes
        return "\n".join(f"- {line}" for line in lines)

    def _size_line(self) -> str:
        heights, widths = zip(*self.size_counts, strict=True)
        smallest = min(self.size_counts, key=lambda size: (size[0] * size[1], size))
        span = f"{min(heights)} to {max(heights)} px high, {min(widths)} to {max(widths)} px wide"
        if self.nominal_size is None:
            return f"sizes: {len(self.size_counts):,} different, {span}"
        height, width = self.nominal_size
        least = f" (down to {smallest[0]}x{smallest[1]})" if self.n_smaller else ""
        return (
            f"sizes: {self.n_nominal_size:,} of {height}x{width} px, {self.n_smaller:,} smaller{least}, "
            f"{self.n_patches - self.n_nominal_size - self.n_smaller:,} larger; height x width"
        )


def facts_of(scan: Scan) -> dict[str, Any]:
    """What a walk over a folder found beside the images, for `DatasetAudit.from_frame`."""
    left_out, failures = LeftOut.group(scan.left_out), tuple(scan.failures)
    return {"duplicates": scan.duplicates, "left_out": left_out, "failures": failures}


def _counts(frame: pd.DataFrame, target_names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a DatasetAudit that the table itself determines."""
    table = pd.crosstab(frame["patient"], frame["label"]).reindex(columns=range(len(target_names)), fill_value=0)
    per_patient = table.sum(axis=1)
    sizes: dict[tuple[int, int], int] = {}
    if {"height", "width"} <= set(frame.columns):
        counted = frame.groupby(["height", "width"]).size().items()
        sizes = {(int(h), int(w)): int(n) for (h, w), n in sorted(counted, key=lambda item: (-item[1], item[0]))}
    return {
        "n_patches": len(frame),
        "n_patients": len(table),
        "class_counts": {name: int(table[code].sum()) for code, name in enumerate(target_names)},
        "patches_per_patient": (int(per_patient.min()), float(per_patient.median()), int(per_patient.max())),
        "patients_without": {name: in_id_order(table.index[table[c] == 0]) for c, name in enumerate(target_names)},
        "size_counts": sizes,
    }


def one_scale(frame: pd.DataFrame, mpp: float | None) -> float | None:
    """Micrometres per pixel of all rows: those of a column ``mpp``, else `mpp`; None where rows differ or lack it."""
    found = np.unique(check_mpp("PatchDataset.mpp", frame.get("mpp", mpp), len(frame), error=DatasetError))
    return None if len(found) > 1 or np.isnan(found[0]) else float(found[0])


def table_notes(frame: pd.DataFrame, names: Sequence[str], target_names: Sequence[str]) -> tuple[str, ...]:
    """Note patients in several parts, classes that a part lacks, names that look alike, and equal files.

    Parameters
    ----------
    frame : DataFrame
        Columns ``path``, ``label`` and ``patient``, and ``part`` where there is one.
    names : sequence of str, one a row
        What a note calls the image.
    target_names : sequence of str

    Returns
    -------
    notes : tuple of str
    """
    notes = []
    if "part" in frame.columns:
        notes += _part_notes(frame, target_names)
    groups = _alike(names)
    if groups:
        notes.append(
            f"Names of images that differ only in case: {groups[0][0]!r} and {groups[0][1]!r}{and_more(len(groups))}. "
            "They are taken for different images; some file systems cannot hold both."
        )
    groups = [] if list(frame["patient"]) == list(names) else look_alikes(frame["patient"])
    if groups:
        notes.append(
            f"Patient ids that differ only in case, zeros or dashes: {' and '.join(map(repr, groups[0]))}"
            f"{and_more(len(groups))}. They count as different patients; evaluate refuses them (HF009)."
        )
    return (*notes, *content_notes(frame, names))


def _part_notes(frame: pd.DataFrame, target_names: Sequence[str]) -> list[str]:
    notes = []
    parts = frame.groupby("patient")["part"].nunique()
    shared = in_id_order(parts.index[parts > 1])
    if shared:
        notes.append(
            f"Patients in more than one part: {len(shared):,} of {len(parts):,}, the first is {shared[0]!r}. Scores on "
            "this split are too good; evaluate refuses it (HF001). Split by patient with split_dataset."
        )
    for part, rows in frame.groupby("part", sort=False):
        lost = [name for code, name in enumerate(target_names) if code not in set(rows["label"])]
        if lost:
            notes.append(f"The part {part!r} has no image of class {', '.join(map(repr, lost))}.")
    return notes


def _alike(values: Iterable[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for value in values:
        groups.setdefault(fold_case(value), []).append(value)
    return [sorted(group) for group in groups.values() if len(group) > 1]
