"""Physical scale: read micrometres per pixel from headers, compare two scales, resample an image by area."""

import io
import math
import os
import re
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from histofeat.exceptions import check_that
from histofeat.images import _headers as headers

#: How much two scales may differ and still count as one.
_TOLERANCE = 0.25
#: Coarsest scale in micrometres that a resolution is believed to mean, and most that the two sides of a pixel may
#: differ. Screens and printers have 72 to 1,200 dots per inch, which are 353 to 21 micrometres.
_COARSEST, _SQUARE = 16.0, 0.02
_LARGEST = 1000.0
#: Micrometres in a unit: by the tag of a TIFF, and by name in OME-XML and ImageJ.
_INCH = 25_400.0
_TAGS = {2: _INCH, 3: 10_000.0}
_UNITS = {"µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, r"\u00B5m": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}


def image_mpp(image: str | os.PathLike[str] | bytes) -> float | None:
    """Read the scale of an image from its header.

    Parameters
    ----------
    image : path or bytes
        A file, or its content. No pixel is decoded.

    Returns
    -------
    mpp : float or None
        Micrometres per pixel; None where the header does not say, says what cannot be a scale, or cannot be read.

    Notes
    -----
    Read in this order: ``PhysicalSizeX`` and ``PhysicalSizeY`` of OME-XML, ``MPP`` in the description of an Aperio
    slide, the unit of ImageJ, the resolution of a TIFF in pixels per inch or centimetre. Of PNG, JPEG and BMP it is the
    resolution (``pHYs``, JFIF). A resolution coarser than 16 micrometres per pixel (1,588 dots per inch) is that of a
    screen or printer, such as the usual 72, 96 or 300, and no scale. Pixels that are not square have none.

    Examples
    --------
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (8, 8)).save(file, "tiff", resolution=20_000, resolution_unit=3)
    >>> image_mpp(file.getvalue())
    0.5
    """
    try:
        with io.BytesIO(image) if isinstance(image, bytes) else os.fdopen(headers.open_regular(image)[0], "rb") as file:
            start = file.read(4)
            file.seek(0)
            if start in headers.TIFF:
                return _of_tiff(file)
            if start == headers.PNG_SIGNATURE[:4]:
                from PIL.PngImagePlugin import PngImageFile

                return _of_resolution(_INCH, PngImageFile(file).info.get("dpi"))
            if start.startswith((headers.JPEG, headers.BMP)):
                return _of_resolution(_INCH, headers.open_with_pillow(file).info.get("dpi"))
    except Exception:  # readers raise whatever they like on broken headers, which the decoder names
        return None
    return None


def _of_tiff(file: BinaryIO) -> float | None:
    import tifffile

    with tifffile.TiffFile(file, name="header") as tiff:
        page = tiff.pages.first
        if tiff.is_ome and (found := _of_ome(tiff.ome_metadata)):
            return found
        if aperio := re.search(r"\|\s*MPP\s*=\s*([0-9.]+)", page.description):
            return square_mpp(float(aperio[1]), float(aperio[1]), most=_LARGEST)
        unit = _UNITS.get((tiff.imagej_metadata or {}).get("unit"), _TAGS.get(page.tags.valueof(296, default=2)))
        return _of_resolution(unit, page.get_resolution()) if unit and {282, 283} <= {*page.tags.keys()} else None


def _of_ome(xml: str) -> float | None:
    """Scale of the first image of OME-XML, which is searched as text: no entity of it is expanded."""
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*", xml)
    said = dict(re.findall(r'\bPhysicalSize([XY](?:Unit)?)="([^"]*)"', pixels[0] if pixels else ""))
    units = {axis: _UNITS[said.get(f"{axis}Unit", "µm").replace("&#181;", "µ")] for axis in "XY" if axis in said}
    sides = [float(said[axis]) * unit for axis, unit in units.items()]
    return square_mpp(*sides, most=_LARGEST) if len(sides) == 2 else None


def _of_resolution(unit_um: float, per_unit: Sequence[float] | None) -> float | None:
    """Scale of a resolution in pixels per unit, along both axes."""
    return square_mpp(*(unit_um / pixels for pixels in per_unit)) if per_unit and all(per_unit) else None


def square_mpp(x: float, y: float, most: float = _COARSEST) -> float | None:
    """Scale of pixels of two sides in micrometres; None where they are not square, or above `most`."""
    return x if min(x, y) > 0 and max(x, y) <= most and abs(x / y - 1) <= _SQUARE else None


def check_mpp(where: str, mpp: Any, n: int | None = None, *, error: type[ValueError] = ValueError) -> np.ndarray:
    """Refuse what is no scale.

    Parameters
    ----------
    where : str
        The argument that a message names.
    mpp : float or array-like of shape (n,)
        Micrometres per pixel; None and NaN are unknown ones.
    n : int, optional
        How many images there are; by default `mpp` is one number.
    error : type of ValueError
        What is raised.

    Returns
    -------
    mpp : ndarray of shape () or (n,), float64

    Raises
    ------
    ValueError
        If a number is not above 0 and at most 1,000, or there is not one for each image.

    Examples
    --------
    >>> check_mpp("mpp", 0.5, n=2).tolist()
    [0.5, 0.5]
    """
    shapes, remedy = ((),) if n is None else ((), (n,)), "Give the micrometres per pixel, such as 0.5 at 20X."
    expected = "a number" if n is None else f"a number, or one for each of {n:,} images"
    check_that(where, mpp, np.shape(mpp) in shapes, expected, remedy, error=error)
    scales = np.array(np.nan if mpp is None else mpp, dtype=float)
    wrong = scales[~np.isnan(scales) & ~((scales > 0) & (scales <= _LARGEST))]
    check_that(where, wrong.ravel()[:1].tolist(), not wrong.size, "numbers above 0, at most 1,000", remedy, error=error)
    return np.broadcast_to(scales, shapes[-1])


def scale_ratio(mpp: float | None, wanted: float | None) -> float:
    """Factor by which the sides of an image change to bring it to a scale.

    Parameters
    ----------
    mpp, wanted : float or None
        Micrometres per pixel of the image, and those that are wanted.

    Returns
    -------
    ratio : float
        ``mpp / wanted``; 1.0 where they differ by at most a quarter, or one is not known (None or NaN).

    Examples
    --------
    >>> scale_ratio(0.5, 4.0), scale_ratio(3.3, 4.0), scale_ratio(None, 4.0)
    (0.125, 1.0, 1.0)
    """
    if mpp is None or wanted is None or math.isnan(mpp) or max(mpp / wanted, wanted / mpp) <= 1 + _TOLERANCE:
        return 1.0
    return float(mpp / wanted)


def rescale(image: np.ndarray, ratio: float) -> np.ndarray:
    """Resample an image by area.

    Parameters
    ----------
    image : ndarray of shape (H, W, 3), uint8
        RGB.
    ratio : float
        New side over old side: the image's micrometres per pixel over the wanted ones.

    Returns
    -------
    rescaled : ndarray of shape (round(H * ratio), round(W * ratio), 3), uint8
        At least one pixel a side. Each pixel is the mean over the area that it covers where the image shrinks, and
        bilinear (OpenCV's bit-exact form) where it grows: no structure comes back that the image does not have.

    Examples
    --------
    >>> rescale(np.arange(48, dtype=np.uint8).reshape(4, 4, 3), 0.5)[..., 0].tolist()
    [[8, 14], [32, 38]]
    """
    return resized(image, tuple(max(1, round(side * ratio)) for side in image.shape[:2]))


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale an image to a height and width in px, as `rescale` does; it comes back itself where it has these."""
    import cv2

    if image.shape[:2] == size:
        return image
    interpolation = cv2.INTER_AREA if image.shape[0] > size[0] else cv2.INTER_LINEAR_EXACT
    return cv2.resize(np.ascontiguousarray(image), size[::-1], interpolation=interpolation)
