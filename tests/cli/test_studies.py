"""`histofeat study`: any data set, options that are checked first, a page."""

import json
from pathlib import Path

import pandas as pd
import pytest

from histofeat import cli, make_breakhis_cohort
from histofeat.studies import STUDIES


@pytest.fixture
def study(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *words: cli.main(["study", *map(str, words)])


def test_every_study_is_listed(study, capsys):
    assert study("--help") == 0
    shown = capsys.readouterr().out
    assert {*STUDIES, "idc-official"} <= set(shown.split())
    assert "..." not in shown.partition("\n\n")[2]
    assert cli.main(["--help"]) == 0
    assert "..." not in capsys.readouterr().out.partition("\n\n")[2]


def test_a_study_of_breakhis_at_one_magnification(study, tmp_path, capsys):
    made = {"patients_per_subtype": 3, "images_per_slide": 2, "magnifications": (40, 100)}
    data = make_breakhis_cohort(root=tmp_path / "made", **made).root
    words = ["shortcuts", data, "--magnification", 100, "--features", "color", "--identify", "color,lbp"]
    assert study(*words, "--heads", "logistic", "--folds", 3, "--resamples", 20, "--quick", "--json") == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["report"] == str(Path("histofeat-reports/shortcuts/report.md"))
    assert "positive class: malignant" in printed.err
    folder = tmp_path / "histofeat-reports" / "shortcuts"
    assert "official test set" not in (folder / "report.md").read_text(encoding="utf-8")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["results"].keys() == found["results"].keys()
    assert metrics["command"].startswith("histofeat study shortcuts made --magnification 100 --features color")
    assert study("shortcuts", "--config", folder / "run.toml") == 2
    assert "holds a finished report. Choose another name, or pass --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["leak"], "No such command 'leak'"),
        (["leakage", "--few-patients", "few"], "--few-patients: expected int values with commas between, got 'few'"),
        (["breakhis", "--patient-key", "x"], "--patient-key: expected one of number, full, got 'x'"),
        (["breakhis", "--magnifications", "41"], "--magnifications: expected one of 40, 100, 200, 400, got 41"),
        (["learning-curves", "nowhere", "--features", "color"], "nowhere: expected a folder of images or a CSV file"),
        (
            ["robustness", "--features", "colour"],
            "--features: expected known names, got 'colour'. Did you mean 'color'",
        ),
    ],
)
def test_wrong_options_are_a_sentence_before_any_image(study, tmp_path, capsys, words, message):
    assert study(*words, *(["--quick"] if len(words) > 1 else [])) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_studies_of_features_take_embeddings(study, cohort, tmp_path, monkeypatch):
    assert cli.main(["extract", str(cohort.root), "--features", "color", "--quiet", "-o", "uni.parquet"]) == 0
    monkeypatch.setattr("histofeat.studies._idc_studies.SIGNATURE_COHORT", {"n_patients": 16, "patches_per_patient": 4})
    few = ["uni.parquet", "--folds", 2, "--resamples", 20]
    small = ["--heads", "logistic", "--few-heads", "logistic", "--few-patients", 8, "--draws", 1]
    assert study("leakage", *few, *small, "--output", "leakage") == 0
    assert study("learning-curves", *few, "--sizes", 4, "--draws", 1, "--output", "curves") == 0
    assert study("calibration", *few, "--heads", "logistic", "--levels", 0.6, "--output", "calibration") == 0
    for name, table in {"leakage": "leakage", "curves": "learning_curves", "calibration": "calibration"}.items():
        found = pd.read_csv(tmp_path / name / f"{table}.csv")
        assert set(found.get("name", found.get("pipeline"))) >= {"uni"}
