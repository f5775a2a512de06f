"""Shortcuts as feature families: cues that may predict a label without information about the tissue."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from scipy.fft import dct

from histofeat.datasets import check_rows
from histofeat.exceptions import check_whole
from histofeat.features import PatchBatch, PatchFeatures, check_channels
from histofeat.model_selection import encode_patients


class MeanColor(PatchFeatures):
    """Mean of each channel, and nothing else of the picture.

    Parameters
    ----------
    channels : sequence of str, default ("red", "green", "blue")
        Names of `histofeat.features.CHANNELS`, or "gray".

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
    histofeat.studies._shortcut_families.background_share : the definition.

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
        check_whole("BackgroundFraction.min_value", self.min_value, 0, "Use the default.", most=255)
        check_whole("BackgroundFraction.max_saturation", self.max_saturation, 0, "Use the default.", most=255)

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
    histofeat.studies._shortcut_families.blockiness : the definition; `quiet_share` and `laplacian_variance` likewise.

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
        check_whole("CompressionAndBlur.block_px", self.block_px, 2, "Use the default.", most=32)

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


COORDINATE_NAMES = ("x_px", "y_px", "x_relative", "y_relative")


def coordinate_features(dataset):
    """Coordinates of the patches, absolute and relative to the extent of their own patient.

    Parameters
    ----------
    dataset : PatchDataset
        With ``x`` and ``y`` for every patch.

    Returns
    -------
    features : ndarray of shape (n, 4), float32
        In the order of `COORDINATE_NAMES`: x and y in pixels of the slide; and each as a share of the way from the
        patient's first patch to the last, 0 to 1, or 0.5 where all patches of a patient have the same one.

    Raises
    ------
    DatasetError
        If a patch has no coordinates; the message counts them.

    Notes
    -----
    The extent of a patient comes from all patches of that patient, of whatever side of a split; labels play no part.
    Coordinates are a property of the data set and not of a picture, so this is no feature family.

    Examples
    --------
    >>> import pandas as pd
    >>> from histofeat import PatchDataset
    >>> frame = pd.DataFrame({"path": list("abc"), "label": [0, 1, 0], "patient": list("pqq")})
    >>> dataset = PatchDataset(frame.assign(x=[51, 1, 101], y=[1, 201, 201]), ("no", "yes"), "mine")
    >>> coordinate_features(dataset).tolist()
    [[51.0, 1.0, 0.5, 0.5], [1.0, 201.0, 0.0, 0.5], [101.0, 201.0, 1.0, 0.5]]
    """
    missing = dataset.frame[["x", "y"]].isna().any(axis=1)
    expected = "PatchDataset.frame: expected x and y for every patch, got none for"
    check_rows(missing, dataset.frame["path"], expected, "Fill them in, or do without coordinates.")
    places = dataset.frame[["x", "y"]].astype(np.float64)
    _, codes = encode_patients(dataset.patients, len(dataset), "dataset.patients")
    first, last = (places.groupby(codes).transform(end).to_numpy() for end in ("min", "max"))
    extent = last - first
    relative = np.divide(places.to_numpy() - first, extent, out=np.full(places.shape, 0.5), where=extent > 0)
    return np.hstack([places, relative]).astype(np.float32)


#: Rounding to 8 bits leaves about 0.3 of a coefficient that was set to zero. Not 1, which coefficients of whole numbers
#: can hit exactly: then the last bit of a sum would decide.
_QUIET = 0.97


def background_share(rgb, min_value=220, max_saturation=20):
    """Share of the pixels that are bright and without colour, as bare glass is.

    Parameters
    ----------
    rgb : ndarray of shape (n, H, W, 3), uint8
        Patches, red first.
    min_value : int, default=220
        The largest of the three channels is at least this, 0 to 255.
    max_saturation : int, default=20
        Saturation in units of 1/255: (largest - smallest) / largest is at most ``max_saturation / 255``.

    Returns
    -------
    share : ndarray of shape (n,), float64
        0 to 1.

    Notes
    -----
    Whole numbers are compared, ``255 (largest - smallest) <= max_saturation * largest``, so nothing is rounded. Fat and
    the lumen of ducts let as much light through as glass does, and count as background too.

    Examples
    --------
    >>> import numpy as np
    >>> patch = np.array([[[245, 243, 244], [245, 200, 244]], [[90, 90, 90], [240, 240, 230]]], dtype=np.uint8)
    >>> background_share(patch[np.newaxis]).tolist()
    [0.5]
    """
    largest, smallest = rgb.max(axis=3).astype(np.int32), rgb.min(axis=3).astype(np.int32)
    colourless = 255 * (largest - smallest) <= max_saturation * largest
    return ((largest >= min_value) & colourless).mean(axis=(1, 2))


def blockiness(gray, block_px=8):
    """How much larger the steps between blocks are than those within, for every position of the grid of blocks.

    Parameters
    ----------
    gray : ndarray of shape (n, H, W), uint8
        Grey patches.
    block_px : int, default=8
        Side of a block, at least 2; 8 in JPEG.

    Returns
    -------
    contrast : ndarray of shape (n, 2, block_px), float64
        -1 to 1; along the second axis the steps between rows and those between columns, along the third how many
        pixels the first block is short of a whole one (0: the grid begins with the patch).

    Notes
    -----
    With B the mean absolute step between neighbouring pixels across block borders and I that within blocks:
    (B - I) / (B + I). It is 0 where the patch is flat, and where it is too small to have both kinds of step. The idea,
    on other measures of the step, is that of Wang, Bovik and Evans (2000, doi:10.1109/ICIP.2000.899622).

    Examples
    --------
    >>> import numpy as np
    >>> stripes = np.repeat(np.array([10, 20, 10], dtype=np.uint8), 4)[np.newaxis, np.newaxis].repeat(4, axis=1)
    >>> blockiness(stripes, block_px=4)[0, 1].tolist()
    [1.0, -1.0, -1.0, -1.0]
    """
    levels = gray.astype(np.int32)
    found = np.zeros((len(gray), 2, block_px))
    for axis in (0, 1):
        steps = np.abs(np.diff(levels, axis=axis + 1)).sum(axis=2 - axis, dtype=np.int64)
        for phase in range(block_px):
            # Step k lies between pixels k and k + 1.
            border = (np.arange(1, steps.shape[1] + 1) + phase) % block_px == 0
            if border.any() and not border.all():
                across, within = steps[:, border].mean(axis=1), steps[:, ~border].mean(axis=1)
                total = across + within
                np.divide(across - within, total, out=found[:, axis, phase], where=total > 0)
    return found


def quiet_share(gray, block_px=8):
    """Share of the high frequencies of each block that compression may have set to zero.

    Parameters
    ----------
    gray : ndarray of shape (n, H, W), uint8
        Grey patches.
    block_px : int, default=8
        Side of a block, at least 2.

    Returns
    -------
    share : ndarray of shape (n,), float64
        0 to 1: coefficients (u, v) with ``u + v >= block_px`` of the orthonormal cosine transform of the whole blocks,
        the grid beginning with the patch, whose magnitude is below 0.97. A flat patch has 1; a patch without a whole
        block has 1, too: it shows no high frequency.

    Notes
    -----
    JPEG divides these coefficients by the largest numbers of its table and rounds; most become zero (ITU-T T.81). After
    decoding to 8 bits they are what rounding leaves. A blurred patch is quiet as well.

    Examples
    --------
    >>> import numpy as np
    >>> checks = np.indices((8, 8)).sum(axis=0) % 2 * 200
    >>> quiet_share(np.stack([checks, np.zeros((8, 8))]).astype(np.uint8)).tolist()
    [0.6428571428571429, 1.0]
    """
    n, height, width = gray.shape
    rows, columns = height // block_px, width // block_px
    if rows == 0 or columns == 0:
        return np.ones(n)
    whole = gray[:, : rows * block_px, : columns * block_px].astype(np.float64)
    blocks = whole.reshape(n, rows, block_px, columns, block_px).transpose(0, 1, 3, 2, 4)
    transform = dct(np.eye(block_px), axis=0, norm="ortho")
    coefficients = transform @ blocks @ transform.T
    high = np.add.outer(np.arange(block_px), np.arange(block_px)) >= block_px
    return (np.abs(coefficients[..., high]) < _QUIET).mean(axis=(1, 2, 3))


def laplacian_variance(gray):
    """Variance of the second differences: low where a patch is blurred or smooth.

    Parameters
    ----------
    gray : ndarray of shape (n, H, W), uint8
        Grey patches.

    Returns
    -------
    variance : ndarray of shape (n,), float64
        In squared grey levels, of the population; 0 on a flat patch.

    Notes
    -----
    The Laplacian is above + below + left + right - 4 centre; beyond the border the nearest pixel is repeated, so that a
    patch one pixel wide has one as well. As a measure of focus it comes from Pech-Pacheco and others (2000,
    doi:10.1109/ICPR.2000.903548), who divide by 6 and take magnitudes first; here signs are kept.

    Examples
    --------
    >>> import numpy as np
    >>> laplacian_variance(np.array([[[0, 0, 0], [0, 9, 0], [0, 0, 0]]], dtype=np.uint8)).tolist()
    [180.0]
    """
    levels = np.pad(gray.astype(np.int64), ((0, 0), (1, 1), (1, 1)), mode="edge")
    centre = levels[:, 1:-1, 1:-1]
    second = levels[:, :-2, 1:-1] + levels[:, 2:, 1:-1] + levels[:, 1:-1, :-2] + levels[:, 1:-1, 2:] - 4 * centre
    n = centre[0].size
    # Sums of whole numbers: the same to the bit in whatever batch a patch travels.
    return ((second**2).sum(axis=(1, 2)) - second.sum(axis=(1, 2)) ** 2 / n) / n
