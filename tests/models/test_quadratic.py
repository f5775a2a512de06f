"""Quadratic discriminant analysis: its definition by hand, scikit-learn's own, and tables that these cannot fit."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.base import clone
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from histofeat.models._classifiers import QuadraticDiscriminant


def rings(n=400, columns=5, seed=0):
    """Two classes with one mean and different spreads, in rows of `columns` features."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    return rng.normal(size=(n, columns)) * np.where(y, 2.0, 0.8)[:, None], y


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_equals_scikit_learn_on_the_same_components(share, classes):
    X, y = rings()
    y = y if classes == 2 else np.array(["a", "b", "c"])[y + (X[:, 0] > 1)]
    ours = QuadraticDiscriminant(n_components=3, reg_param=share).fit(X[:300], y[:300])
    whitened = (X - ours.center_) @ ours.components_
    theirs = QuadraticDiscriminantAnalysis(reg_param=share).fit(whitened[:300], y[:300])
    np.testing.assert_allclose(ours.predict_proba(X[300:]), theirs.predict_proba(whitened[300:]), atol=1e-9)
    np.testing.assert_allclose(ours.decision_function(X[300:]), theirs.decision_function(whitened[300:]), atol=1e-8)
    np.testing.assert_array_equal(ours.predict(X[300:]), theirs.predict(whitened[300:]))


def log_posteriors(Z, y, asked, share):
    """Logarithm of prior times density of each class, written out: the covariance is ``(1 - share) S + share I``."""
    columns = []
    for label in np.unique(y):
        rows = Z[y == label]
        centred = rows - rows.mean(axis=0)
        covariance = (1 - share) * centred.T @ centred / len(rows) + share * np.eye(Z.shape[1])
        gaps = asked - rows.mean(axis=0)
        distances = (gaps @ np.linalg.inv(covariance) * gaps).sum(axis=1)
        columns.append(np.log(len(rows) / len(Z)) - (distances + np.linalg.slogdet(covariance)[1]) / 2)
    return np.column_stack(columns)


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 40, 200])
def test_equals_the_definition_for_every_size_of_a_class(share, size):
    X, y = rings(columns=6)
    y = np.where(np.arange(len(y)) < size, 2, y)
    model = QuadraticDiscriminant(n_components=6, reg_param=share).fit(X, y)
    Z = (X - model.center_) @ model.components_
    expected = log_posteriors(Z, y, Z, share)
    np.testing.assert_allclose(model.predict_proba(X), softmax(expected, axis=1), rtol=0, atol=2e-14)
    np.testing.assert_array_equal(model.predict(X), expected.argmax(axis=1))


def test_components_are_white():
    X, y = rings(columns=8)
    model = QuadraticDiscriminant(n_components=5).fit(X * np.arange(1, 9), y)
    white = (X * np.arange(1, 9) - model.center_) @ model.components_
    np.testing.assert_allclose(np.cov(white.T), np.eye(5), atol=1e-9)
    assert model.n_components_ == 5


def test_more_features_than_rows():
    """60 rows of 500 features, where every class has a singular covariance."""
    X, y = rings(160, 4)
    wide = X @ np.random.default_rng(1).normal(size=(4, 500))
    model = QuadraticDiscriminant().fit(wide[:60], y[:60])
    assert model.n_components_ == 4
    assert roc_auc_score(y[60:], model.decision_function(wide[60:])) > 0.85
    noisy = wide + np.random.default_rng(2).normal(0, 0.1, wide.shape)
    model = QuadraticDiscriminant().fit(noisy[:60], y[:60])
    assert model.n_components_ == 20
    assert roc_auc_score(y[60:], model.decision_function(noisy[60:])) > 0.75


def test_collinear_and_constant_columns_change_nothing():
    X, y = rings(columns=3)
    more = np.column_stack([X, X[:, 0] + X[:, 1], np.full(len(X), 7.0)])
    twice = np.column_stack([X, X])
    assert QuadraticDiscriminant().fit(more, y).n_components_ == 3
    plain = QuadraticDiscriminant().fit(X, y).decision_function(X)
    np.testing.assert_allclose(QuadraticDiscriminant().fit(twice, y).decision_function(twice), plain, rtol=1e-6)


def test_a_class_of_one_row():
    X, y = rings(columns=3)
    y = np.where(np.arange(len(y)) == 0, "rare", np.array(["a", "b"])[y])
    model = QuadraticDiscriminant().fit(X, y)
    assert model.classes_.tolist() == ["a", "b", "rare"]
    np.testing.assert_allclose(model.model_.scalings_[2], [0.5] * 3)
    assert np.isfinite(model.predict_proba(X)).all()


def test_far_rows_have_finite_probabilities():
    X, y = rings(columns=3)
    proba = QuadraticDiscriminant().fit(X, y).predict_proba(X * 1e6)
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1)


def test_two_fits_are_one():
    X, y = rings(600, 700)
    model = QuadraticDiscriminant()
    np.testing.assert_array_equal(model.fit(X, y).predict_proba(X), clone(model).fit(X, y).predict_proba(X))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_components": 0}, "QuadraticDiscriminant.n_components: expected a whole number of at least 1, got 0"),
        ({"n_components": 2.0}, r"got 2\.0"),
        ({"n_components": True}, "got True"),
        ({"reg_param": 0}, "QuadraticDiscriminant.reg_param: expected a number above 0 and at most 1, got 0"),
        ({"reg_param": 1.5}, r"got 1\.5"),
        ({"reg_param": "auto"}, "got 'auto'"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        QuadraticDiscriminant(**params).fit(*rings(20))


def test_bad_tables():
    X, y = rings(20)
    with pytest.raises(ValueError, match=r"y: expected at least two classes, got \[1\]"):
        QuadraticDiscriminant().fit(X, np.ones(20, dtype=int))
    with pytest.raises(ValueError, match="X: expected features that vary, got 5 constant columns in 20 rows"):
        QuadraticDiscriminant().fit(np.ones((20, 5)), y)
