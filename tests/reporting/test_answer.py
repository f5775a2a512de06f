"""The answer of a report: models with probabilities and without, one or many, few patients, and when nothing ran."""

import json
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from histofeat.evaluation import NotRun, evaluate_predictions, load_evaluation, save_evaluation
from histofeat.metrics import write_plan
from histofeat.reporting import write_report
from histofeat.reporting._answer import _weakness as weakness_of, answer_of
from histofeat.reporting._galleries import best_model


def table(n_patients=40, per_patient=10, classes=("no", "yes"), noise=(1.0, 1.01, 3.0), seed=0):
    """Give predictions of three models whose scores are the truth with ever more noise."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), per_patient)
    truth = rng.integers(len(classes), size=len(patients))
    truth[: len(classes)] = range(len(classes))
    base = rng.normal(size=(len(truth), len(classes)))
    rows = []
    for name, size in zip(("good", "alike", "bad"), noise, strict=True):
        raw = np.eye(len(classes))[truth] + size * (base + 0.3 * rng.normal(size=base.shape))
        proba = np.exp(2 * raw) / np.exp(2 * raw).sum(axis=1, keepdims=True)
        known = {"path": [f"{p}/{at}.png" for at, p in enumerate(patients)], "patient": patients, "model": name}
        columns = {f"p_{label}": proba[:, code] for code, label in enumerate(classes)}
        rows.append(pd.DataFrame({**known, "truth": np.array(classes)[truth], **columns}))
    return pd.concat(rows, ignore_index=True)


@pytest.fixture(scope="module")
def three():
    return evaluate_predictions(table(), n_resamples=200)


@pytest.fixture
def answered(tmp_path, monkeypatch):
    """Write a report without figures; give its answer, and its page as one line."""
    monkeypatch.setattr("histofeat.reporting._report.make_figures", lambda *known: ({}, defaultdict(list)))

    def write(evaluation, **how):
        page = write_report(evaluation, tmp_path / "report", overwrite=True, **how)
        answer = json.loads(page.with_name("metrics.json").read_text(encoding="utf-8"))["answer"]
        words = " ".join(page.with_name("report.md").read_text(encoding="utf-8").replace("\n>", " ").split())
        assert words.index("## Answer") < words.index(answer["sentences"][0]) < words.index("How these numbers")
        return answer, words

    return write


def measured(evaluation):
    """Give the same models with features, some of which were measured in this run."""
    features = (("color",), ("color", "cnn"), ("cnn",))
    models = [
        replace(model, features=names, n_features=100 * len(names), predict_s=0.4)
        for model, names in zip(evaluation.models, features, strict=True)
    ]
    seconds = {"extraction:color": 4.0, "extraction:cnn": 40.0}
    return replace(evaluation, models=tuple(models), seconds=seconds, computed={"color": 400, "cnn": 400})


def test_the_best_is_recommended_and_who_is_not_told_apart_is_named(three, answered):
    answer, words = answered(three)
    best = three.models[0]
    value, (low, high) = best.scores["roc_auc"].value, best.scores["roc_auc"].ci95
    first = f"Recommended: good/predictions, ROC-AUC {value:.3f} (95 % interval {low:.3f} to {high:.3f})."
    assert answer["sentences"][0] == first
    assert (answer["model"], answer["metric"], answer["value"]) == ("good/predictions", "roc_auc", pytest.approx(value))
    # The third model is much worse; the second differs by chance only.
    apart = {row.first: row.p_adjusted < 0.05 for row in three.comparison.rows}
    assert apart == {"alike/predictions": False, "bad/predictions": True}
    assert answer["alike"] == ["alike/predictions"]
    assert "Not told apart from it: alike/predictions (post-hoc paired differences in ROC-AUC)." in words
    assert answer["cheapest"] is None  # nobody knows what given predictions cost
    tested = (
        "Tested on 400 patches of 40 patients (predictions), by predictions that were given; who trained on whom is"
    )
    assert tested in words
    assert "What shortcuts in the images reach alone was not measured." in words


def test_the_cheapest_takes_the_least_time_or_else_the_fewest_features(three, answered):
    known = measured(three)
    assert known.seconds_per_patch == pytest.approx((0.011, 0.111, 0.101))
    answer, words = answered(known)
    assert answer["cheapest"] == "good/predictions"
    assert "The cheapest of these and itself is good/predictions: 100 features, 11.00 ms a patch, fitted in" in words
    turned = replace(known, models=(replace(known.models[0], features=("cnn", "color")), *known.models[1:]))
    models = (replace(turned.models[0], n_features=300), replace(turned.models[1], features=("color",)))
    answer, words = answered(replace(turned, models=models))
    assert answer["cheapest"] == "alike/predictions"
    assert "The cheapest of these is alike/predictions: 200 features, 11.00 ms a patch, fitted in" in words
    stored = replace(known, computed={"color": 400}, models=models)  # of the family cnn all came from the store
    assert np.isnan(stored.seconds_per_patch[0])
    answer, words = answered(stored)
    assert "The cheapest of these is alike/predictions: 200 features, fitted in" in words


def test_planned_differences_count_before_those_that_were_not_planned(three, answered, tmp_path):
    plan = write_plan(tmp_path / "plan.json", pairs=[("bad/predictions", "good/predictions")], metrics=["roc_auc"])
    answer, words = answered(replace(three, protocol={**three.protocol, "plan": plan.to_dict()}))
    assert answer["alike"] == ["alike/predictions"], "of which the plan says nothing"
    by = "(planned paired differences in ROC-AUC; post-hoc paired differences in ROC-AUC)."
    assert f"Not told apart from it: alike/predictions {by}" in words
    pairs = [(f"{name}/predictions", "good/predictions") for name in ("bad", "alike")]
    plan = write_plan(tmp_path / "both.json", pairs=pairs, metrics=["roc_auc"])
    _, words = answered(replace(three, protocol={**three.protocol, "plan": plan.to_dict()}))
    assert "Not told apart from it: alike/predictions (planned paired differences in ROC-AUC)." in words


def test_the_weakness_is_the_lowest_of_what_should_be_high(three, answered):
    answer, words = answered(three)
    model = three.models[0]
    own = three.by_patient().query("model == 'good/predictions'")["accuracy"].quantile(0.1)
    scores = {name: model.scores[name].value for name in ("sensitivity", "specificity")}
    lowest = min(*scores.values(), own)
    assert answer["weakness"]["value"] == pytest.approx(lowest)
    assert f"Main weakness: {answer['weakness']['of']}: " in words
    assert f" {100 * lowest:.1f} % of " in words
    # Everything is called no.
    timid = replace(model, scores={**model.scores, "sensitivity": replace(model.scores["sensitivity"], value=0.05)})
    answer, words = answered(replace(three, models=(timid,)))
    assert "Main weakness: sensitivity: it finds 5.0 % of the yes patches" in words
    assert answer["sentences"][0].startswith("The only model: good/predictions, ROC-AUC")


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.25, "of one in ten, at most 25.0 % of the patches are called right."),
        (0.0, "of one in ten, no patch is called right."),
    ],
)
def test_the_hardest_patients_are_a_weakness(share, words):
    best = {name: {"value": 0.9, "ci95": [0.8, 1.0]} for name in ("sensitivity", "specificity")}
    best |= {"classes": [], "details": {"groups": None, "spread": {"accuracy": [share, 0.9, 1.0]}}}
    found = weakness_of(best, {"dataset": {"labels": ["no", "yes"]}})
    assert found["words"] == f"Main weakness: the hardest patients: {words}"


def test_a_group_in_which_it_fails_is_named(answered):
    rows = table(noise=(0.3, 0.3, 0.3))
    found = evaluate_predictions(rows, models=["good"], n_resamples=100)
    site = np.where(found.dataset.patients.astype(int) < 10, "north", "south")
    wrong = (site == "north") & (found.dataset.y == 1)
    (model,) = found.models
    proba = np.where(wrong[:, None], [[0.9, 0.1]], model.proba)
    model = replace(model, proba=proba, predicted=proba.argmax(axis=1))
    dataset = replace(found.dataset, frame=found.dataset.frame.assign(site=site))
    answer, words = answered(replace(found, dataset=dataset, models=(model,)).asking(groups="site"))
    assert "Main weakness: sensitivity in north: it finds 0.0 % of the yes patches" in words
    assert "(predictions, 2 sites)" in words
    assert answer["tested"]["places"] == 2
    assert "Another laboratory or scanner was not tested." not in words


def test_probabilities_that_are_off_are_said_to_be(three, answered):
    (model, *_) = three.models
    proba = np.column_stack([1 - model.proba[:, 1] ** 4, model.proba[:, 1] ** 4])
    _, words = answered(replace(three, models=(replace(model, proba=proba, calibrated=None),)))
    assert "Its probabilities are off by" in words
    assert "more than by chance" in words


def test_several_classes(answered):
    found = evaluate_predictions(table(classes=("a", "b", "c")), models=["good"], n_resamples=100)
    answer, _ = answered(found)
    assert answer["sentences"][0].startswith("The only model: good/predictions, ROC-AUC (mean over the classes) 0.")
    scores = [entry["sensitivity"]["value"] for entry in found.classes[0].to_dicts()]
    lowest = min(*scores, found.by_patient()["accuracy"].quantile(0.1))
    assert answer["weakness"]["value"] == pytest.approx(lowest)


def test_hard_labels_are_ranked_by_balanced_accuracy(answered):
    rows = table()
    hard = rows.assign(label=np.where(rows["p_yes"] > 0.5, "yes", "no")).drop(columns=["p_yes", "p_no"])
    found = evaluate_predictions(hard, n_resamples=100)
    answer, words = answered(found)
    scores = {f"{model.name}/predictions": model.scores["balanced_accuracy"].value for model in found.models}
    assert answer["model"] == max(scores, key=scores.get)
    assert f"{best_model(found).name}/predictions" == answer["model"], "galleries and maps show the same model"
    assert answer["sentences"][0].startswith(f"Recommended: {answer['model']}, Balanced accuracy 0.")
    assert "Differences from the other models are not known. They need probabilities and resamples" in words


def test_without_resamples_there_is_no_interval_and_nothing_is_told_apart(answered):
    answer, words = answered(evaluate_predictions(table(), n_resamples=0))
    assert answer["sentences"][0].endswith(" (no interval).")
    assert "Differences from the other models are not known. They need probabilities and resamples" in words


def test_few_patients_and_an_interval_that_holds_chance(answered):
    found = evaluate_predictions(table(n_patients=6, per_patient=4, noise=(9.0, 9.0, 9.0), seed=3), n_resamples=100)
    found = replace(found, models=found.models[:1])
    assert found.models[0].scores["roc_auc"].ci95[0] < 0.5
    _, words = answered(found)
    assert "Guessing, 0.5, is in the interval. " in words
    assert "Only 6 tested patients, of whom" in words


def test_a_split_by_patch_recommends_nothing(three, answered):
    answer, words = answered(replace(three, patient_overlap=True))
    assert answer["sentences"][0].startswith(
        "Patients are on both sides of the split, so that no model can be recommended."
    )
    assert "by models that had seen other patches of the same patients." in words
    assert "**No number here holds for new patients**" in words


def test_shortcuts_and_columns_of_the_table_are_compared(three, answered):
    rows = [
        {"name": "mean_color", "roc_auc": 0.7, "ci95": [0.6, 0.8]},
        {"name": "place", "roc_auc": None, "ci95": [None] * 2},
    ]
    panel = {
        "rows": rows,
        "not_run": [{"name": "place", "reason": "No places."}],
        "reference": None,
        "identification": [],
    }
    panel |= {"n_folds": 1, "n_patches": 1, "n_patients": 1, "patient_overlap": False}
    panel["rows"] = [{"definition": "d", "n_features": 3, "within": None, **row} for row in rows]
    answer, words = answered(three, context={"shortcuts": panel})
    assert "Shortcuts alone reach a ROC-AUC of 0.700, by mean colour." in words
    assert answer["shortcut"]["name"] == "mean colour"
    assert all(sentence == sentence.strip() for sentence in answer["sentences"])
    panel["rows"].append({**panel["rows"][0], "name": "all of these together", "roc_auc": 0.8})
    _, all_words = answered(three, context={"shortcuts": panel})
    assert "Shortcuts alone reach a ROC-AUC of 0.800, by all of them together." in all_words
    assert "- **place** did not run: No places." in words[: words.index("## Comparison")]


def test_nothing_ran_each_reason_once(three, answered):
    gone = tuple(NotRun(name, head, "No weights.") for name in ("cnn", "both") for head in ("svm", "xgboost"))
    answer, words = answered(replace(three, models=(), not_run=gone))
    assert answer["sentences"][0] == "Nothing ran, so that no model can be recommended."
    assert "- **cnn, svm; cnn, xgboost; both, svm; both, xgboost** did not run: No weights." in words
    assert words.count("No weights.") == 1


def test_a_saved_evaluation_gives_the_same_answer(three, answered, tmp_path):
    answer, _ = answered(measured(three))
    kept = load_evaluation(save_evaluation(measured(three), tmp_path / "one.evaluation"))
    again, _ = answered(kept)
    assert again == answer


def test_one_patch_of_one_patient_is_no_plural(three, answered):
    one = three.dataset.subset([0])
    fold = np.array([0])
    alone = replace(three, dataset=one, models=(), fold=fold, splits=((np.array([], dtype=int), fold),))
    _, words = answered(alone)
    assert "Tested on 1 patch of 1 patient (predictions)" in words
    assert "- predictions: 1 patch of 1 patient (" in words


def test_patients_have_a_table_and_a_file(three, answered, tmp_path):
    _, words = answered(three)
    file = pd.read_csv(tmp_path / "report" / "patients.csv", dtype={"patient": str})
    assert len(file) == 3 * 40
    expected = three.by_patient()
    assert file["patient"].tolist() == expected["patient"].tolist()
    np.testing.assert_allclose(file["brier"], expected["brier"], rtol=1e-5)
    section = words[words.index("## Patients") : words.index("## Operating points")]
    assert "the 15 hardest patients, by Brier score" in section
    row = expected.iloc[14]
    scores = " | ".join(f"{row[name]:.3f}" for name in ("sensitivity", "specificity", "accuracy", "roc_auc", "brier"))
    assert f"| {row.patient} | {row.patches} | {row.prevalence:.2f} | {scores} |" in section
    assert f"| {expected.iloc[15].patient} | " not in section


def test_patients_of_one_class_each_have_no_roc_auc(answered):
    rows = table()
    rows["truth"] = np.where(rows["patient"] % 2, "yes", "no")
    _, words = answered(evaluate_predictions(rows, models=["good"], n_resamples=50))
    assert "No patient has patches of every class, so that single patients have no ROC-AUC" in words


def score(value, low=None, high=None):
    return {"value": value, "ci95": [low, high]}


def hand_made(three, areas, p_values, **facts):
    """Give the answer for models a, b, c ... of these areas, with the adjusted p of their differences from a."""
    names, result = "abcdefgh"[: len(areas)], []
    for name, area in zip(names, areas, strict=True):
        known = {"name": name, "head": "svm", "roc_auc": score(area, 0.5, 0.9), "n_features": 1, "fit_s": 1.0}
        known |= {"seconds_per_patch": None, "calibration": None, "classes": []}
        known |= {"sensitivity": score(0.8), "specificity": score(0.9)}
        known["details"] = {"spread": {"accuracy": [0.7, 0.8, 0.9]}, "groups": facts.pop("groups", None)}
        result.append(known | facts.pop(name, {}))
    rows = [
        {"first": f"{other}/svm", "second": "a/svm", "metric": "roc_auc", "p_adjusted": p}
        for other, p in zip(names[1:], p_values, strict=True)
    ]
    payload = {"results": result, "comparison": {"rows": rows}, "planned": None, "folds": [1, 2]}
    payload["dataset"] = {"labels": ["no", "yes"], "synthetic": True}
    payload["protocol"] = {"patient_overlap": False}
    return answer_of(three, payload | facts)


def test_models_are_alike_from_a_p_of_five_percent_on_and_where_it_is_unknown(three):
    found = hand_made(three, [0.8, 0.7, 0.7, 0.7], [0.05, 0.0499, None])
    assert found["alike"] == ["b/svm", "d/svm"]


def test_four_models_are_named_and_the_others_counted(three):
    words = hand_made(three, [0.8] + [0.7] * 5, [0.5] * 5)["sentences"][1]
    assert words.startswith("Not told apart from it: b/svm, c/svm, d/svm, e/svm (and 1 more) (post-hoc")
    assert "more)" not in hand_made(three, [0.8] + [0.7] * 4, [0.5] * 4)["sentences"][1]


def test_differences_in_one_metric_are_compared_and_times_where_all_were_measured(three):
    rows = [
        {"first": "b/svm", "second": "a/svm", "metric": metric, "p_adjusted": p}
        for metric, p in (("f1", 0.5), ("roc_auc", 0.01))
    ]
    found = hand_made(three, [0.8, 0.7], [0.01], planned={"rows": rows})
    assert found["alike"] == ["b/svm"]
    assert "(planned paired differences in F1)" in found["sentences"][1]
    unlike = {"a": {"n_features": 9, "seconds_per_patch": 0.001}, "b": {"n_features": 2}}
    assert hand_made(three, [0.8, 0.7], [0.5], **unlike)["cheapest"] == "b/svm"
    assert hand_made(three, [0.8, 0.7], [0.5], a={"n_features": None})["cheapest"] == "b/svm"


def test_groups_of_five_patients_count_and_the_least_accurate_tenth(three):
    groups = {"few": {"n_patients": 4, "sensitivity": score(0.1), "specificity": score(0.1)}}
    assert hand_made(three, [0.8], [], groups=groups)["weakness"]["of"] == "the hardest patients"
    assert hand_made(three, [0.8], [], groups=groups)["weakness"]["value"] == 0.7
    groups["few"]["n_patients"] = 5
    assert hand_made(three, [0.8], [], groups=groups)["weakness"]["of"] == "specificity in few"


def test_chance_at_the_end_of_an_interval_is_in_it_and_an_error_as_by_chance_is_none(three):
    assert "Guessing, 0.5, is in the interval." in hand_made(three, [0.8], [])["sentences"][0]
    apart = hand_made(three, [0.8], [], a={"roc_auc": score(0.8, 0.501, 0.9)})
    assert "Guessing" not in apart["sentences"][0]
    for off, said in ((0.1, False), (0.11, True)):
        raw = {"raw": {"ece": {"value": off, "chance95": 0.1}}}
        words = " ".join(hand_made(three, [0.8], [], a={"calibration": raw})["sentences"])
        assert ("Its probabilities are off by" in words) is said
