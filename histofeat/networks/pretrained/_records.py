"""The encoders: one frozen record each, read from tables, in one register; no network is loaded."""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from histofeat.exceptions import check_name, check_that

Record = TypeVar("Record")
TIMM, HUB = "timm:", "hf-hub:"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
#: Files that a repository of the hub may hold; the first is preferred because no code can hide in it.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
#: Every network here halves its input five times: below 64 px the last feature map is a single cell that sees
#: mostly padding, and the embeddings of all patches become nearly the same.
MINIMUM_SIZE = 64


@dataclass(frozen=True)
class TrainingData:
    """One source of the data that an encoder was trained on, as its authors declare it.

    Parameters
    ----------
    data : str
        Name of the data set, such as "TCGA" or "ImageNet"; "unknown" where nothing was declared.
    kind : {"public", "proprietary", "unknown"}
        Whether others have the data.
    source : str
        DOI, arXiv number or address of the place where the authors say so.
    note : str
        What is known further.
    """

    data: str
    kind: str
    source: str = ""
    note: str = ""


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
        Micrometres per pixel of its input in training; None where they have none, as those of ImageNet.
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


@dataclass(frozen=True)
class TimmEncoder:
    """One pretrained network that timm builds and PyTorch runs, without its classification layer.

    None of those in the table was verified with its published weights here: tests build them with random weights.

    Parameters
    ----------
    name : str
        The name in histofeat.
    architecture : str
        Name of the network in timm.
    n_features : int
        Length of the embedding.
    hub_id : str or None
        ``owner/repository`` of the published weights; None where there are none on the hub.
    options : tuple of (str, value)
        Further arguments of ``timm.create_model``; a value ``"timm.layers:Name"`` or ``"torch.nn:Name"`` stands for
        that class.
    stem : {"", "conv"}
        ``"conv"`` puts the convolutional stem of CTransPath before the first stage.
    embedding : {"pooled", "class_and_mean"}
        ``"pooled"`` is what timm gives without the classification layer: the class token of a vision transformer, the
        mean of the last feature map of most others. ``"class_and_mean"`` is the class token and the mean of the patch
        tokens, side by side.
    mean, std : tuple of float
        Pixels, scaled to 0..1, minus the mean and divided by the deviation, per channel R, G, B.
    default_size : int
        Side in px to which patches are resized.
    minimum_size : int
        Least side in px.
    hub_files : tuple of str
        Names that the file of weights may have on the hub, best first.
    gated : bool
        Whether the hub asks to accept terms and to log in.
    licence : str
        Licence of the weights, as their page says.
    reference : str
        DOI or arXiv number of the paper, or the address of the release where there is no paper.
    source : str
        Where the network is from, as in `Encoder`.
    minimum_patch_px : int
        Longer side of the smallest patch that is accepted.
    mpp : float or None
        Micrometres per pixel of its training images, as its page or its authors say; None where they do not, or where
        there are several.
    declared : tuple of TrainingData
        What its authors declare that it was trained on; empty where nothing is known. See `known_training`.

    Examples
    --------
    >>> TIMM_ENCODERS["virchow"].n_features, TIMM_ENCODERS["virchow"].terms
    (2560, 'gated')
    """

    name: str
    architecture: str
    n_features: int
    hub_id: str | None
    options: tuple[tuple[str, object], ...] = ()
    stem: str = ""
    embedding: str = "pooled"
    mean: tuple[float, float, float] = IMAGENET["mean"]
    std: tuple[float, float, float] = IMAGENET["std"]
    default_size: int = 224
    minimum_size: int = 64
    hub_files: tuple[str, ...] = HUB_FILES
    gated: bool = False
    licence: str = ""
    reference: str = ""
    source: str = "timm"
    minimum_patch_px: int = 1
    mpp: float | None = None
    declared: tuple[TrainingData, ...] = ()

    @property
    def accepted_files(self) -> tuple[str, ...]:
        """File names looked for in a folder of weights, best first."""
        stem = self.name.replace(":", "-").replace("/", "-")
        return tuple(f"{stem}{suffix}" for suffix in (".safetensors", ".bin", ".pth"))

    @property
    def weight_file(self) -> str:
        """The best of `accepted_files`."""
        return self.accepted_files[0]

    @property
    def terms(self) -> str:
        """``"gated"``, ``"non-commercial"`` or ``"open"``: what stands between a user and the weights."""
        limited = "non-commercial" in self.licence or "-NC" in self.licence
        return "gated" if self.gated else "non-commercial" if limited else "open"

    @property
    def words(self) -> str:
        """One line for lists of encoders."""
        terms = self.licence + ", gated" * self.gated
        return f"{terms}; {self.n_features:,} columns; not verified with its weights here; {self.reference}"

    @property
    def access(self) -> str:
        """One sentence: how to get the published weights."""
        if self.hub_id is None:
            return "timm knows of no weights of it on the hub."
        page = f"https://huggingface.co/{self.hub_id}"
        terms = f" (licence: {self.licence})" if self.licence else ""
        if not self.gated:
            return f"They are at {page}{terms}."
        return (
            f"They are gated: open {page}, accept the terms there{terms}, wait for access where it is granted by hand, "
            "and log in with a token (`hf auth login`, or the environment variable HF_TOKEN)."
        )

    @property
    def recipe(self) -> str:
        """What determines the embedding apart from the weights, for keys of stored features."""
        parts = (self.architecture, self.options, self.stem, self.embedding, self.mean, self.std)
        return "; ".join(map(str, parts))


def read_records(table: str, make: Callable[..., Record]) -> dict[str, Record]:
    """Read a table of encoders.

    Parameters
    ----------
    table : str
        Name of the file, which lies beside this one.
    make : {Encoder, TimmEncoder}
        What a record is.

    Returns
    -------
    records : dict of str to Encoder or TimmEncoder
        By name, in the order of the table.

    Examples
    --------
    >>> list(read_records("timm_encoders.toml", TimmEncoder))[:2]
    ['uni', 'virchow']
    """
    records = {}
    for name, entry in tomllib.loads(Path(__file__).with_name(table).read_text(encoding="utf-8")).items():
        if "declared" in entry:
            entry["declared"] = [TrainingData(**one) for one in entry["declared"]]
        records[name] = make(name, **{key: _frozen(value) for key, value in entry.items()})
    return records


def _frozen(value: Any) -> Any:
    value = list(value.items()) if isinstance(value, dict) else value
    return tuple(value) if isinstance(value, list) else value


def _stages(whole: Encoder) -> Encoder:
    taps = dict(whole.stages)
    return replace(whole, name=f"{whole.name}_stages", n_features=sum(taps.values()), taps=tuple(taps), stages=())


_OWN = read_records("encoders.toml", Encoder)
#: Those that timm builds.
TIMM_ENCODERS: Mapping[str, TimmEncoder] = MappingProxyType(read_records("timm_encoders.toml", TimmEncoder))
_STAGED = {f"{name}_stages": _stages(record) for name, record in _OWN.items() if record.stages}
#: The register: every encoder that has a name of its own.
ENCODERS: Mapping[str, Encoder | TimmEncoder] = MappingProxyType({**_OWN, **TIMM_ENCODERS, **_STAGED})


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
