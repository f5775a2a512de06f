"""Read images: sizes from headers, in threads ahead of their use, and changed as they are read."""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import joblib
import numpy as np

from histofeat.images._decoding import FORMATS, PNG_SIGNATURE, Images, SpecialFileError, as_images, open_regular

#: First bytes of the formats beside PNG and WebP.
_OTHERS = (b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM")


def image_size(path: str) -> tuple[int, int] | str:
    """(height, width) in pixels from the header of an image file, or the reason why there is none.

    Notes
    -----
    The first bytes decide the format, not the name: a JPEG named ``.png`` is read as a JPEG. A file that is cut off
    after its header passes; the decoder names it.
    """
    start = _first_bytes(path)
    if isinstance(start, str):
        return start
    if start.startswith(PNG_SIGNATURE):
        return _png_size(start)
    if start.startswith(_OTHERS) or (start.startswith(b"RIFF") and start[8:12] == b"WEBP"):
        return _size_by_pillow(path)
    return f"is no image (its first bytes are of none of {', '.join(FORMATS)})"


def _size_by_pillow(path: str) -> tuple[int, int] | str:
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error):
        return "has a broken header"
    except Image.DecompressionBombError:
        return "has too many pixels for a patch"
    return (height, width) if height and width else "has a broken header"


def png_size(path: str) -> tuple[int, int] | str:
    """(height, width) in pixels from the first 24 bytes of a PNG, or the reason why there is none.

    Notes
    -----
    W3C PNG specification, 5.2 and 11.2.2: eight bytes of signature, then the IHDR chunk with width and height. A file
    that is cut off further on passes; the decoder names it.
    """
    start = _first_bytes(path)
    if isinstance(start, str):
        return start
    return _png_size(start) if start.startswith(PNG_SIGNATURE) else "is no PNG (wrong first bytes)"


def _first_bytes(path: str) -> bytes | str:
    try:
        handle = open_regular(path)
        try:
            start = os.read(handle, 24)
        finally:
            os.close(handle)
    except SpecialFileError as error:
        return f"is {error.strerror}"
    except OSError as error:
        dangling = os.path.lexists(path) and not os.path.exists(path)  # noqa: PTH110
        return "is a link to nothing" if dangling else f"cannot be read ({type(error).__name__})"
    return start or "is empty (0 bytes)"


def _png_size(start: bytes) -> tuple[int, int] | str:
    if len(start) < 24 or start[8:16] != b"\0\0\0\rIHDR":
        return "has a broken PNG header"
    width, height = struct.unpack(">II", start[16:24])
    return (height, width) if width and height else "has a broken PNG header"


def run_ahead(
    function: Callable[[Any], Any], items: Iterable[Any], *, n_jobs: int | None = None, ahead: int | None = None
) -> Iterator[Any]:
    """Call a function on every item in threads, and give the results in the order of the items.

    Parameters
    ----------
    function : callable
        Called from several threads at once: reads, decodes or measures.
    items : iterable
        What it is called with, one at a time.
    n_jobs : int, optional
        Threads; None is 1, -1 all cores.
    ahead : int, optional
        Calls that are begun before their result is asked for, which bounds the memory; by default twice the threads.

    Yields
    ------
    result
        The first error of `function` is raised in its place, and the calls that have not begun are dropped.

    Examples
    --------
    >>> list(run_ahead(abs, [-1, -2, 3], n_jobs=2))
    [1, 2, 3]
    """
    n_threads = joblib.effective_n_jobs(n_jobs)
    items, waiting = iter(items), deque()
    with ThreadPoolExecutor(n_threads, thread_name_prefix="histofeat") as pool:
        try:
            waiting.extend(pool.submit(function, item) for item in islice(items, ahead or 2 * n_threads))
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(items, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()


@dataclass(frozen=True, eq=False)
class MappedImages(Images):
    """A sequence of images, each decoded and changed at the moment when it is read.

    To extraction and to a `FeatureStore` such an image is an array: a store knows its features by the changed pixels,
    and can never take them for those of the image as it was.

    Attributes
    ----------
    base : Images
        The images before the change; they may be changed ones too.
    change : callable
        ``change(index, patch)`` gives the changed patch of `index`: uint8 RGB of shape (H, W, 3), which may differ from
        its shape before. It is called from several threads at once.
    """

    base: Images
    change: Callable[[int, np.ndarray], np.ndarray]
    _rules: dict[int, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def take(self, rows: Iterable[int]) -> MappedImages:
        """Some of the images, in the order of `rows`; each is changed as at its place in the whole."""
        rows, base = list(rows), self.base.take(rows)
        return MappedImages(base.items, base.on_disk, base, lambda index, patch: self.change(rows[index], patch))

    def content(self, index: int) -> np.ndarray:
        """Decode and change one image: ndarray of shape (H, W, 3), uint8."""
        patch, rules = self.base.decode(index, self.base.content(index))
        if rules:
            self._rules[index] = rules
        return self.change(index, patch)

    def decode(self, index: int, content: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """Give `content`, which is decoded already, and the conversions that it took to decode it."""
        return content, self._rules.get(index, ())


def map_images(X: Any, change: Callable[[int, np.ndarray], np.ndarray]) -> MappedImages:
    """Change images as they are read.

    Parameters
    ----------
    X : sequence of paths, ndarray (n, H, W, 3) uint8, list of such arrays, DataFrame with a ``path`` column, or Images
        The images.
    change : callable
        As for `MappedImages`.

    Returns
    -------
    images : MappedImages
        Accepted wherever X is: by `extract`, a family, a pipeline. No pixel is read until then.

    Raises
    ------
    PatchError
        If `X` has an unknown form.

    Examples
    --------
    >>> import numpy as np
    >>> from histofeat.features import extract, make_family
    >>> white = np.full((2, 8, 8, 3), 255, dtype=np.uint8)
    >>> darker = map_images(white, lambda index, patch: patch // (index + 1))
    >>> extract([make_family("color", spaces=("rgb",))], darker).features[0][:, 16].round(2).tolist()
    [1.0, 0.5]
    """
    base = as_images(X)
    return MappedImages(base.items, base.on_disk, base, change)
