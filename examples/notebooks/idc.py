"""Source of ``examples/idc.ipynb``: ``python examples/make_notebooks.py idc`` builds and runs it."""

# %% [markdown]
# # IDC: from patches to a prediction
#
# Is there invasive ductal carcinoma (IDC) in a patch of 50 x 50 pixels? This notebook walks from the data to a saved
# model that predicts a picture, as the well-known tutorials on these patches do (an ImageNet network fine-tuned with
# fast.ai, CancerNet in Keras), with one difference: **no patient is ever on both sides of a split.**
#
# By default it runs on a *synthetic* cohort that a program draws. All numbers below are then made up: they show how the
# tools work and say nothing about patients or about which method is better. To run it on your own copy of IDC, set
# `DATA` in the first cell (`data/README.md` says how to get the data). The pictures and patient ids in the outputs are
# then those of real patients: clear the outputs before you pass the notebook on.

# %%
import logging
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import SVG, display
from matplotlib_inline.backend_inline import set_matplotlib_formats

from histofeat import (
    CNNClassifier,
    GroupLeakageError,
    IDCPipeline,
    PatientKFold,
    evaluate,
    load_idc,
    load_model,
    make_cohort,
    make_signature_cohort,
    predict_images,
    save_model,
    split_dataset,
    write_report,
)
from histofeat.datasets import list_images
from histofeat.evaluation import AuditPolicy
from histofeat.model_selection import PatchKFold
from histofeat.reporting import ConfusionDisplay, PatientsDisplay, RocDisplay

# Of TensorFlow's own talk only errors: not that it finds no GPU, nor that it compiles a network for each fold.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
logging.getLogger("tensorflow").addFilter(lambda record: record.levelno >= logging.ERROR)
set_matplotlib_formats("jpeg", pil_kwargs={"quality": 88})  # pictures of tissue: a fifth of a PNG's size

DATA = None  # or "/path/to/idc"
OUTPUT = Path(tempfile.mkdtemp(prefix="histofeat-"))  # or a folder of yours: the report and the model go there
EPOCHS = 6 if DATA is None else 24  # 24 are minutes to hours, by the size of the copy

# %% [markdown]
# ## Load and audit
#
# A loader reads a folder and says what it found: copies that it did not count twice, files that it left out and why,
# patches smaller than 50 x 50, patients without a positive patch.

# %%
if DATA is None:
    dataset = make_cohort(n_patients=24, patches_per_patient=24, random_state=0, root=OUTPUT / "cohort")
else:
    dataset = load_idc(DATA)
POSITIVE = dataset.positive
print(dataset.audit.summary())

# %% [markdown]
# ## Look at patches
#
# One row a class, each patch of another patient. Stains differ between patients more than between classes: a model that
# knows the stain knows the patient.


# %%
def show(paths, titles, columns=6):
    """Draw patches in a grid, with words above each."""
    lines = max(1, -(-len(paths) // columns))
    figure, axes = plt.subplots(lines, columns, figsize=(1.2 * columns, 1.6 * lines), dpi=72, squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    for place, path, title in zip(axes.flat, paths, titles, strict=False):
        place.imshow(plt.imread(path))
        place.set_title(title, fontsize=7)
    figure.tight_layout(pad=0.3)
    plt.show()


table = dataset.frame
whole = table[(table["height"] == 50) & (table["width"] == 50)]
chosen = [row for code in (0, 1) for row in whole[whole["label"] == code].groupby("patient").head(1).index[:6]]
show(dataset.X[chosen], [f"{dataset.target_names[dataset.y[row]]}\npatient {dataset.patients[row]}" for row in chosen])

# %% [markdown]
# ## Split by patient
#
# `split_dataset` puts whole patients into train, validation and test, with the classes as even as whole patients allow.
# The test patients are put aside now and looked at once, at the end. On the full IDC set,
# `dataset.official_split()` gives the published lists of patients instead.

# %%
split = split_dataset(dataset, test_size=0.25, validation_size=0.1, random_state=0)
parts = {
    part: {
        "patients": len(split.patients[part]),
        "share of patients": round(split.reached[part]["patients"], 3),
        **split.class_counts[part],
    }
    for part in ("train", "validation", "test")
}
display(pd.DataFrame(parts).T)
print("patients in more than one part:", len(split.shared_patients))

# %% [markdown]
# The other patients are for choosing. Cross-validation uses all of them: each fold is tested by a model that has seen
# none of its patients. Inside the training side of a fold, patients are held out once more: for the decision threshold,
# and for the epoch at which a network is kept. What chooses is never what reports.

# %%
development = dataset.subset(np.sort(np.concatenate([split.train, split.validation])))
folds = PatientKFold(3)
for number, (train, test) in enumerate(folds.split(development.X, development.y, groups=development.patients), start=1):
    own = set(development.patients[test])
    shared = own & set(development.patients[train])
    print(f"fold {number}: {len(train)} patches train, {len(test)} of {len(own)} patients test, {len(shared)} in both")

# %% [markdown]
# ### What a split by patch hides
#
# A random split of the patches puts patches of one patient on both sides. Here is a cohort in which there is *nothing*
# to learn but the patient: no tumour is drawn, and each patient got a class by lot. A split by patch looks brilliant on
# it; a split by patient is where it belongs, around 0.5 with few patients. `evaluate` refuses the first one unless told
# by name to go on.

# %%
nothing = make_signature_cohort(OUTPUT / "signature", n_patients=24, patches_per_patient=12, random_state=0)
pipeline = IDCPipeline(features="color", head="logistic")
try:
    evaluate(nothing, pipeline, PatchKFold(3))
except GroupLeakageError as error:
    print("refused:", error, "\n")
for words, cv, accepted in (
    ("split by patch  ", PatchKFold(3), ("HF001",)),
    ("split by patient", PatientKFold(3), ()),
):
    found = (
        evaluate(nothing, pipeline, cv, n_resamples=300, audit=AuditPolicy(accept_findings=accepted))
        .models[0]
        .scores["roc_auc"]
    )
    print(f"{words}: ROC-AUC {found.value:.2f}, 95 % interval {found.ci95[0]:.2f} to {found.ci95[1]:.2f}")

# %% [markdown]
# ## Three pipelines: colour, texture, and a network
#
# A pipeline is features and a head, as one scikit-learn classifier on patches. Two are classical; the third is
# CancerNet (separable convolutions on 48 x 48 pixels), trained from random weights on the pixels, with class weights,
# flips, quarter turns and stain jitter. A few epochs on some hundred patches are far too little for a network: that it
# loses here means nothing. To fine-tune a network from ImageNet, as the fast.ai tutorial does, write
# `CNNClassifier("resnet50", weights="imagenet")`.

# %%
network = CNNClassifier("cancernet", epochs=EPOCHS, recipe={"batch_size": 16}, class_weight="balanced", random_state=0)
pipelines = {
    "colour": IDCPipeline(features="color", head="xgboost"),
    "texture": IDCPipeline(features=("lbp", "haralick"), head="svm"),
    "CancerNet": IDCPipeline(features="pixels", head=network),
}
evaluation = evaluate(development, pipelines, folds, n_resamples=500, random_state=0)
report = write_report(evaluation, OUTPUT / "report", gallery=4, title="IDC, from patches to a prediction")

# %% [markdown]
# The report is a folder with one HTML page, every figure as SVG with its numbers beside it, and a gallery of right and
# wrong patches. The figures below are the report's own.
#
# ### Loss and accuracy per epoch
#
# The dashed lines are the validation patients, who choose the epoch that is kept. They are no result.

# %%
model = {model.name: model for model in evaluation.models}
history = pd.DataFrame(model["CancerNet"].histories[0])
columns = ["loss", "accuracy", "val_loss", "val_accuracy", "val_roc_auc"]
display(history[columns].round(3).set_axis(range(1, len(history) + 1)).rename_axis("epoch, fold 1"))
display(SVG(next((report.parent / "figures").glob("training_*.svg"))))

# %% [markdown]
# ## Scores, with intervals
#
# Every patch is scored once, by the fold that did not train on its patient. The intervals resample *patients*: patches
# of one patient are alike, and an interval that takes them for independent is far too narrow. Where two intervals
# overlap, the report's table of paired differences says more than they do. `evaluation.to_frame()` has the same
# numbers, and `evaluation.comparison` the differences.

# %%
display(evaluation)
drawn = PatientsDisplay.from_evaluation(evaluation, metric="balanced_accuracy")

# %% [markdown]
# ### Confusion matrix, and which way round sensitivity is
#
# Rows are the truth. **Sensitivity** is the share of patches *with* tumour that are found; **specificity** is the share
# of patches *without* tumour that are left in peace. The CancerNet tutorial printed the two under each other's name: it
# read them off a matrix whose first class is "no tumour".

# %%
best = max(evaluation.models, key=lambda one: one.scores["roc_auc"].value)
(true_negative, false_positive), (false_negative, true_positive) = best.confusion
print(f"{best.name}, head {best.head}, labels at 0.5")
key = f"{best.name}/{best.head}"
drawn = ConfusionDisplay.from_evaluation(evaluation, models=[key])
sensitivity = true_positive / (true_positive + false_negative)
specificity = true_negative / (true_negative + false_positive)
print(f"sensitivity: {true_positive} of {true_positive + false_negative} with tumour found = {sensitivity:.3f}")
print(f"specificity: {true_negative} of {true_negative + false_positive} without tumour so called = {specificity:.3f}")
assert np.isclose(sensitivity, best.scores["sensitivity"].value)
assert np.isclose(specificity, best.scores["specificity"].value)

# %% [markdown]
# ### ROC curve
#
# From the probabilities, not from the labels: an "AUC" of hard labels is the balanced accuracy under another name. The
# band holds 95 % of the curves when patients are resampled.

# %%
drawn = RocDisplay.from_evaluation(evaluation, models=[key])

# %% [markdown]
# ## Right, wrong, and most confidently wrong
#
# The last line is what fast.ai calls top losses: the mistakes of which the model was surest. Look at them first: they
# show wrong labels, odd patches, and what the model goes by.

# %%
predictions, mistakes = evaluation.predictions(), evaluation.top_losses(6)
own = predictions[predictions["model"] == key]
right = own["label"] == own["truth"]
groups = {
    "right": own[right].sample(6, random_state=0),
    "wrong": own[~right].sample(min(6, (~right).sum()), random_state=0),
    "surest mistakes": mistakes[mistakes["model"] == key],
}
column = f"p_{POSITIVE}".replace(" ", "_")
for words, rows in groups.items():
    print(f"{words}; p is the probability of {POSITIVE!r}")
    titles = [f"true: {name}\np = {p:.2f}" for name, p in zip(rows["truth"], rows[column], strict=True)]
    show(rows["path"], titles)

# %% [markdown]
# ## Once, on the test patients
#
# The pipeline that was best above is fitted on all other patients and tested on those put aside. This number was not
# chosen by anybody; with few patients its interval is wide, and honest about that.

# %%
final = evaluate(dataset, {best.name: pipelines[best.name]}, split.as_cv(), n_resamples=500)
print(f"{best.name} on {len(split.patients['test'])} test patients")
display(final)

# %% [markdown]
# ## Save, load, predict
#
# The model file holds data only (formats of skops, XGBoost and Keras, no pickle), and says what it learnt from. On a
# command line the same is `histofeat train` and `histofeat predict MODEL IMAGE|FOLDER|GLOB -o scores.csv`.

# %%
train = np.sort(np.concatenate([split.train, split.validation]))
fitted = pipelines[best.name].fit(dataset.X[train], dataset.y[train], groups=dataset.patients[train])
about = {
    "class_names": list(dataset.target_names),
    "patch_size": [50, 50],
    "dataset": dataset.name,
    "n_patients": len(set(dataset.patients[train])),
    "n_images": len(train),
}
file = save_model(fitted, OUTPUT / "idc.histofeat", about=about)
saved = load_model(file)
assert np.array_equal(saved.pipeline.predict_proba(dataset.X[split.test]), fitted.predict_proba(dataset.X[split.test]))
print({name: saved.about[name] for name in ("dataset", "n_patients", "n_images", "class_names")})


# %%
def named(predictions):
    """Table of predictions with file names in place of whole paths."""
    frame = predictions.to_frame()
    return frame.assign(path=[Path(name).name for name in frame["path"]]).round(3)


image = Path(dataset.X[split.test[0]])
print("one image; in truth:", dataset.target_names[dataset.y[split.test[0]]])
display(named(predict_images(saved, [image])))
folder = list_images(image.parents[1]).paths
print(f"the folder of a test patient: the first of {len(folder)} images, and the patient")
predictions = predict_images(saved, folder, patients=[image.parents[1].name] * len(folder))
display(named(predictions).head())
display(predictions.by_patient().round(3))

# %% [markdown]
# ## What to take along
#
# - Split by patient, choose inside the training patients, and test once.
# - Give every score its interval over patients.
# - Start from a classical baseline: whoever trains a network has to beat it *on new patients*.
# - The numbers above come from drawn pictures, unless you set `DATA`. Those on real patients are in `reports/`, each
#   with the command that wrote it.
