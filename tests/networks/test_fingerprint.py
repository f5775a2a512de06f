"""The fingerprint of a loaded network: fixed, the same in every engine, and refused where a part of it is missing."""

import csv
import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from histofeat.exceptions import WeightsError
from histofeat.networks import ENCODERS, EngineChoice, fingerprint, hash_weights, load_engine, shipped_weights
from histofeat.networks.pretrained import _engines as engines
from histofeat.networks.pretrained._provenance import (
    check_fingerprint,
    known_fingerprints,
    test_image as make_test_image,
)

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "encoder" / "fingerprints.py"
HISTO = ENCODERS["histo"]
USUAL = {"input_size": HISTO.default_size, "pooling": "avg", "precision": "float32"}


class Fixed:
    """An engine that gives one embedding, whatever it sees."""

    def __init__(self, embedding, name="keras"):
        self.embedding, self.name = np.asarray(embedding, dtype=np.float32), name

    def embed(self, pixels, *, batch_size=None):
        return self.embedding[np.newaxis].repeat(len(pixels), axis=0)


EMBEDDING = np.random.default_rng(0).gamma(1.0, 2.0, 128)


def check(engine, cache, *, encoder=HISTO, weights="ab" * 16, **identity):
    check_fingerprint(engine, encoder, weights=weights, identity={**USUAL, "graph": 1, **identity}, cache_dir=cache)


# --- the test image and its numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "digest"), [(50, "f65ffe35a64933cddd57e234061ba9e1"), (128, "0711c467f4fdfc44b1e86eaf20105f70")]
)
def test_the_test_image_is_fixed(size, digest):
    pixels = make_test_image(size)
    assert (pixels.shape, pixels.dtype) == ((1, size, size, 3), np.uint8)
    assert hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest() == digest
    assert pixels.std() > 20


def test_equal_engines_have_equal_fingerprints():
    first, second = (fingerprint(Fixed(EMBEDDING, name), 50) for name in ("keras", "openvino"))
    np.testing.assert_array_equal(first, second)
    assert (first.shape, first.dtype) == ((16,), np.float64)


def test_fingerprint_by_hand():
    signs = np.random.RandomState(1).randint(0, 2, (16, 128)) * 2 - 1
    embedding = EMBEDDING.astype(np.float32).astype(np.float64)
    size = np.sqrt((embedding**2).mean())
    expected = [sum(s * e for s, e in zip(row, embedding, strict=True)) / (np.sqrt(128) * size) for row in signs]
    np.testing.assert_allclose(fingerprint(Fixed(EMBEDDING), 50), expected, rtol=1e-9)


def test_the_unit_of_an_embedding_does_not_matter():
    np.testing.assert_allclose(fingerprint(Fixed(EMBEDDING * 1000), 50), fingerprint(Fixed(EMBEDDING), 50), rtol=1e-5)


@pytest.mark.parametrize("embedding", [np.zeros(128), np.full(128, np.nan), np.where(np.arange(128) == 5, np.inf, 1)])
def test_an_embedding_that_is_none(embedding, tmp_path):
    assert np.isnan(fingerprint(Fixed(embedding), 50)).all()
    match = r"histo: expected a finite embedding of the test image, got none \(weights abab.*Copy|copy"
    with pytest.raises(WeightsError, match=match):
        check(Fixed(embedding), tmp_path)
    assert not list(tmp_path.iterdir())


# --- remembered ------------------------------------------------------------------------------------------------------


def test_the_first_fingerprint_is_remembered_and_another_is_refused(tmp_path):
    check(Fixed(EMBEDDING), tmp_path)
    check(Fixed(EMBEDDING * (1 + 1e-4)), tmp_path)
    half = np.where(np.arange(128) < 64, EMBEDDING, 0)
    away = np.abs(fingerprint(Fixed(half), 50) - fingerprint(Fixed(EMBEDDING), 50)).max()
    match = (
        rf"histo: expected the fingerprint of the test image to be the first one here, got one that is {away:.3f} away "
        r"where rounding explains 0.02 \(weights abab.*, keras\)"
    )
    with pytest.raises(WeightsError, match=match):
        check(Fixed(half), tmp_path)
    check(Fixed(EMBEDDING), tmp_path)  # what was refused was not remembered


def test_what_changes_the_numbers_is_remembered_apart(tmp_path):
    other = EMBEDDING[::-1]
    check(Fixed(EMBEDDING), tmp_path)
    check(Fixed(other), tmp_path, weights="cd" * 16)
    check(Fixed(other), tmp_path, input_size=64)
    check(Fixed(other), tmp_path, pooling="max")
    check(Fixed(other), tmp_path, precision="bfloat16")
    check(Fixed(other), tmp_path, graph=2)
    check(Fixed(other, "openvino"), tmp_path)
    check(Fixed(other), tmp_path, encoder=ENCODERS["resnet50"])
    assert len(list((tmp_path / "fingerprints").iterdir())) == 8


def test_bfloat16_may_differ_more(tmp_path):
    rough = EMBEDDING * (1 + np.random.default_rng(1).normal(0, 0.1, 128))
    check(Fixed(EMBEDDING), tmp_path)
    with pytest.raises(WeightsError, match=r"rounding explains 0.02"):
        check(Fixed(rough), tmp_path)
    check(Fixed(EMBEDDING), tmp_path, precision="bfloat16")
    check(Fixed(rough), tmp_path, precision="bfloat16")
    with pytest.raises(WeightsError, match=r"rounding explains 0.35"):
        check(Fixed(EMBEDDING[::-1]), tmp_path, precision="bfloat16")


def test_the_slash_of_a_hub_name_makes_no_folder(tmp_path):
    from dataclasses import replace

    check(Fixed(EMBEDDING), tmp_path, encoder=replace(HISTO, name="hf-hub:owner/model"))
    assert [path.suffix for path in (tmp_path / "fingerprints").iterdir()] == [".json"]


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b'{"a": 1}', b"[null]", b"\xff"])
def test_a_damaged_memory_is_written_anew(tmp_path, content):
    check(Fixed(EMBEDDING), tmp_path)
    (path,) = (tmp_path / "fingerprints").iterdir()
    path.write_bytes(content)
    check(Fixed(EMBEDDING), tmp_path)
    assert json.loads(path.read_text()) == pytest.approx(fingerprint(Fixed(EMBEDDING), 50), abs=1e-6)


def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    check(Fixed(EMBEDDING), blocked)
    check(Fixed(EMBEDDING[::-1]), blocked)  # nothing to compare with
    assert blocked.read_text() == "no folder"


# --- known -----------------------------------------------------------------------------------------------------------


def known_of_histo():
    return known_fingerprints()["histo", hash_weights(shipped_weights(HISTO)), HISTO.default_size, "avg"]


def test_the_shipped_weights_are_known():
    assert np.isfinite(known_of_histo()).all()
    assert {name for name, *_ in known_fingerprints()} <= set(ENCODERS)
    assert all(values.shape == (16,) and np.isfinite(values).all() for values in known_fingerprints().values())


def test_known_fingerprints_are_far_from_one_another():
    """Of networks, that is: stages, whose maps have many cells, change little with the size of the input."""
    values, names = np.stack(list(known_fingerprints().values())), np.array([key[0] for key in known_fingerprints()])
    apart = np.abs(values[:, None] - values[None]).max(axis=2)
    assert apart[names[:, None] != names].min() > 0.35
    assert apart[np.triu_indices(len(values), 1)].min() > 0.2


def test_an_engine_with_other_numbers_than_the_known_ones_is_refused(tmp_path):
    weights = hash_weights(shipped_weights(HISTO))
    with pytest.raises(WeightsError, match=r"histo: .*to be the one that histofeat knows, got one that is"):
        check(Fixed(EMBEDDING), tmp_path, weights=weights)
    assert not list(tmp_path.iterdir())  # known: nothing to remember


@pytest.fixture(scope="module")
def by_keras():
    pytest.importorskip("keras", reason="keras is not installed")
    return engines.KerasEngine(HISTO, shipped_weights(HISTO), device="cpu", **USUAL)


def test_keras_and_openvino_have_the_known_fingerprint(by_keras):
    pytest.importorskip("openvino", reason="openvino is not installed")
    by_openvino = load_engine(
        HISTO, shipped_weights(HISTO), EngineChoice("openvino", "cpu", ""), input_size=HISTO.default_size
    )
    first, second = (fingerprint(engine, HISTO.default_size) for engine in (by_keras, by_openvino))
    np.testing.assert_allclose(first, second, atol=1e-4)
    np.testing.assert_allclose(first, known_of_histo(), atol=1e-3)


@pytest.fixture
def damaged(by_keras):
    """Give the network with some of its arrays changed, and put it right again."""
    model, arrays = by_keras._model, by_keras._model.get_weights()

    def change(rows, how):
        rng = np.random.default_rng(0)
        made = {"zeroed": np.zeros_like, "random": lambda a: rng.normal(0, a.std() or 1, a.shape).astype(a.dtype)}
        model.set_weights([made[how](a) if row in rows else a for row, a in enumerate(arrays)])
        return by_keras

    yield change
    model.set_weights(arrays)


def kernels(engine):
    return [row for row, array in enumerate(engine._model.get_weights()) if array.ndim == 4]


@pytest.mark.parametrize("how", ["zeroed", "random"])
def test_every_layer_of_the_network_counts(damaged, by_keras, tmp_path, how):
    weights = hash_weights(shipped_weights(HISTO))
    assert len(kernels(by_keras)) == 24
    for row in kernels(by_keras):
        with pytest.raises(WeightsError, match=r"histo: expected the fingerprint .*histofeat knows.*loaded in part"):
            check(damaged([row], how), tmp_path, weights=weights)
    check(damaged([], how), tmp_path, weights=weights)


def test_half_a_network_is_refused_by_name(damaged, by_keras, tmp_path):
    half = kernels(by_keras)[len(kernels(by_keras)) // 2 :]
    weights = hash_weights(shipped_weights(HISTO))
    with pytest.raises(WeightsError, match=r"^histo: expected the fingerprint .*one that histofeat knows"):
        check(damaged(half, "random"), tmp_path, weights=weights)


def test_a_network_that_loads_in_part_is_refused(by_keras, tmp_path, monkeypatch):
    """Through `load_engine`: first as it should be, under weights that nobody knows, then with a layer left out."""
    mine = tmp_path / "mine.npz"
    with np.load(shipped_weights(HISTO)) as arrays:
        np.savez_compressed(mine, **arrays)  # another content hash

    class Forgetful(engines.KerasEngine):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            layer = next(layer for layer in self._model._flatten_layers() if layer.name == "block_02_expand")
            layer.kernel.assign(layer.kernel * 0)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def load():
        monkeypatch.setattr(engines, "_loaded", type(engines._loaded)())
        choice = EngineChoice("keras", "cpu", "")
        return load_engine(HISTO, mine, choice, input_size=HISTO.default_size)

    assert load().name == "keras"
    monkeypatch.setattr(engines, "KerasEngine", Forgetful)
    with pytest.raises(WeightsError, match=rf"histo: .*the first one here.*{hash_weights(mine)}, keras"):
        load()
    assert not engines._loaded


# --- the file of the known ones --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("encoder_fingerprints", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_is_what_the_script_writes(script, by_keras, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "TABLE", tmp_path / "fingerprints.csv")
    monkeypatch.delenv("HISTOFEAT_WEIGHTS", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert script.main([]) == 0
    assert "fingerprints.csv: 2 fingerprints" in capsys.readouterr().out
    with (tmp_path / "fingerprints.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        key = (row["encoder"], row["weights"], int(row["input_size"]), row["pooling"])
        values = [float(row[f"value_{k:02d}"]) for k in range(16)]
        np.testing.assert_allclose(values, known_fingerprints()[key], atol=1e-3)


@pytest.mark.long
def test_real_weights_are_known(script, real_weights):
    rows = [row for row in script.fingerprints(real_weights) if row[0] != "histo"]
    assert rows
    for name, weights, size, pooling, *values in rows:
        np.testing.assert_allclose(values, known_fingerprints()[name, weights, size, pooling], atol=1e-3)
