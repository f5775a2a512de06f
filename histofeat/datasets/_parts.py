"""Train, validation and test: a split of a data set as a record, and the published split of the IDC patients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histofeat.datasets._csv_rows import read_csv_rows
from histofeat.exceptions import DatasetError, check_name, check_that, counted
from histofeat.model_selection import canonical_patient, canonical_patients

PARTS = ("train", "validation", "test")
_ROLES = (*PARTS, "unlisted")
_OFFICIAL = Path(__file__).with_name("idc_official_split.csv")
_ALIASES = {"training": "train", "val": "validation", "valid": "validation", "testing": "test"}


def part_named(name: str) -> str | None:
    """Part that the name of a folder or a cell stands for, in any case; None for any other name.

    Examples
    --------
    >>> part_named("Val"), part_named("train"), part_named("benign")
    ('validation', 'train', None)
    """
    low = name.lower()
    return low if low in PARTS else _ALIASES.get(low)


@dataclass(frozen=True, eq=False)
class DatasetSplit:
    """Rows of a data set by part, and what the split reached.

    Parameters
    ----------
    name : str
        Name of the data set.
    train, validation, test : ndarray of int64, shape (n_rows_of_part,)
        Sorted row numbers; empty where there is no such part.
    patients : mapping of str to tuple of str
        Per part, the ids of its patients.
    class_counts : mapping of str to mapping of str to int
        Per part, the images of each class.
    asked : mapping of str to float
        Per part, the share that was asked for; empty where the parts were given with the data.
    random_state : int or None
        Seed; None where there was none.
    written_to : Path or None
        Folder or CSV that holds the split; None where nothing was written.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    patients: Mapping[str, tuple[str, ...]]
    class_counts: Mapping[str, Mapping[str, int]]
    asked: Mapping[str, float]
    random_state: int | None = None
    written_to: Path | None = None

    @classmethod
    def from_parts(cls, dataset: Any, parts: Any, **facts: Any) -> DatasetSplit:
        """Sort the rows of a data set into parts.

        Parameters
        ----------
        dataset : PatchDataset
        parts : array-like of str, shape (n,)
            "train", "validation" or "test" for each row.
        **facts
            ``asked``, ``random_state`` and ``written_to``.
        """
        parts = np.asarray(parts, dtype=object)
        rows = {part: np.flatnonzero(parts == part) for part in PARTS}
        y, patients, names = dataset.y, dataset.patients, dataset.target_names
        return cls(
            name=dataset.name,
            **rows,
            patients={part: in_id_order(patients[rows[part]]) for part in PARTS},
            class_counts={
                part: {name: int(np.sum(y[rows[part]] == code)) for code, name in enumerate(names)} for part in PARTS
            },
            **({"asked": {}} | facts),
        )

    def __len__(self) -> int:
        return sum(len(getattr(self, part)) for part in PARTS)

    def __repr__(self) -> str:
        parts = (
            f"{part}={counted(len(getattr(self, part)), 'image')} of {counted(len(self.patients[part]), 'patient')}"
            for part in PARTS
        )
        return f"DatasetSplit({self.name!r}, {', '.join(parts)})"

    @property
    def parts(self) -> np.ndarray:
        """Part of each row, ndarray of str objects, shape (n,)."""
        parts = np.empty(len(self), dtype=object)
        for part in PARTS:
            parts[getattr(self, part)] = part
        return parts

    @property
    def shared_patients(self) -> tuple[str, ...]:
        """Patients who are in more than one part; none after `split_dataset`."""
        seen = [set(self.patients[part]) for part in PARTS]
        return in_id_order((seen[0] & seen[1]) | (seen[0] & seen[2]) | (seen[1] & seen[2]))

    @property
    def reached(self) -> Mapping[str, Mapping[str, Any]]:
        """Per part, its share of the images, of the patients (of all parts together) and of each class, 0 to 1."""
        n_patients = len(set().union(*self.patients.values()))
        totals = {name: sum(self.class_counts[part][name] for part in PARTS) for name in self.class_counts["train"]}
        return {
            part: {
                "images": len(getattr(self, part)) / len(self),
                "patients": len(self.patients[part]) / n_patients,
                "classes": {name: self.class_counts[part][name] / n if n else 0.0 for name, n in totals.items()},
            }
            for part in PARTS
        }

    def as_cv(self, test: str = "test") -> list[tuple[np.ndarray, np.ndarray]]:
        """One (training rows, test rows) pair, for any ``cv=`` argument.

        Parameters
        ----------
        test : {"test", "validation"}, default="test"
            Part that reports. With "test", the validation part belongs to the training side; with "validation", the
            test part is left out.

        Raises
        ------
        DatasetError
            When `test` is another part, or a side has no image.

        Notes
        -----
        Whether a patient is on both sides is for `histofeat.evaluate` to find (HF001), which refuses such a split.
        """
        check_name("DatasetSplit.as_cv.test", test, ("test", "validation"), error=DatasetError)
        fit = self.train if test == "validation" else np.sort(np.concatenate([self.train, self.validation]))
        tested = getattr(self, test)
        remedy = "Name the part that reports by test=, or make a split with split_dataset."
        for side, rows in (("train", fit), (test, tested)):
            expected = f"images in the part {side!r}"
            check_that("DatasetSplit.as_cv", len(rows), len(rows), expected, remedy, error=DatasetError)
        return [(fit.copy(), tested.copy())]

    def summary(self) -> str:
        """One line a part, as plain text and as a Markdown list."""
        lines = []
        for part, reached in self.reached.items():
            n_images, counts, shares = len(getattr(self, part)), self.class_counts[part], reached["classes"]
            if n_images:
                asked = f" of {100 * self.asked[part]:.1f} % asked for" if part in self.asked else ""
                classes = ", ".join(f"{n:,} {name} ({100 * shares[name]:.1f} %)" for name, n in counts.items())
                lines.append(
                    f"- {part}: {counted(n_images, 'image')} ({100 * reached['images']:.1f} %{asked}) of "
                    f"{counted(len(self.patients[part]), 'patient')} ({100 * reached['patients']:.1f} %): {classes}"
                )
        return "\n".join(lines)


def predefined_split(dataset: Any) -> DatasetSplit:
    """Give the split that came with a data set, from its column ``part``.

    Parameters
    ----------
    dataset : PatchDataset
        As from `load_image_folder` or `load_manifest`.

    Returns
    -------
    DatasetSplit
        ``predefined_split(dataset).as_cv()`` goes into any ``cv=``.

    Raises
    ------
    DatasetError
        When there is no column ``part``, or it holds another value.

    Examples
    --------
    >>> import pandas as pd
    >>> from histofeat.datasets import PatchDataset
    >>> table = {"path": ["a", "b"], "label": [0, 1], "patient": ["7", "9"], "x": pd.NA, "y": pd.NA}
    >>> frame = pd.DataFrame(table | {"part": ["train", "test"]})
    >>> predefined_split(PatchDataset(frame, ("benign", "malignant"), "mine")).as_cv()
    [(array([0]), array([1]))]
    """
    if "part" not in dataset.frame.columns:
        raise DatasetError(
            f"predefined_split: expected a column 'part' in the table of {dataset.name!r}, got none. "
            "Load folders named train, validation and test, or make a split with split_dataset."
        )
    parts = dataset.frame["part"].to_numpy(dtype=object)
    other = [row for row, part in enumerate(parts) if part not in PARTS]
    if other:
        raise DatasetError(
            f"predefined_split: expected {', '.join(PARTS)} in the column 'part', got {parts[other[0]]!r} in row "
            f"{other[0]} ({len(other):,} such rows). Correct it."
        )
    return DatasetSplit.from_parts(dataset, parts)


def in_id_order(patients: Iterable[str]) -> tuple[str, ...]:
    """Distinct patients, the shortest ids first.

    Examples
    --------
    >>> in_id_order(["10", "9", "10"])
    ('9', '10')
    """
    return tuple(sorted(set(patients), key=lambda patient: (len(patient), patient)))


@dataclass(frozen=True, eq=False)
class OfficialSplit:
    """Rows of an IDC data set by the published role of their patient.

    Parameters
    ----------
    train, validation, test : ndarray of int64, shape (n_rows_of_role,)
        Sorted row numbers.
    unlisted : ndarray of int64
        Rows of the patients who ship with the data but have no role in the published split.
    missing : mapping of str to tuple of str
        Per role, the patients of the published split without a patch in this copy.
    n_patients : mapping of str to int
        Per role, and for "unlisted", the patients who are here.

    Notes
    -----
    The lists are those of Cruz-Roa et al. 2014 (https://doi.org/10.1117/12.2043872) and Janowczyk and Madabhushi
    2016 (https://doi.org/10.4103/2153-3539.186902). The 49 patients are a test set: nothing is tuned on them.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    unlisted: np.ndarray
    missing: Mapping[str, tuple[str, ...]]
    n_patients: Mapping[str, int]

    def __repr__(self) -> str:
        parts = (f"{role}={len(getattr(self, role)):,} patches of {self.n_patients[role]} patients" for role in _ROLES)
        return f"OfficialSplit({', '.join(parts)}, missing={dict(self.missing)})"

    def as_cv(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """One (train and validation rows, test rows) pair, for any ``cv=`` argument.

        Raises
        ------
        DatasetError
            When this copy has no patch on one of the two sides.
        """
        fit = np.sort(np.concatenate([self.train, self.validation]))
        remedy = "Load the whole data set, or use PatientKFold on what is there."
        for side, rows in (("train or validation", fit), ("test", self.test)):
            check_that(
                "OfficialSplit", len(rows), len(rows), f"patches of the {side} patients", remedy, error=DatasetError
            )
        return [(fit, self.test.copy())]

    def to_dict(self) -> dict[str, Any]:
        """Counts and missing patients as plain JSON types, for reports."""
        return {
            role: {
                "n_patches": len(getattr(self, role)),
                "n_patients": self.n_patients[role],
                "missing_patients": list(self.missing.get(role, ())),
            }
            for role in _ROLES
        }


def official_roles() -> dict[str, str]:
    """Role ("train", "validation" or "test") of each of the 162 patients of the published IDC split.

    Examples
    --------
    >>> from collections import Counter
    >>> sorted(Counter(official_roles().values()).items())
    [('test', 49), ('train', 84), ('validation', 29)]
    """
    table = read_csv_rows(_OFFICIAL, ("patient", "role"), owner="official_roles")
    return {row["patient"]: row["role"] for row in table.rows}


def split_by_role(patients: np.ndarray, roles: Mapping[str, str]) -> OfficialSplit:
    """Sort rows into the roles of their patients.

    Parameters
    ----------
    patients : ndarray of str, shape (n,)
        Patient of each row.
    roles : mapping of str to str
        Patient to role, as from `official_roles`.
    """
    patients = canonical_patients(patients)
    roles = {canonical_patient(patient): role for patient, role in roles.items()}
    rows = {role: np.flatnonzero([roles.get(p, "unlisted") == role for p in patients]) for role in _ROLES}
    present = set(patients)
    return OfficialSplit(
        **rows,
        missing={role: tuple(p for p, its in roles.items() if its == role and p not in present) for role in PARTS},
        n_patients={role: len(set(patients[rows[role]])) for role in _ROLES},
    )
