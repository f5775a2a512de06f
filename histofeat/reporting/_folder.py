"""The folder of results, written beside its place and moved there when complete, and its tables for programs."""

from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import pandas as pd

from histofeat.datasets import check_place, csv_text, printable, write_whole
from histofeat.exceptions import check_that
from histofeat.metrics import LABEL_METRICS
from histofeat.reporting._payload import portable_paths
from histofeat.reporting._strict_json import PathLike, dump, jsonable, load

#: Written last: the file that makes a folder a finished report.
FINISHED = "metrics.json"


@contextmanager
def new_folder(output, *, overwrite=False, finished=FINISHED, key=None):
    """Give a folder to write into; when the block ends without an error, its files move to `output`.

    Parameters
    ----------
    output : path-like
        Made when it is not there. A finished report in it is replaced only with `overwrite`, and then only the files of
        that report are removed.
    overwrite : bool, default=False
        Whether to replace a finished report.
    finished : str
        The file that makes a folder a finished report, and lists its files.
    key : str, optional
        The key to pseudonyms, which is written beside the folder, or not at all, as the folder is.

    Yields
    ------
    pathlib.Path
        An empty folder beside `output`; the block ends with `finish`.

    Raises
    ------
    FileExistsError
        As `check_output` says.
    """
    output = Path(output)
    check_output(output, overwrite=overwrite, finished=finished, pseudonyms=key is not None)
    there = (output / finished).exists()
    listed = load(output / finished).get("files") if there else None
    replaced = [finished, *map(str, listed if isinstance(listed, list) else ())] if there else None
    beside = write_whole(key_file(output), overwrite=overwrite, parents=True) if key else nullcontext()
    with beside as file, write_whole(output, folder=True, parents=True, replaced=replaced) as part:
        if file:
            write_text(file, key)
        yield part


def finish(folder, payload, finished=FINISHED):
    """Write `payload`, with the list of all files of `folder`, as the file that says that the report is complete."""
    written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    dump({**payload, "files": [finished, *written]}, folder / finished)


def write_files(folder, files, redact=str):
    """Write further files of a page, as `write_page` says, none over another one."""
    for name, content in files.items():
        own = Path(name).name == name and name != FINISHED and not (folder / name).exists()
        remedy = "Choose a name that no file of the page has, without a folder."
        check_that("files", name, own, "files with names of their own", remedy)
        _write_file(folder / name, content, redact)


def _write_file(path, content, redact):
    if callable(content):
        content(path)
    elif isinstance(content, str):
        write_text(path, content)
    elif hasattr(content, "to_csv"):
        write_text(path, csv_text(content, float_format="%.6g"))
    else:
        dump(redact(jsonable(content)), path)


def write_text(path, content):
    """Write text as UTF-8 with the ends of lines of Unix, without characters that no file of text can hold."""
    path.write_text(printable(content), encoding="utf-8", newline="\n")


def key_file(output: PathLike) -> Path:
    """Return the file of the key to the pseudonyms of a report: beside its folder, never in it."""
    return Path(output).with_name(f"{Path(output).name}-pseudonyms.csv")


def check_output(
    output: PathLike,
    *,
    overwrite: bool = False,
    option: str = "overwrite=True",
    pseudonyms: bool = False,
    finished: str = FINISHED,
) -> None:
    """Check that a report may be written to a folder; cheap, so that it can come before hours of work.

    Parameters
    ----------
    output : path-like
    overwrite : bool
    option : str
        How the user of the caller asks for a finished report to be replaced.
    pseudonyms : bool
        Whether a key to pseudonyms is to be written beside the folder.
    finished : str
        The file that makes a folder a finished report.

    Raises
    ------
    FileExistsError
        As `write_report` says.
    OSError
        As `histofeat.datasets.check_place` says.
    """
    output = Path(output)
    check_place(output, folder=True)
    if pseudonyms and not overwrite and key_file(output).exists():
        raise FileExistsError(
            f"output: expected no key to pseudonyms yet, got {str(key_file(output))!r}. Choose another name for the "
            f"folder, or pass {option} to replace both."
        )
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"output: expected a folder, got the file {str(output)!r}. Choose another name.")
    if (output / finished).exists():
        if not overwrite:
            raise FileExistsError(
                f"output: expected a new folder, got {str(output)!r}, which holds a finished report. "
                f"Choose another name, or pass {option} to replace it."
            )
        if not pseudonyms and load(output / finished).get("pseudonyms"):
            raise FileExistsError(
                f"pseudonyms: expected some, as the report in {str(output)!r} that is replaced has them, got none. Ask "
                "for them, or choose another name for the folder."
            )
    elif output.is_dir() and any(output.iterdir()):
        raise FileExistsError(
            f"output: expected a new or an empty folder, got {str(output)!r}, which holds other files "
            f"({min(path.name for path in output.iterdir())!r}) and no finished report. Choose another name."
        )


def score_rows(payload):
    """Yield one dict per model, metric and kind of threshold.

    Parameters
    ----------
    payload : dict
        As `metrics_payload` returns it.

    Yields
    ------
    dict
        ``dataset, synthetic, name, head, n_features, metric, threshold`` ("none", "0.5" or "tuned"; "argmax" with more
        than two classes), ``value, pooled, mean, std, ci95_low, ci95_high, method_low, method_high, fold_1 ...``; an
        undefined number is empty.
    """
    source = payload["dataset"]["name"], payload["dataset"]["synthetic"]
    for result in payload["results"]:
        two = len(result["labels"]) == 2
        for scores, kind in [(result, "0.5"), (result["tuned"], "tuned")] if two else [(result, "argmax")]:
            for metric, score in scores.items():
                if isinstance(score, dict) and "pooled" in score:
                    model = result["name"], result["head"], result["n_features"]
                    threshold = kind if metric in LABEL_METRICS else "none"
                    numbers = (score[part] for part in ("value", "pooled", "mean", "std"))
                    values = *numbers, *score["ci95"], *score["method_ci95"], *score["folds"]
                    columns = _columns(len(score["folds"]))
                    yield dict(zip(columns, (*source, *model, metric, threshold, *values), strict=True))


def _columns(n_folds):
    words = ["dataset", "synthetic", "name", "head", "n_features", "metric", "threshold"]
    numbers = ["value", "pooled", "mean", "std", "ci95_low", "ci95_high", "method_low", "method_high"]
    return [*words, *numbers, *(f"fold_{number}" for number in range(1, n_folds + 1))]


def write_scores(payload, path):
    """Write `score_rows` as CSV; a report without a model has the header only."""
    table = pd.DataFrame(list(score_rows(payload)), columns=_columns(len(payload["folds"])), dtype=object)
    write_text(path, csv_text(table))


def write_predictions(evaluation, path):
    """Write ``evaluation.predictions()`` as Parquet, one row group per model, with paths relative to the data root.

    Notes
    -----
    Scores keep float64, so that the labels at a threshold come out again exactly; splitting the bytes of the numbers
    before zstd keeps that small. A model of more than a million patches has several row groups.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    dataset, paths, writer = evaluation.dataset, portable_paths(evaluation.dataset), None
    with ExitStack() as stack:
        for rows, table in evaluation.prediction_blocks():
            table["path"] = pd.Series([printable(paths[row]) for row in rows], dtype=table["path"].dtype)
            table.attrs = {"dataset": printable(dataset.name), "synthetic": bool(dataset.synthetic)}
            content = pa.Table.from_pandas(table, preserve_index=False)
            if writer is None:
                scores = [name for name in table if name.startswith("p_")]
                packing = {
                    "use_dictionary": [*table.columns.drop(scores)],
                    "column_encoding": dict.fromkeys(scores, "BYTE_STREAM_SPLIT"),
                }
                writer = stack.enter_context(ParquetWriter(path, content.schema, compression="zstd", **packing))
            writer.write_table(content, row_group_size=max(1, len(table)))
