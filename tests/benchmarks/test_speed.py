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
    options = SimpleNamespace(quick=True)
    material = SimpleNamespace(patches=lambda n: ([], patches[:2]), label="made")
    mahotas, scikit_image = bench("families").measure_one_channel(material, options)
    assert "52 values" in mahotas.checked
    assert "10 values" in scikit_image.checked


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


def test_made_up_patients_are_as_uneven_as_those_of_idc(bench):
    made_up = bench("made_up")
    sizes = made_up.patient_sizes(277_524, np.random.default_rng(0))
    assert (len(sizes), sizes.sum()) == (279, 277_524)
    assert 60 <= sizes.min() < 200
    assert 2_000 < sizes.max() < 2_500
    assert made_up.patient_sizes(279, np.random.default_rng(0)).sum() == 279


@pytest.mark.long
def test_tree_has_the_layout_of_idc_no_file_twice_and_something_to_learn(bench, tmp_path):
    from histofeat import IDCPipeline, PatientKFold, evaluate, load_idc

    n_bytes = bench("made_up").make_tree(tmp_path, 3_000)
    files = list(tmp_path.rglob("*.png"))
    assert len(files) == 3_000
    assert n_bytes == sum(path.stat().st_size for path in files)
    assert n_bytes / 3_000 == pytest.approx(5_780, rel=0.1)  # the mean of real patches
    assert len({path.read_bytes() for path in files}) == 3_000
    dataset = load_idc(tmp_path)
    assert len(dataset) == 3_000
    assert dataset.y.mean() == pytest.approx(0.28, abs=0.06)
    found = evaluate(dataset, IDCPipeline(["color", "lbp", "haralick"], "logistic"), PatientKFold(3), n_resamples=0)
    assert 0.8 < found.models[0].scores["roc_auc"].value < 0.97


def test_copies_of_a_patch_differ_from_it_and_from_each_other(bench, tmp_path, patches):
    import cv2

    path, made_up = tmp_path / "patch.png", bench("made_up")
    cv2.imwrite(str(path), patches[0])
    noise = np.random.default_rng(0).normal(0, 1.5, 20_000)
    copies = [made_up._vary(str(path), again, noise, np.random.default_rng(again)) for again in range(1, 9)]
    assert len({path.read_bytes(), *copies}) == 9
    means = [cv2.imdecode(np.frombuffer(copy, np.uint8), cv2.IMREAD_COLOR).mean() for copy in copies]
    np.testing.assert_allclose(means, patches[0].mean(), rtol=0.2)


def test_a_full_disk_is_refused_before_anything_is_written(bench, tmp_path):
    with pytest.raises(OSError, match=r"expected .* GB free for 1,000,000,000,000 temporary files"):
        bench("made_up").check_space(tmp_path, 10**12)


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


def test_rows_of_the_same_words_share_a_paragraph(bench, tmp_path):
    rows, writing = bench("rows"), bench("writing")
    words = {"a": "one thing", "b": "one thing", "c": "c"}
    found = [rows.Row(f"g/{name}", what, "s", 1.0) for name, what in words.items()]
    payload = writing.payload_of(found, data="made", command="none", seconds=1.0)
    table = writing.write(payload, tmp_path / "report", title="A page").read_text(encoding="utf-8")
    assert table.startswith("# A page\n")
    assert "- **g/a**, **g/b**: one thing.\n- **g/c**: c.\n" in table
    assert "![The chart](speed.png)" in table


BEFORE = {"name": "g/a", "what": "one thing", "ratio_of": "peer / ours", "unit": "s", "ratio": 10.0}


@pytest.mark.parametrize(
    ("change", "worse"),
    [
        ({"ratio": 8.1}, False),  # a quarter less is 8
        ({"ratio": 7.9}, True),
        ({"ratio": None}, False),
        ({"ratio": 7.9, "what": "another thing"}, False),
        ({"ratio": 7.9, "name": "g/new"}, False),
    ],
)
def test_a_ratio_that_is_a_quarter_worse_is_found(bench, change, worse):
    found = bench("run").worse([BEFORE | change], [BEFORE])
    assert found == (["g/a, peer / ours 7.9, was 10"] if worse else [])


@pytest.mark.parametrize(("unit", "ratio", "worse"), [("s", 12.6, 1), ("s", 7, 0), ("patches/s", 7, 1), ("/s", 13, 0)])
def test_which_way_is_worse(bench, unit, ratio, worse):
    before = BEFORE | {"unit": unit, "ratio_of": "ours / peer"}
    assert len(bench("run").worse([before | {"ratio": ratio}], [before])) == worse


def test_a_run_that_is_worse_ends_with_a_sentence_and_spares_the_report(finished, work, bench, monkeypatch, capsys):
    for variable in ("OMP_WAIT_POLICY", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(variable, os.environ.get(variable, "3"))
    monkeypatch.chdir(work)
    before = (work / "out/speed.json").read_text(encoding="utf-8")
    record = json.loads(before)
    record["rows"][0]["ratio"] *= 1000
    Path("better.json").write_text(json.dumps(record), encoding="utf-8")
    words = ["--quick", "--only", "lbp", "--output", "out", "--overwrite", "--against", "better.json"]
    with pytest.raises(SystemExit, match=r"expected ratios at most a quarter worse than in better.json, got 1: .*lbp"):
        bench("run").main(words)
    assert (work / "out/speed.json").read_text(encoding="utf-8") == before
    assert (work / "out-worse/speed.json").is_file()
    capsys.readouterr()
    assert bench("run").main([*words, "--accept-worse"]) == 0
    assert (work / "out/speed.json").read_text(encoding="utf-8") != before


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


def test_a_process_that_fails_is_said(bench):
    with pytest.raises(RuntimeError, match=r"(?s)extract_files: expected a worker to finish, got:.*ValueError"):
        bench("rows").run_worker("extract_files.py", "tree", "nowhere", "no number", 1)


def test_bfloat16_is_held_to_the_length_of_the_embeddings(bench):
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(20, 8)).astype(np.float32)
    assert "of their length away" in bench("cnn").check_embeddings("bfloat16", exact * 1.1, exact)
    with pytest.raises(bench("rows").DisagreementError, match=r"within 0.2 of their length, got 0.5"):
        bench("cnn").check_embeddings("bfloat16", exact * 1.5, exact)
