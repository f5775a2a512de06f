"""Every example runs as a script, in seconds, and shows what it says."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name):
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, time.perf_counter() - started


def test_the_page_lists_every_example():
    listed = re.findall(r"\[(\w+\.py)\]\(\1\)", (EXAMPLES / "README.md").read_text())
    assert listed == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.slow
def test_nested_search_chooses_the_same_both_ways():
    printed, seconds = run("nested_search.py")
    rows = re.findall(r"^ +(\d) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$", printed, flags=re.MULTILINE)
    assert [row[0] for row in rows] == ["0", "1", "2"]
    for _, their_c, their_auc, our_c, our_auc in rows:
        assert (their_c, their_auc) == (our_c, our_auc)
        assert 0.5 < float(our_auc) <= 1
    assert len({row[1] for row in rows}) > 1, "the folds are to choose for themselves"
    assert "95 % interval over patients" in printed
    assert seconds < 60, "an example takes seconds"
