"""Networks and trees on a GPU, under four minutes: embeddings of files against the network alone, XGBoost on cuda.

    python benchmarks/speed/gpu.py        # on a machine with a GPU: reports/speed-gpu
    python benchmarks/speed/gpu.py --device cpu --files 300 --batches 32 --rows 2000 --output /tmp/gpu    # same path

Networks have random weights, which take as long, but for `histo`. Each backend of Keras, PyTorch with timm and XGBoost
is a process of its own, and this file is the process, too: ``gpu.py embed|trees ARGUMENTS``.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from made_up import make_tree
from rows import FULL_SIZE, Row, check_close, missing, run_worker, stopwatch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study import REPOSITORY, command_line, run_command

_KERAS = ("histo", "mobilenetv2")
#: What runs networks -> encoders. All but timm are backends of Keras.
ENGINES = {
    "torch": _KERAS,
    "jax": _KERAS,
    "tensorflow": _KERAS,
    "timm": ("timm:resnet18", "timm:vit_small_patch16_224"),
}


def make_parser():
    """Build the command line."""
    parser = argparse.ArgumentParser(prog="gpu.py", description="Measure networks and trees on a GPU; write a report.")
    add = parser.add_argument
    add("--device", default="gpu", choices=("gpu", "cpu"), help="cpu shows that everything works (default: gpu)")
    add("--engines", nargs="+", default=["torch", "jax", "timm"], metavar="NAME", help=f"some of {', '.join(ENGINES)} "
        "(default: torch jax timm)")  # fmt: skip
    add("--files", type=int, default=30_000, metavar="N", help="made-up patches (default: %(default)s)")
    add("--batches", type=int, nargs="+", default=[512, 2048], metavar="N", help="patches a pass (default: 512 2048)")
    add("--rows", type=int, default=FULL_SIZE, metavar="N", help="rows of the trees (default: %(default)s)")
    add("--seconds", type=float, default=150, metavar="S", help="no network is begun after these (default: 150)")
    add("--output", type=Path, default=REPOSITORY / "reports" / "speed-gpu", metavar="DIR", help="report's folder")
    add("--overwrite", action="store_true", help="replace a finished report in the output folder")
    return parser


def main(arguments=None):
    """Measure, and write the report; returns the exit code."""
    return run_command("gpu.py", run, make_parser().parse_args(arguments))


def run(options):
    """Measure each engine in a process of its own, then the trees; write the report."""
    import writing

    from histofeat.studies import check_names

    check_names("--engines", options.engines, ENGINES)
    writing.check_output(options.output, overwrite=options.overwrite)
    data = gpu_words() if options.device == "gpu" else "No GPU: the same path on the processor"
    command, started, rows = command_line("speed/gpu.py", make_parser(), options), time.perf_counter(), []
    with tempfile.TemporaryDirectory(prefix="histofeat-gpu-", ignore_cleanup_errors=True) as scratch:
        make_tree(scratch, options.files)
        for at, name in enumerate(options.engines):
            left = options.seconds - (time.perf_counter() - started)
            rows += embedding_rows(name, scratch, left / (len(options.engines) - at), options)
    rows.append(tree_row(options))
    seconds, quick = time.perf_counter() - started, options.device == "cpu"
    payload = writing.payload_of(rows, data=data, command=command, seconds=seconds, quick=quick)
    print(f"report: {writing.write(payload, options.output, title='Networks and trees on a GPU')}")


def gpu_words() -> str:
    """Return name, memory and driver of the first GPU; refuse a machine without one."""
    asked, found = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"], ""
    if shutil.which(asked[0]):
        found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    if not found:
        raise ValueError("gpu: expected an NVIDIA GPU, got none. Use --device cpu to run the same path without one.")
    return found.splitlines()[0]


def embedding_rows(name, folder, seconds, options) -> list:
    """Rows of one engine: what an extraction from files reaches, against its network on pixels that are there."""
    fields = {"name": f"{name}/embeddings", "what": f"{options.files:,} PNG files to embeddings by {name}"}
    environment = {**os.environ, "KERAS_BACKEND": "torch" if name == "timm" else name}
    try:
        arguments = name, options.device, folder, ",".join(map(str, options.batches)), seconds
        found = run_worker("gpu.py", "embed", *arguments, env=environment)
    except RuntimeError as error:  # not installed, or it sees no GPU: the others are measured all the same
        return [missing(str(error).splitlines()[-1], **fields)]
    return [_embedding_row(f"{name}/{encoder}", *settings, one, options) for encoder, *settings, one in found]


def _embedding_row(name, precision, batch, one, options):
    name, files = f"{name}, {precision}, batches of {batch:,}", f"{options.files:,} PNG files to embeddings"
    if one is None:
        return missing(f"--seconds {options.seconds:g} were over", name=name, what=files)
    note = f"Reading, decoding and resizing alone: {options.files / one['decode']:,.0f} patches/s"
    what = f"{files} at {one['size']} px; {one['engine']}"
    return Row(
        name, what, "patches/s", options.files / one["files"], options.files / one["alone"],
        "the network alone, pixels on its device, best of many passes", "ours / peer",
        f"{one['checked']}, from files and alone", "once, after a warm-up", note,
    )  # fmt: skip


def tree_row(options):
    """One row: XGBoost as the head has it, on cuda against the processor."""
    fields = {"name": "xgboost/fit", "what": f"the head's trees on {options.rows:,} rows of 312 columns", "unit": "s"}
    try:
        found = run_worker("gpu.py", "trees", options.device.replace("gpu", "cuda"), options.rows)
    except RuntimeError as error:
        return missing(str(error).splitlines()[-1], **fields)
    (seconds, auc), (peer, peer_auc) = found
    checked = f"{check_close('xgboost', auc, peer_auc, rtol=0, atol=0.002)}: ROC-AUC on other rows {auc:.4f}"
    return Row(ours=seconds, peer=peer, peer_name="on the processor, all cores", checked=checked, **fields)


# --- the processes ---------------------------------------------------------------------------------------------------


def embed(engine, device, folder, batches, seconds) -> list:
    """Return encoder, precision, batch and what that took, None for those that were not begun in these seconds."""
    from histofeat.datasets import load_idc

    deadline, paths, found = time.monotonic() + float(seconds), load_idc(folder).X, []
    with tempfile.TemporaryDirectory(prefix="histofeat-gpu-") as scratch:
        for encoder in ENGINES[engine]:
            weights = _weights(encoder, Path(scratch))
            for precision in ("float32", "bfloat16"):
                for batch in map(int, batches.split(",")):
                    late = found and time.monotonic() > deadline  # the first is measured in any case
                    took = None if late else _embed_files(encoder, weights, precision, batch, device, paths)
                    found.append((encoder, precision, batch, took))
    return found


def _embed_files(encoder, weights, precision, batch, device, paths) -> dict:
    """Seconds of one network for all files: from files, alone, and of its images without it."""
    from histofeat import CNNEmbedding
    from histofeat.features import extract
    from histofeat.networks import choose_engine, find_encoder, load_engine

    record = find_encoder(encoder)
    kind, size = "torch" if encoder.startswith("timm:") else "keras", record.default_size
    named = {"weights": str(weights), "engine": kind, "device": device, "precision": precision, "batch_size": batch}
    family, choice = CNNEmbedding(encoder, **named), choose_engine(kind, device, record)
    engine = load_engine(record, weights, choice, input_size=size, precision=precision)
    pixels = _pixels(paths[:batch], size)
    staged = engine.stage(pixels, batch_size=batch)
    expected = engine.embed(staged)  # compiled
    scale = abs(expected).max()
    checked = check_close(encoder, family.transform(pixels) / scale, expected / scale, rtol=0, atol=1e-3)
    extract([family], paths[: 2 * batch], n_jobs=-1)
    alone = [stopwatch(lambda: engine.embed(staged)) for _ in range(max(1, len(paths) // batch))]
    return {
        "size": size, "engine": choice.note.rstrip("."), "checked": checked,
        "alone": min(alone) * len(paths) / len(pixels),
        "files": stopwatch(lambda: extract([family], paths, n_jobs=-1)),
        "decode": stopwatch(lambda: _pixels(paths, size)),
    }  # fmt: skip


def _pixels(paths, size):
    """Read, decode and resize images, on all cores; (n, size, size, 3) uint8."""
    from concurrent.futures import ThreadPoolExecutor

    import cv2
    import numpy as np

    from histofeat.features import resize_patches

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images = pool.map(lambda path: cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)[np.newaxis], paths)
        return np.concatenate(list(pool.map(lambda image: resize_patches(image, size), images)))


def _weights(encoder, scratch) -> Path:
    """Return the file of weights: `histo`'s own, random ones otherwise."""
    from histofeat.networks import find_encoder, shipped_weights

    if encoder == "histo":
        return shipped_weights(find_encoder(encoder))
    if encoder.startswith("timm:"):
        import timm
        import torch

        torch.save(timm.create_model(encoder.removeprefix("timm:"), num_classes=0).state_dict(), scratch / "random.pth")
        return scratch / "random.pth"
    from cnn import random_weights

    return random_weights(encoder, scratch)


def trees(device, n_rows) -> list:
    """Return seconds of the fit and ROC-AUC on other rows: on the device, and on the processor."""
    from sklearn.base import clone
    from sklearn.datasets import make_classification
    from sklearn.metrics import roc_auc_score
    from xgboost import build_info

    from histofeat.models import make_head

    if device == "cuda" and not build_info().get("USE_CUDA"):
        raise SystemExit("this build of XGBoost has no CUDA, which the package xgboost has")
    n, found = int(n_rows), []
    X, y = make_classification(n + 20_000, 312, n_informative=20, flip_y=0.1, random_state=0)
    X = X.astype("float32")
    for place in (device, "cpu"):
        head = clone(make_head("xgboost", n_jobs=-1).classifier).set_params(device=place)
        head.fit(X[:1000], y[:1000])  # the device is awake
        seconds = stopwatch(lambda head=head: head.fit(X[:n], y[:n]))
        found.append((seconds, float(roc_auc_score(y[n:], head.predict_proba(X[n:])[:, 1]))))
    return found


if __name__ == "__main__":
    if sys.argv[1:2] in (["embed"], ["trees"]):
        print(json.dumps({"embed": embed, "trees": trees}[sys.argv[1]](*sys.argv[2:])))
    else:
        sys.exit(main())
