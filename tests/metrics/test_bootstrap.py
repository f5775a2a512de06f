"""Resampling patients: resamples against scikit-learn on repeated rows, and what intervals promise."""

import math

import numpy as np
import pytest
from scipy import stats
from test_metrics import by_scikit_learn, predictions

from histofeat.exceptions import GroupLeakageError
from histofeat.metrics import (
    LABEL_METRICS,
    METRICS,
    bootstrap_scores,
    few_patients,
    mean_bootstrap,
    patient_weights,
    scores,
    t_interval,
)


def auc_within_folds(y, score, fold):
    """Share of the pairs inside a fold in which the positive patch is ahead, ties counting one half."""
    won = pairs = 0
    for number in set(fold):
        own = fold == number
        gaps = score[own & (y == 1)][:, None] - score[own & (y == 0)]
        won, pairs = won + (gaps > 0).sum() + 0.5 * (gaps == 0).sum(), pairs + gaps.size
    return won / pairs


def t_by_hand(value, samples, n_patients, df, scale="logit", level=0.95):
    """The t interval on odds, on a ratio, or plainly: without the functions of the library."""
    known = [sample for sample in samples if sample == sample]
    mean = sum(known) / len(known)
    variance = sum((sample - mean) ** 2 for sample in known) / (len(known) - 1)
    half = stats.t.ppf((1 + level) / 2, df) * math.sqrt(variance * n_patients / (n_patients - 1))
    if scale == "linear":
        return value - half, value + half
    if scale == "log":
        return value * math.exp(-half / value), value * math.exp(half / value)
    if scale == "fisher":
        return tuple(math.tanh(math.atanh(value) + side / (1 - value**2)) for side in (-half, half))
    odds, factor = value / (1 - value), math.exp(half / (value * (1 - value)))
    return odds / factor / (1 + odds / factor), odds * factor / (1 + odds * factor)


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


@pytest.mark.parametrize("n_classes", [2, 4])
def test_interval_is_that_of_t_on_the_logit_scale_and_covers_the_score(n_classes):
    y, proba, patients = cohort(n_classes=n_classes)
    found = bootstrap_scores(y, proba, patients)
    point = scores(y, proba)
    rare = np.where(patients < 98, 1, y)  # three patients do not carry class 0
    for known, labels in ((found, y), (bootstrap_scores(rare, proba, patients), rare)):
        df = min(len(set(patients[labels == code])) for code in range(n_classes)) - 1
        assert min(known.carriers) == df + 1
        assert known is found or df < 9
        for metric, value in known.estimates.items():
            low, high = known.interval(metric)
            scale = {"brier": "log", "log_loss": "log", "mcc": "fisher"}.get(metric, "logit")
            assert (low, high) == pytest.approx(t_by_hand(value, known.samples[metric], 12, df, scale)), metric
            assert low < value < high
    for metric in METRICS:
        assert found.estimates[metric] == pytest.approx(point[metric], abs=1e-15)
        assert found.n_used(metric) == 2000
        percentiles = tuple(np.quantile(found.samples[metric], [0.025, 0.975]))
        assert found.interval(metric, method="percentile") == pytest.approx(percentiles)
    narrow, wide = found.interval("f1", 0.5), found.interval("f1", 0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_the_interval_of_a_difference_is_plain_t_and_its_p_is_that_of_t():
    y, proba, patients = cohort(ties=False)
    other = proba**1.5 / (proba**1.5).sum(axis=1, keepdims=True)
    other = 0.7 * other + 0.3 * np.random.default_rng(0).dirichlet([1, 1], len(y))
    first, second = (bootstrap_scores(y, p, patients, n_resamples=300) for p in (proba, other))
    paired = first.minus(second)
    for metric in ("roc_auc", "brier", "accuracy"):
        change = first.samples[metric] - second.samples[metric]
        difference = first.estimates[metric] - second.estimates[metric]
        assert paired.interval(metric) == pytest.approx(t_by_hand(difference, change, 12, 11, "linear"))
        error = change.std(ddof=1) * math.sqrt(12 / 11)
        assert paired.p_value(metric) == pytest.approx(2 * stats.t.sf(abs(difference) / error, 11))
        # The interval reaches 0 where p is the share outside of it.
        low, high = paired.interval(metric, 1 - paired.p_value(metric))
        assert min(abs(low), abs(high)) == pytest.approx(0, abs=1e-12)
    same = first.minus(first)
    assert same.p_value("roc_auc") == 1.0
    assert np.isnan(same.interval("roc_auc")).all()  # nothing varies
    assert np.isnan(first.p_value("roc_auc"))  # no difference


def test_averages_of_several_scores_are_averaged_resample_by_resample():
    y, proba, patients = cohort()
    found = [bootstrap_scores(y, p, patients, n_resamples=50) for p in (proba, proba[:, ::-1])]
    mean = mean_bootstrap(found)
    assert mean.estimates["f1"] == pytest.approx(np.mean([each.estimates["f1"] for each in found]))
    np.testing.assert_allclose(mean.samples["f1"], (found[0].samples["f1"] + found[1].samples["f1"]) / 2)
    assert mean.interval("f1") == pytest.approx(t_by_hand(mean.estimates["f1"], mean.samples["f1"], 12, 11))


@pytest.mark.parametrize("df", [1, 9, 48])
def test_t_interval_is_its_formula(df):
    quantile = stats.t.ppf(0.975, df)
    for value, error in ((0.5, 0.1), (0.93, 0.02), (0.04, 0.01)):
        centre, half = math.log(value / (1 - value)), quantile * error / (value * (1 - value))
        expected = tuple(1 / (1 + math.exp(-centre + side)) for side in (half, -half))
        assert t_interval(value, error, df) == pytest.approx(expected)
        expected = tuple(value * math.exp(side * quantile * error / value) for side in (-1, 1))
        assert t_interval(value, error, df, scale="log") == pytest.approx(expected)
        assert t_interval(value, error, df, scale="linear") == pytest.approx(stats.t.interval(0.95, df, value, error))
    for undefined in ((0.8, 0.1, 0), (np.nan, 0.1, 9), (0.8, np.nan, 9), (0.8, 0.0, 9), (1.0, 0.1, 9)):
        assert np.isnan(t_interval(*undefined)).all()


@pytest.mark.parametrize("n", [2, 10, 49])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_bounds_at_zero_and_one_are_those_of_clopper_and_pearson(n, level):
    for right, value in ((0, 0.0), (n, 1.0)):
        exact = stats.binomtest(right, n).proportion_ci(level, "exact")
        assert t_interval(value, 0.0, n - 1, level, successes=n) == pytest.approx((exact.low, exact.high))


def test_a_perfect_score_has_the_bound_of_its_patients():
    """Nine patients with class 0 and four with class 1, all patches right."""
    patients = np.repeat(np.arange(10), 2)
    y = np.where(patients < 6, 0, np.tile([0, 1], 10))
    y[-2:] = 1
    proba = np.column_stack([0.9 - 0.8 * y, 0.1 + 0.8 * y])
    found = bootstrap_scores(y, proba, patients, n_resamples=200)
    assert found.carriers == (9, 4)
    behind = {"sensitivity": 4, "specificity": 9, "accuracy": 10}
    # A correlation of 1 may be as low as the same share of the way from -1.
    assert found.interval("mcc") == pytest.approx((2 * 0.025 ** (1 / 4) - 1, 1.0))
    for metric in set(METRICS) - {"brier", "log_loss", "mcc"}:
        assert found.estimates[metric] == 1.0
        n = behind.get(metric, 4)
        exact = stats.binomtest(n, n).proportion_ci(0.95, "exact")
        assert found.interval(metric) == pytest.approx((exact.low, 1.0)), metric
    wrong = bootstrap_scores(y, proba[:, ::-1], patients, n_resamples=200)
    for metric, n in behind.items():
        exact = stats.binomtest(0, n).proportion_ci(0.95, "exact")
        assert wrong.interval(metric) == pytest.approx((0.0, exact.high)), metric
    # Of three classes each metric is a mean, which the rarest class limits.
    y = np.where(patients == 9, 2, np.where(patients == 8, 2, y))
    several = bootstrap_scores(y, np.eye(3)[y], patients, n_resamples=50)
    assert several.carriers == (8, 2, 2)
    assert several.interval("specificity")[0] == pytest.approx(0.025**0.5)


def test_a_class_of_one_patient_has_no_interval_at_all():
    """One of ten patients is positive: 1 - 0.9 ** 10 of the resamples have it, and say nothing of other positives."""
    patients = np.repeat(np.arange(10), 4)
    y = (patients == 3).astype(int)
    proba = np.column_stack([0.9 - 0.8 * y, 0.1 + 0.8 * y])
    found = bootstrap_scores(y, proba, patients)
    assert found.n_dropped / 2000 == pytest.approx(0.9**10, abs=0.03)
    for metric in METRICS:
        for method in ("t", "percentile"):
            assert np.isnan(found.interval(metric, method=method)).all()


def test_few_patients_are_said():
    assert few_patients(30, (30, 15)) is None
    assert "29 tested patients, of whom 20 carry the rarest class" in few_patients(29, (29, 20))
    assert "100 tested patients, of whom 14 carry" in few_patients(100, (100, 14, 60))


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
    assert found.interval("accuracy") == pytest.approx((0.025**0.5, 1.0))
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
    with pytest.raises(ValueError, match=r"bootstrap_scores.metrics: expected one of roc_auc, .* got 'auc'"):
        bootstrap_scores(y, proba, patients, metrics=("auc",))
    with pytest.raises(ValueError, match=r"Bootstrap.interval.level: expected a number between 0 and 1, got 95"):
        bootstrap_scores(y, proba, patients, n_resamples=2).interval("f1", 95)
    with pytest.raises(ValueError, match=r"Bootstrap.interval.method: expected .* got 'basic'"):
        bootstrap_scores(y, proba, patients, n_resamples=2).interval("f1", method="basic")
    for fold in (np.zeros(239, dtype=int), np.zeros(240), np.full(240, -1)):
        with pytest.raises(ValueError, match=r"fold: expected the number of a fold for each of 240 patches"):
            bootstrap_scores(y, proba, patients, fold=fold)
    with pytest.raises(GroupLeakageError, match="patients: expected one patient id for each of 240 patches"):
        bootstrap_scores(y, proba, patients[1:])
    with pytest.raises(ValueError, match="proba: expected probabilities"):
        bootstrap_scores(y, proba * np.nan, patients)
    with pytest.raises(ValueError, match="predicted: expected class codes from 0 to 1, got -1"):
        bootstrap_scores(y, proba, patients, predicted=np.full(240, -1))
