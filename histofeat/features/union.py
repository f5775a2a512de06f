"""Every family from one decode: the engine that reads, decodes and measures, and the union built on it."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

import joblib
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from histofeat.features.base import PatchBatch, PatchFeatures, image_input_tags
from histofeat.images import Images, as_images

__all__ = ["Extraction", "PatchUnion", "extract"]

_log = logging.getLogger(__name__)

#: Pixels of the patches that are measured together: they and their conversions stay in the cache of a core.
_PIXELS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Extraction:
    """Features of a set of images, and what it took to get them.

    Attributes
    ----------
    features : tuple of ndarray of shape (n, d), float32
        One matrix per family, in the order asked for.
    conversions : mapping of str to int
        How many images needed which conversion of `histofeat.images`.
    seconds : mapping of str to float
        Wall-clock seconds of the whole (``"total"``), and seconds summed over threads of ``"read"``, ``"decode"``
        and each family's class name.
    """

    features: tuple[np.ndarray, ...]
    conversions: Mapping[str, int]
    seconds: Mapping[str, float]


def extract(
    families: Sequence[PatchFeatures],
    X,
    *,
    n_jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Extraction:
    """Measure images with several families, reading and decoding each image once.

    Parameters
    ----------
    families : sequence of PatchFeatures
        Estimators of `histofeat.features`; they need not be fitted.
    X : sequence of paths, ndarray (n, H, W, 3) uint8, list of such arrays, or DataFrame with a ``path`` column
        The images. Memory is bounded by the batches in flight, not by their number.
    n_jobs : int, optional
        Threads that read, decode and run the compiled kernels; None is 1, -1 all cores. The result does not
        depend on it. Networks use threads of their own and are fed by one thread at a time.
    progress : callable, optional
        Called as ``progress(done, total)`` from this thread after each batch.

    Returns
    -------
    extraction : Extraction
        The matrices, rows in the order of `X`.

    Raises
    ------
    ValueError
        If a family's parameter is out of range, or two families give columns of the same name.
    PatchError
        If `X` has an unknown form, or an image cannot be decoded; the message names it.
    WeightsError
        If the weights of a network cannot be had.
    """
    started = time.perf_counter()
    images = as_images(X)
    job = _Job(tuple(families), images)
    n_threads = joblib.effective_n_jobs(n_jobs)
    chunks = [range(at, min(at + job.chunk, len(images))) for at in range(0, len(images), job.chunk)]
    with ThreadPoolExecutor(n_threads, thread_name_prefix="histofeat") as pool:
        pending: deque = deque()
        done = 0
        try:
            for chunk in chunks:
                pending.append((chunk, pool.submit(job.run, chunk)))
                # Twice the threads in flight keeps them busy and bounds the memory.
                while len(pending) >= 2 * n_threads or (chunk is chunks[-1] and pending):
                    rows, future = pending.popleft()
                    future.result()
                    done += len(rows)
                    if progress is not None:
                        progress(done, len(images))
        finally:
            for _, future in pending:
                future.cancel()
    job.seconds["total"] = time.perf_counter() - started
    if job.conversions:
        _log.info("converted to 8-bit RGB: %s of %d images", dict(job.conversions), len(images))
    return Extraction(tuple(job.out), MappingProxyType(dict(job.conversions)), MappingProxyType(dict(job.seconds)))


@dataclass
class _Job:
    """One extraction under way: what the worker threads share."""

    families: tuple[PatchFeatures, ...]
    images: Images
    conversions: Counter = field(default_factory=Counter)
    seconds: Counter = field(default_factory=Counter)

    def __post_init__(self):
        names = [family.get_feature_names_out() for family in self.families]
        check_unique_names(names)
        self.chunk = max(family._batch_size for family in self.families)
        self.out = [np.empty((len(self.images), len(columns)), dtype=np.float32) for columns in names]
        self._counting = threading.Lock()
        self._network = threading.Lock()

    def run(self, rows: range) -> None:
        """Read, decode and measure the images `rows`, and write their rows of the output."""
        spent: Counter = Counter()
        with _timed(spent, "read"):
            contents = [self.images.content(row) for row in rows]
        with _timed(spent, "decode"):
            decoded = [self.images.decode(row, content) for row, content in zip(rows, contents, strict=True)]
        by_size: dict[tuple[int, ...], list[int]] = {}
        for position, (patch, _) in enumerate(decoded):
            by_size.setdefault(patch.shape, []).append(position)
        for shape, positions in by_size.items():
            at_once = max(1, _PIXELS_AT_ONCE // (shape[0] * shape[1]))
            for start in range(0, len(positions), at_once):
                part = positions[start : start + at_once]
                batch = PatchBatch(np.stack([decoded[position][0] for position in part]))
                self._measure(batch, [rows[position] for position in part], spent)
        with self._counting:
            self.conversions.update(rule for _, rules in decoded for rule in rules)
            self.seconds.update(spent)

    def _measure(self, batch: PatchBatch, rows: list[int], spent: Counter) -> None:
        for family, out in zip(self.families, self.out, strict=True):
            if family._threaded:
                with _timed(spent, type(family).__name__):
                    out[rows] = family._compute(batch)
            else:
                with self._network, _timed(spent, type(family).__name__):
                    out[rows] = family._compute(batch)


@contextmanager
def _timed(seconds: Counter, key: str):
    """Add the seconds of a block to a counter."""
    started = time.perf_counter()
    yield
    seconds[key] += time.perf_counter() - started


def check_unique_names(names: Sequence[np.ndarray]) -> None:
    """Refuse two families that would give columns of the same name.

    Parameters
    ----------
    names : sequence of ndarray of str
        The column names of each family.

    Raises
    ------
    ValueError
        Naming the first column that stands twice.
    """
    counts = Counter(name for columns in names for name in columns)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ValueError(
            f"features: expected families with columns of their own, got {twice[0]!r} and {len(twice) - 1} more twice. "
            "Name each family once, or give parameters that do not overlap."
        )


class PatchUnion(TransformerMixin, BaseEstimator):
    """Several feature families side by side, from one decode of each image.

    Parameters
    ----------
    families : sequence of PatchFeatures
        Estimators of `histofeat.features`, at least one.
    n_jobs : int, optional
        Threads; None is 1, -1 all cores.

    Attributes
    ----------
    n_features_out_ : int
        Columns of the output.

    Examples
    --------
    >>> import numpy as np
    >>> from histofeat.features import ColorHistogram, LBPHistogram
    >>> union = PatchUnion([ColorHistogram(), LBPHistogram()])
    >>> patches = np.zeros((2, 50, 50, 3), dtype=np.uint8)
    >>> len(union.fit(patches).get_feature_names_out()) == union.transform(patches).shape[1]
    True
    """

    def __init__(self, families: Sequence[PatchFeatures], *, n_jobs: int | None = None):
        self.families = families
        self.n_jobs = n_jobs

    def fit(self, X, y=None):
        """Validate the families and the form of `X`; nothing is learnt. See `PatchFeatures.fit`."""
        self._check_families()
        for family in self.families:
            family.fit(X)
        self.n_features_out_ = len(self.get_feature_names_out())
        return self

    def transform(self, X) -> np.ndarray:
        """Measure the patches with every family: an array of shape (n, d), float32. See `extract`."""
        self._check_families()
        return np.hstack(extract(self.families, X, n_jobs=self.n_jobs).features)

    def get_feature_names_out(self, input_features=None) -> np.ndarray:
        """Names of the columns, family after family, an object array of shape (d,); `input_features` is ignored."""
        self._check_families()
        names = [family.get_feature_names_out() for family in self.families]
        check_unique_names(names)
        return np.concatenate(names)

    def __sklearn_tags__(self):
        return image_input_tags(super().__sklearn_tags__())

    def _check_families(self) -> None:
        families = self.families
        if not isinstance(families, Sequence) or isinstance(families, str) or not families:
            raise ValueError(f"PatchUnion.families: expected a list of at least one feature family, got {families!r}.")
        for family in families:
            if not isinstance(family, PatchFeatures):
                raise ValueError(
                    f"PatchUnion.families: expected estimators of histofeat.features, got {family!r:.80}. "
                    "Names are for IDCPipeline(features=...)."
                )
