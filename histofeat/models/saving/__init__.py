"""Models on disk: a fitted pipeline as one file that holds data only, and what it learnt from."""

from histofeat.models.saving.archive import FORMAT_VERSION, ModelFileError, check_target
from histofeat.models.saving.model import SavedModel, load_model, save_model
from histofeat.models.saving.trusted import TRUSTED

__all__ = ["FORMAT_VERSION", "TRUSTED", "ModelFileError", "SavedModel", "check_target", "load_model", "save_model"]
