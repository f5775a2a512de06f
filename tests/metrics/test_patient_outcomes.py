"""Patients as units: areas by loops over pairs, exact shares by scipy, variances by deleting patients."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from histofeat.metrics import patient_outcomes, scores


def study(n_patients=40, n_classes=2, random_state=0):
    """Patients of one label each, three to seven patches of a patient."""
    rng = np.random.default_rng(random_state)
    label = rng.integers(0, n_classes, n_patients)
    patients = np.repeat(np.arange(n_patients), rng.integers(3, 8, n_patients))
    proba = rng.dirichlet(np.ones(n_classes), n_patients)[patients] + 0.25 * np.eye(n_classes)[label[patients]]
    proba += rng.uniform(0, 0.2, proba.shape)
    return label[patients], proba / proba.sum(axis=1, keepdims=True), patients


def outcome(*arguments, **more):
    """The only row of two classes."""
    [found] = patient_outcomes(*arguments, **more).itertuples()
    return found


def ends(row, name):
    return getattr(row, f"{name}_low"), getattr(row, f"{name}_high")


def by_patient(y, proba, patients):
    ids = np.unique(patients)
    return np.array([y[patients == i][0] for i in ids]), np.array([proba[patients == i].mean(axis=0) for i in ids])


@pytest.mark.parametrize("n_classes", [2, 3])
def test_outcomes_are_those_of_one_row_per_patient(n_classes):
    y, proba, patients = study(n_classes=n_classes)
    label, mean = by_patient(y, proba, patients)
    found = patient_outcomes(y, proba, patients)
    assert found["code"].tolist() == ([1] if n_classes == 2 else [0, 1, 2])
    for one in found.itertuples():
        positive, called = label == one.code, mean.argmax(axis=1) == one.code
        assert (one.n_positive, one.n_negative) == (positive.sum(), (~positive).sum())
        assert one.roc_auc == pytest.approx(roc_auc_score(positive, mean[:, one.code]))
        exact = stats.binomtest(int(called[positive].sum()), int(positive.sum())).proportion_ci(0.95, "exact")
        assert one.sensitivity == pytest.approx(called[positive].mean())
        assert ends(one, "sensitivity") == pytest.approx((exact.low, exact.high))
        exact = stats.binomtest(int((~called)[~positive].sum()), int((~positive).sum())).proportion_ci(0.95, "exact")
        assert ends(one, "specificity") == pytest.approx((exact.low, exact.high))
        assert ends(one, "roc_auc")[0] < one.roc_auc < ends(one, "roc_auc")[1]


def test_folds_are_not_compared_and_the_variance_is_that_of_resampled_patients():
    y, proba, patients = study(n_patients=120)
    fold = patients % 4
    proba[:, 1] = proba[:, 1] / 2 + fold / 8  # the folds are on different scales
    proba[:, 0] = 1 - proba[:, 1]
    label, mean = by_patient(y, proba, patients)
    folds = np.arange(120) % 4
    found = outcome(y, proba, patients, fold=fold)
    pairs = [(i, j) for i in np.flatnonzero(label) for j in np.flatnonzero(label == 0) if folds[i] == folds[j]]
    assert found.roc_auc == pytest.approx(np.mean([mean[i, 1] > mean[j, 1] for i, j in pairs]))
    assert found.roc_auc > outcome(y, proba, patients).roc_auc + 0.05
    # Patients of each class drawn again, each with its fold.
    rng, cells = np.random.default_rng(0), [np.flatnonzero(label == code) for code in (0, 1)]
    drawn = [np.concatenate([rng.choice(cell, len(cell)) for cell in cells]) for _ in range(1000)]
    again = [scores(label[rows], mean[rows], fold=folds[rows])["roc_auc"] for rows in drawn]
    half = stats.t.ppf(0.975, min(found.n_positive, found.n_negative) - 1) / (found.roc_auc * (1 - found.roc_auc))
    odds = [np.log(end / (1 - end)) for end in ends(found, "roc_auc")]
    assert np.ptp(odds) / 2 / half == pytest.approx(np.std(again), rel=0.1)


def test_single_patients_and_perfect_patients_have_no_interval_that_looks_fine():
    proba = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.2, 0.8]])
    found = outcome([0, 0, 0, 1], proba, list("abcd"))
    assert (found.roc_auc, found.sensitivity) == (1.0, 1.0)
    assert np.isnan(ends(found, "roc_auc")).all()
    assert ends(found, "sensitivity") == pytest.approx((0.025, 1.0))
    found = outcome([0, 0, 1, 1], proba[[0, 1, 3, 3]], list("abcd"))
    assert ends(found, "roc_auc") == pytest.approx((0.025**0.5, 1.0))
    found = outcome([0, 0, 1, 1], np.full((4, 2), 0.5), list("abcd"))
    assert found.roc_auc == 0.5
    assert np.isnan(ends(found, "roc_auc")).all()
    found = outcome([0, 0], proba[:2], list("ab"))
    assert np.isnan([found.roc_auc, found.sensitivity, *ends(found, "sensitivity")]).all()
    with pytest.raises(ValueError, match=r"patient_scores.y: expected one label per patient, got both for patient 'a'"):
        patient_outcomes([0, 1, 1, 1], proba, list("aabc"))
