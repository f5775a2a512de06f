"""Features of more patches than memory holds: a folder of shards, one a patient, read by blocks of rows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histofeat.datasets._audit import DatasetAudit, LeftOut
from histofeat.datasets._base import PatchDataset, check_rows
from histofeat.datasets._writing import write_whole
from histofeat.exceptions import DAMAGED, DatasetError, counted, first_line

#: The list of all shards; of each its record, its features and what is known of its patches.
_LIST, _RECORD, _FEATURES, _PATCHES = "shards.json", "shard.json", "features.npy", "patches.parquet"
_AGAIN = "run the same `histofeat extract` again: only what is missing is measured."


@dataclass(frozen=True, eq=False)
class ShardColumns:
    """Columns (n, d), float32, of shards on disk; rows are read when they are asked for, each file mapped for as long.

    It has what `PatchDataset` needs of a DataFrame. ``columns[rows]`` gives an array of these rows, ``take(rows)`` the
    same kind of columns, of which nothing is read.

    Parameters
    ----------
    files : tuple of Path
        Arrays of NumPy with all columns, one a shard.
    starts : ndarray of shape (n_shards + 1,), int64
        The first row of each shard among all; last their number.
    columns : Index of shape (d,)
        Names of the columns.
    checksums : tuple of str
        Of the content of each file: what a hash of the columns stands on.
    rows : ndarray of shape (n,), int64, optional
        Which of all rows these are; by default all of them.
    """

    files: tuple[Path, ...]
    starts: np.ndarray
    columns: pd.Index
    checksums: tuple[str, ...]
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.starts[-1]) if self.rows is None else len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self), len(self.columns)

    def take(self, rows: Any, axis: int = 0) -> ShardColumns:
        """Choose rows, by numbers from 0; nothing is read."""
        rows = np.asarray(rows, dtype=np.int64)
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    def reset_index(self, drop: bool = True) -> ShardColumns:
        """Give the columns themselves: their rows are always numbered from 0."""
        return self

    def rename_axis(self, columns: str) -> ShardColumns:
        """Give the columns another name."""
        return replace(self, columns=self.columns.rename(columns))

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Read rows: numbers from 0, a mask or a slice."""
        chosen = np.arange(len(self), dtype=np.int64)[rows]
        chosen = chosen if self.rows is None else self.rows[chosen]
        found = np.empty((len(chosen), len(self.columns)), dtype=np.float32)
        shard = np.searchsorted(self.starts, chosen, side="right") - 1
        order = np.argsort(shard, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(shard[order])) + 1) if len(order) else ():
            number = shard[part[0]]
            # The mapping ends with the line: pages of files that stay mapped would count as memory of the process.
            found[part] = np.load(self.files[number], mmap_mode="r")[chosen[part] - self.starts[number]]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float32, copy=False)

    def to_frame(self) -> pd.DataFrame:
        """Read all rows as a DataFrame."""
        return pd.DataFrame(self[:], columns=self.columns)


def holds_shards(folder: Path) -> bool:
    """Whether a folder has a list of shards."""
    return (folder / _LIST).is_file()


def list_shards(folder: Path, listed: dict[str, Any]) -> None:
    """Write the list of shards of a folder, which is made, unless it is there.

    Parameters
    ----------
    folder : Path
    listed : dict
        "key", a hash of all that the shards depend on; "families"; "shards", the patient of each by name; "dataset",
        arguments of `PatchDataset`; and the names of the "columns".

    Raises
    ------
    DatasetError
        If the folder has a list of other shards, or other files and none.
    OSError
        If it cannot be written.
    """
    if not holds_shards(folder):
        folder.mkdir(parents=True, exist_ok=True)
        names = [file.name for file in folder.iterdir() if not (file.name[0] == "." or file.name in listed["shards"])]
        if names and _LIST not in names:  # which another process may have written by now
            remedy = "Give another name."
            raise DatasetError(f"{folder}: expected a new folder or one of shards, got one with {min(names)}. {remedy}")
        with write_whole(folder / _LIST, overwrite=True) as part:
            part.write_text(json.dumps(listed, indent=1), encoding="utf-8")
    there = _read(folder / _LIST)
    if there["key"] != listed["key"]:
        got = f"others ({there['dataset']['name']}; {', '.join(there['families'])})"
        remedy = "Give another folder, or remove this one."
        raise DatasetError(f"{folder}: expected shards of these images and features, got {got}. {remedy}")


def holds_shard(place: Path, key: str) -> bool:
    """Whether a shard is there.

    Raises
    ------
    DatasetError
        If it is one of another version: other images, labels or features.
    """
    there = (place / _RECORD).is_file()
    if there and (found := _read(place / _RECORD)["key"]) != key:
        got = f"{place}: expected a shard of version {key[:8]}, as {_LIST} lists it, got {found[:8]}"
        raise DatasetError(f"{got}. Remove this folder, and {_AGAIN}")
    return there


def store_shard(place: Path, key: str, features: np.ndarray, patches: pd.DataFrame, **facts: Any) -> None:
    """Write a shard, whole or not at all: features (n, d), float32, and what is known of the patches (n, ...).

    Raises
    ------
    DatasetError
        If it has no rows, or a feature is not finite.
    OSError
        If it cannot be written, such as on a full disk: what is there stays.
    """
    expected, remedy = f"{place}: expected finite features of", "Mend the family, or leave the image out."
    check_rows(~np.isfinite(features).all(axis=1), patches["path"], f"{expected} all patches, got others of", remedy)
    check_rows(
        [not len(patches)], ["none"], f"{expected} a patch or more, got", "Copy its images again, or leave it out."
    )
    features = np.ascontiguousarray(features)
    record = {"key": key, "n_patches": len(patches), "checksum": hashlib.blake2b(features, digest_size=16).hexdigest()}
    # What lies there is damaged, or was written by another process just now, and is the same.
    with write_whole(place, folder=True, replaced=(_FEATURES, _PATCHES, _RECORD)) as part:
        with (part / _FEATURES).open("wb") as file:  # `np.save` of an array does not say that a disk is full
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(features))
            file.write(features)
        patches.to_parquet(part / _PATCHES, index=False)
        (part / _RECORD).write_text(json.dumps(record | facts, indent=1), encoding="utf-8")


def open_shards(folder: Path) -> PatchDataset:
    """Open a folder of shards as a data set with columns that stay on disk, its rows in the order of the shards.

    Raises
    ------
    DatasetError
        If shards are missing, are of another version, or have another size than they had.
    """
    listed = _read(folder / _LIST)
    shards, key, d = {folder / name: who for name, who in listed["shards"].items()}, listed["key"], listed["columns"]
    lost = [not holds_shard(place, key) for place in shards]
    expected = f"{folder}: expected {counted(len(shards), 'shard')}, got none of patient"
    check_rows(lost, shards.values(), expected, _AGAIN.capitalize())
    records, tables = [_read(place / _RECORD) for place in shards], []
    for place, record in zip(shards, records, strict=True):
        try:
            tables.append(pd.read_parquet(place / _PATCHES))
            got = len(tables[-1]), *np.load(place / _FEATURES, mmap_mode="r").shape
        except DAMAGED as error:
            got = first_line(error)[:80]
        n = record["n_patches"]
        expected, remedy = (
            f"{place}: expected {n:,} rows of {len(d):,} columns, got",
            f"Remove this folder, and {_AGAIN}",
        )
        check_rows([got != (n, n, len(d))], [got], expected, remedy)
    frame, facts = pd.concat(tables, ignore_index=True), dict(listed["dataset"])
    starts, names = np.cumsum([0, *(one["n_patches"] for one in records)]), tuple(facts.pop("target_names"))
    frame["patient"] = np.repeat(np.array([*shards.values()], dtype=object), np.diff(starts))
    files, checksums = tuple(place / _FEATURES for place in shards), tuple(one["checksum"] for one in records)
    failures = tuple((path, why) for one in records for path, why in one["failures"])
    note = f"Features: {', '.join(listed['families'])}, {counted(len(d), 'column')}, {counted(len(shards), 'shard')}."
    left_out = LeftOut.group(("cannot be decoded", path) for path, _ in failures)
    audit = DatasetAudit.from_frame(frame, names, facts["name"], left_out=left_out, notes=(note,))
    columns = ShardColumns(files, starts, pd.Index(d, name=facts["name"]), checksums)
    return PatchDataset(frame, names, audit=replace(audit, failures=failures), columns=columns, **facts)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return found | {"key": found["key"]}  # other files may be JSON, too
    except DAMAGED as error:
        got = f"{file}: expected a record of shards, got {first_line(error)[:80]}"
        raise DatasetError(f"{got}. Remove it, and {_AGAIN}") from error
