"""Stain normalisers by name; their code, and OpenCV, are loaded when a name is used."""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

from histofeat.exceptions import known_names

if TYPE_CHECKING:
    from histofeat.images.normalization.base import StainNormalizer

__all__ = ["NORMALIZERS", "make_normalizer"]

#: Name of each normaliser: the module in this package and the class there.
NORMALIZERS = MappingProxyType(
    {
        "reinhard": ("reinhard", "ReinhardNormalizer"),
        "macenko": ("macenko", "MacenkoNormalizer"),
    }
)


def make_normalizer(name: str, **params) -> StainNormalizer:
    """Build a stain normaliser by name.

    Parameters
    ----------
    name : {"reinhard", "macenko"}
        Which one.
    **params
        Its parameters.

    Returns
    -------
    normalizer : StainNormalizer
        Unfitted.

    Raises
    ------
    ValueError
        If the name, or one of the parameters, is unknown; the message gives the nearest one.

    Examples
    --------
    >>> make_normalizer("macenko", unit="patient")
    MacenkoNormalizer(unit='patient')
    """
    if name not in NORMALIZERS:
        raise ValueError(
            f"normalizer: expected the name of a normaliser, got {name!r}. {known_names(name, NORMALIZERS)}"
        )
    module, attribute = NORMALIZERS[name]
    normalizer = getattr(import_module(f"histofeat.images.normalization.{module}"), attribute)
    known = normalizer._get_param_names()
    for param in params:
        if param not in known:
            raise ValueError(
                f"normalizer__{param}: expected a parameter of {attribute}, got {param!r}. {known_names(param, known)}"
            )
    return normalizer(**params)
