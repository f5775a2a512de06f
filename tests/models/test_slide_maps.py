"""Maps of slides and patients: areas, foci, outlines along the edges of tiles, and what is refused."""

from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from histofeat import IDCPipeline
from histofeat.datasets import PatchDataset
from histofeat.exceptions import DatasetError
from histofeat.models import SavedModel, SlideMap, map_patient, mapped_class, predict_images

BOTH = ("benign", "tumour")


def slide_map(positive, size=50, mpp=4.0, **facts):
    """A map whose tiles are positive where a table of 0 and 1 says so; no tile where it says -1."""
    rows, columns = np.nonzero(np.asarray(positive) >= 0)
    tiles = pd.DataFrame({"x": 1 + columns * size, "y": 1 + rows * size, "width": size, "height": size, "tissue": 1.0})
    tumour = np.where(np.asarray(positive)[rows, columns] == 1, 0.9, 0.1)
    tiles = tiles.assign(p_benign=1 - tumour, p_tumour=tumour)
    height, width = np.shape(positive)
    return SlideMap(tiles, 1 + width * size, 1 + height * size, BOTH, "tumour", mpp=mpp, **facts)


def area(ring):
    (x, y), (x2, y2) = ring[:-1].T, ring[1:].T
    return (x * y2 - x2 * y).sum() / 2


def drawn(polygons, shape, size=50):
    """The cells whose middle lies in an odd number of rings, by OpenCV."""
    picture = np.zeros((shape[0] * size + 2, shape[1] * size + 2), dtype=np.uint8)
    for rings in polygons:
        one = np.zeros_like(picture)
        cv2.fillPoly(one, [ring.astype(np.int32) for ring in rings], 1)
        picture |= one
    middles = [1 + size // 2 + size * np.arange(n) for n in shape]
    return picture[np.ix_(*middles)]


def test_areas_and_foci_are_those_of_the_tiles():
    found = slide_map([[1, 0, 0, -1], [0, 1, 0, 0], [0, 0, 0, 1]]).summary()
    assert (found["tiles"], found["positive_tiles"], found["unreadable"], found["foci"]) == (11, 3, 0, 2)
    assert found["area_mm2"] == pytest.approx(3 * 0.04)
    assert found["largest_focus_mm2"] == pytest.approx(2 * 0.04), "tiles that touch at a corner are one focus"
    assert (found["area_mm2"], found["largest_focus_mm2"]) == (0.12, 0.08), "without digits of the arithmetic"
    assert found["share_of_tissue"] == pytest.approx(3 / 11)
    assert found["truth"] is None
    without = slide_map([[1, 0]], mpp=None)
    assert (without.summary()["area_mm2"], without.summary()["largest_focus_mm2"]) == (None, None)
    assert "x_um" not in without.tiles


def test_micrometres_and_labels_are_added():
    tiles = slide_map([[0, 1]]).tiles
    assert tiles[["x", "x_um", "y_um"]].values.tolist() == [[1, 4, 4], [51, 204, 4]]
    assert tiles["label"].tolist() == ["benign", "tumour"]


def test_share_of_tissue_weighs_tiles_by_their_tissue():
    made = slide_map([[1, 0]])
    tiles = made.tiles.assign(tissue=[0.25, 0.75])
    assert SlideMap(tiles, 101, 51, BOTH, "tumour").summary()["share_of_tissue"] == pytest.approx(0.25)
    unknown = SlideMap(tiles.assign(tissue=[np.nan, 1.0]), 101, 51, BOTH, "tumour")
    assert unknown.summary()["share_of_tissue"] == pytest.approx(0.5), "tissue that is not known counts as whole"


def test_a_tile_at_the_threshold_is_positive():
    tiles = slide_map([[1, 0]]).tiles.drop(columns="label").assign(p_benign=[0.75, 0.76], p_tumour=[0.25, 0.24])
    assert SlideMap(tiles, 101, 51, BOTH, "tumour", 0.25).predicted.tolist() == [True, False]


@pytest.mark.parametrize(
    ("picture", "rings"),
    [
        ([[1]], [1]),
        ([[1, 1], [1, 0]], [1]),
        ([[1, 0], [0, 1]], [1, 1]),
        ([[1, 1, 1], [1, 0, 1], [1, 1, 1]], [2]),
        # A U that closes at a corner: the hole touches the outer ring at a point, and no ring touches itself.
        ([[1, 1, 1], [1, 0, 1], [1, 1, 0]], [2]),
        ([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]], [3]),
        ([[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]], [2, 1]),
    ],
)
def test_outlines_follow_the_edges_of_tiles(picture, rings):
    polygons = slide_map(picture).regions()
    assert [len(polygon) for polygon in polygons] == rings
    assert sum(area(ring) for polygon in polygons for ring in polygon) == np.sum(picture) * 2500
    np.testing.assert_array_equal(drawn(polygons, np.shape(picture)), picture)


def test_outlines_of_random_maps_are_simple_closed_and_turn_as_they_should():
    rng = np.random.default_rng(0)
    for _ in range(30):
        picture = (rng.random((9, 11)) < rng.uniform(0.2, 0.8)).astype(int)
        polygons = slide_map(picture).regions()
        np.testing.assert_array_equal(drawn(polygons, picture.shape), picture)
        for outer, *holes in polygons:
            assert area(outer) > 0
            assert all(area(hole) < 0 for hole in holes)
            for ring in (outer, *holes):
                assert (ring[0] == ring[-1]).all()
                assert len(np.unique(ring[:-1], axis=0)) == len(ring) - 1, "a ring that touches itself is not valid"
                assert ((np.diff(ring, axis=0) == 0).sum(axis=1) == 1).all(), "edges run along rows and columns"


def test_outlines_need_no_grid_and_keep_to_narrow_tiles():
    tiles = pd.DataFrame({"x": [0, 50, 120], "y": [0, 0, 7], "width": [50, 3, 40], "height": [50, 50, 9]})
    tiles = tiles.assign(tissue=1.0, p_benign=0.0, p_tumour=1.0)
    found = SlideMap(tiles, 160, 50, BOTH, "tumour")
    (left,), (right,) = found.regions()
    assert {*map(tuple, left.tolist())} == {(0, 0), (53, 0), (53, 50), (0, 50)}
    assert {*map(tuple, right.tolist())} == {(120, 7), (160, 7), (160, 16), (120, 16)}
    assert [area(ring) for (ring,) in found.regions()] == [53 * 50, 40 * 9]


def test_truth_is_compared_within_the_slide():
    made = slide_map([[1, 1, 0, 0]])
    tiles = made.tiles.drop(columns="label").assign(truth=["tumour", "benign", "tumour", "benign"])
    tiles[["p_benign", "p_tumour"]] = [[0.1, 0.9], [0.4, 0.6], [0.7, 0.3], [0.8, 0.2]]
    found = SlideMap(tiles, 201, 51, BOTH, "tumour").summary()["truth"]
    assert found == {"positive_tiles": 2, "missed": 1, "false_alarms": 1, "roc_auc": 0.75, "sensitivity": 0.5,
                     "specificity": 0.5}  # fmt: skip
    one_class = SlideMap(tiles.assign(truth="benign"), 201, 51, BOTH, "tumour").summary()["truth"]
    assert (one_class["roc_auc"], one_class["specificity"]) == (None, 0.5)


def test_tiles_that_cannot_be_read_have_no_label():
    tiles = slide_map([[1, 0]]).tiles.drop(columns="label").assign(p_benign=[np.nan, 0.9], p_tumour=[np.nan, 0.1])
    found = SlideMap(tiles, 101, 51, BOTH, "tumour")
    assert found.tiles["label"].tolist() == ["", "benign"]
    assert found.summary()["unreadable"] == 1
    tiles = slide_map([[1, 0, 1]]).tiles.assign(label=["", "benign", "tumour"])
    assert SlideMap(tiles, 151, 51, BOTH, "tumour").summary()["share_of_tissue"] == pytest.approx(0.5)


def test_a_map_has_tiles_that_do_not_overlap():
    made = slide_map([[1, 0]])
    with pytest.raises(DatasetError, match=r"SlideMap: expected tiles that do not overlap, got '5,000 px of tiles"):
        SlideMap(made.tiles.assign(x=[1, 31]), 101, 51, BOTH, "tumour")
    with pytest.raises(ValueError, match=r"SlideMap.tiles: expected one tile or more, got 0\. Ask for less tissue"):
        SlideMap(made.tiles.iloc[:0], 101, 51, BOTH, "tumour")


@pytest.mark.parametrize("target", BOTH)
@pytest.mark.parametrize("threshold", [None, {"rule": "f1", "value": 0.6, "patient": None}])
def test_equal_probabilities_have_the_label_that_predictions_have(cohort, model, target, threshold):
    known = SavedModel(model.pipeline, {"class_names": BOTH, "patch_size": [50, 50], "threshold": threshold})
    found = replace(predict_images(known, cohort.X[:3]), proba=[[0.5, 0.5], [0.4, 0.6], [0.6, 0.4]])
    tiles = slide_map([[0, 0, 0]]).tiles.drop(columns="label")
    tiles[["p_benign", "p_tumour"]] = found.proba
    chosen = mapped_class(BOTH, known.decision, target_class=target)
    assert tuple(SlideMap(tiles, 151, 51, BOTH, **chosen).tiles["label"]) == found.labels


def test_a_mistyped_coordinate_is_named():
    far = slide_map([[0, 1]]).tiles.assign(x=[0, 999_999_900])[["x", "y", "width", "height", "p_benign", "p_tumour"]]
    expected = r"P: expected a slide of at most 30,000 tiles a side, got '19,999,999'\. Correct x and y"
    with pytest.raises(DatasetError, match=expected):
        SlideMap(far, 999_999_950, 51, BOTH, "tumour", source="P")


def test_a_very_long_slide_has_a_picture(cohort, model):
    own = cohort.subset(np.flatnonzero(cohort.patients == "900003")[:2])
    frame = own.frame.assign(x=[0, 1_400_000], y=0)
    assert map_patient(model, replace(own, frame=frame)).thumbnail.shape == (1, 2000, 3)


def test_the_class_and_its_threshold_are_those_of_the_model_unless_asked():
    decision = {"positive": "tumour", "rule": "f1", "value": 0.3}
    assert mapped_class(BOTH, decision) == {"positive": "tumour", "threshold": 0.3, "rule": "f1"}
    assert mapped_class(BOTH, decision, target_class="benign")["threshold"] == pytest.approx(0.7)
    assert mapped_class(BOTH, decision, threshold=0.9) == {"positive": "tumour", "threshold": 0.9, "rule": "given"}
    three = mapped_class(("a", "b", "c"), {"positive": None, "rule": "f1"}, target_class="b")
    assert three == {"positive": "b", "threshold": None, "rule": "most probable"}
    for classes, asked, words in (
        (("a", "b", "c"), {}, r"target_class: expected the class to map, got None\. Give target_class, one of a, b, c"),
        (("a", "b", "c"), {"target_class": "b", "threshold": 0.5}, r"threshold: expected none with 3 classes, got 0.5"),
        (BOTH, {"target_class": "tumor"}, r"target_class: expected one of .* Did you mean 'tumour'\?"),
        (BOTH, {"threshold": 1.5}, r"threshold: expected a number from 0 to 1, got 1.5"),
    ):
        with pytest.raises(ValueError, match=words):
            mapped_class(classes, decision if classes == BOTH else {"positive": None}, **asked)


@pytest.fixture(scope="module")
def model(cohort):
    pipeline = IDCPipeline("color", "logistic").fit(cohort.X, cohort.y)
    return SavedModel(pipeline, {"class_names": cohort.target_names, "patch_size": [50, 50]})


def test_a_patient_is_mapped_from_the_coordinates_in_names(cohort, model):
    found = map_patient(model, replace(cohort, mpp=4.0), "900003")
    own = cohort.frame[cohort.patients == "900003"].reset_index(drop=True)
    tiles = found.tiles
    assert tiles[["x", "y"]].values.tolist() == own[["x", "y"]].values.tolist()
    assert tiles["truth"].tolist() == [cohort.target_names[label] for label in own["label"]]
    np.testing.assert_allclose(tiles["p_tumour"], model.predict_proba(own["path"])[:, 1])
    assert (found.source, found.positive, found.mpp) == ("900003", "tumour", 4.0)
    assert (found.width, found.height) == ((own["x"] + own["width"]).max(), (own["y"] + own["height"]).max())
    # Each patch lies at its place in the picture of the tissue.
    assert found.thumbnail.shape == (found.height, found.width, 3)
    first = own.iloc[0]
    there = found.thumbnail[first["y"] : first["y"] + first["height"], first["x"] : first["x"] + first["width"]]
    np.testing.assert_array_equal(there, cv2.imread(first["path"])[:, :, ::-1])
    assert "thumbnail" not in repr(found)


def test_a_patient_of_images_in_memory_and_one_patch_are_mapped(cohort, model):
    rows = np.flatnonzero(cohort.patients == "900003")[:1]
    pixels = np.stack([cv2.imread(path)[:, :, ::-1] for path in cohort.X[rows]])
    frame = cohort.frame.iloc[rows].drop(columns=["height", "width"]).reset_index(drop=True)
    found = map_patient(model, PatchDataset(frame, cohort.target_names, "mine", images=pixels))
    assert found.tiles[["width", "height"]].values.tolist() == [[50, 50]]


def test_patches_of_several_scales_are_scored_each_at_its_own(cohort, model):
    known = replace(model, about={**model.about, "mpp": 4.0})
    own = cohort.subset(np.flatnonzero(cohort.patients == "900003"))
    mixed = replace(own, frame=own.frame.assign(mpp=[16.0, *[4.0] * (len(own) - 1)]))
    found = map_patient(known, mixed)
    asked = predict_images(known, own.X, mpp=mixed.frame["mpp"])
    assert (found.mpp, asked.rescaled[0]) == (None, 4.0)
    np.testing.assert_array_equal(found.probability, asked.proba[:, 1])


def test_least_tissue_leaves_patches_out(cohort, model):
    every = map_patient(model, cohort, "900003")
    few = map_patient(model, cohort, "900003", min_tissue=0.9)
    assert 0 < len(few.tiles) < len(every.tiles)
    assert (few.tiles["tissue"] >= 0.9).all()
    assert (few.width, few.height) == (every.width, every.height)


def test_patches_that_cannot_be_read_stay_empty(cohort, model, tmp_path):
    own = cohort.frame[cohort.patients == "900003"].reset_index(drop=True)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    own.loc[0, "path"] = str(broken)
    found = map_patient(model, PatchDataset(own, cohort.target_names, "mine"))
    assert found.tiles["label"].iloc[0] == ""
    assert np.isnan(found.tiles["tissue"].iloc[0])
    some = map_patient(model, PatchDataset(own, cohort.target_names, "mine"), min_tissue=0.9)
    assert some.tiles["label"].tolist()[0] == "", "what cannot be read is shown as such, whatever tissue is asked for"
    assert len(some.tiles) < len(found.tiles)
    lost = own.drop(columns=["height", "width"])
    with pytest.raises(DatasetError, match=r"mine: expected sizes of patches, got None\. Add the columns height"):
        map_patient(model, PatchDataset(lost, cohort.target_names, "mine"))


def test_what_cannot_be_mapped_is_refused_by_name(cohort, model):
    own = cohort.frame[cohort.patients == "900003"].reset_index(drop=True)
    nowhere = own.assign(x=pd.array([pd.NA] * len(own), dtype="Int64"))
    twice = own.assign(x=[own["x"][1], *own["x"][1:]], y=[own["y"][1], *own["y"][1:]])
    shifted = own.assign(x=[own["x"][1] + 7, *own["x"][1:]], y=[own["y"][1], *own["y"][1:]])
    for frame, words in (
        (nowhere, r"patient 900003: expected the place of each patch on the slide, got none for '900003_idx5_"),
        (twice, r"patient 900003: expected one patch at each place, got several at \[x, y\] = \[\d+, \d+\]\. Remove"),
        (shifted, r"900003: expected tiles that do not overlap, got '30,000 px of tiles on 27,[0-9]+ px'\. Correct"),
    ):
        with pytest.raises(DatasetError, match=words):
            map_patient(model, PatchDataset(frame, cohort.target_names, "mine"))
    with pytest.raises(ValueError, match=r"patient: expected a patient of synthetic, got '90003'\. Did you m"):
        map_patient(model, cohort, "90003")
    with pytest.raises(ValueError, match=r"patient: expected one of 15 patients, got None\. Give patient="):
        map_patient(model, cohort)
    with pytest.raises(ValueError, match=r"min_tissue: expected a number from 0 to 1, got 3\. Use 0\.1"):
        map_patient(model, cohort, "900003", min_tissue=3)
    with pytest.raises(ValueError, match=r"map_patient.model: expected a SavedModel, got IDCPipeline"):
        map_patient(model.pipeline, cohort, "900003")
    other = PatchDataset(own, ("normal", "cancer"), "mine")
    with pytest.raises(
        DatasetError, match=r"mine: expected the classes of the model, no tumour, tumour, got 'normal, cancer'\. Rename"
    ):
        map_patient(model, other)


def test_a_map_tells_whether_the_model_was_trained_on_the_patient(cohort):
    seen = np.isin(cohort.patients, sorted({*cohort.patients})[:6])
    pipeline = IDCPipeline("color", "logistic").fit(cohort.X[seen], cohort.y[seen], groups=cohort.patients[seen])
    model = SavedModel(pipeline, {"class_names": cohort.target_names, "patch_size": [50, 50]})
    of = {known: str(cohort.patients[seen == known][0]) for known in (True, False)}
    assert {known: map_patient(model, cohort, patient).about["known"] for known, patient in of.items()} == {
        True: True,
        False: False,
    }


def test_patches_of_another_scale_are_brought_to_that_of_the_model(cohort, model):
    at_four = SavedModel(model.pipeline, {**model.about, "mpp": 4.0})
    finer = map_patient(at_four, replace(cohort, mpp=3.0), "900003")
    paths = cohort.X[cohort.patients == "900003"]
    np.testing.assert_array_equal(finer.tiles["p_tumour"], predict_images(at_four, paths, mpp=3.0).proba[:, 1])
    assert not np.allclose(finer.tiles["p_tumour"], predict_images(at_four, paths, mpp=4.0).proba[:, 1])


def test_the_picture_of_a_large_slide_is_reduced(cohort, model):
    own = cohort.frame[cohort.patients == "900003"].reset_index(drop=True)
    far = map_patient(model, PatchDataset(own.assign(x=own["x"] + 7950), cohort.target_names, "mine"))
    assert far.width > 8000
    assert far.thumbnail.shape == (round(far.height * 2000 / far.width), 2000, 3)
    assert (far.thumbnail[:, :1000] == 255).all(), "white where no patch is"


def test_patches_without_images_are_refused(cohort, model):
    own = cohort.frame[cohort.patients == "900003"].reset_index(drop=True)
    numbers = PatchDataset(own, cohort.target_names, "mine", columns=pd.DataFrame({"a": np.arange(len(own)) * 1.0}))
    with pytest.raises(DatasetError, match=r"map_patient: expected images, got 'mine', which has columns instead"):
        map_patient(model, numbers)
