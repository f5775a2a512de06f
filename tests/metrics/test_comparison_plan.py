"""Plans of comparisons: what they hold, the file that freezes them, and what `evaluate` and the report make of one."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from histofeat import IDCPipeline, evaluate
from histofeat.features import Runtime
from histofeat.metrics import ComparisonPlan, compare_models, read_plan, write_plan
from histofeat.model_selection import PatientKFold
from histofeat.reporting import write_report

NO_PLAN = r"plan\.json: expected a plan as write_plan writes it, got "
A, B, C = "a/logistic", "b/logistic", "c/logistic"
FOLDS = PatientKFold(2)
SETTINGS = {"inner_cv": FOLDS, "n_resamples": 200}
PIPELINES = {name: IDCPipeline(family, "logistic") for name, family in (("a", "lbp"), ("b", "color"), ("c", "gray"))}


@pytest.fixture(scope="module")
def planned(cohort, tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    write_plan(path, [(A, B)], ["roc_auc", "f1_tuned"], margin=0.02)
    return evaluate(cohort, PIPELINES, FOLDS, plan=path, **SETTINGS)


# --- the plan and its file -------------------------------------------------------------------------------------------


def test_a_file_gives_back_the_plan_and_its_hash_is_that_of_its_content(tmp_path):
    path = tmp_path / "plan.json"
    plan = write_plan(path, [[A, B], [C, B]], ("roc_auc", "brier"), margin=0.01)
    assert read_plan(path) == read_plan(str(path)) == plan
    assert (plan.models, plan.pairs) == ((A, B, C), ((A, B), (C, B)))
    content = json.loads(path.read_text())
    assert content == plan.to_dict()
    frozen = content.pop("hash")
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert frozen == plan.hash == hashlib.sha256(text.encode()).hexdigest()
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"plan\.json"):
        write_plan(path, [(A, B)])
    assert path.read_bytes() == before


@pytest.mark.parametrize(("arguments", "match"), [
    ({"pairs": ()}, r"plan\.pairs: expected pairs of two models each, got \(\)\. Name others"),
    ({"pairs": [(A, A)]}, r"plan\.pairs: expected pairs of two models each"),
    ({"pairs": [(A, B, C)]}, r"plan\.pairs: expected pairs of two models each"),
    ({"pairs": [(A, B)], "metrics": ("auc",)}, r"plan\.metrics: expected known metrics, got 'auc'"),
    ({"pairs": [(A, B)], "metrics": ()}, r"plan\.metrics: expected at least one metric, got none"),
    ({"pairs": [(A, B)], "margin": 0}, r"plan\.margin: expected a number above 0, got 0"),
])  # fmt: skip
def test_plans_that_say_nothing_are_refused(arguments, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        write_plan(tmp_path / "plan.json", **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("change", "match"), [
    (lambda text: text.replace("0.01", "0.05"), r"plan\.json: expected the hash of its content, .* It was changed"),
    (lambda text: text.replace("roc_auc", "roc"), NO_PLAN + r"ValueError: plan\.metrics: expected known metrics"),
    (lambda text: text.replace('"hash"', '"other"'), NO_PLAN + "KeyError"),
    (lambda text: text.replace('"margin"', '"m"'), NO_PLAN + "TypeError"),
    (lambda text: text[:-9], NO_PLAN + "JSONDecodeError"),
    (lambda text: "[1]", NO_PLAN + "TypeError"),
])  # fmt: skip
def test_files_that_are_no_frozen_plan_are_refused(change, match, tmp_path):
    path = tmp_path / "plan.json"
    write_plan(path, [(A, B)], margin=0.01)
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=match):
        read_plan(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.json: expected a plan .* got FileNotFoundError"):
        read_plan(tmp_path / "gone.json")


# --- what is made of it ----------------------------------------------------------------------------------------------


def test_the_plan_is_compared_and_all_else_is_post_hoc(planned):
    found = planned.planned
    assert [(row.metric, row.first, row.second) for row in found.rows] == [("roc_auc", A, B), ("f1_tuned", A, B)]
    assert (found.reference, found.is_best, found.margin) == (B, False, 0.02)
    assert {row.non_inferior for row in found.rows} <= {True, False}
    assert planned.protocol["plan"]["hash"] == ComparisonPlan(((A, B),), ("roc_auc", "f1_tuned"), 0.02).hash
    assert planned.comparison.is_best


def test_the_report_prints_both(planned, tmp_path):
    page = write_report(planned, tmp_path / "report").with_name("report.md").read_text(encoding="utf-8")
    start, post_hoc = page.index("### Planned"), page.index("### Post hoc")
    assert planned.protocol["plan"]["hash"] in page[start:post_hoc]
    assert "f1" in page[start:post_hoc].lower()
    assert "Not worse" in page[start:post_hoc]
    assert "These differences were not planned." in page[post_hoc:]
    content = json.loads((tmp_path / "report" / "metrics.json").read_text(encoding="utf-8"))
    assert content["planned"]["reference"] == B


def test_pairs_are_one_family_and_each_is_the_difference_of_its_models(planned):
    pairs = ((A, B), (B, C), (A, C))
    found = compare_models(planned, pairs=pairs)
    assert [(row.first, row.second) for row in found.rows] == list(pairs)
    assert found.reference is None
    values = {f"{model.name}/{model.head}": model.scores["roc_auc"].value for model in planned.models}
    for row in found.rows:
        assert row.difference == pytest.approx(values[row.first] - values[row.second])
        (alone,) = compare_models(planned, pairs=[(row.first, row.second)]).rows
        assert (row.p, row.ci95) == (alone.p, alone.ci95)
        assert row.p_adjusted >= row.p
    told = [f"{row.first} from {row.second}" for row in found.rows if row.p_adjusted < 0.05]
    expected = f"told apart: {', '.join(told)}" if told else "no pair is told apart"
    assert found.verdict == f"ROC-AUC: {expected}."
    by_reference = compare_models(planned, reference=C)
    as_pairs = compare_models(planned, pairs=[(A, C), (B, C)])
    np.testing.assert_equal(as_pairs.to_dict(), by_reference.to_dict())


def test_plans_that_do_not_match_are_refused_by_name(cohort):
    calls = []

    def attempt(plan):
        runtime = Runtime(progress=lambda *call: calls.append(call))
        return evaluate(cohort, PIPELINES, FOLDS, plan=plan, runtime=runtime, **SETTINGS)

    with pytest.raises(ValueError, match=r"evaluate\.plan: expected the models of the plan among .* got 'd/logistic'"):
        attempt(ComparisonPlan(((A, "d/logistic"),), ("roc_auc",)))
    assert calls == []


def test_no_plan_means_that_all_is_post_hoc(planned, tmp_path):
    bare = replace(planned, protocol={**planned.protocol, "plan": None})
    assert bare.planned is None
    page = write_report(bare, tmp_path / "report").with_name("report.md").read_text(encoding="utf-8")
    assert "Post hoc: no plan was frozen before the scores were seen." in page
    assert "### Planned" not in page


def test_a_planned_model_that_did_not_run_is_named(planned):
    lost = replace(planned, models=planned.models[1:])
    assert "expected the name of a model, got 'a/logistic'" in lost.planned.reason


def test_without_resamples_the_plan_says_that_nothing_was_compared(planned):
    bare = replace(planned, protocol={**planned.protocol, "n_resamples": 0})
    assert "expected a whole number of at least 1, got 0" in bare.planned.reason
