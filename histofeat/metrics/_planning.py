"""How many patients an interval or a difference needs, and what is noise, from the standard errors of a pilot."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import chdtri, nctdtr, nctdtrinc, stdtrit

from histofeat.exceptions import check_name, check_real
from histofeat.metrics._bootstrap import Bootstrap, bootstrap_scores, check_level, metric_scale, t_interval
from histofeat.metrics._definitions import METRIC_RECORDS, METRICS
from histofeat.metrics._patient_auc import independent_variance

_MOST_PATIENTS = 10_000_000
#: Resamples of single patches, which need be no more exact than those of the patients.
_PATCH_RESAMPLES = 200


@dataclass(frozen=True)
class PatientPlan:
    """How many patients to test.

    Parameters
    ----------
    n_patients : int
        The fewest patients with which the interval is as narrow, or the power as high, as was asked for.
    n_patients_ci95 : tuple of (int, int)
        The same if the standard error of the pilot is as far off as chance makes it.
    n_carriers : int
        How many of `n_patients` carry the rarest class, if it is as rare as in the pilot.
    """

    n_patients: int
    n_patients_ci95: tuple[int, int]
    n_carriers: int


@dataclass(frozen=True)
class NoiseFloor:
    """The smallest difference of two models that the tested patients tell from noise.

    Parameters
    ----------
    metric : str
    models : tuple of (str, str)
        Whose paired difference gives the standard error, each as "name/head".
    n_patients, n_carriers : int
        Patients, and those who carry the rarest class.
    standard_error : float
        Of the paired difference.
    difference : float
        A true difference of this size is found with this power.
    sentence, how : str
        The noise floor in words, and how it is computed.
    """

    metric: str
    models: tuple[str, ...]
    n_patients: int
    n_carriers: int
    standard_error: float
    difference: float
    sentence: str
    how: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for files."""
        return asdict(self)


def plan_patients(
    pilot: Any,
    *,
    width: float | None = None,
    difference: float | None = None,
    metric: str = "roc_auc",
    models: Sequence[str] | None = None,
    level: float = 0.95,
    power: float = 0.8,
) -> PatientPlan:
    """Compute how many patients to test for an interval of some width, or to find a difference of two models.

    Parameters
    ----------
    pilot : Evaluation
        An evaluation on few patients of the same kind, with resamples.
    width : float, optional
        The widest interval that is good enough. Give this or `difference`.
    difference : float, optional
        The smallest difference of two models that is worth finding.
    metric : str, default="roc_auc"
        One of `histofeat.metrics.METRICS`.
    models : sequence of str, optional
        One model for a width, two for a difference, each as "name/head". By default those of the pilot, if it has just
        as many.
    level : float in (0, 1), default=0.95
        Of the interval; a difference is found where this interval leaves out 0.
    power : float in (0, 1), default=0.8
        How often a difference of this size is found.

    Returns
    -------
    plan : PatientPlan

    Raises
    ------
    ValueError
        If both or none of `width` and `difference` are given, a number is out of range, the metric or a model is
        unknown, the pilot has no standard error, or too many patients are needed.

    Notes
    -----
    The standard error of a score of n patients falls as ``1 / sqrt(n)``, and its degrees of freedom rise with the
    patients who carry the rarest class, see `histofeat.metrics.bootstrap_scores`. The power is that of the t
    distribution, which is noncentral where a difference exists. The plan is for these fits: it assumes that heads
    fitted on more patients score as those of the pilot do. A pilot of ten patients may be off by a factor of two.

    Examples
    --------
    >>> from histofeat import IDCPipeline, evaluate, make_cohort
    >>> from histofeat.model_selection import PatientKFold
    >>> cohort, folds = make_cohort(n_patients=8, patches_per_patient=8), PatientKFold(2)
    >>> pilot = evaluate(cohort, IDCPipeline("lbp", "logistic"), folds, inner_cv=folds, n_resamples=100)
    >>> plan_patients(pilot, width=0.1).n_patients > plan_patients(pilot, width=0.2).n_patients > 8
    True
    """
    given = {name: value for name, value in (("width", width), ("difference", difference)) if value is not None}
    if len(given) != 1:
        raise ValueError(
            f"plan_patients: expected either width or difference, got {' and '.join(given) or 'none of them'}. "
            "Make one plan for each."
        )
    ((name, wanted),) = given.items()
    check_real(f"plan_patients.{name}", wanted, "above 0", lambda value: value > 0, "Use 0.05.")
    check_level(level, "plan_patients")
    _check_power(power, "plan_patients")
    found = _resamples(pilot, metric, models, 1 if name == "width" else 2, "plan_patients")
    share, error, df = min(found.carriers) / found.n_patients, found.standard_error(metric), min(found.carriers) - 1

    def enough(n, pilot_error):
        if share * n < 2:
            return False
        error = pilot_error * np.sqrt(found.n_patients / n)
        if name == "difference":  # how often a t test finds it, on the right side
            # SciPy gives NaN for some of the smallest probabilities to miss it.
            return not nctdtr(share * n - 1, wanted / error, stdtrit(share * n - 1, (1 + level) / 2)) > 1 - power
        low, high = t_interval(found.estimates[metric], error, share * n - 1, level, scale=metric_scale(metric))
        return high - low <= wanted

    # The error as it is, and at both ends of its own interval by the chi-squared distribution.
    errors = [error, *(error * np.sqrt(df / chdtri(df, tail)) for tail in (0.025, 0.975))]
    if not enough(_MOST_PATIENTS, max(errors)):
        raise ValueError(
            f"plan_patients: expected a goal that {_MOST_PATIENTS:,} patients reach, got a smaller one. Ask for less."
        )
    counts = range(2, _MOST_PATIENTS)
    n_patients, *ends = (2 + bisect_left(counts, True, key=lambda n, each=each: enough(n, each)) for each in errors)
    return PatientPlan(n_patients, tuple(ends), int(share * n_patients))


def smallest_detectable_difference(
    evaluation: Any,
    power: float = 0.8,
    *,
    metric: str = "roc_auc",
    models: Sequence[str] | None = None,
    level: float = 0.95,
) -> float:
    """Compute the smallest difference of two models that the patients of an evaluation are enough to find.

    Parameters
    ----------
    evaluation : Evaluation
        With resamples.
    power : float in (0, 1), default=0.8
        How often a difference of this size is found.
    metric, models, level
        As in `plan_patients`; two models.

    Returns
    -------
    difference : float
        Above 0; a true difference of this size is found with this power.

    Raises
    ------
    ValueError
        As in `plan_patients`.

    Examples
    --------
    >>> from histofeat import IDCPipeline, evaluate, make_cohort
    >>> from histofeat.model_selection import PatientKFold
    >>> pipelines = {"color": IDCPipeline("color", "logistic"), "lbp": IDCPipeline("lbp", "logistic")}
    >>> cohort, folds = make_cohort(n_patients=8, patches_per_patient=8), PatientKFold(2)
    >>> evaluation = evaluate(cohort, pipelines, folds, inner_cv=folds, n_resamples=100)
    >>> 0 < smallest_detectable_difference(evaluation, 0.5) < smallest_detectable_difference(evaluation, 0.9)
    True
    """
    check_level(level, "smallest_detectable_difference")
    _check_power(power, "smallest_detectable_difference")
    found = _resamples(evaluation, metric, models, 2, "smallest_detectable_difference")
    df = min(found.carriers) - 1
    return float(nctdtrinc(df, 1 - power, stdtrit(df, (1 + level) / 2)) * found.standard_error(metric))


def noise_floor(
    evaluation: Any,
    *,
    metric: str = "roc_auc",
    models: Sequence[str] | None = None,
    level: float = 0.95,
    power: float = 0.8,
) -> NoiseFloor:
    """Compute the smallest difference that the patients of an evaluation tell from noise.

    Parameters
    ----------
    evaluation : Evaluation
        With resamples.
    metric, models, level, power
        As in `smallest_detectable_difference`; by default the best two models, whose difference is what a table of
        results is read for.

    Returns
    -------
    floor : NoiseFloor

    Raises
    ------
    ValueError
        As in `plan_patients`.

    Notes
    -----
    Models that resemble each other differ with a smaller error than others: name the pair that you mean. Where a pair
    differs by its floor, the p-value of `Bootstrap.p_value` is below ``1 - level`` as often as `power` says. Scores of
    a worse model vary more, so that the floor of two equal ones is a little low for large differences.

    Examples
    --------
    >>> from histofeat import IDCPipeline, evaluate, make_cohort
    >>> from histofeat.model_selection import PatientKFold
    >>> pipelines = {"color": IDCPipeline("color", "logistic"), "lbp": IDCPipeline("lbp", "logistic")}
    >>> cohort, folds = make_cohort(n_patients=8, patches_per_patient=8), PatientKFold(2)
    >>> evaluation = evaluate(cohort, pipelines, folds, inner_cv=folds, n_resamples=100)
    >>> noise_floor(evaluation).sentence.startswith("With these 8 test patients a difference in ROC-AUC below 0.")
    True
    """
    check_name("noise_floor.metric", metric, METRICS)
    known = {f"{model.name}/{model.head}": model.resamples for model in evaluation.models}
    sign = 1 if METRIC_RECORDS[metric].higher_is_better else -1
    scores = {name: np.nan_to_num(sign * each.estimates[metric], nan=-np.inf) for name, each in known.items() if each}
    models = tuple(models or sorted(scores, key=lambda name: -scores[name])[:2])
    found = _resamples(evaluation, metric, models, 2, "noise_floor")
    difference = smallest_detectable_difference(evaluation, power, metric=metric, models=models, level=level)
    n, carriers, error = found.n_patients, min(found.carriers), found.standard_error(metric)
    words = f"With these {n:,} test patients a difference in {METRIC_RECORDS[metric].words} below {difference:.2g}"
    how = (
        f"From the paired difference of {' and '.join(models)} in resamples of the patients: its standard error is "
        f"{error:.2g}, the t test has {carriers - 1} degrees of freedom (patients who carry the rarest class, less "
        f"one) and the level {1 - level:.2g}."
    )
    sentence = f"{words} cannot be told from noise ({100 * power:g} % power)."
    return NoiseFloor(metric, models, n, carriers, error, difference, sentence, how)


def design_effect(evaluation: Any, model: str, metric: str = "roc_auc") -> float:
    """Compute how many times more a score varies than if each patch were of a patient of its own.

    Parameters
    ----------
    evaluation : Evaluation
        With resamples.
    model : str
        As "name/head".
    metric : str, default="roc_auc"
        One of `histofeat.metrics.METRICS`.

    Returns
    -------
    effect : float
        Variance over resamples of patients, divided by that of independent patches, which is computed for ROC-AUC and
        resampled for others. n patches are worth ``n / effect`` independent ones (Kish, "Survey Sampling", 1965); NaN
        where nothing varies.

    Raises
    ------
    ValueError
        As in `plan_patients`.

    Examples
    --------
    >>> from histofeat import IDCPipeline, evaluate, make_cohort
    >>> from histofeat.model_selection import PatientKFold
    >>> cohort, folds = make_cohort(n_patients=8, patches_per_patient=8), PatientKFold(2)
    >>> evaluation = evaluate(cohort, IDCPipeline("lbp", "logistic"), folds, inner_cv=folds, n_resamples=100)
    >>> 0.1 < design_effect(evaluation, "pipeline/logistic") < 50
    True
    """
    found = _resamples(evaluation, metric, model, 1, "design_effect")
    evaluation = evaluation.positive_last
    rows = np.flatnonzero(evaluation.tested)
    (chosen,) = (each for each in evaluation.models if f"{each.name}/{each.head}" == model)
    y, proba, fold = evaluation.dataset.y[rows], chosen.proba[rows], evaluation.fold[rows]
    if metric == "roc_auc":
        alone = independent_variance(y, proba, fold)
    else:
        more = {"n_resamples": _PATCH_RESAMPLES, "random_state": evaluation.protocol["random_state"]}
        more |= {"fold": fold, "predicted": chosen.predicted[rows], "metrics": (metric,), "n_jobs": evaluation.n_jobs}
        alone = bootstrap_scores(y, proba, np.arange(len(rows)), **more).standard_error(metric) ** 2
    return float(found.standard_error(metric) ** 2 / alone) if alone > 0 else np.nan


def _check_power(power, owner):
    check_real(f"{owner}.power", power, "between 0.05 and 1", lambda value: 0.05 < value < 1, "Use 0.8.")


def _resamples(evaluation, metric, models, n_wanted, owner) -> Bootstrap:
    """Give the resamples of one model, or of the difference of two."""
    check_name(f"{owner}.metric", metric, METRICS)
    known = {f"{model.name}/{model.head}": model.resamples for model in evaluation.models}
    names = list(known if models is None else [models] if isinstance(models, str) else models)
    for name in names:
        check_name(f"{owner}.models", name, known, "names of models")
    if len(names) != n_wanted:
        raise ValueError(
            f"{owner}.models: expected {n_wanted} model{'s' * (n_wanted > 1)}, got {len(names)}. Choose from "
            f"{', '.join(known)}."
        )
    found = known[names[0]] if n_wanted == 1 else known[names[0]].minus(known[names[1]])
    error = found.standard_error(metric)
    if min(found.carriers) < 2 or not error > 0:
        raise ValueError(
            f"{owner}: expected a standard error of {metric}, got {error} with {min(found.carriers)} carriers of the "
            "rarest class. Evaluate a pilot with resamples, more patients, and scores that are not perfect."
        )
    return found
