"""Displays show the numbers of the evaluation, on the axes that they were given, and refuse what they cannot draw."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib import pyplot

from histofeat import IDCPipeline, evaluate
from histofeat.model_selection import PatientKFold
from histofeat.reporting import (
    CalibrationDisplay,
    ConfusionDisplay,
    PatientsDisplay,
    PrecisionRecallDisplay,
    RocDisplay,
)

FOLDS = {"cv": PatientKFold(2), "inner_cv": PatientKFold(2), "n_resamples": 20}
ALL = (RocDisplay, PrecisionRecallDisplay, CalibrationDisplay, ConfusionDisplay, PatientsDisplay)


@pytest.fixture(scope="module")
def evaluation(cohort):
    return evaluate(cohort, [("color", IDCPipeline("color", head)) for head in ("logistic", "knn")], **FOLDS)


@pytest.fixture(scope="module")
def three(cohort):
    labels = np.arange(len(cohort)) % 3
    dataset = replace(
        cohort, frame=cohort.frame.assign(label=labels), target_names=("a", "b", "c"), audit=None, positive=None
    )
    return evaluate(dataset, {"color": IDCPipeline("color", "logistic")}, **FOLDS)


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_a_display_draws_where_it_is_told_and_again_elsewhere(kind, evaluation):
    _, ax = pyplot.subplots()
    display = kind.from_evaluation(evaluation, ax=ax)
    assert (display.ax_, display.figure_) == (ax, ax.figure)
    assert display.plot() is display
    assert display.ax_ is not ax
    assert display.ax_.get_title().splitlines()[-1] == "SYNTHETIC cohort", "each figure says whose data it is on"
    display.figure_.canvas.draw()


@pytest.mark.parametrize(("kind", "area", "x", "y"), [
    (RocDisplay, "roc_auc", "fpr", "tpr"), (PrecisionRecallDisplay, "average_precision", "recall", "precision"),
])  # fmt: skip
def test_curves_have_the_areas_and_bands_of_the_evaluation(kind, area, x, y, evaluation):
    display = kind.from_evaluation(evaluation)
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    for text, model in zip(texts, evaluation.models, strict=True):
        score = model.scores[area]
        assert text == f"color/{model.head}  {score.value:.3f} [{score.ci95[0]:.3f}, {score.ci95[1]:.3f}]"
    assert display.ax_.get_legend().get_title().get_text() == "tumour"
    assert len(display.ax_.collections) == 2, "a band each"
    _, *drawn = display.ax_.get_lines()
    for line, curve in zip(drawn, display.data["curves"], strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.column_stack([curve[x], curve[y]]))


def test_models_are_chosen_by_name(evaluation):
    (curve,) = RocDisplay.from_evaluation(evaluation, models=["color/knn"]).data["curves"]
    assert curve["roc_auc"] == evaluation.models[1].scores["roc_auc"].value
    with pytest.raises(ValueError, match=r"RocDisplay\.from_evaluation\.models: expected names of models .*'color/nn'"):
        RocDisplay.from_evaluation(evaluation, models=["color/nn"])
    with pytest.raises(ValueError, match=r"PatientsDisplay\.from_evaluation: expected an evaluation with models, got"):
        PatientsDisplay.from_evaluation(replace(evaluation, models=()))
    with pytest.raises(ValueError, match=r"RocDisplay\.from_evaluation: expected an Evaluation, got dict"):
        RocDisplay.from_evaluation({})


def test_calibration_is_drawn_before_or_after_it(evaluation):
    for calibrated in (False, True):
        display = CalibrationDisplay.from_evaluation(evaluation, calibrated=calibrated)
        found = evaluation.calibration[0]
        bins = (found.calibrated if calibrated else found.raw).to_dict()["curve"]["bins"]
        assert display.data["lines"][0]["name"] == "color/logistic"
        assert display.data["lines"][0]["x"] == [
            value for value, n in zip(bins["mean_predicted"], bins["n"], strict=True) if n
        ]
        assert display.ax_.get_ylabel() == "share of tumour"


def test_the_best_confusion_matrix_is_drawn_at_either_threshold(evaluation):
    best = max(evaluation.models, key=lambda model: model.scores["roc_auc"].value)
    for tuned, words in ((False, "labels at 0.5"), (True, "labels at the tuned threshold")):
        display = ConfusionDisplay.from_evaluation(evaluation, tuned=tuned)
        assert display.ax_.get_title().splitlines()[0] == f"color/{best.head}: {words}"
        counts = best.confusion_tuned if tuned else best.confusion
        drawn = [int(text.get_text().splitlines()[1]) for text in display.ax_.texts]
        assert drawn == counts.ravel().tolist()


def test_patients_are_ticks_beside_their_mean(evaluation):
    display = PatientsDisplay.from_evaluation(evaluation, metric="roc_auc")
    table = evaluation.by_patient()
    for row, model in zip(display.data["rows"], evaluation.models, strict=True):
        own = table.loc[table["model"] == f"color/{model.head}", "roc_auc"]
        assert [value for value in row["folds"] if value is not None] == own.dropna().tolist()
        assert row["value"] == model.scores["roc_auc"].patient_mean == pytest.approx(own.mean())
    with pytest.raises(ValueError, match=r"PatientsDisplay\.metric: expected one of .*, got 'auc'"):
        PatientsDisplay.from_evaluation(evaluation, metric="auc")


def test_more_than_two_classes_have_a_curve_each_and_their_mean(three):
    mean = RocDisplay.from_evaluation(three)
    assert mean.ax_.get_legend().get_title().get_text() == "mean over the classes"
    one = RocDisplay.from_evaluation(three, positive="b").data
    assert one["curves"][0]["roc_auc"] == three.classes[0].to_dicts()[1]["roc_auc"]["value"]
    with pytest.raises(ValueError, match=r"RocDisplay\.positive: expected one of a, b, c, got 'd'"):
        RocDisplay.from_evaluation(three, positive="d")
    matrix = ConfusionDisplay.from_evaluation(three)
    assert matrix.ax_.get_title().splitlines()[0] == "color/logistic: most probable class"
    with pytest.raises(ValueError, match=r"CalibrationDisplay: expected two classes, got 3\. Draw a RocDisplay"):
        CalibrationDisplay.from_evaluation(three)
