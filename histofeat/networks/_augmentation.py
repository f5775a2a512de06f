"""Augment training patches: flips, turns and shifts, and the staining and light of other laboratories."""

from dataclasses import dataclass

import cv2
import numpy as np

from histofeat.exceptions import check_real, check_whole
from histofeat.images import RGB_FROM_HED, VIEWS, take_view

_STAINS = RGB_FROM_HED / np.linalg.norm(RGB_FROM_HED, axis=1, keepdims=True)
_FROM_DENSITY = np.linalg.inv(_STAINS)
#: Optical density of each level, natural logarithm; level 0 counts as 1.
_DENSITY = -np.log(np.maximum(np.arange(256), 1) / 255.0).astype(np.float32)
_NONE = "Give 0 for none."


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training patch.

    Parameters
    ----------
    flips : bool, default=True
        Mirror at random, at either axis.
    turns : bool, default=True
        Turn by a random number of quarter turns; of half turns where patches are not square.
    stain_jitter : float in [0, 1), default=0.15
        Each stain of a patch (hematoxylin, eosin, residual) is scaled by its own factor, uniform in
        ``[1 - stain_jitter, 1 + stain_jitter]``. 0 for none.
    stain_shift : float in [0, 0.5], default=0.03
        To each stain a concentration is added, uniform in ``[-stain_shift, stain_shift]``, in units of optical density
        (natural logarithm, unit stain vectors). It colours the empty slide too: 0.03 takes at most about one level in
        twenty from white. 0 for none.
    brightness : float in [0, 1), default=0
        The light of a patch is multiplied by a factor, uniform in ``[1 - brightness, 1 + brightness]``; what is
        brighter than white is white. 0 for none.
    shift_px : int from 0, default=0
        Move the patch by up to so many pixels along either axis; what comes in from the border is mirrored.

    Raises
    ------
    ValueError
        If a value is of another type or out of range.

    Examples
    --------
    >>> Augmentation()
    Augmentation(flips=True, turns=True, stain_jitter=0.15, stain_shift=0.03, brightness=0.0, shift_px=0)
    >>> Augmentation(stain_jitter=1.5)
    Traceback (most recent call last):
        ...
    ValueError: Augmentation.stain_jitter: expected a number from 0, below 1, got 1.5. Give 0 for none.
    """

    flips: bool = True
    turns: bool = True
    stain_jitter: float = 0.15
    stain_shift: float = 0.03
    brightness: float = 0.0
    shift_px: int = 0

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name in ("flips", "turns"):
            value = getattr(self, name)
            if not isinstance(value, bool | np.bool_):
                raise ValueError(f"Augmentation.{name}: expected True or False, got {value!r}. Give one of them.")
        for name in ("stain_jitter", "brightness"):
            value = getattr(self, name)
            check_real(f"Augmentation.{name}", value, "from 0, below 1", lambda part: 0 <= part < 1, _NONE)
        check_real("Augmentation.stain_shift", self.stain_shift, "from 0 to 0.5", lambda part: 0 <= part <= 0.5, _NONE)
        check_whole("Augmentation.shift_px", self.shift_px, 0, _NONE)


#: What ``augmentation="standard"`` is.
STANDARD = Augmentation()


def augment(pixels: np.ndarray, rng: np.random.Generator, augmentation: Augmentation = STANDARD) -> np.ndarray:
    """Change each patch at random.

    Parameters
    ----------
    pixels : ndarray of shape (n, H, W, 3), uint8
        RGB; not changed.
    rng : numpy.random.Generator
        Where the random numbers come from: the same state gives the same patches.
    augmentation : Augmentation, default=STANDARD

    Returns
    -------
    augmented : ndarray of shape (n, H, W, 3), uint8
        A new array, C-contiguous.

    Raises
    ------
    ValueError
        If `pixels` is no batch of 8-bit RGB, or a patch is smaller than ``shift_px`` allows.

    Notes
    -----
    Flips and turns together make each of the eight views of a square patch equally probable; of a patch that is not
    square there are four, without the quarter turns.

    The stains are those of Ruifrok and Johnston (`histofeat.images._macenko`) as unit vectors: the density
    ``-ln(v / 255)`` is separated into hematoxylin, eosin and residual, each becomes ``alpha c + beta``, and what is
    brighter than white is white. Tellez et al. augment in this way (https://doi.org/10.1109/TMI.2018.2820199), but
    leave the residual as it is; here it is jittered too, which covers stains of another hue.

    Examples
    --------
    >>> patch = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    >>> turned = augment(patch, np.random.default_rng(0), Augmentation(stain_jitter=0, stain_shift=0))
    >>> turned[0, :, :, 0].tolist()
    [[6, 0], [9, 3]]
    """
    _check_pixels(pixels)
    changed = _turn(pixels, rng, augmentation)
    if augmentation.shift_px and len(pixels):
        changed = _move(changed, rng, int(augmentation.shift_px))
    if (augmentation.stain_jitter or augmentation.stain_shift or augmentation.brightness) and changed.size:
        changed = _restain(changed, rng, augmentation)
    return np.array(pixels, order="C") if changed is pixels else changed


def views_of(augmentation: Augmentation, *, square: bool) -> tuple[tuple[int, bool], ...]:
    """Views of a patch that an augmentation draws from, each as (quarter turns, mirrored).

    Parameters
    ----------
    augmentation : Augmentation
    square : bool
        Whether height and width are equal: others take no quarter turn.

    Returns
    -------
    views : tuple of (int, bool)
        The first is the patch as it is.

    Examples
    --------
    >>> views_of(Augmentation(turns=False), square=True)
    ((0, False), (0, True), (2, False), (2, True))
    >>> len(views_of(Augmentation(), square=True)), len(views_of(Augmentation(), square=False))
    (8, 4)
    """
    # Flips at both axes make the half turn by themselves.
    wanted = {0}
    if augmentation.flips or augmentation.turns:
        wanted.add(2)
    if augmentation.turns and square:
        wanted |= {1, 3}
    return tuple(
        (turn, mirrored) for turn, mirrored in VIEWS if turn in wanted and (augmentation.flips or not mirrored)
    )


def _check_pixels(pixels):
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        got = f"{pixels.dtype} of shape {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise ValueError(
            f"augment.pixels: expected 8-bit RGB of shape (n, H, W, 3), got {got}. Decode images with histofeat first."
        )


def _turn(pixels, rng, augmentation):
    """Draw a view for every patch."""
    views = views_of(augmentation, square=pixels.shape[1] == pixels.shape[2])
    if len(views) == 1:
        return pixels
    drawn = rng.integers(0, len(views), len(pixels))
    turned = np.empty(pixels.shape, np.uint8)
    for number, view in enumerate(views):
        rows = drawn == number
        turned[rows] = take_view(pixels[rows], view)
    return turned


def _move(pixels, rng, shift_px):
    """Move every patch by its own number of pixels, mirrored at the border."""
    height, width = pixels.shape[1:3]
    if shift_px >= min(height, width):
        raise ValueError(
            f"Augmentation.shift_px: expected less than the side of a patch, got {shift_px} for {height}x{width} px. "
            "Give a smaller number."
        )
    edge = ((0, 0), (shift_px, shift_px), (shift_px, shift_px), (0, 0))
    wide = np.pad(pixels, edge, mode="reflect")
    moved = np.empty(pixels.shape, np.uint8)
    for row, (y, x) in enumerate(rng.integers(0, 2 * shift_px + 1, (len(pixels), 2))):
        moved[row] = wide[row, y : y + height, x : x + width]
    return moved


def _restain(pixels, rng, augmentation):
    """Scale and shift the stains of every patch by its own numbers."""
    n, jitter, shift = len(pixels), augmentation.stain_jitter, augmentation.stain_shift
    alpha = rng.uniform(1 - jitter, 1 + jitter, (n, 3))
    beta = rng.uniform(-shift, shift, (n, 3))
    # One matrix a patch takes densities to stains, changes them and takes them back: columns are red, green, blue.
    mixing = np.einsum("ds,ns,se->ned", _FROM_DENSITY, alpha, _STAINS)
    affine = -np.concatenate([mixing, (beta @ _STAINS)[:, :, None]], axis=2)
    if augmentation.brightness:
        light = rng.uniform(1 - augmentation.brightness, 1 + augmentation.brightness, n)
        affine[:, :, 3] += np.log(light)[:, None]
    density = cv2.LUT(pixels.reshape(n, -1, 3), _DENSITY)
    for row in range(n):
        cv2.transform(density[row][None], affine[row], dst=density[row][None])
    transmitted = cv2.exp(np.minimum(density, 0, out=density).reshape(n, -1))  # nothing is brighter than white
    return cv2.convertScaleAbs(transmitted, alpha=255).reshape(pixels.shape)
