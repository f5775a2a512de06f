"""`histofeat score` on tables of any system: any classes, hard labels, several models, the hold-outs of BreakHis."""

import json
import math
import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from histofeat import IDCPipeline, PatientKFold, cli, evaluate
from histofeat.datasets import load_breakhis, make_breakhis_cohort
from histofeat.evaluation import evaluate_predictions, score_breakhis, train_model
from histofeat.metrics import noise_floor, plan_patients
from histofeat.models import predict_images
from histofeat.reporting import write_report

N = 40


@pytest.fixture
def table():
    """Forty patches of ten patients; "Tumor" sorts before "normal"."""
    rng = np.random.default_rng(0)
    truth = np.where(np.arange(N) % 3 == 0, "Tumor", "normal")
    score = np.clip(np.where(truth == "Tumor", 0.6, 0.4) + rng.normal(0, 0.2, N), 0, 1).round(3)
    patients = [f"p{row // 4}" for row in range(N)]
    paths = [f"{patient}/{row}.png" for row, patient in enumerate(patients)]
    return pd.DataFrame({"path": paths, "patient": patients, "truth": truth, "p_Tumor": score, "p_normal": 1 - score})


def test_scores_are_of_the_positive_class(table, tmp_path, capsys):
    table.to_csv(tmp_path / "mine.csv", index=False)
    words = ["score", str(tmp_path / "mine.csv"), "--resamples", "50", "--output", str(tmp_path / "scores.json")]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    first = printed.splitlines()[0]
    assert first == "mine.csv: 40 patches of 10 patients (14 Tumor, 26 normal); positive class: Tumor"
    [model] = json.loads((tmp_path / "scores.json").read_text())["models"]
    y, score = table["truth"] == "Tumor", table["p_Tumor"]
    assert model["scores"]["roc_auc"]["value"] == pytest.approx(roc_auc_score(y, score))
    assert model["scores"]["f1"]["value"] == pytest.approx(f1_score(y, score > 0.5))
    assert f"{roc_auc_score(y, score):.4f}" in printed
    assert "calibration error" in printed
    assert model["calibration"]["slope"]["value"] is not None


def test_one_column_is_of_the_positive_class_wherever_it_stands(table):
    both = evaluate_predictions(table, n_resamples=20).models[0]
    one = table.rename(columns={"p_Tumor": "score"}).drop(columns="p_normal")
    found = evaluate_predictions(one, n_resamples=20)
    assert found.models[0].scores["average_precision"].value == both.scores["average_precision"].value
    turned = evaluate_predictions(one.assign(score=1 - one["score"]), n_resamples=20, positive="normal").models[0]
    assert turned.scores["sensitivity"].value == both.scores["specificity"].value


def test_truth_from_a_table_patients_by_rule_and_json(table, tmp_path, capsys):
    table[["path", "truth"]].rename(columns={"truth": "label"}).to_csv(tmp_path / "labels.csv", index=False)
    table.drop(columns=["truth", "patient"]).sample(frac=1, random_state=0).to_json(
        tmp_path / "p.json", orient="records"
    )
    words = ["score", str(tmp_path / "p.json"), "--truth", str(tmp_path / "labels.csv"), "--json", "--resamples", "20"]
    assert cli.main([*words, "--patients", "^(p[0-9])/"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = evaluate_predictions(table, n_resamples=20).models[0]
    assert found["n_patients"] == 10
    assert found["models"][0]["scores"]["roc_auc"]["value"] == expected.scores["roc_auc"].value
    assert cli.main(words) == 2
    assert "--truth: expected the columns path, label and patient, got none named patient" in capsys.readouterr().err


def test_hard_labels_have_no_ranking(table, tmp_path, capsys):
    called = np.where(table["p_Tumor"] > 0.5, "Tumor", "normal")
    table[["path", "patient", "truth"]].assign(label=called).to_csv(tmp_path / "hard.csv", index=False)
    assert cli.main(["score", str(tmp_path / "hard.csv"), "--resamples", "20"]) == 0
    printed = capsys.readouterr().out
    assert "Hard labels only: ROC-AUC, average precision, Brier score and log loss are undefined" in printed
    assert next(line for line in printed.splitlines() if line.strip().startswith("ROC-AUC ")).split()[1] == "undefined"
    assert "calibration error" not in printed
    model = evaluate_predictions(tmp_path / "hard.csv", n_resamples=20).models[0]
    assert math.isnan(model.scores["brier"].value)
    assert model.scores["f1"].value == evaluate_predictions(table, n_resamples=20).models[0].scores["f1"].value


def test_labels_at_a_threshold_are_scored_beside(table):
    at = table.assign(label=np.where(table["p_Tumor"] >= 0.4, "Tumor", "normal"), threshold=0.4)
    [model] = evaluate_predictions(at, n_resamples=20).models
    assert model.thresholds == (0.4,)
    assert model.tuned["f1"].value == pytest.approx(f1_score(table["truth"] == "Tumor", table["p_Tumor"] >= 0.4))


def test_columns_and_notes_say_at_which_threshold(table, tmp_path, capsys):
    called = np.where(table["p_Tumor"] >= 0.4061, "Tumor", "normal")
    words = ["score", str(tmp_path / "p.csv"), "--resamples", "20"]
    for at, note in ((0.4061, "0.4061"), (None, "unknown")):
        one = table.assign(label=called)
        (one.assign(threshold=at) if at else one).to_csv(tmp_path / "p.csv", index=False)
        assert cli.main(words) == 0
        printed = capsys.readouterr().out
        assert f"its threshold is {note}, and whether" in printed
        assert "predictions at 0.5" in printed
        assert ("predictions, its threshold (0.4061)" if at else "predictions, its labels") in printed
    assert re.search(r"calibration error [0-9.]+ \(95 % interval [0-9.]+ to [0-9.]+\); slope", printed)


def test_the_folder_of_a_report_is_scored(table, tmp_path, capsys):
    table.to_parquet(tmp_path / "predictions.parquet")
    assert cli.main(["score", str(tmp_path), "--resamples", "0"]) == 0
    (tmp_path / "empty").mkdir()
    assert cli.main(["score", str(tmp_path / "empty")]) == 2
    said = capsys.readouterr().err
    assert "predictions.parquet: expected predictions (CSV, Parquet or JSON), got: No such file or directory." in said


def test_missing_truth_names_columns_and_the_file(table, tmp_path, capsys):
    features = pd.DataFrame(np.zeros((N, 150))).add_prefix("f")
    wide = pd.concat([table.rename(columns={"truth": "label"}), features], axis=1)
    wide.to_csv(tmp_path / "wide.csv", index=False)
    assert cli.main(["score", str(tmp_path / "wide.csv")]) == 2
    words = (
        "got none. Name one; the columns are path, patient, label, p_Tumor, p_normal, f0, f1, f2, f3 (and 146 more)."
    )
    said = capsys.readouterr().err
    assert said.endswith(f"{words}\n")
    assert "fragmented" not in said
    assert cli.main(["score", str(tmp_path / "wide.csv"), "--truth", "nosuch.csv"]) == 2
    said = capsys.readouterr().err
    assert "nosuch.csv: expected a table, or one matrix and its rows, got: No such file or directory. Corr" in said
    bad = table.assign(p_Tumor=2)
    with pytest.raises(ValueError, match=r"^predictions, predictions: expected probabilities from 0 to 1"):
        evaluate_predictions(bad)


def test_several_classes_and_merged_ones(table):
    rng = np.random.default_rng(1)
    names = np.array(["normal", "idc", "ilc"])
    proba = rng.dirichlet(np.ones(3), N)
    many = table[["path", "patient"]].assign(truth=names[np.arange(N) % 3], p_normal=proba[:, 0])
    many = many.assign(p_idc=proba[:, 1], p_ilc=proba[:, 2], **{"p_never seen": 0.0})
    found = evaluate_predictions(many.rename(columns={"p_never seen": "p_dcis"}), n_resamples=20)
    assert found.labels == ("dcis", "idc", "ilc", "normal")
    assert found.dataset.positive is None


def test_what_compare_writes_is_scored_as_it_was_there(cohort, tmp_path, capsys):
    pipelines = {"color": IDCPipeline("color", "logistic"), "grey": IDCPipeline("gray", "knn")}
    there = evaluate(cohort, pipelines, PatientKFold(3), inner_cv=PatientKFold(2), n_resamples=20)
    file = write_report(there, tmp_path / "run").parent / "predictions.parquet"
    found = evaluate_predictions(file, n_resamples=20)
    assert [model.name for model in found.models] == ["color/logistic", "grey/knn"]
    for one, other in zip(there.models, found.models, strict=True):
        assert other.scores["roc_auc"].value == pytest.approx(one.scores["roc_auc"].value, abs=1e-12)
        assert other.scores["roc_auc"].ci95 == pytest.approx(one.scores["roc_auc"].ci95, abs=1e-12)
    assert all("its threshold is that of the fold, and" in model.notes[0] for model in found.models)
    table = evaluate_predictions(there.predictions(), n_resamples=20)
    assert table.models[0].tuned["f1"].value == pytest.approx(there.models[0].tuned["f1"].value, abs=1e-12)
    assert cli.main(["score", str(file), "--model", "grey/knn", "--resamples", "0"]) == 0
    assert "color" not in capsys.readouterr().out
    assert cli.main(["score", str(file), "--model", "gray/knn"]) == 2
    assert "expected a model of the predictions, got 'gray/knn'. Did you mean 'grey/knn'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        (
            lambda t: t.drop(columns="truth"),
            [],
            "--truth: expected a column of the predictions, or a table such as --truth 'labels.csv'",
        ),
        (lambda t: t.drop(columns=["p_Tumor", "p_normal"]), [], "expected label or p_<class> of a known class for"),
        (lambda t: pd.concat([t, t[:1]]), [], "expected each path once"),
        (lambda t: t.assign(p_Tumor=2), [], "expected probabilities from 0 to 1"),
        (
            lambda t: t.assign(truth=""),
            [],
            "truth: expected a label for each patch, got none for 'p0/0.png' (and 39 more",
        ),
        (
            lambda t: t[["path", "patient"]].assign(truth=t["truth"].map({"Tumor": "a", "normal": "b"}), score=0.5),
            [],
            "--positive: expected the name of the positive class, got none, and 'a' and 'b'",
        ),
        (lambda t: t, ["--threshold", "f1"], "--threshold: expected none without a protocol, got f1"),
        (
            lambda t: t,
            ["--protocol", "breakhs"],
            "--protocol: expected one of none, breakhis, idc-official, got 'breakhs'",
        ),
        (lambda t: t, ["--protocol", "breakhis"], "--data: expected the folder of BreakHis, got none"),
        (
            lambda t: t,
            ["--positive", "tumour"],
            "--positive: expected one of Tumor, normal, got 'tumour'. Did you mean",
        ),
    ],
)
def test_bad_tables_are_one_sentence(table, tmp_path, capsys, change, words, said):
    change(table).to_csv(tmp_path / "bad.csv", index=False)
    assert cli.main(["score", str(tmp_path / "bad.csv"), "--resamples", "0", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_file_of_another_program(tmp_path, capsys):
    (tmp_path / "bad.parquet").write_text("no")
    assert cli.main(["score", str(tmp_path / "bad.parquet")]) == 2
    assert "bad.parquet: expected predictions (CSV, Parquet or JSON), got: " in capsys.readouterr().err


def test_published_hold_outs_of_breakhis(tmp_path, capsys):
    root = make_breakhis_cohort(patients_per_subtype=2, images_per_slide=1, magnifications=(40,)).root
    dataset = load_breakhis(root)
    patients, parts = sorted(set(dataset.patients)), []
    for number in range(1, 6):
        test = np.isin(dataset.patients, patients[number - 1 :: 5])
        names = [path.rpartition("/")[2] for path in dataset.X]
        roles = [f"{name}|40|{number}|{'test' if there else 'train'}" for name, there in zip(names, test, strict=True)]
        (tmp_path / f"dsfold{number}.txt").write_text("\n".join(roles))
        parts.append(pd.DataFrame({"path": dataset.X[test], "fold": number, "score": 0.75}))
    parts[0]["score"] = 0.25
    pd.concat(parts).to_csv(tmp_path / "mine.csv", index=False)
    more = ["--protocol", "breakhis", "--data", str(root), "--folds-dir", str(tmp_path)]
    assert cli.main(["score", str(tmp_path / "mine.csv"), *more]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("mine.csv: five published hold-outs of BreakHis; positive class: malignant-like")
    found = score_breakhis(tmp_path / "mine.csv", dataset, tmp_path)
    assert found["fold"].tolist() == [1, 2, 3, 4, 5]
    for row, part in zip(found.itertuples(), parts, strict=True):
        rows = np.isin(dataset.X, part["path"])
        ill = pd.Series(dataset.y[rows] == (row.fold > 1)).groupby(dataset.patients[rows]).mean()
        assert row.patient_rate == pytest.approx(ill.mean())
    with pytest.raises(ValueError, match="predictions: expected a column fold, the hold-out from 1 to 5"):
        score_breakhis(pd.read_csv(tmp_path / "mine.csv").drop(columns="fold"), dataset, tmp_path)


def test_what_predict_writes_is_scored(cohort, tmp_path, capsys):
    model = train_model(cohort, IDCPipeline("color", "logistic"), folds=None)
    names = np.array(cohort.target_names)[cohort.y]
    pd.DataFrame({"path": cohort.X, "label": names, "patient": cohort.patients}).to_csv(tmp_path / "t.csv", index=False)
    table = predict_images(model, cohort.X).to_frame()
    for suffix in ("csv", "json", "parquet"):
        file = tmp_path / f"mine.{suffix}"
        write = {"csv": partial(table.to_csv, index=False), "json": partial(table.to_json, orient="records")}
        write.get(suffix, table.to_parquet)(file)
        assert cli.main(["score", str(file), "--truth", str(tmp_path / "t.csv"), "--resamples", "0", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        expected = roc_auc_score(cohort.y, table[f"p_{cohort.target_names[1]}"])
        assert found["models"][0]["scores"]["roc_auc"]["value"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("column", ["label", "diagnosis"])
def test_the_column_of_the_truth_is_no_prediction(table, tmp_path, capsys, column):
    one = table.rename(columns={"truth": column, "p_Tumor": "score"}).drop(columns="p_normal")
    one.to_csv(tmp_path / "t.csv", index=False)
    words = ["score", str(tmp_path / "t.csv"), "--truth", column, "--resamples", "0", "--json"]
    assert cli.main(words) == 0
    [model] = json.loads(capsys.readouterr().out)["models"]
    expected = f1_score(table["truth"] == "Tumor", table["p_Tumor"] > 0.5)
    assert model["scores_at_threshold"]["f1"]["value"] == pytest.approx(expected)
    assert expected < 1


def test_a_threshold_is_of_the_positive_class_it_was_chosen_for(table):
    at = table.assign(label=np.where(table["p_Tumor"] >= 0.2, "Tumor", "normal"), threshold=0.2)
    assert evaluate_predictions(at, n_resamples=0, positive="Tumor").models[0].thresholds == (0.2,)
    with pytest.raises(ValueError, match="positive: expected the class whose labels begin at the threshold of"):
        evaluate_predictions(at, n_resamples=0, positive="normal")


def test_a_table_of_the_truth_agrees_with_the_predictions(table):
    truth = table[["path", "patient", "truth"]].rename(columns={"truth": "label"})
    assert evaluate_predictions(table, truth, n_resamples=0).dataset.audit.n_patients == 10
    other = truth.assign(label=truth["label"].mask(truth["path"] == "p0/1.png", "Tumor"))
    with pytest.raises(ValueError, match=r"truth: expected the labels of the column truth .* 'p0/1.png'"):
        evaluate_predictions(table, other, n_resamples=0)
    moved = truth.assign(path="q" + truth["path"], patient="q" + truth["patient"])
    with pytest.raises(ValueError, match=r"expected the same patient for a patch .* 'qp0/0.png'"):
        evaluate_predictions(table, moved, n_resamples=0)
    assert (
        evaluate_predictions(table, moved.assign(patient=truth["patient"]), n_resamples=0).dataset.X[0] == "qp0/0.png"
    )


def test_leading_zeros_of_labels_stay(table, tmp_path):
    coded = table.replace({"truth": {"Tumor": "01", "normal": "1"}}).rename(columns={"p_Tumor": "p_01"})
    for column in ("truth", "grade"):
        coded.rename(columns={"p_normal": "p_1", "truth": column}).to_csv(tmp_path / "t.csv", index=False)
        found = evaluate_predictions(tmp_path / "t.csv", column, positive="01", n_resamples=0)
        assert sorted(found.labels) == ["01", "1"]


@pytest.mark.parametrize(("name", "text"), [("b.csv", "path,patient,truth,score\n"), ("b.json", "[]")])
def test_a_table_without_rows(tmp_path, capsys, name, text):
    (tmp_path / name).write_text(text)
    assert cli.main(["score", str(tmp_path / name)]) == 2
    assert f"{name}: expected predictions, a row for each patch, got none" in capsys.readouterr().err


def test_predictions_of_merged_classes_are_merged(table):
    names, proba = np.array(["normal", "idc", "ilc"]), np.random.default_rng(1).dirichlet(np.ones(3), N)
    many = table[["path", "patient"]].assign(truth=names[np.arange(N) % 3])
    wide = many.assign(**{f"p_{name}": proba[:, at] for at, name in enumerate(names)})
    merged = {"classes": "normal,tumour=idc+ilc", "n_resamples": 0}
    ill = many["truth"] != "normal"
    [model] = evaluate_predictions(wide, **merged).models
    assert model.scores["roc_auc"].value == pytest.approx(roc_auc_score(ill, 1 - proba[:, 0]))
    called = names[proba.argmax(axis=1)]
    [model] = evaluate_predictions(many.assign(label=called), **merged).models
    assert model.scores["f1"].value == pytest.approx(f1_score(ill, called != "normal"))


def test_a_missing_table_of_the_truth(table, tmp_path):
    with pytest.raises(ValueError, match=r"none.csv: expected a table.* Correct the path\.$"):
        evaluate_predictions(table, str(tmp_path / "none.csv"))


def test_power_says_what_is_noise_and_what_to_test(table, tmp_path, capsys):
    other = table.assign(model="worse", p_Tumor=1 - table["p_normal"] ** 3)
    other["p_normal"] = 1 - other["p_Tumor"]
    pd.concat([table.assign(model="mine"), other.sample(frac=1, random_state=0)]).to_csv(
        tmp_path / "two.csv", index=False
    )
    words = ["power", str(tmp_path / "two.csv"), "--resamples", "200"]
    assert (
        cli.main([*words, "--metric", "balanced_accuracy", "--difference", "0.1", "--half-width", "0.1", "--json"]) == 0
    )
    numbers = json.loads(capsys.readouterr().out)
    evaluation = evaluate_predictions(pd.read_csv(tmp_path / "two.csv"), n_resamples=200)
    floor = noise_floor(evaluation, metric="balanced_accuracy")
    assert numbers["noise_floor"]["difference"] == pytest.approx(floor.difference)
    assert numbers["carriers"] == {"normal": 10, "Tumor": 10}
    wide, apart = numbers["plans"]
    best = floor.models[0]
    assert (
        wide["n_patients"] == plan_patients(evaluation, width=0.2, metric="balanced_accuracy", models=best).n_patients
    )
    asked = {"difference": 0.1, "metric": "balanced_accuracy", "models": floor.models}
    assert apart["n_patients"] == plan_patients(evaluation, **asked).n_patients
    assert cli.main([*words, "--metric", "brier"]) == 0
    printed = capsys.readouterr().out
    assert "With these 10 test patients a difference in Brier score below" in printed
    assert "For a difference of 0.01 (80 % power): " in printed
    assert "Design effect " in printed
    assert "Only 10 tested patients" in printed


def test_power_of_one_model_has_no_floor_and_needs_probabilities(table, tmp_path, capsys):
    table.to_csv(tmp_path / "one.csv", index=False)
    assert cli.main(["power", str(tmp_path / "one.csv"), "--resamples", "50"]) == 0
    assert "Noise floor: not known of a single model." in capsys.readouterr().out
    assert cli.main(["power", str(tmp_path / "one.csv"), "--resamples", "50", "--difference", "0.1"]) == 2
    assert "expected 2 models, got 1" in capsys.readouterr().err
    hard = table.assign(label=np.where(table["p_Tumor"] > 0.5, "Tumor", "normal"))
    hard.drop(columns=["p_Tumor", "p_normal"]).to_csv(tmp_path / "hard.csv", index=False)
    assert cli.main(["power", str(tmp_path / "hard.csv"), "--resamples", "50"]) == 2
    assert "--metric: expected one that these predictions have, got roc_auc, which needs" in capsys.readouterr().err
    assert cli.main(["power", str(tmp_path / "hard.csv"), "--metric", "balanced_accuracy", "--resamples", "50"]) == 0
