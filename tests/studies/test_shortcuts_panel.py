"""The shortcut panel: what it computes, what it says it could not, and what it refuses."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from test_bootstrap import auc_within_folds, t_by_hand

from histofeat.datasets import PatchDataset
from histofeat.evaluation import evaluate
from histofeat.exceptions import DatasetError, WeightsError
from histofeat.features import LBPHistogram, PatchFeatures, Runtime
from histofeat.metrics import patient_weights
from histofeat.model_selection import PatchKFold, PatientKFold
from histofeat.models import IDCPipeline, make_head
from histofeat.studies import MeanColor, panel_of, shortcut_panel
from histofeat.studies._shortcut_families import coordinate_features
from histofeat.studies._shortcuts import PROBE_HEAD, strata_of

QUICK = {"families_to_identify": (), "n_resamples": 80}


class NoWeights(PatchFeatures):
    """A network whose weights are not there."""

    family = "network"

    def _check_params(self):
        pass

    def _feature_names(self):
        return ["x"]

    def _compute(self, batch):
        raise WeightsError("NoWeights.weights: expected a file, got none. Put it there.")


def write_dataset(root, colors, y, patients, names=("benign", "malignant"), place=True):
    """Write one 10x10 patch a row, of the colour given, with some noise."""
    paths = [str(root / f"{row}.png") for row in range(len(y))]
    rng = np.random.default_rng(0)
    for path, color in zip(paths, colors, strict=True):
        assert cv2.imwrite(path, np.clip(color[::-1] + rng.normal(0, 9, (10, 10, 3)), 0, 255).astype(np.uint8))
    frame = pd.DataFrame({"path": paths, "label": y, "patient": [str(p) for p in patients]})
    places = rng.integers(0, 40, (len(y), 2)) * 50 + 1 if place else np.full((len(y), 2), pd.NA)
    return PatchDataset(frame.assign(x=places[:, 0], y=places[:, 1]), names, "synthetic", root=root, synthetic=True)


@pytest.fixture(scope="module", autouse=True)
def _few_trees():
    """Fewer trees than a panel has, which are enough here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROBE_HEAD, "n_estimators", 12)
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Sixteen patients of twelve patches; malignant is darker in red, with overlap; coordinates say nothing."""
    rng = np.random.default_rng(0)
    patients, y = np.repeat(np.arange(16), 12), rng.integers(0, 2, 192)
    colors = rng.normal(0, 12, (192, 3)) + 140
    colors[:, 0] -= 15 * y
    return write_dataset(tmp_path_factory.mktemp("patches"), colors, y, patients)


@pytest.fixture(scope="module")
def splits(dataset):
    return list(PatientKFold(4).split(dataset.X, dataset.y, dataset.patients))


@pytest.fixture(scope="module")
def reference(dataset, splits):
    """Two models: one that knows a little, and one that knows nothing."""
    rng = np.random.default_rng(1)
    good = np.clip(0.5 + 0.25 * (dataset.y - 0.5) + rng.normal(0, 0.15, 192), 0, 1)
    none = rng.random(192)
    return {name: np.column_stack([1 - score, score]) for name, score in (("none", none), ("good", good))}


@pytest.fixture(scope="module")
def panel(dataset, splits, reference):
    return shortcut_panel(
        dataset, splits, reference_scores=reference, families_to_identify=("lbp",), n_resamples=200, random_state=5
    )


def folds_of(splits):
    return np.concatenate([np.full(len(test), number) for number, (_, test) in enumerate(splits)])[
        np.argsort(np.concatenate([test for _, test in splits]))
    ]


def by_name(panel):
    return {row.name: row for row in panel.rows}


# --- what is computed ------------------------------------------------------------------------------------------------


def test_rows_in_order_with_their_columns(panel):
    assert [(row.name, row.n_features) for row in panel.rows] == [
        ("mean_color", 3),
        ("background", 1),
        ("compression_and_blur", 4),
        ("coordinates", 4),
        ("all of these together", 12),
    ]
    assert [entry.family for entry in panel.identification] == [
        "mean_color",
        "background",
        "compression_and_blur",
        "lbp",
    ]
    assert (panel.n_patients, panel.n_patches, panel.n_folds, panel.n_resamples) == (16, 192, 4, 200)
    assert panel.not_run == ()
    assert not panel.patient_overlap


def test_a_probe_is_the_small_head_fitted_fold_by_fold(panel, dataset, splits):
    features = {"mean_color": MeanColor().transform(dataset.X), "coordinates": coordinate_features(dataset)}
    for name, matrix in features.items():
        score = np.empty(len(dataset))
        for train, test in splits:
            head = make_head("xgboost", random_state=5, params=PROBE_HEAD).fit(matrix[train], dataset.y[train])
            score[test] = head.predict_proba(matrix[test])[:, 1]
        assert by_name(panel)[name].roc_auc == pytest.approx(auc_within_folds(dataset.y, score, folds_of(splits)))


def test_the_planted_colour_is_found_and_places_say_nothing(panel):
    assert by_name(panel)["mean_color"].ci95[0] > 0.6
    assert by_name(panel)["coordinates"].ci95[0] < 0.5 < by_name(panel)["coordinates"].ci95[1]


def test_the_model_within_strata_of_a_shortcut_by_loops(panel, dataset, splits, reference):
    assert panel.reference.name == "good"
    fold, good = folds_of(splits), reference["good"][:, 1]
    assert panel.reference.roc_auc == pytest.approx(auc_within_folds(dataset.y, good, fold))
    row = by_name(panel)["mean_color"]
    matrix, score, stratum = MeanColor().transform(dataset.X), np.empty(192), np.empty(192, dtype=int)
    for number, (train, test) in enumerate(splits):
        head = make_head("xgboost", random_state=5, params=PROBE_HEAD).fit(matrix[train], dataset.y[train])
        score[test] = head.predict_proba(matrix[test])[:, 1]
        edges = [np.quantile(score[test], tenth / 10) for tenth in range(1, 10)]
        stratum[test] = [100 * number + sum(score[patch] > edge for edge in edges) for patch in test]
    assert row.within == pytest.approx(auc_within_folds(dataset.y, good, stratum))
    assert row.left == pytest.approx(auc_within_folds(dataset.y, score, stratum))
    assert row.roc_auc - row.left > 0.1
    codes, samples = dataset.patients.astype(int), []
    for weights in patient_weights(dataset.patients, 200, 5):
        drawn = np.repeat(np.arange(len(dataset)), weights[codes])
        samples.append(auc_within_folds(dataset.y[drawn], good[drawn], stratum[drawn]))
    df = min(len(set(codes[dataset.y == code])) for code in (0, 1)) - 1
    assert row.within_ci95 == pytest.approx(t_by_hand(row.within, samples, 16, df))
    assert row.within_ci95[0] < row.within < row.within_ci95[1]


def test_a_model_that_is_the_shortcut_adds_nothing(dataset, splits):
    """The probe itself as the model: within its strata it has what they leave of it."""
    matrix, proba = MeanColor().transform(dataset.X), np.empty((192, 2))
    for train, test in splits:
        head = make_head("xgboost", random_state=0, params=PROBE_HEAD).fit(matrix[train], dataset.y[train])
        proba[test] = head.predict_proba(matrix[test])
    row = by_name(shortcut_panel(dataset, splits, reference_scores={"itself": proba}, **QUICK))["mean_color"]
    assert row.within == row.left
    assert row.left < 0.65 < row.roc_auc
    assert np.isnan(shortcut_panel(dataset, splits, families_to_identify=(), n_resamples=0).rows[0].left)


def test_scores_without_a_difference_are_one_stratum():
    fold = np.repeat([0, 1], 20)
    assert len(set(strata_of(np.full(40, 0.3), fold))) == 2
    strata = strata_of(np.tile(np.arange(20.0), 2), fold)
    assert np.bincount(strata).tolist() == [2] * 20


@pytest.mark.parametrize("nothing", [None, {}])
def test_without_a_model_there_are_no_strata(dataset, splits, nothing):
    panel = shortcut_panel(dataset, splits, reference_scores=nothing, **QUICK)
    assert panel.reference is None
    assert all(np.isnan([row.within, row.left]).all() for row in panel.rows)


def test_rows_that_are_never_tested_take_no_part(dataset, splits, reference):
    (train, test), *_ = splits
    proba = np.full((192, 2), np.nan)
    proba[test] = reference["good"][test]
    panel = shortcut_panel(dataset, [(train, test)], reference_scores={"good": proba}, **QUICK)
    assert (panel.n_patches, panel.n_patients) == (len(test), len(set(dataset.patients[test])))
    assert panel.reference.roc_auc == pytest.approx(roc_auc_score(dataset.y[test], proba[test, 1]))


def test_the_result_depends_on_neither_threads_nor_store(panel, dataset, splits, reference, tmp_path):
    settings = {"reference_scores": reference, "families_to_identify": ("lbp",), "n_resamples": 200, "random_state": 5}
    for _ in range(2):
        assert shortcut_panel(dataset, splits, runtime=Runtime(n_jobs=2, store=tmp_path / "store"), **settings) == panel


def test_the_panel_of_an_evaluation_has_its_folds_resamples_and_best_model(dataset, tmp_path):
    pipelines = {"lbp": IDCPipeline("lbp", "logistic"), "mean": IDCPipeline((MeanColor(),), "logistic")}
    evaluation = evaluate(
        dataset, pipelines, PatientKFold(3), n_resamples=60, random_state=2, runtime=Runtime(store=tmp_path / "s")
    )
    panel = panel_of(evaluation, families_to_identify=(), runtime=Runtime(store=tmp_path / "s"))
    assert panel.reference.name == "mean, logistic"
    best = evaluation.models[1].scores["roc_auc"]
    assert (panel.reference.roc_auc, panel.reference.ci95) == (best.value, best.ci95)
    assert (panel.n_folds, panel.n_resamples, panel.random_state) == (3, 60, 2)


def test_shared_patients_are_marked(dataset):
    leaking = list(PatchKFold(3).split(dataset.X, dataset.y, dataset.patients))
    assert shortcut_panel(dataset, leaking, **QUICK).patient_overlap


def test_more_than_two_classes(tmp_path):
    rng = np.random.default_rng(0)
    y = np.tile([0, 1, 2], 40)
    colors = np.array([[220, 90, 90], [90, 220, 90], [90, 90, 220]])[y] + rng.normal(0, 50, (120, 3))
    several = write_dataset(tmp_path, colors, y, np.repeat(np.arange(10), 12), ("a", "b", "c"))
    folds = list(PatientKFold(2).split(several.X, y, several.patients))
    panel = shortcut_panel(several, folds, reference_scores={"guess": np.full((120, 3), 1 / 3)}, **QUICK)
    assert by_name(panel)["mean_color"].roc_auc > 0.8
    # Strata of a score are for two classes.
    assert all(np.isnan([row.within, *row.within_ci95, row.left]).all() for row in panel.rows)
    # A fold that trains on two classes only still gives three columns.
    two = [(np.flatnonzero((y < 2) & (np.arange(120) < 60)), np.arange(60, 120))]
    assert by_name(shortcut_panel(several, two, **QUICK))["mean_color"].roc_auc > 0.6


def test_the_content_is_plain_json(panel, dataset, splits):
    content = json.loads(json.dumps(panel.to_dict(), allow_nan=False))
    assert content["rows"][0]["ci95"] == list(panel.rows[0].ci95)
    assert content["reference"]["name"] == "good"
    bare = shortcut_panel(dataset, splits, families_to_identify=(), n_resamples=0).to_dict()
    assert bare["rows"][0]["within"] is None
    assert bare["rows"][0]["ci95"] == [None, None]
    assert bare["reference"] is None


# --- what cannot run -------------------------------------------------------------------------------------------------


def test_without_coordinates_their_probe_does_not_run(tmp_path):
    y, patients = np.tile([0, 1], 24), np.repeat(np.arange(4), 12)
    without = write_dataset(tmp_path, np.full((48, 3), 120), y, patients, place=False)
    panel = shortcut_panel(without, list(PatientKFold(2).split(y, y, patients)), **QUICK)
    assert "coordinates" not in by_name(panel)
    assert by_name(panel)["all of these together"].n_features == 8
    (skipped,) = panel.not_run
    assert skipped.name == "coordinates"
    assert "expected x and y for every patch, got none for " in skipped.reason
    with pytest.raises(DatasetError, match=r"got none for '.*' \(and 47 more\)"):
        coordinate_features(without)


def test_a_network_without_weights_and_patients_of_few_patches_are_told(dataset, splits):
    panel = shortcut_panel(dataset, splits, families_to_identify=(NoWeights(),), n_resamples=0)
    assert [entry.family for entry in panel.identification] == ["mean_color", "background", "compression_and_blur"]
    assert panel.not_run[0].name == "network: patient identification"
    assert panel.not_run[0].reason.startswith("NoWeights.weights: expected a file")
    few = dataset.subset(np.flatnonzero(np.arange(192) % 12 < 8))
    panel = shortcut_panel(few, list(PatientKFold(2).split(few.X, few.y, few.patients)), **QUICK)
    assert panel.identification == ()
    assert panel.not_run[0].reason == "0 of 16 patients have 10 patches or more; it takes two."


def test_two_settings_of_a_family_are_told_apart(dataset, splits):
    two = (LBPHistogram(radii_px=(1,)), LBPHistogram(radii_px=(2,)))
    panel = shortcut_panel(dataset, splits, families_to_identify=two, n_resamples=0)
    assert [entry.family for entry in panel.identification[3:]] == [
        "LBPHistogram(radii_px=(1,))",
        "LBPHistogram(radii_px=(2,))",
    ]


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "expected at least one pair of .train, test. rows, got 0"),
        ([([0, 1], [192])], "test side of fold 1: expected row numbers from 0 to 191, got 192 to 192"),
        ([([0, 1], [2]), ([-1], [3])], "training side of fold 2: expected row numbers"),
        ([([0.5], [2])], "got float64 of"),
        ([([], [2])], "got float64 of shape"),
        ([([0, 2], [2, 3])], r"got row 2 on both sides of fold 1 \(1 such rows\)"),
        ([([0], [2, 3]), ([1], [3])], r"tested at most once, got row 3 tested again \(1 such rows\)"),
    ],
)
def test_splits_that_do_not_fit_are_refused(dataset, given, message):
    with pytest.raises(ValueError, match=rf"shortcut_panel\.splits.*{message}"):
        shortcut_panel(dataset, given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((192, 2)), "expected a mapping of names to probabilities, got ndarray"),
        ({"m": np.zeros((3, 2))}, r"expected shape \(192, 2\), got \(3, 2\)"),
    ],
)
def test_reference_scores_that_do_not_fit_are_refused(dataset, splits, given, message):
    with pytest.raises(ValueError, match=rf"shortcut_panel\.reference_scores(\['m'\])?: {message}"):
        shortcut_panel(dataset, splits, reference_scores=given, **QUICK)


def test_scores_with_gaps_are_refused(dataset, splits, reference):
    proba = reference["good"].copy()
    proba[7] = np.nan
    with pytest.raises(ValueError, match=r"expected probabilities from 0 to 1, got .* in row 7"):
        shortcut_panel(dataset, splits, reference_scores={"m": proba}, **QUICK)


def test_what_is_no_family_is_refused(dataset, splits):
    with pytest.raises(ValueError, match="expected the name of a feature family, got 'colour'"):
        shortcut_panel(dataset, splits, families_to_identify=("colour",))
    with pytest.raises(ValueError, match=r"families_to_identify: expected names or estimators .*, got int"):
        shortcut_panel(dataset, splits, families_to_identify=(7,))


# --- coordinates -----------------------------------------------------------------------------------------------------


def test_coordinates_by_a_loop_over_patients(dataset):
    found, frame = coordinate_features(dataset), dataset.frame
    for patient in set(dataset.patients):
        rows = np.flatnonzero(dataset.patients == patient)
        for column, axis in enumerate("xy"):
            values = frame[axis].to_numpy(dtype=float)[rows]
            np.testing.assert_allclose(found[rows, column], values)
            np.testing.assert_allclose(
                found[rows, 2 + column], (values - values.min()) / (values.max() - values.min()), rtol=1e-6
            )
