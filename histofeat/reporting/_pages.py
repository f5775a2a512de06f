"""Make pages: a Jinja template gives Markdown, which gives HTML, written with figures and files into one folder."""

import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from histofeat.exceptions import counted
from histofeat.reporting import _curves as curves, _tables as tables, _text as text, _training as training
from histofeat.reporting._canvas import save_figure
from histofeat.reporting._folder import finish, new_folder, write_files, write_text
from histofeat.reporting._html import TEMPLATES, html_page
from histofeat.reporting._payload import data_label
from histofeat.reporting._strict_json import PathLike, Redactor, dump, jsonable, own_folders

#: Takes the paths of the machine out of text and plain values.
Redaction = Callable[[Any], Any]
#: That of the page being rendered.
_redact: ContextVar[Redaction] = ContextVar("_redact", default=str)
#: What templates can use beside the macros, by name: filters, and functions that make tables and words.
_FILTERS = {
    **{write.__name__: write for write in (text.count, text.number, text.percent, text.signed)},
    **{write.__name__: write for write in (text.interval, text.with_interval)},
    "counted": counted,
    "percent_interval": partial(text.interval, write=text.percent),
    "score": tables.score_with_interval,
    "signed_interval": partial(text.with_interval, write=text.signed),
    "words": text.plain_words,
}
_FUNCTIONS = (
    *(curves.calibration_key, data_label, tables.best_of, tables.by_reason, tables.headline_key),
    *(tables.average_table, tables.class_table, tables.difference_table, tables.folds_table, tables.headline_table),
    *(tables.scores_table, tables.seconds_table, training.training_table),
)


def write_page(
    output: PathLike,
    template: PathLike,
    context: Mapping[str, Any],
    *,
    title: str,
    metrics: Mapping[str, Any],
    figures: Mapping[str, Any] | None = None,
    files: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a page and the files beside it into one folder, whole or not at all.

    Parameters
    ----------
    output : path-like
        The folder; made when it is not there.
    template : str or path-like
        The name of a template of `histofeat.reporting`, such as "study-robustness.md.j2", or the path of another one.
    context : Mapping
        What the template can use by name, beside `title`, the macros ``notice``, ``table``, ``facts``, ``details`` and
        ``figure``, the filters ``count``, ``number``, ``signed``, ``percent``, ``interval`` and ``with_interval``, and
        the functions that make the tables of a report, such as ``headline_table``.
    title : str
        Title of the page.
    metrics : Mapping
        What the page says, for programs: the content of ``metrics.json``, to which the list of files is added.
    figures : Mapping of str to (callable, dict), optional
        Functions such as `draw_lines` and their data by the name of the figure: written as ``figures/NAME.svg``, with
        the data beside it as ``figures/NAME.json``. A template shows one by ``figure(NAME, CAPTION)``.
    files : Mapping of str to object, optional
        Further files by name: text is written as it is, a DataFrame as CSV, anything else as JSON; a callable is called
        with the path of the file to write.
    overwrite : bool, default=False
        Whether to replace a finished page.

    Returns
    -------
    pathlib.Path
        ``report.html`` in `output`; ``report.md`` lies beside it.

    Raises
    ------
    FileExistsError
        If `output` is a file, holds a finished page and `overwrite` is false, or holds files of something else.
    ValueError
        If a file has the name of a file of the page, or names a folder.

    Notes
    -----
    Values that a template inserts are escaped, so that no text of a data set becomes markup, and absolute paths in
    them are cut to their last component. A paragraph before a table is its caption; a paragraph that is emphasised as a
    whole is a note in small print, after a figure its caption.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "hello.md.j2").write_text("# {{ title }}\\n\\nHello {{ name }}, {{ 0.5 | percent }}.\\n")
    ...     template = Path(folder, "hello.md.j2")
    ...     page = write_page(Path(folder, "out"), template, {"name": "*you*"}, title="T", metrics={})
    ...     (page.parent / "report.md").read_text().splitlines()
    ['# T', '', 'Hello \\\\*you\\\\*, 50.0 %.']
    """
    redact = Redactor(own_folders())
    with new_folder(output, overwrite=overwrite) as folder:
        fill_folder(folder, template, context, title=title, redact=redact, figures=figures, files=files)
        finish(folder, redact(jsonable(metrics)))
    return Path(output) / "report.html"


def fill_folder(folder, template, context, *, title, redact, figures=None, files=None):
    """Write everything that `write_page` writes but ``metrics.json`` into an empty folder.

    Parameters
    ----------
    folder : pathlib.Path
    template, context, title, figures, files
        As in `write_page`.
    redact : callable
        Takes the paths of the machine out of text and plain values.
    """
    (folder / "figures").mkdir(exist_ok=True)
    findings = {}
    for name, (draw, data) in (figures or {}).items():
        plain = redact(jsonable(data))
        findings[name] = text.finding(plain)
        save_figure(draw, plain, folder / f"figures/{name}.svg")
        dump(plain, folder / f"figures/{name}.json")
    names = {"title": title, "figure": partial(_figure, findings=findings), **context}
    markdown = render_markdown(template, names, redact=redact)
    write_text(folder / "report.md", markdown)
    write_text(folder / "report.html", html_page(markdown, redact(title), folder))
    write_files(folder, files or {}, redact)


def render_markdown(template: PathLike, context: Mapping[str, Any], *, redact: Redaction | None = None) -> str:
    """Return the Markdown that a template gives.

    Parameters
    ----------
    template, context
        As in `write_page`.
    redact : callable, optional
        Takes the paths of the machine out of every inserted string.

    Returns
    -------
    str
        Without more than one empty line in a row, ending with a newline.

    Raises
    ------
    ValueError
        If there is no such template.
    """
    from jinja2 import TemplateNotFound

    before = _redact.set(redact or str)
    try:
        page = _environment(Path(template).parent).get_template(Path(template).name)
        found = page.render(context)
    except TemplateNotFound as error:
        raise ValueError(
            f"template: expected the file of a template, found no {error.name!r}. Correct the path."
        ) from error
    finally:
        _redact.reset(before)
    lines = "\n".join(line.rstrip() for line in found.splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines).strip() + "\n"


@lru_cache(8)  # reading the templates takes a seventh of the time of a report
def _environment(folder):
    """Return an environment in which inserted strings are redacted and escaped, and what macros give is safe."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([TEMPLATES, folder]),
        autoescape=True,
        finalize=_safe,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {**_FILTERS, "quoted": _quoted}
    environment.globals |= {function.__name__: function for function in _FUNCTIONS}
    environment.globals |= {"metric_words": tables.METRIC_WORDS}
    environment.globals["figure"] = _figure
    macros = environment.get_template("macros.md.j2").module
    environment.globals |= {name: getattr(macros, name) for name in dir(macros) if not name.startswith("_")}
    return environment


def _safe(value):
    """Return Markdown that a macro made as it is, and any other value redacted and escaped."""
    from markupsafe import Markup

    if hasattr(value, "__html__"):
        return value
    return Markup(text.escape_markdown(_redact.get()(text.UNDEFINED if value is None else str(value))))


def _figure(name, caption, alt=None, *, findings=None):
    """Return a figure with its caption and words for those who do not see it: the caption and what it shows."""
    from markupsafe import Markup

    words = _safe(alt or caption)
    if alt is None and findings and findings.get(name):
        words += " " + _safe(findings[name])
    return Markup("\n\n![{}](figures/{}.svg)\n\n*{}*\n\n").format(words, _safe(name), _safe(caption))


def _quoted(markdown):
    """Return Markdown as a block quote."""
    lines = re.sub(r"\n{3,}", "\n\n", markdown).strip().splitlines()
    return type(markdown)("\n".join(f"> {line}".rstrip() for line in lines))
