"""`FeatureStore`: features on disk, one row per image content and extractor, safe against kills and second writers."""

import functools
import os
import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histofeat.datasets import printable
from histofeat.exceptions import check_that
from histofeat.features import _store_session
from histofeat.features._store_session import Session, check_not_inherited, in_words
from histofeat.images import as_images

#: Written into the header of the file, so that no other program's database is mistaken for a store.
_APPLICATION = int.from_bytes(b"hfst")


#: Raised with every change of what the file holds. Rows of layout 1 had no checksum.
_LAYOUT = 2


_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS extractors (
    id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, family TEXT NOT NULL, description TEXT NOT NULL,
    n_features INTEGER NOT NULL, computed INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS images (id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS features (id INTEGER PRIMARY KEY, row BLOB NOT NULL);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_LAYOUT};
"""


#: Reading takes the same time at any size of page and with mapped memory; three embeddings fill one of this size.
_PAGE_BYTES = 1 << 14


#: The log is copied into the file when it has grown to this: rarely, because pages of the index are in it many times.
_LOG_BYTES = 1 << 26


@dataclass(frozen=True)
class FeatureStore:
    """Features on disk, keyed by image content and by everything that the extractor's values depend on.

    The object holds only a path, so it can be cloned, pickled and used by several processes. Each batch of rows is
    written in one transaction, so a process that is killed loses at most the batches in flight.

    Parameters
    ----------
    path : path-like
        The SQLite file; it and its folder are created when first needed.

    Notes
    -----
    SQLite in write-ahead mode (https://www.sqlite.org/wal.html): readers and one writer at a time, on a local disk. On
    a network file system its locks may fail; keep the store on the machine that computes. While it is open, two more
    files with ``-wal`` and ``-shm`` after its name belong to it. A file that cannot be written is only read.

    Each row ends with a CRC-32 over the image's key, the extractor's fingerprint and the values. A row that does not
    match it counts as not stored; a warning says how many. A store that fails while it is used (disk full, locked,
    removed, damaged) is left with one warning, and the images are measured instead.

    Processes that start on the same images at the same time may each measure them; one row is kept. Measure once with
    `IDCPipeline.transform` before a search in several processes, so that they only read.

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

    path: str | PathLike[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", fspath(self.path))

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open the file, for any number of threads.

        Yields
        ------
        session : Session
            Reads and writes rows.

        Raises
        ------
        ValueError
            If the file is no feature store, is damaged, or can neither be read nor made.

        Warns
        -----
        RuntimeWarning
            If it fails later, or if rows in it do not match their checksums.
        """
        real_path = os.path.realpath(self.path)
        check_not_inherited(real_path)
        with ExitStack() as stack:
            with in_words(self.path):
                Path(real_path).parent.mkdir(parents=True, exist_ok=True)
                connection = _connect(real_path)
                session = Session(connection, self.path)
                stack.callback(session.close)
                _prepare(connection, self.path)
                session.begin()
            _opened.add((os.getpid(), real_path))
            yield session
            session.say_damage()

    def entries(self) -> list[_store_session.StoredExtractor]:
        """List the stored extractors, the largest first; there are none without a file."""
        if not Path(self.path).exists():
            return []
        with self.session() as session:
            found = session.sizes()
        return sorted(found, key=lambda entry: -entry.n_bytes)

    def summary(self) -> str:
        """Size of the file and of each extractor in it, as text."""
        entries = self.entries()
        files = [Path(f"{self.path}{ending}") for ending in ("", "-wal", "-shm")]
        size = sum(file.stat().st_size for file in files if file.exists())
        lines = [f"{self.path}: {size / 1e6:,.1f} MB, {len(entries)} extractors"]
        lines += [
            f"  {entry.family}: {entry.n_images:,} images x {entry.n_features:,} features, "
            f"{entry.n_bytes / 1e6:,.1f} MB, {entry.description}"
            for entry in entries
        ]
        return "\n".join(lines)

    def to_frame(self, family: Any, X: Any) -> pd.DataFrame:
        """Read stored features of images; nothing is measured.

        Parameters
        ----------
        family : PatchFeatures
            An estimator with the parameters that the features were measured with.
        X : sequence of paths, ndarray (n, H, W, 3) uint8, list of such arrays, or DataFrame with a ``path`` column
            The images: their contents are hashed, and not decoded.

        Returns
        -------
        frame : DataFrame of shape (n, d), float32
            Named columns, the names of the images as index; a row of NaN for an image that is not stored.

        Raises
        ------
        PatchError
            If `X` has an unknown form, or an image cannot be read.
        ValueError
            If the store cannot be read.

        Examples
        --------
        >>> import tempfile
        >>> from histofeat import ColorHistogram, PatchUnion, make_cohort
        >>> cohort, store = make_cohort(n_patients=2, patches_per_patient=4), tempfile.mkdtemp() + "/features.sqlite"
        >>> measured = PatchUnion([ColorHistogram()], store=store).transform(cohort.X[:5])
        >>> int(FeatureStore(store).to_frame(ColorHistogram(), cohort.X).notna().all(axis=1).sum())
        5
        """
        images, columns, found = as_images(X), family.get_feature_names_out(), {}
        names, keys = pd.Index([printable(images.name(row)) for row in range(len(images))], name="image"), []
        params = None if hasattr(family, "given") else family._fingerprint()
        if params is not None:  # others are never kept
            keys = [_store_session.content_key(images.content(row)) for row in range(len(images))]
            with session_of_a_run(self) as session:
                if session is not None:
                    extractor = session.register(
                        family.family, len(columns), params, _store_session.extractor_name(family)
                    )
                    found = session.read(extractor, keys, len(columns))
        nothing = np.full(len(columns), np.nan, dtype=np.float32)
        return pd.DataFrame([found.get(key, nothing) for key in keys or names], names, columns)

    def purge(self, family: str | None = None) -> int:
        """Remove stored rows and free their disk space.

        Parameters
        ----------
        family : str, optional
            Only the extractors of this family, of all versions; all families where it is left out.

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
        expected = f"a stored family ({', '.join(known) or 'none is stored'})"
        check_that("FeatureStore.purge", family, family in (None, *known), expected, "Correct the name.")
        if not known:
            return 0
        with self.session() as session:
            return session.purge(known if family is None else [family])


#: Files that were open before, each with the process; another attempt belongs to the same work.
_opened: set[tuple[int, str]] = set()


@contextmanager
def session_of_a_run(store: "FeatureStore | None") -> Iterator[Session | None]:
    """Open the store of an extraction, if it has one.

    A store that this process has had open and that cannot be opened again is left out with a warning, because work of
    hours may stand before: only the first opening is refused.
    """
    with ExitStack() as stack:
        try:
            session = store and stack.enter_context(store.session())
        except ValueError as error:
            if (os.getpid(), os.path.realpath(store.path)) not in _opened:
                raise
            warnings.warn(f"{error} The run goes on without it.", RuntimeWarning, stacklevel=4)
            session = None
        yield session


def _connect(real_path: str) -> sqlite3.Connection:
    # Transactions are begun by hand, and threads take turns.
    options = {"timeout": _store_session.BUSY_TIMEOUT_S, "isolation_level": None, "check_same_thread": False}
    file = Path(real_path)
    if not file.is_file() or (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
        return sqlite3.connect(real_path, **options)
    # To read, SQLite wants to write two files beside it, unless it may take for granted that nobody writes.
    mode = "mode=ro" if Path(f"{real_path}-wal").exists() else "immutable=1"
    return sqlite3.connect(f"{file.as_uri()}?{mode}", uri=True, **options)


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    # In this order, what another process makes in between cannot look like a foreign database.
    schema = _schema(connection)
    application, layout = connection.execute("SELECT * FROM pragma_application_id, pragma_user_version").fetchone()
    if schema and application != _APPLICATION:
        raise ValueError(
            f"FeatureStore({path!r}): expected a feature store or no file, got another program's SQLite database of "
            f"{len(schema)} tables and indices. Give another path."
        )
    if schema and layout != _LAYOUT:
        raise ValueError(
            f"FeatureStore({path!r}): expected layout {_LAYOUT}, got {layout}, of another version of histofeat. "
            "Give another path, or remove the file: that only costs time."
        )
    if not schema:
        _create(connection)
    elif odd := sorted(schema ^ _own_schema()):
        raise ValueError(
            f"FeatureStore({path!r}): expected the tables of a feature store and nothing else, got a {odd[0][0]} "
            f"{odd[0][1]!r:.80} that is missing, foreign or of another form. Give another path, or remove the file: "
            "that only costs time."
        )
    # In WAL mode this is safe against a killed process; a power cut may lose the last batches, never more.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_BYTES // _PAGE_BYTES}")


def _schema(connection: sqlite3.Connection) -> frozenset[tuple]:
    """Every table, index, view and trigger with the words that made it, without the statistics of ANALYZE."""
    found = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")
    whole = {tuple(" ".join(str(word).split()) for word in row) for row in found}
    return frozenset(row for row in whole if not row[1].startswith("sqlite_stat"))


@functools.cache
def _own_schema() -> frozenset[tuple]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_SCHEMA)
        return _schema(connection)


def _create(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    give_up = time.monotonic() + _store_session.BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            # Of two processes that make the file at once, SQLite refuses one without waiting.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.005)
    connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")


#: What is accepted as a store.
StoreLike = str | PathLike[str] | FeatureStore


def as_store(store: StoreLike | None) -> FeatureStore | None:
    """Take a path or a `FeatureStore`; None stays None.

    Raises
    ------
    ValueError
        If it is something else.
    """
    if store is None or hasattr(store, "session"):
        return store
    check_that(
        "store", store, isinstance(store, str | PathLike), "a path or a FeatureStore", "Give the path of a file."
    )
    return FeatureStore(store)
