"""``histofeat extract``: measure labelled images, as a table for other programs or in shards for larger data."""

import re
from functools import partial
from pathlib import Path

from histofeat.cli._options import DataOptions, EncoderOptions, RunOptions, group, option
from histofeat.cli._outputs import check_output
from histofeat.exceptions import counted


def extract(
    data: group(DataOptions, required=["data"]),
    output: option(Path, "FILE|DIR", "The new table: .parquet or .csv; or a folder of shards.", "--output", "-o"),
    encoder: EncoderOptions,
    run: group(RunOptions, without=["seed", "ledger"]),
    features: option(str, "LIST", "Families, separated by commas: see `histofeat list`.") = "color,lbp,haralick",
    normalizer: option(str | None, "NAME", "Stain normaliser, fitted on all images: reinhard, macenko.") = None,
    shard: option(str | None, "I/N", "Of a folder: write only the I-th of N parts of its shards.") = None,
) -> None:
    """Measure features of labelled images, as a table with path, patient, label, place on the slide and named columns.

    The table is for analyses of your own; keep the patches of a patient on one side of each split. A name without a
    suffix is a folder of shards, one a patient, for data that memory cannot hold. `histofeat compare DIR` takes it. The
    same command goes on where it was ended, and with --shard I/N several processes share the work.

    Examples
    --------
    histofeat extract idc --output features.parquet
    histofeat extract breakhis --magnification 100 --features pftas,histo --n-jobs -1 --output features.csv
    histofeat extract idc --output shards --shard 1/8
    """
    from histofeat.datasets import csv_text, write_whole
    from histofeat.features import extract_features, make_family
    from histofeat.images import make_normalizer

    kind, part = _checked(output, shard, normalizer)
    names = [name.strip() for name in features.split(",")]
    params = {name.removeprefix("cnn__"): value for name, value in encoder.params(names).items()}
    families = [make_family(name, **(params if name == "cnn" else {})) for name in names]
    normalizer = normalizer and make_normalizer(normalizer)
    runtime = run.runtime(f"extract {data.name}", on_error=data.on_error or "raise")
    dataset = data.open()
    dataset.require_images("extract")
    run.progress.say(dataset.audit.summary())
    if not kind:
        _write_shards(dataset, families, output, part, runtime, run)
        return
    frame = extract_features(dataset, families, normalizer=normalizer, runtime=runtime)
    with write_whole(output) as part:
        part.write_bytes(csv_text(frame).encode() if kind == ".csv" else frame.to_parquet(index=False))
    run.write_config(output)
    n_columns = int((frame.dtypes == "float32").sum())
    record = {"output": str(output), "patches": len(frame), "features": n_columns, **frame.attrs}
    words = f"{counted(len(frame), 'patch')}, {counted(n_columns, 'feature')}"
    said = [f"{name}, {counted(n, 'image')}" for name, n in record["conversions"].items()]
    said += [f"left out {path}: {reason}" for path, reason in record["failures"]] + [f"table: {output}"]
    run.show(record, lambda: print(words, *said, sep="\n"))


def _checked(output, shard, normalizer):
    """Give the suffix of the output, "" for a folder of shards, and the part of them as a slice."""
    from histofeat.datasets import check_place

    kind, (number, _, of) = output.suffix.lower(), (shard or "1/1").partition("/")
    if kind not in (".parquet", ".csv", ""):
        expected = "--output: expected the suffix .parquet or .csv, or none for a folder of shards"
        raise ValueError(f"{expected}, got {output.name!r}. Give another name.")
    if re.match(r"\w\w+:/", str(output)):  # pathlib has made one slash of two
        raise ValueError(f"--output: expected a place on this machine, got the URL {output}. Write here, and copy it.")
    if kind and shard:
        raise ValueError(f"--shard: expected a folder as --output, got {output.name!r}. Give a name without a suffix.")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise ValueError(f"--shard: expected I/N with I from 1 to N, got {shard!r}. Write 1/8 for the first of eight.")
    if not kind and normalizer:
        got = f"--normalizer: expected none for shards, since it is fitted on all images, got {normalizer!r}"
        raise ValueError(f"{got}. Leave it out, or write a table.")
    check_output(output) if kind else check_place(output, folder=True)
    return kind, slice(int(number) - 1, None, int(of))


def _write_shards(dataset, families, output, part, runtime, run):
    """Write the shards of a part that are missing."""
    import numpy as np

    from histofeat.features import shard_tasks, write_shard

    tasks = shard_tasks(dataset, families, output, runtime=runtime)
    run.given.pop("shard", None)
    run.write_config(output)
    missing = [task for task in tasks[part] if not task.done]
    done = np.cumsum([len(task.patches) for task in missing]).tolist()
    written = (runtime.each if runtime.cluster else map)(partial(runtime.call, write_shard), missing)
    for _, n_done in zip(written, done, strict=True):
        runtime.report("extract", n_done, done[-1])
    there = sum(task.done for task in tasks)
    record = {"output": str(output), "shards": len(tasks), "written": len(missing), "there": there}
    words = f"{counted(len(missing), 'shard')} written, {there:,} of {len(tasks):,} there; folder: {output}"
    run.show(record, lambda: print(words))
