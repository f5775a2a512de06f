"""Published hold-outs of BreakHis, ``dsfold1.txt`` to ``dsfold5.txt``, and our own of the same kind."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histofeat.datasets._base import PatchDataset
from histofeat.datasets._csv_rows import table_text
from histofeat.datasets.breakhis._tree import ImageName, archive_folders, parse_image
from histofeat.exceptions import DatasetError, GroupLeakageError, and_more, check_name, check_whole
from histofeat.model_selection import PatientHoldOuts

_N_FOLDS = 5
_LINE = "FILE.png|MAGNIFICATION|FOLD|train or test"
_ROLES = ("train", "test")
_LEAKS = {
    "siblings": "sections of one patient number on both sides",
    "two labels": "one slide, under two subtypes, on both sides",
    "slides": "images of one slide on both sides",
}
# What the authors' archive of lists is called.
_LISTS = "mkfold"


@dataclass(frozen=True, eq=False)
class BreakHisFolds:
    """Predefined 70/30 hold-outs of a BreakHis data set; to be evaluated one at a time, for their test sets overlap.

    Parameters
    ----------
    origin : str
        Where they come from: "published (dsfold1.txt to dsfold5.txt)", or the call that drew ours.
    published : bool
        Whether they are the published ones.
    splits : tuple of (ndarray, ndarray), int64
        Training and test rows of each.
    missing : tuple of int
        For each, the listed images that the data set lacks, of the magnifications that it has.
    unlisted : tuple of int
        For each, the rows of the data set that are on neither side.
    leaks : tuple of (str, int, str)
        Each leak: its name as in `accept`, the fold from 1, and what is on both sides.

    Examples
    --------
    >>> from histofeat.datasets import make_breakhis_cohort
    >>> cohort = make_breakhis_cohort(patients_per_subtype=2, images_per_slide=1, magnifications=(40,))
    >>> folds = breakhis_hold_outs(cohort)
    >>> folds.origin, len(folds), len(folds.cv(1))
    ('ours: PatientHoldOuts(n_splits=5, test_size=0.3, random_state=0)', 5, 1)
    """

    origin: str
    published: bool
    splits: tuple[tuple[np.ndarray, np.ndarray], ...]
    missing: tuple[int, ...]
    unlisted: tuple[int, ...]
    leaks: tuple[tuple[str, int, str], ...] = ()

    def __len__(self) -> int:
        return len(self.splits)

    def __repr__(self) -> str:
        return f"BreakHisFolds({self.origin!r}, {len(self)} hold-outs, {len(self.leaks)} leaks)"

    def cv(self, fold: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """One hold-out, counted from 1 as in the file names, for any ``cv=`` argument.

        Raises
        ------
        DatasetError
            When there is no such fold.
        """
        check_whole("BreakHisFolds.cv", fold, 1, "Evaluate one fold at a time.", most=len(self), error=DatasetError)
        train, test = self.splits[fold - 1]
        return [(train.copy(), test.copy())]

    def to_dict(self) -> dict[str, Any]:
        """Origin, counts and leaks as plain JSON types, for reports."""
        return {
            "origin": self.origin,
            "published": self.published,
            "folds": [
                {"fold": number, "n_train": len(train), "n_test": len(test), "missing": missing, "unlisted": unlisted}
                for number, ((train, test), missing, unlisted) in enumerate(
                    zip(self.splits, self.missing, self.unlisted, strict=True), start=1
                )
            ],
            "leaks": [{"leak": name, "fold": fold, "what": what} for name, fold, what in self.leaks],
        }


def read_breakhis_folds(
    dataset: PatchDataset, folder: str | os.PathLike[str] | None = None, accept: Sequence[str] = ()
) -> BreakHisFolds:
    """Read the five published hold-outs, as rows of a data set.

    Parameters
    ----------
    dataset : PatchDataset
        From `load_breakhis`, at one magnification or all.
    folder : path, optional
        Where ``dsfold1.txt`` to ``dsfold5.txt`` are. None looks beside the tree: in each folder from that of the two
        classes to the one that holds ``BreaKHis_v1``, and in ``mkfold`` in each of these.
    accept : sequence of {"siblings", "two labels", "slides"}, default=()
        Leaks of the lists that are known and wanted: "siblings", sections of one patient number (22549AB and 22549CD)
        on both sides; "two labels", a slide that lies under two subtypes (13412) on both sides; "slides", images of
        one slide under one subtype on both sides, which the published lists do not do.

    Returns
    -------
    BreakHisFolds
        With the accepted leaks in ``.leaks``.

    Raises
    ------
    DatasetError
        When the data set is not of BreakHis, a list is missing or has a line that cannot be read or contradicts
        itself, or a side has no image in this data set.
    GroupLeakageError
        When a patient is on both sides in a way that `accept` does not name.

    Notes
    -----
    They are five random splits by patient as published (Spanhol et al. 2016,
    https://doi.org/10.1109/TBME.2015.2496264), not a partition. Leaks are looked for by patient number in what this
    data set holds, for any ``patient_key``; `histofeat.evaluate` checks its patients and images again.
    """
    accepted = _check_accept(accept)
    rows = _rows_of(dataset)
    paths = _find_lists(dataset, folder)
    if paths is None:
        raise DatasetError(
            "read_breakhis_folds.folder: expected dsfold1.txt to dsfold5.txt in "
            f"{'or beside ' + str(dataset.root) if folder is None else folder}, got none. "
            "Give the folder that they lie in, or draw hold-outs of the same kind: breakhis_hold_outs."
        )
    powers = {name.magnification for name in rows}
    splits, missing, unlisted = [], [], []
    for number, path in enumerate(paths, start=1):
        roles = dict(_read_list(path, number))
        sides = [
            np.array([rows[n] for n, r in roles.items() if r == role and n in rows], dtype=np.int64) for role in _ROLES
        ]
        _check_sides(path, sides)
        splits.append((np.sort(sides[0]), np.sort(sides[1])))
        missing.append(sum(name.magnification in powers and name not in rows for name in roles))
        unlisted.append(len(rows) - sum(map(len, sides)))
    leaks = tuple(_leaks(rows, splits))
    _refuse(leaks, accepted)
    origin = f"published (dsfold1.txt to dsfold{_N_FOLDS}.txt)"
    return BreakHisFolds(origin, True, tuple(splits), tuple(missing), tuple(unlisted), leaks)


def breakhis_hold_outs(
    dataset: PatchDataset,
    folder: str | os.PathLike[str] | None = None,
    accept: Sequence[str] = (),
    random_state: int | None = 0,
) -> BreakHisFolds:
    """Published hold-outs where their lists are there, else five of the same kind, named as ours.

    Parameters
    ----------
    dataset : PatchDataset
        From `load_breakhis`.
    folder, accept
        As in `read_breakhis_folds`. With a `folder`, the lists must be there.
    random_state : int or None, default=0
        Seed of ours.

    Returns
    -------
    BreakHisFolds
        ``.published`` and ``.origin`` say which.

    Raises
    ------
    DatasetError, GroupLeakageError
        As in `read_breakhis_folds`.
    ValueError
        When ours cannot be drawn, see `histofeat.model_selection.PatientHoldOuts`.
    """
    if folder is not None or _find_lists(dataset, None) is not None:
        return read_breakhis_folds(dataset, folder, accept)
    _check_accept(accept)
    drawn = PatientHoldOuts(_N_FOLDS, random_state=random_state)
    splits = tuple(drawn.split(dataset.X, dataset.y, dataset.patients))
    # With full ids as patients, ours can put sections of one number on both sides: reported, not refused.
    leaks = tuple(_leaks(_rows_of(dataset), splits))
    nothing = (0,) * len(splits)
    return BreakHisFolds(f"ours: {drawn!r}", False, splits, nothing, nothing, leaks)


def _check_accept(accept: Sequence[str]) -> frozenset[str]:
    if isinstance(accept, str):
        accept = (accept,)
    for name in accept:
        check_name("read_breakhis_folds.accept", name, _LEAKS, error=DatasetError)
    return frozenset(accept)


def _rows_of(dataset: PatchDataset) -> dict[ImageName, int]:
    """Row of each image by what its file name says."""
    names = [parse_image(path.replace(os.sep, "/").rpartition("/")[2]) for path in dataset.X]
    for row, name in enumerate(names):
        if name is None:
            raise DatasetError(
                f"read_breakhis_folds.dataset: expected the images of BreakHis, got {dataset.relative_paths[row]!r} "
                f"in row {row}. Load the data set with load_breakhis."
            )
    return {name: row for row, name in enumerate(names)}


def _find_lists(dataset: PatchDataset, folder: str | os.PathLike[str] | None) -> list[Path] | None:
    """Paths of the five lists, or None where there is not one of them."""
    for place in _places(dataset) if folder is None else [Path(folder).expanduser()]:
        paths = [place / f"dsfold{number}.txt" for number in range(1, _N_FOLDS + 1)]
        absent = [path.name for path in paths if not path.is_file()]
        if not absent:
            return paths
        if len(absent) < _N_FOLDS:
            raise DatasetError(
                f"{place}: expected dsfold1.txt to dsfold{_N_FOLDS}.txt, got none named {', '.join(absent)}. "
                "Unpack the lists again."
            )
    return None


def _places(dataset: PatchDataset) -> Iterator[Path]:
    # From the tree that the first image is in: the root that was given may be above or inside the archive.
    for folder in archive_folders(Path(dataset.X[0]).parents[5]):
        yield folder
        yield folder / _LISTS


def _read_list(path: Path, number: int) -> Iterator[tuple[ImageName, str]]:
    """Image and role of every line."""
    seen: set[ImageName] = set()
    lines = table_text(path, "read_breakhis_folds.folder")[0].splitlines()
    for at, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fields = [part.strip() for part in line.split("|")]
        name = parse_image(fields[0]) if len(fields) == 4 and fields[3] in _ROLES else None
        wrong = None
        if name is None:
            wrong = f"{_LINE}, got {line!r}"
        elif fields[1:3] != [str(name.magnification), str(number)]:
            wrong = f"magnification {name.magnification} and fold {number}, got {fields[1]} and {fields[2]}"
        elif name in seen:
            wrong = f"each image once, got {fields[0]} again"
        if wrong:
            raise DatasetError(f"{path}, line {at}: expected {wrong}. Unpack the lists again.")
        seen.add(name)
        yield name, fields[3]


def _check_sides(path: Path, sides: Sequence[np.ndarray]) -> None:
    for role, rows in zip(_ROLES, sides, strict=True):
        if not len(rows):
            raise DatasetError(
                f"{path}: expected {role} images that are in the data set, got 0. Load a more complete copy, or draw "
                "hold-outs of what is there: PatientHoldOuts."
            )


def _leaks(
    names: Iterable[ImageName], splits: Sequence[tuple[np.ndarray, np.ndarray]]
) -> Iterator[tuple[str, int, str]]:
    """What is on both sides of each split: slides, then numbers under two full ids; `names` are those of the rows."""
    slides = [name.slide_name for name in names]
    for fold, split in enumerate(splits, start=1):
        train, test = ({slides[row] for row in side} for side in split)
        same = {(name.year, name.slide) for name in train & test}
        for slide in sorted({(name.year, name.slide) for name in train} & {(name.year, name.slide) for name in test}):
            yield "slides" if slide in same else "two labels", fold, "-".join(slide)
        for number in sorted({name.number for name in train} & {name.number for name in test}):
            found = sorted({name.slide for name in train | test if name.number == number})
            if len(found) > 1:
                yield "siblings", fold, f"{number} ({', '.join(found)})"


def _refuse(leaks: Sequence[tuple[str, int, str]], accepted: frozenset[str]) -> None:
    refused = [leak for leak in leaks if leak[0] not in accepted]
    if refused:
        name, fold, what = refused[0]
        needed = tuple(dict.fromkeys(leak[0] for leak in refused))
        raise GroupLeakageError(
            f"dsfold{fold}.txt: expected no patient on both sides, got {what}{and_more(len(refused))}: "
            f"{_LEAKS[name]}. Use PatientHoldOuts, or take the published lists as they are: accept={needed!r}."
        )
