"""Source of ``examples/course/4_calibration.ipynb``, built by ``python make_notebooks.py course/4_calibration``."""

# %% [markdown]
# # Lesson 4: what calibration buys
#
# Tumour is the rarer class, so people give it a larger weight. The model then finds more tumour, and its probabilities
# become wrong. This lesson shows both, repairs the probabilities, and raises the sensitivity by a threshold instead.
#
# The cohort is *synthetic*: the numbers say nothing about patients.
#
# Each exercise has a filled-in `answer`. Replace it by `None`, find your own, and run the cell below, which checks it.

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import roc_auc_score

from histofeat import IDCPipeline, PatientKFold, evaluate, make_cohort
from histofeat.reporting import CalibrationDisplay

cohort = make_cohort(n_patients=24, patches_per_patient=24, random_state=0)
pipelines = {
    "plain": IDCPipeline(features="lbp", head="logistic"),
    "weighted": IDCPipeline(features="lbp", head="logistic", class_weight="balanced"),
}
evaluation = evaluate(cohort, pipelines, PatientKFold(4), n_resamples=300)
plain, weighted = evaluation.models
share = cohort.y.mean()
print(f"{share:.0%} of the patches hold tumour")

# %% [markdown]
# ## What weights do
#
# At a threshold of 0.5 the weighted model finds more tumour and raises more false alarms. Its ranking of the patches,
# the ROC-AUC, is about the same. Its probabilities are too high.

# %%
for model in (plain, weighted):
    found = {name: model.scores[name].value for name in ("roc_auc", "sensitivity", "specificity", "brier")}
    words = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
    print(f"{model.name}: {words}; mean probability {model.proba[:, 1].mean():.2f}")
assert weighted.scores["sensitivity"].value > plain.scores["sensitivity"].value
assert weighted.scores["specificity"].value < plain.scores["specificity"].value
assert weighted.proba[:, 1].mean() > share + 0.05, "weights should raise the probabilities above the share of tumour"

# %% [markdown]
# ## What calibration does
#
# In each fold, `evaluate` fits a calibration on training patients and applies it to the test patients. Of the patches
# with probability 0.8, 80 % should then hold tumour: the curve should follow the diagonal.

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
for ax, calibrated in zip(axes, (False, True), strict=True):
    CalibrationDisplay.from_evaluation(evaluation, calibrated=calibrated, ax=ax)
    ax.set_title("calibrated" if calibrated else "as they are", fontsize=9)
figure.suptitle("SYNTHETIC cohort", fontsize=9)
plt.show()

for model, assessed in zip(evaluation.models, evaluation.calibration, strict=True):
    raw, after = assessed.raw.values, assessed.calibrated.values
    change, low, high = assessed.change["brier"]
    print(f"{model.name}: Brier {raw['brier']:.3f}, calibrated {after['brier']:.3f}", end="; ")
    print(f"change {change:.3f}, 95 % interval {low:.3f} to {high:.3f}")
    low, high = assessed.raw.interval("bias")
    print(f"    mean probability - share of tumour: {raw['bias']:.3f} ({low:.3f} to {high:.3f}), ", end="")
    print(f"calibrated {after['bias']:.3f}")
before, after = evaluation.calibration[1].raw.values, evaluation.calibration[1].calibrated.values
assert after["brier"] < before["brier"], "calibration should mend what the weights broke"
assert abs(after["bias"]) < abs(before["bias"]) / 2
assert evaluation.calibration[1].raw.interval("bias")[0] > 0, "the weighted probabilities should be clearly too high"

# %% [markdown]
# That the weighted probabilities are too high is clear: the interval leaves out 0. How much calibration gains in Brier
# score is less clear: read the interval of the change before you claim a gain. The plain model gains little or nothing,
# as its probabilities were not far off.
#
# ## A threshold does it without weights
#
# To find more tumour, lower the threshold. `evaluate` chooses one on training patients, and the scores at this
# threshold are in `tuned`.

# %%
for words, scores in (("0.5", plain.scores), ("tuned", plain.tuned)):
    values = (scores["sensitivity"].value, scores["specificity"].value)
    print(f"plain, threshold {words}: sensitivity {values[0]:.2f}, specificity {values[1]:.2f}")
print("thresholds of the folds:", np.round(plain.thresholds, 2).tolist())
assert plain.tuned["sensitivity"].value > plain.scores["sensitivity"].value

# %% [markdown]
# ## Exercise 1
#
# Compute the Brier score of the weighted model by hand: the mean squared distance of the probability of tumour to the
# label, 0 or 1.

# %%
answer = np.mean((weighted.proba[:, 1] - cohort.y) ** 2)

# %%
# Check
assert np.isclose(answer, weighted.scores["brier"].value), "Square the difference, then take the mean."
print(f"Right: {answer:.3f}.")

# %% [markdown]
# ## Exercise 2
#
# A Brier score needs something to compare with. What is the Brier score of a model that knows nothing and gives every
# patch the share of tumour as its probability?

# %%
answer = share * (1 - share)

# %%
# Check
assert np.isclose(answer, np.mean((share - cohort.y) ** 2)), "Use the formula of exercise 1 with one probability."
assert weighted.scores["brier"].value < answer, "the model should know more than nothing"
print(f"Right: {answer:.3f}.")

# %% [markdown]
# ## Exercise 3
#
# By how much does calibration change the ROC-AUC of the weighted model within the first fold?

# %%
tested = evaluation.fold == 0
raw_auc = roc_auc_score(cohort.y[tested], weighted.proba[tested, 1])
change = roc_auc_score(cohort.y[tested], weighted.calibrated[tested, 1]) - raw_auc
answer = "not at all" if abs(change) < 1e-9 else "somewhat"

# %%
# Check
first = np.argsort(weighted.proba[tested, 1], kind="stable")
rising = (np.diff(weighted.calibrated[tested, 1][first]) >= 0).all()
assert answer == ("not at all" if rising else "somewhat"), "The calibration keeps the order of the patches of a fold."
print(f"Right: {answer}. Ranking and probability are two qualities.")

# %% [markdown]
# **What to take home.** Weights move the threshold and spoil the probabilities. If you want another balance of errors,
# choose a threshold on training patients. If somebody acts on the probability, calibrate it on training patients, and
# report the Brier score beside the ROC-AUC, which cannot see any of this.
