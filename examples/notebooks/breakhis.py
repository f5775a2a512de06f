"""Source of ``examples/breakhis.ipynb``: ``python examples/make_notebooks.py breakhis`` builds and runs it."""

# %% [markdown]
# # BreakHis: benign or malignant, and which of eight subtypes
#
# BreakHis (Spanhol et al. 2016, doi:10.1109/TBME.2015.2496264) holds 7,909 pictures of breast tumours of 82 patients at
# four magnifications. This notebook walks from the archive's folders to a prediction, as the Keras and PyTorch
# notebooks on it do: transfer learning, ROC curve, gallery, subtypes. It also shows the traps of this data set.
#
# By default it runs on a *synthetic* cohort in the same folders. All numbers are then made up: they show how the tools
# work and say nothing about patients or about which method is better. To run it on your own copy, set `DATA` in the
# first cell (`data/README.md` says how to get the data). The pictures and patient numbers in the outputs are then those
# of real patients: clear the outputs before you pass the notebook on.

# %%
import logging
import os
import tempfile
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import SVG, display
from matplotlib_inline.backend_inline import set_matplotlib_formats
from sklearn.metrics import roc_auc_score

from histofeat import (
    CNNClassifier,
    DatasetError,
    IDCPipeline,
    PatientKFold,
    breakhis_hold_outs,
    evaluate,
    load_breakhis,
    load_model,
    make_breakhis_cohort,
    make_cohort,
    merge_rare_classes,
    nadeau_bengio,
    predict_images,
    recognition_rates,
    save_model,
    write_report,
)
from histofeat.datasets import list_images
from histofeat.reporting import ConfusionDisplay, RocDisplay

# Of TensorFlow's own talk only errors: not that it finds no GPU, nor that it compiles a network for each fold.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
logging.getLogger("tensorflow").addFilter(lambda record: record.levelno >= logging.ERROR)
set_matplotlib_formats("jpeg", pil_kwargs={"quality": 88})  # pictures of tissue: a fifth of a PNG's size

DATA = None  # or "/path/to/BreaKHis_v1"
OUTPUT = Path(tempfile.mkdtemp(prefix="histofeat-"))  # or a folder of yours: the report and the model go there
MAGNIFICATION = 100  # or 40, 200, 400; None takes all four together
EPOCHS = 10 if DATA is None else 20

# %% [markdown]
# ## Load and audit
#
# A file name such as `SOB_M_DC-14-900020AB-100-003.png` says everything: malignant, ductal carcinoma, year, slide,
# magnification, number of the picture. The loader checks it against the folder it lies in.

# %%
if DATA is None:
    root = make_breakhis_cohort(4, images_per_slide=3, magnifications=(40, 100), root=OUTPUT / "cohort").root
else:
    root = DATA
dataset = load_breakhis(root, magnification=MAGNIFICATION, duplicates="drop")
print(dataset.audit.summary())

# %% [markdown]
# ## Look at the pictures
#
# One of each subtype, four benign and four malignant ones (of the synthetic ones only the folder is a tumour's).


# %%
def show(paths, titles, columns=4):
    """Draw pictures in a grid, with words above each."""
    lines = max(1, -(-len(paths) // columns))
    figure, axes = plt.subplots(lines, columns, figsize=(2.3 * columns, 1.9 * lines), dpi=72, squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    for place, path, title in zip(axes.flat, paths, titles, strict=False):
        place.imshow(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB))
        place.set_title(title, fontsize=9)
    figure.tight_layout(pad=0.4)
    plt.show()


first = dataset.frame.groupby("subtype", sort=False).head(1)
show(first["path"].tolist(), first["subtype"].tolist())

# %% [markdown]
# ## Who is a patient?
#
# A slide's id is a number and the letters of a section: 900004AB and 900004CD are two sections of one patient. The
# default, `patient_key="number"`, keeps them together. `patient_key="full"` takes each for a patient, as the published
# lists do; then sections of one patient come to stand on both sides of a split:

# %%
print("patients:", dict(dataset.audit.patient_counts))
full = load_breakhis(root, magnification=MAGNIFICATION, patient_key="full", duplicates="drop")
leaks = breakhis_hold_outs(full).leaks
print(f"by full id, five hold-outs part sections of one patient {len(leaks)} times, such as {leaks[:1]}")
print(f"by number: {len(breakhis_hold_outs(dataset).leaks)} times")

# %% [markdown]
# ### Slide 13412
#
# In the archive the same pictures of slide 13412 lie under ductal *and* under lobular carcinoma. In the published
# fold 1 one copy trains and the other tests. By default the loader refuses such a thing and says which file it is.
# With `duplicates="drop"`, equal pictures with one label (here: malignant) are kept once, and those with two labels
# (here: two subtypes) are left out, as nobody can know which is right. `"published"` keeps everything. A synthetic
# cohort with the same fault:

# %%
twice = make_breakhis_cohort(2, 2, root=OUTPUT / "twice", magnifications=(100,), two_labels=True).root
try:
    load_breakhis(twice)
except DatasetError as error:
    print("refused:", error, "\n")
for target in ("malignant", "subtype"):
    for rule in ("published", "drop"):
        found = load_breakhis(twice, target=target, duplicates=rule)
        left_out = sum(group.count for group in found.audit.left_out)
        print(f"{target:>9}, {rule:>9}: {len(found)} images, {found.audit.duplicates} copies, {left_out} left out")

# %% [markdown]
# ## The protocol of 2016: five hold-outs, recognition rates
#
# The published "folds" are five random splits by patient, 70 % to train and 30 % to test. Where the lists
# `dsfold1.txt` to `dsfold5.txt` lie beside the data they are read; otherwise five of the same kind are drawn, and named
# as ours. They are *no partition*: their test patients overlap, so each is evaluated alone.
#
# A patient's score is the share of that patient's pictures judged right; the **patient recognition rate** is its mean
# over patients, the **image rate** the share of all pictures. Neither knows of classes: to call everything malignant
# gets more than two thirds right on BreakHis. Read them beside the balanced accuracy.

# %%
hold_outs = breakhis_hold_outs(dataset)
print(hold_outs.origin)
classical = {
    "PFTAS": IDCPipeline(features="pftas", head="svm"),
    "colour": IDCPipeline(features="color", head="xgboost"),
}
trials = []
for number in range(1, len(hold_outs) + 1):
    found = evaluate(dataset, classical, hold_outs.cv(number), n_resamples=0)
    rows = found.tested
    for model in found.models:
        rates = recognition_rates(dataset.y[rows], model.predicted[rows], dataset.patients[rows], n_resamples=0)
        balanced = model.scores["balanced_accuracy"].value
        trials.append((number, model.name, rates.patient_rate, rates.image_rate, balanced))
trials = pd.DataFrame(trials, columns=["hold-out", "model", "patient rate", "image rate", "balanced accuracy"])
display(trials.groupby("model")[["patient rate", "image rate", "balanced accuracy"]].agg(["mean", "std"]).round(3))

# %% [markdown]
# Hold-outs of one data set share patients, so a plain t-test over the five finds differences that are not there. The
# correction of Nadeau and Bengio (2003) allows for it:

# %%
rates = trials.pivot(index="hold-out", columns="model", values="patient rate")
train, test = (len(set(dataset.patients[side])) for side in hold_outs.cv(1)[0])
test_of = nadeau_bengio(rates["PFTAS"] - rates["colour"], n_train=train, n_test=test)
low, high = test_of.ci95
print(f"PFTAS less colour: {test_of.mean:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}, p = {test_of.p:.2f}")

# %% [markdown]
# ## Transfer learning
#
# The usual way is a network from ImageNet, fine-tuned: first its new head, then its last blocks,
# `CNNClassifier("densenet201", weights="imagenet")`. That needs the published weights on your disk. So that this
# notebook runs without them, a small CancerNet learns from drawn IDC-like patches first, and goes on from there on the
# pictures at hand. Two folds of patients, everything out of fold. On a few dozen pictures it need not beat chance, and
# that it loses to the classical pipelines here says nothing about networks.

# %%
patches = make_cohort(n_patients=10, patches_per_patient=16, random_state=0, root=OUTPUT / "patches")
settings = {"epochs": EPOCHS, "recipe": {"batch_size": 8}, "class_weight": "balanced", "random_state": 0}
before = CNNClassifier("cancernet", **settings).fit(patches.X, patches.y, groups=patches.patients)
weights = before.save_network(OUTPUT / "pretrained.keras")

pipelines = {
    **classical,
    "CancerNet": IDCPipeline(features="pixels", head=CNNClassifier("cancernet", weights=weights, **settings)),
}
evaluation = evaluate(dataset, pipelines, PatientKFold(2), inner_cv=PatientKFold(2), n_resamples=500, random_state=0)
report = write_report(evaluation, OUTPUT / "report", gallery=4, title="BreakHis, from pictures to a prediction")
figures = report.parent / "figures"

# %% [markdown]
# ### Loss and accuracy per epoch
#
# Dashed: patients held out of the training side, who choose the epoch. Their scores are no result: a set that chooses
# must not report.

# %%
display(SVG(next(figures.glob("training_*.svg"))))

# %% [markdown]
# ### ROC-AUC comes from scores
#
# An "AUC" computed from hard labels has one threshold only. It is the balanced accuracy, and says nothing about the
# ranking:

# %%
display(evaluation)
best = max(evaluation.models, key=lambda one: one.scores["roc_auc"].value)
print(f"{best.name}: AUC from scores {roc_auc_score(dataset.y, best.proba[:, 1]):.3f}, from labels", end=" ")
print(f"{roc_auc_score(dataset.y, best.predicted):.3f}, balanced accuracy", end=" ")
print(f"{best.scores['balanced_accuracy'].value:.3f}")
key = f"{best.name}/{best.head}"
drawn = RocDisplay.from_evaluation(evaluation, models=[key])

# %% [markdown]
# ### Confusion matrix
#
# Rows are the truth. Sensitivity is the share of malignant pictures that are called malignant, the lower right cell of
# its row; specificity the share of benign pictures that are called benign, the upper left one.

# %%
drawn = ConfusionDisplay.from_evaluation(evaluation, models=[key])

# %% [markdown]
# ### Right, wrong, and most confidently wrong

# %%
predictions, mistakes = evaluation.predictions(), evaluation.top_losses(4)
own = predictions[predictions["model"] == key]
right = own["label"] == own["truth"]
groups = {
    "right": own[right].sample(4, random_state=0),
    "wrong": own[~right].sample(min(4, (~right).sum()), random_state=0),
    "surest mistakes": mistakes[mistakes["model"] == key],
}
column = f"p_{dataset.positive}".replace(" ", "_")
for words, rows in groups.items():
    print(f"{words}; p is the probability of {dataset.positive!r}")
    titles = [f"{name}, p = {p:.2f}" for name, p in zip(rows["truth"], rows[column], strict=True)]
    show(rows["path"], titles)

# %% [markdown]
# ## Eight subtypes
#
# The same pictures with another target. A subtype of one patient can be trained on or tested, never both: splitters
# refuse it. `merge_rare_classes` merges such a subtype with the rarest of its kind and notes it in the audit. In the
# synthetic cohort every subtype has four patients; without three of the patients of one of them:

# %%
subtypes = load_breakhis(root, magnification=MAGNIFICATION, target="subtype", duplicates="drop")
rare = subtypes.frame["patient"][subtypes.y == 0].unique()[1:]
fewer = merge_rare_classes(subtypes.subset(~np.isin(subtypes.patients, rare)), min_patients=3)
print("classes now:", ", ".join(fewer.target_names))

subtypes = merge_rare_classes(subtypes, min_patients=3)  # changes nothing where no subtype is rare
heads = {"all": IDCPipeline(features=("color", "lbp", "haralick"), head="svm")}
folds = PatientKFold(3)
eight = evaluate(subtypes, heads, folds, inner_cv=PatientKFold(2), n_resamples=300, random_state=0)
display(eight)  # means over the subtypes

# %% [markdown]
# ### Each subtype against the rest
#
# The mean hides which subtypes are found and which are not. A subtype of few patients has a wide interval.

# %%
table = eight.classes[0].to_frame()
columns = ["class", "n_patients", "support", "predicted", "sensitivity", "sensitivity_low", "sensitivity_high", "f1"]
display(table[[*columns, "roc_auc"]].round(2))
drawn = ConfusionDisplay.from_evaluation(eight)

# %% [markdown]
# ## Save, load, predict
#
# The model file holds data only (no pickle) and says what it learnt from. On a command line the same is
# `histofeat train` and `histofeat predict MODEL IMAGE|FOLDER|GLOB -o scores.csv`. Here the best pipeline learns from
# the training patients of the first hold-out.

# %%
train, test = hold_outs.cv(1)[0]
fitted = pipelines[best.name].fit(dataset.X[train], dataset.y[train], groups=dataset.patients[train])
size = [int(side) for side in dataset.frame.loc[train, ["height", "width"]].mode().iloc[0]]
about = {"class_names": list(dataset.target_names), "patch_size": size, "dataset": dataset.name}
saved = load_model(save_model(fitted, OUTPUT / "breakhis.histofeat", about=about))


def named(predictions):
    """Table of predictions with file names in place of whole paths."""
    frame = predictions.to_frame()
    return frame.assign(path=[Path(name).name for name in frame["path"]]).round(3)


image = Path(dataset.X[test[0]])
print("one picture; in truth:", dataset.target_names[dataset.y[test[0]]])
display(named(predict_images(saved, [image])))
folder = list_images(image.parent).paths
print("the folder of its slide, and the patient")
predictions = predict_images(saved, folder, patients=[dataset.patients[test[0]]] * len(folder))
display(named(predictions))
display(predictions.by_patient().round(3))

# %% [markdown]
# ### A picture of another size
#
# A picture that is larger than those of the training is cut into tiles of that size, and their probabilities are
# averaged; the table says so in `policy` and `tiles`. Here three pictures of one slide are put side by side:

# %%
strip = np.concatenate([cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB) for path in folder[:3]], axis=1)
whole = predict_images(saved, [strip])
display(named(whole))
assert whole.policies == ("tile",)

# %% [markdown]
# ## What to take along
#
# - Ask who a patient is before splitting, and what is there twice.
# - Five overlapping hold-outs are five looks at the same patients: use the corrected test.
# - Give rates by patient *and* a score that knows of classes, and every one with its interval.
# - The numbers above come from drawn pictures, unless you set `DATA`. Those on real patients are in `reports/`, each
#   with the command that wrote it.
