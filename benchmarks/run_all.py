"""The main job, `histofeat compare`, with the reports, the ledger and the commit of this repository.

    python benchmarks/run_all.py                      # the synthetic cohort
    python benchmarks/run_all.py --data /path/to/idc --weights /path/to/weights --output reports/mine

`histofeat compare --help` lists the options. Here data may also be named by --data, and names of a list may have blanks
between them; all cores are used.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from study import call


def main(arguments=None):
    """Run the comparison; returns the exit code."""
    return call("compare", sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
