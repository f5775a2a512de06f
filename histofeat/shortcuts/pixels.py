"""What a patch looks like before any tissue is seen: its mean colour, its bare glass, its compression, its blur."""

import numpy as np

__all__ = ["background_share", "blockiness", "laplacian_variance", "quiet_share"]

#: Rounding to 8 bits leaves about 0.3 of a coefficient that was set to zero. Not 1, which coefficients of whole numbers
#: can hit exactly: then the last bit of a sum would decide.
_QUIET = 0.97


def background_share(rgb, min_value=220, max_saturation=20):
    """Share of the pixels that are bright and without colour, as bare glass is.

    Parameters
    ----------
    rgb : ndarray of shape (n, H, W, 3), uint8
        Patches, red first.
    min_value : int, default=220
        The largest of the three channels is at least this, 0 to 255.
    max_saturation : int, default=20
        Saturation in units of 1/255: (largest - smallest) / largest is at most ``max_saturation / 255``.

    Returns
    -------
    share : ndarray of shape (n,), float64
        0 to 1.

    Notes
    -----
    Whole numbers are compared, ``255 (largest - smallest) <= max_saturation * largest``, so nothing is rounded. Fat and
    the lumen of ducts let as much light through as glass does, and count as background too.

    Examples
    --------
    >>> import numpy as np
    >>> patch = np.array([[[245, 243, 244], [245, 200, 244]], [[90, 90, 90], [240, 240, 230]]], dtype=np.uint8)
    >>> background_share(patch[np.newaxis]).tolist()
    [0.5]
    """
    largest, smallest = rgb.max(axis=3).astype(np.int32), rgb.min(axis=3).astype(np.int32)
    colourless = 255 * (largest - smallest) <= max_saturation * largest
    return ((largest >= min_value) & colourless).mean(axis=(1, 2))


def blockiness(gray, block_px=8):
    """How much larger the steps between blocks are than those within, for every position of the grid of blocks.

    Parameters
    ----------
    gray : ndarray of shape (n, H, W), uint8
        Grey patches.
    block_px : int, default=8
        Side of a block, at least 2; 8 in JPEG.

    Returns
    -------
    contrast : ndarray of shape (n, 2, block_px), float64
        -1 to 1; along the second axis the steps between rows and those between columns, along the third how many
        pixels the first block is short of a whole one (0: the grid begins with the patch).

    Notes
    -----
    With B the mean absolute step between neighbouring pixels across block borders and I that within blocks:
    (B - I) / (B + I). It is 0 where the patch is flat, and where it is too small to have both kinds of step. The idea,
    on other measures of the step, is that of Wang, Bovik and Evans (2000, doi:10.1109/ICIP.2000.899622).

    Examples
    --------
    >>> import numpy as np
    >>> stripes = np.repeat(np.array([10, 20, 10], dtype=np.uint8), 4)[np.newaxis, np.newaxis].repeat(4, axis=1)
    >>> blockiness(stripes, block_px=4)[0, 1].tolist()
    [1.0, -1.0, -1.0, -1.0]
    """
    levels = gray.astype(np.int32)
    found = np.zeros((len(gray), 2, block_px))
    for axis in (0, 1):
        steps = np.abs(np.diff(levels, axis=axis + 1)).sum(axis=2 - axis, dtype=np.int64)
        for phase in range(block_px):
            # Step k lies between pixels k and k + 1.
            border = (np.arange(1, steps.shape[1] + 1) + phase) % block_px == 0
            if border.any() and not border.all():
                across, within = steps[:, border].mean(axis=1), steps[:, ~border].mean(axis=1)
                total = across + within
                np.divide(across - within, total, out=found[:, axis, phase], where=total > 0)
    return found


def quiet_share(gray, block_px=8):
    """Share of the high frequencies of each block that compression may have set to zero.

    Parameters
    ----------
    gray : ndarray of shape (n, H, W), uint8
        Grey patches.
    block_px : int, default=8
        Side of a block, at least 2.

    Returns
    -------
    share : ndarray of shape (n,), float64
        0 to 1: coefficients (u, v) with ``u + v >= block_px`` of the orthonormal cosine transform of the whole blocks,
        the grid beginning with the patch, whose magnitude is below 0.97. A flat patch has 1; a patch without a whole
        block has 1, too: it shows no high frequency.

    Notes
    -----
    JPEG divides these coefficients by the largest numbers of its table and rounds; most become zero (ITU-T T.81). After
    decoding to 8 bits they are what rounding leaves. A blurred patch is quiet as well.

    Examples
    --------
    >>> import numpy as np
    >>> checks = np.indices((8, 8)).sum(axis=0) % 2 * 200
    >>> quiet_share(np.stack([checks, np.zeros((8, 8))]).astype(np.uint8)).tolist()
    [0.6428571428571429, 1.0]
    """
    n, height, width = gray.shape
    rows, columns = height // block_px, width // block_px
    if rows == 0 or columns == 0:
        return np.ones(n)
    whole = gray[:, : rows * block_px, : columns * block_px].astype(np.float64)
    blocks = whole.reshape(n, rows, block_px, columns, block_px).transpose(0, 1, 3, 2, 4)
    transform = _cosines(block_px)
    coefficients = transform @ blocks @ transform.T
    high = np.add.outer(np.arange(block_px), np.arange(block_px)) >= block_px
    return (np.abs(coefficients[..., high]) < _QUIET).mean(axis=(1, 2, 3))


def _cosines(size):
    """Matrix of the orthonormal discrete cosine transform (type II)."""
    row, column = np.arange(size)[:, np.newaxis], np.arange(size)
    matrix = np.sqrt(2 / size) * np.cos(np.pi * (2 * column + 1) * row / (2 * size))
    matrix[0] /= np.sqrt(2)
    return matrix


def laplacian_variance(gray):
    """Variance of the second differences: low where a patch is blurred or smooth.

    Parameters
    ----------
    gray : ndarray of shape (n, H, W), uint8
        Grey patches.

    Returns
    -------
    variance : ndarray of shape (n,), float64
        In squared grey levels, of the population; 0 on a flat patch.

    Notes
    -----
    The Laplacian is above + below + left + right - 4 centre; beyond the border the nearest pixel is repeated, so that a
    patch one pixel wide has one as well. As a measure of focus it comes from Pech-Pacheco and others (2000,
    doi:10.1109/ICPR.2000.903548), who divide by 6 and take magnitudes first; here signs are kept.

    Examples
    --------
    >>> import numpy as np
    >>> laplacian_variance(np.array([[[0, 0, 0], [0, 9, 0], [0, 0, 0]]], dtype=np.uint8)).tolist()
    [180.0]
    """
    levels = np.pad(gray.astype(np.int64), ((0, 0), (1, 1), (1, 1)), mode="edge")
    centre = levels[:, 1:-1, 1:-1]
    second = levels[:, :-2, 1:-1] + levels[:, 2:, 1:-1] + levels[:, 1:-1, :-2] + levels[:, 1:-1, 2:] - 4 * centre
    n = centre[0].size
    # Sums of whole numbers: the same to the bit in whatever batch a patch travels.
    return ((second**2).sum(axis=(1, 2)) - second.sum(axis=(1, 2)) ** 2 / n) / n
