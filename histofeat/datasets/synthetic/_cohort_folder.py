"""The folder of a synthetic cohort: written whole, found again, never written over anything."""

import atexit
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from histofeat.datasets._image_files import checked_path
from histofeat.datasets._writing import write_whole
from histofeat.exceptions import DAMAGED, DatasetError, check_whole

MANIFEST = "histofeat-synthetic.json"
# Not the names of the IDC classes: these are drawn shapes, and no table may suggest anything else.
SYNTHETIC_TARGET_NAMES = ("no tumour", "tumour")


def make_tree(
    maker: str,
    root: str | os.PathLike[str] | None,
    version: int | str,
    counts: Mapping[str, tuple[Any, int]],
    draw: Callable[..., Iterable[tuple[str, bytes]]],
    others: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Write a cohort, whole or not at all, or find it where it was written before.

    Parameters
    ----------
    maker : str
        Name of the public function, for messages and the manifest.
    root : path or None
        The folder; None makes a temporary one, which is removed when the process ends.
    version : int or str
        Version of the drawing.
    counts : mapping of str to (int, int)
        Whole numbers among the arguments of `draw`, each with the least that it may be.
    draw : callable
        Gives the relative path and the PNG bytes of every patch.
    others : mapping
        Its other arguments.

    Returns
    -------
    folder : Path
        Absolute.

    Raises
    ------
    DatasetError
        When a count is no whole number or too small; when `root` is no path or a file, holds anything else, another
        cohort, or a cohort that was changed; when it cannot be written.
    """
    parameters = {
        name: check_whole(f"{maker}.{name}", value, least, error=DatasetError)
        for name, (value, least) in counts.items()
    } | dict(others)
    if root is None:
        folder = Path(tempfile.mkdtemp(prefix="histofeat-synthetic-"))
        atexit.register(_remove, folder, os.getpid())
    else:
        folder = checked_path(f"{maker}.root", root, "the path of a folder or None")
    header = {"made_by": f"histofeat {maker}", "version": version, **parameters}
    if _is_reusable(folder, header):
        return folder
    files = dict(draw(**parameters))
    try:
        with write_whole(os.path.realpath(folder), folder=True, parents=True) as part:
            for name in {name.rpartition("/")[0] for name in files}:
                (part / name).mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (part / name).write_bytes(content)
            write_manifest(part, {**header, "n_patches": len(files), "sha256": tree_digest(files)})
    except OSError as error:
        raise DatasetError(str(error)) from error
    return folder


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # not in a fork, which may end first
        shutil.rmtree(folder, ignore_errors=True)


def _is_reusable(folder: Path, header: Mapping[str, Any]) -> bool:
    """Whether the same cohort is in the folder; False where it may be written; an error otherwise."""
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
    if _digest_on_disk(folder) != manifest.get("sha256"):
        raise DatasetError(
            f"{folder}: expected the files that {MANIFEST} was written for, got others: a patch was changed, added or "
            "removed. Delete the folder, or give another one."
        )
    return True


def _digest_on_disk(folder: Path) -> str:
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    # Hidden files are what file browsers leave behind by looking.
    shown = {name for name in names if not name.startswith(MANIFEST) and "/." not in f"/{name}"}
    return tree_digest({name: names[name].read_bytes() for name in shown})


def read_manifest(root: Path) -> dict[str, Any] | None:
    """Content of the manifest in a folder; None when there is none or it is no JSON object."""
    try:
        content = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    except DAMAGED:
        return None
    return content if isinstance(content, dict) else None


def write_manifest(root: Path, content: Mapping[str, Any]) -> None:
    """Write the manifest of made-up images into a folder."""
    (root / MANIFEST).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def tree_digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 over names and contents, in name order."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name}\0{hashlib.sha256(files[name]).hexdigest()}\n".encode())
    return total.hexdigest()
