"""P-values: of a bootstrapped difference, and adjusted for how many of them stand in one table."""

import numpy as np

__all__ = ["bootstrap_p", "holm"]

#: Differences of counts that are equal on paper may differ in the last digit; such ties count against a finding.
_ROUNDING = 1e-12


def bootstrap_p(estimate, samples):
    """Two-sided p-value of an estimate whose resamples are known, for the hypothesis that the truth is 0.

    Parameters
    ----------
    estimate : float
        The difference that was found.
    samples : array-like of shape (n,), float
        The same difference in each resample; NaN where it is undefined, which does not count.

    Returns
    -------
    p : float
        Between 1 / (1 + n) and 1; NaN if the estimate or every sample is undefined.

    Notes
    -----
    Resamples vary around the estimate as estimates vary around the truth. Were the truth 0, a difference as far
    from it as `estimate` would be found in the share of resamples that lie as far from `estimate`:
    ``(1 + count) / (1 + n)``. The resamples are thus made to fit the hypothesis (Hall and Wilson 1991,
    doi:10.2307/2532163); counting those beyond 0 would not. The added one keeps p from 0, which no finite number
    of resamples shows, and is its resolution: 0.0005 with 2,000. Where resamples are skewed, p below 0.05 and a
    95 % percentile interval without 0 are not quite the same thing.

    Examples
    --------
    >>> bootstrap_p(2.0, [1.0, 2.0, 3.0, 4.5])
    0.4
    """
    samples = np.asarray(samples, dtype=np.float64)
    samples = samples[np.isfinite(samples)]
    if not samples.size or not np.isfinite(estimate):
        return np.nan
    as_far = np.abs(samples - estimate) >= abs(estimate) - _ROUNDING
    return float((1 + as_far.sum()) / (1 + samples.size))


def holm(p_values):
    """Adjust p-values for their number, so that below 0.05 no more than 5 % of such tables have any false finding.

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
    wrong = np.flatnonzero(~((p_values >= 0) & (p_values <= 1)))
    if wrong.size:
        raise ValueError(
            f"holm.p_values: expected p-values from 0 to 1, got {p_values[wrong[0]]} at position {wrong[0]} "
            f"({wrong.size} such). Leave undefined comparisons out, and count only what was tested."
        )
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
