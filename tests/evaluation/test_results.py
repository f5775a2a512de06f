"""The records of an evaluation cannot be changed, travel by pickle, and count what is defined."""

import dataclasses
import pickle

import numpy as np
import pandas as pd
import pytest

from histofeat.datasets import PatchDataset
from histofeat.evaluation import Evaluation, NotRun
from histofeat.evaluation._results import ModelResult
from histofeat.metrics import Score

NAN = float("nan")


def make_score(folds=(0.9, 0.7)):
    return Score(0.79, (0.6, 0.9), 0.78, folds, 0.8, 0.1, ((0.8, 1.0), (0.5, 0.9)), n_resamples=10)


def make_model(proba):
    labels = proba.argmax(axis=1)
    return ModelResult(
        name="color",
        features=("color",),
        head="logistic",
        n_features=3,
        proba=proba,
        predicted=labels,
        predicted_tuned=labels,
        thresholds=(0.4, 0.6),
        scores={"f1": make_score()},
        tuned={"f1": make_score()},
        confusion=np.eye(2),
        confusion_tuned=np.eye(2),
        fold_confusions=(np.eye(2), np.eye(2)),
        fit_s=1.0,
        predict_s=0.1,
    )


def make_evaluation(fold):
    frame = pd.DataFrame({"path": ["a.png", "b.png", "c.png"], "label": [0, 1, 0], "patient": ["1", "2", "3"]})
    return Evaluation(
        dataset=PatchDataset(frame.assign(x=pd.NA, y=pd.NA), ("benign", "malignant"), "mine"),
        splits=(([1, 2], [0]), ([0, 2], [1])),
        fold=fold,
        models=(make_model(np.array([[0.2, 0.8], [0.6, 0.4], [0.5, 0.5]])),),
        not_run=(NotRun("cnn", "svm", "no weights"),),
        protocol={"n_splits": 2},
        seconds={"fit": 1.0},
        patient_overlap=False,
    )


def test_a_score_counts_the_folds_in_which_it_is_defined():
    assert make_score((0.9, NAN, 0.7)).n_folds == 2
    assert make_score((NAN,)).n_folds == 0


def test_a_score_without_patient_averages_says_so():
    score = make_score()
    assert np.isnan([score.patient_mean, *score.patient_mean_ci95]).all()
    assert (score.n_patients_averaged, score.n_patients_left_out) == (0, 0)


def test_an_evaluation_knows_its_labels_and_the_rows_that_were_tested():
    evaluation = make_evaluation([0, 1, -1])
    assert evaluation.labels == ("benign", "malignant")
    assert evaluation.tested.tolist() == [True, True, False]
    assert evaluation.splits[0][0].tolist() == [1, 2]


def test_nothing_in_a_result_can_be_changed():
    given = np.array([0, 1, -1])
    evaluation = make_evaluation(given)
    model = evaluation.models[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        evaluation.fold = given
    for array in (evaluation.fold, *evaluation.splits[0], model.proba, model.confusion, *model.fold_confusions):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    given[0] = 7  # the caller's own array stays the caller's
    assert evaluation.fold[0] == 0
    assert model.confusion.dtype == model.predicted.dtype == np.int64


def test_results_travel_by_pickle_and_print_short():
    evaluation = make_evaluation([0, 1, -1])
    again = pickle.loads(pickle.dumps(evaluation))
    np.testing.assert_array_equal(again.models[0].proba, evaluation.models[0].proba)
    assert again.not_run == evaluation.not_run
    about = "Evaluation('mine': 2 patches of 2 patients in 2 folds; positive class: malignant)"
    assert repr(evaluation).splitlines()[0] == about
    assert "array" not in repr(evaluation)
    assert repr(evaluation).endswith("cnn/svm no weights")
