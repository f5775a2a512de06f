"""How the recipe of the encoder that ships with histofeat was chosen: trainings on IDC's development patients.

    python benchmarks/encoder/trials.py --data DIR/idc DIR/idc_second --slides DIR/idc_slides --trials histo_1 histo_2

A trial learns from 150 of the 190 patients outside the official test set and is scored on patches of the other 40; the
division of the patients has a seed. The 49 official test patients take no part. One row of trials.csv for each trial
and division: ROC-AUC of the network's own head, of a logistic regression on its embedding (C = 0.001), on handcrafted
features (color, LBP and Haralick; C = 0.1) and on both (C = 0.001). Trials of the first `histo` and their program are
in the history of this file.

Rows of other programs have been written down by hand; the column "where" says which. Twelve were trained on a GPU in
bfloat16, on JPEG copies of the patches, once for each of three divisions: the noise of a single training is not known,
and C = 0.001 was read on the tested patients, which flatters by up to 0.003. They say: fine-tuning gains 0.02 over the
same stages as ImageNet left them; blocks to the eighth, eleventh or fourteenth, EfficientNet-Lite2, 128 px and twenty
epochs lie within 0.002 of one another; a learning rate of 0.003 loses 0.006; eight views at test gain 0.003. So the
smallest of them, `gpu_b7`, was taken. Not tried there: distillation, a head shared with handcrafted features, training
from random weights or without labels first, mixup and stronger jitter by themselves, averages of several trainings.

On two cores, with TensorFlow, a step with normalisation took five times as long as one with normalisation folded into
the convolutions beforehand (both under other load), so both were tried on the first division. Folded, and without
shifts of the patches, the recipe stays 0.007 below the GPU's (`folded`); with normalisation that is trained, and
shifts, 0.001 (`trained_normalisation`): the recipe of `histo`. Three more ways to train folded convolutions (a lower
rate, LAMB, a rate for each kernel by its size) were given up after one to four epochs, their training losses behind.
Which part shifts have in this is not known. The recipe of the first `histo`, by this program, stays 0.012, 0.017
and 0.013 below on the same patients of the three divisions (`histo_1`).
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from study import run_command
from train import add_data, say_epoch, training_side

from histofeat import CNNClassifier
from histofeat.datasets import csv_text, read_csv_rows, write_whole
from histofeat.features import extract, make_family
from histofeat.images import as_images
from histofeat.networks import RESNET_SMALL, Augmentation, fit_patch, import_keras
from histofeat.studies import check_names, load_development_patients

PROGRAM = "trials.py"
RESULTS = Path(__file__).with_name("trials.csv")
SCORES = ("roc_auc", "roc_auc_logistic", "roc_auc_handcrafted", "roc_auc_both")
#: Of the rows of another program: the mean over the eight views of a patch.
VIEWS = ("roc_auc_logistic_8_views", "roc_auc_both_8_views")
COLUMNS = (
    "trial", "division", "seed", "where", "recipe", "training_patients", "test_patients", "test_patches", "epochs",
    "params", "minutes", *SCORES, *VIEWS,
)  # fmt: skip
FAMILIES = ("color", "lbp", "haralick")
#: Strength of the logistic regressions: on handcrafted features it was chosen on inner folds of patients; on an
#: embedding that knows the training patients it has to be small, and was read on tested patients of the divisions.
C_EMBEDDING, C_HANDCRAFTED = 0.001, 0.1
N_TESTED = 40
#: What the rows of this program have in the column "where".
HERE = "CPU, this program"
_OLD = replace(
    RESNET_SMALL["standard"], epochs=40,
    augmentation=Augmentation(stain_jitter=0.25, stain_shift=0.05, brightness=0.35),
)  # fmt: skip
#: Words and parameters of the classifier, by the name of the trial.
TRIALS = MappingProxyType(
    {
        "histo_1": (
            "the recipe of the first `histo`: residual network from random weights at 50 px, 40 epochs",
            {"architecture": "resnet_small", "input_size": 50, "recipe": _OLD},
        ),
        "histo_2": (
            "the recipe of `histo`: EfficientNet-Lite0 to its eighth block, from ImageNet, at 96 px",
            {"architecture": "lite0_small", "weights": "imagenet"},
        ),
        "histo_2_80px": ("histo_2 at 80 px", {"architecture": "lite0_small", "weights": "imagenet", "input_size": 80}),
        "histo_2_64px": ("histo_2 at 64 px", {"architecture": "lite0_small", "weights": "imagenet", "input_size": 64}),
    }
)


def make_parser():
    """Build the command line."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Try recipes for an encoder on development patients.")
    add_data(parser)
    add = parser.add_argument
    add("--trials", nargs="+", default=list(TRIALS), metavar="NAME", help=f"{', '.join(TRIALS)} (default: all)")
    add("--divisions", nargs="+", type=int, default=[0], metavar="N", help="of the patients (default: 0)")
    add("--seed", type=int, default=0, help="of the training (default: 0)")
    add("--epochs", type=int, default=None, metavar="N", help="default: the recipe's")
    add("--output", type=Path, default=RESULTS, metavar="FILE", help="table whose rows of these trials are replaced")
    add("--n-jobs", type=int, default=-1, metavar="N", help="threads that read images (default: all cores)")
    return parser


def main(arguments=None):
    """Run the trials; returns the exit code."""
    return run_command(PROGRAM, run, make_parser().parse_args(arguments))


def run(options):
    """Run one trial after another; each row is written as soon as it is known."""
    # What can be refused is refused before the data are read.
    check_names("--trials", options.trials, TRIALS)
    if options.epochs is not None and options.output.resolve() == RESULTS.resolve():
        raise ValueError(f"--output: expected another file for other epochs, got {RESULTS}. Name a file.")
    read_table(options.output)
    learnt = training_side(options.data, options.slides)
    asked = load_development_patients(options.data)
    handcrafted = [
        np.hstack(extract([make_family(name) for name in FAMILIES], one.X, n_jobs=options.n_jobs).features)
        for one in (learnt, asked)
    ]
    for division in options.divisions:
        sides = divide(learnt, asked, division)
        for name in dict.fromkeys(options.trials):
            print(f"--- {name}, division {division}", flush=True)
            row = run_trial(name, (learnt, asked), sides, handcrafted, options) | {"division": division}
            write_row(options.output, row)
            print(", ".join(f"{score} {row[score]}" for score in SCORES), flush=True)


def divide(learnt, asked, division):
    """Return rows to learn from and rows to test: 40 patients are tested, drawn from those in order of their numbers.

    Raises
    ------
    ValueError
        If one side lacks a class.
    """
    known = np.unique(asked.patients.astype(int))
    tested = np.random.default_rng(100 + division).permutation(known)[: min(N_TESTED, len(known) // 3)]
    train = np.flatnonzero(~np.isin(learnt.patients.astype(int), tested))
    test = np.flatnonzero(np.isin(asked.patients.astype(int), tested))
    for side, labels in (("training", learnt.y[train]), ("tested", asked.y[test])):
        if len(set(labels)) < 2:
            raise ValueError(f"--data: expected {side} patches of both classes, got {len(labels)}. Give more patients.")
    return train, test


def run_trial(name, datasets, sides, handcrafted, options):
    """Train, score, and give the row of the table."""
    (learnt, asked), (train, test), (words, params) = datasets, sides, TRIALS[name]
    classifier = CNNClassifier(
        validation_fraction=0, epochs=options.epochs, random_state=options.seed, n_jobs=options.n_jobs,
        progress=say_epoch, **params,
    )  # fmt: skip
    started = time.perf_counter()
    classifier.fit(as_images(learnt.X).take(train), learnt.y[train])
    minutes = (time.perf_counter() - started) / 60
    own = classifier.predict_proba(as_images(asked.X).take(test))[:, 1]
    seen, new = (embed(classifier, as_images(one.X).take(rows)) for one, rows in zip(datasets, sides, strict=True))
    by_hand = handcrafted[0][train], handcrafted[1][test]
    both = np.hstack([seen, by_hand[0]]), np.hstack([new, by_hand[1]])
    found = [
        (seen, new, C_EMBEDDING), (*by_hand, C_HANDCRAFTED), (*both, C_EMBEDDING),
    ]  # fmt: skip
    scores = [own, *(logistic(known, learnt.y[train], other, C) for known, other, C in found)]
    return dict.fromkeys(COLUMNS, "") | {
        "trial": name,
        "seed": options.seed,
        "where": HERE,
        "recipe": words,
        "training_patients": len(set(learnt.patients[train])),
        "test_patients": len(set(asked.patients[test])),
        "test_patches": len(test),
        "epochs": len(classifier.history_["loss"]),
        "params": sum(array.size for array in classifier.weights_[:-2]),
        "minutes": f"{minutes:.1f}",
        **{score: f"{roc_auc_score(asked.y[test], one):.4f}" for score, one in zip(SCORES, scores, strict=True)},
    }


def embed(classifier, images):
    """Return what the last layer of a trained classifier sees, a patch a row."""
    keras = import_keras()
    network = classifier._network()
    model = keras.Model(network.input, network.get_layer("logits").input)
    found = []
    for start in range(0, len(images), 256):
        rows = range(start, min(start + 256, len(images)))
        patches = [images.decode(row, images.content(row))[0] for row in rows]
        pixels = [fit_patch(patch, classifier.input_size_, classifier.patch_side_) for patch in patches]
        found.append(model.predict_on_batch(np.stack(pixels)))
    return np.concatenate(found)


def logistic(known, y, asked, C):
    """Return log odds by logistic regression."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000)).fit(known, y)
    return model.decision_function(asked)


# --- table -----------------------------------------------------------------------------------------------------------


def read_table(path=RESULTS):
    """Return the rows of the table by trial, division, seed and place, as text; none where there is no file.

    Raises
    ------
    DatasetError
        If the file has no such columns.
    """
    rows = read_csv_rows(path, COLUMNS, owner="--output").rows if path.exists() else []
    return {tuple(row[name] for name in COLUMNS[:4]): row for row in rows}


def write_row(path, row):
    """Put a row into the table, in the place of an older one of the same trial."""
    text = {name: str(row[name]) for name in COLUMNS}
    rows = read_table(path) | {tuple(text[name] for name in COLUMNS[:4]): text}
    table = pd.DataFrame(rows.values(), columns=COLUMNS, dtype=object)
    with write_whole(path, overwrite=True) as part:
        part.write_text(csv_text(table), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    sys.exit(main())
