"""Several feature families as one transformer, from one decode of each image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from histofeat.features.base import PatchFeatures
from histofeat.features.extraction import check_unique_names, extract
from histofeat.images import image_input_tags

__all__ = ["PatchUnion"]


class PatchUnion(TransformerMixin, BaseEstimator):
    """Several feature families side by side, from one decode of each image.

    Parameters
    ----------
    families : sequence of PatchFeatures
        Estimators of `histofeat.features`, at least one.
    n_jobs : int, optional
        Threads; None is 1, -1 all cores.
    store : path or FeatureStore, optional
        Where features are kept between calls; None keeps nothing.

    Attributes
    ----------
    n_features_out_ : int
        Columns of the output.

    Examples
    --------
    >>> import numpy as np
    >>> from histofeat.features import ColorHistogram, LBPHistogram
    >>> union = PatchUnion([ColorHistogram(), LBPHistogram()])
    >>> patches = np.zeros((2, 50, 50, 3), dtype=np.uint8)
    >>> len(union.fit(patches).get_feature_names_out()) == union.transform(patches).shape[1]
    True
    """

    def __init__(self, families: Sequence[PatchFeatures], *, n_jobs: int | None = None, store=None):
        self.families = families
        self.n_jobs = n_jobs
        self.store = store

    def fit(self, X, y=None):
        """Validate the families and the form of `X`; nothing is learnt. See `PatchFeatures.fit`."""
        self._check_families()
        for family in self.families:
            family.fit(X)
        self.n_features_out_ = len(self.get_feature_names_out())
        return self

    def transform(self, X) -> np.ndarray:
        """Measure the patches with every family: an array of shape (n, d), float32. See `extract`."""
        self._check_families()
        return np.hstack(extract(self.families, X, n_jobs=self.n_jobs, store=self.store).features)

    def get_feature_names_out(self, input_features=None) -> np.ndarray:
        """Names of the columns, family after family, an object array of shape (d,); `input_features` is ignored."""
        self._check_families()
        names = [family.get_feature_names_out() for family in self.families]
        check_unique_names(names)
        return np.concatenate(names)

    def __sklearn_tags__(self):
        return image_input_tags(super().__sklearn_tags__())

    def _check_families(self) -> None:
        families = self.families
        if not isinstance(families, Sequence) or isinstance(families, str) or not families:
            raise ValueError(f"PatchUnion.families: expected a list of at least one feature family, got {families!r}.")
        for family in families:
            if not isinstance(family, PatchFeatures):
                raise ValueError(
                    f"PatchUnion.families: expected estimators of histofeat.features, got {family!r:.80}. "
                    "Names are for IDCPipeline(features=...)."
                )
