"""Networks of others as records: foundation models of pathology by name, any network of timm or of the hub ad hoc."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from histofeat.exceptions import WeightsError, known_names

__all__ = ["TIMM_ENCODERS", "TimmEncoder", "ad_hoc_encoder", "check_settings", "is_ad_hoc"]

TIMM, HUB = "timm:", "hf-hub:"
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
#: Files that a repository of the hub may hold; the first is preferred because no code can hide in it.
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class TimmEncoder:
    """One pretrained network that timm builds and PyTorch runs, without its classification layer.

    Parameters
    ----------
    name : str
        The name in histofeat.
    architecture : str
        Name of the network in timm.
    n_features : int
        Length of the embedding.
    hub_id : str or None
        ``owner/repository`` of the published weights; None where there are none on the hub.
    options : tuple of (str, value)
        Further arguments of ``timm.create_model``; a value ``"timm.layers:Name"`` or ``"torch.nn:Name"`` stands for
        that class.
    stem : {"", "conv"}
        ``"conv"`` puts the convolutional stem of CTransPath before the first stage.
    embedding : {"pooled", "class_and_mean"}
        ``"pooled"`` is what timm gives without the classification layer: the class token of a vision transformer, the
        mean of the last feature map of most others. ``"class_and_mean"`` is the class token and the mean of the patch
        tokens, side by side.
    mean, std : tuple of float
        Pixels, scaled to 0..1, less the mean and divided by the deviation, per channel R, G, B.
    default_size : int
        Side in px to which patches are resized.
    minimum_size : int
        Least side in px.
    hub_files : tuple of str
        Names that the file of weights may have on the hub, best first.
    gated : bool
        Whether the hub asks to accept terms and to log in.
    licence : str
        Licence of the weights, as their page says.
    reference : str
        DOI or arXiv number of the paper, or the address of the release where there is no paper.
    source : str
        Whose network it is, as in `Encoder`.
    minimum_patch_px : int
        Longer side of the smallest patch that it can say something about.

    Examples
    --------
    >>> TIMM_ENCODERS["virchow"].n_features
    2560
    """

    name: str
    architecture: str
    n_features: int
    hub_id: str | None
    options: tuple[tuple[str, object], ...] = ()
    stem: str = ""
    embedding: str = "pooled"
    mean: tuple[float, float, float] = _IMAGENET["mean"]
    std: tuple[float, float, float] = _IMAGENET["std"]
    default_size: int = 224
    minimum_size: int = 64
    hub_files: tuple[str, ...] = _HUB_FILES
    gated: bool = False
    licence: str = ""
    reference: str = ""
    source: str = "timm"
    minimum_patch_px: int = 1

    @property
    def accepted_files(self) -> tuple[str, ...]:
        """File names looked for in a folder of weights, best first."""
        stem = self.name.replace(":", "-").replace("/", "-")
        return tuple(f"{stem}{suffix}" for suffix in (".safetensors", ".bin", ".pth"))

    @property
    def weight_file(self) -> str:
        """The best of `accepted_files`."""
        return self.accepted_files[0]

    @property
    def access(self) -> str:
        """One sentence: how to get the published weights."""
        if self.hub_id is None:
            return "timm knows of no weights of it on the hub."
        page = f"https://huggingface.co/{self.hub_id}"
        terms = f" (licence: {self.licence})" if self.licence else ""
        if not self.gated:
            return f"They are at {page}{terms}."
        return (
            f"They are gated: open {page}, accept the terms there{terms}, wait for access where it is granted by hand, "
            "and log in with a token (`hf auth login`, or the environment variable HF_TOKEN)."
        )

    @property
    def recipe(self) -> str:
        """All that turns pixels and weights into numbers, for keys of stored features."""
        parts = (self.architecture, self.options, self.stem, self.embedding, self.mean, self.std)
        return "; ".join(map(str, parts))


#: Every network of others that has a name of its own. Options and normalisation are those of the authors' pages.
TIMM_ENCODERS: Mapping[str, TimmEncoder] = MappingProxyType(
    {
        record.name: record
        for record in (
            TimmEncoder(
                name="uni",
                architecture="vit_large_patch16_224",
                n_features=1024,
                hub_id="MahmoodLab/UNI",
                options=(("init_values", 1e-5), ("dynamic_img_size", True)),
                gated=True,
                licence="CC-BY-NC-ND-4.0",
                reference="10.1038/s41591-024-02857-3",
            ),
            TimmEncoder(
                name="virchow",
                architecture="vit_huge_patch14_224",
                n_features=2560,
                hub_id="paige-ai/Virchow",
                options=(
                    ("init_values", 1e-5),
                    ("mlp_ratio", 5.3375),
                    ("mlp_layer", "timm.layers:SwiGLUPacked"),
                    ("act_layer", "torch.nn:SiLU"),
                    ("global_pool", ""),
                    ("dynamic_img_size", True),
                ),
                embedding="class_and_mean",
                gated=True,
                licence="Apache-2.0",
                reference="10.1038/s41591-024-03141-0",
            ),
            TimmEncoder(
                name="h-optimus-0",
                architecture="vit_giant_patch14_reg4_dinov2",
                n_features=1536,
                hub_id="bioptimus/H-optimus-0",
                options=(("img_size", 224), ("init_values", 1e-5), ("dynamic_img_size", False)),
                mean=(0.707223, 0.578729, 0.703617),
                std=(0.211883, 0.230117, 0.177517),
                gated=True,
                licence="Apache-2.0",
                reference="https://github.com/bioptimus/releases/tree/main/models/h-optimus/v0",
            ),
            TimmEncoder(
                name="phikon",
                architecture="vit_base_patch16_224",
                n_features=768,
                hub_id="owkin/phikon",
                licence="Owkin non-commercial",
                reference="10.1101/2023.07.21.23292757",
            ),
            TimmEncoder(
                name="ctranspath",
                architecture="swin_tiny_patch4_window7_224",
                n_features=768,
                # The authors' own file is no part of the hub; this repository holds the same weights.
                hub_id="1aurent/swin_tiny_patch4_window7_224.CTransPath",
                stem="conv",
                licence="GPL-3.0",
                reference="10.1016/j.media.2022.102559",
            ),
        )
    }
)


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


def check_settings(encoder, engine: str, pooling: str) -> None:
    """Refuse an engine that cannot run an encoder, and a pooling that its embedding does not have.

    Parameters
    ----------
    encoder : Encoder or TimmEncoder
        The network.
    engine : {"auto", "keras", "openvino", "torch"}
        What the user asked for.
    pooling : {"avg", "max"}
        What the user asked for.

    Raises
    ------
    ValueError
        If one of the two does not go with the encoder.
    """
    if encoder.source != "timm":
        if engine == "torch":
            raise ValueError(
                f"CNNEmbedding.engine: expected 'auto', 'keras' or 'openvino' with encoder={encoder.name!r}, which is "
                "built by Keras, got 'torch'. Use engine='auto'; KERAS_BACKEND=torch lets Keras compute with PyTorch."
            )
        return
    if engine not in ("auto", "torch"):
        raise ValueError(
            f"CNNEmbedding.engine: expected 'auto' or 'torch' with encoder={encoder.name!r}, which is built by timm, "
            f"got {engine!r}. Use engine='auto'."
        )
    if pooling != "avg":
        raise ValueError(
            f"CNNEmbedding.pooling: expected 'avg' with encoder={encoder.name!r}, whose embedding is made as its "
            f"authors make it, got {pooling!r}. Leave pooling as it is."
        )
