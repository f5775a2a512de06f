"""A model that knows nothing has a ROC-AUC of exactly 0.5 wherever one is printed, however few patients there are."""

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier

from histofeat import IDCPipeline, PatientKFold, evaluate, make_cohort
from histofeat.datasets import PatchDataset
from histofeat.metrics import compare_models
from histofeat.models import FeatureHead
from histofeat.reporting import average_table, headline_table, metrics_payload, ranking_data
from histofeat.reporting._folder import score_rows
from histofeat.reporting._score_figures import comparison_data, forest_data
from histofeat.reporting._tables import folds_table
from histofeat.studies import (
    ablate_families,
    learning_curve,
    measure_leakage,
    measure_robustness,
    permutation_importance,
    shortcut_panel,
)


def pipeline(features="color"):
    return IDCPipeline(features, FeatureHead(DummyClassifier(strategy="prior")))


@pytest.fixture(scope="module")
def cohort():
    """Twelve patients in three folds of different prevalences."""
    full = make_cohort(n_patients=12, patches_per_patient=8)
    kept = np.random.default_rng(1).random(len(full)) < np.array([0.4, 0.7, 1.0])[fold_of(full)]
    return full.subset(np.flatnonzero(kept | (full.y == 0)))


def fold_of(cohort):
    return np.unique(cohort.patients, return_inverse=True)[1] % 3


@pytest.fixture(scope="module")
def cv(cohort):
    fold = fold_of(cohort)
    return [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in range(3)]


@pytest.fixture(scope="module")
def evaluation(cohort, cv):
    pipelines = {"nothing": pipeline(), "color": IDCPipeline("color", "logistic")}
    return evaluate(cohort, pipelines, cv, inner_cv=PatientKFold(2), n_resamples=60)


def test_the_headline_and_every_fold(evaluation):
    score = evaluation.models[0].scores["roc_auc"]
    assert score.value == 0.5
    assert score.folds == (0.5, 0.5, 0.5)
    assert score.pooled < 0.45
    assert np.isnan([*score.ci95, *score.method_ci95]).all()  # nothing varies
    assert evaluation.classes[0].values["roc_auc"].tolist() == [0.5, 0.5]


def test_the_notes_name_the_folds_and_the_other_number(evaluation):
    nothing, knowing = evaluation.models
    assert "No model was learnt in folds 1, 2, 3: every tested patch has the same score." in nothing.notes
    pooled = nothing.scores["roc_auc"].pooled
    words = f"ROC-AUC within folds is 0.500, in one list over all folds {pooled:.3f}: the scores of different fits are"
    assert any(note.startswith(words) for note in nothing.notes)
    assert not any("No model was learnt" in note for note in knowing.notes)


def test_tables_figures_and_files(evaluation):
    payload = metrics_payload(evaluation)
    first = headline_table(payload)
    assert first.rows[0][first.columns.index("ROC-AUC")] == "0.500"
    assert average_table(payload, ["roc_auc"]).rows[0][2] == "0.500"
    folds = folds_table(payload)
    assert folds.rows[0][2:5] == ("0.500",) * 3
    assert folds.rows[0][folds.columns.index("All folds")] == "0.500"
    assert forest_data(payload)["rows"][0]["value"] == 0.5
    assert comparison_data(payload)["rows"][1]["scores"]["roc_auc"]["value"] == 0.5
    row = next(row for row in score_rows(payload) if (row["name"], row["metric"]) == ("nothing", "roc_auc"))
    assert row["value"] == 0.5
    head = evaluation.models[0].head
    (curve,) = ranking_data("roc", evaluation, payload, head)["panels"][0]["curves"]
    assert curve["roc_auc"] == 0.5
    assert np.trapezoid(curve["tpr"], curve["fpr"]) == pytest.approx(0.5)


def test_the_comparison(evaluation):
    (row,) = compare_models(evaluation, reference=f"nothing/{evaluation.models[0].head}").rows
    assert row.second_value == 0.5
    assert row.difference == row.first_value - 0.5 > 0


def test_the_learning_curve(cohort, cv):
    features = np.random.default_rng(0).random((len(cohort), 2))
    settings = {"n_patients": (6,), "n_draws": 2, "n_resamples": 20}
    curve = learning_curve(features, cohort.y, cohort.patients, DummyClassifier(), cv, **settings)
    assert (curve.loc[curve["sampling"] != "patches - patients", "value"] == 0.5).all()
    assert (curve.loc[curve["sampling"] == "patches - patients", "value"] == 0.0).all()
    assert (curve["spread"].dropna() == 0).all()


def test_shortcuts_that_say_nothing(tmp_path):
    """Patches of the same pixels in another order have one mean colour."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (256, 3), dtype=np.uint8)
    y, patients = rng.integers(0, 2, 80), np.repeat(np.arange(10), 8)
    y[:24] = np.arange(24) % 8 < 2
    paths = [str(tmp_path / f"{row}.png") for row in range(80)]
    for path in paths:
        cv2.imwrite(path, rng.permutation(pixels).reshape(16, 16, 3))
    frame = pd.DataFrame({"path": paths, "label": y, "patient": patients.astype(str)}).assign(x=pd.NA, y=pd.NA)
    dataset = PatchDataset(frame, ("no", "yes"), "same pixels")
    splits = list(PatientKFold(3).split(paths, y, dataset.patients))
    prior = np.empty((80, 2))
    for train, test in splits:
        prior[test] = 1 - y[train].mean(), y[train].mean()
    given = {"reference_scores": {"prior": prior}, "families_to_identify": (), "n_resamples": 20}
    panel = shortcut_panel(dataset, splits, **given)
    assert panel.reference.roc_auc == 0.5
    assert {row.name: row.roc_auc for row in panel.rows}["mean_color"] == 0.5


def test_importances_ablation_perturbations_and_leakage(cohort, cv):
    both = pipeline(("color", "lbp"))
    importance = permutation_importance(cohort, both, cv, n_repeats=2, n_resamples=20)
    assert importance.roc_auc == 0.5
    assert (importance.parts["drop"] == 0).all()
    ablation = ablate_families(cohort, both, cv, n_resamples=20).table
    assert (ablation["roc_auc"] == 0.5).all()
    assert (ablation["p"].dropna() == 1).all()
    robust = measure_robustness(
        cohort, {"nothing": pipeline()}, cv, conditions=[("turn", 1)], metrics=("roc_auc",), n_resamples=20
    )
    assert (robust.table["value"] == 0.5).all()
    leakage = measure_leakage(cohort, {"nothing": pipeline()}, n_splits=2, n_resamples=20)
    row = next(row for row in leakage.rows if row.metric == "roc_auc")
    assert (row.honest, row.leaked, row.difference) == (0.5, 0.5, 0.0)
