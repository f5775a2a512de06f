"""Names of classes: choose the positive one of two, and read what is asked of classes in words."""

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any

import numpy as np

from histofeat.datasets._audit import DatasetAudit
from histofeat.datasets._csv_rows import printable
from histofeat.exceptions import DatasetError, check_name, check_that

_ILL = (
    r"tumou?r(s|al|ous)?|malignan(t|cy)|(adeno)?carcinomas?|cancer(ous)?|neoplas(m|ia|tic)|metasta(sis|ses|tic)|sarcoma"
)
_ILL += r"|lymphoma|melanoma|idc|ilc|dcis|lcis|invasive|diseased?|abnormal|atypical|lesions?"
#: Whole words: what is looked for, what is not, and what turns the words beside it round.
_POSITIVE = re.compile(rf"{_ILL}|pos(itive)?|yes|true|cases?")
_NEGATIVE = re.compile(rf"normal|benign|healthy|neg(ative)?|false|controls?|background|unaffected|non({_ILL})")
_TURNED = {"no", "non", "not", "none", "without", "free", "absent"}
#: A sign at the end, perhaps in brackets; of minus signs the typographic ones too.
_SIGN = re.compile(r"[+\-\u2212\u2013]\s*[)\]]?\s*$")


def choose_positive(class_names: Sequence[Any], positive: Any = None) -> Any:
    """Choose the class whose probability is scored: the positive one of two.

    Parameters
    ----------
    class_names : sequence of str, numbers or bools
        Names of the classes, in any order; it is not changed.
    positive : str, optional
        The positive class, which settles it; case and blanks around it do not matter.

    Returns
    -------
    positive : str, or what `class_names` holds
        One of the two names; None with more classes, where each class is scored against the rest.

    Raises
    ------
    DatasetError
        If no class is called `positive`, it is given with more than two classes, or the names of two do not tell.

    Notes
    -----
    Of numbers and bools the larger is positive, as in scikit-learn. Of words, the class of tumour, malignant,
    carcinoma, cancer, IDC, positive, yes and their like is, beside any class without such a word; or any class beside
    one of normal, benign, healthy, negative, control, no, non-, or a word that these turn round ("tumour-free"). A
    word counts as a whole, in any case. A last sign counts as a word: "IDC+", "IDC-".

    Examples
    --------
    >>> choose_positive(["Tumor", "normal"]), choose_positive(["IDC-", "IDC+"]), choose_positive(["0", "1"])
    ('Tumor', 'IDC+', '1')
    >>> choose_positive(["ductal", "lobular"], positive="Lobular")
    'lobular'
    """
    names = list(class_names)
    if positive is not None:
        return _named(names, positive)
    if len(names) != 2:
        return None
    with suppress(ValueError):
        return max(names, key=float)
    first, second = (_kind(str(name)) for name in names)
    # Beside a word for either kind, a name without a word is the other.
    if first != second:
        return names[int(second > first)]
    raise DatasetError(
        f"positive: expected the name of the positive class, got none, and {' and '.join(map(repr, names))} do not "
        f"tell which it is. Give positive={names[1]!r}, or number the classes."
    )


def known_positive(names: Sequence[str], positive: str | None) -> str | None:
    """As `choose_positive`, but None where names do not tell: those who score refuse that."""
    with nullcontext() if positive is not None else suppress(DatasetError):
        return choose_positive(names, positive)
    return None


def mapped_positive(class_of: Mapping[str, str]) -> str | None:
    """The positive class of new names, else by the old ones that they stand for; None where neither tell.

    Examples
    --------
    >>> mapped_positive({"Malignant": "z", "normal": "a"})
    'z'
    """
    news = list(dict.fromkeys(class_of.values()))
    olds = {" ".join(old for old, name in class_of.items() if name == new): new for new in news}
    return known_positive(news, None) or olds.get(known_positive(list(olds), None))


def _named(names: list, positive: Any) -> Any:
    expected, remedy = f"none with {len(names)} classes", "Leave it out: each class is scored against the rest."
    check_that("positive", positive, len(names) == 2, expected, remedy, error=DatasetError)
    plain = {str(name).strip().casefold(): name for name in names} | {name: name for name in names}
    asked = positive if positive in plain else str(positive).strip().casefold()
    if asked not in plain:
        check_name("positive", positive, map(str, names), error=DatasetError)
    return plain[asked]


def _kind(name: str) -> int:
    """1 for a name of what is looked for, -1 for its absence, 0 where no word tells."""
    words = set(re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold()))
    sign = _SIGN.search(name)
    ill = any(map(_POSITIVE.fullmatch, words)) or (sign is not None and sign[0][0] == "+")
    well = any(map(_NEGATIVE.fullmatch, words)) or (sign is not None and sign[0][0] != "+")
    if words & _TURNED:
        return 1 if well and not ill else -1
    return -1 if well else int(ill)


def positive_last(values: np.ndarray, class_names: Sequence[Any], positive: Any = None) -> np.ndarray:
    """Give class codes, or columns of classes, with the positive class of two as code 1, as metrics take it.

    Parameters
    ----------
    values : ndarray of shape (n,), int, or of shape (n, k), float
        Codes in the order of `class_names`, negative ones for no class; or a column for each class.
    class_names : sequence
        Names of the k classes.
    positive : object, optional
        One of them; by default `choose_positive` chooses.

    Returns
    -------
    values : ndarray of the same shape
        `values` itself where the positive class is last already, or there are more than two. Doing it twice undoes it.

    Raises
    ------
    DatasetError
        If the names of two classes do not tell the positive one.

    Examples
    --------
    >>> positive_last(np.array([0, 1, -1]), ("Tumor", "normal"), "Tumor").tolist()
    [1, 0, -1]
    >>> positive_last(np.array([[0.9, 0.1]]), ("Tumor", "normal"), "Tumor").tolist()
    [[0.1, 0.9]]
    """
    positive = positive if positive in class_names else choose_positive(class_names, positive)
    if positive is None or class_names[-1] == positive:
        return values
    return values[:, ::-1] if np.ndim(values) == 2 else np.where(values < 0, values, 1 - values)


def class_mapping(where: str, classes: Any, least: int) -> dict[str, str]:
    """Map label (or folder) to class name, as it is asked for.

    Parameters
    ----------
    where : str
        The argument that a message names.
    classes : sequence of str, mapping of str to str, or str
        Labels to keep; label to class name; or both in one text: ``"normal,tumour=idc+ilc"``.
    least : int
        How many classes there must be.

    Raises
    ------
    DatasetError
        If it is none of these, or there are fewer classes.

    Examples
    --------
    >>> class_mapping("classes", "normal, tumour=idc+ilc", 2)
    {'normal': 'normal', 'idc': 'tumour', 'ilc': 'tumour'}
    """
    if isinstance(classes, str) and set(classes) & set(",="):
        parts = [part.rpartition("=") for part in classes.split(",")]
        olds = [(new.strip(), re.split(r"\+(?=.)", text) if new else [text]) for new, _, text in parts]
        classes = {old.strip(): new or old.strip() for new, texts in olds for old in texts}
    if isinstance(classes, Sequence) and not isinstance(classes, str):
        classes = dict(zip(classes, classes, strict=True))
    names = dict(classes) if isinstance(classes, Mapping) else {}
    texts = [*names, *names.values()]
    fits = all(isinstance(text, str) and text for text in texts) and len(set(names.values())) >= least
    expected = f"{least} or more labels, or a mapping of label to class name"
    check_that(where, classes, fits, expected, 'Pass classes="benign,malignant".', error=DatasetError)
    return names


def recode(dataset: Any, classes: Any, positive: str | None = None) -> Any:
    """Give a `PatchDataset` with other classes, see `PatchDataset.with_classes`.

    Examples
    --------
    >>> from histofeat import make_cohort
    >>> cohort = make_cohort(n_patients=2, patches_per_patient=4)
    >>> recode(cohort, "healthy=no tumour,ill=tumour").positive
    'ill'
    """
    if classes is None:
        return dataset if positive is None else replace(dataset, positive=positive)
    names = class_mapping("classes", classes, 2)
    for name in names:
        check_name("classes", name, dataset.target_names, error=DatasetError)
    target_names = tuple(dict.fromkeys(names.values()))
    # What is left out has the code -1.
    new = np.array([target_names.index(names[n]) if n in names else -1 for n in dataset.target_names])[dataset.y]
    kept = dataset if new.min() >= 0 else dataset.subset(new >= 0)
    frame = kept.frame.assign(label=new[new >= 0])
    counted = DatasetAudit.from_frame(frame, target_names, dataset.name)
    counts = {"class_counts": counted.class_counts, "patients_without": counted.patients_without}
    audit, positive = replace(kept.audit.with_names(names), **counts), positive or names.get(dataset.positive)
    return replace(kept, frame=frame, target_names=target_names, audit=audit, positive=positive)


def probability_columns(class_names: Sequence[str]) -> list[str]:
    """Name the columns of class probabilities in a table: ``p_`` and the class, without blanks.

    Parameters
    ----------
    class_names : sequence of str

    Returns
    -------
    columns : list of str
        All different; bytes that are no UTF-8 are escapes.

    Examples
    --------
    >>> probability_columns(["benign", "in situ", "in_situ"])
    ['p_benign', 'p_in_situ', 'p_in_situ_2']
    """
    columns = ["_".join(("p", *printable(name).split())) for name in class_names]
    return [f"{name}_{at}" if name in columns[:at] else name for at, name in enumerate(columns)]


def in_order(labels: Sequence[str]) -> list[str]:
    """Labels as numbers where all of them are whole numbers, else by name."""
    numbers = all(label.isdecimal() for label in labels)
    return sorted(labels, key=(lambda label: (int(label), label)) if numbers else None)
