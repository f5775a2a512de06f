"""Errors by kind (patch, leak, data set, weights, missing package), and phrases that their messages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "DatasetError",
    "GroupLeakageError",
    "MissingExtraError",
    "PatchError",
    "WeightsError",
    "and_more",
    "known_names",
]


class PatchError(ValueError):
    """An image, or an array that stands for one, cannot be used as a patch."""


class GroupLeakageError(ValueError):
    """A split would put one patient on both sides, or patients are not known well enough to rule it out."""


class DatasetError(ValueError):
    """A data set on disk is missing, incomplete beyond use, or contradicts itself."""


class WeightsError(ValueError):
    """Pretrained weights cannot be had, or are not the ones that the encoder expects."""


class MissingExtraError(ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


def and_more(n: int) -> str:
    """End of a phrase that names the first of `n` offenders.

    Examples
    --------
    >>> and_more(1), and_more(3)
    ('', ' (and 2 more)')
    """
    return f" (and {n - 1:,} more)" if n > 1 else ""


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
    return f"Did you mean {near[0]!r}?" if near else f"Known names: {', '.join(known)}."
