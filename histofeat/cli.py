"""The command ``histofeat``: what a data set or a feature store holds. Thin: parse, call, print."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : list of str, optional
        Words after ``histofeat``; by default those of the process.

    Returns
    -------
    code : int
        0, or 2 after one sentence on stderr about what is wrong with the input.
    """
    parser = argparse.ArgumentParser(prog="histofeat", description=__doc__.split(": ", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    audit = commands.add_parser("audit", help="what an IDC folder holds, and what was left out and why")
    audit.add_argument("folder", type=Path, help="the folder with PATIENT/{0,1}/*.png")
    store = commands.add_parser("store", help="how large a feature store is, by extractor")
    store.add_argument("file", type=Path, help="the store's file")
    store.add_argument("--purge", metavar="FAMILY", help="remove what is stored of this family")
    options = parser.parse_args(arguments)
    try:
        print(_audit(options.folder) if options.command == "audit" else _store(options.file, options.purge))
    except ValueError as error:
        print(f"histofeat: {error}", file=sys.stderr)
        return 2
    return 0


def _audit(folder: Path) -> str:
    from histofeat.datasets import load_idc

    return f"{folder}:\n{load_idc(folder).audit.summary()}"


def _store(file: Path, family: str | None) -> str:
    from histofeat.store import FeatureStore

    if not file.is_file():
        raise ValueError(f"{file}: expected a feature store, found no such file. Correct the path.")
    removed = "" if family is None else f"removed {FeatureStore(file).purge(family):,} rows of {family}\n"
    return removed + FeatureStore(file).summary()
