"""The four families with scikit-image, mahotas and NumPy, image by image, as people write them today.

Each function gives the columns of histofeat's family in their order, so that results can be compared one by one. Where
a choice is free, it is the faster one: OpenCV converts to grey and HSV here as it does for histofeat.
"""

from functools import cached_property

import cv2
import mahotas
import numpy as np
from skimage.color import rgb2hed
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern

from histofeat.features.stains import MAX_CONCENTRATION

__all__ = ["GLCM_PROPERTIES", "PEERS", "PeerChannels", "glcm", "haralick_of", "measure"]

LEVELS = 32
RADII = (1, 2, 3)
#: Statistics of scikit-image that histofeat has too: ours -> theirs.
GLCM_PROPERTIES = {
    "asm": "ASM",
    "contrast": "contrast",
    "correlation": "correlation",
    "variance": "variance",
    "idm": "homogeneity",
}
_PER_255 = 255 / np.array(MAX_CONCENTRATION)


class PeerChannels:
    """The colour channels of one image (H, W, 3) uint8, each converted at its first use."""

    def __init__(self, rgb, stains=None):
        self.rgb = rgb
        if stains is not None:
            self.stains = stains

    @cached_property
    def gray(self):
        """Luma (H, W), uint8."""
        return cv2.cvtColor(self.rgb, cv2.COLOR_RGB2GRAY)

    @cached_property
    def hsv(self):
        """Hue, saturation, value (H, W, 3), uint8."""
        return cv2.cvtColor(self.rgb, cv2.COLOR_RGB2HSV_FULL)

    @cached_property
    def stains(self):
        """Hematoxylin, eosin, residual (H, W, 3), uint8: scikit-image's, on histofeat's fixed scale."""
        return np.rint(np.clip(rgb2hed(self.rgb) * _PER_255, 0, 255)).astype(np.uint8)


def color(channels: PeerChannels) -> np.ndarray:
    """Sixteen bins and four moments of nine channels."""
    parts = []
    for space in (channels.rgb, channels.hsv, channels.stains):
        for position in range(3):
            values = space[..., position].ravel()
            counts = np.bincount(values, minlength=256).reshape(16, 16).sum(axis=1)
            parts += [counts / values.size, _moments(values)]
    return np.concatenate(parts)


def _moments(values: np.ndarray) -> list[float]:
    values = values.astype(float)
    mean = values.mean()
    gap = values - mean
    square = gap * gap
    variance = square.mean()
    if values.max() == values.min():
        return [mean / 255, 0, 0, 0]
    skewness = (square * gap).mean() / variance**1.5
    return [mean / 255, variance**0.5 / 255, skewness, (square * square).mean() / variance**2 - 3]


def lbp(channels: PeerChannels) -> np.ndarray:
    """Uniform patterns at three radii, of the pixels whose circle lies inside."""
    parts = []
    for radius in RADII:
        codes = local_binary_pattern(channels.gray, 8 * radius, radius, method="uniform")
        inner = codes[radius:-radius, radius:-radius].astype(np.intp).ravel()
        parts.append(np.bincount(inner, minlength=8 * radius + 2) / inner.size)
    return np.concatenate(parts)


def haralick(channels: PeerChannels) -> np.ndarray:
    """Mean and range of thirteen statistics over four directions, of grey, hematoxylin and eosin."""
    return np.concatenate(
        [haralick_of(channel) for channel in (channels.gray, channels.stains[..., 0], channels.stains[..., 1])]
    )


def haralick_of(channel: np.ndarray) -> np.ndarray:
    """Mean and range of mahotas's thirteen statistics of one channel, at 32 levels."""
    quantised = channel // (256 // LEVELS)
    found = mahotas.features.haralick(quantised, return_mean_ptp=True)
    # mahotas takes the number of levels from the image's maximum; of the thirteen only the variance of the vector d
    # depends on it, and one follows from the other.
    own = int(quantised.max()) + 1
    found[9] = (own * found[9] + 1 / own) / LEVELS - 1 / LEVELS**2
    found[13 + 9] *= own / LEVELS
    return found


def pftas(channels: PeerChannels) -> np.ndarray:
    """Threshold adjacency statistics of red, green and blue."""
    return np.concatenate([mahotas.features.pftas(channels.rgb[..., position]) for position in range(3)])


def glcm(channel: np.ndarray) -> np.ndarray:
    """Mean over four directions of the five statistics of scikit-image that histofeat has too."""
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    table = graycomatrix(channel // (256 // LEVELS), [1], angles, levels=LEVELS, symmetric=True, normed=True)
    return np.array([graycoprops(table, name).mean() for name in GLCM_PROPERTIES.values()])


#: By histofeat's name of the family.
PEERS = {"color": color, "lbp": lbp, "haralick": haralick, "pftas": pftas}


def measure(families, images, stains=None) -> list[np.ndarray]:
    """One matrix per family; conversions are shared, images are taken one by one."""
    rows = [[] for _ in families]
    for position, rgb in enumerate(images):
        channels = PeerChannels(rgb, None if stains is None else stains[position])
        for family, kept in zip(families, rows, strict=True):
            kept.append(PEERS[family](channels))
    return [np.stack(kept) for kept in rows]
