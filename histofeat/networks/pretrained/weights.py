"""Where the weights of an encoder are: a file, a folder, Keras's own cache, or the network, in that order."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import socket
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from histofeat.exceptions import WeightsError
from histofeat.networks.pretrained.records import Encoder

__all__ = ["hash_weights", "shipped_weights"]


_log = logging.getLogger(__name__)


#: The environment variable that names a folder of weights, read at each call.
WEIGHTS_VARIABLE = "HISTOFEAT_WEIGHTS"


#: Where Keras downloads from; asked for a connection first, so that a machine without network learns it at once.
_KERAS_HOST = ("storage.googleapis.com", 443)


_TIMEOUT_S = 10.0


_SIGNATURES = {".h5": b"\x89HDF\r\n\x1a\n", ".keras": b"PK\x03\x04"}


def shipped_weights(encoder: Encoder) -> Path:
    """Where the package has the weights of an encoder of its own."""
    return Path(__file__).with_name("shipped") / encoder.name / encoder.weight_file


def hash_weights(path) -> str:
    """Content hash of a file of weights: 32 hexadecimal digits of BLAKE2b over its bytes.

    Computed once per process for a file that does not change (path, size and time of change).

    Examples
    --------
    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "w.h5"
    ...     _ = file.write_bytes(b"weights")
    ...     hash_weights(file)
    '873ac3c6df553eaa62331fd4ff9b521a'
    """
    path = Path(path)
    stat = path.stat()
    return _hash_bytes(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _hash_bytes(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _check_folder(folder: Path, *, given: bool) -> Path:
    if not folder.is_dir():
        source = "weights_dir" if given else f"environment variable {WEIGHTS_VARIABLE}"
        raise WeightsError(
            f"{source}: expected a folder of weights, got {str(folder)!r}, which is no folder. Correct the path."
        )
    return folder


def _check_file(encoder: Encoder, path: Path) -> Path:
    if not path.is_file():
        raise WeightsError(
            f"{path}: expected a file of {encoder.name} weights, got no such file. "
            f'Correct the path, or use weights="imagenet" with {encoder.weight_file} in a folder of weights.'
        )
    signature = _SIGNATURES.get(path.suffix)
    if signature is None:
        raise WeightsError(
            f"{path}: expected weights as .h5, .weights.h5 or .keras, got the suffix {path.suffix!r}. "
            "Save them with Keras's `save_weights` under one of these names."
        )
    with path.open("rb") as file:
        start = file.read(len(signature))
    if start != signature:
        kind = "an HDF5 file" if path.suffix == ".h5" else "a Keras archive"
        raise WeightsError(
            f"{path}: expected {kind}, got {path.stat().st_size} bytes that start with {start!r}. "
            f"Copy or download {encoder.weight_file} again."
        )
    return path


def _keras_cache() -> Path:
    # Keras's own rule, so that the cache is found without importing Keras (seconds) or making the folder.
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models"


def _download(encoder: Encoder, searched: list[Path]) -> Path:
    from histofeat.networks.pretrained import network

    try:
        _check_reachable()
        _log.info("downloading the ImageNet weights of %s", encoder.name)
        path = network.download_imagenet(encoder, timeout_s=_TIMEOUT_S)
    except OSError as error:
        places = " or ".join(map(str, searched))
        raise WeightsError(
            f"{encoder.weight_file}: expected the ImageNet weights of {encoder.name}, got no such file in {places} "
            f"and no download ({error}). Put the file (or {' or '.join(encoder.accepted_files[1:])}) into a folder "
            f"and name it by weights_dir or by the environment variable {WEIGHTS_VARIABLE}, or pass weights=<path>."
        ) from error
    return _check_file(encoder, path)


def _check_reachable() -> None:
    proxy = urllib.request.getproxies().get("https")
    address = _KERAS_HOST
    if proxy:
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        address = (parts.hostname or proxy, parts.port or 3128)
    socket.create_connection(address, timeout=_TIMEOUT_S).close()
