"""Checkpoints: what is interrupted goes on as if it had not been; what is another's is refused and left alone."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from histofeat import CNNClassifier
from histofeat.images import as_images
from histofeat.networks import CheckpointError, Recipe, _architectures as architectures
from histofeat.networks._network_files import State, hash_data, read_state, write_state

SIDE = 12
RECIPE = Recipe(learning_rate=0.02, batch_size=16, epochs=4, averaging=0.9)
RNG = np.random.default_rng(0)
CODES = RNG.integers(0, 2, 120)
PATIENTS = np.arange(120) % 8
X = np.clip(RNG.normal(140, 35, (120, SIDE, SIDE, 3)) + CODES[:, None, None, None] * 25, 0, 255).astype(np.uint8)


class Stopped(Exception):
    """What a test ends a training with."""


@pytest.fixture(scope="module", autouse=True)
def _small_network():
    """One convolution in the place of CancerNet's six, dropout and normalisation with it."""

    def small(keras, pixels):
        layers = keras.layers
        x = layers.Conv2D(8, 3, activation="relu")(layers.Rescaling(1 / 255, dtype="float32")(pixels))
        return layers.Dropout(0.25)(layers.GlobalAveragePooling2D()(layers.BatchNormalization()(x)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(architectures._OWN, "cancernet", small)
        yield


def make(checkpoint=None, **params):
    settings = {"recipe": RECIPE, "input_size": SIDE, "validation_fraction": 0.3} | params
    return CNNClassifier("cancernet", checkpoint=checkpoint, **settings)


def stop_after(epoch):
    def progress(done, total, values):
        if done == epoch:
            raise Stopped

    return progress


@pytest.fixture(scope="module")
def whole():
    pytest.importorskip("keras", reason="Keras is not installed: no network to train")
    return make().fit(X, CODES, groups=PATIENTS)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, whole):
    """A folder with the state of a training that was stopped after its second epoch."""
    folder = tmp_path_factory.mktemp("stopped") / "a" / "checkpoint"
    with pytest.raises(Stopped):
        make(folder, progress=stop_after(2)).fit(X, CODES, groups=PATIENTS)
    return folder


def copy_of(stopped, tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "training.npz").write_bytes((stopped / "training.npz").read_bytes())
    return folder


def test_what_is_stopped_goes_on_as_if_it_had_not_been(whole, stopped, tmp_path):
    folder, told = copy_of(stopped, tmp_path), []
    model = make(folder, progress=lambda done, *_: told.append(done)).fit(X, CODES, groups=PATIENTS)
    assert told == [3, 4]
    for name, values in whole.history_.items():
        if name != "seconds":
            assert model.history_[name] == values, name
    assert model.best_epoch_ == whole.best_epoch_
    assert all(np.array_equal(a, b) for a, b in zip(model.weights_, whole.weights_, strict=True))
    assert np.array_equal(model.validation_proba_, whole.validation_proba_)
    assert sorted(file.name for file in folder.iterdir()) == ["training.npz"]

    again = make(folder, progress=stop_after(1)).fit(X, CODES, groups=PATIENTS)
    assert again.history_ == model.history_
    assert np.array_equal(again.validation_proba_, model.validation_proba_)


@pytest.mark.long
def test_two_stages_go_on_in_the_stage_they_were_in(tmp_path, monkeypatch):
    """The second stage of a resumed training begins with its own schedule, from the weights of the first."""
    from histofeat.networks import _training as training
    from histofeat.networks._settings import Settings

    stages = property(lambda self: (("head", 1, 0.02), ("all", 3, 0.01)))
    monkeypatch.setattr(Settings, "stages", stages)
    entered = []
    enter = training.Training._enter
    monkeypatch.setattr(
        training.Training, "_enter", lambda self, *stage: entered.append(stage[0]) or enter(self, *stage)
    )
    one = make().fit(X, CODES, groups=PATIENTS)
    assert entered == ["head", "all"]
    with pytest.raises(Stopped):
        make(tmp_path, progress=stop_after(1)).fit(X, CODES, groups=PATIENTS)
    two = make(tmp_path).fit(X, CODES, groups=PATIENTS)
    assert entered == ["head", "all", "head", "head", "all"]
    assert one.history_["loss"] == two.history_["loss"]
    assert all(np.array_equal(a, b) for a, b in zip(one.weights_, two.weights_, strict=True))
    assert max(one.history_["learning_rate"][1:]) <= 0.01 < one.history_["learning_rate"][0]


OTHERS = {
    "data set": ({}, (255 - X, CODES, PATIENTS)),
    "data set ": ({}, (X, CODES, [f"p{patient}" for patient in PATIENTS])),
    "data set  ": ({}, (X, np.where(CODES, "b", "a"), PATIENTS)),
    "architecture": ({"architecture": "resnet_small", "input_size": 16}, (X, CODES, PATIENTS)),
    "epochs": ({"epochs": 5}, (X, CODES, PATIENTS)),
    "input size": ({"input_size": 14}, (X, CODES, PATIENTS)),
    "augmentation": ({"recipe": replace(RECIPE, augmentation=None)}, (X, CODES, PATIENTS)),
    "random state": ({"random_state": 1}, (X, CODES, PATIENTS)),
    "class weight": ({"class_weight": {0: 1, 1: 2}}, (X, CODES, PATIENTS)),
    "held-out patches": ({"validation_fraction": 0.5}, (X, CODES, PATIENTS)),
    "patience": ({"recipe": replace(RECIPE, patience=2)}, (X, CODES, PATIENTS)),
}


@pytest.mark.parametrize("field", OTHERS)
def test_another_training_is_refused_and_the_checkpoint_stays(stopped, field):
    params, data = OTHERS[field]
    before = (stopped / "training.npz").read_bytes()
    pattern = rf"training.npz: expected a checkpoint of this training, got .*{field.strip()}.*It was left as it is"
    with pytest.raises(CheckpointError, match=pattern):
        make(stopped).set_params(**params).fit(data[0], data[1], groups=data[2])
    assert (stopped / "training.npz").read_bytes() == before


def test_what_does_not_change_a_training_may_change(stopped, tmp_path):
    folder = copy_of(stopped, tmp_path)
    model = make(folder, recipe=replace(RECIPE, on_unreadable="skip"), n_jobs=2, views=8).fit(
        list(X), CODES.tolist(), groups=PATIENTS
    )
    assert len(model.history_["loss"]) == 4


@pytest.mark.parametrize("keep", [0, 100, -200])
def test_a_damaged_checkpoint_is_refused_and_stays(stopped, tmp_path, keep):
    folder = copy_of(stopped, tmp_path)
    file = folder / "training.npz"
    content = file.read_bytes()[:keep]
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"training.npz: expected a checkpoint of histofeat, got a file that can"):
        make(folder).fit(X, CODES, groups=PATIENTS)
    assert file.read_bytes() == content


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"checkpoint: .*file.*: expected a place that can be written, got"):
        write_state(tmp_path / "file", State(), {})


def test_a_field_in_the_path_gives_each_fit_a_folder(tmp_path, whole):
    for codes in (CODES, 1 - CODES):
        make(tmp_path / "run-{fit}", epochs=1).fit(X, codes, groups=PATIENTS)
    assert len(list(tmp_path.glob("run-*/training.npz"))) == 2
    make(tmp_path / "run-{fit}", epochs=1, progress=stop_after(1)).fit(X, CODES, groups=PATIENTS)


def test_a_state_comes_back_as_it_was(tmp_path):
    state = State(epoch=2, history={"loss": [0.5, float("nan")]}, unreadable=[3], kept=[np.arange(3.0)])
    state.variables, state.optimizer = [np.float32([[1, 2]]), np.uint32([7, 8])], [np.int64(4)]
    assert read_state(tmp_path / "none", {"a": 1}) is None
    write_state(tmp_path, state, {"a": 1})
    back = read_state(tmp_path, {"a": 1})
    assert (back.epoch, back.finished, back.unreadable, back.best_epoch) == (2, False, [3], -1)
    assert np.isnan(back.history["loss"][1])
    for mine, its in zip(state.variables + state.optimizer, back.variables + back.optimizer, strict=True):
        assert np.array_equal(mine, its)
        assert mine.dtype == its.dtype


def test_a_write_that_fails_leaves_the_last_state(tmp_path, monkeypatch):
    write_state(tmp_path, State(epoch=1), {})

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        write_state(tmp_path, State(epoch=2), {})
    assert read_state(tmp_path, {}).epoch == 1


def test_the_hash_is_of_contents_labels_and_patients_in_order(tmp_path):
    base = hash_data(as_images(X), CODES, PATIENTS)
    assert base == hash_data(as_images(list(X)), CODES.tolist(), [str(patient) for patient in PATIENTS])
    assert base != hash_data(as_images(X[::-1]), CODES, PATIENTS)
    assert base != hash_data(as_images(X), 1 - CODES, PATIENTS)
    assert base != hash_data(as_images(X), CODES, None)
    assert hash_data(as_images([tmp_path / "a.png"]), [0], None) != hash_data(
        as_images([tmp_path / "b.png"]), [0], None
    )


#: A training that kills its own process while it learns from epoch 4, if it is given a number of images to read first.
SCRIPT = """
import os, signal, sys
import numpy as np
from histofeat import CNNClassifier
from histofeat.images import Images
from histofeat.networks import Recipe

result, folder, left = sys.argv[1], sys.argv[2] or None, int(sys.argv[3])
rng = np.random.default_rng(0)
codes = rng.integers(0, 2, 90)
X = np.clip(rng.normal(140, 35, (90, 16, 16, 3)) + codes[:, None, None, None] * 25, 0, 255).astype("uint8")
done = []

class Mortal(Images):
    def decode(self, index, content):
        global left
        if len(done) == 3 and left:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().decode(index, content)

recipe = Recipe(learning_rate=0.01, batch_size=8, epochs=5, averaging=0.9)
model = CNNClassifier("cancernet", recipe=recipe, input_size=16, validation_fraction=0.3, checkpoint=folder,
                      progress=lambda epoch, *_: done.append(epoch))
if os.environ["KERAS_BACKEND"] == "torch":
    import torch
    before = torch.get_rng_state()
model.fit(Mortal(X, on_disk=False), codes, groups=np.arange(90) % 6)
if os.environ["KERAS_BACKEND"] == "torch" and done[-1] == 5:
    assert torch.equal(before, torch.get_rng_state())
history = [values for name, values in sorted(model.history_.items()) if name != "seconds"]
np.savez(result, *model.weights_, history=history, proba=model.validation_proba_, epochs=done)
"""


@pytest.mark.long
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path, backend):
    """Dropout, batch normalisation and averaged weights: SIGKILL in an epoch leaves no trace in the result."""
    pytest.importorskip("keras", reason="Keras is not installed")
    pytest.importorskip(backend, reason=f"{backend} is not installed: no such backend of Keras")
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    # With one thread, sums are added up in one order.
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1")
    environment |= {"KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": ""}

    def train(name, folder="", images=0):
        command = [sys.executable, str(script), str(tmp_path / f"{name}.npz"), folder, str(images)]
        return subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)

    folder = str(tmp_path / "checkpoint")
    killed = train("killed", folder, 45)  # of the 63 patches of an epoch
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    for name, where in (("resumed", folder), ("alone", "")):
        ended = train(name, where)
        assert ended.returncode == 0, ended.stderr
    with np.load(tmp_path / "resumed.npz") as resumed, np.load(tmp_path / "alone.npz") as alone:
        assert resumed["epochs"].tolist() == [4, 5]
        assert alone["epochs"].tolist() == [1, 2, 3, 4, 5]
        for name in set(alone.files) - {"epochs"}:
            assert np.array_equal(resumed[name], alone[name]), name
