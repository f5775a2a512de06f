"""The encoders: one frozen record each, read from tables, in one register; no network is loaded."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from histofeat.exceptions import check_name, check_that
from histofeat.networks.pretrained._timm_records import TIMM_RECORDS, TimmEncoder, TrainingData, read_records

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
    stages : tuple of (str, int)
        Last layer of each stage whose feature map has at most a quarter of the input's side, and its channels: the taps
        of the encoder of the same name with ``_stages``.
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
    stages: tuple[tuple[str, int], ...] = ()
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


def _stages(whole: Encoder) -> Encoder:
    taps = dict(whole.stages)
    return replace(whole, name=f"{whole.name}_stages", n_features=sum(taps.values()), taps=tuple(taps), stages=())


_OWN = read_records("encoders.toml", Encoder)
#: The register: every encoder that has a name of its own.
ENCODERS: Mapping[str, Encoder | TimmEncoder] = MappingProxyType(
    {record.name: record for record in (*_OWN, *TIMM_RECORDS, *(_stages(one) for one in _OWN if one.stages))}
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
