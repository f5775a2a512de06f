"""The study on calibration as a person runs it: on made-up patches, and on some real ones."""

import json

import numpy as np
import pandas as pd
import pytest

from histofeat import PatientKFold, make_cohort
from histofeat.datasets.synthetic._cohort_folder import MANIFEST
from histofeat.metrics import (
    assess_calibration,
    bootstrap_scores,
    choose_threshold,
    fit_calibrator,
    fit_conformal,
    label_scores,
    measure_coverage,
)
from histofeat.models import fit_with_inner_scores, make_head
from histofeat.studies import load_development_patients


@pytest.fixture(scope="module")
def script(loaded_script):
    with loaded_script("study.py") as module:
        yield lambda words: module.main(["calibration", *words])


@pytest.fixture(scope="module")
def cohort_folder(tmp_path_factory):
    """Made-up patches as a tree of the IDC set, without the manifest that says so."""
    root = make_cohort(20, 16, root=tmp_path_factory.mktemp("made") / "idc").root
    (root / MANIFEST).unlink()
    return root


def quick(folder, output, *more):
    options = ["--quick", "--features", "color", "--heads", "logistic", "--resamples", "50", "--n-jobs", "1"]
    return [*options, "--data", str(folder), "--output", str(output), *more]


@pytest.fixture(scope="module")
def finished(script, cohort_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("study") / "out"
    assert script(quick(cohort_folder, output)) == 0
    return output


def test_the_study_writes_what_its_page_names(finished, script):
    content = json.loads((finished / "metrics.json").read_text(encoding="utf-8"))
    found = content["results"]
    assert content["quick"] is True
    assert {(row["name"], row["head"]) for row in found["calibration"]} == {
        ("color", "logistic"), ("color", "logistic, class weights"),
    }  # fmt: skip
    # Sixteen training patients allow no coverage of 0.95.
    assert found["levels"] == [0.8, 0.9]
    assert len(found["conformal"]) == 2 * 4 * 2
    assert [row["rule"] for row in found["thresholds"]][:4] == ["0.5", "f1", "youden", "sensitivity=0.8"]
    report = (finished / "report.md").read_text(encoding="utf-8")
    for name in ("reliability_logistic", "reliability_logistic_weighted", "sensitivity", "coverage"):
        assert f"figures/{name}.svg" in report
        assert (finished / f"figures/{name}.svg").is_file()
        assert (finished / f"figures/{name}.json").is_file()
    assert "outside the official test set" in report
    row = next(row for row in found["conformal"] if (row["level"], "itself" in row["calibrated_on"]) == (0.9, True))
    assert f"Calibrated for each class by itself, the shares are {row['class_1']:.3f}" in report.replace("\n", " ")
    tables = {name: pd.read_csv(finished / f"{name}.csv") for name in ("calibration", "thresholds", "conformal")}
    assert len(tables["thresholds"]) == len(found["thresholds"]) == 2 * 7
    first = found["calibration"][0]["calibration"]
    assert tables["calibration"]["raw_ece_value"][0] == pytest.approx(first["raw"]["ece"]["value"], rel=1e-5)
    assert tables["conformal"]["patients"][0] == pytest.approx(found["conformal"][0]["patients"], rel=1e-5)


def test_numbers_are_those_of_doing_it_by_hand(finished, cohort_folder):
    from histofeat import IDCPipeline

    found = json.loads((finished / "metrics.json").read_text(encoding="utf-8"))["results"]
    dataset = load_development_patients(cohort_folder, quick=True)
    y, patients = dataset.y, dataset.patients
    X = IDCPipeline("color").transform(dataset.X)
    raw, calibrated, called = np.full((len(y), 2), np.nan), np.full((len(y), 2), np.nan), np.full(len(y), -1)
    sets, by_class = np.zeros((2, len(y), 2, 2), dtype=bool)
    for train, test in PatientKFold(5, random_state=0).split(X, y, patients):
        head = make_head("logistic", class_weight="balanced", random_state=0)
        inner_cv = PatientKFold(3, random_state=0)
        head, inner = fit_with_inner_scores(head, X[train], y[train], patients[train], inner_cv)
        raw[test] = head.predict_proba(X[test])
        calibrated[test] = fit_calibrator(y[train], inner).transform(raw[test])
        called[test] = raw[test, 1] >= choose_threshold(y[train], inner[:, 1], "sensitivity=0.9")
        known = y[train], inner, patients[train], (0.8, 0.9)
        sets[test] = fit_conformal(*known).predict_set(raw[test])
        by_class[test] = fit_conformal(*known, per_class=True).predict_set(raw[test])
    weighted = next(row for row in found["calibration"] if "weights" in row["head"])["calibration"]
    for kind, proba in (("raw", raw), ("calibrated", calibrated)):
        assessed = assess_calibration(y, proba[:, 1], patients, n_resamples=0)
        assert weighted[kind]["ece"]["value"] == pytest.approx(assessed.values["ece"])
    rule = next(row for row in found["thresholds"] if "weights" in row["head"] and row["asked"] == 0.9)
    counts = np.array([[np.sum((y == t) & (called == c)) for c in (0, 1)] for t in (0, 1)])
    assert rule["sensitivity"]["value"] == pytest.approx(label_scores(counts)["sensitivity"])
    resamples = bootstrap_scores(y, raw, patients, predicted=called, metrics=["sensitivity"], n_resamples=50)
    assert rule["sensitivity"]["ci95"] == pytest.approx(list(resamples.interval("sensitivity")))
    for words, given in (("patients, equal weight", sets), ("patients, each class by itself", by_class)):
        expected = measure_coverage(given, y, patients, (0.8, 0.9), n_resamples=50)
        rows = [row for row in found["conformal"] if "weights" in row["head"] and row["calibrated_on"] == words]
        for row, coverage in zip(rows, expected, strict=True):
            assert row["patients"] == pytest.approx(coverage.patients)
            assert row["class_1"] == pytest.approx(coverage.per_class[1])
            assert row["class_0_patients"] == pytest.approx(coverage.per_class_patients[0])
            assert row["patients_ci95"] == pytest.approx(list(coverage.interval("patients")))
            assert row["class_1_ci95"] == pytest.approx(list(coverage.interval("class_1")))


def test_wrong_options_are_one_sentence(script, cohort_folder, tmp_path, capsys):
    assert script(quick(cohort_folder, tmp_path / "a", "--sensitivity", "95")) == 2
    assert "required sensitivity above 0 and of at most 1, got 95.0" in capsys.readouterr().err
    assert script(quick(cohort_folder, tmp_path / "b", "--levels", "0.99")) == 2
    assert (
        "--levels: expected a coverage that 15 training patients with a class allow, got [0.99]"
        in capsys.readouterr().err
    )
    assert script(quick(cohort_folder, tmp_path / "c", "--levels", "1.5")) == 2
    assert "--levels: expected a number between 0 and 1, got 1.5" in capsys.readouterr().err
    assert script(quick(cohort_folder, tmp_path / "d", "--heads", "forest")) == 2
    assert "got 'forest'" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.long
def test_on_real_patches(script, real_data, tmp_path):
    arguments = [
        "--quick",
        "--features",
        "handcrafted",
        "--heads",
        "xgboost",
        "--data",
        str(real_data),
        "--n-jobs",
        "1",
    ]
    assert script([*arguments, "--output", str(tmp_path / "out"), "--resamples", "100"]) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))["results"]
    assert len(found["calibration"]) == 2
    assert all(0 < row["calibration"]["raw"]["brier"]["value"] < 0.25 for row in found["calibration"])
