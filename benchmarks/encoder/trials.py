"""How the recipe of the encoder that ships with histofeat was chosen: a few trainings on IDC's development patients.

    python benchmarks/encoder/trials.py --data /path/to/idc --weights /path/to/weights

Each recipe learns from two thirds of the 190 patients outside the official test set (127 patients, 6,624 patches) and
is scored on the third held out (63 patients, 3,366 patches). The 49 official test patients take no part. One row of
trials.csv for each trial: ROC-AUC of the network's own head and of a logistic regression on its embedding, each on the
patch as it is and as the mean over its eight views; of the own head on the training patients; and of handcrafted
features together with the embedding, in one XGBoost and in a late vote (XGBoost and SVM on handcrafted features, a
logistic one on the embedding of eight views). A network that saw no labels has no own head to score. The embedding that
heads are fitted on comes from the network that learnt from these very patients.

Chosen: `light_long`, which is ``CNNClassifier("resnet_small")`` at 50 px for 40 epochs under a wide augmentation. Of
the 15 networks that learnt from labels, the own heads lie from 0.9007 to 0.9155 (0.0148 apart; `light_long` 0.9155)
and over eight views from 0.9036 to 0.9159 (0.0123; 0.9159). Their logistic heads lie from 0.9043 to 0.9158 (0.0115;
0.9138), XGBoost with handcrafted features from 0.9145 to 0.9267 (0.0122; 0.9233), after 0.9213 without a network, and
the late vote from 0.9257 to 0.9295 (0.0038; 0.9282), after 0.9241. SimSiam without labels falls behind in two of the
three: logistic 0.8847, XGBoost 0.9211, late vote 0.9234. Differences below about 0.01 cannot be told apart on 63
patients and a single seed, so the simplest recipe was taken that is not lost on darker slides: it needs neither
ImageNet weights nor a teacher.

What was asked one by one. The jitter of the light: an encoder without it is lost on darker slides (what it has with
it is in reports/idc-encoder-sample); in 15 epochs it costs 0.0114 of the own head on clean patches (`light` after
`supervised`), which 40 epochs make up for. Input size: 32, 50 and 72 px have 0.9133, 0.9121 and 0.9124. Smoothing
with averaged weights, more blocks, width, and an embedding of all stages bring nothing that can be seen here. Seconds
are of two cores that other work shared, in part of one core: they compare nothing.
"""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from study import run_command
from trial_recipes import TRIALS

from histofeat import PatientKFold
from histofeat.datasets import csv_text, read_csv_rows, write_whole
from histofeat.features import extract, make_family
from histofeat.images import as_images
from histofeat.models import SoftVote, make_head
from histofeat.networks import find_encoder, find_weights, fit_patch
from histofeat.studies import check_names, load_development_patients

PROGRAM = "trials.py"
RESULTS = Path(__file__).with_name("trials.csv")
SCORES = (
    "roc_auc", "roc_auc_8_views", "roc_auc_logistic", "roc_auc_logistic_8_views", "roc_auc_training", "roc_auc_xgboost",
    "roc_auc_late_vote",
)  # fmt: skip
COLUMNS = ("trial", "recipe", "seed", "training_patients", "test_patients", "epochs", "params", "seconds", *SCORES)
ENCODER = "mobilenetv2_0.35"
FAMILIES = ("color", "lbp", "haralick", "pftas")
#: Of the order of patients whose first third is tested.
SPLIT_SEED = 7


@dataclass(frozen=True, eq=False)
class Material:
    """What all trials share.

    Parameters
    ----------
    pixels : ndarray of shape (n, 50, 50, 3), uint8
    handcrafted : ndarray of shape (n, p)
    y : ndarray of shape (n,), int64
    patients : ndarray of shape (n,), str
    rows : (ndarray, ndarray)
        Training and tested patches.
    """

    pixels: np.ndarray
    handcrafted: np.ndarray
    y: np.ndarray
    patients: np.ndarray
    rows: tuple[np.ndarray, np.ndarray]


def make_parser():
    """Build the command line."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Try recipes for an encoder on development patients.")
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="IDC patches, or a folder that holds idc/")
    add("--weights", type=Path, metavar="DIR", help="folder of ImageNet weights (default: $HISTOFEAT_WEIGHTS)")
    add("--trials", nargs="+", default=list(TRIALS), metavar="NAME", help=f"{', '.join(TRIALS)} (default: all)")
    add("--output", type=Path, default=RESULTS, metavar="FILE", help="table whose rows of these trials are replaced "
        "(default: benchmarks/encoder/trials.csv)")  # fmt: skip
    add("--n-jobs", type=int, default=-1, metavar="N", help="threads that compute features (default: all cores)")
    add("--quick", action="store_true", help="a few patches and one epoch, to see that everything works")
    return parser


def main(arguments=None):
    """Run the trials; returns the exit code."""
    return run_command(PROGRAM, run, make_parser().parse_args(arguments))


def run(options):
    """Run one trial after another; each row is written as soon as it is known."""
    # What can be refused is refused before the data are read.
    check_options(options)
    read_table(options.output)
    trials = [TRIALS[name] for name in dict.fromkeys(options.trials)]
    needed = any(trial.imagenet for trial in trials)
    weights = find_weights(find_encoder(ENCODER), weights_dir=options.weights) if needed else None
    material = load(options)
    for trial in trials:
        print(f"--- {trial.name}: {trial.words}", flush=True)
        row = run_trial(shortened(trial) if options.quick else trial, material, weights)
        write_row(options.output, row)
        print(", ".join(f"{name} {row[name]}" for name in SCORES if row[name]), flush=True)


def check_options(options):
    """Refuse trials that are none, and a quick run into the table of the real ones."""
    check_names("--trials", options.trials, TRIALS)
    if options.quick and options.output.resolve() == RESULTS.resolve():
        raise ValueError(
            f"--output: expected another file for a quick run, got {RESULTS}. Name a file: its numbers say nothing."
        )


def shortened(trial):
    """The same trial in one epoch of small batches."""
    return trial if trial.recipe is None else replace(trial, recipe=replace(trial.recipe, epochs=1, batch_size=32))


# --- patches ---------------------------------------------------------------------------------------------------------


def load(options):
    """Pixels and handcrafted features of the development patients, and who of them is tested."""
    dataset = load_development_patients(options.data, quick=options.quick)
    patients = dataset.patients.astype(str)
    rows = split(patients, dataset.y)
    images = as_images(dataset.X)
    pixels = np.zeros((len(dataset), 50, 50, 3), dtype=np.uint8)
    for row in range(len(dataset)):
        pixels[row] = fit_patch(images.decode(row, images.content(row))[0], 50, 50)
    features = extract([make_family(name) for name in FAMILIES], dataset.X, n_jobs=options.n_jobs).features
    return Material(pixels, np.hstack(features), np.asarray(dataset.y, dtype=int), patients, rows)


def split(patients, y):
    """Training and tested rows: a third of the patients is tested.

    Raises
    ------
    ValueError
        If one side lacks a class.
    """
    known = np.unique(patients)
    tested = np.isin(patients, np.random.default_rng(SPLIT_SEED).permutation(known)[: len(known) // 3])
    for side, rows in (("training", ~tested), ("tested", tested)):
        if len(set(y[rows])) < 2:
            raise ValueError(
                f"--data: expected {side} patches of both classes, got {rows.sum()} of {len(set(y[rows]))} after "
                f"splitting {len(known)} patients. Give more patients."
            )
    return np.flatnonzero(~tested), np.flatnonzero(tested)


# --- one trial -------------------------------------------------------------------------------------------------------


def run_trial(trial, material, weights=None):
    """Train, score, and give the row of the table."""
    train, test = material.rows
    row = dict.fromkeys(COLUMNS, "") | {
        "trial": trial.name,
        "recipe": trial.words,
        "seed": trial.seed,
        "training_patients": len(set(material.patients[train])),
        "test_patients": len(set(material.patients[test])),
    }
    scores, embedding, embedding_8 = {}, None, None
    if trial.recipe is not None:
        import trial_networks  # with Keras, which the table and the baseline need not wait for

        trained = trial_networks.train(
            trial, material.pixels, targets(trial, material), material.rows, weights=weights, say=say
        )
        embedding, embedding_8 = trained.embedding, trained.embedding_8
        scores = network_scores(trial, trained, material)
        row |= {"epochs": trial.recipe.epochs, "params": trained.params, "seconds": round(trained.seconds)}
    scores |= combined_scores(material, embedding, embedding_8, trial.seed)
    return row | {name: f"{value:.4f}" for name, value in scores.items()}


def say(words):
    """Print at once."""
    print(words, flush=True)


def targets(trial, material):
    """What is to be learnt of each training patch, as rows that add up to 1: labels, a teacher's part, smoothing."""
    train, _ = material.rows
    wanted = np.eye(2, dtype=np.float32)[material.y[train]]
    if trial.teacher:
        taught = teacher(material.handcrafted[train], material.y[train], material.patients[train])
        soft = np.stack([1 - taught, taught], axis=1)
        wanted = ((1 - trial.teacher) * wanted + trial.teacher * soft).astype(np.float32)
    smoothing = trial.recipe.label_smoothing
    return wanted * (1 - smoothing) + smoothing / 2


def combined_scores(material, embedding, embedding_8, seed):
    """ROC-AUC of handcrafted features together with an embedding, in one classifier and in classifiers of their own."""
    (train, test), y, features = material.rows, material.y, material.handcrafted
    if embedding is None:
        known, asked = features[train], features[test]
        asked_8 = asked
    else:
        known = np.hstack([features[train], embedding[train]])
        asked = np.hstack([features[test], embedding[test]])
        asked_8 = np.hstack([features[test], embedding_8])
    vote = make_head("vote", random_state=seed)
    if embedding is not None:
        members = [*vote.classifier.members, ("logistic", make_head("logistic", random_state=seed).classifier)]
        vote = SoftVote(members, columns={"logistic": np.arange(features.shape[1], known.shape[1])})
    proba = vote.fit(known, y[train], groups=material.patients[train]).predict_proba(asked_8)[:, 1]
    return {
        "roc_auc_xgboost": roc_auc_score(y[test], boosted(known, y[train], asked, seed)),
        "roc_auc_late_vote": roc_auc_score(y[test], proba),
    }


def network_scores(trial, trained, material):
    """ROC-AUC of a network's own head and of a logistic one on its embedding."""
    train, test = material.rows
    y, embedding, own = material.y, trained.embedding, trained.proba
    single, averaged = logistic(embedding[train], y[train], embedding[test], trained.embedding_8)
    scores = {
        "roc_auc_logistic": roc_auc_score(y[test], single),
        "roc_auc_logistic_8_views": roc_auc_score(y[test], averaged),
    }
    if not trial.supervision:  # its own head never learnt
        return scores
    return scores | {
        "roc_auc": roc_auc_score(y[test], own[test]),
        "roc_auc_8_views": roc_auc_score(y[test], trained.proba_8),
        "roc_auc_training": roc_auc_score(y[train], own[train]),
    }


# --- classical models ------------------------------------------------------------------------------------------------


def logistic(embedding, y, *asked):
    """Probabilities by a strongly regularised logistic regression, for each set of embeddings asked for."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000)).fit(embedding, y)
    return [model.predict_proba(one)[:, 1] for one in asked]


def boosted(features, y, asked, seed):
    """Probabilities by histofeat's XGBoost head."""
    return make_head("xgboost", random_state=seed).fit(features, y).predict_proba(asked)[:, 1]


def teacher(features, y, patients):
    """Probabilities by XGBoost, each from folds without its patient.

    Parameters
    ----------
    features : ndarray of shape (n, p)
    y : ndarray of shape (n,), int64
    patients : ndarray of shape (n,), str

    Returns
    -------
    proba : ndarray of shape (n,), float64
    """
    from xgboost import XGBClassifier

    proba = np.zeros(len(y))
    for learnt, held_out in PatientKFold(5, random_state=1).split(features, y, patients):
        model = XGBClassifier(
            n_estimators=400, max_depth=4, learning_rate=0.05, subsample=0.7, colsample_bytree=0.3, tree_method="hist",
            n_jobs=2,
        )  # fmt: skip
        proba[held_out] = model.fit(features[learnt], y[learnt]).predict_proba(features[held_out])[:, 1]
    return proba


# --- table -----------------------------------------------------------------------------------------------------------


def read_table(path=RESULTS):
    """Return the rows of the table by trial, as text; none where there is no file.

    Raises
    ------
    DatasetError
        If the file has no such columns.
    """
    rows = read_csv_rows(path, COLUMNS, owner="--output").rows if path.exists() else []
    return {row["trial"]: row for row in rows}


def write_row(path, row):
    """Put a row into the table, in the place of an older one of the same trial."""
    rows = read_table(path) | {row["trial"]: row}
    table = pd.DataFrame([rows[name] for name in sorted(rows, key=list(TRIALS).index)], columns=COLUMNS, dtype=object)
    with write_whole(path, overwrite=True) as part:
        part.write_text(csv_text(table), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    sys.exit(main())
