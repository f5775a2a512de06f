"""Models on disk: what comes back predicts the same, and what is not a model is refused by name."""

import copy
import functools
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import skops.io as skops_io
from sklearn.base import BaseEstimator, ClassifierMixin, clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import permutation_importance
from sklearn.metrics import RocCurveDisplay, accuracy_score, roc_auc_score
from sklearn.naive_bayes import BernoulliNB, GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

import histofeat
from histofeat import CNNEmbedding, IDCPipeline, PatientKFold, WeightsError
from histofeat.features import FAMILIES
from histofeat.models import (
    HEADS,
    ModelFileError,
    SavedModel,
    _archive as archive,
    _saved_model as saved_model,
    _saved_parts as saved_parts,
    _trusted as trusted,
    load_model,
    save_model,
)
from histofeat.models._trusted import TRUSTED

ABOUT = {"class_names": ["no tumour", "tumour"], "patch_size": [50, 50], "dataset": "synthetic", "n_patients": 15}


@pytest.fixture(scope="module")
def rows(cohort):
    """Forty patches of eight patients, with labels and patients."""
    chosen = np.flatnonzero(np.isin(cohort.patients, sorted(set(cohort.patients))[:8]))
    return cohort.X[chosen], cohort.y[chosen], cohort.patients[chosen]


def fitted(rows, features="color", head="logistic", **settings):
    X, y, patients = rows
    return IDCPipeline(features=features, head=head, **settings).fit(X, y, groups=patients)


@pytest.fixture(scope="module")
def forest(rows):
    return fitted(rows, head="random_forest", head_params={"n_estimators": 5})


@pytest.fixture(scope="module")
def boosted(rows):
    return fitted(rows, ("color", "lbp"), "xgboost", head_params={"n_estimators": 20})


@pytest.fixture
def file(boosted, tmp_path):
    """A good model."""
    return save_model(boosted, tmp_path / "good.histofeat", about=ABOUT)


def same(before, path, X, **loading):
    after = load_model(path, **loading).pipeline
    assert (after.predict_proba(X) == before.predict_proba(X)).all()
    assert (after.predict(X) == before.predict(X)).all()
    return after


# --- there and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", sorted(HEADS))
def test_every_head_comes_back_to_the_bit(head, rows, tmp_path):
    small = {"random_forest": {"n_estimators": 10}, "xgboost": {"n_estimators": 20}}.get(head)
    pipeline = fitted(rows, ("color", "lbp"), head, head_params=small)
    path = save_model(pipeline, tmp_path / "m.histofeat")
    check_plain(path)
    after = same(pipeline, path, rows[0])
    assert repr(after) == repr(pipeline)
    # The unfitted parts came back too: it can be fitted again, to the same numbers.
    again = after.fit(*rows[:2], groups=rows[2])
    assert (again.predict_proba(rows[0]) == pipeline.predict_proba(rows[0])).all()


def test_every_family_comes_back_to_the_bit(rows, tmp_path):
    families = tuple(sorted(set(FAMILIES) - {"cnn"}))
    pipeline = fitted(rows, families, feature_params={"lbp__radii_px": (1, 2)})
    same(pipeline, save_model(pipeline, tmp_path / "m.histofeat"), rows[0])


@pytest.mark.parametrize("normalizer", ["reinhard", "macenko"])
def test_a_normaliser_comes_back(normalizer, rows, tmp_path):
    X, _, patients = rows
    pipeline = fitted(rows, normalizer=normalizer, normalizer_params={"unit": "patient"})
    after = load_model(save_model(pipeline, tmp_path / "m.histofeat")).pipeline
    assert (after.predict_proba(X, groups=patients) == pipeline.predict_proba(X, groups=patients)).all()
    plain = fitted(rows)
    assert (plain.predict_proba(X) != pipeline.predict_proba(X, groups=patients)).any()


@pytest.mark.parametrize("algorithm", ["kd_tree", "ball_tree"])
def test_search_trees_of_neighbours_are_grown_again(algorithm, rows, tmp_path):
    pipeline = fitted(rows, head=KNeighborsClassifier(3, algorithm=algorithm, metric="minkowski", p=1))
    path = save_model(pipeline, tmp_path / "m.histofeat")
    assert b"KDTree" not in archive.read_archive(path)[1]["pipeline.skops"]
    same(pipeline, path, rows[0])


def test_labels_may_be_text_and_more_than_two(rows, tmp_path):
    X, y, _ = rows
    three = np.array(["benign", "malignant", "else"], dtype=object)[np.where(np.arange(len(y)) % 5 == 0, 2, y)]
    pipeline = IDCPipeline(features="color", head="xgboost", head_params={"n_estimators": 5}).fit(X, three)
    after = load_model(save_model(pipeline, tmp_path / "m.histofeat"))
    assert after.class_names == ("benign", "else", "malignant")
    assert (after.pipeline.predict(X) == pipeline.predict(X)).all()
    assert (after.pipeline.predict_proba(X) == pipeline.predict_proba(X)).all()


def test_a_temperature_of_three_classes_comes_back(rows, tmp_path):
    X, _, patients = rows
    three = np.arange(len(X)) % 3
    pipeline = IDCPipeline(features="color", head="svm").fit(X, three, groups=patients)
    same(pipeline, save_model(pipeline, tmp_path / "m.histofeat"), X)


def test_a_fresh_process_predicts_the_same(boosted, file, rows, tmp_path):
    code = """
import sys, numpy as np
from histofeat import load_model
model = load_model(sys.argv[1])
np.save(sys.argv[2], model.pipeline.predict_proba(sys.argv[3:]))
print(model.class_names, model.patch_size, {"pickle", "joblib"} & set(dir(model)))
"""
    out = tmp_path / "proba.npy"
    words = [sys.executable, "-c", code, file, out, *rows[0]]
    found = subprocess.run(words, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "('no tumour', 'tumour') (50, 50) set()"
    assert (np.load(out) == boosted.predict_proba(rows[0])).all()


# --- what is in the file ---------------------------------------------------------------------------------------------


def test_the_file_says_what_it_is_and_holds_no_pickle(file):
    description, contents = archive.read_archive(file)
    assert description["format_version"] == 4
    assert description["histofeat"] == histofeat.__version__
    assert {"python", "numpy", "scikit-learn", "skops", "xgboost"} <= set(description["versions"])
    assert description["about"] == ABOUT
    assert sorted(contents) == ["booster-1.json", "pipeline.skops"]
    assert set(description["parts"]) == set(contents)
    with zipfile.ZipFile(io.BytesIO(contents["pipeline.skops"])) as inner:
        assert {name.rpartition(".")[2] for name in inner.namelist()} <= {"json", "npy"}
        for name in inner.namelist():
            if name.endswith(".npy"):
                np.load(io.BytesIO(inner.read(name)), allow_pickle=False)


GIVEN = {
    "extra trees": lambda: ExtraTreesClassifier(5, random_state=0),
    "naive Bayes": lambda: make_pipeline(StandardScaler(), GaussianNB()),
    "discriminant": lambda: make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.5)),
    "kernel": lambda: SVC(kernel="poly", degree=2, coef0=1.0, class_weight={0: 2.0}),
    "k-d tree": lambda: KNeighborsClassifier(3, algorithm="kd_tree"),
}


def check_plain(path):
    """Only parameters, plain arrays and JSON: objects of scikit-learn have other attributes in other versions."""
    contents = archive.read_archive(path)[1]
    with zipfile.ZipFile(io.BytesIO(contents.pop("pipeline.skops"))) as inner:
        members = {name: inner.read(name) for name in inner.namelist()}
    nodes, held = [json.loads(members.pop("schema.json"))], set()
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            held.add((str(node.get("__module__")).partition(".")[0], node.get("__loader__")))
        nodes.extend(node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
    assert {module for module, _ in held} <= {"None", "builtins", "numpy", "histofeat"}
    assert {loader for _, loader in held} <= {
        None, "ObjectNode", "NdArrayNode", "DictNode", "ListNode", "TupleNode", "TypeNode", "JsonNode",
    }  # fmt: skip
    for content in members.values():
        assert np.load(io.BytesIO(content), allow_pickle=False).dtype.names is None
    assert all(json.loads(content)["learner"] for content in contents.values())


@pytest.mark.parametrize(("head", "k"), [*((head, 3) for head in sorted(HEADS)), *((head, 2) for head in GIVEN)])
def test_no_head_keeps_what_depends_on_a_version(head, k, rows, tmp_path):
    X, y, patients = rows
    small = {"random_forest": {"n_estimators": 5}, "xgboost": {"n_estimators": 5}}
    small |= {name: {"xgboost__n_estimators": 5} for name in ("vote", "late_vote", "stacking")}
    settings = {"head": GIVEN[head]()} if head in GIVEN else {"head": head, "head_params": small.get(head)}
    labels = y if k == 2 else np.arange(len(y)) % 3
    pipeline = IDCPipeline("color", **settings).fit(X, labels, groups=patients)
    path = save_model(pipeline, tmp_path / "m.histofeat")
    check_plain(path)
    same(pipeline, path, X)


def test_parameters_of_a_newer_version_are_refused_by_name():
    part = saved_parts.StoredPart("LogisticRegression", None, {"smoothness": 3}, {})
    message = (
        "expected a LogisticRegression as save_model writes it, got one that scikit-learn cannot build .*smoothness"
    )
    with pytest.raises(ModelFileError, match=message):
        saved_parts.put_back(part, {})


@pytest.mark.parametrize("k", [2, 3])
def test_a_booster_with_several_base_scores_is_rewritten_for_an_older_xgboost(k, rows, tmp_path, monkeypatch):
    """XGBoost writes a list from 3.1 on, which 2.1 cannot read, and one score for each class."""
    import xgboost

    X, _, patients = rows
    labels = np.arange(len(X)) % 7 % k
    pipeline = IDCPipeline("color", head_params={"n_estimators": 5}).fit(X, labels, groups=patients)
    content = json.loads(bytes(pipeline.head_.classifier_.get_booster().save_raw("json")))
    scores = np.random.default_rng(0).uniform(0.2, 0.4, k if k > 2 else 1)
    content["learner"]["learner_model_param"]["base_score"] = json.dumps(scores.tolist())
    text = json.dumps(content).encode()
    record = json.loads(saved_parts._with_one_base_score(text))
    assert isinstance(json.loads(record["learner"]["learner_model_param"]["base_score"]), float)
    older, newer = xgboost.Booster(), xgboost.Booster()
    older.load_model(bytearray(json.dumps(record).encode()))
    newer.load_model(bytearray(text))
    rows_of = xgboost.DMatrix(pipeline.features_.transform(X))
    assert np.abs(older.predict(rows_of) - newer.predict(rows_of)).max() < 1e-6


def test_the_booster_is_in_xgboosts_own_format(boosted, file):
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(bytearray(archive.read_archive(file)[1]["booster-1.json"]))
    assert booster.get_dump() == boosted.head_.classifier_.get_booster().get_dump()


def test_the_same_fit_gives_the_same_bytes(rows, tmp_path, monkeypatch):
    first, second = (fitted(rows, "color", "vote", head_params={"xgboost__n_estimators": 5}) for _ in range(2))
    save_model(first, tmp_path / "a.histofeat")
    monkeypatch.setattr(archive.zipfile.time, "localtime", lambda *_: (2031, 1, 1, 0, 0, 0, 0, 1, 0))
    save_model(second, tmp_path / "b.histofeat")
    assert (tmp_path / "a.histofeat").read_bytes() == (tmp_path / "b.histofeat").read_bytes()


def test_nothing_of_this_machine_is_in_the_file(rows, tmp_path):
    pipeline = fitted(rows, store=tmp_path / "store-of-mine.sqlite")
    path = save_model(pipeline, tmp_path / "m.histofeat")
    description, contents = archive.read_archive(path)
    with zipfile.ZipFile(io.BytesIO(contents["pipeline.skops"])) as inner:
        text = json.dumps(description) + inner.read("schema.json").decode()
    assert "store-of-mine" not in text
    assert str(tmp_path) not in text
    assert pipeline.store is not None  # the one in memory keeps it
    assert load_model(path).pipeline.store is None


def test_all_that_pipelines_are_made_of_is_trusted_and_nothing_else_of_ours():
    ours = {name for name in TRUSTED if name.startswith("histofeat.")}
    for name in ours:
        module, _, attribute = name.rpartition(".")
        assert isinstance(getattr(__import__(module, fromlist=[attribute]), attribute), type)
    for name, record in FAMILIES.items():
        assert f"histofeat.features._{record.module}.{record.class_name}" in ours, name


# --- saving refuses --------------------------------------------------------------------------------------------------


class Constant(ClassifierMixin, BaseEstimator):
    """A classifier of somebody's own."""

    def fit(self, X, y):
        """Learn nothing."""
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        """One half each."""
        return np.full((len(X), 2), 0.5)


def test_a_type_of_ones_own_is_refused_by_name_unless_it_is_named(rows, tmp_path):
    pipeline, name = fitted(rows, head=Constant()), f"{Constant.__module__}.Constant"
    with pytest.raises(ModelFileError, match=f"got '{name}', which load_model would refuse"):
        save_model(pipeline, tmp_path / "m.histofeat")
    assert not list(tmp_path.iterdir())
    path = save_model(pipeline, tmp_path / "m.histofeat", trusted=(name,))
    with pytest.raises(ModelFileError, match=f"m.histofeat: expected parts of histofeat .* got '{name}'"):
        load_model(path)
    same(pipeline, path, rows[0], trusted=(name,))


def test_what_skops_cannot_write_is_refused(rows, tmp_path):
    pipeline = fitted(rows, head=Constant())
    pipeline.head_.classifier_.watch = (number for number in range(3))
    with pytest.raises(ModelFileError, match="save_model: expected parts that skops can write, got"):
        save_model(pipeline, tmp_path / "m.histofeat", trusted=(f"{Constant.__module__}.Constant",))


def test_a_file_is_never_replaced_unasked(boosted, file, rows):
    before = file.read_bytes()
    with pytest.raises(ModelFileError, match=r"good\.histofeat: expected a new file, got one that exists"):
        save_model(boosted, file)
    assert file.read_bytes() == before
    save_model(fitted(rows), file, overwrite=True)
    assert file.read_bytes() != before
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]
    if os.name == "posix":
        assert file.stat().st_mode & 0o077 == 0o666 & ~_umask() & 0o077


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_places_without_room_are_refused(boosted, tmp_path):
    with pytest.raises(ModelFileError, match="expected the name of a file, got a folder"):
        save_model(boosted, tmp_path)
    with pytest.raises(ModelFileError, match="expected a file in a folder that exists"):
        save_model(boosted, tmp_path / "none" / "m.histofeat")


@pytest.mark.parametrize("linked", [True, False])
def test_a_file_that_appears_meanwhile_is_kept(boosted, tmp_path, monkeypatch, linked):
    path = tmp_path / "m.histofeat"

    def too_late(target, source):
        target.write_text("mine")
        raise FileExistsError(17, "exists") if linked else OSError(95, "no links here")

    monkeypatch.setattr(type(path), "hardlink_to", too_late)
    with pytest.raises(ModelFileError, match="expected a new file, got one that exists"):
        save_model(boosted, path)
    assert path.read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_system_without_links_will_do(boosted, tmp_path, rows, monkeypatch):
    def refuse(target, source):
        raise OSError(95, "no links here")

    monkeypatch.setattr(type(tmp_path), "hardlink_to", refuse)
    same(boosted, save_model(boosted, tmp_path / "m.histofeat"), rows[0])
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_leaves_nothing_and_keeps_the_old(boosted, file, monkeypatch):
    before = file.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive.os, "fsync", full)
    with pytest.raises(ModelFileError, match="expected a place that can be written, got No space left on device"):
        save_model(boosted, file, overwrite=True)
    assert file.read_bytes() == before
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"class_names": ["a"]}, r"about\['class_names'\]: expected 2 different names"),
        ({"class_names": ["a", "a"]}, r"about\['class_names'\]: expected 2 different names"),
        ({"patch_size": 50}, r"about\['patch_size'\]: expected height and width in px, or None, got 50"),
        ({"patients": "[0-9]+"}, r"about\['patients'\]: expected PatientRule.to_dict\(\), or None, got '"),
        ({"mpp": 0}, r"about\['mpp'\]: expected micrometres per pixel above 0, at most 1,000, or None, got 0"),
        ({"mpp": "4"}, r"about\['mpp'\]: expected micrometres per pixel above 0"),
        ({"patch_size": [50, 0]}, r"about\['patch_size'\]: expected height and width"),
        ({"estimate": float("nan")}, "about: expected a mapping of text, numbers"),
        ({"data": object()}, "about: expected a mapping of text, numbers, lists and mappings, got object"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(about, message, boosted, tmp_path):
    with pytest.raises(ValueError, match=message):
        save_model(boosted, tmp_path / "m.histofeat", about=about)
    assert not list(tmp_path.iterdir())


def test_only_fitted_pipelines_are_models(tmp_path):
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        save_model(IDCPipeline(), tmp_path / "m.histofeat")
    with pytest.raises(ValueError, match="expected a fitted IDCPipeline, got DecisionTreeClassifier"):
        SavedModel(DecisionTreeClassifier())


def test_a_saved_model_keeps_its_description(boosted, tmp_path):
    path = save_model(SavedModel(boosted, ABOUT), tmp_path / "a.histofeat")
    assert dict(load_model(path).about) == ABOUT
    path = save_model(load_model(path), tmp_path / "b.histofeat", about={"patch_size": np.array([50, 50])})
    assert dict(load_model(path).about) == {"patch_size": [50, 50]}
    path = save_model(SavedModel(boosted, {"of": load_model(path).description}), tmp_path / "c.histofeat")
    assert load_model(path).about["of"]["format"] == "histofeat model"


def test_a_saved_model_is_an_estimator_that_stays_as_it_is(rows, tmp_path):
    X, y, patients = rows
    train, test = next(PatientKFold(2).split(X, y, patients))
    pipeline = IDCPipeline("color", "logistic").fit(X[train], y[train])
    model = load_model(save_model(SavedModel(pipeline, ABOUT), tmp_path / "m.histofeat"))
    assert clone(model) is model
    assert is_classifier(model)
    assert model.classes_.tolist() == [0, 1]
    assert model.patients_ == pipeline.patients_ == tuple(sorted(set(patients[train])))
    np.testing.assert_array_equal(model.predict_proba(X), pipeline.predict_proba(X))
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(again.predict(X), pipeline.predict(X))
        assert dict(again.about) == ABOUT
    assert model.score(X[test], y[test]) == accuracy_score(y[test], pipeline.predict(X[test]))
    with pytest.warns(UserWarning, match="expected patients that fit has not seen, got 4 that it has"):
        model.score(X, y)
    display = RocCurveDisplay.from_estimator(model, X[test], y[test])
    assert display.roc_auc == pytest.approx(roc_auc_score(y[test], pipeline.predict_proba(X[test])[:, 1]))
    frame = pd.DataFrame({"path": X[test]})
    assert permutation_importance(model, frame, y[test], n_repeats=2).importances.shape == (1, 2)
    for frozen in (model, FrozenEstimator(model)):
        calibrated = CalibratedClassifierCV(frozen, method="sigmoid", cv=2).fit(X[test], y[test])
        assert calibrated.predict_proba(X).shape == (len(X), 2)
    assert "SavedModel" in repr(model)
    assert model.fit(X, y) is model


# --- loading refuses -------------------------------------------------------------------------------------------------


def rewritten(path, *, members=None, description=None, rehash=False, order=None):
    """A model's file with other members or another description."""
    with zipfile.ZipFile(path) as source:
        contents = {name: source.read(name) for name in source.namelist()}
    contents.update(members or {})
    contents = {name: content for name, content in contents.items() if content is not None}
    record = json.loads(contents["model.json"]) | (description or {})
    if rehash:
        record["parts"] = {
            name: {"bytes": len(content), "sha256": archive._digest(content)}
            for name, content in contents.items()
            if name != "model.json"
        }
    contents["model.json"] = json.dumps(record).encode()
    path.write_bytes(archive.fixed_zip(contents))
    return path


def test_a_missing_file_or_a_folder_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"none\.histofeat: expected the file of a model, got no such file"):
        load_model(tmp_path / "none.histofeat")
    with pytest.raises(ModelFileError, match="expected the file of a model, got a folder"):
        load_model(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.histofeat")
        with pytest.raises(ModelFileError, match=r"pipe\.histofeat: expected the file .*, got a pipe or a device"):
            load_model(tmp_path / "pipe.histofeat")


def test_any_cut_is_noticed(file):
    whole = file.read_bytes()
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match=r"good\.histofeat: expected"):
            load_model(file)


def test_any_changed_byte_is_noticed_or_without_effect(boosted, file, rows):
    whole = file.read_bytes()
    before = boosted.predict_proba(rows[0][:4])
    for place in range(5, len(whole), len(whole) // 60):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            after = load_model(file)
        except ModelFileError:
            continue
        assert (after.pipeline.predict_proba(rows[0][:4]) == before).all()


def test_foreign_files_are_told(tmp_path, patches):
    foreign = tmp_path / "m.histofeat"
    foreign.write_bytes(b"\x80\x04\x95pickled")
    with pytest.raises(ModelFileError, match=r"got a file of another kind"):
        load_model(foreign)
    foreign.write_bytes(archive.fixed_zip({"weights.h5": b"1"}))
    with pytest.raises(ModelFileError, match=r"got an archive without one model.json"):
        load_model(foreign)
    foreign.write_bytes(archive.fixed_zip({"model.json": b'{"format": "another"}'}))
    with pytest.raises(ModelFileError, match=r"got another archive with a model.json"):
        load_model(foreign)
    foreign.write_bytes(archive.fixed_zip({"model.json": b"{"}))
    with pytest.raises(ModelFileError, match=r"damaged one: model.json is no JSON"):
        load_model(foreign)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"members": {"booster-1.json": b"else"}},
            r"'booster-1.json' \(4 bytes\) is not what its hash says",
        ),
        ({"members": {"booster-1.json": None}}, "damaged one: 'booster-1.json' is missing"),
        ({"members": {"more.keras": b"1"}}, "damaged one: 'more.keras' is not listed"),
        ({"members": {"../evil.json": b"1"}, "rehash": True}, "'../evil.json' is no name of a part"),
        ({"members": {"more.json": b"1"}, "rehash": True}, "expected parts that the pipeline names, got 'more.json'"),
        ({"members": {"booster-1.json": None}, "rehash": True}, "expected the part 'booster-1.json', got none"),
        (
            {"members": {"booster-1.json": b"else"}, "rehash": True},
            "'booster-1.json' to be a XGBClassifier in",
        ),
        ({"members": {"pipeline.skops": None}, "rehash": True}, "expected a part 'pipeline.skops', got none"),
        ({"members": {"pipeline.skops": b"PK"}, "rehash": True}, "got one that cannot be built"),
        ({"description": {"parts": [1]}}, "model.json lists no parts"),
        *(
            (
                {"description": {"format_version": version, "histofeat": "9.1"}},
                rf"good\.histofeat: expected a model in format 4, got format {version}, written by histofeat '9\.1'\. "
                r"Train the model again, or load it with the histofeat that wrote it\.",
            )
            for version in (1, 2, 5)
        ),
        ({"description": {"features_version": 9}}, "expected features of version 1, .* got a model on version 9"),
    ],
)
def test_a_changed_model_is_refused(change, message, file):
    with pytest.raises(ModelFileError, match=message):
        load_model(rewritten(file, **change))


def test_another_scikit_learn_warns_once_of_what_is_kept_as_its_objects(rows, tmp_path):
    pipeline = fitted(rows, head=BernoulliNB())
    file = save_model(pipeline, tmp_path / "m.histofeat")
    versions = archive.read_archive(file)[0]["versions"] | {"scikit-learn": "1.4.0"}
    rewritten(file, description={"versions": versions})
    with pytest.warns(RuntimeWarning, match="expected scikit-learn 1.4.0, which fitted this model, got") as told:
        after = load_model(file)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert (after.pipeline.predict_proba(rows[0]) == pipeline.predict_proba(rows[0])).all()


def test_another_scikit_learn_is_all_right_for_plain_arrays(file, boosted, rows):
    versions = archive.read_archive(file)[0]["versions"] | {"scikit-learn": "1.4.0"}
    same(boosted, rewritten(file, description={"versions": versions}), rows[0])


def test_a_file_with_code_to_run_is_refused_by_name_and_runs_nothing(file, tmp_path):
    """Skops writes a function by its name; a loader that trusted the file would import and call it."""
    mark = tmp_path / "ran"

    skops = skops_io.dumps(functools.partial(os.system, f"touch {mark}"))
    with pytest.raises(
        ModelFileError,
        match=r"good.histofeat: expected parts of histofeat and scikit-learn, got 'functools.partial' \(and 1 more\)",
    ):
        load_model(rewritten(file, members={"pipeline.skops": skops}, rehash=True))
    assert not mark.exists()


def test_an_object_of_an_unknown_type_is_not_even_imported(file, tmp_path, monkeypatch):
    module = tmp_path / "surprise.py"
    module.write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    contents = archive.read_archive(file)[1]
    with zipfile.ZipFile(io.BytesIO(contents["pipeline.skops"])) as inner:
        members = {name: inner.read(name) for name in inner.namelist()}
    members["schema.json"] = members["schema.json"].replace(b"histofeat.features._color", b"surprise")
    skops = archive.fixed_zip(members)
    with pytest.raises(ModelFileError, match=r"got 'surprise.ColorHistogram'\. Do not load"):
        load_model(rewritten(file, members={"pipeline.skops": skops}, rehash=True))
    assert "surprise" not in sys.modules


def test_another_estimator_is_no_model(file):
    skops = trusted.dump_estimator(DecisionTreeClassifier())
    with pytest.raises(ModelFileError, match="expected an IDCPipeline, got DecisionTreeClassifier"):
        load_model(rewritten(file, members={"pipeline.skops": skops, "booster-1.json": None}, rehash=True))


def test_a_place_for_an_unknown_part_is_refused():
    with pytest.raises(ModelFileError, match="expected a part of a known kind, got 'Pickle'"):
        saved_parts.put_back(saved_parts.StoredPart("Pickle"), {})


def test_a_network_with_parameters_of_an_older_histofeat_is_refused():
    place = saved_parts.StoredPart("CNNClassifier", None, {"epochs": 2, "shuffle_rows": True})
    with pytest.raises(ModelFileError, match=r"expected a CNNClassifier with the .*, got 'shuffle_rows' \(1 unknown\)"):
        saved_parts.put_back(place, {})


def test_missing_libraries_are_named(file, monkeypatch):
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "xgboost", None)
        with pytest.raises(ImportError, match="made with XGBoost: expected the package xgboost"):
            load_model(file)
    monkeypatch.setitem(sys.modules, "skops", None)
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(ImportError, match="expected the package skops"):
        load_model(file)


@pytest.mark.parametrize("field", ["left_child", "right_child", "feature"])
def test_a_decision_tree_that_points_outside_of_itself_is_refused(field, forest):
    """scikit-learn would read foreign memory, or walk in a circle, when such a tree is asked."""
    skeleton, parts = saved_parts.take_apart(forest)
    skeleton.head_.classifier_.fitted["nodes"][field][0] = 0 if field == "left_child" else 10**6
    with pytest.raises(ModelFileError, match="expected a Tree that is whole, got one with nodes outside of itself"):
        saved_parts.put_back(skeleton, parts)


@pytest.mark.parametrize("field", ["left_child", "right_child", "feature"])
def test_so_is_one_that_is_kept_as_an_object_of_scikit_learn(field, rows, tmp_path):
    path = save_model(fitted(rows, head=DecisionTreeClassifier()), tmp_path / "m.histofeat")
    with zipfile.ZipFile(io.BytesIO(archive.read_archive(path)[1]["pipeline.skops"])) as inner:
        members = {name: inner.read(name) for name in inner.namelist()}
    for name in members:
        array = np.load(io.BytesIO(members[name])) if name.endswith(".npy") else np.empty(0)
        if array.dtype.names and field in array.dtype.names and len(array) > 1:
            array[field][0] = 0 if field == "left_child" else 10**6
            buffer = io.BytesIO()
            np.save(buffer, array)
            members[name] = buffer.getvalue()
            break
    skops = archive.fixed_zip(members)
    with pytest.raises(ModelFileError, match="expected a Tree that is whole, got one with nodes outside of itself"):
        load_model(rewritten(path, members={"pipeline.skops": skops}, rehash=True))


# --- pretrained weights ----------------------------------------------------------------------------------------------


class MeanColor:
    """An engine without a network: the mean colour, again and again."""

    def stage(self, pixels, *, batch_size):
        """Bring nothing anywhere."""
        return pixels

    def embed(self, pixels, *, batch_size):
        """Embeddings of 256 columns."""
        return np.tile(pixels.mean((1, 2), dtype=np.float32), 86)[:, :256]


@pytest.fixture
def embedded(rows, tmp_path, monkeypatch):
    """A pipeline on an "embedding" whose weights are a small file, and the folder with it."""
    folder = tmp_path / "weights"
    folder.mkdir()
    weights = folder / "mine.h5"
    weights.write_bytes(b"\x89HDF\r\n\x1a\n and the rest")
    monkeypatch.setattr("histofeat.features._embedding.load_engine", lambda *_, **__: MeanColor())
    monkeypatch.delenv("HISTOFEAT_WEIGHTS", raising=False)
    X, y, _ = rows
    pipeline = IDCPipeline(features=("color", "cnn"), head="logistic")
    pipeline.set_params(features__cnn__encoder="mobilenet_0.25", features__cnn__weights=str(weights))
    return pipeline.fit(X, y), weights


def test_weights_are_found_again_by_their_content(embedded, rows, tmp_path, monkeypatch):
    pipeline, weights = embedded
    path = save_model(pipeline, tmp_path / "m.histofeat")
    description, contents = archive.read_archive(path)
    (record,) = description["weights"]
    assert (record["encoder"], record["weights"]) == ("mobilenet_0.25", "mine.h5")
    assert str(tmp_path).encode() not in zipfile.ZipFile(io.BytesIO(contents["pipeline.skops"])).read("schema.json")
    with pytest.raises(WeightsError, match=r"mine\.h5: expected the folder with this file"):
        load_model(path)
    other = tmp_path / "other"
    shutil.copytree(weights.parent, other)
    after = same(pipeline, path, rows[0], weights_dir=other)
    assert after.families()[1].weights == str(other / "mine.h5")
    monkeypatch.setenv("HISTOFEAT_WEIGHTS", str(other))
    same(pipeline, path, rows[0])
    (other / "mine.h5").write_bytes(b"\x89HDF\r\n\x1a\n and another rest")
    with pytest.raises(WeightsError, match=r"expected the weights of mobilenet_0.25 that the model was trained with"):
        load_model(path)


def test_an_embedding_given_as_an_estimator_is_settled_too(embedded, rows, tmp_path):
    _, weights = embedded
    family = CNNEmbedding("mobilenet_0.25", weights=str(weights))
    pipeline = IDCPipeline(features=[family], head="logistic").fit(*rows[:2])
    after = same(pipeline, save_model(pipeline, tmp_path / "m.histofeat"), rows[0], weights_dir=weights.parent)
    assert after.features[0].weights == str(weights)
    assert family.weights == str(weights)


def test_a_model_on_another_shipped_encoder_is_refused(rows, tmp_path):
    pytest.importorskip("openvino")
    pipeline = IDCPipeline(features=("color", "histo"), head="logistic").fit(*rows[:2])
    path = save_model(pipeline, tmp_path / "m.histofeat")
    assert same(pipeline, path, rows[0]).families()[1].weights == "shipped"
    description, contents = archive.read_archive(path)
    (record,) = description["weights"]
    assert (record["encoder"], record["weights"]) == ("histo", "shipped")
    # As if trained with a histofeat that ships other weights, and with one that did not write down which.
    for records, match in (
        ([record | {"hash": "0" * 32}], r"histo\.npz: expected the weights of histo that .*, or train the model again"),
        ([], r"histo: expected a model that holds the hash of these weights, got one of an earlier.* Train the model"),
    ):
        archive.write_archive(path, description | {"weights": records}, contents, overwrite=True)
        with pytest.raises(WeightsError, match=match):
            load_model(path)


@pytest.mark.slow
def test_a_real_embedding_comes_back(real_weights, rows, tmp_path):
    pytest.importorskip("openvino")
    family = CNNEmbedding("mobilenet_0.25", weights_dir=real_weights, input_size=96)
    pipeline = IDCPipeline(features=[family], head="logistic").fit(*rows[:2])
    path = save_model(pipeline, tmp_path / "m.histofeat")
    after = load_model(path, weights_dir=real_weights).pipeline
    assert np.abs(after.predict_proba(rows[0]) - pipeline.predict_proba(rows[0])).max() < 1e-6


@pytest.mark.long
def test_a_network_comes_back_from_kerass_own_format(rows, tmp_path):
    pytest.importorskip("keras")
    from histofeat import CNNClassifier

    X, y, patients = rows
    params = {
        "epochs": 1,
        "recipe": {"batch_size": 16},
        "checkpoint": str(tmp_path / "checkpoint-of-mine"),
        "progress": print,
    }
    for head, settings in (("cancernet", {"head_params": params}), (CNNClassifier("cancernet", **params), {})):
        pipeline = IDCPipeline("pixels", head, normalizer="macenko", class_weight="balanced", **settings)
        pipeline.fit(X, y, groups=patients)
        path = save_model(pipeline, tmp_path / "m.histofeat", about=ABOUT, overwrite=True)
        description, contents = archive.read_archive(path)
        assert sorted(contents) == ["network-1.keras", "pipeline.skops"]
        assert "keras" in description["versions"]
        assert not any(b"checkpoint-of-mine" in content for content in contents.values())
        after = load_model(path, n_jobs=2)
        assert np.abs(after.pipeline.predict_proba(X) - pipeline.predict_proba(X)).max() < 1e-6
        assert after.pipeline.head_.classifier_.n_jobs == 2
        assert after.pipeline.get_params()["head__epochs"] == 1
        assert after.pipeline.get_params()["head__checkpoint"] is None
        shutil.rmtree(tmp_path / "checkpoint-of-mine")
    cut = contents["network-1.keras"][:-200]
    with pytest.raises(ModelFileError, match=r"'network-1.keras' to be a CNNClassifier in the format of Keras"):
        load_model(rewritten(path, members={"network-1.keras": cut}, rehash=True))


def test_n_jobs_is_of_the_machine_that_predicts(file):
    assert load_model(file, n_jobs=2).pipeline.features_.n_jobs == 2
    assert saved_model.load_model(file).pipeline.n_jobs is None
