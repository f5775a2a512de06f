"""`FeatureStore`: features on disk, one row per image content and extractor, safe against kills and second writers."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

import numpy as np

__all__ = ["FEATURES_VERSION", "FeatureStore", "StoredExtractor", "as_store", "content_key", "extractor_fingerprint"]

FEATURES_VERSION = 1
"""Version of all feature values and decoding rules; part of every key of a store.

To change any number that a family gives: raise this by one, write the change under "Numbers changed" in CHANGELOG.md,
and run the whole test suite. Rows of older versions are then never read again; `FeatureStore.purge` removes them.
"""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS extractors (
    id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, family TEXT NOT NULL, description TEXT NOT NULL,
    n_features INTEGER NOT NULL, computed INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS features (
    extractor INTEGER NOT NULL REFERENCES extractors(id), image BLOB NOT NULL, row BLOB NOT NULL,
    PRIMARY KEY (extractor, image)
);
"""
#: Another writer holds the file for one batch at a time, so waiting this long means that it hangs.
_BUSY_TIMEOUT_S = 120.0
#: Values in one query; below the limit of every SQLite build.
_QUERY_SIZE = 500


def content_key(content: bytes | np.ndarray) -> bytes:
    """Hash what an image holds: the bytes of its file, or its array with shape and dtype.

    Parameters
    ----------
    content : bytes or ndarray
        The image as it came.

    Returns
    -------
    key : bytes of length 16
        BLAKE2b. Equal files have equal keys wherever they lie.

    Examples
    --------
    >>> content_key(b"same") == content_key(b"same"), content_key(b"same") == content_key(b"other")
    (True, False)
    """
    if isinstance(content, np.ndarray):
        digest = hashlib.blake2b(f"array {content.dtype} {content.shape}".encode(), digest_size=16)
        digest.update(np.ascontiguousarray(content))
    else:
        digest = hashlib.blake2b(content, digest_size=16)
    return digest.digest()


def extractor_fingerprint(name: str, params: Mapping) -> tuple[str, str]:
    """Identify an extractor by all that its numbers depend on.

    Parameters
    ----------
    name : str
        Class of the extractor.
    params : mapping
        Its parameters, and what else changes its numbers, such as the hash of a network's weights.

    Returns
    -------
    fingerprint : str
        Hash of name, parameters and `FEATURES_VERSION`.
    description : str
        The same in words that a person can read.
    """
    description = json.dumps({"extractor": name, "version": FEATURES_VERSION, **params}, sort_keys=True, default=repr)
    return hashlib.blake2b(description.encode(), digest_size=16).hexdigest(), description


@dataclass(frozen=True)
class StoredExtractor:
    """What a store holds of one extractor.

    Attributes
    ----------
    family : str
        Name of the feature family.
    description : str
        Its parameters and version, as JSON.
    n_features : int
        Columns.
    n_images : int
        Rows.
    n_bytes : int
        Bytes of the rows.
    computed : int
        How many images were ever measured for it; more than `n_images` if two processes measured the same.
    """

    family: str
    description: str
    n_features: int
    n_images: int
    n_bytes: int
    computed: int


class FeatureStore:
    """Features on disk, keyed by the content of an image and all that an extractor's numbers depend on.

    The object holds a path and nothing else: it can be cloned, pickled and used by several processes. Rows are written
    one transaction a batch, so a process that is killed loses at most the batch in flight.

    Parameters
    ----------
    path : path-like
        The SQLite file; it and its folder are made when they are first needed.

    Notes
    -----
    SQLite in write-ahead mode (https://www.sqlite.org/wal.html): readers and one writer at a time, on a local disk. On
    a network file system its locks may not hold; keep the store on the machine that computes.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from histofeat import ColorHistogram
    >>> from histofeat.features import extract
    >>> store = FeatureStore(tempfile.mkdtemp() + "/features.sqlite")
    >>> patches = np.zeros((3, 8, 8, 3), dtype=np.uint8); patches[1] = 9
    >>> dict(extract([ColorHistogram()], patches[:2], store=store).computed)
    {'color': 2}
    >>> dict(extract([ColorHistogram()], patches, store=store).computed)
    {'color': 0}
    >>> [(entry.family, entry.n_images) for entry in store.entries()]
    [('color', 2)]
    """

    def __init__(self, path: str | PathLike):
        self.path = fspath(path)

    def __repr__(self) -> str:
        return f"FeatureStore({self.path!r})"

    def __eq__(self, other) -> bool:
        return isinstance(other, FeatureStore) and other.path == self.path

    def __hash__(self) -> int:
        return hash((FeatureStore, self.path))

    @contextmanager
    def session(self):
        """Open the file for a while, for any number of threads.

        Yields
        ------
        session : Session
            Reads and writes rows.

        Raises
        ------
        ValueError
            If the file is no feature store, or cannot be opened.
        """
        with closing(self._connect()) as connection:
            yield Session(connection)

    def entries(self) -> list[StoredExtractor]:
        """List what is stored, the largest first."""
        with self._existing() as connection:
            rows = connection.execute(
                "SELECT family, description, n_features, COUNT(image), COALESCE(SUM(LENGTH(row)), 0) AS n_bytes, "
                "computed FROM extractors LEFT JOIN features ON extractor = id GROUP BY id ORDER BY n_bytes DESC, id"
            ).fetchall()
        return [StoredExtractor(*row) for row in rows]

    def summary(self) -> str:
        """Describe the size of the file and of each extractor in it, as text for a person."""
        entries = self.entries()
        size = sum(path.stat().st_size for path in Path(self.path).parent.glob(Path(self.path).name + "*"))
        lines = [f"{self.path}: {size / 1e6:,.1f} MB, {len(entries)} extractors"]
        lines += [
            f"  {entry.family}: {entry.n_images:,} images x {entry.n_features:,} features, "
            f"{entry.n_bytes / 1e6:,.1f} MB, {entry.description}"
            for entry in entries
        ]
        return "\n".join(lines)

    def purge(self, family: str | None = None) -> int:
        """Remove stored rows and give the space back to the disk.

        Parameters
        ----------
        family : str, optional
            Only the extractors of this family; all of them where it is left out.

        Returns
        -------
        n_rows : int
            How many rows were removed.

        Raises
        ------
        ValueError
            If no extractor of that family is stored.
        """
        known = sorted({entry.family for entry in self.entries()})
        if family is not None and family not in known:
            raise ValueError(f"FeatureStore.purge: expected a stored family ({', '.join(known)}), got {family!r}.")
        chosen = known if family is None else [family]
        with self._existing() as connection:
            marks = ", ".join("?" * len(chosen))
            ids = f"SELECT id FROM extractors WHERE family IN ({marks})"
            removed = connection.execute(f"DELETE FROM features WHERE extractor IN ({ids})", chosen).rowcount
            connection.execute(f"DELETE FROM extractors WHERE family IN ({marks})", chosen)
            connection.execute("VACUUM")
        return removed

    @contextmanager
    def _existing(self):
        with closing(self._connect()) as connection:
            yield connection

    def _connect(self) -> sqlite3.Connection:
        path = Path(self.path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Transactions are begun by hand: one a batch. Threads share a connection under a session's lock.
            connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise ValueError(
                f"FeatureStore({self.path!r}): expected a file that can be written, got: {error}. Give another path."
            ) from error
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # In WAL mode this is safe against a killed process; a power cut may lose the last batches, never more.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            connection.close()
            raise ValueError(
                f"FeatureStore({self.path!r}): expected a feature store or no file, got: {error}. "
                "Give another path, or remove the file: it only saves time."
            ) from error
        return connection


class Session:
    """An open store: rows in and out, from any thread."""

    def __init__(self, connection: sqlite3.Connection):
        self._connection = connection
        self._lock = threading.Lock()

    def register(self, family: str, n_features: int, params: Mapping, name: str) -> int:
        """Number by which this store knows an extractor, made at its first use."""
        fingerprint, description = extractor_fingerprint(name, params)
        with self._lock:
            self._connection.execute(
                "INSERT OR IGNORE INTO extractors (fingerprint, family, description, n_features) VALUES (?, ?, ?, ?)",
                (fingerprint, family, description, n_features),
            )
            query = "SELECT id FROM extractors WHERE fingerprint = ?"
            return self._connection.execute(query, (fingerprint,)).fetchone()[0]

    def read(self, extractor: int, images: Sequence[bytes], n_features: int) -> dict[bytes, np.ndarray]:
        """Stored rows of some images, by key; rows of a wrong length count as not stored."""
        found: dict[bytes, np.ndarray] = {}
        for start in range(0, len(images), _QUERY_SIZE):
            part = images[start : start + _QUERY_SIZE]
            query = f"SELECT image, row FROM features WHERE extractor = ? AND image IN ({', '.join('?' * len(part))})"
            with self._lock:
                rows = self._connection.execute(query, (extractor, *part)).fetchall()
            found.update((image, np.frombuffer(row, dtype="<f4")) for image, row in rows if len(row) == 4 * n_features)
        return found

    def write(self, batch: Iterable[tuple[int, Sequence[bytes], np.ndarray]]) -> None:
        """Write the rows of a batch, ``(extractor, images, rows)`` each, all of them or none."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for extractor, images, rows in batch:
                    self._connection.executemany(
                        "INSERT OR REPLACE INTO features (extractor, image, row) VALUES (?, ?, ?)",
                        [(extractor, key, row.astype("<f4").tobytes()) for key, row in zip(images, rows, strict=True)],
                    )
                    self._connection.execute(
                        "UPDATE extractors SET computed = computed + ? WHERE id = ?", (len(images), extractor)
                    )
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise


def as_store(store) -> FeatureStore | None:
    """Take a path or a `FeatureStore`; None stays None.

    Raises
    ------
    ValueError
        If it is something else.
    """
    if store is None or isinstance(store, FeatureStore):
        return store
    if isinstance(store, str | PathLike):
        return FeatureStore(store)
    raise ValueError(f"store: expected a path or a FeatureStore, got {store!r:.60}. Give the path of a file.")
