"""Merge classes with too few patients, by a named rule."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import pandas as pd

from histofeat.datasets._base import PatchDataset
from histofeat.datasets.breakhis._tree import CLASSES, SUBTYPES
from histofeat.exceptions import DatasetError, check_name, check_that, check_type, check_whole, counted

_RULES = ("malignancy", "other")
_MADE_UP = "-like"
_KIND_OF = {subtype.word: CLASSES[subtype.malignant] for subtype in SUBTYPES}


def merge_rare_classes(
    dataset: PatchDataset,
    min_patients: int = 2,
    rule: Literal["malignancy", "other"] = "malignancy",
    *,
    positive: str | None = None,
) -> PatchDataset:
    """Merge rare classes, so that every class has enough patients.

    A class with one patient can be in the training or in the test set, not in both: `PatientKFold` and
    `PatientHoldOuts` refuse it.

    Parameters
    ----------
    dataset : PatchDataset
        With three classes or more, such as BreakHis with ``target="subtype"``.
    min_patients : int, default=2
        Patients that a class must have, at least 2; for k folds, k. Inner folds need more: each training side must
        have as many as there are inner folds.
    rule : {"malignancy", "other"}, default="malignancy"
        Into what a rare class goes: "malignancy" into "other benign" or "other malignant" by its kind, for the
        subtypes of BreakHis; "other" into one class "other", for classes of any name.
    positive : str, optional
        The positive class where two are left, see `PatchDataset`.

    Returns
    -------
    PatchDataset
        The same rows in the same order, with new labels and class names; a merged class stands where the first of its
        members stood. Its audit notes what was merged. Where no class is rare, `dataset` itself.

    Raises
    ------
    DatasetError
        When an argument is none of the above, a class has a name that `rule` does not know, or fewer than two classes,
        or a merged class with too few patients, would be left.

    Notes
    -----
    Where the rare classes of one kind have too few patients together, the next rarest class of that kind goes in with
    them, and so on; of two equally rare ones, the first in the order of the labels. A class without any patient is
    left out, and named in the note. A patient with several classes counts once in each, and once in a merged one. When
    all classes of a kind are merged, the merged class has the name of the kind ("benign").

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"path": list("abcdef"), "label": [0, 1, 2, 2, 1, 1], "patient": list("vwxxzu")})
    >>> small = PatchDataset(frame.assign(x=pd.NA, y=pd.NA), ("round", "long", "odd"), "shapes")
    >>> merged = merge_rare_classes(small, rule="other", positive="long")
    >>> merged.audit.class_counts, merged.y.tolist()
    ({'other': 3, 'long': 3}, [0, 1, 0, 0, 1, 1])
    """
    remedy = "Load one first, as with load_breakhis."
    check_type("merge_rare_classes.dataset", dataset, PatchDataset, "a PatchDataset", remedy, error=DatasetError)
    check_whole("merge_rare_classes.min_patients", min_patients, 2, error=DatasetError)
    check_name("merge_rare_classes.rule", rule, _RULES, error=DatasetError)
    carried = (
        pd.crosstab(dataset.patients, dataset.y).reindex(columns=range(len(dataset.target_names)), fill_value=0) > 0
    )
    carried.columns = dataset.target_names
    if (carried.sum() >= min_patients).all():
        return dataset
    names = _new_names(carried, _kinds(dataset, rule), min_patients)
    target_names = tuple(dict.fromkeys(names.values()))
    if len(target_names) < 2:
        raise DatasetError(
            f"merge_rare_classes: expected two classes or more of at least {min_patients} patients each, got one "
            f"({target_names[0]!r}) once the rare ones were merged. Add patients, or ask for fewer than {min_patients}."
        )
    for new, n in carried[list(names)].T.groupby(names, sort=False).any().sum(axis=1).items():
        expected = f"at least {min_patients} patients in {new!r} once the rare classes were merged"
        remedy = f"Add patients, or ask for fewer than {min_patients}."
        check_that("merge_rare_classes", n, n >= min_patients, expected, remedy, error=DatasetError)
    merged = dataset.with_classes(names, positive)
    notes = (*dataset.audit.notes, _note(carried.sum(), names, min_patients, rule))
    # Labels of BreakHis are diagnoses: patients of two subtypes may have one label once these are merged.
    one_diagnosis = rule == "malignancy" and merged.frame.groupby("patient")["label"].nunique().max() == 1
    per = "patient" if one_diagnosis else dataset.labels_per
    return replace(merged, audit=replace(merged.audit, notes=notes), labels_per=per)


def _kinds(dataset: PatchDataset, rule: str) -> dict[str, list[str]]:
    """Classes by the kind within which they may be merged."""
    kinds: dict[str, list[str]] = {}
    for name in dataset.target_names:
        kind = _KIND_OF.get(name.removesuffix(_MADE_UP)) if rule == "malignancy" else ""
        expected = "classes that are subtypes of BreakHis for the rule 'malignancy'"
        check_that("merge_rare_classes.rule", name, kind is not None, expected, "Use rule='other'.", error=DatasetError)
        suffix = _MADE_UP if kind and name.endswith(_MADE_UP) else ""
        kinds.setdefault(kind + suffix, []).append(name)
    return kinds


def _new_names(carried: pd.DataFrame, kinds: Mapping[str, list[str]], min_patients: int) -> dict[str, str]:
    """Map old names to new ones, without the classes that have no patient; `carried` is which patient has which."""
    n_patients = carried.sum()
    names = {name: name for name in carried.columns if n_patients[name]}
    for kind, members in kinds.items():
        by_rarity = sorted(filter(names.get, members), key=n_patients.get)
        n = int((n_patients[by_rarity] < min_patients).sum())
        while n and n < len(by_rarity) and carried[by_rarity[:n]].any(axis=1).sum() < min_patients:
            n += 1
        new = kind if kind and n == len(by_rarity) else f"other {kind}".strip()
        names |= dict.fromkeys(by_rarity[:n], new)
    return names


def _note(n_patients: pd.Series, names: Mapping[str, str], min_patients: int, rule: str) -> str:
    parts = []
    for new in dict.fromkeys(new for old, new in names.items() if old != new or new not in n_patients):
        olds = [f"{old} ({counted(n, 'patient')})" for old, n in n_patients.items() if names.get(old) == new]
        parts.append(f"{', '.join(olds)} into {new!r}")
    parts += [f"{name} (0 patients) left out" for name in n_patients.index if name not in names]
    return f"classes of fewer than {min_patients} patients merged by the rule {rule!r}: {'; '.join(parts)}"
