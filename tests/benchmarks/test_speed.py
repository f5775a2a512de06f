"""The speed benchmarks: peers compute what the families compute, and the report is written whole. No time is judged."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

SPEED = Path(__file__).resolve().parents[2] / "benchmarks" / "speed"
MODULES = {path.stem for path in SPEED.glob("*.py")}


@pytest.fixture
def bench(monkeypatch):
    """Import a file of the benchmarks as they import each other: by its bare name."""
    import importlib

    before = {name: sys.modules.pop(name) for name in MODULES & set(sys.modules)}
    monkeypatch.syspath_prepend(SPEED)
    yield importlib.import_module
    for name in MODULES & set(sys.modules):
        del sys.modules[name]
    sys.modules.update(before)


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, str(SPEED / "run.py"), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("speed")


@pytest.fixture(scope="module")
def finished(work):
    """A quick run of one family."""
    found = run("--quick", "--only", "lbp", "--output", "out", cwd=work)
    assert found.returncode == 0, found.stderr
    return found


# --- both sides compute the same ------------------------------------------------------------------------------------


FAMILIES = ["color", "lbp", "haralick", "pftas", "clbp", "lpq", "glcm"]


@pytest.mark.parametrize("family", FAMILIES)
def test_peers_equal_ours(bench, patches, family):
    words = bench("families").check_families([family], patches[:2])
    assert words[family]


@pytest.mark.parametrize("value", [0, 128, 255])
def test_peers_equal_ours_on_flat_patches(bench, value):
    flat = np.full((1, 50, 50, 3), value, dtype=np.uint8)
    assert list(bench("families").check_families(FAMILIES, flat)) == FAMILIES


def test_peers_of_one_channel_equal_ours(bench, patches):
    options = SimpleNamespace(quick=True, radiomics_python=Path(sys.executable))
    material = SimpleNamespace(patches=lambda n: ([], patches[:2]), label="made")
    mahotas, scikit_image, radiomics = bench("families").measure_one_channel(material, options)
    assert "52 values" in mahotas.checked
    assert "10 values" in scikit_image.checked
    # In the tests' own interpreter it is not installed: the row says so and claims nothing.
    assert radiomics.ours is None or "24 values" in radiomics.checked
    assert radiomics.ours is not None or "pyradiomics is not installed" in radiomics.note


def test_a_peer_that_differs_ends_the_comparison(bench, patches, monkeypatch):
    families, peers, rows = bench("families"), bench("peers"), bench("rows")
    other = peers.pftas
    monkeypatch.setitem(peers.PEERS, "pftas", lambda channels: other(channels) + 1e-3)
    with pytest.raises(rows.DisagreementError, match="pftas: expected equal results"):
        families.check_families(["pftas"], patches[:1])
    monkeypatch.setitem(peers.PEERS, "color", lambda channels: peers.color(channels) * 1.01)
    with pytest.raises(rows.DisagreementError, match=r"color: expected both sides within rtol 0\.0001"):
        families.check_families(["color"], patches[:1])
    monkeypatch.setitem(peers.PEERS, "lbp", lambda channels: np.roll(peers.lbp(channels), 1))
    with pytest.raises(rows.DisagreementError, match="lbp: expected the patterns"):
        families.check_families(["lbp"], patches[:1])


@pytest.mark.parametrize(
    ("family", "moved", "message"),
    [
        # One pixel of a patch in another bin.
        ("clbp", np.eye(1, 162)[0] / 44**2, "clbp: expected both sides within rtol 0 and atol 1e-06, got 1 of 162"),
        ("lpq", np.eye(1, 256)[0] / 44**2, "lpq: expected both sides within rtol 0 and atol 1e-06, got 1 of 256"),
        ("glcm", np.full(120, 1e-3), r"glcm: expected both sides within rtol 0\.0001"),
    ],
)
def test_a_later_peer_that_differs_ends_the_comparison(bench, patches, monkeypatch, family, moved, message):
    peers = bench("peers")
    other = peers.PEERS[family]
    monkeypatch.setitem(peers.PEERS, family, lambda channels: other(channels) + moved)
    with pytest.raises(bench("rows").DisagreementError, match=message):
        bench("families").check_families([family], patches[:1])


def test_nan_is_never_the_same(bench):
    rows = bench("rows")
    with pytest.raises(rows.DisagreementError, match="1 of 2 values"):
        rows.check_close("x", [1.0, np.nan], [1.0, 2.0], rtol=1, atol=1)
    with pytest.raises(rows.DisagreementError, match="first nan against nan"):
        rows.check_close("x", [np.nan], [np.nan], rtol=1, atol=1)
    with pytest.raises(rows.DisagreementError, match=r"got \(1,\) and \(2,\)"):
        rows.check_close("x", [1.0], [1.0, 2.0], rtol=1, atol=1)


# --- timing ---------------------------------------------------------------------------------------------------------


def test_sides_run_in_turn_after_a_warm_up(bench):
    calls = []
    first, second = bench("rows").race(lambda: calls.append("a"), lambda: calls.append("b"), repeats=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert len(first) == len(second) == 3
    assert bench("rows").race(lambda: 2.0, repeats=2, clock=lambda call: call()) == [[2.0, 2.0]]


def test_things_per_second_are_those_of_the_best_repeat(bench):
    rows = bench("rows")
    fields = {"name": "n", "what": "w", "ratio_of": "ours / peer"}
    sides = (2.0, 1.0, 4.0), (8.0, 4.0, 16.0)
    row = rows.compare(*sides, count=200, unit="patches/s", per_second=True, **fields)
    assert (row.ours, row.peer, row.ratio, row.ours_median) == (200, 50, 4, 100)


def test_one_core_gives_back_what_it_took(bench):
    import cv2

    before = cv2.getNumThreads()
    with bench("rows").one_core():
        assert cv2.getNumThreads() == 1
    assert cv2.getNumThreads() == before


def test_a_row_without_a_peer_or_a_measurement_has_no_ratio(bench):
    rows = bench("rows")
    fields = {"name": "n", "what": "w"}
    assert rows.Row(unit="s", ours=1.0, peer=2.0, **fields).ratio == 2
    assert rows.Row(unit="s", ours=1.0, **fields).ratio is None
    gone = rows.missing("no such processor", **fields)
    assert gone.ratio is None
    assert gone.note == "Not measured: no such processor"


# --- what is measured -----------------------------------------------------------------------------------------------


def test_only_names_benchmarks_and_families(bench):
    run = bench("run")
    assert set(run.FAMILIES) == {*bench("families").FAMILIES, *bench("families").LATER}
    for only, benchmarks, families in [
        (["glcm"], ["families"], ["glcm"]),
        (["large", "lpq"], ["large"], ["lpq"]),
        (["one-channel"], ["one-channel"], []),
        (list(run.BENCHMARKS), list(run.BENCHMARKS), []),
    ]:
        options = run.make_parser().parse_args(["--only", *only])
        run.check(options)
        assert (options.benchmarks, options.families) == (benchmarks, families)


def test_views_of_the_shipped_encoder_are_those_of_the_package(bench, patches):
    from histofeat.images import VIEWS, take_view

    theirs = {view.tobytes() for view in bench("cnn").turned_and_mirrored(patches[:2])}
    assert theirs == {take_view(patches[:2], view).tobytes() for view in VIEWS}
    assert len(theirs) == 8


def test_tree_has_the_layout_of_idc_and_no_file_twice(bench, tmp_path, patches):
    from histofeat import load_idc

    n_bytes = bench("extraction").make_tree(tmp_path, 600, [*patches, patches[0][:20, :30]])
    files = list(tmp_path.rglob("*.png"))
    assert len(files) == 600
    assert n_bytes == sum(path.stat().st_size for path in files)
    assert len({path.read_bytes() for path in files}) == 600
    dataset = load_idc(tmp_path)
    assert len(dataset) == 600
    assert set(dataset.y) == {0, 1}


def test_a_full_disk_is_refused_before_anything_is_written(bench, tmp_path):
    with pytest.raises(OSError, match=r"expected .* GB free for 1,000,000,000,000 temporary files"):
        bench("extraction").check_space(tmp_path, 10**12)


def test_synthetic_large_images_have_breakhis_s_size(bench, tmp_path):
    label, images = bench("material").Material(None, tmp_path, quick=True).large(2)
    assert label == "mosaics of synthetic patches, 700x460"
    assert [image.shape for image in images] == [(460, 700, 3)] * 2
    assert not np.array_equal(*images)


def test_real_material(bench, real_data, tmp_path):
    material = bench("material").Material(real_data, tmp_path)
    label, images = material.large(1)
    assert label == "real BreakHis images, 700x460"
    assert images[0].shape == (460, 700, 3)
    files, decoded = material.patches(5)
    assert (len(files), decoded.shape) == (5, (5, 50, 50, 3))
    assert len(material.different(20)) == 20


@pytest.mark.slow
def test_radiomics_peer_equals_ours(bench, patches):
    python = os.environ.get("HISTOFEAT_RADIOMICS_PYTHON")
    if not python:
        pytest.skip("HISTOFEAT_RADIOMICS_PYTHON is not set: no interpreter with pyradiomics")
    options = SimpleNamespace(quick=True, radiomics_python=Path(python))
    material = SimpleNamespace(patches=lambda n: ([], patches[:2]), label="made")
    assert "24 values" in bench("families").measure_one_channel(material, options)[2].checked


# --- the report -----------------------------------------------------------------------------------------------------


def test_quick_run_writes_every_file(finished, work):
    assert {path.name for path in (work / "out").iterdir()} == {
        *("speed.json", "speed.csv", "speed.md", "speed.svg", "speed.png")
    }
    report = json.loads((work / "out/speed.json").read_text(encoding="utf-8"))
    assert report["schema"] == 2
    assert report["machine"]["cpu"]
    assert {"numpy", "mahotas", "scikit-image"} <= set(report["machine"]["packages"])
    assert report["command"] == "python benchmarks/speed/run.py --output out --quick --only lbp"
    (row,) = report["rows"]
    assert row["name"] == "families/lbp"
    assert row["ratio"] == pytest.approx(row["peer"] / row["ours"], rel=1e-3)
    assert row["checked"].startswith("1,728 shares")
    with (work / "out/speed.csv").open(encoding="utf-8") as file:
        assert [line["name"] for line in csv.DictReader(file)] == ["families/lbp"]
    table = (work / "out/speed.md").read_text(encoding="utf-8")
    assert "| families/lbp |" in table
    assert "Its numbers say nothing" in table
    assert (work / "out/speed.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_report_does_not_tell_whose_machine_it_was(finished, work):
    for path in (work / "out").glob("*.[jcms][sdv]*"):
        text = path.read_text(encoding="utf-8")
        assert str(work) not in text
        assert str(SPEED.parent.parent) not in text
        assert os.sep + "tmp" + os.sep not in text


def test_a_finished_report_is_not_overwritten_unasked(finished, work, bench, monkeypatch, capsys):
    before = (work / "out/speed.json").read_bytes()
    for variable in ("OMP_WAIT_POLICY", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(variable, os.environ.get(variable, "3"))
    monkeypatch.chdir(work)
    assert bench("run").main(["--quick", "--only", "lbp", "--output", "out"]) == 2
    said = capsys.readouterr()
    assert "holds a finished report. Choose another name, or pass --overwrite" in said.err
    assert said.out == ""
    assert (work / "out/speed.json").read_bytes() == before


def test_output_that_holds_other_things_is_refused(bench, tmp_path):
    writing = bench("writing")
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds other files \('thesis.txt'\)"):
        writing.check_output(tmp_path, overwrite=True)
    with pytest.raises(FileExistsError, match="expected a folder, got the file"):
        writing.check_output(tmp_path / "thesis.txt")


def test_what_was_not_measured_is_shown(bench, tmp_path):
    rows, writing = bench("rows"), bench("writing")
    fields = {"what": "w", "peer_name": "p"}
    found = [
        rows.Row(name="g/slow", unit="s", ours=1.0, peer=2.0, **fields),
        rows.Row(name="g/fast", unit="s", ours=1.0, peer=30.0, **fields),
        rows.missing(f"no file at {tmp_path}/x.h5", name="g/gone", **fields),
    ]
    payload = writing.payload_of(found, data="made", command="none", seconds=1.0)
    table = writing.write(payload, tmp_path / "report").read_text(encoding="utf-8")
    assert "| g/slow | 1 s | 2 s | 2 (peer / ours) |" in table
    assert "| g/gone | not measured |  |  |" in table
    assert "target" not in table
    assert str(tmp_path) not in table
    writing.write(payload, tmp_path / "report")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "lpb"], "--only: expected known names, got 'lpb'. Did you mean 'lpq'?"),
        (["--data", "nowhere"], "--data: expected a folder, got 'nowhere'"),
        (["--weights", "nowhere"], "--weights: expected a folder, got 'nowhere'"),
    ],
)
def test_bad_arguments_get_a_sentence(bench, monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.chdir(tmp_path)
    assert bench("run").main(["--quick", "--output", "out", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [{"roc_auc": 0.5}, {"roc_auc": float("nan")}, {"finite": False}])
def test_a_head_that_learnt_nothing_is_not_timed(bench, monkeypatch, wrong):
    heads, rows = bench("heads"), bench("rows")
    found = {"roc_auc": 0.9, "finite": True, "n_other": 9, "note": "", "threads": "", "method": "predict_proba"}
    found |= {"fit_s": 1.0, "predict_s": 2.0, "peak_bytes": 2**30}
    monkeypatch.setattr(heads, "run_worker", lambda *arguments: found)
    timed = heads.measure(None, SimpleNamespace(quick=False, full=True))
    assert [row.ours for row in timed[:3]] == pytest.approx([1.0, 2e6 / 277_524, 1.0])
    assert len(timed) == 6
    monkeypatch.setattr(heads, "run_worker", lambda *arguments: {**found, **wrong})
    with pytest.raises(
        rows.DisagreementError, match=r"heads/xgboost: expected finite scores with a ROC-AUC above 0.85"
    ):
        heads.measure(None, SimpleNamespace(quick=True, full=False))


def test_a_head_process_that_fails_is_said(bench):
    with pytest.raises(RuntimeError, match=r"(?s)heads: expected a worker to finish, got:.*'no head'"):
        bench("rows").run_worker("heads.py", "no head", 10, 312, -1)


def test_the_table_of_the_heads_is_like_real_features(bench):
    X, y = bench("heads").make_table(5_000, 40)
    again, other = bench("heads").make_table(5_000, 40), bench("heads").make_table(5_000, 40, seed=1)
    np.testing.assert_array_equal(X, again[0])
    assert not np.array_equal(X, other[0])
    assert X.dtype == np.float32
    assert 0.26 < y.mean() < 0.30
    assert 0.26 < other[1].mean() < 0.30
    variances = np.linalg.eigvalsh(np.cov(X.T))[::-1]
    assert variances[:20].sum() > 0.9 * variances.sum()


def test_bfloat16_is_held_to_the_length_of_the_embeddings(bench):
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(20, 8)).astype(np.float32)
    assert "of their length away" in bench("cnn").check_embeddings("bfloat16", exact * 1.1, exact)
    with pytest.raises(bench("rows").DisagreementError, match=r"within 0.2 of their length, got 0.5"):
        bench("cnn").check_embeddings("bfloat16", exact * 1.5, exact)
