"""The ledger of the official IDC test patients: one line per pipeline and head that was ever scored on them.

A test set, not a tuning set: whoever quotes a score on the 49 patients can see here how often they were looked at. The
file is only ever appended to; a line is never changed and never removed, whatever became of the report. The columns
``trained_on`` and ``threshold`` came later than the first lines, which got what was true of them.
"""

import csv
import io
import math
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["COLUMNS", "append_lines", "commit_words", "ledger_line", "open_ledger"]

COLUMNS = (
    "date",
    "commit",
    "pipeline",
    "data",
    "n_patches",
    "n_test_patients",
    "n_test_patches",
    "roc_auc",
    "balanced_accuracy_tuned",
    "f1_tuned",
    "trained_on",
    "threshold",
)
_DECIMALS = 6


def open_ledger(path):
    """Make sure that lines can be appended, before the work that they will record.

    Parameters
    ----------
    path : pathlib.Path
        The ledger; made, with its header, where there is none.

    Returns
    -------
    int
        The evaluations that it holds.

    Raises
    ------
    ValueError
        If the file is no ledger: another header, or a folder.
    OSError
        If it cannot be written.
    """
    if path.is_dir():
        raise ValueError(f"--ledger: expected a file, got the folder {str(path)!r}. Give the path of a CSV file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        if file.tell() == 0:
            file.write(f"{','.join(COLUMNS)}\n".encode())
    header, *lines = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    if header != ",".join(COLUMNS):
        raise ValueError(
            f"--ledger: expected a file that begins with {','.join(COLUMNS)!r}, got {header[:80]!r} in {path.name}. "
            "Nothing was written; give another path, or a new one."
        )
    return sum(1 for line in lines if line)


def ledger_line(**values):
    """One line, values by the names of `COLUMNS`; the date is now, an undefined score is empty.

    Examples
    --------
    >>> ledger_line(commit="1a2b3c4", pipeline="color/svm (color)", roc_auc=float("nan"))[1:4]
    ['1a2b3c4', 'color/svm (color)', '']
    """
    values = {"date": datetime.now(UTC).isoformat(timespec="seconds"), **values}
    return [_words(values.get(column, "")) for column in COLUMNS]


def _words(value):
    if isinstance(value, float):
        return f"{value:.{_DECIMALS}f}" if math.isfinite(value) else ""
    return str(value)


def append_lines(path, lines):
    """Append lines in one write that is on the disk when this returns; what was there stays as it was.

    Parameters
    ----------
    path : pathlib.Path
        As for `open_ledger`, which is called again: the file may have gone during the work.
    lines : sequence of sequence of str
        As `ledger_line` makes them.

    Returns
    -------
    int
        The evaluations that the ledger holds now.
    """
    open_ledger(path)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        # An editor, or a machine that went down, may have left the last line open.
        start = "" if file.read(1) == b"\n" else "\n"
    with path.open("ab") as file:
        file.write((start + text.getvalue()).encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())
    return open_ledger(path)


def commit_words(repository):
    """The commit of the code in a folder, with "+dirty" where files differ from it; "unknown" outside a clone.

    Parameters
    ----------
    repository : pathlib.Path

    Returns
    -------
    str

    Notes
    -----
    What lies in ``reports/`` is output and not code: the ledger itself changes with every run.
    """
    top = _git(repository, "rev-parse", "--show-toplevel")
    # An unpacked archive inside somebody's clone would otherwise pass for a commit of that clone.
    if not top or Path(top).resolve() != repository.resolve():
        return "unknown"
    commit = _git(repository, "rev-parse", "--short", "HEAD")
    changes = _git(repository, "status", "--porcelain", "--", ".", ":(exclude)reports")
    if not commit or changes is None:
        return "unknown"
    return f"{commit}+dirty" if changes else commit


def _git(folder, *arguments):
    """What git says, or None where it cannot say anything."""
    # A hook that runs this sets variables that point git elsewhere.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, text=True, timeout=60, check=True, env=environment,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
