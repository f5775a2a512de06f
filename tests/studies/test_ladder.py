"""The ladder: its rows, groups of rows that are not told apart, and the files for a paper."""

import json
import warnings
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import pandas as pd
import pytest

import histofeat
from histofeat import PatientKFold, cli, evaluate, make_cohort
from histofeat.metrics import NotCompared
from histofeat.networks import ENCODERS, read_lite
from histofeat.studies import (
    LADDER,
    LADDER_SEARCH,
    UntrainedEmbedding,
    as_ladder,
    groups_of,
    ladder_pipelines,
    read_ladder,
)

SCHEMA = Path(histofeat.__file__).with_name("reporting") / "templates" / "baseline.schema.json"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_cohort(n_patients=12, patches_per_patient=6, root=tmp_path_factory.mktemp("ladder") / "cohort")


@pytest.fixture(scope="module")
def finished(cohort, tmp_path_factory):
    """The folder of a ladder by the command, with a split of two folds of patients and two rows of the user."""
    folder = tmp_path_factory.mktemp("run")
    ids = sorted(set(cohort.patients))
    lines = [f"{patient},{number % 2}" for number, patient in enumerate(ids)]
    (folder / "mine.csv").write_text("\n".join(["patient,fold", *lines]))
    rng = np.random.default_rng(0)
    score = np.clip(0.3 * cohort.y + rng.uniform(0, 0.7, len(cohort)), 0, 1)
    rows = [f"{path},{p:.4f}" for path, p in zip(cohort.frame["path"], score, strict=True)]
    (folder / "net.csv").write_text("\n".join(["path,score", *rows]))
    words = ["compare", str(cohort.root), "--ladder", "--split", str(folder / "mine.csv"), "--features", "pftas"]
    words += ["--predictions", f"net_1={folder / 'net.csv'}", "--margin", "0.5", "--resamples", "200"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "not run: imagenet")  # where there are no weights
        assert cli.main([*words, "--no-shortcuts", "--quiet", "-o", str(folder / "out")]) == 0
    return folder / "out"


def test_the_rows_are_under_one_head_and_the_folds_of_the_file(finished, cohort):
    baseline = json.loads((finished / "baseline.json").read_text())
    jsonschema.validate(baseline, json.loads(SCHEMA.read_text()))
    ran = [row["name"] for row in baseline["rows"]] + [row["name"] for row in baseline["not_run"]]
    assert set(ran) == {*LADDER, "pftas", "net_1"}
    assert {row["head"] for row in baseline["rows"]} == {"DummyClassifier", "logistic", "predictions"}
    assert (baseline["protocol"]["split"], baseline["protocol"]["n_splits"]) == ("mine.csv", 2)
    folds = json.loads((finished / "splits.json").read_text())["folds"]
    ids = sorted(set(cohort.patients))
    tested = {frozenset(fold["test"]["patients"]) for fold in folds}
    assert tested == {frozenset(ids[number::2]) for number in range(2)}
    by_name = {row["name"]: row for row in baseline["rows"]}
    assert by_name["mean_color"]["n_features"] == 3
    assert by_name["majority"]["roc_auc"]["value"] == 0.5
    assert by_name["handcrafted"]["extract_us"] > 0
    assert by_name["net_1"]["extract_us"] is None
    assert by_name["net_1"]["kind"] == "user"
    assert baseline["dataset"]["n_patients"] == 12


def test_the_reference_is_the_best_handcrafted_row(finished):
    baseline = json.loads((finished / "baseline.json").read_text())
    fixed = ("mean_color", "background", "color_histogram", "handcrafted")
    rows = [row for row in baseline["rows"] if row["name"] in fixed]
    best = max(rows, key=lambda row: row["roc_auc"]["value"])
    assert baseline["reference"] == f"{best['name']}/logistic"
    assert best["beside_reference"] is None
    for row in baseline["rows"]:
        beside = row["beside_reference"]
        if beside:
            assert beside["second"] == baseline["reference"]
            assert beside["difference"] == pytest.approx(row["roc_auc"]["value"] - best["roc_auc"]["value"])
            told = beside["verdict"] in ("better", "worse")
            assert told == (beside["p_adjusted"] < 0.05)
            assert told or beside["verdict"].startswith("not told apart")
            assert beside["non_inferior"] == (beside["ci95"][0] > -0.5)


def test_the_report_and_the_rows_for_a_paper(finished):
    baseline, page = json.loads((finished / "baseline.json").read_text()), (finished / "report.md").read_text()
    assert "## Ladder" in page
    assert baseline["noise_floor"]["sentence"] in page
    markdown, latex = ((finished / f"baseline.{end}").read_text().splitlines() for end in ("md", "tex"))
    assert [line.split(" | ")[0] for line in markdown[2:]] == [
        f"| {name}" for name in (baseline["reference"].partition("/")[0], "pftas", "net_1")
    ]
    assert latex[-1].startswith(r"net\_1 & predictions & ")
    assert latex[-1].endswith(r"\\")
    methods = (finished / "methods.md").read_text()
    assert "the split of mine.csv" in methods
    assert baseline["noise_floor"]["sentence"] in methods
    assert "12 patients" in methods


def test_a_report_is_written_again_with_its_ladder(finished, tmp_path):
    words = ["report", str(finished), "-o", str(tmp_path / "again"), "--no-shortcuts", "--quiet"]
    assert cli.main(words) == 0
    old, new = (json.loads((folder / "baseline.json").read_text()) for folder in (finished, tmp_path / "again"))
    assert {**new, "created": 0} == {**old, "created": 0}


def test_groups_against_all_subsets():
    names = "abcdef"
    rng = np.random.default_rng(0)
    for _ in range(30):
        apart = [pair for pair in combinations(names, 2) if rng.random() < 0.4]
        fits = [
            set(group)
            for size in range(1, 7)
            for group in combinations(names, size)
            if not any({*pair} <= {*group} for pair in apart)
        ]
        largest = {frozenset(group) for group in fits if not any(group < other for other in fits)}
        assert {frozenset(group) for group in groups_of(names, apart)} == largest


def test_rows_that_cannot_be_compared_say_why(cohort):
    rows = [row for row in ladder_pipelines(cohort) if row[0] in ("mean_color", "background")]
    evaluation = evaluate(cohort, rows, PatientKFold(2), search=LADDER_SEARCH, n_resamples=0)
    ladder = read_ladder(as_ladder(evaluation, rows))
    assert isinstance(ladder.comparisons, NotCompared)
    assert isinstance(ladder.floor, NotCompared)
    assert ladder.groups == ()
    assert ladder.beside_reference("mean_color/logistic") is None
    assert evaluation.models[0].choices[0]["params"]["C"] in (0.001, 0.01, 0.1, 1.0)


def test_random_weights_are_the_same_everywhere_and_know_nobody(tmp_path, monkeypatch, cohort):
    found = []
    for name in ("one", "two"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        (tmp_path / name).mkdir()
        family = UntrainedEmbedding()
        found.append(family.weights_hash())
    assert found[0] == found[1]
    arrays = read_lite(tmp_path / "two" / "histofeat" / "untrained-0.npz", ENCODERS["histo"])
    kernel = arrays["block_03.expand.kernel"]
    assert kernel.std() == pytest.approx(np.sqrt(2 / kernel.shape[2]), rel=0.05)
    assert not arrays["stem.bias"].any()
    assert family.trained_on() == ()
    assert family.transform(cohort.X[:2]).shape == (2, 144)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--ladder", "--heads", "xgboost"], "--heads: expected logistic, one head for all rows of --ladder, got"),
        (["--ladder", "--margin", "0"], "--margin: expected a number above 0, got 0.0."),
        (
            ["--split", "names.csv", "--features", "color"],
            "--split: expected a split, got 'names.csv'. Add a column of",
        ),
        # A published split by its name: these are not its patients.
        (["--split", "idc-official", "--features", "color"], "expected images of the split on each side of each fold"),
    ],
)
def test_wrong_words_are_sentences(words, match, cohort, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("names.csv").write_text("patient\na\nb\n")
    assert cli.main(["compare", str(cohort.root), *words, "-o", "out", "--no-store"]) == 2
    assert match in capsys.readouterr().err


def test_verdicts_name_the_margin():
    row = SimpleNamespace(first="a/h", second="r/h", difference=0.0, p_adjusted=0.9, non_inferior=True)
    ladder = histofeat.studies.Ladder("r/h", SimpleNamespace(rows=[row], margin=0.01), (), NotCompared(""))
    assert ladder.beside_reference("a/h")[1] == "not told apart; not worse by 0.01"
    row.p_adjusted, row.difference = 0.01, -0.1
    assert ladder.beside_reference("a/h")[1] == "worse"


@pytest.mark.filterwarnings("ignore:not run")
def test_columns_alone_stand_beside_guessing(tmp_path):
    rng, patients = np.random.default_rng(0), np.repeat(np.arange(12), 6)
    y = rng.integers(0, 2, 72)
    table = pd.DataFrame(rng.normal(size=(72, 3)) + y[:, None], columns=["a", "b", "c"])
    named = {"path": [f"{row}.png" for row in range(72)], "patient": patients, "label": np.where(y, "yes", "no")}
    table.assign(**named).to_parquet(tmp_path / "uni.parquet")
    words = ["compare", str(tmp_path / "uni.parquet"), "--ladder", "--folds", "2", "--resamples", "100", "--no-store"]
    assert cli.main([*words, "-o", str(tmp_path / "out"), "--quiet"]) == 0
    baseline = json.loads((tmp_path / "out" / "baseline.json").read_text())
    assert [row["name"] for row in baseline["rows"]] == ["majority", "uni"]
    assert [row["name"] for row in baseline["not_run"]] == list(LADDER)[1:]
    assert "mean_color needs pixels" in baseline["not_run"][0]["reason"]
