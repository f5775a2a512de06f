"""Measure a data set shard by shard, one a patient: each is written whole, and skipped when it is there."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

from histofeat.datasets import PatchDataset, holds_shard, list_shards, open_shards, printable, store_shard
from histofeat.exceptions import counted
from histofeat.features._columns import built_families
from histofeat.features._extraction import extract
from histofeat.features._runtime import Runtime
from histofeat.features._store_session import extractor_fingerprint, extractor_name


@dataclass(frozen=True, eq=False)
class ShardTask:
    """What `write_shard` measures: the patches of one patient. It can be pickled and depends on no other task.

    Parameters
    ----------
    place : Path
        The folder of the shard.
    images : ndarray of shape (n,)
        Paths, or images in memory.
    patches : DataFrame of shape (n, d)
        What is known of them.
    families : sequence of PatchFeatures
    key : str
        The version of the shards: of images, labels and features.
    runtime : Runtime
        Threads, store, and what is done about images that cannot be read.
    """

    place: Path
    images: np.ndarray
    patches: pd.DataFrame
    families: Any
    key: str
    runtime: Runtime

    @property
    def done(self) -> bool:
        """Whether the shard is there; a `DatasetError` if it is one of another version."""
        return holds_shard(self.place, self.key)


def shard_tasks(
    dataset: PatchDataset, features: Any, folder: str | Path, *, runtime: Runtime | None = None
) -> list[ShardTask]:
    """Divide the extraction of a data set into tasks, one a patient, and list them in a folder.

    Parameters
    ----------
    dataset : PatchDataset
        With images.
    features : str, estimator, or sequence of these
        Families, as for `extract_features`.
    folder : path
        Where the shards will be, as subfolders; it is made. One with shards of the same images and features is gone on
        with.
    runtime : Runtime, optional
        Threads, store, and what is done about images that cannot be read; its progress and ledger are not passed on.

    Returns
    -------
    tasks : list of ShardTask
        In the order in which patients come first in the data set, those that are done too.

    Raises
    ------
    DatasetError
        If there are no images, or the folder has shards of other images, labels or features.
    OSError
        If the folder cannot be written.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from histofeat import make_cohort
    >>> folder = Path(mkdtemp()) / "gray"
    >>> tasks = shard_tasks(make_cohort(n_patients=2, patches_per_patient=4), "gray", folder)
    >>> [write_shard(task).name for task in tasks], all(task.done for task in tasks)
    (['00000', '00001'], True)
    >>> open_features(folder).columns.shape
    (8, 256)
    """
    dataset.require_images("shard_tasks")
    folder, (families, columns) = Path(folder), built_families(features)
    known = dataset.frame.assign(path=[printable(path) for path in dataset.relative_paths])
    known["patient"] = known["patient"].map(printable)
    facts = {"name": dataset.name, "target_names": list(dataset.target_names), "positive": dataset.positive}
    facts |= {"mpp": dataset.mpp, "synthetic": dataset.synthetic, "labels_per": dataset.labels_per}
    made_of = [extractor_fingerprint(extractor_name(one), one._fingerprint() or {})[0] for one in families]
    made_of += [columns.tolist(), facts, pd.util.hash_pandas_object(known[["path", "label", "patient"]]).to_numpy()]
    codes, patients = pd.factorize(dataset.patients)
    listed = {
        "key": joblib.hash(made_of),
        "families": [family.family for family in families],
        "shards": {f"{number:05}": printable(patient) for number, patient in enumerate(patients)},
        "dataset": facts,
        "columns": columns.tolist(),
    }
    list_shards(folder, listed)
    rows, images = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1]), dataset.X
    common = families, listed["key"], replace(Runtime.of(runtime), progress=False, ledger=None)
    return [
        ShardTask(folder / name, images[of], known.iloc[of].reset_index(drop=True), *common)
        for name, of in zip(listed["shards"], rows, strict=True)
    ]


def write_shard(task: ShardTask) -> Path:
    """Measure the patches of a task and write its shard, whole or not at all; one that is there is left as it is.

    Parameters
    ----------
    task : ShardTask
        One of `shard_tasks`; any process may take it, and two processes the same.

    Returns
    -------
    shard : Path
        Its folder: features (``features.npy``), what is known of the patches, and the record that it is done.

    Raises
    ------
    PatchError
        If an image cannot be read; with ``Runtime(on_error="skip")`` it is left out and named in the record.
    DatasetError
        If a shard of another version is there, no image is left, or a feature is not finite.
    OSError
        If the disk is full: finished shards stay.

    Warns
    -----
    UserWarning
        With the number of images that were left out.
    """
    if not task.done:
        settings = {"n_jobs": task.runtime.n_jobs, "store": task.runtime.store, "on_error": task.runtime.on_error}
        found = extract(task.families, task.images, **settings)
        lost = {task.patches["path"][row]: printable(why) for row, why in found.failures.items()}
        if lost:
            first = ": ".join(next(iter(lost.items())))
            warnings.warn(f"{task.place}: {counted(len(lost), 'image')} left out, the first {first}", stacklevel=2)
        kept = ~task.patches["path"].isin(lost).to_numpy()
        facts = {"conversions": dict(found.conversions), "failures": list(lost.items())}
        store_shard(task.place, task.key, np.hstack(found.features)[kept], task.patches[kept], **facts)
    return task.place


def open_features(folder: str | Path) -> PatchDataset:
    """Open a folder of shards, as `histofeat extract --output DIR` writes them, as a data set with columns.

    Columns stay on disk: rows are read by blocks, when they are asked for. `histofeat.load_embeddings` takes such a
    folder too, and gives it other classes.

    Parameters
    ----------
    folder : path

    Returns
    -------
    dataset : PatchDataset
        ``dataset.columns[rows]`` reads rows; ``dataset.subset`` and ``dataset.columns.take`` read none.

    Raises
    ------
    DatasetError
        If this is no such folder, a shard is missing, or is of another version.
    """
    return open_shards(Path(folder))
