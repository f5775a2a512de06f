"""Sequences of images: on disk or in memory, read in threads ahead of their use, and changed as they are read."""

from __future__ import annotations

import os
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import joblib
import narwhals as nw
import numpy as np

from histofeat.exceptions import PatchError
from histofeat.images._decoding import decode_pixels, to_rgb8
from histofeat.images._headers import MAX_PIXELS, Unusable, damaged, read_bytes, turn

_FORMS = (
    "a one-dimensional sequence of paths, an array (n, H, W, 3) of uint8, a list of such patches, "
    "or a DataFrame with a `path` column"
)


#: The code of OpenCV's error where there is no memory left.
_NO_MEMORY = -4


@dataclass(frozen=True)
class Images:
    """A validated sequence of patches, still on disk or already in memory.

    Attributes
    ----------
    items : sequence of str, or sequence of ndarray
        Paths, or arrays of shape (H, W, 3), (H, W, 4) or (H, W), or images that become such arrays.
    on_disk : bool
        Whether the items are paths.
    """

    items: Sequence[Any]
    on_disk: bool

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        """Name of one image for a message: its path, or its place in X."""
        return str(self.items[index]) if self.on_disk else f"X[{index}]"

    def content(self, index: int) -> bytes | np.ndarray:
        """Content of one image as it came: the bytes of its file, or its array."""
        return read_bytes(self.items[index]) if self.on_disk else _pixels(self.items[index])

    def take(self, rows: Sequence[int]) -> Images:
        """Some of the images, in the order of `rows`, which are row numbers from 0."""
        items = self.items[rows] if isinstance(self.items, np.ndarray) else [self.items[row] for row in rows]
        return Images(items, self.on_disk)

    def decode(self, index: int, content: bytes | np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """Turn `content` of image `index` into RGB of shape (H, W, 3), uint8, and the rules that it took."""
        if self.on_disk:
            return decode_patch(content, name=self.name(index))
        return to_rgb8(content, name=self.name(index))


def as_images(X: Any) -> Images:
    """Check the form of `X` without reading a pixel.

    Parameters
    ----------
    X : sequence of paths, array (n, H, W, 3) or (n, H, W), list of patches, or table with a ``path`` column
        What the user has. Arrays and patches are those of NumPy or have ``__array__``, such as images of Pillow; a list
        may hold patches of unequal size. A table is of pandas, polars or Arrow; so may be a column of paths.

    Returns
    -------
    images : Images
        The same, ready to be read.

    Raises
    ------
    PatchError
        If `X` has another form: a single path or patch, floats, no image at all, a DataFrame without ``path``.

    Examples
    --------
    >>> import numpy as np
    >>> len(as_images(np.zeros((2, 50, 50, 3), dtype=np.uint8)))
    2
    >>> as_images(["a.png", "b.png"]).on_disk
    True
    """
    if isinstance(X, Images):
        return X
    frame, paths = nw.from_native(X, pass_through=True), table_column(X, "path")
    if hasattr(frame, "columns") and paths is None:
        raise PatchError(
            f"X: expected a DataFrame with a `path` column, got the columns {list(frame.columns)[:8]!r:.300}. "
            "Rename the column that holds the file names."
        )
    X = X if paths is None else paths
    if isinstance(X, str | bytes | os.PathLike):
        raise PatchError(f"X: expected several images, got one path ({X!r}). Put it in a list: [path].")
    array = _pixels(X) if hasattr(X, "__array__") else None
    if array is not None and array.dtype != object and array.dtype.kind not in "US":
        return _from_array(array)
    try:
        # A column of paths has shape (n, 1) for tools that take nothing of one dimension.
        items = list(X if array is None else array.ravel() if array.ndim == 2 and array.shape[1] == 1 else array)
    except TypeError as error:
        raise PatchError(f"X: expected several images, got {type(X).__name__}. Give {_FORMS}.") from error
    if not items:
        raise PatchError(f"X: expected at least one image, got none. Give {_FORMS}.")
    return _from_list(items)


def table_column(X: Any, name: str) -> list | None:
    """Values of a column of a table of pandas, polars or Arrow; None for what is no table or has no such column.

    Raises
    ------
    PatchError
        If the table is not in memory, as a lazy frame of polars.

    Examples
    --------
    >>> import pyarrow
    >>> table_column(pyarrow.table({"path": ["a.png"], "patient": [7]}), "patient")
    [7]
    """
    frame = nw.from_native(X, pass_through=True)
    if isinstance(frame, nw.LazyFrame):
        raise PatchError(
            f"X: expected a table in memory, got {type(X).__module__.split('.')[0]}.{type(X).__name__}, which is not "
            "read yet. Call its method that gives a DataFrame, such as collect()."
        )
    return frame[name].to_list() if isinstance(frame, nw.DataFrame) and name in frame.columns else None


def _pixels(image: Any) -> np.ndarray:
    """Give an image in memory as an array; one of Pillow in colours that `to_rgb8` knows, and upright."""
    if hasattr(image, "getexif"):
        from PIL import ImageOps

        image = ImageOps.exif_transpose(image)
        if image.mode not in ("L", "RGB", "RGBA") and not image.mode.startswith(("I", "F")):
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return np.asarray(image)


def _from_array(X: np.ndarray) -> Images:
    if X.ndim == 3 and X.shape[-1] in (3, 4):
        raise PatchError(
            f"X: expected an array (n, H, W, 3), got one patch of shape {X.shape}. Give X[np.newaxis] for one patch."
        )
    if X.ndim not in (3, 4):
        raise PatchError(
            f"X: expected an array (n, H, W, 3) of uint8, got shape {X.shape}. Feature matrices and flattened "
            "images cannot be used: families measure pixels."
        )
    if not len(X):
        raise PatchError(f"X: expected at least one image, got an array of shape {X.shape}.")
    to_rgb8(X[0], name="X[0]")
    return Images(X, on_disk=False)


def _from_list(items: list) -> Images:
    first = items[0]
    on_disk = isinstance(first, str | os.PathLike)
    for position, item in enumerate(items):
        array = hasattr(item, "getexif") or (hasattr(item, "__array__") and np.ndim(item) > 0)
        if not (isinstance(item, str | os.PathLike) if on_disk else array):
            raise PatchError(
                f"X[{position}]: expected {'a path' if on_disk else 'an array (H, W, 3) of uint8'}, "
                f"got {type(item).__name__} ({item!r:.60}). Give {_FORMS}."
            )
    return Images([os.fspath(item) for item in items] if on_disk else items, on_disk=on_disk)


def decode_patch(
    content: bytes, *, name: str = "image", max_pixels: int = MAX_PIXELS
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode the bytes of one image file.

    Parameters
    ----------
    content : bytes
        The whole file.
    name : str
        What error messages call it.
    max_pixels : int, default=50_000_000
        Largest image in pixels, of 4 bytes each before compression (of 16-bit RGBA half as many). The header is asked
        before memory is taken; decoding takes up to four times the bytes of the image.

    Returns
    -------
    patch : ndarray of shape (H, W, 3), uint8
        Red first.
    rules : tuple of str
        The conversions that were needed (see the table of `histofeat.images._decoding`), empty for 8-bit RGB.

    Raises
    ------
    PatchError
        If the bytes are no image, are damaged or truncated, are too large, or hold pixels that no rule of the table
        brings to 8 bits.
    """
    try:
        array, orientation, rules = decode_pixels(content, max_pixels)
        if orientation > 1:
            array, rules = turn(array, orientation), (*rules, "turned")
        patch, more = to_rgb8(array, name=name)
        return np.ascontiguousarray(patch), (*rules, *more)
    except PatchError:
        raise
    except Unusable as error:
        raise PatchError(f"{name}: {error}") from error
    except Exception as error:  # decoders raise whatever they like on damaged files
        if isinstance(error, MemoryError) or getattr(error, "code", None) == _NO_MEMORY:
            got = f"{name}: expected an image that fits into memory, got one that does not. Cut it into tiles."
            raise PatchError(got) from error
        raise PatchError(f"{name}: {damaged(content, error)}") from error


def read_patch(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read one image file as RGB.

    Parameters
    ----------
    path : path-like
        A PNG, JPEG, TIFF, BMP or WebP file.
    max_pixels : int, default=50_000_000
        Largest image; see `decode_patch`.

    Returns
    -------
    patch : ndarray of shape (H, W, 3), uint8
        Red first, upright, 8 bits, without alpha.

    Raises
    ------
    PatchError
        If the file is missing, is no image, is damaged or too large, or holds pixels of another depth or colour.

    Warns
    -----
    UserWarning
        If it holds 16 bits a channel and uses 12 of them or fewer: the patch is all but black.
    """
    patch, rules = decode_patch(read_bytes(path), name=os.fspath(path), max_pixels=max_pixels)
    warn_if_dark(rules, os.fspath(path))
    return patch


def warn_if_dark(rules: Iterable[str], where: str) -> None:
    """Warn of 16-bit images that use 12 bits or fewer, if `rules` has them."""
    if "dark 16-bit" in rules:
        warnings.warn(
            f"{where}: 16-bit pixels of at most 4,095 of 65,535, so that the patch is all but black. If "
            "they are the 10 or 12 bits of a camera, scale them to 8 bits first.",
            stacklevel=3,
        )


def run_ahead(
    function: Callable[[Any], Any], items: Iterable[Any], *, n_jobs: int | None = None, ahead: int = 0, stop: Any = None
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
    ahead : int, default=0
        Calls that are begun before their result is asked for, which bounds the memory; 0 is twice the threads.
    stop : callable, optional
        Called when the rest is not wanted any more: it can end calls that have begun.

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
            if waiting and stop is not None:
                stop()
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
        its shape before. It may give a tuple of names too, of what is to be counted as conversions are. It is called
        from several threads at once.
    """

    base: Images
    change: Callable[[int, np.ndarray], np.ndarray | tuple[np.ndarray, tuple[str, ...]]]
    _rules: dict[int, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def take(self, rows: Iterable[int]) -> MappedImages:
        """Some of the images, in the order of `rows`; each is changed as at its place in the whole."""
        rows, base = list(rows), self.base.take(rows)
        return MappedImages(base.items, base.on_disk, base, lambda index, patch: self.change(rows[index], patch))

    def content(self, index: int) -> np.ndarray:
        """Decode and change one image: ndarray of shape (H, W, 3), uint8."""
        patch, rules = self.base.decode(index, self.base.content(index))
        changed = self.change(index, patch)
        patch, more = changed if isinstance(changed, tuple) else (changed, ())
        if rules or more:
            self._rules[index] = (*rules, *more)
        return patch

    def decode(self, index: int, content: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """Give `content`, which is decoded already, and the conversions that it took to decode it."""
        return content, self._rules.get(index, ())

    def counts(self) -> Counter[str]:
        """Number of images so far by conversion."""
        return Counter(rule for rules in list(self._rules.values()) for rule in rules)


def map_images(
    X: Any, change: Callable[[int, np.ndarray], np.ndarray | tuple[np.ndarray, tuple[str, ...]]]
) -> MappedImages:
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


def image_input_tags(tags: Any, *, requires_fit: bool = False) -> Any:
    """Set the tags of an estimator that takes images; by default it learns nothing from them."""
    tags.input_tags.two_d_array = False
    tags.input_tags.string = True
    tags.requires_fit = requires_fit
    if tags.transformer_tags is not None:
        tags.transformer_tags.preserves_dtype = []
    return tags
