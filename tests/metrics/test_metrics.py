"""Scores against scikit-learn and by hand, and their undefined cases."""

import numpy as np
import pytest
from sklearn import metrics as sk

from histofeat.metrics import LABEL_METRICS, METRICS, confusion, label_scores, most_probable, ranking_scores, scores
from histofeat.metrics._calibration import check_scores
from histofeat.metrics._definitions import METRIC_RECORDS, check_predictions
from histofeat.metrics._ranking import _areas


def predictions(n=300, n_classes=2, ties=True, random_state=0):
    rng = np.random.default_rng(random_state)
    y = rng.integers(0, n_classes, n)
    proba = rng.dirichlet(np.ones(n_classes), n) + np.eye(n_classes)[y] * 0.3
    proba /= proba.sum(axis=1, keepdims=True)
    if ties and n_classes == 2:
        positive = np.round(proba[:, 1], 1)
        proba = np.column_stack([1 - positive, positive])
    return y, proba


def by_scikit_learn(y, proba, predicted):
    """Return every metric by scikit-learn, one-vs-rest by hand where it has no such average."""
    n_classes = proba.shape[1]
    positive = [1] if n_classes == 2 else range(n_classes)

    def mean_over_classes(score):
        return np.mean([score(y == code, predicted == code) for code in positive])

    one_hot = np.eye(n_classes)[y]
    return {
        "roc_auc": np.mean([sk.roc_auc_score(y == code, proba[:, code]) for code in positive]),
        "average_precision": np.mean([sk.average_precision_score(one_hot[:, c], proba[:, c]) for c in positive]),
        "f1": mean_over_classes(sk.f1_score),
        "precision": mean_over_classes(lambda *pair: sk.precision_score(*pair, zero_division=0)),
        "sensitivity": mean_over_classes(sk.recall_score),
        "specificity": mean_over_classes(lambda *pair: sk.recall_score(*pair, pos_label=0)),
        "accuracy": sk.accuracy_score(y, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(y, predicted),
        "brier": sk.brier_score_loss(y, proba),
        "mcc": sk.matthews_corrcoef(y, predicted),
        "log_loss": sk.log_loss(y, proba),
    }


@pytest.mark.parametrize("n_classes", [2, 3, 8])
@pytest.mark.parametrize("ties", [True, False])
def test_all_metrics_agree_with_scikit_learn(n_classes, ties):
    y, proba = predictions(n_classes=n_classes, ties=ties)
    found = scores(y, proba)
    assert tuple(found) == METRICS
    expected = by_scikit_learn(y, proba, most_probable(proba))
    for metric in METRICS:
        assert found[metric] == pytest.approx(expected[metric], abs=1e-12), metric
    np.testing.assert_array_equal(
        confusion(y, most_probable(proba), n_classes), sk.confusion_matrix(y, most_probable(proba))
    )


def test_macro_roc_auc_is_scikit_learns_one_vs_rest():
    y, proba = predictions(n_classes=4)
    expected = sk.roc_auc_score(y, proba, multi_class="ovr", average="macro")
    assert scores(y, proba)["roc_auc"] == pytest.approx(expected, abs=1e-12)


def test_scores_by_hand():
    # Eight patches: TP 2, FN 1, FP 1, TN 4.
    y = [1, 1, 1, 0, 0, 0, 0, 0]
    positive = np.array([0.9, 0.8, 0.4, 0.7, 0.3, 0.2, 0.1, 0.0])
    found = scores(y, np.column_stack([1 - positive, positive]))
    assert found["sensitivity"] == pytest.approx(2 / 3)
    assert found["specificity"] == pytest.approx(4 / 5)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["accuracy"] == pytest.approx(6 / 8)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["roc_auc"] == pytest.approx(14 / 15)
    assert found["average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert found["brier"] == pytest.approx(np.mean((positive - y) ** 2))
    assert found["mcc"] == pytest.approx((2 * 4 - 1 * 1) / np.sqrt(3 * 3 * 5 * 5))
    given = np.where(np.array(y) == 1, positive, 1 - positive)
    assert found["log_loss"] == pytest.approx(-np.log(given).mean())


def test_labels_at_another_threshold_change_label_metrics_only():
    y, proba = predictions()
    predicted = (proba[:, 1] >= 0.3).astype(int)
    plain, tuned = scores(y, proba), scores(y, proba, predicted)
    assert {metric for metric in METRICS if plain[metric] == tuned[metric]} == set(METRICS) - set(LABEL_METRICS)
    assert tuned["f1"] == pytest.approx(sk.f1_score(y, predicted))


def test_a_tie_of_probabilities_goes_to_the_lower_code():
    assert most_probable(np.array([[0.5, 0.5], [0.4, 0.6]])).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("y", "undefined"),
    [
        ([0, 0, 0], {"roc_auc", "average_precision", "f1", "precision", "sensitivity", "balanced_accuracy", "mcc"}),
        ([1, 1, 1], {"roc_auc", "average_precision", "specificity", "balanced_accuracy", "mcc"}),
    ],
)
def test_one_class_makes_a_metric_nan_and_never_an_exception(y, undefined):
    found = scores(y, [[0.2, 0.8], [0.6, 0.4], [0.5, 0.5]])
    assert {metric for metric, value in found.items() if np.isnan(value)} == undefined


def test_three_classes_of_which_one_is_absent():
    found = scores([0, 0, 1], [[0.8, 0.1, 0.1], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1]])
    defined = {metric for metric, value in found.items() if np.isfinite(value)}
    assert defined == {"accuracy", "brier", "log_loss", "mcc", "specificity"}
    assert found["accuracy"] == pytest.approx(2 / 3)


def test_nothing_predicted_positive_has_precision_zero():
    found = scores([0, 1, 1], [[0.9, 0.1]] * 3)
    assert found["precision"] == found["f1"] == found["sensitivity"] == found["mcc"] == 0.0
    assert found["roc_auc"] == 0.5


def test_label_scores_take_many_matrices_at_once():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 50, (7, 5, 3, 3))
    together = label_scores(counts)
    assert tuple(together) == LABEL_METRICS
    for metric, values in together.items():
        assert values.shape == (7, 5)
        assert values[3, 2] == label_scores(counts[3, 2])[metric]


def test_brier_losses_sum_over_classes_above_two():
    losses = METRIC_RECORDS["brier"].compute
    assert losses(np.array([1]), np.array([[0.2, 0.8]]))[0] == pytest.approx(0.04)
    assert losses(np.array([1]), np.array([[0.2, 0.7, 0.1]]))[0] == pytest.approx(0.04 + 0.09 + 0.01)


def test_log_loss_of_a_certain_error_is_large_and_finite():
    assert scores([1], [[1.0, 0.0]])["log_loss"] == pytest.approx(-np.log(np.finfo(float).eps))


@pytest.mark.parametrize("ties", [True, False])
def test_compiled_ranking_is_the_python_one(ties):
    y, proba = predictions(n=60, ties=ties)
    order = np.argsort(-proba[:, 1], kind="stable")
    ranked = proba[order, 1]
    ends = np.append(ranked[1:] != ranked[:-1], True)
    patient = np.arange(60) % 5
    weights = np.random.default_rng(0).integers(0, 3, (5, 4)).astype(float)
    weights[:, 3] = 0.0  # nobody drawn: undefined
    arguments = (y[order] == 1, patient, ends, weights)
    compiled = _areas(*arguments)
    # Plain Python warns of nothing and may round the last digit of a fused operation differently.
    np.testing.assert_allclose(compiled, _areas.py_func(*arguments), rtol=1e-14)
    assert (compiled[:, 3] == 0).all()
    assert (compiled[2:, :3] > 0).all()


def test_ranking_does_not_depend_on_threads_and_takes_no_weighting():
    y, proba = predictions(n=500)
    patient, rng = np.arange(500) % 11, np.random.default_rng(0)
    weights = rng.multinomial(11, np.full(11, 1 / 11), 150)
    one, two = (ranking_scores(y, proba, patient, weights, n_jobs=n_jobs) for n_jobs in (None, 2))
    np.testing.assert_array_equal(one, two)
    assert [found.shape for found in ranking_scores(y, proba, patient, weights[:0])] == [(0,), (0,)]


@pytest.mark.parametrize(
    ("y", "proba", "message"),
    [
        ([0, 1], [[0.5, 0.5], [np.nan, 0.5]], r"from 0 to 1, got \[nan, 0.5\] in row 1 \(1 such rows\)"),
        ([0, 1], [[-0.2, 1.2], [1.4, -0.4]], r"from 0 to 1, got \[-0.2, 1.2\] in row 0 \(2 such rows\)"),
        ([0, 1], [[0.5, 0.5], [0.5, 0.6]], r"rows that sum to 1, got \[0.5, 0.6\] in row 1"),
        ([0, 1], [0.5, 0.5], r"expected shape \(n, k\) .*, got \(2,\)"),
        ([0, 1], [[1.0], [1.0]], r"two classes, got \(2, 1\)"),
        ([], np.empty((0, 2)), r"at least one patch and two classes, got \(0, 2\)"),
        ([0, 1, 1], [[0.5, 0.5]] * 2, r"y: expected shape \(2,\), got \(3,\)"),
        ([0, 2], [[0.5, 0.5]] * 2, r"y: expected class codes from 0 to 1, got 2 in row 1 \(1 such rows\)"),
        ([0.0, 0.5], [[0.5, 0.5]] * 2, r"y: expected class codes from 0 to 1, got 0.5 in row 1"),
    ],
)
def test_unusable_predictions_are_refused(y, proba, message):
    with pytest.raises(ValueError, match=message):
        scores(y, proba)


def test_untested_rows_are_refused():
    with pytest.raises(ValueError, match="predicted: expected class codes from 0 to 1, got -1 in row 0"):
        scores([0, 1], [[0.5, 0.5]] * 2, predicted=[-1, 1])
    with pytest.raises(ValueError, match=r"predicted: expected shape \(2,\)"):
        confusion([0, 1], [0], 2)


def test_single_precision_is_close_enough_to_one():
    _, proba = predictions(n=1000, n_classes=8)
    assert check_predictions(np.zeros(1000, dtype=int), proba.astype(np.float32))[1].dtype == np.float64


@pytest.mark.parametrize(
    ("y", "score", "message"),
    [
        ([0, 1], [0.1, np.nan], r"mine.score: expected probabilities from 0 to 1, got nan in row 1 \(1 such rows\)"),
        ([0, 1, 1], [1.5, 0.5, -0.5], r"mine.score: expected probabilities .*, got 1.5 in row 0 \(2 such rows\)"),
        ([0, 1], [[0.5, 0.5]] * 2, r"mine.score: expected shape \(n,\), got \(2, 2\)"),
        ([], [], r"mine.score: expected shape \(n,\), got \(0,\)"),
        ([0, 1], [0.1, 0.2, 0.3], r"mine.y: expected shape \(3,\), got \(2,\)"),
        ([0, 2], [0.1, 0.2], r"mine.y: expected class codes from 0 to 1, got 2 in row 1"),
    ],
)
def test_unusable_scores_of_two_classes_are_refused(y, score, message):
    with pytest.raises(ValueError, match=message):
        check_scores(y, score, "mine")


def test_scores_of_two_classes_come_back_as_numbers():
    y, score = check_scores([True, False], [1, 0], "mine")
    assert (y.tolist(), score.tolist()) == ([1, 0], [1.0, 0.0])
    assert (y.dtype, score.dtype) == (np.int64, np.float64)
