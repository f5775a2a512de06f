"""Split a data set by patient into train, validation and test, with the classes in proportion."""

import math
import os
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np

from histofeat.datasets._base import PatchDataset
from histofeat.datasets._parts import PARTS, DatasetSplit
from histofeat.datasets._split_files import check_target, write_split
from histofeat.exceptions import DatasetError, check_that, check_type, check_whole
from histofeat.model_selection import encode_patients

#: Random assignments to choose from. The balance gains little beyond; with very many patients one is nearly exact.
_ATTEMPTS = 200
_MAX_WORK = 2_000_000


def split_dataset(
    dataset: PatchDataset,
    *,
    test_size: float = 0.2,
    validation_size: float = 0.1,
    random_state: int | None = 0,
    write_to: str | os.PathLike[str] | None = None,
    mode: str = "index",
) -> DatasetSplit:
    """Split a data set by patient into train, validation and test, with the classes in proportion.

    Parameters
    ----------
    dataset : PatchDataset
    test_size : float, default=0.2
        Share for the test part, between 0 and 1.
    validation_size : float, default=0.1
        Share *of the rest* for the validation part, from 0 (no such part) to below 1. The defaults give 72 % train, 8 %
        validation and 20 % test.
    random_state : int or None, default=0
        Seed; None gives another split each time.
    write_to : path, optional
        Folder, new or empty, for "copy" and "link"; new file for "csv". Made whole or not at all.
    mode : {"index", "csv", "copy", "link"}, default="index"
        "index" writes nothing; "csv" a table for `load_manifest`; "copy" and "link" the tree
        ``PART/CLASS/PATIENT/IMAGE`` (for `load_image_folder`) with that table in it as ``manifest.csv``, with copies of
        the files or symbolic links to them.

    Returns
    -------
    DatasetSplit
        Rows and patients per part, and what was reached.

    Raises
    ------
    DatasetError
        When an argument is unusable; when a class has fewer patients than there are parts, so that a part would lose
        it; when `write_to` exists and is not empty, lies among the images, cannot be written or has no room.
    GroupLeakageError
        When a row has no patient.

    Notes
    -----
    Patients are put into strata by the rarest class that they carry, and assigned at random within each, in
    proportion. A part without a class gets a random patient that has it. Of many such assignments the one is kept
    whose shares of patients and of images of each class deviate least (in the sense of chi squared) from those asked
    for. Neither the order of the rows nor the type of the ids matters.

    Where patients differ in their number of images, no choice of whole patients gives the exact shares: ``reached``
    gives those that were reached.

    Examples
    --------
    >>> from histofeat.datasets import make_cohort
    >>> split = split_dataset(make_cohort(n_patients=20, patches_per_patient=4))
    >>> [len(split.patients[part]) for part in ("train", "validation", "test")], split.shared_patients
    ([14, 2, 4], ())
    """
    remedy = "Load one, for example with load_image_folder."
    check_type("split_dataset.dataset", dataset, PatchDataset, "a PatchDataset", remedy, error=DatasetError)
    asked = _shares(test_size, validation_size)
    if random_state is not None:
        check_whole("split_dataset.random_state", random_state, 0, most=2**32 - 1, error=DatasetError)
    target = check_target(dataset, write_to, mode)
    ids, codes = encode_patients(dataset.patients, len(dataset), "dataset.patients")
    counts = np.zeros((len(ids), len(dataset.target_names)), dtype=np.int64)
    np.add.at(counts, (codes, dataset.y), 1)
    _check_enough(dataset, counts, asked)
    part_of = _assign(counts, np.array(list(asked.values())), random_state)
    if part_of is None:
        raise DatasetError(
            f"split_dataset: expected every class in every part, got none such in {_n_attempts(len(ids))} assignments "
            f"of {len(ids):,} patients. Use other sizes or another random_state, or merge rare classes."
        )
    parts = np.array(list(asked), dtype=object)[part_of][codes]
    split = DatasetSplit.from_parts(dataset, parts, asked=asked, random_state=random_state)
    if target is not None:
        write_split(dataset, split, target, mode)
    return replace(split, written_to=target)


def _shares(test_size: Any, validation_size: Any) -> dict[str, float]:
    """Part to share of the whole; parts of no size are not there."""
    for name, value, least in (("test_size", test_size, "more than 0"), ("validation_size", validation_size, "0")):
        number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        fits, expected = number and 0 <= value < 1 and (value or least == "0"), f"a share from {least} to less than 1"
        check_that(f"split_dataset.{name}", value, fits, expected, "Give 0.2 for 20 %.", error=DatasetError)
    validation = (1 - test_size) * validation_size
    shares = {"train": 1 - test_size - validation, "validation": validation, "test": test_size}
    return {part: float(shares[part]) for part in PARTS if shares[part] > 0}


def _check_enough(dataset: PatchDataset, counts: np.ndarray, asked: dict[str, float]) -> None:
    for code, carriers in enumerate((counts > 0).sum(axis=0)):
        if 0 < carriers < len(asked):
            raise DatasetError(
                f"split_dataset: expected every class in each of {len(asked)} parts, got class "
                f"{dataset.target_names[code]!r} in only {carriers} of {len(counts):,} patients. Merge or drop the "
                f"class, add patients{', or use validation_size=0' if carriers == 2 and len(asked) == 3 else ''}."
            )


def _assign(counts: np.ndarray, shares: np.ndarray, seed: int | None) -> np.ndarray | None:
    """Part of every patient: of many stratified random assignments the one of the best balance.

    Parameters
    ----------
    counts : ndarray of shape (n_patients, n_classes), int64
        Images of each patient by class.
    shares : ndarray of shape (n_parts,)
        What each part is to have; the sum is 1.
    seed : int or None

    Returns
    -------
    part_of : ndarray of shape (n_patients,), int64, or None
        None when each assignment lost a class from a part.
    """
    counts = counts[:, counts.sum(axis=0) > 0]
    carries = counts > 0
    n_carriers = carries.sum(axis=0)
    # The rarest class of each patient: classes with few patients are strata of their own.
    stratum = np.where(carries, n_carriers, np.iinfo(np.int64).max).argmin(axis=1)
    strata = [np.flatnonzero(stratum == code) for code in np.unique(stratum)]
    weights = np.column_stack([counts / counts.sum(axis=0), np.full(len(counts), 1 / len(counts))])
    # Where less than one patient is asked for, one is what there will be.
    scale = np.maximum(shares, 1 / len(counts))[:, None]
    best, best_loss = None, np.inf
    rng = np.random.default_rng(seed)
    for _ in range(_n_attempts(len(counts))):
        part_of = np.empty(len(counts), dtype=np.int64)
        for members in strata:
            part_of[rng.permutation(members)] = np.repeat(np.arange(len(shares)), _deal(len(members), shares, rng))
        if not _give_lost_classes(part_of, carries, len(shares), rng):
            continue
        held = np.stack([weights[part_of == part].sum(axis=0) for part in range(len(shares))])
        loss = float((((held - shares[:, None]) ** 2) / scale).sum())
        if loss < best_loss:
            best, best_loss = part_of, loss
    return best


def _n_attempts(n_patients: int) -> int:
    return int(np.clip(_MAX_WORK // n_patients, 8, _ATTEMPTS))


def _deal(n: int, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whole numbers that sum to `n`, within one of n * shares and with those as their expectation.

    Notes
    -----
    Systematic sampling (Madow 1949, https://doi.org/10.1214/aoms/1177729988): the cumulated shares are cut at u,
    u + 1, ... for one random u.
    """
    edges = np.concatenate([[0.0], np.cumsum(shares)]) * n
    edges[-1] = n
    return np.diff(np.floor(edges + rng.random()).astype(np.int64))


def _give_lost_classes(part_of: np.ndarray, carries: np.ndarray, n_parts: int, rng: np.random.Generator) -> bool:
    """Move a carrier into each part that lacks a class, in place; False where that lost another one."""
    for code in range(carries.shape[1]):
        members = np.flatnonzero(carries[:, code])
        for part in range(n_parts):
            held = np.bincount(part_of[members], minlength=n_parts)
            if not held[part]:
                part_of[rng.choice(members[part_of[members] == held.argmax()])] = part
    held = np.stack([carries[part_of == part].any(axis=0) for part in range(n_parts)])
    return bool(held.all())
