"""Folders on disk, as every loader meets them: given by a user, listed, told from files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from histofeat.exceptions import DatasetError

__all__ = ["existing_folder", "is_folder", "list_folder"]


def existing_folder(root: Any, owner: str, holds: str, *, hint: str | None = None) -> Path:
    """Path of a folder that is there.

    Parameters
    ----------
    root : path
        What the user gave.
    owner : str
        Who asks for it.
    holds : str
        What the folder is to hold.
    hint : str, optional
        What the folder given holds in the words of a user; by default `holds`.

    Returns
    -------
    folder : Path
        Absolute, so that paths below it still hold in worker processes; not resolved, so that they read as the user's.

    Raises
    ------
    DatasetError
        If it is no path, does not exist, or is a file.
    """
    if not isinstance(root, (str, os.PathLike)) or not str(root):
        raise DatasetError(
            f"{owner}: expected the path of a folder, got {root!r}. Give the folder that holds {hint or holds}."
        )
    folder = Path(root).expanduser().absolute()
    if not folder.exists():
        raise DatasetError(
            f"{folder}: expected a folder with {holds}, got a path that does not exist. "
            "Check the spelling; data/README.md says how to get the data."
        )
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: expected a folder with {holds}, got a file. If it is the downloaded archive, unpack it and "
            "give the folder."
        )
    return folder


def list_folder(folder: str) -> list[os.DirEntry]:
    """Entries of a folder, by name.

    Raises
    ------
    DatasetError
        If it cannot be listed. A patient or class who silently drops out would change every number, so a folder is
        never left out.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DatasetError(
            f"{folder}: expected a folder that can be listed, got {type(error).__name__}. "
            "Give the user who runs this the right to read it."
        ) from error


def is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder, or a link to one; a link that leads back to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False
