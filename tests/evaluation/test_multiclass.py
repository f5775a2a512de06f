"""Eight classes all the way: metrics, confusion, report, search, shortcuts, rare classes, and calibrated heads."""

import csv
import json
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, f1_score, roc_auc_score

from histofeat import IDCPipeline, PatchDataset, PatientKFold, evaluate, write_report
from histofeat.datasets import load_breakhis, make_breakhis_cohort, merge_rare_classes
from histofeat.evaluation import AuditPolicy
from histofeat.exceptions import GroupLeakageError
from histofeat.features import extract, make_family
from histofeat.models import make_head
from histofeat.reporting import class_table, metrics_payload
from histofeat.studies import measure_leakage, panel_of

QUICK = {"inner_cv": PatientKFold(2), "n_resamples": 30}


@pytest.fixture(scope="module")
def subtypes(tmp_path_factory):
    """Eight subtypes of four patients each at 100X."""
    root = tmp_path_factory.mktemp("eight") / "tree"
    make_breakhis_cohort(patients_per_subtype=4, images_per_slide=2, magnifications=(100,), root=root)
    return load_breakhis(root, 100, "subtype")


@pytest.fixture(scope="module")
def evaluation(subtypes):
    pipelines = [("color", IDCPipeline("color", head)) for head in ("logistic", "knn")]
    return evaluate(subtypes, pipelines, PatientKFold(3), **QUICK)


@pytest.fixture(scope="module")
def report(evaluation, tmp_path_factory):
    return write_report(evaluation, tmp_path_factory.mktemp("report") / "out").parent


def test_scores_are_those_of_scikit_learn(evaluation):
    y = evaluation.dataset.y
    assert len(evaluation.models) == 2
    for model in evaluation.models:
        assert model.scores["roc_auc"].pooled == pytest.approx(roc_auc_score(y, model.proba, multi_class="ovr"))
        assert model.scores["f1"].pooled == pytest.approx(f1_score(y, model.predicted, average="macro"))
        assert model.scores["sensitivity"].pooled == model.scores["balanced_accuracy"].pooled
        low, high = model.scores["roc_auc"].ci95
        assert low <= model.scores["roc_auc"].value <= high


def test_the_confusion_matrix_has_eight_rows_of_true_classes(evaluation):
    for model in evaluation.models:
        expected = confusion_matrix(evaluation.dataset.y, model.predicted, labels=range(8))
        np.testing.assert_array_equal(model.confusion, expected)
        np.testing.assert_array_equal(model.confusion_tuned, expected)
        np.testing.assert_array_equal(sum(model.fold_confusions), expected)


def test_no_threshold_and_no_calibration_is_made_up(evaluation):
    for model in evaluation.models:
        assert model.thresholds == ()
        np.testing.assert_array_equal(model.predicted_tuned, model.predicted)
        np.testing.assert_array_equal(model.calibrated, model.proba)


def test_the_report_speaks_of_the_most_probable_class_and_of_no_threshold(report, evaluation):
    text = (report / "report.md").read_text(encoding="utf-8")
    assert "the mean over the classes, each against the rest" in text
    assert "Labels: the most probable class." in text
    assert "tuned" not in text
    assert "Positive class" not in text
    assert "None of the 32 tested patients has patches of every class" in text
    for name in evaluation.labels:
        assert name in text


def test_the_files_of_the_report_have_eight_classes(report, evaluation):
    payload = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    assert np.shape(payload["results"][0]["confusion_matrix"]) == (8, 8)
    assert payload["results"][0]["tuned"]["thresholds"] == []
    assert payload["results"][0]["calibration"] is None
    (row,) = payload["comparison"]["rows"]
    assert {row["first"], row["second"]} == {"color/logistic", "color/knn"}
    with (report / "metrics.csv").open(encoding="utf-8") as file:
        assert {row["threshold"] for row in csv.DictReader(file)} == {"none", "argmax"}
    rows = pd.read_parquet(report / "predictions.parquet")
    assert len(rows) == 2 * len(evaluation.dataset)
    assert "threshold" not in rows
    assert rows.filter(like="p_").sum(axis=1).to_numpy() == pytest.approx(1.0)
    called = [f"p_{'_'.join(label.split())}" for label in rows["label"]]
    assert called == rows.filter(like="p_").idxmax(axis=1).tolist()
    assert (report / "figures" / "confusion_logistic.svg").exists()


def test_the_table_of_the_classes_goes_with_the_payload_of_the_report(evaluation):
    payload = metrics_payload(evaluation)
    for classes, result in zip(evaluation.classes, payload["results"], strict=True):
        result["classes"] = classes.to_dicts()
        values = [entry["roc_auc"]["value"] for entry in result["classes"]]
        assert np.mean(values) == pytest.approx(result["roc_auc"]["value"])
        assert [entry["n_patients"] for entry in result["classes"]] == [4] * 8
    table = class_table(payload["results"][0], "mine")
    assert [row[0] for row in table.rows] == list(evaluation.labels)


def test_the_shortcut_panel_runs_and_leakage_says_that_it_is_of_two_classes(evaluation):
    panel = panel_of(evaluation, families_to_identify=())
    assert all(0 <= row.roc_auc <= 1 for row in panel.rows)
    assert panel.reference.roc_auc == max(model.scores["roc_auc"].value for model in evaluation.models)
    with pytest.raises(ValueError, match=r"measure_leakage\.dataset: expected two classes, got 8"):
        measure_leakage(evaluation.dataset, IDCPipeline("color", "logistic"))


@pytest.mark.long
def test_parameters_are_searched_by_the_mean_of_one_against_the_rest(subtypes):
    candidates = [1e-6, 0.1]
    found = evaluate(
        subtypes, IDCPipeline("color", "logistic"), PatientKFold(3), search={"logistic": {"C": candidates}}, **QUICK
    )
    (model,) = found.models
    X, (train, _) = extract([make_family("color")], subtypes.X).features[0], found.splits[0]
    folds = list(PatientKFold(2).split(train, subtypes.y[train], subtypes.patients[train]))
    by_hand = {C: np.mean([macro_auc(C, X, subtypes.y, train[a], train[b]) for a, b in folds]) for C in candidates}
    choice = model.choices[0]
    assert choice["params"]["C"] == max(by_hand, key=by_hand.get)
    assert choice["inner_score"] == pytest.approx(max(by_hand.values()), abs=1e-9)


def macro_auc(C, X, y, train, test):
    head = make_head("logistic", params={"C": C}).fit(X[train], y[train])
    # The search ranks by decision values: of many classes that is not the order of the probabilities.
    values = head.decision_function(X[test])
    return np.mean([roc_auc_score(y[test] == label, values[:, code]) for code, label in enumerate(head.classes_)])


# --- rare and missing classes ----------------------------------------------------------------------------------------


@pytest.fixture
def rare(subtypes):
    """The subtypes with a single patient of the first."""
    patients = np.unique(subtypes.patients[subtypes.y == 0])
    return subtypes.subset(~np.isin(subtypes.patients, patients[1:]))


def test_a_class_of_one_patient_is_refused_and_merged_by_a_named_rule(rare):
    with pytest.raises(ValueError, match="got class 0 in only 1 of 29 patients for 3 folds"):
        evaluate(rare, IDCPipeline("color", "logistic"), PatientKFold(3), **QUICK)
    merged = merge_rare_classes(rare, 3, rule="malignancy")
    assert len(merged.target_names) == 7
    assert "other benign-like" in merged.target_names
    found = evaluate(merged, IDCPipeline("color", "logistic"), PatientKFold(3), **QUICK)
    assert found.models[0].confusion.shape == (7, 7)


def test_a_fold_without_a_class_is_refused_and_where_accepted_gives_it_no_probability(subtypes):
    test = subtypes.y == 7
    test |= np.isin(subtypes.patients, [np.unique(subtypes.patients[subtypes.y == code])[0] for code in range(7)])
    folds = [(np.flatnonzero(~test), np.flatnonzero(test))]
    with pytest.raises((ValueError, GroupLeakageError), match="HF004"):
        evaluate(subtypes, IDCPipeline("color", "logistic"), folds, **QUICK)
    (model,) = evaluate(
        subtypes, IDCPipeline("color", "logistic"), folds, audit=AuditPolicy(accept_findings=("HF004",)), **QUICK
    ).models
    assert (model.proba[test, 7] == 0).all()
    assert model.confusion[:, 7].sum() == 0
    assert model.confusion[7].sum() == np.sum(subtypes.y == 7)


def test_a_class_that_nobody_has_leaves_scores_undefined_and_a_report_that_says_so(cohort, tmp_path):
    """Three names and two classes, as in a part of a data set: a mean over the classes is not defined."""
    named = PatchDataset(cohort.frame, ("benign", "malignant", "borderline"), "part", root=cohort.root)
    found = evaluate(
        named, [("c", IDCPipeline("color", head)) for head in ("logistic", "knn")], PatientKFold(2),
        audit=AuditPolicy(accept_findings=("HF004",)), **QUICK,
    )  # fmt: skip
    (model, _) = found.models
    assert np.isnan(model.scores["f1"].pooled)
    assert np.isfinite(model.scores["accuracy"].pooled)
    [*known, absent] = found.classes[0].to_dicts()
    assert all(np.isfinite(entry["roc_auc"]["value"]) for entry in known)
    assert np.isnan(absent["roc_auc"]["value"])
    write_report(found, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)


# --- real images -----------------------------------------------------------------------------------------------------


def test_the_real_sample_is_refused_merged_and_evaluated(real_data):
    dataset = load_breakhis(real_data / "breakhis", 100, "subtype")
    with pytest.raises(ValueError, match="got class 0 in only 1 of 20 patients"):
        list(PatientKFold(3).split(dataset.X, dataset.y, dataset.patients))
    merged = merge_rare_classes(dataset, 3)
    found = evaluate(merged, IDCPipeline("color", "random_forest", head_params={"n_estimators": 20}), PatientKFold(3),
                     **QUICK)  # fmt: skip
    (model,) = found.models
    assert model.confusion.sum() == len(dataset) == 67
    assert (found.classes[0].n_patients >= 3).all()
