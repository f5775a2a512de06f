"""Honest classical baselines on breast histology: handcrafted features against CNN embeddings, split by patient.

Names are loaded when they are first used, so that ``import histofeat`` costs nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "CNNClassifier": "networks",
    "CNNEmbedding": "features",
    "CompletedLBP": "features",
    "ColorHistogram": "features",
    "DatasetError": "exceptions",
    "Evaluation": "results",
    "FeatureStore": "store",
    "FuzzyColorHistogram": "features",
    "GLCM": "features",
    "GrayHistogram": "features",
    "GroupLeakageError": "exceptions",
    "HaralickTexture": "features",
    "HistoEmbedding": "features",
    "IDCPipeline": "pipeline",
    "JointColorHistogram": "features",
    "LBPHistogram": "features",
    "LocalPhaseQuantization": "features",
    "MacenkoNormalizer": "normalization",
    "MissingExtraError": "exceptions",
    "PFTAS": "features",
    "PatchDataset": "datasets",
    "PatchError": "exceptions",
    "PatchUnion": "features",
    "PatientHoldOuts": "holdouts",
    "PatientKFold": "model_selection",
    "ReinhardNormalizer": "normalization",
    "Search": "search",
    "WeightsError": "exceptions",
    "audit_split": "split_audit",
    "breakhis_hold_outs": "datasets",
    "check_no_shared_patients": "model_selection",
    "compare_models": "statistics",
    "delong": "statistics",
    "evaluate": "evaluation",
    "load_breakhis": "datasets",
    "load_idc": "datasets",
    "load_image_folder": "datasets",
    "load_manifest": "datasets",
    "load_model": "saving",
    "make_breakhis_cohort": "datasets",
    "make_cohort": "datasets",
    "make_signature_cohort": "datasets",
    "merge_rare_classes": "datasets",
    "nadeau_bengio": "statistics",
    "predefined_split": "datasets",
    "open_dataset": "model_training",
    "predict_images": "image_prediction",
    "read_breakhis_folds": "datasets",
    "read_predictions": "predictions",
    "recognition_rates": "statistics",
    "save_model": "saving",
    "score_predictions": "predictions",
    "shortcut_panel": "shortcuts",
    "split_dataset": "datasets",
    "train_model": "model_training",
    "write_report": "reporting",
    "train_encoder": "encoder_training",
}

__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__():
    return [*__all__, "__version__"]
