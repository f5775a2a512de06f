"""Decode paths or arrays to uint8 RGB patches: the only place that decodes.

Everything that is not already 8-bit RGB is converted by a stated rule, and the name of the rule is kept so that
an extraction can count how often each was needed:

========== ===========================================================================================
rule       what is done
========== ===========================================================================================
gray       one channel, repeated three times
palette    colours looked up
alpha      composited over white, the background of a slide
16-bit     divided by 257 and rounded, so that 65,535 becomes 255
CMYK       converted by Pillow's rule (no colour profile)
other mode bilevel, YCbCr, Lab and HSV files: converted by Pillow's rule
turned     turned upright as its EXIF orientation says
first page the first page or frame of a file with several
========== ===========================================================================================

Floating-point and 32-bit images are refused: their range cannot be known from one patch.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from histofeat.exceptions import PatchError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

#: Formats that are decoded, and the endings of their names, in lower case.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WebP")
IMAGE_SUFFIXES = (".apng", ".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_PNG_END = b"IEND\xaeB`\x82"
_BITS_PER_SAMPLE, _ORIENTATION = 258, 274  # TIFF tags


_FORMS = (
    "a one-dimensional sequence of paths, an array (n, H, W, 3) of uint8, a list of such patches, "
    "or a DataFrame with a `path` column"
)


@dataclass(frozen=True)
class Images:
    """A validated sequence of patches, still on disk or already in memory.

    Attributes
    ----------
    items : sequence of str, or sequence of ndarray
        Paths, or arrays of shape (H, W, 3), (H, W, 4) or (H, W).
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
        return _read_bytes(self.items[index]) if self.on_disk else self.items[index]

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
    X : sequence of paths, ndarray (n, H, W, 3) uint8, list of such arrays, or DataFrame with a ``path`` column
        What the user has. A list may hold patches of unequal size.

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
    if hasattr(X, "columns"):
        if "path" not in X.columns:
            raise PatchError(
                f"X: expected a DataFrame with a `path` column, got the columns {list(X.columns)[:8]}. "
                "Rename the column that holds the file names."
            )
        X = X["path"]
    if isinstance(X, str | bytes | os.PathLike):
        raise PatchError(f"X: expected {_FORMS}, got one path ({X!r}). Put it in a list: [path].")
    if isinstance(X, np.ndarray) and X.dtype != object and X.dtype.kind not in "US":
        return _from_array(X)
    try:
        items = list(X)
    except TypeError as error:
        raise PatchError(f"X: expected {_FORMS}, got {type(X).__name__}.") from error
    if not items:
        raise PatchError(f"X: expected at least one image, got none. Give {_FORMS}.")
    return _from_list(items)


def _from_array(X: np.ndarray) -> Images:
    if X.ndim == 3 and X.shape[-1] == 3:
        raise PatchError(
            f"X: expected an array (n, H, W, 3), got one patch of shape {X.shape}. Give X[np.newaxis] for one patch."
        )
    if X.ndim != 4:
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
    kind = (str, os.PathLike) if isinstance(first, str | os.PathLike) else np.ndarray
    for position, item in enumerate(items):
        if not isinstance(item, kind):
            raise PatchError(
                f"X[{position}]: expected {'a path' if kind is not np.ndarray else 'an array (H, W, 3) of uint8'}, "
                f"got {type(item).__name__} ({item!r:.60}). Give {_FORMS}."
            )
    if kind is np.ndarray:
        return Images(items, on_disk=False)
    return Images([os.fspath(item) for item in items], on_disk=True)


def read_patch(path: str | os.PathLike[str]) -> np.ndarray:
    """Read one image file as RGB.

    Parameters
    ----------
    path : path-like
        A PNG, JPEG, TIFF, BMP or WebP file.

    Returns
    -------
    patch : ndarray of shape (H, W, 3), uint8
        Red first, upright, 8 bits, without alpha.

    Raises
    ------
    PatchError
        If the file is missing, is no image, is truncated, or holds floating-point pixels.
    """
    return decode_patch(_read_bytes(path), name=os.fspath(path))[0]


#: Without O_NONBLOCK, opening a named pipe waits for a writer, who may never come.
_READ_ONLY = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_BINARY", "O_NONBLOCK", "O_NOCTTY"))
_SPECIAL = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class SpecialFileError(OSError):
    """A path leads to a folder, a named pipe, a socket or a device; ``strerror`` says to which."""


def open_regular(path: str | os.PathLike[str]) -> int:
    """Open a regular file for reading, without waiting: a file descriptor, which the caller closes.

    Raises
    ------
    OSError
        If it cannot be opened; a `SpecialFileError` if it is no regular file.
    """
    try:
        handle = os.open(path, _READ_ONLY)
    except OSError as error:
        if error.errno != errno.ENXIO:  # nobody can open a socket
            raise
        mode = os.stat(path).st_mode  # noqa: PTH116
    else:
        mode = os.fstat(handle).st_mode
        if stat.S_ISREG(mode):
            return handle
        os.close(handle)
    raise SpecialFileError(errno.EINVAL, _SPECIAL.get(stat.S_IFMT(mode), "no regular file"))


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        # Unbuffered and without pathlib: half the time, on files of a few kilobytes.
        with io.FileIO(open_regular(path)) as file:
            return file.readall()
    except FileNotFoundError as error:
        got = "a link to nothing" if os.path.islink(path) else "no such file"  # noqa: PTH114
        raise PatchError(f"{path}: expected an image file, found {got}. Check the path.") from error
    except OSError as error:
        raise PatchError(f"{path}: expected a readable image file, got {error.strerror or error}.") from error


def decode_patch(content: bytes, *, name: str = "image") -> tuple[np.ndarray, tuple[str, ...]]:
    """Decode the bytes of one image file.

    Parameters
    ----------
    content : bytes
        The whole file.
    name : str
        What error messages call it.

    Returns
    -------
    patch : ndarray of shape (H, W, 3), uint8
        Red first.
    rules : tuple of str
        The conversions that were needed (see the module's table), empty for 8-bit RGB.

    Raises
    ------
    PatchError
        If the bytes are no image, are truncated, or hold floating-point pixels.
    """
    if content[:8] == PNG_SIGNATURE and len(content) > 33:
        depth, color_type = content[24], content[25]
        complete = content[-8:] == _PNG_END
        # Plain 8-bit RGB, which is what histology archives hold, takes OpenCV's faster path. tRNS and eXIf
        # would make it something else; a chance match in the pixels only costs the slower path.
        header = content[: content.find(b"IDAT")]
        if depth == 8 and color_type == 2 and complete and b"tRNS" not in header and b"eXIf" not in content:
            patch = _opencv(content, rgb=True)
            if patch is not None:
                return patch, ()
        elif depth == 16 and complete:
            deep = _opencv(content, rgb=False)
            if deep is not None:
                return to_rgb8(deep, name=name)
    return _decode_other(content, name)


def _opencv(content: bytes, *, rgb: bool) -> np.ndarray | None:
    import cv2

    flag = cv2.IMREAD_COLOR if rgb else cv2.IMREAD_UNCHANGED
    image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flag)
    if image is None or image.ndim == 2:
        return image
    code = cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    return cv2.cvtColor(image, code)


def _decode_other(content: bytes, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Everything but plain PNGs goes through Pillow: slower, strict, and exact about modes."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        image.load()
    except UnidentifiedImageError as error:
        raise PatchError(
            f"{name}: expected an image file (PNG, JPEG, TIFF, BMP, WebP), got {len(content):,} bytes that no decoder "
            "knows. Remove or replace the file."
        ) from error
    except Exception as error:  # decoders of damaged files raise OSError, SyntaxError, struct.error and others
        raise PatchError(
            f"{name}: expected a whole image, got a damaged or truncated file of {len(content):,} bytes ({error}). "
            "Copy it again or remove it."
        ) from error
    if image.mode == "RGB" and 16 in getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, ()):
        # Pillow would drop the lower byte of a 16-bit RGB TIFF without a word.
        return to_rgb8(_opencv(content, rgb=False), name=name)
    rules = []
    if getattr(image, "n_frames", 1) > 1:
        rules.append("first page")
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
        rules.append("turned")
    patch, more = _from_pillow(image, name)
    return patch, (*rules, *more)


def _from_pillow(image, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    mode = image.mode
    if mode in ("F", "I"):
        raise PatchError(
            f"{name}: expected 8 or 16 bits a channel, got Pillow mode {mode!r} (32 bits). "
            "Scale the pixels to 0..255 and save them as 8-bit RGB."
        )
    if mode == "RGB" and "transparency" not in image.info:
        return np.array(image), ()
    if mode.startswith("I;16"):
        return to_rgb8(np.array(image).astype(np.uint16), name=name)
    if mode == "L" and "transparency" not in image.info:
        return to_rgb8(np.array(image), name=name)
    rules = ("palette",) if mode in ("P", "PA") else ()
    if mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        patch, more = to_rgb8(np.array(image.convert("RGBA")), name=name)
        return patch, (*rules, *more)
    return np.array(image.convert("RGB")), rules or ((mode,) if mode == "CMYK" else ("other mode",))


def to_rgb8(array: np.ndarray, *, name: str = "patch") -> tuple[np.ndarray, tuple[str, ...]]:
    """Bring one array to 8-bit RGB by the module's rules.

    Parameters
    ----------
    array : ndarray of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8 or uint16
        Grey, RGB, or RGB with alpha.
    name : str
        What error messages call it.

    Returns
    -------
    patch : ndarray of shape (H, W, 3), uint8
        `array` itself where nothing was to be done.
    rules : tuple of str
        The conversions that were needed.

    Raises
    ------
    PatchError
        If the array is empty, of another shape, or of another dtype.

    Examples
    --------
    >>> import numpy as np
    >>> to_rgb8(np.array([[65535]], dtype=np.uint16))
    (array([[[255, 255, 255]]], dtype=uint8), ('16-bit', 'gray'))
    """
    if array.dtype not in (np.uint8, np.uint16):
        nan = array.dtype.kind == "f" and bool(np.isnan(array).any())
        raise PatchError(
            f"{name}: expected uint8 (0..255) or uint16 pixels, got {array.dtype}{' with NaN' if nan else ''} of shape "
            f"{array.shape}. Convert it, for pixels in 0..1 by (255 * x).round().astype('uint8')."
        )
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or array.size == 0:
        raise PatchError(
            f"{name}: expected a patch (H, W, 3) with at least one pixel, got shape {array.shape}. "
            "Give grey as (H, W), RGB as (H, W, 3), RGB with alpha as (H, W, 4)."
        )
    rules = []
    if array.dtype == np.uint16:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
        rules.append("16-bit")
    if channels == 1:
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
        rules.append("gray")
    elif channels == 4:
        color, alpha = array[..., :3].astype(np.uint32), array[..., 3:].astype(np.uint32)
        array = ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
        rules.append("alpha")
    return array, tuple(rules)


def image_input_tags(tags: Any) -> Any:
    """Set the tags of an estimator that takes images and learns nothing from them."""
    tags.input_tags.two_d_array = False
    tags.input_tags.string = True
    tags.requires_fit = False
    if tags.transformer_tags is not None:
        tags.transformer_tags.preserves_dtype = []
    return tags
