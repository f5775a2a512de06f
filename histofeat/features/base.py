"""What every feature family shares: a batch of decoded patches, and the estimator around one function on it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from histofeat.features.batch import PatchBatch
from histofeat.features.extraction import extract
from histofeat.images import as_images, image_input_tags

__all__ = ["PatchFeatures"]


class PatchFeatures(TransformerMixin, BaseEstimator):
    """Base of every feature family: patches in, one row of named float32 numbers per patch out.

    A family stores its parameters in ``__init__`` and implements three methods: ``_check_params()``, which
    refuses bad parameters; ``_feature_names()``, the stable names in column order; and ``_compute(batch)``, a
    pure function of a `PatchBatch` to an array of shape (n, d). Reading, decoding, grouping by size, batches
    and threads belong to `histofeat.features.extract`, also for a single family.

    A family learns nothing from the data: ``fit`` only validates, and ``transform`` works without it.
    """

    #: The name by which pipelines know the family, and the prefix of its columns.
    family: ClassVar[str]
    #: Patches measured at a time; larger for networks.
    _batch_size: ClassVar[int] = 64
    #: Whether `_compute` may run in several threads at once. A network brings threads of its own: it has
    #: ``_prepare(batch)``, safe in several threads, and ``_embed(prepared)``, called from one at a time.
    _threaded: ClassVar[bool] = True
    #: Whether flips and quarter turns of a patch leave its features as they are, up to rounding.
    _invariant_to_turns: ClassVar[bool] = False

    def fit(self, X, y=None):
        """Validate the parameters and the form of `X`; nothing is learnt from the pixels.

        Parameters
        ----------
        X : sequence of paths, ndarray (n, H, W, 3) uint8, list of such arrays, or DataFrame with a ``path`` column
            The patches.
        y : ignored
            Present for scikit-learn.

        Returns
        -------
        self : PatchFeatures
            This estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range.
        PatchError
            If `X` is not one of the forms above.
        """
        self._check_params()
        as_images(X)
        self.n_features_out_ = len(self._feature_names())
        return self

    def transform(self, X) -> np.ndarray:
        """Measure the patches.

        Parameters
        ----------
        X : sequence of paths, ndarray (n, H, W, 3) uint8, list of such arrays, or DataFrame with a ``path`` column
            The patches, of any and of unequal size.

        Returns
        -------
        features : ndarray of shape (n, d), float32
            One row per patch, one column per name of `get_feature_names_out`.

        Raises
        ------
        PatchError
            If an image cannot be read; the message names it.
        """
        return extract([self], X).features[0]

    def get_feature_names_out(self, input_features=None) -> np.ndarray:
        """Names of the columns, an object array of shape (d,); `input_features` is ignored."""
        self._check_params()
        return np.asarray(self._feature_names(), dtype=object)

    def _fingerprint(self) -> dict:
        """Everything that the numbers depend on, for the key of a store."""
        return self.get_params(deep=False)

    def __sklearn_tags__(self):
        return image_input_tags(super().__sklearn_tags__())

    def _check_params(self) -> None:
        raise NotImplementedError(f"{type(self).__name__}: a family implements `_check_params`.")

    def _feature_names(self) -> list[str]:
        raise NotImplementedError(f"{type(self).__name__}: a family implements `_feature_names`.")

    def _compute(self, batch: PatchBatch) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__}: a family implements `_compute`.")
