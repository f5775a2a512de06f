"""The structure of a page, read by a parser: headings with ids, contents, links that lead somewhere."""

import re
from importlib import resources
from itertools import product
from xml.etree import ElementTree

import pytest
from page_tree import problems, read_page, words_of

from histofeat.reporting import draw_intervals, draw_lines, html_page
from histofeat.reporting._canvas import inline_figure, save_figure
from histofeat.reporting._text import finding

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
    assert len(list(root.iter("script"))) == 1


TABLES = """# T

Caption *one*.

| Model | Score |
| --- | ---: |
| lbp | 0.8 [0.7, 0.9] |
| **color** | **0.5 – 0.6** |

## Next

| a |
| --- |
| b |
"""


def test_tables_have_a_name_a_box_that_the_keyboard_reaches_and_heads_of_columns_and_rows():
    root = page(TABLES)
    assert problems(root) == []
    boxes = root.findall(".//div[@class='scroll']")
    assert [(box.get("role"), box.get("tabindex")) for box in boxes] == [("region", "0")] * 2
    captions = {caption.get("id"): words_of(caption) for caption in root.iter("figcaption")}
    for element in (boxes[0], boxes[0].find("table")):
        assert captions[element.get("aria-labelledby")] == "Caption one."
    assert boxes[1].get("aria-label") == boxes[1].find("table").get("aria-label") == "Table 2"
    assert [(head.get("scope"), words_of(head)) for head in boxes[0].iter("th")] == [
        *(("col", "Model"), ("col", "Score"), ("row", "lbp"), ("row", "color"))
    ]
    cells = ["".join(cell.itertext()) for cell in boxes[0].iter("td")]
    assert cells == ["0.8 [0.7,\N{NO-BREAK SPACE}0.9]", "0.5\N{NO-BREAK SPACE}–\N{NO-BREAK SPACE}0.6"]


LINES = {
    "title": "Robustness",
    "x_label": "severity",
    "y_label": "ROC-AUC",
    "panels": [
        {
            "title": "blur",
            "lines": [{"name": "lbp", "x": [0, 1], "y": [0.75, 0.5], "low": [0.7, 0.4], "high": [0.8, 0.6]}],
        },
        {"title": "JPEG", "lines": [{"name": "color", "x": [0, 1], "y": [0.9, 0.8]}]},
    ],
}


def test_figures_on_a_page_have_its_colours_and_ids_of_their_own(tmp_path):
    (tmp_path / "figures").mkdir()
    save_figure(draw_lines, LINES, tmp_path / "figures/a.svg")
    root = page("# T\n\n![One.](figures/a.svg)\n\n*Caption.*\n\n![Two.](figures/a.svg)\n", tmp_path)
    assert problems(root) == []
    first, second = root.iter("svg")
    assert (first.get("role"), first.get("aria-label"), second.get("aria-label")) == ("img", "One.", "Two.")
    colors = {element.get(name) for element in first.iter() for name in ("fill", "stroke")} - {None, "none"}
    assert colors == {f"var(--{name})" for name in ("paper", "ink", "line", "axis", "c1", "c2")}
    ids = [{element.get("id") for element in one.iter()} - {None} for one in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for own, one in zip(ids, (first, second), strict=True):
        text = " ".join(value for element in one.iter() for value in element.attrib.values())
        assert set(re.findall(r"#([\w.-]+)", text)) == own
    boxes = root.findall(".//div[@role='region']")
    assert [box.get("aria-labelledby") or box.get("aria-label") for box in boxes] == ["caption.1", "Figure 2"]
    alone = ElementTree.parse(tmp_path / "figures/a.svg")
    assert "var(" not in (tmp_path / "figures/a.svg").read_text(encoding="utf-8")
    assert {element.tag.partition("}")[2] for element in alone.iter()} >= {"svg", "path", "text", "clipPath", "use"}


def test_nothing_but_shapes_and_words_of_a_figure_gets_into_a_page(tmp_path):
    (tmp_path / "x.svg").write_text(
        """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" onload="a()"
        viewBox="0 0 1 1">
        <script>a()</script><style>*{fill:red}</style><a href="javascript:a()"><path d="M 0 0"/></a><foreignObject/>
        <image href="http://a.b/c.png"/><use xlink:href="http://a.b/c.svg#d" x="1.23456"/><metadata>m</metadata>
        <text style="fill: #222222; font-size: 9px" x="1">&lt;script&gt;a()&lt;/script&gt; "q"</text></svg>""",
        encoding="utf-8",
    )
    shown = inline_figure(tmp_path / "x.svg", '"><script>', "f1.")
    assert shown == (
        '<svg viewBox="0 0 1 1" role="img" aria-label="&quot;&gt;&lt;script&gt;"><use x="1.23"/>'
        '<text x="1" fill="var(--ink)" font-size="9px">&lt;script&gt;a()&lt;/script&gt; "q"</text></svg>'
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (LINES, "color (JPEG) has the highest ROC-AUC, 0.900; lbp (blur) the lowest, 0.500."),
        ({"x_label": "drop", "rows": [{"name": "a", "value": 0.1}]}, "a has the highest drop, 0.100."),
        ({"x_label": "drop", "rows": [{"name": "a", "value": None}]}, ""),
        ({"figure": "pr", "panels": [{"curves": [{"model": "a/svm", "average_precision": 0.5}]}]},
         "a/svm has the highest average precision, 0.500."),
        ({"y_label": "AUC", "points": [{"name": "a", "y": 0.5}, {"name": "b", "y": 0.6}]},
         "b has the highest AUC, 0.600; a the lowest, 0.500."),
        ({"labels": ["n", "t"], "matrices": [{"name": "a", "rates": [[0.9, 0.1], [0.3, 0.7]]}]},
         "a, n, has the highest share of right labels, 0.900; a, t, the lowest, 0.700."),
        ({"figure": "training", "folds": [{"fold": 1, "val_roc_auc": [0.5]}]}, ""),
    ],
)  # fmt: skip
def test_the_words_for_a_figure_give_its_finding(data, words):
    assert finding(data) == words


def test_a_figure_of_a_page_is_described_by_its_caption_and_its_finding(tmp_path):
    from histofeat.reporting import write_page

    template = tmp_path / "x.md.j2"
    template.write_text('# {{ title }}\n\n{{ figure("rows", "Drops.") }}\n', encoding="utf-8")
    rows = [{"name": "<a>", "value": 0.1, "low": 0.0, "high": 0.2}]
    figure = (draw_intervals, {"title": "t", "x_label": "drop", "rows": rows})
    written = write_page(tmp_path / "o", template, {}, title="T", metrics={}, figures={"rows": figure})
    svg = read_page(written.read_text(encoding="utf-8")).find(".//svg")
    assert svg.get("aria-label") == "Drops. <a> has the highest drop, 0.100."
    text = (tmp_path / "o/report.md").read_text(encoding="utf-8")
    assert text == "# T\n\n![Drops. &lt;a&gt; has the highest drop, 0.100.](figures/rows.svg)\n\n*Drops.*\n"


def luminance(color):
    parts = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first, second):
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_words_and_lines_stand_out_from_the_page_in_light_and_dark(scheme):
    css = (resources.files("histofeat.reporting") / "templates/page.css").read_text(encoding="utf-8")
    blocks = [dict(re.findall(r"--([\w-]+): (#\w{6});", block)) for block in css.split(":root")[1:3]]
    colors = blocks[scheme]
    assert set(blocks[0]) == set(blocks[1])
    for words, paper in product(("ink", "soft", "info"), ("paper", "shade")):
        assert contrast(colors[words], colors[paper]) >= 4.5, words
    for kind in ("info", "warning", "danger"):
        assert contrast(colors[kind], colors[f"{kind}-bg"]) >= 4.5, kind
        assert contrast(colors["ink"], colors[f"{kind}-bg"]) >= 4.5, kind
    assert contrast(colors["ink"], colors["mark"]) >= 4.5
    for line in ("axis", *(f"c{number}" for number in range(1, 9))):
        assert contrast(colors[line], colors["paper"]) >= 3, line


def test_words_for_pictures_are_no_markup_and_pictures_of_a_list_are_tiles(tmp_path):
    words = """an "odd" name' onerror='alert(1) &lt;b&gt;"""
    (tmp_path / "a.png").write_bytes(b"picture")
    for embed, source in ((False, "a.png#small"), (True, "data:image/png;base64,cGljdHVyZQ==")):
        root = read_page(
            html_page(f"# T\n\n- ![{words}]({'a.png' if embed else source})\n", "t", tmp_path, embed=embed)
        )
        (image,) = root.iter("img")
        assert {"src", "alt"} <= {*image.attrib} <= {"src", "alt", "loading"}
        assert (image.get("src"), image.get("alt")) == (source, words.replace("&lt;", "<").replace("&gt;", ">"))
        assert root.find(".//main/ul").get("class") == "tiles"


def test_cells_are_marked_as_best_where_all_of_their_words_are_bold_and_heads_break_anywhere():
    root = page("Scores.\n\n| Model | AP of all |\n| --- | ---: |\n| **a** b **c** | **0.9 and 1** |\n")
    (_, column), (row, cell) = ([*line] for line in root.iter("tr"))
    assert (row.get("class"), cell.get("class")) == ("t", "n best")
    assert (words_of(column), cell.find("strong").text) == ("AP of all", "0.9\N{NO-BREAK SPACE}and\N{NO-BREAK SPACE}1")


def test_a_heading_without_letters_has_an_id():
    assert page("# T\n\n## ?\n").find(".//h2").get("id") == "section"
