"""Resampling patients: resamples against scikit-learn on repeated rows, and what intervals promise."""

import numpy as np
import pytest
from test_metrics import by_scikit_learn, predictions

from histofeat.exceptions import GroupLeakageError
from histofeat.metrics import LABEL_METRICS, METRICS, bootstrap_scores, patient_weights, scores


def cohort(n=240, n_patients=12, n_classes=2, ties=True):
    """Return predictions of patients with unequal numbers of patches."""
    y, proba = predictions(n, n_classes, ties)
    patients = np.sort(np.random.default_rng(1).integers(0, n_patients, n)) + 95
    return y, proba, patients


@pytest.mark.parametrize(("n_classes", "ties"), [(2, True), (2, False), (4, False)])
def test_resamples_are_what_scikit_learn_gives_on_repeated_rows(n_classes, ties):
    y, proba, patients = cohort(n_classes=n_classes, ties=ties)
    predicted = np.random.default_rng(2).integers(0, n_classes, len(y))
    found = bootstrap_scores(y, proba, patients, predicted=predicted, n_resamples=70, random_state=5)
    weights = patient_weights(patients, 70, 5)
    ids = np.unique(patients)
    assert found.n_dropped == 0
    for resample in (0, 1, 17, 63, 64, 69):  # the compiled loop takes 64 at a time
        rows = np.concatenate([np.flatnonzero(patients == ids[j]) for j in np.repeat(np.arange(12), weights[resample])])
        expected = by_scikit_learn(y[rows], proba[rows], predicted[rows])
        for metric in METRICS:
            assert found.samples[metric][resample] == pytest.approx(expected[metric], abs=1e-12), metric


def test_interval_is_the_percentiles_of_the_resamples_and_covers_the_score():
    y, proba, patients = cohort()
    found = bootstrap_scores(y, proba, patients)
    point = scores(y, proba)
    for metric in METRICS:
        low, high = found.interval(metric)
        assert (low, high) == pytest.approx(tuple(np.quantile(found.samples[metric], [0.025, 0.975])))
        assert low < point[metric] < high
        assert found.n_used(metric) == 2000
    narrow, wide = found.interval("f1", 0.5), found.interval("f1", 0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_weights_are_whole_draws_and_shared_by_models():
    y, proba, patients = cohort()
    weights = patient_weights(patients, 100, 3)
    assert weights.shape == (100, 12)
    assert weights.dtype == np.int64
    assert (weights.sum(axis=1) == 12).all()
    # Text ids, another row order and another model: the same resamples.
    order = np.random.default_rng(0).permutation(len(y))
    np.testing.assert_array_equal(weights, patient_weights(patients[order].astype(str), 100, 3))
    first = bootstrap_scores(y, proba, patients, n_resamples=100, random_state=3)
    again = bootstrap_scores(y[order], proba[order], patients[order].astype(str), n_resamples=100, random_state=3)
    for metric in METRICS:
        np.testing.assert_allclose(first.samples[metric], again.samples[metric], rtol=1e-12)
    assert (weights != patient_weights(patients, 100, 4)).any()


def test_paired_differences_vary_less_than_unpaired_ones():
    y, proba, patients = cohort(n=600, n_patients=30, ties=False)
    other = 0.9 * proba + 0.1 * proba[:, ::-1] * np.random.default_rng(0).random((600, 1))
    other /= other.sum(axis=1, keepdims=True)
    first, second, unpaired = (
        bootstrap_scores(y, p, patients, n_resamples=500, random_state=seed).samples["roc_auc"]
        for p, seed in ((proba, 0), (other, 0), (other, 1))
    )
    assert np.std(first - second) < 0.5 * np.std(first - unpaired)


def test_threads_change_nothing():
    y, proba, patients = cohort()
    one, two = (bootstrap_scores(y, proba, patients, n_resamples=300, n_jobs=n_jobs) for n_jobs in (None, 2))
    for metric in METRICS:
        np.testing.assert_array_equal(one.samples[metric], two.samples[metric])


def test_some_metrics_alone_are_the_same_and_read_only():
    y, proba, patients = cohort()
    every, labels = (
        bootstrap_scores(y, proba, patients, n_resamples=50, metrics=metrics) for metrics in (METRICS, LABEL_METRICS)
    )
    assert tuple(labels.samples) == LABEL_METRICS
    for metric in LABEL_METRICS:
        np.testing.assert_array_equal(every.samples[metric], labels.samples[metric])
        assert not labels.samples[metric].flags.writeable


def test_resamples_in_which_a_class_vanishes_are_dropped_and_counted():
    patients = np.repeat(np.arange(4), 5)
    y = (patients == 0).astype(int)  # only the first patient is positive
    proba = np.column_stack([1 - 0.04 * np.arange(20), 0.04 * np.arange(20)])
    found = bootstrap_scores(y, proba, patients, n_resamples=400)
    drawn = patient_weights(patients, 400)[:, 0] > 0
    vanished = ~drawn | (patient_weights(patients, 400)[:, 1:].sum(axis=1) == 0)
    assert found.n_dropped == vanished.sum() > 0
    for metric in METRICS:
        np.testing.assert_array_equal(np.isnan(found.samples[metric]), vanished)
        assert found.n_used(metric) == 400 - found.n_dropped


def test_a_class_that_was_never_there_drops_nothing():
    found = bootstrap_scores([0] * 4, [[0.7, 0.3]] * 4, list("aabb"), n_resamples=20)
    assert found.n_dropped == 0
    assert found.interval("accuracy") == (1.0, 1.0)
    assert np.isnan(found.interval("roc_auc")).all()


def test_one_patient_has_no_interval():
    y, proba = predictions(n=20)
    assert np.isnan(bootstrap_scores(y, proba, ["a"] * 20, n_resamples=20).interval("accuracy")).all()


def test_no_resamples_give_no_intervals():
    y, proba, patients = cohort()
    found = bootstrap_scores(y, proba, patients, n_resamples=0)
    assert all(np.isnan(found.interval(metric)).all() for metric in METRICS)


def test_intervals_by_patient_are_wider_than_by_patch():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(20), 100)
    hard = np.repeat(rng.random(20) < 0.5, 100)  # a patient is either easy or hopeless
    y = rng.integers(0, 2, 2000)
    positive = np.where(hard, 0.5, 0.2 + 0.6 * y) + 0.1 * rng.random(2000)
    proba = np.column_stack([1 - positive, positive])
    widths = [
        np.diff(bootstrap_scores(y, proba, ids, n_resamples=500).interval("accuracy"))[0]
        for ids in (patients, np.arange(2000))
    ]
    assert widths[0] > 4 * widths[1]


def test_refusals():
    y, proba, patients = cohort()
    with pytest.raises(ValueError, match=r"patient_weights.n_resamples: expected a whole number .* got -1"):
        bootstrap_scores(y, proba, patients, n_resamples=-1)
    with pytest.raises(ValueError, match=r"patient_weights.n_resamples: .* got 2.5"):
        patient_weights(patients, 2.5)
    with pytest.raises(ValueError, match=r"patient_weights.random_state: .* got None\. Use a fixed number"):
        patient_weights(patients, 10, None)
    with pytest.raises(ValueError, match=r"bootstrap_scores.metrics: expected some of roc_auc, .* got 'auc'"):
        bootstrap_scores(y, proba, patients, metrics=("auc",))
    with pytest.raises(ValueError, match=r"Bootstrap.interval.level: expected a number between 0 and 1, got 95"):
        bootstrap_scores(y, proba, patients, n_resamples=2).interval("f1", 95)
    with pytest.raises(GroupLeakageError, match="patients: expected one patient id for each of 240 patches"):
        bootstrap_scores(y, proba, patients[1:])
    with pytest.raises(ValueError, match="proba: expected probabilities"):
        bootstrap_scores(y, proba * np.nan, patients)
    with pytest.raises(ValueError, match="predicted: expected class codes from 0 to 1, got -1"):
        bootstrap_scores(y, proba, patients, predicted=np.full(240, -1))
