"""The parts that a page is made of, free of any markup, and the Markdown of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from histofeat.reporting.pages import html_page, render_markdown

__all__ = [
    "Addition",
    "Details",
    "Facts",
    "Gallery",
    "Heading",
    "Link",
    "Markdown",
    "Notice",
    "Picture",
    "Table",
    "Text",
    "Tile",
    "to_html",
    "to_markdown",
]


@dataclass(frozen=True)
class Heading:
    """A section title of level 1 (the report), 2, or 3 (inside a section)."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph; `muted` for what is read second."""

    text: str
    muted: bool = False


@dataclass(frozen=True)
class Markdown:
    """What a template gave, see `render_markdown`; it stays as it is."""

    text: str


@dataclass(frozen=True)
class Notice:
    """What a reader must not miss, before any number.

    Parameters
    ----------
    level : {"info", "warning", "danger"}
    title : str
    items : tuple of str
        One paragraph, or a list where there are several.
    """

    level: str
    title: str
    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table of words and already formatted numbers.

    Parameters
    ----------
    caption : str
    columns : tuple of str
    rows : tuple of tuple of str
    n_text : int
        The first columns, aligned to the left; all others hold numbers.
    best : frozenset of (int, int)
        Cells (row, column) to mark as the best of their column.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    n_text: int = 1
    best: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class Facts:
    """Pairs of a name and its value; or single lines, where the name is empty."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Picture:
    """A figure among the files of the report, the words that replace it for those who do not see it, its caption."""

    file: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Link:
    """The way to another file of the report, by its path in the report's folder."""

    text: str
    file: str


@dataclass(frozen=True)
class Tile:
    """One image of a gallery and what is said of it.

    Parameters
    ----------
    file : str or None
        Beside the page; None where there is no image to show.
    lines : tuple of str
        Below the image, and read out in its place.
    instead : str, optional
        What stands where the image would be.
    enlarged : bool
        Whether the image is small and is shown with its pixels as squares.
    """

    file: str | None
    lines: tuple[str, ...]
    instead: str | None = None
    enlarged: bool = False


@dataclass(frozen=True)
class Gallery:
    """Images side by side under one caption; without any, the caption alone."""

    caption: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Details:
    """Blocks folded away under a line that says what they are."""

    summary: str
    blocks: tuple


@dataclass(frozen=True)
class Addition:
    """What a protocol of its own adds to the report of an evaluation; it goes in as it stands, paths included.

    Parameters
    ----------
    notices : tuple of Notice
        Under the title, before all others.
    blocks : tuple of blocks
        After the notices, before the results.
    files : mapping of str to object
        Files beside ``metrics.json`` by name: text is written as it is, anything else as JSON.
    closing : tuple of blocks
        After the results, before how they were made.
    """

    notices: tuple[Notice, ...] = ()
    blocks: tuple = ()
    files: Mapping[str, Any] = field(default_factory=dict)
    closing: tuple = ()


def to_markdown(blocks):
    """Return the Markdown of blocks."""
    return render_markdown("blocks.md.j2", {"blocks": blocks})


def to_html(blocks, title, folder, *, beside=False):
    """Return blocks as one HTML page; `beside` lets it show files that lie beside it."""
    return html_page(to_markdown(blocks), title, folder, embed=not beside)
