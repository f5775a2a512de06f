"""A batch of patches with each colour conversion computed once, and the checks that all families share."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from histofeat.exceptions import known_names

#: Every named channel: the colour space that holds it and its position there.
CHANNELS: dict[str, tuple[str, int]] = {
    "red": ("rgb", 0),
    "green": ("rgb", 1),
    "blue": ("rgb", 2),
    "hue": ("hsv", 0),
    "saturation": ("hsv", 1),
    "value": ("hsv", 2),
    "hematoxylin": ("stains", 0),
    "eosin": ("stains", 1),
    "residual": ("stains", 2),
}


def check_channels(owner: str, channels: Any, known: tuple[str, ...] = ("gray", *CHANNELS)) -> None:
    """Check that a parameter is a list of different channel names.

    Parameters
    ----------
    owner : str
        Name of the parameter in the message.
    channels : object
        Its value.
    known : tuple of str
        The names that exist; by default those of channels.

    Raises
    ------
    ValueError
        If `channels` is no list or tuple, is empty, names a channel twice or one that does not exist.
    """
    names = channels if isinstance(channels, list | tuple) else ()
    if names and all(name in known and names.count(name) == 1 for name in names):
        return
    strange = next((name for name in names if isinstance(name, str) and name not in known), None)
    hint = f" {known_names(strange, known)}" if strange else ""
    raise ValueError(f"{owner}: expected different names of {known}, got {channels!r}.{hint}")


def check_different(owner: str, values: Any, words: str) -> Sequence[Any]:
    """Return a parameter that is a list or tuple of different values, at least one.

    Parameters
    ----------
    owner : str
        Name of the parameter in the message.
    values : object
        Its value.
    words : str
        What is expected, with an example.

    Raises
    ------
    ValueError
        If it is no list or tuple, is empty, or holds a value twice.
    """
    if not isinstance(values, list | tuple) or not values or any(values.count(value) > 1 for value in values):
        raise ValueError(f"{owner}: expected different {words}, got {values!r}.")
    return values


def as_stack(owner: str, images, *, colors: bool = False) -> np.ndarray:
    """View one image or several of one size as a stack.

    Parameters
    ----------
    owner : str
        Name of the function in the message.
    images : ndarray of shape (H, W) or (n, H, W), uint8
        Grey images; with `colors` of shape (H, W, 3) or (n, H, W, 3).
    colors : bool, default=False
        Whether the last axis holds red, green and blue.

    Returns
    -------
    stack : ndarray of shape (n, H, W) or (n, H, W, 3), uint8

    Raises
    ------
    ValueError
        If the images have another type or shape, or no pixels.

    Examples
    --------
    >>> as_stack("mine", np.zeros((2, 5), dtype=np.uint8)).shape
    (1, 2, 5)
    """
    images = np.asarray(images)
    n_axes, form = (3, "(H, W, 3) or (n, H, W, 3)") if colors else (2, "(H, W) or (n, H, W)")
    if (
        images.dtype != np.uint8
        or images.ndim not in (n_axes, n_axes + 1)
        or (colors and images.shape[-1] != 3)
        or 0 in images.shape[-n_axes:]
    ):
        raise ValueError(f"{owner}: expected 8-bit images of shape {form}, got {images.dtype} of shape {images.shape}.")
    return images if images.ndim > n_axes else images[None]


def read_only(array: np.ndarray) -> np.ndarray:
    """View an array as C-contiguous and read-only, the one type for which kernels are compiled."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


class PatchBatch:
    """Patches of one size, with each colour conversion computed once and kept.

    All families of a union get the same batch, so two families that need grey levels or stains share one conversion
    while the pixels are still in cache.

    Parameters
    ----------
    rgb : ndarray of shape (n, H, W, 3), uint8
        Decoded patches, red first.

    Examples
    --------
    >>> import numpy as np
    >>> batch = PatchBatch(np.full((2, 4, 4, 3), 255, dtype=np.uint8))
    >>> len(batch), batch.gray.shape, int(batch.channel("value")[0, 0, 0])
    (2, (2, 4, 4), 255)
    """

    def __init__(self, rgb: np.ndarray):
        self.rgb: np.ndarray = read_only(rgb)
        self._channels: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.rgb)

    @cached_property
    def gray(self) -> np.ndarray:
        """Luma of shape (n, H, W), uint8: OpenCV's integer form of 0.299 R + 0.587 G + 0.114 B (Rec. 601)."""
        return self._convert("COLOR_RGB2GRAY")

    @cached_property
    def hsv(self) -> np.ndarray:
        """Hue (0 to 255 for the full circle), saturation and value of shape (n, H, W, 3), uint8."""
        return self._convert("COLOR_RGB2HSV_FULL")

    @cached_property
    def stains(self) -> np.ndarray:
        """Hematoxylin, eosin and residual of shape (n, H, W, 3), uint8; see `quantised_stains` for the scale."""
        from histofeat.images import quantised_stains

        return quantised_stains(self.rgb)

    def channel(self, name: str) -> np.ndarray:
        """One channel by name, shape (n, H, W), uint8, C-contiguous; `CHANNELS` and ``"gray"`` name them."""
        if name == "gray":
            return self.gray
        if name not in self._channels:
            space, position = CHANNELS[name]
            self._channels[name] = np.ascontiguousarray(getattr(self, space)[..., position])
        return self._channels[name]

    def _convert(self, code: str) -> np.ndarray:
        import cv2

        # The conversion is pointwise, so the whole batch goes through OpenCV as one tall image.
        n, height, width, _ = self.rgb.shape
        out = cv2.cvtColor(self.rgb.reshape(n * height, width, 3), getattr(cv2, code))
        return out.reshape((n, height, width, *out.shape[2:]))


def resize_patches(rgb: np.ndarray, size: int) -> np.ndarray:
    """Patches of one size as squares of `size` px.

    A patch that is not square is first mirrored at its lower or right border until it is, so that nuclei keep
    their proportions.

    Parameters
    ----------
    rgb : ndarray of shape (n, H, W, 3), uint8
        Patches.
    size : int
        Side of the result in px.

    Returns
    -------
    resized : ndarray of shape (n, size, size, 3), uint8
        Bilinear (OpenCV's bit-exact form) where the side grows, mean over the covered area where it shrinks,
        which does not alias.

    Examples
    --------
    >>> import numpy as np
    >>> resize_patches(np.full((1, 2, 3, 3), 7, dtype=np.uint8), 4).shape
    (1, 4, 4, 3)
    """
    import cv2

    n, height, width, _ = rgb.shape
    side = max(height, width)
    if height != width:
        rgb = np.pad(rgb, ((0, 0), (0, side - height), (0, side - width), (0, 0)), mode="symmetric")
    if side == size:
        return rgb
    interpolation = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR_EXACT
    out = np.empty((n, size, size, 3), dtype=np.uint8)
    for patch, target in zip(rgb, out, strict=True):
        cv2.resize(patch, (size, size), dst=target, interpolation=interpolation)
    return out
