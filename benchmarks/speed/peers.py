"""The families with scikit-image, mahotas, SciPy and NumPy, image by image, as people write them today.

Each function gives the columns of histofeat's family in their order, so that results can be compared one by one. Where
a choice is free, it is the faster one: OpenCV converts to grey and HSV here as it does for histofeat.
"""

from functools import cache, cached_property

import cv2
import mahotas
import numpy as np
from scipy.signal import convolve2d
from skimage.color import rgb2hed
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern

from histofeat.images import MAX_CONCENTRATION

LEVELS = 32
RADII = (1, 2, 3)
#: Of Haralick's statistics those that scikit-image has too: ours -> theirs.
HARALICK_PROPERTIES = {
    "asm": "ASM",
    "contrast": "contrast",
    "correlation": "correlation",
    "variance": "variance",
    "idm": "homogeneity",
}
#: All properties of scikit-image, in the order of histofeat's columns.
_PROPERTIES = (
    *("contrast", "dissimilarity", "homogeneity", "ASM", "energy", "correlation"),
    *("mean", "variance", "std", "entropy"),
)
_DISTANCES = (1, 3)
#: Side of the window of local phase, and how much neighbouring pixels are taken to correlate.
_WINDOW, _RHO = 7, 0.9
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


def five_of(channel: np.ndarray) -> np.ndarray:
    """Mean over four directions of the five statistics of Haralick that scikit-image has too."""
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    table = graycomatrix(channel // (256 // LEVELS), [1], angles, levels=LEVELS, symmetric=True, normed=True)
    return np.array([graycoprops(table, name).mean() for name in HARALICK_PROPERTIES.values()])


def glcm(channels: PeerChannels) -> np.ndarray:
    """Mean and range of ten properties over four directions, at two distances, of grey, hematoxylin and eosin."""
    return np.concatenate(
        [_properties_of(channel) for channel in (channels.gray, channels.stains[..., 0], channels.stains[..., 1])]
    )


def _properties_of(channel: np.ndarray) -> np.ndarray:
    quantised = channel // (256 // LEVELS)
    # scikit-image rounds the end of a diagonal; of this length it is as many rows and columns as histofeat's.
    diagonals = [np.sqrt(2) * distance for distance in _DISTANCES]
    tables = [
        graycomatrix(quantised, lengths, angles, levels=LEVELS, symmetric=True)
        for lengths, angles in ((_DISTANCES, (0, np.pi / 2)), (diagonals, (np.pi / 4, 3 * np.pi / 4)))
    ]
    table = np.concatenate(tables, axis=3)
    found = np.stack([graycoprops(table, name) for name in _PROPERTIES])
    return np.stack([found.mean(axis=2), np.ptp(found, axis=2)]).transpose(2, 0, 1).ravel()


def clbp(channels: PeerChannels) -> np.ndarray:
    """Completed patterns at three radii, form S_M/C: signs alone, magnitudes together with centres."""
    gray = channels.gray.astype(float)
    parts = []
    for radius in RADII:
        differences = _differences(gray, radius)
        sizes = np.abs(differences)
        signs, magnitudes = _uniform(differences >= 0), _uniform(sizes >= sizes.mean())
        bright = gray[radius:-radius, radius:-radius] >= gray.mean()
        parts += [
            np.bincount(signs.ravel(), minlength=8 * radius + 2) / signs.size,
            np.bincount((2 * magnitudes + bright).ravel(), minlength=2 * (8 * radius + 2)) / signs.size,
        ]
    return np.concatenate(parts)


def _differences(gray: np.ndarray, radius: int) -> np.ndarray:
    """Each neighbour minus the pixel (P, h, w), of the pixels whose circle lies inside, in units of 1e-10 grey levels.

    Offsets are rounded to five digits, as scikit-image does; the weights of the four pixels around a neighbour are then
    whole numbers, and float64 computes exactly: no rounding decides whether a neighbour equals its pixel.
    """
    height, width = (size - 2 * radius for size in gray.shape)
    # Row and column beyond the last are never weighed by more than 0.
    padded = np.pad(gray, ((0, 1), (0, 1)))
    centre = gray[radius:-radius, radius:-radius] * 1e10
    found = np.empty((8 * radius, height, width))
    for angle, out in zip(2 * np.pi * np.arange(8 * radius) / (8 * radius), found, strict=True):
        down, right = (round(radius * part * 100_000) for part in (-np.sin(angle), np.cos(angle)))
        (y, down), (x, right) = divmod(down, 100_000), divmod(right, 100_000)
        out[:] = -centre
        for row, weight_down in ((y, 100_000 - down), (y + 1, down)):
            for column, weight_right in ((x, 100_000 - right), (x + 1, right)):
                if weight_down * weight_right:
                    top, left = radius + row, radius + column
                    out += float(weight_down * weight_right) * padded[top : top + height, left : left + width]
    return found


def _uniform(bits: np.ndarray) -> np.ndarray:
    """Rotation-invariant uniform pattern of each pixel from its bits (P, h, w)."""
    points = len(bits)
    changes = (bits[1:] != bits[:-1]).sum(axis=0) + (bits[0] != bits[-1])
    return np.where(changes <= 2, bits.sum(axis=0), points + 1)


def lpq(channels: PeerChannels) -> np.ndarray:
    """Codes of local phase, decorrelated, in the authors' steps: convolutions along the axes, signs, counts."""
    (flat, wave), gray = _waves(), channels.gray.astype(float)
    mean, first = (convolve2d(gray, weights[None], "valid") for weights in (flat, wave))
    down = [(first, flat), (mean, wave), (first, wave), (first.conj(), wave)]
    responses = np.stack([convolve2d(image, weights[:, None], "valid") for image, weights in down])
    values = np.stack([responses.real, responses.imag], axis=1).reshape(8, -1)
    # Below this a response is rounding: the weights of a window sum to 1, grey levels are whole.
    codes = (1 << np.arange(8)) @ (_decorrelation() @ values >= -1e-9)
    return np.bincount(codes, minlength=256) / codes.size


def _waves() -> tuple[np.ndarray, np.ndarray]:
    """Weights along an axis at frequency 0 and at one turn per window."""
    flat = np.full(_WINDOW, 1 / _WINDOW)
    wave = flat * np.exp(-2j * np.pi * (np.arange(_WINDOW) - _WINDOW // 2) / _WINDOW)
    return flat, wave - wave.mean()


@cache
def _decorrelation() -> np.ndarray:
    """Directions (8, 8), one a row, by a singular value decomposition; the leading entry of each is positive."""
    flat, wave = _waves()
    pairs = [(flat, wave), (wave, flat), (wave, wave), (wave, wave.conj())]
    operator = np.array([part.ravel() for d, a in pairs for part in (np.outer(d, a).real, np.outer(d, a).imag)])
    places = np.indices((_WINDOW, _WINDOW)).reshape(2, -1).T
    covariance = _RHO ** np.linalg.norm(places[:, None] - places, axis=2)
    # The authors' factors part equal variances.
    parted = np.diag(1 + 1e-6 * np.arange(7, -1, -1))
    directions = np.linalg.svd(parted @ operator @ covariance @ operator.T @ parted)[2]
    sizes = np.abs(directions)
    leading = (sizes > sizes.max(axis=1, keepdims=True) - 1e-6).argmax(axis=1)
    return directions * np.sign(directions[np.arange(8), leading])[:, None]


#: By histofeat's name of the family.
PEERS = {"color": color, "lbp": lbp, "haralick": haralick, "pftas": pftas, "clbp": clbp, "lpq": lpq, "glcm": glcm}


def measure(families, images, stains=None) -> list[np.ndarray]:
    """One matrix per family; conversions are shared, images are taken one by one."""
    rows = [[] for _ in families]
    for position, rgb in enumerate(images):
        channels = PeerChannels(rgb, None if stains is None else stains[position])
        for family, kept in zip(families, rows, strict=True):
            kept.append(PEERS[family](channels))
    return [np.stack(kept) for kept in rows]
