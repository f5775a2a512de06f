"""Perturb patches in steps of severity: stain, blur, compression, brightness, orientation.

`PERTURBATIONS` is the table of severities. Severity 0 leaves every patch as it is; with two directions the negative
ones go the other way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np

from histofeat.exceptions import check_name, check_real, check_that, check_whole
from histofeat.images._macenko import RGB_FROM_HED
from histofeat.images._normalization import DENSITY
from histofeat.images._reading import MappedImages, map_images

_STAINS = RGB_FROM_HED / np.linalg.norm(RGB_FROM_HED, axis=1, keepdims=True)
_FROM_DENSITY = np.linalg.inv(_STAINS)


# --- the functions -------------------------------------------------------------------------------------------------


def shift_stains(patches: np.ndarray, alpha: Sequence[float] = (1.0, 1.0), beta: Sequence[float] = (0.0, 0.0)):
    """Scale, and add to, the hematoxylin and the eosin of every pixel.

    Parameters
    ----------
    patches : ndarray of shape (n, H, W, 3), uint8
        RGB.
    alpha : (float, float), default=(1, 1)
        Factors of the concentrations of hematoxylin and of eosin, not negative.
    beta : (float, float), default=(0, 0)
        Concentrations that are added, in units of optical density (natural logarithm, unit stain vectors): also on the
        empty slide, which they colour.

    Returns
    -------
    shifted : ndarray of shape (n, H, W, 3), uint8
        Rounded and clipped.

    Raises
    ------
    ValueError
        If the patches are no batch of 8-bit RGB, or a factor is negative or not finite.

    Notes
    -----
    As in the stain augmentation of Tellez et al. (https://doi.org/10.1109/TMI.2018.2820199), with fixed instead of
    random numbers: ``-ln(v / 255)``, level 0 counting as 1, is separated into hematoxylin, eosin and a residual by
    the vectors of Ruifrok and Johnston (`histofeat.images._macenko`), of length 1; the first two become
    ``alpha c + beta``, the residual stays. Negative concentrations are scaled like others.

    Examples
    --------
    >>> patch = np.array([[[[150, 90, 180], [255, 255, 255]]]], dtype=np.uint8)
    >>> shift_stains(patch, (1.5, 1.0))[0, 0].tolist()
    [[119, 70, 162], [255, 255, 255]]
    >>> shift_stains(patch, beta=(0.0, 0.2))[0, 0].tolist()
    [[148, 74, 176], [251, 209, 249]]
    """
    patches = _checked(patches, "shift_stains")
    for name, values in (("alpha", alpha), ("beta", beta)):
        finite = len(values) == 2 and np.isfinite(values).all()
        if not finite or (name == "alpha" and min(values) < 0):
            raise ValueError(
                f"shift_stains.{name}: expected two finite numbers{' from 0' if name == 'alpha' else ''}, for "
                f"hematoxylin and eosin, got {tuple(values)!r}. Give {(1.0, 1.0) if name == 'alpha' else (0.0, 0.0)} "
                "to change nothing."
            )
    if not len(patches):
        return patches
    affine = np.empty((3, 4))
    affine[:, :3] = (_FROM_DENSITY @ np.diag([*alpha, 1.0]) @ _STAINS).T
    affine[:, 3] = np.array([*beta, 0.0]) @ _STAINS
    minus_density = cv2.transform(cv2.LUT(patches.reshape(1, -1, 3), DENSITY), -affine)
    transmitted = cv2.exp(np.minimum(minus_density, 0))  # nothing is brighter than white
    return cv2.convertScaleAbs(transmitted, alpha=255).reshape(patches.shape)


def blur(patches: np.ndarray, sigma_px: float) -> np.ndarray:
    """Blur as a lens out of focus: a Gaussian, mirrored at the border of the patch.

    Parameters
    ----------
    patches : ndarray of shape (n, H, W, 3), uint8
        RGB.
    sigma_px : float
        Standard deviation in px, from 0, which changes nothing.

    Returns
    -------
    blurred : ndarray of shape (n, H, W, 3), uint8
        The border pixel is not repeated in the mirror.

    Raises
    ------
    ValueError
        If the patches are no batch of 8-bit RGB, or `sigma_px` is negative or not finite.

    Examples
    --------
    >>> dot = np.zeros((1, 5, 5, 3), dtype=np.uint8)
    >>> dot[0, 2, 2] = 255
    >>> blur(dot, 0.5)[0, 2, :, 0].tolist()
    [0, 21, 159, 21, 0]
    """
    patches = _checked(patches, "blur")
    check_real("blur.sigma_px", sigma_px, "of at least 0", lambda value: value >= 0, "Give a plain number.")
    return patches if sigma_px == 0 else _each(patches, lambda patch: cv2.GaussianBlur(patch, (0, 0), float(sigma_px)))


def compress_jpeg(patches: np.ndarray, quality: int) -> np.ndarray:
    """Save patches as JPEG and read them again.

    Parameters
    ----------
    patches : ndarray of shape (n, H, W, 3), uint8
        RGB.
    quality : int
        From 1 to 100, in the scale of libjpeg.

    Returns
    -------
    compressed : ndarray of shape (n, H, W, 3), uint8
        Colour at half the resolution (4:2:0), blocks of 8 x 8 px from the upper left corner of the patch.

    Raises
    ------
    ValueError
        If the patches are no batch of 8-bit RGB, or `quality` is no whole number from 1 to 100.

    Examples
    --------
    >>> compress_jpeg(np.full((1, 8, 8, 3), 100, dtype=np.uint8), 50)[0, 0, 0].tolist()
    [100, 100, 100]
    """
    patches = _checked(patches, "compress_jpeg")
    quality = check_whole("compress_jpeg.quality", quality, 1, most=100)

    def again(patch):
        _, file = cv2.imencode(".jpg", cv2.cvtColor(patch, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        return cv2.cvtColor(cv2.imdecode(file, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    return _each(patches, again)


def scale_brightness(patches: np.ndarray, factor: float) -> np.ndarray:
    """Multiply every level by a factor, as more or less light does.

    Parameters
    ----------
    patches : ndarray of shape (n, H, W, 3), uint8
        RGB.
    factor : float
        From 0; 1 changes nothing.

    Returns
    -------
    scaled : ndarray of shape (n, H, W, 3), uint8
        Rounded, and clipped at 255.

    Raises
    ------
    ValueError
        If the patches are no batch of 8-bit RGB, or `factor` is negative or not finite.

    Examples
    --------
    >>> scale_brightness(np.array([[[[100, 101, 250]]]], dtype=np.uint8), 1.1).ravel().tolist()
    [110, 111, 255]
    """
    patches = _checked(patches, "scale_brightness")
    check_real("scale_brightness.factor", factor, "of at least 0", lambda value: value >= 0, "Give a plain number.")
    return np.clip(np.rint(np.arange(256) * float(factor)), 0, 255).astype(np.uint8)[patches]


def turn(patches: np.ndarray, degrees: int) -> np.ndarray:
    """Turn patches counter-clockwise by quarter turns.

    Parameters
    ----------
    patches : ndarray of shape (n, H, W, 3), uint8
        RGB.
    degrees : {0, 90, 180, 270}
        The angle.

    Returns
    -------
    turned : ndarray of shape (n, H, W, 3) or (n, W, H, 3), uint8
        The same pixels in other places.

    Raises
    ------
    ValueError
        If the patches are no batch of 8-bit RGB, or the angle is no quarter turn.

    Examples
    --------
    >>> turn(np.arange(6, dtype=np.uint8).reshape(1, 1, 2, 3), 90)[0, :, 0, 0].tolist()
    [3, 0]
    """
    patches = _checked(patches, "turn")
    check_that("turn.degrees", degrees, degrees in (0, 90, 180, 270), "0, 90, 180 or 270", "Use quarter turns.")
    return np.ascontiguousarray(np.rot90(patches, int(degrees) // 90, axes=(1, 2)))


# --- the severities ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Perturbation:
    """A way to change a patch, in steps.

    Parameters
    ----------
    apply : callable
        ``apply(patches, amount)``.
    quantity : str
        What the amounts are, with their unit.
    amounts : Mapping of int to float
        Amount by severity, without severity 0, which changes nothing.
    """

    apply: Callable[[np.ndarray, float], np.ndarray]
    quantity: str
    amounts: Mapping[int, float]

    @property
    def severities(self) -> tuple[int, ...]:
        """All severities in ascending order, 0 among them."""
        return tuple(sorted({0, *self.amounts}))


def _steps(*amounts: float, down: Sequence[float] = ()) -> Mapping[int, float]:
    upward = dict(enumerate(amounts, start=1))
    return MappingProxyType(upward | {-severity: amount for severity, amount in enumerate(down, start=1)})


_FACTORS, _INVERSE = (1.1, 1.2, 1.35, 1.5), (1 / 1.1, 1 / 1.2, 1 / 1.35, 1 / 1.5)

#: Every perturbation by name.
PERTURBATIONS: Mapping[str, Perturbation] = MappingProxyType(
    {
        "stain_balance": Perturbation(
            lambda patches, factor: shift_stains(patches, (factor, 1 / factor)),
            "factor of hematoxylin, its inverse of eosin",
            _steps(*_FACTORS, down=_INVERSE),
        ),
        "stain_strength": Perturbation(
            lambda patches, factor: shift_stains(patches, (factor, factor)),
            "factor of hematoxylin and of eosin",
            _steps(*_FACTORS, down=_INVERSE),
        ),
        "stain_veil": Perturbation(
            lambda patches, density: shift_stains(patches, beta=(density, density)),
            "optical density added to hematoxylin and to eosin",
            _steps(0.02, 0.05, 0.1, 0.2),
        ),
        "blur": Perturbation(blur, "standard deviation in px", _steps(0.5, 1.0, 1.5, 2.0)),
        "jpeg": Perturbation(compress_jpeg, "quality of libjpeg", _steps(90, 70, 50, 30)),
        "brightness": Perturbation(
            scale_brightness, "factor of the levels", _steps(1.05, 1.1, 1.2, 1.3, down=(0.95, 0.9, 0.8, 0.7))
        ),
        "turn": Perturbation(turn, "degrees", _steps(90, 180, 270)),
    }
)


def perturb(patches: np.ndarray, name: str, severity: int) -> np.ndarray:
    """Change patches by a step of the table.

    Parameters
    ----------
    patches : ndarray of shape (n, H, W, 3), uint8
        RGB; never changed in place.
    name : str
        One of `PERTURBATIONS`.
    severity : int
        One of its severities; 0 gives the patches themselves.

    Returns
    -------
    perturbed : ndarray of shape (n, H, W, 3), uint8
        Nothing is random: the same arguments give the same patches.

    Raises
    ------
    ValueError
        If the name or the severity is unknown, or the patches are no batch of 8-bit RGB.

    Examples
    --------
    >>> patch = np.full((1, 2, 2, 3), 200, dtype=np.uint8)
    >>> [int(perturb(patch, "brightness", severity).max()) for severity in (-4, 0, 2)]
    [140, 200, 220]
    """
    patches, perturbation = _checked(patches, "perturb"), _known(name, severity)
    return patches if severity == 0 else perturbation.apply(patches, perturbation.amounts[severity])


def perturbed_images(X: Any, name: str, severity: int) -> MappedImages:
    """Images that are perturbed as they are read, for `extract` and everything else that takes images.

    Parameters
    ----------
    X : sequence of paths, ndarray (n, H, W, 3) uint8, list of such arrays, or DataFrame with a ``path`` column
        The patches.
    name : str
        One of `PERTURBATIONS`.
    severity : int
        One of its severities.

    Returns
    -------
    images : MappedImages

    Raises
    ------
    ValueError
        If the name or the severity is unknown.
    PatchError
        If `X` has an unknown form.

    Examples
    --------
    >>> images = perturbed_images(np.zeros((3, 8, 4, 3), dtype=np.uint8), "turn", 1)
    >>> images.content(2).shape
    (4, 8, 3)
    """
    _known(name, severity)
    return map_images(X, lambda _, patch: perturb(patch[None], name, severity)[0])


def _known(name: str, severity: int) -> Perturbation:
    check_name("perturb.name", name, PERTURBATIONS)
    perturbation = PERTURBATIONS[name]
    steps = perturbation.severities
    check_that("perturb.severity", severity, severity in steps, f"one of {steps} for {name!r}", "Use one of them.")
    return perturbation


def _each(patches: np.ndarray, change) -> np.ndarray:
    return np.stack([change(patch) for patch in patches]) if len(patches) else patches


def _checked(patches: np.ndarray, owner: str) -> np.ndarray:
    patches = np.asarray(patches)
    if patches.dtype != np.uint8 or patches.ndim != 4 or patches.shape[-1] != 3:
        raise ValueError(
            f"{owner}.patches: expected 8-bit RGB of shape (n, H, W, 3), got {patches.dtype} of shape {patches.shape}. "
            "Decode images with histofeat, and give patch[np.newaxis] for one patch."
        )
    return np.ascontiguousarray(patches)
