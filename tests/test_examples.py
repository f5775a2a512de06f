"""Every example of the gallery runs as a script, without a warning, in seconds, and shows a picture."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
GALLERY = sorted((EXAMPLES / "gallery").glob("*.py"))


def run(path):
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "error", path], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, time.perf_counter() - started


def test_the_page_lists_every_example():
    listed = re.findall(r"\[([\w/]+\.py)\]\(\1\)", (EXAMPLES / "README.md").read_text())
    here = [path.relative_to(EXAMPLES).as_posix() for path in (*GALLERY, *EXAMPLES.glob("*.py"))]
    assert sorted(listed) == sorted(here)


@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_an_example_has_a_title_and_a_picture(path):
    text = path.read_text(encoding="utf-8")
    assert path.stem.startswith("plot_")
    assert re.match(r'"""\n(.+)\n=+\n\n', text), "the title of the page"
    assert "plt.show()" in text


@pytest.mark.long
@pytest.mark.parametrize("path", [p for p in GALLERY if p.stem != "plot_nested_search"], ids=lambda path: path.stem)
def test_an_example_runs_without_a_warning(path):
    printed, _ = run(path)
    if path.stem == "plot_patch_split":
        patch, patient = (float(value) for value in re.findall(r"ROC-AUC ([\d.]+)", printed))
        assert patch > 0.9
        assert patient < 0.65


@pytest.mark.slow
def test_nested_search_chooses_the_same_both_ways():
    printed, seconds = run(EXAMPLES / "gallery/plot_nested_search.py")
    rows = re.findall(r"^fold (\d): C (\S+) and (\S+), ROC-AUC (\S+) and (\S+)$", printed, flags=re.MULTILINE)
    assert [row[0] for row in rows] == ["0", "1", "2"]
    for _, their_c, our_c, their_auc, our_auc in rows:
        assert (their_c, their_auc) == (our_c, our_auc)
        assert 0.5 < float(our_auc) <= 1
    assert len({row[1] for row in rows}) > 1, "the folds are to choose for themselves"
    assert "95 % interval over patients" in printed
    assert seconds < 60, "an example takes seconds"
