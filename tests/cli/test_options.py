"""Options of the commands: groups declared once, and what a command makes of them."""

import inspect
import json
import logging
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

import histofeat
from histofeat import cli, load_model
from histofeat.cli import _training as training
from histofeat.cli._options import DataOptions, EncoderOptions, RunOptions, built_command, expanded, group, option
from histofeat.cli._outputs import chosen_logs
from histofeat.datasets import open_dataset
from histofeat.exceptions import DatasetError


def names(command):
    return [parameter.name for parameter in cli._built(command).params]


def test_groups_become_options_those_of_the_run_last():
    def command(
        data: group(DataOptions, without=["format", "only"], required=["data"]),
        run: RunOptions,
        folds: option(int, "N", "Folds.") = 5,
    ):
        return data, run, folds

    function = expanded(command)
    parameters = inspect.signature(function).parameters
    assert list(parameters)[:2] == ["data", "patients"]
    assert not {"format", "only"} & set(parameters)
    assert list(parameters)[-10:] == [
        "folds", "seed", "n_jobs", "store", "no_store", "ledger", "cluster", "quiet", "json", "config"]  # fmt: skip
    assert parameters["data"].default is inspect.Parameter.empty
    assert (parameters["target"].default, parameters["n_jobs"].default) == (None, 1)
    app = typer.Typer(add_completion=False)
    app.command()(function)
    run = typer.main.get_command(app)
    words = ["a", "b", "--target", "subtype", "--seed", "3", "--folds", "2", "--store", "s.sqlite"]
    data, options, folds = run.main(args=words, standalone_mode=False)
    assert data == DataOptions(data=[Path("a"), Path("b")], target="subtype")
    assert (options, folds) == (RunOptions(seed=3, store=Path("s.sqlite")), 2)


def test_data_are_opened_as_the_options_say(cohort, tmp_path):
    dataset = DataOptions([cohort.root], format="idc").open()
    assert list(dataset.patients) == list(cohort.patients)
    few = tmp_path / "few.txt"
    few.write_text("\n".join(cohort.patients[:1]))
    assert set(DataOptions([cohort.root], only=few).open().patients) == {cohort.patients[0]}
    assert DataOptions([cohort.root]).name == cohort.root.name


def test_without_data_the_synthetic_cohort_is_opened(cohort, monkeypatch):
    monkeypatch.setattr("histofeat.datasets.make_cohort", lambda: cohort)
    assert DataOptions().open().name == "synthetic"
    assert DataOptions().open().root == cohort.root
    assert DataOptions().name == "synthetic"
    with pytest.raises(ValueError, match="target: expected none for data of the format 'idc', got 'subtype'"):
        DataOptions(target="subtype").open()


def test_several_folders_of_idc_count_as_one(cohort, tmp_path):
    first, *_, last = list(dict.fromkeys(cohort.patients))
    for patient in (first, last):
        (tmp_path / patient / "data").mkdir(parents=True)
        (tmp_path / patient / "data" / patient).symlink_to(cohort.root / patient)
    dataset = open_dataset([tmp_path / first / "data", tmp_path / last / "data"])
    assert set(dataset.patients) == {first, last}
    (tmp_path / "none").mkdir()
    with pytest.raises(DatasetError, match="none: expected"):  # several are taken as folders of IDC
        open_dataset([tmp_path / "none", tmp_path / "none"])
    with pytest.raises(DatasetError, match=r"open_dataset: expected the path of a folder or a CSV file, got \[\]"):
        open_dataset([])


def test_the_runtime_takes_the_options(tmp_path):
    runtime = RunOptions(n_jobs=2, store=tmp_path / "a.sqlite", ledger=tmp_path / "looks.csv").runtime("train idc")
    assert (runtime.n_jobs, runtime.store.path, runtime.ledger.path) == (
        2, str(tmp_path / "a.sqlite"), tmp_path / "looks.csv")  # fmt: skip
    assert RunOptions().runtime("x").store is None
    assert RunOptions().runtime("x", store=tmp_path / "b.sqlite").store.path == str(tmp_path / "b.sqlite")
    assert RunOptions(no_store=True).runtime("x").store is None
    with pytest.raises(ValueError, match="--no-store: expected either this or --store, got both"):
        RunOptions(store=tmp_path / "b.sqlite", no_store=True).runtime("x")
    assert RunOptions().runtime("x", n_jobs=None).n_jobs is None


def test_weights_are_a_file_or_a_folder(tmp_path):
    assert EncoderOptions().params([]) == {}
    assert EncoderOptions("densenet121", tmp_path, 96).params(["cnn"]) == {
        "cnn__encoder": "densenet121", "cnn__weights_dir": str(tmp_path), "cnn__input_size": 96}  # fmt: skip
    found = EncoderOptions("resnet50", weights=tmp_path / "w.h5").params(["cnn"])
    assert found == {"cnn__encoder": "resnet50", "cnn__weights": str(tmp_path / "w.h5")}
    with pytest.raises(ValueError, match="--encoder: expected the name of a network with a file of weights, got none"):
        EncoderOptions(weights=tmp_path / "w.h5").params(["cnn"])


def test_a_result_is_one_json_object(cohort, tmp_path, capsys):
    words = ["train", str(cohort.root), "-o", str(tmp_path / "m"), "--features", "color", "--head", "logistic"]
    assert cli.main([*words, "--folds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["head"], found["n_images"]) == ("logistic", 180)
    RunOptions(json=True).show({"auc": float("nan")}, lambda: sys.stdout.write("text\n"))
    assert json.loads(capsys.readouterr().out) == {"auc": None}
    RunOptions().show({}, lambda: sys.stdout.write("text\n"))
    assert capsys.readouterr().out == "text\n"


def test_the_package_is_a_command():
    found = subprocess.run([sys.executable, "-m", "histofeat", "--help"], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("Usage: histofeat")
    headings = [line for line in found.stdout.splitlines() if line in [f"{heading}:" for heading in cli.COMMANDS]]
    assert len(headings) == len(cli.COMMANDS)


@pytest.mark.parametrize("command", [name for commands in cli.COMMANDS.values() for name in commands])
def test_every_command_has_examples_that_are_read_as_written(command):
    """Options and arguments of the examples are those of the command; nothing is run."""
    epilog = cli._built(command).epilog
    for line in epilog.splitlines()[2:]:
        program, name, *words = line.split()
        assert (program, name) == ("histofeat", command)
        cli._built(command).make_context(name, words)


# --- run.toml --------------------------------------------------------------------------------------------------------


@pytest.fixture
def told(monkeypatch):
    """Run `histofeat train` with words and give what it would work with."""

    def run(*words):
        found = {}
        command = expanded(training.train)

        def keep(data, output, run, **others):
            found.update(data=data, output=output, run=run, **others)

        keep.__signature__ = inspect.signature(training.train)
        keep.__annotations__, keep.__doc__, keep.__name__ = training.train.__annotations__, command.__doc__, "train"
        monkeypatch.setattr(training, "train", keep)
        return cli.main(["train", *map(str, words)]), found

    return run


def test_a_run_is_repeated_from_its_file(cohort, tmp_path, capsys):
    model = tmp_path / "m.histofeat"
    words = ["train", str(cohort.root), "-o", str(model), "--features", "color", "--head", "logistic", "--seed", "4"]
    assert cli.main([*words, "--no-estimate", "--quiet"]) == 0
    config = tmp_path / "m.run.toml"
    written = tomllib.loads(config.read_text())
    expected = {
        "version": histofeat.__version__, "command": "train", "format": "auto",
        "output": str(model), "features": "color", "head": "logistic", "folds": 5, "no_estimate": True, "seed": 4,
        "n_jobs": 1}  # fmt: skip
    assert expected.items() <= {name: value for name, value in written.items() if name != "data"}.items()
    assert written["data"] == [str(cohort.root)]
    first = load_model(model)
    assert cli.main(["train", "--config", str(config), "--quiet"]) == 2  # the model is there
    assert "expected a new file, got one that exists" in capsys.readouterr().err
    model.unlink()
    assert cli.main(["train", "--config", str(config), "--quiet"]) == 0
    assert dict(load_model(model).about) == dict(first.about)
    assert load_model(model).pipeline.random_state == 4
    other = tmp_path / "other.histofeat"
    assert cli.main(["train", "--config", str(config), "-o", str(other), "--seed", "5", "--quiet"]) == 0
    assert load_model(other).pipeline.random_state == 5
    assert config.read_text().startswith(
        "# histofeat train --config m.run.toml does it once more: its paths are full.\n"
    )


def test_options_of_a_file_are_the_defaults(told, tmp_path):
    config = tmp_path / "a.toml"
    config.write_text(
        'data = "here"\noutput = "m"\nn-jobs = 3\nfolds = 4\npath-prefix = ["a=b", "c=d"]\nno-estimate = true'
    )
    code, found = told("--config", config, "--folds", "7")
    assert code == 0
    assert (found["data"].data, found["output"]) == ([Path("here")], Path("m"))
    assert (found["run"].n_jobs, found["folds"], found["no_estimate"]) == (3, 7, True)
    assert found["data"].path_prefix == ["a=b", "c=d"]
    _, found = told("--config", config, "there", "and", "there")
    assert found["data"].data == [Path("there"), Path("and"), Path("there")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hed = 'svm'", "--config: expected options of train, got 'hed' in a.toml. Did you mean 'head'?"),
        ("config = 'b.toml'", "--config: expected options of train, got 'config' in a.toml"),
        ("head = ['svm', 'knn']", "--config: expected one value for 'head', got ['svm', 'knn'] in a.toml. Write one."),
        ("[head]\nname = 'svm'", "--config: expected one value for 'head', got {'name': 'svm'} in a.toml. Write one."),
        ("command = 'score'", "--config: expected options of train, got those of 'score' in a.toml. Correct it."),
        ("head = svm", "--config: expected a TOML file, got a.toml: Invalid value (at line 1, column 8). Correct it."),
        ("command = 5", "--config: expected options of train, got those of 5 in a.toml. Correct it."),
        ("command = ''", "--config: expected options of train, got those of '' in a.toml. Correct it."),
        ("colour = 1", "in a.toml. Known names: checkpoint, class-weight, classes,"),
        ("folds = 1", "Invalid value for '--folds'"),
        ("n-jobs = 'x'", "Invalid value for '--n-jobs'"),
        (None, "a.toml: expected a file or folder that exists, got No such file"),
    ],
)
def test_a_wrong_file_is_one_sentence(text, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("a.toml").write_text(text)
    assert cli.main(["train", "nowhere", "-o", "m", "--config", "a.toml"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_device_is_no_file_of_options(capsys):
    assert cli.main(["train", "nowhere", "-o", "m", "--config", os.devnull]) == 2
    assert f"--config: expected a TOML file, got {os.devnull}, a folder or a device." in capsys.readouterr().err


def test_paths_of_a_file_of_options_hold_in_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("e.csv").touch()
    given = {"data": [Path("idc")], "output": Path("out=1"), "embeddings": ["a=e.csv", "b=none.csv"], "folds": 3}
    RunOptions(given={"command": "compare", "patients": "e.csv", "format": "auto", **given}).write_config(Path("r"))
    written = tomllib.loads(Path("r.run.toml").read_text())
    assert written == {
        "version": histofeat.__version__, "command": "compare", "patients": str(tmp_path / "e.csv"), "format": "auto",
        "data": [str(tmp_path / "idc")], "output": str(tmp_path / "out=1"), "folds": 3,
        "embeddings": [f"a={tmp_path / 'e.csv'}", "b=none.csv"]}  # fmt: skip


def test_code_of_others_neither_prints_into_json_nor_ends_a_run(capsys):
    def command(run: RunOptions):
        sys.stdout.write("noise\n")
        run.show({"a": 1}, lambda: sys.stdout.write("words\n"))
        raise SystemExit(run.seed)

    run = built_command(command, "own", "Run it.")
    with pytest.raises(ValueError, match=r"exit: expected none by code of others, got sys.exit\(0\). Let your code"):
        run.main(args=["--json"], standalone_mode=False)
    printed = capsys.readouterr()
    assert (json.loads(printed.out), printed.err) == ({"a": 1}, "noise\n")
    with pytest.raises(SystemExit):  # SIGTERM
        run.main(args=["--seed", "143"], standalone_mode=False)
    assert capsys.readouterr().out == "noise\nwords\n"


def test_standard_output_that_is_closed_or_full(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["list", "heads"]) == 0
    sys.stdout.close()
    if Path("/dev/full").exists():
        with Path("/dev/full").open("w") as full:
            monkeypatch.setattr(sys, "stdout", full)
            assert cli.main(["list", "heads"]) == 2
            assert (
                "standard output: expected a file or folder that can be used, got No space" in capsys.readouterr().err
            )
            cli.let_go(full)


def test_names_of_files_are_no_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.store").touch()
    command = cli._built("train")
    for message in ("b.json: expected predictions", "mine.store: expected a feature store"):
        assert cli._as_options(message, command) == message
    assert cli._as_options("train_model.folds: expected", command) == "--folds: expected"


def test_a_folder_gets_its_file_inside(tmp_path):
    run = RunOptions()
    run.given.update(command="compare", data=[Path("a b")], seed=0)
    run.write_config(tmp_path)
    assert tomllib.loads((tmp_path / "run.toml").read_text())["data"] == [str(Path("a b").absolute())]


# --- completion, names that are nearly right, logs ------------------------------------------------------------------


def completed(words, **more):
    position = str(len(words.split(" ")) - 1)
    variables = {"_HISTOFEAT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": position}
    command = [sys.executable, "-m", "histofeat"]
    found = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
    return found.stdout.split()


def test_the_shell_completes_commands_and_options(tmp_path):
    assert completed("histofeat tr") == ["train"]
    assert completed("histofeat study leakage --fo") == ["--format", "--folds"]
    assert completed("histofeat train --he") == ["--head", "--help"]
    for options, expected in (("--show-completion", "_HISTOFEAT_COMPLETE=complete_bash"), ("--install-completion", "")):
        command = [sys.executable, "-m", "histofeat", options, "bash"]
        # The shell is named, and not looked for among the parents of this process.
        variables = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
        found = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
        assert expected in found.stdout
    assert "_HISTOFEAT_COMPLETE" in (tmp_path / ".bash_completions" / "histofeat.sh").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'? See `histofeat --help`."),
        (["train", "--sed", "3"], "No such option: --sed (Possible options: "),
        (["score", "--zzz"], "No such option: --zzz. See `histofeat score --help`."),
        (["study", "leekage"], "No such command 'leekage'. Did you mean 'leakage'? See `histofeat study --help`."),
        (["study"], "Missing command. See `histofeat study --help`."),
        (["list", "haeds"], "list: expected one of architectures, encoders"),
        (["list", "haeds"], "Did you mean 'heads'?"),
    ],
)
def test_the_nearest_name_is_said(words, message, capsys):
    assert cli.main(words) == 2
    assert message in capsys.readouterr().err


def test_the_exit_codes_are_documented(capsys):
    assert cli.main(["--help"]) == 0
    said = " ".join(capsys.readouterr().out.split("Exit status:")[1].split())
    assert said.startswith("0; 1 where images had to be left out")
    for code in ("2 after one sentence", "130 after Ctrl-C", "143 after SIGTERM"):
        assert code in said


def test_tifffile_logs_nothing_in_a_command_and_compiling_is_said(caplog):
    others, own = logging.getLogger("tifffile"), logging.getLogger("histofeat.images._kernels")
    for quiet, said in ((False, ["Kernels are compiled."]), (True, [])):
        caplog.clear()
        with chosen_logs(quiet=quiet):
            others.error("<tifffile.TiffPages @8> missing data")
            own.warning("Kernels are compiled.")
        assert caplog.messages == said
    with chosen_logs(quiet=True):
        with chosen_logs(quiet=True):
            pass
        assert others.disabled, "a command inside a command leaves the choice of the outer one"
    assert not others.disabled
    assert not own.disabled
