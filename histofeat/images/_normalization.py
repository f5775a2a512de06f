"""Base class of the stain normalisers, and `make_normalizer`, which builds one by name."""

from importlib import import_module
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from histofeat.exceptions import GroupLeakageError, PatchError, check_name, check_real
from histofeat.images._reading import Images, MappedImages, as_images, image_input_tags, map_images, run_ahead
from histofeat.model_selection import encode_patients

#: Name of each normaliser: its module in this wing, loaded when the name is used, and the class there.
NORMALIZERS = MappingProxyType(
    {"reinhard": ("reinhard", "ReinhardNormalizer"), "macenko": ("macenko", "MacenkoNormalizer")}
)

#: Optical density of each 8-bit level, ``-ln(max(v, 1) / 255)``, float32: 0 on white.
DENSITY = -np.log(np.maximum(np.arange(256), 1) / 255.0).astype(np.float32)
DENSITY.flags.writeable = False
#: Mean optical density of the three channels from which a pixel is tissue.
TISSUE_DENSITY = 0.15
#: Fewest tissue pixels that statistics are estimated from: a tenth of a patch of 50 x 50.
MINIMUM_PX = 250

#: The product of the three channels at that density: an exact test without a logarithm.
_BRIGHTEST_TISSUE = int(255**3 * np.exp(-3 * TISSUE_DENSITY))
#: Most tissue pixels that are used of one unit; of more, every second, third ... is used.
_MAX_PIXELS = 1 << 20
_UNITS = ("patch", "patient")
#: Why a patch is left as it is: names by which such patches are counted, as conversions are.
UNCHANGED = ("stain unchanged (too little tissue or one colour)", "stain unchanged (far from the reference)")


def is_tissue(pixels: np.ndarray) -> np.ndarray:
    """Distinguish tissue from the empty slide by its darkness.

    Parameters
    ----------
    pixels : ndarray of shape (..., 3), uint8
        RGB.

    Returns
    -------
    tissue : ndarray of shape (...), bool
        Where the mean of ``-ln(v / 255)`` over the channels is at least `TISSUE_DENSITY`.

    Examples
    --------
    >>> is_tissue(np.array([[242, 238, 240], [225, 190, 215], [0, 0, 0]], dtype=np.uint8)).tolist()
    [False, True, True]
    """
    red, green, blue = np.moveaxis(pixels.astype(np.uint32), -1, 0)
    return red * green * blue <= _BRIGHTEST_TISSUE


class StainNormalizer(TransformerMixin, BaseEstimator):
    """Base of the stain normalisers: statistics of a unit are moved to those of a reference, learnt in `fit`.

    A normaliser stores its parameters and implements `_estimate(tissue)`, the statistics of tissue pixels (NaN where
    they cannot be estimated), and `_change(pixels, source)`, which moves pixels from there to the reference.

    Parameters
    ----------
    unit : {"patch", "patient"}, default="patch"
        What the statistics are taken from. A single patch is enough, but its colour depends on its tissue as well as on
        the stain, so that some of the difference between tumour and stroma is lost. All patches of a patient (of a
        slide) give a better estimate of the stain; every call then needs ``groups``, and all patches of a patient at
        once.
    min_tissue : float in (0, 1], default=0.1
        Share of tissue pixels below which a unit is left as it is.
    max_gain : float, at least 1, default=2.0
        Largest factor, and its inverse the smallest, by which a contrast or a concentration is changed.
    n_jobs : int, optional
        Threads; None is 1, -1 all cores. The result does not depend on it.
    """

    def __init__(
        self, unit: str = "patch", *, min_tissue: float = 0.1, max_gain: float = 2.0, n_jobs: int | None = None
    ) -> None:
        self.unit = unit
        self.min_tissue = min_tissue
        self.max_gain = max_gain
        self.n_jobs = n_jobs

    # Read by scikit-learn under metadata routing: patients are requested by default.
    __metadata_request__fit = __metadata_request__transform = {"groups": True}  # noqa: RUF012

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> Self:
        """Learn the reference: the median statistics of the units of `X`, which must be training patches only.

        Parameters
        ----------
        X : sequence of paths, ndarray (n, H, W, 3) uint8, list of such arrays, or DataFrame with a ``path`` column
            The patches.
        y : ignored
            Present for scikit-learn.
        groups : array-like of shape (n,), optional
            Their patients. With them every patient counts once, however many patches there are of each; needed with
            ``unit="patient"``.

        Returns
        -------
        self : StainNormalizer
            This estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range.
        GroupLeakageError
            If patients are needed and missing.
        PatchError
            If an image cannot be used, or no unit has enough tissue.
        """
        self._check_params()
        images = as_images(X)
        codes = self._codes(groups, len(images))
        found = self._unit_statistics(images, codes)
        usable = ~np.isnan(found).any(axis=1)
        if not usable.any():
            raise PatchError(
                f"{type(self).__name__}.fit: expected tissue to learn a stain from, got none in {len(images):,} "
                f"patches: at least {self.min_tissue:.0%} and {MINIMUM_PX} px of the pixels, of more than one colour. "
                "Fit on patches of tissue, or leave the normaliser out."
            )
        found = found[usable]
        if self.unit == "patch" and codes is not None:
            owners = codes[usable]
            found = np.stack([np.median(found[owners == owner], axis=0) for owner in np.unique(owners)])
        self.reference_: np.ndarray = self._settled(np.median(found, axis=0))
        self.n_units_: int = len(usable)
        self.n_left_out_: int = int((~usable).sum())
        return self

    def transform(self, X: Any, groups: Any = None) -> np.ndarray | list[np.ndarray]:
        """Bring patches to the reference.

        Parameters
        ----------
        X : sequence of paths, ndarray (n, H, W, 3) uint8, list of such arrays, or DataFrame with a ``path`` column
            The patches.
        groups : array-like of shape (n,), optional
            Their patients, needed with ``unit="patient"``.

        Returns
        -------
        patches : ndarray of shape (n, H, W, 3), uint8, or list of ndarray
            A list where the patches are of unequal size. See `normalized_images` for many patches on disk.

        Raises
        ------
        NotFittedError
            Before `fit`.
        GroupLeakageError
            If patients are needed and missing.
        PatchError
            If an image cannot be used.
        """
        images = normalized_images(X, self, groups=groups)
        patches = list(run_ahead(images.content, range(len(images)), n_jobs=self.n_jobs))
        self.count_unchanged(images)
        return np.stack(patches) if len({patch.shape for patch in patches}) == 1 else patches

    def fit_transform(self, X: Any, y: Any = None, groups: Any = None) -> np.ndarray | list[np.ndarray]:
        """Fit to `X`, and bring it to the reference. See `fit` and `transform`."""
        return self.fit(X, y, groups=groups).transform(X, groups=groups)

    def statistics(self, pixels: np.ndarray) -> np.ndarray:
        """Statistics of a unit.

        Parameters
        ----------
        pixels : ndarray of shape (..., 3), uint8
            A patch, or the pixels of several in a row.

        Returns
        -------
        statistics : ndarray of shape (m,), float64
            NaN where there is less tissue than `min_tissue` or `MINIMUM_PX`, or where they cannot be estimated.
        """
        pixels = pixels.reshape(-1, 3)
        tissue = np.compress(is_tissue(pixels), pixels, axis=0)
        if len(tissue) < max(MINIMUM_PX, self.min_tissue * len(pixels)):
            return self._nothing()
        return self._estimate(tissue[:: -(-len(tissue) // _MAX_PIXELS)])

    def normalize(self, patch: np.ndarray, source: np.ndarray | None = None) -> np.ndarray:
        """Bring one patch to the reference.

        Parameters
        ----------
        patch : ndarray of shape (H, W, 3), uint8
            RGB.
        source : ndarray of shape (m,), optional
            The statistics of its unit; by default its own.

        Returns
        -------
        normalized : ndarray of shape (H, W, 3), uint8
            `patch` itself where `source` is NaN, or too far from the reference.
        """
        return self._normalize(patch, source)[0]

    def _normalize(self, patch: np.ndarray, source: np.ndarray | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
        """Patch, and why it was left as it is."""
        source = self.statistics(patch) if source is None else source
        if np.isnan(source).any():
            return patch, UNCHANGED[:1]
        if self._is_far(source):
            return patch, UNCHANGED[1:]
        return self._change(np.ascontiguousarray(patch).reshape(-1, 3), source).reshape(patch.shape), ()

    def count_unchanged(self, images: MappedImages) -> None:
        """Count in `unchanged_` the patches that `normalized_images` has read and left as they are, by reason."""
        self.unchanged_: dict[str, int] = {rule: n for rule, n in images.counts().items() if rule in UNCHANGED}

    def __sklearn_tags__(self) -> Any:
        return image_input_tags(super().__sklearn_tags__(), requires_fit=True)

    def _check_params(self) -> None:
        name = type(self).__name__
        check_name(f"{name}.unit", self.unit, _UNITS)
        share, gain = "above 0, at most 1", "of at least 1"
        check_real(f"{name}.min_tissue", self.min_tissue, share, lambda value: 0 < value <= 1, "Use 0.1.")
        check_real(f"{name}.max_gain", self.max_gain, gain, lambda value: value >= 1, "Use 2.0.")

    def _codes(self, groups, n_images: int) -> np.ndarray | None:
        """Number of each image's patient; None if patients are neither given nor needed."""
        if groups is None and self.unit == "patch":
            return None
        owner = f"{type(self).__name__}.groups"
        if groups is None:
            raise GroupLeakageError(
                f"{owner}: expected the patient of each patch with unit='patient', got None. Pass "
                "groups=dataset.patients with every call, or use unit='patch'."
            )
        return encode_patients(groups, n_images, owner)[1]

    def _unit_statistics(self, images: Images, codes: np.ndarray | None) -> np.ndarray:
        """Statistics of every unit, (n_units, m), in the order of the images or of the patients' numbers."""
        by_patient = self.unit == "patient"
        units = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)] if by_patient else range(len(images))

        def measure(unit):
            rows = unit if by_patient else [unit]
            pixels = [images.decode(row, images.content(row))[0].reshape(-1, 3) for row in rows]
            return self.statistics(np.concatenate(pixels))

        return np.stack(list(run_ahead(measure, units, n_jobs=self.n_jobs)))

    def _nothing(self) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__}: a normaliser implements `_nothing`.")

    def _settled(self, median: np.ndarray) -> np.ndarray:
        """Turn element-wise medians into valid statistics."""
        return median

    def _is_far(self, source: np.ndarray) -> bool:
        """Whether statistics are so far from the reference that they are of something else."""
        return False

    def _estimate(self, tissue: np.ndarray) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__}: a normaliser implements `_estimate`.")

    def _change(self, pixels: np.ndarray, source: np.ndarray) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__}: a normaliser implements `_change`.")


def normalized_images(X: Any, normalizer: StainNormalizer, *, groups: Any = None) -> MappedImages:
    """Images that are normalised as they are read, for `extract` and everything else that takes images.

    Parameters
    ----------
    X : sequence of paths, ndarray (n, H, W, 3) uint8, list of such arrays, or DataFrame with a ``path`` column
        The patches.
    normalizer : StainNormalizer
        Fitted, on training patches.
    groups : array-like of shape (n,), optional
        Their patients, needed with ``unit="patient"``: the statistics of each patient are then taken here, which
        reads every image once.

    Returns
    -------
    images : MappedImages
        Memory stays bounded by the batches in flight. A store keys their features by the normalised pixels.

    Raises
    ------
    NotFittedError
        If the normaliser is not fitted.
    GroupLeakageError
        If patients are needed and missing.
    PatchError
        If `X` has an unknown form; with ``unit="patient"`` also if an image cannot be used.

    Examples
    --------
    >>> from histofeat import LBPHistogram, make_cohort
    >>> from histofeat.images import ReinhardNormalizer
    >>> cohort = make_cohort(n_patients=2, patches_per_patient=4)
    >>> fitted = ReinhardNormalizer("patient").fit(cohort.X, groups=cohort.patients)
    >>> LBPHistogram().transform(normalized_images(cohort.X, fitted, groups=cohort.patients)).shape
    (8, 54)
    """
    check_is_fitted(normalizer)
    images = as_images(X)
    codes = normalizer._codes(groups, len(images))
    if normalizer.unit == "patch":
        return map_images(images, lambda _, patch: normalizer._normalize(patch))
    sources = normalizer._unit_statistics(images, codes)
    return map_images(images, lambda index, patch: normalizer._normalize(patch, sources[codes[index]]))


def make_normalizer(name: str, **params: Any) -> StainNormalizer:
    """Build a stain normaliser by name.

    Parameters
    ----------
    name : {"reinhard", "macenko"}
        Which one.
    **params
        Its parameters.

    Returns
    -------
    normalizer : StainNormalizer
        Unfitted.

    Raises
    ------
    ValueError
        If the name, or one of the parameters, is unknown; the message gives the nearest one.

    Examples
    --------
    >>> make_normalizer("macenko", unit="patient")
    MacenkoNormalizer(unit='patient')
    """
    check_name("normalizer", name, NORMALIZERS)
    module, attribute = NORMALIZERS[name]
    normalizer = getattr(import_module(f"histofeat.images._{module}"), attribute)
    known = normalizer._get_param_names()
    for param in params:
        check_name(f"normalizer__{param}", param, known, f"a parameter of {attribute}")
    return normalizer(**params)
