"""``python tests/measure_start.py MODEL IMAGE``: what `histofeat predict` takes, in times of its libraries' import.

Runs of the command and of the imports alone take turns; printed are medians of processor time and of the clock.
"""

import json
import os
import statistics
import subprocess
import sys
import time

PREDICT = "import sys; from histofeat.cli import main; main(['predict', *sys.argv[1:]])"
NAMES = PREDICT + "; import json; print(json.dumps([*sys.modules]), file=sys.stderr)"
IMPORTS = "import sys, importlib\nfor name in sys.argv[1:]: importlib.import_module(name)"


def loaded(words) -> list[str]:
    """Give the modules of other packages that predicting loads, in their order; those that load nothing alone left."""
    found = subprocess.run([sys.executable, "-c", NAMES, *words], capture_output=True, text=True, check=True)
    names = json.loads(found.stderr.splitlines()[-1])
    return [name for name in names if name.split(".")[0] not in {*sys.stdlib_module_names, "histofeat", "__main__"}]


def took(code: str, words) -> tuple[float, float]:
    """Seconds of the clock and of the processor that a fresh process takes."""
    clock, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    used = sum(after[2:4]) - sum(before[2:4])
    return time.perf_counter() - clock, used


if __name__ == "__main__":
    names = loaded(sys.argv[1:])
    importable = []
    for name in names:
        importable.append(name)
    pairs = [(took(PREDICT, sys.argv[1:]), took(IMPORTS, importable)) for _ in range(10)][1:]
    for at, what in enumerate(("clock", "processor")):
        predict, imports = (statistics.median(pair[side][at] for pair in pairs) for side in (0, 1))
        print(f"{what}: predict {predict:.2f} s, imports {imports:.2f} s: {predict / imports:.2f} times")
