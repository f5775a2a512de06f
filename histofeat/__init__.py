"""Honest classical baselines on breast histology: handcrafted features against CNN embeddings, split by patient.

Names are loaded when they are first used, so that ``import histofeat`` costs nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "CNNEmbedding": "features",
    "ColorHistogram": "features",
    "DatasetError": "exceptions",
    "Evaluation": "results",
    "FeatureStore": "store",
    "GroupLeakageError": "exceptions",
    "HaralickTexture": "features",
    "IDCPipeline": "pipeline",
    "LBPHistogram": "features",
    "MissingExtraError": "exceptions",
    "PFTAS": "features",
    "PatchDataset": "datasets",
    "PatchError": "exceptions",
    "PatchUnion": "features",
    "PatientKFold": "model_selection",
    "WeightsError": "exceptions",
    "check_no_shared_patients": "model_selection",
    "evaluate": "evaluation",
    "load_idc": "datasets",
    "make_cohort": "datasets",
    "write_report": "reporting",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__():
    return [*__all__, "__version__"]
