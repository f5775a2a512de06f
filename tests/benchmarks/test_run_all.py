"""The main job and README's table, run from another folder."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_known_patients import Memory

from histofeat import make_cohort, studies
from histofeat.cli import _comparison

REPOSITORY = Path(__file__).resolve().parents[2]
QUICK = ["--quick", "--heads", "xgboost", "--folds", "3", "--n-jobs", "1", "--resamples", "50"]


def run(script, *arguments, cwd, timeout_s=120):
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / script), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.fixture
def run_all(loaded_script, monkeypatch, work):
    """run_all.py as a module of this process, for what ends at once: an interpreter takes seconds to start."""
    monkeypatch.chdir(work)
    with loaded_script("run_all.py") as module:
        yield module


@pytest.fixture
def main(run_all):
    return run_all.main


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def broken_weights(work):
    """A folder whose file has the right name and the wrong content: no machine downloads another one."""
    folder = work / "weights"
    folder.mkdir()
    (folder / "mobilenet_2_5_224_tf_no_top.h5").write_bytes(b"no weights")
    return folder


@pytest.fixture(scope="module")
def finished(work, broken_weights, loaded_script):
    """A quick run on the synthetic cohort, whose network cannot run."""
    options = ["--features", "lbp", "handcrafted", "cnn", "everything", "--encoder", "mobilenet_0.25"]
    options += ["--store", "kept/mine.sqlite", "--weights", str(broken_weights), "--output", "out/mine"]
    out, err = StringIO(), StringIO()
    with chdir(work), warnings.catch_warnings(), redirect_stdout(out), redirect_stderr(err):
        warnings.simplefilter("default")
        with loaded_script("run_all.py") as module:
            assert module.main([*QUICK, *options]) == 0, err.getvalue()
    return SimpleNamespace(stdout=out.getvalue(), stderr=err.getvalue())


@pytest.fixture(scope="module")
def metrics(finished, work):
    return json.loads((work / "out/mine/metrics.json").read_text(encoding="utf-8"))


def test_quick_run_on_the_synthetic_cohort(finished, metrics, work):
    assert finished.stdout.startswith("synthetic: 300 patches of 15 patients")
    assert "SYNTHETIC cohort, out of fold" in finished.stdout
    assert finished.stdout.splitlines()[-1] == f"report: {Path('out/mine/report.html')}"
    assert (work / "out/mine/report.html").is_file()
    assert metrics["dataset"]["synthetic"] is True
    assert [(r["name"], r["features"]) for r in metrics["results"]] == [
        ("lbp", ["lbp"]),
        ("handcrafted", ["color", "lbp", "haralick"]),
    ]
    assert metrics["protocol"]["n_splits"] == 3
    assert "50 trees" in metrics["protocol"]["quick"]
    assert metrics["seconds"]["extraction"] > 0


def test_progress_on_no_terminal_is_sparse(finished):
    lines = [line for line in finished.stderr.splitlines() if line.startswith("extract: ")]
    assert 1 <= len(lines) <= 4
    assert lines[-1].startswith("extract: 300 of 300, ")


def test_network_without_weights_is_not_run_and_nothing_gets_smaller(finished, metrics):
    assert [(entry["name"], entry["head"]) for entry in metrics["not_run"]] == [
        ("cnn", "xgboost"),
        ("everything", "xgboost"),
    ]
    assert all("mobilenet_2_5_224_tf_no_top.h5" in entry["reason"] for entry in metrics["not_run"])
    assert "not run: cnn, xgboost; everything, xgboost: " in finished.stdout


def test_report_does_not_tell_whose_machine_it_was(finished, work, metrics):
    for path in (work / "out/mine").rglob("*.*"):
        if path.suffix in {".json", ".csv", ".md", ".html"}:
            text = path.read_text(encoding="utf-8")
            assert str(work) not in text
            assert str(REPOSITORY) not in text
            assert os.sep + "tmp" + os.sep not in text
    assert metrics["command"].startswith("histofeat compare --features lbp,handcrafted,cnn,everything --heads xgboost")
    assert "--weights weights" in metrics["command"]
    assert "--weights weights" in metrics["command"]
    assert "--output mine" in metrics["command"]


def test_second_run_is_refused_before_any_work(finished, work, main, capsys):
    before = (work / "out/mine/metrics.json").read_bytes()
    assert main([*QUICK, "--output", "out/mine"]) == 2
    said = capsys.readouterr()
    assert "holds a finished report. Choose another name, or pass --overwrite to replace it." in said.err
    assert said.out == ""
    assert (work / "out/mine/metrics.json").read_bytes() == before


def test_second_run_on_the_same_images_measures_nothing(finished, metrics, work, main, capsys):
    assert "measured: fingerprint 300, lbp 300, color 300, haralick 300\n" in finished.stdout
    assert metrics["computed"] == dict.fromkeys(("lbp", "color", "haralick", "fingerprint"), 300)
    # The cohort is drawn into another temporary folder: an image is known by its content.
    options = ["--features", "lbp", "handcrafted", "--store", "kept/mine.sqlite", "--output", "out/again"]
    assert main([*QUICK, *options]) == 0
    said = capsys.readouterr().out
    assert "measured: fingerprint 0, lbp 0, color 0, haralick 0 (the rest came from the store)\n" in said
    again = json.loads((work / "out/again/metrics.json").read_text(encoding="utf-8"))
    assert again["computed"] == dict.fromkeys(("lbp", "color", "haralick", "fingerprint"), 0)
    for before, after in zip(metrics["results"], again["results"], strict=True):
        clocks = {name: after[name] for name in ("fit_s", "predict_s", "seconds_per_patch")}
        assert {**before, **clocks} == after
    assert "--store mine.sqlite" in again["command"]


def test_data_may_be_several_folders_and_one_that_holds_idc(work, main, capsys):
    cohort = make_cohort(root=work / "data" / "idc", n_patients=9, patches_per_patient=25)
    second = shutil.copytree(cohort.root, work / "second")
    for number, path in enumerate(cohort.relative_paths):
        (second if number % 3 else cohort.root).joinpath(path).unlink()
    options = ["--features", "lbp", "--data", "data", "second", "--no-store", "--output", "out/data", "--gallery", "2"]
    assert main([*QUICK, *options]) == 0
    assert "measured: fingerprint 144, lbp 144\n" in capsys.readouterr().out
    quick = json.loads((work / "out/data/metrics.json").read_text(encoding="utf-8"))
    assert quick["dataset"]["n_patches"] == 144
    assert quick["protocol"]["quick"].startswith("144 of 225 patches, 9 patients")
    assert quick["command"].startswith("histofeat compare idc second --features lbp")
    assert list((work / "out/data/galleries/images").glob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--heads", "xgbost"], "Did you mean 'xgboost'?"),
        (["--features", "colour"], "Did you mean 'color'?"),
        (["--data", "nowhere"], "nowhere"),
        (["--weights", "nowhere"], "expected a file or folder of weights, found none at nowhere"),
        (["--folds", "1"], "--folds: expected a whole number of at least 2, got 1"),
        (["--encoder", "mobilenetv3", "--features", "cnn"], "--encoder: expected the name of an encoder"),
        (["--resamples", "-1"], "--resamples: expected a whole number of at least 0, got -1"),
        (["--gallery", "0"], "--gallery: expected a whole number of at least 1, got 0"),
        (["--store", "."], ".: expected a feature store that can be read and written"),
    ],
)
def test_bad_arguments_get_a_sentence(work, main, capsys, arguments, message):
    assert main(["--quick", "--features", "lbp", "--output", "out/bad", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (work / "out/bad").exists()


# --- encoders that know patients -------------------------------------------------------------------------------------


@pytest.fixture
def knowing(monkeypatch, tmp_path):
    """Put an encoder in the place of histo that learnt from some patients of the cohort of a quick run.

    The cohort has fewer patches than that of a quick run.
    """
    monkeypatch.setitem(_comparison.QUICK_COHORT, "patches_per_patient", 8)

    def learn(n_patients):
        cohort = make_cohort(root=tmp_path / "cohort", random_state=0, **_comparison.QUICK_COHORT)
        rows = slice(n_patients * _comparison.QUICK_COHORT["patches_per_patient"])
        family = Memory().learnt(cohort.X[rows], cohort.y[rows], tmp_path, "theirs")
        monkeypatch.setitem(studies.FEATURE_SETS, "histo", (family,))

    return learn


def known(main, name, *options):
    """Run the main job in this process; give what it wrote."""
    options = [*QUICK, "--features", "color", "histo", "--no-store", "--no-shortcuts", "--output", name, *options]
    assert main(options) == 0
    return json.loads(Path(name, "metrics.json").read_text(encoding="utf-8"))


def test_a_set_whose_encoder_knows_patients_is_skipped_and_the_rest_goes_on(knowing, main, capsys):
    knowing(n_patients=4)
    metrics = known(main, "out/skipped")
    assert [result["name"] for result in metrics["results"]] == ["color"]
    (entry,) = metrics["not_run"]
    assert (entry["name"], entry["head"]) == ("histo", "xgboost")
    assert entry["reason"].startswith("memory was trained on images of 4 patients of this data set (theirs): ")
    assert "--known-patients leave_out" in entry["reason"]
    assert "--retrain-encoder" in entry["reason"]
    assert sum(fold["test_patients"] for fold in metrics["folds"]) == 15
    assert "not run: histo, xgboost: memory was trained on" in capsys.readouterr().out


def test_known_patients_are_left_out_on_request(knowing, main):
    knowing(n_patients=4)
    metrics = known(main, "out/left-out", "--known-patients", "leave_out", "--cross-fit")
    assert [result["name"] for result in metrics["results"]] == ["color", "histo"]
    assert metrics["protocol"]["left_out"]["patients"] == 4
    assert sum(fold["test_patients"] for fold in metrics["folds"]) == 11
    assert "--known-patients leave_out" in metrics["command"]
    assert metrics["protocol"]["retrain_encoder"] == "inner"
    assert any("9 encoders were trained in all" in note for note in metrics["results"][1]["notes"])


def test_an_encoder_may_know_patients_that_are_not_tested(knowing, main):
    knowing(n_patients=4)
    patients = dict.fromkeys(make_cohort(random_state=0, **_comparison.QUICK_COHORT).patients)
    lines = [f"{patient},{'train' if number < 8 else 'test'}" for number, patient in enumerate(patients)]
    Path("split.csv").write_text("\n".join(["patient,part", *lines]))
    metrics = known(main, "out/split", "--split", "split.csv")
    assert [result["name"] for result in metrics["results"]] == ["color", "histo"]
    assert metrics["not_run"] == []


def test_encoders_are_trained_anew_on_request(knowing, main, capsys):
    knowing(n_patients=15)
    metrics = known(main, "out/anew", "--retrain-encoder")
    assert [result["name"] for result in metrics["results"]] == ["color", "histo"]
    assert metrics["protocol"]["retrain_encoder"] is True
    assert sum(fold["test_patients"] for fold in metrics["folds"]) == 15
    assert "retrain: 12 of 12" in capsys.readouterr().err
    words = metrics["command"].split()
    assert {"--retrain-encoder", "--no-store", "--resamples", "--no-shortcuts", "--quick"} <= set(words)


@pytest.mark.long
def test_an_image_that_cannot_be_read(main, tmp_path, capsys):
    cohort = make_cohort(n_patients=12, patches_per_patient=8, root=tmp_path / "cohort")
    Path(cohort.X[0]).write_bytes(Path(cohort.X[0]).read_bytes()[:60])
    options = [*QUICK, "--data", str(cohort.root), "--features", "color", "--no-store", "--no-shortcuts"]
    options += ["--output", str(tmp_path / "out")]
    assert main(options) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main([*options, "--on-error", "skip"]) == 0
    assert "left out of everything here: 1 of 96 images" in capsys.readouterr().err
    metrics = json.loads((tmp_path / "out/metrics.json").read_text(encoding="utf-8"))
    assert metrics["dataset"]["n_patches"] == 95
    assert [file["path"] for file in metrics["dataset"]["audit"]["failures"]] == [cohort.relative_paths[0]]
    assert (tmp_path / "out/failures.csv").is_file()
    assert "--on-error skip" in metrics["command"]


def test_nothing_left_to_compare(knowing, main, capsys):
    knowing(n_patients=4)
    assert main([*QUICK, "--features", "histo", "--no-store", "--output", "out/none"]) == 2
    assert "--features: expected a set whose encoder knows none of these patients, got none. memory was trained on" in (
        capsys.readouterr().err
    )


def test_unknown_option_is_one_sentence(main, capsys):
    assert main(["--fold", "x"]) == 2
    assert "No such option: --fold" in capsys.readouterr().err


# --- README's table --------------------------------------------------------------------------------------------------

README = "# Title\n\n<!-- results:begin -->\nold\n<!-- results:end -->\n\nrest\n"


@pytest.fixture
def write_table(loaded_script, monkeypatch, work):
    monkeypatch.chdir(work)
    with loaded_script("readme_table.py") as module:
        yield module.main


def test_readme_table_is_written_once(finished, work, write_table):
    readme = work / "README.md"
    readme.write_text(README, encoding="utf-8")
    options = ["out/mine", "--readme", str(readme)]
    assert write_table([*options, "--check"]) == 1
    assert readme.read_text(encoding="utf-8") == README
    assert write_table(options) == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("# Title\n\n<!-- results:begin -->\nSYNTHETIC cohort.")
    assert "| handcrafted | xgboost |" in text
    assert text.endswith("<!-- results:end -->\n\nrest\n")
    assert "\nold\n" not in text
    # A caution is not left out of a page that shows the scores.
    caution = json.loads((work / "out/mine/metrics.json").read_text(encoding="utf-8"))["caution"]
    assert "15 tested patients" in caution
    assert f"\n\n{caution}\n\nFull report: " in text
    # Once as a person runs it.
    assert run("readme_table.py", *options, "--check", cwd=work).returncode == 0


def test_readme_table_needs_marks_and_a_report(finished, work, write_table, capsys):
    readme = work / "bare.md"
    readme.write_text("nothing here", encoding="utf-8")
    assert write_table(["out/mine", "--readme", str(readme)]) == 2
    assert "bare.md: expected the lines <!-- results:begin -->" in capsys.readouterr().err
    assert write_table(["nowhere", "--readme", str(readme)]) == 2
    assert "expected the folder of a finished report" in capsys.readouterr().err
