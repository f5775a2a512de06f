"""``python tests/measure_start.py MODEL IMAGE``: what `histofeat predict` takes, in times of its libraries' import.

Runs of the command and of the imports alone take turns; printed are medians, of the clock and of the processor. The
imports are every module of other packages that predicting loads, and their packages alone, as a person lists them.
"""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time

PREDICT = "import sys; from histofeat.cli import main; main(['predict', *sys.argv[1:]])"
NAMES = PREDICT + "; import json; print(json.dumps([*sys.modules]), file=sys.stderr)"
IMPORTS = "import sys, importlib\nfor name in sys.argv[1:]: importlib.import_module(name)"
#: Read under this name; the package alone loads next to nothing.
PARTS = {"skops": "skops.io"}


def loaded(words: list[str]) -> list[str]:
    """Give the modules of other packages that predicting loads, in their order."""
    found = subprocess.run([sys.executable, "-c", NAMES, *words], capture_output=True, text=True, check=True)
    names = json.loads(found.stderr.splitlines()[-1])
    known = {*sys.stdlib_module_names, "histofeat", "__main__", "__mp_main__"}
    return [name for name in names if name.partition(".")[0] not in known]


def took(code: str, words: list[str]) -> tuple[float, float]:
    """Seconds of the clock and of the processor that a fresh process takes."""
    started, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-c", code, *words], capture_output=True, check=True)
    after = os.times()
    return time.perf_counter() - started, sum(after[2:4]) - sum(before[2:4])


if __name__ == "__main__":
    modules = loaded(sys.argv[1:])
    packages = [name for name in modules if "." not in name and name[0] != "_" and importlib.util.find_spec(name)]
    packages = [PARTS.get(name, name) for name in packages]
    runs = {"predict": (PREDICT, sys.argv[1:]), "modules": (IMPORTS, modules), "packages": (IMPORTS, packages)}
    found = [{name: took(*run) for name, run in runs.items()} for _ in range(10)][1:]
    for at, what in enumerate(("clock", "processor")):
        median = {name: statistics.median(each[name][at] for each in found) for name in runs}
        rates = ", ".join(f"{median['predict'] / median[name]:.2f} of its {name}" for name in ("modules", "packages"))
        print(f"{what}: {', '.join(f'{name} {value:.2f} s' for name, value in median.items())}: {rates}")
