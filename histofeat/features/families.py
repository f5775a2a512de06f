"""Feature families by name; a family's code is loaded when its name is used."""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType

from histofeat.exceptions import known_names
from histofeat.features.base import PatchFeatures

__all__ = ["FAMILIES", "family_class", "make_family"]

#: Name of each family: the module in this package and the class there.
FAMILIES = MappingProxyType(
    {
        "color": ("color", "ColorHistogram"),
        "lbp": ("lbp", "LBPHistogram"),
        "haralick": ("haralick", "HaralickTexture"),
        "pftas": ("pftas", "PFTAS"),
        "fuzzy_color": ("fuzzy_color", "FuzzyColorHistogram"),
        "joint_color": ("joint_color", "JointColorHistogram"),
        "gray": ("gray", "GrayHistogram"),
        "glcm": ("glcm", "GLCM"),
        "clbp": ("completed_lbp", "CompletedLBP"),
        "lpq": ("phase_quantization", "LocalPhaseQuantization"),
        "cnn": ("embedding", "CNNEmbedding"),
        "histo": ("histo", "HistoEmbedding"),
    }
)


def family_class(name: str) -> type[PatchFeatures]:
    """Class of a feature family.

    Parameters
    ----------
    name : str
        One of `FAMILIES`.

    Returns
    -------
    family : type
        The estimator class.

    Raises
    ------
    ValueError
        If no family has that name; the message gives the nearest one.

    Examples
    --------
    >>> family_class("lbp").__name__
    'LBPHistogram'
    """
    if name not in FAMILIES:
        raise ValueError(
            f"features: expected the name of a feature family, got {name!r}. {known_names(name, FAMILIES)}"
        )
    module, attribute = FAMILIES[name]
    return getattr(import_module(f"histofeat.features.{module}"), attribute)


def make_family(name: str, **params) -> PatchFeatures:
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
    family = family_class(name)
    known = family._get_param_names()
    for param in params:
        if param not in known:
            raise ValueError(
                f"features__{name}__{param}: expected a parameter of {family.__name__}, got {param!r}. "
                f"{known_names(param, known)}"
            )
    return family(**params)
