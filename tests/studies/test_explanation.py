"""Permutation importance and ablation: against loops, scikit-learn, `evaluate`, and models whose truth is known."""

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.inspection import permutation_importance as sklearn_importance
from sklearn.linear_model import LogisticRegression
from test_bootstrap import auc_within_folds, t_by_hand

from histofeat import CNNEmbedding, IDCPipeline, PatientKFold, WeightsError, evaluate
from histofeat.datasets import PatchDataset
from histofeat.exceptions import GroupLeakageError
from histofeat.features import FAMILIES, PatchFeatures, Runtime, make_family
from histofeat.metrics import bootstrap_scores, patient_weights
from histofeat.studies import correlated_groups, permutation_importance
from histofeat.studies._fitted_folds import MeasuredFolds
from histofeat.studies._permutation import column_groups


class Pixel(PatchFeatures):
    """The three values of one pixel of the first row: features whose content the test has written there."""

    family = "pixel"

    def __init__(self, position=0):
        self.position = position

    def _check_params(self):
        pass

    def _feature_names(self):
        return [f"{self.family}_{self.position}_{channel}" for channel in ("a", "b", "c")]

    def _compute(self, batch):
        return batch.rgb[:, 0, self.position].astype(np.float32)


class Other(Pixel):
    family = "other"


class Third(Pixel):
    family = "third"


FAMILIES_HERE = (Pixel(0), Other(1), Third(2))
PIPELINE = IDCPipeline(FAMILIES_HERE, "logistic")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """320 patches of 16 patients, and what is written in them.

    ``pixel``: a signal, its copy in another scale, a constant. ``other``: three noises. ``third``: a weaker signal,
    noise, noise.
    """
    rng, folder = np.random.default_rng(3), tmp_path_factory.mktemp("written")
    n, patients = 320, np.repeat(np.arange(16), 20)
    y = np.tile([0, 1], n // 2)
    signal = 100 + 35 * y + rng.normal(0, 25, n) + rng.normal(0, 12, 16)[patients]
    weak = 120 + 15 * y + rng.normal(0, 30, n)
    noise = rng.integers(0, 256, (5, n))
    columns = np.stack([signal, 20 + signal * 0.8, np.full(n, 7), *noise[:3], weak, *noise[3:]], axis=1)
    columns = np.clip(columns, 0, 255).round().astype(np.uint8)
    paths = []
    for row, values in enumerate(columns):
        patch = np.zeros((4, 4, 3), dtype=np.uint8)
        patch[0, :3] = values.reshape(3, 3)
        patch[1:] = rng.integers(0, 256, (3, 4, 3))  # no two images alike
        paths.append(str(folder / f"{row}.png"))
        cv2.imwrite(paths[-1], patch[..., ::-1])
    frame = pd.DataFrame({"path": paths, "label": y, "patient": patients.astype(str)})
    return PatchDataset(frame.assign(x=pd.NA, y=pd.NA), ("no", "yes"), "written"), columns.astype(np.float32)


@pytest.fixture(scope="module")
def dataset(written):
    return written[0]


@pytest.fixture(scope="module")
def found(dataset):
    kinds = ("family", "group", "correlated", "feature")
    return permutation_importance(dataset, PIPELINE, PatientKFold(4), by=kinds, n_repeats=4, n_resamples=120)


def part(importance, by, name):
    (one,) = [part for part in importance.parts.itertuples() if (part.by, part.name) == (by, name)]
    return one


# --- areas on resamples ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
def test_areas_are_those_of_the_bootstrap(n_classes):
    """Few patients, so that in some resamples a class vanishes."""
    rng = np.random.default_rng(n_classes)
    patients = np.repeat(list("abcdefgh"), 15)
    y = np.where(rng.random(120) < 0.5, rng.integers(0, n_classes, 120), 0)
    y[:75] = 0
    probas = [rng.dirichlet(np.ones(n_classes), 120).round(2) for _ in range(3)]
    probas = [proba / proba.sum(axis=1, keepdims=True) for proba in probas]
    fold = np.isin(patients, list("aceg")).astype(int)
    measured, splits = object.__new__(MeasuredFolds), [((), np.flatnonzero(fold == number)) for number in (0, 1)]
    known = {"y": y, "patients": patients, "fold": fold, "tested": np.arange(120), "splits": splits}
    vars(measured).update(known, n_classes=n_classes)
    by_fold = [[proba[test] for _, test in splits] for proba in probas]
    values, mean = measured.areas(by_fold, n_resamples=200, random_state=5)
    options = {"metrics": ["roc_auc"], "n_resamples": 200, "random_state": 5, "fold": fold}
    wanted = [bootstrap_scores(y, proba, patients, **options) for proba in probas]
    assert mean.n_dropped == wanted[0].n_dropped > 0
    samples = np.mean([one.samples["roc_auc"] for one in wanted], axis=0)
    np.testing.assert_allclose(mean.samples["roc_auc"], samples, rtol=1e-12)
    for proba, value in zip(probas, values, strict=True):
        codes = [1] if n_classes == 2 else range(n_classes)
        expected = np.mean([auc_within_folds(y == code, proba[:, code], fold) for code in codes])
        assert value == pytest.approx(expected, rel=1e-12)
    assert mean.estimates["roc_auc"] == pytest.approx(values.mean())


# --- permutation: the same as others ---------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["logistic", "svm"])
def test_nothing_permuted_is_what_evaluate_finds(dataset, head):
    pipeline, cv = IDCPipeline(FAMILIES_HERE, head), PatientKFold(4)
    score = evaluate(dataset, pipeline, cv, n_resamples=200).models[0].scores["roc_auc"]
    importance = permutation_importance(dataset, pipeline, cv, n_repeats=1, n_resamples=200)
    assert importance.roc_auc == pytest.approx(score.value, rel=1e-12)
    assert importance.ci95 == pytest.approx(score.ci95, rel=1e-12)
    assert (importance.n_patients, importance.n_patches) == (16, 320)


def test_drops_and_intervals_are_those_of_a_loop(written, found):
    """Everything again with scikit-learn and one patch at a time, on the same permutations."""
    dataset, X = written
    y, patients = dataset.y, dataset.patients
    columns = [6, 7, 8]
    plain, permuted, fold_of = np.empty(320), np.empty((4, 320)), np.empty(320, dtype=int)
    for fold, (train, test) in enumerate(PatientKFold(4).split(X, y, patients)):
        mean, sd = X[train].mean(axis=0), X[train].std(axis=0)
        sd[sd == 0] = 1
        model = LogisticRegression(C=0.1, max_iter=2000).fit((X[train] - mean) / sd, y[train])
        plain[test], fold_of[test] = model.predict_proba((X[test] - mean) / sd)[:, 1], fold
        for repeat in range(4):
            order = np.random.default_rng([0, fold, repeat]).permutation(len(test))
            exchanged = X[test].copy()
            for place, taken in enumerate(order):
                exchanged[place, columns] = X[test][taken, columns]
            permuted[repeat][test] = model.predict_proba((exchanged - mean) / sd)[:, 1]
    drops = [auc_within_folds(y, plain, fold_of) - auc_within_folds(y, scores, fold_of) for scores in permuted]
    one = part(found, "family", "third")
    assert one.columns == ("third_2_a", "third_2_b", "third_2_c")
    np.testing.assert_allclose(one.repeats, drops, atol=1e-6)
    assert one.drop == pytest.approx(np.mean(drops), abs=1e-6)
    assert one.repeats_sd == pytest.approx(np.std(drops, ddof=1), abs=1e-6)
    ids = sorted(set(patients), key=int)
    samples = []
    for drawn in patient_weights(patients, 120, 0):
        rows = np.repeat(np.arange(320), [drawn[ids.index(patient)] for patient in patients])
        areas = [auc_within_folds(y[rows], scores[rows], fold_of[rows]) for scores in (plain, *permuted)]
        samples.append(areas[0] - np.mean(areas[1:]))
    assert (one.low, one.high) == pytest.approx(t_by_hand(one.drop, samples, 16, 15, "linear"), abs=1e-6)


def test_within_patients_is_a_loop_over_patients(written):
    dataset, X = written
    y, patients, columns = dataset.y, dataset.patients, [0, 1, 2]
    options = {"n_repeats": 3, "n_resamples": 0, "within_patients": True}
    importance = permutation_importance(dataset, PIPELINE, PatientKFold(4), **options)
    assert importance.within_patients
    plain, permuted, fold_of = np.empty(320), np.empty((3, 320)), np.empty(320, dtype=int)
    for fold, (train, test) in enumerate(PatientKFold(4).split(X, y, patients)):
        mean, sd = X[train].mean(axis=0), X[train].std(axis=0)
        sd[sd == 0] = 1
        model = LogisticRegression(C=0.1, max_iter=2000).fit((X[train] - mean) / sd, y[train])
        plain[test], fold_of[test] = model.predict_proba((X[test] - mean) / sd)[:, 1], fold
        for repeat in range(3):
            rng, exchanged = np.random.default_rng([0, fold, repeat]), X.copy()
            for patient in np.unique(patients[test]):
                own = [row for row in test if patients[row] == patient]
                exchanged[np.ix_(own, columns)] = X[
                    np.ix_([own[place] for place in rng.permutation(len(own))], columns)
                ]
            permuted[repeat][test] = model.predict_proba((exchanged[test] - mean) / sd)[:, 1]
    drops = [auc_within_folds(y, plain, fold_of) - auc_within_folds(y, scores, fold_of) for scores in permuted]
    np.testing.assert_allclose(part(importance, "family", "pixel").repeats, drops, atol=1e-6)


def test_what_only_tells_patients_apart_costs_nothing_within_patients(tmp_path):
    """A colour of the patient that goes with the label in most patients, and nothing else."""
    rng, patients = np.random.default_rng(0), np.repeat(np.arange(20), 10)
    mostly = np.repeat(np.tile([0, 1], 10), 10)
    y = np.where(rng.random(200) < 0.2, 1 - mostly, mostly)
    level = (80 + 90 * mostly[::10] + rng.integers(0, 20, 20))[patients]
    paths = []
    for row in range(200):
        patch = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        patch[0, 0] = level[row]
        paths.append(str(tmp_path / f"{row}.png"))
        cv2.imwrite(paths[-1], patch)
    frame = pd.DataFrame({"path": paths, "label": y, "patient": patients.astype(str), "x": pd.NA, "y": pd.NA})
    dataset, pipeline = PatchDataset(frame, ("no", "yes"), "levels"), IDCPipeline((Pixel(0),), "logistic")
    found = {
        within: permutation_importance(dataset, pipeline, PatientKFold(4), n_resamples=0, within_patients=within)
        for within in (False, True)
    }
    assert found[False].parts["drop"][0] > 0.2
    assert found[True].parts["drop"][0] == 0
    assert found[True].roc_auc == found[False].roc_auc > 0.7


def test_one_fold_agrees_with_scikit_learn(written):
    """Other permutations, so equal up to their scatter."""
    dataset, X = written
    train, test = np.arange(160), np.arange(160, 320)
    pipeline = IDCPipeline(FAMILIES_HERE, "random_forest", head_params={"n_estimators": 30})
    ours = permutation_importance(dataset, pipeline, [(train, test)], by="feature", n_repeats=40, n_resamples=0)
    forest = pipeline.make_head().classifier.fit(X[train], dataset.y[train])
    theirs = sklearn_importance(
        forest, X[test], dataset.y[test], scoring="roc_auc", n_repeats=40, random_state=1
    ).importances
    names = [name for family in FAMILIES_HERE for name in family.get_feature_names_out()]
    for name, drops in zip(names, theirs, strict=True):
        one = part(ours, "feature", name)
        error = np.sqrt((drops.var(ddof=1) + one.repeats_sd**2) / 40)
        assert abs(one.drop - drops.mean()) <= 4 * error + 1e-12
    assert part(ours, "feature", "pixel_0_a").drop > 0.03


# --- permutation: what is known --------------------------------------------------------------------------------------


def test_only_what_carries_the_label_costs(found):
    assert found.parts.query("by == 'family'")["name"].tolist() == ["pixel", "third", "other"]
    signal, noise = part(found, "family", "pixel"), part(found, "family", "other")
    assert signal.drop > 0.1
    assert signal.low > 0.05
    assert abs(noise.drop) < 0.02
    assert part(found, "feature", "third_2_a").drop > 5 * abs(part(found, "feature", "third_2_b").drop)
    assert 0.7 < found.ci95[0] < found.roc_auc < found.ci95[1]


def test_without_its_only_signal_a_model_is_at_chance(dataset):
    importance = permutation_importance(dataset, IDCPipeline((Pixel(0),), "logistic"), n_repeats=20, n_resamples=100)
    (one,) = importance.parts.itertuples()
    assert importance.roc_auc - one.drop == pytest.approx(0.5, abs=0.03)


def test_copies_hide_each_other_until_they_are_permuted_together(found):
    alone = [part(found, "feature", f"pixel_0_{channel}").drop for channel in "ab"]
    together = part(found, "correlated", "pixel_0_a and 1 more")
    assert together.columns == ("pixel_0_a", "pixel_0_b")
    assert together.drop > sum(alone)
    assert max(alone) < 0.6 * together.drop


def test_a_constant_part_costs_nothing_and_is_not_scored(dataset, monkeypatch):
    importance = permutation_importance(dataset, PIPELINE, by="feature", n_repeats=2, n_resamples=20)
    assert part(importance, "feature", "pixel_0_c").repeats == (0.0, 0.0)
    calls = []
    monkeypatch.setattr(
        "histofeat.studies._fitted_folds.MeasuredFolds.probabilities",
        lambda self, head, X: calls.append(len(X)) or np.full((len(X), 2), 0.5),
    )
    permutation_importance(dataset, PIPELINE, PatientKFold(4), by={"c": ["pixel_0_c"], "a": ["pixel_0_a"]}, n_repeats=3)
    assert sum(calls) == 320 * (1 + 3)


def test_all_columns_together_leave_nothing(dataset, found):
    names = [name for family in FAMILIES_HERE for name in family.get_feature_names_out()]
    everything = permutation_importance(dataset, PIPELINE, PatientKFold(4), by={"everything": names}, n_repeats=20)
    assert everything.roc_auc == found.roc_auc
    assert everything.parts["by"][0] == "given"
    assert everything.roc_auc - everything.parts["drop"][0] == pytest.approx(0.5, abs=0.04)


def test_more_than_two_classes(cohort):
    frame = cohort.frame.assign(
        label=cohort.frame["label"] + (np.arange(len(cohort)) % 2) * (cohort.frame["label"] > 0)
    )
    three = PatchDataset(frame, ("a", "b", "c"), "three")
    pipeline, cv = IDCPipeline(("color", "lbp"), "logistic"), PatientKFold(2)
    importance = permutation_importance(three, pipeline, cv, n_repeats=2, n_resamples=50)
    score = evaluate(three, pipeline, cv, inner_cv=PatientKFold(2), n_resamples=50).models[0].scores["roc_auc"]
    assert importance.roc_auc == pytest.approx(score.value, rel=1e-12)
    assert importance.ci95 == pytest.approx(score.ci95, rel=1e-12)


# --- permutation: how it is used -------------------------------------------------------------------------------------


def test_threads_and_the_store_change_nothing(dataset, tmp_path):
    options = {"by": ("family", "feature"), "n_repeats": 2, "n_resamples": 30}
    told = []
    first = permutation_importance(
        dataset,
        PIPELINE,
        runtime=Runtime(store=tmp_path / "s.sqlite", progress=lambda *news: told.append(news)),
        **options,
    )
    second = permutation_importance(
        dataset, PIPELINE, runtime=Runtime(store=tmp_path / "s.sqlite", n_jobs=3), **options
    )
    pd.testing.assert_frame_equal(first.parts, second.parts, check_exact=True)
    assert (first.roc_auc, first.ci95) == (second.roc_auc, second.ci95)
    assert [news for news in told if news[0] == "permute"][-1] == ("permute", 12, 12)
    assert ("fit", 5, 5) in told


def test_a_frame_has_a_row_for_each_part(found):
    frame = found.to_frame()
    assert list(frame.columns) == ["by", "name", "n_columns", "drop", "low", "high", "repeats_sd"]
    assert frame.groupby("by")["n_columns"].sum().to_dict() == {
        "correlated": 9, "family": 9, "feature": 9, "group": 9,
    }  # fmt: skip
    for _, rows in frame.groupby("by"):
        assert (rows["drop"].diff().dropna() <= 0).all()


def test_families_of_one_name_are_one_part(dataset):
    importance = permutation_importance(
        dataset, IDCPipeline((Pixel(0), Other(1), Pixel(2)), "logistic"), n_repeats=1, n_resamples=0
    )
    assert dict(zip(importance.parts["name"], importance.parts["n_columns"], strict=True)) == {"pixel": 6, "other": 3}


def test_without_resamples_there_are_no_intervals(dataset):
    importance = permutation_importance(dataset, PIPELINE, n_repeats=1, n_resamples=0)
    assert np.isnan(importance.ci95).all()
    assert importance.parts[["low", "high", "repeats_sd"]].isna().all(axis=None)


def test_a_normaliser_stands_before_the_families(cohort):
    pipeline, cv = IDCPipeline(("color",), "logistic", normalizer="reinhard"), PatientKFold(2)
    importance = permutation_importance(cohort, pipeline, cv, n_repeats=1, n_resamples=20)
    inner = PatientKFold(2)
    score = evaluate(cohort, pipeline, cv, inner_cv=inner, n_resamples=20).models[0].scores["roc_auc"]
    plain = permutation_importance(cohort, IDCPipeline(("color",), "logistic"), cv, n_repeats=1, n_resamples=20)
    assert importance.roc_auc == pytest.approx(score.value, rel=1e-12)
    assert importance.roc_auc != plain.roc_auc


class Margins(ClassifierMixin, BaseEstimator):
    """A classifier without probabilities."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.model_ = LogisticRegression().fit(X / 255, y)
        return self

    def decision_function(self, X):
        return self.model_.decision_function(X / 255)


def test_a_head_without_probabilities_is_calibrated_as_in_evaluate(dataset):
    from histofeat.models import FeatureHead

    pipeline = IDCPipeline(FAMILIES_HERE, FeatureHead(Margins()))
    importance = permutation_importance(dataset, pipeline, n_repeats=1, n_resamples=0)
    assert importance.roc_auc == pytest.approx(
        evaluate(dataset, pipeline, n_resamples=0).models[0].scores["roc_auc"].value, rel=1e-12
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "familie"}, r"permutation_importance.by: expected some of .* got 'familie'. Did you mean 'family'"),
        ({"by": ("family", 3)}, r"permutation_importance.by: expected some of .* got 3"),
        ({"by": ()}, r"permutation_importance.by: expected some of .* got \(\)"),
        ({"by": {"x": ["pixel_0_a", "pixel_9", "q"]}}, r"by\['x'\]: expected names .* got 'pixel_9'"),
        ({"by": {"x": []}}, r"by\['x'\]: expected names of columns of the pipeline, got None"),
        ({"n_repeats": 0}, r"permutation_importance.n_repeats: expected a whole number of at least 1, got 0"),
        ({"n_repeats": True}, r"permutation_importance.n_repeats: .* got True"),
        ({"n_resamples": -1}, r"n_resamples: expected a whole number of at least 0, got -1"),
        ({"random_state": None}, r"random_state: expected a whole number of at least 0, got None"),
        (
            {"by": "correlated", "correlation": 1.5},
            r"correlated_groups.level: expected a number between 0 and 1, got 1.5",
        ),
    ],
)
def test_bad_arguments_are_refused(dataset, options, message):
    with pytest.raises(ValueError, match=message):
        permutation_importance(dataset, PIPELINE, **options)


def test_what_cannot_be_explained_is_refused(dataset, tmp_path):
    with pytest.raises(ValueError, match=r"explanation.pipeline: expected an IDCPipeline, got 'color'"):
        permutation_importance(dataset, "color")
    rows = np.arange(320)
    with pytest.raises(GroupLeakageError, match="patient"):
        permutation_importance(dataset, PIPELINE, [(rows[::2], rows[1::2])])
    negative = np.flatnonzero(dataset.y == 0)
    cv = [(rows[:160], negative[negative >= 160])]
    with pytest.raises(ValueError, match=r"explanation.cv: expected tested patches of every class, got none of 'yes'"):
        permutation_importance(dataset, PIPELINE, cv)
    network = CNNEmbedding("mobilenet_0.25", weights=tmp_path / "none.h5")
    with pytest.raises(WeightsError, match=r"none.h5"):
        permutation_importance(dataset, IDCPipeline((Pixel(), network), "logistic"))
    with pytest.raises(ValueError, match=r"expected families with columns of their own, got 'pixel_0_a'"):
        permutation_importance(dataset, IDCPipeline((Pixel(), Pixel()), "logistic"))


# --- groups ----------------------------------------------------------------------------------------------------------


def test_groups_by_name_are_a_partition():
    sizes = {}
    for name in FAMILIES:
        family = make_family(name)
        groups = column_groups([family])
        columns = [column for members in groups.values() for column in members]
        assert columns == list(family.get_feature_names_out())
        assert all(column.startswith(group) for group, members in groups.items() for column in members)
        sizes[name] = {len(members) for members in groups.values()} if name != "lbp" else groups.keys()
    assert sizes["color"] == {20}
    assert sizes["haralick"] == {26}
    assert sizes["pftas"] == {54}
    assert sizes["lbp"] == {"lbp_gray_r1", "lbp_gray_r2", "lbp_gray_r3"}
    assert sizes["cnn"] == {1280}
    assert column_groups([make_family("gray")]).keys() == {"gray"}
    two = column_groups([make_family("lbp", radii_px=(1,)), make_family("lbp", radii_px=(2,))])
    assert list(two) == ["lbp_gray_r1", "lbp_gray_r2"]


def test_correlated_groups_hold_close_columns_and_no_two_could_be_joined():
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(200, 4))
    X = np.hstack([latent[:, [i % 4]] * rng.choice([-1, 1]) + rng.normal(0, 0.05 * i, (200, 1)) for i in range(14)])
    X = np.column_stack([X, np.exp(X[:, 0]), np.full(200, 3.0)])
    names = [f"c{i}" for i in range(16)]
    groups = list(correlated_groups(X, names, level=0.8).values())
    assert sorted(name for group in groups for name in group) == sorted(names)
    rho = np.abs(spearmanr(X[:, :15]).statistic)

    def closest(columns):
        numbers = [int(name[1:]) for name in columns]
        return rho[np.ix_(numbers, numbers)].min()

    varying = [group for group in groups if group != ("c15",)]
    assert len(varying) == len(groups) - 1
    assert max(map(len, varying)) > 2
    for group in varying:
        assert closest(group) >= 0.8 - 1e-9
    for i, one in enumerate(varying):
        for other in varying[:i]:
            assert closest(one + other) < 0.8
    (first,) = [group for group in varying if "c0" in group]
    assert "c14" in first  # a rank correlation sees through a curve
    assert correlated_groups(X, names, level=0.8).keys() == correlated_groups(X[::-1], names, level=0.8).keys()


def test_correlated_groups_of_many_rows_use_some(monkeypatch):
    monkeypatch.setattr("histofeat.studies._permutation._MOST_ROWS", 50)
    X = np.random.default_rng(0).normal(size=(1_000, 3))
    X[:, 1] = X[:, 0]
    used = np.unique(np.linspace(0, 999, 50).round().astype(int))
    X[np.setdiff1d(np.arange(1_000), used), 1] = 0
    assert correlated_groups(X, ["a", "b", "c"])["a and 1 more"] == ("a", "b")


@pytest.mark.parametrize(
    ("features", "level", "message"),
    [
        (np.zeros((5, 2)), 0, r"level: expected a number between 0 and 1, got 0"),
        (np.zeros((5, 3)), 0.9, r"features: expected shape \(n, 2\), got \(5, 3\)"),
    ],
)
def test_bad_groups_are_refused(features, level, message):
    with pytest.raises(ValueError, match=rf"correlated_groups\.{message}"):
        correlated_groups(features, ["a", "b"], level=level)


def test_one_column_is_one_group():
    assert correlated_groups(np.zeros((3, 1)), ["a"]) == {"a": ("a",)}
