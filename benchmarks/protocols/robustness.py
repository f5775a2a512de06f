"""How much stain, blur, compression, light and orientation cost each feature family on patients not seen before.

    python benchmarks/protocols/robustness.py --data /path/to/idc --weights /path/to/weights

Every family is fitted on patches as they are, in folds of patients, and scored on perturbed patches of the patients
held out. On the IDC patients outside the official test set. Writes reports/robustness.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study import run_study

main = partial(run_study, "robustness")

if __name__ == "__main__":
    sys.exit(main())
