"""Paired differences: against a loop over resamples, adjusted over the table, and refused where patients differ."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score
from statsmodels.stats.multitest import multipletests

from histofeat.evaluation import Evaluation
from histofeat.evaluation._results import ModelResult
from histofeat.metrics import METRICS, bootstrap_p, bootstrap_scores, compare_models, patient_weights, score_folds

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


def make_evaluation(probas, patients, y, *, n_resamples=200, untested=0, random_state=3, metrics=METRICS):
    """An evaluation without any fit; models are named m0/h, m1/h, ..."""
    tests = [np.arange(untested, len(y) // 2), np.arange(len(y) // 2, len(y))]
    tested = np.concatenate(tests)
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
                name=f"m{number}", features=("color",), head="h", n_features=1, proba=proba, predicted=predicted,
                predicted_tuned=tuned, thresholds=(0.3, 0.3), scores=scored, tuned=at_tuned, confusion=np.eye(2),
                confusion_tuned=np.eye(2), fold_confusions=(), fit_s=0.0, predict_s=0.0,
                resamples=resamples,
            )
        )  # fmt: skip
    fold = np.zeros(len(y))
    fold[:untested] = -1
    return Evaluation(
        dataset=SimpleNamespace(patients=patients, y=y, target_names=("negative", "positive")),
        splits=tuple((np.setdiff1d(np.arange(len(y)), test), test) for test in tests),
        fold=fold, models=tuple(models), not_run=(), seconds={}, patient_overlap=False,
        protocol={"n_resamples": n_resamples, "random_state": random_state},
    )  # fmt: skip


@pytest.fixture(scope="module")
def evaluation():
    patients, y, shift = labels()
    probas = [scores(y, shift, skill, seed) for seed, skill in enumerate((2.0, 1.8, 0.5))]
    return make_evaluation(probas, patients, y, untested=2 * N_PATCHES)


def test_rows_are_what_a_loop_over_resamples_gives(evaluation):
    evaluation = replace(evaluation, protocol={"n_resamples": 20, "random_state": 7})
    patients, y = evaluation.dataset.patients, evaluation.dataset.y
    tested = np.flatnonzero(evaluation.tested)
    ids = sorted(set(patients[tested]))
    drawn = [
        np.concatenate([tested[patients[tested] == ids[j]] for j in np.repeat(np.arange(len(ids)), row)])
        for row in patient_weights(patients[tested], 20, 7)
    ]
    witness = {
        "roc_auc": lambda rows, m: roc_auc_score(y[rows], m.proba[rows, 1]),
        "f1": lambda rows, m: f1_score(y[rows], m.predicted[rows]),
        "f1_tuned": lambda rows, m: f1_score(y[rows], m.predicted_tuned[rows]),
    }
    names = [f"{model.name}/h" for model in evaluation.models]
    # One row of scores for the sample itself, one for each resample.
    expected = {
        (metric, name): np.array([score(rows, model) for rows in [tested, *drawn]])
        for metric, score in witness.items()
        for name, model in zip(names, evaluation.models, strict=True)
    }
    found = compare_models(evaluation, tuple(witness))
    assert (found.n_patients, found.n_resamples, found.reference) == (N_PATIENTS - 2, 20, None)
    keys = [(metric, *pair) for metric in witness for pair in itertools.combinations(names, 2)]
    assert [(row.metric, row.first, row.second) for row in found.rows] == keys
    p_values = []
    for row in found.rows:
        assert row.first_value == pytest.approx(expected[row.metric, row.first][0])
        difference, *samples = expected[row.metric, row.first] - expected[row.metric, row.second]
        assert row.difference == pytest.approx(difference)
        assert row.ci95 == pytest.approx(tuple(np.quantile(samples, [0.025, 0.975])))
        count = sum(abs(sample - difference) >= abs(difference) - 1e-12 for sample in samples)
        p_values.append((1 + count) / 21)
        assert (row.p, row.n_resamples) == (pytest.approx(p_values[-1]), 20)
    assert [row.p_holm for row in found.rows] == pytest.approx(multipletests(p_values, method="holm")[1])


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
    assert calls == [100]


def test_more_resamples_than_the_evaluation_has(evaluation):
    few, many = compare_models(evaluation, "roc_auc"), compare_models(evaluation, "roc_auc", n_resamples=1000)
    assert many.n_resamples == many.rows[0].n_resamples == 1000
    assert many.rows[1].p == 1 / 1001
    assert few.rows[1].p == 1 / 201
    assert few.smallest_p_holm == 3 / 201
    assert many.smallest_p_holm == 3 / 1001
    assert min(row.p_holm for row in few.rows) >= few.smallest_p_holm
    assert few.rows[0].p_holm > 0.05 > few.rows[1].p_holm  # nearly equal models; a good one and a bad one


def test_against_a_reference_there_are_fewer_rows_and_signs_turn(evaluation):
    every, against = compare_models(evaluation, "roc_auc"), compare_models(evaluation, "roc_auc", reference="m1/h")
    assert [(row.first, row.second) for row in against.rows] == [("m0/h", "m1/h"), ("m2/h", "m1/h")]
    assert against.reference == "m1/h"
    turned, plain = against.rows[1], every.rows[2]
    assert turned.difference == -plain.difference
    assert turned.ci95 == pytest.approx((-plain.ci95[1], -plain.ci95[0]))
    assert turned.p == plain.p
    assert turned.p_holm <= plain.p_holm  # two tests in the table instead of three


def test_the_table_as_a_frame(evaluation):
    frame = compare_models(evaluation).to_frame()
    assert list(frame.columns) == [
        "metric", "first", "second", "first_value", "second_value", "difference", "low", "high", "p", "p_holm",
        "n_resamples",
    ]  # fmt: skip
    assert len(frame) == 9
    assert (frame["low"] < frame["high"]).all()


def test_equal_models_and_constant_ones():
    patients, y, shift = labels()
    proba, constant = scores(y, shift, 2.0, 0), np.full((len(y), 2), 0.5)
    found = compare_models(make_evaluation([proba, proba, constant, constant], patients, y), METRICS)
    for row in found.rows:
        if (row.first, row.second) in (("m0/h", "m1/h"), ("m2/h", "m3/h")):
            assert (row.difference, row.ci95, row.p, row.p_holm) == (0.0, (0.0, 0.0), 1.0, 1.0)
    chance = next(row for row in found.rows if row.metric == "roc_auc" and row.first == "m1/h")
    assert chance.second_value == 0.5
    assert chance.ci95[0] > 0


@pytest.mark.slow
def test_p_holds_its_level_when_models_are_equally_good():
    """Two models of the same skill on patients who differ; the share of false findings is that of the level."""
    found = []
    for seed in range(250):
        patients, y, shift = labels(seed, 30)
        probas = [scores(y, shift, 1.5, 1000 * model + seed) for model in (1, 2)]
        options = {"metrics": ("roc_auc",), "n_resamples": 200, "random_state": seed}
        first, second = (bootstrap_scores(y, proba, patients, **options).samples["roc_auc"] for proba in probas)
        difference = roc_auc_score(y, probas[0][:, 1]) - roc_auc_score(y, probas[1][:, 1])
        found.append(bootstrap_p(difference, first - second))
    assert 0.02 < np.mean(np.array(found) < 0.05) < 0.09
    assert 0.4 < np.mean(np.array(found) < 0.5) < 0.6


def test_two_evaluations_of_the_same_patches():
    patients, y, shift = labels()
    plain, treated = (make_evaluation([scores(y, shift, skill, 0)], patients, y) for skill in (1.0, 2.5))
    (row,) = compare_models({"normalised": treated, "raw": plain}, "roc_auc").rows
    assert (row.first, row.second) == ("normalised: m0/h", "raw: m0/h")
    assert row.ci95[0] > 0
    # Rows in another order, and resamples of another seed, which are then drawn again.
    order = np.random.default_rng(0).permutation(len(y))
    shuffled = make_evaluation([scores(y, shift, 1.0, 0)[order]], patients[order], y[order], random_state=9)
    (again,) = compare_models({"normalised": treated, "raw": shuffled}, "roc_auc").rows
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
    with pytest.raises(ValueError, match=r"compare_models.n_resamples: expected at least 1 resample, got 0"):
        compare_models(evaluation, n_resamples=0)
    with pytest.raises(ValueError, match="expected at least two models, got 1"):
        compare_models(replace(evaluation, models=evaluation.models[:1]))
    proba = evaluation.models[1].proba.copy()
    proba[[100, 200]] = np.nan
    broken = replace(evaluation, models=(evaluation.models[0], replace(evaluation.models[1], proba=proba)))
    with pytest.raises(ValueError, match=r"every tested patch, got NaN of 'm1/h' in row 100 \(2 such rows\)"):
        compare_models(broken)
    lonely = np.where(patients == "P3", y, 0)
    probas = [scores(lonely, shift, 1.0, seed) for seed in (0, 1)]
    with pytest.raises(ValueError, match=r"at least 2 patients of each class, got 1 of class 'positive'"):
        compare_models(make_evaluation(probas, patients, lonely))


def test_all_pairs_of_twelve_models_fit_one_table():
    patients, y, shift = labels()
    probas = [scores(y, shift, 1.0 + 0.1 * seed, seed) for seed in range(12)]
    found = compare_models(make_evaluation(probas, patients, y, n_resamples=50, metrics=["roc_auc"]), "roc_auc")
    assert len(found.rows) == len(list(itertools.combinations(range(12), 2))) == 66
    assert found.smallest_p_holm == 1.0  # 66 / 51: fifty resamples cannot show anything here
