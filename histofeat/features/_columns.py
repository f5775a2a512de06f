"""Columns from elsewhere as feature families: given embeddings, and what a transformer of scikit-learn measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.exceptions import NotFittedError

from histofeat.datasets import PatchDataset, match_rows
from histofeat.features._base import PatchFeatures
from histofeat.features._batch import PatchBatch
from histofeat.images import Images


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

    rows: PatchDataset

    @property
    def family(self) -> str:
        """The name of the data set of columns."""
        return self.rows.name

    def bind(self, dataset: PatchDataset) -> None:
        """Find the rows of all patches of a data set, by patient and place too, before any image is read.

        Raises
        ------
        DatasetError
            If a patch has no row; the message names the first.
        """
        found = match_rows(self.rows.frame, dataset.frame, f"features {self.family!r}")
        self._row_of: Mapping[str, int] = dict(zip(dataset.frame["path"], found, strict=True))

    def given(self, images: Images) -> np.ndarray:
        """Columns of images by their names, float32 of shape (n, d)."""
        names, row_of = [images.name(row) for row in range(len(images))], getattr(self, "_row_of", {})
        if not row_of.keys() >= set(names):
            wanted = pd.DataFrame({"path": list(dict.fromkeys(names))})
            found = match_rows(self.rows.frame, wanted, f"features {self.family!r}")
            row_of = dict(zip(wanted["path"], found, strict=True))
        return self.rows.columns.to_numpy(np.float32)[[row_of[name] for name in names]]

    def _check_params(self) -> None:
        if not isinstance(self.rows, PatchDataset) or self.rows.columns is None:
            raise ValueError(
                f"GivenColumns.rows: expected a data set with columns, got {self.rows!r:.80}. Use load_embeddings."
            )

    def _feature_names(self) -> list[str]:
        return [f"{self.family}_{name}" for name in self.rows.columns]


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

    transformer: Any

    @property
    def family(self) -> str:
        """The name of the class of the transformer."""
        return type(self.transformer).__name__

    def _check_params(self) -> None:
        """There are none: it is tried when its columns are named."""

    def _fingerprint(self) -> dict[str, Any] | None:
        key = getattr(self.transformer, "cache_key", None)
        return (
            None if key is None else {"transformer": f"{type(self.transformer).__module__}.{self.family}", "key": key}
        )

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
        if values.ndim != 2 or len(values) != len(images):
            raise ValueError(
                f"features {self.family!r}: expected numbers of shape ({len(images)}, d), got {values.shape}. Return a "
                "row for each image."
            )
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
