"""What a split by patch adds: the same features and heads under folds of patches and under folds of patients.

    python benchmarks/protocols/leakage.py --data /path/to/idc --weights /path/to/weights

On the IDC patients outside the official test set, and on a synthetic cohort in which nothing but the patient can be
recognised: there a split by patch must look brilliant, and a split by patient must stay at chance. Writes
reports/leakage.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study import run_study

main = partial(run_study, "leakage")

if __name__ == "__main__":
    sys.exit(main())
