"""What stain normalisation is worth: Reinhard, Macenko and none before the families, on clean and on shifted stains.

    python benchmarks/protocols/normalization.py --data /path/to/idc --weights /path/to/weights

Normalisers are fitted on the training patients of each fold. On the IDC patients outside the official test set. Writes
reports/normalization.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study import run_study

main = partial(run_study, "normalization")

if __name__ == "__main__":
    sys.exit(main())
