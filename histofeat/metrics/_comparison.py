"""Compare models on the same resamples of the same patients, with one of them or in pairs, as one family of tests."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from histofeat.exceptions import check_name, check_that, check_whole, refuse_rows
from histofeat.metrics._bootstrap import Bootstrap, bootstrap_scores
from histofeat.metrics._definitions import METRIC_RECORDS, METRICS
from histofeat.metrics._multiple_tests import COMPARABLE, check_margin, check_metrics, check_pairs, step_down
from histofeat.metrics._out_of_fold import plain_values
from histofeat.model_selection import encode_patients

#: From which adjusted p-value two models are not told apart.
_LIMIT = 0.05


@dataclass(frozen=True)
class Comparison:
    """A model and the reference in one metric.

    Parameters
    ----------
    metric : str
        One of `histofeat.metrics.METRICS`, or of its label metrics with "_tuned" at the end.
    first, second : str
        The model and the reference, as "name/head".
    first_value, second_value : float
        Their scores.
    difference : float
        First - second.
    ci95 : tuple of (float, float)
        95 % t interval of the difference; NaN where it cannot be estimated.
    simultaneous_ci95 : tuple of (float, float)
        Interval that holds, with probability 0.95, together with those of all other rows.
    p : float
        See `histofeat.metrics.Bootstrap.p_value`.
    p_adjusted : float
        `p` adjusted for all rows of the table; see `histofeat.metrics.step_down`.
    non_inferior : bool or None
        Whether `ci95` leaves out every difference that is worse than the margin; None without a margin.
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
    simultaneous_ci95: tuple[float, float]
    p: float
    p_adjusted: float
    non_inferior: bool | None
    n_resamples: int


@dataclass(frozen=True)
class Comparisons:
    """A table of comparisons, with one reference or in pairs: one family of tests.

    Parameters
    ----------
    rows : tuple of Comparison
        Metric by metric, in the order asked for.
    reference : str or None
        The model that all others are compared with; None for other pairs.
    is_best : bool
        Whether the reference was not named, but is the best of these very scores.
    n_patients : int
        Patients that were resampled.
    n_resamples : int
        How often.
    margin : float or None
        The largest difference that does not matter.
    """

    rows: tuple[Comparison, ...]
    reference: str | None
    is_best: bool
    n_patients: int
    n_resamples: int
    margin: float | None

    @property
    def verdict(self) -> str:
        """The first metric in words: which models are not told apart from the reference."""
        rows = [row for row in self.rows if row.metric == self.rows[0].metric]
        # A p-value that is not defined tells nothing apart either.
        alike = [row.first for row in rows if not row.p_adjusted < _LIMIT]
        words = _words(rows[0].metric)
        if self.reference is None:
            told = [f"{row.first} from {row.second}" for row in rows if row.p_adjusted < _LIMIT]
            return f"{words}: told apart: {', '.join(told)}." if told else f"{words}: no pair is told apart."
        if not alike:
            return f"{words}: every other model is told apart from {self.reference}."
        return f"{words}: not told apart from {self.reference}: {', '.join(alike)}."

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for files."""
        return {**plain_values(self), "verdict": self.verdict}

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a DataFrame, the interval in columns ``low`` and ``high``."""
        frame = pd.DataFrame([asdict(row) for row in self.rows])
        for prefix, name in (("simultaneous_", "simultaneous_ci95"), ("", "ci95")):
            ends = np.array(frame.pop(name).tolist())
            where = frame.columns.get_loc("difference") + 1
            frame.insert(where, f"{prefix}low", ends[:, 0])
            frame.insert(where + 1, f"{prefix}high", ends[:, 1])
        return frame


@dataclass(frozen=True)
class NotCompared:
    """Models that could not be compared, and the sentence that says why."""

    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for files."""
        return {"refused": self.reason}


def _words(metric: str) -> str:
    record = METRIC_RECORDS[metric.removesuffix("_tuned")]
    return record.words + (" at the tuned threshold" if metric.endswith("_tuned") else "")


def compare_models(
    evaluation: Any,
    metrics: Sequence[str] | str = ("roc_auc",),
    *,
    reference: str | None = None,
    pairs: Sequence[tuple[str, str]] = (),
    margin: float | None = None,
    n_resamples: int | None = None,
    n_jobs: int | None = None,
) -> Comparisons:
    """Compare all models of an evaluation with one of them, patient by patient.

    Parameters
    ----------
    evaluation : Evaluation, or mapping of str to Evaluation
        With a mapping, models of several evaluations of the same tested patches; their names then begin with the key.
    metrics : sequence of str
        Of `histofeat.metrics.METRICS`; a label metric with "_tuned" at the end, such as "f1_tuned", is of the labels
        at the tuned threshold instead of 0.5. All rows are one family: name one metric before you look.
    reference : str, optional
        A model, as "name/head" ("key: name/head" with a mapping), that all others are compared with; by default the
        best in the first metric.
    pairs : sequence of (str, str), optional
        The differences first - second to compute, instead of those from a reference.
    margin : float, optional
        The largest loss against the second model that does not matter, such as 0.01, for `Comparison.non_inferior`.
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
        If there are fewer than two models, a metric, the margin or the reference is not valid, there are no resamples,
        a class has a single patient, a model has scores that are NaN, or models were tested on different patients.
    GroupLeakageError
        If a patient id is missing.

    Notes
    -----
    All models share the resamples of the patients, so that a resample that is easy for both does not widen the
    interval of their difference. The interval covers other patients of the same kind and these fitted models; it
    does not cover fitting them again, for which see `histofeat.metrics.nadeau_bengio`.

    Differences from the best of the same scores begin with an advantage of the best that is partly luck: name a
    reference in advance where you have one.

    Examples
    --------
    >>> from histofeat import IDCPipeline, evaluate, make_cohort
    >>> from histofeat.model_selection import PatientKFold
    >>> pipelines = {"color": IDCPipeline("color", "logistic"), "lbp": IDCPipeline("lbp", "logistic")}
    >>> cohort = make_cohort(n_patients=8, patches_per_patient=8)
    >>> evaluation = evaluate(cohort, pipelines, PatientKFold(2), inner_cv=PatientKFold(2), n_resamples=50)
    >>> (row,) = compare_models(evaluation, reference="color/logistic").rows
    >>> row.first, row.second, row.ci95[0] <= row.difference <= row.ci95[1]
    ('lbp/logistic', 'color/logistic', True)
    """
    metrics = check_metrics("compare_models.metrics", metrics)
    evaluations = evaluation if isinstance(evaluation, Mapping) else {"": evaluation}
    evaluations = {name: getattr(each, "positive_last", each) for name, each in evaluations.items()}
    labels = _labels(evaluations)
    names = [("reference", reference)] * (reference is not None) + [("pairs", name) for pair in pairs for name in pair]
    for argument, name in names:
        check_name(f"compare_models.{argument}", name, labels, "the name of a model")
    pairs = check_pairs("compare_models.pairs", pairs)
    if pairs and reference is not None:
        raise ValueError("compare_models: expected a reference or pairs, got both. Leave one of them out.")
    labels = {name: entry for name, entry in labels.items() if not pairs or any(name in pair for pair in pairs)}
    check_margin("compare_models.margin", margin)
    protocol = next(iter(evaluations.values())).protocol
    wanted = protocol["n_resamples"] if n_resamples is None else n_resamples
    check_whole("compare_models.n_resamples", wanted, 1, "Give n_resamples=2000, or evaluate with resamples.")
    n_patients = _check_patients(evaluations)
    resampling = {"n_resamples": wanted, "random_state": protocol["random_state"], "n_jobs": n_jobs}
    for entry in labels.values():
        _check_model(*entry, n_patients)
    models = {label: _measured(*entry[1:], metrics, resampling) for label, entry in labels.items()}
    named, is_best = reference or _best(models, metrics[0]), not (reference or pairs)
    pairs = pairs or [(label, named) for label in models if label != named]
    paired = {(first, second): models[first].minus(models[second]) for first, second in pairs}
    rows = [_compare(metric, *pair, models, found, margin) for metric in metrics for pair, found in paired.items()]
    samples = [paired[row.first, row.second].samples[row.metric] for row in rows]
    rows = _adjusted(rows, samples, min(models[named].carriers) - 1, n_patients, protocol["random_state"])
    # Pairs that share their second model are those from a reference.
    shared = rows[0].second if len({second for _, second in paired}) == 1 else None
    return Comparisons(rows, shared, is_best, n_patients, int(wanted), margin)


def _better(metric):
    """1 where higher is better, else -1."""
    return 1 if METRIC_RECORDS[metric.removesuffix("_tuned")].higher_is_better else -1


def _best(models, metric):
    return max(models, key=lambda label: np.nan_to_num(_better(metric) * models[label].estimates[metric], nan=-np.inf))


def _labels(evaluations):
    """Give (label, evaluation, model) of every model by its label."""
    found = [
        (f"{key}: " * bool(key) + f"{model.name}/{model.head}", evaluation, model)
        for key, evaluation in evaluations.items()
        for model in evaluation.models
    ]
    check_that("compare_models.evaluation", len(found), len(found) > 1, "at least two models", "Evaluate another.")
    return {entry[0]: entry for entry in found}


def _check_patients(evaluations):
    """Refuse evaluations of different patients, and classes of one patient; returns the number of patients."""
    tables = {key: _patches_of_patients(evaluation) for key, evaluation in evaluations.items()}
    (first, table), *others = tables.items()
    for key, other in others:
        if evaluations[key].labels != evaluations[first].labels:
            raise ValueError(
                f"compare_models.evaluation: expected the same class names in {first!r} and {key!r}, got "
                f"{evaluations[first].labels!r} and {evaluations[key].labels!r}. Evaluate both with the same names."
            )
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


def _measured(evaluation, model, metrics, resampling) -> Bootstrap:
    """Give the scores of one model and their resamples in every metric."""
    rows = np.flatnonzero(evaluation.tested)
    y, patients = np.asarray(evaluation.dataset.y)[rows], np.asarray(evaluation.dataset.patients)[rows]
    options = {"fold": np.asarray(evaluation.fold)[rows], **resampling}

    def drawn(predicted, metrics):
        return bootstrap_scores(y, model.proba[rows], patients, predicted=predicted[rows], metrics=metrics, **options)

    plain = [metric for metric in metrics if metric in METRICS]
    tuned = {metric: metric.removesuffix("_tuned") for metric in metrics if metric in COMPARABLE[len(METRICS) :]}
    found = (
        model.resamples if _usable(model.resamples, evaluation, plain, resampling) else drawn(model.predicted, plain)
    )
    if tuned:
        at_tuned = drawn(model.predicted_tuned, tuple(tuned.values()))
        samples, estimates = (
            {metric: getattr(at_tuned, part)[name] for metric, name in tuned.items()}
            for part in ("samples", "estimates")
        )
        found = replace(found, samples={**found.samples, **samples}, estimates={**found.estimates, **estimates})
    return found


def _check_model(label, evaluation, model, n_patients):
    wrong = evaluation.tested & ~np.isfinite(model.proba).all(axis=1)
    expected = f"compare_models.evaluation: expected a probability of {label!r} for every tested patch"
    refuse_rows(wrong, model.proba, expected, "Leave this model out, or score these patches.")
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


def _compare(metric, label, reference, models, paired, margin):
    difference, ends = paired.estimates[metric], paired.interval(metric)
    worst = ends[0] if _better(metric) > 0 else -ends[1]
    return Comparison(
        metric,
        label,
        reference,
        first_value=models[label].estimates[metric],
        second_value=models[reference].estimates[metric],
        difference=difference,
        ci95=ends,
        simultaneous_ci95=(np.nan, np.nan),
        p=paired.p_value(metric),
        p_adjusted=paired.p_value(metric),
        non_inferior=None if margin is None else bool(worst > -margin),
        n_resamples=paired.n_used(metric),
    )


def _adjusted(rows, samples, df, n_patients, random_state):
    """Adjust p-values and intervals; differences that are undefined, or of equal models, do not count."""
    tested = [number for number, row in enumerate(rows) if np.isfinite(row.p) and np.isfinite(row.ci95).all()]
    if not tested:
        return tuple(rows)
    differences = np.array([rows[number].difference for number in tested])
    errors, limit, adjusted = step_down(
        differences, np.array([samples[number] for number in tested]), df, n_patients, random_state=random_state
    )
    for number, d, error, p in zip(tested, differences.tolist(), errors.tolist(), adjusted.tolist(), strict=True):
        ends = (d - limit * error, d + limit * error)
        # Chance in the draws makes nothing smaller than the row's own test.
        rows[number] = replace(rows[number], p_adjusted=max(p, rows[number].p), simultaneous_ci95=ends)
    return tuple(rows)
