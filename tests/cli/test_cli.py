"""The command `histofeat`: one sentence for bad input, what is there for good."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import histofeat
from histofeat import ColorHistogram, cli
from histofeat.cli import _scoring as scoring
from histofeat.cli._options import RunOptions
from histofeat.cli._outputs import ended_cleanly, give
from histofeat.datasets import DUPLICATES, FORMATS, official_roles, write_whole
from histofeat.evaluation import evaluate_model
from histofeat.features import Runtime, extract
from histofeat.images import AGGREGATES, EDGES, NORMALIZERS, POLICIES


def test_audit_says_what_a_folder_holds(cohort, capsys):
    assert cli.main(["audit", str(cohort.root)]) == 0
    printed = capsys.readouterr().out
    assert "180" in printed
    assert "15" in printed
    assert cli.main(["audit", str(cohort.root), str(cohort.root)]) == 0
    assert "duplicates removed: 180" in capsys.readouterr().out


def test_store_is_listed_and_purged(tmp_path, patches, capsys):
    path = tmp_path / "features.sqlite"
    extract([ColorHistogram()], patches, store=path)
    assert cli.main(["store", str(path)]) == 0
    assert "color" in capsys.readouterr().out
    assert cli.main(["store", str(path), "--purge", "color"]) == 0
    assert "removed 12 rows of color" in capsys.readouterr().out


@pytest.fixture
def predictions(tmp_path):
    """A file with a row for four made-up patches of each test and validation patient; the odd ones are positive."""
    scores = (0.3, 0.4, 0.2, 0.8)
    rows = [
        f"{patient}_idx5_x{50 * place + 1}_y1_class{place % 2}.png,{scores[(place + number) % 4] + place % 2 / 8}"
        for number, (patient, role) in enumerate(official_roles().items())
        if role != "train"
        for place in range(4)
    ]
    path = tmp_path / "predictions.csv"
    path.write_text("\n".join(["patch,score", *rows]) + "\n")
    return path


def test_score_prints_a_table_and_writes_the_same_numbers(predictions, tmp_path, capsys):
    words = ["score", str(predictions), "--protocol", "idc-official", "--resamples", "50", "--threshold", "youden"]
    assert cli.main([*words, "--output", str(tmp_path / "scores.json")]) == 0
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "scores.json").read_text())
    assert (written["histofeat"], written["predictions"]) == (histofeat.__version__, "predictions.csv")
    assert "196 patches of 49 patients, 98 positive" in printed
    assert "(youden)" in printed
    assert max(map(len, printed.split("\n- ")[0].splitlines())) <= 100
    for metric in ("roc_auc", "average_precision", "balanced_accuracy", "f1", "sensitivity", "specificity", "brier"):
        assert f"{written['scores_at_half'][metric]['pooled']:.4f}" in printed
    low, high = written["scores_at_half"]["roc_auc"]["ci95"]
    assert f"{low:.4f} to {high:.4f}" in printed
    tuned = written["scores_at_threshold"]["balanced_accuracy"]
    line = next(line for line in printed.splitlines() if "Balanced accuracy" in line)
    assert f"{tuned['pooled']:.4f}" in line
    assert f"{tuned['ci95'][0]:.4f} to {tuned['ci95'][1]:.4f}" in line
    for note in written["notes"]:
        assert f"- {note}" in printed


def test_score_without_other_patients_is_at_one_half_only(predictions, capsys):
    roles = official_roles()
    lines = predictions.read_text().splitlines()
    kept = [line for line in lines[1:] if roles[line.split("_")[0]] == "test"]
    kept = [line for line in kept if line[:-8].endswith("class1.png") or "class0" in line]
    predictions.write_text("\n".join([lines[0], *kept]))
    assert cli.main(["score", str(predictions), "--protocol", "idc-official", "--resamples", "0"]) == 0
    printed = capsys.readouterr().out
    assert "labels at 0.5 only" in printed
    assert "(f1)" not in printed
    predictions.write_text("\n".join([lines[0], *[line for line in kept if "class0" in line][2:]]))
    words = ["score", str(predictions), "--protocol", "idc-official", "--resamples", "0", "--allow-missing-patients"]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert "undefined" in printed
    assert "Absent: 1 of the 49" in printed


def test_score_never_replaces_a_file(predictions, tmp_path, capsys):
    output = tmp_path / "scores.json"
    output.write_text("mine")
    words = ["score", str(predictions), "--protocol", "idc-official", "--output", str(output)]
    assert cli.main(words) == 2
    assert "scores.json: expected a new file, got one that exists" in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert cli.main([*words[:-1], str(tmp_path / "nowhere" / "scores.json")]) == 2
    assert "expected a file in a folder that exists, got none there" in capsys.readouterr().err


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path):
    (tmp_path / "scores.json").write_text("mine")
    with pytest.raises(FileExistsError, match="expected a new file, got one that exists"):
        give(RunOptions(), {}, lambda: None, tmp_path / "scores.json")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["audit", "nowhere"], "nowhere"),
        (["store", "nowhere.sqlite"], "expected a feature store, found no such file"),
        (["score", "none.csv", "--protocol", "idc-official"], "predictions: expected a CSV file, got a path that does"),
        (["score", "none.csv"], "none.csv: expected predictions (CSV, Parquet or JSON), got: No such file"),
        (["score", "none.csv", "--protocol", "idc-official", "--resamples", "few"], "Invalid value for '--resamples'"),
        (["scor"], "No such command 'scor'. Did you mean 'score'"),
        (["audit", "x", "--fast"], "No such option: --fast"),
        ([], "Missing command. See `histofeat --help`."),
        (["train", ".", "-o", "m"], "expected a folder of images or a CSV file, got a folder without images"),
        (["train", ".", "-o", "m", "--n-jobs", "0"], "expected 1 or more threads, or -1 for all cores, got 0."),
        (["train", ".", "-o", "m", "--seed", "-1"], "Invalid value for '--seed'"),
        (
            ["train", ".", "-o", "m", "--features", "color", "--head", "svm", "--epochs", "2"],
            "--epochs: expected none for the head 'svm' on color, got 2",
        ),
    ],
)
def test_bad_input_is_one_sentence(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("histofeat: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert "Traceback" not in printed.err
    assert not printed.out


#: The command whose options a sentence is about, by a word in it; of others, train.
OF = {"threshold": "score", "weights": "predict", "min_tissue": "predict"}


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("load_image_folder.patients: expected a rule, got None.", "--patients: expected a rule, got none."),
        ('Give patients=r"^([0-9]+)_" or patients="folder".', 'Give --patients "^([0-9]+)_" or --patients "folder".'),
        ("Give another name, or overwrite=True (--overwrite).", "Give another name, or --overwrite."),
        ("Set epochs=3.", "Set --epochs 3."),
        ("Give patients=... to predict_images.", "Give --patients to predict_images."),
        ("Name it by weights_dir, or pass weights=<path>.", "Name it by --weights, or pass --weights <path>."),
        ("Use on_error='skip' in /data/on_error.", "Use --on-error 'skip' in /data/on_error."),
        ("min_tissue: expected 1. Set min_tissue.", "--min-tissue: expected 1. Set --min-tissue."),
        ("threshold: expected sensitivity=0.95, got 'x'.", "--threshold: expected sensitivity=0.95, got 'x'."),
    ],
)
def test_the_command_line_speaks_of_options(said, shown):
    name = next((command for word, command in OF.items() if word in said), "train")
    assert cli._as_options(said, cli._built(name)) == shown


def test_what_the_system_refuses_is_one_sentence(monkeypatch, capsys):
    def refuse(*arguments, **settings):
        raise OSError(28, "No space left on device", "/data/x")

    monkeypatch.setattr("histofeat.datasets.open_dataset", refuse)
    assert cli.main(["audit", "x", "--magnification", "40"]) == 2
    words = "/data/x: expected a file or folder that can be used, got No space left on device. Correct the path."
    assert capsys.readouterr().err == f"histofeat: {words}\n"


def test_an_unknown_protocol_is_named_with_the_nearest(predictions, capsys):
    assert cli.main(["score", str(predictions), "--protocol", "idc-oficial"]) == 2
    assert "got 'idc-oficial'. Did you mean 'idc-official'?" in capsys.readouterr().err


def test_a_missing_extra_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "histofeat.features", None)
    assert cli.main(["store", __file__]) == 2
    assert capsys.readouterr().err.startswith("histofeat: import of histofeat.features halted")


def test_the_version_is_printed(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{histofeat.__version__}\n"


@pytest.mark.parametrize("command", ["train", "predict", "audit", "store", "score"])
def test_every_command_explains_itself(command, capsys):
    assert cli.main([command, "--help"]) == 0
    assert f"histofeat {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "option", "names"),
    [
        ("train", "--format", FORMATS),
        ("train", "--duplicates", DUPLICATES),
        ("train", "--normalizer", tuple(NORMALIZERS)),
        ("predict", "--policy", POLICIES),
        ("predict", "--edges", EDGES),
        ("predict", "--aggregate", AGGREGATES),
    ],
)
def test_help_names_what_may_be_given(command, option, names):
    (parameter,) = (p for p in cli._built(command).params if option in p.opts)
    assert [name for name in names if name not in parameter.help] == []


def test_the_command_is_installed():
    command = Path(sys.executable).with_name("histofeat")
    found = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert "audit" in found.stdout
    assert subprocess.run([command, "audit", "nowhere"], capture_output=True, check=False).returncode == 2


def test_the_command_line_loads_nothing_but_typer():
    code = """
import json, sys
import histofeat.cli
assert histofeat.cli.main(["study", "leakage", "--help"]) == 0
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names))))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(found.stdout.splitlines()[-1]))
    assert "typer" in loaded
    assert not {"numpy", "pandas", "sklearn", "scipy", "numba", "rich", "cv2"} & loaded


def test_scoring_needs_none_of_the_extraction_stack(predictions, tmp_path):
    """Modules that are None in `sys.modules` cannot be imported."""
    code = """
import sys
for name in ("cv2", "skimage", "xgboost", "keras", "tensorflow", "openvino", "mahotas", "matplotlib", "PIL",
             "histofeat.features", "histofeat.networks", "histofeat.models"):
    sys.modules[name] = None
from histofeat.cli import main
sys.exit(main(sys.argv[1:]))
"""
    data = [tmp_path / "first", tmp_path / "second"]
    roles = official_roles()
    for number, line in enumerate(predictions.read_text().splitlines()[1:]):
        patch = line.split(",")[0]
        if roles[patch.split("_")[0]] == "test":
            folder = data[number // 3 % 2] / patch.split("_")[0] / patch[-5]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / patch).write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x32\x00\x00\x00\x32")
    words = ["score", predictions, "--protocol", "idc-official", "--data", data[0], "--data", data[1]]
    words += ["--resamples", "20"]
    found = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "Complete: every patch of these patients" in found.stdout
    assert "Balanced accuracy" in found.stdout


# --- readers that go away --------------------------------------------------------------------------------------------


@pytest.fixture
def unread():
    """A text stream into a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:  # noqa: PTH123
        yield stream


def test_output_without_a_reader_ends_without_a_word(unread, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", unread)
    assert cli.main(["--version"]) == 1
    assert capsys.readouterr().err == ""
    unread.write("what is still to come goes nowhere\n")


def test_a_callback_that_cannot_write_does_not_end_the_work():
    def full(*_):
        raise OSError(28, "No space left on device")

    Runtime(progress=full).report("fit", 1, 2)
    with pytest.raises(KeyError, match="mine"):  # an error of the callback itself is no matter of a stream
        Runtime(progress=lambda *_: {}["mine"]).report("fit", 1, 2)


def test_sigterm_cleans_up_as_ctrl_c_does(tmp_path, monkeypatch):
    def stop(number):
        with write_whole(tmp_path / "out") as part:
            part.write_text("half")
            os.kill(os.getpid(), number)
            time.sleep(10)

    before = signal.getsignal(signal.SIGTERM)
    # A shell that runs the tests in the background lets them ignore Ctrl-C.
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        monkeypatch.setattr(scoring, "check_output", lambda output, number=number: stop(number))
        try:
            found = cli.main(["score", "none.csv", "--protocol", "idc-official"])
        except SystemExit as error:
            found = error.code
        assert found == code
        assert list(tmp_path.iterdir()) == []
    signal.signal(signal.SIGINT, interrupt)
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_no_handler_is_set():
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="no such file"):
        pool.submit(_fail_in_a_thread).result()


def _fail_in_a_thread():
    with ended_cleanly():
        raise ValueError("no such file")


def test_a_place_that_cannot_be_written_is_a_sentence_before_the_work(tmp_path, capsys):
    words = ["score", "none.csv", "--protocol", "idc-official", "--output", str(tmp_path / ("a" * 300))]
    assert cli.main(words) == 2
    assert re.search(
        r"^histofeat: .*a: expected a place that can be written, got File name too", capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("error", "command", "said"),
    [
        (FileExistsError("output: expected a folder, got the file 'x'."), "compare", "--output: expected a folder"),
        (ValueError("evaluate.pipelines: expected one, got 0."), "compare", "--pipeline: expected one"),
        (
            ValueError(f"{evaluate_model.__name__}: expected patients, got 0."),
            "evaluate",
            "evaluate: expected patients",
        ),
        (ValueError("y: expected two classes, got 1."), "train", "labels: expected two classes"),
        (ValueError("evaluate_it: expected a file, got 0."), "evaluate", "evaluate_it: expected a file"),
    ],
)
def test_messages_name_options_and_commands_not_functions(error, command, said, monkeypatch, capsys):
    monkeypatch.setattr(cli, "_ran", lambda group: cli._built(command))

    def fail(*arguments, **settings):
        raise error

    monkeypatch.setattr("typer.core.TyperGroup.main", fail)
    assert cli.main([command]) == 2
    assert capsys.readouterr().err.startswith(f"histofeat: {said}")
