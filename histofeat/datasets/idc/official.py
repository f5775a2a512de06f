"""The published split of the IDC patients: 84 train, 29 validation, 49 test; 117 more have no official role."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from histofeat.exceptions import DatasetError

__all__ = ["OfficialSplit", "official_roles", "split_by_role"]

_ROLES = ("train", "validation", "test")


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
        parts = (
            f"{role}={len(getattr(self, role)):,} patches of {self.n_patients[role]} patients"
            for role in (*_ROLES, "unlisted")
        )
        return f"OfficialSplit({', '.join(parts)}, missing={dict(self.missing)})"

    def as_cv(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """One (train and validation rows, test rows) pair, for any ``cv=`` argument.

        Raises
        ------
        DatasetError
            When this copy has no patch on one of the two sides.
        """
        fit = np.sort(np.concatenate([self.train, self.validation]))
        for side, rows in (("train or validation", fit), ("test", self.test)):
            if not len(rows):
                raise DatasetError(
                    f"OfficialSplit: expected patches of the {side} patients, got 0 in this copy. "
                    "Load the whole data set, or use PatientKFold on what is there."
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
            for role in (*_ROLES, "unlisted")
        }


def official_roles() -> dict[str, str]:
    """Role ("train", "validation" or "test") of each of the 162 patients of the published IDC split.

    Examples
    --------
    >>> from collections import Counter
    >>> sorted(Counter(official_roles().values()).items())
    [('test', 49), ('train', 84), ('validation', 29)]
    """
    text = resources.files("histofeat.datasets.idc").joinpath("idc_official_split.csv").read_text(encoding="utf-8")
    return {row["patient"]: row["role"] for row in csv.DictReader(text.splitlines())}


def split_by_role(patients: np.ndarray, roles: Mapping[str, str]) -> OfficialSplit:
    """Sort rows into the roles of their patients.

    Parameters
    ----------
    patients : ndarray of str, shape (n,)
        Patient of each row.
    roles : mapping of str to str
        Patient to role, as from `official_roles`.
    """
    names, codes = np.unique(patients.astype(str), return_inverse=True)
    role_of = np.array([roles.get(name, "unlisted") for name in names])
    row_roles = role_of[codes]
    present = set(names)
    return OfficialSplit(
        **{role: np.flatnonzero(row_roles == role) for role in (*_ROLES, "unlisted")},
        missing={
            role: tuple(p for p, its_role in roles.items() if its_role == role and p not in present) for role in _ROLES
        },
        n_patients={role: int(np.sum(role_of == role)) for role in (*_ROLES, "unlisted")},
    )
