"""The page of a study: its template over its results, with its tables and figures."""

from pathlib import Path

from histofeat.evaluation import Evaluation
from histofeat.reporting.figures.charts import draw_costs, draw_intervals, draw_lines
from histofeat.reporting.figures.confusion_and_forest import draw_confusion
from histofeat.reporting.figures.curves import confusion_data
from histofeat.reporting.files.environment import describe_environment
from histofeat.reporting.files.payload import metrics_payload
from histofeat.reporting.files.strict_json import jsonable
from histofeat.reporting.pages import write_page
from histofeat.reporting.sections.calibration import (
    calibration_key,
    calibration_table,
    decomposition_table,
    reliability_data,
)
from histofeat.reporting.sections.classes import class_blocks
from histofeat.reporting.sections.shortcut import shortcut_blocks
from histofeat.reporting.sections.tables import headline_key, headline_table

__all__ = ["write_study"]

#: Sections of an evaluation's report that the template of a study may use too.
_SECTIONS = (
    calibration_key,
    calibration_table,
    class_blocks,
    decomposition_table,
    headline_key,
    headline_table,
    shortcut_blocks,
)
_FIGURES = {"costs": draw_costs, "intervals": draw_intervals, "lines": draw_lines}


def write_study(output, study, findings, options, *, command, overwrite=False):
    """Write the page of a study, its numbers, tables and figures into a folder.

    Parameters
    ----------
    output : path-like
        The folder, as in `write_page`.
    study : histofeat.studies.Study
        Its template is ``study-NAME.md.j2``.
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
    results = jsonable(_plain(findings.to_dict()))
    environment, quick = describe_environment(), bool(options["quick"])
    page = write_page(
        output,
        f"study-{study.name}.md.j2",
        {
            **{section.__name__: section for section in _SECTIONS},
            "results": results,
            "options": options,
            "quick": quick,
            "command": command,
            "processor": f"{environment['cpu']}, {environment['cores']} cores",
        },
        title=study.title,
        metrics={
            "title": study.title,
            "quick": quick,
            "command": command,
            "environment": environment,
            "results": results,
        },
        figures={name: _figure(*figure) for name, figure in findings.figures.items()},
        files={f"{name}.csv": table for name, table in findings.tables.items()},
        overwrite=overwrite,
    )
    return Path(page).with_name("report.md")


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


def _figure(kind, data):
    """Return the function that draws a figure, and its data."""
    if kind == "reliability":
        return draw_lines, reliability_data(jsonable(data), data["head"])
    if kind == "confusion":
        payload = metrics_payload(data)
        best = max(payload["results"], key=lambda result: _or_less(result["roc_auc"]["pooled"]))
        return draw_confusion, confusion_data({**payload, "results": [best]}, best["head"])
    return _FIGURES[kind], data


def _or_less(value):
    return -1.0 if value is None else value
