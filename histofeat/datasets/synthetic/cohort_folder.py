"""The folder of a synthetic cohort: found again where it is the very same, carried on, never written over another."""

from __future__ import annotations

import hashlib
import json
import numbers
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from histofeat.exceptions import DatasetError

__all__ = [
    "MANIFEST",
    "SYNTHETIC_TARGET_NAMES",
    "check_count",
    "cohort_folder",
    "is_reusable",
    "read_manifest",
    "tree_digest",
    "write_cohort",
    "write_manifest",
]


def check_count(maker: str, name: str, value: Any, least: int) -> int:
    """Give `value` as int; refuse what is no whole number of at least `least`, in the name of the function `maker`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise DatasetError(
            f"{maker}.{name}: expected an integer of at least {least}, got {value!r}. Give a whole number."
        )
    return int(value)


def cohort_folder(maker: str, root: str | os.PathLike[str] | None) -> Path:
    """Give the absolute folder, a new temporary one for None; refuse what is no path in the name of `maker`."""
    if root is None:
        return Path(tempfile.mkdtemp(prefix="histofeat-synthetic-"))
    if not isinstance(root, (str, os.PathLike)) or not str(root):
        raise DatasetError(f"{maker}.root: expected the path of a folder or None, got {root!r}. Give a path.")
    return Path(root).expanduser().absolute()


def is_reusable(folder: Path, header: Mapping[str, Any]) -> bool:
    """Whether the very cohort lies in the folder; False where it may be written; an error otherwise.

    Parameters
    ----------
    folder : Path
    header : mapping
        Who made it, which version, which parameters: what the manifest of the very cohort begins with.

    Raises
    ------
    DatasetError
        When the folder is a file, or holds anything else, another cohort, or a cohort that was changed.
    """
    if folder.exists() and not folder.is_dir():
        raise DatasetError(f"{folder}: expected a folder for the synthetic cohort, got a file. Give another path.")
    if not folder.exists() or not any(folder.iterdir()):
        return False
    manifest = read_manifest(folder)
    if manifest is None:
        first = min(child.name for child in folder.iterdir())
        raise DatasetError(
            f"{folder}: expected a new or empty folder, or a cohort that histofeat wrote, got other files such as "
            f"{first!r}. Give another folder: nothing is overwritten."
        )
    wanted, found = dict(header), {key: manifest.get(key) for key in header}
    if found != wanted:
        raise DatasetError(
            f"{folder}: expected the synthetic cohort {wanted}, got {found}. Give another folder, or delete this one."
        )
    if manifest.get("complete") is not True:
        return False
    if _digest_on_disk(folder) != manifest.get("sha256"):
        raise DatasetError(
            f"{folder}: expected the files that {MANIFEST} was written for, got others: a patch was changed, added or "
            "removed. Delete the folder, or give another one."
        )
    return True


def write_cohort(folder: Path, header: Mapping[str, Any], patches: Iterable[tuple[str, bytes]]) -> None:
    """Write every patch, then a manifest that says so; an earlier attempt that was cut short is carried on.

    Parameters
    ----------
    folder : Path
    header : mapping
        As in `is_reusable`.
    patches : iterable of (str, bytes)
        Relative path and PNG bytes of each.

    Raises
    ------
    DatasetError
        When the folder cannot be made, or holds files of something else.
    """
    files = dict(patches)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(
            f"{folder}: expected a folder that can be made, got {type(error).__name__}. Give a path you may write to."
        ) from error
    foreign = _files_below(folder) - set(files)
    if foreign:
        raise DatasetError(
            f"{folder}: expected only files of the synthetic cohort that was begun here, got {min(foreign)!r}. "
            "Delete the folder, or give another one."
        )
    write_manifest(folder, {**header, "complete": False})
    for name in {name.rpartition("/")[0] for name in files}:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        # Straight over a file of an attempt that was cut short: it may hold half a patch.
        (folder / name).write_bytes(content)
    write_manifest(folder, {**header, "n_patches": len(files), "sha256": tree_digest(files), "complete": True})


def _files_below(folder: Path) -> set[str]:
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    # Hidden files are what file browsers leave behind by looking.
    return {name for name in files if not name.startswith(MANIFEST) and "/." not in f"/{name}"}


def _digest_on_disk(folder: Path) -> str:
    return tree_digest({name: (folder / name).read_bytes() for name in _files_below(folder)})


MANIFEST = "histofeat-synthetic.json"


# Not the names of the IDC classes: these are drawn shapes, and no table may suggest anything else.
SYNTHETIC_TARGET_NAMES = ("no tumour", "tumour")


def read_manifest(root: Path) -> dict[str, Any] | None:
    """Content of the manifest in a folder; None when there is none or it is no JSON object."""
    try:
        content = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_manifest(root: Path, content: Mapping[str, Any]) -> None:
    """Write the manifest in one step, so that no reader ever sees half of it."""
    partial = root / f"{MANIFEST}.partial"
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(root / MANIFEST)


def tree_digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 over names and contents, in name order."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name}\0{hashlib.sha256(files[name]).hexdigest()}\n".encode())
    return total.hexdigest()
