"""
What a split by patch hides
===========================

A random split of patches puts patches of one patient on both sides. A model that recognises the patient then looks as
if it recognised the disease. This cohort holds nothing else to recognise: no tumour is drawn, each
patient has a stain of its own, and its class was drawn by lot. No honest score can be far from 0.5.
"""

# %%
# Score one pipeline twice, on the same patches. `evaluate` refuses a split that shares patients (finding HF001), unless
# the finding is accepted by name.

import matplotlib.pyplot as plt

from histofeat import AuditPolicy, GroupLeakageError, IDCPipeline, PatientKFold, evaluate, make_signature_cohort
from histofeat.model_selection import PatchKFold

cohort = make_signature_cohort(n_patients=24, patches_per_patient=12, random_state=0)
pipeline = IDCPipeline(features="color", head="logistic")
try:
    evaluate(cohort, pipeline, PatchKFold(3))
except GroupLeakageError as error:
    print(error)

# %%
# The interval of the first score is narrow and wrong. The second one holds 0.5.

by_patch = evaluate(cohort, pipeline, PatchKFold(3), n_resamples=300, audit=AuditPolicy(accept_findings=("HF001",)))
by_patient = evaluate(cohort, pipeline, PatientKFold(3), n_resamples=300)
scores = {
    name: evaluation.models[0].scores["roc_auc"]
    for name, evaluation in {"by patch": by_patch, "by patient": by_patient}.items()
}
for name, score in scores.items():
    print(f"split {name}: ROC-AUC {score.value:.2f}, 95 % interval {score.ci95[0]:.2f} to {score.ci95[1]:.2f}")

# %%
# On real patches the difference is smaller, and it grows as patients get fewer: see
# :doc:`What a split by patch hides </concepts/patch-splits>`.

figure, ax = plt.subplots(figsize=(6, 2.4), layout="constrained")
for row, score in enumerate(scores.values()):
    ax.plot(score.ci95, (row, row), color="#2a6f97", linewidth=3)
    ax.plot(score.value, row, "o", color="#012a4a", markersize=8)
ax.axvline(0.5, color="grey", linestyle="--", linewidth=1)
ax.set(yticks=range(len(scores)), yticklabels=[f"split {name}" for name in scores], xlim=(0, 1.02), ylim=(1.5, -0.5))
ax.set_xlabel("ROC-AUC with its 95 % interval; dashed: nothing to learn")
plt.show()
