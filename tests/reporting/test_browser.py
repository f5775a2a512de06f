"""Pages in a browser: what they load, how they sort, narrow screens, keyboards, the dark, paper, and without a script.

Each check is a function that lists what is wrong; `test_each_check_sees_what_is_broken` breaks the page for each.
"""

import re
from itertools import cycle
from shutil import which

import numpy as np
import pytest

from histofeat import IDCPipeline, PatchDataset, evaluate
from histofeat.cli import main as cli_main
from histofeat.model_selection import PatientKFold
from histofeat.reporting import html_page, write_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

CHROMIUM = next(filter(None, map(which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the path")
NARROW, WIDE = 390, 1280
HEADS_TRIED = ("logistic", "qda", "knn")


@pytest.fixture(scope="module")
def folder(cohort, tmp_path_factory):
    """A report of two models with a gallery and a map."""
    pipelines = [("color", IDCPipeline("color", head=head)) for head in ("logistic", "qda")]
    found = evaluate(cohort, pipelines, PatientKFold(3), inner_cv=PatientKFold(2), n_resamples=20)
    return write_report(found, tmp_path_factory.mktemp("browser") / "report", gallery=2, maps=1).parent


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as session:
        browser = session.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(browser):
    """Give the function that opens a file; the page keeps what it asked for and complained of in ``page.seen``."""
    contexts = []

    def open_file(path, width=WIDE, dark=False, script=True):
        scheme = "dark" if dark else "light"
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.seen = []
        page.on("console", lambda message: page.seen.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: page.seen.append(f"error: {error}"))
        page.on("request", lambda request: page.seen.append(f"request: {request.url}"))
        page.goto(path.as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def wide(opened, folder):
    return opened(folder / "report.html")


# --- what can be wrong -----------------------------------------------------------------------------------------------


def strangers(page):
    """What the page said on the console, and what it asked for besides itself and files in its folder."""
    home = page.url.rpartition("/")[0]
    return [words for words in page.seen if not words.startswith((f"request: {home}/", "request: data:"))]


def dead_links(page):
    """Links within the page that lead nowhere, or do not move there."""
    return page.evaluate(
        """() => [...document.querySelectorAll('a[href^="#"]')].filter((link) => {
            const target = document.getElementById(decodeURIComponent(link.hash.slice(1)));
            if (!target) return true;
            link.closest('nav') && scrollTo(0, 0);
            link.click();
            const top = target.getBoundingClientRect().top, end = innerHeight + scrollY;
            return top < -2 || (top > 60 && end < document.documentElement.scrollHeight - 2);
        }).map((link) => link.outerHTML)"""
    )


def out_of_order(page):
    """Columns that the buttons of their heads do not sort: up, down, and as they were."""
    orders = page.evaluate(
        """() => [...document.querySelectorAll('table:has(thead button)')].flatMap((table) => {
            const rows = () => [...table.tBodies[0].rows].map((row) => row.textContent), before = rows();
            return [...table.querySelectorAll('thead th')].flatMap((head, at) => [1, 2, 3].map(() => {
                head.querySelector('button').click();
                const cells = [...table.tBodies[0].rows].map((row) => row.cells[at].textContent.trim());
                return [head.textContent, head.ariaSort, cells, before, rows()];
            }));
        })"""
    )
    wrong = []
    for (head, said, cells, before, after), kind in zip(orders, cycle(("ascending", "descending", None)), strict=False):
        there = before == after if kind is None else sorted(before) == sorted(after) and in_order(cells, kind)
        if said != kind or not there:
            wrong.append(f"{head}: {kind}, said to be {said}: {cells[:9]}")
    return wrong


def in_order(cells, kind):
    """Whether the numbers of a column are in order, what is missing last; columns of words are not judged."""
    there = [cell for cell in cells if cell not in ("", "–")]
    found = [re.match(r"[+\-−]?[\d,]*\.?\d+", cell) for cell in there]
    if cells[: len(there)] != there:
        return False
    if None in found:
        return True
    values = [float(each[0].replace(",", "").replace("−", "-")) for each in found]
    return values == sorted(values, reverse=kind == "descending")


def unfiltered(page):
    """Tables whose filter leaves other rows than those with a word, or does not give all back."""
    return page.evaluate(
        """() => [...document.querySelectorAll('figure.table:has(input)')].flatMap((figure) => {
            const rows = [...figure.querySelectorAll('tbody tr')], input = figure.querySelector('input');
            const type = (words) => { input.value = words; input.dispatchEvent(new Event('input')); };
            const shown = () => rows.filter((row) => getComputedStyle(row).display !== 'none');
            const word = rows.at(-1).textContent.trim().split(/\\s/)[0].toUpperCase(), wrong = [];
            const right = rows.filter((row) => row.textContent.toUpperCase().includes(word));
            type(word);
            if (`${shown().map((row) => row.textContent)}` !== `${right.map((row) => row.textContent)}`)
                wrong.push(`${word}: ${shown().length} rows of ${rows.length}, ${right.length} hold it`);
            const said = figure.querySelector('output').textContent;
            if (said !== `${right.length} of ${rows.length} rows`) wrong.push(said);
            type('');
            return shown().length === rows.length ? wrong : [...wrong, `${word}: rows stay hidden`];
        })"""
    )


def off_the_page(page):
    """How far the page scrolls to the side."""
    beyond = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return [f"{beyond} px"] if beyond > 0 else []


def cut_off(page):
    """Tables and pictures that are wider than their boxes, or reach beyond the window."""
    return page.evaluate(
        """() => [...document.querySelectorAll('.scroll, .scroll > *, figure, .tiles')].filter((box) =>
            box.checkVisibility() && (box.scrollWidth > box.clientWidth + 1 && box.matches('.scroll')
                || box.getBoundingClientRect().right > innerWidth + 1)).map((box) => box.textContent.slice(0, 60))"""
    )


def first_column_lost(page):
    """Tables whose first column leaves their box when they are moved to the side."""
    return page.evaluate(
        """() => [...document.querySelectorAll('.scroll')].filter((box) => {
            const cell = box.querySelector('tbody tr > :first-child');
            if (!cell || !box.checkVisibility() || box.scrollWidth <= box.clientWidth + 1) return false;
            box.scrollLeft = box.scrollWidth;
            const lost = cell.getBoundingClientRect().left - box.getBoundingClientRect().left;
            const share = cell.getBoundingClientRect().width / box.clientWidth;
            box.scrollLeft = 0;
            return Math.abs(lost) > 2 || share > 0.6;
        }).map((box) => box.textContent.slice(0, 60))"""
    )


def unreached(page):
    """Boxes that scroll and buttons that the Tab key does not come to."""
    page.evaluate(
        """() => {
            window.reached = new Set();
            addEventListener('focusin', (event) => {
                for (let at = event.target; at; at = at.parentElement) reached.add(at);
            });
            for (const each of document.querySelectorAll('details')) each.open = true;
            document.querySelector('a').focus();
        }"""
    )
    for _ in range(900):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
    return page.evaluate(
        """() => [...document.querySelectorAll('.scroll, button, input, summary, a')].filter((each) =>
            (!each.matches('.scroll') || each.scrollWidth > each.clientWidth + 1) && !reached.has(each)
        ).map((each) => each.outerHTML.slice(0, 100))"""
    )


def faint_words(page):
    """Words of figures that stand out too little against the page: less than 4.5 to 1."""
    return page.evaluate(
        """() => {
            const light = (colour) => {
                const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
                const [r, g, b] = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const paper = light(getComputedStyle(document.body).backgroundColor), faint = new Set();
            for (const word of document.querySelectorAll('svg text')) {
                const ink = light(getComputedStyle(word).fill);
                const [low, high] = [ink, paper].sort((a, b) => a - b);
                if ((high + 0.05) / (low + 0.05) < 4.5) faint.add(word.outerHTML.slice(0, 100));
            }
            return [...faint];
        }"""
    )


def barriers(page):
    """What axe finds serious or critical."""
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:120]}" for each in found if each["impact"] in ("serious", "critical")
    ]


def folded_on_paper(page):
    """Details that are closed while the page is printed, or stay open afterwards."""
    page.evaluate(
        """() => {
            const folded = () => [...document.querySelectorAll('details:not([open])')].map((each) => each.innerText);
            window.before = folded();
            addEventListener('beforeprint', () => { window.printed = folded(); });
        }"""
    )
    paper = page.pdf(format="A4")
    n_pages = len(re.findall(rb"/Type\s*/Page\b", paper))
    wrong = page.evaluate("printed") + ([] if n_pages > 1 else [f"{n_pages} pages"])
    return wrong + (["not folded again"] if page.evaluate("before.length !== 0") and not folded(page) else [])


def folded(page):
    return page.locator("details:not([open])").count()


# --- the report ------------------------------------------------------------------------------------------------------


def test_the_page_loads_nothing_and_says_nothing(wide):
    assert strangers(wide) == []


def test_links_within_the_page_lead_there(wide):
    assert wide.locator("nav.contents a").count() > 5
    assert dead_links(wide) == []


def test_heads_of_tables_sort_and_filters_filter(wide):
    assert wide.locator("thead button").count() > 5
    assert out_of_order(wide) == []
    assert unfiltered(wide) == []


def test_numbers_of_every_form_sort_by_value_and_what_is_missing_comes_last(opened, tmp_path):
    cells = ["1,200", "–", "0.8 – 0.9", "+0.021", "-0.1", "−0.5", "12.3 %", "NaN", "0.914 [0.901, 0.926]", "1e-05"]
    rows = "".join(f"| m{at} | {cell} |\n" for at, cell in enumerate([*cells, "< 0.001", "yes", ""]))
    (tmp_path / "x.html").write_text(html_page(f"# T\n\n| M | V |\n| --- | ---: |\n{rows}", "t", tmp_path), "utf-8")
    page = opened(tmp_path / "x.html")
    order = ["m5", "m4", "m9", "m10", "m3", "m2", "m8", "m6", "m0", "m11", "m1", "m7", "m12"]
    for expected in (order, [*order[8::-1], *order[9:]], [f"m{at}" for at in range(13)]):
        page.locator("thead button").nth(1).click()
        assert page.locator("tbody th").all_inner_texts() == expected


def test_nothing_is_cut_off_on_a_wide_screen(wide):
    assert cut_off(wide) + off_the_page(wide) == []


def test_a_narrow_screen_scrolls_tables_and_not_the_page(opened, folder):
    page = opened(folder / "report.html", NARROW)
    assert off_the_page(page) == []
    assert first_column_lost(page) == []


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_names_of_feature_sets_are_not_broken_within_a_word(opened, folder, width):
    page = opened(folder / "report.html", width)
    lines = """names => { const cell = document.querySelector("#comparison ~ * tbody th");
        const range = document.createRange();
        return names.map(name => { cell.textContent = name; range.selectNodeContents(cell);
                                   return range.getClientRects().length; }); }"""
    assert page.evaluate(lines, ["color", "handcrafted", "fuzzy_color"]) == [1, 1, 1]


def test_the_keyboard_reaches_everything_and_sorts(opened, folder):
    page = opened(folder / "report.html", NARROW)
    page.keyboard.press("Tab")
    skip = page.locator("a.skip")
    assert skip.evaluate("link => link === document.activeElement && link.getBoundingClientRect().left >= 0")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "contents"
    button = page.locator("thead button").first
    button.focus()
    page.keyboard.press("Enter")
    assert page.locator("thead th").first.get_attribute("aria-sort") == "ascending"
    assert unreached(page) == []


@pytest.mark.parametrize("dark", [False, True])
def test_words_stand_out_in_the_light_and_in_the_dark(opened, folder, dark):
    page = opened(folder / "report.html", dark=dark)
    assert page.locator("svg text").count() > 20
    assert faint_words(page) == []
    assert barriers(page) == []


def test_paper_has_all_that_is_folded_on_the_screen(opened, folder):
    page = opened(folder / "report.html")
    assert folded(page) > 0
    assert folded_on_paper(page) == []


def test_the_page_is_whole_without_its_script(opened, wide, folder):
    page = opened(folder / "report.html", script=False)
    assert page.locator("button, input, output").count() == 0
    words = """() => {
        const main = document.querySelector('main').cloneNode(true);
        for (const added of main.querySelectorAll('.filter')) added.remove();
        return main.textContent;
    }"""
    assert wide.locator(".filter").count() > 0
    assert page.evaluate(words).split() == wide.evaluate(words).split()


@pytest.mark.parametrize("dark", [False, True])
def test_galleries_and_maps_are_pages_like_the_report(opened, folder, dark):
    paths = sorted(folder.glob("*/*.html"))
    assert [path.parent.name for path in paths] == ["galleries", "maps"]
    for path in paths:
        page = opened(path, dark=dark)
        assert strangers(page) + dead_links(page) + off_the_page(page) + cut_off(page) + barriers(page) == []


def all_problems(opened, path):
    """Every check of a page, wide and narrow, in the light and in the dark."""
    wrong = []
    for width, dark in ((WIDE, False), (WIDE, True), (NARROW, False)):
        page = opened(path, width, dark)
        checks = [strangers, dead_links, off_the_page, faint_words, barriers]
        checks += [first_column_lost] if width == NARROW else [cut_off]
        checks += [out_of_order, unfiltered] if (width, dark) == (WIDE, False) else []
        wrong += [f"{width} px, {check.__name__}: {words}" for check in checks for words in check(page)]
    return wrong


@pytest.mark.long
@pytest.mark.parametrize("study", ["calibration", "shortcuts"])
def test_the_page_of_a_study_is_a_page_like_the_report(opened, cohort, tmp_path, study):
    words = [str(cohort.root), "--quick", "--features", "color", "--output", str(tmp_path / study), "--quiet"]
    assert cli_main(["study", study, *words]) == 0
    assert all_problems(opened, tmp_path / study / "report.html") == []


@pytest.mark.long
def test_many_models_and_names_without_a_break_fit_the_page(opened, cohort, tmp_path):
    classes = ("invasive_lobular_carcinoma_with_pleomorphic_features", "良性", "mucinous <b>carcinoma</b>")
    ids = [f"P{patient}_a_very_long_identifier_without_any_break" for patient in cohort.patients]
    frame = cohort.frame.assign(label=np.arange(len(cohort)) % 3, patient=ids)
    dataset = PatchDataset(
        frame, classes, "a_data_set_whose_name_has_no_break_and_is_very_long_indeed", root=cohort.root
    )
    pipelines = [(name, IDCPipeline(name, head=head)) for name in ("color", "gray", "lbp") for head in HEADS_TRIED]
    found = evaluate(dataset, pipelines, PatientKFold(3), inner_cv=PatientKFold(2), n_resamples=20)
    page = write_report(found, tmp_path / "report", gallery=1, command="histofeat " + 300 * "x")
    assert all_problems(opened, page.with_name("report.html")) == []


#: What each check is for, undone.
BREAKS = {
    strangers: "new Promise((done) => { new Image().src = 'http://127.0.0.1:9/x.png'; setTimeout(done, 100); })",
    dead_links: "document.getElementById([...document.querySelectorAll('nav a')].at(-1).hash.slice(1)).id = 'else'",
    out_of_order: "((button) => button.replaceWith(button.cloneNode(true)))(document.querySelector('thead button'))",
    unfiltered: "((input) => input.replaceWith(input.cloneNode(true)))(document.querySelector('.filter input'))",
    off_the_page: "document.querySelector('main').style.width = '3000px'",
    cut_off: "document.querySelector('table').style.minWidth = '3000px'",
    first_column_lost: "document.querySelectorAll('tr > *').forEach((cell) => { cell.style.position = 'static'; })",
    unreached: "document.querySelector('thead button').tabIndex = -1",
    faint_words: "document.body.style.background = '#777'",
    barriers: "document.documentElement.removeAttribute('lang')",
    folded_on_paper: "addEventListener('beforeprint', () => { document.querySelector('details').open = false; })",
}


@pytest.mark.long
@pytest.mark.parametrize("check", BREAKS, ids=lambda check: check.__name__)
def test_each_check_sees_what_is_broken(opened, folder, check):
    page = opened(folder / "report.html", NARROW if check in (off_the_page, first_column_lost, unreached) else WIDE)
    assert check(page) == []
    page.evaluate(BREAKS[check])
    assert check(page) != []
