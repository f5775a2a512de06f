"""Make pages: a Jinja template gives Markdown, the same Markdown gives one HTML file that needs nothing else."""

import base64
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import cache, lru_cache, partial
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from histofeat.reporting import _curves as curves, _tables as tables, _text as text, _training as training
from histofeat.reporting._canvas import save_figure
from histofeat.reporting._folder import finish, new_folder, write_files, write_text
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
    "percent_interval": partial(text.interval, write=text.percent),
    "score": tables.score_with_interval,
    "signed_interval": partial(text.with_interval, write=text.signed),
    "words": text.plain_words,
}
_FUNCTIONS = (
    *(curves.calibration_key, data_label, tables.best_of, tables.headline_key),
    *(tables.average_table, tables.class_table, tables.difference_table, tables.folds_table, tables.headline_table),
    *(tables.scores_table, tables.seconds_table, training.training_table),
)
#: Lines that are no paragraph, and their tokens.
_LINES = {"</details>": ("details_close", "details", -1), "<!-- contents -->": ("contents", "", 0)}
_NOTICES = {"NOTE": "info", "WARNING": "warning", "CAUTION": "danger"}
_MIME = {".svg": "image/svg+xml", ".png": "image/png"}


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
    for name, (draw, data) in (figures or {}).items():
        plain = redact(jsonable(data))
        save_figure(draw, plain, folder / f"figures/{name}.svg")
        dump(plain, folder / f"figures/{name}.json")
    markdown = render_markdown(template, {"title": title, **context}, redact=redact)
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
    from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value):
        if hasattr(value, "__html__"):
            return value
        return Markup(text.escape_markdown(_redact.get()(text.UNDEFINED if value is None else str(value))))

    environment = Environment(
        loader=ChoiceLoader([_templates(), FileSystemLoader(folder)]),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {**_FILTERS, "quoted": _quoted}
    environment.globals |= {function.__name__: function for function in _FUNCTIONS}
    environment.globals |= {"metric_words": tables.METRIC_WORDS}
    macros = environment.get_template("macros.md.j2").module
    environment.globals |= {name: getattr(macros, name) for name in dir(macros) if not name.startswith("_")}
    return environment


def _templates():
    from jinja2 import FileSystemLoader

    return FileSystemLoader(resources.files("histofeat.reporting") / "templates")


def _quoted(markdown):
    """Return Markdown as a block quote."""
    lines = re.sub(r"\n{3,}", "\n\n", markdown).strip().splitlines()
    return type(markdown)("\n".join(f"> {line}".rstrip() for line in lines))


def html_page(markdown: str, title: str, folder: PathLike, *, embed: bool = True) -> str:
    """Return one HTML page with styles and figures inside, and nothing that a text could make markup.

    Parameters
    ----------
    markdown : str
        As `render_markdown` gives it; HTML in it is text, but for lines of ``<details>`` and the line
        ``<!-- contents -->``, where links to the headings of the second level come.
    title : str
        For the window; not escaped yet.
    folder : path-like
        Where the files of the figures are.
    embed : bool, default=True
        Whether images become part of the page; otherwise it shows files that lie beside it, as those of a gallery do.

    Returns
    -------
    str
    """
    from jinja2 import Environment
    from markupsafe import Markup

    parser, env = _parser(), {"folder": Path(folder) if embed else None}
    tokens = parser.parse(markdown, env)
    top, body = (Markup(parser.renderer.render(part, parser.options, env)) for part in _at_contents(tokens))
    headings = [(token.attrs["id"], _plain(tokens[at])) for at, token in enumerate(tokens, 1) if _is_section(token)]
    images = "data:" if embed else "data: 'self' file:"
    page = Environment(loader=_templates(), autoescape=True, trim_blocks=True).get_template("page.html.j2")
    return page.render(title=title, top=top, headings=headings, body=body, images=Markup(images)) + "\n"


def _at_contents(tokens):
    """Return the tokens before and after the place of the contents: as marked, or before the first section."""
    marks = [at for at, token in enumerate(tokens) if token.type == "contents"]
    place = next(iter(marks or (at for at, token in enumerate(tokens) if _is_section(token))), len(tokens))
    return tokens[:place], tokens[place + bool(marks) :]


def _is_section(token):
    return token.type == "heading_open" and token.tag == "h2"


@cache
def _parser():
    """Return the parser of CommonMark with tables, without raw HTML, with what pages add to it."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.disable(["code", "lheading", "html_block", "html_inline", "autolink", "reference"])
    parser.block.ruler.before("paragraph", "details", _details)
    parser.core.ruler.push("dress", _dress)
    for name, render in _RENDER_RULES.items():
        parser.add_render_rule(name, render)
    return parser


def _details(state, line, _, silent):
    """Parse the lines of ``<details><summary>WORDS</summary>``, of ``</details>`` and of the mark of the contents."""
    words = state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]]
    opening = re.fullmatch(r"<details><summary>(.*)</summary>", words)
    if not opening and words not in _LINES:
        return False
    if silent:
        return True
    state.line = line + 1
    if opening:
        state.push("details_open", "details", 1)
        state.push("summary_open", "summary", 1)
        inline = state.push("inline", "", 0)
        inline.content, inline.children, inline.map = opening.group(1), [], [line, line + 1]
        state.push("summary_close", "summary", -1)
    else:
        state.push(*_LINES[words])
    return True


def _dress(state):
    """Make boxes of notices, and figures of tables and pictures with their captions; mark numbers, bests and notes."""
    tokens, ids = state.tokens, {"contents", "main"}
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", _anchor(_plain(tokens[at + 1]), ids))
        elif token.type == "blockquote_open":
            _dress_notice(tokens, at)
        elif token.type == "bullet_list_open" and _first(tokens[at + 3]) == "image":
            token.attrSet("class", "tiles")
        elif token.type in ("th_open", "td_open"):
            kind = "n" if token.attrs.pop("style", "") == "text-align:right" else "t"
            token.attrs |= {"scope": "col"} if token.tag == "th" else {}
            token.attrSet("class", f"{kind} best" if _is_all(tokens[at + 1], "strong") else kind)
        elif token.type == "table_open" and at and tokens[at - 1].type == "paragraph_close":
            tokens[at - 3].type, tokens[at - 1].type, token.type = "caption_open", "caption_close", "captioned_open"
        elif token.type == "paragraph_open" and _first(tokens[at + 1]) == "image":
            _dress_picture(tokens, at)
        elif token.type == "paragraph_open" and token.tag == "p" and _is_all(tokens[at + 1], "em"):
            token.attrSet("class", "muted")
            _unwrap(tokens[at + 1])


def _anchor(words, taken):
    """Return the id of a heading, as GitHub makes it, and add it to those that are taken."""
    plain = word = re.sub(r"[^\w\- ]", "", words.lower()).strip().replace(" ", "-") or "section"
    number = 0
    while word in taken:
        number += 1
        word = f"{plain}-{number}"
    taken.add(word)
    return word


def _dress_notice(tokens, at):
    kind = re.match(r"\[!(\w+)\]\n", tokens[at + 2].content)
    if not kind:
        return
    end = next(token for token in tokens[at:] if token.type == "blockquote_close" and token.level == tokens[at].level)
    tokens[at].tag = end.tag = "aside"
    tokens[at].attrs |= {"class": f"notice {_NOTICES[kind.group(1)]}", "role": "note"}
    # The title, which follows the kind and a line break, stands without a paragraph of its own.
    tokens[at + 2].children = tokens[at + 2].children[2:]
    tokens[at + 1].hidden = tokens[at + 3].hidden = True


def _dress_picture(tokens, at):
    start, image, end, *caption = tokens[at : at + 6]
    start.tag = end.tag = "figure"
    start.attrSet("class", "picture")
    if len(caption) == 3 and caption[0].type == "paragraph_open" and _is_all(caption[1], "em"):
        caption[0].tag = caption[2].tag = "figcaption"
        _unwrap(caption[1])
        tokens[at : at + 6] = [start, image, *caption, end]


def _first(inline):
    return inline.children[0].type if inline.children else None


def _plain(inline):
    return "".join(child.content for child in inline.children or ())


def _is_all(inline, tag):
    """Return whether all words of an inline token stand inside one pair of `tag`."""
    kinds = [child.type for child in inline.children or () if child.content or child.type != "text"]
    return bool(kinds) and (kinds[0], kinds[-1], kinds.count(f"{tag}_open")) == (f"{tag}_open", f"{tag}_close", 1)


def _unwrap(inline):
    inline.children = [child for child in inline.children if child.tag != "em"]


def _image(renderer, tokens, at, options, env):
    token, source = tokens[at], tokens[at].attrs["src"]
    alt = escape("".join(child.content for child in token.children))
    if env["folder"] is None:
        return f'<img src="{escape(source)}" alt="{alt}" loading="lazy">'
    path = env["folder"] / source
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img src="data:{_MIME[path.suffix]};base64,{data}" alt="{alt}">'


_RENDER_RULES = {
    "image": _image,
    "softbreak": lambda *_: " ",
    "caption_open": lambda *_: '<figure class="table"><figcaption>',
    "caption_close": lambda *_: "</figcaption>\n",
    "captioned_open": lambda *_: '<div class="scroll"><table>\n',
    "table_open": lambda *_: '<figure class="table"><div class="scroll"><table>\n',
    "table_close": lambda *_: "</table></div></figure>\n",
}
