"""Shards of features: written whole, gone on with, opened without being read; what is wrong is said in a sentence."""

import json
import pickle
import shutil
from dataclasses import replace

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from histofeat import IDCPipeline, extract_features, load_embeddings, make_cohort, open_dataset
from histofeat.datasets._shards import ShardColumns
from histofeat.evaluation import evaluate
from histofeat.exceptions import DatasetError, PatchError
from histofeat.features import Runtime, open_features, shard_tasks, write_shard
from histofeat.model_selection import LimitedTraining, PatientKFold


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_cohort(n_patients=6, patches_per_patient=8, root=tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "gray"
    for task in shard_tasks(small, ["gray"], folder):
        write_shard(task)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "gray")


def test_shards_hold_the_features_and_facts_of_the_data_set(small, whole):
    found, table = open_features(whole), extract_features(small, ["gray"])
    table = table.set_index("path").loc[[str(small.root / path) for path in found.frame["path"]]]
    np.testing.assert_array_equal(found.columns[:], table.filter(like="gray_").to_numpy())
    assert found.columns.columns.tolist() == table.columns[-256:].tolist()
    assert found.patients.tolist() == table["patient"].tolist()
    assert [found.target_names[code] for code in found.y] == table["label"].tolist()
    assert (found.name, found.positive, found.mpp) == (small.name, small.positive, small.mpp)
    assert found.synthetic
    assert found.lacks_images


def test_rows_are_chosen_without_being_read_and_read_in_any_order(whole):
    found = open_features(whole)
    everything, rows = np.asarray(found.columns), np.array([40, 3, 3, 17])
    np.testing.assert_array_equal(found.columns[rows], everything[rows])
    np.testing.assert_array_equal(found.columns.take(rows[::-1])[[True, False, True, False]], everything[[17, 3]])
    part = found.subset(found.patients == found.patients[-1])
    assert len(part) == 8
    assert part.columns.files == found.columns.files
    np.testing.assert_array_equal(part.columns[2:5], everything[42:45])
    assert found.columns[[]].shape == (0, 256)
    assert joblib.hash(part.columns) == joblib.hash(pickle.loads(pickle.dumps(part.columns)))
    assert joblib.hash(part.columns) != joblib.hash(found.columns)


def test_shards_are_embeddings_as_others_are(small, whole):
    found = open_dataset(whole, classes="healthy=no tumour,ill=tumour", positive="healthy")
    assert (found.target_names, found.positive, found.name) == (("healthy", "ill"), "healthy", "synthetic")
    assert found.y.tolist() == open_features(whole).y.tolist()
    named = load_embeddings(whole, labels=small, name="mine")
    assert (named.columns.columns.name, named.y.tolist()) == ("mine", small.y.tolist())
    np.testing.assert_array_equal(named.columns[:], extract_features(small, ["gray"]).filter(like="gray_").to_numpy())
    other = load_embeddings(whole, patients="image", labels={path: path[-5] for path in found.frame["path"]})
    assert len(set(other.patients)) == 48
    assert set(other.target_names) <= set("0123456789")


def test_shards_are_scored_as_the_same_columns_in_memory(whole, tmp_path, monkeypatch):
    found = open_features(whole)
    in_memory = replace(found, columns=pd.DataFrame(found.columns[:], columns=found.columns.columns))
    heads = [IDCPipeline([found], "logistic"), make_pipeline(StandardScaler(), GaussianNB())]
    settings = {"cv": LimitedTraining(PatientKFold(2), 6), "inner_cv": PatientKFold(2), "n_resamples": 20}
    expected = evaluate(in_memory, [IDCPipeline([in_memory], "logistic"), heads[1]], **settings)
    monkeypatch.setattr("histofeat.evaluation._fitting._ROWS_AT_ONCE", 7)
    read, blocks = ShardColumns.__getitem__, []

    def watched(columns, rows):
        blocks.append(len(found := read(columns, rows)))
        return found

    monkeypatch.setattr(ShardColumns, "__getitem__", watched)
    got = evaluate(found, heads, runtime=Runtime(fits=tmp_path), **settings)
    for one, other in zip(got.models, expected.models, strict=True):
        np.testing.assert_allclose(one.proba, other.proba, rtol=1e-6)
    assert max(blocks) < 24
    blocks.clear()
    again = evaluate(found, heads, runtime=Runtime(fits=tmp_path), **settings)
    assert not blocks
    np.testing.assert_array_equal(again.models[0].proba, got.models[0].proba)


def test_a_repeat_measures_what_is_missing(small, folder):
    gone = folder / "00002"
    kept = [file for file in folder.rglob("*.*") if not file.is_relative_to(gone)]
    before = {file: file.stat().st_mtime_ns for file in kept}
    content = (gone / "features.npy").read_bytes()
    shutil.rmtree(gone)
    tasks = [pickle.loads(pickle.dumps(task)) for task in shard_tasks(small, ["gray"], folder)]
    assert [task.done for task in tasks] == [True, True, False, True, True, True]
    assert [write_shard(task) for task in tasks] == [folder / f"{number:05}" for number in range(6)]
    assert (gone / "features.npy").read_bytes() == content
    assert before == {file: file.stat().st_mtime_ns for file in before}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["00003", "00004"], "expected 6 shards, got none of patient .* 1 more.* Run the same `histofeat extract`"),
        (["00003/shard.json"], "expected 6 shards, got none of patient"),
        (["00003/features.npy"], "00003: expected 8 rows of 256 columns, got .*No such file.*Remove this folder, and"),
        (["shards.json"], "expected a record of shards, got .*No such file"),
    ],
)
def test_what_is_missing_is_named_and_measured_again(small, folder, names, words):
    for name in names:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    with pytest.raises(DatasetError, match=words):
        open_features(folder)
    if "features" in names[0]:
        shutil.rmtree(folder / "00003")  # as the message says
    for task in shard_tasks(small, ["gray"], folder):
        write_shard(task)
    assert len(open_features(folder)) == 48


def test_shards_of_two_versions_are_refused(small, folder):
    with pytest.raises(DatasetError, match=r"expected shards of these images and features, got others \(synth.*gray\)"):
        shard_tasks(small, ["lbp"], folder)
    with pytest.raises(DatasetError, match="expected shards of these images"):
        shard_tasks(small.subset(np.arange(40)), ["gray"], folder)
    record = json.loads((folder / "00001" / "shard.json").read_text())
    (folder / "00001" / "shard.json").write_text(json.dumps({**record, "key": "0123456789"}))
    for use in (lambda: open_features(folder), lambda: write_shard(shard_tasks(small, ["gray"], folder)[1])):
        with pytest.raises(DatasetError, match=r"00001: expected a shard of version .* got 01234567\. Remove this"):
            use()
    (folder / "00001" / "shard.json").write_text("{}")
    with pytest.raises(DatasetError, match=r"shard\.json: expected a record of shards, got"):
        open_features(folder)


def test_an_image_that_cannot_be_read_is_refused_or_left_out(tmp_path):
    cohort = make_cohort(n_patients=2, patches_per_patient=8, root=tmp_path / "tree")
    bad = sorted(cohort.root.rglob("*.png"))[0]
    bad.write_bytes(bad.read_bytes()[:300])
    with pytest.raises(PatchError, match=bad.name):
        [write_shard(task) for task in shard_tasks(cohort, ["gray"], tmp_path / "out")]
    tasks = shard_tasks(cohort, ["gray"], tmp_path / "out", runtime=Runtime(on_error="skip"))
    with pytest.warns(UserWarning, match=f"out/0000.: 1 image left out, the first .*{bad.name}: "):
        [write_shard(task) for task in tasks]
    found = open_features(tmp_path / "out")
    assert len(found) == 15
    assert [path.rsplit("/")[-1] for path, _ in found.audit.failures] == [bad.name]
    for file in bad.parent.parent.rglob("*.png"):
        file.write_bytes(b"")
    tasks = shard_tasks(cohort, ["gray"], tmp_path / "none", runtime=Runtime(on_error="skip"))
    none = "expected finite features of a patch or more, got 'none'"
    with pytest.warns(UserWarning, match="8 images left out"), pytest.raises(DatasetError, match=none):
        [write_shard(task) for task in tasks]


def test_a_full_disk_keeps_what_is_finished(small, tmp_path):
    resource = pytest.importorskip("resource")
    tasks, before = shard_tasks(small, ["gray"], tmp_path / "out"), resource.getrlimit(resource.RLIMIT_FSIZE)
    write_shard(tasks[0])
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, before[1]))  # in the middle of a matrix of eight rows
    try:
        with pytest.raises(OSError, match="00001: expected a place that can be written, got File too large"):
            write_shard(tasks[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["00000", "shards.json"]
    assert [write_shard(task).name for task in tasks][-1] == "00005"
    assert len(open_features(tmp_path / "out")) == 48


def test_two_processes_may_write_the_same_shard(small, folder, monkeypatch):
    task = shard_tasks(small, ["gray"], folder)[0]
    before = (task.place / "features.npy").read_bytes()
    monkeypatch.setattr("histofeat.features._shards.holds_shard", lambda *_: False)  # the other one has just begun
    assert write_shard(task) == task.place
    assert (task.place / "features.npy").read_bytes() == before


def test_a_folder_of_something_else_is_refused(small, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"expected a new folder or one of shards, got one with mine\.txt\. Give"):
        shard_tasks(small, ["gray"], tmp_path)
    with pytest.raises(DatasetError, match=r"expected a record of shards, got .*No such file"):
        open_features(tmp_path)


def test_features_have_to_be_finite(small, tmp_path, monkeypatch):
    task = shard_tasks(small, ["gray"], tmp_path)[0]
    monkeypatch.setattr(type(task.families[0]), "_compute", lambda self, batch: np.full((len(batch.rgb), 256), np.nan))
    with pytest.raises(DatasetError, match=r"00000: expected finite features of all patches, got others of .*png"):
        write_shard(task)
