"""README and site: blocks run and print what the pages show, numbers are those of reports, links and commands exist."""

import ast
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import typer

from histofeat.cli import app
from histofeat.datasets import Ledger
from histofeat.features import FAMILIES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCS = sorted(
    page for page in (ROOT / "docs").rglob("*.md") if not {"generated", "gallery", "_build"} & set(page.parts)
)
#: Their commands name folders of the reader: they are read by the program and not run.
LISTS = ("commands", "coming-from-other-systems", "files-and-long-runs", "install", "results", "speed", "studies")
#: Pages whose blocks take a moment: the others are long tests.
QUICK = ("container", "patch-splits", "reference", "troubleshooting", *LISTS)


def _load(name):
    """Load a script of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


blocks = _load("_blocks")


@pytest.mark.slow
def test_the_blocks_of_the_readme_run_in_order(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 2
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out
    assert "95 % interval" in printed
    assert "head" in printed


def _marked(page):
    return pytest.param(page, id=page.stem, marks=pytest.mark.slow if page.stem in QUICK else pytest.mark.long)


@pytest.mark.parametrize("page", [_marked(page) for page in DOCS])
def test_the_blocks_of_a_page_run_and_print_what_it_shows(page, tmp_path, monkeypatch, request):
    if page.stem == "baseline-row":  # with the best ImageNet weights of the package index
        request.getfixturevalue("weight_packages")
    text = page.read_text(encoding="utf-8")
    if page.stem in LISTS:
        text = text.replace("```console", "```")
    monkeypatch.chdir(tmp_path)
    for block, printed in blocks.run_blocks(text, page.name):
        if block.output is not None:
            assert blocks.difference(block.output, printed) == "", block.code


def test_a_command_is_left_out_of_a_page_with_a_reason_only():
    left_out = [(page.name, block) for page in DOCS for block in blocks.blocks_of(page.read_text()) if block.skipped]
    assert all(block.output is None for _, block in left_out), "an output that nobody runs"
    assert sum(1 for name, _ in left_out if name != "container.md") <= 5


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        ("ROC-AUC 0.83 of 12", "ROC-AUC  0.84 of\n12", ""),
        ("0.83 ...\n7 x", "0.83 4.1 s\n7 x", ""),
        ("0.83", "0.87", "expected 0.83, got 0.87"),
        ("12 patients", "13 patients", "expected '12 patients', got '13 patients'"),
        ("250.5", "254.0", ""),
    ],
)
def test_an_output_may_differ_in_rounding_only(shown, printed, expected):
    found = blocks.difference(shown, printed)
    assert found == expected == "" or (expected and expected in found)


def test_a_command_that_fails_on_a_page_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = "```console\nhistofeat audit nowhere\n```\n"
    with pytest.raises(RuntimeError, match=r"expected the exit status 0, got 2 .histofeat: nowhere: expected a folder"):
        list(blocks.run_blocks(page, "page.md"))
    with pytest.raises(RuntimeError, match=r"expected histofeat or python -c[.]"):
        list(blocks.run_blocks("```console\nls\n```\n", "page.md"))
    shown = page + "\n```text\nhistofeat: nowhere: expected a folder ...\n```\n"
    ((block, printed),) = blocks.run_blocks(shown, "page.md")
    assert blocks.difference(block.output, printed) == ""


def test_the_sentences_of_the_page_on_trouble_are_those_of_the_program():
    known = (ROOT / "tests/robustness/sentences.txt").read_text(encoding="utf-8")
    shown = re.findall(r"```text\n(.*?)\n```", (ROOT / "docs/troubleshooting.md").read_text(), flags=re.DOTALL)
    assert len(shown) >= 15
    for sentence in shown:
        pattern = ".*".join(re.escape(part.strip()) for part in sentence.split("..."))
        assert re.search(pattern, known), sentence


@pytest.mark.long
def test_the_site_builds_without_a_warning_and_its_links_lead_somewhere(tmp_path):
    """The gallery runs in `make docs`; here its pages are built without running it."""
    for package in ("sphinx", "myst_parser", "numpydoc", "pydata_sphinx_theme", "sphinx_gallery"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    words = ["-W", "--keep-going", "-q", "-D", "plot_gallery=False", "-d", tmp_path / "trees", ROOT / "docs"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *words, tmp_path / "html"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    built = {path.stem for path in (tmp_path / "html/generated/families").glob("*.html")}
    assert set(FAMILIES) <= built
    assert (tmp_path / "html/searchindex.js").is_file()


def test_broken_links_of_a_site_are_found(tmp_path):
    checker = _load("_check_links")
    (tmp_path / "a.html").write_text('<h1 id="top">a</h1><a href="b.html#there">b</a><a href="https://x.org">x</a>')
    (tmp_path / "b.html").write_text(
        '<a href="a.html#top">a</a><a href="none.html">n</a><a href="#no">n</a>'
        '<script src="https://cdn.org/x.js"></script><h2 id="there">b</h2>'
    )
    assert checker.broken_links(tmp_path) == [
        "b.html: #no has no such anchor",
        "b.html: loads https://cdn.org/x.js from a network",
        "b.html: none.html is no file",
    ]


def commands_of(text):
    """Give the commands of the program in the console blocks of a page, comments aside."""
    lines = "\n".join(re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)).splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("histofeat ")]


def test_commands_of_all_pages_are_read_by_the_program():
    """Each names a command and its options as they are; values are not looked at."""
    program, tried = typer.main.get_command(app), 0
    for page in (ROOT / "README.md", ROOT / "data/README.md", *DOCS):
        for name, *words in commands_of(page.read_text().replace("\\\n", " ")):
            command = program.get_command(None, name)
            assert command is not None, f"{page.name}: {name}"
            known = {option for parameter in command.params for option in parameter.opts}
            used = {word for word in words if re.match(r"--?[a-z]", word)}
            assert used <= known, f"{page.name}: histofeat {name}: {used - known}"
            tried += 1
    assert tried > 25


PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md"]
PAGES += [path.relative_to(ROOT).as_posix() for path in DOCS]


#: What the repository has and the wheel has not.
LEFT_OUT = re.compile(
    r"(?<![\w./])(?:benchmarks|docs|examples|reports|tests)/\w|\bdata/README|\b(?:README|CHANGELOG|CONTRIBUTING|SECURITY)\.md"
    r"|\brun_all\.py|\bmake (?:reports?|test|check|long)\b"
)


def test_no_message_help_or_docstring_names_a_file_that_the_wheel_lacks():
    package, found = ROOT / "histofeat", []
    for path in (*package.rglob("*.py"), *package.glob("reporting/templates/*")):
        text = path.read_text()
        strings = [text]
        if path.suffix == ".py":
            strings = [n.value for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant)]
        found += [f"{path.name}: {m[0]}" for s in strings if isinstance(s, str) for m in LEFT_OUT.finditer(s)]
    assert found == []


def test_the_readme_is_short():
    assert README.count("\n") < 150


@pytest.mark.parametrize("page", PAGES)
def test_links_point_at_files(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        # Pages that are made in a build are checked there.
        if "://" not in target and not re.search(r"(^|/)(generated|gallery)/", target):
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


@pytest.fixture(scope="module")
def tables(loaded_script):
    with loaded_script("readme_table.py") as script:
        yield script


CARD = "histofeat/networks/pretrained/shipped/histo/MODEL_CARD.md"
ENCODER_REPORT = ROOT / "reports/idc-encoder-sample"


@pytest.mark.parametrize(
    ("reports", "page"), [(["idc-sample", "idc-encoder-sample"], "README.md"), (["idc-encoder-sample"], CARD)]
)
def test_scores_of_a_page_are_those_of_the_committed_report(tables, reports, page, capsys):
    found = [str(ROOT / "reports" / report) for report in reports]
    assert tables.main([*found, "--readme", str(ROOT / page), "--check"]) == 0, capsys.readouterr()


def test_the_card_has_no_score_outside_its_marks(tables):
    """A ROC-AUC or an accuracy has three decimals; what the card says of the recipe has fewer."""
    text = (ROOT / CARD).read_text(encoding="utf-8")
    before, _, rest = text.partition(tables.BEGIN)
    block, _, after = rest.partition(tables.END)
    scores = r"(?<![\d.])0\.[3-9]\d\d(?!\d)"
    assert len(re.findall(scores, block)) > 40
    assert re.findall(scores, before + after) == []


def test_a_card_written_anew_says_what_the_report_says(tables, tmp_path):
    report, card = tmp_path / "report", tmp_path / "CARD.md"
    payload = json.loads((ENCODER_REPORT / "metrics.json").read_text(encoding="utf-8"))
    payload["results"]["models"][0]["roc_auc"] = {"value": 0.1234, "pooled": 0.9, "ci95": [0.1, 0.2]}
    payload["results"]["differences"] = []
    report.mkdir()
    (report / "metrics.json").write_text(json.dumps(payload), encoding="utf-8")
    card.write_text(f"# Card\n\n{tables.BEGIN}\nold\n{tables.END}\n", encoding="utf-8")
    assert tables.main([str(report), "--readme", str(card)]) == 0
    text = card.read_text(encoding="utf-8").replace("\\", "")
    accuracy = payload["results"]["models"][0]["balanced_accuracy"]
    shown = "{:.3f} [{:.3f}, {:.3f}]".format(accuracy["pooled"], *accuracy["ci95"])
    assert f"| handcrafted | 0.123 [0.100, 0.200] | {shown} |" in text
    assert "planned" not in text
    assert "### On perturbed patches" in text
    assert "67 images of 20 patients" in text
    assert "[report](report/report.md); written by `python benchmarks/readme_table.py report`." in text


def test_models_of_another_report_stand_below(tables, tmp_path):
    readme, first = tmp_path / "README.md", str(ROOT / "reports" / "idc-sample")
    readme.write_text(f"{tables.BEGIN}\nold\n{tables.END}\n", encoding="utf-8")
    assert tables.main([first, str(ENCODER_REPORT), "--readme", str(readme)]) == 0
    text = readme.read_text(encoding="utf-8")
    shown = ("| handcrafted | xgboost |", "| handcrafted and histo |", "Full report: ")
    assert sorted(map(text.index, shown)) == [text.index(one) for one in shown]
    assert "### On perturbed patches" not in text
    links = "[reports/idc-sample](reports/idc-sample/report.md), [reports/idc-encoder-sample]("
    assert links in text
    command = "python benchmarks/readme_table.py reports/idc-sample reports/idc-encoder-sample"
    assert f"written by `{command}`." in text


def test_a_report_of_another_version_is_refused(tables, tmp_path, capsys):
    payload = json.loads((ROOT / "reports/idc-sample/metrics.json").read_text(encoding="utf-8"))
    del payload["results"][0]["n_features"]
    (tmp_path / "metrics.json").write_text(json.dumps(payload), encoding="utf-8")
    assert tables.main([str(tmp_path), "--readme", str(ROOT / "README.md"), "--check"]) == 2
    printed = capsys.readouterr().err
    assert f"expected one that this version of histofeat made, got {str(tmp_path)!r} without 'n_features'" in printed
    assert f"make reports ONLY={tmp_path.name}." in printed


def test_what_the_results_page_says_of_networks_is_what_their_reports_say():
    def scores(report):
        results = json.loads((ROOT / "reports" / report / "metrics.json").read_text(encoding="utf-8"))["results"]
        return {row["name"]: f"{row['roc_auc']['pooled']:.3f}" for row in results["models"]}

    found, trained = scores("idc-encoder-sample"), scores("idc-networks-sample")
    words = " ".join((ROOT / "docs" / "results.md").read_text(encoding="utf-8").split())
    assert (
        f"the encoder that ships has ROC-AUC {found['histo']} by itself and {found['handcrafted and histo']} with "
        f"handcrafted features beside it; those alone have {found['handcrafted']}."
    ) in words
    results = json.loads((ROOT / "reports/idc-encoder-sample/metrics.json").read_text(encoding="utf-8"))["results"]
    gain = next(row for row in results["differences"] if row["first"] == "handcrafted and histo")
    low, high = gain["ci95"]
    interval = f"{gain['difference']:+.3f} with an interval from {low:+.3f} to {high:+.3f}"
    assert f"{interval}, has p {gain['p_all_looks']:.3f} over" in words
    assert f"as ImageNet left it adds nothing there ({found['handcrafted and Lite stages']})" in words
    assert (
        f"CancerNet reaches {trained['CancerNet']}, the small residual network {trained['small residual network']}, a "
        f"fine-tuned MobileNetV2 {trained['MobileNetV2, fine-tuned']} and its frozen embedding at the same 96 px "
        f"{trained['MobileNetV2, frozen, 96 px']}, where handcrafted features have {trained['handcrafted']}."
    ) in words


def test_what_the_readme_says_of_leakage_is_what_its_report_says():
    few = pd.read_csv(ROOT / "reports/leakage/leakage_of_few.csv").query("n_patients == 16 and name == 'color'")
    few = few.query("head == 'xgboost'").set_index("metric")
    many = pd.read_csv(ROOT / "reports/leakage/leakage.csv").query("data == 'IDC' and metric == 'roc_auc'")
    accuracy, auc, added = few.loc["accuracy"], few.loc["roc_auc"], many["difference"]
    assert (
        f"an accuracy of {accuracy.leaked:.2f} by patch and {accuracy.honest:.2f} by patient, where always "
        f'"no IDC" has {accuracy.constant_accuracy:.2f}, and a ROC-AUC of {auc.leaked:.3f} and {auc.honest:.3f}; with '
        f"190 patients a split by patch adds {added.min():.3f} to {added.max():.3f} to the ROC-AUC"
    ) in " ".join(README.split())


def _report(name):
    return pd.read_csv(ROOT / "reports" / name)


def _leakage():
    few = _report("leakage/leakage_of_few.csv").query("n_patients == 16 and name == 'color' and head == 'xgboost'")
    many = _report("leakage/leakage.csv").query("data == 'IDC' and head == 'xgboost'")
    added = many[many["metric"] == "roc_auc"]["difference"]
    rows = {16: few.set_index("metric"), 190: many[many["name"] == "color"].set_index("metric")}
    yield from (
        f"| {n} | {row.leaked.roc_auc:.3f} | {row.honest.roc_auc:.3f} "
        f"| {row.leaked.accuracy:.2f} | {row.honest.accuracy:.2f} |"
        for n, row in rows.items()
    )
    yield f'Always "no IDC" has an accuracy of {rows[16].constant_accuracy.iloc[0]:.2f} on the 16 patients'
    yield f"a split by patch adds {added.min():.3f} to {added.max():.3f} to the ROC-AUC"
    known = _report("shortcuts/identification.csv").set_index("family").loc["color"]
    yield f"give {known.accuracy:.1%} of patches to the right one of {known.n_patients:.0f} patients".replace("%", " %")
    yield f"guessing is right in {known.chance:.2%}".replace("%", " %")
    found = _report("planted-leaks/leaks.csv").set_index("leak")["caught"]
    yield f"a split by patch in {found['split by patch']} of 100 samples"
    yield f"a JPEG copy in {found['copy: JPEG, quality 90']}"
    assert found["copy: moved 3 px right and down"] == 0


def _intervals():
    cells = _report("interval-coverage/coverage.csv")
    cells = cells[cells["metric"].isin(["roc_auc", "f1", "balanced_accuracy", "brier"])]
    worst = {
        (kind, labels, least): 100 * rows[rows["n_patients"] >= least]["coverage"].min()
        for (kind, labels), rows in cells.groupby(["kind", "labels"])
        for least in (10, 20)
    }
    yield f"holds it in {worst['t', 'patch', 10]:.1f} % at worst, over 10 to 200 patients and four metrics"
    yield f"the common percentile interval in {worst['percentile', 'patch', 10]:.1f} %, with 10 patients"
    yield f"it is {worst['t', 'patient', 20]:.1f} % from 20 patients on"
    yield f"against {worst['percentile', 'patient', 10]:.1f} %"


def _few():
    rows = _report("learning-curves/learning_curves.csv").set_index(["sampling", "n_patients", "pipeline"])
    for n in (10, 20, 40, 80, 152):
        values = [rows.loc[("patients", n, name)] for name in ("color", "haralick", "handcrafted")]
        cells = " | ".join(f"{row['value']:.3f}" for row in values)
        yield f"| {n} | {values[0]['n_patches']:,.0f} | {cells} |"
    spread = rows.loc[("patches - patients", 10, "color")]
    yield f"spread over all patients, give colour {spread['value']:+.3f}"


def _calibration():
    rows = _report("calibration/calibration.csv").query("name == 'handcrafted'")
    for words, head in (("XGBoost", "xgboost"), ("XGBoost, class weights", "xgboost, class weights")):
        row = rows[rows["head"] == head].iloc[0]
        yield (
            f"| {words} | {row['raw_brier_value']:.3f} | {row['calibrated_brier_value']:.3f} "
            f"| {row['raw_ece_value']:.3f} | {row['calibrated_ece_value']:.3f} |"
        )
    sets = _report("calibration/conformal.csv").query("name == 'handcrafted' and head == 'xgboost' and level == 0.9")
    sets = (100 * sets.set_index("calibrated_on")[["class_1", "class_0"]]).round(1)
    plain, by_class = sets.loc["patients, equal weight"], sets.loc["patients, each class by itself"]
    yield f"in {plain.class_1} % of the patches with IDC and {plain.class_0} % of those without"
    yield f"Calibrated by class, the shares are {by_class.class_1} % and {by_class.class_0} %"


def _shortcuts():
    rows = _report("shortcuts/shortcuts.csv").set_index("name")
    words = {
        "mean_color": "mean colour",
        "compression_and_blur": "compression and blur",
        "background": "background",
        "coordinates": "position on the slide",
    }
    for name, word in words.items():
        row = rows.loc[name]
        yield f"| {word} | {row.n_features:.0f} | {row.roc_auc:.3f} | {row.within:.3f} |"
    drops = _report("robustness/robustness.csv").query("metric == 'roc_auc'").set_index(["pipeline", "perturbation"])
    yield f"is {drops['drop'].max():.3f} of ROC-AUC: the family {drops['drop'].idxmax()[0]} under the strongest blur"
    mean = drops.query("perturbation != 'turn' and severity != 0")["drop"].groupby("pipeline").mean()
    assert (mean.idxmin(), mean.idxmax()) == ("cnn", "color")
    yield f"embeddings lose least, {mean.min():.3f} on average, and colour most, {mean.max():.3f}"


@pytest.mark.parametrize(
    ("page", "sentences"),
    [
        ("patch-splits", _leakage),
        ("resampling-patients", _intervals),
        ("few-patients", _few),
        ("calibration", _calibration),
        ("shortcuts", _shortcuts),
    ],
)
def test_the_numbers_of_a_concept_are_those_of_its_reports(page, sentences):
    words = " ".join((ROOT / "docs/concepts" / f"{page}.md").read_text(encoding="utf-8").split())
    for sentence in sentences():
        assert sentence in words


def test_what_the_page_on_speed_says_of_growth_is_what_its_report_says():
    rows = _report("speed-scaling/speed.csv").set_index("name")["ours"]
    steps = ("extraction", "fits", "prediction", "report", "scoring")
    took = {step: rows[f"{step}/277,524 patches"] for step in steps}
    words = " ".join((ROOT / "docs/speed.md").read_text(encoding="utf-8").split())
    assert f"take {took['extraction']:.0f} s of extraction, {took['fits']:.0f} s of fits" in words
    assert f"and {took['report'] + took['scoring']:.0f} s of scores and report at the size of IDC" in words
    assert f"and {rows['memory of fits/277,524 patches']:.1f} GiB" in words
    assert [step for step in steps if rows[f"{step}/exponent"] > 1] == ["prediction"]


def test_the_readme_counts_the_looks_of_the_ledger():
    looks = Ledger(ROOT / "reports/test_ledger.csv").looks()["official"]
    assert f"whose 49 test patients were scored in {looks} looks" in " ".join(README.split())


def test_reports_of_other_studies_have_no_table(tables, tmp_path, capsys):
    report = ROOT / "reports/robustness"
    assert tables.main([str(report), "--readme", str(ROOT / "README.md"), "--check"]) == 2
    assert "got the study 'Robustness: ROC-AUC under perturbed patches'" in capsys.readouterr().err


def test_commands_name_scripts_and_targets_that_exist():
    for page in (ROOT / "README.md", *DOCS):
        for script in re.findall(r"(?:benchmarks|tests)/[\w/]+\.py", page.read_text()):
            assert (ROOT / script).is_file(), f"{page.name}: {script}"
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_readme_quotes_the_worst_cells_of_the_coverage_report():
    summary = json.loads((ROOT / "reports" / "interval-coverage" / "metrics.json").read_text())["results"]["summary"]
    worst = {row["labels"]: row["worst"]["words"] for row in summary if row["kind"] == "t"}
    words = " ".join((ROOT / "README.md").read_text().split())
    assert f"at worst, in {worst['patch']}" in words
    assert f"with one label per patient, from 20 patients, in {worst['patient']}" in words
