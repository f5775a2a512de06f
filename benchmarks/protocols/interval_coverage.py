"""How often the 95 % intervals contain the truth: patients resampled, and patches resampled, on simulated patients.

    python benchmarks/protocols/interval_coverage.py --overwrite

Writes reports/interval-coverage.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study import run_study

if __name__ == "__main__":
    sys.exit(run_study("interval-coverage"))
