"""Parameter-free threshold adjacency statistics: neighbours of each pixel in maps of bright pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, sqrt
from typing import ClassVar

import numpy as np

from histofeat.features._base import PatchFeatures
from histofeat.features._batch import PatchBatch, as_stack, check_channels, read_only
from histofeat.features._neighbourhoods import count_values
from histofeat.images import compiled

#: The three binary maps, then their complements, in the order of mahotas.
_MAPS = ("around", "above_low", "above_mean", "not_around", "not_above_low", "not_above_mean")


def pftas(gray: np.ndarray) -> np.ndarray:
    """Parameter-free threshold adjacency statistics of each image.

    Parameters
    ----------
    gray : ndarray of shape (n, H, W) or (H, W), uint8
        Images of one size.

    Returns
    -------
    statistics : ndarray of shape (n, 54) or (54,), float64
        Nine shares for each of six binary maps; the shares of a map sum to 1, or are all 0.

    Raises
    ------
    ValueError
        If the image is not 8-bit with two or three dimensions.

    Notes
    -----
    Let T be Otsu's threshold, mu and s the mean and standard deviation of the pixels above T [2]_. Three maps are
    on where the image is inside ``(mu - s, mu + s)``, above ``mu - s``, above ``mu``; three more are their
    complements. Of the *off* pixels of a map, the k-th share (k = 0 ... 8) have exactly k of 8 neighbours on;
    the border is extended by repeating it. This is `mahotas.features.pftas`, the parameter-free form of [1]_: the
    maps and counts are the same, and mu is divided by the number of pixels plus 1e-8 as there. Off pixels of a
    complement are on pixels of its map, so both come from one pass.

    A flat image other than black has mu equal to its value: because of that 1e-8 its "above" maps are on everywhere,
    and the first map is on nowhere. On a black image mu is 0 and every map is off. A map without off pixels has nine
    zeros, as in mahotas. Flips and quarter turns do not change any value.

    References
    ----------
    .. [1] N. A. Hamilton et al., BMC Bioinformatics 8, 2007, 110. :doi:`10.1186/1471-2105-8-110`
    .. [2] L. P. Coelho et al., "Structured Literature Image Finder", in Linking Literature, Information, and
       Knowledge for Biology, 2010, 23-32. :doi:`10.1007/978-3-642-13131-8_4`

    Examples
    --------
    One bright pixel: it is on in the two "above" maps, and its eight neighbours have one neighbour on.

    >>> import numpy as np
    >>> image = np.zeros((5, 5), dtype=np.uint8)
    >>> image[2, 2] = 200
    >>> (pftas(image)[9:18] * 24).round().astype(int).tolist()
    [16, 8, 0, 0, 0, 0, 0, 0, 0]
    """
    stack = as_stack("pftas", gray)
    shares = np.empty((len(stack), 54))
    _adjacencies(read_only(stack), read_only(np.pad(stack, ((0, 0), (1, 1), (1, 1)), mode="edge")), shares)
    return shares[0] if np.ndim(gray) == 2 else shares


@dataclass(eq=False, repr=False)
class PFTAS(PatchFeatures):
    """Parameter-free threshold adjacency statistics, 54 per channel.

    Parameters
    ----------
    channels : sequence of str, default ("red", "green", "blue")
        Channels of `PatchBatch` to measure; the default gives the 162 values that are commonly used on H&E patches.

    See Also
    --------
    pftas : the definition, its borders, and what happens on flat patches.

    Notes
    -----
    Columns are ``pftas_<channel>_<map>_<neighbours>``, with the maps ``around`` (within one standard deviation of the
    mean), ``above_low``, ``above_mean`` and their complements ``not_...``. They do not change under flips and
    quarter turns.

    Examples
    --------
    >>> import numpy as np
    >>> family = PFTAS()
    >>> family.transform(np.full((1, 50, 50, 3), 255, dtype=np.uint8)).shape
    (1, 162)
    >>> str(family.get_feature_names_out()[0])
    'pftas_red_around_0'
    """

    family: ClassVar[str] = "pftas"
    _invariant_to_turns: ClassVar[bool] = True

    channels: Sequence[str] = ("red", "green", "blue")

    def _check_params(self) -> None:
        check_channels("PFTAS.channels", self.channels)

    def _feature_names(self) -> list[str]:
        return [f"pftas_{channel}_{name}_{k}" for channel in self.channels for name in _MAPS for k in range(9)]

    def _compute(self, batch: PatchBatch) -> np.ndarray:
        return np.hstack([pftas(batch.channel(channel)) for channel in self.channels]).astype(np.float32)


@compiled
def _adjacencies(images, padded, shares):
    """Fill `shares` (n, 54) from `images` (n, H, W) uint8 and from the same images, padded with their border."""
    tables = np.empty((4, 256), np.int64)
    grid, line = np.empty((4, 400), np.int32), np.empty((4, 20), np.int32)
    for image in range(len(images)):
        tables[:] = 0
        count_values(images[image].ravel(), tables)
        for level in range(256):
            tables[0, level] += tables[1, level] + tables[2, level] + tables[3, level]
        low, high, middle = _thresholds(tables[0])
        grid[:] = 0
        line[:] = 0
        _count_adjacencies(padded[image], low, high, middle, grid, line)
        _share_out(grid, line, shares[image])


@compiled
def _otsu(histogram):
    """Otsu's threshold by mahotas's recurrence, operation by operation: rounding decides between near ties."""
    n, weighted = 0, 0
    for level in range(256):
        n += histogram[level]
        weighted += level * histogram[level]
    below, above = histogram[0], n - histogram[0]
    if above == 0:
        return 0
    mean_below, mean_above = 0.0, float(weighted) / above
    gap = mean_below - mean_above
    best, threshold = float(below) * above * gap * gap, 0
    for level in range(1, 256):
        count = histogram[level]
        before, beyond = below, above
        below += count
        above -= count
        if below == 0:
            continue
        if above == 0:
            break
        mean_below = (mean_below * before + level * count) / below
        mean_above = (mean_above * beyond - level * count) / above
        gap = mean_below - mean_above
        between = float(below) * above * gap * gap
        if between > best:
            best, threshold = between, level
    return threshold


@compiled
def _thresholds(histogram):
    """Smallest and largest value around the mean of the pixels above Otsu's threshold, and smallest above it."""
    threshold = _otsu(histogram)
    n, total = 0, 0
    for level in range(threshold + 1, 256):
        n += histogram[level]
        total += level * histogram[level]
    spread = 0.0
    if n > 0:
        mean = total / n
        for level in range(threshold + 1, 256):
            spread += histogram[level] * ((level - mean) * (level - mean))
        spread = sqrt(spread / n)
    mu = total / (n + 1e-8)
    low, high, middle = floor(mu - spread) + 1, ceil(mu + spread) - 1, floor(mu) + 1
    return max(low, 0), min(max(high, -1), 255), min(middle, 256)


@compiled
def _count_adjacencies(padded, low, high, middle, grid, line):
    """Count pixels by state and neighbours: the two "above" maps together in `grid`, the map "around" in `line`.

    The key of a pixel in a map is its number of neighbours on, plus itself; and 10 more if it is on.
    """
    height, width = padded.shape[0] - 2, padded.shape[1] - 2
    size = height * (width + 2) - 2
    flat = padded.ravel()
    column = np.empty(size + 2, np.uint8)
    on = np.empty(len(flat), np.uint8)
    around, above_low, above_mean = np.empty(size, np.uint8), np.empty(size, np.uint8), np.empty(size, np.uint8)
    top = np.int64(255)
    _keys(flat, low, high, on, width + 2, column, around)
    _keys(flat, low, top, on, width + 2, column, above_low)
    _keys(flat, middle, top, on, width + 2, column, above_mean)
    for y in range(height):
        start = y * (width + 2)
        _count_keys(around[start : start + width], above_low[start:], above_mean[start:], grid, line)


@compiled
def _keys(flat, low, high, on, width, column, keys):
    """Number of pixels from low to high in each 3x3 window, plus 10 where its centre is one of them."""
    for i in range(len(flat)):
        on[i] = (flat[i] >= low) & (flat[i] <= high)
    upper, middle, lower = on, on[width:], on[2 * width :]
    for i in range(len(column)):
        column[i] = upper[i] + middle[i] + lower[i]
    left, centre, right = column, column[1:], column[2:]
    here = on[width + 1 :]
    for i in range(len(keys)):
        keys[i] = left[i] + centre[i] + right[i] + np.uint8(10) * here[i]


@compiled
def _count_keys(around, above_low, above_mean, grid, line):
    """Add a row of keys to the tables, four pixels in turn."""
    size = np.uint64(len(around))
    whole = size // np.uint64(4) * np.uint64(4)
    wide = np.uint64(20)
    for x in range(np.uint64(0), whole, np.uint64(4)):
        for k in range(np.uint64(4)):
            grid[k, above_low[x + k] * wide + above_mean[x + k]] += 1
            line[k, around[x + k]] += 1
    for x in range(whole, size):
        grid[0, above_low[x] * wide + above_mean[x]] += 1
        line[0, around[x]] += 1


@compiled
def _share_out(grid, line, shares):
    """Turn the counts by key into the nine shares of each map and complement."""
    maps = np.zeros((3, 20), np.int64)
    for cell in range(400):
        grid[0, cell] += grid[1, cell] + grid[2, cell] + grid[3, cell]
    for key in range(20):
        maps[0, key] = line[0, key] + line[1, key] + line[2, key] + line[3, key]
        for other in range(20):
            maps[1, key] += grid[0, 20 * key + other]
            maps[2, other] += grid[0, 20 * key + other]
    for name in range(3):
        # Off pixels have 0 to 8 neighbours on; on pixels, counted with themselves, have 19 - key off.
        off, on = 0, 0
        for k in range(9):
            off += maps[name, k]
            on += maps[name, 19 - k]
        for k in range(9):
            shares[9 * name + k] = maps[name, k] / off if off else 0.0
            shares[27 + 9 * name + k] = maps[name, 19 - k] / on if on else 0.0
