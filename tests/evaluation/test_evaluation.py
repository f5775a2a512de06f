"""One protocol for all pipelines: what is computed, what is refused, and a canary for leaks."""

from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.naive_bayes import GaussianNB

from histofeat.datasets import PatchDataset, make_cohort
from histofeat.evaluation import AuditPolicy, NotRun, _evaluation, _folds, evaluate
from histofeat.exceptions import GroupLeakageError, MissingExtraError, PatchError, WeightsError
from histofeat.features import ColorHistogram, PatchFeatures, Runtime
from histofeat.metrics import (
    LABEL_METRICS,
    METRICS,
    bootstrap_scores,
    choose_threshold,
    method_interval,
    scores,
)
from histofeat.model_selection import LimitedTraining, PatchKFold, PatientKFold, RepeatedPatientKFold
from histofeat.models import FeatureHead, IDCPipeline, fit_with_inner_scores, make_head


class MeanColor(PatchFeatures):
    """Mean of each channel: the smallest family, which counts the patches that it measured."""

    family = "mean"
    measured = 0

    def __init__(self, power=1):
        self.power = power

    def _check_params(self):
        pass

    def _feature_names(self):
        return [f"mean_{channel}" for channel in ("red", "green", "blue")]

    def _compute(self, batch):
        MeanColor.measured += len(batch)
        return (batch.rgb.reshape(len(batch), -1, 3).mean(axis=1) ** self.power).astype(np.float32)


class Spread(MeanColor):
    """A second family with columns of its own."""

    family = "spread"

    def _feature_names(self):
        return ["spread"]

    def _compute(self, batch):
        return batch.rgb.reshape(len(batch), -1).std(axis=1, dtype=np.float64)[:, None].astype(np.float32)


class NoWeights(MeanColor):
    """A network whose weights are not there."""

    family = "network"

    def _compute(self, batch):
        raise WeightsError("NoWeights.weights: expected a file, got none. Put it there.")


class Broken(MeanColor):
    """A family with a defect."""

    def _compute(self, batch):
        raise ZeroDivisionError("a defect")


class NoPackage(GaussianNB):
    """A head whose package is missing, noticed only in its fit."""

    def fit(self, X, y, sample_weight=None):
        raise MissingExtraError("NoPackage: expected the package nothing, found none.")


def write_dataset(root, colors, y, patients, names=("benign", "malignant")):
    """Write one 4x4 patch a row, of the colour given."""
    paths = [str(root / f"{row}.png") for row in range(len(y))]
    rng = np.random.default_rng(0)
    for path, color in zip(paths, colors, strict=True):
        noise = rng.integers(0, 2, (4, 4, 3))
        assert cv2.imwrite(path, np.clip(color + noise, 0, 255).astype(np.uint8))
    frame = pd.DataFrame({"path": paths, "label": y, "patient": [str(p) for p in patients]})
    return PatchDataset(frame.assign(x=pd.NA, y=pd.NA), names, "synthetic", root=root, synthetic=True)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Twenty patients of ten patches; malignant is darker, with overlap."""
    rng = np.random.default_rng(0)
    patients, y = np.repeat(np.arange(901, 921), 10), rng.integers(0, 2, 200)
    colors = 150 - 20 * y[:, None] + rng.normal(0, 20, (200, 3))
    return write_dataset(tmp_path_factory.mktemp("patches"), colors, y, patients)


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Three classes in twelve patients."""
    rng = np.random.default_rng(0)
    patients, y = np.repeat(np.arange(12), 12), np.tile(np.arange(3), 48)
    colors = np.array([[200, 100, 100], [100, 200, 100], [100, 100, 200]])[y] + rng.normal(0, 60, (144, 3))
    return write_dataset(tmp_path_factory.mktemp("several"), colors, y, patients, ("a", "b", "c"))


def mean_color(head="logistic", **params):
    return IDCPipeline(features=MeanColor(), head=head, **params)


QUICK = {"cv": PatientKFold(4), "n_resamples": 60}


@pytest.fixture(scope="module")
def evaluation(dataset):
    pipelines = {"mean": mean_color(), "both": IDCPipeline(features=(MeanColor(), Spread()), head="svm")}
    return evaluate(dataset, pipelines, **QUICK)


# --- what is computed ------------------------------------------------------------------------------------------------


def test_every_patch_is_tested_once_by_a_fit_on_other_patients(evaluation, dataset):
    for fold, (train, test) in enumerate(evaluation.splits):
        assert not set(dataset.patients[train]) & set(dataset.patients[test])
        np.testing.assert_array_equal(np.flatnonzero(evaluation.fold == fold), test)
    assert evaluation.tested.all()
    assert not evaluation.patient_overlap
    assert not evaluation.not_run
    assert evaluation.protocol == {
        "cv": "PatientKFold(n_splits=4, shuffle=True, random_state=0)",
        "n_splits": 4,
        "inner_cv": "PatientKFold(n_splits=3, shuffle=True, random_state=0)",
        "n_resamples": 60,
        "random_state": 0,
        "patient_level": True,
        "threshold": "f1",
        "search": None,
        "accepted_findings": [],
        "known_patients": "refuse",
        "left_out": None,
        "retrain_encoder": False,
        "registered": None,
        "plan": None,
    }


def test_predictions_and_thresholds_are_those_of_the_folds_done_by_hand(evaluation, dataset):
    pipeline, model = mean_color(), evaluation.models[0]
    features = pipeline.transform(dataset.X)
    y, patients = dataset.y, dataset.patients
    for fold, (train, test) in enumerate(evaluation.splits):
        head, inner = fit_with_inner_scores(
            make_head("logistic"), features[train], y[train], patients[train], PatientKFold(3)
        )
        np.testing.assert_array_equal(model.proba[test], head.predict_proba(features[test]))
        np.testing.assert_array_equal(model.predicted[test], head.predict(features[test]))
        assert model.thresholds[fold] == choose_threshold(y[train], inner[:, 1], "f1")
        np.testing.assert_array_equal(model.predicted_tuned[test], model.proba[test, 1] >= model.thresholds[fold])


def test_scores_are_those_of_the_metrics_module(evaluation, dataset):
    model, y = evaluation.models[1], dataset.y
    assert (model.name, model.features, model.head, model.n_features) == ("both", ("mean", "spread"), "svm", 4)
    assert model.families == ("MeanColor(power=1)", "Spread(power=1)")
    assert tuple(model.scores) == METRICS
    assert tuple(model.tuned) == LABEL_METRICS
    pooled = scores(y, model.proba)
    within = scores(y, model.proba, fold=evaluation.fold)
    resamples = bootstrap_scores(y, model.proba, dataset.patients, n_resamples=60, fold=evaluation.fold)
    folds = [scores(y[test], model.proba[test]) for _, test in evaluation.splits]
    ratio = np.mean([len(set(dataset.patients[test])) for _, test in evaluation.splits])
    ratio /= len(set(dataset.patients)) - ratio
    for metric, score in model.scores.items():
        assert score.pooled == pytest.approx(pooled[metric], rel=1e-14)
        assert score.value == pytest.approx(within[metric], rel=1e-14)
        assert (score.value == score.pooled) == (metric not in ("roc_auc", "average_precision"))
        assert score.method_ci95 == pytest.approx(method_interval(metric, score.value, score.folds, ratio))
        assert score.dropped == 0.0
        assert score.ci95 == resamples.interval(metric)
        assert score.folds == pytest.approx([fold[metric] for fold in folds], rel=1e-14)
        assert score.mean == pytest.approx(np.mean(score.folds))
        assert score.std == pytest.approx(np.std(score.folds, ddof=1))
        assert (score.n_folds, score.n_resamples) == (4, 60)
        assert len(score.folds_ci95) == 4
    assert model.tuned["f1"].pooled == scores(y, model.proba, model.predicted_tuned)["f1"]
    assert model.confusion.sum() == model.confusion_tuned.sum() == len(y)
    np.testing.assert_array_equal(sum(model.fold_confusions), model.confusion)


def test_the_signal_is_found(evaluation):
    for model in evaluation.models:
        assert model.scores["roc_auc"].value > 0.75
        assert model.tuned["f1"].value > 0.65


def test_each_family_is_measured_once_for_all_pipelines(dataset):
    MeanColor.measured = 0
    pipelines = [("mean", mean_color(head)) for head in ("logistic", GaussianNB())]
    pipelines.append(("both", IDCPipeline(features=(Spread(), MeanColor()), head="logistic")))
    evaluation = evaluate(dataset, pipelines, cv=PatientKFold(2), n_resamples=0)
    assert MeanColor.measured == len(dataset) + 1  # and one patch on trial
    assert [(model.name, model.head) for model in evaluation.models] == [
        ("mean", "logistic"),
        ("mean", "GaussianNB"),
        ("both", "logistic"),
    ]
    assert evaluation.models[2].features == ("spread", "mean")


def test_one_family_with_two_settings_is_measured_in_two_passes(dataset):
    pipelines = {f"power {power}": IDCPipeline(features=MeanColor(power), head="logistic") for power in (1, 3)}
    calls = []
    evaluation = evaluate(dataset, pipelines, runtime=Runtime(progress=lambda *call: calls.append(call)), **QUICK)
    first, second = evaluation.models
    assert (first.proba != second.proba).any()
    assert [call for call in calls if call[0] == "extract"][-1] == ("extract", 400, 400)
    with pytest.raises(ValueError, match="expected families with columns of their own, got 'mean_"):
        evaluate(dataset, IDCPipeline(features=(MeanColor(1), MeanColor(3)), head="logistic"), **QUICK)


def test_progress_and_seconds_tell_of_every_stage(dataset):
    calls = []
    evaluation = evaluate(
        dataset,
        {"a": mean_color(), "b": mean_color()},
        runtime=Runtime(progress=lambda *call: calls.append(call)),
        **QUICK,
    )
    assert [call for call in calls if call[0] == "fit"] == [("fit", done, 8) for done in range(1, 9)]
    assert [call for call in calls if call[0] == "score"] == [("score", 1, 2), ("score", 2, 2)]
    assert calls[0][0] == "extract"
    stages = {
        "extraction",
        "extraction:read",
        "extraction:decode",
        "extraction:mean",
        "extraction:store",
        "extraction:fingerprint",
        "audit",
        "fit",
        "score",
    }
    assert set(evaluation.seconds) == stages
    assert all(seconds >= 0 for seconds in evaluation.seconds.values())
    assert evaluation.seconds["fit"] >= max(model.fit_s for model in evaluation.models)


def test_the_same_seed_gives_the_same_numbers_with_and_without_threads(evaluation, dataset):
    again = evaluate(dataset, {"mean": mean_color()}, runtime=Runtime(n_jobs=2), **QUICK).models[0]
    np.testing.assert_array_equal(again.proba, evaluation.models[0].proba)
    assert again.scores == evaluation.models[0].scores


def test_a_single_pipeline_and_an_estimator_as_head(dataset):
    forest = FeatureHead(RandomForestClassifier(10, random_state=0))
    (model,) = evaluate(dataset, mean_color(forest), **QUICK).models
    assert (model.name, model.head) == ("pipeline", "RandomForestClassifier")


def test_defaults_are_five_folds_and_three_inside(dataset):
    protocol = evaluate(dataset, mean_color(), n_resamples=0).protocol
    assert protocol["cv"] == repr(PatientKFold(5))
    assert protocol["inner_cv"] == repr(PatientKFold(3))


def test_inner_fits_by_default_leave_patches_of_large_patients_out(dataset, monkeypatch):
    assert repr(_folds.INNER_CV) == repr(LimitedTraining(PatientKFold(3), 300))
    sizes, fit = [], FeatureHead._fit_final
    monkeypatch.setattr(FeatureHead, "_fit_final", lambda head, X, *known: sizes.append(len(X)) or fit(head, X, *known))
    whole = evaluate(dataset, mean_color(), n_resamples=0).models[0]
    monkeypatch.setattr(_evaluation, "INNER_CV", LimitedTraining(PatientKFold(3), 2))
    found = evaluate(dataset, mean_color(), n_resamples=0)
    assert (found.protocol["inner_patches"], "train_patches" in found.protocol) == (2, False)
    # The heads that are tested are the same, fitted on every patch; inner fits are on two of each patient.
    np.testing.assert_array_equal(found.models[0].proba, whole.proba)
    assert sizes[3:20:4] == sizes[23::4]
    n_known = [len(set(dataset.patients[train])) for train, _ in found.splits]
    assert [sum(sizes[20 + 4 * fold : 23 + 4 * fold]) for fold in range(5)] == [2 * 2 * n for n in n_known]


def test_more_than_two_classes(several):
    model = evaluate(several, mean_color(), cv=PatientKFold(3), n_resamples=40).models[0]
    assert model.proba.shape == (144, 3)
    assert model.confusion.shape == (3, 3)
    assert model.thresholds == ()
    np.testing.assert_array_equal(model.predicted, model.predicted_tuned)
    assert model.scores["roc_auc"].pooled > 0.7
    assert all(np.isfinite(score.ci95).all() for score in model.scores.values())


def test_a_predefined_split_leaves_the_other_rows_untested(dataset):
    patients = dataset.patients.astype(int)
    train, test = patients < 909, (patients >= 909) & (patients < 915)
    evaluation = evaluate(dataset, mean_color(), cv=[(train, np.flatnonzero(test))], n_resamples=40)
    model = evaluation.models[0]
    np.testing.assert_array_equal(evaluation.fold, np.where(test, 0, -1))
    np.testing.assert_array_equal(np.isnan(model.proba).all(axis=1), ~test)
    np.testing.assert_array_equal(model.predicted == -1, ~test)
    np.testing.assert_array_equal(model.predicted_tuned == -1, ~test)
    assert model.confusion.sum() == test.sum()
    assert evaluation.protocol["cv"] == "predefined splits"
    score = model.scores["roc_auc"]
    assert score.folds == (score.pooled,)
    assert score.ci95 == score.folds_ci95[0]
    assert np.isnan(score.std)


def test_a_fold_of_one_class_is_left_out_of_the_mean(dataset):
    y, patients = dataset.y, dataset.patients.astype(int)
    benign_only = np.flatnonzero((patients == 901) & (y == 0))
    rest = np.flatnonzero((patients > 901) & (patients < 906))
    train = np.flatnonzero(patients >= 906)
    cv = [(train, benign_only), (train, rest)]
    with pytest.raises(ValueError, match=r"HF004 fold without a class: .*fold 1 has no 'malignant'"):
        evaluate(dataset, mean_color(), cv=cv, n_resamples=0)
    evaluation = evaluate(dataset, mean_color(), cv=cv, n_resamples=40, audit=AuditPolicy(accept_findings=("HF004",)))
    assert evaluation.audit.accepted == ("HF004",)
    model = evaluation.models[0]
    score = model.scores["roc_auc"]
    assert np.isnan(score.folds[0])
    assert score.n_folds == 1
    assert score.mean == score.folds[1]
    assert model.scores["accuracy"].n_folds == 2


def test_one_class_too_many_has_probability_zero(dataset):
    wider = PatchDataset(dataset.frame, ("benign", "malignant", "never seen"), "synthetic")
    model = evaluate(wider, mean_color(), **QUICK).models[0]
    assert (model.proba[:, 2] == 0).all()
    assert np.isnan(model.scores["f1"].pooled)
    assert np.isfinite(model.scores["accuracy"].pooled)


# --- what cannot run -------------------------------------------------------------------------------------------------


def test_what_cannot_run_is_named_with_its_reason_and_the_rest_goes_on(dataset):
    pipelines = [
        ("network", IDCPipeline(features=NoWeights(), head="logistic")),
        ("mean", mean_color()),
        ("everything", IDCPipeline(features=(Spread(), NoWeights()), head="svm")),
        ("mean", mean_color(NoPackage())),
    ]
    with pytest.warns(UserWarning, match=r"^not run: ") as warned:
        evaluation = evaluate(dataset, pipelines, **QUICK)
    assert [(model.name, model.head) for model in evaluation.models] == [("mean", "logistic")]
    reason = "NoWeights.weights: expected a file, got none. Put it there."
    package = "NoPackage: expected the package nothing, found none."
    assert evaluation.not_run == (
        NotRun("network", "logistic", reason),
        NotRun("everything", "svm", reason),
        NotRun("mean", "NoPackage", package),
    )
    told = [f"not run: network, logistic; everything, svm: {reason}", f"not run: mean, NoPackage: {package}"]
    assert [str(warning.message) for warning in warned] == told
    assert {warning.filename for warning in warned} == {__file__}


def test_nothing_can_run(dataset):
    networks = {"a": IDCPipeline(features=NoWeights(), head="logistic"), "b": mean_color(NoPackage())}
    got = r"evaluate\.pipelines: expected one that can run here, got none\. a, logistic: NoWeights\.weights: expected a"
    with pytest.raises(ValueError, match=got):
        evaluate(dataset, {"a": networks["a"]}, **QUICK)
    got = r"got none\. b, NoPackage: NoPackage: expected the package nothing"
    with pytest.warns(UserWarning, match="not run: a, logistic"), pytest.raises(ValueError, match=got):
        evaluate(dataset, networks, **QUICK)


def test_a_defect_is_not_swallowed(dataset, monkeypatch):
    monkeypatch.setattr(ColorHistogram, "_compute", Broken._compute)
    with pytest.raises(ZeroDivisionError, match="a defect"):
        evaluate(dataset, IDCPipeline(features=ColorHistogram(), head="logistic"), **QUICK)


def test_an_unreadable_image_is_named(tmp_path):
    patients = np.repeat(np.arange(6), 4)
    broken = write_dataset(tmp_path, np.full((24, 3), 100), np.tile([0, 1], 12), patients)
    (tmp_path / "7.png").write_bytes(b"no image")
    with pytest.raises(PatchError, match=r"7\.png"):
        evaluate(broken, mean_color(), cv=PatientKFold(2), inner_cv=PatientKFold(2))


# --- leakage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cv", [PatchKFold(3), StratifiedKFold(3, shuffle=True, random_state=0)])
@pytest.mark.filterwarnings("ignore:The groups parameter is ignored")
def test_a_split_by_patch_needs_leave_and_is_marked(dataset, cv):
    with pytest.raises(GroupLeakageError, match=r"evaluate\.cv.*accept_findings"):
        evaluate(dataset, mean_color(), cv=cv)
    evaluation = evaluate(dataset, mean_color(), cv=cv, audit=AuditPolicy(accept_findings=("HF001",)), n_resamples=0)
    assert evaluation.patient_overlap
    assert evaluation.protocol["patient_level"] is False


def test_the_message_about_a_leak_names_fold_and_patients(dataset):
    cv = [(np.arange(0, 100), np.arange(105, 120)), (np.arange(95), np.arange(95, 105))]
    with pytest.raises(GroupLeakageError, match=r"evaluate\.cv, fold 2: .* on both sides, got 1: '910'\."):
        evaluate(dataset, mean_color(), cv=cv)


def test_inner_folds_may_not_leak_either(dataset):
    with pytest.raises(GroupLeakageError, match=r"evaluate\.inner_cv, in the training patients of fold 1: split: exp"):
        evaluate(dataset, mean_color(), inner_cv=PatchKFold(3))


def test_leak_canary(tmp_path):
    """Each patient has a stain and a prevalence that have nothing to do with each other."""
    rng = np.random.default_rng(3)
    patients = np.repeat(np.arange(60), 12)
    y = (rng.random(720) < rng.choice([0.08, 0.92], 60)[patients]).astype(int)
    dataset = write_dataset(tmp_path, rng.uniform(40, 220, (60, 3))[patients], y, patients)
    pipeline = mean_color(RandomForestClassifier(60, random_state=0))
    honest = evaluate(dataset, pipeline, n_resamples=200).models[0].scores["roc_auc"]
    leaking = evaluate(
        dataset, pipeline, cv=PatchKFold(5), n_resamples=0, audit=AuditPolicy(accept_findings=("HF001",))
    )
    assert honest.ci95[0] < 0.5 < honest.ci95[1]
    assert abs(honest.pooled - 0.5) < 0.12
    assert leaking.models[0].scores["roc_auc"].pooled > 0.85


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        (5, r"evaluate.cv: expected a splitter or pairs of \(train, test\) rows, got 5\. Use PatientKFold\(5\)"),
        ("5", r"evaluate.cv: expected a splitter or pairs .* got '5'"),
        ([], r"evaluate.cv: expected at least one pair"),
        (
            [([], [1])],
            r"evaluate.cv, training side of fold 1: expected row numbers or a mask over 200 rows, got float64 of "
            r"shape \(0,\)",
        ),
        ([([0.5], [1])], r"got float64 of shape \(1,\)"),
        ([(np.ones(3, dtype=bool), [1])], r"got bool of shape \(3,\)"),
        ([([0], [200])], r"expected row numbers from 0 to 199, got 200 to 200"),
        ([([-1], [3])], r"expected row numbers from 0 to 199, got -1 to -1"),
        ([([0, 1, 2], [2, 1])], r"got row 1 on both sides of fold 1 \(2 such rows\)"),
        ([([0], [10, 11]), ([0], [11])], r"expected each row to be tested at most once, got row 11 tested again \(1 s"),
    ],
)
def test_unusable_folds_are_refused(dataset, cv, message):
    with pytest.raises(ValueError, match=message):
        evaluate(dataset, mean_color(), cv=cv)


@pytest.mark.parametrize(
    ("inner_cv", "message"),
    [
        (3, r"evaluate.inner_cv: expected a splitter, got 3\. Use PatientKFold\(3\)"),
        (
            PatientKFold(17),
            r"inner_cv, in the training patients of fold 1: PatientKFold.n_splits: .* got 16 pat",
        ),
    ],
)
def test_unusable_inner_folds_are_refused(dataset, inner_cv, message):
    with pytest.raises(ValueError, match=message):
        evaluate(dataset, mean_color(), inner_cv=inner_cv)


def test_inner_folds_have_to_be_a_partition(dataset):
    class FirstFoldOnly(PatientKFold):
        def split(self, X, y=None, groups=None):
            return iter(list(super().split(X, y, groups))[:1])

    with pytest.raises(ValueError, match=r"expected each row to be tested once, got \d+ of 160 rows tested never"):
        evaluate(dataset, mean_color(), inner_cv=FirstFoldOnly(3))


@pytest.mark.parametrize(
    ("pipelines", "message"),
    [
        ({}, "expected at least one pipeline, got 0"),
        (None, "expected names with an IDCPipeline or a classifier each, got None"),
        (["color"], "expected names with an IDCPipeline or a classifier each, got 'color'"),
        ({"color": "xgboost"}, r"got \('color', 'xgboost'\)"),
        ([("a", mean_color()), ("a", mean_color())], "each name and head once, got 'a' with 'logistic' again"),
    ],
)
def test_unusable_pipelines_are_refused(dataset, pipelines, message):
    with pytest.raises(ValueError, match=message):
        evaluate(dataset, pipelines)


@pytest.mark.parametrize("given", ["idc", None, [1]])
def test_what_is_no_data_set_is_refused(given):
    with pytest.raises(ValueError, match=r"evaluate\.dataset: expected a PatchDataset, got"):
        evaluate(given, mean_color())


def test_unusable_resampling_is_refused_before_the_work(dataset):
    MeanColor.measured = 0
    with pytest.raises(ValueError, match="n_resamples: expected a whole number of at least 0, got -5"):
        evaluate(dataset, mean_color(), n_resamples=-5)
    with pytest.raises(ValueError, match="random_state: expected a whole number of at least 0, got None"):
        evaluate(dataset, mean_color(), random_state=None)
    assert MeanColor.measured == 0


def test_a_split_that_ignores_patients_warns_in_scikit_learns_words(dataset):
    with (
        pytest.warns(UserWarning, match="groups parameter is ignored"),
        pytest.raises(GroupLeakageError, match="fold 1"),
    ):
        evaluate(dataset, mean_color(), cv=KFold(3, shuffle=True, random_state=0))


def test_too_few_patients_for_the_inner_folds(dataset):
    few = dataset.subset(np.flatnonzero(dataset.patients.astype(int) < 905))
    with pytest.raises(ValueError, match=r"in the training patients of fold 1: .* got 2 patients for 3 folds"):
        evaluate(few, mean_color(), cv=PatientKFold(2))


def test_a_copy_of_a_training_image_under_test_is_refused_before_any_fit(dataset, tmp_path):
    """The copy is another file of another patient, saved in another format: only the pixels are the same."""
    from PIL import Image

    copy = tmp_path / "copy.tif"
    Image.open(dataset.X[0]).save(copy)
    frame = dataset.frame.copy()
    other = int(np.flatnonzero(dataset.patients != dataset.patients[0])[0])
    frame.loc[other, "path"] = str(copy)
    doubled = PatchDataset(frame, dataset.target_names, "doubled")
    tested = np.flatnonzero(
        np.isin(doubled.patients, np.unique(doubled.patients)[-4:]) | (doubled.patients == doubled.patients[other])
    )
    cv = [(np.setdiff1d(np.arange(len(doubled)), tested), tested)]
    fits = []
    with pytest.raises(GroupLeakageError, match=r"HF002 .*expected none, got 1"):
        evaluate(
            doubled, mean_color(), cv=cv, n_resamples=0, runtime=Runtime(progress=lambda stage, *_: fits.append(stage))
        )
    assert "fit" not in fits
    accepted = evaluate(doubled, mean_color(), cv=cv, n_resamples=0, audit=AuditPolicy(accept_findings=("HF002",)))
    assert accepted.audit.finding("HF002").status == "issue"
    assert accepted.audit.accepted == ("HF002",)


def test_an_unknown_finding_is_named(dataset):
    with pytest.raises(ValueError, match=r"accept_findings: expected a tuple of codes of the audit, got 'HF01'"):
        evaluate(dataset, mean_color(), audit=AuditPolicy(accept_findings=("HF01",)))


@pytest.mark.parametrize("rule", ["youden", "sensitivity=0.9"])
def test_the_threshold_is_chosen_by_the_rule_that_was_asked_for(dataset, rule):
    from histofeat.models import fit_with_inner_scores

    chosen = evaluate(dataset, mean_color(), threshold=rule, **QUICK)
    train = chosen.splits[0][0]
    pipeline = mean_color()
    features = pipeline.transform(dataset.X[train])
    y, patients = dataset.y[train], dataset.patients[train]
    _, inner = fit_with_inner_scores(pipeline.make_head(), features, y, patients, PatientKFold(3))
    assert chosen.models[0].thresholds[0] == choose_threshold(y, inner[:, 1], rule)
    assert chosen.protocol["threshold"] == rule


def test_probabilities_are_calibrated_on_the_training_patients_of_their_fold(evaluation, dataset):
    from histofeat.metrics import fit_calibrator
    from histofeat.models import fit_with_inner_scores

    model, (train, test) = evaluation.models[0], evaluation.splits[0]
    pipeline = mean_color()
    features = pipeline.transform(dataset.X[train])
    y = dataset.y[train]
    _, inner = fit_with_inner_scores(pipeline.make_head(), features, y, dataset.patients[train], PatientKFold(3))
    expected = fit_calibrator(y, inner).transform(model.proba[test])
    np.testing.assert_allclose(model.calibrated[test], expected)


def test_a_search_chooses_inside_the_training_patients_and_is_recorded(dataset):
    search = {"logistic": {"C": [1e-6, 1.0]}}
    searched = evaluate(dataset, mean_color(), search=search, **QUICK)
    model = searched.models[0]
    assert len(model.choices) == 4
    assert all(choice["params"]["C"] in (1e-6, 1.0) for choice in model.choices)
    assert searched.protocol["search"]["params"] == {"logistic": {"C": [1e-6, 1.0]}}
    with pytest.raises(ValueError, match=r"Search\.params: expected names of heads, got 'logistik'"):
        evaluate(dataset, mean_color(), search={"logistik": {"C": [1.0]}}, **QUICK)


def test_all_models_share_their_resamples(dataset):
    found = evaluate(dataset, {"a": mean_color(), "b": mean_color()}, **QUICK).models
    for metric in METRICS:
        np.testing.assert_array_equal(found[0].resamples.samples[metric], found[1].resamples.samples[metric])
    assert found[0].resamples.interval("roc_auc") == found[0].scores["roc_auc"].ci95


def test_repeats_widen_what_is_known_of_the_method_and_nothing_else():
    cohort = make_cohort(n_patients=12, patches_per_patient=6)
    pipelines = {"color": IDCPipeline(features="color", head="logistic")}
    cv = RepeatedPatientKFold(n_splits=3, n_repeats=2, random_state=4)
    more = {"inner_cv": PatientKFold(2), "n_resamples": 40}
    repeated = evaluate(cohort, pipelines, cv, **more)
    first, second = (evaluate(cohort, pipelines, each, **more) for each in cv.repeats())
    assert (repeated.protocol["cv"], repeated.protocol["n_repeats"], len(repeated.splits)) == (repr(cv), 2, 3)
    for kind in ("scores", "tuned"):
        for name, score in getattr(repeated.models[0], kind).items():
            one, other = (getattr(each.models[0], kind)[name] for each in (first, second))
            same = replace(score, method_ci95=one.method_ci95, sd_repeats=one.sd_repeats)
            assert same.to_dict() == one.to_dict()
            assert score.sd_repeats == pytest.approx(np.std([one.value, other.value], ddof=1))
            folds = np.array([*one.folds, *other.folds])
            assert score.method_ci95 == pytest.approx(method_interval(name, one.value, folds, 4 / 8), nan_ok=True), name


def test_limited_training_comes_with_a_curve_of_fewer_patches(cohort):
    pipelines = [("color", IDCPipeline(features="color", head=head)) for head in ("logistic", "qda")]
    settings = {"inner_cv": PatientKFold(2), "n_resamples": 0}
    limits = {most: LimitedTraining(PatientKFold(3), most) for most in (12, 6, 3)}
    found = {most: evaluate(cohort, pipelines[:1], cv, **settings) for most, cv in limits.items()}
    both = evaluate(cohort, pipelines, limits[12], **settings)
    curve = [point for point in both.protocol["training_curve"] if point["head"] == "logistic"]
    assert [point["patches_per_patient"] for point in curve] == [3, 6, 12]
    assert [point["roc_auc"] for point in curve] == [
        found[most].models[0].scores["roc_auc"].value for most in (3, 6, 12)
    ]
    assert [point["n_patches"] for point in curve] == [30, 60, 120]
    assert len(both.protocol["training_curve"]) == 6
    assert [len(one.protocol["training_curve"]) for one in found.values()] == [3, 3, 2]  # a patch a patient: one class
