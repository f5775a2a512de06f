"""Options of the commands: groups declared once, and what a command makes of them."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from histofeat import cli
from histofeat.cli._options import DataOptions, EncoderOptions, RunOptions, expanded, group, option
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
    assert list(parameters)[-8:] == ["folds", "seed", "n_jobs", "store", "no_store", "ledger", "quiet", "json"]
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
    assert DataOptions().open() is cohort
    assert DataOptions().name == "synthetic"
    with pytest.raises(ValueError, match="target: expected none without data, got 'subtype'"):
        DataOptions(target="subtype").open()


def test_several_folders_of_idc_count_as_one(cohort, tmp_path):
    first, *_, last = list(dict.fromkeys(cohort.patients))
    for patient in (first, last):
        (tmp_path / patient / "data").mkdir(parents=True)
        (tmp_path / patient / "data" / patient).symlink_to(cohort.root / patient)
    dataset = open_dataset([tmp_path / first / "data", tmp_path / last / "data"])
    assert set(dataset.patients) == {first, last}
    with pytest.raises(ValueError, match="expected one folder or file, or several folders of IDC, got 2 of the"):
        open_dataset([cohort.root, cohort.root], "folder")
    with pytest.raises(DatasetError, match=r"open_dataset: expected the path of a folder or a CSV file, got \[\]"):
        open_dataset([])


def test_the_runtime_takes_the_options(tmp_path):
    runtime = RunOptions(n_jobs=2, store=tmp_path / "a.sqlite", ledger=tmp_path / "looks.csv").runtime("train idc")
    assert (runtime.n_jobs, runtime.store.path, runtime.ledger.path) == (
        2, str(tmp_path / "a.sqlite"), tmp_path / "looks.csv")  # fmt: skip
    assert RunOptions().runtime("x").store is None
    assert RunOptions().runtime("x", store=tmp_path / "b.sqlite").store.path == str(tmp_path / "b.sqlite")
    assert RunOptions(no_store=True).runtime("x", store=tmp_path / "b.sqlite").store is None
    assert RunOptions().runtime("x", n_jobs=None).n_jobs is None


def test_weights_are_a_file_or_a_folder(tmp_path):
    assert EncoderOptions().params() == {}
    assert EncoderOptions("densenet121", tmp_path, 96).params() == {
        "cnn__encoder": "densenet121", "cnn__weights_dir": str(tmp_path), "cnn__input_size": 96}  # fmt: skip
    assert EncoderOptions(weights=tmp_path / "w.h5").params() == {"cnn__weights": str(tmp_path / "w.h5")}


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
