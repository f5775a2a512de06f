"""`IDCPipeline`: names, nested parameters, scikit-learn's search, probabilities, and what it refuses."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

from histofeat import ColorHistogram, GroupLeakageError, IDCPipeline, LBPHistogram, PatchError, PatientKFold
from histofeat.features import GrayHistogram
from histofeat.images import MacenkoNormalizer, ReinhardNormalizer
from histofeat.models import HEADS, FeatureHead

FAST = {"head__n_estimators": 20}


@pytest.fixture(scope="module")
def fitted(cohort):
    pipe = IDCPipeline(("color", "lbp")).set_params(**FAST)
    return pipe.fit(cohort.X, cohort.y, groups=cohort.patients)


# ---- names and parameters --------------------------------------------------------------------------------------


def test_names_stay_names_until_fit():
    pipe = IDCPipeline(("color", "haralick"), "svm")
    assert vars(pipe)["features"] == ("color", "haralick")
    assert vars(pipe)["head"] == "svm"


def test_nested_parameters_reach_named_parts_and_survive_clone_and_pickle():
    pipe = IDCPipeline(("color", "lbp")).set_params(head__max_depth=3, features__lbp__radii_px=(1, 2))
    for twin in (pipe, clone(pipe), pickle.loads(pickle.dumps(pipe))):
        assert twin.make_head().classifier.max_depth == 3
        assert twin.families()[1].radii_px == (1, 2)
        params = twin.get_params()
        assert params["head__max_depth"] == 3
        assert params["features__lbp__radii_px"] == (1, 2)


def test_every_default_of_every_part_is_listed():
    params = IDCPipeline(("color", "lbp"), "svm").get_params()
    assert params["head__C"] == 1.0
    assert {"features__color__bins", "features__lbp__radii_px"} <= set(params)


def test_a_new_head_forgets_the_parameters_of_the_old_one():
    pipe = IDCPipeline().set_params(head__max_depth=3).set_params(head="svm", head__C=10.0)
    assert pipe.make_head().classifier.C == 10.0
    assert pipe.set_params(head="svm").head_params == {"C": 10.0}
    assert pipe.set_params(head="logistic").head_params is None


def test_new_features_keep_the_parameters_of_those_that_stay():
    pipe = IDCPipeline(("color", "lbp")).set_params(features__lbp__radii_px=(1,), features__color__bins=8)
    assert pipe.set_params(features=("color",)).feature_params == {"color__bins": 8}
    assert pipe.set_params(features=("haralick",)).feature_params is None


def test_parts_can_be_estimators_with_parameters_of_their_own():
    pipe = IDCPipeline([LBPHistogram(radii_px=(1,)), "color"], KNeighborsClassifier())
    pipe.set_params(head__n_neighbors=3, features__lbp__radii_px=(2,), features__color__bins=4)
    assert pipe.get_params()["head__n_neighbors"] == 3
    assert clone(pipe).families()[0].radii_px == (2,)
    assert clone(pipe).families()[1].bins == 4


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"head__C": 1.0}, r"head__C: expected a parameter of head 'xgboost' \(XGBClassifier\), got 'C'"),
        ({"head__max_dept": 1}, "Did you mean 'max_depth'"),
        ({"features__lbp__radius": 1}, "features__lbp__radius: expected a parameter of LBPHistogram"),
        ({"features__lpb__radii_px": (1,)}, "expected a family of this pipeline, got 'lpb'. Did you mean 'lbp'"),
        ({"heads": "svm"}, "IDCPipeline.heads: expected a parameter, got 'heads'. Did you mean 'head'"),
        ({"hed__C": 1}, "Did you mean 'head'"),
        ({"normaliser__unit": "patch"}, "Did you mean 'normalizer'"),
        ({"normalizer__unit": "patch"}, "normalizer__unit: expected a pipeline with a normaliser, got normalizer=None"),
        ({"normalizer": "macenko", "normalizer__gain": 1}, "normalizer__gain: expected a parameter of Macenko"),
    ],
)
def test_unknown_parameters_are_errors_and_change_nothing(params, message):
    pipe = IDCPipeline().set_params(head__max_depth=4)
    before = pipe.get_params()
    with pytest.raises(ValueError, match=message):
        pipe.set_params(class_weight="balanced", **params)
    assert str(pipe.get_params()) == str(before)


@pytest.mark.parametrize(
    ("pipe", "message"),
    [
        (IDCPipeline("colour"), "got 'colour'. Did you mean 'color'"),
        (IDCPipeline(()), "at least one feature family"),
        (IDCPipeline([3]), "expected names of feature families or estimators of histofeat.features, got 3"),
        (IDCPipeline(("color", "color")), "columns of their own, got 'color_"),
        (IDCPipeline(head="xgbost"), "got 'xgbost'. Did you mean 'xgboost'"),
        (IDCPipeline(head=3), "expected a name or a scikit-learn classifier, got 3"),
        (
            IDCPipeline(head=DummyClassifier(), head_params={"C": 1}),
            r"head_params: expected None with head=DummyClassifier\(\), got \['C'\]",
        ),
        (IDCPipeline(head_params={"C": 1}), "head__C: expected a parameter of head 'xgboost'"),
        (IDCPipeline("color", feature_params={"lbp__radii_px": (1,)}), r"expected parameters of the named families"),
        (IDCPipeline(head=KNeighborsClassifier(), class_weight="balanced"), "whose fit takes sample_weight"),
        (IDCPipeline(normalizer="makenko"), "got 'makenko'. Did you mean 'macenko'"),
        (IDCPipeline(normalizer=3), r"IDCPipeline\.normalizer: expected None, a name or an estimator .* got 3"),
        (IDCPipeline(normalizer="reinhard", normalizer_params={"units": 1}), "normalizer__units: .* mean 'unit'"),
        (IDCPipeline(normalizer_params={"unit": "patch"}), r"expected None with normalizer=None, got \['unit'\]"),
        (
            IDCPipeline(normalizer=MacenkoNormalizer(), normalizer_params={"unit": "patch"}),
            r"expected None with normalizer=MacenkoNormalizer\(\)",
        ),
        (IDCPipeline(normalizer=ReinhardNormalizer("slide")), r"ReinhardNormalizer\.unit: .* got 'slide'"),
    ],
)
def test_unknown_parts_are_refused_by_fit(pipe, message, patches):
    with pytest.raises(ValueError, match=message):
        pipe.fit(patches, [0, 1] * 6)


# ---- fit and predict -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_every_head_fits_predicts_and_pickles(head, cohort):
    pipe = IDCPipeline("color", head).fit(cohort.X, cohort.y, groups=cohort.patients)
    proba = pipe.predict_proba(cohort.X)
    assert proba.shape == (len(cohort), 2)
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(pipe.predict(cohort.X), pipe.classes_[proba.argmax(axis=1)])
    order = np.argsort(pipe.decision_function(cohort.X), kind="stable")
    assert (np.diff(proba[order, 1]) >= -1e-6).all()
    with pytest.warns(UserWarning, match=r"IDCPipeline\.score: expected patients that fit has not seen, got 15 that"):
        assert pipe.score(cohort.X, cohort.y) > 0.7
    again = pickle.loads(pickle.dumps(pipe))
    np.testing.assert_array_equal(again.predict_proba(cohort.X), proba)


def test_the_same_seed_gives_the_same_pipeline(cohort, fitted):
    twin = clone(fitted).fit(cohort.X, cohort.y)
    np.testing.assert_array_equal(twin.predict_proba(cohort.X), fitted.predict_proba(cohort.X))


def test_labels_may_be_strings_and_many(cohort):
    names = np.array(["none", "some", "much"])[(cohort.y + (np.arange(len(cohort)) % 2) * cohort.y)]
    for head in ("xgboost", "svm"):
        pipe = IDCPipeline("color", head).fit(cohort.X, names, groups=cohort.patients)
        assert pipe.classes_.tolist() == ["much", "none", "some"]
        assert pipe.predict_proba(cohort.X).shape == (len(cohort), 3)
        assert pipe.decision_function(cohort.X).shape == (len(cohort), 3)
        assert set(pipe.predict(cohort.X)) <= set(names)


def test_class_weights_move_probabilities_towards_the_rare_class(cohort):
    rare = cohort.y == 0
    plain = IDCPipeline("color", "logistic").fit(cohort.X, cohort.y)
    heavy = IDCPipeline("color", "logistic", class_weight={0: 20, 1: 1}).fit(cohort.X, cohort.y)
    assert heavy.predict_proba(cohort.X)[rare, 0].mean() > plain.predict_proba(cohort.X)[rare, 0].mean()


def test_an_svm_without_groups_is_calibrated_on_the_patients_that_names_tell_or_on_rows_which_it_says(cohort, patches):
    told = IDCPipeline("color", "svm").fit(cohort.X, cohort.y)
    given = IDCPipeline("color", "svm").fit(cohort.X, cohort.y, groups=cohort.patients)
    np.testing.assert_array_equal(told.predict_proba(cohort.X), given.predict_proba(cohort.X))
    assert told.head_.notes_ == given.head_.notes_ == ("exact RBF kernel on 180 rows",)
    by_rows = IDCPipeline("color", "svm").fit(patches, [0, 1] * 6)
    assert by_rows.predict_proba(patches).shape == (12, 2)
    assert by_rows.head_.notes_[1].startswith("Calibrated on rows, since patients were not known")
    few = cohort.X[cohort.patients == cohort.patients[0]]
    one = IDCPipeline("color", "svm").fit(few, np.arange(len(few)) % 2)
    assert one.head_.notes_[1].startswith("Calibrated on rows")
    given = IDCPipeline("color", SVC()).make_head().set_params(calibrate=False)
    plain = IDCPipeline("color", given).fit(patches, [0, 1] * 6)
    assert set(plain.predict(patches)) <= {0, 1}
    with pytest.raises(AttributeError, match="has no attribute 'predict_proba'") as caught:
        plain.predict_proba(patches)
    assert "Give fit(X, y, groups=patients)" in str(caught.value.__cause__.__cause__ or caught.value.__cause__)


def test_the_patients_of_a_fit_are_remembered_from_groups_a_column_or_names(cohort, patches):
    X, y = cohort.X[:24], cohort.y[:24]
    known = tuple(sorted(set(cohort.patients[:24])))
    pipe = IDCPipeline("color", "logistic")
    assert clone(pipe).fit(X, y).patients_ == known
    assert clone(pipe).fit(patches, [0, 1] * 6).patients_ is None
    assert clone(pipe).fit(patches, [0, 1] * 6, groups=[1.0, "2 "] * 6).patients_ == ("1", "2")
    frame = pd.DataFrame({"path": X, "patient": ["a", None] * 12})
    fitted = clone(pipe).fit(frame, y)
    assert fitted.patients_ == ("a",)
    with pytest.warns(UserWarning, match="got 1 that it has, such as 'a'. The score is too good. Split by patient"):
        fitted.score(frame, y)
    assert fitted.score(frame.assign(patient="b"), y) == fitted.score(X, y, groups=["b"] * 24)
    weights = np.arange(24)
    assert fitted.score(X, y, sample_weight=weights) == np.average(fitted.predict(X) == y, weights=weights)


def test_plain_folds_of_patients_that_both_sides_have_warn(cohort):
    pipe = IDCPipeline("color", "logistic")
    with pytest.warns(UserWarning, match=r"such as '9000\d\d'"):
        cross_val_score(pipe, cohort.X, cohort.y, cv=KFold(2, shuffle=True, random_state=0))
    assert len(cross_val_score(pipe, cohort.X, cohort.y, cv=PatientKFold(2), groups=cohort.patients)) == 2


def test_a_head_without_probabilities_is_calibrated_when_groups_are_given(cohort):
    pipe = IDCPipeline("color", SVC()).fit(cohort.X, cohort.y, groups=cohort.patients)
    assert pipe.predict_proba(cohort.X).shape == (len(cohort), 2)


def test_features_by_name_before_and_after_fit(cohort, fitted):
    pandas = clone(fitted).set_output(transform="pandas")
    frame = pandas.transform(pd.DataFrame({"path": cohort.X[:3]}, index=["a", "b", "c"]))
    assert list(frame.index) == ["a", "b", "c"]
    assert list(pandas.transform(list(cohort.X[:3])).index) == [0, 1, 2]
    assert list(frame.columns) == list(fitted.get_feature_names_out()) == list(fitted.head_.feature_names_in_)
    assert (frame.dtypes == np.float32).all()
    np.testing.assert_array_equal(fitted.transform(cohort.X[:3]), frame.to_numpy())
    polars = pytest.importorskip("polars")
    table = clone(fitted).set_output(transform="polars").transform(polars.DataFrame({"path": cohort.X[:3]}))
    assert table.columns == list(frame.columns)


def test_html_and_text_show_what_was_set():
    pipe = IDCPipeline(("color",), "svm")
    assert repr(pipe) == "IDCPipeline(features=('color',), head='svm')"
    assert "svm" in pipe._repr_html_()


@pytest.mark.parametrize(
    ("y", "groups", "message"),
    [
        ([0, 1] * 5, None, r"y: expected one label per image \(12\), got 10"),
        ([0] * 12, None, r"at least two classes, got \[0\]"),
        ([0, 1] * 5 + [0, None], None, "got 1 missing, first at row 11"),
        ([0, 1] * 6, ["a"] * 5, r"groups: expected one patient per image \(12\), got 5"),
        ([0, 1] * 6, "folder", r"groups: expected one patient per image \(12\), got 'folder'"),
        (None, None, r"y: expected one label per image \(12\), got array\(None"),
        ([[0, 1]] * 12, None, r"y: expected one label per image \(12\), got shape \(12, 2\)"),
    ],
)
def test_labels_and_groups_are_checked(patches, y, groups, message):
    with pytest.raises(ValueError, match=message):
        IDCPipeline("color").fit(patches, np.array(y), groups=groups)


def test_one_patient_cannot_calibrate(patches):
    with pytest.raises(ValueError, match="patient"):
        IDCPipeline("color", "svm").fit(patches, [0, 1] * 6, groups=["p"] * 12)


def test_a_broken_image_is_named(tmp_path, cohort):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    with pytest.raises(PatchError, match=r"bad\.png: expected an image file"):
        IDCPipeline("color").fit([*cohort.X, str(bad)], [*cohort.y, 0])


# ---- stain normalisers -----------------------------------------------------------------------------------------


def test_a_normaliser_has_nested_parameters_by_name_and_as_estimator():
    pipe = IDCPipeline("color", normalizer="macenko", n_jobs=2).set_params(normalizer__unit="patient")
    for twin in (pipe, clone(pipe), pickle.loads(pickle.dumps(pipe))):
        assert twin.get_params()["normalizer__unit"] == "patient"
        assert twin.make_normalizer().get_params() == MacenkoNormalizer("patient", n_jobs=2).get_params()
    assert pipe.set_params(normalizer="macenko").normalizer_params == {"unit": "patient"}
    assert pipe.set_params(normalizer="reinhard").normalizer_params is None
    given = IDCPipeline("color", normalizer=ReinhardNormalizer()).set_params(normalizer__max_gain=1.5)
    assert clone(given).make_normalizer().max_gain == 1.5
    assert given.make_normalizer() is not given.normalizer
    assert IDCPipeline("color").make_normalizer() is None
    assert not any(name.startswith("normalizer__") for name in IDCPipeline("color").get_params())
    assert pipe.set_params(normalizer=None).make_normalizer() is None


@pytest.mark.parametrize("unit", ["patch", "patient"])
def test_patches_are_normalised_before_every_family(cohort, unit, tmp_path):
    train, test = next(PatientKFold(3).split(cohort.X, cohort.y, cohort.patients))
    X, y, patients = cohort.X, cohort.y, cohort.patients
    pipe = IDCPipeline(("color", "lbp"), "logistic", normalizer="reinhard", normalizer_params={"unit": unit})
    pipe.set_params(store=tmp_path / "features.sqlite").fit(X[train], y[train], groups=patients[train])
    alone = ReinhardNormalizer(unit).fit(X[train], groups=patients[train])
    np.testing.assert_array_equal(pipe.normalizer_.reference_, alone.reference_)
    plain = IDCPipeline(("color", "lbp"), "logistic")
    plain.fit(alone.transform(X[train], groups=patients[train]), y[train])
    seen = alone.transform(X[test], groups=patients[test])
    groups = patients[test] if unit == "patient" else None
    np.testing.assert_array_equal(pipe.predict_proba(X[test], groups=groups), plain.predict_proba(seen))
    np.testing.assert_array_equal(pipe.predict(X[test], groups=groups), plain.predict(seen))
    np.testing.assert_array_equal(pipe.decision_function(X[test], groups), plain.decision_function(seen))
    np.testing.assert_array_equal(pipe.transform(X[test], groups), plain.transform(seen))
    # The store knows features by the normalised pixels: those of the patches as they are come out as ever.
    without = clone(plain).set_params(store=tmp_path / "features.sqlite")
    np.testing.assert_array_equal(without.transform(X), plain.transform(X))
    again = pickle.loads(pickle.dumps(pipe))
    np.testing.assert_array_equal(again.predict_proba(X[test], groups), pipe.predict_proba(X[test], groups))


def test_a_normaliser_by_patient_needs_patients_in_every_call(cohort):
    pipe = IDCPipeline("color", "logistic", normalizer=MacenkoNormalizer("patient"))
    with pytest.raises(GroupLeakageError, match=r"MacenkoNormalizer\.groups: expected the patient of each patch"):
        pipe.fit(cohort.X, cohort.y)
    pipe.fit(cohort.X, cohort.y, groups=cohort.patients)
    with pytest.raises(GroupLeakageError, match="with unit='patient', got None"):
        pipe.predict(cohort.X)


def test_features_behind_a_normaliser_need_a_fit(cohort):
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        IDCPipeline("color", normalizer="macenko").transform(cohort.X)


def test_normalisers_can_be_searched_over(cohort):
    grid = [{"normalizer": [None, "reinhard"]}, {"normalizer": ["macenko"], "normalizer__max_gain": [1.5, 2.0]}]
    found = GridSearchCV(IDCPipeline("color", "logistic"), grid, cv=PatientKFold(2), error_score="raise").fit(
        cohort.X, cohort.y, groups=cohort.patients
    )
    assert len(found.cv_results_["params"]) == 4
    assert len(set(found.cv_results_["mean_test_score"])) > 1


# ---- scikit-learn's tools --------------------------------------------------------------------------------------


def search(cohort, n_jobs=None):
    grid = [
        {"features": [("color",), ("color", "haralick")], "head": ["xgboost"], "head__max_depth": [3, 6]},
        {"head": ["svm"], "head__C": [0.1, 1.0]},
    ]
    pipe = IDCPipeline(ColorHistogram(), "xgboost")
    return GridSearchCV(pipe, grid, cv=PatientKFold(3), scoring="roc_auc", n_jobs=n_jobs, error_score="raise").fit(
        cohort.X, cohort.y, groups=cohort.patients
    )


def test_grid_search_over_names_and_nested_parameters(cohort):
    found = search(cohort)
    assert len(found.cv_results_["params"]) == 6
    assert found.best_score_ > 0.6
    assert found.predict(cohort.X).shape == (len(cohort),)


@pytest.mark.long
@pytest.mark.slow
def test_grid_search_in_two_processes_gives_the_same(cohort):
    one, two = search(cohort), search(cohort, n_jobs=2)
    np.testing.assert_allclose(one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"])


@pytest.mark.parametrize("routed", [False, True])
def test_a_search_over_heads_ends_with_probabilities_whether_groups_reach_the_fit_or_not(routed, patches):
    """The example of README on arrays, which tell no patients: `GridSearchCV` gives groups to the splitter alone."""
    y, groups = np.array([0, 1] * 18), np.repeat(np.arange(9), 4)
    X = np.concatenate([patches] * 3) - (15 * y[:, None, None, None]).astype(np.uint8)
    grid = [{"head": ["svm"]}, {"head": ["logistic"]}]
    with sklearn.config_context(enable_metadata_routing=routed):
        pipe = IDCPipeline(GrayHistogram())
        found = GridSearchCV(pipe, grid, cv=PatientKFold(3), scoring="neg_log_loss", error_score="raise")
        found.fit(X, y, groups=groups)
        alone = clone(found).set_params(param_grid={"head": ["svm"]}).fit(X, y, groups=groups)
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()
    assert alone.predict_proba(X).shape == (36, 2)
    assert (
        alone.best_estimator_.head_.notes_[1:] == () if routed else "on rows" in alone.best_estimator_.head_.notes_[1]
    )


def test_patients_are_requested_by_default_under_metadata_routing(patches):
    y, groups = np.array([0, 1] * 18), np.repeat(np.arange(12), 3)
    X = np.concatenate([patches] * 3)
    with sklearn.config_context(enable_metadata_routing=True):
        pipe = IDCPipeline(GrayHistogram(), "svm")
        search = GridSearchCV(pipe, {"head__C": [1.0]}, cv=PatientKFold(3), error_score="raise")
        for estimator in (pipe, search, pipe.make_head()):
            data = X.mean(axis=(1, 2)) if isinstance(estimator, FeatureHead) else X
            scored = {"cv": PatientKFold(2), "params": {"groups": groups}, "error_score": "raise"}
            fits = cross_validate(estimator, data, y, return_estimator=True, **scored)["estimator"]
            for fit in fits:
                fit = getattr(fit, "best_estimator_", fit)
                assert len(getattr(fit, "head_", fit).notes_) == 1, "calibrated on patients"
        normalized = make_pipeline(ReinhardNormalizer("patient"), pipe)
        assert normalized.fit(X, y, groups=groups)[-1].patients_ == tuple(sorted(map(str, range(12))))
        with pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="sample_weight"):
            cross_validate(pipe, X, y, cv=PatientKFold(2), params={"groups": groups, "sample_weight": np.ones(36)})
        pipe.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        cross_validate(pipe, X, y, cv=PatientKFold(2), params={"groups": groups, "sample_weight": np.ones(36)})


def test_the_checks_of_skore_take_a_column_of_paths(cohort):
    skore = pytest.importorskip("skore")
    train, test = next(PatientKFold(3).split(cohort.X, cohort.y, cohort.patients))
    column = cohort.X[:, np.newaxis]
    sides = {"X_train": column[train], "X_test": column[test], "y_train": cohort.y[train], "y_test": cohort.y[test]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of skore, and that it scores the training patients
        report = skore.EstimatorReport(IDCPipeline("color", "logistic"), pos_label=1, **sides)
        report.checks.summarize()
        assert {"accuracy", "roc_auc", "brier_score"} <= set(report.metrics.summarize().frame().index)
        assert report.inspection.permutation_importance(seed=0).frame().shape[0] == 1


def test_cross_val_score_takes_patients(cohort):
    scores = cross_val_score(
        IDCPipeline("color", LogisticRegression(max_iter=5000)),
        cohort.X,
        cohort.y,
        groups=cohort.patients,
        cv=PatientKFold(3),
        params=None,
        scoring="roc_auc",
    )
    assert scores.shape == (3,)


@pytest.mark.long
def test_the_search_of_the_readme_runs_on_real_patches(real_data):
    from histofeat import load_idc

    idc = load_idc(real_data / "idc")
    few = idc.subset(np.flatnonzero(np.isin(idc.patients, np.unique(idc.patients)[:30])))
    found = GridSearchCV(
        IDCPipeline(),
        [
            {"features": [("color",), ("color", "haralick")], "head": ["xgboost"], "head__max_depth": [3, 6]},
            {"head": ["svm"], "head__C": [0.1, 1.0]},
        ],
        cv=PatientKFold(5),
        scoring="roc_auc",
        error_score="raise",
    ).fit(few.X, few.y, groups=few.patients)
    assert found.best_score_ > 0.8
