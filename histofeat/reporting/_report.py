"""Write the report of an evaluation, or the page of a study: tables, figures, Markdown and HTML in one folder."""

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from histofeat.evaluation import RETRAINED, Evaluation
from histofeat.exceptions import check_type, counted
from histofeat.metrics import parse_rule
from histofeat.reporting import _score_figures as score_figures
from histofeat.reporting._answer import answer_of
from histofeat.reporting._baseline import baseline_files, baseline_of
from histofeat.reporting._canvas import draw_costs, draw_intervals, draw_lines
from histofeat.reporting._curves import (
    MOST_BANDS,
    band_panels_data,
    draw_ranking,
    draw_ranking_bands,
    ranking_data,
    reliability_data,
)
from histofeat.reporting._folder import finish, new_folder, write_files, write_predictions, write_scores
from histofeat.reporting._galleries import GALLERY_WORDS, check_pictures, write_galleries
from histofeat.reporting._pages import fill_folder, write_page
from histofeat.reporting._payload import (
    data_label,
    describe_environment,
    made_by,
    metrics_payload,
    model_key,
    splits_payload,
)
from histofeat.reporting._pseudonyms import pseudonymous
from histofeat.reporting._slide_maps import write_maps
from histofeat.reporting._strict_json import PathLike, Redactor, jsonable, own_folders
from histofeat.reporting._tables import best_of
from histofeat.reporting._text import file_words, finding
from histofeat.reporting._training import CAPTION, draw_training, training_data, training_payload
from histofeat.studies import Findings, Study

_CURVES = {"roc": "ROC curves", "pr": "Precision-recall curves"}


def write_report(
    evaluation: Evaluation,
    output: PathLike,
    *,
    overwrite: bool = False,
    environment: Mapping[str, Any] | None = None,
    title: str | None = None,
    command: str | None = None,
    template: PathLike = "report.md.j2",
    context: Mapping[str, Any] | None = None,
    files: Mapping[str, Any] | None = None,
    gallery: int | None = None,
    maps: int | None = None,
    pseudonyms: bool = False,
) -> Path:
    """Write everything that an evaluation found into one folder.

    Parameters
    ----------
    evaluation : Evaluation
        As `histofeat.evaluation.evaluate` returns it.
    output : path-like
        The folder; made when it is not there. A finished report in it is replaced only with `overwrite`, and then only
        the files of that report are removed.
    overwrite : bool, default=False
        Whether to replace a finished report.
    environment : Mapping, optional
        Facts about the machine, `describe_environment()` by default.
    title : str, optional
        Heading of the report.
    command : str, optional
        Command line that made it.
    template : str or path-like, default="report.md.j2"
        The template of the page. One that extends "report.md.j2" adds to the report in the blocks "notices" (below the
        title), "before" and "after" (the results).
    context : Mapping, optional
        Further names for the template. With ``shortcuts``, a `ShortcutPanel` as a dict, the report has a section on
        shortcuts.
    files : Mapping of str to object, optional
        Further files by name, as in `write_page`.
    gallery : int, optional
        Also show images: for each class up to this many that were judged right, wrong, and most confidently wrong, in
        a folder ``galleries`` of their own, with a notice, of the model of the highest ROC-AUC and networks that were
        trained on the pixels. By default there are none: they are pictures of patients.
    maps : int, optional
        Also map this many patients by the out-of-fold probabilities of the model of the highest ROC-AUC, the hardest
        first, in a folder ``maps`` of their own, with a notice.
    pseudonyms : bool, default=False
        Whether "patient 001" and its like replace ids of patients, slides, files and paths in all files of the folder.
        They are drawn anew each time; the key lies beside the folder, in ``OUTPUT-pseudonyms.csv``.

    Returns
    -------
    pathlib.Path
        ``report.html`` in `output`.

    Raises
    ------
    FileExistsError
        If `output` is a file, holds a finished report and `overwrite` is false, or holds files of something else; if
        the report there has pseudonyms, and this one is to have none.
    ValueError
        If `evaluation` is none; if an added file has the name of a file of the report, or names a folder; if `gallery`
        or `maps` is not a whole number of at least 1, or no patch to map has x and y; if there is no such template.

    Notes
    -----
    Files: ``metrics.json``, ``metrics.csv``, ``patients.csv`` (each model on each patient), ``predictions.parquet``,
    ``splits.json``, ``report.md``, ``report.html``, ``failures.csv`` where images could not be read, of a ladder
    ``baseline.json``, ``baseline.md``, ``baseline.tex`` and ``methods.md``, and
    ``figures/*.svg``, each with a ``.json`` of what it shows. There are no pictures of patches outside ``galleries/``;
    an image that cannot be read is replaced by words. Absolute paths are cut to their last component. The same
    evaluation gives the same bytes, but for the time of writing and for pseudonyms.
    """
    check_type("evaluation", evaluation, Evaluation, "an Evaluation", "Give what evaluate returned.")
    evaluation, output = evaluation.positive_last, Path(output)
    check_pictures(gallery, maps, evaluation.dataset)
    root = evaluation.dataset.root
    redact, hide = Redactor({**({root: root.resolve().name} if root else {}), **own_folders()}), None
    if pseudonyms:
        evaluation, hide = pseudonymous(evaluation)
        redact = hide.after(redact)
    environment = describe_environment() if environment is None else environment
    payload = metrics_payload(evaluation, title=title, command=command, environment=environment, redact=redact)
    _add_assessments(evaluation, payload)
    payload |= {"pseudonyms": pseudonyms, "answer": answer_of(evaluation, payload, (context or {}).get("shortcuts"))}
    own_files = {
        "metrics.csv": partial(write_scores, payload),
        "patients.csv": evaluation.by_patient(),
        "predictions.parquet": partial(write_predictions, evaluation),
        "splits.json": splits_payload(evaluation),
        **(baseline_files(payload["ladder"]) if "ladder" in payload else {}),
    }
    if len(evaluation.failures):
        own_files["failures.csv"] = evaluation.failures
    with new_folder(output, overwrite=overwrite, key=hide and hide.to_csv()) as folder:
        if payload["results"]:
            payload |= _albums(evaluation, payload, folder, gallery, maps, redact)
        figures, pictures = make_figures(evaluation, payload) if payload["results"] else ({}, {})
        names = {**report_context(payload), "pictures": pictures, **(context or {})}
        fill_folder(folder, template, names, title=payload["title"], redact=redact, figures=figures, files=own_files)
        write_files(folder, files or {}, redact)
        finish(folder, payload)
    return output / "report.html"


def _albums(evaluation, payload, folder, gallery, maps, redact):
    """Write galleries and maps as far as they are asked for; return what was written."""
    found = {}
    if gallery is not None and not evaluation.dataset.lacks_images:
        found["galleries"] = write_galleries(evaluation, payload, folder, gallery, redact)
    if maps is not None:
        found["maps"] = write_maps(evaluation, payload, folder, maps)
    return found


def _add_assessments(evaluation, payload):
    """Add differences between models, calibration, training of networks, scores of single classes and details."""
    comparison, several = evaluation.comparison, len(evaluation.labels) > 2
    payload["comparison"] = jsonable(comparison and comparison.to_dict())
    payload["planned"] = jsonable(evaluation.planned and evaluation.planned.to_dict())
    for number, (model, result) in enumerate(zip(evaluation.models, payload["results"], strict=True)):
        calibration = evaluation.calibration[number]
        result["calibration"] = jsonable(calibration and calibration.to_dict())
        result["training"] = training_payload(model)
        result["classes"] = jsonable(evaluation.classes[number].to_dicts()) if several else []
        result["details"] = jsonable(evaluation.details[number])
        result["seconds_per_patch"] = jsonable(evaluation.seconds_per_patch[number])
    payload["table_probe"] = jsonable(evaluation.table_probe) if evaluation.models else {}
    if "ladder" in evaluation.protocol:
        payload["ladder"] = baseline_of(evaluation, payload)


def report_context(payload: dict[str, Any]) -> dict[str, Any]:
    """Return what "report.md.j2" and its parts need beside the functions of all templates and the pictures.

    Parameters
    ----------
    payload : dict
        The content of `metrics.json`.

    Returns
    -------
    dict
        The payload by its keys, and as ``payload``; ``label``, the data set as captions name it; words and
        lists made from it.
    """
    notes = {}
    for result in payload["results"]:
        for note in result.get("notes", ()):
            notes.setdefault(note, []).append(f"{result['name']}, {result['head']}")
    retrained = (result["name"] for result in payload["results"] if RETRAINED in result.get("notes", ()))
    return {
        **payload,
        "payload": payload,
        "label": data_label(payload["dataset"]),
        "notes": notes,
        "retrained": list(dict.fromkeys(retrained)),
        "retrained_words": RETRAINED,
        "rule": parse_rule(payload["protocol"].get("threshold", "f1")).words,
        "gallery_words": GALLERY_WORDS,
    }


def make_figures(evaluation, payload):
    """Return every figure of a report.

    Parameters
    ----------
    evaluation : Evaluation
    payload : dict
        As `metrics_payload` returns it, with "calibration" and "training" in every result.

    Returns
    -------
    figures : dict of str to (callable, dict)
        By name: the function that draws the figure, and its data.
    pictures : dict of str to list of dict
        By kind, in the order of the heads: ``name``, ``caption`` and ``alt`` of each figure.
    """
    label, figures, pictures = data_label(payload["dataset"]), {}, defaultdict(list)
    for kind, name, draw, data, words in _figures(evaluation, payload):
        figures[name] = (draw, data)
        alt = f"{words}. {finding(data)} {label}."
        pictures[kind].append({"name": name, "caption": f"{label}. {words}.", "alt": alt})
    return figures, pictures


def _figures(evaluation, payload):
    """Yield (kind, name, function, data, caption) of every figure."""
    models = payload["results"]
    words = f"{counted(len(models), 'model')}, the highest ROC-AUC first, with 95 % intervals"
    yield "comparison", "comparison", score_figures.draw_comparison, score_figures.comparison_data(payload), words
    words = "ROC-AUC of every model with its 95 % interval, and its folds"
    yield "forest", "forest_roc_auc", score_figures.draw_forest, score_figures.forest_data(payload), words
    patients = score_figures.patients_data(evaluation.by_patient(), payload)
    yield "patients", "patients", score_figures.draw_patients, patients, f"Each patient alone, {patients['model']}"
    heads = list(dict.fromkeys(result["head"] for result in models))
    for head, word in zip(heads, file_words(heads), strict=True):
        for kind in _CURVES:
            yield from _curves(kind, ranking_data(kind, evaluation, payload, head), word)
        reliability = reliability_data(payload, head)
        if reliability is not None:
            yield "reliability", f"reliability_{word}", draw_lines, reliability, f"Reliability curves, head {head}"
        yield from _confusions(payload, head, f"confusion_{word}")
    if len(models) > 1:
        best = best_of(models)
        costs = score_figures.costs_data(payload)
        if costs:
            yield "costs", "costs", draw_costs, costs, "ROC-AUC of every model over its milliseconds a patch"
        yield from _confusions({**payload, "results": [best]}, best["head"], "confusion-best", "confusion_best")
    trained = [(result, data) for result in models if (data := training_data(payload, result))]
    words = file_words([model_key(result["name"], result["head"]) for result, _ in trained])
    for (result, data), word in zip(trained, words, strict=True):
        caption = f"Training of {result['name']}, {result['head']}. {CAPTION}"
        yield "training", f"training_{word}", draw_training, data, caption


def _curves(kind, data, word):
    several = max(len(panel["curves"]) for panel in data["panels"]) > MOST_BANDS
    bands = f"bands: 95 % of {data['n_resamples']:,} resamples of the patients, at each point by itself"
    resampled = any(curve["low"] for panel in data["panels"] for curve in panel["curves"])
    words = f"{_CURVES[kind]}, head {data['head']}"
    yield kind, f"{kind}_{word}", draw_ranking, data, words if several or not resampled else f"{words}; {bands}"
    if several and resampled:
        words = f"{words}, one model per panel and the others in grey; {bands}"
        yield f"{kind}_bands", f"{kind}_bands_{word}", draw_ranking_bands, band_panels_data(data), words


def _confusions(payload, head, name, kind="confusion"):
    one = f" of {payload['results'][0]['name']}" if kind == "confusion_best" else ""
    for end in ("", "_tuned")[: 1 + (len(payload["dataset"]["labels"]) == 2)]:
        data = score_figures.confusion_data(payload, head, tuned=bool(end))
        words = f"Confusion matri{f'x{one}' if one else 'ces'}, head {head}"
        words = f"{words}, {score_figures.THRESHOLD_WORDS[data['threshold']]}"
        yield kind + end, name + end, score_figures.draw_confusion, data, words


# --- studies -------------------------------------------------------------------------------------------------------

_STUDY_FIGURES = {"costs": draw_costs, "intervals": draw_intervals, "lines": draw_lines}


def write_study(
    output: PathLike,
    study: Study,
    findings: Findings,
    options: Mapping[str, Any],
    *,
    command: str,
    overwrite: bool = False,
) -> Path:
    """Write the page of a study, its numbers, tables and figures into a folder.

    Parameters
    ----------
    output : path-like
        The folder, as in `write_page`.
    study : histofeat.studies.Study
        Its template is ``study-NAME.md.j2`` here, or a file of its own.
    findings : histofeat.studies.Findings
    options : Mapping
        The options of the run.
    command : str
        The command that repeats the run.
    overwrite : bool, default=False
        Whether to replace a finished page.

    Returns
    -------
    pathlib.Path
        ``report.md`` in the folder; ``report.html`` lies beside it.
    """
    environment = describe_environment()
    metrics = {
        **made_by(study.title, command),
        "quick": bool(options["quick"]),
        "environment": environment,
        "results": jsonable(_plain(findings.results)),
    }
    page = write_page(
        output,
        study.template or f"study-{study.name}.md.j2",
        {**metrics, "options": options, "processor": f"{environment['cpu']}, {environment['cores']} cores"},
        title=study.title,
        metrics=metrics,
        figures={name: _study_figure(*figure) for name, figure in findings.figures.items()},
        files={f"{name}.csv": table for name, table in findings.tables.items()},
        overwrite=overwrite,
    )
    return page.with_name("report.md")


def _plain(value):
    """Replace evaluations by the content of their ``metrics.json``, with their classes."""
    if isinstance(value, Evaluation):
        payload = metrics_payload(value)
        for result, classes in zip(payload["results"], value.classes, strict=True):
            result["classes"] = jsonable(classes.to_dicts())
        return payload
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _study_figure(kind, data):
    """Return the function that draws a figure, and its data."""
    if kind == "reliability":
        return draw_lines, reliability_data(jsonable(data), data["head"])
    if kind == "confusion":
        return score_figures.draw_confusion, score_figures.best_confusion(data)
    return _STUDY_FIGURES[kind], data
