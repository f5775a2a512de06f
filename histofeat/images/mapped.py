"""Images that are changed as they are read: what stands between a data set on disk and the families that measure it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from histofeat.images.decoding import Images, as_images

__all__ = ["MappedImages", "map_images"]


@dataclass(frozen=True, eq=False)
class MappedImages(Images):
    """A sequence of images, each decoded and changed at the moment when it is read.

    To extraction and to a `FeatureStore` such an image is an array: a store knows its features by the changed pixels,
    and can never take them for those of the image as it was.

    Attributes
    ----------
    base : Images
        Where the images come from; it may be changed in turn.
    change : callable
        ``change(index, patch)`` gives the patch that stands at `index`: uint8 RGB of shape (H, W, 3), which need not
        be the shape that it had. It is called from several threads at once.
    """

    base: Images
    change: Callable[[int, np.ndarray], np.ndarray]
    _rules: dict[int, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def take(self, rows) -> MappedImages:
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


def map_images(X, change: Callable[[int, np.ndarray], np.ndarray]) -> MappedImages:
    """Put a change before whatever reads the images.

    Parameters
    ----------
    X : sequence of paths, ndarray (n, H, W, 3) uint8, list of such arrays, DataFrame with a ``path`` column, or Images
        The images.
    change : callable
        As for `MappedImages`.

    Returns
    -------
    images : MappedImages
        Goes wherever X goes: into `extract`, a family, a pipeline. No pixel is read until then.

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
