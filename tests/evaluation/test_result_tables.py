"""Tables of an evaluation against its arrays; two runs on the same folds become one, all others are refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from histofeat import IDCPipeline, evaluate
from histofeat.datasets import probability_columns
from histofeat.evaluation import AuditReport, Finding, NotRun
from histofeat.model_selection import PatientKFold

FOLDS = {"cv": PatientKFold(2), "inner_cv": PatientKFold(2), "n_resamples": 20}
COLOR = IDCPipeline("color", "logistic")


@pytest.fixture(scope="module")
def evaluation(cohort):
    return evaluate(cohort, [("color", COLOR), ("color", IDCPipeline("color", "knn"))], **FOLDS)


@pytest.fixture(scope="module")
def other(cohort):
    return evaluate(cohort, {"gray": IDCPipeline("gray", "logistic")}, **FOLDS)


def test_scores_have_a_row_a_model_and_both_ends_of_each_interval(evaluation):
    frame = evaluation.to_frame()
    assert frame["head"].tolist() == ["logistic", "knn"]
    assert not any(" " in name for name in frame)
    for model, row in zip(evaluation.models, frame.to_dict("records"), strict=True):
        assert row["roc_auc"] == model.scores["roc_auc"].value
        assert (row["f1_low"], row["f1_high"]) == model.scores["f1"].ci95
        assert row["sensitivity_tuned"] == model.tuned["sensitivity"].value
        assert row["fit_s"] == model.fit_s


def test_predictions_are_those_of_the_arrays(evaluation):
    frame, dataset = evaluation.predictions(), evaluation.dataset
    own = ["model", "path", "patient", "x", "y", "truth", "fold", "p_no_tumour", "p_tumour", "label", "threshold"]
    assert frame.columns.tolist() == own
    for number, model in enumerate(evaluation.models):
        rows = frame[frame["model"] == f"color/{model.head}"].reset_index(drop=True)
        assert rows.index.equals(dataset.frame.index)
        assert rows["path"].tolist() == dataset.X.tolist()
        assert (rows["truth"] == "tumour").tolist() == dataset.y.astype(bool).tolist()
        np.testing.assert_array_equal(rows[["p_no_tumour", "p_tumour"]], model.proba)
        np.testing.assert_array_equal(rows["fold"], evaluation.fold + 1)
        np.testing.assert_array_equal(rows["label"] == "tumour", rows["p_tumour"] >= rows["threshold"])
        score = accuracy_score(rows["truth"], rows["label"])
        assert score == evaluation.to_frame()["accuracy_tuned"][number]


def test_untested_patches_and_unknown_places_are_left_out(evaluation):
    dataset = replace(evaluation.dataset, frame=evaluation.dataset.frame.assign(x=pd.NA, y=pd.NA))
    fold = np.where(evaluation.fold == 0, -1, evaluation.fold)
    some = replace(evaluation, dataset=dataset, fold=fold, models=evaluation.models[:1])
    assert len(some.predictions()) == (fold >= 0).sum()
    assert not {"x", "y"} & set(some.predictions())


def test_columns_of_classes_have_no_blanks_and_are_all_different():
    assert probability_columns(["a b", "a_b", "c\udce9"]) == ["p_a_b", "p_a_b_1", r"p_c\udce9"]


def test_each_patient_is_scored_alone(evaluation):
    frame, dataset = evaluation.by_patient(), evaluation.dataset
    assert len(frame) == 2 * len(set(dataset.patients))
    model = evaluation.models[1]
    for row in frame[frame["model"] == "color/knn"].to_dict("records"):
        mine = dataset.patients == row["patient"]
        y, p = dataset.y[mine], model.proba[mine, 1]
        assert (row["patches"], row["prevalence"]) == (mine.sum(), y.mean())
        assert row["accuracy"] == np.mean(model.predicted[mine] == y)
        assert np.isnan(row["roc_auc"]) if len(set(y)) == 1 else row["roc_auc"] == pytest.approx(roc_auc_score(y, p))
        assert np.isnan(row["sensitivity"]) == (y.sum() == 0)


def test_top_losses_are_the_most_confident_mistakes(evaluation):
    frame, dataset = evaluation.top_losses(3), evaluation.dataset
    assert (frame["label"] != frame["truth"]).all()
    assert frame["loss"].is_monotonic_decreasing
    for model in evaluation.models:
        wrong = np.flatnonzero(model.predicted != dataset.y)
        its = frame[frame["model"] == f"color/{model.head}"]
        losses = [-np.log(max(model.proba[row, dataset.y[row]], np.finfo(float).eps)) for row in wrong]
        assert its["loss"].tolist() == pytest.approx(sorted(losses, reverse=True)[:3])
        assert set(its["path"]) <= set(dataset.X[wrong])
    with pytest.raises(ValueError, match=r"Evaluation\.top_losses\.n: expected a whole number"):
        evaluation.top_losses(0)


def test_an_evaluation_without_models_has_empty_tables(evaluation):
    none = replace(evaluation, models=())
    assert not any(len(frame) for frame in (none.predictions(), none.by_patient(), none.top_losses(), none.to_frame()))


def test_short_forms_are_escaped(evaluation):
    hostile = "<script>\udce9"
    model = replace(evaluation.models[0], name=hostile)
    bad = replace(evaluation, models=(model,), not_run=(NotRun("cnn", "svm", f"{'long ' * 40}{hostile}"),))
    page = bad._repr_html_()
    page.encode()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 2
    score = model.scores["roc_auc"]
    assert f"{score.value:.3f} [{score.ci95[0]:.3f}, {score.ci95[1]:.3f}]" in page
    assert repr(evaluation).splitlines()[0] == (
        "Evaluation('synthetic', synthetic: 180 patches of 15 patients in 2 folds; positive class: tumour)"
    )
    assert repr(bad).splitlines()[-1].split()[:2] == ["cnn/svm", "long"]
    assert max(map(len, repr(bad).splitlines())) < 100


def test_the_positive_class_may_be_the_first(evaluation):
    """Tables name the classes, so their numbers stay; the order of the classes is that of the data."""
    dataset = evaluation.dataset
    turned = replace(dataset, frame=dataset.frame.assign(label=1 - dataset.y), target_names=dataset.target_names[::-1])
    models = tuple(model.with_classes_turned() for model in evaluation.models)
    first = replace(evaluation, dataset=turned, models=models)
    pd.testing.assert_frame_equal(first.by_patient(), evaluation.by_patient())
    pd.testing.assert_frame_equal(first.predictions(), evaluation.predictions(), check_like=True)
    pd.testing.assert_frame_equal(first.top_losses(), evaluation.top_losses(), check_like=True)
    assert repr(first) == repr(evaluation)


# --- two runs as one -------------------------------------------------------------------------------------------------


def test_merged_runs_are_those_of_one_run(cohort, evaluation, other):
    first = replace(evaluation, models=evaluation.models[:1])
    merged = first.merge(replace(other, not_run=(NotRun("color", "logistic", "no"), NotRun("cnn", "svm", "no"))))
    whole = evaluate(cohort, {"color": COLOR, "gray": IDCPipeline("gray", "logistic")}, **FOLDS)
    assert [gone.name for gone in merged.not_run] == ["cnn"], "a model that ran elsewhere is not missing"
    pd.testing.assert_frame_equal(merged.predictions(), whole.predictions())
    assert merged.comparison == whole.comparison
    assert merged.computed == {"color": 180, "gray": 180, "fingerprint": 360}
    assert merged.seconds["fit"] == evaluation.seconds["fit"] + other.seconds["fit"]


def test_an_issue_of_either_run_is_in_the_audit(evaluation, other):
    issue = Finding("HF004", "t", "warning", "issue", "One.", offenders=("7",))
    found = replace(other, audit=AuditReport((issue,), ("HF004",)))
    for merged in (evaluation.merge(found), replace(found, models=()).merge(evaluation)):
        assert merged.audit.finding("HF004") == issue
        assert merged.audit.accepted == ("HF004",)
        assert len(merged.audit.findings) == len(evaluation.audit.findings)
    assert evaluation.merge(replace(other, audit=None)).audit == evaluation.audit


def test_runs_that_are_not_paired_are_not_merged(evaluation, other):
    frame = other.dataset.frame
    changed = replace(other.dataset, frame=frame.assign(label=1 - frame["label"]), audit=None)
    plan = {**evaluation.protocol, "plan": {"hash": "a"}}
    wrong = {
        "patches, labels and patients": replace(other, dataset=changed),
        "folds": replace(other, splits=other.splits[::-1]),
        "random_state": replace(other, protocol={**other.protocol, "random_state": 7}),
        "plan": replace(other, protocol={**plan, "plan": {"hash": "b"}}),
    }
    for what, run in wrong.items():
        with pytest.raises(ValueError, match=f"Evaluation.merge: expected the same {what}, got others"):
            replace(evaluation, protocol=plan).merge(run)
    with pytest.raises(ValueError, match=r"expected other names, got 'color/logistic' in both \(and 1 more\)"):
        evaluation.merge(evaluation)
    with pytest.raises(ValueError, match=r"Evaluation\.merge\.other: expected an Evaluation"):
        evaluation.merge("color")
