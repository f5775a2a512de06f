"""Evaluations and finished fits on disk: what comes back is the same, and what is not whole or another's is no fit."""

import json
import os
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
from sklearn.naive_bayes import GaussianNB
from test_known_patients import Memory

from histofeat import make_cohort
from histofeat.evaluation import AuditPolicy, _fitting, evaluate, load_evaluation, save_evaluation, take_up
from histofeat.features import Runtime
from histofeat.model_selection import PatientKFold
from histofeat.models import FeatureHead, IDCPipeline
from histofeat.reporting import write_report


def bayes(family="color", smoothing=1e-3):
    """A pipeline whose head is fitted in a moment."""
    return IDCPipeline(family, FeatureHead(GaussianNB(var_smoothing=smoothing)))


FOLDS = {"cv": PatientKFold(3), "inner_cv": PatientKFold(2), "n_resamples": 0}
PIPELINES = {"color": bayes(), "lbp": bayes("lbp")}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_cohort(9, 8, root=tmp_path_factory.mktemp("cohort") / "tree")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store") / "features.sqlite"


@pytest.fixture(scope="module")
def evaluation(small, store):
    searched = {"search": {"GaussianNB": {"var_smoothing": [0.1, 1.0]}}, "audit": AuditPolicy(("HF003",))}
    both, runtime = {"color": bayes(), "lbp": bayes("lbp")}, Runtime(store=store, fits=False)
    found = evaluate(small, both, runtime=runtime, **{**FOLDS, "n_resamples": 50}, **searched)
    frame = small.frame.assign(site=["north", None, "south", np.nan] * 18, score=np.arange(72) / 3)
    return replace(found, dataset=replace(small, frame=frame)).asking(prevalence=0.2)


@pytest.fixture
def counted(monkeypatch):
    """The fits that are made, by name and fold."""
    made, fold_task = [], _fitting.fold_task

    def counting(plan, bank, run, fold):
        made.append((plan.name, fold))
        return fold_task(plan, bank, run, fold)

    monkeypatch.setattr(_fitting, "fold_task", counting)
    return made


def same(one, other):
    """Whether two evaluations have the same numbers to the last bit, aside from times."""
    for a, b in zip(one.models, other.models, strict=True):
        for name in ("proba", "calibrated", "predicted_tuned"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        for name in ("scores", "tuned", "thresholds", "choices", "notes", "histories", "n_features"):
            assert repr(getattr(a, name)) == repr(getattr(b, name))
    return True


# --- whole evaluations -----------------------------------------------------------------------------------------------


def test_a_report_from_the_file_has_the_same_bytes(evaluation, tmp_path):
    path = save_evaluation(evaluation, tmp_path / "new" / "mine.evaluation")
    environment = {"python": "3", "cpu": "x", "cores": 2}
    for name, found in (("first", evaluation), ("again", load_evaluation(path))):
        write_report(found, tmp_path / name, environment=environment)
    files = sorted(file.relative_to(tmp_path / "first") for file in (tmp_path / "first").rglob("*") if file.is_file())
    assert len(files) == 29

    def content(folder, file):
        return re.sub(rb"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", b"TIME", (tmp_path / folder / file).read_bytes())

    assert [file for file in files if content("first", file) != content("again", file)] == []


def test_types_and_order_come_back(evaluation, tmp_path):
    path = save_evaluation(evaluation, tmp_path / "mine.evaluation")
    found = load_evaluation(path)
    assert same(evaluation, found)
    pd.testing.assert_frame_equal(found.dataset.frame, evaluation.dataset.frame, check_dtype=False)
    assert found.dataset.frame["x"].dtype == "Int64"
    assert found.dataset.root == evaluation.dataset.root
    assert found.dataset.audit == evaluation.dataset.audit
    assert found.audit == evaluation.audit
    assert found.protocol == evaluation.protocol
    assert found.models[0].choices[0]["params"]["var_smoothing"] in (0.1, 1.0)
    assert not found.models[0].proba.flags.writeable
    assert b"pickle" not in path.read_bytes()


def test_what_has_no_form_is_kept_as_the_words_that_a_report_shows(evaluation, tmp_path):
    class Odd:
        def __str__(self):
            return "odd one"

    odd = replace(evaluation, protocol=MappingProxyType({**evaluation.protocol, "quick": Odd(), "names": ("a\udce9",)}))
    found = load_evaluation(save_evaluation(odd, tmp_path / "odd.evaluation"))
    assert found.protocol["quick"] == "odd one"
    assert found.protocol["names"] == ("a\udce9",)


def test_a_file_that_exists_stays(evaluation, tmp_path):
    path = tmp_path / "mine.evaluation"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"mine\.evaluation"):
        save_evaluation(evaluation, path)
    assert path.read_text() == "mine"
    save_evaluation(evaluation, path, overwrite=True)
    assert same(evaluation, load_evaluation(path))


def rewritten(path, change):
    """Write an evaluation again with another record, whole and with right checksums."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    record = json.loads(members["record.json"])
    change(record)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "record.json": json.dumps(record)}.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.update(format_version=2, histofeat="9.1"), r"in format 2 of '9\.1'"),
        (lambda record: record.update(format="histofeat result"), r"got: 'histofeat result' in format 1"),
        (
            lambda record: record["value"]["Evaluation"].update(aura=1),
            r"field 'aura' of Evaluation that is not known",
        ),
        (lambda record: record["value"].update(more=1), r"got: "),
        (lambda record: record["value"]["Evaluation"].pop("models"), r"'models'"),
        (lambda record: record["value"]["Evaluation"].update(fold={"array": 99}), r"99\.npy"),
        (lambda record: record["value"]["Evaluation"].update(fold={"os.system": "x"}), r"os\.system"),
    ],
)
def test_other_versions_are_named(evaluation, tmp_path, change, message):
    path = rewritten(save_evaluation(evaluation, tmp_path / "mine.evaluation"), change)
    with pytest.raises(ValueError, match=r"mine\.evaluation: expected a whole evaluation of format 1, got: ") as error:
        load_evaluation(path)
    assert re.search(message, str(error.value))
    assert str(error.value).endswith("use the histofeat that wrote it, or evaluate again.")


def test_no_damage_gives_an_evaluation(evaluation, tmp_path):
    path = save_evaluation(evaluation, tmp_path / "mine.evaluation")
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    n_refused = 0
    for _ in range(150):
        content = bytearray(whole)
        at = int(rng.integers(len(content)))
        kind = rng.integers(3)
        if kind == 0:
            content[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del content[at:]
        else:
            content[at : at + 64] = bytes(len(content[at : at + 64]))
        path.write_bytes(content)
        try:
            found = load_evaluation(path)
        except ValueError as error:
            assert "expected a whole evaluation" in str(error)  # noqa: PT017
            n_refused += 1
        else:  # a date or a name that nobody reads
            assert same(evaluation, found)
    assert n_refused > 120


def test_files_of_others_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none\.evaluation: expected the file of a saved evaluation, got no such"):
        load_evaluation(tmp_path / "none.evaluation")
    with zipfile.ZipFile(tmp_path / "bomb.evaluation", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("record.json", b" " * 50_000_000)
    with pytest.raises(ValueError, match="50,000,000 bytes are packed into"):
        load_evaluation(tmp_path / "bomb.evaluation")


# --- finished fits ---------------------------------------------------------------------------------------------------


def test_finished_fits_are_taken_up_with_the_same_bits(small, store, tmp_path, counted):
    first = evaluate(small, PIPELINES, runtime=Runtime(store=store, fits=False), **FOLDS)
    runtime = Runtime(store=tmp_path / "s.sqlite")
    evaluate(small, {"color": PIPELINES["color"]}, runtime=runtime, **FOLDS)
    assert len(list((tmp_path / "s.sqlite.fits").glob("*.fit"))) == 3
    counted.clear()
    again = evaluate(small, PIPELINES, runtime=replace(runtime, progress=None), **FOLDS)
    assert sorted(counted) == [("lbp", 0), ("lbp", 1), ("lbp", 2)]
    counted.clear()
    third = evaluate(small, PIPELINES, runtime=runtime, **FOLDS)
    assert counted == []
    assert same(first, again)
    assert same(first, third)
    assert [model.fit_s for model in third.models] == [model.fit_s for model in again.models]


def test_what_a_fit_depends_on_makes_it_another(small, store, tmp_path, counted):
    runtime, pipelines = Runtime(store=store, fits=tmp_path / "fits"), {"color": bayes()}
    evaluate(small, pipelines, runtime=runtime, **FOLDS)

    def made(dataset=small, pipelines=pipelines, **other):
        counted.clear()
        evaluate(dataset, pipelines, runtime=runtime, **{**FOLDS, **other})
        return len(counted)

    assert made() == 0
    assert made(n_resamples=0, random_state=7) == 0  # of the intervals alone
    assert made(cv=PatientKFold(3, random_state=1)) == 3
    assert made(inner_cv=PatientKFold(3)) == 3
    assert made(threshold="youden") == 3
    assert made(search={"GaussianNB": {"var_smoothing": [0.5]}}) == 3
    assert made(pipelines={"other name": bayes()}) == 0
    assert made(pipelines={"color": bayes(smoothing=1e-2)}) == 3
    assert made(pipelines={"color": bayes("lbp")}) == 3
    assert made(replace(small, positive=small.target_names[0])) == 3  # thresholds are of this class
    frame = small.frame.assign(label=[1 - small.y[0], *small.y[1:]])
    assert made(replace(small, frame=frame, audit=None)) == 3
    frame = small.frame.assign(patient=np.where(small.patients == small.patients[0], "new", small.patients))
    assert made(replace(small, frame=frame, audit=None)) == 3


def test_other_code_or_pixels_make_another_fit(small, store, tmp_path, counted, monkeypatch):
    from histofeat.evaluation import _saved_evaluation as saved

    copy = shutil.copytree(small.root, tmp_path / "copy")
    moved = replace(small, frame=small.frame.assign(path=[str(copy / p) for p in small.relative_paths]), root=copy)
    runtime, pipelines = Runtime(store=store, fits=tmp_path / "fits"), {"color": bayes()}
    evaluate(small, pipelines, runtime=runtime, **FOLDS)
    counted.clear()
    evaluate(moved, pipelines, runtime=runtime, **FOLDS)
    assert counted == []  # an image is known by its content
    shutil.copy(moved.X[1], moved.X[0])
    evaluate(moved, pipelines, runtime=runtime, **{**FOLDS, "audit": AuditPolicy(("HF002", "HF003", "HF006"))})
    assert len(counted) == 3
    counted.clear()
    monkeypatch.setattr(saved, "_library", lambda: "another")
    evaluate(small, pipelines, runtime=runtime, **FOLDS)
    assert len(counted) == 3


class OwnHead(GaussianNB):
    """A head of another package: what its code imports may change unseen."""


def test_fits_with_code_of_others_are_not_kept(small, store, tmp_path, counted):
    runtime = Runtime(store=store, fits=tmp_path / "fits")
    pipelines = {"own": IDCPipeline("color", FeatureHead(OwnHead(), scale=True))}
    evaluate(small, pipelines, runtime=runtime, **FOLDS)
    assert list((tmp_path / "fits").glob("*")) == []
    counted.clear()
    evaluate(small, pipelines, runtime=runtime, **FOLDS)
    assert len(counted) == 3


def test_encoders_that_were_trained_in_a_fold_are_not_trained_again(small, store, tmp_path, monkeypatch):
    from histofeat.evaluation import _saved_evaluation as saved

    package = Memory.__module__.partition(".")[0]
    monkeypatch.setattr(saved, "_IMPORTED", saved._IMPORTED | {package})  # as if it were of a known package
    runtime, again = Runtime(store=store, fits=tmp_path / "fits"), {"retrain_encoder": True, **FOLDS}
    pipelines = {"memory": bayes(Memory().learnt(small.X[:2], small.y[:2], tmp_path, "theirs"))}
    first = evaluate(small, pipelines, runtime=runtime, **again)
    Memory.seen.clear()
    assert same(first, evaluate(small, pipelines, runtime=runtime, **again))
    assert Memory.seen == []
    evaluate(small, pipelines, runtime=runtime, random_state=1, **again)
    assert len(Memory.seen) == 9


def test_damaged_and_exchanged_fits_count_as_not_kept(small, store, tmp_path, counted):
    runtime, pipelines = Runtime(store=store, fits=tmp_path / "fits"), {"color": bayes()}
    first = evaluate(small, pipelines, runtime=runtime, **FOLDS)
    flipped, cut, exchanged = sorted((tmp_path / "fits").glob("*.fit"))
    content = bytearray(flipped.read_bytes())
    content[content.index(b"\x93NUMPY") + 200] ^= 1
    flipped.write_bytes(content)
    exchanged.write_bytes(cut.read_bytes())
    cut.write_bytes(cut.read_bytes()[:300])
    counted.clear()
    assert same(first, evaluate(small, pipelines, runtime=runtime, **FOLDS))
    assert len(counted) == 3
    counted.clear()
    assert same(first, evaluate(small, pipelines, runtime=runtime, **FOLDS))
    assert counted == []  # mended


def test_a_disk_that_cannot_be_written_does_not_end_the_run(small, tmp_path, counted):
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(
        UserWarning,
        match=r"fits: expected a folder that can be written, got: Not a directory\. What is done is not",
    ):
        evaluate(small, {"color": PIPELINES["color"]}, runtime=Runtime(fits=tmp_path / "file" / "fits"), **FOLDS)
    assert len(counted) == 3


def test_where_fits_are_kept(tmp_path):
    assert Runtime().fits is None
    assert Runtime(store=tmp_path / "s.sqlite").fits == tmp_path / "s.sqlite.fits"
    assert Runtime(store=tmp_path / "s.sqlite", fits=str(tmp_path)).fits == tmp_path
    none = Runtime(store=tmp_path / "s.sqlite", fits=False)
    assert replace(none, progress=None).fits is False
    with pytest.raises(ValueError, match=r"Runtime\.fits: expected a folder, False or None, got 3\. Pass a path\."):
        Runtime(fits=3)


def test_pipes_and_devices_are_never_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to(os.devnull)
    for name in ("pipe", "device"):
        with pytest.raises(ValueError, match=r"expected a whole evaluation .* got: no regular file"):
            load_evaluation(tmp_path / name)
        with pytest.warns(UserWarning, match="got a folder or a device"):
            assert take_up(tmp_path / name, lambda: 1.5) == 1.5
    assert Path(os.devnull).is_char_device()
