"""Find an encoder and its weights by name."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from histofeat.exceptions import WeightsError, known_names
from histofeat.networks.pretrained.records import ENCODERS, Encoder
from histofeat.networks.pretrained.timm_records import _HUB_FILES, _IMAGENET, HUB, TIMM, TIMM_ENCODERS, TimmEncoder
from histofeat.networks.pretrained.weights import (
    WEIGHTS_VARIABLE,
    _check_file,
    _check_folder,
    _download,
    _keras_cache,
    shipped_weights,
)

__all__ = ["ad_hoc_encoder", "find_encoder", "find_weights", "is_ad_hoc"]


def find_encoder(name: str, *, owner: str = "CNNEmbedding.encoder") -> Encoder | TimmEncoder:
    """The record of an encoder by name.

    Parameters
    ----------
    name : str
        A key of `ENCODERS` or of `TIMM_ENCODERS`; or ``timm:<model>`` or ``hf-hub:<owner/repository>``, of which a
        record is made, see `ad_hoc_encoder`.
    owner : str
        What the error message calls the parameter.

    Returns
    -------
    encoder : Encoder or TimmEncoder
        The record.

    Raises
    ------
    ValueError
        If there is no such encoder; the message gives the nearest name.
    WeightsError, MissingExtraError
        Of ``timm:`` and ``hf-hub:`` only: see `ad_hoc_encoder`.

    Examples
    --------
    >>> find_encoder("resnet50").constructor
    'ResNet50'
    """
    named = {**ENCODERS, **TIMM_ENCODERS}
    if isinstance(name, str) and name in named:
        return named[name]
    if isinstance(name, str) and is_ad_hoc(name):
        return ad_hoc_encoder(name, owner=owner)
    raise ValueError(f"{owner}: expected the name of an encoder, got {name!r}. {known_names(name, named)}")


def is_ad_hoc(name: str) -> bool:
    """Whether a name is one of timm (``timm:<model>``) or of a repository of the hub (``hf-hub:<owner>/<name>``)."""
    return name.startswith((TIMM, HUB))


def ad_hoc_encoder(name: str, *, owner: str = "CNNEmbedding.encoder") -> TimmEncoder:
    """The record of a network that has no name of its own here.

    Parameters
    ----------
    name : str
        ``timm:<model>``, for example ``timm:resnet18`` or with a tag ``timm:resnet18.a1_in1k``; or
        ``hf-hub:<owner/repository>``, whose ``config.json`` is read from the hub's cache or from the hub.
    owner : str
        What the error message calls the parameter.

    Returns
    -------
    encoder : TimmEncoder
        Input size and normalisation are those of the published weights; the embedding is the one that timm pools.

    Raises
    ------
    ValueError
        If timm does not know the network, or the network gives no vector.
    WeightsError
        If the repository has no configuration of timm, or it cannot be had.
    MissingExtraError
        If timm, PyTorch or huggingface_hub is not installed.
    """
    prefix = TIMM if name.startswith(TIMM) else HUB
    rest = name.removeprefix(prefix)
    return _of_timm(rest, owner) if prefix == TIMM else _of_hub(rest, owner)


@functools.lru_cache(maxsize=64)
def _of_timm(model: str, owner: str) -> TimmEncoder:
    from histofeat.networks.pretrained import torch_engine

    config = torch_engine.published_config(model)
    if config is None:
        hint = known_names(model, torch_engine.network_names())
        near = hint if hint.startswith("Did you mean") else "`timm.list_models()` gives the names."
        raise ValueError(f"{owner}: expected the name of a network of timm after 'timm:', got {model!r}. {near}")
    files = (config["hf_hub_filename"],) if config.get("hf_hub_filename") else _HUB_FILES
    return _record(
        f"{TIMM}{model}", model, config, hub_id=config.get("hf_hub_id"), hub_files=files, options=(), owner=owner
    )


@functools.lru_cache(maxsize=64)
def _of_hub(repository: str, owner: str) -> TimmEncoder:
    from histofeat.networks.pretrained import timm_weights, torch_engine

    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ValueError(
            f"{owner}: expected 'hf-hub:<owner>/<repository>', got {HUB + repository!r}. Copy the two names from the "
            "address of the model's page."
        )
    config = timm_weights.read_config(repository)
    architecture = config.get("architecture")
    if architecture is None or torch_engine.published_config(architecture) is None:
        raise WeightsError(
            f"{HUB}{repository}: expected a config.json that names a network of timm as its 'architecture', got "
            f"{architecture!r}. Only repositories of timm's form can be used by their name."
        )
    # Without pooling a network gives tokens; its own way to pool them is then the one to take.
    given = {key: value for key, value in config.get("model_args", {}).items() if (key, value) != ("global_pool", "")}
    options = tuple(
        (key, tuple(value) if isinstance(value, list) else value)
        for key, value in given.items()
        if key not in ("num_classes", "in_chans")
    )
    # Old repositories of timm hold what is now under "pretrained_cfg" at the top.
    published = config.get("pretrained_cfg", config)
    return _record(
        f"{HUB}{repository}", architecture, published, hub_id=repository, hub_files=_HUB_FILES, options=options,
        owner=owner,
    )  # fmt: skip


def _record(name, architecture, config, *, hub_id, hub_files, options, owner) -> TimmEncoder:
    from histofeat.networks.pretrained import torch_engine

    size = int(config.get("input_size", (3, 224, 224))[-1])
    return TimmEncoder(
        name=name,
        architecture=architecture,
        n_features=torch_engine.vector_length(architecture, options, size, owner=owner),
        hub_id=hub_id,
        options=options,
        mean=tuple(config.get("mean", _IMAGENET["mean"])),
        std=tuple(config.get("std", _IMAGENET["std"])),
        default_size=size,
        minimum_size=min(64, size),
        hub_files=hub_files,
        licence=str(config.get("license") or ""),
    )


def find_weights(encoder: Encoder, weights="imagenet", weights_dir=None) -> Path:
    """The file that holds the weights of an encoder.

    Parameters
    ----------
    encoder : Encoder
        The network.
    weights : {"imagenet"} or path
        A file of weights (``.h5``, ``.weights.h5``, ``.keras``), or "imagenet" for the published ones.
    weights_dir : path or None
        Folder to look in for ``"imagenet"``; None reads the environment variable ``HISTOFEAT_WEIGHTS``. After
        it come Keras's cache (``$KERAS_HOME/models`` or ``~/.keras/models``) and a download by Keras into it.

    Returns
    -------
    path : Path
        An existing file with the signature of its format.

    Raises
    ------
    WeightsError
        If the file does not exist, is not of its format, or cannot be had by any of these ways; the message
        says which file to put where.

    Notes
    -----
    The published weights of an encoder of histofeat's own lie in the package, whatever the name or folder asked for.
    Those of a network of others are found by `histofeat.networks.pretrained.timm_weights.find_timm_weights`.
    """
    if encoder.source == "timm":
        # Imported here because that module builds on this one.
        from histofeat.networks.pretrained.timm_weights import find_timm_weights

        return find_timm_weights(encoder, weights, weights_dir)
    if str(weights) != "imagenet":
        return _check_file(encoder, Path(weights).expanduser())
    if encoder.source == "histofeat":
        return _check_file(encoder, shipped_weights(encoder))
    folders = []
    folder = weights_dir if weights_dir is not None else os.environ.get(WEIGHTS_VARIABLE)
    if folder:
        folders.append(_check_folder(Path(folder).expanduser(), given=weights_dir is not None))
    folders.append(_keras_cache())
    for place in folders:
        for name in encoder.accepted_files:
            if (place / name).exists():
                return _check_file(encoder, place / name)
    return _download(encoder, folders)
