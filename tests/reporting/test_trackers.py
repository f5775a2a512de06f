"""The lines of the docs for programs that keep runs, MLflow and skore, where they are installed."""

import numpy as np
import pytest

from histofeat import IDCPipeline, PatientKFold, evaluate, write_report

#: What they and their parts say about themselves is not ours.
pytestmark = pytest.mark.filterwarnings("ignore")
SETTINGS = {"inner_cv": PatientKFold(2), "n_resamples": 20}


@pytest.fixture(scope="module")
def evaluation(cohort):
    return evaluate(cohort, {"color": IDCPipeline("color", "logistic")}, PatientKFold(2), **SETTINGS)


@pytest.mark.long
def test_mlflow_keeps_scores_and_page(request, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    pytest.importorskip("sqlalchemy", reason="mlflow has no place for runs without sqlalchemy")
    evaluation = request.getfixturevalue("evaluation")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    with mlflow.start_run() as run:
        mlflow.log_metrics(evaluation.to_frame().select_dtypes("number").iloc[0].dropna().to_dict())
        mlflow.log_artifact(write_report(evaluation, tmp_path / "report"))
    kept = mlflow.get_run(run.info.run_id)
    score = evaluation.models[0].scores["roc_auc"]
    names = ("roc_auc", "roc_auc_low", "roc_auc_high")
    assert [kept.data.metrics[name] for name in names] == [score.value, *score.ci95]
    assert list(tmp_path.glob("mlruns/**/report.html"))


def test_skore_reports_the_same_folds(request, tmp_path):
    skore = pytest.importorskip("skore", reason="skore is not installed")
    evaluation = request.getfixturevalue("evaluation")
    data, splits = evaluation.dataset, list(evaluation.splits)
    pipeline = IDCPipeline("color", "logistic")
    report = skore.CrossValidationReport(pipeline, data.X, data.y, splitter=splits, pos_label=1)
    skore.Project("idc", mode="local", workspace=tmp_path).put("color/logistic", report)
    table = report.metrics.summarize().frame()
    mean = np.mean(evaluation.models[0].scores["roc_auc"].folds)
    assert table.loc["roc_auc"].iloc[0] == pytest.approx(mean)
