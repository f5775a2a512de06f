"""
Are the probabilities right?
============================

Of the patches that a model calls positive with probability 0.8, 80 % should be positive. Class weights break this; a
calibration on training patients repairs it.
"""

import matplotlib.pyplot as plt

from histofeat import IDCPipeline, PatientKFold, evaluate, make_cohort
from histofeat.reporting import CalibrationDisplay

cohort = make_cohort(n_patients=24, patches_per_patient=24, random_state=0)
weighted = IDCPipeline(features="lbp", head="logistic", class_weight="balanced")
evaluation = evaluate(cohort, {"weighted": weighted}, PatientKFold(4), n_resamples=300)

# %%
# Left, the probabilities as the model gives them; right, after a calibration that was fitted on the training patients
# of each fold. The band is over patients; a calibrated model follows the diagonal.

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
CalibrationDisplay.from_evaluation(evaluation, ax=left)
CalibrationDisplay.from_evaluation(evaluation, calibrated=True, ax=right)
left.set_title("as they are\n" + left.get_title(), fontsize=9)
right.set_title("calibrated on training patients\n" + right.get_title(), fontsize=9)
plt.show()
