"""Source of ``examples/course/2_patients.ipynb``: ``python examples/make_notebooks.py course/2_patients`` runs it."""

# %% [markdown]
# # Lesson 2: how many patients for a half-width of 0.01
#
# A paper says "ROC-AUC 0.87 ± 0.01". How many patients does it take to say so? This lesson finds the number from a
# small pilot, and shows that more patches of the same patients do not replace patients.
#
# The cohort is *synthetic*: the numbers say nothing about patients, the way to them does.
#
# Each exercise has a filled-in `answer`. Replace it by `None`, find your own, and run the cell below, which checks it.

# %%
from histofeat import IDCPipeline, PatientKFold, evaluate, extract_features, make_cohort
from histofeat.metrics import plan_patients
from histofeat.models import make_head
from histofeat.studies import learning_curve

cohort = make_cohort(n_patients=24, patches_per_patient=16, random_state=0)
pipeline = IDCPipeline(features="color", head="logistic")
pilot = evaluate(cohort, pipeline, PatientKFold(4), n_resamples=300)
score = pilot.models[0].scores["roc_auc"]
half_width = (score.ci95[1] - score.ci95[0]) / 2
print(f"pilot of 24 patients: ROC-AUC {score.value:.2f}, 95 % interval {score.ci95[0]:.2f} to {score.ci95[1]:.2f}")
print(f"half-width: {half_width:.3f}")
assert half_width > 0.03, "24 patients should leave a wide interval"

# %% [markdown]
# ## The number
#
# `plan_patients` takes the standard error of the pilot and asks how many patients make the interval as narrow as
# wanted. Its `width` is the whole interval: twice the half-width. The pilot itself is uncertain, so that the plan has
# an interval too.

# %%
needed = {}
for half in (0.10, 0.05, 0.02, 0.01):
    plan = plan_patients(pilot, width=2 * half)
    needed[half] = plan.n_patients
    few, many = plan.n_patients_ci95
    print(f"half-width {half:.2f}: {plan.n_patients} patients (between {few} and {many})")
assert needed[0.01] > 20 * 24, "0.01 should take far more patients than the pilot has"

# %% [markdown]
# ## More patches do not replace patients
#
# Patches of one patient are alike. The same pilot with half of the patches of each patient asks for nearly as many
# patients.

# %%
half_of_patches = cohort.subset(range(0, len(cohort), 2))
smaller = evaluate(half_of_patches, pipeline, PatientKFold(4), n_resamples=300)
with_half = plan_patients(smaller, width=0.02).n_patients
print(f"{len(cohort)} patches: {needed[0.01]} patients needed")
print(f"{len(half_of_patches)} patches: {with_half} patients needed")
assert with_half < 1.6 * needed[0.01], "if patches were independent, half as many would need twice the patients"

# %% [markdown]
# ## Patients to train on
#
# Patients are also what a model learns from. `learning_curve` fits it on more and more of them, and always tests on the
# same patients. The score rises; the interval stays wide, for it is about the tested patients.

# %%
features = extract_features(cohort, "color").filter(like="color_").to_numpy()
curve = learning_curve(
    features,
    cohort.y,
    cohort.patients,
    make_head("logistic"),
    PatientKFold(4),
    n_patients=(3, 8),
    n_draws=3,
    n_resamples=200,
)
curve = curve[curve["sampling"] == "patients"]
print(curve[["n_patients", "n_patches", "value", "low", "high"]].round(2).to_string(index=False))
assert curve["value"].iloc[-1] > curve["value"].iloc[0], "more training patients should help"
assert curve["high"].iloc[-1] - curve["low"].iloc[-1] > half_width, "more training patients do not narrow the interval"

# %% [markdown]
# ## Exercise 1
#
# You want to halve a half-width of 0.02. By which whole number do you multiply the patients?

# %%
answer = 4

# %%
# Check
assert answer == round(needed[0.01] / needed[0.02]), "The standard error falls as one over the root of the patients."
print(f"Right: {answer} times as many.")

# %% [markdown]
# ## Exercise 2
#
# Do it by hand. The standard error of the pilot is `score.sd_patients`, with 24 patients. The half-width of an interval
# is about 1.96 standard errors. How many patients give a half-width of 0.01?

# %%
answer = 24 * (1.96 * score.sd_patients / 0.01) ** 2

# %%
# Check
assert 0.8 < answer / needed[0.01] < 1.25, "n / 24 = (standard error now / standard error wanted) squared."
print(f"Right: {answer:.0f} by hand, {needed[0.01]} by plan_patients.")

# %% [markdown]
# ## Exercise 3
#
# A study can recruit 300 patients. Which half-width does it get: 0.10, 0.05, 0.02 or 0.01? Choose the smallest one that
# the plan above allows.

# %%
answer = 0.05

# %%
# Check
reached = [half for half, n_patients in needed.items() if n_patients <= 300]
assert answer == min(reached), "Look for plans of at most 300 patients."
print(f"Right: {answer}.")

# %% [markdown]
# **What to take home.** Half the width takes four times the patients, and more patches do not replace them. BreakHis
# has about 80 patients: where a paper on it prints three decimals, look for the interval.
