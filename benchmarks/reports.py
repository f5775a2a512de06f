"""Make the reports of this project again, each by its command, and the tables of the pages that show them.

    make reports                               # all of them: hours
    make reports ONLY="idc-sample leakage"     # those that a change touches
    make full DATA=dir                         # idc-full and README's results, from the folder of all of IDC
    python benchmarks/reports.py --list        # what each is made by

HISTOFEAT_DATA names a folder that holds idc, idc_second, idc_slides and breakhis, HISTOFEAT_WEIGHTS one of ImageNet
weights, HISTOFEAT_FULL all of IDC, for idc-full, which is made if it is named. idc-full and the last five score the
official test patients of IDC, and the first tests them among all others by cross-validation: each run of theirs is a
look, and adds to reports/test_ledger.csv.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from study import REPOSITORY, run_command

REPORTS = REPOSITORY / "reports"
#: Report of all of IDC, and the patches that this is.
FULL, FULL_SIZE = "idc-full", 277_524
#: Folder of a report -> its command, without --output; words in capitals are those of `PLACES`.
COMMANDS = {
    "idc-sample": "run_all.py --data IDC --weights WEIGHTS --no-store",
    FULL: "run_all.py --data FULL",
    "leakage": "study.py leakage --data IDC --weights WEIGHTS",
    "interval-coverage": "study.py interval-coverage",
    "calibration": "study.py calibration --data IDC --weights WEIGHTS",
    "breakhis-sample": "study.py breakhis --data BREAKHIS",
    "ladder-breakhis": "run_all.py --data BREAKHIS --magnification 100 --weights WEIGHTS --ladder",
    "shortcuts": "study.py shortcuts --data IDC --weights WEIGHTS",
    "robustness": "study.py robustness --data IDC --weights WEIGHTS",
    "normalization": "study.py normalization --data IDC --weights WEIGHTS",
    "learning-curves": "study.py learning-curves --data IDC --features color haralick handcrafted --draws 3",
    "explanation": "study.py explanation --data IDC --weights WEIGHTS",
    "encoders": "study.py encoders --data IDC --weights WEIGHTS --heads logistic",
    "planted-leaks": "study.py planted-leaks --data DATA SECOND",
    "head-defaults": "study.py head-defaults --data IDC",
    "official-candidates": "study.py official-candidates --data IDC --weights WEIGHTS",
    "robustness-of-the-program": "study.py program-robustness --data IDC",
    "speed": "speed/run.py --full --data DATA --weights WEIGHTS",
    "speed-scaling": "speed/scaling.py",
    "slide-map-synthetic": "slide_map.py",
    "idc-official-sample": "study.py idc-official --data IDC --add-unlisted --threshold youden --plan "
    "benchmarks/protocols/idc_official_plan.json",
    "ladder-idc": "run_all.py --data IDC --weights WEIGHTS --ladder --split idc-official",
    "idc-networks-sample": "study.py idc-networks --data IDC --weights WEIGHTS",
    "idc-encoder-sample": "study.py idc-encoder --data IDC --breakhis BREAKHIS --weights WEIGHTS",
    "slide-map-8864": "slide_map.py --data IDC --patient PATIENT",
}
#: Word of a command -> environment variable of a folder, and the folders in it that it stands for.
PLACES = {
    "IDC": ("HISTOFEAT_DATA", ("idc", "idc_second")),
    "FULL": ("HISTOFEAT_FULL", ("",)),
    "SECOND": ("HISTOFEAT_DATA", ("idc_second",)),
    "BREAKHIS": ("HISTOFEAT_DATA", ("breakhis",)),
    "PATIENT": ("HISTOFEAT_DATA", ("idc_slides/8864",)),
    "DATA": ("HISTOFEAT_DATA", ("",)),
    "WEIGHTS": ("HISTOFEAT_WEIGHTS", ("",)),
}
#: Report -> the page that shows its scores.
PAGES = {
    "idc-sample": "README.md",
    FULL: "README.md",
    "ladder-idc": "docs/results.md",
    "idc-encoder-sample": "histofeat/networks/pretrained/shipped/histo/MODEL_CARD.md",
}
#: Report -> another that its page shows too: of README patients whom the shipped encoder never saw.
BELOW = dict.fromkeys(("idc-sample", FULL), "idc-encoder-sample") | {"ladder-idc": "ladder-breakhis"}


def make_parser():
    """Build the command line."""
    parser = argparse.ArgumentParser(prog="reports.py", description="Make reports again, each by its command.")
    add = parser.add_argument
    add("only", nargs="*", metavar="REPORT", help=f"{', '.join(COMMANDS)} (default: all but {FULL})")
    add("--list", action="store_true", help="print the commands and make nothing")
    add("--output", type=Path, default=REPORTS, metavar="DIR", help="where the reports' folders lie; pages are written "
        "for reports/ only (default: reports)")  # fmt: skip
    return parser


def main(arguments=None):
    """Make the reports; returns the exit code."""
    return run_command("reports.py", run, make_parser().parse_args(arguments))


def run(options):
    """Refuse what can be refused; make one report after another; name those that failed at the end."""
    from histofeat.studies import check_names

    check_names("REPORT", options.only, COMMANDS)
    chosen = [name for name in COMMANDS if name in options.only or (not options.only and name != FULL)]
    if options.list:
        print("\n".join(f"{name}: python benchmarks/{COMMANDS[name]}" for name in chosen))
        return
    # All of them before the first, which may take an hour.
    output = options.output.resolve()
    commands = {name: [*filled(COMMANDS[name]), "--output", str(output / name)] for name in chosen}
    if FULL in commands:
        check_full(filled("FULL"))
    pages = output == REPORTS
    failed = [name for name, command in commands.items() if not make(name, command, pages=pages)]
    if failed:
        raise ValueError(
            f"expected {len(chosen)} reports, got {len(chosen) - len(failed)}: {', '.join(failed)} failed. "
            "Their errors stand above."
        )


def filled(command):
    """Return the words of a command, with folders for those of `PLACES`.

    Raises
    ------
    ValueError
        If an environment variable is not set, or there is no such folder.
    """
    words = []
    for word in command.split():
        words += folders_of(word) if word in PLACES else [word]
    return words


def check_full(folders):
    """Refuse folders that do not hold all of IDC: README's results are then of something else."""
    from histofeat import load_idc

    n = len(load_idc(folders))
    if n != FULL_SIZE:
        raise ValueError(f"{FULL}: expected all {FULL_SIZE:,} patches of IDC, got {n:,}. Name the folder of all.")


def folders_of(word):
    """Return the folders that a word of `PLACES` stands for."""
    variable, names = PLACES[word]
    home = os.environ.get(variable)
    if not home:
        raise ValueError(f"{variable}: expected a folder, got none. Set this environment variable.")
    folders = [Path(home).resolve() / name for name in names]
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{variable}: expected the folder {folder}, got none there. Correct the variable.")
    return map(str, folders)


def make(name, command, *, pages):
    """Run a command and write its page; returns whether both went well."""
    print(f"{name}: {shlex.join(['python', f'benchmarks/{command[0]}', *command[1:]])}", flush=True)
    started = time.perf_counter()
    code = start(*command, "--overwrite")
    if code == 0 and pages and name in PAGES:
        shown = [str(REPORTS / report) for report in (name, BELOW.get(name)) if report]
        code = start("readme_table.py", *shown, "--readme", str(REPOSITORY / PAGES[name]))
    how = f"FAILED, exit code {code}," if code else "made"
    print(f"{name}: {how} in {time.perf_counter() - started:,.0f} s", flush=True)
    return code == 0


def start(script, *words):
    """Run a script of this folder in a process of its own; returns its exit code, below 0 where a signal ended it."""
    command = [sys.executable, REPOSITORY / "benchmarks" / script, *words]
    return subprocess.run(command, cwd=REPOSITORY, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
