"""Prepare a fit: check the labels, weight the classes, hold patients out, and find the checkpoint."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from histofeat.exceptions import GroupLeakageError
from histofeat.images import Images
from histofeat.model_selection import check_class_weight, encode_patients
from histofeat.networks._network_files import hash_data
from histofeat.networks._settings import Settings
from histofeat.networks._training import Task

_FIT_FIELD = "{fit}"


_SHOWN = 3


def check_labels(y, n_images: int) -> np.ndarray:
    """Labels as an array of shape (n_images,).

    Raises
    ------
    ValueError
        If there is not one for each image, or only one class.

    Examples
    --------
    >>> check_labels([0, 1, 1], 3).tolist()
    [0, 1, 1]
    """
    labels = column_or_1d(y)
    if len(labels) != n_images:
        raise ValueError(f"y: expected one label for each of {n_images} images, got {len(labels)}. Pass the same rows.")
    check_classification_targets(labels)
    found = np.unique(labels)
    if len(found) < 2:
        raise ValueError(f"y: expected two classes or more, got {found.tolist()}. Add patches of another class.")
    return labels


def make_task(settings: Settings, labels, patients, *, validation_fraction: float, class_weight) -> Task:
    """Number the classes, weight them, and hold patients out.

    Parameters
    ----------
    settings : Settings
    labels : ndarray of shape (n,)
    patients : array-like of shape (n,) or None
    validation_fraction : float in [0, 1)
        Part of the patients to hold out.
    class_weight : {"balanced"}, mapping of label to weight, or None
        "balanced" counts the training patches.

    Returns
    -------
    task : Task

    Raises
    ------
    GroupLeakageError
        If patients are to be held out and are not known.
    ValueError
        If a class has too few patients, or `class_weight` does not fit the labels.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    training, held_out = np.arange(len(codes)), np.arange(0)
    if validation_fraction:
        if patients is None:
            raise GroupLeakageError(
                "CNNClassifier.fit: expected groups, the patient of each patch, to hold patients out, got None. "
                "Pass groups=dataset.patients, or use validation_fraction=0."
            )
        training, held_out = hold_out_patients(codes, patients, validation_fraction, seed=settings.seed)
    weights = np.ones(len(classes))
    if class_weight is not None:
        check_class_weight("CNNClassifier.class_weight", class_weight, classes)
        weights = compute_class_weight(class_weight, classes=classes, y=labels[training])
    return Task(codes, weights.astype(np.float32), training, held_out)


def find_checkpoint(
    checkpoint, settings: Settings, task: Task, images: Images, labels, patients
) -> tuple[Path | None, Mapping[str, object]]:
    """Find the folder of a fit's checkpoint, and what identifies the checkpoint.

    Parameters
    ----------
    checkpoint : path or None
        ``{fit}`` in it becomes a hash of the identity.
    settings : Settings
    task : Task
    images : Images
        Read once, for the hash of their contents.
    labels, patients : sequence

    Returns
    -------
    folder : Path or None
    identity : mapping
        Empty without a checkpoint.
    """
    if checkpoint is None:
        return None, {}
    identity = {
        **settings.identity(),
        "data set": hash_data(images, labels, patients),
        "class_weight": task.weights.tolist(),
        "held-out patches": hashlib.blake2b(task.held_out.astype("<i8").tobytes(), digest_size=8).hexdigest(),
    }
    folder = str(checkpoint)
    if _FIT_FIELD in folder:
        text = json.dumps(identity, sort_keys=True)
        folder = folder.replace(_FIT_FIELD, hashlib.blake2b(text.encode(), digest_size=8).hexdigest())
    return Path(folder).expanduser(), identity


def notes_of(settings: Settings, task: Task, state, skipped, patients) -> tuple[str, ...]:
    """Write notes on a fit for a report: which epoch is kept and why, and which images could not be read."""
    start = "random weights" if settings.weights is None else settings.weights.name
    name, kept = f"{settings.architecture.name} from {start}", state.best_epoch + 1
    if not len(task.held_out):
        notes = [f"{name}: the last of {state.epoch} epochs is kept; no patient was held out to choose one."]
    else:
        held_out = {str(patient) for patient in np.asarray(patients, dtype=object)[task.held_out]}
        measure = {"loss": "lowest loss", "roc_auc": "highest ROC-AUC"}[settings.recipe.monitor]
        notes = [
            f"{name}: epoch {kept} of {state.epoch} is kept, that of the {measure} on {len(held_out)} patients "
            f"({len(task.held_out)} patches) held out of the training side."
        ]
    if skipped:
        listed = ", ".join(skipped[:_SHOWN]) + (f" and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else "")
        notes.append(f"{name}: {len(skipped)} images could not be read and were left out: {listed}.")
    return tuple(notes)


_DRAWS = 200


def hold_out_patients(codes, patients, fraction: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the patches by patient, with every class on both sides.

    Parameters
    ----------
    codes : ndarray of shape (n,), int
        Class of each patch, from 0 without a gap.
    patients : array-like of shape (n,)
        Patient of each patch.
    fraction : float in (0, 1)
        Part of the patients to hold out, rounded, at least one.
    seed : int
        Seed of the draw.

    Returns
    -------
    training, held_out : ndarray of int64
        Rows of either side, in order.

    Raises
    ------
    GroupLeakageError
        If patients are not known.
    ValueError
        If there are fewer than two patients, a class has fewer than two, or no draw has every class on both sides.

    Notes
    -----
    Of 200 draws the one whose class proportions are closest to those of all patches is taken; of equal ones, the first.

    Examples
    --------
    >>> training, held_out = hold_out_patients(np.array([0, 1, 0, 1]), ["a", "a", "b", "b"], 0.5, seed=0)
    >>> training.tolist(), held_out.tolist()
    ([2, 3], [0, 1])
    """
    ids, number = encode_patients(patients, len(codes))
    counts = np.zeros((len(ids), int(codes.max()) + 1))
    np.add.at(counts, (number, codes), 1)
    per_class = (counts > 0).sum(axis=0)
    if len(counts) < 2 or per_class.min() < 2:
        rare = int(per_class.argmin())
        raise ValueError(
            f"CNNClassifier.validation_fraction: expected two patients or more of every class, got {len(counts)} "
            f"in all and {per_class[rare]} of class number {rare}. Merge rare classes, or use validation_fraction=0."
        )
    wanted = min(max(1, round(fraction * len(ids))), len(ids) - 1)
    rng = np.random.default_rng(seed)
    whole, best, least = counts.sum(axis=0), None, np.inf
    for _ in range(_DRAWS):
        drawn = rng.permutation(len(ids))[:wanted]
        held = counts[drawn].sum(axis=0)
        if not held.all() or (held == whole).any():
            continue
        distance = np.abs(held / held.sum() - whole / whole.sum()).sum()
        if distance < least - 1e-12:
            best, least = drawn, distance
    if best is None:
        raise ValueError(
            f"CNNClassifier.validation_fraction: expected a part of the patients that leaves every class on both "
            f"sides, got {fraction} of {len(ids)} patients, of which no {wanted} do. Give a larger part, merge rare "
            "classes, or use validation_fraction=0."
        )
    held_out = np.isin(number, best)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
