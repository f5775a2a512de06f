"""Fuzzy colour histogram: every pixel belongs to each of 64 coarse colours, most to the nearest ones."""

import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from histofeat.exceptions import check_real
from histofeat.features._base import PatchFeatures
from histofeat.features._batch import PatchBatch, as_stack, read_only
from histofeat.features._neighbourhoods import count_cells
from histofeat.images import compiled

#: Levels of each channel of the fine colours, as in Han and Ma (16 ** 3 = 4096 colours).
_LEVELS = 16
#: The clustering ends when no centre moves further than this, in units of CIELAB, where 2.3 is just noticeable.
_TOLERANCE = 0.01
#: Cluster centres of the fine colours for fuzziness 1.9, in CIELAB, from dark to light. The clustering took 1,200 steps
#: from the middles of a 4x4x4 grid over RGB; from these centres it takes one.
_START = np.loadtxt(Path(__file__).with_name("coarse_colors.csv"), delimiter=",", skiprows=1)
_clustering = threading.Lock()


def rgb_to_lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB coordinates of sRGB colours, for the white of D65 and the observer of 2 degrees.

    Parameters
    ----------
    rgb : array-like of shape (..., 3)
        Colours, 0 to 255.

    Returns
    -------
    lab : ndarray of shape (..., 3), float64
        Lightness (0 to 100), a (green to red) and b (blue to yellow).

    Examples
    --------
    >>> [[round(value, 1) + 0.0 for value in color] for color in rgb_to_lab([[255, 255, 255], [255, 0, 0]]).tolist()]
    [[100.0, 0.0, 0.0], [53.2, 80.1, 67.2]]
    """
    values = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
    # Divided by the sums of its rows, so that a and b of white are exactly 0.
    relative = linear @ (to_xyz / to_xyz.sum(axis=1, keepdims=True)).T
    x, y, z = np.moveaxis(
        np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative * (29 / 6) ** 2 / 3 + 4 / 29), -1, 0
    )
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def fuzzy_c_means(
    points: np.ndarray, centers: np.ndarray, fuzziness: float = 1.9, *, tolerance: float = 0.01, max_steps: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """Cluster points so that each belongs to each cluster to a degree.

    Parameters
    ----------
    points : ndarray of shape (n, d), float64
        The points.
    centers : ndarray of shape (c, d), float64
        The centres to start from, no two the same.
    fuzziness : float, default 1.9
        Exponent m, above 1: the larger, the more evenly a point is shared.
    tolerance : float, default 0.01
        Stop after a step that moves no coordinate of a centre by more than this.
    max_steps : int, default 1000
        Largest number of steps, converged or not.

    Returns
    -------
    centers : ndarray of shape (c, d), float64
        The centres of the clusters.
    membership : ndarray of shape (n, c), float64
        Degrees for these centres; each row sums to 1.

    Notes
    -----
    With the distance d_kj of point k from centre j, a step sets ``u_kj = 1 / sum_i (d_kj / d_ki) ** (2 / (m - 1))`` and
    then each centre to the mean of the points weighted by ``u_kj ** m`` (Bezdek 1981,
    :doi:`10.1007/978-1-4757-0450-1`). A point on a centre belongs to it alone. Nothing is random: the same start gives
    the same result.

    Examples
    --------
    >>> import numpy as np
    >>> points = np.array([[0.0], [1.0], [9.0], [10.0]])
    >>> centers, membership = fuzzy_c_means(points, np.array([[0.0], [5.0]]), tolerance=1e-9)
    >>> centers.round(2).tolist(), membership.round(2)[0].tolist()
    ([[0.5], [9.5]], [1.0, 0.0])
    """
    points = np.ascontiguousarray(points, dtype=np.float64)
    centers = np.array(centers, dtype=np.float64)
    membership = np.empty((len(points), len(centers)))
    for _ in range(max_steps):
        moved = _step(points, centers, float(fuzziness), membership)
        if np.abs(moved - centers).max() <= tolerance:
            break
        centers = moved
    else:
        _step(points, centers, float(fuzziness), membership)
    return centers, membership


def coarse_colors(fuzziness: float = 1.9) -> tuple[np.ndarray, np.ndarray]:
    """Give the 64 coarse colours, and how far each of the 4096 fine colours belongs to each of them.

    Parameters
    ----------
    fuzziness : float, default 1.9
        Exponent of the clustering, above 1 and at most 3.

    Returns
    -------
    centers : ndarray of shape (64, 3), float64
        The coarse colours in CIELAB.
    membership : ndarray of shape (4096, 64), float64
        Row ``(red // 16 * 16 + green // 16) * 16 + blue // 16``; each row sums to 1.

    Notes
    -----
    A fine colour stands for the middle of its cell of 16x16x16 RGB values. `fuzzy_c_means` clusters them, all with the
    same weight, whatever the images hold: the result depends on the colour space and on `fuzziness` alone. For 1.9 this
    takes one step; for other values it takes seconds, once per process.

    Examples
    --------
    >>> centers, membership = coarse_colors()
    >>> centers[0].round().tolist(), centers[-1].round().tolist()
    ([21.0, 25.0, -34.0], [88.0, -25.0, 80.0])
    """
    with _clustering:  # other threads wait for the first one
        return _cluster(float(fuzziness))


@lru_cache(maxsize=8)
def _cluster(fuzziness: float) -> tuple[np.ndarray, np.ndarray]:
    centers, membership = fuzzy_c_means(rgb_to_lab(_grid(_LEVELS)), _START, fuzziness, tolerance=_TOLERANCE)
    centers.flags.writeable = membership.flags.writeable = False
    return centers, membership


def _grid(levels: int) -> np.ndarray:
    """Middles of the cells of an RGB grid, shape (levels ** 3, 3); blue changes fastest."""
    middles = (np.arange(levels) + 0.5) * 256 / levels - 0.5
    return np.stack(np.meshgrid(middles, middles, middles, indexing="ij"), axis=-1).reshape(-1, 3)


def fuzzy_histogram(rgb: np.ndarray, membership: np.ndarray) -> np.ndarray:
    """Mean membership of the pixels of each image in each coarse colour.

    Parameters
    ----------
    rgb : ndarray of shape (n, H, W, 3) or (H, W, 3), uint8
        Images of one size, red first.
    membership : ndarray of shape (4096, c), float64
        Degrees of each fine colour, as `coarse_colors` gives them.

    Returns
    -------
    shares : ndarray of shape (n, c) or (c,), float64
        The histogram of the fine colours times `membership`; each row sums to 1 as its rows do.

    Raises
    ------
    ValueError
        If the images are not 8-bit with three channels last, or `membership` has not one row for each fine colour.

    Examples
    --------
    >>> import numpy as np
    >>> membership = np.zeros((4096, 2))
    >>> membership[:2048, 0] = membership[2048:, 1] = 1  # dark and bright red
    >>> fuzzy_histogram(np.array([[[9, 9, 9], [9, 0, 9], [9, 9, 0], [255, 9, 9]]], dtype=np.uint8), membership).tolist()
    [0.75, 0.25]
    """
    stack = as_stack("fuzzy_histogram", rgb, colors=True)
    membership = read_only(np.asarray(membership, dtype=np.float64))
    if membership.ndim != 2 or len(membership) != _LEVELS**3:
        raise ValueError(
            f"fuzzy_histogram.membership: expected a row for each of {_LEVELS**3} fine colours, got shape "
            f"{membership.shape}. Use that of coarse_colors()."
        )
    shares = np.empty((len(stack), membership.shape[1]))
    _mix(read_only(stack.reshape(len(stack), -1, 3)), membership, shares)
    return shares[0] if np.ndim(rgb) == 3 else shares


@dataclass(eq=False, repr=False)
class FuzzyColorHistogram(PatchFeatures):
    """Fuzzy colour histogram of 64 coarse colours.

    Parameters
    ----------
    fuzziness : float, default 1.9
        Exponent of the clustering, above 1 and at most 3: the larger, the more coarse colours share a pixel.

    See Also
    --------
    coarse_colors : how the coarse colours are found.
    fuzzy_histogram : the definition.

    Notes
    -----
    Han and Ma [1]_: 4096 fine colours (16 levels of red, green and blue) are clustered in CIELAB by fuzzy c-means into
    64 coarse ones, once; the histogram of the fine colours of an image times their memberships is its feature. A small
    shift of colour then changes it a little, where a histogram of 64 cells would jump. They do not say how they start
    the clustering; here it starts from a 4x4x4 grid over RGB. Distances are Euclidean.

    Columns are ``fuzzy_color_<coarse colour>``, for 1.9 from dark to light. The position of a pixel does not matter:
    flips and quarter turns do not change any value. A flat patch has the memberships of its colour.

    References
    ----------
    .. [1] J. Han, K.-K. Ma, IEEE Transactions on Image Processing 11(8), 2002, 944-952.
       :doi:`10.1109/TIP.2002.801585`

    Examples
    --------
    >>> import numpy as np
    >>> family = FuzzyColorHistogram()
    >>> values = family.transform(np.full((1, 50, 50, 3), 255, dtype=np.uint8))[0]
    >>> values.shape, round(float(values.sum()), 3), str(family.get_feature_names_out()[values.argmax()])
    ((64,), 1.0, 'fuzzy_color_60')
    """

    family: ClassVar[str] = "fuzzy_color"
    _invariant_to_turns: ClassVar[bool] = True

    fuzziness: float = 1.9

    def _check_params(self) -> None:
        words, remedy = "above 1 and at most 3", "Han and Ma use 1.9."
        check_real("FuzzyColorHistogram.fuzziness", self.fuzziness, words, lambda value: 1 < value <= 3, remedy)

    def _feature_names(self) -> list[str]:
        return [f"fuzzy_color_{k:02d}" for k in range(len(_START))]

    def _compute(self, batch: PatchBatch) -> np.ndarray:
        return fuzzy_histogram(batch.rgb, coarse_colors(self.fuzziness)[1]).astype(np.float32)


@compiled
def _step(points, centers, fuzziness, membership):
    """Fill `membership` (n, c) for `centers` (c, d), and give the centres that follow from it."""
    n_centers, n_dimensions = centers.shape
    moved, weights = np.zeros(centers.shape), np.zeros(n_centers)
    squares, closeness = np.empty(n_centers), np.empty(n_centers)
    for k in range(len(points)):
        for j in range(n_centers):
            squares[j] = 0
            for dimension in range(n_dimensions):
                squares[j] += (points[k, dimension] - centers[j, dimension]) ** 2
            # A point on a centre would divide by nothing.
            squares[j] = max(squares[j], 1e-24)
        nearest = squares.min()
        # Relative to the nearest: no power overflows.
        for j in range(n_centers):
            closeness[j] = (nearest / squares[j]) ** (1 / (fuzziness - 1))
        total = closeness.sum()
        scale = total**-fuzziness
        for j in range(n_centers):
            membership[k, j] = closeness[j] / total
            # u ** m without a second power: (nearest / square) ** (m / (m - 1)) is closeness * nearest / square.
            weight = closeness[j] * nearest / squares[j] * scale
            weights[j] += weight
            for dimension in range(n_dimensions):
                moved[j, dimension] += weight * points[k, dimension]
    for j in range(n_centers):
        moved[j] /= weights[j]
    return moved


@compiled
def _mix(images, membership, shares):
    """Fill `shares` (n, c) from `images` (n, H * W, 3) uint8: the mean row of `membership` over the pixels."""
    counts = np.empty(len(membership), np.int64)
    for image in range(len(images)):
        pixels, share = images[image], shares[image]
        count_cells(pixels, _LEVELS, counts)
        share[:] = 0
        # Summed in the order of the colours, not of the pixels, so that a turned patch gives the same sums to the bit.
        for fine in range(len(counts)):
            if counts[fine]:
                for j in range(len(share)):
                    share[j] += counts[fine] * membership[fine, j]
        share /= len(pixels)
