"""Find the record of an encoder by name; make one for a network of timm or of the hub."""

import contextlib
import functools
import os

from histofeat.exceptions import WeightsError, check_that, known_names
from histofeat.networks.pretrained import _torch_engine as torch_engine
from histofeat.networks.pretrained._records import (
    ENCODERS,
    HUB,
    HUB_FILES,
    IMAGENET,
    TIMM,
    TIMM_ENCODERS,
    Encoder,
    TimmEncoder,
    TrainingData,
)
from histofeat.networks.pretrained._weights import find_weights, read_config, weight_folders

#: Sources whose weights come with a Python package.
_PACKAGED = ("histofeat", "lite")

#: Encoders for patches of 50 px, best first: mean ROC-AUC over five folds of patients outside the official test set.
_BEST = (
    "efficientnet_lite2_stages",
    "efficientnet_lite1_stages",
    "efficientnet_lite0_stages",
    "mobilenetv2_0.35_stages",
    "mobilenet_0.25_stages",
)
#: The best of those that can be downloaded.
_FETCHED = "mobilenetv2_0.35_stages"


def best_encoder(weights_dir: str | os.PathLike[str] | None = None) -> str:
    """Name the best encoder of small patches whose weights are at hand, without a download.

    Parameters
    ----------
    weights_dir : path or None
        Folder of weights; None reads the environment variable ``HISTOFEAT_WEIGHTS``.

    Returns
    -------
    name : str
        The stages of EfficientNet-Lite 2, 1 or 0, of MobileNetV2 at width 0.35 or of MobileNet at width 0.25; where
        none is at hand, MobileNetV2, whose weights can be downloaded.

    Raises
    ------
    WeightsError
        If the folder does not exist.

    Examples
    --------
    >>> best_encoder().endswith("_stages")
    True
    """
    here = encoders_at_hand(weights_dir)
    return next((name for name in _BEST if name in here), _FETCHED)


def find_encoder(name: str, *, owner: str = "CNNEmbedding.encoder") -> Encoder | TimmEncoder:
    """Find the record of an encoder by name, or make one for a network that has no name here.

    Parameters
    ----------
    name : str
        A key of `ENCODERS`; ``timm:<model>``, for example ``timm:resnet18`` or with a tag ``timm:resnet18.a1_in1k``;
        or ``hf-hub:<owner/repository>``, whose ``config.json`` is read from the hub's cache or from the hub. Input size
        and normalisation are those of the published weights; the embedding is the one that timm pools.
    owner : str
        The parameter's name in error messages.

    Returns
    -------
    encoder : Encoder or TimmEncoder

    Raises
    ------
    ValueError
        If there is no such encoder, with the nearest name and all names by their terms in the message; if timm does
        not know the network, or the network gives no vector.
    WeightsError
        If the repository has no configuration of timm, or it cannot be downloaded.
    MissingExtraError
        If timm, PyTorch or huggingface_hub is needed and not installed.

    Examples
    --------
    >>> find_encoder("resnet50").constructor
    'ResNet50'
    """
    for prefix, make in ((TIMM, _of_timm), (HUB, _of_hub)):
        if isinstance(name, str) and name.startswith(prefix):
            return make(name.removeprefix(prefix), owner)
    if not isinstance(name, str) or name not in ENCODERS:
        near = known_names(name, ENCODERS)
        hint = f"{near} " if near.startswith("Did you mean") else ""
        raise ValueError(f"{owner}: expected the name of an encoder, got {name!r:.80}. {hint}{_names_by_terms()}")
    return ENCODERS[name]


def encoders_at_hand(weights_dir: str | os.PathLike[str] | None = None) -> list[str]:
    """Return the names of the encoders whose weights are here: in a folder, Keras's cache or a package; none is loaded.

    Parameters
    ----------
    weights_dir : path or None
        As for `histofeat.networks.find_weights`.

    Raises
    ------
    WeightsError
        If this folder does not exist.

    Examples
    --------
    >>> "histo" in encoders_at_hand()
    True
    """
    folders, found = weight_folders(weights_dir), []
    for name, record in ENCODERS.items():
        here = any((folder / file).is_file() for folder in folders for file in record.accepted_files)
        with contextlib.suppress(WeightsError):
            here = here or (record.source in _PACKAGED and find_weights(record, weights_dir=weights_dir).is_file())
        found += [name] if here else []
    return found


def _names_by_terms() -> str:
    """All names by what stands between a user and the weights."""
    names: dict[str, list[str]] = {"open": [], "non-commercial": [], "gated": []}
    for record in ENCODERS.values():
        names[getattr(record, "terms", "open")].append(record.name)
    return "Known names: " + "; ".join(f"{terms}: {', '.join(group)}" for terms, group in names.items()) + "."


def known_training(encoder: str) -> tuple[TrainingData, ...]:
    """Give what the authors of an encoder declare that it was trained on.

    Parameters
    ----------
    encoder : str
        A name that `find_encoder` takes. The hub is not asked: ``hf-hub:<owner/repository>`` is known where a named
        encoder has its weights from there.

    Returns
    -------
    declared : tuple of TrainingData
        One for each source; a single one with ``data="unknown"`` where nothing was declared.

    Raises
    ------
    ValueError
        If there is no such encoder.

    Notes
    -----
    Authors name data sets, not patients, and a proprietary collection may hold anything. Where an encoder has a
    `TrainingRecord`, its images are compared instead.

    Examples
    --------
    >>> [known.data for known in known_training("ctranspath")]
    ['TCGA', 'PAIP']
    >>> known_training("timm:resnet18")[0].data
    'unknown'
    """
    if isinstance(encoder, str) and encoder.startswith((TIMM, HUB)):
        hub_id = encoder.removeprefix(HUB).lower()
        record = next((known for known in TIMM_ENCODERS.values() if (known.hub_id or "").lower() == hub_id), None)
    else:
        record = find_encoder(encoder)
    return (record.declared if record else ()) or (TrainingData("unknown", "unknown"),)


@functools.lru_cache(maxsize=64)
def _of_timm(model: str, owner: str) -> TimmEncoder:
    config = torch_engine.published_config(model)
    if config is None:
        hint = known_names(model, torch_engine.network_names())
        near = hint if hint.startswith("Did you mean") else "`timm.list_models()` gives the names."
        raise ValueError(f"{owner}: expected the name of a network of timm after 'timm:', got {model!r}. {near}")
    files = (config["hf_hub_filename"],) if config.get("hf_hub_filename") else HUB_FILES
    return _record(f"{TIMM}{model}", model, config, owner, hub_id=config.get("hf_hub_id"), hub_files=files)


@functools.lru_cache(maxsize=64)
def _of_hub(repository: str, owner: str) -> TimmEncoder:
    fits = repository.count("/") == 1 and all(repository.split("/"))
    remedy = "Copy the two names from the address of the model's page."
    check_that(owner, HUB + repository, fits, "'hf-hub:<owner>/<repository>'", remedy)
    config = read_config(repository)
    architecture = config.get("architecture")
    if architecture is None or torch_engine.published_config(architecture) is None:
        raise WeightsError(
            f"{HUB}{repository}: expected a config.json that names a network of timm as its 'architecture', got "
            f"{architecture!r}. Only repositories of timm's form can be used by their name."
        )
    # Without pooling a network gives tokens; its own way to pool them is then the one to take.
    options = tuple(
        (key, tuple(value) if isinstance(value, list) else value)
        for key, value in config.get("model_args", {}).items()
        if key not in ("num_classes", "in_chans") and (key, value) != ("global_pool", "")
    )
    # Old repositories of timm hold what is now under "pretrained_cfg" at the top.
    published = config.get("pretrained_cfg", config)
    return _record(f"{HUB}{repository}", architecture, published, owner, hub_id=repository, options=options)


def _record(name, architecture, config, owner, *, hub_id, hub_files=HUB_FILES, options=()) -> TimmEncoder:
    size = int(config.get("input_size", (3, 224, 224))[-1])
    return TimmEncoder(
        name=name,
        architecture=architecture,
        n_features=torch_engine.vector_length(architecture, options, size, owner=owner),
        hub_id=hub_id,
        options=options,
        mean=tuple(config.get("mean", IMAGENET["mean"])),
        std=tuple(config.get("std", IMAGENET["std"])),
        default_size=size,
        minimum_size=min(64, size),
        hub_files=hub_files,
        licence=str(config.get("license") or ""),
    )
