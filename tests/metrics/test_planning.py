"""How many patients: against loops over the patients, and against simulated studies of the planned size."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from histofeat.metrics import (
    bootstrap_scores,
    design_effect,
    noise_floor,
    plan_patients,
    smallest_detectable_difference,
    t_interval,
)

N_PATIENTS = 24
#: Of the second model, where that of the first is 2: of 49 patients, this pair differs by its noise floor.
SKILL_AT_THE_FLOOR = 1.7255


def draw(n_patients, seed, skills=(2.0, 1.6)):
    """Labels, patients, and probabilities by models that share the patients' shifts; every third patient is healthy."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), 10)
    y = np.where(patients % 3, rng.integers(0, 2, len(patients)), 0)
    shift = rng.normal(0, 1, n_patients)[patients]
    margins = [skill * (y - 0.5) + shift + rng.normal(0, 1, len(y)) for skill in skills]
    positive = [1 / (1 + np.exp(-margin)) for margin in margins]
    return y, patients, [np.column_stack([1 - p, p]) for p in positive]


def evaluated(n_patients=N_PATIENTS, seed=0, n_resamples=300, skills=(2.0, 1.6)):
    """What planning reads of an evaluation."""
    y, patients, probas = draw(n_patients, seed, skills)
    found = [bootstrap_scores(y, proba, patients, n_resamples=n_resamples) for proba in probas]
    models = [SimpleNamespace(name=f"m{i}", head="h", resamples=each) for i, each in enumerate(found)]
    return SimpleNamespace(models=tuple(models))


@pytest.fixture(scope="module")
def pilot():
    return evaluated()


def test_the_ends_of_a_plan_stand_in_order(pilot):
    """Also where the power is so near 1 that its complement has no value."""
    for difference in np.geomspace(0.003, 0.1, 40):
        plan = plan_patients(pilot, difference=difference)
        low, high = plan.n_patients_ci95
        assert low <= plan.n_patients <= high, difference


def errors_of(error, df):
    return [error, *(error * np.sqrt(df / stats.chi2.ppf(tail, df)) for tail in (0.975, 0.025))]


def test_a_width_by_a_loop(pilot):
    found = pilot.models[0].resamples
    value, error, carriers = found.estimates["roc_auc"], found.standard_error("roc_auc"), min(found.carriers)
    assert carriers == 16

    def wide(n, error):
        df = carriers / N_PATIENTS * n - 1
        half = stats.t.ppf(0.975, df) * error * np.sqrt(N_PATIENTS / n) / (value * (1 - value))
        low, high = (1 / (1 + np.exp(-(np.log(value / (1 - value)) + side * half))) for side in (-1, 1))
        return high - low

    needed = [next(n for n in range(3, 10_000) if wide(n, each) <= 0.08) for each in errors_of(error, carriers - 1)]
    plan = plan_patients(pilot, width=0.08, models="m0/h")
    assert (plan.n_patients, *plan.n_patients_ci95) == tuple(needed)
    assert plan.n_carriers == int(plan.n_patients * carriers / N_PATIENTS)
    low, high = t_interval(value, error, carriers - 1)
    assert plan_patients(pilot, width=high - low, models=["m0/h"]).n_patients == N_PATIENTS


def test_a_difference_by_a_loop(pilot):
    paired = pilot.models[0].resamples.minus(pilot.models[1].resamples)
    error, share = paired.standard_error("brier"), min(paired.carriers) / N_PATIENTS

    def finds(n, error):
        df = share * n - 1
        return stats.nct.sf(stats.t.ppf(0.95, df), df, 0.02 / (error * np.sqrt(N_PATIENTS / n))) >= 0.9

    df = min(paired.carriers) - 1
    needed = [next(n for n in range(4, 10_000) if finds(n, each)) for each in errors_of(error, df)]
    plan = plan_patients(pilot, difference=0.02, metric="brier", level=0.9, power=0.9)
    assert (plan.n_patients, *plan.n_patients_ci95) == tuple(needed)


def test_the_smallest_difference_is_the_one_that_needs_these_patients(pilot):
    for power in (0.5, 0.8, 0.95):
        found = smallest_detectable_difference(pilot, power)
        plan = plan_patients(pilot, difference=found, power=power - 1e-6)
        assert plan.n_patients == N_PATIENTS
    error = pilot.models[0].resamples.minus(pilot.models[1].resamples).standard_error("roc_auc")
    # Of a normal distribution, 0.8 power needs 1.96 + 0.84 standard errors; of t with 15 degrees of freedom some more.
    assert 2.8 < smallest_detectable_difference(pilot) / error < 3.2


def test_the_noise_floor_is_of_the_best_two(pilot):
    y, patients, probas = draw(N_PATIENTS, 0, (2.0, 1.6, 0.4))
    found = [bootstrap_scores(y, proba, patients, n_resamples=300) for proba in reversed(probas)]
    three = SimpleNamespace(
        models=[SimpleNamespace(name=f"m{2 - i}", head="h", resamples=r) for i, r in enumerate(found)]
    )
    floor = noise_floor(three)
    assert (floor.models, floor.n_patients, floor.n_carriers) == (("m0/h", "m1/h"), N_PATIENTS, 16)
    paired = found[2].minus(found[1])
    assert floor.standard_error == paired.standard_error("roc_auc")
    assert floor.difference == smallest_detectable_difference(three, models=floor.models)
    assert noise_floor(three, metric="brier").models == ("m0/h", "m1/h")  # the lower, the better
    assert noise_floor(three, models=["m2/h", "m1/h"]).difference > floor.difference
    shown = f"{floor.difference:.2g}"
    assert floor.sentence == (
        f"With these 24 test patients a difference in ROC-AUC below {shown} cannot be told from noise (80 % power)."
    )
    assert f"standard error is {floor.standard_error:.2g}, the t test has 15 degrees of freedom" in floor.how
    assert floor.to_dict()["sentence"] == floor.sentence
    with pytest.raises(ValueError, match=r"noise_floor.models: expected 2 models, got 1"):
        noise_floor(SimpleNamespace(models=three.models[:1]))
    with pytest.raises(ValueError, match=r"noise_floor.metric: expected"):
        noise_floor(three, metric="auc")


def with_patches(own, seed=0):
    """Predictions of patients whose patches share everything (own=0) or nothing (own=1)."""
    rng, patients = np.random.default_rng(seed), np.repeat(np.arange(30), 10)
    y = rng.integers(0, 2, 30)[patients] if own == 0 else rng.integers(0, 2, 300)
    margin = 1.5 * y + (rng.normal(0, 1, 300) if own else rng.normal(0, 1, 30)[patients])
    proba = np.column_stack([1 - margin / 10, margin / 10]).clip(0, 1)
    found = bootstrap_scores(y, proba, patients, n_resamples=300)
    model = SimpleNamespace(name="m", head="h", resamples=found, proba=proba, predicted=(margin > 5).astype(int))
    evaluation = SimpleNamespace(models=[model], tested=np.ones(300, bool), fold=np.zeros(300, int), n_jobs=1)
    evaluation.dataset, evaluation.protocol = SimpleNamespace(y=y), {"random_state": 0}
    evaluation.positive_last = evaluation
    return evaluation


def test_ten_equal_patches_say_as_much_as_one():
    for own, effect in ((0, 10), (1, 1)):
        found = [design_effect(with_patches(own, seed), "m/h") for seed in range(8)]
        assert np.mean(found) == pytest.approx(effect, rel=0.2)
    with pytest.raises(ValueError, match=r"design_effect.models: expected names of models"):
        design_effect(with_patches(1), "other")


@pytest.mark.long
def test_noise_is_not_claimed_and_differences_at_the_floor_are_found():
    """Two thousand simulated pairs of models, half of them equal, half of them apart by their floor."""

    def pairs(skills):
        rng, p, differences, floors = np.random.default_rng(1), [], [], []
        for seed in range(1000):
            patients = np.repeat(np.arange(49), 10)
            y = np.where(patients % 3, rng.integers(0, 2, len(patients)), 0)
            shared = rng.normal(0, 1, 49)[patients] + rng.normal(0, 1, len(y))
            found = []
            for skill in skills:
                own = rng.normal(0, 0.2, 49)[patients] + rng.normal(0, 0.4, len(y))
                p_1 = 1 / (1 + np.exp(-(skill * (y - 0.5) + shared + own)))
                proba, more = np.column_stack([1 - p_1, p_1]), {"n_resamples": 300, "random_state": seed}
                found.append(bootstrap_scores(y, proba, patients, metrics=("roc_auc",), **more))
            paired = found[0].minus(found[1])
            p.append(paired.p_value("roc_auc"))
            differences.append(paired.estimates["roc_auc"])
            models = [SimpleNamespace(name=f"m{i}", head="h", resamples=each) for i, each in enumerate(found)]
            floors.append(noise_floor(SimpleNamespace(models=models)).difference)
        return np.array(p), np.array(differences), np.array(floors)

    p, differences, _ = pairs((2.0, 2.0))
    assert np.mean(p < 0.05) <= 0.05
    p, differences, floors = pairs((2.0, SKILL_AT_THE_FLOOR))
    assert differences.mean() == pytest.approx(floors.mean(), rel=0.02)
    assert np.mean((p < 0.05) & (differences > 0)) == pytest.approx(0.8, abs=0.03)


def test_wrong_goals_are_refused(pilot):
    for given, words in (({}, "none of them"), ({"width": 0.1, "difference": 0.1}, "width and difference")):
        with pytest.raises(ValueError, match=f"plan_patients: expected either width or difference, got {words}. Make"):
            plan_patients(pilot, **given)
    for name in ("width", "difference"):
        with pytest.raises(ValueError, match=f"plan_patients.{name}: expected a number above 0, got -1. Use"):
            plan_patients(pilot, **{name: -1})
    with pytest.raises(ValueError, match=r"plan_patients.power: expected a number between 0.05 and 1, got 1. Use 0.8"):
        plan_patients(pilot, difference=0.1, power=1)
    with pytest.raises(ValueError, match=r"difference.power: expected a number between 0.05 and 1, got 0.01. Use 0.8"):
        smallest_detectable_difference(pilot, 0.01)
    with pytest.raises(ValueError, match=r"plan_patients.level: expected a number between 0 and 1, got 95"):
        plan_patients(pilot, difference=0.1, level=95)
    with pytest.raises(ValueError, match=r"smallest_detectable_difference.level: expected a number between 0 and 1"):
        smallest_detectable_difference(pilot, level=95)
    with pytest.raises(
        ValueError, match="plan_patients: expected a goal that 10,000,000 patients reach, got a smaller"
    ):
        plan_patients(pilot, difference=1e-9)


def test_wrong_models_are_refused(pilot):
    with pytest.raises(ValueError, match=r"plan_patients.models: expected 1 model, got 2. Choose from m0/h, m1/h."):
        plan_patients(pilot, width=0.1)
    with pytest.raises(ValueError, match=r"difference.models: expected 2 models, got 1. Choose from m0/h, m1/h."):
        smallest_detectable_difference(pilot, models=["m0/h"])
    with pytest.raises(ValueError, match=r"plan_patients.models: expected names of models.*got 'm7/h'"):
        plan_patients(pilot, width=0.1, models="m7/h")
    with pytest.raises(ValueError, match=r"plan_patients.metric: expected"):
        plan_patients(pilot, width=0.1, metric="auc", models="m0/h")


@pytest.mark.parametrize(
    ("changes", "error", "carriers"),
    [({"n_resamples": 0}, "nan", 16), ({"n_patients": 2}, "nan|[0-9.]+", 1), ({"skills": (90.0, 90.0)}, "0.0", 16)],
)
def test_pilots_without_a_standard_error_are_refused(changes, error, carriers):
    match = (
        f"expected a standard error of roc_auc, got ({error}) with {carriers} carriers of the rarest class. Evaluate"
    )
    with pytest.raises(ValueError, match=match):
        plan_patients(evaluated(**changes), width=0.1, models="m0/h")
    with pytest.raises(ValueError, match=match):
        smallest_detectable_difference(evaluated(**changes))


@pytest.mark.long
def test_planned_studies_are_as_narrow_and_as_powerful_as_planned():
    """Plans of many pilots of 40 patients, carried out: the median plan reaches its goal."""
    pilots = [evaluated(40, seed) for seed in range(40)]
    n = int(np.median([plan_patients(each, width=0.1, models="m0/h").n_patients for each in pilots]))
    assert 40 < n < 400
    widths = []
    for seed in range(100):
        y, patients, probas = draw(n, 1000 + seed)
        low, high = bootstrap_scores(y, probas[0], patients, n_resamples=300, metrics=["roc_auc"]).interval("roc_auc")
        widths.append(high - low)
    assert np.mean(widths) == pytest.approx(0.1, rel=0.1)

    y, patients, probas = draw(20_000, 5)
    better, worse = (bootstrap_scores(y, each, patients, n_resamples=0, metrics=["roc_auc"]) for each in probas)
    true = better.estimates["roc_auc"] - worse.estimates["roc_auc"]
    n = int(np.median([plan_patients(each, difference=true).n_patients for each in pilots]))
    found = []
    for seed in range(400):
        first, second = evaluated(n, 2000 + seed, n_resamples=300).models
        found.append(first.resamples.minus(second.resamples).p_value("roc_auc") <= 0.05)
    assert np.mean(found) == pytest.approx(0.8, abs=0.07)
