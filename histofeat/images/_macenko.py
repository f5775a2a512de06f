"""Stains in optical density: Ruifrok's fixed ones, taken apart, and Macenko's normalisation by those of each slide."""

import cv2
import numpy as np

from histofeat.images._kernels import compiled
from histofeat.images._normalization import DENSITY, StainNormalizer

#: Optical density of hematoxylin, eosin and DAB (here: the residual) in red, green and blue (Ruifrok 2001).
RGB_FROM_HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
RGB_FROM_HED.flags.writeable = False

#: Concentration of hematoxylin, eosin and residual that `quantised_stains` maps to 255; more is clipped.
#: Of the pixels of breast H&E slides fewer than one in a hundred exceed them.
MAX_CONCENTRATION = (0.15, 0.075, 0.10)

#: Intensity that stands for black, and the unit of density: scikit-image's choice.
_DARKEST = 1e-6


#: Optical density of each 8-bit intensity, and density to concentration, both in float64.
_DENSITY = np.log(np.maximum(np.arange(256) / 255.0, _DARKEST)) / np.log(_DARKEST)
_HED_FROM_RGB = np.linalg.inv(RGB_FROM_HED)


def separate_stains(rgb: np.ndarray) -> np.ndarray:
    """Concentrations of hematoxylin, eosin and residual in each pixel.

    Parameters
    ----------
    rgb : ndarray of shape (..., 3), uint8
        Pixels, red first.

    Returns
    -------
    concentrations : ndarray of shape (..., 3), float32
        Not negative; 0 on white. A concentration of 1 dims red, green and blue by 1e-6 to the power of its row of
        `RGB_FROM_HED`.

    Raises
    ------
    ValueError
        If `rgb` is not 8-bit with three channels last.

    Notes
    -----
    With the optical density ``d(v) = ln(max(v / 255, 1e-6)) / ln(1e-6)`` of an intensity v, the concentrations are
    ``max(0, d @ inv(M))``, where the rows of M are the densities of the three pure stains, as in [1]_. Densities
    of 8-bit values come from a table of 256 entries. This is `skimage.color.rgb2hed` to 1e-6.

    References
    ----------
    .. [1] A. C. Ruifrok and D. A. Johnston, "Quantification of histochemical staining by color deconvolution",
       Analytical and Quantitative Cytology and Histology 23(4), 2001, 291-299 (no DOI).

    Examples
    --------
    >>> import numpy as np
    >>> separate_stains(np.array([[255, 255, 255], [128, 80, 180]], dtype=np.uint8)).astype(float).round(3).tolist()
    [[0.0, 0.0, 0.0], [0.073, 0.033, 0.001]]
    """
    density = _DENSITY[_checked(rgb, "separate_stains")]
    return np.maximum(density @ _HED_FROM_RGB, 0).astype(np.float32)


def quantised_stains(rgb: np.ndarray) -> np.ndarray:
    """Concentrations of hematoxylin, eosin and residual on a fixed scale of 8 bits.

    Parameters
    ----------
    rgb : ndarray of shape (..., 3), uint8
        Pixels, red first.

    Returns
    -------
    stains : ndarray of shape (..., 3), uint8
        ``round(255 * min(c / MAX_CONCENTRATION, 1))`` of the concentrations c of `separate_stains`. The arithmetic
        is float32: a value may differ by one from the float64 formula where that lies at a half.

    Raises
    ------
    ValueError
        If `rgb` is not 8-bit with three channels last.

    Examples
    --------
    >>> import numpy as np
    >>> quantised_stains(np.array([[255, 255, 255], [128, 80, 180], [0, 0, 0]], dtype=np.uint8)).tolist()
    [[0, 0, 0], [124, 112, 1], [255, 0, 255]]
    """
    rgb = np.ascontiguousarray(_checked(rgb, "quantised_stains"))
    out = np.empty(rgb.shape, dtype=np.uint8)
    pixels = rgb.reshape(-1, 3)
    pixels.flags.writeable = False  # one type for the compiler, whatever the caller holds
    _quantise(pixels, _DENSITY32, _LEVELS_FROM_RGB, out.reshape(-1, 3))
    return out


_DENSITY32 = _DENSITY.astype(np.float32)
_LEVELS_FROM_RGB = (_HED_FROM_RGB * (255 / np.array(MAX_CONCENTRATION))).astype(np.float32)

#: Pixels converted at a time: their densities stay in the first-level cache.
_BLOCK = 1024


@compiled
def _quantise(rgb, density, matrix, out):
    """Fill `out` (pixels, 3) from `rgb` (pixels, 3), both uint8, through a density table and a matrix."""
    planes = np.empty((3, _BLOCK), np.float32)
    levels = np.empty((3, _BLOCK), np.uint8)
    for start in range(0, len(rgb), _BLOCK):
        n = min(_BLOCK, len(rgb) - start)
        pixels = rgb[start : start + n]
        for i in range(n):
            for channel in range(3):
                planes[channel, i] = density[pixels[i, channel]]
        for stain in range(3):
            _mix(planes, matrix[0, stain], matrix[1, stain], matrix[2, stain], levels[stain], n)
        target = out[start : start + n]
        for i in range(n):
            for stain in range(3):
                target[i, stain] = levels[stain, i]


@compiled
def _mix(planes, red, green, blue, levels, n):
    """Weighted sum of three planes, rounded and clipped to 0..255, for the first `n` pixels."""
    reds, greens, blues = planes[0], planes[1], planes[2]
    zero, top, half = np.float32(0), np.float32(255), np.float32(0.5)
    for i in range(n):
        level = reds[i] * red + greens[i] * green + blues[i] * blue
        levels[i] = np.uint8(np.int32(min(max(level, zero), top) + half))


def _checked(rgb, caller: str) -> np.ndarray:
    rgb = np.asarray(rgb)
    if rgb.dtype != np.uint8 or rgb.ndim < 1 or rgb.shape[-1] != 3:
        raise ValueError(
            f"{caller}: expected 8-bit RGB of shape (..., 3), got {rgb.dtype} of shape {rgb.shape}. "
            "Decode images with histofeat, or convert to uint8 first."
        )
    return rgb


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
    unchanged_ : dict of str to int
        Patches that the last call of `transform`, or of a pipeline, left as they are, by reason.

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

    def _is_far(self, source: np.ndarray) -> bool:
        return max(map(_angle, source[:6].reshape(2, 3), self.stains_)) > _LARGEST_ANGLE

    def _change(self, pixels: np.ndarray, source: np.ndarray) -> np.ndarray:
        stains = source[:6].reshape(2, 3)
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
