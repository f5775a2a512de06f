"""``python -m histofeat``: the command line, where the command ``histofeat`` is not on the path."""

import sys
from importlib import import_module

if __name__ == "__main__":
    # By name: this file belongs to no wing, and imports of wings go downward.
    sys.exit(import_module("histofeat.cli").main())
