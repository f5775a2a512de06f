"""How well features recognise the patient: against scikit-learn, against a loop, and where there is nothing to find."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler
from test_bootstrap import t_by_hand

from histofeat.metrics import patient_weights
from histofeat.studies import identify_patients
from histofeat.studies._leakage import nearest_mean


def stained(n_patients, n_patches, spread, seed=0, n_columns=6):
    """Features with a mean of each patient, and patient ids."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(100, 100 + n_patients), n_patches)
    means = np.repeat(rng.normal(0, spread, (n_patients, n_columns)), n_patches, axis=0)
    return means + rng.normal(0, 1, means.shape) @ rng.normal(0, 1, (n_columns, n_columns)), patients


def test_nearest_mean_is_discriminant_analysis_with_equal_priors():
    features, patients = stained(7, 12, 2.0)
    codes, train = patients - 100, np.tile([True, True, False], 28)
    scaler = StandardScaler().fit(features[train])
    # Scikit-learn shrinks each class towards its own mean variance; with as many rows each that is the same.
    peer = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1, priors=np.full(7, 1 / 7))
    peer.fit(scaler.transform(features[train]), codes[train])
    expected = peer.predict(scaler.transform(features[~train]))
    found = nearest_mean(features[train], codes[train], features[~train])
    np.testing.assert_array_equal(found, expected)
    assert 0.3 < np.mean(found == codes[~train]) < 1


def test_columns_without_spread_do_no_harm():
    features, patients = stained(5, 10, 3.0)
    constant = np.hstack([features, np.full((50, 2), 7.0)])
    both = [identify_patients(given, patients, n_resamples=0).accuracy for given in (features, constant)]
    assert both[0] == pytest.approx(both[1], abs=0.1)
    assert identify_patients(np.zeros((50, 3)), patients, n_resamples=0).accuracy == pytest.approx(0.2)
    # Every patient is a point of its own: no spread within, and no doubt.
    assert identify_patients(patients[:, np.newaxis] * 1.0, patients, n_resamples=0).accuracy == 1


def test_features_without_a_patient_are_at_chance():
    rng = np.random.default_rng(0)
    found = identify_patients(rng.normal(size=(1200, 5)), np.repeat(np.arange(60), 20), n_resamples=500)
    assert found.ci95[0] < found.chance == 1 / 60 < found.ci95[1]
    known, patients = stained(60, 20, 4.0)
    recognised = identify_patients(known, patients, n_resamples=500, family="stains")
    assert recognised.ci95[0] > 0.5
    assert (recognised.family, recognised.n_features, recognised.n_patients) == ("stains", 6, 60)


def test_patients_are_balanced_and_small_ones_left_out():
    features, patients = stained(6, 30, 3.0)
    keep = np.ones(180, dtype=bool)
    keep[9:30] = False  # the first patient keeps nine patches
    found = identify_patients(features[keep], patients[keep], n_resamples=0)
    assert (found.n_patients, found.chance, found.patches_per_patient) == (5, 0.2, 10)
    assert found.accuracy * 50 == pytest.approx(round(found.accuracy * 50))
    assert np.isnan(found.ci95).all()
    more = identify_patients(features[keep], patients[keep], patches_per_patient=7, n_resamples=0)
    assert more.n_patients == 6
    # Patients are text or numbers, rows in any order: the seed alone decides which patches are drawn.
    again = identify_patients(features[keep], patients[keep].astype(str), n_resamples=0)
    assert again == found


def test_the_interval_is_that_of_a_loop_over_resamples():
    features, patients = stained(9, 10, 2.0)
    found = identify_patients(features, patients, n_resamples=300, random_state=3)
    rng = np.random.default_rng(3)
    right = np.zeros((9, 10))
    rows = np.array([rng.permutation(np.flatnonzero(patients == 100 + code))[:10] for code in range(9)])
    for fold in range(5):
        test = rows[:, fold::5]
        train = np.delete(rows, [fold, fold + 5], axis=1)
        codes = np.repeat(np.arange(9), 8)
        named = nearest_mean(features[train.ravel()], codes, features[test.ravel()]).reshape(9, 2)
        right[:, fold::5] = named == np.arange(9)[:, np.newaxis]
    assert found.accuracy == pytest.approx(right.mean())
    means = [np.repeat(right.mean(axis=1), weights).mean() for weights in patient_weights(range(9), 300, 3)]
    assert found.ci95 == pytest.approx(t_by_hand(found.accuracy, means, 9, 8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.zeros(60)}, r"features: expected finite numbers of shape \(n, d\), got shape \(60,\)"),
        ({"features": np.full((60, 2), np.nan)}, r"features: expected finite numbers .* with 120 that are not finite"),
        ({"patches_per_patient": 4}, "patches_per_patient: expected a whole number of at least 5, got 4"),
        ({"patches_per_patient": 11}, "two patients or more with 11 patches, got 0 of 6; the most are 10 patches"),
    ],
)
def test_what_cannot_be_identified_is_refused(change, message):
    features, patients = stained(6, 10, 1.0)
    arguments = {"features": features, "patients": patients, **change}
    with pytest.raises(ValueError, match=message):
        identify_patients(**arguments)
