"""Patches as a family measures them: one batch, converted once."""

from __future__ import annotations

import numpy as np

from histofeat.exceptions import known_names

__all__ = ["CHANNELS", "PatchBatch", "check_channels"]


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


def check_channels(owner: str, channels) -> None:
    """Refuse what is no list of different channel names.

    Parameters
    ----------
    owner : str
        What the message calls the parameter.
    channels : object
        What the user gave.

    Raises
    ------
    ValueError
        If `channels` is no list or tuple, is empty, names a channel twice or one that does not exist.
    """
    known = ("gray", *CHANNELS)
    names = channels if isinstance(channels, list | tuple) else ()
    if names and all(name in known and names.count(name) == 1 for name in names):
        return
    strange = next((name for name in names if isinstance(name, str) and name not in known), None)
    hint = f" {known_names(strange, known)}" if strange else ""
    raise ValueError(f"{owner}: expected different names of {known}, got {channels!r}.{hint}")


class PatchBatch:
    """Patches of one size, with each colour conversion computed once and kept.

    All families of a union see the same batch, so two families that want grey levels or stains share one
    conversion while the pixels are still in cache.

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
        rgb = np.ascontiguousarray(rgb)
        if rgb.flags.writeable:
            rgb = rgb.view()
            rgb.flags.writeable = False
        self.rgb = rgb
        self._cache: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.rgb)

    @property
    def gray(self) -> np.ndarray:
        """Luma of shape (n, H, W), uint8: OpenCV's integer form of 0.299 R + 0.587 G + 0.114 B (Rec. 601)."""
        return self._kept("gray", lambda: self._convert("COLOR_RGB2GRAY"))

    @property
    def hsv(self) -> np.ndarray:
        """Hue (0 to 255 for the full circle), saturation and value of shape (n, H, W, 3), uint8."""
        return self._kept("hsv", lambda: self._convert("COLOR_RGB2HSV_FULL"))

    @property
    def stains(self) -> np.ndarray:
        """Hematoxylin, eosin and residual of shape (n, H, W, 3), uint8; see `quantised_stains` for the scale."""
        from histofeat.images import quantised_stains

        return self._kept("stains", lambda: quantised_stains(self.rgb))

    def channel(self, name: str) -> np.ndarray:
        """One channel by name, shape (n, H, W), uint8, C-contiguous; `CHANNELS` and ``"gray"`` name them."""
        if name == "gray":
            return self.gray
        space, position = CHANNELS[name]
        return self._kept(name, lambda: np.ascontiguousarray(getattr(self, space)[..., position]))

    def _kept(self, key: str, compute) -> np.ndarray:
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]

    def _convert(self, code: str) -> np.ndarray:
        import cv2

        # The conversion is pointwise, so the whole batch goes through OpenCV as one tall image.
        n, height, width, _ = self.rgb.shape
        out = cv2.cvtColor(self.rgb.reshape(n * height, width, 3), getattr(cv2, code))
        return out.reshape((n, height, width, *out.shape[2:]))
