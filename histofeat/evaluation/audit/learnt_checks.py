"""Checks of what pipelines bring along: encoders that know test patients, and parts fitted before the folds were."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from sklearn.frozen import FrozenEstimator

from histofeat.evaluation.audit.findings import CODES, Finding
from histofeat.evaluation.audit.known_patients import can_retrain, encoder_records, match_records
from histofeat.evaluation.audit.parts import Parts, walk
from histofeat.evaluation.audit.sides import Split, list_some
from histofeat.features import Fingerprints

__all__ = ["fitted_parts", "trained_encoders"]

_UNSEEN_ENCODERS = (
    "training images that an encoder does not tell of, other patches of the same patients that are not in this data "
    "set, and images that were saved anew with a loss before training."
)


def trained_encoders(
    split: Split, prints: Fingerprints | None, parts: tuple[Parts, ...] | None, *, retrained: bool = False
) -> Finding | None:
    """HF007: encoders that were trained on images of patients who are tested.

    Parameters
    ----------
    split : Split
    prints : Fingerprints or None
        Of all rows.
    parts : tuple of Parts or None
        The pipelines; None where there are none to look at.
    retrained : bool, default=False
        Whether families with a method ``retrained`` are trained anew inside each fold: what they were trained on before
        does not count then.

    Returns
    -------
    finding : Finding or None
        An error, with one offender for each encoder and patient. None where there are records to compare and no
        `prints` to compare them with.

    Notes
    -----
    An encoder tells of its training by ``trained_on`` (see `TrainingImages`). Its images are found again among those
    of the data set by their pixels, and never by the id of a patient, which means nothing in another data set; a
    patient of whom one image is found is known to the encoder, whichever images of that patient are tested. Networks
    trained on ImageNet have seen no patient. An encoder with other weights that does not tell is named, and makes this
    a warning.
    """
    if parts is None:
        detail = "No pipelines were given, so no encoder could be asked."
        return Finding("HF007", CODES["HF007"], "error", "not applicable", detail, _UNSEEN_ENCODERS)
    records, silent = encoder_records(parts, retrained=retrained)
    if records and prints is None:
        return None
    found, tested, untested = _known_patients(split, prints, records) if records else ([], set(), set())
    numbers = {"encoders_with_records": len(records), "encoders_silent": len(silent), "patients": len(tested)}
    anew = len({path for part in parts for path, family in part.built if can_retrain(family)}) if retrained else 0
    numbers |= {"encoders_retrained": anew} if anew else {}
    numbers |= {"patients_not_tested": len(untested)} if untested else {}
    also = f" Encoders trained anew inside each fold: {anew:,}." if anew else ""
    if found:
        detail = f"Tested patients whom an encoder knows from its training: {len(tested):,}.{also}"
        return _encoder_finding("error", "issue", detail, found, numbers)
    if silent:
        detail = f"Encoders with weights of their own that do not say what they were trained on: {len(silent):,}.{also}"
        return _encoder_finding("warning", "issue", detail, silent, numbers)
    told = f"records of training: {len(records):,}" if records else "no part says that it learnt from patches"
    known = f" Patients whom an encoder knows, and who are not tested: {len(untested):,}." if untested else ""
    return _encoder_finding("error", "passed", f"No encoder knows a tested patient ({told}).{known}{also}", [], numbers)


def _encoder_finding(severity, status, detail, offenders, numbers) -> Finding:
    return Finding("HF007", CODES["HF007"], severity, status, detail, _UNSEEN_ENCODERS, tuple(offenders), numbers)


def _known_patients(split: Split, prints: Fingerprints, records) -> tuple[list[str], set, set]:
    """Describe each tested patient of whom an encoder has seen an image; give also who is tested and who is not."""
    sides = [np.bincount(split.patient[test], minlength=len(split.ids)) > 0 for _, test in split.folds]
    words, tested, untested = [], set(), set()
    for path, record, counts in match_records(records.items(), prints, split.patient):
        for patient in np.flatnonzero(counts).tolist():
            folds = [fold for fold, patients in enumerate(sides) if patients[patient]]
            (tested if folds else untested).add(patient)
            if folds:
                words.append(
                    f"{path} knows {counts[patient]:,} images of patient {split.ids[patient]}, tested in fold "
                    f"{list_some(folds)}, from its training on {record.dataset!r}"
                )
    return words, tested, untested


def fitted_parts(parts: Iterable[Parts]) -> list[str]:
    """Find what is fitted before any fold is, and stays so.

    Parameters
    ----------
    parts : iterable of Parts

    Returns
    -------
    offenders : list of str
        The way to each part that cloning leaves fitted: a `FrozenEstimator`, and whatever a function is bound to or
        closed over. Estimators that cloning resets are no offence.
    """
    found = []
    for pipeline in parts:
        for start, part in pipeline.built:
            inside: list[str] = []
            for path, value in walk(part, start):
                # What holds a fitted part is fitted by it: name the outermost only.
                if not any(path.startswith((f"{outer}.", f"{outer}[")) for outer in inside) and _is_fitted(value):
                    inside.append(path)
                    found.append(f"{path} ({type(value).__name__})")
    return found


def _is_fitted(value) -> bool:
    if not hasattr(value, "fit"):
        return False
    learnt = [name for name in getattr(value, "__dict__", {}) if name.endswith("_") and not name.startswith("__")]
    # The last is xgboost's own way.
    return isinstance(value, FrozenEstimator) or bool(learnt) or getattr(value, "_Booster", None) is not None
