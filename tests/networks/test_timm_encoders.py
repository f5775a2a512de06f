"""Networks of others: their records, how their weights are found and refused, and that timm itself gives the same."""

import copy
import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.base import clone

from histofeat.exceptions import MissingExtraError, WeightsError
from histofeat.features import CNNEmbedding, resize_patches
from histofeat.networks import (
    ENCODERS,
    TIMM_ENCODERS,
    EngineChoice,
    TimmEncoder,
    TrainingData,
    choose_engine,
    find_encoder,
    find_weights,
    hash_weights,
    known_training,
    load_engine,
)
from histofeat.networks.pretrained import _catalogue as catalogue, _engines as engines, _torch_engine as torch_engine
from histofeat.networks.pretrained._weights import import_hub

needs_timm = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("timm", "torch", "safetensors", "huggingface_hub")),
    reason="the extra timm is not installed",
)
GATED = ("uni", "virchow", "h-optimus-0", "h0-mini", "uni2-h", "virchow2", "h-optimus-1")
KAIKO = ("kaiko-vits16", "kaiko-vits8", "kaiko-vitb16", "kaiko-vitb8", "kaiko-vitl14")
NON_COMMERCIAL = ("phikon", *KAIKO, "lunit-vits16", "lunit-vits8")
TORCH = EngineChoice("torch", "cpu", "")
SAFE = b"\x10\x00\x00\x00\x00\x00\x00\x00{      rest"


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    """No folder of weights, an empty cache, nothing loaded and no record remembered."""
    monkeypatch.delenv("HISTOFEAT_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    engines._loaded.clear()
    for remembered in (catalogue._of_timm, catalogue._of_hub):
        remembered.cache_clear()


class Failed(OSError):
    """What a hub raises where it has no file."""


class Unreachable(Failed):
    """What a hub raises where there is no connection."""


def fake_hub(monkeypatch, *, cached=None, published=None, failure=None):
    """A hub with some files in its cache and others to download; gives the list of what was asked for."""
    asked = []

    def download(repository, name, etag_timeout):
        asked.append((repository, name))
        if name in (published or {}):
            return str(published[name])
        raise failure or Failed("404")

    hub = SimpleNamespace(
        errors=SimpleNamespace(EntryNotFoundError=Failed, LocalEntryNotFoundError=Unreachable),
        try_to_load_from_cache=lambda repository, name: str(cached[name]) if name in (cached or {}) else None,
        hf_hub_download=download,
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    return asked


def put(path: Path, content: bytes = SAFE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- records


def test_records_are_complete_and_cannot_be_changed():
    assert set(TIMM_ENCODERS) == {*GATED, *NON_COMMERCIAL, "ctranspath", "midnight-12k"}
    assert set(TIMM_ENCODERS) <= set(ENCODERS)
    for name, encoder in TIMM_ENCODERS.items():
        assert find_encoder(name) is encoder
        assert (encoder.name, encoder.source, encoder.default_size) == (name, "timm", 224)
        assert encoder.hub_id.count("/") == 1
        assert "" not in (encoder.licence, encoder.reference)
        assert encoder.gated == (name in GATED)
        assert encoder.terms == ("gated" if name in GATED else "non-commercial" if name in NON_COMMERCIAL else "open")
        assert "not verified with its weights here" in encoder.words
        assert encoder.declared, "what is known of its training is said, or that nothing is"
    with pytest.raises(TypeError):
        TIMM_ENCODERS["mine"] = encoder
    with pytest.raises(dataclasses.FrozenInstanceError):
        encoder.n_features = 3


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("uni", 1024),
        ("virchow", 2560),
        ("h-optimus-0", 1536),
        ("phikon", 768),
        ("midnight-12k", 3072),
        ("h0-mini", 768),
    ],
)
def test_names_of_features_need_nothing_installed(name, length):
    names = CNNEmbedding(name).get_feature_names_out()
    assert (len(names), names[0]) == (length, f"cnn_{name}_0000")


@pytest.mark.parametrize(
    ("name", "near"), [("h-optimus-00", "h-optimus-0"), ("virchow-2", "virchow2"), ("resnet", "resnet50")]
)
def test_unknown_names_get_the_nearest_of_all(name, near):
    with pytest.raises(
        ValueError, match=rf"encoder: expected the name of an encoder, got '{name}'. Did you mean '{near}'"
    ):
        find_encoder(name)


@pytest.mark.parametrize("name", ["zzz", 3, None])
def test_unknown_names_get_all_by_their_terms(name):
    with pytest.raises(ValueError, match=r"got '?(zzz|3|None)'?\. Known names: open: ") as caught:
        find_encoder(name)
    groups = str(caught.value).split("Known names: ")[1].removesuffix(".").split("; ")
    known = {terms: names.split(", ") for terms, names in (group.split(": ") for group in groups)}
    assert list(known) == ["open", "non-commercial", "gated"]
    assert {"mobilenetv2", "histo", "ctranspath", "midnight-12k"} <= set(known["open"])
    assert (set(known["non-commercial"]), set(known["gated"])) == (set(NON_COMMERCIAL), set(GATED))
    assert sum(map(len, known.values())) == len(ENCODERS)


# --- what is declared of their training


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("resnet50", ["ImageNet"]),
        ("histo", ["IDC"]),
        ("uni", ["Mass-100K"]),
        ("ctranspath", ["TCGA", "PAIP"]),
        ("midnight-12k", ["TCGA"]),
        ("h0-mini", ["TCGA", "training data of h-optimus-0"]),
        ("timm:resnet18", ["unknown"]),
        ("hf-hub:a/b", ["unknown"]),
        ("hf-hub:mahmoodlab/UNI", ["Mass-100K"]),
    ],
)
def test_declared_training(name, data, monkeypatch):
    fake_hub(monkeypatch, failure=AssertionError("the hub is not asked"))
    assert [known.data for known in known_training(name)] == data


def test_declared_training_has_a_kind_and_an_address():
    for name in ENCODERS:
        for known in known_training(name):
            assert isinstance(known, TrainingData)
            assert known.kind in ("public", "proprietary")
            assert re.match(r"https://|10\.\d{4,}/|arXiv:\d|histofeat/", known.source), known
    with pytest.raises(ValueError, match=r"expected the name of an encoder, got 'umi'. Did you mean 'uni'"):
        known_training("umi")


def test_list_of_encoders_says_that_weights_were_not_verified(capsys):
    from histofeat.cli import main

    main(["list", "encoders"])
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["uni2-h"].startswith("CC-BY-NC-ND-4.0, gated; 1,536 columns; not verified with its weights here; http")
    assert set(lines) == set(ENCODERS)


def test_importing_the_records_loads_nothing():
    code = (
        "import sys, histofeat.features\n"
        "from histofeat.networks import find_encoder\n"
        "find_encoder('uni')\n"
        "print([m for m in ('timm', 'torch', 'huggingface_hub', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_recipe_follows_the_normalisation():
    encoder = TIMM_ENCODERS["uni"]
    assert dataclasses.replace(encoder, mean=(0.5, 0.5, 0.5)).recipe != encoder.recipe
    assert dataclasses.replace(encoder, licence="another").recipe == encoder.recipe


# --- settings


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"encoder": "uni", "engine": "keras"}, r"engine: expected 'auto' or 'torch' with encoder='uni'.*got 'keras'"),
        ({"encoder": "uni", "engine": "openvino"}, r"engine: expected 'auto' or 'torch'.*got 'openvino'"),
        (
            {"encoder": "resnet50", "engine": "torch"},
            r"engine: expected .* 'openvino' with encoder='resnet50'.*got 'torch'",
        ),
        ({"encoder": "uni", "pooling": "max"}, r"pooling: expected 'avg' with encoder='uni'.*got 'max'"),
    ],
)
def test_settings_that_do_not_go_together(params, message, patches):
    embedding = CNNEmbedding(**params)
    for use in (embedding.fit, embedding.transform, embedding.get_feature_names_out):
        with pytest.raises(ValueError, match=message):
            use(patches)


@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_pytorch_runs_the_networks_of_others(engine):
    assert choose_engine(engine, "cpu", TIMM_ENCODERS["uni"]) == EngineChoice("torch", "cpu", "PyTorch on the CPU.")
    assert CNNEmbedding("uni", engine=engine, device="cpu").engine_ == "torch"


@pytest.mark.parametrize(("engine", "name"), [("keras", "uni"), ("openvino", "phikon"), ("torch", "resnet50")])
def test_choice_refuses_an_engine_that_cannot(engine, name):
    with pytest.raises(ValueError, match=rf"CNNEmbedding.engine: expected .*{name}.*got '{engine}'"):
        choose_engine(engine, "cpu", find_encoder(name))


@pytest.mark.parametrize(
    ("device", "gpus", "driver", "expected"),
    [
        (None, 0, False, "cpu"),
        (None, 0, True, "cpu"),
        (None, 2, True, "gpu:0"),
        ("gpu", 1, True, "gpu:0"),
        ("gpu:1", 2, True, "gpu:1"),
        ("cpu", 2, True, "cpu"),
    ],
)
def test_device(monkeypatch, device, gpus, driver, expected):
    monkeypatch.setattr(engines, "_has_nvidia_driver", lambda: driver)
    monkeypatch.setattr(torch_engine, "visible_gpus", lambda: gpus)
    choice = choose_engine("auto", device, TIMM_ENCODERS["uni"])
    assert (choice.engine, choice.device) == ("torch", expected)
    assert choice.note.startswith("PyTorch on")


def test_gpu_that_pytorch_does_not_see(monkeypatch):
    monkeypatch.setattr(torch_engine, "visible_gpus", lambda: 1)
    with pytest.raises(ValueError, match=r"device: expected a GPU that PyTorch sees, got 'gpu:1' where it sees 1"):
        choose_engine("torch", "gpu:1", TIMM_ENCODERS["uni"])


# --- finding weights


def test_order_argument_then_environment_then_cache_then_download(tmp_path, monkeypatch):
    uni = TIMM_ENCODERS["uni"]
    downloaded, cached = put(tmp_path / "d.safetensors"), put(tmp_path / "c.bin", b"PK\x03\x04")
    asked = fake_hub(monkeypatch, published={"model.safetensors": downloaded})
    assert find_weights(uni) == downloaded
    assert asked == [("MahmoodLab/UNI", "model.safetensors")]
    asked = fake_hub(monkeypatch, cached={"pytorch_model.bin": cached}, published={"model.safetensors": downloaded})
    assert find_weights(uni) == cached
    assert asked == []  # the cache serves without a question
    in_environment = put(tmp_path / "environment" / "uni.pth", b"PK\x03\x04")
    monkeypatch.setenv("HISTOFEAT_WEIGHTS", str(in_environment.parent))
    assert find_weights(uni) == in_environment
    in_argument = put(tmp_path / "argument" / "uni.safetensors")
    assert find_weights(uni, weights_dir=in_argument.parent) == in_argument
    assert find_weights(uni, cached, weights_dir=in_argument.parent) == cached
    assert CNNEmbedding("uni", weights=cached).weights_hash() == hash_weights(cached)


def test_repository_with_the_older_file_only(tmp_path, monkeypatch):
    file = put(tmp_path / "p.bin", b"PK\x03\x04")
    asked = fake_hub(monkeypatch, published={"pytorch_model.bin": file})
    assert find_weights(TIMM_ENCODERS["phikon"]) == file
    assert [name for _, name in asked] == ["model.safetensors", "pytorch_model.bin"]


@pytest.mark.parametrize("name", TIMM_ENCODERS)
def test_weights_that_cannot_be_had_say_how_to_get_access(name, monkeypatch):
    encoder = TIMM_ENCODERS[name]
    asked = fake_hub(monkeypatch, failure=Unreachable("\nno connection\nmore"))
    with pytest.raises(
        WeightsError, match=r"no such file in the hub's cache and no download \(no connection\)"
    ) as caught:
        CNNEmbedding(name).weights_hash()
    assert len(asked) == 1  # without a connection the next file is not asked for
    message = str(caught.value)
    for part in (
        f"https://huggingface.co/{encoder.hub_id}",
        encoder.licence,
        f"{name}.safetensors",
        "HISTOFEAT_WEIGHTS",
    ):
        assert part in message
    assert ("accept the terms" in message and "HF_TOKEN" in message) == encoder.gated


def test_files_that_are_not_there_are_said(tmp_path, monkeypatch):
    fake_hub(monkeypatch)
    with pytest.raises(WeightsError, match=rf"phikon: .*no such file in {tmp_path} or the hub's cache.*\(404\)"):
        find_weights(TIMM_ENCODERS["phikon"], weights_dir=tmp_path)


def test_broken_connection_is_an_error_of_the_client(monkeypatch):
    class Client(Exception):
        """As httpx has it: no OSError."""

    fake_hub(monkeypatch, failure=Client("reset"))
    sys.modules["huggingface_hub"].errors.HTTPError = Client
    with pytest.raises(WeightsError, match=r"no download \(reset\)"):
        find_weights(TIMM_ENCODERS["uni"])


def test_network_without_published_weights():
    lonely = dataclasses.replace(TIMM_ENCODERS["uni"], name="timm:lonely", hub_id=None)
    with pytest.raises(
        WeightsError, match=r"timm:lonely: .*\(none is published there\). timm knows of no weights of it"
    ):
        find_weights(lonely)
    assert lonely.accepted_files[0] == "timm-lonely.safetensors"


def test_missing_hub_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r'huggingface_hub: expected .*pip install "histofeat\[timm\]"'):
        find_weights(TIMM_ENCODERS["uni"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "none.safetensors",
            None,
            r"none.safetensors: expected a file of uni weights, got no such file.*accept the terms",
        ),
        ("w.h5", b"\x89HDF", r"expected weights of uni as .safetensors, .bin or .pth, got the suffix '.h5'"),
        (
            "w.safetensors",
            b"version https://",
            r"w.safetensors: expected a checkpoint .* got 16 bytes that start with b'vers",
        ),
        ("w.bin", b"version https://", r"w.bin: expected a checkpoint .* got 16 bytes"),
        ("w.pth", SAFE, r"w.pth: expected a checkpoint"),
    ],
)
def test_files_of_another_kind(tmp_path, name, content, message):
    if content is not None:
        put(tmp_path / name, content)
    with pytest.raises(WeightsError, match=message):
        find_weights(TIMM_ENCODERS["uni"], tmp_path / name)


# --- names of timm and of the hub


@pytest.mark.parametrize("name", ["timm:resnet18", "hf-hub:owner/repository"])
def test_missing_timm_names_the_extra(tmp_path, monkeypatch, name):
    config = put(tmp_path / "config.json", b'{"architecture": "resnet18"}')
    fake_hub(monkeypatch, cached={"config.json": config})
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r'timm: expected timm and PyTorch.*pip install "histofeat\[timm\]"'):
        CNNEmbedding(name).get_feature_names_out()


@pytest.mark.parametrize("name", ["hf-hub:owner", "hf-hub:owner/", "hf-hub:", "hf-hub:a/b/c"])
def test_hub_names_have_two_parts(name):
    with pytest.raises(ValueError, match=rf"encoder: expected 'hf-hub:<owner>/<repository>', got '{name}'"):
        find_encoder(name)


def test_configuration_that_cannot_be_had(monkeypatch):
    fake_hub(monkeypatch, failure=Unreachable("no connection"))
    with pytest.raises(WeightsError, match=r"hf-hub:a/b: expected its config.json.*\(no connection\).*HF_TOKEN"):
        find_encoder("hf-hub:a/b")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", r"config.json: expected JSON, got "), (b"[]", r"config.json: expected a JSON object, got list")],
)
def test_configuration_that_is_none(tmp_path, monkeypatch, content, message):
    fake_hub(monkeypatch, cached={"config.json": put(tmp_path / "config.json", content)})
    with pytest.raises(WeightsError, match=message):
        find_encoder("hf-hub:a/b")


def test_repository_of_another_library(tmp_path, monkeypatch):
    fake_hub(monkeypatch, cached={"config.json": put(tmp_path / "config.json", b'{"model_type": "vit"}')})
    with pytest.raises(
        WeightsError, match=r"hf-hub:a/b: expected a config.json that names a network of timm .* got None"
    ):
        find_encoder("hf-hub:a/b")


def test_ad_hoc_record_follows_timms_configuration(monkeypatch):
    known = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "input_size": (3, 48, 48), "hf_hub_id": "timm/tiny.tag"}
    monkeypatch.setattr(
        torch_engine, "published_config", lambda model: {"tiny": {**known, "license": "mit"}}.get(model)
    )
    monkeypatch.setattr(torch_engine, "network_names", lambda: ["tiny", "other"])
    monkeypatch.setattr(torch_engine, "vector_length", lambda *arguments, owner: 7)
    encoder = find_encoder("timm:tiny")
    assert encoder == TimmEncoder(
        name="timm:tiny", architecture="tiny", n_features=7, hub_id="timm/tiny.tag", mean=known["mean"],
        std=known["std"], default_size=48, minimum_size=48, licence="mit",
    )  # fmt: skip
    assert encoder.access == "They are at https://huggingface.co/timm/tiny.tag (licence: mit)."
    assert CNNEmbedding("timm:tiny").get_feature_names_out()[-1] == "cnn_timm:tiny_0006"
    with pytest.raises(
        ValueError, match=r"encoder: expected the name of a network of timm.*got 'tini'. Did you mean 'tiny'"
    ):
        find_encoder("timm:tini")
    with pytest.raises(ValueError, match=r"got 'zzz'. `timm.list_models\(\)` gives the names"):
        find_encoder("timm:zzz")


def test_ad_hoc_record_follows_the_hubs_configuration(tmp_path, monkeypatch):
    config = {
        "architecture": "tiny",
        "num_classes": 3,
        "model_args": {"global_pool": "", "img_size": [48, 48], "num_classes": 3, "reg_tokens": 4},
        "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 48, 48]},
    }
    fake_hub(monkeypatch, cached={"config.json": put(tmp_path / "config.json", json.dumps(config).encode())})
    monkeypatch.setattr(torch_engine, "published_config", lambda model: {} if model == "tiny" else None)
    monkeypatch.setattr(torch_engine, "vector_length", lambda *arguments, owner: 7)
    encoder = find_encoder("hf-hub:owner/repository")
    assert encoder.options == (("img_size", (48, 48)), ("reg_tokens", 4))
    assert (encoder.mean, encoder.std, encoder.default_size) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 48)
    assert (encoder.hub_id, encoder.accepted_files[0]) == ("owner/repository", "hf-hub-owner-repository.safetensors")


# --- with timm: records


#: Class token and registers.
PREFIX = {"kaiko-vitl14": 5, "h-optimus-0": 5, "h-optimus-1": 5, "h0-mini": 5, "virchow2": 5, "uni2-h": 9}


@needs_timm
@pytest.mark.parametrize("name", TIMM_ENCODERS)
def test_timm_builds_the_named_networks(name):
    """On the meta device, where a network of a billion weights costs nothing."""
    torch, _ = torch_engine.import_timm()
    encoder = TIMM_ENCODERS[name]
    with torch.device("meta"), torch.inference_mode():
        network = torch_engine._create(encoder.architecture, encoder.options).eval()
        if encoder.stem == "conv":
            network.patch_embed.proj = torch_engine._conv_stem(torch, 96)
        pixels = torch.zeros(2, 3, 224, 224)
        shape = (network.forward_features if encoder.embedding == "class_and_mean" else network)(pixels).shape
    if encoder.embedding == "class_and_mean":
        assert shape == (2, network.num_prefix_tokens + 256, encoder.n_features // 2)
    else:
        assert shape == (2, encoder.n_features)
    assert getattr(network, "num_prefix_tokens", 0) == PREFIX.get(name, 0 if name == "ctranspath" else 1)


@needs_timm
@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("uni", 303), ("virchow", 631), ("h-optimus-0", 1135), ("ctranspath", 27.5), ("uni2-h", 681), ("virchow2", 632),
        ("midnight-12k", 1136), ("h0-mini", 86), ("kaiko-vits8", 21.7), ("kaiko-vitl14", 304),
    ],
)  # fmt: skip
def test_number_of_weights_is_the_published_one(name, millions):
    torch, _ = torch_engine.import_timm()
    encoder = TIMM_ENCODERS[name]
    with torch.device("meta"):
        network = torch_engine._create(encoder.architecture, encoder.options)
    assert sum(values.numel() for values in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.005)


@needs_timm
def test_names_of_timm():
    encoder = find_encoder("timm:test_resnet")
    assert (encoder.n_features, encoder.default_size, encoder.hub_id) == (96, 160, "timm/test_resnet.r160_in1k")
    assert find_encoder("timm:test_resnet.r160_in1k").mean == encoder.mean
    assert find_encoder("timm:test_resnet") is encoder
    for name in ("timm:test_resnet.nothing", "timm:test_resnot"):
        with pytest.raises(ValueError, match=r"expected the name of a network of timm.*Did you mean 'test_resnet"):
            find_encoder(name)


@needs_timm
def test_networks_that_give_no_vector_are_refused():
    options = (("global_pool", ""),)
    with pytest.raises(ValueError, match=r"encoder: expected a network that gives one vector.*shape \(101, 64\)"):
        torch_engine.vector_length("test_vit", options, 160, owner="CNNEmbedding.encoder")
    with pytest.raises(ValueError, match=r"encoder: expected a network of timm that takes its options.*'colour': 3"):
        torch_engine.vector_length("test_vit", (("colour", 3),), 160, owner="CNNEmbedding.encoder")


# --- with timm: embeddings


def fresh(architecture, **options):
    """A network with random weights that do not depend on what ran before."""
    import timm
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model(architecture, pretrained=False, **options).eval()
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):  # untrained it is 0 and 1 throughout
                for values in (layer.running_var, layer.weight.data, layer.bias.data):
                    values.uniform_(0.5, 1.5)
        for name, values in network.named_parameters():
            if name.endswith(".gamma"):  # untrained it nearly switches a block off
                values.data.uniform_(0.5, 1.5)
    return network


def save(network, path: Path) -> Path:
    import safetensors.torch
    import torch

    state = network.state_dict() if hasattr(network, "state_dict") else network
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


def with_and_without_head(architecture):
    """A network, and the same one without its classification layer."""
    network = fresh(architecture)
    body = copy.deepcopy(network)
    body.reset_classifier(0)
    return network, body


def by_hand(network, encoder, pixels):
    """What timm gives for pixels that are normalised in NumPy."""
    import torch

    x = ((pixels / 255.0 - encoder.mean) / encoder.std).astype(np.float32).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        return network(torch.from_numpy(np.ascontiguousarray(x))).numpy()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 160, 160, 3), dtype=np.uint8)


@needs_timm
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin"])
def test_embedding_is_timms(name, suffix, tmp_path, pixels):
    whole, body = with_and_without_head(name)
    path = save(whole, tmp_path / f"w{suffix}")
    encoder = find_encoder(f"timm:{name}")
    expected = by_hand(body, encoder, pixels)
    found = CNNEmbedding(f"timm:{name}", weights=path, batch_size=2, device="cpu").fit_transform(pixels)
    assert found.dtype == np.float32
    assert found.shape == (5, encoder.n_features)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.ptp(found, axis=0).max() > 1e-3


@needs_timm
def test_weights_in_a_folder_and_other_settings(tmp_path, pixels):
    """The estimator finds the file, resizes, clones, and knows its features by what changes them."""
    whole, body = with_and_without_head("test_resnet")
    path = save(whole, tmp_path / "timm-test_resnet.safetensors")
    embedding = CNNEmbedding("timm:test_resnet", weights_dir=tmp_path, input_size=96, device="cpu")
    small = resize_patches(pixels, 96)
    expected = by_hand(body, find_encoder("timm:test_resnet"), small)
    np.testing.assert_allclose(clone(embedding).fit_transform(pixels), expected, rtol=1e-4, atol=1e-5)
    known = embedding._fingerprint()
    assert (known["engine"], known["weights"], known["graph"]) == (
        "torch",
        hash_weights(path),
        torch_engine.TORCH_VERSION,
    )
    assert json.loads(json.dumps(known))["recipe"] == find_encoder("timm:test_resnet").recipe


@needs_timm
def test_class_token_and_mean_of_the_others(tmp_path, pixels):
    import torch

    options = (
        ("global_pool", ""),
        ("reg_tokens", 3),
        ("mlp_layer", "timm.layers:SwiGLUPacked"),
        ("act_layer", "torch.nn:SiLU"),
    )
    encoder = TimmEncoder(
        name="tokens", architecture="test_vit", n_features=128, hub_id=None, options=options,
        embedding="class_and_mean", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), default_size=160,
    )  # fmt: skip
    torch.manual_seed(1)
    network = torch_engine._create("test_vit", options).eval()
    path = save(network, tmp_path / "w.safetensors")
    tokens = by_hand(network, encoder, pixels)
    assert tokens.shape == (5, 1 + 3 + 100, 64)
    expected = np.concatenate([tokens[:, 0], tokens[:, 4:].mean(axis=1)], axis=1)
    found = load_engine(encoder, path, TORCH, input_size=160).embed(pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@needs_timm
def test_stages_passes_and_leaves_the_pixels_alone(tmp_path, pixels):
    engine = load_engine(
        find_encoder("timm:test_resnet"), save(fresh("test_resnet"), tmp_path / "w.pth"), TORCH, input_size=160
    )
    frozen = pixels.copy()
    frozen.setflags(write=False)
    staged = engine.stage(frozen, batch_size=2)
    assert [rows for rows, _ in staged] == [2, 2, 1]
    found = engine.embed(staged)
    np.testing.assert_allclose(found, engine.embed(frozen[:, :, ::-1][:, :, ::-1]), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(frozen, pixels)
    assert engine.embed(pixels[:0]).shape == (0, 96)
    assert (engine.name, engine.n_features) == ("torch", 96)


@needs_timm
def test_bfloat16(tmp_path, pixels):
    encoder, path = find_encoder("timm:test_vit"), save(fresh("test_vit"), tmp_path / "w.pth")
    exact, rough = (
        load_engine(encoder, path, TORCH, input_size=160, precision=precision).embed(pixels)
        for precision in ("float32", "bfloat16")
    )
    assert rough.dtype == np.float32
    assert 1e-5 < np.linalg.norm(rough - exact) / np.linalg.norm(exact) < 5e-2


@needs_timm
def test_autocast_and_random_numbers_of_the_caller_are_left_alone(tmp_path, pixels):
    import torch

    path = save(fresh("test_vit"), tmp_path / "w.pth")
    torch.manual_seed(7)
    expected_draw = torch.rand(1)
    torch.manual_seed(7)
    engine = load_engine(find_encoder("timm:test_vit"), path, TORCH, input_size=160)
    exact = engine.embed(pixels)
    assert torch.rand(1) == expected_draw
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(engine.embed(pixels), exact)


@needs_timm
def test_size_that_the_network_does_not_take(tmp_path):
    name = "timm:vit_tiny_patch16_224"
    path = save(fresh("vit_tiny_patch16_224"), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=rf"input_size: expected a side that {name} takes, got 96 .*for its 224 px"):
        load_engine(find_encoder(name), path, TORCH, input_size=96)


# --- with timm: checkpoints


def refused(path, message, name="timm:test_vit"):
    with pytest.raises(WeightsError, match=message):
        torch_engine.build_network(find_encoder(name), path)


@needs_timm
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("norm.bias"), r"tensors 1 missing \(first 'norm.bias'\)"),
        (lambda state: state.update(extra=state["norm.bias"]), r"tensors 1 unexpected \(first 'extra'\)"),
        (lambda state: state.update(pos_embed=state["pos_embed"][:, :50]), r"1 of another shape \(first 'pos_embed'\)"),
    ],
)
def test_checkpoints_are_loaded_strictly(tmp_path, change, message):
    state = dict(fresh("test_vit").state_dict())
    change(state)
    refused(
        save(state, tmp_path / "w.pth"), rf"w.pth: expected the \d+ tensors of timm:test_vit.*{message}.*timm/test_vit"
    )


@needs_timm
def test_checkpoint_of_another_network(tmp_path):
    refused(save(fresh("test_resnet"), tmp_path / "w.pth"), r"\d+ missing \(first .*\d+ unexpected \(first")
    refused(
        save(fresh("test_vit"), tmp_path / "v.pth"), r"\d+ missing \(first .*\d+ unexpected", name="timm:test_resnet"
    )


@needs_timm
def test_code_in_a_checkpoint_is_not_run(tmp_path):
    import torch

    ran = tmp_path / "ran"

    class Code:
        def __reduce__(self):
            return (Path.touch, (ran,))

    torch.save({"state_dict": Code()}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", r"w.pth: expected the weights of timm:test_vit, got a file .* without running code")
    assert not ran.exists()


@needs_timm
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_truncated_checkpoint(tmp_path, suffix):
    path = save(fresh("test_vit"), tmp_path / f"w{suffix}")
    path.write_bytes(path.read_bytes()[:1000])
    refused(path, rf"w{suffix}: expected the weights of timm:test_vit, got a file that cannot be read")


@needs_timm
@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2]])
def test_checkpoint_without_tensors(tmp_path, content):
    import torch

    torch.save(content, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", rf"expected the tensors of timm:test_vit by name, got {type(content).__name__} without")


@needs_timm
def test_checkpoint_that_timm_cannot_convert(tmp_path, monkeypatch):
    from timm.models import vision_transformer

    def fail(state, network):
        raise KeyError("norm.weight")

    monkeypatch.setattr(vision_transformer, "checkpoint_filter_fn", fail)
    state = dict(fresh("test_vit").state_dict())
    del state["norm.bias"]
    refused(save(state, tmp_path / "w.pth"), r"got a checkpoint that timm cannot turn into its form \('norm.weight'\)")


@needs_timm
@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_wrapped_checkpoints(tmp_path, pixels, key):
    import torch

    whole, body = with_and_without_head("test_resnet")
    state = {f"module.{name}": values for name, values in whole.state_dict().items()}
    torch.save({"epoch": 3, key: state}, tmp_path / "w.pth")
    encoder = find_encoder("timm:test_resnet")
    found = load_engine(encoder, tmp_path / "w.pth", TORCH, input_size=160).embed(pixels)
    np.testing.assert_allclose(found, by_hand(body, encoder, pixels), rtol=1e-4, atol=1e-5)


@needs_timm
def test_counters_of_batches_may_be_missing(tmp_path):
    state = fresh("test_resnet").state_dict()
    older = {key: values for key, values in state.items() if not key.endswith("num_batches_tracked")}
    assert len(older) < len(state)
    network = torch_engine.build_network(find_encoder("timm:test_resnet"), save(older, tmp_path / "w.safetensors"))
    assert not network.training
    assert (network.state_dict()["conv1.0.weight"] == state["conv1.0.weight"]).all()


def as_hugging_face(state: dict) -> dict:
    """Tensors of timm's ViT under the names of Hugging Face's, written from its documentation rather than from ours."""
    plain = {"cls_token": "cls_token", "pos_embed": "position_embeddings", "patch_embed.proj.weight": "patch_embeddings.projection.weight", "patch_embed.proj.bias": "patch_embeddings.projection.bias"}  # fmt: skip # noqa: E501
    block = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.output.dense", "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}  # fmt: skip # noqa: E501
    out = {}
    for key, values in state.items():
        if key in plain:
            out[f"embeddings.{plain[key]}"] = values
        elif key.startswith("norm."):
            out[f"layer{key}"] = values
        elif ".qkv." in key:
            _, number, _, _, kind = key.split(".")
            for name, part in zip(("query", "key", "value"), values.chunk(3), strict=True):
                out[f"encoder.layer.{number}.attention.attention.{name}.{kind}"] = part.clone()
        elif key.startswith("blocks."):
            number, rest = key.removeprefix("blocks.").split(".", 1)
            place, kind = rest.rsplit(".", 1)
            out[f"encoder.layer.{number}.{block[place]}.{kind}"] = values
    return out


@needs_timm
@pytest.mark.parametrize("prefix", ["", "vit."])
def test_phikon_is_published_under_the_names_of_hugging_face(tmp_path, prefix):
    """A narrow Phikon, through the same conversion."""
    import torch

    options = (("embed_dim", 48), ("depth", 2), ("num_heads", 3), ("img_size", 64))
    encoder = dataclasses.replace(TIMM_ENCODERS["phikon"], options=options, n_features=48, default_size=64)
    network = fresh("vit_base_patch16_224", num_classes=0, **dict(options))
    state = {prefix + key: values for key, values in as_hugging_face(network.state_dict()).items()}
    state |= {f"{prefix}embeddings.mask_token": torch.zeros(1, 1, 48), f"{prefix}pooler.dense.bias": torch.zeros(48)}
    pixels = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    found = load_engine(encoder, save(state, tmp_path / "w.safetensors"), TORCH, input_size=64).embed(pixels)
    np.testing.assert_allclose(found, by_hand(network, encoder, pixels), rtol=1e-4, atol=1e-5)


@needs_timm
def test_phikon_agrees_with_hugging_face(tmp_path):
    """The same file, read by the library that it was published for."""
    transformers = pytest.importorskip("transformers", reason="transformers, the other witness, is not installed")
    options = (("embed_dim", 48), ("depth", 2), ("num_heads", 3), ("img_size", 64))
    encoder = dataclasses.replace(TIMM_ENCODERS["phikon"], options=options, n_features=48, default_size=64)
    state = as_hugging_face(fresh("vit_base_patch16_224", num_classes=0, **dict(options)).state_dict())
    path = save(state, tmp_path / "model.safetensors")
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=192, image_size=64,
        layer_norm_eps=1e-6,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    network = transformers.ViTModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    pixels = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    expected = by_hand(lambda x: network(pixel_values=x).last_hidden_state[:, 0], encoder, pixels)
    found = load_engine(encoder, path, TORCH, input_size=64).embed(pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


# --- with timm: the named ones, as their authors write them


HALVES = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
OPTIMUS = {"mean": (0.707223, 0.578729, 0.703617), "std": (0.211883, 0.230117, 0.177517)}
LUNIT = {"mean": (0.70322989, 0.53606487, 0.66096631), "std": (0.21716536, 0.26081574, 0.20723464)}


def gated_layers():
    import timm
    import torch

    return {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": torch.nn.SiLU}


def check_named(name, network, pixels, folder, *, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), tokens=None):
    """Compare a named encoder with a network of timm, whose class token (and mean of `tokens`) is the embedding."""
    save(network, folder / f"{name}.safetensors")
    witness = SimpleNamespace(mean=mean, std=std)
    expected = by_hand(network if tokens is None else network.forward_features, witness, pixels)
    if tokens is not None:
        expected = np.concatenate([expected[:, 0], expected[:, tokens:].mean(axis=1)], axis=1)
    embedding = CNNEmbedding(name, weights_dir=folder, device="cpu")
    found = embedding.fit_transform(pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert found.shape == (len(pixels), find_encoder(name).n_features)
    return embedding


@needs_timm
@pytest.mark.parametrize(
    ("name", "architecture", "pixels_as"),
    [
        ("kaiko-vits16", "vit_small_patch16_224", HALVES),
        ("kaiko-vits8", "vit_small_patch8_224", HALVES),
        ("lunit-vits16", "vit_small_patch16_224", LUNIT),
        ("lunit-vits8", "vit_small_patch8_224", LUNIT),
        pytest.param("kaiko-vitb16", "vit_base_patch16_224", HALVES, marks=pytest.mark.long),
        pytest.param("kaiko-vitb8", "vit_base_patch8_224", HALVES, marks=pytest.mark.long),
        pytest.param("h0-mini", "vit_base_patch14_reg4_dinov2", OPTIMUS, marks=pytest.mark.long),
    ],
)
def test_small_ones_at_full_size(name, architecture, pixels_as, tmp_path):
    options = {"dynamic_img_size": True}
    if name == "h0-mini":  # as the authors' benchmark builds it; 4096 is twice two thirds of 4 * 768
        options = {"img_size": 224, "init_values": 1e-5, "mlp_ratio": 4096.5 / 768, **gated_layers()}
    network = fresh(architecture, num_classes=0, **options)
    pixels = np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    embedding = check_named(name, network, pixels, tmp_path, **pixels_as)
    # The first embedding of a test image is remembered; another one under the same weights is refused.
    (kept,) = (tmp_path / "cache" / "histofeat" / "fingerprints").iterdir()
    assert kept.name.startswith(f"{name}-{embedding.weights_hash()}-224-avg-float32-")
    kept.write_text(json.dumps((np.array(json.loads(kept.read_text())) + 1).tolist()))
    engines._loaded.clear()
    with pytest.raises(WeightsError, match=rf"{name}: expected the fingerprint of the test image to be the first one"):
        embedding.transform(pixels)


#: As the authors' pages have them: architecture in timm, options, pixels and the tokens before the patches.
LARGE = {
    "kaiko-vitl14": ("vit_large_patch14_reg4_dinov2", {"img_size": 518, "dynamic_img_size": True}, HALVES, None),
    "uni2-h": (
        "vit_giant_patch14_224",
        {"img_size": 224, "patch_size": 14, "init_values": 1e-5, "mlp_ratio": 2.66667 * 2, "no_embed_class": True,
         "reg_tokens": 8, "dynamic_img_size": True},
        {}, None,
    ),
    "virchow2": (
        "vit_huge_patch14_224",
        {"img_size": 224, "init_values": 1e-5, "reg_tokens": 4, "mlp_ratio": 5.3375, "dynamic_img_size": True}, {}, 5,
    ),
    "h-optimus-1": (
        "vit_giant_patch14_reg4_dinov2", {"img_size": 224, "init_values": 1e-5, "dynamic_img_size": False}, OPTIMUS,
        None,
    ),
    "midnight-12k": ("vit_giant_patch14_dinov2", {"img_size": 224}, HALVES, 1),
}  # fmt: skip
NARROW = {"embed_dim": 48, "depth": 2, "num_heads": 4}


@pytest.fixture
def narrow(monkeypatch):
    """Make the records of large encoders those of narrow copies: the same options, width 48 and two blocks."""

    def change(name):
        encoder = TIMM_ENCODERS[name]
        options = tuple((dict(encoder.options) | NARROW).items())
        n_features = 96 if encoder.embedding == "class_and_mean" else 48
        copy_ = dataclasses.replace(encoder, options=options, n_features=n_features)
        monkeypatch.setattr(catalogue, "ENCODERS", {**ENCODERS, name: copy_})
        return copy_

    return change


@needs_timm
@pytest.mark.parametrize("name", LARGE)
def test_large_ones_as_narrow_copies(name, narrow, tmp_path):
    narrow(name)
    architecture, options, pixels_as, tokens = LARGE[name]
    layers = gated_layers() if name in ("uni2-h", "virchow2") else {}
    network = fresh(architecture, num_classes=0, **options, **NARROW, **layers)
    if name == "kaiko-vitl14":  # built for 518 px, and given 224
        assert network.pos_embed.shape == (1, 37 * 37, 48)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    check_named(name, network, pixels, tmp_path, tokens=tokens, **pixels_as)


def as_hugging_face_dinov2(state: dict) -> dict:
    """Tensors of timm's DINOv2 with a gated MLP under the names of Hugging Face's."""
    out = as_hugging_face({key: value for key, value in state.items() if not re.search(r"\.(norm\d|ls\d|mlp)", key)})
    for key, values in state.items():
        if block := re.match(r"blocks\.(\d+)\.(norm\d|ls(\d)\.gamma|mlp\.fc(\d))(.*)", key):
            number, part, scale, layer, rest = block.groups()
            inside = f"layer_scale{scale}.lambda1" if scale else f"mlp.weights_{'in' if layer == '1' else 'out'}"
            out[f"encoder.layer.{number}.{part if part.startswith('norm') else inside}{rest}"] = values
    return out


@needs_timm
@pytest.mark.parametrize("size", [224, 518])
def test_midnight_is_published_under_the_names_of_hugging_face(size, narrow, tmp_path):
    """Its positions may be those of the images that it was trained on, or those of the network that it began with."""
    import torch

    encoder = narrow("midnight-12k")
    network = fresh("vit_giant_patch14_dinov2", num_classes=0, img_size=224, **NARROW)
    state = as_hugging_face_dinov2(network.state_dict())
    if size == 518:  # resampled to 224 px without smoothing, as Hugging Face does
        grid = torch.randn(1, 48, 37, 37) / 10
        own = torch.nn.functional.interpolate(grid, (16, 16), mode="bicubic", align_corners=False)
        network.pos_embed.data[:, 1:] = own.flatten(2).mT
        first = network.pos_embed.data[:, :1].clone()
        state["embeddings.position_embeddings"] = torch.cat([first, grid.flatten(2).mT], dim=1)
    assert {"encoder.layer.1.layer_scale2.lambda1", "encoder.layer.0.mlp.weights_in.bias"} <= set(state)
    path = save({**state, "embeddings.mask_token": torch.zeros(1, 48)}, tmp_path / "model.safetensors")
    pixels = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    found = load_engine(encoder, path, TORCH, input_size=224).embed(pixels)
    tokens = by_hand(network.forward_features, encoder, pixels)
    expected = np.concatenate([tokens[:, 0], tokens[:, 1:].mean(axis=1)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@needs_timm
@pytest.mark.parametrize("size", [224, 518])
def test_midnight_agrees_with_hugging_face(size, narrow, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers, the other witness, is not installed")
    encoder = narrow("midnight-12k")
    config = transformers.Dinov2Config(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=size, use_swiglu_ffn=True,
    )  # fmt: skip
    network = transformers.Dinov2Model(config).eval()
    network.save_pretrained(tmp_path)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    tokens = by_hand(lambda x: network(pixel_values=x).last_hidden_state, encoder, pixels)
    expected = np.concatenate([tokens[:, 0], tokens[:, 1:].mean(axis=1)], axis=1)
    found = load_engine(encoder, tmp_path / "model.safetensors", TORCH, input_size=224).embed(pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@needs_timm
def test_ctranspath_in_its_authors_form(tmp_path):
    """Merging at the end of a stage, buffers among the weights, "model" around them: as the authors' file has it."""
    import torch

    encoder = TIMM_ENCODERS["ctranspath"]
    network = fresh("swin_tiny_patch4_window7_224", num_classes=0)
    torch.manual_seed(2)
    network.patch_embed.proj = torch_engine._conv_stem(torch, 96).eval()
    state = {}
    for key, values in network.state_dict().items():
        found = re.match(r"layers\.(\d)\.downsample\.(.*)", key)
        state[f"layers.{int(found[1]) - 1}.downsample.{found[2]}" if found else key] = values
    assert [key for key in state if key.startswith("patch_embed.proj.6.")]
    buffers = {"layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}
    buffers["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
    torch.save({"model": {**state, **buffers}}, tmp_path / "ctranspath.pth")
    pixels = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    found = CNNEmbedding("ctranspath", weights_dir=tmp_path, device="cpu").fit_transform(pixels)
    np.testing.assert_allclose(found, by_hand(network, encoder, pixels), rtol=1e-3, atol=1e-4)


# --- with huggingface_hub: its cache, and no network


@needs_timm
def test_the_hubs_cache_serves_without_a_network(tmp_path, monkeypatch, pixels):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository, commit = tmp_path / "models--owner--tiny", "0" * 40
    put(repository / "refs" / "main", commit.encode())
    snapshot = repository / "snapshots" / commit
    config = {
        "architecture": "test_resnet",
        "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3, "input_size": [3, 160, 160]},
    }
    put(snapshot / "config.json", json.dumps(config).encode())
    whole, body = with_and_without_head("test_resnet")
    path = save(whole, snapshot / "model.safetensors")
    embedding = CNNEmbedding("hf-hub:owner/tiny", device="cpu")
    assert embedding.weights_hash() == hash_weights(path)
    encoder = find_encoder("hf-hub:owner/tiny")
    expected = by_hand(body, encoder, pixels)
    np.testing.assert_allclose(embedding.fit_transform(pixels), expected, rtol=1e-4, atol=1e-5)
    assert embedding.get_feature_names_out()[0] == "cnn_hf-hub:owner/tiny_0000"


@needs_timm
def test_offline_and_not_in_the_cache(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        WeightsError, match=r"uni: expected its published weights .*MahmoodLab/UNI, accept the terms there"
    ):
        find_weights(TIMM_ENCODERS["uni"])
    assert import_hub() is huggingface_hub


@needs_timm
@pytest.mark.parametrize("missing", ["torch", "timm", "safetensors"])
def test_what_is_missing_names_the_extra(tmp_path, monkeypatch, missing):
    path = save(fresh("test_vit"), tmp_path / "w.safetensors")
    encoder = find_encoder("timm:test_vit")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=r'expected .*pip install "histofeat\[timm\]"'):
        load_engine(encoder, path, TORCH, input_size=160)
