from .encoder_training import train_encoder as train_encoder
from .heads.enough_patients import (
    check_enough_patients as check_enough_patients,
    check_inner_patients as check_inner_patients,
)
from .heads.feature_head import FeatureHead as FeatureHead, fit_with_inner_scores as fit_with_inner_scores
from .heads.named import HEADS as HEADS, make_head as make_head
from .heads.pixel_head import PIXELS as PIXELS, PixelHead as PixelHead
from .heads.soft_vote import SoftVote as SoftVote
from .pipeline import IDCPipeline as IDCPipeline
from .prediction.predict import predict_images as predict_images
from .prediction.records import ImagePredictions as ImagePredictions, write_table as write_table
from .saving.archive import (
    FORMAT_VERSION as FORMAT_VERSION,
    ModelFileError as ModelFileError,
    check_target as check_target,
)
from .saving.model import SavedModel as SavedModel, load_model as load_model, save_model as save_model
from .saving.trusted import TRUSTED as TRUSTED
