"""The published split of IDC, on a small tree of made-up patches under the names of real patients."""

import csv
import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from histofeat import IDCPipeline, evaluate, load_idc, make_cohort
from histofeat.datasets import official_roles
from histofeat.datasets.idc import FULL_SET
from histofeat.model_selection import PatientKFold
from histofeat.reporting import write_report
from histofeat.reporting.blocks import Addition, Notice, Table, Text

REPOSITORY = Path(__file__).resolve().parent.parent
PROTOCOLS = REPOSITORY / "benchmarks" / "protocols"
HEADER = "date,commit,pipeline,data,n_patches,n_test_patients,n_test_patches,roc_auc,balanced_accuracy_tuned,f1_tuned"
N_PATIENTS = {"train": 9, "validation": 3, "test": 5, "unlisted": 1}
N_PATCHES = 20
QUICK = ["--features", "handcrafted", "--heads", "logistic", "--resamples", "50", "--n-jobs", "1"]


@pytest.fixture(scope="module")
def protocol():
    """The modules of benchmarks/protocols, by name; a script's folder is on the path only while it runs."""
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("idc_official", PROTOCOLS / "idc_official.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    import idc_comparison
    import idc_ledger

    yield {"script": script, "comparison": idc_comparison, "ledger": idc_ledger}
    sys.path[:] = before
    for name in ("idc_comparison", "idc_ledger", "run_all"):
        sys.modules.pop(name, None)


@pytest.fixture
def main(protocol, monkeypatch, tmp_path):
    for name in ("OMP_WAIT_POLICY", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.chdir(tmp_path)
    return protocol["script"].main


def fake_idc(root, roles=tuple(N_PATIENTS)):
    """Patches of a synthetic cohort under the ids of official patients, without the cohort's manifest."""
    cohort = make_cohort(sum(N_PATIENTS.values()), N_PATCHES, root=root.parent / f"{root.name}-cohort")
    published = official_roles()
    named = {
        role: [p for p, its in published.items() if its == role][: N_PATIENTS[role]] for role in published.values()
    }
    named["unlisted"] = ["7"]
    without = set(cohort.patients) - set(cohort.patients[cohort.y == 1])
    # A cohort patient without a positive patch goes last, so that every side has both classes.
    numbers = sorted(set(cohort.patients), key=lambda patient: (patient in without, patient))
    ids = [(patient, role) for role in N_PATIENTS for patient in named[role]]
    for number, (patient, role) in zip(numbers, ids, strict=True):
        for old in sorted((cohort.root / number).rglob("*.png")) if role in roles else ():
            new = root / patient / old.parent.name / old.name.replace(number, patient)
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(old.read_bytes())
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return fake_idc(tmp_path_factory.mktemp("official") / "idc")


@pytest.fixture(scope="module")
def evaluation(tree):
    dataset = load_idc(tree)
    pipelines = [("lbp", IDCPipeline(features="lbp", head=head)) for head in ("logistic", "svm")]
    return evaluate(dataset, pipelines, dataset.official_split().as_cv(), n_resamples=50)


@pytest.fixture(scope="module")
def finished(tree, tmp_path_factory):
    """The script as a person runs it; the network has no weights."""
    work = tmp_path_factory.mktemp("elsewhere")
    (work / "weights").mkdir()
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
    (work / "weights" / name).write_bytes(b"no weights")
    options = ["--features", "handcrafted", "cnn", "--resamples", "50", "--n-jobs", "1", "--weights", "weights"]
    return work, start(*options, "--data", tree, "--output", "out/mine", "--ledger", "out/ledger.csv", cwd=work)


def start(*arguments, cwd):
    return subprocess.run(
        [sys.executable, str(PROTOCOLS / "idc_official.py"), *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
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
    assert "not run: cnn, xgboost: " in found.stdout
    words = "a sample of less than 1 %: 360 of 277,524 patches; 5 of the 49 test patients, 100 patches"
    for name in ("report.md", "report.html"):
        text = (work / "out/mine" / name).read_text(encoding="utf-8")
        title, notice, table = (text.index(part) for part in (f"on {words}", f"Tested on {words}", "AlexNet 32x32"))
        assert title < notice < table < text.index("ROC curves")
        assert "Published numbers are on the full set of patches of the 49 patients and so not directly" in text
        assert "A test set, not a tuning set" in text
        assert "which holds 2 with those of this run" in text
        for number in ("0.7648", "0.8468", "0.7180", "0.8423"):
            assert number in text
    markdown = (work / "out/mine/report.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^\| histofeat: handcrafted/\w+ \| tuned threshold \| 100 \| .*\[", markdown, re.M)) == 2
    assert "| Janowczyk 2016: AlexNet 32x32 | as published | all | 0.7648 | 0.8468 |" in markdown


@pytest.mark.slow
def test_run_writes_the_table_as_files_and_lists_them(finished):
    folder = finished[0] / "out/mine"
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert {"official.csv", "official.json"} <= set(metrics["files"])
    assert metrics["protocol"]["cv"] == "published split: 9 train and 3 validation patients against 5 test patients"
    assert (metrics["protocol"]["n_splits"], metrics["folds"][0]["test_patients"]) == (1, 5)
    document = json.loads((folder / "official.json").read_text(encoding="utf-8"))
    rows = read_csv(folder / "official.csv")
    assert [row["labels"] for row in rows] == ["tuned", "0.5"] * 2 + ["as published"] * 4
    assert [
        {name: "" if value is None else str(value) for name, value in row.items()} for row in document["rows"]
    ] == rows
    for row, result in zip(document["rows"][::2], metrics["results"], strict=False):
        assert row["f1"] == result["tuned"]["f1"]["pooled"]
        assert [row["f1_low"], row["f1_high"]] == result["tuned"]["f1"]["ci95"]
        assert row["balanced_accuracy"] == result["tuned"]["balanced_accuracy"]["pooled"]
    assert document["split"]["test"]["n_patches"] == 100


@pytest.mark.slow
def test_run_writes_a_ledger_line_for_what_ran(finished):
    work, _ = finished
    assert (work / "out/ledger.csv").read_text(encoding="utf-8").splitlines()[0] == HEADER
    lines = read_csv(work / "out/ledger.csv")
    metrics = json.loads((work / "out/mine/metrics.json").read_text(encoding="utf-8"))
    assert [line["pipeline"] for line in lines] == [
        f"handcrafted/{head} (color+lbp+haralick)" for head in ("xgboost", "svm")
    ]
    for line, result in zip(lines, metrics["results"], strict=True):
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", line["date"])
        assert re.fullmatch(r"[0-9a-f]{7,}(\+dirty)?|unknown", line["commit"])
        assert (line["data"], line["n_patches"], line["n_test_patients"], line["n_test_patches"]) == (
            "IDC", "360", "5", "100",
        )  # fmt: skip
        assert float(line["roc_auc"]) == pytest.approx(result["roc_auc"]["pooled"], abs=1e-6)
        assert float(line["f1_tuned"]) == pytest.approx(result["tuned"]["f1"]["pooled"], abs=1e-6)


@pytest.mark.slow
def test_nothing_that_was_written_tells_whose_machine_it_was(finished, tree):
    work, _ = finished
    for path in (work / "out").rglob("*.*"):
        if path.suffix in {".json", ".csv", ".md", ".html"}:
            text = path.read_text(encoding="utf-8")
            assert not any(str(folder) in text for folder in (work, tree.parent, REPOSITORY))
    command = json.loads((work / "out/mine/metrics.json").read_text(encoding="utf-8"))["command"]
    assert command.startswith("python benchmarks/protocols/idc_official.py --data idc --weights weights --output mine ")
    assert command.endswith("--features handcrafted cnn --ledger ledger.csv --resamples 50 --n-jobs 1")


# --- one process, many refusals --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_line_is_there_though_the_report_fails_and_no_line_ever_changes(main, tree, tmp_path, monkeypatch, capsys):
    def no_space(*arguments):
        raise OSError("no space left on device")

    options = [*QUICK, "--data", str(tree), "--output", "out", "--ledger", "ledger.csv"]
    with monkeypatch.context() as context:
        context.setattr("histofeat.reporting.write.write_predictions", no_space)
        assert main(options) == 2
    assert "idc_official.py: no space left on device" in capsys.readouterr().err
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
        (["--data", "nowhere"], "nowhere: expected a folder"),
        (["--weights", "nowhere"], "--weights: expected a folder, got 'nowhere'"),
        (["--features", "colour"], "Did you mean 'color'?"),
        (["--heads", "xgbost"], "Did you mean 'xgboost'?"),
        (["--resamples", "-1"], "n_resamples"),
        (["--ledger", "."], "--ledger: expected a file, got the folder '.'"),
        (["--ledger", "foreign.csv"], "got 'name,price' in foreign.csv"),
    ],
)
def test_bad_arguments_get_a_sentence(main, tree, tmp_path, capsys, arguments, message):
    (tmp_path / "foreign.csv").write_text("name,price\nbread,3\n")
    assert main([*QUICK, "--data", str(tree), "--output", "out", "--ledger", "ledger.csv", *arguments]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("idc_official.py: ")
    assert message in said.err
    assert "extracting" not in said.out
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "foreign.csv").read_text() == "name,price\nbread,3\n"


def test_other_data_and_a_copy_without_test_patients_are_refused(main, cohort, tmp_path, capsys):
    options = [*QUICK, "--output", "out", "--ledger", "ledger.csv", "--data"]
    assert main([*options, str(cohort.root)]) == 2
    assert "expected the IDC data set, got 'synthetic'" in capsys.readouterr().err
    assert main([*options, str(fake_idc(tmp_path / "idc", roles=("train", "validation")))]) == 2
    assert "expected patches of the test patients, got 0 in this copy" in capsys.readouterr().err
    assert not (tmp_path / "ledger.csv").exists()


@pytest.mark.slow
def test_refusal_ends_the_process_without_a_traceback(tmp_path):
    found = start("--data", "nowhere", "--output", "out", "--ledger", "ledger.csv", cwd=tmp_path)
    assert found.returncode == 2
    assert found.stderr.startswith("idc_official.py: ")
    assert "Traceback" not in found.stderr
    assert not list(tmp_path.iterdir())


def test_interruption_says_so(main, tree, monkeypatch, capsys, protocol):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(protocol["script"], "score", interrupt)
    assert main([*QUICK, "--data", str(tree), "--output", "out", "--ledger", "ledger.csv"]) == 130
    assert "interrupted, no report was written" in capsys.readouterr().err


def test_network_and_sets_are_those_of_the_protocol(protocol):
    options = protocol["script"].parse_arguments(["--data", "x"])
    assert (options.features, options.heads) == (["handcrafted", "cnn", "everything"], ["xgboost", "svm"])
    assert options.ledger == REPOSITORY / "reports" / "test_ledger.csv"
    assert options.output == REPOSITORY / "reports" / "idc-official-sample"
    assert protocol["script"].SETTLED == {"encoder": "mobilenetv2_0.35", "input_size": 128, "quick": False}


def test_network_is_named_in_the_ledger(protocol, evaluation):
    model = replace(evaluation.models[0], name="everything", features=("color", "cnn"))
    assert protocol["script"].pipeline_words(model) == "everything/logistic (color+mobilenetv2_0.35@128)"


# --- the ledger ------------------------------------------------------------------------------------------------------


def test_ledger_mends_an_open_last_line_and_comes_back_when_it_is_gone(protocol, tmp_path):
    ledger, path = protocol["ledger"], tmp_path / "new" / "ledger.csv"
    assert ledger.open_ledger(path) == 0
    assert path.read_text() == f"{HEADER}\n"
    path.write_text(f"{HEADER}\n2026-01-01,abc,somebody's")
    line = ledger.ledger_line(commit="1a2b3c4", pipeline="a, b", roc_auc=0.5, f1_tuned=float("nan"))
    assert ledger.append_lines(path, [line]) == 2
    assert path.read_text().startswith(f"{HEADER}\n2026-01-01,abc,somebody's\n20")
    row = read_csv(path)[1]
    assert (row["commit"], row["pipeline"], row["roc_auc"], row["f1_tuned"]) == ("1a2b3c4", "a, b", "0.500000", "")
    path.unlink()
    assert ledger.append_lines(path, [line, line]) == 2


def test_foreign_ledger_is_refused(protocol, tmp_path):
    path = tmp_path / "prices.csv"
    path.write_bytes(b"\xff\xfe,price\n")
    for attempt in (protocol["ledger"].open_ledger, lambda path: protocol["ledger"].append_lines(path, [["x"]])):
        with pytest.raises(ValueError, match=r"--ledger: expected a file that begins with 'date,commit.*prices.csv"):
            attempt(path)
    with pytest.raises(ValueError, match="expected a file, got the folder"):
        protocol["ledger"].open_ledger(tmp_path)
    assert path.read_bytes() == b"\xff\xfe,price\n"


def test_commit_says_when_the_code_differs_from_it(protocol, tmp_path, monkeypatch):
    words = protocol["ledger"].commit_words
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


def test_published_rows_are_those_of_abstracts(protocol):
    rows = protocol["comparison"].load_published()
    assert [(row["work"], row["f1"], row["balanced_accuracy"]) for row in rows] == [
        ("Cruz-Roa", 0.7180, 0.8423),
        ("Cruz-Roa", 0.6753, 0.7874),
        ("Cruz-Roa", 0.6664, 0.7724),
        ("Janowczyk", 0.7648, 0.8468),
    ]
    assert {row["status"] for row in rows} == {"abstract"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("work,year\na,1\n", r"p.csv: expected the columns work, year, method.*got 'work, year'"),
        ("", r"p.csv: expected the columns"),
        ("{h}\nA,2014,m,0.7,0.8,abstract\nB,2015,m,0.7,0.8,from memory\n", r"p.csv, row 2: .*got 'from memory'"),
        ("{h}\nA,2014,m,,0.8,authors' repository\n", r"p.csv, row 1: .*got \"authors' repository\""),
        ("{h}\nA,2014,m,,0.8,abstract\n", r"p.csv, row 1: expected f1 between 0 and 1, got ''"),
        ("{h}\nA,2014,m,0.7,84.2,abstract\n", r"expected balanced_accuracy between 0 and 1, got '84.2'"),
    ],
)
def test_rows_of_another_status_and_bad_numbers_are_refused(protocol, tmp_path, text, message):
    path = tmp_path / "p.csv"
    path.write_text(text.replace("{h}", "work,year,method,f1,balanced_accuracy,status"))
    with pytest.raises(ValueError, match=message):
        protocol["comparison"].load_published(path)


def test_data_words_tell_sample_full_set_and_neither(protocol, evaluation):
    dataset = evaluation.dataset
    split = dataset.official_split()
    words, audit = protocol["comparison"].data_words, dataset.audit
    sample = replace(dataset, audit=replace(audit, n_patches=12_738))
    whole = replace(split, missing={"test": ()}, n_patients={"test": 49})
    assert words(sample, whole) == "a 5 % sample: 12,738 of 277,524 patches; 49 test patients, 100 patches"
    full = replace(audit, n_patches=277_524, n_patients=279, class_counts=FULL_SET.class_counts)
    assert words(replace(dataset, audit=full), whole).startswith("the full set: 277,524 patches; 49 test patients")
    more = replace(audit, n_patches=300_000)
    assert words(replace(dataset, audit=more), whole).startswith("not the published set: 300,000 patches where 277,524")
    added = protocol["comparison"].addition(replace(evaluation, dataset=replace(dataset, audit=full)), split, [], 1)
    assert added.notices[0].level == "info"
    assert "on all patches of the same 49 patients" in added.notices[0].items[0]


def test_rows_without_resamples_have_no_interval(protocol, tree):
    dataset = load_idc(tree)
    pipelines = {"lbp": IDCPipeline(features="lbp", head="logistic")}
    bare = evaluate(dataset, pipelines, dataset.official_split().as_cv(), n_resamples=0)
    rows = protocol["comparison"].comparison_rows(bare.models, protocol["comparison"].load_published(), (5, 100))
    assert rows[0]["f1_low"] is None
    table = protocol["comparison"].comparison_table(rows, "c")
    assert [row[1] for row in table.rows[:3]] == ["tuned threshold", "at 0.5", "as published"]
    assert "[" not in table.rows[0][3]
    assert table.best == frozenset()


# --- what the report offers for it -----------------------------------------------------------------------------------


def test_addition_stands_before_the_results_and_its_files_belong_to_the_report(evaluation, tmp_path):
    short = replace(evaluation, models=evaluation.models[:1])
    table = Table("Mine", ("a", "b"), (("x", "1"),))
    files = {"mine.csv": "a,b\nx,1\n", "mine.json": {"a": float("nan")}}
    added = Addition((Notice("warning", "Look <here>", ("once",)),), (table, Text("below")), files)
    folder = write_report(short, tmp_path / "report", addition=added).parent
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert text.index("Look &lt;here&gt;") < text.index("Not the whole data set") < text.index("| x | 1 |")
    assert text.index("| x | 1 |") < text.index("## Results")
    assert "Look &lt;here&gt;" in (folder / "report.html").read_text(encoding="utf-8")
    assert (folder / "mine.csv").read_text(encoding="utf-8") == "a,b\nx,1\n"
    assert json.loads((folder / "mine.json").read_text(encoding="utf-8")) == {"a": None}
    write_report(replace(short, models=()), folder, overwrite=True)
    assert not (folder / "mine.csv").exists()


@pytest.mark.parametrize("name", ["metrics.json", "report.md", "../mine.csv", "figures", ""])
def test_added_files_take_no_name_of_the_report(evaluation, tmp_path, name):
    with pytest.raises(ValueError, match=r"write_report\.addition: expected files with names of their own, got"):
        write_report(replace(evaluation, models=()), tmp_path / "r", addition=Addition(files={name: "x"}))
    assert not list(tmp_path.iterdir())


def test_one_fold_is_one_fold(evaluation, cohort, tmp_path):
    report = write_report(replace(evaluation, models=()), tmp_path / "one")
    assert "0 models, 1 fold." in report.read_text(encoding="utf-8")
    pipelines = {"lbp": IDCPipeline(features="lbp", head="logistic")}
    three = evaluate(cohort, pipelines, PatientKFold(3), inner_cv=PatientKFold(2), n_resamples=0)
    report = write_report(replace(three, models=()), tmp_path / "three")
    assert "0 models, 3 folds." in report.read_text(encoding="utf-8")
