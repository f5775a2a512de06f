"""Shortcuts as feature families: what could betray a label without any tissue being understood."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import ClassVar

import numpy as np

from histofeat.features.base import PatchBatch, PatchFeatures, check_channels
from histofeat.shortcuts.pixels import background_share, blockiness, laplacian_variance, quiet_share

__all__ = ["BackgroundFraction", "CompressionAndBlur", "MeanColor"]


class MeanColor(PatchFeatures):
    """Mean of each channel, and nothing else of the picture.

    Parameters
    ----------
    channels : sequence of str, default ("red", "green", "blue")
        Names of `histofeat.features.base.CHANNELS`, or "gray".

    Notes
    -----
    Columns are ``shortcut_mean_<channel>``, in units of 255. Mean colour is stain, scanner and the thickness of the
    section; it is also how many nuclei there are, which is biology.

    Examples
    --------
    >>> import numpy as np
    >>> MeanColor().transform(np.full((1, 4, 4, 3), (255, 0, 51), dtype=np.uint8)).astype(float).round(3).tolist()
    [[1.0, 0.0, 0.2]]
    """

    family: ClassVar[str] = "mean_color"
    _invariant_to_turns: ClassVar[bool] = True

    def __init__(self, channels: Sequence[str] = ("red", "green", "blue")):
        self.channels = channels

    def _check_params(self) -> None:
        check_channels("MeanColor.channels", self.channels)

    def _feature_names(self) -> list[str]:
        return [f"shortcut_mean_{channel}" for channel in self.channels]

    def _compute(self, batch: PatchBatch) -> np.ndarray:
        planes = [batch.channel(channel) for channel in self.channels]
        sums = np.stack([plane.sum(axis=(1, 2), dtype=np.int64) for plane in planes], axis=1)
        return (sums / (255 * planes[0][0].size)).astype(np.float32)


class BackgroundFraction(PatchFeatures):
    """Share of a patch that is bare glass, or as bright and colourless.

    Parameters
    ----------
    min_value : int, default 220
        Least brightness of a background pixel, its largest channel, 0 to 255.
    max_saturation : int, default 20
        Largest saturation of a background pixel, in units of 1/255.

    See Also
    --------
    histofeat.studies.shortcuts.pixels.background_share : the definition.

    Notes
    -----
    The one column is ``shortcut_background_share``. The defaults lie in the valley between glass and tissue of the IDC
    patches outside the official test set.

    Examples
    --------
    >>> import numpy as np
    >>> patch = np.full((1, 4, 4, 3), 240, dtype=np.uint8)
    >>> patch[0, 0] = (200, 120, 180)
    >>> BackgroundFraction().transform(patch).tolist()
    [[0.75]]
    """

    family: ClassVar[str] = "background"
    _invariant_to_turns: ClassVar[bool] = True

    def __init__(self, min_value: int = 220, max_saturation: int = 20):
        self.min_value = min_value
        self.max_saturation = max_saturation

    def _check_params(self) -> None:
        _check_whole("BackgroundFraction.min_value", self.min_value, 0, 255)
        _check_whole("BackgroundFraction.max_saturation", self.max_saturation, 0, 255)

    def _feature_names(self) -> list[str]:
        return ["shortcut_background_share"]

    def _compute(self, batch: PatchBatch) -> np.ndarray:
        share = background_share(batch.rgb, self.min_value, self.max_saturation)
        return share[:, np.newaxis].astype(np.float32)


class CompressionAndBlur(PatchFeatures):
    """Traces of block compression, and how sharp a patch is.

    Parameters
    ----------
    block_px : int, default 8
        Side of the blocks that are looked for, 2 to 32; 8 in JPEG.

    See Also
    --------
    histofeat.studies.shortcuts.pixels : the definitions, and what happens on flat and narrow patches.

    Notes
    -----
    On luma. Columns: ``shortcut_blockiness``, the mean over rows and columns of the contrast of block borders for a
    grid that begins with the patch (the patch was a file of its own); ``shortcut_blockiness_max``, the same for the
    position of the grid that shows it most (the patch was cut from a compressed picture); ``shortcut_quiet_share``, the
    share of high frequencies that are zero; ``shortcut_log_sharpness``, ``log(1 + variance of the Laplacian)``.
    Sharpness is focus and compression, and it is also texture.

    Examples
    --------
    >>> import numpy as np
    >>> flat = np.full((1, 50, 1, 3), 90, dtype=np.uint8)
    >>> dict(zip(CompressionAndBlur().get_feature_names_out(), CompressionAndBlur().transform(flat)[0].tolist()))
    {'shortcut_blockiness': 0.0, 'shortcut_blockiness_max': 0.0, 'shortcut_quiet_share': 1.0,
     'shortcut_log_sharpness': 0.0}
    """

    family: ClassVar[str] = "compression_and_blur"

    def __init__(self, block_px: int = 8):
        self.block_px = block_px

    def _check_params(self) -> None:
        _check_whole("CompressionAndBlur.block_px", self.block_px, 2, 32)

    def _feature_names(self) -> list[str]:
        columns = ("blockiness", "blockiness_max", "quiet_share", "log_sharpness")
        return [f"shortcut_{column}" for column in columns]

    def _compute(self, batch: PatchBatch) -> np.ndarray:
        contrast = blockiness(batch.gray, self.block_px)
        columns = (
            contrast[:, :, 0].mean(axis=1),
            contrast.max(axis=2).mean(axis=1),
            quiet_share(batch.gray, self.block_px),
            np.log1p(laplacian_variance(batch.gray)),
        )
        return np.stack(columns, axis=1).astype(np.float32)


def _check_whole(owner: str, value, low: int, high: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{owner}: expected an integer from {low} to {high}, got {value!r}. Use the default.")
