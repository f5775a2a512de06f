"""Patients whom an encoder knows from its training are taken out of the tests of all models alike."""

import numpy as np

from histofeat.model_selection import encode_patients
from histofeat.results import LeftOut
from histofeat.split_audit import check_audit, find_known_patients

__all__ = ["KNOWN_PATIENTS", "check_choice", "check_rest", "leave_out_known"]

#: What `evaluate` does where an encoder knows patients who are tested.
KNOWN_PATIENTS = ("refuse", "leave_out")


def check_choice(known_patients):
    """Refuse what is none of `KNOWN_PATIENTS`.

    Raises
    ------
    ValueError
        If it is none.
    """
    if known_patients not in KNOWN_PATIENTS:
        raise ValueError(
            f"evaluate.known_patients: expected one of {', '.join(map(repr, KNOWN_PATIENTS))}, got "
            f"{known_patients!r}. Use 'leave_out' to test only patients whom no encoder knows."
        )
    return known_patients


def leave_out_known(dataset, splits, pipelines, prints, *, retrained=False):
    """Take the patients whom an encoder knows out of the test rows; training rows stay as they are.

    Parameters
    ----------
    dataset : PatchDataset
    splits : sequence of (ndarray, ndarray), int64
        Training and test rows of each fold.
    pipelines : sequence of (str, IDCPipeline)
        Those that can run.
    prints : ndarray of shape (n, 35), float32
        As `histofeat.split_audit.ImageFingerprint` measures them.
    retrained : bool, default=False
        Whether encoders that can be trained anew are, and know nobody.

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
    known = find_known_patients(dataset, pipelines, fingerprints=prints, retrained=retrained)
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
        raise ValueError(_nobody_left(len(gone), list(by_encoder)))
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


def _nobody_left(n_patients, encoders):
    more = f" and {len(encoders) - 1} more" if len(encoders) > 1 else ""
    return (
        f"evaluate.known_patients: expected a tested patient whom no encoder knows, got none: {encoders[0]}{more} "
        f"learnt from all {n_patients:,}. Test other patients, leave this encoder out, or set retrain_encoder=True, "
        "which trains it anew inside each fold where its family can be."
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
