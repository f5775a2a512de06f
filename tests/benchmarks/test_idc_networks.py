"""The study on trained networks: its folds, its page, its ledger, and a quick run from end to end."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from parsing import options_of

from histofeat import IDCPipeline, evaluate
from histofeat.datasets import official_roles
from histofeat.metrics import compare_models
from histofeat.reporting import render_markdown
from histofeat.studies import read_scores

HISTORY = {
    "loss": [0.6, 0.4], "accuracy": [0.7, 0.8], "val_loss": [0.7, 0.5], "val_accuracy": [0.6, 0.7],
    "val_roc_auc": [0.71, 0.83], "learning_rate": [1e-3, 1e-4], "seconds": [1.0, 1.0],
}  # fmt: skip
N_PATIENTS = {"train": 5, "validation": 3, "test": 4, "unlisted": 2}


@pytest.fixture(scope="module")
def script(loaded_script):
    with loaded_script("study.py"), loaded_script("protocols/idc_networks.py") as module:
        yield module


@pytest.fixture
def main(script, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    import study

    return lambda words: study.main(["idc-networks", *words])


@pytest.fixture(scope="module")
def tree(official_tree, tmp_path_factory):
    """Patches of a synthetic cohort under the ids of official patients."""
    return official_tree(tmp_path_factory.mktemp("networks") / "idc", N_PATIENTS, 10)


@pytest.fixture(scope="module")
def fitted(script, cohort):
    """Three models on the same fold; the first with the history of a network."""
    rows, patients = np.arange(len(cohort)), cohort.patients.astype(str)
    tested = np.isin(patients, np.unique(patients)[::2])
    from official_test import TimedEvaluation

    found = {}
    named = {script.CANCERNET: "lbp", "handcrafted": "color", script.RESNET: "haralick"}
    for seconds, (name, family) in enumerate(named.items(), start=1):
        evaluation = evaluate(
            cohort, [(name, IDCPipeline(family, "logistic"))], [(rows[~tested], rows[tested])], n_resamples=200
        )
        if name == script.CANCERNET:
            model = replace(evaluation.models[0], histories=(HISTORY,), notes=("a note of the fit",))
            evaluation = replace(evaluation, models=(model,))
        found[name] = TimedEvaluation(evaluation, 60.0 * seconds, 90.0 * seconds)
    return found


def page_of(script, fitted, **changed):
    """The page as `run` has it rendered, without the frame of a study."""
    found = script.OfficialTest.of("few patches", fitted, script.PLANNED, script.METRICS)
    trial = dict.fromkeys(("trial", "network", "recipe", "held_out", "epochs", "seed"), "x")
    results = {
        **found.to_dict(), "official_test_patients": True, "threshold": "Youden's index",
        "fine_tuning": list(script.PLANNED[0]),
        "trials": [{**trial, "cpu_s": 90.0, "roc_auc": 0.9, "roc_auc_8_views": None}], **changed,
    }  # fmt: skip
    frame = {"title": "t", "quick": False, "command": "c", "processor": "p"}
    template = Path(__file__).resolve().parents[2] / "benchmarks" / "protocols" / "study-idc-networks.md.j2"
    return render_markdown(template, {"results": results, **frame})


def test_development_never_loads_the_official_test_patients(script, tree, tmp_path):
    roles = official_roles()
    dataset, (train, test), words = script.load(options_of(script.STUDY, "--data", tree, "--development"), tmp_path)
    assert "test" not in {roles.get(patient) for patient in dataset.patients}
    assert {roles.get(patient) for patient in dataset.patients[test]} == {"validation"}
    assert {roles.get(patient) for patient in dataset.patients[train]} == {"train", None}
    assert sorted([*train, *test]) == list(range(len(dataset)))
    assert words == "30 patches of 3 official validation patients, after training on 70 patches of 7 other patients"


def test_the_official_run_learns_from_all_others_and_tests_the_official_ones(script, tree, tmp_path):
    roles = official_roles()
    dataset, (train, test), words = script.load(options_of(script.STUDY, "--data", tree), tmp_path)
    assert {roles.get(patient) for patient in dataset.patients[test]} == {"test"}
    assert {roles.get(patient) for patient in dataset.patients[train]} == {"train", "validation", None}
    assert "40 patches of 4 official test patients" in words


def test_a_quick_run_with_data_leaves_the_test_patients_alone(script, tree, tmp_path):
    dataset, (train, test), _ = script.load(options_of(script.STUDY, "--data", tree, "--quick"), tmp_path)
    assert "test" not in {official_roles().get(patient) for patient in dataset.patients}
    assert not set(dataset.patients[train]) & set(dataset.patients[test])


@pytest.mark.parametrize(("words", "match"), [
    (["--quick", "--models", "cancernett"], "--models: expected known names, got 'cancernett'. Did you mean"),
    ([], "--data: expected a folder of IDC patches, got none"),
    (["--quick", "--threshold", "best"], "threshold"),
])  # fmt: skip
def test_what_is_refused_before_any_work(main, capsys, words, match):
    assert main([*words, "--output", "out"]) == 2
    assert match in capsys.readouterr().err


def test_a_copy_without_the_patients_to_test(script, tree, tmp_path):
    import shutil

    roles = official_roles()
    for folder in tree.iterdir():
        if roles.get(folder.name) == "train":
            shutil.copytree(folder, tmp_path / "few" / folder.name)
    options = options_of(script.STUDY, "--data", tmp_path / "few")
    with pytest.raises(ValueError, match=r"expected patches of official test patients and of others, got 0 and 50"):
        script.load(options, tmp_path)


# --- the models ------------------------------------------------------------------------------------------------------


def test_every_name_makes_a_pipeline(script, tmp_path):
    options = options_of(script.STUDY, "--quick", "--weights", tmp_path)
    pipelines = {words: script.make_pipeline(name, options) for name, words in script.MODELS.items()}
    assert {pair for pair in script.PLANNED for pair in pair} <= set(pipelines)
    trained = {name for name, pipeline in pipelines.items() if pipeline.features == "pixels"}
    assert trained == {script.CANCERNET, script.RESNET, script.FINE_TUNED}
    tuned = pipelines[script.FINE_TUNED].head
    frozen = pipelines[script.FROZEN].feature_params
    assert (tuned.architecture, tuned.input_size) == (frozen["cnn__encoder"], frozen["cnn__input_size"])
    assert (tuned.weights, tuned.recipe["fine_tune"]) == ("imagenet", "all")
    assert pipelines[script.CANCERNET].head.epochs == 1
    assert script.make_pipeline("cancernet", options_of(script.STUDY, "--data", "d")).head.epochs is None


def test_weights_of_the_command_line_reach_the_network(script, tmp_path):
    from histofeat.networks import find_encoder

    file = tmp_path / find_encoder(script.ENCODER).accepted_files[0]
    file.touch()
    assert script.imagenet(options_of(script.STUDY, "--quick", "--weights", tmp_path)) == str(file)


# --- the page --------------------------------------------------------------------------------------------------------


def test_planned_pairs_are_adjusted_for_themselves_alone(script, fitted):
    found = script.OfficialTest.of("few patches", fitted, script.PLANNED, script.METRICS)
    rows = found.differences
    assert found.differences_refused is None
    pairs = [(row["first"], row["second"]) for row in rows]
    wanted = [
        (script.CANCERNET, "handcrafted"), (script.RESNET, "handcrafted"), (script.RESNET, script.CANCERNET),
    ]  # fmt: skip
    assert pairs == wanted * 2
    assert all(row["p"] <= row["p_adjusted"] == row["p_all_looks"] for row in rows)
    both = {name: fitted[name].evaluation for name in (script.RESNET, script.CANCERNET)}
    (model,) = both[script.CANCERNET].models
    (direct,) = compare_models(both, reference=f"{script.CANCERNET}: {model.name}/{model.head}").rows
    turned = rows[2]
    assert turned["difference"] == pytest.approx(direct.difference)
    assert turned["ci95"] == pytest.approx(list(direct.ci95))
    assert turned["p"] == pytest.approx(direct.p)
    assert turned["first_value"] - turned["second_value"] == pytest.approx(turned["difference"])


def test_the_page_says_whom_it_tests_and_no_target(script, fitted):
    official = page_of(script, fitted)
    assert "Not the official test patients" not in official
    assert "Not the official test patients" in page_of(script, fitted, official_test_patients=False)
    assert "reach" not in official


@pytest.mark.parametrize(("difference", "ci95", "p", "words"), [
    (0.02, [0.01, 0.03], 0.004, "These two fits: the fine-tuned network is above the frozen embedding**"),
    (0.02, [-0.01, 0.05], 0.2, "These two fits: the fine-tuned network is above the frozen embedding, by less than"),
    (-0.01, [-0.03, 0.01], 0.4, "These two fits: the fine-tuned network is not above the frozen embedding"),
])  # fmt: skip
def test_the_page_says_what_fine_tuning_is_worth(script, fitted, difference, ci95, p, words):
    row = {
        "metric": "roc_auc", "first": script.FINE_TUNED, "second": script.FROZEN, "difference": difference,
        "ci95": ci95, "p": p, "p_adjusted": p, "p_all_looks": p,
    }  # fmt: skip
    text = page_of(script, fitted, differences=[row])
    assert words in text
    assert f"{difference:+.3f} (95 % interval {ci95[0]:+.3f} to {ci95[1]:+.3f})" in text


def test_the_page_has_scores_notes_and_trials(script, fitted):
    text = page_of(script, fitted)
    assert "a note of the fit" in text
    assert "1 trials (2 CPU minutes)" in text
    assert "\n| small residual network | handcrafted | " in text
    for figure in ("scores", "loss", "validation_roc_auc"):
        assert f"(figures/{figure}.svg)" in text


def test_figures_and_tables_hold_the_scores_and_the_epochs(script, fitted):
    from histofeat.reporting import draw_intervals, draw_lines

    found = script.OfficialTest.of("few patches", fitted, script.PLANNED, script.METRICS)
    curves = script._curves(found.epochs)
    assert set(curves) == {"loss", "validation_roc_auc"}
    (panel,) = curves["loss"][1]["panels"]
    assert panel["title"] == script.CANCERNET
    assert [(line["name"], line["x"], line["y"]) for line in panel["lines"]] == [
        ("training", [1, 2], [0.6, 0.4]), ("validation patients", [1, 2], [0.7, 0.5]),
    ]  # fmt: skip
    assert all(draw_lines(data).axes for _, data in curves.values())
    assert draw_intervals(script._scores_figure(found)["scores"][1]).axes
    models = found.tables()["models"].set_index("name")
    for name, entry in fitted.items():
        (model,) = entry.evaluation.models
        assert models.loc[name, "roc_auc"] == pytest.approx(model.scores["roc_auc"].pooled)
        assert models.loc[name, "f1_low"] == pytest.approx(model.tuned["f1"].ci95[0])
    assert models.loc[script.CANCERNET, "epochs"] == 2
    assert found.tables()["epochs"]["val_roc_auc"].tolist() == [0.71, 0.83]


def test_models_that_cannot_be_compared_are_said_to_be(script, fitted):
    name, other = script.CANCERNET, "handcrafted"
    model = fitted[name].evaluation.models[0]
    proba = model.proba.copy()
    proba[np.flatnonzero(fitted[name].evaluation.tested)[0]] = np.nan
    broken = replace(fitted[name].evaluation, models=(replace(model, proba=proba),))
    page = page_of(
        script, {name: replace(fitted[name], evaluation=broken, wall_s=1.0, cpu_s=1.0), other: fitted[other]}
    )
    assert "The models were not compared. compare_models.evaluation: expected a probability" in page
    alone = page_of(script, {name: fitted[name]})
    assert "Differences" not in alone


# --- trials and ledger -----------------------------------------------------------------------------------------------


def trials_of(path):
    return read_scores(path, ("roc_auc", "roc_auc_8_views"), numbers=("cpu_s",))


def test_the_trials_on_record(script):
    trials = trials_of(script.TRIALS)
    assert len({trial["trial"] for trial in trials}) == len(trials) > 5
    assert all(0.4 < trial["roc_auc"] < 1 for trial in trials)
    assert all(trial["cpu_s"] > 0 for trial in trials)
    assert "test" not in " ".join(trial["held_out"] for trial in trials)


@pytest.mark.parametrize(("content", "match"), [
    ("a,b\n1,2\n", "expected .*roc_auc"),
    ("{header}\nx,n,r,0,h,5,fast,0.9,\n", "line 2: expected a number in cpu_s, got 'fast'"),
    ("{header}\nx,n,r,0,h,5,10,1.2,\n", "line 2: expected a score between 0 and 1 in roc_auc, got '1.2'"),
])  # fmt: skip
def test_a_damaged_list_of_trials(tmp_path, content, match):
    path = tmp_path / "trials.csv"
    header = "trial,network,recipe,seed,held_out,epochs,cpu_s,roc_auc,roc_auc_8_views"
    path.write_text(content.format(header=header), encoding="utf-8")
    with pytest.raises(ValueError, match=match):
        trials_of(path)


def quick_models(monkeypatch, script):
    """Make all models cheap; which ones they are is tested elsewhere."""
    monkeypatch.setattr(script, "make_pipeline", lambda name, options: IDCPipeline("color", "logistic"))


def test_each_look_at_the_test_patients_is_a_line_of_the_ledger(main, script, tree, monkeypatch, tmp_path, capsys):
    quick_models(monkeypatch, script)
    ledger = tmp_path / "ledger.csv"
    words = [
        "--data",
        str(tree),
        "--ledger",
        str(ledger),
        "--resamples",
        "50",
        "--n-jobs",
        "1",
        "--models",
        "cancernet",
    ]
    assert main([*words, "--output", "out"]) == 0, capsys.readouterr().err
    with ledger.open(encoding="utf-8", newline="") as file:
        (line,) = csv.DictReader(file)
    assert line["pipeline"] == "CancerNet/logistic (color)"
    assert (line["n_test_patients"], line["n_test_patches"]) == ("4", "40")
    assert line["trained_on"] == "train+validation+unlisted"
    metrics = json.loads(Path("out/metrics.json").read_text(encoding="utf-8"))
    found = metrics["results"]["models"][0]
    assert float(line["roc_auc"]) == pytest.approx(found["roc_auc"]["pooled"], abs=1e-6)
    assert found["cpu_s"] > 0
    assert 0 < found["fit_s"] <= found["wall_s"]
    assert metrics["results"]["official_test_patients"] is True
    assert main([*words, "--output", "other", "--development"]) == 0
    assert len(ledger.read_text(encoding="utf-8").splitlines()) == 2
    page = Path("other/report.md").read_text(encoding="utf-8")
    assert "Not the official test patients" in page
    # A finished report is not replaced, and nobody looks at the test patients for it.
    assert main([*words, "--output", "out"]) == 2
    assert len(ledger.read_text(encoding="utf-8").splitlines()) == 2


# --- from end to end -------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_quick_run_trains_everything_on_a_synthetic_cohort(main, capsys, tmp_path):
    pytest.importorskip("tensorflow")
    ledger = tmp_path / "ledger.csv"
    words = ["--quick", "--output", "out", "--ledger", str(ledger), "--weights", str(tmp_path), "--n-jobs", "1"]
    assert main(words) == 0, capsys.readouterr().err
    assert not ledger.exists()
    page = Path("out/report.md").read_text(encoding="utf-8")
    assert "Quick run" in page
    # No weights in that folder: what needs them is named, the rest goes on.
    assert "MobileNetV2, frozen, 96 px:" in page
    models = pd.read_csv("out/models.csv").set_index("name")
    assert {"CancerNet", "small residual network", "handcrafted", "chosen"} <= set(models.index)
    assert models.loc["CancerNet", "epochs"] == 1
    assert "progress" not in Path("out/metrics.json").read_text(encoding="utf-8")
    for name in ("scores", "loss", "validation_roc_auc"):
        assert Path(f"out/figures/{name}.svg").is_file()
    assert "figures/loss.svg" in page
