"""The whole way once: files on disk, a data set, a comparison by patient, a report."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from histofeat import IDCPipeline, PatientKFold, check_no_shared_patients, evaluate, load_idc, make_cohort, write_report
from histofeat.features import Runtime


def test_from_files_to_a_report(tmp_path):
    make_cohort(n_patients=12, patches_per_patient=12, random_state=1, root=tmp_path / "data")
    dataset = load_idc(tmp_path / "data")
    assert dataset.synthetic
    assert len(dataset) == 144

    pipelines = {
        "color": IDCPipeline("color", "logistic"),
        "handcrafted": IDCPipeline(head="xgboost", head_params={"n_estimators": 20}),
        "cnn": IDCPipeline("cnn", feature_params={"cnn__weights": str(tmp_path / "nowhere.h5")}),
    }
    folds = {"cv": PatientKFold(3), "inner_cv": PatientKFold(2), "n_resamples": 100}
    with pytest.warns(UserWarning, match="not run: cnn, xgboost: .*nowhere.h5"):
        evaluation = evaluate(
            dataset, pipelines, **folds, runtime=Runtime(n_jobs=2, store=tmp_path / "features.sqlite")
        )
    for train, test in evaluation.splits:
        check_no_shared_patients(train, test, dataset.patients)
    assert [model.name for model in evaluation.models] == ["color", "handcrafted"]
    assert "nowhere.h5" in evaluation.not_run[0].reason

    report = write_report(evaluation, tmp_path / "report")
    assert "synthetic" in report.read_text()
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    predictions = pd.read_parquet(tmp_path / "report" / "predictions.parquet")
    for result in metrics["results"]:
        model = f"{result['name']}/{result['head']}"
        rows = predictions[predictions["model"] == model]
        truth = rows["truth"] == dataset.target_names[1]
        assert len(rows) == 144
        assert np.isclose(roc_auc_score(truth, rows["p_tumour"]), result["roc_auc"]["pooled"])
        low, high = result["roc_auc"]["ci95"]
        assert low < result["roc_auc"]["pooled"] < high
        assert np.sum(result["confusion_matrix"]) == 144
