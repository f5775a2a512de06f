"""Write the fingerprints that histofeat knows encoders by: after the shipped weights, or an encoder, have changed.

    python benchmarks/encoder/fingerprints.py --weights /path/to/weights

For the shipped encoder, and for each ImageNet network whose weights are at hand, at its usual sizes. Computed by
Keras, the source of truth; engines are then held to it.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from histofeat.datasets import csv_text, write_whole
from histofeat.networks import ENCODERS, KerasEngine, encoders_at_hand, find_weights, fingerprint, hash_weights

TABLE = Path(sys.modules[fingerprint.__module__].__file__).with_name("fingerprints.csv")
COLUMNS = ("encoder", "weights", "input_size", "pooling", *(f"value_{k:02d}" for k in range(16)))


def main(arguments=None):
    """Write ``histofeat/networks/pretrained/fingerprints.csv``; returns the exit code."""
    parser = argparse.ArgumentParser(prog="fingerprints.py", description="Write the fingerprints of known weights.")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="folder of ImageNet weights")
    rows = list(fingerprints(parser.parse_args(arguments).weights))
    with write_whole(TABLE, overwrite=True) as part:
        part.write_text(csv_text(pd.DataFrame(rows, columns=COLUMNS, dtype=object)), encoding="utf-8", newline="\n")
    print(f"{TABLE}: {len(rows)} fingerprints")
    return 0


def fingerprints(folder):
    """One row for each encoder and size."""
    for encoder in map(ENCODERS.get, encoders_at_hand(folder)):
        if encoder.source == "timm":
            continue
        weights, lite = find_weights(encoder, weights_dir=folder), encoder.source == "lite"
        sizes = {"histofeat": (encoder.default_size,), "lite": (96, 128)}.get(encoder.source, (96, 128, 224))
        for size in sizes:
            for pooling in ("avg",) if lite else ("avg", "max"):
                options = {"input_size": size, "pooling": pooling, "precision": "float32", "device": "cpu"}
                found = fingerprint(KerasEngine(encoder, weights, **options), size)
                yield [encoder.name, hash_weights(weights), size, pooling, *found.round(6).tolist()]


if __name__ == "__main__":
    sys.exit(main())
