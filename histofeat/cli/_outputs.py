"""Shared by the commands: print and write scores, check an output file, choose what is logged, end cleanly."""

import json
import logging
import math
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from histofeat.exceptions import counted

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


def print_scores(titles: Sequence[str], rows: Mapping[str, Sequence[Mapping[str, Any] | None]]) -> None:
    """Print a table of scores with their 95 % intervals.

    Parameters
    ----------
    titles : sequence of str
        Of the columns.
    rows : mapping of str to sequence
        The scores of each line, as `cells` takes them; None leaves a place empty.
    """
    import pandas as pd

    columns = [column for title in titles for column in (title, "95 % interval")]
    lines = [[cell for score in scores for cell in (cells(score) if score else ("", ""))] for scores in rows.values()]
    print(pd.DataFrame(lines, index=list(rows), columns=columns).to_string())


def print_metrics(columns: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Print a line for each metric that is `SHOWN`, a column for each mapping of metrics to scores."""
    from histofeat.metrics import METRIC_RECORDS

    known = [metric for metric in SHOWN if any(metric in scores for scores in columns.values())]
    scores = {METRIC_RECORDS[metric].label: [each.get(metric) for each in columns.values()] for metric in known}
    print_scores(list(columns), scores)


def give(run: Any, numbers: Any, show: Callable[[], None], output: Path | None) -> None:
    """Print the numbers of scored predictions, and write them as JSON where an output is named."""
    from histofeat.datasets import write_whole
    from histofeat.reporting import jsonable

    run.show(numbers, show)
    if output is not None:
        with write_whole(output) as part:
            part.write_text(json.dumps(jsonable(numbers), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        run.write_config(output)


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


def absolute(value: Any) -> Any:
    """Give an option as TOML holds it: paths from the root, also those in words such as NAME=FILE."""
    if isinstance(value, list | tuple):
        return [absolute(each) for each in value]
    head, equals, file = ("", "", value) if isinstance(value, Path) else str(value).rpartition("=")
    found = isinstance(value, Path) or (Path(file).suffix and Path(file).is_file())
    return f"{head}{equals}{Path(file).absolute()}" if found else value


def command_words(ctx: Any) -> str:
    """Give the command that repeats a run, with folders by their last name only: results must not tell whose disk."""
    words, named = [ctx.command_path], []
    for parameter in ctx.command.params:
        value = ctx.params.get(parameter.name)
        if value == parameter.default or value in (None, [], ()) or parameter.name == "config":
            continue
        values = value if isinstance(value, list | tuple) else [value]
        if parameter.name == "data":  # the name of a folder may be that of a patient
            words += ["DATA"] if ctx.params.get("pseudonyms") else [Path(each).resolve().name for each in values]
            continue
        for each in values:
            text = each.resolve().name if isinstance(each, Path) else str(each)
            if parameter.name == "path_prefix" or Path(text.partition("=")[2] or text).exists():
                text = re.sub(r"[^=]*[/\\]", "", text)
            named += [parameter.opts[0]] if each is True else [parameter.opts[0], text]
    return " ".join(words + named)


def device_words(evaluation: Any, pipelines: Any) -> str:
    """Say what each network ran on; the CPU where none ran."""
    ran, notes = {model.name for model in evaluation.models}, {}
    for name, pipeline in pipelines:
        for family in pipeline.families() if name in ran and hasattr(pipeline, "families") else ():
            if hasattr(family, "engine_note_"):
                named = f"cnn ({family.encoder})" if family.family == "cnn" else family.family
                notes.setdefault(family.engine_note_, {})[named] = None
    return " ".join(f"{', '.join(families)}: {note}" for note, families in notes.items()) or "CPU"


def default_output(ctx: Any, name: str) -> Path:
    """Give <dataset>-<time> in the folder of reports."""
    word = "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")
    return Path(ctx.obj["reports"]) / f"{word}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"


def say_dataset(dataset: Any) -> None:
    """Print what is in a data set, and its positive class."""
    positive = f"; positive class: {dataset.positive}" if dataset.positive else ""
    words = f"{counted(len(dataset), 'patch')} of {counted(len(set(dataset.patients)), 'patient')}"
    print(f"{dataset.name}: {words}{positive}", flush=True)


@contextmanager
def code_of_others(*, aside: bool) -> Iterator[None]:
    """Keep a run alive when it calls ``sys.exit``, and, if `aside`, what it prints out of standard output."""
    try:
        with redirect_stdout(sys.stderr) if aside else nullcontext():
            yield
    except SystemExit as error:
        if error.code == 128 + signal.SIGTERM:
            raise
        remedy = "Let your code raise an error instead."
        raise ValueError(f"exit: expected none by code of others, got sys.exit({error.code!r}). {remedy}") from error


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
    silent = [logging.getLogger(name) for name in ("tifffile", "histofeat.images._kernels")[: 1 + quiet]]
    before = [log.disabled for log in silent]
    for log in silent:
        log.disabled = True
    try:
        yield
    finally:
        for log, was in zip(silent, before, strict=True):
            log.disabled = was
