"""Ablation against `evaluate` and `compare_models`; costs against a family whose price is known; the Pareto front."""

import time
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from histofeat import CNNEmbedding, IDCPipeline, PatientKFold, evaluate
from histofeat.features import PatchFeatures, Runtime
from histofeat.metrics import compare_models, holm
from histofeat.studies import Ablation, AblationRow, ablate_families, costs, measure_costs, pareto_front

NAMES = ("color", "lbp", "haralick")
SETS = {"both": ("haralick", "color")}


@pytest.fixture(scope="module")
def ablation(cohort):
    return ablate_families(
        cohort, IDCPipeline(NAMES, "logistic"), PatientKFold(2), sets=SETS, n_resamples=100, random_state=4
    )


def test_rows_are_all_without_each_and_each_alone(ablation):
    assert [(row.name, row.families) for row in ablation.rows] == [
        ("all", NAMES),
        ("without color", ("lbp", "haralick")),
        ("without lbp", ("color", "haralick")),
        ("without haralick", ("color", "lbp")),
        ("color alone", ("color",)),
        ("lbp alone", ("lbp",)),
        ("haralick alone", ("haralick",)),
        ("both", ("color", "haralick")),
    ]
    assert [row.n_columns for row in ablation.rows] == [312, 132, 258, 234, 180, 54, 78, 258]
    assert (ablation.n_patients, ablation.n_patches, ablation.n_resamples) == (15, 180, 100)
    frame = ablation.to_frame()
    assert frame.loc[7, "families"] == "color+haralick"
    assert frame["roc_auc"].tolist() == [row.roc_auc for row in ablation.rows]


def test_scores_and_differences_are_those_of_an_evaluation(cohort, ablation):
    """Every set as a pipeline of its own, and the paired comparison of the library, which draws for itself."""
    pipelines = {row.name: IDCPipeline(row.families, "logistic") for row in ablation.rows}
    evaluation = evaluate(cohort, pipelines, PatientKFold(2), n_resamples=100, random_state=4)
    for row, model in zip(ablation.rows, evaluation.models, strict=True):
        assert row.roc_auc == pytest.approx(model.scores["roc_auc"].pooled, rel=1e-12)
        assert row.ci95 == pytest.approx(model.scores["roc_auc"].ci95, rel=1e-12)
    compared = compare_models(evaluation, ["roc_auc"], reference="all/logistic").rows
    for row, other in zip(ablation.rows[1:], compared, strict=True):
        assert other.first == f"{row.name}/logistic"
        assert row.difference == pytest.approx(other.difference, abs=1e-12)
        assert row.difference_ci95 == pytest.approx(other.ci95, abs=1e-12)
        assert (row.p, row.p_holm) == pytest.approx((other.p, other.p_holm))


def test_all_families_are_compared_with_nothing(ablation):
    first = ablation.row("all")
    assert (first.difference, first.difference_ci95) == (0.0, (0.0, 0.0))
    assert np.isnan([first.p, first.p_holm]).all()
    np.testing.assert_allclose([r.p_holm for r in ablation.rows[1:]], holm([r.p for r in ablation.rows[1:]]))
    assert ablation.row("without lbp") == replace(ablation.row("both"), kind="without", name="without lbp")


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
    assert found.row("without lbp").roc_auc == found.row("color alone").roc_auc
    assert ("fit", 6, 6) in fitted  # three sets, two folds
    assert found == ablate_families(cohort, pipeline, PatientKFold(2), n_resamples=20)


def test_the_head_is_timed(ablation):
    assert all(0.01 < row.predict_us < 1e5 for row in ablation.rows)


@pytest.mark.parametrize(
    ("pipeline", "options", "message"),
    [
        (IDCPipeline("color"), {}, r"ablate_families.pipeline: expected an IDCPipeline of two families or more"),
        ("color", {}, r"ablate_families.pipeline: .* got 'color'"),
        (IDCPipeline(NAMES), {"sets": ["color"]}, r"sets: expected a mapping of names to families, got \['color'\]"),
        (IDCPipeline(NAMES), {"sets": {"x": ("pftas", "cnn")}}, r"sets\['x'\]: .* got 'pftas' \(2 unknown\)"),
        (IDCPipeline(NAMES), {"sets": {"x": ()}}, r"sets\['x'\]: expected families of the pipeline, got none"),
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
    rows = tuple(
        AblationRow("given", name, families, 1, area, (area, area), 0.0, (0.0, 0.0), 1.0, 1.0, 50.0)
        for name, families, area in scores
    )
    return Ablation(rows, 5, 9, 0, 0)


SCORES = [("all", ("slow", "slower"), 0.8), ("slow alone", ("slow",), 0.7), ("slower alone", ("slower",), 0.65)]


def test_costs_are_those_that_are_known(cohort):
    told = []
    costs = measure_costs(
        ablation_of(SCORES), IDCPipeline((Slow(), Slower())), cohort.X, progress=lambda *news: told.append(news)
    )
    assert [row.name for row in costs.rows] == ["slow alone", "slower alone", "all"]
    for row, microseconds in zip(costs.rows, (200, 800, 1000), strict=True):
        assert microseconds <= row.features_us < 1.3 * microseconds
        assert row.total_us == row.features_us + 50
    assert [row.on_front for row in costs.rows] == [True, False, True]
    assert costs.n_patches == 180
    assert told[-1] == ("time", 9, 9)
    frame = costs.to_frame()
    assert frame["total_us"].tolist() == [row.total_us for row in costs.rows]


def test_decoding_is_counted_by_itself(cohort, monkeypatch):
    """A clock that ticks a millisecond a decoded patch, and not otherwise."""
    ticks, decode = [0], costs.as_images

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

    monkeypatch.setattr(costs, "as_images", Counted)
    found = measure_costs(
        ablation_of(SCORES), IDCPipeline((Slow(), Slower())), cohort.X[:20], clock=lambda: ticks[0] * 1e-3
    )
    assert found.decode_us == pytest.approx(1_000)
    assert {row.features_us for row in found.rows} == {0.0}


def test_one_thread_and_given_back(cohort, monkeypatch):
    seen, before = [], cv2.getNumThreads()
    monkeypatch.setattr(Slow, "_compute", lambda self, b: seen.append(cv2.getNumThreads()) or np.zeros((len(b), 1)))
    measure_costs(ablation_of(SCORES), IDCPipeline((Slow(), Slower())), cohort.X[:5], n_repeats=1)
    assert set(seen) == {1}
    assert cv2.getNumThreads() == before
    network = IDCPipeline((CNNEmbedding(n_threads=7), Slow()))
    found = costs._check_families(ablation_of([("slow alone", ("slow",), 0.5)]), network)
    assert found["cnn"][0].n_threads == 1


def test_costs_that_cannot_be_measured_are_refused(cohort):
    pipeline = IDCPipeline((Slow(),))
    with pytest.raises(ValueError, match=r"measure_costs.pipeline: .* without 'slower' \(1 such\)"):
        measure_costs(ablation_of(SCORES), pipeline, cohort.X)
    with pytest.raises(ValueError, match=r"measure_costs.n_repeats: expected at least 1 pass, got 0"):
        measure_costs(ablation_of(SCORES), pipeline, cohort.X, n_repeats=0)
    with pytest.raises(ValueError, match=r"measure_costs.pipeline: .* got a pipeline with a stain normaliser"):
        measure_costs(ablation_of(SCORES), IDCPipeline((Slow(), Slower()), normalizer="macenko"), cohort.X)


def test_front_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(50):
        costs, scores = rng.integers(0, 6, 12), rng.integers(0, 6, 12)
        beaten = [
            any(a <= c and b >= s and (a < c or b > s) for a, b in zip(costs, scores, strict=True))
            for c, s in zip(costs, scores, strict=True)
        ]
        assert pareto_front(costs, scores).tolist() == [not it for it in beaten]
    assert pareto_front([1, np.nan, 2], [0.5, 0.9, np.nan]).tolist() == [True, False, False]


def test_frames_are_complete(ablation):
    assert not ablation.to_frame().drop(columns=["p", "p_holm"]).isna().any(axis=None)
    assert isinstance(ablation.to_frame(), pd.DataFrame)
