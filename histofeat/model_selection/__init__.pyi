from ._folds import (
    PatchKFold as PatchKFold,
    PatientKFold as PatientKFold,
    fold_rows as fold_rows,
    patients_per_fold as patients_per_fold,
    row_numbers as row_numbers,
)
from ._holdouts import (
    LimitedTraining as LimitedTraining,
    PatientHoldOuts as PatientHoldOuts,
    RepeatedPatientKFold as RepeatedPatientKFold,
)
from ._patients import (
    canonical_patient as canonical_patient,
    canonical_patients as canonical_patients,
    check_class_names as check_class_names,
    check_class_weight as check_class_weight,
    check_no_shared_patients as check_no_shared_patients,
    encode_patients as encode_patients,
    look_alikes as look_alikes,
    slides_of_one_patient as slides_of_one_patient,
)
