"""Models that travel: every head, saved with one set of versions, predicts the same with others."""

import subprocess
import sys
from pathlib import Path

import matrix
import pytest


def test_floors_are_those_of_the_setup():
    found = matrix.floors(networks=True)
    assert {"numpy", "scikit-learn", "xgboost", "opencv-python-headless", "keras"} <= set(found)
    assert all(version[0].isdigit() for version in found.values())


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
