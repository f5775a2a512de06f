"""How a job grows, and networks and trees on a GPU: the curve, the rows, refusals, the same path at tiny sizes."""

import csv
import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from test_speed import SPEED, bench  # noqa: F401 - a fixture

SIZES = [10_000, 30_000, 100_000]


def measured(n, fits=1e-3):
    """Costs of each step at a size: 1 s and 1 GiB, and what grows with it."""
    grown = {"seconds": 1 + fits * n, "peak_bytes": 2**30 + 1000 * n}
    return {**dict.fromkeys(("extraction", "fits", "report", "scoring"), grown), "prediction": {"seconds": 1e-5 * n}}


def run(script, *words, cwd, env=None):
    command = [sys.executable, str(SPEED / script), *map(str, words)]
    environment = {**os.environ, "MPLBACKEND": "Agg", **(env or {})}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.parametrize("power", [0.7, 1, 1.2])
def test_the_curve_goes_through_costs_and_on(bench, power):  # noqa: F811
    costs = [3 + 1e-4 * n**power for n in SIZES]
    line = bench("scaling").curve(SIZES, costs)
    np.testing.assert_allclose([line(n) for n in SIZES], costs, rtol=1e-6)
    assert line(10**7) == pytest.approx(3 + 1e-4 * 10 ** (7 * power), rel=1e-3)


def test_noise_does_not_bend_the_curve(bench):  # noqa: F811
    costs = np.array([1.2, 3.1, 9.9])
    line = bench("scaling").curve(SIZES, costs)
    assert line(10**6) - line(5 * 10**5) == pytest.approx(line(5 * 10**5) - line(0), rel=1e-6)


def test_rows_hold_costs_exponents_the_check_and_projections(bench):  # noqa: F811
    found = {n: measured(n) for n in [*SIZES, 200_000]}
    rows = {row.name: row for row in bench("scaling").rows_of(found, 200_000)}
    assert rows["fits/10,000 patches"].ours == 11
    assert rows["memory of fits/30,000 patches"].ours == pytest.approx(1 + 3e7 / 2**30)
    assert rows["fits/200,000 patches"].ratio == pytest.approx(1)
    assert rows["prediction/exponent"].ours == pytest.approx(1)
    assert 0.9 < rows["fits/exponent"].ours < 1
    assert rows["memory of extraction/exponent"].ours < 0.1
    one, eight = (rows[f"projection/10,000,000 patches, fits on all; workers: {n}"] for n in (1, 8))
    assert one.ours == pytest.approx((4 * (1 + 1e4) + 100) / 3600)
    assert eight.ours == pytest.approx(((2 * (1 + 1e4) + 100) / 8 + 2 * (1 + 1e4)) / 3600)
    few = rows["projection/10,000,000 patches, fits on 500 of each of 1,000 slides; workers: 1"]
    assert few.ours == pytest.approx((3 * (1 + 1e4) + 1 + 500 + 100) / 3600)
    assert all(row.note == "Not measured" for name, row in rows.items() if name.startswith("projection"))


@pytest.mark.parametrize("name", ["speed.svg", "speed.png"])
def test_the_chart_is_the_same_twice(bench, tmp_path, name):  # noqa: F811
    found, files = {n: measured(n) for n in SIZES}, [tmp_path / "1" / name, tmp_path / "2" / name]
    for file in files:
        file.parent.mkdir()
        bench("scaling").draw(found, 100_000, None, file)
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        (
            "scaling",
            ["--sizes", "100"],
            "--sizes: expected 279 patches or more, and more of them in --check, got [100]",
        ),
        ("scaling", ["--sizes", "500", "--check", "500"], "got [500] and --check 500."),
        ("scaling", ["--sizes", "500", "--check", "0", "--tree", "."], "--tree: expected at least 500 files, got 0."),
        ("gpu", ["--engines", "troch"], "--engines: expected known names, got 'troch'. Did you mean 'torch'?"),
        ("gpu", [], "gpu: expected an NVIDIA GPU, got none. Use --device cpu"),
    ],
)
def test_bad_arguments_get_a_sentence(bench, monkeypatch, capsys, tmp_path, script, words, message):  # noqa: F811
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("PATH", "")  # and with it nvidia-smi
    monkeypatch.chdir(tmp_path)
    assert bench(script).main(["--output", "out", *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_job_of_two_sizes_and_a_check(tmp_path):
    words = ["--sizes", 300, 400, "--check", 500, "--inner-patches", 2, "--output", "out"]
    found = run("scaling.py", *words, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    with (tmp_path / "out/speed.csv").open(encoding="utf-8") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    for step in ("extraction", "fits", "report", "scoring"):
        assert float(rows[f"{step}/400 patches"]["ours"]) > 0
        assert 0.1 < float(rows[f"memory of {step}/500 patches"]["ours"]) < 2
        assert float(rows[f"{step}/500 patches"]["ratio"]) > 0
    assert "# How a job grows" in (tmp_path / "out/speed.md").read_text(encoding="utf-8")


@pytest.mark.long
@pytest.mark.parametrize("engine", ["torch", "jax", "tensorflow", "timm"])
def test_the_path_of_the_gpu_on_the_processor(tmp_path, engine):
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")
    words = ["--device", "cpu", "--engines", engine, "--files", 279, "--batches", 32, "--rows", 2000]
    found = run("gpu.py", *words, "--seconds", 40, "--output", "out", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    report = json.loads((tmp_path / "out/speed.json").read_text(encoding="utf-8"))
    assert (report["quick"], report["data"]) == (True, "No GPU: the same path on the processor")
    first, *others, trees = report["rows"]
    assert first["ours"] > 0, first["note"]
    assert "float32, batches of 32" in first["name"]
    assert first["unit"] == "patches/s"
    assert "on the CPU" in first["what"]
    assert "values within 0 relative or 0.001, from files and alone" in first["checked"]
    assert len(others) == 3
    assert all(row["ours"] is not None or "--seconds 40 were over" in row["note"] for row in others)
    assert trees["ratio"] > 0
    assert "ROC-AUC on other rows" in trees["checked"]


def test_an_engine_that_is_not_there_costs_its_rows_only(bench, monkeypatch, tmp_path):  # noqa: F811
    from types import SimpleNamespace

    gpu, options = bench("gpu"), SimpleNamespace(files=9, batches=[2], device="gpu", seconds=1, rows=9)

    def fails(*words, env=None):
        raise RuntimeError("gpu: expected a worker to finish, got:\nTraceback\nValueError: it sees no GPU")

    monkeypatch.setattr(gpu, "run_worker", fails)
    (row,), trees = gpu.embedding_rows("jax", tmp_path, 1, options), gpu.tree_row(options)
    assert row.note == trees.note == "Not measured: ValueError: it sees no GPU"


def test_rows_of_the_gpu(bench, monkeypatch, tmp_path):  # noqa: F811
    from types import SimpleNamespace

    gpu, options = bench("gpu"), SimpleNamespace(files=900, batches=[2], device="gpu", seconds=1, rows=9)
    one = {"size": 96, "engine": "Keras on gpu:0.", "checked": "8 values", "alone": 1, "files": 3, "decode": 2}
    worked = [["histo", "float32", 2, one], ["histo", "bfloat16", 2, None]]
    monkeypatch.setattr(gpu, "run_worker", lambda *words, env=None: worked if env else [[1, 0.9], [4, 0.9005]])
    first, second = gpu.embedding_rows("jax", tmp_path, 1, options)
    assert (first.name, first.ours, first.peer) == ("jax/histo, float32, batches of 2", 300, 900)
    assert first.note == "Reading, decoding and resizing alone: 450 patches/s"
    assert second.note == "Not measured: --seconds 1 were over"
    assert gpu.tree_row(options).ratio == 4
    monkeypatch.setattr(gpu, "run_worker", lambda *words: [[1, 0.9], [4, 0.91]])
    with pytest.raises(bench("rows").DisagreementError, match="xgboost: expected both sides within"):
        gpu.tree_row(options)
