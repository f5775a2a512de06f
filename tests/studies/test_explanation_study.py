"""The explanation study as a person runs it, on a small tree of made-up patches under the names of real patients."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from histofeat import make_cohort
from histofeat.datasets import official_roles

NETWORK_FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"


@pytest.fixture(scope="module")
def script(loaded_script):
    with loaded_script("study.py") as module:
        yield lambda words: module.main(["explanation", *words])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve patients, three of them of the official test set, which no study may look at."""
    folder = tmp_path_factory.mktemp("data")
    cohort = make_cohort(12, 14, root=folder / "cohort")
    roles = official_roles()
    test = [patient for patient, role in roles.items() if role == "test"][:3]
    train = [patient for patient, role in roles.items() if role == "train"][:9]
    for number, patient in zip(sorted(set(cohort.patients)), test + train, strict=True):
        for old in sorted((cohort.root / number).rglob("*.png")):
            new = folder / "idc" / patient / old.parent.name / old.name.replace(number, patient)
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(old.read_bytes())
    return folder


@pytest.fixture
def main(script, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *options: script([*map(str, options), "--quick", "--resamples", "40", "--n-jobs", "1"])


@pytest.mark.slow
def test_a_run_writes_every_table_and_figure(main, data, tmp_path, capsys):
    """The network has no weights that can be read: it is named, and the rest goes on."""
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / NETWORK_FILE).write_bytes(b"no weights")
    assert main("--data", data, "--weights", weights, "--output", "out", "--head", "logistic") == 0
    said = capsys.readouterr()
    # What goes on is said there, and nothing else.
    assert all(re.fullmatch(r"[\w, ]+: [\d,]+ of [\d,]+, \d+ s", line) for line in said.err.splitlines())
    assert f"report: {Path('out/report.md')}" in said.out
    assert {path.name for path in (tmp_path / "out").rglob("*.*")} == {
        *("metrics.json", "report.md", "report.html", "run.toml"),
        *("importance_handcrafted.csv", "correlated_groups.csv", "ablation.csv", "cost.csv"),
        "importance_within_patients.csv",
        *(f"{name}.{kind}" for name in ("families", "features", "ablation", "cost") for kind in ("svg", "json")),
    }
    importance = pd.read_csv(tmp_path / "out/importance_handcrafted.csv")
    assert importance["by"].value_counts()[["family", "group", "feature"]].tolist() == [4, 18, 474]
    members = pd.read_csv(tmp_path / "out/correlated_groups.csv")
    assert members["column"].nunique() == len(members) == 474
    metrics = json.loads((tmp_path / "out/metrics.json").read_text(encoding="utf-8"))["results"]
    assert "Copy or download" in metrics["not_run"]["cnn"]
    assert NETWORK_FILE in metrics["not_run"]["cnn"]
    assert metrics["with_network"] is None
    assert {part["by"] for part in metrics["within_patients"]["parts"]} == {"family", "group"}
    assert metrics["dataset"]["n_patients"] == 9
    assert [row["name"] for row in metrics["ablation"]][:2] == ["all", "without color"]
    assert len(metrics["cost"]) == 10  # "without pftas" is color+lbp+haralick by another name
    text = (tmp_path / "out/report.md").read_text(encoding="utf-8")
    assert "## With the network" not in text
    assert "Not run" in text
    for row in metrics["ablation"]:
        assert f"| {row['name']} |" in text
    # The file that repeats the run names the places; what is shown to others does not.
    for path in {*(tmp_path / "out").rglob("*.*")} - {tmp_path / "out" / "run.toml"}:
        content = path.read_text(encoding="utf-8")
        assert not any(str(folder) in content for folder in (tmp_path, data))


@pytest.mark.long
def test_a_run_with_the_network(main, real_data, real_weights, tmp_path):
    pytest.importorskip("openvino", reason="openvino is not installed")
    assert main("--data", real_data, "--weights", real_weights, "--output", "out") == 0
    metrics = json.loads((tmp_path / "out/metrics.json").read_text(encoding="utf-8"))["results"]
    assert metrics["not_run"] == {}
    families = {part["name"]: part["n_columns"] for part in metrics["with_network"]["parts"] if part["by"] == "family"}
    assert families == {"color": 180, "lbp": 54, "haralick": 78, "pftas": 162, "cnn": 480}
    cost = {row["name"]: row["total_us"] for row in metrics["cost"]}
    assert cost["cnn alone"] > cost["color alone"]
    assert "## With the network" in (tmp_path / "out/report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--data", ".", "--weights", "nowhere"], "expected a file or folder of weights, found none at nowhere."),
        (["--head", "xgbost"], "Did you mean 'xgboost'"),
        (["--repeats", "0"], "n_repeats: expected a whole number of at least 1, got 0"),
    ],
)
def test_bad_options_get_a_sentence(main, data, tmp_path, capsys, options, message):
    assert main("--data", data, "--output", "out", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
