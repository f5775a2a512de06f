"""The script that trains a model, maps a patient that it has not seen, and keeps picture and numbers."""

import json

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="module")
def script(loaded_script):
    with loaded_script("slide_map.py") as module:
        yield module


def test_patient_is_mapped_by_a_model_of_the_others(script, tmp_path, capsys):
    words = ["--quick", "--output", str(tmp_path / "map")]
    assert script.main(words) == 0
    facts = json.loads((tmp_path / "map/map.json").read_text())
    assert (facts["synthetic"], facts["known"], facts["tiles"]) == (True, False, 40)
    assert facts["trained"]["about"]["n_patients"] == 7
    assert cv2.imread(str(tmp_path / "map/map.png")).shape[1] == 1600
    assert sorted(path.name for path in (tmp_path / "map").iterdir()) == ["map.json", "map.png"]
    capsys.readouterr()
    assert script.main(words) == 2
    assert "expected a new folder" in capsys.readouterr().err


def test_training_leaves_out_the_patient_and_the_official_test_patients(script, tmp_path):
    for patient in ("8864", "8865", "8867", "10254"):  # the first is one of them
        for label in (0, 1):
            path = tmp_path / patient / str(label) / f"{patient}_idx5_x{1 + 50 * label}_y1_class{label}.png"
            path.parent.mkdir(parents=True)
            cv2.imwrite(str(path), np.full((50, 50, 3), 200, np.uint8))
    options = script.make_parser().parse_args(["--data", str(tmp_path), "--patient", str(tmp_path / "8867")])
    assert script.real(options, None)[2] == ["10254", "8865"]


def test_data_and_patient_go_together(script, tmp_path, capsys):
    assert script.main(["--data", str(tmp_path)]) == 2
    assert "--patient: expected it together with --data" in capsys.readouterr().err
