"""Train the encoder that ships with histofeat: one seeded command, about half an hour on two cores.

    python benchmarks/encoder/train.py --data DIR/idc DIR/idc_second --slides DIR/idc_slides \
        --output histofeat/networks/pretrained/shipped/histo

It learns from the official training and validation patients of IDC and from those outside that split, never from the
49 official test patients. A patch that several folders hold counts once, by patient, x and y. Of complete slides it
takes at most 150 further patches of a patient, so that a few patients do not outweigh the others. Patients whose
patches are all of one class take no part: what tells them from others need not be tissue. Beside the weights it writes
their record: recipe, content hashes, and the patient and pixel digest of every image. How the recipe was chosen:
benchmarks/encoder/trials.csv.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study import run_command

from histofeat.models import train_encoder
from histofeat.networks import find_encoder
from histofeat.studies import load_development_patients

#: Patches that a complete slide adds to those of the samples.
PER_SLIDE = 150


def add_data(parser):
    """Add the options that say where the patches are."""
    words = {"data": "samples of IDC patches", "slides": f"complete slides: {PER_SLIDE} further patches of a patient"}
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR", help=words["data"])
    parser.add_argument("--slides", type=Path, metavar="DIR", help=words["slides"])


def main(arguments=None):
    """Train; returns the exit code."""
    parser = argparse.ArgumentParser(prog="train.py", description="Train the encoder `histo` on IDC patches.")
    add_data(parser)
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="folder of the weights and their record")
    add("--epochs", type=int, default=None, metavar="N", help="default: the recipe's")
    add("--seed", type=int, default=0, help="of the patches of slides, the batches and the augmentation (default: 0)")
    add("--n-jobs", type=int, default=-1, metavar="N", help="threads that read images (default: all cores)")
    add("--overwrite", action="store_true", help="replace the weights in the output folder")
    return run_command("train.py", run, parser.parse_args(arguments))


def run(options):
    """Load the training side, train, and say what was written."""
    weights = options.output / find_encoder("histo").weight_file
    if weights.exists() and not options.overwrite:
        raise ValueError(f"--output: expected a folder without weights, got {weights}. Give another, or --overwrite.")
    dataset = training_side(options.data, options.slides, random_state=options.seed)
    print(f"{dataset.name}: {len(dataset):,} patches of {len(set(dataset.patients)):,} patients", flush=True)
    started = time.perf_counter()
    written = train_encoder(
        dataset.X, dataset.y, dataset.patients, options.output, dataset=dataset.name, epochs=options.epochs,
        n_jobs=options.n_jobs, random_state=options.seed, progress=say_epoch,
    )  # fmt: skip
    print(f"{written}: trained in {(time.perf_counter() - started) / 60:.1f} min", flush=True)


def training_side(samples, slides=None, *, random_state=0):
    """Return the patches to learn from: patients with both classes, no official test patient among them."""
    dataset, known = load_development_patients(samples), set()
    if slides is not None:
        known = places(dataset)
        dataset = load_development_patients([*samples, slides])
    patients, rng = dataset.patients.astype(str), np.random.default_rng(random_state)
    further = np.array([bool(known) and place not in known for place in places(dataset, kind=list)])
    kept = []
    for patient in np.unique(patients):
        rows, more = (np.flatnonzero((patients == patient) & (further == side)) for side in (False, True))
        rows = np.concatenate([rows, rng.permutation(more)[:PER_SLIDE]])
        if len(set(dataset.y[rows])) > 1:
            kept.append(rows)
    if not kept:
        raise ValueError("--data: expected patients with patches of both classes, got none. Give more patches.")
    return dataset.subset(np.sort(np.concatenate(kept)))


def places(dataset, kind=set):
    """Return patient, x and y of each patch."""
    return kind(dataset.frame[["patient", "x", "y"]].itertuples(index=False, name=None))


def say_epoch(done, total, values):
    """Print how far the training is."""
    print(f"epoch {done} of {total}: loss {values['loss']:.3f}, {values['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
