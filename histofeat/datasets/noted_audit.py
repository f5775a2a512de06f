"""`NotedAudit`: a `DatasetAudit` with sentences about what was done to the data set after it was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import pandas as pd

from histofeat.datasets.audit import DatasetAudit

__all__ = ["NotedAudit", "add_up", "with_merged_classes"]


@dataclass(frozen=True)
class NotedAudit(DatasetAudit):
    """What a data set holds, with notes.

    Parameters
    ----------
    notes : tuple of str
        Whole sentences, in the order in which things were done.

    Notes
    -----
    The other parameters are those of `DatasetAudit`.
    """

    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types, with the notes."""
        return super().to_dict() | {"notes": list(self.notes)}

    def summary(self) -> str:
        """Lines that read as plain text and as a Markdown list."""
        return "\n".join([super().summary(), *(f"- {note}" for note in self.notes)])

    def with_names(self, names: Mapping[str, str]) -> NotedAudit:
        """Counts of the full set under the names that its classes have now."""
        full = self.full_set
        if full is None:
            return self
        return replace(self, full_set=replace(full, class_counts=add_up(full.class_counts, names)))


def add_up(counts: Mapping[str, int], names: Mapping[str, str]) -> dict[str, int]:
    """Counts of classes that were merged: old name to new name, in the order of the first; classes without one go.

    Examples
    --------
    >>> add_up({"A": 2, "F": 5, "PT": 1}, {"A": "other", "F": "F", "PT": "other"})
    {'other': 3, 'F': 5}
    """
    total: dict[str, int] = {}
    for name, count in counts.items():
        if name not in names:
            continue
        total[names[name]] = total.get(names[name], 0) + count
    return total


def with_merged_classes(
    audit: DatasetAudit, frame: pd.DataFrame, target_names: tuple[str, ...], names: Mapping[str, str], note: str
) -> NotedAudit:
    """Audit of a data set whose classes were merged.

    Parameters
    ----------
    audit : DatasetAudit
        Of the data set before.
    frame : DataFrame
        The rows with their new labels.
    target_names : tuple of str
        The classes now.
    names : mapping of str to str
        Old class name to new one, for every old class that is not left out.
    note : str
        What was done, as a sentence.
    """
    if not isinstance(audit, NotedAudit):
        audit = NotedAudit(**{field.name: getattr(audit, field.name) for field in fields(DatasetAudit)})
    counted = DatasetAudit.from_frame(frame, target_names, audit.name)
    return replace(
        audit.with_names(names),
        class_counts=counted.class_counts,
        patients_without=counted.patients_without,
        notes=(*audit.notes, note),
    )
