"""``histofeat audit`` and ``histofeat store``: list what folders and feature stores hold."""

from pathlib import Path
from typing import Annotated

import typer

from histofeat.cli._options import option


def audit(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="The folder with PATIENT/{0,1}/*.png, or several as one.")
    ],
) -> None:
    """List what IDC folders hold together, and what was left out and why.

    Examples
    --------
    histofeat audit idc
    """
    from histofeat.datasets import load_idc

    print(f"{', '.join(map(str, folders))}:\n{load_idc(folders).audit.summary()}")


def store(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The store's file.")],
    purge: option(str | None, "FAMILY", "Remove what is stored of this family.") = None,
) -> None:
    """List the content of a feature store by family.

    Examples
    --------
    histofeat store features.sqlite
    histofeat store features.sqlite --purge glcm
    """
    from histofeat.features import FeatureStore

    if not file.is_file():
        raise ValueError(f"{file}: expected a feature store, found no such file. Correct the path.")
    if purge is not None:
        print(f"removed {FeatureStore(file).purge(purge):,} rows of {purge}")
    print(FeatureStore(file).summary())
