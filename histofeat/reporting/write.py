"""An evaluation -> its report: tables, figures, Markdown and HTML in one folder."""

from pathlib import Path

from histofeat.reporting.blocks import Addition, to_html, to_markdown
from histofeat.reporting.figures.pictures import draw_pictures, file_words
from histofeat.reporting.files.environment import describe_environment
from histofeat.reporting.files.flat_files import write_predictions, write_scores
from histofeat.reporting.files.folder import FINISHED, finish, new_folder
from histofeat.reporting.files.payload import metrics_payload, splits_payload
from histofeat.reporting.files.privacy import Redactor
from histofeat.reporting.files.strict_json import dump, jsonable
from histofeat.reporting.sections.galleries import check_gallery
from histofeat.reporting.sections.gallery_page import write_galleries
from histofeat.reporting.sections.order import report_blocks
from histofeat.reporting.sections.training import training_payload

__all__ = ["write_report"]


def write_report(
    evaluation,
    output,
    *,
    overwrite=False,
    environment=None,
    title=None,
    command=None,
    addition=None,
    gallery=None,
    gallery_models=None,
):
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
    gallery : int, optional
        Also show images: for each class up to this many that were judged right, wrong, and most confidently wrong, in
        a folder ``galleries`` of their own. None, the default, shows none: they are pictures of patients, and of their
        own folder a notice says so.
    gallery_models : sequence of str, optional
        Whose images, by names such as "handcrafted/xgboost"; by default the model of the highest ROC-AUC, and networks
        that were trained on the pixels.

    Returns
    -------
    pathlib.Path
        ``report.html`` in `output`.

    Raises
    ------
    FileExistsError
        If `output` is a file, holds a finished report and `overwrite` is false, or holds files of something else.
    ValueError
        If an added file is named like one of the report, or with a folder; if `gallery` is no whole number of at least
        1, or `gallery_models` names a model that is not there.

    Notes
    -----
    Files: ``metrics.json``, ``metrics.csv``, ``predictions.parquet``, ``splits.json``, ``report.md``,
    ``report.html``, and ``figures/*.svg``, each with a ``.json`` of what it shows. No pictures of patches, but for
    those of ``galleries/`` where they were asked for; an image that cannot be read is replaced by words. Absolute
    paths, which tell whose machine it was, are cut to their last component. The same evaluation gives the same bytes
    but for the time of writing.
    """
    output = Path(output)
    check_gallery(gallery, gallery_models, evaluation)
    root = evaluation.dataset.root
    redact = Redactor({**({root: root.resolve().name} if root else {}), Path.cwd(): ".", Path.home(): "~"})
    environment = describe_environment() if environment is None else environment
    payload = metrics_payload(evaluation, title=title, command=command, environment=environment, redact=redact)
    _assess(evaluation, payload)
    with new_folder(output, overwrite=overwrite) as folder:
        if gallery is not None and payload["results"]:
            payload["galleries"] = write_galleries(evaluation, payload, folder, gallery, gallery_models, file_words)
        _write_files(evaluation, payload, folder, addition or Addition())
    return output / "report.html"


def _assess(evaluation, payload):
    """Add differences of models, how far their probabilities can be believed, and how networks were trained."""
    comparison, several = evaluation.comparison, len(evaluation.labels) > 2
    payload["comparison"] = jsonable(comparison and comparison.to_dict())
    for number, (model, result) in enumerate(zip(evaluation.models, payload["results"], strict=True)):
        calibration = evaluation.calibration[number]
        result["calibration"] = jsonable(calibration and calibration.to_dict())
        result["training"] = training_payload(model)
        result["classes"] = jsonable(evaluation.classes[number].to_dicts()) if several else []


def _write_files(evaluation, payload, folder, addition):
    (folder / "figures").mkdir()
    pictures = draw_pictures(evaluation, payload, folder) if payload["results"] else {}
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
