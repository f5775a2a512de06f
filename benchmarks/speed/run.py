"""How fast is histofeat: against its peers, against its floor, and from files to features; one run on one machine.

    python benchmarks/speed/run.py                                    # synthetic images, some minutes
    python benchmarks/speed/run.py --data DIR --weights DIR --full    # real ones, and as many files as IDC has

Every benchmark checks first that both sides compute the same thing, and the run ends where they do not. Ratios that are
worse than those of the committed report by more than a quarter end it with exit code 1; its report is in OUTPUT-worse.
"""

import argparse
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study import REPOSITORY, command_line, run_command

FAMILIES = ("color", "lbp", "haralick", "pftas", "clbp", "lpq", "glcm")
#: Name of a benchmark -> module beside this file, function there; in the order of running.
BENCHMARKS = {
    "families": ("families", "measure_patches"),
    "one-channel": ("families", "measure_one_channel"),
    "large": ("families", "measure_large"),
    "decode": ("families", "measure_decoding"),
    "extraction": ("extraction", "measure"),
    "store": ("store", "measure"),
    "search": ("store", "measure_search"),
    "job": ("job", "measure"),
    "imports": ("imports", "measure"),
    # Last: the threads of the networks stay in the process.
    "cnn": ("cnn", "measure"),
    "histo": ("cnn", "measure_shipped"),
}
#: Of another run's ratio, from which on ours is worse: what differs from run to run is less.
_WORSE = 1.25


def make_parser():
    """Build the command line."""
    parser = argparse.ArgumentParser(prog="run.py", description="Measure the speed of histofeat; write a report.")
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help="folder with idc/ and perhaps breakhis/; default: a synthetic cohort")
    add("--weights", type=Path, metavar="DIR", help="folder of ImageNet weights; default: random weights")
    add("--full", action="store_true", help="as many files and rows as IDC has, too: 277,524 synthetic ones "
        "(2 to 4 GB in the temporary folder, 5 GB of memory)")  # fmt: skip
    add("--output", type=Path, default=REPOSITORY / "reports" / "speed", metavar="DIR",
        help="the report's folder (default: reports/speed)")  # fmt: skip
    add("--overwrite", action="store_true", help="replace a finished report in the output folder")
    add("--against", type=Path, default=REPOSITORY / "reports" / "speed" / "speed.json", metavar="FILE",
        help="the run whose ratios are the measure (default: reports/speed/speed.json)")  # fmt: skip
    add("--accept-worse", action="store_true", help="write the report whatever its ratios are")
    add("--quick", action="store_true", help="tiny sizes: shows that everything works, its numbers say nothing")
    add("--only", nargs="+", metavar="NAME", default=list(BENCHMARKS),
        help=f"some of {', '.join(BENCHMARKS)}, or single families: {', '.join(FAMILIES)}")  # fmt: skip
    return parser


def main(arguments=None):
    """Run the benchmarks; returns the exit code."""
    from rows import DisagreementError

    try:
        return run_command("run.py", run, make_parser().parse_args(arguments))
    except DisagreementError as error:
        print(f"run.py: the two sides disagree, so nothing is compared or written.\n{error}", file=sys.stderr)
        return 1


def run(options):
    """Measure what was asked for, write the report, and compare its ratios with those of an older one."""
    import writing
    from material import Material

    command = command_line("speed/run.py", make_parser(), options)
    check(options)
    aside = options.output.with_name(f"{options.output.resolve().name}-worse")
    writing.check_output(options.output, overwrite=options.overwrite)
    writing.check_output(aside, overwrite=True)
    before = json.loads(options.against.read_text(encoding="utf-8"))["rows"] if options.against.is_file() else []
    started, rows = time.perf_counter(), []
    with tempfile.TemporaryDirectory(prefix="histofeat-speed-", ignore_cleanup_errors=True) as scratch:
        material = Material(options.data, scratch, quick=options.quick)
        data = f"{len(material.dataset):,} {material.label} patches"
        print(data, flush=True)
        for name in options.benchmarks:
            print(f"{name} ...", flush=True)
            module, function = BENCHMARKS[name]
            found = getattr(importlib.import_module(module), function)(material, options)
            rows += found
            for row in found:
                print(f"  {words(row)}", flush=True)
    seconds = time.perf_counter() - started
    payload = writing.payload_of(rows, data=data, command=command, seconds=seconds, quick=options.quick)
    found = [] if options.accept_worse else worse(payload["rows"], before)
    print(f"report: {writing.write(payload, aside if found else options.output)}")
    if found:
        sys.exit(
            f"run.py: expected ratios at most a quarter worse than in {options.against.name}, got {len(found)}: "
            f"{'; '.join(found)}. Find the change, or accept them with --accept-worse."
        )


def worse(rows, before):
    """Return words for each row whose ratio is worse than that of the row of the same name, made of the same words."""
    from chart import faster

    old, found = {(row["name"], row["what"], row["ratio_of"]): row["ratio"] for row in before if row["ratio"]}, []
    for row in filter(lambda row: row["ratio"], rows):
        known = old.get((row["name"], row["what"], row["ratio_of"]), row["ratio"])
        if (known / row["ratio"]) ** (1 if row["ratio_of"] == faster(row) else -1) > _WORSE:
            found.append(f"{row['name']}, {row['ratio_of']} {row['ratio']:.3g}, was {known:.3g}")
    return found


def check(options):
    """Refuse what is known to be wrong before the minutes that it takes to find out; split --only into its parts."""
    from histofeat.studies import check_names

    check_names("--only", options.only, (*BENCHMARKS, *FAMILIES))
    for option in ("data", "weights"):
        folder = getattr(options, option)
        if folder is not None and not folder.is_dir():
            raise ValueError(f"--{option}: expected a folder, got {str(folder)!r}. Correct the path.")
    # None named: each benchmark measures those it is made for.
    options.families = [name for name in FAMILIES if name in options.only]
    asked = {*options.only, *(("families",) if options.families and "large" not in options.only else ())}
    options.benchmarks = [name for name in BENCHMARKS if name in asked]


def words(row):
    """One line about a row, for the screen."""
    if row.ours is None:
        return f"{row.name}: {row.note}"
    text = f"{row.name}: {row.ours:.4g} {row.unit}"
    if row.peer is not None:
        text += f", peer {row.peer:.4g}, {row.ratio_of} {row.ratio:.3g}"
    return text


if __name__ == "__main__":
    sys.exit(main())
