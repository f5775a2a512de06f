"""The study of encoders as a person runs it, on synthetic patients and with the encoder of the package."""

import json

import numpy as np
import pandas as pd
import pytest

from histofeat import IDCPipeline, PatientKFold, cli, evaluate
from histofeat.features import CNNEmbedding, ColorHistogram, ImageFingerprint, TrainingImages
from histofeat.metrics import holm, pareto_front
from histofeat.studies._ablation import time_extraction
from histofeat.studies._robustness import thinned

NETWORK_FILE = "mobilenet_2_5_224_tf_no_top.h5"
FEW = ("--families", "color", "--heads", "logistic", "--folds", 3, "--resamples", 50, "--patches-per-patient", 8)


@pytest.fixture
def study(monkeypatch, tmp_path, cohort):
    pytest.importorskip("openvino", reason="openvino is not installed")
    monkeypatch.chdir(tmp_path)

    def run(*words):
        return cli.main(["study", "encoders", str(cohort.root), *map(str, (*FEW, *words)), "--output", "out"])

    return run


def found_in(folder):
    return json.loads((folder / "out" / "metrics.json").read_text(encoding="utf-8"))["results"]


def test_each_encoder_is_scored_alone_and_beside_handcrafted_features(study, cohort, tmp_path, capsys):
    """One has no weights that can be read: it is named, and the others go on. Scores are those of an evaluation."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / NETWORK_FILE).write_bytes(b"no weights")
    assert study("--weights", "weights", "--encoders", "mobilenet_0.25,histo", "--sizes", "96,128") == 0
    assert "histo, fit: 3 of 3" in capsys.readouterr().err
    found = found_in(tmp_path)
    assert list(found["not_run"]) == ["mobilenet_0.25, 96 px", "mobilenet_0.25, 128 px"]
    assert all("Copy or download" in reason for reason in found["not_run"].values())
    table = pd.read_csv(tmp_path / "out" / "encoders.csv").set_index("name")
    assert sorted(table.index) == ["handcrafted", "histo", "histo + handcrafted"]
    assert table["roc_auc"].is_monotonic_decreasing
    histo = len(CNNEmbedding("histo").get_feature_names_out())
    assert table["n_columns"].to_dict() == {"handcrafted": 180, "histo": histo, "histo + handcrafted": 180 + histo}
    parameters = table["n_parameters"].to_dict()
    assert parameters["handcrafted"] == 0
    assert parameters["histo"] == parameters["histo + handcrafted"] == CNNEmbedding("histo").n_parameters
    ms = table["ms"]
    assert 0 < ms["handcrafted"] < ms["histo + handcrafted"]
    assert table["on_front"].tolist() == pareto_front(table["ms"], table["roc_auc"]).tolist()
    compared = table.loc[["histo", "histo + handcrafted"]]
    assert compared["p_holm"].tolist() == pytest.approx(holm(compared["p"].to_numpy()).tolist())
    assert table.loc["handcrafted", ["p", "p_holm"]].isna().all()
    rows = thinned([np.arange(len(cohort))], cohort.patients, 8, 0)[0]
    sets = {"handcrafted": ["color"], "histo": ["histo"], "histo + handcrafted": ["color", "histo"]}
    folds = {"cv": PatientKFold(3, random_state=0), "inner_cv": PatientKFold(3), "n_resamples": 50}
    folds["search"] = {"logistic": {"C": [0.001, 0.003, 0.01, 0.03]}}
    sets = {name: IDCPipeline(families, "logistic") for name, families in sets.items()}
    expected = evaluate(cohort.subset(rows), sets, **folds)
    for model in expected.models:
        score, row = model.scores["roc_auc"], table.loc[model.name]
        assert (row["roc_auc"], row["low"], row["high"]) == pytest.approx((score.value, *score.ci95), abs=1e-6)
        assert row["difference"] == pytest.approx(score.value - expected.models[0].scores["roc_auc"].value, abs=1e-6)
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "Highest of 3 models" in page
    assert "The best of several is optimistic" in page
    assert "- **mobilenet_0.25, 96 px; mobilenet_0.25, 128 px** did not run: " in page
    assert (tmp_path / "out" / "figures" / "cost.svg").is_file()


def test_an_encoder_that_knows_the_patients_is_left_out(study, cohort, tmp_path, monkeypatch):
    known = TrainingImages.of("these", ImageFingerprint().transform(cohort.X[:40]))
    monkeypatch.setattr(CNNEmbedding, "trained_on", lambda self: known)
    assert study("--quick", "--encoders", "histo") == 0
    found = found_in(tmp_path)
    assert found["not_run"] == {
        "histo": "It was trained on these patients, or on the data set that they are from. Give images of others."
    }
    assert [row["name"] for row in found["rows"]] == ["handcrafted"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--encoders", "mobilenet"], "--encoders: expected known names, got 'mobilenet'. Did you mean"),
        (["--heads", "tree"], "--heads: expected known names, got 'tree'"),
        (["--families", "cnn"], "--families: expected known names, got 'cnn'"),
        (["--sizes", "32"], "--sizes: expected a whole number from 64 to 2048, got 32. Use 96."),
        (["--patches-per-patient", "0"], "--patches-per-patient: expected a whole number of at least 1, got 0"),
        (
            ["--weights", "empty"],
            "--encoders: expected a set that can run, got none: resnet50, 96 px: resnet50_weights",
        ),
    ],
)
def test_wrong_options_are_a_sentence(study, tmp_path, capsys, words, message, monkeypatch):
    monkeypatch.setattr(
        "histofeat.networks.pretrained._weights.fetch_file", lambda *_: (_ for _ in ()).throw(OSError("cut"))
    )
    (tmp_path / "empty").mkdir()
    assert study("--encoders", "resnet50", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_time_of_families_is_measured_on_copies(cohort):
    """A clock that a family moves by hand: 0.25 s a patch in the fastest pass."""
    now = [0.0]

    class Slow(ColorHistogram):
        def _compute(self, batch):
            now[0] += 0.25 * len(batch.rgb)
            return super()._compute(batch)

    network = CNNEmbedding("histo")
    costs, _ = time_extraction({"slow": [Slow()]}, cohort.X[:6], clock=lambda: now[0])
    assert costs == pytest.approx({"slow": 250_000})
    pytest.importorskip("openvino", reason="openvino is not installed")
    time_extraction({"histo": [network]}, cohort.X[:2], n_repeats=1)
    assert network.n_threads is None
