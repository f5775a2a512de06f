"""How far apart near-duplicates may be: false alarms and missed copies of HF003 on real patches, by distance.

    python benchmarks/protocols/near_duplicates.py --data /path/to/idc --overwrite

The 49 official test patients take no part. Writes reports/near-duplicates. The distance that was chosen is
`histofeat.evaluation.NEAR_DISTANCE`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study import run_study

if __name__ == "__main__":
    sys.exit(run_study("near-duplicates"))
