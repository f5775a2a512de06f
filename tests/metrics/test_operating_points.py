"""Predictive values, sensitivity at a specificity and net benefit, against loops over patches and real resamples."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_curve

from histofeat.evaluation import predictive_values
from histofeat.metrics import bootstrap_scores, curve_bands, decision_curve, patient_weights, sensitivity_at


def study(n=240, n_patients=12, n_classes=2, random_state=0):
    rng = np.random.default_rng(random_state)
    y = rng.integers(0, n_classes, n)
    proba = rng.dirichlet(np.ones(n_classes), n) + 0.25 * np.eye(n_classes)[y]
    patients = np.sort(rng.integers(0, n_patients, n))
    return y, np.round(proba / proba.sum(axis=1, keepdims=True), 3), patients


def repeated(patients, drawn):
    ids = np.unique(patients)
    return np.concatenate([np.flatnonzero(patients == ids[j]) for j in np.repeat(np.arange(len(ids)), drawn)])


def test_predictive_values_are_shares_of_a_population_with_that_prevalence():
    y, proba, patients = study()
    found = bootstrap_scores(y, proba, patients, n_resamples=60)
    values = predictive_values(found, 0.02)
    called = proba[:, 1] > 0.5
    # Count patches, positives weighing so much that they are 2 in 100.
    weight = np.where(y == 1, 0.02 / np.mean(y == 1), 0.98 / np.mean(y == 0))
    right = weight * (called == (y == 1))
    assert values.estimates["ppv"] == pytest.approx(right[called].sum() / weight[called].sum())
    assert values.estimates["npv"] == pytest.approx(right[~called].sum() / weight[~called].sum())
    rows = repeated(patients, patient_weights(patients, 60, 0)[7])
    hit, alarm = called[rows][y[rows] == 1].mean(), called[rows][y[rows] == 0].mean()
    assert values.samples["ppv"][7] == pytest.approx(hit * 0.02 / (hit * 0.02 + alarm * 0.98))
    low, high = values.interval("ppv")
    assert 0 < low < values.estimates["ppv"] < high < 1
    # At the prevalence of these patches it is their precision.
    same = predictive_values(found, np.mean(y == 1))
    assert same.estimates["ppv"] == pytest.approx(found.estimates["precision"])


def test_predictive_values_need_a_prevalence_and_two_classes():
    found = bootstrap_scores(*study(), n_resamples=5)
    for prevalence in (0, 1, 5, np.nan):
        with pytest.raises(ValueError, match=r"predictive_values.prevalence: expected a share between 0 and 1 .*, got"):
            predictive_values(found, prevalence)
    with pytest.raises(ValueError, match=r"expected a share between 0 and 1 for two classes, got 0.1 for 3"):
        predictive_values(bootstrap_scores(*study(n_classes=3), n_resamples=5), 0.1)
    never = bootstrap_scores([0, 1, 0, 1], [[0.9, 0.1]] * 4, list("aabb"), n_resamples=5)
    assert np.isnan(predictive_values(never, 0.1).estimates["ppv"])


def test_sensitivity_at_a_specificity_lies_on_scikit_learns_curve():
    y, proba, patients = study()
    bands = curve_bands(y, proba, patients, n_resamples=80)
    fpr, tpr, _ = roc_curve(y, proba[:, 1], drop_intermediate=False)
    value, low, high = sensitivity_at(bands, 0.9, 12)
    assert value == pytest.approx(np.interp(0.1, fpr, tpr), abs=1e-9)
    samples = bands.resampled["roc"][:, 1, 10]
    half = stats.t.ppf(0.975, 11) * samples.std(ddof=1) * np.sqrt(12 / 11) / (value * (1 - value))
    odds = value / (1 - value)
    assert (low, high) == pytest.approx(tuple(1 / (1 + 1 / (odds * np.exp(side))) for side in (-half, half)))
    assert np.isnan(sensitivity_at(bands, 0.9, 1)[1])
    for specificity in (0.955, 0.0, 1.0, 95, np.nan):
        with pytest.raises(ValueError, match=r"sensitivity_at.specificity: expected a whole percentage .*, got"):
            sensitivity_at(bands, specificity, 12)


def test_sensitivity_at_a_specificity_of_more_classes_is_the_mean():
    y, proba, patients = study(n_classes=3)
    bands = curve_bands(y, proba, patients, n_resamples=40)
    each = [sensitivity_at(bands, 0.95, 12, code) for code in range(3)]
    value, low, high = sensitivity_at(bands, 0.95, 12)
    assert value == pytest.approx(np.mean([one[0] for one in each]))
    assert low < value < high
    assert high - low < np.mean([one[2] - one[1] for one in each])


def benefit_by_loop(y, score, threshold):
    gain = 0.0
    for label, value in zip(y, score, strict=True):
        if value >= threshold:
            gain += 1 if label else -threshold / (1 - threshold)
    return gain / len(y)


def test_net_benefit_is_that_of_a_loop():
    y, proba, patients = study()
    score, thresholds = proba[:, 1], (0.1, 0.25, float(proba[3, 1]), 0.7)
    thresholds = tuple(sorted(thresholds))
    curve = decision_curve(y, score, patients, thresholds, n_resamples=50, random_state=3)
    drawn = [repeated(patients, drawn) for drawn in patient_weights(patients, 50, 3)]
    for number, threshold in enumerate(thresholds):
        value = benefit_by_loop(y, score, threshold)
        assert curve.net_benefit[number] == pytest.approx(value)
        assert curve.treat_all[number] == pytest.approx(benefit_by_loop(y, np.ones(len(y)), threshold))
        spread = np.std([benefit_by_loop(y[rows], score[rows], threshold) for rows in drawn], ddof=1)
        half = stats.t.ppf(0.975, 11) * spread * np.sqrt(12 / 11)
        assert (curve.low[number], curve.high[number]) == pytest.approx((value - half, value + half))
    assert curve["threshold"].tolist() == list(thresholds)


def test_net_benefit_of_few_carriers_has_no_band_and_bad_thresholds_are_refused():
    y, patients = np.r_[1, np.zeros(11, dtype=int)], np.repeat(list("abcdef"), 2)
    curve = decision_curve(y, np.linspace(0, 1, 12), patients, n_resamples=20)
    assert np.isnan(curve.low).all()
    assert np.isfinite(curve.net_benefit).all()
    for thresholds in ((0.5, 0.4), (0.0, 0.5), (0.5, 1.0), (), (np.nan,)):
        with pytest.raises(ValueError, match=r"decision_curve.thresholds: expected rising numbers between 0 and 1"):
            decision_curve(y, np.linspace(0, 1, 12), patients, thresholds)
