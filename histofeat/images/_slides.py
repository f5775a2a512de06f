"""Whole slides: open a pyramid, read regions at a scale in bounded memory, find tissue, and lay out tiles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from importlib.util import find_spec
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from histofeat.exceptions import PatchError, check_real, check_that, first_line, needs
from histofeat.images._headers import MAX_PIXELS, is_too_large, open_image, open_regular
from histofeat.images._normalization import is_tissue
from histofeat.images._reading import run_ahead
from histofeat.images._scale import check_mpp, image_mpp, resized, square_mpp

#: Endings of the names of slides that are always slides; a TIFF may be one as well.
_SUFFIXES = (".bif", ".mrxs", ".ndpi", ".scn", ".svs", ".svslide", ".vms", ".vmu")
#: Most pixels that are read at once, and bytes of decoded pixels that are kept: a strip of tiles across a slide.
_BLOCK_PX, _CACHE_BYTES = 1 << 22, 1 << 27


class Slide:
    """A whole slide that is open for reading. Use `open_slide`, in a ``with`` block.

    Parameters
    ----------
    path : str
        The file.
    reader : OpenSlide or TiffSlide
        The open file; closed with the slide.
    mpp : float, optional
        Micrometres per pixel of level 0.

    Attributes
    ----------
    width, height : int
        Of level 0, in px.
    levels : list of float
        How many times coarser each level is than level 0, finest first. A level of other proportions than level 0 is
        not used, and not listed.
    thumbnail_px : int
        Longest side of a thumbnail, at most; of every slide.
    """

    thumbnail_px = 2000

    def __init__(self, path: str, reader: Any, mpp: float | None = None):
        self.path, self.mpp, self._reader = path, mpp, reader
        self.width, self.height = reader.dimensions
        self._levels = []
        for number, (wide, tall) in enumerate(reader.level_dimensions):
            across, down = self.width / wide, self.height / tall
            if abs(across - down) <= down * max(0.01, 2 / min(wide, tall)):  # sides are rounded to whole pixels
                self._levels.append((number, across, down))
        self.levels = [float(np.sqrt(across * down)) for _, across, down in self._levels]

    def __repr__(self) -> str:
        return f"Slide({self.path!r}, {self.width} x {self.height} px, mpp={self.mpp})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    @property
    def known_mpp(self) -> float:
        """Micrometres per pixel of level 0; a `PatchError` where they are not known."""
        remedy = "Give mpp=0.25, its micrometres per pixel."
        check_that(self.path, self.mpp, self.mpp, "a slide that states its scale", remedy, error=PatchError)
        return self.mpp

    @cached_property
    def thumbnail(self) -> np.ndarray:
        """The whole slide, its longer side at most 2,000 px: ndarray of shape (h, w, 3), uint8, RGB."""
        scale = min(1.0, self.thumbnail_px / max(self.width, self.height))
        return self.resized(0, 0, self.width, self.height, _scaled(self.width, self.height, scale))

    def read(self, x: float, y: float, width: float, height: float, mpp: float) -> np.ndarray:
        """Read a region at a scale.

        Parameters
        ----------
        x, y, width, height : float
            Upper left corner and sides of the region in px of level 0. What lies outside of the slide is empty.
        mpp : float
            Micrometres per pixel of the result.

        Returns
        -------
        pixels : ndarray of shape (h, w, 3), uint8
            RGB. ``h`` is ``height * slide.mpp / mpp``, rounded, at least 1; ``w`` likewise.

        Raises
        ------
        PatchError
            If the slide has no scale, or the pixels of a level are damaged.
        ValueError
            If a side or `mpp` is not above 0, or the result has more than 50 million pixels.
        """
        for name, value in (("width", width), ("height", height), ("mpp", mpp)):
            check_real(name, value, "above 0", lambda value: value > 0, "Give a positive number.")
        size = _scaled(width, height, self.known_mpp / mpp)
        fits, remedy = not is_too_large(*size), "Read a smaller region, or give a larger mpp."
        check_that("Slide.read", size, fits, f"a result of at most {MAX_PIXELS:,} px", remedy)
        return self.resized(x, y, width, height, size)

    def resized(self, x: float, y: float, width: float, height: float, size: tuple[int, int]) -> np.ndarray:
        """Read a region at a size in px.

        Parameters
        ----------
        x, y, width, height : float
            As of `read`.
        size : tuple of (int, int)
            Height and width of the result in px.

        Returns
        -------
        pixels : ndarray of shape (size[0], size[1], 3), uint8
            RGB: from the coarsest level on which the region has no fewer pixels than `size`, by the mean over the area
            that each pixel covers. A region that has fewer on level 0 is enlarged (bilinear).

        Raises
        ------
        PatchError
            If the pixels of the level are damaged.
        """
        rows, columns = size
        finer = (level for level in self._levels[::-1] if round(width / level[1]) >= columns)
        number, across, down = next((level for level in finer if round(height / level[2]) >= rows), self._levels[0])
        wide, tall = max(1, round(width / across)), max(1, round(height / down))
        if wide * tall <= _BLOCK_PX:
            return resized(self._pixels(x, y, number, (wide, tall)), size)
        if max(size) == 1:
            return resized(self.resized(x, y, width, height, (2, 2)), size)
        if rows >= columns:
            cut, half = height * (rows // 2) / rows, rows // 2
            parts = (x, y, width, cut, (half, columns)), (x, y + cut, width, height - cut, (rows - half, columns))
        else:
            cut, half = width * (columns // 2) / columns, columns // 2
            parts = (x, y, cut, height, (rows, half)), (x + cut, y, width - cut, height, (rows, columns - half))
        return np.concatenate([self.resized(*part) for part in parts], axis=int(rows < columns))

    def _pixels(self, x: float, y: float, number: int, size: tuple[int, int]) -> np.ndarray:
        """Read pixels of one level; what was not scanned has the colour of the background."""
        from PIL import Image

        try:
            picture = self._reader.read_region((round(x), round(y)), number, size)
            colour = self._reader.properties.get("openslide.background-color") or "ffffff"
        except Exception as error:  # readers raise whatever they like on damaged files
            got = f"damaged pixels in level {number} ({first_line(error):.80})"
            raise PatchError(f"{self.path}: expected a whole slide, got {got}. Copy the file again.") from error
        paper = Image.new("RGB", size, f"#{colour}")
        paper.paste(picture, None, picture if picture.mode == "RGBA" else None)
        return np.asarray(paper)


def _scaled(width: float, height: float, scale: float) -> tuple[int, int]:
    """Height and width in whole px, at least 1."""
    return max(1, round(height * scale)), max(1, round(width * scale))


def is_slide(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a whole slide, by its name or, of a TIFF, by its header; no package for slides is needed.

    Parameters
    ----------
    path : path
        A TIFF is a slide where it has tiles, and several levels or too many pixels for one image.

    Examples
    --------
    >>> is_slide("no/such/file.svs")
    False
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".tif", ".tiff"):
        return suffix in _SUFFIXES and Path(path).is_file()
    import tifffile

    try:
        with os.fdopen(open_regular(path)[0], "rb") as file, tifffile.TiffFile(file, name="header") as tiff:
            page = tiff.pages.first
            levels = len(tiff.series[0].levels)
            return bool(page.is_tiled and (levels > 1 or is_too_large(page.imagelength, page.imagewidth)))
    except Exception:  # decoders raise whatever they like on broken headers
        return False


def open_slide(path: str | os.PathLike[str], mpp: float | None = None) -> Slide:
    """Open a whole slide: a format of OpenSlide, such as SVS, NDPI, MRXS or a TIFF with tiles.

    Parameters
    ----------
    path : path
        The file.
    mpp : float, optional
        Micrometres per pixel of level 0; by default those that the file states.

    Returns
    -------
    slide : Slide
        Close it, or use it in a ``with`` block.

    Raises
    ------
    PatchError
        If there is no such file, or it is no slide or is damaged.
    ValueError
        If `mpp` is not above 0.
    MissingExtraError
        If neither openslide-python nor tiffslide is installed.

    Examples
    --------
    >>> open_slide("no-such-slide.svs")
    Traceback (most recent call last):
    histofeat.exceptions.PatchError: no-such-slide.svs: expected an image file, found no such file. Check the path.
    """
    given = float(np.nan_to_num(check_mpp("mpp", mpp)))
    path = os.fspath(path)
    os.close(open_image(path)[0])
    with needs("histofeat[slides]", f"{path}: expected the package openslide to read a slide"):
        if find_spec("openslide") is None and find_spec("tiffslide") is not None:
            from tiffslide import TiffSlide as Reader
        else:
            from openslide import OpenSlide as Reader
    try:
        reader = Reader(path)
        stated = [float(reader.properties.get(f"{Reader.__name__.lower()}.mpp-{axis}") or 0) for axis in "xy"]
        slide = Slide(path, reader, given or square_mpp(*stated) or image_mpp(path))
    except Exception as error:  # readers raise whatever they like on other files
        got = f"a damaged file or one of another format ({first_line(error):.80})"
        remedy = "Copy it again; images are for predict_images (histofeat predict)."
        raise PatchError(f"{path}: expected a whole slide, got {got}. {remedy}") from error
    if Reader.__module__.startswith("openslide"):
        from openslide import OpenSlideCache

        reader.set_cache(OpenSlideCache(_CACHE_BYTES))
    return slide


def tissue_mask(slide: Slide, mpp: float = 32.0) -> np.ndarray:
    """Tissue of a whole slide at a low resolution.

    Parameters
    ----------
    slide : Slide
        One that states its scale.
    mpp : float, default=32.0
        Micrometres per pixel of the mask.

    Returns
    -------
    mask : ndarray of shape (h, w), bool
        Over the whole slide, where `is_tissue` holds for the mean colour.

    Raises
    ------
    PatchError
        If the slide has no scale, or is damaged.
    """
    rows, columns = _scaled(slide.width, slide.height, slide.known_mpp / mpp)
    overview = slide.thumbnail
    if overview.shape[0] < rows or overview.shape[1] < columns:
        return is_tissue(slide.read(0, 0, slide.width, slide.height, mpp))
    return is_tissue(resized(overview, (rows, columns)))


def slide_tiles(slide: Slide, size_px: int | tuple[int, int], mpp: float, min_tissue: float = 0.1) -> pd.DataFrame:
    """Lay tiles of one physical size over the tissue of a slide.

    Parameters
    ----------
    slide : Slide
        One that states its scale.
    size_px : int or tuple of (int, int)
        Side, or height and width, of a tile in px at `mpp`.
    mpp : float
        Micrometres per pixel of the tiles, as of a model.
    min_tissue : float in [0, 1], default=0.1
        Share of tissue that a tile needs.

    Returns
    -------
    tiles : DataFrame
        A row for each tile, row by row from the upper left corner: ``x``, ``y``, ``width``, ``height`` (int64, px of
        level 0) and ``tissue`` (share of `tissue_mask`, float64). Borders are those of an exact grid, rounded: tiles
        neither overlap nor leave gaps, and their sides may differ by a pixel. A strip at the right or lower border
        that is narrower than a tile is left out.

    Raises
    ------
    PatchError
        If the slide has no scale, is damaged, smaller than a tile, coarser than one, or holds no tissue.
    ValueError
        If another argument is out of its range.
    """
    sides = (size_px, size_px) if isinstance(size_px, Integral) else tuple(size_px)
    whole = len(sides) == 2 and all(isinstance(side, Integral) and side > 0 for side in sides)
    check_that("size_px", size_px, whole, "a side, or height and width, in px", "Give positive integers.")
    check_real("mpp", mpp, "above 0", lambda value: value > 0, "Give the micrometres per pixel of the model.")
    check_real("min_tissue", min_tissue, "from 0 to 1", lambda share: 0 <= share <= 1, "Use 0.1.")
    steps, remedy = [side * mpp / slide.known_mpp for side in sides], "Correct mpp (--mpp), or use another model."
    expected = "tiles of at least one pixel of the slide"
    check_that(slide.path, f"{min(steps):.2g} px", min(steps) >= 1, expected, remedy, error=PatchError)
    tops, lefts = map(_borders, (slide.height, slide.width), steps)
    size = "{1:.0f} x {0:.0f} micrometres".format
    tile, found = size(*(side * mpp for side in sides)), size(slide.height * slide.mpp, slide.width * slide.mpp)
    fits, remedy = min(len(tops), len(lefts)) > 1, "Correct mpp (--mpp), or use a model of smaller patches."
    check_that(slide.path, found, fits, f"a slide of at least one tile, {tile}", remedy, error=PatchError)
    mask = tissue_mask(slide)
    shares = _shares(tops, mask.shape[0], slide.height) @ mask @ _shares(lefts, mask.shape[1], slide.width).T
    shares = shares.round(6)  # the last digits of a product depend on the machine
    rows, columns = np.nonzero(shares >= min_tissue)
    expected, remedy = f"tiles of {min_tissue:g} tissue or more", "Give a smaller min_tissue (--min-tissue), or 0."
    check_that(slide.path, float(shares.max()), rows.size, expected, remedy, error=PatchError)
    sides = {"width": np.diff(lefts)[columns], "height": np.diff(tops)[rows]}
    return pd.DataFrame({"x": lefts[columns], "y": tops[rows], **sides, "tissue": shares[rows, columns]})


def _borders(length: int, step: float) -> np.ndarray:
    """Borders of whole tiles along one axis, in px."""
    return np.rint(np.arange(int(length / step + 1e-9) + 1) * step).astype(np.int64)


def _shares(borders: np.ndarray, n_pixels: int, length: int) -> np.ndarray:
    """Share of each tile that is covered by each pixel of a mask over `length`, (tiles, n_pixels)."""
    starts, ends = borders[:-1, None], borders[1:, None]
    pixels = np.arange(n_pixels + 1) * (length / n_pixels)
    return np.maximum(np.minimum(ends, pixels[1:]) - np.maximum(starts, pixels[:-1]), 0) / (ends - starts)


def read_tiles(
    slide: Slide, tiles: pd.DataFrame, size: tuple[int, int], *, n_jobs: int | None = None
) -> Iterator[np.ndarray]:
    """Read tiles in threads, ahead of their use, in the order of the rows.

    Parameters
    ----------
    slide : Slide
    tiles : DataFrame
        With the columns ``x``, ``y``, ``width`` and ``height``, as of `slide_tiles`.
    size : tuple of (int, int)
        Height and width of the results in px.
    n_jobs : int, optional
        Threads; None is 1, -1 all cores.

    Yields
    ------
    pixels : ndarray of shape (size[0], size[1], 3), uint8
        RGB, see `Slide.resized`.

    Raises
    ------
    PatchError
        If the slide is damaged.
    """
    boxes = tiles[["x", "y", "width", "height"]].itertuples(index=False)
    return run_ahead(lambda box: slide.resized(*box, size), boxes, n_jobs=n_jobs)
