"""What every feature family shares: a batch of decoded patches, and the estimator around one function on it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from histofeat.exceptions import known_names
from histofeat.images.decoding import as_images

__all__ = ["CHANNELS", "PatchBatch", "PatchFeatures", "check_channels", "image_input_tags"]

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


def image_input_tags(tags):
    """Tell scikit-learn, through `tags`, that an estimator takes images and learns nothing from them."""
    tags.input_tags.two_d_array = False
    tags.input_tags.string = True
    tags.requires_fit = False
    if tags.transformer_tags is not None:
        tags.transformer_tags.preserves_dtype = []
    return tags


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
        from histofeat.images.stains import quantised_stains

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


class PatchFeatures(TransformerMixin, BaseEstimator):
    """Base of every feature family: patches in, one row of named float32 numbers per patch out.

    A family stores its parameters in ``__init__`` and implements three methods: ``_check_params()``, which
    refuses bad parameters; ``_feature_names()``, the stable names in column order; and ``_compute(batch)``, a
    pure function of a `PatchBatch` to an array of shape (n, d). Reading, decoding, grouping by size, batches
    and threads belong to `histofeat.features.extraction.extract`, also for a single family.

    A family learns nothing from the data: ``fit`` only validates, and ``transform`` works without it.
    """

    #: The name by which pipelines know the family, and the prefix of its columns.
    family: ClassVar[str]
    #: Patches measured at a time; larger for networks.
    _batch_size: ClassVar[int] = 64
    #: Whether `_compute` may run in several threads at once. A network brings threads of its own: it has
    #: ``_prepare(batch)``, safe in several threads, and ``_embed(prepared)``, called from one at a time.
    _threaded: ClassVar[bool] = True
    #: Whether flips and quarter turns of a patch leave its features as they are, up to rounding.
    _invariant_to_turns: ClassVar[bool] = False

    def fit(self, X, y=None):
        """Validate the parameters and the form of `X`; nothing is learnt from the pixels.

        Parameters
        ----------
        X : sequence of paths, ndarray (n, H, W, 3) uint8, list of such arrays, or DataFrame with a ``path`` column
            The patches.
        y : ignored
            Present for scikit-learn.

        Returns
        -------
        self : PatchFeatures
            This estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range.
        PatchError
            If `X` is not one of the forms above.
        """
        self._check_params()
        as_images(X)
        self.n_features_out_ = len(self._feature_names())
        return self

    def transform(self, X) -> np.ndarray:
        """Measure the patches.

        Parameters
        ----------
        X : sequence of paths, ndarray (n, H, W, 3) uint8, list of such arrays, or DataFrame with a ``path`` column
            The patches, of any and of unequal size.

        Returns
        -------
        features : ndarray of shape (n, d), float32
            One row per patch, one column per name of `get_feature_names_out`.

        Raises
        ------
        PatchError
            If an image cannot be read; the message names it.
        """
        from histofeat.features.extraction import extract  # the engine knows the families, not the reverse

        return extract([self], X).features[0]

    def get_feature_names_out(self, input_features=None) -> np.ndarray:
        """Names of the columns, an object array of shape (d,); `input_features` is ignored."""
        self._check_params()
        return np.asarray(self._feature_names(), dtype=object)

    def _fingerprint(self) -> dict:
        """Everything that the numbers depend on, for the key of a store."""
        return self.get_params(deep=False)

    def __sklearn_tags__(self):
        return image_input_tags(super().__sklearn_tags__())

    def _check_params(self) -> None:
        raise NotImplementedError(f"{type(self).__name__}: a family implements `_check_params`.")

    def _feature_names(self) -> list[str]:
        raise NotImplementedError(f"{type(self).__name__}: a family implements `_feature_names`.")

    def _compute(self, batch: PatchBatch) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__}: a family implements `_compute`.")
