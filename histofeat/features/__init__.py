"""Feature families: patches in, named numbers out. A family's code is loaded when its name is first used."""

from importlib import import_module

_HOME = {
    "CNNEmbedding": "embedding",
    "ColorHistogram": "color",
    "CompletedLBP": "completed_lbp",
    "FAMILIES": "families",
    "FuzzyColorHistogram": "fuzzy_color",
    "GLCM": "glcm",
    "GrayHistogram": "gray",
    "HaralickTexture": "haralick",
    "HistoEmbedding": "histo",
    "JointColorHistogram": "joint_color",
    "LBPHistogram": "lbp",
    "LocalPhaseQuantization": "phase_quantization",
    "PFTAS": "pftas",
    "PatchBatch": "base",
    "PatchFeatures": "base",
    "PatchUnion": "union",
    "extract": "extraction",
    "make_family": "families",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__():
    return __all__
