"""HF007: patients in an encoder's training set, found by comparing pixels or declared by its authors."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from histofeat.datasets import PatchDataset, origins_by_name
from histofeat.evaluation._plans import CANNOT_RUN, Parts, can_retrain, split_pipelines
from histofeat.evaluation.audit._findings import Finding, decide, not_applicable
from histofeat.evaluation.audit._table_checks import Split, list_some
from histofeat.exceptions import check_that, counted
from histofeat.features import CNNEmbedding, Fingerprints, ImageFingerprint, Runtime, TrainingImages, extract
from histofeat.model_selection import encode_patients
from histofeat.networks import TrainingData, known_training

_UNSEEN_ENCODERS = (
    "training images that an encoder does not tell of, other patches of the same patients that are not in this data "
    "set, and images that were saved again with a loss before training."
)


@dataclass(frozen=True)
class KnownPatients:
    """The patients of a data set in one training set of an encoder.

    Parameters
    ----------
    pipeline : str
        Name of the pipeline that holds the encoder.
    encoder : str
        Its path, such as "mine: histo".
    trained_on : str
        Name of the data set that it was trained on.
    patients : tuple of str
        Ids of the patients with an image among its training images.
    n_images : tuple of int
        How many images of each.
    """

    pipeline: str
    encoder: str
    trained_on: str
    patients: tuple[str, ...]
    n_images: tuple[int, ...]


def find_known_patients(
    dataset: PatchDataset,
    pipelines: Any,
    *,
    fingerprints: np.ndarray | None = None,
    retrained: bool = False,
    runtime: Runtime | None = None,
) -> tuple[KnownPatients, ...]:
    """Find the patients of a data set in the training sets of encoders.

    Parameters
    ----------
    dataset : PatchDataset
    pipelines : IDCPipeline, mapping of str to IDCPipeline, or sequence of (str, IDCPipeline)
    fingerprints : ndarray of shape (n, 35), float32, optional
        Measured by `ImageFingerprint`, one row for each of the data set; by default they are measured here, if any
        encoder says what it was trained on.
    retrained : bool, default=False
        Whether trainable families are trained again in each fold; their earlier training set does not count then.
    runtime : Runtime, optional
        Threads, feature store and progress; see `histofeat.features.Runtime`. Results do not depend on it.

    Returns
    -------
    known : tuple of KnownPatients
        One for each pipeline, encoder and training set with a match; pipelines that cannot run here are left out.
        Images are compared, never ids, which mean nothing in another data set; images of one colour are ignored.

    Raises
    ------
    ValueError
        If `pipelines` is invalid, or ``trained_on`` of an encoder gives something else than records.
    GroupLeakageError
        If a row has no patient.

    Examples
    --------
    >>> from histofeat import IDCPipeline, make_cohort
    >>> from histofeat.features import ColorHistogram
    >>> cohort = make_cohort(n_patients=4, patches_per_patient=4)
    >>> family = ColorHistogram()
    >>> family.trained_on = TrainingImages.of("first half", ImageFingerprint().transform(cohort.X[:8]))
    >>> (known,) = find_known_patients(cohort, {"mine": IDCPipeline(features=[family])})
    >>> known.encoder, known.patients == tuple(dict.fromkeys(cohort.patients[:8])), known.n_images
    ('mine: color', True, (4, 4))
    """
    claims = []
    for part in split_pipelines(pipelines):
        # A pipeline without its files or packages cannot run either; fitting it says so.
        with suppress(*CANNOT_RUN):
            claims.append((part.name, encoder_records([part], retrained=retrained)[0]))
    if not any(records for _, records in claims):
        return ()
    if fingerprints is None:
        fingerprints = measure_fingerprints(dataset.X, Runtime.of(runtime))
    ids, patient = encode_patients(dataset.patients, len(dataset), "dataset.patients")
    prints, found = Fingerprints.of(fingerprints), []
    for name, records in claims:
        for path, record, counts in _match_records(records, prints, patient):
            known = np.flatnonzero(counts).tolist()
            patients, n_images = tuple(ids[one] for one in known), tuple(int(counts[one]) for one in known)
            found.append(KnownPatients(name, path, record.dataset, patients, n_images))
    return tuple(dict.fromkeys(found))


def measure_fingerprints(X, runtime: Runtime) -> np.ndarray:
    """Fingerprints of images, float32 of shape (n, 35); see `histofeat.features.ImageFingerprint`."""
    return extract([ImageFingerprint()], X, n_jobs=runtime.n_jobs, store=runtime.store).features[0]


def _match_records(records, prints: Fingerprints, patient: np.ndarray):
    """Look for the training images of encoders among those of a data set.

    Parameters
    ----------
    records : mapping of str to tuple of TrainingImages
        Records of training of the encoder at each path.
    prints : Fingerprints
    patient : ndarray of shape (n,), int64
        Number of each row's patient.

    Yields
    ------
    path : str
    record : TrainingImages
        Of which an image was found.
    counts : ndarray of shape (n_patients,), int64
        How many images of each patient were.
    """
    keys = prints.keys()
    for path, found in records.items():
        for record in found:
            digests = frozenset(record.digests)
            # Images of one colour are equal in any two data sets.
            seen = np.array([key in digests for key in keys]) & ~prints.flat
            if seen.any():
                yield path, record, np.bincount(patient[seen], minlength=patient.max() + 1)


def encoder_records(
    parts: Iterable[Parts], *, retrained: bool = False
) -> tuple[dict[str, tuple[TrainingImages, ...]], list[str], dict[str, tuple[TrainingData, ...]]]:
    """Find the records of training of the encoders in pipelines.

    Parameters
    ----------
    parts : iterable of Parts
    retrained : bool, default=False
        Whether to leave out families that are trained again in each fold.

    Returns
    -------
    records : dict of str to tuple of TrainingImages
        By the path of the encoder.
    silent : list of str
        Encoders with weights of their own that do not say what they were trained on.
    declared : dict of str to tuple of TrainingData
        What the authors of the other pretrained encoders declare, by the path and name of the encoder; without those of
        ImageNet.

    Raises
    ------
    ValueError
        If ``trained_on`` gives something else than `TrainingImages`.
    """
    records: dict[str, tuple[TrainingImages, ...]] = {}
    silent: list[str] = []
    declared: dict[str, tuple[TrainingData, ...]] = {}
    for pipeline in parts:
        for start, part in (*pipeline.given, *pipeline.built):
            for path, value in () if retrained and can_retrain(part) else walk(part, start):
                found = _records_of(value, path)
                if found:
                    # Pipelines of one name may hold different encoders at the same place.
                    known = records.get(path, ())
                    records[path] = (*known, *(record for record in found if record not in known))
                elif found is None and _has_own_weights(value):
                    silent.append(path)
                elif found is None and isinstance(value, CNNEmbedding):
                    known = known_training(value.encoder)
                    declared |= {f"{path} ({value.encoder})": known} if known[0].data != "ImageNet" else {}
    return records, [path for path in dict.fromkeys(silent) if path not in records], declared


def _records_of(value, path: str) -> tuple[TrainingImages, ...] | None:
    told = getattr(value, "trained_on", None)
    told = told() if callable(told) else told
    if told is None:
        return None
    several = (told,) if hasattr(told, "digests") or not isinstance(told, Iterable) else tuple(told)
    for record in several:
        fits = hasattr(record, "digests") and hasattr(record, "dataset")
        expected, remedy = "TrainingImages or a sequence of these", "Use TrainingImages.of(name, fingerprints)."
        check_that(f"{path}.trained_on", record, fits, expected, remedy)
    return several


def _has_own_weights(value) -> bool:
    weights = getattr(value, "weights", None)
    # Where a family has a `family` name, `weights` is a network's; a vote of classifiers has weights too.
    has_own = hasattr(value, "family") and weights is not None and str(weights) != "imagenet"
    return has_own or hasattr(value, "given")  # what made given columns is not known


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
        Whether trainable families are trained again in each fold; their earlier training set does not count then.

    Returns
    -------
    finding : Finding or None
        An error, with one offender for each encoder and patient that is found, and one for each encoder and declared
        data set that tested images are from, as their names tell. None where there are records to compare and no
        `prints` to compare them with.

    Notes
    -----
    An encoder describes its training set by ``trained_on`` (see `TrainingImages`). Its images are matched with those of
    the data set by their pixels; ids mean nothing in another data set. A patient is known to the encoder if one image
    is found, whichever images of that patient are tested. Networks trained on ImageNet have seen no patient. An
    encoder with other weights and no description is named, and makes this a warning. Of encoders of others only what
    their authors declare is known (`histofeat.networks.known_training`): the data sets of images are compared by name
    then, and what is not known is said.
    """
    if parts is None:
        detail = "No pipelines were given, so no encoder could be asked."
        return not_applicable("HF007", detail, _UNSEEN_ENCODERS)
    records, silent, declared = encoder_records(parts, retrained=retrained)
    if records and prints is None:
        return None
    found, tested, untested = _known_patients(split, prints, records) if records else ([], set(), set())
    numbers = {"encoders_with_records": len(records), "encoders_silent": len(silent), "patients": len(tested)}
    again = len({path for part in parts for path, family in part.built if can_retrain(family)}) if retrained else 0
    numbers |= {"encoders_retrained": again} if again else {}
    numbers |= {"patients_not_tested": len(untested)} if untested else {}
    numbers |= {"encoders_declared": len(declared)} if declared else {}
    also = f" Encoders trained again inside each fold: {again:,}." if again else ""
    also += _say_declared(declared)
    named = _declared_origins(split, declared)
    if found or named:
        by_name = f" Declared by authors, not found by comparing pixels: {len(named):,}." if named else ""
        detail = f"Tested patients in an encoder's training set: {len(tested):,}.{by_name}{also}"
        return decide("HF007", [*found, *named], detail, "", _UNSEEN_ENCODERS, **numbers)
    if split.dataset.columns is not None:
        silent = silent or [f"what made the columns of {split.dataset.name!r}"]
    if silent:
        detail = f"Encoders with weights of their own that do not say what they were trained on: {len(silent):,}.{also}"
        return decide("HF007", silent, detail, "", _UNSEEN_ENCODERS, severity="warning", **numbers)
    told = f"records of training: {len(records):,}" if records else "no part says that it learnt from patches"
    known = f" Patients in an encoder's training set that are not tested: {len(untested):,}." if untested else ""
    detail = f"No encoder knows a tested patient ({told}).{known}{also}"
    return decide("HF007", (), "", detail, _UNSEEN_ENCODERS, **numbers)


def _known_patients(split: Split, prints: Fingerprints, records) -> tuple[list[str], set, set]:
    """Describe each tested patient with an image in an encoder's training set; return tested and untested ones too."""
    sides = [np.bincount(split.patient[test], minlength=len(split.ids)) > 0 for _, test in split.folds]
    words, tested, untested = [], set(), set()
    for path, record, counts in _match_records(records, prints, split.patient):
        for patient in np.flatnonzero(counts).tolist():
            folds = [fold for fold, patients in enumerate(sides, start=1) if patients[patient]]
            (tested if folds else untested).add(patient)
            if folds:
                words.append(
                    f"{path} knows {counted(counts[patient], 'image')} of patient {split.ids[patient]}, tested in fold "
                    f"{list_some(folds)}, from its training on {record.dataset!r}"
                )
    return words, tested, untested


def _say_declared(declared: Mapping[str, tuple[TrainingData, ...]]) -> str:
    """One sentence on what the authors of encoders declare, and one on those of which nothing is known."""
    said = {path: " and ".join(known.data for known in data) for path, data in declared.items()}
    known = "; ".join(f"{path}: {words}" for path, words in said.items() if words != "unknown")
    unknown = ", ".join(path for path, words in said.items() if words == "unknown")
    sentences = f" Declared training data: {known}." if known else ""
    return sentences + (f" Training data not known: {unknown}." if unknown else "")


def _declared_origins(split: Split, declared: Mapping[str, tuple[TrainingData, ...]]) -> list[str]:
    """Describe each encoder whose authors declare a data set that tested patients are from, as names of images tell."""
    if split.dataset.synthetic or not declared:
        return []
    rows = np.unique(np.concatenate([test for _, test in split.folds]))
    table = split.dataset.frame.iloc[rows]
    origins = origins_by_name([f"{patient}/{path}" for patient, path in zip(table.patient, table.path, strict=True)])
    words = []
    for path, data in declared.items():
        for known in data:
            patients = np.unique(split.patient[rows[origins == known.data]])
            if patients.size:
                words.append(
                    f"{path} was trained on {known.data}, as its authors declare ({known.source}), and the names of "
                    f"{counted(patients.size, 'tested patient')} are from there"
                )
    return words


def walk(value, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every object inside an object, with its path.

    Parameters
    ----------
    value : object
        Parameters of estimators, entries of sequences and mappings, and what functions are bound to or closed over,
        are followed.
    path : str
        The name of `value`.

    Yields
    ------
    path : str
    value : object

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> [path for path, part in walk(make_pipeline(StandardScaler()), "head") if hasattr(part, "fit")]
    ['head', 'head.steps[0][1]']
    """
    waiting, seen = [(path, value)], set()
    while waiting:
        path, value = waiting.pop()
        if id(value) in seen or value is None or isinstance(value, str | bytes | int | float | type):
            continue
        seen.add(id(value))
        yield path, value
        waiting += reversed(list(_children(path, value)))


def _children(path: str, value) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((f"{path}[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"{path}[{place}]", item) for place, item in enumerate(value))
    elif isinstance(value, MethodType):
        yield f"{path}.__self__", value.__self__
    elif isinstance(value, partial):
        yield from ((f"{path}.{name}", getattr(value, name)) for name in ("func", "args", "keywords"))
    elif isinstance(value, FunctionType):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        for name, cell in cells:
            with suppress(ValueError):  # a name that was never set
                yield f"{path}.{name}", cell.cell_contents
        yield f"{path}.__defaults__", value.__defaults__
        yield f"{path}.__kwdefaults__", value.__kwdefaults__
    elif hasattr(value, "get_params"):
        yield from ((f"{path}.{name}", item) for name, item in value.get_params(deep=False).items())
