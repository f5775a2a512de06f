"""The published split of IDC, on a small tree of made-up patches under the names of real patients."""

import csv
import json
import re
import shutil
import subprocess
import sys
import warnings
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from histofeat import IDCPipeline, evaluate, load_idc
from histofeat.cli._studies import _beside_published
from histofeat.datasets import LEDGER_COLUMNS, Ledger, official_roles
from histofeat.datasets._idc import FULL_SET
from histofeat.evaluation._evaluation import _ledger_row as ledger_row
from histofeat.metrics import parse_rule, read_plan
from histofeat.reporting import Table, render_markdown, write_report
from histofeat.studies import (
    SplitRun,
    compare_with_published,
    data_words,
    load_published,
    official_folds,
)

REPOSITORY = Path(__file__).resolve().parents[2]
PROTOCOLS = REPOSITORY / "benchmarks" / "protocols"
HEADER = ",".join(LEDGER_COLUMNS)
LISTED, UNLISTED = "train+validation", "train+validation+unlisted"
N_PATIENTS = {"train": 9, "validation": 3, "test": 5, "unlisted": 1}
N_PATCHES = 10
QUICK = ["--features", "lbp", "--heads", "logistic", "--recipes", "", "--resamples", "50", "--n-jobs", "1"]


@pytest.fixture(scope="module")
def script(loaded_script):
    with loaded_script("study.py") as module:
        yield module


@pytest.fixture
def main(script, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda words: script.main(["idc-official", *words])


def sections(run, found):
    """The notices at the top of a run's report, and its section on published numbers, as Markdown."""
    protocol = run.evaluation.protocol
    known = {"protocol": protocol, "rule": parse_rule(protocol["threshold"]).words}
    context = {**_beside_published(run, found)["context"], **known}
    return [render_markdown(f"published-{part}.md.j2", context, redact=str) for part in ("notices", "scores")]


def copy_roles(tree, root, roles):
    """Patients of a tree who have one of these published roles."""
    for patient, role in official_roles().items():
        if role in roles and (tree / patient).is_dir():
            shutil.copytree(tree / patient, root / patient)
    return root


@pytest.fixture(scope="module")
def tree(official_tree, tmp_path_factory):
    return official_tree(tmp_path_factory.mktemp("official") / "idc", N_PATIENTS, N_PATCHES)


@pytest.fixture(scope="module")
def evaluation(tree):
    dataset = load_idc(tree)
    pipelines = [("lbp", IDCPipeline(features="lbp", head=head)) for head in ("logistic", "svm")]
    return evaluate(dataset, pipelines, dataset.official_split().as_cv(), n_resamples=50)


@pytest.fixture(scope="module")
def runs(script, evaluation, tree):
    """The published split, and what is fitted on the unlisted patients too."""
    split = evaluation.dataset.official_split()
    folds = official_folds(split, unlisted=True)
    pipelines = [("lbp", IDCPipeline(features="lbp", head="logistic"))]
    more = evaluate(evaluation.dataset, pipelines, [folds[UNLISTED]], n_resamples=50)
    return [SplitRun(LISTED, evaluation), SplitRun(UNLISTED, more)]


def copy_halves(tree, *roots):
    """Deal the patches of a tree to folders, so that patients lie in all of them."""
    for number, path in enumerate(sorted(tree.rglob("*.png"))):
        place = roots[number % len(roots)] / path.relative_to(tree)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return roots


@pytest.fixture(scope="module")
def finished(script, tree, tmp_path_factory):
    """A run on data in two folders; the network has no weights."""
    work = tmp_path_factory.mktemp("elsewhere")
    halves = copy_halves(tree, work / "idc", work / "idc_second")
    (work / "weights").mkdir()
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
    (work / "weights" / name).write_bytes(b"no weights")
    options = ["--features", "handcrafted", "cnn", "--heads", "logistic", "--recipes", "fuzzy_color", "--add-unlisted"]
    options += ["--threshold", "youden", "--resamples", "50", "--n-jobs", "1", "--weights", "weights"]
    options += ["--data", *map(str, halves), "--output", "out/mine", "--ledger", "out/ledger.csv"]
    out, err = StringIO(), StringIO()
    with chdir(work), warnings.catch_warnings(), redirect_stdout(out), redirect_stderr(err):
        warnings.simplefilter("default")
        code = script.main(["idc-official", *options])
    return work, SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def start(*arguments, cwd):
    return subprocess.run(
        [sys.executable, str(PROTOCOLS.parent / "study.py"), "idc-official", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- the whole, once -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_run_writes_a_report_with_the_published_numbers_beside_ours(finished):
    work, found = finished
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == f"report: {Path('out/mine/report.html')}"
    assert "not run: cnn, logistic: " in found.stdout
    words = "a copy that is incomplete: 180 of 277,524 patches (0.1 %), 18 of 279 patients; 5 of the 49 test patients"
    for name in ("report.md", "report.html"):
        text = (work / "out/mine" / name).read_text(encoding="utf-8")
        title, notice, table = (text.index(part) for part in (f"on {words}", f"Tested on {words}", "AlexNet 32x32"))
        assert title < notice < table < text.index("ROC curves")
        assert "Published numbers are on the full set of patches of the 49 patients and so not directly" in text
        assert "A test set, not a tuning set" in text
        assert "Tests 5 registered patients (idc-official). Looks in the ledger, with this one: 1 official." in text
        for number in ("0.7648", "0.8468", "0.7180", "0.8423", "0.8900"):
            assert number in text
    markdown = (work / "out/mine/report.md").read_text(encoding="utf-8")
    for model in ("handcrafted/logistic", "2014 fuzzy colour histogram/random_forest"):
        for trained_on in (LISTED, UNLISTED):
            cells = rf"^\| histofeat: {model} \| this run \| {re.escape(trained_on)} \| tuned threshold \| 50 \| .*\["
            assert len(re.findall(cells, markdown, re.M)) == 1
            assert len(re.findall(cells.replace("tuned threshold", "at 0.5"), markdown, re.M)) == 1
    assert (
        "| Janowczyk 2016: AlexNet 32x32 | abstract | as published | as published | all | – | 0.7648 | 0.8468 |"
        in markdown
    )
    assert (
        "| Romero 2019: Inception | authors' repository | as published | as published | all | – | "
        "not comparable (weighted F1) | 0.8680 |" in markdown.replace("&#x27;", "'")
    )
    assert "threshold is chosen for the highest sensitivity + specificity - 1 (Youden)" in markdown


@pytest.mark.slow
def test_second_run_has_a_report_of_its_own_that_says_what_it_is(finished):
    first, second = (finished[0] / "out" / name / "report.md" for name in ("mine", "mine-unlisted"))
    texts = [path.read_text(encoding="utf-8") for path in (first, second)]
    assert "published protocol" in texts[0]
    assert "This report is not of the published protocol" not in texts[0]
    assert "fitted on unlisted patients too" not in texts[0]
    assert texts[1].index("fitted on unlisted patients too") < texts[1].index("not of the published protocol")
    metrics = [json.loads((path.parent / "metrics.json").read_text(encoding="utf-8")) for path in (first, second)]
    assert [m["folds"][0]["train_patients"] for m in metrics] == [12, 13]
    assert [m["folds"][0]["test_patients"] for m in metrics] == [5, 5]
    assert metrics[0]["protocol"]["cv"] == "published split: 9 train and 3 validation patients against 5 test patients"
    assert metrics[1]["protocol"]["cv"].startswith(
        "published test patients: 9 train and 3 validation patients and 1 un"
    )
    # The second run found every feature of the first.
    assert sum(metrics[0]["computed"].values()) > 0
    assert not any(metrics[1]["computed"].values())
    for path, other in ((first, second), (second, first)):
        rows = read_csv(path.parent / "official.csv")
        assert rows == read_csv(other.parent / "official.csv")


@pytest.mark.slow
def test_run_writes_the_table_as_files_and_lists_them(finished):
    folder = finished[0] / "out/mine"
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert {"official.csv", "official.json"} <= set(metrics["files"])
    document = json.loads((folder / "official.json").read_text(encoding="utf-8"))
    rows = read_csv(folder / "official.csv")
    assert [row["labels"] for row in rows] == ["tuned", "0.5"] * 4 + ["as published"] * 6
    assert [row["trained_on"] for row in rows] == [LISTED] * 4 + [UNLISTED] * 4 + [""] * 6
    assert [row["threshold"] for row in rows[:3]] == ["youden", "", "youden"]
    assert [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in document["rows"]
    ] == rows
    results = metrics["results"]
    results += json.loads((folder.parent / "mine-unlisted/metrics.json").read_text(encoding="utf-8"))["results"]
    for row, result in zip(document["rows"][:8:2], results, strict=True):
        assert row["f1"] == result["tuned"]["f1"]["value"]
        assert [row["f1_low"], row["f1_high"]] == result["tuned"]["f1"]["ci95"]
        assert row["balanced_accuracy"] == result["tuned"]["balanced_accuracy"]["value"]
        assert row["roc_auc"] == result["roc_auc"]["value"]
    assert document["split"]["test"]["n_patches"] == 50
    assert document["runs"] == [
        {
            "trained_on": trained_on, "published_split": listed, "n_training_patients": n,
            "n_training_patches": N_PATCHES * n,
            "threshold": "youden",
        }
        for trained_on, listed, n in ((LISTED, True, 12), (UNLISTED, False, 13))
    ]  # fmt: skip


@pytest.mark.slow
def test_run_writes_a_ledger_line_for_what_ran(finished):
    work, _ = finished
    assert (work / "out/ledger.csv").read_text(encoding="utf-8").splitlines()[0] == HEADER
    lines = read_csv(work / "out/ledger.csv")
    words = ["handcrafted/logistic (color+lbp+haralick)", "2014 fuzzy colour histogram/random_forest (fuzzy_color)"]
    assert [line["pipeline"] for line in lines] == words * 2
    assert [line["trained_on"] for line in lines] == [LISTED] * 2 + [UNLISTED] * 2
    results = [
        result
        for name in ("mine", "mine-unlisted")
        for result in json.loads((work / "out" / name / "metrics.json").read_text(encoding="utf-8"))["results"]
    ]
    for line in lines:
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", line["date"])
        assert re.fullmatch(r"[0-9a-f]{7,}(\+dirty)?|unknown", line["commit"])
        assert (line["data"], line["n_patches"], line["n_test_patients"], line["n_test_patches"]) == (
            "IDC", "180", "5", "50",
        )  # fmt: skip
        assert (line["threshold"], line["kind"], line["registered"]) == ("youden", "official", "idc-official:5")
        assert line["command"].startswith("histofeat study idc-official idc idc_second --features handcrafted,cnn")
    assert len({line["date"] for line in lines}) == 1
    for line, result in zip(lines, results, strict=True):
        assert float(line["roc_auc"]) == pytest.approx(result["roc_auc"]["value"], abs=1e-6)
        assert float(line["f1_tuned"]) == pytest.approx(result["tuned"]["f1"]["value"], abs=1e-6)


@pytest.mark.slow
def test_nothing_that_was_written_tells_whose_machine_it_was(finished, tree):
    work, _ = finished
    for path in (work / "out").rglob("*.*"):
        if path.suffix in {".json", ".csv", ".md", ".html"}:
            text = path.read_text(encoding="utf-8")
            assert not any(str(folder) in text for folder in (work, tree.parent, REPOSITORY))
    command = json.loads((work / "out/mine/metrics.json").read_text(encoding="utf-8"))["command"]
    words = "histofeat study idc-official idc idc_second --features handcrafted,cnn --heads logistic --weights weights"
    assert command.startswith(f"{words} --resamples 50 --threshold youden ")
    assert "--recipes fuzzy_color --add-unlisted" in command


# --- one process, many refusals --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_line_is_there_though_the_report_fails_and_no_line_ever_changes(main, tree, tmp_path, monkeypatch, capsys):
    def no_space(*arguments):
        raise OSError("no space left on device")

    options = [*QUICK, "--data", str(tree), "--output", "out", "--ledger", "ledger.csv"]
    with monkeypatch.context() as context:
        context.setattr("histofeat.reporting._report.write_predictions", no_space)
        assert main(options) == 2
    assert "histofeat: no space left on device" in capsys.readouterr().err
    first = (tmp_path / "ledger.csv").read_bytes()
    assert first.count(b"\n") == 2
    assert not (tmp_path / "out").exists()
    assert main(options) == 0
    second = (tmp_path / "ledger.csv").read_bytes()
    assert second.startswith(first)
    assert second.count(b"\n") == 3
    assert main(options) == 2
    assert "holds a finished report. Choose another name, or pass --overwrite" in capsys.readouterr().err
    assert (tmp_path / "ledger.csv").read_bytes() == second


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "nowhere"], "expected a file or folder of weights, found none at nowhere"),
        (["--features", "colour"], "Did you mean 'color'?"),
        (["--heads", "xgbost"], "Did you mean 'xgboost'?"),
        (["--recipes", "fuzzy_colour"], "--recipes: expected known names, got 'fuzzy_colour'. Did you mean 'fuzzy_"),
        (["--features", ""], "--features: expected a set, a recipe or a pipeline, got none"),
        (
            ["--threshold", "f2"],
            "threshold: expected a rule such as f1, youden, sensitivity=0.95 or specificity=0.95, got 'f2'",
        ),
        (["--resamples", "-1"], "--resamples: expected a whole number of at least 0, got -1"),
        (["--ledger", "."], "ledger: expected a file, got the folder '.'"),
        (["--ledger", "foreign.csv"], "got 'name,price' in foreign.csv"),
    ],
)
def test_bad_arguments_get_a_sentence(main, tree, tmp_path, capsys, arguments, message):
    (tmp_path / "foreign.csv").write_text("name,price\nbread,3\n")
    assert main([*QUICK, "--data", str(tree), "--output", "out", "--ledger", "ledger.csv", *arguments]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("histofeat: ")
    assert message in said.err
    assert "extracting" not in said.out
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "foreign.csv").read_text() == "name,price\nbread,3\n"


def test_other_data_and_a_copy_without_test_patients_are_refused(main, tree, cohort, tmp_path, capsys):
    options = [*QUICK, "--output", "out", "--ledger", "ledger.csv", "--data"]
    assert main([*options, str(cohort.root)]) == 2
    assert "expected the IDC data set, got 'synthetic'" in capsys.readouterr().err
    assert main([*options, str(copy_roles(tree, tmp_path / "idc", ("train", "validation")))]) == 2
    assert "expected patches of the test patients, got 0. Load the whole data set" in capsys.readouterr().err
    listed = copy_roles(tree, tmp_path / "listed", ("train", "validation", "test"))
    assert main([*options, str(listed), "--add-unlisted"]) == 2
    assert "--add-unlisted: expected patients without a role in the published split, got 0" in capsys.readouterr().err
    assert not (tmp_path / "ledger.csv").exists()


def test_finished_second_report_is_not_overwritten_either(main, tree, tmp_path, capsys):
    (tmp_path / "out-unlisted").mkdir()
    (tmp_path / "out-unlisted" / "metrics.json").write_text("{}")
    options = [*QUICK, "--data", str(tree), "--output", "out", "--ledger", "ledger.csv", "--add-unlisted"]
    assert main(options) == 2
    assert "out-unlisted" in capsys.readouterr().err
    assert not (tmp_path / "ledger.csv").exists()


@pytest.mark.slow
def test_refusal_ends_the_process_without_a_traceback(tmp_path):
    found = start("--data", "nowhere", "--output", "out", "--ledger", "ledger.csv", cwd=tmp_path)
    assert found.returncode == 2
    assert found.stderr.startswith("histofeat: ")
    assert "Traceback" not in found.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def compared(main, tree, monkeypatch):
    """Give the pipelines that a run would compare, and its folds."""

    def found(*words):
        with monkeypatch.context() as context:
            context.setattr("histofeat.evaluate", lambda dataset, pipelines, cv, **more: calls.append((pipelines, cv)))
            with pytest.raises(AttributeError):  # there is no evaluation
                main(["--data", str(tree), "--output", "out", *words])
        return calls.pop()

    calls = []
    return found


def test_the_plan_names_pipelines_of_the_protocol(compared):
    plan = read_plan(PROTOCOLS / "idc_official_plan.json")
    models = {f"{name}/{pipeline.head}" for name, pipeline in compared()[0]}
    assert set(plan.models) <= models
    assert not any("cnn" in name or "histo" in name.split("/")[0].split() for name in models)


def test_recipes_follow_our_pipelines_with_a_random_forest_each(compared):
    chosen = ["--pipeline", "chosen=official_candidates:CHOSEN_PIPELINE"]
    pipelines, _ = compared("--features", "lbp", "--seed", "3", *chosen)
    heads = [(name, pipeline.head) for name, pipeline in pipelines[:3]]
    assert heads == [("lbp", "xgboost"), ("lbp", "svm"), ("chosen", "vote")]
    pipelines = pipelines[3:]
    assert [(name, pipeline.features) for name, pipeline in pipelines] == [
        ("2014 fuzzy colour histogram", "fuzzy_color"),
        ("2014 RGB histogram", "joint_color"),
        ("2014 grey histogram", "gray"),
        ("2014 LBP", "lbp"),
        ("2014 Haralick", "haralick"),
    ]
    assert {(pipeline.head, pipeline.random_state) for _, pipeline in pipelines} == {("random_forest", 3)}
    widths = [len(family.get_feature_names_out()) for _, p in pipelines[:3] for family in p.families()]
    assert widths == [64, 512, 256]


def test_unlisted_patients_join_the_training_side_only(tree):
    split = load_idc(tree).official_split()
    assert list(official_folds(split)) == [LISTED]
    folds = official_folds(split, unlisted=True)
    assert list(folds) == [LISTED, UNLISTED]
    (train, test), (more, same) = folds.values()
    np.testing.assert_array_equal(test, same)
    np.testing.assert_array_equal(test, split.test)
    np.testing.assert_array_equal(train, np.union1d(split.train, split.validation))
    np.testing.assert_array_equal(np.setdiff1d(more, train), split.unlisted)
    assert len(more) == len(train) + len(split.unlisted) == 130
    assert (np.diff(more) > 0).all()


def test_network_is_named_in_the_ledger(evaluation):
    families = (
        "ReinhardNormalizer()",
        "ColorHistogram(bins=16)",
        "CNNEmbedding(encoder='mobilenetv2_0.35_stages', engine='auto', input_size=128)",
    )
    model = replace(evaluation.models[0], name="everything", features=("color", "cnn"), families=families)
    row = ledger_row(model, SimpleNamespace(threshold="f1"))
    assert row["pipeline"] == "everything/logistic (color+mobilenetv2_0.35_stages@128)"


# --- the ledger ------------------------------------------------------------------------------------------------------


def test_ledger_of_the_repository_is_one_and_says_what_its_lines_are_of(tmp_path):
    path = REPOSITORY / "reports" / "test_ledger.csv"
    for line in read_csv(path):
        assert set(line["trained_on"].split("+")) <= {"train", "validation", "test", "unlisted"}
        assert re.fullmatch(r"(f1|youden|sensitivity=0\.\d+)?", line["threshold"])
        assert None not in line
    copy = tmp_path / "ledger.csv"
    copy.write_bytes(path.read_bytes())
    Ledger(copy).open()
    assert copy.read_bytes().partition(b"\n")[2] == path.read_bytes().partition(b"\n")[2]
    assert Ledger(copy).looks()["official"] >= 13


def test_commit_says_when_the_code_differs_from_it(script, tmp_path, monkeypatch):
    import study

    words = study.commit_words
    assert words(tmp_path / "nowhere") == "unknown"
    clone = tmp_path / "clone"
    (clone / "inside").mkdir(parents=True)

    def git(*arguments):
        who = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *arguments], cwd=clone, check=True, capture_output=True)

    git("init")
    assert words(clone) == "unknown"
    (clone / "code.py").write_text("1")
    git("add", ".")
    git("commit", "-m", "one")
    assert re.fullmatch("[0-9a-f]{7,}", words(clone))
    assert words(clone / "inside") == "unknown"
    (clone / "reports").mkdir()
    (clone / "reports" / "test_ledger.csv").write_text("x")
    assert "dirty" not in words(clone)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    (clone / "code.py").write_text("2")
    assert words(clone).endswith("+dirty")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert words(clone) == "unknown"


# --- published numbers -----------------------------------------------------------------------------------------------


def test_published_rows_are_those_of_abstracts_and_of_an_authors_repository(script):
    rows = load_published()
    assert [(row["work"], row["f1"], row["balanced_accuracy"]) for row in rows] == [
        ("Cruz-Roa", 0.7180, 0.8423),
        ("Cruz-Roa", 0.6753, 0.7874),
        ("Cruz-Roa", 0.6664, 0.7724),
        ("Janowczyk", 0.7648, 0.8468),
        ("Romero", None, 0.868),
        ("Romero", None, 0.890),
    ]
    assert [row["status"] for row in rows] == ["abstract"] * 4 + ["authors' repository"] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("work,year\na,1\n", r"p.csv.*: expected .*f1"),
        ("", r"p.csv: expected"),
        ("{h}\nA,2014,m,0.7,0.8,abstract\nB,2015,m,0.7,0.8,from memory\n", r"p.csv, row 2: .*got 'from memory'"),
        ("{h}\nA,2014,m,,,authors' repository\n", r"p.csv, row 1: expected scores between 0 and 1, got an empty cell"),
        (
            "{h}\nA,2014,m,90,0.8,authors' repository\n",
            r"p.csv, line 2: expected a score between 0 and 1 in f1, got '90'",
        ),
        ("{h}\nA,2014,m,,0.8,abstract\n", r"p.csv, row 1: expected scores between 0 and 1, got an empty cell"),
        ("{h}\nA,2014,m,0.7,84.2,abstract\n", r"expected a score between 0 and 1 in balanced_accuracy, got '84.2'"),
    ],
)
def test_rows_of_another_status_and_bad_numbers_are_refused(tmp_path, text, message):
    path = tmp_path / "p.csv"
    path.write_text(text.replace("{h}", "work,year,method,f1,balanced_accuracy,status"))
    with pytest.raises(ValueError, match=message):
        load_published(path)


def test_data_words_tell_sample_full_set_and_neither(script, evaluation):
    dataset = evaluation.dataset
    split = dataset.official_split()
    words, audit = data_words, dataset.audit
    sample = replace(dataset, audit=replace(audit, n_patches=12_738))
    whole = replace(split, missing={"test": ()}, n_patients={"test": 49})
    said = words(sample, whole)
    assert said.startswith("a copy that is incomplete: 12,738 of 277,524 patches (4.6 %)")
    assert said.endswith("patients; 49 test patients, 50 patches")
    full = replace(audit, n_patches=277_524, n_patients=279, class_counts=FULL_SET.class_counts)
    assert words(replace(dataset, audit=full), whole).startswith("a copy that is complete; 49 test patients")
    more = replace(audit, n_patches=300_000, n_patients=300)
    assert words(replace(dataset, audit=more), whole).startswith("a copy that is not the known set: 300,000 of 277,524")
    run = SplitRun(LISTED, replace(evaluation, dataset=replace(dataset, audit=full)))
    notices, _ = sections(run, compare_with_published([run], split, []))
    assert notices.count("[!") == notices.count("[!NOTE]") == 1
    assert "on all patches of the same 49 patients" in notices


def test_rows_without_resamples_have_no_interval(script, tree):
    dataset = load_idc(tree)
    pipelines = {"lbp": IDCPipeline(features="lbp", head="logistic")}
    bare = evaluate(dataset, pipelines, dataset.official_split().as_cv(), n_resamples=0)
    run = SplitRun(LISTED, bare)
    found = compare_with_published([run], dataset.official_split(), load_published())
    assert found.rows[0]["f1_low"] is None
    table, folded = (
        [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if line.startswith("| ")][1:]
        for part in sections(run, found)[1].split("<details>")
    )
    assert [row[3] for row in (*table[:2], *folded)] == ["tuned threshold", "as published", "at 0.5"]
    assert "[" not in "".join(table[0][5:])
    assert [row[1] for row in table] == ["this run"] + ["abstract"] * 4 + ["authors' repository"] * 2
    assert [row[6] for row in table[-2:]] == ["not comparable (weighted F1)"] * 2
    assert "**" not in str(table)


def test_rows_name_the_training_patients_and_the_notices_say_which_are_not_published(script, runs):
    split = runs[0].evaluation.dataset.official_split()
    found = compare_with_published(runs, split, load_published())
    rows = found.rows
    assert [row["trained_on"] for row in rows] == [LISTED] * 4 + [UNLISTED] * 2 + [None] * 6
    assert (rows[0]["threshold"], rows[1]["threshold"], rows[-1]["threshold"]) == ("f1", None, None)
    assert rows[0]["roc_auc"] == rows[1]["roc_auc"] != rows[4]["roc_auc"]
    (first, text), (second, _) = (sections(run, found) for run in runs)
    assert re.findall(r"\[!(\w+)\]", first) == ["WARNING", "NOTE"]
    assert re.findall(r"\[!(\w+)\]", second) == ["WARNING", "WARNING"]
    assert "**This report is not of the published protocol**" in second
    assert "to the training side: 1 with\n>   10 patches" in second
    assert f"{LISTED}: the published split, fitted on 120 patches of 9 of the 84 train and 3 of the 29 val" in text
    assert f"{UNLISTED}: fitted on 130 patches of 13 patients" in text
    assert "the threshold is chosen for the highest F1, on scores" in text


# --- what the report offers for it -----------------------------------------------------------------------------------


EXTENDED = """{% extends "report.md.j2" %}
{% block notices %}{{ notice("warning", look, ["once"]) }}{% endblock %}
{% block before %}{{ table(mine) }}{% endblock %}
{% block after %}{{ super() }}

Closing words.
{% endblock %}
"""


def test_a_protocol_adds_to_the_report_before_and_after_the_results_and_its_files_belong_to_it(evaluation, tmp_path):
    short = replace(evaluation, models=evaluation.models[:1])
    (tmp_path / "mine.md.j2").write_text(EXTENDED, encoding="utf-8")
    context = {"look": "Look <here>", "mine": Table("Mine", ("a", "b"), (("x", "1"),))}
    files = {"mine.csv": "a,b\nx,1\n", "mine.json": {"a": float("nan")}}
    folder = write_report(
        short, tmp_path / "report", template=tmp_path / "mine.md.j2", context=context, files=files
    ).parent
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert text.index("## Answer") < text.index("Look &lt;here&gt;") < text.index("| x | 1 |")
    assert text.index("| x | 1 |") < text.index("## Comparison") < text.index("Closing words.")
    assert "Look &lt;here&gt;" in (folder / "report.html").read_text(encoding="utf-8")
    assert (folder / "mine.csv").read_text(encoding="utf-8") == "a,b\nx,1\n"
    assert json.loads((folder / "mine.json").read_text(encoding="utf-8")) == {"a": None}
    write_report(replace(short, models=()), folder, overwrite=True)
    assert not (folder / "mine.csv").exists()


@pytest.mark.parametrize("name", ["metrics.json", "metrics.csv", "report.md", "../mine.csv", "figures", ""])
def test_added_files_take_no_name_of_the_report(evaluation, tmp_path, name):
    with pytest.raises(ValueError, match=r"files: expected files with names of their own, got '"):
        write_report(replace(evaluation, models=()), tmp_path / "r", files={name: "x"})
    assert not list(tmp_path.iterdir())
