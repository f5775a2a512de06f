"""Compare models on the same resamples of the same patients, with p-values adjusted for their number."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from histofeat.exceptions import check_name, refuse_rows
from histofeat.metrics._bootstrap import bootstrap_scores
from histofeat.metrics._definitions import LABEL_METRICS, METRICS, plain_values
from histofeat.model_selection import encode_patients

_TUNED = tuple(f"{metric}_tuned" for metric in LABEL_METRICS)


@dataclass(frozen=True)
class Comparison:
    """Two models in one metric.

    Parameters
    ----------
    metric : str
        One of `histofeat.metrics.METRICS`, or of its label metrics with "_tuned" at the end.
    first, second : str
        The models, as "name/head".
    first_value, second_value : float
        Their pooled scores.
    difference : float
        First - second.
    ci95 : tuple of (float, float)
        95 % percentile interval of the difference; NaN where no resample defines it.
    p : float
        See `histofeat.metrics.bootstrap_p`.
    p_holm : float
        `p` adjusted for all comparisons of the table; see `histofeat.metrics.holm`.
    n_resamples : int
        The resamples in which both models have the metric.
    """

    metric: str
    first: str
    second: str
    first_value: float
    second_value: float
    difference: float
    ci95: tuple[float, float]
    p: float
    p_holm: float
    n_resamples: int


@dataclass(frozen=True)
class Comparisons:
    """A table of comparisons, and the resamples behind it.

    Parameters
    ----------
    rows : tuple of Comparison
        Metric by metric, in the order asked for.
    reference : str or None
        The model that all others are compared with; None if every pair is compared.
    n_patients : int
        Patients that were resampled.
    n_resamples : int
        How often.
    """

    rows: tuple[Comparison, ...]
    reference: str | None
    n_patients: int
    n_resamples: int

    @property
    def smallest_p_holm(self) -> float:
        """The smallest adjusted p that these resamples can show; if it is near 0.05, compare less or resample more."""
        return min(1.0, sum(np.isfinite(row.p) for row in self.rows) / (1 + self.n_resamples))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for files."""
        return {**plain_values(self), "smallest_p_holm": self.smallest_p_holm}

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a DataFrame, the interval in columns ``low`` and ``high``."""
        frame = pd.DataFrame([asdict(row) for row in self.rows])
        ends = pd.DataFrame(frame.pop("ci95").tolist(), columns=["low", "high"])
        where = frame.columns.get_loc("difference") + 1
        return pd.concat([frame.iloc[:, :where], ends, frame.iloc[:, where:]], axis=1)


def compare_models(
    evaluation: Any,
    metrics: Sequence[str] = ("roc_auc", "balanced_accuracy", "f1"),
    *,
    reference: str | None = None,
    n_resamples: int | None = None,
    n_jobs: int | None = None,
) -> Comparisons:
    """Compare every two models of an evaluation, or all with one, patient by patient.

    Parameters
    ----------
    evaluation : Evaluation, or mapping of str to Evaluation
        With a mapping, models of several evaluations of the same tested patches; their names then begin with the key.
    metrics : sequence of str
        Of `histofeat.metrics.METRICS`; a label metric with "_tuned" at the end, such as "f1_tuned", is of the labels
        at the tuned threshold instead of 0.5.
    reference : str, optional
        A model, as "name/head" ("key: name/head" with a mapping), that all others are compared with; by default every
        pair is compared.
    n_resamples : int, optional
        By default as many as the evaluation has, which are used again. Other numbers are drawn with the same seed.
    n_jobs : int, optional
        Threads, where resamples have to be drawn.

    Returns
    -------
    comparisons : Comparisons

    Raises
    ------
    ValueError
        If there are fewer than two models, a metric or the reference is unknown, there are no resamples, a class has a
        single patient, a model has scores that are NaN, or models were tested on different patients.
    GroupLeakageError
        If a patient id is missing.

    Notes
    -----
    All models share the resamples of the patients, so that a resample that is easy for both does not widen the
    interval of their difference. The interval covers other patients of the same kind and these fitted models; it
    does not cover fitting them again, for which see `histofeat.metrics.nadeau_bengio`.

    p-values are adjusted over the whole table: more models and metrics need more resamples, see
    `Comparisons.smallest_p_holm`.

    Examples
    --------
    >>> from histofeat import IDCPipeline, evaluate, make_cohort
    >>> from histofeat.model_selection import PatientKFold
    >>> pipelines = {"color": IDCPipeline("color", "logistic"), "lbp": IDCPipeline("lbp", "logistic")}
    >>> cohort = make_cohort(n_patients=8, patches_per_patient=8)
    >>> evaluation = evaluate(cohort, pipelines, PatientKFold(2), inner_cv=PatientKFold(2), n_resamples=50)
    >>> (row,) = compare_models(evaluation, ["roc_auc"]).rows
    >>> row.first, row.second, row.ci95[0] <= row.difference <= row.ci95[1]
    ('color/logistic', 'lbp/logistic', True)
    """
    metrics = _check_metrics(metrics)
    evaluations = evaluation if isinstance(evaluation, Mapping) else {"": evaluation}
    labels = _labels(evaluations)
    if reference is not None:
        check_name("compare_models.reference", reference, labels, "the name of a model")
    protocol = next(iter(evaluations.values())).protocol
    wanted = protocol["n_resamples"] if n_resamples is None else n_resamples
    if wanted < 1:
        raise ValueError(
            f"compare_models.n_resamples: expected at least 1 resample, got {wanted}. Give n_resamples=2000, or "
            "evaluate with resamples."
        )
    n_patients = _check_patients(evaluations)
    resampling = {"n_resamples": wanted, "random_state": protocol["random_state"], "n_jobs": n_jobs}
    for entry in labels.values():
        _check_model(*entry, n_patients)
    models = {label: _measured(*entry[1:], metrics, resampling) for label, entry in labels.items()}
    pairs = list(combinations(models, 2))
    if reference is not None:
        pairs = [(label, reference) for label in models if label != reference]
    rows = [_compare(metric, pair, *(models[label][metric] for label in pair)) for metric in metrics for pair in pairs]
    return Comparisons(_adjusted(rows), reference, n_patients, int(wanted))


def _check_metrics(metrics):
    metrics = (metrics,) if isinstance(metrics, str) else tuple(dict.fromkeys(metrics))
    if not metrics:
        raise ValueError("compare_models.metrics: expected at least one metric, got none. Use ['roc_auc'].")
    for metric in metrics:
        check_name("compare_models.metrics", metric, METRICS + _TUNED, "known metrics")
    return metrics


def _labels(evaluations):
    """Give (label, evaluation, model) of every model by its label."""
    found = [
        (f"{key}: " * bool(key) + f"{model.name}/{model.head}", evaluation, model)
        for key, evaluation in evaluations.items()
        for model in evaluation.models
    ]
    if len(found) < 2:
        raise ValueError(
            f"compare_models.evaluation: expected at least two models, got {len(found)}. Evaluate another."
        )
    return {entry[0]: entry for entry in found}


def _check_patients(evaluations):
    """Refuse evaluations of different patients, and classes of one patient; returns the number of patients."""
    tables = {key: _patches_of_patients(evaluation) for key, evaluation in evaluations.items()}
    (first, table), *others = tables.items()
    for key, other in others:
        differing = [patient for patient in {**table, **other} if table.get(patient) != other.get(patient)]
        if differing:
            raise ValueError(
                f"compare_models.evaluation: expected the same tested patches in {first!r} and {key!r}, got other ones "
                f"of patient {differing[0]!r} ({len(differing)} such patients). Evaluate both on the same patients: a "
                "paired difference needs each of them twice."
            )
    names = next(iter(evaluations.values())).labels
    having = (np.array(list(table.values())) > 0).sum(axis=0)
    for name, n_patients in zip(names, having, strict=True):
        if n_patients == 1:
            raise ValueError(
                f"compare_models.evaluation: expected at least 2 patients of each class, got 1 of class {name!r}. "
                "One patient does not say how much patients vary: no interval can be given."
            )
    return len(table)


def _patches_of_patients(evaluation):
    """Tested patches of each class, by patient."""
    rows, n_classes = np.flatnonzero(evaluation.tested), len(evaluation.labels)
    ids, codes = encode_patients(np.asarray(evaluation.dataset.patients)[rows], len(rows), "dataset.patients")
    cells = codes * n_classes + np.asarray(evaluation.dataset.y)[rows]
    counts = np.bincount(cells, minlength=len(ids) * n_classes).reshape(len(ids), n_classes)
    return dict(zip(ids, map(tuple, counts.tolist()), strict=True))


def _measured(evaluation, model, metrics, resampling):
    """Give (pooled score, its resamples) of one model in every metric."""
    rows = np.flatnonzero(evaluation.tested)
    y, patients = np.asarray(evaluation.dataset.y)[rows], np.asarray(evaluation.dataset.patients)[rows]

    def drawn(predicted, metrics):
        options = {"predicted": predicted[rows], "metrics": metrics, **resampling}
        return bootstrap_scores(y, model.proba[rows], patients, **options).samples if metrics else {}

    plain = [metric for metric in metrics if metric in METRICS]
    tuned = {metric: metric.removesuffix("_tuned") for metric in metrics if metric in _TUNED}
    kept = _usable(model.resamples, evaluation, plain, resampling)
    at_half = model.resamples.samples if kept else drawn(model.predicted, plain)
    at_tuned = drawn(model.predicted_tuned, tuple(tuned.values()))
    found = {metric: (model.scores[metric].pooled, at_half[metric]) for metric in plain}
    return found | {metric: (model.tuned[name].pooled, at_tuned[name]) for metric, name in tuned.items()}


def _check_model(label, evaluation, model, n_patients):
    rows = np.flatnonzero(evaluation.tested)
    wrong = rows[~np.isfinite(model.proba[rows]).all(axis=1)]
    if wrong.size:
        raise ValueError(
            f"compare_models.evaluation: expected a probability for every tested patch, got NaN of {label!r} in row "
            f"{wrong[0]} ({wrong.size} such rows). Leave this model out, or score these patches."
        )
    if model.resamples is not None and model.resamples.n_patients != n_patients:
        raise ValueError(
            f"compare_models.evaluation: expected resamples of {n_patients} patients, got {model.resamples.n_patients} "
            f"of {label!r}. Compare models that were tested on the same patients."
        )


def _usable(resamples, evaluation, metrics, resampling):
    """Whether kept resamples are the ones wanted, so that none have to be drawn again."""
    return (
        resamples is not None
        and evaluation.protocol["random_state"] == resampling["random_state"]
        and all(len(resamples.samples.get(metric, ())) == resampling["n_resamples"] for metric in metrics)
    )


def _compare(metric, labels, first, second):
    samples = first[1] - second[1]
    samples = samples[np.isfinite(samples)]
    difference = first[0] - second[0]
    return Comparison(
        metric,
        *labels,
        first_value=first[0],
        second_value=second[0],
        difference=difference,
        ci95=tuple(np.quantile(samples, [0.025, 0.975]).tolist()) if samples.size else (np.nan, np.nan),
        p=bootstrap_p(difference, samples),
        p_holm=np.nan,
        n_resamples=int(samples.size),
    )


def _adjusted(rows):
    """Fill in Holm's p-values; undefined differences were not tested and do not count."""
    tested = [number for number, row in enumerate(rows) if np.isfinite(row.p)]
    adjusted = holm([rows[number].p for number in tested])
    for number, p in zip(tested, adjusted.tolist(), strict=True):
        rows[number] = replace(rows[number], p_holm=p)
    return tuple(rows)


#: Differences of counts that are equal on paper may differ in the last digit; such ties count against a finding.
_ROUNDING = 1e-12


def bootstrap_p(estimate: float, samples: ArrayLike) -> float:
    """Two-sided p-value of an estimate from its resamples, for the hypothesis that the truth is 0.

    Parameters
    ----------
    estimate : float
        The difference that was found.
    samples : array-like of shape (n,), float
        The same difference in each resample; NaN, where it is undefined, does not count.

    Returns
    -------
    p : float
        Between 1 / (1 + n) and 1; NaN if the estimate or every sample is undefined.

    Notes
    -----
    Resamples vary around the estimate as estimates vary around the truth. If the truth were 0, a difference as far
    from it as `estimate` would be found in the share of resamples that lie as far from `estimate`:
    ``(1 + count) / (1 + n)``. This makes the resamples fit the hypothesis (Hall and Wilson 1991,
    doi:10.2307/2532163); counting those beyond 0 would not. The added one keeps p above 0, and is its resolution:
    0.0005 with 2,000. If resamples are skewed, p below 0.05 and a 95 % percentile interval without 0 can differ.

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
