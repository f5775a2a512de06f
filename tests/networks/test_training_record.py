"""The record beside the weights of a trained encoder: written and read, and refused where it does not fit them."""

import json

import numpy as np
import pytest

from histofeat.exceptions import WeightsError
from histofeat.networks import TrainingRecord, hash_weights, read_record, write_record
from histofeat.networks.pretrained._provenance import VERSION, record_path

DIGESTS = tuple(bytes([k]) * 16 for k in (0, 10, 255))
RECORD = TrainingRecord("histo", "made up", ("7", "7", "eight"), DIGESTS, {"epochs": 1, "classes": {"0": 2, "1": 1}})


@pytest.fixture
def weights(tmp_path):
    """A file that stands for weights, another of the same name beside it, and their record."""
    path = tmp_path / "histo.npz"
    path.write_bytes(b"weights" * 100)
    (tmp_path / "histo.txt").write_bytes(b"more")
    (tmp_path / "MODEL_CARD.md").write_bytes(b"words")
    write_record(RECORD, path)
    return path


def change(weights, **values):
    """Change values of the record; None takes one out."""
    path = record_path(weights)
    about = json.loads(path.read_text(encoding="utf-8")) | values
    path.write_text(json.dumps({k: v for k, v in about.items() if v is not None}), encoding="utf-8")


def admit(weights, name):
    """Give the record the hash of a file as it is now, as if it had been written for it."""
    about = json.loads(record_path(weights).read_text(encoding="utf-8"))
    change(weights, files=about["files"] | {name: hash_weights(weights.with_name(name))})


# --- written and read ------------------------------------------------------------------------------------------------


def test_what_is_written_is_read(weights):
    found = read_record(weights, "histo")
    assert (found.encoder, found.dataset) == ("histo", "made up")
    assert found.patients == RECORD.patients
    assert found.image_digests == DIGESTS
    assert found.digests == frozenset(DIGESTS)
    assert found.n_patients == 2
    assert found.recipe == RECORD.recipe


def test_the_record_names_every_file_of_its_weights_and_no_other(weights):
    names = ("histo.images.npz", "histo.npz", "histo.txt")
    assert dict(read_record(weights, "histo").files) == {n: hash_weights(weights.with_name(n)) for n in names}


def test_writing_again_replaces_the_record(weights):
    weights.write_bytes(b"others")
    write_record(TrainingRecord("histo", "another", ("1",), DIGESTS[:1]), weights)
    found = read_record(weights, "histo")
    assert (found.dataset, found.n_patients, found.image_digests) == ("another", 1, DIGESTS[:1])
    assert found.files["histo.npz"] == hash_weights(weights)


def test_the_record_can_be_read_by_people(weights):
    about = json.loads(record_path(weights).read_text(encoding="utf-8"))
    assert (about["n_patients"], about["n_images"], about["recipe"]["epochs"]) == (2, 3, 1)


def test_weights_without_a_record_say_nothing(tmp_path):
    (tmp_path / "mine.npz").write_bytes(b"weights")
    assert read_record(tmp_path / "mine.npz", "histo") is None


@pytest.mark.parametrize("name", ["histo.npz", "histo.weights.h5", "histo.h5"])
def test_where_the_record_is(tmp_path, name):
    assert record_path(tmp_path / name) == tmp_path / "histo.json"


def test_digests_and_names_do_not_make_the_repr_long():
    assert "eight" not in repr(RECORD)
    assert len(repr(RECORD)) < 300


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("content", "error"), [
    (b'{"encoder": "his', "JSONDecodeError"),
    (b"\xff\xfe", "UnicodeDecodeError"),
    (b'{"encoder": "histo", "version": 1}', "KeyError"),
    (b"[]", "TypeError"),
    (b'{"encoder": "histo", "version": 1, "files": 3}', "TypeError"),
])  # fmt: skip
def test_unreadable_record(weights, content, error):
    record_path(weights).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"histo.json: expected the record of an encoder's training, got {error}"):
        read_record(weights, "histo")


def test_record_of_another_encoder(weights):
    match = r"histo.json: expected the record of 'other', got that of 'histo'. Give encoder='histo'"
    with pytest.raises(WeightsError, match=match):
        read_record(weights, "other")


@pytest.mark.parametrize("version", [VERSION + 1, VERSION - 1, "1"])
def test_record_of_another_version(weights, version):
    change(weights, version=version)
    match = rf"histo.json: expected weights of version {VERSION} of 'histo', got version {version}"
    with pytest.raises(WeightsError, match=match):
        read_record(weights, "histo")


@pytest.mark.parametrize("name", ["histo.npz", "histo.txt", "histo.images.npz"])
def test_missing_file(weights, name):
    weights.with_name(name).unlink()
    with pytest.raises(WeightsError, match=rf"{name}: expected a file that histo.json names, got none"):
        read_record(weights, "histo")


@pytest.mark.parametrize("name", ["histo.npz", "histo.txt", "histo.images.npz"])
def test_truncated_file(weights, name):
    file = weights.with_name(name)
    before = hash_weights(file)
    file.write_bytes(file.read_bytes()[:-1])
    match = rf"{name}: expected the content {before}, got {file.stat().st_size:,} bytes of content .*: truncated"
    with pytest.raises(WeightsError, match=match):
        read_record(weights, "histo")


def test_exchanged_file(weights):
    weights.write_bytes(b"strange" * 100)
    with pytest.raises(WeightsError, match=r"histo.npz: expected the content .*another network's"):
        read_record(weights, "histo")


@pytest.mark.parametrize(("content", "error"), [
    (b"", "BadZipFile"),
    (b"no archive", "BadZipFile"),
    (b"PK\x03\x04 and nothing else", "BadZipFile"),
])  # fmt: skip
def test_images_that_cannot_be_read(weights, content, error):
    weights.with_name("histo.images.npz").write_bytes(content)
    admit(weights, "histo.images.npz")
    match = rf"histo.images.npz: expected the images that histo was trained on, got {error}"
    with pytest.raises(WeightsError, match=match):
        read_record(weights, "histo")


def test_images_without_digests(weights):
    np.savez(weights.with_name("histo.images.npz"), patients=np.array(["7"]))
    admit(weights, "histo.images.npz")
    with pytest.raises(WeightsError, match=r"images that histo was trained on, got KeyError"):
        read_record(weights, "histo")


def test_images_that_the_record_does_not_name(weights):
    weights.with_name("histo.images.npz").unlink()
    change(weights, files={"histo.npz": hash_weights(weights)})
    with pytest.raises(WeightsError, match=r"images that histo was trained on, got FileNotFoundError"):
        read_record(weights, "histo")
