"""Galleries: never by default, only in their own folder, and the images that they say they are."""

import json
import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from histofeat import IDCPipeline, evaluate
from histofeat.datasets import PatchDataset
from histofeat.images import read_patch
from histofeat.model_selection import PatientKFold
from histofeat.reporting import write_report
from histofeat.reporting._galleries import GALLERY_KINDS, gallery_data

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """Three classes, patches of 50x50 and photographs of 700x460; one file vanishes and one breaks afterwards."""
    folder = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    rows = []
    for code in range(3):
        for patient in range(4):
            shape = (460, 700, 3) if patient == 0 else (50, 50, 3)
            for number in range(4):
                path = folder / f"{code}-{patient}-{number}.png"
                pixels = rng.integers(60 * code, 60 * code + 120, shape).astype(np.uint8)
                cv2.imwrite(str(path), pixels)
                rows.append((str(path), code, f"P{code}{patient}"))
    frame = pd.DataFrame(rows, columns=["path", "label", "patient"]).assign(x=pd.NA, y=pd.NA)
    dataset = PatchDataset(frame, ("a", "b", "c & d"), "photographs", root=folder)
    pipelines = {"color": IDCPipeline(features="color", head="logistic")}
    found = evaluate(dataset, pipelines, PatientKFold(2), inner_cv=PatientKFold(2), n_resamples=10)
    model = found.models[0]
    proba = rng.dirichlet(np.ones(3), len(dataset))
    predicted = proba.argmax(axis=1)
    (folder / "0-1-0.png").unlink()
    (folder / "0-2-1.png").write_bytes(b"no image at all")
    noisy = replace(model, proba=proba, predicted=predicted, calibrated=proba)
    return replace(found, models=(noisy, replace(noisy, name="lbp")))


@pytest.fixture(scope="module")
def folder(evaluation, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("histofeat.reporting._report.make_figures", lambda *_: ({}, defaultdict(list)))
        return write_report(evaluation, tmp_path_factory.mktemp("g") / "report", gallery=20).parent


@pytest.fixture
def without_figures(monkeypatch):
    """Reports in a fraction of their time, for what is about galleries alone."""
    monkeypatch.setattr("histofeat.reporting._report.make_figures", lambda *_: ({}, defaultdict(list)))


def data_of(folder, name="color-logistic"):
    return json.loads((folder / f"galleries/{name}.json").read_text(encoding="utf-8"))


# --- never by default ------------------------------------------------------------------------------------------------


def test_a_report_holds_no_raster_unless_galleries_were_asked_for(evaluation, tmp_path):
    plain = write_report(evaluation, tmp_path / "plain").parent
    assert not (plain / "galleries").exists()
    assert not [path for path in plain.rglob("*") if path.suffix.lower() in {".png", ".jpg", ".jpeg", ".tif", ".webp"}]
    for path in (*plain.rglob("*.svg"), *plain.rglob("*.html"), *plain.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        assert "<image" not in text, path.name
        assert "data:image/png" not in text, path.name
    assert "galleries" not in json.loads((plain / "metrics.json").read_text(encoding="utf-8"))


def test_the_pages_of_the_report_hold_no_picture_even_with_galleries(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "data:image/png" not in page
    assert "galleries/images" not in page
    assert '<a href="galleries/gallery.html">' in page
    assert "Patient images: not to be published without permission" in page
    assert "(galleries/gallery.html)" in (folder / "report.md").read_text(encoding="utf-8")


def test_no_gallery_lies_among_the_reports_of_this_repository():
    reports = ROOT / "reports"
    assert not list(reports.rglob("galleries"))
    # Two charts of speeds, and two maps: one of synthetic tissue, one of a real patient, drawn without it.
    rasters = [path for path in reports.rglob("*") if path.suffix.lower() in {".png", ".jpg", ".jpeg", ".tif", ".webp"}]
    assert {path.relative_to(reports).as_posix() for path in rasters} <= {
        "slide-map-8864/map.png",
        "slide-map-synthetic/map.png",
        "speed-scaling/speed.png",
        "speed/speed.png",
    }
    for page in reports.rglob("*.html"):
        assert "data:image/jpeg" not in page.read_text(encoding="utf-8")


# --- the folder ------------------------------------------------------------------------------------------------------


def test_the_folder_has_its_notice_and_keeps_itself_out_of_git(folder):
    place = folder / "galleries"
    assert "Do not publish, commit or share it" in (place / "NOTICE.txt").read_text(encoding="utf-8")
    assert (place / ".gitignore").read_text(encoding="utf-8") == "*\n"
    listed = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["files"]
    assert "galleries/NOTICE.txt" in listed
    assert all((folder / name).is_file() for name in listed)
    for name in ("gallery.html", "gallery.md"):
        text = (place / name).read_text(encoding="utf-8")
        assert text.index("not to be published without permission") < text.index("images/0")
        assert str(folder.parent) not in text
        assert text.count("<script") == (name == "gallery.html")


def test_synthetic_pictures_may_be_shown(evaluation, tmp_path, without_figures):
    made_up = replace(evaluation, dataset=replace(evaluation.dataset, synthetic=True))
    folder = write_report(made_up, tmp_path / "s", gallery=1).parent
    assert "They may be published" in (folder / "galleries/NOTICE.txt").read_text(encoding="utf-8")
    assert "Patient images" not in (folder / "report.html").read_text(encoding="utf-8")


def test_images_are_pixels_alone_in_sizes_that_fit(folder, evaluation):
    paths = evaluation.dataset.X
    shapes = set()
    for file in (folder / "galleries/images").iterdir():
        shown, original = read_patch(file), read_patch(paths[int(file.stem)])
        shapes.add(shown.shape)
        if original.shape == (50, 50, 3):
            np.testing.assert_array_equal(shown, original)
        else:
            assert abs(shown.mean() - original.mean()) < 1
    assert shapes == {(50, 50, 3), (184, 280, 3)}
    page = (folder / "galleries/gallery.html").read_text(encoding="utf-8")
    assert page.count(".png#small") > page.count('.png"') > 0


def test_an_image_that_cannot_be_read_is_replaced_by_words(folder, evaluation):
    items = {item["row"]: item for group in data_of(folder)["groups"] for item in group["items"]}
    paths = evaluation.dataset.relative_paths
    lost = {paths[row]: item["words"] for row, item in items.items() if item["file"] is None}
    assert set(lost) == {"0-1-0.png", "0-2-1.png"}
    assert lost["0-1-0.png"].startswith("This image could not be read: expected an image file, found no such file.")
    page = (folder / "galleries/gallery.html").read_text(encoding="utf-8")
    assert page.count("<li><em>This image could not be read") >= 2
    found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["galleries"]
    assert found["n_unreadable"] == 2
    assert found["n_pictures"] == len(list((folder / "galleries/images").iterdir()))
    assert "2 could not be read" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_report_without_galleries_takes_those_of_the_old_one_away(evaluation, tmp_path, without_figures):
    folder = write_report(evaluation, tmp_path / "twice", gallery=1).parent
    assert list((folder / "galleries/images").iterdir())
    write_report(replace(evaluation, models=()), folder, overwrite=True)
    assert not (folder / "galleries").exists()


# --- which images ----------------------------------------------------------------------------------------------------


def test_groups_hold_what_they_say(folder, evaluation):
    model, truth, labels = evaluation.models[0], evaluation.dataset.y, evaluation.labels
    data = data_of(folder)
    assert [(group["label"], group["kind"]) for group in data["groups"]] == [
        (label, kind) for label in labels for kind in GALLERY_KINDS
    ]
    for group in data["groups"]:
        code = labels.index(group["label"])
        rows = np.array([item["row"] for item in group["items"]])
        assert (truth[rows] == code).all()
        assert ((model.predicted[rows] == code) == (group["kind"] == "right")).all()
        expected = (truth == code) & ((model.predicted == code) == (group["kind"] == "right"))
        assert group["n_found"] == expected.sum() == len(set(rows.tolist()))
        if group["kind"] == "top_losses":
            losses = [-math.log(item["probability_of_true"]) for item in group["items"]]
            assert losses == sorted(losses, reverse=True)
        for item in group["items"]:
            assert item["patient"] == evaluation.dataset.patients[item["row"]]
            assert item["probability"] == model.proba[item["row"]].max()
            assert item["predicted"] == labels[model.predicted[item["row"]]]


def test_patients_take_turns(evaluation):
    payload = {"dataset": {"name": "d", "synthetic": True}}
    right = replace(evaluation.models[0], predicted=evaluation.dataset.y)
    for group in gallery_data(evaluation, payload, right, 8)["groups"]:
        if group["kind"] == "right":
            patients = [item["patient"] for item in group["items"]]
            assert len(set(patients[:4])) == len(set(patients[4:])) == 4
        else:
            assert group["items"] == []
    again = gallery_data(evaluation, payload, right, 8)
    assert again == gallery_data(evaluation, payload, right, 8)


def test_the_best_model_and_networks_are_shown(evaluation, folder, tmp_path, without_figures):
    found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["galleries"]
    assert found["models"] == ["color/logistic"]
    network = replace(evaluation.models[0], name="net", features=("pixels",))
    three = replace(evaluation, models=(*evaluation.models, network))
    written = write_report(three, tmp_path / "n", gallery=1).parent / "galleries"
    assert {path.stem for path in written.glob("*.json")} == {"color-logistic", "net-logistic"}


@pytest.mark.parametrize("gallery", [0, -1, True, 2.5, "8"])
def test_a_number_that_is_none_is_refused(evaluation, tmp_path, gallery):
    with pytest.raises(ValueError, match=r"^gallery: expected a whole number of at least 1, got "):
        write_report(evaluation, tmp_path / "x", gallery=gallery)
    assert not (tmp_path / "x").exists()
