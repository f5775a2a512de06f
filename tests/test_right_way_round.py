"""Three flaws of published systems, each with a test that fails where it is made.

Sensitivity and specificity exchanged; ROC-AUC of hard labels, which is the balanced accuracy; and a validation set that
also reports.
"""

import zlib
from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import auc, balanced_accuracy_score, roc_auc_score

from histofeat import IDCPipeline, PatientKFold, evaluate
from histofeat.evaluation import Search, train_model
from histofeat.exceptions import DatasetError
from histofeat.images import as_images, image_input_tags
from histofeat.metrics import ComparisonPlan, bootstrap_scores, class_scores, compare_models, scores
from histofeat.models import load_model, save_model
from histofeat.reporting import headline_table, jsonable, metrics_payload, ranking_data
from histofeat.studies import measure_leakage, measure_robustness

#: Sixteen negatives of which six are called positive, four positives of which three are found.
Y = np.repeat([0, 0, 1, 1], [10, 6, 1, 3])
PREDICTED = np.repeat([0, 1, 0, 1], [10, 6, 1, 3])
SENSITIVITY, SPECIFICITY = 3 / 4, 10 / 16


def as_proba(positive):
    positive = np.asarray(positive, dtype=float)
    return np.stack([1 - positive, positive], axis=1)


# --- sensitivity and specificity -------------------------------------------------------------------------------------


def test_sensitivity_is_the_share_of_the_positive_class_that_is_found():
    found = scores(Y, as_proba(PREDICTED))
    assert found["sensitivity"] == SENSITIVITY
    assert found["specificity"] == SPECIFICITY


def test_sensitivity_is_the_right_way_round_class_by_class():
    found = class_scores(Y, as_proba(PREDICTED), target_names=("benign", "malignant")).values
    assert found["sensitivity"].tolist() == [SPECIFICITY, SENSITIVITY]
    assert found["specificity"].tolist() == [SENSITIVITY, SPECIFICITY]


def test_intervals_are_the_right_way_round():
    """Every negative is called right and no positive is found: exact bounds of five patients."""
    y, patients = np.array([0, 0, 1, 1] * 5), np.arange(20) // 4
    resampled = bootstrap_scores(y, as_proba(np.zeros(20)), patients, n_resamples=20)
    assert resampled.interval("sensitivity") == (0.0, pytest.approx(1 - 0.025**0.2))
    assert resampled.interval("specificity") == (pytest.approx(0.025**0.2), 1.0)


@pytest.fixture(scope="module")
def evaluated(cohort):
    """A model that calls more patches positive than there are, so that nothing is symmetrical."""
    pipeline = IDCPipeline(features="color", head="logistic", class_weight={0: 1.0, 1: 200.0})
    return evaluate(cohort, {"color": pipeline}, PatientKFold(3), inner_cv=PatientKFold(2), n_resamples=20)


def test_the_report_has_them_the_right_way_round(evaluated):
    (model,) = evaluated.models
    y = evaluated.dataset.y
    positive = model.predicted == 1
    sensitivity, specificity = np.mean(positive[y == 1]), np.mean(~positive[y == 0])
    assert abs(sensitivity - specificity) > 0.05, "the two must differ, or an exchange would not show"
    assert model.confusion.tolist() == [
        [np.sum(~positive & (y == 0)), np.sum(positive & (y == 0))],
        [np.sum(~positive & (y == 1)), np.sum(positive & (y == 1))],
    ]
    assert model.scores["sensitivity"].pooled == pytest.approx(sensitivity)
    assert model.scores["specificity"].pooled == pytest.approx(specificity)
    table = headline_table(metrics_payload(evaluated))
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["Sens."], row["Spec."]) == (f"{sensitivity:.3f}", f"{specificity:.3f}")


# --- ROC-AUC from scores ---------------------------------------------------------------------------------------------


def shy():
    """Scores that rank well under labels that are cautious: labels alone would be worth 0.692."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 125)
    score = np.where(y == 1, 0.25, 0.1) + 0.1 * rng.random(250)
    score[125:173] += 0.5
    return y, score


def test_roc_auc_of_hard_labels_is_the_balanced_accuracy_and_is_not_what_we_report():
    y, score = shy()
    flawed = roc_auc_score(y, score > 0.5)
    assert flawed == pytest.approx(balanced_accuracy_score(y, score > 0.5)) == pytest.approx(0.692)
    found = scores(y, as_proba(score))
    assert found["balanced_accuracy"] == pytest.approx(0.692)
    assert found["roc_auc"] == pytest.approx(roc_auc_score(y, score))
    assert found["roc_auc"] > 0.95


def test_intervals_of_the_roc_auc_are_of_scores_too():
    y, score = shy()
    patients = np.arange(250) % 25
    found = bootstrap_scores(y, as_proba(score), patients, n_resamples=50)
    value = scores(y, as_proba(score))["roc_auc"]
    for limit, method in ((0.692, "t"), (0.95, "percentile")):
        low, high = found.interval("roc_auc", method=method)
        assert limit < low <= value <= high


def test_labels_at_a_threshold_do_not_move_the_roc_auc():
    y, score = shy()
    known = scores(y, as_proba(score))["roc_auc"]
    assert scores(y, as_proba(score), predicted=np.zeros(250, dtype=int))["roc_auc"] == known


def test_the_report_and_its_curve_are_of_scores(evaluated):
    (model,) = evaluated.models
    y = evaluated.dataset.y
    expected = roc_auc_score(y, model.proba[:, 1])
    assert abs(expected - balanced_accuracy_score(y, model.predicted)) > 0.01
    assert model.scores["roc_auc"].pooled == pytest.approx(expected)
    [panel] = ranking_data("roc", evaluated, metrics_payload(evaluated), "logistic")["panels"]
    [curve] = panel["curves"]
    assert len(curve["fpr"]) > 3, "a curve of hard labels has three points"
    assert auc(curve["fpr"], curve["tpr"]) == pytest.approx(expected, abs=0.01)


# --- a validation set that never reports -----------------------------------------------------------------------------


class ByHeart(ClassifierMixin, BaseEstimator):
    """Knows every image of its fit, held-out ones included, and guesses all others: a validation set would shine."""

    def fit(self, X, y, groups=None):
        held = np.isin(groups, sorted(set(groups))[:4])
        self.known_ = {X.name(row): float(label) for row, label in enumerate(y)}
        self.classes_ = np.unique(y)
        self.validation_rows_ = np.flatnonzero(held)
        self.validation_proba_ = as_proba(np.clip(np.asarray(y)[held], 0.01, 0.99))
        self.history_ = {"val_roc_auc": [1.0]}
        return self

    def predict_proba(self, X):
        images = as_images(X)
        names = [images.name(row) for row in range(len(images))]
        return as_proba([self.known_.get(name, zlib.crc32(name.encode()) / 2**32) for name in names])

    def __sklearn_tags__(self):
        return image_input_tags(super().__sklearn_tags__())


def one_fold(dataset, n_test=5):
    patients = np.unique(dataset.patients.astype(str))
    test = np.isin(dataset.patients.astype(str), patients[:n_test])
    return [(np.flatnonzero(~test), np.flatnonzero(test))]


def of_pixels(dataset, head):
    pipelines = {"pixels": IDCPipeline(features="pixels", head=head)}
    return evaluate(dataset, pipelines, one_fold(dataset), inner_cv=PatientKFold(2), n_resamples=20)


def test_patients_that_stop_the_training_never_report(cohort):
    found = of_pixels(cohort, ByHeart())
    (model,), [(train, test)] = found.models, found.splits
    assert model.histories[0]["val_roc_auc"] == [1.0]
    alone = ByHeart().fit(as_images(cohort.X[train]), cohort.y[train], groups=cohort.patients[train])
    guesses = alone.predict_proba(cohort.X[test])
    assert model.scores["roc_auc"].pooled == pytest.approx(roc_auc_score(cohort.y[test], guesses[:, 1]))
    assert model.scores["roc_auc"].pooled < 0.75, "it guesses; only its validation patients would say 1.0"
    held = train[alone.validation_rows_]
    assert (found.fold[held] == -1).all()
    assert np.isnan(model.proba[held]).all()
    assert (model.predicted[held] == -1).all()
    assert model.confusion.sum() == len(test)


def test_a_threshold_comes_from_the_validation_patients_and_not_from_the_tested_ones(cohort):
    """The labels of the tested patients turned round: nothing that was chosen may notice."""
    [(_, test)] = one_fold(cohort)
    label = cohort.y
    label[test] = 1 - label[test]
    turned = replace(cohort, frame=cohort.frame.assign(label=label), audit=None)
    (plain,), (other,) = (of_pixels(dataset, ByHeart()).models for dataset in (cohort, turned))
    assert plain.thresholds == other.thresholds
    np.testing.assert_array_equal(plain.proba, other.proba)
    np.testing.assert_array_equal(plain.calibrated, other.calibrated)
    np.testing.assert_array_equal(plain.predicted_tuned, other.predicted_tuned)
    assert plain.scores["roc_auc"].pooled == pytest.approx(1 - other.scores["roc_auc"].pooled)


def test_a_threshold_of_features_does_not_come_from_the_tested_patients_either(cohort):
    [(_, test)] = splits = one_fold(cohort)
    label = cohort.y
    label[test] = 1 - label[test]
    turned = replace(cohort, frame=cohort.frame.assign(label=label), audit=None)
    plain, other = (
        evaluate(data, IDCPipeline("color", "logistic"), splits, inner_cv=PatientKFold(2), n_resamples=0).models[0]
        for data in (cohort, turned)
    )
    assert plain.thresholds == other.thresholds
    np.testing.assert_array_equal(plain.calibrated, other.calibrated)


@pytest.mark.long
def test_a_network_holds_patients_out_of_its_training_and_reports_on_none_of_them(cohort):
    """Long: tests/networks/test_classifier.py asks the same of a smaller network, whose folds any classifier has."""
    pytest.importorskip("keras")
    from histofeat.networks import CNNClassifier

    network = CNNClassifier("cancernet", epochs=1, validation_fraction=0.4)
    [(train, test)] = one_fold(cohort)
    fitted = CNNClassifier(**network.get_params()).fit(cohort.X[train], cohort.y[train], groups=cohort.patients[train])
    held = train[fitted.validation_rows_]
    stopping, learning = set(cohort.patients[held]), set(cohort.patients[np.setdiff1d(train, held)])
    assert stopping
    assert not stopping & learning, "a patient is held out whole or not at all"
    assert not stopping & set(cohort.patients[test])
    np.testing.assert_allclose(fitted.validation_proba_, fitted.predict_proba(cohort.X[held]), atol=1e-5)
    found = of_pixels(cohort, network)
    (model,) = found.models
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(model.proba[:, 0])), test)
    assert model.scores["roc_auc"].pooled == pytest.approx(roc_auc_score(cohort.y[test], model.proba[test, 1]))
    assert "val_roc_auc" in model.histories[0]


# --- a positive class that sorts first -------------------------------------------------------------------------------


def turned_round(dataset):
    """The same patches with the names "carcinoma" and "normal", of which the positive one has the code 0."""
    return replace(
        dataset, frame=dataset.frame.assign(label=1 - dataset.y), target_names=FIRST, positive=None, audit=None
    )


FIRST = ("carcinoma", "normal")


@pytest.fixture(scope="module")
def both(cohort):
    """One evaluation where the positive class has the code 1, and one where it has the code 0."""
    usual = replace(cohort, target_names=FIRST[::-1], positive=None, audit=None)
    pipelines = {"color": IDCPipeline("color", "knn"), "lbp": IDCPipeline("lbp", "qda")}
    plan = ComparisonPlan([("color/knn", "lbp/qda")], ("f1", "average_precision", "sensitivity_tuned"), margin=0.01)
    more = {"n_resamples": 20, "plan": plan, "search": Search({"knn": {"n_neighbors": [3, 9]}}, scoring="f1")}
    # The same folds for both, whatever they count.
    folds = list(PatientKFold(3).split(usual.X, usual.y, usual.patients))
    return [
        evaluate(each, pipelines, folds, inner_cv=PatientKFold(2), **more) for each in (usual, turned_round(cohort))
    ]


def numbers(value):
    """Every number in a record, in one list."""
    if isinstance(value, dict):
        return [number for name in sorted(value, key=str) for number in numbers(value[name])]
    if isinstance(value, list | tuple):
        return [number for item in value for number in numbers(item)]
    return [value] if isinstance(value, float | int) else []


def test_classes_keep_their_order_and_heads_their_codes(both):
    usual, turned = both
    assert (turned.labels, turned.dataset.positive) == (FIRST, "carcinoma")
    assert turned.dataset.y.tolist() == (1 - usual.dataset.y).tolist()
    for one, other in zip(usual.models, turned.models, strict=True):
        for name in ("proba", "calibrated"):
            np.testing.assert_allclose(getattr(other, name)[:, ::-1], getattr(one, name), atol=1e-12)
        for name in ("predicted", "predicted_tuned"):
            assert (1 - getattr(other, name)).tolist() == getattr(one, name).tolist()
        assert other.confusion_tuned[::-1, ::-1].tolist() == one.confusion_tuned.tolist()


def test_every_score_is_that_of_the_usual_order(both):
    usual, turned = both
    assert abs(usual.models[0].scores["sensitivity"].value - usual.models[0].scores["specificity"].value) > 0.02
    assert usual.models[0].choices == turned.models[0].choices, "the scorer of the search knows the positive class"
    for one, other in zip(usual.models, turned.models, strict=True):
        assert other.thresholds == pytest.approx(one.thresholds, abs=1e-12)
        for kind in ("scores", "tuned"):
            found = [
                numbers({name: score.to_dict() for name, score in getattr(each, kind).items()}) for each in (one, other)
            ]
            np.testing.assert_allclose(found[1], found[0], atol=1e-12)
    for name in ("calibration", "planned", "comparison"):
        found = [getattr(each, name) for each in both]
        plain = [numbers([item.to_dict() for item in (each if isinstance(each, tuple) else [each])]) for each in found]
        np.testing.assert_allclose(plain[1], plain[0], atol=1e-12, err_msg=name)
    patients = [each.by_patient().drop(columns=["model", "patient"]).to_numpy() for each in both]
    np.testing.assert_allclose(patients[1], patients[0], atol=1e-12)
    compared = [compare_models(each, ["precision", "f1_tuned"]).to_dict() for each in both]
    np.testing.assert_allclose(numbers(compared[1]), numbers(compared[0]), atol=1e-12)


def test_every_page_is_that_of_the_usual_order(both):
    usual, turned = both
    assert headline_table(metrics_payload(turned)).rows == headline_table(metrics_payload(usual)).rows
    payloads = [metrics_payload(each) for each in both]
    assert payloads[1]["dataset"]["positive"] == "carcinoma"
    assert payloads[1]["dataset"]["labels"] == ["normal", "carcinoma"]
    counts = [jsonable(payload["results"][0]["confusion_matrix"]) for payload in payloads]
    assert counts[1] == counts[0]
    for kind in ("roc", "pr"):
        panels = [
            ranking_data(kind, each, payload, "knn")["panels"] for each, payload in zip(both, payloads, strict=True)
        ]
        assert panels[1][0]["positive"] == "carcinoma"
        np.testing.assert_allclose(numbers(panels[1]), numbers(panels[0]), atol=1e-12)
    details = [jsonable(each.details) for each in both]
    np.testing.assert_allclose(numbers(details[1]), numbers(details[0]), atol=1e-12)


def test_studies_are_those_of_the_usual_order(cohort):
    pipelines, more = {"color": IDCPipeline("color", "knn")}, {"n_resamples": 20, "cv": PatientKFold(2)}
    found = []
    for dataset in (replace(cohort, target_names=FIRST[::-1], positive=None, audit=None), turned_round(cohort)):
        robust = measure_robustness(
            dataset, pipelines, conditions=[("blur", 1)], metrics=("f1", "average_precision"), **more
        )
        leak = measure_leakage(dataset, pipelines, n_splits=2, n_resamples=20)
        found.append([robust.table["value"].tolist(), [(row.metric, row.honest) for row in leak.rows]])
    assert found[0][1] == found[1][1]
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-12)


def test_two_classes_that_do_not_tell_are_refused_before_an_image_is_read(cohort):
    frame = cohort.frame.assign(path=[f"gone/{row}.png" for row in range(len(cohort))])
    unknown = replace(cohort, frame=frame, root=None, target_names=("left", "right"), positive=None, audit=None)
    with pytest.raises(
        DatasetError, match="positive: expected the name of the positive class, got none, and 'left' and"
    ):
        evaluate(unknown, IDCPipeline("color", "knn"))


def test_a_model_knows_it_too(cohort, tmp_path):
    model = train_model(turned_round(cohort), IDCPipeline("color", "knn"), folds=None)
    assert (model.class_names, model.positive) == (FIRST, "carcinoma")
    assert load_model(save_model(model, tmp_path / "a.histofeat")).positive == "carcinoma"
    assert replace(model, about={}).positive == "1", "of numbers the larger"
    assert replace(model, about={"class_names": ["left", "right"]}).positive is None
    with pytest.raises(ValueError, match=r"about\['positive'\]: expected the name of a class, or None, got 'ill'"):
        replace(model, about={"positive": "ill"})
