"""Blocks -> one HTML file: styles and figures inside, no script, every text escaped; galleries beside it."""

import base64
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from histofeat.reporting.page.blocks import Details, Facts, Gallery, Heading, Link, Notice, Picture, Table, Text
from histofeat.reporting.page.style import STYLE

__all__ = ["to_html"]

_MIME = {".svg": "image/svg+xml", ".png": "image/png"}
_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src $images">
<title>$title</title>
<style>
$style
</style>
</head>
<body>
<main>
$body
</main>
</body>
</html>
""")


def to_html(blocks, title, folder, *, beside=False):
    """One page, with everything in it but the images of galleries.

    Parameters
    ----------
    blocks : sequence
        As `report_blocks` gives them.
    title : str
        For the window; not escaped yet.
    folder : path-like
        Where the files of the pictures are.
    beside : bool, default=False
        Whether the page may show files that lie beside it, as those of a gallery do.

    Returns
    -------
    str
    """
    body = "\n".join(_render(block, Path(folder)) for block in blocks)
    images = "data: 'self' file:" if beside else "data:"
    return _PAGE.substitute(title=escape(title), style=STYLE.strip(), body=body, images=images)


def _render(block, folder):
    return _RENDER[type(block)](block, folder)


def _heading(block, folder):
    return f"<h{block.level}>{escape(block.text)}</h{block.level}>"


def _text(block, folder):
    attribute = ' class="muted"' if block.muted else ""
    return f"<p{attribute}>{escape(block.text)}</p>"


def _notice(block, folder):
    items = [escape(item) for item in block.items]
    inside = (
        f"<p>{items[0]}</p>" if len(items) == 1 else "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"
    )
    return f'<aside class="notice {block.level}" role="note"><strong>{escape(block.title)}</strong>{inside}</aside>'


def _table(block, folder):
    head = "".join(_cell("th", column, name, block, ' scope="col"') for column, name in enumerate(block.columns))
    rows = []
    for number, cells in enumerate(block.rows):
        inside = (
            _cell("td", column, text, block, best=(number, column) in block.best) for column, text in enumerate(cells)
        )
        rows.append(f"<tr>{''.join(inside)}</tr>")
    body = "\n".join(rows)
    # The caption stands outside the box that scrolls, or it would scroll away on a phone.
    return (
        f'<figure class="table"><figcaption>{escape(block.caption)}</figcaption>\n<div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div></figure>"
    )


def _cell(tag, column, text, block, attribute="", best=False):
    classes = ["t" if column < block.n_text else "n", *(["best"] if best else [])]
    # The mark is read out and printed as well: weight, not colour.
    inside = f"<strong>{escape(text)}</strong>" if best else escape(text)
    return f'<{tag} class="{" ".join(classes)}"{attribute}>{inside}</{tag}>'


def _facts(block, folder):
    if all(not name for name, _ in block.pairs):
        return "<ul>" + "".join(f"<li>{escape(value)}</li>" for _, value in block.pairs) + "</ul>"
    pairs = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in block.pairs)
    return f"<dl>\n{pairs}\n</dl>"


def _picture(block, folder):
    path = folder / block.file
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    source = f"data:{_MIME[path.suffix]};base64,{data}"
    return (
        f'<figure class="picture"><img src="{source}" alt="{escape(block.alt)}">'
        f"<figcaption>{escape(block.caption)}</figcaption></figure>"
    )


def _link(block, folder):
    return f'<p><a href="{escape(quote(block.file))}">{escape(block.text)}</a> ({escape(block.file)})</p>'


def _gallery(block, folder):
    caption = f"<figcaption>{escape(block.caption)}</figcaption>"
    tiles = "\n".join(map(_tile, block.tiles))
    return f'<figure class="gallery">{caption}\n<div class="tiles">\n{tiles}\n</div></figure>'


def _tile(tile):
    lines = "<br>".join(map(escape, tile.lines))
    if tile.file is None:
        shown = f'<div class="lost">{escape(tile.instead or "")}</div>'
    else:
        small = ' class="small"' if tile.enlarged else ""
        # The words stand below the image: read out once, not twice.
        shown = f'<img src="{escape(quote(tile.file))}" alt="{escape(tile.lines[0])}" loading="lazy"{small}>'
    return f"<figure>{shown}<figcaption>{lines}</figcaption></figure>"


def _details(block, folder):
    inside = "\n".join(_render(inner, folder) for inner in block.blocks)
    return f"<details><summary>{escape(block.summary)}</summary>\n{inside}\n</details>"


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
