"""Prediction sets against MAPIE and loops, their promise in a simulation, and what cannot be calibrated."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from mapie.classification import SplitConformalClassifier
from mapie.metrics.classification import classification_coverage_score
from sklearn.base import BaseEstimator, ClassifierMixin
from test_bootstrap import t_by_hand

from histofeat.exceptions import GroupLeakageError
from histofeat.metrics import UNITS, fit_conformal, measure_coverage
from histofeat.metrics._conformal import _one_of_each, hierarchical_quantiles

LEVELS = (0.8, 0.9, 0.95)


def study(n_patients=40, n_classes=2, random_state=0):
    """Patients with few patches, which are hard, and patients with many, which are easy."""
    rng = np.random.default_rng(random_state)
    hard = rng.uniform(size=n_patients) < 0.5
    patients = np.repeat(np.arange(n_patients), np.where(hard, 4, 40))
    y = rng.integers(0, n_classes, len(patients))
    noise = np.where(hard, 2.5, 0.6)[patients]
    values = 2 * np.eye(n_classes)[y] + rng.normal(size=(len(y), n_classes)) * noise[:, None]
    proba = np.exp(values)
    return y, proba / proba.sum(axis=1, keepdims=True), patients


class GivenProbabilities(ClassifierMixin, BaseEstimator):
    """A classifier that takes the class probabilities of another one as features, for MAPIE."""

    def fit(self, X, y=None):
        self.classes_ = np.arange(X.shape[1])
        return self

    def predict_proba(self, X):
        return np.asarray(X)

    def predict(self, X):
        return self.classes_[np.argmax(X, axis=1)]


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("unit", ["patches", "one_per_patient"])
def test_sets_are_mapies(unit, n_classes):
    y, proba, patients = study(n_classes=n_classes)
    predictor = fit_conformal(y, proba, patients, LEVELS, unit, random_state=5)
    rows = np.arange(len(y)) if unit == "patches" else _one_of_each(patients, 5)
    mapie = SplitConformalClassifier(GivenProbabilities().fit(proba), confidence_level=list(LEVELS), prefit=True)
    mapie.conformalize(proba[rows], y[rows])
    expected = mapie.predict_set(proba)[1]
    np.testing.assert_array_equal(predictor.predict_set(proba), expected)
    held = [found.patches for found in measure_coverage(expected, y, patients, LEVELS, n_resamples=0)]
    assert held == pytest.approx(classification_coverage_score(y, expected).ravel().tolist())


@pytest.mark.parametrize("unit", ["patches", "one_per_patient"])
def test_cut_is_the_order_statistic_of_split_conformal(unit):
    y, proba, patients = study()
    found = fit_conformal(y, proba, patients, LEVELS, unit)
    rows = np.arange(len(y)) if unit == "patches" else _one_of_each(patients, 0)
    scores = sorted(1 - proba[i, y[i]] for i in rows)
    expected = [scores[int(np.ceil(round((len(scores) + 1) * level, 9))) - 1] for level in LEVELS]
    assert found.cuts == pytest.approx(tuple(expected))
    assert (found.n_patients, found.n_scores) == (40, len(rows))


@settings(max_examples=100, deadline=None)
@given(
    table=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=40),
    level=st.sampled_from([0.2, 0.5, 0.75, 0.8, 0.9]),
)
def test_hierarchical_quantile_is_that_of_a_loop(table, level):
    _, codes = np.unique([row[0] for row in table], return_inverse=True)
    scores = np.array([row[1] / 10 for row in table])
    n_patients = codes.max() + 1
    expected = np.inf
    for candidate in sorted(scores, reverse=True):
        weight = sum(
            1 / (np.sum(codes == code) * (n_patients + 1))
            for code, score in zip(codes, scores, strict=True)
            if score <= candidate
        )
        if weight >= level - 1e-9:
            expected = candidate
    assert hierarchical_quantiles(scores, codes, [level])[0] == expected


def test_with_one_patch_a_patient_all_units_are_one():
    y, proba, _ = study()
    rows = np.arange(60)
    cuts = [fit_conformal(y[rows], proba[rows], rows, LEVELS, unit).cuts for unit in UNITS]
    assert cuts[1:] == [pytest.approx(cuts[0])] * 2


def test_one_row_of_each_patient_is_drawn_evenly():
    codes = np.array([0, 0, 0, 1, 2, 2])
    drawn = np.array([_one_of_each(codes, seed) for seed in range(600)])
    assert (codes[drawn] == [0, 1, 2]).all()
    share = np.bincount(drawn[:, 0], minlength=3) / 600
    assert share == pytest.approx([1 / 3] * 3, abs=0.06)
    np.testing.assert_array_equal(_one_of_each(codes, 1), _one_of_each(codes, 1))


@pytest.mark.slow
def test_units_of_patients_keep_their_promise_where_that_of_patches_breaks_it():
    """A random patch of a new patient, 80 % asked for: hard patients have few patches, so patches count them little."""
    held = dict.fromkeys(UNITS, 0.0)
    repetitions = 150
    for number in range(repetitions):
        y, proba, patients = study(60, random_state=number)
        seen = patients < 30
        for unit in UNITS:
            predictor = fit_conformal(y[seen], proba[seen], patients[seen], 0.8, unit, random_state=number)
            sets = predictor.predict_set(proba[~seen])
            coverage = measure_coverage(sets, y[~seen], patients[~seen], 0.8, n_resamples=0)[0]
            held[unit] += coverage.patients / repetitions
    assert held["one_per_patient"] == pytest.approx(0.8 + 0.5 / 31, abs=0.03)
    assert held["hierarchical"] > 0.79
    assert held["patches"] < 0.75


def imbalanced(n_patients, random_state):
    """Patients of whose patches one in six is of class 1, which is harder."""
    rng = np.random.default_rng(random_state)
    patients = np.repeat(np.arange(n_patients), rng.integers(6, 30, n_patients))
    y = (rng.random(len(patients)) < 1 / 6).astype(int)
    level = np.where(y == 1, 0.2, -2.0) + rng.normal(0, 0.7, n_patients)[patients] + rng.normal(0, 1, len(y))
    positive = 1 / (1 + np.exp(-level))
    return y, np.column_stack([1 - positive, positive]), patients


@pytest.mark.parametrize("unit", UNITS)
def test_each_class_by_itself_is_a_loop_over_the_classes(unit):
    y, proba, patients = study(n_patients=60, n_classes=3)
    found = fit_conformal(y, proba, patients, LEVELS, unit, 3, per_class=True)
    assert found.per_class
    for code in range(3):
        rows = np.flatnonzero(y == code)
        cases = [rows[patients[rows] == patient] for patient in np.unique(patients[rows])]
        if unit == "patches":
            cases = [[row] for row in rows]
        if unit == "one_per_patient":
            _, codes = np.unique(patients[rows], return_inverse=True)
            cases = [[row] for row in rows[_one_of_each(codes, 3)]]
        weighed = [(1 - proba[row, code], 1 / len(own) / (len(cases) + 1)) for own in cases for row in own]
        for level, cuts in zip(LEVELS, found.cuts, strict=True):
            total, expected = 0.0, np.inf
            for score, weight in sorted(weighed):
                total += weight
                if total >= level - 1e-9:
                    expected = score
                    break
            assert cuts[code] == pytest.approx(expected)
    sets = found.predict_set(proba[:50])
    for row in range(50):
        for number, cuts in enumerate(found.cuts):
            assert sets[row, :, number].tolist() == [1 - proba[row, c] <= cuts[c] + 1e-8 for c in range(3)]
    assert found.to_dict()["cuts"] == [list(cuts) for cuts in found.cuts]


@pytest.mark.slow
def test_a_rare_class_keeps_the_promise_only_where_it_is_calibrated_by_itself():
    held = {False: np.zeros(2), True: np.zeros(2)}
    for number in range(120):
        y, proba, patients = imbalanced(60, number)
        seen = patients < 30
        for per_class, found in held.items():
            predictor = fit_conformal(y[seen], proba[seen], patients[seen], 0.8, per_class=per_class)
            sets = predictor.predict_set(proba[~seen])
            (coverage,) = measure_coverage(sets, y[~seen], patients[~seen], 0.8, n_resamples=0)
            found += np.array(coverage.per_class_patients) / 120
    assert held[False][1] < 0.5 < 0.85 < held[False][0]
    assert (held[True] > 0.79).all()
    assert (held[True] < 0.86).all()


def test_coverage_by_hand():
    sets = np.array([[1, 0], [1, 1], [0, 1], [1, 0], [0, 0]], dtype=bool)[:, :, None]
    y, patients = [0, 1, 1, 1, 0], ["a", "a", "b", "b", "b"]
    found = measure_coverage(sets, y, patients, 0.9, n_resamples=400)[0]
    assert found.patches == pytest.approx(3 / 5)
    assert found.patients == pytest.approx((1 + 1 / 3) / 2)
    assert found.per_class == pytest.approx((1 / 2, 2 / 3))
    assert found.per_class_patients == pytest.approx(((1 + 0) / 2, (1 + 1 / 2) / 2))
    assert found.carriers == (2, 2)
    assert set(found.samples["class_1"].round(6)) == {0.5, 0.666667, 1.0}
    assert found.patients_below == pytest.approx(1 / 2)
    assert (found.one_class, found.empty, found.mean_size) == pytest.approx((3 / 5, 1 / 5, 1.0))
    # The two patients are drawn twice each, or once each.
    assert set(found.samples["patients"].round(6)) == {0.333333, 0.666667, 1.0}
    assert set(found.samples["patches"].round(6)) == {0.333333, 0.6, 1.0}
    assert found.interval("class_1") == pytest.approx(t_by_hand(2 / 3, found.samples["class_1"], 2, 1))
    expected = t_by_hand(2 / 3, found.samples["patients"], 2, 1)
    assert found.interval("patients") == pytest.approx(expected)
    plain = found.to_dict()
    assert (plain["patients_ci95"], plain["per_class"]) == (pytest.approx(list(expected)), [0.5, pytest.approx(2 / 3)])
    assert "samples" not in plain


def test_a_class_that_is_not_there_has_no_coverage_and_one_patient_no_interval():
    found = measure_coverage(np.ones((2, 3, 1), dtype=bool), [0, 1], ["a", "a"], 0.9, n_resamples=10)[0]
    assert np.isnan([found.per_class[2], found.per_class_patients[2], *found.interval("class_2")]).all()
    assert found.carriers == (1, 1, 0)
    assert np.isnan(found.interval("patches")).all()


def test_own_coverage_that_equals_the_level_is_not_below_it():
    sets = np.array([[1, 0]] * 9 + [[0, 1]], dtype=bool)[:, :, None]
    found = measure_coverage(sets, [0] * 10, ["a"] * 10, 1 - 0.1, n_resamples=0)[0]
    assert found.patients_below == 0


def test_a_higher_level_has_larger_sets_and_order_of_levels_does_not_matter():
    y, proba, patients = study()
    for unit in UNITS:
        found = fit_conformal(y, proba, patients, (0.95, 0.8, 0.9, 0.8), unit)
        assert found.levels == LEVELS
        assert list(found.cuts) == sorted(found.cuts)
        assert pickle.loads(pickle.dumps(found)) == found
        assert found.to_dict()["cuts"] == list(found.cuts)


def test_rounded_probabilities_will_do():
    y, proba, patients = study()
    rounded = proba.astype(np.float32).round(3)
    assert fit_conformal(y, rounded, patients, 0.9).cuts == pytest.approx(
        fit_conformal(y, proba, patients, 0.9).cuts, abs=2e-3
    )


def test_conformal_refusals():
    y, proba, patients = study()
    with pytest.raises(ValueError, match=r"fit_conformal.levels: expected a number between 0 and 1, got 95.0"):
        fit_conformal(y, proba, patients, (0.9, 95))
    with pytest.raises(ValueError, match=r"fit_conformal.levels: .*, got None"):
        fit_conformal(y, proba, patients, ())
    with pytest.raises(ValueError, match=r"fit_conformal.levels: .*, got nan"):
        fit_conformal(y, proba, patients, np.nan)
    with pytest.raises(ValueError, match=r"fit_conformal.unit: expected one of .*, got 'patient'. "):
        fit_conformal(y, proba, patients, 0.9, "patient")
    with pytest.raises(ValueError, match=r"fit_conformal.y: expected patches of all 2 classes, got none of class 1"):
        fit_conformal(np.zeros(len(y), dtype=int), proba, patients)
    with pytest.raises(ValueError, match=r"from 0 to 1, got \[nan, 0.5\] in row 0 \(1 such rows\)"):
        fit_conformal([0, 1], [[np.nan, 0.5], [0.5, 0.5]], ["a", "b"])
    for unit, kind, n in (("hierarchical", "patients", 19), ("patches", "patches", 19)):
        few = np.arange(19)
        with pytest.raises(ValueError, match=rf"at least 20 {kind} for levels from 0.8 to 0.95, got {n}"):
            fit_conformal(np.arange(19) % 2, np.full((19, 2), 0.5), few, LEVELS, unit)
    y = np.repeat([0, 1], [30, 5])
    with pytest.raises(ValueError, match=r"at least 10 patients with class 1 for levels from 0.9 to 0.9, got 5"):
        fit_conformal(y, np.full((35, 2), 0.5), np.arange(35), 0.9, per_class=True)
    with pytest.raises(GroupLeakageError, match="patients"):
        fit_conformal([0, 1], [[0.5, 0.5]] * 2, ["a", None])


def test_coverage_refusals():
    with pytest.raises(ValueError, match=r"measure_coverage.sets: expected shape \(n, k, 2\), got \(3, 2, 1\)"):
        measure_coverage(np.ones((3, 2, 1)), [0, 1, 1], list("abc"), (0.8, 0.9))
    with pytest.raises(ValueError, match=r"y: expected shape \(3,\)"):
        measure_coverage(np.ones((3, 2, 1)), [0, 1], list("ab"), 0.9)
    predictor = fit_conformal(*study())
    with pytest.raises(ValueError, match=r"from 0 to 1, got \[nan, nan\] in row 0"):
        predictor.predict_set([[np.nan, np.nan]])
