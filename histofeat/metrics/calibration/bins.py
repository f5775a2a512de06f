"""Patches in bins of their probability: the sums from which every calibration measure follows, weighted or not."""

from dataclasses import dataclass
from numbers import Integral

import numpy as np

from histofeat.exceptions import known_names

__all__ = ["STRATEGIES", "BinTable", "bin_edges", "bin_sums", "bin_table", "by_chance", "measures", "share"]

STRATEGIES = ("quantile", "uniform")

#: What each bin adds up: patches, probabilities, positives, squared probabilities, probability times positive.
N, P, Y, PP, PY = range(5)


@dataclass(frozen=True)
class BinTable:
    """Patches in bins of their probability: a bin holds what lies above its lower edge, up to its upper one.

    Parameters
    ----------
    strategy : {"quantile", "uniform"}
        Bins of equally many patches, or of equal width.
    edges : tuple of float
        One more than there are bins; the first bin also holds what equals its lower edge.
    n : tuple of int
        Patches in each bin.
    mean_predicted : tuple of float
        Mean probability of class 1 in each bin, NaN where it is empty.
    share_positive : tuple of float
        Share of the bin that is of class 1, NaN where it is empty.
    """

    strategy: str
    edges: tuple[float, ...]
    n: tuple[int, ...]
    mean_predicted: tuple[float, ...]
    share_positive: tuple[float, ...]

    def to_dict(self):
        """Plain values, for files."""
        return {name: value if name == "strategy" else list(value) for name, value in vars(self).items()}


def bin_edges(score, n_bins, strategy, owner):
    """Edges of the bins.

    Parameters
    ----------
    score : ndarray of shape (n,), float64
        Probabilities.
    n_bins : int
        How many bins, at least 1.
    strategy : {"quantile", "uniform"}
        Equally many patches in each, or equal widths from 0 to 1. Probabilities that many patches share can make
        several quantiles one; there are fewer bins then.
    owner : str
        The function that a message names.

    Returns
    -------
    edges : ndarray of shape (k + 1,), float64
        Rising; k is at most `n_bins`.

    Raises
    ------
    ValueError
        If the number of bins is not a whole number from 1, or the strategy is unknown.
    """
    if not isinstance(n_bins, Integral) or isinstance(n_bins, bool) or n_bins < 1:
        raise ValueError(f"{owner}.n_bins: expected a whole number of at least 1, got {n_bins!r}. Use 10.")
    if strategy not in STRATEGIES:
        raise ValueError(
            f"{owner}.strategy: expected one of {', '.join(STRATEGIES)}, got {strategy!r}. "
            f"{known_names(str(strategy), STRATEGIES)}"
        )
    steps = np.linspace(0, 1, n_bins + 1)
    if strategy == "uniform":
        return steps
    quantiles = np.quantile(score, steps)
    edges = np.unique(quantiles)
    # A lowest probability that fills a bin, or all of them, keeps a bin for itself.
    return np.append(edges[0], edges) if quantiles[1] == quantiles[0] else edges


def bin_sums(y, score, edges, group=None):
    """Add up what the bins hold, for each group.

    Parameters
    ----------
    y : ndarray of shape (n,), int64
        0 or 1.
    score : ndarray of shape (n,), float64
        Probability of class 1.
    edges : ndarray of shape (k + 1,), float64
        As `bin_edges` gives them.
    group : ndarray of shape (n,), int64, optional
        Codes from 0; one group by default.

    Returns
    -------
    sums : ndarray of shape (g, 5, k), float64
        Patches, probabilities, positives, squared probabilities and probability times positive.
    """
    group = np.zeros(len(y), dtype=np.int64) if group is None else group
    n_groups, k = int(group.max()) + 1, len(edges) - 1
    cell = group * k + np.searchsorted(edges[1:-1], score)
    parts = (None, score, y, score**2, score * y)
    sums = [np.bincount(cell, part, minlength=n_groups * k).reshape(n_groups, k) for part in parts]
    return np.stack(sums, axis=1).astype(np.float64)


def bin_table(sums, edges, strategy):
    """Give the bins of one group as a record."""
    return BinTable(
        strategy,
        tuple(edges.tolist()),
        tuple(int(count) for count in sums[N]),
        tuple(share(sums[P], sums[N]).tolist()),
        tuple(share(sums[Y], sums[N]).tolist()),
    )


def share(part, whole, empty=np.nan):
    """Give ``part / whole``, and `empty` where there is no whole."""
    return np.divide(part, whole, out=np.full(np.shape(whole), empty), where=np.asarray(whole) > 0)


def measures(sums):
    """Every calibration measure that the sums of the bins define.

    Parameters
    ----------
    sums : ndarray of shape (..., 5, k), float64
        As `bin_sums` gives them; weighted sums will do.

    Returns
    -------
    measures : dict of str to ndarray of shape (...)
        "brier", its parts "reliability", "resolution", "uncertainty", "within_variance", "within_covariance" and
        "generalized_resolution", "ece", and "bias", the mean probability less the share of positive patches.
    """
    n, p, y, pp, py = np.moveaxis(sums, -2, 0)
    total = n.sum(axis=-1)
    prevalence = y.sum(axis=-1) / total

    def per_patch(parts):
        return parts.sum(axis=-1) / total

    # Times the patches of a bin: the squared distances of its means, from each other and from all patches together.
    apart = share((p - y) ** 2, n, empty=0.0)
    spread = share((y - n * prevalence[..., None]) ** 2, n, empty=0.0)
    resolution = per_patch(spread)
    within_variance = per_patch(pp - share(p**2, n, empty=0.0))
    within_covariance = 2 * per_patch(py - share(p * y, n, empty=0.0))
    return {
        "brier": per_patch(pp - 2 * py + y),
        "reliability": per_patch(apart),
        "resolution": resolution,
        "uncertainty": prevalence * (1 - prevalence),
        "within_variance": within_variance,
        "within_covariance": within_covariance,
        "generalized_resolution": resolution - within_variance + within_covariance,
        "ece": per_patch(np.abs(p - y)),
        "bias": per_patch(p - y),
    }


def by_chance(resampled, total):
    """What a calibrated model would show: distances that are left when those of the sample are taken off.

    Parameters
    ----------
    resampled : ndarray of shape (m, 5, k), float64
        Sums of the bins in each resample.
    total : ndarray of shape (5, k), float64
        Sums of the bins in the sample.

    Returns
    -------
    by_chance : dict of str to ndarray of shape (m,), float64
        "ece" and "reliability" of a model whose distances average 0 in every bin, and vary as these patients do.
    """
    n = resampled[:, N]
    left = resampled[:, P] - resampled[:, Y] - n * share(total[P] - total[Y], total[N], empty=0.0)
    patches = n.sum(axis=1)
    return {
        "ece": np.abs(left).sum(axis=1) / patches,
        "reliability": share(left**2, n, empty=0.0).sum(axis=1) / patches,
    }
