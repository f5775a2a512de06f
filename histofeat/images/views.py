"""The eight views of a patch: a slide has no top and no left."""

from __future__ import annotations

import numpy as np

__all__ = ["VIEWS", "VIEW_COUNTS", "take_view"]

#: Quarter turns counter-clockwise, then whether the patch is mirrored left to right; the first is the patch itself.
VIEWS = ((0, False), (0, True), (1, False), (1, True), (2, False), (2, True), (3, False), (3, True))
#: How many of them a network can be asked to average over.
VIEW_COUNTS = (1, 8)


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
