"""The report folder: its files, what stands at the top, what never gets in, and what is never overwritten."""

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from page_tree import problems, read_page, words_of

from histofeat import IDCPipeline, evaluate
from histofeat.datasets import FullSet, printable
from histofeat.evaluation import AuditPolicy, NotRun
from histofeat.metrics import LABEL_METRICS, METRICS
from histofeat.model_selection import PatchKFold, PatientKFold
from histofeat.reporting import _canvas, _pages, check_output, describe_environment, write_report

FILES = {
    "metrics.json",
    "metrics.csv",
    "patients.csv",
    "predictions.parquet",
    "splits.json",
    "report.md",
    "report.html",
}
FILES |= {"figures"}


@pytest.fixture(scope="module")
def evaluation(cohort, tmp_path_factory):
    """Two heads that run, and a network whose weights are not there."""
    missing = tmp_path_factory.mktemp("no-weights") / "none.h5"
    pipelines = [
        ("lbp", IDCPipeline(features="lbp", head="logistic")),
        ("lbp", IDCPipeline(features="lbp", head="xgboost", head_params={"n_estimators": 5})),
        ("cnn", IDCPipeline(features="cnn", head="logistic", feature_params={"cnn__weights": str(missing)})),
    ]
    with pytest.warns(UserWarning, match="not run: cnn"):
        return evaluate(cohort, pipelines, PatientKFold(3), inner_cv=PatientKFold(2), n_resamples=50)


@pytest.fixture(scope="module")
def short(evaluation):
    """The same with one model: half of a report's time is its figures."""
    return replace(evaluation, models=evaluation.models[:1])


@pytest.fixture(scope="module")
def empty(evaluation):
    """The same without any model, for what is about folders."""
    return replace(evaluation, models=())


@pytest.fixture(scope="module")
def folder(evaluation, tmp_path_factory):
    """A finished report."""
    return write_report(evaluation, tmp_path_factory.mktemp("reports") / "one", command="python run.py").parent


@pytest.fixture(scope="module")
def metrics(folder):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)


def read_csv(folder):
    return list(csv.DictReader((folder / "metrics.csv").read_text(encoding="utf-8").splitlines()))


def everything_in(folder):
    return "\n".join(
        path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.suffix in {".json", ".md", ".html", ".csv"}
    )


def test_few_patients_are_cautioned_and_dropped_resamples_counted(short, folder, tmp_path):
    text = " ".join((folder / "report.md").read_text(encoding="utf-8").split())
    words = "Only 15 tested patients, of whom 15 carry the rarest class"
    assert words in text
    assert text.index(words) < text.index("## Comparison")
    assert "of the resamples a class has no patch" not in text
    (model,) = short.models
    scores = {**model.scores, "roc_auc": replace(model.scores["roc_auc"], dropped=0.214)}
    page = write_report(replace(short, models=(replace(model, scores=scores),)), tmp_path / "dropped")
    text = " ".join(page.with_name("report.md").read_text(encoding="utf-8").split())
    assert "In 21.4 % of the resamples a class has no patch: these do not count." in text


# --- files -----------------------------------------------------------------------------------------------------------


def test_all_files_are_there_and_listed(folder, metrics):
    assert {path.name for path in folder.iterdir()} == FILES
    assert all((folder / name).is_file() for name in metrics["files"])
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} == set(metrics["files"])


def test_every_figure_has_its_numbers_beside_it(folder):
    figures = sorted((folder / "figures").glob("*.svg"))
    assert [path.stem for path in figures] == [
        "comparison",
        "confusion-best",
        "confusion-best_tuned",
        "confusion_logistic",
        "confusion_logistic_tuned",
        "confusion_xgboost",
        "confusion_xgboost_tuned",
        "costs",
        "forest_roc_auc",
        "patients",
        "pr_logistic",
        "pr_xgboost",
        "reliability_logistic",
        "reliability_xgboost",
        "roc_logistic",
        "roc_xgboost",
    ]
    for path in figures:
        assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["synthetic"] is True


def test_metrics_json_has_the_published_schema(metrics, evaluation):
    assert metrics["schema"] == 2
    assert list(metrics)[:9] == [
        "schema", "histofeat", "title", "created", "command", "dataset", "protocol", "environment", "seconds",
    ]  # fmt: skip
    first, model = metrics["results"][0], evaluation.models[0]
    assert (first["name"], first["features"], first["head"]) == ("lbp", ["lbp"], "logistic")
    assert first["n_features"] == model.n_features
    assert first["labels"] == list(evaluation.labels)
    assert first["confusion_matrix"] == model.confusion.tolist()
    assert set(first["roc_auc"]) >= {"mean", "std", "pooled", "ci95", "folds", "folds_ci95"}
    assert first["roc_auc"]["pooled"] == model.scores["roc_auc"].pooled
    assert first["tuned"]["thresholds"] == list(model.thresholds)
    assert first["tuned"]["f1"]["pooled"] == model.tuned["f1"].pooled
    assert first["tuned"]["confusion_matrix"] == model.confusion_tuned.tolist()


def test_accuracy_stands_beside_that_of_a_constant_classifier(folder, evaluation):
    share = max(np.mean(evaluation.dataset.y == code) for code in (0, 1))
    page = " ".join((folder / "report.md").read_text(encoding="utf-8").split())
    assert f"the class that most have needs no image, and has an accuracy of {share:.3f}." in page


def test_undefined_numbers_are_null(evaluation, tmp_path):
    model = evaluation.models[0]
    hole = replace(model.scores["roc_auc"], folds=(math.nan, 0.5, 0.6), pooled=math.nan, ci95=(math.nan, math.nan))
    broken = replace(model, scores={**model.scores, "roc_auc": hole})
    report = write_report(replace(evaluation, models=(broken,)), tmp_path / "nan")
    text = (report.parent / "metrics.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    score = json.loads(text)["results"][0]["roc_auc"]
    assert (score["folds"][0], score["pooled"], score["ci95"]) == (None, None, [None, None])


def test_metrics_csv_has_a_row_per_metric_and_threshold(folder, metrics):
    rows = read_csv(folder)
    assert len(rows) == 2 * (len(METRICS) + len(LABEL_METRICS))
    assert {row["threshold"] for row in rows if row["metric"] == "roc_auc"} == {"none"}
    assert {row["threshold"] for row in rows if row["metric"] == "f1"} == {"0.5", "tuned"}
    assert {row["dataset"] for row in rows} == {"synthetic"}
    auc = next(row for row in rows if row["metric"] == "roc_auc")
    assert float(auc["pooled"]) == metrics["results"][0]["roc_auc"]["pooled"]
    assert [float(auc[f"fold_{n}"]) for n in (1, 2, 3)] == metrics["results"][0]["roc_auc"]["folds"]


def test_predictions_come_back_exactly(folder, evaluation):
    found, table = pd.read_parquet(folder / "predictions.parquet"), evaluation.predictions()
    assert list(found.columns) == list(table.columns)
    assert not any(" " in name for name in found.columns)
    assert found["path"].tolist() == evaluation.dataset.relative_paths.tolist() * len(evaluation.models)
    pd.testing.assert_frame_equal(found.drop(columns="path"), table.drop(columns="path"), check_dtype=False)
    assert pq.ParquetFile(folder / "predictions.parquet").num_row_groups == len(evaluation.models)
    assert found.attrs == {"dataset": "synthetic", "synthetic": True}


def test_splits_rebuild_the_folds(folder, evaluation):
    splits = json.loads((folder / "splits.json").read_text(encoding="utf-8"))
    for fold, (train, test) in zip(splits["folds"], evaluation.splits, strict=True):
        for side, rows in (("train", train), ("test", test)):
            mask = np.isin(evaluation.dataset.patients, fold[side]["patients"])
            np.testing.assert_array_equal(np.flatnonzero(mask), np.sort(rows))
            assert fold[side]["n_patches"] == len(rows)
            assert "paths" not in fold[side]


def test_same_evaluation_same_bytes(short, tmp_path, monkeypatch):
    monkeypatch.setattr(_pages, "save_figure", _canvas.save_figure)  # each figure is drawn twice
    folder, again = (write_report(short, tmp_path / name).parent for name in ("one", "again"))
    for path in folder.rglob("*.*"):
        first, second = path.read_bytes(), (again / path.relative_to(folder)).read_bytes()
        if path.name in {"metrics.json", "report.md", "report.html"}:
            stamp = rb"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
            first, second = re.sub(stamp, b"", first), re.sub(stamp, b"", second)
        assert first == second, path.name


def test_a_row_that_was_never_tested_has_no_prediction(cohort, tmp_path):
    train, test = next(iter(PatientKFold(3).split(cohort.X, cohort.y, cohort.patients)))
    pipelines = {"lbp": IDCPipeline(features="lbp", head="logistic")}
    held_out = evaluate(cohort, pipelines, [(train, test)], inner_cv=PatientKFold(2), n_resamples=0)
    folder = write_report(held_out, tmp_path / "held-out").parent
    assert len(pd.read_parquet(folder / "predictions.parquet")) == len(test)
    never = json.loads((folder / "splits.json").read_text(encoding="utf-8"))["never_tested"]
    assert never["patients"] == sorted(set(cohort.patients[train]))
    assert "[nan" not in (folder / "report.html").read_text(encoding="utf-8").lower()


def test_more_than_two_classes(cohort, tmp_path):
    labels = np.arange(len(cohort)) % 3
    frame = cohort.frame.assign(label=labels)
    dataset = replace(cohort, frame=frame, target_names=("a", "b", "c"), positive=None, audit=None)
    pipelines = {"lbp": IDCPipeline(features="lbp", head="logistic")}
    three = evaluate(dataset, pipelines, PatientKFold(3), inner_cv=PatientKFold(2), n_resamples=20)
    folder = write_report(three, tmp_path / "three").parent
    assert len(json.loads((folder / "metrics.json").read_text())["results"][0]["confusion_matrix"]) == 3
    panels = json.loads((folder / "figures/roc_logistic.json").read_text())["panels"]
    assert [panel["positive"] for panel in panels] == [None, "a", "b", "c"]
    assert not (folder / "figures/confusion_logistic_tuned.svg").exists()
    rows = read_csv(folder)
    assert {row["threshold"] for row in rows} == {"none", "argmax"}
    assert len(pd.read_parquet(folder / "predictions.parquet")) == len(dataset)


# --- what a reader sees ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_what_did_not_run_stands_before_the_numbers(folder, name):
    text = (folder / name).read_text(encoding="utf-8")
    top = text[: text.index("Comparison")]
    assert top.index("The images are generated") < top.index("Not run, left out, and limits")
    assert re.search(r"(\*\*|<strong>)cnn, logistic(\*\*|</strong>) did not run: ", top)


def test_every_table_of_a_synthetic_cohort_says_so(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    captions = [words_of(caption) for caption in read_page(page).iter("figcaption")]
    assert len(captions) > 10
    assert all(c.startswith("SYNTHETIC cohort") for c in captions if "Wall-clock" not in c)


def test_sections_of_page_and_markdown_have_one_order(folder):
    root = read_page((folder / "report.html").read_text(encoding="utf-8"))
    text = (folder / "report.md").read_text(encoding="utf-8")
    sections = [
        *("Answer", "Comparison", "ROC and precision-recall curves", "Confusion matrices", "Patients"),
        *("Operating points", "Calibration", "Differences between these fits", "Audit of the split"),
        *("Cost against score", "How these numbers were made"),
    ]
    assert [words_of(link) for link in root.find(".//nav").iter("a")] == sections
    assert [words_of(heading) for heading in root.iter("h2")] == sections
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == sections


def test_page_needs_nothing_else(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "")
    assert problems(read_page(page)) == []
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert page.count("<script") == 1
    assert "@import" not in page
    assert "url(" not in page.replace("url(#", "")


def test_incomplete_copy_is_named(short, tmp_path):
    dataset = short.dataset
    full = FullSet(277_524, 279, dict.fromkeys(dataset.target_names, 1))
    real = replace(dataset, synthetic=False, name="IDC", audit=replace(dataset.audit, full_set=full))
    page = write_report(replace(short, dataset=real), tmp_path / "part").read_text(encoding="utf-8")
    assert "IDC, incomplete copy: 180 of 277,524 patches" in page
    assert "SYNTHETIC" not in page


def test_leaked_patients_are_shouted(cohort, tmp_path):
    pipelines = {"lbp": IDCPipeline(features="lbp", head="logistic")}
    options = {"inner_cv": PatchKFold(2), "n_resamples": 0, "audit": AuditPolicy(accept_findings=("HF001",))}
    leaking = evaluate(cohort, pipelines, PatchKFold(3), **options)
    report = write_report(leaking, tmp_path / "leak")
    page = report.read_text(encoding="utf-8")
    assert 'class="notice danger" role="note"><strong>No number here holds for new patients' in page
    assert "Patients leak: the same patients are trained on and tested on." in page
    assert "All patches of a patient stay on one side" not in page
    # Patients do not rebuild a split by patch.
    splits = json.loads((report.parent / "splits.json").read_text(encoding="utf-8"))
    assert len(splits["folds"][0]["test"]["paths"]) == splits["folds"][0]["test"]["n_patches"]


def test_quick_run_and_title_are_said(short, tmp_path):
    quick = replace(short, protocol={**short.protocol, "quick": "9 of 180 patches."})
    page = write_report(quick, tmp_path / "quick", title="A title & more").read_text(encoding="utf-8")
    assert ">A title &amp; more</h1>" in page
    assert "<strong>Quick run.</strong> 9 of 180 patches." in page


def test_report_without_any_model(empty, tmp_path):
    report = write_report(empty, tmp_path / "none")
    assert "Nothing ran, so that no model can be recommended." in report.read_text(encoding="utf-8")
    assert json.loads((report.parent / "metrics.json").read_text())["results"] == []
    assert len(pd.read_parquet(report.parent / "predictions.parquet")) == 0


# --- what never gets in ----------------------------------------------------------------------------------------------

HOSTILE = '<script>alert("1")</script>|*x*[a](b) `c` -->\udce9\x01良性'


def test_text_of_the_data_set_is_no_markup(evaluation, tmp_path):
    model = replace(evaluation.models[0], name=HOSTILE, head=HOSTILE, notes=(HOSTILE,))
    dataset = replace(
        evaluation.dataset, name=HOSTILE, synthetic=False, target_names=(HOSTILE, "<b>"), positive=HOSTILE
    )
    bad = replace(evaluation, dataset=dataset, models=(model,), not_run=(NotRun(HOSTILE, HOSTILE, HOSTILE),))
    folder = write_report(bad, tmp_path / "hostile", title=HOSTILE, command=HOSTILE).parent
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text(encoding="utf-8")
        assert text.count("<script") == (name == "report.html")
        assert "&lt;script&gt;" in text
        assert "<b>" not in text
    rows = [line for line in (folder / "report.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    headline = rows[:3]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in headline}) == 1
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["dataset"]["name"] == printable(HOSTILE)
    for file in (folder / "figures").glob("*.svg"):
        assert not [element for element in ElementTree.parse(file).iter() if element.tag.endswith(("script", "}a"))]


def test_no_path_of_the_machine(folder, evaluation, tmp_path):
    root = evaluation.dataset.root
    reason = f"w.h5: expected a file in {root}/models or {Path.home()}/.keras or /opt/some/where, got none."
    told = replace(evaluation, models=(), not_run=(NotRun("cnn", "svm", reason),))
    told = write_report(told, tmp_path / "told", command=f"python run.py {root}").parent
    assert "~/.keras or where, got none." in (told / "report.md").read_text(encoding="utf-8")
    for text in (everything_in(folder), everything_in(told)):
        assert str(root.parent) not in text
        assert str(tmp_path.parent) not in text
        assert "/opt/" not in text
        assert str(Path.cwd()) not in text
    paths = pd.read_parquet(folder / "predictions.parquet")["path"].astype(str)
    assert not paths.str.startswith("/").any()


def test_paths_without_a_root_are_cut_as_well(short, tmp_path):
    homeless = replace(short, dataset=replace(short.dataset, root=None))
    folder = write_report(homeless, tmp_path / "homeless").parent
    found = pd.read_parquet(folder / "predictions.parquet")
    assert found["path"].iloc[0] == short.dataset.relative_paths[0]


# --- what is never overwritten ---------------------------------------------------------------------------------------


def test_finished_report_is_kept(evaluation, folder):
    before = (folder / "metrics.json").read_bytes()
    with pytest.raises(FileExistsError, match=r"holds a finished report.*overwrite=True"):
        write_report(evaluation, folder)
    assert (folder / "metrics.json").read_bytes() == before
    with pytest.raises(FileExistsError, match="or pass --overwrite to replace it"):
        check_output(folder, option="--overwrite")


def test_overwriting_removes_the_old_report_and_nothing_else(short, empty, tmp_path):
    folder = write_report(short, tmp_path / "twice").parent
    (folder / "mine.txt").write_text("keep me")
    assert (folder / "figures/roc_logistic.svg").is_file()
    write_report(empty, folder, overwrite=True)
    assert (folder / "mine.txt").read_text() == "keep me"
    assert not (folder / "figures/roc_logistic.svg").exists()
    assert json.loads((folder / "metrics.json").read_text())["results"] == []


def test_overwriting_never_reaches_outside(empty, tmp_path):
    folder = write_report(empty, tmp_path / "report").parent
    (tmp_path / "precious.txt").write_text("x")
    (folder / "metrics.json").write_text('{"files": ["../precious.txt", "metrics.json"]}')
    write_report(empty, folder, overwrite=True)
    assert (tmp_path / "precious.txt").is_file()
    (folder / "metrics.json").write_text("no json at all")
    write_report(empty, folder, overwrite=True)
    assert json.loads((folder / "metrics.json").read_text())["schema"] == 2


def test_foreign_folders_and_files_are_refused(empty, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"which holds other files \('thesis.tex'\)"):
        write_report(empty, tmp_path, overwrite=True)
    with pytest.raises(FileExistsError, match="expected a folder, got the file"):
        write_report(empty, tmp_path / "thesis.tex")


@pytest.mark.parametrize("given", [{}, None, "idc"])
def test_what_is_no_evaluation_is_refused(given, tmp_path):
    with pytest.raises(ValueError, match="evaluation: expected an Evaluation, got"):
        write_report(given, tmp_path / "report")
    assert not list(tmp_path.iterdir())


def test_a_template_that_is_not_there_is_named(empty, tmp_path):
    with pytest.raises(ValueError, match=r"template: expected the file of a template, found no 'none\.j2'"):
        write_report(empty, tmp_path / "report", template="none.j2")


def test_empty_folder_is_used_and_failure_leaves_nothing(empty, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    assert write_report(empty, tmp_path / "empty").is_file()

    def no_space(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr("histofeat.reporting._report.write_predictions", no_space)
    with pytest.raises(OSError, match="no space"):
        write_report(empty, tmp_path / "half")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_environment_tells_versions_and_no_host():
    found = describe_environment(device="a GPU")
    assert found["device"] == "a GPU"
    assert found["cores"] >= 1
    assert {"numpy", "scikit-learn", "histofeat"} <= set(found["packages"])
    import platform

    node = platform.node()
    assert not node or node not in json.dumps(found).split('"')
