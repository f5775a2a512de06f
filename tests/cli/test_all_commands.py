"""Of all commands: every option wrong once is a sentence; results are JSON; runs write what repeats them."""

import json
import re
import tomllib

import pytest

from histofeat import ColorHistogram, cli
from histofeat.datasets import official_roles
from histofeat.features import extract

#: A wrong value for each option, by its name; of a flag, any value is wrong.
WRONG = {
    "--aggregate": "x",
    "--class-weight": "x",
    "--config": "none.toml",
    "--data": "nowhere",
    "--difference": "-1",
    "--duplicates": "x",
    "--embeddings": "x",
    "--edges": "x",
    "--encoder": "x",
    "--epochs": "0",
    "--features": "colour",
    "--folder": "text.txt",
    "--folds": "1",
    "--format": "x",
    "--gallery": "0",
    "--half-width": "0",
    "--head": "xgbost",
    "--known-patients": "x",
    "--labels": "nowhere.csv",
    "--ledger": "text.txt",
    "--magnification": "41",
    "--maps": "0",
    "--heads": "xgbost",
    "--input-size": "3",
    "--margin": "0",
    "--markdown": "text.txt",
    "--metric": "x",
    "--min-tissue": "3",
    "--n-jobs": "0",
    "--normalizer": "x",
    "--on-error": "x",
    "--only": "nowhere",
    "--output": "text.txt",
    "--path-prefix": "x",
    "--inner-patches": "0",
    "--patient": "nobody",
    "--patients": "(",
    "--pipeline": "x",
    "--plan": "nowhere",
    "--policy": "x",
    "--predictions": "x",
    "--protocol": "x",
    "--purge": "colour",
    "--report": "text.txt",
    "--resamples": "-1",
    "--seed": "-1",
    "--split": "nowhere",
    "--store": "text.txt",
    "--target": "x",
    "--target-class": "x",
    "--threshold": "x",
    "--weights": "nowhere",
}
#: Options that make a run short.
FEW = {"--folds": ["2"], "--no-estimate": [], "--resamples": ["20"]}
#: Words with "=" that are values of options, and so no arguments of Python.
RULES = re.compile(r"\b(?:sensitivity|specificity)=[0-9.]+|OLD=NEW|\S*scans=\S+")


#: All commands; of the studies, which have their options in common, one.
NAMES = [name if name != "study" else "study leakage" for commands in cli.COMMANDS.values() for name in commands]


def built(command):
    """Build a command from its name; of a group, such as "study leakage", from both."""
    name, *sub = command.split()
    return cli._built(name).get_command(None, *sub) if sub else cli._built(name)


def options(command):
    return {name: each for each in built(command).params for name in each.opts if name.startswith("--")}


def cases():
    """Yield commands with wrong words; what many commands have from one group is quick for the first of them."""
    seen = set()
    for command in NAMES:
        for name, each in options(command).items():
            if name != "--help":
                wrong = [f"{name}=x"] if each.is_flag else [name, WRONG.get(name, "?")]
                marks = [pytest.mark.long] if (name, each.help) in seen else []
                yield pytest.param(command, wrong, marks=marks)
                seen.add((name, each.help))
        yield command, ["--no-such-option"]
        if len(options(command)) < len(built(command).params):
            yield command, ["nowhere"]


@pytest.fixture(scope="module")
def place(cohort, tmp_path_factory):
    """A folder with a model, predictions, a store and a text file; the words that make each command run."""
    folder = tmp_path_factory.mktemp("input")
    model, store = folder / "model.histofeat", folder / "features.sqlite"
    train = ["train", str(cohort.root), "--features", "color", "--head", "logistic", "-o"]
    assert cli.main([*train, str(model), "--no-estimate", "--quiet"]) == 0
    extract([ColorHistogram()], cohort.X[:2], store=store)
    (folder / "text.txt").write_text("text")
    rows = [
        f"{patient}_idx5_x{50 * place + 1}_y1_class{place % 2}.png,0.5"
        for patient, role in official_roles().items()
        for place in range(2 * (role == "test"))
    ]
    (folder / "scores.csv").write_text("\n".join(["patch,score", *rows]))
    pilot = [f"{row},{row // 4},{['no', 'yes'][row % 2]},{(row * 7 % 10 + row % 2 * 3) / 13:.3f}" for row in range(40)]
    (folder / "pilot.csv").write_text("\n".join(["path,patient,truth,score", *pilot]))
    words = {
        "audit": [str(cohort.root)],
        "extract": [str(cohort.root), "--features", "color", "-o", "new.parquet"],
        "fetch": ["idc"],
        "train": [*train[1:], "new"],
        "predict": [str(model), cohort.X[0]],
        "map": [str(model), str(cohort.root / "900003"), "-o", "new"],
        "compare": [str(cohort.root), "--features", "color", "--heads", "logistic", "-o", "new"],
        "report": [str(folder / "finished")],
        "study leakage": [str(cohort.root), "--features", "color", "--heads", "logistic", "-o", "new"],
        "evaluate": [str(model), str(cohort.root)],
        "score": ["scores.csv", "--protocol", "idc-official"],
        "power": ["pilot.csv"],
        "info": [str(model)],
        "list": ["heads"],
        "store": [str(store)],
        "doctor": [],
    }
    return folder, words


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("command", "wrong"), list(cases()), ids=lambda part: part if isinstance(part, str) else " ".join(part)
)
def test_a_wrong_option_is_a_sentence_and_writes_nothing(command, wrong, place, tmp_path, monkeypatch, capsys):
    folder, words = place
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = content(folder)
    # In the place of the first argument; options keep the others right.
    words = [*words[command], *wrong] if wrong[0].startswith("--") else [*wrong, *words[command][1:]]
    assert cli.main([*command.split(), *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("histofeat: ")
    assert printed.err.count("\n") == 1
    assert content(folder) == before
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", printed.err.replace(wrong[0], "")))
    assert named <= {"--help", *options(command)}, printed.err
    assert not re.search(r"\b[a-z_]+=\S", RULES.sub("", printed.err)), printed.err


@pytest.mark.parametrize("command", NAMES)
def test_results_are_one_json_object_and_runs_write_what_repeats_them(command, place, tmp_path, monkeypatch, capsys):
    folder, words = place
    known, words = options(command), words[command]
    # Those that take longer have tests of their own.
    if "--json" not in known or command in ("compare", "doctor", "evaluate", "report", "study leakage"):
        pytest.skip("no result, or a slow one")
    monkeypatch.chdir(folder)
    output = tmp_path / {"extract": "new.parquet", "predict": "new.csv"}.get(command, "new")
    words = [*words[:-2], "-o", str(output)] if "-o" in words else words
    words = [*words, "--output", str(output)] if "--output" in known and "-o" not in words else words
    few = [part for name, values in FEW.items() if name in known for part in (name, *values)]
    assert cli.main([*command.split(), *words, *few, "--json", *["--quiet"][: "--quiet" in known]]) == 0
    printed = capsys.readouterr()
    assert isinstance(json.loads(printed.out), dict)
    if "--output" in known:
        (config,) = tmp_path.rglob("*run.toml")
        assert tomllib.loads(config.read_text())["command"] == command
        config = config.rename(folder / f"{command}.toml")
        for path in list(tmp_path.iterdir()):
            path.rename(path.with_name(f"before.{path.name}"))
        assert cli.main([*command.split(), "--config", str(config), "--json", *["--quiet"][: "--quiet" in known]]) == 0
        assert capsys.readouterr().out == printed.out


@pytest.mark.parametrize("name", NAMES)
def test_an_output_has_the_short_name_everywhere(name):
    assert all("-o" in each.opts for option, each in options(name).items() if option == "--output")
