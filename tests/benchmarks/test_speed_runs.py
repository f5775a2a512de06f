"""The speed benchmarks that take a process of their own to run: every row is there, no time is judged."""

import json

import pytest
from test_speed import run


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("speed")


@pytest.mark.long
def test_every_benchmark_without_a_network_runs(work):
    names = ["extraction", "store", "search", "job", "imports", "decode"]
    found = run("--quick", "--only", *names, "--output", "all", cwd=work)
    assert found.returncode == 0, found.stderr
    rows = {row["name"]: row for row in json.loads((work / "all/speed.json").read_text(encoding="utf-8"))["rows"]}
    assert rows["extraction/memory, 300 files"]["ours"] > 0
    assert "0 images computed" in rows["store/warm, 1 thread"]["checked"]
    assert rows["search/grid"]["ratio"] > 0
    assert rows["job/cross-validation"]["ratio"] > 0
    assert "Mean ROC-AUC of the folds" in rows["job/cross-validation"]["note"]
    assert 0 < rows["imports/histofeat"]["ours"] < 5
    assert rows["decode/all four"]["ratio_of"] == "ours / peer"


@pytest.mark.long
def test_networks_run(work):
    pytest.importorskip("keras")
    pytest.importorskip("openvino")
    found = run("--quick", "--only", "cnn", "histo", "--output", "cnn", cwd=work)
    assert found.returncode == 0, found.stderr
    rows = json.loads((work / "cnn/speed.json").read_text(encoding="utf-8"))["rows"]
    assert rows[0]["name"] == "cnn/mobilenetv2_0.35, float32"
    assert "random weights" in rows[0]["what"]
    one, eight = rows[-2:]
    assert (one["name"], eight["name"]) == ("histo/one view", "histo/eight views")
    assert "| histo/one view |" in (work / "cnn/speed.md").read_text(encoding="utf-8")
    assert one["ratio"] == pytest.approx(one["ours"] / one["peer"], rel=1e-3)
    assert "2,048 values" in one["checked"]
