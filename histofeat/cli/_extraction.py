"""``histofeat extract``: measure labelled images, as a table for other programs."""

from pathlib import Path

from histofeat.cli._options import DataOptions, EncoderOptions, RunOptions, group, option
from histofeat.cli._outputs import check_output
from histofeat.exceptions import counted


def extract(
    data: group(DataOptions, required=["data"]),
    output: option(Path, "FILE", "The new table: Parquet or CSV, by its suffix.", "--output", "-o"),
    encoder: EncoderOptions,
    run: group(RunOptions, without=["seed", "ledger"]),
    features: option(str, "LIST", "Families, separated by commas: see `histofeat list`.") = "color,lbp,haralick",
    normalizer: option(str | None, "NAME", "Stain normaliser, fitted on all images: reinhard, macenko.") = None,
) -> None:
    """Measure features of labelled images, as a table with path, patient, label, place on the slide and named columns.

    The table is for analyses of your own; keep the patches of a patient on one side of each split.

    Examples
    --------
    histofeat extract idc --output features.parquet
    histofeat extract breakhis --magnification 100 --features pftas,histo --n-jobs -1 --output features.csv
    """
    from histofeat.datasets import csv_text, write_whole
    from histofeat.features import extract_features, make_family
    from histofeat.images import make_normalizer

    check_output(output)
    kind = output.suffix.lower()
    if kind not in (".parquet", ".csv"):
        raise ValueError(f"--output: expected the suffix .parquet or .csv, got {output.name!r}. Give another name.")
    names = [name.strip() for name in features.split(",")]
    params = {name.removeprefix("cnn__"): value for name, value in encoder.params(names).items()}
    families = [make_family(name, **(params if name == "cnn" else {})) for name in names]
    normalizer = normalizer and make_normalizer(normalizer)
    runtime = run.runtime(f"extract {data.name}", on_error=data.on_error or "raise")
    dataset = data.open()
    dataset.require_images("extract")
    run.progress.say(dataset.audit.summary())
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
