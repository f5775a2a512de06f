"""Textures of grey-level co-occurrence: Haralick's thirteen statistics, and the ten properties of scikit-image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from histofeat.features._cooccurrence import CooccurrenceFeatures, haralick, measure_matrices, properties

#: Names of the statistics, in the order of mahotas.
STATISTICS = (
    *("asm", "contrast", "correlation", "variance", "idm", "sum_average", "sum_variance", "sum_entropy", "entropy"),
    *("difference_variance", "difference_entropy", "imc1", "imc2"),
)


def haralick_statistics(counts: np.ndarray) -> np.ndarray:
    """Thirteen Haralick statistics of symmetric co-occurrence matrices.

    Parameters
    ----------
    counts : ndarray of shape (..., L, L), int
        Symmetric counts of pairs, such as `cooccurrence` gives.

    Returns
    -------
    statistics : ndarray of shape (..., 13), float64
        In the order of `STATISTICS`; NaN for a matrix without any pair.

    Raises
    ------
    ValueError
        If the matrices are not square, not symmetric, or hold negative counts.

    Notes
    -----
    With p the matrix divided by its sum, i and j its rows and columns, mu and v the mean and variance of its marginal
    px, q the distribution of ``i + j`` and d that of ``|i - j|``, H the entropy (log base 2, ``0 log 0 = 0``), these
    are mahotas's definitions:

    - ``asm = sum p^2``, ``contrast = sum (i - j)^2 p``, ``variance = v``, ``idm = sum p / (1 + (i - j)^2)``;
    - ``correlation = sum (i - mu) (j - mu) p / v``, and 1 where v is 0;
    - ``sum_average``, ``sum_variance`` and ``sum_entropy``: mean, variance and entropy of q; ``entropy = H(p)``;
    - ``difference_variance``: the variance *of the vector d* over its L entries (not of ``|i - j|``), which is
      mahotas's default; ``difference_entropy = H(d)``;
    - ``imc1 = (H(p) - 2 H(px)) / H(px)``, and 0 where H(px) is 0;
      ``imc2 = sqrt(max(0, 1 - exp(-2 (2 H(px) - H(p)))))``. For a symmetric matrix both HXY1 and HXY2 of [1]_ are
      ``2 H(px)``.

    A matrix with all pairs in one cell (k, k), that of a flat patch, has asm, correlation and idm 1, sum average
    2 k, difference variance ``1 / L - 1 / L^2``, and 0 otherwise.

    References
    ----------
    .. [1] R. M. Haralick, K. Shanmugam, I. Dinstein, IEEE Transactions on Systems, Man, and Cybernetics SMC-3(6),
       1973, 610-621. :doi:`10.1109/TSMC.1973.4309314`

    Examples
    --------
    >>> import numpy as np
    >>> haralick_statistics(np.array([[2, 1], [1, 0]])).round(3)[:5].tolist()
    [0.375, 0.5, -0.333, 0.188, 0.75]
    """
    return measure_matrices("haralick_statistics", counts, haralick, len(STATISTICS))


class HaralickTexture(CooccurrenceFeatures):
    """Haralick's thirteen texture statistics: mean and range over four directions.

    Parameters
    ----------
    levels : int, default 32
        Grey levels, 2 to 256. They are fixed, ``v * levels // 256``, so that patches can be compared; mahotas
        takes their number from each image's own maximum.
    distances : sequence of int, default (1,)
        Steps between the pixels of a pair, each at least 1.
    channels : sequence of str, default ("gray", "hematoxylin", "eosin")
        Channels of `PatchBatch` to measure.

    See Also
    --------
    cooccurrence, haralick_statistics : the definitions, and the values of a flat patch.

    Notes
    -----
    Columns are ``haralick_<channel>_<statistic>_d<distance>_<mean or range>``, with ``h`` and ``e`` for hematoxylin and
    eosin. A distance beyond the longer side of a patch is reduced to that side minus one. Mean and range skip a
    direction in which the patch has no pair. A patch of a single level, or of a single pixel, counts as flat. Mean and
    range do not change under flips and quarter turns, which only swap the directions.

    Examples
    --------
    >>> import numpy as np
    >>> family = HaralickTexture(channels=("hematoxylin",))
    >>> values = family.transform(np.zeros((1, 50, 50, 3), dtype=np.uint8))
    >>> {name: float(v) for name, v in zip(family.get_feature_names_out()[:3], values[0], strict=False)}
    {'haralick_h_asm_d1_mean': 1.0, 'haralick_h_contrast_d1_mean': 0.0, 'haralick_h_correlation_d1_mean': 1.0}
    """

    family: ClassVar[str] = "haralick"
    _statistics: ClassVar[tuple[str, ...]] = STATISTICS
    #: Channels that are abbreviated in column names.
    _short: ClassVar[dict[str, str]] = {"hematoxylin": "h", "eosin": "e"}


#: Names of the properties, those of scikit-image in small letters.
PROPERTIES = (
    *("contrast", "dissimilarity", "homogeneity", "asm", "energy", "correlation"),
    *("mean", "variance", "std", "entropy"),
)


def glcm_properties(counts: np.ndarray) -> np.ndarray:
    """Ten properties of symmetric co-occurrence matrices.

    Parameters
    ----------
    counts : ndarray of shape (..., L, L), int
        Symmetric counts of pairs, such as `histofeat.features._cooccurrence.cooccurrence` gives.

    Returns
    -------
    properties : ndarray of shape (..., 10), float64
        In the order of `PROPERTIES`; NaN for a matrix without any pair.

    Raises
    ------
    ValueError
        If the matrices are not square, not symmetric, or hold negative counts.

    Notes
    -----
    With p the matrix divided by its sum, i and j its rows and columns, these are the definitions of
    `skimage.feature.graycoprops`, after [1]_ and [2]_:

    - ``contrast = sum (i - j)^2 p``, ``dissimilarity = sum |i - j| p``, ``homogeneity = sum p / (1 + (i - j)^2)``;
    - ``asm = sum p^2``, ``energy = sqrt(asm)``, ``entropy = -sum p ln p``, in nats, with ``0 ln 0 = 0``;
    - ``mean = sum i p``, ``variance = sum (i - mean)^2 p``, ``std = sqrt(variance)``;
    - ``correlation = sum (i - mean) (j - mean) p / variance``, and 1 where the variance is 0.

    A matrix with all pairs in one cell (k, k), that of a flat patch, has homogeneity, asm, energy and correlation 1,
    mean k, and 0 otherwise.

    References
    ----------
    .. [1] R. M. Haralick, K. Shanmugam, I. Dinstein, IEEE Transactions on Systems, Man, and Cybernetics SMC-3(6),
       1973, 610-621. :doi:`10.1109/TSMC.1973.4309314`
    .. [2] M. Hall-Beyer, GLCM Texture: A Tutorial v. 3.0, University of Calgary, 2017. :doi:`10.11575/PRISM/33280`

    Examples
    --------
    >>> import numpy as np
    >>> glcm_properties(np.array([[2, 1], [1, 0]]))[:4].tolist()
    [0.5, 0.5, 0.75, 0.375]
    """
    return measure_matrices("glcm_properties", counts, properties, len(PROPERTIES))


@dataclass(eq=False, repr=False)
class GLCM(CooccurrenceFeatures):
    """Ten properties of grey-level co-occurrence: mean and range over four directions.

    Parameters
    ----------
    levels : int, default 32
        Grey levels, 2 to 256. They are fixed, ``v * levels // 256``, so that patches can be compared.
    distances : sequence of int, default (1, 3)
        Steps between the pixels of a pair, each at least 1. A diagonal step is one row and one column; scikit-image
        rounds the end of a diagonal of the given length instead, which is the same for a distance of 1.
    channels : sequence of str, default ("gray", "hematoxylin", "eosin")
        Channels of `PatchBatch` to measure.

    See Also
    --------
    glcm_properties : the definitions, and the values of a flat patch.
    histofeat.features.HaralickTexture : thirteen statistics of the same matrices, after mahotas.

    Notes
    -----
    Columns are ``glcm_<channel>_<property>_d<distance>_<mean or range>``. A distance beyond the longer side of a patch
    is reduced to that side minus one. Mean and range skip a direction in which the patch has no pair. A patch of a
    single level, or of a single pixel, counts as flat. Mean and range do not change under flips and quarter turns,
    which only swap the directions.

    Examples
    --------
    >>> import numpy as np
    >>> family = GLCM(distances=(1,), channels=("gray",))
    >>> values = family.transform(np.zeros((1, 50, 50, 3), dtype=np.uint8))
    >>> {name: float(v) for name, v in zip(family.get_feature_names_out()[1:3], values[0, 1:3], strict=True)}
    {'glcm_gray_dissimilarity_d1_mean': 0.0, 'glcm_gray_homogeneity_d1_mean': 1.0}
    """

    family: ClassVar[str] = "glcm"
    _statistics: ClassVar[tuple[str, ...]] = PROPERTIES

    distances: Sequence[int] = (1, 3)
