"""What every study shares: its options, the patients it may look at, errors in one sentence, its folder of results."""

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent

__all__ = [
    "REPOSITORY",
    "Study",
    "command_line",
    "development_patients",
    "make_parser",
    "run_command",
    "run_study",
    "study_parser",
    "write_study",
]


@dataclass(frozen=True)
class Study:
    """What a study found, ready to be written.

    Parameters
    ----------
    title : str
        Heading of the page.
    blocks : sequence of blocks
        The page from top to bottom, of `histofeat.reporting.blocks`; a Picture names ``figures/<name>.svg``.
    results : Mapping
        Everything that the page says, for programs: the content of ``metrics.json``.
    tables : Mapping of str to DataFrame
        Written as ``<name>.csv``.
    figures : Mapping of str to (draw, data)
        Written as ``figures/<name>.svg``, with ``data`` beside it as JSON.
    """

    title: str
    blocks: tuple
    results: Mapping[str, Any]
    tables: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, tuple] = field(default_factory=dict)


def run_study(name, arguments=None):
    """Run the study of this name and write its page; returns the exit code."""
    # Read by OpenMP when xgboost is loaded: threads that wait by spinning take the cores from those that work.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from histofeat.studies import find_study

    study = find_study(name)
    parser = make_parser(study)

    def run(options):
        import run_all

        from histofeat.features import Runtime
        from histofeat.reporting import check_output, write_study

        command = command_line(f"protocols/{parser.prog}", parser, options)
        check_output(options.output, overwrite=options.overwrite, option="--overwrite")
        with run_all.make_progress() as progress:
            findings = study.run(options, Runtime(n_jobs=options.n_jobs, store=options.store, progress=progress))
        page = write_study(options.output, study, findings, vars(options), command=command, overwrite=options.overwrite)
        print(f"report: {page}")

    return run_command(parser.prog, run, parser.parse_args(arguments))


def make_parser(study):
    """Give the parser of a study of the library."""
    program = f"{study.name.replace('-', '_')}.py"
    parser = study_parser(program, study.description, study.name, data=study.data)
    for name, words in study.options.items():
        parser.add_argument(f"--{name}", **words)
    return parser


def study_parser(program, description, folder, *, data=True):
    """Give a parser with the options that all studies have.

    Parameters
    ----------
    program : str
        The name of the file.
    description : str
    folder : str
        Name of the results' folder in ``reports/``.
    data : {True, False, "optional"}
        Whether the study reads images, and so has ``--data``, ``--weights`` and a store.

    Returns
    -------
    argparse.ArgumentParser
    """
    parser = argparse.ArgumentParser(prog=program, description=description)
    add = parser.add_argument
    if data:
        optional = data == "optional"
        patches = "IDC patches: DIR/PATIENT/{0,1}/*.png, or a folder that holds idc/"
        archive = "BreakHis: the tree of the archive, or a folder that holds breakhis/ (default: a synthetic cohort)"
        add("--data", type=Path, metavar="DIR", required=not optional, help=archive if optional else patches)
        add("--weights", type=Path, metavar="DIR", help="folder of ImageNet weights (default: $HISTOFEAT_WEIGHTS)")
        add("--store", type=Path, metavar="FILE", help="keep features in this file (default: keep nothing)")
    add("--output", type=Path, metavar="DIR", default=REPOSITORY / "reports" / folder,
        help=f"the folder of results (default: reports/{folder})")  # fmt: skip
    add("--overwrite", action="store_true", help="replace finished results in the output folder")
    add("--n-jobs", type=int, default=-1, metavar="N", help="threads (default: all cores)")
    add("--seed", type=int, default=0, help="seed of folds, heads and resamples (default: 0)")
    add("--quick", action="store_true", help="the smallest run, to see that everything works; its numbers say nothing")
    return parser


def run_command(program, run, options):
    """Call ``run(options)``; an error that the user can mend becomes one sentence. Returns the exit code."""
    # Read by OpenMP when xgboost is loaded: threads that wait by spinning take the cores from those that work.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        run(options)
    except (ValueError, ImportError, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted, no report was written", file=sys.stderr)
        return 130
    return 0


def development_patients(options):
    """Load the IDC patches of all patients but the 49 of the official test set, which studies leave alone.

    With ``--quick`` some patches of some of these patients.
    """
    from histofeat.studies import load_development_patients

    return load_development_patients(options.data, quick=options.quick, random_state=options.seed)


def command_line(script, parser, options):
    """Give the command that repeats a run, with folders by their last name only: results must not tell whose disk."""
    words = ["python", f"benchmarks/{script}"]
    for name, value in vars(options).items():
        if value == parser.get_default(name):
            continue
        words.append(f"--{name.replace('_', '-')}")
        if isinstance(value, Path):
            words.append(value.resolve().name)
        elif isinstance(value, list):
            words += map(str, value)
        elif value is not True:
            words.append(str(value))
    return " ".join(words)


def write_study(study, options, *, command):
    """Write the page, its numbers, tables and figures into ``options.output``.

    Returns
    -------
    pathlib.Path
        ``report.md`` in that folder; ``report.html`` lies beside it.
    """
    from histofeat.reporting import (
        Facts,
        Heading,
        Notice,
        Redactor,
        describe_environment,
        dump,
        finish,
        jsonable,
        new_folder,
        save_figure,
        to_html,
        to_markdown,
    )

    redact = Redactor({Path.cwd(): ".", Path.home(): "~"})
    environment = describe_environment()
    facts = {"command": command, "processor": f"{environment['cpu']}, {environment['cores']} cores"}
    quick = (Notice("warning", "Quick run", ("It shows that everything works. Its numbers say nothing.",)),)
    blocks = [
        Heading(study.title, 1),
        *(quick if options.quick else ()),
        *study.blocks,
        Heading("How this was made"),
        Facts(tuple(facts.items())),
    ]
    with new_folder(options.output, overwrite=options.overwrite) as folder:
        (folder / "figures").mkdir()
        for name, (draw, data) in study.figures.items():
            plain = redact(jsonable(data))
            save_figure(draw, plain, folder / f"figures/{name}.svg")
            dump(plain, folder / f"figures/{name}.json")
        for name, table in study.tables.items():
            table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
        (folder / "report.md").write_text(to_markdown(blocks), encoding="utf-8", newline="\n")
        (folder / "report.html").write_text(to_html(blocks, study.title, folder), encoding="utf-8", newline="\n")
        payload = {"title": study.title, "quick": options.quick, "command": command, "environment": environment}
        finish(folder, redact(jsonable({**payload, "results": study.results})))
    return options.output / "report.md"
