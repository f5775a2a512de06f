"""Resample patients for intervals of every metric: thousands of resamples from one sort of the patches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from histofeat.exceptions import check_name, check_real, check_whole, counted
from histofeat.metrics import _definitions as definitions
from histofeat.metrics._ranking import check_fold
from histofeat.model_selection import encode_patients

#: Of two classes: the class whose carriers alone are behind a metric.
_CLASS_OF = {"specificity": 0, "sensitivity": 1}


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Every metric under every resample of the patients.

    Parameters
    ----------
    samples : Mapping of str to ndarray of shape (n_resamples,), float64
        The metric in each resample; NaN in dropped resamples, so that a position is the same resample for every model
        of these patients.
    n_patients : int
        The patients that were resampled.
    n_dropped : int
        Resamples without any patch of some class.
    estimates : Mapping of str to float
        The metric in the sample.
    carriers : tuple of int
        The patients with patches of each class that occurs.
    scale : {"bounded", "difference"}, default="bounded"
        Whether the metrics lie between bounds or are differences of such.
    """

    samples: Mapping[str, np.ndarray]
    n_patients: int
    n_dropped: int
    estimates: Mapping[str, float]
    carriers: tuple[int, ...]
    scale: str = "bounded"

    def n_used(self, metric: str) -> int:
        """Return the number of resamples in which `metric` is defined."""
        return int(np.isfinite(self.samples[metric]).sum())

    def minus(self, other: "Bootstrap") -> "Bootstrap":
        """Return the differences from other scores of the same patients, resample by resample."""
        both = [metric for metric in self.samples if metric in other.samples]
        return replace(
            self,
            samples={metric: self.samples[metric] - other.samples[metric] for metric in both},
            estimates={metric: self.estimates[metric] - other.estimates[metric] for metric in both},
            scale="difference",
        )

    def standard_error(self, metric: str) -> float:
        """Return the standard error of `metric`, see `standard_error`."""
        return standard_error(self.samples[metric], self.n_patients)

    def p_value(self, metric: str) -> float:
        """Return the two-sided p-value of a difference by the t distribution, for the hypothesis that it is 0.

        With as many degrees of freedom as `interval` has; 1 where there is no difference, NaN where it cannot be told.
        """
        error, df = self.standard_error(metric), min(self.carriers) - 1
        if not np.isfinite(error) or df < 1 or self.scale != "difference":
            return np.nan
        if self.estimates[metric] == 0:
            return 1.0
        return float(2 * special.stdtr(df, -abs(self.estimates[metric]) / error)) if error > 0 else np.nan

    def interval(self, metric: str, level: float = 0.95, method: str = "t") -> tuple[float, float]:
        """Return the interval of `metric`.

        Parameters
        ----------
        metric : str
            A key of `samples`.
        level : float in (0, 1), default=0.95
            How often an interval made in this way holds the truth.
        method : {"t", "percentile"}, default="t"
            See Notes of `bootstrap_scores`.

        Returns
        -------
        low, high : float
            NaN if no resample defines the metric, a class has fewer than two carriers, or nothing varies.
        """
        check_level(level, "Bootstrap.interval")
        check_name("Bootstrap.interval.method", method, ("t", "percentile"))
        carriers, value = min(self.carriers), self.estimates[metric]
        if carriers < 2 or not self.n_used(metric):
            return np.nan, np.nan
        if method == "percentile":
            return percentiles(self.samples[metric], level)
        known = value, self.samples[metric], self.n_patients, carriers - 1, level
        if self.scale == "difference":
            return resampled_interval(*known, scale="linear")
        successes = self.n_patients if metric == "accuracy" else carriers
        if metric in _CLASS_OF and len(self.carriers) == 2:
            successes = self.carriers[_CLASS_OF[metric]]
        return resampled_interval(*known, scale=metric_scale(metric), successes=successes)


def metric_scale(metric: str) -> str:
    """Scale of the interval of a metric, "logit" for what is none and lies between 0 and 1."""
    return definitions.METRIC_RECORDS[metric].scale if metric in definitions.METRIC_RECORDS else "logit"


def mean_bootstrap(found: Sequence[Bootstrap]) -> Bootstrap:
    """Average scores of one kind over the same resamples, such as those of several draws."""
    names = found[0].samples
    return replace(
        found[0],
        samples={name: np.mean([each.samples[name] for each in found], axis=0) for name in names},
        estimates={name: float(np.mean([each.estimates[name] for each in found])) for name in names},
    )


def standard_error(samples: np.ndarray, n_patients: int) -> float:
    """Standard deviation over the resamples, times sqrt(n / (n - 1)) for n patients; NaN with fewer than two."""
    samples = samples[np.isfinite(samples)]
    if samples.size < 2 or n_patients < 2:
        return np.nan
    return float(samples.std(ddof=1) * np.sqrt(n_patients / (n_patients - 1)))


def t_interval(
    value: float, error: float, df: int, level: float = 0.95, *, scale: str = "logit", successes: int | None = None
) -> tuple[float, float]:
    """Give a t interval of a score, on a scale on which its distribution is closer to symmetric.

    Parameters
    ----------
    value : float
        The score.
    error : float
        Its standard error on its own scale; the delta method carries it to the other.
    df : int
        Degrees of freedom.
    level : float in (0, 1), default=0.95
    scale : {"logit", "log", "fisher", "linear"}
        "logit" for scores from 0 to 1, "log" for losses from 0, "fisher" (z) for correlations from -1 to 1.
    successes : int, optional
        Patients behind a score of exactly 0 or 1, for its bound ``(alpha / 2) ** (1 / successes)``: that of Clopper and
        Pearson (1934, doi:10.1093/biomet/26.4.404) for a share of patients, and conservative for a ROC-AUC. The bound
        of a correlation of -1 or 1 lies as far on the way to the other end.

    Returns
    -------
    low, high : float
        NaN where they cannot be estimated: without degrees of freedom, or without variation.

    Examples
    --------
    >>> [round(end, 3) for end in t_interval(0.9, 0.04, df=9)]
    [0.767, 0.961]
    >>> [round(end, 3) for end in t_interval(1.0, 0.0, df=9, successes=10)]
    [0.692, 1.0]
    """
    if df < 1 or not np.isfinite(value):
        return np.nan, np.nan
    if scale == "fisher":
        # Fisher's z of a correlation is half the log-odds of its place between -1 and 1.
        ends = t_interval((value + 1) / 2, error / 2, df, level, successes=successes)
        return 2 * ends[0] - 1, 2 * ends[1] - 1
    if scale == "logit" and value in (0, 1) and successes is not None:
        bound = ((1 - level) / 2) ** (1 / successes)
        return (bound, 1.0) if value == 1 else (0.0, 1 - bound)
    there, back, slope = {
        "logit": (special.logit, special.expit, value * (1 - value)),
        "log": (np.log, np.exp, value),
        "linear": (float, float, 1.0),
    }[scale]
    if not error > 0 or slope <= 0:
        return np.nan, np.nan
    half = special.stdtrit(df, (1 + level) / 2) * error / slope
    return float(back(there(value) - half)), float(back(there(value) + half))


def resampled_interval(value, samples, n_patients, df, level=0.95, **options) -> tuple[float, float]:
    """Give the t interval of a value from what it is in resamples of n patients; `options` as for `t_interval`."""
    return t_interval(value, standard_error(samples, n_patients), df, level, **options)


def check_level(level, owner):
    """Refuse a share of the resamples that is not between 0 and 1."""
    check_real(f"{owner}.level", level, "between 0 and 1", lambda value: 0 < value < 1, "Use 0.95.")


def percentiles(values, level=0.95) -> tuple[float, float]:
    """Ends of the percentile interval of the finite values; NaN if there are none."""
    values = values[np.isfinite(values)]
    if not values.size:
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def patient_weights(patients: ArrayLike, n_resamples: int = 2000, random_state: int = 0) -> np.ndarray:
    """Count how often each patient is drawn in each resample.

    Parameters
    ----------
    patients : array-like of shape (n,)
        Patient id of every patch.
    n_resamples : int, default=2000
        Number of resamples, each as many draws with replacement as there are patients.
    random_state : int, default=0
        Seed, at least 0. Not a generator, which would give each model different resamples.

    Returns
    -------
    weights : ndarray of shape (n_resamples, n_patients), int64
        Rows sum to the number of patients; columns follow `histofeat.model_selection.encode_patients`. The same
        patients, number and seed give the same weights, so that models can be compared resample by resample.

    Raises
    ------
    ValueError
        If `n_resamples` or `random_state` is not a whole number from 0.
    GroupLeakageError
        If a patient id is missing.

    Examples
    --------
    >>> patient_weights(["a", "a", "b", "c"], n_resamples=3).sum(axis=1).tolist()
    [3, 3, 3]
    """
    check_whole("patient_weights.n_resamples", n_resamples, 0, "Use 2000, or 0 for no intervals.")
    remedy = "Use a fixed number, so that models share their resamples."
    check_whole("patient_weights.random_state", random_state, 0, remedy)
    ids, _ = encode_patients(patients, len(patients), "patients")
    rng = np.random.default_rng(random_state)
    return rng.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=n_resamples)


def bootstrap_scores(
    y: ArrayLike,
    proba: ArrayLike,
    patients: ArrayLike,
    *,
    predicted: ArrayLike | None = None,
    metrics: Sequence[str] = definitions.METRICS,
    n_resamples: int = 2000,
    random_state: int = 0,
    n_jobs: int | None = None,
    fold: ArrayLike | None = None,
) -> Bootstrap:
    """Compute every metric under resampling of patients.

    Patches of one patient resemble each other, so that an interval from resampling patches is many times too narrow.
    Here whole patients are drawn with replacement (Field and Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x); the
    model is not fitted again.

    Parameters
    ----------
    y : array-like of shape (n,), int
        True class codes.
    proba : array-like of shape (n, k), float in [0, 1]
        Class probabilities.
    patients : array-like of shape (n,)
        Patient ids.
    predicted : array-like of shape (n,), int, optional
        Class codes; by default the most probable class.
    metrics : sequence of str, default=METRICS
        Which of `histofeat.metrics.METRICS`.
    n_resamples : int, default=2000
        Number of resamples.
    random_state : int, default=0
        Seed of `patient_weights`.
    n_jobs : int, optional
        Threads. The result does not depend on it.
    fold : array-like of shape (n,), int, optional
        The fold that tests the patch; ROC-AUC and average precision then compare patches of one fold only.

    Returns
    -------
    bootstrap : Bootstrap
        With the metrics asked for.

    Raises
    ------
    ValueError
        If a metric is unknown, or the predictions cannot be scored, see `check_predictions`.
    GroupLeakageError
        If a patient id is missing.

    Notes
    -----
    Resamples without any patch of a class that the sample has are dropped and counted. Metrics of labels and losses
    are computed from sums per patient and one matrix product, metrics of the ranking from a single walk over the
    sorted patches for many resamples at a time.

    `Bootstrap.interval` is a t interval on the logit scale (log scale for losses): the standard deviation over the
    resamples times sqrt(n / (n - 1)), with one degree of freedom less than the patients who carry the rarest class.
    Percentiles of so few patients are too narrow and miss on one side. At a score of exactly 0 or 1, where the
    resamples do not vary, it is the bound of `t_interval`. There is none with fewer than two carriers of a class, and
    none where every resample gives the same score, such as the 0.5 of constant probabilities.

    Examples
    --------
    >>> y, proba = [0, 1] * 6, [[0.6, 0.4], [0.3, 0.7], [0.2, 0.8], [0.4, 0.6]] * 3
    >>> found = bootstrap_scores(y, proba, list("aabbccddeeff"), n_resamples=200)
    >>> low, high = found.interval("roc_auc")
    >>> 0 <= low < 0.8 < high <= 1
    True
    """
    definitions.check_metrics(metrics, "bootstrap_scores")
    y, proba = definitions.check_predictions(y, proba)
    ids, codes = encode_patients(patients, len(y), "patients")
    weights = patient_weights(patients, n_resamples, random_state)
    # The sample itself is one more weighting.
    weights = np.vstack([np.ones_like(weights, shape=(1, len(ids))), weights])
    fold = check_fold(fold, len(y))
    found = definitions.weighted_scores(y, proba, predicted, codes, weights, metrics, n_jobs, fold=fold)
    lost = vanished(y, codes, weights[1:])
    return Bootstrap(
        # Dropped resamples become NaN; the others keep their position.
        samples={name: definitions.frozen(np.where(lost, np.nan, values[1:])) for name, values in found.items()},
        n_patients=len(ids),
        n_dropped=int(lost.sum()),
        estimates={name: float(values[0]) for name, values in found.items()},
        carriers=count_carriers(y, codes),
    )


#: Fewer patients, or carriers of a class, and intervals may cover less than they promise.
_FEW_PATIENTS, _FEW_CARRIERS = 30, 15


def few_patients(n_patients: int, carriers: Sequence[int]) -> str | None:
    """Give a sentence of caution where intervals are of few patients.

    Parameters
    ----------
    n_patients : int
        Tested patients.
    carriers : sequence of int
        Patients with patches of each class.

    Returns
    -------
    caution : str or None
        None from 30 patients with 15 carriers of each class.

    Examples
    --------
    >>> few_patients(12, (12, 7))
    'Only 12 tested patients, of whom 7 carry the rarest class: intervals may hold the truth less often than 95 %.'
    """
    if n_patients >= _FEW_PATIENTS and min(carriers) >= _FEW_CARRIERS:
        return None
    return (
        f"Only {counted(n_patients, 'tested patient')}, of whom {counted(min(carriers), 'carries', 'carry')} the "
        "rarest class: intervals may hold the truth less often than 95 %."
    )


def count_carriers(y: np.ndarray, codes: np.ndarray) -> tuple[int, ...]:
    """Count the patients with patches of each class that occurs."""
    return tuple(len(np.unique(codes[y == code])) for code in np.unique(y))


def vanished(y, codes, weights):
    """Find the resamples without any patch of a class that the sample has.

    Parameters
    ----------
    y, codes : ndarray of shape (n,), int64
        Class and patient of every patch.
    weights : ndarray of shape (m, n_patients)
        As `patient_weights` gives them.

    Returns
    -------
    vanished : ndarray of shape (m,), bool
    """
    having = np.array([np.bincount(codes[y == code], minlength=weights.shape[1]) for code in np.unique(y)])
    return (weights @ having.T == 0).any(axis=1)
