"""Write a split to disk: as a CSV, or as a tree of copies or links with that CSV in it."""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from histofeat.datasets._csv_rows import csv_text
from histofeat.datasets._image_files import checked_path, fold_case
from histofeat.datasets._parts import DatasetSplit
from histofeat.datasets._writing import write_whole
from histofeat.datasets.synthetic._cohort_folder import write_manifest
from histofeat.exceptions import DatasetError, check_name, check_that

MODES = ("index", "csv", "copy", "link")
TABLE = "manifest.csv"

_FORBIDDEN = frozenset('/\\:*?"<>|')
_LONGEST_NAME = 120
_NOT_WRITTEN = ("path", "label", "patient", "x", "y", "part", "label_code", "height", "width", "synthetic")


def check_target(dataset, write_to: Any, mode: str) -> Path | None:
    """Check where a split will be written, before anything is computed.

    Parameters
    ----------
    dataset : PatchDataset
    write_to : path or None
    mode : {"index", "csv", "copy", "link"}

    Returns
    -------
    target : Path or None
        Absolute.

    Raises
    ------
    DatasetError
        When mode and `write_to` do not belong together; when the target exists and is not an empty folder, or lies
        among the images; when names of classes or patients could not be read back.
    """
    check_name("split_dataset.mode", mode, MODES, error=DatasetError)
    if (mode == "index") != (write_to is None):
        remedy = 'Give mode="csv", "copy" or "link".' if mode == "index" else "Give write_to=."
        raise DatasetError(
            f"split_dataset.write_to: expected a path for every mode but 'index', got {write_to!r} for {mode!r}. "
            f"{remedy}"
        )
    if write_to is None:
        return None
    target = checked_path("split_dataset.write_to", write_to)
    _check_free(target, mode)
    _check_names(dataset, mode)
    if mode != "csv":
        _refuse_among_images(dataset, target)
    return target


def _check_free(target: Path, mode: str) -> None:
    if not os.path.lexists(target):
        return
    expected, got = "a new or empty folder", "a file or a link"
    if mode == "csv":
        expected, got = "a new file", "one that exists"
    elif target.is_dir() and not target.is_symlink():
        first = min((child.name for child in target.iterdir()), default=None)
        if first is None:
            return
        got = f"one that holds {first!r}"
    raise DatasetError(f"{target}: expected {expected}, got {got}. Nothing is overwritten: give another path.")


def _check_names(dataset, mode: str) -> None:
    for text in (*dataset.target_names, *dict.fromkeys(dataset.patients)):
        if text != text.strip() or not text.isprintable():
            raise DatasetError(
                "split_dataset: expected names of classes and patients without blanks at their ends, line breaks or "
                f"control characters, got {text!r}. Rename it: a CSV would give back another."
            )
    if mode == "csv":
        return
    expected, remedy = "class names that can be names of folders", 'Rename the class, or use mode="csv".'
    for name in dataset.target_names:
        fits = not (set(name) & _FORBIDDEN or name.startswith(".") or name.endswith("."))
        check_that("split_dataset", name, fits, expected, remedy, error=DatasetError)


def _refuse_among_images(dataset, target: Path) -> None:
    try:
        common = os.path.commonpath(_real_paths(dataset))
    except ValueError:  # on several drives
        return
    if Path(os.path.realpath(target)).is_relative_to(common):
        raise DatasetError(
            f"{target}: expected a folder outside that of the images, got one in {common}. Give another path: the data "
            "set would hold its own copies the next time."
        )


def write_split(dataset, split: DatasetSplit, target: Path, mode: str) -> None:
    """Write the split whole or not at all.

    Parameters
    ----------
    dataset : PatchDataset
    split : DatasetSplit
        Of that data set.
    target : Path
        As from `check_target`.
    mode : {"csv", "copy", "link"}

    Raises
    ------
    DatasetError
        When an image is gone, the folder cannot be written, or there is no room. Nothing half-written is left.
    """
    try:
        with write_whole(target, folder=mode != "csv", parents=True) as part:
            if mode == "csv":
                _write_table(dataset, split, part, _paths_from(target.parent, dataset))
            else:
                _check_images(dataset, target, mode)
                names = _tree_names(dataset, split)
                _fill_tree(dataset, names, part, mode)
                _write_table(dataset, split, part / TABLE, names)
                if dataset.synthetic:
                    write_manifest(part, {"made_by": "histofeat split_dataset", "of": dataset.name})
    except OSError as error:
        _check_free(target, mode)  # something may have appeared there meanwhile
        told = error.strerror is None  # in a sentence already
        got = f"{target}: expected to write the split there, got {error}. Give a path that you may write to."
        raise DatasetError(f"{error if told else got} Nothing half-written is left.") from error


def _check_images(dataset, target: Path, mode: str) -> None:
    """Refuse images that are gone, and copies for which there is no room."""
    try:
        needed = sum(os.stat(path).st_size for path in dataset.X)  # noqa: PTH116 - half the time of pathlib
    except OSError as error:
        raise DatasetError(
            f"{error.filename}: expected an image of the data set, got {type(error).__name__}. Load the data set again."
        ) from error
    free = shutil.disk_usage(target.parent).free
    if mode == "copy" and needed > free:
        raise DatasetError(
            f"{target}: expected room for {needed:,} bytes of images, got {free:,} free. Make room, give another "
            'path, or use mode="link" or "csv".'
        )


def _fill_tree(dataset, names: Sequence[str], folder: Path, mode: str) -> None:
    for path, real, name in zip(dataset.X, _real_paths(dataset), names, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if mode == "copy":
            shutil.copyfile(path, folder / name)
        else:
            (folder / name).symlink_to(real)


def _real_paths(dataset) -> list[str]:
    """Path of each image in its folder without links; a file that is itself a link keeps its name."""
    parts = [os.path.split(path) for path in dataset.X]
    real = {folder: os.path.realpath(folder) for folder in {folder for folder, _ in parts}}
    return [os.path.join(real[folder], name) for folder, name in parts]  # noqa: PTH118


def _tree_names(dataset, split: DatasetSplit) -> list[str]:
    """PART/CLASS/PATIENT/NAME of each row, none of them twice on any file system."""
    taken: set[str] = set()
    names = []
    rows = zip(dataset.X, dataset.y, dataset.patients, split.parts, strict=True)
    for path, label, patient, part in rows:
        folder = f"{part}/{dataset.target_names[label]}/{_folder_name(patient)}"
        stem, ending = os.path.splitext(os.path.basename(path))  # noqa: PTH119, PTH122
        name, n = f"{folder}/{stem}{ending}", 1
        while fold_case(name) in taken:
            n += 1
            name = f"{folder}/{stem}-{n}{ending}"
        taken.add(fold_case(name))
        names.append(name)
    return names


def _folder_name(patient: str) -> str:
    """Name of a patient's folder: the id itself where it can be one; ``manifest.csv`` has the exact id in any case.

    Examples
    --------
    >>> _folder_name("14-22549AB"), _folder_name("a/b")
    ('14-22549AB', 'a%2Fb')
    """
    quoted = quote(patient, safe=" ()+,-=@[]_~")
    if len(quoted) > _LONGEST_NAME:
        return hashlib.blake2b(patient.encode(), digest_size=16).hexdigest()
    return quoted.replace(".", "%2E") if quoted.startswith(".") or quoted.endswith(".") else quoted


def _paths_from(folder: Path, dataset) -> list[str]:
    """Path of each image as seen from a folder; absolute where there is none, such as on another drive."""
    start = os.path.realpath(folder)
    paths = []
    for path, real in zip(dataset.X, _real_paths(dataset), strict=True):
        try:
            paths.append(os.path.relpath(real, start).replace(os.sep, "/"))
        except ValueError:
            paths.append(str(Path(path).absolute()))
    return paths


def _write_table(dataset, split: DatasetSplit, file: Path, paths: Sequence[str]) -> None:
    labels = [dataset.target_names[code] for code in dataset.y]
    front = {"path": paths, "label": labels, "label_code": dataset.y, "patient": dataset.patients}
    places = {"x": dataset.frame["x"], "y": dataset.frame["y"], "part": split.parts}
    others = {column: dataset.frame[column] for column in dataset.frame.columns if column not in _NOT_WRITTEN}
    mark = {"synthetic": "yes"} if dataset.synthetic else {}
    mark |= {} if dataset.mpp is None else {"mpp": dataset.mpp}
    text = csv_text(pd.DataFrame(front | places | others | mark))
    file.write_text(text, encoding="utf-8", newline="\n")
