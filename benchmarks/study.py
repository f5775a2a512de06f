"""Run a study by its name; and what every script shares: options, errors, commands, folders.

    python benchmarks/study.py --help
    python benchmarks/study.py leakage --data /path/to/idc --weights /path/to/weights
    python benchmarks/study.py breakhis --data /path/to/BreaKHis_v1
    python benchmarks/study.py interval-coverage
    python benchmarks/study.py idc-networks --data /path/to/idc --weights /path/to/weights --development

The studies and their options are in histofeat/studies, and in benchmarks/protocols those that a user of the library
does not need. Those on IDC leave the official test patients alone, but for idc-encoder and for idc-networks without
--development. Each writes its page, numbers, tables and figures to a folder of reports/.
"""

import argparse
import importlib
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path += [str(REPOSITORY / "benchmarks"), str(REPOSITORY / "benchmarks" / "protocols")]

#: Studies in benchmarks/protocols, each the `STUDY` of the file of its name.
PROTOCOLS = ("idc-encoder", "idc-networks", "official-candidates", "program-robustness")
ON_ERROR = {
    "choices": ("raise", "skip"),
    "default": "raise",
    "help": "at images that cannot be read: stop, or go on without them and name them in the report (default: raise)",
}
LEDGER = {
    "type": Path,
    "metavar": "FILE",
    "default": REPOSITORY / "reports" / "test_ledger.csv",
    "help": "where looks at registered test patients are written down (default: reports/test_ledger.csv)",
}


def main(arguments=None):
    """Run the study that the first argument names; returns the exit code."""
    from histofeat.studies import STUDIES, find_study

    parser = argparse.ArgumentParser(prog="study.py", description="Run a study and write its page.")
    parser.add_argument("study", choices=[*STUDIES, *PROTOCOLS], help="study.py STUDY --help lists the options of one")
    parser.add_argument("options", nargs=argparse.REMAINDER)
    chosen = parser.parse_args(arguments)
    listed = chosen.study in STUDIES
    study = find_study(chosen.study) if listed else importlib.import_module(chosen.study.replace("-", "_")).STUDY
    return run_study(study, chosen.options)


def run_study(study, arguments=None):
    """Run a study and write its page; returns the exit code."""
    parser = make_parser(study)

    def run(options):
        from histofeat.features import Progress, Runtime
        from histofeat.reporting import check_output, write_study

        command = command_line(parser.prog, parser, options)
        check_output(options.output, overwrite=options.overwrite, option="--overwrite")
        ledger = make_ledger(options, command) if study.data else None
        runtime = Runtime(
            options.n_jobs,
            getattr(options, "store", None),
            Progress(),
            ledger,
            on_error=getattr(options, "on_error", "raise"),
        )
        findings = study.run(options, runtime)
        page = write_study(options.output, study, findings, vars(options), command=command, overwrite=options.overwrite)
        print(f"report: {page}")

    return run_command(parser.prog, run, parser.parse_args(arguments))


def make_parser(study):
    """Give the parser of a study."""
    program, folder = f"study.py {study.name}", study.folder or study.name
    return study_parser(program, study.description, folder, study.options, data=study.data)


def study_parser(program, description, folder, options=None, *, data=True, quick=True):
    """Give a parser with the options that all studies have.

    Parameters
    ----------
    program : str
        The name of the file.
    description : str
    folder : str
        Name of the results' folder in ``reports/``.
    options : Mapping of str to Mapping, optional
        More options: names with dashes, each with the keywords of ``add_argument``.
    data : {True, False, "optional"}
        Whether the study reads images, and so has ``--data``, ``--weights`` and a store.
    quick : bool, default=True
        Whether it has ``--quick``.

    Returns
    -------
    argparse.ArgumentParser
    """
    parser = argparse.ArgumentParser(prog=program, description=description)
    add = parser.add_argument
    if data:
        words = (
            "IDC: DIR/PATIENT/{0,1}/*.png, one folder or several; BreakHis: the tree of its archive; or a folder that "
            "holds idc/, breakhis/"
        )
        add("--data", type=Path, nargs="+", metavar="DIR", required=data != "optional", help=words)
        add("--weights", type=Path, metavar="DIR", help="folder of ImageNet weights (default: $HISTOFEAT_WEIGHTS)")
        add("--store", type=Path, metavar="FILE", help="keep features in this file (default: keep nothing)")
    add("--output", type=Path, metavar="DIR", default=REPOSITORY / "reports" / folder,
        help=f"the folder of results (default: reports/{folder})")  # fmt: skip
    add("--overwrite", action="store_true", help="replace finished results in the output folder")
    add("--n-jobs", type=int, default=-1, metavar="N", help="threads (default: all cores)")
    add("--seed", type=int, default=0, help="seed of folds, heads and resamples (default: 0)")
    if quick:
        add("--quick", action="store_true", help="the smallest run, to see that all works; its numbers say nothing")
    for name, words in (options or {}).items():
        add(f"--{name}", **words)
    if data:
        add("--ledger", **LEDGER)
        add("--on-error", **ON_ERROR)
    return parser


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


def make_ledger(options, command):
    """Give the ledger for all looks of a command; its file is opened by the first."""
    from histofeat.datasets import Ledger

    # Before the work: the tree may change while it runs.
    return Ledger(options.ledger, command, commit_words(REPOSITORY), datetime.now(UTC).isoformat(timespec="seconds"))


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
