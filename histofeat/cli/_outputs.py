"""Shared by the commands: check an output file, show progress on stderr, end cleanly."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

#: Seconds between two lines of a log, and between two states of one line in a terminal.
_QUIET_S, _WATCHED_S = 30.0, 0.2
#: Metrics of a table of scores, in its order.
SHOWN = ("roc_auc", "average_precision", "balanced_accuracy", "f1", "sensitivity", "specificity", "brier")


def check_output(output: Path | None) -> None:
    """Check, before the work, that a file can be written after it.

    Parameters
    ----------
    output : Path or None
        A future file; None is fine.

    Raises
    ------
    ValueError
        If it exists, or its folder does not.
    OSError
        If it cannot be written.
    """
    from histofeat.datasets import check_place

    if output is None:
        return
    check_place(output)
    if output.exists():
        raise ValueError(f"{output}: expected a new file, got one that exists. Give another name, or remove it.")
    if not output.parent.is_dir():
        raise ValueError(f"{output}: expected a file in a folder that exists, got none there. Make the folder first.")


def let_go(stream: Any) -> None:
    """Send what is still to come on a stream without a reader to nowhere, so that nothing fails at the exit."""
    with suppress(OSError, ValueError):  # a stream without a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def ended_cleanly() -> Iterator[None]:
    """Let SIGTERM end the block by `SystemExit` with status 143, so that everything cleans up as after Ctrl-C."""

    def stop(number, frame):
        raise SystemExit(128 + number)

    alone = threading.current_thread() is threading.main_thread()  # others may set no handlers
    before = signal.signal(signal.SIGTERM, stop) if alone else None
    try:
        yield
    finally:
        if alone:
            signal.signal(signal.SIGTERM, before)


class Progress:
    """Progress on stderr: one line that is updated in a terminal, a line every half minute in a log.

    Parameters
    ----------
    quiet : bool
        Whether to say nothing.
    """

    def __init__(self, *, quiet: bool = False):
        self.quiet, self.watched = quiet, sys.stderr.isatty()
        self.last, self.open, self.began = float("-inf"), False, {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps of a stage are finished."""
        now = time.monotonic()
        began = self.began.setdefault(stage, now)
        finished = done >= total
        if self.quiet or (not finished and now - self.last < (_WATCHED_S if self.watched else _QUIET_S)):
            return
        self.last = now
        text = f"{stage}: {done:,} of {total:,}, {now - began:.0f} s"
        if self.watched:
            self._print(f"\r\033[K{text}", "\n" if finished else "")
        else:
            self._print(text)
        self.open = self.watched and not finished

    def say(self, text: str) -> None:
        """Print a sentence on a line of its own."""
        if self.open:
            self._print("")
            self.open = False
        if not self.quiet:
            self._print(text)

    def _print(self, text: str, end: str = "\n") -> None:
        try:
            print(text, end=end, file=sys.stderr, flush=True)
        except (OSError, ValueError):  # nobody reads it any more, or the disk of the log is full: the work goes on
            self.quiet, self.open = True, False
            let_go(sys.stderr)
