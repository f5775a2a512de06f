"""OpenVINO runs an encoder on the CPU: built for it, or converted from Keras once and kept on disk."""

import json
import os
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from histofeat.datasets import write_whole
from histofeat.exceptions import DAMAGED, needs
from histofeat.images import user_cache
from histofeat.networks.pretrained import _network as network
from histofeat.networks.pretrained._lite import Arrays, Convolution, read_lite, walk_lite
from histofeat.networks.pretrained._records import LITE_BLOCKS, Encoder, n_columns
from histofeat.networks.pretrained._weights import hash_weights

#: Raised whenever `network.build_network` changes what it computes: networks are then converted again.
GRAPH_VERSION = 1
#: Patches per pass. Fixed, the last pass filled with zeros, so that an embedding depends to the last bit on its
#: patch alone; small, so that the feature maps of one pass stay near the processor's cache.
ROWS = 8
_ABSENT = object()


def import_openvino():
    """The module ``openvino``, without its telemetry.

    Importing OpenVINO looks up an analytics host. It does without where its package ``openvino_telemetry`` is
    not installed, so that package is hidden while OpenVINO is imported. Where someone else in the process has
    imported OpenVINO before, that has happened already.

    Raises
    ------
    MissingExtraError
        If OpenVINO is not installed.
    """
    before = sys.modules.get("openvino_telemetry", _ABSENT)
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None
    try:
        expected = "openvino: expected OpenVINO for engine='openvino'"
        with needs("openvino", expected, ', or use engine="keras"'):
            import openvino
    finally:
        if before is not _ABSENT:
            sys.modules["openvino_telemetry"] = before
        else:
            sys.modules.pop("openvino_telemetry", None)
    return openvino


@cache
def openvino_core(process: int):
    """The one core of a process, by its id, kept to its end.

    Each core gives the thread that makes it a stack for signal handlers. Freed before a younger one, it leaves the
    thread with a stack that is gone, and the next signal, such as SIGTERM, is a segmentation fault.
    """
    core = import_openvino().Core()
    # Without mapping, the file may be replaced or removed while the network runs.
    core.set_property({"ENABLE_MMAP": False})
    return core


def bfloat16_supported() -> bool:
    """Whether this processor computes in bfloat16 (AVX512_BF16 or AMX), as OpenVINO sees it."""
    return "BF16" in openvino_core(os.getpid()).get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVINOEngine:
    """An encoder compiled for this CPU.

    Parameters
    ----------
    encoder : Encoder
        The network.
    weights : Path
        File of its weights.
    input_size : int
        Side of the input in px.
    pooling : {"avg", "max", "avg_std"}
        How feature maps become a vector.
    precision : {"float32", "bfloat16"}
        Arithmetic, set explicitly: OpenVINO's own choice depends on the processor.
    n_threads : int
        Threads; each runs passes of its own, so their number does not change any value.

    Raises
    ------
    ValueError
        If bfloat16 is asked for on a processor that does not have it.
    """

    name = "openvino"

    def __init__(
        self, encoder: Encoder, weights: Path, *, input_size: int, pooling: str, precision: str, n_threads: int
    ):
        core = openvino_core(os.getpid())
        if precision == "bfloat16" and not bfloat16_supported():
            raise ValueError(
                "CNNEmbedding.precision: expected 'float32' on this processor, got 'bfloat16', which needs "
                "AVX512_BF16 or AMX. Use precision='float32'; bfloat16 would not be faster here."
            )
        if encoder.constructor in LITE_BLOCKS:
            model = lite_openvino(encoder, read_lite(weights, encoder), input_size=input_size, pooling=pooling)
        else:
            model = _converted(core, encoder, weights, input_size, pooling)
        model.reshape([ROWS, input_size, input_size, 3])
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "INFERENCE_NUM_THREADS": n_threads,
            "NUM_STREAMS": n_threads,
            # Pinned, the workers of two processes would sit on the same cores.
            "ENABLE_CPU_PINNING": False,
            "ENABLE_HYPER_THREADING": True,
        }
        constants = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
        # Whole numbers are shapes and axes.
        self.n_parameters: int = sum(node.data.size for node in constants if node.get_element_type().is_real())
        self._queue = import_openvino().AsyncInferQueue(core.compile_model(model, "CPU", options), n_threads)
        self._lock = threading.Lock()
        self.n_features: int = n_columns(encoder, pooling)

    def stage(self, pixels: np.ndarray, *, batch_size: int | None = None) -> np.ndarray:
        """Give the pixels as they are: the network reads them where they lie."""
        return pixels

    def embed(self, pixels: np.ndarray, *, batch_size: int | None = None) -> np.ndarray:
        """Embeddings (n, d) float32 of pixels (n, size, size, 3) uint8; `batch_size` is not needed here."""
        out = np.empty((len(pixels), self.n_features), dtype=np.float32)

        def keep(request, rows: slice) -> None:
            out[rows] = request.get_output_tensor(0).data[: rows.stop - rows.start]

        with self._lock:
            self._queue.set_callback(keep)
            for start in range(0, len(pixels), ROWS):
                stop = min(start + ROWS, len(pixels))
                self._queue.start_async({0: filled(pixels[start:stop], ROWS)}, slice(start, stop))
            self._queue.wait_all()
        return out


def filled(pixels: np.ndarray, rows: int) -> np.ndarray:
    """The batch, C-contiguous, with black patches appended until it has `rows` of them."""
    if len(pixels) == rows:
        return np.ascontiguousarray(pixels)
    full = np.zeros((rows, *pixels.shape[1:]), dtype=pixels.dtype)
    full[: len(pixels)] = pixels
    return full


def lite_openvino(encoder: Encoder, arrays: Arrays, *, input_size: int, pooling: str = "avg") -> Any:
    """Build the network for OpenVINO, without Keras.

    Parameters
    ----------
    encoder : Encoder
    arrays : mapping of str to ndarray
        From `read_lite`, folded.
    input_size : int
        Side of the input in px.
    pooling : {"avg", "max", "avg_std"}
        See `pool_maps`.

    Returns
    -------
    model : openvino.Model
        From (n, input_size, input_size, 3) uint8 to the embeddings (n, d) float32.
    """
    from openvino import Model, opset13 as ops  # without telemetry, see `import_openvino`

    def convolve(x, each: Convolution):
        kernel, bias = arrays[f"{each.name}.kernel"], arrays[f"{each.name}.bias"]
        # OpenVINO reads (out, in, height, width); for single channels (channel, 1, 1, height, width).
        turned = kernel.transpose(2, 3, 0, 1)[:, :, None] if each.depthwise else kernel.transpose(3, 2, 0, 1)
        run = ops.group_convolution if each.depthwise else ops.convolution
        y = run(x, np.ascontiguousarray(turned), [each.stride] * 2, [0, 0], [0, 0], [1, 1], auto_pad="same_upper")
        y = ops.add(y, bias.reshape(1, -1, 1, 1))
        return ops.clamp(y, 0.0, 6.0) if each.relu else y

    def deviation(x, axes, keep_dims):
        away = ops.subtract(x, ops.reduce_mean(x, axes, keep_dims=True))
        return ops.sqrt(ops.reduce_mean(ops.multiply(away, away), axes, keep_dims))

    pixels = ops.parameter([-1, input_size, input_size, 3], np.uint8, name="pixels")
    x = ops.subtract(ops.divide(ops.convert(pixels, "f32"), np.float32(127.5)), np.float32(1.0))
    maps = walk_lite(encoder, ops.transpose(x, np.array([0, 3, 1, 2])), convolve, ops.add)
    pools = {"avg": (ops.reduce_mean,), "max": (ops.reduce_max,), "avg_std": (ops.reduce_mean, deviation)}[pooling]
    pooled = [pool(each, np.array([2, 3]), False) for pool in pools for each in maps]
    return Model([ops.concat(pooled, 1) if len(pooled) > 1 else pooled[0]], [pixels], encoder.name)


def _converted(core, encoder: Encoder, weights: Path, input_size: int, pooling: str):
    """Give the network that was converted from Keras; convert it if there is none."""
    identity = {
        "encoder": encoder.name,
        "input_size": input_size,
        "pooling": pooling,
        "weights": hash_weights(weights),
        "graph": GRAPH_VERSION,
    }
    build = partial(network.build_network, encoder, weights, input_size=input_size, pooling=pooling)
    return _read_network(core, identity, build, user_cache())


def _read_network(core, identity: dict, build: Callable, cache_dir: Path):
    name = "-".join(str(value) for value in identity.values())
    folder = cache_dir / "openvino" / name
    if _is_sound(folder, identity):
        return core.read_model(folder / "network.xml")
    model = build()
    try:
        _store(model, folder, identity)
        return core.read_model(folder / "network.xml")
    except OSError as error:
        warnings.warn(
            f"{folder}: expected a folder to keep the converted network in, got {error}. It is converted again by "
            "each process; set XDG_CACHE_HOME to a folder that can be written.",
            RuntimeWarning,
            stacklevel=2,
        )
    with tempfile.TemporaryDirectory() as scratch:
        _store(model, Path(scratch) / name, identity)
        return core.read_model(Path(scratch) / name / "network.xml")


def _store(model, folder: Path, identity: dict) -> None:
    try:
        with write_whole(folder, folder=True, parents=True) as part:
            network.export_openvino(model, part / "network.xml")
            digests = {file.name: hash_weights(file) for file in sorted(part.iterdir())}
            (part / "network.json").write_text(json.dumps({**identity, "files": digests}, indent=1))
            if folder.exists() and not _is_sound(folder, identity):
                shutil.rmtree(folder)
    except OSError:
        # Another process was first; its network is the same one if it is sound.
        if not _is_sound(folder, identity):
            raise


def _is_sound(folder: Path, identity: dict) -> bool:
    try:
        record = json.loads((folder / "network.json").read_text())
        digests = record.pop("files")
        return record == identity and all(hash_weights(folder / name) == value for name, value in digests.items())
    except DAMAGED:
        return False
