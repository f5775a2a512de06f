"""Ablation against `evaluate` and `compare_models`; costs against a family whose price is known; the Pareto front."""

import time

import cv2
import numpy as np
import pandas as pd
import pytest

from histofeat import CNNEmbedding, IDCPipeline, PatientKFold, evaluate
from histofeat.features import PatchFeatures, Runtime
from histofeat.metrics import compare_models, holm
from histofeat.studies import Ablation, _ablation as module, ablate_families, measure_costs

NAMES = ("color", "lbp", "haralick")
SETS = {"both": ("haralick", "color")}


@pytest.fixture(scope="module")
def ablation(cohort):
    return ablate_families(
        cohort, IDCPipeline(NAMES, "logistic"), PatientKFold(2), sets=SETS, n_resamples=100, random_state=4
    )


def test_rows_are_all_without_each_and_each_alone(ablation):
    assert list(zip(ablation.table["name"], ablation.table["families"], strict=True)) == [
        ("all", "color+lbp+haralick"),
        ("without color", "lbp+haralick"),
        ("without lbp", "color+haralick"),
        ("without haralick", "color+lbp"),
        ("color alone", "color"),
        ("lbp alone", "lbp"),
        ("haralick alone", "haralick"),
        ("both", "color+haralick"),
    ]
    assert ablation.table["n_columns"].tolist() == [312, 132, 258, 234, 180, 54, 78, 258]
    assert (ablation.n_patients, ablation.n_patches) == (15, 180)


def test_scores_and_differences_are_those_of_an_evaluation(cohort, ablation):
    """Every set as a pipeline of its own, and the paired comparison of the library, which draws for itself."""
    rows = list(ablation.table.itertuples())
    pipelines = {row.name: IDCPipeline(tuple(row.families.split("+")), "logistic") for row in rows}
    folds = {"cv": PatientKFold(2), "inner_cv": PatientKFold(2)}  # the inner ones choose a threshold, which none has
    evaluation = evaluate(cohort, pipelines, **folds, n_resamples=100, random_state=4)
    for row, model in zip(rows, evaluation.models, strict=True):
        assert row.roc_auc == pytest.approx(model.scores["roc_auc"].value, rel=1e-12)
        assert (row.low, row.high) == pytest.approx(model.scores["roc_auc"].ci95, rel=1e-12)
    compared = compare_models(evaluation, reference="all/logistic").rows
    for row, other in zip(rows[1:], compared, strict=True):
        assert other.first == f"{row.name}/logistic"
        assert row.difference == pytest.approx(other.difference, abs=1e-12)
        assert (row.difference_low, row.difference_high) == pytest.approx(other.ci95, abs=1e-12)
        assert row.p == pytest.approx(other.p)


def test_all_families_are_compared_with_nothing(ablation):
    rows = ablation.table.set_index("name").drop(columns=["kind", "predict_us"])
    assert rows.loc["all", "difference"] == 0.0
    assert rows.loc["all", ["difference_low", "difference_high", "p", "p_holm"]].isna().all()
    np.testing.assert_allclose(rows["p_holm"][1:], holm(rows["p"][1:].to_numpy()))
    assert rows.loc["without lbp"].tolist() == rows.loc["both"].tolist()


def test_of_two_families_each_is_what_the_other_leaves(cohort):
    fitted = []
    pipeline = IDCPipeline(("color", "lbp"), "logistic")
    found = ablate_families(
        cohort,
        pipeline,
        PatientKFold(2),
        n_resamples=20,
        runtime=Runtime(n_jobs=2, progress=lambda *news: fitted.append(news)),
    )
    areas = found.table.set_index("name")["roc_auc"]
    assert areas["without lbp"] == areas["color alone"]
    assert ("fit", 6, 6) in fitted  # three sets, two folds
    again = ablate_families(cohort, pipeline, PatientKFold(2), n_resamples=20)
    pd.testing.assert_frame_equal(*(one.table.drop(columns="predict_us") for one in (found, again)), check_exact=True)


def test_the_head_is_timed(ablation):
    assert ablation.table["predict_us"].between(0.01, 1e5).all()


@pytest.mark.parametrize(
    ("pipeline", "options", "message"),
    [
        (IDCPipeline("color"), {}, r"ablate_families.pipeline: expected an IDCPipeline of two families or more"),
        ("color", {}, r"ablate_families.pipeline: .* got 'color'"),
        (IDCPipeline(NAMES), {"sets": ["color"]}, r"sets: expected a mapping of names to families, got list"),
        (IDCPipeline(NAMES), {"sets": {"x": ("pftas", "cnn")}}, r"sets\['x'\]: .* got 'pftas'"),
        (IDCPipeline(NAMES), {"sets": {"x": ()}}, r"sets\['x'\]: expected families of the pipeline, got None"),
        (IDCPipeline(NAMES), {"sets": {"lbp alone": "lbp"}}, r"sets: .* got 'lbp alone', which is a row already"),
        (IDCPipeline(NAMES), {"n_resamples": 1.5}, r"n_resamples: expected a whole number"),
    ],
)
def test_bad_arguments_are_refused(cohort, pipeline, options, message):
    with pytest.raises(ValueError, match=message):
        ablate_families(cohort, pipeline, **options)


# --- cost ------------------------------------------------------------------------------------------------------------


class Slow(PatchFeatures):
    """Takes a known time."""

    family = "slow"
    seconds = 2e-4

    def __init__(self, name="slow"):
        self.name = name

    def _check_params(self):
        pass

    def _feature_names(self):
        return [self.name]

    def _compute(self, batch):
        until = time.process_time() + self.seconds * len(batch)
        while time.process_time() < until:
            pass
        return np.zeros((len(batch), 1), dtype=np.float32)


class Slower(Slow):
    family = "slower"
    seconds = 8e-4

    def __init__(self, name="slower"):
        self.name = name


def ablation_of(scores):
    """An ablation with these areas, as if it had been measured; a head takes 50 µs."""
    rows = [
        {"name": name, "families": "+".join(families), "n_columns": 1, "roc_auc": area, "low": area, "high": area}
        for name, families, area in scores
    ]
    rows = pd.DataFrame(rows).assign(predict_us=50.0)
    return Ablation(rows, 5, 9)


SCORES = [("all", ("slow", "slower"), 0.8), ("slow alone", ("slow",), 0.7), ("slower alone", ("slower",), 0.65)]


def test_costs_are_those_that_are_known(cohort):
    told = []
    costs = measure_costs(
        ablation_of(SCORES), IDCPipeline((Slow(), Slower())), cohort.X, progress=lambda *news: told.append(news)
    )
    table = costs.table
    assert table["name"].tolist() == ["slow alone", "slower alone", "all"]
    for found, microseconds in zip(table["features_us"], (200, 800, 1000), strict=True):
        assert microseconds <= found < 1.3 * microseconds
    assert table["total_us"].tolist() == (table["features_us"] + 50).tolist()
    assert table["on_front"].tolist() == [True, False, True]
    assert costs.n_patches == 180
    assert told[-1] == ("time", 9, 9)


def test_decoding_is_counted_by_itself(cohort, monkeypatch):
    """A clock that ticks a millisecond a decoded patch, and not otherwise."""
    ticks, decode = [0], module.as_images

    class Counted:
        def __init__(self, X):
            self.images = decode(X)

        def __len__(self):
            return len(self.images)

        def content(self, row):
            return self.images.content(row)

        def decode(self, row, content):
            ticks[0] += 1
            return self.images.decode(row, content)

    monkeypatch.setattr(module, "as_images", Counted)
    found = measure_costs(
        ablation_of(SCORES), IDCPipeline((Slow(), Slower())), cohort.X[:20], clock=lambda: ticks[0] * 1e-3
    )
    assert found.decode_us == pytest.approx(1_000)
    assert set(found.table["features_us"]) == {0.0}


def test_one_thread_and_given_back(cohort, monkeypatch):
    seen, before = [], cv2.getNumThreads()
    monkeypatch.setattr(Slow, "_compute", lambda self, b: seen.append(cv2.getNumThreads()) or np.zeros((len(b), 1)))
    measure_costs(ablation_of(SCORES), IDCPipeline((Slow(), Slower())), cohort.X[:5], n_repeats=1)
    assert set(seen) == {1}
    assert cv2.getNumThreads() == before
    assert module._with_one_thread(CNNEmbedding(n_threads=7)).n_threads == 1


def test_costs_that_cannot_be_measured_are_refused(cohort):
    pipeline = IDCPipeline((Slow(),))
    with pytest.raises(ValueError, match=r"measure_costs.pipeline: .* without 'slower' \(1 such\)"):
        measure_costs(ablation_of(SCORES), pipeline, cohort.X)
    with pytest.raises(ValueError, match=r"measure_costs.n_repeats: expected a whole number of at least 1, got 0"):
        measure_costs(ablation_of(SCORES), pipeline, cohort.X, n_repeats=0)
    with pytest.raises(ValueError, match=r"measure_costs.pipeline: .* got a pipeline with a stain normaliser"):
        measure_costs(ablation_of(SCORES), IDCPipeline((Slow(), Slower()), normalizer="macenko"), cohort.X)


def test_tables_are_complete(ablation):
    missing = ablation.table.set_index("name").isna()
    compared = ["difference_low", "difference_high", "p", "p_holm"]  # not all families with themselves
    assert missing.columns[missing.loc["all"]].tolist() == compared
    assert not missing.drop("all").any(axis=None)
