"""Write whole slides for tests: made-up tissue in a pyramidal TIFF of any size, in few distinct tiles."""

import zlib
from itertools import product

import cv2
import numpy as np
import tifffile

#: Colours of the empty slide, of stroma and of tumour; a cell of the scene has one of them, with a texture.
COLOURS = {0: (244, 243, 245), 1: (226, 150, 190), 2: (120, 60, 140)}


def scene(rows, columns):
    """Class of each cell: an ellipse of stroma with an ellipse of tumour in it, on an empty slide."""
    y, x = (np.linspace(-1, 1, n) for n in (rows, columns))
    far = np.hypot(y[:, None] / 0.8, x[None, :] / 0.7)
    return np.where(far < 0.4, 2, np.where(far < 1, 1, 0))


def write_slide(path, width, height, *, levels=(1, 4, 16), mpp=0.25, cell=512, classes=None):
    """Write a TIFF of `width` x `height` px with tiles of `cell` px, and give the class of each cell.

    `levels` are downsamples, or tuples of a downsample and a (wrong) size (w, h); `mpp` is None for a file without
    scale.
    """
    n_rows, n_columns = -(-height // cell), -(-width // cell)
    classes = scene(n_rows, n_columns) if classes is None else classes
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 12, (cell // 4, cell // 4, 1)).repeat(4, axis=0).repeat(4, axis=1)
    full = {code: np.clip(colour + noise * (code > 0), 0, 255).astype(np.uint8) for code, colour in COLOURS.items()}
    scale = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number, level in enumerate(levels):
            by, size = level if isinstance(level, tuple) else (level, (width // level, height // level))
            tiff.write(
                _tiles(full, classes, by, cell, size),
                shape=(size[1], size[0], 3),
                dtype=np.uint8,
                tile=(cell, cell),
                compression="adobe_deflate",
                photometric="rgb",
                subfiletype=int(number > 0),
                **scale,
            )
    return classes


def _tiles(full, classes, by, cell, size):
    """Yield the compressed tiles of a level, `by` times coarser than the first."""
    small = {code: cv2.resize(pixels, (cell // by, cell // by), interpolation=cv2.INTER_AREA)
             for code, pixels in full.items()}  # fmt: skip
    known = {}
    for row, column in product(range(-(-size[1] // cell)), range(-(-size[0] // cell))):
        codes = np.zeros((by, by), int)
        part = classes[row * by : (row + 1) * by, column * by : (column + 1) * by]
        codes[: part.shape[0], : part.shape[1]] = part
        if (key := codes.tobytes()) not in known:
            pixels = np.vstack([np.hstack([small[code] for code in line]) for line in codes.tolist()])
            known[key] = zlib.compress(pixels.tobytes(), 1)
        yield known[key]
