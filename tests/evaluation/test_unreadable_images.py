"""Images that turn out unreadable in mid-run leave an evaluation before folds are made, and are named everywhere."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from histofeat import IDCPipeline, PatientKFold, Runtime, evaluate, make_cohort, write_report
from histofeat.datasets import load_idc
from histofeat.evaluation import audit_split, train_model
from histofeat.exceptions import DatasetError, PatchError
from histofeat.features import ImageFingerprint, extract, make_family
from histofeat.model_selection import RepeatedPatientKFold
from histofeat.studies import ablate_families, measure_leakage, measure_robustness

SETTINGS = {"inner_cv": PatientKFold(2), "n_resamples": 20}
SKIP = Runtime(on_error="skip")


@pytest.fixture
def whole(tmp_path):
    return make_cohort(n_patients=8, patches_per_patient=8, root=tmp_path / "cohort")


def cut(path):
    """Cut a file off behind its header, which loaders accept; return what it held."""
    with Path(path).open("r+b") as file:
        content = file.read()
        file.truncate(60)
    return content


@pytest.fixture
def broken(whole):
    """The data set, the rows of three unreadable images, and the data set without them."""
    rows = [0, 17, 40]
    for row in rows:
        cut(whole.X[row])
    return whole, rows, whole.subset(np.setdiff1d(np.arange(len(whole)), rows))


@pytest.fixture
def pipeline():
    return IDCPipeline(features="color", head="logistic")


class TestExtraction:
    def test_rows_stay_in_their_places_and_nothing_of_a_failure_is_stored(self, broken, tmp_path):
        dataset, rows, rest = broken
        store, family = tmp_path / "f.sqlite", make_family("color")
        with pytest.raises(PatchError, match="expected a whole image"):
            extract([family], dataset.X)
        found = extract([family, ImageFingerprint()], dataset.X, store=store, n_jobs=2, on_error="skip")
        assert list(found.failures) == rows
        assert all(reason.startswith("expected a whole image") for reason in found.failures.values())
        kept = np.setdiff1d(np.arange(len(dataset)), rows)
        expected = extract([family], rest.X).features[0]
        assert np.isnan(found.features[0][rows]).all()
        assert (found.features[0][kept] == expected).all()
        assert dict(found.computed) == {"color": len(kept), "fingerprint": len(kept)}
        again = extract([family], dataset.X, store=store, on_error="skip")
        assert list(again.failures) == rows
        assert again.computed == {"color": 0}

    def test_a_file_that_was_repaired_is_measured(self, whole, tmp_path):
        content = cut(whole.X[3])
        known = {"store": tmp_path / "f.sqlite", "on_error": "skip"}
        assert list(extract([make_family("color")], whole.X, **known).failures) == [3]
        Path(whole.X[3]).write_bytes(content)
        found = extract([make_family("color")], whole.X, **known)
        assert not found.failures
        assert found.computed == {"color": 1}

    def test_files_that_are_gone_or_pipes(self, whole):
        Path(whole.X[1]).unlink()
        Path(whole.X[2]).unlink()
        os.mkfifo(whole.X[2])
        found = extract([make_family("color")], whole.X, on_error="skip")
        assert [reason.split(",")[1].split(".")[0] for reason in found.failures.values()] == [
            " found no such file",
            " got a named pipe",
        ]

    @pytest.mark.parametrize("call", [lambda: Runtime(on_error="drop"), lambda: extract([], ["a"], on_error="drop")])
    def test_other_words(self, call):
        with pytest.raises(ValueError, match="on_error: expected one of raise, skip, got 'drop'"):
            call()


class TestEvaluate:
    def test_as_if_the_files_were_not_there(self, broken, pipeline):
        dataset, rows, rest = broken
        with pytest.raises(PatchError, match="expected a whole image"):
            evaluate(dataset, pipeline, PatientKFold(2), **SETTINGS)
        with pytest.warns(UserWarning, match=r"synthetic: Images .* left out .*: 3 of 64 images \(4\.7 %\)"):
            found = evaluate(dataset, pipeline, PatientKFold(2), runtime=SKIP, **SETTINGS)
        expected = evaluate(rest, pipeline, PatientKFold(2), **SETTINGS)
        assert found.dataset.frame.equals(rest.frame)
        assert np.array_equal(found.models[0].proba, expected.models[0].proba)
        assert np.isfinite(found.models[0].proba).all()
        assert found.protocol["cv"] == expected.protocol["cv"]
        assert found.failures["path"].tolist() == dataset.relative_paths[rows].tolist()
        assert found.failures["reason"].str.contains("expected a whole image").all()
        assert "left out, cannot be decoded: 3" in found.dataset.audit.summary()
        assert expected.failures.empty

    @pytest.mark.filterwarnings("ignore:.*left out")
    def test_pairs_of_rows_keep_their_rows(self, broken, pipeline):
        dataset, rows, _ = broken
        splits = list(PatientKFold(2).split(dataset.X, dataset.y, dataset.patients))
        found = evaluate(dataset, pipeline, iter(splits), runtime=SKIP, **SETTINGS)
        for (train, test), old in zip(found.splits, splits, strict=True):
            for side, before in ((train, old[0]), (test, old[1])):
                assert found.dataset.X[side].tolist() == dataset.X[np.setdiff1d(before, rows)].tolist()

    @pytest.mark.filterwarnings("ignore:.*left out")
    def test_repeats(self, broken, pipeline):
        found = evaluate(broken[0], pipeline, RepeatedPatientKFold(2, n_repeats=2), runtime=SKIP, **SETTINGS)
        assert len(found.failures) == 3

    @pytest.mark.filterwarnings("ignore:.*left out")
    def test_a_patient_who_is_lost_is_named(self, whole, pipeline):
        patients = whole.patients
        dataset = whole.subset(np.flatnonzero((patients != patients[0]) | (np.arange(len(whole)) < 2)))
        for path in dataset.X[:2]:
            cut(path)
        found = evaluate(dataset, pipeline, PatientKFold(2), runtime=SKIP, **SETTINGS)
        assert f"Patients without any other image: '{patients[0]}'." in found.dataset.audit.notes[-1]
        assert patients[0] not in found.dataset.patients

    def test_too_many(self, whole, pipeline):
        for path in whole.X[:7]:
            cut(path)
        match = (
            r"synthetic: expected at most a tenth of unreadable images, got 7 of 64 images \(10\.9 %\)\. The first is"
        )
        with pytest.raises(DatasetError, match=match):
            evaluate(whole, pipeline, PatientKFold(2), runtime=SKIP, **SETTINGS)

    def test_a_class_that_is_lost(self, whole, pipeline):
        last = np.flatnonzero(whole.y == 1)[-1]
        dataset = whole.subset(np.append(np.flatnonzero(whole.y == 0), last))
        cut(whole.X[last])
        with pytest.raises(DatasetError, match=r"got 1 of \d+ images \(.* %\), all of class 'tumour'"):
            evaluate(dataset, pipeline, [(np.arange(4, len(dataset)), np.arange(4))], runtime=SKIP, **SETTINGS)


@pytest.mark.filterwarnings("ignore:.*left out")
def test_the_report_names_them(broken, pipeline, tmp_path):
    dataset, rows, _ = broken
    patient = dataset.X[0].rsplit("/", 1)[0]
    os.mkfifo(f"{patient}/{dataset.patients[0]}_idx5_x9001_y1_class{dataset.y[0]}.png")
    evaluation = evaluate(load_idc(dataset.root), pipeline, PatientKFold(2), runtime=SKIP, **SETTINGS)
    folder = write_report(evaluation, tmp_path / "report").parent
    table = pd.read_csv(folder / "failures.csv")
    assert len(table) == 4
    assert table["reason"][0] == "is a named pipe"
    assert set(dataset.relative_paths[rows]) < set(table["path"])
    payload = json.loads((folder / "metrics.json").read_text())
    assert payload["dataset"]["audit"]["failures"] == table.to_dict("records")
    assert "failures.csv" in payload["files"]
    for page in ("report.md", "report.html"):
        text = (folder / page).read_text().replace("\\", "")
        assert "failures.csv" in text
        assert all(name.rsplit("/", 1)[1] in text for name in table["path"])
        assert "3 of 64 images (4.7 %)" in text


@pytest.mark.filterwarnings("ignore:.*left out")
class TestStudies:
    def test_training(self, broken, pipeline):
        assert train_model(broken[0], pipeline, folds=None, runtime=SKIP).about["n_images"] == 61

    @pytest.mark.long
    def test_studies_leave_out_the_same(self, broken, pipeline, whole):
        dataset, _, rest = broken
        ablated = [
            ablate_families(
                one, IDCPipeline(("color", "lbp"), "logistic"), PatientKFold(2), n_resamples=20, runtime=SKIP
            )
            for one in (dataset, rest)
        ]
        tables = [found.table.drop(columns="predict_us") for found in ablated]
        pd.testing.assert_frame_equal(*tables)
        known = {"conditions": [("turn", 1)], "metrics": ["roc_auc"], "n_resamples": 20, "runtime": SKIP}
        turned = [measure_robustness(one, {"color": pipeline}, PatientKFold(2), **known) for one in (dataset, rest)]
        pd.testing.assert_frame_equal(turned[0].table, turned[1].table)
        leaked = measure_leakage(dataset, {"color": pipeline}, n_splits=2, n_resamples=20, runtime=SKIP)
        assert leaked.n_patches == 61

    def test_an_audit(self, broken):
        dataset = broken[0]
        splits = list(PatientKFold(2).split(dataset.X, dataset.y, dataset.patients))
        assert audit_split(dataset, splits, runtime=SKIP).finding("HF002").numbers["images"] == 61
        with pytest.raises(PatchError, match="expected a whole image"):
            audit_split(dataset, splits, runtime=replace(SKIP, on_error="raise"))
