"""Shared by the commands: check an output file, choose what is logged, end cleanly."""

import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

#: Metrics of a table of scores, in its order.
SHOWN = ("roc_auc", "average_precision", "balanced_accuracy", "f1", "sensitivity", "specificity", "brier")


def cells(score: Mapping[str, Any]) -> tuple[str, str]:
    """Write a score and its 95 % interval, which is "" where there is none.

    Parameters
    ----------
    score : mapping
        With ``value`` and ``ci95``, as `Score.to_dict` gives it.
    """
    value, (low, high) = score["value"], score["ci95"]
    shown = "undefined" if value is None or math.isnan(value) else f"{value:.4f}"
    return shown, "" if low is None or math.isnan(low) else f"{low:.4f} to {high:.4f}"


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


def classes_of(model: Any) -> str:
    """Classes of a saved model, and which of two is positive: part of the first line of what a command prints."""
    positive = f"; positive class: {model.positive}" if model.positive else ""
    return f"classes {', '.join(model.class_names)}{positive}"


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
        try:
            sys.stderr.flush()
        except (OSError, ValueError):  # what its reader never got would be an error at the exit
            let_go(sys.stderr)


@contextmanager
def chosen_logs(*, quiet: bool) -> Iterator[None]:
    """Keep the log lines of tifffile off stderr in a block, and, if `quiet`, that kernels are compiled."""
    silent = ("tifffile", "histofeat.images._kernels")[: 1 + quiet]
    for name in silent:
        logging.getLogger(name).disabled = True
    try:
        yield
    finally:
        for name in silent:
            logging.getLogger(name).disabled = False
