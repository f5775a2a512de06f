"""From Markdown to one HTML file that needs nothing else: anchors and contents, tables and figures with captions."""

import base64
import re
from functools import cache
from hashlib import sha256
from html import escape
from importlib import resources
from pathlib import Path

from histofeat.reporting._canvas import inline_figure
from histofeat.reporting._strict_json import PathLike

TEMPLATES = resources.files("histofeat.reporting") / "templates"
#: Lines that are no paragraph, and their tokens.
_LINES = {"</details>": ("details_close", "details", -1), "<!-- contents -->": ("contents", "", 0)}
_SCROLL = '<div class="scroll" role="region" tabindex="0"'
_NOTICES = {"NOTE": "info", "WARNING": "warning", "CAUTION": "danger"}


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
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    parser, env = _parser(), {"folder": Path(folder) if embed else None}
    tokens = parser.parse(markdown, env)
    top, body = (Markup(parser.renderer.render(part, parser.options, env)) for part in _at_contents(tokens))
    headings = [(token.attrs["id"], _plain(tokens[at])) for at, token in enumerate(tokens, 1) if _is_section(token)]
    images = "data:" if embed else "data: 'self' file:"
    templates = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True)
    parts = {"title": title, "top": top, "headings": headings, "body": body, "images": Markup(images)}
    return templates.get_template("page.html.j2").render(**parts, fingerprint=_fingerprint) + "\n"


def _fingerprint(text):
    """Return the words by which a policy allows a script or a style of the page."""
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()


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
    tokens, ids, number = state.tokens, {"contents", "main"}, 0
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", _anchor(_plain(tokens[at + 1]), ids))
        elif token.type == "blockquote_open":
            _dress_notice(tokens, at)
        elif token.type == "bullet_list_open" and _first(tokens[at + 3]) == "image":
            token.attrSet("class", "tiles")
        elif token.type in ("th_open", "td_open"):
            _dress_cell(tokens, at)
        elif token.type == "table_open":
            number += 1
            _dress_table(tokens, at, number)
        elif token.type == "paragraph_open" and _first(tokens[at + 1]) == "image":
            number += 1
            _dress_picture(tokens, at, number)
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


def _dress_cell(tokens, at):
    cell, inline, first = tokens[at], tokens[at + 1], tokens[at - 1].type == "tr_open"
    kind = "n" if cell.attrs.pop("style", "") == "text-align:right" else "t"
    for child in inline.children if kind == "n" and cell.tag == "td" else ():
        # A narrow column breaks before an interval, and never inside one.
        child.content = re.sub(r"(?<=\S) (?=[^\[ ])", "\N{NO-BREAK SPACE}", child.content)
    if cell.tag == "th" or first:
        cell.attrSet("scope", "col" if cell.tag == "th" else "row")
        cell.tag = tokens[at + 2].tag = "th"
    cell.attrSet("class", f"{kind} best" if _is_all(inline, "strong") else kind)


def _dress_table(tokens, at, number):
    """Make a table a figure with its caption, inside a box that scrolls; without a caption it has a number."""
    captioned = bool(at) and tokens[at - 1].type == "paragraph_close"
    name, start = _name("Table", number, captioned), '<figure class="table">'
    tokens[at].content = f"{start * (not captioned)}{_SCROLL} {name}><table {name}>\n"
    if captioned:
        tokens[at - 3].type, tokens[at - 1].type = "caption_open", "caption_close"
        tokens[at - 3].content = f'{start}<figcaption id="caption.{number}">'


def _dress_picture(tokens, at, number):
    start, image, end, *caption = tokens[at : at + 6]
    start.tag = end.tag = "figure"
    start.attrSet("class", "picture")
    captioned = len(caption) == 3 and caption[0].type == "paragraph_open" and _is_all(caption[1], "em")
    image.children[0].meta["box"] = f"{_SCROLL} {_name('Figure', number, captioned)}>"
    if captioned:
        caption[0].tag = caption[2].tag = "figcaption"
        caption[0].attrSet("id", f"caption.{number}")
        _unwrap(caption[1])
        tokens[at : at + 6] = [start, image, *caption, end]


def _name(kind, number, captioned):
    """Return the attribute that names a table or figure: by its caption, or by its number."""
    return f'aria-labelledby="caption.{number}"' if captioned else f'aria-label="{kind} {number}"'


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
    token, source, words = tokens[at], tokens[at].attrs["src"], _plain(tokens[at])
    alt = escape(words)
    if env["folder"] is None:
        return f'<img src="{escape(source)}" alt="{alt}" loading="lazy">'
    path, box = env["folder"] / source, token.meta.get("box", "")
    env["figures"] = env.get("figures", 0) + 1
    if path.suffix == ".svg":
        figure = inline_figure(path, words, f"f{env['figures']}.")
    else:
        figure = f'<img src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode("ascii")}" alt="{alt}">'
    return f"{box}{figure}</div>" if box else figure


_RENDER_RULES = {
    "image": _image,
    "softbreak": lambda *_: " ",
    "caption_open": lambda _, tokens, at, *__: tokens[at].content,
    "caption_close": lambda *_: "</figcaption>\n",
    "table_open": lambda _, tokens, at, *__: tokens[at].content,
    "table_close": lambda *_: "</table></div></figure>\n",
}
