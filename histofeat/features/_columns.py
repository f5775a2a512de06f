"""Columns in and out: given embeddings and transformers of scikit-learn as families, and features as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from histofeat.datasets import PatchDataset, match_rows, printable
from histofeat.exceptions import check_that
from histofeat.features._base import PatchFeatures, PatchUnion
from histofeat.features._batch import PatchBatch
from histofeat.features._extraction import extract
from histofeat.features._families import make_family
from histofeat.features._image_fingerprint import leave_out_unreadable
from histofeat.features._runtime import Runtime
from histofeat.images import Images, StainNormalizer, make_normalizer, normalized_images


@dataclass(eq=False, repr=False)
class GivenColumns(PatchFeatures):
    """A family whose columns are given, such as embeddings from a file: it finds the rows of patches, and reads none.

    ``IDCPipeline(features=("color", embeddings))`` makes one of what `histofeat.load_embeddings` returns.

    Parameters
    ----------
    rows : PatchDataset
        A data set with columns. Patches are found in it by path or file name, in `histofeat.evaluate` also by patient
        and place; see `histofeat.datasets.match_rows`. A patch without a row is refused.

    Examples
    --------
    >>> from histofeat import make_cohort
    >>> from dataclasses import replace
    >>> cohort = make_cohort(n_patients=2, patches_per_patient=4)
    >>> rows = replace(cohort, columns=pd.DataFrame({"f0": range(8)}), name="mine")
    >>> GivenColumns(rows).transform(cohort.X[[5, 2]]).tolist()
    [[5.0], [2.0]]
    """

    is_embedding = True

    rows: PatchDataset

    @property
    def family(self) -> str:
        """The name of the columns, or of their data set."""
        return self.rows.columns.columns.name or self.rows.name

    def bind(self, dataset: PatchDataset) -> None:
        """Find the rows of all patches of a data set, by patient and place too, before any image is read.

        Raises
        ------
        DatasetError
            If a patch has no row; the message names the first.
        """
        if not dataset.frame["path"].equals(self.rows.frame["path"]):
            found = match_rows(self.rows.frame, dataset.frame, f"features {self.family!r}")
            self._row_of: Mapping[str, int] = dict(zip(dataset.frame["path"], found, strict=True))

    def given(self, images: Images) -> Any:
        """Columns of images by their names, float32 of shape (n, d), an array or columns of shards."""
        columns, paths = self.rows.columns, self.rows.frame["path"]
        columns = columns.to_numpy(np.float32) if isinstance(columns, pd.DataFrame) else columns
        if images.on_disk and len(images) == len(paths) and (pd.Series(images.items, dtype=paths.dtype) == paths).all():
            return columns
        names, row_of = [images.name(row) for row in range(len(images))], getattr(self, "_row_of", {})
        if not row_of.keys() >= set(names):
            wanted = pd.DataFrame({"path": list(dict.fromkeys(names))})
            found = match_rows(self.rows.frame, wanted, f"features {self.family!r}")
            row_of = dict(zip(wanted["path"], found, strict=True))
        return columns.take([row_of[name] for name in names], axis=0)

    def _check_params(self) -> None:
        fits = isinstance(self.rows, PatchDataset) and self.rows.columns is not None
        check_that("GivenColumns.rows", self.rows, fits, "a data set with columns", "Use load_embeddings.")

    def _feature_names(self) -> list[str]:
        return [f"{self.family}_{name}" for name in self.rows.columns.columns]


@dataclass(eq=False, repr=False)
class ImageTransformer(PatchFeatures):
    """A transformer of scikit-learn on images as a feature family: ``IDCPipeline(features=[transformer])`` makes one.

    Parameters
    ----------
    transformer : estimator
        Its ``transform`` takes images (n, H, W, 3) uint8 of one size, and gives (n, d) numbers. It learns nothing: it
        has to work without ``fit``, and in several threads at once. Where it has an attribute ``cache_key``, a text
        that changes when its numbers do, these are kept in the store; else they are measured each time.

    Examples
    --------
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> family = ImageTransformer(FunctionTransformer(lambda images: images.mean(axis=(1, 2))))
    >>> family.transform(np.full((1, 8, 8, 3), 7, dtype=np.uint8)).tolist(), family.get_feature_names_out()[0]
    ([[7.0, 7.0, 7.0]], 'FunctionTransformer_0')
    """

    is_embedding = True

    transformer: Any

    @property
    def family(self) -> str:
        """The name of the class of the transformer."""
        return type(self.transformer).__name__

    def _check_params(self) -> None:
        """There are none: it is tried when its columns are named."""

    def _fingerprint(self) -> dict[str, Any] | None:
        key, kind = getattr(self.transformer, "cache_key", None), type(self.transformer)
        return None if key is None else {"transformer": f"{kind.__module__}.{kind.__qualname__}", "key": key}

    def _feature_names(self) -> list[str]:
        width = self._values(np.full((1, 50, 50, 3), 128, dtype=np.uint8)).shape[1]
        try:
            names = list(self.transformer.get_feature_names_out())
        except (AttributeError, ValueError):
            names = []
        return names if len(names) == width else [f"{self.family}_{number}" for number in range(width)]

    def _compute(self, batch: PatchBatch) -> np.ndarray:
        return self._values(batch.rgb)

    def _values(self, images: np.ndarray) -> np.ndarray:
        try:
            values = np.asarray(self.transformer.transform(images), dtype=np.float32)
        except NotFittedError as error:
            raise ValueError(
                f"features {self.family!r}: expected a transformer that works without fit, got: {error!s:.80} Put what "
                "learns into a scikit-learn pipeline with a classifier, which evaluate fits in each fold."
            ) from error
        fits, expected = values.ndim == 2 and len(values) == len(images), f"numbers of shape ({len(images)}, d)"
        check_that(f"features {self.family!r}", values.shape, fits, expected, "Return a row for each image.")
        return values


def as_family(entry: Any) -> Any:
    """Give an entry of ``features`` as a family: a data set of columns, or a transformer of images; others as they are.

    Examples
    --------
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> as_family("color"), as_family(FunctionTransformer()).family
    ('color', 'FunctionTransformer')
    """
    if isinstance(entry, PatchDataset):
        return GivenColumns(entry)
    is_own = isinstance(entry, PatchFeatures | type) or not hasattr(entry, "transform")
    return entry if is_own else ImageTransformer(entry)


def built_families(features: Any) -> tuple[list[PatchFeatures], np.ndarray]:
    """Give what is named as ``features`` as families with their columns; a network without weights is refused here."""
    named = [features] if isinstance(features, str) or not isinstance(features, Sequence) else features
    families = [make_family(entry) if isinstance(entry, str) else as_family(entry) for entry in named]
    columns = PatchUnion(families).get_feature_names_out()
    extract([family for family in families if not family._threaded], np.zeros((1, 50, 50, 3), dtype=np.uint8))
    return families, columns


def extract_features(
    dataset: PatchDataset,
    features: str | PatchFeatures | Sequence[str | PatchFeatures] = ("color", "lbp", "haralick"),
    *,
    normalizer: str | StainNormalizer | None = None,
    runtime: Runtime | None = None,
) -> pd.DataFrame:
    """Measure the patches of a data set, as a table for other programs.

    Parameters
    ----------
    dataset : PatchDataset
        The patches.
    features : str, estimator, or sequence of these
        Families: names of `FAMILIES`, estimators such as ``LBPHistogram(radii_px=(1, 2))``, transformers of images, or
        a data set of columns.
    normalizer : {"reinhard", "macenko"}, estimator or None
        Stain normaliser before all families. It is fitted on all patches: for an evaluation give it to the pipeline,
        which fits it on training patients.
    runtime : Runtime, optional
        Threads, feature store, progress ("extract") and what is done about images that cannot be read.

    Returns
    -------
    frame : DataFrame
        A row for each patch in the order of the data set: "path", "patient", "label" (the name of the class), "x" and
        "y" (where known), and the named features, float32. ``frame.attrs`` has "conversions", how many images were
        converted in which way, and "failures", pairs of the path and the reason of images that were left out.

    Raises
    ------
    ValueError
        If a name is unknown, or two families have columns of the same name.
    WeightsError
        If the weights of a network are not found: like names, before an image is read.
    PatchError
        If an image cannot be read; with ``Runtime(on_error="skip")`` it is left out.

    Warns
    -----
    UserWarning
        With the share of images that were left out.

    Examples
    --------
    >>> from histofeat import make_cohort
    >>> frame = extract_features(make_cohort(n_patients=2, patches_per_patient=4), ["gray"])
    >>> frame.shape, frame.columns[:6].tolist()
    ((8, 261), ['path', 'patient', 'label', 'x', 'y', 'gray_hist_000'])
    """
    families, columns = built_families(features)
    normalizer = make_normalizer(normalizer) if isinstance(normalizer, str) else normalizer and clone(normalizer)
    dataset, _, runtime = leave_out_unreadable(dataset, None, runtime)
    images = dataset.X
    if normalizer is not None:
        fitted = normalizer.fit(images, groups=dataset.patients)
        images = normalized_images(images, fitted, groups=dataset.patients)
    progress, away = partial(runtime.report, "extract"), {"cluster": runtime.cluster}
    found = extract(families, images, n_jobs=runtime.n_jobs, store=runtime.store, progress=progress, **away)
    known = dataset.frame[["path", "patient", "label", "x", "y"]].dropna(axis="columns", how="all")
    names = pd.Series([printable(name) for name in dataset.target_names])
    known = known.assign(label=known["label"].map(names), **known[["path", "patient"]].map(printable))
    frame = pd.concat([known, pd.DataFrame(np.hstack(found.features), columns=columns)], axis="columns")
    failures = [[printable(text) for text in pair] for pair in dataset.audit.failures]
    frame.attrs = {"conversions": dict(found.conversions), "failures": failures}
    return frame
