"""Scores of patients and of groups, design effects and what a table tells, by loops and against scikit-learn."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import LeaveOneGroupOut

from histofeat import IDCPipeline, PatientKFold, evaluate
from histofeat.evaluation import score_groups, score_patients
from histofeat.evaluation._details import probe_columns
from histofeat.exceptions import GroupLeakageError
from histofeat.metrics import bootstrap_scores, decision_curve, design_effect, independent_variance, score_folds, scores
from histofeat.metrics._out_of_fold import deviation_of_fits


def study(n_patients=12, per_patient=20, n_classes=2, spread=0.0, random_state=0):
    """Patches whose labels and scores share an effect of the patient."""
    rng = np.random.default_rng(random_state)
    patients = np.repeat(np.arange(n_patients), per_patient)
    effect = spread * rng.normal(size=n_patients)[patients]
    y = rng.integers(0, n_classes, len(patients))
    logits = rng.normal(size=(len(patients), n_classes)) + np.eye(n_classes)[y]
    logits[:, 0] -= effect
    proba = expit(logits)
    return y, proba / proba.sum(axis=1, keepdims=True), patients


@pytest.mark.parametrize("n_classes", [2, 3])
def test_each_patient_is_scored_alone(n_classes):
    y, proba, patients = study(n_classes=n_classes)
    y[patients == 3] = 1  # a patient of one class
    table = score_patients(y, proba, patients).set_index("patient")
    assert table["brier"].is_monotonic_decreasing
    assert (table["patches"] == 20).all()
    for patient in (0, 7):
        rows = patients == patient
        expected = scores(y[rows], proba[rows])
        assert table.loc[str(patient), list(expected)].to_dict() == pytest.approx(expected)
        assert expected["log_loss"] == pytest.approx(log_loss(y[rows], proba[rows]))
    assert np.isnan(table.loc["3", "roc_auc"])
    assert table.loc["3", "carries"] == 1
    assert table.loc["3", "accuracy"] == np.mean(proba[patients == 3].argmax(axis=1) == 1)


def test_design_effect_is_one_of_independent_patches_and_large_where_patients_differ():
    for spread, low, high in ((0.0, 0.6, 1.6), (2.0, 1.4, 99.0)):
        y, proba, patients = study(n_patients=60, spread=spread)
        error = bootstrap_scores(y, proba, patients).standard_error("roc_auc")
        assert low < error**2 / independent_variance(y, proba) < high
    assert independent_variance(y, np.full((len(y), 2), 0.5)) == 0
    fold = np.arange(len(y)) % 2
    three = np.column_stack([proba[:, 0], proba[:, 1] / 3, proba[:, 1] * 2 / 3])
    y3 = y + (y == 1) * (np.arange(len(y)) % 3 > 0)
    for labels, scored in ((y, proba), (y3, three)):
        alone = bootstrap_scores(labels, scored, np.arange(len(y)), n_resamples=4000, metrics=["roc_auc"], fold=fold)
        expected = (alone.standard_error("roc_auc")) ** 2
        assert independent_variance(labels, scored, fold) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_groups_are_scored_on_their_own_patches(n_classes):
    y, proba, patients = study(n_classes=n_classes)
    fold, site = patients % 2, np.where(patients < 4, "north", np.where(patients < 9, "south", None))
    found = score_groups(y, proba, patients, site, fold=fold, n_resamples=50, random_state=2)
    assert list(found) == ["north", "not stated", "south"]
    assert [one.n_patients for one in found.values()] == [4, 3, 5]
    for group, rows in (("north", patients < 4), ("south", (patients >= 4) & (patients < 9))):
        expected = scores(y[rows], proba[rows], fold=fold[rows])
        assert found[group].estimates == pytest.approx(expected)
        alone = bootstrap_scores(y[rows], proba[rows], patients[rows], fold=fold[rows], n_resamples=50, random_state=2)
        assert found[group].interval("roc_auc") == alone.interval("roc_auc")
    mapped = score_groups(y, proba, patients, dict.fromkeys(range(4), "north"), metrics=["accuracy"], n_resamples=0)
    rows = patients >= 4
    assert mapped["not stated"].estimates == {"accuracy": accuracy_score(y[rows], proba[rows].argmax(axis=1))}


def test_groups_that_are_none_are_refused():
    y, proba, patients = study()
    for groups, count in ((["a"], 1), ({"nobody": "a"}, 0), ([None] * 240, 0)):
        with pytest.raises(ValueError, match=f"score_groups.groups: expected a group for each of 240 .*, got {count}"):
            score_groups(y, proba, patients, groups)


def by_hand(values, y, splits, n_classes):
    """The share of each class among training patches of the same value, one average patch added."""
    proba = np.full((len(y), n_classes), np.nan)
    for train, test in splits:
        for row in test:
            same = [y[other] for other in train if values[other] == values[row]]
            for code in range(n_classes):
                proba[row, code] = (same.count(code) + np.mean(y[train] == code)) / (len(same) + 1)
    return proba


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_column_that_knows_the_class_is_found(n_classes):
    y, _, patients = study(n_classes=n_classes)
    rng = np.random.default_rng(0)
    format_of = np.where(rng.random(240) < 0.8, y, rng.integers(0, n_classes, 240))
    columns = {
        "luck": rng.integers(0, 3, 240).astype(str),
        "format": np.array(["png", "jpg", "tif"])[format_of],
        "always": np.full(240, "x"),
        "age": y + rng.integers(0, 4, 240),
    }
    splits = [(np.flatnonzero(patients % 3 != k), np.flatnonzero(patients % 3 == k)) for k in range(3)]
    found = probe_columns(columns, y, patients, splits, n_classes, n_resamples=100)
    assert list(found) == ["format", "age", "luck"]
    proba = by_hand(columns["format"], y, splits, n_classes)
    expected = scores(y, proba, fold=patients % 3)["roc_auc"]
    assert found["format"].estimates["roc_auc"] == pytest.approx(expected)
    assert expected > 0.8
    assert found["format"].interval("roc_auc")[0] > 0.7
    assert found["luck"].interval("roc_auc")[0] < 0.55
    again = scores(y, by_hand(columns["age"], y, splits, n_classes), fold=patients % 3)["roc_auc"]
    assert found["age"].estimates["roc_auc"] == pytest.approx(again, abs=2e-3)  # equal shares may round apart


def test_a_value_that_training_never_had_tells_nothing():
    y, patients = np.array([0, 1, 0, 1, 0, 1, 0, 1]), np.array(list("aabbccdd"))
    splits = [(np.arange(4), np.arange(4, 8)), (np.arange(4, 8), np.arange(4))]
    found = probe_columns({"site": patients}, y, patients, splits, 2, n_resamples=0)
    assert found["site"].estimates["roc_auc"] == 0.5


def test_the_patients_are_taken_from_the_spread_between_folds():
    rng, found = np.random.default_rng(0), []
    for _ in range(2000):
        fits, patients = rng.normal(0, 0.04, 5), rng.normal(0, 0.03, 5)
        found.append(deviation_of_fits(0.8 + fits + patients, [0.03] * 5))
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(0.04, rel=0.05)
    assert deviation_of_fits([0.8, 0.8], [0.1, 0.1]) == 0.0
    assert np.isnan(deviation_of_fits([0.8], [0.1]))
    assert np.isnan(deviation_of_fits([0.8, np.nan], [0.1, np.nan]))


def test_scores_of_folds_carry_their_deviations():
    y, proba, patients = study(n_patients=20)
    tests = [np.flatnonzero(patients % 4 == number) for number in range(4)]
    found, whole = score_folds(y, proba, proba.argmax(axis=1), patients, tests, n_resamples=100)
    area = found["roc_auc"]
    assert area.sd_patients == whole.standard_error("roc_auc")
    values = [roc_auc_score(y[test], proba[test, 1]) for test in tests]
    errors = [
        bootstrap_scores(y[test], proba[test], patients[test], n_resamples=100).standard_error("roc_auc")
        for test in tests
    ]
    assert area.sd_fits == pytest.approx(deviation_of_fits(values, errors))
    assert np.isnan(area.sd_repeats)


# --- of an evaluation ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluation(cohort):
    site = np.where(cohort.patients.astype(int) % 3 == 0, "north", np.where(cohort.patients.astype(int) % 3, "s", "w"))
    dataset = replace(cohort, frame=cohort.frame.assign(site=site, age=np.arange(len(cohort))))
    pipelines = {"color": IDCPipeline("color", "logistic")}
    return evaluate(dataset, pipelines, PatientKFold(3), inner_cv=PatientKFold(2), n_resamples=60, random_state=1)


def test_details_are_those_of_the_tested_patches(evaluation):
    [details], [model] = evaluation.details, evaluation.models
    y, patients, proba = evaluation.dataset.y, evaluation.dataset.patients, model.proba
    table = score_patients(y, proba, patients)
    table.insert(3, "prevalence", table["patient"].map(pd.Series(y == 1).groupby(patients).mean()))
    pd.testing.assert_frame_equal(details["hardest"], table[details["hardest"].columns].head(15))
    assert details["spread"]["brier"] == pytest.approx(np.quantile(table["brier"], [0.1, 0.5, 0.9]).tolist())
    effect = design_effect(evaluation, f"{model.name}/{model.head}")
    assert details["design_effect"] == effect  # a report and `histofeat power` say the same
    assert details["worth"] == len(y) / effect
    assert details["predictive_values"] is details["groups"] is details["outcomes"] is None
    assert details["net_benefit"].equals(
        decision_curve(y, model.calibrated[:, 1], patients, n_resamples=60, random_state=1)
    )


def test_questions_that_have_no_answer_are_refused(evaluation):
    with pytest.raises(ValueError, match=r"Evaluation.asking.groups: expected a column of the table, got 'place'"):
        evaluation.asking(groups="place")
    with pytest.raises(ValueError, match=r"predictive_values.prevalence: expected a share between 0 and 1 .*, got 5"):
        evaluation.asking(prevalence=5)
    asked = evaluation.asking(groups="age")
    assert "prevalence" not in asked.protocol
    assert "groups" not in evaluation.protocol
    assert list(asked.table_probe) == list(dict.fromkeys(asked.table_probe))
    assert "age" in asked.table_probe
    assert "age" not in evaluation.table_probe


def test_each_site_is_left_out_once_and_a_patient_of_two_sites_is_refused(evaluation):
    dataset, pipelines = evaluation.dataset, {"color": IDCPipeline("color", "logistic")}
    site = dataset.frame["site"].to_numpy()
    sites = LeaveOneGroupOut().split(dataset.X, dataset.y, site)
    left_out = evaluate(dataset, pipelines, sites, inner_cv=PatientKFold(2), n_resamples=0)
    assert [set(site[test]) for _, test in left_out.splits] == [{name} for name in sorted(set(site))]
    site[0] = next(name for name in site if name != site[0])
    with pytest.raises(GroupLeakageError, match="patient"):
        evaluate(dataset, pipelines, LeaveOneGroupOut().split(dataset.X, dataset.y, site))
