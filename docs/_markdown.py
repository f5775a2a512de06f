"""Markdown of the site: links of pages that lie elsewhere in the repository, tables, contents, directives."""

import os
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent

#: Pages of the repository that are pages of the site as well: file and name there.
PROJECT = {
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "SECURITY.md": "security",
    "examples/README.md": "examples",
    "histofeat/networks/pretrained/shipped/histo/MODEL_CARD.md": "histo",
}
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def for_the_site(text, page, origin=None):
    """Rewrite the links of a page that lead out of ``docs/``.

    Parameters
    ----------
    text : str
        Markdown.
    page : Path
        Where the page is, below ``docs/``.
    origin : Path, optional
        The file that it was copied from; links start there.

    Returns
    -------
    text : str
        With links to reports, to pages of the project, and names in place of links to other files.
    """

    def link(match):
        words, target = match.groups()
        path, _, anchor = target.partition("#")
        if "://" in target or not path or path.startswith("mailto:"):
            return match[0]
        file = Path(os.path.normpath((origin or page).parent / path))
        name = file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else ""
        if name == "data/README.md":
            file = DOCS / "generated/cards/index.md"
        elif name in PROJECT:
            file = DOCS / "generated/project" / f"{PROJECT[name]}.md"
        elif re.fullmatch(r"reports/[\w-]+/report\.md", name) and file.is_file():
            up = os.path.relpath(DOCS, page.parent)
            return f'<a href="{up}/reports/{file.parent.name}.html">{words}</a>'
        elif name == "README.md":
            file = DOCS / "index.md"
        elif not file.is_relative_to(DOCS):
            return words if name in words else f"{words} (`{name}`)"
        return f"[{words}]({os.path.relpath(file, page.parent)}{'#' + anchor if anchor else ''})"

    # A link whose words are code is cut by the split: it is put together first.
    whole = re.sub(r"\[`([^`\n]+)`\]\(([^)\s]+)\)", lambda m: f"[\x00{m[1]}\x00]({m[2]})", text)
    parts = re.split(r"(```.*?```|`[^`\n]+`)", whole, flags=re.DOTALL)
    return "".join(p if p.startswith("`") else _LINK.sub(link, p) for p in parts).replace("\x00", "`")


def table(columns, rows):
    """Give a table in Markdown."""
    cells = [[str(cell).replace("|", r"\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [columns, ["---"] * len(columns), *cells]) + "\n"


def toctree(names, depth=1):
    """Give a table of contents of pages."""
    return "```{toctree}\n:maxdepth: " + str(depth) + "\n\n" + "\n".join(names) + "\n```\n"


def directive(name, argument, *options):
    """Give a directive of reStructuredText inside Markdown."""
    lines = [f".. {name}:: {argument}", *(f"   :{option}:" for option in options)]
    return "```{eval-rst}\n" + "\n".join(lines) + "\n```\n"
