"""Splitters that keep each patient on one side, and `fold_rows`, which turns ``cv=`` into checked row numbers."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import BaseCrossValidator, StratifiedKFold

from histofeat.exceptions import GroupLeakageError, check_that, check_whole
from histofeat.model_selection._dealing import DRAWS, MORE_CARRIERS, count_patches, deal_patients
from histofeat.model_selection._patients import check_labels, encode_patients, shown_class, warn_of_look_alikes

#: Training and test rows.
_Rows = tuple[np.ndarray, np.ndarray]


class SeededSplitter(BaseCrossValidator):
    """Base of the splitters: its representation, the number of splits, and rows from the test side of each split."""

    _keeps_patients = True

    def __repr__(self) -> str:
        """Return the call that makes this splitter."""
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in vars(self).items())})"

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of splits; the arguments are ignored."""
        return self.n_splits

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[_Rows]:
        """Generate the training and the test rows of every split.

        Parameters
        ----------
        X : sequence of length n
            Only its length is used.
        y : array-like of shape (n,)
            Class labels.
        groups : array-like of shape (n,)
            Patient ids.

        Returns
        -------
        iterator of (train, test)
            Ascending int64 row indices.

        Warns
        -----
        UserWarning
            If patients are kept whole and ids look alike, such as "007" and "7": they count as different patients.

        Raises
        ------
        ValueError
            If a parameter or `y` is unusable, or the sides cannot each have every class.
        GroupLeakageError
            If patients are needed and missing.
        """
        self._check_params()
        labels = check_labels(y, X.shape[0] if hasattr(X, "shape") else len(X), type(self).__name__)
        sides = self._test_sides(labels, groups)
        if self._keeps_patients:
            warn_of_look_alikes(groups, type(self).__name__)
        return ((np.flatnonzero(~test), np.flatnonzero(test)) for test in sides)


class _SeededKFold(SeededSplitter):
    """Base of the two k-fold splitters: parameters, their validation, and the test side of each fold."""

    def __init__(self, n_splits: int = 5, *, shuffle: bool = True, random_state: int | None = 0):
        self.n_splits = n_splits
        self.shuffle = shuffle
        self.random_state = random_state

    def _test_sides(self, labels, groups):
        folds = self._assign_folds(labels, groups)
        return (folds == fold for fold in range(self.n_splits))

    def _check_params(self):
        name = type(self).__name__
        check_whole(f"{name}.n_splits", self.n_splits, 2, "Use 5, or fewer where patients are few.")
        if not isinstance(self.shuffle, bool | np.bool_):
            raise ValueError(f"{name}.shuffle: expected True or False, got {self.shuffle!r}. Use True.")
        if self.random_state is not None:
            remedy = "Use an integer for the same folds each time, or None."
            check_whole(f"{name}.random_state", self.random_state, 0, remedy, most=2**32 - 1)


class PatientKFold(_SeededKFold):
    """K folds that keep each patient whole and each class in every fold.

    Every patient is tested exactly once. Patients are balanced first: patients who carry the same classes are dealt to
    the folds in equal numbers, give or take one, and so are the carriers of each class. Then patches: large and small
    patients are spread, so that each fold has about its share of the patches of each class. A class that is tested in
    every fold is also trained on in every fold; where a fold would lose one, the split is refused.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    shuffle : bool, default=True
        Whether patients are dealt at random. Without it there is one assignment only, whatever the seed.
    random_state : int or None, default=0
        Seed of the shuffle; None gives different folds each time.

    Notes
    -----
    Patients who carry the same set of classes are one stratum (where labels are those of patients: a class), sorted by
    their number of patches, ties at random, and cut into blocks of `n_splits`. The patients of a block go, in random
    order, each to another fold: to the one with the fewest patches of their classes. Those of the last, smaller block
    of a stratum go where there are the fewest carriers of their classes. Of 20 such draws the one is kept in which the
    shares of carriers deviate least from ``1 / n_splits`` (sum of squares), and among equals those of patches.

    Groups are requested by default under scikit-learn's metadata routing. The folds do not depend on the
    order of the rows, nor on whether ids are integers or text.

    Examples
    --------
    Eight patients with three patches each, of class ``-`` or ``+``; ``T`` marks the patches tested in a fold:

    >>> patients = [p for p in "abcdefgh" for _ in range(3)]
    >>> y = [c == "+" for c in "--+-++---+-+--+---++--+-"]
    >>> def draw(title, marks):
    ...     print(title.ljust(8) + " ".join("".join(marks[i : i + 3]) for i in range(0, 24, 3)))
    >>> draw("patient", patients)
    patient aaa bbb ccc ddd eee fff ggg hhh
    >>> draw("class", ["-+"[label] for label in y])
    class   --+ -++ --- +-+ --+ --- ++- -+-
    >>> for fold, (_, test) in enumerate(PatientKFold(n_splits=3).split(patients, y, groups=patients), start=1):
    ...     draw(f"fold {fold}", ["T" if row in test else "." for row in range(24)])
    fold 1  ... ... TTT TTT TTT ... ... ...
    fold 2  ... ... ... ... ... ... TTT TTT
    fold 3  TTT TTT ... ... ... TTT ... ...
    """

    # Read by scikit-learn under metadata routing: the splitter requests groups by default.
    __metadata_request__split = {"groups": True}  # noqa: RUF012

    def _assign_folds(self, labels, groups):
        classes, counts, codes = count_patches(labels, groups)
        self._check_enough(counts > 0, classes)
        rng = np.random.default_rng(self.random_state) if self.shuffle else None
        fold_of, carried = deal_patients(counts, self.n_splits, rng)
        lost = (carried == 0).any(axis=0)
        if lost.any():
            raise ValueError(
                "PatientKFold.n_splits: expected every fold to test every class, got a fold without "
                f"{shown_class(classes[lost.argmax()])}, which {(counts[:, lost.argmax()] > 0).sum()} of {len(counts)} "
                f"patients carry, in each of {DRAWS if self.shuffle else 1} assignments. Use fewer than "
                f"{self.n_splits} folds or another random_state."
            )
        return fold_of[codes]

    def _check_enough(self, carries, classes):
        n_patients = len(carries)
        if n_patients < max(2, self.n_splits):
            raise ValueError(
                f"PatientKFold.n_splits: expected at least as many patients as folds, got {n_patients} "
                f"patient{'s' if n_patients > 1 else ''} for {self.n_splits} folds. "
                + ("Use fewer folds." if n_patients > 1 else "One patient cannot be split: add patients.")
            )
        for label, carriers in zip(classes, carries.sum(axis=0), strict=True):
            if carriers < self.n_splits:
                remedy = f"Use at most {carriers} folds." if carriers > 1 else MORE_CARRIERS
                raise ValueError(
                    f"PatientKFold.n_splits: expected every fold to test every class, got {shown_class(label)} in only "
                    f"{carriers} of {n_patients} patients for {self.n_splits} folds. {remedy}"
                )


class PatchKFold(_SeededKFold):
    """LEAKS PATIENTS: k stratified folds of single patches, only to show how misleading such a split is.

    Patches of one patient, and neighbours on one slide, are on both sides. A model that recognises the patient's stain
    then looks as if it recognised cancer, and its score says nothing about a new patient. `histofeat.evaluate` accepts
    it only with ``AuditPolicy(accept_findings=("HF001",))``. Use `PatientKFold` for everything else.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    shuffle : bool, default=True
        Whether patches are shuffled first.
    random_state : int or None, default=0
        Seed of the shuffle.

    Examples
    --------
    >>> patients = ["a"] * 4 + ["b"] * 4
    >>> for train, test in PatchKFold(n_splits=2).split(patients, [0, 0, 1, 1] * 2, groups=patients):
    ...     print(sorted({patients[row] for row in train} & {patients[row] for row in test}))
    ['a', 'b']
    ['a', 'b']
    """

    _keeps_patients = False

    def _assign_folds(self, labels, groups):
        classes, counts = np.unique(labels, return_counts=True)
        rarest = counts.argmin()
        if counts[rarest] < self.n_splits:
            raise ValueError(
                f"PatchKFold.n_splits: expected every fold to test every class, got {counts[rarest]} patches of "
                f"{shown_class(classes[rarest])} for {self.n_splits} folds. Use fewer folds."
            )
        seed = self.random_state if self.shuffle else None
        splitter = StratifiedKFold(self.n_splits, shuffle=self.shuffle, random_state=seed)
        folds = np.empty(len(labels), dtype=np.int64)
        for fold, (_, test) in enumerate(splitter.split(labels, labels)):
            folds[test] = fold
        return folds


def patients_per_fold(folds: Iterable[_Rows], y: ArrayLike, patients: ArrayLike) -> np.ndarray:
    """Count the test patients of each class in each fold.

    Parameters
    ----------
    folds : sequence of (train, test)
        Row numbers, as `fold_rows` gives them.
    y : array-like of shape (n,)
        Class labels.
    patients : array-like of shape (n,)
        Patient ids.

    Returns
    -------
    counts : ndarray of shape (n_folds, n_classes), int64
        Patients with a test patch of the class; classes in the order of ``numpy.unique(y)``. A patient with patches of
        several classes counts for each.

    Raises
    ------
    GroupLeakageError
        If a patient id is missing.

    Examples
    --------
    >>> y, patients = np.array([0, 1, 0, 0, 1]), ["a", "a", "b", "c", "c"]
    >>> patients_per_fold([([2, 3, 4], [0, 1]), ([0, 1], [2, 3, 4])], y, patients).tolist()
    [[1, 1], [2, 1]]
    """
    classes, labels = np.unique(y, return_inverse=True)
    carried = encode_patients(patients, len(labels), "patients")[1] * len(classes) + labels
    tested = (np.unique(carried[np.asarray(test, dtype=np.int64)]) % len(classes) for _, test in folds)
    return np.array([np.bincount(of_fold, minlength=len(classes)) for of_fold in tested])


def fold_rows(cv: Any, y: Any, patients: Any, where: str, *, disjoint: bool = True) -> tuple[_Rows, ...]:
    """Turn what is given as ``cv=`` into checked row numbers.

    Parameters
    ----------
    cv : splitter or iterable of (train, test)
        Pairs hold row numbers, or masks over all rows.
    y : ndarray of shape (n,)
        Labels, for a splitter.
    patients : ndarray of shape (n,)
        Patient ids, for a splitter.
    where : str
        What an error message names, such as "evaluate.cv".
    disjoint : bool, default=True
        Whether to refuse rows on both sides of a fold, and rows that are tested in more than one.

    Returns
    -------
    folds : tuple of (ndarray, ndarray), int64
        Training and test rows of each fold.

    Raises
    ------
    ValueError
        If `cv` is no split of these rows, or a row is tested twice.
    GroupLeakageError
        If a row is on both sides of a fold.

    Examples
    --------
    >>> y, patients = np.array([0, 1, 0]), np.array(["a", "a", "b"])
    >>> [(train, test)] = fold_rows([([True, True, False], [2])], y, patients, "cv")
    >>> train.tolist(), test.tolist()
    ([0, 1], [2])
    """
    if hasattr(cv, "split") and not isinstance(cv, str):
        cv = cv.split(np.arange(len(y)), y, patients)
    elif isinstance(cv, str) or not isinstance(cv, Iterable):
        raise ValueError(
            f"{where}: expected a splitter or pairs of (train, test) rows, got {cv!r:.60}. Use PatientKFold(5)."
        )
    folds = []
    for number, pair in enumerate(cv, start=1):
        fits, remedy = isinstance(pair, tuple | list) and len(pair) == 2, "Give the rows of both sides of each fold."
        check_that(where, pair, fits, f"a pair (train, test) for fold {number}", remedy)
        sides = zip(("training", "test"), pair, strict=True)
        folds.append(tuple(row_numbers(rows, len(y), f"{where}, {side} side of fold {number}") for side, rows in sides))
    if not folds:
        raise ValueError(f"{where}: expected at least one pair of (train, test) rows, got 0. Use PatientKFold(5).")
    if disjoint:
        _check_disjoint(folds, where)
    return tuple(folds)


def row_numbers(index: Any, n_rows: int, where: str, *, error: type[ValueError] = ValueError) -> np.ndarray:
    """Give the numbers of rows that a mask or an array of row numbers chooses, in its order.

    Parameters
    ----------
    index : array-like of bool, shape (n_rows,), or of int
        A mask, or row numbers from 0.
    n_rows : int
        How many rows there are.
    where : str
        What a message names.
    error : type of ValueError
        What is raised.

    Returns
    -------
    rows : ndarray of int64

    Raises
    ------
    ValueError
        If it is neither of both or chooses none, or a row number is outside or there twice.

    Examples
    --------
    >>> row_numbers([True, False, True], 3, "train").tolist()
    [0, 2]
    """
    index = np.asarray(index)
    if index.dtype == bool and index.shape == (n_rows,):
        index = np.flatnonzero(index)
    if index.ndim != 1 or not index.size or index.dtype.kind not in "iu":
        raise error(
            f"{where}: expected row numbers or a mask over {n_rows:,} rows, got {index.dtype} of shape {index.shape}. "
            "Give one-dimensional arrays that are not empty."
        )
    if index.min() < 0 or index.max() >= n_rows:
        raise error(
            f"{where}: expected row numbers from 0 to {n_rows - 1}, got {index.min()} to {index.max()}. "
            "Choose rows of this very data set."
        )
    rows, times = np.unique(index, return_counts=True)
    if len(rows) < len(index):
        raise error(
            f"{where}: expected each row once, got row {rows[times > 1][0]} again ({(times > 1).sum()} such rows). "
            "Give each row once: weigh classes by class_weight, resample scores."
        )
    return index.astype(np.int64)


def _check_disjoint(folds, where):
    for number, (train, test) in enumerate(folds, start=1):
        both = np.intersect1d(train, test)
        if both.size:
            raise GroupLeakageError(
                f"{where}: expected training and test rows to differ, got row {both[0]} on both sides of fold {number} "
                f"({both.size} such rows). Remove the rows from one side."
            )
    rows, times = np.unique(np.concatenate([test for _, test in folds]), return_counts=True)
    if (times > 1).any():
        raise ValueError(
            f"{where}: expected each row to be tested at most once, got row {rows[times > 1][0]} tested again "
            f"({(times > 1).sum()} such rows). Evaluate repeated hold-outs one at a time."
        )
