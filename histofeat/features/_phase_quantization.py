"""Local phase quantization: signs of low frequencies around each pixel, which do not change under blur."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral
from typing import ClassVar

import numpy as np

from histofeat.exceptions import check_name, check_real
from histofeat.features._base import PatchFeatures
from histofeat.features._batch import PatchBatch, as_stack, check_channels, check_different, read_only
from histofeat.features._neighbourhoods import extended
from histofeat.images import compiled

#: Responses closer to zero than this, in grey levels, count as zero. Rounding errors are far smaller and decide no
#: sign.
_ZERO = 1e-9
#: Factors of the authors' code that separate equal variances, so that the decorrelation has unique directions.
_PART = 1 + 1e-6 * np.arange(7, -1, -1)


def lpq_histogram(
    gray: np.ndarray, window_px: int = 7, *, window: str = "uniform", decorrelate: bool = True, rho: float = 0.9
) -> np.ndarray:
    """Share of each of 256 codes of local phase in each image.

    Parameters
    ----------
    gray : ndarray of shape (n, H, W) or (H, W), uint8
        Images of one size.
    window_px : int, default 7
        Side of the square window around each pixel, odd, 3 to 63.
    window : {"uniform", "gaussian"}, default "uniform"
        Weights in the window; the Gaussian has a standard deviation of ``(window_px - 1) / 4``.
    decorrelate : bool, default True
        Whether to decorrelate the eight values of a pixel before their signs are taken.
    rho : float, default 0.9
        Correlation of neighbouring pixels, between 0 and 1, that the decorrelation assumes.

    Returns
    -------
    histogram : ndarray of shape (n, 256) or (256,), float64
        Shares of the codes; they sum to 1.

    Raises
    ------
    ValueError
        If the image is not 8-bit with two dimensions or three, or a parameter is out of its range.

    Notes
    -----
    With a = 1 / `window_px`, the Fourier transform of the window around x at frequency u (cycles per pixel, across
    and down) is ``F(u) = sum_y w(y) f(x - y) exp(-2 pi i u.y)`` [1]_. It is taken at four frequencies: (a, 0), (0, a),
    (a, a) and, as in the authors' code, (-a, a). A blur that is symmetric about its centre does not change the phase of
    low frequencies, so the code keeps only signs: bit j is 1 where value j of ``Re F1, Im F1, ..., Re F4, Im F4`` is at
    least 0, and counts ``2^j``.

    The decorrelation is the authors': pixels a distance d apart are taken to correlate by ``rho^d``, the eight values
    have the covariance D under it, and are replaced by their projections on the eigenvectors of D, in descending order
    of eigenvalues. Equal eigenvalues are separated as in their code, by factors ``1 + 1e-6 (7 - j)`` on value j. The
    largest entry of each eigenvector, the first of nearly equal ones, is made positive; the paper leaves the sign open.

    Under the Gaussian window the authors' code subtracts the mean from ``exp(-2 pi i a y)`` times the window, so that
    the response of flat regions is 0; so does this function. Only pixels whose window lies inside the image count; a
    dimension shorter than the window is first extended by repeating its border `window_px` // 2 times on either side.

    A response below 1e-9 grey levels (the weights of a window sum to 1) counts as 0. So a flat region has all bits 1,
    and a flat image has code 255 only; the authors' code requires values above 0, so that rounding decides the bits of
    flat regions. Flips and turns swap codes: the histogram is not invariant.

    References
    ----------
    .. [1] V. Ojansivu, J. Heikkila, Image and Signal Processing (ICISP), LNCS 5099, 2008, 236-243.
       :doi:`10.1007/978-3-540-69905-7_27`

    Examples
    --------
    One window in which grey levels fall from left to right: the sine across (bit 1) is negative, all else at least 0.

    >>> import numpy as np
    >>> image = np.tile(np.array([200, 100, 0], dtype=np.uint8), (3, 1))
    >>> f"{lpq_histogram(image, 3, decorrelate=False).argmax():08b}"
    '11111101'
    """
    stack = as_stack("lpq_histogram", gray)
    _check_window("lpq_histogram", window_px, window, decorrelate, rho, "window_px")
    images = read_only(extended(stack, window_px // 2))
    shares = np.empty((len(images), 256))
    weights = _weights(int(window_px), window)
    _histograms(images, weights, _directions(int(window_px), window, float(rho) if decorrelate else None), shares)
    return shares[0] if np.ndim(gray) == 2 else shares


@dataclass(eq=False, repr=False)
class LocalPhaseQuantization(PatchFeatures):
    """Histograms of local phase codes (LPQ), 256 values per window and channel.

    Parameters
    ----------
    windows_px : sequence of int, default (7,)
        Sides of the square windows, odd, 3 to 63.
    window : {"uniform", "gaussian"}, default "uniform"
        Weights in the window.
    decorrelate : bool, default True
        Whether to decorrelate the eight values of a pixel before their signs are taken.
    rho : float, default 0.9
        Correlation of neighbouring pixels, between 0 and 1, that the decorrelation assumes.
    channels : sequence of str, default ("gray",)
        Channels of `PatchBatch` to measure.

    See Also
    --------
    lpq_histogram : the definition, its borders, and what happens on flat and on small patches.

    Notes
    -----
    Columns are ``lpq_<channel>_w<window>_<code>`` with codes 000 to 255. They change under flips and turns.

    Examples
    --------
    >>> import numpy as np
    >>> family = LocalPhaseQuantization()
    >>> values = family.transform(np.zeros((1, 50, 50, 3), dtype=np.uint8))[0]
    >>> family.get_feature_names_out()[values > 0].tolist()
    ['lpq_gray_w7_255']
    """

    family: ClassVar[str] = "lpq"

    windows_px: Sequence[int] = (7,)
    window: str = "uniform"
    decorrelate: bool = True
    rho: float = 0.9
    channels: Sequence[str] = ("gray",)

    def _check_params(self) -> None:
        owner = type(self).__name__
        for side in check_different(f"{owner}.windows_px", self.windows_px, "windows such as (7,)"):
            _check_window(owner, side, self.window, self.decorrelate, self.rho, "windows_px")
        check_channels(f"{owner}.channels", self.channels)

    def _feature_names(self) -> list[str]:
        return [f"lpq_{c}_w{side}_{code:03d}" for c in self.channels for side in self.windows_px for code in range(256)]

    def _compute(self, batch: PatchBatch) -> np.ndarray:
        how = {"window": self.window, "decorrelate": self.decorrelate, "rho": self.rho}
        return np.hstack(
            [lpq_histogram(batch.channel(c), side, **how) for c in self.channels for side in self.windows_px]
        ).astype(np.float32)


def _check_window(owner: str, side, window, decorrelate, rho, side_name: str) -> None:
    """Validate one window and its options."""
    if not isinstance(side, Integral) or isinstance(side, bool) or not 3 <= side <= 63 or side % 2 == 0:
        raise ValueError(f"{owner}.{side_name}: expected an odd integer from 3 to 63, got {side!r}.")
    check_name(f"{owner}.window", window, ("uniform", "gaussian"))
    if not isinstance(decorrelate, bool | np.bool_):
        raise ValueError(f"{owner}.decorrelate: expected True or False, got {decorrelate!r}.")
    check_real(f"{owner}.rho", rho, "between 0 and 1", lambda value: 0 < value < 1, "Use 0.9.")


@lru_cache(maxsize=32)
def _weights(side: int, window: str) -> np.ndarray:
    """Weights (3, r + 1) of pixels at distance 0 to r from the centre, for sum, cosine and sine along an axis.

    Weights apply to both pixels at a distance; the centre is counted twice, with half its weight each time.
    """
    offset = np.arange(side // 2 + 1)
    shape = np.ones(len(offset)) if window == "uniform" else np.exp(-0.5 * (offset / ((side - 1) / 4)) ** 2)
    shape /= shape[0] + 2 * shape[1:].sum()
    cosine = shape * np.cos(2 * np.pi * offset / side)
    cosine -= (cosine[0] + 2 * cosine[1:].sum()) / side  # flat regions respond with zero
    weights = np.stack([shape, cosine, shape * np.sin(2 * np.pi * offset / side)])
    weights[:, 0] /= 2
    weights.flags.writeable = False
    return weights


@lru_cache(maxsize=32)
def _directions(side: int, window: str, rho: float | None) -> np.ndarray:
    """Directions (8, 8) on which the eight values of a pixel are projected, one per row; the axes if `rho` is None."""
    if rho is None:
        directions = np.eye(8)
    else:
        place, near = np.arange(side), _weights(side, window)
        flat, cosine, sine = np.concatenate([near[:, :0:-1], 2 * near[:, :1], near[:, 1:]], axis=1)
        # Over the offset y of f(x - y), the sine of exp(-2 pi i a y) is negative on the positive side.
        wave = cosine + 1j * np.sign(side // 2 - place) * sine
        filters = [np.outer(down, across) for down, across in
                   [(flat, wave), (wave, flat), (wave, wave), (wave, wave.conj())]]  # fmt: skip
        operator = np.array([part.ravel() for one in filters for part in (one.real, one.imag)])
        gap = (place[:, None] - place) ** 2
        distance = np.sqrt(gap[:, None, :, None] + gap[None, :, None, :]).reshape(side * side, -1)
        covariance = operator @ rho**distance @ operator.T
        vectors = np.linalg.eigh(_PART[:, None] * covariance * _PART)[1][:, ::-1].T
        size = abs(vectors)
        leading = (size > size.max(axis=1, keepdims=True) - 1e-6).argmax(axis=1)
        directions = vectors * np.sign(vectors[np.arange(8), leading])[:, None]
    directions = np.ascontiguousarray(directions)
    directions.flags.writeable = False
    return directions


@compiled
def _histograms(images, weights, directions, shares):
    """Fill `shares` (n, 256) from `images` (n, H, W) uint8, no side shorter than the window."""
    n, height, width = images.shape
    reach = weights.shape[1] - 1
    inner = width - 2 * reach
    levels = np.empty(width)
    across = np.empty((3, height, inner))
    values = np.empty((8, inner))
    projected = np.empty(inner)
    codes = np.empty(inner, np.uint8)
    counts = np.empty(256, np.int64)
    for image in range(n):
        for y in range(height):
            levels[:] = images[image, y]
            _filter_across(levels, weights, across[:, y])
        counts[:] = 0
        for y in range(reach, height - reach):
            _filter_down(across, y, weights, values)
            _encode(values, directions, projected, codes)
            for x in range(inner):
                counts[codes[x]] += 1
        total = inner * (height - 2 * reach)
        for k in range(256):
            shares[image, k] = counts[k] / total


@compiled
def _filter_across(levels, weights, out):
    """Sum, cosine and sine (3, W - 2 r) along one row of `levels` (W)."""
    reach = weights.shape[1] - 1
    flat, cosine, sine = out[0], out[1], out[2]
    out[:] = 0
    for k in range(reach + 1):
        left, right = levels[reach - k :], levels[reach + k :]
        a, b, c = weights[0, k], weights[1, k], weights[2, k]
        for x in range(len(flat)):
            both = left[x] + right[x]
            flat[x] += a * both
            cosine[x] += b * both
            sine[x] += c * (right[x] - left[x])


@compiled
def _filter_down(across, y, weights, values):
    """Real and imaginary parts (8, W) of the four responses in row y, from the rows filtered across."""
    values[:] = 0
    for k in range(weights.shape[1]):
        _add_pair(across, y - k, y + k, weights[0, k], weights[1, k], weights[2, k], values)
    # Rows 4 and 5: cosine down of the cosine and of the sine across; 6 and 7: sine down of the sine and of the cosine.
    for x in range(values.shape[1]):
        even, odd = values[4, x], values[6, x]
        upward, downward = values[5, x], values[7, x]
        values[4, x] = even - odd
        values[5, x] = upward + downward
        values[6, x] = even + odd
        values[7, x] = downward - upward


@compiled
def _add_pair(across, above, below, a, b, c, values):
    """Add two rows at one distance from the pixel to the eight sums."""
    upper, lower = across[0, above], across[0, below]
    for x in range(len(upper)):
        values[2, x] += b * (upper[x] + lower[x])
        values[3, x] += c * (lower[x] - upper[x])
    upper, lower = across[1, above], across[1, below]
    for x in range(len(upper)):
        both, gap = upper[x] + lower[x], lower[x] - upper[x]
        values[0, x] += a * both
        values[4, x] += b * both
        values[7, x] += c * gap
    upper, lower = across[2, above], across[2, below]
    for x in range(len(upper)):
        both, gap = upper[x] + lower[x], lower[x] - upper[x]
        values[1, x] += a * both
        values[5, x] += b * both
        values[6, x] += c * gap


@compiled
def _encode(values, directions, projected, codes):
    """Codes (W) from the signs of the projections of `values` (8, W) on each direction."""
    size = len(codes)
    codes[:] = 0
    for bit in range(8):
        projected[:] = 0.0
        for k in range(8):
            share = directions[bit, k]
            if abs(share) > 1e-12:  # the covariance has blocks, so many shares are zero
                for x in range(size):
                    projected[x] += share * values[k, x]
        power = np.uint8(1 << bit)
        for x in range(size):
            codes[x] += power if projected[x] >= -_ZERO else np.uint8(0)
