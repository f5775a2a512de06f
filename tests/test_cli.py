"""The command `histofeat`: one sentence for bad input, what is there for good."""

import subprocess
import sys
from pathlib import Path

import pytest

from histofeat import ColorHistogram, cli
from histofeat.features import extract


def test_audit_says_what_a_folder_holds(cohort, capsys):
    assert cli.main(["audit", str(cohort.root)]) == 0
    printed = capsys.readouterr().out
    assert "180" in printed
    assert "15" in printed


def test_store_is_listed_and_purged(tmp_path, patches, capsys):
    path = tmp_path / "features.sqlite"
    extract([ColorHistogram()], patches, store=path)
    assert cli.main(["store", str(path)]) == 0
    assert "color" in capsys.readouterr().out
    assert cli.main(["store", str(path), "--purge", "color"]) == 0
    assert "removed 12 rows of color" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["audit", "nowhere"], "nowhere"),
        (["store", "nowhere.sqlite"], "expected a feature store, found no such file"),
    ],
)
def test_bad_input_is_one_sentence(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("histofeat: ")
    assert message in error
    assert "Traceback" not in error


def test_the_command_is_installed():
    command = Path(sys.executable).with_name("histofeat")
    found = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert "audit" in found.stdout
