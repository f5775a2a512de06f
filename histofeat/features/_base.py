"""`PatchFeatures`, the estimator that every feature family is, and `PatchUnion`, several families as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from histofeat.exceptions import check_that
from histofeat.features._batch import PatchBatch
from histofeat.features._extraction import check_unique_names, extract
from histofeat.features._families import make_family
from histofeat.features._feature_store import StoreLike
from histofeat.images import as_images, image_input_tags


class PatchFeatures(TransformerMixin, BaseEstimator):
    """Base class of feature families: transforms patches to rows of named float32 columns.

    A family stores its parameters in ``__init__``, which `dataclasses.dataclass(eq=False, repr=False)` writes from its
    fields, and implements three methods: ``_check_params()``, which raises `ValueError` for bad parameters;
    ``_feature_names()``, the column names in order; and ``_compute(batch)``, which maps a `PatchBatch` to an array of
    shape (n, d). `histofeat.features.extract` does the reading, decoding, grouping by size and threading, also for a
    single family.

    Families learn nothing from the data: ``fit`` only validates, and ``transform`` works without it.
    """

    #: Name of the family in pipelines and in feature stores.
    family: ClassVar[str]
    #: Patches in a batch; larger for networks.
    _batch_size: ClassVar[int] = 64
    #: Whether `_compute` may run in several threads at once. A network has its own threads: it implements
    #: ``_prepare(batch)``, which may run in several threads, and ``_embed(prepared)``, which runs in one at a time.
    _threaded: ClassVar[bool] = True
    #: Whether its columns are an embedding, such as that of a network: heads that fuse late treat it by itself.
    is_embedding: ClassVar[bool] = False
    #: Whether features do not change, up to rounding, when a patch is flipped or turned by 90 degrees.
    _invariant_to_turns: ClassVar[bool] = False

    def fit(self, X: Any, y: Any = None) -> PatchFeatures:
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
        self.n_features_out_: int = len(self._feature_names())
        return self

    def transform(self, X: Any) -> np.ndarray:
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

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns, an object array of shape (d,); `input_features` is ignored."""
        self._check_params()
        return np.asarray(self._feature_names(), dtype=object)

    def _fingerprint(self) -> dict[str, Any] | None:
        """Parameters that the values depend on, for the key of a store; None where no store may keep them."""
        return self.get_params(deep=False)

    def __sklearn_tags__(self) -> Any:
        return image_input_tags(super().__sklearn_tags__())

    def _check_params(self) -> None:
        raise NotImplementedError(f"{type(self).__name__}: a family implements `_check_params`.")

    def _feature_names(self) -> list[str]:
        raise NotImplementedError(f"{type(self).__name__}: a family implements `_feature_names`.")

    def _compute(self, batch: PatchBatch) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__}: a family implements `_compute`.")


class PatchUnion(TransformerMixin, BaseEstimator):
    """Several feature families side by side, from one decode of each image.

    Parameters
    ----------
    families : sequence of str or PatchFeatures
        Names of `histofeat.features.FAMILIES` or estimators of `histofeat.features`, at least one.
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
    >>> from histofeat.features import ColorHistogram
    >>> union = PatchUnion([ColorHistogram(bins=8), "lbp"])
    >>> patches = np.zeros((2, 50, 50, 3), dtype=np.uint8)
    >>> len(union.fit(patches).get_feature_names_out()) == union.transform(patches).shape[1]
    True
    """

    def __init__(
        self, families: Sequence[str | PatchFeatures], *, n_jobs: int | None = None, store: StoreLike | None = None
    ):
        self.families = families
        self.n_jobs = n_jobs
        self.store = store

    def fit(self, X: Any, y: Any = None) -> PatchUnion:
        """Validate the families and the form of `X`; see `PatchFeatures.fit`."""
        for family in self._built():
            family.fit(X)
        self.n_features_out_: int = len(self.get_feature_names_out())
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Measure the patches with every family: an array of shape (n, d), float32. See `extract`."""
        return np.hstack(extract(self._built(), X, n_jobs=self.n_jobs, store=self.store).features)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns, family after family, an object array of shape (d,); `input_features` is ignored."""
        names = [family.get_feature_names_out() for family in self._built()]
        check_unique_names(names)
        return np.concatenate(names)

    def __sklearn_tags__(self) -> Any:
        return image_input_tags(super().__sklearn_tags__())

    def _built(self) -> list[PatchFeatures]:
        families = self.families
        if not isinstance(families, Sequence) or isinstance(families, str) or not families:
            raise ValueError(f"PatchUnion.families: expected a list of at least one feature family, got {families!r}.")
        built = [make_family(family) if isinstance(family, str) else family for family in families]
        for family in built:
            fits, remedy = isinstance(family, PatchFeatures), "Give a name, such as 'lbp'."
            check_that("PatchUnion.families", family, fits, "names or estimators of histofeat.features", remedy)
        return built
