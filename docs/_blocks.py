"""Run the commands and the Python of a page, and compare the outputs that it shows.

    python docs/_blocks.py docs/getting-started.md       # write the outputs of a page anew

The blocks of a page run in order, in one empty folder and one namespace. A block of text right after one of
commands or Python is its output. ``<!-- not run: reason -->`` before a block leaves it out.
"""

import io
import os
import re
import shlex
import sys
import tempfile
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"(?P<skip><!-- not run: [^>]+-->\s*)?^```(?P<kind>python|console)\n(?P<code>.*?)^```\n"
    r"(?:\n```text\n(?P<output>.*?)^```\n)?",
    flags=re.DOTALL | re.MULTILINE,
)
_NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d+(?![\w.]*\d)")


@dataclass(frozen=True)
class Block:
    """A block of a page: what it runs, and the output that it shows, None where it shows none."""

    kind: str
    code: str
    output: str | None
    skipped: bool
    span: tuple[int, int]


def blocks_of(text):
    """Give the blocks of a page in order."""
    return [
        Block(m["kind"], m["code"], m["output"], m["skip"] is not None, m.span("output")) for m in _BLOCK.finditer(text)
    ]


def run_blocks(text, name):
    """Run the blocks of a page in the current folder; yields each block that ran, and what it printed.

    Raises
    ------
    RuntimeError
        If a command ends with another status than 0 and the page does not show its error.
    """
    namespace = {"__name__": "page"}
    for block in blocks_of(text):
        if block.skipped:
            continue
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            if block.kind == "python":
                exec(compile(block.code, name, "exec"), namespace)
            else:
                _run_commands(block, out, err)
        yield block, out.getvalue()


def _run_commands(block, out, err):
    from histofeat.cli import main

    lines = block.code.replace("\\\n", " ").splitlines()
    for line in lines:
        program, *words = shlex.split(line, comments=True) or [""]
        if program == "python" and words[0] == "-c":
            exec(compile(words[1], line, "exec"), {})
        elif program == "histofeat":
            status = main(words)
            if status:
                last = err.getvalue().splitlines()[-1] if err.getvalue() else ""
                if block.output is None or "histofeat: " not in block.output:
                    raise RuntimeError(f"{line}: expected the exit status 0, got {status} ({last})")
                out.write(last + "\n")
        elif program:
            raise RuntimeError(f"{line}: expected histofeat or python -c. Write <!-- not run: reason --> before it.")


def difference(shown, printed):
    """Say where an output differs from what a page shows, or give "".

    ``...`` stands for anything, numbers with a point may differ by 0.02 or by a fiftieth, and spaces do not count.
    """
    shown, printed = " ".join(shown.split()), " ".join(printed.split())
    pattern = ""
    for part in re.split(rf"(\.\.\.|{_NUMBER.pattern})", shown):
        if part == "...":
            pattern += ".*?"
        else:
            pattern += r"(-?\d+\.\d+)" if _NUMBER.fullmatch(part) else re.escape(part)
    found = re.fullmatch(pattern, printed)
    if found is None:
        return f"expected {shown!r}, got {printed!r}"
    numbers = _NUMBER.findall(shown.replace("...", " "))
    for old, new in zip(numbers, found.groups(), strict=True):
        if abs(float(old) - float(new)) > max(0.02, abs(float(old)) / 50):
            return f"expected {old}, got {new} in {printed!r}"
    return ""


def _without_times(printed):
    """Put ``...`` in place of seconds, of what follows from them, and of what a store held before."""
    printed = re.sub(
        r"(extraction: )\d+\.\d+ s|(The cheapest of |measured: ).*", lambda m: f"{m[1] or m[2]}...", printed
    )
    lines, timed = [], False
    for line in printed.strip("\n").splitlines():
        lines.append(re.sub(r"\d+\.\d+$", "...", line) if timed else line.rstrip())
        timed = line.endswith("fit_s") or (timed and bool(re.search(r"\d\.\d+$", line)))
    return "\n".join(lines) + "\n"


def write_outputs(page):
    """Run a page and put what its blocks print in place of the outputs that it shows.

    An output with a line ``...`` was shortened by hand and stays.
    """
    text = page.read_text(encoding="utf-8")
    ran = list(run_blocks(text, page.name))
    for block, printed in reversed(ran):
        if block.output is not None and "..." not in block.output.splitlines():
            start, end = block.span
            text = text[:start] + _without_times(printed) + text[end:]
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")
    for argument in sys.argv[1:]:
        page = Path(argument).resolve()
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            write_outputs(page)
