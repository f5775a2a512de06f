"""Maps of whole slides: streamed in shards, resumed to the same table, in bounded memory."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from slide_files import write_slide

from histofeat import IDCPipeline
from histofeat.exceptions import PatchError
from histofeat.features import Runtime
from histofeat.images import open_slide, read_tiles, slide_tiles
from histofeat.models import SavedModel, load_model, map_slide, predict_images, save_model

pytest.importorskip("openslide")

#: Of patches of 10 px at 1 micrometre per pixel: 40 x 40 px of the slide, 600 of them on it.
ABOUT = {"class_names": ["no IDC", "IDC"], "patch_size": [10, 10], "mpp": 1.0}
SCRIPT = """
import json, os, resource, signal, sys
from histofeat.features import Runtime
from histofeat.models import _slide_scoring, load_model, map_slide

_slide_scoring._SHARD = int(sys.argv[5])

def stop(stage, done, total):
    if stage == "map" and done > int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)

found = map_slide(load_model(sys.argv[1]), sys.argv[2], folder=sys.argv[3], runtime=Runtime(n_jobs=2, progress=stop))
with open("/proc/self/status") as status:
    peak = int(next(line for line in status if line.startswith("VmHWM")).split()[1])
print(json.dumps({"tiles": len(found.tiles), "positive": found.summary()["positive_tiles"], "peak": peak / 2**20}))
"""


@pytest.fixture(scope="module")
def model_file(cohort, tmp_path_factory):
    rows = slice(0, 60)
    pipeline = IDCPipeline(features="color", head="logistic").fit(cohort.X[rows], cohort.y[rows])
    return save_model(pipeline, tmp_path_factory.mktemp("model") / "small.histofeat", about=ABOUT)


@pytest.fixture(scope="module")
def model(model_file):
    return load_model(model_file)


@pytest.fixture(scope="module", autouse=True)
def _small_shards():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("histofeat.models._slide_scoring._SHARD", 64)
        yield


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "small.tif"
    write_slide(path, 1200, 800, cell=128)
    return path


@pytest.fixture(scope="module")
def whole(model, path):
    return map_slide(model, path)


def changed(model, **about):
    return SavedModel(model.pipeline, {**model.about, **about})


def test_tiles_have_the_scores_of_predict_images(model, path, whole):
    with open_slide(path) as slide:
        tiles = slide_tiles(slide, 10, 1.0)
        proba = predict_images(model, list(read_tiles(slide, tiles, (10, 10))), mpp=1.0).proba
    np.testing.assert_allclose(whole.tiles[["p_no_IDC", "p_IDC"]], proba, rtol=1e-9)
    for name in tiles:
        assert (whole.tiles[name] == tiles[name]).all()
    assert (whole.width, whole.height, whole.mpp, whole.source) == (1200, 800, 0.25, "small.tif")
    assert (whole.positive, whole.classes) == ("IDC", ("no IDC", "IDC"))
    assert whole.thumbnail.shape == (800, 1200, 3)
    assert (whole.tiles["x_um"] == whole.tiles["x"] * 0.25).all()


def test_progress_counts_tiles(model, path, whole):
    calls = []
    map_slide(model, path, runtime=Runtime(progress=lambda *call: calls.append(call)))
    assert calls[0] == ("map", 64, len(whole.tiles))
    assert calls[-1] == ("map", len(whole.tiles), len(whole.tiles))


def run(*arguments):
    done = subprocess.run([sys.executable, "-c", SCRIPT, *map(str, arguments)], capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.startswith(".")}


def test_a_killed_run_goes_on_to_the_same_bytes(model, model_file, path, whole, tmp_path):
    assert run(model_file, path, tmp_path / "killed", 100, 64)[0] == -signal.SIGKILL
    left = contents(tmp_path / "killed")
    assert sorted(left) == ["shards.json", "tiles-000000.npy", "tiles-000001.npy"]
    calls = []
    runtime = Runtime(progress=lambda *call: calls.append(call))
    found = map_slide(model, path, folder=tmp_path / "killed", runtime=runtime)
    assert calls[0][1] == 3 * 64, "what was scored before is not scored again"
    assert found.tiles.equals(whole.tiles)
    map_slide(model, path, folder=tmp_path / "new")
    assert contents(tmp_path / "killed") == contents(tmp_path / "new")
    assert left.items() <= contents(tmp_path / "new").items()


def test_a_damaged_shard_is_made_again(model, path, whole, tmp_path):
    map_slide(model, path, folder=tmp_path)
    before = contents(tmp_path)
    (tmp_path / "tiles-000001.npy").write_bytes(before["tiles-000001.npy"][:-8])
    np.save(tmp_path / "tiles-000000.npy", np.zeros((3, 2)))
    assert map_slide(model, path, folder=tmp_path).tiles.equals(whole.tiles)
    assert contents(tmp_path) == before


def test_a_full_disk_is_told_in_a_sentence_and_shards_stay(model, path, whole, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    before, asked = resource.getrlimit(resource.RLIMIT_FSIZE), []

    def predict(*given, **how):
        asked.append(given)
        if len(asked) == 4:  # one call checks the model
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
        return predict_images(*given, **how)

    monkeypatch.setattr("histofeat.models._slide_scoring.predict_images", predict)
    try:
        with pytest.raises(
            OSError, match=r"tiles-000002.npy: expected a place that can be written, got File too large"
        ):
            map_slide(model, path, folder=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(file.name for file in tmp_path.glob("*.npy")) == ["tiles-000000.npy", "tiles-000001.npy"]
    assert map_slide(model, path, folder=tmp_path).tiles.equals(whole.tiles)


def test_threshold_and_class_need_no_new_scores(model, path, whole, tmp_path):
    map_slide(model, path, folder=tmp_path)
    never = Runtime(progress=lambda *call: pytest.fail("tiles are scored again"))
    found = map_slide(model, path, folder=tmp_path, target_class="no IDC", threshold=0.9, runtime=never)
    assert (found.positive, found.threshold) == ("no IDC", 0.9)
    assert (found.tiles["p_IDC"] == whole.tiles["p_IDC"]).all()


@pytest.mark.parametrize(
    ("what", "words"),
    [("model", "model"), ("options", "tiles"), ("file", "file"), ("record", "slide, file, tiles, model")],
)
def test_a_changed_model_slide_or_option_starts_anew_and_says_so(model, path, tmp_path, what, words):
    copy, folder = tmp_path / "copy.tif", tmp_path / "scores"
    copy.write_bytes(path.read_bytes())
    map_slide(model, copy, folder=folder)
    (folder / "tiles-000009.npy").write_bytes(b"of an earlier run")
    options = {"folder": folder}
    if what == "model":
        model = changed(model, dataset="another")
    elif what == "options":
        options["min_tissue"] = 0.5
    elif what == "file":
        os.utime(copy, ns=(1, 1))
    else:
        (folder / "shards.json").write_text("{")
    with pytest.warns(
        UserWarning, match=rf"got those of another {words}.*\. They are removed, and all tiles are scored"
    ):
        again = map_slide(model, copy, **options)
    assert not (folder / "tiles-000009.npy").exists()
    assert again.tiles.equals(map_slide(model, copy, **options).tiles)


def test_a_folder_in_use_is_refused(model, path, tmp_path):
    other = tmp_path / "other.tif"
    other.write_bytes(path.read_bytes())
    map_slide(model, path, folder=tmp_path / "scores")
    with pytest.raises(
        ValueError, match=r"scores: expected scores of other.tif or an empty folder, got 'small.tif'\. Give"
    ):
        map_slide(model, other, folder=tmp_path / "scores")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine\n")
    with pytest.raises(
        ValueError, match=r"expected scores of small.tif or an empty folder, got 'another file, notes.txt'"
    ):
        map_slide(model, path, folder=tmp_path / "mine")
    with pytest.raises(OSError, match="expected a place that can be written, got"):
        map_slide(model, path, folder=tmp_path / "mine" / "notes.txt")


def test_models_that_cannot_score_a_slide_are_refused(cohort, model, path):
    with pytest.raises(
        ValueError, match=r"model.mpp: expected a model that knows its micrometres .* mpp=\.\.\. \(--mpp\)"
    ):
        map_slide(changed(model, mpp=None), path)
    with pytest.raises(
        ValueError, match=r"model.patch_size: expected one size of the training patches, got None\. Train"
    ):
        map_slide(changed(model, patch_size=None), path)
    with pytest.raises(ValueError, match=r"map_slide.model: expected a SavedModel, got IDCPipeline\. Use load_model"):
        map_slide(model.pipeline, path)
    rows = slice(0, 60)
    settings = {"features": "color", "head": "logistic", "normalizer": "reinhard"}
    pipeline = IDCPipeline(**settings).fit(cohort.X[rows], cohort.y[rows])
    pipeline.normalizer_.unit = "patient"
    with pytest.raises(
        ValueError, match=r"normalizer.unit: expected 'patch' for a slide, which is read in parts, got 'patient'"
    ):
        map_slide(SavedModel(pipeline, ABOUT), path)


def test_a_slide_coarser_than_the_patches_is_enlarged_with_a_warning(model, tmp_path):
    write_slide(tmp_path / "coarse.tif", 200, 200, cell=32, levels=(1,), mpp=1.5)
    with pytest.warns(
        UserWarning, match=r"expected at most 1 micrometres per pixel, those of the model, got 1.5\. Enl"
    ):
        found = map_slide(model, tmp_path / "coarse.tif")
    assert {6, 7} == {*found.tiles["width"]}


def test_a_damaged_slide_ends_the_run(model, path, tmp_path):
    (tmp_path / "cut.tif").write_bytes(path.read_bytes()[:-20000])
    with pytest.raises(PatchError, match=r"cut.tif: expected a whole slide, got"):
        map_slide(model, tmp_path / "cut.tif")


def test_a_real_slide_is_mapped(real_data, cohort):
    rows = slice(0, 60)
    pipeline = IDCPipeline(features="color", head="logistic").fit(cohort.X[rows], cohort.y[rows])
    model = SavedModel(pipeline, {"class_names": ["no IDC", "IDC"], "patch_size": [50, 50], "mpp": 4.0})
    found = map_slide(model, real_data / "slides" / "CMU-1-Small-Region.svs")
    assert (len(found.tiles), found.mpp) == (23, 0.499)
    assert found.summary()["tiles"] == 23


@pytest.mark.long
def test_a_slide_of_a_gigapixel_in_a_gibibyte_killed_and_resumed(model, tmp_path):
    path, fine = tmp_path / "large.tif", tmp_path / "fine.histofeat"
    write_slide(path, 46_000, 32_914)
    save_model(changed(model, patch_size=[50, 50], mpp=2.0), fine)  # read from the level of 1 micrometre
    assert run(fine, path, tmp_path / "killed", 2000, 512)[0] == -signal.SIGKILL
    assert len(contents(tmp_path / "killed")) < 6
    code, resumed, errors = run(fine, path, tmp_path / "killed", 10**9, 512)
    assert code == 0, errors
    code, straight, errors = run(fine, path, tmp_path / "new", 10**9, 512)
    assert code == 0, errors
    assert resumed["tiles"] == straight["tiles"] > 3000
    assert contents(tmp_path / "killed") == contents(tmp_path / "new")
    assert max(resumed["peak"], straight["peak"]) < 1, "GiB"
