"""The t-test for repeated hold-outs: differences of overlapping training sets are no independent sample."""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

__all__ = ["ResampledTTest", "nadeau_bengio"]


@dataclass(frozen=True)
class ResampledTTest:
    """What `nadeau_bengio` found.

    Parameters
    ----------
    mean, std : float
        Of the differences; `std` with ddof 1.
    se : float
        Corrected standard error of the mean.
    t : float
        ``mean / se``.
    df : int
        Degrees of freedom, one less than the repeats.
    p : float
        Two-sided.
    ci95 : tuple of (float, float)
        95 % interval of the difference.
    test_train_ratio : float
        What the correction was made with.
    """

    mean: float
    std: float
    se: float
    t: float
    df: int
    p: float
    ci95: tuple[float, float]
    test_train_ratio: float


def nadeau_bengio(differences, *, test_train_ratio=None, n_train=None, n_test=None):
    """Test the mean difference of two models over repeated random hold-outs, with the corrected variance.

    Parameters
    ----------
    differences : array-like of shape (k,), float
        Score of one model less that of the other, in each of k hold-outs of equal size; both models learn and are
        tested on the same patients there.
    test_train_ratio : float, optional
        Size of the test side over that of the training side. Give this, or the two sizes.
    n_train, n_test : int, optional
        Sizes of the two sides, in patients where patients are split.

    Returns
    -------
    test : ResampledTTest

    Raises
    ------
    ValueError
        If there are fewer than two differences, one is not finite, or the sizes are missing, doubled or not positive.

    Notes
    -----
    Hold-outs of one data set share training patients, so that their differences are correlated, and the plain
    t-test finds what is not there. Nadeau and Bengio (2003, doi:10.1023/A:1024068626366) take the correlation to be
    n_test / (n_train + n_test), which makes the variance of the mean ``(1 / k + n_test / n_train) * std ** 2``.
    Unlike an interval from resampling the test patients, this one also covers fitting the models again. It is an
    approximation for repeated random hold-outs such as the five trials of BreakHis; more repeats narrow it only
    until the second term is all that is left.

    Differences that are all equal have no variance: the interval is then that one value, t is infinite and p is 0
    (t is 0 and p is 1 where all are 0). That says that the repeats do not tell the uncertainty, not that there is none.

    Examples
    --------
    >>> found = nadeau_bengio([0.02, 0.05, 0.01, 0.04], test_train_ratio=0.25)
    >>> round(found.mean, 3), round(found.se, 4), round(found.t, 2), round(found.p, 3)
    (0.03, 0.0129, 2.32, 0.103)
    """
    differences = _check_differences(differences)
    ratio = _check_ratio(test_train_ratio, n_train, n_test)
    k, mean = len(differences), float(differences.mean())
    if np.ptp(differences) == 0:
        mean = float(differences[0])
        t, p = (np.copysign(np.inf, mean), 0.0) if mean else (0.0, 1.0)
        return ResampledTTest(mean, 0.0, 0.0, float(t), k - 1, p, (mean, mean), ratio)
    std = float(differences.std(ddof=1))
    se = float(np.sqrt(1 / k + ratio) * std)
    half = float(stdtrit(k - 1, 0.975)) * se
    p = float(2 * stdtr(k - 1, -abs(mean / se)))
    return ResampledTTest(mean, std, se, mean / se, k - 1, p, (mean - half, mean + half), ratio)


def _check_differences(differences):
    differences = np.asarray(differences, dtype=np.float64)
    if differences.ndim != 1 or len(differences) < 2:
        raise ValueError(
            f"nadeau_bengio.differences: expected at least 2 differences in one list, got shape {differences.shape}. "
            "Repeat the hold-out: one difference does not say how much it varies."
        )
    wrong = np.flatnonzero(~np.isfinite(differences))
    if wrong.size:
        raise ValueError(
            f"nadeau_bengio.differences: expected finite numbers, got {differences[wrong[0]]} in repeat {wrong[0]} "
            f"({wrong.size} such). Make hold-outs in which both classes are tested."
        )
    return differences


def _check_ratio(ratio, n_train, n_test):
    sizes = {"n_train": n_train, "n_test": n_test}
    missing = [name for name, value in sizes.items() if value is None]
    if (ratio is None and missing) or (ratio is not None and len(missing) < 2):
        given = [name for name, value in {"test_train_ratio": ratio, **sizes}.items() if value is not None]
        raise ValueError(
            "nadeau_bengio: expected either test_train_ratio or both n_train and n_test, "
            f"got {', '.join(given) or 'none of them'}. Say how large the two sides of a hold-out are."
        )
    named = {"test_train_ratio": ratio} if ratio is not None else sizes
    for name, value in named.items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(
                f"nadeau_bengio.{name}: expected a positive number, got {value}. Count the patients of each side."
            )
    return float(ratio if ratio is not None else n_test / n_train)
