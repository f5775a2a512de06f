"""Brier decomposition, calibration error and reliability curves against loops, scikit-learn and real resamples."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from test_bootstrap import t_by_hand

from histofeat.metrics import assess_calibration, bootstrap_scores, patient_weights
from histofeat.model_selection import encode_patients

TABLES = st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=1, max_size=60)


def study(n_patients=20, per_patient=15, spread=1.0, sharp=1.0, random_state=0):
    """Patients who differ; `sharp` above 1 makes the probabilities too sure."""
    rng = np.random.default_rng(random_state)
    patients = np.repeat(np.arange(n_patients), per_patient)
    truth = rng.normal(0, spread, n_patients)[patients] + rng.normal(0, 1, len(patients))
    y = (rng.uniform(size=len(patients)) < expit(truth)).astype(int)
    return y, expit(sharp * truth), patients


def measured(y, score, n_bins=10, strategy="quantile"):
    """Values and bins without resamples, each patch a patient."""
    found = assess_calibration(y, score, np.arange(len(score)), n_bins, strategy, n_resamples=0)
    return SimpleNamespace(**found.values, bins=found.curve.bins, to_dict=found.to_dict)


def by_loop(y, score, edges):
    """Every measure from its definition, bin by bin."""
    n, prevalence = len(y), np.mean(y)
    found = dict.fromkeys(("reliability", "resolution", "within_variance", "within_covariance", "ece"), 0.0)
    for position in range(len(edges) - 1):
        low, high = edges[position], edges[position + 1]
        inside = [i for i in range(n) if low < score[i] <= high or (position == 0 and score[i] == low)]
        if not inside:
            continue
        p, o = np.array([score[i] for i in inside]), np.array([y[i] for i in inside])
        found["reliability"] += len(p) / n * (p.mean() - o.mean()) ** 2
        found["resolution"] += len(p) / n * (o.mean() - prevalence) ** 2
        found["within_variance"] += ((p - p.mean()) ** 2).sum() / n
        found["within_covariance"] += 2 * ((p - p.mean()) * (o - o.mean())).sum() / n
        found["ece"] += len(p) / n * abs(p.mean() - o.mean())
    return {**found, "uncertainty": prevalence * (1 - prevalence), "brier": np.mean((score - y) ** 2)}


@settings(max_examples=120, deadline=None)
@given(table=TABLES, n_bins=st.integers(1, 12), strategy=st.sampled_from(["quantile", "uniform"]))
def test_decomposition_is_that_of_a_loop_and_adds_up(table, n_bins, strategy):
    y, score = np.array([int(row[0]) for row in table]), np.array([row[1] / 20 for row in table])
    found = measured(y, score, n_bins, strategy)
    expected = by_loop(y, score, found.bins.edges)
    for name in ("brier", "reliability", "resolution", "uncertainty", "within_variance", "within_covariance"):
        assert getattr(found, name) == pytest.approx(expected[name], abs=1e-12), name
    whole = found.reliability - found.resolution + found.uncertainty + found.within_variance - found.within_covariance
    assert whole == pytest.approx(found.brier, abs=1e-12)
    assert found.reliability - found.generalized_resolution + found.uncertainty == pytest.approx(found.brier, abs=1e-12)
    assert found.ece == pytest.approx(expected["ece"], abs=1e-12)
    assert sum(found.bins.n) == len(y)


def test_murphys_three_parts_do_where_the_probabilities_of_a_bin_are_equal():
    score, y = np.repeat([0.1, 0.4, 0.8], 50), np.random.default_rng(0).integers(0, 2, 150)
    found = measured(y, score, 10, "uniform")
    assert (found.within_variance, found.within_covariance) == pytest.approx((0, 0), abs=1e-12)
    assert found.reliability - found.resolution + found.uncertainty == pytest.approx(brier_score_loss(y, score))
    # Without the two within the bins, the parts do not add up elsewhere.
    y, score, _ = study()
    found = measured(y, score, 5)
    assert abs(found.reliability - found.resolution + found.uncertainty - found.brier) > 1e-3


@pytest.mark.parametrize("strategy", ["quantile", "uniform"])
def test_bins_are_scikit_learns(strategy):
    y, score, _ = study()
    score = np.round(score, 2)
    share, mean = calibration_curve(y, score, n_bins=8, strategy=strategy)
    bins = measured(y, score, 8, strategy).bins
    held = np.array(bins.n) > 0
    np.testing.assert_allclose(np.array(bins.share_positive)[held], share)
    np.testing.assert_allclose(np.array(bins.mean_predicted)[held], mean)
    assert (bins.strategy, len(bins.edges), bins.edges[0]) == (
        strategy,
        9,
        0.0 if strategy == "uniform" else min(score),
    )


def test_an_empty_bin_is_listed_and_counts_for_nothing():
    found = measured([0, 1], [0.05, 0.95], 4, "uniform")
    assert found.bins.n == (1, 0, 0, 1)
    assert np.isnan(found.bins.share_positive[1:3]).all()
    assert found.ece == pytest.approx(0.05)
    assert found.to_dict()["curve"]["bins"]["n"] == [1, 0, 0, 1]


def test_shared_probabilities_make_fewer_quantile_bins():
    y, score = np.array([0, 1] * 10), np.repeat([0.3, 0.7], [15, 5])
    bins = measured(y, score, 10).bins
    assert len(bins.n) < 10
    assert [count for count in bins.n if count] == [15, 5]
    alone = measured(y, np.full(20, 0.4), 10)
    assert alone.bins.n == (20,)
    assert (alone.reliability, alone.resolution) == pytest.approx((0.01, 0))


def test_one_class_has_neither_uncertainty_nor_resolution():
    found = measured([1, 1, 1], [0.5, 0.6, 0.9], 2)
    assert (found.uncertainty, found.resolution) == (0, 0)
    assert found.brier == pytest.approx(np.mean([0.25, 0.16, 0.01]))


# --- intervals -------------------------------------------------------------------------------------------------------


def test_resamples_are_those_of_drawing_patients_for_real():
    y, score, patients = study(8, 12)
    found = assess_calibration(y, score, patients, 5, n_resamples=6, random_state=3)
    _, codes = encode_patients(patients, len(y), "patients")
    edges = found.curve.bins.edges
    for number, weights in enumerate(patient_weights(patients, 6, 3)):
        rows = np.concatenate([np.flatnonzero(codes == code) for code in range(8) for _ in range(weights[code])])
        expected = by_loop(y[rows], score[rows], edges)
        for name, value in expected.items():
            assert found.samples[name][number] == pytest.approx(value, abs=1e-12), name
        assert found.samples["bias"][number] == pytest.approx(np.mean(score[rows]) - np.mean(y[rows]), abs=1e-12)


def test_band_is_the_percentiles_of_each_bin():
    y, score, patients = study(12, 10)
    found = assess_calibration(y, score, patients, 4, n_resamples=200, random_state=1, level=0.9)
    curve = found.curve
    inside = np.searchsorted(curve.bins.edges[1:-1], score) == 2
    shares = []
    for weights in patient_weights(patients, 200, 1):
        weight = weights[patients][inside]
        shares.append(weight @ y[inside] / weight.sum())
    assert (curve.low[2], curve.high[2]) == pytest.approx(tuple(np.quantile(shares, [0.05, 0.95])))
    assert curve.n_resamples == (200,) * 4
    assert curve.n_patients[2] == len(set(patients[inside]))
    assert found.to_dict()["curve"]["low"] == list(curve.low)


def test_brier_interval_is_that_of_the_report():
    y, score, patients = study()
    reported = bootstrap_scores(y, np.column_stack([1 - score, score]), patients, n_resamples=300, metrics=["brier"])
    found = assess_calibration(y, score, patients, n_resamples=300)
    assert found.interval("brier") == pytest.approx(reported.interval("brier"))


def test_interval_of_calibration_error_reaches_over_the_percentile_and_the_basic_one():
    y, score, patients = study(sharp=3.0)
    found = assess_calibration(y, score, patients, n_resamples=400)
    low, high = np.quantile(found.samples["ece"], [0.025, 0.975])
    value = found.values["ece"]
    assert 0 < found.chance_limit() < value
    assert found.interval("ece") == pytest.approx((min(low, 2 * value - high), max(high, 2 * value - low)))
    assert found.to_dict()["ece"] == {
        "value": value, "ci95": list(found.interval("ece")), "chance95": found.chance_limit(),
    }  # fmt: skip
    assert found.chance_limit("brier") == 0
    low, high = np.quantile(found.samples["bias"], [0.025, 0.975])
    assert found.interval("bias") == pytest.approx((low, high))


def test_interval_starts_at_zero_where_chance_alone_does_as_much():
    y, score, patients = study(30)
    found = assess_calibration(y, score, patients, n_resamples=400)
    assert found.values["ece"] < found.chance_limit("ece")
    assert found.interval("ece")[0] == found.interval("reliability")[0] == 0.0
    assert np.quantile(found.samples["ece"], 0.025) > 0.005
    assert found.interval("resolution")[0] > 0


def test_chance_is_what_a_model_without_distances_shows():
    y, score, patients = study(8, 12, sharp=2.0)
    found = assess_calibration(y, score, patients, 5, n_resamples=4, random_state=3)
    cell = np.searchsorted(found.curve.bins.edges[1:-1], score)
    moved = score - y - np.array([(score - y)[cell == code].mean() for code in range(5)])[cell]
    for number, weights in enumerate(patient_weights(patients, 4, 3)):
        weight = weights[patients]
        per_bin = [np.sum((weight * moved)[cell == code]) for code in range(5)]
        n = [weight[cell == code].sum() for code in range(5)]
        assert found.by_chance["ece"][number] == pytest.approx(np.abs(per_bin).sum() / sum(n))
        squares = sum(part**2 / count for part, count in zip(per_bin, n, strict=True))
        assert found.by_chance["reliability"][number] == pytest.approx(squares / sum(n))


@pytest.mark.slow
@pytest.mark.parametrize("sharp", [1.0, 2.0])
def test_intervals_hold_the_calibration_error_of_new_patients(sharp):
    many_y, many_score, _ = study(5000, 20, sharp=sharp, random_state=999)
    held, by_percentiles = [], []
    for number in range(120):
        y, score, patients = study(100, 20, sharp=sharp, random_state=number)
        found = assess_calibration(y, score, patients, n_resamples=200)
        truth = by_loop_of_arrays(many_y, many_score, found.curve.bins.edges)
        low, high = found.interval("ece")
        held.append(low <= truth <= high)
        by_percentiles.append(np.quantile(found.samples["ece"], 0.025) <= truth)
    assert np.mean(held) > 0.88
    if sharp == 1.0:  # percentiles lie above the truth wherever a model is calibrated
        assert np.mean(by_percentiles) < 0.05


def by_loop_of_arrays(y, score, edges):
    cell = np.searchsorted(edges[1:-1], score)
    return sum(abs(np.sum((score - y)[cell == code])) for code in range(len(edges) - 1)) / len(y)


def test_difference_is_paired():
    y, score, patients = study(sharp=2.5)
    raw = assess_calibration(y, score, patients, n_resamples=300)
    calibrated = assess_calibration(y, expit(np.log(score / (1 - score)) / 2.5), patients, n_resamples=300)
    value, low, high = calibrated.difference(raw, "brier")
    change = calibrated.samples["brier"] - raw.samples["brier"]
    assert value == pytest.approx(calibrated.values["brier"] - raw.values["brier"])
    df = min(len(set(patients[y == code])) for code in (0, 1)) - 1
    assert (low, high) == pytest.approx(t_by_hand(value, change, 20, df, "linear"))
    assert high < 0
    expected = t_by_hand(raw.values["brier"], raw.samples["brier"], 20, df, "log")
    assert raw.interval("brier") == pytest.approx(expected)
    # Unpaired, the two would overlap.
    assert calibrated.interval("brier")[1] > raw.interval("brier")[0]
    value, low, high = calibrated.difference(raw, "ece")
    assert low < value < 0
    with pytest.raises(ValueError, match=r"resamples of these 20 patients, got others \(10 of 20 patients\)"):
        raw.difference(assess_calibration(y, score, patients, n_resamples=10), "brier")
    with pytest.raises(ValueError, match=r"got others \(300 of 20 patients\)"):
        raw.difference(assess_calibration(y, score, patients, n_resamples=300, random_state=1), "brier")


def test_one_patient_has_no_interval():
    found = assess_calibration([0, 1, 0], [0.1, 0.8, 0.4], ["a"] * 3, 2, n_resamples=20)
    assert np.isnan(found.interval("ece")).all()
    assert np.isnan(found.curve.low).all()
    none = assess_calibration([0, 1, 0], [0.1, 0.8, 0.4], list("abc"), 2, n_resamples=0)
    assert np.isnan(none.interval("brier")).all()
    assert np.isnan(none.curve.high).all()


def test_measures_refuse_what_is_no_probability():
    with pytest.raises(ValueError, match=r"assess_calibration.score: expected probabilities .*, got nan in row 1"):
        measured([0, 1], [0.5, np.nan])
    with pytest.raises(ValueError, match=r"assess_calibration.score: .* got \(2, 3\). .* one against the rest"):
        measured([0, 1], np.full((2, 3), 1 / 3))
    with pytest.raises(ValueError, match=r"assess_calibration.y: expected class codes from 0 to 1, got 2 in row 1"):
        measured([0, 2], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"assess_calibration.n_bins: expected a whole number of at least 1, got 0"):
        measured([0, 1], [0.5, 0.5], 0)
    with pytest.raises(ValueError, match=r"assess_calibration.strategy: expected one of .*, got 'equal'"):
        measured([0, 1], [0.5, 0.5], 2, "equal")


def test_assessment_refusals():
    with pytest.raises(ValueError, match=r"assess_calibration.level: expected a number between 0 and 1, got 95"):
        assess_calibration([0, 1], [0.5, 0.5], ["a", "b"], level=95)
    with pytest.raises(ValueError, match=r"CalibrationAssessment.level: expected .*, got 1"):
        assess_calibration([0, 1], [0.5, 0.5], ["a", "b"], n_resamples=5).interval("ece", level=1)
    with pytest.raises(ValueError, match=r"assess_calibration.score: expected probabilities .*, got 1.2 in row 0"):
        assess_calibration([0, 1], [1.2, 0.5], ["a", "b"])


def lines_by_search(y, score):
    """Slope, and intercept at a slope of 1, by a general search for the highest likelihood."""
    odds = np.log(score / (1 - score))

    def loss(line, slope=None):
        value = line[-1] + (line[0] if slope is None else slope) * odds
        return np.sum(np.log1p(np.exp(value)) - y * value)

    free = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    fixed = minimize(loss, [0.0], args=(1.0,), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    return free.x[0], fixed.x[0]


def test_slope_and_intercept_by_hand():
    # A quarter and three quarters are positive, where the model says 0.1 and 0.9: half of its log-odds are right.
    y, patients = np.array([0, 0, 0, 1, 1, 1, 1, 0] * 3), np.repeat(list("abcdef"), 4)
    found = assess_calibration(y, np.where(np.arange(24) % 8 < 4, 0.1, 0.9), patients, n_resamples=50)
    assert found.values["slope"] == pytest.approx(0.5)
    assert found.values["intercept"] == pytest.approx(0, abs=1e-9)
    found = assess_calibration([1, 1, 1, 0] * 4, np.full(16, 0.5), np.repeat(list("abcd"), 4), n_resamples=50)
    assert found.values["intercept"] == pytest.approx(np.log(3))
    assert np.isnan(found.values["slope"])


def test_slope_and_intercept_are_those_of_highest_likelihood():
    y, score, patients = study(sharp=2.5)
    found = assess_calibration(y, score, patients, n_resamples=300)
    assert (found.values["slope"], found.values["intercept"]) == pytest.approx(lines_by_search(y, score), abs=1e-5)
    ids, weights = np.unique(patients), patient_weights(patients, 300, 0)
    again = []
    for drawn in weights[:12]:
        rows = np.concatenate([np.flatnonzero(patients == ids[j]) for j in np.repeat(np.arange(len(ids)), drawn)])
        again.append(lines_by_search(y[rows], score[rows]))
    one_step = np.column_stack([found.samples["slope"], found.samples["intercept"]])[:12]
    spread = one_step.std(axis=0)
    assert (np.abs(one_step - again) < 0.3 * spread).all()
    for name in ("slope", "intercept"):
        half = stats.t.ppf(0.975, min(found.carriers) - 1) * found.samples[name].std(ddof=1)
        half *= np.sqrt(found.n_patients / (found.n_patients - 1))
        assert found.interval(name) == pytest.approx((found.values[name] - half, found.values[name] + half))


@pytest.mark.parametrize(
    ("y", "score", "undefined"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], {"slope"}),
        ([1, 1, 0, 0], [0.1, 0.2, 0.8, 0.9], {"slope"}),
        ([0, 0, 0, 0], [0.1, 0.2, 0.8, 0.9], {"slope", "intercept"}),
    ],
)
def test_slope_of_separated_or_single_classes_is_undefined(y, score, undefined):
    found = assess_calibration(y * 3, score * 3, np.repeat(list("abcdef"), 2), n_resamples=20)
    assert {name for name in ("slope", "intercept") if np.isnan(found.values[name])} == undefined
    assert all(np.isnan(found.interval(name)).all() for name in undefined)
