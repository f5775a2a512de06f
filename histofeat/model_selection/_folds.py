"""Splitters that keep each patient on one side, and `fold_rows`, which turns ``cv=`` into checked row numbers."""

from collections.abc import Iterable, Iterator
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.model_selection import BaseCrossValidator, StratifiedGroupKFold, StratifiedKFold

from histofeat.exceptions import GroupLeakageError, check_whole
from histofeat.model_selection._patients import check_labels, encode_patients, shown_class

_ATTEMPTS = 20
#: Training and test rows.
_Rows = tuple[np.ndarray, np.ndarray]


class SeededSplitter(BaseCrossValidator):
    """Base of the splitters: its representation, the number of splits, and rows from the test side of each split."""

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

        Raises
        ------
        ValueError
            If a parameter or `y` is unusable, or the sides cannot each have every class.
        GroupLeakageError
            If patients are needed and missing.
        """
        self._check_params()
        labels = check_labels(y, X.shape[0] if hasattr(X, "shape") else len(X), type(self).__name__)
        return ((np.flatnonzero(~test), np.flatnonzero(test)) for test in self._test_sides(labels, groups))


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
        seed = self.random_state
        if seed is not None and (not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed < 2**32):
            raise ValueError(
                f"{name}.random_state: expected None or an integer from 0 to 2**32 - 1, got {seed!r}. "
                "Use an integer for the same folds each time."
            )


class PatientKFold(_SeededKFold):
    """K folds that keep each patient whole and each class in every fold.

    Every patient is tested exactly once. Classes are balanced as well as whole patients allow by
    `sklearn.model_selection.StratifiedGroupKFold`, which silently loses a class from a fold if few patients carry it.
    In that case the assignment is tried again by the number of patients that carry each class, with seeds derived
    from `random_state`, and refused if every try loses a class. A class that is tested in every fold is also trained
    on in every fold.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    shuffle : bool, default=True
        Whether patients are shuffled first. Without it there is one assignment only.
    random_state : int or None, default=0
        Seed of the shuffle; None gives different folds each time.

    Notes
    -----
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
    fold 1  ... TTT TTT ... TTT ... ... ...
    fold 2  TTT ... ... ... ... ... TTT ...
    fold 3  ... ... ... TTT ... TTT ... TTT
    """

    # Read by scikit-learn under metadata routing: the splitter requests groups by default.
    __metadata_request__split = {"groups": True}  # noqa: RUF012

    def _assign_folds(self, labels, groups):
        ids, codes = encode_patients(groups, len(labels))
        self._check_enough(ids, codes, labels)
        for attempt in range(_ATTEMPTS if self.shuffle else 1):
            folds = self._assign_once(labels, codes, attempt)
            lost = _lost_class(folds, labels, self.n_splits)
            if lost is None:
                return folds
        raise ValueError(
            f"PatientKFold.n_splits: expected every fold to test every class, got a fold without {shown_class(lost)}, "
            f"which {_carriers(lost, labels, codes)} of {len(ids)} patients carry, in each of {attempt + 1} "
            f"assignments. Use fewer than {self.n_splits} folds or another random_state."
        )

    def _check_enough(self, ids, codes, labels):
        if len(ids) < max(2, self.n_splits):
            raise ValueError(
                f"PatientKFold.n_splits: expected at least as many patients as folds, got {len(ids)} "
                f"patient{'s' if len(ids) > 1 else ''} for {self.n_splits} folds. "
                + ("Use fewer folds." if len(ids) > 1 else "One patient cannot be split: add patients.")
            )
        for label in np.unique(labels):
            carriers = _carriers(label, labels, codes)
            if carriers < self.n_splits:
                raise ValueError(
                    f"PatientKFold.n_splits: expected every fold to test every class, got {shown_class(label)} in only "
                    f"{carriers} of {len(ids)} patients for {self.n_splits} folds. "
                    + (
                        f"Use at most {carriers} folds."
                        if carriers > 1
                        else "Add patients, drop the class, or merge it with others: histofeat.merge_rare_classes."
                    )
                )

    def _assign_once(self, labels, codes, attempt):
        """Give the fold of every row; the first attempt is scikit-learn's own answer to `random_state`."""
        seed = self.random_state if self.shuffle else None
        if attempt == 0:
            splitter = StratifiedGroupKFold(self.n_splits, shuffle=self.shuffle, random_state=seed)
            return _stratified_by_group(labels, codes, splitter)[codes]
        # scikit-learn counts patches and assigns the largest patients first, whatever the seed. Here a patient counts
        # once for each class that it carries, so that the carriers of each class are spread evenly.
        if seed is not None:
            seed = int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])
        label_codes = np.unique(labels, return_inverse=True)[1]
        carried = np.unique(np.column_stack([codes, label_codes]), axis=0)
        splitter = StratifiedGroupKFold(self.n_splits, shuffle=True, random_state=seed)
        return _stratified_by_group(carried[:, 1], carried[:, 0], splitter)[codes]


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


def _stratified_by_group(labels, codes, splitter):
    """Give the fold of every group; `codes` are 0 to the number of groups less one."""
    fold_of_group = np.empty(codes.max() + 1, dtype=np.int64)
    for fold, (_, test) in enumerate(splitter.split(labels, labels, codes)):
        fold_of_group[codes[test]] = fold
    return fold_of_group


def _lost_class(folds, labels, n_splits):
    """Return the first class that some fold does not test, or None."""
    for label in np.unique(labels):
        if len(np.unique(folds[labels == label])) < n_splits:
            return label
    return None


def _carriers(label, labels, codes):
    return len(np.unique(codes[labels == label]))


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
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(
                f"{where}: expected a pair (train, test) for fold {number}, got {pair!r:.60}. "
                "Give the rows of both sides of each fold."
            )
        sides = zip(("training", "test"), pair, strict=True)
        folds.append(tuple(_as_rows(rows, len(y), f"{where}, {side} side of fold {number}") for side, rows in sides))
    if not folds:
        raise ValueError(f"{where}: expected at least one pair of (train, test) rows, got 0. Use PatientKFold(5).")
    if disjoint:
        _check_disjoint(folds, where)
    return tuple(folds)


def _as_rows(index, n_rows, where):
    index = np.asarray(index)
    if index.dtype == bool and index.shape == (n_rows,):
        index = np.flatnonzero(index)
    if index.ndim != 1 or not index.size or index.dtype.kind not in "iu":
        raise ValueError(
            f"{where}: expected row numbers or a mask over {n_rows:,} rows, got {index.dtype} of shape {index.shape}. "
            "Give one-dimensional arrays that are not empty."
        )
    if index.min() < 0 or index.max() >= n_rows:
        raise ValueError(
            f"{where}: expected row numbers from 0 to {n_rows - 1}, got {index.min()} to {index.max()}. "
            "Make the split from this very data set."
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
