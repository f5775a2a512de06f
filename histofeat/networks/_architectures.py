"""The networks that a classifier can train: one record each, and how Keras builds it."""

import contextlib
import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from histofeat.exceptions import check_name
from histofeat.networks._recipes import ALEXNET, CANCERNET, FINE_TUNING, FROM_SCRATCH, LITE, RESNET_SMALL, Recipe
from histofeat.networks.pretrained._network import (
    _quiet,
    _settings,
    base_network,
    import_keras,
    load_weights,
    preprocess,
)
from histofeat.networks.pretrained._records import ENCODERS, Encoder, read_records


@dataclass(frozen=True)
class Architecture:
    """One network, how it is trained and at which size.

    Parameters
    ----------
    name : str
        Its name in histofeat.
    input_size : int
        Default side of the input in px.
    minimum_size : int
        The smallest side it can take.
    recipes : mapping of str to Recipe
        Ways to train it from random weights, "standard" among them.
    encoder : Encoder or None
        The network of ``keras.applications``, which has published ImageNet weights; None for a network of histofeat's
        own.
    fine_tuning : mapping of str to Recipe
        Ways to train it from given weights.
    last_blocks : tuple of str
        How the names of layers start that learn in the second stage of fine-tuning.
    reference : str
        DOI, arXiv number or source.

    Examples
    --------
    >>> ARCHITECTURES["cancernet"].input_size
    48
    """

    name: str
    input_size: int
    minimum_size: int
    recipes: Mapping[str, Recipe]
    encoder: Encoder | None = None
    fine_tuning: Mapping[str, Recipe] = field(default_factory=lambda: MappingProxyType({}))
    last_blocks: tuple[str, ...] = ()
    reference: str = ""


#: Networks of ``keras.applications`` that are no encoders of features.
_FURTHER = read_records("further_networks.toml", Encoder)
#: The network of `histo` before it has seen any tissue: its ImageNet weights are in the package.
_LITE0_SMALL = replace(
    ENCODERS["histo"], name="lite0_small", weight_file="lite0_small.npz", mpp=None,
    declared=ENCODERS["efficientnet_lite0"].declared,
)  # fmt: skip
#: The stage before the pooling, by the constructor's family.
_LAST_BLOCKS = {
    "mobilenet_v2": ("block_13_", "block_14_", "block_15_", "block_16_", "Conv_1"),
    "mobilenet": ("conv_dw_12", "conv_pw_12", "conv_dw_13", "conv_pw_13"),
    "efficientnet": ("block6", "block7", "top_"),
    "resnet": ("conv5_",),
    "densenet": ("conv5_", "bn"),
    "vgg16": ("block5_",),
}


def _pretrained(encoder: Encoder) -> Architecture:
    return Architecture(
        name=encoder.name,
        input_size=96 if "mobilenet" in encoder.name else encoder.default_size,
        minimum_size=32,
        recipes=FROM_SCRATCH,
        encoder=encoder,
        fine_tuning=FINE_TUNING,
        last_blocks=_LAST_BLOCKS[encoder.module],
        reference=encoder.reference,
    )


#: Every network by name. Encoders from another source, and those that are a part of a network, are left out.
ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        record.name: record
        for record in (
            Architecture(
                "cancernet", 48, 8, CANCERNET, reference="Adrian Rosebrock, pyimagesearch.com, 18 February 2019"
            ),
            Architecture("alexnet", 224, 64, ALEXNET, reference="arXiv:1404.5997, section 4, in one column"),
            Architecture("resnet_small", 48, 16, RESNET_SMALL, reference="histofeat; blocks of 10.1109/CVPR.2016.90"),
            Architecture(
                "lite0_small",
                96,
                32,
                FROM_SCRATCH,
                _LITE0_SMALL,
                LITE,
                ("block_05", "block_06", "block_07"),
                reference="EfficientNet-Lite0 (arXiv:1905.11946) to its eighth block",
            ),
            *(_pretrained(one) for one in {**ENCODERS, **_FURTHER}.values() if one.source == "keras" and not one.taps),
        )
    }
)


def find_architecture(name: str) -> Architecture:
    """The record of a network by name.

    Parameters
    ----------
    name : str
        A key of `ARCHITECTURES`.

    Returns
    -------
    architecture : Architecture
        The record.

    Raises
    ------
    ValueError
        If there is no such network; the message gives the nearest name.

    Examples
    --------
    >>> find_architecture("densenet201").encoder.constructor
    'DenseNet201'
    """
    check_name("CNNClassifier.architecture", name, ARCHITECTURES, "the name of a network")
    return ARCHITECTURES[name]


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
        The network to build.
    n_classes : int
        Width of the output.
    input_size : int
        Side of the input in px.
    seed : int, default=0
        Seed of the random weights and of dropout.
    precision : {"float32", "bfloat16"}
        Arithmetic of the layers; the weights and the output are float32.
    weights : Path or None
        For a network of ``keras.applications``: its weights without the classification layer. For one of histofeat's
        own: a network or weights that Keras saved.
    fine_tuned : bool, default=False
        Whether the normalisation layers of the base keep their means and deviations, as those of a pretrained base do.

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
            shape = (input_size, input_size, 3)
            base = base_network(keras, architecture.encoder, shape, weights=weights, name="base")
            # A pretrained base keeps its means and deviations in both stages, for which `unfreeze` is needed too: those
            # of a small batch would undo its weights.
            seen = preprocess(pixels, architecture.encoder.preprocessing)
            kept = fine_tuned and not architecture.encoder.taps
            features = base(seen, training=False) if kept else base(seen)
            if architecture.encoder.taps:  # maps of several depths differ in size
                features = keras.layers.BatchNormalization(center=False, scale=False, name="standardised")(features)
            features = keras.layers.Dropout(_HEAD_DROPOUT)(features)
        else:
            features = _OWN[architecture.name](keras, pixels)
        logits = keras.layers.Dense(n_classes, name="logits")(features)
        proba = keras.layers.Activation("softmax", dtype="float32", name="probabilities")(logits)
        model = keras.Model(pixels, proba, name=architecture.name.replace(".", "_"))
        if weights is not None and architecture.encoder is None:
            expected = f"weights of {architecture.name} with as many classes"
            load_weights(model, weights, expected, "Use a file that this architecture was saved to.")
        return model


def rebuild(
    built_as: Mapping[str, object], n_classes: int, input_size: int, arrays: Sequence[np.ndarray] | None = None
):
    """Build the network of a fit again, with other weights.

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
    """Set which layers learn; compile the model afterwards.

    Parameters
    ----------
    model : keras.Model
        From `build`.
    architecture : Architecture
        The architecture of the model.
    part : {"head", "last_blocks", "all"}
        "head" is the layers after a pretrained base.
    fine_tuned : bool
        As for `build`. The normalisation layers of the base then learn in no stage, so that Keras keeps their means and
        deviations even while the whole network trains. Those of a network with taps learn, and follow the batches.
    """
    if architecture.encoder is None:
        return
    base = model.get_layer("base")
    base.trainable = True
    normalisation, kept = import_keras().layers.BatchNormalization, fine_tuned and not architecture.encoder.taps
    for layer in base.layers:
        learns = part == "all" or (part == "last_blocks" and layer.name.startswith(architecture.last_blocks))
        layer.trainable = learns and not (kept and isinstance(layer, normalisation))


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
    """A 5x5 stem of stride 2 and three residual blocks of 32, 64 and 128 channels, of two 3x3 convolutions each.

    Where a block halves its input, the straight way is averaged over 2x2 and brought to its width by a 1x1 convolution.
    """
    layers = keras.layers

    def convolved(x, width, kernel, stride=1):
        x = layers.Conv2D(width, kernel, strides=stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9)(x)

    x = layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32")(pixels)
    x = layers.ReLU()(convolved(x, 32, 5, 2))
    for width, stride in ((32, 1), (64, 2), (128, 2)):
        straight = convolved(layers.AveragePooling2D(2, padding="same")(x), width, 1) if stride == 2 else x
        y = layers.ReLU()(convolved(x, width, 3, stride))
        x = layers.ReLU()(layers.Add()([straight, convolved(y, width, 3)]))
    return layers.Dropout(_HEAD_DROPOUT)(layers.GlobalAveragePooling2D()(x))


#: Builders of histofeat's own networks, from pixels to the input of the last layer.
_OWN = {"cancernet": _cancernet, "alexnet": _alexnet, "resnet_small": _resnet_small}


@contextlib.contextmanager
def _seeded(seed: int):
    # Every initialiser and dropout of Keras that is given no seed draws one from Python's generator.
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
