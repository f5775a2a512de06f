"""The register of feature families: one record each; a family's module is imported when its name is used."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any

from histofeat.exceptions import check_name
from histofeat.features._base import PatchFeatures


@dataclass(frozen=True)
class FamilyRecord:
    """A feature family by name.

    Attributes
    ----------
    module : str
        Its module in `histofeat.features`.
    class_name : str
        Its class there.
    words : str
        What it measures, for tables and help texts.
    n_columns : int
        Columns with default parameters.
    """

    module: str
    class_name: str
    words: str
    n_columns: int


FAMILIES: Mapping[str, FamilyRecord] = MappingProxyType(
    {
        "color": FamilyRecord("color", "ColorHistogram", "histograms and moments of RGB, HSV and stain channels", 180),
        "lbp": FamilyRecord("lbp", "LBPHistogram", "uniform local binary patterns at three radii", 54),
        "haralick": FamilyRecord("haralick", "HaralickTexture", "Haralick's thirteen co-occurrence statistics", 78),
        "pftas": FamilyRecord("pftas", "PFTAS", "threshold adjacency statistics", 162),
        "fuzzy_color": FamilyRecord("fuzzy_color", "FuzzyColorHistogram", "fuzzy histogram of 64 colours", 64),
        "joint_color": FamilyRecord("color", "JointColorHistogram", "joint histogram of red, green and blue", 512),
        "gray": FamilyRecord("color", "GrayHistogram", "histogram of grey levels", 256),
        "glcm": FamilyRecord("haralick", "GLCM", "scikit-image's ten co-occurrence properties", 120),
        "clbp": FamilyRecord("completed_lbp", "CompletedLBP", "completed local binary patterns at three radii", 162),
        "lpq": FamilyRecord("phase_quantization", "LocalPhaseQuantization", "local phase codes, robust to blur", 256),
        "cnn": FamilyRecord("embedding", "CNNEmbedding", "embedding of a pretrained network", 1280),
        "histo": FamilyRecord("embedding", "HistoEmbedding", "embedding of the encoder that comes with histofeat", 128),
    }
)
"""Name of each family and its record. A new family is a module, a record here, and a test."""


def make_family(name: str, **params: Any) -> PatchFeatures:
    """Build a feature family by name.

    Parameters
    ----------
    name : str
        One of `FAMILIES`.
    **params
        Its parameters.

    Returns
    -------
    family : PatchFeatures
        An unfitted estimator.

    Raises
    ------
    ValueError
        If the family, or one of its parameters, is unknown; the message gives the nearest name.

    Examples
    --------
    >>> make_family("lbp", radii_px=(1, 2))
    LBPHistogram(radii_px=(1, 2))
    """
    check_name("features", name, FAMILIES, "the name of a feature family")
    record = FAMILIES[name]
    family = getattr(import_module(f"histofeat.features._{record.module}"), record.class_name)
    for param in params:
        where, known = f"features__{name}__{param}", family._get_param_names()
        check_name(where, param, known, f"a parameter of {family.__name__}")
    return family(**params)
