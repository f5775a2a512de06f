"""The pretrained networks by name: one frozen record each, nothing loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["ENCODERS", "MINIMUM_SIZE", "Encoder"]


#: Every network here halves its input five times: below 64 px the last feature map is a single cell that sees
#: mostly padding, and the embeddings of all patches fall together.
MINIMUM_SIZE = 64


@dataclass(frozen=True)
class Encoder:
    """One pretrained network, without its classification layer.

    Parameters
    ----------
    name : str
        The name in histofeat; the width is part of it where it is not 1.
    constructor : str
        Name of the function in ``keras.applications``; "" where the network is not from there.
    module : str
        Name of its module there, whose ``preprocess_input`` is the witness of `preprocessing`.
    n_features : int
        Length of the embedding.
    preprocessing : {"tf", "caffe", "torch", "none"}
        From pixels 0 to 255, RGB: ``"tf"`` is x / 127.5 - 1; ``"torch"`` scales to 0..1, then subtracts the
        ImageNet mean and divides by its deviation; ``"caffe"`` turns to BGR and subtracts the mean; ``"none"``
        leaves it to layers inside the network.
    weight_file : str
        The file of ImageNet weights as Keras names it.
    options : tuple of (str, value)
        Further arguments of the constructor.
    stem_scale : tuple of float or None
        Factor per input channel that Keras inserts before the first convolution when, and only when, it loads
        the ImageNet weights by itself.
    taps : tuple of str
        Layers whose feature maps are pooled, side by side, in place of the last one. Layers half way up know textures
        of the size of nuclei; the last ones know objects of ImageNet, and have many more columns.
    default_size : int
        Side in px to which patches are resized.
    reference : str
        DOI or arXiv number of the paper.
    source : {"keras", "histofeat", "timm"}
        Whose network it is: of ``keras.applications``; of this package, which ships its weights; of timm or a hub.
    minimum_patch_px : int
        Longer side of the smallest patch that it can say something about.

    Examples
    --------
    >>> ENCODERS["mobilenetv2_0.35"].n_features
    1280
    """

    name: str
    constructor: str
    module: str
    n_features: int
    preprocessing: str
    weight_file: str
    options: tuple[tuple[str, object], ...] = ()
    stem_scale: tuple[float, float, float] | None = None
    taps: tuple[str, ...] = ()
    default_size: int = 128
    minimum_size: int = MINIMUM_SIZE
    reference: str = ""
    source: str = "keras"
    minimum_patch_px: int = 1

    @property
    def accepted_files(self) -> tuple[str, ...]:
        """File names looked for in a folder of weights, best first."""
        return (self.weight_file, f"{self.name}.weights.h5", f"{self.name}.keras")


#: Expansions of the first blocks at a sixteenth and at a thirty-second of the input: before their feature maps shrink.
_MIDDLE = ("block_6_expand_relu", "block_13_expand_relu")


_MOBILENET_V2 = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{}_224_no_top.h5"


#: Every encoder by name. ImageNet weights are those that were trained at 224 px, whatever the input size.
ENCODERS: Mapping[str, Encoder] = MappingProxyType(
    {
        record.name: record
        for record in (
            Encoder(
                name="mobilenetv2",
                constructor="MobileNetV2",
                module="mobilenet_v2",
                n_features=1280,
                preprocessing="tf",
                weight_file=_MOBILENET_V2.format("1.0"),
                options=(("alpha", 1.0),),
                reference="10.1109/CVPR.2018.00474",
            ),
            Encoder(
                name="mobilenetv2_0.35",
                constructor="MobileNetV2",
                module="mobilenet_v2",
                n_features=1280,
                preprocessing="tf",
                weight_file=_MOBILENET_V2.format("0.35"),
                options=(("alpha", 0.35),),
                reference="10.1109/CVPR.2018.00474",
            ),
            Encoder(
                name="mobilenetv2_mid",
                constructor="MobileNetV2",
                module="mobilenet_v2",
                n_features=768,
                preprocessing="tf",
                weight_file=_MOBILENET_V2.format("1.0"),
                options=(("alpha", 1.0),),
                taps=_MIDDLE,
                reference="10.1109/CVPR.2018.00474",
            ),
            Encoder(
                name="mobilenetv2_0.35_mid",
                constructor="MobileNetV2",
                module="mobilenet_v2",
                n_features=288,
                preprocessing="tf",
                weight_file=_MOBILENET_V2.format("0.35"),
                options=(("alpha", 0.35),),
                taps=_MIDDLE,
                reference="10.1109/CVPR.2018.00474",
            ),
            Encoder(
                name="mobilenet_0.25",
                constructor="MobileNet",
                module="mobilenet",
                n_features=256,
                preprocessing="tf",
                weight_file="mobilenet_2_5_224_tf_no_top.h5",
                options=(("alpha", 0.25),),
                reference="arXiv:1704.04861",
            ),
            Encoder(
                name="efficientnetb0",
                constructor="EfficientNetB0",
                module="efficientnet",
                n_features=1280,
                preprocessing="none",
                weight_file="efficientnetb0_notop.h5",
                stem_scale=(0.229**-0.5, 0.224**-0.5, 0.225**-0.5),
                reference="arXiv:1905.11946",
            ),
            Encoder(
                name="resnet50",
                constructor="ResNet50",
                module="resnet",
                n_features=2048,
                preprocessing="caffe",
                weight_file="resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
                reference="10.1109/CVPR.2016.90",
            ),
            Encoder(
                name="densenet121",
                constructor="DenseNet121",
                module="densenet",
                n_features=1024,
                preprocessing="torch",
                weight_file="densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
                reference="10.1109/CVPR.2017.243",
            ),
            Encoder(
                name="histo",
                constructor="",
                module="",
                n_features=128,
                preprocessing="tf",
                weight_file="histo.weights.h5",
                # The side of IDC patches, which are not resampled then; three halvings leave 7x7 cells.
                default_size=50,
                minimum_size=32,
                reference="histofeat/networks/pretrained/shipped/histo/MODEL_CARD.md",
                source="histofeat",
                minimum_patch_px=16,
            ),
        )
    }
)
