from ._archive import (
    ModelFileError as ModelFileError,
    check_target as check_target,
    read_archive as read_archive,
)
from ._encoder_training import train_encoder as train_encoder
from ._feature_head import (
    FeatureHead as FeatureHead,
    check_enough_patients as check_enough_patients,
    fit_with_inner_scores as fit_with_inner_scores,
)
from ._guard_rails import FAR as FAR, GuardRails as GuardRails
from ._heads import HEADS as HEADS, HeadRecord as HeadRecord, make_head as make_head
from ._patient_maps import (
    find_patches as find_patches,
    map_patches as map_patches,
    map_patient as map_patient,
)
from ._pipeline import IDCPipeline as IDCPipeline
from ._pixel_head import PIXELS as PIXELS, OnRows as OnRows, PixelHead as PixelHead
from ._prediction import (
    ImagePredictions as ImagePredictions,
    find_patients as find_patients,
    predict_images as predict_images,
)
from ._saved_model import SavedModel as SavedModel, load_model as load_model, save_model as save_model
from ._slide_maps import SlideMap as SlideMap, mapped_class as mapped_class
from ._slide_scoring import map_slide as map_slide
from ._soft_vote import SoftVote as SoftVote, check_inner_patients as check_inner_patients
