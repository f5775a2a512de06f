"""Prediction for a person: images of any size, by batches, with what could not be read named and counted."""

import csv
import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.svm import SVC

from histofeat import DatasetError, IDCPipeline, PatchError
from histofeat.datasets import find_patients, list_images, table_bytes
from histofeat.features import Runtime
from histofeat.images import make_grid, pad_to
from histofeat.models import FeatureHead, SavedModel, _prediction as prediction, predict_images

ABOUT = {"class_names": ["no tumour", "tumour"], "patch_size": [50, 50]}


@pytest.fixture(scope="module")
def model(cohort):
    rows = slice(0, 60)
    return SavedModel(IDCPipeline(features="color", head="xgboost").fit(cohort.X[rows], cohort.y[rows]), ABOUT)


@pytest.fixture(scope="module")
def large():
    """An image of 120 x 170 px of tissue, with an empty corner."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(80, 220, (12, 17, 3)).repeat(10, axis=0).repeat(10, axis=1)
    image = np.clip(coarse + rng.normal(0, 9, coarse.shape), 0, 255).astype(np.uint8)
    image[:50, :100] = 255
    return image


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_patches_of_the_training_size_go_as_they_are(model, cohort):
    nominal = (cohort.frame["height"] == 50) & (cohort.frame["width"] == 50)
    X = cohort.X[nominal][60:90]
    found = predict_images(model, X)
    assert set(found.policies) == {"as is"}
    assert (found.proba == model.pipeline.predict_proba(X)).all()
    names = np.array(ABOUT["class_names"], dtype=object)
    assert list(found.labels) == names[model.pipeline.predict(X)].tolist()
    assert "pad" in predict_images(model, cohort.X[~nominal]).policies


def test_a_large_image_is_the_mean_of_its_tiles(model, large):
    tiles = [tile.copy() for tile in make_grid((120, 170), (50, 50)).cut(large)]
    assert len(tiles) == 12
    proba = model.pipeline.predict_proba(tiles)
    for how, expected in (("mean", proba.mean(0)), ("vote", np.bincount(proba.argmax(1), minlength=2) / 12)):
        found = predict_images(model, [large], aggregate=how)
        assert (found.policies, found.n_tiles.tolist()) == (("tile",), [12])
        assert np.allclose(found.proba[0], expected, rtol=1e-12)


def test_each_policy_shows_the_model_what_it_says(model, large):
    proba = model.pipeline.predict_proba
    assert (predict_images(model, [large], policy="whole").proba == proba([large])).all()
    small = large[60:90, :45]
    found = predict_images(model, [small])
    assert found.policies == ("pad",)
    assert (found.proba == proba([pad_to(small, (50, 50))])).all()
    square = large[:, :120]
    scaled = cv2.resize(square, (50, 50), interpolation=cv2.INTER_AREA)
    assert (predict_images(model, [square], policy="resize").proba == proba([scaled])).all()
    assert (predict_images(model, [large[:60, :60]], patch_size=(60, 60)).policies) == ("as is",)


def test_empty_tiles_are_left_out_and_counted(model, large):
    found = predict_images(model, [large, np.full((100, 100, 3), 250, dtype=np.uint8)], min_tissue=0.05)
    assert found.n_background.tolist() == [2, 0]  # nothing but empty slide: then all of it is scored
    assert found.n_tiles.tolist() == [10, 4]
    tiles = list(make_grid((120, 170), (50, 50)).cut(large))[2:]
    assert np.allclose(found.proba[0], model.pipeline.predict_proba(tiles).mean(0), rtol=1e-12)


def test_a_model_of_images_of_many_sizes_takes_them_whole(model, large):
    loose = SavedModel(model.pipeline, {})
    assert predict_images(loose, [large, large[:50]]).policies == ("whole", "whole")
    assert predict_images(loose, [large]).class_names == ("0", "1")


# --- many, and broken ones -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_batches_do_not_change_the_numbers(model, large, cohort, n_jobs, monkeypatch):
    from histofeat.images import read_patch

    images = [large, *map(read_patch, cohort.X[:7]), large[:70], large[:20, :20], large[::-1]]
    expected = predict_images(model, images)
    calls, real = [], prediction.measure_and_score
    monkeypatch.setattr(prediction, "_BATCH_PX", 5 * 2500)
    monkeypatch.setattr(prediction, "measure_and_score", lambda model, X: calls.append(len(X)) or real(model, X))
    told = []
    found = predict_images(model, images, runtime=Runtime(n_jobs=n_jobs, progress=lambda *at: told.append(at)))
    assert np.allclose(found.proba, expected.proba, rtol=1e-12)
    assert (found.policies, found.n_tiles.tolist()) == (expected.policies, expected.n_tiles.tolist())
    assert max(calls) <= 10
    assert sum(calls) == found.n_tiles.sum()
    assert told == [("predict", done, len(images)) for done in range(1, len(images) + 1)]


@pytest.fixture
def night(tmp_path, cohort, large):
    """A folder as a night's work finds it: good ones, a cut one, a text under a picture's name, a large one."""
    folder = tmp_path / "night"
    (folder / "p1").mkdir(parents=True)
    (folder / "p2").mkdir()
    for number, path in enumerate(cohort.X[:4]):
        (folder / f"p{number % 2 + 1}" / f"{number}.png").write_bytes(Path(path).read_bytes())
    whole = (folder / "p1" / "0.png").read_bytes()
    (folder / "p1" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "p2" / "text.JPG").write_text("no picture")
    (folder / "p2" / "notes.txt").write_text("notes")
    (folder / ".hidden.png").write_bytes(whole)
    cv2.imwrite(str(folder / "p2" / "large.png"), large)
    return folder


def test_unreadable_images_are_named_and_the_rest_is_scored(model, night):
    images = list_images(night)
    assert images.n_ignored == 1
    assert [path[len(str(night)) + 1 :] for path in images.paths] == [
        "p1/0.png", "p1/2.png", "p1/cut.png", "p2/1.png", "p2/3.png", "p2/large.png", "p2/text.JPG",
    ]  # fmt: skip
    found = predict_images(model, images.paths, patients=find_patients(r"/(p\d)/", images.paths))
    assert [name for name, _ in found.unreadable] == [images.paths[2], images.paths[6]]
    assert "expected a whole image" in found.unreadable[0][1]
    assert found.readable.tolist() == [True, True, False, True, True, True, False]
    assert [found.policies[row] for row in (0, 2, 5)] == ["as is", "unreadable", "tile"]
    assert found.labels[2] == ""
    alone = predict_images(model, [images.paths[0]])
    assert (alone.proba[0] == found.proba[0]).all()
    with pytest.raises(PatchError, match=re.escape(images.paths[2])):
        predict_images(model, images.paths, on_error="raise")


def test_nothing_readable_is_still_an_answer(model, night):
    found = predict_images(model, [str(night / "p1" / "cut.png")], patients=["7"])
    assert found.labels == ("",)
    row = found.by_patient().iloc[0]
    assert (row["patient"], row["images"], row["unreadable"], row["label"]) == ("7", 0, 1, "")
    assert np.isnan(row["mean_tumour"])


def test_conversions_are_counted(model):
    gray = np.full((50, 50), 90, dtype=np.uint8)
    assert dict(predict_images(model, [gray, gray]).conversions) == {"gray": 2}
    dark = np.full((50, 50, 3), 4000, dtype=np.uint16)
    with pytest.warns(UserWarning, match="1 of 2 images: 16-bit pixels of at most 4,095"):
        assert dict(predict_images(model, [gray, dark]).conversions) == {"gray": 1, "dark 16-bit": 1, "16-bit": 1}


def test_an_image_that_is_too_large_does_not_end_a_prediction(model, cohort, tmp_path):
    header = struct.pack(">4sIIBBBBB", b"IHDR", 100_000, 100_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + zlib.crc32(header).to_bytes(4, "big") + b"\0\0\0\0IEND\xaeB`\x82"
    (tmp_path / "bomb.png").write_bytes(bomb)
    found = predict_images(model, [cohort.X[0], tmp_path / "bomb.png"])
    assert found.policies == ("as is", "unreadable")
    assert "too large for one image: cut it into tiles" in found.unreadable[0][1]


def test_a_normaliser_by_patient_sees_all_of_a_patient(cohort, monkeypatch):
    X, y, patients = cohort.X[:48], cohort.y[:48], cohort.patients[:48]
    pipeline = IDCPipeline("color", "logistic", normalizer="reinhard", normalizer_params={"unit": "patient"})
    model = SavedModel(pipeline.fit(X, y, groups=patients), ABOUT)
    shuffled = np.random.default_rng(0).permutation(48)
    expected = model.pipeline.predict_proba(X, groups=patients)
    monkeypatch.setattr(prediction, "_BATCH_PX", 5 * 2500)
    found = predict_images(model, X[shuffled], patients=patients[shuffled])
    assert np.allclose(found.proba, expected[shuffled], rtol=1e-9)
    with pytest.raises(ValueError, match="patients: expected the patient of each image, since this model normalises"):
        predict_images(model, X)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "crop"}, "policy: expected one of"),
        ({"edges": "wrap"}, "edges: expected one of overlap, reflect"),
        ({"aggregate": "max"}, "aggregate: expected one of"),
        ({"min_tissue": 0}, "min_tissue: expected a number above 0, at most 1, got 0"),
        ({"min_tissue": True}, "min_tissue: expected a number above 0"),
        ({"on_error": "ignore"}, "on_error: expected one of raise, skip, got 'ignore'"),
        ({"patients": ["a", "b"]}, r"patients: expected one patient id for each of 1 patches, got shape \(2,\)"),
        ({"patch_size": (50, 0)}, "size: expected height and width"),
    ],
)
def test_bad_settings_are_refused_before_an_image_is_read(model, settings, message):
    with pytest.raises(ValueError, match=message):
        predict_images(model, ["nowhere.png"], **settings)


def test_a_model_without_probabilities_is_refused(cohort):
    pipeline = IDCPipeline("color", FeatureHead(SVC())).fit(cohort.X[:40], cohort.y[:40])
    with pytest.raises(ValueError, match="model: expected one with probabilities, got one without"):
        predict_images(SavedModel(pipeline), cohort.X[:2])


# --- tables ----------------------------------------------------------------------------------------------------------


def test_the_tables_are_what_they_say(model, night, tmp_path):
    images = list_images(night)
    found = predict_images(model, images.paths, patients=find_patients(r"/(p\d)/", images.paths))
    (tmp_path / "scores.csv").write_bytes(table_bytes(found.to_frame(), "csv"))
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == list(images.paths)
    assert rows[2] | {"path": "", "reason": ""} == {
        "path": "", "patient": "p1", "label": "", "p_no_tumour": "", "p_tumour": "", "threshold": "0.5",
        "threshold_rule": "most probable", "known": "", "unlike": "", "tissue": "", "mpp": "", "rescaled": "",
        "policy": "unreadable", "tiles": "0", "background_tiles": "0", "conversions": "", "reason": "",
    }  # fmt: skip
    assert [row["reason"] for row in rows] == [dict(found.unreadable).get(path, "") for path in images.paths]
    assert float(rows[0]["p_tumour"]) == pytest.approx(found.proba[0, 1], abs=5e-7)
    table = found.by_patient()
    frame = found.to_frame()
    for _, row in table.iterrows():
        mine = frame[(frame["patient"] == row["patient"]) & (frame["label"] != "")]
        assert row["images"] == len(mine)
        assert row["mean_tumour"] == pytest.approx(mine["p_tumour"].mean())
        assert row["share_tumour"] == pytest.approx((mine["label"] == "tumour").mean())
        assert row["label"] == ("tumour" if row["mean_tumour"] > 0.5 else "no tumour")
    assert table["unreadable"].tolist() == [1, 1]
    with pytest.raises(ValueError, match="expected predictions with patients, got none"):
        predict_images(model, images.paths[:1]).by_patient()
    with pytest.raises(ValueError, match="read-only"):
        found.proba[0] = 0


# --- lists and patients ----------------------------------------------------------------------------------------------


def test_lists_are_in_order_and_without_repeats(night):
    one = str(night / "p2" / "3.png")
    paths = list_images([one, night / "p1", f"{night}/*/*.png"]).paths
    assert paths[0] == one
    assert len(set(paths)) == len(paths) == 6
    assert list_images(f"{night}/**").paths == list_images(night).paths
    assert list_images(f"{night}/p*").paths == list_images(night).paths
    text = night / "p2" / "text.JPG"
    assert list_images([text]).paths == (str(text),)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "images: expected a file, a folder or a pattern, got none"),
        (["nowhere"], "nowhere: expected an image, a folder or a pattern, found no such file"),
        (["{night}/*.tif"], "expected a pattern that matches files, got one without a match"),
        (["{night}/p2/*.txt"], "expected images .* got none among 1 files"),
        (["{night}/empty"], "expected images .* got none among 0 files"),
    ],
)
def test_what_holds_no_image_is_named(night, inputs, message):
    (night / "empty").mkdir()
    with pytest.raises(DatasetError, match=message):
        list_images([given.format(night=night) for given in inputs])


def test_patients_come_from_names_or_a_table(tmp_path):
    names = ["a/10253/0/x1.png", r"a\8863\1\x1.png"]
    assert find_patients(r"a/(\d+)/", names).tolist() == ["10253", "8863"]
    assert find_patients(r"(a)/(?P<patient>\d+)/", names).tolist() == ["10253", "8863"]
    assert find_patients(r"\d{4,}", names).tolist() == ["10253", "8863"]
    table = tmp_path / "patients.csv"
    pd.DataFrame({"path": ["8863/1/x1.png", "10253/0/x1.png"], "patient": [7, 9]}).to_csv(table, index=False)
    assert find_patients(table, names).tolist() == ["9", "7"]
    pd.DataFrame({"image": ["x1.png"], "patient": [7]}).to_csv(table, index=False)
    assert find_patients(str(table), ["b/x1.png"]).tolist() == ["7"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (r"b/(\d+)", r"expected the patient of each image by .* got none for a/1/x.png \(2 of 2 images\)"),
        ("(", r"expected a regular expression, got '\('"),
        ("path,patient\nx.png,1\n1/x.png,2\n", "expected one patient for a/1/x.png, got '1', '2'"),
        ("path,patient\ny.png,1\n", "got none for a/1/x.png"),
        ("slide,patient\nx.png,1\n", "expected the columns path, patient, got none named 'path'"),
        ("path,patient\nx.png,\n", "expected text in the column 'patient', got an empty cell"),
    ],
)
def test_images_without_a_patient_are_refused(source, message, tmp_path):
    if "\n" in source:
        (tmp_path / "patients.csv").write_text(source)
        source = tmp_path / "patients.csv"
    with pytest.raises(DatasetError, match=message):
        find_patients(source, ["a/1/x.png", "a/2/x.png"])
