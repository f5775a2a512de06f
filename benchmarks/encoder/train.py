"""Train the encoder that ships with histofeat: one seeded command, minutes on two cores.

    python benchmarks/encoder/train.py --data /path/to/idc --output histofeat/networks/pretrained/shipped/histo

It learns from the official training and validation patients of IDC and from those outside that split, never from the
49 official test patients. Beside the weights (Keras's, and the same converted for OpenVINO) it writes their record:
recipe, content hashes, and the patient and pixel digest of every image. How the recipe was chosen:
benchmarks/encoder/trials.csv.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study import run_command

from histofeat import load_idc
from histofeat.models import train_encoder
from histofeat.networks import find_encoder


def main(arguments=None):
    """Train; returns the exit code."""
    parser = argparse.ArgumentParser(prog="train.py", description="Train the encoder `histo` on IDC patches.")
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="IDC patches, or a folder that holds idc/")
    add("--output", type=Path, required=True, metavar="DIR", help="folder of the weights and their record")
    add("--epochs", type=int, default=None, metavar="N", help="default: the recipe's")
    add("--seed", type=int, default=0, help="of the first weights, the batches and the augmentation (default: 0)")
    add("--n-jobs", type=int, default=-1, metavar="N", help="threads that read images (default: all cores)")
    add("--overwrite", action="store_true", help="replace the weights in the output folder")
    return run_command("train.py", run, parser.parse_args(arguments))


def run(options):
    """Load the training side, train, and say what was written."""
    weights = options.output / find_encoder("histo").weight_file
    if weights.exists() and not options.overwrite:
        raise ValueError(f"--output: expected a folder without weights, got {weights}. Give another, or --overwrite.")
    dataset = training_side(options.data)
    print(f"{dataset.name}: {len(dataset):,} patches of {len(set(dataset.patients)):,} patients", flush=True)
    started = time.perf_counter()
    written = train_encoder(
        dataset.X, dataset.y, dataset.patients, options.output, dataset=dataset.name, epochs=options.epochs,
        convert=True, n_jobs=options.n_jobs, random_state=options.seed, progress=say_epoch,
    )  # fmt: skip
    print(f"{written}: trained in {(time.perf_counter() - started) / 60:.1f} min", flush=True)


def training_side(data):
    """Return the patches of all patients but the official test patients."""
    dataset = load_idc(data / "idc" if (data / "idc").is_dir() else data)
    test = dataset.official_split().test
    if not len(test):
        raise ValueError(f"{data}: expected patches of official test patients to leave out, got none. Give IDC.")
    return dataset.subset(np.setdiff1d(np.arange(len(dataset)), test))


def say_epoch(done, total, values):
    """Print how far the training is."""
    print(f"epoch {done} of {total}: loss {values['loss']:.3f}, {values['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
