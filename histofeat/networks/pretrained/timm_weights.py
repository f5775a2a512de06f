"""Where the weights of a network of others are: a file, a folder, the hub's cache, or the hub, in that order."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from histofeat.exceptions import MissingExtraError, WeightsError
from histofeat.networks.pretrained import weights as keras_weights
from histofeat.networks.pretrained.timm_records import TimmEncoder

__all__ = ["find_timm_weights", "import_hub", "read_config"]

_log = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
#: How files start, at which byte: a header in JSON after its length; an archive, or a pickle of old.
_SIGNATURES = {
    ".safetensors": (8, (b"{",)),
    ".bin": (0, (b"PK\x03\x04", b"\x80")),
    ".pth": (0, (b"PK\x03\x04", b"\x80")),
}


def import_hub():
    """The module ``huggingface_hub``.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError(
            f"huggingface_hub: expected it for the published weights of networks of others, got {error}. "
            'Install it with pip install "histofeat[timm]", or pass weights=<path>.'
        ) from error
    return huggingface_hub


def find_timm_weights(encoder: TimmEncoder, weights="imagenet", weights_dir=None) -> Path:
    """The one file that holds the weights of a network of others.

    Parameters
    ----------
    encoder : TimmEncoder
        The network.
    weights : {"imagenet"} or path
        A checkpoint (``.safetensors``, ``.bin``, ``.pth``), or the published weights, whatever they were trained on.
    weights_dir : path or None
        Folder to look in for the published weights; None reads the environment variable ``HISTOFEAT_WEIGHTS``. After
        it come the cache of huggingface_hub, which needs no network, and a download into it.

    Returns
    -------
    path : Path
        An existing file with the signature of its format.

    Raises
    ------
    WeightsError
        If the file does not exist, is not of its format, or cannot be had; the message says how to get access.
    MissingExtraError
        If huggingface_hub is needed and not installed.
    """
    if str(weights) != "imagenet":
        return _check_file(encoder, Path(weights).expanduser())
    folder = weights_dir if weights_dir is not None else os.environ.get(keras_weights.WEIGHTS_VARIABLE)
    searched = "the hub's cache"
    if folder:
        place = keras_weights._check_folder(Path(folder).expanduser(), given=weights_dir is not None)
        searched = f"{place} or {searched}"
        for name in encoder.accepted_files:
            if (place / name).exists():
                return _check_file(encoder, place / name)
    error = None
    if encoder.hub_id is not None:
        found, error = _fetch(encoder.hub_id, encoder.hub_files)
        if found is not None:
            return _check_file(encoder, found)
    raise WeightsError(
        f"{encoder.name}: expected its published weights ({' or '.join(encoder.hub_files)}), got no such file in "
        f"{searched} and no download ({_first_line(error)}). {encoder.access} Or put {encoder.weight_file} into a "
        f"folder and name it by weights_dir or by the environment variable {keras_weights.WEIGHTS_VARIABLE}, or pass "
        "weights=<path>."
    ) from error


def read_config(repository: str) -> dict:
    """The ``config.json`` of a repository of the hub.

    Parameters
    ----------
    repository : str
        ``owner/repository``.

    Returns
    -------
    config : dict
        As it stands there.

    Raises
    ------
    WeightsError
        If it cannot be had, or is no JSON object.
    MissingExtraError
        If huggingface_hub is not installed.
    """
    path, error = _fetch(repository, ("config.json",))
    if path is None:
        raise WeightsError(
            f"hf-hub:{repository}: expected its config.json, got no such file in the hub's cache and no download "
            f"({_first_line(error)}). Correct the name; if https://huggingface.co/{repository} is gated, accept the "
            "terms there and log in with a token (`hf auth login`, or the environment variable HF_TOKEN)."
        ) from error
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path}: expected JSON, got {error}. Remove the file and try again.") from error
    if not isinstance(config, dict):
        raise WeightsError(
            f"{path}: expected a JSON object, got {type(config).__name__}. Correct the repository's name."
        )
    return config


def _fetch(repository: str, names: tuple[str, ...]) -> tuple[Path | None, Exception | None]:
    """Give the first of some files that the cache holds, else that can be downloaded, else why there is none."""
    hub = import_hub()
    for name in names:
        cached = hub.try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached), None
    failure = None
    # A connection that breaks is an error of the HTTP client, whose package is the hub's own choice.
    broken = getattr(hub.errors, "HTTPError", OSError)
    for name in names:
        try:
            _log.info("asking the hub for %s of %s", name, repository)
            return Path(hub.hf_hub_download(repository, name, etag_timeout=_TIMEOUT_S)), None
        except hub.errors.LocalEntryNotFoundError as error:
            return None, error
        except hub.errors.EntryNotFoundError as error:
            failure = error
        except (OSError, ValueError, broken) as error:
            return None, error
    return None, failure


def _first_line(error: Exception | None) -> str:
    if error is None:
        return "none is published there"
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _check_file(encoder: TimmEncoder, path: Path) -> Path:
    if not path.is_file():
        raise WeightsError(
            f"{path}: expected a file of {encoder.name} weights, got no such file. Correct the path, or use "
            f'weights="imagenet" for the published ones. {encoder.access}'
        )
    if path.suffix not in _SIGNATURES:
        raise WeightsError(
            f"{path}: expected weights of {encoder.name} as .safetensors, .bin or .pth, got the suffix "
            f"{path.suffix!r}. Save them with safetensors or with `torch.save(network.state_dict(), ...)` under one of "
            "these names."
        )
    at, signatures = _SIGNATURES[path.suffix]
    with path.open("rb") as file:
        start = file.read(16)
    if not start[at:].startswith(signatures):
        raise WeightsError(
            f"{path}: expected a checkpoint of PyTorch in the format of its suffix, got {path.stat().st_size} bytes "
            f"that start with {start!r}. Copy or download it again."
        )
    return path
