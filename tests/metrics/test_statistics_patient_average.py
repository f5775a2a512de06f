"""Averages over patients against a loop with scikit-learn, their resamples, and who is left out."""

import numpy as np
import pytest
from test_bootstrap import t_by_hand
from test_metrics import by_scikit_learn, predictions

from histofeat.exceptions import GroupLeakageError
from histofeat.metrics import LABEL_METRICS, METRICS, bootstrap_scores, patient_averages, patient_weights, score_folds


def cohort(n_classes=2, ties=True):
    """Fourteen patients with unequal numbers of patches; patients 3 and 99 lack a class."""
    y, proba = predictions(420, n_classes, ties)
    patients = np.sort(np.random.default_rng(1).integers(0, 14, 420)) + 90
    y[patients == 93] = 0
    y[(patients == 99) & (y == 1)] = 0
    return y, proba, patients


@pytest.mark.parametrize(("n_classes", "ties"), [(2, True), (2, False), (3, False)])
def test_values_of_each_patient_are_what_scikit_learn_gives(n_classes, ties):
    y, proba, patients = cohort(n_classes, ties)
    predicted = np.random.default_rng(2).integers(0, n_classes, len(y))
    found = patient_averages(y, proba, patients, predicted=predicted, n_resamples=40, random_state=5)
    assert found.patients == tuple(str(patient) for patient in range(90, 104) if patient not in (93, 99))
    assert found.n_left_out == 2
    every = []
    for patient in found.patients:
        rows = patients == int(patient)
        every.append(by_scikit_learn(y[rows], proba[rows], predicted[rows]))
    for metric in METRICS:
        expected = [values[metric] for values in every]
        np.testing.assert_allclose(found.values[metric], expected, atol=1e-12, err_msg=metric)
        assert found.mean(metric) == pytest.approx(np.mean(expected))
        assert not found.values[metric].flags.writeable


def test_resamples_are_those_of_the_scores_of_all_patches():
    y, proba, patients = cohort()
    found = patient_averages(y, proba, patients, n_resamples=60, random_state=5)
    weights = patient_weights(patients, 60, 5)
    kept = [number for number in range(14) if number not in (3, 9)]
    for metric in ("roc_auc", "f1", "brier"):
        for resample in range(60):
            drawn = np.repeat(found.values[metric], weights[resample, kept])  # a patient drawn twice counts twice
            assert found.resamples.samples[metric][resample] == pytest.approx(drawn.mean())
    low, high = found.interval("f1")
    assert (low, high) == pytest.approx(t_by_hand(found.mean("f1"), found.resamples.samples["f1"], 12, 11))
    assert low < found.mean("f1") < high
    assert found.interval("f1", 0.5)[0] > low


def test_large_patients_weigh_no_more_than_small_ones():
    y = np.r_[np.tile([0, 1], 200), 0, 1]
    positive = np.r_[np.tile([0.2, 0.8], 200), 0.9, 0.1]  # 400 patches ranked right, 2 ranked wrong
    proba = np.column_stack([1 - positive, positive])
    found = patient_averages(y, proba, ["large"] * 400 + ["small"] * 2, n_resamples=10)
    assert found.mean("roc_auc") == 0.5
    assert found.mean("accuracy") == 0.5


def test_a_shift_between_patients_costs_the_pooled_score_and_not_the_average():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(20), 30)
    y = rng.integers(0, 2, 600)
    positive = np.clip(0.04 * patients + 0.1 * y + 0.02 * rng.random(600), 0, 1)
    proba = np.column_stack([1 - positive, positive])
    scored, _ = score_folds(y, proba, y, patients, [np.arange(600)], metrics=("roc_auc",), n_resamples=50)
    assert scored["roc_auc"].patient_mean == 1.0
    assert scored["roc_auc"].value == scored["roc_auc"].pooled < 0.75


def test_a_resample_without_any_averaged_patient_is_dropped_and_counted():
    patients = np.repeat(np.arange(4), 5)
    y = np.r_[0, 1, 0, 1, 0, 0, 1, 0, 1, 1, np.zeros(10, dtype=int)]
    proba = np.column_stack([np.linspace(0.1, 0.9, 20), np.linspace(0.9, 0.1, 20)])
    found = patient_averages(y, proba, patients, n_resamples=500)
    nobody = patient_weights(patients, 500)[:, :2].sum(axis=1) == 0
    assert found.resamples.n_dropped == nobody.sum() > 0
    np.testing.assert_array_equal(np.isnan(found.resamples.samples["f1"]), nobody)
    assert np.isfinite(found.interval("f1")).all()


def test_patients_of_one_class_each_have_no_average():
    """The labels of BreakHis: a patient is benign or malignant."""
    found = patient_averages([0, 0, 1, 1], [[0.6, 0.4]] * 4, list("aabb"), n_resamples=10)
    assert (found.patients, found.n_left_out) == ((), 2)
    for metric in METRICS:
        assert np.isnan([found.mean(metric), *found.interval(metric)]).all()


def test_one_patient_has_an_average_and_no_interval():
    found = patient_averages([0, 1, 0, 0], [[0.6, 0.4], [0.3, 0.7]] * 2, list("aabb"), n_resamples=10)
    assert (found.mean("roc_auc"), found.n_left_out) == (1.0, 1)
    assert np.isnan(found.interval("roc_auc")).all()


def test_only_what_is_asked_for_and_threads_change_nothing():
    y, proba, patients = cohort()
    labels = patient_averages(y, proba, patients, metrics=LABEL_METRICS, n_resamples=20)
    assert tuple(labels.values) == tuple(labels.resamples.samples) == LABEL_METRICS
    one, two = (patient_averages(y, proba, patients, n_resamples=20, n_jobs=n_jobs) for n_jobs in (None, 2))
    for metric in METRICS:
        np.testing.assert_array_equal(one.resamples.samples[metric], two.resamples.samples[metric])


def test_refusals():
    y, proba, patients = cohort()
    with pytest.raises(ValueError, match=r"patient_averages.metrics: expected one of roc_auc, .* got 'auc'"):
        patient_averages(y, proba, patients, metrics=("auc",))
    with pytest.raises(ValueError, match="proba: expected probabilities"):
        patient_averages(y, proba * np.nan, patients)
    with pytest.raises(ValueError, match="predicted: expected class codes from 0 to 1, got -1"):
        patient_averages(y, proba, patients, predicted=np.full(len(y), -1))
    with pytest.raises(GroupLeakageError, match="one patient id for each of 420 patches"):
        patient_averages(y, proba, patients[1:])


def test_scores_of_folds_carry_both_and_give_the_resamples_back():
    y, proba, patients = cohort()
    predicted = proba.argmax(axis=1)
    tests = [np.flatnonzero(patients < 96), np.flatnonzero((patients >= 96) & (patients < 102))]
    tested = patients < 102
    y, proba, predicted = y.copy(), proba.copy(), predicted.copy()
    proba[~tested], predicted[~tested] = np.nan, -1
    scored, resamples = score_folds(y, proba, predicted, patients, tests, n_resamples=80, random_state=2)
    known = y[tested], proba[tested], patients[tested]
    averages = patient_averages(*known, n_resamples=80, random_state=2)
    fold = (known[2] >= 96).astype(int)
    expected = bootstrap_scores(*known, n_resamples=80, random_state=2, fold=fold)
    for metric in METRICS:
        score = scored[metric]
        assert (score.patient_mean, score.patient_mean_ci95) == (averages.mean(metric), averages.interval(metric))
        assert (score.n_patients_averaged, score.n_patients_left_out) == (10, 2)
        np.testing.assert_array_equal(resamples.samples[metric], expected.samples[metric])
        assert score.ci95 == resamples.interval(metric)
