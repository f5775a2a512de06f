"""`extract`: measure images with several families, in threads or on workers, decoding each image once."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType
from typing import Any

import numpy as np

from histofeat.exceptions import PatchError, check_name
from histofeat.features._batch import PatchBatch
from histofeat.features._feature_store import StoreLike, as_store, session_of_a_run
from histofeat.features._runtime import Runtime
from histofeat.features._store_session import Session, content_key, extractor_name
from histofeat.images import Images, as_images, warn_if_dark

_log = logging.getLogger(__name__)

#: Pixels of the patches that are measured together: they and their conversions stay in the cache of a core.
_PIXELS_AT_ONCE = 1 << 18
#: Patches that a worker of a cluster measures in a call; of networks it is as many as here, to the same last digits.
_PATCHES_A_CALL = 1024


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
    cluster: str | None = None,
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
    cluster : str, optional
        Workers that read, decode and measure, as ``Runtime(cluster=...)`` takes them. The store is used from here.

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
    images, store, runtime = as_images(X), as_store(store), Runtime(n_jobs, progress=False, cluster=cluster)
    with session_of_a_run(store) as session:
        job = _Job(tuple(families), images, session, on_error == "skip", runtime if cluster else None)
        chunks = [range(at, min(at + job.chunk, len(images))) for at in range(0, job.n_read, job.chunk)]
        with closing(runtime.each(job.run, chunks)) as done:
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
    away: Runtime | None = None
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
        if self.away is not None and all(self.families[index]._threaded for index in self.measured):
            self.chunk = max(self.chunk, _PATCHES_A_CALL)
        self.n_read = len(self.images) if self.measured else 0
        self._counting = threading.Lock()
        self._network = threading.Lock()

    def run(self, rows: Sequence[int]) -> None:
        """Fill the output rows of the images `rows`: from the store, else by reading, decoding and measuring."""
        spent: Counter = Counter()
        with _timed(spent, "read"):
            wanted = rows if self.away is None or self.stored_as else ()  # otherwise it is the workers that read
            read = {row: self._tried(self.images.content, row) for row in wanted}
            rows = [row for row in rows if row not in self.failures]
            contents = [read.get(row) for row in rows]
        keys, missing = self._look_up(rows, contents, spent)
        if self.away is None:
            missing = self._measure_here(rows, contents, missing, spent)
        elif any(missing):
            missing = self._measure_away(rows, missing)
        self._keep(rows, keys, missing, spent)
        with self._counting:
            self.computed.update(self.families[index].family for families in missing for index in families)
            self.seconds.update(spent)

    def _measure_here(
        self, rows: Sequence[int], contents: list, missing: list[tuple[int, ...]], spent: Counter
    ) -> list:
        """Decode and measure images, each by the families that it lacks; give these, none for those that failed."""
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
        with self._counting:
            self.conversions.update(rule for _, rules in decoded.values() for rule in rules)
        return missing

    def _measure_away(self, rows: Sequence[int], missing: list[tuple[int, ...]]) -> list:
        """Let a worker read and measure the images that lack a family."""
        lacking = [row for row, each in zip(rows, missing, strict=True) if each]
        indices = sorted({*chain(*missing)})
        found = self.away.call(_measured, [self.families[index] for index in indices], self.images.take(lacking))
        blocks, failures, conversions, seconds = found
        if failures and not self.skip:
            failed, reason = next(iter(failures.items()))
            raise PatchError(f"{self.images.name(lacking[failed])}: {reason}")
        for index, block in zip(indices, blocks, strict=True):
            self.out[index][lacking] = block
        with self._counting:
            self.failures |= {lacking[failed]: reason for failed, reason in failures.items()}
            self.conversions.update(conversions)
            self.seconds.update(seconds)
        return [() if row in self.failures else each for row, each in zip(rows, missing, strict=True)]

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


def _measured(families: list, images: Images) -> tuple:
    """Measure images on a worker; give the matrices, failures, conversions and seconds."""
    job = _Job(tuple(families), images, None, skip=True)
    job.run(range(len(images)))
    return job.out, job.failures, job.conversions, job.seconds


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
