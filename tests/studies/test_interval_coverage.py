"""The simulation of coverage: its patients, heads and truth, its counting, and a quick run from end to end."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import binomtest, norm
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from histofeat.features import Runtime
from histofeat.metrics import METRICS, bootstrap_scores, patient_weights, scores
from histofeat.studies import IntervalCoverage, measure_interval_coverage
from histofeat.studies._interval_coverage import (
    INTERVALS,
    N_FOLDS,
    POPULATIONS,
    TARGET_METRICS,
    TESTS,
    _bounded,
    _cell,
    _compared,
    _count,
    _deal,
    _fixed,
    _out_of_fold,
    _probabilities,
    _refitted,
)

NONE, _, LARGE, NONE_BY_PATIENT, _, LARGE_BY_PATIENT = POPULATIONS
SIZES = {"repetitions": 60, "resamples": 100, "population": 10_000}


@pytest.fixture
def main(loaded_script, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with loaded_script("study.py") as module:
        yield lambda words: module.main(["interval-coverage", *words])


# --- patients and heads ----------------------------------------------------------------------------------------------


def test_patients_are_what_the_page_says():
    y, logits, patients = LARGE.draw(4000, np.random.default_rng(0))
    counts = np.bincount(patients)
    assert (counts.min(), counts.max(), len(counts)) == (5, 35, 4000)
    shares = np.bincount(patients, y) / counts
    assert 0.2 < shares.std() < 0.4
    frame = pd.DataFrame({"logit": logits[:, 0], "patient": patients})
    negative = frame[y == 0].groupby("patient")["logit"]
    assert negative.mean().mean() == pytest.approx(-1, abs=0.05)
    assert negative.mean().std() == pytest.approx(1.1, abs=0.1)  # 1 of the patient, the rest of few patches
    assert negative.var().mean() == pytest.approx(1, abs=0.05)
    assert _probabilities(np.array([0.0, np.log(3)])).tolist() == [
        [0.5, 0.5],
        [pytest.approx(0.25), pytest.approx(0.75)],
    ]


def test_patients_with_one_label():
    y, _, patients = LARGE_BY_PATIENT.draw(4000, np.random.default_rng(0))
    shares = np.bincount(patients, y) / np.bincount(patients)
    assert set(shares) == {0.0, 1.0}
    assert shares.mean() == pytest.approx(expit(-0.85), abs=0.03)


def test_models_are_equally_good_and_correlate_by_one_half():
    y, logits, patients = LARGE.draw(6000, np.random.default_rng(1), 3)
    aucs = [scores(y, _probabilities(column))["roc_auc"] for column in logits.T]
    assert np.ptp(aucs) < 0.012
    of_patients = pd.DataFrame(logits[y == 0]).groupby(patients[y == 0]).mean()
    assert of_patients.corr().to_numpy()[np.triu_indices(3, 1)] == pytest.approx([0.5] * 3, abs=0.05)


@pytest.mark.parametrize("population", POPULATIONS, ids=lambda one: f"{one.name}-{one.labels}")
def test_folds_keep_patients_whole_and_classes_even(population):
    rng = np.random.default_rng(3)
    for _ in range(20):
        y, _, patients = population.draw(30, rng)
        fold = _deal(y, patients, rng)
        carriers = np.array([len(np.unique(patients[y == code])) for code in (0, 1)])
        if fold is None:
            assert carriers.min() < N_FOLDS
            continue
        parts = [np.unique(patients[fold == number]) for number in range(N_FOLDS)]
        assert sorted(np.concatenate(parts)) == list(range(30))
        assert {len(part) for part in parts} == {6}
        for code in (0, 1):
            tested = [len(np.unique(patients[(fold == number) & (y == code)])) for number in range(N_FOLDS)]
            assert min(tested) >= carriers[code] // N_FOLDS - 1


def test_heads_are_the_discriminant_analysis_of_scikit_learn():
    rng = np.random.default_rng(5)
    y, x, patients = LARGE.draw(30, rng, 4)
    fold = _deal(y, patients, rng)
    proba, of_folds, (weights, constant) = _out_of_fold(y, x, fold)
    for number in range(N_FOLDS):
        test = fold == number
        head = LinearDiscriminantAnalysis(solver="lsqr").fit(x[~test], y[~test])
        assert proba[test] == pytest.approx(head.predict_proba(x[test]), abs=1e-5)
        assert of_folds[number]["roc_auc"] == scores(y[test], proba[test])["roc_auc"]
    assert weights == pytest.approx(head.coef_[0], abs=1e-4)
    assert constant == pytest.approx(head.intercept_[0], abs=1e-4)


@pytest.mark.parametrize("within", [False, True])
def test_resampled_auc_is_a_ratio_of_quadratic_forms_over_patients(within):
    """Concordant pairs of patients i and j count w_i w_j times: no ranking of patches is needed."""
    rng = np.random.default_rng(6)
    y, logits, patients = LARGE.draw(15, rng)
    fold = _deal(y, patients, rng) if within else np.zeros(len(y), dtype=int)
    drawn = bootstrap_scores(y, _probabilities(logits), patients, n_resamples=40, random_state=2, fold=fold)
    score = _probabilities(logits)[:, 1]
    positive, negative = (np.flatnonzero(y == code) for code in (1, 0))
    comparable = fold[positive, None] == fold[negative]
    above = np.sign(score[positive, None] - score[negative]) / 2 + 0.5
    concordant, pairs = np.zeros((2, 15, 15))
    np.add.at(concordant, (patients[positive, None], patients[negative]), above * comparable)
    np.add.at(pairs, (patients[positive, None], patients[negative]), comparable)
    w = patient_weights(patients, 40, 2).astype(float)
    expected = np.einsum("mi,ij,mj->m", w, concordant, w) / np.einsum("mi,ij,mj->m", w, pairs, w)
    assert drawn.samples["roc_auc"] == pytest.approx(expected, abs=1e-12)
    assert drawn.estimates["roc_auc"] == pytest.approx(concordant.sum() / pairs.sum())


# --- truth and counting ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 3])
def test_the_truth_is_the_closed_form_where_patients_are_alike(place):
    rows = _cell(_fixed, place, 10, {"repetitions": 20, "resamples": 5, "population": 10_000}, 0, 1)
    true = {(row["kind"], row["metric"]): row["truth"] for row in rows}
    recall, prevalence = norm.cdf(1), expit(-0.85)
    expected = {
        "roc_auc": norm.cdf(2 / 2**0.5),
        "balanced_accuracy": recall,
        "f1": 2 * prevalence * recall / (prevalence * recall + prevalence + (1 - prevalence) * (1 - recall)),
    }
    for metric, value in expected.items():
        assert true["t", metric] == true["percentile", metric] == pytest.approx(value, abs=0.01), metric
    assert (("patient_mean", "roc_auc") in true) == (place == 0)  # no patient has both classes
    if place == 0:
        assert true["patient_mean", "roc_auc"] == pytest.approx(expected["roc_auc"], abs=0.01)


def test_the_truth_of_a_method_rises_with_its_training_patients():
    few, many = (_cell(_refitted, 2, n, SIZES | {"resamples": 5}, 0, 1) for n in (10, 49))
    few, many = ({(row["kind"], row["metric"]): row["truth"] for row in rows} for rows in (few, many))
    assert few["method", "roc_auc"] == few["refits", "roc_auc"]
    assert few["method", "roc_auc"] + 0.01 < many["method", "roc_auc"]


def test_counting_of_intervals():
    found = np.array([[0.5, 0.4, 0.6], [0.6, 0.5, 0.7], [0.8, 0.7, 0.9], [0.2, 0.1, 0.3], [0.5, np.nan, np.nan]])
    row = _count(found, [0.4, 0.6, np.nan])
    assert (row["coverage"], row["n_repetitions"], row["truth"]) == (0.5, 4, 0.5)
    assert (row["truth_below"], row["truth_above"]) == (0.25, 0.25)
    assert row["mean_width"] == pytest.approx(0.2)
    assert row["needed_width"] == pytest.approx(3.92 * np.std([0.5, 0.6, 0.8, 0.2]))
    exact = binomtest(2, 4).proportion_ci(0.9, method="exact")
    assert (row["low"], row["high"]) == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize(("p", "size"), [([0.01, 0.05, 0.2, np.nan], 2 / 3), ([0.2, 0.3], 0.0), ([0.0], 1.0)])
def test_counting_of_p_values(p, size):
    row, n = _count(np.array(p), None), np.isfinite(p).sum()
    exact = binomtest(round((1 - size) * n), n).proportion_ci(0.9, method="exact")
    assert (row["coverage"], row["low"], row["high"]) == pytest.approx((1 - size, exact.low, exact.high))
    assert row["n_repetitions"] == n


def test_what_is_never_defined_is_no_row():
    assert _count(np.full((3, 3), np.nan), [0.5]) == _count(np.full(3, np.nan), None) == {"n_repetitions": 0}
    assert not _cell(_refitted, 3, 5, {"repetitions": 3, "resamples": 5, "population": 500}, 0, 1)


def test_repetitions_without_an_interval_are_counted():
    rows = _cell(_fixed, 3, 5, {"repetitions": 60, "resamples": 20, "population": 500}, 0, 1)
    (auc,) = (row for row in rows if (row["kind"], row["metric"]) == ("t", "roc_auc"))
    # Of five patients fewer than two are positive, or fewer than two are not.
    q = expit(-0.85)
    expected = (1 - q) ** 5 + 5 * q * (1 - q) ** 4 + q**5 + 5 * (1 - q) * q**4
    assert auc["without"] == pytest.approx(expected, abs=0.2)
    assert auc["n_repetitions"] == round(60 * (1 - auc["without"]))


def test_the_default_covers_better_than_percentiles_and_the_method_better_than_these_fits():
    fixed = {(row["kind"], row["metric"]): row for row in _cell(_fixed, 2, 10, SIZES | {"repetitions": 200}, 1, 1)}
    fitted = {(row["kind"], row["metric"]): row for row in _cell(_refitted, 2, 20, SIZES, 0, 1)}
    for metric in TARGET_METRICS:
        t, percentile, method = fixed["t", metric], fixed["percentile", metric], fitted["method", metric]
        assert t["high"] > 0.92, metric
        assert percentile["coverage"] < t["coverage"], metric
        assert method["high"] > 0.92, metric
        assert method["mean_width"] > fitted["refits", metric]["mean_width"], metric


def test_tests_of_equal_models_seldom_find_a_difference():
    rows = _cell(_compared, 4, 20, SIZES, 0, 1)
    assert {row["kind"] for row in rows} == set(TESTS)
    assert {row["metric"] for row in rows if row["kind"] != "bound"} == set(METRICS)
    assert all(row["high"] > 0.93 for row in rows)
    assert min(row["coverage"] for row in rows) < 1


def test_the_bound_at_its_worst_truth_errs_as_often_as_it_says():
    patients = np.repeat(np.arange(9), 4)
    y = (patients < 3).astype(int)
    drawn = [_bounded(y, patients, np.random.default_rng(i), {"n_resamples": 2}) for i in range(1500)]
    for name in ("roc_auc", "sensitivity"):
        p = [found["bound", name] for found in drawn]
        # All three right: 0.025. All three wrong, of which the other bound says enough: never.
        assert binomtest(p.count(0.0), len(p), 0.025).pvalue > 0.001
    assert not _bounded(np.arange(36) % 2, patients, np.random.default_rng(0), {"n_resamples": 2})


def row(kind, metric, coverage, n=100, differ="large", labels="patch"):
    return {"kind": kind, "metric": metric, "coverage": coverage, "patients_differ": differ, "n_patients": n,
            "labels": labels, "low": coverage - 0.01, "high": coverage + 0.01}  # fmt: skip


def test_the_worst_cells_in_words():
    rows = [
        row("t", "f1", 0.95),
        row("t", "brier", 0.905),
        row("t", "brier", 0.915),  # within the error of the simulation
        row("t", "precision", 0.5),  # no target
        row("t", "roc_auc", 0.995, 10, "none"),
        row("t", "roc_auc", 0.6, 10, labels="patient"),  # fewer patients than the target is about
        row("t", "roc_auc", 0.91, 20, labels="patient"),
        row("holm", "precision", 0.98),
        row("holm", "f1", 0.9, 20),
    ]
    found = IntervalCoverage(tuple(rows), 5, 5, 500)
    by_patch, by_patient, holm = (found.summary(*key) for key in (("t", "patch"), ("t", "patient"), ("holm", "patch")))
    assert [each["coverage"] for each in by_patch["outside"]] == [0.905, 0.995]
    assert by_patch["worst"]["words"] == "90.5 % (Brier score, 100 patients, differences between them: large)"
    assert (by_patch["cells"], by_patch["best"]["coverage"], by_patch["worst_metric"]["coverage"]) == (4, 0.995, 0.5)
    assert (by_patient["cells"], by_patient["worst"]["coverage"], by_patient["outside"]) == (1, 0.91, [])
    assert found.summary("method", "patch")["worst"] is None
    assert holm["worst"]["words"].startswith("10.0 % (F1, 20 patients")
    assert holm["best"]["words"].startswith("2.0 % (Precision")
    assert (holm["cells"], len(holm["outside"])) == (2, 1)
    assert len(json.loads(json.dumps(found.to_dict()))["summary"]) == 2 * (len(INTERVALS) + len(TESTS))


# --- the study -------------------------------------------------------------------------------------------------------


def test_threads_change_nothing_and_seeds_do():
    few = {"repetitions": 4, "resamples": 20, "population": 500, "compared": [10]}
    changes = ({}, {"runtime": Runtime(n_jobs=2)}, {"random_state": 1})
    one, two, other = (measure_interval_coverage([20], **few, **more) for more in changes)
    assert one == two != other


def test_a_quick_run_writes_a_whole_study(main, tmp_path, capsys):
    assert main(["--quick", "--output", "out", "--n-jobs", "1"]) == 0
    out = tmp_path / "out"
    assert "simulate: 18 of 18" in capsys.readouterr().err
    page = (out / "report.md").read_text()
    assert "Quick run" in page
    assert "| default interval, fixed scores | labels by patch | 10 | " in page
    assert "| 92.0 % to 98.0 % | 12 |" in page
    assert "| Patients differ | Patients | ROC-AUC | Average precision |" in page
    assert "histofeat study interval-coverage --output out --quick\n" in page
    found = json.loads((out / "metrics.json").read_text())["results"]
    assert {each["kind"] for each in found["rows"]} == {*INTERVALS, *TESTS}
    assert len(pd.read_csv(out / "coverage.csv")) == len(found["rows"])
    for metric in TARGET_METRICS:
        assert (out / f"figures/coverage_{metric}.svg").is_file()
    assert main(["--quick", "--output", "out"]) == 2
    assert "out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "least"), [("repetitions", 1, 2), ("resamples", 1, 2), ("population", 499, 500)]
)
def test_numbers_that_give_no_result_are_refused(name, value, least):
    with pytest.raises(
        ValueError, match=f"{name}: expected a whole number of at least {least}, got {value}. Leave it out"
    ):
        measure_interval_coverage(**{name: value})


def test_refusals_of_the_script(main, capsys):
    for option, name in (("--patients", "n_patients"), ("--compared", "compared")):
        assert main([option, "100", "4", "--output", "out"]) == 2
        assert f"{name}: expected a whole number of at least 5, got 4." in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize(
    ("simulate", "place", "n", "least", "most"),
    [
        (_fixed, 1, 20, 0.92, 0.98),
        (_fixed, 2, 20, 0.92, 0.98),
        (_fixed, 5, 20, 0.9, 1.0),
        (_refitted, 2, 20, 0.92, 1.0),
    ],
)
def test_the_hardest_cells_cover(simulate, place, n, least, most):
    sizes = {"repetitions": 2000, "resamples": 500, "population": 100_000}
    for each in _cell(simulate, place, n, sizes, 1, 2):
        if each["metric"] in TARGET_METRICS and each["kind"] in ("t", "method"):
            assert each["high"] >= least, each
            assert each["low"] <= most, each


@pytest.mark.long
@pytest.mark.parametrize("place", [0, 2, 5])
def test_sizes_of_all_tests_hold(place):
    rows = _cell(_compared, place, 10, {"repetitions": 2000, "resamples": 500, "population": 500}, 1, 2)
    assert not [each for each in rows if each["high"] < 0.93]
