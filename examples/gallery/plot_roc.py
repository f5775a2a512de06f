"""
ROC curves with bands over patients
===================================

A curve of few patients is uncertain, and the uncertainty is over patients, not over patches. The displays of
`histofeat.reporting` draw what the report draws, on axes of yours.
"""

# %%
# All models are tested on the same folds of patients.

import matplotlib.pyplot as plt

from histofeat import IDCPipeline, PatientKFold, evaluate, make_cohort
from histofeat.reporting import PatientsDisplay, RocDisplay

cohort = make_cohort(n_patients=20, patches_per_patient=20, random_state=0)
pipelines = {
    "colour": IDCPipeline(features="color", head="logistic"),
    "texture": IDCPipeline(features="lbp", head="logistic"),
}
evaluation = evaluate(cohort, pipelines, PatientKFold(4), n_resamples=300)
print(evaluation.to_frame()[["name", "roc_auc", "roc_auc_low", "roc_auc_high"]].round(2).to_string(index=False))

# %%
# The band holds 95 % of the curves when whole patients are drawn again. Beside it, the share of right labels of each
# patient: a mean over patches hides the patients on whom a model fails.

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
RocDisplay.from_evaluation(evaluation, ax=left)
PatientsDisplay.from_evaluation(evaluation, ax=right)
plt.show()

# %%
# Do the two models differ? Intervals that overlap do not answer that. The comparison draws the same patients for both.

difference = evaluation.comparison.to_frame()
print(difference.round(3).T.to_string(header=False))
