"""EfficientNet-Lite: one description of its graph, which Keras and OpenVINO walk, and the reader of its weights."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from histofeat.datasets import read_array, read_members, regular_size, write_whole
from histofeat.exceptions import DAMAGED, WeightsError
from histofeat.networks.pretrained._records import LITE_BLOCKS, Encoder

Arrays = Mapping[str, np.ndarray]
#: Constant of batch normalisation, and share of its running values that a step of training keeps.
_EPSILON, _MOMENTUM = 1e-3, 0.95
#: Layers of the published files by their names here: the convolution, and the normalisation that follows it.
_TORCH = {
    "stem": ("_conv_stem", "_bn0"),
    "head": ("_conv_head", "_bn1"),
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}
_NORM = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"}
#: The largest file of the three networks has 25 MB.
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Convolution:
    """One convolution with batch normalisation, padded as "same".

    Parameters
    ----------
    name : str
        Such as ``"block_02.expand"``; its arrays are ``<name>.kernel`` and so on.
    shape : tuple of int
        Of the kernel: height, width, channels that it reads, channels that it makes of each of its groups.
    stride : int
    depthwise : bool
        Whether each channel is convolved by itself; the last number of `shape` is then 1.
    relu : bool
        Whether ReLU6 follows.
    """

    name: str
    shape: tuple[int, int, int, int]
    stride: int = 1
    depthwise: bool = False
    relu: bool = True

    def arrays(self, *, normed: bool) -> dict[str, tuple[int, ...]]:
        """Give the shapes of its arrays by name, in Keras's order: with normalisation, or with a bias."""
        channels, parts = self.shape[2 if self.depthwise else 3], _NORM if normed else ("bias",)
        return {f"{self.name}.kernel": self.shape, **{f"{self.name}.{part}": (channels,) for part in parts}}


def walk_lite(encoder: Encoder, x: Any, convolve: Callable[[Any, Convolution], Any], add: Callable) -> list[Any]:
    """Follow the graph of an EfficientNet-Lite with the operations of any engine.

    Parameters
    ----------
    encoder : Encoder
        Its `constructor` is a key of `LITE_BLOCKS`; the network ends at the last of its `taps`, which are names such as
        ``"block_02"``, or, without taps, at the head of 1,280 channels.
    x : tensor
        Pixels from -1 to 1.
    convolve : callable
        From a tensor and a `Convolution` to a tensor.
    add : callable
        Adds two tensors.

    Returns
    -------
    maps : list of tensor
        The feature map of each tap, or that of the head.

    Notes
    -----
    MBConv blocks (arXiv:1905.11946) without squeeze-and-excitation, with ReLU6 in place of swish
    (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite).
    """
    maps, width = [], 32
    x = convolve(x, Convolution("stem", (3, 3, 3, width), stride=2))
    rows = [(row, k) for row in LITE_BLOCKS[encoder.constructor] for k in range(row[-1])]
    for number, ((kernel, stride, expansion, channels, _), k) in enumerate(rows):
        name, wide, step = f"block_{number:02d}", width * expansion, stride if k == 0 else 1
        y = convolve(x, Convolution(f"{name}.expand", (1, 1, width, wide))) if expansion > 1 else x
        y = convolve(y, Convolution(f"{name}.depthwise", (kernel, kernel, wide, 1), stride=step, depthwise=True))
        y = convolve(y, Convolution(f"{name}.project", (1, 1, wide, channels), relu=False))
        x, width = add(x, y) if step == 1 and width == channels else y, channels
        if name in encoder.taps:
            maps.append(x)
            if len(maps) == len(encoder.taps):
                return maps
    return [convolve(x, Convolution("head", (1, 1, width, encoder.n_features)))]


def convolutions(encoder: Encoder) -> list[Convolution]:
    """List the convolutions of a network, in the order in which they run."""
    found: list[Convolution] = []
    walk_lite(encoder, None, lambda _, convolution: found.append(convolution), lambda *_: None)
    return found


# --- weights ---------------------------------------------------------------------------------------------------------


def read_lite(path: Path, encoder: Encoder, *, fold: bool = True) -> dict[str, np.ndarray]:
    """Read the weights of an EfficientNet-Lite.

    Parameters
    ----------
    path : Path
        A state dict in PyTorch's old format (``.pth``), as the packages of the weights have it; or the file of
        `write_lite` (``.npz``).
    encoder : Encoder
        The network; blocks after its last tap are left out.
    fold : bool, default=True
        Whether batch normalisation is folded into the convolutions. Without, as for training, weights that are folded
        already get one that changes nothing.

    Returns
    -------
    arrays : dict of str to ndarray, float32
        For each convolution ``<name>.kernel`` of shape (height, width, in, out), or (height, width, in, 1) for one of
        single channels. Folded ``<name>.bias``; otherwise ``<name>.gamma``, ``.beta``, ``.mean`` and ``.variance``.

    Raises
    ------
    WeightsError
        If the file is damaged, holds anything but arrays, or belongs to another network. No code in it is run.
    """
    try:
        if regular_size(path) > _MOST_BYTES:
            raise ValueError(f"{regular_size(path):,} bytes, more than any of these networks has")
        if path.suffix == ".npz":
            found = {name.removesuffix(".npy"): read_array(each) for name, each in read_members(path).items()}
        else:
            found = _from_torch(_state_dict(path.read_bytes()), convolutions(encoder))
        arrays = {name: np.asarray(array, dtype=np.float32) for name, array in found.items()}
        # ReLU6 may hide them in the embedding of a test image.
        if wrong := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
            raise ValueError(f"{wrong[0]} is not all finite numbers")
    except (*DAMAGED, pickle.UnpicklingError) as error:
        raise WeightsError(
            f"{path}: expected the weights of {encoder.name} as arrays only, got {type(error).__name__} "
            f"({error!s:.150}). Use {encoder.weight_file}; if it is that file, copy or install it again."
        ) from error
    _check_arrays(path, encoder, arrays)
    return fold_norms(arrays) if fold else _with_norms(arrays, encoder)


def fold_norms(arrays: Arrays) -> dict[str, np.ndarray]:
    """Fold batch normalisation into the convolutions before it; leave those that have none.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        As `read_lite` returns them.

    Returns
    -------
    folded : dict of str to ndarray, float32
        ``<name>.kernel`` and ``<name>.bias``, computed in double precision.

    Examples
    --------
    >>> one = {"stem.kernel": np.ones((1, 1, 1, 1)), "stem.gamma": 4.0, "stem.beta": 1.0, "stem.mean": 2.0}
    >>> {name: float(array.item()) for name, array in fold_norms({**one, "stem.variance": 3.999}).items()}
    {'stem.kernel': 2.0, 'stem.bias': -3.0}
    """
    folded: dict[str, np.ndarray] = {}
    for key in arrays:
        name, _, kind = key.rpartition(".")
        if kind != "kernel":
            continue
        kernel = np.asarray(arrays[key], dtype=np.float64)
        if f"{name}.gamma" in arrays:
            gamma, beta, mean, variance = (np.asarray(arrays[f"{name}.{part}"], dtype=np.float64) for part in _NORM)
            scale = gamma / np.sqrt(variance + _EPSILON)
            kernel, bias = kernel * (scale[:, None] if name.endswith("depthwise") else scale), beta - mean * scale
        else:
            bias = arrays[f"{name}.bias"]
        folded |= {key: np.asarray(kernel, np.float32), f"{name}.bias": np.asarray(bias, np.float32)}
    return folded


def _with_norms(arrays: dict[str, np.ndarray], encoder: Encoder) -> dict[str, np.ndarray]:
    for each in convolutions(encoder):
        if f"{each.name}.gamma" not in arrays:
            beta = arrays.pop(f"{each.name}.bias")
            values = (np.ones_like(beta), beta, np.zeros_like(beta), np.full_like(beta, 1 - _EPSILON))
            arrays |= {f"{each.name}.{part}": value for part, value in zip(_NORM, values, strict=True)}
    return arrays


def write_lite(arrays: Arrays, path: Path, *, fold: bool = True) -> None:
    """Write weights in half precision.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        As `read_lite` or `lite_arrays` returns them.
    path : Path
        Ending in ``.npz``; an older file is replaced.
    fold : bool, default=True
        Whether batch normalisation is folded into the convolutions. Without, its numbers keep single precision.
    """
    arrays = fold_norms(arrays) if fold else arrays
    kinds = {name: np.float16 if fold or array.ndim > 1 else np.float32 for name, array in arrays.items()}
    with write_whole(path, overwrite=True) as part, part.open("wb") as file:
        np.savez(file, **{name: array.astype(kinds[name]) for name, array in arrays.items()})


def _check_arrays(path: Path, encoder: Encoder, arrays: Arrays) -> None:
    remedy = f"Use {encoder.weight_file}, or the encoder that the weights belong to."
    for each in convolutions(encoder):
        for name, shape in each.arrays(normed=f"{each.name}.gamma" in arrays).items():
            got = arrays[name].shape if name in arrays else "none"
            if got != shape:
                words = f"the weights of {encoder.name} with {name} of shape {shape}, got {got}"
                raise WeightsError(f"{path}: expected {words}. {remedy}")


def _from_torch(state: Arrays, layers: list[Convolution]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for layer in layers:
        block, _, kind = layer.name.rpartition(".")
        prefix = f"_blocks.{int(block.removeprefix('block_'))}." if block else ""
        convolution, norm = (prefix + name for name in _TORCH[kind])
        found |= {f"{layer.name}.{part}": state[f"{norm}.{theirs}"] for part, theirs in _NORM.items()}
        order = (2, 3, 0, 1) if layer.depthwise else (2, 3, 1, 0)
        found[f"{layer.name}.kernel"] = state[f"{convolution}.weight"].transpose(order)
    return found


# --- PyTorch's format before its version 1.6 -------------------------------------------------------------------------

#: The number that such a file starts with.
_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {"FloatStorage": "<f4", "HalfStorage": "<f2", "DoubleStorage": "<f8", "LongStorage": "<i8"}
#: Objects that a pickle may number; a larger number makes the reader reserve memory for all below it.
_MOST_OBJECTS = 100_000


class _ArraysOnly(pickle.Unpickler):
    """Reads ordered dicts of tensors; every other class or function is refused before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, stride, *_: (*storage, offset, shape, stride)
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of an array")

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype]:
        return str(pid[2]), np.dtype(pid[1])


def _state_dict(content: bytes) -> dict[str, np.ndarray]:
    """Read a state dict: five pickles, then each storage as its length and its numbers."""
    if content.startswith(b"PK"):
        raise ValueError("a newer format: torch.save(state, path, _use_new_zipfile_serialization=False) writes the old")
    file = io.BytesIO(content)
    magic, _, _, state, keys = (_unpickle(file) for _ in range(5))
    if magic != _MAGIC:
        raise ValueError("no state dict in PyTorch's format before version 1.6")
    types, starts = {key: dtype for key, dtype, *_ in state.values()}, {}
    for key in keys:
        # Where a file ends early this is 0, fewer numbers than the array has.
        length = int.from_bytes(file.read(8), "little", signed=True)
        starts[key] = file.tell(), length
        file.seek(length * types[key].itemsize, io.SEEK_CUR)
    arrays = {}
    for name, (key, dtype, first, shape, steps) in state.items():
        start, length = starts[key]
        # A step of 0 could make a large array of one number; NumPy holds the rest against the file.
        if math.prod(shape) > length:
            raise ValueError(f"{name} of shape {shape} from {length:,} numbers")
        size = dtype.itemsize
        arrays[name] = np.ndarray(shape, dtype, content, start + first * size, [step * size for step in steps])
    return arrays


def _unpickle(file: io.BytesIO) -> Any:
    start = file.tell()
    for opcode, number, _ in pickletools.genops(file):
        if opcode.name == "LONG_BINPUT" and number > _MOST_OBJECTS:
            raise ValueError(f"a pickle that counts {number:,} objects")
    file.seek(start)
    return _ArraysOnly(file).load()


# --- engines ---------------------------------------------------------------------------------------------------------


def build_lite(
    keras: ModuleType,
    encoder: Encoder,
    arrays: Arrays | None,
    *,
    input_size: int,
    pooling: str = "avg",
    name: str | None = None,
) -> Any:
    """Build the network in Keras; with batch normalisation where the arrays have it.

    Parameters
    ----------
    keras : module
    encoder : Encoder
    arrays : mapping of str to ndarray, or None
        From `read_lite`; not folded for a network that is to be trained with batch normalisation. None is Keras's
        random weights, with batch normalisation.
    input_size : int
        Side of the input in px.
    pooling : {"avg", "max", "avg_std"}
        See `pool_maps`.
    name : str, optional
        Of the model; by default the encoder's.

    Returns
    -------
    model : keras.Model
        From (n, input_size, input_size, 3) float, -1 to 1, to the embeddings (n, d). Layers have the names of the
        convolutions, and ``<name>_norm`` for normalisation, with "_" for the dots that PyTorch refuses.
    """
    layers = keras.layers

    def convolve(x, each: Convolution):
        named, normed = each.name.replace(".", "_"), arrays is None or f"{each.name}.gamma" in arrays
        options = {"strides": each.stride, "padding": "same", "use_bias": not normed, "name": named}
        layer = layers.DepthwiseConv2D if each.depthwise else layers.Conv2D
        x = layer(*(() if each.depthwise else each.shape[3:]), each.shape[:2], **options)(x)
        if normed:
            x = layers.BatchNormalization(epsilon=_EPSILON, momentum=_MOMENTUM, name=f"{named}_norm")(x)
        return layers.ReLU(6.0)(x) if each.relu else x

    pixels = keras.Input((input_size, input_size, 3))
    maps = walk_lite(encoder, pixels, convolve, lambda x, y: layers.Add()([x, y]))
    model = keras.Model(pixels, pool_maps(keras, maps, pooling), name=name or encoder.name)
    if arrays is not None:
        model.set_weights([arrays[key] for key in lite_arrays(encoder, model.weights)])
    return model


def lite_arrays(encoder: Encoder, weights: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Name the weights of a model of `build_lite`, which are in Keras's order; see `write_lite`."""
    layers = convolutions(encoder)
    names = [name for each in layers for name in each.arrays(normed=len(weights) > 2 * len(layers))]
    return dict(zip(names, weights, strict=True))


def pool_maps(keras: ModuleType, maps: list[Any], pooling: str) -> Any:
    """Pool feature maps of Keras over their cells and put them side by side.

    Parameters
    ----------
    keras : module
    maps : list of tensor (n, height, width, channels)
    pooling : {"avg", "max", "avg_std"}
        Mean, maximum, or the means of all maps followed by their deviations.

    Returns
    -------
    embedding : tensor (n, d)
    """
    ops = keras.ops
    pools = {"avg": (ops.mean,), "max": (ops.max,), "avg_std": (ops.mean, ops.std)}[pooling]
    pooled = [pool(each, axis=(1, 2)) for pool in pools for each in maps]
    return pooled[0] if len(pooled) == 1 else ops.concatenate(pooled, axis=-1)
