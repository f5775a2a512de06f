"""
How many patients does it take?
===============================

More patches of the same patients help little; more patients help. Two questions have numbers: how well a model does
with as many training patients, and how wide the interval of its score is with as many tested patients.
"""

# %%
# The first: fit on more and more patients, and on as many patches spread over all of them.

import matplotlib.pyplot as plt

from histofeat import IDCPipeline, PatientKFold, evaluate, extract_features, make_cohort
from histofeat.metrics import plan_patients
from histofeat.models import make_head
from histofeat.studies import learning_curve

cohort = make_cohort(n_patients=30, patches_per_patient=16, random_state=0)
features = extract_features(cohort, "lbp").filter(like="lbp_").to_numpy()
curve = learning_curve(
    features,
    cohort.y,
    cohort.patients,
    make_head("logistic"),
    PatientKFold(3),
    n_patients=(5, 10, 15),
    n_draws=3,
    n_resamples=200,
)
print(curve[["sampling", "n_patients", "n_patches", "value", "low", "high"]].round(2).to_string(index=False))

# %%
# The second: a pilot tells how many patients an interval of some width takes.

pilot = evaluate(cohort, IDCPipeline("lbp", "logistic"), PatientKFold(3), n_resamples=300)
widths = [0.05, 0.1, 0.15, 0.2]
needed = [plan_patients(pilot, width=width).n_patients for width in widths]
for width, n_patients in zip(widths, needed, strict=True):
    print(f"an interval {width:.2f} wide takes {n_patients} patients")

# %%

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for sampling, words in {"patients": "all patches of some patients", "patches": "as many patches of all"}.items():
    rows = curve[curve["sampling"] == sampling]
    left.plot(rows["n_patients"], rows["value"], "o-", label=words)
    left.fill_between(rows["n_patients"], rows["low"], rows["high"], alpha=0.15)
left.set(xlabel="training patients", ylabel="ROC-AUC, out of fold")
left.legend(loc="lower right")
right.plot(needed, widths, "o-")
right.set(xlabel="tested patients", ylabel="width of the 95 % interval", xscale="log")
plt.show()
