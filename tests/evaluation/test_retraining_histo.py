"""The encoder that ships, in `evaluate`: refused on patients it knows, left out on request, trained anew in a fold."""

import os
from pathlib import Path

import numpy as np
import pytest

from histofeat import GroupLeakageError, IDCPipeline, PatientKFold, evaluate, load_idc, make_cohort
from histofeat.evaluation import AuditPolicy, find_known_patients
from histofeat.features import HistoEmbedding, Runtime
from histofeat.images import user_cache

pytest.importorskip("openvino", reason="openvino is not installed")


@pytest.fixture(scope="module")
def sample():
    folder = os.environ.get("HISTOFEAT_DATA")
    if not folder:
        pytest.skip("HISTOFEAT_DATA is not set: no real patches on this machine")
    whole = load_idc(Path(folder) / "idc")
    split, rng = whole.official_split(), np.random.default_rng(0)
    rows = [rng.choice(part, 400, replace=False) for part in (split.train, split.test)]
    return whole.subset(np.sort(np.concatenate(rows)))


@pytest.fixture
def pipelines():
    return {"histo": IDCPipeline("histo", "logistic"), "color": IDCPipeline("color", "logistic")}


def test_a_made_up_cohort_is_known_to_nobody(pipelines):
    cohort = make_cohort(n_patients=8, patches_per_patient=6)
    assert find_known_patients(cohort, pipelines) == ()
    evaluation = evaluate(cohort, pipelines, PatientKFold(2), inner_cv=PatientKFold(2), n_resamples=0)
    assert [model.name for model in evaluation.models] == ["histo", "color"]
    assert evaluation.audit.finding("HF007").status == "passed"


def test_known_patients_are_refused_by_their_images(sample, pipelines):
    with pytest.raises(GroupLeakageError, match=r"HF007.*known_patients='leave_out'|HF007"):
        evaluate(sample, pipelines, PatientKFold(2), inner_cv=PatientKFold(2), n_resamples=0)


def test_left_out_the_official_test_patients_remain(sample, pipelines):
    options = {"inner_cv": PatientKFold(2), "n_resamples": 0, "audit": AuditPolicy(known_patients="leave_out")}
    evaluation = evaluate(sample, pipelines, PatientKFold(2), **options)
    tested = set(sample.patients[evaluation.tested])
    assert tested == set(sample.patients[sample.official_split().test])
    assert evaluation.left_out.trained_on == ("IDC",)
    rows = [np.flatnonzero(np.isfinite(model.proba[:, 0])) for model in evaluation.models]
    np.testing.assert_array_equal(*rows)


@pytest.mark.long
def test_trained_anew_in_each_fold(sample, pipelines):
    options = {"inner_cv": PatientKFold(2), "n_resamples": 0, "retrain_encoder": True, "runtime": Runtime(n_jobs=-1)}
    before = sorted((user_cache() / "openvino").glob("histo-*"))
    evaluation = evaluate(sample, pipelines, PatientKFold(2), **options)
    assert evaluation.fold.min() == 0
    assert evaluation.left_out is None
    auc = {model.name: model.scores["roc_auc"].pooled for model in evaluation.models}
    assert 0.6 < auc["histo"] < 0.97
    # The networks of the folds went with their encoders.
    assert sorted((user_cache() / "openvino").glob("histo-*")) == before


def test_another_data_set_of_the_same_ids_is_not_known():
    """Ids mean nothing: patients are known by the pixels of their images."""
    cohort = make_cohort(n_patients=4, patches_per_patient=4)
    known = sorted(set(HistoEmbedding().trained_on().patients))[:4]
    renamed = dict(zip(sorted(set(cohort.patients.astype(str))), known, strict=True))
    frame = cohort.frame.assign(patient=[renamed[str(one)] for one in cohort.patients])
    same_ids = type(cohort)(frame, cohort.target_names, "IDC", cohort.root, cohort.audit, False)
    assert find_known_patients(same_ids, {"histo": IDCPipeline("histo", "logistic")}) == ()
