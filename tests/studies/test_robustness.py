"""Scores under perturbations: against a loop by hand, paired intervals, normalisers in their folds, and the studies."""

import json

import numpy as np
import pandas as pd
import pytest
from test_bootstrap import auc_within_folds, t_by_hand

from histofeat import IDCPipeline, LBPHistogram, PatientKFold, make_cohort
from histofeat.features import Runtime, make_family
from histofeat.images import PERTURBATIONS, MacenkoNormalizer, as_images, perturbed_images
from histofeat.images._perturbations import perturb
from histofeat.metrics import patient_weights
from histofeat.model_selection import encode_patients
from histofeat.studies import find_study, measure_robustness
from histofeat.studies._robustness import CLEAN, all_conditions

STRONG = ("stain_balance", -4)
SMALL = {"metrics": ("roc_auc",), "n_resamples": 60}


def color(**params):
    return IDCPipeline("color", "logistic", feature_params={"color__spaces": ("rgb",), "color__bins": 8}, **params)


@pytest.fixture(scope="module")
def measured(cohort):
    pipelines = {"color": color(), "lbp": IDCPipeline(LBPHistogram((1,)), "logistic")}
    conditions = [STRONG, ("turn", 1), ("turn", 3)]
    return measure_robustness(cohort, pipelines, PatientKFold(3), conditions=conditions, **SMALL)


def by_hand(cohort, condition, splits, normalizer=None):
    """Out-of-fold probabilities of the colour pipeline: everything in memory, fold by fold."""
    images = as_images(cohort.X)
    patches = [images.decode(i, images.content(i))[0] for i in range(len(images))]
    family = make_family("color", spaces=("rgb",), bins=8)
    proba = np.empty(len(cohort))
    for train, test in splits:
        clean = [patches[i] for i in train]
        changed = [patches[i] if condition == CLEAN else perturb(patches[i][None], *condition)[0] for i in test]
        if normalizer is not None:
            groups = cohort.patients
            fitted = normalizer.fit(clean, groups=groups[train])
            clean = fitted.transform(clean, groups=groups[train])
            changed = fitted.transform(changed, groups=groups[test])
        head = color().make_head().fit(family.transform(clean), cohort.y[train])
        proba[test] = head.predict_proba(family.transform(changed))[:, 1]
    return proba


def folds_of(splits):
    fold = np.empty(sum(len(test) for _, test in splits), dtype=int)
    for number, (_, test) in enumerate(splits):
        fold[test] = number
    return fold


def row_of(found, pipeline, condition, metric="roc_auc"):
    wanted = (pipeline, *condition, metric)
    return next(
        row for row in found.table.itertuples() if (row.pipeline, row.perturbation, row.severity, row.metric) == wanted
    )


# --- against a loop ------------------------------------------------------------------------------------------------


def test_scores_and_drops_are_those_of_a_loop(cohort, measured):
    splits = list(PatientKFold(3).split(cohort.X, cohort.y, cohort.patients))
    clean, bent = (by_hand(cohort, condition, splits) for condition in (CLEAN, STRONG))
    row, fold = row_of(measured, "color", STRONG), folds_of(splits)
    assert row.value == pytest.approx(auc_within_folds(cohort.y, bent, fold))
    assert row.drop == pytest.approx(auc_within_folds(cohort.y, clean, fold) - row.value)
    assert row.largest_change == pytest.approx(np.abs(clean - bent).max(), abs=1e-6)
    assert row.amount == pytest.approx(1 / 1.5)
    # The interval, patient by patient and resample by resample.
    _, codes = encode_patients(cohort.patients, len(cohort))
    drops = []
    for weights in patient_weights(cohort.patients, 60, 0):
        rows = np.repeat(np.arange(len(cohort)), weights[codes])
        if len(np.unique(cohort.y[rows])) == 2:
            before, after = (auc_within_folds(cohort.y[rows], p[rows], fold[rows]) for p in (clean, bent))
            drops.append(before - after)
    df = min(len(set(cohort.patients[cohort.y == code])) for code in (0, 1)) - 1
    assert (row.drop_low, row.drop_high) == pytest.approx(t_by_hand(row.drop, drops, 15, df, "linear"))


def test_the_patch_as_it_came_is_the_yardstick(measured, cohort):
    base = row_of(measured, "color", CLEAN)
    assert (base.drop, base.largest_change) == (0, 0)
    assert np.isnan([base.amount, base.drop_low, base.drop_high]).all()
    assert (measured.n_patients, measured.n_patches) == (15, len(cohort))
    frame = measured.table
    assert len(frame) == 2 * 4
    assert list(dict.fromkeys(frame["perturbation"])) == ["none", "stain_balance", "turn"]


def test_turns_cost_nothing_where_that_is_promised(measured):
    for pipeline in ("color", "lbp"):
        for severity in (1, 3):
            row = row_of(measured, pipeline, ("turn", severity))
            assert row.drop == 0
            assert row.largest_change < 1e-5


def test_two_pipelines_are_compared_on_the_same_resamples(measured):
    difference, paired = measured.compare("color", "lbp", STRONG)
    first, second = (row_of(measured, name, STRONG) for name in ("color", "lbp"))
    assert difference == first.value - second.value
    samples = [measured.resamples[name, *STRONG].samples["roc_auc"] for name in ("color", "lbp")]
    np.testing.assert_array_equal(paired.samples["roc_auc"], samples[0] - samples[1])
    low, high = paired.interval("roc_auc")
    assert low <= difference <= high
    with pytest.raises(ValueError, match=r"measured, got \('colour', 'none', 0, 'roc_auc'\)\. Pipelines: color, lbp"):
        measured.compare("colour", "lbp")


# --- normalisers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["patch", "patient"])
def test_a_normaliser_learns_from_training_patients_and_meets_perturbed_patches(cohort, unit):
    pipelines = {"none": color(), "macenko": color(normalizer="macenko", normalizer_params={"unit": unit})}
    splits = list(PatientKFold(2).split(cohort.X, cohort.y, cohort.patients))
    found = measure_robustness(cohort, pipelines, splits, conditions=[STRONG], **SMALL)
    for condition in (CLEAN, STRONG):
        expected = by_hand(cohort, condition, splits, MacenkoNormalizer(unit))
        area = auc_within_folds(cohort.y, expected, folds_of(splits))
        assert row_of(found, "macenko", condition).value == pytest.approx(area, abs=1e-3)
    alone = measure_robustness(cohort, {"none": pipelines["none"]}, splits, conditions=[STRONG], **SMALL)
    assert row_of(alone, "none", STRONG) == row_of(found, "none", STRONG)


# --- how it is run -------------------------------------------------------------------------------------------------


def test_few_patches_of_each_patient_and_the_same_under_every_perturbation(cohort):
    pipelines = {"color": color()}
    settings = {"conditions": [("turn", 2)], "patches_per_patient": 5, **SMALL}
    found = measure_robustness(cohort, pipelines, PatientKFold(3), **settings)
    assert (found.n_patients, found.n_patches) == (15, 75)
    assert row_of(found, "color", ("turn", 2)).largest_change < 1e-5  # other patches would score otherwise
    other = measure_robustness(cohort, pipelines, PatientKFold(3), random_state=1, **settings)
    assert row_of(other, "color", CLEAN).value != row_of(found, "color", CLEAN).value


def test_threads_and_a_store_change_nothing(cohort, tmp_path):
    pipelines = {"color": color(), "other": IDCPipeline("color", "logistic")}  # the same columns, other numbers
    told = []
    settings = {"cv": PatientKFold(2), "conditions": [STRONG], **SMALL}
    one = measure_robustness(cohort, pipelines, **settings)
    two = measure_robustness(
        cohort,
        pipelines,
        runtime=Runtime(n_jobs=2, store=tmp_path / "f.sqlite", progress=lambda *at: told.append(at)),
        **settings,
    )
    pd.testing.assert_frame_equal(one.table, two.table, check_exact=True)
    assert told == [("measure", done, 3) for done in (1, 2, 3)]


def test_all_conditions_are_those_of_the_table():
    conditions = all_conditions()
    assert len(conditions) == sum(len(found.amounts) for found in PERTURBATIONS.values())
    assert all(severity != 0 for _, severity in conditions)


def test_a_head_without_probabilities_is_calibrated(cohort):
    found = measure_robustness(cohort, {"svm": color().set_params(head="svm")}, PatientKFold(2), conditions=[], **SMALL)
    assert 0.5 < found.table["value"][0] <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pipelines": {}}, r"pipelines: expected at least one pipeline and different names, got \[\]"),
        ({"pipelines": {"a": 3}}, r"expected names with an IDCPipeline each, got \('a', 3\)"),
        ({"conditions": [("blurr", 1)]}, "Did you mean 'blur'"),
        ({"conditions": [("blur", 0)]}, r"each severity but 0 once, got \('blur', 0\)"),
        ({"conditions": [("blur", 1)] * 2}, r"got \('blur', 1\) again"),
        ({"metrics": ("auc",)}, "expected some of roc_auc, .* got 'auc'"),
        ({"patches_per_patient": 0}, "patches_per_patient: expected a whole number of at least 1, got 0"),
        ({"cv": "5"}, "expected a splitter"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_work(cohort, change, message):
    settings = {"pipelines": {"color": color()}, "cv": PatientKFold(2), "conditions": [], **SMALL}
    with pytest.raises(ValueError, match=message):
        measure_robustness(cohort, **(settings | change))


def test_perturbed_images_do_not_mix_in_a_store(cohort, tmp_path):
    family, store = make_family("color", spaces=("rgb",)), tmp_path / "f.sqlite"
    from histofeat.features import extract

    plain = extract([family], cohort.X[:6], store=store).features[0]
    for condition in (STRONG, ("blur", 2)):
        images = perturbed_images(cohort.X[:6], *condition)
        stored = extract([family], images, store=store)
        np.testing.assert_array_equal(stored.features[0], family.transform(images))
        assert (stored.features[0] != plain).any()
        assert stored.computed["color"] > 0
    assert extract([family], cohort.X[:6], store=store).computed["color"] == 0


# --- the studies ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A folder with a synthetic cohort, whose patients are of no official role."""
    root = tmp_path_factory.mktemp("study")
    make_cohort(15, 8, root=root / "idc")
    return root


@pytest.fixture
def main(loaded_script):
    with loaded_script("study.py") as module:
        yield module.main


QUICK = ["--quick", "--features", "color", "--folds", "2", "--resamples", "40", "--n-jobs", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("study", ["robustness", "normalization"])
def test_a_study_writes_numbers_tables_and_figures(main, study, tree, tmp_path, capsys):
    output = tmp_path / "out"
    assert main([study, *QUICK, "--data", str(tree), "--output", str(output)]) == 0, capsys.readouterr().err
    table = pd.read_csv(output / f"{study}.csv")
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["quick"] is True
    assert len(metrics["results"]["rows"]) == len(table)
    assert metrics["results"]["n_tested_patients"] == 15
    page = (output / "report.md").read_text(encoding="utf-8")
    assert find_study(study).title in page
    assert "Its numbers say nothing" in page
    assert str(tree) not in page + (output / "metrics.json").read_text(encoding="utf-8")
    for figure in metrics["files"]:
        assert (output / figure).is_file()
    assert list((output / "figures").glob("*.svg"))
    if study == "normalization":
        compared = table[table["normalizer"] != "none"]
        arms = {f"{name}, {unit}" for name in ("Reinhard", "Macenko") for unit in ("patch", "patient")}
        assert set(compared["normalizer"]) == arms
        assert compared[["difference", "difference_low", "difference_high", "p_holm"]].notna().all(axis=None)
        assert (compared["p_holm"] >= compared["p"]).all()
    else:
        turned = table[table["perturbation"] == "turn"]
        assert len(turned) == 2
        assert (turned["drop"] == 0).all()
    assert main([study, *QUICK, "--data", str(tree), "--output", str(output)]) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.slow
def test_a_study_says_what_cannot_run(main, tree, tmp_path, capsys):
    work = tmp_path / "weights"
    work.mkdir()
    (work / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5").write_bytes(b"no weights")
    options = [*QUICK, "--data", str(tree), "--weights", str(work), "--output", str(tmp_path / "out")]
    options[2] = "cnn"
    assert main(["robustness", *options]) == 2
    assert "expected a set that can run, got none: cnn: " in capsys.readouterr().err
    options.insert(2, "color")
    assert main(["robustness", *options]) == 0
    page = (tmp_path / "out/report.md").read_text(encoding="utf-8")
    assert "Not run" in page
    assert "- **cnn** did not run: " in page
