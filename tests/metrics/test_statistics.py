"""P-values and parametric tests against statsmodels, scipy and loops over pairs; what they refuse."""

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests

from histofeat.exceptions import GroupLeakageError
from histofeat.metrics import delong, holm, nadeau_bengio, patient_scores

# --- p-values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 66])
def test_holm_is_that_of_statsmodels(n):
    rng = np.random.default_rng(n)
    for power in (1, 3):
        p_values = np.round(rng.random(n) ** power, 2)  # rounding makes ties
        np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1], atol=1e-14)


def test_holm_of_nothing_is_nothing():
    assert holm([]).tolist() == []


def test_holm_keeps_false_findings_of_a_table_below_five_percent():
    rng = np.random.default_rng(0)
    tables = rng.random((2000, 10))
    assert (tables.min(axis=1) < 0.05).mean() > 0.35
    assert np.mean([holm(table).min() < 0.05 for table in tables]) < 0.065


def test_holm_refuses_what_is_no_p_value():
    with pytest.raises(ValueError, match=r"holm.p_values: expected p-values from 0 to 1, got nan in row 1 \(2 such"):
        holm([0.1, np.nan, 1.2])
    with pytest.raises(ValueError, match=r"holm.p_values: expected shape \(n,\), got \(1, 2\)"):
        holm([[0.1, 0.2]])


# --- Nadeau and Bengio -----------------------------------------------------------------------------------------------


def test_nadeau_bengio_is_its_formula():
    rng = np.random.default_rng(0)
    for k, n_train, n_test in ((2, 10, 5), (5, 57, 25), (30, 113, 49)):
        differences = rng.normal(0.02, 0.03, k)
        found = nadeau_bengio(differences, n_train=n_train, n_test=n_test)
        mean = sum(differences) / k
        variance = sum((d - mean) ** 2 for d in differences) / (k - 1)
        se = ((1 / k + n_test / n_train) * variance) ** 0.5
        assert (found.mean, found.std, found.se) == pytest.approx((mean, variance**0.5, se))
        assert found.df == k - 1
        assert found.p == pytest.approx(2 * stats.t.sf(abs(mean / se), k - 1))
        assert found.ci95 == pytest.approx(stats.t.interval(0.95, k - 1, mean, se))
        again = nadeau_bengio(differences, test_train_ratio=n_test / n_train)
        assert again == found


def test_without_a_test_side_it_is_the_plain_t_test():
    differences = [0.02, 0.05, 0.01, 0.04, -0.01]
    found, plain = nadeau_bengio(differences, test_train_ratio=1e-12), stats.ttest_1samp(differences, 0)
    assert (found.t, found.p) == pytest.approx((plain.statistic, plain.pvalue))
    assert nadeau_bengio(differences, test_train_ratio=0.3).p > 2 * found.p


def test_the_correction_holds_its_level_where_the_plain_test_does_not():
    """Two equal models on repeated hold-outs of one small data set: their difference is mostly the data set's."""
    rng = np.random.default_rng(0)
    corrected, plain = [], []
    for _ in range(400):
        observed = rng.normal(0, 1, 60)  # one difference per patient, of no effect at all
        tests = [rng.permutation(60)[:20] for _ in range(10)]
        differences = [observed[test].mean() for test in tests]
        corrected.append(nadeau_bengio(differences, n_train=40, n_test=20).p < 0.05)
        plain.append(stats.ttest_1samp(differences, 0).pvalue < 0.05)
    assert np.mean(corrected) < 0.12
    assert np.mean(plain) > 0.3


def test_repeats_without_variance():
    found = nadeau_bengio([0.1, 0.1, 0.1], test_train_ratio=0.25)
    assert (found.t, found.p, found.ci95, found.std) == (np.inf, 0.0, (0.1, 0.1), 0.0)
    assert nadeau_bengio([-0.1, -0.1], test_train_ratio=0.25).t == -np.inf
    found = nadeau_bengio([0.0, 0.0], test_train_ratio=0.25)
    assert (found.t, found.p, found.ci95) == (0.0, 1.0, (0.0, 0.0))


def test_nadeau_bengio_refuses():
    with pytest.raises(ValueError, match=r"differences: expected at least 2 differences in one list, got shape \(1,\)"):
        nadeau_bengio([0.1], test_train_ratio=0.2)
    with pytest.raises(ValueError, match=r"got shape \(2, 2\)"):
        nadeau_bengio(np.zeros((2, 2)), test_train_ratio=0.2)
    with pytest.raises(ValueError, match=r"expected finite numbers, got nan in row 1 \(1 such rows\)"):
        nadeau_bengio([0.1, np.nan, 0.2], test_train_ratio=0.2)
    for sizes, got in (
        ({}, "none of them"),
        ({"n_train": 40}, "n_train"),
        ({"test_train_ratio": 0.2, "n_test": 8}, "test_train_ratio, n_test"),
    ):
        with pytest.raises(ValueError, match=f"either test_train_ratio or both n_train and n_test, got {got}\\."):
            nadeau_bengio([0.1, 0.2], **sizes)
    with pytest.raises(ValueError, match=r"nadeau_bengio.n_test: expected a number above 0, got 0\."):
        nadeau_bengio([0.1, 0.2], n_train=40, n_test=0)
    with pytest.raises(ValueError, match=r"nadeau_bengio.test_train_ratio: expected a number above 0, got nan"):
        nadeau_bengio([0.1, 0.2], test_train_ratio=np.nan)


# --- DeLong ----------------------------------------------------------------------------------------------------------


def placements(y, score):
    """Placement values by a loop over all pairs."""
    positive, negative = score[y == 1], score[y == 0]
    won = np.array([[float(p > n) + 0.5 * float(p == n) for n in negative] for p in positive])
    return won.mean(axis=1), won.mean(axis=0)


def by_pairs(y, *scores):
    """Areas and their covariance, as DeLong wrote them."""
    placed = [placements(y, score) for score in scores]
    aucs = [of_positive.mean() for of_positive, _ in placed]
    covariance = np.empty((len(scores), len(scores)))
    for i, j in itertools.product(range(len(scores)), repeat=2):
        covariance[i, j] = sum(
            ((placed[i][side] - aucs[i]) * (placed[j][side] - aucs[j])).sum()
            / (len(placed[i][side]) - 1)
            / len(placed[i][side])
            for side in (0, 1)
        )
    return aucs, covariance


def cases(n=40, ties=False, seed=0):
    rng = np.random.default_rng(seed)
    y = (np.arange(n) % 3 == 0).astype(int)
    first = y + rng.normal(0, 1.2, n)
    second = 0.7 * first + rng.normal(0, 0.8, n)
    if ties:
        first, second = np.round(first), np.round(second)
    return y, first, second, [f"P{i}" for i in range(n)]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [7, 40, 101])
def test_delong_is_the_loop_over_pairs(n, ties):
    y, first, second, patients = cases(n, ties, seed=n)
    aucs, covariance = by_pairs(y, first, second)
    found = delong(y, first, second, patients=patients)
    assert found.aucs == pytest.approx(aucs)
    assert found.aucs == pytest.approx([roc_auc_score(y, first), roc_auc_score(y, second)])
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-14)
    se = (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) ** 0.5
    z = (aucs[0] - aucs[1]) / se
    assert (found.difference, found.z, found.p) == pytest.approx((aucs[0] - aucs[1], z, 2 * stats.norm.sf(abs(z))))
    assert found.difference_ci95 == pytest.approx(stats.norm.interval(0.95, aucs[0] - aucs[1], se))
    fewer, slope = min(y.sum(), n - y.sum()), aucs[0] * (1 - aucs[0])
    half = stats.t.ppf(0.975, fewer - 1) * covariance[0, 0] ** 0.5 / slope
    expected = [1 / (1 + np.exp(side) * (1 / aucs[0] - 1)) for side in (half, -half)]
    assert found.ci95[0] == pytest.approx(tuple(expected))
    assert (found.n_positive, found.n_negative) == (y.sum(), n - y.sum())
    alone = delong(y, first, patients=patients)
    assert alone.aucs == found.aucs[:1]
    assert alone.covariance[0][0] == pytest.approx(covariance[0, 0])
    assert np.isnan([alone.difference, *alone.difference_ci95, alone.z, alone.p]).all()


def test_delong_agrees_with_resampling_patients():
    from histofeat.metrics import bootstrap_scores

    y, first, _, patients = cases(300)
    score = 1 / (1 + np.exp(-first))
    low, high = delong(y, score, patients=patients).ci95[0]
    resampled = bootstrap_scores(
        y, np.column_stack([1 - score, score]), patients, n_resamples=1000, metrics=["roc_auc"]
    )
    assert resampled.interval("roc_auc") == pytest.approx((low, high), abs=0.015)


def test_scores_that_rank_alike_and_scores_that_are_perfect():
    y, first, _, patients = cases()
    alike = delong(y, first, 3 * first + 1, patients=patients)
    assert (alike.difference, alike.z, alike.p) == (0.0, 0.0, 1.0)
    perfect = delong(y, y + 0.01 * np.arange(40), -y - 0.001 * np.arange(40), patients=patients)
    bound = 0.025 ** (1 / min(y.sum(), 40 - y.sum()))
    assert perfect.ci95 == (pytest.approx((bound, 1.0)), pytest.approx((0.0, 1 - bound)))
    assert (perfect.difference, perfect.z, perfect.p) == (1.0, np.inf, 0.0)


def test_delong_refuses_patches_and_points_to_the_bootstrap():
    y, first, _, patients = cases()
    patients[5] = patients[8] = patients[2]
    patients[9] = patients[3]
    with pytest.raises(
        ValueError, match=r"one row per patient, got 3 rows of patient 'P2' \(2 such patients\)\. Use bootstrap_scores"
    ):
        delong(y, first, patients=patients)
    with pytest.raises(GroupLeakageError, match="one patient id per patch, got None"):
        delong(y, first, patients=None)


def test_delong_refuses_by_name():
    y, first, second, patients = cases()
    first[4] = second[7] = np.nan
    with pytest.raises(ValueError, match=r"delong.score_a: expected finite scores, got nan for patient 'P4' \(1 such"):
        delong(y, first, patients=patients)
    with pytest.raises(ValueError, match=r"delong.score_b: expected finite scores, got nan for patient 'P7'"):
        delong(y, y + np.arange(40), second, patients=patients)
    with pytest.raises(ValueError, match=r"delong.score_a: expected scores that differ, got 0.5 for all 40 patients"):
        delong(y, np.full(40, 0.5), patients=patients)
    with pytest.raises(ValueError, match=r"delong.score_a: expected shape \(40,\), got \(39,\)"):
        delong(y, first[1:], patients=patients)
    with pytest.raises(ValueError, match=r"delong.y: expected labels 0 and 1, got 2 for patient 'P0' \(14 such"):
        delong(2 * y, first, patients=patients)
    one = np.eye(40, dtype=int)[3]
    with pytest.raises(ValueError, match=r"at least 2 patients of each class, got 39 of class 0 and 1 of class 1"):
        delong(one, np.arange(40), patients=patients)


# --- one row per patient ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["mean", "median", "max"])
def test_patient_scores_are_those_of_pandas(how):
    import pandas as pd

    rng = np.random.default_rng(0)
    patients = rng.integers(0, 30, 400)
    positive = rng.random(400)
    y = (patients % 3 == 0).astype(int)
    found = patient_scores(y, np.column_stack([1 - positive, positive]), patients, how)
    frame = pd.DataFrame({"patient": patients, "y": y, "score": positive}).groupby("patient")
    np.testing.assert_allclose(found.score, frame["score"].agg(how))
    assert found.y.tolist() == frame["y"].first().tolist()
    assert found.patients == tuple(map(str, sorted(set(patients.tolist()))))
    assert found.how == how
    assert delong(found.y, found.score, patients=found.patients).n_positive == 10


def test_patient_scores_refuse():
    proba = [[0.5, 0.5]] * 4
    with pytest.raises(
        ValueError, match=r"patient_scores.y: expected one label per patient, got both for patient 'b' \(1"
    ):
        patient_scores([0, 0, 0, 1], proba, list("aabb"))
    with pytest.raises(ValueError, match=r"patient_scores.how: expected one of mean, median, max, got 'vote'"):
        patient_scores([0, 0, 1, 1], proba, list("aabb"), "vote")
    with pytest.raises(ValueError, match=r"patient_scores.proba: expected two classes, got 3"):
        patient_scores([0, 0, 1, 2], np.full((4, 3), 1 / 3), list("aabb"))
    with pytest.raises(ValueError, match="proba: expected probabilities from 0 to 1, got"):
        patient_scores([0, 0, 1, 1], [[np.nan] * 2] * 4, list("aabb"))
    with pytest.raises(GroupLeakageError, match="patients: expected one patient id for each of 4 patches"):
        patient_scores([0, 0, 1, 1], proba, list("aab"))
