"""The notebooks of examples/: committed as they ran, equal to their sources, and they still run."""

import ast
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
pytest.importorskip("nbclient", reason="nbclient is not installed")

EXAMPLES = Path(__file__).parents[1] / "examples"


def _load_maker():
    spec = importlib.util.spec_from_file_location("make_notebooks", EXAMPLES / "make_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


maker = _load_maker()
named = pytest.mark.parametrize("name", maker.NAMES)
guides = pytest.mark.parametrize("name", maker.GUIDES)
lessons = pytest.mark.parametrize("name", maker.COURSE)


@pytest.fixture(scope="module")
def committed():
    return {name: nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4) for name in maker.NAMES}


def test_every_notebook_has_a_source_and_a_row():
    for folder, end in ((EXAMPLES, ".ipynb"), (maker.SOURCES, ".py")):
        found = [path for path in folder.rglob(f"*{end}") if ".ipynb_checkpoints" not in path.parts]
        assert sorted(path.relative_to(folder).with_suffix("").as_posix() for path in found) == sorted(maker.NAMES)
    listed = re.findall(r"\[([\w/]+)\.ipynb\]\(\1\.ipynb\)", (EXAMPLES / "README.md").read_text())
    assert sorted(listed) == sorted(maker.NAMES)


@named
def test_committed_cells_are_those_of_the_source(committed, name):
    nbformat.validate(committed[name])
    built = maker.build(name)
    assert [(c.id, c.cell_type, c.source) for c in committed[name].cells] == [
        (c.id, c.cell_type, c.source) for c in built.cells
    ]
    assert len(built.cells) > 25 if name in maker.GUIDES else 10 <= len(built.cells) <= 20


@named
def test_committed_outputs_are_of_one_clean_run(committed, name):
    notebook = committed[name]
    assert maker.faults(notebook) == []
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert notebook.metadata == maker.build(name).metadata
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert (EXAMPLES / f"{name}.ipynb").stat().st_size <= maker.MOST_BYTES


@guides
def test_guides_show_synthetic_pictures(committed, name):
    notebook = committed[name]
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    kinds = [kind for output in shown for kind in output.get("data", {})]
    assert kinds.count("image/svg+xml") >= 1, "figures of the report"
    assert kinds.count("image/jpeg") >= 5, "pictures, galleries, and displays"
    # Every figure of a report says whose data it is on.
    drawings = [output.data["image/svg+xml"] for output in shown if "image/svg+xml" in output.get("data", {})]
    assert all("synthetic" in drawing.lower() for drawing in drawings)
    printed = "".join(output.get("text", "") for output in shown)
    assert re.search(r"^- synthetic: [\d,]+ patches", printed, flags=re.MULTILINE)
    assert "refused: " in printed


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda cells: cells[0].update(source='DATA = "/data/idc"'), "DATA = None"),
        (lambda cells: cells[1].update(execution_count=None), "without a number"),
        (lambda cells: cells[1].outputs.append(nbformat.v4.new_output("error", ename="KeyError")), "KeyError"),
        (lambda cells: cells[1].outputs.append(_stream("stderr", "UserWarning: no")), "UserWarning"),
        (lambda cells: cells[1].outputs.append(_stream("stdout", "/tmp/histofeat-1/cohort")), "/tmp/histofeat-1"),
        (lambda cells: cells[1].outputs.append(_stream("stdout", "<f at 0x7f85e2acf420>")), "0x7f85e2acf420"),
        (lambda cells: cells[1].outputs.append(_stream("stdout", "a" * 700_000)), "600,000 bytes"),
    ],
)
def test_what_must_not_be_committed_is_found(spoil, expected):
    cells = [nbformat.v4.new_code_cell(text, id=text[:1], execution_count=1) for text in ("DATA = None", "print(1)")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    assert maker.faults(notebook) == []
    spoil(notebook.cells)
    (found,) = maker.faults(notebook)
    assert expected in found


def test_a_notebook_without_data_of_its_own_may_not_read_any():
    cells = [nbformat.v4.new_code_cell("cohort = make_cohort(n_patients=4)", id="a", execution_count=1)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    assert maker.faults(notebook) == []
    # Letters of a picture are no path.
    cells[0].outputs.append(nbformat.v4.new_output("display_data", data={"image/png": "iVBO/tmp/aaaa"}))
    assert maker.faults(notebook) == []
    cells[0].source = 'table = pd.read_csv("metrics.csv"); path.read_text()'
    assert maker.faults(notebook) == []
    for source in ('cohort = load_idc("idc")', 'tiles = open_slide("slide.tif")', 'DATA = "idc"'):
        cells[0].source = source
        (found,) = maker.faults(notebook)
        assert "DATA = None" in found


def _stream(name, text):
    return nbformat.v4.new_output("stream", name=name, text=text)


def test_cells_of_the_percent_format():
    text = (
        '"""Docstring."""\n\n# %% [markdown]\n# # Title\n#\n# - a list\n\n# %%\na = 1  # %% no mark\n\n\n# %%\nb = 2\n'
    )
    assert maker.read_cells(text) == [
        ("markdown", "# Title\n\n- a list"),
        ("code", "a = 1  # %% no mark"),
        ("code", "b = 2"),
    ]


@guides
def test_own_data_is_read_where_data_is_set(name, tmp_path):
    from histofeat import make_breakhis_cohort, make_cohort

    if name == "idc":
        root = make_cohort(4, 4, root=tmp_path / "tree").root
    else:
        root = make_breakhis_cohort(1, 1, magnifications=(100,), root=tmp_path / "tree").root
    cells = [text for kind, text in maker.read_cells((maker.SOURCES / f"{name}.py").read_text()) if kind == "code"]
    assert re.search(r"^DATA = None", cells[0], flags=re.MULTILINE)
    ours = re.sub(r"^DATA = None.*$", f"DATA = {str(root)!r}", cells[0], flags=re.MULTILINE)
    ours = re.sub(r"^OUTPUT = .*$", f"OUTPUT = Path({str(tmp_path)!r})", ours, flags=re.MULTILINE)
    # Display is all that these cells need of IPython.
    seen = {}
    for text in (ours, cells[1]):
        exec(compile(ast.parse(text), name, "exec"), seen)
    assert Path(seen["dataset"].root) == Path(root)
    assert not (tmp_path / "cohort").exists(), "no synthetic cohort beside own data"
    assert seen["EPOCHS"] > 10


@guides
@pytest.mark.long
def test_the_notebook_runs_without_a_warning(committed, name, tmp_path):
    pytest.importorskip("keras", reason="keras is not installed")
    notebook = maker.execute(maker.build(name), tmp_path)
    assert maker.faults(notebook) == []
    # Of fixed seeds: the words of the classical part are those that are committed; a network rounds by machine.
    for cell in range(len(notebook.cells)):
        if notebook.cells[cell].cell_type == "code" and "audit.summary" in notebook.cells[cell].source:
            assert _printed(notebook.cells[cell]) == _printed(committed[name].cells[cell])
            break
    else:
        pytest.fail("no cell prints the audit")


@lessons
def test_a_lesson_draws_its_cohort_and_checks_three_exercises_or_more(committed, name):
    cells = [cell.source for cell in committed[name].cells]
    assert any("cohort(n_patients=" in source for source in cells), "nothing is downloaded or read"
    assert "*synthetic*" in cells[0]
    checks = [number for number, source in enumerate(cells) if source.startswith("# Check\n")]
    assert len(checks) >= 3
    for number in checks:
        assert cells[number - 2].split("\n")[0].startswith("## Exercise "), "what is asked"
        assert re.search(r"^answer = ", cells[number - 1], flags=re.MULTILINE), "what is checked"
        assert re.search(r"^assert .*\banswer\b", cells[number], flags=re.MULTILINE), "the check"


#: For each lesson, a change that makes its claim wrong, and what it says then.
SPOILT = {
    "course/1_leak": ("PatchKFold(4), n_resamples", "PatientKFold(4), n_resamples", "the leak should look brilliant"),
    "course/2_patients": ("[half] = plan.n_patients", "[half] = 24", "0.01 should take far more patients"),
    "course/3_network": ("= smallest_detectable_difference(evaluation, power=0.8)", "= 0.001", "Compare 0.006"),
    "course/4_calibration": ('class_weight="balanced"', "class_weight=None", "AssertionError"),
    "course/5_report": ("pipelines, PatchKFold(4)", "pipelines, PatientKFold(4)", "patients were on both sides"),
}


@lessons
@pytest.mark.long
def test_a_lesson_whose_claim_does_not_hold_fails(name, tmp_path):
    from nbclient.exceptions import CellExecutionError

    _need_openvino(name)
    right, wrong, words = SPOILT[name]
    notebook = maker.build(name)
    assert sum(cell.source.count(right) for cell in notebook.cells) == 1
    for cell in notebook.cells:
        cell.source = cell.source.replace(right, wrong)
    with pytest.raises(CellExecutionError, match=words):
        maker.execute(notebook, tmp_path)


@lessons
@pytest.mark.long
def test_a_lesson_runs_and_refuses_no_answer_and_another_answer(committed, name, tmp_path):
    _need_openvino(name)
    notebook, cells = maker.build(name), []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.source.startswith("# Check\n"):
            cells += [nbformat.v4.new_code_cell(_refused(cell.source, wrong)) for wrong in ("None", "type(answer)()")]
    notebook.cells = cells
    maker.execute(notebook, tmp_path)
    assert maker.faults(notebook) == []


def _need_openvino(name):
    if name == "course/3_network":
        pytest.importorskip("openvino", reason="openvino is not installed")


def _refused(check, wrong):
    """A cell that fails if a check accepts a wrong answer."""
    tried = "\n".join(f"    {line}" for line in (f"answer = {wrong}", *check.splitlines()))
    return f"given = answer\ntry:\n{tried}\nexcept Exception:\n    answer = given\nelse:\n    raise ValueError(answer)"


def _printed(cell):
    return [output.text for output in cell.outputs if output.output_type == "stream"]


def test_confusion_of_the_committed_notebook_is_the_right_way_round(committed):
    """The printed sensitivity is of the patches with tumour: recomputed from the printed counts."""
    printed = "".join(output.get("text", "") for cell in committed["idc"].cells for output in cell.get("outputs", ()))
    rows = dict(re.findall(r"^(sensitivity|specificity): (\d+ of \d+ .*)$", printed, flags=re.MULTILINE))
    for words in rows.values():
        part, whole, value = re.match(r"(\d+) of (\d+) .* = ([\d.]+)$", words).groups()
        assert np.isclose(int(part) / int(whole), float(value), atol=1e-3)
    assert "with tumour found" in rows["sensitivity"]
    assert "without tumour so called" in rows["specificity"]
