"""Checked folds of an evaluation: no shared patients, none in the training set of an encoder, unless accepted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import check_cv

from histofeat.datasets import Look, PatchDataset
from histofeat.evaluation._plans import Folds
from histofeat.evaluation._results import LeftOut
from histofeat.evaluation.audit._audit import audit_encoders
from histofeat.evaluation.audit._encoders import find_known_patients
from histofeat.evaluation.audit._findings import AuditReport, check_audit, check_codes
from histofeat.evaluation.audit._table_checks import as_split, ids_of_one_patient, lost_classes
from histofeat.exceptions import GroupLeakageError, and_more, check_name, check_type
from histofeat.features import Runtime
from histofeat.model_selection import (
    LimitedTraining,
    PatchKFold,
    PatientKFold,
    check_no_shared_patients,
    encode_patients,
    fold_rows,
)

#: The inner folds by default. Halving the patches of a patient in them moved scores of labels by 0.002 on average.
INNER_CV = LimitedTraining(PatientKFold(3), 300)


@dataclass(frozen=True)
class AuditPolicy:
    """What to do with errors that the audit of a split finds.

    Parameters
    ----------
    accept_findings : sequence of str, default=()
        Codes of errors to accept; the result names them. ``("HF001",)`` accepts folds that share patients, such as
        those of `PatchKFold`, to show how much they overestimate.
    known_patients : {"refuse", "leave_out"}, default="refuse"
        What to do with test patients in the training set of an encoder. "refuse" raises HF007. "leave_out" tests
        all models on the other patients only; training rows stay the same, and a fold without remaining test
        patients is dropped.

    Raises
    ------
    ValueError
        If a code or the choice is unknown.

    Examples
    --------
    >>> AuditPolicy.of(None)
    AuditPolicy(accept_findings=(), known_patients='refuse')
    """

    accept_findings: tuple[str, ...] = ()
    known_patients: str = "refuse"

    def __post_init__(self) -> None:
        object.__setattr__(self, "accept_findings", check_codes(self.accept_findings))
        check_name("AuditPolicy.known_patients", self.known_patients, ("refuse", "leave_out"))

    @classmethod
    def of(cls, value: AuditPolicy | None) -> AuditPolicy:
        """Return the policy given as ``audit=``; the default one for None.

        Raises
        ------
        ValueError
            If it is neither.
        """
        value = cls() if value is None else value
        check_type("audit", value, cls, "an AuditPolicy or None", 'Pass AuditPolicy(accept_findings=("HF001",)).')
        return value


def check_folds(cv, dataset, policy, owner="evaluate"):
    """Turn `cv` into row numbers, and refuse shared patients unless the policy accepts them.

    Parameters
    ----------
    cv : splitter, iterable of (train, test), or None
        Rows or masks; None is ``PatientKFold(5)``.
    dataset : PatchDataset
    policy : AuditPolicy
    owner : str, default="evaluate"
        The function that an error message names.

    Returns
    -------
    splits : tuple of (ndarray, ndarray), int64
        Training and test rows of each fold.
    overlap : bool
        Whether a patient is on both sides of a fold.

    Raises
    ------
    GroupLeakageError
        If a row is on both sides of a fold, a patient is and this is not accepted, or patients are missing.
    ValueError
        If `dataset` is none, or `cv` is no split of these rows, or tests a row twice.
    """
    check_type(f"{owner}.dataset", dataset, PatchDataset, "a PatchDataset", "Read one with open_dataset.")
    _, patients = encode_patients(dataset.patients, len(dataset), "dataset.patients")
    splits = fold_rows(PatientKFold(5) if cv is None else cv, dataset.y, dataset.patients, f"{owner}.cv")
    if "HF001" not in policy.accept_findings:
        _refuse_leakage(cv, splits, dataset, f"{owner}.cv")
    return splits, any(np.isin(patients[test], patients[train]).any() for train, test in splits)


def _refuse_leakage(cv, splits, dataset, where):
    remedy = "To measure what leakage adds: AuditPolicy(accept_findings=('HF001',))."
    if isinstance(cv, PatchKFold):
        raise GroupLeakageError(f"{where}: expected folds of whole patients, got {cv!r}. Use PatientKFold. {remedy}")
    for number, (train, test) in enumerate(splits, start=1):
        try:
            check_no_shared_patients(train, test, dataset.patients)
        except GroupLeakageError as error:
            raise GroupLeakageError(f"{where}, fold {number}: {error} {remedy}") from error


def make_inner_folds(inner_cv, pairs, dataset, *, allow_shared_patients=False):
    """Make the inner folds of the training rows of every fold, before the long work begins.

    Parameters
    ----------
    inner_cv : splitter
        A partition of the training rows by patient, such as ``PatientKFold(3)``.
    pairs : sequence of (train, test)
        As from `check_folds`.
    dataset : PatchDataset
        What is split.
    allow_shared_patients : bool, default=False
        Whether a patient may be on both sides.

    Returns
    -------
    inner : tuple of splitters
        One per fold, the same pairs for every model; indices are positions in its training rows.

    Raises
    ------
    GroupLeakageError
        If a patient is on both sides of an inner fold.
    ValueError
        If the training patients cannot be split again, or not every training row is tested once.
    """
    if not hasattr(inner_cv, "split") or isinstance(inner_cv, str):
        raise ValueError(f"evaluate.inner_cv: expected a splitter, got {inner_cv!r}. Use PatientKFold(3).")
    y, patients = dataset.y, dataset.patients
    inner = []
    for number, (train, _) in enumerate(pairs, start=1):
        where = f"evaluate.inner_cv, in the training patients of fold {number}"
        try:
            folds = fold_rows(inner_cv, y[train], patients[train], "split")
            for inner_train, inner_test in () if allow_shared_patients else folds:
                check_no_shared_patients(inner_train, inner_test, patients[train])
        except ValueError as error:  # a GroupLeakageError stays one
            raise type(error)(f"{where}: {error}") from error
        times = np.bincount(np.concatenate([test for _, test in folds]), minlength=len(train))
        if (times != 1).any():
            raise ValueError(
                f"{where}: expected each row to be tested once, got {(times != 1).sum()} of {len(train)} rows tested "
                "never or again. Use PatientKFold(3)."
            )
        inner.append(check_cv(folds))
    return tuple(inner)


def splitters_in_words(cv, inner_cv, dataset):
    """Describe the folds and their limits for the record of an evaluation; a limit that no patient reaches is none.

    Returns
    -------
    words : dict
        "cv" and "inner_cv"; with a limit also "train_patches" and "inner_patches", the most of each patient.
    """
    words, most = {}, max(Counter(dataset.patients).values())
    for name, limit, splitter in (("cv", "train_patches", cv), ("inner_cv", "inner_patches", inner_cv)):
        if isinstance(splitter, LimitedTraining) and most > splitter.patches_per_patient:
            words[limit] = splitter.patches_per_patient
        elif isinstance(splitter, LimitedTraining):
            splitter = splitter.cv
        words[name] = repr(splitter) if hasattr(splitter, "split") else "predefined splits"
    return words


def look_at(dataset, splits, runtime, kind=None):
    """Give the look at registered test patients that folds take; None where they test none, or made-up images.

    Parameters
    ----------
    dataset : PatchDataset
    splits : sequence of (ndarray, ndarray), int64
        Training and test rows of each fold.
    runtime : Runtime
        With the ledger, which is opened here.
    kind : str, optional
        As for `histofeat.datasets.Look.at`.

    Returns
    -------
    look : Look or None
    """
    if dataset.synthetic:
        return None
    train, test = (np.unique(np.concatenate(rows)) for rows in zip(*splits, strict=True))
    patients, facts = dataset.patients, {"data": dataset.name, "n_patches": len(dataset), "kind": kind}
    tested = patients[test], dataset.frame["path"].to_numpy(dtype=object)[test]
    return Look.at(tested, patients[train], n_folds=len(splits), ledger=runtime.ledger, **facts)


def fold_of_rows(pairs: Sequence[tuple[Any, Any]], n_samples: int) -> np.ndarray:
    """Give the fold in which each row is tested, int64 of shape (n_samples,); -1 for rows that never are."""
    fold_of = np.full(n_samples, -1, dtype=np.int64)
    for fold, (_, test) in enumerate(pairs):
        fold_of[test] = fold
    return fold_of


@dataclass(frozen=True, eq=False)
class FairFolds:
    """Folds that test no patient in the training set of an encoder, unless this was accepted.

    Parameters
    ----------
    splits : tuple of (ndarray, ndarray), int64
        Training and test rows of each fold.
    left_out : LeftOut or None
        The patients that are not tested, since an encoder was trained on them.
    accepted : tuple of str
        Codes of errors that are there and were accepted.
    look : Look or None
        At registered test patients.
    """

    splits: Folds
    left_out: LeftOut | None = None
    accepted: tuple[str, ...] = ()
    look: Look | None = None

    def record(self, pipelines: Iterable[str]) -> str | None:
        """Write the look down once pipelines are scored, and return it in words; None where no look was taken."""
        return None if self.look is None else self.look.record({"pipeline": name} for name in pipelines)


def fair_folds(
    cv: Any,
    dataset: PatchDataset,
    pipelines: Any,
    *,
    owner: str,
    audit: AuditPolicy | None,
    runtime: Runtime | None,
    kind: str | None = None,
) -> FairFolds:
    """Check folds as `evaluate` does, for the studies: refuse patients that an encoder knows, or leave them out.

    Parameters
    ----------
    cv : splitter, iterable of (train, test), or None
        None is ``PatientKFold(5)``.
    dataset : PatchDataset
    pipelines : IDCPipeline, mapping of str to IDCPipeline, or sequence of (str, IDCPipeline)
    owner : str
        The function that an error names.
    audit : AuditPolicy or None
        As of `evaluate`; HF001, HF007, HF009 and HF010 are looked for, and HF004 where patients were left out.
    runtime : Runtime or None
    kind : str, optional
        Of a look at registered test patients, see `histofeat.datasets.Look.at`.

    Returns
    -------
    folds : FairFolds

    Raises
    ------
    GroupLeakageError
        If a patient is on both sides of a fold, ids look like one patient, or an encoder knows a tested patient.
    ValueError
        If an argument is invalid, every tested patient is known, or a fold loses a class with those who
        are left out.
    """
    policy, left_out, report = AuditPolicy.of(audit), None, AuditReport(())
    accepted = policy.accept_findings
    splits, overlap = check_folds(cv, dataset, policy, owner)
    ids = check_audit(AuditReport(ids_of_one_patient(as_split(dataset, splits))), accepted)
    shared = (*(("HF001",) if overlap else ()), *ids.accepted)
    if policy.known_patients == "refuse":
        report = check_audit(audit_encoders(dataset, splits, pipelines, runtime=runtime), accepted)
    else:
        tests, left_out = leave_out_known(dataset, splits, pipelines, owner=owner, runtime=runtime)
    if left_out is not None:
        splits = tuple((train, test) for (train, _), test in zip(splits, tests, strict=True) if test.size)
        report = check_rest(AuditReport((lost_classes(as_split(dataset, splits)),)), accepted, left_out)
    look = look_at(dataset, splits, Runtime.of(runtime), kind)
    return FairFolds(splits, left_out, (*shared, *report.accepted), look)


def leave_out_known(dataset, splits, pipelines, prints=None, *, retrained=False, owner="evaluate", runtime=None):
    """Leave patients in the training set of an encoder out of the test rows; training rows stay the same.

    Parameters
    ----------
    dataset : PatchDataset
    splits : sequence of (ndarray, ndarray), int64
        Training and test rows of each fold.
    pipelines : sequence of (str, IDCPipeline)
        Those that can run.
    prints : ndarray of shape (n, 35), float32, optional
        As `histofeat.features.ImageFingerprint` measures them; by default they are measured here, where an encoder
        says what it was trained on.
    retrained : bool, default=False
        Whether trainable encoders are trained again in each fold; their earlier training set does not count then.
    owner : str, default="evaluate"
        The function that an error names.
    runtime : Runtime, optional
        Used where fingerprints are measured here.

    Returns
    -------
    tests : list of ndarray, int64
        The test rows that remain in each fold; empty where none do.
    left_out : LeftOut or None
        None where no tested patient is known.

    Raises
    ------
    ValueError
        If every tested patient is known.
    """
    known = find_known_patients(dataset, pipelines, fingerprints=prints, retrained=retrained, runtime=runtime)
    ids, patient = encode_patients(dataset.patients, len(dataset), "dataset.patients")
    before = np.concatenate([test for _, test in splits])
    tested = {ids[one] for one in np.unique(patient[before])}
    by_encoder = {}
    for one in known:
        by_encoder.setdefault(one.encoder, set()).update(tested.intersection(one.patients))
    by_encoder = {encoder: patients for encoder, patients in by_encoder.items() if patients}
    if not by_encoder:
        return [test for _, test in splits], None
    gone = set().union(*by_encoder.values())
    if gone == tested:
        raise ValueError(
            f"{owner}.audit: expected a tested patient that no encoder was trained on, got none: "
            f"{next(iter(by_encoder))}{and_more(len(by_encoder))} was trained on all {len(gone):,}. Test other "
            "patients, leave this encoder out, or train it again in each fold by evaluate(retrain_encoder=True)."
        )
    stays = np.array([one not in gone for one in ids])[patient]
    tests = [test[stays[test]] for _, test in splits]
    n_left = sum(map(len, tests))
    left_out = LeftOut(
        patients=tuple(one for one in ids if one in gone),
        n_patches=len(before) - n_left,
        n_patients_tested=len(tested) - len(gone),
        n_patches_tested=n_left,
        encoders={encoder: len(patients) for encoder, patients in by_encoder.items()},
        trained_on=tuple(dict.fromkeys(one.trained_on for one in known if gone.intersection(one.patients))),
        folds=tuple(number for number, test in enumerate(tests, start=1) if not test.size),
    )
    return tests, left_out


def check_rest(report, accepted, left_out):
    """Refuse errors of an audit, as `check_audit` does, and say if patients were left out of the tests before it.

    Raises
    ------
    GroupLeakageError or ValueError
        As `check_audit` raises them.
    """
    try:
        return check_audit(report, accepted)
    except ValueError as error:
        if left_out is None:
            raise
        raise type(error)(
            f"{error} These are the folds after {len(left_out.patients):,} of "
            f"{len(left_out.patients) + left_out.n_patients_tested:,} patients were left out of the tests, since an "
            "encoder was trained on them."
        ) from error
