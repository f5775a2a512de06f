"""The simulation of coverage: its generator, its truth, its counting, and a quick run from end to end."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import norm


@pytest.fixture(scope="module")
def study(loaded_script):
    with loaded_script("protocols/interval_coverage.py") as module:
        yield module


@pytest.fixture
def main(study, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return study.main


def options(**changes):
    return SimpleNamespace(**{"seed": 0, "repetitions": 60, "patch_repetitions": 30, "resamples": 150,
                              "population": 5000, "n_jobs": 1} | changes)  # fmt: skip


def test_patients_are_what_the_page_says(study):
    setting = study.Setting("large", 2.0, 1.0, 1.0, 100)
    y, proba, patients = setting.draw(4000, np.random.default_rng(0))
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


def test_the_truth_is_the_closed_form_where_patients_are_alike(study):
    setting = study.Setting("none", 0.0, 0.0, 0.0, 100)
    true = study.truth(setting, 8000, np.random.default_rng(0))
    recall, specificity, prevalence = norm.cdf(1), norm.cdf(1), expit(-0.85)
    expected = {
        "roc_auc": norm.cdf(2 / 2**0.5),
        "balanced_accuracy": (recall + specificity) / 2,
        "f1": 2 * prevalence * recall / (prevalence * recall + prevalence + (1 - prevalence) * (1 - specificity)),
    }
    for metric, value in expected.items():
        assert true["patient"][metric] == true["patch"][metric] == pytest.approx(value, abs=0.005), metric
    assert true["patient_mean"]["roc_auc"] == pytest.approx(expected["roc_auc"], abs=0.005)


def test_the_truth_of_averages_is_the_same_in_parts_and_at_once(study, monkeypatch):
    from histofeat.metrics import patient_averages

    setting = study.Setting("large", 2.0, 1.0, 1.0, 100)
    true = study.truth(setting, 1100, np.random.default_rng(4))["patient_mean"]
    known = setting.draw(1100, np.random.default_rng(4))
    at_once = patient_averages(*known, metrics=study.METRICS, n_resamples=0)
    for metric in study.METRICS:
        assert true[metric] == pytest.approx(at_once.mean(metric))


def test_counting(study):
    setting = study.Setting("none", 0.0, 0.0, 0.0, 100)
    found = np.array([[0.5, 0.4, 0.6], [0.6, 0.5, 0.7], [0.8, 0.7, 0.9], [0.2, 0.1, 0.3]])
    row = study.summary(setting, "patient", "f1", 0.5, found)
    assert row["coverage"] == 0.5
    assert row["mc_error"] == 0.25
    assert (row["truth_below"], row["truth_above"]) == (0.25, 0.25)
    assert row["bias"] == pytest.approx(0.025)
    assert row["mean_width"] == pytest.approx(0.2)
    assert row["needed_width"] == pytest.approx(3.92 * np.std([0.5, 0.6, 0.8, 0.2], ddof=1))
    assert study.percent(row) == "50.0 ± 25.0"


def test_patients_cover_and_patches_do_not_where_patients_differ(study):
    rows = study.cover(study.Setting("large", 2.0, 1.0, 1.0, 100), options())
    for metric in study.METRICS:
        patient = study.find(rows, kind="patient", metric=metric)
        patch = study.find(rows, kind="patch", metric=metric)
        assert patient["coverage"] > 0.85, metric
        assert patch["coverage"] < 0.8, metric
        assert patch["mean_width"] < 0.6 * patient["mean_width"], metric
        assert (patient["n_repetitions"], patch["n_repetitions"]) == (60, 30)


def test_threads_change_nothing_and_seeds_do(study):
    setting = study.Setting("medium", 1.0, 0.5, 0.5, 20)
    few = {"repetitions": 4, "patch_repetitions": 2, "resamples": 20, "population": 500}
    one, two, other = (study.cover(setting, options(**few, **more)) for more in ({}, {"n_jobs": 2}, {"seed": 1}))
    assert one == two != other


def test_the_verdict_names_what_lies_outside(study):
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
    patient, mean, patch = study.verdict(rows)
    assert "between 92 and 98 % in 2 of 3 cases; 91.0 to 95.0 % where patients differ, 94.0 to 94.0 % where" in patient
    assert "0.50 times as wide as 95 % needs (0.50 to 0.50); the truth lies below in 1.0 %, above in 4.0 %." in patient
    assert patient.endswith("Farthest outside: Brier score, differences large, 100 patients (91.0 ± 1.0 %).")
    assert "1 of 1 cases; 94.0 to 94.0 % where patients differ, not simulated where they are all alike." in mean
    assert "in 0 of 1 cases; 30.0 to 30.0 %" in patch
    assert "outside" not in patch


def test_a_quick_run_writes_a_whole_study(main, tmp_path, capsys):
    assert main(["--quick", "--output", "out", "--n-jobs", "1"]) == 0
    out = tmp_path / "out"
    assert "differences large, 100 patients: ROC-AUC covered" in capsys.readouterr().out
    page = (out / "report.md").read_text()
    assert "Quick run" in page
    assert "python benchmarks/protocols/interval_coverage.py --output out --n-jobs 1 --quick\n" in page
    rows = json.loads((out / "metrics.json").read_text())["results"]["coverage"]
    assert len(rows) == 3 * 3 * 4
    assert len(pd.read_csv(out / "coverage.csv")) == len(rows)
    for metric in ("roc_auc", "f1", "balanced_accuracy", "brier"):
        assert (out / f"figures/coverage_{metric}.svg").is_file()
    assert main(["--quick", "--output", "out"]) == 2
    assert "out" in capsys.readouterr().err


def test_refusals(main, capsys):
    assert main(["--repetitions", "1", "--output", "out"]) == 2
    assert "--repetitions: expected at least 2, got 1." in capsys.readouterr().err
    assert main(["--patients", "100", "1", "--output", "out"]) == 2
    assert "--patients: expected at least 2, got 1." in capsys.readouterr().err
