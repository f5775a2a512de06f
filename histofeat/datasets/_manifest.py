"""Load a CSV of images with path, label and patient: for every layout that has no loader."""

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from histofeat.datasets._audit import DatasetAudit, LeftOut, table_notes
from histofeat.datasets._base import PatchDataset
from histofeat.datasets._csv_rows import CsvRows, read_csv_rows
from histofeat.datasets._idc import mpp_by_name
from histofeat.datasets._image_files import MOST_UNREADABLE, add_scale, checked_path, fold_case, refuse_failures
from histofeat.datasets._parts import part_named
from histofeat.datasets._patients import COST_OF_NO_PATIENTS, EACH_IMAGE, PATIENTS_UNKNOWN, find_patients
from histofeat.datasets._positive_class import choose_positive, class_mapping, in_order, mapped_positive
from histofeat.datasets.synthetic._cohort_folder import MANIFEST
from histofeat.exceptions import DatasetError, and_more, check_that, refuse_first
from histofeat.images import image_size
from histofeat.model_selection import canonical_patient

#: Columns with a meaning of their own; any other is kept as text.
_READ = ("path", "label", "label_code", "patient", "x", "y", "part", "height", "width", "synthetic", "mpp")
_MAX_POSITION = 2**31
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|[\\/]{2}")
_MAPPED = r"prefixes={'D:\scans': '/mnt/scans'} (--path-prefix 'D:\scans=/mnt/scans')"
_REMOVE = "Correct it, or remove the column."


def load_manifest(
    csv: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    patients: str | None = None,
    classes: Sequence[str] | Mapping[str, str] | str | None = None,
    positive: str | None = None,
    name: str | None = None,
    labels_per: str = "patch",
    prefixes: Mapping[str, str] | None = None,
    on_error: str = "skip",
    mpp: float | None = None,
) -> PatchDataset:
    """Read a data set from a CSV with one row an image.

    Parameters
    ----------
    csv : path
        See `read_csv_rows`. Columns ``path`` (absolute, or below `root`; folders may be divided by backslashes),
        ``label`` (a class name) and ``patient``; optionally ``x`` and ``y`` (pixels on the slide, whole numbers or
        empty), ``part`` ("train", "validation" or "test", for `predefined_split`), ``mpp`` (micrometres per pixel, or
        empty), and any others, which are kept as text. `split_dataset` also writes ``label_code`` (the number
        of the class) and ``synthetic`` ("yes" for made-up images).
    root : path, optional
        Folder that relative paths start from; by default that of the CSV.
    patients : {"image", "tcga"}, optional
        "image", for a CSV without the column ``patient`` only: each image counts as its own patient. Warns, and is
        written into the name of the data set and every report. "tcga": the patient is the first 12 characters of the
        TCGA barcode in the column ``patient``, or in ``path`` where there is none.
    classes : sequence of str, mapping of str to str, or str, optional
        Labels in the order of their codes; label to class name, which may bring several labels together; or a text
        such as ``"normal,tumour=idc+ilc"``. Rows with another label are left out. By default all labels: by their
        ``label_code`` where there is one, else as numbers or by name.
    positive : str, optional
        The positive class of two; by default the name that tells, see `choose_positive`.
    name : str, optional
        Name of the data set; by default that of the CSV without its ending.
    labels_per : {"patch", "patient"}, default="patch"
        See `PatchDataset`.
    prefixes : mapping of str to str, optional
        Beginnings of paths, and what stands for them here: ``{"D:\\scans": "/mnt/scans"}`` for a table of Windows.
        Of several that fit, the longest.
    on_error : {"raise", "skip"}, default="skip"
        What is done about files that cannot be read by their first bytes, or do not exist: the first one is refused, or
        they are left out and listed in ``audit.failures``. More than a tenth of files that do not exist are refused.
    mpp : float, optional
        Micrometres per pixel of all images; by default those of the column ``mpp``; without one those of patches of
        IDC and BreakHis, known by their names, and those that headers tell, see `image_mpp`.

    Returns
    -------
    PatchDataset
        In the order of the rows, with the columns ``height`` and ``width`` (pixels, from the file headers).

    Raises
    ------
    DatasetError
        With the number of the line where there is one: when the CSV cannot be read as such, lacks a column, has an
        empty cell or a word for a missing value ("NA"), an unknown part, a position that is no whole number, one path
        twice or under two labels, or labels that differ only in case; when too many files do not exist; when fewer than
        two classes remain.

    Notes
    -----
    Files that are no images are left out and counted, with their lines. The audit notes files of the same content,
    patients in two parts, names that differ only in case, and parts without a class.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> root = Path(tempfile.mkdtemp())
    >>> for file in ("a.png", "b.png"):
    ...     Image.new("RGB", (8, 8)).save(root / file)
    >>> written = (root / "mine.csv").write_text("path,label,patient\\na.png,benign,7\\nb.png,malignant,9\\n")
    >>> load_manifest(root / "mine.csv").target_names
    ('benign', 'malignant')
    """
    _check_arguments(csv, root, patients, prefixes)
    rows = read_csv_rows(csv, _READ[:2], owner="load_manifest.csv", optional=_READ[2:])
    _check_patient_column(rows, patients)
    rows.refuse_empty([c for c in ("path", "label", "patient", "part") if c in rows.columns])
    base = rows.path.parent if root is None else Path(root).expanduser().absolute()
    folded = [fold_case(cells["label"]) for cells in rows.rows]
    rows.first_of(folded, "label", "labels that differ in more than case", "Write one of them everywhere.")
    class_of = _class_names(rows, classes)
    target_names = tuple(dict.fromkeys(class_of.values()))
    if positive is not None:
        choose_positive(target_names, positive)
    chosen = [row for row, cells in enumerate(rows.rows) if cells["label"] in class_of]
    paths = _paths(rows, base, prefixes or {}, on_error)
    sizes = {row: image_size(paths[row]) for row in chosen}
    failures = tuple((rows.rows[row]["path"], size) for row, size in sizes.items() if isinstance(size, str))
    refuse_failures(failures, on_error)
    frame = _to_frame(rows, [row for row in chosen if not isinstance(sizes[row], str)], paths, sizes, class_of, mpp)
    _check_filled(rows, frame, target_names)
    if patients == "tcga":
        frame["patient"] = find_patients("tcga", frame["patient" if "patient" in rows.columns else "path"])
    top = _common_root(base, frame["path"])
    names = [os.path.relpath(path, top).replace(os.sep, "/") for path in frame["path"]]
    each_image = patients == EACH_IMAGE
    if each_image:
        frame["patient"] = names
        warnings.warn(f"load_manifest: each image counts as its own patient. {COST_OF_NO_PATIENTS}", stacklevel=2)
    name = name or f"{rows.path.stem}{', patients unknown' if each_image else ''}"
    notes = (*([PATIENTS_UNKNOWN] if each_image else []), *rows.notes, *table_notes(frame, names, target_names))
    left_out = LeftOut.group(_left_out(rows, class_of, sizes))
    audit = DatasetAudit.from_frame(frame, target_names, name, left_out=left_out, failures=failures, notes=notes)
    positive = positive or mapped_positive(class_of)
    return PatchDataset(frame, target_names, name, top, audit, _is_synthetic(rows, base), labels_per, positive=positive)


def _check_arguments(csv: Any, root: Any, patients: Any, prefixes: Any) -> None:
    checked_path("load_manifest.csv", csv)
    fits = all(isinstance(text, str) and text for pair in dict(prefixes or {}).items() for text in pair)
    expected, remedy = "a mapping of text to text", f"Give {_MAPPED}."
    check_that("load_manifest.prefixes", prefixes, fits, expected, remedy, error=DatasetError)
    if root is not None and not checked_path("load_manifest.root", root).is_dir():
        raise DatasetError(f"load_manifest.root: expected an existing folder, got {str(root)!r}. Check the path.")
    fits, remedy = patients in (None, EACH_IMAGE, "tcga"), "Patients stand in the column 'patient'."
    check_that("load_manifest.patients", patients, fits, "None, 'image' or 'tcga'", remedy, error=DatasetError)


def _check_patient_column(rows: CsvRows, patients: str | None) -> None:
    if patients == "tcga" or (patients is None) == ("patient" in rows.columns):
        return
    if patients is not None:
        raise DatasetError(
            "load_manifest.patients: expected 'image' only for a CSV without the column 'patient', got one with it: "
            f"{rows.path}. Leave patients= out."
        )
    raise DatasetError(
        f"{rows.path}, line 1: expected the column patient, got {', '.join(rows.columns):.200}. {COST_OF_NO_PATIENTS} "
        'Add the column; where patients are unknown, patients="image" takes each image as its own patient, and says so '
        "in every report."
    )


def _class_names(rows: CsvRows, classes: Any) -> dict[str, str]:
    """Label to class name, in the order of the codes."""
    found = list(dict.fromkeys(cells["label"] for cells in rows.rows))
    if classes is None:
        classes = _by_code(rows) if "label_code" in rows.columns else in_order(found)
    mapping = class_mapping("load_manifest.classes", classes, 1)
    expected = f"load_manifest.classes: expected labels of {rows.path}, got"
    remedy = f"Labels there: {', '.join(map(repr, sorted(found)[:8]))}."
    refuse_first((label for label in mapping if label not in found), expected, remedy, error=DatasetError)
    if len(set(mapping.values())) < 2:
        raise DatasetError(
            f"{rows.path}: expected rows of two or more classes, got only {next(iter(mapping.values()))!r}. Add rows "
            "of another class: nothing can be learnt from one."
        )
    return mapping


def _by_code(rows: CsvRows) -> list[str]:
    codes = rows.parsed("label_code", lambda code: int(code) if code.isdecimal() else None, "whole numbers", _REMOVE)
    code_of = dict(zip([cells["label"] for cells in rows.rows], codes, strict=True))
    for one, other in (("label", "label_code"), ("label_code", "label")):
        rows.first_of([cells[one] for cells in rows.rows], other, f"one {other} for each {one}", _REMOVE)
    return sorted(code_of, key=code_of.get)


def _paths(rows: CsvRows, base: Path, prefixes: Mapping[str, str], on_error: str) -> list[str]:
    """Absolute path of every row, none of them twice and nearly all of existing files."""
    prefixes = {_slashed(old).rstrip("/") + "/": new.rstrip("/\\") + "/" for old, new in prefixes.items()}
    paths = [_absolute(_here(cells["path"], base, prefixes), base) for cells in rows.rows]
    first = rows.first_of(paths, "label", "one label for each path", "Find out which label is right; keep one row.")
    again = [row for row, path in enumerate(paths) if first[path] != row]
    if again:
        given, line = rows.rows[again[0]]["path"], rows.lines[first[paths[again[0]]]]
        raise DatasetError(
            f"{rows.at(again[0])}: expected each path once, got {given!r} again in line {line}. Remove one of the rows."
        )
    missing = [row for row, path in enumerate(paths) if not os.path.lexists(path) or Path(path).is_dir()]
    if missing and (on_error == "raise" or len(missing) > MOST_UNREADABLE * len(paths)):
        given = rows.rows[missing[0]]["path"]
        got = "a folder" if Path(paths[missing[0]]).is_dir() else "no such file"
        drive = f" Paths of another machine begin otherwise here: {_MAPPED}." if _DRIVE.match(given) else ""
        raise DatasetError(
            f"{rows.at(missing[0])}: expected an image file, got {got}: {given!r} below {str(base)!r}"
            f"{and_more(len(missing))}. Correct the path; in Python, root= is the folder it starts from.{drive}"
        )
    return paths


def _slashed(path: str) -> str:
    return path.replace("\\", "/")


def _here(given: str, base: Path, prefixes: Mapping[str, str]) -> str:
    """A path of the table as it is on this machine."""
    for old in sorted(prefixes, key=len, reverse=True):
        # Windows does not tell capitals apart.
        fits = _slashed(given[: len(old)])
        if fits == old or (_DRIVE.match(old) and fits.casefold() == old.casefold()):
            return prefixes[old] + _slashed(given[len(old) :])
    return _slashed(given) if "\\" in given and not os.path.lexists(base / given) else given


def _absolute(given: str, base: Path) -> str:
    path = base / given
    if ".." in path.parts:  # through a link, ".." leads elsewhere than the text suggests
        return str(Path(os.path.realpath(path.parent)) / path.name)
    return str(path)


def _left_out(rows: CsvRows, class_of: Mapping[str, str], sizes: Mapping[int, Any]):
    """(reason, path and line) of every row that is not used."""
    for row, cells in enumerate(rows.rows):
        where = f"{_slashed(cells['path']).rsplit('/', 1)[-1]} in line {rows.lines[row]}"
        if cells["label"] not in class_of:
            yield "has a label that is not in classes=", where
        elif isinstance(sizes[row], str):
            yield sizes[row], where


def _to_frame(
    rows: CsvRows, kept: list[int], paths: list[str], sizes: Mapping[int, Any], class_of, mpp
) -> pd.DataFrame:
    codes = {name: code for code, name in enumerate(dict.fromkeys(class_of.values()))}
    cells = [rows.rows[row] for row in kept]
    columns: dict[str, Any] = {
        "path": [paths[row] for row in kept],
        "label": [codes[class_of[row["label"]]] for row in cells],
        "patient": [row.get("patient", "") for row in cells],
    }
    for axis in ("x", "y"):
        given = rows.parsed(axis, _position, "a whole number of pixels", "Correct it, or leave it empty.", kept)
        columns[axis] = pd.array(given, dtype="Int64")
    columns["height"] = [sizes[row][0] for row in kept]
    columns["width"] = [sizes[row][1] for row in kept]
    if "part" in rows.columns:
        columns["part"] = rows.parsed("part", part_named, "train, validation or test", _REMOVE, kept)
    if "mpp" in rows.columns:
        expected = "micrometres per pixel above 0"
        columns["mpp"] = rows.parsed("mpp", _scale, expected, "Correct it, or leave it empty.", kept)
    others = [column for column in rows.columns if column not in _READ and column]
    frame = pd.DataFrame(columns | {column: [row[column] for row in cells] for column in others})
    return frame if mpp is None and "mpp" in columns else add_scale(frame, mpp, "load_manifest", mpp_by_name)


def _position(text: str) -> Any:
    """Pixels, a missing value for an empty cell, or None for any other text."""
    if not canonical_patient(text):  # a word for a missing value
        return pd.NA
    # Columns of whole numbers with gaps are saved as floats by many programs. Three zeros may stand for thousands.
    found = re.fullmatch(r"([0-9]{1,12})([.,](0{1,2}|0{4,}))?", text)
    return int(found[1]) if found and int(found[1]) < _MAX_POSITION else None


def _scale(text: str) -> float | None:
    found = parse_decimal(text if canonical_patient(text) else "")
    return None if found is None or found <= 0 else found


def _check_filled(rows: CsvRows, frame: pd.DataFrame, target_names: Sequence[str]) -> None:
    bare = [label for code, label in enumerate(target_names) if code not in set(frame["label"])]
    if bare:
        raise DatasetError(
            f"{rows.path}: expected an image of each class, got 0 of {bare[0]!r}{and_more(len(bare))}, whose "
            "files are all unusable. Replace the files, or name the classes to read by classes=."
        )


def _common_root(base: Path, paths: Sequence[str]) -> Path:
    """The base where all images lie below it, else the deepest folder that holds them all."""
    if all(Path(path).is_relative_to(base) for path in paths):
        return base
    try:
        return Path(os.path.commonpath([os.path.dirname(path) for path in paths]))  # noqa: PTH120
    except ValueError as error:
        raise DatasetError(
            f"load_manifest: expected images on one drive, got {paths[0]!r} and others elsewhere. Copy them together."
        ) from error


def _is_synthetic(rows: CsvRows, base: Path) -> bool:
    marks = {"yes": True, "no": False}
    marked = "synthetic" in rows.columns and any(rows.parsed("synthetic", marks.get, "yes or no", _REMOVE))
    return marked or (base / MANIFEST).is_file()


def parse_decimal(text: str) -> float | None:
    """A number with a decimal point, or a decimal comma if there is no point; NaN for an empty cell, None for others.

    Examples
    --------
    >>> parse_decimal("0,25"), parse_decimal("0.25"), parse_decimal("1,000.5")
    (0.25, 0.25, None)
    """
    text = text.replace(",", ".") if "." not in text and text.count(",") == 1 else text
    with suppress(ValueError):
        return None if "_" in text else float(text or "nan")  # Python alone divides digits by underscores
    return None
