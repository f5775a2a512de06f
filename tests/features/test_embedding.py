"""CNNEmbedding: patches to squares, squares to embeddings; no network held, none needed before a patch comes."""

import pickle
import warnings

import cv2
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_sample_image

from histofeat.exceptions import WeightsError
from histofeat.features import CNNEmbedding, PatchBatch, resize_patches
from histofeat.networks import ENCODERS, EngineChoice, hash_weights


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    keras = pytest.importorskip("keras", reason="keras is not installed")
    path = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras.utils.set_random_seed(0)
        model = keras.applications.MobileNet(alpha=0.25, include_top=False, weights=None, input_shape=(64, 64, 3))
        model.save_weights(path)
    return path


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


def small(weights, **params):
    return CNNEmbedding("mobilenet_0.25", weights=weights, **{"input_size": 64, **params})


# --- patches to squares


def test_square_of_the_right_size_is_left_alone():
    rgb = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_patches(rgb, 64), rgb)


@pytest.mark.parametrize(("side", "interpolation"), [(50, cv2.INTER_LINEAR_EXACT), (200, cv2.INTER_AREA)])
def test_interpolation_by_direction(side, interpolation):
    rgb = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    expected = [cv2.resize(patch, (96, 96), interpolation=interpolation) for patch in rgb]
    np.testing.assert_array_equal(resize_patches(rgb, 96), expected)


def test_shrinking_does_not_alias():
    board = (np.indices((128, 128)).sum(axis=0) % 2 * 255).astype(np.uint8)
    shrunk = resize_patches(board[np.newaxis, ..., np.newaxis].repeat(3, axis=-1), 64)
    assert set(np.unique(shrunk)) <= {127, 128}


def test_odd_patch_is_mirrored_to_a_square():
    patch = np.arange(6, dtype=np.uint8).reshape(1, 2, 3, 1).repeat(3, axis=-1)
    expected = np.array([[0, 1, 2], [3, 4, 5], [3, 4, 5]])
    np.testing.assert_array_equal(resize_patches(patch, 3)[0, ..., 0], expected)


@pytest.mark.parametrize("shape", [(1, 1), (50, 1), (1, 50), (46, 70)])
def test_any_size(shape):
    patch = np.full((2, *shape, 3), 77, dtype=np.uint8)
    resized = resize_patches(patch, 64)
    assert resized.shape == (2, 64, 64, 3)
    assert (resized == 77).all()


# --- parameters


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"encoder": "resnet"}, r"CNNEmbedding.encoder: .*got 'resnet'. Did you mean 'resnet50'"),
        ({"weights": None}, r"CNNEmbedding.weights: expected 'imagenet' or a path, got None"),
        ({"weights_dir": 3}, r"CNNEmbedding.weights_dir: expected None or a path, got 3"),
        ({"input_size": 32}, r"CNNEmbedding.input_size: expected a whole number from 64 to 2048, got 32"),
        ({"input_size": 4096}, r"CNNEmbedding.input_size: expected a whole number from 64 to 2048, got 4096"),
        ({"input_size": 96.0}, r"CNNEmbedding.input_size: .*got 96.0"),
        ({"batch_size": 0}, r"CNNEmbedding.batch_size: expected a whole number of at least 1, got 0"),
        ({"batch_size": True}, r"CNNEmbedding.batch_size: .*got True"),
        ({"n_threads": -1}, r"CNNEmbedding.n_threads: .*at least 1, got -1"),
        ({"engine": "tf"}, r"CNNEmbedding.engine: expected one of auto, keras, openvino, torch, got 'tf'"),
        ({"precision": "half"}, r"CNNEmbedding.precision: expected one of float32, bfloat16, got 'half'"),
        ({"pooling": None}, r"CNNEmbedding.pooling: expected one of avg, max, avg_std, got None"),
        ({"device": "cuda"}, r"CNNEmbedding.device: expected None, 'cpu', 'gpu' or 'gpu:<number>', got 'cuda'"),
        ({"engine": "openvino", "device": "gpu"}, r"CNNEmbedding.device: .*with engine='openvino', got 'gpu'"),
    ],
)
def test_bad_parameters(patches, params, message):
    embedding = CNNEmbedding(**params)
    for use in (embedding.fit, embedding.transform, embedding.get_feature_names_out):
        with pytest.raises(ValueError, match=message):
            use(patches)


def test_names_and_fit_need_no_weights(patches, tmp_path):
    embedding = CNNEmbedding("mobilenetv2_0.35", weights=tmp_path / "none.h5").fit(patches)
    names = embedding.get_feature_names_out()
    assert len(names) == embedding.n_features_out_ == 1280
    assert (names[0], names[-1]) == ("cnn_mobilenetv2_0.35_0000", "cnn_mobilenetv2_0.35_1279")
    with pytest.raises(WeightsError, match=r"none.h5: expected a file of mobilenetv2_0.35 weights"):
        embedding.transform(patches)
    with pytest.raises(WeightsError, match=r"none.h5"):
        embedding.weights_hash()


@pytest.mark.parametrize("name", ENCODERS)
def test_default_size_is_allowed(name):
    assert ENCODERS[name].default_size >= ENCODERS[name].minimum_size
    assert CNNEmbedding(name)._size() == ENCODERS[name].default_size


# --- embeddings


def test_the_estimator_holds_no_network(weights, patches):
    embedding = small(weights)
    before = embedding.fit_transform(patches)
    assert before.shape == (12, 256)
    assert before.dtype == np.float32
    assert np.isfinite(before).all()
    assert np.ptp(before, axis=0).max() > 0
    data = pickle.dumps(embedding)
    assert len(data) < 2000
    for copy in (clone(embedding), pickle.loads(data)):
        np.testing.assert_array_equal(copy.transform(patches), before)


def test_engine_is_said(weights):
    embedding = small(weights, device="cpu")
    assert embedding.engine_ in {"keras", "openvino"}
    assert embedding.engine_note_.endswith(".")


def test_weights_hash_is_that_of_the_file(weights):
    assert small(weights).weights_hash() == hash_weights(weights)


def test_a_patch_is_alone(weights, patches):
    pytest.importorskip("openvino", reason="openvino is not installed")
    embedding = small(weights, engine="openvino")
    mixed = [patches[0], patches[1][:30], patches[2][:1], patches[3], patches[4][:, :44]]
    together = embedding.transform(mixed)
    for patch, row in zip(mixed, together, strict=True):
        np.testing.assert_array_equal(embedding.transform([patch])[0], row)


def test_gathering_prepared_patches_is_the_same(weights, patches):
    embedding = small(weights)
    batches = [PatchBatch(patches), PatchBatch(patches[:, :30])]
    gathered = embedding._embed(np.concatenate([embedding._prepare(batch) for batch in batches]))
    np.testing.assert_allclose(gathered, np.concatenate([embedding._compute(batch) for batch in batches]), rtol=1e-4)


def test_weights_folder_from_the_environment(weights, patches, tmp_path, monkeypatch):
    (tmp_path / "mobilenet_0.25.weights.h5").write_bytes(weights.read_bytes())
    monkeypatch.setenv("HISTOFEAT_WEIGHTS", str(tmp_path))
    np.testing.assert_array_equal(
        CNNEmbedding("mobilenet_0.25", input_size=64).transform(patches), small(weights).transform(patches)
    )


# --- how many at once


class Recorder:
    """An engine that notes how many patches come and how many it is to take in one pass."""

    def __init__(self):
        self.calls = []

    def stage(self, pixels, *, batch_size):
        return pixels

    def embed(self, pixels, *, batch_size):
        self.calls.append((len(pixels), batch_size))
        return np.zeros((len(pixels), 256), dtype=np.float32)


@pytest.mark.parametrize(
    ("device", "batch_size", "calls"),
    [
        ("cpu", None, [(256, 64), (256, 64), (188, 64)]),
        ("gpu:0", None, [(512, 512), (188, 512)]),
        ("gpu:1", np.int64(100), [(256, 100), (256, 100), (188, 100)]),
        ("cpu", 600, [(600, 600), (100, 600)]),
    ],
)
def test_rows_per_pass_by_processor(tmp_path, monkeypatch, device, batch_size, calls):
    module, engine = "histofeat.features._embedding", Recorder()
    monkeypatch.setattr(f"{module}.choose_engine", lambda engine, device_, encoder: EngineChoice("keras", device, ""))
    monkeypatch.setattr(f"{module}.load_engine", lambda *arguments, **options: engine)
    (tmp_path / "w.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    embedding = small(tmp_path / "w.h5", batch_size=batch_size)
    assert embedding.transform(np.zeros((700, 8, 8, 3), dtype=np.uint8)).shape == (700, 256)
    assert engine.calls == calls


def test_rows_per_pass_are_no_part_of_the_numbers(weights):
    known = [small(weights, engine="keras", device="cpu", batch_size=n)._fingerprint() for n in (None, 1, 64, 4096)]
    assert known == known[:1] * 4


def test_features_of_another_backend_are_kept_apart(weights, monkeypatch):
    def known(backend, engine):
        monkeypatch.setattr("histofeat.features._embedding.backend_name", lambda: backend)
        return small(weights, engine=engine, device="cpu")._fingerprint()

    assert "backend" not in known("tensorflow", "keras")
    assert known("jax", "keras") == {**known("tensorflow", "keras"), "backend": "jax"}
    assert known("jax", "openvino") == known("torch", "openvino")


# --- real weights

WITNESSES = {"mobilenetv2_0.35": (0.278258, 21.41244), "mobilenet_0.25": (0.960113, 21.07940)}


@pytest.mark.parametrize(
    ("name", "engine"),
    [("mobilenet_0.25", "keras"), ("mobilenetv2_0.35", "keras"), ("mobilenetv2_0.35", "openvino")],
)
def test_witness(real_weights, name, engine):
    pytest.importorskip(engine, reason=f"{engine} is not installed")
    crop = load_sample_image("china.jpg")[100:324, 200:424]
    embedding = CNNEmbedding(name, weights_dir=real_weights, input_size=224, engine=engine, device="cpu")
    [row] = embedding.transform(crop[np.newaxis]).astype(np.float64)
    mean, length = WITNESSES[name]
    assert row.mean() == pytest.approx(mean, abs=2e-6)
    assert np.linalg.norm(row) == pytest.approx(length, abs=1e-4)


def test_engines_agree_on_real_patches(real_weights, real_data):
    pytest.importorskip("openvino", reason="openvino is not installed")
    paths = [str(path) for path in sorted((real_data / "idc").glob("*/*/*.png"))[::400]]
    # The size of the witnesses, so that their networks serve again.
    by_keras, by_openvino = (
        CNNEmbedding(
            "mobilenetv2_0.35", weights_dir=real_weights, input_size=224, engine=engine, device="cpu"
        ).transform(paths)
        for engine in ("keras", "openvino")
    )
    assert np.abs(by_keras - by_openvino).max() <= 1e-4 * np.abs(by_keras).max()
    assert np.linalg.norm(by_keras - by_openvino) <= 1e-5 * np.linalg.norm(by_keras)


def test_bfloat16_through_keras_is_coarse_on_real_patches(real_weights, real_data):
    paths = [str(path) for path in sorted((real_data / "idc").glob("*/*/*.png"))[::400]]
    exact, rough = (
        CNNEmbedding(
            "mobilenetv2_0.35", weights_dir=real_weights, input_size=128, engine="keras", device="cpu", precision=it
        ).transform(paths)
        for it in ("float32", "bfloat16")
    )
    assert 0.1 < np.linalg.norm(rough - exact) / np.linalg.norm(exact) < 0.3
