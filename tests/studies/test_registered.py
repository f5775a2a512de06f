"""Whatever scores rows notices registered test patients, and writes the look into the ledger that it is given."""

import csv

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from histofeat import IDCPipeline, evaluate, load_idc
from histofeat.cli import main
from histofeat.datasets import PatchDataset
from histofeat.evaluation import score_predictions, train_model
from histofeat.features import Runtime
from histofeat.model_selection import PatientKFold, RepeatedPatientKFold
from histofeat.reporting import write_report
from histofeat.studies import (
    ablate_families,
    development_patients,
    learning_curve,
    measure_leakage,
    measure_robustness,
    panel_of,
    permutation_importance,
)

FOLDS = PatientKFold(2)
WORDS = "Tests 5 registered patients (idc-official)."
PIPELINE = IDCPipeline(("color", "lbp"), "logistic")


@pytest.fixture(scope="module")
def dataset(official_tree, tmp_path_factory):
    counts = {"train": 5, "validation": 1, "test": 5, "unlisted": 1}
    return load_idc(official_tree(tmp_path_factory.mktemp("registered") / "idc", counts, 10))


@pytest.fixture(scope="module")
def evaluation(dataset):
    return evaluate(dataset, {"lbp": IDCPipeline("lbp", "logistic")}, FOLDS, inner_cv=FOLDS, n_resamples=0)


@pytest.fixture
def runtime(tmp_path):
    return Runtime(ledger=tmp_path / "ledger.csv")


def lines_of(runtime):
    with runtime.ledger.path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_an_evaluation_without_a_ledger_says_so(evaluation, tmp_path):
    words = evaluation.protocol["registered"]
    assert words == f"{WORDS} No ledger was given, so this look was written down nowhere."
    page = write_report(evaluation, tmp_path / "report").with_name("report.md").read_text(encoding="utf-8")
    assert page.index("Registered test patients") < page.index(words) < page.index("## Comparison")


def test_an_evaluation_writes_a_line_for_each_model(dataset, runtime, evaluation):
    pipelines = [("a", IDCPipeline("lbp", "logistic")), ("b", IDCPipeline("color", "logistic"))]
    found = evaluate(dataset, pipelines, FOLDS, inner_cv=FOLDS, n_resamples=0, runtime=runtime, threshold="youden")
    assert found.protocol["registered"] == f"{WORDS} Looks in the ledger, with this one: 1 cross-validation."
    lines = lines_of(runtime)
    assert [line["pipeline"] for line in lines] == ["a/logistic (lbp)", "b/logistic (color)"]
    for line, model in zip(lines, found.models, strict=True):
        assert float(line["roc_auc"]) == pytest.approx(model.scores["roc_auc"].value, abs=1e-6)
        assert line | {
            "kind": "cross-validation", "threshold": "youden", "n_test_patients": "12", "n_test_patches": "120",
            "trained_on": "train+validation+test+unlisted", "registered": "idc-official:5", "data": "IDC",
        } == line  # fmt: skip
    repeated = RepeatedPatientKFold(2, n_repeats=2)
    evaluate(dataset, pipelines[:1], repeated, inner_cv=FOLDS, n_resamples=0, runtime=runtime)
    assert len(lines_of(runtime)) == 3  # all repetitions are one look
    others = np.flatnonzero(~np.isin(dataset.patients, dataset.patients[dataset.official_split().test]))
    quiet = evaluate(dataset.subset(others), pipelines, FOLDS, inner_cv=FOLDS, n_resamples=0, runtime=runtime)
    assert quiet.protocol["registered"] is None
    assert len(lines_of(runtime)) == 3


def test_a_ledger_that_cannot_be_used_is_refused_before_the_work(dataset, tmp_path):
    calls = []
    runtime = Runtime(ledger=tmp_path, progress=lambda *call: calls.append(call))
    with pytest.raises(ValueError, match="ledger: expected a file, got the folder"):
        evaluate(dataset, {"lbp": IDCPipeline("lbp", "logistic")}, FOLDS, inner_cv=FOLDS, runtime=runtime)
    assert calls == []


def test_studies_notice_too(dataset, runtime, evaluation):
    common = {"n_resamples": 0, "runtime": runtime}
    found = [
        ablate_families(dataset, PIPELINE, FOLDS, **common).registered,
        permutation_importance(dataset, PIPELINE, FOLDS, n_repeats=1, **common).registered,
        panel_of(evaluation, families_to_identify=(), runtime=runtime).registered,
        measure_leakage(dataset, {"color": IDCPipeline("color", "logistic")}, n_splits=2, **common).registered,
    ]
    features, head = np.arange(len(dataset))[:, np.newaxis], LogisticRegression()
    known = features, dataset.y, dataset.patients
    found.append(learning_curve(*known, head, FOLDS, n_patients=(5,), n_draws=1, **common).attrs["registered"])
    assert all(words.startswith(WORDS) for words in found)
    lines = lines_of(runtime)
    assert {line["kind"] for line in lines} == {"cross-validation"}
    names = [line["pipeline"] for line in lines]
    assert names[:5] == ["all", "without color", "without lbp", "color alone", "lbp alone"]
    assert {"permutation importance", "shortcut mean_color", "color/logistic (color)", "LogisticRegression"} <= {*names}


def test_perturbed_patches_are_a_kind_of_their_own(dataset, runtime):
    fold = dataset.official_split().as_cv()
    settings = {"conditions": [("blur", 4)], "n_resamples": 0, "runtime": runtime}
    found = measure_robustness(dataset, {"color": IDCPipeline("color", "logistic")}, fold, **settings)
    assert found.registered == f"{WORDS} Looks in the ledger, with this one: 1 perturbed."
    (line,) = lines_of(runtime)
    assert (line["pipeline"], line["trained_on"]) == ("color", "train+validation")


def test_a_trained_model_says_whom_its_estimate_tested(dataset, runtime):
    model = train_model(dataset, IDCPipeline("color", "logistic"), folds=2, n_resamples=0, runtime=runtime)
    looked = f"{WORDS} Looks in the ledger, with this one: 1 cross-validation. "
    assert looked in model.about["estimate"]["protocol"]


def test_predictions_are_an_official_look(dataset, runtime, tmp_path, capsys):
    rows = dataset.official_split().test
    table = pd.DataFrame({"patch": dataset.X[rows], "score": dataset.y[rows] * 0.5})
    scored = score_predictions(table, allow_missing_patients=True, n_resamples=0)
    assert scored.registered == scored.to_dict()["notes"][-2] != scored.notes[-1]
    assert "written down nowhere" in scored.registered
    table.to_csv(tmp_path / "mine.csv", index=False)
    options = ["--protocol", "idc-official", "--allow-missing-patients", "--resamples", "0"]
    assert main(["score", str(tmp_path / "mine.csv"), *options, "--ledger", str(runtime.ledger.path)]) == 0
    assert f"{WORDS} Looks in the ledger, with this one: 1 official." in capsys.readouterr().out
    (line,) = lines_of(runtime)
    assert (line["pipeline"], line["command"], line["kind"]) == ("predictions", "histofeat score mine.csv", "official")
    assert float(line["roc_auc"]) == scored.scores["roc_auc"].pooled == 1.0


@pytest.mark.parametrize(("folder", "patient"), [("", "8864"), ("uni/", "of another rule")])
def test_official_test_patients_are_left_out_of_any_data(folder, patient):
    """Embeddings and tables of IDC have another name than the folder of IDC, and the names of its files."""
    names = [f"{folder}{owner}_idx5_x{x}_y1_class{x // 50 % 2}.png" for owner in (8864, 10253) for x in (1, 51)]
    columns = {"path": names, "label": [0, 1] * 2, "patient": [patient] * 2 + ["10253"] * 2, "x": pd.NA, "y": pd.NA}
    left = development_patients(PatchDataset(pd.DataFrame(columns), ("no", "IDC"), "uni"))
    assert left.frame["path"].tolist() == names[2:]
