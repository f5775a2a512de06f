"""Scores of every class against the rest, held against scikit-learn, and the table of them in a report."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score
from test_bootstrap import t_by_hand

from histofeat.exceptions import GroupLeakageError
from histofeat.metrics import CLASS_METRICS, class_scores, scores
from histofeat.reporting import class_table, render_markdown

K = 8


@pytest.fixture(scope="module")
def eight():
    """Eight classes of unequal size, probabilities that know something, eighteen patients."""
    rng = np.random.default_rng(2)
    y = rng.choice(K, 300, p=[0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])
    logits = rng.normal(size=(300, K)) + 1.5 * np.eye(K)[y]
    proba = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return y, proba, rng.integers(0, 18, 300).astype(str)


def test_agrees_with_scikit_learn_class_by_class(eight):
    y, proba, _ = eight
    found = class_scores(y, proba)
    predicted = proba.argmax(axis=1)
    precision, recall, f1, support = precision_recall_fscore_support(y, predicted, labels=range(K), zero_division=0)
    np.testing.assert_allclose(found.values["precision"], precision)
    np.testing.assert_allclose(found.values["sensitivity"], recall)
    np.testing.assert_allclose(found.values["f1"], f1)
    np.testing.assert_array_equal(found.support, support)
    np.testing.assert_array_equal(found.predicted, np.bincount(predicted, minlength=K))
    for code in range(K):
        positive = y == code
        assert found.values["roc_auc"][code] == pytest.approx(roc_auc_score(positive, proba[:, code]))
        assert found.values["average_precision"][code] == pytest.approx(
            average_precision_score(positive, proba[:, code])
        )
        assert found.values["specificity"][code] == pytest.approx(np.mean(predicted[~positive] != code))


def test_the_scores_of_a_report_are_the_means_of_the_columns_and_those_of_scikit_learn(eight):
    y, proba, _ = eight
    found, whole = class_scores(y, proba), scores(y, proba)
    for metric in CLASS_METRICS:
        assert found.values[metric].mean() == pytest.approx(whole[metric]), metric
    _, _, macro_f1, _ = precision_recall_fscore_support(y, proba.argmax(axis=1), average="macro", zero_division=0)
    assert whole["f1"] == pytest.approx(macro_f1)
    assert whole["roc_auc"] == pytest.approx(roc_auc_score(y, proba, multi_class="ovr", average="macro"))
    assert whole["average_precision"] == pytest.approx(average_precision_score(np.eye(K)[y], proba, average="macro"))


def test_two_classes_are_the_two_sides_of_one_table():
    y, proba = [0, 0, 0, 1, 1], np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.6, 0.4]])
    found = class_scores(y, proba, target_names=("benign", "malignant")).values
    assert found["sensitivity"].tolist() == pytest.approx([2 / 3, 1 / 2])
    assert found["specificity"].tolist() == pytest.approx([1 / 2, 2 / 3])
    assert found["roc_auc"][0] == pytest.approx(found["roc_auc"][1])


def test_labels_decided_elsewhere_change_the_labels_and_not_the_ranking(eight):
    y, proba, _ = eight
    told = class_scores(y, proba, np.zeros(len(y), dtype=int))
    assert told.values["sensitivity"].tolist() == [1.0] + [0.0] * 7
    assert told.values["precision"].tolist() == pytest.approx([np.mean(y == 0)] + [0.0] * 7)
    np.testing.assert_array_equal(told.values["roc_auc"], class_scores(y, proba).values["roc_auc"])


def test_what_is_undefined_is_nan():
    """Class 2 does not occur: nothing but its specificity is defined."""
    found = class_scores([0, 0, 1], [[0.8, 0.1, 0.1], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1]]).values
    assert found["specificity"].tolist() == pytest.approx([1.0, 1.0, 2 / 3])
    for metric in ("precision", "sensitivity", "f1", "roc_auc", "average_precision"):
        assert np.isnan(found[metric]).tolist() == [False, False, True], metric
    alone = class_scores([1, 1], [[0.4, 0.6], [0.6, 0.4]]).values
    assert np.isnan(alone["specificity"]).tolist() == [False, True]
    assert np.isnan(alone["roc_auc"]).all()


def test_intervals_resample_patients(eight):
    """By brute force: the sensitivity of class 0 on the images of the drawn patients."""
    y, proba, patients = eight
    found = class_scores(y, proba, patients=patients, n_resamples=60, random_state=5)
    drawn = np.random.default_rng(5).multinomial(18, np.full(18, 1 / 18), size=60)
    ids, right = sorted(set(patients), key=int), proba.argmax(axis=1) == y
    values = []
    for times in drawn:
        weight = np.array([times[ids.index(patient)] for patient in patients])
        values.append(np.average(right[y == 0], weights=weight[y == 0]))
    df = min(len(set(patients[y == 0])), len(set(patients[y != 0]))) - 1
    value = found.values["sensitivity"][0]
    assert found.ci95["sensitivity"][0].tolist() == pytest.approx(list(t_by_hand(value, values, 18, df)))
    for metric in CLASS_METRICS:
        low, high = found.ci95[metric].T
        assert (low <= found.values[metric]).all(), metric
        assert (found.values[metric] <= high).all(), metric


def test_a_class_of_one_patient_has_no_interval():
    y, patients = np.array([0, 0, 1, 1, 2, 2]), list("abcdee")
    proba = np.eye(3)[[0, 1, 1, 1, 2, 0]] * 0.7 + 0.1
    found = class_scores(y, proba, patients=patients, n_resamples=50)
    assert found.n_patients.tolist() == [2, 2, 1]
    for metric in CLASS_METRICS:
        assert np.isnan(found.ci95[metric]).all(axis=1).tolist() == [False, False, True], metric


def test_without_patients_there_are_no_intervals(eight):
    y, proba, patients = eight
    alone = class_scores(y, proba)
    assert alone.n_patients is None
    assert all(np.isnan(ends).all() for ends in alone.ci95.values())
    assert list(alone.to_frame().columns) == ["class", "support", "predicted", *CLASS_METRICS]
    whole = class_scores(y, proba, patients=patients, n_resamples=20).to_frame()
    assert {"n_patients", "f1", "f1_low", "f1_high"} <= set(whole.columns)
    assert (whole["f1_low"] <= whole["f1_high"]).all()


def test_refuses_what_cannot_be_scored(eight):
    y, proba, _ = eight
    with pytest.raises(ValueError, match="target_names: expected 8 names, one for each column of proba, got"):
        class_scores(y, proba, target_names=("benign", "malignant"))
    with pytest.raises(ValueError, match="target_names: expected 8 names"):
        class_scores(y, proba, target_names="abcdefgh")
    with pytest.raises(ValueError, match="expected class codes from 0 to 7, got 8"):
        class_scores(np.where(y == 0, 8, y), proba)
    with pytest.raises(GroupLeakageError, match="got shape"):
        class_scores(y, proba, patients=["a"])


# --- the table in a report -------------------------------------------------------------------------------------------


@pytest.fixture
def reported(eight):
    """What the report knows of two models on eight classes, the last of which one patient has."""
    y, proba, patients = eight
    patients = np.where(y == 7, "0", patients)
    protocol = {"n_resamples": 30, "random_state": 0}
    known = {"target_names": tuple("ABCDEFGH"), "patients": patients, **protocol}
    results = [
        {"name": name, "head": "knn", "roc_auc": {"value": auc}, "classes": class_scores(y, p, **known).to_dicts()}
        for name, auc, p in (("worse", 0.6, proba), ("better", 0.7, proba[:, ::-1]))
    ]
    source = {"name": "mine", "synthetic": True, "labels": list("ABCDEFGH")}
    return {"dataset": source, "results": results, "protocol": protocol}


def test_the_plain_values_are_those_of_the_record(reported, eight):
    first = reported["results"][0]["classes"]
    assert sum(entry["support"] for entry in first) == 300
    assert [entry["class"] for entry in first] == list("ABCDEFGH")
    found = class_scores(eight[0], eight[1])
    assert [entry["f1"]["value"] for entry in first] == found.values["f1"].tolist()
    assert {entry["n_patients"] for entry in found.to_dicts()} == {None}


def section(reported):
    return " ".join(render_markdown("report-classes.md.j2", {**reported, "label": "SYNTHETIC cohort"}).split())


def test_the_best_model_stands_open_and_the_others_are_folded(reported):
    words = section(reported)
    assert words.startswith("Each class in turn is positive")
    opened, folded = words.split("<details><summary>The classes by each model</summary>")
    assert "SYNTHETIC cohort. better, knn: each class against the rest" in opened
    assert "SYNTHETIC cohort. worse, knn" in folded
    assert "worse" not in opened
    table = class_table(reported["results"][1], "mine")
    assert len(table.rows) == 8
    assert "[" in table.rows[0][-1]
    assert "[" not in table.rows[7][-1]
    assert "No interval for H: a single patient cannot be resampled." in opened


def test_two_classes_are_folded_and_a_report_without_classes_says_nothing(reported):
    reported["dataset"]["labels"] = ["A", "B"]
    opened, folded = section(reported).split("<details>")
    assert "|" not in opened
    assert "better, knn" in folded
    assert "worse, knn" in folded
    for result in reported["results"]:
        del result["classes"]
    assert section(reported) == ""


def test_resamples_without_a_class_are_counted(reported):
    assert "occurs in" not in section(reported)
    reported["results"][0]["roc_auc"]["n_resamples"] = 21
    assert "Every class occurs in 21 of 30 resamples" in section(reported)


def test_an_undefined_score_is_a_dash(reported):
    entry = reported["results"][0]["classes"][0]
    entry["precision"] = {"value": None, "ci95": [None, None]}
    entry["f1"] = {"value": 0.5, "ci95": [float("nan"), float("nan")]}
    row = class_table(reported["results"][0], "mine").rows[0]
    assert row[4] == "–"
    assert row[7] == "0.500"
