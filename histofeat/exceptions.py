"""Errors by kind (patch, leak, data set, weights, missing package), and the checks and phrases of arguments."""

import difflib
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

DAMAGED = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError,
    TypeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What readers of Python, NumPy, scikit-learn, Keras and XGBoost raise for a file that is damaged or forged."""


class PatchError(ValueError):
    """An image, or an array that stands for one, cannot be used as a patch."""


class GroupLeakageError(ValueError):
    """A split would put one patient on both sides, or patients are not known well enough to rule it out."""


class DatasetError(ValueError):
    """A data set on disk is missing, incomplete beyond use, or contradicts itself."""


class WeightsError(ValueError):
    """Pretrained weights cannot be had, or are not the ones that the encoder expects."""


class ClusterError(ValueError):
    """A cluster has no scheduler or worker that answers, or its workers die of a task."""


class MissingExtraError(ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


@contextmanager
def needs(package: str, expected: str, or_else: str = "") -> Iterator[None]:
    """Name a package that is not installed: the block imports it.

    Parameters
    ----------
    package : str
        Its name for pip, or that of the extra that installs it.
    expected : str
        The start of the message: where the package is needed, and what was expected.
    or_else : str
        What follows "Install it with pip install", for another way.

    Raises
    ------
    MissingExtraError
        If the import fails.

    Examples
    --------
    >>> with needs("nowhere", "head='far': expected the package nowhere", ", or choose head='svm'"):
    ...     import nowhere
    Traceback (most recent call last):
    histofeat.exceptions.MissingExtraError: head='far': expected the package nowhere, got No module named 'nowhere'...
    """
    try:
        yield
    except ImportError as error:
        remedy = f'Install it with pip install "{package}"{or_else}.'
        raise MissingExtraError(f"{expected}, got {error}. {remedy}") from error


def and_more(n: int) -> str:
    """End of a phrase that names the first of `n` offenders.

    Examples
    --------
    >>> and_more(1), and_more(3)
    ('', ' (and 2 more)')
    """
    return f" (and {n - 1:,} more)" if n > 1 else ""


def counted(n: int, noun: str, several: str = "") -> str:
    """Return a number with its noun in the singular or plural; `several` is an irregular plural, or has a verb.

    Examples
    --------
    >>> counted(1, "patch"), counted(1200, "patch"), counted(0, "model"), counted(1, "image is", "images are")
    ('1 patch', '1,200 patches', '0 models', '1 image is')
    """
    plural = several or noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")
    return f"{n:,} {noun if n == 1 else plural}"


def refuse_first(offenders: Iterable[Any], expected: str, remedy: str, *, error: type[ValueError] = ValueError) -> None:
    """Refuse offenders if there are some; the message names the first and counts the others.

    Parameters
    ----------
    offenders : iterable
        What is wrong, such as names.
    expected : str
        The start of the message: the argument, what was expected of it, and "got".
    remedy : str
        The sentence that ends the message.
    error : type of ValueError
        What is raised.

    Raises
    ------
    ValueError
        If there is an offender.

    Examples
    --------
    >>> refuse_first(["a", "b"], "names: expected numbers, got", "Rename them.")
    Traceback (most recent call last):
    ValueError: names: expected numbers, got 'a' (and 1 more). Rename them.
    """
    offenders = list(offenders)
    if offenders:
        raise error(f"{expected} {offenders[0]!r}{and_more(len(offenders))}. {remedy}")


def check_name(
    where: str, name: object, known: Iterable[Any], expected: str | None = None, *, error: type[ValueError] = ValueError
) -> None:
    """Refuse what is not one of the known names or numbers.

    Parameters
    ----------
    where : str
        The argument that a message names.
    name : object
        What was given.
    known : iterable of str or of int
        The names or numbers that are accepted.
    expected : str, optional
        What a message says was expected; by default one of the names.
    error : type of ValueError
        What is raised.

    Raises
    ------
    ValueError
        If `name` is not one of them; the message ends with `known_names`.

    Examples
    --------
    >>> check_name("strategy", "uniforn", ("quantile", "uniform"))
    Traceback (most recent call last):
    ValueError: strategy: expected one of quantile, uniform, got 'uniforn'. Did you mean 'uniform'?
    """
    known = list(known)
    if isinstance(name, bool) or not isinstance(name, str | Integral) or name not in known:
        hint = known_names(name, [item for item in known if isinstance(item, str)])
        if expected is None:  # the names are in the message already
            expected, hint = f"one of {', '.join(map(str, known))}", hint if "?" in hint else "Give one of them."
        raise error(f"{where}: expected {expected}, got {name!r:.80}. {hint}")


def check_whole(
    where: str,
    value: object,
    least: int,
    remedy: str = "Give a whole number.",
    *,
    most: int | None = None,
    error: type[ValueError] = ValueError,
) -> int:
    """Refuse what is not a whole number of at least `least`, such as a float or a bool.

    Parameters
    ----------
    where : str
        The argument that a message names.
    value : object
        What was given.
    least : int
        The smallest number that is accepted.
    remedy : str
        The sentence that ends the message.
    most : int, optional
        The largest number that is accepted.
    error : type of ValueError
        What is raised.

    Returns
    -------
    value : int

    Raises
    ------
    ValueError
        If `value` is not such a number.

    Examples
    --------
    >>> check_whole("folds", 1, 2, "Use 5.")
    Traceback (most recent call last):
    ValueError: folds: expected a whole number of at least 2, got 1. Use 5.
    """
    fits = isinstance(value, Integral) and not isinstance(value, bool) and value >= least
    if not fits or (most is not None and value > most):
        valid = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise error(f"{where}: expected a whole number {valid}, got {value!r}. {remedy}")
    return int(value)


def check_real(where: str, value: object, words: str, fits: Callable[[float], bool], remedy: str) -> None:
    """Refuse what is not a finite number in a range.

    Parameters
    ----------
    where : str
        The argument that a message names.
    value : object
        What was given.
    words : str
        The range, such as "from 0, below 1".
    fits : callable
        Whether a number is in it.
    remedy : str
        The sentence that ends the message.

    Raises
    ------
    ValueError
        If `value` is not such a number.

    Examples
    --------
    >>> check_real("rho", 2, "from 0 to 1", lambda value: 0 <= value <= 1, "Use 0.9.")
    Traceback (most recent call last):
    ValueError: rho: expected a number from 0 to 1, got 2. Use 0.9.
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value) or not fits(value):
        raise ValueError(f"{where}: expected a number {words}, got {value!r}. {remedy}")


def check_that(
    where: str, value: object, fits: Any, expected: str, remedy: str, *, error: type[ValueError] = ValueError
) -> None:
    """Refuse a value that does not fit.

    Parameters
    ----------
    where : str
        The argument that a message names.
    value : object
        What was given.
    fits : object
        Whether it fits: true or false.
    expected : str
        What was expected, in words.
    remedy : str
        The sentence that ends the message.
    error : type of ValueError
        What is raised.

    Raises
    ------
    ValueError
        If `fits` is false.

    Examples
    --------
    >>> check_that("degrees", 45, 45 in (0, 90), "0 or 90", "Use quarter turns.")
    Traceback (most recent call last):
    ValueError: degrees: expected 0 or 90, got 45. Use quarter turns.
    """
    if not fits:
        raise error(f"{where}: expected {expected}, got {value!r:.80}. {remedy}")


def check_type(
    where: str, value: object, kind: type, expected: str, remedy: str, *, error: type[ValueError] = ValueError
) -> None:
    """Refuse what is no object of the type `kind`, which `expected` says in words; the message names type and value.

    All other parameters are those of `check_that`.

    Examples
    --------
    >>> check_type("plan", 3, str, "a text", "Give a name.")
    Traceback (most recent call last):
    ValueError: plan: expected a text, got int (3). Give a name.
    """
    if not isinstance(value, kind):
        shown = f" ({value!r:.50})" if isinstance(value, str | float | int | list | dict) else ""
        raise error(f"{where}: expected {expected}, got {type(value).__name__}{shown}. {remedy}")


def check_shape(where: str, values: Any, shape: tuple[int | str, ...], remedy: str) -> None:
    """Refuse an array of another shape.

    Parameters
    ----------
    where : str
        The argument that a message names.
    values : ndarray
        What was given.
    shape : tuple of int and str
        The shape; a name, such as "n", stands for any number of at least 1.
    remedy : str
        The sentence that ends the message.

    Raises
    ------
    ValueError
        If the shape is another.

    Examples
    --------
    >>> import numpy as np
    >>> check_shape("proba", np.zeros((5, 3)), ("n", 2), "Pass two classes.")
    Traceback (most recent call last):
    ValueError: proba: expected shape (n, 2), got (5, 3). Pass two classes.
    """
    sizes = zip(shape, values.shape, strict=False)
    if values.ndim != len(shape) or any(size < 1 if isinstance(n, str) else size != n for n, size in sizes):
        wanted = str(shape).replace("'", "")
        raise ValueError(f"{where}: expected shape {wanted}, got {values.shape}. {remedy}")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's words; the name of its class where it has none.

    Examples
    --------
    >>> first_line(ValueError("short" + chr(10) + "and long")), first_line(KeyError())
    ('short', 'KeyError')
    """
    words = str(getattr(error, "strerror", None) or error)  # the words of the system, without its number
    return (words.strip().splitlines() or [type(error).__name__])[0]


def refuse_rows(wrong: Any, values: Any, expected: str, remedy: str) -> None:
    """Refuse values if some of them are wrong; the message shows the first and counts them.

    Parameters
    ----------
    wrong : ndarray of shape (n,), bool
        Which values are wrong.
    values : ndarray of shape (n, ...)
        The values.
    expected : str
        The start of the message: the argument, and what was expected of it.
    remedy : str
        The sentence that ends the message.

    Raises
    ------
    ValueError
        If a value is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> score = np.array([0.5, 1.5])
    >>> refuse_rows(score > 1, score, "score: expected at most 1", "Calibrate first.")
    Traceback (most recent call last):
    ValueError: score: expected at most 1, got 1.5 in row 1 (1 such rows). Calibrate first.
    """
    rows = wrong.nonzero()[0]
    if rows.size:
        (got,) = values[rows[:1]].tolist()
        raise ValueError(f"{expected}, got {got} in row {rows[0]} ({rows.size} such rows). {remedy}")


def known_names(name: object, known: Iterable[str]) -> str:
    """End of a message about an unknown name: the nearest known one where there is one, else all of them.

    Parameters
    ----------
    name : object
        What was given; shown as it came.
    known : iterable of str
        The names that would have been accepted.

    Returns
    -------
    sentence : str
        One sentence with a full stop.

    Examples
    --------
    >>> known_names("colour", ["color", "lbp"])
    "Did you mean 'color'?"
    >>> known_names("x", ["color", "lbp"])
    'Known names: color, lbp.'
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known names: {', '.join(known):.2000}."
