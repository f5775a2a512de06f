"""Heads: records by name, the SVM at both sizes, calibration on unseen patients, inner scores."""

from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax
from sklearn.base import clone
from sklearn.kernel_approximation import Nystroem
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.validation import has_fit_parameter

from histofeat import IDCPipeline, evaluate
from histofeat.model_selection import PatientHoldOuts, PatientKFold
from histofeat.models import HEADS, FeatureHead, _feature_head, fit_with_inner_scores, make_head
from histofeat.models._classifiers import GivenScores, KernelSVM, fit_calibrator


@pytest.fixture(scope="module")
def table():
    """600 rows of 20 patients: a ring, which no linear classifier separates, and noise columns."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 6)).astype(np.float32)
    y = ((X[:, 0] ** 2 + X[:, 1] ** 2 + rng.normal(0, 0.4, 600)) > 1.5).astype(int)
    return X, y, np.repeat(np.arange(20), 30)


def test_records_build_what_they_name():
    for name, record in HEADS.items():
        head = make_head(name, class_weight="balanced", random_state=3)
        assert (head.scale, head.calibrate) == (record.scale, record.calibrate)
        assert head.class_weight == "balanced"
        assert has_fit_parameter(head.classifier, "sample_weight") == (name not in ("knn", "qda"))


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("xgbost", None, "head: expected the name of a head, got 'xgbost'. Did you mean 'xgboost'"),
        ("xgboost", {"C": 1}, "head__C: expected a parameter of head 'xgboost'"),
        ("svm", {"c": 1}, "head__c: expected a parameter of head 'svm' .* Did you mean 'C'|Known names"),
    ],
)
def test_unknown_names_are_refused(name, params, message):
    with pytest.raises(ValueError, match=message):
        make_head(name, params=params)


def test_the_exact_svm_is_scikit_learns(table):
    X, y, _ = table
    ours, theirs = KernelSVM(C=2.0).fit(X, y), SVC(C=2.0).fit(X, y)
    np.testing.assert_array_equal(ours.decision_function(X), theirs.decision_function(X))
    assert ours.method_ == "exact"


def test_the_approximation_comes_close_to_the_exact_svm(table):
    X, y, _ = table
    exact = KernelSVM().fit(X[:400], y[:400])
    close = KernelSVM(exact_rows=100, n_components=300, random_state=0).fit(X[:400], y[:400])
    assert close.method_ == "nystroem"
    assert "300 landmarks" in close.note_
    aucs = [roc_auc_score(y[400:], model.decision_function(X[400:])) for model in (exact, close)]
    assert abs(aucs[0] - aucs[1]) < 0.02
    assert set(close.predict(X)) == {0, 1}


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_approximation_is_that_of_scikit_learn(table, n_classes, weighted):
    X, y, _ = table
    y = np.array(["a", "b", "c"])[y + (n_classes > 2) * (X[:, 2] > 1)]
    weights = np.random.default_rng(1).uniform(0, 3, len(y)) if weighted else None
    ours = KernelSVM(C=2.0, method="nystroem", n_components=60, random_state=0).fit(X, y, weights)
    landmarks = Nystroem(gamma=1 / (6 * X.var()), n_components=60, random_state=0)
    theirs = make_pipeline(landmarks, LinearSVC(C=2.0, dual=False, tol=1e-9)).fit(
        X, y, linearsvc__sample_weight=weights
    )
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), atol=1e-4)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    # What is saved is scikit-learn's pipeline, so that models that were saved with one score as before.
    np.testing.assert_allclose(ours.decision_function(X), ours.model_.decision_function(X), atol=5e-5)


def test_the_approximation_stands_rows_that_are_nearly_the_same(table):
    X, y, _ = table
    near = X[:, :1].round(1)  # fewer distinct rows than landmarks
    svm = KernelSVM(method="nystroem", n_components=200, random_state=0).fit(near, y)
    landmarks = Nystroem(gamma=1 / near.var(dtype=np.float64), n_components=200, random_state=0).fit(near)
    assert np.linalg.norm(landmarks.normalization_) > 1e4
    theirs = LinearSVC(dual=False, tol=1e-9).fit(landmarks.transform(near.astype(np.float64)), y)
    expected = theirs.decision_function(landmarks.transform(near.astype(np.float64)))
    np.testing.assert_allclose(svm.decision_function(near), expected, atol=0.03)


@pytest.mark.parametrize(
    ("params", "one_class", "message"),
    [
        ({"C": 0.0}, False, "KernelSVM.C: expected a number above 0, got 0"),
        ({}, True, "y: expected at least two classes, got"),
    ],
)
def test_the_approximation_refuses_what_cannot_be_fitted(table, params, one_class, message):
    X, y, _ = table
    with pytest.raises(ValueError, match=message):
        KernelSVM(method="nystroem", **params).fit(X, y * 0 if one_class else y)


def test_an_unknown_svm_method_is_refused(table):
    X, y, _ = table
    message = r"KernelSVM.method: expected one of auto, exact, nystroem, got 'nystrom'"
    with pytest.raises(ValueError, match=message):
        KernelSVM(method="nystrom").fit(X, y)


def test_inner_fits_use_the_solver_of_the_whole_fit(table):
    X, y, patients = table
    head = make_head("svm", params={"exact_rows": 500, "n_components": 50})
    fitted, _ = fit_with_inner_scores(head, X, y, patients, PatientKFold(3))
    assert fitted.classifier_.method_ == "nystroem"
    assert fitted._template(600).method == "nystroem"
    assert "50 landmarks" in fitted.notes_[0]


def test_inner_scores_come_from_fits_that_have_not_seen_the_patient():
    """Patients with a signature and random labels: a row scored by a fit on its own patient would look brilliant."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 20)
    X = np.eye(40, dtype=np.float32)[patients]
    y = rng.permutation(np.arange(40) % 2)[patients]
    fitted, inner = fit_with_inner_scores(make_head("logistic"), X, y, patients, PatientKFold(3))
    assert roc_auc_score(y, fitted.predict_proba(X)[:, 1]) > 0.99
    assert 0.3 < roc_auc_score(y, inner[:, 1]) < 0.7


@pytest.mark.parametrize("name", HEADS)
def test_inner_scores_are_probabilities_for_every_head(name, table):
    X, y, patients = table
    fitted, inner = fit_with_inner_scores(make_head(name), X, y, patients, PatientKFold(3))
    assert inner.shape == (600, 2)
    np.testing.assert_allclose(inner.sum(axis=1), 1, atol=1e-6)
    assert roc_auc_score(y, inner[:, 1]) < roc_auc_score(y, fitted.predict_proba(X)[:, 1]) + 0.02


def test_inner_fits_have_features_of_their_own_where_they_are_given(table):
    X, y, patients = table
    noise = np.random.default_rng(1).normal(size=(3, *X.shape))
    settings = make_head("svm"), X, y, patients, PatientKFold(3)
    (fitted, inner), (plain, _) = (fit_with_inner_scores(*settings, inner_X=given) for given in (noise, None))
    assert 0.4 < roc_auc_score(y, inner[:, 1]) < 0.6
    # The SVM is the same, and calibrated on inner fits that told nothing.
    np.testing.assert_array_equal(fitted.decision_function(X), plain.decision_function(X))
    assert np.ptp(fitted.predict_proba(X)[:, 1]) < 0.5 < np.ptp(plain.predict_proba(X)[:, 1])


def test_calibrated_probabilities_are_right_on_new_rows_and_unmoved_by_class_weights(table):
    X, y, patients = table
    for weight in (None, "balanced"):
        head = make_head("svm", class_weight=weight).fit(X[:450], y[:450], groups=patients[:450])
        assert abs(head.predict_proba(X[450:])[:, 1].mean() - y[450:].mean()) < 0.06


def test_fit_with_groups_equals_fit_with_inner_scores(table):
    X, y, patients = table
    direct = make_head("svm").fit(X, y, groups=patients)
    fitted, _ = fit_with_inner_scores(make_head("svm"), X, y, patients, PatientKFold(3))
    np.testing.assert_array_equal(direct.predict_proba(X), fitted.predict_proba(X))


def test_a_head_without_probabilities_is_calibrated_for_inner_scores(table):
    X, y, patients = table
    head = FeatureHead(SVC())
    fitted, inner = fit_with_inner_scores(head, X, y, patients, PatientKFold(3))
    assert fitted.calibrator_ is not None
    assert not head.calibrate
    assert inner.shape == (600, 2)


def test_one_class_is_refused(table):
    X, _, _ = table
    with pytest.raises(ValueError, match=r"at least two classes, got \[1\]"):
        make_head("logistic").fit(X, np.ones(600, dtype=int))


def test_class_weights_need_a_classifier_that_takes_them(table):
    from sklearn.neighbors import KNeighborsClassifier

    X, y, _ = table
    head = FeatureHead(KNeighborsClassifier(), class_weight="balanced")
    with pytest.raises(ValueError, match="expected a classifier whose fit takes sample_weight, got KNeighbors"):
        head.fit(X, y)
    with pytest.raises(ValueError, match="expected a classifier whose fit takes sample_weight, got KNeighbors"):
        fit_with_inner_scores(head, X, y, np.arange(600), PatientKFold(3))


@pytest.mark.parametrize(("name", "kind"), [("knn", "KNeighborsClassifier"), ("qda", "QuadraticDiscriminant")])
def test_heads_without_weights_refuse_class_weights(name, kind, table):
    X, y, _ = table
    with pytest.raises(ValueError, match=f"class_weight: expected a classifier .* got {kind}. Set class_weight=None"):
        make_head(name, class_weight="balanced").fit(X, y)


@pytest.mark.parametrize("name", ["logistic", "svm", "random_forest", "vote"])
def test_a_weight_of_two_is_the_row_given_twice(name, table):
    X, y, _ = table
    X, y, twice = X[:60], y[:60], np.repeat(np.arange(60), 1 + np.arange(60) % 2)
    params = {
        "random_forest": {"bootstrap": False, "n_estimators": 5, "max_depth": 3, "max_features": None},
        "svm": {"gamma": 0.1},  # "scale" is the variance of rows without weights
        "vote": {"xgboost__n_estimators": 3, "xgboost__subsample": 1.0},
    }.get(name)
    weighted = make_head(name, params=params).fit(X, y, sample_weight=1 + np.arange(60) % 2)
    doubled = make_head(name, params=params).fit(X[twice], y[twice])
    if name == "vote":  # the folds of its calibration are of other rows
        weighted, doubled = (head.classifier_.members_[0] for head in (weighted, doubled))
    np.testing.assert_allclose(weighted.decision_function(X), doubled.decision_function(X), rtol=1e-3, atol=1e-3)


def test_weights_multiply_those_of_classes_and_reach_the_calibration(table):
    X, y, patients = table
    weights = np.where(y == 1, 3.0, 1.0)
    by_row = make_head("logistic").fit(X, y, sample_weight=weights).classifier_
    scaler = make_head("logistic", class_weight={1: 3.0}).fit(X, y).scaler_
    both = make_head("logistic", class_weight={1: 3.0}).fit(X, y, sample_weight=np.ones(600))
    np.testing.assert_allclose(
        both.classifier_.coef_, make_head("logistic", class_weight={1: 3.0}).fit(X, y).classifier_.coef_
    )
    assert not np.allclose(by_row.coef_, make_head("logistic").fit(X, y).classifier_.coef_)
    assert not np.allclose(scaler.mean_, make_head("logistic").fit(X, y, sample_weight=weights).scaler_.mean_)
    plain, heavy = (make_head("svm").fit(X, y, patients, given).predict_proba(X) for given in (None, weights))
    assert heavy[:, 1].mean() > plain[:, 1].mean() + 0.05


@pytest.mark.parametrize(("name", "kind"), [("knn", "KNeighborsClassifier"), ("qda", "QuadraticDiscriminant")])
def test_heads_without_weights_refuse_weights_of_rows(name, kind, table):
    X, y, _ = table
    with pytest.raises(ValueError, match=f"sample_weight: expected a classifier .* got {kind}. Set sample_weight=None"):
        make_head(name).fit(X, y, sample_weight=np.ones(600))


def test_rounds_of_boosting_stop_on_patients_that_were_held_out(table):
    X, y, patients = table
    params = {"early_stopping_rounds": 5, "n_estimators": 200, "learning_rate": 0.3}
    head = make_head("xgboost", params=params).fit(X, y, groups=patients)
    rounds = head.classifier_.n_estimators
    assert head.classifier_.get_booster().num_boosted_rounds() == rounds < 200
    assert head.notes_ == (f"{rounds} of at most 200 rounds of boosting, chosen on 4 patients of the training side.",)
    train, held = next(PatientHoldOuts(1, 0.2).split(X, y, patients))
    trial = make_head("xgboost", params=params).classifier
    trial.fit(X[train], y[train], eval_set=[(X[held], y[held])], verbose=False)
    assert trial.best_iteration + 1 == rounds
    plain = make_head("xgboost", params=params | {"early_stopping_rounds": None, "n_estimators": rounds}).fit(X, y)
    np.testing.assert_array_equal(plain.predict_proba(X), head.predict_proba(X))
    weights = np.where(X[:, 2] > 0, 1.0, 1e-3)
    held_out = {"eval_set": [(X[held], y[held])], "sample_weight_eval_set": [weights[held]]}
    trial.fit(X[train], y[train], sample_weight=weights[train], verbose=False, **held_out)
    heavy = make_head("xgboost", params=params).fit(X, y, patients, sample_weight=weights)
    assert heavy.classifier_.n_estimators == trial.best_iteration + 1
    vote = make_head("vote", params={f"xgboost__{name}": value for name, value in params.items()})
    assert "rounds of boosting, chosen on 4 patients" in vote.fit(X, y, groups=patients).notes_[0]
    with pytest.raises(ValueError, match="groups: expected the patient of each row, since early_stopping_rounds stops"):
        make_head("xgboost", params=params).fit(X, y)


def test_importances_have_the_names_of_the_features(table):
    X, y, _ = table
    frame = pd.DataFrame(X, columns=list("abcdef"))
    forest = make_head("random_forest", params={"n_estimators": 20}).fit(frame, y)
    assert forest.feature_names_in_.tolist() == list("abcdef")
    assert set(forest.importances().index[:2]) == {"a", "b"}
    line = make_head("logistic").fit(X, y)
    assert line.importances().index[0] == np.abs(line.classifier_.coef_[0]).argmax()
    with pytest.raises(AttributeError, match=r"FeatureHead\.importances: expected a classifier with .*, got KernelSVM"):
        make_head("svm").fit(X, y).importances()
    with pytest.raises(ValueError, match="feature names should match"):
        forest.predict(frame.rename(columns={"a": "z"}))


def test_without_patients_a_calibration_is_by_rows_and_says_so(table):
    X, y, _ = table
    head = make_head("svm").fit(X, y)
    assert head.predict_proba(X).shape == (600, 2)
    assert head.notes_[-1].startswith("Calibrated on rows, since patients were not known")
    for nothing in ([], None):
        with pytest.raises(ValueError, match=r"minimum of 1 is required|requires y to be passed"):
            make_head("svm").fit(X[:0] if nothing == [] else X, nothing)
    few = make_head("svm").fit(X[:5], [0, 0, 0, 1, 1])
    with pytest.raises(AttributeError, match="has no attribute 'predict_proba'") as caught:
        few.predict_proba(X)
    assert "Give fit(X, y, groups=patients)" in str(caught.value.__cause__)


def test_knn_takes_the_labels_of_the_nearest_standardised_rows(table):
    X, y, _ = table
    X = X * np.array([1, 1, 1000, 1, 1, 1], dtype=np.float32)  # a unit that would drown the others
    scaled = (X - X[:500].mean(axis=0)) / X[:500].std(axis=0)
    distances = ((scaled[500:, None] - scaled[None, :500]) ** 2).sum(axis=2)
    order = y[:500][distances.argsort(axis=1)]
    for k in (1, 15):
        head = make_head("knn", params={"n_neighbors": k}).fit(X[:500], y[:500])
        np.testing.assert_allclose(head.predict_proba(X[500:])[:, 1], order[:, :k].mean(axis=1))
    assert make_head("knn").classifier.n_neighbors == 15


def test_knn_needs_as_many_rows_as_neighbours(table):
    X, y, _ = table
    with pytest.raises(ValueError, match="n_neighbors = 15, n_samples_fit = 10"):
        make_head("knn").fit(X[:10], y[:10]).predict(X[:10])


def test_qda_finds_a_ring_and_says_how(table):
    X, y, patients = table
    head = make_head("qda").fit(X[:450], y[:450], groups=patients[:450])
    assert roc_auc_score(y[450:], head.predict_proba(X[450:])[:, 1]) > 0.8
    assert head.notes_ == (
        "Quadratic discriminant analysis on 6 whitened principal components of 6 features, 0.5 of the common "
        "covariance in that of each class.",
    )


def test_heads_clone(table):
    X, y, _ = table
    head = make_head("xgboost", params={"n_estimators": 5})
    np.testing.assert_array_equal(head.fit(X, y).predict(X), clone(head).fit(X, y).predict(X))


# --- boosted trees: where they run, and from what they learn ---------------------------------------------------------


def test_device_reaches_xgboost_without_a_gpu_at_hand():
    """Only the fit needs the GPU; until then the setting has to arrive, and to survive clone and set_params."""
    built = make_head("xgboost", params={"device": "cuda"})
    pipeline = IDCPipeline("color").set_params(head__device="cuda")
    copy = clone(pipeline).set_params(head__max_depth=3)
    for head in (built, clone(built), pipeline.make_head(), copy.make_head()):
        assert head.classifier.get_params()["device"] == "cuda"
        assert head.classifier.get_xgb_params()["device"] == "cuda"
        assert head.classifier.tree_method == "hist"
    assert copy.get_params()["head__device"] == "cuda"
    assert make_head("xgboost").classifier.device is None


def xgboost_scores(X, y, train, rows, learn_from=None):
    """Fit a head with four bins a column on `train`, or on `learn_from` there, and score `rows`."""
    head = make_head("xgboost", params={"max_bin": 4, "n_estimators": 20, "colsample_bytree": 1.0})
    learnt = X if learn_from is None else learn_from
    return head.fit(learnt[train], y[train]).predict_proba(X[rows])[:, 1]


def test_an_evaluation_bins_by_the_training_rows_of_a_fold(cohort, tmp_path):
    """Half of the tested patches become black and white noise; the scores of the other half stay to the bit."""
    (train, test), *_ = PatientKFold(3).split(cohort.X, cohort.y, cohort.patients)
    frame, rng = cohort.frame.copy(), np.random.default_rng(0)
    for row in test[1::2]:
        noise = rng.choice([0, 255], (50, 50, 3)).astype(np.uint8)
        frame.loc[row, "path"] = str(tmp_path / f"{row}.png")
        cv2.imwrite(frame.loc[row, "path"], noise)
    pipeline = IDCPipeline("color", head_params={"max_bin": 4, "n_estimators": 20})
    found = [
        evaluate(dataset, pipeline, [(train, test)], n_resamples=0).models[0].proba
        for dataset in (cohort, replace(cohort, frame=frame, root=None))
    ]
    np.testing.assert_array_equal(found[0][test[::2]], found[1][test[::2]])
    assert np.abs(found[0][test[1::2]] - found[1][test[1::2]]).max() > 0.05


def snapped(X, rows):
    """`X` with every value moved to the lower edge of its bin, of eight bins with equal shares of `rows`."""
    snapped = np.empty_like(X)
    for column in range(X.shape[1]):
        edges = np.unique(np.quantile(X[rows, column], np.linspace(0, 1, 9)[:-1]))
        snapped[:, column] = edges[np.clip(np.searchsorted(edges, X[:, column], side="right") - 1, 0, None)]
    return snapped


def test_bins_come_from_the_training_rows_of_each_fold(table):
    """Rows of the test side take extreme values: nothing may change for the others. Where bins leak, it does."""
    X, y, patients = table
    for train, test in PatientKFold(3).split(X, y, patients):
        rows, extreme = test[::2], X.copy()
        extreme[test[1::2]] *= np.float32(1e3)
        found = [xgboost_scores(values, y, train, rows) for values in (X, extreme)]
        np.testing.assert_array_equal(*found)
        # The same with bins of both sides, as one quantised matrix for all folds would have them.
        everyone = np.arange(len(X))
        leaking = [xgboost_scores(X, y, train, rows, snapped(values, everyone)) for values in (X, extreme)]
        assert np.abs(leaking[0] - leaking[1]).max() > 0.05


# --- probabilities of many classes -----------------------------------------------------------------------------------


def best_temperature(values, y):
    """Sharpness of the least log loss, by brute force: the witness of scikit-learn's."""

    def loss(log_sharpness):
        sharp = np.exp(log_sharpness) * values
        return np.mean(logsumexp(sharp, axis=1) - sharp[np.arange(len(y)), y])

    return float(np.exp(minimize_scalar(loss, bounds=np.log([1e-3, 1e3]), method="bounded").x))


@pytest.mark.parametrize("classes", [3, 5, 8])
def test_many_classes_are_calibrated_by_the_temperature_of_the_least_loss(classes):
    rng = np.random.default_rng(classes)
    values = rng.normal(size=(400, classes))
    y = np.array([rng.choice(classes, p=row) for row in softmax(3 * values, axis=1)])
    found = fit_calibrator(values, y).predict_proba(values)
    sharpness = best_temperature(values, y)
    assert sharpness == pytest.approx(3, rel=0.2)
    np.testing.assert_allclose(found, softmax(sharpness * values, axis=1), atol=1e-5)
    np.testing.assert_array_equal(found.argmax(axis=1), values.argmax(axis=1))


def test_scores_that_are_given_are_a_classifier_too():
    given = GivenScores().fit([[1.0, 0.0], [0.0, 1.0]], ["a", "b"])
    assert given.predict([[0.2, 0.1]]).tolist() == ["a"]


def test_a_calibrated_head_keeps_the_order_of_many_classes():
    """Eight classes, few patients: the most probable class stays that of the largest distance."""
    rng = np.random.default_rng(0)
    y, patients = np.repeat(np.arange(8), 9), np.tile(np.repeat(np.arange(3), 3), 8) + 3 * np.repeat(np.arange(8), 9)
    X = (rng.normal(size=(72, 40)) + 0.9 * rng.normal(size=(8, 40))[y]).astype(np.float32)
    head = make_head("svm").fit(X, y, groups=patients)
    X_new = (rng.normal(size=(72, 40)) + X).astype(np.float32)
    np.testing.assert_array_equal(head.predict(X_new), head.decision_function(X_new).argmax(axis=1))


def test_features_are_standardised_in_blocks_of_rows(table, monkeypatch):
    X, y, patients = table
    weights = np.random.default_rng(2).uniform(0.5, 2, len(y))
    whole = make_head("logistic").fit(X, y, patients, weights).scaler_
    monkeypatch.setattr(_feature_head, "_ROWS_AT_ONCE", 100)
    blocks = make_head("logistic").fit(X, y, patients, weights).scaler_
    np.testing.assert_allclose(blocks.mean_, whole.mean_, rtol=1e-6)
    np.testing.assert_allclose(blocks.scale_, whole.scale_, rtol=1e-6)
