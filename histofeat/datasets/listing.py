"""What a person names on a command line, as a list of image files: files, folders, patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from histofeat.datasets.image_files import IMAGE_SUFFIXES, is_image_name, is_system_name
from histofeat.exceptions import DatasetError

__all__ = ["ImageList", "list_images"]


@dataclass(frozen=True)
class ImageList:
    """Image files in a settled order.

    Parameters
    ----------
    paths : tuple of str
        As they were named: what lies in a folder begins with the name of the folder.
    n_ignored : int
        Files in folders that are no image by their suffix.
    """

    paths: tuple[str, ...]
    n_ignored: int = 0

    def __len__(self) -> int:
        return len(self.paths)


def list_images(inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> ImageList:
    """List the images that files, folders and patterns name.

    Parameters
    ----------
    inputs : path, pattern, or sequence of these
        A file is taken whatever its suffix; a folder is searched to the bottom for files that are images by their
        suffix, hidden ones left out; a pattern such as ``slides/*/*.png`` (``**`` for folders of any depth) stands for
        what it meets.

    Returns
    -------
    images : ImageList
        The inputs in their order, what each stands for sorted by name, nothing twice.

    Raises
    ------
    DatasetError
        If an input is not there, or holds no image.

    Examples
    --------
    >>> from histofeat import make_cohort
    >>> cohort = make_cohort(n_patients=2, patches_per_patient=4)
    >>> len(list_images(cohort.root)), len(list_images(f"{cohort.root}/*/1/*.png"))
    (8, 3)
    """
    inputs = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    if not inputs:
        raise DatasetError("images: expected a file, a folder or a pattern, got none. Name one at least.")
    paths: dict[str, None] = {}
    n_ignored = 0
    for given in map(os.fspath, inputs):
        found, ignored = _listed(given)
        if not found:
            raise DatasetError(
                f"{given}: expected images ({', '.join(IMAGE_SUFFIXES)}), got none among {ignored:,} files. "
                "Correct the path, or name the files themselves."
            )
        paths.update(dict.fromkeys(found))
        n_ignored += ignored
    return ImageList(tuple(paths), n_ignored)


def _listed(given: str) -> tuple[list[str], int]:
    path = Path(given).expanduser()
    if path.is_file():
        return [str(path)], 0
    if path.is_dir():
        return _below(path)
    if not glob.has_magic(given):
        raise DatasetError(f"{given}: expected an image, a folder or a pattern, found no such file. Correct the path.")
    met = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - pathlib knows no absolute patterns
    if not met:
        raise DatasetError(f"{given}: expected a pattern that meets files, got one without any. Correct the pattern.")
    found, n_ignored = [], 0
    for path in map(Path, met):
        if path.is_file():
            below, ignored = ([str(path)], 0) if is_image_name(path.name) else ([], 1)
        else:  # `**` has met the files of its folders, too
            below, ignored = _below(path) if "**" not in given else ([], 0)
        found += below
        n_ignored += ignored
    return found, n_ignored


def _below(folder: Path) -> tuple[list[str], int]:
    found, n_ignored = [], 0
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_system_name(name)]
        shown = [name for name in files if not is_system_name(name)]
        found += [str(Path(parent) / name) for name in shown if is_image_name(name)]
        n_ignored += sum(not is_image_name(name) for name in shown)
    return sorted(found), n_ignored
