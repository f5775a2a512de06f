"""Encoders in Keras: build a network, load its weights, export it. Works with every backend of Keras."""

import contextlib
import os
import sys
import tempfile
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from histofeat.datasets import check_hdf5, read_members
from histofeat.exceptions import MissingExtraError, WeightsError, first_line, needs
from histofeat.images import own_folder, use_own_folder
from histofeat.networks.pretrained._lite import build_lite, pool_maps, read_lite
from histofeat.networks.pretrained._records import LITE_BLOCKS, Encoder

#: Name of the weights in an archive of Keras.
WEIGHTS_MEMBER = "model.weights.h5"
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
_MEAN_BGR = np.array([103.939, 116.779, 123.68], dtype=np.float32)


def import_keras() -> ModuleType:
    """The module ``keras``, with TensorFlow's own log silent unless ``TF_CPP_MIN_LOG_LEVEL`` is set already.

    Raises
    ------
    MissingExtraError
        If Keras or its backend is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    use_own_folder("MPLCONFIGDIR", "~/.config/matplotlib")  # Keras imports Matplotlib where it is installed
    expected = "keras: expected Keras 3 with a backend for this network or training"
    with own_folder("KERAS_HOME", "~/.keras"), _quiet(), needs("histofeat[cnn]", expected):
        import keras
    return keras


def backend_name() -> str:
    """Name of Keras's backend: "tensorflow", "jax" or "torch"; "tensorflow" where Keras is not installed."""
    try:
        return import_keras().config.backend()
    except MissingExtraError:
        return "tensorflow"


def visible_gpus() -> int:
    """How many GPUs Keras's backend can use; plain TensorFlow without CUDA libraries sees none."""
    keras = import_keras()
    if keras.config.backend() == "torch":
        return sys.modules["torch"].cuda.device_count()
    try:
        return len(keras.distribution.list_devices("gpu"))
    except (AttributeError, NotImplementedError, RuntimeError):  # jax raises where it has no such platform
        return 0


def check_gpu(owner: str, device: str, found: int, remedy: str, *, seen_by: str = "Keras's backend") -> str:
    """Return a GPU with its number, "gpu:0" for "gpu"; refuse one that is not among the `found` ones."""
    device = device if ":" in device else f"{device}:0"
    if int(device.partition(":")[2]) >= found:
        raise ValueError(f"{owner}: expected a GPU that {seen_by} sees, got {device!r} where it sees {found}. {remedy}")
    return device


def to_device(batch: np.ndarray, device: str):
    """Copy a batch to a device, for use within ``keras.device(device)``.

    Parameters
    ----------
    batch : ndarray, C-contiguous
        What is copied.
    device : str
        ``"cpu:0"``, ``"gpu:0"`` and so on.

    Returns
    -------
    tensor : tensor of the backend
        PyTorch copies to a GPU from pinned memory and returns before it is done; the network's first kernel waits for
        it there. TensorFlow and JAX stage host memory by themselves.
    """
    keras = import_keras()
    if keras.config.backend() == "torch" and device.startswith("gpu"):
        host = sys.modules["torch"].from_numpy(batch).pin_memory()
        return host.to(device.replace("gpu", "cuda"), non_blocking=True)
    return keras.ops.convert_to_tensor(batch)


def preprocess(pixels, rule: str):
    """Pixels as the network was trained to see them.

    Parameters
    ----------
    pixels : tensor (..., 3), uint8
        RGB, symbolic or not.
    rule : {"tf", "torch", "caffe", "none"}
        See `Encoder`.

    Returns
    -------
    x : tensor (..., 3), float32
        The same values as ``preprocess_input`` of the network's module in ``keras.applications``.
    """
    ops = import_keras().ops
    x = ops.cast(pixels, "float32")
    if rule == "tf":
        return x / 127.5 - 1.0
    if rule == "torch":
        return (x / 255.0 - _MEAN) / _STD
    if rule == "caffe":
        return ops.flip(x, axis=-1) - _MEAN_BGR
    return x


def build_network(
    encoder: Encoder, weights: Path, *, input_size: int, pooling: str = "avg", precision: str = "float32"
) -> Any:
    """The whole network: uint8 pixels in, float32 embeddings out, preprocessing inside.

    Parameters
    ----------
    encoder : Encoder
        The network.
    weights : Path
        File of its weights.
    input_size : int
        Side of the input in px.
    pooling : {"avg", "max", "avg_std"}
        How feature maps become a vector, see `pool_maps`.
    precision : {"float32", "bfloat16"}
        Arithmetic of the layers; bfloat16 keeps the weights in float32.

    Returns
    -------
    model : keras.Model
        From (n, input_size, input_size, 3) uint8 to (n, n_columns(encoder, pooling)) float32.

    Raises
    ------
    WeightsError
        If the file is damaged or belongs to another network.
    MissingExtraError
        If Keras is not installed.

    Notes
    -----
    EfficientNet: Keras scales the normalised input by the inverse root of the deviation, in a layer that exists
    only when it loads the ImageNet weights by itself. Here the factor is folded into the first kernel, for every
    file, because the weights descend from those.
    """
    keras = import_keras()
    shape = (input_size, input_size, 3)
    with _quiet(), _settings(keras, precision):
        pixels = keras.Input(shape, dtype="uint8")
        if encoder.constructor in LITE_BLOCKS:
            base = build_lite(keras, encoder, read_lite(weights, encoder), input_size=input_size, pooling=pooling)
        else:
            base = base_network(keras, encoder, shape, None, weights)
            maps = [base.get_layer(tap).output for tap in encoder.taps] or [base.output]
            base = keras.Model(base.input, pool_maps(keras, maps, pooling))
        embedding = base(preprocess(pixels, encoder.preprocessing), training=False)
        return keras.Model(pixels, keras.ops.cast(embedding, "float32"))


def base_network(keras, encoder: Encoder, shape, pooling: str | None = "avg", weights: Path | None = None, **options):
    """The network from preprocessed pixels to the last feature map.

    Parameters
    ----------
    keras : module
    encoder : Encoder
    shape : (int, int, int)
        Of the input.
    pooling : {"avg", None}
        Whether that map is averaged to a vector.
    weights : Path or None
        File of its weights; None is random ones.
    **options
        Further arguments of the constructor in ``keras.applications``, or of `build_lite`.

    Returns
    -------
    base : keras.Model

    Raises
    ------
    WeightsError
        If the file is damaged or belongs to another network.
    """
    if encoder.constructor in LITE_BLOCKS:
        arrays = None if weights is None else read_lite(weights, encoder, fold=False)
        return build_lite(keras, encoder, arrays, input_size=shape[0], **options)
    constructor = getattr(keras.applications, encoder.constructor)
    options |= dict(encoder.options)
    base = constructor(include_top=False, weights=None, input_shape=shape, pooling=pooling, **options)
    if weights is not None:
        remedy = f"Use {encoder.weight_file}; if it is that file, copy or download it again."
        load_weights(base, weights, f"the weights of {encoder.name} without its classification layer", remedy)
        if encoder.stem_scale is not None:
            stem = base.get_layer("stem_conv")
            stem.kernel.assign(stem.kernel * np.asarray(encoder.stem_scale, dtype=np.float32)[:, np.newaxis])
    return base


def export_openvino(model: Any, path: Path) -> None:
    """Write a Keras model as OpenVINO's ``.xml`` with its ``.bin`` beside it.

    Raises
    ------
    MissingExtraError
        If Keras's backend is jax and TensorFlow, through which Keras converts it, is not installed.
    OSError
        If OpenVINO cannot write it.
    """
    try:
        with _quiet():
            model.export(str(path), format="openvino", verbose=False)
    except RuntimeError as error:  # such as "iostream error" on a full disk
        words = f"{path.parent}: expected a place where OpenVINO can write a network, got {first_line(error)}."
        raise OSError(f"{words} Make room on the disk.") from error
    except ImportError as error:
        raise MissingExtraError(
            f"keras: expected a backend that can write a network for OpenVINO, got {backend_name()!r} "
            f'({first_line(error)}). Use engine="keras", or install TensorFlow too.'
        ) from error


def load_weights(model, path: Path, expected: str, remedy: str) -> None:
    """Load a file of weights into a model of Keras.

    Parameters
    ----------
    model : keras.Model
    path : Path
    expected, remedy : str
        For the message: what the file should be, and what to do.

    Raises
    ------
    WeightsError
        If Keras cannot load it, or it takes far more memory than its size warrants.
    """
    try:
        with _quiet(), tempfile.TemporaryDirectory() as scratch:
            n_bytes, file = path.stat().st_size, path
            if path.suffix == ".keras":
                file = Path(scratch) / WEIGHTS_MEMBER
                file.write_bytes(read_members(path)[WEIGHTS_MEMBER])
            check_hdf5(file, n_bytes)
            model.load_weights(file)
    except Exception as error:  # Keras, h5py and zipfile raise a dozen kinds for a damaged or foreign file
        raise WeightsError(
            f"{path}: expected {expected}, got a file that Keras cannot load into it ({first_line(error):.200}). "
            f"{remedy}"
        ) from error


@contextlib.contextmanager
def _settings(keras, precision: str):
    # Keras takes these two from the process: set for the time of building, then as the user had them.
    policy, layout = keras.config.dtype_policy(), keras.config.image_data_format()
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        keras.config.set_image_data_format(layout)


@contextlib.contextmanager
def _quiet():
    # Keras 3.15 on NumPy 2 deprecates at every variable it converts; nothing a user of histofeat can act on.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
