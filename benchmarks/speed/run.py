"""How fast is histofeat: against its peers, against its floor, and from files to features; one run on one machine.

    python benchmarks/speed/run.py                                    # synthetic images, some minutes
    python benchmarks/speed/run.py --data DIR --weights DIR --full    # real ones, and as many files as IDC has

Every benchmark checks first that both sides compute the same thing, and the run ends where they do not.
"""

import argparse
import importlib
import os
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
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
    "heads": ("heads", "measure"),
    "imports": ("imports", "measure"),
    # Last: the threads of the networks stay in the process.
    "cnn": ("cnn", "measure"),
    "histo": ("cnn", "measure_shipped"),
}


def parse_arguments(arguments=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="run.py", description="Measure the speed of histofeat; write a report.")
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help="folder with idc/ and perhaps breakhis/; default: a synthetic cohort")
    add("--weights", type=Path, metavar="DIR", help="folder of ImageNet weights; default: random weights")
    add(
        "--full",
        action="store_true",
        help="as many files and rows as IDC has, too: 277,524 synthetic ones "
        "(2 to 4 GB in the temporary folder, 5 GB of memory)",
    )
    add("--output", type=Path, default=REPOSITORY / "reports" / "speed", metavar="DIR",
        help="the report's folder (default: reports/speed)")  # fmt: skip
    add("--overwrite", action="store_true", help="replace a finished report in the output folder")
    add("--quick", action="store_true", help="tiny sizes: shows that everything works, its numbers say nothing")
    add("--only", nargs="+", metavar="NAME", default=list(BENCHMARKS),
        help=f"some of {', '.join(BENCHMARKS)}, or single families: {', '.join(FAMILIES)}")  # fmt: skip
    add("--radiomics-python", type=Path, metavar="FILE",
        help="interpreter that has pyradiomics (default: this one); see radiomics_peer.py")  # fmt: skip
    return parser.parse_args(arguments)


def main(arguments=None):
    """Run the benchmarks; returns the exit code."""
    options = parse_arguments(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from rows import DisagreementError

    try:
        run(options)
    except DisagreementError as error:
        print(
            f"run.py: the two sides disagree, so nothing is compared and nothing was written.\n{error}", file=sys.stderr
        )
        return 1
    except (ValueError, ImportError, OSError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("run.py: interrupted, nothing was written", file=sys.stderr)
        return 130
    return 0


def run(options):
    """Measure what was asked for and write the report."""
    check(options)
    import writing
    from material import Material

    writing.check_output(options.output, overwrite=options.overwrite)
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
    payload = writing.payload_of(rows, data=data, command=command(options), seconds=seconds, quick=options.quick)
    print(f"report: {writing.write(payload, options.output)}")


def check(options):
    """Refuse what is known to be wrong before the minutes that it takes to find out; split --only into its parts."""
    for name in options.only:
        if name not in (*BENCHMARKS, *FAMILIES):
            known = ", ".join((*BENCHMARKS, *FAMILIES))
            raise ValueError(f"--only: expected some of {known}, got {name!r}. Correct the name.")
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
    return text if row.target is None else f"{text}, target {'reached' if row.met else 'MISSED'}"


def command(options):
    """The command that repeats this run, with folders by their last name only."""
    parts, defaults = ["python", "benchmarks/speed/run.py"], vars(parse_arguments([]))
    for name, value in vars(options).items():
        if name not in defaults or value == defaults[name] or name in ("output", "overwrite"):
            continue
        parts.append(f"--{name.replace('_', '-')}")
        if isinstance(value, list):
            parts += value
        elif value is not True:
            parts.append(value.name)
    return " ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
