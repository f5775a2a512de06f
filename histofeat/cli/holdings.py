"""``histofeat audit`` and ``histofeat store``: what is in a folder, and in a feature store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["audit", "store"]


def audit(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder with PATIENT/{0,1}/*.png.")],
) -> None:
    """Say what an IDC folder holds, and what was left out and why."""
    from histofeat.datasets import load_idc

    print(f"{folder}:\n{load_idc(folder).audit.summary()}")


def store(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The store's file.")],
    purge: Annotated[
        str | None, typer.Option(metavar="FAMILY", help="Remove what is stored of this family.", show_default=False)
    ] = None,
) -> None:
    """Say how large a feature store is, by extractor."""
    from histofeat.features import FeatureStore

    if not file.is_file():
        raise ValueError(f"{file}: expected a feature store, found no such file. Correct the path.")
    if purge is not None:
        print(f"removed {FeatureStore(file).purge(purge):,} rows of {purge}")
    print(FeatureStore(file).summary())
