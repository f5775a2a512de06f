"""`FeatureStore`: features on disk, one row per image content and extractor, safe against kills and second writers."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

from histofeat.features._store_session import Session, open_session


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
        """Bytes of the rows."""
        return 4 * self.n_features * self.n_images


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
    files with ``-wal`` and ``-shm`` after its name belong to it.

    Processes that start on the same images at the same time may each measure them; one row is kept. Measure once with
    `IDCPipeline.transform_features` before a search in several processes, so that they only read.

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

    def session(self) -> AbstractContextManager[Session]:
        """Open the file, for any number of threads.

        Returns
        -------
        session : context manager that gives a Session
            Reads and writes rows.

        Raises
        ------
        ValueError
            If the file is no feature store, is damaged, or cannot be written; also later, while it is open.
        """
        return open_session(self.path)

    def entries(self) -> list[StoredExtractor]:
        """List the stored extractors, the largest first; there are none without a file."""
        if not Path(self.path).exists():
            return []
        with self.session() as session:
            found = [StoredExtractor(*row) for row in session.sizes()]
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
        if family is not None and family not in known:
            raise ValueError(
                f"FeatureStore.purge: expected a stored family ({', '.join(known) or 'none is stored'}), got "
                f"{family!r}. Leave it out to remove everything."
            )
        if not known:
            return 0
        with self.session() as session:
            return session.purge(known if family is None else [family])


#: What is accepted as a store.
StoreLike = str | PathLike[str] | FeatureStore


def as_store(store: StoreLike | None) -> FeatureStore | None:
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
