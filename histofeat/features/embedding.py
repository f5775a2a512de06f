"""Embeddings of a pretrained convolutional network."""

from __future__ import annotations

import os
import re
from numbers import Integral
from typing import ClassVar

import cv2
import numpy as np

from histofeat.encoders import choose_engine, find_encoder, find_weights, hash_weights, load_engine
from histofeat.encoders.network import backend_name
from histofeat.encoders.openvino_engine import GRAPH_VERSION
from histofeat.features.base import PatchBatch, PatchFeatures

__all__ = ["CNNEmbedding", "resize_patches"]

#: Patches in one pass of Keras, by processor, where the user does not say.
_CPU_ROWS, _GPU_ROWS = 64, 512
#: Patches prepared at a time at least: many passes of OpenVINO's 8, so that its threads run out of work rarely.
_GATHERED = 256


def resize_patches(rgb: np.ndarray, size: int) -> np.ndarray:
    """Patches of one size as squares of `size` px.

    A patch that is not square is first mirrored at its lower or right border until it is, so that nuclei keep
    their proportions.

    Parameters
    ----------
    rgb : ndarray of shape (n, H, W, 3), uint8
        Patches.
    size : int
        Side of the result in px.

    Returns
    -------
    resized : ndarray of shape (n, size, size, 3), uint8
        Bilinear (OpenCV's bit-exact form) where the side grows, mean over the covered area where it shrinks,
        which does not alias.

    Examples
    --------
    >>> import numpy as np
    >>> resize_patches(np.full((1, 2, 3, 3), 7, dtype=np.uint8), 4).shape
    (1, 4, 4, 3)
    """
    n, height, width, _ = rgb.shape
    side = max(height, width)
    if height != width:
        rgb = np.pad(rgb, ((0, 0), (0, side - height), (0, side - width), (0, 0)), mode="symmetric")
    if side == size:
        return rgb
    interpolation = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR_EXACT
    out = np.empty((n, size, size, 3), dtype=np.uint8)
    for patch, target in zip(rgb, out, strict=True):
        cv2.resize(patch, (size, size), dst=target, interpolation=interpolation)
    return out


class CNNEmbedding(PatchFeatures):
    """What a network that was trained on ImageNet sees in a patch: its last feature map, pooled.

    The estimator holds no network. It is loaded at the first patch, once per process, and shared by all
    estimators with the same settings; ``clone`` and ``pickle`` therefore cost nothing.

    Parameters
    ----------
    encoder : str, default="mobilenetv2"
        One of `histofeat.encoders.ENCODERS`: mobilenetv2, mobilenetv2_0.35, mobilenet_0.25, efficientnetb0,
        resnet50, densenet121. A number in the name is the width of the network.
    weights : {"imagenet"} or path, default="imagenet"
        The published ImageNet weights, or a file of weights without classification layer.
    weights_dir : path or None, default=None
        Folder with the ImageNet weights under Keras's file names; None reads the environment variable
        ``HISTOFEAT_WEIGHTS`` when a patch is measured. After it come Keras's own cache and a download.
    input_size : int or None, default=None
        Side in px to which patches are resized, at least 64; None is the encoder's default, 128. Below 96 the
        last feature map is so small that embeddings lose much of what tells patches apart.
    batch_size : int or None, default=None
        Patches in one pass of Keras; None is 64 on a CPU and 512 on a GPU, which smaller passes leave idle. Give a
        smaller number where the memory of the GPU is short. OpenVINO always takes 8.
    engine : {"auto", "keras", "openvino"}, default="auto"
        What runs the network: ``"auto"`` is OpenVINO on a CPU where it is installed, and Keras on a GPU.
    precision : {"float32", "bfloat16"}, default="float32"
        Arithmetic of the network. bfloat16 is coarser: through Keras it moves embeddings of real patches by more
        than a tenth of their length. OpenVINO refuses it on a processor that does not have it.
    device : {None, "cpu", "gpu", "gpu:0", ...}, default=None
        Where the network runs; None is a GPU if Keras's backend sees one, otherwise the CPU.
    n_threads : int or None, default=None
        Threads of OpenVINO; None is ``OMP_NUM_THREADS`` where set, otherwise all cores of the process. Keras
        keeps its backend's setting.
    pooling : {"avg", "max"}, default="avg"
        How the last feature map becomes a vector.

    Attributes
    ----------
    engine_ : str
        The engine that ``engine="auto"`` stands for on this machine.
    engine_note_ : str
        One sentence: the engine, the device and why.

    Notes
    -----
    Each encoder brings the preprocessing that it was trained with, as part of the network. See `resize_patches`
    for the way to a square. Through OpenVINO an embedding depends to the last bit on its patch alone, not on its
    neighbours in a batch or on the number of threads; against Keras it differs by rounding, below 1e-4 relative.
    Keras's backends (TensorFlow, JAX, PyTorch) differ from one another by as little in float32, by several percent
    in bfloat16: a store keeps their features apart.
    On a GPU, float32 is what the backend makes of it: TensorFlow multiplies in TF32 there unless told otherwise.
    Networks: MobileNetV2 (https://doi.org/10.1109/CVPR.2018.00474), MobileNet (arXiv:1704.04861), EfficientNet
    (arXiv:1905.11946), ResNet (https://doi.org/10.1109/CVPR.2016.90), DenseNet
    (https://doi.org/10.1109/CVPR.2017.243).

    Examples
    --------
    >>> CNNEmbedding("mobilenet_0.25").get_feature_names_out()[:2].tolist()
    ['cnn_mobilenet_0.25_0000', 'cnn_mobilenet_0.25_0001']
    """

    family: ClassVar[str] = "cnn"
    _threaded: ClassVar[bool] = False

    def __init__(
        self,
        encoder="mobilenetv2",
        *,
        weights="imagenet",
        weights_dir=None,
        input_size=None,
        batch_size=None,
        engine="auto",
        precision="float32",
        device=None,
        n_threads=None,
        pooling="avg",
    ):
        self.encoder = encoder
        self.weights = weights
        self.weights_dir = weights_dir
        self.input_size = input_size
        self.batch_size = batch_size
        self.engine = engine
        self.precision = precision
        self.device = device
        self.n_threads = n_threads
        self.pooling = pooling

    @property
    def engine_(self) -> str:
        """The engine that runs the network on this machine."""
        return choose_engine(self.engine, self.device).engine

    @property
    def engine_note_(self) -> str:
        """One sentence: the engine, the device and why."""
        return choose_engine(self.engine, self.device).note

    def weights_hash(self) -> str:
        """Content hash of the weights in use, for keys of stored features.

        Raises
        ------
        WeightsError
            If the weights cannot be had.
        """
        self._check_params()
        return hash_weights(self._find_weights())

    def _fingerprint(self) -> dict:
        """What changes the numbers, resolved: not where the weights lie, how large a batch is, or how many threads."""
        choice = choose_engine(self.engine, self.device)
        backend = backend_name() if choice.engine == "keras" else None
        return {
            "encoder": self.encoder,
            "weights": self.weights_hash(),
            "input_size": self._size(),
            "pooling": self.pooling,
            "precision": self.precision,
            "engine": choice.engine,
            # A GPU multiplies float32 in TF32 where its backend is left alone.
            "processor": choice.device.partition(":")[0],
            "graph": GRAPH_VERSION,
            # Left out for the default backend, whose features were stored before there was a choice.
            **({"backend": backend} if backend not in (None, "tensorflow") else {}),
        }

    def _check_params(self) -> None:
        encoder = find_encoder(self.encoder)
        _check_path("weights", self.weights, optional=False)
        _check_path("weights_dir", self.weights_dir, optional=True)
        _check_int("batch_size", self.batch_size, 1, optional=True)
        _check_int("n_threads", self.n_threads, 1, optional=True)
        _check_int("input_size", self.input_size, encoder.minimum_size, optional=True)
        _check_choice("engine", self.engine, ("auto", "keras", "openvino"))
        _check_choice("precision", self.precision, ("float32", "bfloat16"))
        _check_choice("pooling", self.pooling, ("avg", "max"))
        device = self.device
        if device is not None and not (isinstance(device, str) and re.fullmatch(r"cpu|gpu(:\d+)?", device)):
            raise ValueError(
                f"CNNEmbedding.device: expected None, 'cpu', 'gpu' or 'gpu:<number>', got {device!r}. "
                "None takes a GPU where Keras sees one."
            )
        if self.engine == "openvino" and device not in (None, "cpu"):
            raise ValueError(
                f"CNNEmbedding.device: expected 'cpu' or None with engine='openvino', got {device!r}. "
                "Use engine='keras' for a GPU."
            )

    def _feature_names(self) -> list[str]:
        return [f"cnn_{self.encoder}_{i:04d}" for i in range(find_encoder(self.encoder).n_features)]

    def _compute(self, batch: PatchBatch) -> np.ndarray:
        return self._embed(self._prepare(batch))

    def _prepare(self, batch: PatchBatch) -> np.ndarray:
        """Patches at the size of the network (n, size, size, 3), uint8; safe in several threads at once.

        With `_embed` this lets a caller gather patches of unequal size into one large batch for the network.
        """
        return resize_patches(batch.rgb, self._size())

    def _stage(self, pixels: np.ndarray):
        """Bring what `_prepare` gave to where the network runs; safe in a thread while another is in `_embed`."""
        engine, rows = self._load()
        return engine.stage(pixels, batch_size=rows)

    def _embed(self, pixels) -> np.ndarray:
        """Embeddings (n, d), float32, of what `_prepare` or `_stage` gave."""
        engine, rows = self._load()
        return engine.embed(pixels, batch_size=rows)

    def _load(self):
        """Give the engine, and how many patches it takes in one pass."""
        self._check_params()
        choice = choose_engine(self.engine, self.device)
        engine = load_engine(
            find_encoder(self.encoder),
            self._find_weights(),
            choice,
            input_size=self._size(),
            pooling=self.pooling,
            precision=self.precision,
            n_threads=self.n_threads,
        )
        return engine, self._rows_per_pass(choice)

    def _rows_per_pass(self, choice) -> int:
        if self.batch_size is not None:
            return int(self.batch_size)
        return _GPU_ROWS if choice.device.startswith("gpu") else _CPU_ROWS

    @property
    def _batch_size(self) -> int:
        """Patches gathered before the network runs: enough to fill a pass, however large that is."""
        return max(_GATHERED, self._rows_per_pass(choose_engine(self.engine, self.device)))

    def _size(self) -> int:
        encoder = find_encoder(self.encoder)
        return encoder.default_size if self.input_size is None else int(self.input_size)

    def _find_weights(self):
        return find_weights(find_encoder(self.encoder), self.weights, self.weights_dir)


def _check_path(name: str, value, *, optional: bool) -> None:
    if not isinstance(value, (str, os.PathLike)) and not (optional and value is None):
        expected = "None or a path" if optional else "'imagenet' or a path"
        raise ValueError(f"CNNEmbedding.{name}: expected {expected}, got {value!r}. Give the path as a string.")


def _check_int(name: str, value, least: int, *, optional: bool) -> None:
    if optional and value is None:
        return
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        none = " or None" if optional else ""
        raise ValueError(
            f"CNNEmbedding.{name}: expected an integer of at least {least}{none}, got {value!r}. Use {least} or more."
        )


def _check_choice(name: str, value, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(
            f"CNNEmbedding.{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}. Use one of these."
        )
