"""Read images ahead in threads, and change them as they are read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import joblib
import numpy as np

from histofeat.images.decoding import Images, as_images

__all__ = ["MappedImages", "map_images", "run_ahead"]


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
