"""Pretrained weights of a model: known by their content, left where they are, found again on another machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from histofeat.exceptions import WeightsError
from histofeat.models.named_parts import as_sequence
from histofeat.networks import find_encoder, find_weights, hash_weights

__all__ = ["describe_weights", "settle_weights", "without_paths"]

_VARIABLE = "HISTOFEAT_WEIGHTS"
_PLACES = ("weights", "weights_dir")


def _embeddings(families: Sequence) -> list:
    return [family for family in families if family.family == "cnn"]


def describe_weights(families: Sequence) -> list[dict]:
    """Say which weights the embeddings among fitted families use.

    Parameters
    ----------
    families : sequence of PatchFeatures
        The families of a fitted pipeline.

    Returns
    -------
    records : list of dict
        One for each embedding, in order: ``encoder``, ``weights`` ("imagenet" or the name of a file), ``hash`` (as
        `histofeat.networks.hash_weights` gives it) and ``engine``. No path.

    Raises
    ------
    WeightsError
        If the weights cannot be had any more.
    """
    return [
        {
            "encoder": family.encoder,
            "weights": "imagenet" if str(family.weights) == "imagenet" else Path(family.weights).name,
            "hash": family.weights_hash(),
            "engine": family.engine_,
        }
        for family in _embeddings(families)
    ]


def without_paths(pipeline) -> None:
    """Take the places of weights out of a copy of a pipeline, which are of one machine: nothing else changes."""
    given = [entry for entry in _entries(pipeline) if not isinstance(entry, str)]
    for family in _embeddings([*given, *_fitted(pipeline)]):
        family.weights, family.weights_dir = "imagenet", None
    if pipeline.feature_params:
        kept = {
            key: value for key, value in pipeline.feature_params.items() if key not in {f"cnn__{p}" for p in _PLACES}
        }
        pipeline.feature_params = kept or None


def settle_weights(pipeline, records: Sequence[dict], weights_dir=None) -> None:
    """Find the weights of a loaded pipeline and put their places into it.

    Parameters
    ----------
    pipeline : IDCPipeline
        Loaded; it is changed.
    records : sequence of dict
        What `describe_weights` gave.
    weights_dir : path, optional
        Folder with the weights; by default that of the environment variable ``HISTOFEAT_WEIGHTS``, then Keras's cache.

    Raises
    ------
    WeightsError
        If the weights cannot be had, or are others than those of the training.
    """
    families = _fitted(pipeline)
    for family, record in zip(_embeddings(families), records, strict=True):
        encoder, weights = find_encoder(record["encoder"]), "imagenet"
        if record["weights"] != "imagenet":
            weights = _file(record["weights"], weights_dir)
        path = find_weights(encoder, weights, weights_dir)
        found = hash_weights(path)
        if found != record["hash"]:
            raise WeightsError(
                f"{path}: expected the weights of {encoder.name} that the model was trained with (hash "
                f"{record['hash']}), got others (hash {found}). Name the folder with the right ones by weights_dir or "
                f"by the environment variable {_VARIABLE}, or train the model again."
            )
        family.weights, family.weights_dir = weights, None if weights_dir is None else str(weights_dir)
    _settle_template(pipeline, families)


def _settle_template(pipeline, families) -> None:
    """Give the unfitted families of a pipeline the places of the fitted ones, so that its clones work."""
    for entry, family in zip(_entries(pipeline), families, strict=True):
        if family.family != "cnn":
            continue
        if isinstance(entry, str):
            places = {f"cnn__{place}": getattr(family, place) for place in _PLACES}
            places = {key: value for key, value in places.items() if value not in (None, "imagenet")}
            pipeline.feature_params = {**(pipeline.feature_params or {}), **places} or None
        else:
            entry.weights, entry.weights_dir = family.weights, family.weights_dir


def _file(name: str, weights_dir) -> str:
    folder = weights_dir if weights_dir is not None else os.environ.get(_VARIABLE)
    if not folder:
        raise WeightsError(
            f"{name}: expected the folder with this file, which the model was trained with, got none. Name it by "
            f"weights_dir or by the environment variable {_VARIABLE}."
        )
    return str(Path(folder).expanduser() / Path(name).name)


def _entries(pipeline) -> list:
    """List the names and estimators that a pipeline was given as its families; none where its head takes pixels."""
    return [] if pipeline.features_ is None else as_sequence(pipeline.features)


def _fitted(pipeline) -> list:
    return [] if pipeline.features_ is None else list(pipeline.features_.families)
