"""How the program stands damaged files, kills, made-up bytes and hostile files.

    python benchmarks/study.py program-robustness --data /path/to/idc
    python benchmarks/study.py program-robustness --data /path/to/idc --runs 1000000 --fuzzed earlier-run.json

Damages 1,000 real patches outside the official test set in each format, kills long work, runs the targets of
tests/robustness/fuzz.py, and measures memory and time of hostile files and of an extraction of as many patches as IDC
has. Writes reports/robustness-of-the-program. It needs a clone, whose tests it uses; what could not be done is named
"not tried".
"""

import importlib
import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from histofeat.images import read_patch
from histofeat.studies import Findings, Study, lines, load_development_patients, option

ROBUSTNESS = Path(__file__).resolve().parents[2] / "tests" / "robustness"
#: Patches of the whole IDC data set.
WHOLE = 277_524
#: Hostile files of a quick run.
QUICK_FILES = ("header of 100,000 x 100,000.png", "a named pipe.png")
#: What an extraction of as many may take.
MOST_MIB = 2048


@dataclass(frozen=True)
class Amounts:
    """How much is tried: images a damage, kills a stage, executions a target, patches of the extraction."""

    images: int
    kills: int
    runs: int
    patches: int

    @classmethod
    def of(cls, options):
        """Read the options; a quick run does a little of each."""
        if options.quick:
            return cls(20, 10, 200, 500)
        return cls(options.images, options.kills, options.runs, options.patches)


def run(options, runtime):
    """Try everything, one part after another."""
    sys.path.insert(0, str(ROBUSTNESS))
    amounts = Amounts.of(options)
    parts = {
        "damaged": lambda: damage(options, amounts),
        "kills": lambda: kill(amounts.kills, options.seed),
        "hostile": lambda: called("memory", "hostile_rows", QUICK_FILES if options.quick else None),
        "extraction": lambda: [called("memory", "in_a_process", ["patches", amounts.patches], None)],
        "fuzz": lambda: fuzz(options, amounts.runs),
    }
    found = {}
    for done, (name, measure) in enumerate(parts.items()):
        runtime.report("parts", done, len(parts))
        found[name] = measure()
    results = {name: rows or [] for name, rows in found.items()}
    results["not_tried"] = [name for name, rows in found.items() if rows is None]
    results["bounds"] = {name: getattr(importlib.import_module("memory"), name) for name in ("MOST_MIB", "MOST_S")}
    results["bounds"] |= {"extraction_mib": MOST_MIB, "whole": WHOLE}
    tables = {name: pd.DataFrame(rows).drop(columns=["findings", "curve"], errors="ignore")
              for name, rows in found.items() if rows}  # fmt: skip
    return Findings(results, tables, {"coverage": coverage_figure(found["fuzz"])} if found["fuzz"] else {})


def called(module, function, *arguments):
    """Call a function of tests/robustness; None where there is none."""
    if importlib.util.find_spec(module) is None:
        return None
    return getattr(importlib.import_module(module), function)(*arguments)


def damage(options, amounts):
    """Damage patches of the development patients."""
    dataset = load_development_patients(options.data, quick=options.quick, random_state=options.seed)
    count = min(amounts.images, len(dataset))
    chosen = np.random.default_rng(options.seed).choice(len(dataset), count, replace=False)
    table = called("damaged_images", "measure", [read_patch(dataset.X[row]) for row in chosen])
    return (
        None
        if table is None
        else [{k.replace(" ", "_"): v for k, v in row.items()} for row in table.to_dict("records")]
    )


def kill(n_kills, seed):
    """Kill long work at random moments: a row for each stage, with the seconds of work that were lost."""
    found = called("test_kills", "run", n_kills, seed, 3600)
    return None if found is None else [{"stage": stage, **row} for stage, row in found.items()]


def fuzz(options, runs):
    """Run each target, or take the results of an earlier run."""
    if options.fuzzed:
        return json.loads(Path(options.fuzzed).read_text(encoding="utf-8"))
    module = importlib.import_module("fuzz")
    engine = module.engine_of()
    return [module.run_target(target, runs, engine=engine, seed=options.seed) for target in module.TARGETS]


def coverage_figure(rows):
    """Draw the covered branches over executions, a line for each target."""
    points = [
        {"panel": row["engine"], "target": row["target"], "executions": n, "branches": m}
        for row in rows
        for n, m in row["curve"]
    ]
    axes = {"x_label": "Executions", "y_label": "Branches covered", "x_log": True}
    title = "Coverage of the fuzz targets"
    return lines(title, pd.DataFrame(points), "panel", "target", "executions", "branches", **axes)


STUDY = Study(
    "program-robustness",
    "Robustness of the program",
    "Damaged images, kills, fuzzing, and the memory and time of hostile files.",
    run,
    options={
        "images": option(1000, "patches that are damaged, in each format and way"),
        "kills": option(200, "kills in all"),
        "runs": option(1_000_000, "executions of each fuzz target"),
        "patches": option(WHOLE, "made-up patches of the extraction"),
        "fuzzed": option("", "results of an earlier run of tests/robustness/fuzz.py, to show", metavar="FILE"),
    },
    folder="robustness-of-the-program",
    template=Path(__file__).with_name("study-program-robustness.md.j2"),
)
