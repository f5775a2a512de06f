"""
Which features matter?
======================

Exchange the values of a group of columns among held-out patches, and see what the score loses. Columns that say the
same hide each other, so exchange them together: by family or by channel, not one by one.
"""

import matplotlib.pyplot as plt

from histofeat import IDCPipeline, PatientKFold, make_cohort
from histofeat.studies import permutation_importance

cohort = make_cohort(n_patients=20, patches_per_patient=20, random_state=0)
pipeline = IDCPipeline(features=("color", "lbp", "haralick"), head="logistic")
importance = permutation_importance(
    cohort, pipeline, PatientKFold(4), by=("family", "group"), n_repeats=3, n_resamples=300
)
table = importance.to_frame()
print(table.head(6).to_string(index=False))

# %%
# A bar is the drop in ROC-AUC when the group is exchanged, with its interval over patients. A group near 0 adds nothing
# to the others; that does not say that it is worth nothing alone.

groups = table[table["by"] == "group"].sort_values("drop").tail(10)
errors = [groups["drop"] - groups["low"], groups["high"] - groups["drop"]]
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.barh(groups["name"], groups["drop"], xerr=errors, color="#2a6f97", ecolor="#555555")
ax.axvline(0, color="black", linewidth=0.8)
ax.set_xlabel("drop in ROC-AUC when exchanged, with its 95 % interval")
plt.show()
