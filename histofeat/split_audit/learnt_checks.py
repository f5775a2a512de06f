"""Checks of what pipelines bring along: encoders that know test patients, and parts fitted before the folds were."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from sklearn.frozen import FrozenEstimator

from histofeat.split_audit.findings import CODES, Finding
from histofeat.split_audit.fingerprint import Fingerprints, TrainingImages
from histofeat.split_audit.parts import Parts, walk
from histofeat.split_audit.sides import Split, list_some

__all__ = ["encoder_records", "fitted_parts", "trained_encoders"]

_UNSEEN_ENCODERS = (
    "training images that an encoder does not tell of, other patches of the same patients that are not in this data "
    "set, and images that were saved anew with a loss before training."
)


def encoder_records(parts: Iterable[Parts]) -> tuple[dict[str, tuple[TrainingImages, ...]], list[str]]:
    """Find what the encoders of pipelines say of their training.

    Parameters
    ----------
    parts : iterable of Parts

    Returns
    -------
    records : dict of str to tuple of TrainingImages
        By the place of the encoder.
    silent : list of str
        Encoders with weights of their own that do not say what they were trained on.

    Raises
    ------
    ValueError
        If ``trained_on`` gives something else than `TrainingImages`.
    """
    records: dict[str, tuple[TrainingImages, ...]] = {}
    silent: list[str] = []
    for pipeline in parts:
        for start, part in (*pipeline.given, *pipeline.built):
            for path, value in walk(part, start):
                found = _records_of(value, path)
                if found:
                    records[path] = found
                elif found is None and path not in silent and _has_own_weights(value):
                    silent.append(path)
    return records, [path for path in silent if path not in records]


def _records_of(value, path: str) -> tuple[TrainingImages, ...] | None:
    told = getattr(value, "trained_on", None)
    told = told() if callable(told) else told
    if told is None:
        return None
    several = (told,) if hasattr(told, "digests") or not isinstance(told, Iterable) else tuple(told)
    for record in several:
        if not (hasattr(record, "digests") and hasattr(record, "dataset")):
            raise ValueError(
                f"{path}.trained_on: expected TrainingImages or a sequence of these, got {record!r:.60}. "
                "Make one with TrainingImages.of(name, fingerprints)."
            )
    return several


def _has_own_weights(value) -> bool:
    weights = getattr(value, "weights", None)
    # Where a family has a `family` name, `weights` is a network's; a vote of classifiers has weights too.
    return hasattr(value, "family") and weights is not None and str(weights) != "imagenet"


def trained_encoders(split: Split, prints: Fingerprints | None, parts: tuple[Parts, ...] | None) -> Finding | None:
    """HF007: encoders that were trained on images of patients who are tested.

    Parameters
    ----------
    split : Split
    prints : Fingerprints or None
        Of all rows.
    parts : tuple of Parts or None
        The pipelines; None where there are none to look at.

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
    records, silent = encoder_records(parts)
    if records and prints is None:
        return None
    found = [words for path, told in records.items() for words in _known_patients(split, prints, path, told)]
    numbers = {"encoders_with_records": len(records), "encoders_silent": len(silent), "patients": len(found)}
    if found:
        detail = f"Tested patients whom an encoder knows from its training: {len(found):,}."
        return _encoder_finding("error", "issue", detail, found, numbers)
    if silent:
        detail = f"Encoders with weights of their own that do not say what they were trained on: {len(silent):,}."
        return _encoder_finding("warning", "issue", detail, silent, numbers)
    detail = "No encoder was trained on images of this data set"
    told = f"records of training: {len(records):,}" if records else "no part says that it learnt from patches"
    return _encoder_finding("error", "passed", f"{detail} ({told}).", [], numbers)


def _encoder_finding(severity, status, detail, offenders, numbers) -> Finding:
    return Finding("HF007", CODES["HF007"], severity, status, detail, _UNSEEN_ENCODERS, tuple(offenders), numbers)


def _known_patients(split: Split, prints: Fingerprints, path: str, told: tuple[TrainingImages, ...]):
    """Describe each tested patient of whom an encoder has seen an image."""
    keys = prints.keys()
    tested = [np.bincount(split.patient[test], minlength=len(split.ids)) > 0 for _, test in split.folds]
    for record in told:
        # Images of one colour are equal in any two data sets.
        seen = np.array([key in record.digests for key in keys]) & ~prints.flat
        known = np.bincount(split.patient[seen], minlength=len(split.ids))
        for patient in np.flatnonzero(known):
            folds = [fold for fold, patients in enumerate(tested) if patients[patient]]
            if folds:
                yield (
                    f"{path} knows {known[patient]:,} images of patient {split.ids[patient]}, tested in fold "
                    f"{list_some(folds)}, from its training on {record.dataset!r}"
                )


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
