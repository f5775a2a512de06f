"""Families of tests: plans that are frozen before any score, and p-values that are adjusted for their number."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from histofeat.datasets import write_whole
from histofeat.exceptions import DAMAGED, check_name, check_real, check_that, refuse_rows
from histofeat.metrics._definitions import LABEL_METRICS, METRICS

#: Metrics in which models are compared, with those of labels at the tuned threshold.
COMPARABLE = METRICS + tuple(f"{metric}_tuned" for metric in LABEL_METRICS)


@dataclass(frozen=True)
class ComparisonPlan:
    """Differences between models that are planned before any score is known: one family of tests.

    Parameters
    ----------
    pairs : tuple of (str, str)
        The differences first - second; each model as "name/head".
    metrics : tuple of str
        As for `histofeat.metrics.compare_models`.
    margin : float, optional
        The largest loss that does not matter.

    Raises
    ------
    ValueError
        If a pair, a metric or the margin is not valid.

    Examples
    --------
    >>> plan = ComparisonPlan((("lbp/svm", "color/svm"),), ("roc_auc",))
    >>> plan.models, plan.hash[:8]
    (('lbp/svm', 'color/svm'), 'b16e2458')
    """

    pairs: tuple[tuple[str, str], ...]
    metrics: tuple[str, ...]
    margin: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", check_pairs("plan.pairs", self.pairs))
        object.__setattr__(self, "metrics", check_metrics("plan.metrics", self.metrics))
        check_margin("plan.margin", self.margin)
        if not self.pairs:
            raise ValueError("plan.pairs: expected pairs of two models each, got (). Name others.")

    @property
    def models(self) -> tuple[str, ...]:
        """Every model of the pairs."""
        return tuple(dict.fromkeys(name for pair in self.pairs for name in pair))

    @property
    def hash(self) -> str:
        """SHA-256 of the content, 64 hexadecimal digits."""
        content = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for files, with the hash."""
        return json.loads(json.dumps({**asdict(self), "hash": self.hash}))


def write_plan(
    path: str | os.PathLike[str],
    pairs: Sequence[tuple[str, str]],
    metrics: Sequence[str] | str = ("roc_auc",),
    *,
    margin: float | None = None,
) -> ComparisonPlan:
    """Freeze a plan in a JSON file, with the hash of its content.

    Parameters
    ----------
    path : path
        A new file: a plan that is there is never replaced.
    pairs, metrics, margin
        As for `ComparisonPlan`.

    Returns
    -------
    plan : ComparisonPlan

    Raises
    ------
    ValueError
        If the plan is not valid.
    FileExistsError
        If the file exists.
    """
    plan = ComparisonPlan(tuple(pairs), metrics, margin)
    with write_whole(path) as part:
        part.write_text(json.dumps(plan.to_dict(), indent=2) + "\n", encoding="utf-8")
    return plan


def read_plan(path: str | os.PathLike[str]) -> ComparisonPlan:
    """Read a plan that `write_plan` froze.

    Parameters
    ----------
    path : path

    Returns
    -------
    plan : ComparisonPlan

    Raises
    ------
    ValueError
        If it is no such file, the plan in it is not valid, or its content does not have its hash.
    """
    name = Path(path).name if isinstance(path, str | os.PathLike) else path
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        frozen = content.pop("hash")
        plan = ComparisonPlan(**content)
    except DAMAGED as error:
        raise ValueError(
            f"{name}: expected a plan as write_plan writes it, got {type(error).__name__}: {error}. Give another file."
        ) from error
    if frozen != plan.hash:
        raise ValueError(
            f"{name}: expected the hash of its content, {plan.hash}, got {frozen!r:.80}. It was changed after it was "
            "frozen: restore it, or write a new plan before any look."
        )
    return plan


def check_metrics(where, metrics):
    """Return different names of comparable metrics; refuse none and unknown ones."""
    metrics = (metrics,) if isinstance(metrics, str) else tuple(dict.fromkeys(metrics))
    if not metrics:
        raise ValueError(f"{where}: expected at least one metric, got none. Use ['roc_auc'].")
    for metric in metrics:
        check_name(where, metric, COMPARABLE, "known metrics")
    return metrics


def check_pairs(where, pairs):
    """Return different pairs of models; refuse a model beside itself, and a difference in both directions."""
    pairs = tuple(dict.fromkeys(map(tuple, pairs)))
    fits = all(len(pair) == len(set(pair)) == 2 and pair[::-1] not in pairs for pair in pairs)
    check_that(where, pairs, fits, "pairs of two models each, in one direction", "Name others.")
    return pairs


def check_margin(where, margin):
    """Refuse a margin that is no difference above 0; None is fine."""
    if margin is not None:
        check_real(where, margin, "above 0", lambda value: value > 0, "Use the largest loss that does not matter.")


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
    remedy = "Pass the p-values of one table as one list."
    check_that("holm.p_values", p_values.shape, p_values.ndim == 1, "shape (n,)", remedy)
    remedy = "Leave undefined comparisons out, and count only what was tested."
    refuse_rows(~((p_values >= 0) & (p_values <= 1)), p_values, "holm.p_values: expected p-values from 0 to 1", remedy)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
