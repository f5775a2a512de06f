"""Batches of pixels for a network, read and augmented in threads, and its predictions on them."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from histofeat.exceptions import PatchError
from histofeat.images import VIEWS, Images, run_ahead, take_view
from histofeat.networks._augmentation import Augmentation, augment
from histofeat.networks.pretrained._network import _quiet, check_gpu, import_keras, visible_gpus
from histofeat.networks.pretrained._openvino_engine import filled

#: Batches that are made while the network learns from another.
AHEAD = 2
#: A patch larger than the input by no more than this loses its rim and is not resampled.
_RIM = 1.1
_SEEN = 64


@dataclass(frozen=True, eq=False)
class Batch:
    """Pixels of some images.

    Attributes
    ----------
    rows : ndarray of shape (n,), int64
        Rows of the images.
    pixels : ndarray of shape (n, size, size, 3), uint8
        Black where an image could not be read.
    readable : ndarray of shape (n,), bool
        Which could be read.
    """

    rows: np.ndarray
    pixels: np.ndarray
    readable: np.ndarray


def fit_patch(patch: np.ndarray, size: int, side: int) -> np.ndarray:
    """Pad, crop or resample a patch to the square that a network takes.

    Parameters
    ----------
    patch : ndarray of shape (H, W, 3), uint8
        Of any size.
    size : int
        Side of the network's input in px.
    side : int
        Longer side in px of the usual patches, see `usual_side`.

    Returns
    -------
    fitted : ndarray of shape (size, size, 3), uint8

    Notes
    -----
    First a square: where the patch is shorter than the longest of `side`, H and W, it is mirrored outward, equally on
    both sides, as often as it takes; nothing of the patch is cut and its scale is kept. Then the square is brought to
    `size`: by cutting the rim where it is larger by a tenth at most (50 to 48 px), otherwise by resampling, means of
    areas to shrink and bilinear to enlarge.

    Examples
    --------
    >>> row = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    >>> fit_patch(row, 2, 2)[:, :, 0].tolist()
    [[0, 3], [0, 3]]
    """
    height, width = patch.shape[:2]
    square = max(side, height, width)
    if (height, width) != (square, square):
        top, left = (square - height) // 2, (square - width) // 2
        patch = cv2.copyMakeBorder(
            patch, top, square - height - top, left, square - width - left, cv2.BORDER_REFLECT_101
        )
    if square == size:
        return patch
    if size < square <= _RIM * size:
        rim = (square - size) // 2
        return patch[rim : rim + size, rim : rim + size]
    return cv2.resize(patch, (size, size), interpolation=cv2.INTER_AREA if square > size else cv2.INTER_LINEAR)


def usual_side(images: Images, rows: Sequence[int]) -> int:
    """Find the most frequent longer side, in px, among 64 evenly spread patches; of two, the larger.

    Parameters
    ----------
    images : Images
        The patches.
    rows : sequence of int
        Rows to choose among.

    Returns
    -------
    side : int

    Raises
    ------
    PatchError
        If none of the patches looked at can be read.
    """
    rows = np.asarray(rows)
    seen = rows[np.unique(np.linspace(0, len(rows) - 1, _SEEN).round().astype(int))]
    sides: list[int] = []
    first_error = None
    for row in seen:
        try:
            sides.append(max(images.decode(row, images.content(row))[0].shape[:2]))
        except PatchError as error:
            first_error = first_error or error
    if not sides:
        raise first_error
    values, counts = np.unique(sides, return_counts=True)
    return int(values[counts == counts.max()].max())


class PatchReader:
    """Read images batch by batch; two batches beside the one in use are in memory, never all.

    Parameters
    ----------
    images : Images
        What is read.
    size : int
        Side of the network's input in px.
    side : int
        Longer side of the usual patches in px.
    n_threads : int
        Threads that read.
    skip_unreadable : bool
        Leave out images that cannot be read and note them in ``unreadable``, instead of raising.
    """

    def __init__(self, images: Images, *, size: int, side: int, n_threads: int, skip_unreadable: bool):
        self._images = images
        self._size, self._side = size, side
        self.n_threads = n_threads
        self._skip = skip_unreadable
        self.unreadable: set[int] = set()

    def batches(self, rows: Sequence[np.ndarray]) -> Iterator[Batch]:
        """Give one batch for each set of rows, in order, without augmentation.

        Raises
        ------
        PatchError
            If an image cannot be read, unless these are skipped.
        """
        return run_ahead(self.read, rows, n_jobs=self.n_threads, ahead=AHEAD)

    def read(
        self, rows: Sequence[int], *, augmentation: Augmentation | None = None, seed: Sequence[int] = (0,)
    ) -> Batch:
        """Read one batch.

        Parameters
        ----------
        rows : sequence of int
            Rows of the images.
        augmentation : Augmentation or None
            Random changes of the pixels.
        seed : sequence of int
            Seed of the augmentation.

        Returns
        -------
        batch : Batch

        Raises
        ------
        PatchError
            If an image cannot be read, unless these are skipped.
        """
        pixels = np.zeros((len(rows), self._size, self._size, 3), dtype=np.uint8)
        readable = np.ones(len(rows), dtype=bool)
        for place, row in enumerate(rows):
            row = int(row)
            try:
                patch, _ = self._images.decode(row, self._images.content(row))
            except PatchError:
                if not self._skip:
                    raise
                readable[place] = False
                self.unreadable.add(row)
            else:
                pixels[place] = fit_patch(patch, self._size, self._side)
        if augmentation is not None:
            pixels = augment(pixels, np.random.default_rng(seed), augmentation)
        return Batch(np.asarray(rows), pixels, readable)


#: Pixels in one pass of prediction, as far as patches allow.
_PIXELS_AT_ONCE = 1 << 20


@contextlib.contextmanager
def on_device(device: str | None):
    """Let Keras compute on a device, without TensorFlow's warning that it traces a function again.

    It traces one function for each network, and warns from the fifth network of a process on.

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
        remedy = 'Install the GPU build with pip install "histofeat[gpu]", or use device=None.'
        check_gpu("CNNClassifier.device", device, visible_gpus(), remedy)
    log = logging.getLogger("tensorflow")
    log.addFilter(_is_no_complaint)
    try:
        with contextlib.nullcontext() if device is None else import_keras().device(device):
            yield
    finally:
        log.removeFilter(_is_no_complaint)


def probabilities(model, reader: PatchReader, rows, *, views: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Compute class probabilities of images.

    Parameters
    ----------
    model : keras.Model
    reader : PatchReader
        Reads the images.
    rows : ndarray of int64
        Rows of the images.
    views : {1, 8}
        The images as they are, or the mean over the eight views of a square.

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
