"""The encoders: one frozen record each, in one register; nothing is loaded."""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from histofeat.exceptions import check_name, check_that
from histofeat.networks.pretrained._timm_records import TIMM_RECORDS, TimmEncoder, TrainingData

#: Every network here halves its input five times: below 64 px the last feature map is a single cell that sees
#: mostly padding, and the embeddings of all patches become nearly the same.
MINIMUM_SIZE = 64


@dataclass(frozen=True)
class Encoder:
    """One pretrained network, without its classification layer.

    Parameters
    ----------
    name : str
        The name in histofeat; the width is part of it where it is not 1.
    constructor : str
        Name of the function in ``keras.applications``, or a key of `LITE_BLOCKS`; "" where the network is neither.
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
        Layers whose feature maps are pooled, side by side, in place of the last one. Middle layers respond to textures
        of the size of nuclei; the last ones respond to objects of ImageNet, and have many more columns.
    default_size : int
        Side in px to which patches are resized.
    reference : str
        DOI or arXiv number of the paper.
    source : {"keras", "lite", "histofeat", "timm"}
        Where the weights are from: ``keras.applications``; the packages of the extra ``histofeat[lite]``; this package,
        which ships them; timm or the hub.
    minimum_patch_px : int
        Longer side of the smallest patch that is accepted.
    mpp : float or None
        Micrometres per pixel of its training images; None where they have none, as those of ImageNet.
    sha256 : str
        Of the published file of weights, where it is checked.
    declared : tuple of TrainingData
        What its authors declare that it was trained on. See `known_training`.

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
    mpp: float | None = None
    sha256: str = ""
    declared: tuple[TrainingData, ...] = (TrainingData("ImageNet", "public", "https://www.image-net.org"),)

    @property
    def accepted_files(self) -> tuple[str, ...]:
        """File names looked for in a folder of weights, best first."""
        if self.source == "lite":
            return self.weight_file, f"{self.weight_file[:-4].replace('_', '-')}-{self.sha256[:8]}.pth"
        return (self.weight_file, f"{self.name}.weights.h5", f"{self.name}.keras")

    @property
    def url(self) -> str:
        """Where the ImageNet weights of a network of Keras are published."""
        folder = "" if self.module == "efficientnet" else f"tensorflow/keras-applications/{self.module}/"
        return f"https://storage.googleapis.com/{folder or 'keras-applications/'}{self.weight_file}"


_CARD = "histofeat/networks/pretrained/shipped/histo/MODEL_CARD.md"


def _mobilenet_v2(name: str, alpha: float) -> Encoder:
    return Encoder(
        name, "MobileNetV2", "mobilenet_v2", 1280, "tf",
        f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_224_no_top.h5",
        options=(("alpha", alpha),), reference="10.1109/CVPR.2018.00474",
    )  # fmt: skip


def _lite_blocks(channels: tuple[int, ...], repeats: tuple[int, ...]) -> tuple[tuple[int, int, int, int, int], ...]:
    kernels, strides = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1)
    return tuple(zip(kernels, strides, (1, *[6] * 6), channels, repeats, strict=True))


#: Stages of the EfficientNet-Lite networks: kernel, stride of the first block, expansion, channels, blocks.
LITE_BLOCKS: Mapping[str, tuple[tuple[int, int, int, int, int], ...]] = MappingProxyType(
    {
        "efficientnet_lite0": _lite_blocks((16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1)),
        "efficientnet_lite1": _lite_blocks((16, 24, 40, 80, 112, 192, 320), (1, 3, 3, 4, 4, 5, 1)),
        "efficientnet_lite2": _lite_blocks((16, 24, 48, 88, 120, 208, 352), (1, 3, 3, 4, 4, 5, 1)),
    }
)


def _lite(name: str, sha256: str) -> Encoder:
    about = {"sha256": sha256, "source": "lite", "reference": "arXiv:1905.11946"}
    return Encoder(name, name, "", 1280, "tf", f"{name}.pth", **about)


def _lite_taps(rows: tuple[tuple[int, ...], ...]) -> dict[str, int]:
    ends = itertools.accumulate(repeats for *_, repeats in rows)
    return {f"block_{end - 1:02d}": row[3] for row, end in list(zip(rows, ends, strict=True))[1:6]}


def _mobilenet_v2_taps(*channels: int) -> dict[str, int]:
    # The maps between its blocks are narrow and linear: the expansion of a stage's last one, by the next block, tells
    # more. The last stage, a thirty-second of the side, made the embedding worse on patches of 50 px.
    return {f"block_{k}_expand_relu": 6 * width for k, width in zip((3, 6, 10, 13), channels, strict=True)}


#: Last block of each stage whose feature map has at most a quarter of the input's side, and its channels.
_STAGES: Mapping[str, Mapping[str, int]] = {
    **{name: _lite_taps(rows) for name, rows in LITE_BLOCKS.items()},
    "mobilenetv2": _mobilenet_v2_taps(24, 32, 64, 96),
    "mobilenetv2_0.35": _mobilenet_v2_taps(8, 16, 24, 32),
    "mobilenet_0.25": {"conv_pw_3_relu": 32, "conv_pw_5_relu": 64, "conv_pw_11_relu": 128, "conv_pw_13_relu": 256},
    "efficientnetb0": {"block2b_add": 24, "block3b_add": 40, "block4c_add": 80, "block5c_add": 112, "block6d_add": 192},
    "resnet50": {"conv2_block3_out": 256, "conv3_block4_out": 512, "conv4_block6_out": 1024, "conv5_block3_out": 2048},
    "densenet121": {
        "conv2_block6_concat": 256, "conv3_block12_concat": 512, "conv4_block24_concat": 1024,
        "conv5_block16_concat": 1024,
    },
}  # fmt: skip


def _stages(whole: Encoder) -> Encoder:
    taps = _STAGES[whole.name]
    return replace(whole, name=f"{whole.name}_stages", n_features=sum(taps.values()), taps=tuple(taps))


_ALL: tuple[Encoder | TimmEncoder, ...] = (
    # ImageNet weights are those that were trained at 224 px, whatever the input size.
    _mobilenet_v2("mobilenetv2", 1.0),
    _mobilenet_v2("mobilenetv2_0.35", 0.35),
    Encoder(
        "mobilenet_0.25", "MobileNet", "mobilenet", 256, "tf", "mobilenet_2_5_224_tf_no_top.h5",
        options=(("alpha", 0.25),), reference="arXiv:1704.04861",
    ),
    Encoder(
        "efficientnetb0", "EfficientNetB0", "efficientnet", 1280, "none", "efficientnetb0_notop.h5",
        stem_scale=(0.229**-0.5, 0.224**-0.5, 0.225**-0.5), reference="arXiv:1905.11946",
    ),
    Encoder(
        "resnet50", "ResNet50", "resnet", 2048, "caffe", "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        reference="10.1109/CVPR.2016.90",
    ),
    Encoder(
        "densenet121", "DenseNet121", "densenet", 1024, "torch",
        "densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5", reference="10.1109/CVPR.2017.243",
    ),
    _lite("efficientnet_lite0", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    _lite("efficientnet_lite1", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    _lite("efficientnet_lite2", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    Encoder(
        "histo", "efficientnet_lite0", "", 144, "tf", "histo.npz", taps=("block_02", "block_04", "block_07"),
        # Twice the side of IDC patches, nearly: four halvings leave 6x6 cells.
        default_size=96, minimum_size=32, minimum_patch_px=16, source="histofeat", mpp=4.0,
        reference=_CARD, declared=(TrainingData("IDC", "public", _CARD, "its record lists the images"),),
    ),
    *TIMM_RECORDS,
)  # fmt: skip
#: The register: every encoder that has a name of its own.
ENCODERS: Mapping[str, Encoder | TimmEncoder] = MappingProxyType(
    {record.name: record for record in (*_ALL, *(_stages(one) for one in _ALL if one.name in _STAGES))}
)
#: Those that timm builds.
TIMM_ENCODERS: Mapping[str, TimmEncoder] = MappingProxyType(
    {name: record for name, record in ENCODERS.items() if record.source == "timm"}
)


def n_columns(encoder: Encoder | TimmEncoder, pooling: str = "avg") -> int:
    """Length of an embedding: with the pooling "avg_std" each channel has a mean and a deviation.

    Examples
    --------
    >>> n_columns(ENCODERS["efficientnet_lite0_stages"]), n_columns(ENCODERS["efficientnet_lite0_stages"], "avg_std")
    (448, 896)
    """
    return encoder.n_features * (2 if pooling == "avg_std" else 1)


def check_settings(
    encoder: Encoder | TimmEncoder, engine: str, pooling: str, precision: str = "float32", device: str | None = None
) -> None:
    """Refuse settings that do not exist, an engine that cannot run an encoder, and a pooling that it does not have.

    Parameters
    ----------
    encoder : Encoder or TimmEncoder
        The network.
    engine : {"auto", "keras", "openvino", "torch"}
        What the user asked for.
    pooling : {"avg", "max", "avg_std"}
        What the user asked for.
    precision : {"float32", "bfloat16"}
        What the user asked for.
    device : {None, "cpu", "gpu", "gpu:0", ...}
        What the user asked for.

    Raises
    ------
    ValueError
        If a setting does not exist, or does not go with the encoder.
    """
    check_name("CNNEmbedding.engine", engine, ("auto", "keras", "openvino", "torch"))
    check_name("CNNEmbedding.precision", precision, ("float32", "bfloat16"))
    check_name("CNNEmbedding.pooling", pooling, ("avg", "max", "avg_std"))
    where, named = "CNNEmbedding.device", f"with encoder={encoder.name!r}"
    fits = device is None or (isinstance(device, str) and re.fullmatch(r"cpu|gpu(:\d+)?", device))
    check_that(where, device, fits, "None, 'cpu', 'gpu' or 'gpu:<number>'", "None takes a GPU where there is one.")
    fits, expected = engine != "openvino" or device in (None, "cpu"), "'cpu' or None with engine='openvino'"
    check_that(where, device, fits, expected, "Use engine='keras' for a GPU.")
    if encoder.source != "timm":
        expected = f"'auto', 'keras' or 'openvino' {named}, which is built by Keras"
        remedy = "Use engine='auto'; KERAS_BACKEND=torch lets Keras compute with PyTorch."
        check_that("CNNEmbedding.engine", engine, engine != "torch", expected, remedy)
        return
    expected = f"'auto' or 'torch' {named}, which is built by timm"
    check_that("CNNEmbedding.engine", engine, engine in ("auto", "torch"), expected, "Use engine='auto'.")
    expected = f"'avg' {named}, whose embedding is made as its authors make it"
    check_that("CNNEmbedding.pooling", pooling, pooling == "avg", expected, "Leave pooling as it is.")
