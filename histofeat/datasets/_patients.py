"""Assign a patient to each image: by regular expression, CSV, mapping or folder, or each image its own."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from histofeat.datasets._csv_rows import CsvRows, read_csv_rows
from histofeat.exceptions import DatasetError, and_more, check_type
from histofeat.model_selection import canonical_patient

#: Rule for unknown patients: each image counts as its own patient.
EACH_IMAGE = "image"
#: Rules with a name, as expressions.
_NAMED = {
    "folder": r"([^/]+)/[^/]+$",
    # The first 12 characters of a barcode: project, site and patient.
    "tcga": r"(?<![0-9A-Za-z])((?i:TCGA)-[0-9A-Za-z]{2}-[0-9A-Za-z]{4})(?![0-9A-Za-z])",
}
#: Why patients are needed: for messages, and for reports of data without them.
COST_OF_NO_PATIENTS = (
    "Without patients, images of one patient land on both sides of a split: a model that recognises the patient looks "
    "as if it recognised the disease, scores come out too good, and intervals too narrow, because images count as "
    "independent that are not."
)
#: Note of a data set in which each image counts as its own patient.
PATIENTS_UNKNOWN = f"Patients are unknown: each image counts as its own patient. {COST_OF_NO_PATIENTS}"

_OWNER = "load_image_folder.patients"
_WAYS = (
    'Give a regular expression with one group, for the path below the class folder (patients=r"^([0-9]+)_"); '
    'patients="folder" where each patient has a folder; patients="tcga" for TCGA barcodes; a CSV with the columns path '
    'and patient (in Python also a mapping of path to patient). Where patients are unknown, patients="image" takes '
    "each image as its own patient, and says so in every report."
)


@dataclass(frozen=True)
class PatientRule:
    """How to find the patient of an image, in a folder to learn from (`of_tree`) or anywhere (`of_paths`).

    Without an expression and a table each image is its own patient.

    Parameters
    ----------
    expression : str, optional
        Regular expression; the patient is its group ``(?P<patient>...)``, else its first group, else all of it.
    table : mapping of str to tuple of str, optional
        Path of an image with forward slashes to its patients: one, or several where a table contradicts itself.
    source : str
        Where `table` came from, for messages.
    classes : tuple of str, optional
        Class names in the order of their codes, where the CSV has the columns ``label`` and ``label_code``.
    file : Path, optional
        The CSV.
    """

    expression: str | None = None
    table: Mapping[str, tuple[str, ...]] | None = None
    source: str = ""
    classes: tuple[str, ...] | None = None
    file: Path | None = None

    @classmethod
    def of(cls, patients: Any, root: Path) -> PatientRule:
        """Read a ``patients=`` argument, before any image is looked at.

        Parameters
        ----------
        patients : str, path or mapping
            A regular expression, "folder", "tcga", "image", a CSV (a path object, an existing file, or text that ends
            in ``.csv``), or a mapping of relative path to patient.
        root : Path
            Folder that relative paths start from.

        Returns
        -------
        PatientRule

        Raises
        ------
        DatasetError
            When it is None or of another kind, when the expression is none or has not one group, when the CSV or the
            mapping is unusable.

        Examples
        --------
        >>> PatientRule.of(r"^([0-9]+)_", Path(".")).of_tree(["benign/8863_a.png"], ["8863_a.png"])
        ['8863']
        """
        if patients is None:
            beside = root / "manifest.csv"
            hint = ' There is a manifest.csv here: try patients="manifest.csv".' if beside.is_file() else ""
            raise DatasetError(
                f"{_OWNER}: expected a rule for the patient of each image, got None. {COST_OF_NO_PATIENTS} {_WAYS}"
                f"{hint}"
            )
        if isinstance(patients, Mapping):
            return _from_mapping(patients, root)
        if isinstance(patients, os.PathLike) or (isinstance(patients, str) and _is_csv(patients, root)):
            return _from_csv(_csv_path(patients, root), root)
        expected = "a regular expression, a CSV, a mapping, 'folder', 'tcga' or 'image'"
        check_type(_OWNER, patients, str, expected, _WAYS, error=DatasetError)
        rule = _by_word(patients)
        groups = 1 if rule.expression is None else _compiled(rule.expression, _OWNER).groups
        if groups != 1 and "patient" not in rule._pattern.groupindex:
            raise DatasetError(
                f"{_OWNER}: expected one group, or a group named patient, got {groups} groups in {patients!r}. "
                'Put the id in parentheses: r"^([0-9]+)_"; others as (?:...).'
            )
        return rule

    @cached_property
    def _pattern(self) -> re.Pattern:
        return re.compile(self.expression)

    def to_dict(self) -> dict[str, str] | None:
        """The rule as plain JSON types, to store with a model; None for a table, which names patients."""
        return None if self.table is not None else {"expression": self.expression or EACH_IMAGE}

    @classmethod
    def from_dict(cls, stored: Mapping[str, str] | None) -> PatientRule | None:
        """The rule that `to_dict` gave; None where it gave none."""
        return None if stored is None else _by_word(stored["expression"])

    def of_tree(self, names: Sequence[str], inner: Sequence[str]) -> list[str]:
        """Patient of every image of a folder of class folders.

        Parameters
        ----------
        names, inner : sequence of str
            Path below the root and below the class folder, with forward slashes. An expression is searched in the
            second, a table is looked up by the first.

        Raises
        ------
        DatasetError
            When an image has no patient; the message names the first.
        """
        if self.expression is not None:
            found = [self._match(path) for path in inner]
        elif self.table is not None:
            found = [self.table.get(posixpath.normpath(path.replace("\\", "/")), ("",))[0] for path in names]
        else:
            return list(names)
        without = [row for row, patient in enumerate(found) if not patient]
        if without:
            shown, way = (inner, "a match of the expression") if self.expression is not None else (names, self.source)
            raise DatasetError(
                f"{_OWNER}: expected a patient for every image, got none for {shown[without[0]]!r}"
                f"{and_more(len(without))} by {way}. Correct it, or remove these images."
            )
        return found

    def of_paths(self, paths: Sequence[str]) -> list[str]:
        """Patient of images whose class folder is not known.

        Parameters
        ----------
        paths : sequence of str
            Paths of the images.

        Returns
        -------
        patients : list of str
            The patients that `of_tree` finds where it is given the same images.

        Raises
        ------
        DatasetError
            When an image has no patient, or several.

        Notes
        -----
        The class folder may be any folder below the deepest one that holds all images. An expression is searched
        below each of these; where the matches differ, it is refused. Where nothing matches there, folders above are
        searched, the nearest first. A table is looked up by paths and ends of paths.
        """
        plain = [path.replace("\\", "/") for path in paths]
        if self.expression is None and self.table is None:
            return plain
        if self.expression is not None:
            depth = _common_depth(plain)
            found = [self._below(path, depth) for path in plain]
            where = f"by {self.expression!r}"
        else:
            ends: dict[str, list[str]] = {}
            for path in self.table:
                ends.setdefault(posixpath.basename(path), []).append(path)
            found = [self._by_ends(path, ends) for path in plain]
            where = f"in {self.source}"
        missing = [row for row, patient in enumerate(found) if not patient]
        if missing:
            raise DatasetError(
                f"patients: expected the patient of each image {where}, got none for {paths[missing[0]]} "
                f"({len(missing):,} of {len(paths):,} images). Widen the expression, or complete the table."
            )
        return found

    def _match(self, text: str) -> str:
        match = self._pattern.search(text)
        if match is None:
            return ""
        group = "patient" if "patient" in self._pattern.groupindex else min(1, self._pattern.groups)
        return canonical_patient(match[group])

    def _below(self, path: str, depth: int) -> str:
        folders = path.split("/")
        ends = ["/".join(folders[start:]) for start in range(len(folders) - 1, -1, -1)]
        n_below = len(folders) - depth
        found = list(dict.fromkeys(filter(None, map(self._match, ends[:n_below]))))
        if len(found) > 1:
            raise DatasetError(
                f"patients: expected one patient for {path} by {self.expression!r}, got {found[0]!r} or {found[1]!r}. "
                r"Write the expression for the end of the path, such as '([0-9]+)_[^/]*$'."
            )
        return found[0] if found else next(filter(None, map(self._match, ends[n_below:])), "")

    def _by_ends(self, path: str, ends: Mapping[str, list[str]]) -> str:
        rows = [row for row in ends.get(posixpath.basename(path), ()) if f"/{path}".endswith(f"/{row.lstrip('./')}")]
        patients = sorted({patient for row in rows for patient in self.table[row]})
        if len(patients) > 1:
            raise DatasetError(
                f"{self.source}: expected one patient for {path}, got {', '.join(map(repr, patients))}. Give longer "
                "paths in the table, so that each row is one image."
            )
        return patients[0] if patients else ""


def find_patients(source: str | os.PathLike[str] | Mapping[str, str] | PatientRule, names: Sequence[str]) -> np.ndarray:
    r"""Give the patient of each image.

    Parameters
    ----------
    source : str, path, mapping or PatientRule
        A regular expression, "folder", "tcga", "image", a CSV file or a mapping, with the meaning that it has in
        `load_image_folder`, or the rule of the training data (`SavedModel.patient_rule`). The expression is
        searched below the class folder, which may be any folder below the deepest one that holds all images; an
        expression by which they differ is refused. The patient is its group ``(?P<patient>...)``, else its first
        group, else all of it. A CSV file has the columns ``patient`` and ``path`` (or ``image``), with paths or ends
        of paths.
    names : sequence of str
        Paths of the images.

    Returns
    -------
    patients : ndarray of str objects, shape (n,)
        One patient for each image.

    Raises
    ------
    DatasetError
        If the expression or the table cannot be read, or an image has no patient, or several.

    Examples
    --------
    >>> find_patients(r"SOB_[BM]_[A-Z]+-\d+-(\d+)", ["a/SOB_M_DC-14-2523-40-010.png"]).tolist()
    ['2523']
    """
    if isinstance(source, PatientRule):
        rule = source
    elif isinstance(source, Mapping):
        rule = _from_mapping(source, Path())
    else:
        text = os.fspath(source)
        rule = _for_paths(Path(text)) if text.lower().endswith(".csv") or Path(text).is_file() else _by_word(text)
        if rule.expression is not None:
            _compiled(rule.expression, "patients")
    return np.array(rule.of_paths(names), dtype=object)


#: Names of files that tell the patient: those of IDC, of BreakHis (the number, without the letters of a section), of
#: TCGA, and of CAMELYON17 (patient_012_node_3).
NAME_RULES = {
    "idc": PatientRule(expression=r"(?:^|/)([0-9]+)_?idx[0-9]"),
    "breakhis": PatientRule(expression=r"SOB_[BM]_[A-Z]{1,2}[-_][0-9]{2}-([0-9]+)"),
    "tcga": PatientRule(expression=_NAMED["tcga"]),
    "camelyon": PatientRule(expression=r"(?i:(?<![0-9a-z])(patient_[0-9]+)_node_[0-9]+)"),
}


def patients_by_name(paths: Sequence[str]) -> np.ndarray | None:
    """Give the patients of images whose file names tell them: those of IDC, BreakHis, TCGA or CAMELYON17.

    Parameters
    ----------
    paths : sequence of str
        Paths of the images.

    Returns
    -------
    patients : ndarray of str objects, shape (n,), or None
        None where a name tells none.

    Examples
    --------
    >>> patients_by_name(["0/8863_idx5_x1_y51_class0.png", "1/8863_idx5_x1_y1_class1.png"]).tolist()
    ['8863', '8863']
    >>> patients_by_name(["a.png"]) is None
    True
    """
    for rule in NAME_RULES.values():
        found = list(takewhile(bool, (rule._match(path.replace("\\", "/")) for path in paths)))
        if len(found) == len(paths):
            return np.array(found, dtype=object)
    return None


def _by_word(text: str) -> PatientRule:
    return PatientRule() if text == EACH_IMAGE else PatientRule(expression=_NAMED.get(text, text))


def _compiled(text: str, owner: str) -> re.Pattern:
    try:
        return re.compile(text)
    except re.error as error:
        raise DatasetError(
            f"{owner}: expected a regular expression, got {text!r} ({error}). Write a group for the "
            r"patient, such as '/(\d+)_idx5', and escape what is meant literally; a CSV must end in .csv or exist."
        ) from error


def _common_depth(paths: Iterable[str]) -> int:
    """How many folders all paths begin with."""
    columns = zip(*(path.split("/")[:-1] for path in paths), strict=False)
    return len(list(takewhile(lambda column: len(set(column)) == 1, columns)))


def _is_csv(text: str, root: Path) -> bool:
    with suppress(OSError, ValueError):  # an expression may be no path at all: too long, or with a null character
        return text.lower().endswith(".csv") or Path(text).is_file() or (root / text).is_file()
    return False


def _csv_path(given: str | os.PathLike, root: Path) -> Path:
    path = Path(given).expanduser()
    return path if path.exists() or not (root / path).exists() else root / path


def _from_csv(path: Path, root: Path) -> PatientRule:
    csv = read_csv_rows(path, ("path", "patient"), owner=_OWNER, optional=("label", "label_code"))
    csv.refuse_empty(("path", "patient"))
    keys = [_key(cells["path"], root) for cells in csv.rows]
    first = csv.first_of(keys, "patient", "one patient for each image", "Find out which is right.")
    table = {key: (csv.rows[row]["patient"],) for key, row in first.items()}
    return PatientRule(table=table, source=csv.path.name, classes=_class_order(csv), file=csv.path)


def _for_paths(path: Path) -> PatientRule:
    """The table of a CSV by its paths as they are written."""
    csv = read_csv_rows(path, ("path", "patient"), owner="patients")
    csv.refuse_empty(("path", "patient"))
    table: dict[str, tuple[str, ...]] = {}
    for row in csv.rows:
        key = posixpath.normpath(row["path"].strip().replace("\\", "/"))
        table[key] = (*table.get(key, ()), row["patient"])
    return PatientRule(table=table, source=str(path))


def _class_order(csv: CsvRows) -> tuple[str, ...] | None:
    """Class names by their codes, where the CSV is one that `split_dataset` wrote."""
    if not {"label", "label_code"} <= set(csv.columns):
        return None
    codes = {(row["label_code"], row["label"]) for row in csv.rows}
    if not all(code.isdecimal() for code, _ in codes) or len({label for _, label in codes}) != len(codes):
        return None
    return tuple(label for _, label in sorted(codes, key=lambda pair: int(pair[0])))


def _from_mapping(patients: Mapping, root: Path) -> PatientRule:
    table = {}
    for path, patient in patients.items():
        if not isinstance(path, str | os.PathLike) or isinstance(patient, bool) or not isinstance(patient, str | int):
            raise DatasetError(
                f"{_OWNER}: expected a mapping of path to patient, got {path!r}: {patient!r}. "
                "Give paths below the root, and ids as text or whole numbers."
            )
        table[_key(os.fspath(path), root)] = (canonical_patient(patient),)
    return PatientRule(table=table, source="the mapping")


def _key(path: str, root: Path) -> str:
    below = os.path.relpath(path, root) if os.path.isabs(path) else path  # noqa: PTH117 - text in, text out
    return posixpath.normpath(below.replace("\\", "/"))
