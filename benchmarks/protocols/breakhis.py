"""The protocol of BreakHis: patient hold-outs at each magnification, and the subtypes by folds of patients.

    python benchmarks/protocols/breakhis.py --data /path/to/BreaKHis_v1
    python benchmarks/protocols/breakhis.py --data /path/to/sample --output reports/breakhis-sample
    python benchmarks/protocols/breakhis.py --quick

Five 70/30 hold-outs of patients at each magnification (the published lists where they lie beside the images, else ours
of the same kind): patient and image recognition rate of texture and colour features with several heads, mean and
standard deviation, and corrected tests of their differences. Then benign against malignant, and the subtypes, under
folds of patients, with a table of the classes. Without --data, --quick draws a synthetic cohort. Writes
reports/breakhis.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study import run_study

main = partial(run_study, "breakhis")

if __name__ == "__main__":
    sys.exit(main())
