"""`IDCPipeline(features="pixels")`: a head that measures the patches by itself, in a pipeline and in an evaluation."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression

from histofeat import IDCPipeline, PatientKFold, evaluate, make_cohort
from histofeat.evaluation import Search
from histofeat.images import as_images, image_input_tags
from histofeat.images._reading import map_images
from histofeat.models import PixelHead
from histofeat.models._pixel_head import takes_images
from histofeat.studies import measure_robustness, permutation_importance


class MeanColor(ClassifierMixin, BaseEstimator):
    """Logistic regression on the mean colour: a classifier on images that needs no network.

    It holds the first `held_out` patients out of its fit, as a network does to know when to stop.
    """

    def __init__(self, C=1.0, held_out=2, class_weight=None):
        self.C = C
        self.held_out = held_out
        self.class_weight = class_weight

    def fit(self, X, y, groups=None):
        held = np.isin(groups, sorted(set(groups))[: self.held_out]) if groups is not None else np.zeros(len(y), bool)
        colors, y = mean_colors(X), np.asarray(y)
        model = LogisticRegression(C=self.C, class_weight=self.class_weight).fit(colors[~held], y[~held])
        self.model_, self.classes_, self.fitted_on_ = model, model.classes_, [X.name(row) for row in range(len(y))]
        self.validation_rows_ = np.flatnonzero(held)
        self.validation_proba_ = model.predict_proba(colors[held]) if held.any() else np.empty((0, 2))
        self.best_epoch_ = 2
        self.history_, self.input_size_, self.notes_ = {"loss": [2.0, 1.0], "val_loss": [2.0, 1.5]}, 7, ("stopped",)
        return self

    def predict_proba(self, X):
        return self.model_.predict_proba(mean_colors(X))

    def __sklearn_tags__(self):
        return image_input_tags(super().__sklearn_tags__())


def mean_colors(X):
    images = as_images(X)
    return np.array([images.decode(row, images.content(row))[0].mean(axis=(0, 1)) / 255 for row in range(len(images))])


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(n_patients=12, patches_per_patient=8, random_state=3)


def pixels(**params):
    return IDCPipeline(features="pixels", head=MeanColor(**params))


def test_pipeline_hands_the_patches_to_the_head(cohort):
    pipeline = pixels().fit(cohort.X, cohort.y, groups=cohort.patients)
    expected = MeanColor().fit(as_images(cohort.X), cohort.y, groups=cohort.patients).predict_proba(cohort.X)
    np.testing.assert_array_equal(pipeline.predict_proba(cohort.X), expected)
    np.testing.assert_array_equal(pipeline.predict(cohort.X), expected.argmax(axis=1))
    np.testing.assert_array_equal(pipeline.decision_function(cohort.X), expected[:, 1])
    assert pipeline.features_ is None
    assert pipeline.n_features_out_ == 3 * 7 * 7
    assert pipeline.head_.notes_ == ("stopped",)


def test_parameters_of_the_head_are_searched_over_and_cloned():
    pipeline = pixels().set_params(head__C=0.5, class_weight="balanced")
    assert clone(pipeline).get_params()["head__C"] == 0.5
    assert clone(pipeline).make_head().class_weight == "balanced"


def test_architectures_are_heads_by_name():
    pipeline = IDCPipeline(features="pixels", head="cancernet").set_params(head__epochs=3)
    made = pipeline.make_head().classifier
    assert (made.architecture, made.epochs, made.random_state) == ("cancernet", 3, 0)


def test_evaluate_tunes_on_the_patients_held_out_of_the_fit(cohort):
    found = evaluate(cohort, {"color": pixels()}, PatientKFold(3), inner_cv=PatientKFold(2), n_resamples=20)
    (model,) = found.models
    assert (model.features, model.head, model.n_features) == (("pixels",), "MeanColor", 147)
    assert model.families == ("MeanColor(C=1.0, class_weight=None, held_out=2)",)
    assert [history["kept"] for history in model.histories] == [[False, True]] * 3
    assert [history["loss"] for history in model.histories] == [[2.0, 1.0]] * 3
    for fold, (train, test) in enumerate(found.splits):
        alone = MeanColor().fit(as_images(cohort.X[train]), cohort.y[train], groups=cohort.patients[train])
        np.testing.assert_array_equal(model.proba[test], alone.predict_proba(cohort.X[test]))
        held = alone.validation_rows_
        # The threshold is one of the held-out scores' own, and separates them as well as any does.
        best = best_f1(cohort.y[train][held], alone.validation_proba_[:, 1])
        assert f1(cohort.y[train][held], alone.validation_proba_[:, 1] >= model.thresholds[fold]) == pytest.approx(best)


def f1(y, positive):
    return 2 * (y & positive).sum() / max(1, y.sum() + positive.sum())


def best_f1(y, score):
    return max(f1(y, score >= threshold) for threshold in score)


def test_without_held_out_patients_the_threshold_is_a_half_and_says_so(cohort):
    pipelines = {"color": pixels(held_out=0)}
    (model,) = evaluate(cohort, pipelines, PatientKFold(2), inner_cv=PatientKFold(2), n_resamples=0).models
    assert model.thresholds == (0.5, 0.5)
    np.testing.assert_array_equal(model.calibrated, model.proba)
    assert any("threshold is 0.5" in note for note in model.notes)


def test_normaliser_before_pixels_is_fitted_per_fold(cohort):
    plain = evaluate(cohort, {"a": pixels()}, PatientKFold(2), inner_cv=PatientKFold(2), n_resamples=0).models[0]
    pipeline = pixels().set_params(normalizer="reinhard")
    found = evaluate(cohort, {"a": pipeline}, PatientKFold(2), inner_cv=PatientKFold(2), n_resamples=0)
    train, test = found.splits[0]
    alone = clone(pipeline).fit(cohort.X[train], cohort.y[train], groups=cohort.patients[train])
    np.testing.assert_allclose(found.models[0].proba[test], alone.predict_proba(cohort.X[test]))
    assert not np.allclose(found.models[0].proba, plain.proba)


def test_a_search_leaves_pixel_heads_as_they_are(cohort):
    pipelines = {"pixels": pixels(), "color": IDCPipeline("color", "logistic")}
    found = evaluate(
        cohort,
        pipelines,
        PatientKFold(2),
        inner_cv=PatientKFold(2),
        n_resamples=0,
        search=Search({"logistic": {"C": [0.1, 1.0]}}, n_iter=2),
    )
    assert found.models[0].choices == ({}, {})
    assert found.models[1].choices[0]["params"]


def test_some_of_the_images_are_taken_in_order():
    patches = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3)
    np.testing.assert_array_equal(as_images(patches).take([2, 0]).content(0), patches[2])
    assert as_images(["a.png", "b.png", "c.png"]).take(np.array([2, 1])).items == ["c.png", "b.png"]
    mapped = map_images(patches, lambda index, patch: patch + index).take([3, 1])
    np.testing.assert_array_equal(mapped.content(0), patches[3] + 3)
    np.testing.assert_array_equal(mapped.take([1]).content(0), patches[1] + 1)
    assert len(mapped) == 2


def test_what_takes_images():
    assert takes_images(MeanColor())
    assert takes_images(PixelHead(MeanColor()))
    assert not takes_images(LogisticRegression())
    assert not takes_images("xgboost")
    assert not takes_images(MeanColor)


@pytest.mark.parametrize(
    ("features", "head", "message"),
    [
        ("pixels", "xgboost", r"IDCPipeline.head: expected a classifier on images .* got 'xgboost'. Known names: "),
        ("pixels", "cancernett", r"got 'cancernett'. Did you mean 'cancernet'"),
        ("pixels", LogisticRegression(), r"expected a classifier on images .* got LogisticRegression\(\)\.$"),
        ("color", MeanColor(), r"expected a classifier on features, got MeanColor, .* Set features='pixels'"),
        (("color", "pixels"), "xgboost", r"expected 'pixels' alone, got \('color', 'pixels'\)"),
    ],
)
def test_heads_that_cannot_take_what_they_would_get(features, head, message):
    pipeline = IDCPipeline(features=features, head=head)
    with pytest.raises(ValueError, match=message):
        (pipeline.families(), pipeline.make_head())


def test_unknown_parameters_of_an_architecture():
    with pytest.raises(ValueError, match=r"head__epoch: expected a parameter of CNNClassifier, .*'epochs'"):
        IDCPipeline(features="pixels", head="cancernet").set_params(head__epoch=3)
    with pytest.raises(
        ValueError, match=r"IDCPipeline.head_params: expected None with head=MeanColor\(\), got \['C'\]"
    ):
        IDCPipeline(features="pixels", head=MeanColor(), head_params={"C": 1}).make_head()


def test_what_needs_columns_refuses_pixels(cohort):
    with pytest.raises(ValueError, match=r"get_feature_names_out: expected feature families, got features='pixels'"):
        pixels().get_feature_names_out()
    with pytest.raises(ValueError, match=r"transform: expected feature families"):
        pixels().transform(cohort.X)
    with pytest.raises(ValueError, match=r"explanation.pipeline: expected feature families to explain"):
        permutation_importance(cohort, pixels(), PatientKFold(2))
    with pytest.raises(ValueError, match=r"measure_robustness.pipelines: expected feature .* under 'mine'"):
        measure_robustness(cohort, {"mine": pixels()}, PatientKFold(2))
