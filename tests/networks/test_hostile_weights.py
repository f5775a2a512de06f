"""Hostile and damaged weights, networks and checkpoints: refused by a sentence before they take memory."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from histofeat.datasets import check_hdf5, read_array, read_members
from histofeat.exceptions import WeightsError
from histofeat.networks import CheckpointError, CNNClassifier
from histofeat.networks._network_files import State, read_state, write_state

LARGE = 2**26 + 1


def packed(members, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


# --- arrays and archives ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("array", [np.arange(6).reshape(2, 3), np.array(["a", "bc"]), np.zeros((0, 3)), np.array(2.5)])
def test_arrays_come_back(array):
    found = read_array(npy(array))
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(np.zeros(30)).replace(b"(30,)", b"(31,)"), r"bytes are not an array of shape \(31,\) and type float64"),
        (npy(np.zeros(30)).replace(b"(30,)", b"(10**9,)"), "malformed node"),
        (npy(np.zeros(30)).replace(b"(30,)", b"((30,)"), "the header of an array is damaged"),
        (b"\x93NUMPY\x01\x00v\x00" + b"{" * 118, "damaged|Cannot parse"),
        (b"", "EOF|magic"),
    ],
)
def test_an_array_that_is_not_what_its_header_says_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        read_array(content)


def test_an_array_of_objects_is_refused_before_pickle_sees_it():
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"bytes are not an array of shape"):
        read_array(buffer.getvalue())


def test_an_archive_is_looked_at_before_it_is_read(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(packed({"a": b"1" * 100, "b": b""}))
    assert read_members(path) == read_members(path.read_bytes()) == {"a": b"1" * 100, "b": b""}
    with pytest.raises(zipfile.BadZipFile, match=r"100 bytes are packed into .*, more than the 99 allowed"):
        read_members(path, 99)
    with pytest.raises(zipfile.BadZipFile, match="67,108,865 bytes are packed into"):
        read_members(packed({"a": bytes(LARGE)}))
    with pytest.raises(zipfile.BadZipFile, match="'a' is packed in another way"):
        read_members(packed({"a": b"1"}, zipfile.ZIP_BZIP2))


# --- weights ---------------------------------------------------------------------------------------------------------


def written(path, change):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.create_group("layers")["kernel"] = np.arange(4.0)
        change(h5py, file)
    return path


CHANGES = {
    "compressed": lambda h5py, file: file.create_dataset("a", data=np.zeros(LARGE // 8), compression="gzip"),
    "never written": lambda h5py, file: file.create_dataset("a", shape=(10**12,), chunks=(1000,)),
    "another file": lambda h5py, file: file.__setitem__("a", h5py.ExternalLink("/etc/passwd", "/")),
    "soft link": lambda h5py, file: file.__setitem__("a", h5py.SoftLink("/layers")),
    "external": lambda h5py, file: file.create_dataset("a", (4,), "u1", external=[("/etc/hostname", 0, 4)]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_are_too_large_or_elsewhere_are_refused(change, tmp_path):
    path = written(tmp_path / "w.weights.h5", CHANGES[change])
    with pytest.raises(ValueError, match=r"its arrays unpack to .* bytes, or lie in another file"):
        check_hdf5(path, path.stat().st_size)


def test_weights_as_keras_writes_them_are_accepted(tmp_path):
    path = written(tmp_path / "w.weights.h5", lambda h5py, file: None)
    check_hdf5(path, path.stat().st_size)


ABOUT = {
    "version": 2,
    "params": {**CNNClassifier("cancernet").get_params(deep=False), "recipe": "paper"},
    "fitted": {
        "classes_": [0, 1], "history_": {}, "best_epoch_": 0, "validation_rows_": [], "validation_proba_": [],
        "skipped_": [], "notes_": [], "input_size_": 50, "patch_side_": 50,
        "_built_as": {"architecture": "cancernet", "precision": "float32", "fine_tuned": False},
    },
}  # fmt: skip


def network(about):
    text = json.dumps(about, default=str) if isinstance(about, dict) else about
    return packed({"histofeat.json": text, "model.weights.h5": b"\x89HDF" + bytes(2000)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (packed({"model.weights.h5": bytes(LARGE)}), r"damaged file \(BadZipFile: 67,108,865 bytes are packed into"),
        (network("[" * 10**5), r"got another or a damaged file \(RecursionError: maximum recursion depth"),
        (network("[1]"), "got another or a damaged file"),
        (network({"version": 2}), r"got another or a damaged file \(KeyError: 'params'"),
        (network({**ABOUT, "params": []}), "got another or a damaged file"),
        (
            network({**ABOUT, "fitted": {**ABOUT["fitted"], "classes_": list(range(99))}}),
            "too few for 99 classes at 50",
        ),
        (network({**ABOUT, "fitted": {**ABOUT["fitted"], "input_size_": 9999}}), "too few for 2 classes at 9,999 px"),
        (network({**ABOUT, "fitted": {**ABOUT["fitted"], "input_size_": "9"}}), "input_size_: expected a whole number"),
    ],
)
def test_a_network_that_is_too_large_or_makes_no_sense_is_refused_before_it_is_built(content, message, tmp_path):
    path = tmp_path / "n.keras"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"n\.keras: expected a network that .*{message}"):
        CNNClassifier.load_network(path)


# --- checkpoints -----------------------------------------------------------------------------------------------------


def state(tmp_path, **values):
    about = {"epoch": 1, "history": {"loss": [0.5]}, "best_epoch": 0, "variables": [np.arange(3.0)]} | values
    write_state(tmp_path, State(**about), {"data": "a"})
    return tmp_path / "training.npz"


def test_a_checkpoint_comes_back(tmp_path):
    state(tmp_path)
    found = read_state(tmp_path, {"data": "a"})
    assert (found.epoch, found.history, found.variables[0].tolist()) == (1, {"loss": [0.5]}, [0.0, 1.0, 2.0])


def about_of(path, change):
    members = read_members(path)
    about = change(read_array(members["about.npy"]).tobytes())
    return packed(members | {"about.npy": npy(np.frombuffer(about, dtype=np.uint8))}, zipfile.ZIP_STORED)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: packed({"about.npy": bytes(LARGE)}), "67,108,865 bytes are packed into"),
        (lambda path: about_of(path, lambda text: b"[" * 10**5), "maximum recursion depth"),
        (lambda path: about_of(path, lambda text: b"[]"), "cannot be read"),
        (lambda path: about_of(path, lambda text: text.replace(b'"epoch"', b'"epochs"')), "unexpected keyword"),
        (
            lambda path: about_of(path, lambda text: text.replace(b'"epoch": 1', b'"epoch": 9')),
            "9 epochs that do not fit",
        ),
        (
            lambda path: about_of(path, lambda text: text.replace(b'"epoch": 1', b'"epoch": []')),
            "not supported between",
        ),
        (lambda path: path.read_bytes()[:-30], "not a zip file"),
        (lambda path: b"", "not a zip file"),
    ],
)
def test_a_checkpoint_that_is_too_large_or_makes_no_sense_is_refused_and_left(change, message, tmp_path):
    path = Path(state(tmp_path))
    path.write_bytes(change(path))
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=rf"training\.npz: expected a checkpoint of histofeat, .*{message}"):
        read_state(tmp_path, {"data": "a"})
    assert path.read_bytes() == before
