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
    "FuzzyColorHistogram": "features",
    "GrayHistogram": "features",
    "GroupLeakageError": "exceptions",
    "HaralickTexture": "features",
    "IDCPipeline": "pipeline",
    "JointColorHistogram": "features",
    "LBPHistogram": "features",
    "MacenkoNormalizer": "normalization",
    "MissingExtraError": "exceptions",
    "PFTAS": "features",
    "PatchDataset": "datasets",
    "PatchError": "exceptions",
    "PatchUnion": "features",
    "PatientKFold": "model_selection",
    "ReinhardNormalizer": "normalization",
    "Search": "search",
    "WeightsError": "exceptions",
    "audit_split": "split_audit",
    "check_no_shared_patients": "model_selection",
    "compare_models": "statistics",
    "delong": "statistics",
    "evaluate": "evaluation",
    "load_idc": "datasets",
    "make_cohort": "datasets",
    "make_signature_cohort": "datasets",
    "nadeau_bengio": "statistics",
    "read_predictions": "predictions",
    "score_predictions": "predictions",
    "shortcut_panel": "shortcuts",
    "write_report": "reporting",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__():
    return [*__all__, "__version__"]
