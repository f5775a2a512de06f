"""The folder of a report: everything is written beside its place and moved there when it is complete."""

import re
import shutil
import uuid
from pathlib import Path

from histofeat.reporting import curves, figures
from histofeat.reporting.blocks import Addition, Picture
from histofeat.reporting.environment import describe_environment
from histofeat.reporting.flat_files import write_predictions, write_scores
from histofeat.reporting.html import to_html
from histofeat.reporting.markdown import to_markdown
from histofeat.reporting.payload import data_label, metrics_payload, splits_payload
from histofeat.reporting.privacy import Redactor
from histofeat.reporting.sections import report_blocks
from histofeat.reporting.strict_json import dump, load

__all__ = ["FINISHED", "check_output", "write_report"]

#: Written last and moved last: the file that makes a folder a finished report.
FINISHED = "metrics.json"


def write_report(evaluation, output, *, overwrite=False, environment=None, title=None, command=None, addition=None):
    """Write everything that an evaluation found into one folder.

    Parameters
    ----------
    evaluation : Evaluation
        As `histofeat.evaluation.evaluate` returns it.
    output : path-like
        The folder; made when it is not there. One that holds a finished report is replaced only with `overwrite`,
        and then only files of that report are removed.
    overwrite : bool, default=False
        Whether to replace a finished report.
    environment : Mapping, optional
        Facts about the machine, `describe_environment()` by default.
    title : str, optional
        Heading of the report.
    command : str, optional
        Command line that made it.
    addition : Addition, optional
        Notices, blocks and files of a protocol of its own, such as a table of published numbers.

    Returns
    -------
    pathlib.Path
        ``report.html`` in `output`.

    Raises
    ------
    FileExistsError
        If `output` is a file, holds a finished report and `overwrite` is false, or holds files of something else.
    ValueError
        If an added file is named like one of the report, or with a folder.

    Notes
    -----
    Files: ``metrics.json``, ``metrics.csv``, ``predictions.parquet``, ``splits.json``, ``report.md``,
    ``report.html``, and ``figures/*.svg``, each with a ``.json`` of what it shows. No pictures of patches. Absolute
    paths, which tell whose machine it was, are cut to their last component. The same evaluation gives the same bytes
    but for the time of writing.
    """
    output = Path(output)
    check_output(output, overwrite=overwrite)
    root = evaluation.dataset.root
    redact = Redactor({**({root: root.resolve().name} if root else {}), Path.cwd(): ".", Path.home(): "~"})
    environment = describe_environment() if environment is None else environment
    payload = metrics_payload(evaluation, title=title, command=command, environment=environment, redact=redact)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.parent / f".{output.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        partial.mkdir()
        _write_files(evaluation, payload, partial, addition or Addition())
        _move_into_place(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return output / "report.html"


def check_output(output, *, overwrite=False, option="overwrite=True"):
    """Refuse a folder that a report must not be written to; cheap, so that it can come before hours of work.

    Parameters
    ----------
    output : path-like
    overwrite : bool
    option : str
        How the caller's user says that a finished report may go.

    Raises
    ------
    FileExistsError
        As `write_report` says.
    """
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"output: expected a folder, got the file {str(output)!r}. Choose another name.")
    if (output / FINISHED).exists():
        if not overwrite:
            raise FileExistsError(
                f"output: expected a new folder, got {str(output)!r}, which holds a finished report. "
                f"Choose another name, or pass {option} to replace it."
            )
    elif output.is_dir() and any(output.iterdir()):
        raise FileExistsError(
            f"output: expected a new or an empty folder, got {str(output)!r}, which holds other files "
            f"({min(path.name for path in output.iterdir())!r}) and no finished report. Choose another name."
        )


def _write_files(evaluation, payload, folder, addition):
    (folder / "figures").mkdir()
    pictures = _draw(evaluation, payload, folder) if payload["results"] else {}
    write_scores(payload, folder / "metrics.csv")
    write_predictions(evaluation, folder / "predictions.parquet")
    dump(splits_payload(evaluation), folder / "splits.json")
    blocks = report_blocks(payload, pictures, addition)
    (folder / "report.md").write_text(to_markdown(blocks), encoding="utf-8", newline="\n")
    (folder / "report.html").write_text(to_html(blocks, payload["title"], folder), encoding="utf-8", newline="\n")
    _write_added(addition.files, folder)
    written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    dump({**payload, "files": [FINISHED, *written]}, folder / FINISHED)


def _write_added(files, folder):
    for name, content in files.items():
        if Path(name).name != name or name == FINISHED or (folder / name).exists():
            raise ValueError(
                f"write_report.addition: expected files with names of their own, got {name!r}. "
                "Choose a name that no file of the report has, without a folder."
            )
        if isinstance(content, str):
            (folder / name).write_text(content, encoding="utf-8", newline="\n")
        else:
            dump(content, folder / name)


def _draw(evaluation, payload, folder):
    """Draw every figure; returns the pictures of the report by kind."""
    label = data_label(payload["dataset"])
    heads = list(dict.fromkeys(result["head"] for result in payload["results"]))
    pictures = {"forest": [], "roc": [], "confusion": [], "confusion_tuned": []}

    def add(kind, name, draw, data, words):
        file = f"figures/{name}.svg"
        figures.save_figure(draw, data, folder / file)
        dump(data, folder / f"figures/{name}.json")
        pictures[kind].append(Picture(file, f"{words}. {label}.", f"{label}. {words}."))

    add("forest", "forest_roc_auc", figures.draw_forest, curves.forest_data(payload),
        "Pooled ROC-AUC of every model with its 95 % interval")  # fmt: skip
    for head, word in zip(heads, _file_words(heads), strict=True):
        roc = curves.roc_data(evaluation, payload, head)
        add("roc", f"roc_{word}", figures.draw_roc, roc, f"ROC curves, head {head}")
        half = curves.confusion_data(payload, head)
        words = "most probable class" if half["threshold"] == "argmax" else "labels at 0.5"
        add("confusion", f"confusion_{word}", figures.draw_confusion, half, f"Confusion matrices, head {head}, {words}")
        if len(payload["dataset"]["labels"]) == 2:
            tuned = curves.confusion_data(payload, head, tuned=True)
            add("confusion_tuned", f"confusion_{word}_tuned", figures.draw_confusion, tuned,
                f"Confusion matrices, head {head}, labels at the tuned threshold")  # fmt: skip
    return pictures


def _file_words(names):
    """File-safe words for `names`, each a different one."""
    words = []
    for name in names:
        word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "head"
        words.append(word if word not in words else f"{word}-{len(words) + 1}")
    return words


def _move_into_place(partial, output):
    if output.is_dir() and any(output.iterdir()):
        _remove_report(output)
        for path in sorted(partial.rglob("*"), key=lambda path: path.name == FINISHED):
            target = output / path.relative_to(partial)
            if path.is_dir():
                target.mkdir(exist_ok=True)
            else:
                target.parent.mkdir(exist_ok=True)
                path.replace(target)
    else:
        # On Windows a folder cannot take the place of another one, not even of an empty one.
        if output.is_dir():
            output.rmdir()
        partial.replace(output)


def _remove_report(output):
    """Remove the files that a finished report lists, the mark of being finished first; nothing else."""
    listed = load(output / FINISHED).get("files", [])
    (output / FINISHED).unlink()
    for name in listed:
        path = output / name
        # A list edited by hand must not reach outside the report.
        if path.resolve().is_relative_to(output.resolve()) and path.is_file():
            path.unlink()
