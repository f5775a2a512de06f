"""Canonical patient ids, and the checks of patients and labels that every split starts with."""

import re
import warnings
from collections.abc import Mapping
from unicodedata import category, normalize

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils.multiclass import type_of_target

from histofeat.exceptions import GroupLeakageError, and_more, check_real, check_that

#: Patients that a message names.
_SHOWN = 3
#: Texts for a missing value: those of `pandas.read_csv`, and the errors of spreadsheets.
_MISSING = frozenset(
    (
        *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
        *("NULL", "NaN", "None", "n/a", "nan", "null"),
        *("#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!"),
    )
)
#: Characters that show nothing and are no control or format characters by their category.
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\ufe00-\ufe0f\U000e0100-\U000e01ef]")
#: Of decimal commas one zero alone: "10,000" may be ten thousand.
_WHOLE_FLOAT = re.compile(r"(-?\d+)(?:\.0+|,0)")
_DIGITS = re.compile(r"\d{1,999}")
_DASHES = re.compile(r"[\s_\u2010-\u2015\u2212-]+")
#: Project, site and patient of a TCGA barcode; what follows is of a sample, a portion or a slide.
_BARCODE = re.compile(r"(?<![0-9A-Z])TCGA-[0-9A-Z]{2}-[0-9A-Z]{4}(?![0-9A-Z])", re.IGNORECASE | re.ASCII)
#: A stem and what numbers the slides of a patient: 12_1, 12-A, 12-DX1, patient_012_node_3.
_SLIDE = re.compile(
    r"(.+?)[-_ ]((?:(?:dx|ts|bs|ms|slide|section|block|node|roi|wsi)[-_ ]?)?(?:(\d{1,2})|[a-z]))",
    re.IGNORECASE | re.ASCII,
)
#: Years, months and days: what is numbered within them are patients.
_DATE = re.compile(r"(?:19|20)\d\d(?:[-_]?(?:0[1-9]|1[0-2])(?:[-_]?(?:0[1-9]|[12]\d|3[01]))?)?")


def canonical_patient(patient: object) -> str:
    """Return the one form of a patient id, in which ids are compared everywhere.

    Parameters
    ----------
    patient : object
        An id of any kind.

    Returns
    -------
    id : str
        Text in the Unicode form NFKC, without invisible characters and outer blanks, inner blanks as single spaces;
        whole floats, as numbers (8863.0) or text ("8863.0", "8863,0"), as integers. Empty where the id is missing:
        None, NaN, blank, or a word for it ("NA", "nan", "NULL", "#N/A" and all others of `pandas.read_csv`, "#REF!" and
        other errors of spreadsheets).

    Notes
    -----
    Leading zeros and the case of letters stay, since they can tell patients apart: `look_alikes` finds ids that
    differ in these alone. The form of a canonical id is the id itself. Unicode normalisation: UAX #15,
    https://www.unicode.org/reports/tr15/.

    Examples
    --------
    >>> [canonical_patient(value) for value in (8863, 8863.0, " 8863 ", "8863.0", "8863\u200b", "\uff18863")]
    ['8863', '8863', '8863', '8863', '8863', '8863']
    >>> canonical_patient("P-007"), canonical_patient("3.10"), canonical_patient("#N/A"), canonical_patient(None)
    ('P-007', '3.10', '', '')
    """
    if isinstance(patient, bytes):
        patient = patient.decode(errors="replace")
    if not isinstance(patient, str):
        if pd.api.types.is_scalar(patient) and pd.isna(patient):
            return ""
        whole = isinstance(patient, float | np.floating) and float(patient).is_integer()
        patient = str(int(patient) if whole else patient)
    if not (patient.isascii() and patient.isprintable()):
        seen = (c for c in normalize("NFKC", patient) if c.isspace() or category(c) not in ("Cc", "Cf"))
        patient = normalize("NFKC", _UNSEEN.sub("", "".join(seen)))
    text = " ".join(patient.split())
    whole = _WHOLE_FLOAT.fullmatch(text)
    return "" if text in _MISSING else whole[1] if whole else text


def canonical_patients(patients: ArrayLike) -> np.ndarray:
    """Return the canonical form of many ids: `canonical_patient` of each distinct one.

    Parameters
    ----------
    patients : array-like of shape (n,)

    Returns
    -------
    ids : ndarray of str objects, shape (n,)
        Empty text where an id is missing.

    Examples
    --------
    >>> canonical_patients([7, "7.0", None]).tolist()
    ['7', '7', '']
    """
    codes, found = pd.factorize(np.asarray(patients, dtype=object))
    return np.array([*map(canonical_patient, found), ""], dtype=object)[codes]


def look_alikes(patients: ArrayLike) -> list[tuple[str, ...]]:
    """Find ids that are likely one patient in several spellings.

    Parameters
    ----------
    patients : array-like of str
        Canonical ids; each counts once.

    Returns
    -------
    groups : list of tuple of str
        Ids that are equal but for the case of letters, leading zeros of numbers, and blanks, underscores and dashes
        in each other's place; two or more a group.

    Examples
    --------
    >>> look_alikes(["7", "007", "P-1", "p_01", "P-10", "8863"])
    [('007', '7'), ('P-1', 'p_01')]
    """
    groups: dict[str, set[str]] = {}
    for patient in pd.unique(np.asarray(patients, dtype=object)):
        key = _DIGITS.sub(lambda digits: str(int(digits[0])), _DASHES.sub("-", patient.casefold()))
        groups.setdefault(key, set()).add(patient)
    return [tuple(sorted(group)) for group in groups.values() if len(group) > 1]


def slides_of_one_patient(patients: list[str]) -> dict[str, list[str]]:
    """Find ids that look like slides of one patient.

    Parameters
    ----------
    patients : list of str
        Distinct canonical ids.

    Returns
    -------
    groups : dict of str to list of str
        What the ids of a group have in common, and two or more ids.

    Notes
    -----
    TCGA barcodes are slides of one patient where they are equal in the first 12 characters. Ids of other forms are
    where they are a stem and a letter or a number of one or two digits, and each of three stems or more (six, where no
    stem has a digit) carries few of these: on average at most three, or a third of the number of stems up to nine.
    Patients are numbered as well, within a hospital, a study or a year: so the numbers have to start again with each
    stem and leave few gaps, and stems must not be dates.

    Examples
    --------
    >>> slides_of_one_patient(["P1_1", "P1_2", "P2_1", "P2_2", "P3_1"])
    {'P1': ['P1_1', 'P1_2'], 'P2': ['P2_1', 'P2_2']}
    >>> slides_of_one_patient([f"patient_{number}" for number in range(1, 41)])
    {}
    """
    barcodes: dict[str, list[str]] = {}
    marks: dict[str, dict[str, tuple[str, int]]] = {}
    for name in patients:
        barcode, match = _BARCODE.search(name), _SLIDE.fullmatch(name)
        if barcode:
            barcodes.setdefault(barcode[0].upper(), []).append(name)
        elif match and not _DATE.fullmatch(match[1]):
            marks.setdefault(match[1], {})[name] = match[2].lower(), int(match[3] or 1)
        else:
            marks.setdefault(name, {})[name] = "", 1
    found = {stem: names for stem, names in barcodes.items() if len(names) > 1}
    several = {stem: its for stem, its in marks.items() if len(its) > 1}
    near = [stem for stem, its in several.items() if np.ptp([number for _, number in its.values()]) < 2 * len(its)]
    every = [mark for its in marks.values() for mark, _ in its.values()]
    least = 3 if any(re.search(r"\d", stem) for stem in near) else 6
    few = max(3, min(9, len(marks) / 3)) * len(several)
    restart = len(set(every)) <= 0.75 * len(every)
    if len(marks) >= least and restart and 2 * len(near) >= len(several) and sum(map(len, several.values())) <= few:
        found |= {stem: list(marks[stem]) for stem in near}
    return found


def warn_of_look_alikes(patients: ArrayLike, owner: str) -> None:
    """Warn the caller of a splitter of ids that are likely one patient in several spellings."""
    groups = look_alikes(canonical_patients(patients))
    if groups:
        warnings.warn(
            f"{owner}: groups has patient ids that differ only in case, zeros or dashes: "
            f"{' and '.join(map(repr, groups[0]))}{and_more(len(groups))}. They count as different patients; where "
            "they are one, write one id.",
            stacklevel=3,
        )


def encode_patients(patients: ArrayLike, n_samples: int, name: str = "groups") -> tuple[list[str], np.ndarray]:
    """Encode patient ids as text, and number the patients.

    Ids are compared in the form of `canonical_patient`: the integer 8863, the float 8863.0 and the text "8863" are one
    patient. They are ordered as integers if all of them are, otherwise as text: neither the order of the rows nor the
    type of the ids changes what is seeded by the number of a patient.

    Parameters
    ----------
    patients : array-like of shape (n_samples,)
        Ids of any hashable kind.
    n_samples : int
        The number of patches.
    name : str, default="groups"
        What an error message calls `patients`.

    Returns
    -------
    ids : list of str
        Distinct ids, in order.
    codes : ndarray of shape (n_samples,), int64
        Index into `ids`.

    Raises
    ------
    GroupLeakageError
        If `patients` is None, has not one entry per patch, or has missing entries (None, NaN, blank, or a
        word for it such as "NA").

    Examples
    --------
    >>> ids, codes = encode_patients([10253, 8863, 10253], 3)
    >>> ids, codes.tolist()
    (['8863', '10253'], [1, 0, 1])
    """
    if patients is None:
        raise GroupLeakageError(
            f"{name}: expected one patient id per patch, got None. Pass groups=dataset.patients to fit or split."
        )
    values = np.asarray(patients, dtype=object)
    if values.shape != (n_samples,):
        raise GroupLeakageError(
            f"{name}: expected one patient id for each of {n_samples} patches, got shape {values.shape}. "
            "Pass the patients of the same rows as X and y."
        )
    codes, texts = pd.factorize(canonical_patients(values))
    missing = np.flatnonzero((texts == "")[codes])
    if missing.size:
        raise GroupLeakageError(
            f"{name}: expected a patient id for every patch, got {values[missing[0]]!r} at row {missing[0]} "
            f"({missing.size} missing in all). Drop these patches or name their patients."
        )
    integers = all(text.removeprefix("-").isdecimal() for text in texts)
    ids = sorted(texts, key=(lambda text: (int(text), text)) if integers else None)
    number = {text: index for index, text in enumerate(ids)}
    return ids, np.array([number[text] for text in texts], dtype=np.int64)[codes]


def check_no_shared_patients(train: ArrayLike, test: ArrayLike, patients: ArrayLike) -> None:
    """Refuse a split that puts one patient on both sides.

    Parameters
    ----------
    train, test : array-like of int or bool
        Rows of the two sides, as indices into `patients` or as masks over it.
    patients : array-like of shape (n,)
        Patient ids.

    Raises
    ------
    GroupLeakageError
        If a patient has patches on both sides, or an id is missing.

    Examples
    --------
    >>> check_no_shared_patients([0, 1], [2], ["a", "a", "b"])
    >>> check_no_shared_patients([0], [1, 2], ["a", "a", "b"])
    Traceback (most recent call last):
    histofeat.exceptions.GroupLeakageError: split: expected no patient on both sides, got 1: 'a'. ...
    """
    ids, codes = encode_patients(patients, len(patients), "patients")
    shared = np.intersect1d(codes[np.asarray(train)], codes[np.asarray(test)])
    if shared.size:
        first = ", ".join(repr(ids[code]) for code in shared[:_SHOWN])
        more = ", ..." if shared.size > _SHOWN else ""
        raise GroupLeakageError(
            f"split: expected no patient on both sides, got {shared.size}: {first}{more}. "
            "Split by patient, as PatientKFold does."
        )


def check_labels(y, n_samples, name):
    """Refuse labels that do not fit the patches, are not classes, or are all of one class.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Class labels.
    n_samples : int
        The number of patches.
    name : str
        The splitter that an error message names.

    Returns
    -------
    labels : ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        If `y` is missing, has another length, gaps (None, NaN, blank, or a word for it such as "NA"), values that are
        no classes, or one class.
    """
    labels = np.asarray(y)
    if y is None or labels.shape != (n_samples,):
        raise ValueError(
            f"{name}.split: expected y with one class label for each of {n_samples} patches, got "
            f"{'None' if y is None else f'shape {labels.shape}'}. Pass y=dataset.y."
        )
    text = labels.dtype.kind in "OSU"  # in an array of text NaN is a word
    missing = np.flatnonzero(canonical_patients(labels) == "" if text else pd.isna(labels))
    if missing.size or type_of_target(labels) not in ("binary", "multiclass"):
        odd = labels[missing[0] if missing.size else 0]
        raise ValueError(
            f"{name}.split: expected y of class labels without gaps, got {labels.dtype} values such as "
            f"{odd.item() if isinstance(odd, np.generic) else odd!r}. Pass y=dataset.y."
        )
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(
            f"{name}.split: expected at least 2 classes in y, got only {shown_class(classes[0])}. "
            "Add patches of another class."
        )
    return labels


def check_class_weight(where, class_weight, classes):
    """Refuse weights of classes that do not exist, and weights that are no positive numbers; None is fine.

    Raises
    ------
    ValueError
        If `class_weight` is neither "balanced", a mapping of labels among `classes` to weights above 0, nor None.
    """
    if class_weight is None or (isinstance(class_weight, str) and class_weight == "balanced"):
        return
    fits = isinstance(class_weight, Mapping)
    check_that(where, class_weight, fits, "'balanced', a mapping or None", "Did you mean 'balanced'?")
    known = np.asarray(classes).tolist()
    for label, weight in class_weight.items():
        if label not in known:
            raise ValueError(f"{where}: expected labels of y, {known!r:.80}, got {label!r:.40}. Correct it.")
        check_real(f"{where}[{label!r}]", weight, "above 0", lambda value: value > 0, "Correct it.")


def check_class_names(where, names, error=ValueError):
    """Refuse names of classes that are empty, or differ only in capitals and blanks: they are one class misspelt.

    Raises
    ------
    ValueError
        As `error`; the message shows the names.
    """
    forms = {" ".join(normalize("NFKC", name).split()).casefold() for name in names}
    if "" in forms or len(forms) < len(names):
        raise error(
            f"{where}: expected different class names, got {tuple(names)!r:.80}, some of them empty or different "
            "only in capitals and blanks. Write each class in one way."
        )


def shown_class(label):
    """Return a class as a person types it, without numpy's type."""
    return f"class {label.item() if isinstance(label, np.generic) else label!r}"
