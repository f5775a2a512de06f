"""Download what others publish: resumed after a break, checked against the first download, unpacked within bounds."""

import gzip
import hashlib
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import IO
from urllib.parse import urlsplit

from histofeat.datasets._writing import regular_size, unpacked_limit, write_whole
from histofeat.exceptions import DatasetError, first_line

#: What a damaged archive raises, or one with a file where it has a folder, too.
_BROKEN = (
    EOFError, FileExistsError, NotADirectoryError, RuntimeError, ValueError, gzip.BadGzipFile, tarfile.TarError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_CHUNK, _TIMEOUT_S, _PLAIN = 1 << 20, 10.0, {"Accept-Encoding": "identity"}
DOWNLOADS: dict[str, tuple[str, str]] = {
    "idc": ("https://andrewjanowczyk.com/wp-static/IDC_regular_ps50_idx5.zip",
            "277,524 patches of 279 patients; licence: CC0 as Kaggle lists it; cite doi:10.1117/12.2043872"),
    "breakhis": ("http://www.inf.ufpr.br/vri/databases/BreaKHis_v1.tar.gz",
                 "7,909 images of 82 patients; licence: for research, read it at https://web.inf.ufpr.br/vri/databases/"
                 "breast-cancer-histopathological-database-breakhis/; cite doi:10.1109/TBME.2015.2496264"),
}  # fmt: skip
"""Where the archives of data sets are, and what they hold, by name."""


def fetch_file(
    url: str,
    folder: Path,
    *,
    before: Callable[[int], object] = lambda n_bytes: None,
    progress: Callable[[str, int, int], object] = lambda words, done, total: None,
) -> Path:
    """Download a file, or check the one that is there.

    Parameters
    ----------
    url : str
        Where the file is published.
    folder : Path
        Where it goes; made if it is missing. What has arrived of a download that broke stays in ``.NAME.*.partial``.
    before : callable, optional
        Called with the size in bytes, 0 where the server does not say it, before anything is downloaded; it may raise.
    progress : callable, optional
        Called with words, done and total in MiB.

    Returns
    -------
    path : Path

    Raises
    ------
    DatasetError
        If the file cannot be downloaded, the disk is too small for it and what an archive holds, or its content is not
        that of the first download, whose SHA-256 is in ``NAME.sha256`` beside it, in the format of ``sha256sum``.
    """
    import pooch
    import requests

    path = folder / url.rpartition("/")[2]
    record = folder / f"{path.name}.sha256"
    known = f"sha256:{record.read_text(encoding='utf-8').split()[0]}" if record.is_file() else None
    download = partial(_download, before=before, progress=progress)
    pooch.get_logger().setLevel("WARNING")
    new = not folder.exists()
    try:  # pooch moves the file to its place once it has the known hash
        pooch.retrieve(url, known, fname=path.name, path=folder, downloader=download)
    except (requests.RequestException, ValueError) as error:
        if new:
            with suppress(OSError):  # it holds what has arrived
                folder.rmdir()
        unreached = isinstance(error, requests.ConnectionError | requests.Timeout)
        got = f"no connection to {urlsplit(url).hostname}" if unreached else first_line(error)
        changed = "" if known is None else f"; if its publisher has changed it, remove {record.name}"
        remedy = f"Where there is no network, put the file from {url} there and try again{changed}."
        raise DatasetError(f"{path}: expected a download, got {got}. {remedy}") from error
    if known is None:
        with write_whole(record, overwrite=True) as part:
            part.write_text(f"{pooch.file_hash(str(path))}  {path.name}\n", encoding="utf-8")
    return path


def _download(url: str, output: str, _: object, *, before: Callable, progress: Callable) -> None:
    """Download to a file beside `output`, from where an earlier try ended, and move it there."""
    import requests

    with requests.get(url, stream=True, timeout=_TIMEOUT_S, headers=_PLAIN) as answer:
        answer.raise_for_status()
        said = [answer.headers.get(name, "") for name in ("Content-Length", "ETag", "Last-Modified")]
    total, version = int(said[0] or 0), hashlib.sha256("|".join([url, *said]).encode()).hexdigest()[:8]
    free, needed = shutil.disk_usage(Path(output).parent).free, total * (2.2 if url.endswith((".zip", ".gz")) else 1.1)
    if needed > free:
        raise ValueError(f"{free / 1e9:.1f} GB of disk space where {needed / 1e9:.1f} GB are needed")
    before(total)
    part = Path(output).with_name(f".{url.rpartition('/')[2]}.{version}.partial")
    done = part.stat().st_size if total and part.is_file() else 0
    if not total or done < total:
        asked = _PLAIN | ({"Range": f"bytes={done}-"} if done else {})
        with requests.get(url, stream=True, timeout=_TIMEOUT_S, headers=asked) as answer:
            answer.raise_for_status()
            with part.open("ab" if answer.status_code == requests.codes.partial else "wb") as file:
                for chunk in answer.iter_content(_CHUNK):
                    file.write(chunk)
                    progress("download, MiB", file.tell() >> 20, max(total, file.tell()) >> 20)
    if total and part.stat().st_size != total:
        raise ValueError(f"{part.stat().st_size:,} of {total:,} bytes, which are kept")
    part.replace(output)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack an archive of plain files into a new folder, whole or not at all.

    Parameters
    ----------
    archive : Path
        A zip file, or a tar file packed by gzip.
    folder : Path
        It must be new or empty.

    Returns
    -------
    folder : Path

    Raises
    ------
    DatasetError
        If the archive is damaged, unpacks to more than `unpacked_limit`, or holds links, devices, or names that lead
        out of the folder or are there twice.
    FileExistsError
        If the folder holds files.
    """
    unpacked, limit = 0, unpacked_limit(regular_size(archive))
    with write_whole(folder, folder=True, parents=True) as new:
        try:
            for name, plain, content in _members(archive):
                place = PureWindowsPath(name)  # knows the separators of all systems
                target = new.joinpath(*place.parts)
                if not plain or place.drive or place.root or ".." in place.parts or target.exists():
                    raise ValueError(f"a link, a place outside the folder or a second file: {name!r:.80}")
                target.parent.mkdir(parents=True, exist_ok=True)
                unpacked += 512  # what a member takes beside its bytes
                with content, target.open("xb") as file:
                    while chunk := content.read(_CHUNK):
                        unpacked += file.write(chunk)
                        if unpacked > limit:
                            raise ValueError(f"more than the {limit:,} bytes that are allowed")
        except _BROKEN as error:
            raise DatasetError(
                f"{archive}: expected an archive of plain files, got {first_line(error)}. Remove it and fetch it again."
            ) from error
    return folder


def _members(file: Path) -> Iterator[tuple[str, bool, IO[bytes] | None]]:
    """Yield name, whether it is a plain file, and content of each member that is no folder."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    kind = stat.S_IFMT(info.external_attr >> 16)
                    yield info.filename, kind in (0, stat.S_IFREG), archive.open(info)
    else:
        with tarfile.open(file, "r:gz") as archive:
            for member in archive:
                if not member.isdir():
                    yield member.name, member.isreg(), archive.extractfile(member) if member.isreg() else None
