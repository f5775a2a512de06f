"""Reinhard's colour transfer: move mean and spread of the tissue's colours to those of the training patches."""

import cv2
import numpy as np

from histofeat.images._normalization import DENSITY, TISSUE_DENSITY, StainNormalizer

#: Responses of the three cones to red, green and blue (Reinhard et al. 2001).
LMS_FROM_RGB = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
#: From their logarithms to l, alpha and beta, which are nearly uncorrelated in natural images.
LAB_FROM_LOG_LMS = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ [[1, 1, 1], [1, 1, -2], [1, -1, 0]]
for _matrix in (LMS_FROM_RGB, LAB_FROM_LOG_LMS):
    _matrix.flags.writeable = False

#: Mean optical density up to which a pixel is the empty slide and stays as it is.
_BLANK_DENSITY = 0.05
#: Spread of l below which tissue is of one colour: about one percent of the intensity.
_FLAT = 0.005
_RGB_FROM_LMS, _LOG_LMS_FROM_LAB = np.linalg.inv(LMS_FROM_RGB), np.linalg.inv(LAB_FROM_LOG_LMS)
_LOG_10 = np.log(10.0)
#: Cone responses are at most 255, e to the 5.5; what lies far above is white, and must not overflow on the way.
_HIGHEST_LOG = np.float32(12)
_LEVELS = np.maximum(np.arange(256), 1).astype(np.float32)


class ReinhardNormalizer(StainNormalizer):
    """Mean and standard deviation of the tissue in l-alpha-beta space brought to those of the training patches.

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
        Largest factor, and its inverse the smallest, by which a standard deviation is changed.
    n_jobs : int, optional
        Threads; None is 1, -1 all cores. The result does not depend on it.

    Attributes
    ----------
    reference_ : ndarray of shape (6,), float64
        Means of l, alpha and beta, then their standard deviations: medians over the training patients (over the
        patches, where `fit` had no groups).
    n_units_, n_left_out_ : int
        Units seen in `fit`, and those among them that had too little tissue or a single colour.
    unchanged_ : dict of str to int
        Patches that the last call of `transform`, or of a pipeline, left as they are, by reason.

    Notes
    -----
    The space is that of the paper [1]_: cone responses of the 8-bit levels (0 counts as 1), their decimal logarithms,
    rotated. In each channel ``v' = (v - m_source) * gain + m_reference`` with ``gain = s_reference / s_source``, held
    between ``1 / max_gain`` and `max_gain`; back in RGB the levels are rounded and clipped to 0..255.

    Deviations from the paper, whose images have no empty slide: statistics are of tissue pixels (`is_tissue`), and a
    pixel of mean optical density d moves by ``min(max((d - 0.05) / 0.10, 0), 1)`` of the way, so that white stays
    white.

    Each channel is moved by itself. That undoes a change of both stains alike; a change of the balance between them
    mixes the channels, and is undone in part at best (see `MacenkoNormalizer`).

    A unit is left as it is where it has less tissue than `min_tissue` or 250 px, which includes blank patches and
    slivers of 50 x 1, and where its tissue is of one colour (standard deviation of l below 0.005), as in flat and black
    patches.

    References
    ----------
    .. [1] E. Reinhard, M. Ashikhmin, B. Gooch and P. Shirley, "Color transfer between images", IEEE Computer Graphics
       and Applications 21(5), 2001, 34-41, https://doi.org/10.1109/38.946629.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> pink, violet = (np.clip(rng.normal(color, 12, (50, 50, 3)), 0, 255).astype(np.uint8)
    ...     for color in ((220, 150, 190), (150, 90, 180)))
    >>> moved = ReinhardNormalizer().fit(pink[None]).transform(violet[None])[0]
    >>> violet.mean((0, 1)).round().tolist(), moved.mean((0, 1)).round().tolist()
    ([150.0, 90.0, 179.0], [219.0, 150.0, 190.0])
    """

    def _nothing(self) -> np.ndarray:
        return np.full(6, np.nan)

    def _estimate(self, tissue: np.ndarray) -> np.ndarray:
        lab = cv2.transform(_log_lms(tissue)[None], LAB_FROM_LOG_LMS / _LOG_10)
        mean, spread = (values.ravel() for values in cv2.meanStdDev(lab))
        return np.concatenate([mean, spread]) if spread[0] >= _FLAT else self._nothing()

    def _change(self, pixels: np.ndarray, source: np.ndarray) -> np.ndarray:
        (source_mean, source_std), (mean, std) = np.split(source, 2), np.split(self.reference_, 2)
        # In a channel without any spread there is nothing to stretch: any gain will do.
        gain = np.clip(std / np.maximum(source_std, 1e-12), 1 / self.max_gain, self.max_gain)
        # The move is affine in l-alpha-beta and so in the logarithms: one matrix and one offset.
        affine = np.empty((3, 4))
        affine[:, :3] = _LOG_LMS_FROM_LAB @ np.diag(gain) @ LAB_FROM_LOG_LMS
        affine[:, 3] = _LOG_LMS_FROM_LAB @ (mean - gain * source_mean) * _LOG_10
        logs = cv2.transform(_log_lms(pixels)[None], affine)
        moved = cv2.transform(cv2.exp(np.minimum(logs, _HIGHEST_LOG)), _RGB_FROM_LMS)
        levels = pixels[None].astype(np.float32)
        levels += _share_moved(pixels) * (moved - levels)
        return cv2.convertScaleAbs(np.maximum(levels, 0))[0]  # rounded, held at 255


def _log_lms(pixels: np.ndarray) -> np.ndarray:
    """Natural logarithms of the cone responses of pixels (n, 3): float32, the scale of OpenCV's fast paths."""
    return cv2.log(cv2.transform(cv2.LUT(pixels[None], _LEVELS), LMS_FROM_RGB))[0]


def _share_moved(pixels: np.ndarray) -> np.ndarray:
    """How far a pixel goes, 0 on the empty slide to 1 on tissue: (1, n, 3) float32, the same for its channels."""
    density = cv2.transform(cv2.LUT(pixels[None], DENSITY), np.full((3, 3), 1 / 3))
    return np.clip((density - _BLANK_DENSITY) * np.float32(1 / (TISSUE_DENSITY - _BLANK_DENSITY)), 0, 1)
