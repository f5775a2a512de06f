"""Ranks within folds: against loops over pairs and patches, for models that know nothing; the method's interval."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score
from test_bootstrap import auc_within_folds, t_by_hand

from histofeat.metrics import (
    Score,
    bootstrap_scores,
    class_scores,
    method_interval,
    nadeau_bengio,
    pareto_front,
    patient_weights,
    ranking_scores,
    score_folds,
    scores,
)


def cohort(n_classes, ties, n_folds=3, seed=0):
    """Patches of twelve patients in folds whose scores are on different scales; one fold lacks the last class."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(12), rng.integers(4, 9, 12))
    fold = patient % n_folds
    y = rng.integers(0, n_classes, len(patient))
    y[(fold == n_folds - 1) & (y == n_classes - 1)] = 0
    proba = rng.dirichlet(np.ones(n_classes), len(y)) + 0.4 * np.eye(n_classes)[y] + 0.3 * fold[:, None]
    proba = np.round(proba, 1) if ties else proba
    return y, proba / proba.sum(axis=1, keepdims=True), patient, fold


def precision_within_folds(positive, score, fold, weight):
    """Mean over the positive patches of folds with both classes of the precision at their score, in their fold."""
    total = above = 0.0
    for number in set(fold):
        own = fold == number
        if not weight[own & positive].any() or not weight[own & ~positive].any():
            continue
        for i in np.flatnonzero(own & positive):
            called = own & (score >= score[i])
            total += weight[i]
            above += weight[i] * weight[called & positive].sum() / max(weight[called].sum(), 1)
    return above / total


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_ranks_are_those_of_a_loop_with_weights_ties_and_classes(n_classes, ties):
    y, proba, patient, fold = cohort(n_classes, ties)
    weights = patient_weights(patient, 70, 3)
    found = ranking_scores(y, proba, patient, weights, fold=fold)
    codes = [1] if n_classes == 2 else range(n_classes)
    for resample in (0, 1, 63, 64, 69):
        weight = weights[resample][patient]
        rows = np.repeat(np.arange(len(y)), weight)
        areas = [auc_within_folds(y[rows] == code, proba[rows, code], fold[rows]) for code in codes]
        precisions = [precision_within_folds(y == code, proba[:, code], fold, weight) for code in codes]
        assert found[0][resample] == pytest.approx(np.mean(areas), abs=1e-12)
        assert found[1][resample] == pytest.approx(np.mean(precisions), abs=1e-12)


def test_one_fold_is_the_whole_and_other_metrics_know_no_fold():
    y, proba, _, fold = cohort(2, ties=True)
    plain, within = scores(y, proba), scores(y, proba, fold=fold)
    assert scores(y, proba, fold=np.full(len(y), 7)) == plain
    assert plain["roc_auc"] == pytest.approx(roc_auc_score(y, proba[:, 1]))
    assert within["roc_auc"] > plain["roc_auc"] + 0.02
    for metric in set(plain) - {"roc_auc", "average_precision"}:
        assert within[metric] == plain[metric]
    assert class_scores(y, proba, fold=fold).values["roc_auc"][1] == within["roc_auc"]
    # Numbers of folds are names.
    assert scores(y, proba, fold=np.array([40, 3, 17])[fold]) == within


def test_folds_without_pairs_do_not_count():
    y, fold = np.array([0, 1, 1, 1, 0, 0]), np.array([0, 0, 1, 1, 2, 2])
    proba = np.column_stack([1 - np.linspace(0.1, 0.6, 6), np.linspace(0.1, 0.6, 6)])
    found = scores(y, proba, fold=fold)
    assert (found["roc_auc"], found["average_precision"]) == (1.0, 1.0)
    found = scores(y[2:], proba[2:], fold=fold[2:])
    assert np.isnan([found["roc_auc"], found["average_precision"]]).all()


def test_the_prevalence_outside_the_fold_knows_nothing():
    """The worked example: three folds of three patches, each scored with the share of positives in the other two."""
    y = np.array([0, 0, 1, 0, 0, 1, 0, 1, 1])
    tests = [np.arange(0, 3), np.arange(3, 6), np.arange(6, 9)]
    score = np.empty(9)
    for test in tests:
        score[test] = np.delete(y, test).mean()
    proba = np.column_stack([1 - score, score])
    found, resamples = score_folds(y, proba, (score > 0.5).astype(int), np.arange(9), tests, n_resamples=200)
    assert found["roc_auc"].pooled == pytest.approx(0.35)
    assert found["roc_auc"].value == 0.5
    assert found["roc_auc"].folds == (0.5, 0.5, 0.5)
    known = resamples.samples["roc_auc"]
    assert (known[np.isfinite(known)] == 0.5).all()
    assert np.isnan([*found["roc_auc"].ci95, *found["roc_auc"].method_ci95]).all()  # nothing varies
    # Precision within a fold is its share of positives; over all positives (1/3 + 1/3 + 2 * 2/3) / 4.
    assert found["average_precision"].value == pytest.approx(0.5)
    assert found["average_precision"].pooled == pytest.approx(average_precision_score(y, score))
    assert found["accuracy"].value == found["accuracy"].pooled


@pytest.mark.parametrize("n_classes", [2, 3])
def test_constant_scores_are_at_chance_in_every_resample(n_classes):
    y, _, patient, fold = cohort(n_classes, ties=False, n_folds=2, seed=4)
    proba = np.random.default_rng(0).dirichlet(np.ones(n_classes), 2)[fold]
    found = bootstrap_scores(y, proba, patient, metrics=("roc_auc",), n_resamples=300, fold=fold)
    known = found.samples["roc_auc"]
    assert found.estimates["roc_auc"] == 0.5
    assert (known[np.isfinite(known)] == 0.5).all()
    assert np.isnan(found.interval("roc_auc")).all()


def test_the_share_of_dropped_resamples_is_counted():
    y, proba, patient = np.array([1, 0] * 2 + [0] * 12), np.full((16, 2), 0.5), np.repeat(np.arange(8), 2)
    found, _ = score_folds(y, proba, proba.argmax(axis=1), patient, [np.arange(8), np.arange(8, 16)], n_resamples=4000)
    # Two of eight patients carry the class; both are missing in (3 / 4) ** 8 of the resamples.
    assert found["f1"].dropped == pytest.approx(0.75**8, abs=0.02)
    assert Score(0.7, (0.6, 0.8), 0.7, (0.7,), 0.7, np.nan, ()).dropped == 0.0


def test_the_interval_of_the_method_is_that_of_nadeau_and_bengio():
    folds = [0.86, 0.91, 0.84, 0.93, 0.88]
    corrected = nadeau_bengio(folds, test_train_ratio=0.25)
    error = np.std(folds, ddof=1) * np.sqrt(1 / 5 + 0.25)
    assert corrected.se == pytest.approx(error)
    half = stats.t.ppf(0.975, corrected.df) * corrected.se
    for metric, scale in (("roc_auc", "logit"), ("f1", "logit"), ("brier", "log")):
        found = method_interval(metric, 0.885, folds, 0.25)
        # As many samples as there are patients, of this standard deviation.
        samples = np.array([-1.0, 1.0]) * error / np.sqrt(2)
        assert found == pytest.approx(t_by_hand(0.885, samples, 1e12, 4, scale))
        assert found[1] - found[0] == pytest.approx(2 * half, rel=0.15)
    # Undefined folds do not count; repetitions do.
    assert method_interval("f1", 0.885, [*folds, np.nan], 0.25) == method_interval("f1", 0.885, folds, 0.25)
    again = method_interval("f1", 0.885, folds * 2, 0.25)
    assert again[1] - again[0] < found[1] - found[0]
    for undefined in (([0.9], 0.25), ([0.9, np.nan], 0.25), (folds, np.nan), ([0.5] * 5, 0.25)):
        assert np.isnan(method_interval("roc_auc", 0.9, *undefined)).all()


def test_scores_of_folds_have_the_method_beside_these_fits():
    y, proba, patient, fold = cohort(2, ties=False, n_folds=3, seed=1)
    tests = [np.flatnonzero(fold == number) for number in range(3)]
    known = (y, proba, proba.argmax(axis=1), patient)
    found, resamples = score_folds(*known, tests, n_resamples=50, test_train_ratio=0.5)
    for metric, score in found.items():
        expected = method_interval(metric, score.value, score.folds, 0.5)
        assert score.method_ci95 == pytest.approx(expected, nan_ok=True)
        assert score.ci95 == pytest.approx(resamples.interval(metric), nan_ok=True)
    assert np.isfinite(found["f1"].method_ci95).all()
    alone, _ = score_folds(*known, [np.arange(len(y))], n_resamples=50, test_train_ratio=0.5)
    assert np.isnan(alone["f1"].method_ci95).all()
    assert alone["roc_auc"].value == alone["roc_auc"].pooled


def test_front_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(50):
        costs, scores = rng.integers(0, 6, 12), rng.integers(0, 6, 12)
        beaten = [
            any(a <= c and b >= s and (a < c or b > s) for a, b in zip(costs, scores, strict=True))
            for c, s in zip(costs, scores, strict=True)
        ]
        assert pareto_front(costs, scores).tolist() == [not it for it in beaten]
    assert pareto_front([1, np.nan, 2], [0.5, 0.9, np.nan]).tolist() == [True, False, False]
