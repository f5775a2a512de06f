"""Paired differences: against a loop over resamples, adjusted over the table, and refused where patients differ."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import brier_score_loss, f1_score
from test_bootstrap import auc_within_folds, t_by_hand

from histofeat.datasets import PatchDataset
from histofeat.evaluation import Evaluation
from histofeat.evaluation._results import ModelResult
from histofeat.metrics import METRICS, bootstrap_scores, compare_models, patient_weights, score_folds, step_down

N_PATIENTS, N_PATCHES = 24, 12


def labels(seed=0, n_patients=N_PATIENTS):
    """Patients with shifts of their own."""
    rng = np.random.default_rng(seed)
    patients = np.repeat([f"P{i}" for i in range(n_patients)], N_PATCHES)
    y = rng.integers(0, 2, len(patients))
    return patients, y, np.repeat(rng.normal(0, 1, n_patients), N_PATCHES)


def scores(y, shift, skill, seed):
    margin = skill * (y - 0.5) + shift + np.random.default_rng(seed).normal(0, 1, len(y))
    positive = 1 / (1 + np.exp(-margin))
    return np.column_stack([1 - positive, positive])


def make_evaluation(probas, patients, y, *, n_resamples=200, untested=0, random_state=3, metrics=METRICS, second=None):
    """An evaluation of two folds without any fit, the `second` by default the later half; models are m0/h, m1/h, ..."""
    fold = (np.arange(len(y)) >= len(y) // 2).astype(int) if second is None else second.astype(int)
    fold[:untested] = -1
    tests = [np.flatnonzero(fold == number) for number in (0, 1)]
    tested = np.flatnonzero(fold >= 0)
    models = []
    for number, proba in enumerate(probas):
        proba = np.where(np.isin(np.arange(len(y)), tested)[:, None], proba, np.nan)
        predicted, tuned = np.full(len(y), -1), np.full(len(y), -1)
        predicted[tested] = proba[tested].argmax(axis=1)
        tuned[tested] = proba[tested, 1] > 0.3
        common = {"n_resamples": n_resamples, "random_state": random_state}
        scored, resamples = score_folds(y, proba, predicted, patients, tests, metrics=metrics, **common)
        at_tuned, _ = score_folds(y, proba, tuned, patients, tests, metrics=("f1",), **common)
        models.append(
            ModelResult(
                name=f"m{number}", features=("color",), head="h", n_features=100 - number, proba=proba,
                predicted=predicted, predicted_tuned=tuned, thresholds=(0.3, 0.3), scores=scored, tuned=at_tuned,
                confusion=np.eye(2), confusion_tuned=np.eye(2), fold_confusions=(), fit_s=0.0, predict_s=0.0,
                resamples=resamples,
            )
        )  # fmt: skip
    paths = [f"{row}.png" for row in range(len(y))]
    frame = pd.DataFrame({"path": paths, "label": y, "patient": patients, "x": pd.NA, "y": pd.NA})
    return Evaluation(
        dataset=PatchDataset(frame, ("negative", "positive"), "demo"),
        splits=tuple((np.setdiff1d(np.arange(len(y)), test), test) for test in tests),
        fold=fold, models=tuple(models), not_run=(), seconds={}, patient_overlap=False,
        protocol={"n_resamples": n_resamples, "random_state": random_state},
    )  # fmt: skip


@pytest.fixture(scope="module")
def evaluation():
    patients, y, shift = labels()
    probas = [scores(y, shift, skill, seed) for seed, skill in enumerate((2.0, 1.8, 0.5))]
    return make_evaluation(probas, patients, y, untested=2 * N_PATCHES)


def slow_step_down(differences, samples, df, n_patients, seed):
    """Westfall and Young's step-down procedure by loops: standard errors, limit of the intervals, p-values."""
    columns = [column for column in zip(*samples, strict=True) if all(value == value for value in column)]
    spread = [np.std([column[i] for column in columns], ddof=1) for i in range(len(samples))]
    centre = [np.mean([column[i] for column in columns]) for i in range(len(samples))]
    scale = np.sqrt(np.random.default_rng([seed, 1]).chisquare(df, len(columns)) / df)
    null = [
        [abs(column[i] - centre[i]) / spread[i] / s for i in range(len(samples))]
        for column, s in zip(columns, scale, strict=True)
    ]
    errors = [sd * math.sqrt(n_patients / (n_patients - 1)) for sd in spread]
    found = [abs(d) / error for d, error in zip(differences, errors, strict=True)]
    order = sorted(range(len(samples)), key=lambda i: -found[i])
    adjusted, last = [0.0] * len(samples), 0.0
    for place, i in enumerate(order):
        count = sum(max(row[j] for j in order[place:]) >= found[i] for row in null)
        last = adjusted[i] = max(last, (1 + count) / (1 + len(null)))
    limit = max(np.quantile([max(row) for row in null], 0.95), stats.t.ppf(0.975, df))
    return errors, limit, adjusted


def test_rows_are_what_a_loop_over_resamples_gives(evaluation):
    evaluation = replace(evaluation, protocol={"n_resamples": 60, "random_state": 7})
    patients, y, fold = evaluation.dataset.patients, evaluation.dataset.y, evaluation.fold
    tested = np.flatnonzero(evaluation.tested)
    ids = sorted(set(patients[tested]))
    drawn = [
        np.concatenate([tested[patients[tested] == ids[j]] for j in np.repeat(np.arange(len(ids)), row)])
        for row in patient_weights(patients[tested], 60, 7)
    ]
    witness = {
        "roc_auc": lambda rows, m: auc_within_folds(y[rows], m.proba[rows, 1], fold[rows]),
        "f1_tuned": lambda rows, m: f1_score(y[rows], m.predicted_tuned[rows]),
        "brier": lambda rows, m: brier_score_loss(y[rows], m.proba[rows, 1]),
    }
    names = [f"{model.name}/h" for model in evaluation.models]
    # One row of scores for the sample itself, one for each resample.
    expected = {
        (metric, name): np.array([score(rows, model) for rows in [tested, *drawn]])
        for metric, score in witness.items()
        for name, model in zip(names, evaluation.models, strict=True)
    }
    found = compare_models(evaluation, tuple(witness), margin=0.05)
    best = max(names, key=lambda name: expected["roc_auc", name][0])
    assert (found.n_patients, found.n_resamples, found.reference) == (N_PATIENTS - 2, 60, best)
    assert found.is_best
    others = [name for name in names if name != best]
    assert [(row.metric, row.first, row.second) for row in found.rows] == [
        (metric, name, best) for metric in witness for name in others
    ]
    changes = [expected[row.metric, row.first] - expected[row.metric, row.second] for row in found.rows]
    errors, limit, adjusted = slow_step_down(
        [change[0] for change in changes], [change[1:] for change in changes], 21, 22, 7
    )
    assert min(adjusted) < 0.05 < max(adjusted)
    for row, (difference, *samples), error, p in zip(found.rows, changes, errors, adjusted, strict=True):
        assert row.first_value == pytest.approx(expected[row.metric, row.first][0])
        assert row.second_value == pytest.approx(expected[row.metric, best][0])
        assert row.difference == pytest.approx(difference)
        assert row.ci95 == pytest.approx(t_by_hand(difference, samples, 22, 21, "linear"))
        assert row.simultaneous_ci95 == pytest.approx((difference - limit * error, difference + limit * error))
        assert row.p == pytest.approx(2 * stats.t.sf(abs(difference) / error, 21))
        assert row.p_adjusted == pytest.approx(max(p, row.p))
        worst = row.ci95[0] if row.metric != "brier" else -row.ci95[1]
        assert row.non_inferior == (worst > -0.05)
        assert row.n_resamples == 60
    assert {row.non_inferior for row in found.rows} == {True, False}


@pytest.mark.parametrize("seed", [0, 1])
def test_step_down_is_its_loop(seed):
    rng = np.random.default_rng(seed)
    samples = rng.normal(size=(5, 300)) @ np.diag(rng.random(300) + 0.5) + rng.normal(size=300)
    samples[:, [3, 4]] = np.nan
    samples[2, 5] = np.nan
    differences = [0.1, -4.5, 3.0, 3.0, 0.0]
    found = step_down(differences, samples, 6, 10, random_state=seed)
    for value, expected in zip(found, slow_step_down(differences, samples, 6, 10, seed), strict=True):
        np.testing.assert_allclose(value, expected)
    assert found[2].min() >= 1 / 298  # three columns do not count


def test_a_single_row_is_its_own_t_test(evaluation):
    (row,) = compare_models(replace(evaluation, models=evaluation.models[1:]), n_resamples=4000).rows
    low, high = row.simultaneous_ci95
    assert high - low == pytest.approx(row.ci95[1] - row.ci95[0], rel=0.05)
    assert row.ci95[0] >= low
    assert row.p_adjusted >= row.p
    close = compare_models(replace(evaluation, models=evaluation.models[:2]), n_resamples=4000).rows[0]
    assert close.p_adjusted == pytest.approx(close.p, abs=0.03)


def test_kept_resamples_are_used_and_missing_ones_are_drawn_again(evaluation, monkeypatch):
    kept = compare_models(evaluation)
    without = replace(evaluation, models=tuple(replace(model, resamples=None) for model in evaluation.models))
    assert compare_models(without) == kept
    import histofeat.metrics._comparison as module

    calls = []
    monkeypatch.setattr(module, "bootstrap_scores", lambda *args, **kwargs: calls.append(kwargs["n_resamples"]))
    assert compare_models(evaluation) == kept
    assert compare_models(evaluation, n_resamples=200) == kept
    assert not calls
    with pytest.raises(AttributeError):
        compare_models(evaluation, n_resamples=100)
    assert calls == [100] * 3


def test_more_resamples_than_the_evaluation_has(evaluation):
    few, many = compare_models(evaluation, "roc_auc"), compare_models(evaluation, "roc_auc", n_resamples=1000)
    assert many.n_resamples == many.rows[0].n_resamples == 1000
    for less, more in zip(few.rows, many.rows, strict=True):
        assert (less.first, less.difference) == (more.first, more.difference)
        assert less.ci95 == pytest.approx(more.ci95, abs=0.01)
    nearly, bad = many.rows
    assert nearly.p_adjusted > 0.05 > bad.p_adjusted  # nearly equal models; a good one and a bad one


def test_another_reference_turns_signs(evaluation):
    by_name = {reference: compare_models(evaluation, reference=reference) for reference in ("m0/h", "m1/h")}
    assert [(row.first, row.second) for row in by_name["m1/h"].rows] == [("m0/h", "m1/h"), ("m2/h", "m1/h")]
    assert by_name["m1/h"].reference == "m1/h"
    assert not by_name["m1/h"].is_best
    turned, plain = by_name["m1/h"].rows[0], by_name["m0/h"].rows[0]
    assert turned.difference == -plain.difference
    assert turned.ci95 == pytest.approx((-plain.ci95[1], -plain.ci95[0]))
    assert turned.p == plain.p


def test_the_best_of_a_loss_is_the_lowest(evaluation):
    values = [model.scores["brier"].value for model in evaluation.models]
    assert compare_models(evaluation, "brier").reference == f"m{np.argmin(values)}/h"


def test_the_margin_decides_what_is_not_worse(evaluation):
    (row, _) = compare_models(evaluation, reference="m0/h").rows
    assert row.non_inferior is None
    for metric, side in (("roc_auc", 0), ("brier", 1)):
        (row, _) = compare_models(evaluation, metric, reference="m0/h").rows
        limit = abs(row.ci95[side])
        assert row.ci95[0] < 0 < row.ci95[1]
        for margin, expected in ((limit * 1.001, True), (limit * 0.999, False)):
            (row, _) = compare_models(evaluation, metric, reference="m0/h", margin=margin).rows
            assert row.non_inferior is expected


def test_the_verdict_in_words(evaluation):
    found = compare_models(evaluation, ("roc_auc", "f1_tuned"), reference="m0/h")
    assert found.verdict == "ROC-AUC: not told apart from m0/h: m1/h."
    assert found.to_dict()["verdict"] == found.verdict
    apart = compare_models(evaluation, "brier", reference="m2/h")
    assert apart.verdict == "Brier score: every other model is told apart from m2/h."
    rows = tuple(replace(row, p_adjusted=p) for row, p in zip(found.rows[:2], (math.nan, 0.06), strict=True))
    assert replace(found, rows=rows).verdict == "ROC-AUC: not told apart from m0/h: m1/h, m2/h."
    tuned = replace(found, rows=found.rows[2:])
    assert tuned.verdict.startswith("F1 at the tuned threshold: ")


def test_the_table_as_a_frame(evaluation):
    frame = compare_models(evaluation, ("roc_auc", "f1")).to_frame()
    assert list(frame.columns) == [
        "metric", "first", "second", "first_value", "second_value", "difference", "low", "high", "simultaneous_low",
        "simultaneous_high", "p", "p_adjusted", "non_inferior", "n_resamples",
    ]  # fmt: skip
    assert len(frame) == 4
    assert (frame["simultaneous_low"] < frame["low"]).all()
    assert (frame["high"] < frame["simultaneous_high"]).all()


def test_equal_models_and_constant_ones():
    patients, y, shift = labels()
    proba, constant = scores(y, shift, 2.0, 0), np.full((len(y), 2), 0.5)
    found = compare_models(make_evaluation([proba, proba, constant, constant], patients, y), METRICS)
    assert found.reference == "m0/h"
    for row in found.rows:
        if row.first == "m1/h":
            assert (row.difference, row.p, row.p_adjusted) == (0.0, 1.0, 1.0)
            assert np.isnan([*row.ci95, *row.simultaneous_ci95]).all()  # nothing varies
    chance = next(row for row in found.rows if row.metric == "roc_auc" and row.first == "m2/h")
    assert chance.first_value == 0.5
    assert chance.ci95[1] < 0
    assert chance.p_adjusted < 0.05


@pytest.mark.long
@pytest.mark.parametrize("n_patients", [10, 20, 49])
def test_adjusted_p_and_intervals_hold_their_level_when_models_are_equally_good(n_patients):
    """A reference and three models of the same skill on patients who differ: how often any is found to differ."""
    found, missed, single = [], [], []
    for seed in range(600):
        patients, y, shift = labels(seed, n_patients)
        options = {"metrics": ("roc_auc",), "n_resamples": 400, "random_state": seed}
        options["fold"] = (np.arange(len(y)) >= len(y) // 2).astype(int)
        one, *others = (
            bootstrap_scores(y, scores(y, shift, 1.5, 1000 * model + seed), patients, **options) for model in range(4)
        )
        paired = [other.minus(one) for other in others]
        differences = [each.estimates["roc_auc"] for each in paired]
        samples = [each.samples["roc_auc"] for each in paired]
        errors, limit, adjusted = step_down(differences, samples, min(one.carriers) - 1, n_patients, random_state=seed)
        found.append(adjusted.min() < 0.05)
        missed.append((np.abs(differences) > limit * errors).any())
        single.append(paired[0].p_value("roc_auc") < 0.05)
    for rejected in (found, missed, single):
        assert np.mean(rejected) <= 0.07
    assert np.mean(single) > 0.02


def test_two_evaluations_of_the_same_patches():
    patients, y, shift = labels()
    plain, treated = (make_evaluation([scores(y, shift, skill, 0)], patients, y) for skill in (1.0, 2.5))
    (row,) = compare_models({"normalised": treated, "raw": plain}, reference="raw: m0/h").rows
    assert (row.first, row.second) == ("normalised: m0/h", "raw: m0/h")
    assert row.ci95[0] > 0
    # Rows in another order, and resamples of another seed, which are then drawn again.
    order = np.random.default_rng(0).permutation(len(y))
    second = np.arange(len(y))[order] >= len(y) // 2
    proba = scores(y, shift, 1.0, 0)[order]
    shuffled = make_evaluation([proba], patients[order], y[order], random_state=9, second=second)
    (again,) = compare_models({"normalised": treated, "raw": shuffled}, reference="raw: m0/h").rows
    assert again.ci95 == pytest.approx(row.ci95)
    assert again.p == row.p


def test_models_of_different_patients_are_refused(evaluation):
    patients, y, shift = labels()
    proba = scores(y, shift, 1.0, 0)
    whole = make_evaluation([proba], patients, y)
    renamed = np.where(patients == "P5", "X", patients)
    other = make_evaluation([proba], renamed, y)
    with pytest.raises(
        ValueError, match=r"same tested patches in 'a' and 'b', got other ones of patient 'P5' \(2 such patients\)"
    ):
        compare_models({"a": whole, "b": other})
    fewer = make_evaluation([proba], patients, y, untested=3)
    with pytest.raises(ValueError, match=r"got other ones of patient 'P0' \(1 such patients\)"):
        compare_models({"a": whole, "b": fewer})
    mixed = replace(
        evaluation, models=(evaluation.models[0], replace(evaluation.models[1], resamples=whole.models[0].resamples))
    )
    with pytest.raises(ValueError, match=r"expected resamples of 22 patients, got 24 of 'm1/h'"):
        compare_models(mixed)


def test_refusals_name_the_offender(evaluation):
    patients, y, shift = labels()
    with pytest.raises(ValueError, match=r"compare_models.metrics: expected known metrics, got 'roc'"):
        compare_models(evaluation, ("f1", "roc", "roc_auc_tuned"))
    with pytest.raises(ValueError, match=r"compare_models.metrics: expected at least one metric, got none"):
        compare_models(evaluation, ())
    with pytest.raises(ValueError, match=r"reference: expected the name of a model, got 'm1'\. Did you mean 'm1/h'\?"):
        compare_models(evaluation, reference="m1")
    with pytest.raises(ValueError, match=r"pairs: expected the name of a model, got 'm9/h'"):
        compare_models(evaluation, pairs=[("m0/h", "m9/h")])
    for margin in (0, -0.01, np.nan):
        with pytest.raises(ValueError, match=r"compare_models.margin: expected a number above 0, got"):
            compare_models(evaluation, margin=margin)
    with pytest.raises(ValueError, match=r"compare_models.n_resamples: expected a whole number of at least 1, got 0"):
        compare_models(evaluation, n_resamples=0)
    with pytest.raises(ValueError, match="expected at least two models, got 1"):
        compare_models(replace(evaluation, models=evaluation.models[:1]))
    proba = evaluation.models[1].proba.copy()
    proba[[100, 200]] = np.nan
    broken = replace(evaluation, models=(evaluation.models[0], replace(evaluation.models[1], proba=proba)))
    with pytest.raises(ValueError, match=r"for every tested patch, got \[nan, nan\] in row 100 \(2 such rows\)"):
        compare_models(broken)
    lonely = np.where(patients == "P3", y, 0)
    probas = [scores(lonely, shift, 1.0, seed) for seed in (0, 1)]
    with pytest.raises(ValueError, match=r"at least 2 patients of each class, got 1 of class 'positive'"):
        compare_models(make_evaluation(probas, patients, lonely))
