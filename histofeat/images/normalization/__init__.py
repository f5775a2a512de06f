"""Stain normalisation: patches of all slides brought to the stain of the training patients, before any family."""

from importlib import import_module

_HOME = {
    "MacenkoNormalizer": "macenko",
    "NORMALIZERS": "named",
    "ReinhardNormalizer": "reinhard",
    "StainNormalizer": "base",
    "make_normalizer": "named",
    "normalized_images": "base",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__():
    return __all__
