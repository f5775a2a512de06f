"""The structure of a page, read by a parser: headings with ids, contents, links that lead somewhere."""

import pytest
from page_tree import problems, read_page, words_of

from histofeat.reporting import html_page

MARKDOWN = """# Title

Lead.

## What to know

Answer.

<!-- contents -->

## Größe & *co*

Text.

### Detail

## Detail

## Detail

## Main
"""


def page(markdown, folder="."):
    return read_page(html_page(markdown, "t", folder))


def contents(root):
    nav = root.find(".//nav")
    return None if nav is None else [(a.get("href"), words_of(a)) for a in nav.iter("a")]


def test_headings_have_ids_of_their_own_and_the_contents_lead_to_them():
    root = page(MARKDOWN)
    assert problems(root) == []
    assert [e.get("id") for e in root.iter() if e.tag in ("h1", "h2", "h3")] == [
        *("title", "what-to-know", "größe--co", "detail", "detail-1", "detail-2", "main-1")
    ]
    assert contents(root) == [
        ("#what-to-know", "What to know"), ("#größe--co", "Größe & co"), ("#detail-1", "Detail"),
        ("#detail-2", "Detail"), ("#main-1", "Main"),
    ]  # fmt: skip


def test_the_contents_stand_where_they_are_marked_or_before_the_first_section():
    marked = page(MARKDOWN).find(".//main")
    assert [e.tag for e in marked][:5] == ["h1", "p", "h2", "p", "nav"]
    unmarked = page(MARKDOWN.replace("<!-- contents -->", "")).find(".//main")
    assert [e.tag for e in unmarked][:4] == ["h1", "p", "nav", "h2"]


def test_a_short_page_has_no_contents_and_the_skip_link_leads_to_its_text():
    root = page("# Title\n\n## One\n\n## Two\n")
    assert problems(root) == []
    assert contents(root) is None
    assert root.find(".//body")[0].get("href") == "#main"
    assert page(MARKDOWN).find(".//body")[0].get("href") == "#contents"


@pytest.mark.parametrize("words", ["", "!!!", '"><script>x</script>', "\u202e良性", "main", "contents", "a" * 300])
def test_any_heading_gets_an_id_that_is_no_markup(words):
    from histofeat.reporting._text import escape_markdown

    heading = f"## {escape_markdown(words)}\n\n"
    root = page(f"# {escape_markdown(words)}\n\n" + heading * 3)
    assert problems(root) == []
    assert [words_of(e) for e in root.iter("h2")] == [" ".join(words.split())] * 3
    assert not list(root.iter("script"))
