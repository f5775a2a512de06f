"""Probabilities, thresholds and prediction sets: what is asked for on training patients, and what others get.

    python benchmarks/protocols/calibration.py --data /path/to/idc --weights /path/to/weights

In folds of patients, on the IDC patients outside the official test set, with and without class weights: Brier score
and calibration error before and after calibration, thresholds by three rules, and conformal prediction sets. Writes
reports/calibration.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study import run_study

main = partial(run_study, "calibration")

if __name__ == "__main__":
    sys.exit(main())
