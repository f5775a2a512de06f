"""The command ``histofeat``: parse arguments, call the library, print. Training, prediction and scores have files."""

import re
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

import histofeat
from histofeat.cli._outputs import ended_cleanly, let_go
from histofeat.cli._prediction import predict
from histofeat.cli._scoring import score
from histofeat.cli._training import train

__all__ = ["app", "main"]

app: typer.Typer = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Train a model on breast histology and predict with it, by patient; list the content of a folder or a feature "
    "store; score predictions on a published split.",
)
#: What typer raises about words that it cannot read; older versions take the class from another package.
_UsageError = typer.BadParameter.__bases__[0]


def audit(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="The folder with PATIENT/{0,1}/*.png, or several as one.")
    ],
) -> None:
    """List what IDC folders hold together, and what was left out and why."""
    from histofeat.datasets import load_idc

    print(f"{', '.join(map(str, folders))}:\n{load_idc(folders).audit.summary()}")


def store(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The store's file.")],
    purge: Annotated[str | None, typer.Option(metavar="FAMILY", help="Remove what is stored of this family.")] = None,
) -> None:
    """List the content of a feature store by family."""
    from histofeat.features import FeatureStore

    if not file.is_file():
        raise ValueError(f"{file}: expected a feature store, found no such file. Correct the path.")
    if purge is not None:
        print(f"removed {FeatureStore(file).purge(purge):,} rows of {purge}")
    print(FeatureStore(file).summary())


for _command in (train, predict, audit, store, score):
    app.command()(_command)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : list of str, optional
        Words after ``histofeat``; by default those of the process.

    Returns
    -------
    code : int
        0; 1 where `predict` had to leave out images; or 2 after one sentence on stderr about what is wrong with the
        input. 1 too, without a word, where the reader of the output has gone. 130 after Ctrl-C; SIGTERM raises
        `SystemExit` with 143.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names of files may hold what the terminal or a file cannot show
            stream.reconfigure(errors="backslashreplace")
    command = typer.main.get_command(app)
    try:
        with warnings.catch_warnings(), ended_cleanly():
            warnings.showwarning = _show_warning
            code = command.main(args=arguments, prog_name="histofeat", standalone_mode=False) or 0
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # the reader has what it wanted, as in `histofeat audit DIR | head -1`
        let_go(sys.stdout)
        return 1
    except _UsageError as error:
        words = error.format_message()
        message = f"{words if words.endswith(('.', '?')) else words + '.'} See `histofeat --help`."
    except (ValueError, ImportError) as error:
        message = _as_options(str(error), command)
    except OSError as error:
        got = f"{error.filename}: expected a file or folder that can be used, got {error.strerror}. Correct the path."
        message = str(error) if error.strerror is None else got
    print(f"histofeat: {message}", file=sys.stderr)
    return 2


def _as_options(message: str, command) -> str:
    """Name options where a message of the library names arguments of Python."""
    known = {parameter.name: parameter.opts[0] for each in command.commands.values() for parameter in each.params}
    known = {name: option for name, option in known.items() if option.startswith("--")}
    names = "|".join(known)
    message = re.sub(rf"^(?:\w+\.)?({names}):", lambda found: f"{known[found[1]]}:", message)
    message = re.sub(rf"\b({names})=[^\s;,()]+ \(--\w[\w-]*\)", lambda found: known[found[1]], message)
    given = re.compile(rf"\b({names})=r?(\"[^\"]*\"|'[^']*'|\.\.\.|\w+(?:\.\w+)*)")
    message = given.sub(lambda found: f"{known[found[1]]} {found[2].strip('.')}".rstrip(), message)
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
