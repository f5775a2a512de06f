"""Encoders of timm in PyTorch: describe a network, build it, load its weights strictly, run it."""

import contextlib
import pickle
import re
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from histofeat.exceptions import DAMAGED, WeightsError, first_line, needs
from histofeat.networks.pretrained._network import _quiet
from histofeat.networks.pretrained._records import TimmEncoder

#: Raised whenever what this module computes from the same pixels and weights changes.
TORCH_VERSION = 1
#: What PyTorch, safetensors (whose own error is added where it is caught) and timm's conversion of older checkpoints
#: raise for a file that is damaged, holds code, or belongs to another network.
_LOAD_ERRORS = (*DAMAGED, pickle.UnpicklingError)
_COUNTER = ".num_batches_tracked"
#: From the names of Hugging Face's ViT and DINOv2 to timm's, in this order; query, key and value are joined beside.
_VIT_NAMES = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.(intermediate\.dense|mlp\.weights_in)\.", ".mlp.fc1."),
    (r"\.(output\.dense|mlp\.weights_out)\.", ".mlp.fc2."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
)


def import_timm():
    """The modules ``torch`` and ``timm``.

    Raises
    ------
    MissingExtraError
        If one of them is not installed.
    """
    # A timm that is older than its PyTorch deprecates at import; nothing a user of histofeat can act on.
    with _quiet(), needs("histofeat[timm]", "timm: expected timm and PyTorch for this encoder"):
        import timm
        import timm.layers
        import torch
    return torch, timm


def visible_gpus() -> int:
    """How many GPUs PyTorch can use."""
    return import_timm()[0].cuda.device_count()


def network_names() -> list[str]:
    """Names of the networks that timm builds, without tags of weights."""
    return import_timm()[1].list_models()


def published_config(model: str) -> dict | None:
    """What timm knows of the published weights of a network; None for a name or a tag that it does not know."""
    timm = import_timm()[1]
    if not timm.is_model(model):
        return None
    try:
        config = timm.get_pretrained_cfg(model)
    except RuntimeError:  # how timm answers a tag that does not exist
        return None
    return {} if config is None else config.to_dict()


def vector_length(architecture: str, options, size: int, *, owner: str) -> int:
    """Length of the embedding of a network, found without computing it.

    Parameters
    ----------
    architecture : str
        Name in timm.
    options : tuple of (str, value)
        Further arguments, as in `TimmEncoder`.
    size : int
        Side of the input in px.
    owner : str
        What the error message calls the parameter.

    Raises
    ------
    ValueError
        If timm does not take the options, or the network gives no vector.
    """
    torch, _ = import_timm()
    try:
        with torch.device("meta"), torch.inference_mode():
            shape = tuple(_create(architecture, options).eval()(torch.zeros(1, 3, size, size)).shape)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{owner}: expected a network of timm that takes its options, got {architecture!r} with {dict(options)}: "
            f"{first_line(error)}. Use another one, or a newer timm."
        ) from error
    if len(shape) != 2:
        raise ValueError(
            f"{owner}: expected a network that gives one vector per patch, got {architecture!r}, which gives the shape "
            f"{shape[1:]}. Use one that pools its output."
        )
    return shape[1]


def build_network(encoder: TimmEncoder, weights: Path):
    """The network in PyTorch with its weights, in evaluation mode: normalised pixels in.

    Parameters
    ----------
    encoder : TimmEncoder
        The network.
    weights : Path
        Its checkpoint. No code in it is run.

    Returns
    -------
    network : torch.nn.Module
        Without classification layer.

    Raises
    ------
    WeightsError
        If the file is damaged, or lacks tensors of the network, or has others than those and a classification layer.
    MissingExtraError
        If timm, PyTorch or safetensors is not installed.
    """
    torch, _ = import_timm()
    state = _read_checkpoint(torch, encoder, weights)
    # Building draws random weights, and the user's own draws should not depend on it.
    with torch.random.fork_rng(devices=[]):
        network = _create(encoder.architecture, encoder.options)
        if encoder.stem == "conv":
            network.patch_embed.proj = _conv_stem(torch, network.patch_embed.proj.out_channels)
    _load(torch, network, state, encoder, weights)
    return network.eval().requires_grad_(False)


#: Pixels in the memory of the device that embeds them: for each pass through the network the number of patches, and
#: their tensor, which may be filled up with black ones.
Staged = list[tuple[int, Any]]


class StagedEngine:
    """Base class of engines whose device has a memory of its own, to which pixels are copied pass by pass.

    An engine has ``n_features`` and a ``_lock``, and implements ``_send(pixels, batch_size)``, which copies the pixels
    of one pass, and ``_vectors(tensor)``, their embeddings.
    """

    def stage(self, pixels: np.ndarray, *, batch_size: int | None = None) -> Staged:
        """Copy pixels (n, size, size, 3) uint8 to the device, in passes of at most `batch_size`, by default 64.

        It does not wait for a network that is running, so that the copy of the next patches hides behind it.
        """
        size = batch_size or 64
        chunks = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        with self._on_device():
            return [(len(chunk), self._send(chunk, size)) for chunk in chunks]

    def embed(self, pixels: Staged | np.ndarray, *, batch_size: int | None = None) -> np.ndarray:
        """Embeddings (n, d) float32 of pixels (n, size, size, 3) uint8, staged or not; see `stage`."""
        passes = self.stage(pixels, batch_size=batch_size) if isinstance(pixels, np.ndarray) else pixels
        out, at = np.empty((sum(rows for rows, _ in passes), self.n_features), dtype=np.float32), 0
        with self._lock, self._on_device():
            for rows, tensor in passes:
                out[at : at + rows] = self._vectors(tensor)[:rows]
                at += rows
        return out

    def _on_device(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()


class TorchEngine(StagedEngine):
    """A network of timm in PyTorch, on the CPU or a GPU.

    Parameters
    ----------
    encoder : TimmEncoder
        The network.
    weights : Path
        File of its weights.
    input_size : int
        Side of the input in px.
    precision : {"float32", "bfloat16"}
        Arithmetic of the layers, through autocast; the weights and the embedding are float32.
    device : str
        ``"cpu"``, ``"gpu:0"`` and so on.
    pooling : {"avg"}
        The authors' way, the only one that networks of timm have.

    Raises
    ------
    ValueError
        If the network does not take patches of this size.
    WeightsError
        See `build_network`.
    """

    name = "torch"

    def __init__(self, encoder: TimmEncoder, weights: Path, *, input_size, precision, device, pooling="avg"):
        self._torch, _ = import_timm()
        self._lock = threading.Lock()
        self._bfloat16 = precision == "bfloat16"
        self._class_and_mean = encoder.embedding == "class_and_mean"
        self.n_features = encoder.n_features
        network = build_network(encoder, weights)
        self.n_parameters: int = sum(tensor.numel() for tensor in network.parameters())
        self._to("cpu", network, encoder)
        self._check_size(encoder, input_size)
        self._to(device.replace("gpu", "cuda"), network, encoder)

    def _send(self, pixels: np.ndarray, batch_size: int):
        host = self._torch.tensor(np.ascontiguousarray(pixels))
        if self._device.type == "cuda":
            host = host.pin_memory().to(self._device, non_blocking=True)
        return host

    def _to(self, device: str, network, encoder: TimmEncoder) -> None:
        self._device = self._torch.device(device)
        self._network = network.to(self._device)
        self._mean, self._std = (
            self._torch.tensor(values, dtype=self._torch.float32, device=self._device).reshape(1, 3, 1, 1)
            for values in (encoder.mean, encoder.std)
        )

    def _vectors(self, tensor) -> np.ndarray:
        torch, network = self._torch, self._network
        # Set explicitly, so that an autocast around the caller does not change the numbers.
        autocast = torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._bfloat16)
        with torch.inference_mode(), autocast:
            x = (tensor.permute(0, 3, 1, 2).float().div(255) - self._mean) / self._std
            if self._class_and_mean:
                tokens = network.forward_features(x)
                x = torch.cat([tokens[:, 0], tokens[:, network.num_prefix_tokens :].mean(dim=1)], dim=-1)
            else:
                x = network(x)
        return x.float().cpu().numpy()

    def _check_size(self, encoder: TimmEncoder, size: int) -> None:
        try:
            self._vectors(self._torch.zeros(1, size, size, 3, dtype=self._torch.uint8))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"CNNEmbedding.input_size: expected a side that {encoder.name} takes, got {size} "
                f"({first_line(error)}). Use input_size=None for its {encoder.default_size} px."
            ) from error


def _create(architecture: str, options):
    torch, timm = import_timm()
    homes, given = {"timm.layers": timm.layers, "torch.nn": torch.nn}, dict(options)
    for key, value in options:
        home, _, name = str(value).partition(":")
        if home in homes:
            given[key] = getattr(homes[home], name)
    return timm.create_model(architecture, pretrained=False, num_classes=0, **given)


def _conv_stem(torch, width: int):
    """Give the stem of CTransPath: two strided convolutions, then one that mixes channels."""
    nn, layers, channels = torch.nn, [], 3
    for wider in (width // 8, width // 4):
        layers += [nn.Conv2d(channels, wider, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()]
        channels = wider
    return nn.Sequential(*layers, nn.Conv2d(channels, width, 1))


def _read_checkpoint(torch, encoder: TimmEncoder, path: Path) -> dict:
    with needs("histofeat[timm]", "safetensors: expected it to read weights of this encoder"):
        import safetensors
        import safetensors.torch
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path, device="cpu")
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (*_LOAD_ERRORS, safetensors.SafetensorError) as error:
        raise WeightsError(
            f"{path}: expected the weights of {encoder.name}, got a file that cannot be read as tensors without "
            f"running code ({first_line(error)}). Copy or download it again, or save it with safetensors."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    tensors = {k: v for k, v in state.items() if torch.is_tensor(v)} if isinstance(state, Mapping) else {}
    if not tensors:
        raise WeightsError(
            f"{path}: expected the tensors of {encoder.name} by name, got {type(state).__name__} without any. "
            "Save `network.state_dict()`."
        )
    return {key.removeprefix("module."): value for key, value in tensors.items()}


def _load(torch, network, state: dict, encoder: TimmEncoder, path: Path) -> None:
    own = network.state_dict()
    try:
        state = _in_timms_names(torch, network, own, state)
    except _LOAD_ERRORS as error:
        raise WeightsError(
            f"{path}: expected the weights of {encoder.name}, got a checkpoint that timm cannot turn into its form "
            f"({first_line(error)}). Use the file of {encoder.hub_id or 'that network'}."
        ) from error
    faults = (
        ("missing", sorted(key for key in own.keys() - state.keys() if not key.endswith(_COUNTER))),
        ("unexpected", sorted(state.keys() - own.keys())),
        ("of another shape", sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)),
    )
    if any(keys for _, keys in faults):
        said = ", ".join(f"{len(keys)} {what} (first {keys[0]!r})" for what, keys in faults if keys)
        raise WeightsError(
            f"{path}: expected the {len(own)} tensors of {encoder.name} and at most a classification layer, got a "
            f"checkpoint with tensors {said}. Use the file of {encoder.hub_id or 'that network'}."
        )
    counters = {key: value for key, value in own.items() if key.endswith(_COUNTER)}
    network.load_state_dict({**counters, **state}, strict=True)


def _in_timms_names(torch, network, own: dict, state: dict) -> dict:
    """Give a checkpoint under the names of timm, without its classification layer."""
    if "embeddings.cls_token" in state or "vit.embeddings.cls_token" in state:
        state = _from_hugging_face_vit(torch, state)
        both = "pos_embed" in state and "pos_embed" in own
        if both and state["pos_embed"].shape[1] != own["pos_embed"].shape[1]:
            # Those of another input size are resampled, as Hugging Face does.
            resample, grid = import_timm()[1].layers.resample_abs_pos_embed, list(network.patch_embed.grid_size)
            state["pos_embed"] = resample(state["pos_embed"], grid, num_prefix_tokens=1, antialias=False)
    config = getattr(network, "pretrained_cfg", None) or {}
    heads = config.get("classifier") or ()
    heads = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
    rewrite = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    body = _without(state, heads, own)
    if rewrite is None or {k for k in body if not k.endswith(_COUNTER)} == {k for k in own if not k.endswith(_COUNTER)}:
        return body
    return _without(rewrite(dict(state), network), heads, own)


def _without(state: dict, heads: tuple[str, ...], own: dict) -> dict:
    return {key: value for key, value in state.items() if key in own or not key.startswith(heads)}


def _from_hugging_face_vit(torch, state: dict) -> dict:
    """Give a checkpoint of Hugging Face's ViT or DINOv2 under timm's names, without what only its training needs."""
    state = {key.removeprefix("vit."): value for key, value in state.items()}
    out, joined = {}, {}
    for key, value in state.items():
        part = re.match(r"^encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)$", key)
        if part:
            joined.setdefault((part[1], part[3]), {})[part[2]] = value
        elif not key.startswith(("pooler.", "embeddings.mask_token")):
            for pattern, name in _VIT_NAMES:
                key = re.sub(pattern, name, key)
            out[key] = value
    for (block, kind), parts in joined.items():
        out[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat([parts[name] for name in ("query", "key", "value")])
    return out
