"""Train histofeat's own encoder, and write its weights with a record of the images it was trained on."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from histofeat.exceptions import GroupLeakageError
from histofeat.features import Fingerprints, ImageFingerprint, extract
from histofeat.images import as_images
from histofeat.networks import (
    ARCHITECTURES,
    CNNClassifier,
    TrainingRecord,
    find_encoder,
    lite_arrays,
    write_lite,
    write_record,
)

ENCODER = "histo"
#: The classifier without whose last layer the encoder is left, fine-tuned from ImageNet weights.
ARCHITECTURE = "lite0_small"
RECIPE = ARCHITECTURES[ARCHITECTURE].fine_tuning["standard"]
#: Arrays of the classifier that are no part of the encoder: two of its normalisation and two of its last layer.
_HEAD = 4
#: Fields of the recipe without a meaning in a training in one stage that holds out no patient.
_UNUSED = ("fine_tune", "fine_tuning_rate", "head_epochs", "on_unreadable", "patience", "precision")


def train_encoder(
    X: Any,
    y: ArrayLike,
    groups: Sequence[str] | np.ndarray,
    folder: str | PathLike[str],
    *,
    dataset: str = "unnamed",
    epochs: int | None = None,
    n_jobs: int | None = None,
    random_state: int = 0,
    progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
) -> Path:
    """Train the encoder `histo` as a classifier, and write it without its classification layer.

    Parameters
    ----------
    X : sequence of paths, ndarray (n, H, W, 3) uint8, list of such arrays, DataFrame with ``path``, or Images
        The patches. All of them are trained on: no patient is held out, and the last epoch is kept.
    y : array-like of shape (n,)
        Labels, two classes or more.
    groups : array-like of shape (n,)
        Patients; the record lists them.
    folder : path
        Where the weights and their record go; made if it does not exist.
    dataset : str, default="unnamed"
        Name of the data set, for the record.
    epochs : int or None, default=None
        None is the recipe's, 8.
    n_jobs : int, optional
        Threads that read images; None is 1, -1 all cores.
    random_state : int, default=0
        Of the batches, dropout and the augmentation.
    progress : callable, optional
        Called as ``progress(done, total, values)`` after each epoch.

    Returns
    -------
    weights : Path
        ``histo.npz`` in `folder`, for ``HistoEmbedding(weights=...)``. Beside it lie ``histo.json`` (recipe and
        content hashes) and ``histo.images.npz`` (patient and digest of each image).

    Raises
    ------
    GroupLeakageError
        If patients are not known: the record has to list them.
    ValueError, PatchError
        If labels do not fit the patches, or an image cannot be read.
    MissingExtraError
        If Keras is not installed.
    """
    images = as_images(X)
    patients = _known(groups, len(images))
    encoder = find_encoder(ENCODER)
    classifier = CNNClassifier(
        ARCHITECTURE, "imagenet", epochs=epochs, validation_fraction=0, n_jobs=n_jobs, random_state=random_state,
        progress=progress,
    )  # fmt: skip
    classifier.fit(images, y)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / encoder.weight_file
    for stale in folder.glob(f"{ENCODER}.*"):  # the record names whatever lies beside the weights
        stale.unlink()
    write_lite(lite_arrays(encoder, classifier.weights_[:-_HEAD]), weights)
    prints = Fingerprints.of(extract([ImageFingerprint()], images, n_jobs=n_jobs).features[0])
    recipe = _recipe(classifier, images, y, random_state)
    write_record(TrainingRecord(ENCODER, dataset, patients, tuple(prints.keys()), recipe), weights)
    return weights


def _known(groups, n_images) -> tuple[str, ...]:
    if groups is None or len(groups) != n_images:
        got = "None" if groups is None else f"{len(groups)}"
        raise GroupLeakageError(
            f"train_encoder.groups: expected the patient of each of {n_images} images, got {got}. "
            "Pass groups=dataset.patients."
        )
    return tuple(str(one) for one in groups)


def _recipe(classifier, images, y, random_state) -> dict[str, object]:
    """What the training was, as JSON can hold it."""
    return {
        "architecture": ARCHITECTURE,
        "start": ARCHITECTURES[ARCHITECTURE].encoder.weight_file,
        "input_size": classifier.input_size_,
        **{name: value for name, value in RECIPE.as_dict().items() if name not in _UNUSED},
        "epochs": len(classifier.history_["loss"]),
        "random_state": random_state,
        "n_images": len(images),
        "classes": {str(label): int(count) for label, count in zip(*np.unique(y, return_counts=True), strict=True)},
    }
