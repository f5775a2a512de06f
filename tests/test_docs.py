"""The README's Python runs as it stands, and the commands and links of all pages name files that exist."""

import ast
import json
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
import typer

from histofeat.cli import app
from histofeat.datasets import Ledger

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCS = sorted((ROOT / "docs").glob("*.md"))


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


@pytest.mark.slow
@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.name)
def test_the_python_blocks_of_a_page_run(page):
    namespace: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        exec(compile(block, page.name, "exec"), namespace)


def commands_of(text):
    """Give the commands of the program in the console blocks of a page, comments aside."""
    lines = "\n".join(re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)).splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("histofeat ")]


def test_commands_of_all_pages_are_read_by_the_program():
    """Each names a command and its options as they are; values are not looked at."""
    program, tried = typer.main.get_command(app), 0
    for page in (ROOT / "README.md", ROOT / "data/README.md", *DOCS):
        for name, *words in commands_of(page.read_text()):
            command = program.get_command(None, name)
            assert command is not None, f"{page.name}: {name}"
            known = {option for parameter in command.params for option in parameter.opts}
            used = {word for word in words if re.match(r"--?[a-z]", word)}
            assert used <= known, f"{page.name}: histofeat {name}: {used - known}"
            tried += 1
    assert tried > 25


PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md", *(f"docs/{path.name}" for path in DOCS)]


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
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


@pytest.fixture(scope="module")
def tables(loaded_script):
    with loaded_script("readme_table.py") as script:
        yield script


CARD = "histofeat/networks/pretrained/shipped/histo/MODEL_CARD.md"
ENCODER_REPORT = ROOT / "reports/idc-encoder-sample"


@pytest.mark.parametrize(("report", "page"), [("idc-sample", "README.md"), ("idc-encoder-sample", CARD)])
def test_scores_of_a_page_are_those_of_the_committed_report(tables, report, page, capsys):
    assert tables.main([str(ROOT / "reports" / report), "--readme", str(ROOT / page), "--check"]) == 0, (
        capsys.readouterr()
    )


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
    assert f"| histo, XGBoost | 0.123 [0.100, 0.200] | {shown} |" in text
    assert "planned" not in text
    assert "### On perturbed patches" in text
    assert "67 images of 20 patients" in text
    assert "[report](report/report.md); written by `python benchmarks/readme_table.py report`." in text


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
    late = "handcrafted and histo, 8 views, late vote"
    words = " ".join((ROOT / "docs" / "results.md").read_text(encoding="utf-8").split())
    assert (
        f"The encoder that ships has ROC-AUC {found['histo, XGBoost']} on the 49 official test patients with XGBoost, "
        f"{found['histo, 8 views, logistic']} as the mean of eight views with a logistic head, and {found[late]} with "
        "handcrafted features beside it in a [late vote](../benchmarks/late_vote.py); those alone have "
        f"{found['handcrafted']}. On the same patients CancerNet reaches {trained['CancerNet']}, the small residual "
        f"network {trained['small residual network']}, a fine-tuned MobileNetV2 {trained['MobileNetV2, fine-tuned']} "
        f"and its frozen embedding at the same 96 px {trained['MobileNetV2, frozen, 96 px']}, where handcrafted "
        f"features have {trained['handcrafted']}."
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
