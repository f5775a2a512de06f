"""``python -m histofeat``: the command line, where the command ``histofeat`` is not on the path."""

import sys

from histofeat.cli import main

if __name__ == "__main__":
    sys.exit(main())
