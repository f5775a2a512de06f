"""What studies share: patients that they leave alone, errors in one sentence, a folder that is whole or not there."""

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from parsing import options_of

import histofeat.reporting
from histofeat.reporting import write_study
from histofeat.studies import (
    FEATURE_SETS,
    SETS,
    STUDIES,
    Findings,
    Study,
    find_idc,
    find_study,
    load_development_patients,
)


@pytest.fixture(scope="module")
def study(loaded_script):
    with loaded_script("study.py") as module:
        yield module


@pytest.fixture(scope="module")
def candidates(study, loaded_script):
    with loaded_script("protocols/official_candidates.py") as module:
        yield module


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in ("OMP_WAIT_POLICY", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "x")


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_of_the_register_has_options_and_a_template(study, name):
    found = find_study(name)
    assert found.name == name
    options = vars(options_of(found, *(["--data", "x"] if found.data else [])))
    assert {option.replace("-", "_") for option in found.options} <= set(options)
    templates = Path(histofeat.reporting.__file__).with_name("templates")
    assert (templates / f"study-{name}.md.j2").is_file()


def test_the_help_of_studies_names_every_feature_set():
    assert set(FEATURE_SETS) == set(re.findall(r"\w+", re.sub(r"\(.*?\)", "", SETS.partition(":")[2])))


def test_an_unknown_study_is_refused():
    with pytest.raises(ValueError, match="study: expected a known name, got 'leak'"):
        find_study("leak")


def test_patients_of_the_official_test_set_are_left_alone(tmp_path):
    """Four patients with the ids of that set, three of others."""
    from histofeat.datasets import official_roles

    test = [patient for patient, role in official_roles().items() if role == "test"][:4]
    others = ["1", "2", "3"]
    _write_patients(tmp_path, test + others)
    dataset = load_development_patients(tmp_path)
    assert sorted(set(dataset.patients)) == others
    _write_patients(tmp_path / "only", test)
    with pytest.raises(
        ValueError, match="expected patches outside the official test set, got only patients of that set"
    ):
        load_development_patients(tmp_path / "only")


def test_patients_of_several_folders(study, tmp_path):
    _write_patients(tmp_path / "a", ["1", "2"])
    _write_patients(tmp_path / "b", ["3"])
    folders = [tmp_path / "a", tmp_path / "b" / "idc"]
    assert find_idc(folders) == [tmp_path / "a" / "idc", tmp_path / "b" / "idc"]
    assert set(load_development_patients(folders).patients) == {"1", "2", "3"}
    words = study.translated(["leakage", "--data", *map(str, folders)], beside=True)
    assert words == ["leakage", str(tmp_path / "a" / "idc"), str(tmp_path / "b" / "idc")]


def _write_patients(folder, patients):
    import cv2

    rng = np.random.default_rng(0)
    for patient in patients:
        for label in (0, 1):
            place = folder / "idc" / patient / str(label)
            place.mkdir(parents=True)
            pixels = rng.integers(0, 255, (50, 50, 3), dtype=np.uint8)
            cv2.imwrite(str(place / f"{patient}_idx5_x{1 + 50 * label}_y1_class{label}.png"), pixels)


def test_an_error_is_one_sentence_and_code_two(study, capsys):
    def fail(options):
        raise ValueError("expected this, got that. Do so.")

    def stop(options):
        raise KeyboardInterrupt

    assert study.run_command("s.py", fail, None) == 2
    assert capsys.readouterr().err == "s.py: expected this, got that. Do so.\n"
    assert study.run_command("s.py", stop, None) == 130
    assert "no report was written" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="143"):
        study.run_command("s.py", lambda options: os.kill(os.getpid(), signal.SIGTERM), None)
    assert study.run_command("s.py", lambda options: None, None) == 0


@pytest.fixture
def written(tmp_path):
    """Write findings as the page of the study of candidates."""
    template = Path(__file__).resolve().parents[2] / "benchmarks" / "protocols" / "study-official-candidates.md.j2"
    study = Study("official-candidates", "Title", "what", run=None, template=template)
    options = {"quick": True}

    def write(findings):
        return write_study(tmp_path / "out", study, findings, options, command="python s.py")

    return write


RESULTS = {"rows": [], "not_run": [], "tested": {"patches": 1, "patients": 1}, "share": np.float64(0.25)}


def test_a_study_is_a_folder_with_page_numbers_tables_and_figures(written):
    rows = [{"name": "a", "value": 0.1, "low": 0.0, "high": 0.2}]
    found = Findings(
        {**RESULTS, "undefined": float("nan")},
        {"rows": pd.DataFrame(rows)},
        {"rows": ("intervals", {"title": "t", "x_label": "x", "rows": rows})},
    )
    page = written(found)
    folder = page.parent
    assert "Its numbers say nothing" in page.read_text(encoding="utf-8")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["results"]["share"], metrics["results"]["undefined"]) == (0.25, None)
    expected = {"metrics.json", "report.md", "report.html", "rows.csv", "figures/rows.svg", "figures/rows.json"}
    assert set(metrics["files"]) == expected
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == expected
    with pytest.raises(FileExistsError, match="holds a finished report"):
        written(found)


def test_a_study_that_fails_leaves_nothing_behind(written, tmp_path):
    with pytest.raises(KeyError):
        written(Findings(RESULTS, {}, {"rows": ("no kind", {})}))
    assert not list(tmp_path.iterdir())


def test_candidates_are_compared_from_end_to_end(study, tmp_path):
    from histofeat import make_cohort

    make_cohort(n_patients=12, patches_per_patient=10, root=tmp_path / "idc")
    words = ["--data", str(tmp_path), "--output", str(tmp_path / "out"), "--quick"]
    assert study.main(["official-candidates", *words]) == 0
    [row] = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))["results"]["rows"]
    assert row["candidate"] == "handcrafted"
    assert row["roc_auc_low"] <= row["roc_auc"] <= row["roc_auc_high"]


def test_every_candidate_is_a_pipeline_of_its_own_name(candidates):
    from types import SimpleNamespace

    chosen = SimpleNamespace(weights=None, seed=0)
    pipelines = {candidate.name: candidate.pipeline(chosen) for candidate in candidates.CANDIDATES}
    assert len(pipelines) == len(candidates.CANDIDATES)
    assert candidates.CHOSEN in candidates.CANDIDATES
    vote = pipelines["PFTAS and stages, vote"].get_params()
    assert vote["head__xgboost__n_estimators"] == candidates.SLOW_BOOSTING["n_estimators"]
    assert vote["features__cnn__encoder"] == candidates.STAGES


def test_a_study_is_run_by_its_name(study, capsys):
    assert study.main(["interval-coverage", "--repetitions", "1", "--output", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("histofeat: --repetitions: expected a whole number of at least 2")
    assert study.main(["leak"]) == 2
    assert "No such command 'leak'" in capsys.readouterr().err
    assert study.main(["leakage", "--folds", "two"]) == 2
    assert "See `histofeat study leakage --help`" in capsys.readouterr().err


def test_options_of_the_protocols_are_listed_too(study, capsys):
    assert study.main(["--help"]) == 0
    assert {*STUDIES, *study.PROTOCOLS} <= set(capsys.readouterr().out.split())
    assert study.main(["idc-networks", "--help"]) == 0
    assert "--development" in capsys.readouterr().out
