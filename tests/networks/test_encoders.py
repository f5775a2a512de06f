"""Records of the networks, where their weights are found, and what Keras makes of them."""

import dataclasses
import importlib
import re
import socket
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest

from histofeat import CNNEmbedding
from histofeat.exceptions import MissingExtraError, WeightsError
from histofeat.networks import ENCODERS, encoders_at_hand, find_encoder, find_weights, hash_weights
from histofeat.networks.pretrained import _catalogue as catalogue, _network as network, _weights as weights_module

keras = pytest.importorskip("keras", reason="keras is not installed")
SMALL = ENCODERS["mobilenet_0.25"]
LARGE = ("efficientnetb0", "resnet50", "densenet121")
HDF5 = b"\x89HDF\r\n\x1a\n"


def save_random(encoder, path, **options):
    """Write untrained weights of an encoder, and give the model that they came from."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras.utils.set_random_seed(0)
        constructor = getattr(keras.applications, encoder.constructor)
        options = {"include_top": False, "input_shape": (64, 64, 3), "pooling": "avg", **options}
        model = constructor(weights=None, **options, **dict(encoder.options))
        model.save_weights(path)
    return model


def run(model, pixels):
    """Embeddings without the seconds that Keras takes to compile ``predict``."""
    return keras.ops.convert_to_numpy(model(pixels, training=False))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """An untrained MobileNet of width 0.25, and the file of its weights."""
    path = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    return save_random(SMALL, path), path


@pytest.fixture(scope="module")
def small_file(small):
    return small[1]


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No folder of weights, an empty Keras cache, and a network that refuses every connection."""
    monkeypatch.delenv("HISTOFEAT_WEIGHTS", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    return tmp_path


@pytest.fixture
def broken_proxy(nowhere, monkeypatch):
    """A proxy that takes each connection and hangs up."""
    server = socket.create_server(("127.0.0.1", 0))

    def hang_up():
        while True:
            try:
                server.accept()[0].close()
            except OSError:
                return

    thread = threading.Thread(target=hang_up)
    thread.start()
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.getsockname()[1]}")
    yield nowhere
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(timeout=5)


# --- records


def test_the_encoders_of_the_issue_are_there():
    assert {
        "mobilenetv2",
        "mobilenetv2_0.35",
        "mobilenet_0.25",
        "efficientnetb0",
        "resnet50",
        "densenet121",
    } <= set(ENCODERS)
    assert all(name == encoder.name for name, encoder in ENCODERS.items())
    words = set(re.findall(r"[\w.-]+\w", CNNEmbedding.__doc__))
    assert {name.removesuffix("_stages") for name in ENCODERS} <= words, "the docstring names every encoder"
    assert {"efficientnetb0_stages", "resnet50_stages", "densenet121_stages", "mobilenetv2_stages"} < set(ENCODERS)


def test_records_cannot_be_changed():
    with pytest.raises(TypeError):
        ENCODERS["mine"] = SMALL
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.n_features = 3


@pytest.mark.parametrize(("name", "near"), [("resnet", "resnet50"), ("mobilenet_v2_0.35", "mobilenetv2_0.35")])
def test_unknown_encoder_gets_the_nearest_name(name, near):
    with pytest.raises(
        ValueError, match=rf"encoder: expected the name of an encoder, got '{name}'. Did you mean '{near}'"
    ):
        find_encoder(name)


def test_unknown_encoder_far_from_all_names_gets_the_list():
    with pytest.raises(ValueError, match=r"got 3. Known names: open: mobilenetv2, "):
        find_encoder(3)


@pytest.mark.parametrize("name", [name for name, encoder in ENCODERS.items() if encoder.source == "keras"])
def test_preprocessing_is_that_of_keras(name):
    encoder = ENCODERS[name]
    module = importlib.import_module(f"keras.applications.{encoder.module}")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    ours = keras.ops.convert_to_numpy(network.preprocess(pixels, encoder.preprocessing))
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, module.preprocess_input(pixels.astype(np.float32)))


def test_stages_are_layers_of_the_whole_network(small):
    """The same weights, and the feature maps of the named layers, pooled by hand."""
    whole, file = small
    encoder = ENCODERS["mobilenet_0.25_stages"]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    maps = keras.Model(whole.input, [whole.get_layer(tap).output for tap in encoder.taps])
    found = [keras.ops.convert_to_numpy(m) for m in maps(pixels.astype(np.float32) / 127.5 - 1, training=False)]
    means, deviations = (np.concatenate([f(m, axis=(1, 2)) for m in found], axis=1) for f in (np.mean, np.std))
    for pooling, expected in (("avg", means), ("avg_std", np.concatenate([means, deviations], axis=1))):
        ours = run(network.build_network(encoder, file, input_size=64, pooling=pooling), pixels)
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    last = run(network.build_network(SMALL, file, input_size=64, pooling="avg_std"), pixels)
    assert last.shape == (2, 512)
    np.testing.assert_allclose(last[:, 256:], deviations[:, -256:], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sides"),
    [("mobilenetv2", [32, 16, 8, 8]), ("mobilenetv2_0.35", [32, 16, 8, 8]), ("mobilenet_0.25", [32, 16, 8, 4]),
     ("efficientnetb0", [32, 16, 8, 8, 4]), ("resnet50", [32, 16, 8, 4]), ("densenet121", [32, 16, 8, 4])],
)  # fmt: skip
def test_stages_end_where_the_width_or_the_side_changes(name, sides):
    encoder = ENCODERS[f"{name}_stages"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(keras.applications, encoder.constructor)(
            include_top=False, weights=None, input_shape=(128, 128, 3), **dict(encoder.options)
        )
    shapes = [tuple(model.get_layer(tap).output.shape[1:]) for tap in encoder.taps]
    assert [side for side, *_ in shapes] == sides
    assert sum(width for *_, width in shapes) == encoder.n_features


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenetv2", "resnet50", "densenet121"])
def test_length_of_the_embedding(name):
    encoder = ENCODERS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(keras.applications, encoder.constructor)(
            include_top=False, weights=None, input_shape=(64, 64, 3), pooling="avg", **dict(encoder.options)
        )
    assert model.output_shape == (None, encoder.n_features)


# --- finding weights


def put(folder, name, content=HDF5):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def test_order_argument_then_environment_then_keras_cache(nowhere, monkeypatch):
    name = SMALL.weight_file
    in_cache = put(nowhere / "keras" / "models", name)
    assert find_weights(SMALL) == in_cache
    in_environment = put(nowhere / "environment", name)
    monkeypatch.setenv("HISTOFEAT_WEIGHTS", str(in_environment.parent))
    assert find_weights(SMALL) == in_environment
    in_argument = put(nowhere / "argument", name)
    assert find_weights(SMALL, weights_dir=in_argument.parent) == in_argument
    assert find_weights(SMALL, in_cache, weights_dir=in_argument.parent) == in_cache


def test_a_folder_without_the_file_passes_on_to_the_cache(nowhere):
    in_cache = put(nowhere / "keras" / "models", SMALL.weight_file)
    (nowhere / "empty").mkdir()
    assert find_weights(SMALL, weights_dir=nowhere / "empty") == in_cache


@pytest.mark.parametrize(
    ("name", "content"), [("mobilenet_0.25.weights.h5", HDF5), ("mobilenet_0.25.keras", b"PK\x03\x04")]
)
def test_names_of_ones_own_are_accepted_in_a_folder(nowhere, name, content):
    path = put(nowhere / "mine", name, content)
    assert find_weights(SMALL, weights_dir=path.parent) == path


def test_home_is_expanded(nowhere, monkeypatch):
    monkeypatch.setenv("HOME", str(nowhere))
    path = put(nowhere, "w.h5")
    assert find_weights(SMALL, "~/w.h5") == path


def test_keras_cache_without_keras_home(nowhere, monkeypatch):
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(nowhere))
    path = put(nowhere / ".keras" / "models", SMALL.weight_file)
    assert find_weights(SMALL) == path


def test_missing_file(tmp_path):
    with pytest.raises(
        WeightsError, match=r"w.h5: expected a file of mobilenet_0.25 weights.*mobilenet_2_5_224_tf_no_top.h5"
    ):
        find_weights(SMALL, tmp_path / "w.h5")


def test_unknown_suffix(tmp_path):
    with pytest.raises(
        WeightsError, match=r"expected weights of \S+ as .h5, .weights.h5 or .keras, got the suffix '.pt'"
    ):
        find_weights(SMALL, put(tmp_path, "w.pt"))


@pytest.mark.parametrize(("name", "kind"), [("w.h5", "an HDF5 file"), ("w.keras", "a Keras archive")])
def test_file_of_another_format(tmp_path, name, kind):
    with pytest.raises(WeightsError, match=rf"{name}: expected {kind}, got 16 bytes that start with b'vers"):
        find_weights(SMALL, put(tmp_path, name, b"version https://"))


def test_missing_folder(nowhere, monkeypatch):
    with pytest.raises(WeightsError, match=r"weights_dir: expected a folder of weights, got '.*none'"):
        find_weights(SMALL, weights_dir=nowhere / "none")
    monkeypatch.setenv("HISTOFEAT_WEIGHTS", str(nowhere / "nothing"))
    with pytest.raises(WeightsError, match="environment variable HISTOFEAT_WEIGHTS: expected a folder"):
        find_weights(SMALL)


def test_without_network_the_message_says_which_file_to_put_where(nowhere):
    started = time.perf_counter()
    with pytest.raises(WeightsError) as caught:
        find_weights(SMALL)
    assert time.perf_counter() - started < 12
    message = str(caught.value)
    for part in (*SMALL.accepted_files, "HISTOFEAT_WEIGHTS", "weights_dir", str(nowhere / "keras" / "models")):
        assert part in message
    assert not [path for path in nowhere.rglob("*") if path.is_file()]


def test_weights_at_hand_are_found_without_a_download(nowhere, monkeypatch):
    monkeypatch.setattr(catalogue, "_PACKAGED", ("histofeat",))  # the packages of Lite may be installed
    assert encoders_at_hand() == ["histo"]
    (nowhere / "keras" / "models").mkdir(parents=True)
    (nowhere / "keras" / "models" / SMALL.weight_file).touch()
    (nowhere / "mine").mkdir()
    (nowhere / "mine" / "efficientnet_lite0.pth").touch()
    (nowhere / "mine" / "resnet50.keras").mkdir()
    lite = [name for name in ENCODERS if name.startswith("efficientnet_lite0")]
    assert set(encoders_at_hand(nowhere / "mine")) == {"mobilenet_0.25", "mobilenet_0.25_stages", "histo", *lite}
    with pytest.raises(WeightsError, match="weights_dir: expected a folder of weights, got"):
        encoders_at_hand(nowhere / "none")


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv2_0.35",
        "mobilenet_0.25",
        *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE),
    ],
)
def test_the_address_of_weights_is_that_of_keras(name, monkeypatch):
    def ask(file, origin, **_):
        raise FileNotFoundError(origin)

    monkeypatch.setattr(keras.src.utils.file_utils, "get_file", ask)
    encoder = ENCODERS[name]
    make = getattr(keras.applications, encoder.constructor)
    with pytest.raises(FileNotFoundError) as caught:
        make(include_top=False, weights="imagenet", input_shape=(224, 224, 3), **dict(encoder.options))
    assert str(caught.value) == encoder.url


def test_a_download_that_breaks_leaves_nothing(broken_proxy):
    with pytest.raises(WeightsError, match=r"and no download \((?!.*Pool).{3,100}\)\. Put the file .* by --weights"):
        find_weights(SMALL)
    assert not [path for path in broken_proxy.rglob("*") if path.is_file()]


def test_a_download_goes_to_the_cache_of_keras(nowhere, monkeypatch):
    def fetch(url, folder):
        assert url == SMALL.url
        return put(folder, SMALL.weight_file)

    monkeypatch.setattr(weights_module, "fetch_file", fetch)
    assert find_weights(SMALL) == nowhere / "keras" / "models" / SMALL.weight_file


def test_hash_follows_the_content(tmp_path):
    path = put(tmp_path, "w.h5", b"one")
    first = hash_weights(path)
    assert first == hash_weights(put(tmp_path, "v.h5", b"one"))
    path.write_bytes(b"three")
    assert hash_weights(path) != first
    assert len(first) == 32


# --- building networks


def test_weights_and_preprocessing_arrive_in_the_network(small):
    base, small_file = small
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    expected = run(base, pixels.astype(np.float32) / np.float32(127.5) - 1)
    ours = run(network.build_network(SMALL, small_file, input_size=64), pixels)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
    most = run(network.build_network(SMALL, small_file, input_size=64, pooling="max"), pixels)
    assert (most >= ours - 1e-6).all()
    assert (most > ours).any()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_whole_saved_models_serve_as_weights(small, tmp_path, suffix):
    model = small[0]
    path = tmp_path / f"whole{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)
    loaded = network.build_network(SMALL, find_weights(SMALL, path), input_size=64)
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_truncated_file(small_file, tmp_path):
    path = put(tmp_path, "cut.weights.h5", small_file.read_bytes()[:200_000])
    with pytest.raises(WeightsError, match=r"cut.weights.h5: expected the weights of mobilenet_0.25.*truncated file"):
        network.build_network(SMALL, find_weights(SMALL, path), input_size=64)


def test_broken_archive(tmp_path):
    path = put(tmp_path, "cut.keras", b"PK\x03\x04 and nothing else")
    with pytest.raises(WeightsError, match=r"cut.keras: expected the weights of mobilenet_0.25.*zip"):
        network.build_network(SMALL, find_weights(SMALL, path), input_size=64)


def test_weights_of_another_network(tmp_path):
    path = tmp_path / "other.weights.h5"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)]).save_weights(path)
    with pytest.raises(WeightsError, match=r"other.weights.h5: expected the weights of mobilenet_0.25 without"):
        network.build_network(SMALL, path, input_size=64)


def test_settings_of_the_process_are_left_alone(small_file):
    before = keras.config.dtype_policy().name, keras.config.image_data_format()
    model = network.build_network(SMALL, small_file, input_size=64, precision="bfloat16")
    assert (keras.config.dtype_policy().name, keras.config.image_data_format()) == before
    assert model.output.dtype == "float32"


def test_efficientnet_is_scaled_as_keras_scales_its_imagenet_weights(tmp_path):
    encoder = ENCODERS["efficientnetb0"]
    base = save_random(encoder, tmp_path / "e.weights.h5")
    built = network.build_network(encoder, tmp_path / "e.weights.h5", input_size=64)
    assert built.output_shape == (None, encoder.n_features)
    stem = next(layer for layer in built.layers if isinstance(layer, keras.Model)).get_layer("stem_conv")
    x = np.random.default_rng(0).normal(size=(1, 9, 9, 3)).astype(np.float32)
    rescaled = keras.layers.Rescaling([1 / np.sqrt(std) for std in (0.229, 0.224, 0.225)])(x)
    np.testing.assert_allclose(stem(x), base.get_layer("stem_conv")(rescaled), rtol=1e-4, atol=1e-6)


def test_missing_keras_names_the_extra(monkeypatch, small_file):
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(MissingExtraError, match=r'pip install "histofeat\[cnn\]"'):
        network.build_network(SMALL, small_file, input_size=64)


def test_importing_the_encoders_loads_no_framework():
    code = (
        "import sys, histofeat.networks.pretrained\n"
        "print([m for m in ('keras', 'tensorflow', 'openvino', 'torch', 'jax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
