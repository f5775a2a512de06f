"""An evaluation -> its report: tables, figures, Markdown and HTML in one folder."""

import re
from pathlib import Path

from histofeat.reporting import curves, figures
from histofeat.reporting.blocks import Addition, Picture
from histofeat.reporting.calibration_section import calibration_payload, reliability_data
from histofeat.reporting.canvas import save_figure
from histofeat.reporting.charts import draw_lines
from histofeat.reporting.comparison_section import comparison_payload
from histofeat.reporting.environment import describe_environment
from histofeat.reporting.flat_files import write_predictions, write_scores
from histofeat.reporting.folder import FINISHED, finish, new_folder
from histofeat.reporting.html import to_html
from histofeat.reporting.markdown import to_markdown
from histofeat.reporting.payload import data_label, metrics_payload, splits_payload
from histofeat.reporting.privacy import Redactor
from histofeat.reporting.sections import report_blocks
from histofeat.reporting.strict_json import dump, jsonable

__all__ = ["write_report"]


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
    root = evaluation.dataset.root
    redact = Redactor({**({root: root.resolve().name} if root else {}), Path.cwd(): ".", Path.home(): "~"})
    environment = describe_environment() if environment is None else environment
    payload = metrics_payload(evaluation, title=title, command=command, environment=environment, redact=redact)
    _assess(evaluation, payload)
    with new_folder(output, overwrite=overwrite) as folder:
        _write_files(evaluation, payload, folder, addition or Addition())
    return output / "report.html"


def _assess(evaluation, payload):
    """Add what is computed from predictions: differences of models, and how far probabilities can be believed."""
    payload["comparison"] = jsonable(comparison_payload(evaluation))
    for model, result in zip(evaluation.models, payload["results"], strict=True):
        result["calibration"] = jsonable(calibration_payload(model, evaluation.dataset, evaluation))


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
    finish(folder, payload)


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
    pictures = {"forest": [], "roc": [], "reliability": [], "confusion": [], "confusion_tuned": []}

    def add(kind, name, draw, data, words):
        file = f"figures/{name}.svg"
        save_figure(draw, data, folder / file)
        dump(data, folder / f"figures/{name}.json")
        pictures[kind].append(Picture(file, f"{words}. {label}.", f"{label}. {words}."))

    add("forest", "forest_roc_auc", figures.draw_forest, curves.forest_data(payload),
        "Pooled ROC-AUC of every model with its 95 % interval")  # fmt: skip
    for head, word in zip(heads, _file_words(heads), strict=True):
        roc = curves.roc_data(evaluation, payload, head)
        add("roc", f"roc_{word}", figures.draw_roc, roc, f"ROC curves, head {head}")
        reliability = reliability_data(payload, head)
        if reliability is not None:
            add("reliability", f"reliability_{word}", draw_lines, reliability, f"Reliability curves, head {head}")
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
