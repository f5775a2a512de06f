"""Compile kernels with Numba, and keep on disk what can be computed again only where no other user can change it."""

import atexit
import contextlib
import functools
import logging
import os
import pickle
import shutil
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from histofeat.exceptions import DAMAGED

_log = logging.getLogger(__name__)


def is_own(folder: str | os.PathLike[str]) -> bool:
    """Whether this user alone puts files into a folder, or would if it were made.

    Parameters
    ----------
    folder : path
        It need not exist.

    Returns
    -------
    own : bool
        False for a relative path: where a user has no home folder, "~" stays "~", below the working folder. False if
        the folder or one above it belongs to another user than this one and the superuser, or can be written by all,
        unless it is above and its files can be moved by their owners alone, as in ``/tmp``.

    Examples
    --------
    >>> is_own("~/.cache")
    False
    """
    folder = Path(folder)
    if not hasattr(os, "geteuid"):
        return folder.is_absolute()
    for place in (folder, *folder.parents) if folder.is_absolute() else ():
        try:
            found = place.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return False
        kept_apart = place != folder and found.st_mode & stat.S_ISVTX
        if found.st_uid not in (0, os.geteuid()) or (found.st_mode & stat.S_IWOTH and not kept_apart):
            return False
    return folder.is_absolute()


def user_cache() -> Path:
    """Folder for what can be computed again.

    Returns
    -------
    folder : Path
        ``$XDG_CACHE_HOME/histofeat`` or ``~/.cache/histofeat``; a folder that is removed with the process where that is
        not this user's own (see `is_own`), as for a user without a home. It may be impossible to write to it.

    Warns
    -----
    RuntimeWarning
        If it is not this user's own; once.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "histofeat"  # noqa: PTH111
    return folder if is_own(folder) else _passing_cache()


@functools.cache
def _passing_cache() -> Path:
    _say_no_cache()
    for place in (None, "/dev/shm"):  # the second can be written in many containers whose disk is read-only
        with contextlib.suppress(OSError):
            folder = tempfile.mkdtemp(prefix="histofeat-cache-", dir=place)
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            tempfile.tempdir = place or tempfile.tempdir  # TensorFlow and Matplotlib do not work without one
            return Path(folder)
    return Path(os.devnull) / "histofeat"  # writing to it fails as on a full disk


@functools.cache
def _say_no_cache() -> None:
    warnings.warn(
        "cache: expected a folder that can be used and that this user alone can write, got none. Every "
        "process compiles and converts again what it needs; set XDG_CACHE_HOME to such a folder.",
        RuntimeWarning,
        stacklevel=3,
    )


def use_own_folder(variable: str, usual: str) -> None:
    """Set the variable of another package that names a folder for its files, where others could fill the usual one.

    Parameters
    ----------
    variable : str
        The environment variable that names the folder to that package, which must not have been imported yet.
    usual : str
        The folder that it takes without the variable; "~" is the home folder.

    Notes
    -----
    A variable that is set stays, and a usual folder that is this user's own (see `is_own`) is used if it can be
    written. Otherwise the variable names a folder that is removed with the process.
    """
    folder = Path(os.path.expanduser(usual))  # noqa: PTH111
    if variable not in os.environ and not (is_own(folder) and _can_be_written(folder)):
        os.environ[variable] = str(_passing_cache() / variable.lower())


@contextlib.contextmanager
def own_folder(variable: str, usual: str) -> Iterator[None]:
    """Do the same as `use_own_folder` for a block that imports the package, for one that looks but once.

    Keras would take ``/tmp/.keras``, which anybody can make, where it cannot write to the home.
    """
    given = os.environ.get(variable)
    use_own_folder(variable, usual)
    try:
        yield
    finally:
        if given is None:
            os.environ.pop(variable, None)


def _can_be_written(folder: Path) -> bool:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return os.access(there, os.W_OK)


def compiled(function: Callable | None = None, **options: Any) -> Any:
    """Compile a function with Numba, without the GIL, and keep the machine code on disk where that is possible.

    Parameters
    ----------
    function : callable
        What is decorated.
    **options
        Of `numba.njit`.

    Returns
    -------
    kernel : numba dispatcher

    Warns
    -----
    RuntimeWarning
        Once, if the code cannot be kept: every process then compiles again what it uses.

    Notes
    -----
    Numba keeps code in ``NUMBA_CACHE_DIR``, beside the source, or in the user's cache. A cache is code that will be
    run, so the last one is used only if it is the user's own.
    """
    import numba
    from numba.misc.appdirs import AppDirs

    if function is None:
        return functools.partial(compiled, **options)
    # Kernels are called from Python and from each other, never from C, for which Numba would compile each once more.
    kernel = numba.njit(nogil=True, no_cfunc_wrapper=True, **options)(function)
    if not hasattr(kernel, "enable_caching"):  # Numba is turned off
        return kernel
    beside = Path(function.__code__.co_filename).with_name("__pycache__")
    by_user = AppDirs(appname="numba", appauthor=False).user_cache_dir
    try:
        if not (numba.config.CACHE_DIR or _can_be_written(beside) or is_own(by_user)):
            raise OSError(by_user)
        kernel.enable_caching()
    except (RuntimeError, OSError):
        _say_no_cache()
    else:
        cache = kernel._cache
        cache.load_overload = _or_none(cache.load_overload, _say_compiling)
        cache.save_overload = _or_none(cache.save_overload)
    return kernel


def _or_none(access: Callable, lacking: Callable[[], None] = lambda: None) -> Callable:
    """Give None where the disk is full, or a file of the cache is damaged: the kernel is compiled then."""

    def tolerant(*arguments):
        try:
            found = access(*arguments)
        except (*DAMAGED, pickle.UnpicklingError):
            return _say_no_cache()
        return lacking() if found is None else found

    return tolerant


@functools.cache
def _say_compiling() -> None:
    # Of this level, it is shown on stderr where a program has not chosen otherwise.
    _log.warning("histofeat: kernels are compiled, as they are used here for the first time; later runs find them.")
