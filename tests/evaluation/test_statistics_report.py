"""The sections on differences and on averages over patients: what they show and what they say."""

from dataclasses import replace

import numpy as np
import pytest
from test_statistics_comparison import labels, make_evaluation, scores

from histofeat.metrics import compare_models
from histofeat.reporting import (
    average_table,
    difference_table,
    html_page,
    jsonable,
    render_markdown,
    report_context,
)

PAYLOAD = {"dataset": {"name": "demo", "synthetic": True, "labels": ["negative", "positive"]}, "results": []}


@pytest.fixture(scope="module")
def evaluation():
    patients, y, shift = labels()
    probas = [scores(y, shift, 0.5 + 0.3 * seed, seed) for seed in range(7)]
    return make_evaluation(probas, patients, y, n_resamples=100)


def page(template, payload, comparison=None):
    return render_markdown(template, {**report_context({"protocol": {}, **payload}), "comparison": comparison})


def section(template, payload, comparison=None):
    return " ".join(page(template, payload, comparison).split())


def few(evaluation, n_models=3):
    return replace(evaluation, models=evaluation.models[:n_models])


def test_payload_is_the_comparison_in_plain_values(evaluation):
    payload = few(evaluation).comparison.to_dict()
    found = compare_models(few(evaluation))
    assert (payload["n_resamples"], payload["n_patients"]) == (100, 24)
    assert (payload["reference"], payload["is_best"], payload["margin"]) == (found.reference, True, None)
    assert payload["verdict"] == found.verdict
    assert [row["p_adjusted"] for row in payload["rows"]] == [row.p_adjusted for row in found.rows]
    assert [tuple(row["ci95"]) for row in payload["rows"]] == [row.ci95 for row in found.rows]
    assert jsonable(payload) == payload


def test_a_result_assesses_the_tested_rows_once(evaluation):
    n = len(evaluation.fold)
    tested = replace(few(evaluation, 1), fold=np.where(np.arange(n) < 10, -1, evaluation.fold))
    ((classes,), (calibration,), (bands,)) = tested.classes, tested.calibration, tested.bands
    assert classes.support.sum() == sum(calibration.raw.curve.bins.n) == n - 10
    # The curve is the mean over the folds whose area is the score.
    area = np.trapezoid(bands.curve("roc"), bands.grid)
    assert area == pytest.approx(classes.values["roc_auc"][1], abs=0.01)
    assert classes.values["roc_auc"][1] != pytest.approx(tested.models[0].scores["roc_auc"].pooled, abs=1e-6)
    assert tested.classes[0] is classes
    assert replace(tested).classes[0] is not classes


def test_nothing_to_compare(evaluation):
    assert few(evaluation, 1).comparison is None
    assert replace(evaluation, protocol={"n_resamples": 0, "random_state": 0}).comparison is None
    assert section("report-differences.md.j2", PAYLOAD) == ""


def test_a_refusal_is_said_in_the_report():
    patients, y, shift = labels()
    y = np.where(patients == "P3", y, 0)
    pair = make_evaluation([scores(y, shift, 1, seed) for seed in (0, 1)], patients, y)
    refused = pair.comparison.to_dict()
    words = "The models were not compared. compare_models.evaluation: expected at least 2 patients"
    found = section("report-differences.md.j2", PAYLOAD, refused)
    assert found.startswith(f"## Differences between these fits {words}")


def test_every_model_stands_beside_the_reference(evaluation):
    payload = few(evaluation).comparison.to_dict()
    words = section("report-differences.md.j2", PAYLOAD, payload)
    assert words.startswith(f"## Differences between these fits **{payload['verdict']}** Every model is compared")
    assert "Every model is compared with m2/h" in words
    assert "on the same 100 resamples of the 24 patients" in words
    assert "It is the best of these very scores, which favours it" in words
    assert "to the difference of these two fits." in words
    assert "It does not cover fitting again" in words
    assert "Adjusted for the 2 rows as one family" in words
    assert "Not worse" not in words
    table = difference_table(payload, "SYNTHETIC cohort")
    assert table.caption.startswith("SYNTHETIC cohort. ROC-AUC: model - m2/h, on the same resamples")
    assert len(table.rows) == 2
    first = payload["rows"][0]
    ends = [f"{low:+.3f} to {high:+.3f}" for low, high in (first["ci95"], first["simultaneous_ci95"])]
    assert table.rows[0] == (
        "m0/h", f"{first['difference']:+.3f}", *ends, f"{first['p']:.4f}", f"{first['p_adjusted']:.4f}",
    )  # fmt: skip


def test_a_named_reference_a_margin_and_several_metrics_are_said(evaluation):
    found = compare_models(few(evaluation), ["roc_auc", "f1_tuned"], reference="m0/h", margin=0.02)
    words = section("report-differences.md.j2", PAYLOAD, found.to_dict())
    assert "best of these very scores" not in words
    assert "the interval leaves out every loss of more than 0.02." in words
    table = difference_table(found.to_dict(), "mine")
    assert (table.columns[0], table.columns[-1], table.n_text) == ("Metric", "Not worse", 2)
    assert [row[0] for row in table.rows] == ["ROC-AUC"] * 2 + ["F1 at the tuned threshold"] * 2
    assert [row[-1] for row in table.rows] == ["yes" if row.non_inferior else "not shown" for row in found.rows]


def test_what_is_undefined_is_a_dash():
    row = {"metric": "f1_tuned", "first": "a/h", "second": "b/h", "first_value": None, "second_value": None,
           "difference": None, "ci95": [None, None], "simultaneous_ci95": [None, None], "p": None, "p_adjusted": None,
           "non_inferior": None, "n_resamples": 0}  # fmt: skip
    payload = {"reference": "b/h", "is_best": True, "n_patients": 9, "n_resamples": 10, "margin": None, "rows": [row]}
    table = difference_table(payload, "mine")
    assert table.rows == (("a/h", "–", "–", "–", "–", "–"),)
    assert "F1 at the tuned threshold" in table.caption


# --- averages --------------------------------------------------------------------------------------------------------


def score(value, mean, interval=(0.7, 0.9), averaged=20, left_out=4):
    return {"value": value, "patient_mean": mean, "patient_mean_ci95": list(interval),
            "n_patients_averaged": averaged, "n_patients_left_out": left_out}  # fmt: skip


def payload_of(**options):
    half = {
        "roc_auc": score(0.91, 0.8, **options),
        "f1": score(0.7, 0.6, **options),
        "brier": score(0.1, 0.2, **options),
    }
    result = {
        "name": "color",
        "head": "svm",
        **half,
        "tuned": {"thresholds": [0.4], "f1": score(0.72, 0.65, **options)},
    }
    return {**PAYLOAD, "results": [result]}


def test_scores_of_all_patches_and_averaged_ones_stand_side_by_side():
    payload = payload_of()
    words = section("report-averages.md.j2", payload)
    assert words.startswith("### Averaged over patients")
    assert "20 patients with patches of every class are averaged, 4 patients who lack a class are left out" in words
    opened, folded = words.split("<details>")
    table = average_table(payload, ["roc_auc", "balanced_accuracy", "f1"])
    assert table.columns[2:4] == ("ROC-AUC, all patches", "by patient [95 % interval]")
    assert table.rows == (("color", "svm", "0.910", "0.800 [0.700, 0.900]", "0.700", "0.600 [0.700, 0.900]"),)
    assert "| color | svm | 0.910 | 0.800" in opened
    assert folded.index("| Model | Head | Brier score, all patches |") < folded.index("| 0.720 | 0.650")
    assert average_table(payload, tuned=True).rows[0][2:] == ("0.720", "0.650 [0.700, 0.900]")


def test_nobody_or_one_to_average():
    words = section("report-averages.md.j2", payload_of(averaged=0, left_out=24))
    assert words == (
        "### Averaged over patients None of the 24 tested patients has patches of every class: there is no average."
    )
    assert average_table(payload_of(interval=(None, None), averaged=1)).rows[0][3] == "0.800"
    assert section("report-averages.md.j2", PAYLOAD) == ""


def test_more_than_two_classes_have_no_tuned_table():
    payload = payload_of()
    payload = {**payload, "dataset": {**PAYLOAD["dataset"], "labels": ["a", "b", "c"]}}
    assert "most probable class" in average_table(payload).caption
    assert section("report-averages.md.j2", payload).count("| --- |") == 2


def test_a_model_without_a_metric_has_dashes():
    payload = payload_of()
    other = {"name": "lbp", "head": "svm", "roc_auc": {"value": 0.8}, "tuned": {}}
    table = average_table({**payload, "results": [*payload["results"], other]}, ["roc_auc", "f1"])
    assert table.rows[1] == ("lbp", "svm", "0.800", "–", "–", "–")


def test_the_sections_become_pages(evaluation, tmp_path):
    differences = page("report-differences.md.j2", PAYLOAD, evaluation.comparison.to_dict())
    assert "| m6/h |" in differences
    shown = html_page(differences + page("report-averages.md.j2", payload_of()), "demo", tmp_path)
    assert "left out" in shown
    assert '<th scope="row" class="t">m6/h</th>' in shown
