"""What a stored row is known by: the content of its image, and all that its extractor's numbers depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np

__all__ = ["FEATURES_VERSION", "content_key", "extractor_fingerprint", "extractor_name"]

FEATURES_VERSION = 1
"""Version of all feature values and decoding rules; part of every key of a store.

To change any number that a family gives: raise this by one, write the change under "Numbers changed" in CHANGELOG.md,
and run the whole test suite. Rows of older versions are then never read again; `FeatureStore.purge` removes them.
"""


def content_key(content: bytes | np.ndarray) -> bytes:
    """Hash what an image holds: the bytes of its file, or its array with shape and dtype.

    Parameters
    ----------
    content : bytes or ndarray
        The image as it came.

    Returns
    -------
    key : bytes of length 16
        BLAKE2b. Equal files have equal keys wherever they lie; a file and its decoded array have different ones.

    Examples
    --------
    >>> content_key(b"same") == content_key(b"same"), content_key(b"same") == content_key(b"other")
    (True, False)
    """
    if isinstance(content, np.ndarray):
        digest = hashlib.blake2b(f"{content.dtype} {content.shape} ".encode(), digest_size=16, person=b"array")
        digest.update(np.ascontiguousarray(content))
    else:
        digest = hashlib.blake2b(content, digest_size=16, person=b"file")
    return digest.digest()


def extractor_name(extractor: object) -> str:
    """Name the class of an extractor with its module: two classes of one name are two extractors.

    Examples
    --------
    >>> from histofeat import PFTAS
    >>> extractor_name(PFTAS())
    'histofeat.features.pftas.PFTAS'
    """
    return f"{type(extractor).__module__}.{type(extractor).__qualname__}"


def extractor_fingerprint(name: str, params: Mapping) -> tuple[str, str]:
    """Identify an extractor by all that its numbers depend on.

    Parameters
    ----------
    name : str
        Class of the extractor.
    params : mapping of str to None, bool, number, str, or lists, tuples, arrays and mappings of these
        Its parameters, and what else changes its numbers, such as the hash of a network's weights. A tuple, a list
        and an array of the same values are the same, as are a number of Python and of NumPy.

    Returns
    -------
    fingerprint : str
        Hash of name, parameters and `FEATURES_VERSION`.
    description : str
        The same as JSON that a person can read.

    Raises
    ------
    ValueError
        If a parameter is something else, which has no form that stays the same from run to run.

    Examples
    --------
    >>> extractor_fingerprint("LBPHistogram", {"radii_px": (1, 2)})[1]
    '{"extractor": "LBPHistogram", "radii_px": [1, 2], "version": 1}'
    """

    def plain(value):
        if isinstance(value, np.generic | np.ndarray):
            return value.tolist()
        raise ValueError(
            f"{name}: expected parameters of numbers, strings, lists and mappings, got {value!r:.80}. A store cannot "
            "recognise it in the next run: leave the store out, or give the family a `_fingerprint` of such values."
        )

    known_by = {"extractor": name, "version": FEATURES_VERSION, **params}
    description = json.dumps(known_by, sort_keys=True, default=plain)
    return hashlib.blake2b(description.encode(), digest_size=16).hexdigest(), description
