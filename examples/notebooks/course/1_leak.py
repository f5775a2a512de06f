"""Source of ``examples/course/1_leak.ipynb``: ``python examples/make_notebooks.py course/1_leak`` runs it."""

# %% [markdown]
# # Lesson 1: make a ROC-AUC of 0.98 by leaking, and find the leak
#
# The patches of this lesson hold nothing to learn. No tumour is drawn on them. Each patient has a stain of its own, and
# the class of each patient was drawn by lot. You will reach a ROC-AUC of about 0.98 all the same, and then find out
# why.
#
# The pictures are *synthetic*: the numbers say nothing about patients.
#
# **How the exercises work.** Each exercise has a cell with an `answer`, which is filled in so that the notebook runs.
# Replace it by `None`, find your own answer, and run the cell below, which fails if the answer is wrong.

# %%
import pandas as pd
from sklearn.metrics import roc_auc_score

from histofeat import (
    AuditPolicy,
    GroupLeakageError,
    IDCPipeline,
    PatientKFold,
    audit_split,
    evaluate,
    make_signature_cohort,
)
from histofeat.model_selection import PatchKFold

cohort = make_signature_cohort(n_patients=24, patches_per_patient=24, random_state=0)
pipeline = IDCPipeline(features="color", head="logistic")
print(cohort.audit.summary())

# %% [markdown]
# ## Make the leak
#
# `PatchKFold` deals out single patches, as a random split does. `evaluate` refuses it. To go on, accept the finding by
# its code.

# %%
try:
    evaluate(cohort, pipeline, PatchKFold(4))
except GroupLeakageError as error:
    print("refused:", error)

accepted = AuditPolicy(accept_findings=("HF001",))
by_patch = evaluate(cohort, pipeline, PatchKFold(4), n_resamples=300, audit=accepted).models[0].scores["roc_auc"]
print(f"\nsplit by patch: ROC-AUC {by_patch.value:.2f}, 95 % interval {by_patch.ci95[0]:.2f} to {by_patch.ci95[1]:.2f}")
assert by_patch.value > 0.95, "the leak should look brilliant"

# %% [markdown]
# A narrow interval does not help: it is an interval of the wrong quantity. Now the same model on the same patches, but
# with whole patients held out.

# %%
by_patient = evaluate(cohort, pipeline, PatientKFold(4), n_resamples=300).models[0].scores["roc_auc"]
low, high = by_patient.ci95
print(f"split by patient: ROC-AUC {by_patient.value:.2f}, 95 % interval {low:.2f} to {high:.2f}")
assert low < 0.5 < high, "there is nothing to learn, so the interval should hold 0.5"

# %% [markdown]
# ## Find the leak
#
# Suppose that you got only the split and the images. `audit_split` looks for what makes scores misleading. It scores
# nothing and needs no model.

# %%
folds = list(PatchKFold(4).split(cohort.X, cohort.y, groups=cohort.patients))
audit = audit_split(cohort, folds)
for finding in audit.findings:
    print(f"{finding.code} {finding.title}: {finding.status}")
print("\nHF001:", audit.finding("HF001").detail)
assert [finding.code for finding in audit.errors] == ["HF001"]

# %% [markdown]
# ## Exercise 1
#
# How many of the 24 patients are both in the training and in the test patches of the first fold?

# %%
train, test = folds[0]
answer = len(set(cohort.patients[train]) & set(cohort.patients[test]))

# %%
# Check
shared = [patient for patient in audit.finding("HF001").offenders if " in fold 1" in patient]
assert answer == len(shared), "Compare cohort.patients[train] with cohort.patients[test]."
print(f"Right: {answer} patients.")

# %% [markdown]
# ## Exercise 2
#
# Why 0.98 and not 1? Which ROC-AUC does a model reach that knows each patient perfectly, and gives all patches of a
# patient the commonest class of this patient?

# %%
commonest = pd.Series(cohort.y).groupby(cohort.patients).transform("mean").round()
answer = roc_auc_score(cohort.y, commonest)

# %%
# Check
turned = (cohort.y != commonest).mean()
assert abs(answer - (1 - turned)) < 0.01, "One patch in fifty has the other class: the model is wrong about these."
assert abs(answer - by_patch.value) < 0.04, "The leak reaches about what a perfect knowledge of patients reaches."
print(f"Right: {answer:.3f}. The leaking model had {by_patch.value:.3f}: it recognises patients, not disease.")

# %% [markdown]
# ## Exercise 3
#
# Repair the split: make four folds in which the audit finds no error.

# %%
answer = list(PatientKFold(4).split(cohort.X, cohort.y, groups=cohort.patients))

# %%
# Check
assert len(answer) == 4, "Make a list of four pairs (train, test)."
assert audit_split(cohort, answer).errors == (), "Put all patches of a patient on one side: PatientKFold does."
print("Right: no error is left.")

# %% [markdown]
# **What to take home.** A high score proves nothing about a split. Look at who is on both sides before you look at the
# score. On real patients the gap is smaller than here, since there is something to learn, and it grows as patients get
# fewer.
