"""The protocol of BreakHis as a person runs it: rates, means, corrected tests, classes, and its refusals."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import histofeat.reporting
from histofeat.datasets import load_breakhis, make_breakhis_cohort
from histofeat.features import extract, make_family
from histofeat.metrics import holm, nadeau_bengio
from histofeat.model_selection import PatientHoldOuts
from histofeat.models import make_head
from histofeat.studies._breakhis_study import compare_hold_outs, summarise_hold_outs

TEMPLATE = Path(histofeat.reporting.__file__).with_name("templates") / "study-breakhis.md.j2"
QUICK = ["--quick", "--n-jobs", "1", "--resamples", "30"]
MODELS = ["--features", "color", "--heads", "knn", "logistic", "--fold-heads", "logistic", "--magnifications", "100"]


@pytest.fixture(scope="module")
def script(loaded_script):
    with loaded_script("study.py") as module:
        yield lambda words: module.main(["breakhis", *words])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A made-up cohort in the tree of BreakHis."""
    root = tmp_path_factory.mktemp("made") / "tree"
    make_breakhis_cohort(patients_per_subtype=4, images_per_slide=2, magnifications=(100,), root=root)
    return root


@pytest.fixture(scope="module")
def finished(script, made, tmp_path_factory):
    output = tmp_path_factory.mktemp("study") / "out"
    assert script([*QUICK, *MODELS, "--data", str(made), "--output", str(output)]) == 0
    return output


def test_rates_of_a_hold_out_are_those_of_the_same_steps_by_hand(finished, made):
    dataset = load_breakhis(made, 100)
    y, patients = dataset.y, dataset.patients
    X = extract([make_family("color")], dataset.X).features[0]
    splits = list(PatientHoldOuts(5).split(dataset.X, y, patients))
    found = pd.read_csv(finished / "hold_outs.csv").query("head == 'knn'").set_index("hold_out")
    assert len(found) == 5
    for number, (train, test) in enumerate(splits, start=1):
        head = make_head("knn", params={"n_neighbors": 1}).fit(X[train], y[train])
        right = pd.Series(head.predict(X[test]) == y[test])
        assert found.loc[number, "patient_rate"] == pytest.approx(right.groupby(patients[test]).mean().mean(), abs=1e-5)
        assert found.loc[number, "image_rate"] == pytest.approx(right.mean(), abs=1e-5)
        assert found.loc[number, "n_test_patients"] == len(set(patients[test]))


def test_means_and_deviations_are_over_the_hold_outs(finished):
    rows, means = pd.read_csv(finished / "hold_outs.csv"), pd.read_csv(finished / "means.csv")
    assert list(means["head"]) == ["majority class", "knn", "logistic"]
    expected = rows.groupby("head")["patient_rate"].agg(["mean", "std"]).loc[means["head"]]
    np.testing.assert_allclose(means["patient_rate"], expected["mean"], atol=1e-4)
    np.testing.assert_allclose(means["patient_rate_sd"], expected["std"], atol=1e-4)
    assert means.loc[0, "balanced_accuracy"] == pytest.approx(0.5), "it calls everything by one name"


def test_the_difference_is_tested_with_the_correction(finished):
    rows = pd.read_csv(finished / "hold_outs.csv").pivot_table(index="hold_out", columns="head", values="patient_rate")
    [found] = json.loads((finished / "metrics.json").read_text(encoding="utf-8"))["results"]["differences"]
    test = nadeau_bengio(rows["logistic"] - rows["knn"], n_train=22, n_test=10)
    assert (found["head"], found["p"]) == ("logistic", pytest.approx(test.p, abs=1e-3))
    assert found["p_holm"] == found["p"]


def test_the_adjustment_is_over_all_comparisons_and_leaves_out_what_tells_no_uncertainty():
    rng = np.random.default_rng(0)
    shared = {"n_train_patients": 14, "n_test_patients": 6}
    rates = {("a", "svm"): rng.random(5), ("b", "svm"): rng.random(5), ("c", "svm"): rng.random(5)}
    rates["d", "svm"] = rates["a", "svm"] + 0.125
    rows = [
        {"magnification": power, "features": features, "head": head, "hold_out": n, "patient_rate": rate, **shared}
        for power in (40, 100)
        for (features, head), values in rates.items()
        for n, rate in enumerate(values if power == 40 else values[::-1] ** 2, start=1)
    ]
    found = compare_hold_outs(rows, 5, ("a", "svm"))
    assert len(found) == 6
    p = [entry["p"] for entry in found if entry["p"] is not None]
    assert len(p) == 5
    assert [entry["p_holm"] for entry in found if entry["p"] is not None] == pytest.approx(holm(p).tolist())
    [constant] = [entry for entry in found if entry["p"] is None]
    assert (constant["features"], constant["magnification"]) == ("d", 40)
    assert constant["difference"] == pytest.approx(0.125)


def test_a_model_that_fails_on_one_hold_out_has_no_mean():
    rows = [
        {
            "magnification": 40,
            "features": "a",
            "head": head,
            "hold_out": n,
            "n_features": 3,
            **dict.fromkeys(("patient_rate", "image_rate", "balanced_accuracy"), 0.5),
        }
        for head, numbers in (("svm", (1, 2)), ("qda", (2,)))
        for n in numbers
    ]
    assert [entry["head"] for entry in summarise_hold_outs(rows, 2)] == ["svm"]


def test_the_page_says_whose_images_and_whose_hold_outs_these_are(finished):
    text = (finished / "report.md").read_text(encoding="utf-8")
    assert "Synthetic cohort" in text
    assert "not the published lists, ours: PatientHoldOuts(n_splits=5" in text
    assert "are not comparable with it" in text
    assert "| none | majority class |" in text
    assert "Subtypes, 100X, by folds of patients" in text
    for written in finished.rglob("*"):
        assert written.suffix not in (".png", ".jpg", ".jpeg", ".tif"), "no picture of tissue"


def test_only_the_abstract_is_printed_of_what_was_published():
    """Numbers from memory stay out: of the published results there is one range, and no decimal of percent."""
    text = TEMPLATE.read_text(encoding="utf-8")
    assert "gives an accuracy of 80\nto 85 %" in text
    assert not re.findall(r"\b[6-9]\d\.\d\b", text)


def test_classes_are_in_a_file_of_their_own(finished):
    classes = pd.read_csv(finished / "classes.csv")
    assert set(classes["target"]) == {"malignant", "subtype"}
    subtypes = classes.query("target == 'subtype'")
    assert len(subtypes) == 8
    assert subtypes["support"].sum() == 80
    binary = classes.query("target == 'malignant'").set_index("class")
    assert binary.loc["malignant-like", "sensitivity"] == binary.loc["benign-like", "specificity"]


def test_published_lists_are_used_where_they_lie(script, made, tmp_path):
    dataset = load_breakhis(made, 100)
    names = [Path(path).name for path in dataset.X]
    drawn = PatientHoldOuts(5, random_state=7).split(dataset.X, dataset.y, dataset.patients)
    for number, sides in enumerate(drawn, start=1):
        roles = zip(("train", "test"), sides, strict=True)
        lines = [f"{names[row]}|100|{number}|{role}" for role, rows in roles for row in rows]
        (tmp_path / f"dsfold{number}.txt").write_text("\n".join(lines), encoding="utf-8")
    models = ["--features", "color", "--heads", "knn", "--fold-heads", "knn", "--magnifications", "100"]
    places = ["--data", str(made), "--lists", str(tmp_path), "--output", str(tmp_path / "out")]
    assert script([*QUICK, *models, *places]) == 0
    [found] = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))["results"]["hold_outs"]
    assert found["folds"]["published"]
    assert {row["hold_out"] for row in found["rows"]} == {1, 2, 3, 4, 5}
    sizes = [fold["n_test"] for fold in found["folds"]["folds"]]
    assert all(row["n_test_images"] == sizes[row["hold_out"] - 1] for row in found["rows"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--features", "colour"], "--features: expected known names, got 'colour'"),
        (["--heads", "svn"], "--heads: expected known names, got 'svn'"),
        (["--fold-heads", "svn"], "--fold-heads: expected known names, got 'svn'"),
        (["--magnifications", "50"], "--magnifications: expected one of 40, 100, 200, 400, got 50"),
        (["--reference", "pftas/vote"], "--reference: expected known names, got 'pftas/vote'"),
    ],
)
def test_names_are_refused_before_the_long_work(script, made, capsys, more, words):
    assert script(["--data", str(made), *more]) == 2
    assert words in capsys.readouterr().err


def test_breakhis_is_one_folder(script, made, capsys):
    assert script(["--data", str(made), str(made)]) == 2
    assert "DATA: expected one folder of BreakHis, got 2. Give the archive's." in capsys.readouterr().err


def test_without_data_only_a_quick_run_goes_on(script, capsys):
    assert script([]) == 2
    assert "DATA: expected the folder of BreakHis, got none. Give it, or try --quick." in capsys.readouterr().err


def test_a_quick_run_draws_its_own_cohort(script, tmp_path):
    assert script([*QUICK, "--output", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))["results"]
    assert {(entry["features"], entry["head"]) for entry in found["means"][1:]} == {
        (features, head) for features in ("lbp", "color") for head in ("knn", "random_forest")
    }
    assert found["settings"]["reference"] == "lbp/knn"
    [images] = found["datasets"]
    assert (images["magnification"], images["n_patches"], images["synthetic"]) == (100, 80, True)


@pytest.mark.long
def test_the_real_sample_goes_through_and_says_what_it_cannot_show(script, real_data, tmp_path):
    output = tmp_path / "out"
    arguments = [*QUICK, "--features", "color", "--heads", "knn", "--fold-heads", "logistic", "--data", str(real_data)]
    assert script([*arguments, "--output", str(output)]) == 0
    text = (output / "report.md").read_text(encoding="utf-8")
    assert "100X: 67 of the published 2,081 images; patients: 20" in text
    assert "It cannot rank features or heads" in text
    assert "hold-outs at 200X: " in text
    assert "The classes as they are were refused." in text
    assert "merged by the rule" in text
