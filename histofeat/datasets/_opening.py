"""Open labelled images in any format with the loader that reads it; list images without labels."""

import glob
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histofeat.datasets._base import PatchDataset
from histofeat.datasets._class_folders import load_image_folder
from histofeat.datasets._csv_rows import names_patient, read_csv_rows, table_text
from histofeat.datasets._embeddings import holds_embeddings, load_embeddings
from histofeat.datasets._idc import load_idc, looks_like_idc
from histofeat.datasets._image_files import checked_path, is_image_name, walk_files
from histofeat.datasets._manifest import load_manifest
from histofeat.datasets._patients import NAME_RULES
from histofeat.datasets.breakhis._loading import load_breakhis
from histofeat.exceptions import DatasetError, check_name, check_that, refuse_first
from histofeat.images import IMAGE_SUFFIXES, image_size
from histofeat.model_selection import canonical_patient

_EVERY = ("classes", "positive", "on_error", "mpp")
#: Loader of each format, and the options of `open_dataset` that it takes.
_LOADERS = {
    "idc": (load_idc, _EVERY),
    "breakhis": (load_breakhis, (*_EVERY, "target", "magnification", "duplicates")),
    "folder": (load_image_folder, (*_EVERY, "patients")),
    "csv": (load_manifest, (*_EVERY, "patients", "prefixes")),
    "embeddings": (load_embeddings, ("classes", "positive", "patients", "labels")),
}
FORMATS = ("auto", *_LOADERS)
"""Formats that `open_dataset` reads."""

#: How many image headers are read for the size of the training patches, where the loader does not know it.
_SIZED = 500
#: Share of the images that must have a size for it to be the size of the training patches.
_ENOUGH = 0.5
#: Public data sets by the rule of their file names.
_ORIGINS = {"idc": "IDC", "breakhis": "BreakHis", "tcga": "TCGA", "camelyon": "CAMELYON17"}


def open_dataset(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    format: str = "auto",
    *,
    patients: str | None = None,
    target: str | None = None,
    magnification: Any = None,
    duplicates: str | None = None,
    prefixes: Mapping[str, str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    classes: Sequence[str] | Mapping[str, str] | str | None = None,
    positive: str | None = None,
    on_error: str | None = None,
    mpp: float | None = None,
) -> PatchDataset:
    """Read labelled images, or embeddings of them, in any of the formats.

    Parameters
    ----------
    path : path or sequence of paths
        A folder, or a file; or several folders of IDC that count as one.
    format : {"auto", "idc", "breakhis", "folder", "csv", "embeddings"}, default="auto"
        Which loader reads it: `load_idc`, `load_breakhis`, `load_image_folder`, `load_manifest` or `load_embeddings`.
        "auto" recognises IDC, BreakHis, CSV files and embeddings by their names, embeddings in a CSV file by its
        columns, and takes other folders of images as class folders.
    patients : str, optional
        For class folders, CSV files and embeddings: see their loaders.
    target : {"malignant", "subtype"}, optional
        For BreakHis: what to predict.
    magnification : optional
        For BreakHis: 40, 100, 200 or 400; or "all": images of several magnifications are not pooled otherwise.
    duplicates : {"refuse", "drop", "published"}, optional
        For BreakHis: what to do with images that lie under two patients or subtypes.
    prefixes : mapping of str to str, optional
        For CSV files: see `load_manifest`.
    labels : path, optional
        For embeddings without a column of labels: a table of them, see `load_embeddings`.
    classes : sequence of str, mapping of str to str, or str, optional
        The classes to keep, to merge or to rename, such as ``"normal,tumour=idc+ilc"``; others are left out.
    positive : str, optional
        The positive class of two; by default the name that tells, see `choose_positive`.
    on_error : {"raise", "skip"}, optional
        What is done about files that cannot be read; by default they are left out.
    mpp : float, optional
        Micrometres per pixel of the images; by default what their loader knows of IDC and BreakHis, or a column ``mpp``
        or the headers of the files tell.

    Returns
    -------
    dataset : PatchDataset
        With a label and a patient for each image, or row of embeddings, which stand in its ``columns``.

    Raises
    ------
    ValueError
        If the format is unknown, or an option is not of this format.
    DatasetError
        If there is nothing of this format; if BreakHis has several magnifications and none is chosen.

    Examples
    --------
    >>> from histofeat import make_cohort
    >>> open_dataset(make_cohort(n_patients=2, patches_per_patient=4).root).name
    'synthetic'
    """
    check_name("format", format, FORMATS)
    several = list(path) if isinstance(path, list | tuple) and path else [path]
    paths = [checked_path("open_dataset", each, "the path of a folder or a CSV file") for each in several]
    if format in ("auto", "embeddings") and len(paths) > 1 and all(map(holds_embeddings, paths)):
        raise DatasetError(
            f"{paths[0]}: expected one file of embeddings, or a pattern of several, got {len(paths)} files. Quote the "
            "pattern where they are of different patches, as in 'uni/*.h5'; give those of the same patches to "
            "`histofeat compare` as --embeddings NAME=FILE."
        )
    kind = ("idc" if len(paths) > 1 else format_of(paths[0])) if format == "auto" else format
    load, taken = _LOADERS[kind]
    options = {"patients": patients, "target": target, "magnification": magnification, "duplicates": duplicates}
    options |= {"prefixes": prefixes, "labels": labels, "classes": classes, "positive": positive, "on_error": on_error}
    options["mpp"] = mpp
    given = {name: value for name, value in options.items() if value is not None}
    expected = f"none for data of the format {kind!r}"
    remedy = f"Leave it out, or name the format of {paths[0]}: {', '.join(_LOADERS)}."
    for name, value in given.items():
        check_that(name, value, name in taken, expected, remedy)
    dataset = load(paths[0] if len(paths) == 1 else paths, **given)
    if magnification is None and kind == "breakhis" and dataset.frame["magnification"].nunique() > 1:
        raise DatasetError(
            "magnification: expected 40, 100, 200 or 400, got none for images of several magnifications. Choose one, "
            "such as magnification=100, or pool them by magnification='all'."
        )
    return dataset


def format_of(path: str | os.PathLike[str]) -> str:
    """Recognise the format of data, as `open_dataset` does: by names, and by the columns of a CSV file.

    Raises
    ------
    DatasetError
        If there is no such path, or it holds no data.

    Examples
    --------
    >>> format_of("uni.parquet")
    'embeddings'
    """
    path, got = Path(path), "found no such path"
    if path.is_dir():
        marks = ("histology_slides", "*/histology_slides", "breast", "benign/SOB", "malignant/SOB")
        if looks_like_idc(path):
            return "idc"
        if any(folder.is_dir() for mark in marks for folder in path.glob(mark)):
            return "breakhis"
        if any(is_image_name(entry.name) for entry in walk_files(str(path))):
            return "folder"
        got = "got a folder without images"
    if holds_embeddings(path):
        return "embeddings"
    if path.exists() and not path.is_dir():
        if path.suffix.lower() in (".csv", ".tsv", ".txt"):
            return "csv"
        got = "got another file"
    raise DatasetError(f"{path}: expected a folder of images or a CSV file, {got}. Correct it.")


def origins_by_name(paths: Sequence[str]) -> np.ndarray:
    """Give the public data set that each image is from, as its name tells.

    Parameters
    ----------
    paths : sequence of str
        Paths of the images, or other names that hold a TCGA barcode.

    Returns
    -------
    origins : ndarray of str objects, shape (n,)
        "IDC", "BreakHis", "TCGA", "CAMELYON17", or "" where the name tells none.

    Examples
    --------
    >>> origins_by_name(["TCGA-A1-A0SB-01Z-00-DX1/7.png", "0/8863_idx5_x1_y51_class0.png", "a.png"]).tolist()
    ['TCGA', 'IDC', '']
    """
    found = [[_ORIGINS[key] for key, rule in NAME_RULES.items() if rule._match(path)] for path in paths]
    return np.array([origins[0] if origins else "" for origins in found], dtype=object)


def training_part(dataset: PatchDataset, *, only: str | os.PathLike[str] | None = None) -> PatchDataset:
    """Rows that a model may learn from.

    Parameters
    ----------
    dataset : PatchDataset
        The data. Where it comes in parts (a column ``part``), only "train" is taken.
    only : path, optional
        Text file with the ids of the patients to learn from, one a line.

    Returns
    -------
    dataset : PatchDataset
        Those rows; all of them where there is neither.

    Raises
    ------
    DatasetError
        If the file cannot be read, names a patient that is not among these, or nothing is left.

    Examples
    --------
    >>> from histofeat import make_cohort
    >>> cohort = make_cohort(n_patients=2, patches_per_patient=4)
    >>> len(training_part(cohort)) == len(cohort)
    True
    """
    kept = np.ones(len(dataset), dtype=bool)
    if "part" in dataset.frame.columns:
        kept &= (dataset.frame["part"] == "train").to_numpy()
    if only is not None:
        ids = _read_ids(Path(only))
        known = set(dataset.patients[kept])
        unknown = (patient for patient in ids if patient not in known)
        expected = f"{only}: expected patients of {dataset.name}, got"
        refuse_first(unknown, expected, "Correct the ids, or remove these lines.", error=DatasetError)
        kept &= np.isin(dataset.patients, ids)
    return dataset if kept.all() else dataset.subset(kept)


def _read_ids(path: Path) -> list[str]:
    lines = table_text(path, "only")[0].splitlines()
    if any(map(names_patient, re.split('[,;\t"]', "".join(lines[:1])))):
        return [row["patient"] for row in read_csv_rows(path, ("patient",), owner="only").rows]
    ids = [line.strip(' ,;\t"') for line in lines]  # a spreadsheet adds cells and quotes
    if not any(ids):
        raise DatasetError(f"{path}: expected the id of a patient in each line, got an empty file. Fill it in.")
    return [canonical_patient(name) or name for name in ids if name]


def patch_size_of(dataset: PatchDataset) -> tuple[int, int] | None:
    """Size of the training patches.

    Parameters
    ----------
    dataset : PatchDataset
        The data; its columns ``height`` and ``width`` where it has them, otherwise the headers of up to 500 files,
        evenly spaced.

    Returns
    -------
    size : tuple of (int, int) or None
        Height and width in px of at least half of the images; None where there is no such size.

    Examples
    --------
    >>> from histofeat import make_cohort
    >>> patch_size_of(make_cohort(n_patients=2, patches_per_patient=4))
    (50, 50)
    """
    frame = dataset.frame
    if {"height", "width"} <= set(frame.columns) and frame[["height", "width"]].notna().all(axis=None):
        sizes = list(zip(frame["height"].astype(int).tolist(), frame["width"].astype(int).tolist(), strict=True))
    else:
        rows = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), _SIZED)).astype(int))
        sizes = [size for size in map(image_size, dataset.X[rows]) if not isinstance(size, str)]
    if not sizes:
        return None
    size, count = Counter(sizes).most_common(1)[0]
    return size if count >= _ENOUGH * len(sizes) else None


@dataclass(frozen=True)
class ImageList:
    """Image files in a fixed order.

    Parameters
    ----------
    paths : tuple of str
        As they were named: what lies in a folder begins with the name of the folder.
    n_ignored : int
        Files in folders that are neither images nor slides, by their suffix.
    failures : tuple of (str, str)
        Folders that could not be listed, and why.
    slides : tuple of str
        Whole slides, which are no images.
    """

    paths: tuple[str, ...]
    n_ignored: int = 0
    failures: tuple[tuple[str, str], ...] = ()
    slides: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)


def list_images(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, on_error: str = "raise"
) -> ImageList:
    """List the images that files, folders and patterns name.

    Parameters
    ----------
    inputs : path, pattern, or sequence of these
        A file is taken with any suffix; a folder is searched at all depths for files that are images by their
        suffix, hidden ones left out and links followed; a pattern such as ``slides/*/*.png`` (``**`` for folders of
        any depth) stands for the files that match. Whole slides are set apart: formats of slides in folders, and those
        too large for one image.
    on_error : {"raise", "skip"}, default="raise"
        What is done about a folder that cannot be listed: it is refused, or named in the result.

    Returns
    -------
    images : ImageList
        The inputs in their order, what each stands for sorted by name, nothing twice.

    Raises
    ------
    DatasetError
        If an input is not there, or holds no image; if a folder cannot be listed, with ``on_error="raise"``.

    Examples
    --------
    >>> from histofeat import make_cohort
    >>> cohort = make_cohort(n_patients=2, patches_per_patient=4)
    >>> len(list_images(cohort.root)), len(list_images(f"{cohort.root}/*/1/*.png"))
    (8, 3)
    """
    from histofeat.images import is_slide  # which loads OpenCV, that loaders do not need

    inputs = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    if not inputs:
        raise DatasetError("images: expected a file, a folder or a pattern, got none. Name one at least.")
    check_name("on_error", on_error, ("raise", "skip"))
    paths: dict[str, None] = {}
    slides: dict[str, None] = {}
    failures: dict[str, str] = {}
    n_ignored = 0
    for given in map(os.fspath, inputs):
        files = _listed(given, failures if on_error == "skip" else None)
        named = {file for file in files if is_image_name(file) or file == str(Path(given).expanduser())}
        whole = [file for file in files if is_slide(file) and (file not in named or isinstance(image_size(file), str))]
        found = [file for file in files if file in named - {*whole}]
        if not found and not failures:
            remedy = "Correct the path, or name the files themselves."
            remedy = f"Whole slides are for `histofeat map`, such as {whole[0]}." if whole else remedy
            raise DatasetError(
                f"{given}: expected images ({', '.join(IMAGE_SUFFIXES)}), got none among {len(files):,} files. {remedy}"
            )
        paths |= dict.fromkeys(found)
        slides |= dict.fromkeys(whole)
        n_ignored += len(files) - len(found) - len(whole)
    if not paths:
        raise DatasetError(next(iter(failures.values())))
    return ImageList(tuple(paths), n_ignored, tuple(failures.items()), tuple(slides))


def _listed(given: str, failures: dict[str, str] | None) -> list[str]:
    """The files that an input stands for, images or not."""
    path = Path(given).expanduser()
    if path.is_dir():
        return _below(path, failures)
    if os.path.lexists(path):  # what is no file is named when it is read
        return [str(path)]
    if not glob.has_magic(given):
        raise DatasetError(f"{given}: expected an image, a folder or a pattern, found no such file. Correct the path.")
    matched = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - pathlib knows no absolute patterns
    if not matched:
        raise DatasetError(f"{given}: expected a pattern that matches files, got one without a match. Correct it.")
    files = []
    for match in map(Path, matched):
        if not match.is_dir():
            files.append(str(match))
        elif "**" not in given:  # which has matched the files of its folders, too
            files += _below(match, failures)
    return files


def _below(folder: Path, failures: dict[str, str] | None) -> list[str]:
    return sorted(entry.path for entry in walk_files(str(folder), failures=failures))
