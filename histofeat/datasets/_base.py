"""`PatchDataset`: a table of images with label, patient and place on the slide. Loaders make it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from histofeat.datasets._audit import DatasetAudit, LeftOut, one_scale
from histofeat.datasets._image_files import IMAGE_SUFFIXES, MOST_UNREADABLE
from histofeat.datasets._parts import OfficialSplit, in_id_order, official_roles, split_by_role
from histofeat.datasets._patients import PatientRule
from histofeat.datasets._positive_class import known_positive, positive_last, recode
from histofeat.exceptions import DatasetError, and_more, check_name, check_that, check_type, counted, refuse_first
from histofeat.model_selection import canonical_patient, canonical_patients, check_class_names, row_numbers

_COLUMNS = ("path", "label", "patient", "x", "y")
#: Note of a data set of columns.
_GIVEN = "There are columns instead of images: what needs pixels, such as near-copies and galleries, is not applicable."
_LABELS_PER = ("patch", "patient")


@dataclass(frozen=True, eq=False, repr=False)
class PatchDataset:
    """A table of patches, one row each: image file, label, patient, place on the slide.

    Parameters
    ----------
    frame : DataFrame, shape (n, 5 or more)
        Columns ``path`` (str), ``label`` (int, an index into `target_names`), ``patient`` (str), ``x`` and ``y``
        (position of the upper left corner on the slide in pixels, or missing); index 0 to n - 1. More columns are
        kept; ``height`` and ``width`` (pixels) feed the audit. Patients are brought into the form of
        `histofeat.model_selection.canonical_patient`.
    target_names : tuple of str
        Class names, two or more.
    name : str
        Name of the data set, which stands beside every number computed on it.
    root : Path, optional
        Folder that the paths lie in.
    audit : DatasetAudit, optional
        What the loader found; counted from `frame` when None.
    synthetic : bool, default=False
        Whether the images are made up.
    labels_per : {"patch", "patient"}, default="patch"
        What a label belongs to. "patient" means that all images of a patient have the same label by definition, as in
        BreakHis, where the label is the diagnosis; the audit of a split then takes a patient with two labels for an
        error.
    patient_rule : PatientRule, optional
        How the patients were found, to find those of other images in the same way.
    columns : DataFrame or ShardColumns of shape (n, d), float32, optional
        Numbers that stand in place of the images, such as embeddings; ``path`` is then only the key of a row.
    images : ndarray of shape (n, ...), optional
        Images in memory, or an object array of them; ``path`` is then only the key of a row.
    positive : str, optional
        The positive class of two, for scores, wherever it stands in `target_names`; by default `choose_positive` finds
        it by its name. None with more classes, and where the names do not tell: scores are refused then.
    mpp : float, optional
        Micrometres per pixel of all images. A column ``mpp`` of `frame` comes first; None where its values differ.

    Raises
    ------
    DatasetError
        When the table is empty, lacks a column, or holds a label without a name, a missing value, one path twice, or a
        scale that is none; when `labels_per` is something else, `positive` is not one of two classes, or `columns` or
        `images` have another number of rows.

    Examples
    --------
    >>> frame = pd.DataFrame({"path": ["a.png", "b.png"], "label": [0, 1], "patient": ["7", "9"]})
    >>> dataset = PatchDataset(frame.assign(x=pd.NA, y=pd.NA), ("benign", "malignant"), "mine")
    >>> dataset
    PatchDataset('mine', 2 patches of 2 patients: 1 benign, 1 malignant)
    >>> dataset.y
    array([0, 1])
    """

    frame: pd.DataFrame
    target_names: tuple[str, ...]
    name: str
    root: Path | None = None
    audit: DatasetAudit | None = None
    synthetic: bool = False
    labels_per: Literal["patch", "patient"] = "patch"
    patient_rule: PatientRule | None = None
    columns: Any = None
    images: np.ndarray | None = None
    positive: str | None = None
    mpp: float | None = None

    def __post_init__(self) -> None:
        check_name("PatchDataset.labels_per", self.labels_per, _LABELS_PER, error=DatasetError)
        names = _check_target_names(self.target_names)
        frame = _check_frame(self.frame, names)
        positive = known_positive(names, canonical_patient(self.positive) or self.positive)
        audit = self.audit or DatasetAudit.from_frame(frame, names, self.name)
        if names != tuple(self.target_names):
            counted = DatasetAudit.from_frame(frame, names, self.name)
            counts = {"class_counts": counted.class_counts, "patients_without": counted.patients_without}
            audit = replace(audit.with_names(dict(zip(self.target_names, names, strict=True))), **counts)
        audit = audit.with_positive(positive)
        if self.columns is not None:
            in_memory = isinstance(self.columns, pd.DataFrame)  # shards on disk were checked when they were written
            wrong = ~np.isfinite(self.columns.to_numpy()).all(axis=1) if in_memory else []
            _refuse(wrong, frame["path"], "finite numbers in all columns", "Measure the patch again, or remove it.")
            audit = replace(audit, notes=tuple(dict.fromkeys((*audit.notes, _GIVEN))))
        root = None if self.root is None else Path(self.root)
        mpp = one_scale(frame, self.mpp)
        vars(self).update(target_names=names, frame=frame, root=root, positive=positive, audit=audit, mpp=mpp)
        for field in ("columns", "images"):
            n_rows = len(frame) if getattr(self, field) is None else len(getattr(self, field))
            same, expected = n_rows == len(frame), f"a row for each of {len(frame):,} patches"
            check_that(f"PatchDataset.{field}", n_rows, same, expected, "Align them.", error=DatasetError)

    def __sklearn_clone__(self) -> PatchDataset:
        """Nothing changes a data set: the copy of an estimator that holds one shares it."""
        return self

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        classes = ", ".join(f"{n:,} {name}" for name, n in self.audit.class_counts.items())
        where = "" if self.root is None else f", root={str(self.root)!r}"
        size = f"{counted(len(self), 'patch')} of {counted(self.audit.n_patients, 'patient')}"
        return f"PatchDataset({self.name!r}, {size}: {classes}{where})"

    @property
    def X(self) -> np.ndarray:
        """Paths of the images, ndarray of str objects, shape (n,): what every histofeat transformer takes.

        The images themselves where they are in memory; keys of the rows where there are `columns` instead of images.
        """
        return self.frame["path"].to_numpy(dtype=object, copy=True) if self.images is None else self.images

    @property
    def y(self) -> np.ndarray:
        """Label codes, ndarray of int64, shape (n,), indices into `target_names`."""
        return self.frame["label"].to_numpy(dtype=np.int64, copy=True)

    @property
    def patients(self) -> np.ndarray:
        """Patient of each row, ndarray of str objects, shape (n,): the groups of every split."""
        codes, ids = pd.factorize(self.frame["patient"])
        return np.asarray(ids, dtype=object)[codes]  # each text once in memory

    @property
    def relative_paths(self) -> np.ndarray:
        """Paths relative to `root` with forward slashes, ndarray of str objects, shape (n,).

        Without a root the paths are unchanged. Reports show relative paths, and so no folder of this machine.

        Raises
        ------
        DatasetError
            When a path does not lie below the root.
        """
        prefix = "" if self.root is None else str(self.root).rstrip(os.sep) + os.sep
        outside = [path for path in self.frame["path"] if not path.startswith(prefix)]
        expected = f"PatchDataset.root: expected every path below {str(self.root)!r}, got"
        remedy = "Give the folder that all images lie in, or root=None."
        refuse_first(outside, expected, remedy, error=DatasetError)
        return np.array([path[len(prefix) :].replace(os.sep, "/") for path in self.frame["path"]], dtype=object)

    @property
    def lacks_images(self) -> bool:
        """Whether there are `columns` instead of images, also where a saved evaluation has left them out."""
        return _GIVEN in self.audit.notes

    def require_images(self, owner: str, remedy: str = "Give the images, or leave out what needs them.") -> None:
        """Refuse `columns` by a `DatasetError` where `owner`, the function that it names, needs pixels."""
        if self.lacks_images:
            got = f"{self.name!r}, which has columns instead, so that this is not applicable"
            raise DatasetError(f"{owner}: expected images, got {got}. {remedy}")

    def subset(self, index: np.ndarray | Sequence[int] | Sequence[bool]) -> PatchDataset:
        """Chosen rows as a data set of their own, in the order given.

        Parameters
        ----------
        index : array-like of bool, shape (n,), or of int
            A mask, or row numbers from 0, none of them twice.

        Raises
        ------
        DatasetError
            When the mask has another length, a row number is outside the table or repeated, or nothing is chosen.
        """
        given = np.asarray(index)
        if not (given.any() if given.dtype == bool else given.size):
            raise DatasetError("PatchDataset.subset: expected one row or more, got 0. Check what chose them.")
        rows = row_numbers(given, len(self), "PatchDataset.subset", error=DatasetError)
        frame = self.frame.iloc[rows].reset_index(drop=True)
        columns = None if self.columns is None else self.columns.take(rows).reset_index(drop=True)
        images = None if self.images is None else self.images[rows]
        return replace(self, frame=frame, audit=self.audit.restricted_to(frame), columns=columns, images=images)

    def with_classes(self, classes: Any, positive: str | None = None) -> PatchDataset:
        """Return the data set with some of its classes, under other names, or several as one.

        Parameters
        ----------
        classes, positive : optional
            Names to keep, in the order of their new codes; old name to new name; a text such as
            ``"benign,ductal=DC+IDC"``; or None for the classes as they are. Rows of other classes are left out.
        """
        return recode(self, classes, positive)

    def positive_last(self, values: np.ndarray) -> np.ndarray:
        """Codes (n,), or columns of classes (n, k), with the positive class of two as code 1, as metrics take them."""
        return positive_last(values, self.target_names, self.positive)

    def with_positive_last(self) -> PatchDataset:
        """Return the data set with the positive class of two as code 1; itself where it is so already."""
        first = self.positive not in (None, self.target_names[-1])
        return recode(self, self.target_names[::-1]) if first else self

    def without(self, reasons: Mapping[int, str]) -> PatchDataset:
        """Return the data set without images that cannot be read; ``audit.failures`` names them.

        Parameters
        ----------
        reasons : mapping of int to str
            Their row numbers from 0, and why each of them cannot be read.

        Raises
        ------
        DatasetError
            When they are more than a tenth of the images, or all images of a class.
        """
        lost = sorted(reasons)
        failures = tuple((str(self.relative_paths[row]), reasons[row]) for row in lost)
        kept = np.setdiff1d(np.arange(len(self)), lost)
        gone = [f", all of class {self.target_names[code]!r}" for code in np.setdiff1d(self.y, self.y[kept])]
        share = f"{len(lost):,} of {len(self):,} images ({100 * len(lost) / len(self):.1f} %)"
        if gone or len(lost) > MOST_UNREADABLE * len(self):
            raise DatasetError(
                f"{self.name}: expected at most a tenth of unreadable images, got {share}{''.join(gone)}. The first is "
                f"{failures[0][0]}: {failures[0][1]} Copy the data set again."
            )
        note = f"Images that could not be decoded, left out of everything here: {share}."
        patients = in_id_order(np.setdiff1d(self.patients, self.patients[kept]))
        if patients:
            note += f" Patients without any other image: {', '.join(map(repr, patients))}."
        audit, subset = self.audit, self.subset(kept)
        groups = LeftOut.group(("cannot be decoded", path) for path, _ in failures)
        named = {"left_out": (*audit.left_out, *groups), "failures": (*audit.failures, *failures)}
        return replace(subset, audit=replace(subset.audit, **named, notes=(*audit.notes, note)))

    def official_split(self) -> OfficialSplit:
        """Rows of the published 84/29/49 split of the IDC patients.

        Returns
        -------
        OfficialSplit
            Row numbers per role, those of unlisted patients, and the patients that this copy lacks;
            ``official_split().as_cv()`` goes into any ``cv=``.

        Raises
        ------
        DatasetError
            On any other data set: the split is a list of IDC patients.
        """
        fits = self.name == "IDC" and not self.synthetic
        remedy = "The published split lists patients of IDC; use PatientKFold for other data."
        check_that("PatchDataset.official_split", self.name, fits, "the IDC data set", remedy, error=DatasetError)
        return split_by_role(self.patients, official_roles())


def _check_target_names(names: Sequence[str]) -> tuple[str, ...]:
    settled = tuple(names) if not isinstance(names, str) else (names,)
    fits = len(settled) > 1 and len(set(settled)) == len(settled) and all(isinstance(n, str) for n in settled)
    expected, remedy = "two or more different class names", "Name each class once, in the order of the label codes."
    check_that("PatchDataset.target_names", settled, fits, expected, remedy, error=DatasetError)
    check_class_names("PatchDataset.target_names", settled, DatasetError)
    expected = "PatchDataset.target_names: expected names of classes, got a word for a missing value:"
    remedy = 'Call the class something else, such as classes="no tumour=None,tumour".'
    names = tuple(canonical_patients(settled).tolist())  # the form that files of predictions and of models come back in
    refuse_first(
        (raw for raw, name in zip(settled, names, strict=True) if not name), expected, remedy, error=DatasetError
    )
    return names


def _check_frame(frame: pd.DataFrame, target_names: tuple[str, ...]) -> pd.DataFrame:
    """Return a copy of the table with checked types; refuse a table that cannot be used."""
    remedy = f"Build one with the columns {', '.join(_COLUMNS)}."
    check_type("PatchDataset.frame", frame, pd.DataFrame, "a pandas DataFrame", remedy, error=DatasetError)
    absent = [column for column in _COLUMNS if column not in frame.columns]
    if absent:
        raise DatasetError(
            f"PatchDataset.frame: expected the columns {', '.join(_COLUMNS)}, got none named "
            f"{', '.join(absent)}. Add them; x and y may be missing values."
        )
    if len(frame) == 0:
        raise DatasetError("PatchDataset.frame: expected one patch or more, got 0 rows. Check what was chosen.")
    if not frame.index.equals(pd.RangeIndex(len(frame))):
        raise DatasetError(
            f"PatchDataset.frame: expected the index 0 to {len(frame) - 1}, got one that begins with "
            f"{frame.index[:3].tolist()}. Call frame.reset_index(drop=True)."
        )
    _check_values(frame, target_names)
    positions = {axis: frame[axis].astype("Int64") for axis in ("x", "y")}
    settled = {"label": frame["label"].astype(np.int64), "patient": canonical_patients(frame["patient"])}
    return frame.assign(**settled, **positions)


def _check_values(frame: pd.DataFrame, target_names: tuple[str, ...]) -> None:
    for column in ("path", "patient"):
        wrong = [not (isinstance(value, str) and value) for value in frame[column]]
        if column == "patient" and not any(wrong):
            wrong = canonical_patients(frame[column]) == ""
        _refuse(wrong, frame[column], f"text in the column {column!r}", "Fill it in, as str.")
    codes, k = frame["label"], len(target_names)
    expected = f"label codes 0 to {k - 1} for the {k} classes {target_names}"
    _refuse(~codes.isin(range(k)) | codes.isna(), codes, expected, "Correct the label or name its class.")
    remedy = "Drop the copies: on two sides of a split they leak."
    _refuse(frame["path"].duplicated(), frame["path"], "each path once", remedy, " again")


def _refuse(wrong: ArrayLike, values: pd.Series, expected: str, remedy: str, again: str = "") -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        raise DatasetError(
            f"PatchDataset.frame: expected {expected}, got {values[rows[0]]!r}{again} in row {rows[0]}"
            f"{and_more(len(rows))}. {remedy}"
        )


def check_rows(wrong: Any, names: Any, expected: str, remedy: str) -> None:
    """Refuse rows if some of them are wrong; the message names the first and counts them."""
    refuse_first(compress(names, wrong), expected, remedy, error=DatasetError)


def match_rows(table: pd.DataFrame, wanted: pd.DataFrame, where: str) -> np.ndarray:
    """Find the row of each wanted patch in a table: by path, else by file name, else by patient, x and y.

    Parameters
    ----------
    table, wanted : DataFrame
        Each with ``path``, or ``patient``, ``x`` and ``y``, or all of them.
    where : str
        What an error names.

    Returns
    -------
    rows : ndarray of int64, shape (len(wanted),)
        Positions in `table`. One way for all of them: the first by which all are found.

    Raises
    ------
    DatasetError
        When a patch has no row, or several, or both tables name its patient and differ; the message names the first.

    Examples
    --------
    >>> table = pd.DataFrame({"path": ["a.png", "b.png"]})
    >>> match_rows(table, pd.DataFrame({"path": ["/data/b.png", "/data/a.png"]}), "mine").tolist()
    [1, 0]
    """
    best = np.full(len(wanted), -1)
    for have, want in zip(_ways(table), _ways(wanted), strict=True):
        if have is not None and want is not None:
            rows = pd.Series(np.arange(len(have)), index=have)[~have.duplicated(keep=False).to_numpy()]
            found = np.where(want.duplicated(keep=False), -1, rows.reindex(want).fillna(-1).to_numpy(np.int64))
            best = max(best, found, key=lambda one: (one >= 0).sum())
    names = next(keys for keys in (wanted.get("path"), *_ways(wanted), wanted.index) if keys is not None)
    remedy = "Rows are found by path, file name, or patient, x and y: add what is missing, or leave these patches out."
    check_rows(best < 0, names, f"{where}: expected one row for each patch, got none or several for", remedy)
    if "patient" in table and "patient" in wanted:
        have, want = canonical_patients(table["patient"])[best], canonical_patients(wanted["patient"])
        expected = f"{where}: expected the same patient for a patch in both tables, got others for"
        differ = (have != want) & (have != "") & (want != "")
        check_rows(differ, names, expected, "Correct one of them, or leave the column patient out.")
    return best


def _ways(table: pd.DataFrame) -> list[pd.Series | None]:
    """Keys of each row by path, by file name without the ending of an image, and by place; None where unknown."""
    ways: list[pd.Series | None] = [None, None, None]
    if "path" in table:
        ways[0] = table["path"].astype(str).str.replace("\\", "/")
        endings = "|".join(suffix.lstrip(".") for suffix in IMAGE_SUFFIXES)
        ways[1] = ways[0].str.replace(rf"^.*/|\.(?i:{endings})$", "", regex=True)
    if {"patient", "x", "y"} <= set(table) and table[["patient", "x", "y"]].notna().all(axis=None):
        place = [pd.to_numeric(table[axis]).round().astype(int).astype(str) for axis in ("x", "y")]
        ways[2] = canonical_patients(table["patient"]) + ("_" + place[0] + "_" + place[1])
    return ways
