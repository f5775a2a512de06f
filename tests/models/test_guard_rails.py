"""What a model remembers of its training: known images and patients, the distance to them, and its threshold."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from histofeat import IDCPipeline
from histofeat.evaluation import train_model
from histofeat.features import ImageFingerprint
from histofeat.metrics import choose_threshold
from histofeat.models import (
    GuardRails,
    SavedModel,
    _archive as archive,
    _guard_rails as guard_rails,
    load_model,
    predict_images,
    save_model,
)


@pytest.fixture(scope="module")
def prints():
    X = np.random.default_rng(0).integers(0, 255, (200, 16, 16, 3), dtype=np.uint8)
    return ImageFingerprint().transform(X)


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(1)
    return rng.normal(size=(200, 3)) @ rng.normal(size=(3, 12)) + rng.normal(scale=0.3, size=(200, 12))


@pytest.fixture(scope="module")
def halves(cohort):
    """The first ten patients of a cohort, and the others."""
    first = np.isin(cohort.patients, sorted(set(cohort.patients))[:10])
    return cohort.subset(first), cohort.subset(~first)


@pytest.fixture(scope="module")
def found(halves):
    """A model with a threshold, and the evaluation that it was chosen on."""
    evaluations = []
    model = train_model(
        halves[0], IDCPipeline("color", "logistic"), folds=3, n_resamples=20, threshold="youden",
        on_evaluation=evaluations.append,
    )  # fmt: skip
    return model, evaluations[0]


# --- the distance ----------------------------------------------------------------------------------------------------


def test_the_distance_is_that_of_probabilistic_components(features):
    """scikit-learn's log-likelihood falls by half the squared distance."""
    learnt = guard_rails._learn(features)
    scaled = StandardScaler().fit(features)
    pca = PCA(len(learnt["components"])).fit(scaled.transform(features))
    new = np.random.default_rng(2).normal(size=(5, 12))
    expected = -2 * np.diff(pca.score_samples(scaled.transform(new)))
    assert np.diff(guard_rails._distance(new, **learnt) ** 2) == pytest.approx(expected)


def test_quantiles_are_those_of_held_out_patients(prints, features):
    rails = GuardRails().fit(prints, np.arange(200) // 10, features)
    unlike = rails.unlike(features)
    assert 0.3 < np.median(unlike) < 0.55  # nearer than held-out ones by a little
    assert rails.unlike(features[:3] + 50).tolist() == [1, 1, 1]
    assert np.isnan(GuardRails().fit(prints, np.arange(200) % 4, features).unlike(features)).all()
    assert np.isnan(GuardRails().fit(prints, np.arange(200)).unlike(features)).all()


def test_each_patient_weighs_the_same(prints, features):
    """A patient with half of the images, all of them far from the others, takes a tenth of the quantiles."""
    patients, shifted = np.maximum(np.arange(200) // 10 - 10, 0) % 10, features.copy()
    shifted[patients == 0] += 40
    quantiles = GuardRails().fit(prints, patients, shifted).quantiles_
    assert (quantiles > 5 * np.median(quantiles)).mean() == pytest.approx(0.1, abs=0.02)


def test_features_that_never_vary_do_no_harm(prints, features):
    constant = np.column_stack([features, np.full(200, 3.0)])
    rails = GuardRails().fit(prints, np.arange(200) // 10, constant)
    assert np.isfinite(rails.unlike(constant)).all()
    assert rails.unlike(constant[:1] + np.eye(13)[12:] * 100) == 1


def test_images_of_one_colour_are_not_remembered():
    X = np.full((2, 16, 16, 3), 200, dtype=np.uint8)
    X[1, 0, 0] = 0
    assert len(GuardRails().fit(ImageFingerprint().transform(X), ["a", "b"]).images_) == 1


# --- known images and patients ---------------------------------------------------------------------------------------


def test_known_images_and_patients_are_named(found, halves):
    model, (seen, unseen) = found[0], halves
    X = [seen.X[0], unseen.X[0]]
    assert predict_images(model, X).known == ("image", "")
    assert predict_images(model, X, patients=[seen.patients[0], unseen.patients[0]]).known == ("image", "")
    assert predict_images(model, X, patients=["other", "other"]).known == ("image", "patient")
    assert predict_images(model, X[1:], patients=[seen.patients[0]]).known == ("patient",)
    assert predict_images(SavedModel(model.pipeline.fit(seen.X, seen.y)), X).known == ("", "")


@pytest.fixture
def file(halves, tmp_path):
    model = train_model(halves[0], IDCPipeline("color", "logistic"), folds=None)
    return model, save_model(model, tmp_path / "m.histofeat")


def test_a_file_remembers_them(file, halves):
    model, path = file
    loaded = load_model(path)
    for name, value in vars(model.pipeline.rails_).items():
        same = value.items() if isinstance(value, dict) else [(name, value)]
        for key, array in same:
            kept = getattr(loaded.pipeline.rails_, name)
            assert (array == (kept[key] if isinstance(kept, dict) else kept)).all()
    before, after = (predict_images(each, halves[1].X) for each in (model, loaded))
    assert (before.unlike == after.unlike).all()
    assert np.isfinite(before.unlike).all()


def test_files_without_guard_rails_are_read(halves, tmp_path, monkeypatch):
    pipeline = IDCPipeline("color", "logistic").fit(halves[0].X, halves[0].y)
    monkeypatch.setattr(archive, "FORMAT_VERSION", 3)
    del pipeline.rails_
    loaded = load_model(save_model(pipeline, tmp_path / "old.histofeat"))
    assert loaded.pipeline.rails_ is None
    found = predict_images(loaded, halves[1].X[:2])
    assert (found.known, np.isnan(found.unlike).all()) == (("", ""), True)


# --- thresholds ------------------------------------------------------------------------------------------------------


def test_the_threshold_is_chosen_on_unseen_patients_and_makes_the_labels(found, halves):
    model, evaluation = found
    proba = evaluation.models[0].proba[:, 1]
    expected = choose_threshold(halves[0].y, proba, "youden")
    assert model.about["threshold"] == {"rule": "youden", "value": expected, "patient": None}
    predicted = predict_images(model, halves[1].X)
    names = model.class_names
    assert predicted.labels == tuple(names[int(p >= expected)] for p in predicted.proba[:, 1])
    frame = predicted.to_frame()
    assert set(frame["threshold"]) == {expected}
    assert set(frame["threshold_rule"]) == {"youden"}


def test_a_patient_threshold_is_chosen_where_patients_have_one_label(halves):
    cohort = halves[0]
    frame = cohort.frame.assign(label=cohort.frame["patient"].map(lambda patient: int(patient) % 2))
    cohort = type(cohort)(frame, cohort.target_names, "diagnoses")
    found = []
    model = train_model(
        cohort, IDCPipeline("color", "logistic"), folds=2, n_resamples=0, threshold="youden",
        on_evaluation=found.append,
    )  # fmt: skip
    table = found[0].dataset.frame.assign(p=found[0].models[0].proba[:, 1]).groupby("patient")
    expected = choose_threshold(table["label"].first(), table["p"].mean(), "youden")
    decided = model.about["threshold"]["patient"]
    assert decided == {"score": "mean", "value": pytest.approx(expected)}
    by_patient = predict_images(model, cohort.X, patients=cohort.patients).by_patient()
    positive = by_patient["mean_tumour"] >= decided["value"]
    assert by_patient["label"].tolist() == [model.class_names[int(each)] for each in positive]
    assert by_patient["known"].all()
    assert set(by_patient["threshold"]) == {decided["value"]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": None, "threshold": "f1"}, "threshold: expected an estimate of two classes, .* got no estimate"),
        ({"folds": 2, "threshold": "f2"}, "threshold: expected a rule such as f1, youden"),
    ],
)
def test_a_threshold_needs_a_rule_and_an_estimate(settings, message, halves):
    with pytest.raises(ValueError, match=message):
        train_model(halves[0], IDCPipeline("color", "logistic"), **settings)


def test_a_threshold_of_too_few_patients_is_refused(halves):
    few = halves[0].subset(np.isin(halves[0].patients, sorted(set(halves[0].patients))[:2]))
    with pytest.raises(ValueError, match=r"threshold: expected an estimate to choose it on, got none\. No estimate: "):
        train_model(few, IDCPipeline("color", "logistic"), threshold="f1")


@pytest.mark.parametrize("threshold", [{"rule": "f1", "value": 2, "patient": None}, {"rule": "f1"}, 0.5])
def test_a_file_with_an_impossible_threshold_is_refused(threshold, found):
    with pytest.raises(ValueError, match=r"about\['threshold'\]: expected a rule and values from 0 to 1"):
        SavedModel(found[0].pipeline, {"threshold": threshold})


# --- patients --------------------------------------------------------------------------------------------------------


def test_scores_of_a_patient_with_few_images_have_no_interval():
    found = guard_rails.score_patient(np.array([0.2, 0.4]), np.array([False, True]))
    assert (found["top10_mean"], found["max"]) == (pytest.approx(0.3), 0.4)
    assert np.isnan([found[name] for name in ("mean_low", "mean_high", "share_low", "share_high")]).all()
    assert np.isnan(list(guard_rails.score_patient(np.zeros(0), np.zeros(0, bool)).values())).all()
