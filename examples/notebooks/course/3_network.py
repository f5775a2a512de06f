"""Source of ``examples/course/3_network.ipynb``: ``python examples/make_notebooks.py course/3_network`` runs it."""

# %% [markdown]
# # Lesson 3: does the network beat colour?
#
# A network and a colour histogram were tested on the same patients, and the network scored higher. Is it better? Two
# scores do not answer this, and neither do two intervals. The interval of the *difference* does, and one of its answers
# is "not told apart".
#
# The network is `histo`, which comes with the package. The cohort is *synthetic*: whatever comes out here says nothing
# about patients, nor about which of the two is better on tissue.
#
# Each exercise has a filled-in `answer`. Replace it by `None`, find your own, and run the cell below, which checks it.

# %%
import matplotlib.pyplot as plt
import numpy as np

from histofeat import IDCPipeline, PatientKFold, compare_models, evaluate, make_cohort
from histofeat.metrics import plan_patients, smallest_detectable_difference
from histofeat.reporting import RocDisplay

cohort = make_cohort(n_patients=24, patches_per_patient=16, random_state=0)
pipelines = {
    "network": IDCPipeline(features="histo", head="logistic"),
    "colour": IDCPipeline(features="color", head="logistic"),
}
evaluation = evaluate(cohort, pipelines, PatientKFold(4), n_resamples=300)
print(evaluation.to_frame()[["name", "roc_auc", "roc_auc_low", "roc_auc_high"]].round(2).to_string(index=False))

# %% [markdown]
# ## Is the test fair?
#
# The network was trained on patients of its own. If one of them were tested, it would have an advantage. The audit
# looks for that by the pixels (HF007).

# %%
known = evaluation.audit.finding("HF007")
print(known.detail)
assert known.status == "passed"

# %% [markdown]
# ## Two curves
#
# The bands overlap. That neither shows nor rules out a difference: a patient who is hard for one model is often hard
# for the other, and the bands do not know that.

# %%
figure, ax = plt.subplots(figsize=(5, 4.6), layout="constrained")
RocDisplay.from_evaluation(evaluation, ax=ax)
plt.show()

# %% [markdown]
# ## The paired difference
#
# `compare_models` draws the same patients for both models, again and again, and takes the difference each time.

# %%
comparison = compare_models(evaluation, pairs=[("network/logistic", "colour/logistic")])
(row,) = comparison.rows
low, high = row.ci95
print(f"network - colour: {row.difference:.3f}, 95 % interval {low:.3f} to {high:.3f}")
print(comparison.verdict)

paired = (high - low) / 2
alone = [(score.ci95[1] - score.ci95[0]) / 2 for score in (model.scores["roc_auc"] for model in evaluation.models)]
print(f"half-width: {paired:.3f} paired, {np.hypot(*alone):.3f} if the patients had been different ones")
assert paired < np.hypot(*alone), "testing on the same patients should make the difference clearer"

# %% [markdown]
# ## Exercise 1
#
# What does the interval say: "network is better", "colour is better" or "not told apart"?

# %%
answer = "not told apart"

# %%
# Check
right = "network is better" if low > 0 else "colour is better" if high < 0 else "not told apart"
assert answer == right, "Does the interval of the difference hold 0?"
print(f"Right: {answer}.")

# %% [markdown]
# ## Exercise 2
#
# `smallest_detectable_difference` says how large a true difference must be for these patients to find it four times in
# five. A leaderboard puts one model 0.006 above another with as many patients as here. Can they tell: "yes" or "no"?

# %%
detectable = smallest_detectable_difference(evaluation, power=0.8)
print(f"differences in ROC-AUC below {detectable:.3f} are hard to find with {cohort.audit.n_patients} patients")
answer = "no"

# %%
# Check
assert answer == ("yes" if detectable <= 0.006 else "no"), "Compare 0.006 with the printed number."
assert detectable > 0.02, "24 patients should not be enough for small differences"
print(f"Right: {answer}.")

# %% [markdown]
# ## Exercise 3
#
# How many patients does it take to find a difference of 0.02 with a power of 0.8? `plan_patients` has an argument
# `difference`.

# %%
answer = plan_patients(evaluation, difference=0.02).n_patients

# %%
# Check
by_hand = 24 * (detectable / 0.02) ** 2
assert 0.5 < answer / by_hand < 1.5, "About 24 times the square of detectable / 0.02."
print(f"Right: {answer} patients; the rule of thumb says {by_hand:.0f}.")

# %% [markdown]
# **What to take home.** "Not told apart" is a result: it does not say that the models are equal, but that these
# patients cannot decide. Then take the cheaper one, or test more patients. And a synthetic cohort decides nothing at
# all: repeat this with your own data before you believe a winner.
