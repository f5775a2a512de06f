"""Run a study, `histofeat study`, with the reports, the ledger and the commit of this repository.

    python benchmarks/study.py --help
    python benchmarks/study.py leakage --data /path/to/idc --weights /path/to/weights
    python benchmarks/study.py breakhis --data /path/to/BreaKHis_v1
    python benchmarks/study.py interval-coverage
    python benchmarks/study.py idc-official --data /path/to/idc --add-unlisted
    python benchmarks/study.py idc-networks --data /path/to/idc --weights /path/to/weights --development

Here are also the studies of benchmarks/protocols, which a user of the library does not need. Those on IDC leave the
official test patients alone, but for idc-official, idc-encoder, and idc-networks without --development. Data may also
be named by --data, and names of a list may have blanks between them; all cores are used.
"""

import importlib
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path += [str(REPOSITORY / "benchmarks"), str(REPOSITORY / "benchmarks" / "protocols")]

#: Studies of the library that look for folders beside idc themselves.
BESIDE = ("breakhis",)
#: Studies in benchmarks/protocols, each the `STUDY` of the file of its name.
PROTOCOLS = (
    *("head-defaults", "idc-encoder", "idc-networks"),
    *("official-candidates", "planted-leaks", "program-robustness"),
)
LEDGER_FILE = REPOSITORY / "reports" / "test_ledger.csv"


def main(arguments=None):
    """Run the study that the first argument names; returns the exit code."""
    from histofeat.cli import _studies

    _studies.PROGRAM = "python benchmarks/study.py"
    for name in PROTOCOLS:
        _studies.MORE[name] = partial(protocol, name)
    words = sys.argv[1:] if arguments is None else arguments
    return call("study", words, looks="interval-coverage" not in words, beside=not {*words} & {*BESIDE, *PROTOCOLS})


def protocol(name):
    """Give a study of benchmarks/protocols by its name."""
    return importlib.import_module(name.replace("-", "_")).STUDY


def call(command, words, *, looks=True, beside=True):
    """Run a command of histofeat with the reports, the ledger and the commit of this repository."""
    from histofeat.cli import main

    words, own = translated(words, beside=beside), {"--n-jobs": "-1"}
    if looks:
        own["--ledger"] = str(LEDGER_FILE)
    for option, value in own.items():
        words += [] if option in words or "--help" in words else [option, value]
    return main([command, *words], commit=commit_words(REPOSITORY), reports=REPOSITORY / "reports")


def translated(words, *, beside=False):
    """Give words as histofeat takes them: data as arguments, lists with commas.

    With `beside`, a folder that holds ``idc`` stands for that one.

    Examples
    --------
    >>> translated(["leakage", "--features", "color", "lbp", "--quick", "--data", "here", "there"])
    ['leakage', 'here', 'there', '--features', 'color,lbp', '--quick']
    """
    found = [[""]]
    for word in words:
        found.append([word]) if re.match("--?[a-z]", word) else found[-1].append(word)
    given = [(option, values) for option, *values in found if option not in ("", "--data")]
    data = [value for option, *values in found if option in ("", "--data") for value in values]
    data = [f"{one}/idc" if beside and Path(one, "idc").is_dir() else one for one in data]
    return data + [word for option, values in given for word in ([option, ",".join(values)] if values else [option])]


def run_command(program, run, options):
    """Call ``run(options)``; an error that the user can mend becomes one sentence. Returns the exit code.

    An output without a reader, as behind ``| head -1``, ends it without a word.
    """
    # Read by OpenMP when xgboost is loaded: threads that wait by spinning take the cores from those that work.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from histofeat.cli._outputs import ended_cleanly, let_go

    try:
        with ended_cleanly():
            run(options)
            sys.stdout.flush()
    except BrokenPipeError:
        let_go(sys.stdout)
        return 1
    except (ValueError, ImportError, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted, no report was written", file=sys.stderr)
        return 130
    return 0


def commit_words(repository):
    """Return the commit of the code in a folder, with "+dirty" where files differ from it; "unknown" outside a clone.

    Notes
    -----
    ``reports/`` is output and not code: the ledger itself changes with every run.
    """
    top = _git(repository, "rev-parse", "--show-toplevel")
    # An archive unpacked inside another clone must not be taken for a commit of that clone.
    if not top or Path(top).resolve() != repository.resolve():
        return "unknown"
    commit = _git(repository, "rev-parse", "--short", "HEAD")
    changes = _git(repository, "status", "--porcelain", "--", ".", ":(exclude)reports")
    if not commit or changes is None:
        return "unknown"
    return f"{commit}+dirty" if changes else commit


def _git(folder, *arguments):
    """Return what git prints, or None where it fails."""
    # A hook that runs this sets variables that point git elsewhere.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command, how = ["git", "-C", str(folder), *arguments], {"capture_output": True, "text": True, "timeout": 60}
    try:
        return subprocess.run(command, check=True, env=environment, **how).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def command_line(script, parser, options):
    """Give the command that repeats a run, with folders by their last name only: results must not tell whose disk."""
    words = ["python", f"benchmarks/{script}"]
    for name, value in vars(options).items():
        if value == parser.get_default(name):
            continue
        words.append(f"--{name.replace('_', '-')}")
        values = value if isinstance(value, list) else [] if value is True else [value]
        words += [each.resolve().name if isinstance(each, Path) else str(each) for each in values]
    return " ".join(words)


if __name__ == "__main__":
    sys.exit(main())
