from .archive import (
    ModelFileError as ModelFileError,
    check_target as check_target,
)
from .encoder_training import train_encoder as train_encoder
from .feature_head import (
    FeatureHead as FeatureHead,
    check_enough_patients as check_enough_patients,
    check_inner_patients as check_inner_patients,
    fit_with_inner_scores as fit_with_inner_scores,
)
from .heads import HEADS as HEADS, make_head as make_head
from .pipeline import IDCPipeline as IDCPipeline
from .pixel_head import PIXELS as PIXELS, PixelHead as PixelHead
from .prediction import (
    ImagePredictions as ImagePredictions,
    find_patients as find_patients,
    predict_images as predict_images,
    write_table as write_table,
)
from .saved_model import SavedModel as SavedModel, load_model as load_model, save_model as save_model
from .soft_vote import SoftVote as SoftVote
