"""Blocks -> Markdown that reads well as plain text and renders on a forge."""

import re

from histofeat.reporting.page.blocks import Details, Facts, Gallery, Heading, Link, Notice, Picture, Table, Text

__all__ = ["escape_markdown", "to_markdown"]

_LEVEL_WORDS = {"info": "Note", "warning": "Caution", "danger": "WARNING"}


def escape_markdown(text):
    """`text` as itself: no markup, no HTML, no line break.

    Examples
    --------
    >>> escape_markdown("<b>*a*|b</b>")
    '&lt;b&gt;\\\\*a\\\\*\\\\|b&lt;/b&gt;'
    """
    text = " ".join(str(text).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~#])", r"\\\1", text)
    # An underscore inside a word is no markup on a forge, and most are: "balanced_accuracy".
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def to_markdown(blocks):
    """One Markdown document, ending with a newline."""
    return "\n\n".join(_RENDER[type(block)](block) for block in blocks) + "\n"


def _heading(block):
    return f"{'#' * block.level} {escape_markdown(block.text)}"


def _text(block):
    return escape_markdown(block.text)


def _notice(block):
    items = [escape_markdown(item) for item in block.items]
    lines = [f"**{_LEVEL_WORDS[block.level]}: {escape_markdown(block.title)}**", ""]
    lines += items if len(items) == 1 else [f"- {item}" for item in items]
    return "\n".join(f"> {line}".rstrip() for line in lines)


def _table(block):
    lines = [_row(map(escape_markdown, block.columns))]
    lines.append(_row("---" if column < block.n_text else "---:" for column in range(len(block.columns))))
    for number, cells in enumerate(block.rows):
        marked = (f"**{escape_markdown(c)}**" if (number, i) in block.best else escape_markdown(c)
                  for i, c in enumerate(cells))  # fmt: skip
        lines.append(_row(marked))
    return f"{escape_markdown(block.caption)}\n\n" + "\n".join(lines)


def _row(cells):
    return "| " + " | ".join(cells) + " |"


def _facts(block):
    return "\n".join(
        f"- {escape_markdown(name)}: {escape_markdown(value)}" if name else f"- {escape_markdown(value)}"
        for name, value in block.pairs
    )


def _picture(block):
    return f"![{escape_markdown(block.alt)}]({block.file})\n\n*{escape_markdown(block.caption)}*"


def _link(block):
    return f"[{escape_markdown(block.text)}]({block.file})"


def _gallery(block):
    return "\n\n".join([escape_markdown(block.caption), "\n".join(map(_tile, block.tiles))]).rstrip()


def _tile(tile):
    words = escape_markdown(", ".join(tile.lines))
    shown = f"*{escape_markdown(tile.instead or '')}*" if tile.file is None else f"![{words}]({tile.file})"
    return f"- {shown} {words}"


def _details(block):
    inside = to_markdown(block.blocks)
    return f"<details><summary>{escape_markdown(block.summary)}</summary>\n\n{inside}\n</details>"


_RENDER = {
    Heading: _heading,
    Text: _text,
    Notice: _notice,
    Table: _table,
    Facts: _facts,
    Picture: _picture,
    Details: _details,
    Link: _link,
    Gallery: _gallery,
}
