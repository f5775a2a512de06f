"""Models that travel: every head, saved with one set of versions, predicts the same with others."""

import re
import subprocess
import sys
from pathlib import Path

import matrix
import pytest


@pytest.fixture
def pip(monkeypatch):
    """Record commands instead of running them, and find every Python."""
    calls = []

    def run(words, **options):
        calls.append(words)
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(matrix.subprocess, "run", run)
    monkeypatch.setattr(matrix, "find_python", lambda version: f"python{version}")
    return calls


@pytest.mark.parametrize("networks", [False, True])
def test_every_requirement_of_an_installation_is_there(networks):
    newest, oldest = (matrix.requirements(kind, networks) for kind in ("newest", "oldest"))
    assert len(newest) == len(oldest) > 20
    assert {"narwhals", "openvino", "numpy"} <= {line.partition(">=")[0] for line in newest}
    assert "numpy==2.0.*" in oldest
    assert all(re.search(r"==[\d.]+\.\*", line) and ">=" not in line for line in oldest)
    assert ("tensorflow==2.18.*" in oldest) is networks


def test_an_environment_for_other_requirements_is_made_anew(tmp_path, pip, monkeypatch):
    home = tmp_path / "py3.12-newest"
    home.mkdir()
    (home / "done").touch()  # as older runs left it, with other packages
    make = (tmp_path, "3.12", "newest", False)
    assert matrix.make_environment(*make) == (home / "bin" / "python", "")
    assert [words[2] for words in pip] == ["venv", "pip"]
    assert pip[0][3] == "--clear"
    assert set(matrix.requirements("newest", False)) < set(pip[1])
    assert matrix.make_environment(*make)[1] == ""
    assert len(pip) == 2
    monkeypatch.setattr(matrix, "requirements", lambda kind, networks: ["numpy>=9"])
    matrix.make_environment(*make)
    assert pip[3][-1] == "numpy>=9"


def test_what_was_not_tried_has_not_passed(capsys):
    assert matrix.show([], {"py3.99-oldest": "no Python 3.99"}) == 1
    assert "not tried: no Python 3.99" in capsys.readouterr().out
    same = ("a", "b", "svm", 0.0, "same")
    assert matrix.show([same], {"py3.99-oldest": "no Python 3.99"}) == 0
    assert matrix.show([same, ("a", "b", "svm", 0.1, "FAILED")], {}) == 1


def test_a_python_that_is_not_here_is_no_environment(tmp_path):
    assert matrix.make_environment(tmp_path, "3.99", "oldest", False) == (None, "no Python 3.99")
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_heads_travel_between_the_oldest_and_the_newest_packages(tmp_path):
    version = "{}.{}".format(*sys.version_info)
    for kind in matrix.KINDS:
        python, reason = matrix.make_environment(tmp_path, version, kind, False)
        if python is None:
            pytest.skip(f"no environment of the {kind} packages: {reason}")
    script = Path(matrix.__file__)
    ran = subprocess.run(
        [sys.executable, script, "--python", version, "--folder", tmp_path], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " same" in ran.stdout
