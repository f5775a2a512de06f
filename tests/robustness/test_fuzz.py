"""Each target of fuzz.py for a few hundred inputs, the same on each run; and what long runs have found."""

import json

import fuzz
import pytest

#: Executions in the suite, which leave it fast.
RUNS = {"images": 400, "names": 300, "tables": 150, "models": 40, "stores": 40}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_a_few_hundred_inputs_find_nothing(target):
    findings = fuzz.Findings(target)
    fuzz.TARGETS[target].run(fuzz.TARGETS[target].seeds()[0])  # imports take no part in the times
    for seed in fuzz.TARGETS[target].seeds()[:: 1 + len(fuzz.TARGETS[target].seeds()) // 40]:
        findings(seed)
    fuzz.by_hypothesis(target, RUNS[target], 0, findings)
    assert not findings.found, json.dumps(findings.found, indent=1)
    assert findings.executions >= RUNS[target]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("target", "data"),
    [
        ("tables", "22222c2270617468222c226c6162656c222c226174690a746e61656e7465220a2231222c67222c22383838222c78"),
        ("tables", "2270613d0af58b91220a"),
        ("tables", "68057061746a2c2709706174682c6c656c2c70617469656e740ae4672cfc2ce96e2c2709"),
        ("models", "03045d01c807ff"),
        ("models", "030cff50531126"),
        ("models", "ff00ff0314373737373720"),
        ("stores", "dfd1fe00"),
        ("stores", "89180000"),
        ("stores", "a3145fc69c"),
        ("stores", "fa3039d3"),
        ("stores", "0b12285116"),
    ],
)
def test_what_long_runs_have_found(target, data):
    fuzz.TARGETS[target].run(bytes.fromhex(data))


def test_findings_are_kept_by_place_with_the_shortest_input(tmp_path, monkeypatch):
    def run(data):
        if data:
            raise KeyError(len(data))

    monkeypatch.setitem(fuzz.TARGETS, "made up", fuzz.Target(run, lambda: [b""], 8))
    findings = fuzz.Findings("made up", tmp_path / "found.json")
    for data in (b"", b"abc", b"a", b"ab"):
        findings(data)
    findings.mark()
    (record,) = json.loads((tmp_path / "found.json").read_text())["findings"].values()
    assert record == {"count": 3, "words": "1", "input": b"a".hex()}
    assert (findings.executions, (tmp_path / "found.last").read_bytes()) == (4, b"ab")


@pytest.mark.long
def test_a_run_in_processes_of_its_own_counts_all(capsys, tmp_path):
    assert fuzz.main(["names", "--runs", "60", "--engine", "hypothesis", "--json", str(tmp_path / "x.json")]) == 0
    (found,) = json.loads((tmp_path / "x.json").read_text())
    assert (found["executions"], found["findings"], found["engine"]) == (60, {}, "hypothesis")
    assert found["curve"][-1][1] > 50
    assert "60 executions by hypothesis" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")
def test_small_models_of_every_part_are_read_and_changed_in_all_of_them():
    assert len(fuzz.model_bytes()) == 6
    assert max(map(len, fuzz.model_bytes())) < 8_000
    fuzz.fuzz_models(bytes(3))
    parts = [set(fuzz.unzipped(whole)) for whole in fuzz.model_bytes()]
    assert {"pipeline.skops"} < set.union(*parts)
    whole = fuzz.unzipped(fuzz.model_bytes()[0])
    assert b"GuardRails" in fuzz.unzipped(whole["pipeline.skops"])["schema.json"]
    again = fuzz.changed_model(bytes([3, 0, 0, 0, 0, 0, 1]))  # a bit of the first member of the pipeline
    assert fuzz.unzipped(again) != whole
    assert fuzz.unzipped(fuzz.model_bytes()[0]) == whole  # what is kept is not changed with it


def test_kernels_are_left_out_and_the_rest_is_followed():
    kernels = fuzz.kernel_modules()
    assert {"histofeat.features._color", "histofeat.images._macenko"} <= set(kernels)
    assert not any(name.startswith("histofeat.models") for name in kernels)


def test_a_call_in_this_thread_stands_for_a_pool():
    with fuzz.InThisThread(2, thread_name_prefix="x") as pool:
        assert pool.submit(divmod, 7, 2).result() == (3, 1)
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 7, 0).result()


def test_results_of_several_runs_are_added_up(tmp_path, capsys):
    part = {"target": "names", "engine": "atheris", "executions": 10, "curve": [[1, 5], [10, 8]], "seconds": 1.0,
            "findings": {"x": {"count": 2, "words": "w", "input": "00"}}, "peak_mib": 9}  # fmt: skip
    for name, executions in (("a", 10), ("b", 20)):
        (tmp_path / name).write_text(json.dumps([{**part, "executions": executions}]))
    (tmp_path / "c").write_text(json.dumps([{**part, "engine": "hypothesis"}]))
    files = [str(tmp_path / name) for name in "abc"]
    assert fuzz.main(["none", "--add", *files, "--json", str(tmp_path / "all")]) == 0
    first, second = json.loads((tmp_path / "all").read_text())
    assert (first["executions"], first["curve"][-1], first["findings"]["x"]["count"]) == (30, [20, 8], 4)
    assert (first["seconds"], second["engine"], second["executions"]) == (2.0, "hypothesis", 10)


def test_checksums_are_mended_and_curves_thinned():
    whole = fuzz.image_seeds()[0][1:]
    broken = whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]
    assert [right for *_, right in fuzz.chunks(broken)].count(False) == 1
    assert all(right for *_, right in fuzz.chunks(fuzz.with_checksums(broken)))
    assert fuzz.with_checksums(whole) == whole
    assert fuzz.thinned([[1, 5], [10, 4], [11, 9], [100, 9]]) == [[1, 5], [11, 9], [100, 9]]
