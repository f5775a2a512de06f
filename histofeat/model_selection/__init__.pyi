from .folds import PatchKFold as PatchKFold, PatientKFold as PatientKFold, fold_rows as fold_rows
from .holdouts import PatientHoldOuts as PatientHoldOuts
from .patients import check_no_shared_patients as check_no_shared_patients, encode_patients as encode_patients
