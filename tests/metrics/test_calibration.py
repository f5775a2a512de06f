"""Calibrated probabilities: the fit against statsmodels and scikit-learn, its edges, and what cannot be calibrated."""

import pickle

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss, roc_auc_score

from histofeat.metrics import Calibrator, fit_calibrator


def columns(score):
    return np.column_stack([1 - np.asarray(score), score])


def sure_scores(n=800, slope=2.0, shift=0.7, random_state=0):
    """Labels, and a model whose log-odds are `slope` times what they warrant, and `shift` beside."""
    rng = np.random.default_rng(random_state)
    truth = rng.normal(-0.5, 1.5, n)
    return (rng.uniform(size=n) < expit(truth)).astype(int), expit(slope * truth + shift)


def test_logistic_fit_is_that_of_statsmodels():
    y, score = sure_scores(60)
    target = np.where(y == 1, (y.sum() + 1) / (y.sum() + 2), 1 / ((1 - y).sum() + 2))
    expected = sm.GLM(target, sm.add_constant(logit(score)), family=sm.families.Binomial()).fit(tol=1e-12)
    found = fit_calibrator(y, columns(score))
    assert (found.intercept, found.slope) == pytest.approx(tuple(expected.params), abs=1e-5)
    assert found.n_patches == 60


def test_without_platts_targets_the_fit_would_be_another():
    y, score = sure_scores(60)
    plain = sm.GLM(y, sm.add_constant(logit(score)), family=sm.families.Binomial()).fit(tol=1e-12)
    assert abs(fit_calibrator(y, columns(score)).slope - plain.params[1]) > 1e-3


def test_calibration_undoes_a_distortion_and_keeps_the_order():
    y, score = sure_scores(20_000)
    calibrator = fit_calibrator(y[:10_000], columns(score[:10_000]))
    assert (calibrator.slope, calibrator.intercept) == pytest.approx((0.5, -0.35), abs=0.05)
    y, raw = y[10_000:], columns(score[10_000:])
    calibrated = calibrator.transform(raw)
    assert brier_score_loss(y, calibrated[:, 1]) < brier_score_loss(y, raw[:, 1]) - 0.01
    assert roc_auc_score(y, calibrated[:, 1]) == roc_auc_score(y, raw[:, 1])
    np.testing.assert_allclose(calibrated.sum(axis=1), 1)


def test_class_weights_are_undone():
    from histofeat.models import make_head

    rng = np.random.default_rng(0)
    y = (rng.uniform(size=4000) < 0.2).astype(int)
    X = rng.normal(y[:, None], 1.5, (4000, 3)).astype(np.float32)
    head = make_head("logistic", class_weight="balanced").fit(X[:1000], y[:1000])
    held_out = head.predict_proba(X[1000:])
    assert held_out[:, 1].mean() > 0.3
    calibrated = fit_calibrator(y[1000:2500], held_out[:1500]).transform(held_out[1500:])
    assert calibrated[:, 1].mean() == pytest.approx(y[2500:].mean(), abs=0.03)


@pytest.mark.parametrize("scores", [[0.1, 0.2, 0.8, 0.9], [0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0], [0.5] * 4])
def test_finite_and_rising_whatever_the_scores(scores):
    calibrator = fit_calibrator([0, 0, 1, 1], columns(scores))
    grid = calibrator.transform(columns(np.linspace(0, 1, 501)))
    assert np.isfinite(grid).all()
    assert ((grid >= 0) & (grid <= 1)).all()
    assert (np.diff(grid[:, 1]) >= 0).all()


def test_classes_apart_do_not_make_the_slope_infinite():
    score = np.r_[np.full(50, 0.2), np.full(50, 0.8)]
    found = fit_calibrator(np.repeat([0, 1], 50), columns(score))
    # With two scores the fit meets Platt's targets.
    assert found.transform(columns([0.2, 0.8]))[:, 1] == pytest.approx([1 / 52, 51 / 52], abs=1e-5)


def test_a_model_that_is_worse_than_chance_is_not_turned_round():
    y, score = sure_scores()
    found = fit_calibrator(1 - y, columns(score))
    assert found.slope == 0
    n_positive = (1 - y).sum()
    target = (n_positive * (n_positive + 1) / (n_positive + 2) + y.sum() / (y.sum() + 2)) / len(y)
    assert found.transform(columns([0.01, 0.99]))[:, 1] == pytest.approx([target] * 2, abs=1e-6)


def test_a_calibrator_is_plain_and_leaves_its_input_alone():
    y, score = sure_scores(100)
    proba = columns(score)
    proba.setflags(write=False)
    found = fit_calibrator(y, proba)
    assert pickle.loads(pickle.dumps(found)) == found
    assert found.n_patches == 100
    assert found.transform(proba).dtype == np.float64
    assert found.transform(np.empty((0, 2))).shape == (0, 2)
    with pytest.raises(AttributeError):
        found.slope = 3.0


def test_what_cannot_be_calibrated_is_refused():
    with pytest.raises(ValueError, match=r"fit_calibrator.y: expected both classes, got 2 positive of 2 patches"):
        fit_calibrator([1, 1], columns([0.2, 0.6]))
    with pytest.raises(ValueError, match=r"fit_calibrator.proba: expected shape \(n, 2\), got \(2, 3\)"):
        fit_calibrator([0, 1], np.full((2, 3), 1 / 3))
    with pytest.raises(ValueError, match=r"fit_calibrator.proba: expected .*, got \(2,\)"):
        fit_calibrator([0, 1], [0.2, 0.6])
    with pytest.raises(ValueError, match=r"probabilities from 0 to 1, got \[nan, nan\] in row 1"):
        fit_calibrator([0, 1], columns([0.2, np.nan]))
    with pytest.raises(ValueError, match=r"y: expected shape \(2,\), got \(3,\)"):
        fit_calibrator([0, 1, 1], columns([0.2, 0.6]))
    with pytest.raises(ValueError, match=r"Calibrator.transform.proba: expected .*, got \(1, 3\)"):
        Calibrator(1.0, 0.0).transform([[0.2, 0.3, 0.5]])
    with pytest.raises(ValueError, match=r"from 0 to 1, got \[nan, nan\] in row 0 \(1 such rows\)"):
        Calibrator(1.0, 0.0).transform([[np.nan, np.nan]])
