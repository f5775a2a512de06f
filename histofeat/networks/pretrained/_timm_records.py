"""Encoders that timm builds and PyTorch runs: one frozen record each; and how tables of encoders are read.

None of them was verified with its published weights here: tests build the architectures with random weights.
"""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Record = TypeVar("Record")
TIMM, HUB = "timm:", "hf-hub:"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
#: Files that a repository of the hub may hold; the first is preferred because no code can hide in it.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class TrainingData:
    """One source of the data that an encoder was trained on, as its authors declare it.

    Parameters
    ----------
    data : str
        Name of the data set, such as "TCGA" or "ImageNet"; "unknown" where nothing was declared.
    kind : {"public", "proprietary", "unknown"}
        Whether others have the data.
    source : str
        DOI, arXiv number or address of the place where the authors say so.
    note : str
        What is known further.
    """

    data: str
    kind: str
    source: str = ""
    note: str = ""


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
        Pixels, scaled to 0..1, minus the mean and divided by the deviation, per channel R, G, B.
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
        Where the network is from, as in `Encoder`.
    minimum_patch_px : int
        Longer side of the smallest patch that is accepted.
    mpp : float or None
        Micrometres per pixel of its training images, as its page or its authors say; None where they do not, or where
        there are several.
    declared : tuple of TrainingData
        What its authors declare that it was trained on; empty where nothing is known. See `known_training`.

    Examples
    --------
    >>> TIMM_RECORDS[1].name, TIMM_RECORDS[1].n_features, TIMM_RECORDS[1].terms
    ('virchow', 2560, 'gated')
    """

    name: str
    architecture: str
    n_features: int
    hub_id: str | None
    options: tuple[tuple[str, object], ...] = ()
    stem: str = ""
    embedding: str = "pooled"
    mean: tuple[float, float, float] = IMAGENET["mean"]
    std: tuple[float, float, float] = IMAGENET["std"]
    default_size: int = 224
    minimum_size: int = 64
    hub_files: tuple[str, ...] = HUB_FILES
    gated: bool = False
    licence: str = ""
    reference: str = ""
    source: str = "timm"
    minimum_patch_px: int = 1
    mpp: float | None = None
    declared: tuple[TrainingData, ...] = ()

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
    def terms(self) -> str:
        """``"gated"``, ``"non-commercial"`` or ``"open"``: what stands between a user and the weights."""
        limited = "non-commercial" in self.licence or "-NC" in self.licence
        return "gated" if self.gated else "non-commercial" if limited else "open"

    @property
    def words(self) -> str:
        """One line for lists of encoders."""
        terms = self.licence + ", gated" * self.gated
        return f"{terms}; {self.n_features:,} columns; not verified with its weights here; {self.reference}"

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
        """What determines the embedding apart from the weights, for keys of stored features."""
        parts = (self.architecture, self.options, self.stem, self.embedding, self.mean, self.std)
        return "; ".join(map(str, parts))


def read_records(table: str, make: Callable[..., Record]) -> tuple[Record, ...]:
    """Read a table of encoders, each under its name.

    Parameters
    ----------
    table : str
        Name of the file, which lies beside this one.
    make : {Encoder, TimmEncoder}
        What a record is.

    Returns
    -------
    records : tuple of Encoder or TimmEncoder
        In the order of the table.

    Examples
    --------
    >>> read_records("timm_encoders.toml", TimmEncoder) == TIMM_RECORDS
    True
    """
    records = []
    for name, entry in tomllib.loads(Path(__file__).with_name(table).read_text(encoding="utf-8")).items():
        if "declared" in entry:
            entry["declared"] = [TrainingData(**one) for one in entry["declared"]]
        records.append(make(name, **{key: _frozen(value) for key, value in entry.items()}))
    return tuple(records)


def _frozen(value: Any) -> Any:
    value = list(value.items()) if isinstance(value, dict) else value
    return tuple(value) if isinstance(value, list) else value


TIMM_RECORDS = read_records("timm_encoders.toml", TimmEncoder)
