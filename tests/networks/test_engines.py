"""Keras and OpenVINO run the same network: same numbers, no telemetry, nothing loaded twice."""

import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from histofeat.exceptions import MissingExtraError
from histofeat.images import user_cache
from histofeat.networks import ENCODERS, EngineChoice, bfloat16_supported, choose_engine, hash_weights, load_engine
from histofeat.networks.pretrained import _engines as engines, _network as network, _openvino_engine as openvino_engine

keras = pytest.importorskip("keras", reason="keras is not installed")
pytest.importorskip("openvino", reason="openvino is not installed")
SMALL = ENCODERS["mobilenet_0.25"]
KERAS = EngineChoice("keras", "cpu", "")
OPENVINO = EngineChoice("openvino", "cpu", "")

#: Opens a converted network in a process of its own, and prints what it looked up and imported on the way.
WATCHED = """
import json, sys
looked_up = []
def watch(event, args):
    if event in {"socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto"}:
        looked_up.append([event, repr(args)])
sys.addaudithook(watch)
import numpy as np
from pathlib import Path
from types import SimpleNamespace
from histofeat.networks import ENCODERS, choose_engine, load_engine
engine = load_engine(ENCODERS["mobilenet_0.25"], Path(sys.argv[1]), choose_engine("openvino"), input_size=64)
total = float(engine.embed(np.full((3, 64, 64, 3), 90, dtype=np.uint8)).sum())
import openvino_telemetry  # hidden only while OpenVINO was imported
heavy = [name for name in ("keras", "tensorflow", "torch", "jax") if name in sys.modules]
print(json.dumps({"looked_up": looked_up, "heavy": heavy, "total": total}))
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras.utils.set_random_seed(0)
        model = keras.applications.MobileNet(alpha=0.25, include_top=False, weights=None, input_shape=(64, 64, 3))
        model.save_weights(path)
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One user cache for the module, so that the network is converted once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    engines._loaded.clear()
    engines._warn_of_idle_gpu.cache_clear()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (21, 64, 64, 3), dtype=np.uint8)


def load(choice, weights, **options):
    return load_engine(SMALL, weights, choice, input_size=64, **options)


def no_gpu():
    if network.visible_gpus():
        pytest.skip("Keras sees a GPU")


# --- choice


def test_auto_takes_openvino_on_a_cpu():
    choice = choose_engine("auto", "cpu")
    assert (choice.engine, choice.device) == ("openvino", "cpu")
    assert "OpenVINO on the CPU" in choice.note


def test_auto_takes_keras_where_openvino_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    choice = choose_engine("auto", "cpu")
    assert choice.engine == "keras"
    assert "not installed" in choice.note


def test_a_gpu_is_looked_for_only_with_keras(monkeypatch):
    """A plain install on a machine with a GPU runs the shipped encoder on the CPU, and says nothing."""
    monkeypatch.setattr(engines, "_has_nvidia_driver", lambda: True)
    monkeypatch.setattr(network, "import_keras", lambda: (_ for _ in ()).throw(MissingExtraError("gone")))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "keras" else find(name, *rest))
    assert choose_engine("auto").engine == "openvino"


def test_engines_as_asked_for():
    assert choose_engine("openvino").engine == "openvino"
    assert choose_engine("keras", "cpu") == EngineChoice("keras", "cpu", "Keras on the CPU, as asked for.")


def test_gpu_that_is_not_there():
    no_gpu()
    with pytest.raises(
        ValueError, match=r"device: expected a GPU that Keras's backend sees, got 'gpu:0' where it sees 0"
    ):
        choose_engine("auto", "gpu")


def test_gpu_that_keras_cannot_use_is_said(monkeypatch, tmp_path):
    no_gpu()
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.warns(RuntimeWarning, match=r"backend that sees none.*histofeat\[gpu\]"):
        assert choose_engine("auto").engine == "openvino"
    assert choose_engine("keras").device == "cpu"  # said once
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert choose_engine("auto").engine == "openvino"


@pytest.mark.parametrize(("told", "threads"), [("1", 1), ("3", 3), ("0", 1)])
def test_threads_follow_joblib(monkeypatch, told, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert engines._default_threads() == threads


def test_threads_without_orders(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert engines._default_threads() >= 1


# --- the numbers


def test_openvino_agrees_with_keras(weights, pixels):
    by_keras, by_openvino = (load(choice, weights).embed(pixels) for choice in (KERAS, OPENVINO))
    assert by_keras.shape == by_openvino.shape == (21, 256)
    assert by_keras.dtype == by_openvino.dtype == np.float32
    assert np.abs(by_keras - by_openvino).max() <= 1e-4 * np.abs(by_keras).max()


def test_parameters_are_counted(weights):
    """Batch normalisation has four numbers a channel; in the convolution before it a bias is left, if it is not 0."""
    model = keras.applications.MobileNet(alpha=0.25, include_top=False, weights=None, input_shape=(64, 64, 3))
    channels = sum(layer.gamma.shape[0] for layer in model.layers if hasattr(layer, "gamma"))
    assert load(choose_engine("keras", "cpu"), weights).n_parameters == model.count_params()
    untrained = model.count_params() - 4 * channels
    assert load(choose_engine("openvino"), weights).n_parameters - untrained in (2, 2 + channels)  # 2: of the pixels


def test_openvino_depends_on_the_patch_alone(weights, pixels):
    one, two = (load(OPENVINO, weights, n_threads=n) for n in (1, 2))
    together = two.embed(pixels)
    np.testing.assert_array_equal(one.embed(pixels), together)
    np.testing.assert_array_equal(np.concatenate([two.embed(pixel[np.newaxis]) for pixel in pixels[:9]]), together[:9])
    np.testing.assert_array_equal(two.embed(pixels[::-1])[::-1], together)


def test_callers_do_not_disturb_each_other(weights, pixels):
    engine = load(OPENVINO, weights)
    expected = engine.embed(pixels)
    with ThreadPoolExecutor(4) as pool:
        for start, got in zip(range(8), pool.map(lambda k: engine.embed(pixels[k:]), range(8)), strict=True):
            np.testing.assert_array_equal(got, expected[start:])


def test_keras_batches_change_only_the_rounding(weights, pixels):
    engine = load(KERAS, weights)
    np.testing.assert_allclose(engine.embed(pixels, batch_size=8), engine.embed(pixels), rtol=1e-4, atol=1e-5)


def test_pixels_are_staged_while_the_network_is_busy(weights, pixels):
    engine = load(KERAS, weights)
    with engine._lock:  # as while another thread embeds
        staged = engine.stage(pixels, batch_size=8)
    assert [rows for rows, _ in staged] == [8] * (len(pixels) // 8) + [len(pixels) % 8] * (len(pixels) % 8 > 0)
    np.testing.assert_array_equal(engine.embed(staged), engine.embed(pixels, batch_size=8))


def test_batches_reach_a_gpu_of_torch_from_pinned_memory(monkeypatch):
    done = []

    class Host:
        def pin_memory(self):
            done.append("pinned")
            return self

        def to(self, device, non_blocking):
            done.append((device, non_blocking))

    monkeypatch.setattr(network.import_keras().config, "backend", lambda: "torch")
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(from_numpy=lambda batch: Host()))
    network.to_device(np.zeros((1, 8, 8, 3), dtype=np.uint8), "gpu:1")
    assert done == ["pinned", ("cuda:1", True)]


#: Embeds with Keras in a process of its own, whose backend the environment names.
UNDER_A_BACKEND = """
import sys
import numpy as np
from pathlib import Path
from histofeat.networks import ENCODERS, choose_engine, load_engine
from histofeat.networks import backend_name
engine = load_engine(ENCODERS["mobilenet_0.25"], Path(sys.argv[1]), choose_engine("keras", "cpu"), input_size=64)
np.save(sys.argv[3], engine.embed(np.load(sys.argv[2]), batch_size=8))
print(backend_name())
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_gives_the_same(weights, pixels, tmp_path, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed: Keras cannot compute with it")
    np.save(tmp_path / "pixels.npy", pixels)
    found = subprocess.run(
        [sys.executable, "-c", UNDER_A_BACKEND, weights, tmp_path / "pixels.npy", tmp_path / "embedding.npy"],
        env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stdout.split()[-1] == backend
    there, here = np.load(tmp_path / "embedding.npy"), load(KERAS, weights).embed(pixels)
    assert np.abs(there - here).max() <= 1e-4 * np.abs(here).max()


def test_backend_that_cannot_write_for_openvino_is_said(monkeypatch, tmp_path):
    class Model:
        def export(self, *arguments, **options):
            raise ImportError("This requires the tensorflow module.")

    monkeypatch.setattr(network, "backend_name", lambda: "jax")
    with pytest.raises(MissingExtraError, match=r"keras: expected a backend .* got 'jax' .*Use engine=\"keras\""):
        network.export_openvino(Model(), tmp_path / "network.xml")
    Model.export = lambda *_, **__: (_ for _ in ()).throw(RuntimeError("basic_ios::clear: iostream error"))
    with pytest.raises(OSError, match=r"where OpenVINO can write a network, got basic_ios.* Make room on the disk\."):
        network.export_openvino(Model(), tmp_path / "network.xml")


def test_backend_without_keras_is_the_default_one(monkeypatch):
    assert network.backend_name() == keras.config.backend()
    monkeypatch.setattr(network, "import_keras", lambda: (_ for _ in ()).throw(MissingExtraError("gone")))
    assert network.backend_name() == "tensorflow"


@pytest.mark.parametrize("choice", [KERAS, OPENVINO], ids=["keras", "openvino"])
def test_no_patches(weights, pixels, choice):
    assert load(choice, weights).embed(pixels[:0]).shape == (0, 256)


def test_bfloat16(weights, pixels):
    exact = load(KERAS, weights).embed(pixels)
    rough = load(KERAS, weights, precision="bfloat16").embed(pixels)
    assert rough.dtype == np.float32
    assert 1e-6 < np.linalg.norm(rough - exact) / np.linalg.norm(exact) < 5e-2
    if bfloat16_supported():
        rough = load(OPENVINO, weights, precision="bfloat16").embed(pixels)
        assert 1e-6 < np.linalg.norm(rough - exact) / np.linalg.norm(exact) < 5e-2


def test_bfloat16_on_a_processor_without_it(weights):
    if bfloat16_supported():
        pytest.skip("this processor has bfloat16")
    with pytest.raises(
        ValueError, match=r"precision: expected 'float32' on this processor, got 'bfloat16'.*AVX512_BF16"
    ):
        load(OPENVINO, weights, precision="bfloat16")


# --- loaded once


def test_an_engine_is_loaded_once(weights, caplog):
    with caplog.at_level(logging.INFO, logger="histofeat"):
        first = load(OPENVINO, weights)
        assert load(OPENVINO, weights) is first
        assert load(OPENVINO, weights, n_threads=3) is not first
    assert len(caplog.records) == 2
    assert "mobilenet_0.25 at 64 px, float32" in caplog.text


def test_few_engines_stay(weights):
    first = load(OPENVINO, weights, n_threads=1)
    for n_threads in (2, 3, 4):
        load(OPENVINO, weights, n_threads=n_threads)
    assert load(OPENVINO, weights, n_threads=1) is first
    load(OPENVINO, weights, n_threads=5)
    assert len(engines._loaded) == 4
    assert load(OPENVINO, weights, n_threads=1) is first


#: Loads engines, lets them go and sends itself SIGTERM.
SIGNALLED = """
import os, signal, sys
from pathlib import Path
from histofeat.networks import ENCODERS, choose_engine, load_engine
from histofeat.networks.pretrained import _engines as engines
signal.signal(signal.SIGTERM, lambda number, frame: print("handled", number))
choice = choose_engine("openvino")
for n_threads in (1, 2):
    load_engine(ENCODERS["mobilenet_0.25"], Path(sys.argv[1]), choice, input_size=64, n_threads=n_threads)
engines._loaded.clear()
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_is_handled_after_engines_were_let_go(weights):
    call = [sys.executable, "-c", SIGNALLED, str(weights)]
    done = subprocess.run(call, capture_output=True, text=True, env=dict(os.environ))
    assert (done.returncode, done.stdout) == (0, "handled 15\n"), done.stderr


def test_a_second_process_needs_neither_keras_nor_the_network(weights):
    expected = load(OPENVINO, weights).embed(np.full((3, 64, 64, 3), 90, dtype=np.uint8)).sum()
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(weights)], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    said = json.loads(done.stdout)
    assert said["looked_up"] == []
    assert said["heavy"] == []
    assert said["total"] == pytest.approx(expected, rel=1e-6)


#: Runs the shipped encoder, on a path and on an array, where nothing of the extras can be imported.
PLAIN = """
import sys
for name in ("keras", "tensorflow", "timm", "h5py"):
    sys.modules[name] = None
import numpy as np
from histofeat import HistoEmbedding, make_cohort
cohort = make_cohort(n_patients=4, patches_per_patient=4, random_state=0)
print(HistoEmbedding().fit(cohort.X).transform(cohort.X).shape)
try:
    HistoEmbedding(engine="keras").fit(cohort.X).transform(cohort.X)
except ImportError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_plain_installation_runs_the_shipped_encoder():
    done = subprocess.run([sys.executable, "-c", PLAIN], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shape, refused = done.stdout.splitlines()
    assert shape == "(16, 144)"
    assert "expected Keras 3 with a backend for this network or training" in refused
    assert 'pip install "histofeat[cnn]"' in refused


# --- the folder of converted networks

TINY = {"encoder": "tiny", "input_size": 4, "graph": 1}


def tiny():
    """A network that converts in a moment: the mean of each channel."""
    return keras.Sequential([keras.Input((4, 4, 3)), keras.layers.GlobalAveragePooling2D()])


def means(root, build=tiny):
    core = openvino_engine.openvino_core(os.getpid())
    network = openvino_engine._read_network(core, TINY, build, root)
    return core.compile_model(network, "CPU")(np.arange(48, dtype=np.float32).reshape(1, 4, 4, 3))[0]


def never():
    raise AssertionError("the network was built although a converted one is there")


def test_converted_network_is_kept_and_known_by_its_identity(weights, cache):
    load(OPENVINO, weights)
    [folder] = (cache / "histofeat" / "openvino").glob(f"mobilenet_0.25-64-avg-{hash_weights(weights)}-*")
    assert {path.name for path in folder.iterdir()} == {"network.xml", "network.bin", "network.json"}
    record = json.loads((folder / "network.json").read_text())
    assert record["weights"] == hash_weights(weights)
    assert set(record["files"]) == {"network.xml", "network.bin"}


def test_network_is_converted_once(converted, tmp_path):
    shutil.copytree(converted, tmp_path, dirs_exist_ok=True)
    np.testing.assert_allclose(means(tmp_path, never), [[22.5, 23.5, 24.5]])


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A folder with the converted tiny network."""
    root = tmp_path_factory.mktemp("converted")
    np.testing.assert_allclose(means(root), [[22.5, 23.5, 24.5]])
    return root


@pytest.mark.parametrize("damage", ["network.xml", "network.json"])
def test_damaged_network_is_converted_again(converted, tmp_path, damage):
    shutil.copytree(converted, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "openvino" / "tiny-4-1" / damage
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    np.testing.assert_allclose(means(tmp_path), [[22.5, 23.5, 24.5]])
    assert openvino_engine._is_sound(file.parent, TINY)
    assert [path.name for path in file.parent.parent.iterdir()] == ["tiny-4-1"]


def test_folder_that_cannot_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    with pytest.warns(RuntimeWarning, match=r"expected a folder to keep the converted network in.*XDG_CACHE_HOME"):
        np.testing.assert_allclose(means(blocked), [[22.5, 23.5, 24.5]])


def test_another_process_may_have_converted_first(tmp_path):
    folder = tmp_path / "tiny"
    openvino_engine._store(tiny(), folder, TINY)
    first = (folder / "network.json").stat().st_ino
    openvino_engine._store(tiny(), folder, TINY)
    assert (folder / "network.json").stat().st_ino == first
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_cache_without_variable(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache() == tmp_path / ".cache" / "histofeat"


# --- what is not installed


def test_missing_openvino_names_the_extra(weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r'openvino: expected OpenVINO.*pip install "openvino"'):
        load(OPENVINO, weights)
