"""The simulation of coverage: its generator, its truth, its counting, and a quick run from end to end."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import norm

from histofeat.features import Runtime
from histofeat.metrics import patient_averages
from histofeat.studies import IntervalCoverage, measure_interval_coverage
from histofeat.studies._interval_coverage import METRICS, POPULATIONS, _cover, _summary, _truth

NONE, _, LARGE = POPULATIONS
SIZES = {"repetitions": 60, "patch_repetitions": 30, "resamples": 150, "population": 5000}


@pytest.fixture
def main(loaded_script, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with loaded_script("study.py") as module:
        yield lambda words: module.main(["interval-coverage", *words])


def test_patients_are_what_the_page_says():
    y, proba, patients = LARGE.draw(4000, np.random.default_rng(0))
    counts = np.bincount(patients)
    assert (counts.min(), counts.max(), len(counts)) == (5, 35, 4000)
    shares = np.bincount(patients, y) / counts
    assert 0.2 < shares.std() < 0.4
    assert proba.sum(axis=1) == pytest.approx(np.ones(len(y)))
    margins = np.log(proba[:, 1] / proba[:, 0])
    negative = pd.DataFrame({"margin": margins, "patient": patients})[y == 0].groupby("patient")["margin"]
    assert negative.mean().mean() == pytest.approx(-1, abs=0.05)
    assert negative.mean().std() == pytest.approx(1.1, abs=0.1)  # 1 of the patient, the rest of few patches
    assert negative.var().mean() == pytest.approx(1, abs=0.05)


def test_the_truth_is_the_closed_form_where_patients_are_alike():
    true = _truth(NONE, 8000, np.random.default_rng(0))
    recall, specificity, prevalence = norm.cdf(1), norm.cdf(1), expit(-0.85)
    expected = {
        "roc_auc": norm.cdf(2 / 2**0.5),
        "balanced_accuracy": (recall + specificity) / 2,
        "f1": 2 * prevalence * recall / (prevalence * recall + prevalence + (1 - prevalence) * (1 - specificity)),
    }
    for metric, value in expected.items():
        assert true["patient"][metric] == true["patch"][metric] == pytest.approx(value, abs=0.005), metric
    assert true["patient_mean"]["roc_auc"] == pytest.approx(expected["roc_auc"], abs=0.005)


def test_the_truth_of_averages_is_the_same_in_parts_and_at_once():
    true = _truth(LARGE, 1100, np.random.default_rng(4))["patient_mean"]
    known = LARGE.draw(1100, np.random.default_rng(4))
    at_once = patient_averages(*known, metrics=tuple(METRICS), n_resamples=0)
    for metric in METRICS:
        assert true[metric] == pytest.approx(at_once.mean(metric))


def test_counting():
    found = np.array([[0.5, 0.4, 0.6], [0.6, 0.5, 0.7], [0.8, 0.7, 0.9], [0.2, 0.1, 0.3]])
    row = _summary(0.5, found)
    assert row["coverage"] == 0.5
    assert row["mc_error"] == 0.25
    assert (row["truth_below"], row["truth_above"]) == (0.25, 0.25)
    assert row["bias"] == pytest.approx(0.025)
    assert row["mean_width"] == pytest.approx(0.2)
    assert row["needed_width"] == pytest.approx(3.92 * np.std([0.5, 0.6, 0.8, 0.2], ddof=1))


def test_patients_cover_and_patches_do_not_where_patients_differ():
    rows = {(row["kind"], row["metric"]): row for row in _cover((2, 100), SIZES, 0, 1)}
    for metric in METRICS:
        patient, patch = rows["patient", metric], rows["patch", metric]
        assert patient["coverage"] > 0.85, metric
        assert patch["coverage"] < 0.8, metric
        assert patch["mean_width"] < 0.6 * patient["mean_width"], metric
        assert (patient["n_repetitions"], patch["n_repetitions"]) == (60, 30)


def test_threads_change_nothing_and_seeds_do():
    few = {"repetitions": 4, "patch_repetitions": 2, "resamples": 20, "population": 500}
    changes = ({}, {"runtime": Runtime(n_jobs=2)}, {"random_state": 1})
    one, two, other = (measure_interval_coverage([20], **few, **more) for more in changes)
    assert one == two != other


def test_the_verdict_names_what_lies_outside():
    def row(kind, metric, coverage, differ="large"):
        return {"kind": kind, "metric": metric, "coverage": coverage, "mc_error": 0.01, "patients_differ": differ,
                "n_patients": 100, "mean_width": 0.1, "needed_width": 0.2, "truth_below": 0.01,
                "truth_above": 0.04}  # fmt: skip

    rows = [
        row("patient", "f1", 0.95),
        row("patient", "brier", 0.91),
        row("patient", "brier", 0.94, "none"),
        row("patch", "f1", 0.3),
        row("patient_mean", "f1", 0.94),
    ]
    found = IntervalCoverage(tuple(rows), **SIZES).to_dict()["summary"]
    patient, mean, patch = found
    assert (patient["inside"], patient["cases"], patient["differing"], patient["alike"]) == (
        *(2, 3, [0.91, 0.95], [0.94, 0.94]),
    )
    assert patient["relative_width"] == [0.5, 0.5, 0.5]
    assert (patient["truth_below"], patient["truth_above"]) == pytest.approx((0.01, 0.04))
    assert [row["metric"] for row in patient["farthest"]] == ["brier"]
    assert (mean["inside"], mean["cases"], mean["alike"]) == (1, 1, None)
    assert (patch["inside"], patch["cases"], patch["farthest"]) == (0, 1, [])


def test_a_quick_run_writes_a_whole_study(main, tmp_path, capsys):
    assert main(["--quick", "--output", "out", "--n-jobs", "1"]) == 0
    out = tmp_path / "out"
    assert "simulate: 3 of 3" in capsys.readouterr().err
    page = (out / "report.md").read_text()
    assert "Quick run" in page
    assert "Pooled score, patients resampled: coverage between 92 and 98 % in" in page
    assert "Farthest outside: " in page
    assert "| ROC-AUC, % |" in page
    assert "python benchmarks/study.py interval-coverage --output out --n-jobs 1 --quick\n" in page
    rows = json.loads((out / "metrics.json").read_text())["results"]["coverage"]
    assert len(rows) == 3 * 3 * 4
    assert len(pd.read_csv(out / "coverage.csv")) == len(rows)
    for metric in ("roc_auc", "f1", "balanced_accuracy", "brier"):
        assert (out / f"figures/coverage_{metric}.svg").is_file()
    assert main(["--quick", "--output", "out"]) == 2
    assert "out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [("repetitions", 1, 2), ("patch_repetitions", 1, 2), ("resamples", 0, 1), ("population", 499, 500)],
)
def test_numbers_that_give_no_result_are_refused(name, value, least):
    with pytest.raises(
        ValueError, match=f"{name}: expected a whole number of at least {least}, got {value}. Leave it out"
    ):
        measure_interval_coverage(**{name: value})


def test_refusals_of_the_script(main, capsys):
    assert main(["--repetitions", "1", "--output", "out"]) == 2
    assert "repetitions: expected a whole number of at least 2, got 1." in capsys.readouterr().err
    assert main(["--patients", "100", "1", "--output", "out"]) == 2
    assert "n_patients: expected a whole number of at least 2, got 1." in capsys.readouterr().err
