"""The networks that a classifier can train, by name: one frozen record each, nothing loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from histofeat.exceptions import known_names
from histofeat.networks.pretrained.records import ENCODERS, Encoder
from histofeat.networks.recipes import ALEXNET, CANCERNET, FINE_TUNING, FROM_SCRATCH, RESNET_SMALL, Recipe

__all__ = ["ARCHITECTURES", "Architecture", "find_architecture"]


@dataclass(frozen=True)
class Architecture:
    """One network, how it is trained and at which size.

    Parameters
    ----------
    name : str
        Its name in histofeat.
    input_size : int
        Side of the input in px, unless another is asked for.
    minimum_size : int
        The smallest side it can take.
    recipes : mapping of str to Recipe
        Ways to train it from random weights, "standard" among them.
    encoder : Encoder or None
        What ``keras.applications`` has under this name, with published ImageNet weights; None for a network of
        histofeat's own.
    fine_tuning : mapping of str to Recipe
        Ways to train it from given weights.
    last_blocks : tuple of str
        The layers that learn in the second stage of fine-tuning: those whose names start so.
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

    @property
    def is_pretrained(self) -> bool:
        """Whether there are published ImageNet weights."""
        return self.encoder is not None


def _further(name, constructor, module, n_features, preprocessing, weight_file, reference, options=()):
    """Record a network of ``keras.applications`` that is no encoder of features."""
    return Encoder(
        name=name,
        constructor=constructor,
        module=module,
        n_features=n_features,
        preprocessing=preprocessing,
        weight_file=weight_file,
        reference=reference,
        options=options,
    )


_KERNELS = "_weights_tf_dim_ordering_tf_kernels_notop.h5"
_DENSENET = "10.1109/CVPR.2017.243"
_FURTHER = (
    _further("mobilenet", "MobileNet", "mobilenet", 1024, "tf", "mobilenet_1_0_224_tf_no_top.h5", "arXiv:1704.04861"),
    _further("resnet101", "ResNet101", "resnet", 2048, "caffe", f"resnet101{_KERNELS}", "10.1109/CVPR.2016.90"),
    _further(
        "densenet169", "DenseNet169", "densenet", 1664, "torch", f"densenet169{_KERNELS}", "10.1109/CVPR.2017.243"
    ),
    _further(
        "densenet201", "DenseNet201", "densenet", 1920, "torch", f"densenet201{_KERNELS}", "10.1109/CVPR.2017.243"
    ),
    _further("vgg16", "VGG16", "vgg16", 512, "caffe", f"vgg16{_KERNELS}", "arXiv:1409.1556"),
)
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


def _is_plain(encoder: Encoder) -> bool:
    """Whether an encoder is a whole network of ``keras.applications``, not a part of one and nobody else's."""
    return encoder.source == "keras" and not encoder.taps


#: Every network by name.
ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        record.name: record
        for record in (
            Architecture(
                "cancernet", 48, 8, CANCERNET, reference="Adrian Rosebrock, pyimagesearch.com, 18 February 2019"
            ),
            Architecture("alexnet", 224, 64, ALEXNET, reference="arXiv:1404.5997, section 4, in one column"),
            Architecture("resnet_small", 48, 16, RESNET_SMALL, reference="histofeat; blocks of 10.1109/CVPR.2016.90"),
            *(_pretrained(encoder) for encoder in (*ENCODERS.values(), *_FURTHER) if _is_plain(encoder)),
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
    if isinstance(name, str) and name in ARCHITECTURES:
        return ARCHITECTURES[name]
    raise ValueError(
        f"CNNClassifier.architecture: expected the name of a network, got {name!r}. {known_names(name, ARCHITECTURES)}"
    )
