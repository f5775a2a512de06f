"""The study on the shipped encoder: whom it tests, its page, its ledger, and a quick run on real patches."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from parsing import options_of

from histofeat import IDCPipeline
from histofeat.datasets import official_roles
from histofeat.features import Runtime
from histofeat.reporting import render_markdown

N_PATIENTS = {"train": 4, "validation": 2, "test": 3, "unlisted": 1}


@pytest.fixture(scope="module")
def script(loaded_script):
    with loaded_script("study.py"), loaded_script("protocols/idc_encoder.py") as module:
        yield module


@pytest.fixture
def main(script, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    import study

    return lambda words: study.main(["idc-encoder", *words])


@pytest.fixture(scope="module")
def tree(official_tree, tmp_path_factory):
    """Patches of a synthetic cohort under the ids of official patients."""
    return official_tree(tmp_path_factory.mktemp("encoder") / "idc", N_PATIENTS, 10)


# --- patients that are tested, and models ----------------------------------------------------------------------------


@pytest.mark.parametrize("above", [False, True])
def test_it_learns_from_all_others_and_tests_the_official_patients(script, tree, above, tmp_path):
    options = options_of(script.STUDY, "--data", tree.parent if above else tree)
    dataset, (train, test), words = script.load(options, tmp_path)
    roles = official_roles()
    assert {roles.get(patient) for patient in dataset.patients[test]} == {"test"}
    assert {roles.get(patient) for patient in dataset.patients[train]} == {"train", "validation", None}
    assert sorted([*train, *test]) == list(range(len(dataset)))
    assert words == "30 patches of 3 official test patients, after training on 70 patches of 7 other patients"


@pytest.mark.parametrize(("kept", "got"), [("test", "30 and 0"), ("train", "0 and 40")])
def test_data_without_one_side_are_refused(script, tree, tmp_path, kept, got):
    for folder in tree.iterdir():
        if official_roles().get(folder.name) == kept:
            (tmp_path / folder.name).symlink_to(folder)
    with pytest.raises(ValueError, match=rf"expected patches of official test patients and of others, got {got}. Give"):
        script.load(options_of(script.STUDY, "--data", tmp_path), tmp_path)


def test_a_quick_run_never_looks_at_the_official_patients(script, tree, tmp_path):
    dataset, (train, test), words = script.load(
        options_of(script.STUDY, "--data", tree, "--quick"), tmp_path, made_up=True
    )
    assert dataset.root.is_relative_to(tmp_path)
    assert dataset.synthetic
    assert not set(dataset.patients) & set(official_roles())
    assert not set(dataset.patients[train]) & set(dataset.patients[test])
    assert sorted([*train, *test]) == list(range(len(dataset)))
    assert "official" not in words


def test_what_is_refused_before_any_work(main, tree, capsys, tmp_path):
    assert main(["--data", str(tree), "--threshold", "best", "--output", "out"]) == 2
    assert "threshold" in capsys.readouterr().err
    assert main(["--output", "out"]) == 2
    assert "--data: expected a folder of IDC patches, got none. Give one, or --quick" in capsys.readouterr().err
    assert main(["--data", str(tmp_path / "gone"), "--output", "out"]) == 2
    assert "gone" in capsys.readouterr().err
    assert not Path("out").exists()


def test_every_name_makes_a_pipeline(script, tmp_path):
    options = options_of(script.STUDY, "--data", "d", "--weights", tmp_path)
    pipelines = {name: script.make_pipeline(name, options) for name in script.MODELS}
    assert {name for pair in script.PLANNED for name in pair} <= set(pipelines)
    # Weak penalties are for what does not know the training patients.
    for name, pipeline in pipelines.items():
        assert pipeline.head_params == {"C": 0.001 if "histo" in name.split() else 0.1}
    families = {name: pipeline.families() for name, pipeline in pipelines.items()}
    assert [family.family for family in families["handcrafted"]] == list(script.HANDCRAFTED)
    (network,) = families["ImageNet MobileNetV2"]
    assert (network.encoder, network.input_size, network.weights_dir) == ("mobilenetv2_0.35", 128, str(tmp_path))
    *_, stages = families["handcrafted and Lite stages"]
    assert (stages.encoder, stages.input_size, stages.weights_dir) == ("efficientnet_lite0_stages", 96, None)


def test_no_breakhis_is_no_failure(script, tmp_path):
    assert script.carried(options_of(script.STUDY, "--data", tmp_path), {}, None) == {}


def test_breakhis_lies_beside_the_patches(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "load_breakhis", lambda folder, magnification, **_: (folder.name, magnification))

    def few(dataset, *_, **options):
        raise ValueError(f"too few in {dataset}")

    monkeypatch.setattr(script, "evaluate", few)
    for name in ("idc", "breakhis", "breakhis200_224"):
        (tmp_path / name).mkdir()
    expected = {100: "too few in ('breakhis', 100)", 200: "too few in ('breakhis200_224', 200)"}
    for words in (["--data", tmp_path / "idc"], ["--data", tmp_path], ["--breakhis", tmp_path / "breakhis"]):
        assert script.carried(options_of(script.STUDY, *words), {}, Runtime()) == expected
    assert script.carried(options_of(script.STUDY, "--data", tmp_path, "--quick"), {}, None) == {}


def test_the_speed(script, cohort):
    speed = script.speed_of(cohort)
    assert 0 < speed["patches"] <= len(cohort)
    assert speed["seconds"] > 0
    assert speed["engine"].endswith(".")


# --- the page --------------------------------------------------------------------------------------------------------


def score(pooled, away=0.02):
    return {"pooled": pooled, "ci95": [pooled - away, pooled + away]}


def row_of(name, roc_auc, balanced=0.8):
    times = {"head": "h", "epochs": 0, "wall_s": 60.0, "cpu_s": 120.0}
    return {"name": name, "roc_auc": score(roc_auc), "balanced_accuracy": score(balanced), "f1": score(0.7), **times}


def perturbed_row(pipeline, perturbation, severity, value, drop):
    return {
        "pipeline": pipeline, "perturbation": perturbation, "severity": severity, "value": value, "drop": drop,
        "drop_low": drop - 0.01, "drop_high": drop + 0.01,
    }  # fmt: skip


PERTURBED = [
    perturbed_row("histo", "none", 0, 0.9, 0.0),
    perturbed_row("histo", "stain_balance", -4, 0.85, 0.05),
    perturbed_row("histo", "blur", 4, 0.8, 0.1), perturbed_row("handcrafted", "none", 0, 0.95, 0.0),
    perturbed_row("handcrafted", "stain_balance", -4, 0.96, -0.01), perturbed_row("handcrafted", "blur", 4, 0.7, 0.25),
]  # fmt: skip


def page_of(template="study-idc-encoder.md.j2", **changed):
    """The page of made-up results, without escapes of brackets."""
    models = [
        row_of("histo", 0.91), row_of("handcrafted", 0.95),
    ]  # fmt: skip
    results = {
        "tested": "few patches", "models": models, "differences": [], "differences_refused": None, "epochs": [],
        "not_run": [], "perturbed": PERTURBED, "breakhis": {}, "threshold": "Youden's index", "looks": 1,
        "speed": {"patches": 4000, "seconds": 2.0, "engine": "Some engine."}, **changed,
    }  # fmt: skip
    frame = {"title": "t", "quick": False, "command": "c", "processor": "p", "short": False}
    template = Path(__file__).resolve().parents[2] / "benchmarks" / "protocols" / template
    return render_markdown(template, {"results": results, **frame}).replace("\\", "")


DIFFERENCE = {
    "metric": "roc_auc", "first": "a", "second": "b", "difference": 0.01, "ci95": [-0.01, 0.03], "p": 0.01,
    "p_adjusted": 0.02, "p_all_looks": 0.06,
}  # fmt: skip


def test_the_page_says_how_often_these_patients_were_looked_at():
    kept = {**DIFFERENCE, "metric": "balanced_accuracy_tuned", "p_all_looks": 0.0123}
    text = page_of(differences=[DIFFERENCE, kept], looks=3, registered="Tests 49 registered patients.")
    assert "**Look 3 at these patients**" in text
    assert "Over all looks, 1 of 2 differences have p below 0.05, 0 of them in ROC-AUC." in text
    assert "and then multiplied by 3: this is look 3 of this study at these patients" in text
    assert "| a | b | +0.010 | -0.010 to +0.030 | 0.0100 | 0.0200 | 0.0600 |" in text
    assert "Tests 49 registered patients." in text
    once = page_of(differences=[DIFFERENCE])
    assert "Look" not in once
    assert "| a | b | +0.010 | -0.010 to +0.030 | 0.0100 | 0.0200 |\n" in once
    assert "planned before any score was seen" not in text + once
    assert "reached" not in text


def test_a_table_of_scores():
    text = page_of()
    assert "| histo | h | 0.910 [0.890, 0.930] | 0.800 [0.780, 0.820] | 0.700 [0.680, 0.720] | – |" in text
    assert "chosen for Youden's index" in text


def test_a_table_of_perturbed_patches():
    text = page_of()
    assert "| none | 0.900 | 0.950 |" in text
    first = text.index("| stain balance, step -4 | 0.850 (+0.050 [+0.040, +0.060]) | 0.960 (-0.010 [-0.020, +0.000]) |")
    assert first < text.index("| blur, step +4 | 0.800 (+0.100 [+0.090, +0.110]) | 0.700 (+0.250 [+0.240, +0.260]) |")


def test_breakhis_where_it_ran_and_where_it_did_not():
    rows = [{"name": "histo", "roc_auc": score(0.8), "n_patches": 1693, "n_patients": 82}]
    text = page_of(breakhis={"40": rows, "100": "too few patients"})
    assert "40X: 1693 images of 82 patients" in text
    assert "| histo | 0.800 [0.780, 0.820] |" in text
    assert "At 100X: not evaluated. too few patients" in text
    text = page_of(breakhis={"40": [{**rows[0], "notes": ["No model was learnt."]}], "100": rows})
    assert "| 0.800 [0.780, 0.820] |\n\n- histo: No model was learnt.\n\n100X:" in text
    assert "There was no BreakHis to score." in page_of()


def test_how_fast_it_is():
    assert "4,000 decoded patches of 50x50 px, one view: 2,000 patches a second. Some engine." in page_of()


def test_the_model_card_shows_scores_differences_and_two_models_on_perturbed_patches():
    more = [perturbed_row("ImageNet MobileNetV2", "none", 0, 0.5, 0.0)]
    text = page_of("encoder-card.md.j2", differences=[DIFFERENCE, {**DIFFERENCE, "metric": "f1_tuned"}],
                   perturbed=PERTURBED + more, looks=3)  # fmt: skip
    assert "| handcrafted | 0.950 [0.930, 0.970] | 0.800 [0.780, 0.820] |" in text
    assert "p is adjusted for all 2 of them, and\nthen multiplied by the 3 looks." in text
    assert "| ROC-AUC | a | b | +0.010 [-0.010, +0.030] | 0.060 |\n| F1 | a | b |" in text
    assert "0 of 2 differences have p below 0.05 over all looks, 0 of them in ROC-AUC." in text
    assert "### On perturbed patches" in text
    assert "| Perturbation | histo | handcrafted | handcrafted and histo |\n" in text


def test_what_the_study_of_some_models_holds(script, cohort, tmp_path):
    """Models on the same fold, one of which did not run."""
    rows, patients = np.arange(len(cohort)), cohort.patients.astype(str)
    tested = np.isin(patients, np.unique(patients)[::2])
    families = {"histo": "lbp", "handcrafted": "color"}
    pipelines = {name: IDCPipeline(one, "logistic") for name, one in families.items()}
    absent = {"cnn__weights": str(tmp_path / "none.h5")}
    pipelines["ImageNet MobileNetV2"] = IDCPipeline("cnn", "logistic", feature_params=absent)
    fitted = script.evaluate_each(
        cohort, (rows[~tested], rows[tested]), pipelines, cv_words="some patients", n_resamples=100
    )
    assert fitted["handcrafted"].evaluation.protocol["cv"] == "some patients"
    found = script.OfficialTest.of("few", fitted, script.PLANNED, script.METRICS, 3)
    assert found.registered is None  # of a synthetic cohort
    for row in found.differences:
        assert row["p_adjusted"] <= row["p_all_looks"] == min(3 * row["p_adjusted"], 1)
    (reason,) = found.not_run
    assert reason.startswith("ImageNet MobileNetV2: ImageNet MobileNetV2, logistic: ")
    assert "none.h5" in reason
    assert {(row["first"], row["second"]) for row in found.differences} == {("histo", "handcrafted")}
    assert len(found.differences) == len(script.METRICS)
    assert set(found.tables()) == {"models", "differences"}
    json.dumps(found.to_dict(), default=float)


# --- from end to end -------------------------------------------------------------------------------------------------


@pytest.fixture
def cheap(script, monkeypatch):
    """Make all models cheap; which ones they are is tested elsewhere."""
    monkeypatch.setattr(script, "make_pipeline", lambda name, options: IDCPipeline("color", "logistic"))
    monkeypatch.setattr(script, "CONDITIONS", (("blur", 4),))


@pytest.mark.long
def test_each_look_at_the_test_patients_is_a_line_of_the_ledger(
    main, script, cheap, tree, tmp_path, capsys, monkeypatch
):
    ledger, scratch = tmp_path / "ledger.csv", tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    words = ["--data", str(tree), "--ledger", str(ledger), "--resamples", "50", "--n-jobs", "1", "--output", "out"]
    assert main([*words, "--quick"]) == 0, capsys.readouterr().err
    assert not ledger.exists()
    assert "Quick run" in Path("out/report.md").read_text(encoding="utf-8")
    assert list(scratch.iterdir()) == []  # the made-up patches are gone
    assert main([*words, "--overwrite"]) == 0, capsys.readouterr().err
    with ledger.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    models = [line["pipeline"].partition("/")[0] for line in lines if line["kind"] == "official"]
    assert models == list(script.MODELS)
    assert [line["pipeline"] for line in lines if line["kind"] == "perturbed"] == list(script.MODELS)
    assert len(lines) == 2 * len(script.MODELS)
    assert {(line["n_test_patients"], line["n_test_patches"], line["trained_on"]) for line in lines} == {
        ("3", "30", "train+validation+unlisted")
    }
    metrics = json.loads(Path("out/metrics.json").read_text(encoding="utf-8"))
    assert metrics["command"] == (
        "python benchmarks/study.py idc-encoder idc --resamples 50 --output out --overwrite --ledger ledger.csv"
    )
    assert "There was no BreakHis to score." in Path("out/report.md").read_text(encoding="utf-8")
    # A finished report is not replaced, and nobody looks at the test patients for it.
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert len(ledger.read_text(encoding="utf-8").splitlines()) == 1 + len(lines)


@pytest.mark.long
def test_a_quick_run_with_real_weights_and_breakhis(main, script, real_data, real_weights, tmp_path, capsys):
    ledger = tmp_path / "ledger.csv"
    words = ["--quick", "--weights", str(real_weights), "--breakhis", str(real_data / "breakhis"), "--output", "out"]
    assert main([*words, "--ledger", str(ledger), "--n-jobs", "-1"]) == 0, capsys.readouterr().err
    assert not ledger.exists()
    found = json.loads(Path("out/metrics.json").read_text(encoding="utf-8"))["results"]
    assert {row["name"] for row in found["models"]} >= {*script.MODELS} - {"handcrafted and Lite stages"}
    # Without the extra histofeat[lite] there are no weights of its stages.
    assert all(reason.startswith("handcrafted and Lite stages: ") for reason in found["not_run"])
    conditions = {(row["perturbation"], row["severity"]) for row in found["perturbed"]}
    assert conditions == {("none", 0), *script.CONDITIONS}
    there = {str(power) for power, name in script.BREAKHIS.items() if (real_data / name).is_dir()}
    assert set(found["breakhis"]) == there
    page = Path("out/report.md").read_text(encoding="utf-8")
    assert "Quick run" in page
    assert str(real_data) not in page + Path("out/metrics.json").read_text(encoding="utf-8")
