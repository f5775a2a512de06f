"""`extract`: measure images with several families in threads, decoding each image once; and its `Runtime`."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from histofeat.datasets import Ledger
from histofeat.exceptions import PatchError, check_name, check_that
from histofeat.features._batch import PatchBatch
from histofeat.features._feature_store import StoreLike, as_store, session_of_a_run
from histofeat.features._progress import Progress
from histofeat.features._store_session import Session, content_key, extractor_name
from histofeat.images import Images, as_images, run_ahead, warn_if_dark

_log = logging.getLogger(__name__)

#: Pixels of the patches that are measured together: they and their conversions stay in the cache of a core.
_PIXELS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Runtime:
    """Threads, feature store, progress and ledger of a computation. Results do not depend on them.

    Parameters
    ----------
    n_jobs : int, optional
        Threads; None is 1, -1 all cores.
    store : path or FeatureStore, optional
        Where features are kept between calls, so that no image is measured twice; None keeps nothing.
    progress : callable, optional
        Called as ``progress(stage, done, total)`` with the name of a stage, such as "extract". None shows stages of
        over two seconds where stderr is a terminal; False shows nothing.
    ledger : path or Ledger, optional
        Where looks at registered test patients are written down; see `histofeat.datasets.Ledger`.
    fits : path or False, optional
        The folder where `evaluate` keeps finished fits, so that an interrupted run resumes; by default ``<store>.fits``
        beside the store, and none without a store. False keeps none. A fit is reused only if data, features, folds,
        parameters, seeds, code and versions are the same. Remove the folder to free the disk.
    on_error : {"raise", "skip"}, default="raise"
        What evaluations and studies do about images that cannot be read: raise an error, or leave them out before
        folds are made. They are then read once more than otherwise, unless there is a store.

    Raises
    ------
    ValueError
        If `store` is neither a path nor a `FeatureStore`, `progress` cannot be called, `ledger` is no path, or
        `on_error` is none of the two.

    Examples
    --------
    >>> calls = []
    >>> Runtime(progress=lambda *call: calls.append(call)).report("fit", 1, 3)
    >>> calls
    [('fit', 1, 3)]
    >>> Runtime.of(None)
    Runtime(n_jobs=None, store=None, progress=None, ledger=None, fits=None, on_error='raise')
    """

    n_jobs: int | None = None
    store: StoreLike | None = None
    progress: Callable[[str, int, int], None] | bool | None = None
    ledger: Any = None
    fits: Any = None
    on_error: str = "raise"

    def __post_init__(self) -> None:
        check_name("Runtime.on_error", self.on_error, ("raise", "skip"))
        object.__setattr__(self, "store", as_store(self.store))
        object.__setattr__(self, "ledger", Ledger.of(self.ledger))
        beside = Path(f"{self.store.path}.fits") if self.fits is None and self.store is not None else self.fits
        if beside not in (None, False) and not isinstance(beside, str | PathLike):
            raise ValueError(f"Runtime.fits: expected a folder, False or None, got {beside!r:.80}. Pass a path.")
        object.__setattr__(self, "fits", beside if beside in (None, False) else Path(beside))
        if self.progress not in (None, False) and not callable(self.progress):
            got = f"Runtime.progress: expected a callable, False or None, got {self.progress!r:.80}"
            raise ValueError(f"{got}. Pass a function of (stage, done, total).")
        watched = self.progress is None and sys.stderr is not None and sys.stderr.isatty()
        object.__setattr__(self, "_reported", Progress(patient=True) if watched else self.progress)

    @classmethod
    def of(cls, value: Runtime | None) -> Runtime:
        """Return the runtime given as ``runtime=``; the default one for None.

        Parameters
        ----------
        value : Runtime or None

        Returns
        -------
        runtime : Runtime

        Raises
        ------
        ValueError
            If it is neither.
        """
        if value is None:
            return cls()
        check_that("runtime", value, isinstance(value, cls), "a Runtime or None", "Pass Runtime(n_jobs=-1).")
        return value

    def report(self, stage: str, done: int, total: int) -> None:
        """Report progress; that nobody can read it any more does not end the work."""
        if self._reported:
            with suppress(OSError):
                self._reported(stage, done, total)


@dataclass(frozen=True)
class Extraction:
    """Features of a set of images, with counts and times of the extraction.

    Attributes
    ----------
    features : tuple of ndarray of shape (n, d), float32
        One matrix per family, in the order of the families.
    conversions : mapping of str to int
        Number of decoded images by conversion of `histofeat.images._decoding`, and by the reason why a stain
        normaliser left them as they are.
    computed : mapping of str to int
        Number of images measured for each family; the others were in the store.
    seconds : mapping of str to float
        Wall-clock seconds (``"total"``), and seconds summed over threads for ``"read"``, ``"decode"``,
        ``"store"`` and each family's class name.
    failures : mapping of int to str
        Rows of images that could not be read, which are NaN in measured matrices, and why; nothing of them is stored.
    """

    features: tuple[np.ndarray, ...]
    conversions: Mapping[str, int]
    computed: Mapping[str, int]
    seconds: Mapping[str, float]
    failures: Mapping[int, str] = field(default_factory=dict)


def extract(
    families: Sequence[Any],
    X: Any,
    *,
    n_jobs: int | None = None,
    store: StoreLike | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_error: str = "raise",
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
        depend on it. Networks use their own threads and are called from one thread at a time.
    store : path or FeatureStore, optional
        Where features are kept between calls. Images in it are read and hashed, not decoded or measured.
    progress : callable, optional
        Called as ``progress(done, total)`` from this thread after each batch.
    on_error : {"raise", "skip"}, default="raise"
        Whether an image that cannot be read raises an error, or has rows of NaN and is named in ``failures``.

    Returns
    -------
    extraction : Extraction
        The matrices, rows in the order of `X`.

    Raises
    ------
    ValueError
        If a family's parameter is out of range, two families give columns of the same name, or the store cannot be
        used.
    PatchError
        If `X` has an unknown form, or, with ``on_error="raise"``, an image cannot be decoded; the message names it.
    WeightsError
        If the weights of a network are not found and cannot be downloaded.

    Warns
    -----
    UserWarning
        If 16-bit images use 12 bits or fewer: they are all but black.
    """
    check_name("extract.on_error", on_error, ("raise", "skip"))
    started = time.perf_counter()
    images, store = as_images(X), as_store(store)
    with session_of_a_run(store) as session:
        job = _Job(tuple(families), images, session, on_error == "skip")
        chunks = [range(at, min(at + job.chunk, len(images))) for at in range(0, job.n_read, job.chunk)]
        with closing(run_ahead(job.run, chunks, n_jobs=n_jobs)) as done:
            for chunk, _ in zip(chunks, done, strict=True):
                if progress is not None:
                    progress(chunk.stop, len(images))
    job.seconds["total"] = time.perf_counter() - started
    if job.conversions:
        _log.info("converted to 8-bit RGB: %s of %d images", dict(job.conversions), len(images))
        warn_if_dark(job.conversions, f"{job.conversions['dark 16-bit']:,} of {len(images):,} images")
    computed = dict.fromkeys((family.family for family in families), 0) | job.computed
    counts = (job.conversions, computed, job.seconds, sorted(job.failures.items()))
    return Extraction(tuple(job.out), *(MappingProxyType(dict(count)) for count in counts))


@dataclass
class _Job:
    """A running extraction: the state that worker threads share."""

    families: tuple[Any, ...]
    images: Images
    session: Session | None
    skip: bool = False
    failures: dict[int, str] = field(default_factory=dict)
    conversions: Counter = field(default_factory=Counter)
    computed: Counter = field(default_factory=Counter)
    seconds: Counter = field(default_factory=Counter)

    def __post_init__(self) -> None:
        names = [family.get_feature_names_out() for family in self.families]
        check_unique_names(names)
        self.out = [
            family.given(self.images) if hasattr(family, "given") else np.empty((len(self.images), len(columns)), "f4")
            for family, columns in zip(self.families, names, strict=True)
        ]
        self.measured, self.stored_as = [], {}  # what has to read images, and what of it the store may keep
        for index, (family, block) in enumerate(zip(self.families, self.out, strict=True)):
            if hasattr(family, "given"):
                continue
            self.measured.append(index)
            if self.session is not None and (key := family._fingerprint()) is not None:
                known = self.session.register(family.family, block.shape[1], key, extractor_name(family))
                self.stored_as |= {index: known} if known else {}
        self.chunk = max((self.families[index]._batch_size for index in self.measured), default=1)
        self.n_read = len(self.images) if self.measured else 0
        self._counting = threading.Lock()
        self._network = threading.Lock()

    def run(self, rows: Sequence[int]) -> None:
        """Fill the output rows of the images `rows`: from the store, else by reading, decoding and measuring."""
        spent: Counter = Counter()
        with _timed(spent, "read"):
            read = {row: self._tried(self.images.content, row) for row in rows}
            rows = [row for row in rows if row not in self.failures]
            contents = [read[row] for row in rows]
        keys, missing = self._look_up(rows, contents, spent)
        wanted = [position for position, families in enumerate(missing) if families]
        with _timed(spent, "decode"):
            tried = {at: self._tried(self.images.decode, rows[at], contents[at]) for at in wanted}
        decoded = {at: found for at, found in tried.items() if found is not None}
        missing = [families if at in decoded else () for at, families in enumerate(missing)]
        prepared: dict[int, list] = {}
        for families, positions in _alike(decoded, missing):
            batch = PatchBatch(np.stack([decoded[position][0] for position in positions]))
            self._measure(batch, families, [rows[position] for position in positions], prepared, spent)
        self._embed(prepared, spent)
        self._keep(rows, keys, missing, spent)
        with self._counting:
            self.conversions.update(rule for _, rules in decoded.values() for rule in rules)
            self.computed.update(self.families[index].family for families in missing for index in families)
            self.seconds.update(spent)

    def _tried(self, read: Callable[..., Any], row: int, *content: Any) -> Any:
        """Read or decode an image; None where that fails and is to be skipped."""
        try:
            return read(row, *content)
        except PatchError as error:
            if not self.skip:
                raise
            self.failures[row] = str(error).removeprefix(f"{self.images.name(row)}: ")
            for index in self.measured:
                self.out[index][row] = np.nan
            return None

    def _look_up(
        self, rows: Sequence[int], contents: list, spent: Counter
    ) -> tuple[list[bytes], list[tuple[int, ...]]]:
        """Fill the rows that are in the store; return the key of each image and the families that it still lacks."""
        if not self.stored_as:
            return [], [tuple(self.measured)] * len(rows)
        with _timed(spent, "store"):
            keys, found = [content_key(content) for content in contents], {index: {} for index in self.measured}
            for index, extractor in self.stored_as.items():
                stored = found[index] = self.session.read(extractor, keys, (block := self.out[index]).shape[1])
                at = [position for position, key in enumerate(keys) if key in stored]
                if at:
                    block[[rows[position] for position in at]] = np.stack([stored[keys[position]] for position in at])
        return keys, [tuple(index for index, stored in found.items() if key not in stored) for key in keys]

    def _measure(self, batch: PatchBatch, families: tuple[int, ...], rows: list[int], prepared: dict, spent) -> None:
        """Measure a batch; for a network only prepare it, so that images of all sizes go through it together."""
        for index in families:
            family = self.families[index]
            with _timed(spent, type(family).__name__):
                if family._threaded:
                    self.out[index][rows] = family._compute(batch)
                else:
                    prepared.setdefault(index, []).append((rows, family._prepare(batch)))

    def _embed(self, prepared: dict[int, list], spent: Counter) -> None:
        """Run each network once on all its prepared patches.

        One thread at a time; the others decode meanwhile, and copy their patches to the device of the network.
        """
        for index, parts in prepared.items():
            rows = [row for part, _ in parts for row in part]
            pixels = np.concatenate([pixels for _, pixels in parts])
            family = self.families[index]
            with _timed(spent, type(family).__name__):
                staged = family._stage(pixels)
            with self._network, _timed(spent, type(family).__name__):
                self.out[index][rows] = family._embed(staged)

    def _keep(self, rows: Sequence[int], keys: list[bytes], missing: list[tuple[int, ...]], spent: Counter) -> None:
        """Write new rows to the store, in one transaction."""
        if not self.stored_as or not any(missing):
            return
        new = []
        for index, extractor in self.stored_as.items():
            positions = [position for position, families in enumerate(missing) if index in families]
            at = [rows[position] for position in positions]
            new.append((extractor, [keys[position] for position in positions], self.out[index][at]))
        with _timed(spent, "store"):
            self.session.write(new)


def _alike(decoded: Mapping[int, tuple], missing: Sequence[tuple[int, ...]]):
    """Yield (families, positions) of decoded images of one size that lack the same families, few pixels at a time."""
    by_kind: dict[tuple, list[int]] = {}
    for position, (patch, _) in decoded.items():
        by_kind.setdefault((patch.shape, missing[position]), []).append(position)
    for (shape, families), positions in by_kind.items():
        at_once = max(1, _PIXELS_AT_ONCE // (shape[0] * shape[1]))
        for start in range(0, len(positions), at_once):
            yield families, positions[start : start + at_once]


@contextmanager
def _timed(seconds: Counter, key: str):
    """Add the seconds of a block to a counter."""
    started = time.perf_counter()
    yield
    seconds[key] += time.perf_counter() - started


def check_unique_names(names: Sequence[np.ndarray]) -> None:
    """Check that no two families have a column of the same name.

    Parameters
    ----------
    names : sequence of ndarray of str
        The column names of each family.

    Raises
    ------
    ValueError
        If a column name occurs twice; the message gives the first one.
    """
    counts = Counter(name for columns in names for name in columns)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ValueError(
            f"features: expected families with columns of their own, got {twice[0]!r} twice "
            f"(and {len(twice) - 1} more). "
            "Name each family once, or give parameters that do not overlap."
        )


def passes_over_images(wanted: Mapping[str, Any]) -> list[list[str]]:
    """Group families so that no two of a group share a column name: one pass over the images for each group.

    Parameters
    ----------
    wanted : mapping of str to PatchFeatures
        Families by key.

    Returns
    -------
    passes : list of list of str
        The keys of each group.
    """
    passes: list[tuple[set[str], list[str]]] = []
    for key, family in wanted.items():
        names = set(family.get_feature_names_out())
        taken, keys = next((group for group in passes if group[0].isdisjoint(names)), (set(), []))
        if not keys:
            passes.append((taken, keys))
        taken |= names
        keys.append(key)
    return [keys for _, keys in passes]
