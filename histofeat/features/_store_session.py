"""An open feature store: reading, checking and writing rows, keys of images and families."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# The id of a row is that of its extractor and that of its image. New rows of an extractor therefore go to the end of
# its part of one tree, and hashes, which fall anywhere, into one small index for all extractors: at 100,000 images and
# four families half the time to write, and a third of the bytes, of a table with (extractor, hash) as its key.
IMAGE_BITS = 40


# A query looks its ids up itself, and a batch in its own transaction, so that a purge by another process in between
# cannot make it read or write foreign rows.
# What damage has made a text or a number is cast, so that it comes as bytes and fails its checksum.
_READ = f"""
SELECT hash, CAST(row AS BLOB) FROM images JOIN features
    ON features.id = ((SELECT id FROM extractors WHERE fingerprint = ?) << {IMAGE_BITS}) + images.id
WHERE hash IN
"""


#: Another writer holds the file for one batch at a time, so waiting this long means that it hangs.
BUSY_TIMEOUT_S = 10.0


CHECKSUM_BYTES = 4

#: CRC-32 of any bytes that are followed by their own CRC-32, the lowest byte first.
_RESIDUE = 0x2144DF1C


#: Values in one query; below the limit of every SQLite build.
_QUERY_SIZE = 500


#: Open sessions of this process, and in a forked child those of its parent too.
_open: set[Session] = set()


def check_not_inherited(real_path: str) -> None:
    """Refuse a file that was open when this process was forked: SQLite believes that it holds its parent's locks."""
    for session in tuple(_open):
        if session.process != os.getpid() and session.real_path == real_path:
            raise ValueError(
                f"FeatureStore({session.path!r}): expected to be closed when a process forks, got a child of process "
                f"{session.process}, which had it open. Start processes before the extraction, or by 'spawn'."
            )


#: What a file raises that is damaged or cannot be used: text that is none, and sizes that no memory holds, among it.
_FAULTS = (OSError, sqlite3.Error, UnicodeDecodeError, MemoryError)
_REMEDIES = {
    sqlite3.SQLITE_BUSY: "Another process holds it: wait for it or end it, or give another path.",
    sqlite3.SQLITE_READONLY: "Use it where it can be written, or give another path.",
    sqlite3.SQLITE_FULL: "Make room on the disk, or give another path.",
}


def _words(path: str, error: Exception) -> str:
    remedy = _REMEDIES.get(
        getattr(error, "sqlite_errorcode", 0) & 0xFF,
        "Give another path; or remove the file if it is a damaged store, which only costs the time to measure again.",
    )
    got = " ".join(str(error).split()) or type(error).__name__
    return f"FeatureStore({path!r}): expected a feature store that can be read and written, got: {got}. {remedy}"


@contextmanager
def in_words(path: str) -> Iterator[None]:
    """Raise errors of SQLite and the file system as a `ValueError` that names the file."""
    try:
        yield
    except _FAULTS as error:
        raise ValueError(_words(path, error)) from error


def sealed(fingerprint: str, image: bytes, row: bytes) -> bytes:
    """Return the bytes of a row with their checksum, which depends on its extractor and its image too.

    CRC-32, because it is kept, is in Python, finds every damage of up to 32 bits in a row and all but one in 4e9 of
    the others, and takes a third of the time of the fastest hash of :mod:`hashlib`.
    """
    checksum = zlib.crc32(row, zlib.crc32(image, zlib.crc32(fingerprint.encode())))
    return row + checksum.to_bytes(CHECKSUM_BYTES, "little")


@dataclass(frozen=True)
class _Extractor:
    """An extractor as the store knows it."""

    fingerprint: str
    description: str
    family: str
    n_features: int


@dataclass(frozen=True)
class StoredExtractor:
    """Size of one extractor in a store.

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
    computed : int
        Number of images ever measured for it; more than `n_images` if processes measured the same images at the same
        time, or two files have the same content.
    """

    family: str
    description: str
    n_features: int
    n_images: int
    computed: int

    @property
    def n_bytes(self) -> int:
        """Bytes of the values."""
        return 4 * self.n_features * self.n_images


class Session:
    """An open store: rows in and out, from any thread of the process that opened it.

    Parameters
    ----------
    connection : sqlite3.Connection
        The open file.
    path : str
        Its name, for messages.
    """

    def __init__(self, connection: sqlite3.Connection, path: str):
        self.path = path
        self.real_path = os.path.realpath(path)
        self.process = os.getpid()
        self._connection = connection
        self._lock = threading.Lock()
        self._reads, self._writes, self._n_damaged = True, True, 0
        _open.add(self)

    def begin(self) -> None:
        """Read what has to be sound before the first image."""
        self._connection.execute("SELECT * FROM extractors").fetchall()
        self._file = Path(self.real_path).stat()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
        _open.discard(self)

    def say_damage(self) -> None:
        """Warn of rows that did not match their checksums, if there were some."""
        if self._n_damaged:
            warnings.warn(
                f"FeatureStore({self.path!r}): expected rows that match their checksums, got {self._n_damaged:,} that "
                "do not. They were measured again; check the disk.",
                RuntimeWarning,
                stacklevel=2,
            )

    @staticmethod
    def register(family: str, n_features: int, params: Mapping, name: str) -> _Extractor:
        """Return the record that identifies an extractor for `read` and `write`; `write` adds it to the file."""
        return _Extractor(*extractor_fingerprint(name, params), family, n_features)

    def read(self, extractor: _Extractor, images: Sequence[bytes], n_features: int) -> dict[bytes, np.ndarray]:
        """Stored rows of some images, by key; only those that match their checksum."""
        fingerprint = extractor.fingerprint
        found: list[tuple[bytes, bytes]] = []
        for start in range(0, len(images), _QUERY_SIZE):
            part = images[start : start + _QUERY_SIZE]
            marks = ", ".join("?" * len(part))
            with self._while_it_works(reading=True) as connection:
                if self._reads:
                    found += connection.execute(f"{_READ} ({marks})", (fingerprint, *part)).fetchall()
        start, size = zlib.crc32(fingerprint.encode()), 4 * n_features + CHECKSUM_BYTES
        rows = {
            image: np.frombuffer(row, dtype="<f4", count=n_features)
            for image, row in found
            if isinstance(image, bytes)
            and isinstance(row, bytes)  # a damaged file gives what it likes
            and len(row) == size
            and zlib.crc32(row, zlib.crc32(image, start)) == _RESIDUE
        }
        if len(rows) < len(found):
            with self._lock:
                self._n_damaged += len(found) - len(rows)
        return rows

    def write(self, batch: Sequence[tuple[_Extractor, Sequence[bytes], np.ndarray]]) -> None:
        """Write the rows of a batch, ``(extractor, images, rows)`` each, all of them or none."""
        with self._while_it_works(reading=False) as connection:
            if not self._writes:
                return
            if not os.path.samestat(self._file, Path(self.real_path).stat()):
                raise FileNotFoundError("another file has taken its place")
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                keys = [(image,) for image in dict.fromkeys(image for _, images, _ in batch for image in images)]
                connection.executemany("INSERT OR IGNORE INTO images (hash) VALUES (?)", keys)
                query = "SELECT id FROM images WHERE hash = ?"
                ids = {key[0]: connection.execute(query, key).fetchone()[0] for key in keys}
                for extractor, images, rows in batch:
                    if len(images):
                        self._insert(extractor, images, np.asarray(rows, dtype="<f4"), ids)

    def _insert(self, extractor: _Extractor, images: Sequence[bytes], rows: np.ndarray, ids: Mapping) -> None:
        known_by, execute = extractor.fingerprint, self._connection.execute
        execute(
            "INSERT OR IGNORE INTO extractors (fingerprint, family, description, n_features, computed) "
            "VALUES (?, ?, ?, ?, 0)",
            (known_by, extractor.family, extractor.description, extractor.n_features),
        )
        execute("UPDATE extractors SET computed = computed + ? WHERE fingerprint = ?", (len(images), known_by))
        first = execute("SELECT id FROM extractors WHERE fingerprint = ?", (known_by,)).fetchone()[0] << IMAGE_BITS
        new = [
            (first + ids[image], sealed(known_by, image, row.tobytes()))
            for image, row in zip(images, rows, strict=True)
        ]
        # Of single rows: a statement of several would first copy each page that it changes to another file.
        self._connection.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", new)

    def sizes(self) -> list[StoredExtractor]:
        """Size of every extractor."""
        n_rows = (
            f"SELECT COUNT(*) FROM features WHERE features.id >= extractors.id << {IMAGE_BITS} "
            f"AND features.id < extractors.id + 1 << {IMAGE_BITS}"
        )
        query = (
            "SELECT family, description, CAST(coalesce(n_features, 0) AS INTEGER), "
            f"({n_rows}), CAST(coalesce(computed, 0) AS INTEGER) FROM extractors ORDER BY id"
        )
        with self.connected() as connection:
            return [StoredExtractor(*row) for row in connection.execute(query)]

    def purge(self, families: Sequence[str]) -> int:
        """Remove the extractors of some families with their rows, shrink the file, and give the number of rows."""
        chosen = f"(SELECT id FROM extractors WHERE family IN ({', '.join('?' * len(families))}))"
        with self.connected() as connection:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                query = f"DELETE FROM features WHERE id >> {IMAGE_BITS} IN {chosen}"
                removed = connection.execute(query, families).rowcount
                connection.execute(f"DELETE FROM extractors WHERE id IN {chosen}", families)
                used = f"(SELECT id & {(1 << IMAGE_BITS) - 1} FROM features)"
                connection.execute(f"DELETE FROM images WHERE id NOT IN {used}")
            connection.execute("VACUUM")
        return removed

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        """The connection for one thread at a time, with its errors in words.

        Raises
        ------
        ValueError
            If the file is damaged, full or locked, or this process is a forked child of the one that opened it.
        """
        check_not_inherited(self.real_path)
        with self._lock, in_words(self.path):
            yield self._connection

    @contextmanager
    def _while_it_works(self, *, reading: bool) -> Iterator[sqlite3.Connection]:
        """The connection for one thread at a time; a file that fails is not used again, which one warning says.

        A file that cannot be written can still be read, so no stored row is measured again.
        """
        check_not_inherited(self.real_path)
        with self._lock:
            try:
                yield self._connection
            except _FAULTS as error:
                said = not self._writes
                self._reads, self._writes = self._reads and not reading, False
                if not said:
                    without = "reading or writing it" if reading else "writing to it"
                    words = f"{_words(self.path, error)} The run goes on without {without}."
                    warnings.warn(words, RuntimeWarning, stacklevel=4)


FEATURES_VERSION = 1
"""Version of all feature values and decoding rules; part of every key of a store.

To change any number that a family gives: raise this by one, write the change under "Numbers changed" in the changelog,
and run the whole test suite. Rows of older versions are then never read again; `FeatureStore.purge` removes them.
"""


def content_key(content: bytes | np.ndarray) -> bytes:
    """Hash the content of an image: the bytes of its file, or its array with shape and dtype.

    Parameters
    ----------
    content : bytes or ndarray
        The image as it came.

    Returns
    -------
    key : bytes of length 16
        BLAKE2b. Equal files have equal keys in any folder; a file and its decoded array have different ones.

    Examples
    --------
    >>> content_key(b"same") == content_key(b"same"), content_key(b"same") == content_key(b"other")
    (True, False)
    """
    if isinstance(content, np.ndarray):
        digest = hashlib.blake2b(f"{content.dtype} {content.shape} ".encode(), digest_size=16, person=b"array")
        digest.update(np.ascontiguousarray(content))
    else:
        digest = hashlib.blake2b(content, digest_size=16, person=b"file")
    return digest.digest()


def extractor_name(extractor: Any) -> str:
    """Name under which a store keeps the rows of an extractor.

    Parameters
    ----------
    extractor : PatchFeatures
        A feature family.

    Returns
    -------
    name : str
        The name of the family for histofeat's own classes, which may move to another module; module and class for all
        others, since two classes of one name are two extractors.

    Examples
    --------
    >>> from histofeat import PFTAS
    >>> extractor_name(PFTAS())
    'pftas'
    """
    module = type(extractor).__module__
    return extractor.family if module.startswith("histofeat.") else f"{module}.{type(extractor).__qualname__}"


def extractor_fingerprint(name: str, params: Mapping) -> tuple[str, str]:
    """Identify an extractor by everything that its numbers depend on.

    Parameters
    ----------
    name : str
        Name of the extractor, see `extractor_name`.
    params : mapping of str to None, bool, number, str, or lists, tuples, arrays and mappings of these
        Its parameters, and what else changes its numbers, such as the hash of a network's weights. A tuple, a list
        and an array of the same values are the same, as are a number of Python and of NumPy.

    Returns
    -------
    fingerprint : str
        Hash of name, parameters and `FEATURES_VERSION`.
    description : str
        The same as JSON that a person can read.

    Raises
    ------
    ValueError
        If a parameter is something else, which has no form that stays the same from run to run.

    Examples
    --------
    >>> extractor_fingerprint("LBPHistogram", {"radii_px": (1, 2)})[1]
    '{"extractor": "LBPHistogram", "radii_px": [1, 2], "version": 1}'
    """

    def plain(value):
        if isinstance(value, np.generic | np.ndarray):
            return value.tolist()
        raise ValueError(
            f"{name}: expected parameters of numbers, strings, lists and mappings, got {value!r:.80}. A store cannot "
            "recognise it in the next run: leave the store out, or give the family a `_fingerprint` of such values."
        )

    known_by = {"extractor": name, "version": FEATURES_VERSION, **params}
    description = json.dumps(known_by, sort_keys=True, default=plain)
    return hashlib.blake2b(description.encode(), digest_size=16).hexdigest(), description
