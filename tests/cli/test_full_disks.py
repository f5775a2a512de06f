"""Every command that writes, on a disk that is full before or during the run, and into a place that is no folder."""

import contextlib
import shutil

import pytest

from histofeat import cli, make_cohort
from histofeat.datasets import check_place
from histofeat.models import load_model

resource = pytest.importorskip("resource")  # Windows has none

COLOR, FEW = ["--features", "color"], ["--folds", "2", "--resamples", "10"]
#: The words of each command without its output, and the name of that; what else it writes is named beside.
COMMANDS = {
    "extract": (["extract", "tree", *COLOR], "new.parquet"),
    "train": (["train", "tree", *COLOR, "--head", "logistic", *FEW], "new"),
    "train with a report": (["train", "tree", *COLOR, "--head", "logistic", *FEW, "--report", "page"], "new"),
    "predict": (["predict", "model", "tree", "--patients", "model"], "new.csv"),
    "compare": (["compare", "tree", *COLOR, "--heads", "logistic", "--quick", "--no-shortcuts", *FEW], "new"),
    "report": (["report", "finished", "--no-shortcuts"], "new"),
    "study": (
        ["study", "leakage", "tree", "--quick", *COLOR, "--heads", "logistic", "--folds", "2"],
        "new",
    ),
    "score": (["score", "scores.csv", "--truth", "truth.csv", "--resamples", "10"], "new"),
    "map": (["map", "model", "other", "--patient", "910001", "--patient", "910002"], "new"),
    "map one": (["map", "model", "other", "--patient", "910001"], "new"),
    "evaluate": (["evaluate", "model", "other", "--resamples", "10"], "new"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data, a model, a finished run and predictions."""
    folder = tmp_path_factory.mktemp("full")
    with contextlib.chdir(folder):
        for name, seed, first in (("tree", 0, "90"), ("other", 1, "91")):
            for patch in make_cohort(6, 6, random_state=seed, root=folder / f"made-{name}").root.rglob("*.png"):
                new = folder / name / patch.parent.parent.name.replace("90", first, 1) / patch.parent.name
                new.mkdir(parents=True, exist_ok=True)
                patch.rename(new / patch.name.replace("90", first, 1))
            shutil.rmtree(folder / f"made-{name}")
        run, _ = COMMANDS["train"]
        assert cli.main([*run, "-o", "model", "--quiet"]) == 0
        run, _ = COMMANDS["compare"]
        assert cli.main([*run, "-o", "finished", "--quiet"]) == 0
        assert cli.main(["predict", "model", "tree", "-o", "scores.csv", "--quiet"]) == 0
        paths = sorted(str(path) for path in (folder / "tree").rglob("*.png"))
        names = load_model("model").class_names
        rows = [f"{path},{names[int('class1' in path)]},{path.split('/')[-3]}" for path in paths]
        (folder / "truth.csv").write_text("\n".join(["path,label,patient", *rows]))
        (folder / "text.txt").write_text("text")
    return folder


@contextlib.contextmanager
def largest(n_bytes):
    """No file grows beyond this size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def ends_in_a_sentence(words, place, capsys):
    """Check that a command ends with an error of one line, beside warnings, and leaves what was there."""
    before = {path: path.stat().st_size for path in place.rglob("*")}
    assert cli.main(words) == 2
    (line,) = (
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("histofeat: ") and "warning: " not in line
    )
    assert {path: path.stat().st_size for path in place.rglob("*")} == before
    return line


@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_in_a_file_is_refused_at_once(command, place, monkeypatch, capsys):
    words, output = COMMANDS[command]
    monkeypatch.chdir(place)
    line = ends_in_a_sentence([*words, "-o", f"text.txt/{output}"], place, capsys)
    assert f"text.txt/{output}: expected a place that can be written, got Not a directory. Give another" in line


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_seen_before_the_first_image(command, place, monkeypatch, capsys):
    words, output = COMMANDS[command]
    monkeypatch.chdir(place)
    with largest(1000):
        line = ends_in_a_sentence([*words, "-o", output], place, capsys)
    assert f"{place / output}: expected a place that can be written, got File too large. Give another" in line


@pytest.mark.filterwarnings("always:.*What is done is not kept there, and the run goes on")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_disk_that_fills_during_the_run_leaves_nothing_half_written(command, place, tmp_path, monkeypatch, capsys):
    words, output = COMMANDS[command]
    monkeypatch.chdir(place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with contextlib.ExitStack() as full:

        def check(*arguments, **settings):  # the disk is full from here on
            full.close()
            check_place(*arguments, **settings)
            full.enter_context(largest(100))

        for module in ("histofeat.datasets", "histofeat.models._archive", "histofeat.reporting._folder"):
            monkeypatch.setattr(f"{module}.check_place", check)
        line = ends_in_a_sentence(
            [*words, "-o", output, *["--quiet"][: command not in ("report", "score")]], place, capsys
        )
    others = {"train with a report": place / "page.evaluation", "study": "/cohort", "map": place / output / "910001"}
    named = others.get(command, place / output)
    assert f"{named}: expected" in line
    assert "expected a place that can be written, got File too large. Give another name or folder." in line
