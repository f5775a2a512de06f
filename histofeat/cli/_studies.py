"""``histofeat study NAME``: a question asked of a data set, answered by a page with its numbers, tables and figures."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import typer

from histofeat.cli._comparison import command_words, open_runtime, say_dataset, split_list
from histofeat.cli._options import DataOptions, RunOptions, Weights, expanded, flag, group, option

#: Studies outside the library by name: functions that give them.
MORE: dict[str, Callable[[], Any]] = {}
#: Of `DataOptions`, what a study does not take that reads folders of its own kind.
_READING = ("format", "patients", "target", "magnification", "duplicates", "path_prefix", "only")


class Studies(typer.core.TyperGroup):
    """The studies as commands, each built when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Give the names of the studies."""
        from histofeat.studies import STUDIES

        return [*STUDIES, *MORE]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Give a study as a command; None where there is none."""
        from histofeat.studies import find_study

        if cmd_name not in self.list_commands(ctx):
            return None
        self.commands[cmd_name] = command_of(MORE[cmd_name]() if cmd_name in MORE else find_study(cmd_name))
        return self.commands[cmd_name]


study: typer.Typer = typer.Typer(
    cls=Studies,
    add_completion=False,
    rich_markup_mode=None,
    epilog="\b\nExamples:\n  histofeat study leakage idc --features color,handcrafted --n-jobs -1\n"
    "  histofeat study shortcuts breakhis --magnification 100",
)


@study.callback()
def _study() -> None:
    """Answer a question about a data set by a page; `histofeat study NAME --help` lists its options."""


def command_of(study: Any) -> Any:
    """Build the command of a study.

    Parameters
    ----------
    study : histofeat.studies.Study

    Returns
    -------
    command : click.Command
    """
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(f"study {study.name}", help=study.description)(expanded(_function(study)))
    return typer.main.get_command(alone)


def _function(study):
    """Give the function of a study, whose signature has its options."""
    data = {"any": DataOptions, False: None}.get(study.data, group(DataOptions, without=_READING))
    runs = group(RunOptions, without=["json"] if study.data else ["json", "store", "no_store", "ledger"])
    shown = {"ctx": (typer.Context, ...), "data": (data, ...), "run": (runs, ...)}
    shown["weights"] = (Weights if study.data else None, None)
    shown |= {name.replace("-", "_"): _option(name, **described) for name, described in study.options.items()}
    shown["output"] = option(Path | None, "DIR", "Folder of the page.  [default: histofeat-reports/NAME]"), None
    shown["overwrite"] = flag("--overwrite", "Replace a finished page in the output folder."), False
    shown["quick"] = flag("--quick", "The smallest run, to see that all works; its numbers say nothing."), False
    shown = {name: known for name, known in shown.items() if known[0] is not None}

    def function(ctx, run, output, data=None, **own):
        _run(study, ctx, run, output, data, own)

    function.__name__ = f"study {study.name}"
    function.__annotations__ = {name: kind for name, (kind, _) in shown.items()}
    kind = inspect.Parameter.KEYWORD_ONLY
    function.__signature__ = inspect.Signature(
        [
            inspect.Parameter(name, kind, default=inspect.Parameter.empty if default is ... else default)
            for name, (_, default) in shown.items()
        ]
    )
    return function


def _option(name, *, help, default=None, type=str, nargs=None, action=None, metavar=None, choices=()):
    """Give type and default of an option that a study describes by keywords of ``argparse``."""
    help = re.sub(r" \(default: .*\)$", "", help)
    help = help[:1].upper() + help[1:] + "."
    if action:
        return flag(f"--{name}", help), False
    if nargs:
        return option(str, "LIST", f"{help[:-1]}; separated by commas.", f"--{name}"), ",".join(map(str, default))
    return option(type | None, metavar or "|".join(choices), help, f"--{name}"), default


def _values(study, own):
    """Turn options of the command line into what the study takes: lists, and only what may be chosen."""
    from histofeat.exceptions import check_name

    for name, described in study.options.items():
        attribute, kind = name.replace("-", "_"), described.get("type", str)
        if "nargs" in described:
            try:
                own[attribute] = [kind(word) for word in split_list(own[attribute])]
            except ValueError as error:
                words = f"expected {kind.__name__} values with commas between, got {own[attribute]!r}"
                raise ValueError(f"--{name}: {words}. Write {described['default'][0]}.") from error
        if "choices" in described:
            check_name(f"--{name}", own[attribute], described["choices"])
    return own


def _run(study, ctx, run, output, data, own):
    """Check what can be checked, run the study, write its page."""
    from histofeat.reporting import check_output, write_study

    def opened():
        dataset = data.open()
        say_dataset(dataset)
        return dataset

    output = output or Path(ctx.obj["reports"]) / (study.folder or study.name)
    check_output(output, overwrite=own["overwrite"], option="--overwrite")
    options = SimpleNamespace(**_values(study, own), output=output, **vars(run))
    if data is not None:
        options.data, options.open = [Path(path) for path in data.data or ()] or None, opened
        if study.data is True and options.data is None:
            raise ValueError(f"{study.name}: expected a folder of images, got none. Name it behind the study.")
    command = command_words(ctx)
    runtime = open_runtime(ctx, run, data.on_error if data else None, usual=None)
    findings = study.run(options, runtime)
    page = write_study(output, study, findings, vars(options), command=command, overwrite=options.overwrite)
    run.write_config(output)
    print(f"report: {page}")
