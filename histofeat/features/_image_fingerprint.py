"""Fingerprints of images for an audit: a hash of the pixels, and a perceptual hash to find near duplicates."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from histofeat.features._base import PatchFeatures
from histofeat.features._batch import PatchBatch
from histofeat.features._extraction import extract
from histofeat.features._runtime import Runtime
from histofeat.model_selection import fold_rows

HASH_BITS = 128
"""Bits of the perceptual hash."""

_DIGEST_BYTES = 16
_HASH_BYTES = HASH_BITS // 8
#: Cosines are rounded to multiples of 1 / 4096, so that sums of pixels are whole numbers: below four megapixels they
#: are exact in float64 in whatever order they are added, and a hash is the same on every machine.
_SCALE = 1 << 12


@lru_cache(maxsize=1)
def _frequencies() -> np.ndarray:
    """Vertical and horizontal frequency of each bit, (128, 2): the lowest of the cosine transform except (0, 0)."""
    top = HASH_BITS
    pairs = [(u, v) for u in range(top) for v in range(top) if 0 < u * u + v * v < top * 2]
    return np.array(sorted(pairs, key=lambda pair: (pair[0] ** 2 + pair[1] ** 2, pair))[:HASH_BITS])


def mirror_masks() -> np.ndarray:
    """Bits of a hash that change when the image is mirrored.

    Returns
    -------
    masks : ndarray of shape (3, 2), uint64
        For the image mirrored left to right, top to bottom, and both (a half turn). Mirroring changes the sign of
        cosines of odd frequency only.
    """
    odd = _frequencies() % 2 == 1
    turned = np.stack([odd[:, 1], odd[:, 0], odd[:, 0] ^ odd[:, 1]])
    return np.packbits(turned, axis=1).view("<u8").astype(np.uint64)


def transposed_codes(codes: np.ndarray) -> np.ndarray:
    """Hashes of images whose rows and columns are swapped; with `mirror_masks`, those of quarter turns.

    Parameters
    ----------
    codes : ndarray of shape (n, 2), uint64

    Returns
    -------
    transposed : ndarray of shape (n, 2), uint64
        Swapping rows and columns swaps vertical and horizontal frequencies.
    """
    frequencies = _frequencies().tolist()
    swapped = [frequencies.index([v, u]) for u, v in frequencies]
    bits = np.unpackbits(codes.astype("<u8").view(np.uint8), axis=1)
    return np.packbits(np.ascontiguousarray(bits[:, swapped]), axis=1).view("<u8").astype(np.uint64)


@lru_cache(maxsize=64)
def _cosines(n: int) -> np.ndarray:
    """Rows of the cosine transform of n samples, scaled to whole numbers, (frequencies, n) float64."""
    k = np.arange(_frequencies().max() + 1)[:, None]
    return np.rint(_SCALE * np.cos(np.pi * k * (2 * np.arange(n) + 1) / (2 * n)))


class ImageFingerprint(PatchFeatures):
    """Hash of the pixels and perceptual hash of a patch, as columns of numbers.

    The audit of a split measures it like any other family, in the same pass over the images and with the same store.
    It is not a feature for a classifier.

    See Also
    --------
    Fingerprints : the columns by name.

    Notes
    -----
    Columns:

    - ``fingerprint_digest_00`` to ``_15``: BLAKE2b of size and decoded pixels, one byte (0 to 255) each. Two files of
      the same pixels have the same digest, whatever their format.
    - ``fingerprint_hash_00`` to ``_15``: 128 bits, eight a column: the signs of the 128 lowest frequencies of the
      two-dimensional cosine transform of the luma, the mean left out. It needs no resizing, so that an image and a
      larger or smaller copy of it have nearly the same bits; brightness and contrast do not matter.
    - ``fingerprint_contrast``: root mean square, in grey levels, of what these 128 frequencies hold. Where it is near
      zero the bits are those of noise, or of the uneven light that all blank patches share.
    - ``fingerprint_flat``: 1 where all pixels have one colour, else 0.
    - ``fingerprint_side_px``: the smaller side. Below 16 px several frequencies coincide.

    Hashes by the signs of a cosine transform are common; this one uses more bits, in order of frequency, and compares
    with zero instead of the median.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> patch = rng.integers(0, 200, (10, 10, 3)).repeat(5, axis=0).repeat(5, axis=1).astype(np.uint8)
    >>> prints = Fingerprints.of(ImageFingerprint().transform(np.stack([patch, patch + 9, patch[::-1]])))
    >>> prints.image.tolist()
    [0, 1, 2]
    >>> np.bitwise_count(prints.codes ^ prints.codes[0]).sum(axis=1).tolist()
    [0, 0, 59]
    """

    family: ClassVar[str] = "fingerprint"

    def _check_params(self) -> None:
        """There are none."""

    def _feature_names(self) -> list[str]:
        return [
            *(f"fingerprint_digest_{k:02d}" for k in range(_DIGEST_BYTES)),
            *(f"fingerprint_hash_{k:02d}" for k in range(_HASH_BYTES)),
            *(f"fingerprint_{name}" for name in ("contrast", "flat", "side_px")),
        ]

    def _compute(self, batch: PatchBatch) -> np.ndarray:
        n, height, width, _ = batch.rgb.shape
        bits, contrast = _hash_luma(batch.gray)
        side = np.full(n, min(height, width))
        columns = (pixel_digests(batch.rgb), bits, contrast, _one_colour(batch), side)
        return np.column_stack(columns).astype(np.float32)


def _one_colour(batch: PatchBatch) -> np.ndarray:
    """Whether all pixels of an image are the same, (n,) bool."""
    luma = batch.gray.reshape(len(batch), -1)
    flat = luma.max(axis=1) == luma.min(axis=1)
    # Three channels take fifty times as long as one, and nearly no patch has a single luma.
    for image in np.flatnonzero(flat):
        flat[image] = (batch.rgb[image] == batch.rgb[image, 0, 0]).all()
    return flat


def pixel_digests(rgb: np.ndarray) -> np.ndarray:
    """BLAKE2b of size and pixels of each image of (n, H, W, 3) uint8: (n, 16) uint8, as in `Fingerprints`."""
    _, height, width, _ = rgb.shape
    start = hashlib.blake2b(f"{height}x{width} ".encode(), digest_size=_DIGEST_BYTES, person=b"pixels")
    digests = []
    for image in rgb:
        digest = start.copy()
        digest.update(np.ascontiguousarray(image))
        digests.append(digest.digest())
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, _DIGEST_BYTES)


def _hash_luma(gray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Packed signs (n, 16) uint8, and contrast (n,) float64, of images (n, H, W) uint8 of one size."""
    n, height, width = gray.shape
    u, v = _frequencies().T
    centred = gray.reshape(n, -1).astype(np.float64)
    centred -= np.rint(centred.mean(axis=1, keepdims=True))
    spectrum = _cosines(height) @ centred.reshape(gray.shape) @ _cosines(width).T
    found = spectrum[:, u, v]
    # A cosine with both frequencies above zero has the mean square 1/4, with one of them 1/2.
    amplitude = found * (np.where((u > 0) & (v > 0), 2.0, np.sqrt(2.0)) / (height * width * float(_SCALE) ** 2))
    return np.packbits(found > 0, axis=1), np.sqrt((amplitude**2).sum(axis=1))


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """The columns of `ImageFingerprint`, by name.

    Parameters
    ----------
    digests : ndarray of shape (n, 16), uint8
        Hash of size and pixels.
    codes : ndarray of shape (n, 2), uint64
        Perceptual hash, to be compared by the number of bits that differ.
    contrast : ndarray of shape (n,), float32
        In grey levels, of the frequencies behind the perceptual hash.
    flat : ndarray of shape (n,), bool
        Whether all pixels have one colour: such images are equal without being copies.
    side_px : ndarray of shape (n,), float32
        Smaller side.
    """

    digests: np.ndarray
    codes: np.ndarray
    contrast: np.ndarray
    flat: np.ndarray
    side_px: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray) -> Fingerprints:
        """Split a matrix of `ImageFingerprint` into its columns.

        Parameters
        ----------
        matrix : ndarray of shape (n, 35), float32
            As ``ImageFingerprint().transform(X)`` or ``extract([..., ImageFingerprint()], X)`` gives it.

        Raises
        ------
        ValueError
            If it has another shape, or values other than 0 to 255 in the columns of bytes.
        """
        matrix, n_columns = np.asarray(matrix), len(ImageFingerprint()._feature_names())
        n_bytes = _DIGEST_BYTES + _HASH_BYTES
        if matrix.ndim != 2 or matrix.shape[1] != n_columns or not len(matrix):
            raise ValueError(
                f"fingerprints: expected an array of shape (n, {n_columns}) as ImageFingerprint().transform(X) gives, "
                f"got shape {matrix.shape}. Measure the images with ImageFingerprint."
            )
        whole = np.ascontiguousarray(matrix[:, :n_bytes].astype(np.uint8))
        wrong = np.flatnonzero((whole != matrix[:, :n_bytes]).any(axis=1))
        if wrong.size:
            raise ValueError(
                f"fingerprints: expected whole numbers from 0 to 255 in the first {n_bytes} columns, got others in row "
                f"{wrong[0]} ({wrong.size} such rows). Measure the images with ImageFingerprint."
            )
        codes = np.ascontiguousarray(whole[:, _DIGEST_BYTES:]).view("<u8").astype(np.uint64)
        contrast, flat, side = matrix[:, n_bytes:].T
        return cls(np.ascontiguousarray(whole[:, :_DIGEST_BYTES]), codes, contrast, flat == 1, side)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def image(self) -> np.ndarray:
        """Number of each row's image, int64 of shape (n,): rows of equal pixels share one, counted from 0."""
        return number_rows(np.ascontiguousarray(self.digests).view("<u8").astype(np.uint64))

    def keys(self) -> list[bytes]:
        """The digest of each row as 16 bytes, as `TrainingImages` keeps them."""
        return [row.tobytes() for row in self.digests]


def number_rows(words: np.ndarray) -> np.ndarray:
    """Number the distinct rows of an array, in the order in which they appear.

    Parameters
    ----------
    words : ndarray of shape (n, 2), uint64

    Returns
    -------
    numbers : ndarray of shape (n,), int64
        Equal rows share one, counted from 0.

    Examples
    --------
    >>> number_rows(np.array([[7, 1], [7, 2], [7, 1]], dtype=np.uint64)).tolist()
    [0, 1, 0]
    """
    return pd.DataFrame(words).groupby([0, 1], sort=False).ngroup().to_numpy(dtype=np.int64)


@dataclass(frozen=True)
class TrainingImages:
    """Images that an encoder was trained on, so that an audit can find test patients among them.

    An encoder that was trained on patches has an attribute or a method ``trained_on`` with one or more such records.
    They must follow from the encoder's parameters (such as a file beside its weights), since `sklearn.base.clone` keeps
    nothing else.

    Parameters
    ----------
    dataset : str
        Name of the data set.
    digests : frozenset of bytes
        Digests of the images' pixels, 16 bytes each.

    Examples
    --------
    >>> import numpy as np
    >>> patches = np.arange(2, dtype=np.uint8).reshape(2, 1, 1, 1).repeat(50, 1).repeat(50, 2).repeat(3, 3)
    >>> record = TrainingImages.of("mine", ImageFingerprint().transform(patches))
    >>> record.dataset, len(record.digests)
    ('mine', 2)
    """

    dataset: str
    digests: frozenset[bytes]

    def __post_init__(self) -> None:
        object.__setattr__(self, "digests", frozenset(self.digests))
        wrong = [key for key in self.digests if not (isinstance(key, bytes) and len(key) == _DIGEST_BYTES)]
        if not isinstance(self.dataset, str) or wrong:
            got = repr(wrong[0])[:60] if wrong else f"the data set {self.dataset!r}"
            raise ValueError(
                f"TrainingImages: expected the name of a data set and digests of {_DIGEST_BYTES} bytes, got {got} "
                f"({len(wrong)} such digests). Make it with TrainingImages.of(name, fingerprints)."
            )

    @classmethod
    def of(cls, dataset: str, matrix: np.ndarray) -> TrainingImages:
        """Record the images whose fingerprints are in `matrix`, as from ``ImageFingerprint().transform(X)``."""
        return cls(dataset, frozenset(Fingerprints.of(matrix).keys()))


def leave_out_unreadable(dataset: Any, cv: Any, runtime: Runtime | None) -> tuple[Any, Any, Runtime]:
    """Leave images that cannot be read out of a data set, if the runtime says so, before folds are made.

    Parameters
    ----------
    dataset : PatchDataset
    cv : splitter, iterable of (train, test), or None
        Of all rows.
    runtime : Runtime or None

    Returns
    -------
    dataset : PatchDataset
        The same without them, see `histofeat.datasets.PatchDataset.without`.
    cv : splitter, list of (train, test), or None
        The splitter itself; else the pairs, with the row numbers of what is left.
    runtime : Runtime
        The same, by which no other image is left out.

    Raises
    ------
    DatasetError
        When too many images cannot be read.

    Warns
    -----
    UserWarning
        With the share of the images that were left out.
    """
    runtime = Runtime.of(runtime)
    if runtime.on_error == "raise" or dataset.columns is not None:
        return dataset, cv, runtime
    settings = {"n_jobs": runtime.n_jobs, "store": runtime.store, "cluster": runtime.cluster, "on_error": "skip"}
    reasons = extract([ImageFingerprint()], dataset.X, progress=partial(runtime.report, "read"), **settings).failures
    if reasons:
        kept = ~np.isin(np.arange(len(dataset)), list(reasons))
        if cv is not None and (not hasattr(cv, "split") or hasattr(cv, "test_fold")):
            row, pairs = np.cumsum(kept) - 1, fold_rows(cv, dataset.y, dataset.patients, "cv", disjoint=False)
            cv = [tuple(row[side[kept[side]]] for side in pair) for pair in pairs]
        dataset = dataset.without(reasons)
        warnings.warn(f"{dataset.name}: {dataset.audit.notes[-1]}", stacklevel=3)
    return dataset, cv, replace(runtime, on_error="raise")
