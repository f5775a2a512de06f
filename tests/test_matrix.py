"""The script behind `make matrix`: what it installs, and when an environment is made anew."""

import re
import subprocess

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
    assert len(newest) == len(oldest) > 24
    assert {"narwhals>=1.9", "openvino>=2024.4"} <= set(newest)
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
    assert "narwhals>=1.9" in pip[1]
    assert matrix.make_environment(*make)[1] == ""
    assert len(pip) == 2
    monkeypatch.setattr(matrix, "requirements", lambda kind, networks: ["numpy>=9"])
    matrix.make_environment(*make)
    assert pip[3][-1] == "numpy>=9"
