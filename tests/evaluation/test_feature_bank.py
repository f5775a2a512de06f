"""The features of an evaluation: each family once, and behind a normaliser once a fold, from training patches only."""

import pickle
from collections import Counter

import numpy as np
import pytest

from histofeat import IDCPipeline, PatientKFold, evaluate, extract_features, make_cohort
from histofeat.datasets import load_embeddings
from histofeat.evaluation import _fitting
from histofeat.features import Runtime, extract
from histofeat.images import MacenkoNormalizer, ReinhardNormalizer
from histofeat.models import make_head

FOLDS = {"cv": PatientKFold(2), "inner_cv": PatientKFold(2), "n_resamples": 0}


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(n_patients=8, patches_per_patient=8, random_state=3)


def pipeline(**params):
    return IDCPipeline(features="color", head="logistic", **params)


def test_a_normaliser_sees_the_training_patches_of_its_fold_and_no_other(cohort, monkeypatch):
    seen = []
    fit = ReinhardNormalizer.fit

    def spy(self, X, y=None, groups=None):
        seen.append((list(X), set(groups)))
        return fit(self, X, y, groups=groups)

    monkeypatch.setattr(ReinhardNormalizer, "fit", spy)
    evaluation = evaluate(cohort, {"normalised": pipeline(normalizer="reinhard"), "plain": pipeline()}, **FOLDS)
    assert len(seen) == 2
    for (paths, patients), (train, test) in zip(seen, evaluation.splits, strict=True):
        assert paths == list(cohort.X[train])
        assert not patients & set(cohort.patients[test])


def test_the_scores_are_those_of_features_measured_by_hand(cohort):
    evaluation = evaluate(cohort, pipeline(normalizer="reinhard"), **FOLDS)
    train, test = evaluation.splits[0]
    normalizer = ReinhardNormalizer().fit(cohort.X[train], groups=cohort.patients[train])
    features = extract(pipeline().families(), list(normalizer.transform(cohort.X))).features[0]
    head = make_head("logistic").fit(features[train], cohort.y[train])
    np.testing.assert_allclose(evaluation.models[0].proba[test], head.predict_proba(features[test]))


def test_patches_that_the_normaliser_leaves_are_counted_in_the_fold_with_the_most(cohort):
    params = {"min_tissue": 0.9}
    evaluation = evaluate(cohort, pipeline(normalizer="macenko", normalizer_params=params), **FOLDS)
    left = []
    for train, _ in evaluation.splits:
        normalizer = MacenkoNormalizer(**params).fit(cohort.X[train], groups=cohort.patients[train])
        normalizer.transform(cohort.X)
        left.append(Counter(normalizer.unchanged_))
    assert left[0]
    assert dict(evaluation.conversions) == dict(left[0] | left[1])


def test_the_report_names_the_normaliser(cohort):
    model = evaluate(cohort, pipeline(normalizer="reinhard"), **FOLDS).models[0]
    assert model.families[0].startswith("ReinhardNormalizer(")


def test_a_store_keeps_normalised_features_apart_from_plain_ones(cohort, tmp_path):
    both = {"normalised": pipeline(normalizer="reinhard"), "plain": pipeline()}
    first = evaluate(cohort, both, runtime=Runtime(store=tmp_path / "features.sqlite"), **FOLDS)
    again = evaluate(cohort, both, runtime=Runtime(store=tmp_path / "features.sqlite"), **FOLDS)
    assert first.computed["color"] > len(cohort)
    assert again.computed == dict.fromkeys(first.computed, 0)
    for one, other in zip(first.models, again.models, strict=True):
        np.testing.assert_array_equal(one.proba, other.proba)
    assert not np.array_equal(first.models[0].proba, first.models[1].proba)


def test_progress_counts_every_pass(cohort):
    calls = []
    evaluate(
        cohort, pipeline(normalizer="reinhard"), runtime=Runtime(progress=lambda *call: calls.append(call)), **FOLDS
    )
    extracting = [call for call in calls if call[0] == "extract"]
    # The fingerprints of the audit, then one pass a fold.
    assert extracting[-1] == ("extract", 3 * len(cohort), 3 * len(cohort))


def test_a_patch_that_was_only_tried_is_not_counted(cohort, tmp_path):
    """With a normaliser the plain first patch is tried, and never used."""
    split = next(PatientKFold(2).split(cohort.X, cohort.y, cohort.patients))
    settings = {"inner_cv": PatientKFold(2), "n_resamples": 0, "runtime": Runtime(store=tmp_path / "features.sqlite")}
    found = evaluate(cohort, pipeline(normalizer="reinhard"), [split], **settings)
    assert found.computed["color"] == len(cohort)


def test_given_columns_are_never_looked_up_in_a_store(cohort, tmp_path):
    columns = cohort.frame[["path", "patient"]].assign(label=cohort.y, mean=np.arange(len(cohort)) + 40.0 * cohort.y)
    columns.to_csv(tmp_path / "columns.csv", index=False)
    given = load_embeddings(tmp_path / "columns.csv")
    runtime = Runtime(store=tmp_path / "features.sqlite")
    found = evaluate(cohort, {"both": IDCPipeline(["color", given], "logistic")}, runtime=runtime, **FOLDS)
    assert found.computed == {"color": len(cohort), "fingerprint": len(cohort), "columns": 0}
    assert extract_features(cohort, ["gray", given]).iloc[:, -1].tolist() == columns["mean"].tolist()


def test_the_work_of_a_fold_can_be_done_elsewhere(cohort, monkeypatch):
    tasks, fold_task = [], _fitting.fold_task
    monkeypatch.setattr(_fitting, "fold_task", lambda *known: tasks.append(fold_task(*known)) or tasks[-1])
    evaluation = evaluate(cohort, {"both": IDCPipeline(features=["color", "lbp"], head="svm")}, **FOLDS)
    [model] = evaluation.models
    for fold, task in enumerate(tasks):
        n_features, record, rows = _fitting.fit_fold(pickle.loads(pickle.dumps(task)))
        _, test = evaluation.splits[fold]
        assert n_features == 0
        assert record["threshold"] == model.thresholds[fold]
        for values, found in zip((model.proba, model.calibrated, model.predicted_tuned), rows, strict=True):
            np.testing.assert_array_equal(values[test], found)
