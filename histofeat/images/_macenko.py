"""Macenko's normalisation: find the two stains of a slide in optical density, and replace them by the reference's."""

import cv2
import numpy as np

from histofeat.images._normalization import DENSITY, StainNormalizer

#: Quantiles: of the directions of tissue pixels that are the stains, and of the concentrations of a stain, its
#: strength.
_EXTREME, _HIGHEST = 0.01, 0.99
#: Angle in degrees between the two stains below which there is only one.
_LEAST_ANGLE = 10.0
#: Angle in degrees to the reference beyond which a "stain" is ink, blood or pigment.
_LARGEST_ANGLE = 25.0


def find_stains(density: np.ndarray) -> np.ndarray:
    """Estimate the two stains of tissue.

    Parameters
    ----------
    density : ndarray of shape (n, 3), float64
        Optical densities of tissue pixels in red, green and blue.

    Returns
    -------
    stains : ndarray of shape (2, 3), float64
        Optical density of hematoxylin, then of eosin; rows of length 1, not negative. Hematoxylin is the one that
        absorbs more red.

    Notes
    -----
    As in [1]_: the plane through the origin that holds most of the densities (the first two right singular vectors),
    the angle of every pixel in it, and the directions at the 1st and the 99th percentile of these angles. Percentiles
    are values that occur (the nearest rank). Negative components are set to 0.

    References
    ----------
    .. [1] M. Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009,
       1107-1110, https://doi.org/10.1109/ISBI.2009.5193250.

    Examples
    --------
    >>> pure = np.array([[0.6, 0.7, 0.4], [0.1, 0.9, 0.3]])
    >>> mixed = np.random.default_rng(0).dirichlet((0.2, 0.2), 1000) @ pure
    >>> found = find_stains(mixed)
    >>> np.abs(found - pure / np.linalg.norm(pure, axis=1, keepdims=True)).max() < 0.01
    np.True_
    """
    _, vectors = np.linalg.eigh(density.T @ density)
    first, second = vectors[:, 2], vectors[:, 1]
    # Densities are not negative, and so are the components of the first vector, up to its sign.
    first = first if first.sum() > 0 else -first
    # The tangent rises with the angle: its order is the same, and no pixel lies at a right angle to the first vector.
    tangent = (density @ second) / np.maximum(density @ first, 1e-12)
    low, high = _at_rank(tangent, _EXTREME), _at_rank(tangent, 1 - _EXTREME)
    stains = np.maximum(np.stack([first + low * second, first + high * second]), 0)
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    return stains if stains[0, 0] >= stains[1, 0] else stains[::-1]


class MacenkoNormalizer(StainNormalizer):
    """The two stains of a unit exchanged for those of the training patches, and their strength matched.

    Parameters
    ----------
    unit : {"patch", "patient"}, default="patch"
        What the stains are taken from. A single patch is enough, but rarely shows both stains well. All patches of a
        patient (of a slide) give better estimates; every call then needs ``groups``, and all patches of a patient at
        once.
    min_tissue : float in (0, 1], default=0.1
        Share of tissue pixels below which a unit is left as it is.
    max_gain : float, at least 1, default=2.0
        Largest factor, and its inverse the smallest, by which the concentration of a stain is changed.
    n_jobs : int, optional
        Threads; None is 1, -1 all cores. The result does not depend on it.

    Attributes
    ----------
    reference_ : ndarray of shape (8,), float64
        `stains_` row by row, then `concentrations_`: medians over the training patients (over the patches, where
        `fit` had no groups), the stains brought back to length 1.
    n_units_, n_left_out_ : int
        Units seen in `fit`, and those among them that had too little tissue or a single stain.

    Notes
    -----
    Optical density is ``-ln(v / 255)``, level 0 counting as 1. The stains are those of `find_stains`; a pixel's
    concentrations are its least-squares coordinates on them, and the strength of a stain is the 99th percentile of its
    concentrations. A pixel's two stains are exchanged for the reference's, times the ratio of the strengths, held
    between ``1 / max_gain`` and `max_gain`. See [1]_.

    Deviations from the paper: tissue is found by the mean density of the channels (`is_tissue`), since eosin hardly
    absorbs red, and the strength is that of tissue pixels, so that it does not depend on how much of a patch is empty.
    What the two stains do not explain, such as ink, stays where the paper drops it. The step is therefore linear in the
    densities: white stays white, and a unit like the reference comes out as it was.

    A unit is left as it is where it has less tissue than `min_tissue` or 250 px, which includes blank patches and
    slivers of 50 x 1, where it shows one stain only (less than 10 degrees between the two), as flat and black patches
    do, and where one of its stains lies more than 25 degrees from the reference's, as ink, blood and pigment do.

    References
    ----------
    .. [1] M. Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009,
       1107-1110, https://doi.org/10.1109/ISBI.2009.5193250.

    Examples
    --------
    >>> from histofeat import make_cohort
    >>> cohort = make_cohort(n_patients=3, patches_per_patient=6)
    >>> normalizer = MacenkoNormalizer("patient").fit(cohort.X, groups=cohort.patients)
    >>> normalizer.stains_.shape, normalizer.transform(cohort.X[:6], groups=cohort.patients[:6])[0].dtype
    ((2, 3), dtype('uint8'))
    """

    @property
    def stains_(self) -> np.ndarray:
        """Optical density of hematoxylin and of eosin in the reference, (2, 3), rows of length 1."""
        return self.reference_[:6].reshape(2, 3)

    @property
    def concentrations_(self) -> np.ndarray:
        """Strength of both stains in the reference, (2,)."""
        return self.reference_[6:]

    def _nothing(self) -> np.ndarray:
        return np.full(8, np.nan)

    def _settled(self, median: np.ndarray) -> np.ndarray:
        stains = median[:6].reshape(2, 3)
        stains = stains / np.linalg.norm(stains, axis=1, keepdims=True)
        return np.concatenate([stains.ravel(), median[6:]])

    def _estimate(self, tissue: np.ndarray) -> np.ndarray:
        density = cv2.LUT(tissue[None], DENSITY)[0].astype(np.float64)
        stains = find_stains(density)
        if _angle(stains[0], stains[1]) < _LEAST_ANGLE:
            return self._nothing()
        concentrations = density @ _coordinates(stains)
        strength = [_at_rank(concentrations[:, stain], _HIGHEST) for stain in range(2)]
        return np.concatenate([stains.ravel(), strength]) if min(strength) > 0 else self._nothing()

    def _change(self, pixels: np.ndarray, source: np.ndarray) -> np.ndarray:
        stains = source[:6].reshape(2, 3)
        if max(map(_angle, stains, self.stains_)) > _LARGEST_ANGLE:
            return pixels
        gain = np.clip(self.concentrations_ / source[6:], 1 / self.max_gain, self.max_gain)
        coordinates = _coordinates(stains)
        unexplained = np.eye(3) - coordinates @ stains
        matrix = coordinates @ np.diag(gain) @ self.stains_ + unexplained
        minus_density = cv2.transform(cv2.LUT(pixels[None], DENSITY), -matrix.T)
        transmitted = cv2.exp(np.minimum(minus_density, 0))  # nothing is brighter than white
        return cv2.convertScaleAbs(transmitted, alpha=255)[0]  # rounded


def _angle(first: np.ndarray, second: np.ndarray) -> float:
    """Angle in degrees between two vectors of length 1."""
    return float(np.degrees(np.arccos(min(1.0, first @ second))))


def _coordinates(stains: np.ndarray) -> np.ndarray:
    """Matrix (3, 2) from densities to least-squares coordinates on two stains (2, 3): the pseudo-inverse."""
    return np.linalg.solve(stains @ stains.T, stains).T


def _at_rank(values: np.ndarray, share: float) -> float:
    """Return the value at the nearest rank of a quantile."""
    rank = round(share * (len(values) - 1))
    return float(np.partition(values, rank)[rank])
