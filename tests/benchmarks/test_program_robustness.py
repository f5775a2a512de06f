"""The study of the program's robustness: a page of what was tried, and of what was not."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from histofeat.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def study(loaded_script):
    with loaded_script("protocols/program_robustness.py") as module:
        yield module


@pytest.mark.slow
def test_a_quick_run_writes_every_part(study, cohort, tmp_path, monkeypatch):
    fuzzed = [
        {"target": name, "engine": "hypothesis", "executions": 200, "curve": [[1, 5], [200, 70]], "seconds": 1.5,
         "peak_mib": 200, "findings": {"KeyError at x.py:1": {"count": 2, "words": "'a'", "input": "00"}} if n else {}}
        for n, name in enumerate(("images", "tables"))
    ]  # fmt: skip
    (tmp_path / "fuzzed.json").write_text(json.dumps(fuzzed))
    hostile = [{"file": "a.png", "bytes": 70, "outcome": "PatchError: a | b", "seconds": 0.1, "peak_mib": 200}]
    parts = {
        "memory": hostile,
        "patches": {"files": 500, "features": 180, "seconds": 1.0, "peak_mib": 300},
    }

    def called(module, function, *arguments):
        if module == "test_kills":
            return None
        if function == "in_a_process":
            return parts["patches"]
        return parts["memory"] if module == "memory" else original(module, function, *arguments)

    original = study.called
    monkeypatch.setattr(study, "called", called)
    monkeypatch.setattr("histofeat.cli._studies.PROGRAM", "python benchmarks/study.py")
    monkeypatch.setattr("histofeat.cli._studies.MORE", {"program-robustness": lambda: study.STUDY})
    words = [str(cohort.root), "--quick", "--fuzzed", str(tmp_path / "fuzzed.json")]
    assert main(["study", "program-robustness", *words, "--output", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    for words in ("| PNG | yes | one bit | 20 |", "Not tried", "kills", "| images | hypothesis | 200 | 70 |",
                  "tables, 2 times: KeyError at", "500 made-up patches", "a.png"):  # fmt: skip
        assert words in page, words
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text(encoding="utf-8"))
    # The installed command knows no studies of this repository.
    assert metrics["command"].startswith("python benchmarks/study.py program-robustness ")
    results = metrics["results"]
    assert results["not_tried"] == ["kills"]
    assert {row["wrong_pixels"] for row in results["damaged"] if row["checksum"]} == {0}


def test_kills_have_a_row_for_each_stage(study, monkeypatch):
    monkeypatch.setattr(study, "called", lambda module, function, *arguments: {"fits": {"kills": 3, "lost": 0.1}})
    assert study.kill(10, 0) == [{"stage": "fits", "kills": 3, "lost": 0.1}]


def test_without_earlier_results_each_target_is_run(study, monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "tests" / "robustness"))
    fuzz = importlib.import_module("fuzz")
    monkeypatch.setattr(fuzz, "run_target", lambda target, runs, engine, seed: (target, runs, engine, seed))
    found = study.fuzz(SimpleNamespace(fuzzed="", seed=3), 9)
    assert found == [(target, 9, fuzz.engine_of(), 3) for target in fuzz.TARGETS]


def test_what_is_not_there_is_not_tried(study):
    assert study.called("nothing_of_this_name", "measure") is None
