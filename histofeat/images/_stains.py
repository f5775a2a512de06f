"""Separate stains by colour deconvolution: hematoxylin, eosin and residual of each pixel."""

import numpy as np
from numba import njit

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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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
