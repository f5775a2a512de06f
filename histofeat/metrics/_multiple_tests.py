"""Adjust p-values for their number: step-down on paired resamples, or by Holm without any."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from histofeat.exceptions import refuse_rows


def step_down(
    differences: ArrayLike, samples: ArrayLike, df: int, n_patients: int, *, level: float = 0.95, random_state: int = 0
) -> tuple[np.ndarray, float, np.ndarray]:
    """Adjust p-values of differences for their number by the step-down max-T procedure on paired resamples.

    Parameters
    ----------
    differences : array-like of shape (r,), float
        What was found.
    samples : array-like of shape (r, m), float
        The same in each resample of the patients; columns with NaN do not count.
    df : int
        Degrees of freedom, at least 1.
    n_patients : int
        Patients that were resampled, at least 2.
    level : float in (0, 1), default=0.95
        Of the simultaneous intervals.
    random_state : int, default=0
        Seed of the chi-squared draws.

    Returns
    -------
    errors : ndarray of shape (r,), float64
        Standard errors of the differences.
    limit : float
        ``differences`` - and + ``limit * errors`` are simultaneous intervals.
    adjusted : ndarray of shape (r,), float64
        Between 1 / (1 + m) and 1.

    Notes
    -----
    The largest of all ``|t|`` is compared with its distribution if no difference existed, the next with that of the
    largest of the remaining ones, and so on (Westfall and Young 1993). The distribution is that of the resampled
    differences, studentised, so that models that resemble each other cost little. Resamples of few patients have
    tails that are too short; each is divided by the root of a chi-squared variable over its degrees of freedom, as
    in the multivariate t distribution, so that a single row has about its own t test.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> _, _, adjusted = step_down([3.0, 0.1], rng.standard_normal((2, 2000)), df=30, n_patients=31)
    >>> bool(adjusted[0] < 0.02 < adjusted[1])
    True
    """
    samples = np.asarray(samples, dtype=np.float64)
    samples = samples[:, np.isfinite(samples).all(axis=0)]
    differences, spread = np.asarray(differences, dtype=np.float64), samples.std(axis=1, ddof=1)
    errors = spread * np.sqrt(n_patients / (n_patients - 1))
    # Not the stream of numbers that the patients were drawn from.
    chi = np.random.default_rng([random_state, 1]).chisquare(df, samples.shape[1])
    null = np.abs(samples - samples.mean(axis=1, keepdims=True)) / spread[:, np.newaxis] / np.sqrt(chi / df)
    found = np.abs(differences) / errors
    order = np.argsort(-found, kind="stable")
    # The largest of a row and of all rows after it.
    largest = np.maximum.accumulate(null[order][::-1], axis=0)[::-1]
    p = (1 + (largest >= found[order, np.newaxis]).sum(axis=1)) / (1 + samples.shape[1])
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p)
    return errors, float(max(np.quantile(largest[0], level), stdtrit(df, (1 + level) / 2))), adjusted


def holm(p_values: ArrayLike) -> np.ndarray:
    """Adjust p-values for their number: with a limit of 0.05, 5 % of such tables at most have a false finding.

    Parameters
    ----------
    p_values : array-like of shape (n,), float in [0, 1]
        One for each hypothesis of the table, however they depend on each other.

    Returns
    -------
    adjusted : ndarray of shape (n,), float64
        In the order given, none below its own p-value or above 1.

    Raises
    ------
    ValueError
        If a p-value is NaN or out of range, or the shape is not (n,).

    Notes
    -----
    The smallest is multiplied by n, the next by n - 1 and so on, and none may come out below one before it
    (Holm 1979, https://www.jstor.org/stable/4615733).

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    if p_values.ndim != 1:
        raise ValueError(
            f"holm.p_values: expected shape (n,), got {p_values.shape}. Pass the p-values of one table as one list."
        )
    remedy = "Leave undefined comparisons out, and count only what was tested."
    refuse_rows(~((p_values >= 0) & (p_values <= 1)), p_values, "holm.p_values: expected p-values from 0 to 1", remedy)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
