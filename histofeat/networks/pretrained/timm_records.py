"""Networks of others as records: foundation models of pathology by name, any network of timm or of the hub ad hoc."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["TIMM_ENCODERS", "TimmEncoder", "check_settings"]


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
