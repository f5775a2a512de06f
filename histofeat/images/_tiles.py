"""Geometry of images: tiles, mirroring to a size, scaling, turning, and combining the probabilities of tiles."""

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral

import numpy as np

from histofeat.exceptions import PatchError, check_name, check_real, check_that
from histofeat.images._headers import MAX_PIXELS, is_too_large
from histofeat.images._scale import rescale, resized, scale_ratio

POLICIES = ("auto", "tile", "pad", "resize", "whole")
"""Known policies; `choose_policy` says what is done with an image."""

EDGES = ("overlap", "reflect")
AGGREGATES = ("mean", "median", "vote")
"""How the probabilities of tiles are combined; see `aggregate`."""

#: Share of a tile that an image has to cover once it is brought to the scale of the tiles: below it, most of the tile
#: would be mirrored.
_LEAST_OF_A_TILE = 0.5

#: Quarter turns counter-clockwise, then whether the patch is mirrored left to right; the first is the patch itself.
VIEWS = ((0, False), (0, True), (1, False), (1, True), (2, False), (2, True), (3, False), (3, True))
#: How many of them a network can be asked to average over.
VIEW_COUNTS = (1, 8)


@dataclass(frozen=True)
class TileGrid:
    """Places of tiles on one image.

    Parameters
    ----------
    tops, lefts : tuple of int
        Upper and left borders of the rows and columns of tiles, in px.
    size : tuple of (int, int)
        Height and width of a tile in px.
    padded : tuple of (int, int)
        Height and width of the image that the tiles are cut from: larger than the image where it is mirrored at its
        lower and right border.

    Examples
    --------
    >>> grid = make_grid((460, 700), (50, 50))
    >>> len(grid), grid.tops[-2:], grid.lefts[-1]
    (140, (400, 410), 650)
    """

    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    size: tuple[int, int]
    padded: tuple[int, int]

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def cut(self, image: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the tiles row by row: views of shape (h, w, 3) into `image` (H, W, 3), or into its mirrored copy."""
        image = pad_to(image, self.padded)
        height, width = self.size
        for top in self.tops:
            for left in self.lefts:
                yield image[top : top + height, left : left + width]


def make_grid(image_size: tuple[int, int], size: tuple[int, int], *, edges: str = "overlap") -> TileGrid:
    """Lay tiles over an image, so that each pixel lies in one at least.

    Parameters
    ----------
    image_size : tuple of (int, int)
        Height and width of the image in px.
    size : tuple of (int, int)
        Height and width of a tile in px.
    edges : {"overlap", "reflect"}
        What happens where the image is no multiple of the tile: the last row (column) is moved back until it ends with
        the image, and overlaps the one before; or the image is mirrored at its border until it is a multiple. An image
        that is smaller than a tile is mirrored in both cases.

    Returns
    -------
    grid : TileGrid
        Row by row from the upper left corner.

    Raises
    ------
    ValueError
        If a size is not positive or `edges` is unknown.

    Examples
    --------
    >>> make_grid((50, 120), (50, 50)).lefts, make_grid((50, 120), (50, 50), edges="reflect").lefts
    ((0, 50, 70), (0, 50, 100))
    """
    check_name("edges", edges, EDGES)
    for name, given in (("image_size", image_size), ("size", size)):
        if len(given) != 2 or not all(isinstance(side, Integral) and side > 0 for side in given):
            raise ValueError(f"{name}: expected height and width in px, got {given!r}. Give two positive integers.")
    tops, height = _starts(image_size[0], size[0], edges)
    lefts, width = _starts(image_size[1], size[1], edges)
    return TileGrid(tops, lefts, tuple(map(int, size)), (height, width))


def _starts(length: int, tile: int, edges: str) -> tuple[tuple[int, ...], int]:
    """Give the first pixels of the tiles along one axis, and the length that they need."""
    n_tiles = -(-length // tile)
    if edges == "reflect" or length < tile:
        return tuple(range(0, n_tiles * tile, tile)), n_tiles * tile
    return tuple(min(number * tile, length - tile) for number in range(n_tiles)), length


def pad_to(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Mirror an image at its lower and right border, the border pixels repeated, until it is as large as `size`.

    Parameters
    ----------
    image : ndarray of shape (H, W, 3), uint8
        RGB.
    size : tuple of (int, int)
        Height and width in px. A side that is as long already stays as it is.

    Returns
    -------
    padded : ndarray of shape (max(H, height), max(W, width), 3), uint8
        `image` itself where there is nothing to do.

    Examples
    --------
    >>> pad_to(np.arange(3, dtype=np.uint8).reshape(1, 3, 1), (1, 5))[0, :, 0].tolist()
    [0, 1, 2, 2, 1]
    """
    below, beside = max(0, size[0] - image.shape[0]), max(0, size[1] - image.shape[1])
    return np.pad(image, ((0, below), (0, beside), (0, 0)), mode="symmetric") if below or beside else image


def fit_to(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale an image to a size, its proportions kept.

    Parameters
    ----------
    image : ndarray of shape (H, W, 3), uint8
        RGB. It is mirrored at its lower or right border to the proportions of `size` first.
    size : tuple of (int, int)
        Height and width in px.

    Returns
    -------
    scaled : ndarray of shape (height, width, 3), uint8
        The mean over the covered area where sides shrink, bilinear (OpenCV's bit-exact form) where they grow.

    Notes
    -----
    Scaling changes the magnification: nuclei of a whole image are no longer of the size that a model learnt. It is for
    models that learnt from images scaled in the same way.

    Examples
    --------
    >>> fit_to(np.full((460, 700, 3), 7, dtype=np.uint8), (50, 50)).shape
    (50, 50, 3)
    """
    height, width = size
    tall, wide = image.shape[:2]
    image = pad_to(image, (-(-wide * height // width), -(-tall * width // height)))
    return resized(image, (height, width))


def choose_policy(policy: str, image_size: tuple[int, int], size: tuple[int, int] | None) -> str:
    """Say what is done with an image.

    Parameters
    ----------
    policy : {"auto", "tile", "pad", "resize", "whole"}
        What was asked for.
    image_size : tuple of (int, int)
        Height and width of the image in px.
    size : tuple of (int, int) or None
        Those of the training patches; None where they were not of one size.

    Returns
    -------
    done : {"as is", "tile", "pad", "resize", "whole"}
        "as is" for an image of the training size, by any policy. "auto" tiles an image with a side that is longer, and
        mirrors one that is smaller to the training size ("pad"), both of which keep the magnification; where there was
        no one training size, it takes images whole. "pad" does the same.

    Raises
    ------
    ValueError
        If the policy is unknown, or needs a training size and there is none.

    Examples
    --------
    >>> [choose_policy("auto", size, (50, 50)) for size in ((50, 50), (460, 700), (50, 32), (32, 700))]
    ['as is', 'tile', 'pad', 'tile']
    """
    check_name("policy", policy, POLICIES)
    if size is None:
        expected = "'whole' for a model whose training patches were not of one size"
        check_that("policy", policy, policy in ("auto", "whole"), expected, "Give patch_size=(height, width) too.")
        return "whole"
    if tuple(image_size) == tuple(size):
        return "as is"
    if policy not in ("auto", "pad"):
        return policy
    return "tile" if image_size[0] > size[0] or image_size[1] > size[1] else "pad"


def aggregate(proba: np.ndarray, how: str = "mean") -> np.ndarray:
    """Combine the probabilities of the tiles of one image.

    Parameters
    ----------
    proba : ndarray of shape (t, k), float64
        Of each tile.
    how : {"mean", "median", "vote"}
        The mean; the median of each class, brought back to sum 1; or the share of tiles in which a class is the most
        probable (the first one in a tie).

    Returns
    -------
    proba : ndarray of shape (k,), float64
        Of the image. One tile comes back as it is, except by "vote".

    Raises
    ------
    ValueError
        If `how` is unknown.

    Examples
    --------
    >>> tiles = np.array([[0.9, 0.1], [0.6, 0.4], [0.0, 1.0]])
    >>> [aggregate(tiles, how).round(3).tolist() for how in AGGREGATES]
    [[0.5, 0.5], [0.6, 0.4], [0.667, 0.333]]
    """
    check_name("aggregate", how, AGGREGATES)
    if how == "vote":
        return np.bincount(proba.argmax(axis=1), minlength=proba.shape[1]) / len(proba)
    if len(proba) == 1:
        return proba[0]
    if how == "mean":
        return proba.mean(axis=0)
    middle = np.median(proba, axis=0)
    # Of three classes or more all medians can be 0; then the mean is used.
    return middle / middle.sum() if middle.sum() > 0 else proba.mean(axis=0)


def take_view(pixels: np.ndarray, view: tuple[int, bool]) -> np.ndarray:
    """One view of every patch: quarter turns counter-clockwise, then left and right exchanged.

    Parameters
    ----------
    pixels : ndarray of shape (n, H, W, ...)
    view : (int, bool)
        One of `VIEWS`.

    Returns
    -------
    viewed : ndarray of shape (n, H, W, ...), or (n, W, H, ...) after an odd number of quarter turns
        A window on `pixels`, not a copy.

    Examples
    --------
    >>> take_view(np.arange(4).reshape(1, 2, 2), (1, False)).tolist()
    [[[1, 3], [0, 2]]]
    """
    turn, mirrored = view
    turned = np.rot90(pixels, turn, axes=(1, 2))
    return turned[:, :, ::-1] if mirrored else turned


@dataclass(frozen=True)
class TilePlan:
    """Settings of how images are tiled, resized and combined.

    Parameters
    ----------
    policy, edges, aggregate : str
        As of `choose_policy`, `make_grid` and `aggregate`.
    size : tuple of (int, int) or None
        Height and width of a tile in px.
    min_tissue : float in (0, 1] or None
        Share of tissue that a tile needs.
    mpp : float or None
        Micrometres per pixel of a tile.

    Raises
    ------
    ValueError
        If one of them is unknown or out of its range.
    """

    policy: str
    size: tuple[int, int] | None
    edges: str
    aggregate: str
    min_tissue: float | None
    mpp: float | None = None

    def __post_init__(self) -> None:
        choose_policy(self.policy, (1, 1), self.size)
        make_grid((1, 1), self.size or (1, 1), edges=self.edges)
        check_name("aggregate", self.aggregate, AGGREGATES)
        if self.min_tissue is not None:
            check_real("min_tissue", self.min_tissue, "above 0, at most 1", lambda share: 0 < share <= 1, "Use 0.05.")

    def prepare(
        self, pixels: np.ndarray, mpp: float | None = None, *, name: str = "image"
    ) -> tuple[str, Iterator[np.ndarray], float]:
        """Bring an image to the scale of the tiles, unless it is resized anyway, and cut it.

        Parameters
        ----------
        pixels : ndarray of shape (H, W, 3), uint8
            RGB.
        mpp : float or None
            Micrometres per pixel of the image.
        name : str
            What an error calls it.

        Returns
        -------
        done : str
            As of `choose_policy`, after rescaling.
        tiles : iterator of ndarray
            What to score.
        ratio : float
            As of `scale_ratio`; 1.0 where the image was not rescaled.

        Raises
        ------
        PatchError
            If a rescaled image is less than half of a tile, unless the policy is "pad"; if it would be too large.
        """
        ratio = 1.0 if self.policy == "resize" else scale_ratio(mpp, self.mpp)
        height, width = (round(side * ratio) for side in pixels.shape[:2])
        if ratio > 1 and is_too_large(height, width):
            expected = f"{name}: expected at most {MAX_PIXELS:,} px at {self.mpp:g} micrometres per pixel"
            raise PatchError(f"{expected}, got {width:,} x {height:,} px. Cut the image.")
        if ratio != 1 and self.size and self.policy in ("auto", "tile"):
            covered = min(height, self.size[0]) * min(width, self.size[1])
            if covered < _LEAST_OF_A_TILE * self.size[0] * self.size[1]:
                tile = "{1} x {0} px".format(*self.size)
                raise PatchError(
                    f"{name}: expected at least half of a patch of {tile} at {self.mpp:g} micrometres per pixel, got "
                    f"{width} x {height} px after rescaling by {ratio:.3g}. Give a larger part of the slide, or choose "
                    "the policy 'pad' or 'resize'."
                )
        pixels = pixels if ratio == 1 else rescale(pixels, ratio)
        done = choose_policy(self.policy, pixels.shape[:2], self.size)
        if done == "tile":
            return done, make_grid(pixels.shape[:2], self.size, edges=self.edges).cut(pixels), ratio
        if done == "pad":
            return done, iter([pad_to(pixels, self.size)]), ratio
        return done, iter([fit_to(pixels, self.size) if done == "resize" else pixels]), ratio
