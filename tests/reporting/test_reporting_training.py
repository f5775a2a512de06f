"""The comparison of all models, the training of networks, confusion matrices and legends: the numbers behind them."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from histofeat import IDCPipeline, evaluate
from histofeat.model_selection import PatientKFold
from histofeat.reporting import draw_lines, write_report
from histofeat.reporting._canvas import save_figure
from histofeat.reporting._score_figures import comparison_data, draw_comparison, draw_confusion
from histofeat.reporting._training import draw_training, training_data, training_payload, training_table

HISTORY = {
    "loss": [0.9, 0.5, 0.3],
    "accuracy": [0.5, 0.7, 0.9],
    "val_loss": [0.8, 0.6, 0.7],
    "val_accuracy": [0.5, 0.8, 0.7],
    "val_roc_auc": [0.6, float("nan"), 0.8],
    "learning_rate": [1e-3, 1e-2, 1e-4],
    "seconds": [1.0, 1.5, 2.0],
    "kept": [False, True, False],
}
SHORT = {"loss": [0.9], "accuracy": [0.4], "learning_rate": [1e-3], "seconds": [1.0]}


def score(value, ci95=(0.1, 0.9)):
    return {"value": value, "ci95": list(ci95)}


def result(name, auc, head="svm", features=("color",), **more):
    metrics = {"roc_auc": score(auc), "balanced_accuracy": score(0.6), "f1": score(0.5)}
    tuned = {"balanced_accuracy": score(0.7), "f1": score(0.65)}
    return {"name": name, "head": head, "features": list(features), **metrics, "tuned": tuned, **more}


def payload(*results, labels=("no", "yes")):
    return {"dataset": {"name": "d", "synthetic": True, "labels": list(labels)}, "results": list(results)}


# --- comparison ------------------------------------------------------------------------------------------------------


def test_comparison_is_sorted_and_names_the_networks():
    models = [
        result("a", 0.7),
        result("net", 0.9, head="cancernet", features=("pixels",)),
        result("none", None),
        result("b", 0.8),
    ]
    data = comparison_data(payload(*models))
    assert [row["name"] for row in data["rows"]] == ["net", "b", "a", "none"]
    assert [row["network"] for row in data["rows"]] == [True, False, False, False]
    assert data["heads"] == ["svm", "cancernet"]
    assert data["rows"][0]["scores"]["f1"] == {**score(0.5), "tuned": score(0.65)}
    assert data["rows"][0]["scores"]["roc_auc"]["tuned"] is None
    figure = draw_comparison(data)
    assert figure.axes[0].get_yticklabels()[0].get_text() == "net, cancernet"
    assert "network trained on the pixels: the reference" in [t.get_text() for t in figure.legends[0].get_texts()]
    # Of four models the one without an ROC-AUC has neither interval nor dot.
    assert [len(axes.lines) for axes in figure.axes] == [6, 16, 16]


def test_more_than_two_classes_have_no_tuned_threshold():
    data = comparison_data(payload(result("a", 0.7), labels=("a", "b", "c")))
    assert data["tuned"] is False
    assert data["rows"][0]["scores"]["f1"]["tuned"] is None
    figure = draw_comparison(data)
    assert figure.axes[2].get_title() == "F1, mean over classes"
    assert not figure.legends


# --- training --------------------------------------------------------------------------------------------------------


def network(*histories):
    found = training_payload(SimpleNamespace(histories=histories))
    return result("pixels", 0.9, head="cancernet", features=("pixels",), training=found)


def test_training_payload_counts_epochs_from_one_and_knows_no_nan():
    first, second = network(HISTORY, SHORT)["training"]
    assert (first["epochs"], first["kept_epoch"]) == (3, 2)
    assert first["val_roc_auc"] == [0.6, None, 0.8]
    assert "kept" not in first
    assert (second["epochs"], second["kept_epoch"]) == (1, None)
    assert training_payload(SimpleNamespace(histories=())) == []
    assert training_payload(SimpleNamespace()) == []


def test_a_pair_of_curves_a_fold_and_a_mark_at_the_kept_epoch():
    model = network(HISTORY, HISTORY)
    figure = draw_training(training_data(payload(model), model))
    loss, accuracy, rate, area = figure.axes
    assert [len(axes.lines) for axes in (loss, accuracy, rate, area)] == [6, 6, 2, 4]
    assert loss.lines[0].get_ydata().tolist() == HISTORY["loss"]
    assert loss.lines[1].get_ydata().tolist() == HISTORY["val_loss"]
    assert (loss.lines[2].get_xdata()[0], loss.lines[2].get_ydata()[0]) == (2, 0.6)
    assert loss.lines[0].get_color() != loss.lines[3].get_color()
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == [
        "fold 1", "fold 2", "training patches", "validation patients (not results)", "kept epoch",
    ]  # fmt: skip


def test_training_without_validation_patients(tmp_path):
    model = network(SHORT, {})
    figure = draw_training(training_data(payload(model), model))
    assert [axes.get_visible() for axes in figure.axes] == [True, True, True, False]
    assert "validation" not in " ".join(text.get_text() for text in figure.legends[0].get_texts())
    save_figure(draw_training, training_data(payload(model), model), tmp_path / "t.svg")
    assert training_data(payload(model), network({})) is None
    assert training_data(payload(model), result("a", 0.5)) is None


def test_training_table_has_the_scores_of_the_kept_epoch():
    model = network(HISTORY, SHORT)
    table = training_table(payload(result("a", 0.7, training=[]), model))
    assert table.rows[0] == ("pixels, cancernet", "1", "3", "2", "0.500", "0.600", "–", "4.5")
    assert table.rows[1] == ("pixels, cancernet", "2", "1", "–", "–", "–", "–", "1.0")
    assert training_table(payload(result("a", 0.7))) is None


# --- confusion and legends -------------------------------------------------------------------------------------------


def test_cells_of_many_classes_show_counts_and_rates_and_leave_nothing_blank_on_the_diagonal():
    counts = np.diag([3, 0, 5, 2, 1]).tolist()
    counts[0][4] = 1
    rates = [[cell / max(sum(row), 1) for cell in row] for row in counts]
    data = {"labels": list("abcde"), "head": "svm", "threshold": "argmax", "data_label": "d",
            "matrices": [{"name": "color", "counts": counts, "rates": rates}]}  # fmt: skip
    axes = draw_confusion(data).axes[0]
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts[(0, 0)] == "75 %\n3"
    assert texts[(4, 0)] == "25 %\n1"
    assert texts[(1, 1)] == "0 %\n0"
    assert len(texts) == 6


def test_a_legend_cuts_no_name_and_a_name_has_one_colour_in_all_panels():
    long = "as many patches, spread over all patients"
    panels = [
        {"title": "a", "lines": [{"name": "patients", "x": [0, 1], "y": [0, 1]}, {"name": long, "x": [0], "y": [1]}]},
        {"title": "b", "lines": [{"name": long, "x": [0, 1], "y": [1, 1]}, {"name": "late", "x": [0], "y": [0]}]},
    ]
    figure = draw_lines({"title": "t" * 300, "x_label": "x", "y_label": "y", "panels": panels})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["patients", long, "late"]
    assert figure.axes[0].lines[1].get_color() == figure.axes[1].lines[0].get_color()
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


# --- the report ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(cohort, tmp_path_factory):
    """The report of a model, and of a network whose training went as in `HISTORY`."""
    pipelines = {"color": IDCPipeline(features="color", head="logistic")}
    found = evaluate(cohort, pipelines, PatientKFold(2), inner_cv=PatientKFold(2), n_resamples=30)
    trained = replace(found.models[0], name="net", features=("pixels",), head="cnn", histories=(HISTORY, HISTORY))
    found = replace(found, models=(found.models[0], trained))
    return write_report(found, tmp_path_factory.mktemp("trained") / "report").parent


def test_a_network_among_the_models_gets_its_section_and_its_row(folder):
    data = json.loads((folder / "figures/training_net-cnn.json").read_text(encoding="utf-8"))
    assert [fold["kept_epoch"] for fold in data["folds"]] == [2, 2]
    assert data["validation_is_no_result"] is True
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert [len(result["training"]) for result in metrics["results"]] == [0, 2]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Validation patients are held out of the training side" in page
    assert "so their scores are too good and are not results" in page
    assert page.index(">Comparison</h2>") < page.index("Training of the networks</h2>")
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "](figures/training_net-cnn.svg)" in text
    assert "](figures/comparison.svg)" in text


def test_bands_in_the_report_have_the_areas_of_its_scores(folder):
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    for kind, metric in (("roc", "roc_auc"), ("pr", "average_precision")):
        data = json.loads((folder / f"figures/{kind}_logistic.json").read_text(encoding="utf-8"))
        (curve,) = data["panels"][0]["curves"]
        assert curve["ci95"] == metrics["results"][0][metric]["ci95"]
        low, high = (np.trapezoid(curve[end], data["grid"]) for end in ("low", "high"))
        assert low < metrics["results"][0][metric]["value"] < high
