"""How many training patients it takes: ROC-AUC against their number, and against as many patches spread over all.

    python benchmarks/protocols/learning_curves.py --data /path/to/idc --weights /path/to/weights

In folds of patients, on the IDC patients outside the official test set. Writes reports/learning-curves.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study import run_study

main = partial(run_study, "learning-curves")

if __name__ == "__main__":
    sys.exit(main())
