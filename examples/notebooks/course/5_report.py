"""Source of ``examples/course/5_report.ipynb``: ``python examples/make_notebooks.py course/5_report`` runs it."""

# %% [markdown]
# # Lesson 5: read a report
#
# `write_report` writes a folder: a page to read, and the numbers as files. This lesson answers questions from the files
# alone, among them what a report does *not* say.
#
# The cohort is *synthetic*: the numbers say nothing about patients.
#
# Each exercise has a filled-in `answer`. Replace it by `None`, find your own, and run the cell below, which checks it.

# %%
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from histofeat import AuditPolicy, IDCPipeline, PatientKFold, evaluate, make_cohort, write_report
from histofeat.model_selection import PatchKFold

cohort = make_cohort(n_patients=16, patches_per_patient=12, random_state=0)
pipelines = {
    "colour": IDCPipeline(features="color", head="logistic"),
    "texture": IDCPipeline(features="lbp", head="logistic"),
}
evaluation = evaluate(cohort, pipelines, PatientKFold(4), n_resamples=300)
folder = Path(tempfile.mkdtemp())
write_report(evaluation, folder / "by_patient")
for path in sorted((folder / "by_patient").glob("*.*")):
    print(path.name)

# %% [markdown]
# ## The answer comes first
#
# `report.html` and `report.md` begin with a few sentences: what is recommended, what it is not told apart from, its
# main weakness, what shortcuts reach alone, and what was tested. The same sentences are in `metrics.json`.

# %%
report = json.loads((folder / "by_patient" / "metrics.json").read_text())
first = report["answer"]
print(first["sentences"][0])
print("Not told apart:", ", ".join(first["alike"]) or "none")
for part in ("weakness", "shortcut", "tested"):
    print(first[part]["words"])
assert first["tested"]["synthetic"], "a report on made-up pictures should say so"

# %% [markdown]
# ## Two intervals
#
# Each score has two intervals. `ci95` is of *these fits* on other patients. `method_ci95` is of the *method*: it also
# covers fitting on other patients. Beside them, `patient_mean` counts each patient once.

# %%
best = next(row for row in report["results"] if f"{row['name']}/{row['head']}" == report["answer"]["model"])
score = best["roc_auc"]
for name in ("value", "ci95", "method_ci95", "patient_mean", "patient_mean_ci95"):
    print(f"{name}: {np.round(score[name], 3).tolist()}")

# %% [markdown]
# ## Exercise 1
#
# A colleague will train the same method on her own patients, and asks what to expect. Which interval do you give her?

# %%
answer = "method_ci95"

# %%
# Check
width = {name: np.ptp(score[name]) for name in ("ci95", "method_ci95")}
assert answer == max(width, key=width.get), "Her fits will be others: take the interval that covers fitting."
print(f"Right: {answer}. It is {width['method_ci95']:.2f} wide, the other one {width['ci95']:.2f}.")

# %% [markdown]
# ## Exercise 2
#
# Every number can be computed again. `predictions.parquet` has a row for each patch and model. Compute the accuracy of
# the recommended model from it.

# %%
predictions = pd.read_parquet(folder / "by_patient" / "predictions.parquet")
rows = predictions[predictions["model"] == report["answer"]["model"]]
print(rows[["patient", "truth", "fold", "p_tumour", "label"]].head(3).round(3).to_string(index=False))
answer = (rows["truth"] == rows["label"]).mean()

# %%
# Check
table = pd.read_csv(folder / "by_patient" / "metrics.csv")
right = table[(table["name"] == best["name"]) & (table["metric"] == "accuracy") & (table["threshold"] == "0.5")]
assert np.isclose(answer, right["value"].item()), "The share of rows in which truth and label agree."
print(f"Right: {answer:.3f}, as in metrics.csv.")

# %% [markdown]
# ## Exercise 3
#
# Which of these are **not** in the folder?
#
# - a: the patients of each fold
# - b: pictures of patches
# - c: the probability of each patch
# - d: scores on patients of another hospital
# - e: the full path of the images

# %%
answer = {"b", "d", "e"}

# %%
# Check
paths = [path for path in (folder / "by_patient").rglob("*") if path.is_file()]
texts = [path.read_text() for path in paths if path.suffix in (".json", ".csv", ".md", ".html", ".svg")]
there = {
    "a": "test" in json.loads((folder / "by_patient" / "splits.json").read_text())["folds"][0],
    "b": any(path.suffix in (".png", ".jpg", ".jpeg") for path in paths),
    "c": "p_tumour" in predictions,
    "d": report["answer"]["tested"]["places"] is not None,
    "e": any(str(cohort.root) in text for text in texts),
}
assert answer == {letter for letter, found in there.items() if not found}, "Open the files and look."
print("Right:", ", ".join(sorted(answer)))

# %% [markdown]
# ## Exercise 4
#
# Here is a second report. Something is wrong with it. Which code of the audit was accepted to get it?
# `report["protocol"]` says what was done.

# %%
accepted = AuditPolicy(accept_findings=("HF001",))
leaky = evaluate(cohort, pipelines, PatchKFold(4), n_resamples=100, audit=accepted)
write_report(leaky, folder / "by_patch")
second = json.loads((folder / "by_patch" / "metrics.json").read_text())
answer = second["protocol"]["accepted_findings"][0]

# %%
# Check
assert answer == second["audit"]["errors"][0], "Look at accepted_findings."
assert second["protocol"]["patient_overlap"], "a report should say that patients were on both sides"
assert not report["protocol"]["patient_overlap"]
print(f"Right: {answer}, shared patients. The page begins with:")
print(second["answer"]["sentences"][0])

# %% [markdown]
# **What to take home.** Before you believe a score, look for four things in its report: how many patients, which
# interval, what shortcuts reach alone, and what was accepted. No interval makes up for what was not tested, such as
# patients of another hospital.
