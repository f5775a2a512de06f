from ._folds import PatchKFold as PatchKFold, PatientKFold as PatientKFold, fold_rows as fold_rows
from ._holdouts import PatientHoldOuts as PatientHoldOuts
from ._patients import check_no_shared_patients as check_no_shared_patients, encode_patients as encode_patients
