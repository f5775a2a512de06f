"""The networks themselves, in Keras: uint8 pixels in, class probabilities out, preprocessing inside."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from histofeat.exceptions import WeightsError
from histofeat.networks.architectures import Architecture, find_architecture
from histofeat.networks.pretrained.network import _load, _quiet, _settings, import_keras, preprocess
from histofeat.networks.pretrained.residual import residual_features

__all__ = ["BUILDING", "build", "rebuild", "unfreeze"]

#: Held while a network is built or run outside of training: Keras takes settings from the process.
BUILDING = threading.RLock()
_HEAD_DROPOUT = 0.2


def build(
    architecture: Architecture,
    n_classes: int,
    *,
    input_size: int,
    seed: int = 0,
    precision: str = "float32",
    weights: Path | None = None,
    fine_tuned: bool = False,
):
    """A network with random weights, or with those of a file.

    Parameters
    ----------
    architecture : Architecture
        Which one.
    n_classes : int
        Width of the output.
    input_size : int
        Side of the input in px.
    seed : int, default=0
        Of the random weights and of dropout.
    precision : {"float32", "bfloat16"}
        Arithmetic of the layers; the weights and the output are float32.
    weights : Path or None
        For a network of ``keras.applications``: its weights without the classification layer. For one of histofeat's
        own: a network or weights that Keras saved.
    fine_tuned : bool, default=False
        Whether the base keeps the statistics of its normalisations for good, as a pretrained one does.

    Returns
    -------
    model : keras.Model
        From (n, input_size, input_size, 3) uint8 to (n, n_classes) float32, rows that add up to 1.

    Raises
    ------
    WeightsError
        If the file of weights is damaged or belongs to another network.
    MissingExtraError
        If Keras is not installed.
    """
    keras = import_keras()
    with BUILDING, _quiet(), _settings(keras, precision), _seeded(seed):
        pixels = keras.Input((input_size, input_size, 3), dtype="uint8", name="pixels")
        if architecture.encoder is not None:
            features = _base(keras, architecture, pixels, input_size, weights, fine_tuned)
        else:
            features = _OWN[architecture.name](keras, pixels)
        logits = keras.layers.Dense(n_classes, name="logits")(features)
        proba = keras.layers.Activation("softmax", dtype="float32", name="probabilities")(logits)
        model = keras.Model(pixels, proba, name=architecture.name.replace(".", "_"))
        if weights is not None and architecture.encoder is None:
            _load_own(model, architecture, weights)
        return model


def rebuild(
    built_as: Mapping[str, object], n_classes: int, input_size: int, arrays: Sequence[np.ndarray] | None = None
):
    """A network as it was built for a fit, with other weights.

    Parameters
    ----------
    built_as : mapping
        ``architecture``, the name, and ``precision`` and ``fine_tuned`` as for `build`.
    n_classes, input_size : int
        As for `build`.
    arrays : sequence of ndarray or None
        All weights, in Keras's order; None leaves them random.

    Returns
    -------
    model : keras.Model
    """
    options = {name: built_as[name] for name in ("precision", "fine_tuned")}
    model = build(find_architecture(built_as["architecture"]), n_classes, input_size=input_size, **options)
    if arrays is not None:
        with _quiet():
            model.set_weights(arrays)
    return model


def unfreeze(model, architecture: Architecture, part: str, *, fine_tuned: bool) -> None:
    """Say which layers learn; the model has to be compiled after it.

    Parameters
    ----------
    model : keras.Model
        From `build`.
    architecture : Architecture
        Whose.
    part : {"head", "last_blocks", "all"}
        "head" is what stands on a pretrained base.
    fine_tuned : bool
        As the network was built. Its normalisations then learn in no stage: to Keras that means that they keep their
        means and deviations, also where training says otherwise to the whole network.
    """
    if architecture.encoder is None:
        return
    base = model.get_layer("base")
    base.trainable = True
    normalisation = import_keras().layers.BatchNormalization
    for layer in base.layers:
        learns = part == "all" or (part == "last_blocks" and layer.name.startswith(architecture.last_blocks))
        layer.trainable = learns and not (fine_tuned and isinstance(layer, normalisation))


def _cancernet(keras, pixels):
    """CancerNet as published: separable convolutions 32; 64, 64; 128, 128, 128; then 256 units."""
    layers = keras.layers
    x = layers.Rescaling(1 / 255, dtype="float32")(pixels)
    for width, depth in ((32, 1), (64, 2), (128, 3)):
        for _ in range(depth):
            x = layers.SeparableConv2D(width, 3, padding="same")(x)
            x = layers.BatchNormalization()(layers.Activation("relu")(x))
        x = layers.Dropout(0.25)(layers.MaxPooling2D()(x))
    x = layers.Activation("relu")(layers.Dense(256)(layers.Flatten()(x)))
    return layers.Dropout(0.5)(layers.BatchNormalization()(x))


def _alexnet(keras, pixels):
    """AlexNet in one column: five convolutions, then twice 4,096 units; without normalisation, as published."""
    layers = keras.layers
    x = layers.Rescaling(1 / 127.5, offset=-1, dtype="float32")(pixels)
    x = layers.Conv2D(64, 11, strides=4, activation="relu")(layers.ZeroPadding2D(2)(x))
    x = layers.Conv2D(192, 5, padding="same", activation="relu")(layers.MaxPooling2D(3, 2)(x))
    x = layers.MaxPooling2D(3, 2)(x)
    for width in (384, 256, 256):
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
    x = layers.Flatten()(layers.MaxPooling2D(3, 2)(x))
    for _ in range(2):
        x = layers.Dense(4096, activation="relu")(layers.Dropout(0.5)(x))
    return x


def _resnet_small(keras, pixels):
    """Three residual blocks of 32, 64 and 128 channels; see `histofeat.networks.pretrained.residual`."""
    layers = keras.layers
    x = layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32")(pixels)
    return layers.Dropout(_HEAD_DROPOUT)(residual_features(keras, x))


#: histofeat's own, from pixels to the features that the output stands on.
_OWN = {"cancernet": _cancernet, "alexnet": _alexnet, "resnet_small": _resnet_small}


def _base(keras, architecture, pixels, input_size, weights, fine_tuned):
    """Build a network of ``keras.applications`` without its head, and drop some of what it gives."""
    encoder = architecture.encoder
    constructor = getattr(keras.applications, encoder.constructor)
    shape = (input_size, input_size, 3)
    base = constructor(
        include_top=False, weights=None, input_shape=shape, pooling="avg", name="base", **dict(encoder.options)
    )
    if weights is not None:
        _load(base, encoder, weights)
        if encoder.stem_scale is not None:  # see histofeat.networks.build_network
            stem = base.get_layer("stem_conv")
            stem.kernel.assign(stem.kernel * np.asarray(encoder.stem_scale, dtype=np.float32)[:, np.newaxis])
    # A pretrained base keeps its means and deviations in both stages, for which `unfreeze` is needed too: those of a
    # small batch would undo its weights.
    seen = preprocess(pixels, encoder.preprocessing)
    features = base(seen, training=False) if fine_tuned else base(seen)
    return keras.layers.Dropout(_HEAD_DROPOUT)(features)


def _load_own(model, architecture, path):
    try:
        model.load_weights(path)
    except Exception as error:  # Keras, h5py and zipfile raise a dozen kinds for a damaged or foreign file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{path}: expected weights of {architecture.name} with as many classes, got a file that Keras cannot load "
            f"into it ({reason:.200}). Use a file that this architecture was saved to."
        ) from error


@contextlib.contextmanager
def _seeded(seed: int):
    # Every initialiser and dropout of Keras that is given no seed draws one from Python's generator.
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
