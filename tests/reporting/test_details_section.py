"""What a report says of patients, operating points, groups and the table, and when it says nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest

from histofeat import IDCPipeline, PatientKFold, evaluate
from histofeat.reporting import write_report


@pytest.fixture(scope="module")
def evaluation(cohort):
    # The site knows half of the class; the scanner all of it.
    site = np.where(cohort.patients.astype(int) % 2 == 0, "north", "south")
    frame = cohort.frame.assign(site=site, scanner=np.where(cohort.y == 1, "A", "B"))
    pipelines = {"color": IDCPipeline("color", "logistic")}
    more = {"inner_cv": PatientKFold(2), "n_resamples": 60}
    return evaluate(replace(cohort, frame=frame), pipelines, PatientKFold(3), **more)


def page(evaluation, folder):
    report = write_report(evaluation, folder)
    payload = json.loads((report.parent / "metrics.json").read_text(encoding="utf-8"))
    return " ".join((report.parent / "report.md").read_text(encoding="utf-8").split()), payload


def test_a_report_names_the_hardest_patients_and_what_patches_are_worth(evaluation, tmp_path):
    words, payload = page(evaluation, tmp_path / "one")
    details, expected = payload["results"][0]["details"], evaluation.details[0]
    assert f"are worth about {details['worth']:,.0f} independent ones" in words
    assert details["worth"] == pytest.approx(expected["worth"])
    hardest = expected["hardest"].iloc[0]
    shown = (hardest.sensitivity, hardest.specificity, hardest.accuracy, hardest.roc_auc, hardest.brier)
    scores = " | ".join(f"{score:.3f}" for score in shown)
    assert f"| {hardest.patient} | {hardest.patches:,} | {hardest.prevalence:.2f} | {scores} |" in words
    assert f"the {len(details['hardest'])} hardest patients" in words
    assert "PPV" not in words
    assert "by themselves" not in words  # no group was named
    assert "counts once, by its mean probability" not in words  # patients have patches of both classes
    low, high = details["sensitivity_at"]["0.95"]["ci95"]
    assert f"\\[{low:.3f}, {high:.3f}\\]" in words


def test_net_benefit_stands_beside_calling_all_positive(evaluation, tmp_path):
    words, payload = page(evaluation, tmp_path / "one")
    for row in payload["results"][0]["details"]["net_benefit"]:
        value = f"{row['net_benefit']:.3f} \\[{row['low']:.3f}, {row['high']:.3f}\\]"
        assert f"| {row['threshold']:.2f} | {value} | {row['treat_all']:.3f} |" in words


def test_a_class_that_the_table_tells_is_said_before_any_number(evaluation, tmp_path):
    words, payload = page(evaluation, tmp_path / "one")
    assert next(iter(payload["table_probe"])) == "scanner"
    assert payload["table_probe"]["scanner"]["value"] == 1.0
    notice = words.index("The class is confounded with scanner")
    assert notice < words.index("## Comparison")
    assert "confounded with site" not in words


def test_what_was_asked_is_answered(evaluation, tmp_path):
    words, payload = page(evaluation.asking(prevalence=0.05, groups="site"), tmp_path / "one")
    details = payload["results"][0]["details"]
    assert f"{details['predictive_values']['ppv']['value']:.3f}" in words
    assert "labels at 0.5 where 5.0 % are positive" in words
    assert set(details["groups"]) == {"north", "south"}
    assert f"| north | {details['groups']['north']['n_patients']} |" in words
    assert payload["protocol"]["groups"] == "site"


def test_labels_of_patients_and_more_than_two_classes(cohort, tmp_path):
    codes = np.unique(cohort.patients, return_inverse=True)[1] % 3
    dataset = replace(
        cohort, frame=cohort.frame.assign(label=codes), target_names=("a", "b", "c"), positive=None, audit=None
    )
    more = {"inner_cv": PatientKFold(2), "n_resamples": 20}
    three = evaluate(dataset, {"color": IDCPipeline("color", "logistic")}, PatientKFold(2), **more)
    words, payload = page(three, tmp_path / "three")
    details = payload["results"][0]["details"]
    assert [row["code"] for row in details["outcomes"]] == [0, 1, 2]
    assert "| b | 5 | 10 |" in words
    assert details["net_benefit"] is None
    assert "net benefit" not in words


def test_guidelines_are_answered_where_the_result_can_and_not_reported_elsewhere(evaluation, tmp_path):
    words, payload = page(evaluation, tmp_path / "one")
    rows = words[words.index("What TRIPOD+AI and CLAIM ask for") :]
    area = payload["results"][0]["roc_auc"]
    assert f"Performance with intervals | Comparison; highest ROC-AUC {area['value']:.3f}" in rows
    assert "all patches of a patient on one side" in rows
    assert "| 3c, 14 | – | Fairness | not reported |" in rows
    assert rows.count("not reported") == 6
    asked, _ = page(evaluation.asking(groups="site"), tmp_path / "two")
    assert "| Fairness | scores by site |" in asked
