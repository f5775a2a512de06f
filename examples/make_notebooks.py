"""Build the notebooks of this folder from their sources in ``notebooks/``, and run them.

    python examples/make_notebooks.py [idc] [breakhis] [course/1_leak] ...

A source is Python in the percent format: ``# %%`` begins a cell of code, ``# %% [markdown]`` one of text. It is the
only place where a notebook is edited. Notebooks run in an empty folder, in a kernel where a warning is an error; what
is written holds their outputs, and neither times, machine nor user.
"""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).resolve().parent
SOURCES = EXAMPLES / "notebooks"
#: The two that show the library, and the lessons of the course, each under a minute.
GUIDES = ("idc", "breakhis")
COURSE = tuple(f"course/{lesson}" for lesson in ("1_leak", "2_patients", "3_network", "4_calibration", "5_report"))
NAMES = GUIDES + COURSE
MOST_BYTES = 600_000
TIMEOUT_S = 900

#: Of the kernel and of TensorFlow, not of histofeat: a debugger's remark on frozen modules, logs of C++, a GPU.
QUIET = {
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",
    "JUPYTER_PLATFORM_DIRS": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}
#: One thread adds up in one order, so that the same machine gives the same numbers.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
#: The exceptions: that of setup.cfg (tensorflow's tensors do not know numpy 2's `copy` keyword), and what the kernel
#: says of itself when it shuts down.
STRICT = (
    "import warnings; warnings.simplefilter('error'); "
    "warnings.filterwarnings('ignore', '__array__ implementation', DeprecationWarning); "
    "warnings.filterwarnings('ignore', category=PendingDeprecationWarning, module='ipykernel')"
)
#: What may read images that no program drew: every loader, but for pandas and the text of a file.
_OWN_DATA = re.compile(r"^DATA\b|(?<!pd\.)\b(?:load|open|read|fetch)_(?!text\b)\w+\(", flags=re.MULTILINE)
_MARK = re.compile(r"^# %%( \[markdown\])?[ \t]*\n", flags=re.MULTILINE)


def read_cells(source):
    """Cells of a text in the percent format, as (kind, text): what stands before the first mark is no cell."""
    _, *parts = _MARK.split(source)
    cells = []
    for mark, text in zip(parts[::2], parts[1::2], strict=True):
        if mark:
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.strip().splitlines())
        cells.append(("markdown" if mark else "code", text.strip()))
    return cells


def build(name):
    """Give the notebook of a source, without outputs; the same source gives the same notebook."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    new = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    cells = read_cells((SOURCES / f"{name}.py").read_text(encoding="utf-8"))
    first = name.replace("/", "-")  # no slash in the id of a cell
    notebook.cells = [new[kind](text, id=f"{first}-{number:02}") for number, (kind, text) in enumerate(cells, start=1)]
    return notebook


def execute(notebook, folder):
    """Run a notebook in a folder, and take out what is of this run alone.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails, be it by a warning.
    """
    # Low-level output is TensorFlow's talk to the terminal; warnings and prints come by Python.
    arguments = ["--IPKernelApp.capture_fd_output=False", f"--IPKernelApp.exec_lines={STRICT}"]
    places = {"IPYTHONDIR": str(folder / ".ipython"), "TMPDIR": str(folder)}
    settings = QUIET | ONE_THREAD | places
    before = {name: os.environ.get(name) for name in (*settings, "PYTHONWARNINGS")}
    os.environ.update(settings)
    os.environ.pop("PYTHONWARNINGS", None)
    try:
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT_S,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            extra_arguments=arguments,
            record_timing=False,
            coalesce_streams=True,
        )
        client.execute()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata = {}
    return notebook


def faults(notebook):
    """What keeps a notebook from being committed, as sentences; none for a good one.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        Executed.
    """
    text = nbformat.writes(notebook)
    found = []
    if len(text.encode()) > MOST_BYTES:
        found.append(f"expected at most {MOST_BYTES:,} bytes, got {len(text.encode()):,}")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    none_given = any(re.search(r"^DATA = None\b", cell.source, flags=re.MULTILINE) for cell in code[:1])
    if not none_given and any(_OWN_DATA.search(cell.source) for cell in code):
        found.append("expected DATA = None in the first cell of code: pictures of patients are not to be committed")
    for cell in code:
        if cell.execution_count is None:
            found.append(f"{cell.id}: expected an executed cell, got one without a number")
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"{cell.id}: expected no error, got {output.ename}")
            elif output.output_type == "stream" and output.name == "stderr":
                found.append(f"{cell.id}: expected nothing on stderr, got {output.text[:200]!r}")
    addresses = re.findall(r"\bat 0x[0-9a-f]{6,}", _words(notebook))
    if addresses:
        found.append(f"expected the same words in every run, got an address, {addresses[0]!r}")
    paths = re.findall(r"(?:/tmp|/home|/root|/Users|/var/folders|[A-Z]:\\\\)[\w/.\\-]*", _words(notebook))
    if paths:
        found.append(f"expected no path of a machine, got {paths[0]!r}")
    return found


_PICTURES = ("image/jpeg", "image/png")


def _words(notebook):
    """Everything in a notebook that is text: sources and outputs, without pictures."""
    words = []
    for cell in notebook.cells:
        words.append(cell.source)
        for output in cell.get("outputs", ()):
            words.append(output.get("text", ""))
            words += [str(data) for kind, data in output.get("data", {}).items() if kind not in _PICTURES]
    return "\n".join(words)


def main(arguments=None):
    """Build and run the notebooks that are named, or all; exit with 1 where one cannot be committed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[], metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--output", type=Path, default=EXAMPLES, help="folder for the notebooks; this one by default")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"NAME: expected some of {', '.join(NAMES)}, got {unknown[0]!r}")
    failed = False
    for name in options.names or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(build(name), Path(folder))
        wrong = faults(notebook)
        for sentence in wrong:
            print(f"{name}.ipynb: {sentence}", file=sys.stderr)
        failed = failed or bool(wrong)
        if not wrong:
            path = options.output / f"{name}.ipynb"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")
            print(f"{path.name}: {len(notebook.cells)} cells, {path.stat().st_size / 1000:.0f} kB")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
