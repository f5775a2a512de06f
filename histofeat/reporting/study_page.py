"""The page of a study: its template over its results, with its tables and figures."""

from pathlib import Path

from histofeat.evaluation import Evaluation
from histofeat.reporting.calibration import reliability_data
from histofeat.reporting.charts import draw_costs, draw_intervals, draw_lines
from histofeat.reporting.pages import write_page
from histofeat.reporting.payload import describe_environment, metrics_payload
from histofeat.reporting.score_figures import confusion_data, draw_confusion
from histofeat.reporting.strict_json import jsonable
from histofeat.reporting.tables import best_of

__all__ = ["write_study"]

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
        best = best_of(payload["results"])
        return draw_confusion, confusion_data({**payload, "results": [best]}, best["head"])
    return _FIGURES[kind], data
