"""What a network says of images: in passes of one size, over one view or eight."""

from __future__ import annotations

import contextlib
import logging

import numpy as np

from histofeat.images import VIEWS, take_view
from histofeat.networks.batches import PatchReader
from histofeat.networks.pretrained.network import _quiet, import_keras, visible_gpus
from histofeat.networks.pretrained.openvino_engine import filled

__all__ = ["on_device", "probabilities"]

#: Pixels in one pass of prediction, as far as patches allow.
_PIXELS_AT_ONCE = 1 << 20


@contextlib.contextmanager
def on_device(device: str | None):
    """Let Keras compute on a device, and TensorFlow's log be silent about functions that it traces anew.

    It traces one a network, and complains from the fifth network of a process on.

    Parameters
    ----------
    device : str or None
        "cpu:0", "gpu:1" and so on; None leaves it to Keras.

    Raises
    ------
    ValueError
        If there is no such GPU.
    """
    if device is not None and device.startswith("gpu"):
        found = visible_gpus()
        if int(device.partition(":")[2]) >= found:
            raise ValueError(
                f"CNNClassifier.device: expected a GPU that Keras's backend sees, got {device!r} where it sees "
                f'{found}. Install the GPU build with pip install "histofeat[gpu]", or use device=None.'
            )
    log = logging.getLogger("tensorflow")
    log.addFilter(_is_no_complaint)
    try:
        with contextlib.nullcontext() if device is None else import_keras().device(device):
            yield
    finally:
        log.removeFilter(_is_no_complaint)


def probabilities(model, reader: PatchReader, rows, *, views: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """What a network says of some images.

    Parameters
    ----------
    model : keras.Model
    reader : PatchReader
        Where they come from.
    rows : ndarray of int64
        Which.
    views : {1, 8}
        As they are, or the mean over the eight views of a square.

    Returns
    -------
    proba : ndarray of shape (n, k), float64
        Rows add up to 1; NaN where an image could not be read.
    readable : ndarray of shape (n,), bool
    """
    size, n_classes = model.input_shape[1], model.output_shape[-1]
    # One number of rows for all passes, for which the network is compiled once.
    at_once = min(256, max(16, 1 << (_PIXELS_AT_ONCE // size**2).bit_length() - 1), 1 << (len(rows) - 1).bit_length())
    proba, readable, at = np.empty((len(rows), n_classes)), np.empty(len(rows), dtype=bool), 0
    for batch in reader.batches([rows[start : start + at_once] for start in range(0, len(rows), at_once)]):
        pixels = filled(batch.pixels, at_once)
        seen = sum(_output(model, take_view(pixels, view)) for view in VIEWS[:views]) / views
        place = slice(at, at + len(batch.rows))
        proba[place] = np.where(batch.readable[:, None], seen[: len(batch.rows)], np.nan)
        readable[place] = batch.readable
        at = place.stop
    return proba / proba.sum(axis=1, keepdims=True), readable


def _output(model, pixels):
    with _quiet():
        return np.asarray(model.predict_on_batch(np.ascontiguousarray(pixels)), dtype=np.float64)


def _is_no_complaint(record: logging.LogRecord) -> bool:
    return "retracing" not in str(record.msg)
