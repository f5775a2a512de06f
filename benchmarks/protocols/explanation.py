"""What the score rests on: families, groups and single features permuted, families left out, and their price in time.

    python benchmarks/protocols/explanation.py --data /path/to/idc --weights /path/to/weights

On patients held out, of the IDC patients outside the official test set. Writes reports/explanation.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study import run_study

main = partial(run_study, "explanation")

if __name__ == "__main__":
    sys.exit(main())
