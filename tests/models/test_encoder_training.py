"""Training the encoder: what is written beside its weights, and whom the command never learns from."""

import importlib.util
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from histofeat import CNNClassifier, make_cohort
from histofeat.datasets import official_roles
from histofeat.exceptions import GroupLeakageError
from histofeat.features import Fingerprints, HistoEmbedding, ImageFingerprint
from histofeat.features._batch import resize_patches
from histofeat.images import as_images
from histofeat.models import _encoder_training as encoder_training, train_encoder
from histofeat.networks import read_record

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "encoder" / "train.py"


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Four patients of eight patches."""
    root = tmp_path_factory.mktemp("few") / "tree"
    return make_cohort(n_patients=4, patches_per_patient=8, random_state=0, root=root)


@pytest.fixture(scope="module")
def pixels(few):
    """Those of its patches that are 50x50 px."""
    images = as_images(few.X)
    decoded = [images.decode(row, images.content(row))[0] for row in range(len(images))]
    return np.stack([patch for patch in decoded if patch.shape == (50, 50, 3)])


@pytest.fixture(scope="module")
def trained(few, tmp_path_factory):
    """Weights after one epoch, the classifier that they came from, and what was told on the way."""
    pytest.importorskip("keras", reason="keras is not installed")
    kept, told = [], []

    class Kept(CNNClassifier):
        def fit(self, *arguments, **options):
            kept.append(self)
            return super().fit(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder_training, "CNNClassifier", Kept)
        weights = train_encoder(
            few.X, few.y, few.patients, tmp_path_factory.mktemp("trained") / "new" / "folder", dataset="synthetic",
            epochs=1, progress=lambda done, total, values: told.append((done, total, sorted(values))),
        )  # fmt: skip
    (classifier,) = kept
    return weights, classifier, told


# --- what is refused before any work ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("groups", "got"), [(None, "None"), (["7"] * 31, "31"), ([], "0")])
def test_patients_have_to_be_known(few, tmp_path, groups, got):
    match = rf"train_encoder.groups: expected the patient of each of 32 images, got {got}. Pass groups="
    with pytest.raises(GroupLeakageError, match=match):
        train_encoder(few.X, few.y, groups, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_record_is_that_of_the_input(trained, few):
    weights, _, told = trained
    record = read_record(weights, "histo")
    assert (record.encoder, record.dataset, record.n_patients) == ("histo", "synthetic", 4)
    assert record.patients == tuple(few.patients)
    assert list(record.image_digests) == Fingerprints.of(ImageFingerprint().transform(few.X)).keys()
    assert record == HistoEmbedding(weights).trained_on()
    assert record != HistoEmbedding().trained_on()
    assert [(done, total) for done, total, _ in told] == [(1, 1)]


@pytest.mark.slow
def test_the_recipe_is_on_record(trained, few):
    about = json.loads(trained[0].with_name("histo.json").read_text(encoding="utf-8"))
    recipe = about["recipe"]
    assert (recipe["architecture"], recipe["input_size"], recipe["epochs"]) == ("lite0_small", 96, 1)
    assert (recipe["random_state"], recipe["n_images"]) == (0, 32)
    assert recipe["classes"] == {"0": int((few.y == 0).sum()), "1": int((few.y == 1).sum())}
    assert recipe["augmentation"] == asdict(encoder_training.RECIPE.augmentation)
    assert set(about["files"]) == {"histo.npz", "histo.images.npz"}


def test_the_shipped_weights_were_trained_by_the_recipe_of_the_code(few):
    shipped = HistoEmbedding().trained_on().recipe
    epochs = encoder_training.RECIPE.epochs
    classifier = SimpleNamespace(input_size_=96, history_={"loss": [0.5] * epochs})
    recipe = encoder_training._recipe(classifier, few.X, few.y, 0)
    of_the_data = {"n_images": shipped["n_images"], "classes": shipped["classes"]}
    assert shipped == recipe | of_the_data


@pytest.mark.slow
def test_the_embedding_is_what_the_classifier_sees_before_it_decides(trained, pixels):
    from histofeat.networks import import_keras

    weights, classifier, _ = trained
    keras, network = import_keras(), classifier._network()
    seen = keras.Model(network.input, network.get_layer("standardised").input)
    large = resize_patches(pixels, 96)
    expected = keras.ops.convert_to_numpy(seen(large, training=False))
    for engine in ("keras", "openvino"):
        found = HistoEmbedding(weights, engine=engine, device="cpu").transform(pixels)
        # The file holds half the digits.
        similarity = (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
        assert similarity.min() > 0.9999


@pytest.mark.slow
def test_the_classifier_behind_it_is_saved_and_read(trained, pixels, tmp_path):
    _, classifier, _ = trained
    again = CNNClassifier.load_network(classifier.save_network(tmp_path / "network.keras"))
    np.testing.assert_allclose(again.predict_proba(pixels[:4]), classifier.predict_proba(pixels[:4]), atol=1e-6)


@pytest.mark.long
def test_the_same_seed_gives_the_same_weights(trained, few, pixels, tmp_path):
    again = train_encoder(few.X, few.y, few.patients, tmp_path, dataset="synthetic", epochs=1)
    first, second = (HistoEmbedding(w, engine="keras", device="cpu").transform(pixels) for w in (trained[0], again))
    np.testing.assert_allclose(second, first, rtol=1e-3, atol=1e-4 * np.abs(first).max())
    assert read_record(again, "histo").image_digests == read_record(trained[0], "histo").image_digests


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_histo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def main(script, monkeypatch, tmp_path):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"))
    monkeypatch.chdir(tmp_path)
    return script.main


@pytest.fixture(scope="module")
def tree(few, tmp_path_factory):
    """The patches of the four patients under ids of the official split, two of them test patients."""
    root = tmp_path_factory.mktemp("official") / "idc"
    ids = [next(p for p, role in official_roles().items() if role == wanted) for wanted in ("train", "validation")]
    ids += [p for p, role in official_roles().items() if role == "test"][:2]
    for number, patient in zip(sorted(set(few.patients)), ids, strict=True):
        for old in sorted((few.root / number).rglob("*.png")):
            new = root / patient / old.parent.name / old.name.replace(number, patient)
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(old.read_bytes())
    return root


def test_weights_in_the_output_folder_are_not_replaced(main, tree, tmp_path, capsys):
    (tmp_path / "histo.npz").write_bytes(b"precious")
    assert main(["--data", str(tree), "--output", str(tmp_path)]) == 2
    assert "train.py: --output: expected a folder without weights, got " in capsys.readouterr().err
    assert (tmp_path / "histo.npz").read_bytes() == b"precious"


def test_overwrite_replaces_them(main, script, tree, tmp_path, monkeypatch):
    asked = {}

    def train(X, y, groups, folder, **options):
        asked.update(options, groups=groups, folder=folder)
        return folder / "histo.npz"

    monkeypatch.setattr(script, "train_encoder", train)
    (tmp_path / "histo.npz").write_bytes(b"old")
    words = ["--data", str(tree), "--output", str(tmp_path), "--overwrite", "--epochs", "3", "--seed", "5"]
    assert main([*words, "--n-jobs", "1"]) == 0
    assert len(asked["groups"]) == 16
    assert not {official_roles()[patient] for patient in asked["groups"]} & {"test"}
    assert (asked["epochs"], asked["random_state"], asked["n_jobs"]) == (3, 5, 1)


@pytest.mark.parametrize("above", [False, True])
def test_the_training_side_has_no_official_test_patient(script, tree, above):
    dataset = script.training_side([tree.parent if above else tree])
    assert len(dataset) == 16
    assert {official_roles()[patient] for patient in dataset.patients} == {"train", "validation"}


def test_a_complete_slide_adds_a_few_patches_that_are_not_known_yet(script, tree, tmp_path, monkeypatch):
    few = script.training_side([tree])
    patient = str(few.patients[0])
    shutil.copytree(tree, tmp_path / "half")
    for old in sorted((tmp_path / "half" / patient).rglob("*.png"))[::2]:
        old.unlink()  # four of its eight patches are left in the sample
    whole = script.training_side([tmp_path / "half"], tree)
    assert script.places(whole) == script.places(few)
    monkeypatch.setattr(script, "PER_SLIDE", 3)
    capped = [script.training_side([tmp_path / "half"], tree, random_state=seed) for seed in (0, 0, 2)]
    assert [(one.patients.astype(str) == patient).sum() for one in capped] == [7, 7, 7]
    first, again, other = (script.places(one) for one in capped)
    assert first == again
    assert first != other


def test_patients_of_one_class_take_no_part(script, tree, tmp_path):
    shutil.copytree(tree, tmp_path / "one-sided")
    learnt = sorted(set(script.training_side([tree]).patients.astype(str)))
    shutil.rmtree(tmp_path / "one-sided" / learnt[0] / "1")
    assert set(script.training_side([tmp_path / "one-sided"]).patients.astype(str)) == set(learnt[1:])
    shutil.rmtree(tmp_path / "one-sided" / learnt[1] / "0")
    with pytest.raises(ValueError, match=r"--data: expected patients with patches of both classes, got none. Give"):
        script.training_side([tmp_path / "one-sided"])


@pytest.mark.long
def test_the_command_writes_what_the_package_ships(main, tree, tmp_path, capsys):
    for package in ("keras", "openvino"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    out = tmp_path / "out"
    assert main(["--data", str(tree), "--output", str(out), "--epochs", "1", "--n-jobs", "1"]) == 0
    said = capsys.readouterr().out
    assert "16 patches of 2 patients" in said
    assert "epoch 1 of 1: loss " in said
    names = {"histo.npz", "histo.json", "histo.images.npz"}
    assert {file.name for file in out.iterdir()} == names
    record = HistoEmbedding(out / "histo.npz").trained_on()
    assert {official_roles()[patient] for patient in record.patients} == {"train", "validation"}
    assert set(record.files) == names - {"histo.json"}
