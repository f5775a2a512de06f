"""Pages from templates: Markdown and HTML of the same words, nothing that a text could turn into markup."""

import base64
import hashlib
import json
import re
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from page_tree import read_page

from histofeat.reporting import Table, draw_intervals, html_page, render_markdown, write_page

ROWS = [{"name": "a", "value": 0.1, "low": 0.0, "high": 0.2}]
FIGURE = (draw_intervals, {"title": "t", "x_label": "x", "rows": ROWS})
TEMPLATE = """
# {{ title }}

{{ notice("info", "One thing", ["x < y"]) }}
{{ notice("danger", "Two things", ["a", "b"]) }}
{% call notice("warning", "In words") %}
A *text* of its own.
{% endcall %}

| Set | Score |
| --- | ---: |
{% for name, score in scores %}
| {{ name }} | {{ score | number }} |
{% endfor %}

{{ table(best) }}
{% call details("More [words]") %}
{% for name, value in [("first & last", "1. of many"), ("second", none)] %}
- **{{ name }}**: {{ value }}
{% endfor %}

{{ figure("rows", "Rows [1].", alt='The "rows".') }}
{% endcall %}

*Small print.*
"""
HOSTILE = "<script>alert('1')</script>|*x*[a](b)![c](d) `e` </details>"


@pytest.fixture
def template(tmp_path):
    path = tmp_path / "mine.md.j2"
    path.write_text(TEMPLATE, encoding="utf-8")
    return path


def context(name="color"):
    best = Table(f"Caption of {name}.", ("Set", "AUC"), ((name, "0.5"), ("b", "0.6")), best=frozenset({(1, 1)}))
    return {"scores": [(name, 0.51234), ("lbp", None)], "best": best}


def test_markdown_of_every_macro(template):
    lines = render_markdown(template, {"title": "T_1 & co", **context()}).splitlines()
    assert lines[0] == "# T_1 &amp; co"
    assert lines[2:6] == ["> [!NOTE]", "> **One thing**", ">", "> x &lt; y"]
    assert lines[7:12] == ["> [!CAUTION]", "> **Two things**", ">", "> - a", "> - b"]
    assert lines[13:17] == ["> [!WARNING]", "> **In words**", ">", "> A *text* of its own."]
    assert lines[18:22] == ["| Set | Score |", "| --- | ---: |", "| color | 0.512 |", "| lbp | – |"]
    assert lines[23:29] == [
        "Caption of color.", "", "| Set | AUC |", "| --- | ---: |", "| color | 0.5 |", "| b | **0.6** |",
    ]  # fmt: skip
    assert lines[30:36] == [
        r"<details><summary>More \[words\]</summary>", "",
        r"- **first &amp; last**: 1\. of many", "- **second**: –", "",
        '![The "rows".](figures/rows.svg)',
    ]  # fmt: skip
    assert lines[37:] == [r"*Rows \[1\].*", "", "</details>", "", "*Small print.*"]


def test_html_of_every_macro(template, tmp_path):
    options = {"title": "T & co", "metrics": {}, "figures": {"rows": FIGURE}}
    page = write_page(tmp_path / "out", template, context(), **options).read_text(encoding="utf-8")
    assert "<title>T &amp; co</title>" in page
    assert '<h1 id="t--co">T &amp; co</h1>' in page
    assert '<aside class="notice info" role="note"><strong>One thing</strong>\n<p>x &lt; y</p>' in page
    assert '<aside class="notice danger" role="note"><strong>Two things</strong>\n<ul>\n<li>a</li>' in page
    assert "<p>A <em>text</em> of its own.</p>" in page
    assert '<th scope="col" class="n">Score</th>' in page
    assert '<td class="n">0.512</td>' in page
    assert '<figure class="table"><figcaption id="caption.2">Caption of color.</figcaption>\n' in page
    assert page.count('<div class="scroll" role="region" tabindex="0" aria-labelledby="caption.2"><table aria') == 1
    assert '<td class="n best"><strong>0.6</strong></td>' in page
    assert "<summary>More [words]</summary>" in page
    assert "<li><strong>first &amp; last</strong>: 1. of many</li>" in page
    assert '</div><figcaption id="caption.3">Rows [1].</figcaption>\n</figure>' in page
    assert ' role="img" aria-label="The &quot;rows&quot;.">' in page
    assert '<p class="muted">Small print.</p>' in page
    assert page.count("<figure") == page.count("</figure>") == 3
    assert page.count("<details>") == page.count("</details>") == 1


def test_no_text_becomes_markup(template, tmp_path):
    options = {"title": HOSTILE, "metrics": {}, "figures": {"rows": FIGURE}}
    page = write_page(tmp_path / "out", template, context(HOSTILE), **options).read_text(encoding="utf-8")
    shown = "&lt;script&gt;alert('1')&lt;/script&gt;|*x*[a](b)![c](d) `e` &lt;/details&gt;"
    assert page.count(shown) == 4
    assert page.count("<script") == 1
    assert (page.count("<img"), page.count("<svg")) == (0, 1)
    assert page.count("<a ") == 1  # the link that skips to the text
    assert page.count("</details>") == 1


#: Pieces of markup, of templates, of CSV, and characters that files of text cannot hold.
PIECES = st.sampled_from(
    [
        *(
            "<script>",
            "<img src=x onerror=y>",
            "</",
            "-->",
            "<!--",
            "]]>",
            "<![CDATA[",
            "&lt;",
            "&#60;",
            "\\",
            "`",
            "```",
        ),
        *("[a](javascript:b)", "![x](y)", "|", "*", "**", "_", "#", "> ", "- ", "1. ", "\n", "\t", "\r", "{{ 1 }}"),
        *("{% x %}", "<details><summary>", "</details>", '" onload="', "'", "=1+1", "\udce9", "\x00", "\x01", "\ufffe"),
        *("良性", "سرط", "http://a.b", "<http://a.b>", "[!NOTE]", "$", "~~", "é", "\u202e", "\u2028", "a"),
    ]
)


class Tags(HTMLParser):
    """The tags of a page in order, with the names of their attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, tuple(name for name, _ in attrs)))


def tags(folder, text):
    file = Path(folder) / "page.md.j2"
    file.write_text(TEMPLATE, encoding="utf-8")
    figure = (draw_intervals, {"title": text, "x_label": text, "rows": [{**ROWS[0], "name": text}]})
    options = {
        "title": text,
        "metrics": {"said": text},
        "figures": {"rows": figure},
        "files": {"t.csv": pd.DataFrame({"a": [text]})},
    }
    page = write_page(Path(folder) / "out", file, context(text), overwrite=True, **options)
    drawn = ElementTree.parse(page.parent / "figures/rows.svg")
    assert not {element.tag.partition("}")[2] for element in drawn.iter()} & {"script", "a", "foreignObject", "image"}
    assert not [name for element in drawn.iter() for name in element.attrib if name.startswith("on")]
    json.loads((page.parent / "metrics.json").read_text(encoding="utf-8"))
    assert not (page.parent / "t.csv").read_text(encoding="utf-8").splitlines()[1].startswith(("=", "@", "- "))
    return Tags(page.read_text(encoding="utf-8")).found


PLAIN = {}


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.lists(PIECES, min_size=1, max_size=5).map("".join))
def test_any_text_stays_text_in_page_figure_table_and_numbers(text):
    with tempfile.TemporaryDirectory() as folder:
        PLAIN.setdefault("plain", tags(folder, "plain"))
        assert tags(folder, text) == PLAIN["plain"]


def test_html_in_a_template_is_text(tmp_path):
    page = html_page("<b>no</b>\n\n<div>\nno\n</div>\n\nhttp://a.b <i>", "t", tmp_path)
    assert "<p>&lt;b&gt;no&lt;/b&gt;</p>" in page
    assert "&lt;div&gt;" in page
    assert page.count("<a ") == 1  # the link that skips to the text


def fingerprint(page, tag):
    """The hash of the only script or style of a page, as a policy names it."""
    (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def test_the_page_says_what_it_may_load(tmp_path):
    page = html_page("x", "t", tmp_path)
    marks = [fingerprint(page, "script"), fingerprint(page, "style")]
    policy = "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:".format(*marks)
    assert f"content=\"{policy}; base-uri 'none'; form-action 'none'\">" in page
    assert not [element for element in read_page(page).iter() if "style" in element.attrib]
    beside = html_page("![a](images/1.png)", "t", tmp_path, embed=False)
    assert f"content=\"{policy} 'self' file:; base-uri" in beside
    assert '<img src="images/1.png" alt="a" loading="lazy">' in beside


def test_files_figures_and_numbers_lie_beside_the_page(template, tmp_path):
    files = {
        "rows.csv": pd.DataFrame(ROWS),
        "note.txt": "words\n",
        "more.json": {"where": f"{tmp_path}/x.png", "nan": float("nan")},
        "own.bin": lambda path: path.write_bytes(b"1"),
    }
    page = write_page(
        tmp_path / "out", template, context(), title="T", metrics={"n": 1}, figures={"rows": FIGURE}, files=files
    )
    assert page == tmp_path / "out" / "report.html"
    written = json.loads((page.parent / "metrics.json").read_text(encoding="utf-8"))
    assert written["n"] == 1
    expected = {"metrics.json", "report.md", "report.html", "figures/rows.svg", "figures/rows.json", *files}
    assert set(written["files"]) == expected
    assert (page.parent / "rows.csv").read_text(encoding="utf-8") == "name,value,low,high\na,0.1,0,0.2\n"
    assert json.loads((page.parent / "more.json").read_text(encoding="utf-8")) == {"where": "x.png", "nan": None}
    with pytest.raises(FileExistsError, match="holds a finished report"):
        write_page(tmp_path / "out", template, context(), title="T", metrics={}, figures={"rows": FIGURE})


@pytest.mark.parametrize("name", ["report.md", "metrics.json", "../x.txt", "figures"])
def test_a_file_with_the_name_of_another_is_refused(template, tmp_path, name):
    options = {"title": "T", "metrics": {}, "figures": {"rows": FIGURE}}
    with pytest.raises(ValueError, match=r"files: expected files with names of their own, got '.*'\. Choose a name"):
        write_page(tmp_path / "out", template, context(), files={name: ""}, **options)
    assert not (tmp_path / "out").exists()


def test_a_name_that_the_template_misses_leaves_nothing_behind(template, tmp_path):
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError, match="'scores' is undefined"):
        write_page(tmp_path / "out", template, {"best": None}, title="T", metrics={})
    assert [path.name for path in tmp_path.iterdir()] == ["mine.md.j2"]


def test_paths_of_the_machine_are_cut_in_inserted_values(tmp_path):
    template = tmp_path / "path.md.j2"
    template.write_text("{{ where }} and {{ found.path }}\n", encoding="utf-8")
    found = SimpleNamespace(path=tmp_path / "b.png")
    page = write_page(tmp_path / "out", template, {"where": "/home/me/my_a.png", "found": found}, title="T", metrics={})
    assert (page.parent / "report.md").read_text(encoding="utf-8") == "my_a.png and b.png\n"


def test_a_study_says_how_it_was_made(tmp_path):
    template = tmp_path / "study.of.mine.md.j2"
    template.write_text('{% extends "study.md.j2" %}\n{% block body %}\n## Mine\n{% endblock %}\n', encoding="utf-8")
    words = render_markdown(
        template, {"title": "T", "quick": True, "command": "python run.py", "processor": "one, 2 cores"}
    )
    assert words.index("# T") < words.index("**Quick run**") < words.index("## Mine")
    assert words.endswith("## How this was made\n\n- **command**: python run.py\n- **processor**: one, 2 cores\n")


def test_a_page_needs_neither_a_home_nor_a_working_folder(tmp_path, template, monkeypatch):
    def without_home():
        raise RuntimeError("Could not determine home directory.")

    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(Path, "home", without_home)
    template.write_text("# {{ title }}\n\nIn {{ place }}.\n", encoding="utf-8")
    page = write_page(tmp_path / "out", template, {"place": "/home/me/x"}, title="T", metrics={})
    assert "In x." in page.with_name("report.md").read_text(encoding="utf-8")
