"""Classifiers of scikit-learn on columns and on patches, arrays for data sets, and data sets of columns in all else."""

import re
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import make_column_transformer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC

from histofeat import IDCPipeline, Runtime, evaluate, load_embeddings, write_report
from histofeat.evaluation import audit_split, load_evaluation, save_evaluation
from histofeat.features import ColorHistogram
from histofeat.images import read_patch
from histofeat.model_selection import PatientKFold
from histofeat.models import make_head
from histofeat.studies import (
    learning_curve,
    measure_leakage,
    measure_robustness,
    permutation_importance,
    shortcut_panel,
)

FOLDS = {"cv": PatientKFold(2), "inner_cv": PatientKFold(2), "n_resamples": 20}


@pytest.fixture(scope="module")
def cohort(cohort):
    """Twelve patients with 12 patches each."""
    return cohort.subset(range(144))


@pytest.fixture(scope="module")
def embeddings(cohort):
    """The mean colours of the cohort as columns, without an image behind them."""
    colours = np.array([read_patch(path).mean(axis=(0, 1)) for path in cohort.X], dtype=np.float32)
    columns = pd.DataFrame(colours, columns=["red", "green", "blue"])
    frame = cohort.frame.assign(path=[f"row {row}" for row in range(len(cohort))]).drop(columns=["height", "width"])
    return replace(cohort, frame=frame, columns=columns, name="colours", root=None, audit=None)


def read_means(paths):
    return np.array([read_patch(path).mean(axis=(0, 1)) for path in paths])


@pytest.fixture(scope="module")
def on_columns(embeddings):
    by_name = make_column_transformer((StandardScaler(), ["red", "blue"]))
    classifiers = [LinearDiscriminantAnalysis(), make_pipeline(StandardScaler(), LinearSVC())]
    named = [("two", make_pipeline(by_name, LogisticRegression())), ("svm", make_head("svm"))]
    pipelines = [*classifiers, *named, ("color", IDCPipeline("color", "logistic"))]
    pipelines += [("families", IDCPipeline(embeddings, "logistic"))]
    with pytest.warns(
        UserWarning, match=r"not run: color, logistic: Not applicable: color needs pixels, and colours has"
    ):
        return evaluate(embeddings, pipelines, **FOLDS)


def test_classifiers_on_columns(on_columns, embeddings):
    names = [(model.name, model.head, model.features, model.n_features) for model in on_columns.models]
    assert names == [
        ("LinearDiscriminantAnalysis", "LinearDiscriminantAnalysis", ("rows",), 3),
        ("LinearSVC", "LinearSVC", ("rows",), 3),
        ("two", "LogisticRegression", ("rows",), 3),
        ("svm", "KernelSVM", ("rows",), 3),
        ("families", "logistic", ("colours",), 3),
    ]
    lda = LinearDiscriminantAnalysis()
    for train, test in on_columns.splits:
        lda.fit(embeddings.columns.iloc[train], embeddings.y[train])
        np.testing.assert_allclose(on_columns.models[0].proba[test], lda.predict_proba(embeddings.columns.iloc[test]))


def test_decision_values_keep_their_ranks(on_columns, embeddings):
    svc, model = make_pipeline(StandardScaler(), LinearSVC()), on_columns.models[1]
    for train, test in on_columns.splits:
        values = svc.fit(embeddings.columns.iloc[train], embeddings.y[train]).decision_function(
            embeddings.columns.iloc[test]
        )
        assert np.argsort(values).tolist() == np.argsort(model.proba[test, 1]).tolist()


def test_what_needs_pixels_is_not_applicable(on_columns, embeddings, tmp_path):
    statuses = {finding.code: finding.status for finding in on_columns.audit.findings}
    assert [code for code, status in statuses.items() if status == "not applicable"] == [
        "HF002",
        "HF003",
        "HF005",
        "HF011",
    ]
    assert (
        audit_split(embeddings, on_columns.splits).finding("HF002").detail
        == "The data set has columns instead of images."
    )
    silent = on_columns.audit.finding("HF007")
    assert (silent.status, silent.severity, silent.offenders) == ("issue", "warning", ("families: colours",))
    alone = evaluate(embeddings, LinearDiscriminantAnalysis(), **FOLDS).audit.finding("HF007")
    assert alone.offenders == ("what made the columns of 'colours'",)
    kept = load_evaluation(save_evaluation(on_columns, tmp_path / "a.evaluation"))
    assert kept.models[0].scores["roc_auc"].ci95 == on_columns.models[0].scores["roc_auc"].ci95
    assert kept.dataset.columns is None


@pytest.mark.long
def test_the_report_says_what_needs_pixels(on_columns, tmp_path):
    fewer = replace(on_columns, models=on_columns.models[:1])
    page = write_report(fewer, tmp_path / "report", gallery=2).with_name("report.md").read_text()
    assert "Not applicable: color needs pixels" in page
    assert "what needs pixels, such as near-copies and galleries, is not applicable" in page
    assert not (tmp_path / "report" / "galleries").exists()


def test_studies_that_need_pixels(on_columns, embeddings):
    for study, given in ((measure_robustness, {"a": IDCPipeline("color")}), (shortcut_panel, on_columns.splits)):
        with pytest.raises(ValueError, match=rf"{study.__name__}: expected images, got 'colours', which has columns"):
            study(embeddings, given)


def test_studies_that_need_no_pixels(embeddings, cohort):
    with pytest.raises(
        ValueError, match=r"got given columns, which no perturbation changes, under 'mine'\. Name families"
    ):
        measure_robustness(cohort, {"mine": IDCPipeline(["color", embeddings])}, PatientKFold(2))
    rows = measure_leakage(embeddings, LinearDiscriminantAnalysis(), n_splits=2, n_resamples=0).rows
    assert rows[0].name == "LinearDiscriminantAnalysis"
    known = embeddings.columns, embeddings.y, embeddings.patients, LinearDiscriminantAnalysis()
    curve = learning_curve(*known, PatientKFold(2), n_patients=(4,), n_draws=1, n_resamples=0)
    assert curve["n_patches"].iloc[0] == 48
    more = {"cv": FOLDS["cv"], "n_repeats": 1, "n_resamples": 0}
    found = permutation_importance(embeddings, IDCPipeline(embeddings, "logistic"), **more)
    assert len(found.parts) == 1
    assert found.n_patches == 144
    with pytest.raises(ValueError, match=r"pipeline 'explained': expected images, got 'colours', which has columns"):
        permutation_importance(embeddings, IDCPipeline("color", "logistic"), **more)


def test_probabilities_of_columns_are_assessed(on_columns):
    assert on_columns.calibration[1].change["brier"][0] != 0
    assert all(0 < threshold < 1 for model in on_columns.models for threshold in model.thresholds)


def test_classifiers_on_patches(cohort, embeddings, on_columns):
    on_paths = make_pipeline(FunctionTransformer(read_means), LinearDiscriminantAnalysis())
    found = evaluate(cohort, [on_paths, ("color", IDCPipeline(ColorHistogram(bins=4), "logistic"))], **FOLDS)
    assert [model.features for model in found.models] == [("rows",), ("color",)]
    assert found.models[0].n_features == 0
    np.testing.assert_allclose(found.models[0].proba, on_columns.models[0].proba, rtol=1e-4, atol=1e-6)
    assert found.audit.finding("HF002").status == "passed"


def test_arrays(cohort, embeddings, on_columns):
    lda = LinearDiscriminantAnalysis()
    for X in (embeddings.columns, embeddings.columns.to_numpy()):
        found = evaluate((X, cohort.y, cohort.patients), lda, **FOLDS)
        np.testing.assert_array_equal(found.models[0].proba, on_columns.models[0].proba)
    assert found.labels == ("0", "1")


@pytest.mark.long
def test_arrays_of_images(cohort, on_columns):
    images = [read_patch(path) for path in cohort.X]
    labels = np.array(["benign", "tumour"])[cohort.y]
    color = IDCPipeline(ColorHistogram(bins=4), "logistic")
    stack = np.array([np.tile(image.mean(axis=(0, 1)).round(), (8, 8, 1)) for image in images], dtype=np.uint8)
    for X in (images, cohort.frame):
        found = evaluate((X, labels, cohort.patients), color, **FOLDS)
        assert found.labels == ("benign", "tumour")
        assert found.audit.finding("HF002").status == "passed"
    means = make_pipeline(FunctionTransformer(lambda X: X.mean(axis=(1, 2))), LinearDiscriminantAnalysis())
    found = evaluate((stack, labels, cohort.patients), means, **FOLDS)
    np.testing.assert_allclose(found.models[0].proba, on_columns.models[0].proba, atol=0.15)


def test_arrays_that_are_refused(embeddings):
    X, y, patients = embeddings.columns.to_numpy(), embeddings.y, embeddings.patients
    with pytest.raises(
        ValueError, match=r"\(X, y, groups\): expected one label and patient a row, got \[144, 144, 0\]"
    ):
        evaluate((X, y), LogisticRegression())
    with pytest.raises(ValueError, match=r"expected finite numbers in all columns, got '0' in row 0 \(and 143 more\)"):
        evaluate((X * np.nan, y, patients), LogisticRegression())
    with pytest.raises(ValueError, match=r"y: expected a label for each row, got none in row 0 \(and 143 more\)"):
        evaluate((X, y * np.nan, patients), LogisticRegression())


def test_patients_go_where_they_are_asked_for(embeddings):
    asked = []

    class Asking(GaussianNB):
        def fit(self, X, y, groups=None):
            asked.append(groups)
            return super().fit(X, y)

    search = GridSearchCV(LogisticRegression(), {"C": [0.1]}, cv=PatientKFold(2))
    evaluate(embeddings, [Asking(), ("piped", make_pipeline(StandardScaler(), Asking())), search], **FOLDS)
    assert len(asked) == 12
    assert all(set(groups) <= set(embeddings.patients) for groups in asked)


@pytest.mark.long
def test_patients_are_routed(embeddings):
    asked = []

    class Asking(GaussianNB):
        def fit(self, X, y, groups=None):
            asked.append(groups)
            return super().fit(X, y)

    with config_context(enable_metadata_routing=True):
        routed = make_pipeline(StandardScaler(), Asking().set_fit_request(groups=True))
        evaluate(embeddings, routed, **FOLDS)
    assert len(asked) == 6
    assert all(set(groups) <= set(embeddings.patients) for groups in asked)


def test_fits_are_taken_up(embeddings, tmp_path):
    runtime = Runtime(fits=tmp_path / "fits")
    first = evaluate(embeddings, LinearDiscriminantAnalysis(), **FOLDS, runtime=runtime)
    kept = sorted(file.stat().st_mtime_ns for file in (tmp_path / "fits").iterdir())
    again = evaluate(embeddings, LinearDiscriminantAnalysis(), **FOLDS, runtime=runtime)
    assert sorted(file.stat().st_mtime_ns for file in (tmp_path / "fits").iterdir()) == kept
    assert len(kept) == 2
    np.testing.assert_array_equal(first.models[0].proba, again.models[0].proba)
    other = replace(embeddings, columns=embeddings.columns * [1, 0, 1])
    changed = evaluate(other, LinearDiscriminantAnalysis(), **FOLDS, runtime=runtime)
    assert (changed.models[0].proba != first.models[0].proba).any()


class _Own(ClassifierMixin, BaseEstimator):
    """A classifier of the user's, which does what `rows` makes of its probabilities."""

    def __init__(self, rows):
        self.rows = rows

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def predict_proba(self, X):
        return self.rows(np.full((len(X), 2), 0.5))


class _NoScores(_Own):
    def __getattribute__(self, name):
        if name in ("predict_proba", "decision_function"):
            raise AttributeError(name)
        return super().__getattribute__(name)


class _Values(_NoScores):
    def __getattribute__(self, name):
        return self._scores if name == "decision_function" else super().__getattribute__(name)

    def _scores(self, X):
        return np.full(len(X), np.inf)


def _raises(error):
    def rows(proba):
        raise error

    return rows


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        (_Own(_raises(RuntimeError("boom\nsecond line"))), "RuntimeError: boom"),
        (_Own(_raises(ValueError("of its own"))), "ValueError: of its own"),
        (_Own(_raises(SystemExit(0))), "SystemExit: 0"),
        (_Own(lambda proba: proba[1:]), "36 rows of 2 probabilities from 0 to 1, got shape (35, 2), from 0.5 to 0.5"),
        (_Own(lambda proba: proba * np.nan), "36 rows of 2 probabilities from 0 to 1, got shape (36, 2), from nan"),
        (_Own(lambda proba: proba * 100), "got shape (36, 2), from 50 to 50. Correct it."),
        (_Own(lambda proba: proba[:, :1]), "got shape (36, 1)"),
        (_NoScores(None), "TypeError: expected predict_proba or decision_function, got a classifier with neither."),
        (_Values(None), "rows of finite decision values, got shape"),
    ],
)
def test_a_classifier_that_fails_does_not_end_the_rest(embeddings, own, reason):
    pipelines = {"own": own, "lda": LinearDiscriminantAnalysis()}
    with pytest.warns(UserWarning, match=rf"not run: own, {type(own).__name__}: .*{re.escape(reason)}"):
        evaluation = evaluate(embeddings, pipelines, **FOLDS)
    assert [model.name for model in evaluation.models] == ["lda"]
    assert reason in evaluation.not_run[0].reason
    assert evaluation.not_run[0].reason.endswith(" (its X is an array of paths of images, of embeddings a DataFrame)")


@pytest.mark.parametrize(
    ("pipeline", "reason"),
    [
        (IDCPipeline("color", make_pipeline(StandardScaler(), _Own(_raises(KeyError("boom"))))), "KeyError: 'boom'"),
        (IDCPipeline("color", _Own(_raises(SystemExit(0)))), "SystemExit: 0"),
        (IDCPipeline(["color", FunctionTransformer(_raises(RuntimeError("boom")))], "logistic"), "RuntimeError: boom"),
    ],
)
def test_a_part_of_the_user_s_that_fails_does_not_end_the_rest(cohort, pipeline, reason):
    with pytest.warns(UserWarning, match=f"not run: own, .*: {re.escape(reason)}"):
        evaluation = evaluate(cohort, {"own": pipeline, "ours": IDCPipeline("color", "logistic")}, **FOLDS)
    assert [model.name for model in evaluation.models] == ["ours"]
    assert evaluation.not_run[0].reason == reason


def test_alone_a_classifier_that_fails_is_an_error_and_ours_stays_one(embeddings, monkeypatch):
    own = _Own(_raises(RuntimeError("boom")))
    with pytest.raises(ValueError, match=r"expected one that can run here, got none. _Own, _Own: RuntimeError: boom"):
        evaluate(embeddings, own, **FOLDS)
    monkeypatch.setattr(LogisticRegression, "fit", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate(embeddings, IDCPipeline(embeddings, "logistic"), **FOLDS)
    own.rows = _raises(SystemExit(128 + signal.SIGTERM))  # the run is ended, not the classifier
    with pytest.raises(SystemExit):
        evaluate(embeddings, own, **FOLDS)


def test_what_is_no_classifier_is_refused(embeddings):
    for wrong in (StandardScaler(), [("mine", StandardScaler())], LogisticRegression):
        with pytest.raises(
            ValueError, match=r"evaluate.pipelines: expected names with an IDCPipeline or a classifier each"
        ):
            evaluate(embeddings, wrong, **FOLDS)


@pytest.mark.long
def test_everything_in_one_report(cohort, embeddings, tmp_path):
    """A pipeline of scikit-learn on images, a file of embeddings and one of predictions beside measured features."""
    named = pd.Series(cohort.X).str.replace(r"^.*/", "", regex=True)
    embeddings.columns.assign(image=named).sample(frac=1, random_state=0).to_parquet(tmp_path / "mine.parquet")
    pd.DataFrame({"path": named, "score": cohort.y * 0.5 + 0.2}).to_csv(tmp_path / "network.csv", index=False)
    rows = load_embeddings(tmp_path / "mine.parquet", labels=cohort)
    pipelines = {
        "measured": IDCPipeline(ColorHistogram(bins=4), "logistic"),
        "both": IDCPipeline((ColorHistogram(bins=4), rows), "logistic"),
        "piped": make_pipeline(FunctionTransformer(read_means), StandardScaler(), LinearDiscriminantAnalysis()),
    }
    found = evaluate(cohort, pipelines, **FOLDS).merge(evaluate(rows, {"alone": LinearDiscriminantAnalysis()}, **FOLDS))
    found = found.add_predictions("network", tmp_path / "network.csv")
    pairs = {row.first for row in found.comparison.rows} | {found.comparison.reference}
    assert pairs == {"measured/logistic", "both/logistic", "piped/LinearDiscriminantAnalysis", "network/predictions",
                     "alone/LinearDiscriminantAnalysis"}  # fmt: skip
    assert found.comparison.reference == "network/predictions"
    assert [model.features for model in found.models[1:3]] == [("color", "mine"), ("rows",)]
    assert "function read_means>" in found.models[2].families[0]
    page = write_report(found, tmp_path / "report").with_name("report.md").read_text()
    assert "| network | predictions | – | **1.000** |" in page
    assert "Its predictions were given: nothing was fitted" in page


def test_a_lambda_is_a_family_of_its_own(cohort):
    """It has no lasting form, so that nothing of it is kept; with a store the run goes on as without."""
    pipeline = IDCPipeline([FunctionTransformer(lambda images: images.mean(axis=(1, 2)))], "logistic")
    evaluation = evaluate(cohort, pipeline, **FOLDS)
    assert evaluation.models[0].n_features == 3
