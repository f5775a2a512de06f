from .folds import PatchKFold as PatchKFold, PatientKFold as PatientKFold
from .holdouts import PatientHoldOuts as PatientHoldOuts
from .patients import check_no_shared_patients as check_no_shared_patients, encode_patients as encode_patients
