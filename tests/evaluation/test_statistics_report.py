"""The sections on differences and on averages over patients: what stands open, what is folded, what is said."""

from dataclasses import replace

import numpy as np
import pytest
from test_statistics_comparison import labels, make_evaluation, scores

from histofeat.evaluation import COMPARED_METRICS
from histofeat.metrics import compare_models
from histofeat.reporting import (
    average_table,
    difference_tables,
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
    found = compare_models(few(evaluation), COMPARED_METRICS, n_resamples=360)
    assert (payload["n_resamples"], payload["n_patients"], payload["reference"]) == (360, 24, None)
    assert payload["smallest_p_holm"] == found.smallest_p_holm <= 0.025
    assert [row["p_holm"] for row in payload["rows"]] == [row.p_holm for row in found.rows]
    assert [tuple(row["ci95"]) for row in payload["rows"]] == [row.ci95 for row in found.rows]
    assert jsonable(payload) == payload


def test_resamples_of_the_evaluation_are_enough_for_few_comparisons():
    patients, y, shift = labels()
    pair = make_evaluation([scores(y, shift, 1, seed) for seed in (0, 1)], patients, y, n_resamples=130)
    assert pair.comparison.n_resamples == 130


def test_a_result_assesses_the_tested_rows_once(evaluation):
    n = len(evaluation.fold)
    tested = replace(few(evaluation, 1), fold=np.where(np.arange(n) < 10, -1, evaluation.fold))
    ((classes,), (calibration,), (bands,)) = tested.classes, tested.calibration, tested.bands
    assert classes.support.sum() == sum(calibration.raw.curve.bins.n) == n - 10
    assert bands.area["roc"][1] == classes.values["roc_auc"][1]
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
    assert section("report-differences.md.j2", PAYLOAD, refused).startswith(f"## Differences between models {words}")


def test_few_pairs_stand_open_and_other_metrics_are_folded(evaluation):
    payload = few(evaluation).comparison.to_dict()
    words = section("report-differences.md.j2", PAYLOAD, payload)
    assert words.startswith(
        "## Differences between models Each pair is compared on the same 360 resamples of the 24 pat"
    )
    assert "new patients of the same kind" in words
    assert "does not cover fitting them again" in words
    assert "all 9 comparisons" in words
    assert "read the intervals" not in words
    assert [words.count(f"<summary>Differences in {name}</summary>") for name in ("Balanced accuracy", "F1")] == [1, 1]
    assert words.index("ROC-AUC: A - B") < words.index("<details>")
    [table], folded = difference_tables(payload, "SYNTHETIC cohort")
    assert table.caption.startswith("SYNTHETIC cohort. ROC-AUC: A - B")
    assert len(table.rows) == 3
    first = payload["rows"][0]
    low, high = first["ci95"]
    assert table.rows[0] == (
        "m0/h", "m1/h", f"{first['difference']:+.3f}", f"{low:+.3f} to {high:+.3f}", f"{first['p']:.4f}",
        f"{first['p_holm']:.4f}",
    )  # fmt: skip
    assert [summary for summary, _ in folded] == ["Differences in Balanced accuracy", "Differences in F1"]
    assert [len(other.rows) for _, other in folded] == [3, 3]


def test_of_many_pairs_those_with_the_best_stand_open(evaluation):
    payload = compare_models(evaluation, ["roc_auc"]).to_dict()
    assert len(payload["rows"]) == 21
    [table], [(summary, rest)] = difference_tables(payload, "mine")
    best = max(evaluation.models, key=lambda model: model.scores["roc_auc"].pooled).name
    assert len(table.rows) == 6
    assert all(row[0] == f"{best}/h" and row[2].startswith("+") for row in table.rows)
    assert f"{best}/h has the best score" in table.caption
    assert summary == "The other 15 differences in ROC-AUC"
    assert len(rest.rows) == 15
    turned = next(row for row in payload["rows"] if row["second"] == f"{best}/h")
    low, high = turned["ci95"]
    shown = next(row for row in table.rows if row[1] == turned["first"])
    assert shown[3] == f"{-high:+.3f} to {-low:+.3f}"


def test_the_best_of_a_loss_is_the_lowest(evaluation):
    [table], _ = difference_tables(compare_models(evaluation, ["brier"]).to_dict(), "mine")
    best = min(evaluation.models, key=lambda model: model.scores["brier"].pooled).name
    assert {row[0] for row in table.rows} == {f"{best}/h"}


def test_what_is_undefined_is_a_dash_and_too_few_resamples_are_said():
    row = {"metric": "f1_tuned", "first": "a/h", "second": "b/h", "first_value": None, "second_value": None,
           "difference": None, "ci95": [None, None], "p": None, "p_holm": None, "n_resamples": 0}  # fmt: skip
    payload = {"reference": None, "n_patients": 9, "n_resamples": 10, "smallest_p_holm": 0.09, "rows": [row]}
    [table], folded = difference_tables(payload, "mine")
    assert not folded
    assert table.rows == (("a/h", "b/h", "–", "–", "–", "–"),)
    assert "F1 at the tuned threshold" in table.caption
    assert "cannot fall below 0.0900. That is no evidence of equal models: read the intervals.*" in section(
        "report-differences.md.j2", PAYLOAD, payload
    )
    many = {**payload, "rows": [{**row, "first": f"m{i}"} for i in range(16)]}
    assert difference_tables(many, "mine")


# --- averages --------------------------------------------------------------------------------------------------------


def score(pooled, mean, interval=(0.7, 0.9), averaged=20, left_out=4):
    return {"pooled": pooled, "patient_mean": mean, "patient_mean_ci95": list(interval),
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


def test_pooled_and_averaged_stand_side_by_side():
    payload = payload_of()
    words = section("report-averages.md.j2", payload)
    assert words.startswith("## Averaged over patients")
    assert "20 patients with patches of every class are averaged, 4 patients who lack a class are left out" in words
    opened, folded = words.split("<details>")
    table = average_table(payload, ["roc_auc", "balanced_accuracy", "f1"])
    assert table.columns[2:4] == ("ROC-AUC, pooled", "by patient [95 % interval]")
    assert table.rows == (("color", "svm", "0.910", "0.800 [0.700, 0.900]", "0.700", "0.600 [0.700, 0.900]"),)
    assert "| color | svm | 0.910 | 0.800" in opened
    assert folded.index("| Model | Head | Brier score, pooled |") < folded.index("| 0.720 | 0.650")
    assert average_table(payload, tuned=True).rows[0][2:] == ("0.720", "0.650 [0.700, 0.900]")


def test_nobody_or_one_to_average():
    words = section("report-averages.md.j2", payload_of(averaged=0, left_out=24))
    assert words == (
        "## Averaged over patients None of the 24 tested patients has patches of every class: there is no average."
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
    other = {"name": "lbp", "head": "svm", "roc_auc": {"pooled": 0.8}, "tuned": {}}
    table = average_table({**payload, "results": [*payload["results"], other]}, ["roc_auc", "f1"])
    assert table.rows[1] == ("lbp", "svm", "0.800", "–", "–", "–")


def test_the_sections_become_pages(evaluation, tmp_path):
    differences = page("report-differences.md.j2", PAYLOAD, evaluation.comparison.to_dict())
    assert "| m5/h | m6/h |" in differences
    shown = html_page(differences + page("report-averages.md.j2", payload_of()), "demo", tmp_path)
    assert "left out" in shown
    assert '<td class="t">m5/h</td>' in shown
