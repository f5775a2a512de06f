"""Predictions of another system as a model of an evaluation."""

import numpy as np
import pandas as pd
import pytest

from histofeat import IDCPipeline, evaluate
from histofeat.datasets import probability_columns
from histofeat.evaluation import load_evaluation, save_evaluation
from histofeat.model_selection import PatientKFold


@pytest.fixture(scope="module")
def cohort(cohort):
    """Eight patients with 12 patches each."""
    return cohort.subset(range(96))


@pytest.fixture(scope="module")
def evaluation(cohort):
    folds = {"cv": PatientKFold(2), "inner_cv": PatientKFold(2), "n_resamples": 20}
    return evaluate(cohort, {"color": IDCPipeline(features="color", head="logistic")}, **folds)


@pytest.fixture(scope="module")
def table(evaluation):
    """What the model of the evaluation predicted, in another order, by file name."""
    frame = evaluation.dataset.frame
    table = pd.DataFrame({"path": [path.rsplit("/", 1)[1] for path in frame["path"]]})
    table[probability_columns(evaluation.labels)] = evaluation.models[0].proba
    return table.sample(frac=1, random_state=0)


def test_the_same_predictions_have_the_same_scores(evaluation, table, tmp_path):
    table.to_csv(tmp_path / "mine.csv", index=False)
    table.to_parquet(tmp_path / "mine.parquet")
    own = evaluation.models[0]
    positive = table.assign(score=table["p_tumour"])[["path", "score"]]
    places = table.merge(
        evaluation.dataset.frame.assign(path=lambda frame: frame["path"].str.replace(r"^.*/", "", regex=True))
    )
    places = places[["patient", "x", "y", "p_no_tumour", "p_tumour"]]
    named = table.rename(columns={"p_no_tumour": "no tumour", "p_tumour": "tumour"})
    for given in (own.proba, own.proba[:, 1], table, tmp_path / "mine.csv", str(tmp_path / "mine.parquet"), positive,
                  places, named):  # fmt: skip
        both = evaluation.add_predictions("mine", given)
        added = both.models[1]
        np.testing.assert_allclose(added.proba, own.proba, atol=1e-12)
        assert added.scores["roc_auc"].value == own.scores["roc_auc"].value
        assert added.scores["roc_auc"].ci95 == own.scores["roc_auc"].ci95
        assert added.thresholds == (0.5, 0.5)
        assert (added.predicted_tuned == added.predicted).all()
    assert both.comparison.rows[0].difference == pytest.approx(0)
    assert both.to_frame()["head"].tolist() == ["logistic", "predictions"]


def test_they_are_kept(evaluation, table, tmp_path):
    both = evaluation.add_predictions("mine", table)
    kept = load_evaluation(save_evaluation(both, tmp_path / "a.evaluation"))
    assert kept.models[1].notes == both.models[1].notes


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda t: t.iloc[1:],
            r"add_predictions, mine: expected probabilities from 0 to 1 of each tested patch, got oth",
        ),
        (
            lambda t: pd.concat([t, t.iloc[:1]]),
            r"expected one row for each patch, got none or several for '[\w.-]+\.png'",
        ),
        (lambda t: t.assign(path=["other.png", *t["path"].iloc[1:]]), r"got none or several for 'other.png'\."),
        (lambda t: t.assign(p_tumour=1.5), r"expected probabilities from 0 to 1"),
        (lambda t: t.assign(p_tumour="high"), r"expected probabilities from 0 to 1"),
        (
            lambda t: t.drop(columns="p_tumour"),
            r"expected the columns p_no_tumour, p_tumour, got path, p_no_tumour\. Na",
        ),
        (lambda t: np.zeros((7, 2)), r"expected shape \(96, 2\), got \(7, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused(evaluation, table, change, match):
    with pytest.raises(ValueError, match=match):
        evaluation.add_predictions("mine", change(table))


def test_names_are_not_taken_twice(evaluation, table):
    both = evaluation.add_predictions("mine", table)
    with pytest.raises(ValueError, match=r"Evaluation.add_predictions: expected another name, got 'mine' again"):
        both.add_predictions("mine", table)


def test_rows_that_were_never_tested_are_not_needed(cohort):
    (train, test), *_ = PatientKFold(2).split(cohort.X, cohort.y, cohort.patients)
    folds = {"cv": [(train, test)], "inner_cv": PatientKFold(2), "n_resamples": 0}
    evaluation = evaluate(cohort, IDCPipeline(features="color", head="logistic"), **folds)
    given = cohort.frame.iloc[test][["path"]].assign(score=np.linspace(0, 1, len(test)))
    added = evaluation.add_predictions("mine", given).models[1]
    assert np.isnan(added.proba[train]).all()
    assert added.proba[test, 1].tolist() == given["score"].tolist()
