"""Choose the engine and the device that run an encoder; load each engine once per process."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import shutil
import threading
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np

from histofeat.images import user_cache
from histofeat.networks.pretrained import _network as network, _torch_engine as torch_engine
from histofeat.networks.pretrained._openvino_engine import GRAPH_VERSION, OpenVINOEngine, filled
from histofeat.networks.pretrained._provenance import check_fingerprint
from histofeat.networks.pretrained._records import Encoder, TimmEncoder, check_settings, n_columns
from histofeat.networks.pretrained._weights import hash_weights

_log = logging.getLogger(__name__)
_lock = threading.Lock()
#: What runs a network: pixels in, embeddings out.
Engine = OpenVINOEngine | torch_engine.StagedEngine
_loaded: OrderedDict[tuple, Engine] = OrderedDict()
_MAX_LOADED = 4


@dataclass(frozen=True)
class EngineChoice:
    """An engine, its device and why.

    Parameters
    ----------
    engine : {"keras", "openvino", "torch"}
        What runs the network.
    device : str
        ``"cpu"`` or ``"gpu:0"`` and so on.
    note : str
        One sentence for the log and the report.
    """

    engine: str
    device: str
    note: str


def choose_engine(
    engine: str = "auto", device: str | None = None, encoder: Encoder | TimmEncoder | None = None
) -> EngineChoice:
    """Resolve ``engine="auto"`` and the device.

    OpenVINO where the network runs on the CPU and OpenVINO is installed; Keras on a GPU, and otherwise. Keras is
    imported only if it is asked for or if the machine has an NVIDIA driver.

    Parameters
    ----------
    engine : {"auto", "keras", "openvino", "torch"}
        What the user asked for.
    device : str or None
        ``"cpu"``, ``"gpu"``, ``"gpu:1"``; None takes a GPU where there is one.
    encoder : Encoder or TimmEncoder or None
        The network to run: PyTorch runs those of timm and no others. None is a network of Keras.

    Returns
    -------
    choice : EngineChoice
        What will run.

    Raises
    ------
    ValueError
        If a GPU is asked for that Keras's backend, or PyTorch, does not see; if the engine cannot run the encoder.

    Warns
    -----
    RuntimeWarning
        Once, if the machine has an NVIDIA driver and Keras's backend cannot use it.

    Examples
    --------
    >>> choose_engine("openvino")
    EngineChoice(engine='openvino', device='cpu', note='OpenVINO on the CPU, as asked for.')
    """
    if encoder is not None:
        check_settings(encoder, engine, "avg")
        if encoder.source == "timm":
            return _torch_choice(device)
    if engine == "openvino":
        return EngineChoice("openvino", "cpu", "OpenVINO on the CPU, as asked for.")
    if device is not None and device.startswith("gpu"):
        remedy = 'Install the GPU build with pip install "histofeat[gpu]", or use device="cpu".'
        device = network.check_gpu("CNNEmbedding.device", device, network.visible_gpus(), remedy)
        return EngineChoice("keras", device, f"Keras on {device}, as asked for.")
    # Without Keras nothing here can use a GPU.
    with_keras = importlib.util.find_spec("keras") is not None
    look_for_gpu = device is None and (engine == "keras" or (with_keras and _has_nvidia_driver()))
    if look_for_gpu and network.visible_gpus():
        return EngineChoice("keras", "gpu:0", "Keras on the GPU.")
    if look_for_gpu and _has_nvidia_driver():
        _warn_of_idle_gpu()
    if engine == "keras":
        return EngineChoice("keras", "cpu", "Keras on the CPU, as asked for.")
    if importlib.util.find_spec("openvino") is not None:
        return EngineChoice("openvino", "cpu", "OpenVINO on the CPU, chosen because no GPU is in use.")
    return EngineChoice("keras", "cpu", "Keras on the CPU; OpenVINO, which is faster there, is not installed.")


def load_engine(
    encoder: Encoder,
    weights: Path,
    choice: EngineChoice,
    *,
    input_size: int,
    pooling: str = "avg",
    precision: str = "float32",
    n_threads: int | None = None,
) -> Engine:
    """The engine for these arguments, loaded once per process.

    Parameters
    ----------
    encoder : Encoder
        The network.
    weights : Path
        File of its weights; the engine is known by their content.
    choice : EngineChoice
        What runs it.
    input_size : int
        Side of the input in px.
    pooling : {"avg", "max", "avg_std"}
        How feature maps become a vector.
    precision : {"float32", "bfloat16"}
        Arithmetic of the network.
    n_threads : int or None
        Threads of OpenVINO; None is ``OMP_NUM_THREADS`` where set (joblib sets it in its workers), otherwise the
        cores that this process may use. Keras has its backend's own setting.

    Returns
    -------
    engine : Engine
        At most four stay loaded.

    Raises
    ------
    WeightsError
        If the weights are damaged or belong to another network, or the network does not have the fingerprint that is
        known for them; see `histofeat.networks.fingerprint`.
    """
    threads = n_threads or _default_threads()
    # A forked child must not use its parent's threads, hence the process id.
    key = (
        os.getpid(), encoder.name, hash_weights(weights), choice.engine, choice.device,
        input_size, pooling, precision, threads,
    )  # fmt: skip
    with _lock:
        if key not in _loaded:
            options = {"input_size": input_size, "pooling": pooling, "precision": precision}
            if choice.engine == "openvino":
                made = OpenVINOEngine(encoder, weights, n_threads=threads, **options)
            else:
                make = torch_engine.TorchEngine if choice.engine == "torch" else KerasEngine
                made = make(encoder, weights, device=choice.device, **options)
            identity = {**options, "graph": graph_version(encoder)}
            check_fingerprint(made, encoder, weights=hash_weights(weights), identity=identity, cache_dir=user_cache())
            _loaded[key] = made
            _log.info("%s at %d px, %s: %s", encoder.name, input_size, precision, choice.note)
            while len(_loaded) > _MAX_LOADED:
                _loaded.popitem(last=False)
        _loaded.move_to_end(key)
        return _loaded[key]


def graph_version(encoder: Encoder) -> int:
    """Version of what is computed with an encoder's weights; another version gives other embeddings."""
    return torch_engine.TORCH_VERSION if encoder.source == "timm" else GRAPH_VERSION


class KerasEngine(torch_engine.StagedEngine):
    """An encoder in Keras, on the CPU or a GPU.

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
        Arithmetic of the layers; the embedding is float32.
    device : str
        ``"cpu"``, ``"gpu:0"`` and so on.
    """

    name = "keras"

    def __init__(self, encoder: Encoder, weights: Path, *, input_size: int, pooling: str, precision: str, device: str):
        self._keras = network.import_keras()
        self._device = device if ":" in device else f"{device}:0"
        self._lock = threading.Lock()
        self.n_features: int = n_columns(encoder, pooling)
        with self._on_device():
            self._model = network.build_network(
                encoder, weights, input_size=input_size, pooling=pooling, precision=precision
            )
        self.n_parameters: int = self._model.count_params()

    def _send(self, pixels: np.ndarray, batch_size: int):
        # A backend compiles for each new number of rows: powers of two keep these few.
        rows = min(batch_size, 1 << (len(pixels) - 1).bit_length())
        return network.to_device(filled(pixels, rows), self._device)

    def _vectors(self, tensor):
        return self._model.predict_on_batch(tensor)

    def _on_device(self) -> contextlib.AbstractContextManager:
        return self._keras.device(self._device)


def _torch_choice(device: str | None) -> EngineChoice:
    if device == "cpu" or (device is None and not _has_nvidia_driver()):
        return EngineChoice("torch", "cpu", "PyTorch on the CPU.")
    found = torch_engine.visible_gpus()
    if device is None and not found:
        return EngineChoice("torch", "cpu", "PyTorch on the CPU; it sees no GPU.")
    remedy = 'Install a build of PyTorch for this GPU, or use device="cpu".'
    device = network.check_gpu("CNNEmbedding.device", device or "gpu", found, remedy, seen_by="PyTorch")
    return EngineChoice("torch", device, f"PyTorch on {device}.")


def _has_nvidia_driver() -> bool:
    if os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}:
        return False
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


@functools.cache
def _warn_of_idle_gpu() -> None:
    warnings.warn(
        "CNNEmbedding.device: expected Keras to use the GPU of this machine, got a backend that sees none; the "
        'CPU is used. Install the GPU build with pip install "histofeat[gpu]", or say device="cpu".',
        RuntimeWarning,
        stacklevel=3,
    )


def _default_threads() -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(given)) if given.isdecimal() else joblib.cpu_count()
