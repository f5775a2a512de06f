"""Splits made of other splits or draws: random hold-outs, repeated folds, and folds with few training patches."""

import zlib
from collections.abc import Iterator
from itertools import chain
from numbers import Real
from typing import Any

import numpy as np

from histofeat.exceptions import check_that, check_whole
from histofeat.model_selection._dealing import MORE_CARRIERS, count_patches
from histofeat.model_selection._folds import PatientKFold, SeededSplitter
from histofeat.model_selection._patients import encode_patients, shown_class

_ATTEMPTS = 20


class PatientHoldOuts(SeededSplitter):
    """Repeated random splits that hold out a share of the patients, with each class on both sides.

    The protocol of BreakHis (Spanhol et al. 2016): five random 70/30 splits by patient. The published splits are lists
    of files; these are random splits of the same kind. A patient can be tested several times or never: unlike those of
    a cross-validation, the test sets overlap. Evaluate the splits one at a time, and compare models with the correction
    of Nadeau and Bengio (`histofeat.metrics.nadeau_bengio`).

    Parameters
    ----------
    n_splits : int, default=5
        Number of splits, at least 1.
    test_size : float, default=0.3
        Share of the patients on the test side, between 0 and 1.
    random_state : int or None, default=0
        Seed; None gives different splits each time.

    Notes
    -----
    Patients are drawn within their label, that of most of their images (the first in order if two are equally
    frequent). Each label gets its share of the test patients, to the nearest whole patient, at least one and never all.
    If patients carry several labels, a draw can still leave a side without a class; it is then repeated, at most 20
    times. The splits do not depend on the order of the rows, nor on whether ids are integers or text. Groups are
    requested by default under scikit-learn's metadata routing. Nadeau and Bengio 2003:
    https://doi.org/10.1023/A:1024068626366; Spanhol et al. 2016: https://doi.org/10.1109/TBME.2015.2496264.

    Examples
    --------
    Ten patients with two images each, of class ``-`` or ``+``; ``T`` marks the images tested in a split:

    >>> patients = [p for p in "abcdefghij" for _ in range(2)]
    >>> y = ["-" if p in "abcd" else "+" for p in patients]
    >>> def draw(title, marks):
    ...     print(title.ljust(8) + " ".join("".join(marks[i : i + 2]) for i in range(0, 20, 2)))
    >>> draw("patient", patients)
    patient aa bb cc dd ee ff gg hh ii jj
    >>> draw("class", y)
    class   -- -- -- -- ++ ++ ++ ++ ++ ++
    >>> for number, (_, test) in enumerate(PatientHoldOuts(n_splits=2).split(patients, y, groups=patients), start=1):
    ...     draw(f"split {number}", ["T" if row in test else "." for row in range(20)])
    split 1 .. .. .. TT TT TT .. .. .. ..
    split 2 .. .. .. TT .. TT .. TT .. ..
    """

    # Read by scikit-learn under metadata routing: the splitter requests groups by default.
    __metadata_request__split = {"groups": True}  # noqa: RUF012

    def __init__(self, n_splits: int = 5, test_size: float = 0.3, random_state: int | None = 0):
        self.n_splits = n_splits
        self.test_size = test_size
        self.random_state = random_state

    def _test_sides(self, labels, groups):
        classes, carried, codes = count_patches(labels, groups)
        self._check_carriers(carried > 0, classes)
        seed = np.random.SeedSequence(self.random_state)
        return [self._draw(carried, classes, child)[codes] for child in seed.spawn(self.n_splits)]

    def _check_params(self):
        check_whole("PatientHoldOuts.n_splits", self.n_splits, 1, "Use 5.")
        if self.random_state is not None:
            check_whole("PatientHoldOuts.random_state", self.random_state, 0, "Use 0.")
        size = self.test_size
        fits = isinstance(size, Real) and not isinstance(size, bool) and 0 < size < 1
        check_that("PatientHoldOuts.test_size", size, fits, "a share of the patients between 0 and 1", "Use 0.3.")

    def _check_carriers(self, carried, classes):
        rarest = carried.sum(axis=0).argmin()
        if carried[:, rarest].sum() < 2:
            raise ValueError(
                f"PatientHoldOuts.split: expected every class on both sides, got {shown_class(classes[rarest])} in 1 "
                f"of {len(carried)} patients. {MORE_CARRIERS}"
            )

    def _draw(self, carried, classes, seed):
        """Mask of the patients who are tested in one split."""
        label = carried.argmax(axis=1)
        n_test = _apportion(np.bincount(label, minlength=len(classes)), self.test_size)
        for attempt in seed.spawn(_ATTEMPTS):
            rng = np.random.default_rng(attempt)
            test = np.zeros(len(carried), dtype=bool)
            for code, n in enumerate(n_test):
                test[rng.permutation(np.flatnonzero(label == code))[:n]] = True
            lost = ~((carried[test] > 0).any(axis=0) & (carried[~test] > 0).any(axis=0))
            if not lost.any():
                return test
        raise ValueError(
            f"PatientHoldOuts.split: expected every class on both sides, got a side without "
            f"{shown_class(classes[lost.argmax()])} in each of {_ATTEMPTS} draws. "
            "Use another test_size or random_state, or merge the class with others: histofeat.merge_rare_classes."
        )


class RepeatedPatientKFold(SeededSplitter):
    """`PatientKFold`, repeated with another seed each time.

    Each repeat tests every patient once. Patients of one fold differ from repeat to repeat, so that the scores show
    what other training patients would have changed.

    Parameters
    ----------
    n_splits : int, default=5
        Folds of each repeat, at least 2.
    n_repeats : int, default=3
        Number of repeats, at least 1.
    random_state : int or None, default=0
        Seed, from which that of each repeat is derived; None gives different folds each time.

    Notes
    -----
    As `sklearn.model_selection.RepeatedStratifiedKFold`: the splits are those of the first repeat, then of the second,
    and so on. Groups are requested by default under scikit-learn's metadata routing.

    Examples
    --------
    >>> patients, y = list("aabbccddeeff"), [0, 1] * 6
    >>> cv = RepeatedPatientKFold(n_splits=2, n_repeats=2)
    >>> cv.get_n_splits()
    4
    >>> for _, test in cv.split(patients, y, groups=patients):
    ...     print("".join(patients[row] for row in test[::2]))
    abf
    cde
    acf
    bde
    """

    # Read by scikit-learn under metadata routing: the splitter requests groups by default.
    __metadata_request__split = {"groups": True}  # noqa: RUF012

    def __init__(self, n_splits: int = 5, n_repeats: int = 3, random_state: int | None = 0):
        self.n_splits = n_splits
        self.n_repeats = n_repeats
        self.random_state = random_state

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of splits of all repeats together; the arguments are ignored."""
        return self.n_splits * self.n_repeats

    def repeats(self) -> list[PatientKFold]:
        """Return the splitter of each repeat."""
        seeds = np.random.SeedSequence(self.random_state).generate_state(self.n_repeats)
        return [PatientKFold(self.n_splits, random_state=int(seed)) for seed in seeds]

    def _test_sides(self, labels, groups):
        return chain.from_iterable([cv._test_sides(labels, groups) for cv in self.repeats()])

    def _check_params(self):
        check_whole("RepeatedPatientKFold.n_splits", self.n_splits, 2, "Use 5, or fewer where patients are few.")
        check_whole("RepeatedPatientKFold.n_repeats", self.n_repeats, 1, "Use 3.")
        if self.random_state is not None:
            check_whole("RepeatedPatientKFold.random_state", self.random_state, 0, "Use 0.")


class LimitedTraining(SeededSplitter):
    """The splits of another splitter, with at most so many training patches of each patient.

    Test rows stay complete. Fits on large data take less time and memory; patients with many patches lose weight.

    Parameters
    ----------
    cv : splitter
        Such as ``PatientKFold(3)``.
    patches_per_patient : int
        The most training patches of a patient, at least 1.
    random_state : int, default=0
        Seed of the draw.

    Notes
    -----
    Patches are drawn at random, whatever their class. The draw depends on the seed, the patient's id and how many
    patches the patient has: it is the same in every split, also among the training rows of another splitter. Groups
    are requested by default under scikit-learn's metadata routing.

    Examples
    --------
    >>> patients, y = list("aaaabbbbcccc"), [0, 1] * 6
    >>> for train, test in LimitedTraining(PatientKFold(3), 3).split(patients, y, groups=patients):
    ...     print("".join(patients[row] for row in train), "".join(patients[row] for row in test))
    bbbccc aaaa
    aaabbb cccc
    aaaccc bbbb
    """

    # Read by scikit-learn under metadata routing: the splitter requests groups by default.
    __metadata_request__split = {"groups": True}  # noqa: RUF012

    def __init__(self, cv: Any, patches_per_patient: int, *, random_state: int = 0):
        self.cv = cv
        self.patches_per_patient = patches_per_patient
        self.random_state = random_state

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of splits of the other splitter."""
        return self.cv.get_n_splits(X, y, groups)

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
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
            Row indices, in the order of the other splitter.

        Raises
        ------
        ValueError
            If a parameter is unusable, or the training rows of a split lose a class.
        GroupLeakageError
            If patients are missing.
        """
        self._check_params()
        drawn = self._draw(encode_patients(groups, X.shape[0] if hasattr(X, "shape") else len(X)))
        return (self._limit(train, test, drawn, np.asarray(y)) for train, test in self.cv.split(X, y, groups))

    def _check_params(self):
        fits, remedy = hasattr(self.cv, "split") and not isinstance(self.cv, str), "Use PatientKFold(3)."
        check_that("LimitedTraining.cv", self.cv, fits, "a splitter", remedy)
        check_whole("LimitedTraining.patches_per_patient", self.patches_per_patient, 1, "Use 200.")
        check_whole("LimitedTraining.random_state", self.random_state, 0, "Use 0.")

    def _draw(self, encoded):
        """Mask of the rows that may be trained on."""
        ids, codes = encoded
        drawn, ends = np.ones(len(codes), dtype=bool), np.cumsum(np.bincount(codes))
        for patient, rows in zip(ids, np.split(np.argsort(codes, kind="stable"), ends[:-1]), strict=True):
            if len(rows) > self.patches_per_patient:
                rng = np.random.default_rng([self.random_state, zlib.crc32(patient.encode())])
                drawn[rng.permutation(rows)[self.patches_per_patient :]] = False
        return drawn

    def _limit(self, train, test, drawn, y):
        kept = train[drawn[train]]
        lost = np.setdiff1d(y[train], y[kept])
        if lost.size:
            raise ValueError(
                f"LimitedTraining.patches_per_patient: expected training patches of every class, got none of "
                f"{shown_class(lost[0])} among {self.patches_per_patient} of each patient. Use more, or another "
                "random_state."
            )
        return kept, test


def _apportion(counts, share):
    """Count the test patients of each stratum: its share, rounded so that the total is right, from 1 to all but one."""
    counts = np.asarray(counts)
    exact = counts * float(share)
    # A stratum of one patient cannot be on both sides: it goes where its share says.
    least, most = np.minimum(1, counts - 1).clip(0), np.maximum(counts - 1, np.minimum(counts, 1)).clip(0)
    given = np.clip(np.floor(exact + 1e-9).astype(np.int64), least, most)
    total = int(np.floor(counts.sum() * float(share) + 0.5))
    for stratum in np.argsort(-(exact - given), kind="stable"):
        if given.sum() < total and given[stratum] < most[stratum]:
            given[stratum] += 1
    return given
