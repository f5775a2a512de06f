"""Audit a split by its names alone, and repair it: whole patients move, with all that may be of the same person."""

import re
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from histofeat.datasets import PatchDataset, SplitTable, official_roles, patients_by_name
from histofeat.evaluation.audit._audit import audit_split, cheap_findings
from histofeat.evaluation.audit._findings import AuditReport, Finding, decide, not_applicable
from histofeat.evaluation.audit._table_checks import Split, as_split, case_number, list_some, told_share
from histofeat.exceptions import counted
from histofeat.features import CNNEmbedding, HistoEmbedding, Runtime
from histofeat.model_selection import look_alikes, slides_of_one_patient
from histofeat.models import IDCPipeline

#: Patients below which an interval over patients means nothing.
_FEW = 3
#: What the images decide, where they are given.
_OF_PIXELS = ("HF002", "HF003", "HF006", "HF007")
#: Rows in which parts of names are looked at, and how many parts.
_LOOKED_AT, _N_PARTS = 20_000, 8
#: What names say of the class by design.
_CLASS_IN_NAME = re.compile(r"SOB_[BM]_[A-Z]{1,2}|(?:class|label)[_-]?\d+", re.IGNORECASE)
_CLASS_WORDS = {"benign", "malignant", "normal", "tumor", "tumour", "cancer", "positive", "negative", "pos", "neg"}


def audit_names(
    table: SplitTable, *, encoder: str | None = None, images: PatchDataset | None = None, runtime: Runtime | None = None
) -> AuditReport:
    """Audit a split by its names; no image is opened unless they are given.

    Parameters
    ----------
    table : SplitTable
        As from `read_split`.
    encoder : str, optional
        Name of an encoder, whose known training set is compared (HF007).
    images : PatchDataset, optional
        The images that were split, for HF002, HF003, HF006 and HF007 by pixels.
    runtime : Runtime, optional
        Threads, feature store and progress; see `histofeat.features.Runtime`. Results do not depend on it.

    Returns
    -------
    report : AuditReport
        HF001, HF004, HF005, HF007 and HF009 to HF015, without those of classes where there are no labels. HF005 says
        which numbers are on both sides, not who is whose.

    Raises
    ------
    ValueError
        If there is no such encoder.
    DatasetError
        If a side of a fold has no image.

    Examples
    --------
    >>> from histofeat.datasets import load_published_split
    >>> audit_names(load_published_split("idc-official")).errors
    ()
    """
    split = as_split(table.dataset, [sides for _, *sides in table.folds])
    family = None if encoder is None else HistoEmbedding() if encoder == "histo" else CNNEmbedding(encoder)
    model = family and IDCPipeline([family])
    found = {each.code: each for each in cheap_findings(split.dataset, split.folds, pipelines=model).findings}
    if encoder == "histo":
        found["HF007"] = _known_by_id(split, family.trained_on())
    crossing = [name for name, parts in table.repeated if len({*parts}) > 1]
    inside = [name for name, parts in table.repeated if len({*parts}) == 1]
    detail = f"Names that are listed more than once: {len(table.repeated):,}, in two parts {len(crossing):,}."
    severity, unseen = "error" if crossing else "warning", "one image under two names, for which HF002 looks."
    more = [decide("HF012", crossing + inside, detail, "Each name is listed once.", unseen, severity=severity)]
    more += [_siblings(table), _overlaps(split), _told_by_names(split), _few_patients(split)]
    if images is not None:
        folds, note = table.match(images)
        if note:
            warnings.warn(note, stacklevel=2)
        pixels = audit_split(images, folds, pipelines=model, runtime=runtime).findings
        more += [each for each in pixels if each.code in _OF_PIXELS]
    found |= {each.code: each for each in more}
    lost = ("HF008",) if table.labelled else ("HF004", "HF008", "HF011", "HF013", "HF015")
    return AuditReport(tuple(each for code, each in found.items() if code not in lost))


def _siblings(table: SplitTable) -> Finding:
    """HF005 by the facts of the names: numbers of cases that are on both sides of a fold under different ids."""
    frame, found, n_images = table.dataset.frame, [], 0
    case = _cases(frame)
    for fold, (_, *sides) in enumerate(table.folds, start=1):
        train, test = (frame["patient"].iloc[rows].groupby(case.iloc[rows]).unique() for rows in sides)
        n_test = frame["n_images"].iloc[sides[1]].groupby(case.iloc[sides[1]]).sum().astype(int)
        for number in test.index.intersection(train.index):
            if {*test[number]} != {*train[number]}:
                tested, trained = (", ".join(sorted(its[number])) for its in (test, train))
                of = f"{n_test[number]:,} of {n_test.sum():,} tested images"
                found.append(f"number {number} in fold {fold}: {tested} tested, {trained} trained on; {of}")
                n_images += int(n_test[number])
    detail = (
        f"Accession numbers on both sides of a fold under different ids: {len(found):,}; tested images: {n_images:,}."
    )
    otherwise, unseen = "No number is on both sides of a fold under different ids.", "ids that share no number."
    return decide("HF005", found, detail, otherwise, unseen, pairs=len(found), images=n_images)


def _cases(frame: pd.DataFrame) -> pd.Series:
    """Number of the case of each row, by its patient, or by its name where the column of patients is another."""
    first = patients_by_name(frame["name"][:1].tolist())
    if first is not None and first[0] not in frame["patient"].iat[0]:
        told = patients_by_name(frame["name"].tolist())
        if told is not None:
            return pd.Series(told)
    return frame["patient"].map({name: case_number(name) for name in frame["patient"].unique()})


def _known_by_id(split: Split, record: Any) -> Finding:
    """HF007 by the ids in a record of training on IDC, where most ids are of IDC."""
    tested = {split.ids[patient] for _, test in split.folds for patient in np.unique(split.patient[test])}
    of_idc = np.isin(split.ids, [*record.patients, *official_roles()]).mean() > 0.5
    known = sorted(tested & {*record.patients}) if of_idc else []
    found, detail = [f"patient {name}" for name in known], f"Tested patients in the record of histo: {len(known):,}."
    return decide("HF007", found, detail, detail, "patients under other ids; --images compares images.")


def _few_patients(split: Split) -> Finding:
    """HF015: a class that very few patients of a side carry."""
    names, y, found = split.dataset.target_names, split.dataset.y, []
    for fold, sides in enumerate(split.folds, start=1):
        for side, rows in zip(("training", "test"), sides, strict=True):
            carriers = np.bincount(np.unique(split.patient[rows] * len(names) + y[rows]) % len(names))
            few = np.flatnonzero((carriers > 0) & (carriers < _FEW))
            found += [f"{carriers[code]} of {names[code]!r} on the {side} side of fold {fold}" for code in few]
    detail = f"Classes that fewer than {_FEW} patients of a side carry: {len(found):,}."
    otherwise = f"At least {_FEW} patients carry each class that a side has."
    return decide("HF015", found, detail, otherwise, "how wide the intervals are.", severity="warning")


def _told_by_names(split: Split) -> Finding:
    """HF013: a part of the name, such as a site, tells the class of other patients by the rule of HF011."""
    rows, found = np.unique(np.linspace(0, len(split) - 1, _LOOKED_AT).astype(int)), {}
    some = split if len(rows) == len(split) else as_split(split.dataset.subset(rows), [(np.arange(len(rows)),) * 2])
    words = [re.findall(r"[^\W_]+", _CLASS_IN_NAME.sub(" ", name))[:_N_PARTS] for name in some.dataset.frame["name"]]
    classes = {name.casefold() for name in split.dataset.target_names} | _CLASS_WORDS
    whole = pd.DataFrame(words).fillna("")
    for views in (whole, whole.apply(lambda column: column.str.extract("^([^0-9]*)", expand=False))):
        for place, values in views.items():
            distinct = sorted(values.unique())
            by_design = len(distinct) < 2 or {value.casefold() for value in distinct} <= classes
            share = 0 if by_design or place in found else told_share(some, values.to_numpy())
            if share:
                found[place] = f"part {place + 1} ({list_some(distinct, 3)}) tells the class of {share:.1%}"
    detail, otherwise = f"Parts of names that tell the class: {len(found):,}.", "No part of the names tells the class."
    unseen = "what else differs by class: scanner, stain, site."
    return decide("HF013", found.values(), detail, otherwise, unseen, severity="warning")


def _overlaps(split: Split) -> Finding:
    """HF014: squares of one slide, or patient, that overlap across the sides of a fold."""
    frame, found, unseen = split.dataset.frame, {}, "slides that were cut twice."
    at = frame[["x", "y"]].astype(float).to_numpy() / frame["size"].to_numpy()[:, None]
    if np.isnan(at).any():
        return not_applicable("HF014", "Not all places of patches are known.", unseen)
    whose = pd.factorize(frame["slide"])[0] if "slide" in frame else split.patient
    at = np.column_stack([whose * (np.ptp(at) + 2), at])
    for fold, (train, test) in enumerate(split.folds, start=1):
        _, nearest = cKDTree(at[train]).query(at[test], p=np.inf, distance_upper_bound=1)
        for row in np.flatnonzero(nearest < len(train)):
            names = frame["name"].iloc[[test[row], train[nearest[row]]]]
            found.setdefault(test[row], f"{' overlaps '.join(names)} in fold {fold}")
    detail = f"Tested patches that overlap a training patch of their slide: {len(found):,}."
    return decide("HF014", found.values(), detail, "No tested patch overlaps a training patch.", unseen)


def repair_split(table: SplitTable) -> tuple[SplitTable, tuple[str, ...]]:
    """Move whole patients until nobody stands in two parts, with the sizes of parts and classes as they were.

    Patients whose ids differ in spelling, the letters of a section or the number of a slide move together.

    Parameters
    ----------
    table : SplitTable
        As from `read_split`.

    Returns
    -------
    repaired : SplitTable
    changes : tuple of str
        Each move, and each name that was listed twice.

    Examples
    --------
    >>> from histofeat.datasets import load_published_split
    >>> repaired, changes = repair_split(load_published_split("breakhis-eva"))
    >>> audit_names(repaired).finding("HF005").status, len(changes)
    ('passed', 4)
    """
    dataset, group = table.dataset, _persons(table.dataset.frame)
    sides, changes = [], [f"{name}: listed once" for name, parts in table.repeated if len(set(parts)) == 1]
    for title, places in table.places.groupby("hold_out", sort=False):
        parts, part = np.unique(places["part"], return_inverse=True)
        rows = places["row"].to_numpy()
        counts = np.zeros((group.max() + 1, len(parts), len(dataset.target_names) + 1))
        for label in (dataset.y[rows], -1):  # the last is all of them
            np.add.at(counts, (group[rows], part, label), dataset.frame["n_images"].to_numpy()[rows])
        chosen = _choose(counts)[group[rows]]
        new = pd.DataFrame({"hold_out": title, "row": rows, "part": parts[chosen]})
        moved = places.assign(to=new["part"].to_numpy(), patient=dataset.patients[rows]).query("part != to")
        for (patient, old, to), its in moved.groupby(["patient", "part", "to"], sort=False):
            changes.append(f"{title}: {old} -> {to}: {patient} ({counted(len(its), 'name')})".removeprefix(": "))
        sides.append(new.drop_duplicates())
    return replace(table, places=pd.concat(sides, ignore_index=True), repeated=()), tuple(changes)


def _persons(frame: pd.DataFrame) -> np.ndarray:
    """Number of each row's person, as far as ids and names tell."""
    code, ids = pd.factorize(frame["patient"])
    cases = len(ids) + pd.factorize(_cases(frame))[0]
    links = [*look_alikes(ids), *slides_of_one_patient(list(ids)).values()]
    number = {name: at for at, name in enumerate(ids)}
    pairs = [(number[names[0]], number[other]) for names in links for other in names[1:]]
    pairs += np.unique(np.column_stack([code, cases]), axis=0).tolist()
    edges = coo_matrix((np.ones(len(pairs)), np.transpose(pairs)), shape=(cases.max() + 1,) * 2)
    return connected_components(edges, directed=False)[1][code]


def _choose(counts: np.ndarray) -> np.ndarray:
    """Part of each group: its own, else of its parts the one that keeps the counts (groups, parts, classes)."""
    target, sizes = counts.sum(axis=0), counts[:, :, -1]
    chosen, n_parts = sizes.argmax(axis=1), (sizes > 0).sum(axis=1)
    held = counts[n_parts == 1].sum(axis=0)

    def loss(group: int, part: int) -> float:
        after = held.copy()
        after[part] += counts[group].sum(axis=0)
        return float(((after - target) ** 2 / (target + 1)).sum())

    for group in sorted(np.flatnonzero(n_parts > 1), key=lambda group: -sizes[group].sum()):
        chosen[group] = min(np.flatnonzero(sizes[group]), key=lambda part: loss(group, part))
        held[chosen[group]] += counts[group].sum(axis=0)
    for part, label in zip(*np.nonzero((held == 0) & (target.sum(axis=0) > 0)), strict=True):
        carries = counts[:, :, label].sum(axis=1) > 0
        givers = [group for group in np.flatnonzero(carries) if (carries & (chosen == chosen[group])).sum() > 1]
        if givers:
            chosen[min(givers, key=lambda group: sizes[group].sum())] = part
    return chosen
