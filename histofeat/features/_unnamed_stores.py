"""Stores that nobody names: one for a computation, and one for fits that follow each other, as in a search."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from histofeat.features._feature_store import FeatureStore, StoreLike
from histofeat.features._store_session import Session
from histofeat.images import is_own

try:
    import fcntl
except ImportError:  # Windows: processes may measure an image at the same time
    fcntl = None

#: Bytes of the rows that a process remembers, and what each takes besides its values.
_MOST_BYTES, _ENTRY_BYTES = 1 << 28, 350


@contextmanager
def scratch_store(store: StoreLike | None = None) -> Iterator[StoreLike | None]:
    """Give a store for one computation.

    Parameters
    ----------
    store : path or FeatureStore, optional
        The one to use, if there is one.

    Yields
    ------
    store : path, FeatureStore or None
        That one; or one that is removed with the block; None where none can be written among temporary files.
    """
    with ExitStack() as stack:
        if store is None:
            with suppress(OSError, ValueError):
                made = tempfile.TemporaryDirectory(prefix="histofeat-", ignore_cleanup_errors=True)
                file = Path(stack.enter_context(made)) / "features.sqlite"
                with FeatureStore(file).session():  # a full disk has room for the folder alone
                    store = file
        yield store


class RecentRows:
    """Rows of features that were measured last: the store of a pipeline that has none, as for the fits of a search.

    A process remembers 256 MiB of them. Processes that it starts with `multiprocessing` or joblib share a file among
    temporary ones, which is removed when the first process ends: an image that one of them is measuring is not measured
    by another. Only families of histofeat are kept, since the code of others may change while a process runs. Copies
    and pickles of this object are None, so that a model that was saved or sent elsewhere keeps nothing.

    Examples
    --------
    >>> import numpy as np
    >>> from histofeat.features import ColorHistogram, extract
    >>> recent, patches = RecentRows(), np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    >>> [dict(extract([ColorHistogram()], patches, store=recent).computed) for _ in range(2)]
    [{'color': 2}, {'color': 0}]
    """

    def __init__(self) -> None:
        self._young, self._old, self._n_bytes = {}, {}, 0

    def __reduce__(self) -> tuple:
        return type(None), ()

    @contextmanager
    def session(self) -> Iterator[_RecentSession]:
        """Give what reads and writes rows, from any thread."""
        with ExitStack() as stack:
            shared = claims = None
            parent = multiprocessing.parent_process()
            with suppress(OSError, ValueError):  # no disk, or a file that another one has made: remember only
                folder = _shared_folder(parent.pid if parent else os.getpid())
                if parent:
                    folder.mkdir(mode=0o700, exist_ok=True)
                if folder.is_dir() and not folder.is_symlink() and is_own(folder):
                    claims = stack.enter_context((folder / "claims").open("ab"))
                    shared = stack.enter_context(FeatureStore(folder / "features.sqlite").session())
            yield _RecentSession(self, shared, claims)

    def get(self, fingerprint: str, image: bytes) -> np.ndarray | None:
        """Give the row of an extractor and an image, if it is remembered."""
        key = fingerprint, image
        return self._young.get(key, self._old.get(key))

    def keep(self, fingerprint: str, rows: Mapping[bytes, np.ndarray]) -> None:
        """Remember rows; the older half is forgotten when the younger one is full."""
        self._young.update({(fingerprint, image): row for image, row in rows.items()})
        self._n_bytes += sum(row.nbytes + _ENTRY_BYTES for row in rows.values())
        if self._n_bytes > _MOST_BYTES // 2:
            self._young, self._old, self._n_bytes = {}, self._young, 0


class _RecentSession:
    """Remembered rows, and those of the shared file if there is one, behind the methods of a `Session`.

    A row that is in neither is claimed before it is measured: a lock on the byte of a file whose position is the key of
    the row. Another process that wants the row waits for it. The system frees the locks of a process that ends.
    """

    def __init__(self, recent: RecentRows, shared: Session | None, claims: IO | None):
        self._recent, self._shared, self._claims = recent, shared, claims

    def register(self, family: str, n_features: int, params: Mapping, name: str) -> Any:
        """Return the record of an extractor; None for another package's, whose code may change in this process."""
        return Session.register(family, n_features, params, name) if name == family else None

    def read(self, extractor: Any, images: Sequence[bytes], n_features: int) -> dict[bytes, np.ndarray]:
        """Known rows of some images, by key, after a wait for those that another process is measuring."""
        known_by = extractor.fingerprint
        found = {image: row for image in images if (row := self._recent.get(known_by, image)) is not None}
        missing = [image for image in images if image not in found]
        if missing and self._shared is not None:
            stored = self._shared.read(extractor, missing, n_features)
            claimed = [image for image in missing if image not in stored]
            self._lock(extractor, claimed)
            late = self._shared.read(extractor, claimed, n_features)
            self._lock(extractor, late, release=True)
            self._recent.keep(known_by, stored | late)
            found |= stored | late
        return found

    def write(self, batch: Sequence[tuple[Any, Sequence[bytes], np.ndarray]]) -> None:
        """Keep the rows of a batch, ``(extractor, images, rows)`` each."""
        for extractor, images, rows in batch:
            self._recent.keep(extractor.fingerprint, dict(zip(images, rows, strict=True)))
        if self._shared is not None:
            self._shared.write(batch)
            for extractor, images, _ in batch:
                self._lock(extractor, images, release=True)

    def _lock(self, extractor, images, *, release: bool = False) -> None:
        start = int(extractor.fingerprint[:14], 16)
        # In one order, so that two processes do not wait for each other; where they would, the system refuses.
        for at in sorted(start ^ int.from_bytes(image[:7]) for image in images) if fcntl else ():
            with suppress(OSError):
                fcntl.lockf(self._claims, fcntl.LOCK_UN if release else fcntl.LOCK_EX, 1, at)


def _shared_folder(process: int) -> Path:
    return Path(tempfile.gettempdir()) / f"histofeat-process-{process}"


atexit.register(lambda: shutil.rmtree(_shared_folder(os.getpid()), ignore_errors=True))

#: Those of this process.
RECENT_ROWS = RecentRows()
