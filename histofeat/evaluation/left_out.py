"""Patients in an encoder's training set: refuse them, or leave them out of the test rows of all models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from histofeat.evaluation.audit.audit import audit_encoders
from histofeat.evaluation.audit.findings import AuditReport, check_audit, check_codes
from histofeat.evaluation.audit.known_patients import find_known_patients
from histofeat.evaluation.audit.sides import as_split
from histofeat.evaluation.audit.table_checks import lost_classes
from histofeat.evaluation.folds import check_folds
from histofeat.evaluation.results import LeftOut
from histofeat.model_selection import encode_patients

__all__ = ["KNOWN_PATIENTS", "AuditPolicy", "FairFolds", "check_rest", "fair_folds", "leave_out_known"]

#: What is done where an encoder knows patients who are tested.
KNOWN_PATIENTS = ("refuse", "leave_out")


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

    def __post_init__(self):
        object.__setattr__(self, "accept_findings", check_codes(self.accept_findings))
        if self.known_patients not in KNOWN_PATIENTS:
            raise ValueError(
                f"AuditPolicy.known_patients: expected one of {', '.join(map(repr, KNOWN_PATIENTS))}, got "
                f"{self.known_patients!r}. Use 'leave_out' to test only patients that no encoder was trained on."
            )

    @classmethod
    def of(cls, value: AuditPolicy | None) -> AuditPolicy:
        """Return the policy given as ``audit=``; the default one for None.

        Raises
        ------
        ValueError
            If it is neither.
        """
        if value is None:
            return cls()
        if not isinstance(value, cls):
            raise ValueError(
                f"audit: expected an AuditPolicy or None, got {value!r:.80}. "
                'Pass AuditPolicy(accept_findings=("HF001",)).'
            )
        return value


@dataclass(frozen=True, eq=False)
class FairFolds:
    """Folds that test nobody whom an encoder knows, unless that was accepted by name.

    Parameters
    ----------
    splits : tuple of (ndarray, ndarray), int64
        Training and test rows of each fold.
    left_out : LeftOut or None
        Who is not tested, since an encoder knows them.
    accepted : tuple of str
        Codes of errors that are there and were accepted.
    """

    splits: tuple
    left_out: LeftOut | None = None
    accepted: tuple[str, ...] = ()


def fair_folds(cv, dataset, pipelines, *, owner, audit=None, runtime=None):
    """Check folds, and refuse patients whom an encoder knows or leave them out: what `evaluate` asks of its folds.

    Parameters
    ----------
    cv : splitter or iterable of (train, test)
    dataset : PatchDataset
    pipelines : IDCPipeline, mapping of str to IDCPipeline, or sequence of (str, IDCPipeline)
    owner : str
        The function that an error names.
    audit : AuditPolicy, optional
        As of `evaluate`; HF001 and HF007 are looked for, and HF004 where patients were left out.
    runtime : Runtime, optional

    Returns
    -------
    folds : FairFolds

    Raises
    ------
    GroupLeakageError
        If a patient is on both sides of a fold, or an encoder knows a tested patient.
    ValueError
        If an argument is not what it should be, every tested patient is known, or a fold loses a class with those who
        are left out.
    """
    policy = AuditPolicy.of(audit)
    accepted = policy.accept_findings
    splits, overlap = check_folds(cv, dataset, allow_patient_leakage="HF001" in accepted)
    shared = ("HF001",) if overlap else ()
    if policy.known_patients == "refuse":
        report = check_audit(audit_encoders(dataset, splits, pipelines, runtime=runtime), accepted)
        return FairFolds(splits, None, (*shared, *report.accepted))
    tests, left_out = leave_out_known(dataset, splits, pipelines, owner=owner, runtime=runtime)
    if left_out is None:
        return FairFolds(splits, None, shared)
    splits = tuple((train, test) for (train, _), test in zip(splits, tests, strict=True) if test.size)
    report = check_rest(AuditReport((lost_classes(as_split(dataset, splits)),)), accepted, left_out)
    return FairFolds(splits, left_out, (*shared, *report.accepted))


def leave_out_known(dataset, splits, pipelines, prints=None, *, retrained=False, owner="evaluate", runtime=None):
    """Take the patients whom an encoder knows out of the test rows; training rows stay as they are.

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
        Whether encoders that can be trained anew are, and know nobody.
    owner : str, default="evaluate"
        The function that an error names.
    runtime : Runtime, optional
        Used where fingerprints are measured here.

    Returns
    -------
    tests : list of ndarray, int64
        The test rows that remain in each fold; empty where nobody does.
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
        raise ValueError(_nobody_left(len(gone), list(by_encoder), owner))
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


def _nobody_left(n_patients, encoders, owner):
    more = f" and {len(encoders) - 1} more" if len(encoders) > 1 else ""
    return (
        f"{owner}.known_patients: expected a tested patient whom no encoder knows, got none: {encoders[0]}{more} "
        f"learnt from all {n_patients:,}. Test other patients, leave this encoder out, or have it trained anew inside "
        "each fold by evaluate(retrain_encoder=True), where its family can be."
    )


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
            "encoder knows them."
        ) from error
