"""`histofeat doctor` finds what is broken and says what to do; `histofeat fetch` asks, downloads and unpacks."""

import io
import json
import sys
import types
import zipfile

import pytest

from histofeat.cli import _doctor, main
from histofeat.networks import ENCODERS


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Everything but the run at the end, in a cache and a home of its own."""
    monkeypatch.setattr(_doctor, "_run", lambda warm_up: iter([("PASS", f"ran, {warm_up}", "")]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("HISTOFEAT_WEIGHTS", raising=False)
    return tmp_path


def ask_doctor(capsys, *options):
    code = main(["doctor", "--json", *options])
    told = json.loads(capsys.readouterr().out)
    return code, told["status"], {row["found"]: (row["status"], row["fix"]) for row in told["checks"]}


def distributions(*names):
    return lambda: [types.SimpleNamespace(name=name, version="1.0") for name in names]


def test_a_sound_installation_passes(quick, capsys, monkeypatch):
    monkeypatch.setattr(_doctor.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=5e9))
    folder = quick / "weights"
    folder.mkdir()
    for name in ("resnet50", "mobilenetv2_0.35"):
        (folder / ENCODERS[name].weight_file).touch()
    monkeypatch.setenv("HISTOFEAT_WEIGHTS", str(folder))
    code, status, found = ask_doctor(capsys, "--warm-up")
    assert (code, status) == (0, "PASS")
    text = "\n".join(found)
    assert "the shipped encoder gives what it should" in text
    assert any(words.startswith(f"{folder}: weights of ") and "resnet50," in words for words in found)
    assert f"{quick / 'keras' / 'models'}: weights of no network" in found
    assert "5.0 GB free" in text
    assert "numpy 2." in text
    assert "ran, True" in found


def test_two_packages_in_one_folder_fail_with_the_commands_that_put_it_right(quick, capsys, monkeypatch):
    monkeypatch.setattr(_doctor.metadata, "distributions", distributions("xgboost", "xgboost-cpu", "numpy"))
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "FAIL  xgboost-cpu and xgboost own the same folder" in told
    assert "      pip uninstall -y xgboost-cpu xgboost\n      pip install xgboost-cpu\n" in told
    monkeypatch.setattr(_doctor.metadata, "distributions", distributions("xgboost", "numpy"))
    assert main(["doctor"]) == 0


def test_missing_weights_of_the_usual_network_are_a_warning(quick, capsys):
    code, _, found = ask_doctor(capsys)
    words = (
        "no weights of mobilenetv2_0.35_stages: `histofeat compare` leaves out cnn and everything, or downloads them"
    )
    assert (code, found[words]) == (0, ("WARN", "histofeat fetch weights --encoder mobilenetv2_0.35_stages"))


def test_what_is_broken_is_told_and_the_rest_is_still_checked(quick, capsys, monkeypatch):
    monkeypatch.setenv("HISTOFEAT_WEIGHTS", str(quick / "nowhere"))
    monkeypatch.setattr(_doctor.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1e9))
    code, status, found = ask_doctor(capsys)
    assert (code, status) == (1, "FAIL")
    assert any("WeightsError: environment variable HISTOFEAT_WEIGHTS: expected a folder" in words for words in found)
    assert "ran, False" in found


def test_a_store_that_is_none_fails(quick, capsys):
    (quick / "cache" / "histofeat").mkdir(parents=True)
    (quick / "cache" / "histofeat" / "features.sqlite").write_bytes(b"no database" * 100)
    code, status, found = ask_doctor(capsys)
    assert (code, status) == (1, "FAIL")
    assert any("features.sqlite" in words and row[0] == "FAIL" for words, row in found.items())


def test_little_disk_space_and_a_cache_that_cannot_be_written_are_warnings(quick, capsys, monkeypatch):
    (quick / "cache").touch()
    monkeypatch.setattr(_doctor.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1e9))
    code, status, found = ask_doctor(capsys)
    assert (code, status) == (0, "WARN")
    assert ("WARN", "Make room before a long run.") in found.values()
    assert ("WARN", "Set XDG_CACHE_HOME to a folder that can be written.") in found.values()


@pytest.mark.long
def test_a_small_run_and_its_figures(monkeypatch):
    ((status, words, fix),) = _doctor._run(False)
    assert (status, fix) == ("PASS", "")
    assert words.startswith("a small run and its figures took")


@pytest.mark.long
def test_warming_up_measures_every_family():
    ((status, words, _),) = _doctor._run(True)
    assert status == "PASS"
    assert words.startswith("every kernel is compiled")


# --- fetch


@pytest.fixture
def archive(monkeypatch, tmp_path):
    """A download that asks first and puts a small archive there."""
    import histofeat.datasets

    asked = []

    def fetch(url, folder, *, before, progress):
        before(1_600_000_000)
        asked.append(url)
        folder.mkdir(exist_ok=True)
        with zipfile.ZipFile(folder / "made.zip", "w") as made:
            made.writestr("8863/0/8863_idx5_x451_y1451_class0.png", b"1")
        return folder / "made.zip"

    monkeypatch.setattr(histofeat.datasets, "fetch_file", fetch)
    monkeypatch.chdir(tmp_path)
    return asked


def test_size_and_licence_come_first_and_the_archive_is_unpacked(archive, tmp_path, capsys):
    assert main(["fetch", "idc", "--yes"]) == 0
    out, err = capsys.readouterr()
    assert out == "data/idc\n"
    assert "IDC_regular_ps50_idx5.zip, 1,600 MB\n" in err
    assert "licence: CC0" in err
    assert (tmp_path / "data" / "idc" / "8863" / "0").is_dir()
    assert main(["fetch", "idc", "--yes", "--output", "data"]) == 0  # is there already


def test_without_an_answer_nothing_is_downloaded(archive, monkeypatch, capsys):
    assert main(["fetch", "breakhis"]) == 2
    assert "not downloaded; --yes answers the question" in capsys.readouterr().err
    for answer, code in (("n\n", 2), ("y\n", 0)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        assert main(["fetch", "idc"]) == code
    assert len(archive) == 1


def test_weights_of_a_network(archive, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("HISTOFEAT_WEIGHTS", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "keras").mkdir()
    assert main(["fetch", "weights", "--encoder", "densenet201", "--yes"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'keras' / 'models' / 'made.zip'}\n"
    assert archive == [
        "https://storage.googleapis.com/tensorflow/keras-applications/densenet/"
        "densenet201_weights_tf_dim_ordering_tf_kernels_notop.h5"
    ]
    assert main(["fetch", "weights", "--encoder", "histo"]) == 0
    assert capsys.readouterr().out.endswith("histo.npz\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["idx"], "NAME: expected one of idc, breakhis, weights, got 'idx'. Did you mean 'idc'?"),
        (["weights"], "--encoder: expected the name of a network with weights, got none."),
        (["weights", "--encoder", "resnet5"], "got 'resnet5'. Did you mean 'resnet50'?"),
        (["idc", "--encoder", "resnet50"], "--encoder: expected none with idc, got 'resnet50'. Leave it out."),
    ],
)
def test_wrong_words(words, told, capsys):
    assert main(["fetch", *words]) == 2
    assert told in capsys.readouterr().err
