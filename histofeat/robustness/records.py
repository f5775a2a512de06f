"""Scores of pipelines under perturbations, as frozen records."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import pandas as pd

from histofeat.metrics.bootstrap import Bootstrap
from histofeat.evaluation.results import LeftOut

__all__ = ["CLEAN", "Robustness", "RobustnessRow"]

#: The patches as they came.
CLEAN = ("none", 0)


@dataclass(frozen=True)
class RobustnessRow:
    """One metric of one pipeline under one perturbation.

    Parameters
    ----------
    pipeline : str
    perturbation : str
        A name of `histofeat.images.perturbations.PERTURBATIONS`, or "none".
    severity : int
        Its step; 0 with "none".
    amount : float or None
        What the step stands for, in the quantity of the perturbation.
    metric : str
    value : float
        Over all tested patches, out of fold.
    low, high : float
        95 % interval of `value`, from resampling patients.
    drop : float
        The value without perturbation minus `value`: positive where the perturbation costs something.
    drop_low, drop_high : float
        95 % interval of `drop`, on the same resamples of the same patches.
    largest_change : float
        The largest change of a class probability of any patch, 0 to 1.
    """

    pipeline: str
    perturbation: str
    severity: int
    amount: float | None
    metric: str
    value: float
    low: float
    high: float
    drop: float
    drop_low: float
    drop_high: float
    largest_change: float


@dataclass(frozen=True, eq=False)
class Robustness:
    """Scores of all pipelines under all perturbations.

    Parameters
    ----------
    rows : tuple of RobustnessRow
        By pipeline, perturbation, severity and metric, in the order asked for.
    n_patients, n_patches : int
        What was tested.
    resamples : Mapping of (str, str, int) to Bootstrap
        By pipeline, perturbation and severity; all of the same resamples of the patients.
    left_out : LeftOut or None
        The patients who were not tested, since an encoder knows them.
    accepted : tuple of str
        Codes of errors that were there and were accepted by name: with ``"HF001"`` or ``"HF007"`` among them the scores
        are no scores of new patients.
    """

    rows: tuple[RobustnessRow, ...] = field(repr=False)
    n_patients: int
    n_patches: int
    resamples: Mapping[tuple[str, str, int], Bootstrap] = field(repr=False)
    left_out: LeftOut | None = None
    accepted: tuple[str, ...] = ()

    def compare(self, first, second, condition=CLEAN, metric="roc_auc"):
        """Compare two pipelines on the same patches under the same perturbation.

        Parameters
        ----------
        first, second : str
            Names of pipelines.
        condition : (str, int), default=CLEAN
            Perturbation and severity.
        metric : str, default="roc_auc"

        Returns
        -------
        difference : float
            The first minus the second.
        paired : Bootstrap
            The difference in each resample, under the name of the metric.

        Raises
        ------
        ValueError
            If there is no such score.
        """
        values = {(row.pipeline, row.perturbation, row.severity, row.metric): row.value for row in self.rows}
        for name in (first, second):
            if (name, *condition, metric) not in values:
                raise ValueError(
                    f"Robustness.compare: expected a score that was measured, got {(name, *condition, metric)!r}. "
                    f"Pipelines: {', '.join(dict.fromkeys(row.pipeline for row in self.rows))}."
                )
        one, other = self.resamples[first, *condition], self.resamples[second, *condition]
        paired = {metric: one.samples[metric] - other.samples[metric]}
        difference = values[first, *condition, metric] - values[second, *condition, metric]
        return difference, Bootstrap(paired, one.n_patients, one.n_dropped)

    def to_frame(self) -> pd.DataFrame:
        """Rows as a table, a column for each field of `RobustnessRow`."""
        return pd.DataFrame([asdict(row) for row in self.rows])
