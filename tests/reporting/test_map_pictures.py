"""Maps as pictures, tables, GeoJSON and masks, and out-of-fold maps of an evaluation."""

import json
from collections import defaultdict
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from histofeat import IDCPipeline, PatientKFold, evaluate, make_cohort
from histofeat.datasets import PatchDataset
from histofeat.evaluation import evaluate_predictions
from histofeat.models import SlideMap
from histofeat.reporting import SlideMapDisplay, write_map, write_report
from histofeat.reporting._slide_maps import draw_map, map_features, map_mask, map_panels, map_title

BOTH = ("benign", "tumour")


def made_map(shape=(8, 10), seed=0, classes=BOTH, **facts):
    """A random map with unread and missing tiles, narrow tiles at its right edge, truth and a picture."""
    rng = np.random.default_rng(seed)
    rows, columns = np.nonzero(rng.random(shape) < 0.8)
    tiles = pd.DataFrame({"x": 1 + 50 * columns, "y": 1 + 50 * rows, "width": 50, "height": 50, "tissue": 1.0})
    tiles.loc[tiles["x"] == tiles["x"].max(), "width"] = 3
    proba = rng.random(len(tiles))
    proba[0] = np.nan
    tiles = tiles.assign(p_benign=1 - proba, p_tumour=proba, truth=rng.choice(BOTH, len(tiles)))
    tiles.columns = [name.replace("benign", classes[0]).replace("tumour", classes[1]) for name in tiles]
    tiles["truth"] = tiles["truth"].map(dict(zip(BOTH, classes, strict=True)))
    height, width = (tiles["y"] + tiles["height"]).max(), (tiles["x"] + tiles["width"]).max()
    known = {"mpp": 4.0, "source": "900001", "thumbnail": rng.integers(0, 255, (height, width, 3)).astype(np.uint8)}
    return SlideMap(tiles, int(width), int(height), classes, classes[1], **{**known, **facts})


def area(ring):
    (x, y), (x2, y2) = np.array(ring)[:-1].T, np.array(ring)[1:].T
    return (x * y2 - x2 * y).sum() / 2


def check_geojson(content, slide_map):
    """The rules of RFC 7946 for polygons, what QuPath needs of a feature, and that all lies in the slide."""
    assert content["type"] == "FeatureCollection"
    for feature in content["features"]:
        assert feature["type"] == "Feature"
        assert feature["geometry"]["type"] == "Polygon"
        outer, *holes = feature["geometry"]["coordinates"]
        assert area(outer) > 0
        assert all(area(hole) < 0 for hole in holes)
        for ring in (outer, *holes):
            assert len(ring) >= 4
            assert ring[0] == ring[-1]
            assert len({*map(tuple, ring)}) == len(ring) - 1, "no ring touches itself"
            assert all(0 <= x <= slide_map.width and 0 <= y <= slide_map.height for x, y in ring)
        about = feature["properties"]
        assert about["objectType"] in ("tile", "annotation")
        assert len(about["classification"]["color"]) == 3
        assert all(type(part) is int and 0 <= part <= 255 for part in about["classification"]["color"])
        assert all(np.isfinite(value) for value in about["measurements"].values())


def test_geojson_follows_its_rules_and_has_the_area_of_the_tiles():
    for seed in range(10):
        found = made_map(seed=seed)
        content = json.loads(json.dumps(map_features(found), allow_nan=False))
        check_geojson(content, found)
        kinds = {"tile": [], "annotation": []}
        for feature in content["features"]:
            rings = feature["geometry"]["coordinates"]
            kinds[feature["properties"]["objectType"]].append((feature["properties"], sum(map(area, rings))))
        assert len(kinds["tile"]) == len(found.tiles)
        positive = [size for about, size in kinds["tile"] if about["classification"]["name"] == "tumour"]
        assert sum(positive) == sum(size for _, size in kinds["annotation"])
        assert sum(positive) * 16e-6 == pytest.approx(found.summary()["area_mm2"])
        assert {about["classification"]["name"] for about, _ in kinds["annotation"]} == {"tumour"}
    unread = next(about for about, _ in kinds["tile"] if about["classification"]["name"] == "unread")
    assert unread["measurements"] == {"tissue": 1.0}


def test_mask_has_a_pixel_for_each_tile_of_the_whole_slide():
    tiles = pd.DataFrame({"x": [51, 1, 101], "y": [1, 101, 101], "width": [50, 50, 30], "height": 50, "tissue": 1.0})
    tiles = tiles.assign(p_benign=[0.2, 0.9, 0.1], p_tumour=[0.8, 0.1, 0.9])
    found = SlideMap(tiles, 204, 151, BOTH, "tumour")
    assert map_mask(found).tolist() == [[0, 255, 0, 0], [0, 0, 0, 0], [127, 0, 255, 0]]
    # Tiles of a fractional width, rounded to pixels, one a pixel.
    edges = np.round(np.arange(41) * 50.4).astype(int)
    tiles = pd.DataFrame({"x": edges[:-1], "y": 0, "width": np.diff(edges), "height": 50, "tissue": 1.0})
    tiles = tiles.assign(p_benign=np.arange(40) % 2, p_tumour=1 - np.arange(40) % 2)
    assert map_mask(SlideMap(tiles, 2016, 50, BOTH, "tumour"))[0].tolist() == [255, 127] * 20


def test_panels_are_those_that_can_be_drawn():
    found = made_map()
    assert map_panels(found) == ["tissue", "probability", "truth", "errors"]
    assert map_panels(found, tissue=False) == ["probability", "truth", "errors"]
    assert map_panels(replace(found, thumbnail=None, tiles=found.tiles.drop(columns="truth"))) == ["probability"]


def test_title_says_whose_it_is_and_what_was_found():
    found = made_map(about={"synthetic": True})
    title = map_title(found)
    assert title.startswith("SYNTHETIC cohort, patient 900001: tumour ")
    assert f"tumour {found.summary()['area_mm2']:.3g} mm²" in title
    assert "from p = 0.50 (most probable)" in title
    assert "ROC-AUC 0." in title
    assert "TRAINED" not in title
    trained = replace(found, about={"data": "IDC", "known": "patient"}, mpp=None)
    assert map_title(trained).startswith(f"IDC, patient 900001: tumour {found.summary()['positive_tiles']} tiles")
    assert map_title(trained).endswith("THE MODEL WAS TRAINED ON IT")
    hidden = replace(found, source="patient 007", about={"data": "IDC", "synthetic": False})
    assert map_title(hidden).startswith("IDC, patient 007: tumour ")
    assert " % of the tissue; " in map_title(hidden)
    unseen = replace(found, tiles=found.tiles.assign(tissue=np.nan), thumbnail=None)
    assert " % of the mapped area; " in map_title(unseen)


def test_picture_shows_each_tile_in_its_colour():
    from matplotlib import colormaps

    found = made_map()
    figure = draw_map(found, tissue=False)
    panel = figure.axes[0]
    (mesh,) = panel.collections
    np.testing.assert_allclose(mesh.cmap(0.3), colormaps["viridis"](0.3))
    x, _, picture = found.paint(found.probability, np.nan)
    np.testing.assert_allclose(mesh.get_array().filled(-1), np.nan_to_num(picture, nan=-1.0))
    np.testing.assert_allclose(mesh.get_coordinates()[0, :, 0], x)
    assert panel.get_ylim()[0] > panel.get_ylim()[1], "y grows downwards, as on the slide"
    errors = figure.axes[2].collections[0].get_array().compressed()
    truth = found.summary()["truth"]
    assert ((errors == 2).sum(), (errors == 3).sum()) == (truth["missed"], truth["false_alarms"])


def test_colours_of_the_probability_read_in_grey():
    from matplotlib import colormaps

    grey = colormaps["viridis"](np.linspace(0, 1, 50))[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(grey) > 0).all()


@pytest.mark.parametrize("tissue", [True, False])
def test_map_is_written_whole(tmp_path, tissue):
    from matplotlib import pyplot

    shown = pyplot.get_fignums()  # of tests before
    found = made_map(about={"model": "m.histofeat", "sha256": "0"}, rule="f1", threshold=0.4)
    assert write_map(found, tmp_path / "map", tissue=tissue) == tmp_path / "map" / "map.json"
    files = {path.name: path for path in (tmp_path / "map").iterdir()}
    assert {*files} == {"map.png", "tiles.csv", "tiles.geojson", "mask.png", "map.json"}
    content = json.loads(files["map.json"].read_text())
    assert (content["threshold"], content["rule"], content["mpp"], content["sha256"]) == (0.4, "f1", 4.0, "0")
    assert content["area_mm2"] == pytest.approx(found.summary()["area_mm2"])
    assert {*content["files"]} == {*files}
    pd.testing.assert_frame_equal(pd.read_csv(files["tiles.csv"], keep_default_na=False, na_values={
        name: [""] for name in ("p_benign", "p_tumour")}), found.tiles, check_dtype=False)  # fmt: skip
    check_geojson(json.loads(files["tiles.geojson"].read_text()), found)
    np.testing.assert_array_equal(cv2.imread(str(files["mask.png"]), cv2.IMREAD_UNCHANGED), map_mask(found))
    picture = cv2.imread(str(files["map.png"]))
    assert picture.shape[1] == 1600
    assert pyplot.get_fignums() == shown
    with pytest.raises(FileExistsError, match=r"output: expected a new folder, got .*holds a finished"):
        write_map(found, tmp_path / "map")
    before = files["map.png"].read_bytes()
    write_map(found, tmp_path / "map", tissue=tissue, overwrite=True)
    assert files["map.png"].read_bytes() == before, "the same map gives the same bytes"


def test_names_with_bytes_that_are_no_text_are_written(tmp_path):
    found = made_map(source="slide\udcff.tif", about={"data": "tree\udcff"})
    assert json.loads(write_map(found, tmp_path / "map").read_text())["source"] == "slide\\udcff.tif"
    assert map_title(found).isprintable()


def test_names_of_classes_in_any_script_are_written(tmp_path):
    found = made_map(classes=("良性", "肿瘤"), source="患者 1")
    content = json.loads(write_map(found, tmp_path / "map").read_text())
    assert (content["positive"], content["source"]) == ("肿瘤", "患者 1")
    assert "肿瘤" in (tmp_path / "map" / "tiles.geojson").read_text()


def test_what_is_no_map_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"write_map: expected a SlideMap, got dict \(\{\}\)\. Give what map_sl"):
        write_map({}, tmp_path / "map")
    with pytest.raises(ValueError, match=r"SlideMapDisplay: expected a SlideMap, got NoneType"):
        SlideMapDisplay(None)
    with pytest.raises(ValueError, match=r"panel: expected a panel that this map has, got 'tissues'\. Did you"):
        SlideMapDisplay(made_map(), panel="tissues")


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    cohort = make_cohort(6, 12, root=tmp_path_factory.mktemp("maps") / "tree")
    pipelines = {"color": IDCPipeline("color", "logistic"), "lbp": IDCPipeline("lbp", "logistic")}
    return evaluate(cohort, pipelines, PatientKFold(2), inner_cv=PatientKFold(2), n_resamples=20)


def test_display_of_an_evaluation_shows_its_out_of_fold_probabilities(evaluation):
    from matplotlib.figure import Figure

    rows = evaluation.dataset.patients == "900003"
    model = evaluation.models[1]
    axes = Figure().subplots()
    display = SlideMapDisplay.from_evaluation(evaluation, "900003", model="lbp/logistic", ax=axes)
    found = display.slide_map
    assert display.ax_ is axes
    np.testing.assert_array_equal(found.probability, model.proba[rows, 1])
    labels = [evaluation.labels[code] for code in model.predicted_tuned[rows]]
    assert found.tiles["label"].tolist() == labels
    assert found.threshold == model.thresholds[evaluation.fold[rows][0]]
    assert found.rule == evaluation.protocol["threshold"]
    assert "SYNTHETIC cohort" in axes.get_title()
    best = max(evaluation.models, key=lambda each: each.scores["roc_auc"].value)
    default = SlideMapDisplay.from_evaluation(evaluation, "900003", panel="errors", ax=Figure().subplots()).slide_map
    np.testing.assert_array_equal(default.probability, best.proba[rows, 1])


def test_predictions_that_were_given_are_drawn(evaluation):
    from matplotlib.figure import Figure

    table = evaluation.dataset.frame[["path"]].assign(model="a", score=0.9, fold=evaluation.fold)
    given = evaluate_predictions(table, evaluation.dataset, n_resamples=20)
    found = SlideMapDisplay.from_evaluation(given, "900003", ax=Figure().subplots()).slide_map
    assert (found.rule, found.threshold, {*found.probability}) == ("given", 0.5, {0.9})


def test_display_refuses_what_is_not_there(evaluation):
    for evaluated, patient, options, words in (
        (None, "900003", {}, r"evaluation: expected an Evaluation, got NoneType"),
        (
            replace(evaluation, models=()),
            "900003",
            {},
            r"evaluation: expected an evaluation with models, got 0\. Evalua",
        ),
        (evaluation, "90003", {}, r"patient: expected a patient of synthetic, got '90003'\. Did you mean '900003'"),
        (
            evaluation,
            "900003",
            {"model": "lbp/svm"},
            r"model: expected names of models of this evaluation, got",
        ),
        (
            replace(evaluation, fold=np.full(72, -1)),
            "900003",
            {},
            r"patient: expected one that was tested, got '9",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            SlideMapDisplay.from_evaluation(evaluated, patient, **options)


def test_report_maps_the_hardest_patients_in_a_folder_of_its_own(evaluation, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    monkeypatch.setattr("histofeat.reporting._report.make_figures", lambda *_: ({}, defaultdict(list)))
    folder = write_report(evaluation, tmp_path / "report", maps=2).parent
    best = max(evaluation.models, key=lambda each: each.scores["roc_auc"].value)
    scores = evaluation.by_patient()
    scores = scores[scores["model"] == f"{best.name}/{best.head}"].head(2)
    assert {path.name for path in (folder / "maps").iterdir()} == {
        *("001.png", "002.png", "maps.html", "maps.md", "NOTICE.txt", ".gitignore")
    }
    page = (folder / "maps" / "maps.md").read_text()
    for row in scores.to_dict("records"):
        assert f"Patient {row['patient']}: {row['patches']} patches, ROC-AUC {row['roc_auc']:.3f}" in page
        # Labels as on the map: at the threshold of the fold.
        truth = SlideMapDisplay.from_evaluation(evaluation, row["patient"], ax=Figure().subplots()).slide_map.summary()
        assert f"at the threshold of the fold sensitivity {truth['truth']['sensitivity']:.3f}, specificity" in " ".join(
            page.split()
        )
    assert "These images are synthetic" in page
    assert "[open the maps](maps/maps.html)" in (folder / "report.md").read_text()
    assert json.loads((folder / "metrics.json").read_text())["maps"]["n_patients"] == 2
    plain = write_report(evaluation, tmp_path / "plain").parent
    assert not (plain / "maps").exists()
    with pytest.raises(ValueError, match=r"^maps: expected a whole number of at least 1, got 0"):
        write_report(evaluation, tmp_path / "none", maps=0)


def test_maps_show_pseudonyms_where_the_report_does(evaluation, tmp_path, monkeypatch):
    monkeypatch.setattr("histofeat.reporting._report.make_figures", lambda *_: ({}, defaultdict(list)))
    folder = write_report(evaluation, tmp_path / "report", maps=1, pseudonyms=True).parent
    text = "".join(path.read_text() for path in (folder / "maps").iterdir() if path.suffix in (".md", ".html"))
    assert "Patient 00" in text
    assert "patient patient" not in text.lower()
    assert not any(patient in text for patient in evaluation.dataset.patients)


def test_maps_of_patches_without_places_are_refused(evaluation, tmp_path):
    nowhere = evaluation.dataset.frame.assign(x=pd.array([pd.NA] * len(evaluation.dataset), dtype="Int64"))
    lost = replace(evaluation, dataset=replace(evaluation.dataset, frame=nowhere))
    with pytest.raises(ValueError, match=r"^maps: expected patches with their places on the slide, got 3\. Leave"):
        write_report(lost, tmp_path / "report", maps=3)
    frame = evaluation.dataset.frame.assign(label=np.arange(len(evaluation.dataset)) % 3)
    three = replace(evaluation, dataset=PatchDataset(frame, ("a", "b", "c"), "three"))
    with pytest.raises(ValueError, match=r"^maps: expected two classes, got 3\. Leave it out"):
        write_report(three, tmp_path / "report", maps=3)
    assert not (tmp_path / "report").exists()
