"""The folder of results: written beside its place, and moved there when it is complete."""

from contextlib import contextmanager
from pathlib import Path

from histofeat.datasets import write_whole
from histofeat.reporting._strict_json import PathLike, dump, load

#: Written last and moved last: the file that makes a folder a finished report.
FINISHED = "metrics.json"


@contextmanager
def new_folder(output, *, overwrite=False):
    """Give a folder to write into; when the block ends without an error, its files move to `output`.

    Parameters
    ----------
    output : path-like
        Made when it is not there. A finished report in it is replaced only with `overwrite`, and then only the files of
        that report are removed.
    overwrite : bool, default=False
        Whether to replace a finished report.

    Yields
    ------
    pathlib.Path
        An empty folder beside `output`; the block ends with `finish`.

    Raises
    ------
    FileExistsError
        As `check_output` says.
    """
    output = Path(output)
    check_output(output, overwrite=overwrite)
    with write_whole(output, folder=True, parents=True, last=FINISHED) as part:
        yield part
        if (output / FINISHED).exists():
            _remove_report(output)


def finish(folder, payload):
    """Write `payload`, with the list of all files of `folder`, as the file that says that the report is complete."""
    written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    dump({**payload, "files": [FINISHED, *written]}, folder / FINISHED)


def check_output(output: PathLike, *, overwrite: bool = False, option: str = "overwrite=True") -> None:
    """Check that a report may be written to a folder; cheap, so that it can come before hours of work.

    Parameters
    ----------
    output : path-like
    overwrite : bool
    option : str
        How the user of the caller asks for a finished report to be replaced.

    Raises
    ------
    FileExistsError
        As `write_report` says.
    """
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"output: expected a folder, got the file {str(output)!r}. Choose another name.")
    if (output / FINISHED).exists():
        if not overwrite:
            raise FileExistsError(
                f"output: expected a new folder, got {str(output)!r}, which holds a finished report. "
                f"Choose another name, or pass {option} to replace it."
            )
    elif output.is_dir() and any(output.iterdir()):
        raise FileExistsError(
            f"output: expected a new or an empty folder, got {str(output)!r}, which holds other files "
            f"({min(path.name for path in output.iterdir())!r}) and no finished report. Choose another name."
        )


def _remove_report(output):
    """Remove the files that a finished report lists, the mark of being finished first; nothing else."""
    listed = load(output / FINISHED).get("files", [])
    (output / FINISHED).unlink()
    for name in listed:
        path = output / name
        # A list edited by hand must not reach outside the report.
        if path.resolve().is_relative_to(output.resolve()) and path.is_file():
            path.unlink()
            _remove_emptied(path.parent, output)


def _remove_emptied(folder, output):
    """Remove a folder that the report has emptied, and its parents up to the folder of the report."""
    while folder.resolve() != output.resolve() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
