"""The study on the shipped encoder: whom it tests, its page, its ledger, and a quick run on real patches."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from histofeat import IDCPipeline, evaluate
from histofeat.datasets import official_roles

N_PATIENTS = {"train": 4, "validation": 2, "test": 3, "unlisted": 1}


@pytest.fixture(scope="module")
def script(loaded_script):
    with loaded_script("protocols/idc_encoder.py") as module:
        yield module


@pytest.fixture(scope="module")
def page(script):
    import idc_encoder_page

    return idc_encoder_page


@pytest.fixture
def main(script, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return script.main


@pytest.fixture(scope="module")
def tree(official_tree, tmp_path_factory):
    """Patches of a synthetic cohort under the ids of official patients."""
    return official_tree(tmp_path_factory.mktemp("encoder") / "idc", N_PATIENTS, 10)


def options_of(script, *words):
    return script.make_parser().parse_args(list(map(str, words)))


# --- whom it tests, with what ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("above", [False, True])
def test_it_learns_from_all_others_and_tests_the_official_patients(script, tree, above, tmp_path):
    options = options_of(script, "--data", tree.parent if above else tree)
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
        script.load(options_of(script, "--data", tmp_path), tmp_path)


def test_a_quick_run_never_looks_at_the_official_patients(script, tree, tmp_path):
    dataset, (train, test), words = script.load(options_of(script, "--data", tree, "--quick"), tmp_path)
    assert dataset.root.is_relative_to(tmp_path)
    assert dataset.synthetic
    assert not set(dataset.patients) & set(official_roles())
    assert not set(dataset.patients[train]) & set(dataset.patients[test])
    assert sorted([*train, *test]) == list(range(len(dataset)))
    assert "official" not in words


def test_what_is_refused_before_any_work(main, tree, capsys, tmp_path):
    assert main(["--data", str(tree), "--threshold", "best"]) == 2
    assert "threshold" in capsys.readouterr().err
    assert main(["--output", "out"]) == 2
    assert "--data: expected a folder of IDC patches, got none. Give one, or --quick" in capsys.readouterr().err
    assert main(["--data", str(tmp_path / "gone"), "--output", "out"]) == 2
    assert "gone" in capsys.readouterr().err
    assert not Path("out").exists()


def test_every_name_makes_a_pipeline(script, tmp_path):
    options = options_of(script, "--data", "d", "--weights", tmp_path)
    pipelines = {name: script.make_pipeline(name, options) for name in script.MODELS}
    assert {name for pair in script.PLANNED for name in pair} | set(script.CARRIED) <= set(pipelines)
    views = {name: [part.views for part in p.families() if part.family == "histo"] for name, p in pipelines.items()}
    assert {name: found[0] for name, found in views.items() if found} == {
        name: 8 if "8 views" in name else 1 for name in script.MODELS if "histo" in name
    }
    (network,) = pipelines["ImageNet MobileNetV2"].families()
    assert (network.encoder, network.input_size, network.weights_dir) == (script.IMAGENET, 128, str(tmp_path))
    assert script.make_pipeline("handcrafted", options_of(script, "--data", "d", "--quick")).head_params == {
        "n_estimators": 20
    }


def test_no_breakhis_is_no_failure(script, tmp_path):
    assert script.carried(options_of(script, "--data", tmp_path), {}) == {}


def test_the_cost_of_eight_views(script, cohort):
    cost = script.views_cost(cohort, options_of(script, "--data", "d"))
    assert 0 < cost["patches"] <= len(cohort)
    assert list(cost["seconds"]) == [1, 8]
    assert min(cost["seconds"].values()) > 0
    assert cost["engine"].endswith(".")


# --- the page --------------------------------------------------------------------------------------------------------


def score(pooled, away=0.02):
    return {"pooled": pooled, "ci95": [pooled - away, pooled + away]}


def row_of(name, roc_auc, balanced=0.8):
    return {"name": name, "roc_auc": score(roc_auc), "balanced_accuracy": score(balanced), "f1": score(0.7)}


def text_of(blocks):
    from histofeat.reporting import to_markdown

    return to_markdown(list(blocks)).replace("\\", "")  # brackets are escaped


def test_notices_say_which_target_is_reached_by_whom(script, page):
    rows = [
        row_of("histo, XGBoost", 0.941), row_of("histo, 8 views, logistic", 0.939),
        row_of("handcrafted", 0.99, 0.99),  # without the encoder: not asked
        row_of("handcrafted and histo", 0.945, 0.876), row_of("ImageNet MobileNetV2", 0.99),
    ]  # fmt: skip
    notices = list(page.target_notices(rows, script.TARGETS))
    assert [(notice.level, notice.title) for notice in notices] == [
        ("info", "roc auc 0.940 without handcrafted features: reached"),
        ("warning", "roc auc 0.950 with handcrafted features: not reached"),
        ("info", "balanced accuracy 0.875 with handcrafted features: reached"),
    ]
    text = text_of(notices)
    assert "histo, XGBoost: 0.941 [0.921, 0.961], the best of 2." in text
    assert "handcrafted and histo: 0.945 [0.925, 0.965], the best of 1." in text
    assert "handcrafted and histo: 0.876 [0.856, 0.896], the best of 1." in text


def test_no_notice_where_nobody_is_asked(script, page):
    assert list(page.target_notices([row_of("handcrafted", 0.99)], script.TARGETS)) == []


def test_a_table_of_scores(page):
    text = text_of(page.score_blocks([row_of("histo, XGBoost", 0.9)], "few patches", "Youden's index"))
    assert "Few patches." in text
    assert "| histo, XGBoost | 0.900 [0.880, 0.920] | 0.800 [0.780, 0.820] | 0.700 [0.680, 0.720] |" in text
    assert "chosen for Youden's index" in text


def test_a_table_of_perturbed_patches(page):
    def row(pipeline, perturbation, severity, value, drop):
        return {
            "pipeline": pipeline, "perturbation": perturbation, "severity": severity, "value": value, "drop": drop,
            "drop_low": drop - 0.01, "drop_high": drop + 0.01,
        }  # fmt: skip

    table = pd.DataFrame([
        row("a", "none", 0, 0.9, 0.0), row("a", "stain_balance", -4, 0.85, 0.05), row("a", "blur", 4, 0.8, 0.1),
        row("b", "none", 0, 0.95, 0.0), row("b", "stain_balance", -4, 0.96, -0.01), row("b", "blur", 4, 0.7, 0.25),
    ])  # fmt: skip
    text = text_of(page.perturbed_blocks(table))
    assert "| none | 0.900 | 0.950 |" in text
    first = text.index("| stain balance, step -4 | 0.850 (+0.050 [+0.040, +0.060]) | 0.960 (-0.010 [-0.020, +0.000]) |")
    assert first < text.index("| blur, step +4 | 0.800 (+0.100 [+0.090, +0.110]) | 0.700 (+0.250 [+0.240, +0.260]) |")


def test_breakhis_where_it_ran_and_where_it_did_not(page):
    rows = [{"name": "histo, XGBoost", "roc_auc": score(0.8), "n_patches": 1693, "n_patients": 82}]
    carried = {40: rows, 100: "too few patients"}
    text = text_of(page.breakhis_blocks(carried, carried))
    assert "40X: 1693 images of 82 patients" in text
    assert "| histo, XGBoost | 0.800 [0.780, 0.820] |" in text
    assert "At 100X: not evaluated. too few patients" in text
    assert "There was no BreakHis to score." in text_of(page.breakhis_blocks({}, {}))
    assert page.breakhis_rows("too few patients") == "too few patients"


def test_the_cost_and_the_worth_of_eight_views(page):
    rows = [
        row_of("histo, XGBoost", 0.91), row_of("histo, logistic", 0.92), row_of("histo, 8 views, XGBoost", 0.93),
        row_of("histo, 8 views, logistic", 0.94),
    ]  # fmt: skip
    cost = {"patches": 4000, "seconds": {1: 1.0, 8: 8.0}, "engine": "Some engine."}
    text = text_of(page.cost_blocks(cost, rows))
    assert "4,000 decoded patches of 50x50 px. Some engine." in text
    assert "| 1 | 4,000 | 0.910 | 0.920 |" in text
    assert "| 8 | 500 | 0.930 | 0.940 |" in text


@pytest.fixture(scope="module")
def fitted(script, cohort):
    """Three models on the same fold, and one that did not run."""
    from idc_networks import Fitted

    rows, patients = np.arange(len(cohort)), cohort.patients.astype(str)
    tested = np.isin(patients, np.unique(patients)[::2])
    fold = [(rows[~tested], rows[tested])]
    families = {"histo, XGBoost": "lbp", "handcrafted": "color", "ImageNet MobileNetV2": "gray"}
    found = {
        name: Fitted(evaluate(cohort, [(name, IDCPipeline(family, "logistic"))], fold, n_resamples=100), 1.0, 1.0)
        for name, family in families.items()
    }
    from types import SimpleNamespace

    gone = SimpleNamespace(name="ImageNet MobileNetV2", reason="no weights here")
    lost = replace(found["ImageNet MobileNetV2"].evaluation, models=(), not_run=(gone,))
    return {**found, "ImageNet MobileNetV2": Fitted(lost, 1.0, 1.0)}


@pytest.mark.parametrize("official", [True, False])
def test_the_whole_page(script, page, fitted, official):
    perturbed = pd.DataFrame([
        {"pipeline": name, "perturbation": kind, "severity": 4 * (kind == "blur"), "value": 0.8, "drop": 0.0,
         "drop_low": 0.0, "drop_high": 0.0}
        for kind in ("none", "blur") for name in ("histo, XGBoost", "handcrafted")
    ])  # fmt: skip
    made = page.make_page(
        fitted, perturbed, {40: fitted["handcrafted"].evaluation, 100: "too few"},
        {"patches": 10, "seconds": {1: 1.0, 8: 2.0}, "engine": "Some engine."}, words="few patches",
        planned=script.PLANNED, metrics=script.METRICS, targets=script.TARGETS, threshold="Youden's index",
        official=official,
    )  # fmt: skip
    text = text_of(made.blocks)
    assert ("roc auc 0.940 without handcrafted features" in text) == official
    assert "ImageNet MobileNetV2: no weights here" in text
    assert set(made.tables) == {"models", "differences", "perturbed"}
    pairs = {(row["first"], row["second"]) for row in made.results["differences"]}
    assert pairs == {("histo, XGBoost", "handcrafted")}
    assert len(made.results["differences"]) == len(script.METRICS)
    assert made.results["breakhis"][40][0]["name"] == "handcrafted"
    assert made.results["breakhis"][100] == "too few"
    json.dumps(made.results, default=float)


# --- from end to end -------------------------------------------------------------------------------------------------


@pytest.fixture
def cheap(script, monkeypatch):
    """Make all models cheap; which ones they are is tested elsewhere."""
    monkeypatch.setattr(script, "make_pipeline", lambda name, options: IDCPipeline("color", "logistic"))
    monkeypatch.setattr(script, "CONDITIONS", (("blur", 4),))


@pytest.mark.slow
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
    assert [line["pipeline"].partition("/")[0] for line in lines] == list(script.MODELS)
    assert {(line["n_test_patients"], line["n_test_patches"], line["trained_on"]) for line in lines} == {
        ("3", "30", "train+validation+unlisted")
    }
    metrics = json.loads(Path("out/metrics.json").read_text(encoding="utf-8"))
    assert metrics["command"] == (
        "python benchmarks/protocols/idc_encoder.py --data idc --output out --overwrite --n-jobs 1 --resamples 50 "
        "--ledger ledger.csv"
    )
    assert "There was no BreakHis to score." in Path("out/report.md").read_text(encoding="utf-8")
    # A finished report is not replaced, and nobody looks at the test patients for it.
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert len(ledger.read_text(encoding="utf-8").splitlines()) == 1 + len(script.MODELS)


@pytest.mark.long
def test_a_quick_run_with_real_weights_and_breakhis(main, script, real_data, real_weights, tmp_path, capsys):
    ledger = tmp_path / "ledger.csv"
    words = ["--quick", "--weights", str(real_weights), "--breakhis", str(real_data / "breakhis"), "--output", "out"]
    assert main([*words, "--ledger", str(ledger), "--n-jobs", "-1"]) == 0, capsys.readouterr().err
    assert not ledger.exists()
    found = json.loads(Path("out/metrics.json").read_text(encoding="utf-8"))["results"]
    assert [row["name"] for row in found["models"]] == list(script.MODELS)
    assert found["not_run"] == []
    conditions = {(row["perturbation"], row["severity"]) for row in found["perturbed"]}
    assert conditions == {("none", 0), *script.CONDITIONS}
    assert set(found["breakhis"]) == {str(power) for power in script.BREAKHIS_X}
    page = Path("out/report.md").read_text(encoding="utf-8")
    assert "Quick run" in page
    assert str(real_data) not in page + Path("out/metrics.json").read_text(encoding="utf-8")
