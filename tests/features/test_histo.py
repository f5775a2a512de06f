"""HistoEmbedding: the encoder in the package, without a network, a folder of weights or Keras."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone

import histofeat.features
from histofeat import IDCPipeline, load_idc
from histofeat.datasets import official_roles
from histofeat.exceptions import PatchError, WeightsError
from histofeat.features import CNNEmbedding, Fingerprints, HistoEmbedding, ImageFingerprint, extract
from histofeat.images import VIEWS, as_images, take_view
from histofeat.networks import ARCHITECTURES, ENCODERS, hash_weights, read_lite, shipped_weights

HISTO = ENCODERS["histo"]
SHIPPED = shipped_weights(HISTO)

#: Measures patches in a process of its own in which no address can be looked up or reached, and prints what was tried.
ALONE = """
import json, sys
tried = []
def watch(event, args):
    if event.startswith("socket.") and event not in {"socket.__new__", "socket.gethostname"}:
        tried.append([event, repr(args)])
        raise OSError("no network here")
sys.addaudithook(watch)
import numpy as np
from histofeat.features import CNNEmbedding, HistoEmbedding
pixels = np.load(sys.argv[1])
found = {"histo": HistoEmbedding(), "cnn": CNNEmbedding("histo"), "views": HistoEmbedding(views=8)}
np.savez(sys.argv[2], **{name: family.transform(pixels) for name, family in found.items()})
heavy = [name for name in ("keras", "tensorflow", "torch", "jax", "timm", "huggingface_hub") if name in sys.modules]
print(json.dumps({"tried": tried, "heavy": heavy, "engine": HistoEmbedding().engine_}))
"""


@pytest.fixture
def folder(tmp_path):
    """A copy of the folder of weights, and the file of weights in it."""
    shutil.copytree(SHIPPED.parent, tmp_path / "copy")
    return tmp_path / "copy" / SHIPPED.name


@pytest.fixture(scope="module")
def embedded(patches):
    """What the shipped encoder makes of the twelve patches."""
    return HistoEmbedding().transform(patches)


# --- the numbers -----------------------------------------------------------------------------------------------------


def test_embeddings_of_the_shipped_encoder(embedded):
    assert embedded.shape == (12, 144)
    assert embedded.dtype == np.float32
    assert np.isfinite(embedded).all()
    assert np.ptp(embedded, axis=0).min() > 0


def test_both_names_of_the_encoder_give_the_same_numbers(embedded, patches):
    np.testing.assert_array_equal(CNNEmbedding("histo").transform(patches), embedded)
    np.testing.assert_array_equal(HistoEmbedding(SHIPPED).transform(patches), embedded)
    np.testing.assert_array_equal(HistoEmbedding("imagenet").transform(patches), embedded)


def test_names_of_the_features(patches):
    embedding = HistoEmbedding().fit(patches)
    names = embedding.get_feature_names_out()
    assert (len(names), names[0], names[-1]) == (144, "histo_000", "histo_143")
    assert CNNEmbedding("histo").get_feature_names_out()[-1] == "cnn_histo_0143"


def test_engines_agree(patches):
    for package in ("keras", "openvino"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    by_keras, by_openvino = (
        HistoEmbedding(engine=engine, device="cpu").transform(patches) for engine in ("keras", "openvino")
    )
    assert np.abs(by_keras - by_openvino).max() <= 1e-4 * np.abs(by_keras).max()


@pytest.mark.long
@pytest.mark.parametrize("params", [{"input_size": 50}, {"pooling": "max"}, {"pooling": "avg_std"}])
def test_engines_agree_in_other_settings(patches, params):
    for package in ("keras", "openvino"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    by_keras, by_openvino = (
        HistoEmbedding(engine=engine, device="cpu", **params).transform(patches) for engine in ("keras", "openvino")
    )
    assert np.abs(by_keras - by_openvino).max() <= 1e-4 * np.abs(by_keras).max()


def test_a_copy_of_the_weights_gives_the_same(embedded, patches, folder):
    np.testing.assert_array_equal(HistoEmbedding(folder).transform(patches), embedded)


def test_patches_of_any_size_but_the_smallest(patches):
    mixed = [patches[0], patches[1][:, :1], patches[2][:1], patches[3][:16, :16], np.tile(patches[4], (3, 2, 1))]
    found = HistoEmbedding().transform(mixed)
    assert found.shape == (5, 144)
    assert np.isfinite(found).all()


def test_it_needs_no_network_no_folder_and_no_keras(patches, embedded, tmp_path):
    pytest.importorskip("openvino", reason="openvino is not installed")
    np.save(tmp_path / "pixels.npy", patches)
    home = tmp_path / "home"
    home.mkdir()
    dropped = {"HISTOFEAT_WEIGHTS", "XDG_CACHE_HOME", "KERAS_HOME", "HF_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE, tmp_path / "pixels.npy", tmp_path / "found.npz"],
        env=environment | {"HOME": str(home)}, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"tried": [], "heavy": [], "engine": "openvino"}
    assert not list(home.iterdir())  # nothing had to be converted or remembered
    with np.load(tmp_path / "found.npz") as found:
        np.testing.assert_allclose(found["histo"], embedded, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found["cnn"], found["histo"])
        assert found["views"].shape == (12, 144)


# --- views -----------------------------------------------------------------------------------------------------------


def test_the_eight_views_are_the_flips_and_turns(patches):
    seen = {take_view(patches, view).tobytes() for view in VIEWS}
    by_hand = {np.rot90(flipped, k, axes=(1, 2)).tobytes() for flipped in (patches, patches[:, ::-1]) for k in range(4)}
    assert len(seen) == 8
    assert seen == by_hand


def test_eight_views_are_the_mean_over_flips_and_turns(patches):
    each = [
        HistoEmbedding().transform(np.ascontiguousarray(np.rot90(flipped, k, axes=(1, 2))))
        for flipped in (patches, patches[:, :, ::-1])
        for k in range(4)
    ]
    found = HistoEmbedding(views=8).transform(patches)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.mean(each, axis=0, dtype=np.float64), rtol=1e-4, atol=1e-6)
    assert np.ptp(each, axis=0).max() > 1e-2


@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_eight_views_do_not_see_a_turn(patches, engine):
    pytest.importorskip(engine, reason=f"{engine} is not installed")
    eight = HistoEmbedding(views=8, engine=engine, device="cpu")
    before = eight.transform(patches)
    for turned in (np.rot90(patches, axes=(1, 2)), patches[:, ::-1]):
        np.testing.assert_allclose(eight.transform(np.ascontiguousarray(turned)), before, rtol=1e-4, atol=1e-6)


def test_views_are_gathered_and_staged_like_one(patches):
    from histofeat.features import PatchBatch

    eight = HistoEmbedding(views=8)
    prepared = eight._prepare(PatchBatch(patches))
    staged = eight._stage(prepared)
    assert len(staged) == 8
    np.testing.assert_array_equal(eight._embed(staged), eight._embed(prepared))


@pytest.mark.parametrize("views", [0, 2, 4, 9, True, 8.0, "8", None, np.array([1, 8])])
@pytest.mark.parametrize("kind", [HistoEmbedding, CNNEmbedding])
def test_other_numbers_of_views(patches, kind, views):
    with pytest.raises(ValueError, match=r"CNNEmbedding.views: expected one of 1, 8, got .*Give one of them"):
        kind(views=views).transform(patches)


def test_views_are_part_of_what_stored_features_are_known_by():
    assert "views" not in HistoEmbedding()._fingerprint()
    assert HistoEmbedding(views=8)._fingerprint() == {**HistoEmbedding()._fingerprint(), "views": 8}
    assert HistoEmbedding(views=np.int64(8))._fingerprint()["views"] == 8


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (15, 1), (1, 15)])
@pytest.mark.parametrize("make", [HistoEmbedding, lambda: CNNEmbedding("histo")], ids=["histo", "cnn"])
def test_patches_that_are_too_small(patches, make, shape):
    height, width = shape
    small = np.ascontiguousarray(patches[:, :height, :width])
    match = rf"histo: expected patches of at least 16 px on their longer side, got {height}x{width} px.*larger patches"
    with pytest.raises(PatchError, match=match):
        make().transform(small)


def test_other_encoders_take_the_smallest_patches():
    assert all(encoder.minimum_patch_px == 1 for name, encoder in ENCODERS.items() if name != "histo")


@pytest.mark.parametrize("size", [31, 0, 50.0, "50"])
def test_input_size(patches, size):
    match = rf"CNNEmbedding.input_size: expected a whole number from 32 to 2048, got {size!r}"
    with pytest.raises(ValueError, match=match):
        HistoEmbedding(input_size=size).fit(patches)


def test_another_encoder_is_no_parameter():
    assert "encoder" not in HistoEmbedding().get_params()
    assert HistoEmbedding().weights_dir is None
    with pytest.raises(ValueError, match="Invalid parameter 'encoder'"):
        HistoEmbedding().set_params(encoder="resnet50")


@pytest.mark.parametrize("use", ["transform", "weights_hash", "trained_on"])
def test_truncated_weights(patches, folder, use):
    folder.write_bytes(folder.read_bytes()[:200_000])
    arguments = (patches,) if use == "transform" else ()
    match = r"histo.npz: expected the content [0-9a-f]{32}, got 200,000 bytes of content .*truncated"
    with pytest.raises(WeightsError, match=match):
        getattr(HistoEmbedding(folder), use)(*arguments)


def test_truncated_weights_without_a_record(patches, folder):
    folder.with_name("histo.json").unlink()
    folder.write_bytes(folder.read_bytes()[:200_000])
    match = r"histo.npz: expected the weights of histo as arrays only, got BadZipFile"
    with pytest.raises(WeightsError, match=match):
        HistoEmbedding(folder).transform(patches)


def test_weights_of_another_network(patches, tmp_path):
    np.savez(tmp_path / "small.npz", **{"stem.kernel": np.zeros((3, 3, 3, 8))})
    match = r"small.npz: expected the weights of histo with stem.kernel of shape \(3, 3, 3, 32\), got .*8\)"
    with pytest.raises(WeightsError, match=match):
        HistoEmbedding(tmp_path / "small.npz").transform(patches)


def test_weights_of_another_network_in_their_place(patches, folder):
    shutil.copyfile(shipped_weights(ARCHITECTURES["lite0_small"].encoder), folder)
    with pytest.raises(WeightsError, match=r"histo.npz: expected the content .*another network's"):
        HistoEmbedding(folder).transform(patches)


def test_weights_of_another_version(patches, folder):
    path = folder.with_name("histo.json")
    about = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(about | {"version": about["version"] + 1}), encoding="utf-8")
    match = r"histo.json: expected weights of version 2 of 'histo', got version 3.*train them again"
    for family in (HistoEmbedding(folder), CNNEmbedding("histo", weights=folder)):
        with pytest.raises(WeightsError, match=match):
            family.transform(patches)


def test_weights_that_are_not_there(patches, tmp_path):
    with pytest.raises(WeightsError, match=r"none.npz: expected a file of histo weights, got no such file"):
        HistoEmbedding(tmp_path / "none.npz").transform(patches)
    with pytest.raises(WeightsError, match=r"expected a file of histo weights, got a folder"):
        HistoEmbedding(tmp_path).transform(patches)
    with pytest.raises(ValueError, match=r"CNNEmbedding.weights: expected 'imagenet' or a path, got None"):
        HistoEmbedding(None).transform(patches)


# --- what it learnt from ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def record():
    return HistoEmbedding().trained_on()


def test_the_record_of_the_shipped_weights(record):
    assert (record.encoder, record.dataset, record.n_patients) == ("histo", "IDC", 189)
    assert len(record.patients) == len(record.image_digests) == 17844
    assert {len(digest) for digest in record.image_digests} == {16}
    assert record.files["histo.npz"] == hash_weights(SHIPPED)
    assert set(record.files) == {"histo.npz", "histo.images.npz"}
    assert record.recipe["n_images"] == 17844 == sum(record.recipe["classes"].values())


def test_no_official_test_patient_is_in_the_record(record):
    roles = official_roles()
    found = {role: sum(roles.get(patient) == role for patient in set(record.patients)) for role in set(roles.values())}
    assert found == {"train": 82, "validation": 29, "test": 0}


def test_who_has_a_record(folder):
    assert CNNEmbedding("histo").trained_on().n_patients == 189
    assert HistoEmbedding(folder).trained_on() == HistoEmbedding().trained_on()
    assert CNNEmbedding("mobilenet_0.25").trained_on() is None
    folder.with_name("histo.json").unlink()
    assert HistoEmbedding(folder).trained_on() is None


@pytest.mark.long
def test_the_record_holds_images_of_the_training_side_and_none_of_the_test_patients(record, real_data):
    folders = [real_data / name for name in ("idc", "idc_second", "idc_slides")]
    dataset = load_idc([folder for folder in folders if folder.is_dir()])
    prints = Fingerprints.of(extract([ImageFingerprint()], as_images(dataset.X), n_jobs=-1).features[0])
    keys = np.array(prints.keys(), dtype=object)
    test = dataset.official_split().test
    assert not set(keys[test]) & record.digests
    train = np.setdiff1d(np.arange(len(dataset)), test)
    known = set(zip(dataset.patients[train].astype(str), keys[train], strict=True))
    assert set(zip(record.patients, record.image_digests, strict=True)) <= known


# --- what is shipped -------------------------------------------------------------------------------------------------


def test_the_shipped_folder_is_small():
    files = list(SHIPPED.parent.iterdir())
    assert sum(file.stat().st_size for file in files) <= 5 * 2**20
    names = {file.name for file in files}
    assert names == {"LICENSE", "MODEL_CARD.md", "NOTICE", "histo.images.npz", "histo.json", "histo.npz"}


def test_weights_that_derive_from_others_come_with_their_licence():
    for weights in (SHIPPED, shipped_weights(ARCHITECTURES["lite0_small"].encoder)):
        assert "Apache License\n                           Version 2.0" in weights.with_name("LICENSE").read_text()
        assert "Copyright (c) 2020, ML Illustrated" in weights.with_name("NOTICE").read_text()
        assert weights.stat().st_size < 2**20


def test_the_network_is_small_and_the_card_says_how_small():
    n_parameters = sum(array.size for array in read_lite(SHIPPED, HISTO).values())
    assert n_parameters <= 2_000_000
    assert f"{n_parameters:,} parameters" in SHIPPED.with_name("MODEL_CARD.md").read_text(encoding="utf-8")


def test_the_card_is_there():
    card = SHIPPED.with_name("MODEL_CARD.md").read_text(encoding="utf-8")
    for words in ("17,844 patches of 189 patients", "Intended use", "Recipe", "49 official test patients", "limits"):
        assert words in card


# --- as a family -----------------------------------------------------------------------------------------------------


def test_it_is_a_family_of_the_package():
    assert "histo" in histofeat.features.FAMILIES
    (family,) = IDCPipeline("histo").families()
    assert isinstance(family, HistoEmbedding)
    (family,) = IDCPipeline("histo", feature_params={"histo__views": 8}).families()
    assert family.views == 8


def test_clone_and_pickle(embedded, patches):
    embedding = HistoEmbedding(batch_size=32).fit(patches)
    data = pickle.dumps(embedding)
    assert len(data) < 2000
    assert clone(embedding).get_params() == embedding.get_params()
    for copy in (clone(embedding), pickle.loads(data)):
        np.testing.assert_array_equal(copy.transform(patches), embedded)


def test_in_a_pipeline(cohort):
    pipeline = IDCPipeline(features=("color", "histo"), head="logistic")
    rows, patients = np.arange(len(cohort)), cohort.patients.astype(str)
    tested = np.isin(patients, np.unique(patients)[::3])
    train, test = cohort.subset(rows[~tested]), cohort.subset(rows[tested])
    proba = pipeline.fit(train.X, train.y).predict_proba(test.X)
    assert proba.shape == (len(test), 2)
    assert (proba.argmax(axis=1) == test.y).mean() > 0.6
    assert set(pipeline.predict(test.X)) <= {0, 1}
