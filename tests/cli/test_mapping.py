"""`histofeat map`: one map or several, checks before the work, and going on after an end."""

import json
import shutil

import pandas as pd
import pytest
from slide_files import write_slide

from histofeat import IDCPipeline, make_breakhis_cohort
from histofeat.cli import main
from histofeat.models import SavedModel, predict_images, save_model


@pytest.fixture(scope="module")
def model(cohort, tmp_path_factory):
    pipeline = IDCPipeline("color", "logistic").fit(cohort.X, cohort.y, groups=cohort.patients)
    file = tmp_path_factory.mktemp("model") / "m.histofeat"
    about = {"class_names": cohort.target_names, "patch_size": [50, 50]}
    pipeline.patients_ = [patient for patient in pipeline.patients_ if patient != "900003"]
    return save_model(SavedModel(pipeline, about), file)


@pytest.fixture
def quick(monkeypatch):
    """Maps without their picture, for what is about files and checks alone."""
    monkeypatch.setattr(
        "histofeat.reporting._canvas.save_picture", lambda draw, data, path, words: path.write_bytes(b"picture")
    )


def test_folder_of_a_patient_is_mapped(cohort, model, tmp_path, capsys):
    out = tmp_path / "map"
    assert main(["map", str(model), str(cohort.root / "900003"), "-o", str(out), "--no-tissue", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "m.histofeat: classes no tumour, tumour; positive class: tumour" in printed
    assert "900003" in printed
    assert f"maps: {out}" in printed
    content = json.loads((out / "map.json").read_text())
    assert (content["source"], content["tiles"], content["model"]) == ("900003", 12, "m.histofeat")
    assert len(content["sha256"]) == 64
    assert {path.name for path in tmp_path.iterdir()} == {"map"}
    assert (out / "run.toml").exists()


def test_several_patients_get_a_folder_each_and_json_is_printed(cohort, model, tmp_path, capsys, quick):
    out = tmp_path / "maps"
    words = ["map", str(model), str(cohort.root), "--patient", "900003", "--patient", "900004", "-o", str(out)]
    assert main([*words, "--json", "--quiet", "--threshold", "0.9"]) == 0
    found = json.loads(capsys.readouterr().out)["maps"]
    assert [*found] == ["900003", "900004"]
    assert found["900003"]["threshold"] == 0.9
    assert (found["900003"]["known"], found["900004"]["known"]) == (False, True), "the model was trained on one"
    assert {path.name for path in out.iterdir()} == {"900003", "900004", "run.toml"}
    assert main(words) == 2
    assert "expected a new folder" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--quiet"]) == 0


def test_a_run_that_was_ended_goes_on(cohort, model, tmp_path, monkeypatch, quick):
    from histofeat.reporting import write_map

    out, written = tmp_path / "maps", []

    def write(slide_map, output, **how):
        written.append(slide_map.source)
        if len(written) == 2:
            raise KeyboardInterrupt
        return write_map(slide_map, output, **how)

    monkeypatch.setattr("histofeat.reporting.write_map", write)
    words = ["map", str(model), str(cohort.root), "--patient", "900003", "--patient", "900004", "-o", str(out)]
    main([*words, "--quiet"])
    assert [path.name for path in out.iterdir()] == ["900003"]
    assert main([*words, "--quiet", "--threshold", "0.9"]) == 2, "another run does not go on from it"
    assert main([*words, "--quiet"]) == 0
    assert written == ["900003", "900004", "900004"]
    assert {path.name for path in tmp_path.iterdir()} == {"maps"}


def test_a_map_of_other_data_options_is_not_taken_for_this_one(cohort, model, tmp_path, capsys, quick):
    out = tmp_path / "map"
    words = ["map", str(model), str(cohort.root / "900003"), "-o", str(out), "--quiet"]
    assert main(words) == 0
    before = json.loads((out / "map.json").read_text())["truth"]["positive_tiles"]
    swapped = [*words, "--classes", "no tumour=tumour,tumour=no tumour"]
    assert main(swapped) == 2
    assert "expected a new folder" in capsys.readouterr().err
    assert main([*swapped, "--overwrite"]) == 0
    assert json.loads((out / "map.json").read_text())["truth"]["positive_tiles"] == 12 - before
    assert main(swapped) == 0, "it is done"


@pytest.mark.parametrize("name", ["map.json", "metrics.json"])
def test_several_maps_do_not_mix_with_one_map_or_a_report(cohort, model, tmp_path, capsys, quick, name):
    (tmp_path / name).write_text("{}")
    (tmp_path / "run.toml").write_text("")
    words = ["map", str(model), str(cohort.root), "--patient", "900003", "--patient", "900004", "--quiet"]
    assert main([*words, "-o", str(tmp_path), "--overwrite"]) == 2
    assert "expected a new or an empty folder" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {name, "run.toml"}


@pytest.mark.parametrize("content", ["[1]", "5", "{", "", '{"files": 5}', '{"files": [{}, 1]}'])
def test_a_damaged_record_is_no_finished_map(cohort, model, tmp_path, quick, content):
    out = tmp_path / "map"
    out.mkdir()
    (out / "map.json").write_text(content)
    words = ["map", str(model), str(cohort.root / "900003"), "-o", str(out), "--quiet"]
    assert main(words) == 2
    assert (out / "map.json").read_text() == content
    assert main([*words, "--overwrite"]) == 0
    assert json.loads((out / "map.json").read_text())["source"] == "900003"


def test_what_is_wrong_is_found_before_an_image_is_read(cohort, model, tmp_path, capsys, monkeypatch):
    def read(*_):
        raise AssertionError("an image was read")

    monkeypatch.setattr("histofeat.images._reading.Images.content", read)
    plain = tmp_path / "plain" / "benign"
    plain.mkdir(parents=True)
    shutil.copy(cohort.X[0], plain / "p1_a.png")
    (tmp_path / "plain" / "malignant").mkdir()
    shutil.copy(cohort.X[1], tmp_path / "plain" / "malignant" / "p1_b.png")
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "a.svs").write_bytes(b"")
    used = tmp_path / "used"
    used.mkdir()
    (used / "notes.txt").write_text("mine")
    made = {"patients_per_subtype": 1, "images_per_slide": 1, "magnifications": (40, 100)}
    breakhis = make_breakhis_cohort(root=tmp_path / "breakhis", **made)
    data, out = str(cohort.root), str(tmp_path / "map")
    for words, message in (
        ([data, "-o", out, "--patient", "90003"], "--patient: expected a patient of synthetic, got"),
        ([data, "-o", out, "--target-class", "tumor"], "--target-class: expected one of no tumour, tumour"),
        ([data, "-o", out, "--threshold", "2"], "--threshold: expected a number from 0 to 1, got 2.0"),
        ([data, "-o", out, "--classes", "a=no tumour,b=tumour", "--positive", "b"], "the classes of the model"),
        ([str(plain.parent), "-o", out, "--patients", "(p[0-9])", "--classes", "no tumour=benign,tumour=malignant"],
         "patient p1: expected the place of each patch on the slide, got none for 'p1_"),
        ([data, "-o", str(used)], "expected a new or an empty folder"),
        ([str(tmp_path / "none.svs"), "-o", out],
         "none.svs: expected a whole slide, a folder of patches or a CSV file, got no such path. Name one;"),
        ([str(plain / "p1_a.png"), "-o", out],
         "CSV file, got another file. Name one; images are for `histofeat predict`."),
        ([str(used), "-o", out],
         "used: expected a whole slide, a folder of patches or a CSV file, got a folder without images."),
        ([str(tmp_path / "slides"), "-o", out],
         "slides: expected the file of a whole slide, got a folder of them. Name the slides, as in "
         f"{tmp_path}/slides/*.svs: each gets its map."),
        ([str(breakhis.root), "-o", out, "--classes", "no tumour=benign-like,tumour=malignant-like"],
         ": expected the place of each patch on the slide, got none for '"),
    ):  # fmt: skip
        assert main(["map", str(model), *words]) == 2, words
        assert message in capsys.readouterr().err, words
    assert not (tmp_path / "map").exists()
    assert not (tmp_path / "map.partial").exists()


def test_official_test_patients_are_written_down(cohort, model, tmp_path, official_tree, quick):
    tree = official_tree(tmp_path / "idc", {"test": 1, "unlisted": 1}, 8)
    patient = next(path.name for path in tree.iterdir() if path.name not in ("7", "8"))
    ledger = tmp_path / "ledger.csv"
    words = ["map", str(model), str(tree / patient), "-o", str(tmp_path / "map"), "--ledger", str(ledger), "--quiet"]
    assert main([*words, "--classes", "no tumour=no IDC,tumour=IDC"], commit="abc1234") == 0
    (line,) = pd.read_csv(ledger).to_dict("records")
    assert (line["kind"], line["registered"], line["trained_on"]) == ("map", "idc-official:1", "unlisted")
    assert (line["n_test_patients"], line["n_test_patches"], line["commit"]) == (1, 8, "abc1234")
    scored = json.loads((tmp_path / "map" / "map.json").read_text())["truth"]["roc_auc"]
    assert line["roc_auc"] == pytest.approx(scored)


def test_a_slide_is_mapped_and_goes_on_where_it_was(cohort, tmp_path, capsys, quick, monkeypatch):
    pytest.importorskip("openslide")
    pipeline = IDCPipeline("color", "logistic").fit(cohort.X[:60], cohort.y[:60])
    about = {"class_names": ["no IDC", "IDC"], "patch_size": [10, 10], "mpp": 1.0}
    model = save_model(SavedModel(pipeline, about), tmp_path / "m.histofeat")
    slide, out, asked = tmp_path / "A slide\udcff.tif", tmp_path / "map", []
    write_slide(slide, 1200, 800, cell=128)
    monkeypatch.setattr("histofeat.models._slide_scoring._SHARD", 64)

    def predict(*given, **how):
        asked.append(len(given[1]))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return predict_images(*given, **how)

    monkeypatch.setattr("histofeat.models._slide_scoring.predict_images", predict)
    words = ["map", str(model), str(slide), "-o", str(out), "--min-tissue", "0", "--quiet"]
    main(words)
    assert not out.exists()
    assert len([*(tmp_path / "map.partial").glob("tiles-*.npy")]) >= 1
    before = len(asked)
    assert main(words) == 0
    content = json.loads((out / "map.json").read_text())
    assert sum(asked[before:]) < content["tiles"], "what was scored is not scored again"
    assert (content["width"], content["height"], content["truth"]) == (1200, 800, None)
    assert not (tmp_path / "map.partial").exists()
    assert "A slide" in capsys.readouterr().out
