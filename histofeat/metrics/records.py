"""A score with its folds and intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Score"]


@dataclass(frozen=True)
class Score:
    """One metric of one model: per fold, pooled over all tested patches, and averaged over patients.

    Parameters
    ----------
    folds : tuple of float
        The metric on the test patches of each fold; NaN where it is undefined there (one class only).
    mean, std : float
        Over the folds in which the metric is defined; `std` is the sample standard deviation (ddof 1),
        NaN with fewer than two such folds.
    pooled : float
        The metric on the out-of-fold predictions of all tested patches together.
    ci95 : tuple of (float, float)
        95 % percentile interval of `pooled`, from resampling patients.
    folds_ci95 : tuple of tuple of (float, float)
        The same for each fold, from resampling the patients of that fold.
    n_resamples : int
        The resamples behind `ci95`: those in which no class vanished and the metric is defined.
    patient_mean : float
        The mean of the metric over the patients who have tested patches of every class, each scored alone; see
        `histofeat.metrics.patient_averages`.
    patient_mean_ci95 : tuple of (float, float)
        95 % percentile interval of `patient_mean`, on the resamples of `ci95`.
    n_patients_averaged, n_patients_left_out : int
        The patients behind `patient_mean`, and those who lack a class.

    Examples
    --------
    >>> nan = float("nan")
    >>> Score((0.9, nan, 0.7), 0.8, 0.1, 0.79, (0.6, 0.9), ((0.8, 1.0), (nan, nan), (0.5, 0.9))).n_folds
    2
    """

    folds: tuple[float, ...]
    mean: float
    std: float
    pooled: float
    ci95: tuple[float, float]
    folds_ci95: tuple[tuple[float, float], ...]
    n_resamples: int = 0
    patient_mean: float = math.nan
    patient_mean_ci95: tuple[float, float] = (math.nan, math.nan)
    n_patients_averaged: int = 0
    n_patients_left_out: int = 0

    @property
    def n_folds(self) -> int:
        """The number of folds in which the metric is defined, which are those that `mean` and `std` count."""
        return int(np.isfinite(self.folds).sum())
