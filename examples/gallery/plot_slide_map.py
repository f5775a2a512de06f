"""
A map of a patient
==================

The patches of IDC lie where their names say. Each probability here is of a model that had not seen the patient, so the
map shows what to expect on a new one.
"""

import matplotlib.pyplot as plt

from histofeat import IDCPipeline, PatientKFold, evaluate, make_cohort
from histofeat.reporting import SlideMapDisplay

cohort = make_cohort(n_patients=12, patches_per_patient=100, random_state=0)
evaluation = evaluate(cohort, IDCPipeline(), PatientKFold(3), n_resamples=200)

# %%
# The patient with the most tumour. Left, the probability with an outline at the threshold; in the middle, the truth;
# right, missed tumour in red and false alarms in blue.

tumour = {patient: cohort.y[cohort.patients == patient].mean() for patient in set(cohort.patients)}
patient = max(sorted(tumour), key=tumour.get)
figure, axes = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
for ax, panel in zip(axes, ("probability", "truth", "errors"), strict=True):
    display = SlideMapDisplay.from_evaluation(evaluation, patient, panel=panel, ax=ax)
    figure.suptitle(" ".join(ax.get_title().split()), fontsize=10)
    ax.set_title(panel)
print(display.slide_map.summary())
plt.show()
