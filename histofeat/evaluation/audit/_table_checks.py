"""Checks of a split that read the table alone: patients, classes, slides and labels. No image is opened."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import bdtrc

from histofeat.evaluation.audit._findings import Finding, decide, not_applicable
from histofeat.exceptions import DatasetError, counted
from histofeat.model_selection import canonical_patients, encode_patients, fold_rows, look_alikes, slides_of_one_patient


@dataclass(frozen=True, eq=False)
class Split:
    """A data set, its folds, and its patients by number: what every check reads.

    Parameters
    ----------
    dataset : PatchDataset
    folds : tuple of (ndarray, ndarray), int64
        Training and test rows of each fold.
    ids : list of str
        Distinct patient ids.
    patient : ndarray of shape (n,), int64
        Index of each row's patient into `ids`.
    """

    dataset: Any
    folds: tuple[tuple[np.ndarray, np.ndarray], ...]
    ids: list[str]
    patient: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.patient)

    def sides_by(self, codes: np.ndarray):
        """Yield (number of the fold from 1, training, test): counts of rows per code; negative codes are left out."""
        n_codes = int(codes.max(initial=-1)) + 1
        for fold, (train, test) in enumerate(self.folds, start=1):
            sides = [codes[rows] for rows in (train, test)]
            yield fold, *(np.bincount(side[side >= 0], minlength=n_codes) for side in sides)

    @cached_property
    def _names(self) -> np.ndarray:
        try:
            return self.dataset.relative_paths
        except DatasetError:  # what names a row in a message need not be what opens its file
            return np.array([PurePath(path).name for path in self.dataset.frame["path"]], dtype=object)

    @cached_property
    def ids_are_names(self) -> bool:
        """Whether each image counts as its own patient, so that the ids say nothing about patients."""
        return len(self.ids) == len(self) and set(self.ids) == set(canonical_patients(self._names))

    def name(self, row: int) -> str:
        """Name an image without the folder of the data set."""
        return str(self._names[row])


def as_split(dataset, splits) -> Split:
    """Check the folds of a split.

    Parameters
    ----------
    dataset : PatchDataset
        What was split.
    splits : splitter or iterable of (train, test)
        Pairs of row numbers or masks.

    Returns
    -------
    split : Split

    Raises
    ------
    ValueError
        If there is no fold, or a side is empty or no set of rows of this data set.
    GroupLeakageError
        If a row has no patient.

    Examples
    --------
    >>> from histofeat.datasets import make_cohort
    >>> split = as_split(make_cohort(n_patients=2, patches_per_patient=4), [([0, 1], [2])])
    >>> split.folds[0][1].tolist(), len(split.ids)
    ([2], 2)
    """
    ids, patient = encode_patients(dataset.patients, len(dataset), "dataset.patients")
    folds = fold_rows(splits, dataset.y, dataset.patients, "audit_split.splits", disjoint=False)
    return Split(dataset, folds, ids, patient)


def list_some(numbers: Iterable, most: int = 5) -> str:
    """List the first numbers of a sequence in words.

    Examples
    --------
    >>> list_some([0, 1, 2], most=2), list_some([4])
    ('0, 1, ... (3 in all)', '4')
    """
    numbers = list(numbers)
    first = ", ".join(map(str, numbers[:most]))
    return f"{first}, ... ({len(numbers)} in all)" if len(numbers) > most else first


def shared_patients(split: Split) -> Finding:
    """HF001: patients with patches on both sides of a fold.

    Parameters
    ----------
    split : Split

    Returns
    -------
    finding : Finding
        An error; one offender for each patient.
    """
    folds_of: dict[int, list[int]] = {}
    for fold, train, test in split.sides_by(split.patient):
        for patient in np.flatnonzero((train > 0) & (test > 0)):
            folds_of.setdefault(int(patient), []).append(fold)
    found = [f"patient {split.ids[p]} in fold {list_some(folds_of[p])}" for p in sorted(folds_of)]
    n_folds = counted(len(split.folds), "fold")
    return decide(
        "HF001", found, f"Patients on both sides of a fold: {len(found):,} of {len(split.ids):,}.",
        f"No patient is on both sides of a fold ({n_folds}, {counted(len(split.ids), 'patient')}).",
        "one person under two ids; HF002, HF003 and HF005 look for signs of that.",
        patients=len(split.ids), shared=len(found),
    )  # fmt: skip


def lost_classes(split: Split) -> Finding:
    """HF004: a side of a fold without a patch of some class.

    Parameters
    ----------
    split : Split

    Returns
    -------
    finding : Finding
        An error; one offender for each side and class. Classes that the data set itself lacks do not count.
    """
    y, names = split.dataset.y, split.dataset.target_names
    present = np.unique(y)
    found = []
    for fold, *counts in split.sides_by(y):
        for side, count in zip(("training", "test"), counts, strict=True):
            lost = [code for code in present if count[code] == 0]
            found += [f"the {side} side of fold {fold} has no {names[code]!r}" for code in lost]
    return decide(
        "HF004", found,
        f"Sides of folds that lack a class: {len(found):,}. Scores of that class are undefined there.",
        f"Each side of each fold has patches of all {len(present)} classes.",
        "classes with very few patches or patients, whose scores are defined and mean little.", classes=len(present),
    )  # fmt: skip


def sibling_slides(split: Split) -> Finding:
    """HF005: sections of one case on both sides of a fold under different patient ids.

    Parameters
    ----------
    split : Split
        Patient ids, and the column ``slide`` of the data set's table where there is one.

    Returns
    -------
    finding : Finding
        An error; one offender for each pair of ids. Not applicable where no id has that form.

    Notes
    -----
    Ids are a number, with or without the number of the year before it, and up to three letters: 22549AB beside 22549CD,
    or 18842 beside 18842D (as in BreakHis). Ids of another form say nothing. Slides are compared where they belong to
    different patients: of one patient they are the business of HF001. A column ``slide`` that gives two patients
    the same value counts slides within a patient, and is left out.
    """
    slides, owner, note = _slides(split)
    sources = (("patients", split.ids, split.patient, None), ("slides", *slides, owner))
    n_sections = sum(bool(section_letters(name)) for _, names, *_ in sources for name in names)
    pairs = {kind: _sections_of_one_case(names, owner) for kind, names, _, owner in sources}
    unseen = "sections whose ids share no number, such as those numbered from 1 in each block."
    if not n_sections and not any(pairs.values()):
        return not_applicable("HF005", f"No id ends in the letters of a section.{note}", unseen)
    found = [
        f"{kind} {names[a]} and {names[b]} in fold {list_some(folds)}"
        for kind, names, codes, _ in sources
        for (a, b), folds in _meetings(split, codes, pairs[kind]).items()
    ]
    return decide(
        "HF005", found, "Pairs of sections of one case that are on both sides of a fold under different patient ids: "
        f"{len(found):,}.{note}",
        f"All sections of one case are on one side (ids with the letters of a section: {n_sections:,}).{note}",
        unseen, sections=n_sections, pairs=len(found),
    )  # fmt: skip


def _slides(split: Split) -> tuple[tuple[list[str], np.ndarray], dict | None, str]:
    """Distinct slides with the code of each row, the patient of each slide, and why they cannot be used, if so."""
    nothing = ([], np.full(len(split), -1, dtype=np.int64))
    if "slide" not in split.dataset.frame.columns:
        return nothing, None, ""
    codes, found = pd.factorize(split.dataset.frame["slide"])
    owners = pd.DataFrame({"slide": codes, "patient": split.patient})[codes >= 0].drop_duplicates()
    if owners["slide"].duplicated().any():
        return nothing, None, " The column 'slide' counts slides within a patient and was left out."
    slides = ([str(name) for name in found], codes.astype(np.int64))
    return slides, dict(zip(owners["slide"], owners["patient"], strict=True)), ""


def _sections_of_one_case(names: list[str], owner: dict | None) -> list[tuple[int, int]]:
    """Pairs of ids with one case number; with `owner` only those of different owners."""
    cases: dict[str, list[int]] = {}
    for code, name in enumerate(names):
        cases.setdefault(case_number(name), []).append(code)
    pairs = (pair for members in cases.values() for pair in combinations(members, 2))
    return [(a, b) for a, b in pairs if owner is None or owner[a] != owner[b]]


def _meetings(split: Split, codes: np.ndarray, pairs: list[tuple[int, int]]) -> dict[tuple[int, int], list[int]]:
    """Folds in which two codes stand on opposite sides, for the pairs that ever do."""
    met: dict[tuple[int, int], list[int]] = {}
    for fold, train, test in split.sides_by(codes) if pairs else ():
        for a, b in pairs:
            if (train[a] and test[b]) or (train[b] and test[a]):
                met.setdefault((a, b), []).append(fold)
    return met


def ids_of_one_patient(split: Split) -> tuple[Finding, Finding]:
    """HF009 and HF010: patient ids that differ only in case, zeros or dashes, or look like slides of one patient.

    Parameters
    ----------
    split : Split

    Returns
    -------
    findings : tuple of (Finding, Finding)
        Errors, wherever the patients stand: they are counted and resampled as different ones. One offender for each
        group of `look_alikes`, and of `slides_of_one_patient`, of `histofeat.model_selection`. Not applicable where
        each image counts as its own patient.
    """
    unseen = {
        "HF009": "one person under ids of another form, such as a name and a number.",
        "HF010": "slides whose ids share no stem; sections such as 22549AB and 22549CD, for which HF005 looks.",
    }
    if split.ids_are_names:
        return tuple(not_applicable(code, "Each image counts as its own patient.", unseen[code]) for code in unseen)
    alike, slides = look_alikes(split.ids), slides_of_one_patient(split.ids)
    return decide(
        "HF009", [f"patients {' and '.join(group)}" for group in alike],
        f"Groups of ids that differ only in case, zeros or dashes: {len(alike):,}.",
        f"The ids of the {len(split.ids):,} patients differ in more than case, zeros and dashes.",
        unseen["HF009"], groups=len(alike),
    ), decide(
        "HF010", [f"{stem}: {' and '.join(names)}" for stem, names in slides.items()],
        f"Patients whose slides count as patients: {len(slides):,}, with {sum(map(len, slides.values())):,} ids.",
        "No two ids look like slides of one patient.", unseen["HF010"], patients=len(slides),
    )  # fmt: skip


def classes_by_file(split: Split) -> Finding:
    """HF011: the format (end of the name) or the size (``height``, ``width``) of the files tells the class.

    Parameters
    ----------
    split : Split

    Returns
    -------
    finding : Finding
        A warning; one offender for the format and for the size. Each patch gets the commonest class of other patients'
        patches of its format, or its size. An issue if this removes half the errors of the commonest class of all, and
        so many hits, with patients as trials, have a probability below 0.001 by chance.
    """
    frame, y, found = split.dataset.frame, split.dataset.y, []
    if split.dataset.columns is not None or split.dataset.images is not None:
        return not_applicable("HF011", "The data set has no files of images.", "what else differs by class.")
    kinds = {"format": frame["path"].str.extract(r"(\.\w+)$", expand=False).str.lower().to_numpy(object)}
    if {"height", "width"} <= set(frame.columns):
        kinds["size"] = frame["height"].to_numpy() * 1_000_000 + frame["width"].to_numpy()
    common = float(np.bincount(y).max() / len(y))
    for kind, values in kinds.items():
        share = told_share(split, values)
        if share:
            found.append(f"the {kind} of the file tells the class of {share:.1%} of the patches")
    return decide(
        "HF011", found, f"Files that tell the class; the commonest class alone has {common:.1%} of the patches.",
        f"The class cannot be told from the {' or the '.join(kinds)} of the files.",
        "what else differs by class: scanner, stain, site, compression.", severity="warning", commonest=common,
    )  # fmt: skip


def told_share(split: Split, values: np.ndarray) -> float:
    """Share of the patches whose class is told by a value that they have in common with other patients.

    Parameters
    ----------
    split : Split
    values : ndarray of shape (n,)
        Such as the format of each file.

    Returns
    -------
    share : float
        0 where the value tells no more than chance, by the rule of HF011.
    """
    y, (code, names) = split.dataset.y, pd.factorize(values, use_na_sentinel=False)
    totals = np.bincount(y)
    common = float(totals.max() / len(y))
    places, group = np.unique(split.patient * len(names) + code, return_inverse=True)
    own, every = (np.zeros((n, len(totals))) for n in (len(places), len(names)))
    np.add.at(own, (group, y), 1)
    np.add.at(every, (code, y), 1)
    others = every[places % len(names)] - own
    told = np.where(others.any(axis=1), others.argmax(axis=1), totals.argmax())
    share = own[np.arange(len(own)), told].sum() / len(y)
    hits = round(share * len(split.ids))
    tells = share - common >= (1 - common) / 2 and bdtrc(hits - 1, len(split.ids), common) < 1e-3
    return float(share) if tells else 0.0


def contradicting_patients(split: Split) -> tuple[str, ...]:
    """Patients under two labels, in a data set whose labels are those of patients.

    Parameters
    ----------
    split : Split

    Returns
    -------
    offenders : tuple of str
        One for each case number with more than one label; ids that differ in section letters are one case.
        Empty where ``dataset.labels_per`` is "patch".
    """
    if split.dataset.labels_per != "patient":
        return ()
    ids, names = (np.array(known, dtype=object) for known in (split.ids, split.dataset.target_names))
    table = pd.DataFrame({"id": ids[split.patient], "label": names[split.dataset.y]}).drop_duplicates()
    cases = table.groupby(table["id"].map(case_number), sort=False).agg(set)
    return tuple(
        f"{' and '.join(sorted(ids))}: {' and '.join(sorted(labels))}"
        for ids, labels in cases.itertuples(index=False)
        if len(labels) > 1
    )


#: BreakHis puts the tumour type before the year; one case filed under two types is one patient all the same.
_TUMOUR_TYPE = re.compile(r"(?:SOB_)?(?:[BM]_)?(?:A|F|PT|TA|DC|LC|MC|PC)[-_](?=\d+-\d)", re.IGNORECASE)

#: Numbers only, so that "TCGA-A1-A0SB" and "patient7b" are not taken for sections of one case.
_SECTION = re.compile(r"((?:\d+-)?\d+)([A-Z]{0,3})", re.IGNORECASE | re.ASCII)


def _parts(identifier: str) -> tuple[str, str]:
    match = _SECTION.fullmatch(_TUMOUR_TYPE.sub("", identifier.strip(), count=1))
    return (identifier, "") if match is None else (match.group(1), match.group(2).upper())


def case_number(identifier: str) -> str:
    """Number of the case that an id belongs to, or the id itself where it has another form.

    Parameters
    ----------
    identifier : str
        Such as ``"22549AB"``, ``"14-22549AB"`` or ``"SOB_B_A-14-22549AB"``.

    Returns
    -------
    number : str
        Without section letters and without BreakHis's tumour type.

    Examples
    --------
    >>> [case_number(name) for name in ("22549AB", "22549G", "SOB_M_LC-14-13412", "8863", "TCGA-A1-A0SB")]
    ['22549', '22549', '14-13412', '8863', 'TCGA-A1-A0SB']
    """
    return _parts(identifier)[0]


def section_letters(identifier: str) -> str:
    """Letters of the section at the end of an id, in capitals; empty where there are none.

    Examples
    --------
    >>> section_letters("14-22549ab"), section_letters("18842"), section_letters("TCGA-A1-A0SB")
    ('AB', '', '')
    """
    return _parts(identifier)[1]
