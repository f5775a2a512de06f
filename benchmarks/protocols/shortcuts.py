"""What shortcuts reach on their own, and how well features recognise the patient.

    python benchmarks/protocols/shortcuts.py --data /path/to/idc --weights /path/to/weights

On the IDC patients outside the official test set, under folds of patients: classifiers on mean colour, background,
compression and blur, and coordinates, beside pipelines on the usual features; and patient identification by every
family. Writes reports/shortcuts.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study import run_study

main = partial(run_study, "shortcuts")

if __name__ == "__main__":
    sys.exit(main())
