"""What a split by patch adds: the canary, the paired difference, and the two studies as a person runs them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score
from test_bootstrap import auc_within_folds, t_by_hand

from histofeat import IDCPipeline, evaluate, make_cohort
from histofeat.datasets import PatchDataset, make_signature_cohort
from histofeat.datasets.synthetic._cohort_folder import MANIFEST
from histofeat.evaluation import AuditPolicy
from histofeat.features import Runtime
from histofeat.metrics import patient_weights
from histofeat.model_selection import PatchKFold, PatientKFold
from histofeat.reporting import render_markdown
from histofeat.studies import MeanColor, measure_leakage, panel_of
from histofeat.studies._leakage import touching_share

PIPELINES = {"mean": IDCPipeline((MeanColor(),), "logistic"), "lbp": IDCPipeline("lbp", "logistic")}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """The cohort of the study, as it is by default."""
    return make_signature_cohort(tmp_path_factory.mktemp("planted") / "tree")


@pytest.fixture(scope="module")
def small(planted):
    """Its first twenty patients."""
    chosen = sorted(set(planted.patients))[:20]
    return planted.subset(np.isin(planted.patients, chosen))


@pytest.fixture(scope="module")
def leakage(small):
    return measure_leakage(small, PIPELINES, n_splits=2, n_resamples=120, random_state=4)


@pytest.fixture(scope="module")
def sides(small):
    """Both evaluations, done by hand."""
    accepted = ("HF001", "HF002", "HF005")
    return {
        "honest": evaluate(small, PIPELINES, PatientKFold(2, random_state=4), n_resamples=0),
        "leaked": evaluate(
            small,
            PIPELINES,
            PatchKFold(2, random_state=4),
            inner_cv=PatchKFold(3),
            n_resamples=0,
            audit=AuditPolicy(accept_findings=accepted),
        ),
    }


# --- the canary; a smaller one is in test_evaluation.py -------------------------------------------------------------


@pytest.mark.slow
def test_by_patch_it_is_brilliant_and_by_patient_at_chance(planted):
    pipelines = {"color": IDCPipeline("color", "xgboost", head_params={"n_estimators": 60})}
    row = measure_leakage(planted, pipelines, n_resamples=100, runtime=Runtime(n_jobs=2)).rows[0]
    assert row.leaked > 0.95
    assert row.leaked_ci95[0] > 0.9
    assert row.honest_ci95[0] < 0.5 < row.honest_ci95[1]
    assert abs(row.honest - 0.5) < 0.1
    assert row.difference_ci95[0] > 0.2


@pytest.mark.slow
def test_shortcuts_are_at_chance_by_patient_and_know_who_it_is(planted):
    honest = evaluate(
        planted, IDCPipeline("color", "logistic"), PatientKFold(5), n_resamples=300, runtime=Runtime(n_jobs=2)
    )
    panel = panel_of(honest, families_to_identify=("color",), runtime=Runtime(n_jobs=2))
    assert max(row.roc_auc for row in panel.rows) < 0.6
    assert {entry.family: entry.accuracy > 0.9 for entry in panel.identification}["color"]
    assert not panel.patient_overlap


# --- what is computed ------------------------------------------------------------------------------------------------


def test_both_sides_are_what_evaluate_gives(leakage, sides):
    found = leakage
    assert [(row.name, row.metric) for row in found.rows] == [
        (name, metric) for name in ("mean", "lbp") for metric in ("roc_auc", "balanced_accuracy", "f1", "accuracy")
    ]
    for row in found.rows:
        for side, evaluation in sides.items():
            model = next(model for model in evaluation.models if model.name == row.name)
            score = (model.scores if row.metric == "roc_auc" else model.tuned)[row.metric]
            assert getattr(row, side) == pytest.approx(score.value)
        assert row.difference == pytest.approx(row.leaked - row.honest)
    assert (found.n_patients, found.n_patches, found.n_folds, found.n_resamples) == (20, 400, 2, 120)
    assert found.not_run == ()


def test_the_constant_classifier_has_the_share_of_the_larger_class(leakage, small):
    assert leakage.constant_accuracy == pytest.approx(max(np.mean(small.y == code) for code in (0, 1)))
    assert leakage.constant_accuracy >= 0.5


def test_few_patients_by_a_loop_over_the_draws(small):
    from types import SimpleNamespace

    from histofeat.studies._idc_studies import leakage_of_few

    options = SimpleNamespace(few_patients=[14], draws=2, folds=2, seed=3)
    told = []
    runtime = Runtime(progress=lambda *news: told.append(news))
    table = leakage_of_few(small, {"mean": PIPELINES["mean"]}, options, runtime)
    assert told[-1] == ("few patients", 2, 2)
    rng, ids = np.random.default_rng(3), sorted(set(small.patients))
    differences, constant = [], []
    for _ in range(2):
        few = small.subset(np.isin(small.patients, rng.permutation(ids)[:14]))
        found = measure_leakage(few, {"mean": PIPELINES["mean"]}, n_splits=2, n_resamples=0, random_state=3)
        differences.append(next(row.difference for row in found.rows if row.metric == "f1"))
        constant.append(found.constant_accuracy)
    (row,) = table.query("n_patients == 14 and metric == 'f1'").to_dict("records")
    assert row["difference"] == pytest.approx(np.mean(differences))
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((min(differences), max(differences)))
    assert row["constant_accuracy"] == pytest.approx(np.mean(constant))
    assert (row["name"], row["head"]) == ("mean", "logistic")
    assert list(table["metric"].unique()) == ["roc_auc", "balanced_accuracy", "f1", "accuracy"]


def test_the_difference_is_paired_over_the_same_patients(leakage, sides, small):
    honest, leaked = (sides[side].models[0] for side in ("honest", "leaked"))
    folds = [sides[side].fold for side in ("honest", "leaked")]
    ids = sorted(set(small.patients))
    rows_of = [np.flatnonzero(small.patients == patient) for patient in ids]
    aucs, f1s = [], []
    for weights in patient_weights(small.patients, 120, 4):
        drawn = np.concatenate([np.tile(rows, times) for rows, times in zip(rows_of, weights, strict=True)])
        y = small.y[drawn]
        plain, more = (
            auc_within_folds(y, model.proba[drawn, 1], fold[drawn])
            for model, fold in zip((honest, leaked), folds, strict=True)
        )
        aucs.append(more - plain)
        f1s.append(f1_score(y, leaked.predicted_tuned[drawn]) - f1_score(y, honest.predicted_tuned[drawn]))
    for metric, differences in (("roc_auc", aucs), ("f1", f1s)):
        row = next(row for row in leakage.rows if (row.name, row.metric) == ("mean", metric))
        df = min(len(set(small.patients[small.y == code])) for code in (0, 1)) - 1
        assert row.difference_ci95 == pytest.approx(t_by_hand(row.difference, differences, 20, df, "linear"))


def test_the_content_is_plain_json(leakage):
    content = json.loads(json.dumps(leakage.to_dict(), allow_nan=False))
    assert content["rows"][0]["honest_ci95"] == list(leakage.rows[0].honest_ci95)
    assert 0 < content["touching"] <= 1


def test_features_are_measured_once_without_a_store_too(small, monkeypatch):
    import histofeat.features._lbp

    measured = []
    compute = histofeat.features._lbp.LBPHistogram._compute
    monkeypatch.setattr(
        histofeat.features.LBPHistogram,
        "_compute",
        lambda self, batch: measured.append(len(batch)) or compute(self, batch),
    )
    found = measure_leakage(small, IDCPipeline("lbp", "logistic"), n_splits=2, n_resamples=0)
    assert sum(measured) == 1 + len(small)  # one patch is tried before, to find what cannot run
    assert np.isnan(found.rows[0].difference_ci95).all()
    assert found.to_dict()["rows"][0]["difference_ci95"] == [None, None]


def test_what_cannot_run_is_told_once(small, tmp_path):
    pipelines = {
        "lbp": IDCPipeline("lbp", "logistic"),
        "cnn": IDCPipeline("cnn", "logistic", feature_params={"cnn__weights_dir": str(tmp_path / "none")}),
    }
    with pytest.warns(UserWarning, match="not run: cnn, logistic: weights_dir: "):
        found = measure_leakage(small, pipelines, n_splits=2, n_resamples=0)
    assert {row.name for row in found.rows} == {"lbp"}
    assert [entry.name for entry in found.not_run] == ["cnn"]


def test_more_than_two_classes_are_refused():
    frame = pd.DataFrame({"path": list("abc"), "label": [0, 1, 2], "patient": list("pqr")})
    several = PatchDataset(frame.assign(x=pd.NA, y=pd.NA), ("a", "b", "c"), "mine")
    with pytest.raises(ValueError, match=r"measure_leakage\.dataset: expected two classes, got 3: a, b, c"):
        measure_leakage(several, IDCPipeline("lbp", "logistic"))


# --- neighbours ------------------------------------------------------------------------------------------------------


def test_touching_patches_by_a_loop_over_pairs(small):
    splits = list(PatchKFold(3, random_state=1).split(small.X, small.y))
    frame, touching, tested = small.frame, 0, 0
    for train, test in splits:
        for row in test:
            same = frame.iloc[train]
            same = same[same["patient"] == frame["patient"][row]]
            near = (abs(same["x"] - frame["x"][row]) <= 50) & (abs(same["y"] - frame["y"][row]) <= 50)
            touching += bool(near.any())
            tested += 1
    assert touching_share(small, splits) == pytest.approx(touching / tested)
    assert 0.5 < touching / tested < 1
    assert touching_share(small, PatientKFold(3).split(small.X, small.y, small.patients)) == 0


def test_without_coordinates_nobody_knows(small):
    from dataclasses import replace

    without = replace(small, frame=small.frame.assign(x=pd.NA), audit=None)
    assert np.isnan(touching_share(without, [([0], [1])]))


# --- the studies -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def main(loaded_script):
    with loaded_script("study.py") as module:
        yield module.main


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Made-up patches that load as IDC patches of unlisted patients: a cohort without its manifest."""
    root = tmp_path_factory.mktemp("studies") / "idc"
    make_cohort(n_patients=12, patches_per_patient=12, root=root)
    (root / MANIFEST).unlink()
    return root


@pytest.fixture
def start(main, tree, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(name, *more):
        common = ("--data", tree, "--output", "out", "--quick", "--resamples", "60", "--folds", "2", "--n-jobs", "1")
        return main([name, *map(str, common), *more])

    return run


@pytest.mark.slow
def test_the_study_of_the_leak_writes_its_page(start, tmp_path, capsys):
    assert start("leakage", "--features", "lbp", "--heads", "logistic") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {Path('out/report.md')}"
    content = json.loads((tmp_path / "out/metrics.json").read_text())
    row = content["results"]["real"]["rows"][0]
    page = (tmp_path / "out/report.md").read_text()
    low, high = row["difference_ci95"]
    assert f"{row['difference']:+.3f} \\[{low:+.3f}, {high:+.3f}\\]" in page
    assert "144 patches of 12 patients" in page
    few = {entry["metric"]: entry for entry in content["results"]["few"]}
    assert f"With 8 patients, lbp with logistic has a ROC-AUC of {few['roc_auc']['leaked']:.3f} by patch" in page
    cells = (few["accuracy"][name] for name in ("honest", "leaked", "constant_accuracy"))
    assert " | ".join(f"{value:.3f}" for value in cells) in page
    assert "That is an expectation: it was not measured here." in page
    assert "| lbp | logistic |" in page
    table = pd.read_csv(tmp_path / "out/leakage.csv")
    assert list(table["data"].unique()) == ["IDC", "planted signature"]
    assert table["difference"][0] == pytest.approx(row["difference"], rel=1e-5)
    assert {path.name for path in (tmp_path / "out/figures").iterdir()} == {
        "differences.svg", "differences.json", "scores.svg", "scores.json", "few_patients.svg", "few_patients.json",
    }  # fmt: skip
    for path in {*(tmp_path / "out").rglob("*.*")} - {tmp_path / "out" / "run.toml"}:
        assert str(tmp_path) not in path.read_text(encoding="utf-8"), path


@pytest.mark.slow
def test_the_study_of_shortcuts_writes_its_page(start, tmp_path):
    assert start("shortcuts", "--features", "lbp", "--heads", "logistic", "--identify", "lbp") == 0
    content = json.loads((tmp_path / "out/metrics.json").read_text())["results"]["panel"]
    page = (tmp_path / "out/report.md").read_text()
    for row in content["rows"]:
        assert f"{row['roc_auc']:.3f}" in page
    assert [entry["family"] for entry in content["identification"]][-1] == "lbp"
    assert content["reference"]["name"] == "lbp, logistic"
    table = pd.read_csv(tmp_path / "out/shortcuts.csv")
    assert list(table.columns[:6]) == ["name", "definition", "n_features", "roc_auc", "low", "high"]
    assert {path.name for path in (tmp_path / "out").glob("*.csv")} == {"shortcuts.csv", "identification.csv"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("leakage", ["--features", "colour"], "--features: expected known names, got 'colour'"),
        ("leakage", ["--heads", "svn"], "--heads: expected known names, got 'svn'"),
        ("shortcuts", ["--heads", "xgbost"], "--heads: expected known names, got 'xgbost'"),
    ],
)
def test_unknown_names_are_one_sentence(start, capsys, name, options, message):
    assert start(name, *options) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_an_unknown_family_to_identify_is_one_sentence(start, capsys):
    assert start("shortcuts", "--features", "lbp", "--heads", "logistic", "--identify", "hue") == 2
    assert "--identify: expected known names, got 'hue'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("patients", "draws", "message"),
    [
        ([16, 3], 1, "--few-patients: expected a whole number of at least 4, got 3. Use 4, or fewer --folds."),
        ([16], 0, "--draws: expected a whole number of at least 1, got 0"),
    ],
)
def test_patients_that_cannot_be_drawn_are_refused(small, patients, draws, message):
    from types import SimpleNamespace

    from histofeat.studies._idc_studies import check_few_patients

    with pytest.raises(ValueError, match=message):
        check_few_patients(small, SimpleNamespace(few_patients=patients, draws=draws, folds=2))


def test_where_there_are_fewer_patients_all_are_taken(small, monkeypatch):
    from types import SimpleNamespace

    from histofeat.studies import _idc_studies

    options = SimpleNamespace(few_patients=[16, 21, 30], draws=3, folds=10, seed=0)
    with pytest.raises(ValueError, match=r"--folds: expected a whole number from 2 to 10, got 11\. Give fewer"):
        _idc_studies.check_few_patients(small, SimpleNamespace(**vars(options) | {"folds": 11}))
    options.folds, drawn = 2, []
    _idc_studies.check_few_patients(small, options)
    assert options.few_patients == [16, 20]
    row = {"name": "a", "head": "b", "metric": "c", "honest": 0.5, "leaked": 0.5, "difference": 0.0}
    found = SimpleNamespace(to_dict=lambda: {"n_patches": 1, "constant_accuracy": 0.5, "rows": [row]})
    monkeypatch.setattr(_idc_studies, "measure_leakage", lambda data, *_, **__: drawn.append(data) or found)
    _idc_studies.leakage_of_few(small, [], options, Runtime())
    assert [len(set(each.patients)) for each in drawn] == [16, 16, 16, 20]  # all patients can be drawn in one way only


def test_the_page_says_whether_the_interval_of_the_canary_holds_chance():
    row = {"name": "m", "head": "h", "n_features": 3, "metric": "roc_auc", "leaked": 0.97, "leaked_ci95": [0.9, 1.0],
           "honest": 0.5, "honest_ci95": [0.4, 0.6], "difference": 0.47, "difference_ci95": [0.4, 0.5]}  # fmt: skip

    def verdict(**changes):
        found = {"rows": [{**row, **changes}], "not_run": [], "touching": None, "n_folds": 5, "n_resamples": 10}
        data = {"name": "IDC", "synthetic": False, "n_patches": 9, "n_patients": 3, "full_set": None, "complete": None}
        found |= {"constant_accuracy": 0.7, "n_patients": 3}
        planted = {**found, "n_patches": 9}
        results = {"real": found, "few": [], "draws": 5, "planted_signature": planted, "dataset": data}
        context = {"title": "t", "quick": False, "command": "c", "processor": "p", "results": results}
        return " ".join(render_markdown("study-leakage.md.j2", context).split())

    assert "By patch m with h has 0.970, by patient 0.500; its interval by patient holds 0.5" in verdict()
    assert "its interval by patient does NOT hold 0.5" in verdict(honest_ci95=[0.51, 0.6])
    assert " must" not in verdict()
