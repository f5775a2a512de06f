"""The command ``histofeat``: parse arguments, call the library, print. Each command has a file of its own."""

import os
import re
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

import histofeat
from histofeat.cli._options import built_command
from histofeat.cli._outputs import chosen_logs, ended_cleanly, let_go

__all__ = ["app", "main"]

#: The commands, under their headings in ``--help``: module and function of each, imported when it is asked for.
COMMANDS = {
    "Data": {"audit": ("_listing", "audit"), "extract": ("_extraction", "extract"), "fetch": ("_doctor", "fetch")},
    "Models": {"train": ("_training", "train"), "predict": ("_prediction", "predict"), "map": ("_mapping", "map_")},
    "Evaluation": {
        "compare": ("_comparison", "compare"),
        "report": ("_comparison", "report"),
        "study": ("_studies", "study"),
        "score": ("_scoring", "score"),
        "power": ("_scoring", "power"),
        "evaluate": ("_external_validation", "evaluate"),
    },
    "Tools": {
        "info": ("_listing", "info"),
        "list": ("_listing", "list_names"),
        "store": ("_listing", "store"),
        "doctor": ("_doctor", "doctor"),
    },
}


class _Commands(typer.core.TyperGroup):
    """The commands of the table, each imported when it is asked for."""

    def __init__(self, **settings):
        super().__init__(**settings)
        # Without commands yet, but with their names: typer suggests the nearest of these.
        self.commands = {name: None for commands in COMMANDS.values() for name in commands}

    def get_command(self, ctx, cmd_name):
        """Give a command by its name; None where there is none."""
        if cmd_name in self.commands and self.commands[cmd_name] is None:
            self.commands[cmd_name] = _built(cmd_name)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx, formatter):
        """List the commands under their headings."""
        for heading, names in COMMANDS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, self.get_command(ctx, name).get_short_help_str(200)) for name in names])


def _built(name: str):
    """Build the command that typer runs from its function; the examples of the docstring end its help."""
    module, function = next(commands[name] for commands in COMMANDS.values() if name in commands)
    function = getattr(import_module(f"histofeat.cli.{module}"), function)
    if isinstance(function, typer.Typer):
        function.info.name = name
        return typer.main.get_command(function)
    help, _, examples = function.__doc__.partition("\n    Examples\n    --------\n")
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    epilog = "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in lines)]) if lines else None
    return built_command(function, name, help, epilog)


app: typer.Typer = typer.Typer(
    cls=_Commands,
    rich_markup_mode=None,
    help="Honest baselines on breast histology, by patient: train models, predict with them, evaluate them and other "
    "systems on patients that they have not seen.",
    epilog="Exit status: 0; 1 where images had to be left out, the doctor found a fault, a split has errors, or the "
    "reader of the output has gone; 2 after one sentence about what is wrong with the input; 130 after Ctrl-C; 143 "
    "after SIGTERM.",
)
#: What typer raises about words that it cannot read; older versions take the class from another package.
_UsageError = typer.BadParameter.__bases__[0]


def main(
    arguments: list[str] | None = None, *, commit: str = "", reports: str | os.PathLike[str] = "histofeat-reports"
) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : list of str, optional
        Words after ``histofeat``; by default those of the process.
    commit : str, optional
        What a ledger names as the commit of the code; by default the version of histofeat.
    reports : path, default="histofeat-reports"
        Where folders of reports are made that no option names.

    Returns
    -------
    code : int
        0; 1 where `predict` had to leave out images, or a split has errors; 2 after one sentence on stderr about what
        is wrong with the input. 1 too, without a word, where the reader of the output has gone. 130 after Ctrl-C;
        SIGTERM raises `SystemExit` with 143.
    """
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115  (closed by the caller)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names of files may hold what the terminal or a file cannot show
            stream.reconfigure(errors="backslashreplace")
    command, caller = typer.main.get_command(app), {"commit": commit, "reports": reports}
    try:
        with warnings.catch_warnings(), ended_cleanly(), chosen_logs(quiet="--quiet" in (arguments or sys.argv)):
            warnings.showwarning = _show_warning
            code = command.main(args=arguments, prog_name="histofeat", standalone_mode=False, obj=caller) or 0
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # the reader has what it wanted, as in `histofeat audit DIR | head -1`
        let_go(sys.stdout)
        return 1
    except _UsageError as error:
        words, ran = error.format_message(), _ran(command)
        where = "histofeat" if ran is command else f"histofeat {ran.name}"
        message = f"{words if words.endswith(('.', '?')) else words + '.'} See `{where} --help`."
    except (ValueError, ImportError) as error:
        message = _as_options(str(error), _ran(command))
    except OSError as error:
        usable = "exists" if isinstance(error, FileNotFoundError) else "can be used"
        where = error.filename or "standard output"
        got = f"{where}: expected a file or folder that {usable}, got {error.strerror}. Correct the path."
        message = _as_options(str(error), _ran(command)) if error.strerror is None else got
    print(f"histofeat: {message}", file=sys.stderr)
    return 2


def _ran(group):
    """Give the command that ran: the only one that was built; the group if there was none."""
    return next((_ran(each) for each in filter(None, getattr(group, "commands", {}).values())), group)


#: Arguments of Python whose option has another name, where the command has it.
_ALIASES = {"weights_dir": "weights", "random_state": "seed", "n_resamples": "resamples", "prefixes": "path_prefix"}
_ALIASES["pipelines"] = "pipeline"


def _as_options(message: str, command) -> str:
    """Name options of a command where a message of the library names arguments of Python."""
    where, colon, rest = message.partition(":")
    if colon and os.path.exists(where):  # noqa: PTH110  (text of any length: a path would refuse it)
        return where + colon + _as_options(rest, command)
    # The library has no argument `json`: it is the end of a file's name.
    known = {parameter.name: parameter.opts[0] for parameter in command.params if parameter.name != "json"}
    known |= {name: known[alias] for name, alias in _ALIASES.items() if alias in known}
    known = {name: option for name, option in known.items() if option.startswith("--")}
    names = "|".join(known)
    function = re.match(r"([a-z]\w*)(?:\.(\w+))?(?=: expected )", message)
    faces = [face for name, face in [*sys.modules.items()] if name.startswith("histofeat.")]
    if function and any(function[1] in getattr(face, "__all__", ()) for face in faces) and function[1] not in known:
        message = (function[2] or command.name) + message[function.end() :]
    message = re.sub(rf"^(?:\w+\.)?({names}):", lambda found: f"{known[found[1]]}:", message)
    message = re.sub("^y:", "labels:", message)
    message = re.sub(rf"\b({names})=[^\s;,()]+ \(--\w[\w-]*\)", lambda found: known[found[1]], message)
    given = re.compile(rf"\b({names})=r?(\"[^\"]*\"|'[^']*'|<[^>]*>|\.\.\.|\w+(?:\.\w+)*)")
    message = given.sub(lambda found: f"{known[found[1]]} {found[2].strip('.')}".rstrip(), message)
    # A word with "_" is no English.
    bare = "|".join(name for name in known if "_" in name) or "_"
    message = re.sub(rf"(?<![\w/'\".-])({bare})(?![\w/'\"=])", lambda found: known[found[1]], message)
    return re.sub(r"^FeatureStore\('(.*?)'\):", r"\1:", message).replace("got None.", "got none.")


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Print a warning as a sentence, without the line of code that gave it."""
    print(f"histofeat: warning: {message}", file=sys.stderr)


def _print_version(asked: bool) -> None:
    if asked:
        print(histofeat.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
