"""What a report says of its probabilities, from an evaluation and from plain values."""

import json
from dataclasses import replace

import numpy as np
import pytest

from histofeat import IDCPipeline, PatientKFold, evaluate
from histofeat.evaluation import assess_probabilities
from histofeat.metrics import assess_calibration, scores
from histofeat.reporting import dataset_payload, draw_lines, jsonable, render_markdown
from histofeat.reporting._canvas import save_figure
from histofeat.reporting._curves import (
    calibration_key,
    reliability_data,
    reliability_line,
)
from histofeat.reporting._payload import data_label


@pytest.fixture(scope="module")
def evaluation(cohort):
    few = {"n_estimators": 20}
    pipelines = [
        ("color", IDCPipeline("color", "logistic")),
        ("color", IDCPipeline("color", "random_forest", head_params=few)),
    ]
    return evaluate(cohort, pipelines, PatientKFold(3), inner_cv=PatientKFold(2), n_resamples=60, random_state=2)


@pytest.fixture(scope="module")
def payload(evaluation):
    results = [
        {"name": model.name, "head": model.head, "calibration": calibration.to_dict()}
        for model, calibration in zip(evaluation.models, evaluation.calibration, strict=True)
    ]
    return jsonable({"dataset": dataset_payload(evaluation.dataset), "results": results})


def page(payload):
    known = {**payload, "payload": payload, "label": data_label(payload["dataset"])}
    return render_markdown("report-calibration.md.j2", known)


def section(payload):
    return " ".join(page(payload).split())


def tables_of(payload):
    """Give the cells of the table of scores and of that of their parts, row by row, under one row of names."""
    lines = [line for line in page(payload).splitlines() if line.startswith("|") and "---" not in line]
    rows = [[cell.strip().replace("\\", "") for cell in line[1:-1].split("|")] for line in lines]
    parts = next(number for number, row in enumerate(rows) if "Probabilities" in row)
    return rows[:parts], rows[parts:]


def test_payload_is_of_the_tested_rows_and_of_the_resamples_of_the_evaluation(evaluation, payload):
    model, found = evaluation.models[0], payload["results"][0]["calibration"]
    y, patients = evaluation.dataset.y, evaluation.dataset.patients
    for kind, proba in (("raw", model.proba), ("calibrated", model.calibrated)):
        expected = assess_calibration(y, proba[:, 1], patients, n_resamples=60, random_state=2)
        assert found[kind] == jsonable(expected.to_dict())
        assert found[kind]["brier"]["value"] == pytest.approx(scores(y, proba)["brier"])
    assert found["raw"]["brier"]["value"] == pytest.approx(model.scores["brier"].pooled)
    assert found["raw"]["brier"]["ci95"] == pytest.approx(list(model.scores["brier"].ci95))
    change = found["change"]["brier"]["value"]
    assert change == pytest.approx(found["calibrated"]["brier"]["value"] - found["raw"]["brier"]["value"])
    assert (found["n_bins"], found["strategy"]) == (10, "quantile")
    json.dumps(payload, allow_nan=False)


def test_section_has_a_row_per_model_and_says_how_it_was_calibrated(payload):
    words = section(payload)
    assert words.startswith("## Calibration Raw: as the heads give them")
    assert "fitted in each fold on its training patients" in words
    assert "Class weights" in words
    assert "10 bins of equally many patches" in calibration_key(payload["results"])
    assert words.count("10 bins of equally many patches") == 1
    (columns, *rows), (_, *parts) = tables_of(payload)
    assert [row[:2] for row in rows] == [["color", "logistic"], ["color", "random_forest"]]
    assert all(len(row) == len(columns) for row in rows)
    brier = payload["results"][0]["calibration"]["raw"]["brier"]
    low, high = brier["ci95"]
    assert rows[0][2] == f"{brier['value']:.3f} [{low:.3f}, {high:.3f}]"
    assert rows[0][4][0] in "+-"
    assert words.count("SYNTHETIC cohort.") == 2
    for row in parts:
        brier, reliability, resolution, uncertainty = map(float, row[3:7])
        assert reliability - resolution + uncertainty == pytest.approx(brier, abs=2e-4)
    assert [row[2] for row in parts] == ["raw", "calibrated"] * 2
    assert words.index("<details><summary>The parts of the Brier score") < words.index("| Uncertainty | Bias |")


def test_figure_can_be_drawn(payload, tmp_path):
    data = reliability_data(payload, "random_forest")
    (panel,) = data["panels"]
    assert [line["name"] for line in panel["lines"]] == ["raw", "calibrated"]
    for line in panel["lines"]:
        assert len(line["x"]) == len(line["y"]) == len(line["low"]) == len(line["high"])
        assert all(low <= share <= high for low, share, high in zip(line["low"], line["y"], line["high"], strict=True))
    save_figure(draw_lines, data, tmp_path / "curve.svg")
    assert (tmp_path / "curve.svg").stat().st_size > 5000
    assert reliability_data(payload, "svm") is None


def test_raw_alone_is_said_to_be_uncalibrated(payload):
    y, patients = np.array([0, 1] * 10), np.repeat(np.arange(5), 4)
    found = assess_probabilities(y, np.linspace(0.1, 0.9, 20), None, patients, n_resamples=0).to_dict()
    assert (found["calibrated"], found["change"]) == (None, None)
    alone = jsonable({**payload, "results": [{"name": "mine", "head": "h", "calibration": found}]})
    assert section(alone).startswith("## Calibration The probabilities are not calibrated: they are what the heads")
    (_, row), parts = tables_of(alone)
    assert row[3:5] == ["–", "–"]
    assert row[2] == f"{found['raw']['brier']['value']:.3f}"
    assert len(parts) == 2
    line = reliability_data(alone, "h")["panels"][0]["lines"][0]
    assert (line["low"], line["high"]) == (None, None)


def test_a_model_without_calibrated_probabilities_is_raw(evaluation):
    (model, _) = evaluation.models
    (found,) = replace(evaluation, models=(replace(model, calibrated=None),)).calibration
    assert (found.calibrated, found.change) == (None, None)


def test_empty_bins_are_left_out_of_the_line():
    curve = {
        "bins": {"n": [3, 0, 2], "mean_predicted": [0.1, None, 0.9], "share_positive": [0.0, None, 1.0]},
        "low": [0.0, None, 0.5],
        "high": [0.4, None, 1.0],
    }
    assert reliability_line("raw", curve) == {
        "name": "raw", "x": [0.1, 0.9], "y": [0.0, 1.0], "low": [0.0, 0.5], "high": [0.4, 1.0],
    }  # fmt: skip
    assert reliability_line("raw", {**curve, "low": [0.0, 0.1, float("nan")]})["low"] is None


def test_more_than_two_classes_and_reports_without_calibration(payload, evaluation):
    several = {"dataset": {**payload["dataset"], "labels": ["a", "b", "c"]}, "results": [{"calibration": None}]}
    assert section(several).startswith("## Calibration The probabilities are not calibrated beyond what the heads do")
    assert section({**payload, "results": []}) == ""
    assert section({**payload, "results": [{"name": "old", "head": "h"}]}) == ""
    named = replace(evaluation.dataset, target_names=("a", "b", "c"), positive=None)
    assert replace(evaluation, dataset=named).calibration == (None, None)
