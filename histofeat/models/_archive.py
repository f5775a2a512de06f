"""The file format of models: an archive of a description and parts, each checked against its hash."""

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from histofeat.datasets import check_place, read_members, unpacked_limit, write_whole
from histofeat.exceptions import DAMAGED

FORMAT = "histofeat model"
FORMAT_VERSION = 4
"""Version of the file format that is written. Raise it when another histofeat could misread a file."""

#: Versions that are read: 3 has no guard rails.
_READ = (3, FORMAT_VERSION)

_DESCRIPTION = "model.json"
_PART = re.compile(r"[a-z0-9_-]+\.(skops|json|keras)")
#: The earliest time that an archive can hold: the same model gives the same bytes on any day.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


class ModelFileError(ValueError):
    """Raised for a file that is no model, is damaged, or has contents that this histofeat does not read."""


def check_target(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Check that a model can be written to a path, before hours of training.

    Parameters
    ----------
    path : path
        The file to be written.
    overwrite : bool, default=False
        Whether an existing file may be replaced.

    Returns
    -------
    path : Path
        The path.

    Raises
    ------
    ModelFileError
        If the file exists already, its folder does not, or it cannot be written.
    """
    path = Path(path)
    try:
        check_place(path)
    except OSError as error:
        raise ModelFileError(str(error)) from error
    if path.is_dir():
        raise ModelFileError(f"{path}: expected the name of a file, got a folder. Give a name such as model.histofeat.")
    if path.exists() and not overwrite:
        raise ModelFileError(
            f"{path}: expected a new file, got one that exists. Give another name, or overwrite=True (--overwrite)."
        )
    if not path.parent.is_dir():
        raise ModelFileError(
            f"{path}: expected a file in a folder that exists, got {str(path.parent)!r}, which is none. Make it first."
        )
    return path


def fixed_zip(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Pack members in their order and without a date: equal members give equal bytes.

    They are compressed, unless `read_members` would refuse such a small archive of so much.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, _NO_TIME)
            info.compress_type, info.external_attr = method, 0o644 << 16
            archive.writestr(info, content)
    packed = buffer.getvalue()
    # A half, since an archive lies in another one.
    if method and sum(map(len, members.values())) > unpacked_limit(len(packed)) // 2:
        return fixed_zip(members, zipfile.ZIP_STORED)
    return packed


def write_archive(path: Path, description: Mapping, parts: Mapping[str, bytes], *, overwrite: bool = False) -> None:
    """Write the file of a model, completely or not at all.

    Parameters
    ----------
    path : Path
        The file.
    description : mapping
        What `read_archive` gives back; the format and a hash of each part are added.
    parts : mapping of str to bytes
        The parts by name.
    overwrite : bool, default=False
        Whether an existing file may be replaced.

    Raises
    ------
    ModelFileError
        If the file exists or cannot be written.
    """
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **description,
        "parts": {name: {"bytes": len(part), "sha256": _digest(part)} for name, part in parts.items()},
    }
    text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
    content = fixed_zip({_DESCRIPTION: text.encode(), **parts})
    try:
        with write_whole(path, overwrite=overwrite) as part:
            part.write_bytes(content)
    except OSError as error:
        raise ModelFileError(str(error)) from error


def _digest(part: bytes) -> str:
    return hashlib.sha256(part).hexdigest()


def read_archive(path: str | os.PathLike[str]) -> tuple[dict, dict[str, bytes]]:
    """Read a model's file, and check every part against its hash.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    description : dict
        What was given to `write_archive`, and the format's own entries.
    parts : dict of str to bytes
        The parts by name. Nothing in them has been run or built.

    Raises
    ------
    ModelFileError
        If the file is missing, is no model, is truncated or changed, or is of another format.
    """
    path = Path(path)
    if not path.is_file():
        got = "a folder" if path.is_dir() else "a pipe or a device" if path.exists() else "no such file"
        raise ModelFileError(f"{path}: expected the file of a model, got {got}. Correct the path.")
    try:
        parts = read_members(path)
    except DAMAGED as error:
        with path.open("rb") as file:
            ours = file.read(2) == b"PK"
        if not ours:
            raise ModelFileError(_foreign(path, "a file of another kind")) from error
        raise ModelFileError(_damaged(path, str(error) or type(error).__name__)) from error
    if _DESCRIPTION not in parts:
        raise ModelFileError(_foreign(path, f"an archive without one {_DESCRIPTION}"))
    description = _described(path, parts.pop(_DESCRIPTION))
    _check_parts(path, description, parts)
    return description, parts


def _described(path: Path, text: bytes) -> dict:
    try:
        description = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(_damaged(path, f"{_DESCRIPTION} is no JSON")) from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ModelFileError(_foreign(path, f"another archive with a {_DESCRIPTION}"))
    version = description.get("format_version")
    if version not in _READ:
        raise ModelFileError(
            f"{path}: expected a model in format {FORMAT_VERSION}, got format {version!r:.20}, written by histofeat "
            f"{description.get('histofeat')!r:.20}. Train the model again, or load it with the histofeat that wrote it."
        )
    return description


def _check_parts(path: Path, description: dict, parts: dict[str, bytes]) -> None:
    listed = description.get("parts")
    if not isinstance(listed, dict) or not all(isinstance(record, dict) for record in listed.values()):
        raise ModelFileError(_damaged(path, f"{_DESCRIPTION} lists no parts"))
    for name in sorted({*listed, *parts}):
        if name not in parts:
            raise ModelFileError(_damaged(path, f"{name!r} is missing"))
        if name not in listed:
            raise ModelFileError(_damaged(path, f"{name!r} is not listed"))
        if not _PART.fullmatch(name):
            raise ModelFileError(_damaged(path, f"{name!r} is no name of a part"))
        if listed[name].get("sha256") != _digest(parts[name]):
            raise ModelFileError(_damaged(path, f"{name!r} ({len(parts[name]):,} bytes) is not what its hash says"))


def _damaged(path: Path, what: str) -> str:
    return f"{path}: expected a whole model, got a damaged one: {what}. Copy the file again, or train the model again."


def _foreign(path: Path, what: str) -> str:
    return f"{path}: expected a model of histofeat, got {what}. Give a file that `histofeat train` or save_model wrote."
