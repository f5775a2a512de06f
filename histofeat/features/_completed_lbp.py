"""Completed local binary patterns: signs and sizes of the differences to the neighbours, and the centre itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from histofeat.exceptions import check_name
from histofeat.features._batch import as_stack, read_only
from histofeat.features._neighbourhoods import (
    BLOCK,
    SCALE,
    RingFeatures,
    check_ring,
    circle,
    close,
    count_values,
    extended,
    tally,
)
from histofeat.images import compiled

#: How the three components are combined, in the notation of the paper.
_FORMS = {"joint": "S/M/C", "hybrid": "S_M/C", "separate": "S_M_C"}


def clbp_histogram(gray: np.ndarray, radius_px: int, points: int | None = None) -> np.ndarray:
    """Share of each combination of sign pattern, magnitude pattern and centre in each image.

    Parameters
    ----------
    gray : ndarray of shape (n, H, W) or (H, W), uint8
        Images of one size.
    radius_px : int
        Radius of the circle of neighbours.
    points : int, optional
        Neighbours on the circle, 4 to 32; by default 8 per pixel of radius, at most 32.

    Returns
    -------
    histogram : ndarray of shape (n, P + 2, P + 2, 2) or (P + 2, P + 2, 2), float64
        Axes sign pattern, magnitude pattern and centre; pattern k <= P: uniform with k ones; P + 1: all others. The
        shares of an image sum to 1. Sums over axes are the histograms of fewer components.

    Raises
    ------
    ValueError
        If the image is not 8-bit with two dimensions or three, or a parameter is out of its range.

    Notes
    -----
    With ``d_p = g_p - g_c`` the difference between neighbour p and the centre [1]_:

    - sign: 1 where ``d_p >= 0``; this is the pattern of `histofeat.features._lbp.lbp_histogram`;
    - magnitude: 1 where ``|d_p|`` is at least the mean of ``|d_p|`` over all points of all pixels counted;
    - centre: 1 where ``g_c`` is at least the mean grey level of the whole image.

    Signs and magnitudes are mapped to rotation-invariant uniform patterns (riu2). Neighbours are placed, interpolated
    and compared in exact integers as in `lbp_histogram`, so that rounding never decides a tie. Only pixels whose whole
    circle lies inside the image count; a dimension shorter than ``2 R + 1`` is first extended by repeating its border R
    times on either side (the mean grey level is that of the image as given).

    In a flat image all differences, and so their mean, are 0: every comparison is "at least", and the cell
    ``(P, P, 1)`` holds all pixels. Flips do not change the histogram, nor do quarter turns if `points` is a multiple of
    4.

    References
    ----------
    .. [1] Z. Guo, L. Zhang, D. Zhang, IEEE Transactions on Image Processing 19(6), 2010, 1657-1663.
       :doi:`10.1109/TIP.2010.2044957`

    Examples
    --------
    The centre of a 3x3 image is its only pixel that counts. Three neighbours are not darker. Those between grid points
    differ less than those on the grid, so the magnitudes alternate: no uniform pattern. The centre is above the mean.

    >>> import numpy as np
    >>> image = np.array([[9, 9, 9], [1, 5, 1], [1, 1, 1]], dtype=np.uint8)
    >>> np.argwhere(clbp_histogram(image, 1)).tolist()
    [[3, 9, 1]]
    """
    stack = as_stack("clbp_histogram", gray)
    points = check_ring("clbp_histogram", radius_px, points)
    sums, size = stack.sum(axis=(1, 2), dtype=np.int64), stack.shape[1] * stack.shape[2]
    bright = -(-sums // size)  # an integer is at least the mean if it is at least the mean rounded up
    shares = np.empty((len(stack), (points + 2) * (points + 2) * 2))
    _histograms(read_only(extended(stack, radius_px)), radius_px, *circle(points, radius_px), bright, shares)
    shares = shares.reshape(len(stack), points + 2, points + 2, 2)
    return shares[0] if np.ndim(gray) == 2 else shares


@dataclass(eq=False, repr=False)
class CompletedLBP(RingFeatures):
    """Histograms of completed local binary patterns (CLBP) at several radii.

    Parameters
    ----------
    radii_px : sequence of int, default (1, 2, 3)
        Radii of the circles of neighbours.
    points : sequence of int, optional
        Neighbours on each circle, 4 to 32, one number per radius; by default 8 per pixel of radius, at most 32.
    form : {"hybrid", "joint", "separate"}, default "hybrid"
        How sign (S), magnitude (M) and centre (C) are combined. With P points and in the notation of the paper: "joint"
        is S/M/C, one histogram of ``2 (P + 2)^2`` shares; "hybrid" is S_M/C, that of the signs beside the joint one of
        magnitude and centre, ``3 (P + 2)``; "separate" is S_M_C, three histograms, ``2 (P + 2) + 2``.
    channels : sequence of str, default ("gray",)
        Channels of `PatchBatch` to measure.

    See Also
    --------
    clbp_histogram : the definition, its borders, and what happens on flat and on small patches.

    Notes
    -----
    Columns are ``clbp_<channel>_r<radius>`` followed by the components they count: ``_s_<pattern>``, ``_m_<pattern>``
    and ``_c_<0 or 1>``, where a pattern is the number of its ones, or ``mixed``. Each histogram sums to 1. They do
    not change under flips, and under quarter turns if every number of points is a multiple of 4, as the default is.

    The paper finds S/M/C best. With the default circles it has 2,200 columns a channel, S_M/C 162; the default is the
    shorter one, as a patch of 50x50 pixels has hardly more pixels than S/M/C has cells at 24 points (1,352).

    Examples
    --------
    >>> import numpy as np
    >>> family = CompletedLBP(radii_px=(1,))
    >>> values = family.transform(np.zeros((1, 50, 50, 3), dtype=np.uint8))[0]
    >>> family.get_feature_names_out()[values == 1].tolist()
    ['clbp_gray_r1_s_08', 'clbp_gray_r1_m_08_c_1']
    """

    family: ClassVar[str] = "clbp"

    radii_px: Sequence[int] = (1, 2, 3)
    points: Sequence[int] | None = None
    form: str = "hybrid"
    channels: Sequence[str] = ("gray",)

    def _check_params(self) -> None:
        super()._check_params()
        check_name("CompletedLBP.form", self.form, _FORMS)

    def _columns(self, points: int) -> list[str]:
        patterns = [*(f"{k:02d}" for k in range(points + 1)), "mixed"]
        signs = [f"s_{s}" for s in patterns]
        magnitudes = [f"m_{m}" for m in patterns]
        centres = ["c_0", "c_1"]
        pairs = [f"{m}_{c}" for m in magnitudes for c in centres]
        if self.form == "joint":
            return [f"{s}_{pair}" for s in signs for pair in pairs]
        return [*signs, *pairs] if self.form == "hybrid" else [*signs, *magnitudes, *centres]

    def _measure(self, gray: np.ndarray, radius: int, points: int) -> list[np.ndarray]:
        joint = clbp_histogram(gray, radius, points)
        kept = {"joint": [()], "hybrid": [(2, 3), (1,)], "separate": [(2, 3), (1, 3), (1, 2)]}[self.form]
        return [joint.sum(axis=axes).reshape(len(joint), -1) for axes in kept]


@compiled
def _histograms(images, radius, corners, weights, bright, shares):
    """Fill `shares` (n, 2 (P + 2)^2) from `images` (n, H, W) uint8, H and W at least 2 radius + 1.

    Pixels are taken in runs of the flattened image, as for plain patterns: pixels of the margins get meaningless
    values, which are not counted. Differences are computed twice, for their mean and for the patterns: to store those
    of a large image would be slower.
    """
    n, height, width = images.shape
    levels = np.zeros(height * width + width + 1)
    rows = max(1, BLOCK // width)
    differences = np.empty(max(BLOCK, width))
    cells = np.empty(len(differences), np.uint16)
    counts = np.empty((4, shares.shape[1]), np.int32)
    for image in range(n):
        flat = images[image].ravel()
        levels[: len(flat)] = flat
        threshold = _mean_magnitude(levels, height, width, radius, corners, weights)
        counts[:] = 0
        for top in range(radius, height - radius, rows):
            bottom = min(top + rows, height - radius)
            first = top * width + radius
            size = bottom * width - radius - first
            _encode(levels, first, width, corners, weights, threshold, bright[image], differences[:size], cells[:size])
            for row in range(bottom - top):
                count_values(cells[row * width : (row + 1) * width - 2 * radius], counts)
        total = (height - 2 * radius) * (width - 2 * radius)
        shares[image] = counts.sum(axis=0) / total


@compiled
def _mean_magnitude(levels, height, width, radius, corners, weights):
    """Mean size of the differences over points and pixels, rounded up, in the unit of `SCALE`.

    The sum of a large image can exceed 64 bits, so its upper part is summed separately.
    """
    rows = max(1, BLOCK // width)
    differences = np.empty(max(BLOCK, width))
    sums = np.empty(len(differences))
    upper, lower, low_bits = 0, 0, (1 << 24) - 1
    for top in range(radius, height - radius, rows):
        bottom = min(top + rows, height - radius)
        first = top * width + radius
        size = bottom * width - radius - first
        part, found = sums[:size], differences[:size]
        part[:] = 0
        for point in range(len(weights)):
            _subtract(levels, first, width, corners, weights, point, found)
            for i in range(size):
                part[i] += abs(found[i])
        for row in range(bottom - top):
            for i in range(row * width, (row + 1) * width - 2 * radius):
                value = np.int64(part[i])
                upper += value >> 24
                lower += value & low_bits
    n = (height - 2 * radius) * (width - 2 * radius) * len(weights)
    whole = upper // n
    rest = ((upper - whole * n) << 24) + lower
    return float((whole << 24) + (rest + n - 1) // n)


@compiled
def _subtract(levels, first, width, corners, weights, point, differences):
    """Neighbour minus pixel, in the unit of `SCALE`; every operation is exact in float64."""
    a, b, c, d = weights[point, 0], weights[point, 1], weights[point, 2], weights[point, 3]
    centre, upper = np.uint64(first), np.uint64(first + corners[point, 0] * width + corners[point, 1])
    lower, right = upper + np.uint64(width), np.uint64(1)
    size = np.uint64(len(differences))
    if a == SCALE:
        for i in range(size):
            differences[i] = (levels[upper + i] - levels[centre + i]) * SCALE
    else:
        for i in range(size):
            above = a * levels[upper + i] + b * levels[upper + i + right]
            below = c * levels[lower + i] + d * levels[lower + i + right]
            differences[i] = above + below - levels[centre + i] * SCALE


@compiled
def _encode(levels, first, width, corners, weights, threshold, bright, differences, cells):
    """Position of each pixel in the joint histogram: sign pattern, magnitude pattern, centre."""
    size, points = len(cells), len(weights)
    signs, magnitudes = np.empty((3, size), np.uint8), np.empty((3, size), np.uint8)
    ones, changes = np.zeros((2, size), np.uint8), np.zeros((2, size), np.uint8)
    for point in range(points):
        _subtract(levels, first, width, corners, weights, point, differences)
        # The first point stays in row 2 for the last one; the others take rows 0 and 1 in turn.
        row, before = point % 2 if point else 2, (point - 1) % 2 if point > 1 else 2
        _compare(differences, threshold, signs[row], magnitudes[row])
        tally(signs, row, before, ones[0], changes[0])
        tally(magnitudes, row, before, ones[1], changes[1])
    close(signs, (points - 1) % 2, changes[0])
    close(magnitudes, (points - 1) % 2, changes[1])
    wide = np.uint16(points + 2)
    for i in range(size):
        sign = np.uint16(ones[0, i] if changes[0, i] <= 2 else points + 1)
        magnitude = np.uint16(ones[1, i] if changes[1, i] <= 2 else points + 1)
        centre = np.uint16(levels[first + i] >= bright)
        cells[i] = np.uint16(2) * (wide * sign + magnitude) + centre


@compiled
def _compare(differences, threshold, signs, magnitudes):
    """1 where a difference is not negative, and where its size is not below the threshold, else 0."""
    for i in range(len(differences)):
        signs[i] = differences[i] >= 0
        magnitudes[i] = abs(differences[i]) >= threshold
