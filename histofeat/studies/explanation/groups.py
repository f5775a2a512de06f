"""Which columns belong together, by name or by correlation: alone, each would be covered for by the others."""

import re
from collections import defaultdict

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

from histofeat.features import CHANNELS

__all__ = ["column_groups", "correlated_groups"]

# "h" and "e" are hematoxylin and eosin in the names of Haralick's columns.
_CHANNEL = f"(?:{'|'.join((*CHANNELS, 'gray', 'h', 'e'))})"
#: Rows that correlations are taken from, at most.
_MOST_ROWS = 20_000


def column_groups(families):
    """Group columns by what was measured on what: the family, the channel and, of LBP, the radius.

    Parameters
    ----------
    families : sequence of PatchFeatures

    Returns
    -------
    groups : dict of str to tuple of str
        Column names by group, in column order. Columns that name no channel are one group with the family's name.

    Examples
    --------
    >>> from histofeat import HaralickTexture, LBPHistogram
    >>> groups = column_groups([LBPHistogram(radii_px=(1, 2)), HaralickTexture(channels=("eosin",))])
    >>> {name: len(columns) for name, columns in groups.items()}
    {'lbp_gray_r1': 10, 'lbp_gray_r2': 18, 'haralick_e': 26}
    """
    groups = defaultdict(list)
    for family in families:
        pattern = re.compile(rf"{re.escape(family.family)}_{_CHANNEL}(?:_r\d+)?(?=_)")
        for name in family.get_feature_names_out():
            found = pattern.match(name)
            groups[found.group() if found else family.family].append(name)
    return {name: tuple(columns) for name, columns in groups.items()}


def correlated_groups(features, names, *, level=0.9):
    """Group columns so that every two of a group are strongly correlated.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        At most 20,000 rows are used, evenly spaced.
    names : sequence of str
        Column names, length d.
    level : float in (0, 1), default=0.9
        The least absolute rank correlation (Spearman) of two columns of a group.

    Returns
    -------
    groups : dict of str to tuple of str
        Column names by group, which is called after its first column. A constant column is a group of its own.

    Raises
    ------
    ValueError
        If `level` is out of range, or the names do not fit the columns.

    Notes
    -----
    Complete linkage: a group as a whole is as close as its two most distant columns. Labels play no part, so that
    groups from all rows do not make a score look better.

    Examples
    --------
    >>> features = np.array([[1.0, 10.0, 5.0], [2.0, 20.0, 1.0], [3.0, 35.0, 4.0], [4.0, 40.0, 2.0]])
    >>> correlated_groups(features, ["a", "b", "c"])
    {'a and 1 more': ('a', 'b'), 'c': ('c',)}
    """
    if not 0 < level < 1:
        raise ValueError(f"correlated_groups.level: expected a number between 0 and 1, got {level!r}. Use 0.9.")
    if np.ndim(features) != 2 or np.shape(features)[1] != len(names):
        raise ValueError(
            f"correlated_groups.features: expected shape (n, {len(names)}), got {np.shape(features)}. "
            "Pass a name for each column."
        )
    if len(names) < 2:
        return {name: (name,) for name in names}
    rows = np.unique(np.linspace(0, len(features) - 1, min(len(features), _MOST_ROWS)).round().astype(int))
    # Rounding may carry a correlation past 1.
    distance = np.maximum(1 - np.abs(_rank_correlations(features[rows])), 0)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), method="complete")
    members = defaultdict(list)
    # The last digits of a product must not part two columns that hold the same numbers.
    for name, label in zip(names, fcluster(tree, 1 - level + 1e-9, criterion="distance"), strict=True):
        members[label].append(name)
    return {_title(columns): tuple(columns) for columns in members.values()}


def _rank_correlations(features):
    ranks = rankdata(features, axis=0)
    ranks -= ranks.mean(axis=0)
    length = np.linalg.norm(ranks, axis=0)
    ranks /= np.where(length > 0, length, 1.0)
    return ranks.T @ ranks


def _title(columns):
    return columns[0] if len(columns) == 1 else f"{columns[0]} and {len(columns) - 1} more"
