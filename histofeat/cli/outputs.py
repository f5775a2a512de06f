"""What the commands share: files that are written once, and a line of progress on stderr."""

from __future__ import annotations

import sys
import time
from pathlib import Path

__all__ = ["Progress", "check_output"]

#: Seconds between two lines where nobody watches, and between two states of one line where somebody does.
_QUIET_S, _WATCHED_S = 30.0, 0.2


def check_output(output: Path | None) -> None:
    """Refuse before the work what could not be written after it.

    Parameters
    ----------
    output : Path or None
        A future file; None is fine.

    Raises
    ------
    ValueError
        If it exists, or its folder does not.
    """
    if output is not None and output.exists():
        raise ValueError(f"{output}: expected a new file, got one that exists. Give another name, or remove it.")
    if output is not None and not output.parent.is_dir():
        raise ValueError(f"{output}: expected a file in a folder that exists, got none there. Make the folder first.")


class Progress:
    """Says on stderr how far a stage is: one line that is written over in a terminal, a line now and then in a log.

    Parameters
    ----------
    quiet : bool
        Whether to say nothing.
    """

    def __init__(self, *, quiet: bool = False):
        self.quiet, self.watched = quiet, sys.stderr.isatty()
        self.told, self.open, self.began = float("-inf"), False, {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take note of `done` of `total` steps of a stage."""
        now = time.monotonic()
        began = self.began.setdefault(stage, now)
        finished = done >= total
        if self.quiet or (not finished and now - self.told < (_WATCHED_S if self.watched else _QUIET_S)):
            return
        self.told = now
        text = f"{stage}: {done:,} of {total:,}, {now - began:.0f} s"
        if self.watched:
            print(f"\r\033[K{text}", end="\n" if finished else "", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)
        self.open = self.watched and not finished

    def say(self, text: str) -> None:
        """Print a sentence of its own line."""
        if self.open:
            print(file=sys.stderr)
            self.open = False
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)
